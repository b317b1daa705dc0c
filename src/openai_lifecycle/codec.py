"""Span ⇄ events: the only file that knows how a lifecycle event lies on a span.

Nothing is kept twice: what the conventions put on the span (model, usage, finish reasons, …) is read from the
span's attributes, and a span event carries only what is its own. The first half of this file gives the
attributes of each span event to the code that records it; the second half, :func:`decode`, turns a finished
span back into the documented entries. Spans of other GenAI instrumentations, which carry no lifecycle events,
are decoded from the conventions alone.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import time
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from typing import Any, Final, TypeAlias, TypeVar

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import StatusCode, format_span_id, format_trace_id

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
from openai_lifecycle.redaction import redact

Attributes: TypeAlias = Mapping[str, Any]
_Event = TypeVar("_Event")

#: ``gen_ai.operation.name`` → ``operation`` of an entry. Spans of any other operation are no generations.
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
INITIALIZATION: Final = "llm_initialization"
CAPABILITIES: Final = "text_generation,tool_calling,streaming"


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
    if temperature is not None:  # exactly as the caller gave it, 1 or 1.0; the span's own is a double
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


# ------------------------------------------------------------------ span → events
def decode(
    span: ReadableSpan, *, utc: bool = False, content: bool = True, content_limit: int = 8192
) -> list[LifecycleEvent]:
    """Return the entries of a finished span, in the order in which they happened; often none.

    Attributes that are missing or of an unexpected type degrade to what is known; nothing raises. ``content``
    and ``content_limit`` are about spans of other instrumentations; ours were recorded as configured.
    """
    attributes = _dict(span.attributes)
    lifecycle = [event for event in span.events if event.name in _BUILDERS]
    if not lifecycle and not is_generation(attributes):  # most spans of an application
        return []
    source = _Source(span, attributes, utc=utc)
    if not lifecycle:
        return _foreign(source, content_limit if content else None)
    return [_BUILDERS[event.name](source, _dict(event.attributes), event.timestamp) for event in lifecycle]


def is_generation(attributes: Attributes) -> bool:
    """Return whether a span with these ``attributes`` is a call to a model."""
    return _text(attributes.get(semconv.OPERATION)) in OPERATIONS


def is_ours(span: ReadableSpan) -> bool:
    """Return whether ``span`` was recorded by this package."""
    scope = span.instrumentation_scope
    return scope is not None and scope.name == semconv.SCOPE


#: The metadata of an event without parameters.
_UNASKED: Final[Mapping[str, None]] = dict.fromkeys(field.name for field in dataclasses.fields(Metadata))


class _Source:
    """The span that entries are read from, with what all of them share worked out once."""

    __slots__ = (
        "attributes",
        "duration_ms",
        "model",
        "provider",
        "span",
        "span_id",
        "trace_id",
        "utc",
    )

    def __init__(self, span: ReadableSpan, attributes: Attributes, *, utc: bool) -> None:
        context, start, end = span.get_span_context(), span.start_time, span.end_time
        trace_id, span_id = (context.trace_id, context.span_id) if context else (0, 0)
        self.span = span
        self.utc = utc
        self.attributes = attributes
        self.provider = _text(attributes.get(semconv.PROVIDER) or attributes.get(_SYSTEM))
        self.model = _text(attributes.get(semconv.REQUEST_MODEL))
        self.trace_id = format_trace_id(trace_id) if trace_id else ""
        self.span_id = format_span_id(span_id) if span_id else ""
        self.duration_ms = _milliseconds((end - start) / 1e6) if end and start else None

    def event(
        self,
        kind: type[_Event],
        timestamp: int,
        own: dict[str, Any],
        metadata: dict[str, Any],
        custom: Mapping[str, Any],
    ) -> _Event:
        """Return the event of ``kind`` with its ``own`` values; unknown custom fields are left out."""
        seconds, nanoseconds = divmod(timestamp, 1_000_000_000)
        bare, instant, offset = _wall_clock(seconds, None if self.utc else time.tzname)
        fields = {"provider": self.provider}
        for name, value in custom.items():
            if value is not None and value != "":
                fields[name] = str(value)
        if self.span_id:
            fields["span_id"] = self.span_id
        fields["timestamp"] = f"{instant}.{nanoseconds // 1000:06d}{offset}"
        metadata["custom_fields"] = fields
        own["time"] = bare
        own["provider"] = self.provider
        own["model_id"] = self.model
        own["trace_id"] = self.trace_id
        own["metadata"] = assemble(Metadata, metadata)
        return assemble(kind, own)

    def asked(self, user: str) -> dict[str, Any]:
        """Return the metadata of every event with parameters; ``user`` is who it was by default."""
        get = self.attributes.get
        return {
            "model_version": self.model or None,
            "max_tokens": _number(get(semconv.MAX_TOKENS)),
            "top_p": _number(get(semconv.TOP_P)),
            "frequency_penalty": _number(get(semconv.FREQUENCY_PENALTY)),
            "presence_penalty": _number(get(semconv.PRESENCE_PENALTY)),
            "stop_sequences": _texts(get(semconv.STOP_SEQUENCES)),
            "user": _text(get(semconv.USER_ID)) or user,
        }

    def client(self) -> dict[str, Any]:
        """Return the custom fields that say which client was constructed for which server."""
        return {
            "client": self.attributes.get(semconv.CLIENT),
            "base_url": self.attributes.get(semconv.BASE_URL),
        }

    def usage(self) -> dict[str, int | None]:
        """Return the custom fields that count tokens; what the server did not say stays unknown, but for the sum."""
        get = self.attributes.get
        sent, received = _integer(get(semconv.INPUT_TOKENS)), _integer(get(semconv.OUTPUT_TOKENS))
        total = _integer(get(semconv.TOTAL_TOKENS))
        if total is None and sent is not None and received is not None:
            total = sent + received
        return {
            "input_tokens": sent,
            "output_tokens": received,
            "total_tokens": total,
            "cached_tokens": _integer(get(semconv.CACHE_READ_TOKENS)),
            "reasoning_tokens": _integer(get(semconv.REASONING_TOKENS)),
        }

    def generation(self, own: Attributes) -> dict[str, Any]:
        """Return the values that every generation event has; ``own`` are the attributes of its span event."""
        return {
            "operation": OPERATIONS.get(_text(self.attributes.get(semconv.OPERATION)), "llm_generation"),
            "messages_count": _integer(own.get(semconv.MESSAGES_COUNT)),
            # As the caller gave it, from the event, else from the span.
            "temperature": _number(own.get(semconv.TEMPERATURE, self.attributes.get(semconv.TEMPERATURE))),
            "message_content": _text(own.get(semconv.MESSAGE_CONTENT)),
        }

    def stream(self) -> str | None:
        """Return whether the response was streamed; a foreign span without the attribute does not say."""
        streamed = self.attributes.get(semconv.STREAM)
        if streamed is None and not is_ours(self.span):
            return None
        return "true" if streamed is True else "false"


def _dict(attributes: Attributes | None) -> Attributes:
    """Return ``attributes`` as a dict: to look into the SDK's own mapping takes ten times as long."""
    copy = getattr(attributes, "copy", None)
    copied: Attributes = dict(attributes or {}) if copy is None else copy()
    return copied


