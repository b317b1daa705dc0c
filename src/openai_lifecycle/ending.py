"""Tells holders of unsaved data when the process ends, however it ends, or forks.

Data is saved when the interpreter ends, when a child of ``multiprocessing`` ends, and on SIGTERM if the application
has no handler of its own; the signal then has its default effect. A forked child is told to reset: its parent saves
what the parent held.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
import threading
import weakref
from collections.abc import Callable
from types import FrameType
from typing import Any, Final, Protocol

from openai_lifecycle import threads
from openai_lifecycle.shield import SHIELD

_GRACE: Final = 5.0  # seconds that SIGTERM waits for each holder


class Holder(Protocol):
    """An object with data that must not be lost when the process ends."""

    def close(self) -> None:
        """Save what is held: the process is about to end."""

    def save(self, timeout: float) -> None:
        """Save what is held within ``timeout`` seconds. A signal handler may call it at any point of the program."""

    def is_interrupted(self) -> bool:
        """Return whether the calling signal handler has interrupted what must be finished before ``save``.

        When that is finished, it must call :func:`resume`.
        """

    def after_fork(self) -> None:
        """Reset in a child process, with nothing held."""


_holders: weakref.WeakSet[Holder] = weakref.WeakSet()
_first: set[Callable[[], None]] = set()  # called before holders are closed: they may put more into them
_hooked: set[str] = set()  # the packages whose children save what is held
_sigterm_waits = False  # for a holder that it interrupted


def register(holder: Holder) -> None:
    """Notify ``holder`` of forks and of the end of the process."""
    _holders.add(holder)
    prepare()


def register_first(end: Callable[[], None]) -> None:
    """Call ``end`` when a child of ``multiprocessing`` ends, before any holder is closed."""
    _first.add(end)
    _prepare_children()


def prepare() -> None:
    """Install the hooks that save data. Called again before data is held: a fork may have removed them."""
    _prepare_children()
    is_main = threading.current_thread() is threading.main_thread()  # no other thread may set a handler
    if is_main and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _on_sigterm)


def _prepare_children() -> None:
    """Let a child of ``multiprocessing``, or of Celery's copy of it, save what is held.

    Such a child ends with os._exit and, before Python 3.13, without atexit (multiprocessing/popen_fork.py,
    Popen._launch). It does call the finalizers of ``multiprocessing``, but those that it has inherited, or made when its
    main module was imported, are dropped just before its work begins. Then what was registered for after a fork is
    called (multiprocessing/process.py, BaseProcess._bootstrap), and so a finalizer is made there too.
    """
    for package in ("multiprocessing", "billiard"):
        util: Any = sys.modules.get(f"{package}.util")
        if util is not None and package not in _hooked:
            _hooked.add(package)
            _add_finalizer(util)
            util.register_after_fork(util, _add_finalizer)


def _add_finalizer(util: Any) -> None:
    # A child of Celery's copy does not wait for its threads.
    end = _close_after_threads if util.__name__ == "multiprocessing.util" else _close_all
    util.Finalize(None, end, exitpriority=-100)  # late: what other finalizers do is saved too


def resume() -> None:
    """Continue with the pending SIGTERM that waited for the interrupted holder, if any."""
    if _sigterm_waits and (threads.are_greenlets() or threading.current_thread() is threading.main_thread()):
        _on_sigterm(signal.SIGTERM, None)


def _close_after_threads() -> None:
    """Save when the threads that the child still waits for have ended, because they may be making calls.

    Before Python 3.13 it waits for them only after its finalizers (multiprocessing/process.py, BaseProcess._bootstrap).
    """
    main = threading.current_thread()
    if not threads.are_greenlets() and _others(main):
        name = "openai-lifecycle end"
        # Not a daemon, which it would be by default if a daemon thread forked the child.
        end = threading.Thread(target=_wait_and_close, args=(main,), name=name, daemon=False)
        with contextlib.suppress(RuntimeError):  # no more threads
            end.start()
            return
    _close_all()


def _wait_and_close(main: threading.Thread) -> None:
    while others := _others(main):
        others[0].join()
    _close_all()


def _others(main: threading.Thread) -> list[threading.Thread]:
    """Return the threads that a process waits for at its end, except its main thread and the calling one."""
    known = main, threading.current_thread()
    return [thread for thread in threading.enumerate() if not (thread.daemon or thread in known)]


def _close_all() -> None:
    for end in list(_first):
        with SHIELD:
            end()
    for holder in list(_holders):
        with SHIELD:
            holder.close()


def _on_sigterm(_number: int, _frame: FrameType | None) -> None:
    global _sigterm_waits
    _sigterm_waits = any(holder.is_interrupted() for holder in list(_holders))
    if _sigterm_waits:
        return
    for holder in list(_holders):
        with SHIELD:
            holder.save(_GRACE)
    # Once more, with its default effect.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGTERM)


def _after_fork() -> None:
    global _sigterm_waits
    _sigterm_waits = False
    for holder in list(_holders):
        holder.after_fork()
    _prepare_children()  # the parent may have imported such a package just before it forked


os.register_at_fork(after_in_child=_after_fork)
atexit.register(_close_all)  # registered early, so that it runs late and saves what other exit handlers do
