"""Reading for the commands: progress on a terminal, sizes, and logs that cannot be read."""

from __future__ import annotations

import errno
import gzip
import io
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

from openai_lifecycle.cli import logs
from openai_lifecycle.eventslog.format import parse, render
from openai_lifecycle.eventslog.reader import Place
from tests import generated
from tests.cli.conftest import COMMAND
from tests.limits import HANGS


class Terminal(io.StringIO):
    """A standard error that says it is a terminal."""

    def isatty(self) -> bool:
        """Return that it is one."""
        return True


def test_progress_passes_everything_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal a long reading shows its progress there, and what is read comes through unchanged, in order."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(logs, "_SOON", 0)
    Path("a.log").write_bytes(b"x" * 30)
    items = [(number, Place(path, number, 1)) for path in ("a.log.1", "a.log") for number in range(1500)]
    assert list(logs._with_progress(["a.log"], iter(items))) == items
    assert "30 bytes" in terminal.getvalue()


def test_no_progress_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    """In a pipe nothing is shown, however long it takes."""
    items = [(1, Place("a.log", 0, 1))]
    assert list(logs._with_progress(["a.log"], iter(items))) == items
    assert capsys.readouterr().err == ""


def test_the_size_of_what_is_read() -> None:
    """Rotated files count; of compressed files, pipes and missing ones the size is not known."""
    Path("a.log").write_bytes(b"x" * 30)
    Path("a.log.1").write_bytes(b"x" * 12)
    assert logs._size(["a.log"]) == 42
    Path("a.log.2.gz").write_bytes(gzip.compress(b"x"))
    assert logs._size(["a.log"]) is None
    assert logs._size(["missing.log"]) is None


def test_a_log_that_cannot_be_read() -> None:
    """A directory in the place of a log is one error that names it."""
    Path("dir.log").mkdir()
    with pytest.raises(click.ClickException, match=r"dir\.log"), logs.reading(["dir.log"], bytes) as entries:
        list(entries)


def test_a_disk_that_fails(log: Path) -> None:
    """What fails while a log is read, where the system names no file, is one error that names the log."""

    def failing(_: bytes) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with (
        pytest.raises(click.ClickException, match=f"{log}: Input/output error"),
        logs.reading([str(log)], failing) as entries,
    ):
        list(entries)


def test_only_rotated_files_are_left(log: Path) -> None:
    """A log that has just been moved aside is still found and read by its name, and other files may be written."""
    log.rename("events.log.1")
    paths = logs.expand(["events.log"])
    Path("other").touch()
    logs.refuse_overwrite(paths, "other")
    with logs.reading(paths, len) as entries:
        assert {place.path for _, place in entries} == {"events.log.1"}


def test_more_rotated_files_than_may_be_open(log: Path) -> None:
    """A log is read as a whole also if it has more rotated files than a process may open at first."""
    for number in range(1, 81):
        shutil.copy(log, log.with_name(f"{log.name}.{number}"))
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    command = f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (64, {most})); {COMMAND[2]}"
    shown = subprocess.run(
        [*COMMAND[:2], command, "show", "--jsonl", log], capture_output=True, check=True, timeout=HANGS
    )
    assert len(shown.stdout.splitlines()) == 81 * len(list(generated.events(300)))


@pytest.mark.parametrize(
    ("limit", "most", "raised"),
    [
        (256, resource.RLIM_INFINITY, 10_240),  # of macOS
        (64, 128, 128),
        (1024, 1 << 30, 10_240),
        (65_536, resource.RLIM_INFINITY, None),
        (65_536, 65_536, None),
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY, None),
    ],
)
def test_the_limit_of_open_files(
    monkeypatch: pytest.MonkeyPatch, limit: int, most: int, raised: int | None
) -> None:
    """The limit of open files is raised to what macOS accepts, or to what is allowed, and never lowered."""
    limits: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limit, most))
    monkeypatch.setattr(resource, "setrlimit", lambda _, both: limits.append(both))
    with logs.reading([], parse):
        assert limits == ([] if raised is None else [(raised, most)])


def test_logs_of_folders_within() -> None:
    """The pattern ``**`` names logs at any depth, and no folder."""
    deep = Path("a/b/events.log")
    deep.parent.mkdir(parents=True)
    deep.touch()
    assert logs.expand(["**"]) == logs.expand(["**/events.log"]) == [str(deep)]


def test_damage_is_told_when_reading_fails(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What was skipped is reported even where something else ends the command, with how much it was in all; a path rings no bell."""
    log, piece = log.rename(log.with_name("\x07.log")), "no entry\n\n"
    log.write_text("".join(f"{piece}{render(event)}" for event in generated.events(9)), encoding="utf-8")

    def stop_at_last(paths: list[str]) -> None:
        with logs.reading(paths, parse) as entries:
            list(entries)
            raise click.Abort

    with pytest.raises(click.Abort):
        stop_at_last([str(log)])
    told = capsys.readouterr().err
    assert "\x07" not in told
    *_, last = told.splitlines()
    count = log.read_text(encoding="utf-8").count(piece)
    assert last == f"… {count} damaged places, {count * len(piece)} bytes in all: see `check`"
