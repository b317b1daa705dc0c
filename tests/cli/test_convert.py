"""``convert`` and ``check``: nothing is lost on the way out, and what is wrong with a log is found."""

from __future__ import annotations

import csv
import gzip
import json
import os
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from openai_lifecycle import records
from openai_lifecycle.events import LifecycleEvent, LLMGenerationSuccess, Metadata, ToolCallDetected
from openai_lifecycle.eventslog.format import render
from openai_lifecycle.eventslog.reader import read_events
from tests import generated

Run = Callable[..., Result]


@pytest.fixture(params=["real", "made up", "hostile"])
def any_log(request: pytest.FixtureRequest, real_log: Path, log: Path, hostile_log: Path) -> Path:
    """Return one log after the other."""
    return {"real": real_log, "made up": log, "hostile": hostile_log}[request.param]


def query(database: Path, statement: str) -> list[Any]:
    """Return the rows that SQLite gives for ``statement``."""
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute(statement).fetchall()


def test_jsonl_keeps_every_field(run: Run, any_log: Path, tmp_path: Path) -> None:
    """The events that a JSON Lines file gives back render to the log, byte by byte."""
    run("convert", "--to", "jsonl", "-o", tmp_path / "out.jsonl", any_log)
    lines = (tmp_path / "out.jsonl").read_text(encoding="ascii").splitlines()
    back = "".join(render(generated.restored(json.loads(line))) for line in lines)
    assert back.encode() == any_log.read_bytes()


def test_sqlite_keeps_every_field(run: Run, any_log: Path, tmp_path: Path) -> None:
    """The events in the database render to the entries of the log, and its columns hold their values."""
    run("convert", "--to", "sqlite", "-o", tmp_path / "out.db", any_log)
    run("convert", "--to", "sqlite", "-o", tmp_path / "out.db", any_log)  # each event is there once
    rows = query(tmp_path / "out.db", "SELECT entry FROM openai_lifecycle_events")
    ((tokens,),) = query(tmp_path / "out.db", "SELECT sum(input_tokens) FROM openai_lifecycle_events")
    events = list(read_events(any_log))
    assert sorted(render(generated.restored(json.loads(row[0]))) for row in rows) == sorted(
        map(render, events)
    )
    assert tokens == sum(int(event.metadata.custom_fields.get("input_tokens", 0)) for event in events)


def test_csv_is_a_line_an_entry(run: Run, any_log: Path) -> None:
    """The CSV has a heading and a line for each entry, with the columns of the table but the whole entry."""
    text = run("convert", "--to", "csv", any_log).stdout
    rows = list(csv.DictReader(text.splitlines()))
    events = list(read_events(any_log))
    assert len(text.splitlines()) == len(rows) + 1 == len(events) + 1
    assert [row["event_type"] for row in rows] == [event.event_type for event in events]
    assert list(rows[0]) == [column.name for column in records.COLUMNS[:-1]]


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", '=HYPERLINK("http://x.example")'])
def test_no_text_is_a_formula(run: Run, tmp_path: Path, text: str) -> None:
    """What a model wrote reaches a spreadsheet as a text; a number that is below 0 stays a number."""
    event = LLMGenerationSuccess(
        time=datetime(2026, 1, 5, tzinfo=timezone.utc),
        model_id=text,
        message_content=text,
        metadata=Metadata(presence_penalty=-1, user=text),
    )
    log = generated.write(tmp_path / "events.log", [event])
    (row,) = csv.DictReader(run("convert", "--to", "csv", log).stdout.splitlines())
    assert row["model_id"] == row["message_content"] == row["user"] == f"'{text}"
    assert row["presence_penalty"] == "-1"
    (row,) = csv.DictReader(run("stats", "--csv", log).stdout.splitlines())
    assert row["model"] == f"'{text}"


@pytest.mark.parametrize(
    "name", ["events.log", "./events.log", "link.log", "events.log.1", "events.log.2.gz"]
)
@pytest.mark.parametrize(
    "command", ["convert --to jsonl", "convert --to csv", "convert --to sqlite", "report"], ids=str
)
def test_a_log_is_never_written_over(run: Run, log: Path, command: str, name: str) -> None:
    """What would write to a log that it reads, or to one of its rotated files, is refused before it begins."""
    log.with_name("link.log").symlink_to(log)
    log.with_name("events.log.1").write_bytes(log.read_bytes())
    log.with_name("events.log.2.gz").write_bytes(gzip.compress(log.read_bytes()))
    before = Path(name).read_bytes()
    for given in ("events.log", "link.log", "*.log"):
        refused = run(*command.split(), "-o", name, given, status=2).stderr
        assert f"{name} is the log being read: write to another file" in refused
    assert Path(name).read_bytes() == before


