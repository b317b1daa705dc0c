"""Where a command writes its result: standard output, or a file that appears whole or not at all."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
import tempfile
from collections.abc import Iterator
from typing import TextIO

import click

from openai_lifecycle.cli.terminal import clean, write_utf8


@contextlib.contextmanager
def writing(path: str) -> Iterator[TextIO]:
    """Open ``path``, ``-`` for standard output, for text in UTF-8. A new file is for its owner only, as the log.

    Raises:
        click.ClickException: it cannot be written.
    """
    if path == "-" and sys.stdout is not None:
        write_utf8()
        yield sys.stdout
        return
    target = os.devnull if path == "-" else os.path.realpath(path)  # standard output may be closed
    is_file = os.path.isfile(target) or not os.path.exists(target)
    try:
        with _replacing(target) if is_file else _text(os.open(target, os.O_WRONLY)) as file:
            yield file
    except OSError as error:
        raise click.ClickException(f"{clean(path)}: {error.strerror}") from None


@contextlib.contextmanager
def _replacing(path: str) -> Iterator[TextIO]:
    """Open a file that takes the place of the one at ``path`` when all is written."""
    # Never a file or link that somebody has put there: the folder may be everybody's, as /tmp.
    descriptor, part = tempfile.mkstemp(".part", ".", os.path.dirname(path))
    try:
        with contextlib.suppress(OSError):  # there is none yet
            os.fchmod(descriptor, stat.S_IMODE(os.stat(path).st_mode))
        with _text(descriptor) as file:
            yield file
        os.replace(part, path)
    except BaseException:
        os.unlink(part)
        raise


def _text(descriptor: int) -> TextIO:
    return open(descriptor, "w", encoding="utf-8", newline="")
