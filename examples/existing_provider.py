"""An application that configures OpenTelemetry itself, and exports over OTLP.

    OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:4318 python examples/existing_provider.py

`instrument()` uses the provider that the application sets, before or after it. The spans of calls to the
model are children of the application's spans and are exported with them. Their events are also written to
`events.log`. Without an endpoint the spans are printed.
"""

import os

import offline_server
import openai
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter

import openai_lifecycle


def configure_tracing() -> TracerProvider:
    """Name the service, choose an exporter and set the global provider, as applications do."""
    provider = TracerProvider(resource=Resource.create({"service.name": "existing-provider"}))
    otlp = "OTEL_EXPORTER_OTLP_ENDPOINT" in os.environ
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter() if otlp else ConsoleSpanExporter()))
    trace.set_tracer_provider(provider)
    return provider


def main() -> None:
    """Ask one question inside a span of the application."""
    openai_lifecycle.instrument()
    provider = configure_tracing()
    with (
        offline_server.serve() as base_url,
        openai.OpenAI(base_url=base_url, api_key="offline") as client,
        trace.get_tracer("existing_provider").start_as_current_span("answer a letter") as span,
    ):
        client.chat.completions.create(
            model="gpt-4.1-mini", messages=[{"role": "user", "content": "What shall I write back?"}]
        )
        print(f"Trace {trace.format_trace_id(span.get_span_context().trace_id)} is in events.log too.")
    provider.shutdown()


if __name__ == "__main__":
    main()
