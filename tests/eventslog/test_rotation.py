"""Rotation: by this process, by several at once, by logrotate; compression and retention."""

from __future__ import annotations

import errno
import fcntl
import gzip
import os
import shutil
import stat
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from openai_lifecycle.eventslog import locks, rotation
from openai_lifecycle.eventslog.descriptors import is_same_file
from openai_lifecycle.eventslog.file import EventsFile
from tests.eventslog import child
from tests.eventslog.logs import LOG, written
from tests.eventslog.samples import entry
from tests.limits import HANGS, until

SIZE = len(entry(0))
NOBODY = 65534


def names() -> list[str]:
    return sorted(os.listdir())


def fixed(number: int) -> str:
    """Return an entry of exactly ``SIZE`` bytes."""
    return entry(0).replace('"messages_count": 0', f'"messages_count": {number}')


def fill(count: int, **options: Any) -> None:
    """Write as many entries, each of exactly ``SIZE`` bytes."""
    file = EventsFile(child.options(**options))
    for number in range(count):
        file.write(fixed(number))
    file.close()


# ------------------------------------------------------------------ by this process
def test_rotates_before_the_file_grows_beyond_its_size() -> None:
    """Each file holds whole entries and at most ``max_bytes``; only one that is larger by itself exceeds it."""
    file = EventsFile(child.options(max_bytes=3 * SIZE + 10, backups=9))
    for number in range(8):
        file.write(fixed(number))
    large = entry(8).replace("xxxx", "x" * 5000)
    file.write(large)
    file.write(fixed(9))
    file.close()
    sizes = [
        os.path.getsize(name) for name in ("events.log.4", "events.log.3", "events.log.2", "events.log.1")
    ]
    assert sizes == [3 * SIZE, 3 * SIZE, 2 * SIZE, len(large)]
    assert written() == {"": list(range(10))}


def test_entries_that_come_together_may_go_to_several_files() -> None:
    """The entries of one call that would not fit into one file do not make it larger than ``max_bytes``."""
    file = EventsFile(child.options(max_bytes=3 * SIZE, backups=9))
    file.write(*map(fixed, range(2)))
    file.write(*map(fixed, range(2, 7)))
    file.close()
    assert max(map(os.path.getsize, names())) == 3 * SIZE
    assert written() == {"": list(range(7))}


def test_batches_are_small_beside_the_size_of_a_file() -> None:
    """In ``buffered`` mode too no file grows beyond ``max_bytes``."""
    fill(500, durability="buffered", max_bytes=20 * SIZE, backups=99)
    assert max(map(os.path.getsize, names())) <= 20 * SIZE
    assert len(names()) > 24
    assert written() == {"": list(range(500))}


@pytest.mark.parametrize("backups", [0, 1, 3])
def test_keeps_as_many_backups_as_asked_for(backups: int) -> None:
    """The newest ``backups`` rotated files stay, older ones go, also those of a former, larger number."""
    for number in range(1, 6):
        Path(f"events.log.{number}").write_text(entry(90 + number))
    fill(6, max_bytes=SIZE, backups=backups)
    assert names() == ["events.log", *(f"events.log.{number}" for number in range(1, backups + 1))]
    assert written() == {"": list(range(5 - backups, 6))}


def test_a_gap_in_the_numbers_is_filled_first() -> None:
    """What a crash between two steps of a rotation left is no reason to delete a backup early."""
    Path("events.log.1").write_text(entry(2))
    Path("events.log.3").write_text(entry(1))
    LOG.write_text(entry(3))
    rotation.rotate("events.log", 3)
    assert names() == ["events.log", "events.log.1", "events.log.2", "events.log.3"]
    assert written() == {"": [1, 2, 3]}


OTHERS_FILES = [
    "events.log.0",
    "events.log.01",
    "events.log.2024",
    "events.log.2024.gz",
    "events.log.20250127.gz",
]


def test_files_of_others_are_left_alone() -> None:
    """What has a year, a date or a zero in its name is not ours, and is neither moved, deleted, compressed nor read."""
    for name in OTHERS_FILES:
        Path(name).write_text("an archive\n")
    fill(4, max_bytes=SIZE, backups=1)
    rotation.compress("events.log")
    assert names() == sorted(["events.log", "events.log.1.gz", *OTHERS_FILES])
    assert {Path(name).read_text() for name in OTHERS_FILES} == {"an archive\n"}
    assert written() == {"": [2, 3]}


