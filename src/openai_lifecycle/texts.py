"""Makes text encodable by every exporter, shortens it, and parses JSON that may be broken.

UTF-8 cannot encode lone surrogates, but JSON and models produce them. One in a span's name or status makes
the OTLP exporters lose the whole batch of spans, the application's included
(``opentelemetry/exporter/otlp/proto/common/_internal``).
"""

from __future__ import annotations

import json
from typing import Any


def encodable(text: str) -> str:
    r"""Return ``text`` as a plain ``str``, each lone surrogate as the JSON escape that it was sent as: ``\ud83d``."""
    if type(text) is not str:  # a member of a ``str`` enum, whose own ``__str__`` may return its name
        text = str.__str__(text)
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:  # also of a pair whose halves arrived in two chunks: decoding joins it
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
        return text.encode("utf-8", "backslashreplace").decode()
    return text


def shortened(text: str, limit: int, length: int) -> str:
    """Cut ``text``, the start of ``length`` characters, after ``limit`` and append how many are missing."""
    return text if length <= limit else f"{text[:limit]}… [+{length - limit} chars]"


def parse_json(data: str | bytes, default: Any = None) -> Any:
    """Return the value that ``data`` is the JSON of, ``default`` if it is not valid or nested too deeply."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return default
