"""The JSON Lines sink: a file that several processes share, that others may move, on a disk that may be full."""

from __future__ import annotations

import errno
import fcntl
import json
import os
from pathlib import Path

import pytest

from openai_lifecycle import records
from openai_lifecycle.events import LifecycleEvent
from openai_lifecycle.eventslog import locks
from openai_lifecycle.sinks.jsonl import JsonLinesSink
from tests import generated
from tests.sinks.conftest import EVENTS, run


def lines(path: Path) -> list[LifecycleEvent]:
    """Return the events in a file."""
    return [generated.restored(json.loads(line)) for line in path.read_text(encoding="ascii").splitlines()]


def test_every_field_is_kept(tmp_path: Path) -> None:
    """Each event, hostile ones too, is a line of ASCII that gives it back; the file is for its owner, and not locked."""
    sink = JsonLinesSink(f"jsonl://{tmp_path}/with%20space.jsonl")
    sink.write(EVENTS)
    with open(tmp_path / "with space.jsonl", "rb") as other:
        assert locks.lock(other.fileno(), locks.EXCLUSIVE, 0)
    sink.write(generated.hostile())
    sink.flush()
    sink.close()
    assert lines(tmp_path / "with space.jsonl") == [*EVENTS, *generated.hostile()]
    assert (tmp_path / "with space.jsonl").stat().st_mode & 0o777 == 0o600


def test_a_file_that_was_moved_is_made_again(tmp_path: Path) -> None:
    """After logrotate moved the file away, the next batch is in a new one."""
    sink = JsonLinesSink("jsonl:out.jsonl")
    sink.write(EVENTS[:1])
    os.rename("out.jsonl", "old.jsonl")
    sink.write(EVENTS[1:])
    sink.close()
    assert lines(tmp_path / "old.jsonl") == EVENTS[:1]
    assert lines(tmp_path / "out.jsonl") == EVENTS[1:]


def test_a_descriptor_that_the_application_closed(tmp_path: Path) -> None:
    """After a daemon closed every descriptor the file is opened again."""
    sink = JsonLinesSink("jsonl:out.jsonl")
    sink.write(EVENTS[:1])
    os.close(sink._open())
    sink.write(EVENTS[1:])
    sink.close()
    assert lines(tmp_path / "out.jsonl") == EVENTS


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no file can be locked, events are written all the same."""

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    sink = JsonLinesSink("jsonl:out.jsonl")
    sink.write(EVENTS)
    sink.close()
    assert lines(tmp_path / "out.jsonl") == EVENTS


@pytest.mark.parametrize("streams", ["open", "closed"])
def test_the_applications_descriptors(tmp_path: Path, streams: str) -> None:
    """A number that the application has closed and used again is not written to or closed; none below 3 is taken."""
    program = f"""
import os
from tests.sinks.conftest import EVENTS
from openai_lifecycle.sinks.jsonl import JsonLinesSink
if {streams!r} == "closed":
    for number in range(3):
        os.close(number)
sink = JsonLinesSink("jsonl:out.jsonl")
sink.write(EVENTS[:1])
assert sink._descriptor > 2
os.close(sink._descriptor)
mine = os.open("mine", os.O_WRONLY | os.O_CREAT)
os.dup2(mine, sink._descriptor)
theirs = sink._descriptor
sink.write(EVENTS[1:2])
sink.close()
os.write(theirs, b"mine")
"""
    run(program, tmp_path)
    assert lines(tmp_path / "out.jsonl") == EVENTS[:2]
    assert (tmp_path / "mine").read_bytes() == b"mine"


LIMITED = """
import resource, signal
from tests.sinks.conftest import EVENTS
from openai_lifecycle.sinks.jsonl import JsonLinesSink
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
sink = JsonLinesSink("jsonl:out.jsonl")
sink.write(EVENTS[:1])
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
for _ in range(2):
    try:
        sink.write(EVENTS[1:])
    except OSError as error:
        print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
sink.write(EVENTS[1:])
"""


def test_a_batch_that_does_not_fit_is_taken_back(tmp_path: Path) -> None:
    """Where only a part of a batch fits, none of it stays: tried again, it is there once."""
    assert len(run(LIMITED, tmp_path).stdout.splitlines()) == 2
    assert lines(tmp_path / "out.jsonl") == EVENTS


def test_after_a_torn_line_comes_a_fresh_one(tmp_path: Path) -> None:
    """Where a writer died within a line, the next event is on a line of its own, and a whole file gets no empty line."""
    out, sink = tmp_path / "out.jsonl", JsonLinesSink("jsonl:out.jsonl")
    sink.write(EVENTS[:1])
    out.write_bytes(out.read_bytes() + b'{"time": "20')
    for event in EVENTS[1:]:
        sink.write([event])
    sink.close()
    assert [line for line in out.read_text().splitlines() if line != '{"time": "20'] == list(
        map(records.to_json, EVENTS)
    )


@pytest.mark.parametrize(
    "url", ["jsonl://[x/y", "jsonl:", "jsonl://host/path", "jsonl:///", "jsonl:///x?y", "jsonl:///x#y"]
)
def test_a_url_without_a_path_is_refused(url: str) -> None:
    """A URL that names no file, or more than a file, raises at once."""
    with pytest.raises(ValueError, match="needs a path and nothing else"):
        JsonLinesSink(url)
