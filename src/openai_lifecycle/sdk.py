"""Exporters by the SDK's own rules, for when nobody else has configured one.

The SDK's configurator (``opentelemetry/sdk/_configuration/__init__.py``) installs its providers globally and
gives up on the first wrong name. :func:`loaded` follows the same variables, installs nothing, and reports a
wrong value once while the rest goes on.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.trace import TracerProvider

_logger = logging.getLogger(__name__)
_reported: set[str] = set()


def disabled() -> bool:
    """Whether ``OTEL_SDK_DISABLED`` asks for no telemetry at all."""
    return os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"


_PROTOCOLS: Final = {"grpc": "otlp_proto_grpc", "http/protobuf": "otlp_proto_http"}


class Signal(NamedTuple):
    """A kind of telemetry: its name in variables, and the endpoints whose presence asks for OTLP.

    The general endpoint asks for traces only: the backend most people start with, Jaeger, accepts nothing
    else and answers metrics with an error a minute.
    """

    name: str
    endpoints: tuple[str, ...]

    @property
    def variable(self) -> str:
        """The variable that names exporters, such as ``OTEL_TRACES_EXPORTER``."""
        return f"OTEL_{self.name.upper()}_EXPORTER"

    def protocol(self) -> tuple[str, str]:
        """Return the variable that chooses the OTLP protocol, and its value."""
        specific, general = f"OTEL_EXPORTER_OTLP_{self.name.upper()}_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"
        chosen = specific if os.environ.get(specific) else general
        return chosen, os.environ.get(chosen, "").strip() or "grpc"


TRACES: Final = Signal("traces", ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"))
METRICS: Final = Signal("metrics", ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",))


def exporter_names(signal: Signal) -> list[str]:
    """Return the entry-point names of the exporters that the environment asks for."""
    asked = os.environ.get(signal.variable, "").strip()
    if asked:
        names = [name.strip() for name in asked.split(",")]
    else:
        names = ["otlp"] if any(os.environ.get(variable) for variable in signal.endpoints) else []
    resolved = (_resolved(signal, name) for name in names if name and name.lower() != "none")
    return [name for name in resolved if name]


def _resolved(signal: Signal, name: str) -> str | None:
    if name != "otlp":
        return name
    variable, protocol = signal.protocol()
    if protocol not in _PROTOCOLS:
        _report(variable, protocol, " or ".join(_PROTOCOLS))
    return _PROTOCOLS.get(protocol)


def loaded(signal: Signal) -> Iterator[type[Any]]:
    """Yield the exporter classes that the environment asks for; report those that cannot be had."""
    group = f"opentelemetry_{signal.name}_exporter"
    for name in exporter_names(signal):
        found = entry_points(group=group, name=name)
        if not found:
            _report(
                signal.variable, name, ", ".join(sorted({entry.name for entry in entry_points(group=group)}))
            )
            continue
        try:
            yield next(iter(found)).load()
        except ImportError as error:
            _logger.error("%s=%r cannot be loaded: %s", signal.variable, name, error)  # noqa: TRY400


def _report(variable: str, value: str, allowed: str) -> None:
    if variable not in _reported:
        _reported.add(variable)
        _logger.error(
            "%s=%r is not allowed: it must be one of %s, or none; it is left out", variable, value, allowed
        )


def tracer_provider() -> TracerProvider:
    """Return a new provider with sampler, resource, limits and exporters from ``OTEL_*``, not installed."""
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider()
    for exporter in loaded(TRACES):
        if exporter.__name__ != "EventsLogExporter":  # ours is attached anyway, and without a delay
            provider.add_span_processor(BatchSpanProcessor(exporter()))
    return provider


def meter_provider() -> MeterProvider | None:
    """Return a new provider with the metric exporters from ``OTEL_*``; ``None`` when none is asked for."""
    classes = list(loaded(METRICS))
    if not classes:
        return None
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader

    readers = [c() if issubclass(c, MetricReader) else PeriodicExportingMetricReader(c()) for c in classes]
    return MeterProvider(metric_readers=readers)


def start_globally() -> None:
    """Start the SDK globally, as a distro's configurator would, unless a provider is there already.

    An application that later sets a provider of its own still can: it was able to before this package was
    installed. For that the API's "set once" marks are renewed (``opentelemetry/trace/__init__.py``,
    ``set_tracer_provider``).
    """
    from opentelemetry import metrics, trace
    from opentelemetry.instrumentation.version import __version__ as instrumentation_version
    from opentelemetry.sdk._configuration import _OTelSDKConfigurator
    from opentelemetry.util._once import Once

    if not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        return
    if len(list(loaded(TRACES))) < len(exporter_names(TRACES)):
        return  # reported; a provider of our own takes the exporters that can be had
    implied = {
        f"{kind}_exporter_names": exporter_names(signal)
        for kind, signal in (("trace", TRACES), ("metric", METRICS))
        if not os.environ.get(signal.variable)
    }
    configurator: Any = _OTelSDKConfigurator  # untyped
    configurator().configure(auto_instrumentation_version=instrumentation_version, **implied)
    trace._TRACER_PROVIDER_SET_ONCE = Once()
    metrics._internal._METER_PROVIDER_SET_ONCE = Once()
