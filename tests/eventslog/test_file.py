"""Writing: one entry, one write; threads, processes, forks, finalizers, signals; where the entries go."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from openai_lifecycle.eventslog import locks
from openai_lifecycle.eventslog.file import EventsFile
from tests.eventslog import child
from tests.eventslog.logs import LOG, written
from tests.eventslog.samples import entry
from tests.limits import HANGS

MODES = ["write", "fsync", "buffered"]
COUNTS = {"write": 1000, "fsync": 60, "buffered": 1000}


# ------------------------------------------------------------------ one entry
@pytest.mark.parametrize("durability", ["write", "fsync"])
def test_an_entry_is_in_the_file_when_write_returns(durability: str) -> None:
    """The text of the entry, and nothing else, is in the file at once."""
    file = EventsFile(child.options(durability=durability))
    for number in range(3):
        file.write(entry(number))
        assert LOG.read_text(encoding="utf-8") == "".join(entry(n) for n in range(number + 1))
    file.close()


def test_one_entry_is_one_write(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each entry, also a large one, is handed to the kernel as one buffer."""
    sizes = []
    write = os.write

    def spy(descriptor: int, data: bytes) -> int:
        sizes.append(len(data))
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", spy)
    file = EventsFile(child.options())
    texts = [entry(1), entry(2).replace("x", "ß" * 50_000), entry(3)]
    for text in texts:
        file.write(text)
    file.close()
    assert sizes == [len(text.encode()) for text in texts]


def test_fsync_reaches_the_disk_before_write_returns(monkeypatch: pytest.MonkeyPatch) -> None:
    """In ``fsync`` mode each entry is synchronized, and so is the directory when the file is new; else nothing is."""
    before = len(os.listdir("/proc/self/fd"))
    synced: list[str] = []
    monkeypatch.setattr(
        os, "fsync", lambda descriptor: synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
    )
    file = EventsFile(child.options())
    file.write(entry(0))
    file.close()
    assert synced == []
    file = EventsFile(child.options(durability="fsync"))
    file.write(entry(1))
    file.write(entry(2))
    file.close()
    log, directory = str(LOG.resolve()), str(Path.cwd().resolve())
    assert synced == [directory, log, log]
    assert len(os.listdir("/proc/self/fd")) == before


def test_syncing_keeps_no_other_process_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """While an entry is synced, which takes long, another process can have the file to itself."""
    free: list[bool] = []

    def sync(_: int) -> None:
        with LOG.open("rb") as log:
            free.append(locks.lock(log.fileno(), locks.EXCLUSIVE, 0))

    file = EventsFile(child.options(durability="fsync"))
    file.write(entry(0))
    monkeypatch.setattr(os, "fsync", sync)
    file.write(entry(1), entry(2))
    file.close()
    assert free == [True]


def test_a_new_file_is_private() -> None:
    """The file is created for its owner alone, also where the process would let everybody read."""
    old = os.umask(0)
    try:
        file = EventsFile(child.options())
        file.write(entry(1))
        file.close()
    finally:
        os.umask(old)
    assert stat.S_IMODE(LOG.stat().st_mode) == 0o600


def test_permissions_of_an_existing_file_stay() -> None:
    """What an administrator has set for the file is not changed."""
    LOG.touch()
    LOG.chmod(0o640)
    file = EventsFile(child.options())
    file.write(entry(1))
    file.close()
    assert stat.S_IMODE(LOG.stat().st_mode) == 0o640


def test_the_path_is_that_of_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative path keeps its meaning when the application changes its directory."""
    file = EventsFile(child.options())
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    file.write(entry(1))
    file.close()
    assert written(tmp_path / "events.log") == {"": [1]}


def test_writing_goes_on_after_close() -> None:
    """An entry that comes after the file was closed opens it again."""
    for durability in MODES:
        file = EventsFile(child.options(durability=durability))
        file.write(entry(1, durability))
        file.close()
        file.write(entry(2, durability))
        assert written()[durability] == [1, 2]
        file.close()


# ------------------------------------------------------------------ many writers
@pytest.mark.parametrize("durability", MODES)
def test_threads(durability: str) -> None:
    """Entries of many threads are whole, single, and in the order in which each thread wrote them."""
    child.threads("t", count=200, threads=8, durability=durability)
    assert written() == {f"t-{number}": list(range(200)) for number in range(8)}


@pytest.mark.parametrize("durability", MODES)
def test_unrelated_processes(durability: str) -> None:
    """Processes that know nothing of each other append to one file."""
    running = [
        child.start("threads", writer=str(number), count=150, threads=2, durability=durability)
        for number in range(3)
    ]
    for process in running:
        _, err = process.communicate(timeout=HANGS)
        assert (process.returncode, err) == (0, "")
    assert written() == {f"{p}-{t}": list(range(150)) for p in range(3) for t in range(2)}


@pytest.mark.parametrize("finishes", [True, False])
def test_another_process_in_mid_write(finishes: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry waits while another process is still writing one, and only if that hangs it begins with line breaks."""
    file = EventsFile(child.options())
    file.write(entry(0))
    half, rest = entry(7)[:200], entry(7)[200:]
    with LOG.open("a", encoding="utf-8") as log:
        assert locks.lock(log.fileno(), locks.SHARED, 0)
        print(half, end="", file=log, flush=True)

        def go_on(seconds: float) -> None:
            if finishes:
                print(rest, end="", file=log, flush=True)
                locks.unlock(log.fileno())

        monkeypatch.setattr(time, "sleep", go_on)
        file.write(entry(1))
    file.close()
    assert LOG.read_text(encoding="utf-8") == entry(0) + half + (rest if finishes else "\n\n") + entry(1)


