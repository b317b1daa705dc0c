"""Measures what stays in memory after many calls and streams, and what one call allocates."""

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
    """Return two tables: growth over many calls, and what one call allocates."""
    short = dataclasses.replace(
        SCENARIOS["chat stream"], name="stream of 20", body=events(chat_chunks(20), "data: [DONE]\n\n")
    )
    lines = [
        "| scenario | calls | blocks, tenth by tenth | resident kB, tenth by tenth |",
        "|---|---:|---|---|",
    ]
    for scenario, calls in ((SCENARIOS["chat"], CALLS), (short, STREAMS)):
        blocks, resident = growth(scenario, calls)
        lines.append(f"| {scenario.name} | {calls:,} | {_shown(blocks)} | {_shown(resident)} |")
    lines += [
        "",
        "| scenario | variant | kB at the peak of a call | kB kept until the export | blocks kept |",
        "|---|---|---:|---:|---:|",
    ]
    for name in ("chat", "chat stream"):
        for variant in ("bare", "floor with metrics", "everything on"):
            peak, kept, count = allocated(name, variant)
            lines.append(f"| {name} | {variant} | {peak / 1024:.1f} | {kept / 1024:.1f} | {count} |")
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


def allocated(scenario: str, variant: str, calls: int = 20) -> tuple[int, int, int]:
    """Return what a call allocates, medians of ``calls``.

    They are the bytes at its peak, and the bytes and blocks kept after it, by a span that waits for its export.
    """
    subject, telemetry = SCENARIOS[scenario], Telemetry()
    peaks, kept, blocks = [], [], []
    with VARIANTS[variant].active(telemetry):
        call = VARIANTS[variant].calls(subject, subject.client(), telemetry)
        call()
        tracemalloc.start()
        for _ in range(calls):
            gc.collect()
            before, allocated_before = tracemalloc.get_traced_memory()[0], sys.getallocatedblocks()
            tracemalloc.reset_peak()
            call()
            peaks.append(tracemalloc.get_traced_memory()[1] - before)
            gc.collect()
            kept.append(tracemalloc.get_traced_memory()[0] - before)
            blocks.append(sys.getallocatedblocks() - allocated_before)
        tracemalloc.stop()
    telemetry.close()
    return sorted(peaks)[calls // 2], sorted(kept)[calls // 2], sorted(blocks)[calls // 2]


def _shown(values: list[int]) -> str:
    return " ".join(f"{value:,}" for value in values)
