"""The Responses API: create, compact, read again and cancel; plain and streamed, beta included.

Shapes: ``openai/types/responses/response.py``, ``response_output_item.py`` and ``response_stream_event.py``.

* One response is one generation and has one finish reason: why it is incomplete, else ``tool_calls`` when it
  waits for the application to run a tool, else ``stop``. ``failed`` is an error, ``incomplete`` is not.
* A stream's last event carries the whole response. If a stream is left earlier, what has arrived counts: the
  finished items and the length of the text so far.
* ``GET /responses/{id}`` is ``fetch_response`` of the conventions: it generates nothing, so it has neither
  messages nor token counts. ``generations.py`` decides which entries it writes. The same goes for cancelling.
* ``/responses/input_tokens`` only counts, ``DELETE`` and ``/input_items`` only manage: they are not recorded.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, TypeAlias

from openai_lifecycle import semconv
from openai_lifecycle.capture import content, messages
from openai_lifecycle.capture.facts import (
    Attributes,
    Choice,
    Content,
    Fields,
    Operation,
    Reply,
    Request,
    Table,
    ToolCall,
    double,
    effort,
    failure,
    fields,
    integer,
    items,
    members,
    not_auto,
    number,
    output_type,
    pick,
    text,
)
from openai_lifecycle.capture.operations.usage import usage
from openai_lifecycle.capture.tools import item_call


def _id(value: object) -> str | None:
    return text(value) or text(fields(value).get("id")) or None


def _format(value: object) -> str | None:
    return output_type(fields(value).get("format"))


REQUEST: Final[Table] = {
    "max_output_tokens": (semconv.MAX_TOKENS, integer),
    "temperature": (semconv.TEMPERATURE, double),
    "top_p": (semconv.TOP_P, double),
    "service_tier": (semconv.OPENAI_REQUEST_SERVICE_TIER, not_auto),
    "reasoning": (semconv.REASONING_LEVEL, effort),
    "text": (semconv.OUTPUT_TYPE, _format),
    "previous_response_id": (semconv.PREVIOUS_RESPONSE_ID, text),
    "conversation": (semconv.CONVERSATION_ID, _id),
    "user": (semconv.USER_ID, text),
    "safety_identifier": (semconv.USER_ID, text),
}
PROMPT: Final[Table] = {
    "id": (semconv.PROMPT_NAME, text),
    "version": (semconv.PROMPT_VERSION, text),
}
RESPONSE: Final[Table] = {
    "status": (semconv.RESPONSE_STATUS, text),
    "service_tier": (semconv.OPENAI_RESPONSE_SERVICE_TIER, text),
    "conversation": (semconv.CONVERSATION_ID, _id),
}
#: Parts that are kept of what arrives before the whole response: a server may go on for ever.
_MOST_PARTS: Final = 1024
#: ``incomplete_details.reason`` → finish reason; any other is reported unchanged.
INCOMPLETE: Final[Mapping[str, str]] = {"max_output_tokens": "length"}


def _only(reply: Reply) -> Choice:
    """Return the only choice: see the module's first rule. ``choices_count`` is set, so that it is not counted instead."""
    reply.choices_count = reply.choices_count or 0
    return reply.choice(0)


# ------------------------------------------------------------------ requests
def request(body: Fields) -> Request:
    """Return the facts of a request for a response."""
    attributes = pick(body, REQUEST, _api())
    pick(fields(body.get("prompt")), PROMPT, attributes)
    sent = body.get("input")
    return Request(
        temperature=number(body.get("temperature")),
        messages_count=1 if isinstance(sent, str) else len(items(sent)),
        lines=_lines(body),
        attributes=attributes,
    )


def fetch_request(body: Fields) -> Request:
    """Return the facts of a request to read or cancel a response: its id."""
    attributes: Attributes = {**_api(), semconv.RESPONSE_ID: text(body.get("id"))}
    return Request(attributes=attributes)


def _api() -> Attributes:
    return {semconv.OPENAI_API_TYPE: "responses"}


def _lines(body: Fields) -> Iterator[str]:
    instructions = text(body.get("instructions"))
    if instructions:
        yield f"system: {instructions}"
    yield from content.response_items(body.get("input"))


def sent_content(body: Fields) -> Content:
    """Return instructions, input and tools for the span."""
    sent, instructions = body.get("input"), text(body.get("instructions"))
    return {
        semconv.SYSTEM_INSTRUCTIONS: ([instructions] if instructions else [], messages.instruction),
        semconv.INPUT_MESSAGES: ([sent] if isinstance(sent, str) else items(sent), messages.response_item),
        semconv.TOOL_DEFINITIONS: (items(body.get("tools")), messages.response_tool),
    }


# ------------------------------------------------------------------ whole responses
def response(reply: Reply, body: Any) -> None:
    """Fold a whole response into ``reply``."""
    whole = fields(body)
    fetched(reply, whole)
    usage(reply, whole.get("usage"))


def fetched(reply: Reply, body: Any) -> None:
    """Fold a response that was read again, but not its tokens, which have been counted before."""
    whole = fields(body)
    _head(reply, whole)
    output = [fields(item) for item in items(whole.get("output"))]
    if output or reply.response_length is None:  # a server may leave the output out of a stream's last event
        _output(reply, output)
    if not reply.pending:
        _ended(reply, whole)


