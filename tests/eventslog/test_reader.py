"""Reading a log that is live, rotated, compressed or damaged."""

from __future__ import annotations

import dataclasses
import gzip
import logging
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from openai_lifecycle.events import LifecycleEvent
from openai_lifecycle.eventslog import locks, reader, rotation
from openai_lifecycle.eventslog.format import parse, render
from openai_lifecycle.eventslog.reader import Damage, read_entries, read_events
from tests.eventslog.logs import LOG, numbers, read
from tests.eventslog.samples import SUCCESS, entry, numbered
from tests.eventslog.strategies import events
from tests.limits import HANGS


# ------------------------------------------------------------------ whole logs
def test_reads_typed_events_in_order() -> None:
    """Every entry is an equal event, in the order of the file."""
    LOG.write_text("".join(entry(i) for i in range(100)), encoding="utf-8")
    assert list(read_events(LOG)) == [numbered(i) for i in range(100)]


def test_says_where_an_entry_stands() -> None:
    """The bytes at an entry's place are the entry, in a plain and in a compressed file."""
    texts = [entry(i) for i in range(50)]
    Path("events.log.1.gz").write_bytes(gzip.compress("".join(texts[:30]).encode()))
    LOG.write_text("".join(texts[30:]), encoding="utf-8")
    contents = {"events.log.1.gz": "".join(texts[:30]).encode(), "events.log": LOG.read_bytes()}
    found = list(read_entries(LOG, bytes))
    assert len(found) == 50
    for (raw, place), text in zip(found, texts, strict=True):
        content = contents[os.path.basename(place.path)]
        assert raw == content[place.offset : place.offset + place.length] == text.rstrip("\n").encode()


def test_rotated_files_come_first_oldest_first() -> None:
    """Backups are read by number, not by name, compressed or not, and what is no backup is left alone."""
    for number in range(1, 13):
        text = entry(12 - number)
        if number % 2:
            Path(f"events.log.{number}").write_text(text)
        else:
            Path(f"events.log.{number}.gz").write_bytes(gzip.compress(text.encode()))
    LOG.write_text(entry(12))
    for other in ("events.log.0", "events.log.bak", "events.log.1.gz.tmp", "other.log.1", "events.log.01"):
        Path(other).write_text(entry(99))
    assert read() == (list(range(13)), [])
    assert numbers(read_events(LOG, rotated=False)) == [12]
    assert numbers(read_events("events.log.3")) == [9]


def test_a_compressed_file_is_known_by_its_content() -> None:
    """A backup that was compressed and not yet renamed, as a crash may leave it, is read."""
    Path("events.log.1").write_bytes(gzip.compress(entry(1).encode()))
    LOG.write_text(entry(2))
    assert read() == ([1, 2], [])


def test_a_compressed_file_that_ends_in_its_head_hides_nothing() -> None:
    """A rotated file of which hardly more than the magic number was written is reported once, and all others are read."""
    Path("events.log.2").write_text(entry(1))
    Path("events.log.1.gz").write_bytes(gzip.compress(entry(2).encode())[:12])
    LOG.write_text(entry(3))
    found, damage = read()
    assert found == [1, 3]
    assert [(Path(d.path).name, d.offset, d.length) for d in damage] == [("events.log.1.gz", 0, 0)]


@pytest.mark.parametrize("done", [0, 5, 20, 200, None])
def test_a_file_that_logrotate_is_compressing_is_read_once(done: int | None) -> None:
    """While there are both the plain file and some of the compressed one, nothing is doubled or called damage."""
    text = "".join(entry(number) for number in range(3))
    Path("events.log.1").write_text(text)
    Path("events.log.1.gz").write_bytes(gzip.compress(text.encode())[:done])
    LOG.write_text(entry(3))
    assert read() == ([0, 1, 2, 3], [])


