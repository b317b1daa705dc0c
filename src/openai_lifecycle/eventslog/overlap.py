"""One call, one entry, also when another instrumentation traces the same call.

Instrumentations that wrap the resource methods (``chat.completions.create``) are around ours, which wraps the
request beneath: their span is the parent of ours. Ours knows more, so theirs gets no entry.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from opentelemetry.sdk.trace import ReadableSpan

from openai_lifecycle import semconv
from openai_lifecycle.codec import is_generation, is_ours

_REMEMBERED: Final = 4096


class Overlap:
    """Remembers which spans are parents of recent generations of ours, as many as 4096."""

    def __init__(self) -> None:
        # The model belongs to the key: a span around several calls, such as one of a stream of another
        # provider's within which we are called, is no double of ours.
        self._parents: OrderedDict[tuple[int, str], None] = OrderedDict()

    def note(self, span: ReadableSpan) -> None:
        """Remember the parent of ``span`` if that is a generation of ours."""
        if span.parent is not None and is_ours(span) and is_generation(span.attributes or {}):
            self._remember_parent(span)

    def is_double(self, span: ReadableSpan) -> bool:
        """Return whether ``span``, another instrumentation's, stands for a call that has a span of ours."""
        context = span.get_span_context()
        if context is None or _key(context.span_id, span) not in self._parents:
            return False
        self._remember_parent(span)  # a framework's span around it stands for the same call
        return True

    def _remember_parent(self, span: ReadableSpan) -> None:
        if span.parent is not None:
            self._parents[_key(span.parent.span_id, span)] = None
            if len(self._parents) > _REMEMBERED:
                self._parents.popitem(last=False)


def _key(span_id: int, span: ReadableSpan) -> tuple[int, str]:
    return span_id, str((span.attributes or {}).get(semconv.REQUEST_MODEL))
