"""Span ⇄ events: how lifecycle events are stored on a span.

Nothing is stored twice: what the conventions put on the span (model, usage, finish reasons, …) is read from
the span's attributes, and a span event carries only the rest. The first part of this file builds the
attributes of the span events of a call for the code that records it; the rest, :func:`decode`, turns a finished
span back into the documented entries. Spans of other GenAI instrumentations carry no lifecycle events and are
decoded from the conventions alone.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import re
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timezone
from typing import Any, Final, NamedTuple, TypeAlias

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import StatusCode

from openai_lifecycle import semconv
from openai_lifecycle.events import (
    LifecycleEvent,
    LLMGenerationError,
    LLMGenerationSuccess,
    LLMInitializationError,
    LLMInitializationStart,
    LLMInitializationSuccess,
    Metadata,
    ToolCallDetected,
    assemble,
)
from openai_lifecycle.redaction import margin, redact, redact_attributes, redact_start
from openai_lifecycle.texts import parse_json, shortened

SpanAttributes: TypeAlias = Mapping[str, Any]

#: ``gen_ai.operation.name`` → ``operation`` of an entry. Spans of any other operation are not generations.
OPERATIONS: Final[Mapping[str, str]] = {
    "chat": "llm_generation",
    "text_completion": "llm_generation",
    "generate_content": "llm_generation",
    "embeddings": "llm_embedding",
    "image_generation": "llm_image_generation",
    "speech": "llm_speech",
    "transcription": "llm_transcription",
    "translation": "llm_translation",
    "moderation": "llm_moderation",
}
_INITIALIZATION: Final = "llm_initialization"
#: How many characters of an error's message are recorded: a server may quote the whole request in it.
LONGEST_ERROR: Final = 8192
_FAILED: Final = re.compile(r"[4-9]\d\d")  # the status of an HTTP error
_YEAR_9999: Final = 253_370_764_800_000_000_000  # in nanoseconds after the epoch


# ------------------------------------------------------------------ events → span events
def generation_success(
    *,
    messages_count: int,
    message_content: str,
    temperature: float | None,
    response_length: int,
    choices_count: int,
) -> dict[str, Any]:
    """Return the attributes of a ``LLM_GENERATION_SUCCESS`` span event."""
    attributes = _request(messages_count, message_content, temperature)
    attributes[semconv.RESPONSE_LENGTH] = response_length
    attributes[semconv.CHOICES_COUNT] = choices_count
    return attributes


def generation_error(
    *, messages_count: int, message_content: str, temperature: float | None, error: str
) -> dict[str, Any]:
    """Return the attributes of a ``LLM_GENERATION_ERROR`` span event."""
    attributes = _request(messages_count, message_content, temperature)
    attributes[semconv.ERROR_MESSAGE] = error
    return attributes


def _request(messages_count: int, message_content: str, temperature: float | None) -> dict[str, Any]:
    attributes: dict[str, Any] = {semconv.MESSAGES_COUNT: messages_count}
    if message_content:
        attributes[semconv.MESSAGE_CONTENT] = message_content
    if temperature is not None:  # as the caller gave it, 1 or 1.0; the span attribute is a double
        attributes[semconv.TEMPERATURE] = temperature
    return attributes


def tool_call(*, call_id: str, name: str, kind: str, arguments: str) -> dict[str, Any]:
    """Return the attributes of a ``TOOL_CALL_DETECTED`` span event."""
    return {
        semconv.TOOL_CALL_ID: call_id,
        semconv.TOOL_NAME: name,
        semconv.TOOL_TYPE: kind,
        semconv.TOOL_CALL_ARGUMENTS: arguments,
    }


def brief_error(kind: str, status: object) -> str:
    """Return an error's text that quotes neither server nor caller: its type and, if that is an error's, the HTTP status.

    ``status`` is a number or its text, ``None`` if there is none.
    """
    shown = f"HTTP {status}" if _FAILED.fullmatch(str(status)) else ""
    return ": ".join(filter(None, (kind, shown)))


# ------------------------------------------------------------------ span → events
def decode(span: ReadableSpan, *, utc: bool, content: bool, content_limit: int) -> list[LifecycleEvent]:
    """Return the entries of a finished span in chronological order; most spans have none.

    Never raises: missing and ill-typed attributes count as unset. ``utc`` is for the header's time. ``content``,
    whether entries have any, and ``content_limit``, the characters of ``message_content``, apply only to spans of
    other instrumentations; ours were recorded as configured.
    """
    attributes = _dict(span.attributes)
    lifecycle = [event for event in span.events if event.name in _LAYOUTS] if is_ours(span) else ()
    if lifecycle:
        _derive(span, attributes)
        found = [(event.name, _dict(event.attributes), event.timestamp) for event in lifecycle]
    elif is_generation(attributes):
        shown = {name: attributes[name] for name in _SHOWN_AS_IS if name in attributes}
        attributes.update(redact_attributes(shown))
        _derive(span, attributes)
        found = _foreign(span, attributes, content_limit if content else None)
    else:  # most spans of an application
        return []
    return [_event(_LAYOUTS[name], attributes | own, time, utc=utc) for name, own, time in found]


def is_generation(attributes: SpanAttributes) -> bool:
    """Return whether a span with these ``attributes`` is a call to a model."""
    return _text(attributes.get(semconv.OPERATION)) in OPERATIONS


def is_ours(span: ReadableSpan) -> bool:
    """Return whether ``span`` was recorded by this package."""
    scope = span.instrumentation_scope
    return scope is not None and scope.name == semconv.SCOPE


def times(span: ReadableSpan) -> tuple[int, int]:
    """Return when ``span`` started and ended, in nanoseconds after the epoch; 0 for what is no time."""
    return _nanoseconds(span.start_time), _nanoseconds(span.end_time)


def _nanoseconds(value: object) -> int:
    """Return a time of a span, which the SDK takes as it is given: ``time.time() * 1e9`` is a frequent mistake."""
    if type(value) is not int:
        value = int(value) if isinstance(value, float) and math.isfinite(value) else 0
    return value if 0 < value < _YEAR_9999 else 0


def _dict(attributes: SpanAttributes | None) -> dict[str, Any]:
    """Return a copy of ``attributes`` as a dict: lookups in the SDK's own mapping take ten times as long."""
    copy = getattr(attributes, "copy", None)
    copied: dict[str, Any] = dict(attributes or {}) if copy is None else copy()
    return copied


