"""Token counts as all APIs except Chat Completions and legacy completions name them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from openai_lifecycle import semconv
from openai_lifecycle.capture.facts import Reply, Table, double, fields, integer, pick

USAGE: Final[Table] = {
    "input_tokens": (semconv.INPUT_TOKENS, integer),
    "output_tokens": (semconv.OUTPUT_TOKENS, integer),
    "total_tokens": (semconv.TOTAL_TOKENS, integer),
    "seconds": (semconv.INPUT_SECONDS, double),
}
INPUT_DETAILS: Final[Table] = {
    "cached_tokens": (semconv.CACHE_READ_TOKENS, integer),
    "cache_write_tokens": (semconv.CACHE_CREATION_TOKENS, integer),
    "audio_tokens": (semconv.INPUT_AUDIO_TOKENS, integer),
}
OUTPUT_DETAILS: Final[Table] = {
    "reasoning_tokens": (semconv.REASONING_TOKENS, integer),
    "audio_tokens": (semconv.OUTPUT_AUDIO_TOKENS, integer),
}
#: Audio and realtime call them ``token``, all others ``tokens``; if both are present, ``tokens`` counts.
DETAILS: Final[Mapping[str, Table]] = {
    "input_token_details": INPUT_DETAILS,
    "input_tokens_details": INPUT_DETAILS,
    "output_token_details": OUTPUT_DETAILS,
    "output_tokens_details": OUTPUT_DETAILS,
}


def usage(
    reply: Reply, counted: object, table: Table = USAGE, details: Mapping[str, Table] = DETAILS
) -> None:
    """Fold the server's token counts, zeros included, into ``reply``, by ``table`` and ``details``."""
    counts = fields(counted)
    if counts:
        pick(counts, table, reply.attributes)
        for name in details:
            if counts.get(name):
                pick(fields(counts[name]), details[name], reply.attributes)