def test_what_is_no_file_is_no_backup() -> None:
    """A directory that is called like a backup does not count, and one that is not there holds none."""
    Path("events.log.1").mkdir()
    assert rotation.backups("events.log") == rotation.backups("nowhere/events.log") == []


def test_a_compressed_backup_keeps_its_ending() -> None:
    """A compressed backup that is moved on keeps ``.gz``, also where backups are no longer compressed."""
    Path("events.log.1.gz").write_bytes(gzip.compress(entry(1).encode()))
    LOG.write_text(entry(2))
    rotation.rotate("events.log", 5)
    assert names() == ["events.log", "events.log.1", "events.log.2.gz"]
    assert written() == {"": [1, 2]}


def test_a_thousand_backups() -> None:
    """Numbers of four digits are backups where they continue the run."""
    for number in range(1, 1100):
        Path(f"events.log.{number}").touch()
    Path("events.log.2024").touch()
    LOG.write_text(entry(1))
    rotation.rotate("events.log", 1098)
    assert len(names()) == 1098 + 2
    assert [backup.number for backup in rotation.backups("events.log")] == list(range(1, 1099))


def test_the_next_file_has_the_permissions_of_the_last() -> None:
    """Whoever was allowed to read the log, such as a log shipper's group, still is after a rotation."""
    file = EventsFile(child.options(max_bytes=SIZE))
    file.write(fixed(0))
    LOG.chmod(0o640)
    group = 4321 if os.getuid() == 0 else os.getgid()
    os.chown(LOG, -1, group)
    file.write(fixed(1))
    file.close()
    for name in ("events.log", "events.log.1"):
        status = Path(name).stat()
        assert (stat.S_IMODE(status.st_mode), status.st_gid) == (0o640, group)


@pytest.mark.skipif(os.getuid() != 0, reason="needs root")
def test_the_next_file_may_have_another_group() -> None:
    """A process that may not give the log's group rotates all the same, and keeps no descriptor of the next file."""
    LOG.write_text(entry(1))
    os.chown(LOG, NOBODY, 4321)
    os.chown(".", NOBODY, -1)
    before = os.listdir("/proc/self/fd")
    os.seteuid(NOBODY)
    try:
        rotation.rotate("events.log", 1)
    finally:
        os.seteuid(0)
    assert names() == ["events.log", "events.log.1"]
    assert os.listdir("/proc/self/fd") == before


def test_a_link_stays_a_link() -> None:
    """Where the path is a symbolic link, its target is rotated, beside itself."""
    Path("data").mkdir()
    LOG.symlink_to("data/real.log")
    fill(3, max_bytes=SIZE)
    assert LOG.is_symlink()
    assert sorted(os.listdir("data")) == ["real.log", "real.log.1", "real.log.2"]
    assert written() == {"": [0, 1, 2]}


@pytest.mark.parametrize(
    ("module", "function", "number"),
    [(os, "rename", errno.EACCES), (fcntl, "flock", errno.ENOLCK)],
    ids=["directory", "file system without locks"],
)
def test_files_that_cannot_be_moved(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, module: Any, function: str, number: int
) -> None:
    """The log grows on, complete, and one warning says why."""
    reason = os.strerror(number)

    def refuse(*_: object) -> None:
        raise OSError(number, reason)

    monkeypatch.setattr(module, function, refuse)
    fill(5, max_bytes=SIZE)
    assert names() == ["events.log"]
    assert written() == {"": [0, 1, 2, 3, 4]}
    (record,) = caplog.records
    assert f"cannot be rotated and keeps growing: {reason}" in record.getMessage()


@pytest.mark.parametrize("locked", ["events.log", "."], ids=["the log", "its directory"])
def test_somebody_who_holds_a_lock_does_not_stop_the_application(locked: str) -> None:
    """While another program keeps a lock, entries are written and rotation waits; soon after it is made up for."""
    file = EventsFile(child.options(max_bytes=SIZE))
    file.write(fixed(0))
    other = os.open(locked, os.O_RDONLY)
    assert locks.lock(other, locks.EXCLUSIVE, 0)
    for number in range(1, 20):
        file.write(fixed(number))
    assert names() == ["events.log"]
    os.close(other)

    def rotates() -> bool:
        file.write(fixed(20))
        return len(names()) > 1

    until(rotates)
    file.close()
    assert sorted(set(written()[""])) == list(range(21))