# ------------------------------------------------------------------ values derived from a span
# Their keys, added to the span's attributes.
_TRACE_ID: Final = "trace_id"
_SPAN_ID: Final = "span_id"
_OPERATION: Final = "operation"
_STREAM: Final = "stream"
_REASONS: Final = "finish_reasons"
_FIRST_TOKEN_MS: Final = "time_to_first_token_ms"  # noqa: S105 - no secret
_DURATION_MS: Final = "duration_ms"
#: The name of ``gen_ai.provider.name`` before 2025-08; older instrumentations still write it.
_SYSTEM: Final = "gen_ai.system"


def _derive(span: ReadableSpan, attributes: dict[str, Any]) -> None:
    """Add the values derived from the span's attributes, ids and times to ``attributes``."""
    get = attributes.get
    context, (start, end) = span.get_span_context(), times(span)
    trace_id, span_id = (context.trace_id, context.span_id) if context else (0, 0)
    attributes[_TRACE_ID] = f"{trace_id:032x}" if trace_id else ""
    attributes[_SPAN_ID] = f"{span_id:016x}" if span_id else ""
    attributes[_OPERATION] = OPERATIONS.get(_text(get(semconv.OPERATION)), "llm_generation")
    attributes[semconv.PROVIDER] = _text(get(semconv.PROVIDER) or get(_SYSTEM))
    attributes[semconv.REQUEST_MODEL] = _text(get(semconv.REQUEST_MODEL))
    streamed, reasons = get(semconv.STREAM), get(semconv.FINISH_REASONS)
    first = _double(get(semconv.TIME_TO_FIRST_CHUNK))
    ours = is_ours(span)
    # Unknown for a foreign span without the attribute, and where a limit may have dropped it.
    is_known = isinstance(streamed, bool) or (ours and not span.dropped_attributes)
    attributes[_STREAM] = ("true" if streamed is True else "false") if is_known else None
    attributes[_REASONS] = ",".join(map(str, reasons)) if isinstance(reasons, (list, tuple)) else None
    attributes[_FIRST_TOKEN_MS] = None if first is None or not math.isfinite(first) else f"{first * 1000:.3f}"
    attributes[_DURATION_MS] = f"{(end - start) / 1e6:.3f}" if end and start else None
    if not ours:
        attributes.update({name: _integer(get(name)) for name in _USAGE.values()})
    if get(semconv.TOTAL_TOKENS) is None:
        sent, received = get(semconv.INPUT_TOKENS), get(semconv.OUTPUT_TOKENS)
        attributes[semconv.TOTAL_TOKENS] = None if sent is None or received is None else sent + received


