"""The command as people meet it: in a terminal, without its extra, and in the README."""

from __future__ import annotations

import os
import pty
import re
import select
import shlex
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from fcntl import ioctl
from pathlib import Path

import click
import pytest
from click.testing import Result
from rich.cells import cell_len

from openai_lifecycle.cli import show
from openai_lifecycle.cli.commands import cli
from openai_lifecycle.events import LLMGenerationSuccess, LLMInitializationError
from openai_lifecycle.eventslog.format import render
from openai_lifecycle.eventslog.reader import read_events
from tests import generated
from tests.cli.conftest import COMMAND
from tests.limits import HANGS

Run = Callable[..., Result]
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
README = Path(__file__).parents[2] / "README.md"


def in_terminal(
    *arguments: str, columns: int = 100, status: int = 0, stdin: bool = True, **variables: str
) -> str:
    """Run the command in a pseudo-terminal with ``variables`` set, and return what it shows."""
    controller, terminal = pty.openpty()
    ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    environment = {**os.environ, "TERM": "xterm-256color", "PAGER": "cat", "LANG": "C.UTF-8"}
    for name in ("COLUMNS", "LINES", "NO_COLOR"):
        environment.pop(name, None)
    child = subprocess.Popen(
        [*([] if stdin else ["sh", "-c", 'exec "$@" <&-', "sh"]), *COMMAND, *arguments],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env=environment | variables,
        start_new_session=True,
    )
    os.close(terminal)
    shown, deadline = b"", time.monotonic() + HANGS
    while time.monotonic() < deadline:
        if select.select([controller], [], [], 0.1)[0]:
            try:
                chunk = os.read(controller, 65536)
            except OSError:  # the other side is closed
                break
            shown += chunk
    os.close(controller)
    assert child.wait(HANGS) == status, shown.decode()
    return shown.decode().replace("\r\n", "\n")


TERMINAL = [
    ["show"],
    ["show", "--full"],
    ["show", "--json"],
    ["tail", "-n", "3"],
    ["trace", "TRACE"],
    ["stats"],
    ["stats", "--by", "hour", "--by", "user"],
    ["report", "-o", "report.html"],
    ["convert", "--to", "sqlite", "-o", "out.db"],
    ["check"],
]


@pytest.mark.parametrize("arguments", TERMINAL, ids=" ".join)
def test_each_command_works_in_a_terminal(real_log: Path, arguments: list[str]) -> None:
    """In a terminal each command ends well, prints no escape sequence but colours, and keeps to the width."""
    trace = list(read_events(real_log))[-1].trace_id
    shown = in_terminal(*[trace if word == "TRACE" else word for word in arguments], str(real_log))
    plain = COLOUR.sub("", shown)
    if arguments[0] not in (
        "report",
        "convert",
        "trace",
    ):  # they have a progress bar, and a tree has its own width
        assert "\x1b" not in plain
    if arguments in (["show"], ["tail", "-n", "3"], ["stats"]):
        assert max(map(len, plain.splitlines())) <= 100
    if arguments[0] in ("show", "tail", "trace") and "--json" not in arguments:
        assert COLOUR.search(shown)


def test_doctor_works_in_a_terminal() -> None:
    """``doctor`` ends well where nothing is wrong, in colour."""
    shown = in_terminal("doctor")
    assert "\x1b[32mok" in shown
    assert "openai-lifecycle" in shown


@pytest.mark.parametrize("columns", [30, 80, 100, 250])
def test_a_row_fits_the_terminal(hostile_log: Path, columns: int) -> None:
    """However wide the terminal, an entry is one line of it, wide characters counted as two."""
    for event in read_events(hostile_log):
        row = COLOUR.sub("", show.row(event, columns))
        assert cell_len(row) <= columns
        assert "\n" not in row


def test_a_text_in_a_tree_ends_with_the_terminal(tmp_path: Path) -> None:
    """In a terminal a long prompt does not break the tree of ``trace`` apart; in a pipe it is whole."""
    event = generated.success()
    log = generated.write(tmp_path / "events.log", [replace(event, message_content="user: " + "漢" * 5000)])
    shown = COLOUR.sub("", in_terminal("trace", event.trace_id, str(log), columns=80)).splitlines()
    assert [cell_len(line) for line in shown if "漢" in line] in ([79], [80])
    assert "漢" * 5000 in "".join(show.tree(list(read_events(log)), None, 0))


