"""``instrument()`` and ``uninstrument()``: options → pipeline → patches, and back.

The state stands here, below :class:`~openai_lifecycle.instrumentor.OpenAILifecycleInstrumentor` that shares it,
because ``BaseInstrumentor`` imports as much as the rest of this package together (``packaging``, the semantic
conventions of other instrumentations), and who calls these functions needs none of it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

import wrapt

from openai_lifecycle import options, sdk
from openai_lifecycle.capture.initialization import Initializations
from openai_lifecycle.capture.patches import Patches
from openai_lifecycle.capture.recorder import Recorder
from openai_lifecycle.pipeline import Pipeline

_logger = logging.getLogger(__name__)

#: What is instrumented. No upper bound: a version without a patch point is one warning.
DEPENDENCIES: Final = ("openai >= 1.66",)
_OLDEST: Final = (1, 66)


class Switch:
    """Whether calls are recorded, and what then does it."""

    def __init__(self) -> None:
        #: Several threads may switch on and off at once: held from the look at ``is_on`` to the act.
        self.lock = threading.RLock()
        self.is_on = False
        self._options: options.Options | None = None
        self._pipeline: Pipeline | None = None
        self._patches: Patches | None = None

    def on(self, keywords: Mapping[str, Any]) -> None:
        """Record from now on; with ``OTEL_SDK_DISABLED`` it is on but records nothing.

        When it is on already, other options than those in force take their place: what an application says of
        itself counts more than what ``opentelemetry-instrument`` has found in the environment.

        Raises:
            TypeError, ValueError: as ``options.read``; nothing changes then.
        """
        if self.is_on and not keywords:
            return
        read = options.read(keywords)
        if self.is_on:
            if read == self._options:
                return
            _logger.warning("openai-lifecycle: instrument() was called again; its options apply from now on")
            self.off()
        if sdk.disabled():
            _logger.info("openai-lifecycle: OTEL_SDK_DISABLED is set; OpenAI calls are not recorded")
        else:
            try:
                self._start(read)
            except BaseException:
                self.off()
                raise
        self._options, self.is_on = read, True

    def _start(self, read: options.Options) -> None:
        self._pipeline = Pipeline(read)
        recorder = Recorder(self._pipeline, read)
        self._patches = Patches(recorder, Initializations(self._pipeline, read))
        self._pipeline.attach()
        # At once when openai is imported already, else when it is: an application that never imports it pays
        # nothing.
        wrapt.register_post_import_hook(self._patches.install, "openai")

    def off(self) -> None:
        """Restore the client and write what is pending."""
        if self._patches is not None:
            self._patches.undo()
        if self._pipeline is not None:
            self._pipeline.close()
        self._patches = self._pipeline = None
        self.is_on = False

    def start_sdk(self) -> None:
        """Start the SDK globally when nobody else has, if anything is to be recorded."""
        if self._pipeline is not None:
            sdk.start_globally()
            self._pipeline.attach()


#: There is one client to patch, so there is one switch.
SWITCH: Final = Switch()


def instrument(**keywords: Any) -> None:
    """Record every call of the OpenAI client from now on.

    When that is already so, keywords that differ from the options in force replace them, with one warning, and
    without keywords nothing is done.

    The keywords are the options of ``options.py``; what is not given comes from the environment. When the
    installed openai is too old nothing is recorded, and one error is logged; where packages have no metadata to
    tell, ``OpenAILifecycleInstrumentor().instrument(skip_dep_check=True)`` does not ask.

    Raises:
        TypeError: a keyword is not an option.
        ValueError: a keyword's value is not allowed.
    """
    with SWITCH.lock:
        if SWITCH.is_on or _is_supported():
            SWITCH.on(keywords)


def uninstrument() -> None:
    """Restore the client and write what is pending; does nothing when nothing is instrumented."""
    with SWITCH.lock:
        if SWITCH.is_on:
            SWITCH.off()


def _is_supported() -> bool:
    """Whether the installed openai fulfils :data:`DEPENDENCIES`; logs why not.

    The judge is the one that ``BaseInstrumentor.instrument`` asks too; it imports ``packaging``, and is left in
    peace when the version is a release whose numbers say it all.
    """
    try:
        numbers = tuple(int(part) for part in version("openai").split("."))
    except (PackageNotFoundError, ValueError):
        numbers = ()
    if numbers >= _OLDEST:
        return True
    from opentelemetry.instrumentation.dependencies import get_dependency_conflicts

    conflict = get_dependency_conflicts(DEPENDENCIES)
    if conflict is not None:
        _logger.error("openai-lifecycle: %s", conflict)
    return conflict is None
