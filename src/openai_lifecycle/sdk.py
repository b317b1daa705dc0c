"""Makes exporters by the SDK's own rules, for when nobody else has configured one.

The SDK's configurator (``opentelemetry/sdk/_configuration/__init__.py``) installs its providers globally and
gives up on the first wrong name. :func:`loaded` follows the same variables, installs nothing, and reports a
wrong value once and continues with the rest.
"""

from __future__ import annotations

import contextlib
import inspect
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar
from urllib.parse import unquote

from opentelemetry import metrics, trace

from openai_lifecycle import threads
from openai_lifecycle.redaction import redact

if TYPE_CHECKING:
    # Only in functions at run time: a wrong OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT makes the import of
    # ``opentelemetry/sdk/trace/__init__.py`` raise, and `instrument()` must not.
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.trace import SpanProcessor, TracerProvider

_logger = logging.getLogger(__name__)
_Provider = TypeVar("_Provider")
_reported: set[str] = set()


def disabled() -> bool:
    """Whether ``OTEL_SDK_DISABLED`` asks for no telemetry at all."""
    return os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"


#: The variables for which OpenTelemetry's API itself raises when they name what is not installed.
_API_VARIABLES: Final = ("OTEL_PROPAGATORS", "OTEL_PYTHON_TRACER_PROVIDER", "OTEL_PYTHON_METER_PROVIDER")


def api_trouble(error: Exception) -> str:
    """Describe an error of the API, which may be a bare ``StopIteration``, with the variables that may be its cause."""
    named = [f"{name}={os.environ[name]}" for name in _API_VARIABLES if os.environ.get(name)]
    return ": ".join(filter(None, (", ".join(named), repr(error))))


_PROTOCOLS: Final = {"grpc": "otlp_proto_grpc", "http/protobuf": "otlp_proto_http"}


