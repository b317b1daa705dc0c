"""The locks that keep writers, rotation and readers of a log apart.

They are ``flock`` on existing files, so there is no lock file, and a process that dies releases its lock:

* on the log itself: writers hold it shared, rotation exclusively. Hence nobody writes to a file that rotation
  has moved away, and it may be compressed;
* on the directory: a process that moves or replaces files of a log holds it exclusively, one that opens several
  of them shared. The log itself would not do: another program may move it away at any time, and processes waiting
  for it and those creating the next one would then hold locks on two files.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from typing import Final

SHARED: Final = fcntl.LOCK_SH
EXCLUSIVE: Final = fcntl.LOCK_EX

_PAUSE: Final = 0.0005  # seconds between two tries to get the lock


def lock(descriptor: int, kind: int, patience: float) -> bool:
    """Return whether the lock of that ``kind``, SHARED or EXCLUSIVE, was acquired within ``patience`` seconds.

    On a file system without locks it returns False at once.
    """
    try:
        return _acquire(descriptor, kind, patience)
    except OSError:
        return False


def _acquire(descriptor: int, kind: int, patience: float) -> bool:
    # It never blocks in the kernel: a stopped process that holds the lock must not stop this one.
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
        else:
            return True


def unlock(descriptor: int) -> None:
    """Release the lock on ``descriptor``."""
    try:  # noqa: SIM105 - contextlib.suppress costs more than the call, and every entry takes this path
        fcntl.flock(descriptor, fcntl.LOCK_UN)
    except OSError:
        pass


@contextlib.contextmanager
def locked(descriptor: int, kind: int, patience: float) -> Iterator[bool]:
    """Hold the lock on ``descriptor``; yields whether it was acquired within ``patience`` seconds.

    It is released explicitly, not by closing: a process forked meanwhile has the descriptor too.

    Raises:
        OSError: the file system has no locks.
    """
    held = _acquire(descriptor, kind, patience)
    try:
        yield held
    finally:
        if held:
            unlock(descriptor)


@contextlib.contextmanager
def locked_directory_of(path: str, kind: int, patience: float = 1.0) -> Iterator[bool]:
    """Hold the lock on the directory of the log at ``path``, and so on the names of its files.

    Yields whether it was acquired within ``patience`` seconds. Without it nothing may be moved or replaced.

    Raises:
        OSError: the directory cannot be opened, or its file system has no locks.
    """
    descriptor = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY)
    try:
        with locked(descriptor, kind, patience) as held:
            yield held
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def unmoved(path: str, patience: float = 1.0) -> Iterator[None]:
    """Keep other processes from moving or replacing files of the log at ``path``, where they can be kept from it."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # the directory may be searchable only, not readable
            stack.enter_context(locked_directory_of(path, SHARED, patience))
        yield
