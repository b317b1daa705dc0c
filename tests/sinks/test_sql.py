"""The SQL sink, on SQLite and on a real PostgreSQL."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import signal
import socket
import sqlite3.dbapi2
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, func, inspect, make_url, select, text
from sqlalchemy.schema import CreateTable

from openai_lifecycle import records
from openai_lifecycle.sinks import Rejected, Unavailable
from openai_lifecycle.sinks.sql import EVENTS as TABLE
from openai_lifecycle.sinks.sql import SqlSink
from tests import generated
from tests.limits import HANGS
from tests.sinks.conftest import EVENTS

_BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin")) if Path("/usr/lib/postgresql").is_dir() else []


class PostgreSQL:
    """A server of a test's own, on loopback, in a temporary folder."""

    def __init__(self, folder: Path, binaries: Path) -> None:
        self._folder, self._binaries = folder, binaries
        self._as_user: dict[str, Any] = {}
        if os.getuid() == 0:  # PostgreSQL refuses to run as root
            shutil.chown(folder, "postgres", "postgres")
            self._as_user = {"user": "postgres", "group": "postgres", "extra_groups": []}
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        self.url = f"postgresql+psycopg://tester@127.0.0.1:{self.port}/postgres"
        self._run(
            "initdb", "-D", str(folder / "data"), "-U", "tester", "-A", "trust", "--no-sync", "-E", "UTF8"
        )
        self._process: subprocess.Popen[bytes] | None = None

    def _run(self, program: str, *arguments: str) -> None:
        command: list[str] = [str(self._binaries / program), *arguments]
        subprocess.run(
            command, check=True, capture_output=True, timeout=HANGS, cwd=self._folder, **self._as_user
        )

    def start(self) -> None:
        """Start the server, and wait until it answers."""
        options = ["-c", f"port={self.port}", "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"]
        options += ["-c", f"unix_socket_directories={self._folder}"]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._binaries / "postgres", "-D", str(self._folder / "data"), *options],
                stdout=log,
                stderr=log,
                cwd=self._folder,
                **self._as_user,
            )
        ready = [str(self._binaries / "pg_isready"), "-h", "127.0.0.1", "-p", str(self.port), "-t", "1"]
        for _ in range(300):
            if subprocess.run(ready, capture_output=True, check=False, timeout=HANGS).returncode == 0:
                return
            assert self._process.poll() is None, (self._folder / "log").read_text()
        raise AssertionError("PostgreSQL does not answer")

    def stop(self) -> None:
        """Stop the server; open connections are ended."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(HANGS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(HANGS)
            self._process = None


@pytest.fixture(scope="module")
def server() -> Iterator[PostgreSQL]:
    """Return a running PostgreSQL."""
    if not _BINARIES:
        if os.environ.get("OPENAI_LIFECYCLE_REQUIRE_POSTGRES"):
            pytest.fail("OPENAI_LIFECYCLE_REQUIRE_POSTGRES is set, and there is no /usr/lib/postgresql")
        pytest.skip("needs PostgreSQL (Debian: postgresql)")
    with tempfile.TemporaryDirectory() as folder:  # where another user than this one can get at it
        running = PostgreSQL(Path(folder), _BINARIES[-1])
        running.start()
        yield running
        running.stop()


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the URL of an empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/events.db"
    found: str = request.getfixturevalue("server").url
    engine = create_engine(found)
    TABLE.metadata.drop_all(engine)
    engine.dispose()
    return found


def stored(url: str) -> list[dict[str, Any]]:
    """Return the rows of the table, by time."""
    engine = create_engine(url)
    with engine.connect() as connection:
        rows = [
            dict(row)
            for row in connection.execute(select(TABLE).order_by("timestamp", "event_id")).mappings()
        ]
    engine.dispose()
    return rows


def store(url: str) -> None:
    """Write ``EVENTS`` with a sink of their own."""
    sink = SqlSink(url)
    sink.write(EVENTS)
    sink.flush()
    sink.close()


def test_every_field_is_kept(url: str) -> None:
    """Each event is a row that gives it back; columns hold numbers as numbers and the time as an instant."""
    store(url)
    rows = stored(url)
    back = [generated.restored(json.loads(row["entry"])) for row in rows]
    assert sorted(back, key=records.event_id) == sorted(EVENTS, key=records.event_id)
    for event, row in zip(back, rows, strict=True):
        expected = records.to_row(event)
        if row["timestamp"].tzinfo is None:  # SQLite keeps none; PostgreSQL's is that of its session
            expected["timestamp"] = expected["timestamp"].replace(tzinfo=None)
        assert row == expected


@pytest.mark.parametrize("name", ["mysql", "mariadb"])
def test_mysql_has_room_for_whole_events(name: str) -> None:
    """On MySQL and MariaDB, whose TEXT ends at 64 KB, entries and long texts are LONGTEXT."""
    dialect = make_url(f"{name}://").get_dialect()()
    made = str(CreateTable(TABLE).compile(dialect=dialect))
    for column in ("entry", "message_content", "arguments", "error"):
        assert f"{column} LONGTEXT" in made


def test_an_event_is_there_once(url: str) -> None:
    """Written again, whole or mixed with new ones, within a batch or later, an event stays one row."""
    sink, another = SqlSink(url), SqlSink(url)
    sink.write(EVENTS[:8])
    sink.write(EVENTS[4:12])
    another.write([*EVENTS, *EVENTS])
    sink.close()
    another.close()
    assert len(stored(url)) == len(EVENTS)


def test_hostile_texts_are_only_texts(url: str) -> None:
    """NUL, lone surrogates, endless names, huge numbers and SQL in every field are stored, and ``entry`` has them all."""
    sink = SqlSink(url)
    sink.write(generated.hostile())
    sink.close()
    back = [generated.restored(json.loads(row["entry"])) for row in stored(url)]
    assert sorted(map(records.event_id, back)) == sorted(map(records.event_id, generated.hostile()))


def test_time_trace_and_model_have_an_index(url: str) -> None:
    """The table can be searched by time, trace and model, and asked for sums."""
    store(url)
    engine = create_engine(url)
    indexed = {tuple(index["column_names"]) for index in inspect(engine).get_indexes(TABLE.name)}
    assert indexed == {("timestamp",), ("trace_id",), ("model_id",)}
    with engine.connect() as connection:
        total = connection.scalar(select(func.sum(TABLE.c.input_tokens)))
    engine.dispose()
    assert total == sum(int(event.metadata.custom_fields.get("input_tokens", 0)) for event in EVENTS)


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
def test_a_database_that_went_away_comes_back(server: PostgreSQL, url: str) -> None:
    """While PostgreSQL is down a write says so without quoting anything; when it is back the same sink goes on."""
    sink = SqlSink(url)
    sink.write(EVENTS[:5])
    server.stop()
    with pytest.raises(Unavailable, match=r"^the database is not available \(\w+\)$"):
        sink.write(EVENTS)
    server.start()
    sink.write(EVENTS)
    sink.close()
    assert len(stored(url)) == len(EVENTS)


def test_a_table_of_another_shape_refuses(tmp_path: Path) -> None:
    """Where the table is somebody else's the events are refused, and neither statement nor values are quoted."""
    engine = create_engine(f"sqlite:///{tmp_path}/events.db")
    with engine.begin() as connection:
        connection.execute(
            text("CREATE TABLE openai_lifecycle_events (event_id TEXT PRIMARY KEY CHECK (event_id = ''))")
        )
    engine.dispose()
    sink = SqlSink(f"sqlite:///{tmp_path}/events.db")
    with pytest.raises((Rejected, Unavailable), match=r"^the database [a-z ]+ \(\w+\)$"):
        sink.write(EVENTS)
    sink.close()


