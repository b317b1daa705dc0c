"""The dispatcher: no sink delays the application or another sink, and what is lost is counted."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import multiprocessing.util
import random
import signal
import sqlite3
import threading
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.instrumentation.utils import is_instrumentation_enabled

from openai_lifecycle import records
from openai_lifecycle.events import LifecycleEvent
from openai_lifecycle.shield import SHIELD
from openai_lifecycle.sinks import Destination, Rejected, SinkError, Unavailable, dispatch
from tests import generated
from tests.limits import HANGS
from tests.raising_handler import Raises
from tests.sinks.conftest import EVENTS, Dispatch, Sink, run


def put(dispatching: dispatch.Dispatcher, events: Sequence[LifecycleEvent]) -> None:
    """Hand over ``events`` one by one; no sink's thread takes any before the last, so that they are one batch."""
    with contextlib.ExitStack() as stack:
        for worker in dispatching._workers:
            stack.enter_context(worker._changed)
        for event in events:
            dispatching.put(event)


def test_every_sink_gets_every_event_in_order(dispatcher: Dispatch) -> None:
    """After a flush each sink has all events, once and in order, and was flushed."""
    sinks = Sink(), Sink()
    dispatching = dispatcher(a=sinks[0], b=sinks[1])
    put(dispatching, EVENTS)
    assert dispatching.flush(HANGS)
    for sink in sinks:
        assert sink.taken == EVENTS
        assert sink.calls[-1] == "flush"
    dispatching.close()
    for sink in sinks:
        assert sink.calls[-2:] == ["flush", "close"]
    assert dispatcher.lost() == {}


def test_a_hanging_sink_delays_nobody(dispatcher: Dispatch, caplog: pytest.LogCaptureFixture) -> None:
    """While one sink hangs, the other has everything; closing gives up on it, and counts what it held."""
    release = threading.Event()
    hanging, sound = Sink(release.wait), Sink()  # type: ignore[arg-type]
    dispatching = dispatcher(hanging=hanging, sound=sound)
    put(dispatching, EVENTS[:1])
    assert hanging.arrived.wait(HANGS)
    put(dispatching, EVENTS[1:])
    assert not dispatching.flush(0.01)
    assert sound.flushed.wait(HANGS)
    assert sound.taken == EVENTS
    dispatching.close(0.1)
    assert dispatcher.lost() == {"hanging": len(EVENTS)}
    (line,) = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert line == f"sink hanging: {len(EVENTS)} events lost: time was up"
    release.set()


@pytest.mark.parametrize("fails", [False, True], ids=["and then succeeds", "and then fails"])
def test_a_sink_that_hung_gets_what_comes_later(dispatcher: Dispatch, *, fails: bool) -> None:
    """After a hanging sink was given up, what comes later is not lost if it goes on; what it had counts once."""
    release, hangs = threading.Event(), threading.Event()
    failures = [Rejected("too late")] if fails else []

    def hang() -> None:
        mine = failures.pop() if failures else None  # that of the first write
        hangs.set()
        release.wait()
        if mine is not None:
            raise mine

    hanging = Sink(hang)
    dispatching = dispatcher(hanging=hanging)
    put(dispatching, EVENTS[:1])
    assert hangs.wait(HANGS)
    dispatching.close(0.01)
    (old,) = [thread for thread in threading.enumerate() if thread.name == "sink hanging"]
    put(dispatching, EVENTS[1:])
    release.set()
    assert dispatching.flush(HANGS)
    old.join(HANGS)
    assert dispatching.flush(HANGS)
    assert dispatcher.lost() == {"hanging": 1}
    late = [] if fails else EVENTS[:1]
    assert hanging.taken in (late + EVENTS[1:], EVENTS[1:] + late)


