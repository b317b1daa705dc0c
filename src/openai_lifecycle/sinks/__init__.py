"""Destinations besides ``events.log``: what a sink is, and how a URL names one.

A sink gets batches of events in a thread of its own (``sinks/dispatch.py``); the application, the file and the
other sinks never wait for it. A new destination is one class with the three methods of :class:`EventSink`, and one
entry point in the group ``openai_lifecycle_sinks`` whose name is the scheme of its URLs:

    [project.entry-points.openai_lifecycle_sinks]
    kafka = "my_package:KafkaSink"          # called with the URL, raises ValueError if it is not valid

The text of that ``ValueError`` is logged, so it must not quote the URL, which may hold a password.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pkgutil import resolve_name
from typing import Final, Protocol

from openai_lifecycle.events import LifecycleEvent
from openai_lifecycle.redaction import address

_logger = logging.getLogger(__name__)

GROUP: Final = "openai_lifecycle_sinks"
ALLOWED: Final = (
    "jsonl:///path, sqlite:///path or another SQLAlchemy URL, webhook+https://host/path, "
    f"or a scheme of the entry-point group {GROUP}"
)
_OWN: Final = {
    "jsonl": "openai_lifecycle.sinks.jsonl:JsonLinesSink",
    "webhook+http": "openai_lifecycle.sinks.webhook:WebhookSink",
    "webhook+https": "openai_lifecycle.sinks.webhook:WebhookSink",
}


class EventSink(Protocol):
    """A destination of events.

    All three methods are called from one thread and may take their time. When one still runs five seconds after the
    process was asked to end, what the sink has not taken counts as lost.
    """

    def write(self, events: Sequence[LifecycleEvent]) -> None:
        """Take ``events``, all or none.

        Any exception means that none was taken: the same events are retried after a growing pause, so a sink
        that may have taken them must recognize them (``records.event_id``).

        Raises:
            Rejected: these events will never be taken; they are counted as lost and the next ones are tried.
        """

    def flush(self) -> None:
        """Make what was written safe."""

    def close(self) -> None:
        """Release resources; a later ``write`` opens them again."""


class SinkError(Exception):
    """An error of a sink whose text is safe to log: it quotes no event content and no credential."""


class Rejected(SinkError):  # noqa: N818 - it says what happened to the events
    """These events will never be taken. ``permanent``: nor will any others, so splitting the batch is pointless."""

    def __init__(self, message: str, *, permanent: bool = False) -> None:
        super().__init__(message)
        self.permanent = permanent


class Unavailable(SinkError):  # noqa: N818 - as above
    """Not now. ``after`` is how many seconds the destination asks to wait, if it says so."""

    def __init__(self, message: str, after: float | None = None) -> None:
        super().__init__(message)
        self.after = after


# ------------------------------------------------------------------ from a URL to a sink
@dataclass(frozen=True, slots=True)
class Destination:
    """A sink to be opened: ``name`` for logs and metrics, without credentials; ``open`` makes a new sink.

    A sink that was passed to ``instrument()`` as an object is returned each time, so a forked child shares it.
    """

    name: str
    open: Callable[[], EventSink]


def destinations(given: Iterable[str | EventSink]) -> list[Destination]:
    """Return the destinations that ``given`` names; one that cannot be used is logged as an error and left out."""
    found = []
    for item in given:
        try:
            found.append(destination(item))
        except Exception as error:  # noqa: BLE001 - another package's class may raise anything
            if not isinstance(error, (ValueError, ImportError)):  # its text may quote the URL
                error = ValueError(f"it cannot be opened ({type(error).__name__})")
            shown = address(item) if isinstance(item, str) else repr(type(item))
            _logger.error(  # noqa: TRY400 - the message says it all
                "sinks=%r is not allowed: %s; it must be %s; it is ignored", shown, error, ALLOWED
            )
    return found


def destination(given: str | EventSink) -> Destination:
    """Return the destination of ``given``, a URL or a sink. Nothing is connected yet.

    Raises:
        ValueError: the URL is not valid.
        ImportError: a package that the destination needs is not installed.
    """
    if not isinstance(given, str):
        return Destination(type(given).__qualname__, lambda: given)
    kind = _kind(given)
    # Made once here, so that a URL that is not valid raises now, not later in a thread. A path in it becomes absolute,
    # because the application may change its directory.
    url: str = getattr(kind(given), "absolute_url", given)
    return Destination(address(given), lambda: kind(url))


def _kind(url: str) -> Callable[[str], EventSink]:
    """Return the class of the sink that the scheme of ``url`` names."""
    scheme, colon, _ = url.partition(":")
    if not colon:
        raise ValueError("it is not a URL")
    kind: Callable[[str], EventSink]
    if scheme in _OWN:
        kind = resolve_name(_OWN[scheme])
        return kind
    for entry in entry_points(group=GROUP, name=scheme):
        kind = entry.load()
        return kind
    try:
        from openai_lifecycle.sinks.sql import SqlSink
    except ImportError:
        raise ImportError(
            "its scheme is unknown; for a database, install the extra: pip install 'openai-lifecycle[sql]'"
        ) from None
    return SqlSink
