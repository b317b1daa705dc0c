"""The six lifecycle events: the entries of ``events.log`` as dataclasses.

Each class is one entry type of the documented format; its fields are the entry's keys.
``eventslog/format.py`` decides the order of the keys, ``codec.py`` how an event is stored on a span.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar, TypeAlias, TypeVar

from openai_lifecycle import semconv

Number: TypeAlias = int | float
_Value = TypeVar("_Value")


def assemble(kind: type[_Value], values: dict[str, Any]) -> _Value:
    """Return ``kind(**values)`` for a dataclass without slots; ``values`` must hold every field, and is not copied.

    A frozen dataclass's own ``__init__`` assigns field by field through ``object.__setattr__``, which takes four
    times as long.
    """
    made = object.__new__(kind)
    object.__setattr__(made, "__dict__", values)
    return made


@dataclass(frozen=True, kw_only=True)
class Metadata:
    """The ``metadata`` object of an entry. ``None`` means not set; a value of 0 is set and is written."""

    model_version: str | None = None
    max_tokens: Number | None = None
    top_p: Number | None = None
    frequency_penalty: Number | None = None
    presence_penalty: Number | None = None
    stop_sequences: tuple[str, ...] | None = None
    user: str | None = None
    custom_fields: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class _Event:
    """The fields that every entry has.

    ``time`` is the header's time, to the second and without a zone, as the file shows it. The exact time is
    ``metadata.custom_fields["timestamp"]`` (RFC 3339, microseconds, with offset).
    """

    event_type: ClassVar[str]
    tag: ClassVar[str]
    placeholder_user: ClassVar[str]

    time: datetime
    provider: str = ""
    model_id: str = ""
    trace_id: str = ""
    metadata: Metadata = field(default_factory=Metadata)


@dataclass(frozen=True, kw_only=True)
class LLMInitializationStart(_Event):
    """A client is about to be constructed."""

    event_type = semconv.INITIALIZATION_START
    tag = "INIT_START"
    placeholder_user = "openai_user"

    temperature: Number | None = None


@dataclass(frozen=True, kw_only=True)
class LLMInitializationSuccess(_Event):
    """A client was constructed. ``capabilities`` is a comma-separated list."""

    event_type = semconv.INITIALIZATION_SUCCESS
    tag = "INIT_SUCCESS"
    placeholder_user = "openai_user"

    capabilities: str = ""


@dataclass(frozen=True, kw_only=True)
class LLMInitializationError(_Event):
    """A constructor raised. ``error`` is the exception's message, credentials redacted."""

    event_type = semconv.INITIALIZATION_ERROR
    tag = "INIT_ERROR"
    placeholder_user = "openai_user"

    operation: str = ""
    error: str = ""


@dataclass(frozen=True, kw_only=True)
class LLMGenerationSuccess(_Event):
    """An API call succeeded: it returned, its stream was exhausted, or the application closed it early.

    ``message_content`` is what was sent, ``response_length`` the number of text characters in the first
    choice, ``choices_count`` the number of choices, messages, vectors, images or moderation results.
    """

    event_type = semconv.GENERATION_SUCCESS
    tag = "GENERATION_SUCCESS"
    placeholder_user = "llm_generation_user"

    operation: str = ""
    messages_count: int | None = None
    temperature: Number | None = None
    message_content: str = ""
    response_length: int | None = None
    choices_count: int | None = None


@dataclass(frozen=True, kw_only=True)
class LLMGenerationError(_Event):
    """An API call failed or was cancelled.

    ``error`` is the exception's message, or that of a response that says it failed, credentials redacted.
    """

    event_type = semconv.GENERATION_ERROR
    tag = "GENERATION_ERROR"
    placeholder_user = "llm_generation_user"

    operation: str = ""
    messages_count: int | None = None
    temperature: Number | None = None
    message_content: str = ""
    error: str = ""


@dataclass(frozen=True, kw_only=True)
class ToolCallDetected(_Event):
    """The model asked for a tool. ``arguments`` is the text that the model wrote, usually JSON, credentials redacted."""

    event_type = semconv.TOOL_CALL_DETECTED
    tag = "TOOL_CALL_DETECTED"
    placeholder_user = "tool_call_user"

    tool_call_id: str = ""
    tool_name: str = ""
    arguments: str = ""


LifecycleEvent: TypeAlias = (
    LLMInitializationStart
    | LLMInitializationSuccess
    | LLMInitializationError
    | LLMGenerationSuccess
    | LLMGenerationError
    | ToolCallDetected
)
