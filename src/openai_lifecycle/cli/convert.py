"""Converts a log for other programs: JSON Lines and SQLite keep every field, CSV is for spreadsheets."""

from __future__ import annotations

import csv
import itertools
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from typing import Final, TextIO

from openai_lifecycle.cli.terminal import cell
from openai_lifecycle.events import LifecycleEvent
from openai_lifecycle.records import COLUMNS, to_json, to_row
from openai_lifecycle.sinks import SinkError

_BATCH: Final = 500


def to_jsonl(events: Iterable[LifecycleEvent], out: TextIO) -> int:
    """Write a line of JSON per event; returns how many."""
    count = 0
    for count, event in enumerate(events, 1):  # noqa: B007 - the last count is the result
        out.write(f"{to_json(event)}\n")
    return count


def to_csv(events: Iterable[LifecycleEvent], out: TextIO) -> int:
    """Write a heading and a line per event; returns how many.

    Control characters are escaped as in the log, so each line is one entry. A text that begins with ``=``, ``+``,
    ``-`` or ``@`` is prefixed with ``'``, so that no spreadsheet runs what a model wrote. ``entry`` is left out.
    """
    columns = [column for column in COLUMNS if column.name != "entry"]
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(column.name for column in columns)
    count = 0
    for count, event in enumerate(events, 1):  # noqa: B007 - as above
        row = to_row(event)
        writer.writerow(cell(row[column.name]) for column in columns)
    return count


def to_sqlite(events: Iterable[LifecycleEvent], path: str) -> tuple[int, int]:
    """Write the events to the SQL sink's table, which holds each once; returns how many were read, and how many new.

    Raises:
        SinkError: the file is not a database, cannot be written, or has a name that no URL can hold.
    """
    from sqlalchemy import URL

    from openai_lifecycle.sinks.sql import SqlSink

    path = os.path.abspath(path)  # SQLite has another meaning for :memory: and file:…
    try:
        url = URL.create("sqlite", database=path).render_as_string()
    except UnicodeEncodeError:
        raise SinkError("the name is not UTF-8") from None
    sink = SqlSink(url)
    before, count = _rows(path), 0
    # An empty batch last, so that the table is there without any event too, as the heading of a CSV is.
    for batch in itertools.chain(_batches(iter(events)), [[]]):
        sink.write(batch)
        count += len(batch)
    sink.close()
    return count, _rows(path) - before


def _rows(path: str) -> int:
    """Return how many events the database holds; 0 if there is none yet."""
    if not os.path.isfile(path):  # connecting would create it
        return 0
    try:
        with closing(sqlite3.connect(path)) as database:
            table = "SELECT name FROM sqlite_master WHERE name = 'openai_lifecycle_events'"
            if database.execute(table).fetchone() is None:
                return 0
            (count,) = database.execute("SELECT count(*) FROM openai_lifecycle_events").fetchone()
    except sqlite3.OperationalError:
        raise SinkError("the database cannot be read") from None
    except sqlite3.DatabaseError:
        raise SinkError("not an SQLite database") from None
    return int(count)


def _batches(events: Iterator[LifecycleEvent]) -> Iterator[list[LifecycleEvent]]:
    while batch := list(itertools.islice(events, _BATCH)):
        yield batch


TEXT_FORMATS: Final[Mapping[str, Callable[[Iterable[LifecycleEvent], TextIO], int]]] = {
    "jsonl": to_jsonl,
    "csv": to_csv,
}
