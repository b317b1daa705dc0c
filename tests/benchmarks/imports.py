"""Measures what ``import openai_lifecycle; instrument()`` adds to the start of a process with openai and the SDK."""

from __future__ import annotations

import os
import random
import shutil
import statistics
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Final

_SDK: Final = """
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import TracerProvider
trace.set_tracer_provider(TracerProvider())
metrics.set_meter_provider(MeterProvider())
"""
#: Name → program.
PROGRAMS: Final = {
    "python alone": "",
    "import openai_lifecycle alone": "import openai_lifecycle",
    "import openai": "import openai",
    "+ the SDK's own start": "import openai" + _SDK,
    "+ openai_lifecycle.instrument()": "import openai"
    + _SDK
    + "import openai_lifecycle; openai_lifecycle.instrument()",
}
_CLOCK: Final = "\nimport time; print(time.process_time())"


def milliseconds(program: str, **environment: str) -> float:
    """Return the CPU time in milliseconds that a new process needs to run ``program``."""
    command = [sys.executable, "-c", program + _CLOCK]
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, timeout=60, env={**os.environ, **environment}
    )
    return float(done.stdout) * 1000


def table(rounds: int) -> str:
    """Return the table, each figure a median over ``rounds`` processes."""
    with tempfile.TemporaryDirectory() as folder:
        starts = _starts(Path(folder))
        times: dict[tuple[str, str], list[float]] = {
            (start, name): [] for start in starts for name in PROGRAMS
        }
        for _ in range(rounds):
            for start, name in random.sample(list(times), len(times)):
                times[start, name].append(milliseconds(PROGRAMS[name], **starts[start]))
    medians = {which: statistics.median(own) for which, own in times.items()}
    rows = [(name, *(f"{medians[start, name]:.0f}" for start in starts)) for name in PROGRAMS]
    *_, without, with_ours = PROGRAMS
    added = [f"{(medians[start, with_ours] / medians[start, without] - 1) * 100:.1f} %" for start in starts]
    rows = [("process, CPU ms", *starts), ("---", "---:", "---:"), *rows, ("**instrument() adds**", *added)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _starts(folder: Path) -> dict[str, dict[str, str]]:
    """Return the environments of two kinds of start, which keep their bytecode only in ``folder``.

    Python caches bytecode if it may. If packages were installed without it and none may be written, as in many
    containers, every start compiles all packages, the client's and ours.
    """
    kept, anew = folder / "kept", folder / "anew"
    starts = {
        "bytecode kept": {"PYTHONPYCACHEPREFIX": str(kept), "PYTHONDONTWRITEBYTECODE": ""},
        "packages compiled": {"PYTHONPYCACHEPREFIX": str(anew), "PYTHONDONTWRITEBYTECODE": "1"},
    }
    for program in PROGRAMS.values():
        milliseconds(program, **starts["bytecode kept"])
    library = Path(sysconfig.get_path("stdlib")).relative_to("/")
    shutil.copytree(kept / library, anew / library, ignore=shutil.ignore_patterns("site-packages"))
    return starts