@functools.lru_cache(maxsize=64)
def _wall_clock(seconds: int, zone: tuple[str, str] | None) -> tuple[datetime, str, str]:
    """Return what the clock showed ``seconds`` after the epoch: bare, as RFC 3339 text, and its offset as text.

    ``zone`` is ``time.tzname`` for local time, because that changes when the zone does, and ``None`` for UTC.
    """
    moment = datetime.fromtimestamp(seconds, timezone.utc)
    local = moment if zone is None else moment.astimezone()
    bare = local.replace(tzinfo=None)
    return bare, bare.isoformat(), local.isoformat()[len(bare.isoformat()) :]


# ------------------------------------------------------------------ one builder an event
def _initialization_start(source: _Source, _: Attributes, timestamp: int) -> LifecycleEvent:
    return source.event(
        LLMInitializationStart,
        timestamp,
        {"temperature": _number(source.attributes.get(semconv.TEMPERATURE))},
        source.asked("openai_user"),
        {"operation": INITIALIZATION, **source.client()},
    )


def _initialization_success(source: _Source, own: Attributes, timestamp: int) -> LifecycleEvent:
    capabilities = _text(own.get(semconv.CAPABILITIES))
    return source.event(
        LLMInitializationSuccess,
        timestamp,
        {"capabilities": capabilities},
        source.asked("openai_user"),
        {
            "status": "initialized",
            "capabilities": capabilities,
            **source.client(),
            "duration_ms": source.duration_ms,
        },
    )


