"""The numbers of a log, in one pass and constant memory: calls, errors, tokens, cost, latency, tools.

msgspec decodes only the few fields that count and skips the rest, so a gigabyte takes seconds. All counts are exact
except percentiles (``sketch.py``).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timezone
from decimal import Decimal
from typing import Any, Final

import msgspec

from openai_lifecycle import semconv
from openai_lifecycle.cli.costs import Prices, Rate, paid_output
from openai_lifecycle.cli.select import Filter
from openai_lifecycle.cli.sketch import Sketch
from openai_lifecycle.eventslog.format import KEYS as EVENT_KEYS
from openai_lifecycle.eventslog.format import parse
from openai_lifecycle.records import parse_time, whole

_NOBODY: Final = frozenset(kind.placeholder_user for kind in EVENT_KEYS)


# ------------------------------------------------------------------ the fields that count
class Custom(msgspec.Struct, gc=False):
    """The fields that count of ``metadata.custom_fields``."""

    timestamp: str = ""
    error_type: str = ""
    response_model: str = ""
    input_tokens: str = ""
    output_tokens: str = ""
    total_tokens: str = ""
    cached_tokens: str = ""
    reasoning_tokens: str = ""
    time_to_first_token_ms: str = ""
    duration_ms: str = ""


class _Metadata(msgspec.Struct, gc=False):
    user: str = ""
    custom_fields: Custom = msgspec.field(default_factory=Custom)


class Entry(msgspec.Struct, gc=False):
    """The fields that count of an entry."""

    event_type: str
    provider: str = ""
    model_id: str = ""
    operation: str = ""
    tool_name: str = ""
    metadata: _Metadata = msgspec.field(default_factory=_Metadata)


_decode: Final = msgspec.json.Decoder(Entry).decode


def decode(raw: bytes) -> Entry:
    """Return the fields that count of an entry.

    Raises:
        ValueError: the bytes are not a whole entry.
    """
    try:
        return _decode(raw[raw.index(b"\n") :])
    except (msgspec.MsgspecError, ValueError, RecursionError):
        event = parse(raw)  # says what is wrong, or handles: lone surrogates, a missing user
        members: dict[str, Any] = {name: getattr(event, name, "") for name in Entry.__struct_fields__}
        custom = {k: v for k, v in event.metadata.custom_fields.items() if k in Custom.__struct_fields__}
        return Entry(**{**members, "metadata": _Metadata(event.metadata.user or "", Custom(**custom))})


def decoder(wanted: Filter) -> Callable[[bytes], Entry | None]:
    """Return a :func:`decode` that gives ``None`` for entries which are not wanted."""
    if wanted.everything:
        return decode
    return lambda raw: decode(raw) if wanted(parse(raw)) else None


# ------------------------------------------------------------------ the numbers of one group
@dataclass(slots=True)
class Group:
    """The numbers of some calls. ``unpriced`` are those whose cost is unknown."""

    calls: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    unpriced: int = 0
    tokens: dict[Rate, list[int]] = field(default_factory=dict)  # what ``Rate.cost`` takes
    latency: Sketch = field(default_factory=Sketch)
    first_token: Sketch = field(default_factory=Sketch)
    tools: Counter[str] = field(default_factory=Counter)

    @property
    def cost(self) -> Decimal | None:
        """Dollars of the calls whose price is known; ``None`` when there are calls and none is."""
        if self.unpriced and not self.tokens:
            return None
        return sum((rate.cost(*counts) for rate, counts in self.tokens.items()), Decimal(0))

    def merge(self, other: Group) -> None:
        """Add the numbers of ``other``."""
        for name in (
            "calls",
            "input_tokens",
            "output_tokens",
            "cached_tokens",
            "reasoning_tokens",
            "unpriced",
        ):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for rate, counts in other.tokens.items():
            before = self.tokens.get(rate, (0,) * len(counts))
            self.tokens[rate] = [a + b for a, b in zip(before, counts, strict=True)]
        self.errors.update(other.errors)
        self.tools.update(other.tools)
        self.latency.merge(other.latency)
        self.first_token.merge(other.first_token)


def hour(timestamp: str) -> str:
    """Return the hour of an RFC 3339 time, with its offset: ``2026-01-27T14:00+01:00``."""
    return f"{timestamp[:13]}:00{timestamp[26:]}" if timestamp else ""


def _in_order(name: str, part: str) -> str:
    """Return what a part of a group's key is sorted by: an hour in UTC, because offsets differ with the season and place."""
    moment = parse_time(part) if name == "hour" else None  # a call without a time has no hour either
    return part if moment is None else moment.astimezone(timezone.utc).isoformat()


#: What calls can be grouped by.
KEYS: Final[dict[str, Callable[[Entry], str]]] = {
    "model": lambda entry: entry.model_id,
    "provider": lambda entry: entry.provider,
    "operation": lambda entry: entry.operation or "llm_generation",  # a tool call names none
    "user": lambda entry: "" if entry.metadata.user in _NOBODY else entry.metadata.user,
    "day": lambda entry: entry.metadata.custom_fields.timestamp[:10],
    "hour": lambda entry: hour(entry.metadata.custom_fields.timestamp),
}