def test_what_a_log_says_is_for_its_readers(run: Run, log: Path, tmp_path: Path) -> None:
    """What is written from a log can be read by its owner only."""
    run("convert", "--to", "csv", "-o", tmp_path / "out.csv", log)
    assert (tmp_path / "out.csv").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("kind", ["file", "link"])
def test_what_is_written_is_nobody_elses_file(run: Run, log: Path, tmp_path: Path, kind: str) -> None:
    """A file that another user can foresee the name of, and has put there, does not get what is written."""
    theirs, planted = tmp_path / "theirs", tmp_path / f".{os.getpid()}.part"
    theirs.touch(0o666)
    planted.hardlink_to(theirs) if kind == "file" else planted.symlink_to(theirs)
    run("convert", "--to", "csv", "-o", tmp_path / "out.csv", log)
    assert theirs.read_bytes() == b""
    assert not (tmp_path / "out.csv").is_symlink()
    assert (tmp_path / "out.csv").stat().st_mode & 0o777 == 0o600


def test_convert_says_what_is_wrong(run: Run, log: Path, tmp_path: Path) -> None:
    """A missing file name, a folder, a file that is no database and a name that is no text are one error each."""
    assert "needs a file" in run("convert", "--to", "sqlite", log, status=2).stderr
    refused = run("convert", "--to", "csv", "-o", tmp_path, log, status=1).stderr
    assert refused == f"Error: {tmp_path}: Is a directory\n"
    (tmp_path / "no.db").write_text(
        "this is no database, and it is longer than a header of one hundred bytes" * 3
    )
    refused = run("convert", "--to", "sqlite", "-o", tmp_path / "no.db", log, status=1).stderr
    assert refused == f"Error: {tmp_path / 'no.db'}: not an SQLite database\n"
    for name, reason in ((tmp_path, "Is a directory"), ("no/such.db", "No such file or directory")):
        refused = run("convert", "--to", "sqlite", "-o", name, log, status=1).stderr
        assert refused == f"Error: {name}: {reason}\n"
    if sys.version_info >= (3, 11):  # Python 3.10 hands SQLite the name's bytes
        refused = run("convert", "--to", "sqlite", "-o", "caf\udce9.db", log, status=1).stderr
        assert refused == "Error: caf\\udce9.db: the name is not UTF-8\n"


@pytest.mark.parametrize("name", [":memory:", "file:events.db"])
def test_a_database_is_a_file_of_any_name(run: Run, log: Path, name: str) -> None:
    """A name that SQLite would read as something else is a file's: its rows are counted, and no other file appears."""
    before = set(log.parent.iterdir())
    counts = [run("convert", "--to", "sqlite", "-o", name, log).stderr.split(", ")[1] for _ in range(2)]
    assert counts == [f"{len(list(read_events(log)))} new\n", "0 new\n"]
    assert set(log.parent.iterdir()) - before == {log.parent / name}


def test_convert_says_how_many(run: Run, tmp_path: Path) -> None:
    """The number of entries has its noun, and a database says how many of them it did not hold before."""
    events = list(generated.events(3, seed=2))
    log = generated.write(tmp_path / "events.log", events[:1])

    def told(form: str) -> str:
        return run("convert", "--to", form, "-o", "out", log).stderr

    assert told("csv") == told("jsonl") == "out: 1 entry\n"
    (tmp_path / "out").unlink()
    assert told("sqlite") == "out: 1 entry read, 1 new\n"
    assert told("sqlite") == "out: 1 entry read, 0 new\n"
    generated.write(log, events)
    assert told("sqlite") == f"out: {len(events)} entries read, {len(events) - 1} new\n"


def test_a_database_without_entries_has_the_table(run: Run, log: Path, tmp_path: Path) -> None:
    """Where nothing matches, a query finds no row instead of no table; a log that cannot be read makes no database."""
    assert "out.db: 0 entries" in run("convert", "--to", "sqlite", "-o", "out.db", "--model", "x", log).stderr
    assert query(tmp_path / "out.db", "SELECT count(*) FROM openai_lifecycle_events") == [(0,)]
    run("convert", "--to", "sqlite", "-o", "other.db", tmp_path, status=2)
    assert not (tmp_path / "other.db").exists()


def test_what_fails_leaves_the_old_file(run: Run, log: Path, tmp_path: Path) -> None:
    """A conversion that cannot read its last log leaves the older file as it was, and nothing beside it."""
    (tmp_path / "folder").mkdir()
    run("convert", "--to", "csv", "-o", tmp_path / "out", log)
    (tmp_path / "out").chmod(0o644)
    before = (tmp_path / "out").read_bytes()
    run("convert", "--to", "jsonl", "-o", tmp_path / "out", log, tmp_path / "folder", status=2)
    assert (tmp_path / "out").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["events.log", "folder", "out"]
    for form in ("jsonl", "csv"):
        run("convert", "--to", form, "-o", tmp_path / "out", log)
    assert (tmp_path / "out").read_bytes() == before  # nothing is left of the longer one
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o644  # whom it was shared with


