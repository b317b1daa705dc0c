"""What a file may refuse: the application goes on, the entry goes to stderr, the next one to the file again."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import gc
import io
import logging
import os
import resource
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.metrics import Counter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from openai_lifecycle.eventslog import file as log_file
from openai_lifecycle.eventslog import locks
from openai_lifecycle.eventslog.appender import _Patience
from openai_lifecycle.eventslog.file import EventsFile
from openai_lifecycle.shield import SHIELD
from tests.eventslog import child
from tests.eventslog.logs import LOG, read, written
from tests.eventslog.samples import entry
from tests.limits import HANGS
from tests.raising_handler import Raises

needs_root = pytest.mark.skipif(os.getuid() != 0, reason="needs root")
NOBODY = 65534


class Meter:
    """Counts what ``openai_lifecycle.events.lost`` says."""

    def __init__(self) -> None:
        self._reader = InMemoryMetricReader()
        self.provider = MeterProvider([self._reader], shutdown_on_exit=False)

    def lost(self) -> dict[str, int]:
        data = self._reader.get_metrics_data()
        metrics = [
            metric
            for resource_metrics in (data.resource_metrics if data else [])
            for scope in resource_metrics.scope_metrics
            for metric in scope.metrics
        ]
        assert {metric.name for metric in metrics} <= {"openai_lifecycle.events.lost"}
        return {
            str(dict(point.attributes or {})["error.type"]): int(getattr(point, "value"))  # noqa: B009
            for metric in metrics
            for point in metric.data.data_points
        }


@pytest.fixture
def meter() -> Iterator[Meter]:
    meter = Meter()
    yield meter
    meter.provider.shutdown()


# ------------------------------------------------------------------ the table of faults
Fault = Callable[[], "contextlib.AbstractContextManager[object]"]


@contextlib.contextmanager
def no_directory() -> Iterator[None]:
    yield
    Path("place").mkdir()


@contextlib.contextmanager
def a_directory() -> Iterator[None]:
    Path("place/events.log").mkdir(parents=True)
    yield
    Path("place/events.log").rmdir()


@contextlib.contextmanager
def a_file_for_a_directory() -> Iterator[None]:
    Path("place").write_text("")
    yield
    Path("place").unlink()
    Path("place").mkdir()


@contextlib.contextmanager
def a_loop_of_links() -> Iterator[None]:
    Path("place").mkdir()
    Path("place/events.log").symlink_to("events.log")
    yield
    Path("place/events.log").unlink()


@contextlib.contextmanager
def a_fifo_without_reader() -> Iterator[None]:
    Path("place").mkdir()
    os.mkfifo("place/events.log")
    yield
    Path("place/events.log").unlink()


@contextlib.contextmanager
def a_full_device() -> Iterator[None]:
    Path("place").mkdir()
    Path("place/events.log").symlink_to("/dev/full")
    yield
    Path("place/events.log").unlink()


@contextlib.contextmanager
def a_limit_of_file_size() -> Iterator[None]:
    Path("place").mkdir()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:  # also of a test that fails: no later one could write
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


FAULTS: dict[str, tuple[Fault, str]] = {
    "no directory": (no_directory, "ENOENT"),
    "the path is a directory": (a_directory, "EISDIR"),
    "the directory is a file": (a_file_for_a_directory, "ENOTDIR"),
    "a loop of links": (a_loop_of_links, "ELOOP"),
    "a FIFO without a reader": (a_fifo_without_reader, "ENXIO"),
    "/dev/full": (a_full_device, "ENOSPC"),
    "a limit of file size": (a_limit_of_file_size, "EFBIG"),
}


@pytest.mark.parametrize("durability", ["write", "fsync", "buffered"])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_and_recovery(
    fault: str,
    durability: str,
    meter: Meter,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Entries go to stderr as they are, are counted by error, and one warning says why; then writing resumes."""
    make, error = FAULTS[fault]
    with make():
        file = EventsFile(
            child.options(events_log="place/events.log", durability=durability, meter_provider=meter.provider)
        )
        for number in range(3):
            file.write(entry(number))
        assert file.flush(HANGS)
        assert capsys.readouterr().err == "".join(map(entry, range(3)))
        assert meter.lost() == {error: 3}
        (record,) = caplog.records
        assert str(Path("place/events.log").absolute()) in record.getMessage()
        assert os.strerror(getattr(errno, error)) in record.getMessage()
        assert record.levelno == logging.WARNING
    file.write(entry(3))
    file.write(entry(4))
    file.close()
    assert written("place/events.log") == {"": [3, 4]}
    assert capsys.readouterr().err == ""
    assert meter.lost() == {error: 3}
    assert [r.getMessage() for r in caplog.records][1:] == [
        f"{Path('place/events.log').absolute()} can be written again; 3 entries went to stderr"
    ]


