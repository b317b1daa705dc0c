"""Images: ``POST /images/generations``, ``/edits`` and ``/variations``; the first two stream partial images.

Shapes: ``openai/types/images_response.py``, ``image_gen_stream_event.py``, ``image_edit_stream_event.py``.
Images are counted, never kept.
"""

from __future__ import annotations

from typing import Any

from openai_lifecycle import semconv
from openai_lifecycle.capture.facts import Fields, Operation, Reply, Request, fields, items, pick, text
from openai_lifecycle.capture.operations import chat, inputs
from openai_lifecycle.capture.operations.usage import usage

REQUEST = {name: chat.REQUEST[name] for name in ("n", "user", "safety_identifier")}


def request(body: Fields) -> Request:
    """Return the facts of a request for images."""
    return Request(
        lines=[inputs.prompt(body)],
        attributes=pick(body, REQUEST, {semconv.OUTPUT_TYPE: "image"}),
    )


def response(reply: Reply, body: Any) -> None:
    """Fold id, model, the number of images and the usage into ``reply``."""
    drawn = fields(body)
    reply.identify(drawn)  # Together sends both, OpenAI neither
    reply.choices_count = len(items(drawn.get("data")))
    usage(reply, drawn.get("usage"))


def chunk(reply: Reply, event: Any) -> None:
    """Fold one event into ``reply``; only completed images count, not partial ones."""
    drawn = fields(event)
    if text(drawn.get("type")).endswith(".completed"):
        reply.choices_count = (reply.choices_count or 0) + 1
        usage(reply, drawn.get("usage"))


IMAGES = Operation("image_generation", request, response, chunk, inputs.sent_content("prompt"))
