"""Events to write, the six golden entries' worth of them, and Hypothesis strategies for all there can be."""

from __future__ import annotations

import dataclasses
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
from openai_lifecycle.eventslog.format import render

SUCCESS = LLMGenerationSuccess(
    time=datetime.fromisoformat("2025-01-27 14:30:25"),
    provider="openai",
    model_id="gpt-4.1-mini",
    trace_id="0af7651916cd43dd8448eb211c80319c",
    operation="llm_generation",
    messages_count=2,
    temperature=0.7,
    message_content="system: Be brief. | user: Wie heißt die Hauptstadt von Österreich?",
    response_length=4,
    choices_count=1,
    metadata=Metadata(
        model_version="gpt-4.1-mini",
        max_tokens=100,
        top_p=0.7,
        user="llm_generation_user",
        custom_fields={
            "provider": "openai",
            "model_id": "gpt-4.1-mini",
            "operation_name": "chat",
            "input_tokens": "21",
            "output_tokens": "3",
            "span_id": "b7ad6b7169203331",
            "timestamp": "2025-01-27T14:30:25.123456+00:00",
        },
    ),
)


def numbered(number: int, writer: str = "") -> LifecycleEvent:
    """Return an event that says who wrote it and as which of his; entries vary in length."""
    return dataclasses.replace(
        SUCCESS, messages_count=number, model_id=writer, message_content="x" * (number * 37 % 1500)
    )


def entry(number: int, writer: str = "") -> str:
    """Return the entry of :func:`numbered`."""
    return render(numbered(number, writer))


# ------------------------------------------------------------------ everything an event can be
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