def test_a_process_that_is_stopped_in_mid_write_is_waited_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """While a process that stays stopped holds the lock, only the first entry after a torn one waits for it."""
    file = EventsFile(child.options())
    file.write(entry(0))
    now, waits = [0.0], []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        now[0] += seconds

    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "sleep", sleep)
    with LOG.open("a", encoding="utf-8") as log:
        assert locks.lock(log.fileno(), locks.SHARED, 0)
        for number in (1, 2, 3):
            print("half", end="", file=log, flush=True)
            file.write(entry(number))
            assert 0 < sum(waits) < 0.2
        locks.unlock(log.fileno())
    file.close()
    assert LOG.read_text(encoding="utf-8") == entry(0) + "".join(f"half\n\n{entry(n)}" for n in (1, 2, 3))


@pytest.mark.parametrize("durability", MODES)
def test_fork_in_mid_write(durability: str) -> None:
    """Forking while threads write neither blocks a child nor loses or doubles an entry of either side."""
    status, out, err = child.run("forks", children=20, count=20, durability=durability)
    assert (status, err) == (0, "")
    result = json.loads(out)
    assert result["statuses"] == [0] * 20
    parents = {f"parent-{index}": list(range(count)) for index, count in enumerate(result["written"])}
    assert written() == parents | {f"child-{number}": list(range(20)) for number in range(20)}


@pytest.mark.parametrize("durability", ["write", "buffered"])
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing(method: str, durability: str) -> None:
    """Children of ``multiprocessing`` write everything before they end, however they were started."""
    status, _, err = child.run("processes", method=method, children=3, count=100, durability=durability)
    assert (status, err) == (0, "")
    parents = {"parent": [0]} if method == "fork" else {}
    assert written() == parents | {str(number): list(range(100)) for number in range(3)}


# ------------------------------------------------------------------ entered again
@pytest.mark.parametrize("durability", MODES)
@pytest.mark.parametrize("max_bytes", [0, 100_000], ids=["unlimited", "rotated"])
def test_finalizers_may_write(durability: str, max_bytes: int) -> None:
    """Finalizers that end a call in the middle of a write neither block nor tear or double an entry."""
    status, out, err = child.run(
        "finalizers", count=COUNTS[durability], durability=durability, max_bytes=max_bytes, backups=1000
    )
    assert (status, err) == (0, "")
    assert {writer: len(set(numbers)) for writer, numbers in written().items()} == json.loads(out)
    assert {writer: len(numbers) for writer, numbers in written().items()} == json.loads(out)


@pytest.mark.parametrize("durability", MODES)
@pytest.mark.parametrize("max_bytes", [0, 100_000], ids=["unlimited", "rotated"])
def test_signal_handlers_may_write(durability: str, max_bytes: int) -> None:
    """Signal handlers that end a call in the middle of a write neither block nor tear or double an entry."""
    status, out, err = child.run(
        "handlers", count=COUNTS[durability], durability=durability, max_bytes=max_bytes, backups=10_000
    )
    assert (status, err) == (0, "")
    result = json.loads(out)
    assert result["handler"] == COUNTS[durability]
    assert {writer: sorted(numbers) for writer, numbers in written().items()} == {
        writer: list(range(count)) for writer, count in result.items()
    }


@pytest.mark.parametrize("durability", ["write", "fsync"])
@pytest.mark.parametrize("max_bytes", [0, 100_000], ids=["unlimited", "rotated"])
def test_signal_handlers_may_raise(durability: str, max_bytes: int) -> None:
    """An exception out of a signal handler leaves each entry either whole and single or, if it was raised, absent."""
    status, out, err = child.run(
        "interrupts", count=COUNTS[durability], durability=durability, max_bytes=max_bytes, backups=10_000
    )
    assert (status, err) == (0, "")
    result = json.loads(out)
    assert len(result["raised"]) > COUNTS[durability] // 20
    numbers = written()["caller"]
    assert len(numbers) == len(set(numbers))
    assert set(numbers) >= set(result["returned"])