# ------------------------------------------------------------------ unvalidated values
def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _number(value: object) -> int | float | None:
    if value is None or type(value) is int or type(value) is float:  # the fast path
        return value
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _double(value: object) -> float | None:
    """Return a number as the double that the conventions ask for, and that the spans of ours have."""
    if value is None or type(value) is float:  # the fast path
        return value
    try:
        number = _number(value)
        return None if number is None else float(number)
    except OverflowError:
        return None


def _integer(value: object) -> int | None:
    if value is None or type(value) is int:
        return value
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _texts(value: object) -> tuple[str, ...] | None:
    return tuple(map(str, value)) if isinstance(value, (list, tuple)) else None


# ------------------------------------------------------------------ attributes → values of an entry
#: A value of an entry or of its ``metadata``: its key, its attribute, and the reader of the attribute.
_Value: TypeAlias = tuple[str, str, Callable[[Any], Any]]


class _Layout(NamedTuple):
    """Where the values of one entry type come from.

    ``fixed`` and ``custom`` make its ``custom_fields``: key → the text itself, and key → the attribute shown.
    """

    kind: type[LifecycleEvent]
    own: tuple[_Value, ...]
    metadata: tuple[_Value, ...]
    fixed: Mapping[str, str]
    custom: Mapping[str, str]


_REQUEST_METADATA: Final = (
    ("model_version", semconv.REQUEST_MODEL, lambda model: model or None),
    ("max_tokens", semconv.MAX_TOKENS, _number),
    ("top_p", semconv.TOP_P, _double),
    ("frequency_penalty", semconv.FREQUENCY_PENALTY, _double),
    ("presence_penalty", semconv.PRESENCE_PENALTY, _double),
    ("stop_sequences", semconv.STOP_SEQUENCES, _texts),
)
_GENERATION: Final = (
    ("operation", _OPERATION, _text),
    ("messages_count", semconv.MESSAGES_COUNT, _integer),
    ("temperature", semconv.TEMPERATURE, _number),
    ("message_content", semconv.MESSAGE_CONTENT, _text),
)
_CLIENT: Final = {"client": semconv.CLIENT, "base_url": semconv.BASE_URL}
_CALL: Final = {"model_id": semconv.REQUEST_MODEL, "operation_name": semconv.OPERATION}
_HTTP: Final = {
    "duration_ms": _DURATION_MS,
    "request_id": semconv.REQUEST_ID,
    "retries": semconv.RETRIES,
}
_USAGE: Final = {
    "input_tokens": semconv.INPUT_TOKENS,
    "output_tokens": semconv.OUTPUT_TOKENS,
    "total_tokens": semconv.TOTAL_TOKENS,
    "cached_tokens": semconv.CACHE_READ_TOKENS,
    "reasoning_tokens": semconv.REASONING_TOKENS,
}

