"""Events to write that say who wrote them, and as which of his."""

from __future__ import annotations

import dataclasses
from datetime import datetime

from openai_lifecycle.events import (
    LifecycleEvent,
    LLMGenerationSuccess,
    Metadata,
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


def numbered(number: int, writer: str = "", size: int | None = None) -> LifecycleEvent:
    """Return an event that says who wrote it and as which of his; entries vary in length unless ``size`` is given."""
    content = "x" * (number * 37 % 1500 if size is None else size)
    return dataclasses.replace(SUCCESS, messages_count=number, model_id=writer, message_content=content)


def entry(number: int, writer: str = "", size: int | None = None) -> str:
    """Return the entry of :func:`numbered`."""
    return render(numbered(number, writer, size))
