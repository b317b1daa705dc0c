"""Each example as a user runs it: a process of its own, in an empty folder, without a network."""

from __future__ import annotations

import collections
import contextlib
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import offline_server
import pytest

from tests.limits import HANGS
from tests.otlp_receiver import RECEIVERS, attributes_of

EXAMPLES = Path(offline_server.__file__).parent
OFFLINE_RUN = {  # what one run of the quickstart leaves, by the tag in the header
    "INIT_START": 2,
    "INIT_SUCCESS": 1,
    "INIT_ERROR": 1,
    "GENERATION_SUCCESS": 4,
    "TOOL_CALL_DETECTED": 1,
    "GENERATION_ERROR": 1,
}
SUMMARY = {
    "LLM_INITIALIZATION_START": 2,
    "LLM_INITIALIZATION_SUCCESS": 1,
    "LLM_INITIALIZATION_ERROR": 1,
    "LLM_GENERATION_SUCCESS": 4,
    "TOOL_CALL_DETECTED": 1,
    "LLM_GENERATION_ERROR": 1,
}


def run(command: list[str], folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=HANGS,
        check=False,
    )


def example(name: str) -> list[str]:
    return [sys.executable, str(EXAMPLES / name)]


def tags(folder: Path) -> collections.Counter[str]:
    """Count the entries of the folder's events.log by tag, with no help of the package."""
    text = (folder / "events.log").read_text(encoding="utf-8")
    return collections.Counter(re.findall(r"^\[[\d :-]{19}\] \[EVENT: (\w+)\]$", text, re.MULTILINE))


def entries(folder: Path, tag: str) -> list[dict[str, Any]]:
    """Read the objects of the entries with a tag, with no help of the package."""
    text = (folder / "events.log").read_text(encoding="utf-8")
    found = re.findall(
        rf"^\[[\d :-]{{19}}\] \[EVENT: {tag}\]\n(\{{.*?\n\}})\n\n", text, re.MULTILINE | re.DOTALL
    )
    return [json.loads(each) for each in found]


def test_quickstart_offline_shows_every_step_and_logs_every_event(tmp_path: Path) -> None:
    """Without a key the quickstart says that it is offline, and its log holds all six event types."""
    done = run(example("quickstart.py"), tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].startswith("OPENAI_API_KEY is not set: using the offline server")
    assert [line[:5] for line in lines if line.startswith("[")] == [f"[{n}/6]" for n in range(1, 7)]
    assert "      tokens: 12 in, 14 out" in lines
    assert '      the model calls get_weather({"location": "Reykjavik"})' in lines
    assert "      The tool says: 4 degrees and windy in Reykjavik" in lines
    assert any("The model `no-such-model` does not exist" in line for line in lines)
    assert "      OpenAIError: Missing credentials." in lines
    assert tags(tmp_path) == OFFLINE_RUN
    assert f"{tmp_path / 'events.log'} holds 10 entries:" in lines
    summary = [line.split() for line in lines[-6:]]
    assert {event_type: int(count) for count, event_type in summary} == SUMMARY


def test_quickstart_under_opentelemetry_instrument_doubles_nothing(tmp_path: Path) -> None:
    """The command and the program's own `instrument()` together leave the same log and output as one."""
    instrument = str(Path(sys.executable).parent / "opentelemetry-instrument")
    done = run([instrument, *example("quickstart.py")], tmp_path)
    assert done.returncode == 0, done.stderr
    assert tags(tmp_path) == OFFLINE_RUN
    assert done.stdout.splitlines()[-7] == f"{tmp_path / 'events.log'} holds 10 entries:"
    assert done.stderr == ""


def test_quickstart_appends_to_the_log_of_earlier_runs(tmp_path: Path) -> None:
    """A second run adds its entries, and the summary counts all of them."""
    for _ in range(2):
        done = run(example("quickstart.py"), tmp_path)
    assert tags(tmp_path) == {tag: 2 * count for tag, count in OFFLINE_RUN.items()}
    assert "holds 20 entries:" in done.stdout


