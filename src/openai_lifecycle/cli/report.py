"""One HTML page that needs no network: the numbers as charts over time, tables, and a searchable list of entries.

The page is three fixed files of this folder and Plotly's, plus the data, compressed and in base64, so that none of it
is markup. Its content security policy allows only the two scripts whose digests it names, and loads nothing.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import html
import json
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timezone
from heapq import heappush, heappushpop
from importlib.resources import files
from typing import Any, Final

from plotly.offline import get_plotlyjs  # type: ignore[import-untyped]

from openai_lifecycle import semconv
from openai_lifecycle.cli.costs import Prices
from openai_lifecycle.cli.show import cells
from openai_lifecycle.cli.stats import Entry, Group, Numbers, cost, decode, measures
from openai_lifecycle.cli.terminal import clean
from openai_lifecycle.eventslog.format import parse
from openai_lifecycle.records import decimal, parse_time
from openai_lifecycle.version import __version__

_TEXT: Final = 500  # characters of an entry's text
_TOP: Final = 20  # slowest and most expensive calls, types of error and tools of a group
_ROWS: Final = 200  # groups of a table, and failures
_MODELS: Final = 8  # models that a chart tells apart
_BY: Final = ("model", "provider", "operation", "user")
#: Values of an entry in the list, in the order that the page's script expects.
_FIELDS: Final = (
    "time",
    "event",
    "provider",
    "model",
    "duration_ms",
    "input_tokens",
    "output_tokens",
    "user",
    "trace_id",
    "text",
)
_ENDINGS: Final = frozenset({semconv.GENERATION_SUCCESS, semconv.GENERATION_ERROR})


class Timeline:
    """Numbers over time by model. Buckets start with a minute and grow with the time that the log spans."""

    _SIZES: Final = (60, 600, 3600, 6 * 3600, 86400, 7 * 86400)
    _MOST: Final = 400
    #: From then on a bucket's time may not be representable.
    _END: Final = datetime(9999, 1, 1, tzinfo=timezone.utc).timestamp()

    def __init__(self, prices: Prices) -> None:
        self._prices = prices
        self._sizes = iter(self._SIZES)
        self.size = next(self._sizes)
        self.buckets: dict[int, Numbers] = {}

    def add(self, entry: Entry, when: float) -> None:
        """Count ``entry``, which happened ``when`` seconds after 1970 began, if that is a time to show."""
        if not 0 <= when < self._END:
            return
        bucket = int(when // self.size) * self.size
        if bucket not in self.buckets:
            self.buckets[bucket] = self._numbers()
        self.buckets[bucket].add(entry)
        while len(self.buckets) > self._MOST:
            self._coarsen()

    def _numbers(self) -> Numbers:
        return Numbers(("model",), self._prices)

    def _coarsen(self) -> None:
        self.size = next(self._sizes, self.size * 4)
        finer, self.buckets = self.buckets, {}
        for second, numbers in finer.items():
            coarse = self.buckets.setdefault(second // self.size * self.size, self._numbers())
            for key, group in numbers.groups.items():
                coarse.groups.setdefault(key, Group()).merge(group)


class _Highest:
    """The ``most`` entries with the highest values; of equal ones, the last."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._heap: list[tuple[float, int, bytes]] = []
        self._count = 0  # so that equal values are never compared further

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, value: float, raw: bytes) -> None:
        self._count += 1
        item = (value, self._count, raw)
        if len(self._heap) < self._most:
            heappush(self._heap, item)
        else:
            heappushpop(self._heap, item)

    def ordered(self) -> list[tuple[float, bytes]]:
        return [(value, raw) for value, _, raw in sorted(self._heap, reverse=True)]


@dataclass(slots=True)
class _Failure:
    """Errors of one type and model: how many, and the last one."""

    count: int = 0
    when: float = -math.inf
    last: bytes = b""


