"""The option ``sinks``: which destinations there are, and that a wrong one stops nothing."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Sequence
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

import openai
import pytest
from sqlalchemy import make_url

import openai_lifecycle
from openai_lifecycle import options, sinks
from openai_lifecycle.cli import doctor
from openai_lifecycle.events import LifecycleEvent
from openai_lifecycle.sinks import EventSink
from tests import generated
from tests.observed import entries
from tests.sinks.conftest import EVENTS, Sink


def call(base_url: str, content: str = "hello") -> None:
    """Make a client and one call."""
    with openai.OpenAI(base_url=base_url, api_key="offline") as client:
        client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": content}])


def lines(path: str) -> list[LifecycleEvent]:
    """Return the events of a JSON Lines file."""
    return [
        generated.restored(json.loads(line)) for line in Path(path).read_text(encoding="ascii").splitlines()
    ]


def test_a_call_reaches_every_destination(base_url: str) -> None:
    """URLs and an object get what the file gets, by the time ``uninstrument`` returns."""
    sink = Sink()
    _: EventSink = sink
    openai_lifecycle.instrument(sinks=["jsonl:out.jsonl", "sqlite:///out.db", sink])
    call(base_url)
    openai_lifecycle.uninstrument()
    assert len(entries()) == 3
    assert sink.taken == lines("out.jsonl") == entries()
    assert sink.calls[-1] == "close"
    assert Path("out.db").stat().st_size


def test_the_variable_names_several(base_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable takes URLs separated by commas; destinations work without the file, too."""
    monkeypatch.setenv("OTEL_PYTHON_OPENAI_LIFECYCLE_SINKS", "jsonl:a.jsonl, jsonl:b.jsonl")
    openai_lifecycle.instrument(events_log="none")
    call(base_url)
    openai_lifecycle.uninstrument()
    assert not Path("events.log").exists()
    assert lines("a.jsonl") == lines("b.jsonl")
    assert len(lines("a.jsonl")) == 3


def test_a_url_may_contain_commas() -> None:
    """Only a comma before a scheme ends a URL: a database may have several hosts."""
    read = options.read({"sinks": "postgresql+psycopg://a,b/db?x=1,2,jsonl:x,y.jsonl"})
    assert read.sinks == ("postgresql+psycopg://a,b/db?x=1,2", "jsonl:x,y.jsonl")
    with pytest.raises(ValueError, match="sinks=3 is not allowed: it must be URLs"):
        options.read({"sinks": 3})


class WithoutClose:
    def write(self, events: Sequence[LifecycleEvent]) -> None: ...

    def flush(self) -> None: ...


@pytest.mark.parametrize("sink", [object(), WithoutClose()])
def test_an_object_that_is_no_sink_is_refused(sink: Any) -> None:
    """An object without one of the three methods is a mistake in the program, and raises at its start."""
    with pytest.raises(ValueError, match=rf"^sinks=\['jsonl:x', {type(sink).__name__}\] is not allowed"):
        options.read({"sinks": ["jsonl:x", sink]})


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("nonsense://user:secret-word@host/", "neither a destination nor a database has its scheme"),
        ("no-url", "it is not a URL"),
        ("jsonl:", "it needs a path"),
        ("webhook+https://", "it needs a host"),
    ],
)
def test_a_wrong_url_is_one_error_and_stops_nothing(
    base_url: str, caplog: pytest.LogCaptureFixture, url: str, reason: str
) -> None:
    """A URL that cannot be used is one error that names option, value and what is allowed; all else goes on."""
    openai_lifecycle.instrument(sinks=[url, "jsonl:out.jsonl"])
    call(base_url)
    openai_lifecycle.uninstrument()
    (line,) = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert line.startswith("sinks=")
    assert f"is not allowed: {reason}" in line
    assert "it must be jsonl:///path" in line
    assert "secret-word" not in line
    assert lines("out.jsonl") == entries()


#: URLs that hold a secret, and what may be shown of each.
SECRETS = [
    ("postgresql+psycopg://user:pa/ss-S3cret@host/db", "postgresql+psycopg://host/db"),
    ("postgresql+psycopg://user:p@S3cret@host/db", "postgresql+psycopg://host/db"),
    ("postgresql+psycopg://user:p?S3cret@host/db", "postgresql+psycopg://"),
    ("postgresql+psycopg://host/db?user=me@corp&password=S3cret", "postgresql+psycopg://"),
    ("postgresql+psycopg://host/db?password=S3cret", "postgresql+psycopg://host/db"),
    ("postgresql+psycopg://user:S3cret@host:port/db", "postgresql+psycopg://host:port/db"),
    ("postgresql+nodriver://user:S3/cret@host/db", "postgresql+nodriver://host/db"),
    ("jsonl://user:S3cret@host/x", "jsonl://host/x"),
    ("jsonl://user:S3cret@[host/x", "jsonl://[host/x"),
    ("webhook+https://S3cret@host/x", "webhook+https://host"),
    ("webhook+https://host/services/T0/B0/S3cret", "webhook+https://host"),
    ("webhook+https://host/hook?token=S3cret", "webhook+https://host"),
    ("webhook+https://user:S3/cret@host/p", "webhook+https://host"),
    ("webhook+https://user:a#S3cret@host/p", "webhook+https://host"),
    ("webhook+https:user:S3cret@host/p", "webhook+https:host"),
    ("webhook+https://user:S3cret@[host/p", "webhook+https://[host"),
    ("user:S3cret@host/db", "user:host/db"),
]


