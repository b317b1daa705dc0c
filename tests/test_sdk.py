"""Exporters by the SDK's rules, from ``OTEL_*`` alone."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpSpanExporter
from opentelemetry.sdk.metrics.export import ConsoleMetricExporter, InMemoryMetricReader
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
        (
            sdk.TRACES,
            {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf"},
            ["otlp_proto_http"],
        ),
        (sdk.TRACES, {"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"}, []),
        (sdk.TRACES, {"OTEL_TRACES_EXPORTER": "console, events_log"}, ["console", "events_log"]),
        # Empty values count as not given, as a compose file passes them on.
        (
            sdk.TRACES,
            {
                "OTEL_TRACES_EXPORTER": " ",
                "OTEL_EXPORTER_OTLP_ENDPOINT": "http://x",
                "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "",
                "OTEL_EXPORTER_OTLP_PROTOCOL": " http/protobuf ",
            },
            ["otlp_proto_http"],
        ),
        (sdk.TRACES, {"OTEL_TRACES_EXPORTER": "None,console,"}, ["console"]),
    ],
)
def test_who_asks_for_what(
    monkeypatch: pytest.MonkeyPatch, signal: sdk.Signal, environment: dict[str, str], names: list[str]
) -> None:
    """Exporters are those that are named, else OTLP where an endpoint of the signal is set, else none."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert sdk.exporter_names(signal) == names


@pytest.mark.parametrize(("value", "expected"), [("", False), ("1", False), ("true", True), (" TRUE ", True)])
def test_when_the_sdk_is_disabled(monkeypatch: pytest.MonkeyPatch, value: str, *, expected: bool) -> None:
    """``OTEL_SDK_DISABLED`` is read as the SDK reads it: only the word true counts, in letters of any size."""
    monkeypatch.setenv("OTEL_SDK_DISABLED", value)
    assert sdk.disabled() == expected


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
            "OTEL_TRACES_EXPORTER='pigeon' is not allowed: it must be ",
        ),
        (
            {"OTEL_TRACES_EXPORTER": "pigeon,dove"},
            "OTEL_TRACES_EXPORTER='dove' is not allowed: it must be ",
        ),
        (
            {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "smoke"},
            "OTEL_EXPORTER_OTLP_PROTOCOL='smoke' is not allowed: it must be grpc or http/protobuf; nothing is exported",
        ),
    ],
)
def test_a_wrong_value_is_reported_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, environment: dict[str, str], said: str
) -> None:
    """Each value that names nothing is one error, however often it is read, and the rest goes on."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with caplog.at_level(logging.ERROR):
        assert list(sdk.loaded(sdk.TRACES)) == list(sdk.loaded(sdk.TRACES)) == []
    assert len(caplog.records) == len(environment["OTEL_TRACES_EXPORTER"].split(","))
    assert caplog.messages[-1].startswith(said)


def test_an_application_without_metadata_is_told_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where no package has metadata, as in a frozen application, the error says that, not that the name is wrong."""
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")
    monkeypatch.setattr(sdk, "entry_points", lambda **_: [])
    assert list(sdk.loaded(sdk.TRACES)) == []
    said = "cannot be loaded: no package's metadata names an exporter; it is ignored"
    assert caplog.messages == [f"OTEL_TRACES_EXPORTER='otlp_proto_grpc' {said}"]