@pytest.mark.parametrize(("where", "lost"), [("open", 1), ("write", 1), ("flush", 0)])
def test_a_sink_that_hung_is_used_by_one_thread(
    dispatcher: Dispatch, monkeypatch: pytest.MonkeyPatch, where: str, lost: int
) -> None:
    """A sink that goes on after it was given up is opened once and used by its thread alone; no close waits again."""
    release, hangs = threading.Event(), threading.Event()
    opened: list[Traced] = []
    users: set[threading.Thread] = set()

    def use(what: str) -> None:
        users.add(threading.current_thread())
        if what == where and not hangs.is_set():
            hangs.set()
            release.wait()

    class Traced(Sink):
        def flush(self) -> None:
            use("flush")

        def close(self) -> None:
            use("close")

    def open_sink() -> Traced:
        use("open")
        opened.append(Traced(lambda: use("write")))
        return opened[-1]

    dispatching = dispatch.Dispatcher([Destination("hanging", open_sink)], dispatcher.meters)
    dispatching.put(EVENTS[0])
    dispatching.flush(0)
    assert hangs.wait(HANGS)
    dispatching.close(0.01)
    waits: list[object] = []
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "join", lambda *given: waits.append(given))
        dispatching.close(HANGS)
    assert waits == []
    assert dispatching.flush(HANGS)
    dispatching.put(EVENTS[1])
    release.set()
    dispatching.flush(HANGS)
    dispatching.close(HANGS)
    (sink,) = opened
    assert sink.taken == EVENTS[:2]
    assert len(users) == 1
    assert sum(dispatcher.lost().values()) == lost


def test_only_what_was_there_is_given_up(dispatcher: Dispatch, monkeypatch: pytest.MonkeyPatch) -> None:
    """An event that is put after a thread was given up is not lost, also if the thread was waiting for more."""
    monkeypatch.setattr(dispatch, "_LINGER", HANGS)
    sink, lingers = Sink(), threading.Event()
    dispatching = dispatcher(sink=sink)
    changed = dispatching._workers[0]._changed
    wait_for = changed.wait_for

    def spy(predicate: Callable[[], Any], timeout: float | None = None) -> Any:
        if timeout == HANGS:
            lingers.set()
        return wait_for(predicate, timeout)

    monkeypatch.setattr(changed, "wait_for", spy)
    dispatching.put(EVENTS[0])
    assert lingers.wait(HANGS)
    with changed:  # the thread does not go on before both events are where they belong
        dispatching.close(0)
        dispatching.put(EVENTS[1])
    assert dispatching.flush(HANGS)
    assert sink.taken == EVENTS[1:2]
    assert dispatcher.lost() == {"sink": 1}


def test_a_sink_that_fails_is_tried_again(dispatcher: Dispatch) -> None:
    """What a sink did not take comes again until it does, in order, and nothing is lost."""
    failures = iter([OSError("no"), Unavailable("busy", 0.001), ValueError("what?")])

    def fail() -> None:
        error = next(failures, None)
        if error is not None:
            raise error

    sink = Sink(fail)
    dispatching = dispatcher(sink=sink)
    put(dispatching, EVENTS)
    assert dispatching.flush(HANGS)
    assert sink.taken == EVENTS
    assert sink.calls.count("write") == 4
    assert dispatcher.lost() == {}


