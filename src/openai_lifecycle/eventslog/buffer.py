"""The queue of entries in ``buffered`` mode, and the thread that writes them to the file.

The queue is bounded: when it is full, the thread that adds an entry writes what is queued, so entries are delayed
but never dropped. It is flushed on request and when the process ends (``ending.py``).
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable
from typing import Final

from openai_lifecycle import ending, threads
from openai_lifecycle.shield import SHIELD

_LIMIT: Final = 4096  # entries that may be queued
BATCH: Final = 256 * 1024  # bytes in one write


class Buffer:
    """A bounded queue of entries and the thread that empties it.

    ``write`` gets entries in the order they were put, and pops finished ones from the left of the deque. Only one
    thread calls it at a time. A call gets as many entries as it takes to reach ``batch`` bytes.
    """

    def __init__(self, write: Callable[[deque[bytes]], None], batch: int = BATCH) -> None:
        self._write = write
        self._batch = batch
        self._reset()
        ending.register(self)

    def _reset(self) -> None:
        """Start with an empty queue and no thread."""
        self._entries: deque[bytes] = deque()
        self._pending: deque[bytes] = deque()  # the batch being written
        # A finalizer or a signal handler may end a call and so re-enter this code in the same thread. A plain lock,
        # including the one inside threading.Event, would deadlock. RLock, deque and SimpleQueue are reentrant.
        self._lock = threading.RLock()
        self._wake: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._of_greenlets = threads.are_greenlets()
        self._awake = False  # whether the thread was told to write and has not begun
        self._writer: int | None = None  # the thread that is writing, by its ident
        self._closed = False
        self._thread: threading.Thread | None = None

    def put(self, entry: bytes) -> None:
        """Add ``entry``; blocks only to write when the queue is full."""
        if self._thread is None and self._of_greenlets != threads.are_greenlets():
            self._reset()  # nothing is queued without a thread
        self._entries.append(entry)
        if self._closed or len(self._entries) > _LIMIT or not self._ensure_thread():
            self.flush(None)
        elif not self._awake:
            self._awake = True
            self._wake.put("write")

    def flush(self, timeout: float | None) -> bool:
        """Return whether everything put so far was written within ``timeout`` seconds; ``None`` waits for ever."""
        if not self._lock.acquire(timeout=-1 if timeout is None else timeout):
            return False
        try:
            if self._writer is not None:  # this very thread, which a signal handler has interrupted
                return False
            self._empty()
        finally:
            self._lock.release()
        return True

    def save(self, timeout: float) -> None:
        """Write everything, and from now on each entry at once: other threads may still end calls."""
        self._closed = True
        self.flush(timeout)

    def close(self) -> None:
        """Write everything, and from now on each entry at once; end the thread."""
        self._closed = True
        self.flush(None)
        if self._thread is not None:
            self._thread = None
            self._wake.put("stop")

    def after_fork(self) -> None:
        """Reset in a child process: the queue, the thread and the lock holders belong to the parent."""
        self._reset()

    def is_interrupted(self) -> bool:
        """Return whether the calling signal handler has interrupted the writing."""
        return self._writer == threading.get_ident()

    def _empty(self) -> None:
        self._writer = threading.get_ident()
        try:
            while self._entries or self._pending:
                size = 0
                while self._entries and size < self._batch:
                    self._pending.append(self._entries.popleft())
                    size += len(self._pending[-1])
                self._write(self._pending)
        finally:
            self._writer = None
        ending.resume()

    def _ensure_thread(self) -> bool:
        """Start the thread that empties the queue unless it runs; return False if that is impossible."""
        if self._thread is None:
            with self._lock:
                if self._thread is None:
                    ending.prepare()
                    self._thread = threading.Thread(target=self._run, name="events.log", daemon=True)
                    try:
                        self._thread.start()
                    except RuntimeError:  # no more threads, or the interpreter is shutting down
                        self._thread = None
        return self._thread is not None

    def _run(self) -> None:
        while self._wake.get() != "stop":
            self._awake = False
            with SHIELD:
                self.flush(None)
