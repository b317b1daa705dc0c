"""The command ``openai-lifecycle``: what ``events.log`` says, for people and for other programs.

``commands.py`` holds the commands, options in and text out; what they show is made by the module of the same name.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys

from openai_lifecycle.version import __version__


def main() -> None:
    """Run the command; says in one line what is in its way: an extra that is missing, a disk that is full."""
    try:
        from openai_lifecycle.cli.commands import cli
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("openai_lifecycle"):
            raise
        sys.exit(
            f"openai-lifecycle {__version__}: {error.name} is not installed; "
            "the command needs its extra: pip install 'openai-lifecycle[cli]'"
        )
    if isinstance(sys.stdout, io.TextIOWrapper):  # what the terminal's encoding lacks is escaped
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        try:
            cli(prog_name="openai-lifecycle")
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
    except OSError as error:
        _leave_output()
        sys.exit(1 if isinstance(error, BrokenPipeError) else f"openai-lifecycle: {error.strerror or error}")


def _leave_output() -> None:
    """Let what could not be written go, which the interpreter would try once more at its end."""
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
