"""Tells whether gevent or eventlet has replaced threads."""

from __future__ import annotations

import threading


def are_greenlets() -> bool:
    """Return whether what ``threading`` starts is a greenlet.

    The application may replace threads at any time. A lock or queue made before belongs to threads, so a greenlet
    that waits for it stops all others; and whoever waits for a greenlet runs the application's other ones.
    """
    return threading.get_ident.__module__ != "_thread"
