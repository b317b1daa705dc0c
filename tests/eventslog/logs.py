"""Reading what a test has written: each entry is known by its number, and by who wrote it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from openai_lifecycle.events import LifecycleEvent
from openai_lifecycle.eventslog.reader import Damage, read_events

LOG = Path("events.log")


def numbers(found: Iterable[LifecycleEvent]) -> list[int]:
    """Return the numbers of events that ``samples.numbered`` has made."""
    return [getattr(event, "messages_count") for event in found]  # noqa: B009


def read(path: str | Path = LOG) -> tuple[list[int], list[Damage]]:
    """Return the numbers of a log's entries, in its order, and its damage."""
    damage: list[Damage] = []
    return numbers(read_events(path, on_damage=damage.append)), damage


def written(path: str | Path = LOG) -> dict[str, list[int]]:
    """Return the numbers that each writer's entries have, in the order of the log, which must be undamaged."""
    found: dict[str, list[int]] = defaultdict(list)
    damage: list[Damage] = []
    for event in read_events(path, on_damage=damage.append):
        found[event.model_id] += numbers([event])
    assert damage == []
    return dict(found)