class Numbers:
    """Calls grouped by one or several of :data:`KEYS`."""

    def __init__(self, by: Sequence[str], prices: Prices) -> None:
        self.by = tuple(by)
        self.groups: dict[tuple[str, ...], Group] = {}
        self._keys = [KEYS[name] for name in by]
        self._prices = prices

    def add(self, entry: Entry) -> None:
        """Count ``entry``."""
        kind = entry.event_type
        if kind not in _COUNTED:
            return
        key = tuple([of(entry) for of in self._keys])
        group = self.groups.get(key)
        if group is None:
            group = self.groups[key] = Group()
        if kind == semconv.TOOL_CALL_DETECTED:
            group.tools[entry.tool_name] += 1
            return
        group.calls += 1
        custom = entry.metadata.custom_fields
        if kind == semconv.GENERATION_ERROR:
            group.errors[custom.error_type or "unknown"] += 1
        elif custom.duration_ms:
            _measure(group.latency, custom.duration_ms)
        if custom.time_to_first_token_ms:
            _measure(group.first_token, custom.time_to_first_token_ms)
        if custom.input_tokens or custom.output_tokens:
            self._add_tokens(group, entry)
        elif kind == semconv.GENERATION_SUCCESS:
            group.unpriced += 1

    def _add_tokens(self, group: Group, entry: Entry) -> None:
        sent, cached, received, reasoning, paid = _tokens(entry)
        group.input_tokens += sent
        group.output_tokens += received
        group.cached_tokens += cached
        group.reasoning_tokens += reasoning
        rate = _rate(self._prices, entry, sent, cached)
        if rate is None:
            group.unpriced += 1
            return
        counts = group.tokens.get(rate)
        if counts is None:
            counts = group.tokens[rate] = [0, 0, 0, 0, 0]
        counts[0] += sent
        counts[1] += cached
        counts[2] += paid
        counts[3] += reasoning
        counts[4] += 1

    def total(self) -> Group:
        """Return the numbers of all calls."""
        total = Group()
        for group in self.groups.values():
            total.merge(group)
        return total

    def ordered(self) -> list[tuple[tuple[str, ...], Group]]:
        """Return the groups, by time when they are grouped by day or hour, else those with the most calls first."""
        if "day" in self.by or "hour" in self.by:
            return sorted(self.groups.items(), key=lambda item: tuple(map(_in_order, self.by, item[0])))
        return sorted(self.groups.items(), key=lambda item: (-item[1].calls, item[0]))


_COUNTED: Final = frozenset(
    {semconv.GENERATION_SUCCESS, semconv.GENERATION_ERROR, semconv.TOOL_CALL_DETECTED}
)


def _tokens(entry: Entry) -> tuple[int, int, int, int, int]:
    """Return how many tokens were sent, cached of these, received, of reasoning, and are paid for as output."""
    custom = entry.metadata.custom_fields
    sent, cached = whole(custom.input_tokens) or 0, whole(custom.cached_tokens) or 0
    received, reasoning = whole(custom.output_tokens) or 0, whole(custom.reasoning_tokens) or 0
    paid = paid_output(entry.provider, sent, received, reasoning, whole(custom.total_tokens) or 0)
    return sent, cached, received, reasoning, paid


def _rate(prices: Prices, entry: Entry, sent: int, cached: int) -> Rate | None:
    """Return the rate of the call: by the model that answered, else by the requested one.

    ``None`` if neither has a price, or if the server counted more ``cached`` tokens than were ``sent``.
    """
    if cached > sent:
        return None
    custom = entry.metadata.custom_fields
    return prices.rate(entry.provider, (custom.response_model, entry.model_id), custom.timestamp, sent)


def cost(prices: Prices, entry: Entry) -> Decimal | None:
    """Return what one call cost; ``None`` when it is not known."""
    custom = entry.metadata.custom_fields
    sent, cached, _, reasoning, paid = _tokens(entry)
    rate = _rate(prices, entry, sent, cached) if custom.input_tokens or custom.output_tokens else None
    return None if rate is None else rate.cost(sent, cached, paid, reasoning)


def _measure(sketch: Sketch, text: str) -> None:
    try:  # like records.decimal, whose call would cost as much as all the rest
        value = float(text)
    except ValueError:
        return
    if 0 <= value < math.inf:
        sketch.add(value)


# ------------------------------------------------------------------ the numbers by name
#: Of latencies and of times to the first token.
PERCENTILES: Final = (50, 95, 99)


def measures(group: Group) -> dict[str, Any]:
    """Return the numbers of ``group`` by name; what is unknown is ``None``."""
    return {
        "calls": group.calls,
        "errors": group.errors.total(),
        "error_types": dict(group.errors.most_common()),
        "input_tokens": group.input_tokens,
        "output_tokens": group.output_tokens,
        "cached_tokens": group.cached_tokens,
        "reasoning_tokens": group.reasoning_tokens,
        "cost_usd": None if group.cost is None else float(group.cost),
        "unpriced_calls": group.unpriced,
        **{f"latency_p{p}_ms": _rounded(group.latency.percentile(p)) for p in PERCENTILES},
        **{f"first_token_p{p}_ms": _rounded(group.first_token.percentile(p)) for p in PERCENTILES},
        "tool_calls": group.tools.total(),
        "tools": dict(group.tools.most_common()),
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")