def test_pauses_grow_or_are_as_long_as_asked_for(
    dispatcher: Dispatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before each try the pause doubles, up to half a minute, or is what the sink asks for; chance makes it longer.

    The chance is not that of ``random``, which the application may have seeded.
    """
    errors = iter([OSError(), OSError(), OSError(), Unavailable("busy", 100), OSError()])
    pauses: list[float] = []

    def fail() -> None:
        for error in errors:
            raise error

    monkeypatch.setattr(dispatch, "_FIRST_PAUSE", 10.0)
    monkeypatch.setattr(dispatch._Worker, "_pause", lambda _, seconds: pauses.append(seconds))
    dispatching = dispatcher(sink=Sink(fail))
    state = random.getstate()
    put(dispatching, EVENTS)
    assert dispatching.flush(HANGS)
    assert random.getstate() == state
    expected = [10, 20, 30, 100, 30]
    assert all(least <= pause <= 1.4 * least for least, pause in zip(expected, pauses, strict=True))


def test_nothing_of_a_failed_try_is_kept(dispatcher: Dispatch, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a sink is left alone after it has failed, what it had in hand then, such as a connection, is freed."""
    had: list[weakref.ref[Sink]] = []
    kept: list[Sink | None] = []

    def fail() -> None:
        if not had:
            connection = Sink()
            had.append(weakref.ref(connection))
            raise OSError

    monkeypatch.setattr(dispatch._Worker, "_pause", lambda *_: kept.append(had[0]()))
    dispatching = dispatcher(sink=Sink(fail))
    put(dispatching, EVENTS)
    assert dispatching.flush(HANGS)
    assert kept == [None]


@pytest.mark.parametrize("error", [asyncio.CancelledError, SystemExit])
def test_a_sink_that_raises_what_is_no_exception(dispatcher: Dispatch, error: type[BaseException]) -> None:
    """Whatever a sink raises, it is tried again, and its thread goes on."""
    sink = Sink(lambda: fail() if len(sink.calls) == 1 else None)

    def fail() -> None:
        raise error

    dispatching = dispatcher(sink=sink)
    put(dispatching, EVENTS)
    assert dispatching.flush(HANGS)
    assert sink.taken == EVENTS


class Unprepared(Rejected):
    """Lacks what ``Rejected`` sets."""

    def __init__(self) -> None:
        pass


@pytest.mark.parametrize("error", [Unprepared(), Unavailable("busy", "soon")])  # type: ignore[arg-type]
def test_a_sink_that_raises_an_error_of_ours_in_a_wrong_way(
    dispatcher: Dispatch, monkeypatch: pytest.MonkeyPatch, error: SinkError
) -> None:
    """An error that lacks what ours have, or has it as another type, is like any other: the sink is tried again."""

    def fail() -> None:
        if len(sink.calls) == 1:
            raise error

    monkeypatch.setattr(SHIELD, "reraise", False)
    sink = Sink(fail)
    dispatching = dispatcher(sink=sink)
    put(dispatching, EVENTS)
    assert dispatching.flush(HANGS)
    assert sink.taken == EVENTS


def test_what_a_sink_refuses_is_lost_at_once(dispatcher: Dispatch, caplog: pytest.LogCaptureFixture) -> None:
    """Events that the sink rejects are not tried again; they are counted, reported once, and the next are tried."""

    class Refusing(Sink):
        def write(self, events: Sequence[LifecycleEvent]) -> None:
            if any(event in EVENTS[:5] for event in events):
                raise Rejected("too sad")
            super().write(events)

    sink = Refusing()
    dispatching = dispatcher(sink=sink)
    for part in (EVENTS[:2], EVENTS[2:5], EVENTS[5:]):
        put(dispatching, part)
        assert dispatching.flush(HANGS)
    assert sink.taken == EVENTS[5:]
    assert dispatcher.lost() == {"sink": 5}
    assert [record.getMessage() for record in caplog.records] == ["sink sink: 1 event lost: too sad"]
    dispatching.close()
    assert caplog.records[-1].getMessage() == "sink sink: 4 events lost: too sad"


def test_what_is_lost_while_another_sink_is_closed_is_reported(
    dispatcher: Dispatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Of a sink whose thread has ended before its turn to be closed comes, the last losses are reported too."""

    class Slow(Sink):
        def close(self) -> None:
            next(thread for thread in threads if thread.name == "sink refusing").join(HANGS)

    def refuse() -> None:
        raise Rejected("too sad")

    dispatching = dispatcher(slow=Slow(), refusing=Sink(refuse))
    for part in (EVENTS[:1], EVENTS[1:3]):
        put(dispatching, part)
        assert dispatching.flush(HANGS)
    threads = threading.enumerate()
    dispatching.close()
    assert [record.getMessage() for record in caplog.records] == [
        "sink refusing: 1 event lost: too sad",
        "sink refusing: 2 events lost: too sad",
    ]


def test_a_refused_batch_is_delivered_without_the_event_that_is_refused(dispatcher: Dispatch) -> None:
    """One event that the sink rejects costs none of those beside it, which keep their order."""

    class Refusing(Sink):
        def write(self, events: Sequence[LifecycleEvent]) -> None:
            if EVENTS[7] in events:
                raise Rejected("too sad")
            super().write(events)

    sink = Refusing()
    dispatching = dispatcher(sink=sink)
    put(dispatching, EVENTS)
    assert dispatching.flush(HANGS)
    assert sink.taken == [*EVENTS[:7], *EVENTS[8:]]
    assert dispatcher.lost() == {"sink": 1}


def test_what_a_sink_refuses_for_good_is_not_divided(dispatcher: Dispatch) -> None:
    """A sink that would reject any events, for want of a permission, is asked once for each batch."""

    def fail() -> None:
        raise Rejected("who are you?", permanent=True)

    sink = Sink(fail)
    dispatching = dispatcher(sink=sink)
    put(dispatching, EVENTS)
    assert dispatching.flush(HANGS)
    assert sink.calls.count("write") == 1
    assert dispatcher.lost() == {"sink": len(EVENTS)}


def test_a_sink_that_fails_for_too_long_is_given_up(
    dispatcher: Dispatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch that cannot be delivered within the patience is lost, so that it does not block the next for ever."""
    monkeypatch.setattr(dispatch, "_PATIENCE", 0.02)

    def fail() -> None:
        raise OSError

    dispatching = dispatcher(sink=Sink(fail))
    put(dispatching, EVENTS)
    assert dispatching.flush(HANGS)
    assert dispatcher.lost() == {"sink": len(EVENTS)}


def test_a_full_queue_loses_what_comes_and_never_blocks(
    dispatcher: Dispatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What exceeds the queue is counted as lost; what was queued first is delivered."""
    monkeypatch.setattr(dispatch, "QUEUE", 5)
    release = threading.Event()
    sink = Sink(release.wait)  # type: ignore[arg-type]
    dispatching = dispatcher(sink=sink)
    put(dispatching, EVENTS[:1])
    assert sink.arrived.wait(HANGS)
    put(dispatching, EVENTS[1:])
    assert dispatcher.lost() == {"sink": len(EVENTS) - 5}
    release.set()
    assert dispatching.flush(HANGS)
    assert sink.taken == EVENTS[:5]


def test_a_report_quotes_nothing(dispatcher: Dispatch, caplog: pytest.LogCaptureFixture) -> None:
    """Of an error that is not ours only the type is logged: its text may hold a prompt or a password."""

    def fail() -> None:
        raise RuntimeError("the prompt was: hello")

    dispatching = dispatcher(sink=Sink(fail))
    put(dispatching, EVENTS)
    dispatching.close(5)
    assert "RuntimeError" in caplog.text
    assert "hello" not in caplog.text


def test_flush_and_close_may_fail(dispatcher: Dispatch, caplog: pytest.LogCaptureFixture) -> None:
    """A sink whose ``flush`` and ``close`` raise is one warning each, and delivery goes on."""

    class Broken(Sink):
        def flush(self) -> None:
            raise SinkError("cannot flush")

        def close(self) -> None:
            raise SinkError("cannot close")

    sink = Broken()
    dispatching = dispatcher(sink=sink)
    put(dispatching, EVENTS)
    assert dispatching.flush(HANGS)
    dispatching.close()
    assert sink.taken == EVENTS
    assert "flush failed: cannot flush" in caplog.text
    assert "close failed: cannot close" in caplog.text


@pytest.mark.parametrize(("broken", "lost"), [("log handler", {"sink": 1}), ("meter", {})])
def test_a_loss_that_cannot_be_told_stops_no_sink(
    dispatcher: Dispatch, monkeypatch: pytest.MonkeyPatch, broken: str, lost: dict[str, int]
) -> None:
    """When a loss can be neither counted nor logged, nor a flush that failed, the sink gets what comes next."""

    class Moody(Sink):
        def flush(self) -> None:
            super().flush()
            raise OSError

    def refuse() -> None:
        if len(sink.calls) == 1:
            raise Rejected("no")

    def no_meter(*_: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(SHIELD, "reraise", False)
    if broken == "meter":
        monkeypatch.setattr(dispatcher.meters, "get_meter", no_meter)
    else:
        monkeypatch.setattr(logging.getLogger("openai_lifecycle"), "handlers", [Raises()])
    sink = Moody(refuse)
    dispatching = dispatcher(sink=sink)
    for event in EVENTS[:2]:
        put(dispatching, [event])
        assert dispatching.flush(HANGS)
    assert sink.taken == EVENTS[1:2]
    assert dispatcher.lost() == lost


def test_a_closed_dispatcher_opens_again(dispatcher: Dispatch) -> None:
    """Events that are put after ``close`` are delivered by a sink that is opened again."""
    sink = Sink()
    dispatching = dispatcher(sink=sink)
    for part in (EVENTS[:5], EVENTS[5:]):
        put(dispatching, part)
        dispatching.close()
    assert sink.taken == EVENTS


def test_what_comes_while_a_sink_is_closed_is_delivered(dispatcher: Dispatch) -> None:
    """An event that is put after the last look at the queue is not left in it when the thread ends."""

    class Flushing(Sink):
        def flush(self) -> None:
            if self.calls.count("flush") == 0:
                dispatching.put(EVENTS[1])
            super().flush()

    sink = Flushing()
    dispatching = dispatcher(sink=sink)
    put(dispatching, EVENTS[:1])
    dispatching.close(HANGS)
    assert sink.taken == EVENTS[:2]


def test_a_sink_is_closed_also_if_that_is_asked_while_it_is_flushed(dispatcher: Dispatch) -> None:
    """A thread that is asked to end while it flushes the sink for somebody else does not end before it has closed it."""
    flushing, release = threading.Event(), threading.Event()

    class Slow(Sink):
        def flush(self) -> None:
            super().flush()
            flushing.set()
            release.wait()

    sink = Slow()
    dispatching = dispatcher(sink=sink)
    dispatching.put(EVENTS[0])
    dispatching.flush(0)
    assert flushing.wait(HANGS)
    dispatching._workers[0].stop()
    release.set()
    dispatching.close(HANGS)
    assert sink.calls[0] == "write"
    assert sink.calls[-1] == "close"


def test_without_a_thread_each_event_is_counted_once(
    dispatcher: Dispatch, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """When no thread can be started, as at the end of the interpreter, events are lost, counted and told."""

    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    sink = Sink()
    dispatching = dispatcher(sink=sink)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        for event in EVENTS[:3]:
            dispatching.put(event)
        assert dispatching.flush(0)
    assert dispatcher.lost() == {"sink": 3}
    assert "the process is ending" in caplog.text
    dispatching.put(EVENTS[3])
    assert dispatching.flush(HANGS)
    assert sink.taken == EVENTS[3:4]


def test_a_sink_s_own_calls_are_not_instrumented(dispatcher: Dispatch) -> None:
    """What a sink does is no work of the application: instrumentation is suppressed in its thread."""
    seen: list[bool] = []
    dispatching = dispatcher(sink=Sink(lambda: seen.append(is_instrumentation_enabled())))
    put(dispatching, EVENTS)
    assert dispatching.flush(HANGS)
    assert seen == [False]


def test_nothing_to_do_is_done_at_once(dispatcher: Dispatch) -> None:
    """Flushing and closing what never got an event starts no thread and succeeds."""
    dispatching = dispatcher(sink=Sink())
    assert dispatching.flush(0)
    dispatching.close()


# ------------------------------------------------------------------ processes
def delivered(folder: Path) -> list[str]:
    """Return the lines that a program has written to ``out.jsonl``."""
    return (folder / "out.jsonl").read_text().splitlines()


FORKING = """
import os, sys
from tests import generated
from openai_lifecycle.sinks import destinations
from openai_lifecycle.sinks.dispatch import Dispatcher
events = list(generated.events(40))
dispatching = Dispatcher(destinations(["jsonl:out.jsonl", "sqlite:///out.db"]))
for event in events[:10]:
    dispatching.put(event)
if len(sys.argv) > 1:
    dispatching.flush(60)
for event in events[10:20]:
    dispatching.put(event)
child = os.fork()
for event in events[20:30] if child else events[30:]:
    dispatching.put(event)
if child:
    assert os.waitpid(child, 0)[1] == 0
dispatching.close(60)  # at exit it would have five seconds
if not child:
    os._exit(0)
"""


@pytest.mark.parametrize("arguments", [[], ["flushed"]], ids=["with a queue", "with open connections"])
def test_a_fork_doubles_and_loses_nothing(tmp_path: Path, arguments: list[str]) -> None:
    """A child writes its own events with connections of its own; its parent's are written by the parent alone."""
    run(FORKING, tmp_path, *arguments)
    expected = sorted(map(records.to_json, generated.events(40)))
    assert sorted(delivered(tmp_path)) == expected
    with contextlib.closing(sqlite3.connect(tmp_path / "out.db")) as database:
        rows = database.execute("SELECT entry FROM openai_lifecycle_events ORDER BY entry").fetchall()
    assert [row[0] for row in rows] == expected


OPENING = """
import gc, os
from tests import generated
from openai_lifecycle.sinks import Destination
from openai_lifecycle.sinks.dispatch import Dispatcher

def note(what):
    with open("notes", "a") as file:
        print(what, file=file)

class Sink:
    def __init__(self): self.opened_by = os.getpid()
    def write(self, events): note("own" if self.opened_by == os.getpid() else "inherited")
    def flush(self): pass
    def close(self): pass
    def __del__(self):
        if self.opened_by != os.getpid():
            note("dropped")

(event,) = generated.events(1)
dispatching = Dispatcher([Destination("sink", Sink)])
dispatching.put(event)
dispatching.flush(60)
child = os.fork()
dispatching.put(event)
dispatching.flush(60)
gc.collect()
if not child:
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
"""


def test_a_child_opens_a_sink_and_keeps_that_of_its_parent(tmp_path: Path) -> None:
    """A child writes to a sink of its own, and does not drop its parent's, which would end a shared connection."""
    run(OPENING, tmp_path)
    assert (tmp_path / "notes").read_text().split() == ["own"] * 3


ENDING = """
from tests import generated
from openai_lifecycle.sinks import Destination, destinations
from openai_lifecycle.sinks.dispatch import Dispatcher
import threading, time
class Hanging:
    def write(self, events): time.sleep(600)
    def flush(self): pass
    def close(self): pass
dispatching = Dispatcher([*destinations(["jsonl:out.jsonl"]), Destination("hanging", Hanging)])
for event in generated.events(20):
    dispatching.put(event)
"""


def test_at_exit_all_is_written_within_a_deadline(tmp_path: Path) -> None:
    """A program that just ends has its events written, and a sink that hangs does not keep it."""
    ended = run(ENDING, tmp_path)
    assert delivered(tmp_path) == list(map(records.to_json, EVENTS))
    assert f"sink hanging: {len(EVENTS)} events lost: time was up" in ended.stderr


CHILDREN = """
import multiprocessing, sys
from tests import generated
from openai_lifecycle.sinks import destinations
from openai_lifecycle.sinks.dispatch import Dispatcher
def make():
    global dispatching
    dispatching = Dispatcher(destinations(["jsonl:out.jsonl"]))
if sys.argv[2] == "by the main module":
    make()
def work(number):
    if sys.argv[2] == "by the child":
        make()
    for event in generated.events(20, seed=number):
        dispatching.put(event)
if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    children = [context.Process(target=work, args=(number,)) for number in range(3)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0, 0, 0]
"""


@pytest.mark.parametrize("made", ["by the main module", "by the child"])
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_children_of_multiprocessing_deliver_what_they_have(tmp_path: Path, method: str, made: str) -> None:
    """A child of ``multiprocessing``, which ends without an exit of the interpreter, loses nothing."""
    (tmp_path / "children.py").write_text(CHILDREN, encoding="utf-8")
    run("children.py", tmp_path, method, made, as_file=True)
    expected = [records.to_json(event) for seed in range(3) for event in generated.events(20, seed=seed)]
    assert sorted(delivered(tmp_path)) == sorted(expected)


FINALIZERS = """
from multiprocessing import get_context, util
from tests import generated
from openai_lifecycle.sinks import destinations
from openai_lifecycle.sinks.dispatch import Dispatcher
dispatching = Dispatcher(destinations(["jsonl:out.jsonl"]))
def work():
    util.Finalize(None, dispatching.put, args=generated.events(1), exitpriority=-1)
child = get_context("fork").Process(target=work)
child.start()
child.join()
"""


def test_what_the_finalizers_of_a_child_do_is_delivered(tmp_path: Path) -> None:
    """An event of what the application has ``multiprocessing`` do at the end of a child is not lost."""
    run(FINALIZERS, tmp_path)
    (event,) = generated.events(1)
    assert (tmp_path / "out.jsonl").read_text() == f"{records.to_json(event)}\n"


def test_hooks_of_children_do_not_pile_up() -> None:
    """However many dispatchers an application makes, a child has one thing to do when it starts and one when it ends."""

    def hooks() -> int:
        return len(multiprocessing.util._afterfork_registry) + len(multiprocessing.util._finalizer_registry)  # type: ignore[attr-defined]

    dispatch.Dispatcher([])
    before = hooks()
    dispatch.Dispatcher([])
    assert hooks() == before


TERMINATED = """
import os, signal, sys, threading
from tests import generated
from openai_lifecycle.sinks import destinations
from openai_lifecycle.sinks.dispatch import Dispatcher
if len(sys.argv) > 1:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
dispatching = Dispatcher(destinations(["jsonl:out.jsonl"]))
for event in generated.events(20):
    dispatching.put(event)
os.kill(os.getpid(), signal.SIGTERM)
threading.Event().wait(60)
"""


@pytest.mark.parametrize(("arguments", "status"), [([], -signal.SIGTERM), (["own handler"], 7)])
def test_sigterm_loses_nothing(tmp_path: Path, arguments: list[str], status: int) -> None:
    """On SIGTERM what waits is delivered, and the effect of the signal stays what it was."""
    run(TERMINATED, tmp_path, *arguments, status=status)
    assert delivered(tmp_path) == list(map(records.to_json, EVENTS))


INTERRUPTED = """
import os, signal, threading
from collections import deque
from tests import generated
from openai_lifecycle.sinks import destinations
from openai_lifecycle.sinks.dispatch import Dispatcher
class Queue(deque):
    def append(self, event):
        super().append(event)
        if len(self) == len(events):
            os.kill(os.getpid(), signal.SIGTERM)
events = list(generated.events(20))
dispatching = Dispatcher(destinations(["jsonl:out.jsonl"]))
(worker,) = dispatching._workers
worker._queue = Queue()
for event in events:
    dispatching.put(event)
threading.Event().wait(60)
"""


def test_sigterm_while_an_event_is_put(tmp_path: Path) -> None:
    """SIGTERM that strikes while an event is queued waits for that, and what waits is delivered."""
    ended = run(INTERRUPTED, tmp_path, status=-signal.SIGTERM)
    assert delivered(tmp_path) == list(map(records.to_json, EVENTS))
    assert ended.stderr == ""


WAITING = """
import logging, os, signal, threading
from tests import generated
from openai_lifecycle.sinks import Unavailable, destinations
from openai_lifecycle.sinks.dispatch import Dispatcher
logging.basicConfig()
class Later:
    tried = threading.Event()
    def write(self, events):
        with open("out.txt", "a") as file:
            print(len(events), file=file)
        self.tried.set()
        raise Unavailable("not now", after=600)
    def flush(self): pass
    def close(self): pass
dispatching = Dispatcher(destinations([Later()]))
dispatching.put(next(generated.events(1)))
Later.tried.wait(60)
os.kill(os.getpid(), signal.SIGTERM)
threading.Event().wait(60)
"""


def test_sigterm_does_not_wait_for_the_next_try(tmp_path: Path) -> None:
    """On SIGTERM a batch that waits for its next try has it at once, and what fails again is reported as lost."""
    ended = run(WAITING, tmp_path, status=-signal.SIGTERM)
    assert (tmp_path / "out.txt").read_text() == "1\n1\n"
    assert "sink Later: 1 event lost: not now" in ended.stderr
