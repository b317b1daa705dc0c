"""The text of one entry: :func:`render` and its inverse :func:`parse`.

    [2025-01-27 14:30:26] [EVENT: TOOL_CALL_DETECTED]
    {
      "event_type": "TOOL_CALL_DETECTED",
      …
    }

The object is JSON as ``json.dumps(indent=2, ensure_ascii=False)`` writes it, with one addition: control
characters, line separators, bidirectional controls and lone surrogates are escaped too, so that what a model
wrote can neither forge an entry nor drive a terminal. ``json.dumps`` itself is not used because with an
indent it runs in pure Python, and an entry's shape is known in advance.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from json.encoder import encode_basestring
from typing import Any, Final

from openai_lifecycle import events
from openai_lifecycle.events import LifecycleEvent, Metadata

# ------------------------------------------------------------------ the shape of an entry
#: Keys of each entry between ``event_type`` and ``trace_id``, in order.
KEYS: Final[Mapping[type[LifecycleEvent], tuple[str, ...]]] = {
    events.LLMInitializationStart: ("provider", "model_id", "temperature"),
    events.LLMInitializationSuccess: ("provider", "model_id", "capabilities"),
    events.LLMInitializationError: ("provider", "model_id", "operation", "error"),
    events.LLMGenerationSuccess: (
        "provider",
        "model_id",
        "operation",
        "messages_count",
        "temperature",
        "message_content",
        "response_length",
        "choices_count",
    ),
    events.LLMGenerationError: (
        "provider",
        "model_id",
        "operation",
        "messages_count",
        "temperature",
        "message_content",
        "error",
    ),
    events.ToolCallDetected: ("provider", "model_id", "tool_call_id", "tool_name", "arguments"),
}
#: Keys of ``metadata`` before ``custom_fields``, in order, written only when set.
METADATA_KEYS: Final = (
    "model_version",
    "max_tokens",
    "top_p",
    "frequency_penalty",
    "presence_penalty",
    "stop_sequences",
    "user",
)
_NUMBERS: Final = frozenset(
    {"temperature", "messages_count", "response_length", "choices_count"}
    | {"max_tokens", "top_p", "frequency_penalty", "presence_penalty"}
)
_BY_TAG: Final[Mapping[str, type[LifecycleEvent]]] = {kind.tag: kind for kind in KEYS}

#: The first line of an entry; a reader finds entries by it.
HEADER: Final = re.compile(r"\[(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)\] \[EVENT: ([A-Z_]+)\]")


# ------------------------------------------------------------------ render
_UNSAFE = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def _escape(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}"


def text(value: str) -> str:
    """Return ``value`` as a JSON string that is safe to show on a terminal."""
    quoted: str = encode_basestring(value)
    if quoted.isascii() and "\x7f" not in quoted:
        return quoted
    return _UNSAFE.sub(_escape, quoted)


def _number(value: float | None) -> str:
    return "null" if value is None or not math.isfinite(value) else repr(value)


def _array(values: tuple[str, ...]) -> str:
    return "[\n      " + ",\n      ".join(map(text, values)) + "\n    ]" if values else "[]"


def _writer(key: str) -> Callable[[Any], str]:
    if key == "stop_sequences":
        return _array
    return _number if key in _NUMBERS else text


_ROWS = {
    kind: tuple((key, f',\n  "{key}": ', _writer(key)) for key in (*keys, "trace_id"))
    for kind, keys in KEYS.items()
}
_METADATA_ROWS = tuple((key, f'"{key}": ', _writer(key)) for key in METADATA_KEYS)


def render(event: LifecycleEvent) -> str:
    """Return the entry of ``event``: header, object, one empty line."""
    header = f"[{event.time.isoformat(' ', 'seconds')}] [EVENT: {event.tag}]"
    out = [f'{header}\n{{\n  "event_type": "{event.event_type}"']
    for key, prefix, write in _ROWS[type(event)]:
        out.append(prefix)
        out.append(write(getattr(event, key)))
    out.append(f',\n  "metadata": {_metadata(event.metadata)}\n}}\n\n')
    return "".join(out)


def _metadata(metadata: Metadata) -> str:
    members = []
    for key, prefix, write in _METADATA_ROWS:
        value = getattr(metadata, key)
        if value is not None:
            members.append(prefix + write(value))
    if metadata.custom_fields:
        fields = ",\n      ".join([f"{text(k)}: {text(v)}" for k, v in metadata.custom_fields.items()])
        members.append(f'"custom_fields": {{\n      {fields}\n    }}')
    return "{\n    " + ",\n    ".join(members) + "\n  }" if members else "{}"


# ------------------------------------------------------------------ parse
def parse(entry: str) -> LifecycleEvent:
    """Return the event that ``entry``, header to closing brace, was rendered from.

    Unknown keys are ignored and missing ones get their default, so that a file of another version of the
    format still reads.

    Raises:
        ValueError: the text is not a whole entry of one of the six types.
    """
    header, _, body = entry.partition("\n")
    match = HEADER.fullmatch(header)
    if match is None:
        raise ValueError("not an entry: the first line is no header")
    kind = _BY_TAG.get(match[2])
    if kind is None:
        raise ValueError(f"unknown event {match[2]}")
    members = json.loads(body)
    if not isinstance(members, dict) or members.get("event_type") != kind.event_type:
        raise ValueError(f"the object under the header is no {kind.event_type}")
    values = _checked(members, (*KEYS[kind], "trace_id"))
    metadata = members.get("metadata") or {}
    if not isinstance(metadata, dict):
        raise ValueError("metadata is not an object")
    return kind(
        time=datetime.fromisoformat(match[1]),
        metadata=Metadata(**_checked(metadata, METADATA_KEYS), custom_fields=_custom_fields(metadata)),
        **values,
    )


def _checked(members: Mapping[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    values = {}
    for key in keys:
        value = members.get(key)
        if value is None:
            continue
        if key == "stop_sequences":
            value = (
                tuple(value) if isinstance(value, list) and all(isinstance(v, str) for v in value) else None
            )
        elif key in _NUMBERS:
            value = value if isinstance(value, (int, float)) and not isinstance(value, bool) else None
        elif not isinstance(value, str):
            value = None
        if value is None:
            raise ValueError(f"{key} has a value of the wrong type")
        values[key] = value
    return values


def _custom_fields(metadata: Mapping[str, Any]) -> dict[str, str]:
    fields = metadata.get("custom_fields") or {}
    if not isinstance(fields, dict) or not all(isinstance(value, str) for value in fields.values()):
        raise ValueError("custom_fields does not map strings to strings")
    return fields
