"""Percentiles of any number of values in bounded memory."""

from __future__ import annotations

import math
from typing import Final

_GAMMA: Final = 1.01
_SCALE: Final = 1 / math.log(_GAMMA)
_LEAST: Final = 1e-6  # a smaller value counts as 0
_ZERO: Final = -1400  # the bucket of 0; that of the least value is -1388


class Sketch:
    """Counts values in buckets that each span one percent: any percentile is accurate to half a percent.

    Memory depends on the range of the values, not on their number: 1 µs to 1 day are 2500 buckets.
    """

    __slots__ = ("_buckets", "count")

    def __init__(self) -> None:
        self._buckets: dict[int, int] = {}
        self.count = 0

    def add(self, value: float) -> None:
        """Count ``value``, 0 or more and finite."""
        bucket = math.ceil(math.log(value) * _SCALE) if value > _LEAST else _ZERO
        self._buckets[bucket] = self._buckets.get(bucket, 0) + 1
        self.count += 1

    def percentile(self, percent: float) -> float | None:
        """Return the smallest value that ``percent`` (0 to 100) of the values do not exceed; ``None`` without values."""
        rank = math.ceil(self.count * percent / 100)
        for bucket in sorted(self._buckets):
            rank -= self._buckets[bucket]
            if rank <= 0:
                return 2 * _GAMMA**bucket / (_GAMMA + 1) if bucket > _ZERO else 0.0
        return None

    def merge(self, other: Sketch) -> None:
        """Count what ``other`` counted."""
        self.count += other.count
        for bucket, count in other._buckets.items():
            self._buckets[bucket] = self._buckets.get(bucket, 0) + count
