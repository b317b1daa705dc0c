"""Reports what instrumentation would do here: what is installed, where spans and entries go, what is wrong."""

from __future__ import annotations

import logging
import os
import platform
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, distributions, entry_points, version
from signal import Signals
from typing import Final, Literal, TypeAlias
from urllib.parse import urlsplit

from opentelemetry import metrics, trace
from opentelemetry.instrumentation.dependencies import get_dist_dependency_conflicts

from openai_lifecycle import environment_variables as env
from openai_lifecycle import options, sdk, sinks
from openai_lifecycle.redaction import address
from openai_lifecycle.sinks.jsonl import jsonl_file
from openai_lifecycle.version import __version__

Level: TypeAlias = Literal["ok", "note", "problem"]

_PACKAGES: Final = (
    "openai",
    "opentelemetry-api",
    "opentelemetry-sdk",
    "opentelemetry-instrumentation",
    "wrapt",
)
_ENTRY_POINTS: Final = (
    ("opentelemetry_instrumentor", "opentelemetry-instrument loads the instrumentor"),
    ("opentelemetry_post_instrument", "opentelemetry-instrument starts the SDK where nobody else does"),
    ("opentelemetry_environment_variables", "each variable is a flag of opentelemetry-instrument"),
)
_OTHERS: Final = ("ddtrace", "langfuse", "langtrace-python-sdk", "logfire", "traceloop-sdk")
#: OTLP exporter → the endpoint that it uses where none is set.
_ENDPOINTS: Final = {"otlp_proto_grpc": "http://localhost:4317", "otlp_proto_http": "http://localhost:4318"}
_TIMEOUT: Final = 2.0  # seconds for a connection


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: ``problem`` is what keeps telemetry from being complete."""

    level: Level
    topic: str
    text: str


class _Complaints(logging.Handler):
    """Keeps what this package logs, such as a variable with a value that is not allowed."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the line."""
        self.found.append(record.getMessage())


def findings() -> Iterator[Finding]:
    """Yield the findings about this environment."""
    complaints, logger = _Complaints(), logging.getLogger("openai_lifecycle")
    logger.addHandler(complaints)
    try:
        yield from _findings()
    finally:
        logger.removeHandler(complaints)
    for complaint in dict.fromkeys(complaints.found):
        yield Finding("problem", "option", complaint)


def _findings() -> Iterator[Finding]:
    read = options.read()
    yield Finding("ok", "version", f"openai-lifecycle {__version__}, Python {platform.python_version()}")
    yield from _versions()
    yield from _entry_points()
    yield from _switches()
    yield from _api()
    yield from _unknown_variables()
    yield from _exporters()
    yield from _log(read.events_log)
    yield from _sinks(read.sinks)
    yield from _conflicts()
    yield Finding("ok", "content", _CONTENT[read.capture])


_CONTENT: Final = {
    options.Capture.NO_CONTENT: "no_content: no prompt, completion, tool argument or error text anywhere",
    options.Capture.EVENT_ONLY: "event_only: in events.log and on span events, not on span attributes",
    options.Capture.SPAN_ONLY: "span_only: on span attributes, not in events.log",
    options.Capture.SPAN_AND_EVENT: "span_and_event: in events.log and on spans",
}


def _versions() -> Iterator[Finding]:
    # The check of opentelemetry-instrument: the extra `instruments` says what instrument() requires.
    ours = next(iter(distributions(name="openai-lifecycle")), None)
    conflict = get_dist_dependency_conflicts(ours) if ours else None
    for name in _PACKAGES:
        try:
            found = f"{name} {version(name)}"
        except PackageNotFoundError:
            yield Finding("problem", "version", f"{name} is not installed")
            continue
        if conflict and found == conflict.found:
            oldest = str(conflict.required).partition(">=")[2].partition(";")[0]
            found = f"{found} is too old: {oldest} or newer is needed, nothing is recorded"
            yield Finding("problem", "version", found)
        else:
            yield Finding("ok", "version", found)


def _entry_points() -> Iterator[Finding]:
    for group, purpose in _ENTRY_POINTS:
        if entry_points(group=group, name="openai_lifecycle"):
            yield Finding("ok", "entry point", f"{group}: {purpose}")
        else:
            yield Finding("problem", "entry point", f"{group}: missing; reinstall the package ({purpose})")


def _switches() -> Iterator[Finding]:
    if sdk.disabled():
        yield Finding("problem", "switch", "OTEL_SDK_DISABLED is set: nothing is recorded")
    if _is_disabled("openai_lifecycle"):
        yield Finding(
            "problem",
            "switch",
            "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS keeps opentelemetry-instrument from loading it",
        )


