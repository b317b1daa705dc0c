"""The measured calls of the client, each answered from memory by a mock transport."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Final, NamedTuple

import httpx2
import openai

from tests import wire, wire_responses

CHUNKS: Final = 200
URL: Final = "https://api.openai.com/v1"
#: All headers that the API sends, so that code that reads headers pays for all of them.
HEADERS: Final = {
    "date": "Mon, 27 Jan 2025 14:30:26 GMT",
    "content-type": "application/json",
    "connection": "keep-alive",
    "access-control-expose-headers": "X-Request-ID",
    "openai-organization": "org-1",
    "openai-processing-ms": "412",
    "openai-project": "proj_1",
    "openai-version": "2020-10-01",
    "x-envoy-upstream-service-time": "420",
    "x-ratelimit-limit-requests": "10000",
    "x-ratelimit-limit-tokens": "2000000",
    "x-ratelimit-remaining-requests": "9999",
    "x-ratelimit-remaining-tokens": "1999978",
    "x-ratelimit-reset-requests": "6ms",
    "x-ratelimit-reset-tokens": "0s",
    "x-request-id": "req_0123456789abcdef",
    "cf-cache-status": "DYNAMIC",
    "server": "cloudflare",
    "x-content-type-options": "nosniff",
    "strict-transport-security": "max-age=31536000",
}
MESSAGES: Final = [
    {"role": "system", "content": "You are a helpful assistant who answers in one short sentence."},
    {
        "role": "user",
        "content": "What is the weather like in San Francisco today, and what time is it there?",
    },
]
_PARAMETERS: Final = {
    "type": "object",
    "properties": {"location": {"type": "string"}},
    "required": ["location"],
}
_TOOL: Final = {"name": "get_weather", "description": "Get the weather.", "parameters": _PARAMETERS}


class Outcome(NamedTuple):
    """What a hand-written span records of an answer, or of a stream's last chunk."""

    id: str
    model: str
    finish_reason: str
    input_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One call: ``method`` of a client with the arguments ``request``, answered with ``body``."""

    name: str
    method: str
    request: dict[str, Any]
    body: bytes
    outcome: Callable[[Any], Outcome]
    operation: str = "chat"
    content_type: str = "application/json"
    status: int = 200
    is_async: bool = False

    @property
    def is_streamed(self) -> bool:
        """Whether the answer is read chunk by chunk."""
        return bool(self.request.get("stream"))

    def client(self) -> Any:
        """Return a client that is answered from memory."""
        headers = {**HEADERS, "content-type": self.content_type}
        transport = httpx2.MockTransport(
            lambda _: httpx2.Response(self.status, headers=headers, content=self.body)
        )
        options: dict[str, Any] = {"api_key": "sk-benchmark-0123456789", "base_url": URL, "max_retries": 0}
        if self.is_async:
            return openai.AsyncOpenAI(http_client=httpx2.AsyncClient(transport=transport), **options)
        return openai.OpenAI(http_client=httpx2.Client(transport=transport), **options)

    def sender(self, client: Any) -> Callable[[], Any]:
        """Return a function that makes the call and returns the client's result."""
        method, request = attrgetter(self.method), self.request
        return lambda: method(client)(**request)


def _chat(answer: Any) -> Outcome:
    reason = answer.choices[0].finish_reason if answer.choices else "stop"
    return Outcome(
        answer.id, answer.model, reason, answer.usage.prompt_tokens, answer.usage.completion_tokens
    )


def _response(answer: Any) -> Outcome:
    return Outcome(answer.id, answer.model, "stop", answer.usage.input_tokens, answer.usage.output_tokens)


def _embeddings(answer: Any) -> Outcome:
    return Outcome("", answer.model, "", answer.usage.prompt_tokens, 0)


def _none(_: Any) -> Outcome:
    return Outcome("", "", "", 0, 0)


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


