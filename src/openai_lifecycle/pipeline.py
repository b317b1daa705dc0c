"""Joins the configured SDK, or starts one from ``OTEL_*``, without interfering.

The provider is looked up for every span: applications construct clients at import time and configure
OpenTelemetry later, in ``main()``. At ``instrument()`` only the file is attached, if there is a provider by then.
"""

from __future__ import annotations

import atexit
import contextlib
import copy
import logging
import os
import weakref
from collections.abc import Iterator, Mapping
from types import CodeType
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import metrics, trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import Sampler

from openai_lifecycle import ending, losses, sdk, semconv
from openai_lifecycle.capture.call import LOCKING_CODE, end_all
from openai_lifecycle.capture.metrics import Instruments, instruments, is_unset
from openai_lifecycle.eventslog.exporter import EventsLogExporter, EventsLogProcessor
from openai_lifecycle.ids import OwnRandomIds
from openai_lifecycle.options import Options
from openai_lifecycle.sampling import RecordAll
from openai_lifecycle.shield import SHIELD
from openai_lifecycle.threads import Locked
from openai_lifecycle.version import __version__

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics import MeterProvider

_logger = logging.getLogger(__name__)

_PATIENCE: Final = 30.0  # seconds that a call waits for another that joins a provider
#: ``id(provider)`` → its processor. The SDK cannot remove a processor, so each provider gets one for ever, whose exporter
#: can be swapped. The id, because a provider may have no hash: Logfire's is a dataclass
#: (``logfire/_internal/tracer.py``, ``ProxyTracerProvider``). Weak values, because a processor's exporter has the
#: options, and these the provider, which would never be freed.
_processors: weakref.WeakValueDictionary[int, EventsLogProcessor] = weakref.WeakValueDictionary()


