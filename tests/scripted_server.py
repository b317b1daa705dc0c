"""A real HTTP server on loopback that answers each request with a script: bytes, pauses, a cut connection."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, Literal, TypeAlias

from tests.limits import HANGS

Step: TypeAlias = bytes | Literal["cut"] | threading.Event


def reply(body: bytes, *, status: int = 200, kind: str = "application/json", **headers: Any) -> list[Step]:
    """Return a script that sends one whole response."""
    return [head(status, kind, len(body), **headers) + body]


def event_stream(*events: object, end: Sequence[Step] = (b"data: [DONE]\n\n",), **headers: Any) -> list[Step]:
    """Return a script that sends server-sent events, each in a write of its own, until the connection ends."""
    sent = [f"data: {e if isinstance(e, str) else json.dumps(e)}\n\n".encode() for e in events]
    return [head(200, "text/event-stream", None, **headers), *sent, *end]


def head(status: int, kind: str, length: int | None, **headers: str) -> bytes:
    """Return a response's head; without a length the body is chunked, so that a cut is noticed."""
    lines = [f"HTTP/1.1 {status} Status", f"content-type: {kind}", "connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    lines.append("transfer-encoding: chunked" if length is None else f"content-length: {length}")
    return "\r\n".join([*lines, "", ""]).encode()


class ScriptedServer:
    """Serves scripts in the order given; the last one again and again. Keeps the requests it got, byte by byte."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._scripts: deque[list[Step]] = deque()
        self._connections: list[socket.socket] = []
        self.requests: list[bytes] = []
        self.base_url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/v1"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def script(self, *scripts: list[Step]) -> None:
        """Answer the next requests with ``scripts``."""
        self._scripts = deque(scripts)
        self.requests.clear()

    def bodies(self) -> list[Any]:
        """Return the JSON bodies received."""
        return [json.loads(request.partition(b"\r\n\r\n")[2]) for request in self.requests]

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._connections.append(connection)
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            connection.settimeout(HANGS)
            # Data that waits for an acknowledgement would be lost when the connection is cut.
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            request = _read(connection)
            if not request:
                return
            self.requests.append(request)
            script = self._scripts.popleft() if len(self._scripts) > 1 else self._scripts[0]
            if _play(connection, script):
                connection.shutdown(socket.SHUT_WR)
                connection.recv(1)

    def close(self) -> None:
        """Stop serving and end every connection."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(HANGS)
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


def _play(connection: socket.socket, script: list[Step]) -> bool:
    """Send a script; return whether the connection is to be ended politely."""
    chunked = False
    for step in script:
        if isinstance(step, threading.Event):
            step.wait(HANGS)
        elif step == "cut":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return False
        else:
            assert isinstance(step, bytes)
            connection.sendall(b"%x\r\n%s\r\n" % (len(step), step) if chunked else step)
            chunked = chunked or b"transfer-encoding: chunked" in step
    if chunked:
        connection.sendall(b"0\r\n\r\n")
    return True


def _read(connection: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        more = connection.recv(65536)
        if not more:
            return b""
        data += more
    headers, _, body = data.partition(b"\r\n\r\n")
    length = next(
        (int(h[15:]) for h in headers.lower().split(b"\r\n") if h.startswith(b"content-length:")), 0
    )
    while len(body) < length:
        body += connection.recv(65536)
    return headers + b"\r\n\r\n" + body


@contextlib.contextmanager
def serving() -> Iterator[ScriptedServer]:
    """Run a server for the time of a ``with`` block."""
    server = ScriptedServer()
    try:
        yield server
    finally:
        server.close()
