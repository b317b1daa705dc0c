"""What the tests let processes of their own do: ``python -m tests.eventslog.child ROLE [JSON]``.

A process of its own may be killed, may lose its standard streams or its privileges, and starts with one thread.
"""

from __future__ import annotations

import contextlib
import gc
import json
import multiprocessing
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from mmap import mmap
from pathlib import Path
from typing import Any

from openai_lifecycle.eventslog import file as log_file
from openai_lifecycle.eventslog import locks
from openai_lifecycle.eventslog.file import EventsFile
from openai_lifecycle.options import Options, read
from tests.eventslog.samples import entry
from tests.limits import HANGS

ROOT = Path(__file__).parents[2]


def start(role: str, **arguments: Any) -> subprocess.Popen[str]:
    """Start a process that plays ``role``; its output is piped."""
    return subprocess.Popen(
        # Newer versions of Python warn of a fork beside threads, which is what is tested here.
        [
            *(sys.executable, "-W", "ignore::DeprecationWarning"),
            *("-m", "tests.eventslog.child", role, json.dumps(arguments)),
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(role: str, **arguments: Any) -> tuple[int, str, str]:
    """Let a process play ``role`` to its end; returns exit status, standard output and standard error."""
    with start(role, **arguments) as process:
        try:
            out, err = process.communicate(timeout=HANGS)
        except BaseException:
            process.kill()
            raise
        return process.returncode, out, err


def options(**values: Any) -> Options:
    return read({"events_log": "events.log", **values}, {})


def write_many(file: EventsFile, writer: str, count: int) -> None:
    for number in range(count):
        file.write(entry(number, writer))


# ------------------------------------------------------------------ roles
def threads(writer: str, count: int, threads: int, **values: Any) -> None:
    """Several threads write at once."""
    file = EventsFile(options(**values))
    running = [
        threading.Thread(target=write_many, args=(file, f"{writer}-{number}", count))
        for number in range(threads)
    ]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    file.close()


def forks(children: int, count: int, **values: Any) -> None:
    """While two threads write, the main thread forks, and every child writes with the inherited file."""
    file = EventsFile(options(**values))
    done = threading.Event()
    written = [0, 0]

    def write_on(index: int) -> None:
        while not done.is_set():
            file.write(entry(written[index], f"parent-{index}"))
            written[index] += 1

    running = [threading.Thread(target=write_on, args=(index,)) for index in (0, 1)]
    for thread in running:
        thread.start()
    pids = []
    for child in range(children):
        pid = os.fork()
        if pid == 0:
            write_many(file, f"child-{child}", count)
            file.close()
            os._exit(0)
        pids.append(pid)
    statuses = [os.waitpid(pid, 0)[1] for pid in pids]
    done.set()
    for thread in running:
        thread.join()
    file.close()
    print(json.dumps({"written": written, "statuses": statuses}))


def forks_while_moving() -> None:
    """Fork while files are moved; say whether the parent can get the lock while the child lives."""
    with locks.locked_directory_of("events.log", locks.EXCLUSIVE):
        pid = os.fork()
        if pid == 0:
            signal.pause()
    with locks.locked_directory_of("events.log", locks.EXCLUSIVE, 0) as held:
        print(held)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


_file: EventsFile | None = None


def _inherited(writer: str, count: int) -> None:
    assert _file is not None
    write_many(_file, writer, count)


def _own(writer: str, count: int, values: Mapping[str, Any]) -> None:
    write_many(EventsFile(options(**values)), writer, count)


def processes(method: str, children: int, count: int, **values: Any) -> None:
    """Children of ``multiprocessing`` write and end as its children do, without shutting anything down."""
    global _file
    context: Any = multiprocessing.get_context(method)
    if method == "fork":
        _file = EventsFile(options(**values))
        _file.write(entry(0, "parent"))
        running = [context.Process(target=_inherited, args=(f"{n}", count)) for n in range(children)]
    else:
        running = [context.Process(target=_own, args=(f"{n}", count, values)) for n in range(children)]
    for process in running:
        process.start()
    for process in running:
        process.join()
    assert all(process.exitcode == 0 for process in running)


def finalizers(count: int, **values: Any) -> None:
    """Garbage is collected all the time, and every piece of it writes an entry when it goes."""
    file = EventsFile(options(**values))
    collected = 0

    class Abandoned:
        def __init__(self) -> None:
            self.cycle = self

        def __del__(self) -> None:
            nonlocal collected
            file.write(entry(collected, "finalizer"))
            collected += 1

    gc.set_threshold(20, 1, 1)
    for number in range(count):
        Abandoned()
        file.write(entry(number, "caller"))
    gc.collect()
    gc.disable()
    file.close()
    print(json.dumps({"finalizer": collected, "caller": count}))


class Alarm:
    """A signal at a random point of what follows, and again whenever it was handled, ``count`` times."""

    def __init__(self, count: int, handle: Callable[[int], None]) -> None:
        self.count = count
        self.handled = 0
        self._handle = handle
        self._pending = False
        signal.signal(signal.SIGALRM, self._ring)

    def arm(self) -> bool:
        """See to it that a signal is on its way; False when there were enough."""
        if self.handled >= self.count:
            return False
        if not self._pending:
            self._pending = True
            signal.setitimer(signal.ITIMER_REAL, random.uniform(0.00001, 0.0003))
        return True

    def _ring(self, _number: int, _frame: object) -> None:
        self._pending = False
        self.handled += 1
        self._handle(self.handled - 1)


def handlers(count: int, **values: Any) -> None:
    """Interrupt writing at any point by a signal handler that writes an entry."""
    file = EventsFile(options(**values))
    alarm = Alarm(count, lambda number: file.write(entry(number, "handler")))
    number = 0
    while alarm.arm():
        file.write(entry(number, "caller"))
        number += 1
    file.close()
    print(json.dumps({"handler": alarm.handled, "caller": number}))


class Interrupt(BaseException):
    """What Ctrl-C raises, under another name."""


def interrupts(count: int, **values: Any) -> None:
    """Interrupt writing at any point by a signal handler that raises."""
    file = EventsFile(options(**values))
    returned: list[int] = []
    raised: list[int] = []
    armed = False

    def handle(_number: int) -> None:
        if armed:
            raise Interrupt

    alarm = Alarm(count, handle)
    number = 0
    while alarm.arm():
        try:
            armed = True
            file.write(entry(number, "caller"))
            armed = False
            returned.append(number)
        except Interrupt:
            armed = False
            raised.append(number)
        number += 1
    file.close()
    print(json.dumps({"returned": returned, "raised": raised}))


def kills(kills: int, durability: str) -> None:
    """Kill processes while they write, ten for each log; say how much each of their threads had written.

    The counters lie in shared memory and are raised after a write has returned.
    """
    random.seed(20250127)
    for kill in range(kills):
        counters = mmap(-1, 16)
        pid = os.fork()
        if pid == 0:
            file = EventsFile(options(events_log=f"{kill // 10}.log", durability=durability))
            threading.Thread(target=_write_on, args=(file, kill, 1, counters), daemon=True).start()
            _write_on(file, kill, 0, counters)
        time.sleep(random.uniform(0.0005, 0.02))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        print(json.dumps([int.from_bytes(counters[at : at + 8], "little") for at in (0, 8)]), flush=True)
        counters.close()
        sys.stdin.readline()


def _write_on(file: EventsFile, kill: int, thread: int, counters: mmap) -> None:
    large = "y" * 300_000
    for number in range(1 << 30):
        text = entry(number, f"{kill}-{thread}")
        if number % 5 == 4:  # too large for the kernel to write without looking for signals in between
            text = text.replace('"message_content": "', f'"message_content": "{large}', 1)
        file.write(text)
        counters[thread * 8 : thread * 8 + 8] = (number + 1).to_bytes(8, "little")


def daemon(**values: Any) -> None:
    """Like a daemon, close every descriptor; the application's next socket gets the number of the log's."""
    file = EventsFile(options(**values))
    file.write(entry(0))
    os.closerange(3, 64)
    here, there = socket.socketpair()
    taken = [here.fileno(), there.fileno()]
    there.setblocking(False)
    here.setblocking(False)
    file.write(entry(1))
    leaked = []
    for end in (here, there):
        with contextlib.suppress(BlockingIOError):
            leaked.append(end.recv(100).decode())
    print(json.dumps({"taken": taken, "leaked": leaked}))


def streamless(**values: Any) -> None:
    """Without standard streams the log must not take their numbers, to which print still writes."""
    for descriptor in (0, 1, 2):
        os.close(descriptor)
    file = EventsFile(options(**values))
    file.write(entry(0))
    for descriptor in (0, 1, 2):
        with contextlib.suppress(OSError):
            os.write(descriptor, b"printed by the application\n")
    file.write(entry(1))


def starts_another(closed: list[int], **values: Any) -> None:
    """Tell on standard error which files a program has open that inherits every descriptor it can."""
    for descriptor in closed:
        os.close(descriptor)
    EventsFile(options(**values)).write(entry(0))
    command = ["sh", "-c", "readlink /proc/$$/fd/*"]
    shown = subprocess.run(command, close_fds=False, stdout=subprocess.PIPE, check=False)
    os.write(2, shown.stdout)


def prints(**values: Any) -> None:
    """Entries go where the application prints to."""
    file = EventsFile(options(**values))
    for number in range(20):
        print(f"line {number}", flush=True)
        file.write(entry(number))
    print("done", flush=True)


def prints_entries(count: int, size: int) -> None:
    """Entries go to standard output; the end is told on standard error."""
    file = EventsFile(options(events_log="/dev/stdout"))
    for number in range(count):
        file.write(entry(number, "", size))
    print("done", file=sys.stderr, flush=True)


def pipes(children: int, count: int, size: int) -> None:
    """Forked processes, each interrupted by a signal handler that writes too, share standard output."""
    vars(log_file)["_PATIENCE"] = HANGS  # a busy machine may make one wait for longer than a second
    file = EventsFile(options(events_log="/dev/stdout"))
    file.write(entry(0, "first"))
    for child in range(children):
        if os.fork() == 0:
            numbers = iter(range(1_000_000))
            signal.signal(signal.SIGALRM, lambda *_: file.write(entry(next(numbers), f"alarm {child}")))  # noqa: B023
            signal.setitimer(signal.ITIMER_REAL, 0.005, 0.005)
            for number in range(count):
                file.write(entry(number, f"{child}", size))
            signal.setitimer(signal.ITIMER_REAL, 0)
            file.write(entry(next(numbers), f"alarm {child}"))
            os._exit(0)
    for _ in range(children):
        assert os.wait()[1] == 0


def buffered_exit(how: str, count: int) -> None:
    """Write in buffered mode and end in one of the ways in which a process may end."""
    if how == "own handler":
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
    file = EventsFile(options(durability="buffered"))
    write_many(file, "", count)
    if how == "exception":
        raise RuntimeError("the application failed")
    if how == "exit":
        sys.exit(3)
    if how in ("SIGTERM", "own handler"):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
    if how == "SIGTERM in a child":
        pid = os.fork()
        if pid == 0:
            write_many(file, "child", count)
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
        print(os.waitpid(pid, 0)[1])


def buffered_until_sigterm(log: str, count: str) -> None:
    """Write in buffered mode until SIGTERM comes; the file ``count`` grows by a byte for every entry."""
    file = EventsFile(options(events_log=log, durability="buffered"))
    with Path(count).open("wb", buffering=0) as returned:
        for number in range(1 << 30):
            file.write(entry(number))
            returned.write(b".")


def unprivileged(uid: int, **values: Any) -> None:
    """Write as a user that may not."""
    os.setgid(uid)
    os.setuid(uid)
    file = EventsFile(options(**values))
    file.write(entry(1))
    sys.stdout.write("still running")


if __name__ == "__main__":
    globals()[sys.argv[1]](**json.loads(sys.argv[2]))
