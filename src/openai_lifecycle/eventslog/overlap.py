"""Keeps one entry per call when another instrumentation traces the same call.

Instrumentations that wrap the resource methods (``chat.completions.create``) enclose ours, which wraps the request
beneath: their span is the parent of ours. Ours has more attributes, so theirs gets no entry.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanContext

from openai_lifecycle import semconv
from openai_lifecycle.codec import SpanAttributes, is_generation, is_ours

_REMEMBERED: Final = 4096


class Overlap:
    """Remembers the parent spans of our most recent generations, up to 4096."""

    def __init__(self) -> None:
        # The model is part of the key: a span around several calls, such as another provider's stream within which
        # we are called, does not duplicate ours.
        self._parents: OrderedDict[tuple[int, str], None] = OrderedDict()

    def note(self, span: ReadableSpan) -> None:
        """Remember the parent of ``span`` if ``span`` is our generation."""
        if span.parent is not None and is_ours(span):
            attributes = _attributes(span)
            if is_generation(attributes):
                self._remember(span.parent, attributes)

    def is_double(self, span: ReadableSpan) -> bool:
        """Return whether another instrumentation's ``span`` covers a call that has a span of ours."""
        context, attributes = span.get_span_context(), _attributes(span)
        if context is None or _key(context, attributes) not in self._parents:
            return False
        if span.parent is not None:  # a framework's span around it covers the same call
            self._remember(span.parent, attributes)
        return True

    def _remember(self, parent: SpanContext, attributes: SpanAttributes) -> None:
        self._parents[_key(parent, attributes)] = None
        if len(self._parents) > _REMEMBERED:
            self._parents.popitem(last=False)


def _attributes(span: ReadableSpan) -> SpanAttributes:
    attributes = span.attributes
    return {} if attributes is None else attributes


def _key(context: SpanContext, attributes: SpanAttributes) -> tuple[int, str]:
    return context.span_id, str(attributes.get(semconv.REQUEST_MODEL))
