"""The command ``openai-lifecycle``: shows ``events.log`` to people and converts it for other programs.

``commands.py`` defines the commands and options; the module named after a command makes its output.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys

from openai_lifecycle.version import __version__


def main() -> None:
    """Run the command; a missing extra or a full disk is reported in one line."""
    try:
        from openai_lifecycle.cli.commands import cli
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("openai_lifecycle"):
            raise
        sys.exit(
            f"openai-lifecycle {__version__}: {error.name} is not installed; "
            "the command needs its extra: pip install 'openai-lifecycle[cli]'"
        )
    if isinstance(sys.stdout, io.TextIOWrapper):  # escape what the terminal's encoding lacks
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
    """Discard the unwritten output, which the interpreter would otherwise flush again when it ends."""
    if sys.stdout is not None:
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
