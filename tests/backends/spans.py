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