def _is_disabled(instrumentation: str) -> bool:
    """Return whether ``opentelemetry-instrument`` is told not to load the entry point of that name."""
    names = os.environ.get("OTEL_PYTHON_DISABLED_INSTRUMENTATIONS", "").split(",")
    return not {instrumentation, "*"}.isdisjoint(map(str.strip, names))


def _api() -> Iterator[Finding]:
    """Load what ``instrument()`` needs of the API and the SDK, which raise because of some wrong variables."""
    try:
        import_module("opentelemetry.propagate")
        import_module("opentelemetry.sdk.trace")
        trace.get_tracer_provider()
        metrics.get_meter_provider()
    except Exception as error:  # noqa: BLE001 - whatever a propagator's or provider's package raises
        trouble = sdk.api_trouble(error)
        yield Finding("problem", "API", f"OpenTelemetry cannot be used, nothing is recorded: {trouble}")


def _unknown_variables() -> Iterator[Finding]:
    for name in sorted(os.environ):
        if name.startswith("OTEL_PYTHON_OPENAI_LIFECYCLE_") and not hasattr(env, name):
            yield Finding("note", "option", f"{name} is unknown and has no effect")


def _exporters() -> Iterator[Finding]:
    distros = sorted(
        {
            entry.dist.name if entry.dist else entry.value
            for group in ("distro", "configurator")
            for entry in entry_points(group=f"opentelemetry_{group}")
        }
    )
    started = ", ".join(distros) or "this package, where the application does not"
    sampler = os.environ.get("OTEL_TRACES_SAMPLER") or "default"
    yield Finding("ok", "SDK", f"started by {started}; sampler {sampler}")
    if sdk.is_configured_by_file():
        found = "opentelemetry-instrument sets it up as the file of OTEL_CONFIG_FILE says, which was not read here"
        yield Finding("note", "SDK", found)
        return
    for signal in (sdk.TRACES, sdk.METRICS):
        names = sdk.exporter_names(signal)
        known = {entry.name for entry in entry_points(group=f"opentelemetry_{signal.name}_exporter")}
        for name in names:
            if name in known:
                yield Finding("ok", "exporter", f"{signal.name}: {name}")
            else:
                yield Finding("problem", "exporter", f"{signal.name}: {name} is not installed")
            if name in _ENDPOINTS:
                yield _reachable(signal, name)
        if not names:
            yield _unnamed(signal, has_distro=bool(distros))


#: Signal → the variable that asks for its export.
_ASKING: Final = {sdk.TRACES: "OTEL_EXPORTER_OTLP_ENDPOINT", sdk.METRICS: "OTEL_METRICS_EXPORTER=otlp"}


def _unnamed(signal: sdk.Signal, *, has_distro: bool) -> Finding:
    """Say what happens where no variable asks for an exporter of ``signal``."""
    if os.environ.get(signal.variable, "").strip().lower() == "none":
        return Finding("ok", "exporter", f"{signal.name}: none, as {signal.variable} says")
    if has_distro:  # opentelemetry-distro sets the variable to otlp when opentelemetry-instrument loads it
        text = f"what the distro chooses under opentelemetry-instrument, mostly otlp; set {signal.variable} to choose"
        return Finding("note", "exporter", f"{signal.name}: {text}")
    level: Level = "note" if signal is sdk.TRACES else "ok"
    return Finding(level, "exporter", f"{signal.name}: none; set {_ASKING[signal]} to export them")


def _reachable(signal: sdk.Signal, name: str) -> Finding:
    variables = (*signal.endpoints, "OTEL_EXPORTER_OTLP_ENDPOINT")
    given = next(filter(None, map(os.environ.get, variables)), _ENDPOINTS[name])
    endpoint = given if "://" in given else f"http://{given}"
    # gRPC's own port for an endpoint that names none is 443, whatever the scheme.
    obstacle = _unreachable(endpoint, 443 if name == "otlp_proto_grpc" else None)
    return _tried("endpoint", f"{signal.name}: {address(endpoint)}", obstacle, "accepts connections")


def _tried(topic: str, what: str, obstacle: str, fine: str) -> Finding:
    """Return the finding about ``what`` was tried: the ``obstacle``, or ``fine`` if there is none."""
    return Finding("problem" if obstacle else "ok", topic, f"{what} {obstacle or fine}")