def test_no_backup_is_overwritten(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Where a file was overlooked, as one that another program made a moment ago, the log grows on instead."""
    for number in (1, 2, 3):
        Path(f"events.log.{number}").write_text(fixed(3 - number))
    look = rotation.backups
    file = EventsFile(child.options(max_bytes=SIZE))
    with monkeypatch.context() as patch:
        patch.setattr(rotation, "backups", lambda path: [b for b in look(path) if b.number != 2])
        for number in (3, 4):
            file.write(fixed(number))
    file.close()
    assert written() == {"": [0, 1, 2, 3, 4]}
    assert "cannot be rotated and keeps growing: File exists" in caplog.text


def test_nothing_is_moved_while_others_move() -> None:
    """While somebody has the lock on the directory nothing is rotated or compressed; afterwards both go on."""
    Path("events.log.2").write_bytes(gzip.compress(fixed(0).encode()))
    file = EventsFile(child.options(max_bytes=SIZE, compress=False))
    file.write(fixed(2))
    with locks.locked_directory_of("events.log", locks.EXCLUSIVE) as held:
        assert held
        file.write(fixed(3))
        file.write(fixed(4))
        assert names() == ["events.log", "events.log.2"]
        rotation.compress("events.log")
        assert names() == ["events.log", "events.log.2"]
        Path("events.log.3").write_text(fixed(9))
        rotation.compress("events.log")
        assert Path("events.log.3").read_text() == fixed(9)
    rotation.compress("events.log")
    assert names() == ["events.log", "events.log.2.gz", "events.log.3.gz"]
    file.write(fixed(5))
    file.close()


def test_others_that_rotate_faster_than_one_can_follow(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An entry is in the log, not on stderr, also where other processes move the log at every look at it."""
    file = EventsFile(child.options())
    file.write(entry(0))
    lock, moved = locks.lock, []

    def overtaken(descriptor: int, kind: int, patience: float) -> bool:
        with locks.locked_directory_of("events.log", locks.EXCLUSIVE, 0.0) as held:  # as every process does
            if held:
                rotation.rotate("events.log", 1000)
                moved.append(descriptor)
        return lock(descriptor, kind, patience)

    monkeypatch.setattr(locks, "lock", overtaken)
    file.write(entry(1))
    file.close()
    assert len(moved) > 1
    assert written() == {"": [0, 1]}
    assert capsys.readouterr().err == ""


# ------------------------------------------------------------------ compression
def test_backups_are_compressed() -> None:
    """Rotated files become gzip files that the ordinary tool reads, with the permissions of the log."""
    file = EventsFile(child.options(max_bytes=SIZE, compress=True))
    file.write(fixed(0))
    LOG.chmod(0o640)
    for number in range(1, 4):
        file.write(fixed(number))
        until(lambda: not any(n.endswith("tmp") or n[-1].isdigit() for n in names()))
    file.close()
    assert names() == ["events.log", "events.log.1.gz", "events.log.2.gz", "events.log.3.gz"]
    assert subprocess.check_output(["gzip", "-dc", "events.log.3.gz"], text=True) == fixed(0)
    assert stat.S_IMODE(Path("events.log.3.gz").stat().st_mode) == 0o640
    assert written() == {"": [0, 1, 2, 3]}


def test_compression_without_a_thread(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where no thread can be started the log is rotated without a word, and the next rotation compresses it."""

    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    file = EventsFile(child.options(max_bytes=SIZE, compress=True))
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        file.write(fixed(0))
        file.write(fixed(1))
    assert names() == ["events.log", "events.log.1"]
    assert not caplog.records
    file.write(fixed(2))
    until(lambda: names() == ["events.log", "events.log.1.gz", "events.log.2.gz"])
    file.close()
    assert written() == {"": [0, 1, 2]}


def test_a_failed_compression_leaves_the_room_to_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was packed when the disk was full takes none of it."""
    Path("events.log").write_text(entry(0))
    Path("events.log.1").write_bytes(os.urandom(3_000_000))
    copy = shutil.copyfileobj

    def fail(source: Any, target: Any, length: int) -> None:
        copy(source, target, length)
        target.fileobj.flush()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(shutil, "copyfileobj", fail)
    with pytest.raises(OSError, match="No space left"):
        rotation.compress(os.path.abspath("events.log"))
    left = {path.name: path.stat().st_size for path in Path().iterdir()}
    assert sum(size for name, size in left.items() if name.endswith(".tmp")) == 0
    assert left["events.log.1"] == 3_000_000


@pytest.mark.parametrize("max_bytes", [1, 3, 4])
def test_files_smaller_than_an_entry(max_bytes: int) -> None:
    """With the smallest sizes each entry is a file of its own, in ``buffered`` mode too."""
    fill(5, durability="buffered", max_bytes=max_bytes, backups=9)
    assert written() == {"": list(range(5))}


CRASHES = [
    "os.ftruncate",
    "gzip.GzipFile",
    "os.fchmod",
    "os.replace",
    "os.rename",
]


@pytest.mark.parametrize("step", CRASHES)
def test_a_crash_while_compressing_loses_and_doubles_nothing(
    step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever compression stops, every entry is there once and no file is open; the next run finishes the work."""
    before = os.listdir("/proc/self/fd")
    for number, name in ((1, "events.log.2"), (2, "events.log.1"), (3, "events.log")):
        Path(name).write_text(fixed(number))
    Path("events.log.gz.tmp").write_bytes(b"left by an earlier crash" * 99)

    class Crash(BaseException):
        pass

    def crash(*_: object, **__: object) -> None:
        raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(f"openai_lifecycle.eventslog.rotation.{step}", crash)
        with pytest.raises(Crash):
            rotation.compress("events.log")
    assert os.listdir("/proc/self/fd") == before
    assert written() == {"": [1, 2, 3]}
    rotation.compress("events.log")
    assert names() == ["events.log", "events.log.1.gz", "events.log.2.gz"]
    assert written() == {"": [1, 2, 3]}


@pytest.mark.parametrize(
    ("keep", "left"), [(5, [1, 2, 3]), (1, [2, 3]), (0, [3])], ids=["moved on", "deleted", "all deleted"]
)
def test_rotation_goes_on_while_a_backup_is_compressed(
    keep: int, left: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is moved on while it is compressed takes its new place; one that retention deletes stays so."""
    Path("events.log.1").write_text(fixed(1))
    LOG.write_text(fixed(2))
    copy = shutil.copyfileobj
    rotated = False

    def copy_and_rotate(source: Any, target: Any, size: int) -> None:
        nonlocal rotated
        copy(source, target, size)
        if not rotated:
            rotated = True
            rotation.rotate("events.log", keep)
            LOG.write_text(fixed(3))

    monkeypatch.setattr(shutil, "copyfileobj", copy_and_rotate)
    rotation.compress("events.log")
    assert names() == ["events.log", *(f"events.log.{number}.gz" for number in range(1, len(left)))]
    assert written() == {"": left}


def test_a_log_that_is_moved_away_while_a_backup_is_compressed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a log whose lock could be held, rotation still keeps its hands off what compression is replacing."""
    file = EventsFile(child.options(max_bytes=SIZE))
    for number in range(4):
        file.write(fixed(number))
    os.rename("events.log", "moved.log")
    replace = os.replace

    def write_and_replace(source: str, target: str) -> None:
        monkeypatch.setattr(os, "replace", replace)
        for number in range(4, 8):
            file.write(fixed(number))
        replace(source, target)

    monkeypatch.setattr(os, "replace", write_and_replace)
    rotation.compress("events.log")
    file.close()
    assert written("moved.log") == {"": [3]}
    assert written() == {"": [0, 1, 2, 4, 5, 6, 7]}


def test_a_backup_is_not_compressed_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file in whose place another process puts the compressed one just after it was looked at is left to that."""
    Path("events.log.1").write_text(fixed(1))
    LOG.write_text(fixed(2))
    look = rotation.is_gzip

    def look_too_early(path: str) -> bool:
        monkeypatch.setattr(rotation, "is_gzip", look)
        found = look(path)
        Path(path).write_bytes(gzip.compress(fixed(1).encode()))
        return found

    monkeypatch.setattr(rotation, "is_gzip", look_too_early)
    rotation.compress("events.log")
    assert written() == {"": [1, 2]}
    assert "events.log.1.gz" in names()


def test_one_process_compresses_at_a_time() -> None:
    """While another process holds the work file, nothing is written to it and nothing is renamed."""
    Path("events.log.1").write_text(fixed(1))
    LOG.write_text(fixed(2))
    work = Path("events.log.gz.tmp")
    work.write_bytes(b"half of what the other process writes")
    with work.open("r+b") as other, locks.locked(other.fileno(), locks.EXCLUSIVE, 0):
        rotation.compress("events.log")
    assert names() == ["events.log", "events.log.1", work.name]
    assert work.read_bytes() == b"half of what the other process writes"
    assert Path("events.log.1").read_text() == fixed(1)


def test_what_is_compressed_is_on_disk_before_it_replaces_the_plain_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A power cut cannot take both copies: the compressed one is synced, whole, before the other one goes."""
    Path("events.log.1").write_text(fixed(1))
    LOG.write_text(fixed(2))
    synced: list[bytes] = []
    fsync, replace = os.fsync, os.replace

    def sync(descriptor: int) -> None:
        fsync(descriptor)
        synced.append(Path("events.log.gz.tmp").read_bytes())

    def replace_synced(source: str, target: str) -> None:
        assert [gzip.decompress(content).decode() for content in synced] == [fixed(1)]
        replace(source, target)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "replace", replace_synced)
    rotation.compress("events.log")
    assert names() == ["events.log", "events.log.1.gz"]


def test_a_faster_process_that_compresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """A work file that another process has meanwhile made a backup of is not written to."""
    Path("events.log.1").write_text(fixed(1))
    LOG.write_text(fixed(2))
    open_ = os.open

    def open_and_wait(path: str, flags: int, mode: int = 0o777) -> int:
        descriptor = open_(path, flags, mode)
        if path.endswith(".tmp"):
            monkeypatch.setattr(os, "open", open_)
            rotation.compress("events.log")
            rotation.rotate("events.log", 5)
        return descriptor

    monkeypatch.setattr(os, "open", open_and_wait)
    rotation.compress("events.log")
    assert written() == {"": [1, 2]}


@pytest.mark.parametrize(("keep", "left"), [(5, [1, 2]), (0, [])], ids=["moved on", "deleted"])
def test_rotation_goes_on_before_a_compressed_backup_is_named(
    keep: int, left: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plain file that rotation puts in its place is compressed, not only called so; a deleted one is no error."""
    Path("events.log.1").write_bytes(gzip.compress(fixed(1).encode()))
    LOG.write_text(fixed(2))
    look = rotation.is_gzip

    def look_too_early(path: str) -> bool:
        monkeypatch.setattr(rotation, "is_gzip", look)
        found = look(path)
        rotation.rotate("events.log", keep)
        return found

    monkeypatch.setattr(rotation, "is_gzip", look_too_early)
    rotation.compress("events.log")
    assert names() == ["events.log", *(f"events.log.{number}.gz" for number in left)]
    assert all(map(look, names()[1:]))
    assert written().get("", []) == left


def test_a_backup_that_is_still_written_to_is_compressed_later() -> None:
    """A file that another program moved while an entry was being written to it is complete before it is packed."""
    Path("events.log.1").write_text(fixed(1))
    LOG.write_text(fixed(2))
    with Path("events.log.1").open("a") as writer, locks.locked(writer.fileno(), locks.SHARED, 0):
        rotation.compress("events.log")
    assert Path("events.log.1").read_text() == fixed(1)
    rotation.compress("events.log")
    assert "events.log.1.gz" in names()


def test_a_compressed_file_of_others_is_not_overwritten() -> None:
    """Where another program has compressed a backup of the same number, both stay."""
    Path("events.log.1").write_text(fixed(2))
    Path("events.log.1.gz").write_bytes(gzip.compress(fixed(1).encode()))
    LOG.write_text(fixed(3))
    for _ in range(2):
        with pytest.raises(FileExistsError):
            rotation.compress("events.log")
    assert sorted(written()[""]) == [1, 2, 3]


def test_a_child_does_not_keep_the_lock() -> None:
    """A process that is forked while files are moved leaves the lock to its parent."""
    assert child.run("forks_while_moving") == (0, "True\n", "")


# ------------------------------------------------------------------ by others
def move_and_create() -> None:
    os.rename("events.log", "events.log.1")
    LOG.touch(0o640)


def replace() -> None:
    Path("new").write_text(fixed(7))
    os.replace("new", "events.log")


OTHERS: dict[str, tuple[Callable[[], None], dict[str, list[int]]]] = {
    "moved": (lambda: os.rename("events.log", "events.log.1"), {"": [0, 1, 2, 3]}),
    "moved and created": (move_and_create, {"": [0, 1, 2, 3]}),
    "replaced": (replace, {"": [7, 2, 3]}),
    "deleted": (lambda: os.unlink("events.log"), {"": [2, 3]}),
    "truncated": (lambda: os.truncate("events.log", 0), {"": [2, 3]}),
    "truncated in the middle": (lambda: os.truncate("events.log", SIZE), {"": [0, 2, 3]}),
}


@pytest.mark.parametrize("how", OTHERS)
@pytest.mark.parametrize("durability", ["write", "fsync", "buffered"])
def test_a_file_that_changes_underneath(how: str, durability: str) -> None:
    """The next entry goes to the file that is there now, as a whole, and on a line of its own."""
    change, left = OTHERS[how]
    file = EventsFile(child.options(durability=durability))
    file.write(fixed(0))
    file.write(fixed(1))
    file.flush(HANGS)
    change()
    file.write(fixed(2))
    file.write(fixed(3))
    file.close()
    assert written() == left


def test_the_directory_is_gone_and_comes_back(capsys: pytest.CaptureFixture[str]) -> None:
    """While the directory is missing entries go to stderr, and to the file as soon as it is there again."""
    Path("logs").mkdir()
    file = EventsFile(child.options(events_log="logs/events.log"))
    file.write(fixed(0))
    os.rename("logs", "old")
    file.write(fixed(1))
    Path("logs").mkdir()
    file.write(fixed(2))
    file.close()
    assert capsys.readouterr().err == fixed(1)
    assert (written("old/events.log"), written("logs/events.log")) == ({"": [0]}, {"": [2]})


@pytest.mark.skipif(not os.path.exists("/usr/sbin/logrotate"), reason="logrotate is not installed")
@pytest.mark.parametrize("how", ["create 0600", "nocreate", "copytruncate"])
def test_logrotate(how: str) -> None:
    """The real logrotate rotates the log between entries, in each of its ways, with delayed compression."""
    su = "su root root" if os.getuid() == 0 else ""  # for a folder below one that others may write to
    Path("conf").write_text(
        f"{LOG.resolve()} {{\n rotate 9\n size 1\n {how}\n compress\n delaycompress\n {su}\n}}\n"
    )
    file = EventsFile(child.options())
    for number in range(4):
        file.write(fixed(number))
        subprocess.run(["/usr/sbin/logrotate", "--state", "state", "conf"], check=True)
    file.write(fixed(4))
    file.close()
    assert written() == {"": [0, 1, 2, 3, 4]}


# ------------------------------------------------------------------ load
def move_unwritten(target: str) -> None:
    """Move the log away at a time at which nobody writes to it."""
    while True:
        with LOG.open() as log, locks.locked(log.fileno(), locks.EXCLUSIVE, 1.0) as held:
            if held and is_same_file("events.log", log.fileno()):
                os.rename("events.log", target)
                return


def load(processes: int, threads: int, count: int, max_bytes: int, durability: str = "write") -> None:
    """Let processes write to one log that they rotate while it is also moved away, and check every entry."""
    running = [
        child.start(
            "threads",
            writer=str(number),
            count=count,
            threads=threads,
            max_bytes=max_bytes,
            backups=10_000,
            compress=number % 2 == 0,
            durability=durability,
        )
        for number in range(processes)
    ]
    until(lambda: LOG.exists() and rotation.backups("events.log") != [])
    move_unwritten("moved.log")  # its numbers then say when it was written
    for process in running:
        _, err = process.communicate(timeout=HANGS)
        assert (process.returncode, err) == (0, "")
    found: dict[str, list[int]] = {}
    moved = written("moved.log")
    for writer, numbers in written().items():
        # The moved file was between two rotations; its entries fit in at one point of each writer's order.
        within = moved.get(writer, [])
        at = next((i for i, number in enumerate(numbers) if within and number > within[-1]), len(numbers))
        found[writer] = numbers[:at] + within + numbers[at:]
    expected = list(range(count))
    assert found == {f"{p}-{t}": expected for p in range(processes) for t in range(threads)}
    assert len(rotation.backups("events.log")) > 5


@pytest.mark.parametrize("durability", ["write", "buffered"])
def test_load(durability: str) -> None:
    """Of 8 processes with 4 threads each, every entry is found exactly once and in each thread's order."""
    load(processes=8, threads=4, count=400, max_bytes=500_000, durability=durability)


@pytest.mark.soak
def test_load_for_long() -> None:
    """Of 8 processes with 4 threads that write 8000 entries each, none is lost, doubled or out of order."""
    load(processes=8, threads=4, count=8000, max_bytes=5_000_000)