class Pipeline(Locked):
    """Where spans, metrics and entries go."""

    def __init__(self, options: Options) -> None:
        super().__init__()
        self._options = options
        self._exporter = EventsLogExporter(options) if options.events_log or options.sinks else None
        self._joined: list[EventsLogProcessor] = []
        self._samplers: list[tuple[Any, Sampler]] = []
        self._own: TracerProvider | None = None
        self._own_meters: MeterProvider | None = None
        self._provider: object = None
        self._spare: trace.Tracer | None = None
        self._tracer: trace.Tracer = trace.NoOpTracer()
        self.instruments = instruments(options.meter_provider)

    def tracer(self) -> trace.Tracer:
        """Return the tracer of the current provider, joining that provider when it is new."""
        provider = self._wanted()
        lock = self.lock
        # With a time limit: the thread that joins may log, and wait for a log handler that is itself asking a model here.
        if provider is not self._provider and lock.acquire(timeout=_PATIENCE):
            try:
                if provider is not self._provider:
                    self._join(provider)
            finally:
                lock.release()
        return self._tracer

    def start_span(self, name: str, kind: trace.SpanKind, attributes: Mapping[str, Any]) -> trace.Span:
        """Start a span of the current provider, or of one of our own if a processor of the application raises."""
        try:
            return self.tracer().start_span(name, kind=kind, attributes=attributes)
        except Exception as error:  # noqa: BLE001 - cheaper than a with statement
            SHIELD.swallow(error)
        return self._spare_tracer().start_span(name, kind=kind, attributes=attributes)

    def end_span(self, span: trace.Span) -> None:
        """End a span that :meth:`start_span` returned; its entries are written even if one of its processors raises."""
        try:
            span.end()
        finally:
            if self._exporter is not None:
                self._exporter.complete(span)

    def attach(self) -> None:
        """Attach the file to an existing provider, because other instrumentations may use it first."""
        provider = self._wanted()
        if hasattr(provider, "add_span_processor"):
            with self.lock, contextlib.suppress(Exception):  # the first span tries again, and reports it
                self._attach(provider)

    def _wanted(self) -> Any:
        """Return the provider to use: the one given, or the global one, which the API's proxy stands for."""
        given = self._options.tracer_provider
        if given is None or isinstance(given, trace.ProxyTracerProvider):
            return trace.get_tracer_provider()
        return given

    def close(self) -> None:
        """Restore every joined provider and write everything that has ended."""
        with self.lock:
            for processor in self._joined:
                processor.leave()
            for tracer, sampler in self._samplers:
                tracer.sampler = sampler
            # Metrics last: they count what a destination loses at its end.
            for part in (self._own, self._exporter, self._own_meters):
                if part is not None:
                    with SHIELD:  # an exporter may raise, and the rest is still to be closed
                        part.shutdown()
            losses.use(None)

    def _join(self, provider: Any) -> None:
        """Send spans to ``provider`` from now on; to one of our own if it cannot take them."""
        if self._try_to_attach(provider):
            target, how = provider, "joined the global TracerProvider"
        else:
            target, how = self._own_provider(), "started a TracerProvider of its own"
        tracer = self._tracer_of(target)
        self._start_metrics()
        self._tracer, self._provider = tracer, provider
        # Exit handlers run last in, first out: calls still open end before this provider shuts down.
        atexit.register(end_all)
        ending.register_first(end_all)
        place = self._exporter.place if self._exporter and self._options.events_log else "off"
        names = ", ".join(sdk.exporter_names(sdk.TRACES)) or "none"
        with SHIELD:
            _logger.info("openai-lifecycle %s; events.log: %s; OTEL exporters: %s", how, place, names)

    def _try_to_attach(self, provider: Any) -> bool:
        """Attach the file to ``provider``; return False, and say why, if it takes no span processor."""
        if hasattr(provider, "add_span_processor"):
            with SHIELD:  # the application's provider may raise
                self._attach(provider)
                return True
        if not isinstance(provider, trace.ProxyTracerProvider):
            kind = type(provider).__qualname__
            with SHIELD:  # the application's log handler may raise
                _logger.warning("the TracerProvider, a %s, accepts no span processor and is left alone", kind)
        return False

    def _tracer_of(self, provider: Any) -> trace.Tracer:
        """Return our tracer of an attached provider. Only it is changed, not the provider or its other tracers."""
        tracer: trace.Tracer = provider.get_tracer(semconv.SCOPE, __version__, semconv.SCHEMA_URL)
        LOCKING_CODE.update(_methods_of_processors(provider))
        inner = getattr(tracer, "tracer", tracer)  # Logfire's is a wrapper around the SDK's
        _lift_event_limit(inner)
        _leave_random_numbers(inner)
        if self._exporter is not None:
            self._record_unsampled(inner)
        return tracer

    def _spare_tracer(self) -> trace.Tracer:
        """Return a tracer of our own provider, for when that of the application's raises."""
        if self.lock.acquire(timeout=_PATIENCE):
            try:
                self._spare = self._spare or self._tracer_of(self._own_provider())
            finally:
                self.lock.release()
        return self._spare or trace.NoOpTracer()

    def _own_provider(self) -> TracerProvider:
        if self._own is None:
            self._own = sdk.tracer_provider()
            self._attach(self._own)
        return self._own

    def _start_metrics(self) -> None:
        """Export metrics if the environment says so and there is no provider to join."""
        is_wanted = self._options.meter_provider is None and is_unset(metrics.get_meter_provider())
        if is_wanted and self._own_meters is None:
            self._own_meters = sdk.meter_provider()
            if self._own_meters is not None:
                self.instruments = Instruments(self._own_meters)
                losses.use(self._own_meters)

    def _attach(self, provider: Any) -> None:
        """Let a processor of ``provider`` hand spans to the exporter, if there is one."""
        if self._exporter is None:
            return
        processor = _processors.get(id(provider))
        if processor is None:
            processor = EventsLogProcessor()
            # A later provider may get the same id while this processor lives on in the provider that this one wrapped.
            weakref.finalize(provider, _processors.pop, id(provider), None).atexit = False
            provider.add_span_processor(processor)
            _processors[id(provider)] = processor  # not before: it may have raised
        processor.join(self._exporter)
        if processor not in self._joined:
            self._joined.append(processor)

    def _record_unsampled(self, tracer: Any) -> None:
        """Let ``tracer`` also record the spans that its sampler drops."""
        sampler: Any = getattr(tracer, "sampler", None)
        # The SDK takes any object with this method. A provider may return a tracer that was changed here before.
        if hasattr(sampler, "should_sample") and not isinstance(sampler, RecordAll):
            self._samplers.append((tracer, sampler))
            tracer.sampler = RecordAll(sampler)


def _methods_of_processors(provider: Any) -> Iterator[CodeType]:
    """Yield the code of the methods of a provider's span processors and of their exporters."""
    for processor in getattr(getattr(provider, "_active_span_processor", None), "_span_processors", ()):
        for one in (processor, getattr(processor, "span_exporter", processor)):
            for base in type(one).__mro__:
                codes = (getattr(method, "__code__", None) for method in vars(base).values())
                yield from (code for code in codes if isinstance(code, CodeType))


def _leave_random_numbers(tracer: Any) -> None:
    """Take the ids of our spans from another source than ``random``, which the application may have seeded.

    A generator of the application's own is kept.
    """
    if type(getattr(tracer, "id_generator", None)) is RandomIdGenerator:
        tracer.id_generator = OwnRandomIds()


def _lift_event_limit(tracer: Any) -> None:
    """Let our spans carry any number of events: beyond the SDK's 128 the oldest, tool calls, would be dropped.

    A limit set explicitly is kept (``opentelemetry/sdk/trace/__init__.py``, ``SpanLimits``).
    """
    limits = getattr(tracer, "_span_limits", None)
    if getattr(limits, "max_events", None) == 128 and "OTEL_SPAN_EVENT_COUNT_LIMIT" not in os.environ:
        tracer._span_limits = copy.copy(limits)
        tracer._span_limits.max_events = None
