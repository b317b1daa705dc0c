"""``instrument()`` and ``uninstrument()``: options → pipeline → patches, and back."""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection
from typing import Any

import wrapt
from opentelemetry.instrumentation.instrumentor import BaseInstrumentor  # type: ignore[attr-defined]

from openai_lifecycle import options, sdk
from openai_lifecycle.capture.initialization import Initializations
from openai_lifecycle.capture.patches import Patches
from openai_lifecycle.capture.recorder import Recorder
from openai_lifecycle.pipeline import Pipeline

_logger = logging.getLogger(__name__)
#: Several threads may switch on and off at once: ``BaseInstrumentor`` looks first and acts later.
_switching = threading.RLock()


class OpenAILifecycleInstrumentor(BaseInstrumentor):  # type: ignore[misc]  # untyped upstream
    """The instrumentor that ``opentelemetry-instrument`` loads; a singleton, as every ``BaseInstrumentor``."""

    _patches: Patches | None = None
    _pipeline: Pipeline | None = None

    def instrumentation_dependencies(self) -> Collection[str]:
        """Return what is instrumented. No upper bound: a version without a patch point is one warning."""
        return ("openai >= 1.66",)

    def instrument(self, **keywords: Any) -> Any:
        """Instrument, one thread at a time; see :func:`instrument`."""
        with _switching:
            return super().instrument(**keywords)

    def uninstrument(self, **keywords: Any) -> Any:
        """Undo it, one thread at a time; see :func:`uninstrument`."""
        with _switching:
            return super().uninstrument(**keywords)

    def _instrument(self, **keywords: Any) -> None:
        read = options.read(keywords)
        if sdk.disabled():
            _logger.info("openai-lifecycle: OTEL_SDK_DISABLED is set; OpenAI calls are not recorded")
            return
        self._pipeline = Pipeline(read)
        recorder = Recorder(self._pipeline, read)
        self._patches = Patches(recorder, Initializations(self._pipeline, read))
        self._pipeline.attach()
        # At once when openai is imported already, else when it is: an application that never imports it
        # pays nothing.
        wrapt.register_post_import_hook(self._patches.install, "openai")

    def start_sdk(self) -> None:
        """Start the SDK globally when nobody else has, if anything is to be recorded."""
        if self._pipeline is not None:
            sdk.start_globally()
            self._pipeline.attach()

    def _uninstrument(self, **_: Any) -> None:
        if self._patches is not None and self._pipeline is not None:
            self._patches.undo()
            self._pipeline.close()
        self._patches = self._pipeline = None


def instrument(**keywords: Any) -> None:
    """Record every call of the OpenAI client from now on; does nothing when that is already so.

    The keywords are the options of ``options.py``; what is not given comes from the environment.

    Raises:
        TypeError: a keyword is not an option.
        ValueError: a keyword's value is not allowed.
    """
    with _switching:
        instrumentor = OpenAILifecycleInstrumentor()
        if not instrumentor.is_instrumented_by_opentelemetry:
            instrumentor.instrument(**keywords)


def uninstrument() -> None:
    """Restore the client and write what is pending; does nothing when nothing is instrumented."""
    with _switching:
        instrumentor = OpenAILifecycleInstrumentor()
        if instrumentor.is_instrumented_by_opentelemetry:
            instrumentor.uninstrument()


def start_global_sdk() -> None:
    """Start the SDK for ``opentelemetry-instrument`` when no distro or configurator has.

    Entry point ``opentelemetry_post_instrument``, called after every instrumentor is loaded.
    """
    OpenAILifecycleInstrumentor().start_sdk()