@pytest.mark.parametrize(("url", "shown"), SECRETS)
def test_no_secret_of_a_url_is_shown(
    url: str, shown: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a destination's name, nor the error for a wrong URL, nor one for the whole option shows a secret."""
    said = [found.name for found in sinks.destinations([url])] or caplog.messages
    for wrong in ([url, 5], [[url]]):
        with pytest.raises(ValueError, match=r"^sinks=\[") as raised:
            options.read({"sinks": wrong})
        said.append(str(raised.value))
    monkeypatch.setenv("OTEL_PYTHON_OPENAI_LIFECYCLE_SINKS", url)
    said += [finding.text for finding in doctor.findings() if finding.topic == "sink"]
    assert len(said) == 4
    for text in said:
        assert shown in text
        assert "S3" not in text
        assert "cret" not in text


def test_a_url_object_of_sqlalchemy_is_not_quoted() -> None:
    """SQLAlchemy's own URL, a tuple of texts, is no list of sinks, and the error does not quote its parts."""
    with pytest.raises(ValueError, match=r"^sinks=URL is not allowed"):
        options.read({"sinks": make_url("postgresql://user:S3cret@host/db")})


def test_without_sqlalchemy_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where SQLAlchemy is missing, a database's URL says what to install."""
    monkeypatch.setitem(sys.modules, "sqlalchemy", None)
    monkeypatch.delitem(sys.modules, "openai_lifecycle.sinks.sql", raising=False)
    with pytest.raises(ImportError, match=r"pip install 'openai-lifecycle\[sql\]'"):
        sinks.destination("sqlite:///x.db")


MADE: list[str] = []


def make(url: str) -> Sink:
    """Make a sink for a URL, as an entry point does."""
    MADE.append(url)
    return Sink()


def test_an_entry_point_adds_a_scheme(monkeypatch: pytest.MonkeyPatch) -> None:
    """A package's own scheme is found in the entry-point group, and its sink gets the URL."""
    found = entry_points
    mine = EntryPoint("mine", "tests.sinks.test_destinations:make", sinks.GROUP)
    monkeypatch.setattr(
        sinks,
        "entry_points",
        lambda **wanted: (mine,) if wanted == {"group": sinks.GROUP, "name": "mine"} else found(**wanted),
    )
    destination = sinks.destination("mine://user:word@there/x")
    assert isinstance(destination.open(), Sink)
    assert MADE[-1] == "mine://user:word@there/x"
    assert destination.name == "mine://there/x"


def refuse(_: str) -> Sink:
    """Fail as a class of another package may, with a text that quotes the URL."""
    raise RuntimeError("mine://user:word@there/x")


def test_an_entry_point_that_fails_is_left_out(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever the class of another package raises, the application starts, and one line names the destination."""
    mine = EntryPoint("mine", "tests.sinks.test_destinations:refuse", sinks.GROUP)
    monkeypatch.setattr(sinks, "entry_points", lambda **_: (mine,))
    assert sinks.destinations(["mine://user:word@there/x"]) == []
    (line,) = [record.getMessage() for record in caplog.records]
    assert "mine://there/x" in line
    assert "RuntimeError" in line
    assert "word" not in line


@pytest.mark.parametrize(
    ("url", "name"), [("jsonl:a%20b%FF.jsonl", b"a b\xff.jsonl"), ("sqlite:///out.db", b"out.db")]
)
def test_a_relative_path_is_that_of_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, name: bytes
) -> None:
    """A destination is where it was when it was named, also after the application has changed its directory."""
    destination = sinks.destination(url)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    sink = destination.open()
    sink.write(EVENTS)
    sink.close()
    assert [os.fsencode(path.name) for path in tmp_path.iterdir() if path.is_file()] == [name]


def test_a_transform_comes_first(base_url: str) -> None:
    """What ``transform`` drops or changes is dropped or changed for destinations as it is for the file."""
    openai_lifecycle.instrument(
        sinks="jsonl:out.jsonl", transform=lambda event: event if event.tag.startswith("GENERATION") else None
    )
    call(base_url)
    openai_lifecycle.uninstrument()
    assert lines("out.jsonl") == entries()
    assert len(entries()) == 1
