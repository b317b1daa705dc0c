"""Measures what stays in memory after many calls and streams, and the peak during one call."""

from __future__ import annotations

import dataclasses
import gc
import os
import sys
import tracemalloc
from pathlib import Path
from typing import Final

from tests.benchmarks.scenarios import SCENARIOS, Scenario, chat_chunks, events
from tests.benchmarks.variants import VARIANTS, Telemetry

CALLS, STREAMS = 100_000, 10_000
_PARTS: Final = 10


def table() -> str:
    """Return two tables: growth over many calls, and the peak of one call."""
    short = dataclasses.replace(
        SCENARIOS["chat stream"], name="stream of 20", body=events(chat_chunks(20), "data: [DONE]\n\n")
    )
    lines = [
        "| scenario | calls | blocks, tenth by tenth | resident kB, tenth by tenth |",
        "|---|---:|---|---|",
    ]
    for scenario, count in ((SCENARIOS["chat"], CALLS), (short, STREAMS)):
        blocks, resident = growth(scenario, count)
        lines.append(f"| {scenario.name} | {count:,} | {_shown(blocks)} | {_shown(resident)} |")
    lines += ["", "| scenario | variant | kB at the peak of a call |", "|---|---|---:|"]
    for name in ("chat", "chat stream"):
        for variant in ("bare", "floor with metrics", "everything on"):
            lines.append(f"| {name} | {variant} | {peak(name, variant) / 1024:.1f} |")
    return "\n".join(lines)


def growth(scenario: Scenario, count: int) -> tuple[list[int], list[int]]:
    """Return allocated blocks and resident kB after each tenth of ``count`` calls with everything on."""
    variant, telemetry = VARIANTS["everything on"], Telemetry()
    blocks, resident = [], []
    with variant.active(telemetry):
        call = variant.calls(scenario, scenario.client(), telemetry)
        for _ in range(_PARTS):
            for _ in range(count // _PARTS):
                call()
            telemetry.exported()
            gc.collect()
            blocks.append(sys.getallocatedblocks())
            resident.append(
                int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024
            )
    telemetry.close()
    return blocks, resident


def peak(scenario: str, variant: str, calls: int = 20) -> int:
    """Return the bytes that a call adds at its peak, the median of ``calls``."""
    subject, telemetry = SCENARIOS[scenario], Telemetry()
    peaks = []
    with VARIANTS[variant].active(telemetry):
        call = VARIANTS[variant].calls(subject, subject.client(), telemetry)
        call()
        tracemalloc.start()
        for _ in range(calls):
            gc.collect()
            before, _ = tracemalloc.get_traced_memory()
            tracemalloc.reset_peak()
            call()
            peaks.append(tracemalloc.get_traced_memory()[1] - before)
        tracemalloc.stop()
    telemetry.close()
    return sorted(peaks)[calls // 2]


def _shown(values: list[int]) -> str:
    return " ".join(f"{value:,}" for value in values)