#: Span event → the entry that it becomes.
_LAYOUTS: Final[Mapping[str, _Layout]] = {
    semconv.INITIALIZATION_START: _Layout(
        LLMInitializationStart,
        own=(("temperature", semconv.TEMPERATURE, _number),),
        metadata=_REQUEST_METADATA,
        fixed={"operation": _INITIALIZATION},
        custom=_CLIENT,
    ),
    semconv.INITIALIZATION_SUCCESS: _Layout(
        LLMInitializationSuccess,
        own=(("capabilities", semconv.CAPABILITIES, _text),),
        metadata=_REQUEST_METADATA,
        fixed={"status": "initialized"},
        custom={"capabilities": semconv.CAPABILITIES, **_CLIENT, "duration_ms": _DURATION_MS},
    ),
    semconv.INITIALIZATION_ERROR: _Layout(
        LLMInitializationError,
        own=(
            ("operation", _OPERATION, lambda _: _INITIALIZATION),
            ("error", semconv.ERROR_MESSAGE, _text),
        ),
        metadata=_REQUEST_METADATA,
        fixed={"operation": _INITIALIZATION, "status": "failed"},
        custom={"error_type": semconv.ERROR_TYPE, **_CLIENT, "duration_ms": _DURATION_MS},
    ),
    semconv.GENERATION_SUCCESS: _Layout(
        LLMGenerationSuccess,
        own=(
            *_GENERATION,
            ("response_length", semconv.RESPONSE_LENGTH, _integer),
            ("choices_count", semconv.CHOICES_COUNT, _integer),
        ),
        metadata=_REQUEST_METADATA,
        fixed={},
        custom={
            **_CALL,
            **_USAGE,
            "response_id": semconv.RESPONSE_ID,
            "response_model": semconv.RESPONSE_MODEL,
            "finish_reasons": _REASONS,
            "stream": _STREAM,
            "time_to_first_token_ms": _FIRST_TOKEN_MS,
            **_HTTP,
        },
    ),
    semconv.GENERATION_ERROR: _Layout(
        LLMGenerationError,
        own=(*_GENERATION, ("error", semconv.ERROR_MESSAGE, _text)),
        metadata=_REQUEST_METADATA,
        fixed={},
        custom={
            **_CALL,
            "error_type": semconv.ERROR_TYPE,
            "status_code": semconv.HTTP_STATUS_CODE,
            "stream": _STREAM,
            **_HTTP,
            **_USAGE,
            "response_id": semconv.RESPONSE_ID,
        },
    ),
    semconv.TOOL_CALL_DETECTED: _Layout(
        ToolCallDetected,
        own=(
            ("tool_call_id", semconv.TOOL_CALL_ID, _text),
            ("tool_name", semconv.TOOL_NAME, _text),
            ("arguments", semconv.TOOL_CALL_ARGUMENTS, _text),
        ),
        metadata=(),
        fixed={},
        custom={
            "model_id": semconv.REQUEST_MODEL,
            "tool_call_id": semconv.TOOL_CALL_ID,
            "tool_type": semconv.TOOL_TYPE,
            "tool_name": semconv.TOOL_NAME,
        },
    ),
}
_NOT_SET: Final[Mapping[str, None]] = dict.fromkeys(field.name for field in dataclasses.fields(Metadata))


def _event(layout: _Layout, attributes: SpanAttributes, timestamp: int, *, utc: bool) -> LifecycleEvent:
    """Return the event that was recorded ``timestamp`` nanoseconds after the epoch.

    ``attributes`` are the span's, overridden by those of the span event.
    """
    kind, own, in_metadata, fixed, custom = layout
    get, provider, span_id = attributes.get, attributes[semconv.PROVIDER], attributes[_SPAN_ID]
    seconds, nanoseconds = divmod(timestamp, 1_000_000_000)
    naive, iso, offset = _wall_clock(seconds, None if utc else time.tzname)
    fields = {"provider": provider, **fixed}
    for key, name in custom.items():
        value = get(name)
        if value is not None and value != "":
            fields[key] = f"{value}"
    if span_id:
        fields["span_id"] = span_id
    fields["timestamp"] = f"{iso}.{nanoseconds // 1000:06d}{offset}"
    metadata = {
        **_NOT_SET,
        "user": _text(get(semconv.USER_ID)) or kind.placeholder_user,
        "custom_fields": fields,
    }
    for key, name, read in in_metadata:
        value = get(name)
        if value is not None:
            metadata[key] = read(value)
    values = {
        "time": naive,
        "provider": provider,
        "model_id": attributes[semconv.REQUEST_MODEL],
        "trace_id": attributes[_TRACE_ID],
        "metadata": assemble(Metadata, metadata),
    }
    for key, name, read in own:
        values[key] = read(get(name))
    return assemble(kind, values)


@functools.lru_cache(maxsize=64)
def _wall_clock(seconds: int, zone: tuple[str, str] | None) -> tuple[datetime, str, str]:
    """Return the wall-clock time ``seconds`` after the epoch: naive, as ISO 8601 text, and its UTC offset.

    ``zone`` is ``None`` for UTC, else ``time.tzname``, so that a change of zone misses the cache.
    """
    moment = datetime.fromtimestamp(seconds, timezone.utc)
    local = moment if zone is None else moment.astimezone()
    naive = local.replace(tzinfo=None)
    iso = naive.isoformat()
    return naive, iso, local.isoformat().removeprefix(iso)


