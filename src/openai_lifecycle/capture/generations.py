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

from collections import OrderedDict
from typing import Final, NamedTuple

from openai_lifecycle.capture.call import Call
from openai_lifecycle.threads import Locked

#: How many responses are remembered; the least recently seen is forgotten first.
LIMIT: Final = 10_000


class Entries(NamedTuple):
    """Which entries the end of a call writes; not an ``enum.Flag``, whose ``in`` runs in Python.

    ``written`` are the hashes of the ids of tool calls that have their entry already.
    """

    tool_calls: bool
    success: bool
    error: bool
    written: frozenset[int] = frozenset()


class _Seen(NamedTuple):
    """What was last seen of a response: whether it was pending, and which of its tool calls had been written then."""

    pending: bool
    tool_calls: frozenset[int]


_ALL: Final = Entries(tool_calls=True, success=True, error=True)
_NONE: Final = Entries(tool_calls=False, success=False, error=False)
_FAILED: Final = Entries(tool_calls=False, success=False, error=True)
_AWAITED: Final = Entries(tool_calls=True, success=False, error=True)


class Generations(Locked):
    """The responses seen so far, by the hash of their id: a server may send ids of any length."""

    def __init__(self) -> None:
        super().__init__()
        self._responses: OrderedDict[int, _Seen] = OrderedDict()

    def entries(self, call: Call, error: BaseException | None) -> Entries:
        """Return which entries the end of ``call`` writes, and remember its response."""
        if not call.operation.entries:
            return _NONE
        reply = call.reply
        if not call.operation.generates and error is not None:
            return _FAILED
        before = None
        if reply.id is not None and reply.pending is not None:
            written: frozenset[int] = frozenset()
            if reply.pending and call.operation.generates:  # one that has ended has all its entries
                written = frozenset(hash(tool.id) for tool in reply.tool_calls.values())
            now = _Seen(reply.pending, written)
            before = self._see(hash(reply.id), now)
        if call.operation.generates:
            return _ALL
        if reply.pending is not False:  # it has not ended, or nothing of it was read
            return _NONE
        if before is None:
            return _ALL
        return _AWAITED._replace(written=before.tool_calls) if before.pending else _NONE

    def _see(self, response: int, now: _Seen) -> _Seen | None:
        """Remember a response as it is ``now``; return what was seen of it before, ``None`` if it is new."""
        with self.lock:  # reentrant: a garbage collection may end a call in any allocation
            before = self._responses.pop(response, None)
            if before is not None:
                is_pending = now.pending and before.pending
                now = _Seen(is_pending, now.tool_calls | before.tool_calls if is_pending else frozenset())
            self._responses[response] = now
            if len(self._responses) > LIMIT:
                self._responses.popitem(last=False)
        return before
