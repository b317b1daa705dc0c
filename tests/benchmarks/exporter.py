"""Measures how many entries per second ``EventsLogExporter`` takes, next to rendering and ``write(2)`` alone."""

from __future__ import annotations

import copy
import functools
import gc
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import process_time
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import openai_lifecycle
from openai_lifecycle import codec
from openai_lifecycle.eventslog.exporter import EventsLogExporter
from openai_lifecycle.eventslog.format import render
from tests.benchmarks.scenarios import SCENARIOS

_MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
_decode = functools.partial(codec.decode, utc=False)


def span_of_a_chat() -> ReadableSpan:
    """Return the span of a real chat."""
    memory, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(memory))
    scenario = SCENARIOS["chat"]
    client = scenario.client()
    openai_lifecycle.instrument(tracer_provider=provider, events_log="none")
    scenario.sender(client)()
    openai_lifecycle.uninstrument()
    (span,) = memory.get_finished_spans()
    return span


def table(count: int = 20_000, rounds: int = 5) -> str:
    """Return a table of entries per second of CPU time: the best of ``rounds``, each of ``count`` spans."""
    span = span_of_a_chat()
    lines = ["| what | entries/s of CPU | µs an entry |", "|---|---:|---:|"]
    for name, run in {
        "render alone": _rendered,
        "render and write(2)": _written,
        "decode alone": _decoded,
        **{f"exporter, {mode}": _exported(mode) for mode in ("buffered", "write", "fsync")},
    }.items():
        best = min(_seconds(run, span, count) for _ in range(rounds))
        lines.append(f"| {name} | {count / best:,.0f} | {best / count * 1e6:.1f} |")
    return "\n".join(lines)


def _seconds(
    run: Callable[[list[ReadableSpan], str], Callable[[], Any]], span: ReadableSpan, count: int
) -> float:
    spans = [copy.copy(span) for _ in range(count)]
    with tempfile.TemporaryDirectory(dir=_MEMORY) as folder:
        work = run(spans, f"{folder}/events.log")
        gc.collect()
        started = process_time()
        work()
        return process_time() - started


def _rendered(spans: list[ReadableSpan], _: str) -> Callable[[], Any]:
    (event,) = _decode(spans[0])
    return lambda: [render(event) and None for _ in spans]


def _written(spans: list[ReadableSpan], path: str) -> Callable[[], Any]:
    (event,) = _decode(spans[0])
    descriptor = os.open(path, os.O_APPEND | os.O_CREAT | os.O_WRONLY)

    def work() -> None:
        for _ in spans:
            os.write(descriptor, render(event).encode())
        os.close(descriptor)

    return work


def _decoded(spans: list[ReadableSpan], _: str) -> Callable[[], Any]:
    return lambda: [_decode(span) and None for span in spans]


def _exported(mode: str) -> Callable[[list[ReadableSpan], str], Callable[[], Any]]:
    def run(spans: list[ReadableSpan], path: str) -> Callable[[], Any]:
        exporter = EventsLogExporter(events_log=path, durability=mode)

        def work() -> None:
            for span in spans:
                exporter.export((span,))
            exporter.shutdown()

        return work

    return run
