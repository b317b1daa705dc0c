"""An event as a JSON object and as a flat row: the shapes that other programs get.

:func:`to_object` keeps everything, under the keys of ``events.log``. :func:`to_row` is for tables: one value
per column, numbers as numbers, the time as an instant. The column ``entry`` holds what no other column can.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, Final, Literal, TypeAlias

from openai_lifecycle.events import LifecycleEvent
from openai_lifecycle.eventslog.format import KEYS, METADATA_KEYS, render

Kind: TypeAlias = Literal["text", "integer", "number", "instant"]


# ------------------------------------------------------------------ identity and time
def event_id(event: LifecycleEvent) -> str:
    """Return 32 hex digits that identify the event: a digest of its entry.

    The entry holds the span's id and microseconds, so only the same event written twice has the same id.
    """
    return hashlib.blake2b(render(event).encode(), digest_size=16).hexdigest()


def instant(event: LifecycleEvent) -> datetime:
    """Return when ``event`` happened, as an aware datetime.

    This is its ``timestamp``. If that is missing or broken, it is the header's time, taken as local time. The
    result can always be converted to UTC, which has no years before 1 or after 9999.
    """
    return parse_time(event.metadata.custom_fields.get("timestamp", "")) or zoned(event.time)


def parse_time(text: str) -> datetime | None:
    """Return the time that ``text`` (RFC 3339) states, as an aware datetime: local when it names no zone.

    ``None`` if it states none, or one that cannot be converted to UTC.
    """
    try:
        return _aware(datetime.fromisoformat(text))
    except (ValueError, OverflowError):
        return None


def zoned(moment: datetime) -> datetime:
    """Return ``moment`` as an aware datetime that can be converted to UTC.

    It is local when it has no zone. Where it cannot be converted, at either end of the calendar, it counts as UTC.
    """
    with contextlib.suppress(ValueError, OverflowError):
        return _aware(moment)
    return moment.replace(tzinfo=timezone.utc)


def _aware(moment: datetime) -> datetime:
    """Return ``moment`` as an aware datetime.

    Raises:
        ValueError, OverflowError: it cannot be converted to UTC.
    """
    aware = moment if moment.tzinfo else moment.astimezone()
    aware.astimezone(timezone.utc)
    return aware


# ------------------------------------------------------------------ the JSON object
def to_object(event: LifecycleEvent) -> dict[str, Any]:
    """Return ``event`` as the JSON object of its entry, preceded by the header's time as ``time``.

    As in the entry, a number that JSON cannot represent is ``None``, and is left out of ``metadata``.
    """
    metadata = {key: _plain(getattr(event.metadata, key)) for key in METADATA_KEYS}
    return {
        "time": event.time.replace(tzinfo=None).isoformat(timespec="seconds"),
        "event_type": event.event_type,
        **{key: _plain(getattr(event, key)) for key in KEYS[type(event)]},
        "trace_id": event.trace_id,
        "metadata": {
            **{key: value for key, value in metadata.items() if value is not None},
            "custom_fields": dict(event.metadata.custom_fields),
        },
    }


def _plain(value: Any) -> Any:
    """Return ``value``, or ``None`` for a number that JSON cannot hold: not finite, or too many digits."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, int):
        value = int(value)  # a plain int instead of an enum member or True
        try:
            repr(value)
        except ValueError:  # more digits than sys.get_int_max_str_digits()
            return None
    return value


def to_json(event: LifecycleEvent) -> str:
    """Return ``event`` as one line of ASCII JSON: safe on a terminal, and it keeps lone surrogates."""
    return json.dumps(to_object(event))


# ------------------------------------------------------------------ the flat row
@dataclass(frozen=True, slots=True)
class Column:
    """One column of a row: its name, the kind of its values, and where they come from."""

    name: str
    kind: Kind
    value: Callable[[LifecycleEvent], Any]


def _own(name: str, kind: Kind = "text") -> Column:
    return Column(name, kind, lambda event: _plain(getattr(event, name, None)))


def _metadata(name: str, kind: Kind = "text") -> Column:
    return Column(name, kind, lambda event: _plain(getattr(event.metadata, name)))


def _custom(name: str, kind: Kind = "text") -> Column:
    read = {"integer": whole, "number": decimal}.get(kind, _same)
    return Column(name, kind, lambda event: read(event.metadata.custom_fields.get(name)))


def _same(text: str | None) -> str | None:
    return text


def whole(text: str | None) -> int | None:
    """Return ``text`` as an integer, 0 or more; ``None`` for anything else."""
    return int(text) if text and len(text) < 19 and text.isascii() and text.isdigit() else None


def decimal(text: str | None) -> float | None:
    """Return ``text`` as a finite number, 0 or more; ``None`` for anything else."""
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if 0 <= number < float("inf") else None


COLUMNS: Final = (
    Column("event_id", "text", event_id),
    Column("timestamp", "instant", lambda event: instant(event).astimezone(timezone.utc)),
    _own("event_type"),
    _own("provider"),
    _own("model_id"),
    _own("operation"),
    _own("trace_id"),
    _custom("span_id"),
    _metadata("user"),
    _custom("operation_name"),
    _own("temperature", "number"),
    _metadata("max_tokens", "number"),
    _metadata("top_p", "number"),
    _metadata("frequency_penalty", "number"),
    _metadata("presence_penalty", "number"),
    _own("messages_count", "integer"),
    _own("message_content"),
    _own("response_length", "integer"),
    _own("choices_count", "integer"),
    _custom("input_tokens", "integer"),
    _custom("output_tokens", "integer"),
    _custom("total_tokens", "integer"),
    _custom("cached_tokens", "integer"),
    _custom("reasoning_tokens", "integer"),
    _custom("response_id"),
    _custom("response_model"),
    _custom("finish_reasons"),
    _custom("stream"),
    _custom("time_to_first_token_ms", "number"),
    _custom("duration_ms", "number"),
    _custom("request_id"),
    _custom("retries", "integer"),
    _own("error"),
    _custom("error_type"),
    _custom("status_code", "integer"),
    _own("tool_call_id"),
    _own("tool_name"),
    _own("arguments"),
    _custom("client"),
    _custom("base_url"),
    Column("entry", "text", to_json),
)
"""The columns of a row in order; ``entry`` is the whole event as :func:`to_json` writes it."""


def to_row(event: LifecycleEvent) -> dict[str, Any]:
    """Return one value for each of :data:`COLUMNS`; ``None`` where the event has none."""
    return {column.name: column.value(event) for column in COLUMNS}
