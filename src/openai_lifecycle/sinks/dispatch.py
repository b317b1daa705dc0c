"""One thread and one bounded queue for each sink, so that nobody waits for it.

Events that a sink cannot take now wait in its queue and are retried after a growing pause. Events that are lost (the
queue is full, the sink refused or failed for too long, time was up at exit) are counted in the metric
``openai_lifecycle.events.lost`` and reported, at most once a minute.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import deque
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from opentelemetry.instrumentation.utils import suppress_instrumentation

from openai_lifecycle import ending, losses, threads
from openai_lifecycle.events import LifecycleEvent
from openai_lifecycle.shield import SHIELD
from openai_lifecycle.sinks import Destination, EventSink, Rejected, SinkError, Unavailable

_logger = logging.getLogger(__name__)

QUEUE: Final = 10_000  # events that wait for a sink
BATCH: Final = 200  # events in one write
_LINGER: Final = 0.2  # seconds that a batch waits to grow
_FIRST_PAUSE: Final = 0.5  # seconds before the second try; doubles
_LONGEST_PAUSE: Final = 30.0
_PATIENCE: Final = 300.0  # seconds until a batch that keeps failing is given up
_EXIT: Final = 5.0  # seconds that closing may take
_REPORT: Final = 60.0  # seconds between two reports of one sink


class Dispatcher:
    """Hands events to every destination, each in a thread of its own."""

    def __init__(self, destinations: Iterable[Destination], meter_provider: Any = None) -> None:
        self._workers = [_Worker(destination, meter_provider) for destination in destinations]
        self._puts = 0  # calls of ``put`` that the main thread is in
        ending.register(self)

    def put(self, event: LifecycleEvent) -> None:
        """Queue ``event`` for every destination; never blocks."""
        # Signal handlers interrupt only the main thread.
        if threading.current_thread() is not threading.main_thread():
            self._put(event)
            return
        self._puts += 1
        try:
            self._put(event)
        finally:
            self._puts -= 1
            ending.resume()

    def _put(self, event: LifecycleEvent) -> None:
        for worker in self._workers:
            worker.put(event)

    def flush(self, timeout: float) -> bool:
        """Return whether everything put so far was taken or given up within ``timeout`` seconds."""
        deadline = time.monotonic() + timeout
        for worker in self._workers:  # all at once
            worker.ask()
        return all(worker.wait(deadline) for worker in self._workers)

    def close(self, timeout: float = _EXIT) -> None:
        """Flush and close every sink within ``timeout`` seconds; a later ``put`` opens them again."""
        deadline = time.monotonic() + timeout
        for worker in self._workers:
            worker.stop()
        for worker in self._workers:
            worker.join(deadline)

    def save(self, timeout: float) -> None:
        """Close: the process is about to end."""
        self.close(timeout)

    def is_interrupted(self) -> bool:
        """Return whether the calling signal handler interrupted ``put``: the sinks' threads need the lock it holds."""
        return self._puts > 0

    def after_fork(self) -> None:
        """Reset in a child process: the queued events and the connections belong to the parent."""
        for worker in self._workers:
            worker.after_fork()


