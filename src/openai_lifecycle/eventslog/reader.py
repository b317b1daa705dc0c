"""Reads events from a log: live, rotated, compressed or damaged, in constant memory.

Most callers want :func:`read_events`. :func:`read_entries` also gives each entry's place and leaves decoding to the
caller, so that a reader that needs three fields of a gigabyte stays fast.

An entry ends with a closing brace at the start of a line, which occurs nowhere else: the renderer escapes every line
break in a text. So a byte search finds entries, and only the bytes of one that cannot be decoded are searched for
further headers. Bytes outside any entry are reported as :class:`Damage` and never hide the next entry.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import logging
import os
import re
import stat
import time
import zlib
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Generic, TypeAlias, TypeVar

from openai_lifecycle.events import LifecycleEvent
from openai_lifecycle.eventslog import locks, rotation
from openai_lifecycle.eventslog.descriptors import inherited, is_same_file
from openai_lifecycle.eventslog.format import END, HEADER, parse

_logger = logging.getLogger(__name__)

T = TypeVar("T")
PathLike: TypeAlias = "str | os.PathLike[str]"

_CHUNK: Final = 1 << 20
_LONGEST_ENTRY: Final = 64 << 20  # anything longer without an end is damage
_BEGUN: Final = re.compile(rb"\s*\[\d")  # a header, perhaps a torn one
_LONGEST_HEADER: Final = 64
_POLL: Final = 0.2  # seconds between two polls of a followed file
_SETTLE: Final = 0.02  # seconds to wait for the last entry to be completed
_TRIES: Final = 10  # to open all files of a log while none of them is moved
_HEAD: Final = 1 << 16  # bytes read at once to see how a file begins
_LONGEST_HEAD: Final = 1 << 20  # bytes that identify a file whose first entry is longer
#: What reading a compressed file raises where it breaks off.
_BROKEN: Final = (EOFError, zlib.error, gzip.BadGzipFile)


@dataclass(frozen=True, slots=True)
class Place:
    """Where an entry stands: ``length`` bytes from ``offset``, header to closing brace, of the content of ``path``.

    For a compressed file, the offset counts decompressed bytes.
    """

    path: str
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Damage:
    """Bytes that were skipped because they are not an entry. ``reason`` quotes none of the file's content.

    A length of 0 means an unknown amount is missing: a compressed file breaks off.
    """

    path: str
    offset: int
    length: int
    reason: str

    def __str__(self) -> str:
        size = "an unknown number of" if self.length == 0 else str(self.length)
        return f"{self.path}: skipped {size} byte{'' if self.length == 1 else 's'} at offset {self.offset}: {self.reason}"


OnDamage: TypeAlias = Callable[[Damage], None]


def log_damage(damage: Damage) -> None:
    """Log one warning saying what was skipped; the default for ``on_damage``."""
    _logger.warning("%s", damage)


def read_events(
    path: PathLike | Iterable[PathLike],
    *,
    follow: bool = False,
    rotated: bool = True,
    on_damage: OnDamage | None = None,
) -> Iterator[LifecycleEvent]:
    """Yield the events of one or several logs, each log from its oldest entry to its newest.

    Args:
        path: the log or logs. ``events.log`` includes its rotated files, a rotated file only itself.
            ``/dev/stdin`` and ``/dev/fd/N`` are read from their current position to the end, and nothing else.
        follow: go on waiting for new entries, also when a log is rotated, truncated or not there yet. The
            iterator then ends only when it is closed.
        rotated: read the rotated files (``events.log.2.gz``, ``events.log.1``) before the log itself.
        on_damage: called with each skipped range; by default one warning is logged for each.

    Raises:
        OSError: a log does not exist or cannot be read.
    """
    for event, _ in read_entries(path, parse, follow=follow, rotated=rotated, on_damage=on_damage):
        yield event


def read_entries(
    path: PathLike | Iterable[PathLike],
    decode: Callable[[bytes], T],
    *,
    follow: bool = False,
    rotated: bool = True,
    on_damage: OnDamage | None = None,
    on_idle: Callable[[], None] | None = None,
) -> Iterator[tuple[T, Place]]:
    """Yield the decoded value and the place of each entry.

    Args:
        path: the log or logs, as in :func:`read_events`.
        decode: gets the bytes of an entry from header to closing brace, and raises ``ValueError`` when they are
            not a whole entry; for example :func:`openai_lifecycle.eventslog.format.parse`.
        follow: as in :func:`read_events`.
        rotated: as in :func:`read_events`.
        on_damage: as in :func:`read_events`.
        on_idle: called while following, whenever everything available has been read.

    Raises:
        OSError: a log does not exist or cannot be read.
    """
    report = on_damage or log_damage
    logs = [_Log(p, decode, report, rotated=rotated, follow=follow) for p in distinct(path)]
    try:
        for log in logs:
            yield from log.read()
            if not log.follow:
                log.close()
        followed = [log for log in logs if log.follow]  # not what has ended by itself: see _Log.read
        while followed:
            advanced = False
            for log in followed:
                advanced |= yield from log.advance()
            if not advanced:
                if on_idle is not None:
                    on_idle()
                time.sleep(_POLL)
    finally:
        for log in logs:
            log.close()


def distinct(path: PathLike | Iterable[PathLike]) -> list[str]:
    """Return the logs to read; a rotated file named along with its log (``events.log*``) is read once."""
    given = [path] if isinstance(path, (str, os.PathLike)) else path
    paths = list(dict.fromkeys(_real(os.fspath(p)) for p in given))
    covered: set[str] = set()
    # A log comes before its rotated files, so that the directory is not searched for each of these.
    for log in sorted(paths):
        if log not in covered:
            covered.update(backup.path for backup in rotation.backups(log))
    return [p for p in paths if p not in covered]


def _real(path: str) -> str:
    # Rotated files are beside the target of a link.
    real = os.path.realpath(path)
    return real if os.path.isfile(real) and _inherited(path) is None else path


def _inherited(path: str) -> int | None:
    """Return the descriptor that ``path`` names: it is read from its current position, whether it is a file or not."""
    return inherited(path, "stdin")


def _ends_by_itself(path: str) -> bool:
    """Return whether ``path`` is a pipe or descriptor, which has no rotated files and is not followed."""
    return _inherited(path) is not None or (os.path.exists(path) and not os.path.isfile(path))


# ------------------------------------------------------------------ a log: its files and their rotation
class _Log(Generic[T]):
    """One log: its rotated files, then the log itself, then what is appended."""

    def __init__(
        self, path: str, decode: Callable[[bytes], T], report: OnDamage, *, rotated: bool, follow: bool
    ) -> None:
        self.follow = follow
        self._path = path
        self._decode = decode
        self._report = report
        self._rotated = rotated
        self._file: _File[T] | None = None  # the log itself
        # A rotated file is identified by its beginning: compressing changes its name and inode.
        self._known: deque[bytes] = deque(maxlen=1000)

    def read(self) -> Iterator[tuple[T, Place]]:
        """Yield all that is there; unless the log is followed, also what is still incomplete."""
        if self.follow and not os.path.exists(self._path):
            return
        if _ends_by_itself(self._path):
            self.follow = False
            self._file = _File(self._path, self._decode, self._report)
        else:
            yield from self._open(rotated=self._rotated)
        if self._file is not None:
            yield from self._file.drain()
            if not self.follow:
                yield from self._file.settle()
                yield from self._file.finish()

    def advance(self) -> Generator[tuple[T, Place], None, bool]:
        """Yield what came since the last time; returns False when the caller should wait before the next time."""
        file = self._file
        advanced = file is not None and (yield from file.drain())
        if not os.path.exists(self._path):  # not created yet, or moved away with nothing written since
            return advanced
        if file is None:
            yield from self._open(rotated=self._rotated or bool(self._known))
            return True
        if file.was_truncated():
            yield from file.finish()
            file.rewind()
        elif not is_same_file(self._path, file.descriptor):
            # Once we have the lock, every writer that opened the file before the move has finished.
            with suppress(OSError), locks.locked(file.descriptor, locks.EXCLUSIVE, 1.0):
                pass
            yield from file.drain()
            yield from file.finish()
            yield from self._open(rotated=True)
            return True
        return advanced

    def close(self) -> None:
        """Close what is open."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open(self, *, rotated: bool) -> Iterator[tuple[T, Place]]:
        """Open the log as it is now, and yield the entries of rotated files that were not read yet."""
        if self._file is not None:  # it has been read, and is a rotated file now
            self._known.append(self._file.fingerprint())
            self.close()
        with ExitStack() as stack:
            for file in self._open_all(stack, rotated=rotated):
                self._known.append(file.fingerprint())
                if rotated:  # else it counts as read
                    yield from file.drain()
                    yield from file.finish()

    def _open_all(self, stack: ExitStack, *, rotated: bool) -> list[_File[T]]:
        """Open the log, and return its rotated files that were not read yet, oldest first; ``stack`` closes them."""
        # Whoever follows a log has to know its rotated files even if their entries are not wanted.
        needs_rotated = rotated or self.follow
        # Files must not be moved while they are opened; open ones can be read whatever happens to them. Another program
        # may move them all the same, so it is checked afterwards that they are still in their place.
        with locks.unmoved(self._path):
            for _ in range(_TRIES):
                self.close()  # the log as the last try opened it
                found = rotation.backups(self._path) if needs_rotated else []
                self._open_log(is_required=not (found or self.follow))
                unread = self._open_unread(stack, found)
                if not needs_rotated or self._is_unmoved(found):
                    break
        return unread[::-1]

    def _open_log(self, *, is_required: bool) -> None:
        try:
            self._file = _File(self._path, self._decode, self._report)
        except FileNotFoundError:
            if is_required:
                raise

    def _open_unread(self, stack: ExitStack, found: list[rotation.Backup]) -> list[_File[T]]:
        """Open those of the rotated files ``found`` that were not read yet, newest first, but none that has been moved."""
        number = 0
        unread: list[_File[T]] = []
        for backup in found:
            with suppress(FileNotFoundError):
                file = _File(backup.path, self._decode, self._report)
                stack.callback(file.close)
                if file.fingerprint() in self._known:
                    break  # it was read, and so were all older ones
                if backup.number == number and file.begins_as(unread[-1]):
                    continue  # the same entries again: logrotate is compressing, and will then delete the plain file
                number = backup.number
                unread.append(file)
        return unread

    def _is_unmoved(self, found: list[rotation.Backup]) -> bool:
        """Return whether the log is the file that was opened, and its rotated files are those ``found``."""
        is_log = self._file is None or is_same_file(self._path, self._file.descriptor)
        return is_log and rotation.backups(self._path) == found


