"""What an OpenAI-compatible server sends: bodies and chunks of Chat Completions, made by hand."""

from __future__ import annotations

from typing import Any

MODEL = "gpt-4.1-mini"
ANSWERED_BY = "gpt-4.1-mini-2025-04-14"
WEATHER = '{"location": "San Francisco"}'
TIME = '{"zone":"UTC"}'
USAGE = {
    "prompt_tokens": 19,
    "completion_tokens": 10,
    "total_tokens": 29,
    "prompt_tokens_details": {"cached_tokens": 4, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 3, "audio_tokens": 0},
}


def tool_call(call_id: str, name: str, arguments: str) -> dict[str, Any]:
    """Return a function call as a message carries it."""
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def completion(*, tools: bool = True, **changes: Any) -> dict[str, Any]:
    """Return a chat completion: one choice with text and, unless told otherwise, two parallel tool calls."""
    calls = (
        [tool_call("call_1", "get_weather", WEATHER), tool_call("call_2", "get_time", TIME)]
        if tools
        else None
    )
    message = {"role": "assistant", "content": "Hello, world", "refusal": None, "tool_calls": calls}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": ANSWERED_BY,
        "service_tier": "default",
        "system_fingerprint": "fp_1",
        "choices": [
            {
                "index": 0,
                "message": message,
                "logprobs": None,
                "finish_reason": "tool_calls" if tools else "stop",
            }
        ],
        "usage": USAGE,
        **changes,
    }


def chunk(delta: dict[str, Any] | None = None, finish: str | None = None, **changes: Any) -> dict[str, Any]:
    """Return one chunk of a streamed completion."""
    choices = (
        [] if delta is None else [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]
    )
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": ANSWERED_BY,
        "service_tier": "default",
        "system_fingerprint": "fp_1",
        "choices": choices,
        "usage": None,
        **changes,
    }


def fragment(index: int, arguments: str, **first: Any) -> dict[str, Any]:
    """Return the delta with one fragment of a tool call; id and name come with the first."""
    function = {"arguments": arguments, **({"name": first["name"]} if first else {})}
    head = {"id": first["id"], "type": "function"} if first else {}
    return {"tool_calls": [{"index": index, **head, "function": function}]}


def chunks() -> list[dict[str, Any]]:
    """Return a whole stream: the completion of :func:`completion` in fragments."""
    return [
        chunk({"role": "assistant", "content": "", "refusal": None}),
        chunk({"content": "Hello"}),
        chunk({"content": ", world"}),
        chunk(fragment(0, "", id="call_1", name="get_weather")),
        chunk(fragment(0, WEATHER[:11])),
        chunk(fragment(0, WEATHER[11:])),
        chunk(fragment(1, "", id="call_2", name="get_time")),
        chunk(fragment(1, TIME)),
        chunk({}, "tool_calls"),
        chunk(usage=USAGE),
    ]


ERROR = {
    "error": {
        "message": "Unsupported value: the prompt",
        "type": "invalid_request_error",
        "param": None,
        "code": "bad",
    }
}
REQUEST: dict[str, Any] = {
    "model": MODEL,
    "messages": [{"role": "user", "content": "Hi there"}],
    "temperature": 0,
}