@pytest.mark.parametrize("keep", [2, 9])
@pytest.mark.parametrize("after", ["backups", "_open_raw"])
@pytest.mark.parametrize("follow", [False, True])
def test_files_that_logrotate_moves_while_they_are_opened(
    monkeypatch: pytest.MonkeyPatch, after: str, keep: int, *, follow: bool
) -> None:
    """Moved without the lock after they were listed, or one of them opened, each is read once; only what is deleted is not."""
    Path("events.log.2").write_text(entry(0))
    Path("events.log.1").write_text(entry(1))
    LOG.write_text(entry(2))
    moves = iter((entry(3), entry(4) + entry(5)))  # the last shows that one before it is missing
    module = rotation if after == "backups" else reader
    look = getattr(module, after)

    def looked(path: str) -> Any:
        seen = look(path)
        for text in islice(moves, 1):
            Path(f"events.log.{keep}").unlink(missing_ok=True)
            for old in range(keep - 1, 0, -1):
                if (file := Path(f"events.log.{old}")).exists():
                    file.rename(f"events.log.{old + 1}")
            LOG.rename("events.log.1")
            LOG.write_text(text)
        return seen

    reading = read_events(LOG, follow=follow)
    monkeypatch.setattr(module, after, looked)
    kept = [0, 1, 2, 3, 4][-keep - 1 :]
    assert numbers(islice(reading, len(kept))) == kept
    assert follow or numbers(reading) == [5]


def test_two_rotated_files_with_the_same_number() -> None:
    """A compressed file whose content differs from that of the plain one is read too, and counts as older."""
    Path("events.log.1.gz").write_bytes(gzip.compress(entry(0).encode()))
    Path("events.log.1").write_text(entry(1))
    LOG.write_text(entry(2))
    assert read() == ([0, 1, 2], [])


def test_several_logs_and_a_glob() -> None:
    """Logs are read one after the other; a backup that is named beside its log is read once."""
    Path("events.log.1").write_text(entry(1))
    LOG.write_text(entry(2))
    Path("other.log").write_text(entry(3))
    assert numbers(read_events(["events.log", "events.log.1", "other.log", "events.log"])) == [1, 2, 3]


