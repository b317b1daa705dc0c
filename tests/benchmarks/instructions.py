"""Counts instructions per call with ``valgrind --tool=callgrind``: a busy machine does not change this figure.

One process imports everything and forks a child per count, so that valgrind runs the imports only once. A child's
total includes the parent's up to the fork, so the cost of a call is the difference between two children.
"""

from __future__ import annotations

import gc
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from typing import Final

from tests.benchmarks import measure
from tests.benchmarks.scenarios import SCENARIOS

_COLLECTED: Final = re.compile(r"==(\d+)== Collected : (\d+)")
_LINE: Final = re.compile(r"^child\t(\d+)\t(.+)\t(.+)\t(\d+)$", re.MULTILINE)


def table(scenarios: Sequence[str], variants: Sequence[str]) -> str:
    """Return the table of instructions."""
    command = [
        "valgrind",
        "--tool=callgrind",
        "--callgrind-out-file=/dev/null",
        sys.executable,
        "-m",
        __name__,
    ]
    done = subprocess.run(
        [*command, json.dumps([list(scenarios), list(variants)])],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONHASHSEED": "0"},
    )
    totals = {pid: int(count) for pid, count in _COLLECTED.findall(done.stderr)}
    counted = {(s, v, int(calls)): totals[pid] for pid, s, v, calls in _LINE.findall(done.stdout)}
    lines = [
        "| scenario | variant | instructions a call | added | times floor with metrics |",
        "|---|---|---:|---:|---:|",
    ]
    for scenario in scenarios:
        few, many = _counts(scenario)
        each = {v: (counted[scenario, v, many] - counted[scenario, v, few]) // (many - few) for v in variants}
        bare, reference = each.get(measure.BARE, 0), each.get(measure.REFERENCE)
        for variant, count in each.items():
            ratio = "" if reference is None else f"{(count - bare) / (reference - bare):.2f}"
            lines.append(f"| {scenario} | {variant} | {count:,} | {count - bare:+,} | {ratio} |")
    return "\n".join(lines)


def _counts(scenario: str) -> tuple[int, int]:
    return (4, 6) if SCENARIOS[scenario].is_streamed else (100, 140)


def _main(scenarios: Sequence[str], variants: Sequence[str]) -> None:
    jobs = [(scenario, variant) for scenario in scenarios for variant in variants]
    for scenario, variant in jobs:
        with measure.installed(scenario, variant) as (subject, _):
            subject.times(1)
    gc.collect()
    gc.freeze()
    for scenario, variant in jobs:
        for calls in _counts(scenario):
            pid = os.fork()
            if not pid:
                with measure.installed(scenario, variant) as (subject, _):
                    subject.times(calls)
                os._exit(0)
            os.waitpid(pid, 0)
            print("child", pid, scenario, variant, calls, sep="\t", flush=True)


if __name__ == "__main__":
    _main(*json.loads(sys.argv[1]))
