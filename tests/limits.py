"""How long what a test waits for may take."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

#: Seconds; what takes longer hangs. A busy machine makes a program of a second take minutes.
HANGS: Final = 600


def until(condition: Callable[[], bool]) -> None:
    """Wait until ``condition`` holds; other threads or processes are at work on it."""
    deadline = time.monotonic() + HANGS
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.002)
