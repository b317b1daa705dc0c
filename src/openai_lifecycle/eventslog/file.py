"""The file that entries are appended to."""

from __future__ import annotations

import os
import sys

from openai_lifecycle.options import Options


class EventsFile:
    """Appends entries to ``options.events_log``: one entry, one ``write(2)`` to an ``O_APPEND`` descriptor."""

    def __init__(self, options: Options) -> None:
        self.path = os.path.abspath(options.events_log or "")  # noqa: PTH100 - resolve() would follow links
        self._descriptor: int | None = None

    def write(self, entry: str) -> None:
        """Append ``entry``; never raises ``OSError``."""
        try:
            if self._descriptor is None:
                flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
                self._descriptor = os.open(self.path, flags, 0o600)
            os.write(self._descriptor, entry.encode())
        except OSError:
            sys.stderr.write(entry)

    def flush(self, timeout: float) -> bool:  # noqa: ARG002
        """Return whether everything written so far is safe after at most ``timeout`` seconds."""
        return True

    def close(self) -> None:
        """Close the descriptor; a later write opens it again."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
