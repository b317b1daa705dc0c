"""One descriptor that entries are appended to: open, look, lock, rotate, write.

An :class:`Appender` serves one thread at a time and raises ``OSError``. ``file.py`` shares one among threads and
handles entries that cannot be written.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import stat
import time
from typing import Final

from openai_lifecycle.eventslog import locks, rotation
from openai_lifecycle.eventslog.descriptors import above_standard, close_own, inherited, is_same_file
from openai_lifecycle.eventslog.format import END

_ROTATION_PAUSE: Final = 60.0  # seconds until a rotation that failed is tried again
_WRITERS_PATIENCE: Final = 0.1  # seconds to wait for other writers to finish
_TRIES: Final = 100  # to append to a file that keeps being moved away; then as many while nobody may move it


class Appender:
    """Appends to the file at ``path``, even when that file is moved, deleted or replaced.

    Such a file is reopened before the next entry, so logrotate and other processes may rotate it. ``max_bytes`` makes
    this process rotate it too (0: never), keeping ``backups`` files. ``patience`` is how many seconds to wait for a
    lock, or for a reader of a full pipe.
    """

    def __init__(self, path: str, *, max_bytes: int, backups: int, sync: bool, patience: float) -> None:
        self.path = path
        self.progress = 0  # bytes of whole entries that append has written; the caller sets it to 0 before
        self.has_rotated = False
        self.rotation_error: OSError | None = None
        self._max_bytes = max_bytes
        self._backups = backups
        self._sync = sync
        self._descriptor: int | None = None
        self._file = os.stat_result((0,) * 10)  # the open file
        self._is_stream: bool | None = None  # None until it was opened
        self._end = -1  # where the file ends if nobody else has written
        self._written = 0  # bytes that the file has taken of what _put writes
        self._torn = False  # whether a pipe or terminal holds a partial entry
        self._looks_again = False  # whether the file ended in a partial entry at the first look
        self._patience = patience
        self._lock_patience = _Patience(patience)
        self._alone_patience = _Patience(min(patience, _WRITERS_PATIENCE))
        self._reader_patience = _Patience(patience)
        self._rotate_after = 0.0  # as time.monotonic counts

    @property
    def is_stream(self) -> bool:
        """Whether the target takes an entry in pieces: a pipe, socket, terminal or device."""
        if self._is_stream is not None:
            return self._is_stream
        try:  # a signal handler that asks may have interrupted the opening
            return _inherited(self.path) is not None or not _is_file(self.path)
        except OSError:  # a standard stream that was never open: opening it will raise the same
            return False

    def append(self, data: bytes) -> None:
        """Append ``data``, one or several whole entries, with one ``write(2)``.

        Raises:
            OSError: the file cannot be opened or written; ``progress`` says how much was written.
        """
        descriptor = self._append(data)
        if descriptor is None:
            # Many processes that share a small log rotate it faster than this one can reopen it. Nor does this one rotate
            # it for now, so the file may exceed its size by an entry.
            with locks.unmoved(os.path.realpath(self.path), self._patience):
                self._rotate_after = max(self._rotate_after, time.monotonic() + _WRITERS_PATIENCE)
                descriptor = self._append(data)
        if descriptor is None:
            # Reached only on a file system that keeps changing the inode number of the same file.
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), self.path)
        if self._sync and not self._is_stream:  # without a lock: it takes long
            os.fsync(descriptor)

    def _append(self, data: bytes) -> int | None:
        """Append ``data`` and return the descriptor; ``None`` if the file was moved away each time it was opened."""
        for _ in range(_TRIES):
            descriptor = self._open()
            if self._is_stream:
                self._pour(descriptor, data)
                return descriptor
            if self._try_to_append(descriptor, data):
                return descriptor
        return None

    def close(self) -> None:
        """Close the descriptor if it is still ours; the next entry opens the file again."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            close_own(descriptor, self._file)

    # -------------------------------------------------------------- open
    def _open(self) -> int:
        descriptor = self._descriptor
        if descriptor is not None:
            try:  # the application may have closed it, and opened something else under the same number
                if os.path.samestat(os.fstat(descriptor), self._file):
                    return descriptor
            except OSError:
                pass
            self.close()
        number = _inherited(self.path)
        descriptor = above_standard(_open_path(self.path) if number is None else _open_again(number))
        self._descriptor, self._end = descriptor, -1
        self._file = status = os.fstat(descriptor)
        self._is_stream = number is not None or not stat.S_ISREG(status.st_mode)
        if self._sync:
            self._sync_directory()
        return descriptor

    def _sync_directory(self) -> None:
        """Sync the directory, so that the file's name is on disk, not only its content."""
        with contextlib.suppress(OSError):
            directory = os.open(os.path.dirname(self.path), os.O_RDONLY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)

    # -------------------------------------------------------------- a file
    def _try_to_append(self, descriptor: int, data: bytes) -> bool:
        """Write what ``progress`` says is left of ``data``, unless the file has to be opened or looked at again first.

        Return whether all of it is in the file now; if not, the caller calls again.
        """
        try:
            # The writers' lock is shared, so that nobody moves the file; for a second look alone, so that nobody writes.
            # Where there are no locks, or somebody does not let go of theirs, the entry is written without one.
            if not (self._looks_again and self._alone_patience.lock(descriptor, locks.EXCLUSIVE)):
                self._lock_patience.lock(descriptor, locks.SHARED)
            status = self._status(descriptor)
            if status is None:  # moved or deleted
                self.close()
                return False
            size, more = status.st_size, len(data) - self.progress
            if self._max_bytes and self._is_full(size, more) and time.monotonic() >= self._rotate_after:
                self._rotate(descriptor, more)
                return False
            prefix = b"" if size in (self._end, 0) else _fresh_line(descriptor, size)
            if prefix and not self._looks_again:
                # Half an entry at the end is of a process that was killed, or that is still writing, as a file grows
                # page by page. Only if it is still there when nobody is writing, begin on a fresh line.
                self._looks_again = True
                return False
            self._looks_again = False
            return self._write(descriptor, data, prefix, size)
        finally:  # whether the lock was acquired or not: a signal handler may have raised before that was known
            if self._descriptor is not None:
                locks.unlock(descriptor)

    def _status(self, descriptor: int) -> os.stat_result | None:
        """Return the status of the open file; ``None`` if ``path`` no longer leads to it, and it must be reopened."""
        try:
            status = os.stat(self.path)
        except PermissionError:  # the process may no longer search the directory
            status = os.fstat(descriptor)
            if not status.st_nlink:  # what is written to a deleted file is lost
                return None
        except OSError:
            return None
        return status if os.path.samestat(status, self._file) else None

    def _write(self, descriptor: int, data: bytes, prefix: bytes, size: int) -> bool:
        """Write ``prefix`` and the rest of ``data`` to a file of ``size`` bytes; return whether all of it was taken."""
        rest = prefix + data[self.progress :] if prefix or self.progress else data
        self._written = 0
        try:
            self._put(descriptor, rest)
        finally:  # of a partial write only whole entries count: the next try repeats the one that was cut
            if self._written == len(rest):
                self.progress = len(data)
            elif (last := rest.rfind(END, 0, self._written)) >= 0:
                self.progress += last + len(END) - len(prefix)
        if self._written < len(rest):
            return False
        self._end = size + len(rest)
        return True

    def _put(self, descriptor: int, rest: bytes) -> None:
        """Write ``rest``, and count in ``_written`` what the file has taken, also when this raises."""
        position = os.lseek(descriptor, 0, os.SEEK_CUR)
        try:
            self._written = os.write(descriptor, rest)
            if self._written < len(rest):
                self._put_pieces(descriptor, rest)
        except BaseException:
            # A signal handler may raise between the system call and the assignment of its result. Then only the
            # position, which nobody else moves, tells that something was written: nearly always all of it.
            if not self._written and os.lseek(descriptor, 0, os.SEEK_CUR) != position:
                self._written = len(rest)
            raise

    def _put_pieces(self, descriptor: int, rest: bytes) -> None:
        """Write the rest after a partial write, but only while nobody else has appended anything."""
        self._lock_patience.lock(descriptor, locks.EXCLUSIVE)  # keeps others from writing between the pieces
        while self._written < len(rest) and os.lseek(descriptor, 0, os.SEEK_CUR) == _size(descriptor):
            self._written += os.write(descriptor, rest[self._written :])

    # -------------------------------------------------------------- rotation
    def _is_full(self, size: int, more: int) -> bool:
        return size > 0 and size + more > self._max_bytes

    def _rotate(self, descriptor: int, more: int) -> None:
        """Move the file aside unless another process just has; if that fails, the file keeps growing."""
        try:
            if not self._move(descriptor, more):
                self._rotate_after = time.monotonic() + _WRITERS_PATIENCE
        except OSError as error:
            self._rotate_after = time.monotonic() + _ROTATION_PAUSE
            self.rotation_error = error
        finally:
            self.close()

    def _move(self, descriptor: int, more: int) -> bool:
        """Return whether the file was moved aside, by this process or another; False if a lock was not acquired."""
        path = os.path.realpath(self.path)
        with locks.locked(descriptor, locks.EXCLUSIVE, _WRITERS_PATIENCE) as alone:
            if not alone:
                return False
            with locks.locked_directory_of(path, locks.EXCLUSIVE, _WRITERS_PATIENCE) as held:
                if held and is_same_file(path, descriptor) and self._is_full(_size(descriptor), more):
                    rotation.rotate(path, self._backups)
                    self.has_rotated = True
                return held

    # -------------------------------------------------------------- a pipe, terminal or device
    def _pour(self, descriptor: int, data: bytes) -> None:
        """Write to a target that may take the data in pieces and cannot be inspected afterwards."""
        rest = memoryview(b"\n\n" + data if self._torn else data)
        # A pipe that is nearly full takes a part of an entry, and no other process may write before the rest of it. Only
        # a FIFO is locked: what else this writes to may be a duplicate, which shares its lock with the application's.
        is_fifo = stat.S_ISFIFO(self._file.st_mode)
        try:
            if is_fifo:
                self._lock_patience.lock(descriptor, locks.EXCLUSIVE)
            while rest:
                try:
                    written = os.write(descriptor, rest)
                except BlockingIOError:
                    if not self._reader_patience.await_room(descriptor):
                        raise
                else:
                    rest = rest[written:]
                    self._torn = True
        finally:
            if is_fifo:
                locks.unlock(descriptor)
        self._torn = False
        self.progress = len(data)


