"""The rotated files of a log, and the lock that keeps writers and rotation apart.

``events.log`` is moved to ``events.log.1``, that one to ``events.log.2``, and so on; a compressed one is called
``events.log.2.gz``. The only lock is ``flock`` on the log itself, so no lock file lies about: a writer holds it
shared while it writes, whoever moves files holds it exclusively. Hence nobody writes to a file that rotation has
moved away, and it may be compressed. A process that dies gives its lock back.
"""

from __future__ import annotations

import contextlib
import fcntl
import gzip
import os
import re
import shutil
import stat
import time
from collections.abc import Iterator
from typing import Final, NamedTuple

SHARED: Final = fcntl.LOCK_SH
EXCLUSIVE: Final = fcntl.LOCK_EX

#: How a gzip file begins. A rotated file's name does not say for certain whether it is one, see :func:`compress`.
GZIP_MAGIC: Final = b"\x1f\x8b"
_PAUSE: Final = 0.0005  # seconds between two tries to get the lock


class Backup(NamedTuple):
    """One rotated file; number 1 is the newest."""

    number: int
    path: str


# ------------------------------------------------------------------ the lock
def lock(descriptor: int, kind: int, patience: float) -> bool:
    """Return whether the lock was got within ``patience`` seconds.

    It never blocks in the kernel: a process that was stopped while it held the lock must not stop this one. On a
    file system without locks the answer is False at once.
    """
    deadline = 0.0
    while True:
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            now = time.monotonic()
            deadline = deadline or now + patience
            if now >= deadline:
                return False
            time.sleep(_PAUSE)
        except OSError:
            return False
        else:
            return True


def unlock(descriptor: int) -> None:
    """Give the lock on ``descriptor`` back."""
    try:  # noqa: SIM105 - contextlib.suppress costs more than the call, and every entry comes by here
        fcntl.flock(descriptor, fcntl.LOCK_UN)
    except OSError:
        pass


@contextlib.contextmanager
def holding(path: str, kind: int, patience: float = 1.0) -> Iterator[bool]:
    """Hold the lock on the log at ``path``, whichever file that is now; yields whether it was got."""
    for _ in range(100):
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:
            break
        try:
            held = lock(descriptor, kind, patience)
            if held and not is_file(path, descriptor):
                continue  # moved while we waited
            yield held
            return
        finally:
            os.close(descriptor)
    yield False


def is_file(path: str, descriptor: int) -> bool:
    """Return whether the file at ``path`` is the one that is open as ``descriptor``."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except OSError:
        return False


# ------------------------------------------------------------------ the names
def backups(path: str) -> list[Backup]:
    """Return the rotated files of the log at ``path``, newest first; none where the directory cannot be read."""
    directory, name = os.path.split(path)
    pattern = re.compile(re.escape(name) + r"\.([1-9]\d{0,8})(?:\.gz)?")
    found = []
    with contextlib.suppress(OSError), os.scandir(directory or ".") as entries:
        for entry in entries:
            match = pattern.fullmatch(entry.name)
            if match and entry.is_file():
                found.append(Backup(int(match[1]), os.path.join(directory, entry.name)))
    return sorted(found)


def is_gzip(path: str) -> bool:
    """Return whether the file at ``path`` is compressed."""
    with open(path, "rb") as file:
        return file.read(len(GZIP_MAGIC)) == GZIP_MAGIC


# ------------------------------------------------------------------ moving and compressing
def rotate(path: str, keep: int) -> None:
    """Move the log at ``path`` aside and delete what exceeds ``keep`` rotated files.

    The caller holds the exclusive lock on the log. Files move from the oldest to the newest, so a crash between
    two steps leaves a gap in the numbers and loses nothing.

    Raises:
        OSError: a file could not be moved; the log is then still in its place.
    """
    moving = []
    free = 1  # the first number that nothing has: what is beyond it need not move
    for backup in backups(path):
        moves = backup.number <= free
        if moves:
            free = backup.number + 1
        if backup.number + moves > keep:
            os.unlink(backup.path)
        elif moves:
            moving.append(backup)
    for number, old in reversed(moving):
        os.rename(old, f"{path}.{number + 1}{'.gz' if old.endswith('.gz') else ''}")
    status = os.stat(path)
    if keep:
        os.rename(path, f"{path}.1")
    else:
        os.unlink(path)
    _succeed(path, status)


def _succeed(path: str, status: os.stat_result) -> None:
    """Create the next log with the permissions of the last one: whoever ships it may still read it."""
    with contextlib.suppress(OSError):
        descriptor = os.open(
            path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
        )
        try:
            os.fchmod(descriptor, stat.S_IMODE(status.st_mode))
            os.fchown(descriptor, -1, status.st_gid)
        finally:
            os.close(descriptor)


def compress(path: str) -> None:
    """Compress the rotated files of the log at ``path`` that are not yet; one process at a time does it.

    The compressed file takes the place of the plain one in a single step and only then gets its new name, so a
    crash at any instant leaves exactly one copy of every entry.

    Raises:
        OSError: a file could not be compressed; it is then still there as it was.
    """
    while plain := [backup.path for backup in backups(path) if not backup.path.endswith(".gz")]:
        with contextlib.suppress(FileNotFoundError):  # it was moved on in between; the next look finds it
            if is_gzip(plain[-1]):
                _name_compressed(path, plain[-1])
            elif not _compress(path, plain[-1]):
                return


def _compress(path: str, source: str) -> bool:
    """Compress one rotated file; False when another process is at work."""
    work = f"{path}.gz.tmp"
    descriptor = os.open(work, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with open(descriptor, "wb") as target, open(source, "rb") as plain:
        # A file that was there already is what a process left that died, unless somebody holds the lock on it.
        if not lock(descriptor, EXCLUSIVE, 0) or not is_file(work, descriptor):
            return False
        os.ftruncate(descriptor, 0)
        with gzip.GzipFile(fileobj=target, mode="wb", compresslevel=6, filename="") as packed:
            shutil.copyfileobj(plain, packed, 1 << 20)
        target.flush()
        os.fchmod(descriptor, stat.S_IMODE(os.fstat(plain.fileno()).st_mode))
        os.fsync(descriptor)
        with holding(path, EXCLUSIVE):
            # Rotation may have moved the file on, or retention deleted it, while it was compressed.
            name = next((b.path for b in backups(path) if is_file(b.path, plain.fileno())), None)
            if name is None:
                os.unlink(work)
            else:
                os.replace(work, name)
                os.rename(name, f"{name}.gz")
    return True


def _name_compressed(path: str, source: str) -> None:
    """Finish what a process left that died between the two steps of :func:`_compress`."""
    with holding(path, EXCLUSIVE):
        if is_gzip(source):
            os.rename(source, f"{source}.gz")
