"""``jsonl:///path``: appends one line of JSON per event; several processes may share the file."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from urllib.parse import quote, unquote, urlsplit

from openai_lifecycle.events import LifecycleEvent
from openai_lifecycle.eventslog import locks
from openai_lifecycle.eventslog.descriptors import above_standard, close_own, is_same_file
from openai_lifecycle.eventslog.file import absolute
from openai_lifecycle.records import to_json


class JsonLinesSink:
    """Appends events to the file that ``url`` names: ``jsonl:///var/log/llm.jsonl``, ``jsonl:relative.jsonl``.

    Raises:
        ValueError: the URL names no path.
    """

    def __init__(self, url: str) -> None:
        self._path = jsonl_file(url)
        self.absolute_url = f"jsonl:{quote(self._path, errors='surrogateescape')}"
        self._descriptor: int | None = None
        self._file = os.stat_result((0,) * 10)  # the open file

    def write(self, events: Sequence[LifecycleEvent]) -> None:
        """Append ``events`` with one ``write``, beginning on a new line.

        Raises:
            OSError: not everything was written; what was has been cut off a regular file that could be locked.
        """
        lines = "".join(f"{to_json(event)}\n" for event in events).encode()
        file = self._open()
        locked = locks.lock(file, locks.EXCLUSIVE, 1.0)
        try:
            status = os.fstat(file)
            if stat.S_ISREG(status.st_mode) and self._is_torn():
                lines = b"\n" + lines
            written = os.write(file, lines)
            if written < len(lines):  # the disk is full: undo the partial write, because a retry repeats it
                if stat.S_ISREG(status.st_mode) and locked:
                    os.ftruncate(file, status.st_size)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            locks.unlock(file)

    def _is_torn(self) -> bool:
        """Return whether the last line is incomplete: its writer died, or the disk was full."""
        try:
            with open(self._path, "rb", buffering=0) as file:
                file.seek(-1, os.SEEK_END)
                return file.read(1) != b"\n"
        except OSError:  # empty, or writable but not readable
            return False

    def _open(self) -> int:
        # Reopen the file after it was moved away, as logrotate does.
        if self._descriptor is not None and not is_same_file(self._path, self._descriptor):
            self.close()
        if self._descriptor is None:
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
            self._descriptor = above_standard(os.open(self._path, flags, 0o600))
            self._file = os.fstat(self._descriptor)
        return self._descriptor

    def flush(self) -> None:
        """Do nothing: the kernel has what was written."""

    def close(self) -> None:
        """Close the file."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            close_own(descriptor, self._file)


def jsonl_file(url: str) -> str:
    """Return the absolute path of the file that ``url`` names.

    Raises:
        ValueError: it names none.
    """
    try:
        parts = urlsplit(url)
    except ValueError:  # its text quotes the URL
        parts = None
    if parts is None or parts.netloc or not parts.path.strip("/") or parts.query or parts.fragment:
        raise ValueError("it needs a path and nothing else, as in jsonl:///var/log/llm.jsonl")
    return absolute(unquote(parts.path, errors="surrogateescape"))
