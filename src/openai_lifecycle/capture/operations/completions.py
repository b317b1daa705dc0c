"""Legacy completions: ``POST /completions``, plain and streamed; shape: ``openai/types/completion.py``."""

from __future__ import annotations

from typing import Any

from openai_lifecycle.capture.facts import (
    Fields,
    Operation,
    Reply,
    Request,
    fields,
    items,
    number,
    pick,
    text,
)
from openai_lifecycle.capture.operations import chat, inputs


def request(body: Fields) -> Request:
    """Return the facts of a request for a completion."""
    prompts = inputs.split(body.get("prompt"))
    return Request(
        temperature=number(body.get("temperature")),
        messages_count=len(prompts),
        lines=inputs.lines(prompts),
        attributes=pick(body, chat.REQUEST, {}),
    )


def fold(reply: Reply, body: Any) -> None:
    """Fold a whole completion, or a chunk of one, into ``reply``: they have the same shape."""
    completion = fields(body)
    chat.head(reply, completion)
    for position, choice in enumerate(items(completion.get("choices"))):
        _choice(reply, fields(choice), position)


def _choice(reply: Reply, choice: Fields, position: int) -> None:
    index = choice.get("index")
    known = reply.choice(index if type(index) is int else position)
    said = text(choice.get("text"))
    known.length += len(said)
    known.keep(said, reply.keep_text, known.text)
    known.finish_reason = text(choice.get("finish_reason")) or known.finish_reason


COMPLETIONS = Operation("text_completion", request, fold, fold, inputs.sent_content("prompt"))
