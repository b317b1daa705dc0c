"""The end of the process, however it comes, and its copies: whoever holds something to be saved hears of it here.

What is held is saved at the end of the interpreter, at the end of a child of ``multiprocessing``, and on SIGTERM
where the application has no handler of its own; the signal then has the effect that it has by default. A forked
child is told to begin anew: what its parent held is the parent's to save.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
import weakref
from types import FrameType
from typing import Any, Final, Protocol

_GRACE: Final = 5.0  # seconds that SIGTERM waits for each holder


class Holder(Protocol):
    """What holds something that the end of the process must not lose."""

    def close(self) -> None:
        """Save what is held: the process is about to end."""

    def flush(self, timeout: float) -> bool:
        """Save what is held within ``timeout`` seconds. A signal handler calls it, at any point of the program."""

    def is_interrupted(self) -> bool:
        """Return whether the calling handler has interrupted the saving, after which comes :func:`resume`."""

    def after_fork(self) -> None:
        """Begin anew in a child, with nothing held."""


_holders: weakref.WeakSet[Holder] = weakref.WeakSet()
_hooked = False  # whether children of multiprocessing prepare themselves
_finalizer: Any = None  # what such a child calls when it ends
_ending = False  # whether SIGTERM waits for what it has interrupted


def register(holder: Holder) -> None:
    """Let ``holder`` hear of forks and of the end of the process."""
    _holders.add(holder)
    prepare()


def prepare() -> None:
    """Prepare this process for its end. To be called before something is held, because a fork undoes it."""
    if multiprocessing := sys.modules.get("multiprocessing.util"):
        _prepare_child(multiprocessing)
    is_main = threading.current_thread() is threading.main_thread()  # no other thread may set a handler
    if is_main and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _on_sigterm)


def _prepare_child(multiprocessing: Any) -> None:
    """Let a child of ``multiprocessing`` save what is held.

    It ends with os._exit and, before Python 3.13, without atexit (multiprocessing/popen_fork.py, Popen._launch).
    And it forgets its finalizers just before its work begins, those too that its main module has made when it was
    imported for a forkserver (multiprocessing/process.py, BaseProcess._bootstrap).
    """
    global _hooked, _finalizer
    if _finalizer is None or not _finalizer.still_active():
        _finalizer = multiprocessing.Finalize(None, _close_all, exitpriority=-100)
    if not _hooked:
        _hooked = True
        multiprocessing.register_after_fork(_close_all, lambda _: prepare())


def resume() -> None:
    """Go on with the end that waited for what it has interrupted, if one does."""
    if _ending:
        _end()


def _close_all() -> None:
    for holder in list(_holders):
        holder.close()


def _on_sigterm(_number: int, _frame: FrameType | None) -> None:
    global _ending
    for holder in list(_holders):
        holder.flush(_GRACE)
    if any(holder.is_interrupted() for holder in list(_holders)):
        _ending = True
    else:
        _end()


def _end() -> None:
    """Let SIGTERM do what it does by default."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGTERM)


def _after_fork() -> None:
    global _finalizer, _ending
    _finalizer, _ending = None, False
    for holder in list(_holders):
        holder.after_fork()


os.register_at_fork(after_in_child=_after_fork)
atexit.register(_close_all)  # early, so that it comes late: what others do at the end is saved too
