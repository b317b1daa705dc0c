"""A small OpenAI-compatible server on loopback: no key, no network, standard library only.

    with offline_server.serve() as base_url:
        client = openai.OpenAI(base_url=base_url, api_key="offline")

    python examples/offline_server.py --port 8080

The wire format is OpenAI's; the "model" behind it is a few rules, so every answer is predictable:

* It repeats the question; after a tool result, it repeats the result.
* It calls the tools that the question names, or else the first one, with arguments made from the
  tool's JSON schema, until a tool result follows the question. It obeys `tool_choice`.
* It writes JSON that fits a `json_schema` format, and stops at the token limit (finish reason `length`).
* A token is up to eight characters of a word with the space before it. Ids count the requests.

Models that fail, on every endpoint: `no-such-model` is answered 404, `overloaded` 500, and
`rate-limited` 429 on the first attempt of each call (by `x-stainless-retry-count`), then normally.
The key `invalid` is refused with 401, and so is a request without a key; any other key is accepted.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import email.message
import email.parser
import email.policy
import http.server
import io
import itertools
import json
import math
import random
import re
import socket
import socketserver
import struct
import sys
import threading
import urllib.parse
import wave
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]

CREATED = 1_750_000_000  # every `created`, in seconds since 1970: answers do not depend on the clock
STORED_RESPONSES = 1000  # a long benchmark must not fill the memory
SNAPSHOTS = {  # the API answers a model's alias with the name of its snapshot
    "gpt-4.1-mini": "gpt-4.1-mini-2025-04-14",
    "gpt-4o-mini": "gpt-4o-mini-2024-07-18",
    "gpt-4o": "gpt-4o-2024-08-06",
}
OTHER_MODELS = ("text-embedding-3-small", "gpt-image-1", "tts-1", "whisper-1", "omni-moderation-latest")


# ---------------------------------------------------------------- requests and replies


@dataclass(frozen=True)
class Request:
    """One HTTP request. `path` has no version or deployment prefix; `number` counts from 1 per server."""

    method: str
    path: str
    query: dict[str, str]
    headers: email.message.Message
    body: Json
    number: int
    stored: dict[str, list[Json]]  # Responses API: id → states not read yet

    @property
    def streams(self) -> bool:
        """Return whether the reply is a stream of events."""
        return self.body.get("stream") in (True, "true") or self.query.get("stream") == "true"

    def id(self, prefix: str, *parts: int) -> str:
        """Make an id from the request's number."""
        return f"{prefix}{self.number:020x}" + "".join(f"{part:02x}" for part in parts)


@dataclass(frozen=True)
class File:
    """A reply of bytes."""

    content: bytes
    content_type: str


Reply = Json | File | Iterable[Json | str]  # JSON, bytes, or server-sent events


@dataclass(eq=False)
class Refusal(Exception):  # noqa: N818 - it is an answer, not a fault
    """An HTTP error in the API's shape."""

    status: int
    message: str
    type: str = "invalid_request_error"
    param: str | None = None
    code: str | None = None
    headers: dict[str, str] = field(default_factory=dict)

    def body(self) -> Json:
        """Return the error as the API writes it."""
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}


# ---------------------------------------------------------------- the model


@dataclass(frozen=True)
class ToolCall:
    """`kind` is `function` (the text is JSON arguments) or `custom` (the text is free input)."""

    id: str
    kind: str
    name: str
    text: str


@dataclass(frozen=True)
class Answer:
    """The model's answer: a text or tool calls, and the finish reason."""

    text: str
    calls: tuple[ToolCall, ...]
    finish_reason: str

    @property
    def tokens(self) -> int:
        """Count the tokens of the text and the calls."""
        return sum(len(tokens(part)) for part in (self.text, *(call.text for call in self.calls)))


def tokens(text: str) -> list[str]:
    """Split a text into tokens; joining them gives the text."""
    return re.findall(r"\s*\S{1,8}|\s+", text)


def plain_text(value: Any) -> str:
    """Find the text in a prompt, message, content part or item, or in a list of these."""
    if isinstance(value, list):
        return " ".join(filter(None, map(plain_text, value)))
    if isinstance(value, dict):
        return plain_text(value.get("content") or value.get("text") or value.get("output"))
    return value if isinstance(value, str) else ""


