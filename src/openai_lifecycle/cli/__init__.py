"""The command ``openai-lifecycle``: what ``events.log`` says, for people and for other programs.

``commands.py`` holds the commands, options in and text out; what they show is made by the module of the same name.
"""

from __future__ import annotations

import sys

from openai_lifecycle.version import __version__


def main() -> None:
    """Run the command; says in one line what to install when its extra is missing."""
    try:
        from openai_lifecycle.cli.commands import cli
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("openai_lifecycle"):
            raise
        sys.exit(
            f"openai-lifecycle {__version__}: {error.name} is not installed; "
            "the command needs its extra: pip install 'openai-lifecycle[cli]'"
        )
    cli(prog_name="openai-lifecycle")
