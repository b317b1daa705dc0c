"""Events → entries, through the application's ``transform`` hook if there is one.

The hook may change, redact or drop an event. Where it fails, the entry is written without its content, which the hook
may have been there to redact: an entry is dropped only if the hook says so.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import traceback
from typing import Any, Final, TypeAlias

from opentelemetry.instrumentation.utils import suppress_instrumentation

from openai_lifecycle import codec
from openai_lifecycle.events import LifecycleEvent
from openai_lifecycle.eventslog.format import KEYS, render
from openai_lifecycle.options import Transform
from openai_lifecycle.shield import is_interruption

_logger = logging.getLogger(__name__)

#: An event and its text.
Entry: TypeAlias = tuple[LifecycleEvent, str]

_CONTENT: Final = ("message_content", "arguments", "error")


class Renderer:
    """Turns events into entries, each changed by ``transform`` first if there is one."""

    def __init__(self, transform: Transform | None) -> None:
        self._transform = transform
        self._reported: set[str] = set()  # failures of the hook, at most one per line of it

    def render(self, events: list[LifecycleEvent], entries: list[Entry]) -> None:
        """Add the entries of ``events`` to ``entries``.

        What interrupts the hook, such as a time limit or ``SystemExit``, is raised. The events that it has not returned
        by then are added without their content.
        """
        transform = self._transform
        if transform is None:
            entries += [(event, render(event)) for event in events]
            return
        intact = list(map(_copied, events))  # the hook may change in place what it is given
        made: list[Entry | None] = []  # None for an event that the hook drops
        try:
            for event, copy in zip(events, intact, strict=True):
                made.append(self._transformed(transform, event, copy))
        finally:
            entries += filter(None, made)
            entries += map(_without_content, intact[len(made) :])

    def _transformed(
        self, transform: Transform, event: LifecycleEvent, intact: LifecycleEvent
    ) -> Entry | None:
        """Return what ``transform`` makes of ``event``; ``None`` if it drops it, ``intact`` without content if it fails."""
        try:
            with suppress_instrumentation():  # it may ask a model itself
                kept = transform(event)
            if kept is None:
                return None
            if type(kept) in KEYS:
                return kept, render(kept)
            failure = f"it returned {type(kept).__name__}, not a LifecycleEvent or None"
        except Exception as error:
            if is_interruption(error.__traceback__):
                raise
            # Omit the exception's text: it may quote what the hook should redact.
            frame = traceback.extract_tb(error.__traceback__)[-1]
            failure = f"{type(error).__name__} at {frame.filename}:{frame.lineno}"
        if failure not in self._reported:
            self._reported.add(failure)
            with contextlib.suppress(Exception):  # the application's log handler may raise
                _logger.error("transform failed; entries are written without their content: %s", failure)
        return _without_content(intact)


def _copied(event: LifecycleEvent) -> LifecycleEvent:
    """Return a copy of ``event`` that changes in place do not reach."""
    metadata = dataclasses.replace(event.metadata, custom_fields=dict(event.metadata.custom_fields))
    return dataclasses.replace(event, metadata=metadata)


def _without_content(event: LifecycleEvent) -> Entry:
    cleared: dict[str, Any] = {name: "" for name in _CONTENT if hasattr(event, name)}
    if "error" in cleared:
        fields = event.metadata.custom_fields
        cleared["error"] = codec.brief_error(fields.get("error_type", ""), fields.get("status_code"))
    bare = dataclasses.replace(event, **cleared)
    return bare, render(bare)