def test_rotated_files_are_looked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Named along with their log, rotated files do not make the directory be searched for each of them."""
    for name in ("events.log", *(f"events.log.{number}" for number in range(1, 10))):
        Path(name).write_text(entry(1))
    given = [str(path) for path in Path().glob("events.log*")]
    searched: list[str] = []
    search = rotation.backups

    def counted(path: str) -> list[rotation.Backup]:
        searched.append(path)
        return search(path)

    monkeypatch.setattr(rotation, "backups", counted)
    assert reader.distinct(given) == [os.path.realpath("events.log")]
    assert searched == [os.path.realpath("events.log")]


def test_a_link_has_the_backups_of_its_target() -> None:
    """Reading through a symbolic link finds the rotated files that lie beside the target."""
    Path("data").mkdir()
    Path("data/events.log.1").write_text(entry(1))
    Path("data/events.log").write_text(entry(2))
    LOG.symlink_to("data/events.log")
    assert numbers(read_events(LOG)) == [1, 2]


def test_a_missing_log_is_an_error() -> None:
    """A path without a file raises at the first entry, unless backups of it exist."""
    with pytest.raises(FileNotFoundError):
        next(read_events(LOG))
    Path("events.log.1").write_text(entry(1))
    assert numbers(read_events(LOG)) == [1]
    with pytest.raises(IsADirectoryError):
        next(read_events("."))


def test_reads_from_a_pipe() -> None:
    """What comes through a pipe, such as standard input, is read to its end."""
    readable, writable = os.pipe()
    os.write(writable, (entry(1) + entry(2)).encode())
    os.close(writable)
    try:
        assert numbers(read_events(f"/dev/fd/{readable}", follow=True)) == [1, 2]
    finally:
        os.close(readable)


@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "compressed"])
@pytest.mark.parametrize("name", ["/dev/fd/{}", "/proc/self/fd/{}", "/dev/stdin"])
def test_a_descriptor_is_read_from_where_it_stands(name: str, compressed: bool) -> None:
    """What the process was given is read as it is: not what was read of it before, no rotated files, no followed log."""
    pack = gzip.compress if compressed else bytes
    Path("events.log.1").write_text(entry(0))
    passed = pack(entry(1).encode())
    LOG.write_bytes(passed + pack((entry(2) + entry(3)).encode()))
    program = (
        "import os, sys; from openai_lifecycle import read_events; os.read(0, int(sys.argv[1]))\n"
        "print([event.messages_count for event in read_events(sys.argv[2], follow=True)])"
    )
    with LOG.open("rb") as stdin:
        done = subprocess.run(
            [sys.executable, "-c", program, str(len(passed)), name.format(0)],
            stdin=stdin,
            capture_output=True,
            check=True,
        )
    assert (done.stdout, done.stderr) == (b"[2, 3]\n", b"")


def test_a_place_in_a_descriptor_is_one_in_its_file() -> None:
    """Offsets count from the beginning of the file, not from where the descriptor stood."""
    LOG.write_text(entry(1) + entry(2))
    with LOG.open("rb", buffering=0) as log:
        log.read(len(entry(1)))
        ((raw, place),) = read_entries(f"/dev/fd/{log.fileno()}", bytes)
    assert LOG.read_bytes()[place.offset : place.offset + place.length] == raw


def test_a_log_with_other_line_ends() -> None:
    """A log that a program has converted to CR LF reads as before."""
    LOG.write_bytes("".join(map(entry, range(5))).encode().replace(b"\n", b"\r\n"))
    assert read() == (list(range(5)), [])


def test_more_logs_than_descriptors() -> None:
    """More logs are read than a process may have open: each is opened when the one before it is done."""
    for number in range(60):
        Path(f"{number:02}.log").write_text(entry(number))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 20, hard))
    try:
        found = numbers(read_events(sorted(Path().glob("*.log"))))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert found == list(range(60))


def test_entries_larger_than_a_chunk() -> None:
    """An entry that spans several reads of the file is one entry."""
    big = dataclasses.replace(SUCCESS, message_content="ä" * 3_000_000)
    LOG.write_text(render(big) + entry(2), encoding="utf-8")
    assert list(read_events(LOG)) == [big, numbered(2)]


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 7, 100])
def test_what_is_read_in_pieces(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """However little a file gives at once, the entries, their places and the damage between them are the same."""
    LOG.write_text(entry(1) + "{" * 50 + "\n}\n\n" + entry(2) + entry(3)[:-20], encoding="utf-8")

    def found() -> tuple[list[object], list[Damage]]:
        damage: list[Damage] = []
        return list(read_entries(LOG, parse, on_damage=damage.append)), damage

    whole = found()
    monkeypatch.setattr(reader, "_CHUNK", size)
    assert found() == whole
    assert (len(whole[0]), len(whole[1])) == (2, 2)


# ------------------------------------------------------------------ damage
DAMAGED: dict[str, tuple[Callable[[bytes, bytes, bytes], bytes], list[int], int]] = {
    "torn at the end": (lambda a, b, c: a + b + c[:100], [1, 2], 1),
    "torn in the middle": (lambda a, b, c: a + b[:100] + b"\n\n" + c, [1, 3], 1),
    "torn, and the next in the same line": (lambda a, b, c: a + b[:100] + c, [1, 3], 1),
    "torn in the header": (lambda a, b, c: a + b[:30] + b"\n\n" + c, [1, 3], 1),
    "torn after the header": (lambda a, b, c: a + b[:51] + c, [1, 3], 1),
    "torn before the last line break": (lambda a, b, c: a + b[:-1] + c, [1, 2, 3], 0),
    "torn before both line breaks": (lambda a, b, c: a + b[:-2] + c, [1, 2, 3], 0),
    "a line of another program": (lambda a, b, c: a + b"Traceback\n" + b + c, [1, 2, 3], 1),
    "zeros after a crash": (lambda a, b, c: a + b"\0" * 5000 + b + c, [1, 2, 3], 1),
    "binary at the beginning": (lambda a, b, c: os.urandom(500) + b"\n" + a + b + c, [1, 2, 3], 1),
    "invalid UTF-8": (lambda a, b, c: a + b.replace(b"xxx", b"x\xffx") + c, [1, 3], 1),
    "a broken value": (lambda a, b, c: a + b.replace(b"0.7", b"seven") + c, [1, 3], 1),
    "an unknown event": (lambda a, b, c: a + b.replace(b"GENERATION_SUCCESS]", b"PARTY]") + c, [1, 3], 1),
    "two in a row": (lambda a, b, c: a[:80] + b[:90] + c, [3], 1),
    "two apart": (lambda a, b, c: a[:80] + b"\n\n" + b + c[:90], [2], 2),
    "only empty lines more": (
        lambda a, b, c: b"\n\n" + a + b"\n\n\n" + b + b" \n" + c + b"\n\n",
        [1, 2, 3],
        0,
    ),
    "nothing at all": (lambda a, b, c: b"", [], 0),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_damage_is_reported_and_hides_nothing(kind: str) -> None:
    """Each kind of damage costs the entry that it hit and no other, and is reported once."""
    make, left, reports = DAMAGED[kind]
    LOG.write_bytes(make(*(entry(i).encode() for i in (1, 2, 3))))
    found, damage = read()
    assert found == left
    assert len(damage) == reports


def test_damage_says_where_and_why() -> None:
    """Place and length are those of the skipped bytes, and the reason quotes no content."""
    first, torn, last = entry(1).encode(), entry(2).encode()[:200], entry(3).encode()
    LOG.write_bytes(first + torn + b"\n\n" + last)
    _, (damage,) = read()
    assert damage.path.endswith("events.log")
    assert LOG.read_bytes()[damage.offset : damage.offset + damage.length].rstrip() == torn
    assert "JSON" in damage.reason
    assert "gpt" not in damage.reason


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("abc", "no entry begins here"),
        ('{"event": "x"}\n{"event": "y"}\n', "no entry begins here"),
        ("{\n}\n\n", "no entry begins here"),
        (f"abc{entry(1)}", "no entry begins here"),
        ("[2026-01-05 00:0", "the entry is incomplete"),
    ],
)
def test_what_is_no_log_is_not_called_an_entry(text: str, reason: str) -> None:
    """Of bytes that begin with no header it is said that no entry begins there; half a header is half an entry."""
    LOG.write_text(text)
    _, (damage,) = read()
    assert (damage.offset, damage.reason) == (0, reason)


def test_damage_is_logged_by_default(caplog: pytest.LogCaptureFixture) -> None:
    """Without a callback each damage is one warning that names file, place and reason."""
    LOG.write_text(entry(1) + "what is this?\n" + entry(2))
    with caplog.at_level(logging.WARNING):
        assert numbers(read_events(LOG)) == [1, 2]
    (record,) = caplog.records
    assert "events.log: skipped" in record.getMessage()
    assert f"at offset {len(entry(1))}" in record.getMessage()


def test_a_compressed_file_that_breaks_off() -> None:
    """What can be decompressed is read, the break is reported, and the next file follows."""
    texts = [entry(i) for i in range(200)]
    whole = gzip.compress("".join(texts).encode(), compresslevel=1)
    Path("events.log.1.gz").write_bytes(whole[: len(whole) // 2])
    LOG.write_text(entry(999))
    found, damage = read()
    assert 10 < len(found) < 200
    assert found == [*range(len(found) - 1), 999]
    assert any("compressed data breaks off" in d.reason for d in damage) or damage[0].length > 0


def test_a_file_without_entries_takes_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes that never end an entry are given up beyond a limit, and an entry after them is found."""
    monkeypatch.setattr(reader, "_LONGEST_ENTRY", 1 << 21)
    LOG.write_bytes(b"[" * (9 << 20) + entry(1).encode() + entry(2).encode())
    found, damage = read()
    assert found == [1, 2]
    assert sum(d.length for d in damage) == 9 << 20


