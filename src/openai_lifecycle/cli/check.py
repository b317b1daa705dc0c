"""Checks that a log is whole: counts entries and finds damage, duplicates and missing endings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from typing import Any, Final

from openai_lifecycle import semconv
from openai_lifecycle.cli.terminal import amount, clean
from openai_lifecycle.events import LifecycleEvent
from openai_lifecycle.eventslog.reader import Damage, Place

#: Type of entry → what its span is, and whether the entry ends it: the log must hold one ending for each span.
#: Tool calls are not here: those of a background response that is fetched later have no ending (``generations.py``).
_ROLES: Final = {
    semconv.INITIALIZATION_START: ("initialization", False),
    semconv.INITIALIZATION_SUCCESS: ("initialization", True),
    semconv.INITIALIZATION_ERROR: ("initialization", True),
    semconv.GENERATION_SUCCESS: ("call", True),
    semconv.GENERATION_ERROR: ("call", True),
}
_SHOWN: Final = 20


@dataclass(slots=True)
class Found:
    """One problem of an entry, and where the entry is."""

    problem: str
    path: str
    offset: int

    def __str__(self) -> str:
        return f"{clean(self.path)}: {self.problem} at offset {self.offset}"


@dataclass(slots=True)
class Check:
    """Takes entries and damage, and reports problems. Memory: about 300 bytes per entry."""

    counts: Counter[str] = field(default_factory=Counter)
    damage: list[Damage] = field(default_factory=list)
    duplicates: list[Found] = field(default_factory=list)
    _seen: set[bytes] = field(default_factory=set)
    _ended: set[tuple[str, str]] = field(default_factory=set)
    _promised: dict[tuple[str, str], Place] = field(default_factory=dict)  # still without their ending

    def add(self, event: LifecycleEvent, raw: bytes, place: Place) -> None:
        """Take an entry, its bytes and its place."""
        digest = blake2b(raw, digest_size=12).digest()
        if digest in self._seen:
            self.duplicates.append(Found(f"the same {event.tag} again", place.path, place.offset))
            return
        self._seen.add(digest)
        self.counts[event.tag] += 1
        span, role = event.metadata.custom_fields.get("span_id", ""), _ROLES.get(event.event_type)
        if not span or role is None:
            return
        what, ends = role
        key = (span, what)
        if not ends:
            if key not in self._ended:
                self._promised.setdefault(key, place)
            return
        self._promised.pop(key, None)
        if key in self._ended:
            problem = f"a second ending ({event.tag}) of one {what}"
            self.duplicates.append(Found(problem, place.path, place.offset))
        self._ended.add(key)

    @property
    def unfinished(self) -> list[Found]:
        """Entries whose initialization has no ending in the log."""
        return [
            Found("an initialization without an ending", place.path, place.offset)
            for place in self._promised.values()
        ]

    @property
    def whole(self) -> bool:
        """Whether nothing is wrong."""
        return not (self.damage or self.duplicates or self._promised)

    def lines(self) -> Iterator[str]:
        """Yield the findings as text."""
        tags = ", ".join(f"{tag} {count}" for tag, count in self.counts.most_common())
        yield amount(self.counts.total(), "entry", "entries") + (f": {tags}" if tags else "")
        sizes = [damage.length for damage in self.damage]
        yield f"damaged places: {len(sizes)}, {amount(sum(sizes), 'byte', 'bytes') if all(sizes) else 'of unknown size'}"
        yield from _first(clean(str(damage)) for damage in self.damage)
        yield f"duplicates: {len(self.duplicates)}"
        yield from _first(map(str, self.duplicates))
        unfinished = self.unfinished
        yield f"without an ending: {len(unfinished)}"
        yield from _first(map(str, unfinished))
        yield "whole" if self.whole else "not whole"

    def report(self) -> dict[str, Any]:
        """Return all findings as a JSON object."""
        return {
            "whole": self.whole,
            "entries": dict(self.counts),
            "damage": [asdict(damage) for damage in self.damage],
            "duplicates": [asdict(found) for found in self.duplicates],
            "without_ending": [asdict(found) for found in self.unfinished],
        }


def _first(lines: Iterator[str]) -> Iterator[str]:
    for index, line in enumerate(lines):
        if index == _SHOWN:
            yield "  … --json shows everything"
            return
        yield f"  {line}"
