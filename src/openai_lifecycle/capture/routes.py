"""The tables of operations, (method, path) → operation, and of connections. The one place to add an endpoint.

Calls that are in neither table pass through untouched.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Final
from urllib.parse import unquote

from openai_lifecycle.capture.facts import Fields, Operation
from openai_lifecycle.capture.operations.audio import SPEECH, TRANSCRIPTION, TRANSLATION
from openai_lifecycle.capture.operations.chat import CHAT
from openai_lifecycle.capture.operations.completions import COMPLETIONS
from openai_lifecycle.capture.operations.embeddings import EMBEDDINGS
from openai_lifecycle.capture.operations.images import IMAGES
from openai_lifecycle.capture.operations.moderations import MODERATION
from openai_lifecycle.capture.operations.other import (
    AGENT_SESSION,
    BATCH,
    DECISION,
    EVALUATION,
    RUN_OF_THREAD,
    VIDEO,
)
from openai_lifecycle.capture.operations.responses import CANCEL, COMPACT, FETCH, RESPONSES

ROUTES: Final[Mapping[tuple[str, str], Operation]] = {
    ("post", "/chat/completions"): CHAT,
    ("post", "/responses"): RESPONSES,
    ("post", "/responses/compact"): COMPACT,
    ("get", "/responses/{id}"): FETCH,
    ("post", "/responses/{id}/cancel"): CANCEL,
    ("post", "/completions"): COMPLETIONS,
    ("post", "/embeddings"): EMBEDDINGS,
    ("post", "/images/generations"): IMAGES,
    ("post", "/images/edits"): IMAGES,
    ("post", "/images/variations"): IMAGES,
    ("post", "/audio/speech"): SPEECH,
    ("post", "/audio/transcriptions"): TRANSCRIPTION,
    ("post", "/audio/translations"): TRANSLATION,
    ("post", "/moderations"): MODERATION,
    ("post", "/decisions"): DECISION,
    ("post", "/videos"): VIDEO,
    ("post", "/videos/edits"): VIDEO,
    ("post", "/videos/extensions"): VIDEO,
    ("post", "/videos/{id}/remix"): VIDEO,
    ("post", "/batches"): BATCH,
    ("post", "/evals/{id}/runs"): EVALUATION,
    ("post", "/agents/sessions"): AGENT_SESSION,
    ("post", "/threads/runs"): RUN_OF_THREAD,
    ("post", "/threads/{id}/runs"): RUN_OF_THREAD,
    ("post", "/threads/{id}/runs/{id}/submit_tool_outputs"): RUN_OF_THREAD,
}

#: Module of WebSocket classes → (prefix of their names, API in ``sockets.APIS``). A module
#: is patched when the application imports it; we import none.
CONNECTIONS: Final[Mapping[str, tuple[str, str]]] = {
    "openai.resources.responses.responses": ("Responses", "responses"),
    "openai.resources.beta.responses.responses": ("Responses", "responses"),
    "openai.resources.realtime.realtime": ("Realtime", "realtime"),
    "openai.resources.beta.realtime.realtime": ("Realtime", "realtime"),
    "openai.resources.realtime.translations.translations": ("Translations", "realtime"),
    "openai.resources.live.live": ("Live", "live"),
    "openai.resources.live.forks": ("Forks", "live"),
    "openai.resources.live.sideband": ("Sideband", "live"),
}


@lru_cache(maxsize=256)
def find(method: str, url: str) -> tuple[Operation, Fields] | None:
    """Return the operation that serves ``method url`` and the path's ``id``, if any; ``None`` if none does.

    ``url`` is as the resource classes pass it: a path, still without Azure's ``/deployments/…`` prefix, which
    ``_build_request`` adds later (``openai/lib/azure.py``); the beta resources append a query. Every second
    segment of a path may be an id: ``/responses/{id}/cancel``; the first id is returned.
    """
    method, path = method.lower(), "/" + url.partition("?")[0].strip("/")
    operation = ROUTES.get((method, path))
    if operation is not None:
        return operation, {}
    segments = path[1:].split("/")
    ids = segments[1::2]
    segments[1::2] = ["{id}"] * len(ids)
    operation = ROUTES.get((method, "/" + "/".join(segments)))
    return None if operation is None else (operation, {"id": unquote(ids[0])})