_positions = st.integers(0, 10**6)
_junk = st.binary(max_size=40) | st.sampled_from(
    [
        b"\n}\n\n",
        b"\n",
        b"\n\n",
        b"}",
        b"{",
        b'"',
        b"\\",
        b"\0",
        b"[2025-01-27 14:30:25] [EVENT: INIT_START]\n{",
    ]
)


@settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    st.lists(events, min_size=1, max_size=6),
    st.lists(st.tuples(_positions, st.integers(0, 400), _junk), max_size=3),
)
def test_arbitrary_damage(
    monkeypatch: pytest.MonkeyPatch, written: list[LifecycleEvent], cuts: list[tuple[int, int, bytes]]
) -> None:
    """Whatever bytes are replaced, removed or added: no exception, and every entry that is left whole is found.

    Anything else that is found stands in the file as it was found, and no byte is used twice.
    """
    monkeypatch.setattr(reader, "_SETTLE", 0.0)
    texts = [render(event).encode() for event in written]
    content = bytearray(b"".join(texts))
    origin = list(range(len(content)))  # where each byte was before the damage, -1 for junk
    for position, length, junk in cuts:
        start = position % (len(content) + 1)
        content[start : start + length] = junk
        origin[start : start + length] = [-1] * len(junk)
    assume(not content.startswith(rotation.GZIP_MAGIC))  # it would be read as a compressed file
    LOG.write_bytes(content)

    found = list(read_entries(LOG, parse, on_damage=lambda _: None))

    end = 0
    for event, place in found:
        assert place.offset >= end
        end = place.offset + place.length
        assert parse(bytes(content[place.offset : end])) == event
    at = {place.offset: event for event, place in found}
    first = 0
    for event, text in zip(written, texts, strict=True):
        start = origin.index(first) if first in origin else 0
        if origin[start : start + len(text)] == list(range(first, first + len(text))):
            assert at[start] == event
        first += len(text)


