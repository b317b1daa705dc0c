"""``show``, ``tail`` and ``trace``: every entry can be found, and none can drive the terminal."""

from __future__ import annotations

import gzip
import json
import os
import re
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import Result

from openai_lifecycle import records
from openai_lifecycle.cli.select import TAGS
from openai_lifecycle.events import LifecycleEvent, LLMGenerationError, ToolCallDetected
from openai_lifecycle.eventslog.format import render
from openai_lifecycle.eventslog.reader import read_events
from tests import generated
from tests.cli.conftest import COMMAND
from tests.limits import HANGS

Run = Callable[..., Result]
CONTROL = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def test_a_row_is_a_line_with_the_same_fields_for_every_entry(run: Run, real_log: Path) -> None:
    """In a pipe each entry is one line of nine fields between tabs, in the order of the file."""
    lines = [line.split("\t") for line in run("show", real_log).stdout.splitlines()]
    events = list(read_events(real_log))
    assert [line[1] for line in lines] == [event.tag for event in events]
    assert {len(line) for line in lines} == {9}
    assert [line[7] for line in lines] == [event.trace_id for event in events]


def test_full_is_the_file(run: Run, real_log: Path) -> None:
    """``--full`` prints what stands in the file, byte by byte."""
    assert run("show", "--full", real_log).stdout_bytes == real_log.read_bytes()


def test_json_is_every_field(run: Run, hostile_log: Path) -> None:
    """``--json`` and ``--jsonl`` give back every event as it was, hostile texts too."""
    events = list(read_events(hostile_log))
    assert [generated.restored(o) for o in json.loads(run("show", "--json", hostile_log).stdout)] == events
    lines = run("show", "--jsonl", hostile_log).stdout.splitlines()
    assert [generated.restored(json.loads(line)) for line in lines] == events
    assert json.loads(run("show", "--json", "--model", "nobody", hostile_log).stdout) == []


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["--event", "generation_error"], lambda e: e.tag == "GENERATION_ERROR"),
        (["--event", "llm_generation_ERROR"], lambda e: e.tag == "GENERATION_ERROR"),
        (["--event", "INIT_START", "--event", "TOOL_CALL_DETECTED"], lambda e: e.tag in ("INIT_START", "TOOL_CALL_DETECTED")),
        (["--model", "gpt-4*"], lambda e: e.model_id.startswith("gpt-4")),
        (["--provider", "azure*", "--error"], lambda e: e.provider == "azure.ai.openai" and isinstance(e, LLMGenerationError)),
        (["--tool", "get_*"], lambda e: isinstance(e, ToolCallDetected)),
        (["--user", "alice"], lambda e: e.metadata.user == "alice"),
        (["--trace", "0000000000000000000000000000000A"], lambda e: e.trace_id == f"{10:032x}"),
        (["--grep", "reykjav"], lambda e: isinstance(e, ToolCallDetected)),
        (["--grep", "Reykjav.k.*x"], lambda e: False),
        (["--grep", r'weather\(\{"'], lambda e: isinstance(e, ToolCallDetected)),
        (["--since", "2026-01-05T01:00:00Z", "--until", "2026-01-05T02:00:00Z"], lambda e: records.instant(e).hour == 1),
        (["--since", "1h"], lambda e: False),
        (["--until", "1h ago"], lambda e: True),
        (["--until", "2026-01-05T00:30:00+00:00", "--error"], lambda e: isinstance(e, LLMGenerationError) and records.instant(e).minute < 30 and records.instant(e).hour == 0),
    ],
)  # fmt: skip
def test_filters_combine(run: Run, log: Path, arguments: list[str], wanted: Callable[..., bool]) -> None:
    """Each filter keeps exactly what it says, and several keep what all of them want."""
    shown = run("show", "--full", *arguments, log).stdout
    assert shown == "".join(render(event) for event in read_events(log) if wanted(event))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--since", "yesterday"], "'yesterday' is not allowed: it must be a time such as"),
        (["--since", "2x"], "or an age: 90s, 30m, 2h, 7d, 1w"),
        (["--trace", "zz"], "'zz' is not allowed: it must be hexadecimal digits"),
        (["--trace", ""], "'' is not allowed: it must be hexadecimal digits"),
        (["--grep", "("], "'(' is not allowed: it must be a regular expression"),
        (["--event", "Oops"], "'Oops' is not allowed: it must be one of INIT_START, "),
    ],
)
def test_a_wrong_option_says_what_is_allowed(run: Run, log: Path, arguments: list[str], message: str) -> None:
    """A wrong value ends with status 2 and one message that names it and what is allowed."""
    assert message in run("show", *arguments, log, status=2).stderr


