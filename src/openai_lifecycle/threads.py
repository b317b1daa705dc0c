"""What threads need when a process forks, and when gevent or eventlet has replaced them."""

from __future__ import annotations

import os
import threading
import weakref
from typing import Final


def are_greenlets() -> bool:
    """Return whether what ``threading`` starts is a greenlet.

    The application may replace threads at any time. A lock or queue made before belongs to threads, so a greenlet
    that waits for it stops all others; and whoever waits for a greenlet runs the application's other ones.
    """
    return threading.get_ident.__module__ != "_thread"


class Locked:
    """Has a reentrant ``lock``. A forked child gets a new one: no thread there would release one that was held."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        _locked.add(self)

    def after_fork(self) -> None:
        """Reset in a child process."""
        self.lock = threading.RLock()


_locked: Final[weakref.WeakSet[Locked]] = weakref.WeakSet()


def _after_fork() -> None:
    for holder in list(_locked):
        holder.after_fork()


os.register_at_fork(after_in_child=_after_fork)
