"""One API call, from its request to the last byte read. It ends exactly once.

Telemetry never awaits, so one plain object serves sync and async; only the drivers of a stream, :func:`observe` and
:func:`aobserve`, come as a pair of a few lines each.
"""

from __future__ import annotations

import contextlib
import os
import sys
import weakref
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from time import perf_counter
from types import CodeType, TracebackType
from typing import Any, ClassVar, Final, Protocol, TypeVar

from opentelemetry import context, trace

from openai_lifecycle.capture import contexts
from openai_lifecycle.capture.facts import Operation, Reply, Request
from openai_lifecycle.shield import SHIELD

_T = TypeVar("_T")

#: Calls that have not ended. Removing a call from this set is what ends it: whoever removes it records it.
_open: set[Call] = set()
#: Calls that were abandoned when it was not safe to record that, and the error of each.
_abandoned: deque[tuple[Call, BaseException | None]] = deque()
#: Key of the current context: the call whose request is being made.
_CURRENT: Final = context.create_key("openai-lifecycle-call")


class CallRecord(Protocol):
    """Records a call: a span and what belongs to it (``recorder.py``)."""

    span: trace.Span
    #: False when nothing of the call will be recorded, so none of it needs to be read.
    reads: ClassVar[bool]

    def response(self, response: Any) -> None:
        """Record the HTTP response's status and headers."""

    def retry(self, cause: str, delay: float) -> None:
        """Record that the client retries in ``delay`` seconds because of ``cause``."""

    def carried(self, credentials: tuple[str, ...]) -> None:
        """Note credentials that were found in the request's headers: nothing recorded may show them."""

    def finish(self, call: Call, error: BaseException | None) -> None:
        """Record the end."""


class Call:
    """One API call. As a context manager around the client's ``request``, it makes the span current and sees errors."""

    __slots__ = (
        "__weakref__",
        "_source",
        "_token",
        "_watched",
        "answered",
        "chunks",
        "context",
        "deferred",
        "first_chunk",
        "last_chunk",
        "operation",
        "recording",
        "reply",
        "request",
        "retries",
        "started",
        "streaming",
    )

    def __init__(self, operation: Operation, request: Request, reply: Reply, recording: CallRecord) -> None:
        self.operation = operation
        self.request = request
        self.reply = reply
        self.recording = recording
        #: The caller's context with the call's span as the current one.
        self.context = trace.set_span_in_context(recording.span)
        self.started = perf_counter()
        self.first_chunk = self.last_chunk = 0.0
        self.chunks = self.retries = 0
        #: The facts of a whole response have been read.
        self.answered = False
        #: The call goes on after ``request`` has returned: its body is read later.
        self.deferred = False
        #: A ``Stream`` object delivers the chunks.
        self.streaming = False
        self._source: Callable[[], Any] = _nothing
        self._watched: Any = None
        _open.add(self)

    # -------------------------------------------------------------- request
    def __enter__(self) -> None:
        # Not part of ``self.context``: the call would reference itself.
        self._token = contexts.attach(context.set_value(_CURRENT, self, self.context))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if kind is GeneratorExit or (error is not None and isinstance(error.__context__, GeneratorExit)):
            # The coroutine was destroyed before it was done. That can happen anywhere, so mostly in another context
            # than the token's. At the end of the process the client's ``except`` replaces the GeneratorExit by an error
            # of its own: it fails to import the classes that it catches (openai 3.57, ``_httpx2.py``,
            # ``request_exceptions``).
            if trace.get_current_span() is self.recording.span:
                contexts.detach(self._token)
            self.abandon(error)
            return
        contexts.detach(self._token)
        if error is not None:
            self.end(error)
        elif not self.deferred:
            self.end()

    # -------------------------------------------------------------- response
    def responded(self, response: Any, *, retries: int) -> None:
        """Note the HTTP response."""
        self.retries = max(self.retries, retries)
        self.recording.response(response)

    def watch(self, source: Any, dropped: Callable[[], None]) -> None:
        """Call ``dropped`` if ``source``, what the call is read from, is collected while the call is open.

        Only a weak reference is kept: a strong one would keep an abandoned response alive.
        """
        self._watched = weakref.ref(source, lambda _: dropped())

    def retried(self, cause: str, delay: float) -> None:
        """Note that the client retries in ``delay`` seconds."""
        self.retries += 1
        self.recording.retry(cause, delay)

    def parsed(self, value: Any) -> None:
        """Read the facts of a whole response: one of the client's models, or JSON."""
        if not self.answered:
            self.answered = True
            self.operation.response(self.reply, value)

    def stream(self, stream: Any) -> None:
        """Observe ``stream``, one of the client's ``Stream`` objects, by replacing its ``_iterator``.

        ``__next__`` and ``__iter__`` read nothing else (``openai/_streaming.py``).
        """
        self.streaming = True
        driver = aobserve if hasattr(stream, "__anext__") else observe
        stream._iterator = driver(self.follow(stream._iterator), self, self.chunk)

    def chunk(self, chunk: Any) -> None:
        """Read one chunk."""
        self.last_chunk = perf_counter()
        if not self.chunks:
            self.first_chunk = self.last_chunk
        self.chunks += 1
        self.operation.chunk(self.reply, chunk)

    def follow(self, source: _T) -> _T:
        """Remember ``source``, the generator being read, by a weak reference; return it. See :meth:`closed`."""
        try:
            self._source = weakref.ref(source)
        except TypeError:  # the application's own iterator
            self._source = _nothing
        return source

    @property
    def is_read_by_stream(self) -> bool:
        """Whether the client's ``Stream`` is reading the response just now, so that its chunks are seen."""
        return self.streaming and self._is_running() is not False

    def closed(self) -> None:
        """End the call, whose response was closed, if it was the application that did so.

        A stream closes its response too, when it is exhausted or fails. Its generator is running then, and
        :func:`observe` ends the call.
        """
        if not self._is_running():
            self.abandon()  # the garbage collector may be closing it, with the stream's generator

    def _is_running(self) -> bool | None:
        """Whether the generator being read is running; ``None`` if there is none, or another kind of iterator."""
        source = self._source()
        running: bool | None = getattr(source, "gi_running", getattr(source, "ag_running", None))
        return running

    # -------------------------------------------------------------- end
    @property
    def ongoing(self) -> bool:
        """Whether the call has not ended."""
        return self in _open

    def end(self, error: BaseException | None = None) -> None:
        """Record the end, success or the error that the application gets, unless the call has ended already."""
        self._end(error)
        if _abandoned:
            end_abandoned()

    def _end(self, error: BaseException | None) -> None:
        try:
            _open.remove(self)
        except KeyError:
            return
        with SHIELD:
            self.recording.finish(self, error)

    def abandon(self, error: BaseException | None = None) -> None:
        """:meth:`end` a call that nobody reads to its end, now or, if this is no safe moment, with the next that ends.

        The garbage collector may call this in any allocation, even one inside the SDK or this package while this thread
        holds one of their locks, which recording the end needs too.
        """
        if not self.ongoing:
            return
        if _holding_locks():
            _abandoned.append((self, error))
        else:
            self.end(error)