class Report:
    """Collects what the page shows, in one pass: numbers of all entries, and the newest entries themselves."""

    def __init__(self, prices: Prices, entries: int) -> None:
        self._prices = prices
        self.tables = [Numbers((name,), prices) for name in _BY]
        self.timeline = Timeline(prices)
        self._slowest, self._most_expensive = _Highest(_TOP), _Highest(_TOP)
        self._failures: dict[tuple[str, str], _Failure] = {}
        self._newest = _Highest(entries)
        self.count = 0  # entries taken

    def add(self, entry: Entry, raw: bytes) -> None:
        """Take one entry."""
        self.count += 1
        when = _seconds(entry, raw)
        self._newest.add(when, raw)
        for numbers in self.tables:
            numbers.add(entry)
        self.timeline.add(entry, when)
        custom = entry.metadata.custom_fields
        if entry.event_type in _ENDINGS:
            self._slowest.add(decimal(custom.duration_ms) or 0.0, raw)
            self._most_expensive.add(float(cost(self._prices, entry) or 0), raw)
        if entry.event_type in (semconv.GENERATION_ERROR, semconv.INITIALIZATION_ERROR):
            failure = self._failures.setdefault((custom.error_type or "unknown", entry.model_id), _Failure())
            failure.count += 1
            if when >= failure.when:  # several logs are read one after the other
                failure.when, failure.last = when, raw

    # -------------------------------------------------------------- the page
    def page(self, names: Iterable[str]) -> str:
        """Return the page about the logs ``names``."""
        plotly, script = get_plotlyjs().replace("</script", "<\\/script"), _file("page.js")
        packed = gzip.compress(json.dumps(self.data()).encode(), 6, mtime=0)
        parts = {
            "TITLE": html.escape(", ".join(map(clean, names))),
            "POLICY": " ".join(map(_digest, (plotly, script))),
            "STYLE": _file("page.css"),
            "VERSION": __version__,
            "DATA": base64.b64encode(packed).decode(),
            "PLOTLY": plotly,
            "SCRIPT": script,
        }
        return re.sub("%%([A-Z]+)%%", lambda name: parts[name[1]], _file("page.html"))

    def data(self) -> dict[str, Any]:
        """Return what the page's script gets; every text in it is cleaned of control characters."""
        failures = sorted(self._failures.items(), key=lambda item: -item[1].count)[:_ROWS]
        return {
            "total": _measured(self.tables[0].total()),
            "tables": {
                numbers.by[0]: [
                    {"name": clean(key[0]) or "-", **_measured(group)}
                    for key, group in numbers.ordered()[:_ROWS]
                ]
                for numbers in self.tables
            },
            "timeline": self._timeline(),
            "errors": [
                {"type": clean(kind), "count": failure.count, **_listed(failure.last)}
                for (kind, _), failure in failures
            ],
            "slowest": [_listed(raw) for value, raw in self._slowest.ordered() if value],
            "most_expensive": [
                {**_listed(raw), "cost": value} for value, raw in self._most_expensive.ordered() if value
            ],
            "entries": [
                [row[name] for name in _FIELDS] for row in (_listed(raw) for _, raw in self._newest.ordered())
            ],
            "left_out": self.count - len(self._newest),
        }

    def _timeline(self) -> dict[str, Any]:
        line = self.timeline
        models = [key[0] for key, _ in self.tables[0].ordered()[:_MODELS]]
        return {
            "size": line.size,
            "models": [clean(model) or "-" for model in models],
            "points": [
                {
                    "time": datetime.fromtimestamp(second, timezone.utc)
                    .astimezone()
                    .isoformat(" ", "minutes")[:16],
                    **_measured(numbers.total()),
                    "calls_by_model": _leading(numbers, models, lambda group: group.calls),
                    "cost_by_model": _leading(numbers, models, lambda group: float(group.cost or 0)),
                }
                for second, numbers in sorted(line.buckets.items())
            ],
            "zone": datetime.now().astimezone().strftime("%Z"),
        }


def _seconds(entry: Entry, raw: bytes) -> float:
    """Return when ``entry`` happened, in seconds since 1970, as ``records.instant`` does; the earliest if it does not say."""
    timestamp, header = entry.metadata.custom_fields.timestamp, raw[1:20].decode("ascii", "replace")
    moment = parse_time(timestamp) or parse_time(header)
    return -math.inf if moment is None else moment.timestamp()


def _leading(numbers: Numbers, models: list[str], of: Callable[[Group], float]) -> list[float]:
    """Return a value for each of ``models`` and, last, for all others together."""
    values = [of(numbers.groups[(model,)]) if (model,) in numbers.groups else 0 for model in models]
    return [*values, sum(of(group) for key, group in numbers.groups.items() if key[0] not in models)]


def _measured(group: Group) -> dict[str, Any]:
    values = measures(group)
    for name in ("error_types", "tools"):
        values[name] = [[clean(key) or "-", count] for key, count in list(values[name].items())[:_TOP]]
    return values


def _listed(raw: bytes) -> dict[str, str]:
    """Return what the page shows of an entry: its row and the user."""
    try:
        event = parse(raw)
    except ValueError as error:
        return _counted(decode(raw), f"cannot be read: {error}")
    return {**cells(event, _TEXT), "user": clean(event.metadata.user or "")}


def _counted(entry: Entry, text: str) -> dict[str, str]:
    """Return what the page shows of a counted entry that is damaged or of another version."""
    custom = entry.metadata.custom_fields
    known = {
        "event": entry.event_type,
        "provider": entry.provider,
        "model": entry.model_id,
        "duration_ms": custom.duration_ms,
        "input_tokens": custom.input_tokens,
        "output_tokens": custom.output_tokens,
        "user": entry.metadata.user,
        "text": text,
    }
    return {name: clean(known.get(name, "")) for name in _FIELDS}


def _file(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _digest(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
