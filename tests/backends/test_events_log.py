"""`events-log.yaml` and the package's own reader say the same of one log."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from openai_lifecycle import LifecycleEvent
from openai_lifecycle.eventslog.format import render
from openai_lifecycle.eventslog.reader import read_events

from .harness import CONFIGS, REPOSITORY, Backends, wait_for
from .sinks import http_sink

pytestmark = pytest.mark.backends

ENTRY = """\
[2025-01-27 14:30:26] [EVENT: TOOL_CALL_DETECTED]
{
  "event_type": "TOOL_CALL_DETECTED",
  "trace_id": "",
  "tool_name": "get_weather",
  "arguments": "{\\"location\\": \\"San Francisco\\"}"
}

"""
CALLS = 300
WRITER = f"""
import sys
sys.path.insert(0, {str(REPOSITORY / "examples")!r})
import offline_server, openai, openai_lifecycle

path, compress = sys.argv[1:]
openai_lifecycle.instrument(events_log=path, max_bytes=40_000, backups=1000, compress=compress == "True")
tools = [{{"type": "function", "function": {{"name": "get_weather", "parameters": {{"type": "object"}}}}}}]
with offline_server.serve() as base_url:
    client = openai.OpenAI(base_url=base_url, api_key="offline", max_retries=0)
    for number in range({CALLS}):
        if number == {CALLS // 2}:
            sys.stdin.readline()  # however fast this is, the Collector restarts in the middle of it
        question = [{{"role": "user", "content": f"Wie wird das Wetter, {{number}}?\\nLine two: \\u2028 \U0001f327"}}]
        client.chat.completions.create(model="gpt-4o", messages=question, tools=tools if number % 3 else openai.omit)
        if number % 10 == 0:
            try:
                client.chat.completions.create(model="no-such-model", messages=question)
            except openai.NotFoundError:
                pass
"""


def plain(value: Any) -> Any:
    """Return an OTLP AnyValue as what JSON would make of it."""
    kind = value.WhichOneof("value")
    if kind is None:
        return None
    content = getattr(value, kind)
    if kind == "kvlist_value":
        return {pair.key: plain(pair.value) for pair in content.values}
    if kind == "array_value":
        return [plain(element) for element in content.values]
    return content


def of_record(record: Any) -> tuple[Any, ...]:
    """Return all that a log record says."""
    return (
        record.time_unix_nano,
        record.event_name,
        record.severity_text,
        record.severity_number,
        record.trace_id.hex(),
        record.span_id.hex(),
        json.dumps(plain(record.body), sort_keys=True),
    )


def of_event(event: LifecycleEvent) -> tuple[Any, ...]:
    """Return what a log record of this event has to say."""
    failed = event.tag.endswith("_ERROR")
    instant = datetime.fromisoformat(event.metadata.custom_fields["timestamp"])
    body = json.loads(render(event).partition("\n")[2])
    return (
        (int(instant.timestamp()) * 1_000_000 + instant.microsecond) * 1000,
        event.event_type,
        "ERROR" if failed else "INFO",
        17 if failed else 9,
        event.trace_id,
        event.metadata.custom_fields["span_id"],
        json.dumps(body, sort_keys=True),
    )


@pytest.mark.parametrize("compress", [False, True])
def test_equals_the_reader(backends: Backends, tmp_path: Path, compress: bool) -> None:
    """While the log is written, rotated and compressed, and over a restart, each entry becomes one equal record."""
    log = tmp_path / "events.log"
    with http_sink() as sink:
        collector = backends.collector("events-log.yaml", EVENTS_LOG=log, LOGS_ENDPOINT=sink.endpoint)
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(log), str(compress)], stdin=subprocess.PIPE
        )
        try:
            wait_for(
                "records while the log is written",
                lambda: len(sink.log_records) > 50 or writer.poll() is not None,
            )
            assert writer.poll() is None
            collector.stop()
            assert writer.stdin is not None
            writer.stdin.write(b"go on\n")
            writer.stdin.close()
            collector.start()
            assert writer.wait(timeout=120) == 0
        finally:
            writer.kill()
            writer.wait()
        events = list(read_events(log))
        assert len(list(tmp_path.glob("events.log.*"))) > 3
        wait_for("every entry", lambda: len(sink.log_records) >= len(events))
        records = sink.log_records
    assert len(events) > CALLS
    assert sorted(map(of_record, records)) == sorted(map(of_event, events))
    resources = {
        plain(attribute.value)
        for request in sink.logs
        for resource in request.resource_logs
        for attribute in resource.resource.attributes
    }
    assert resources == {"openai-lifecycle"}


def test_content_can_be_left_out(backends: Backends, tmp_path: Path) -> None:
    """With `redaction.yaml` laid over it, as the file's head says, records come without their content."""
    head = (CONFIGS / "events-log.yaml").read_text()
    (override,) = re.findall(r"--config '(yaml:.*)'", head)
    (tmp_path / "events.log").write_text(ENTRY)
    with http_sink() as sink:
        backends.collector(
            "events-log.yaml",
            "redaction.yaml",
            override,
            EVENTS_LOG=tmp_path / "events.log",
            LOGS_ENDPOINT=sink.endpoint,
        )
        (record,) = wait_for("the record", lambda: sink.log_records)
    assert plain(record.body) == {
        "event_type": "TOOL_CALL_DETECTED",
        "trace_id": "",
        "tool_name": "get_weather",
    }
    assert b"San Francisco" not in sink.bodies[0]


def test_a_torn_entry_hides_nothing(backends: Backends, tmp_path: Path) -> None:
    """What is no JSON arrives as it stands, and the entry after it as a record of its own, dated by its header."""
    log = tmp_path / "events.log"
    torn = ENTRY[:100]
    log.write_text(f"{torn}\n{ENTRY}")
    with http_sink() as sink:
        backends.collector(
            "events-log.yaml", EVENTS_LOG=log, LOGS_ENDPOINT=sink.endpoint, EVENTS_TIMEZONE="UTC"
        )
        wait_for("both", lambda: len(sink.log_records) == 2)
        first, second = sink.log_records
    assert first.body.string_value == torn.rstrip()
    assert plain(second.body)["tool_name"] == "get_weather"
    assert second.time_unix_nano == 1737988226 * 10**9
