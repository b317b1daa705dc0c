"""Responses on a Realtime connection, translated into the shapes of the Responses API.

Shapes: ``openai/types/realtime/realtime_response.py``, ``conversation_item.py`` and the server events beside
them. Speech counts as text, by its transcript.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from openai_lifecycle import semconv
from openai_lifecycle.capture.facts import Fields, Operation, Reply, Request, fields, items, text
from openai_lifecycle.capture.operations import responses

#: Event → the equivalent event of a Responses stream; two had other names before the API's release.
EVENTS: Final[Mapping[Any, str]] = {
    "response.created": "response.created",
    "response.output_text.delta": "response.output_text.delta",
    "response.text.delta": "response.output_text.delta",
    "response.output_audio_transcript.delta": "response.output_text.delta",
    "response.audio_transcript.delta": "response.output_text.delta",
    "response.output_item.done": "response.output_item.done",
    "response.done": "response.completed",
}


def request(body: Fields) -> Request:
    """Return the facts of a request: the parameters of ``response.create`` and the items sent before it."""
    # ``conversation`` is "auto" or "none" here, no id: ``openai/types/realtime/realtime_response_create_params.py``.
    asked = responses.request({**body, "conversation": None})
    asked.attributes[semconv.OPENAI_API_TYPE] = "realtime"
    if "audio" in items(body.get("output_modalities")):
        asked.attributes[semconv.OUTPUT_TYPE] = "speech"
    return asked


def chunk(reply: Reply, event: Any) -> None:
    """Fold one server event into ``reply``."""
    kind = EVENTS.get(event.get("type"))
    if kind is not None:
        whole = fields(event.get("response"))
        responses.chunk(reply, {**event, "type": kind, "response": _translated(whole) if whole else None})


def _translated(whole: Fields) -> dict[str, Any]:
    details = fields(whole.get("status_details"))
    return {
        **whole,
        "conversation": whole.get("conversation_id"),
        "error": details.get("error"),
        "incomplete_details": {"reason": details.get("reason")},
        "output": [_item(fields(item)) for item in items(whole.get("output"))],
    }


def _item(item: Fields) -> Fields:
    if item.get("type") != "message":
        return item
    return {**item, "content": [_part(fields(part)) for part in items(item.get("content"))]}


def _part(part: Fields) -> Fields:
    said = text(part.get("text")) or text(part.get("transcript"))
    return {"type": "output_text", "text": said} if said else part


REALTIME = Operation("chat", request, chunk=chunk, content=responses.sent_content)