def test_a_log_of_statements_shows_no_values(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """An application that lets SQLAlchemy log its statements has nothing of the events in that log."""
    with caplog.at_level(logging.INFO, "sqlalchemy.engine"):
        store(f"sqlite:///{tmp_path}/events.db")
    assert "INSERT INTO" in caplog.text
    assert not [event.trace_id for event in EVENTS if event.trace_id and event.trace_id in caplog.text]


def test_several_processes_make_the_table_at_once(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where another process makes the table at the same moment, the events go into that one."""
    make = TABLE.metadata.create_all

    def race(engine: Any, **_: Any) -> None:
        monkeypatch.undo()
        make(engine)
        with engine.begin() as connection:
            connection.execute(text(str(CreateTable(TABLE).compile(engine))))

    monkeypatch.setattr(TABLE.metadata, "create_all", race)
    store(url)
    assert len(stored(url)) == len(EVENTS)


def test_a_read_only_server_is_tried_again(server: PostgreSQL) -> None:
    """A standby that only reads, as during a failover, is not available for now."""
    sink = SqlSink(server.url)
    sink.write(EVENTS[:1])
    sink.close()
    option = {"options": "-c default_transaction_read_only=on"}
    read_only = SqlSink(make_url(server.url).update_query_dict(option).render_as_string(hide_password=False))
    with pytest.raises(Unavailable):
        read_only.write(list(generated.events(5, seed=77)))  # which are not in the table yet
    read_only.close()


def test_a_new_database_is_private(tmp_path: Path) -> None:
    """A file that the sink creates, which holds prompts, is readable by its owner alone."""
    store(f"sqlite:///{tmp_path}/events.db")
    assert (tmp_path / "events.db").stat().st_mode & 0o777 == 0o600


def test_a_database_without_a_folder_is_tried_again(tmp_path: Path) -> None:
    """A file that cannot be made is a database that is not available for now, and the error says why."""
    path = f"sqlite:///{tmp_path}/later/events.db"
    sink = SqlSink(path)
    with pytest.raises(Unavailable, match=r"^No such file or directory$"):
        sink.write(EVENTS)
    (tmp_path / "later").mkdir()
    sink.write(EVENTS)
    sink.close()
    assert len(stored(path)) == len(EVENTS)


def test_a_database_that_is_away_is_asked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write tries to connect once: to a server that does not answer each try would take minutes."""
    tries: list[str] = []
    connect = sqlite3.dbapi2.connect

    def spy(path: str, **options: Any) -> Any:
        tries.append(path)
        return connect(path, **options)

    monkeypatch.setattr(sqlite3.dbapi2, "connect", spy)
    sink = SqlSink(f"sqlite:///file:{tmp_path}/missing/events.db?uri=true")
    with pytest.raises(Unavailable):
        sink.write(EVENTS)
    sink.close()
    assert len(tries) == 1


def test_a_locked_database_is_tried_again(tmp_path: Path) -> None:
    """A database that somebody else has locked is not available for now."""
    path = f"sqlite:///{tmp_path}/events.db?timeout=0"
    sink = SqlSink(path)
    sink.write(EVENTS[:1])
    engine = create_engine(path)
    with engine.connect() as connection:
        connection.execute(text("BEGIN EXCLUSIVE"))
        with pytest.raises(Unavailable):
            sink.write(EVENTS)
    engine.dispose()
    sink.write(EVENTS)
    sink.close()
    assert len(stored(path)) == len(EVENTS)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("nonsense://x/y", "neither a destination nor a database has its scheme"),
        ("sqlite+nonsense:///x", "neither a destination nor a database has its scheme"),
        ("postgresql+psycopg2://x/y", "the module psycopg2 is not installed"),
        ("://", "SQLAlchemy cannot use it (ArgumentError)"),
        ("sqlite+dml:///x", "SQLAlchemy cannot use it (AttributeError)"),
    ],
)
def test_a_url_without_a_driver_is_refused(url: str, reason: str) -> None:
    """A URL that SQLAlchemy does not know, or has no driver for, raises at once and says why."""
    with pytest.raises(ValueError, match=f"^{re.escape(reason)}$"):
        SqlSink(url)


def test_a_broken_driver_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver that is installed but cannot be imported raises at once too."""
    (tmp_path / "pg8000.py").write_text("raise ImportError('no libpq')\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=r"^SQLAlchemy cannot use it \(ImportError\)$"):
        SqlSink("postgresql+pg8000://x/y")
