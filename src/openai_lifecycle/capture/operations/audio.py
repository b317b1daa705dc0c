"""Audio: ``POST /audio/speech``, ``/audio/transcriptions`` (also streamed) and ``/audio/translations``.

Shapes: ``openai/types/audio``. Speech is bytes, and a transcript in one of the text formats is a plain
string; both pass through unread. A recording's words belong to the application: the transcript is not
captured as content, and ``response_length`` does not count it.
"""

from __future__ import annotations

from typing import Any

from openai_lifecycle import semconv
from openai_lifecycle.capture import content
from openai_lifecycle.capture.facts import (
    Fields,
    Operation,
    Reply,
    Request,
    double,
    fields,
    number,
    pick,
    text,
)
from openai_lifecycle.capture.operations import inputs
from openai_lifecycle.capture.operations.usage import usage

REQUEST = {"temperature": (semconv.TEMPERATURE, double)}


def request(body: Fields) -> Request:
    """Return the facts of a request for a transcription or translation."""
    return Request(
        temperature=number(body.get("temperature")),
        lines=[inputs.prompt(body)],
        attributes=pick(body, REQUEST, {}),
    )


def speech_request(body: Fields) -> Request:
    """Return the facts of a request for speech."""
    return Request(
        lines=content.parts(body.get("input")),
        attributes={semconv.OUTPUT_TYPE: "speech"},
    )


def fold(reply: Reply, body: Any) -> None:
    """Fold the usage of a whole result, or of a stream's last event, into ``reply``, and the model if it is named."""
    said = fields(body)
    reply.model = text(said.get("model")) or reply.model  # Mistral names it, OpenAI does not
    usage(reply, said.get("usage"))


SPEECH = Operation("speech", speech_request, fold, fold, inputs.sent_content("input"))
TRANSCRIPTION = Operation("transcription", request, fold, fold)
TRANSLATION = Operation("translation", request, fold, fold)
