"""From `opentelemetry-instrument` and the quickstart through a Collector to what Jaeger's API shows."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from openai_lifecycle import semconv

from . import spans
from .applications import QUICKSTART, run
from .conftest import program
from .harness import CONFIGS, Backends, fetch, free_ports, wait_for

pytestmark = pytest.mark.backends

KINDS = {
    semconv.INITIALIZATION_START,
    semconv.INITIALIZATION_SUCCESS,
    semconv.INITIALIZATION_ERROR,
    semconv.GENERATION_SUCCESS,
    semconv.GENERATION_ERROR,
    semconv.TOOL_CALL_DETECTED,
}


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_quickstart_is_seen_in_jaeger(backends: Backends, tmp_path: Path, protocol: str) -> None:
    """Every trace of the quickstart's events.log is in Jaeger, with its spans, attributes, events and errors."""
    jaeger = backends.jaeger()
    collector = backends.collector("dev.yaml", JAEGER_OTLP_ENDPOINT=jaeger.otlp_grpc)
    endpoint = f"http://{collector.grpc}" if protocol == "grpc" else collector.http
    entries = run(
        QUICKSTART, tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=endpoint, OTEL_EXPORTER_OTLP_PROTOCOL=protocol
    )
    trace_ids = {entry.trace_id for entry in entries}
    wait_for("the service", lambda: "quickstart" in jaeger.services())
    wait_for("every trace", lambda: {span["traceId"] for span in jaeger.spans("quickstart")} == trace_ids)
    found = jaeger.spans("quickstart")

    # Every entry of the file is an event of the span it names.
    by_id = {span["spanId"]: span for span in found}
    for entry in entries:
        span = by_id[entry.metadata.custom_fields["span_id"]]
        assert span["traceId"] == entry.trace_id
        assert entry.event_type in [event["name"] for event in span["events"]]
    assert sum(event["name"] in KINDS for span in found for event in span["events"]) == len(entries)

    calls = [span for span in found if span["kind"] == 3]
    assert {span["name"] for span in calls} == {"chat gpt-4.1-mini", "chat no-such-model"}
    for span in calls:
        assert span["attributes"].items() >= {semconv.OPERATION: "chat", semconv.PROVIDER: "openai"}.items()
        assert span["scope"]["name"] == semconv.SCOPE
    asked = next(span for span in calls if span["attributes"].get(semconv.TEMPERATURE) == 0.7)
    assert asked["attributes"][semconv.RESPONSE_MODEL] == "gpt-4.1-mini-2025-04-14"
    assert asked["attributes"][semconv.INPUT_TOKENS] == 12
    assert asked["attributes"][semconv.FINISH_REASONS] == ["stop"]
    (success,) = asked["events"]
    assert "What is an audit log good for?" in success["attributes"][semconv.MESSAGE_CONTENT]
    (tool_call,) = [
        event for span in calls for event in span["events"] if event["name"] == semconv.TOOL_CALL_DETECTED
    ]
    assert (
        tool_call["attributes"].items()
        >= {
            semconv.TOOL_NAME: "get_weather",
            semconv.TOOL_CALL_ARGUMENTS: '{"location": "Reykjavik"}',
        }.items()
    )

    failed = {span["name"]: span for span in found if span.get("status", {}).get("code") == 2}
    assert set(failed) == {"chat no-such-model", "initialize openai"}
    assert failed["chat no-such-model"]["events"][-1]["name"] == semconv.GENERATION_ERROR
    initialized = [span for span in found if span["name"] == "initialize openai"]
    outcomes = {tuple(event["name"] for event in span["events"]) for span in initialized}
    assert outcomes == {
        (semconv.INITIALIZATION_START, semconv.INITIALIZATION_SUCCESS),
        (semconv.INITIALIZATION_START, semconv.INITIALIZATION_ERROR),
    }


APPLICATION = """
import sys
sys.path.insert(0, {examples!r})
import offline_server, openai
from opentelemetry import trace

with offline_server.serve() as base_url, trace.get_tracer("app").start_as_current_span("request"):
    client = openai.OpenAI(base_url=base_url, api_key="offline")
    with trace.get_tracer("app").start_as_current_span("step"):
        client.chat.completions.create(model="gpt-4o", messages=[{{"role": "user", "content": "Hello"}}])
    client.close()
"""


