"""Applications whose threads gevent replaces, each in a process of its own."""

from __future__ import annotations

import signal
from collections import Counter
from pathlib import Path

import pytest

from openai_lifecycle.eventslog.reader import read_events
from tests.test_setup import INSTRUMENT, start

pytest.importorskip("gevent")


def printed(program: str, *command: str, **environment: str) -> str:
    """Run ``program`` under ``command`` and return what it prints."""
    done = start(program, *command, OPENAI_API_KEY="sk-test-0123456789", **environment)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


SUBPROCESSES = """
import os
depth = [0]
def deeper():
    depth[0] += 1
    if depth[0] > 1:
        os.write(2, b"a child has run on and forked")
        os._exit(77)
os.register_at_fork(after_in_child=deeper)
from gevent import monkey; monkey.patch_all()
{first}
import gevent, openai, subprocess
openai.OpenAI()
jobs = [gevent.spawn(subprocess.check_output, ["echo", str(n)]) for n in range(4)]
gevent.joinall(jobs)
print([job.value for job in jobs])
"""


@pytest.mark.parametrize(
    ("first", "command"),
    [("import openai_lifecycle; openai_lifecycle.instrument()", []), ("", [INSTRUMENT])],
    ids=["instrument", "opentelemetry-instrument"],
)
def test_a_forked_child_runs_no_other_greenlets(first: str, command: list[str]) -> None:
    """Programs that greenlets start run once each: nothing waits between a child's fork and its exec."""
    lines = printed(SUBPROCESSES.format(first=first), *command).splitlines()
    assert lines[-1] == r"[b'0\n', b'1\n', b'2\n', b'3\n']"


LATER = """
import openai_lifecycle
openai_lifecycle.instrument(sinks=["jsonl:out.jsonl"])
from gevent import monkey; monkey.patch_all()
import openai
openai.OpenAI()
openai.OpenAI()
"""


@pytest.mark.parametrize("durability", ["write", "buffered"])
def test_threads_may_be_replaced_after_instrumenting(durability: str) -> None:
    """Queues made for threads are not waited for by greenlets: nothing hangs, and file and sink get everything."""
    printed(LATER, OTEL_PYTHON_OPENAI_LIFECYCLE_DURABILITY=durability)
    tags = Counter(event.tag for event in read_events("events.log"))
    assert tags == {"INIT_START": 2, "INIT_SUCCESS": 2}
    assert len(Path("out.jsonl").read_text(encoding="ascii").splitlines()) == 4


INTERRUPTED = """
from gevent import monkey; monkey.patch_all()
import gevent, os, signal
from openai_lifecycle.eventslog.buffer import Buffer
def write(entries):
    os.kill(os.getpid(), signal.SIGTERM)
    entries.clear()
buffer = Buffer(write)
gevent.spawn(buffer.put, b"an entry").join()
os._exit(1)
"""


def test_sigterm_while_a_greenlet_writes() -> None:
    """SIGTERM that interrupts a greenlet in its writing has its effect when that is done."""
    done = start(INTERRUPTED)
    assert (done.returncode, done.stderr) == (-signal.SIGTERM, "")
