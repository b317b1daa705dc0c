"""One WebSocket connection and the responses on it, from the events that pass its socket.

A connection is a span from handshake to close. Each response on it is a separate generation, a child of that
span. A reconnect is another connection.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

from opentelemetry.trace import set_span_in_context

from openai_lifecycle import semconv
from openai_lifecycle.capture import contexts
from openai_lifecycle.capture.call import Call
from openai_lifecycle.capture.credentials import secrets_sent
from openai_lifecycle.capture.endpoints import Endpoint
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
from openai_lifecycle.capture.headers import answered_with, sent_with
from openai_lifecycle.capture.operations.realtime import REALTIME
from openai_lifecycle.capture.operations.responses import RESPONSES
from openai_lifecycle.capture.recorder import Recorder
from openai_lifecycle.texts import parse_json

#: Events of a response that end it, whether it succeeded or failed; an ``error`` is in the stream of a delegated one.
_ENDS: Final = frozenset(
    {
        "response.done",
        "response.completed",
        "response.incomplete",
        "response.failed",
        "response.cancelled",
        "error",
    }
)
#: How much of an inlined image's URL is looked at for its type, which comes first.
_LONGEST_TYPE: Final = 128
#: How many items are remembered for the next response, and for how many responses something may be queued.
_ITEMS: Final = 256


@dataclass(frozen=True, slots=True)
class Api:
    """What differs between the kinds of connection.

    operation: how a response is read
    asked:     client event ``response.create`` → parameters of a response, ``None`` when it has none
    inner:     server event → the response event that it carries or is
    """

    name: str
    operation: Operation
    asked: Callable[[Fields], Fields | None]
    inner: Callable[[Fields], Fields] = lambda event: event


RESPONSES_API: Final = Api("responses", RESPONSES, lambda event: event)
REALTIME_API: Final = Api("realtime", REALTIME, lambda event: fields(event.get("response")))
#: The model of a Live connection delegates to a Responses model: ``openai/types/live/response_event.py``.
LIVE_API: Final = Api(
    "live",
    RESPONSES,
    lambda _: None,
    lambda event: fields(event.get("event")) if event.get("type") == "response.event" else event,
)
APIS: Final = {api.name: api for api in (RESPONSES_API, REALTIME_API, LIVE_API)}


def _connect_request(body: Fields) -> Request:
    return Request(attributes={semconv.OPENAI_API_TYPE: body["api"]})


CONNECT: Final = Operation("connect", _connect_request, entries=False)


# ------------------------------------------------------------------ one socket
@dataclass(frozen=True, slots=True)
class Peer:
    """The server that a connection is made to."""

    api: Api
    endpoint: Endpoint
    secrets: tuple[str, ...]
    model: str


# Without ``__eq__``, so that ``deque.remove`` runs no Python code, during which another thread may change the deque.
@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """A requested response. ``event_id`` is of the client event that requested it.

    ``aside`` says whether it joins no conversation.
    """

    call: Call
    lane: str
    event_id: str
    aside: bool

    def may_be(self, lane: str, response: Fields) -> bool:
        """Whether ``response``, which has just begun, may be this one.

        A response that joins no conversation has no ``conversation_id``. One that the server begins by itself, because
        somebody has spoken, has one (``openai/types/realtime/realtime_response.py``).
        """
        return self.lane == lane and not (self.aside and response.get("conversation_id"))


class Socket:
    """One connection: its own call and the calls of its responses."""

    def __init__(self, recorder: Recorder, peer: Peer) -> None:
        self._recorder = recorder
        self.peer = peer
        #: The model of the session, as the server names it.
        self._model = ""
        #: Responses that were requested and that the server has not begun, in request order.
        self._asked: deque[Asked] = deque()
        #: Responses that have begun: all of them by id, or by lane if they have none; and the latest of each lane, for
        #: events that name no response.
        self._running: dict[str, Call] = {}
        self._lanes: dict[str, Call] = {}
        #: Realtime: what was put into the conversation since its last response, which the next one answers.
        self._items: deque[Any] = deque(maxlen=_ITEMS)
        #: Id of a response → what was queued with ``response.steer`` to precede the input of the response after it.
        self._steering: dict[str, deque[Any]] = {}
        self._closing = False
        self.call = self._begin(CONNECT, {"api": peer.api.name, "model": peer.model})

    def _begin(self, operation: Operation, body: Fields) -> Call:
        call = self._recorder.begin(operation, body, self.peer.endpoint, self.peer.secrets)
        call.deferred = True
        return call

    def opened(self, connection: Any) -> None:
        """Read the handshake: the credential that was sent, which only the request has, and the server's answer."""
        credentials = secrets_sent(sent_with(connection.request))
        self.peer = replace(self.peer, secrets=(*self.peer.secrets, *credentials))
        self.call.recording.carried(credentials)
        request_id = answered_with(connection.response.headers).get(semconv.REQUEST_ID)
        if request_id:
            self.call.reply.attributes[semconv.REQUEST_ID] = request_id

    # -------------------------------------------------------------- what the application does
    def sent(self, data: object) -> Call | None:
        """Read what is about to be sent; return the call that it starts, if any."""
        event = _event(data)
        kind = event.get("type")
        if kind == "response.create":
            asked = self.peer.api.asked(event)
            if asked is not None:
                call = self._generation(asked)
                self._asked.append(Asked(call, _lane(event), text(event.get("event_id")), _is_aside(asked)))
                return call
        elif kind == "conversation.item.create":
            self._items.append(_without_media(event.get("item")))
        elif kind == "input_audio_buffer.commit":
            self._items.append(_SPOKEN)
        elif kind == "response.steer" and len(self._steering) < _ITEMS:
            steered = self._steering.setdefault(_predecessor(event), deque(maxlen=_ITEMS))
            steered.extend(map(_without_media, _input(event)))
        return None

    def unsent(self, call: Call, error: BaseException) -> None:
        """End a call whose request could not be sent."""
        call.end(error)
        for asked in self._asked.copy():
            if asked.call is call:
                self._asked.remove(asked)

    def watch(self, connection: Any) -> None:
        """End everything if ``connection``, the socket, is collected without having been closed."""
        self.call.watch(connection, self._dropped)

    def _dropped(self) -> None:
        for call in [*self._responses(), self.call]:
            call.abandon()

    def closing(self) -> None:
        """Note that the application is closing the connection: whatever ends now was ended on purpose."""
        self._closing = True

    def closed(self) -> None:
        """End the connection and every running response with what has arrived."""
        self._end(None)

    def lost(self, error: BaseException) -> None:
        """Note an exception that the socket raised: only that of a closed connection ends it, not a timeout's, say."""
        from websockets.exceptions import ConnectionClosed

        if isinstance(error, ConnectionClosed):
            self._end(None if self._closing else error)

    def _end(self, error: BaseException | None) -> None:
        from websockets.exceptions import ConnectionClosedOK

        for call in self._responses():
            call.end(error)
        self._asked.clear()
        self._running.clear()
        self._lanes.clear()
        self.call.end(None if isinstance(error, ConnectionClosedOK) else error)

    def _responses(self) -> list[Call]:
        """Return the calls of all responses that were requested or have begun, some of them twice."""
        return [*(asked.call for asked in self._asked.copy()), *self._running.values(), *self._lanes.values()]

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
        elif kind == "response.steer.failed":
            self._steering.pop(_predecessor(fields(event.get("steer"))), None)
        inner = self.peer.api.inner(event)
        kind = text(inner.get("type"))
        if kind == "error" or kind.startswith("response."):
            self._respond(kind, inner, lane=_lane(event))

    def _respond(self, kind: str, event: Fields, *, lane: str) -> None:
        """Fold an event of a response into its call, which ``response.created`` begins."""
        whole = fields(event.get("response"))
        response_id = text(event.get("response_id")) or text(whole.get("id"))
        call = self._running.get(response_id) if response_id else self._lanes.get(lane)
        if call is None and kind == "response.created":
            call = self._requested(lane, whole) or self._unrequested(whole)
            self._running[response_id or f"lane {lane}"] = self._lanes[lane] = call
        if call is None:
            return
        call.reply.model = call.reply.model or self._model or None
        call.chunk(event)
        if kind in _ENDS:
            self._finish(call)

    def _finish(self, call: Call) -> None:
        """End the call of a response that had begun, and forget it."""
        for known in (self._running, self._lanes):
            for key in [key for key, one in tuple(known.items()) if one is call]:
                known.pop(key, None)
        call.end()

    def _requested(self, lane: str, whole: Fields) -> Call | None:
        """Return the call of a new response: the first requested that it may be; ``None`` if it is the server's own."""
        for asked in self._asked.copy():
            if asked.may_be(lane, whole):
                self._asked.remove(asked)
                asked.call.reply.error = None
                return asked.call
        return None

    def _refused(self, event: Fields) -> None:
        """End the call that an error is about: that of the client event that it names, or the one running in its lane.

        Not every error names an event, and on a Realtime connection one that does not may be about anything. So it is
        only noted for the first response that was requested without an event id, and forgotten if that begins.
        """
        error = fields(event.get("error"))
        named = text(error.get("event_id"))
        lane, is_final = _lane(event), self.peer.api is RESPONSES_API
        for asked in self._asked.copy():
            if (asked.event_id, asked.lane) == (named, lane):
                _fail(asked.call, event)
                if named or is_final or error.get("code") in _ABOUT_RESPONSES:
                    self._asked.remove(asked)
                    asked.call.end()
                return
        running = self._lanes.get(lane)
        if running is not None and is_final:
            _fail(running, event)
            self._finish(running)

    # -------------------------------------------------------------- generations
    def _unrequested(self, whole: Fields) -> Call:
        """Begin the call of a response that the server has begun by itself."""
        call = self._generation(whole)
        # The event that begins it stands for the request: the one after it is the first chunk.
        call.chunks = -1
        return call

    def _generation(self, asked: Fields) -> Call:
        model = text(asked.get("model")) or self.peer.model or self._model
        body = {**asked, "model": model, "stream": True}
        if self.peer.api is REALTIME_API and asked.get("input") is None:
            body["input"] = list(self._items)
            if not _is_aside(asked):  # one that joins no conversation leaves them to the next one that does
                self._items.clear()
        if steered := self._steering.pop(_predecessor(asked), None):
            body["input"] = [*steered, *_input(asked)]
        token = contexts.attach(set_span_in_context(self.call.recording.span))
        try:
            return self._begin(self.peer.api.operation, body)
        finally:
            contexts.detach(token)


