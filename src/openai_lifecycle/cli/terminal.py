"""Text for a terminal or a pipe: no raw control characters; colour and width only on a terminal."""

from __future__ import annotations

import io
import os
import re
import shutil
import sys
from collections.abc import Iterable
from typing import Any, Final, TextIO

import click

from openai_lifecycle.eventslog.format import UNSAFE

_UNSAFE: Final = re.compile(f"[\0-\x1f{UNSAFE}]")
_SHORT: Final = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def _escape(match: re.Match[str]) -> str:
    return _SHORT.get(match[0]) or f"\\u{ord(match[0]):04x}"


def clean(text: str) -> str:
    """Return ``text`` in one line, with everything escaped that could drive a terminal or shift a column."""
    return text if text.isascii() and text.isprintable() else _UNSAFE.sub(_escape, text)


def cell(value: object) -> object:
    """Return ``value`` for CSV: a text cleaned, and with a ``'`` before what a spreadsheet would take for a formula."""
    if not isinstance(value, str):
        return value
    text = clean(value)
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text


def amount(number: int, one: str, many: str) -> str:
    """Return ``number`` with its noun: ``1 entry``, ``2 entries``."""
    return f"{number} {one if number == 1 else many}"


def style(text: str, **how: Any) -> str:
    """Return ``text`` as ``click.style`` shows it, or as it is where ``NO_COLOR`` is set (https://no-color.org)."""
    return text if os.environ.get("NO_COLOR") else click.style(text, **how)


def is_terminal(stream: TextIO | None) -> bool:
    """Whether a standard stream, ``None`` if the command was started with it closed, is a terminal."""
    return stream is not None and stream.isatty()


def write_utf8() -> None:
    """Let standard output take data for programs: UTF-8 with plain line ends, whatever the locale."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8", newline="")


def width() -> int:
    """Return the terminal's columns; 0 where standard output is not a terminal."""
    return shutil.get_terminal_size().columns if is_terminal(sys.stdout) else 0


def page(lines: Iterable[str]) -> None:
    """Print ``lines``; on a terminal through the pager, which ends by itself when all fits one screen."""
    if is_terminal(sys.stdout) and is_terminal(sys.stdin):
        os.environ.setdefault("LESS", "FRX")
        click.echo_via_pager((f"{line}\n" for line in lines), color=True)
        return
    for line in lines:
        click.echo(line)
