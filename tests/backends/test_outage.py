"""The Collector goes away under load and comes back."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from openai_lifecycle import semconv

from .applications import QUICKSTART, entries, instrumented
from .harness import Backends, wait_for

pytestmark = pytest.mark.backends

# Longer than the 10 s for which the SDK retries an export, so that it gives up at least once; 60 proves no more.
OUTAGE = float(os.environ.get("OPENAI_LIFECYCLE_OUTAGE_SECONDS", "15"))
LOAD = """
import pathlib, sys, time
sys.path.insert(0, {examples!r})
import offline_server, openai

with offline_server.serve() as base_url, openai.OpenAI(base_url=base_url, api_key="offline") as client:
    calls = 0
    while not pathlib.Path("stop").exists():
        client.chat.completions.create(model="gpt-4o", messages=[{{"role": "user", "content": "Hello"}}])
        calls += 1
        time.sleep(0.01)
pathlib.Path("calls").write_text(str(calls))
"""


def test_collector_down_under_load(backends: Backends, tmp_path: Path) -> None:
    """No call fails, no entry is missing, few lines are logged, and only what the SDK gave up is not in Jaeger."""
    jaeger = backends.jaeger()
    collector = backends.collector("dev.yaml", JAEGER_OTLP_ENDPOINT=jaeger.otlp_grpc)
    script = tmp_path / "load.py"
    script.write_text(LOAD.format(examples=str(QUICKSTART.parent)))
    settings = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{collector.grpc}", "OTEL_BSP_SCHEDULE_DELAY": "1000"}
    with instrumented(script, tmp_path, **settings) as application:
        try:
            wait_for("spans", lambda: jaeger.spans("load"))
            collector.stop()
            down = len(entries(tmp_path))
            until = time.monotonic() + OUTAGE
            wait_for("the end of the outage", lambda: time.monotonic() > until, seconds=OUTAGE + 10)
            up = len(entries(tmp_path))
            collector.start()
            last = entries(tmp_path)[-1].trace_id
            wait_for("a span of after the outage", lambda: jaeger.trace(last))
            (tmp_path / "stop").touch()
            assert application.wait(timeout=120) == 0
        finally:
            application.kill()
    calls = int((tmp_path / "calls").read_text())
    written = [entry for entry in entries(tmp_path) if entry.event_type == semconv.GENERATION_SUCCESS]
    assert len(written) == calls
    assert up > down + 100  # there was load in between
    logged = (tmp_path / "stderr").read_text().splitlines()
    assert 1 <= len(logged) <= OUTAGE, logged
    expected = {entry.trace_id for entry in written}
    seen = {span["traceId"] for span in jaeger.spans("load")}
    missing = expected - seen
    batches_given_up = OUTAGE // 10 + 1
    assert len(missing) <= 512 * batches_given_up
    after = {entry.trace_id for entry in entries(tmp_path)[up:]}
    assert not missing & after