def _head(reply: Reply, whole: Fields) -> None:
    reply.identify(whole)
    reply.pending = whole.get("status") in ("queued", "in_progress")
    pick(whole, RESPONSE, reply.attributes)


def _output(reply: Reply, output: list[Fields]) -> None:
    answers = [item for item in output if _is_answer(item)]
    reply.choices_count = len(answers)
    reply.response_length = sum(
        len(text(fields(part).get("text"))) for item in answers for part in items(item.get("content"))
    )
    if not output:
        return
    arrived = reply.tool_calls
    reply.forget_calls()  # the output includes what arrived before
    for position, item in enumerate(output):
        _item(reply, item, position, arrived)
    if reply.keep_text:
        only = _only(reply)
        only.text.clear()
        only.parts = [part for item in output if not _is_users(item) for part in messages.item_parts(item)]


def _is_answer(item: Fields) -> bool:
    return item.get("type") == "message" and not _is_users(item)


def _is_users(item: Fields) -> bool:
    """Return whether an item of the output is a message of the user, which compacting returns too."""
    return item.get("role") == "user"


def _item(reply: Reply, item: Fields, position: int | None, arrived: Mapping[Any, ToolCall]) -> None:
    """Fold a finished output item; a tool call that has already ``arrived`` keeps its time of detection."""
    call = item_call(item)
    if call is not None:
        key = call.id if position is None else position
        known = arrived.get(key)
        call.time = known.time if known else time.time_ns()
        if reply.add_call(key, call):
            call.fragments = [reply.fitting(call.arguments)]
    elif item.get("type") == "compaction":
        reply.attributes[semconv.CONVERSATION_COMPACTED] = True


def _ended(reply: Reply, whole: Fields) -> None:
    """Fold how the response ended into ``reply``."""
    status = text(whole.get("status"))
    only = _only(reply)
    if status == "failed":
        only.finish_reason = "error"
        reply.error = failure(whole.get("error"))
    elif status == "incomplete":
        reason = text(fields(whole.get("incomplete_details")).get("reason"))
        only.finish_reason = INCOMPLETE.get(reason, reason) or status
    elif status == "cancelled":
        only.finish_reason = status
    else:
        waits = any(not call.hosted for call in reply.tool_calls.values())
        only.finish_reason = "tool_calls" if waits else "stop"


# ------------------------------------------------------------------ streams
def chunk(reply: Reply, event: Any) -> None:
    """Fold one event of a streamed response into ``reply``; nearly all are deltas of some kind."""
    _fold(reply, event, _EVENTS)


def fetched_chunk(reply: Reply, event: Any) -> None:
    """Fold one event of a response that is streamed again."""
    _fold(reply, event, _FETCHED_EVENTS)


def _fold(reply: Reply, event: Any, events: _Events) -> None:
    own = members(event)
    kind = own.get("type")
    if kind == "response.output_text.delta":  # every version of the client knows its members
        _text_delta(reply, own)
    elif type(kind) is str and kind in events:
        events[kind](reply, fields(event))


def _text_delta(reply: Reply, event: Fields) -> None:
    said = event.get("delta")
    if type(said) is str:
        reply.response_length = (reply.response_length or 0) + len(said)
        if reply.keep_text:
            _keep(reply, said)


def _refusal_delta(reply: Reply, event: Fields) -> None:
    """Only keep the text of a refusal: it does not count as the response's."""
    if reply.keep_text:
        _keep(reply, text(event.get("delta")))


def _keep(reply: Reply, said: str) -> None:
    """Keep a delta's text, for when the stream ends before its message is whole.

    Only if text is kept at all: otherwise it would make a choice, and the span would have an empty answer.
    """
    only = _only(reply)
    only.keep(said, reply.keep_text, only.text)


def _begun(reply: Reply, event: Fields) -> None:
    _head(reply, fields(event.get("response")))


def _item_done(reply: Reply, event: Fields) -> None:
    item = fields(event.get("item"))
    _item(reply, item, integer(event.get("output_index")), reply.tool_calls)
    if _is_answer(item):
        reply.choices_count = (reply.choices_count or 0) + 1
    elif reply.keep_text and len(_only(reply).parts) < _MOST_PARTS:
        _only(reply).parts.extend(messages.item_parts(item))


def _done(reply: Reply, event: Fields) -> None:
    response(reply, event.get("response"))


def _fetched(reply: Reply, event: Fields) -> None:
    fetched(reply, event.get("response"))


def _error(reply: Reply, event: Fields) -> None:
    reply.error = failure(event.get("error") or event)


_Events: TypeAlias = Mapping[str, Callable[[Reply, Fields], None]]
_EVENTS: Final[_Events] = {
    "response.created": _begun,
    "response.queued": _begun,
    "response.in_progress": _begun,
    "response.refusal.delta": _refusal_delta,
    "response.output_item.done": _item_done,
    "response.completed": _done,
    "response.incomplete": _done,
    "response.failed": _done,
    "response.cancelled": _done,
    "response.done": _done,  # the only one of some gateways
    "error": _error,
}
_FETCHED_EVENTS: Final[_Events] = {n: _fetched if take is _done else take for n, take in _EVENTS.items()}

RESPONSES = Operation("chat", request, response, chunk, sent_content)
COMPACT = Operation("compact", request, response, chunk, sent_content)
FETCH = Operation("fetch_response", fetch_request, fetched, fetched_chunk, generates=False)
CANCEL = Operation("cancel_response", fetch_request, fetched, fetched_chunk, generates=False)
