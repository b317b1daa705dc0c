"""Token counts, by every name that an API gives them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from openai_lifecycle import semconv
from openai_lifecycle.capture.facts import Reply, Table, double, fields, integer, pick

#: Chat Completions, legacy completions and embeddings say prompt and completion, all others input and output.
_USAGE: Final[Table] = {
    "input_tokens": (semconv.INPUT_TOKENS, integer),
    "output_tokens": (semconv.OUTPUT_TOKENS, integer),
    "prompt_tokens": (semconv.INPUT_TOKENS, integer),
    "completion_tokens": (semconv.OUTPUT_TOKENS, integer),
    "total_tokens": (semconv.TOTAL_TOKENS, integer),
    "seconds": (semconv.INPUT_SECONDS, double),
    "prompt_audio_seconds": (semconv.INPUT_SECONDS, double),  # Mistral
    # OpenAI has these in the details, which are read afterwards and so take precedence.
    "prompt_cache_hit_tokens": (semconv.CACHE_READ_TOKENS, integer),  # DeepSeek
    "cached_tokens": (semconv.CACHE_READ_TOKENS, integer),  # Moonshot
    "cache_read_input_tokens": (semconv.CACHE_READ_TOKENS, integer),  # LiteLLM's proxy
    "cache_creation_input_tokens": (semconv.CACHE_CREATION_TOKENS, integer),
    "reasoning_tokens": (semconv.REASONING_TOKENS, integer),  # Perplexity
}
_INPUT: Final[Table] = {
    "cached_tokens": (semconv.CACHE_READ_TOKENS, integer),
    "cache_write_tokens": (semconv.CACHE_CREATION_TOKENS, integer),
    "audio_tokens": (semconv.INPUT_AUDIO_TOKENS, integer),
}
_OUTPUT: Final[Table] = {
    "reasoning_tokens": (semconv.REASONING_TOKENS, integer),
    "audio_tokens": (semconv.OUTPUT_AUDIO_TOKENS, integer),
}
#: Audio and realtime call them ``token``, all others ``tokens``; if both are present, ``tokens`` counts.
_DETAILS: Final[Mapping[str, Table]] = {
    "input_token_details": _INPUT,
    "input_tokens_details": _INPUT,
    "prompt_tokens_details": _INPUT,
    "output_token_details": _OUTPUT,
    "output_tokens_details": _OUTPUT,
    "completion_tokens_details": _OUTPUT,
}


def usage(reply: Reply, counted: object) -> None:
    """Fold the server's token counts, zeros included, into ``reply``."""
    counts = fields(counted)
    if counts:
        pick(counts, _USAGE, reply.attributes)
        for name, table in _DETAILS.items():
            if counts.get(name):
                pick(fields(counts[name]), table, reply.attributes)
