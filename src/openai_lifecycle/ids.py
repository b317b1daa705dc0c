"""Ids of spans that take no random numbers from the application."""

from __future__ import annotations

import os
import random
from typing import Final

from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

_RANDOM: Final = random.Random()  # noqa: S311 - ids are no secrets
# As ``random`` does for its own numbers: without it a forked child would repeat our ids.
os.register_at_fork(after_in_child=_RANDOM.seed)


class OwnRandomIds(RandomIdGenerator):
    """Makes ids like the SDK's generator, which takes them from ``random`` (``opentelemetry/sdk/trace/id_generator.py``).

    An application that has seeded ``random`` would otherwise get other numbers after a call than it gets without us.
    """

    def generate_span_id(self) -> int:
        """Return 64 random bits, not all 0."""
        return _RANDOM.getrandbits(64) or self.generate_span_id()

    def generate_trace_id(self) -> int:
        """Return 128 random bits, not all 0."""
        return _RANDOM.getrandbits(128) or self.generate_trace_id()