class _Worker:
    """One sink, its queue, and the thread that empties it."""

    def __init__(self, destination: Destination, meter_provider: Any) -> None:
        self._destination = destination
        self._meter_provider = meter_provider
        # Sinks of the parent process. They are kept, because a sink that is dropped may close a connection that the
        # parent still uses.
        self._kept: list[EventSink | None] = []
        self._sink: EventSink | None = None  # only the thread uses it
        self._reset()

    def _reset(self) -> None:
        self._changed = threading.Condition()
        self._of_greenlets = threads.are_greenlets()
        self._queue: deque[LifecycleEvent] = deque()
        self._in_hand = 0  # events taken out of the queue and not settled yet
        self._hurry = False  # somebody waits: no lingering
        self._thread: threading.Thread | None = None
        self._ends = False  # the thread is to end when the queue is empty
        self._hangs = False  # the thread did not end in time, and what it has in hand was given up
        self._losses = _Losses(self._destination.name, self._meter_provider)

    def after_fork(self) -> None:
        self._kept.append(self._sink)
        self._sink = None
        self._reset()

    # -------------------------------------------------------------- the application's side
    def put(self, event: LifecycleEvent) -> None:
        lost, reason = 0, ""
        if self._thread is None and self._of_greenlets != threads.are_greenlets():
            self._reset()  # nothing is queued without a thread
        with self._changed:
            if len(self._queue) + self._in_hand >= QUEUE:
                lost, reason = 1, "the queue is full"
            else:
                self._queue.append(event)
                if self._thread is None and not self._start():
                    lost, reason = len(self._queue), "the process is ending"
                    self._queue.clear()
                self._changed.notify_all()
        self._losses.add(lost, reason)  # without the lock: metrics and logging have their own

    def _start(self) -> bool:
        """Return whether the thread could be started."""
        ending.prepare()
        self._ends = self._hangs = False
        thread = threading.Thread(target=self._run, name=f"sink {self._destination.name}", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the interpreter is shutting down
            return False
        self._thread = thread
        return True

    def ask(self) -> None:
        with self._changed:
            self._hurry = self._thread is not None and not self._hangs
            self._changed.notify_all()

    def wait(self, deadline: float) -> bool:
        with self._changed:
            return self._changed.wait_for(self._idle, max(0.0, deadline - time.monotonic()))

    def _idle(self) -> bool:
        return self._thread is None or not (self._queue or self._in_hand or self._hurry)

    def stop(self) -> None:
        with self._changed:
            self._ends = True
            self._changed.notify_all()

    def join(self, deadline: float) -> None:
        left, thread = 0, self._thread
        if thread is not None:
            if not self._hangs:  # else it has had its time
                thread.join(max(0.0, deadline - time.monotonic()))
            with self._changed:
                if self._thread is thread:  # it hangs: give up its events; what comes later waits for it
                    left = len(self._queue) + self._in_hand
                    self._queue.clear()
                    self._in_hand = 0
                    self._hurry = False
                    self._hangs = True
                    self._changed.notify_all()
        self._losses.add(left, "time was up")
        self._losses.report()

    # -------------------------------------------------------------- the thread's side
    def _run(self) -> None:
        with suppress_instrumentation():
            while True:
                if batch := self._next():
                    self._deliver(batch)
                elif self._finish():
                    return

    def _next(self) -> list[LifecycleEvent]:
        """Wait for events and return the next batch; an empty one if there are none and somebody waits for that."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._hurry or self._ends)
            if self._queue:
                self._changed.wait_for(
                    lambda: len(self._queue) >= BATCH or self._hurry or self._ends, timeout=_LINGER
                )
            batch = [self._queue.popleft() for _ in range(min(BATCH, len(self._queue)))]
            self._in_hand = len(batch)
            self._hangs = False
            return batch

    def _finish(self) -> bool:
        """Flush the sink, and close it if the thread is to end; return whether it must end now."""
        ends = self._ends  # read once: if it is asked later, it has to come here again
        self._call("flush")
        if ends:
            self._call("close")
        with self._changed:
            if self._queue:  # events came meanwhile
                return False
            self._hurry = False
            self._changed.notify_all()
            if ends:
                self._thread = None
            return ends

    def _deliver(self, batch: list[LifecycleEvent]) -> None:
        """Write ``batch``, again and again until the sink has taken it or it counts as lost.

        If the sink rejects it, its halves are written instead, so that one bad event does not lose the others.
        """
        pause, deadline = _FIRST_PAUSE, time.monotonic() + _PATIENCE
        while (failure := self._try_to_write(batch)) is not None:
            if failure.is_divisible and len(batch) > 1:
                middle = len(batch) // 2
                self._deliver(batch[:middle])
                self._deliver(batch[middle:])
                return
            if failure.is_final or self._ends or time.monotonic() > deadline:
                if self._settle(len(batch)):
                    self._losses.add(len(batch), failure.reason)
                return
            pause = max(pause, failure.after)
            # At random, so that processes spread out; from the system, because the application may seed ``random``.
            self._pause(pause * random.SystemRandom().uniform(1.0, 1.4))
            pause = min(pause * 2, _LONGEST_PAUSE)
        self._settle(len(batch))

    def _try_to_write(self, batch: list[LifecycleEvent]) -> _Failure | None:
        """Write ``batch``, and return what went wrong, if anything."""
        try:
            if self._sink is None:
                self._sink = self._destination.open()
            self._sink.write(batch)
        except BaseException as error:  # noqa: BLE001 - a sink may raise anything, CancelledError too; the thread must live
            with SHIELD:  # a subclass of our errors may lack what they have
                return _Failure.of(error)
            return _Failure(type(error).__name__)
        return None

    def _settle(self, count: int) -> bool:
        """Release ``count`` events in hand; return False if they were given up, because ``join`` has then counted them."""
        with self._changed:
            if self._hangs:
                return False
            self._in_hand -= count
            self._changed.notify_all()
        return True

    def _pause(self, seconds: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._ends, timeout=min(seconds, _PATIENCE))

    def _call(self, method: str) -> None:
        if self._sink is not None:
            try:
                getattr(self._sink, method)()
            except BaseException as error:  # noqa: BLE001 - as above
                with SHIELD:
                    _logger.warning(
                        "sink %s: %s failed: %s", self._destination.name, method, _described(error)
                    )


class _Failure(NamedTuple):
    """What a worker has to know of an exception of its sink.

    The exception itself is not kept during a pause: it would hold all local variables of the sink, and what these hold.
    """

    reason: str
    is_final: bool = False  # the sink has rejected the batch
    is_divisible: bool = False  # perhaps because of one event, so that it may take others
    after: float = 0.0  # how many seconds it asks to wait

    @classmethod
    def of(cls, error: BaseException) -> _Failure:
        is_rejected = isinstance(error, Rejected)
        is_divisible = isinstance(error, Rejected) and not error.permanent
        after = error.after if isinstance(error, Unavailable) else None
        return cls(_described(error), is_rejected, is_divisible, float(after or 0.0))


class _Losses:
    """Counts the events that a sink has lost, and reports them at most once a minute."""

    def __init__(self, sink: str, meter_provider: Any) -> None:
        self._sink = sink
        self._meter_provider = meter_provider
        self._unreported = 0
        self._reason = ""  # of the latest
        self._report_after = 0.0

    def add(self, count: int, reason: str) -> None:
        """Count ``count`` events, which may be 0."""
        if count:
            self._unreported += count
            self._reason = reason
            with SHIELD:
                losses.counter(self._meter_provider).add(count, {"sink": self._sink})
            if time.monotonic() >= self._report_after:
                self.report()

    def report(self) -> None:
        """Report what was not reported yet."""
        count, self._unreported = self._unreported, 0
        if count:
            self._report_after = time.monotonic() + _REPORT
            what = "event" if count == 1 else "events"
            with SHIELD:  # the application's log handler may raise
                _logger.error("sink %s: %d %s lost: %s", self._sink, count, what, self._reason)


def _described(error: BaseException) -> str:
    """Return a description of ``error`` that quotes no prompt: only texts of our and the system's errors."""
    if isinstance(error, SinkError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return f"{type(error).__name__}: {error.strerror}"
    return type(error).__name__