def test_calls_are_children_of_the_application(backends: Backends, tmp_path: Path) -> None:
    """In one trace, straight to Jaeger: the client's span under `request`, the call's under `step`."""
    jaeger = backends.jaeger()
    script = tmp_path / "application.py"
    script.write_text(APPLICATION.format(examples=str(QUICKSTART.parent)))
    entries = run(script, tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=f"http://{jaeger.otlp_grpc}")
    (trace_id,) = {entry.trace_id for entry in entries}
    trace = wait_for("the trace", lambda: [found for found in [jaeger.trace(trace_id)] if len(found) == 4])[0]
    names = {span["spanId"]: span["name"] for span in trace}
    parents = {span["name"]: names.get(span.get("parentSpanId", "")) for span in trace}
    assert parents == {
        "request": None,
        "initialize openai": "request",
        "step": "request",
        "chat gpt-4o": "step",
    }


@contextlib.contextmanager
def stack(log: Path, **given: int) -> Iterator[tuple[subprocess.Popen[bytes], dict[str, int]]]:
    """Run `dev.sh` on free ports, except those that are `given`; yield the process and the ports by name."""
    own = ["OTLP_GRPC", "OTLP_HTTP", "HEALTH"]
    names = [*own, *(f"JAEGER_{name}" for name in (*own, "UI", "QUERY_GRPC"))]
    ports = dict(zip(names, free_ports(len(names)), strict=True)) | given
    environment = {f"{name}_PORT": str(port) for name, port in ports.items()}
    programs = {"JAEGER": str(program("jaeger")), "OTELCOL": str(program("otelcol"))}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(CONFIGS / "dev.sh")],
            env={**os.environ, **environment, **programs},
            stdout=output,
            stderr=output,
        )
    try:
        yield process, ports
    finally:
        process.terminate()
        process.wait(timeout=60)


def test_one_command_starts_the_stack(tmp_path: Path) -> None:
    """`dev.sh` runs Jaeger and a Collector that sends to it, and takes both down when it is stopped."""
    with stack(tmp_path / "log") as (process, ports):
        health = [f"http://127.0.0.1:{ports[name]}" for name in ("HEALTH", "JAEGER_HEALTH")]
        wait_for("both are healthy", lambda: all(fetch(url) for url in (health[0], f"{health[1]}/status")))
        with spans.tracer(f"127.0.0.1:{ports['OTLP_GRPC']}", "stack") as tracer:
            trace_id = spans.chat(tracer)
        api = f"http://127.0.0.1:{ports['JAEGER_UI']}/api/v3/traces/{trace_id}"
        wait_for("the trace", lambda: fetch(api))
    assert process.returncode == 130
    assert [fetch(url) for url in (*health, f"{health[1]}/status")] == [None] * 3


def test_the_stack_ends_with_each_of_its_parts(tmp_path: Path) -> None:
    """When Jaeger ends because its port is taken, `dev.sh` says so, takes the Collector down and fails."""
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        stack(tmp_path / "log", JAEGER_UI=taken.getsockname()[1]) as (process, ports),
    ):
        assert process.wait(timeout=60) == 1
    written = (tmp_path / "log").read_text(encoding="utf-8")
    assert "address already in use" in written
    assert "dev.sh: jaeger or otelcol has ended; its messages say why\n" in written
    assert fetch(f"http://127.0.0.1:{ports['HEALTH']}") is None


def test_badger_keeps_traces(backends: Backends) -> None:
    """On badger a trace is still there after Jaeger has crashed and been started again."""
    jaeger = backends.jaeger("jaeger-badger.yaml")
    with spans.tracer(jaeger.otlp_grpc, "kept") as tracer:
        trace_id = spans.chat(tracer)
    wait_for("the trace", lambda: jaeger.trace(trace_id))
    jaeger.kill()
    jaeger.start()
    assert [span["name"] for span in jaeger.trace(trace_id)] == ["chat gpt-4.1-mini"]


def test_two_jaegers_on_one_cluster(backends: Backends) -> None:
    """What one Jaeger writes to the cluster of `jaeger-elasticsearch.yaml`, another finds there."""
    cluster = backends.opensearch()
    settings = {"ELASTICSEARCH_URL": cluster.url}
    writer, reader = (backends.jaeger("jaeger-elasticsearch.yaml", **settings) for _ in range(2))
    with spans.tracer(writer.otlp_grpc, "shared") as tracer:
        trace_id = spans.chat(tracer, error="APITimeoutError")
    (span,) = wait_for("the trace in the other", lambda: reader.trace(trace_id))
    assert span["name"] == "chat gpt-4.1-mini"
    assert [event["name"] for event in span["events"]] == [semconv.GENERATION_ERROR]
    wait_for("the service in the other", lambda: "shared" in reader.services())
