"""The client's WebSocket connections: Responses, Realtime and Live.

A connection is a span from handshake to close. Each response on it is a separate generation, a child of that
span. A reconnect is another connection.

We observe the socket itself (``websockets``' connection object). Everything the client sends and receives
passes it, even what bypasses the connection classes (``openai/lib/responses_websocket``,
``ResponsesWebSocketLane.send``). A socket is used by sync or by async code, never by both.
"""

from __future__ import annotations

import contextlib
import inspect
from collections import deque
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from opentelemetry import context, propagate
from opentelemetry.instrumentation.utils import is_instrumentation_enabled
from opentelemetry.trace import set_span_in_context

from openai_lifecycle import semconv
from openai_lifecycle.capture.call import Call
from openai_lifecycle.capture.credentials import secrets_of
from openai_lifecycle.capture.endpoints import Endpoint, endpoint_of, parse_endpoint
from openai_lifecycle.capture.facts import (
    Fields,
    Operation,
    Request,
    failure,
    fields,
    integer,
    items,
    pick,
    text,
)
from openai_lifecycle.capture.operations.realtime import REALTIME
from openai_lifecycle.capture.operations.responses import RESPONSES
from openai_lifecycle.capture.recorder import Recorder
from openai_lifecycle.encoding import parse_json
from openai_lifecycle.shield import SHIELD

#: Server events that end a response, whether it succeeded or failed.
_ENDS: Final = frozenset(
    {"response.done", "response.completed", "response.incomplete", "response.failed", "response.cancelled"}
)
#: How many of the items sent since the last response are remembered.
_ITEMS: Final = 256


@dataclass(frozen=True, slots=True)
class Protocol:
    """What differs between the kinds of connection.

    operation: how a response is read
    asked:     client event ``response.create`` → parameters of a response, ``None`` when it has none
    inner:     server event → the response event that it carries or is
    """

    api: str
    operation: Operation
    asked: Callable[[Fields], Fields | None]
    inner: Callable[[Fields], Fields] = lambda event: event


RESPONSES_SOCKET: Final = Protocol("responses", RESPONSES, lambda event: event)
REALTIME_SOCKET: Final = Protocol("realtime", REALTIME, lambda event: fields(event.get("response")))
#: The model of a Live connection delegates to a Responses model: ``openai/types/live/response_event.py``.
LIVE_SOCKET: Final = Protocol(
    "live",
    RESPONSES,
    lambda _: None,
    lambda event: fields(event.get("event")) if event.get("type") == "response.event" else event,
)
PROTOCOLS: Final = {p.api: p for p in (RESPONSES_SOCKET, REALTIME_SOCKET, LIVE_SOCKET)}


def _connect_request(body: Fields) -> Request:
    return Request(attributes={semconv.OPENAI_API_TYPE: body["api"]})


CONNECT: Final = Operation("connect", _connect_request, entries=False)


# ------------------------------------------------------------------ one socket
@dataclass(frozen=True, slots=True)
class Peer:
    """The server that a connection is made to."""

    protocol: Protocol
    endpoint: Endpoint
    secrets: tuple[str, ...]
    model: str


@dataclass(frozen=True, slots=True)
class Asked:
    """A requested response: its lane and the client event that requested it."""

    call: Call
    lane: str
    event_id: str