def current() -> Call | None:
    """Return the call whose request is being made in this context, ``None`` if there is none."""
    call = context.get_value(_CURRENT)
    return call if isinstance(call, Call) and call.ongoing else None


def end_abandoned() -> None:
    """End the calls that could not be ended when they were abandoned."""
    with contextlib.suppress(IndexError):  # several threads may empty it
        while True:
            call, error = _abandoned.popleft()
            call._end(error)


def end_all() -> None:
    """End every call that is still open, because the process ends."""
    # Not a tuple: making one may start a garbage collection, which ends abandoned calls during the iteration.
    for call in _open.copy():
        call.end(None if call.deferred else SystemExit("the process ended during the call"))


#: Packages whose code may hold a lock that recording needs, each with a dot at its end.
_LOCKING_MODULES: Final = ("opentelemetry.sdk.", "opentelemetry.exporter.", "openai_lifecycle.eventslog.")
#: The code of other methods that may hold one: ``pipeline.py`` adds those of the application's span processors. It does
#: not add their modules, because one may be the application's main module, which every call is made from.
LOCKING_CODE: Final[set[CodeType]] = set()


def _holding_locks() -> bool:
    """Whether this thread may hold such a lock: it is executing code of those packages or methods."""
    frame = sys._getframe(2)
    while frame is not None:
        if frame.f_code in LOCKING_CODE or f"{frame.f_globals.get('__name__', '')}.".startswith(
            _LOCKING_MODULES
        ):
            return True
        frame = frame.f_back  # type: ignore[assignment]
    return False


def _forget_calls_of_the_parent() -> None:
    _open.clear()
    _abandoned.clear()


# A forked child inherits the parent's open calls; the parent is the one to end them.
os.register_at_fork(after_in_child=_forget_calls_of_the_parent)


def _nothing() -> None:
    return None


# ------------------------------------------------------------------ drivers
class _Reading:
    """Tells ``call`` how reading a body ends: exhausted, failed, or abandoned."""

    def __init__(self, call: Call, finish: Callable[[], None]) -> None:
        self._call = call
        self._finish = finish

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if kind is GeneratorExit:
            self._call.abandon()
        elif error is not None:
            self._call.end(error)
        else:
            with SHIELD:
                self._finish()
            self._call.end()


def observe(
    source: Iterator[_T], call: Call, take: Callable[[_T], None], finish: Callable[[], None] = _nothing
) -> Iterator[_T]:
    """Yield from ``source``; pass each item to ``take``, call ``finish`` on exhaustion, then end ``call``."""
    with _Reading(call, finish):
        for item in source:
            try:
                take(item)
            except Exception as error:  # noqa: BLE001 - "with SHIELD", without its two calls for every chunk
                SHIELD.swallow(error)
            yield item


async def aobserve(
    source: AsyncIterator[_T], call: Call, take: Callable[[_T], None], finish: Callable[[], None] = _nothing
) -> AsyncIterator[_T]:
    """Yield from ``source``, as :func:`observe` does."""
    with _Reading(call, finish):
        async for item in source:
            try:
                take(item)
            except Exception as error:  # noqa: BLE001 - "with SHIELD", without its two calls for every chunk
                SHIELD.swallow(error)
            yield item