# ------------------------------------------------------------------ one file: bytes to entries
def _open_raw(path: str) -> io.FileIO:
    number = _inherited(path)
    return io.FileIO(path if number is None else os.dup(number), "r")


def _read_some(content: io.FileIO | gzip.GzipFile, size: int) -> bytes:
    """Return at most ``size`` bytes; of a compressed file that breaks off, all that precedes the break."""
    return content.read1(size) if isinstance(content, gzip.GzipFile) else content.read(size) or b""


class _File(Generic[T]):
    """One open file: its content, decompressed, and the entries in it."""

    def __init__(self, path: str, decode: Callable[[bytes], T], report: OnDamage) -> None:
        self._path = path
        self._decode = decode
        self._report = report
        self._raw = _open_raw(path)
        self.descriptor = self._raw.fileno()
        self._regular = stat.S_ISREG(os.fstat(self.descriptor).st_mode)
        start = self._raw.tell() if self._regular else 0
        self._packed = self._regular and rotation.holds_gzip(self.descriptor, start)
        self._content = self._unpacked()
        # Content read that is not a whole entry yet. A bytearray, because a compressed file or a pipe gives little at a
        # time, and what came before of a long entry is not to be copied with each piece.
        self._rest = bytearray()
        self._offset = 0 if self._packed else start  # where the rest begins
        self._damage: Damage | None = None  # not reported yet, because it may continue

    def close(self) -> None:
        """Close the file."""
        self._content.close()
        self._raw.close()

    def fingerprint(self) -> bytes:
        """Return a digest of the first entry, whose time and span identify this file among those of its log."""
        return hashlib.blake2b(self._first() or os.urandom(16)).digest()  # empty files are not the same

    def begins_as(self, whole: _File[T]) -> bool:
        """Return whether this file, as far as it has been written, begins with the same entry as ``whole``."""
        return whole._first().startswith(self._first())

    def _first(self) -> bytes:
        """Return the first entry, or what there is of it."""
        position, head = self._raw.tell(), b""
        self._raw.seek(0)
        content = self._unpacked()
        with suppress(*_BROKEN):  # reading will report it
            while END not in head and len(head) < _LONGEST_HEAD and (chunk := _read_some(content, _HEAD)):
                head += chunk
        self._raw.seek(position)
        return head[:_LONGEST_HEAD].partition(END)[0]

    def was_truncated(self) -> bool:
        """Return whether the file is shorter than what was read of it."""
        return (
            self._regular
            and not self._packed
            and os.fstat(self.descriptor).st_size < self._offset + len(self._rest)
        )

    def rewind(self) -> None:
        """Start again at the first byte."""
        self._raw.seek(0)
        self._rest = bytearray()
        self._offset = 0

    def _unpacked(self) -> io.FileIO | gzip.GzipFile:
        """Return the content from the current position on."""
        return gzip.GzipFile(fileobj=self._raw) if self._packed else self._raw

    def drain(self) -> Generator[tuple[T, Place], None, bool]:
        """Yield the entries up to the current end of the file; returns whether anything was read."""
        advanced = False
        while chunk := self._read():
            advanced = True
            yield from self._entries(chunk)
        return advanced

    def _read(self) -> bytes:
        try:
            return _read_some(self._content, _CHUNK)
        except _BROKEN as error:
            self._skip(self._offset + len(self._rest), 0, f"the compressed data breaks off: {error}")
            return b""

    def _entries(self, chunk: bytes) -> Iterator[tuple[T, Place]]:
        decode, path, base = self._decode, self._path, self._offset
        search = max(0, len(self._rest) - len(END) + 1)
        self._rest += chunk
        if self._rest.find(END, search) < 0:
            if len(self._rest) > _LONGEST_ENTRY:
                yield from self._cut()
            return
        buffer, start = bytes(self._rest), 0
        while (end := buffer.find(END, search)) >= 0:
            raw = buffer[start : end + 2]
            try:
                value = decode(raw)
            except ValueError as error:
                yield from self._salvage(raw, base + start, str(error))
            else:
                if self._damage is not None:
                    self._report_damage()
                yield value, Place(path, base + start, len(raw))
            start = search = end + len(END)
        self._rest = bytearray(buffer[start:])
        self._offset = base + start

    def _cut(self) -> Iterator[tuple[T, Place]]:
        """Give up an entry without an end; keep what may be the beginning of another: the last header, or half of one."""
        rest = bytes(self._rest)
        last = max((match.start() for match in HEADER.finditer(rest)), default=0)
        cut = last or len(rest) - _LONGEST_HEADER
        yield from self._salvage(rest[:cut], self._offset, "an entry without an end")
        self._offset += cut
        self._rest = bytearray(rest[cut:])

    def settle(self) -> Iterator[tuple[T, Place]]:
        """Wait briefly for an entry that is being written, and yield what arrives."""
        deadline = time.monotonic() + _SETTLE
        while self._regular and self._rest.strip() and time.monotonic() < deadline:
            time.sleep(_SETTLE / 10)
            yield from self.drain()

    def finish(self) -> Iterator[tuple[T, Place]]:
        """Yield the entries in the last bytes and report the rest: nothing more will come."""
        rest, self._rest = bytes(self._rest), bytearray()
        yield from self._salvage(rest, self._offset, "the entry is incomplete")
        self._offset += len(rest)
        self._report_damage()

    # -------------------------------------------------------------- damage
    def _salvage(self, raw: bytes, offset: int, reason: str) -> Iterator[tuple[T, Place]]:
        """Yield the entries in undecodable bytes, and report the bytes between them."""
        starts = [match.start() for match in HEADER.finditer(raw)]
        before = raw[: starts[0]] if starts else raw
        self._skip_text(before, offset, reason if _BEGUN.match(before) else "no entry begins here")
        for start, following in pairwise([*starts, len(raw)]):
            brace = raw.find(b"\n}", start, following)
            end = following if brace < 0 else brace + 2
            try:
                value = self._decode(raw[start:end])
            except ValueError as error:
                end = start
                reason = str(error)
            else:
                self._report_damage()
                yield value, Place(self._path, offset + start, end - start)
            self._skip_text(raw[end:following], offset + end, reason)

    def _skip_text(self, raw: bytes, offset: int, reason: str) -> None:
        if raw.strip():
            self._skip(offset, len(raw), reason)

    def _skip(self, offset: int, length: int, reason: str) -> None:
        """Note damage, merging it with the damage before it."""
        known = self._damage
        if known is not None:
            offset, length, reason = known.offset, offset + length - known.offset, known.reason
        self._damage = Damage(self._path, offset, length, reason)

    def _report_damage(self) -> None:
        damage, self._damage = self._damage, None
        if damage is not None:
            self._report(damage)
