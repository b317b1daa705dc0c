"""Tells holders of unsaved data when the process ends, however it ends, or forks.

Data is saved when the interpreter ends, when a child of ``multiprocessing`` ends, and on SIGTERM if the application
has no handler of its own; the signal then has its default effect. A forked child is told to reset: its parent saves
what the parent held.
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
    """An object with data that must not be lost when the process ends."""

    def close(self) -> None:
        """Save what is held: the process is about to end."""

    def save(self, timeout: float) -> None:
        """Save what is held within ``timeout`` seconds. A signal handler may call it at any point of the program."""

    def is_interrupted(self) -> bool:
        """Return whether the calling handler interrupted a save, which then calls :func:`resume`."""

    def after_fork(self) -> None:
        """Reset in a child process, with nothing held."""


_holders: weakref.WeakSet[Holder] = weakref.WeakSet()
_hooked = False  # whether children of multiprocessing prepare themselves
_finalizer: Any = None  # what such a child calls when it ends
_ending = False  # whether SIGTERM waits for a save it interrupted


def register(holder: Holder) -> None:
    """Notify ``holder`` of forks and of the end of the process."""
    _holders.add(holder)
    prepare()


def prepare() -> None:
    """Install the hooks that save data; called again before data is held, because a fork removes them."""
    if multiprocessing := sys.modules.get("multiprocessing.util"):
        _prepare_child(multiprocessing)
    is_main = threading.current_thread() is threading.main_thread()  # no other thread may set a handler
    if is_main and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _on_sigterm)


def _prepare_child(multiprocessing: Any) -> None:
    """Let a child of ``multiprocessing`` save what is held.

    It ends with os._exit and, before Python 3.13, without atexit (multiprocessing/popen_fork.py, Popen._launch).
    And just before its work begins it drops its finalizers, including those made when its main module was imported
    for a forkserver (multiprocessing/process.py, BaseProcess._bootstrap).
    """
    global _hooked, _finalizer
    if _finalizer is None or not _finalizer.still_active():
        _finalizer = multiprocessing.Finalize(None, _close_all, exitpriority=-100)
    if not _hooked:
        _hooked = True
        multiprocessing.register_after_fork(_close_all, lambda _: prepare())


def resume() -> None:
    """Continue with the pending SIGTERM that waited for the interrupted save, if any."""
    if _ending:
        _end()


def _close_all() -> None:
    for holder in list(_holders):
        holder.close()


def _on_sigterm(_number: int, _frame: FrameType | None) -> None:
    global _ending
    for holder in list(_holders):
        holder.save(_GRACE)
    if any(holder.is_interrupted() for holder in list(_holders)):
        _ending = True
    else:
        _end()


def _end() -> None:
    """Send SIGTERM again, with its default effect."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGTERM)


def _after_fork() -> None:
    global _finalizer, _ending
    _finalizer, _ending = None, False
    for holder in list(_holders):
        holder.after_fork()


os.register_at_fork(after_in_child=_after_fork)
atexit.register(_close_all)  # registered early, so that it runs late and saves what other exit handlers do
