"""Sinks that misbehave, and a dispatcher whose pauses are short."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from openai_lifecycle.events import LifecycleEvent
from openai_lifecycle.sinks import Destination, dispatch
from openai_lifecycle.sinks.dispatch import Dispatcher
from tests import generated
from tests.limits import HANGS

EVENTS = list(generated.events(20))


class Sink:
    """Takes events; ``trouble`` is called before, and may raise or wait."""

    def __init__(self, trouble: Callable[[], None] = lambda: None) -> None:
        self.taken: list[LifecycleEvent] = []
        self.calls: list[str] = []
        self.arrived, self.flushed = threading.Event(), threading.Event()
        self._trouble = trouble

    def write(self, events: Sequence[LifecycleEvent]) -> None:
        """Take ``events`` unless there is trouble."""
        self.arrived.set()
        self.calls.append("write")
        self._trouble()
        self.taken += events

    def flush(self) -> None:
        """Note the call."""
        self.calls.append("flush")
        self.flushed.set()

    def close(self) -> None:
        """Note the call."""
        self.calls.append("close")


class Dispatch:
    """A dispatcher over some sinks, and what it counted as lost."""

    def __init__(self) -> None:
        self._reader = InMemoryMetricReader()
        self.meters = MeterProvider([self._reader], shutdown_on_exit=False)
        self._made: list[Dispatcher] = []

    def __call__(self, **sinks: Any) -> Dispatcher:
        """Return a dispatcher to the given sinks, by name."""
        made = Dispatcher(
            [Destination(name, lambda sink=sink: sink) for name, sink in sinks.items()],  # type: ignore[misc]
            self.meters,
        )
        self._made.append(made)
        return made

    def lost(self) -> dict[str, int]:
        """Return the events that were counted as lost, by sink."""
        data = self._reader.get_metrics_data()
        return {
            str((point.attributes or {})["sink"]): int(point.value)  # type: ignore[union-attr]
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == "openai_lifecycle.events.lost"
            for point in metric.data.data_points
        }

    def stop(self) -> None:
        """Stop everything."""
        for made in self._made:
            made.close(0.1)
        self.meters.shutdown()


@pytest.fixture
def dispatcher(monkeypatch: pytest.MonkeyPatch) -> Iterator[Dispatch]:
    """Return a maker of dispatchers that pause for milliseconds instead of seconds."""
    monkeypatch.setattr(dispatch, "_FIRST_PAUSE", 0.005)
    monkeypatch.setattr(dispatch, "_LINGER", 0.005)
    maker = Dispatch()
    yield maker
    maker.stop()


def run(
    program: str, folder: Path, *arguments: str, status: int = 0, as_file: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run a program of Python, its text or its file, in ``folder``, and expect an exit status."""
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": f"{root}:{root / 'src'}"}
    ended = subprocess.run(
        [sys.executable, *([] if as_file else ["-c"]), program, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=HANGS,
        check=False,
    )
    assert ended.returncode == status, ended.stderr
    return ended