class Socket:
    """One connection: its own call and the calls of its responses."""

    def __init__(self, recorder: Recorder, peer: Peer) -> None:
        self._recorder = recorder
        self.peer = peer
        #: The model that the server names.
        self._model = ""
        #: Requested but not yet begun by the server, in request order.
        self._asked: deque[Asked] = deque()
        #: Begun, by response id; also the latest of each lane, for events without an id.
        self._running: dict[str, Call] = {}
        self._lanes: dict[str, Call] = {}
        self._items: deque[Any] = deque(maxlen=_ITEMS)
        self._closing = False
        self.call = self._begin(CONNECT, {"api": peer.protocol.api, "model": peer.model})

    def _begin(self, operation: Operation, body: Fields) -> Call:
        call = self._recorder.begin(operation, body, self.peer.endpoint, self.peer.secrets)
        call.deferred = True
        return call

    def opened(self, handshake: Any) -> None:
        """Read the server's answer to the handshake."""
        request_id = handshake.headers.get("x-request-id")
        if request_id:
            self.call.reply.attributes[semconv.REQUEST_ID] = request_id

    # -------------------------------------------------------------- what the application does
    def sent(self, data: object) -> Call | None:
        """Read what is about to be sent; return the call that it starts, if any."""
        event = _event(data)
        kind = event.get("type")
        if kind == "response.create":
            asked = self.peer.protocol.asked(event)
            if asked is not None:
                call = self._generation(asked)
                self._asked.append(Asked(call, _lane(event), text(event.get("event_id"))))
                return call
        elif kind == "conversation.item.create":
            self._items.append(_without_media(fields(event.get("item"))))
        elif kind == "input_audio_buffer.commit":
            self._items.append(_SPOKEN)
        return None

    def unsent(self, call: Call, error: BaseException) -> None:
        """End a call whose request could not be sent."""
        self._asked = deque(asked for asked in tuple(self._asked) if asked.call is not call)
        call.end(error)

    def closing(self) -> None:
        """Note that the application is closing the connection: whatever ends now was ended on purpose."""
        self._closing = True

    def closed(self) -> None:
        """End the connection and every running response with what has arrived."""
        self._end(None)

    def lost(self, error: BaseException) -> None:
        """Note an exception of the socket: only a closed connection ends the call."""
        from websockets.exceptions import ConnectionClosed

        if isinstance(error, ConnectionClosed):
            self._end(None if self._closing else error)

    def _end(self, error: BaseException | None) -> None:
        from websockets.exceptions import ConnectionClosedOK

        for call in [*(asked.call for asked in self._asked), *self._running.values()]:
            call.end(error)
        self._asked.clear()
        self._running.clear()
        self._lanes.clear()
        self.call.end(None if isinstance(error, ConnectionClosedOK) else error)

    # -------------------------------------------------------------- what the server does
    def received(self, data: object) -> None:
        """Read what was received."""
        event = _event(data)
        kind = event.get("type")
        if kind == "error":
            self._refused(event)
            return
        if kind in ("session.created", "session.updated"):
            self._model = text(fields(event.get("session")).get("model")) or self._model
        elif kind == "input_audio_buffer.committed" and not (self._items and self._items[-1] is _SPOKEN):
            self._items.append(_SPOKEN)
        inner = self.peer.protocol.inner(event)
        kind = text(inner.get("type"))
        if kind == "error":
            self._delegation_failed(inner, event)
        elif kind.startswith("response."):
            self._respond(kind, inner, event)

    def _delegation_failed(self, error: Fields, outer: Fields) -> None:
        """End a delegated response whose stream ended with an error."""
        running = self._lanes.get(_lane(outer))
        if running is not None:
            running.chunk(error)
            self._forget(running)
            running.end()

    def _respond(self, kind: str, event: Fields, outer: Fields) -> None:
        lane = _lane(outer)
        whole = fields(event.get("response"))
        response_id = text(event.get("response_id")) or text(whole.get("id"))
        if kind == "response.created":
            call = self._started(lane, whole)
            self._running[response_id] = self._lanes[lane] = call
        else:
            found = self._running.get(response_id) if response_id else self._lanes.get(lane)
            if found is None:
                return
            call = found
        call.reply.model = call.reply.model or self._model or None
        call.chunk(event)
        if kind in _ENDS:
            self._forget(call)
            call.end()

    def _forget(self, call: Call) -> None:
        for known in (self._running, self._lanes):
            for key in [key for key, one in tuple(known.items()) if one is call]:
                known.pop(key, None)

    def _started(self, lane: str, whole: Fields) -> Call:
        """Return the call of a new response: the first requested on its lane, else the server's own."""
        for asked in tuple(self._asked):
            if asked.lane == lane:
                self._asked.remove(asked)
                asked.call.reply.error = None
                return asked.call
        return self._generation(whole)

    def _refused(self, event: Fields) -> None:
        """End the call that an error refers to: the client event that it names, or the running response of its lane.

        Not every error names an event. Realtime then goes on, so such an error only applies to a requested
        response, and only if that never begins.
        """
        error = fields(event.get("error"))
        named = text(error.get("event_id")) or text(error.get("client_event_id"))
        lane, is_final = _lane(event), self.peer.protocol is RESPONSES_SOCKET
        for asked in tuple(self._asked):
            if (asked.event_id, asked.lane) == (named, lane):
                _fail(asked.call, event)
                if named or is_final or error.get("code") in _ABOUT_RESPONSES:
                    self._asked.remove(asked)
                    asked.call.end()
                return
        running = self._lanes.get(lane)
        if running is not None and is_final:
            _fail(running, event)
            self._forget(running)
            running.end()

    # -------------------------------------------------------------- generations
    def _generation(self, asked: Fields) -> Call:
        model = text(asked.get("model")) or self.peer.model or self._model
        body = {**asked, "model": model, "stream": True}
        if self.peer.protocol is REALTIME_SOCKET and asked.get("input") is None:
            body["input"] = list(self._items)
            self._items.clear()
        token = context.attach(set_span_in_context(self.call.recording.span))
        try:
            return self._begin(self.peer.protocol.operation, body)
        finally:
            context.detach(token)


#: Error codes that concern ``response.create``, whether or not the error names the event.
_ABOUT_RESPONSES: Final = ("conversation_already_has_active_response",)
#: Stands for speech that was sent.
_SPOKEN: Final = {"type": "message", "role": "user", "content": [{"type": "input_audio"}]}