@pytest.mark.parametrize("what", ["directory", "file"])
def test_a_fault_while_the_log_is_open(what: str, meter: Meter, capsys: pytest.CaptureFixture[str]) -> None:
    """Where a path is no longer that of the open file, no entry goes to the file that was deleted."""
    place, log = Path("place"), Path("place/events.log")
    place.mkdir()
    file = EventsFile(child.options(events_log=str(log), meter_provider=meter.provider))
    file.write(entry(0))
    log.unlink()
    if what == "directory":
        place.rmdir()
        place.touch()
    else:
        log.symlink_to(log.name)
    file.write(entry(1))
    assert capsys.readouterr().err == entry(1)
    assert meter.lost() == {"ENOTDIR" if what == "directory" else "ELOOP": 1}
    if what == "directory":
        place.unlink()
        place.mkdir()
    else:
        log.unlink()
    file.write(entry(2))
    file.close()
    assert written(log) == {"": [2]}


def test_the_warning_is_repeated_at_most_once_a_minute(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A fault that lasts is named again after a minute, whatever the number of entries."""
    now = 1000.0
    monkeypatch.setattr("openai_lifecycle.eventslog.file.time.monotonic", lambda: now)
    file = EventsFile(child.options(events_log="missing/events.log"))
    for _ in range(6):
        for number in range(10):
            file.write(entry(number))
        now += 25
    assert len(caplog.records) == 2
    file.close()


# ------------------------------------------------------------------ real file systems and permissions
@contextlib.contextmanager
def mounted(*options: str) -> Iterator[Path]:
    """Mount a file system of 64 kB at ``small``; skip where even root may not."""
    place = Path("small")
    place.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", ",".join(("size=64k", *options)), "tmpfs", str(place)],
        check=False,
        capture_output=True,
        text=True,
    )
    if mount.returncode:
        pytest.skip(f"mounting is not possible here: {mount.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


@needs_root
@pytest.mark.parametrize("durability", ["write", "buffered"])
def test_a_full_disk(durability: str, meter: Meter, capsys: pytest.CaptureFixture[str]) -> None:
    """On a disk that fills up and is freed, every entry is whole in the file or on stderr, and order is kept."""
    with mounted() as place:
        log = place / "events.log"
        file = EventsFile(child.options(events_log=log, durability=durability, meter_provider=meter.provider))
        ballast = place / "ballast"
        ballast.write_bytes(b"x" * 40_000)
        for number in range(100):
            file.write(entry(number))
            if number == 80:
                file.flush(HANGS)
                ballast.unlink()
        file.close()
        in_file, damage = read(log)
    Path("stderr.log").write_text(capsys.readouterr().err, encoding="utf-8")
    on_stderr = written("stderr.log")[""]
    assert sorted([*in_file, *on_stderr]) == list(range(100))
    assert in_file == sorted(in_file)
    assert on_stderr == sorted(on_stderr)
    assert in_file[-1] == 99
    assert meter.lost() == {"ENOSPC": len(on_stderr)}
    assert len(damage) <= 1


def test_losses_that_nobody_measures_leave_nothing_behind(capsys: pytest.CaptureFixture[str]) -> None:
    """Where the application has no ``MeterProvider``, any number of lost entries takes one counter."""

    def counters() -> int:
        gc.collect()
        return sum(isinstance(one, Counter) for one in gc.get_objects())

    file = EventsFile(child.options(events_log="no/such/events.log"))
    file.write(entry(0))
    before = counters()
    for number in range(1, 10):
        file.write(entry(number))
    assert counters() == before
    assert capsys.readouterr().err == "".join(map(entry, range(10)))


@needs_root
def test_a_read_only_disk(capsys: pytest.CaptureFixture[str], meter: Meter) -> None:
    """A file system that is mounted read-only, also while the log is open, sends entries to stderr."""
    with mounted() as place:
        file = EventsFile(child.options(events_log=place / "events.log", meter_provider=meter.provider))
        subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
        file.write(entry(0))
        assert capsys.readouterr().err == entry(0)
        assert meter.lost() == {"EROFS": 1}
        subprocess.run(["mount", "-o", "remount,rw", str(place)], check=True)
        file.write(entry(1))
        file.close()
        assert written(place / "events.log") == {"": [1]}


def let_others_reach(path: Path) -> None:
    """Let every user search the directories above ``path``: pytest's own are private."""
    for directory in path.absolute().parents:
        if directory.stat().st_uid == 0 and str(directory) != "/":
            directory.chmod(directory.stat().st_mode | 0o011)


def write_as_another_user(file: EventsFile, text: str) -> None:
    """Write ``text`` without the privileges of root, and close ``file``."""
    os.seteuid(NOBODY)
    try:
        file.write(text)
    finally:
        os.seteuid(0)
    file.close()


@needs_root
@pytest.mark.parametrize("what", ["directory", "file"])
def test_no_permission(what: str) -> None:
    """An unprivileged process that may write neither the directory nor the file runs on."""
    log = Path("private/events.log")
    log.parent.mkdir()
    if what == "file":
        log.write_text("")
        log.chmod(0o400)
    else:
        log.parent.chmod(0o700)
    let_others_reach(log.parent)
    status, out, err = child.run("unprivileged", uid=NOBODY, events_log="private/events.log")
    assert (status, out) == (0, "still running")
    assert entry(1) in err
    assert "Permission denied" in err


@needs_root
def test_a_file_that_may_only_be_written() -> None:
    """Append-only permission, without the right to read, is enough."""
    log = Path("private/events.log")
    log.parent.mkdir()
    log.write_text(entry(0))
    log.chmod(0o222)
    let_others_reach(log)
    status, out, err = child.run("unprivileged", uid=NOBODY, events_log="private/events.log")
    assert (status, out, err) == (0, "still running", "")
    assert written(log) == {"": [0, 1]}


@needs_root
@pytest.mark.parametrize("mode", [0o700, 0o733])
def test_a_process_that_gives_up_its_privileges(mode: int) -> None:
    """Whoever has opened the log goes on writing to it, also where the directory may no longer be searched or read."""
    log = Path("private/events.log")
    log.parent.mkdir()
    log.parent.chmod(mode)
    let_others_reach(log.parent)
    file = EventsFile(child.options(events_log=str(log), durability="fsync"))
    file.write(entry(0))
    if mode & 0o011:  # the new user may open it again
        log.chmod(0o666)
        file.close()
    write_as_another_user(file, entry(1))
    assert written(log) == {"": [0, 1]}


@needs_root
def test_a_log_that_is_deleted_where_it_cannot_be_opened_again(capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever may no longer search the directory writes to stderr when the open log has been deleted."""
    log = Path("private/events.log")
    log.parent.mkdir(mode=0o700)
    file = EventsFile(child.options(events_log=str(log)))
    file.write(entry(0))
    log.unlink()
    write_as_another_user(file, entry(1))
    assert capsys.readouterr().err == entry(1)


# ------------------------------------------------------------------ what a kernel may answer
class Kernel:
    """Stands between the writer and ``os.write``: each call does the next thing on a list, then the real thing."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.script: list[Any] = []
        self._write = os.write
        monkeypatch.setattr(os, "write", self)

    def __call__(self, descriptor: int, data: Any) -> int:
        step = self.script.pop(0) if self.script else None
        if isinstance(step, int):  # take a part
            return self._write(descriptor, bytes(data)[:step])
        if callable(step):
            step()
        elif step is not None:
            raise OSError(getattr(errno, step), os.strerror(getattr(errno, step)))
        return self._write(descriptor, data)


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    return Kernel(monkeypatch)


def descriptors() -> int:
    """Return how often this process has the log open."""
    links = (Path(entry.path) for entry in os.scandir("/proc/self/fd"))
    return sum(link.exists() and link.samefile("events.log") for link in links)


def test_a_write_within_a_write_leaves_no_descriptor(kernel: Kernel) -> None:
    """The log is open once, however often a write is interrupted by another, and not at all when it is closed."""
    file = EventsFile(child.options())
    for number in (1, 3):
        kernel.script = [lambda number=number: file.write(entry(number))]
        file.write(entry(number - 1))
    assert descriptors() == 1
    file.close()
    assert descriptors() == 0
    assert written() == {"": [1, 0, 3, 2]}


def test_a_flush_within_a_write(kernel: Kernel) -> None:
    """A signal handler that flushes what it has interrupted is told that not all is written, and doubles nothing."""
    file = EventsFile(child.options(durability="buffered"))
    told = []
    kernel.script = [lambda: told.append(file.flush(HANGS))]
    file.write(entry(0))
    assert file.flush(HANGS)
    file.close()
    assert told == [False]
    assert written() == {"": [0]}


def test_a_file_that_is_never_the_same(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a file system whose inode numbers change at every look, the entry goes to stderr and nothing hangs."""
    file = EventsFile(child.options())
    with monkeypatch.context() as unsteady:
        unsteady.setattr(os.path, "samestat", lambda *_: False)
        file.write(entry(0))
    file.write(entry(1))
    file.close()
    assert written() == {"": [1]}
    assert capsys.readouterr().err == entry(0)


def test_a_file_that_its_server_has_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """A descriptor that NFS calls stale is closed, whatever NFS says to that, before the file is opened again."""
    file = EventsFile(child.options())
    file.write(entry(0))
    fstat, close = os.fstat, os.close
    answers = [OSError(errno.ESTALE, os.strerror(errno.ESTALE)) for _ in ("to write", "to close")]

    def stale_twice(descriptor: int) -> os.stat_result:
        if answers:
            raise answers.pop()
        return fstat(descriptor)

    def close_stale(descriptor: int) -> None:
        is_log = os.path.samestat(fstat(descriptor), os.stat("events.log"))
        close(descriptor)
        if is_log:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    monkeypatch.setattr(os, "fstat", stale_twice)
    monkeypatch.setattr(os, "close", close_stale)
    file.write(entry(1))
    assert descriptors() == 1
    file.close()
    assert descriptors() == 0
    assert written() == {"": [0, 1]}


@pytest.mark.parametrize("error", ["EIO", "ESTALE", "EBADF", "ENODEV"])
def test_an_error_that_a_new_descriptor_may_cure(
    error: str, kernel: Kernel, capsys: pytest.CaptureFixture[str]
) -> None:
    """The file is opened again and the entry written there, once; only when that fails it goes to stderr."""
    file = EventsFile(child.options())
    file.write(entry(0))
    kernel.script = [error]
    file.write(entry(1))
    kernel.script = [error, error]
    file.write(entry(2))
    file.write(entry(3))
    file.close()
    assert written() == {"": [0, 1, 3]}
    assert capsys.readouterr().err == entry(2)


@pytest.mark.parametrize("error", ["ENOSPC", "EDQUOT", "EPERM", "EROFS"])
def test_an_error_that_it_cannot_cure(error: str, kernel: Kernel, capsys: pytest.CaptureFixture[str]) -> None:
    """The entry goes to stderr at once, the next one to the file."""
    file = EventsFile(child.options())
    kernel.script = [error]
    file.write(entry(0))
    assert kernel.script == []
    file.write(entry(1))
    file.close()
    assert written() == {"": [1]}
    assert capsys.readouterr().err == entry(0)


@pytest.mark.parametrize("parts", [[1], [400], [len(entry(5)) - 1], [100, 100, 1]])
def test_a_partial_write_is_finished(parts: list[int], kernel: Kernel) -> None:
    """An entry that the kernel takes in pieces is whole."""
    file = EventsFile(child.options())
    file.write(entry(0))
    kernel.script = list(parts)
    file.write(entry(5))
    file.write(entry(6))
    file.close()
    assert written() == {"": [0, 5, 6]}
    assert LOG.read_text(encoding="utf-8") == entry(0) + entry(5) + entry(6)


@pytest.mark.parametrize(
    ("left", "entries", "found"),
    [(0, [5], [0, 7, 5]), (0, [5, 6], [0, 5, 7, 6]), (200, [5, 6], [0, 5, 7, 6])],
    ids=["one entry", "two entries", "two entries after half an entry"],
)
def test_a_partial_write_with_somebody_else_in_between(
    left: int, entries: list[int], found: list[int], kernel: Kernel
) -> None:
    """When another process has written behind the first piece, only the entry that is not whole is written again."""
    file = EventsFile(child.options())
    file.write(entry(0))

    def append(text: str) -> None:
        with LOG.open("a", encoding="utf-8") as log:
            log.write(text)

    append(entry(8)[:left])
    patience = file._appender._lock_patience
    lock = patience.lock

    def lock_late(descriptor: int, kind: int) -> bool:
        if kind == locks.EXCLUSIVE:
            append(entry(7))
        return lock(descriptor, kind)

    patience.lock = lock_late  # type: ignore[method-assign]
    line_breaks = 2 if left else 0  # so that the first begins on a fresh line
    whole = sum(len(entry(number).encode()) for number in entries[:-1])
    kernel.script = [line_breaks + whole + 300]
    file.write(*map(entry, entries))
    file.close()
    numbers, damage = read()
    assert numbers == found
    assert [part.length for part in damage] == [*([left + line_breaks] if left else []), 300]


@pytest.mark.parametrize("taken", [10, 700, len(entry(5)) - 1])
def test_the_entry_after_a_torn_one_is_readable(
    taken: int, kernel: Kernel, capsys: pytest.CaptureFixture[str]
) -> None:
    """After an entry that was cut short the next one stands on a line of its own."""
    file = EventsFile(child.options())
    kernel.script = [taken, "ENOSPC"]
    file.write(entry(5))
    file.write(entry(6))
    file.close()
    assert read()[0][-1] == 6
    assert "\n[2025-01-27 14:30:25] [EVENT: " in LOG.read_text(encoding="utf-8")
    assert capsys.readouterr().err == entry(5)


def test_half_an_entry_of_a_process_that_died() -> None:
    """What another process left without an end does not join with the next entry."""
    file = EventsFile(child.options())
    file.write(entry(0))
    with LOG.open("a", encoding="utf-8") as log:
        log.write(entry(7)[:200])
    file.write(entry(1))
    file.close()
    text = LOG.read_text(encoding="utf-8")
    assert text == entry(0) + entry(7)[:200] + "\n\n" + entry(1)


def test_a_batch_that_is_taken_in_part(kernel: Kernel, capsys: pytest.CaptureFixture[str]) -> None:
    """Of buffered entries those that the file took are not written to stderr too, and none is written twice."""
    file = EventsFile(child.options(durability="buffered"))
    assert file._buffer is not None
    with file._buffer._lock:
        for number in range(6):
            file.write(entry(number))
    whole = len((entry(0) + entry(1)).encode())
    kernel.script = [whole + 50, "ENOSPC", "ENOSPC"]
    file.flush(HANGS)
    file.close()
    numbers, _ = read()
    Path("stderr.log").write_text(capsys.readouterr().err, encoding="utf-8")
    on_stderr = written("stderr.log")[""] if Path("stderr.log").stat().st_size else []
    assert sorted([*numbers, *on_stderr]) == list(range(6))


def test_a_disk_that_does_not_synchronize(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], meter: Meter
) -> None:
    """When ``fsync`` fails the entries are in the file once and, because that may not last, on stderr too."""
    file = EventsFile(child.options(durability="fsync", meter_provider=meter.provider))
    file.write(entry(0))

    def fail(_: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        file.write(entry(1))
        file.write(entry(2), entry(3))
    file.write(entry(4))
    file.close()
    assert written() == {"": [0, 1, 2, 3, 4]}
    assert capsys.readouterr().err == entry(1) + entry(2) + entry(3)
    assert meter.lost() == {"EIO": 3}


# ------------------------------------------------------------------ pipes
def read_all(descriptor: int) -> bytes:
    pieces = []
    while piece := os.read(descriptor, 1 << 16):
        pieces.append(piece)
    return b"".join(pieces)


def test_a_fifo_with_a_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    """Entries larger than a pipe's buffer reach a reader that keeps reading, and no file is rotated."""
    monkeypatch.setattr(log_file, "_PATIENCE", HANGS)
    os.mkfifo("events.log")
    received: list[bytes] = []
    reader = threading.Thread(target=lambda: received.append(read_all(os.open("events.log", os.O_RDONLY))))
    reader.start()
    file = EventsFile(child.options(max_bytes=1000))
    large = entry(1).replace("xxxx", "x" * 300_000)
    while not received and reader.is_alive():  # until the reader is there entries go to stderr
        with contextlib.redirect_stderr(io.StringIO()) as err:
            file.write(entry(0))
        if not err.getvalue():
            break
    file.write(large)
    file.write(entry(2))
    file.close()
    reader.join(HANGS)
    assert received[0].decode() == entry(0) + large + entry(2)
    assert os.listdir() == ["events.log"]


def test_an_entry_that_interrupts_the_opening_of_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal handler that writes while the pipe is opened does not break into what another process writes there."""
    os.mkfifo("events.log")
    readable = os.open("events.log", os.O_RDONLY | os.O_NONBLOCK)
    file = EventsFile(child.options())
    open_log = file._appender._open
    interrupting = [entry(1)]

    def interrupted() -> int:
        while interrupting:
            file.write(interrupting.pop())
        return open_log()

    monkeypatch.setattr(file._appender, "_open", interrupted)
    file.write(entry(0))
    file.close()
    assert os.read(readable, 1 << 16).decode() == entry(0) + entry(1)
    os.close(readable)


@pytest.mark.parametrize("size", [None, 5_000], ids=["taken whole or not", "taken in part"])
def test_a_pipe_whose_reader_stands_still(
    size: int | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """When nobody reads, an entry waits for a moment and later ones not at all; what follows is readable."""
    os.mkfifo("events.log")
    readable = os.open("events.log", os.O_RDONLY | os.O_NONBLOCK)
    waits: list[float] = []
    await_room = _Patience.await_room

    def spy(patience: Any, descriptor: int) -> bool:
        waits.append(patience.seconds)
        patience.seconds = min(patience.seconds, 0.01)
        return await_room(patience, descriptor)

    monkeypatch.setattr(_Patience, "await_room", spy)
    file = EventsFile(child.options())
    number = 0
    while not waits:
        file.write(entry(number, size=size))
        number += 1
    file.write(entry(number, size=size))
    assert waits == [1.0, 0.0]
    assert capsys.readouterr().err == entry(number - 1, size=size) + entry(number, size=size)
    pending = os.read(readable, 1 << 20)
    file.write(entry(number + 1, size=size))
    file.close()
    Path("received").write_bytes(pending + os.read(readable, 1 << 20))
    os.close(readable)
    numbers, damage = read("received")
    assert bool(damage) == (size is not None)
    assert Path("received").read_text(encoding="utf-8").endswith("\n\n" + entry(number + 1, size=size))
    assert numbers == [*range(number - 1), number + 1]


@pytest.mark.parametrize("durability", ["write", "buffered"])
def test_a_full_pipe_that_has_room_for_one_of_two_entries(
    durability: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of entries that come together, the pipe has the first, whole and once, and stderr the second."""
    monkeypatch.setattr(log_file, "_PATIENCE", 0.0)
    os.mkfifo("events.log")
    readable = os.open("events.log", os.O_RDONLY | os.O_NONBLOCK)
    room = fcntl.fcntl(readable, fcntl.F_SETPIPE_SZ, 1)  # the least that the kernel gives: a page
    entries = [entry(number, size=room // 2) for number in range(2)]
    file = EventsFile(child.options(durability=durability))
    file.write(*entries)
    file.close()
    assert os.read(readable, 1 << 20).decode().startswith(entries[0])
    os.close(readable)
    assert capsys.readouterr().err == entries[1]


# ------------------------------------------------------------------ stderr itself
def test_the_warning_comes_before_the_entries_that_it_explains() -> None:
    """Whoever reads standard error sees first why entries appear there."""
    status, _, err = child.run("threads", writer="", count=2, threads=1, events_log="missing/events.log")
    assert status == 0
    warning, _, entries = err.partition("\n")
    assert warning.endswith("its entries go to stderr for now: No such file or directory")
    assert entries == entry(0, "-0") + entry(1, "-0")


def test_a_log_handler_that_raises_costs_no_entry(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], meter: Meter
) -> None:
    """When the warning cannot be logged the entry still goes to stderr, and is counted."""
    monkeypatch.setattr(SHIELD, "reraise", False)
    options = child.options(events_log="missing/events.log", meter_provider=meter.provider)
    with Raises():
        EventsFile(options).write(entry(0))
    assert capsys.readouterr().err == entry(0)
    assert meter.lost() == {"ENOENT": 1}


class Broken:
    def write(self, _: str) -> None:
        raise RuntimeError("no")


def closed() -> io.StringIO:
    stream = io.StringIO()
    stream.close()
    return stream


def full() -> io.TextIOWrapper:
    # Unbuffered, or what it did not take would be tried again, in vain, when the object goes.
    return io.TextIOWrapper(io.FileIO("/dev/full", "w"), write_through=True)


@pytest.mark.parametrize(
    "make", [lambda: None, closed, full, Broken], ids=["none", "closed", "full", "broken"]
)
def test_stderr_may_be_anything(
    make: Callable[[], Any], monkeypatch: pytest.MonkeyPatch, meter: Meter
) -> None:
    """Without a stderr that takes it the entry is only counted; nothing is raised."""
    stream = make()
    monkeypatch.setattr(sys, "stderr", stream)
    file = EventsFile(child.options(events_log="missing/events.log", meter_provider=meter.provider))
    file.write(entry(0))
    file.close()
    assert meter.lost() == {"ENOENT": 1}
    if isinstance(stream, io.TextIOWrapper):
        stream.close()