#: What entries show of a span's attributes; other instrumentations do not redact it.
_SHOWN_AS_IS: Final = {
    semconv.PROVIDER,
    _SYSTEM,
    semconv.USER_ID,
    semconv.FINISH_REASONS,
    *(name for layout in _LAYOUTS.values() for _, name, _ in layout.metadata),
    *(name for layout in _LAYOUTS.values() for name in layout.custom.values()),
}


# ------------------------------------------------------------------ spans of other instrumentations
#: Type of a message's part → how ``message_content`` shows it; text appears verbatim.
_SHOWN: Final[Mapping[str, Callable[[SpanAttributes], str]]] = {
    "text": lambda part: _text(part.get("content")),
    "tool_call": lambda part: f"[tool_call {_text(part.get('name'))}]",
    "tool_call_response": lambda part: f"[tool_result {_text(part.get('id'))}]",
    "server_tool_call": lambda part: f"[tool_call {_text(part.get('name'))}]",
    "server_tool_call_response": lambda part: f"[tool_result {_text(part.get('id'))}]",
    "blob": lambda part: f"[{_text(part.get('modality')) or 'file'}]",
    "uri": lambda part: f"[{_text(part.get('modality')) or 'file'}]",
    "file": lambda _: "[file]",
}


def _foreign(
    span: ReadableSpan, attributes: SpanAttributes, limit: int | None
) -> list[tuple[str, dict[str, Any], int]]:
    """Return the span events that a GenAI-convention span would carry if it were ours: name, attributes, time.

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
        kind, status = _text(attributes.get(semconv.ERROR_TYPE)), attributes.get(semconv.HTTP_STATUS_CODE)
        said = brief_error(kind, status) if limit is None else _error(span, attributes)
        own[semconv.ERROR_MESSAGE] = _start(said, LONGEST_ERROR)
        return [(semconv.GENERATION_ERROR, own, end)]
    if received:
        own[semconv.CHOICES_COUNT] = len(received)
        own[semconv.RESPONSE_LENGTH] = sum(
            len(_text(part.get("content"))) for part in _parts(received[0]) if part.get("type") == "text"
        )
    calls = [part for message in received for part in _parts(message) if part.get("type") in _CALLS]
    return [
        *((semconv.TOOL_CALL_DETECTED, _foreign_tool_call(call, limit), end) for call in calls),
        (semconv.GENERATION_SUCCESS, own, end),
    ]


def _content(instructions: list[SpanAttributes], sent: list[SpanAttributes], limit: int) -> str:
    """Return system instructions, if any, and messages as one redacted line of ``limit`` characters."""
    messages = [{"role": "system", "parts": instructions}, *sent] if instructions else sent
    return _start(" | ".join(map(_line, messages)), limit)


def _start(text: str, limit: int) -> str:
    """Return the redacted first ``limit`` characters of ``text``; the rest is not searched, which takes long."""
    return shortened(redact_start(text, limit, margin(()), ()), limit, len(text))


#: Types of the parts that are tool calls: of the application's tools, and of those that the server runs.
_CALLS: Final = ("tool_call", "server_tool_call")


def _foreign_tool_call(part: SpanAttributes, limit: int | None) -> dict[str, Any]:
    kind, arguments = "function", part.get("arguments")
    details = part.get("server_tool_call")
    if isinstance(details, Mapping):  # the kind of a built-in tool, and what it was asked
        kind = _text(details.get("type"))
        arguments = {name: asked for name, asked in details.items() if name != "type"}
    if arguments is not None and not isinstance(arguments, str):
        arguments = json.dumps(arguments, ensure_ascii=False, default=str)
    return tool_call(
        call_id=redact(_text(part.get("id"))),
        name=redact(_text(part.get("name"))),
        kind=redact(kind),
        arguments="" if limit is None else redact(arguments or "{}"),
    )


def _error(span: ReadableSpan, attributes: SpanAttributes) -> str:
    for event in span.events:
        message = _text((event.attributes or {}).get(semconv.ERROR_MESSAGE))
        if message:
            return message
    return span.status.description or _text(attributes.get(semconv.ERROR_TYPE))


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
        kind = _text(part.get("type"))
        show = _SHOWN.get(kind)
        shown.append(f"[{kind}]" if show is None else show(part))
    return f"{_text(message.get('role'))}: {' '.join(shown)}"
