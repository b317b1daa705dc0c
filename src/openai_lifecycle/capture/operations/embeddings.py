"""Embeddings: ``POST /embeddings``.

Shape: ``openai/types/create_embedding_response.py``. Vectors are counted and the first one is measured; nothing
is done for each of them, let alone for each of their numbers.
"""

from __future__ import annotations

from typing import Any

from openai_lifecycle import semconv
from openai_lifecycle.capture.facts import (
    Fields,
    Operation,
    Reply,
    Request,
    fields,
    integer,
    items,
    pick,
    text,
)
from openai_lifecycle.capture.operations import inputs


def _chosen(value: object) -> tuple[str] | None:
    """Return the encoding format that the caller chose.

    ``base64`` is what the client itself asks for when the caller chose nothing; it then hands out lists of
    numbers (``openai/resources/embeddings.py``, ``create``). So it says nothing about the caller.
    """
    return (value,) if isinstance(value, str) and value != "base64" else None


REQUEST = {
    "encoding_format": (semconv.ENCODING_FORMATS, _chosen),
    "dimensions": (semconv.DIMENSION_COUNT, integer),
    "user": (semconv.USER_ID, text),
}
USAGE = {
    "prompt_tokens": (semconv.INPUT_TOKENS, integer),
    "total_tokens": (semconv.TOTAL_TOKENS, integer),
}


def request(body: Fields) -> Request:
    """Return what was asked to be embedded."""
    given = inputs.split(body.get("input"))
    return Request(
        messages_count=len(given),
        said=inputs.lines(given),
        attributes=pick(body, REQUEST, {}),
    )


def response(reply: Reply, body: Any) -> None:
    """Fold the vectors' number and size into ``reply``."""
    created = fields(body)
    vectors = items(created.get("data"))
    reply.model = text(created.get("model")) or None
    reply.choices_count = len(vectors)
    pick(fields(created.get("usage")), USAGE, reply.attributes)
    size = _size(fields(vectors[0]).get("embedding")) if vectors else 0
    if size:
        reply.attributes[semconv.DIMENSION_COUNT] = size


def _size(vector: object) -> int:
    """Return how many numbers a vector has: a list, or base64 of 32-bit floats."""
    if isinstance(vector, str):
        return (len(vector) * 3 // 4 - vector.count("=", -2)) // 4
    return len(items(vector))


EMBEDDINGS = Operation("embeddings", request, response)
