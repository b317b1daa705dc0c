"""Events as lines: one row each, the entry in full, or a trace as a tree."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from typing import Final

from rich.cells import cell_len, set_cell_size

from openai_lifecycle.cli.terminal import clean, style
from openai_lifecycle.events import (
    LifecycleEvent,
    LLMGenerationError,
    LLMGenerationSuccess,
    LLMInitializationError,
    LLMInitializationStart,
    LLMInitializationSuccess,
    ToolCallDetected,
)
from openai_lifecycle.eventslog.format import render
from openai_lifecycle.records import decimal, instant, to_json

COLOURS: Final[dict[type[LifecycleEvent], str]] = {
    LLMInitializationStart: "bright_black",
    LLMInitializationSuccess: "blue",
    LLMInitializationError: "red",
    LLMGenerationSuccess: "green",
    LLMGenerationError: "red",
    ToolCallDetected: "magenta",
}
#: Tags for terminals that are too narrow for the whole ones.
SHORT_TAGS: Final[dict[type[LifecycleEvent], str]] = {
    LLMInitializationStart: "START",
    LLMInitializationSuccess: "READY",
    LLMInitializationError: "FAILED",
    LLMGenerationSuccess: "OK",
    LLMGenerationError: "ERROR",
    ToolCallDetected: "TOOL",
}
_YEAR: Final = timedelta(days=365)
#: Columns of a row → their width on a terminal; the text follows and takes the rest.
WIDTHS: Final = {
    "time": 19,
    "event": 18,
    "provider": 10,
    "model": 20,
    "duration_ms": 9,
    "input_tokens": 7,
    "output_tokens": 7,
    "trace_id": 8,
}
_NUMBERS: Final = ("duration_ms", "input_tokens", "output_tokens")
_BEFORE_TEXT: Final = sum(size + 1 for size in WIDTHS.values())  # columns
_WIDE: Final = _BEFORE_TEXT + 10  # a narrower terminal does not get all columns


def cells(event: LifecycleEvent, longest: int | None = None) -> dict[str, str]:
    """Return the values of a row by column: :data:`WIDTHS`, then ``text``, of which ``longest`` characters are read."""
    custom = event.metadata.custom_fields
    return {
        "time": event.time.isoformat(" ", "seconds"),
        "event": event.tag,
        "provider": clean(event.provider),
        "model": clean(event.model_id),
        **{name: clean(custom.get(name, "")) for name in _NUMBERS},
        "trace_id": clean(event.trace_id),
        "text": clean(summary(event)[:longest]),
    }


def summary(event: LifecycleEvent) -> str:
    """Return the text worth showing of an event besides its numbers."""
    custom = event.metadata.custom_fields
    if isinstance(event, LLMGenerationSuccess):
        return event.message_content
    if isinstance(event, (LLMGenerationError, LLMInitializationError)):
        # An error without a message uses its type as the message.
        return ": ".join(filter(None, dict.fromkeys((custom.get("error_type", ""), event.error))))
    if isinstance(event, ToolCallDetected):
        return f"{event.tool_name}({event.arguments})"
    return " ".join(filter(None, (custom.get("client", ""), custom.get("base_url", ""))))


def row(event: LifecycleEvent, width: int) -> str:
    """Return ``event`` as one line: coloured and ``width`` columns wide, or with 0 as plain fields between tabs."""
    shown = cells(event)
    if not width:
        return "\t".join(shown.values())
    for name in _NUMBERS:
        shown[name] = _fit_number(shown[name], WIDTHS[name])
    return _narrow_row(event, shown, width) if width < _WIDE else _wide_row(event, shown, width)


def _wide_row(event: LifecycleEvent, shown: dict[str, str], width: int) -> str:
    """Return all that is ``shown`` in columns; the text gets what is left of ``width``."""
    text = shown.pop("text")
    fitted = {name: _fit(value, WIDTHS[name]) for name, value in shown.items()}
    fitted["trace_id"] = shown["trace_id"][:8].ljust(8)  # the first digits of a trace identify it
    fitted["time"] = style(fitted["time"], dim=True)
    fitted["event"] = style(fitted["event"], fg=COLOURS[type(event)])
    return " ".join((*fitted.values(), _fit(text, width - _BEFORE_TEXT).rstrip()))


def _narrow_row(event: LifecycleEvent, shown: dict[str, str], width: int) -> str:
    """Return time, type and model, shortened, as many numbers as leave 30 columns to the text, and the text."""
    model = _fit(shown["model"], min(20, width // 4))
    line = f"{_short_time(event.time):11} {SHORT_TAGS[type(event)]:6} {model}"
    for name in _NUMBERS:
        longer = f"{line} {shown[name]}"
        if cell_len(longer) + 31 > width:
            break
        line = longer
    return style(_fit(f"{line} {shown['text']}", width), fg=COLOURS[type(event)])


def _short_time(time: datetime) -> str:
    """Return today's time without its date, one of the last year without year and seconds, else only the date."""
    age = datetime.now().astimezone().date() - time.date()
    if not age:
        return time.isoformat(timespec="seconds")[11:]
    return f"{time:%m-%d %H:%M}" if timedelta() < age < _YEAR else time.date().isoformat()