def test_a_database_of_others_gets_a_table(run: Run, log: Path, tmp_path: Path) -> None:
    """A database that holds other things keeps them, and all events are new in it."""
    query(tmp_path / "out.db", "CREATE TABLE theirs (x)")
    count = len(list(read_events(log)))
    told = run("convert", "--to", "sqlite", "-o", "out.db", log).stderr
    assert told == f"out.db: {count} entries read, {count} new\n"
    assert query(tmp_path / "out.db", "SELECT * FROM theirs") == []


# ------------------------------------------------------------------ check
def test_a_whole_log_is_whole(run: Run, real_log: Path, log: Path) -> None:
    """The log of the real client has nothing wrong: status 0, and every entry counted."""
    result = json.loads(run("check", "--json", real_log).stdout)
    assert result["whole"]
    assert sum(result["entries"].values()) == len(list(read_events(real_log)))
    assert run("check", log).stdout.splitlines()[-1] == "whole"


def test_a_log_that_is_none_is_not_whole(run: Run, tmp_path: Path) -> None:
    """A pattern that names only folders names no log: that is an error, and nothing is called whole."""
    (tmp_path / "logs" / "a.log").mkdir(parents=True)
    result = run("check", "logs/*.log", status=2)
    assert "logs/*.log: there is no such log" in result.stderr
    assert result.stdout == ""


def test_what_is_wrong_is_found_with_its_place(run: Run, tmp_path: Path) -> None:
    """A torn entry, a duplicate, a second ending and a start without one are named with their byte offsets."""
    start, success, *_ = generated.hostile()
    whole = [render(event) for event in generated.events(3, seed=2)]
    span = {"span_id": "abc", "timestamp": "2026-01-05T00:00:00.000000+00:00"}
    begun = render(_with(start, span))
    torn = whole[0][:100]
    parts = [whole[0], torn, whole[1], whole[0], begun]
    log = tmp_path / "events.log"
    log.write_text("".join(parts), encoding="utf-8")
    offsets = [len("".join(parts[:index]).encode()) for index in range(len(parts))]
    result = json.loads(run("check", "--json", log, status=1).stdout)
    assert [(d["offset"], d["length"]) for d in result["damage"]] == [(offsets[1], 100)]
    assert [d["offset"] for d in result["duplicates"]] == [offsets[3]]
    assert [d["offset"] for d in result["without_ending"]] == [offsets[4]]
    assert not result["whole"]
    text = run("check", log, status=1).stdout
    assert f"skipped 100 bytes at offset {offsets[1]}" in text
    assert f"an initialization without an ending at offset {offsets[4]}" in text
    again = _with(success, span)
    log.write_text(
        begun + render(again) + render(_with(success, {**span, "duration_ms": "1"})), encoding="utf-8"
    )
    (found,) = json.loads(run("check", "--json", log, status=1).stdout)["duplicates"]
    assert found["problem"] == "a second ending (INIT_SUCCESS) of one initialization"


def test_a_tool_call_may_stand_alone(run: Run, tmp_path: Path) -> None:
    """A log is whole that holds the tool call for which a background response was read later."""
    tool = next(event for event in generated.events(50) if isinstance(event, ToolCallDetected))
    assert "damaged places: 0" in run("check", generated.write(tmp_path / "events.log", [tool])).stdout


def _with(event: LifecycleEvent, custom: dict[str, str]) -> LifecycleEvent:
    return replace(event, metadata=replace(event.metadata, custom_fields=custom))


def test_numbers_agree_with_their_nouns(run: Run, tmp_path: Path) -> None:
    """No entry, one entry and one byte are said as one says them."""
    log = generated.write(tmp_path / "events.log", [])
    assert run("check", log).stdout.startswith("0 entries\n")
    event = next(generated.events(1))
    log.write_text(f"{render(event)}?", encoding="utf-8")
    text = run("check", log, status=1).stdout
    assert text.startswith(f"1 entry: {event.tag} 1\ndamaged places: 1, 1 byte\n")
    assert "skipped 1 byte at" in text


def test_many_findings_are_cut_in_text_only(run: Run, tmp_path: Path) -> None:
    """The text names the first twenty places, the JSON all."""
    log = generated.write(tmp_path / "events.log", [*generated.events(1), *list(generated.events(1)) * 30])
    assert "… --json shows everything" in run("check", log, status=1).stdout
    assert len(json.loads(run("check", "--json", log, status=1).stdout)["duplicates"]) == 30
