"""Makes text encodable by every exporter, and shortens it.

UTF-8 cannot encode lone surrogates, but JSON and models produce them. One in a span's name or status makes
the OTLP exporters lose the whole batch of spans, the application's included
(``opentelemetry/exporter/otlp/proto/common/_internal``).
"""


def encodable(text: str) -> str:
    r"""Return ``text`` with each lone surrogate as its JSON escape, which is how it was sent: ``\ud83d``; always a plain ``str``."""
    if type(text) is not str:  # a member of a ``str`` enum, whose own ``__str__`` may return its name
        text = str.__str__(text)
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def shortened(text: str, limit: int, length: int) -> str:
    """Cut ``text``, the start of ``length`` characters, after ``limit`` and append how many are missing."""
    return text if length <= limit else f"{text[:limit]}… [+{length - limit} chars]"