def think(
    request: Request, messages: list[Json], text_format: Json | None, limit: int | None, choice: int = 0
) -> Answer:
    """Answer a conversation; Chat Completions and Responses differ only in its format."""
    asked = max((i for i, message in enumerate(messages) if message.get("role") == "user"), default=-1)
    question = plain_text(messages[asked]) if asked >= 0 else ""
    results = [
        plain_text(message)
        for message in messages[asked + 1 :]
        if message.get("role") == "tool" or str(message.get("type", "")).endswith("_call_output")
    ]
    if tools := chosen_tools(request.body, question, answered=bool(results)):
        calls = (tool_call(request.id("call_", choice, i), tool, question) for i, tool in enumerate(tools))
        return Answer("", tuple(calls), "tool_calls")
    if text_format and text_format["type"] == "json_schema":
        text = json.dumps(example(inner(text_format)["schema"], question))
    elif text_format and text_format["type"] == "json_object":
        text = json.dumps({"question": question})
    elif results:
        text = f"The tool says: {'; '.join(results)}"
    else:
        text = f"This is the offline model. You asked: {question}"
    pieces = tokens(text)
    if limit is not None and len(pieces) > limit:
        return Answer("".join(pieces[:limit]), (), "length")
    return Answer(text, (), "stop")


def inner(thing: Json) -> Json:
    """Unwrap a tool, tool choice or format: Chat nests it under its type, Responses does not."""
    nested = thing.get(thing["type"])
    return nested if isinstance(nested, dict) else thing


def chosen_tools(body: Json, question: str, *, answered: bool) -> list[Json]:
    """Decide which tools to call now."""
    tools = [tool for tool in body.get("tools") or () if tool["type"] in ("function", "custom")]
    choice = body.get("tool_choice") or "auto"
    forced = inner(choice).get("name") if isinstance(choice, dict) else None
    if forced:
        return [tool for tool in tools if inner(tool)["name"] == forced]
    if choice == "none" or (answered and choice != "required"):
        return []
    return [tool for tool in tools if inner(tool)["name"] in question] or tools[:1]


def tool_call(call_id: str, tool: Json, question: str) -> ToolCall:
    """Call a tool with arguments made from the question."""
    about = inner(tool)
    arguments = json.dumps(example(about.get("parameters") or {"type": "object"}, question))
    return ToolCall(call_id, tool["type"], about["name"], question if tool["type"] == "custom" else arguments)


FORMATS = {
    "date": "2025-01-27",
    "date-time": "2025-01-27T14:30:25Z",
    "email": "someone@example.com",
    "time": "14:30:25Z",
    "uri": "https://example.com/",
    "uuid": "12345678-1234-4234-8234-123456789abc",
}


def example(schema: Json, question: str) -> Any:
    """Make a value that fits a JSON schema; its texts are the last name in the question, or `text`."""
    names = re.findall(r"(?<!^)\b[A-Z]\w*(?: [A-Z]\w*)*", question)
    text = names[-1] if names else "text"

    def value(node: Json, depth: int) -> Any:
        deep = depth >= 6  # ends a recursive type, with null or an empty list
        if "$ref" in node:
            target: Any = schema
            for key in node["$ref"].removeprefix("#").strip("/").split("/"):
                target = target[key] if key else target
            return value(target, depth + 1)
        for keyword in ("const", "default"):
            if keyword in node:
                return node[keyword]
        if "enum" in node:
            return node["enum"][0]
        variants = node.get("anyOf") or node.get("oneOf") or node.get("allOf")
        if variants:
            return value(variants[-1 if deep else 0], depth + 1)
        kind = node.get("type", "object" if "properties" in node else "string")
        kind = kind[0] if isinstance(kind, list) else kind
        if kind == "object":
            return {name: value(child, depth + 1) for name, child in node.get("properties", {}).items()}
        if kind == "array":
            length = max(node.get("minItems", 0), 0 if deep else 1)
            return [value(node.get("items", {}), depth + 1) for _ in range(length)]
        if kind in ("integer", "number"):
            return node.get("minimum", node.get("exclusiveMinimum", 0) + 1)
        return {"boolean": True, "null": None}.get(kind, FORMATS.get(node.get("format", ""), text))

    return value(schema, 0)