def _initialization_error(source: _Source, own: Attributes, timestamp: int) -> LifecycleEvent:
    return source.event(
        LLMInitializationError,
        timestamp,
        {"operation": INITIALIZATION, "error": _text(own.get(semconv.ERROR_MESSAGE))},
        source.asked("openai_user"),
        {
            "operation": INITIALIZATION,
            "status": "failed",
            "error_type": source.attributes.get(semconv.ERROR_TYPE),
            **source.client(),
            "duration_ms": source.duration_ms,
        },
    )


def _generation_success(source: _Source, own: Attributes, timestamp: int) -> LifecycleEvent:
    get = source.attributes.get
    return source.event(
        LLMGenerationSuccess,
        timestamp,
        {
            **source.generation(own),
            "response_length": _integer(own.get(semconv.RESPONSE_LENGTH)),
            "choices_count": _integer(own.get(semconv.CHOICES_COUNT)),
        },
        source.asked("llm_generation_user"),
        {
            "model_id": source.model,
            "operation_name": get(semconv.OPERATION),
            **source.usage(),
            "response_id": get(semconv.RESPONSE_ID),
            "response_model": get(semconv.RESPONSE_MODEL),
            "finish_reasons": _joined(get(semconv.FINISH_REASONS)),
            "stream": source.stream(),
            "time_to_first_token_ms": _seconds(get(semconv.TIME_TO_FIRST_CHUNK)),
            "duration_ms": source.duration_ms,
            "request_id": get(semconv.REQUEST_ID),
            "retries": get(semconv.RETRIES),
        },
    )


def _generation_error(source: _Source, own: Attributes, timestamp: int) -> LifecycleEvent:
    get = source.attributes.get
    return source.event(
        LLMGenerationError,
        timestamp,
        {
            **source.generation(own),
            "error": _text(own.get(semconv.ERROR_MESSAGE)),
        },
        source.asked("llm_generation_user"),
        {
            "model_id": source.model,
            "operation_name": get(semconv.OPERATION),
            "error_type": get(semconv.ERROR_TYPE),
            "status_code": get(semconv.HTTP_STATUS_CODE),
            "stream": source.stream(),
            "duration_ms": source.duration_ms,
            "request_id": get(semconv.REQUEST_ID),
            "retries": get(semconv.RETRIES),
            **source.usage(),
            "response_id": get(semconv.RESPONSE_ID),
        },
    )


def _tool_call_detected(source: _Source, own: Attributes, timestamp: int) -> LifecycleEvent:
    call_id, name = _text(own.get(semconv.TOOL_CALL_ID)), _text(own.get(semconv.TOOL_NAME))
    return source.event(
        ToolCallDetected,
        timestamp,
        {
            "tool_call_id": call_id,
            "tool_name": name,
            "arguments": _text(own.get(semconv.TOOL_CALL_ARGUMENTS)),
        },
        {**_UNASKED, "user": _text(source.attributes.get(semconv.USER_ID)) or "tool_call_user"},
        {
            "model_id": source.model,
            "tool_call_id": call_id,
            "tool_type": own.get(semconv.TOOL_TYPE),
            "tool_name": name,
        },
    )


_BUILDERS: Final[Mapping[str, Callable[[_Source, Attributes, int], LifecycleEvent]]] = {
    semconv.INITIALIZATION_START: _initialization_start,
    semconv.INITIALIZATION_SUCCESS: _initialization_success,
    semconv.INITIALIZATION_ERROR: _initialization_error,
    semconv.GENERATION_SUCCESS: _generation_success,
    semconv.GENERATION_ERROR: _generation_error,
    semconv.TOOL_CALL_DETECTED: _tool_call_detected,
}


# ------------------------------------------------------------------ spans of other instrumentations
#: What ``gen_ai.provider.name`` was called before 2025-08; older instrumentations still write it.
_SYSTEM: Final = "gen_ai.system"

#: Type of a message's part → how ``message_content`` shows it; a text appears as it is.
_SHOWN: Final[Mapping[str, Callable[[Attributes], str]]] = {
    "text": lambda part: _text(part.get("content")),
    "tool_call": lambda part: f"[tool_call {_text(part.get('name'))}]",
    "tool_call_response": lambda part: f"[tool_result {_text(part.get('id'))}]",
    "blob": lambda part: f"[{_text(part.get('modality')) or 'file'}]",
    "uri": lambda part: f"[{_text(part.get('modality')) or 'file'}]",
    "file": lambda _: "[file]",
}