#: Error codes that concern ``response.create``, whether or not the error names the event.
_ABOUT_RESPONSES: Final = ("conversation_already_has_active_response",)
#: The item that stands for speech.
_SPOKEN: Final = {"type": "message", "role": "user", "content": [{"type": "input_audio"}]}


def _lane(event: Fields) -> str:
    """Return what tells concurrent responses of a connection apart in events that name no response; often empty."""
    return text(event.get("stream_id")) or text(event.get("delegation_id"))


def _predecessor(event: Fields) -> str:
    """Return the id of the response that another one continues."""
    return text(event.get("previous_response_id"))


def _is_aside(asked: Fields) -> bool:
    """Whether the response that is asked for joins no conversation."""
    return asked.get("conversation") == "none"


def _input(event: Fields) -> list[Any]:
    """Return the items of an input, which may be a text."""
    said = event.get("input")
    return [{"role": "user", "content": said}] if isinstance(said, str) else items(said)


def _fail(call: Call, event: Fields) -> None:
    # Code and message may be in the event itself: ``openai/types/responses/response_error_event.py``.
    call.reply.error = failure(event.get("error") or event)
    pick(event, {"status": (semconv.HTTP_STATUS_CODE, integer)}, call.reply.attributes)


def _event(data: object) -> Fields:
    """Return the JSON object that was sent or received; an empty one for anything else."""
    return fields(parse_json(data)) if isinstance(data, (str, bytes)) else {}


def _without_media(item: Any) -> Fields:
    """Return an item of an input without the audio and images in it, which are large and not needed."""
    item = fields(item)
    content = [_light(fields(part)) for part in items(item.get("content"))]
    return {**item, "content": content} if content else item


def _light(part: Fields) -> Fields:
    image = text(part.get("image_url"))
    if image.startswith("data:"):  # else it is a link
        image = image[:_LONGEST_TYPE].partition(",")[0] + ","
    light = {k: v for k, v in part.items() if k != "audio"}
    return {**light, "image_url": image} if image else light
