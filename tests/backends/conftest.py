"""Tests against the real programs, marked `backends`: `pytest -m backends tests/backends`.

The Collector, Jaeger and Kafka come from the cache that `build.py` fills; the first run fills it. Without the
tools to build them, binaries on PATH serve; without those the tests are skipped, or fail when
`OPENAI_LIFECYCLE_REQUIRE_BACKENDS=1` says that they are required.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from .build import PROGRAMS
from .harness import Backends


def program(name: str) -> Path:
    """Return the program to test with, built or found on PATH; skip, or fail, when there is none."""
    pinned = PROGRAMS[name]
    if pinned.path.exists() or not pinned.missing_tools:
        return pinned.build()
    if found := shutil.which(pinned.file):
        return Path(found)
    reason = (
        f"no {name}: install {' and '.join(pinned.missing_tools)} and run `python tests/backends/build.py`, "
        f"or put `{pinned.file}` on PATH"
    )
    if os.environ.get("OPENAI_LIFECYCLE_REQUIRE_BACKENDS") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture
def backends(tmp_path: Path) -> Iterator[Backends]:
    """Start programs for a test, and stop them after it."""
    running = Backends(program, tmp_path)
    try:
        yield running
    finally:
        running.stop()
