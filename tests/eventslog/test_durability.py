"""What is safe when: killed processes, and every way in which a process with a buffer may end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from pathlib import Path

import pytest

from openai_lifecycle.eventslog.buffer import Buffer
from openai_lifecycle.eventslog.file import EventsFile
from openai_lifecycle.eventslog.reader import Damage, read_events
from openai_lifecycle.shield import SHIELD
from tests.eventslog import child
from tests.eventslog.logs import LOG, written
from tests.eventslog.samples import entry
from tests.limits import HANGS, until


# ------------------------------------------------------------------ kill -9
def kill(kills: int, durability: str) -> None:
    """Kill writing processes and read the log after every kill; ten leave their traces in one log."""
    torn = interrupted = 0
    with child.start("kills", kills=kills, durability=durability) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            for number in range(kills):
                returned = json.loads(process.stdout.readline())
                damage: list[Damage] = []
                found: dict[str, list[int]] = {f"{number}-0": [], f"{number}-1": []}
                log = Path(f"{number // 10}.log")
                if log.exists():
                    for event in read_events(log, on_damage=damage.append):
                        found.setdefault(event.model_id, []).append(getattr(event, "messages_count"))  # noqa: B009
                for thread, count in enumerate(returned):
                    numbers = found[f"{number}-{thread}"]
                    # One more may be there: its write had not returned yet.
                    assert numbers in (list(range(count)), list(range(count + 1)))
                    interrupted += len(numbers) - count
                torn += len(damage)
                assert len(damage) <= number % 10 + 1  # what a process leaves is at most one half of an entry
                process.stdin.write("\n")
                process.stdin.flush()
            assert process.wait(HANGS) == 0
        finally:
            process.kill()
    assert torn or interrupted, "no kill has hit a write"


@pytest.mark.parametrize("durability", ["write", "fsync"])
def test_killed_processes_lose_nothing_that_returned(durability: str) -> None:
    """After ``kill -9`` at 200 random instants every entry whose write had returned is there, and the log reads."""
    kill(200, durability)


# ------------------------------------------------------------------ buffered: every end of a process
@pytest.mark.parametrize(
    ("how", "status"),
    [
        ("end", 0),
        ("exception", 1),
        ("exit", 3),
        ("SIGTERM", -signal.SIGTERM),
        ("own handler", 7),
    ],
)
def test_a_process_that_ends_has_written_everything(how: str, status: int) -> None:
    """Buffered entries are written at the end, and on SIGTERM, whose effect stays what it was."""
    ended, _, err = child.run("buffered_exit", how=how, count=300)
    assert ended == status
    assert ("Error: the application failed" in err) == (how == "exception")
    assert written() == {"": list(range(300))}


def test_sigterm_while_entries_are_added() -> None:
    """SIGTERM in the middle of the work loses nothing of what was handed over before."""
    for number in range(5):
        log, count = Path(f"{number}.log"), Path(f"{number}.count")
        process = child.start("buffered_until_sigterm", log=str(log), count=str(count))
        until(lambda: count.exists() and count.stat().st_size >= 500)  # noqa: B023 - called at once
        process.terminate()
        assert process.communicate(timeout=HANGS) == ("", "")
        assert process.returncode == -signal.SIGTERM
        returned = count.stat().st_size
        assert written(log)[""] in (list(range(returned)), list(range(returned + 1)))


def test_sigterm_in_a_forked_child() -> None:
    """A forked child, which inherits the handler, writes its own entries and dies of the signal."""
    status, out, err = child.run("buffered_exit", how="SIGTERM in a child", count=100)
    assert (status, int(out), err) == (0, signal.SIGTERM, "")
    assert written() == {"": list(range(100)), "child": list(range(100))}


@pytest.mark.parametrize("how", ["exit", "SIGTERM"])
def test_one_that_fails_keeps_no_other_from_saving(how: str) -> None:
    """What one holder raises when the process ends, from a log handler perhaps, costs no other and not the ending."""
    program = f"""
