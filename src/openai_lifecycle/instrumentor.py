"""What ``opentelemetry-instrument`` loads: the :mod:`~openai_lifecycle.switch` as a ``BaseInstrumentor``."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from opentelemetry.instrumentation.instrumentor import BaseInstrumentor  # type: ignore[attr-defined]

from openai_lifecycle.switch import DEPENDENCIES, SWITCH


class OpenAILifecycleInstrumentor(BaseInstrumentor):  # type: ignore[misc]  # untyped upstream
    """The instrumentor of the OpenAI client; a singleton, as every ``BaseInstrumentor``.

    It shares its state with ``openai_lifecycle.instrument()``: if one is on, so is the other.
    """

    def instrumentation_dependencies(self) -> Collection[str]:
        """Return the supported versions of the client."""
        return DEPENDENCIES

    def instrument(self, **keywords: Any) -> Any:
        """Instrument, one thread at a time; see :func:`openai_lifecycle.switch.instrument`."""
        with SWITCH.lock:
            return super().instrument(**keywords)

    def uninstrument(self, **keywords: Any) -> Any:
        """Uninstrument, one thread at a time; see :func:`openai_lifecycle.switch.uninstrument`."""
        with SWITCH.lock:
            return super().uninstrument(**keywords)

    def _instrument(self, **keywords: Any) -> None:
        SWITCH.on(keywords)

    def _uninstrument(self, **_: Any) -> None:
        SWITCH.off()

    # The flag where ``BaseInstrumentor`` keeps its state (``opentelemetry/instrumentation/instrumentor.py``).
    @property
    def _is_instrumented_by_opentelemetry(self) -> bool:
        return SWITCH.is_on

    @_is_instrumented_by_opentelemetry.setter
    def _is_instrumented_by_opentelemetry(self, _: bool) -> None:
        """Ignore it: it is set after ``_instrument`` and ``_uninstrument``, which have already switched."""


def start_global_sdk() -> None:
    """Start the SDK for ``opentelemetry-instrument`` unless a distro or configurator has.

    Entry point ``opentelemetry_post_instrument``, called after every instrumentor is loaded.
    """
    SWITCH.start_sdk()