def test_quickstart_talks_to_the_server_it_is_given(tmp_path: Path) -> None:
    """With a key and a base URL it uses them, says nothing of an offline server, and never logs the key."""
    with offline_server.serve() as base_url:
        key = "sk-quickstart-0123456789abcdef"
        done = run(example("quickstart.py"), tmp_path, OPENAI_API_KEY=key, OPENAI_BASE_URL=base_url)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("[1/6] Creating a client\n")
    assert f" at {base_url}" in done.stdout
    assert tags(tmp_path) == OFFLINE_RUN
    assert key not in (tmp_path / "events.log").read_text(encoding="utf-8") + done.stdout


def test_quickstart_with_a_bad_key_stops_and_the_log_says_why(tmp_path: Path) -> None:
    """A refused key ends the program with status 1 and one line; the failed call is in the log."""
    with offline_server.serve() as base_url:
        done = run(example("quickstart.py"), tmp_path, OPENAI_API_KEY="invalid", OPENAI_BASE_URL=base_url)
    assert done.returncode == 1
    assert re.fullmatch(r"Stopped by AuthenticationError: .+\n", done.stderr)
    assert tags(tmp_path) == {"INIT_START": 1, "INIT_SUCCESS": 1, "GENERATION_ERROR": 1}


def test_redact_masks_and_drops(tmp_path: Path) -> None:
    """The transform's result is what is written: no address, and no entries of constructions."""
    done = run(example("redact.py"), tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    log = (tmp_path / "redacted.log").read_text(encoding="utf-8")
    assert done.stdout == log
    assert re.findall(r"EVENT: (\w+)", log) == ["GENERATION_SUCCESS"]
    assert '"message_content": "user: Write to [e-mail] that I am late."' in log
    assert "ada@example.com" not in log
    assert [path.name for path in tmp_path.iterdir()] == ["redacted.log"]


def test_existing_provider_prints_spans_of_the_trace_in_the_log(tmp_path: Path) -> None:
    """Without an endpoint the application's own exporter prints the model's span, once, under its parent."""
    done = run(example("existing_provider.py"), tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    first, _, printed = done.stdout.partition("\n")
    decoder, spans = json.JSONDecoder(), []
    while printed.strip():
        span, end = decoder.raw_decode(printed.lstrip())
        spans.append(span)
        printed = printed.lstrip()[end:]
    names = [span["name"] for span in spans]
    assert sorted(names) == ["answer a letter", "chat gpt-4.1-mini", "initialize openai"]
    call, parent = spans[names.index("chat gpt-4.1-mini")], spans[names.index("answer a letter")]
    assert call["parent_id"] == parent["context"]["span_id"]
    [entry] = entries(tmp_path, "GENERATION_SUCCESS")
    assert entry["trace_id"] == first.split()[1] == call["context"]["trace_id"].removeprefix("0x")


def test_existing_provider_exports_over_otlp(tmp_path: Path) -> None:
    """With an endpoint the same spans arrive there, once, and in the log."""
    with RECEIVERS["http"]() as received:
        endpoint = received.environment["OTEL_EXPORTER_OTLP_ENDPOINT"]
        done = run(example("existing_provider.py"), tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=endpoint)
    assert (done.returncode, done.stderr) == (0, "")
    services = {attributes_of(resource)["service.name"] for resource in received.resources}
    assert services == {"existing-provider"}
    names = sorted(span.name for span in received.spans)
    assert names == ["answer a letter", "chat gpt-4.1-mini", "initialize openai"]
    assert tags(tmp_path) == {"INIT_START": 1, "INIT_SUCCESS": 1, "GENERATION_SUCCESS": 1}


@contextlib.contextmanager
def fastapi_app(folder: Path, **variables: str) -> Iterator[str]:
    """Run the service on a free port until the block ends; the value is its address."""
    with subprocess.Popen(
        [*example("fastapi_app.py"), "0"],
        cwd=folder,
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        # So that neither readline nor communicate waits for ever
        hurry = threading.Timer(HANGS, process.kill)
        hurry.start()
        try:
            assert process.stdout is not None
            lines: list[str] = []
            while not (found := re.search(r"running on (http://[\d.:]+)", lines[-1] if lines else "")):
                lines.append(process.stdout.readline())
                assert lines[-1], "".join(lines)
            yield found[1]
        finally:
            process.send_signal(signal.SIGINT)
            rest, _ = process.communicate()
            hurry.cancel()
        assert process.returncode in (0, -signal.SIGINT), rest
        assert "Traceback" not in rest


def get(url: str, **query: str) -> str:
    with urllib.request.urlopen(f"{url}?{urllib.parse.urlencode(query)}", timeout=HANGS) as reply:
        text: str = reply.read().decode()
        return text


def test_fastapi_app_streams_and_logs(tmp_path: Path) -> None:
    """The service streams the model's answer, and each request's call is one streamed entry in the log."""
    with fastapi_app(tmp_path) as url:
        assert get(f"{url}/chat", question="Why?") == "This is the offline model. You asked: Why?"
        assert get(f"{url}/chat", question="How?") == "This is the offline model. You asked: How?"
    assert tags(tmp_path) == {"INIT_START": 1, "INIT_SUCCESS": 1, "GENERATION_SUCCESS": 2}
    found = entries(tmp_path, "GENERATION_SUCCESS")
    assert [entry["message_content"] for entry in found] == ["user: Why?", "user: How?"]
    assert [entry["metadata"]["custom_fields"]["stream"] for entry in found] == ["true", "true"]


def test_fastapi_app_passes_the_model_error_on(tmp_path: Path) -> None:
    """A request that the model's server refuses has its status, and one error entry."""
    with (
        offline_server.serve() as base_url,
        fastapi_app(
            tmp_path, OPENAI_API_KEY="offline", OPENAI_BASE_URL=base_url, OPENAI_MODEL="no-such-model"
        ) as url,
        pytest.raises(urllib.error.HTTPError) as refused,
    ):
        get(f"{url}/chat", question="Why?")
    refused.value.close()
    assert refused.value.code == 404
    assert tags(tmp_path) == {"INIT_START": 1, "INIT_SUCCESS": 1, "GENERATION_ERROR": 1}


#: What a user has below the lines from the README.
CALL = """
import openai

client = openai.OpenAI(api_key="sk-offline-0123456789")
print(client.chat.completions.create(model="m", messages=[{"role": "user", "content": "Hi"}]).object)
"""


def test_the_python_of_the_readme(base_url: str, tmp_path: Path) -> None:
    """The README's lines do what it says: record, read, send to destinations, and to one of the user's own."""
    readme = (EXAMPLES.parent / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^ *```python\n(.*?)^ *```$", readme, re.MULTILINE | re.DOTALL)
    elsewhere = {"/var/log": str(tmp_path), "postgresql+psycopg://app@db/telemetry": "sqlite:///events.db"}
    printed = []
    for block in blocks:
        program = textwrap.dedent(block) + CALL
        for there, here in elsewhere.items():
            program = program.replace(there, here)
        done = run([sys.executable, "-c", program], tmp_path, OPENAI_BASE_URL=base_url)
        assert (done.returncode, done.stderr) == (0, "")
        printed.append(done.stdout)
    recording, reading, sending, own = printed
    assert recording == sending == "chat.completion\n"
    assert [line.split()[2] for line in reading.splitlines()[:-1]] == [
        "LLM_INITIALIZATION_START",
        "LLM_INITIALIZATION_SUCCESS",
        "LLM_GENERATION_SUCCESS",
    ]
    assert "LLM_GENERATION_SUCCESS m\n" in own
    assert len((tmp_path / "llm.jsonl").read_text(encoding="utf-8").splitlines()) == 3
    with contextlib.closing(sqlite3.connect(tmp_path / "events.db")) as database:
        assert database.execute("SELECT count(*) FROM openai_lifecycle_events").fetchone() == (3,)