class _Patience:
    """How long to wait for other processes: not at all after a wait in vain, until they are ready at once.

    So one that hangs, or is stopped, delays one entry and not every one.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = self._most = seconds

    def lock(self, descriptor: int, kind: int) -> bool:
        """Return whether the lock was acquired in time."""
        locked = locks.lock(descriptor, kind, self.seconds)
        self.seconds = self._most if locked else 0.0
        return locked

    def await_room(self, descriptor: int) -> bool:
        """Return whether a full pipe takes more in time."""
        poll = select.poll()
        poll.register(descriptor, select.POLLOUT)
        ready = bool(poll.poll(self.seconds * 1000))
        self.seconds = self._most if ready else 0.0
        return ready


def _inherited(path: str) -> int | None:
    """Return the number of the descriptor that ``path`` names or links to, if it does."""
    for _ in range(40):  # as many links in a row as Linux follows
        number = inherited(path, "stdout", "stderr")
        if number is not None:
            return number
        try:
            path = os.path.join(os.path.dirname(path), os.readlink(path))
        except OSError:
            return None
    return None


def _is_file(path: str) -> bool:
    """Return whether ``path`` is a file, or nothing yet."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except OSError:
        return True


def _open_again(number: int) -> int:
    # A pipe is opened anew, so that O_NONBLOCK and the lock are ours alone, not those of every process that shares it.
    if stat.S_ISFIFO(os.fstat(number).st_mode):
        with contextlib.suppress(OSError):
            return os.open(f"/proc/self/fd/{number}", os.O_WRONLY | os.O_NONBLOCK)
    # Duplicated, not opened: our entries then share one file position with what the application prints to a
    # redirected file, and a socket could not be opened at all.
    return fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, 3)


def _open_path(path: str) -> int:
    # O_NONBLOCK: opening a FIFO that nobody reads would block.
    flags = os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_NOCTTY
    if _is_file(path):
        with contextlib.suppress(PermissionError):  # it is read to see how it ends, which may be forbidden
            return os.open(path, flags | os.O_RDWR, 0o600)
    return os.open(path, flags | os.O_WRONLY, 0o600)


def _size(descriptor: int) -> int:
    return os.fstat(descriptor).st_size


def _fresh_line(descriptor: int, size: int) -> bytes:
    """Return the line breaks that are needed for the next entry to follow an empty line."""
    try:
        end = os.pread(descriptor, 2, max(0, size - 2))
    except OSError:  # opened for writing only
        return b""
    return b"" if end == b"\n\n" else b"\n" if end.endswith(b"\n") else b"\n\n"
