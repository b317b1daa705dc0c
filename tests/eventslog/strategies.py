"""Hypothesis strategies for everything that an event can be; apart from the samples, which processes import often."""

from __future__ import annotations

from datetime import datetime
from itertools import pairwise
from typing import Any

from hypothesis import strategies as st

from openai_lifecycle.events import (
    LifecycleEvent,
    LLMGenerationError,
    LLMGenerationSuccess,
    LLMInitializationError,
    LLMInitializationStart,
    LLMInitializationSuccess,
    Metadata,
    ToolCallDetected,
)

# Two lone surrogates side by side are one character in JSON; no text of the outside world holds them.
_texts = st.text(st.characters(), max_size=60).filter(lambda text: not _has_surrogate_pair(text))
_numbers = st.one_of(
    st.none(), st.integers(-(2**70), 2**70), st.floats(allow_nan=False, allow_infinity=False)
)
_counts = st.one_of(st.none(), st.integers(0, 2**40))


def _has_surrogate_pair(text: str) -> bool:
    return any("\ud800" <= a <= "\udbff" and "\udc00" <= b <= "\udfff" for a, b in pairwise(text))


_metadata = st.builds(
    Metadata,
    model_version=st.none() | _texts,
    max_tokens=_numbers,
    top_p=_numbers,
    frequency_penalty=_numbers,
    presence_penalty=_numbers,
    stop_sequences=st.none() | st.lists(_texts, max_size=3).map(tuple),
    user=st.none() | _texts,
    custom_fields=st.dictionaries(_texts, _texts, max_size=4),
)
_times = st.datetimes(datetime.fromisoformat("1000-01-01")).map(lambda t: t.replace(microsecond=0))
_common: dict[str, Any] = {
    "time": _times,
    "provider": _texts,
    "model_id": _texts,
    "trace_id": _texts,
    "metadata": _metadata,
}

events: st.SearchStrategy[LifecycleEvent] = st.one_of(
    st.builds(LLMInitializationStart, **_common, temperature=_numbers),
    st.builds(LLMInitializationSuccess, **_common, capabilities=_texts),
    st.builds(LLMInitializationError, **_common, operation=_texts, error=_texts),
    st.builds(
        LLMGenerationSuccess,
        **_common,
        operation=_texts,
        messages_count=_counts,
        temperature=_numbers,
        message_content=_texts,
        response_length=_counts,
        choices_count=_counts,
    ),
    st.builds(
        LLMGenerationError,
        **_common,
        operation=_texts,
        messages_count=_counts,
        temperature=_numbers,
        message_content=_texts,
        error=_texts,
    ),
    st.builds(ToolCallDetected, **_common, tool_call_id=_texts, tool_name=_texts, arguments=_texts),
)
