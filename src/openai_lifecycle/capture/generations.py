"""Remembers which responses have had their entries, so that reading one again does not record it again.

A response of the Responses API has an id by which it can be read later, and one generated in the background
*is* read later. Each of its entries is written once:

* The call that creates a response writes a ``GENERATION_*`` entry, like every call, even when the server only
  queues the response.
* A call that reads a response generates nothing and counts no tokens. The first one to see it ended writes the
  ``TOOL_CALL_DETECTED`` entries that the creating call could not see, and ``GENERATION_ERROR`` if it failed.
  It writes ``GENERATION_SUCCESS`` only for a response that this process did not know: one created by another
  process, or before a restart.
* A response that was already seen ended writes nothing more, however often it is read.
* A read that raises writes ``GENERATION_ERROR``: the application did not get its answer.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Final, NamedTuple

from openai_lifecycle.capture.call import Call

#: How many responses are remembered; the least recently seen is forgotten first.
LIMIT: Final = 10_000


class Entries(NamedTuple):
    """Which entries the end of a call writes; not an ``enum.Flag``, whose ``in`` runs in Python."""

    tool_calls: bool
    success: bool
    error: bool


_ALL: Final = Entries(tool_calls=True, success=True, error=True)
_NONE: Final = Entries(tool_calls=False, success=False, error=False)
_FAILED: Final = Entries(tool_calls=False, success=False, error=True)
_AWAITED: Final = Entries(tool_calls=True, success=False, error=True)


class Generations:
    """The responses seen so far, by id: whether each was still pending when it was last seen."""

    def __init__(self) -> None:
        self._pending: OrderedDict[str, bool] = OrderedDict()
        self._lock = threading.RLock()  # reentrant: a garbage collection may end a call in any allocation

    def entries(self, call: Call, error: BaseException | None) -> Entries:
        """Return which entries the end of ``call`` writes, and remember its response."""
        if not call.operation.entries:
            return _NONE
        reply = call.reply
        if not call.operation.generates and error is not None:
            return _FAILED
        before = None
        if reply.id is not None and reply.pending is not None:
            before = self._seen(reply.id, pending=reply.pending)
        if call.operation.generates:
            return _ALL
        if reply.pending is not False or before is False:
            return _NONE
        return _AWAITED if before else _ALL

    def _seen(self, response_id: str, *, pending: bool) -> bool | None:
        """Return whether the response was pending when last seen, ``None`` if it is new; remember it."""
        with self._lock:
            before = self._pending.pop(response_id, None)
            self._pending[response_id] = pending and before is not False
            if len(self._pending) > LIMIT:
                self._pending.popitem(last=False)
        return before
