"""What ``import openai_lifecycle; instrument()`` adds to the start of a process that uses openai and the SDK."""

from __future__ import annotations

import random
import statistics
import subprocess
import sys
from typing import Final

_SDK: Final = """
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import TracerProvider
trace.set_tracer_provider(TracerProvider())
metrics.set_meter_provider(MeterProvider())
"""
#: What is run → program.
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


def milliseconds(program: str) -> float:
    """Return the CPU time that a new process needs to run ``program``."""
    command = [sys.executable, "-c", program + _CLOCK]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    return float(done.stdout) * 1000


def table(rounds: int) -> str:
    """Return the table, each figure a median over ``rounds`` processes."""
    times: dict[str, list[float]] = {name: [] for name in PROGRAMS}
    for _ in range(rounds):
        for name in random.sample(list(PROGRAMS), len(PROGRAMS)):
            times[name].append(milliseconds(PROGRAMS[name]))
    medians = {name: statistics.median(own) for name, own in times.items()}
    lines = ["| process | CPU ms |", "|---|---:|", *(f"| {n} | {m:.0f} |" for n, m in medians.items())]
    *_, without, with_ours = medians.values()
    return "\n".join([*lines, "", f"instrument() adds {(with_ours / without - 1) * 100:.1f} %"])
