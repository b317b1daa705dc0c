"""Real programs as test objects: a Collector, Jaeger, Kafka and OpenSearch on free loopback ports.

Everything is started by `Backends`, which the `backends` fixture stops again, each process by its own id.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

REPOSITORY = Path(__file__).parents[2]
CONFIGS = REPOSITORY / "collector-config"

T = TypeVar("T")
Json = dict[str, Any]


def free_ports(count: int) -> list[int]:
    """Ports that nobody listened on a moment ago; all different."""
    with contextlib.ExitStack() as open_sockets:
        ports = []
        for _ in range(count):
            listener = open_sockets.enter_context(socket.socket())
            listener.bind(("127.0.0.1", 0))
            ports.append(int(listener.getsockname()[1]))
        return ports


def wait_for(what: str, probe: Callable[[], T | None], seconds: float = 60) -> T:
    """Poll until `probe` returns something true, and return that; AssertionError naming `what` otherwise."""
    deadline = time.monotonic() + seconds
    while True:
        result = probe()
        if result:
            return result
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what}; last seen: {result!r}")
        time.sleep(0.1)


def fetch(url: str) -> str | None:
    """Return the body of a GET, or None while the server is not there or has nothing (404)."""
    try:
        with urllib.request.urlopen(url, timeout=10) as response:
            body: bytes = response.read()
            return body.decode()
    except urllib.error.HTTPError as error:
        error.close()
        return None
    except OSError:
        return None


class Process:
    """A program that runs until it is stopped; its output goes to a file."""

    def __init__(self, command: list[str], environment: Mapping[str, str], log: Path) -> None:
        self.command, self.environment, self.log_file = command, {**os.environ, **environment}, log
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> str:
        """Everything the program has printed so far, over all its starts."""
        return self.log_file.read_text(errors="replace")

    def ready(self) -> bool:
        """Whether it answers."""
        raise NotImplementedError

    def start(self) -> None:
        """Start it and wait until it answers. A program that ends instead is an AssertionError with its log."""
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(self.command, env=self.environment, stdout=log, stderr=log)
        process = self._process

        def running() -> bool:
            if process.poll() is not None:
                raise AssertionError(
                    f"{self.command[0]} ended with {process.returncode}:\n{self.log[-4000:]}"
                )
            return self.ready()

        wait_for(f"{self.command[0]} is ready", running)

    def stop(self) -> None:
        """Ask it to stop and wait until it has."""
        self._end("terminate")

    def kill(self) -> None:
        """End it at once, as a crash would."""
        self._end("kill")

    def _end(self, how: str) -> None:
        if self._process is not None:
            getattr(self._process, how)()
            try:
                self._process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(timeout=10)
                raise
            finally:
                self._process = None


class Collector(Process):
    """A Collector running some files of `collector-config/`, with every port it may ask for its own."""

    def __init__(
        self, binary: Path, configs: tuple[str, ...], environment: Mapping[str, str], directory: Path
    ) -> None:
        grpc_port, http_port, self.health_port, self.telemetry_port, self.prometheus_port = free_ports(5)
        self.grpc, self.http = f"127.0.0.1:{grpc_port}", f"http://127.0.0.1:{http_port}"
        self.queue = directory / "queue"
        ports = {
            "LISTEN_HOST": "127.0.0.1",
            "OTLP_GRPC_PORT": grpc_port,
            "OTLP_HTTP_PORT": http_port,
            "HEALTH_PORT": self.health_port,
            "TELEMETRY_PORT": self.telemetry_port,
            "PROMETHEUS_PORT": self.prometheus_port,
            "QUEUE_DIR": self.queue,
        }
        self.grpc_port = grpc_port
        arguments = [
            part for name in configs for part in ("--config", name if ":" in name else str(CONFIGS / name))
        ]
        super().__init__(
            [str(binary), *arguments],
            {**{name: str(value) for name, value in ports.items()}, **environment},
            directory / "collector.log",
        )

    def ready(self) -> bool:
        """Whether its health check is content."""
        return fetch(f"http://127.0.0.1:{self.health_port}") is not None

    def prometheus(self) -> str:
        """Return what Prometheus would scrape."""
        return fetch(f"http://127.0.0.1:{self.prometheus_port}/metrics") or ""

    def span_calls(self, attribute: str, value: str) -> int:
        """Return how many spans with this attribute the span metrics have counted, sampled or not."""
        label = f'{attribute.replace(".", "_")}="{value}"'
        calls = [
            line
            for line in self.prometheus().splitlines()
            if line.startswith("traces_span_metrics_calls_total{")
        ]
        return sum(int(float(line.rsplit(" ", 1)[1])) for line in calls if label in line)

    def queue_size(self, exporter: str) -> int | None:
        """Items in the sending queue of an exporter, as the Collector itself reports; None before it does."""
        metrics = fetch(f"http://127.0.0.1:{self.telemetry_port}/metrics") or ""
        pattern = rf'^otelcol_exporter_queue_size\{{[^}}]*exporter="{re.escape(exporter)}"[^}}]*\}} (\S+)'
        found = re.search(pattern, metrics, re.MULTILINE)
        return int(float(found[1])) if found else None


class Jaeger(Process):
    """Jaeger, and its HTTP API v3."""

    def __init__(
        self, binary: Path, configs: tuple[str, ...], environment: Mapping[str, str], directory: Path
    ) -> None:
        ui, query_grpc, otlp_grpc, otlp_http, health = free_ports(5)
        self.api, self.otlp_grpc, self.otlp_http = (
            f"http://127.0.0.1:{ui}/api/v3",
            f"127.0.0.1:{otlp_grpc}",
            f"http://127.0.0.1:{otlp_http}",
        )
        self.health_port = health
        ports = {
            "LISTEN_HOST": "127.0.0.1",
            "JAEGER_UI_PORT": ui,
            "JAEGER_QUERY_GRPC_PORT": query_grpc,
            "JAEGER_OTLP_GRPC_PORT": otlp_grpc,
            "JAEGER_OTLP_HTTP_PORT": otlp_http,
            "JAEGER_HEALTH_PORT": health,
            "JAEGER_DATA_DIR": directory / "data",
        }
        arguments = [part for name in configs for part in ("--config", str(CONFIGS / name))]
        super().__init__(
            [str(binary), *arguments],
            {**{name: str(value) for name, value in ports.items()}, **environment},
            directory / "jaeger.log",
        )

    def ready(self) -> bool:
        """Whether its API answers."""
        return fetch(f"{self.api}/services") is not None

    def services(self) -> list[str]:
        """Return the services that have sent something."""
        found: Json = json.loads(fetch(f"{self.api}/services") or "{}")
        return list(found.get("services") or [])

    def spans(self, service: str) -> list[Json]:
        """Every span of a service that Jaeger has now, as OTLP JSON with its attributes as a plain mapping."""
        now = time.time()
        query = urllib.parse.urlencode(
            {
                "query.service_name": service,
                "query.start_time_min": _rfc3339(now - 3600),
                "query.start_time_max": _rfc3339(now + 60),
                "query.num_traces": 10000,
            }
        )
        body = fetch(f"{self.api}/traces?{query}")
        return _plain_spans(json.loads(body)) if body else []

    def trace(self, trace_id: str) -> list[Json]:
        """Every span of a trace, in order of their start; empty while Jaeger has none."""
        body = fetch(f"{self.api}/traces/{trace_id}")
        spans = _plain_spans(json.loads(body)) if body else []
        return sorted(spans, key=lambda span: int(span["startTimeUnixNano"]))


def _rfc3339(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _plain_spans(answer: Json) -> list[Json]:
    spans = []
    for resource in answer["result"].get("resourceSpans", ()):
        for scope in resource.get("scopeSpans", ()):
            for span in scope["spans"]:
                events = [
                    {**event, "attributes": _plain(event.get("attributes", ()))}
                    for event in sorted(span.get("events", ()), key=_time)  # Jaeger sorts them by name
                ]
                spans.append(
                    {
                        **span,
                        "attributes": _plain(span.get("attributes", ())),
                        "events": events,
                        "resource": _plain(resource["resource"].get("attributes", ())),
                        "scope": scope.get("scope", {}),
                    }
                )
    return spans


def _time(event: Json) -> int:
    return int(event["timeUnixNano"])


def _plain(attributes: Any) -> Json:
    return {attribute["key"]: _plain_value(attribute["value"]) for attribute in attributes}


def _plain_value(value: Json) -> Any:
    ((kind, content),) = value.items()
    if kind == "intValue":
        return int(content)  # 64-bit integers are strings in OTLP JSON
    if kind == "arrayValue":
        return [_plain_value(element) for element in content.get("values", ())]
    return content


class Kafka(Process):
    """One Kafka broker that is its own controller, from its jars."""

    def __init__(self, jars: Path, directory: Path) -> None:
        port, controller = free_ports(2)
        self.broker, self._port = f"127.0.0.1:{port}", port
        self._properties = directory / "server.properties"
        settings = {
            "process.roles": "broker,controller",
            "node.id": 1,
            "controller.quorum.voters": f"1@127.0.0.1:{controller}",
            "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}",
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
            "controller.listener.names": "CONTROLLER",
            "log.dirs": directory / "data",
            "num.partitions": 4,
            "offsets.topic.replication.factor": 1,
            "offsets.topic.num.partitions": 1,
            "transaction.state.log.replication.factor": 1,
            "transaction.state.log.min.isr": 1,
            "group.initial.rebalance.delay.ms": 0,
        }
        self._properties.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        self._java = ["java", "-Xmx512m", "-cp", f"{jars}/*"]
        super().__init__([*self._java, "kafka.Kafka", str(self._properties)], {}, directory / "kafka.log")

    def start(self) -> None:
        """Format its disk, unless that was done before, and start it."""
        tool = ["kafka.tools.StorageTool", "format", "--ignore-formatted", "-t", "AAAAAAAAAAAAAAAAAAAAAQ"]
        command = [*self._java, *tool, "-c", str(self._properties)]
        subprocess.run(command, check=True, capture_output=True, timeout=60)
        super().start()

    def ready(self) -> bool:
        """Whether it listens."""
        try:
            socket.create_connection(("127.0.0.1", self._port), timeout=1).close()
        except OSError:
            return False
        return True


class OpenSearch(Process):
    """One OpenSearch node; to Jaeger the same as Elasticsearch 7."""

    def __init__(self, jars: Path, directory: Path) -> None:
        http, transport = free_ports(2)
        self.url = f"http://127.0.0.1:{http}"
        classpath = f"{jars}:{jars}/*"
        command = [
            "java",
            "-Xmx512m",
            "-cp",
            classpath,
            "SingleNode",
            str(directory),
            str(http),
            str(transport),
        ]
        super().__init__(command, {}, directory / "opensearch.log")

    def ready(self) -> bool:
        """Whether it answers."""
        return fetch(self.url) is not None


P = TypeVar("P", bound=Process)


class Backends:
    """Starts programs for one test and stops them after it."""

    def __init__(self, program: Callable[[str], Path], directory: Path) -> None:
        self._program, self._directory = program, directory
        self._started: list[Process] = []

    def collector(self, *configs: str, **environment: object) -> Collector:
        """Start a Collector with these files of `collector-config/` laid over each other."""
        plain = {name: str(value) for name, value in environment.items()}
        return self._start(Collector(self._program("otelcol"), configs, plain, self._fresh()))

    def jaeger(self, *configs: str, **environment: object) -> Jaeger:
        """Start Jaeger on `jaeger.yaml` and what is laid over it."""
        plain = {name: str(value) for name, value in environment.items()}
        return self._start(Jaeger(self._program("jaeger"), ("jaeger.yaml", *configs), plain, self._fresh()))

    def kafka(self) -> Kafka:
        """Start a Kafka broker."""
        return self._start(Kafka(self._program("kafka").parent, self._fresh()))

    def opensearch(self) -> OpenSearch:
        """Start an OpenSearch node."""
        return self._start(OpenSearch(self._program("opensearch").parent, self._fresh()))

    def stop(self) -> None:
        """Stop what still runs, last started first. A Collector must not have warned of anything deprecated."""
        for process in reversed(self._started):
            process.stop()
        for process in self._started:
            if isinstance(process, Collector):
                deprecated = [line for line in process.log.splitlines() if "deprecated" in line.lower()]
                assert not deprecated, deprecated

    def _fresh(self) -> Path:
        directory = self._directory / str(len(self._started))
        directory.mkdir()
        return directory

    def _start(self, process: P) -> P:
        self._started.append(process)
        process.start()
        return process
