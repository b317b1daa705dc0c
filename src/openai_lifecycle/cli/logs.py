"""Reads the logs of a command: finds them, shows progress, and reports what was skipped."""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import resource
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import click

from openai_lifecycle import environment_variables as env
from openai_lifecycle.cli.select import Filter
from openai_lifecycle.cli.terminal import clean, is_terminal
from openai_lifecycle.events import LifecycleEvent
from openai_lifecycle.eventslog import rotation
from openai_lifecycle.eventslog.format import parse
from openai_lifecycle.eventslog.reader import Damage, OnDamage, Place, distinct, read_entries

T = TypeVar("T")


class Unreadable(click.ClickException):
    """A log does not exist or cannot be read."""

    exit_code = 2  # 1 is what ``check`` says of a log that is not whole


VARIABLE = env.OTEL_PYTHON_OPENAI_LIFECYCLE_EVENTS_LOG
STDIN = "/dev/stdin"
_SOON = 20_000_000  # bytes that are read before a progress bar would show
#: Errors that do not come from reading, but from an ``on_idle`` that prints.
_OF_WRITING = frozenset({errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_SHOWN = 5  # damaged places reported one by one
_OPEN = 10_240  # files at once: macOS allows no more, and says that it has no limit


def expand(given: Sequence[str], *, awaited: bool = False) -> list[str]:
    """Return the logs that ``given`` names: paths, patterns, ``-`` for standard input.

    Without any, it is the log that the application would write. An ``awaited`` log need not exist yet.

    Raises:
        Unreadable: one of them does not exist, or there is none.
        click.UsageError: events.log is switched off and no other is named.
    """
    if not given and os.environ.get(VARIABLE, "").strip().lower() == "none":
        raise click.UsageError(f"{VARIABLE}=none switches events.log off: name a LOG")
    paths = []
    for name in given or [os.environ.get(VARIABLE) or "events.log"]:
        if name == "-":
            paths.append(STDIN)
        elif os.path.exists(name) or rotation.backups(name):
            paths.append(name)
        elif found := sorted(filter(os.path.isfile, glob.glob(name, recursive=True))):
            paths += found
        elif awaited:
            click.echo(f"{clean(name)} does not exist yet: waiting for it", err=True)
            paths.append(name)
        else:
            raise Unreadable(f"{clean(name) or repr(name)}: there is no such log")
    return paths


def refuse_overwrite(paths: Sequence[str], output: str) -> None:
    """Check that ``output`` is not one of the files being read, which writing would destroy.

    Raises:
        click.UsageError: it is one of them.
    """
    if not os.path.isfile(output):
        return
    if any(os.path.samefile(output, file) for file in _files(paths) if os.path.exists(file)):
        raise click.UsageError(f"{clean(output)} is the log being read: write to another file")


def _files(paths: Sequence[str]) -> Iterator[str]:
    """Yield each log and its rotated files, each file once."""
    for path in distinct(paths):
        yield path
        yield from (backup.path for backup in rotation.backups(path))


class Skipped:
    """Collects damage, and reports it on standard error when reading is done."""

    def __init__(self) -> None:
        self.found: list[Damage] = []
        self.count = self.length = 0

    def __call__(self, damage: Damage) -> None:
        """Note ``damage``."""
        self.count += 1
        self.length += damage.length
        if len(self.found) < _SHOWN:
            self.found.append(damage)

    def tell(self) -> None:
        """Report the first places one by one, then how many there are."""
        for damage in self.found:
            click.echo(clean(str(damage)), err=True)
        if self.count > len(self.found):
            click.echo(f"… {self.count} damaged places, {self.length} bytes in all: see `check`", err=True)


def read(
    paths: Sequence[str],
    wanted: Filter,
    *,
    follow: bool = False,
    progress: bool = False,
    on_idle: Callable[[], None] | None = None,
) -> Iterator[LifecycleEvent]:
    """Yield the events that are ``wanted``, and say so if there are none.

    Entries without the digits of the wanted trace are not parsed. The other arguments are those of :func:`reading`.

    Raises:
        Unreadable: a log cannot be read.
    """
    digits, found = wanted.trace.encode(), False

    def decode(raw: bytes) -> LifecycleEvent | None:
        return parse(raw) if digits in raw else None

    with reading(paths, decode, follow=follow, progress=progress, on_idle=on_idle) as entries:
        for event, _ in entries:
            if event is not None and wanted(event):
                found = True
                yield event
    tell_if_none(wanted, found=found)


def tell_if_none(wanted: Filter, *, found: bool) -> None:
    """Say on standard error that the filter has let nothing through."""
    if not found and not wanted.everything:
        click.echo("no entry matches", err=True)


@contextlib.contextmanager
def reading(
    paths: Sequence[str],
    decode: Callable[[bytes], T],
    *,
    follow: bool = False,
    on_idle: Callable[[], None] | None = None,
    on_damage: OnDamage | None = None,
    progress: bool = False,
) -> Iterator[Iterator[tuple[T, Place]]]:
    """Read entries as ``read_entries`` does; reports what was skipped at the end unless ``on_damage`` takes it.

    Raises:
        Unreadable: a log cannot be read.
    """
    _allow_many_files()
    skipped = Skipped()
    entries = read_entries(paths, decode, follow=follow, on_idle=on_idle, on_damage=on_damage or skipped)
    try:
        yield _with_progress(paths, entries) if progress else entries
    except OSError as error:
        if error.errno in _OF_WRITING:
            raise
        name = str(error.filename or ", ".join(paths))  # only opening a file names it
        raise Unreadable(f"{clean(name)}: {error.strerror}") from None
    finally:
        skipped.tell()


def _allow_many_files() -> None:
    """Raise a low limit of open files: all rotated files of a log are opened at once, before they can be moved."""
    limit, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN if most == resource.RLIM_INFINITY else min(_OPEN, most)
    if limit < wanted and limit != resource.RLIM_INFINITY:
        with contextlib.suppress(OSError, ValueError):  # a sandbox forbids it, or the system allows fewer
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


def _with_progress(paths: Sequence[str], entries: Iterator[tuple[T, Place]]) -> Iterator[tuple[T, Place]]:
    """Pass ``entries`` on; on a terminal, show progress, speed and remaining time on standard error.

    A compressed file's share is unknown before its end, so it counts when it is done.
    """
    total = _size(paths)
    if not is_terminal(sys.stderr) or (total is not None and total < _SOON):
        yield from entries
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    columns = BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=total)
        current, before, done = "", 0, 0
        for index, item in enumerate(entries):
            place = item[1]
            if place.path != current:
                before += done
                current = place.path
            done = place.offset + place.length
            if index % 1000 == 0:
                progress.update(task, completed=before + done)
            yield item


def _size(paths: Sequence[str]) -> int | None:
    """Return the number of bytes to read; ``None`` if unknown."""
    total = 0
    for name in _files(paths):
        if not os.path.isfile(name) or rotation.is_gzip(name):
            return None
        total += os.path.getsize(name)
    return total
