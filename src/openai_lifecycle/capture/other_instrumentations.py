"""Detects other instrumentations of the client: both work, but each call has two spans and counts twice."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from typing import Final

_logger = logging.getLogger(__name__)

#: Module of an instrumentor → its distribution. In each, the class is called ``OpenAIInstrumentor`` and the
#: entry point ``openai``.
OTHERS: Final[Mapping[str, str]] = {
    "opentelemetry.instrumentation.openai_v2": "opentelemetry-instrumentation-openai-v2",
    "opentelemetry.instrumentation.genai.openai": "opentelemetry-instrumentation-genai-openai",
    "opentelemetry.instrumentation.openai": "opentelemetry-instrumentation-openai",
    "openinference.instrumentation.openai": "openinference-instrumentation-openai",
}


def active() -> list[str]:
    """Return the distributions whose instrumentor is active, without importing anything."""
    return [name for module, name in OTHERS.items() if _instruments(module)]


def _instruments(module: str) -> bool:
    # Reading ``_instance`` does not create the singleton: ``opentelemetry/instrumentation/instrumentor.py``.
    instrumentor = getattr(sys.modules.get(module), "OpenAIInstrumentor", None)
    instance = getattr(instrumentor, "_instance", None)
    return getattr(instance, "_is_instrumented_by_opentelemetry", False) is True


def warn() -> None:
    """Log which other instrumentations are active, if any, and how to turn off either."""
    found = active()
    if found:
        _logger.warning(
            "%s instruments the OpenAI client too: every call has two spans and is counted twice. Keep one: "
            "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS=openai turns that one off, "
            "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS=openai_lifecycle this one; where the application itself calls "
            "instrument(), leave out that call",
            " and ".join(found),
        )