# ------------------------------------------------------------------ following
@pytest.fixture
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "_POLL", 0.005)


def append(text: str, path: Path = LOG) -> None:
    with path.open("a") as file:
        file.write(text)


def follow(
    count: int, *steps: Callable[[], object], paths: Any = LOG, rotated: bool = True
) -> tuple[list[int], list[Damage]]:
    """Follow a log until ``count`` entries are read, and return their numbers and the damage.

    Whenever all that there is has been read, the next of ``steps`` is done.
    """
    left, damage = iter(steps), list[Damage]()

    def go_on() -> None:
        step = next(left, None)
        assert step is not None, "after the last step nothing was read"
        step()

    stream = read_entries(paths, parse, follow=True, rotated=rotated, on_idle=go_on, on_damage=damage.append)
    found = numbers(event for event, _ in islice(stream, count))
    stream.close()  # type: ignore[attr-defined]
    return found, damage


@pytest.mark.usefixtures("_quick")
def test_follow_waits_for_a_log_that_is_not_there() -> None:
    """Following begins when the log appears."""
    assert follow(2, lambda: append(entry(1)), lambda: append(entry(2))) == ([1, 2], [])


@pytest.mark.usefixtures("_quick")
def test_follow_waits_for_the_rest_of_an_entry() -> None:
    """An entry that appears in pieces is one entry and no damage."""
    append(entry(1))
    pieces = entry(2)[:100], entry(2)[100:]
    assert follow(2, *(partial(append, piece) for piece in pieces)) == ([1, 2], [])


@pytest.mark.usefixtures("_quick")
@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "compressed"])
def test_follow_across_several_rotations_at_once(compressed: bool) -> None:
    """When the log was rotated more than once between two looks, the files in between are read too, each once."""
    Path("events.log.1").write_text(entry(0))
    append(entry(1))

    def rotate_twice() -> None:
        os.rename("events.log.1", "events.log.3")
        append(entry(2))
        os.rename("events.log", "events.log.2")
        if compressed:
            for number in (3, 2):
                plain = Path(f"events.log.{number}")
                Path(f"events.log.{number}.gz").write_bytes(gzip.compress(plain.read_bytes()))
                plain.unlink()
        Path("events.log.1").write_text(entry(3))
        append(entry(4))

    assert follow(5, rotate_twice) == ([0, 1, 2, 3, 4], [])


