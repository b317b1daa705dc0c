"""A real WebSocket server on loopback that plays a script on each connection, and events as the APIs send them."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.sync.server import ServerConnection, serve

from tests.limits import HANGS

#: An event to send, the type of an event to wait for, a code to close with, alone or with a reason, or ``"cut"``.
Step: TypeAlias = dict[str, Any] | str | int | tuple[int, str]


class SocketServer:
    """Plays scripts in the order given, the last one again and again; keeps what it got, frame by frame."""

    def __init__(self) -> None:
        self._scripts: deque[Sequence[Step]] = deque()
        self._refusals: deque[int] = deque()
        #: What the answer to each handshake has besides what the protocol asks for.
        self.headers = [("x-request-id", "req_ws")]
        self.frames: list[str | bytes] = []
        self.handshakes: list[dict[str, str]] = []
        self._server = serve(
            self._play, "127.0.0.1", 0, process_request=self._admit, process_response=self._answer
        )
        self.base_url = f"http://127.0.0.1:{self._server.socket.getsockname()[1]}/v1"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def script(self, *scripts: Sequence[Step], refuse: Sequence[int] = ()) -> None:
        """Play ``scripts`` on the next connections, after refusing as many with the HTTP statuses ``refuse``."""
        self._scripts = deque(scripts)
        self._refusals = deque(refuse)
        self.frames.clear()
        self.handshakes.clear()

    def refuse(self, statuses: Sequence[int]) -> None:
        """Refuse as many of the next connections with the HTTP ``statuses``."""
        self._refusals.extend(statuses)

    def events(self) -> list[Any]:
        """Return the events received."""
        return [json.loads(frame) for frame in self.frames]

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._thread.join(HANGS)

    def _admit(self, connection: ServerConnection, request: Request) -> Response | None:
        self.handshakes.append({name.lower(): value for name, value in request.headers.raw_items()})
        if self._refusals:
            return connection.respond(self._refusals.popleft(), "refused\n")
        return None

    def _answer(self, _: ServerConnection, __: Request, response: Response) -> Response:
        for name, value in self.headers:
            response.headers[name] = value  # adds one
        return response

    def _play(self, connection: ServerConnection) -> None:
        script = self._scripts.popleft() if len(self._scripts) > 1 else self._scripts[0]
        with contextlib.suppress(ConnectionClosed):
            for step in script:
                if step == "cut":
                    connection.socket.shutdown(socket.SHUT_RDWR)
                elif isinstance(step, str):
                    self._wait(connection, step)
                elif isinstance(step, int):
                    connection.close(step, "bye")
                elif isinstance(step, tuple):
                    connection.close(*step)
                else:
                    connection.send(json.dumps(step))
            while True:
                self.frames.append(connection.recv(30))

    def _wait(self, connection: ServerConnection, kind: str) -> None:
        while True:
            frame = connection.recv(30)
            self.frames.append(frame)
            if json.loads(frame)["type"] == kind:
                return


@contextlib.contextmanager
def serving_sockets() -> Iterator[SocketServer]:
    """Run a server for the time of a ``with`` block."""
    server = SocketServer()
    try:
        yield server
    finally:
        server.close()


# ------------------------------------------------------------------ the Responses API
CALL = {
    "type": "function_call",
    "id": "fc_1",
    "call_id": "call_1",
    "name": "get_weather",
    "arguments": '{"location": "Paris"}',
    "status": "completed",
}


def response(response_id: str = "resp_1", status: str = "in_progress", **changes: Any) -> dict[str, Any]:
    """Return a response of the Responses API."""
    return {
        "id": response_id,
        "object": "response",
        "created_at": 1,
        "status": status,
        "model": "gpt-5-mini-2026",
        "output": [],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        **changes,
    }


def finished(
    response_id: str = "resp_1", status: str = "completed", said: str = "Hello", **changes: Any
) -> Any:
    """Return a response that ended with a message and a tool call."""
    part = {"type": "output_text", "text": said, "annotations": []}
    message = {
        "type": "message",
        "id": "msg_1",
        "role": "assistant",
        "status": "completed",
        "content": [part],
    }
    usage = {
        "input_tokens": 11,
        "output_tokens": 7,
        "total_tokens": 18,
        "input_tokens_details": {"cached_tokens": 4},
        "output_tokens_details": {"reasoning_tokens": 2},
    }
    return response(response_id, status, **{"output": [message, CALL], "usage": usage, **changes})


def event(kind: str, **members: Any) -> dict[str, Any]:
    """Return a server event."""
    return {"type": kind, "sequence_number": 0, **members}


def created(response_id: str = "resp_1", **members: Any) -> dict[str, Any]:
    """Return the event with which a response begins."""
    return event("response.created", response=response(response_id), **members)


def delta(said: str, **members: Any) -> dict[str, Any]:
    """Return a piece of a response's text."""
    place = {"item_id": "msg_1", "output_index": 0, "content_index": 0, "logprobs": []}
    return event("response.output_text.delta", delta=said, **place, **members)


# ------------------------------------------------------------------ Realtime
SESSION = {
    "type": "session.created",
    "event_id": "event_0",
    "session": {"type": "realtime", "model": "gpt-realtime-2026"},
}


def spoken(response_id: str = "resp_1", status: str = "completed", **changes: Any) -> dict[str, Any]:
    """Return a Realtime response that ended with speech and a tool call."""
    part = {"type": "output_audio", "transcript": "Hello"}
    message = {
        "type": "message",
        "id": "item_1",
        "role": "assistant",
        "status": "completed",
        "content": [part],
    }
    usage = {
        "input_tokens": 11,
        "output_tokens": 7,
        "total_tokens": 18,
        "input_token_details": {"cached_tokens": 4, "audio_tokens": 6, "text_tokens": 5},
        "output_token_details": {"audio_tokens": 5, "text_tokens": 2},
    }
    return {
        "object": "realtime.response",
        "id": response_id,
        "status": status,
        "conversation_id": "conv_1",
        "output": [message, CALL],
        "usage": usage,
        **changes,
    }


def realtime(kind: str, **members: Any) -> dict[str, Any]:
    """Return a Realtime server event."""
    return {"type": kind, "event_id": "event_1", **members}


def spoken_created(response_id: str = "resp_1", **changes: Any) -> dict[str, Any]:
    """Return the event with which a Realtime response begins."""
    return realtime("response.created", response=spoken(response_id, "in_progress", **changes))


def user_said(text: str) -> dict[str, Any]:
    """Return an item of a conversation in which the user says ``text``."""
    return {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}


def speech(said: str, response_id: str = "resp_1") -> dict[str, Any]:
    """Return a piece of what the model says: its transcript."""
    place = {"response_id": response_id, "item_id": "item_1", "output_index": 0, "content_index": 0}
    return realtime("response.output_audio_transcript.delta", delta=said, **place)
