"""File descriptors: the one that a path such as ``/dev/stdout`` names, and how to keep, compare and close our own."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import sys
from typing import Final

_STANDARD: Final = ("stdin", "stdout", "stderr")
_PATH: Final = re.compile(r"/dev/(?:(stdin|stdout|stderr)|fd/(\d+))|/proc/self/fd/(\d+)")


def inherited(path: str, *standard: str) -> int | None:
    """Return the number of the descriptor that ``path`` names, ``None`` if it names none.

    Such a path is ``/dev/fd/N``, ``/proc/self/fd/N``, or ``/dev/`` and one of the ``standard`` streams:
    ``stdin``, ``stdout`` or ``stderr``.

    Raises:
        OSError: the process was started without that stream, so its number may be that of any file opened since.
    """
    match = _PATH.fullmatch(path)
    if match is None:
        return None
    if match[1] is None:
        return int(match[2] or match[3])
    if match[1] not in standard:
        return None
    if getattr(sys, f"__{match[1]}__") is None:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF), path)
    return _STANDARD.index(match[1])


def above_standard(descriptor: int) -> int:
    """Return ``descriptor`` under a number of at least 3.

    What an application prints after it has closed its standard streams must not land in our file.
    """
    if descriptor >= 3:
        return descriptor
    moved = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 3)
    os.close(descriptor)
    return moved


def is_same_file(path: str, descriptor: int) -> bool:
    """Return whether the file at ``path`` is the one that is open as ``descriptor``."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except OSError:
        return False


def close_own(descriptor: int, file: os.stat_result) -> None:
    """Close ``descriptor`` if it is still ``file``.

    An application that daemonizes closes every descriptor, and the number may now be its own file or socket.
    """
    with contextlib.suppress(OSError):
        try:
            is_own = os.path.samestat(os.fstat(descriptor), file)
        except OSError as error:  # NFS says ESTALE of a file that is gone
            is_own = error.errno != errno.EBADF
        if is_own:
            os.close(descriptor)
