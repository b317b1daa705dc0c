"""What an OpenAI-compatible server sends: bodies and events of the Responses API, made by hand."""

from __future__ import annotations

from typing import Any

from tests.wire import ANSWERED_BY, MODEL, TIME, WEATHER

TEXT = "Hello, world"
USAGE = {
    "input_tokens": 19,
    "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 2},
    "output_tokens": 10,
    "output_tokens_details": {"reasoning_tokens": 0},
    "total_tokens": 29,
}
REQUEST: dict[str, Any] = {"model": MODEL, "input": "Hi there", "temperature": 0}


def message(text: str = TEXT, **changes: Any) -> dict[str, Any]:
    """Return an output message."""
    part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    item = {"id": "msg_1", "type": "message", "status": "completed", "role": "assistant", "content": [part]}
    return {**item, **changes}


def function_call(
    call_id: str = "call_1", name: str = "get_weather", arguments: str = WEATHER
) -> dict[str, Any]:
    """Return a function call."""
    item = {"id": f"fc_{call_id}", "type": "function_call", "status": "completed"}
    return {**item, "call_id": call_id, "name": name, "arguments": arguments}


REASONING = {"id": "rs_1", "type": "reasoning", "summary": [{"type": "summary_text", "text": "Thinking"}]}


def output() -> list[dict[str, Any]]:
    """Return a thought, a message and two function calls."""
    return [REASONING, message(), function_call(), function_call("call_2", "get_time", TIME)]


def response(**changes: Any) -> dict[str, Any]:
    """Return a whole response."""
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "status": "completed",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "model": ANSWERED_BY,
        "output": output(),
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "service_tier": "default",
        "temperature": 1.0,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "usage": USAGE,
        **changes,
    }


def pending(status: str = "queued", **changes: Any) -> dict[str, Any]:
    """Return a response that the server has yet to generate."""
    return response(status=status, output=[], usage=None, **changes)


FAILED = response(
    status="failed",
    output=[],
    usage=None,
    error={"code": "server_error", "message": "The model is on fire: the prompt"},
)


def events(final: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    """Return a whole stream: the events that lead to ``final``."""
    final = response() if final is None else final
    made: list[dict[str, Any]] = [
        {"type": "response.created", "response": pending("in_progress")},
        {"type": "response.in_progress", "response": pending("in_progress")},
    ]
    for index, item in enumerate(final["output"]):
        made += _item_events(index, item)
    made.append({"type": f"response.{final['status']}", "response": final})
    return [{**event, "sequence_number": number} for number, event in enumerate(made)]


def _item_events(index: int, item: dict[str, Any]) -> list[dict[str, Any]]:
    place = {"output_index": index, "item_id": item["id"]}
    blank: dict[str, Any] = {key: type(item[key])() for key in ("content", "arguments") if key in item}
    empty = {**item, **blank}
    made: list[dict[str, Any]] = [
        {"type": "response.output_item.added", "output_index": index, "item": empty}
    ]
    for number, part in enumerate(item.get("content", [])):
        where = {**place, "content_index": number}
        made.append({"type": "response.content_part.added", **where, "part": {**part, "text": ""}})
        delta = {"type": "response.output_text.delta", **where, "logprobs": []}
        made += [{**delta, "delta": text} for text in (part["text"][:5], part["text"][5:])]
        made.append({"type": "response.output_text.done", **where, "text": part["text"], "logprobs": []})
        made.append({"type": "response.content_part.done", **where, "part": part})
    if "arguments" in item:
        delta = {"type": "response.function_call_arguments.delta", **place}
        made += [{**delta, "delta": text} for text in (item["arguments"][:7], item["arguments"][7:])]
        done = {"arguments": item["arguments"], "name": item["name"]}
        made.append({"type": "response.function_call_arguments.done", **place, **done})
    made.append({"type": "response.output_item.done", "output_index": index, "item": item})
    return made
