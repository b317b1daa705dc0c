"""Measures the delay of the event loop while 200 streams are read: what observing them costs everything else."""

from __future__ import annotations

import asyncio
import contextlib
import statistics
from collections.abc import AsyncIterator
from time import perf_counter, process_time
from typing import Any

import httpx2
import openai

from tests.benchmarks.scenarios import HEADERS, SCENARIOS, URL, chat_chunks, events
from tests.benchmarks.variants import VARIANTS, Telemetry

_STREAMS, _CHUNKS = 200, 30
_PAUSE = 0.1  # seconds between the chunks of a stream
_TICK = 0.005


class _Paced(httpx2.AsyncByteStream):
    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in chat_chunks(_CHUNKS):
            await asyncio.sleep(_PAUSE)
            yield events([chunk])


def _client() -> Any:
    headers = {**HEADERS, "content-type": "text/event-stream"}
    transport = httpx2.MockTransport(lambda _: httpx2.Response(200, headers=headers, stream=_Paced()))
    http = httpx2.AsyncClient(transport=transport)
    return openai.AsyncOpenAI(
        api_key="sk-benchmark-0123456789", base_url=URL, http_client=http, max_retries=0
    )


async def _late(late: list[float]) -> None:
    while True:
        due = perf_counter() + _TICK
        await asyncio.sleep(_TICK)
        late.append(perf_counter() - due)


async def _streams(variant: str, telemetry: Telemetry) -> tuple[list[float], float]:
    scenario, client, late = SCENARIOS["async chat stream"], _client(), list[float]()
    call = VARIANTS[variant].calls(scenario, client, telemetry)
    started = process_time()
    ticker = asyncio.create_task(_late(late))

    async def one(position: int) -> None:
        await asyncio.sleep(_PAUSE * position / _STREAMS)  # so that they do not all tick at once
        await call()

    await asyncio.gather(*(one(position) for position in range(_STREAMS)))
    spent = process_time() - started
    ticker.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await ticker
    return late, spent


def table(rounds: int = 3) -> str:
    """Return the delays of the loop, the medians of ``rounds`` runs."""
    lines = [
        f"{_STREAMS} streams of {_CHUNKS} chunks, one chunk each {_PAUSE * 1000:.0f} ms",
        "",
        "| variant | mean delay ms | p99 ms | worst ms | CPU s |",
        "|---|---:|---:|---:|---:|",
    ]
    names = ("bare", "floor with metrics", "everything on")
    runs: dict[str, list[tuple[float, ...]]] = {name: [] for name in names}
    for _ in range(rounds):
        for name in names:
            telemetry = Telemetry()
            with VARIANTS[name].active(telemetry):
                late, spent = asyncio.run(_streams(name, telemetry))
            telemetry.close()
            late.sort()
            own = statistics.mean(late), late[len(late) * 99 // 100], late[-1]
            runs[name].append((*(value * 1000 for value in own), spent))
    for name in names:
        middle = [statistics.median(values) for values in zip(*runs[name], strict=True)]
        lines.append(f"| {name} | {' | '.join(f'{value:.2f}' for value in middle)} |")
    return "\n".join(lines)