class Signal(NamedTuple):
    """A kind of telemetry: its name in variables, and the endpoints that enable OTLP.

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
    """Return the entry-point names of the exporters that the environment selects."""
    asked = os.environ.get(signal.variable, "").strip()
    if asked:
        names = [name.strip() for name in asked.split(",")]
    else:
        names = ["otlp"] if any(os.environ.get(variable) for variable in signal.endpoints) else []
    resolved = (_resolved(signal, name) for name in names if name.lower() != "none")
    return [name for name in resolved if name]


def _resolved(signal: Signal, name: str) -> str | None:
    if name != "otlp":
        return name
    variable, protocol = signal.protocol()
    if protocol not in _PROTOCOLS:
        wrong, allowed = f"{variable}={protocol!r}", " or ".join(_PROTOCOLS)
        _report(wrong, f"{wrong} is not allowed: it must be {allowed}; nothing is exported over OTLP")
    return _PROTOCOLS.get(protocol)


def loaded(signal: Signal) -> Iterator[type[Any]]:
    """Yield the exporter classes that the environment selects; report those that cannot be loaded."""
    group = f"opentelemetry_{signal.name}_exporter"
    for name in exporter_names(signal):
        wrong = f"{signal.variable}={name!r}"
        found = entry_points(group=group, name=name)
        if not found:
            known = ", ".join(sorted({entry.name for entry in entry_points(group=group)}))
            allowed = f"is not allowed: it must be {known} or none"
            missing = "cannot be loaded: no package's metadata names an exporter"  # in a frozen application
            _report(wrong, f"{wrong} {allowed if known else missing}; it is ignored")
            continue
        try:
            exporter = next(iter(found)).load()
        except Exception as error:  # noqa: BLE001 - a package that is broken in any way
            _report(wrong, f"{wrong} cannot be loaded: {_described(error)}")
        else:
            yield exporter


def _report(cause: str, message: str) -> None:
    """Log an error, one for each ``cause``. Without a traceback, which may quote secrets."""
    if cause not in _reported:
        _reported.add(cause)
        _logger.error("%s", message)


@contextlib.contextmanager
def _without(what: str) -> Iterator[None]:
    """Go on without ``what`` when it cannot be started, and report why, once.

    The SDK and its exporters read the standard variables when they are created, and may raise anything.
    """
    try:
        yield
    except Exception as error:  # noqa: BLE001 - see above
        cause = _described(error)
        settings = ", ".join(sorted(name for name in os.environ if name.startswith("OTEL_")))
        _report(cause, f"continuing without {what}: {cause}; set variables: {settings or 'none'}")


def _described(error: Exception) -> str:
    """Return type and text of ``error``, without header values, which may be credentials."""
    headers = (value for name, value in os.environ.items() if name.endswith("_HEADERS"))
    secrets = {part.strip() for value in headers for part in re.split("[=,]", f"{value},{unquote(value)}")}
    return f"{type(error).__name__}: {redact(str(error), secrets)}"


@contextlib.contextmanager
def _shut_down_on_failure(*parts: Any) -> Iterator[None]:
    """Shut down ``parts`` if what they are made for cannot be made."""
    try:
        yield
    except BaseException:
        for part in parts:
            part.shutdown()
        raise


def tracer_provider() -> TracerProvider:
    """Return a new provider with sampler, resource, limits and exporters from ``OTEL_*``, not installed.

    Parts that fail because of a wrong variable are reported and left out.
    """
    from opentelemetry.sdk.trace import SpanLimits, TracerProvider

    # No limits, for when SpanLimits() raises because of a wrong variable.
    unlimited = dict.fromkeys(inspect.signature(SpanLimits).parameters, SpanLimits.UNSET)
    limits = SpanLimits(**unlimited)
    with _without("span limits"):
        limits = SpanLimits()
    provider = _new_provider(TracerProvider, span_limits=limits)
    for exporter in loaded(TRACES):
        if exporter.__name__ != "EventsLogExporter":  # ours is attached anyway, without batching
            with _without(_name(exporter)):
                provider.add_span_processor(_batch_processor(exporter()))
    return provider


def _forking_quietly(provider: type[_Provider]) -> type[_Provider]:
    """Return a subclass of ``provider`` that does nothing in a child that is forked under gevent.

    The SDK's providers detect the child's resource in a thread pool (``opentelemetry/sdk/trace/__init__.py``,
    ``_handle_fork``). Waiting for a greenlet would run the application's other greenlets, in a child that mostly
    exists only to start another program.
    """
    theirs: Callable[[Any], None] | None = getattr(provider, "_handle_fork", None)
    if theirs is None:
        return provider

    def _handle_fork(self: Any) -> None:
        if not threads.are_greenlets():
            theirs(self)

    return type(provider.__name__, (provider,), {"_handle_fork": _handle_fork})


def _new_provider(kind: type[_Provider], **arguments: Any) -> _Provider:
    """Return a provider of the SDK's, also where the main thread has ended, so that no thread pool can be started.

    ``Resource.create`` starts one for its detectors (``opentelemetry/sdk/resources/__init__.py``); without it the
    resource is that of the environment variables.
    """
    quiet: Callable[..., _Provider] = _forking_quietly(kind)
    try:
        return quiet(**arguments)
    except RuntimeError:
        from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource

        unnamed = Resource({SERVICE_NAME: f"unknown_service:{os.path.basename(sys.executable or 'python')}"})
        return quiet(resource=unnamed.merge(OTELResourceDetector().detect()), **arguments)


def _batch_processor(exporter: Any) -> SpanProcessor:
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    with _shut_down_on_failure(exporter):
        return BatchSpanProcessor(exporter)


def meter_provider() -> MeterProvider | None:
    """Return a new provider with the metric exporters from ``OTEL_*``; ``None`` when none is available or asked for."""
    readers: list[Any] = []
    for exporter in loaded(METRICS):
        with _without(_name(exporter)):
            readers.append(_metric_reader(exporter()))
    if readers:
        with _without("metrics"), _shut_down_on_failure(*readers):
            from opentelemetry.sdk.metrics import MeterProvider

            return _new_provider(MeterProvider, metric_readers=readers)
    return None


def _metric_reader(exporter: Any) -> Any:
    from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader

    if isinstance(exporter, MetricReader):
        return exporter
    with _shut_down_on_failure(exporter):
        return PeriodicExportingMetricReader(exporter)


def _name(exporter: type[Any]) -> str:
    return f"{exporter.__module__}.{exporter.__qualname__}"


def start_globally() -> None:
    """Start the SDK globally, as a distro's configurator would, unless a provider is there already.

    An application can still set its own provider later, as it could before this package was installed: the API's
    "set once" marks are renewed for that (``opentelemetry/trace/__init__.py``, ``set_tracer_provider``). What cannot
    be started is reported and left out.
    """
    if not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        return
    with _without("an SDK that is started globally"):
        with_file = is_configured_by_file()
        if with_file or len(list(loaded(TRACES))) == len(exporter_names(TRACES)):
            _configure(with_file=with_file)
        # Otherwise loaded() has reported why, and our own provider will use the exporters that can be loaded.


def is_configured_by_file() -> bool:
    """Whether the SDK is set up by the file that ``OTEL_CONFIG_FILE`` names, and by no other variable."""
    from opentelemetry.sdk import environment_variables

    # An older SDK does not know the variable.
    return hasattr(environment_variables, "OTEL_CONFIG_FILE") and bool(os.environ.get("OTEL_CONFIG_FILE"))


#: The SDK's classes that its configurator finds in its own module.
_PROVIDERS: Final = ("TracerProvider", "MeterProvider", "LoggerProvider")


def _configure(*, with_file: bool) -> None:
    from opentelemetry import _logs
    from opentelemetry.instrumentation.version import __version__ as instrumentation_version
    from opentelemetry.sdk import _configuration
    from opentelemetry.sdk._configuration import _OTelSDKConfigurator
    from opentelemetry.util._once import Once

    configurator: Any = _OTelSDKConfigurator  # untyped
    arguments: dict[str, Any] = {}
    # With a file the SDK warns of arguments, which it ignores (``_OTelSDKConfigurator._configure``).
    if not with_file:
        # Also those that only an endpoint asks for. One that a variable names too is started once
        # (``opentelemetry/sdk/_configuration/__init__.py``, ``_import_exporters``).
        arguments = {
            "auto_instrumentation_version": instrumentation_version,
            "trace_exporter_names": exporter_names(TRACES),
            "metric_exporter_names": exporter_names(METRICS),
        }
    configuration: Any = _configuration
    theirs = {name: getattr(configuration, name) for name in _PROVIDERS if hasattr(configuration, name)}
    vars(configuration).update({name: _forking_quietly(provider) for name, provider in theirs.items()})
    try:
        configurator().configure(**arguments)
    finally:
        vars(configuration).update(theirs)
        trace._TRACER_PROVIDER_SET_ONCE = Once()
        metrics._internal._METER_PROVIDER_SET_ONCE = Once()
        _logs._internal._LOGGER_PROVIDER_SET_ONCE = Once()