# ---------------------------------------------------------------- chat completions


def chat(request: Request) -> Reply:
    """Answer POST /chat/completions."""
    body = request.body
    limit = body.get("max_completion_tokens", body.get("max_tokens"))
    answers = [
        think(request, body["messages"], body.get("response_format"), limit, choice)
        for choice in range(body.get("n") or 1)
    ]
    head = {
        "id": request.id("chatcmpl-"),
        "object": "chat.completion",
        "created": CREATED,
        "model": SNAPSHOTS.get(body["model"], body["model"]),
    }
    tail = {
        "usage": chat_usage(plain_text(body["messages"]), sum(answer.tokens for answer in answers)),
        "service_tier": "default",
        "system_fingerprint": "fp_offline",
    }
    if request.streams:
        return chat_chunks(
            {**head, "object": "chat.completion.chunk"}, answers, tail, with_usage=include_usage(body)
        )
    return {**head, "choices": [chat_choice(index, answer) for index, answer in enumerate(answers)], **tail}


def chat_choice(index: int, answer: Answer) -> Json:
    """Write one choice of a completion."""
    message: Json = {"role": "assistant", "content": answer.text or None, "refusal": None, "annotations": []}
    if answer.calls:
        message["tool_calls"] = [{"id": call.id, **chat_call(call, call.text)} for call in answer.calls]
    return {"index": index, "message": message, "logprobs": None, "finish_reason": answer.finish_reason}


def chat_call(call: ToolCall, text: str) -> Json:
    """Write a tool call without its id; a fragment carries part of the text."""
    return {"type": call.kind, call.kind: {"name": call.name, INPUT_KEY[call.kind]: text}}


INPUT_KEY = {"function": "arguments", "custom": "input"}


def chat_chunks(head: Json, answers: list[Answer], tail: Json, *, with_usage: bool) -> Iterator[Json | str]:
    """Stream the choices interleaved, as if they were written at the same time."""
    usage = tail.pop("usage")
    head = {**head, **tail}
    nothing_yet = {"usage": None} if with_usage else {}
    for row in itertools.zip_longest(*map(chat_deltas, answers)):
        for index, part in enumerate(row):
            if part:
                delta, finish = part
                choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}
                yield {**head, "choices": [choice], **nothing_yet}
    if with_usage:
        yield {**head, "choices": [], "usage": usage}
    yield "[DONE]"


def chat_deltas(answer: Answer) -> Iterator[tuple[Json, str | None]]:
    """Stream the deltas of one choice, with its finish reason in the last."""
    yield {"role": "assistant", "content": None if answer.calls else "", "refusal": None}, None
    for token in tokens(answer.text):
        yield {"content": token}, None
    for index, call in enumerate(answer.calls):
        yield {"tool_calls": [{"index": index, "id": call.id, **chat_call(call, "")}]}, None
        for token in tokens(call.text):
            yield {"tool_calls": [{"index": index, call.kind: {INPUT_KEY[call.kind]: token}}]}, None
    yield {}, answer.finish_reason


def include_usage(body: Json) -> bool:
    """Return whether a stream ends with its usage."""
    return bool((body.get("stream_options") or {}).get("include_usage"))


