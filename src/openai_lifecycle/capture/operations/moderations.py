"""Moderations: ``POST /moderations``; shape: ``openai/types/moderation_create_response.py``."""

from __future__ import annotations

from typing import Any

from openai_lifecycle.capture.facts import Fields, Operation, Reply, Request, fields, items
from openai_lifecycle.capture.operations import inputs


def request(body: Fields) -> Request:
    """Return the facts of a request for a moderation."""
    given = inputs.split(body.get("input"))
    return Request(messages_count=len(given), lines=inputs.lines(given))


def response(reply: Reply, body: Any) -> None:
    """Fold id, model and the number of results into ``reply``."""
    judged = fields(body)
    reply.identify(judged)
    reply.choices_count = len(items(judged.get("results")))


MODERATION = Operation("moderation", request, response)