import os, signal
from openai_lifecycle import ending
class Holder:
    def __init__(self, name): self.name = name
    def close(self):
        print(self.name, flush=True)
        raise RuntimeError
    def save(self, timeout): self.close()
    def is_interrupted(self): return False
held = [Holder(name) for name in "ab"]
for holder in held:
    ending.register(holder)
def first():
    print("first", flush=True)
    raise RuntimeError
ending.register_first(first)
if {how!r} == "SIGTERM":
    os.kill(os.getpid(), signal.SIGTERM)
"""
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=HANGS, check=False
    )
    assert ended.returncode == (0 if how == "exit" else -signal.SIGTERM), ended.stderr
    assert sorted(ended.stdout.split()) == ["a", "b", *(["first"] if how == "exit" else [])]


OUTLASTED = """
import multiprocessing, sys, threading
from openai_lifecycle import ending
may_end = threading.Event()
class Holder:
    def close(self):
        saving = threading.current_thread()
        print("saved", saving is threading.main_thread() or not saving.daemon, flush=True)
    def after_fork(self): pass
holder = Holder()
ending.register(holder)
def work():
    threading._register_atexit(may_end.set)  # runs when the child begins to wait for its threads
    threading.Thread(target=may_end.wait, daemon=False).start()
    if sys.argv[1] == "full":
        def start(self): raise RuntimeError("can't start new thread")
        threading.Thread.start = start
def fork():
    child = multiprocessing.get_context("fork").Process(target=work, daemon=False)
    child.start()
    child.join()
forking = threading.Thread(target=fork, daemon=sys.argv[1] == "daemon")
forking.start()
forking.join()
del holder  # the parent has nothing to save
"""


@pytest.mark.parametrize("how", ["daemon", "full"])
def test_what_waits_for_the_threads_of_a_child(how: str) -> None:
    """What a child saves once its threads have ended is saved though a daemon forked it, or no thread can be started."""
    command = [sys.executable, "-W", "ignore", "-c", OUTLASTED, how]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=HANGS, check=True)
    assert (ended.stdout, ended.stderr) == ("saved True\n", "")


WAITING = """
import os, signal, sys, threading
from collections import deque
from openai_lifecycle.eventslog.buffer import Buffer
other = Buffer(deque.clear)
def thread():
    thread = threading.Thread(target=other.flush, args=[None])
    thread.start()
    thread.join()
def child():
    child = os.fork()
    if not child:
        other.flush(None)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
def write(entries):
    os.kill(os.getpid(), signal.SIGTERM)
    globals()[sys.argv[1]]()
    entries.clear()
    print("written", flush=True)