def chat_usage(prompt: str, output: int) -> Json:
    """Write the usage of a chat completion or a completion."""
    return {
        "prompt_tokens": len(tokens(prompt)),
        "completion_tokens": output,
        "total_tokens": len(tokens(prompt)) + output,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": 0,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


# ---------------------------------------------------------------- responses


def create_response(request: Request) -> Reply:
    """Answer POST /responses."""
    body = request.body
    given = body.get("input") or []
    messages = [{"role": "user", "content": given}] if isinstance(given, str) else given
    answer = think(request, messages, (body.get("text") or {}).get("format"), body.get("max_output_tokens"))
    final = response_object(request, answer, plain_text([body.get("instructions"), messages]))
    states = [unfinished(final, "in_progress"), final] if final["background"] else [final]
    if final["store"]:
        request.stored[final["id"]] = states
        if len(request.stored) > STORED_RESPONSES:
            request.stored.pop(next(iter(request.stored)))
    if request.streams:
        return response_events(final)
    return unfinished(final, "queued") if final["background"] else final


def read_response(request: Request) -> Reply:
    """Answer GET /responses/{id}: each read of a background response advances its state."""
    states = stored_states(request)
    if request.streams:
        after = int(request.query.get("starting_after", -1))
        return (event for event in response_events(states[-1]) if event["sequence_number"] > after)
    return states.pop(0) if len(states) > 1 else states[0]


def cancel_response(request: Request) -> Reply:
    """Answer POST /responses/{id}/cancel."""
    states = stored_states(request)
    if not states[-1]["background"]:
        raise Refusal(400, "Cannot cancel a synchronous response.")
    if len(states) > 1:
        states[:] = [unfinished(states[-1], "cancelled")]
    return states[0]


def stored_states(request: Request) -> list[Json]:
    """Look up the response that the path names."""
    response_id = request.path.split("/")[2]
    if response_id not in request.stored:
        raise Refusal(404, f"Response with id '{response_id}' not found.")
    return request.stored[response_id]


def response_object(request: Request, answer: Answer, prompt: str) -> Json:
    """Write the final response."""
    body, stopped = request.body, answer.finish_reason == "length"
    return {
        "id": request.id("resp_"),
        "object": "response",
        "created_at": CREATED,
        "status": "incomplete" if stopped else "completed",
        "background": bool(body.get("background")),
        "completed_at": None if stopped else CREATED,
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if stopped else None,
        "instructions": body.get("instructions"),
        "max_output_tokens": body.get("max_output_tokens"),
        "metadata": body.get("metadata") or {},
        "model": SNAPSHOTS.get(body["model"], body["model"]),
        "output": response_output(request, answer, "incomplete" if stopped else "completed"),
        "parallel_tool_calls": body.get("parallel_tool_calls", True),
        "previous_response_id": body.get("previous_response_id"),
        "reasoning": {"effort": None, "summary": None, **(body.get("reasoning") or {})},
        "service_tier": "default",
        "store": body.get("store") is not False,
        "temperature": body.get("temperature", 1.0),
        "text": {"format": {"type": "text"}, "verbosity": "medium", **(body.get("text") or {})},
        "tool_choice": body.get("tool_choice", "auto"),
        "tools": body.get("tools", []),
        "top_p": body.get("top_p", 1.0),
        "truncation": "disabled",
        "usage": {
            "input_tokens": len(tokens(prompt)),
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": answer.tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": len(tokens(prompt)) + answer.tokens,
        },
        "user": body.get("user"),
    }


def response_output(request: Request, answer: Answer, status: str) -> list[Json]:
    """Write the output items: one message, or the calls."""
    if not answer.calls:
        part = {"type": "output_text", "annotations": [], "logprobs": [], "text": answer.text}
        item = {"id": request.id("msg_"), "type": "message", "status": status, "role": "assistant"}
        return [{**item, "content": [part]}]
    items = {"function": ("fc_", "function_call"), "custom": ("ctc_", "custom_tool_call")}
    output = []
    for index, call in enumerate(answer.calls):
        prefix, kind = items[call.kind]
        item = {"id": request.id(prefix, index), "type": kind, "status": status, "call_id": call.id}
        output.append({**item, "name": call.name, INPUT_KEY[call.kind]: call.text})
    return output


def unfinished(final: Json, status: str) -> Json:
    """Write the response before it has output."""
    later = {"completed_at": None, "incomplete_details": None, "usage": None}
    return {**final, "status": status, "output": [], **later}


def response_events(final: Json) -> Iterator[Json]:
    """Stream the numbered events that lead to this response."""

    def events() -> Iterator[Json]:
        started = unfinished(final, "queued" if final["background"] else "in_progress")
        yield {"type": "response.created", "response": started}
        if final["background"]:
            yield {"type": "response.queued", "response": started}
        yield {"type": "response.in_progress", "response": unfinished(final, "in_progress")}
        for index, item in enumerate(final["output"]):
            content = {key: type(item[key])() for key in ("content", "arguments", "input") if key in item}
            empty = {**item, "status": "in_progress", **content}
            yield {"type": "response.output_item.added", "output_index": index, "item": empty}
            for event in item_events(item):
                yield {**event, "item_id": item["id"], "output_index": index}
            yield {"type": "response.output_item.done", "output_index": index, "item": item}
        yield {"type": f"response.{final['status']}", "response": final}

    return ({**event, "sequence_number": number} for number, event in enumerate(events()))


def item_events(item: Json) -> Iterator[Json]:
    """Stream the events that fill one output item."""
    if item["type"] != "message":
        key, name = {
            "function_call": ("arguments", "response.function_call_arguments"),
            "custom_tool_call": ("input", "response.custom_tool_call_input"),
        }[item["type"]]
        yield from ({"type": f"{name}.delta", "delta": token} for token in tokens(item[key]))
        yield {"type": f"{name}.done", key: item[key]}
        return
    for index, part in enumerate(item["content"]):
        place = {"content_index": index, "logprobs": []}
        yield {"type": "response.content_part.added", "content_index": index, "part": {**part, "text": ""}}
        for token in tokens(part["text"]):
            yield {"type": "response.output_text.delta", "delta": token, **place}
        yield {"type": "response.output_text.done", "text": part["text"], **place}
        yield {"type": "response.content_part.done", "content_index": index, "part": part}


# ---------------------------------------------------------------- completions, embeddings, moderations


def inputs(value: Any) -> list[str]:
    """List the inputs of a request: one or several, each a text or a list of token numbers."""
    several = isinstance(value, list) and not all(isinstance(item, int) for item in value)
    items = value if several else [value]
    return [item if isinstance(item, str) else " ".join(map(str, item)) for item in items]


def completions(request: Request) -> Reply:
    """Answer POST /completions."""
    body, model = request.body, request.body["model"]
    prompts = inputs(body["prompt"])
    answers = [
        think(request, [{"role": "user", "content": prompt}], None, body.get("max_tokens"))
        for prompt in prompts
        for _ in range(body.get("n") or 1)
    ]
    head = {"id": request.id("cmpl-"), "object": "text_completion", "created": CREATED, "model": model}
    usage = chat_usage(" ".join(prompts), sum(answer.tokens for answer in answers))
    if request.streams:
        return completion_chunks(head, answers, usage if include_usage(body) else None)
    choices = [completion_choice(i, answer.text, answer.finish_reason) for i, answer in enumerate(answers)]
    return {**head, "choices": choices, "usage": usage}


def completion_choice(index: int, text: str, finish: str | None) -> Json:
    """Write one choice, or a piece of one."""
    return {"text": text, "index": index, "logprobs": None, "finish_reason": finish}


def completion_chunks(head: Json, answers: list[Answer], usage: Json | None) -> Iterator[Json | str]:
    """Stream the choices one after the other."""
    nothing_yet = {"usage": None} if usage else {}
    for index, answer in enumerate(answers):
        for token in tokens(answer.text):
            yield {**head, "choices": [completion_choice(index, token, None)], **nothing_yet}
        yield {**head, "choices": [completion_choice(index, "", answer.finish_reason)], **nothing_yet}
    if usage:
        yield {**head, "choices": [], "usage": usage}
    yield "[DONE]"


def embeddings(request: Request) -> Reply:
    """Answer POST /embeddings with unit vectors derived from the text."""
    body = request.body
    texts = inputs(body["input"])
    size = body.get("dimensions") or (3072 if body["model"] == "text-embedding-3-large" else 1536)

    def encoded(text: str) -> list[float] | str:
        numbers = random.Random(text)
        vector = [numbers.gauss(0, 1) for _ in range(size)]
        length = math.hypot(*vector)
        packed = struct.pack(f"<{size}f", *(x / length for x in vector))
        if body.get("encoding_format") == "base64":
            return base64.b64encode(packed).decode()
        return list(struct.unpack(f"<{size}f", packed))

    data = [{"object": "embedding", "index": i, "embedding": encoded(text)} for i, text in enumerate(texts)]
    used = sum(len(tokens(text)) for text in texts)
    usage = {"prompt_tokens": used, "total_tokens": used}
    return {"object": "list", "data": data, "model": body["model"], "usage": usage}


CATEGORIES = (
    *("harassment", "harassment/threatening", "hate", "hate/threatening", "illicit", "illicit/violent"),
    *("self-harm", "self-harm/intent", "self-harm/instructions"),
    *("sexual", "sexual/minors", "violence", "violence/graphic"),
)


def moderations(request: Request) -> Reply:
    """Answer POST /moderations: a text is flagged for the categories that it names."""
    given = request.body["input"]
    several = isinstance(given, list) and all(
        isinstance(item, str) for item in given
    )  # else the parts of one input
    results = []
    for text in map(plain_text, given if several else [given]):
        categories = {category: category in text.lower() for category in CATEGORIES}
        result = {
            "flagged": any(categories.values()),
            "categories": categories,
            "category_scores": {category: 0.99 if hit else 0.0001 for category, hit in categories.items()},
            "category_applied_input_types": {category: ["text"] for category in CATEGORIES},
        }
        results.append(result)
    model = request.body.get("model") or "omni-moderation-latest"
    return {"id": request.id("modr-"), "model": model, "results": results}


def models(_: Request) -> Reply:
    """Answer GET /models."""
    names = (*SNAPSHOTS, *OTHER_MODELS)
    data = [{"id": name, "object": "model", "created": CREATED, "owned_by": "system"} for name in names]
    return {"object": "list", "data": data}


# ---------------------------------------------------------------- images and audio


def png() -> bytes:
    """Draw one grey pixel."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
    pixels = zlib.compress(b"\0\x80")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def silence() -> bytes:
    """Return a tenth of a second of silence, as WAV."""
    audio = io.BytesIO()
    with wave.open(audio, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(24_000)
        writer.writeframes(bytes(2 * 2_400))
    return audio.getvalue()


def images(request: Request) -> Reply:
    """Answer POST /images/generations, /images/edits and /images/variations."""
    body = request.body
    model = body.get("model") or "dall-e-2"
    pixels = base64.b64encode(png()).decode()
    linked = model.startswith("dall-e") and body.get("response_format") != "b64_json"
    size = body.get("size") or "1024x1024"
    look = {"background": "opaque", "output_format": "png", "quality": "low", "size": size}
    prompt = len(tokens(body.get("prompt") or ""))
    usage = {
        "input_tokens": prompt,
        "input_tokens_details": {"image_tokens": 0, "text_tokens": prompt},
        "output_tokens": 272,
        "total_tokens": prompt + 272,
    }
    if request.streams:
        name = "image_edit" if request.path.endswith("/edits") else "image_generation"
        frame = {"created_at": CREATED, "b64_json": pixels, **look}
        count = int(body.get("partial_images") or 0)
        partial = {"type": f"{name}.partial_image", **frame}
        partials = [{**partial, "partial_image_index": index} for index in range(count)]
        return [*partials, {"type": f"{name}.completed", **frame, "usage": usage}]
    one = {"url": f"https://images.invalid/{request.id('img-')}.png"} if linked else {"b64_json": pixels}
    reply: Json = {"created": CREATED, "data": [one] * int(body.get("n") or 1)}
    if not model.startswith("dall-e"):
        reply.update(look, usage=usage)
    return reply


def speech(request: Request) -> Reply:
    """Answer POST /audio/speech; the bytes are WAV in every format."""
    kind = request.body.get("response_format") or "mp3"
    return File(silence(), "audio/mpeg" if kind == "mp3" else f"audio/{kind}")


def transcriptions(request: Request) -> Reply:
    """Answer POST /audio/transcriptions and /audio/translations."""
    body = request.body
    kind = body.get("response_format") or "json"
    text = f"This is what {body['file'].name} says."
    words = len(tokens(text))
    usage: Json = {"type": "duration", "seconds": 1}
    if "transcribe" in body["model"]:
        details = {"audio_tokens": 10, "text_tokens": 0}
        usage = {"type": "tokens", "input_tokens": 10, "input_token_details": details, "output_tokens": words}
        usage["total_tokens"] = 10 + words
    if request.streams:
        deltas = [{"type": "transcript.text.delta", "delta": token} for token in tokens(text)]
        return [*deltas, {"type": "transcript.text.done", "text": text, "usage": usage}]
    subtitles = {
        "text": f"{text}\n",
        "srt": f"1\n00:00:00,000 --> 00:00:01,000\n{text}\n\n",
        "vtt": f"WEBVTT\n\n00:00:00.000 --> 00:00:01.000\n{text}\n\n",
    }
    if kind in subtitles:
        return File(subtitles[kind].encode(), "text/plain; charset=utf-8")
    if kind != "verbose_json":
        return {"text": text} if request.path.endswith("/translations") else {"text": text, "usage": usage}
    segment = {"id": 0, "seek": 0, "start": 0.0, "end": 1.0, "text": text, "tokens": list(range(words))}
    scores = {"temperature": 0.0, "avg_logprob": -0.1, "compression_ratio": 1.0, "no_speech_prob": 0.01}
    task = "translate" if request.path.endswith("/translations") else "transcribe"
    about = {"task": task, "language": "english", "duration": 1.0}
    return {**about, "text": text, "segments": [{**segment, **scores}], "usage": usage}


# ---------------------------------------------------------------- routes

ROUTES: tuple[tuple[str, str, Callable[[Request], Reply], tuple[str, ...]], ...] = (
    # method, path, function, required parameters
    ("POST", r"/chat/completions", chat, ("model", "messages")),
    ("POST", r"/responses", create_response, ("model",)),
    ("GET", r"/responses/[^/]+", read_response, ()),
    ("POST", r"/responses/[^/]+/cancel", cancel_response, ()),
    ("POST", r"/embeddings", embeddings, ("model", "input")),
    ("POST", r"/completions", completions, ("model", "prompt")),
    ("POST", r"/images/(generations|edits)", images, ("prompt",)),
    ("POST", r"/images/variations", images, ("image",)),
    ("POST", r"/audio/speech", speech, ("model", "input", "voice")),
    ("POST", r"/audio/(transcriptions|translations)", transcriptions, ("model", "file")),
    ("POST", r"/moderations", moderations, ("input",)),
    ("GET", r"/models", models, ()),
)


def respond(request: Request) -> Reply:
    """Find the route and answer, or raise the Refusal that OpenAI would send."""
    check_key(request)
    for method, path, function, required in ROUTES:
        if method == request.method and re.fullmatch(path, request.path):
            check_model(request)
            for name in required:
                if name not in request.body:
                    message = f"Missing required parameter: '{name}'."
                    raise Refusal(400, message, param=name, code="missing_required_parameter")
            return function(request)
    raise Refusal(404, f"Invalid URL ({request.method} /v1{request.path})")


def check_key(request: Request) -> None:
    """Refuse a request without a valid key."""
    bearer = request.headers.get("authorization", "").removeprefix("Bearer").strip()
    key = bearer or request.headers.get("api-key", "")  # Azure's header
    if not key:
        raise Refusal(401, "You didn't provide an API key in an Authorization header using Bearer auth.")
    if key == "invalid":
        raise Refusal(401, "Incorrect API key provided: inv*lid.", code="invalid_api_key")


def check_model(request: Request) -> None:
    """Refuse requests to the models that fail."""
    model = request.body.get("model")
    if model == "no-such-model":
        message = f"The model `{model}` does not exist or you do not have access to it."
        raise Refusal(404, message, code="model_not_found")
    if model == "overloaded":
        raise Refusal(500, "The server had an error while processing your request.", type="server_error")
    if model == "rate-limited" and request.headers.get("x-stainless-retry-count", "0") == "0":
        raise Refusal(
            429,
            f"Rate limit reached for {model} on requests per min (RPM): Limit 3, Used 3, Requested 1.",
            type="requests",
            code="rate_limit_exceeded",
            headers={"retry-after-ms": "10", "x-ratelimit-remaining-requests": "0"},
        )


# ---------------------------------------------------------------- HTTP


@dataclass(frozen=True)
class Upload:
    """A file in a multipart body."""

    name: str
    content: bytes


def parse_body(content_type: str, content: bytes) -> Json:
    """Read a JSON or multipart body; of a form field given more than once, the last one counts."""
    if content_type.startswith("multipart/form-data"):
        head = f"Content-Type: {content_type}\r\n\r\n".encode()
        form = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + content)
        return dict(map(form_field, form.iter_parts()))
    try:
        body = json.loads(content or b"{}")
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise Refusal(400, "We could not parse the JSON body of your request.")
    return body


def form_field(part: email.message.Message) -> tuple[str, str | Upload]:
    """Read a form field, `image[]` like `image`."""
    name = str(part.get_param("name", header="content-disposition")).removesuffix("[]")
    content = part.get_payload(decode=True)
    assert isinstance(content, bytes)
    filename = part.get_filename()
    return name, content.decode() if filename is None else Upload(filename, content)


HEADERS = {
    "openai-organization": "offline",
    "openai-processing-ms": "12",
    "openai-version": "2020-10-01",
    "x-ratelimit-limit-requests": "10000",
    "x-ratelimit-limit-tokens": "200000",
    "x-ratelimit-remaining-requests": "9999",
    "x-ratelimit-remaining-tokens": "199984",
    "x-ratelimit-reset-requests": "6ms",
    "x-ratelimit-reset-tokens": "4ms",
}
PREFIX = re.compile(r"^/(v1|openai/v1|openai/deployments/[^/]+|openai)(?=/)")  # OpenAI's, and Azure's three


class Handler(http.server.BaseHTTPRequestHandler):
    """One connection: HTTP in, `respond`, HTTP out."""

    server: Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # otherwise head and body wait 40 ms for each other

    def do_GET(self) -> None:
        """Answer one request; GET and POST differ in the route table only."""
        content = self.rfile.read(int(self.headers.get("content-length") or 0))
        number = next(self.server.numbers)
        status, headers = 200, {**HEADERS, "x-request-id": f"req_{number:032x}"}
        reply: Reply
        try:
            url = urllib.parse.urlsplit(self.path)
            path, query = PREFIX.sub("", url.path), dict(urllib.parse.parse_qsl(url.query))
            body = parse_body(self.headers.get("content-type", ""), content)
            state = number, self.server.stored
            reply = respond(Request(self.command, path, query, self.headers, body, *state))
        except Refusal as refusal:
            status, reply = refusal.status, refusal.body()
            headers.update(refusal.headers)
        if isinstance(reply, dict):
            reply = File(json.dumps(reply).encode(), "application/json")
        if isinstance(reply, File):
            size = str(len(reply.content))
            self.send_head(status, {**headers, "content-type": reply.content_type, "content-length": size})
            self.wfile.write(reply.content)
            return
        stream = {"content-type": "text/event-stream; charset=utf-8", "transfer-encoding": "chunked"}
        self.send_head(status, {**headers, **stream})
        for event in reply:
            data = server_sent_event(event)
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.write(b"0\r\n\r\n")

    do_POST = do_GET  # noqa: N815 - the name that http.server looks for

    def send_head(self, status: int, headers: dict[str, str]) -> None:
        """Send the status line and the headers."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Print nothing: the terminal belongs to the program that uses the server."""


def server_sent_event(event: Json | str) -> bytes:
    """Write one event: named by its type if it has one, as the Responses API does."""
    if isinstance(event, str):
        return f"data: {event}\n\n".encode()
    name = f"event: {event['type']}\n" if "type" in event else ""
    return f"{name}data: {json.dumps(event)}\n\n".encode()


class Server(socketserver.ThreadingTCPServer):
    """A threading server; http.server.ThreadingHTTPServer would look its own address up in the DNS."""

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, port: int) -> None:
        self.numbers = itertools.count(1)
        self.stored: dict[str, list[Json]] = {}
        self._connections: set[socket.socket] = set()
        super().__init__(("127.0.0.1", port), Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Remember the connection, then serve it in a thread."""
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Forget the connection and close it."""
        self._connections.discard(request)
        super().shutdown_request(request)

    def server_close(self) -> None:
        """Stop listening and end the connections that clients keep open; their threads then return."""
        super().server_close()
        for connection in tuple(self._connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore a client that disconnects in the middle of an answer; anything else is a bug."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


@contextlib.contextmanager
def serve(port: int = 0) -> Iterator[str]:
    """Serve on 127.0.0.1 (port 0: any free one) until the block ends; yields the client's `base_url`.

    Raises OSError when the port is taken.
    """
    server = Server(port)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), name="offline-server", daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(description="An OpenAI-compatible server for work without a network.")
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1 (default: any free one)")
    port = parser.parse_args().port
    with serve(port) as base_url, contextlib.suppress(KeyboardInterrupt):
        print(f"Serving {base_url} until Ctrl+C. Any OPENAI_API_KEY will do.", flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