def _fit(text: str, size: int) -> str:
    """Return ``text`` in exactly ``size`` columns of a terminal."""
    return set_cell_size(_cut(text, size), size)


def _fit_number(text: str, size: int) -> str:
    """Return ``text`` in exactly ``size`` columns of a terminal, at their right."""
    cut = _cut(text, size)
    return " " * (size - cell_len(cut)) + cut


def _cut(text: str, size: int) -> str:
    """Return ``text`` in at most ``size`` columns of a terminal."""
    return text if cell_len(text) <= size else f"{set_cell_size(text, size - 1)}…"


def rows(events: Iterable[LifecycleEvent], width: int) -> Iterator[str]:
    """Yield one line an event."""
    return (row(event, width) for event in events)


def full(events: Iterable[LifecycleEvent], *, colour: bool) -> Iterator[str]:
    """Yield each event as its entry in the file, which is safe to show."""
    for event in events:
        header, _, body = render(event).partition("\n")
        yield f"{style(header, fg=COLOURS[type(event)]) if colour else header}\n{body[:-1]}"


def json_lines(events: Iterable[LifecycleEvent]) -> Iterator[str]:
    """Yield each event as a line of JSON."""
    return map(to_json, events)


def json_array(events: Iterable[LifecycleEvent]) -> Iterator[str]:
    """Yield the lines of one JSON array."""
    separator = "["
    for event in events:
        yield f"{separator}{to_json(event)}"
        separator = ","
    yield "]" if separator == "," else "[]"


# ------------------------------------------------------------------ a trace
def tree(events: list[LifecycleEvent], jaeger: str | None, width: int) -> Iterator[str]:
    """Yield the lines of the events of one or several traces, in order: trace, call, entries.

    The text of an entry is cut where ``width`` columns end; with 0 it is whole.
    """
    traces: dict[str, dict[str, list[LifecycleEvent]]] = {}
    for event in sorted(events, key=instant):
        spans = traces.setdefault(event.trace_id, {})
        spans.setdefault(event.metadata.custom_fields.get("span_id", ""), []).append(event)
    for trace_id, spans in traces.items():
        yield style(f"trace {clean(trace_id)}", bold=True)
        if jaeger:
            yield f"{jaeger.rstrip('/')}/trace/{clean(trace_id)}"
        yield from _spans(spans, width)


def _spans(spans: dict[str, list[LifecycleEvent]], width: int) -> Iterator[str]:
    started = {name: min(map(_start, events)) for name, events in spans.items()}
    origin = min(started.values())
    ordered = sorted(spans, key=lambda name: started[name])
    for name in ordered:
        last = name == ordered[-1]
        offset = (started[name] - origin).total_seconds()
        yield f"{'└─' if last else '├─'} {_heading(spans[name])}  {style(f'+{offset:.3f} s', dim=True)}"
        for event in spans[name]:
            stem = "   " if last else "│  "
            branch = "└─" if event is spans[name][-1] else "├─"
            at = f"+{(instant(event) - origin).total_seconds():.3f} s"
            text = clean(summary(event))
            if width:
                text = _cut(text, max(10, width - len(f"{stem}{branch} {event.tag}  {at}  ")))
            tag = style(event.tag, fg=COLOURS[type(event)])
            yield f"{stem}{branch} {tag}  {style(at, dim=True)}  {text}".rstrip()


def _start(event: LifecycleEvent) -> datetime:
    """Return when the call began: an ending says how long it took."""
    duration = decimal(event.metadata.custom_fields.get("duration_ms")) or 0.0
    moment = instant(event)
    try:
        return moment - timedelta(milliseconds=min(duration, 1e12))
    except OverflowError:  # before the year 1
        return moment


def _heading(events: list[LifecycleEvent]) -> str:
    event = events[-1]
    custom = event.metadata.custom_fields
    operation = custom.get("operation_name") or ("initialize" if event.tag.startswith("INIT") else "call")
    duration = decimal(custom.get("duration_ms"))
    parts = [clean(operation), clean(event.model_id or event.provider)]
    if duration is not None:
        parts.append(f"{duration / 1000:.3f} s")
    counted = [
        f"{custom[key]} {word}"
        for key, word in (("input_tokens", "in"), ("output_tokens", "out"))
        if key in custom
    ]
    if counted:
        parts.append(clean(f"({', '.join(counted)})"))
    return " ".join(filter(None, parts))
