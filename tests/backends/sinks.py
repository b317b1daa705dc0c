"""The far end of a pipeline: OTLP servers in the test's own process, which keep what they were sent."""

from __future__ import annotations

import contextlib
import gzip
import threading
from collections.abc import Iterator
from concurrent import futures
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc  # type: ignore[import-untyped]
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass
class Sink:
    """Receives OTLP and keeps it, both as the bytes that came and decoded."""

    endpoint: str
    bodies: list[bytes] = field(default_factory=list)
    traces: list[ExportTraceServiceRequest] = field(default_factory=list)
    metrics: list[ExportMetricsServiceRequest] = field(default_factory=list)
    logs: list[ExportLogsServiceRequest] = field(default_factory=list)

    def take(self, signal: str, body: bytes) -> None:
        """Keep one export request of `traces`, `metrics` or `logs`."""
        self.bodies.append(body)
        getattr(self, signal).append(_REQUESTS[signal].FromString(body))

    @property
    def spans(self) -> list[Any]:
        """Every span received so far."""
        return [
            span
            for request in list(self.traces)
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    @property
    def log_records(self) -> list[Any]:
        """Every log record received so far."""
        return [
            record
            for request in list(self.logs)
            for resource in request.resource_logs
            for scope in resource.scope_logs
            for record in scope.log_records
        ]


_REQUESTS: dict[str, Any] = {
    "traces": ExportTraceServiceRequest,
    "metrics": ExportMetricsServiceRequest,
    "logs": ExportLogsServiceRequest,
}


@contextlib.contextmanager
def grpc_sink(endpoint: str = "127.0.0.1:0") -> Iterator[Sink]:
    """Serve OTLP over gRPC; `endpoint` is host:port, by default a free port."""
    sink = Sink("")

    def export(signal: str) -> grpc.RpcMethodHandler:
        def answer(body: bytes, _: grpc.ServicerContext) -> bytes:
            sink.take(signal, body)
            return b""  # an empty response message: everything accepted

        return grpc.unary_unary_rpc_method_handler(answer)

    server = grpc.server(futures.ThreadPoolExecutor(4))
    for signal, name in (
        ("traces", "trace.v1.Trace"),
        ("metrics", "metrics.v1.Metrics"),
        ("logs", "logs.v1.Logs"),
    ):
        service = f"opentelemetry.proto.collector.{name}Service"
        handlers = grpc.method_handlers_generic_handler(service, {"Export": export(signal)})
        server.add_generic_rpc_handlers((handlers,))
    sink.endpoint = f"127.0.0.1:{server.add_insecure_port(endpoint)}"
    server.start()
    try:
        yield sink
    finally:
        server.stop(grace=None).wait(timeout=30)


@contextlib.contextmanager
def http_sink() -> Iterator[Sink]:
    """Serve OTLP over HTTP (protobuf, compressed or not); `endpoint` is the base URL."""
    sink = Sink("")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers["Content-Encoding"] == "gzip":
                body = gzip.decompress(body)
            sink.take(self.path.rsplit("/", 1)[-1], body)
            self.send_response(200)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    sink.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield sink
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
