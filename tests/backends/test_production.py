"""Agent and gateway: nothing that must stay leaves, nothing that must arrive is lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from openai_lifecycle import semconv

from . import spans
from .applications import QUICKSTART, run
from .harness import Backends, Collector, wait_for
from .sinks import grpc_sink

pytestmark = pytest.mark.backends


def agent(backends: Backends, gateway: str, **environment: object) -> Collector:
    """Start an agent whose only gateway is at `gateway` (127.0.0.1:port)."""
    host, port = gateway.split(":")
    return backends.collector(
        "agent.yaml",
        "redaction.yaml",
        GATEWAY_HOST=host,
        GATEWAY_PORT=port,
        GATEWAY_INSECURE="true",
        **environment,
    )


def gateway(backends: Backends, jaeger: str, **environment: object) -> Collector:
    """Start a gateway that decides quickly, keeps no trace by chance, and sends to `jaeger`."""
    settings = {
        "JAEGER_OTLP_ENDPOINT": jaeger,
        "JAEGER_INSECURE": "true",
        "DECISION_WAIT": "1s",
        "BASELINE_PERCENT": 0,
        "SPAN_METRICS_INTERVAL": "1s",
    }
    return backends.collector(
        "gateway.yaml", "redaction.yaml", "sampling.yaml", **{**settings, **environment}
    )


def test_no_content_leaves_the_agent(backends: Backends) -> None:
    """Of spans with and without events, no content and no key is in the bytes that the agent sends."""
    with grpc_sink() as sink:
        running = agent(backends, sink.endpoint)
        with spans.tracer(running.grpc, "redacted") as tracer:
            spans.write_canaries(tracer)
        wait_for("both spans", lambda: len(sink.spans) == 2)
    sent = b"".join(sink.bodies)
    assert spans.CANARY.encode() not in sent
    assert spans.KEY.encode() not in sent
    assert sent.count(b"greeting") == 4  # what is harmless stays: on two spans and two events
    events = {event.name for span in sink.spans for event in span.events}
    assert events == {semconv.TOOL_CALL_DETECTED, semconv.GENERATION_ERROR, "exception"}
    assert {span.status.code for span in sink.spans} == {2}


def test_no_content_of_the_quickstart_leaves_the_agent(backends: Backends, tmp_path: Path) -> None:
    """The real package with all its content on spans and events: questions, answers, tools, errors stay here."""
    with grpc_sink() as sink:
        running = agent(backends, sink.endpoint)
        log = run(
            QUICKSTART,
            tmp_path,
            OTEL_EXPORTER_OTLP_ENDPOINT=f"http://{running.grpc}",
            OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT="span_and_event",
        )
        wait_for("every event", lambda: sum(len(span.events) for span in sink.spans) >= len(log))
    sent = b"".join(sink.bodies)
    written = (tmp_path / "events.log").read_text()
    for text in (
        "audit log",
        "Count from one",
        "Reykjavik",
        "Is anybody there",
        "does not exist",
        "credentials",
    ):
        assert text in written
        assert text.encode() not in sent
    for text in ("offline model", "Tell the weather"):  # answers and tool definitions are on the span alone
        assert text.encode() not in sent
    assert b"get_weather" in sent
    assert b"NotFoundError" in sent


def test_no_content_in_the_queue(backends: Backends) -> None:
    """While no gateway answers the spans wait on disk, and there is no content in the files."""
    running = agent(backends, "127.0.0.1:1")
    with spans.tracer(running.grpc, "redacted") as tracer:
        spans.write_canaries(tracer)
    wait_for("the spans are queued", lambda: running.queue_size("load_balancing") == 2)
    running.stop()
    on_disk = b"".join(path.read_bytes() for path in running.queue.rglob("*") if path.is_file())
    assert b"without events" in on_disk
    assert b"with events" in on_disk
    assert spans.CANARY.encode() not in on_disk
    assert spans.KEY.encode() not in on_disk


def test_gateway_down_loses_no_span(backends: Backends) -> None:
    """Spans sent while the gateway is down survive even the agent's crash, and all arrive once."""
    with grpc_sink() as nowhere:
        pass  # a port that refuses, for now
    running = agent(backends, nowhere.endpoint)
    with spans.tracer(running.grpc, "outage") as tracer:
        expected = {spans.chat(tracer) for _ in range(3000)}
    wait_for("all are queued", lambda: running.queue_size("load_balancing") == 3000)
    running.kill()
    with grpc_sink(nowhere.endpoint) as sink:
        running.start()
        wait_for("all spans", lambda: len(sink.spans) >= 3000)
    assert {span.trace_id.hex() for span in sink.spans} == expected
    assert len(sink.spans) == 3000


