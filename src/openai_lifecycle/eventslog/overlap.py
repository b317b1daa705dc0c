"""Keeps one entry per call when another instrumentation traces the same call.

Three kinds of them are recognized. One that wraps the resource methods (``chat.completions.create``) encloses ours,
which wraps the request beneath: its span is the parent of ours. One that wrapped the request before us, as Logfire does,
is enclosed: its span is a child of ours. One that is told of a call afterwards, such as LiteLLM's callback, makes a span
in another trace, with the same response id and in the same time. Ours has more attributes, so theirs gets no entry.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, TypeVar

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanContext

from openai_lifecycle import semconv
from openai_lifecycle.codec import SpanAttributes, is_generation, is_ours, times

_REMEMBERED: Final = 4096
_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


class Overlap:
    """Remembers the spans, their parents and the response ids of our most recent generations, up to 4096 each."""

    def __init__(self) -> None:
        # The model is part of the key, because a parent or child with another one is another call: another provider's
        # stream during which we are called, or another client that is called within our call.
        self._own: OrderedDict[tuple[int, str], None] = OrderedDict()
        self._parents: OrderedDict[tuple[int, str], None] = OrderedDict()
        self._responses: OrderedDict[str, tuple[int, int]] = OrderedDict()  # start and end of our span

    def note(self, span: ReadableSpan) -> None:
        """Remember ``span`` and its parent if ``span`` is our generation."""
        if not is_ours(span):  # nearly all spans of an application
            return
        context, attributes = span.get_span_context(), _attributes(span)
        if context is not None and is_generation(attributes):
            _remember(self._own, _key(context, attributes), None)
            self._note_parent(span, attributes)

    def note_response(self, span: ReadableSpan, response_id: str | None) -> None:
        """Remember the response of ``span``, our generation, if it has an id."""
        if response_id is not None:
            _remember(self._responses, response_id, times(span))

    def is_duplicate(self, span: ReadableSpan) -> bool:
        """Return whether another instrumentation's ``span`` covers a call that has a span of ours."""
        context, attributes = span.get_span_context(), _attributes(span)
        if span.parent is not None and _key(span.parent, attributes) in self._own:
            return True
        encloses = context is not None and _key(context, attributes) in self._parents
        if not encloses and not self._is_reported(span, str(attributes.get(semconv.RESPONSE_ID))):
            return False
        self._note_parent(span, attributes)  # a framework may have one more span around it
        return True

    def _note_parent(self, span: ReadableSpan, attributes: SpanAttributes) -> None:
        if span.parent is not None:
            _remember(self._parents, _key(span.parent, attributes), None)
            # Some take the model from the response, so the span of a call that failed names none.
            _remember(self._parents, _key(span.parent, {}), None)

    def _is_reported(self, span: ReadableSpan, response_id: str) -> bool:
        """Return whether ``span`` tells of a response of ours. A server may give all the same id, so times count too."""
        (start, end), (began, ended) = times(span), self._responses.get(response_id, (0, -1))
        return start <= ended and began <= end


def _remember(known: OrderedDict[_Key, _Value], key: _Key, value: _Value) -> None:
    known[key] = value
    if len(known) > _REMEMBERED:
        known.popitem(last=False)


def _attributes(span: ReadableSpan) -> SpanAttributes:
    attributes = span.attributes
    return {} if attributes is None else attributes


def _key(context: SpanContext, attributes: SpanAttributes) -> tuple[int, str]:
    return context.span_id, str(attributes.get(semconv.REQUEST_MODEL))
