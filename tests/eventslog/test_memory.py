"""Memory over many entries: what is kept does not grow with what was written and read."""

from __future__ import annotations

import gc
import os
import tracemalloc
from collections.abc import Callable, Iterator

import pytest

from openai_lifecycle.eventslog.file import EventsFile
from openai_lifecycle.eventslog.reader import read_events
from tests.eventslog import child
from tests.eventslog.samples import entry


def resident() -> int:
    """Return the bytes of memory that this process has in use."""
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def growth(step: Callable[[], object], steps: int, warm_up: int) -> int:
    """Return by how many bytes the process grew in ``steps`` after the first ``warm_up``."""
    for _ in range(warm_up):
        step()
    gc.collect()
    before = resident()
    for _ in range(steps - warm_up):
        step()
    gc.collect()
    return resident() - before


def write_and_read(count: int, durability: str) -> None:
    text = entry(3)
    file = EventsFile(child.options(durability=durability, max_bytes=len(text) * count // 8, backups=50))
    written = growth(lambda: file.write(text), count, count // 5)
    file.close()
    stream = read_events("events.log")
    read = growth(lambda: next(stream), count, count // 5)
    assert next(stream, None) is None
    print(f"{durability}: {count} entries; grown by {written} bytes in writing, {read} in reading")
    assert written < 8 << 20
    assert read < 8 << 20


@pytest.mark.parametrize("durability", ["write", "buffered"])
def test_memory_is_flat(durability: str) -> None:
    """Over a hundred thousand entries written, and read, the process grows by less than 8 MiB, 60 bytes an entry."""
    write_and_read(100_000, durability)


@pytest.mark.soak
@pytest.mark.parametrize("durability", ["write", "buffered"])
def test_memory_is_flat_over_a_million(durability: str) -> None:
    """Over a million entries written, and read, the process grows by less than 8 MiB, 8 bytes an entry."""
    write_and_read(1_000_000, durability)


def test_nothing_is_kept_for_an_entry() -> None:
    """Not a single object stays behind for an entry that was written."""
    file = EventsFile(child.options())
    texts: Iterator[str] = (entry(number) for number in range(2000))
    for _ in range(200):
        file.write(next(texts))
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for text in texts:
            file.write(text)
        del text
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    file.close()
    assert grown < 1800 * 8