@pytest.mark.parametrize("value", ["x", "-1", "1.5", ""])
def test_a_wrong_number_says_what_is_allowed(run: Run, log: Path, value: str) -> None:
    """What is no number of entries ends with status 2 and one message that names it and what is allowed."""
    for arguments in (["tail", "-n"], ["report", "-o", "report.html", "--entries"]):
        told = run(*arguments, value, log, status=2).stderr
        assert f"{value!r} is not allowed: it must be a whole number, 0 or more" in told


@pytest.mark.parametrize("command", ["show", "tail", "stats", "report", "convert"])
def test_help_says_which_filters_may_be_repeated(run: Run, command: str) -> None:
    """Each filter that may be repeated says so in its help, and no other does."""
    options = re.split(r"\n  (?=-)", run(command, "--help").stdout)
    repeatable = {text.split()[0] for text in options if "may be repeated" in " ".join(text.split())}
    assert repeatable - {"--by"} == {"--event", "--model", "--provider", "--user", "--tool"}


def test_what_a_model_wrote_cannot_drive_the_terminal(run: Run, hostile_log: Path) -> None:
    """No command prints a control character, a bidirectional override or a line break of the log's texts."""
    for arguments in (
        ["show"],
        ["show", "--full"],
        ["tail", "-n", "999"],
        ["stats", "--by", "user"],
        ["check"],
    ):
        printed = run(*arguments, hostile_log, status=1 if arguments == ["check"] else 0).stdout
        assert not CONTROL.search(printed), arguments
        assert len(printed.splitlines()) == len(printed.split("\n")) - 1
    assert len(run("show", hostile_log).stdout.splitlines()) == len(generated.hostile())


