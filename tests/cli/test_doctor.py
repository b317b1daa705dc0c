"""``doctor``: it says what is in the way, and shows what a program would record."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint, EntryPoints, entry_points
from pathlib import Path

import pytest
from click.testing import Result

from openai_lifecycle import sdk
from openai_lifecycle.cli import doctor
from tests.cli.conftest import COMMAND, EXAMPLES
from tests.limits import HANGS

Run = Callable[..., Result]


def levels(topic: str) -> list[tuple[str, str]]:
    """Return what ``doctor`` finds about ``topic``."""
    return [(finding.level, finding.text) for finding in doctor.findings() if finding.topic == topic]


def test_where_all_is_well(run: Run) -> None:
    """In a sound environment every version is named, nothing is a problem, and the status is 0."""
    shown = run("doctor").stdout
    for name in ("openai-lifecycle", "openai", "opentelemetry-sdk"):
        assert f"{name} " in shown
    assert "problem" not in shown
    assert "event_only" in shown


def test_a_client_that_is_too_old_is_a_problem(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where openai is older than the package requires, the oldest version that is instrumented is named."""
    (tmp_path / "openai-1.60.0.dist-info").mkdir()
    (tmp_path / "openai-1.60.0.dist-info" / "METADATA").write_text("Name: openai\nVersion: 1.60.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert [text for level, text in levels("version") if level == "problem"] == [
        "openai 1.60.0 is too old: 1.66 or newer is needed, nothing is recorded"
    ]


@pytest.mark.parametrize(
    ("variable", "trouble"),
    [
        ("OTEL_PROPAGATORS", "OTEL_PROPAGATORS=missing"),
        ("OTEL_PYTHON_TRACER_PROVIDER", "OTEL_PYTHON_TRACER_PROVIDER=missing"),
        ("OTEL_PYTHON_METER_PROVIDER", "OTEL_PYTHON_METER_PROVIDER=missing"),
        ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "ValueError('OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT must be"),
    ],
)
def test_a_variable_that_stops_opentelemetry(variable: str, trouble: str) -> None:
    """A variable for which OpenTelemetry's API or SDK cannot be used is a problem that is named, beside a file too."""
    done = subprocess.run(
        [*COMMAND, "doctor"],
        env={**os.environ, "OTEL_CONFIG_FILE": "sdk.yaml", variable: "missing"},
        capture_output=True,
        text=True,
        check=False,
        timeout=HANGS,
    )
    assert done.returncode == 1
    assert f"nothing is recorded: {trouble}" in done.stdout


def test_the_endpoint_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """An endpoint that takes connections is fine, one that does not is a problem, and its password stays hidden."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://user:secret-word@127.0.0.1:{port}")
        (found,) = levels("endpoint")
        assert found[0] == "ok"
        assert "secret-word" not in found[1]
    ((level, text),) = levels("endpoint")
    assert level == "problem"
    assert "cannot be reached: Connection refused" in text


@pytest.mark.parametrize(
    ("protocol", "endpoint", "port"),
    [
        ("grpc", "", 4317),
        ("http/protobuf", "", 4318),
        ("grpc", "https://127.0.0.1", 443),
        ("grpc", "http://127.0.0.1", 443),
        ("http/protobuf", "https://127.0.0.1", 443),
        ("http/protobuf", "http://127.0.0.1", 80),
    ],
)
def test_an_endpoint_without_a_port(
    monkeypatch: pytest.MonkeyPatch, protocol: str, endpoint: str, port: int
) -> None:
    """Where no endpoint is set, or one without a port, the exporter's own default is tried."""
    tried: list[int] = []

    def connect(address: tuple[str, int], _timeout: float) -> socket.socket:
        tried.append(address[1])
        raise ConnectionRefusedError

    monkeypatch.setattr(socket, "create_connection", connect)
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
    levels("endpoint")
    assert tried == [port]