@pytest.mark.parametrize("columns", [80, 100, 115])
def test_a_narrow_row_says_what_and_when(columns: int) -> None:
    """Where there is no room for columns, a row still tells the six types apart, and has the date if it is not today's."""
    kinds = {type(event): event for event in generated.hostile()}
    kinds[LLMInitializationError] = LLMInitializationError(time=generated.START, error="no key")
    now = datetime.now().astimezone().replace(tzinfo=None, microsecond=0)
    told = set()
    for event in kinds.values():
        new, old = (
            COLOUR.sub("", show.row(replace(event, time=time), columns)) for time in (now, now - timedelta(1))
        )
        assert new.startswith(f"{now:%H:%M:%S} ")
        assert old.startswith(f"{now - timedelta(1):%m-%d %H:%M} ")
        assert new.split()[1] == old.split()[2]
        told.add(new.split()[1])
    assert told == {"START", "READY", "FAILED", "OK", "ERROR", "TOOL"}


@pytest.mark.parametrize(("columns", "shown"), [(60, 0), (82, 1), (90, 2), (100, 3), (115, 3)])
def test_a_narrow_row_has_the_numbers_for_which_there_is_room(columns: int, shown: int) -> None:
    """First the duration, then the tokens sent and received, and always enough of the text."""
    event = generated.success()
    numbers = {"duration_ms": "1234.567", "input_tokens": "8001", "output_tokens": "92"}
    metadata = replace(event.metadata, custom_fields={**event.metadata.custom_fields, **numbers})
    event = replace(event, metadata=metadata, message_content="user: " + "x" * 200)
    row = COLOUR.sub("", show.row(event, columns))
    assert [number in row.split() for number in numbers.values()] == [index < shown for index in range(3)]
    assert row.count("x") >= 18
    assert len(row) == columns


@pytest.mark.parametrize("arguments", [*TERMINAL[:6], ["doctor"]], ids=" ".join)
def test_no_color_is_honoured(real_log: Path, arguments: list[str]) -> None:
    """With ``NO_COLOR`` set nothing that a terminal shows has a colour."""
    trace = list(read_events(real_log))[-1].trace_id
    log = [] if arguments == ["doctor"] else [str(real_log)]
    shown = in_terminal(*[trace if word == "TRACE" else word for word in arguments], *log, NO_COLOR="1")
    assert shown
    assert not re.search(r"\x1b\[[0-9;]*[39]\dm", shown)


def test_a_narrow_terminal_says_what_it_leaves_out(real_log: Path) -> None:
    """Where the table of ``stats`` is too wide, columns go, and a line names them."""
    shown = COLOUR.sub("", in_terminal("stats", str(real_log), columns=60))
    table, _, note = shown.partition("Not shown for lack of width: ")
    assert max(map(len, table.splitlines())) <= 60
    assert "tools" in note


def test_a_large_log_shows_how_far_it_is(tmp_path: Path) -> None:
    """In a terminal the reading of a large log has a progress bar with bytes, rate and time left; a pipe has none."""
    unit = "".join(map(render, generated.events(1000))).encode()
    (tmp_path / "large.log").write_bytes(unit * (40_000_000 // len(unit)))
    shown = in_terminal("stats", str(tmp_path / "large.log"))
    assert re.search(r"[\d.]+/3\d\.\d MB", shown)
    piped = subprocess.run([*COMMAND, "stats", "large.log"], capture_output=True, check=True, timeout=HANGS)
    assert piped.stderr == b""


@pytest.mark.parametrize(
    "command", ["show", "tail", "stats", "stats --json", "stats --csv", "check", "report"]
)
def test_an_empty_log_is_no_error(run: Run, tmp_path: Path, command: str) -> None:
    """A log without entries has none to show; that is all."""
    (tmp_path / "events.log").touch()
    run(*command.split())


# ------------------------------------------------------------------ where output goes
def in_a_plain_locale(*arguments: object) -> subprocess.CompletedProcess[bytes]:
    """Run the command in a locale that is not UTF-8, where standard output takes Latin-1."""
    plain = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "PYTHONIOENCODING": "latin-1"}
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        env={**os.environ, **plain},
        capture_output=True,
        check=True,
        timeout=HANGS,
    )