def _unreachable(url: str, port: int | None = None) -> str:
    """Say why the host of ``url`` takes no connection; nothing if it does.

    A URL without a port has ``port``, or else that of its scheme.
    """
    try:
        parts = urlsplit(url)
        port = parts.port or port or (443 if parts.scheme.endswith("https") else 80)
        socket.create_connection((parts.hostname or "localhost", port), _TIMEOUT).close()
    except OSError as error:
        return f"cannot be reached: {error.strerror or error}"
    except ValueError:  # its text quotes the URL
        return "cannot be reached: it is not a URL"
    return ""


def _log(path: str | None) -> Iterator[Finding]:
    if path is None:
        yield Finding("note", "events.log", "switched off")
        return
    full = os.path.abspath(path)
    yield _tried("events.log", full, _unwritable(full), "is writable")


def _unwritable(path: str) -> str:
    """Say why the file ``path`` cannot be written to; nothing if it can. The text does not quote the path."""
    folder = os.path.dirname(os.path.abspath(path))
    if os.path.exists(path):
        return "" if os.access(path, os.W_OK) and not os.path.isdir(path) else "is not writable"
    if os.path.isdir(folder):
        return "" if os.access(folder, os.W_OK | os.X_OK) else "is in a folder that is not writable"
    return "is in a folder that does not exist"


def _unwritable_database(url: str) -> str:
    from sqlalchemy import make_url

    from openai_lifecycle.sinks.sql import sqlite_file

    path = sqlite_file(make_url(url))
    return "" if path is None else _unwritable(path)


#: Scheme of a sink → a function that says why nothing can be written there, and what to say if it says nothing.
_TRIALS: Final[dict[str, tuple[Callable[[str], str], str]]] = {
    "jsonl": (lambda url: _unwritable(jsonl_file(url)), "is writable"),
    "sqlite": (_unwritable_database, "is writable"),
    "webhook+http": (_unreachable, "accepts connections"),
    "webhook+https": (_unreachable, "accepts connections"),
}


def _sinks(given: Sequence[str]) -> Iterator[Finding]:
    for url in given:
        try:
            shown = sinks.destination(url).name
        except (ValueError, ImportError) as error:
            yield Finding("problem", "sink", f"{address(url)}: {error}; it must be {sinks.ALLOWED}")
            continue
        scheme = url.partition(":")[0].removesuffix("+pysqlite")
        if scheme not in _TRIALS:
            yield Finding("note", "sink", f"{shown} is understood, but was not tried")
            continue
        trial, fine = _TRIALS[scheme]
        yield _tried("sink", shown, trial(url), fine)


def _conflicts() -> Iterator[Finding]:
    for entry in entry_points(group="opentelemetry_instrumentor"):
        is_of_openai = "openai" in f"{entry.name} {entry.value}".lower() and entry.name != "openai_lifecycle"
        if is_of_openai and not _is_disabled(entry.name):
            package = entry.dist.name if entry.dist else entry.value
            yield Finding(
                "problem",
                "conflict",
                f"{package} instruments openai too, so calls have two spans; set "
                f"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS={entry.name} to keep one",
            )
    installed = {(distribution.metadata["Name"] or "").lower() for distribution in distributions()}
    for name in sorted(installed.intersection(_OTHERS)):
        yield Finding("note", "conflict", f"{name} can instrument openai too: let one of the two do it")


# ------------------------------------------------------------------ a command
def run(command: Sequence[str], log: str) -> int:
    """Run ``command`` under ``opentelemetry-instrument`` with its entries in ``log``; returns its exit status.

    ``python`` is that of this environment, as it is when the environment is activated.

    Raises:
        FileNotFoundError: there is no such command, or it is not executable.
    """
    starter = "from opentelemetry.instrumentation.auto_instrumentation import run; run()"
    path = os.pathsep.join((os.path.dirname(sys.executable), os.environ.get("PATH", os.defpath)))
    if shutil.which(command[0], path=path) is None:  # the starter would end with a traceback
        raise FileNotFoundError(command[0])
    child = subprocess.Popen(  # noqa: S603 - the user's own command
        [sys.executable, "-c", starter, *command],
        env={**os.environ, "PATH": path, env.OTEL_PYTHON_OPENAI_LIFECYCLE_EVENTS_LOG: log},
    )
    while True:
        try:
            return child.wait()
        except KeyboardInterrupt:  # the terminal sent it to the command too, which decides how to react
            continue


def ended(status: int) -> str:
    """Return how a command ended; a negative ``status`` is that of a signal."""
    if status >= 0:
        return f"exit status {status}"
    try:
        return f"ended by {Signals(-status).name}"
    except ValueError:  # a real-time signal
        return f"ended by signal {-status}"
