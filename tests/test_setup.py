"""The ways to switch it on, each in a process of its own: what is written, sent, printed and returned."""

from __future__ import annotations

import importlib.metadata
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.util import _importlib_metadata

from tests import wire
from tests.limits import HANGS
from tests.observed import entries
from tests.otlp_receiver import RECEIVERS, Received, attributes_of
from tests.scripted_server import ScriptedServer, reply

INSTRUMENT = str(Path(sys.executable).with_name("opentelemetry-instrument"))
CALL = """
client = openai.OpenAI(base_url=os.environ["SERVER"], api_key="sk-test-0123456789")
print(client.chat.completions.create(model="gpt-4.1-mini", messages=[{"role": "user", "content": "Hi"}]).id)
"""
APP = f"import openai, os\n{CALL}"
#: What one construction and one call with two tool calls leave behind.
ENTRIES = {
    "LLM_INITIALIZATION_START": 1,
    "LLM_INITIALIZATION_SUCCESS": 1,
    "TOOL_CALL_DETECTED": 2,
    "LLM_GENERATION_SUCCESS": 1,
}


def start(program: str, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run ``program`` as ``app.py`` under ``command``."""
    Path("app.py").write_text(program, encoding="utf-8")
    return subprocess.run(
        [*command, sys.executable, "app.py"],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=HANGS,
        check=False,
    )


@pytest.fixture(autouse=True)
def _server(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server.script(reply(json.dumps(wire.completion()).encode()))
    monkeypatch.setenv("SERVER", server.base_url)


def written() -> dict[str, int]:
    """Return how many entries of each type the log has."""
    return dict(Counter(entry.event_type for entry in entries()))


# ------------------------------------------------------------------ opentelemetry-instrument
def test_no_configuration_at_all() -> None:
    """In an empty folder, with no variable, distro or network, events.log appears and nothing is printed by us."""
    done = start(APP, INSTRUMENT)
    assert (done.returncode, done.stdout, done.stderr) == (0, "chatcmpl-1\n", "")
    assert written() == ENTRIES


def test_one_info_line_says_what_was_done() -> None:
    """With logging on, one INFO line of ours names file, provider and exporters."""
    done = start("import logging\nlogging.basicConfig(level='INFO')\n" + APP, INSTRUMENT)
    (line,) = [line for line in done.stderr.splitlines() if "openai_lifecycle" in line]
    assert line.startswith("INFO:openai_lifecycle.pipeline:openai-lifecycle joined the global TracerProvider")
    assert str(Path("events.log").resolve()) in line
    assert "exporters: none" in line


@pytest.mark.parametrize(
    "ending", ["sys.exit(3)", "raise KeyError('x')", "os.kill(os.getpid(), signal.SIGTERM)"]
)
def test_the_exit_status_is_the_applications(ending: str) -> None:
    """However the application ends, what had ended is in the file and the exit status is its own."""
    done = start(f"import signal, sys\n{APP}\n{ending}", INSTRUMENT)
    assert done.returncode == {"s": 3, "r": 1, "o": -signal.SIGTERM}[ending[0]]
    assert written() == ENTRIES


def test_kill_directly_after_the_call() -> None:
    """A kill -9 as the first thing after a call has returned loses none of its entries."""
    done = start(f"import signal\n{APP}\nos.kill(os.getpid(), signal.SIGKILL)", INSTRUMENT)
    assert done.returncode == -signal.SIGKILL
    assert written() == ENTRIES


@pytest.mark.parametrize(
    ("variable", "value", "allowed"),
    [
        ("OTEL_PYTHON_OPENAI_LIFECYCLE_DURABILITY", "sometimes", "write, fsync or buffered"),
        ("OTEL_PYTHON_OPENAI_LIFECYCLE_MAX_BYTES", "-1", "a whole number, 0 or more"),
        ("OTEL_PYTHON_OPENAI_LIFECYCLE_UTC", "perhaps", "true or false"),
        ("OTEL_PYTHON_OPENAI_LIFECYCLE_TEMPERATURE", "nan", "a finite number"),
        ("OTEL_TRACES_EXPORTER", "pigeon", "events_log"),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "smoke", "grpc or http/protobuf"),
    ],
)
def test_a_wrong_variable_is_one_clear_error(variable: str, value: str, allowed: str) -> None:
    """A wrong value is one error that names variable, value and what is allowed; nothing is lost."""
    endpoint = {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:1"} if "PROTOCOL" in variable else {}
    done = start(APP, INSTRUMENT, **{variable: value}, **endpoint)
    assert (done.returncode, done.stdout) == (0, "chatcmpl-1\n")
    (line,) = [line for line in done.stderr.splitlines() if line]
    assert variable in line
    assert repr(value) in line
    assert allowed in line
    assert written() == ENTRIES


@pytest.mark.parametrize("command", [[INSTRUMENT], []], ids=["command", "by hand"])
@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "tight"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "0"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "100000"),
        ("OTEL_SPAN_EVENT_COUNT_LIMIT", "many"),
    ],
)
def test_a_wrong_standard_variable_is_one_error(variable: str, value: str, command: list[str]) -> None:
    """A value that the SDK refuses is one line that names its variable; the application and the log go on."""
    program = APP if command else MANUAL.format("") + APP
    endpoint = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
    if "LIMIT" in variable:
        endpoint = {}
    done = start(program, *command, **{variable: value}, **endpoint)
    assert (done.returncode, done.stdout) == (0, "chatcmpl-1\n")
    (line,) = [line for line in done.stderr.splitlines() if line]
    assert variable in line
    assert written() == ENTRIES


def test_a_wrong_capture_mode_captures_nothing() -> None:
    """A capture mode that cannot be read is one warning, and no content is captured."""
    done = start(APP, INSTRUMENT, OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT="some")
    assert "'some' is not allowed" in done.stderr
    assert "San Francisco" not in Path("events.log").read_text(encoding="utf-8")


def test_flags() -> None:
    """Every variable of ours is a flag of opentelemetry-instrument."""
    start(APP, INSTRUMENT, "--openai_lifecycle_events_log", "other.log", "--openai_lifecycle_utc", "true")
    assert len(entries("other.log")) == 5
    assert not Path("events.log").exists()


def test_disabled() -> None:
    """OTEL_SDK_DISABLED, and our name among the disabled instrumentations, switch everything off."""
    for switch in (
        {"OTEL_SDK_DISABLED": "true"},
        {"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "openai_lifecycle"},
    ):
        done = start(APP, INSTRUMENT, **switch)
        assert (done.returncode, done.stdout, done.stderr) == (0, "chatcmpl-1\n", "")
        assert not Path("events.log").exists()


# ------------------------------------------------------------------ by hand
MANUAL = "import openai_lifecycle\nopenai_lifecycle.instrument({})\n"


@pytest.mark.parametrize("order", ["before openai", "after openai"])
def test_instrument_by_hand(order: str) -> None:
    """instrument() works before and after openai is imported, and leaves the global provider alone."""
    check = "\nfrom opentelemetry import trace\nassert type(trace.get_tracer_provider()).__name__ == 'ProxyTracerProvider'"
    program = (
        MANUAL.format("") + APP if order == "before openai" else "import openai\n" + MANUAL.format("") + APP
    )
    done = start(program + check)
    assert (done.returncode, done.stderr) == (0, "")
    assert written() == ENTRIES


def test_an_application_without_openai_pays_nothing() -> None:
    """instrument() does not import openai, and importing the package imports neither openai nor an exporter."""
    done = start(
        "import sys, openai_lifecycle\n"
        "assert not [m for m in sys.modules if m.startswith(('openai.', 'opentelemetry', 'grpc'))]\n"
        "openai_lifecycle.instrument()\n"
        "assert not [m for m in sys.modules if m.startswith(('openai.', 'opentelemetry.exporter', 'grpc'))]\n"
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_nobody_pays_for_what_is_not_used() -> None:
    """instrument() imports no ``BaseInstrumentor``, and our part for WebSockets only beside the client's."""
    done = start(
        "import openai, sys, openai_lifecycle\n"
        "openai_lifecycle.instrument()\n"
        "openai.OpenAI(api_key='sk-test-0123456789').chat.completions\n"
        "from openai_lifecycle.capture.routes import CONNECTIONS\n"
        "assert 'opentelemetry.instrumentation.instrumentor' not in sys.modules\n"
        "observed = 'openai_lifecycle.capture.websocket' in sys.modules\n"
        "assert observed == any(module in sys.modules for module in CONNECTIONS)\n"  # openai 1 imports all at once
        "import openai.resources.responses.responses\n"
        "assert 'openai_lifecycle.capture.websocket' in sys.modules\n"
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_info_line_names_the_file_that_is_written() -> None:
    """Where the application changes its directory after ``instrument()``, the line names the file of before."""
    program = """
import logging, os, openai, openai_lifecycle
logging.basicConfig(level="INFO")
openai_lifecycle.instrument()
os.chdir("/")
openai.OpenAI(api_key="sk-test-0123456789")
"""
    done = start(program)
    assert f"events.log: {Path('events.log').resolve()};" in done.stderr
    assert len(entries()) == 2


def test_a_deleted_working_directory() -> None:
    """Where the working directory is gone the application starts, and entries go to stderr."""
    program = """
import os
os.mkdir("gone")
os.chdir("gone")
os.rmdir("../gone")
import openai_lifecycle
openai_lifecycle.instrument(sinks=["jsonl:out.jsonl"])
import openai
openai.OpenAI(api_key="sk-test-0123456789")
"""
    done = start(program)
    assert done.returncode == 0, done.stderr
    assert "events.log cannot be written" in done.stderr
    assert "[EVENT: INIT_SUCCESS]" in done.stderr


def test_a_wrong_keyword_raises() -> None:
    """A wrong keyword value raises ValueError with option, value and what is allowed; an unknown one TypeError."""
    import openai_lifecycle

    with pytest.raises(
        ValueError, match="durability='x' is not allowed: it must be write, fsync or buffered"
    ):
        openai_lifecycle.instrument(durability="x")
    with pytest.raises(ValueError, match="model=' ' is not allowed: it must be a model name"):
        openai_lifecycle.instrument(model=" ")
    with pytest.raises(TypeError, match="has no option 'durable'; its options are events_log, "):
        openai_lifecycle.instrument(durable="write")


@pytest.mark.parametrize("off", ["function", "class"])
@pytest.mark.parametrize("on", ["function", "class"])
def test_one_switch(on: str, off: str, caplog: pytest.LogCaptureFixture) -> None:
    """The functions and the class are one switch: what either turns on, the other knows of and turns off."""
    import openai

    import openai_lifecycle

    def clients() -> int:
        openai.OpenAI(api_key="sk-test-0123456789")
        return written().get("LLM_INITIALIZATION_SUCCESS", 0)

    instrumentor = openai_lifecycle.OpenAILifecycleInstrumentor()
    ways: dict[str, Any] = {"function": openai_lifecycle, "class": instrumentor}
    provider = TracerProvider(shutdown_on_exit=False)
    for turn in (1, 2):
        ways[on].instrument(tracer_provider=provider)
        openai_lifecycle.instrument(tracer_provider=provider)
        assert instrumentor.is_instrumented_by_opentelemetry
        assert not caplog.messages
        instrumentor.instrument(tracer_provider=provider)
        assert caplog.messages == ["Attempting to instrument while already instrumented"]
        assert clients() == turn

        caplog.clear()
        ways[off].uninstrument()
        openai_lifecycle.uninstrument()
        assert not instrumentor.is_instrumented_by_opentelemetry
        assert not caplog.messages
        instrumentor.uninstrument()
        assert caplog.messages == ["Attempting to uninstrument while already uninstrumented"]
        assert clients() == turn
        caplog.clear()


@pytest.mark.parametrize("before", [[], [INSTRUMENT]], ids=["by hand", "opentelemetry-instrument"])
def test_what_the_application_says_last_applies(before: list[str]) -> None:
    """Options given where it is on already replace those in force, with one line that says so, and double nothing."""
    program = (
        "import logging, openai, os, openai_lifecycle\n"
        "logging.basicConfig(format='%(message)s')\n"
        "openai_lifecycle.instrument()\n"
        "logging.getLogger('openai_lifecycle.switch').setLevel('INFO')\n"
        "client = openai.OpenAI(base_url=os.environ['SERVER'], api_key='sk-test-0123456789')\n"
        "openai_lifecycle.instrument(capture='no_content')\n"
        "openai_lifecycle.instrument(capture='no_content')\n"
        "openai_lifecycle.instrument()\n"
        "try:\n"
        "    openai_lifecycle.instrument(durability='x')\n"
        "except ValueError as error:\n"
        "    print(error)\n"
        "client.chat.completions.create(model='m', messages=[{'role': 'user', 'content': 'Hi'}])\n"
    )
    done = start(program, *before)
    assert done.stdout == "durability='x' is not allowed: it must be write, fsync or buffered\n"
    assert done.stderr == "openai-lifecycle: instrument() was called again; its options apply from now on\n"
    assert written() == ENTRIES
    assert "Hi" not in Path("events.log").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("way", "installed", "supported"),
    [
        ("openai_lifecycle", "1.65.5", False),
        ("openai_lifecycle", "1.66.0b1", False),
        ("openai_lifecycle", "1.66", True),
        ("openai_lifecycle", "1.66.0.post1", True),
        ("openai_lifecycle.OpenAILifecycleInstrumentor()", "1.65.5", False),
        ("openai_lifecycle.OpenAILifecycleInstrumentor()", "1.66", True),
    ],
)
def test_the_version_decides(way: str, installed: str, supported: bool) -> None:
    """Beside an openai that is too old, instrument() is one error, by either way, and leaves the client alone."""
    about = Path(f"openai-{installed}.dist-info") / "METADATA"  # found first: the program's folder is
    about.parent.mkdir()
    about.write_text(f"Metadata-Version: 2.1\nName: openai\nVersion: {installed}\n", encoding="utf-8")
    done = start(f"import openai_lifecycle\n{way}.instrument()\n{APP}")
    assert (done.returncode, done.stdout) == (0, "chatcmpl-1\n")
    if supported:
        assert done.stderr == ""
        assert written() == ENTRIES
    else:
        (line,) = done.stderr.splitlines()
        assert "openai >= 1.66" in line
        assert f"openai {installed}" in line
        assert not Path("events.log").exists()


def test_a_client_without_metadata(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Where openai has no metadata, as in a frozen application, one error says so, unless the check is skipped."""
    import openai_lifecycle

    if _importlib_metadata.PackageNotFoundError is not PackageNotFoundError:
        pytest.skip("this version of OpenTelemetry reads metadata with a backport")

    def missing(name: str) -> Any:
        raise PackageNotFoundError(name)

    instrumentor = openai_lifecycle.OpenAILifecycleInstrumentor()
    monkeypatch.setattr(importlib.metadata, "distribution", missing)
    openai_lifecycle.instrument()
    (message,) = caplog.messages
    assert "openai >= 1.66" in message
    assert not instrumentor.is_instrumented_by_opentelemetry
    instrumentor.instrument(skip_dep_check=True)
    assert instrumentor.is_instrumented_by_opentelemetry
    openai_lifecycle.instrument(capture="no_content")  # only changes the options
    assert caplog.messages == [message]


@pytest.mark.parametrize(
    ("variable", "error"),
    [
        ("OTEL_PROPAGATORS", "ValueError('Propagator missing not found"),
        ("OTEL_PYTHON_TRACER_PROVIDER", "StopIteration()"),
        ("OTEL_PYTHON_METER_PROVIDER", "StopIteration()"),
    ],
)
def test_an_api_that_is_set_to_what_is_not_installed(variable: str, error: str) -> None:
    """Where the API raises for one of its variables, the application runs, and one line says why nothing is recorded."""
    done = start(f"import openai_lifecycle\nopenai_lifecycle.instrument()\n{APP}", **{variable: "missing"})
    assert (done.returncode, done.stdout) == (0, "chatcmpl-1\n")
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"openai-lifecycle: OpenAI calls are not recorded: {variable}=missing: {error}")
    assert not Path("events.log").exists()


@pytest.mark.parametrize("command", [[INSTRUMENT], []], ids=["command", "by hand"])
def test_an_sdk_that_cannot_be_imported(command: list[str]) -> None:
    """Where the import of the SDK raises, the application runs, and one line says why nothing is recorded."""
    program = APP if command else MANUAL.format("") + APP
    done = start(program, *command, OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT="many")
    assert (done.returncode, done.stdout) == (0, "chatcmpl-1\n")
    (line,) = [line for line in done.stderr.splitlines() if line]
    # What the SDK says in it names the variable, but not that of OpenTelemetry 1.30, whose message is broken.
    assert line.startswith("openai-lifecycle: OpenAI calls are not recorded: ValueError(")
    assert not Path("events.log").exists()


# ------------------------------------------------------------------ providers and OTLP
PROVIDER = """
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.{0}.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
provider = TracerProvider()
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
trace.set_tracer_provider(provider)
"""
ROUTES: dict[str, tuple[str, list[str], dict[str, str]]] = {
    "instrument command": (APP, [INSTRUMENT], {}),
    "instrument command, exporters named": (APP, [INSTRUMENT], {"OTEL_TRACES_EXPORTER": "events_log,otlp"}),
    "instrument(), own provider": (MANUAL.format("") + APP, [], {}),
    "provider before": ("import openai, os" + PROVIDER + MANUAL.format("") + CALL, [], {}),
    "provider after": ("import openai, os\n" + MANUAL.format("") + PROVIDER + CALL, [], {}),
    "provider passed": (
        "import openai, os" + PROVIDER + MANUAL.format("tracer_provider=provider") + CALL,
        [],
        {},
    ),
    "instrument() under the instrument command": (MANUAL.format("") + APP, [INSTRUMENT], {}),
    "exporter added by hand": (
        "import openai, os"
        + PROVIDER
        + "from openai_lifecycle import EventsLogExporter\n"
        + "from opentelemetry.sdk.trace.export import SimpleSpanProcessor\n"
        + "provider.add_span_processor(SimpleSpanProcessor(EventsLogExporter()))\n"
        + MANUAL.format("")
        + CALL,
        [],
        {},
    ),
}


@pytest.mark.parametrize("protocol", ["grpc", "http"])
@pytest.mark.parametrize("route", ROUTES)
def test_every_route_delivers_once(route: str, protocol: str) -> None:
    """Every span arrives once at a real OTLP receiver, every event once in the file, whoever made the provider."""
    program, command, extra = ROUTES[route]
    with RECEIVERS[protocol]() as received:
        done = start(program.replace("{0}", protocol), *command, **received.environment, **extra)
    assert (done.returncode, done.stdout, done.stderr) == (0, "chatcmpl-1\n", "")
    assert written() == ENTRIES
    assert sorted(span.name for span in received.spans) == ["chat gpt-4.1-mini", "initialize openai"]
    check_arrival(received)


def check_arrival(received: Received) -> None:
    """Check span, attributes and lifecycle events as they arrived."""
    (chat,) = received.named("chat gpt-4.1-mini")
    (initialize,) = received.named("initialize openai")
    attributes = attributes_of(chat)
    assert attributes["gen_ai.usage.input_tokens"] == 19
    assert attributes["gen_ai.response.finish_reasons"] == ["tool_calls"]
    assert [event.name for event in initialize.events] == [
        "LLM_INITIALIZATION_START",
        "LLM_INITIALIZATION_SUCCESS",
    ]
    names = [event.name for event in chat.events]
    assert names == ["TOOL_CALL_DETECTED", "TOOL_CALL_DETECTED", "LLM_GENERATION_SUCCESS"]
    assert attributes_of(chat.events[0])["gen_ai.tool.call.arguments"] == wire.WEATHER
    assert attributes_of(chat.events[2])["openai_lifecycle.response_length"] == len("Hello, world")
    assert {entry.trace_id for entry in entries()} == {span.trace_id.hex() for span in received.spans}
    assert received.scopes[0].name == "openai_lifecycle"


@pytest.mark.parametrize("command", [[INSTRUMENT], []], ids=["command", "by hand"])
@pytest.mark.parametrize(
    ("asking", "value"),
    [
        ("OTEL_METRICS_EXPORTER", "otlp"),
        ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "{OTEL_EXPORTER_OTLP_ENDPOINT}/v1/metrics"),
        ("OTEL_TRACES_EXPORTER", "otlp"),
    ],
    ids=["exporter", "endpoint", "not asked for"],
)
def test_metrics_are_sent_when_asked_for(command: list[str], asking: str, value: str) -> None:
    """An exporter or endpoint for metrics delivers them; the general endpoint does not, because Jaeger takes none."""
    program = APP if command else MANUAL.format("") + APP
    with RECEIVERS["http"]() as received:
        start(program, *command, **received.environment, **{asking: value.format_map(received.environment)})
        assert len(received.spans) == 2
        sent = {"gen_ai.client.operation.duration", "gen_ai.client.token.usage"}
        assert sent & received.metrics.keys() == (set() if asking == "OTEL_TRACES_EXPORTER" else sent)


@pytest.mark.parametrize("provider", ["None", "TracerProvider()"])
def test_what_is_lost_is_counted_in_metrics_that_we_start(provider: str) -> None:
    """An entry that the file, and an event that another destination cannot take, until its end, are counted there."""
    with RECEIVERS["http"]() as received:
        keywords = f"events_log='no/events.log', sinks=['jsonl:no/out.jsonl'], tracer_provider={provider}"
        program = f"{MANUAL.format(keywords)}{APP}openai_lifecycle.uninstrument()"
        sdk = "from opentelemetry.sdk.trace import TracerProvider\n"
        start(sdk + program, **received.environment, OTEL_METRICS_EXPORTER="otlp")
        lost = [attributes_of(point) for point in received.metrics["openai_lifecycle.events.lost"]]
        assert {name for attributes in lost for name in attributes} == {"error.type", "sink"}


def test_what_is_lost_is_counted_where_the_metrics_go_now() -> None:
    """Metrics that we started, and that ended when it was switched off, do not take what is lost later."""
    program = """
import openai, openai_lifecycle
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
def make():
    openai_lifecycle.instrument(events_log="no/events.log")
    openai.OpenAI(api_key="sk-test-0123456789")
make()
openai_lifecycle.uninstrument()
reader = InMemoryMetricReader()
metrics.set_meter_provider(MeterProvider([reader]))
make()
print("openai_lifecycle.events.lost" in reader.get_metrics_data().to_json())
"""
    done = start(program, OTEL_METRICS_EXPORTER="console")
    assert done.stdout.splitlines()[-1] == "True"


def test_metrics_beside_the_applications_spans() -> None:
    """Where the application has a TracerProvider and no MeterProvider, metrics are sent all the same."""
    with RECEIVERS["http"]() as received:
        program = MANUAL.format("") + "import openai, os" + PROVIDER.replace("{0}", "http") + CALL
        done = start(program, **received.environment, OTEL_METRICS_EXPORTER="otlp")
        assert done.returncode == 0, done.stderr
        assert "gen_ai.client.operation.duration" in received.metrics


def test_nothing_keeps_running_when_it_is_off_again() -> None:
    """The exporters that it started stop when it is switched off, however often, and whoever got the spans in the end."""
    program = """
import threading, openai, openai_lifecycle
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
for _ in range(3):
    trace._TRACER_PROVIDER = None
    openai_lifecycle.instrument()
    openai.OpenAI(api_key="sk-test-0123456789")
    trace._TRACER_PROVIDER = TracerProvider()
    openai.OpenAI(api_key="sk-test-0123456789")
    openai_lifecycle.uninstrument()
print([thread.name for thread in threading.enumerate()])
"""
    environment = {"OTEL_METRICS_EXPORTER": "console", "OTEL_TRACES_EXPORTER": "console"}
    done = start(program, **environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "['MainThread']"


def test_a_provider_that_was_passed_is_not_kept_when_it_is_off_again() -> None:
    """After uninstrument() nothing of ours keeps the application's provider, transform or destination alive."""
    program = """
import gc, openai, openai_lifecycle, os, weakref
from opentelemetry.sdk.trace import TracerProvider

class Sink:
    def write(self, events): ...
    def flush(self): ...
    def close(self): ...
    def transform(self, event): return event

def cycle():
    provider, sink = TracerProvider(shutdown_on_exit=False), Sink()
    openai_lifecycle.instrument(tracer_provider=provider, sinks=[sink], transform=sink.transform)
    client = openai.OpenAI(base_url=os.environ["SERVER"], api_key="sk-test-0123456789")
    client.chat.completions.create(model="gpt-4.1-mini", messages=[])
    openai_lifecycle.uninstrument()
    return weakref.ref(provider), weakref.ref(sink)

kept = cycle()
gc.collect()
print([reference() for reference in kept])
"""
    done = start(program)
    assert done.stdout == "[None, None]\n", done.stderr
    assert written() == ENTRIES


def test_one_meter_however_often_it_is_switched_on() -> None:
    """The API's proxy for a global MeterProvider, which keeps every meter, gets one, and that finds the provider."""
    program = """
import openai, os, openai_lifecycle
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

for _ in range(3):
    openai_lifecycle.instrument()
    print(len(metrics.get_meter_provider()._meters))
    openai_lifecycle.uninstrument()
openai_lifecycle.instrument()
reader = InMemoryMetricReader()
metrics.set_meter_provider(MeterProvider([reader]))
"""
    names = "[scope.metrics[0].name for scope in reader.get_metrics_data().resource_metrics[0].scope_metrics]"
    done = start(f"{program}{CALL}\nprint({names})")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[:3] == ["1"] * 3
    assert "gen_ai.client.operation.duration" in done.stdout.splitlines()[-1]


def test_a_provider_of_the_application_replaces_ours() -> None:
    """Under opentelemetry-instrument an application can still set its own providers, for traces, metrics and logs.

    So it could before we were installed.
    """
    program = f"""
import openai, os
from opentelemetry import _logs, metrics
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk.metrics import MeterProvider
_logs.set_logger_provider(LoggerProvider())
metrics.set_meter_provider(MeterProvider())
{PROVIDER.replace("{0}", "http")}
assert trace.get_tracer_provider() is provider
"""
    with RECEIVERS["http"]() as received:
        done = start(program + CALL, INSTRUMENT, **received.environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(received.spans) == 2
    assert written() == ENTRIES


OTHER = """
from opentelemetry import trace
asked = {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "anthropic", "gen_ai.request.model": "m"}
trace.get_tracer("opentelemetry.instrumentation.genai.anthropic").start_span("chat m", attributes=asked).end()
"""


@pytest.mark.parametrize(
    ("program", "command"),
    [
        (OTHER, [INSTRUMENT]),
        (PROVIDER.format("http") + MANUAL.format("") + OTHER, []),
    ],
    ids=["instrument command", "by hand"],
)
def test_a_call_of_another_client_comes_first(program: str, command: list[str]) -> None:
    """What another instrumentation records before the first use of OpenAI's client is in the file."""
    nowhere = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_EXPORTER_OTLP_TIMEOUT": "1"}
    done = start(program, *command, **nowhere, OTEL_TRACES_EXPORTER="none")
    assert done.returncode == 0, done.stderr
    assert written() == {"LLM_GENERATION_SUCCESS": 1}


def test_the_sdk_is_started_as_a_distro_does() -> None:
    """Under opentelemetry-instrument the resource says what has started the SDK, and the SDK's module is as it was."""
    program = """
from opentelemetry import trace
from opentelemetry.sdk import _configuration
from opentelemetry.sdk.trace import TracerProvider
assert _configuration.TracerProvider is TracerProvider
print(trace.get_tracer_provider().resource.attributes["telemetry.auto.version"])
"""
    done = start(program, INSTRUMENT)
    assert (done.stdout, done.stderr) == (f"{version('opentelemetry-instrumentation')}\n", "")


def test_an_sdk_that_a_file_configures() -> None:
    """Under opentelemetry-instrument the SDK is what ``OTEL_CONFIG_FILE`` says, and nothing is printed about it."""
    pytest.importorskip(
        "opentelemetry.configuration", reason="comes with opentelemetry-sdk[file-configuration]"
    )
    Path("sdk.yaml").write_text(
        'file_format: "1.0"\n'
        "resource: {attributes: [{name: service.name, value: of the file}]}\n"
        "tracer_provider: {processors: [{simple: {exporter: {console: {}}}}]}\n"
    )
    done = start(APP, INSTRUMENT, OTEL_CONFIG_FILE="sdk.yaml", OTEL_TRACES_EXPORTER="pigeon")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count('"service.name": "of the file"') == 2  # of the client, of the call
    assert written() == ENTRIES


@pytest.mark.parametrize(
    "target",
    [
        "openai._base_client.SyncAPIClient.request",
        "openai._base_client.SyncAPIClient._process_response",
        "openai.OpenAI.__init__",
    ],
)
def test_a_mock_in_place_of_a_method(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    """A mock that a test of the application has put into the client before we switch on answers as without us."""
    import openai

    import openai_lifecycle
    from openai_lifecycle.shield import SHIELD

    monkeypatch.setattr(SHIELD, "reraise", False)

    def seen() -> Any:
        try:
            client = openai.OpenAI(api_key="sk-test-0123456789", base_url=server.base_url)
            return client.chat.completions.create(model="m", messages=[])
        except Exception as error:
            return type(error), str(error)

    with mock.patch(target, return_value=None) as mocked:
        bare = seen(), len(mocked.call_args.args)
        openai_lifecycle.instrument()
        assert (seen(), len(mocked.call_args.args)) == bare
        openai_lifecycle.uninstrument()


@pytest.mark.parametrize("order", ["before", "after", "passed"])
def test_a_provider_that_raises(order: str) -> None:
    """Beside a provider that raises when it is given a processor, the application starts, is told, and entries are written."""
    program = f"""
import os, openai, openai_lifecycle
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
class Frozen(TracerProvider):
    def add_span_processor(self, _):
        raise RuntimeError
if {order!r} == "before":
    trace.set_tracer_provider(Frozen())
openai_lifecycle.instrument(tracer_provider=Frozen() if {order!r} == "passed" else None)
if {order!r} == "after":
    trace.set_tracer_provider(Frozen())
"""
    done = start(program + CALL)
    assert done.returncode == 0, done.stderr
    assert "the TracerProvider, a Frozen, accepts no span processor and is left alone" in done.stderr
    assert written() == ENTRIES


def test_the_proxy_of_a_provider_stands_for_it() -> None:
    """Passed before the application has set its provider, the API's proxy means the one that it sets later."""
    program = """
import openai, os, openai_lifecycle
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor
openai_lifecycle.instrument(tracer_provider=trace.get_tracer_provider())
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter()))
trace.set_tracer_provider(provider)
"""
    done = start(program + CALL)
    assert '"name": "chat gpt-4.1-mini"' in done.stdout
    assert written() == ENTRIES


def test_an_exporter_that_does_not_shut_down() -> None:
    """An exporter that raises when it is stopped keeps no later options from applying."""
    program = """
import openai, os, openai_lifecycle
from opentelemetry.sdk.trace.export import ConsoleSpanExporter
def shutdown(self):
    raise RuntimeError
openai_lifecycle.instrument(events_log="first.log")
openai.OpenAI(api_key="sk-test-0123456789")
ConsoleSpanExporter.shutdown = shutdown
openai_lifecycle.instrument(events_log="events.log")
"""
    done = start(program + CALL, OTEL_TRACES_EXPORTER="console")
    assert done.returncode == 0, done.stderr
    assert written() == ENTRIES


def test_a_first_call_after_the_main_thread() -> None:
    """A thread that makes its first client when the main program has ended has its entries."""
    program = """
import openai, openai_lifecycle, threading
openai_lifecycle.instrument()
def serve():
    threading.main_thread().join()
    openai.OpenAI(api_key="sk-test-0123456789")
threading.Thread(target=serve).start()
"""
    done = start(program)
    assert done.returncode == 0, done.stderr
    assert written() == {"LLM_INITIALIZATION_START": 1, "LLM_INITIALIZATION_SUCCESS": 1}


@pytest.mark.parametrize("handler", ["", "logging.getLogger().addHandler(Raises())"])
def test_a_provider_that_takes_no_processor(handler: str) -> None:
    """Beside such a provider entries are written and metrics sent, and one line says so, whatever a log handler raises at it."""
    program = f"""
import logging, os, openai, openai_lifecycle
from opentelemetry import trace
class Raises(logging.Handler):
    def emit(self, _):
        raise RuntimeError
class Foreign(trace.TracerProvider):
    def get_tracer(self, *_, **__):
        return trace.NoOpTracer()
{handler}
trace.set_tracer_provider(Foreign())
openai_lifecycle.instrument()
"""
    said = "the TracerProvider, a Foreign, accepts no span processor and is left alone\n"
    done = start(program + CALL, OTEL_METRICS_EXPORTER="console")
    assert (done.returncode, done.stderr) == (0, "" if handler else said)
    assert "gen_ai.client.operation.duration" in done.stdout
    assert written() == ENTRIES


def test_an_unreachable_backend_disturbs_nothing() -> None:
    """With nothing listening at the endpoint the application ends normally and the file is complete."""
    done = start(
        APP, INSTRUMENT, OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:1", OTEL_EXPORTER_OTLP_TIMEOUT="1"
    )
    assert (done.returncode, done.stdout) == (0, "chatcmpl-1\n")
    assert written() == ENTRIES


def test_sampling_spares_the_file() -> None:
    """What a sampler drops reaches the file, and no exporter (for other samplers see ``test_sampling.py``)."""
    with RECEIVERS["http"]() as received:
        environment = {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.0"}
        start(APP, INSTRUMENT, **received.environment, **environment)
        assert received.spans == []
    assert written() == ENTRIES