@pytest.mark.parametrize("command", ["show", "tail", "stats", "check"])
def test_what_an_encoding_lacks_is_escaped(log: Path, command: str) -> None:
    """Where standard output cannot take every character, a log is shown all the same, with those escaped."""
    first = generated.write(log, [replace(event, message_content="\u4e16") for event in _answers(log)])
    shown = in_a_plain_locale(*command.split(), first)
    assert shown.stderr == b""
    assert (b"\\u4e16" in shown.stdout) == (command in ("show", "tail"))


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_data_is_the_same_in_a_pipe_and_in_a_file(log: Path, tmp_path: Path, form: str) -> None:
    """What ``convert`` writes is UTF-8 with plain line ends, whatever the locale."""
    generated.write(log, [replace(event, message_content="\u4e16") for event in _answers(log)])
    command = ["convert", "--to", form, log]
    piped = in_a_plain_locale(*command)
    in_a_plain_locale(*command, "-o", tmp_path / "out")
    assert piped.stdout == (tmp_path / "out").read_bytes()


@pytest.mark.parametrize("command", ["show --full", "stats --csv"])
def test_data_is_utf8_in_every_locale(log: Path, command: str) -> None:
    """Entries as they are in the file are the file's bytes, and CSV is UTF-8, also where the locale has another encoding."""
    generated.write(log, [replace(event, model_id="caf\xe9 \u4e16") for event in _answers(log)])
    written = in_a_plain_locale(*command.split(), log).stdout
    assert "caf\xe9 \u4e16".encode() in written
    assert written == log.read_bytes() or command == "stats --csv"


@pytest.mark.parametrize(
    ("closed", "command"),
    [("1", "stats"), ("1", "tail"), ("1", "convert --to csv"), ("2", "report -o page.html")],
)
def test_a_closed_stream_is_no_error(log: Path, tmp_path: Path, closed: str, command: str) -> None:
    """Started with standard output or standard error closed, a command does its work."""
    line = f"exec {closed}>&-; exec {shlex.join([*COMMAND, *command.split(), str(log)])}"
    subprocess.run(["sh", "-c", line], check=True, timeout=HANGS)
    made = {path.name for path in tmp_path.iterdir()} - {log.name}
    assert made == ({"page.html"} if closed == "2" else set())


@pytest.mark.parametrize("command", ["show", "stats", "check"])
def test_a_terminal_without_standard_input(log: Path, command: str) -> None:
    """Started in a terminal with standard input closed, a command shows what it shows with it."""
    paged = in_terminal(command, str(log))  # it ends in an empty line
    assert in_terminal(command, str(log), stdin=False) == paged.removesuffix("\n")


def test_a_failure_with_standard_output_closed_is_one_line(tmp_path: Path) -> None:
    """An error of the system ends the command with status 1 and one line, also where standard output is closed."""
    script = f'cd {tmp_path} && mkdir gone && cd gone && rmdir ../gone && exec "$@" >&-'
    ended = subprocess.run(
        ["sh", "-c", script, "sh", *COMMAND, "doctor"], stderr=subprocess.PIPE, check=False, timeout=HANGS
    )
    assert (ended.returncode, ended.stderr) == (1, b"openai-lifecycle: No such file or directory\n")


@pytest.mark.parametrize("command", ["show", "tail", "stats", "convert --to csv", "report"])
def test_a_filter_that_nothing_passes_says_so(run: Run, log: Path, command: str) -> None:
    """Where a filter lets no entry through, a line on standard error says it, and that is no error."""
    assert run(*command.split(), "--model", "gpt4", log).stderr.startswith("no entry matches\n")
    assert "no entry" not in run(*command.split(), "--model", "gpt-4o", log).stderr


def _answers(log: Path) -> list[LLMGenerationSuccess]:
    return [event for event in read_events(log) if isinstance(event, LLMGenerationSuccess)]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize(
    ("command", "prefix"),
    [
        ("show", "openai-lifecycle: "),
        ("tail -f", "openai-lifecycle: "),
        ("stats", "openai-lifecycle: "),
        ("convert --to csv", "openai-lifecycle: "),
        ("convert --to csv -o /dev/full", "Error: /dev/full: "),
        ("report -o /dev/full", "Error: /dev/full: "),
    ],
)
def test_a_full_disk_is_one_line(log: Path, command: str, prefix: str) -> None:
    """Where output cannot be written the command ends with status 1 and one line that says why."""
    with open("/dev/full", "w") as full:
        ended = subprocess.run(
            [*COMMAND, *command.split(), log],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=HANGS,
        )
    assert (ended.returncode, ended.stderr) == (1, f"{prefix}No space left on device\n")