OTLP = {"OTEL_TRACES_EXPORTER": "console,otlp,console"}
WRONG: dict[str, tuple[dict[str, str], list[str]]] = {
    "a timeout": (
        {**OTLP, "OTEL_EXPORTER_OTLP_TIMEOUT": "10s"},
        ["grpc.trace_exporter.OTLPSpanExporter: ValueError", "'10s'", "OTEL_EXPORTER_OTLP_TIMEOUT"],
    ),
    "a compression": (
        {**OTLP, "OTEL_EXPORTER_OTLP_COMPRESSION": "tight"},
        ["OTLPSpanExporter", "OTEL_EXPORTER_OTLP_COMPRESSION", "tight"],
    ),
    "a queue": (
        {**OTLP, "OTEL_BSP_MAX_QUEUE_SIZE": "0"},
        ["ConsoleSpanExporter: ValueError: max_queue_size", "OTEL_BSP_MAX_QUEUE_SIZE"],
    ),
    "a batch": (
        {**OTLP, "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "100000"},
        ["ConsoleSpanExporter: ValueError: max_export_batch_size", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE"],
    ),
    "a limit": (
        {**OTLP, "OTEL_SPAN_EVENT_COUNT_LIMIT": "many"},
        ["span limits: ValueError: OTEL_SPAN_EVENT_COUNT_LIMIT must be", "many"],
    ),
    "another limit": (
        {**OTLP, "OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT": "many"},
        ["set variables: OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT, OTEL_TRACES_EXPORTER"],
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_cannot_be_started_is_left_out(
    what: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A wrong value costs what it is for and nothing else: one error says what and why, no thread is left behind."""
    environment, said = WRONG[what]
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    threads = threading.active_count()
    for _ in range(2):
        provider = sdk.tracer_provider()
        provider.shutdown()
    (record,) = caplog.records
    assert all(part in record.getMessage() for part in said)
    assert "PATH" not in record.getMessage()
    processors = provider._active_span_processor._span_processors
    assert len(processors) == {"a limit": 3, "another limit": 3, "a timeout": 2, "a compression": 2}.get(
        what, 0
    )
    assert threading.active_count() == threads


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s", "OTLPMetricExporter: ValueError"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "-1", "MetricExporter: ValueError"),
        ("OTEL_METRICS_EXEMPLAR_FILTER", "all", "metrics: ValueError"),
    ],
)
def test_metrics_that_cannot_be_started_are_left_out(
    variable: str, value: str, said: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What cannot be started for metrics is one error that names the variable, and no thread is left behind."""
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "otlp")
    monkeypatch.setenv(variable, value)
    threads = threading.active_count()
    assert sdk.meter_provider() is sdk.meter_provider() is None
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert said in record.getMessage()
    assert variable in record.getMessage()
    assert threading.active_count() == threads


@pytest.mark.parametrize(
    ("variable", "value", "kind", "start"),
    [
        ("OTEL_BSP_MAX_QUEUE_SIZE", "0", ConsoleSpanExporter, sdk.tracer_provider),
        ("OTEL_METRIC_EXPORT_INTERVAL", "-1", ConsoleMetricExporter, sdk.meter_provider),
    ],
)
def test_an_exporter_that_nothing_can_use_is_shut_down(
    variable: str, value: str, kind: type[Any], start: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where what hands data to an exporter cannot be started, the exporter gives back what it has opened."""
    ended = []

    def exporter() -> Any:
        return type("Opened", (kind,), {"shutdown": lambda *_, **__: ended.append(variable)})()

    monkeypatch.setattr(sdk, "loaded", lambda _: iter([exporter]))
    monkeypatch.setenv(variable, value)
    start()
    assert ended == [variable]


def test_a_metric_reader_is_used_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """An exporter that is asked for its metrics, as Prometheus's is, gets them without another that sends."""
    made: list[InMemoryMetricReader] = []

    class Scraped(InMemoryMetricReader):
        def __init__(self) -> None:
            super().__init__()
            made.append(self)

    monkeypatch.setattr(sdk, "loaded", lambda _: iter([Scraped]))
    provider = sdk.meter_provider()
    assert provider is not None
    provider.get_meter("m").create_counter("c").add(1)
    assert made[0].get_metrics_data() is not None
    provider.shutdown()


@pytest.mark.parametrize("variable", ["OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_HEADERS"])
def test_no_secret_is_told(
    variable: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What an exporter says of a header, raw or decoded, is not repeated."""

    class Talkative:
        def __init__(self) -> None:
            raise ValueError("no such place: 'Basic dXNlcjpwYXNzd29yZA', key=hunter2hunter2, raw: a%20b%20c")

    monkeypatch.setenv(variable, "authorization=Basic%20dXNlcjpwYXNzd29yZA, key = hunter2hunter2,k=a%20b%20c")
    monkeypatch.setattr(sdk, "loaded", lambda _: iter([Talkative]))
    sdk.tracer_provider().shutdown()
    (record,) = caplog.records
    assert "ValueError: no such place: '[REDACTED]', key=[REDACTED], raw: [REDACTED]" in record.getMessage()


def test_an_sdk_without_our_way_to_start_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A future SDK that has no such configurator is one line, and a provider of our own is used."""
    import opentelemetry.sdk._configuration as configuration

    monkeypatch.delattr(configuration, "_OTelSDKConfigurator")
    sdk.start_globally()
    (record,) = caplog.records
    assert "without an SDK that is started globally: ImportError" in record.getMessage()
    assert record.exc_info is None


@pytest.mark.parametrize("error", [ImportError, TypeError])
def test_an_exporter_that_cannot_be_loaded(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An exporter whose package is broken is one error with the reason."""

    class Broken:
        name = "broken"

        def load(self) -> None:
            raise error("no grpc here")

    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "broken")
    monkeypatch.setattr(sdk, "entry_points", lambda **_: [Broken()])
    with caplog.at_level(logging.ERROR):
        assert list(sdk.loaded(sdk.TRACES)) == []
    assert f"OTEL_TRACES_EXPORTER='broken' cannot be loaded: {error.__name__}: no grpc here" in caplog.text
