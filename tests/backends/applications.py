"""Applications as their users run them: in a process of their own, under `opentelemetry-instrument`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from openai_lifecycle import LifecycleEvent, read_events

from .harness import REPOSITORY

QUICKSTART = REPOSITORY / "examples" / "quickstart.py"


def instrumented(script: Path, directory: Path, **environment: str) -> subprocess.Popen[bytes]:
    """Start `script` without an API key; its events.log and `stderr` are in `directory`."""
    command = [str(Path(sys.executable).with_name("opentelemetry-instrument")), sys.executable, str(script)]
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "OPENAI_"))
    }
    own = {
        "OTEL_PYTHON_OPENAI_LIFECYCLE_EVENTS_LOG": str(directory / "events.log"),
        "OTEL_SERVICE_NAME": script.stem,
    }
    with (directory / "stderr").open("wb") as errors:
        return subprocess.Popen(command, env=inherited | own | environment, cwd=directory, stderr=errors)


def run(script: Path, directory: Path, **environment: str) -> list[LifecycleEvent]:
    """Run `script` to its end, which must be a success; return the entries of its events.log."""
    with instrumented(script, directory, **environment) as process:
        try:
            code = process.wait(timeout=120)
        finally:
            process.kill()
    assert code == 0, (directory / "stderr").read_text()
    return entries(directory)


def entries(directory: Path) -> list[LifecycleEvent]:
    """Return the entries of the events.log in `directory`, none when there is no such file."""
    log = directory / "events.log"
    return list(read_events(log)) if log.exists() else []
