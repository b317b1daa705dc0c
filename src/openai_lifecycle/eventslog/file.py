"""The file that entries go to: shared by threads, reentrant, and never raising ``OSError``.

An entry that cannot be written goes to stderr, so it is not lost; it is counted, and one warning says why.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import sys
import threading
import time
from collections import deque
from typing import Final

from openai_lifecycle import losses, semconv
from openai_lifecycle.eventslog import rotation
from openai_lifecycle.eventslog.appender import Appender
from openai_lifecycle.eventslog.buffer import BATCH, Buffer
from openai_lifecycle.options import Options
from openai_lifecycle.shield import SHIELD
from openai_lifecycle.threads import Locked

_logger = logging.getLogger(__name__)

# Reopening may help against these, but not against a full disk.
_REOPEN: Final = frozenset({errno.EBADF, errno.EIO, errno.ENODEV, errno.EPIPE, errno.ESTALE})
_QUIET: Final = 60.0  # seconds between two warnings about one file
_PATIENCE: Final = 1.0  # seconds to wait for a lock, or for the reader of a full pipe


class EventsFile(Locked):
    """Writes entries to ``options.events_log``, as safely as ``options.durability`` asks for."""

    def __init__(self, options: Options) -> None:
        self.path = absolute(options.events_log or "")
        self._options = options
        self._failures = 0  # entries sent to stderr since the last successful write
        self._quiet_until = 0.0
        # A batch is one write, so it must be small compared to the rotation size.
        batch = max(1, min(BATCH, options.max_bytes // 4)) if options.max_bytes else BATCH
        self._buffer = Buffer(self._write, batch) if options.durability == "buffered" else None
        self._reset()
        super().__init__()  # at last: from now on, a fork resets what is set above

    def _new_appender(self, *, inner: bool = False) -> Appender:
        """Return an appender; an ``inner`` one is for a moment when this thread is in the middle of using the other."""
        options = self._options
        return Appender(
            self.path,
            max_bytes=0 if inner else options.max_bytes,
            backups=options.backups,
            sync=options.durability == "fsync",
            patience=0.0 if inner else _PATIENCE,  # the other one may hold the lock
        )

    def _reset(self) -> None:
        self._busy = False  # whether the thread that holds the lock is writing
        self._waiting: deque[bytes] = deque()  # entries that interrupted a write to a pipe
        self._lost: list[tuple[bytes, OSError]] = []  # entries on their way to stderr
        self._appender = self._new_appender()

    def after_fork(self) -> None:
        """Reset in a child process: interrupted writes continue in the parent.

        Closes the descriptor, because parent and child would otherwise share one lock on the file.
        """
        super().after_fork()
        self._appender.close()
        self._reset()

    def write(self, *entries: str) -> None:
        """Append ``entries``; with ``durability`` other than ``buffered`` they are in the file on return."""
        # A deque, because taking the first of a list moves all others.
        data = deque([entry.encode() for entry in entries])
        if self._buffer is None:
            self._write(data)
        else:
            for entry in data:
                self._buffer.put(entry)

    def flush(self, timeout: float) -> bool:
        """Return whether everything written so far reached the file within ``timeout`` seconds."""
        return self._buffer is None or self._buffer.flush(timeout)

    def close(self) -> None:
        """Write what is buffered and close the file; a later entry opens it again and is written at once."""
        if self._buffer is not None:
            self._buffer.close()
        with self.lock:
            if not self._busy:
                if self._waiting:  # the handler that put them there has raised
                    self._write(self._waiting)
                self._appender.close()

    # -------------------------------------------------------------- one writer at a time
    def _write(self, entries: deque[bytes]) -> None:
        """Write ``entries`` and remove each from the deque once it is written, so that an interruption loses none."""
        # This thread may already hold the lock: the finalizer of an abandoned stream runs at any allocation, a signal
        # handler between any two lines, and either may end a call.
        with self.lock:
            if self._busy:
                self._write_in_between(entries)
                return
            self._busy = True
            try:
                self._append(self._appender, entries)
                while self._waiting:
                    self._append(self._appender, self._waiting)
            finally:
                self._busy = False
        # Logging, stderr and metrics have locks of their own: take none of them while holding ours.
        if self._lost or self._failures or self._appender.has_rotated or self._appender.rotation_error:
            with SHIELD:
                self._follow_up()

    def _write_in_between(self, entries: deque[bytes]) -> None:
        """Write ``entries`` of a call that ended while this very thread was writing others, which it does later."""
        if self._appender.is_stream:  # the rest of the interrupted entry has to come first
            self._waiting.extend(entries)
            entries.clear()
            return
        with contextlib.closing(self._new_appender(inner=True)) as appender:
            self._append(appender, entries)

    def _append(self, appender: Appender, entries: deque[bytes]) -> None:
        """Append ``entries`` together, and then one by one what is left of them; those that cannot be written are lost."""
        data = b"".join(entries)
        # Not together into a pipe, which when nearly full takes some of them and a part of one, nor into a file that
        # must not become so large.
        if appender.is_stream or 0 < self._options.max_bytes < len(data):
            data = entries[0]
        may_reopen = True
        while entries:
            appender.progress = 0  # beforehand: afterwards, a signal handler may raise first
            try:
                try:
                    appender.append(data)
                finally:  # also when a signal handler raises: only the rest must be written again
                    taken = _take(entries, appender.progress)
            except OSError as error:
                appender.close()
                if appender.progress == len(data):  # they are in the file, but it could not be synced
                    self._lost += [(entry, error) for entry in taken]
                elif may_reopen and error.errno in _REOPEN:
                    may_reopen = False
                else:
                    self._lost.append((entries.popleft(), error))
            data = entries[0] if entries else b""

    # -------------------------------------------------------------- what went wrong, and what follows a rotation
    def _follow_up(self) -> None:
        """Report what went wrong, send lost entries to stderr, and compress what was rotated."""
        with self.lock:
            lost, self._lost = self._lost, []
        if lost:
            self._failures += len(lost)
            try:  # the explanation comes before the entries
                with SHIELD:
                    self._count(lost)
                self._warn(lost[-1][1], "cannot be written; its entries go to stderr for now")
            finally:
                for entry, _ in lost:
                    _to_stderr(entry)
        elif self._failures:
            failures, self._failures = self._failures, 0
            self._quiet_until = 0.0
            _logger.warning("%s can be written again; %d entries went to stderr", self.path, failures)
        appender = self._appender
        if appender.rotation_error is not None:
            error, appender.rotation_error = appender.rotation_error, None
            self._warn(error, "cannot be rotated and keeps growing")
        if appender.has_rotated:
            appender.has_rotated = False
            if self._options.compress:
                # No more threads, or the interpreter is shutting down: the next rotation's thread does it.
                with contextlib.suppress(RuntimeError):
                    threading.Thread(target=self._compress, name="events.log gzip", daemon=True).start()

    def _count(self, lost: list[tuple[bytes, OSError]]) -> None:
        counter = losses.counter(self._options.meter_provider)
        for _, error in lost:
            counter.add(1, {semconv.ERROR_TYPE: errno.errorcode.get(error.errno or 0, type(error).__name__)})

    def _warn(self, error: OSError, what: str) -> None:
        now = time.monotonic()
        if now >= self._quiet_until:
            self._quiet_until = now + _QUIET
            _logger.warning("%s %s: %s", self.path, what, error.strerror or error)

    def _compress(self) -> None:
        with SHIELD:
            try:
                rotation.compress(os.path.realpath(self.path))
            except OSError as error:
                self._warn(error, "has a rotated file that cannot be compressed")


def absolute(path: str) -> str:
    """Return the absolute path; ``path`` as it is where the working directory has been deleted."""
    try:
        return os.path.abspath(path)
    except FileNotFoundError:
        return path


def _take(entries: deque[bytes], written: int) -> list[bytes]:
    """Remove the entries that the first ``written`` bytes hold, and return them."""
    taken: list[bytes] = []
    while entries and written >= len(entries[0]):
        taken.append(entries.popleft())
        written -= len(taken[-1])
    return taken


def _to_stderr(entry: bytes) -> None:
    try:
        sys.stderr.write(entry.decode())
        sys.stderr.flush()
    except Exception:  # noqa: BLE001, S110 - stderr may be None, closed, full or any object; there is nowhere else
        pass