def _foreign(source: _Source, limit: int | None) -> list[LifecycleEvent]:
    """Return the entries of a GenAI-convention span that carries no lifecycle events.

    ``limit`` is the number of characters of ``message_content`` that are kept, ``None`` keeps no content at all.
    """
    span = source.span
    end = span.end_time or span.start_time or 0
    sent, received = _found(source, semconv.INPUT_MESSAGES), _found(source, semconv.OUTPUT_MESSAGES)
    own: dict[str, Any] = {}
    if sent:
        own[semconv.MESSAGES_COUNT] = len(sent)
    if limit is not None:
        instructions = {"role": "system", "parts": _found(source, semconv.SYSTEM_INSTRUCTIONS)}
        said = [_line(m) for m in ([instructions] if instructions["parts"] else []) + sent]
        own[semconv.MESSAGE_CONTENT] = _cut(redact(" | ".join(said)), limit)
    if span.status.status_code is StatusCode.ERROR or source.attributes.get(semconv.ERROR_TYPE):
        if limit is not None:
            own[semconv.ERROR_MESSAGE] = redact(_error(source))
        return [_generation_error(source, own, end)]
    if received:
        own[semconv.CHOICES_COUNT] = len(received)
        own[semconv.RESPONSE_LENGTH] = sum(
            len(_text(part.get("content"))) for part in _parts(received[0]) if part.get("type") == "text"
        )
    calls = [part for message in received for part in _parts(message) if part.get("type") == "tool_call"]
    return [
        *(_tool_call_detected(source, _foreign_tool_call(call, limit), end) for call in calls),
        _generation_success(source, own, end),
    ]


def _foreign_tool_call(part: Attributes, limit: int | None) -> dict[str, Any]:
    arguments = part.get("arguments")
    if arguments is not None and not isinstance(arguments, str):
        arguments = json.dumps(arguments, ensure_ascii=False, default=str)
    return tool_call(
        call_id=_text(part.get("id")),
        name=_text(part.get("name")),
        kind="function",
        arguments="" if limit is None else redact(arguments or "{}"),
    )


def _error(source: _Source) -> str:
    for event in source.span.events:
        message = _text((event.attributes or {}).get(semconv.ERROR_MESSAGE))
        if message:
            return message
    return source.span.status.description or _text(source.attributes.get(semconv.ERROR_TYPE))


def _found(source: _Source, name: str) -> list[Attributes]:
    """Return the objects under ``name``, which is on the span or on an event of it, as values or as JSON."""
    places = [source.attributes, *(event.attributes or {} for event in source.span.events)]
    value: object = next((place[name] for place in places if place.get(name)), None)
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return []
    return [m for m in value if isinstance(m, Mapping)] if isinstance(value, (list, tuple)) else []


def _parts(message: Attributes) -> list[Attributes]:
    parts = message.get("parts")
    if isinstance(parts, (list, tuple)):
        return [part for part in parts if isinstance(part, Mapping)]
    content = message.get("content")
    return [{"type": "text", "content": content}] if isinstance(content, str) else []


def _line(message: Attributes) -> str:
    shown = []
    for part in _parts(message):
        kind = _text(part.get("type"))
        show = _SHOWN.get(kind)
        shown.append(f"[{kind}]" if show is None else show(part))
    return f"{_text(message.get('role'))}: {' '.join(shown)}"


def _cut(line: str, limit: int) -> str:
    if limit <= 0 or len(line) <= limit:
        return line if limit > 0 else ""
    return f"{line[:limit]}… [+{len(line) - limit} chars]"


# ------------------------------------------------------------------ values of doubtful type
def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _number(value: object) -> int | float | None:
    if value is None or type(value) is int or type(value) is float:  # the usual ones, without more ado
        return value
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _integer(value: object) -> int | None:
    if value is None or type(value) is int:
        return value
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _joined(value: object) -> str | None:
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) and value else None


def _texts(value: object) -> tuple[str, ...] | None:
    return None if value is None else tuple(map(str, value)) if isinstance(value, (list, tuple)) else None


def _seconds(value: object) -> str | None:
    seconds = _number(value)
    return None if seconds is None else _milliseconds(seconds * 1000)


def _milliseconds(value: float) -> str:
    return f"{value:.3f}"
