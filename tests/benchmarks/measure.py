"""Measures CPU time in interleaved batches: every round measures every variant, so noise affects all alike.

Each variant stays installed in a process of its own, because patching and restoring a class makes the interpreter
discard its specialized code. The processes are forks of one that has imported and called everything, so all have
the same memory layout and the same hashes.

A batch's figure is the median over its calls, timed one by one with the thread's CPU clock. What a variant adds is
the median over rounds of its difference from ``bare`` in the same round, with its standard error.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import math
import multiprocessing
import random
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from time import thread_time
from typing import Final

from tests.benchmarks.scenarios import SCENARIOS
from tests.benchmarks.variants import PEERS, VARIANTS, Telemetry

BARE: Final = "bare"
REFERENCE: Final = "floor with metrics"
#: Rounds until the processes are forked again.
_GENERATION: Final = 20
_WARM: Final = 100
_FORK: Final = multiprocessing.get_context("fork")


@dataclass(frozen=True, slots=True)
class Figure:
    """A median and its standard error."""

    value: float
    error: float


@dataclass(frozen=True, slots=True)
class Row:
    """What one variant costs in one scenario, in seconds of CPU time per call."""

    scenario: str
    variant: str
    total: Figure
    added: Figure


# ------------------------------------------------------------------ one variant, in this process
class Subject:
    """Makes the calls of one scenario as one variant does."""

    def __init__(self, scenario: str, variant: str, telemetry: Telemetry) -> None:
        self._scenario = SCENARIOS[scenario]
        self._loop = asyncio.new_event_loop() if self._scenario.is_async else None
        self._call = VARIANTS[variant].calls(self._scenario, self._scenario.client(), telemetry)

    def times(self, count: int) -> list[float]:
        """Return the CPU seconds of each of ``count`` calls."""
        if self._loop is not None:
            return self._loop.run_until_complete(self._atimes(count))
        times = []
        for _ in range(count):
            started = thread_time()
            self._call()
            times.append(thread_time() - started)
        return times

    async def _atimes(self, count: int) -> list[float]:
        times = []
        for _ in range(count):
            started = thread_time()
            await self._call()
            times.append(thread_time() - started)
        await asyncio.sleep(0)  # lets a stream's generators close
        return times

    def close(self) -> None:
        """Close the event loop."""
        if self._loop is not None:
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()


@contextlib.contextmanager
def installed(scenario: str, variant: str) -> Iterator[tuple[Subject, Telemetry]]:
    """Install ``variant`` and yield the subject that makes its calls."""
    with contextlib.ExitStack() as stack:
        telemetry = stack.enter_context(contextlib.closing(Telemetry(VARIANTS[variant].sampler)))
        stack.enter_context(VARIANTS[variant].active(telemetry))
        yield stack.enter_context(contextlib.closing(Subject(scenario, variant, telemetry))), telemetry


# ------------------------------------------------------------------ all of them, in processes of their own
def run(scenarios: Sequence[str], variants: Sequence[str], *, rounds: int, calls: int) -> list[Row]:
    """Measure every variant in every scenario; ``variants`` must contain :data:`BARE`."""
    return [row for scenario in scenarios for row in _run(scenario, variants, rounds, calls)]


def _run(scenario: str, variants: Sequence[str], rounds: int, calls: int) -> list[Row]:
    warm = _WARM
    if SCENARIOS[scenario].is_streamed:  # one takes as long as twenty calls
        warm, calls = warm // 20, max(1, calls // 20)
    for variant in variants:
        if variant not in PEERS:  # some of those do not undo their patches
            with installed(scenario, variant) as (subject, _):
                subject.times(1)
    gc.collect()
    medians: dict[str, list[float]] = {variant: [] for variant in variants}
    for done in range(0, rounds, _GENERATION):
        with contextlib.ExitStack() as stack:
            workers = {v: stack.enter_context(_worker(scenario, v, warm)) for v in variants}
            for _ in range(min(_GENERATION, rounds - done)):
                for variant in random.sample(list(workers), len(workers)):
                    workers[variant].send(calls)
                    medians[variant].append(workers[variant].recv())
    return [
        Row(
            scenario,
            variant,
            _figure(own),
            _figure([mine - bare for mine, bare in zip(own, medians[BARE], strict=True)]),
        )
        for variant, own in medians.items()
    ]


@contextlib.contextmanager
def _worker(scenario: str, variant: str, warm: int) -> Iterator[Connection]:
    """Start a process that receives a number of calls and sends the median of their times, until it receives 0."""
    ours, its = _FORK.Pipe()
    process = _FORK.Process(target=_serve, args=(its, scenario, variant, warm))
    process.start()
    its.close()
    try:
        ours.recv()
        yield ours
        ours.send(0)
    finally:
        ours.close()
        process.join()


def _serve(connection: Connection, scenario: str, variant: str, warm: int) -> None:
    with installed(scenario, variant) as (subject, _):
        subject.times(warm)
        gc.collect()
        gc.freeze()
        connection.send(None)
        with contextlib.suppress(EOFError):
            while calls := connection.recv():
                subject.times(max(1, calls // 5))  # warms the processor's caches
                connection.send(statistics.median(subject.times(calls)))


def _figure(values: Sequence[float]) -> Figure:
    """Return the median, and its standard error from the median deviation, which resists outliers."""
    middle = statistics.median(values)
    deviation = 1.4826 * statistics.median([abs(value - middle) for value in values])
    return Figure(middle, 1.2533 * deviation / math.sqrt(len(values)))
