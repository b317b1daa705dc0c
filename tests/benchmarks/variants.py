"""Ways to observe a call: not at all, by hand, by this package in several configurations, by another package.

The hand-written ones are what an application's author would write around the call: the *floor* is a span with
twelve attributes set one by one; *floor, not sampled* is the same where the sampler drops the span; *floor with
metrics* also records the conventions' duration and token counts; *floor with metrics and file* also appends a JSON
object of the same facts to a file, with one ``write(2)``.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from time import perf_counter
from typing import Any, Final

import openai
from opentelemetry.metrics import Histogram, NoOpMeterProvider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Sampler
from opentelemetry.trace import Span, SpanKind, Status, StatusCode

from tests.benchmarks.scenarios import URL, Outcome, Scenario

#: Makes the call once; of an async scenario, returns a coroutine that does.
Call = Callable[[], Any]
_MEMORY: Final = "/dev/shm" if Path("/dev/shm").is_dir() else None


class _Nowhere(SpanExporter):
    def __init__(self) -> None:
        self.count = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.count += len(spans)
        return SpanExportResult.SUCCESS


class Telemetry:
    """An SDK as applications configure it: spans in batches, metrics collected on demand; and a file in memory."""

    def __init__(self, sampler: Sampler = ALWAYS_ON) -> None:
        self._exporter = _Nowhere()
        self.tracers = TracerProvider(sampler, shutdown_on_exit=False)
        self.tracers.add_span_processor(BatchSpanProcessor(self._exporter))
        self.meters = MeterProvider([InMemoryMetricReader()], shutdown_on_exit=False)
        self.log = tempfile.TemporaryFile("ab", buffering=0, dir=_MEMORY)  # noqa: SIM115 - close() does

    def exported(self) -> int:
        """Return how many spans have been exported."""
        self.tracers.force_flush()
        return self._exporter.count

    def close(self) -> None:
        """Stop the threads and close the file."""
        self.tracers.shutdown()
        self.meters.shutdown()
        self.log.close()


@dataclass(frozen=True, slots=True)
class Variant:
    """``active`` instruments while entered; ``calls`` builds the call from a scenario and a client."""

    name: str
    calls: Callable[[Scenario, Any, Telemetry], Call]
    active: Callable[[Telemetry], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext
    sampler: Sampler = field(default_factory=lambda: ALWAYS_ON)


# ------------------------------------------------------------------ bare
def bare(scenario: Scenario, client: Any, _: Telemetry) -> Call:
    """Return the call without any observation."""
    if not scenario.method:
        return _constructor(client)
    send, streamed = scenario.sender(client), scenario.is_streamed

    def call() -> None:
        try:
            answer = send()
            if streamed:
                for _ in answer:
                    pass
        except openai.APIStatusError:
            pass

    async def acall() -> None:
        try:
            answer = await send()
            if streamed:
                async for _ in answer:
                    pass
        except openai.APIStatusError:
            pass

    return acall if scenario.is_async else call


def _constructor(client: Any) -> Call:
    http = client._client
    return lambda: openai.OpenAI(api_key="sk-benchmark-0123456789", base_url=URL, http_client=http)


# ------------------------------------------------------------------ by hand
def floor(scenario: Scenario, client: Any, telemetry: Telemetry) -> Call:
    """Return the call inside a hand-written span."""
    return _by_hand(scenario, client, telemetry, metrics=False)


def floor_with_metrics(scenario: Scenario, client: Any, telemetry: Telemetry) -> Call:
    """Return the call inside a hand-written span, with three hand-written metric records."""
    return _by_hand(scenario, client, telemetry, metrics=True)


def floor_with_metrics_and_file(scenario: Scenario, client: Any, telemetry: Telemetry) -> Call:
    """Return the call inside a hand-written span, with metric records and a hand-written log entry."""
    return _by_hand(scenario, client, telemetry, metrics=True, file=True)


def _by_hand(
    scenario: Scenario, client: Any, telemetry: Telemetry, *, metrics: bool, file: bool = False
) -> Call:
    tracer = telemetry.tracers.get_tracer("by_hand")
    meter = telemetry.meters.get_meter("by_hand")
    duration = meter.create_histogram("gen_ai.client.operation.duration", "s")
    tokens = meter.create_histogram("gen_ai.client.token.usage", "{token}")
    if not scenario.method:
        construct = _constructor(client)

        def constructed() -> Any:
            with tracer.start_as_current_span("initialize openai") as span:
                span.set_attribute("gen_ai.provider.name", "openai")
                span.set_attribute("server.address", "api.openai.com")
                span.set_attribute("server.port", 443)
                return construct()

        return constructed
    send, streamed, outcome = scenario.sender(client), scenario.is_streamed, scenario.outcome
    operation, model = scenario.operation, scenario.request["model"]

    def span_of_call() -> Any:
        return tracer.start_as_current_span(
            f"{operation} {model}",
            kind=SpanKind.CLIENT,
            record_exception=False,
            set_status_on_exception=False,
        )

    def call() -> None:
        started = perf_counter()
        chunks, first, answer, result = 0, 0.0, None, None
        with span_of_call() as span:
            _asked(span, operation, model)
            try:
                answer = send()
                if streamed:
                    for chunk in answer:
                        if not chunks:
                            first = perf_counter()
                        chunks += 1
                        answer = chunk
            except openai.APIStatusError as error:
                _failed(span, error)
            else:
                result = outcome(answer)
                _answered(span, result)
                if chunks:
                    span.set_attribute("gen_ai.response.time_to_first_chunk", first - started)
            if metrics:
                _record(duration, tokens, perf_counter() - started, operation, model, result)
            if file:
                telemetry.log.write(_entry(span, scenario, perf_counter() - started, result))

    async def acall() -> None:
        started = perf_counter()
        chunks, first, answer, result = 0, 0.0, None, None
        with span_of_call() as span:
            _asked(span, operation, model)
            try:
                answer = await send()
                if streamed:
                    async for chunk in answer:
                        if not chunks:
                            first = perf_counter()
                        chunks += 1
                        answer = chunk
            except openai.APIStatusError as error:
                _failed(span, error)
            else:
                result = outcome(answer)
                _answered(span, result)
                if chunks:
                    span.set_attribute("gen_ai.response.time_to_first_chunk", first - started)
            if metrics:
                _record(duration, tokens, perf_counter() - started, operation, model, result)
            if file:
                telemetry.log.write(_entry(span, scenario, perf_counter() - started, result))

    return acall if scenario.is_async else call


def _asked(span: Span, operation: str, model: str) -> None:
    span.set_attribute("gen_ai.operation.name", operation)
    span.set_attribute("gen_ai.provider.name", "openai")
    span.set_attribute("gen_ai.request.model", model)
    span.set_attribute("gen_ai.request.temperature", 0.2)
    span.set_attribute("server.address", "api.openai.com")
    span.set_attribute("server.port", 443)
    span.set_attribute("openai.api.type", "chat_completions")


def _answered(span: Span, outcome: Outcome) -> None:
    span.set_attribute("gen_ai.response.id", outcome.id)
    span.set_attribute("gen_ai.response.model", outcome.model)
    span.set_attribute("gen_ai.response.finish_reasons", [outcome.finish_reason])
    span.set_attribute("gen_ai.usage.input_tokens", outcome.input_tokens)
    span.set_attribute("gen_ai.usage.output_tokens", outcome.output_tokens)


def _failed(span: Span, error: openai.APIStatusError) -> None:
    span.set_attribute("error.type", type(error).__qualname__)
    span.set_attribute("http.response.status_code", error.status_code)
    span.set_status(Status(StatusCode.ERROR, str(error)))


def _record(
    duration: Histogram,
    tokens: Histogram,
    seconds: float,
    operation: str,
    model: str,
    outcome: Outcome | None,
) -> None:
    common: dict[str, Any] = {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": model,
        "gen_ai.response.model": outcome.model if outcome else "",
        "server.address": "api.openai.com",
        "server.port": 443,
    }
    duration.record(seconds, common)
    if outcome is not None:
        tokens.record(outcome.input_tokens, {**common, "gen_ai.token.type": "input"})
        tokens.record(outcome.output_tokens, {**common, "gen_ai.token.type": "output"})


def _entry(span: Span, scenario: Scenario, seconds: float, outcome: Outcome | None) -> bytes:
    """Return a log entry that holds what the span holds, and what was sent."""
    context, sent = span.get_span_context(), scenario.request
    entry = {
        "event_type": "LLM_GENERATION_SUCCESS" if outcome else "LLM_GENERATION_ERROR",
        "provider": "openai",
        "model_id": sent["model"],
        "operation": scenario.operation,
        "message_content": str(sent.get("messages") or sent.get("input")),
        "trace_id": f"{context.trace_id:032x}",
        "metadata": {
            "user": "nobody",
            "custom_fields": {
                "response_id": outcome.id if outcome else "",
                "response_model": outcome.model if outcome else "",
                "finish_reasons": outcome.finish_reason if outcome else "",
                "input_tokens": str(outcome.input_tokens if outcome else 0),
                "output_tokens": str(outcome.output_tokens if outcome else 0),
                "duration_ms": f"{seconds * 1000:.3f}",
                "span_id": f"{context.span_id:016x}",
                "timestamp": datetime.now(timezone.utc).isoformat(),
            },
        },
    }
    return f"{json.dumps(entry, indent=2, ensure_ascii=False)}\n\n".encode()


# ------------------------------------------------------------------ by a package
@contextlib.contextmanager
def _environment(**variables: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


_CAPTURE: Final = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"


def _ours(
    name: str, *, file: bool = True, sampler: Sampler = ALWAYS_ON, capture: str = "event_only", **options: Any
) -> Variant:
    @contextlib.contextmanager
    def active(telemetry: Telemetry) -> Iterator[None]:
        import openai_lifecycle

        # The file is in memory, so that its system calls are measured and not a disk.
        with tempfile.TemporaryDirectory(dir=_MEMORY) as folder, _environment(**{_CAPTURE: capture}):
            openai_lifecycle.instrument(
                tracer_provider=telemetry.tracers,
                events_log=f"{folder}/events.log" if file else "none",
                **{"meter_provider": telemetry.meters, **options},
            )
            try:
                yield
            finally:
                openai_lifecycle.uninstrument()

    return Variant(name, bare, active, sampler)


@dataclass(frozen=True, slots=True)
class Peer:
    """Another package: its requirement, instrumentor and environment variables."""

    requirement: str
    instrumentor: str
    environment: dict[str, str] = field(default_factory=dict)

    @contextlib.contextmanager
    def active(self, telemetry: Telemetry) -> Iterator[None]:
        """Instrument with the package."""
        module, _, name = self.instrumentor.partition(":")
        with _environment(**self.environment):
            instrumentor = getattr(importlib.import_module(module), name)()
            instrumentor.instrument(tracer_provider=telemetry.tracers, meter_provider=telemetry.meters)
            try:
                yield
            finally:
                instrumentor.uninstrument()


_OFFICIAL: Final = "opentelemetry-instrumentation-genai-openai"
_GENAI: Final = "opentelemetry.instrumentation.genai.openai:OpenAIInstrumentor"
PEERS: Final = {
    "official genai": Peer(_OFFICIAL, _GENAI),
    "official genai, content": Peer(_OFFICIAL, _GENAI, {_CAPTURE: "span_and_event"}),
    "OpenInference": Peer(
        "openinference-instrumentation-openai", "openinference.instrumentation.openai:OpenAIInstrumentor"
    ),
    "OpenLLMetry": Peer(
        "opentelemetry-instrumentation-openai", "opentelemetry.instrumentation.openai:OpenAIInstrumentor"
    ),
}

VARIANTS: Final = {
    variant.name: variant
    for variant in (
        Variant("bare", bare),
        Variant("bare again", bare),
        Variant("floor", floor),
        Variant("floor, not sampled", floor, sampler=ALWAYS_OFF),
        Variant("floor with metrics", floor_with_metrics),
        Variant("floor with metrics and file", floor_with_metrics_and_file),
        _ours("everything on"),
        _ours("without file", file=False),
        _ours("content on span", capture="span_and_event"),
        _ours("not sampled, file", sampler=ALWAYS_OFF),
        _ours("not sampled", file=False, sampler=ALWAYS_OFF),
        _ours("nothing recorded", file=False, sampler=ALWAYS_OFF, meter_provider=NoOpMeterProvider()),
        *(Variant(name, bare, peer.active) for name, peer in PEERS.items()),
    )
}
OURS: Final = tuple(name for name in VARIANTS if name not in PEERS)
