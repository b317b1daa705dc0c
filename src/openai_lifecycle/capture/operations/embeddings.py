"""Embeddings: ``POST /embeddings``.

Shape: ``openai/types/create_embedding_response.py``. Vectors are counted and the first one is measured; no
work is done per vector, let alone per number.
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
from openai_lifecycle.capture.operations.usage import usage


def _chosen(value: object) -> tuple[str] | None:
    """Return the encoding format that the caller chose.

    ``base64`` does not count: the client itself requests it when the caller chose nothing, and then returns
    lists of numbers (``openai/resources/embeddings.py``, ``create``).
    """
    return (value,) if isinstance(value, str) and value != "base64" else None


REQUEST = {
    "encoding_format": (semconv.ENCODING_FORMATS, _chosen),
    "dimensions": (semconv.DIMENSION_COUNT, integer),
    "user": (semconv.USER_ID, text),
}


def request(body: Fields) -> Request:
    """Return the facts of a request for embeddings."""
    given = inputs.split(body.get("input"))
    return Request(
        messages_count=len(given),
        lines=inputs.lines(given),
        attributes=pick(body, REQUEST, {}),
    )


def response(reply: Reply, body: Any) -> None:
    """Fold id, model, the number of vectors, their dimension and the usage into ``reply``."""
    created = fields(body)
    vectors = items(created.get("data"))
    reply.identify(created)  # vLLM and Mistral send an id, OpenAI none
    reply.choices_count = len(vectors)
    usage(reply, created.get("usage"))
    size = _size(fields(vectors[0]).get("embedding")) if vectors else 0
    if size:
        reply.attributes[semconv.DIMENSION_COUNT] = size


def _size(vector: object) -> int:
    """Return the dimension of a vector: a list, or base64 of 32-bit floats."""
    if isinstance(vector, str):
        return (len(vector) * 3 // 4 - vector.count("=", -2)) // 4
    return len(items(vector))


EMBEDDINGS = Operation("embeddings", request, response)