@pytest.mark.parametrize(
    "endpoint", ["http://[", "http://127.0.0.1:port", "http://user:secret/word@127.0.0.1"]
)
def test_an_endpoint_that_is_none(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    """An endpoint that is not a URL is a problem, not a traceback, and no part of it that may be a password is shown."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", endpoint)
    ((level, text),) = levels("endpoint")
    assert level == "problem"
    assert text.endswith("cannot be reached: it is not a URL")
    assert "secret" not in text


def test_the_log_must_be_writable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A folder that does not exist, and a log that is a folder, are problems; ``none`` is worth a note."""
    for path, level in ((tmp_path / "no" / "events.log", "problem"), (tmp_path, "problem"), ("none", "note")):
        monkeypatch.setenv("OTEL_PYTHON_OPENAI_LIFECYCLE_EVENTS_LOG", str(path))
        assert [found for found, _ in levels("events.log")] == [level]


@pytest.mark.parametrize("scheme", ["jsonl", "sqlite", "sqlite+pysqlite"])
def test_the_file_of_a_sink_must_be_writable(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, scheme: str
) -> None:
    """A sink whose file can be written is fine, one whose folder does not exist is a problem; neither is created."""
    root = f"{scheme}://{'/' if scheme != 'jsonl' else ''}{tmp_path}"
    monkeypatch.setenv("OTEL_PYTHON_OPENAI_LIFECYCLE_SINKS", f"{root}/sink.out,{root}/no/sink.out,{root}")
    assert levels("sink") == [
        ("ok", f"{root}/sink.out is writable"),
        ("problem", f"{root}/no/sink.out is in a folder that does not exist"),
        ("problem", f"{root} is not writable"),
    ]
    assert list(tmp_path.iterdir()) == []


def test_a_webhook_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """A webhook's host is connected to, and neither its token nor its path is shown, whatever comes of it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        shown = f"webhook+http://127.0.0.1:{server.getsockname()[1]}"
        url = shown.replace("//", "//secret-token@") + "/secret/path"
        monkeypatch.setenv("OTEL_PYTHON_OPENAI_LIFECYCLE_SINKS", url)
        assert levels("sink") == [("ok", f"{shown} accepts connections")]
    assert levels("sink") == [("problem", f"{shown} cannot be reached: Connection refused")]


def test_what_is_not_tried_is_not_called_fine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a database that is no file it is only said that its URL is understood, without the password."""
    url = "postgresql+psycopg://app:secret@db/telemetry"
    monkeypatch.setenv("OTEL_PYTHON_OPENAI_LIFECYCLE_SINKS", url)
    shown = "postgresql+psycopg://db/telemetry"
    assert levels("sink") == [("note", f"{shown} is understood, but was not tried")]


def test_a_variable_with_a_typo_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable with the package's prefix that is none of its variables is worth a note, the others are not."""
    monkeypatch.setenv("OTEL_PYTHON_OPENAI_LIFECYCLE_EVENT_LOG", "x.log")
    monkeypatch.setenv("OTEL_PYTHON_OPENAI_LIFECYCLE_EVENTS_LOG", "y.log")
    assert levels("option") == [
        ("note", "OTEL_PYTHON_OPENAI_LIFECYCLE_EVENT_LOG is unknown and has no effect")
    ]


@pytest.mark.parametrize(
    ("variable", "value", "topic"),
    [
        ("OTEL_SDK_DISABLED", "true", "switch"),
        ("OTEL_PYTHON_DISABLED_INSTRUMENTATIONS", "redis, openai_lifecycle", "switch"),
        ("OTEL_TRACES_EXPORTER", "nonsense", "exporter"),
        ("OTEL_PYTHON_OPENAI_LIFECYCLE_SINKS", "nonsense://x", "sink"),
        ("OTEL_PYTHON_OPENAI_LIFECYCLE_MAX_BYTES", "plenty", "option"),
    ],
)
def test_what_is_in_the_way_is_a_problem(
    run: Run, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, topic: str
) -> None:
    """Each setting that keeps telemetry from being complete is named, and the status is 1."""
    monkeypatch.setenv(variable, value)
    assert "problem" in [level for level, _ in levels(topic)]
    run("doctor", status=1)


def test_what_is_exported_where_nothing_names_an_exporter(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """``none`` is called by its variable; with a distro or a file of the SDK's, nobody claims that nothing is exported."""
    assert [text for _, text in levels("exporter")] == [
        "traces: none; set OTEL_EXPORTER_OTLP_ENDPOINT to export them",
        "metrics: none; set OTEL_METRICS_EXPORTER=otlp to export them",
    ]
    distro = tmp_path / "some_distro-1.0.dist-info"
    distro.mkdir()
    (distro / "METADATA").write_text("Name: some-distro\nVersion: 1.0\n")
    (distro / "entry_points.txt").write_text("[opentelemetry_distro]\ndistro = some:Distro\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "none")
    assert levels("SDK") == [("ok", "started by some-distro; sampler default")]
    (level, traces), metrics = levels("exporter")
    assert (level, traces.partition(" under ")[0]) == ("note", "traces: what the distro chooses")
    assert metrics == ("ok", "metrics: none, as OTEL_METRICS_EXPORTER says")
    monkeypatch.setattr(sdk, "is_configured_by_file", lambda: True)
    assert "OTEL_CONFIG_FILE" in levels("SDK")[1][1]
    assert levels("exporter") == []


def test_another_instrumentation_is_a_conflict(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another instrumentor of openai is a problem until the variable that is named switches it off."""
    other = EntryPoint("openai_v2", "opentelemetry.instrumentation.openai_v2:X", "opentelemetry_instrumentor")
    found = entry_points
    monkeypatch.setattr(
        doctor,
        "entry_points",
        lambda **wanted: EntryPoints([*found(**wanted), other]) if "name" not in wanted else found(**wanted),
    )
    (conflict,) = [text for level, text in levels("conflict") if level == "problem"]
    assert "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS=openai_v2" in conflict
    monkeypatch.setenv("OTEL_PYTHON_DISABLED_INSTRUMENTATIONS", "redis, openai_v2")
    assert [text for level, text in levels("conflict") if level == "problem"] == []


def test_a_program_is_run_and_what_it_does_is_shown(run: Run, tmp_path: Path) -> None:
    """``doctor -- python app.py`` instruments the program, and shows its calls, tokens and models."""
    program = tmp_path / "app.py"
    program.write_text(
        "import sys\n"
        f"sys.path.insert(0, {str(EXAMPLES)!r})\n"
        "import offline_server, openai\n"
        "with offline_server.serve() as url:\n"
        "    client = openai.OpenAI(base_url=url, api_key='offline')\n"
        "    client.chat.completions.create(model='gpt-4o', messages=[{'role': 'user', 'content': '--flag'}])\n"
        "sys.exit(3)\n"
    )
    shown = run("doctor", "--", "python", program).stdout
    assert f"python {program}: exit status 3" in shown
    assert "3 entries: " in shown
    assert "\nwhole\n" in shown
    assert "\ngpt-4o " in shown
    assert not (tmp_path / "events.log").exists()


def test_a_program_without_calls(run: Run) -> None:
    """A program that never makes a client has nothing captured: the status is 1 and the reasons are named."""
    shown = run("doctor", "--", sys.executable, "-c", "pass", status=1).stdout
    assert "nothing was captured: the command made no OpenAI client" in shown


def test_a_program_that_ignores_the_environment(run: Run) -> None:
    """Of Python that ignores PYTHONPATH, in which opentelemetry-instrument is, it is said that this may be why."""
    shown = run(
        "doctor", "--", sys.executable, "-I", "-c", "import openai; openai.OpenAI(api_key='k')", status=1
    ).stdout
    assert "ignores PYTHONPATH (python -I or -E)" in shown


def test_a_program_that_a_signal_ends(run: Run) -> None:
    """The signal that ends a program is named, or numbered where it has no name."""
    program = "import os; os.kill(os.getpid(), 9)"
    shown = run("doctor", sys.executable, "-c", program, status=1).stdout
    assert f"{program}: ended by SIGKILL\n" in shown
    assert doctor.ended(-99) == "ended by signal 99"


def test_options_belong_to_the_command(run: Run) -> None:
    """What follows the command's name is the command's; before it, a wrong option is an error."""
    program = "import sys; print(*sys.argv[1:])"
    shown = run("doctor", sys.executable, "-c", program, "--help", status=1).stdout
    assert "-c import sys; print(*sys.argv[1:]) --help: exit status 0" in shown
    assert "No such option" in run("doctor", "--jsn", status=2).stderr


def test_a_command_that_does_not_exist(run: Run) -> None:
    """A command that cannot be found, or is a file that may not be run, is one line, and the status is 1."""
    Path("app.py").write_text("")
    for name in ("nosuchcmd", "./app.py"):
        result = run("doctor", "--", name, status=1)
        assert result.stderr == f"{name}: command not found, or not executable\n"
        assert "captured" not in result.stdout