@pytest.mark.parametrize("command", ["show", "convert --to jsonl", "stats"])
def test_a_reader_that_has_gone_is_no_error(log: Path, command: str) -> None:
    """A pipe whose reader has gone, as with ``head``, ends the command without a word."""
    reader, writer = os.pipe()
    os.close(reader)
    ended = subprocess.run(
        [*COMMAND, *command.split(), log], stdout=writer, stderr=subprocess.PIPE, check=False, timeout=HANGS
    )
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (1, b"")


# ------------------------------------------------------------------ without the extra
def test_without_its_extra_the_command_says_what_to_install() -> None:
    """Where click is missing the command ends with one line that names the extra, and no traceback."""
    code = "import sys; sys.modules['click'] = None; from openai_lifecycle.cli import main; main()"
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=HANGS
    )
    assert ended.returncode == 1
    assert ended.stderr.count("\n") == 1
    assert "click is not installed; " in ended.stderr
    assert "pip install 'openai-lifecycle[cli]'" in ended.stderr


def test_the_command_does_not_import_the_client() -> None:
    """Reading a log loads neither openai nor the SDK's exporters, so the command starts at once."""
    code = (
        "import sys; from openai_lifecycle.cli.commands import cli; "
        "print([m for m in ('openai', 'plotly', 'genai_prices', 'sqlalchemy', 'grpc') if m in sys.modules])"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=HANGS
    )
    assert ended.stdout.strip() == "[]"


# ------------------------------------------------------------------ help and README
@pytest.mark.parametrize("name", sorted(cli.commands))
def test_help_is_complete(run: Run, name: str) -> None:
    """The help of each command explains it, its logs and every option, and its example is one that it accepts."""
    command = cli.commands[name]
    shown = run(name, "--help").stdout
    assert command.help
    assert ("\n  LOG is a file, a pattern, or - for standard input" in shown) == ("[LOG]..." in shown)
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.name
            assert parameter.opts[-1] in shown
    example = re.search(r"Example: openai-lifecycle (.*)", command.epilog or "")
    assert example is not None
    accepted(example[1])


@pytest.mark.usefixtures("log")
@pytest.mark.parametrize("name", ["show", "stats", "report", "convert", "check"])
def test_an_example_works_where_the_log_is(run: Run, name: str) -> None:
    """Pasted beside an events.log, the example of each command that names no trace or program ends well."""
    _, _, line = str(cli.commands[name].epilog).partition("Example: openai-lifecycle ")
    run(*shlex.split(line.partition("||")[0]))


def accepted(line: str) -> None:
    """Fail unless the command accepts the arguments of ``line``."""
    name, *arguments = shlex.split(line.partition("||")[0].partition("|")[0])
    command = cli.commands[name]
    context = click.Context(command, info_name=name, ignore_unknown_options=name == "doctor")
    command.parse_args(context, arguments)


def test_the_readme_shows_every_command() -> None:
    """The README's table has every command with its help and an example, and no command line that is refused."""
    readme = README.read_text(encoding="utf-8")
    prices = re.search(r"^```json\n(.*?\"cached\".*?)^```", readme, re.MULTILINE | re.DOTALL)
    assert prices is not None
    Path("prices.json").write_text(prices[1], encoding="utf-8")  # the example names it
    _, _, table = readme.partition("| `openai-lifecycle …` | what it does |\n|---|---|\n")
    rows = re.findall(r"^\| `(.*)` \| (.*) \|$", table.partition("\n\n")[0], re.MULTILINE)
    shown = {line.split()[0]: about for line, about in rows}
    assert shown == {name: command.get_short_help_str(limit=99) for name, command in cli.commands.items()}
    inline = re.findall(r"`openai-lifecycle ([a-z].*?)`", readme, re.DOTALL)
    assert inline
    for line in (*(line for line, _ in rows), *inline):
        accepted(line)
