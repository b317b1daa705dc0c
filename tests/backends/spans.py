"""Plain SDK spans in the shape of this package's, for pipelines that are tested apart from it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, Status, StatusCode, Tracer
from opentelemetry.util.types import AttributeValue

from openai_lifecycle import semconv

CANARY = "canary-7f3a9c"
KEY = "sk-proj-0123456789abcdefABCDEF"


@contextlib.contextmanager
def tracer(endpoint: str, service: str) -> Iterator[Tracer]:
    """Yield a tracer that sends to `endpoint` (gRPC); everything has been sent when the block ends."""
    provider = TracerProvider(resource=Resource.create({"service.name": service}), shutdown_on_exit=False)
    exporter = OTLPSpanExporter(endpoint=endpoint, insecure=True)
    provider.add_span_processor(BatchSpanProcessor(exporter, max_queue_size=20_000))
    try:
        yield provider.get_tracer(semconv.SCOPE)
        assert provider.force_flush()
    finally:
        provider.shutdown()


def chat(
    tracer: Tracer,
    *,
    model: str = "gpt-4.1-mini",
    output_tokens: int = 20,
    error: str | None = None,
    seconds: float = 0.5,
) -> str:
    """Write one `chat` span that lasted `seconds` and ended well, or with `error`; return its trace id."""
    end = time.time_ns()
    attributes: dict[str, AttributeValue] = {
        semconv.OPERATION: "chat",
        semconv.PROVIDER: "openai",
        semconv.REQUEST_MODEL: model,
        semconv.INPUT_TOKENS: 10,
        semconv.OUTPUT_TOKENS: output_tokens,
    }
    start = end - int(seconds * 1e9)
    span = tracer.start_span(f"chat {model}", kind=SpanKind.CLIENT, attributes=attributes, start_time=start)
    if error is None:
        span.add_event(semconv.GENERATION_SUCCESS, {semconv.MESSAGES_COUNT: 1})
    else:
        span.set_attribute(semconv.ERROR_TYPE, error)
        span.set_status(Status(StatusCode.ERROR))
        span.add_event(semconv.GENERATION_ERROR, {semconv.ERROR_TYPE: error})
    span.end(end)
    return f"{span.get_span_context().trace_id:032x}"


def write_canaries(tracer: Tracer) -> None:
    """Content in every place that has one, on a span with events and on one without; and a key in another."""
    text = f"please keep {CANARY} to yourself"
    content = {
        **dict.fromkeys(semconv.CONTENT_ATTRIBUTES, text),
        "gen_ai.prompt.0.content": text,
        "gen_ai.completion": text,
        "gen_ai.tool.call.result": text,
        "gen_ai.prompt.variable.city": text,
        "llm.input_messages.0.message.content": text,
        "input.value": text,
        "output.value": text,
    }
    harmless = {"gen_ai.prompt.name": "greeting", semconv.REQUEST_MODEL: "gpt-4.1-mini", "note": f"key {KEY}"}
    with tracer.start_as_current_span("without events", attributes={**content, **harmless}) as span:
        span.set_status(Status(StatusCode.ERROR, text))
    with tracer.start_as_current_span("with events", attributes={**content, **harmless}) as span:
        span.add_event(semconv.TOOL_CALL_DETECTED, {**content, **harmless})
        span.add_event(semconv.GENERATION_ERROR, {**content, **harmless})
        span.record_exception(ValueError(text))
        span.set_status(Status(StatusCode.ERROR, text))
