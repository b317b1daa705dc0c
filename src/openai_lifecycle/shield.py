"""The one place where our own exceptions are swallowed.

Our code that runs inside the application's call is wrapped in ``with SHIELD:``. An exception in it is
logged once per line of code, and not propagated: the call must succeed whatever happens to its telemetry.
What a signal handler of the application raises, such as a time limit, is not ours and is propagated.
The log line names the exception's type and origin, never its text, which may quote a prompt. Tests set
``SHIELD.reraise`` so that it hides no defect.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import signal
import traceback
from pathlib import Path
from types import CodeType
from typing import TYPE_CHECKING, Any

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
        if kind is None or not issubclass(kind, Exception) or self.reraise or is_interruption(trace):
            return False
        self._report(kind, trace)
        return True

    def swallow(self, error: Exception) -> None:
        """Swallow ``error``, caught with ``except`` where a ``with`` statement costs too much."""
        if self.reraise or is_interruption(error.__traceback__):
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


def is_interruption(trace: TracebackType | None) -> bool:
    """Whether a signal handler raised the exception; it interrupts whatever is running just then.

    The first frame does not count: it only caught the exception, and may be our own handler's (``ending.py``).
    """
    handlers = map(signal.getsignal, signal.valid_signals())
    codes = {_code(handler) for handler in handlers if callable(handler)} - {None}
    return any(frame.f_code in codes for frame, _ in itertools.islice(traceback.walk_tb(trace), 1, None))


def _code(handler: Any) -> CodeType | None:
    """Return the code of a signal handler in Python: a function, method, partial or callable object."""
    handler = getattr(handler, "func", handler)
    code = getattr(handler, "__code__", None) or getattr(type(handler).__call__, "__code__", None)
    return code if isinstance(code, CodeType) else None


def _place(trace: TracebackType | None) -> str:
    """Where the exception arose, innermost first: ``chat.py:41 < call.py:90``."""
    # Not ``extract_tb``: it reads the source files, and needs more of the stack than the application may have left.
    frames = list(traceback.walk_tb(trace))[-3:]
    return " < ".join(f"{Path(frame.f_code.co_filename).name}:{line}" for frame, line in reversed(frames))


SHIELD = Shield()
