"""The text of one entry: :func:`render` and its inverse :func:`parse`.

    [2025-01-27 14:30:26] [EVENT: TOOL_CALL_DETECTED]
    {
      "event_type": "TOOL_CALL_DETECTED",
      …
    }

The object is JSON as ``json.dumps(indent=2, ensure_ascii=False)`` writes it, with one addition: control
characters, line separators, bidirectional controls and lone surrogates are escaped too, so that model output can
neither forge an entry nor drive a terminal. ``json.dumps`` itself is not used: with an indent it runs in pure
Python, and an entry's shape is known in advance.
"""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from json.encoder import encode_basestring
from typing import Any, Final

import jiter

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

# ------------------------------------------------------------------ render
#: For a character class: delete, C1 controls, line separators, bidirectional controls, lone surrogates.
UNSAFE: Final = "\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
_UNSAFE: Final = re.compile(f"[{UNSAFE}]")


def _escape(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}"


def _number(value: float | None) -> str:
    if value is None:
        return "null"
    try:
        if type(value) is int:
            return repr(value)
        # The base type's repr: an enum member may be an int too, but its repr is not a number.
        if isinstance(value, float):
            return float.__repr__(value) if math.isfinite(value) else "null"
        return int.__repr__(value)
    except ValueError:  # more digits than Python writes (sys.get_int_max_str_digits)
        return "null"


def _array(values: tuple[str, ...]) -> str:
    return "[\n      " + ",\n      ".join(map(encode_basestring, values)) + "\n    ]" if values else "[]"


def _writer(key: str) -> Callable[[Any], str]:
    if key == "stop_sequences":
        return _array
    return _number if key in _NUMBERS else encode_basestring


#: The header after the time, and the object's first line.
_OPENINGS = {kind: f'] [EVENT: {kind.tag}]\n{{\n  "event_type": "{kind.event_type}"' for kind in KEYS}
_ROWS = {
    kind: tuple((key, f',\n  "{key}": ', _writer(key)) for key in (*keys, "trace_id"))
    for kind, keys in KEYS.items()
}
_METADATA_ROWS = tuple((key, f'"{key}": ', _writer(key)) for key in METADATA_KEYS)


def render(event: LifecycleEvent) -> str:
    """Return the entry of ``event``: header, object, one empty line."""
    values = vars(event)
    time = event.time
    if time.tzinfo is not None:  # a header has no zone, and not every zone is hashable
        time = time.replace(tzinfo=None)
    out = ["[", _clock(time), _OPENINGS[type(event)]]
    for key, prefix, write in _ROWS[type(event)]:
        out.append(prefix)
        out.append(write(values[key]))
    out.append(f',\n  "metadata": {_metadata(event.metadata)}\n}}\n\n')
    entry = "".join(out)
    # encode_basestring escapes what JSON demands. The rest occurs in texts only, so one pass over the whole is enough.
    return entry if entry.isascii() and "\x7f" not in entry else _UNSAFE.sub(_escape, entry)


@functools.lru_cache(maxsize=64)
def _clock(time: datetime) -> str:
    """Return the naive ``time`` as a header shows it."""
    return time.isoformat(" ", "seconds")


def _metadata(metadata: Metadata) -> str:
    values = vars(metadata)
    members = []
    for key, prefix, write in _METADATA_ROWS:
        value = values[key]
        # A number that JSON cannot write counts as not set.
        if value is not None and (text := write(value)) != "null":
            members.append(prefix + text)
    if metadata.custom_fields:
        members.append(f'"custom_fields": {{{_fields(metadata.custom_fields)}\n    }}')
    return "{\n    " + ",\n    ".join(members) + "\n  }" if members else "{}"


def _fields(fields: Mapping[str, str]) -> str:
    """Return the members of ``custom_fields``, without its braces.

    Encoding all texts at once tells whether one needs escaping, which is rare, and is cheaper than encoding each.
    """
    texts = list(fields.values())
    joined = "".join(texts)
    if len(encode_basestring(joined)) > len(joined) + 2:  # the two are the quotation marks
        texts = [encode_basestring(text)[1:-1] for text in texts]
    pieces = [""] * (2 * len(texts))
    pieces[::2] = _field_prefixes(tuple(fields))
    pieces[1::2] = texts
    return "".join(pieces) + '"'


