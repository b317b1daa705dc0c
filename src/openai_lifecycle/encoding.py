"""Text that every exporter can write, and no more of it than is wanted.

UTF-8 has no lone surrogates, JSON and models do. One that reaches a span's name or status makes the OTLP exporters
lose the whole batch of spans, the application's among them (``opentelemetry/exporter/otlp/proto/common/_internal``).
"""


def encodable(text: str) -> str:
    r"""Return ``text`` with each lone surrogate as its escape in JSON, which is how it came: ``\ud83d``."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def shortened(text: str, limit: int, length: int) -> str:
    """Return ``text``, the beginning of one of ``length`` characters, cut after ``limit`` with how many are missing."""
    return text if length <= limit else f"{text[:limit]}… [+{length - limit} chars]"