def test_gateway_keeps_what_matters_and_counts_everything(backends: Backends) -> None:
    """Errors, slow and expensive calls reach Jaeger, plain ones do not; the span metrics have counted all."""
    jaeger = backends.jaeger()
    running = gateway(backends, jaeger.otlp_grpc)
    with spans.tracer(running.grpc, "sampled") as tracer:
        kept = {
            spans.chat(tracer, error="RateLimitError"),
            spans.chat(tracer, seconds=25),
            spans.chat(tracer, output_tokens=5000),
        }
        for _ in range(10):
            spans.chat(tracer)
    wait_for("the kept traces", lambda: {span["traceId"] for span in jaeger.spans("sampled")} == kept)
    wait_for("the span metrics", lambda: running.span_calls(semconv.REQUEST_MODEL, "gpt-4.1-mini") == 13)
    assert running.span_calls(semconv.ERROR_TYPE, "RateLimitError") == 1


def test_baseline_is_sampled(backends: Backends) -> None:
    """With a baseline of 100 percent plain traces are kept, too: the variable does what it says."""
    jaeger = backends.jaeger()
    running = gateway(backends, jaeger.otlp_grpc, BASELINE_PERCENT=100)
    with spans.tracer(running.grpc, "baseline") as tracer:
        expected = {spans.chat(tracer) for _ in range(5)}
    wait_for("all traces", lambda: {span["traceId"] for span in jaeger.spans("baseline")} == expected)


def test_agent_to_gateway_to_jaeger(backends: Backends) -> None:
    """The whole road: what leaves the application through an agent and a gateway is found in Jaeger."""
    jaeger = backends.jaeger()
    running = agent(backends, gateway(backends, jaeger.otlp_grpc).grpc)
    with spans.tracer(running.grpc, "road") as tracer:
        trace_id = spans.chat(tracer, error="APITimeoutError")
    (span,) = wait_for("the trace", lambda: jaeger.trace(trace_id))
    assert span["name"] == "chat gpt-4.1-mini"
    assert span["status"]["code"] == 2
    assert [event["name"] for event in span["events"]] == [semconv.GENERATION_ERROR]


def test_a_trace_stays_together(backends: Backends, tmp_path: Path) -> None:
    """With two gateways both get work, and all spans of a trace go to the same one."""
    with grpc_sink() as first, grpc_sink() as second:
        two = f"yaml:exporters::load_balancing::resolver: {{dns: null, static: {{hostnames: [{first.endpoint}, {second.endpoint}]}}}}"
        running = backends.collector("agent.yaml", "redaction.yaml", two, GATEWAY_INSECURE="true")
        with spans.tracer(running.grpc, "balanced") as tracer:
            for _ in range(200):
                with tracer.start_as_current_span("parent"), tracer.start_as_current_span("child"):
                    pass
        wait_for("all spans", lambda: len(first.spans) + len(second.spans) == 400)
    in_first, in_second = ({span.trace_id for span in sink.spans} for sink in (first, second))
    assert in_first
    assert in_second
    assert not in_first & in_second
    assert len(in_first | in_second) == 200