@functools.lru_cache(maxsize=64)
def _field_prefixes(keys: tuple[str, ...]) -> tuple[str, ...]:
    """Return the text before each field's value: the end of the previous field, and the key."""
    first, *others = (f'\n      {encode_basestring(key)}: "' for key in keys)
    return first, *(f'",{other}' for other in others)


# ------------------------------------------------------------------ parse
# The brace on the next line makes it a header: a text that looks like one contains no line break.
HEADER: Final = re.compile(rb"\[(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)\] \[EVENT: ([A-Z_]+)\]\r?\n(?=\{)")
#: The end of an entry: the object's last line and the empty one.
END: Final = b"\n}\n\n"
_KINDS: Final[Mapping[bytes, type[LifecycleEvent]]] = {kind.tag.encode(): kind for kind in KEYS}


def parse(entry: str | bytes) -> LifecycleEvent:
    """Return the event that ``entry``, header to closing brace, was rendered from.

    Unknown keys are ignored and missing ones get their default, so files of other format versions can be read.

    Raises:
        ValueError: the text is not a whole entry of one of the six types. The message quotes none of its values.
    """
    if isinstance(entry, str):
        entry = entry.encode()
    header = HEADER.match(entry)
    if header is None:
        raise ValueError("not an entry: the first line is not a header")
    kind = _KINDS.get(header[2])
    if kind is None:
        raise ValueError(f"unknown event {header[2].decode()}")
    members = _object(entry[header.end() :])
    if members.get("event_type") != kind.event_type:
        raise ValueError(f"event_type is not {kind.event_type}, as the header says")
    metadata = members.get("metadata") or {}
    if not isinstance(metadata, dict):
        raise ValueError("metadata is not an object")
    return kind(
        time=datetime.fromisoformat(header[1].decode()),
        metadata=Metadata(**_checked(metadata, _METADATA_TYPES), custom_fields=_custom_fields(metadata)),
        **_checked(members, _TYPES[kind]),
    )


def _object(body: bytes) -> dict[str, Any]:
    # jiter comes with the OpenAI client and takes less than half of json's time. Only json reads all that the
    # format allows (lone surrogates), so it is the fallback.
    try:
        members = jiter.from_json(body)
    except ValueError:
        try:
            members = json.loads(body)
        except RecursionError:
            raise ValueError("the object is nested too deeply") from None
        except json.JSONDecodeError as error:  # not chained: its `doc` is the text itself
            what = error.msg.removesuffix(" at")
            raise ValueError(f"broken JSON: {what} at character {error.pos}") from None
    if not isinstance(members, dict):
        raise ValueError("no object under the header")
    return members


def _types(keys: tuple[str, ...]) -> tuple[tuple[str, frozenset[type]], ...]:
    return tuple(
        (key, frozenset({list} if key == "stop_sequences" else {int, float} if key in _NUMBERS else {str}))
        for key in keys
    )


_TYPES = {kind: _types((*keys, "trace_id")) for kind, keys in KEYS.items()}
_METADATA_TYPES = _types(METADATA_KEYS)


def _checked(members: Mapping[str, Any], types: tuple[tuple[str, frozenset[type]], ...]) -> dict[str, Any]:
    values = {}
    for key, allowed in types:
        value = members.get(key)
        if value is not None:
            if value.__class__ not in allowed:
                raise ValueError(f"{key} has a value of the wrong type")
            values[key] = value if value.__class__ is not list else _strings(key, value)
    return values


def _strings(key: str, values: list[Any]) -> tuple[str, ...]:
    if not all(isinstance(value, str) for value in values):
        raise ValueError(f"{key} has a value of the wrong type")
    return tuple(values)


def _custom_fields(metadata: Mapping[str, Any]) -> dict[str, str]:
    fields = metadata.get("custom_fields") or {}
    if not isinstance(fields, dict):
        raise ValueError("custom_fields is not an object")
    _strings("custom_fields", list(fields.values()))
    return fields
