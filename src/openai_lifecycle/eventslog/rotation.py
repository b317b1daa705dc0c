"""The rotated files of a log.

``events.log`` is moved to ``events.log.1``, that one to ``events.log.2``, and so on; a compressed one is called
``events.log.2.gz``.
"""

from __future__ import annotations

import contextlib
import errno
import gzip
import os
import re
import shutil
import stat
from typing import BinaryIO, Final, NamedTuple

from openai_lifecycle.eventslog import locks
from openai_lifecycle.eventslog.descriptors import is_same_file

GZIP_MAGIC: Final = b"\x1f\x8b"
#: A larger number is that of a rotated file only if there is one with the number before.
_LARGEST_ALONE: Final = 999


class Backup(NamedTuple):
    """One rotated file; number 1 is the newest."""

    number: int
    path: str


# ------------------------------------------------------------------ the names
def backups(path: str) -> list[Backup]:
    """Return the rotated files of the log at ``path``, newest first; none where the directory cannot be read.

    A number of more than three digits counts only when it follows another rotated file's: ``events.log.2024`` or
    ``events.log.20250127.gz`` is somebody else's archive and is left alone.
    """
    directory, name = os.path.split(path)
    pattern = re.compile(re.escape(name) + r"\.([1-9]\d{0,8})(?:\.gz)?")
    found = []
    with contextlib.suppress(OSError), os.scandir(directory or ".") as entries:
        for entry in entries:
            match = pattern.fullmatch(entry.name)
            if match and entry.is_file():
                found.append(Backup(int(match[1]), os.path.join(directory, entry.name)))
    found.sort()
    for at, backup in enumerate(found):
        if backup.number > _LARGEST_ALONE and backup.number > (found[at - 1].number if at else 0) + 1:
            return found[:at]
    return found


def is_gzip(path: str) -> bool:
    """Return whether the file at ``path`` is compressed, which its name does not say for certain: see :func:`compress`."""
    with open(path, "rb") as file:
        return holds_gzip(file.fileno())


def holds_gzip(descriptor: int, start: int = 0) -> bool:
    """Return whether what the open file ``descriptor`` holds from ``start`` on is compressed."""
    return os.pread(descriptor, len(GZIP_MAGIC), start) == GZIP_MAGIC


# ------------------------------------------------------------------ moving and compressing
def rotate(path: str, keep: int) -> None:
    """Move the log at ``path`` aside, delete what exceeds ``keep`` rotated files, and create the next log.

    The caller holds both locks exclusively. Files move from the oldest to the newest, so a crash between
    two steps leaves a gap in the numbers and loses nothing.

    Raises:
        OSError: a file could not be moved; the log is then still in its place.
    """
    moving = []
    taken = 1  # the number that the next newer file gets: one beyond it need not move
    for backup in backups(path):
        number = backup.number  # the number after the move
        if number <= taken:
            taken = number = number + 1
        if number > keep:
            os.unlink(backup.path)
        elif number > backup.number:
            moving.append((number, backup.path))
    for number, old in reversed(moving):
        _rename(old, f"{path}.{number}{'.gz' if old.endswith('.gz') else ''}")
    status = os.stat(path)
    if keep:
        _rename(path, f"{path}.1")
    else:
        os.unlink(path)
    _create_next(path, status)


def _create_next(path: str, status: os.stat_result) -> None:
    """Create the next log with the permissions of the last one, so log shippers can still read it."""
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            os.fchmod(descriptor, stat.S_IMODE(status.st_mode))
            os.fchown(descriptor, -1, status.st_gid)
        finally:
            os.close(descriptor)


def compress(path: str) -> None:
    """Compress the uncompressed rotated files of the log at ``path``; one process at a time does it.

    The compressed file atomically replaces the plain one and only then gets its new name, so a crash at any instant
    leaves exactly one copy of every entry. While another process moves or writes files nothing is done: the next
    rotation tries again.

    Raises:
        OSError: a file could not be compressed; it is then unchanged.
    """
    while plain := [backup.path for backup in backups(path) if not backup.path.endswith(".gz")]:
        with contextlib.suppress(FileNotFoundError):  # it was moved on in between; the next look finds it
            finish = _name_compressed if is_gzip(plain[-1]) else _compress
            if not finish(path, plain[-1]):
                return


def _compress(path: str, source: str) -> bool:
    """Compress one rotated file; False when another process is at work."""
    work = f"{path}.gz.tmp"
    descriptor = os.open(work, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        with locks.locked(descriptor, locks.EXCLUSIVE, 0) as alone, open(source, "r+b") as plain:
            # An existing work file is left over from a process that died, unless it is locked.
            if not alone or not is_same_file(work, descriptor) or not _is_complete(plain.fileno()):
                return False
            if holds_gzip(plain.fileno()):
                return True  # another process just put it there and will rename it: look again
            _pack(plain, descriptor)
            return _exchange(path, plain.fileno(), work)
    finally:
        os.close(descriptor)


def _is_complete(descriptor: int) -> bool:
    """Return whether all writers have finished: another program may move the log without waiting."""
    with locks.locked(descriptor, locks.EXCLUSIVE, 1.0) as complete:
        return complete


def _pack(plain: BinaryIO, descriptor: int) -> None:
    os.ftruncate(descriptor, 0)
    try:
        with (
            open(descriptor, "wb", closefd=False) as target,
            gzip.GzipFile(fileobj=target, mode="wb", compresslevel=6) as packed,
        ):
            shutil.copyfileobj(plain, packed, 1 << 20)
    except BaseException:  # the disk is full: leave the room to the log
        os.ftruncate(descriptor, 0)
        raise
    os.fchmod(descriptor, stat.S_IMODE(os.fstat(plain.fileno()).st_mode))
    os.fsync(descriptor)


def _exchange(path: str, plain: int, work: str) -> bool:
    """Replace the file that is open as ``plain`` with ``work``; False: not now."""
    with locks.locked_directory_of(path, locks.EXCLUSIVE) as held:
        if held:
            # Rotation may have moved the file, or retention deleted it, during compression.
            name = next((b.path for b in backups(path) if is_same_file(b.path, plain)), None)
            if name is None:
                os.unlink(work)
            else:
                os.replace(work, name)
                _rename(name, f"{name}.gz")
    return held


def _name_compressed(path: str, source: str) -> bool:
    """Finish for a process that died between the two steps of :func:`_compress`; False: not now."""
    with locks.locked_directory_of(path, locks.EXCLUSIVE) as held:
        if held and is_gzip(source):
            _rename(source, f"{source}.gz")
    return held


def _rename(old: str, new: str) -> None:
    """Rename a file without overwriting another, which a second program that rotates the log may have made."""
    if os.path.lexists(new):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), new)
    os.rename(old, new)
