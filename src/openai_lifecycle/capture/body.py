"""Observes a response whose body the application reads later: the reading, and the close.

``with_streaming_response`` returns the response unread. ``read()``, ``json()``, ``iter_bytes()``,
``iter_text()`` and ``iter_lines()`` all go through ``iter_bytes`` of the HTTP response
(``httpx2/_models.py``), so that is where the body is observed; and where ``iter_raw`` is called instead, its end.
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias

from openai_lifecycle import semconv
from openai_lifecycle.capture.call import Call, aobserve, observe
from openai_lifecycle.capture.facts import failure, fields
from openai_lifecycle.texts import parse_json

#: A JSON body larger than this many bytes is not kept: its facts are lost, but memory stays bounded.
LIMIT = 8 * 1024 * 1024


class JsonBody:
    """Collects a JSON document and passes it to the call when the body ends."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._pieces: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> None:
        """Take the next bytes."""
        self._size += len(data)
        if self._size <= LIMIT:
            self._pieces.append(data)
        else:
            self._pieces.clear()

    def finish(self) -> None:
        """Pass on the document, if it is valid JSON."""
        document = parse_json(b"".join(self._pieces))
        if document is not None:
            self._call.parsed(document)


class EventStreamBody:
    """Splits server-sent events and passes each event's JSON to the call (WHATWG HTML, 9.2.6)."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._pieces: list[bytes] = []  # of a line whose end has not arrived
        self._data: list[bytes] = []  # of an event whose end has not arrived
        self._size = 0  # bytes since the last event

    def feed(self, data: bytes) -> None:
        """Take the next bytes."""
        self._pieces.append(data)
        self._size += len(data)
        if b"\n" in data or b"\r" in data:
            lines = b"".join(self._pieces).splitlines(keepends=True)
            # A CR at the end may be the first half of CR LF.
            self._pieces = [] if lines[-1].endswith(b"\n") else [lines.pop()]
            for line in lines:
                self._line(line.rstrip(b"\r\n"))
        if self._size > LIMIT:
            self._pieces.clear()
            self._data.clear()

    def _line(self, line: bytes) -> None:
        if line.startswith(b"data:"):
            self._data.append(line[5:])
        elif not line:
            self._size = 0
            self._event(parse_json(b"\n".join(self._data)))
            self._data.clear()

    def _event(self, chunk: Any) -> None:
        if chunk is not None:
            self._call.chunk(chunk)
            error = fields(chunk).get("error")
            if error:  # the client's Stream would raise it (openai/_streaming.py, ``__stream__``)
                self._call.reply.error = failure(error)

    def finish(self) -> None:
        """Take the last line if it ends in CR; an event without its empty line is incomplete and is left out."""
        for line in b"".join(self._pieces).splitlines():
            self._line(line)


class Unread:
    """A body that is not read, audio for example: only how its reading ends counts."""

    def __init__(self, _: Call) -> None:
        """Keep nothing."""

    def feed(self, data: bytes) -> None:
        """Drop the next bytes."""

    def finish(self) -> None:
        """Do nothing."""


Body: TypeAlias = JsonBody | EventStreamBody | Unread


def read_now(response: Any, call: Call) -> None:
    """Let ``call`` see the body of ``response``, which has been received completely."""
    body = _reader(response, call)
    body.feed(response.content)
    body.finish()
    call.chunks = 0  # its events were not received one by one, so no time of the first is known


#: Methods of a response that read its body, by whether it is async; the second yields the bytes as the server sent
#: them, perhaps compressed.
_READS: Final = {False: ("iter_bytes", "iter_raw"), True: ("aiter_bytes", "aiter_raw")}


def read_along(response: Any, call: Call, *, is_async: bool) -> None:
    """Let ``call`` see the body of ``response`` while the application reads it, by any method."""
    driver: Any = aobserve if is_async else observe
    plain, raw = _READS[is_async]
    bodies: dict[str, Body] = {plain: _reader(response, call), raw: Unread(call)}

    def observed(method: Any, body: Body) -> Any:
        def iterate(*args: Any, **kwargs: Any) -> Any:
            _restore(response, *bodies)  # both, because ``iter_bytes`` reads ``iter_raw``
            source = method(*args, **kwargs)
            if call.is_read_by_stream:
                return source
            return driver(call.follow(source), call, body.feed, body.finish)

        return iterate

    for name, body in bodies.items():
        setattr(response, name, observed(getattr(response, name), body))


def _reader(response: Any, call: Call) -> Body:
    """Return the reader of a body, for which its content type is only a hint.

    Some servers call JSON, or a stream of events, text or bytes. The client parses it all the same
    (``openai/_legacy_response.py``, ``_parse``).
    """
    kind = response.headers.get("content-type", "").lower()
    if "json" not in kind and call.request.attributes.get(semconv.STREAM):
        return EventStreamBody(call)
    return next((make for name, make in _READERS.items() if name in kind), JsonBody)(call)


#: Part of the content type → reader of the body, if it is not JSON.
_READERS: Final[dict[str, type[Body]]] = {
    "text/event-stream": EventStreamBody,
    "audio/": Unread,
}


def defer(response: Any, call: Call, *, is_async: bool) -> None:
    """Keep ``call`` open until the unread body of ``response`` is read, or it is closed or dropped."""
    call.deferred = True
    call.watch(response, call.abandon)
    _watch_close(response, call, is_async=is_async)


def _watch_close(response: Any, call: Call, *, is_async: bool) -> None:
    """Tell ``call`` when ``response`` is closed, whoever closes it.

    The instance's method is replaced until it is called: stream helpers and raw responses close the response,
    not the stream (``openai/lib/streaming/chat/_completions.py``, ``close``). Until then the response and its
    methods form a reference cycle. A weak reference would not do: it would be cleared when both are collected
    together with their stream, whose generator then closes the response.
    """
    name = "aclose" if is_async else "close"
    replaced = (name, *_READS[is_async])
    method = getattr(response, name)

    def close() -> None:
        _restore(response, *replaced)
        try:
            method()
        finally:
            call.closed()

    async def aclose() -> None:
        _restore(response, *replaced)
        try:
            await method()
        finally:
            call.closed()

    setattr(response, name, aclose if is_async else close)


def _restore(response: Any, *replaced: str) -> None:
    """Remove the instance's own methods, so that those of its class apply."""
    for name in replaced:
        response.__dict__.pop(name, None)