@pytest.mark.usefixtures("_quick")
@pytest.mark.parametrize("length", [5_000, 70_000, 1_000_000])
@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "compressed"])
def test_follow_files_that_begin_alike(length: int, compressed: bool) -> None:
    """Rotated files whose first entries differ only at their ends, behind a long prompt, are told apart."""
    alike = dataclasses.replace(SUCCESS, message_content="x" * length, messages_count=9)
    texts = [render(dataclasses.replace(alike, trace_id=str(n))) + entry(n) for n in range(4)]
    append(texts[0])

    def rotate_thrice() -> None:
        os.rename("events.log", "events.log.3")
        for number, text in ((2, texts[1]), (1, texts[2])):
            if compressed:
                Path(f"events.log.{number}.gz").write_bytes(gzip.compress(text.encode()))
            else:
                Path(f"events.log.{number}").write_text(text)
        append(texts[3])

    assert follow(8, rotate_thrice) == ([9, 0, 9, 1, 9, 2, 9, 3], [])


@pytest.mark.usefixtures("_quick")
@pytest.mark.parametrize("aside", ["events.log.1", "elsewhere"])
@pytest.mark.parametrize("rotated", [True, False])
def test_follow_when_the_log_is_gone_just_after_it_was_seen(
    aside: str, monkeypatch: pytest.MonkeyPatch, *, rotated: bool
) -> None:
    """A log that was moved and is not there again yet is waited for; each entry is read once, also of a next but one."""
    append(entry(1))
    exists, seen_before_it_went = os.path.exists, list[bool]()

    def look(path: str) -> bool:
        return exists(path) or (seen_before_it_went.pop() if seen_before_it_went else False)

    def move() -> None:
        os.rename(LOG, aside)
        seen_before_it_went.append(True)

    def come_again_twice() -> None:
        append(entry(2))
        rotation.rotate("events.log", 9)
        append(entry(3))

    monkeypatch.setattr(os.path, "exists", look)
    assert follow(3, move, come_again_twice, rotated=rotated) == ([1, 2, 3], [])


@pytest.mark.usefixtures("_quick")
def test_a_descriptor_beside_a_followed_log_is_read_once() -> None:
    """What ends by itself is not opened again while a log is followed: a named pipe would block that for ever."""
    other = Path("other.log")
    append(entry(1), other)
    append(entry(2))

    def go_on() -> None:
        append(entry(9), other)
        append(entry(3))

    with other.open("rb", buffering=0) as given:
        assert follow(3, go_on, paths=(f"/dev/fd/{given.fileno()}", LOG)) == ([1, 2, 3], [])


@pytest.mark.usefixtures("_quick")
@pytest.mark.parametrize(
    "go", [lambda: rotation.rotate("events.log", 9), LOG.unlink], ids=["rotated", "deleted"]
)
def test_follow_without_the_past(go: Callable[[], None]) -> None:
    """Without the rotated files only the log itself is read, and then what comes, also when it is rotated or deleted."""
    Path("events.log.1").write_text(entry(0))
    append(entry(1))

    def write_and_begin_again() -> None:
        append(entry(2))
        go()
        append(entry(3))

    assert follow(3, write_and_begin_again, rotated=False) == ([1, 2, 3], [])


@pytest.mark.usefixtures("_quick")
def test_follow_a_compressed_log() -> None:
    """A compressed log, whose size is not that of its content, is read once, and the next one after it."""
    LOG.write_bytes(gzip.compress("".join(map(entry, range(100))).encode()))

    def replace() -> None:
        Path("new.log").write_text(entry(100))
        Path("new.log").replace(LOG)

    assert follow(101, replace) == (list(range(101)), [])


@pytest.mark.usefixtures("_quick")
def test_follow_with_empty_files_among_the_rotated() -> None:
    """Rotated files that are empty, as one that copytruncate left is, hide no other."""
    Path("events.log.1").touch()
    append(entry(0))

    def rotate_thrice() -> None:
        os.rename("events.log.1", "events.log.4")
        os.rename("events.log", "events.log.3")
        Path("events.log.2").write_text(entry(1) + entry(2))
        Path("events.log.1").touch()
        append(entry(3))

    assert follow(4, rotate_thrice) == ([0, 1, 2, 3], [])


