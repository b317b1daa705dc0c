"""The road to many machines: gateway, a real Kafka broker, ingester, Jaeger."""

from __future__ import annotations

import pytest

from openai_lifecycle import semconv

from . import spans
from .harness import Backends, Collector, wait_for

pytestmark = pytest.mark.backends


def ingester(backends: Backends, broker: str, jaeger: str) -> Collector:
    """Start an ingester that decides quickly and keeps every trace."""
    return backends.collector(
        "kafka-ingester.yaml",
        "sampling.yaml",
        KAFKA_BROKER=broker,
        JAEGER_OTLP_ENDPOINT=jaeger,
        JAEGER_INSECURE="true",
        DECISION_WAIT="1s",
        BASELINE_PERCENT=100,
        SPAN_METRICS_INTERVAL="1s",
    )


def test_gateway_to_kafka_to_jaeger(backends: Backends) -> None:
    """What is sent before any ingester runs is read from Kafka, without its content, by two that share the work."""
    kafka = backends.kafka()
    jaeger = backends.jaeger()
    gateway = backends.collector("kafka-gateway.yaml", "redaction.yaml", KAFKA_BROKER=kafka.broker)
    with spans.tracer(gateway.grpc, "kafka") as tracer:
        expected = {spans.chat(tracer) for _ in range(100)}
    with spans.tracer(gateway.grpc, "redacted") as tracer:
        spans.write_canaries(tracer)
    ingesters = [ingester(backends, kafka.broker, jaeger.otlp_grpc) for _ in range(2)]
    wait_for("every trace", lambda: {span["traceId"] for span in jaeger.spans("kafka")} == expected)
    assert len(jaeger.spans("kafka")) == 100
    redacted = wait_for("the redacted spans", lambda: jaeger.spans("redacted"))
    assert spans.CANARY not in str(redacted)
    wait_for(
        "the span metrics of both",
        lambda: (
            sum(running.span_calls(semconv.REQUEST_MODEL, "gpt-4.1-mini") for running in ingesters) == 102
        ),
    )


def test_kafka_down_loses_no_span(backends: Backends) -> None:
    """Spans sent while the broker is away wait on the gateway's disk and arrive when it is back."""
    kafka = backends.kafka()
    jaeger = backends.jaeger()
    gateway = backends.collector("kafka-gateway.yaml", "redaction.yaml", KAFKA_BROKER=kafka.broker)
    kafka.stop()
    with spans.tracer(gateway.grpc, "kafka") as tracer:
        expected = {spans.chat(tracer) for _ in range(100)}
    gateway.kill()
    kafka.start()
    gateway.start()
    ingester(backends, kafka.broker, jaeger.otlp_grpc)
    wait_for("every trace", lambda: {span["traceId"] for span in jaeger.spans("kafka")} == expected)
