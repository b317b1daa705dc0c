"""Wraps the client's WebSocket connections: Responses, Realtime and Live.

We observe the socket itself (``websockets``' connection object). Everything the client sends and receives
passes it, even what bypasses the connection classes (``openai/lib/responses_websocket``,
``ResponsesWebSocketLane.send``). A socket is used by sync or by async code, never by both. What its events mean is
in ``sockets.py``.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, TypeAlias

from opentelemetry.instrumentation.utils import is_instrumentation_enabled

from openai_lifecycle.capture import contexts
from openai_lifecycle.capture.credentials import secrets_of
from openai_lifecycle.capture.endpoints import endpoint_of, parse_endpoint
from openai_lifecycle.capture.facts import text
from openai_lifecycle.capture.recorder import Recorder
from openai_lifecycle.capture.sockets import APIS, Api, Peer, Socket
from openai_lifecycle.shield import SHIELD

_connecting: ContextVar[Socket | None] = ContextVar("openai_lifecycle_connecting", default=None)


class WebSockets:
    """The wrappers of the connection classes; they do nothing unless ``active`` says so."""

    def __init__(self, recorder: Recorder, active: Callable[[], bool]) -> None:
        self._recorder = recorder
        self._active = active

    def points(self, name: str, api: str) -> Iterator[tuple[str, Callable[..., Any]]]:
        """Yield (path, wrapper) for what to wrap in the module of a row of ``routes.CONNECTIONS``."""
        enter = self._enter(APIS[api])
        for prefix, method in (("", "__enter__"), ("Async", "__aenter__")):
            yield f"{prefix}{name}ConnectionManager.{method}", enter
            yield f"{prefix}{name}ConnectionManager.enter", enter
            yield f"{prefix}{name}Connection.__init__", self._connected

    # -------------------------------------------------------------- the handshake
    def _enter(self, api: Api) -> Callable[..., Any]:
        def enter(wrapped: Callable[..., Any], manager: Any, args: Any, kwargs: Any) -> Any:
            socket = self._open(api, manager)
            if socket is None:
                return wrapped(*args, **kwargs)
            return _around(wrapped, lambda *_, **__: _handshaking(socket))(*args, **kwargs)

        return enter

    def _open(self, api: Api, manager: Any) -> Socket | None:
        with SHIELD:
            if not is_instrumentation_enabled():
                return None
            client = _private(manager, "client")
            url = getattr(client, "websocket_base_url", None)
            endpoint = endpoint_of(client) if url is None else parse_endpoint(url, type(client))
            model = _private(manager, "model")
            socket = Socket(self._recorder, Peer(api, endpoint, secrets_of(client), text(model)))
            if self._recorder.options.propagate:
                own = _private(manager, "extra_headers")
                headers = contexts.with_trace(own or {}, socket.call.context)
                setattr(manager, _private_name(manager, "extra_headers"), headers)
            return socket
        return None

    def _connected(self, wrapped: Callable[..., Any], connection: Any, args: Any, kwargs: Any) -> Any:
        """Wrap ``__init__`` of a connection class, which receives the open socket."""
        result = wrapped(*args, **kwargs)
        with SHIELD:
            socket = _connecting.get()
            if socket is not None:
                self._observe(connection._connection, socket)
                make = getattr(connection, "_make_ws", None)
                if make is not None:
                    connection._make_ws = _around(
                        make, lambda *_, **__: self._reconnecting(socket), self._traced
                    )
        return result

    @contextlib.contextmanager
    def _reconnecting(self, first: Socket) -> _Covered:
        """Cover the opening of another socket, which is observed as another connection."""
        socket = None
        with SHIELD:
            if self._active():
                socket = Socket(self._recorder, first.peer)
        if socket is None:
            yield _unchanged
        else:
            with socket.call:
                yield functools.partial(self._observe, socket=socket)

    def _traced(self, *given: Any) -> tuple[Any, ...]:
        """Return a reconnect's arguments; their headers carry its own context, not the former connection's."""
        with SHIELD:
            if self._active() and self._recorder.options.propagate:
                query, headers = given
                return query, contexts.with_trace(headers)
        return given

    # -------------------------------------------------------------- the socket
    def _observe(self, ws: Any, socket: Socket) -> Any:
        """Make ``send``, ``recv`` and ``close`` of ``ws`` notify ``socket``; return ``ws``."""
        with SHIELD:
            socket.opened(ws)
        with SHIELD:
            socket.watch(ws)
            active = self._active
            ws.send = _around(
                ws.send, lambda message, *_, **__: _using(socket, active=active(), message=message)
            )
            ws.recv = _around(ws.recv, lambda *_, **__: _using(socket, active=active()))
            ws.close = _around(ws.close, lambda *_, **__: _closing(socket))
        return ws


def _around(
    method: Callable[..., Any],
    cover: Callable[..., contextlib.AbstractContextManager[Callable[[Any], Any]]],
    given: Callable[..., tuple[Any, ...]] = lambda *args: args,
) -> Callable[..., Any]:
    """Return a function that calls ``method``, sync or async, within a context, and passes its result through that.

    ``cover`` makes the context manager from the arguments; ``given`` returns those that the method gets within it.
    """

    def covered(*args: Any, **kwargs: Any) -> Any:
        with cover(*args, **kwargs) as passed:
            return passed(method(*given(*args), **kwargs))

    async def acovered(*args: Any, **kwargs: Any) -> Any:
        with cover(*args, **kwargs) as passed:
            return passed(await method(*given(*args), **kwargs))

    return acovered if inspect.iscoroutinefunction(method) else covered


def _unchanged(result: Any) -> Any:
    return result


_Covered: TypeAlias = Iterator[Callable[[Any], Any]]


@contextlib.contextmanager
def _handshaking(socket: Socket) -> _Covered:
    """Cover a handshake: its span is current, and the connection class finds ``socket``."""
    token = _connecting.set(socket)
    try:
        with socket.call:
            yield _unchanged
    finally:
        with contextlib.suppress(ValueError):  # a coroutine destroyed half-way ends in another context
            _connecting.reset(token)


@contextlib.contextmanager
def _using(socket: Socket, *, active: bool, message: object = None) -> _Covered:
    """Cover one use of a socket: report what is sent beforehand, what is received or raised afterwards."""
    call = None
    with SHIELD:
        if active and message is not None:
            call = socket.sent(message)

    def received(result: Any) -> Any:
        with SHIELD:
            if active:
                socket.received(result)  # what ``send`` returns, None, is no event
        return result

    try:
        yield received
    except BaseException as error:
        with SHIELD:
            socket.lost(error)
            if call is not None:
                socket.unsent(call, error)
        raise


@contextlib.contextmanager
def _closing(socket: Socket) -> _Covered:
    """Cover the close of a socket, which waits for the server's answer."""
    socket.closing()
    try:
        yield _unchanged
    finally:
        with SHIELD:
            socket.closed()


def _private_name(manager: Any, name: str) -> str:
    """Return the name of a manager's ``__name`` attribute, which Python mangles with the defining class."""
    mangled = (f"_{owner.__name__.lstrip('_')}__{name}" for owner in type(manager).__mro__)
    return next((own for own in mangled if hasattr(manager, own)), name)


def _private(manager: Any, name: str) -> Any:
    return getattr(manager, _private_name(manager, name), None)
