"""The numbers of a log as text: a table for people, JSON and CSV for programs."""

from __future__ import annotations

import csv
import io
import json
import textwrap
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from openai_lifecycle.cli.sketch import Sketch
from openai_lifecycle.cli.stats import PERCENTILES, Group, Numbers, measures
from openai_lifecycle.cli.terminal import cell, clean


def rows(numbers: Numbers) -> Iterator[dict[str, Any]]:
    """Yield one flat row a group: what ``--json`` and ``--csv`` show. Latencies are milliseconds, costs dollars."""
    for key, group in numbers.ordered():
        yield {**dict(zip(numbers.by, key, strict=True)), **measures(group)}


def as_json(numbers: Numbers) -> str:
    """Return the rows and their total as one JSON object."""
    return json.dumps(
        {"by": numbers.by, "groups": list(rows(numbers)), "total": measures(numbers.total())}, indent=2
    )


def as_csv(numbers: Numbers) -> str:
    """Return the rows as CSV; error types and tools as JSON within their cell."""
    out = io.StringIO()
    names = [*numbers.by, *measures(Group())]
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(names)
    for row in rows(numbers):
        writer.writerow(json.dumps(v) if isinstance(v, dict) else cell(v) for v in row.values())
    return out.getvalue()


@dataclass(frozen=True, slots=True)
class _Shown:
    """A column of the table; on a narrow terminal, the lowest rank is dropped first."""

    heading: str
    rank: int
    text: Callable[[Group], str]
    justify: Literal["left", "right"] = "right"  # numbers


def _seconds(sketch: Sketch) -> str:
    values = [sketch.percentile(percent) for percent in PERCENTILES]
    return " ".join("-" if value is None else _three_digits(value / 1000) for value in values)


def _three_digits(value: float) -> str:
    """Return ``value`` with three digits that count, as 1530 and not as 1.53e+03."""
    return f"{float(f'{value:.3g}'):g}"


def _counted(counter: Counter[str]) -> str:
    return ", ".join(f"{clean(name)} {count}" for name, count in counter.most_common(5)) or "-"


def dollars(group: Group) -> str:
    """Return what is known of the cost: ``?`` for unknown, ``$1.20 + ?`` when some calls have no price."""
    if group.cost is None:
        return "?"
    places = max(2, 1 - group.cost.adjusted()) if group.cost else 2  # two digits at least
    known = f"${group.cost:.{places}f}"
    return f"{known} + ?" if group.unpriced else known


_SHOWN: Final = (
    _Shown("calls", 99, lambda g: str(g.calls)),
    _Shown("errors", 98, lambda g: str(g.errors.total())),
    _Shown("in", 96, lambda g: str(g.input_tokens)),
    _Shown("out", 95, lambda g: str(g.output_tokens)),
    _Shown("cached", 40, lambda g: str(g.cached_tokens)),
    _Shown("reasoning", 30, lambda g: str(g.reasoning_tokens)),
    _Shown("cost", 97, dollars),
    _Shown("latency s p50 p95 p99", 90, lambda g: _seconds(g.latency)),
    _Shown("first token s p50 p95 p99", 50, lambda g: _seconds(g.first_token)),
    _Shown("error types", 20, lambda g: _counted(g.errors), "left"),
    _Shown("tools", 10, lambda g: _counted(g.tools), "left"),
)


def as_table(numbers: Numbers, width: int) -> str:
    """Return the rows as a table: plain, or with ``width`` coloured and at most that wide."""
    console = Console(
        width=width or 100_000,
        force_terminal=bool(width),
        color_system="standard" if width else None,
        highlight=False,
    )
    unbounded = console.options.update(width=100_000)
    shown = list(_SHOWN)
    table = _table(numbers, shown)
    while width and len(shown) > 1 and Measurement.get(console, unbounded, table).maximum > width:
        shown.remove(min(shown, key=lambda column: column.rank))
        table = _table(numbers, shown)
    with console.capture() as captured:
        console.print(table)
    left_out = [column.heading for column in _SHOWN if column not in shown]
    note = (
        f"Not shown for lack of width: {', '.join(left_out)}. --json and --csv show everything."
        if left_out
        else ""
    )
    return "\n".join(line.rstrip() for line in captured.get().split("\n")) + textwrap.fill(note, width or 70)


def _table(numbers: Numbers, shown: Sequence[_Shown]) -> Table:
    several = len(numbers.groups) > 1
    table = Table(
        box=box.SIMPLE_HEAD, show_footer=several, footer_style="bold", show_edge=False, pad_edge=False
    )
    total = numbers.total()
    for index, name in enumerate(numbers.by):
        table.add_column(name, footer="total" if index == 0 else "", no_wrap=True)
    for column in shown:
        footer = Text(column.text(total))
        table.add_column(column.heading, footer=footer, justify=column.justify, no_wrap=True)
    for key, group in numbers.ordered():
        texts = (*(clean(part) or "-" for part in key), *(column.text(group) for column in shown))
        table.add_row(
            *map(Text, texts),
            style="red" if group.calls and group.calls == group.errors.total() else None,
        )
    return table