def events(values: Iterable[Any], end: str = "") -> bytes:
    """Return a stream of server-sent events."""
    return "".join(f"data: {json.dumps(value)}\n\n" for value in values).encode() + end.encode()


def chat_chunks(count: int) -> list[Any]:
    """Return the ``count`` chunks of a chat's stream: a role, texts, the finish reason and the usage."""
    texts = [wire.chunk({"content": " word"}) for _ in range(count - 3)]
    return [
        wire.chunk({"role": "assistant", "content": ""}),
        *texts,
        wire.chunk({}, "stop"),
        wire.chunk(usage=wire.USAGE),
    ]


def _response_events(count: int) -> list[Any]:
    said = wire_responses.message(" word" * (count - 3))
    whole = wire_responses.response(output=[said])
    delta: dict[str, Any] = {
        "type": "response.output_text.delta",
        "item_id": "msg_1",
        "output_index": 0,
        "content_index": 0,
    }
    values = [
        {
            "type": "response.created",
            "response": wire_responses.response(status="in_progress", output=[], usage=None),
        },
        *({**delta, "delta": " word", "logprobs": []} for _ in range(count - 3)),
        {"type": "response.output_item.done", "output_index": 0, "item": said},
        {"type": "response.completed", "response": whole},
    ]
    return [{**value, "sequence_number": number} for number, value in enumerate(values)]


_CHAT = Scenario(
    name="chat",
    method="chat.completions.create",
    request={"model": wire.MODEL, "messages": MESSAGES, "temperature": 0.2},
    body=_json(wire.completion(tools=False)),
    outcome=_chat,
)
_RESPONSES = Scenario(
    name="responses",
    method="responses.create",
    request={"model": wire.MODEL, "input": MESSAGES, "temperature": 0.2},
    body=_json(wire_responses.response(output=[wire_responses.message()])),
    outcome=_response,
)
_STREAMED: Final[dict[str, Any]] = {"stream": True, "stream_options": {"include_usage": True}}
_SCENARIOS: Final = (
    _CHAT,
    dataclasses.replace(
        _CHAT,
        name="chat with tools",
        request={**_CHAT.request, "tools": [{"type": "function", "function": _TOOL}]},
        body=_json(wire.completion()),
    ),
    dataclasses.replace(
        _CHAT,
        name="chat stream",
        request={**_CHAT.request, **_STREAMED},
        body=events(chat_chunks(CHUNKS), "data: [DONE]\n\n"),
        content_type="text/event-stream",
    ),
    _RESPONSES,
    dataclasses.replace(
        _RESPONSES,
        name="responses stream",
        request={**_RESPONSES.request, "stream": True},
        body=events(_response_events(CHUNKS)),
        content_type="text/event-stream",
        outcome=lambda event: _response(event.response),
    ),
    Scenario(
        name="embeddings",
        method="embeddings.create",
        operation="embeddings",
        request={"model": "text-embedding-3-small", "input": ["one text", "another text"]},
        body=_json(
            {
                "object": "list",
                "data": [{"object": "embedding", "index": i, "embedding": "AACAPwAAgD8="} for i in (0, 1)],
                "model": "text-embedding-3-small",
                "usage": {"prompt_tokens": 4, "total_tokens": 4},
            }
        ),
        outcome=_embeddings,
    ),
    dataclasses.replace(_CHAT, name="error", body=_json(wire.ERROR), status=400, outcome=_none),
)
_TWINS: Final = tuple(
    dataclasses.replace(scenario, name=f"async {scenario.name}", is_async=True)
    for scenario in _SCENARIOS
    if scenario.name in ("chat", "chat stream", "responses", "error")
)
SCENARIOS: Final = {
    scenario.name: scenario
    for scenario in (
        *_SCENARIOS,
        *_TWINS,
        # Its method is the client's class: see variants.py.
        Scenario(name="construction", method="", operation="", request={}, body=b"", outcome=_none),
    )
}
