"""Runs the same measurement for other packages, each in a virtual environment of its own, made with uv."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

from tests.benchmarks import measure
from tests.benchmarks.measure import Figure, Row
from tests.benchmarks.variants import PEERS

_ROOT = Path(__file__).parents[2]
_ENVIRONMENTS = Path(tempfile.gettempdir()) / "openai-lifecycle-peers"
_SAME = ("openai", "opentelemetry-sdk", "wrapt")


def rows(scenarios: Sequence[str], *, rounds: int, calls: int) -> Iterator[list[Row]]:
    """Yield the rows of every peer that can be installed; report the others on stderr."""
    for name in PEERS:
        try:
            yield _rows(name, scenarios, rounds, calls)
        except subprocess.CalledProcessError as error:
            print(f"{name}: {error.stderr.strip().splitlines()[-1]}", file=sys.stderr)


def _rows(name: str, scenarios: Sequence[str], rounds: int, calls: int) -> list[Row]:
    variants = [measure.BARE, "bare again", measure.REFERENCE, name]
    command = [_python(PEERS[name].requirement), "-m", "tests.benchmarks", "--json"]
    command += ["--rounds", str(rounds), "--calls", str(calls), "--scenarios", *scenarios]
    output = _run([*command, "--variants", *variants], cwd=_ROOT)
    return [
        Row(row["scenario"], row["variant"], Figure(**row["total"]), Figure(**row["added"]))
        for row in json.loads(output.splitlines()[-1])
    ]


def _python(requirement: str) -> str:
    """Return the interpreter of an environment with ``requirement`` and our versions of client and SDK."""
    folder = _ENVIRONMENTS / requirement
    python = str(folder / "bin" / "python")
    if not folder.exists():
        _run(["uv", "venv", "--python", sys.executable, str(folder)])
        same = [f"{package}=={version(package)}" for package in _SAME]
        _run(["uv", "pip", "install", "--python", python, requirement, *same])
    return python


def _run(command: list[str], cwd: Path | None = None) -> str:
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    return subprocess.run(
        command, check=True, capture_output=True, text=True, cwd=cwd, env=environment
    ).stdout
