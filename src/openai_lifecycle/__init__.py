"""OpenTelemetry instrumentation for the OpenAI Python client.

Clients and their calls become spans. Six types of lifecycle event become span events, and entries of a
readable ``events.log``.

    import openai_lifecycle
    openai_lifecycle.instrument()

An event's fields are the keys of its entry, and ``time`` is that of the header: local or, with the option ``utc``, UTC,
to the second and without a zone. The exact time is ``metadata.custom_fields["timestamp"]``.

Names are loaded when they are first used: importing this package imports neither ``openai`` nor an exporter.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from openai_lifecycle.version import __version__

if TYPE_CHECKING:
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
    from openai_lifecycle.eventslog.exporter import EventsLogExporter
    from openai_lifecycle.eventslog.reader import read_events
    from openai_lifecycle.instrumentor import OpenAILifecycleInstrumentor
    from openai_lifecycle.switch import instrument, uninstrument

__all__ = [
    "EventsLogExporter",
    "LLMGenerationError",
    "LLMGenerationSuccess",
    "LLMInitializationError",
    "LLMInitializationStart",
    "LLMInitializationSuccess",
    "LifecycleEvent",
    "Metadata",
    "OpenAILifecycleInstrumentor",
    "ToolCallDetected",
    "__version__",
    "instrument",
    "read_events",
    "uninstrument",
]

_HOMES = {
    "EventsLogExporter": "openai_lifecycle.eventslog.exporter",
    "OpenAILifecycleInstrumentor": "openai_lifecycle.instrumentor",
    "instrument": "openai_lifecycle.switch",
    "read_events": "openai_lifecycle.eventslog.reader",
    "uninstrument": "openai_lifecycle.switch",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOMES.get(name, "openai_lifecycle.events")), name)
    return value


def __dir__() -> list[str]:
    return __all__