def test_one_log_is_all_its_files(run: Run, log: Path) -> None:
    """Rotated and compressed files, patterns, several logs and standard input are read."""
    entries = log.read_bytes()
    half = entries.index(b"\n[", len(entries) // 2) + 1
    log.write_bytes(entries[half:])
    log.with_name("events.log.1.gz").write_bytes(gzip.compress(entries[:half]))
    assert run("show", "--full", log).stdout_bytes == entries
    assert run("show", "--full", f"{log.parent}/ev*.log").stdout_bytes == entries
    assert run("show", "--full").stdout_bytes == entries  # events.log of this folder
    piped = subprocess.run(
        [*COMMAND, "show", "--full", "-"], input=entries, capture_output=True, check=True, timeout=HANGS
    )
    assert piped.stdout == entries


def test_a_log_that_cannot_be_read_is_named(run: Run) -> None:
    """A name that is missing, empty or closed standard input is one line that says which, with status 2."""
    assert run("show", "nowhere.log", status=2).stderr == "Error: nowhere.log: there is no such log\n"
    assert run("show", "", status=2).stderr == "Error: '': there is no such log\n"
    closed = ["sh", "-c", 'exec "$@" <&-', "sh", *COMMAND, "show", "-"]
    ended = subprocess.run(closed, capture_output=True, text=True, timeout=HANGS, check=False)
    assert (ended.returncode, ended.stderr) == (2, "Error: /dev/stdin: Bad file descriptor\n")


def test_where_the_log_is_switched_off_one_must_be_named(
    run: Run, monkeypatch: pytest.MonkeyPatch, log: Path
) -> None:
    """With the variable at ``none`` there is no log to read unless one is named, and the error says so."""
    monkeypatch.setenv("OTEL_PYTHON_OPENAI_LIFECYCLE_EVENTS_LOG", "None")
    message = "OTEL_PYTHON_OPENAI_LIFECYCLE_EVENTS_LOG=none switches events.log off: name a LOG"
    assert message in run("show", status=2).stderr
    assert run("show", log).stdout


def test_damage_is_told_and_hides_nothing(run: Run, log: Path) -> None:
    """A torn entry is named on standard error with its place; all others are shown."""
    entries = log.read_bytes()
    log.write_bytes(entries[:200] + entries)
    result = run("show", "--full", log)
    assert result.stdout_bytes == entries
    assert f"{log}: skipped 200 bytes at offset 0" in result.stderr


def test_an_error_without_a_message_is_named_once(run: Run, tmp_path: Path) -> None:
    """Where an error's message is its type, ``show`` prints it once; where it is not, both."""
    (error,) = [event for event in generated.events(20) if isinstance(event, LLMGenerationError)][:1]
    kind = error.metadata.custom_fields["error_type"]
    log = generated.write(tmp_path / "events.log", [error, replace(error, error=kind)])
    texts = [line.split("\t")[8] for line in run("show", log).stdout.splitlines()]
    assert texts == [f"{kind}: try again", kind]


def test_tail_may_show_everything(run: Run, log: Path) -> None:
    """More entries than any computer counts to are all of them."""
    assert run("tail", "-n", 10**30, log).stdout == run("show", log).stdout


def test_tail_shows_the_last(run: Run, log: Path) -> None:
    """``tail -n`` shows the last entries of those that are wanted."""
    shown = run("tail", "-n", "3", "--error", "--jsonl", log).stdout.splitlines()
    errors = [event for event in read_events(log) if isinstance(event, LLMGenerationError)]
    assert [generated.restored(json.loads(line)) for line in shown] == errors[-3:]
    assert "never ends" in run("tail", "-f", "--json", log, status=2).stderr


@contextmanager
def following(*arguments: object) -> Iterator[subprocess.Popen[str]]:
    """Run ``tail -f``; whatever happens, it ends."""
    command = [*COMMAND, "tail", "-f", "--jsonl", *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as tail:
        stop = threading.Timer(HANGS, tail.kill)
        stop.start()
        try:
            yield tail
        finally:
            stop.cancel()
            tail.kill()


def next_event(tail: subprocess.Popen[str]) -> LifecycleEvent:
    """Wait for the next entry that ``tail`` shows."""
    assert tail.stdout is not None
    return generated.restored(json.loads(tail.stdout.readline()))


def test_tail_follows_across_rotation(log: Path) -> None:
    """``tail -f`` shows what is there at once, then what is written, also after the log was moved away."""
    more = list(generated.events(3, seed=7))
    with following("-n", "1", log) as tail:
        assert next_event(tail) == list(read_events(log))[-1]
        with log.open("ab") as file:
            file.write(render(more[0]).encode())
        assert next_event(tail) == more[0]
        os.rename(log, f"{log}.1")
        generated.write(log, more[1:])
        for event in more[1:]:
            assert next_event(tail) == event
        tail.send_signal(2)
        assert tail.wait(HANGS) == 0


def test_tail_says_that_it_waits(tmp_path: Path) -> None:
    """``tail -f`` of a log that does not exist yet says so once, and shows what is written to it later."""
    (event,) = generated.events(1)
    with following("later.log") as tail:
        assert tail.stderr is not None
        assert tail.stderr.readline() == "later.log does not exist yet: waiting for it\n"
        generated.write(tmp_path / "later.log", [event])
        assert next_event(tail) == event
        tail.send_signal(2)
        assert tail.stderr.read() == ""


def test_a_trace_is_a_tree_in_order(run: Run, log: Path) -> None:
    """``trace`` shows the calls of one trace in the order in which they began, with durations and Jaeger's URL."""
    lines = run("trace", f"{2:032x}", log, "--jaeger", "http://localhost:16686/").stdout.splitlines()
    assert lines[0] == f"trace {2:032x}"
    assert lines[1] == f"http://localhost:16686/trace/{2:032x}"
    assert sum(line.startswith(("├─", "└─")) for line in lines) == 3
    tags = [event.tag for event in read_events(log) if event.trace_id == f"{2:032x}"]
    assert sorted(tag for line in lines for tag in TAGS if f" {tag} " in line) == sorted(tags)
    assert re.search(r"chat \S+ \d+\.\d{3} s", lines[2])


def test_a_trace_that_is_not_there(run: Run, log: Path) -> None:
    """An unknown trace and one that is none at all are two different errors."""
    assert run("trace", "abcdef", log, status=1).stderr == "no entry matches\n"
    assert "must be hexadecimal digits" in run("trace", "xyz", log, status=2).stderr


def test_the_last_entry_of_a_pipe_may_be_cut(log: Path) -> None:
    """Where the reader of a pipe goes, as in ``show | head``, the command ends and prints no error."""
    show = subprocess.Popen([*COMMAND, "show", log], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert show.stdout is not None
    assert show.stderr is not None
    show.stdout.readline()
    show.stdout.close()
    assert show.wait(HANGS) in (0, 1)
    assert show.stderr.read() == b""
    show.stderr.close()
