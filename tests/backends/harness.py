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
    """Return ports that nobody listened on a moment ago; all different."""
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
        self._command, self._environment, self._log = command, {**os.environ, **environment}, log
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> str:
        """Everything the program has printed so far, over all its starts."""
        return self._log.read_text(errors="replace")

    def ready(self) -> bool:
        """Return whether it answers."""
        raise NotImplementedError

    def start(self) -> None:
        """Start it and wait until it answers. A program that ends instead is an AssertionError with its log."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, env=self._environment, stdout=log, stderr=log)
        process, name = self._process, self._command[0]

        def running() -> bool:
            if process.poll() is not None:
                raise AssertionError(f"{name} ended with {process.returncode}:\n{self.log[-4000:]}")
            return self.ready()

        wait_for(f"{name} is ready", running)

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


class Configured(Process):
    """A program that runs on files of `collector-config/` laid over each other, and takes its ports from `ports`."""

    def __init__(
        self,
        binary: Path,
        configs: tuple[str, ...],
        ports: Mapping[str, int],
        environment: Mapping[str, object],
        directory: Path,
    ) -> None:
        named = {"LISTEN_HOST": "127.0.0.1", **ports, **environment}
        # A name with a colon is a setting given in place, such as `yaml:…`.
        files = [name if ":" in name else str(CONFIGS / name) for name in configs]
        super().__init__(
            [str(binary), *(part for file in files for part in ("--config", file))],
            {name: str(value) for name, value in named.items()},
            directory / f"{binary.name}.log",
        )


class Collector(Configured):
    """A Collector, with every port that a configuration may ask for."""

    def __init__(
        self, binary: Path, configs: tuple[str, ...], environment: Mapping[str, object], directory: Path
    ) -> None:
        names = ("OTLP_GRPC_PORT", "OTLP_HTTP_PORT", "HEALTH_PORT", "TELEMETRY_PORT", "PROMETHEUS_PORT")
        ports = dict(zip(names, free_ports(len(names)), strict=True))
        self.grpc = f"127.0.0.1:{ports['OTLP_GRPC_PORT']}"
        self.http = f"http://127.0.0.1:{ports['OTLP_HTTP_PORT']}"
        self._health = f"http://127.0.0.1:{ports['HEALTH_PORT']}"
        self._telemetry = f"http://127.0.0.1:{ports['TELEMETRY_PORT']}/metrics"
        self._prometheus = f"http://127.0.0.1:{ports['PROMETHEUS_PORT']}/metrics"
        self.queue = directory / "queue"
        super().__init__(binary, configs, ports, {"QUEUE_DIR": self.queue, **environment}, directory)

    def ready(self) -> bool:
        """Return whether its health check is content."""
        return fetch(self._health) is not None

    def prometheus(self) -> str:
        """Return what Prometheus would scrape."""
        return fetch(self._prometheus) or ""

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
        """Return the items in an exporter's sending queue, as the Collector itself reports; None before it does."""
        metrics = fetch(self._telemetry) or ""
        pattern = rf'^otelcol_exporter_queue_size\{{[^}}]*exporter="{re.escape(exporter)}"[^}}]*\}} (\S+)'
        found = re.search(pattern, metrics, re.MULTILINE)
        return int(float(found[1])) if found else None


class Jaeger(Configured):
    """Jaeger, and its HTTP API v3."""

    def __init__(
        self, binary: Path, configs: tuple[str, ...], environment: Mapping[str, object], directory: Path
    ) -> None:
        names = ("UI", "QUERY_GRPC", "OTLP_GRPC", "OTLP_HTTP", "HEALTH")
        ports = dict(zip(names, free_ports(len(names)), strict=True))
        self.api = f"http://127.0.0.1:{ports['UI']}/api/v3"
        self.otlp_grpc = f"127.0.0.1:{ports['OTLP_GRPC']}"
        variables = {f"JAEGER_{name}_PORT": port for name, port in ports.items()}
        data = {"JAEGER_DATA_DIR": directory / "data"}
        super().__init__(binary, ("jaeger.yaml", *configs), variables, {**data, **environment}, directory)

    def ready(self) -> bool:
        """Return whether its API answers."""
        return fetch(f"{self.api}/services") is not None

    def services(self) -> list[str]:
        """Return the services that have sent something."""
        found: Json = json.loads(fetch(f"{self.api}/services") or "{}")
        return list(found.get("services") or [])

    def spans(self, service: str) -> list[Json]:
        """Return every span of a service that Jaeger has now, as OTLP JSON with its attributes as a plain mapping."""
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
        """Return every span of a trace, in order of their start; empty while Jaeger has none."""
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
        """Return whether it listens."""
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
        java = ["java", "-Xmx512m", "-cp", f"{jars}:{jars}/*"]
        arguments = [str(directory), str(http), str(transport)]
        super().__init__([*java, "SingleNode", *arguments], {}, directory / "opensearch.log")

    def ready(self) -> bool:
        """Return whether it answers."""
        return fetch(self.url) is not None


P = TypeVar("P", bound=Process)


class Backends:
    """Starts programs for one test and stops them after it."""

    def __init__(self, program: Callable[[str], Path], directory: Path) -> None:
        self._program, self._directory = program, directory
        self._started: list[Process] = []

    def collector(self, *configs: str, **environment: object) -> Collector:
        """Start a Collector."""
        return self._start(Collector(self._program("otelcol"), configs, environment, self._fresh()))

    def jaeger(self, *configs: str, **environment: object) -> Jaeger:
        """Start Jaeger on `jaeger.yaml` and what is laid over it."""
        return self._start(Jaeger(self._program("jaeger"), configs, environment, self._fresh()))

    def kafka(self) -> Kafka:
        """Start a Kafka broker."""
        return self._start(Kafka(self._program("kafka").parent, self._fresh()))

    def opensearch(self) -> OpenSearch:
        """Start an OpenSearch node."""
        return self._start(OpenSearch(self._program("opensearch").parent, self._fresh()))

    def stop(self) -> None:
        """Stop what still runs, last started first. A Collector must not have warned of anything deprecated."""
        with contextlib.ExitStack() as stack:  # one that does not stop keeps none of the others
            for process in self._started:
                stack.callback(process.stop)
        logs = [process.log for process in self._started if isinstance(process, Collector)]
        deprecated = [line for log in logs for line in log.splitlines() if "deprecated" in line.lower()]
        assert not deprecated, deprecated

    def _fresh(self) -> Path:
        directory = self._directory / str(len(self._started))
        directory.mkdir()
        return directory

    def _start(self, process: P) -> P:
        self._started.append(process)
        process.start()
        return process
