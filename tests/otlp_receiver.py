"""OTLP receivers on loopback, gRPC and HTTP, that decode what arrives with ``opentelemetry-proto``."""

from __future__ import annotations

import contextlib
import gzip
import threading
from collections.abc import Iterator
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc  # type: ignore[import-untyped]
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from openai_lifecycle import semconv
from tests.limits import HANGS


class Received:
    """The spans and metrics that arrived, and where to send them."""

    def __init__(self, endpoint: str, protocol: str) -> None:
        self.environment = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
            "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
            "OTEL_EXPORTER_OTLP_INSECURE": "true",
        }
        self.spans: list[Any] = []
        self.metrics: dict[str, list[Any]] = {}  # the data points of ours, by name
        self.resources: list[Any] = []
        self.scopes: list[Any] = []

    def traces(self, request: Any) -> None:
        """Take an export request."""
        for resource in request.resource_spans:
            self.resources.append(resource.resource)
            for scope in resource.scope_spans:
                self.scopes.append(scope.scope)
                self.spans.extend(scope.spans)

    def measured(self, request: Any) -> None:
        """Take an export request of metrics."""
        for resource in request.resource_metrics:
            for scope in resource.scope_metrics:
                for metric in scope.metrics if scope.scope.name == semconv.SCOPE else ():
                    data = getattr(metric, metric.WhichOneof("data"))
                    self.metrics.setdefault(metric.name, []).extend(data.data_points)

    def named(self, name: str) -> list[Any]:
        """Return the spans of that name."""
        return [span for span in self.spans if span.name == name]


def value_of(value: Any) -> Any:
    """Return the Python value of an ``AnyValue``."""
    kind = value.WhichOneof("value")
    found = getattr(value, kind)
    return [value_of(v) for v in found.values] if kind == "array_value" else found


def attributes_of(holder: Any) -> dict[str, Any]:
    """Return the attributes of a span, event, resource or data point."""
    return {pair.key: value_of(pair.value) for pair in holder.attributes}


@contextlib.contextmanager
def grpc_receiver() -> Iterator[Received]:
    """Serve the OTLP gRPC services for the time of a ``with`` block."""

    class Traces(trace_service_pb2_grpc.TraceServiceServicer):
        def Export(self, request: Any, context: Any) -> Any:  # noqa: N802 - the service's name
            received.traces(request)
            return trace_service_pb2.ExportTraceServiceResponse()

    class Metrics(metrics_service_pb2_grpc.MetricsServiceServicer):
        def Export(self, request: Any, context: Any) -> Any:  # noqa: N802
            received.measured(request)
            return metrics_service_pb2.ExportMetricsServiceResponse()

    server = grpc.server(futures.ThreadPoolExecutor(2))
    services: Any = trace_service_pb2_grpc, metrics_service_pb2_grpc  # untyped
    services[0].add_TraceServiceServicer_to_server(Traces(), server)
    services[1].add_MetricsServiceServicer_to_server(Metrics(), server)
    received = Received(f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}", "grpc")
    server.start()
    try:
        yield received
    finally:
        server.stop(0).wait(HANGS)


@contextlib.contextmanager
def http_receiver() -> Iterator[Received]:
    """Serve ``/v1/traces`` and ``/v1/metrics`` for the time of a ``with`` block."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            if self.path == "/v1/traces":
                received.traces(trace_service_pb2.ExportTraceServiceRequest.FromString(body))
            elif self.path == "/v1/metrics":
                received.measured(metrics_service_pb2.ExportMetricsServiceRequest.FromString(body))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    received = Received(f"http://127.0.0.1:{server.server_address[1]}", "http/protobuf")
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield received
    finally:
        server.shutdown()
        server.server_close()
        thread.join(HANGS)


RECEIVERS = {"grpc": grpc_receiver, "http": http_receiver}
