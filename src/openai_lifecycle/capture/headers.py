"""Reads headers alike, whether they are the HTTP client's, in bytes, or the websockets package's, in text."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from openai_lifecycle import semconv
from openai_lifecycle.capture.facts import Attributes, integer


def _pairs(headers: Any) -> Sequence[tuple[bytes, bytes]]:
    """Return names and values; none of an object that is neither kind of headers."""
    raw: Sequence[tuple[bytes, bytes]] | None = getattr(headers, "raw", None)
    if raw is not None:
        return raw
    read = getattr(headers, "raw_items", None)
    texts = () if read is None else read()
    return [(name.encode(), value.encode(errors="surrogateescape")) for name, value in texts]


def sent_with(request: Any) -> dict[bytes, bytes]:
    """Return the headers of ``request``, with names in lower case, read once: a lookup by name takes as long."""
    try:
        return {name.lower(): value for name, value in _pairs(request.headers)}
    except Exception:  # noqa: BLE001 - there is no request, or it is the application's own object
        return {}


def _whole(value: bytes) -> int:
    number = integer(int(value))
    if number is None:
        raise ValueError("more than an attribute holds")
    return number


#: Key of the request's id as other servers name it, while headers are read; it is no attribute.
_OTHER_ID: Final = "another request's id"
#: Response header → attribute and reader. All are read in one pass, which takes as long as looking up one.
_HEADERS: Final[Mapping[bytes, tuple[str, Callable[[bytes], Any]]]] = {
    b"x-request-id": (semconv.REQUEST_ID, bytes.decode),
    b"openai-processing-ms": (semconv.PROCESSING_MS, _whole),
    b"x-ratelimit-remaining-requests": (semconv.REMAINING_REQUESTS, _whole),
    b"x-ratelimit-remaining-tokens": (semconv.REMAINING_TOKENS, _whole),
    # The request's id of Azure's gateway, Anthropic and Bedrock, which counts if there is no x-request-id.
    b"apim-request-id": (_OTHER_ID, bytes.decode),
    b"request-id": (_OTHER_ID, bytes.decode),
    b"x-amzn-requestid": (_OTHER_ID, bytes.decode),
}


def answered_with(headers: Any) -> Attributes:
    """Return the attributes that the ``headers`` of a response give; of several of one name, the last counts."""
    found: Attributes = {}
    for name, value in _pairs(headers):
        row = _HEADERS.get(name.lower())
        if row is not None:
            try:
                found[row[0]] = row[1](value)
            except ValueError:
                continue
    other = found.pop(_OTHER_ID, None)
    if other:
        found.setdefault(semconv.REQUEST_ID, other)
    return found
