"""Exporters by the SDK's rules, from ``OTEL_*`` alone."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpSpanExporter
from opentelemetry.sdk.metrics.export import ConsoleMetricExporter
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter

from openai_lifecycle import sdk
from openai_lifecycle.eventslog.exporter import EventsLogExporter


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sdk, "_reported", set())


@pytest.mark.parametrize(
    ("signal", "environment", "names"),
    [
        (sdk.TRACES, {}, []),
        (sdk.TRACES, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"}, ["otlp_proto_grpc"]),
        (sdk.METRICS, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"}, []),
        (sdk.METRICS, {"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://x"}, ["otlp_proto_grpc"]),
        (
            sdk.TRACES,
            {
                "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://x",
                "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            },
            ["otlp_proto_http"],
        ),
        (sdk.TRACES, {"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"}, []),
        (sdk.TRACES, {"OTEL_TRACES_EXPORTER": "console, events_log"}, ["console", "events_log"]),
    ],
)
def test_who_asks_for_what(
    monkeypatch: pytest.MonkeyPatch, signal: sdk.Signal, environment: dict[str, str], names: list[str]
) -> None:
    """Exporters are those that are named, else OTLP where an endpoint of the signal is set, else none."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert sdk.exporter_names(signal) == names


@pytest.mark.parametrize(
    ("protocol", "expected"), [("grpc", OTLPSpanExporter), ("http/protobuf", HttpSpanExporter)]
)
def test_the_protocol_chooses_the_exporter(
    monkeypatch: pytest.MonkeyPatch, protocol: str, expected: type[Any]
) -> None:
    """Each OTLP protocol loads the exporter that speaks it."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
    assert list(sdk.loaded(sdk.TRACES)) == [expected]


def test_a_provider_has_the_exporters_but_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """The provider gets a batch processor for each exporter; ours is attached elsewhere, without a delay."""
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "console,events_log")
    provider = sdk.tracer_provider()
    processors = provider._active_span_processor._span_processors
    exporters = [p.span_exporter for p in processors if isinstance(p, BatchSpanProcessor)]
    provider.shutdown()
    assert [type(exporter) for exporter in exporters] == [ConsoleSpanExporter]
    assert EventsLogExporter in list(sdk.loaded(sdk.TRACES))


def test_metrics_only_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an exporter for metrics there is no meter provider; with one there is, and it exports there."""
    assert sdk.meter_provider() is None
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "console")
    provider = sdk.meter_provider()
    assert provider is not None
    provider.shutdown()
    assert list(sdk.loaded(sdk.METRICS)) == [ConsoleMetricExporter]


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        (
            {"OTEL_TRACES_EXPORTER": "pigeon"},
            "OTEL_TRACES_EXPORTER='pigeon' is not allowed: it must be one of ",
        ),
        (
            {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "smoke"},
            "OTEL_EXPORTER_OTLP_PROTOCOL='smoke' is not allowed: it must be one of grpc or http/protobuf",
        ),
    ],
)
def test_a_wrong_value_is_reported_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, environment: dict[str, str], said: str
) -> None:
    """A value that names nothing is one error, however often it is read, and the rest goes on."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with caplog.at_level(logging.ERROR):
        assert list(sdk.loaded(sdk.TRACES)) == list(sdk.loaded(sdk.TRACES)) == []
    (record,) = caplog.records
    assert record.getMessage().startswith(said)


def test_an_exporter_that_cannot_be_loaded(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An exporter whose package is broken is one error with the reason."""

    class Broken:
        name = "broken"

        def load(self) -> None:
            raise ImportError("no grpc here")

    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "broken")
    monkeypatch.setattr(sdk, "entry_points", lambda **_: [Broken()])
    with caplog.at_level(logging.ERROR):
        assert list(sdk.loaded(sdk.TRACES)) == []
    assert "OTEL_TRACES_EXPORTER='broken' cannot be loaded: no grpc here" in caplog.text
