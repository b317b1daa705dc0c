"""Logs to read: one of the real client, others made up; and ways to run the command."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from openai_lifecycle.cli.commands import cli
from tests import generated
from tests.limits import HANGS

EXAMPLES = Path(__file__).parents[2] / "examples"
COMMAND = (sys.executable, "-c", "from openai_lifecycle.cli import main; main()")


@pytest.fixture(scope="session")
def real_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a log that the real client wrote: the quickstart against the offline server."""
    folder = tmp_path_factory.mktemp("real")
    subprocess.run([sys.executable, str(EXAMPLES / "quickstart.py")], cwd=folder, check=True, timeout=HANGS)
    return folder / "events.log"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Return a log of some hundred entries."""
    return generated.write(tmp_path / "events.log", generated.events(300))


@pytest.fixture
def hostile_log(tmp_path: Path) -> Path:
    """Return a log whose texts try to break out."""
    return generated.write(tmp_path / "hostile.log", generated.hostile())


@pytest.fixture
def run() -> Callable[..., Result]:
    """Return a function that runs the command with arguments and expects an exit status."""

    def run(*arguments: object, status: int = 0) -> Result:
        result = CliRunner().invoke(
            cli, [str(argument) for argument in arguments], prog_name="openai-lifecycle"
        )
        assert result.exit_code == status, (result.output, result.exception)
        return result

    return run
