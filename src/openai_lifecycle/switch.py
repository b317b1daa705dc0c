"""``instrument()`` and ``uninstrument()``: options → pipeline → patches, and back.

The state is here, and :class:`~openai_lifecycle.instrumentor.OpenAILifecycleInstrumentor` shares it, because
importing ``BaseInstrumentor`` costs as much as the rest of this package together (``packaging``, the semantic
conventions of other instrumentations), and callers of these functions do not need it.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Final

from openai_lifecycle import options, sdk
from openai_lifecycle.threads import Locked

if TYPE_CHECKING:
    from openai_lifecycle.capture.patches import Patches
    from openai_lifecycle.pipeline import Pipeline

_logger = logging.getLogger(__name__)

#: The supported client. No upper bound: a version that lacks a patch point only causes a warning.
DEPENDENCIES: Final = ("openai >= 1.66",)
_OLDEST: Final = (1, 66)


class Switch(Locked):
    """Whether the client is instrumented, and the pipeline and patches in use.

    The lock is held from the check of ``is_on`` until the switch is done: several threads may switch at once.
    """

    def __init__(self) -> None:
        super().__init__()
        self.is_on = False
        self._options: options.Options | None = None
        self._pipeline: Pipeline | None = None
        self._patches: Patches | None = None

    def on(self, keywords: Mapping[str, Any]) -> None:
        """Switch on and start recording; with ``OTEL_SDK_DISABLED`` nothing is recorded.

        If it is already on, options that differ from those in force replace them: the application's own call
        takes precedence over what ``opentelemetry-instrument`` found in the environment.

        If recording cannot start, one error is logged, and the client stays as it is.

        Raises:
            TypeError, ValueError: as ``options.read``; nothing changes then.
        """
        if self.is_on and not keywords:
            return
        read = options.read(keywords)
        if self.is_on:
            if read == self._options:
                return
            _logger.info("openai-lifecycle: instrument() was called again; its options apply from now on")
            self.off()
        if sdk.disabled():
            _logger.info("openai-lifecycle: OTEL_SDK_DISABLED is set; OpenAI calls are not recorded")
        else:
            try:
                self._start(read)
            except BaseException as error:
                self.off()
                if not isinstance(error, Exception):
                    raise
                # The API or the SDK itself cannot be used: OTEL_PROPAGATORS=b3 without its package, for instance.
                trouble = sdk.api_trouble(error)
                _logger.error("openai-lifecycle: OpenAI calls are not recorded: %s", trouble)  # noqa: TRY400 - one line
                return
        self._options, self.is_on = read, True

    def _start(self, read: options.Options) -> None:
        # Not earlier: what they import of the API and the SDK reads OTEL_PROPAGATORS and
        # OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT, and raises if these are wrong.
        from openai_lifecycle.capture.initialization import Initializations
        from openai_lifecycle.capture.patches import Patches, on_import
        from openai_lifecycle.capture.recorder import Recorder
        from openai_lifecycle.pipeline import Pipeline

        self._pipeline = Pipeline(read)
        recorder = Recorder(self._pipeline, read)
        self._patches = Patches(recorder, Initializations(self._pipeline, read))
        self._pipeline.attach()
        # Runs now if openai is already imported, else on its import: an application that never imports it
        # pays nothing.
        on_import("openai", self._patches.install)

    def off(self) -> None:
        """Restore the client and write what is pending."""
        if self._patches is not None:
            self._patches.undo()
        if self._pipeline is not None:
            self._pipeline.close()
        self._patches = self._pipeline = self._options = None
        self.is_on = False

    def start_sdk(self) -> None:
        """Start the SDK globally if nobody else has and there is something to record."""
        if self._pipeline is not None:
            sdk.start_globally()
            self._pipeline.attach()


#: There is one client to patch, so there is one switch.
SWITCH: Final = Switch()


def instrument(**keywords: Any) -> None:
    """Record every call of the OpenAI client from now on.

    The keywords are the options below; one that is not given comes from its variable. If it is already on,
    keywords that change the options in force replace all of them, and one INFO line says so; without keywords
    nothing happens.

    If the installed openai is too old, or OpenTelemetry cannot be used because of a wrong variable
    (``OTEL_PROPAGATORS``, for instance), nothing is recorded and one error is logged. Where packages have no metadata to
    check, ``OpenAILifecycleInstrumentor().instrument(skip_dep_check=True)`` skips the check.

    Raises:
        TypeError: a keyword is not an option.
        ValueError: a keyword's value is not allowed.
    """
    with SWITCH.lock:
        if SWITCH.is_on or _is_supported():
            SWITCH.on(keywords)


if instrument.__doc__:  # not with `python -OO`
    # Python 3.13 strips a docstring's indentation, and older ones do not.
    instrument.__doc__ = f"{inspect.cleandoc(instrument.__doc__)}\n\nOptions:\n{options.described()}"


def uninstrument() -> None:
    """Restore the client and write what is pending; do nothing if it is not instrumented."""
    with SWITCH.lock:
        SWITCH.off()


def _is_supported() -> bool:
    """Whether the installed openai satisfies :data:`DEPENDENCIES`; if not, logs why.

    The full check is the one that ``BaseInstrumentor.instrument`` does. It imports ``packaging``, so it is
    skipped for a plain release number that is new enough.
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