def _lane(event: Fields) -> str:
    """Return the key that tells apart concurrent responses of a connection where their ids do not."""
    return text(event.get("stream_id")) or text(event.get("delegation_id"))


def _fail(call: Call, event: Fields) -> None:
    call.reply.error = failure(event.get("error"))
    pick(event, {"status": (semconv.HTTP_STATUS_CODE, integer)}, call.reply.attributes)


def _event(data: object) -> Fields:
    """Return the JSON object that was sent or received; an empty one for anything else."""
    return fields(parse_json(data)) if isinstance(data, (str, bytes)) else {}


def _without_media(item: Fields) -> Fields:
    """Return a conversation item without audio and images, which are large and not needed."""
    content = [
        {k: v for k, v in fields(part).items() if k not in ("audio", "image_url")}
        for part in items(item.get("content"))
    ]
    return {**item, "content": content} if content else item


# ------------------------------------------------------------------ into the client
_connecting: ContextVar[Socket | None] = ContextVar("openai_lifecycle_connecting", default=None)


class WebSockets:
    """The wrappers of the connection classes; they do nothing unless ``active`` says so."""

    def __init__(self, recorder: Recorder, active: Callable[[], bool]) -> None:
        self._recorder = recorder
        self._active = active

    def points(self, name: str, api: str) -> Iterator[tuple[str, Callable[..., Any]]]:
        """Yield (path, wrapper) for what to wrap in the module of a row of ``routes.CONNECTIONS``."""
        enter = self._enter(PROTOCOLS[api])
        for prefix, method in (("", "__enter__"), ("Async", "__aenter__")):
            yield f"{prefix}{name}ConnectionManager.{method}", enter
            yield f"{prefix}{name}ConnectionManager.enter", enter
            yield f"{prefix}{name}Connection.__init__", self._connected

    # -------------------------------------------------------------- the handshake
    def _enter(self, protocol: Protocol) -> Callable[..., Any]:
        def enter(wrapped: Callable[..., Any], manager: Any, args: Any, kwargs: Any) -> Any:
            socket = self._open(protocol, manager)
            if socket is None:
                return wrapped(*args, **kwargs)
            return _around(wrapped, lambda *_, **__: _handshaking(socket))(*args, **kwargs)

        return enter

    def _open(self, protocol: Protocol, manager: Any) -> Socket | None:
        with SHIELD:
            if not is_instrumentation_enabled():
                return None
            client = _private(manager, "client")
            url = getattr(client, "websocket_base_url", None)
            endpoint = endpoint_of(client) if url is None else parse_endpoint(url, type(client))
            model = _private(manager, "model")
            socket = Socket(self._recorder, Peer(protocol, endpoint, secrets_of(client), text(model)))
            if self._recorder.options.propagate:
                headers: dict[str, str] = {}
                propagate.inject(headers, context=socket.call.context)
                own = _private(manager, "extra_headers")
                setattr(manager, _private_name(manager, "extra_headers"), {**(own or {}), **headers})
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
                    connection._make_ws = _around(make, lambda *_, **__: self._reconnecting(socket))
        return result

    @contextlib.contextmanager
    def _reconnecting(self, first: Socket) -> _Covered:
        """Cover the opening of another socket, which is observed as another connection."""
        socket = self._again(first)
        if socket is None:
            yield _unchanged
        else:
            with socket.call:
                yield lambda ws: self._observe(ws, socket)

    def _again(self, first: Socket) -> Socket | None:
        with SHIELD:
            if self._active():
                return Socket(self._recorder, first.peer)
        return None

    # -------------------------------------------------------------- the socket
    def _observe(self, ws: Any, socket: Socket) -> Any:
        """Make ``send``, ``recv`` and ``close`` of ``ws`` notify ``socket``; return ``ws``."""
        with SHIELD:
            socket.opened(ws.response)
            active = self._active
            ws.send = _around(
                ws.send, lambda message, *_, **__: _using(socket, active=active(), message=message)
            )
            ws.recv = _around(ws.recv, lambda *_, **__: _using(socket, active=active()))
            ws.close = _around(ws.close, lambda *_, **__: _closing(socket))
        return ws


def _around(
    method: Callable[..., Any], cover: Callable[..., contextlib.AbstractContextManager[Callable[[Any], Any]]]
) -> Callable[..., Any]:
    """Return a function that calls ``method``, sync or async, within a context, and passes its result through that.

    ``cover`` makes the context manager from the arguments.
    """

    def covered(*args: Any, **kwargs: Any) -> Any:
        with cover(*args, **kwargs) as passed:
            return passed(method(*args, **kwargs))

    async def acovered(*args: Any, **kwargs: Any) -> Any:
        with cover(*args, **kwargs) as passed:
            return passed(await method(*args, **kwargs))

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
                socket.received(result)
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
