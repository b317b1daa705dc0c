"""The one place where our own exceptions are swallowed.

Our code that runs inside the application's call is wrapped in ``with SHIELD:``. An exception in it is
logged once per line of code, and not propagated: the call must succeed whatever happens to its telemetry.
The log line names the exception's type and origin, never its text, which may quote a prompt. Tests set
``SHIELD.reraise`` so that it hides no defect.
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
        """Swallow ``error``, caught with ``except`` where a ``with`` statement costs too much."""
        if self.reraise:
            raise error
        self._report(type(error), error.__traceback__)

    def _report(self, kind: type[BaseException], trace: TracebackType | None) -> None:
        place = _place(trace)
        if place not in self._reported:  # bounded: at most one element per line of code
            self._reported.add(place)
            with contextlib.suppress(Exception):  # the application's log handler may raise
                _logger.error(
                    "recording an OpenAI call failed; the call itself is not affected: %s at %s",
                    kind.__name__,
                    place,
                )


def _place(trace: TracebackType | None) -> str:
    """Where the exception arose, innermost first: ``chat.py:41 < call.py:90``."""
    frames = traceback.extract_tb(trace)[-3:]
    return " < ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in reversed(frames))


SHIELD = Shield()
