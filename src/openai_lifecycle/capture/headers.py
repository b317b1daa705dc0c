"""Reads headers alike, whether they are the HTTP client's, in bytes, or the websockets package's, in text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def pairs(headers: Any) -> Sequence[tuple[bytes, bytes]]:
    """Return names and values; none of an object that is neither kind of headers."""
    raw: Sequence[tuple[bytes, bytes]] | None = getattr(headers, "raw", None)
    if raw is not None:
        return raw
    read = getattr(headers, "raw_items", None)
    texts = () if read is None else read()
    return [(name.encode(), value.encode(errors="surrogateescape")) for name, value in texts]


def value_of(headers: Any, name: str) -> str | None:
    """Return one value; the last of several of that name, for which ``get`` of the websockets package raises."""
    several = getattr(headers, "get_all", None)
    found: str | None = headers.get(name) if several is None else [None, *several(name)][-1]
    return found


def sent_with(request: Any) -> dict[bytes, bytes]:
    """Return the headers of ``request``, with names in lower case, read once: a lookup by name takes as long."""
    try:
        return {name.lower(): value for name, value in pairs(request.headers)}
    except Exception:  # noqa: BLE001 - there is no request, or it is the application's own object
        return {}
