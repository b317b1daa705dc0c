"""Span ⇄ events: how lifecycle events are stored on a span.

Nothing is stored twice: what the conventions put on the span (model, usage, finish reasons, …) is read from
the span's attributes, and a span event carries only the rest. The first part of this file builds the
attributes of the span events of a call for the code that records it; the rest, :func:`decode`, turns a finished
span back into the documented entries. Spans of other GenAI instrumentations carry no lifecycle events: what they would
be is in ``foreign.py``.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timezone
from typing import Any, Final, NamedTuple, TypeAlias

from opentelemetry.sdk.trace import ReadableSpan

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
def decode(span: ReadableSpan, *, utc: bool) -> list[LifecycleEvent]:
    """Return the entries of a finished span of ours in chronological order; none for any other span.

    Never raises: missing and ill-typed attributes count as unset. ``utc`` is for the header's time.
    """
    found = [event for event in span.events if event.name in LAYOUTS] if is_ours(span) else ()
    if not found:  # most spans of an application
        return []
    recorded = [(event.name, as_dict(event.attributes), event.timestamp) for event in found]
    return events_of(span, as_dict(span.attributes), recorded, utc=utc)


#: A span event: its name, its attributes, and its time in nanoseconds after the epoch.
SpanEvent: TypeAlias = tuple[str, dict[str, Any], int]


def events_of(
    span: ReadableSpan, attributes: dict[str, Any], recorded: Iterable[SpanEvent], *, utc: bool
) -> list[LifecycleEvent]:
    """Return the entries of ``span`` with these ``attributes``, which are added to, and these span events."""
    _derive(span, attributes)
    return [_event(LAYOUTS[name], attributes | own, time, utc=utc) for name, own, time in recorded]


def is_generation(attributes: SpanAttributes) -> bool:
    """Return whether a span with these ``attributes`` is a call to a model."""
    return text(attributes.get(semconv.OPERATION)) in OPERATIONS


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


def as_dict(attributes: SpanAttributes | None) -> dict[str, Any]:
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
SYSTEM: Final = "gen_ai.system"


def _derive(span: ReadableSpan, attributes: dict[str, Any]) -> None:
    """Add the values derived from the span's attributes, ids and times to ``attributes``."""
    get = attributes.get
    context, (start, end) = span.get_span_context(), times(span)
    trace_id, span_id = (context.trace_id, context.span_id) if context else (0, 0)
    attributes[_TRACE_ID] = f"{trace_id:032x}" if trace_id else ""
    attributes[_SPAN_ID] = f"{span_id:016x}" if span_id else ""
    attributes[_OPERATION] = OPERATIONS.get(text(get(semconv.OPERATION)), "llm_generation")
    attributes[semconv.PROVIDER] = text(get(semconv.PROVIDER) or get(SYSTEM))
    attributes[semconv.REQUEST_MODEL] = text(get(semconv.REQUEST_MODEL))
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
def text(value: object) -> str:
    """Return ``value`` if it is text, else an empty one."""
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
    ("operation", _OPERATION, text),
    ("messages_count", semconv.MESSAGES_COUNT, _integer),
    ("temperature", semconv.TEMPERATURE, _number),
    ("message_content", semconv.MESSAGE_CONTENT, text),
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
LAYOUTS: Final[Mapping[str, _Layout]] = {
    semconv.INITIALIZATION_START: _Layout(
        LLMInitializationStart,
        own=(("temperature", semconv.TEMPERATURE, _number),),
        metadata=_REQUEST_METADATA,
        fixed={"operation": _INITIALIZATION},
        custom=_CLIENT,
    ),
    semconv.INITIALIZATION_SUCCESS: _Layout(
        LLMInitializationSuccess,
        own=(("capabilities", semconv.CAPABILITIES, text),),
        metadata=_REQUEST_METADATA,
        fixed={"status": "initialized"},
        custom={"capabilities": semconv.CAPABILITIES, **_CLIENT, "duration_ms": _DURATION_MS},
    ),
    semconv.INITIALIZATION_ERROR: _Layout(
        LLMInitializationError,
        own=(
            ("operation", _OPERATION, lambda _: _INITIALIZATION),
            ("error", semconv.ERROR_MESSAGE, text),
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
        own=(*_GENERATION, ("error", semconv.ERROR_MESSAGE, text)),
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
            ("tool_call_id", semconv.TOOL_CALL_ID, text),
            ("tool_name", semconv.TOOL_NAME, text),
            ("arguments", semconv.TOOL_CALL_ARGUMENTS, text),
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
        "user": text(get(semconv.USER_ID)) or kind.placeholder_user,
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
