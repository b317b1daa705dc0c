"""The one place where an exception of ours is swallowed.

Code of ours that runs inside the application's call stands in ``with SHIELD:``. What it raises is reported in
one log line per place, counted, and goes no further: the call must succeed whatever happens to its telemetry.
The line names the exception's type and where it arose, never its text, which may quote a prompt. Tests set
``SHIELD.reraise`` so that no defect hides behind it.
"""

from __future__ import annotations

import contextlib
import logging
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType

_logger = logging.getLogger(__name__)


class Shield:
    """A reusable context manager that swallows ``Exception``, never ``BaseException``."""

    def __init__(self) -> None:
        self.reraise = False
        self.swallowed = 0
        self._reported: set[str] = set()

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if kind is None or not issubclass(kind, Exception) or self.reraise:
            return False
        self._report(kind, trace)
        return True

    def swallow(self, error: Exception) -> None:
        """Swallow ``error``, which was caught where a ``with`` statement costs too much."""
        if self.reraise:
            raise error
        self._report(type(error), error.__traceback__)

    def _report(self, kind: type[BaseException], trace: TracebackType | None) -> None:
        self.swallowed += 1
        place = _place(trace)
        if place not in self._reported:  # bounded: at most one element per line of code
            self._reported.add(place)
            with contextlib.suppress(Exception):  # a log handler of the application's may raise
                _logger.error(
                    "telemetry of an OpenAI call failed, the call is not affected: %s at %s",
                    kind.__name__,
                    place,
                )


def _place(trace: TracebackType | None) -> str:
    """Where the exception arose, innermost first: ``chat.py:41 < call.py:90``."""
    frames = traceback.extract_tb(trace)[-3:]
    return " < ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in reversed(frames))


SHIELD = Shield()