buffer = Buffer(write)
buffer.close()
buffer.put(b"written by the thread that puts it, because the buffer is closed")
"""


@pytest.mark.parametrize("other", ["thread", "child"])
def test_sigterm_waits_for_what_it_interrupts(other: str) -> None:
    """Until the interrupted writing is done, another buffer that is flushed, in a thread or a child, does not act on it."""
    command = [sys.executable, "-c", WAITING, other]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=HANGS, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (-signal.SIGTERM, "written\n", "")


def test_an_application_s_handler_is_left_alone() -> None:
    """Where the application has a handler for SIGTERM, or ignores it, nothing is installed."""
    for handler in (signal.SIG_IGN, lambda *_: None):
        old = signal.signal(signal.SIGTERM, handler)
        try:
            file = EventsFile(child.options(durability="buffered"))
            file.write(entry(1))
            assert signal.getsignal(signal.SIGTERM) is handler
            file.close()
        finally:
            signal.signal(signal.SIGTERM, old)


# ------------------------------------------------------------------ buffered: the queue
def test_a_buffer_made_in_another_thread() -> None:
    """Where only another thread makes a buffer, which may set no handler of a signal, SIGTERM keeps its effect."""
    made: list[Buffer] = []
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        thread = threading.Thread(target=lambda: made.append(Buffer(deque.clear)))
        thread.start()
        thread.join(HANGS)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, before)
    assert made


def test_buffered_entries_arrive_by_themselves() -> None:
    """Without any flush an entry is in the file soon; the thread that writes it ends with ``close``."""
    file = EventsFile(child.options(durability="buffered"))
    file.write(entry(1))
    until(lambda: LOG.exists() and LOG.read_text(encoding="utf-8") == entry(1))
    assert file._buffer is not None
    thread = file._buffer._thread
    file.close()
    assert thread is not None
    thread.join(HANGS)
    assert not thread.is_alive()


def test_an_entry_after_sigterm_has_saved_all_is_written_at_once() -> None:
    """What another thread adds while the process waits for its other destinations is written before it goes on."""
    writers: list[int] = []

    def write(entries: deque[bytes]) -> None:
        writers.append(threading.get_ident())
        entries.clear()

    buffer = Buffer(write)
    buffer.put(b"1")
    buffer.save(HANGS)
    writers.clear()
    buffer.put(b"2")
    assert writers == [threading.get_ident()]
    buffer.close()


def test_a_write_that_fails_is_made_up_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """When a write raises, the next one has the same entries, and the thread goes on with what comes later."""
    monkeypatch.setattr(SHIELD, "reraise", False)
    failed, came = threading.Event(), threading.Event()
    done: list[bytes] = []

    def write(entries: deque[bytes]) -> None:
        if not failed.is_set():
            failed.set()
            raise RuntimeError
        done.extend(entries)
        entries.clear()
        came.set()

    buffer = Buffer(write)
    buffer.put(b"1")
    assert failed.wait(HANGS)
    assert buffer.flush(HANGS)
    assert done == [b"1"]
    came.clear()
    buffer.put(b"2")
    assert came.wait(HANGS)
    assert done == [b"1", b"2"]
    buffer.close()


def test_buffered_entries_are_written_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was queued goes to the file in few writes, each of whole entries."""
    file = EventsFile(child.options(durability="buffered"))
    assert file._buffer is not None
    sizes: list[int] = []
    write = os.write
    with file._buffer._lock:
        for number in range(500):
            file.write(entry(number))

    def spy(descriptor: int, data: bytes) -> int:
        sizes.append(len(data))
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", spy)
    assert file.flush(HANGS)
    assert len(sizes) <= 5
    assert written() == {"": list(range(500))}
    file.close()


def test_a_full_queue_delays_and_drops_nothing() -> None:
    """When the file is slower than the application the queue stays bounded and the application waits."""
    released = threading.Event()
    done: list[bytes] = []
    longest = 0

    def write_slowly(entries: deque[bytes]) -> None:
        released.wait(HANGS)
        done.extend(entries)
        entries.clear()

    buffer = Buffer(write_slowly)

    def put_many() -> None:
        nonlocal longest
        for number in range(20_000):
            buffer.put(b"%d" % number)
            longest = max(longest, len(buffer._entries))

    thread = threading.Thread(target=put_many, daemon=True)
    thread.start()
    # It waits for the thread that writes, or writes itself, where that thread was too slow to begin.
    until(lambda: len(buffer._entries) > 4096 or buffer._writer == thread.ident)
    released.set()
    thread.join(HANGS)
    assert buffer.flush(HANGS)
    buffer.close()
    assert done == [b"%d" % number for number in range(20_000)]
    assert longest <= 4097


def test_flush_gives_up_when_asked_to() -> None:
    """A file system that does not answer holds ``flush`` no longer than its timeout."""
    released = threading.Event()
    entered = threading.Event()

    def hang(entries: deque[bytes]) -> None:
        entered.set()
        released.wait(HANGS)
        entries.clear()

    buffer = Buffer(hang)
    buffer.put(b"1")
    assert entered.wait(HANGS)
    assert not buffer.flush(0.01)
    released.set()
    assert buffer.flush(HANGS)
    buffer.close()


def test_no_thread_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system gives no thread, entries are written by those who add them."""

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    file = EventsFile(child.options(durability="buffered"))
    for number in range(3):
        file.write(entry(number))
        assert written() == {"": list(range(number + 1))}
    file.close()
