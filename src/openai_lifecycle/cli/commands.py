"""The commands: options in, text out."""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import click

from openai_lifecycle.cli import logs, show, terminal
from openai_lifecycle.cli.output import writing
from openai_lifecycle.cli.select import Filter, filter_options, trace_prefix
from openai_lifecycle.events import LifecycleEvent
from openai_lifecycle.eventslog.format import parse
from openai_lifecycle.sinks import SinkError
from openai_lifecycle.version import __version__

_Command = TypeVar("_Command", bound=Callable[..., Any])


def _logs(command: _Command) -> _Command:
    """Let ``command`` take logs, and say in its help what one is, because click has no help for arguments."""
    about = "LOG is a file, a pattern, or - for standard input: see `openai-lifecycle --help`."
    command.__doc__ = f"{inspect.cleandoc(command.__doc__ or '')}\n\n{about}"
    return click.argument("log", nargs=-1, type=str)(command)


def _format_options(command: _Command) -> _Command:
    for option in (
        click.option("--jsonl", "form", flag_value="jsonl", help="Print one line of JSON per entry."),
        click.option("--json", "form", flag_value="json", help="Print one JSON array."),
        click.option("--full", "form", flag_value="full", help="Print entries as they are in the file."),
    ):
        command = option(command)
    return command


