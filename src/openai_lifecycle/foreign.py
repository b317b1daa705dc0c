"""Spans of other GenAI instrumentations → events. They are decoded from the conventions alone."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import StatusCode

from openai_lifecycle import semconv
from openai_lifecycle.codec import (
    LAYOUTS,
    LONGEST_ERROR,
    SYSTEM,
    SpanAttributes,
    SpanEvent,
    as_dict,
    brief_error,
    events_of,
    is_generation,
    text,
    times,
    tool_call,
)
from openai_lifecycle.events import LifecycleEvent
from openai_lifecycle.redaction import margin, redact, redact_attributes, redact_start
from openai_lifecycle.texts import parse_json, shortened


def decode(span: ReadableSpan, *, utc: bool, content: bool, content_limit: int) -> list[LifecycleEvent]:
    """Return the entries of a finished span in chronological order; none if it is no call to a model.

    Never raises: missing and ill-typed attributes count as unset. ``utc`` is for the header's time, ``content`` whether
    entries have any, and ``content_limit`` how many characters of ``message_content``.
    """
    attributes = as_dict(span.attributes)
    if not is_generation(attributes):  # most spans of an application
        return []
    shown = {name: attributes[name] for name in _SHOWN_AS_IS if name in attributes}
    attributes.update(redact_attributes(shown))
    recorded = _span_events(span, attributes, content_limit if content else None)
    return events_of(span, attributes, recorded, utc=utc)


#: What entries show of a span's attributes; other instrumentations do not redact it.
_SHOWN_AS_IS: Final = {
    semconv.PROVIDER,
    SYSTEM,
    semconv.USER_ID,
    semconv.FINISH_REASONS,
    *(name for layout in LAYOUTS.values() for _, name, _ in layout.metadata),
    *(name for layout in LAYOUTS.values() for name in layout.custom.values()),
}

#: Type of a message's part → how ``message_content`` shows it; text appears verbatim.
_SHOWN: Final[Mapping[str, Callable[[SpanAttributes], str]]] = {
    "text": lambda part: text(part.get("content")),
    "tool_call": lambda part: f"[tool_call {text(part.get('name'))}]",
    "tool_call_response": lambda part: f"[tool_result {text(part.get('id'))}]",
    "server_tool_call": lambda part: f"[tool_call {text(part.get('name'))}]",
    "server_tool_call_response": lambda part: f"[tool_result {text(part.get('id'))}]",
    "blob": lambda part: f"[{text(part.get('modality')) or 'file'}]",
    "uri": lambda part: f"[{text(part.get('modality')) or 'file'}]",
    "file": lambda _: "[file]",
}


def _span_events(span: ReadableSpan, attributes: SpanAttributes, limit: int | None) -> list[SpanEvent]:
    """Return the span events that ``span`` would carry if it were ours.

    ``limit`` is the maximum length of ``message_content`` in characters; ``None`` keeps no content at all.
    """
    start, end = times(span)
    end = end or start or time.time_ns()
    places = [attributes, *(event.attributes or {} for event in span.events)]
    sent, received = _found(places, semconv.INPUT_MESSAGES), _found(places, semconv.OUTPUT_MESSAGES)
    own: dict[str, Any] = {semconv.MESSAGE_CONTENT: ""}
    if sent:
        own[semconv.MESSAGES_COUNT] = len(sent)
    if limit:
        own[semconv.MESSAGE_CONTENT] = _content(_found(places, semconv.SYSTEM_INSTRUCTIONS), sent, limit)
    if span.status.status_code is StatusCode.ERROR or attributes.get(semconv.ERROR_TYPE):
        kind, status = text(attributes.get(semconv.ERROR_TYPE)), attributes.get(semconv.HTTP_STATUS_CODE)
        said = brief_error(kind, status) if limit is None else _error(span, attributes)
        own[semconv.ERROR_MESSAGE] = _start(said, LONGEST_ERROR)
        return [(semconv.GENERATION_ERROR, own, end)]
    if received:
        own[semconv.CHOICES_COUNT] = len(received)
        own[semconv.RESPONSE_LENGTH] = sum(
            len(text(part.get("content"))) for part in _parts(received[0]) if part.get("type") == "text"
        )
    calls = [part for message in received for part in _parts(message) if part.get("type") in _CALLS]
    return [
        *((semconv.TOOL_CALL_DETECTED, _tool_call(call, limit), end) for call in calls),
        (semconv.GENERATION_SUCCESS, own, end),
    ]


def _content(instructions: list[SpanAttributes], sent: list[SpanAttributes], limit: int) -> str:
    """Return system instructions, if any, and messages as one redacted line of ``limit`` characters."""
    messages = [{"role": "system", "parts": instructions}, *sent] if instructions else sent
    return _start(" | ".join(map(_line, messages)), limit)


def _start(said: str, limit: int) -> str:
    """Return the redacted first ``limit`` characters of ``said``; the rest is not searched, which takes long."""
    return shortened(redact_start(said, limit, margin(()), ()), limit, len(said))


#: Types of the parts that are tool calls: of the application's tools, and of those that the server runs.
_CALLS: Final = ("tool_call", "server_tool_call")


def _tool_call(part: SpanAttributes, limit: int | None) -> dict[str, Any]:
    kind, arguments = "function", part.get("arguments")
    details = part.get("server_tool_call")
    if isinstance(details, Mapping):  # the kind of a built-in tool, and what it was asked
        kind = text(details.get("type"))
        arguments = {name: asked for name, asked in details.items() if name != "type"}
    if arguments is not None and not isinstance(arguments, str):
        arguments = json.dumps(arguments, ensure_ascii=False, default=str)
    return tool_call(
        call_id=redact(text(part.get("id"))),
        name=redact(text(part.get("name"))),
        kind=redact(kind),
        arguments="" if limit is None else redact(arguments or "{}"),
    )


def _error(span: ReadableSpan, attributes: SpanAttributes) -> str:
    for event in span.events:
        message = text((event.attributes or {}).get(semconv.ERROR_MESSAGE))
        if message:
            return message
    return span.status.description or text(attributes.get(semconv.ERROR_TYPE))


def _found(places: Iterable[SpanAttributes], name: str) -> list[SpanAttributes]:
    """Return the objects under ``name`` in the first of ``places`` that has it, as values or as JSON."""
    value: object = next((place[name] for place in places if place.get(name)), None)
    if isinstance(value, str):
        value = parse_json(value)
    return [m for m in value if isinstance(m, Mapping)] if isinstance(value, (list, tuple)) else []


def _parts(message: SpanAttributes) -> list[SpanAttributes]:
    parts = message.get("parts")
    if isinstance(parts, (list, tuple)):
        return [part for part in parts if isinstance(part, Mapping)]
    content = message.get("content")
    return [{"type": "text", "content": content}] if isinstance(content, str) else []


def _line(message: SpanAttributes) -> str:
    shown = []
    for part in _parts(message):
        kind = text(part.get("type"))
        show = _SHOWN.get(kind)
        shown.append(f"[{kind}]" if show is None else show(part))
    return f"{text(message.get('role'))}: {' '.join(shown)}"