def notice() -> None:
    """Do nothing: that a file was truncated is noticed in one round, and what it has now is read in the next."""


@pytest.mark.usefixtures("_quick")
@pytest.mark.parametrize("go", [lambda: os.truncate(LOG, 0), LOG.unlink], ids=["truncated", "deleted"])
def test_follow_a_log_that_begins_again(go: Callable[[], None]) -> None:
    """After ``copytruncate``, or when the log was deleted, reading goes on with the new beginning."""
    append(entry(1) + entry(2))

    def begin_again() -> None:
        go()
        append(entry(3))

    assert follow(3, begin_again, notice) == ([1, 2, 3], [])


@pytest.mark.usefixtures("_quick")
def test_follow_a_log_that_was_moved_away() -> None:
    """What a writer added before it noticed the move is shown at once, not when the next log is there."""
    append(entry(1))

    def move() -> None:
        os.rename(LOG, "events.log.1")
        append(entry(2), Path("events.log.1"))

    assert follow(2, move) == ([1, 2], [])


@pytest.mark.usefixtures("_quick")
def test_follow_waits_for_writers_of_a_log_that_was_moved_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a writer that holds the lock adds to the old file, after the next log is there, is read before that."""
    append(entry(1))
    locked, late = locks.locked, [entry(2)]

    def locked_after_the_writer(descriptor: int, kind: int, patience: float) -> Any:
        if late:
            append(late.pop(), Path("events.log.1"))
        return locked(descriptor, kind, patience)

    def move() -> None:
        os.rename(LOG, "events.log.1")
        append(entry(3))
        monkeypatch.setattr(locks, "locked", locked_after_the_writer)

    assert follow(3, move) == ([1, 2, 3], [])


@pytest.mark.usefixtures("_quick")
def test_follow_reads_an_empty_log_that_is_written_to_after_it_was_moved_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What a writer without the lock adds to a file that had nothing in it when it was last read is not lost."""
    LOG.touch()
    search, late = rotation.backups, [entry(1)]

    def search_after_the_writer(path: str) -> list[rotation.Backup]:
        found = search(path)
        if found and late:
            append(late.pop(), Path("events.log.1"))
        return found

    def move() -> None:
        os.rename(LOG, "events.log.1")
        append(entry(2))

    monkeypatch.setattr(rotation, "backups", search_after_the_writer)
    assert follow(2, move) == ([1, 2], [])


@pytest.mark.usefixtures("_quick")
@pytest.mark.parametrize(
    "go", [lambda: os.rename(LOG, "events.log.1"), lambda: os.truncate(LOG, 0)], ids=["moved", "truncated"]
)
def test_follow_tells_of_an_entry_that_stays_incomplete(go: Callable[[], None]) -> None:
    """Half an entry at the end of a file that is then moved or truncated is reported, not silently left out."""
    append(entry(1) + entry(9)[:100])

    def begin_again() -> None:
        go()
        append(entry(2))

    found, damage = follow(2, begin_again, notice)
    assert found == [1, 2]
    assert [(part.offset, part.length) for part in damage] == [(len(entry(1)), 100)]


def test_an_entry_that_is_just_being_written_is_no_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading waits a moment for the rest of the last entry."""
    append(entry(1)[:100])
    rest = [entry(1)[100:]]
    monkeypatch.setattr(reader, "_SETTLE", HANGS)
    monkeypatch.setattr("openai_lifecycle.eventslog.reader.time.sleep", lambda _: append(rest.pop()))
    assert read() == ([1], [])


def test_closing_early_leaves_nothing_open() -> None:
    """Whoever stops reading in the middle leaks no descriptor."""
    for name in ("events.log.2", "events.log.1", "events.log"):
        Path(name).write_text(entry(1) + entry(2))
    before = len(os.listdir("/proc/self/fd"))
    for count in range(1, 6):
        stream = read_events(LOG)
        assert len(list(islice(stream, count))) == count
        stream.close()  # type: ignore[attr-defined]
    assert len(os.listdir("/proc/self/fd")) == before