@pytest.mark.parametrize("line", range(1, 10))
def test_a_signal_handler_that_raises_costs_no_other_entry(line: int) -> None:
    """Before whatever line of an entry's writing the exception comes, the entries before and after it are in the log."""
    file = EventsFile(child.options())
    left = line

    def strike(frame: FrameType, kind: str, _: Any) -> Any:
        nonlocal left
        if kind == "line":
            left -= 1
            if not left:
                raise child.Interrupt
        return strike if frame.f_code is EventsFile._append.__code__ else None

    file.write(entry(1))
    before = sys.gettrace()
    sys.settrace(strike)
    try:
        with contextlib.suppress(child.Interrupt):  # not every version of Python counts as many lines
            file.write(entry(2))
    finally:
        sys.settrace(before)
    file.write(entry(3))
    file.close()
    (numbers,) = written().values()
    assert numbers in ([1, 2, 3], [1, 3])


@pytest.mark.parametrize("pipe", [False, True])
def test_a_signal_handler_that_raises_leaves_no_lock(pipe: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others need not wait for the next entry, even if the exception came just when the lock was acquired."""
    if pipe:
        os.mkfifo(LOG)
    other = os.open(LOG, os.O_RDONLY | os.O_NONBLOCK | os.O_CREAT)
    flock = fcntl.flock

    def interrupted(descriptor: int, kind: int) -> None:
        flock(descriptor, kind)
        if kind != fcntl.LOCK_UN:
            raise KeyboardInterrupt

    file = EventsFile(child.options())
    monkeypatch.setattr(fcntl, "flock", interrupted)
    with pytest.raises(KeyboardInterrupt):
        file.write(entry(0))
    flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(other)
    file.close()


# ------------------------------------------------------------------ descriptors
def test_a_daemon_that_closes_every_descriptor() -> None:
    """When the number of our descriptor means a socket of the application, nothing is written there."""
    status, out, err = child.run("daemon")
    assert (status, err) == (0, "")
    result = json.loads(out)
    assert result["leaked"] == []
    assert 3 in result["taken"]
    assert written() == {"": [0, 1]}


def test_a_number_that_is_no_longer_ours_is_not_closed(capsys: pytest.CaptureFixture[str]) -> None:
    """What the application has opened under the number of our descriptor stays open when the log cannot be opened."""
    Path("place").mkdir()
    file = EventsFile(child.options(events_log="place/events.log"))
    file.write(entry(0))
    number = file._appender._descriptor
    assert number is not None
    os.close(number)
    other = os.open("other", os.O_WRONLY | os.O_CREAT)
    assert other == number
    os.rename("place", "elsewhere")
    file.write(entry(1))
    file.close()
    assert capsys.readouterr().err == entry(1)
    os.close(other)


@pytest.mark.parametrize("when", ["at its end", "in a child"])
def test_a_number_that_is_no_longer_ours_stays_open(when: str) -> None:
    """What a daemon has opened under the number of our descriptor is closed neither at our end nor in a child."""
    file = EventsFile(child.options())
    file.write(entry(0))
    number = file._appender._descriptor
    assert number is not None
    reading, writing = os.pipe()
    os.dup2(writing, number)
    if when == "at its end":
        file.close()
        os.write(number, b"open")
    elif (worker := os.fork()) == 0:
        with contextlib.suppress(OSError):
            os.write(number, b"open")
        os._exit(0)
    else:
        os.waitpid(worker, 0)
    os.close(number)
    os.close(writing)
    assert os.read(reading, 9) == b"open"
    os.close(reading)


def test_no_standard_stream_becomes_the_log() -> None:
    """A process without standard streams does not print into the log."""
    status, _, _ = child.run("streamless")
    assert status == 0
    assert written() == {"": [0, 1]}


def play(role: str, stdout: int, stderr: int = subprocess.PIPE, **arguments: Any) -> str:
    """Let a process whose output is ``stdout`` play ``role``; return what it told on standard error, if that is a pipe."""
    ended = subprocess.run(
        [sys.executable, "-m", "tests.eventslog.child", role, json.dumps(arguments)],
        env={**os.environ, "PYTHONPATH": str(child.ROOT)},
        stdout=stdout,
        stderr=stderr,
        text=True,
        check=True,
        timeout=HANGS,
    )
    return ended.stderr


@pytest.mark.parametrize(("number", "name"), [(1, "stdout"), (2, "stderr")])
def test_a_standard_stream_that_was_never_open(number: int, name: str) -> None:
    """Where the process was started without it, entries go to stderr, if that is open, not to the file that has got its number."""
    program = f"""
own = open("own", "xb")
assert own.fileno() == {number}
from tests.eventslog.child import EventsFile, entry, options
EventsFile(options(events_log="/dev/{name}")).write(entry(0))
"""
    ended = subprocess.run(
        ["sh", "-c", f'exec "$@" {number}>&-', "sh", sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(child.ROOT)},
        stderr=subprocess.PIPE,
        text=True,
        check=True,
        timeout=HANGS,
    )
    assert Path("own").read_bytes() == b""
    assert name == "stderr" or ended.stderr.endswith(f": Bad file descriptor\n{entry(0)}")


@pytest.mark.parametrize(
    ("log", "closed"), [("events.log", []), ("events.log", [0]), ("/dev/stdout", [])], ids=str
)
def test_no_other_program_has_the_file_open(log: str, closed: list[int]) -> None:
    """However the file was opened, a program that the application starts does not inherit its descriptor."""
    with Path("out").open("wb") as out:
        told = play("starts_another", out.fileno(), closed=closed, events_log=log)
    assert entry(0) in Path("out" if log == "/dev/stdout" else log).read_text(encoding="utf-8")
    opened = told.splitlines()
    assert opened  # its standard output at least
    assert not {str(Path("out").resolve()), str(Path("events.log").resolve())} & set(opened)


def prints(stdout: int, **values: Any) -> None:
    play("prints", stdout, subprocess.STDOUT, **{"events_log": "/dev/stdout", **values})


PRINTED = "".join(f"line {number}\n{entry(number)}" for number in range(20)) + "done\n"


def test_standard_output_is_a_file() -> None:
    """In a redirected output, entries and what the application prints do not overwrite each other."""
    with Path("out").open("wb") as out:
        prints(out.fileno())
    assert Path("out").read_text(encoding="utf-8") == PRINTED
    assert os.listdir() == ["out"]


def test_a_lock_on_standard_output_stays() -> None:
    """What a shell has locked for the application, ``exec >log; flock -n 1``, stays locked."""
    with Path("out").open("wb") as out, Path("out").open("rb") as other:
        fcntl.flock(out, fcntl.LOCK_EX)
        prints(out.fileno())
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_standard_output_is_a_pipe() -> None:
    """Entries go through a pipe in order with what the application prints."""
    readable, writable = os.pipe()
    prints(writable)
    os.close(writable)
    with open(readable, encoding="utf-8") as out:
        assert out.read() == PRINTED


@pytest.mark.parametrize("size", [100, 10_000, 100_000])
def test_standard_output_is_a_pipe_of_several_processes(size: int) -> None:
    """However little a pipe takes at once, no entry of forked processes and signal handlers is torn or lost."""
    with child.start("pipes", children=4, count=30, size=size) as process:
        assert process.stdout is not None
        Path("received").write_text(process.stdout.read(), encoding="utf-8")
        assert process.wait(HANGS) == 0
    found = written("received")
    assert [found[f"{number}"] for number in range(4)] == [list(range(30))] * 4
    for number in range(4):
        assert sorted(found[f"alarm {number}"]) == list(range(len(found[f"alarm {number}"])))


def test_standard_output_is_a_pipe_that_nobody_reads() -> None:
    """Entries that such a pipe does not take go to stderr, and the application goes on."""
    with child.start("prints_entries", count=60, size=5_000) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        err = process.stderr.read()
        assert process.wait(HANGS) == 0
        out = process.stdout.read()
    assert err.endswith("done\n")
    taken = [entry(number, size=5_000) in out for number in range(60)]
    assert [entry(number, size=5_000) in err for number in range(60)] == [not one for one in taken]
    assert True in taken
    assert False in taken


@pytest.mark.parametrize("max_bytes", [0, 4000])
@pytest.mark.parametrize("target", ["/dev/stdout", "/dev/stderr", "/proc/self/fd/1"])
def test_a_link_to_a_standard_stream(target: str, max_bytes: int) -> None:
    """A link to one is what it links to: nothing is overwritten, and no file of the application is rotated."""
    os.symlink(target, "events.log")
    with Path("out").open("wb") as out:
        prints(out.fileno(), events_log="events.log", max_bytes=max_bytes)
    assert Path("out").read_text(encoding="utf-8") == PRINTED
    assert sorted(os.listdir()) == ["events.log", "out"]


def test_standard_output_is_a_socket() -> None:
    """A socket, as a service manager may give it, takes entries though it cannot be opened by its path."""
    here, there = socket.socketpair()
    with here, there:
        prints(there.fileno())
        there.close()
        with here.makefile(encoding="utf-8") as out:
            assert out.read() == PRINTED