class _Count(click.IntRange):
    """A whole number, 0 or more. A larger one than Python can count to (``sys.maxsize``) means all, so it is that."""

    name = "N"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number."""
        try:
            number = int(value)
        except ValueError:
            number = -1
        if number < 0:
            self.fail(f"{value!r} is not allowed: it must be a whole number, 0 or more", param, ctx)
        return min(number, sys.maxsize)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__)
def cli() -> None:
    """Read events.log, the record of an application's calls to its models.

    LOG is a file, a pattern such as 'logs/**/events.log', or - for standard input. Its rotated and compressed files are
    read too. The default is OTEL_PYTHON_OPENAI_LIFECYCLE_EVENTS_LOG, or events.log.
    """


def _lines(events: Iterator[LifecycleEvent], form: str | None) -> Iterator[str]:
    if form == "jsonl":
        return show.json_lines(events)
    if form == "json":
        return show.json_array(events)
    if form == "full":
        colour = terminal.is_terminal(sys.stdout)
        if not colour:
            terminal.write_utf8()
        return show.full(events, colour=colour)
    return show.rows(events, terminal.width())


@cli.command("show", epilog="Example: openai-lifecycle show --since 2h --error --model 'gpt-4*'")
@_logs
@filter_options
@_format_options
def show_(log: Sequence[str], wanted: Filter, form: str | None) -> None:
    """Show entries, one line each.

    On a narrow terminal, types are shortened: START, READY and FAILED stand for INIT_*, OK and ERROR for GENERATION_*,
    and TOOL for TOOL_CALL_DETECTED. A time without a date is of today, and a date without a year of the last twelve
    months. Duration and tokens are shown if there is room.

    In a pipe, the fields are separated by tabs: time, event, provider, model, duration_ms, input_tokens,
    output_tokens, trace_id, text.
    """
    events = logs.read(logs.expand(log), wanted)
    terminal.page(_lines(events, form))


@cli.command("tail", epilog="Example: openai-lifecycle tail -f --event GENERATION_ERROR")
@_logs
@click.option("-f", "--follow", is_flag=True, help="Wait for new entries, also across rotations.")
@click.option(
    "-n",
    "--lines",
    type=_Count(min=0),
    default=10,
    show_default=True,
    help="How many entries to show first.",
)
@filter_options
@_format_options
def tail(log: Sequence[str], *, follow: bool, lines: int, wanted: Filter, form: str | None) -> None:
    """Show the last entries, and new ones with -f.

    Several logs are read one after the other, so the last entries are those of the last log.
    """
    if follow and form == "json":
        raise click.UsageError("--follow never ends, so --json is impossible: use --jsonl")
    paths = logs.expand(log, awaited=follow)
    last: deque[LifecycleEvent] = deque(maxlen=lines)
    printing = False

    def catch_up() -> None:
        """Print what was kept; from now on, each entry is printed at once."""
        nonlocal last, printing
        for line in _lines(iter(last), form):
            click.echo(line)
        last, printing = deque(), True

    with contextlib.suppress(KeyboardInterrupt) if follow else contextlib.nullcontext():
        for event in logs.read(paths, wanted, follow=follow, on_idle=catch_up):
            last.append(event)
            if printing:
                catch_up()
        catch_up()


@cli.command("trace", epilog="Example: openai-lifecycle trace 4bf92f35 --jaeger http://localhost:16686")
@click.argument("trace_id", callback=trace_prefix)
@_logs
@click.option("--jaeger", metavar="URL", help="Also print the trace's address in Jaeger.")
def trace(trace_id: str, log: Sequence[str], jaeger: str | None) -> None:
    """Show all entries of one trace in order, with durations.

    The first digits of TRACE_ID are enough. On a terminal, texts are cut at its edge: `show --full --trace TRACE_ID`
    prints them in full.
    """
    events = list(logs.read(logs.expand(log), Filter(trace=trace_id)))
    if not events:  # which `read` has said
        sys.exit(1)
    terminal.page(show.tree(events, jaeger, terminal.width()))


def _prices(ctx: click.Context, param: click.Parameter, value: str | None) -> Any:
    from openai_lifecycle.cli import costs

    try:
        return costs.Prices(costs.load(value) if value else None)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise click.BadParameter(f"{value}: {reason}", ctx, param) from None


_prices_option = click.option(
    "--prices",
    callback=_prices,
    metavar="FILE",
    help='A JSON file with your prices: {"MODEL": {"input": 0.4, "cached": 0.1, "output": 1.6}}, dollars per million '
    "tokens. A key may also be PROVIDER/MODEL.",
)


@cli.command("stats", epilog="Example: openai-lifecycle stats --by provider --by model --since 7d")
@_logs
@click.option(
    "--by",
    multiple=True,
    type=click.Choice(("model", "provider", "operation", "user", "day", "hour")),
    default=("model",),
    help="What to group calls by; may be repeated.  [default: model]",
)
@_prices_option
@click.option("--json", "form", flag_value="json", help="Print JSON.")
@click.option("--csv", "form", flag_value="csv", help="Print CSV.")
@filter_options
def stats_(log: Sequence[str], by: tuple[str, ...], prices: Any, form: str | None, wanted: Filter) -> None:
    """Count calls, errors, tokens, cost, latency and tools.

    Latencies are those of successful calls. Percentiles are exact to one percent, everything else is exact. An
    unknown cost is shown as ?, and "+ ?" means that the cost of some calls is unknown.
    """
    from openai_lifecycle.cli import stats, tables

    paths = logs.expand(log)
    numbers = stats.Numbers(tuple(dict.fromkeys(by)), prices)
    found = False
    with logs.reading(paths, stats.decoder(wanted), progress=True) as entries:
        for entry, _ in entries:
            if entry is not None:
                found = True
                numbers.add(entry)
    logs.tell_if_none(wanted, found=found)
    if form == "json":
        click.echo(tables.as_json(numbers))
    elif form == "csv":
        with writing("-") as out:
            out.write(tables.as_csv(numbers))
    else:
        terminal.page(tables.as_table(numbers, terminal.width()).splitlines())


@cli.command("report", epilog="Example: openai-lifecycle report -o report.html --since 7d")
@_logs
@click.option(
    "-o",
    "--output",
    default="report.html",
    show_default=True,
    metavar="FILE",
    help="The file to write.",
)
@click.option(
    "--entries",
    type=_Count(min=0),
    default=100_000,
    show_default=True,
    help="How many entries to list, newest first; the statistics cover all.",
)
@_prices_option
@filter_options
def report_(log: Sequence[str], output: str, entries: int, prices: Any, wanted: Filter) -> None:
    """Write one HTML page with charts, errors, calls and entries.

    The page needs no network. It shows numbers over time, errors, the slowest and the most expensive calls, and a
    searchable list of entries. It holds up to 500 characters of each text, prompts included: share it only with people
    who may read the log.
    """
    from openai_lifecycle.cli import report, stats

    paths = logs.expand(log)
    logs.refuse_overwrite(paths, output)
    decode = stats.decoder(wanted)
    page = report.Report(prices, entries)
    with logs.reading(paths, lambda raw: (decode(raw), raw), progress=True) as found:
        for (entry, raw), _ in found:
            if entry is not None:
                page.add(entry, raw)
    logs.tell_if_none(wanted, found=page.count > 0)
    with writing(output) as out:
        out.write(page.page(paths))
    if output != "-":
        click.echo(
            f"{terminal.clean(output)}: written with {terminal.amount(page.count, 'entry', 'entries')}",
            err=True,
        )


@cli.command("convert", epilog="Example: openai-lifecycle convert --to sqlite -o events.db events.log")
@_logs
@click.option(
    "--to", "form", type=click.Choice(("jsonl", "csv", "sqlite")), required=True, help="The format to write."
)
@click.option(
    "-o", "--output", default="-", metavar="FILE", help="The output file; standard output by default."
)
@filter_options
def convert_(log: Sequence[str], form: str, output: str, wanted: Filter) -> None:
    """Convert entries for DuckDB, pandas or a database.

    jsonl and sqlite keep every field. csv has one line per entry. In it, control characters are escaped, and a ' stands
    before anything that a spreadsheet would take for a formula. A database that exists already keeps its rows and gets
    each entry once.
    """
    from openai_lifecycle.cli import convert

    paths = logs.expand(log)
    logs.refuse_overwrite(paths, output)
    events = logs.read(paths, wanted, progress=output != "-")
    new = ""
    if form != "sqlite":
        with writing(output) as out:
            count = convert.TEXT_FORMATS[form](events, out)
    elif output == "-":
        raise click.UsageError("--to sqlite needs a file: -o events.db")
    else:
        try:
            count, added = convert.to_sqlite(events, output)
            new = f" read, {added} new"
        except SinkError as error:
            raise click.ClickException(f"{terminal.clean(output)}: {error}") from None
    if output != "-":
        click.echo(f"{terminal.clean(output)}: {terminal.amount(count, 'entry', 'entries')}{new}", err=True)


@cli.command("check", epilog="Example: openai-lifecycle check events.log || echo not whole")
@_logs
@click.option("--json", "form", flag_value="json", help="Print JSON.")
def check_(log: Sequence[str], form: str | None) -> None:
    """Check a log for damage, duplicates and missing endings.

    An ending is missing if an INIT_START has no INIT_SUCCESS or INIT_ERROR. Each finding has its byte offset.
    The exit status is 0 if the log is whole, 1 if not, and 2 if it cannot be read or the command was used wrongly.
    """
    from openai_lifecycle.cli.check import Check

    paths = logs.expand(log)
    check = Check()
    with logs.reading(
        paths, lambda raw: (parse(raw), raw), on_damage=check.damage.append, progress=True
    ) as entries:
        for (event, raw), place in entries:
            check.add(event, raw, place)
    if form == "json":
        click.echo(json.dumps(check.report(), indent=2))
    else:
        terminal.page(check.lines())
    sys.exit(0 if check.whole else 1)


@cli.command(
    "doctor",
    epilog="Example: openai-lifecycle doctor -- python app.py",
    context_settings={"allow_interspersed_args": False},  # what follows the command's name is the command's
)
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def doctor_(command: Sequence[str]) -> None:
    """Check the installation, and optionally a command.

    Shows versions, entry points, exporters, other instrumentations of openai, where content may appear, and whether the
    OTLP endpoint, the log and the sinks can be written to. COMMAND is run under opentelemetry-instrument with a
    temporary events.log of its own, and what was captured is shown. The exit status is 1 if there is a problem.
    """
    from openai_lifecycle.cli import doctor

    colours = {"ok": "green", "note": "yellow", "problem": "red"}
    problems = 0
    for finding in doctor.findings():
        problems += finding.level == "problem"
        level = terminal.style(f"{finding.level:8}", fg=colours[finding.level])
        click.echo(f"{level} {finding.topic:12} {terminal.clean(finding.text)}")
    if command:
        problems += not _captured(command)
    sys.exit(1 if problems else 0)


def _captured(command: Sequence[str]) -> bool:
    """Run ``command``, print what its log holds, and return whether that is something and whole."""
    from openai_lifecycle.cli import doctor, stats, tables
    from openai_lifecycle.cli.check import Check
    from openai_lifecycle.cli.costs import Prices

    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "events.log")
        try:
            status = doctor.run(command, path)
        except FileNotFoundError:
            click.echo(f"{terminal.clean(command[0])}: command not found, or not executable", err=True)
            return False
        click.echo(f"\n{terminal.clean(' '.join(command))}: {doctor.ended(status)}")
        if not os.path.exists(path):
            click.echo(
                "nothing was captured: the command made no OpenAI client, wrote another events.log, ignores PYTHONPATH "
                "(python -I or -E), or is not a Python program in an environment with openai-lifecycle"
            )
            return False
        check, numbers = Check(), stats.Numbers(("model",), Prices())
        with logs.reading([path], lambda raw: (parse(raw), raw), on_damage=check.damage.append) as entries:
            for (event, raw), place in entries:
                check.add(event, raw, place)
                numbers.add(stats.decode(raw))
        for line in check.lines():
            click.echo(line)
        if numbers.groups:
            click.echo(tables.as_table(numbers, terminal.width()))
        return check.whole
