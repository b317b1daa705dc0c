"""A small OpenAI-compatible server on loopback: no key, no network, standard library only.

    with offline_server.serve() as base_url:
        client = openai.OpenAI(base_url=base_url, api_key="offline")

    python examples/offline_server.py --port 8080

It serves chat completions, responses and embeddings, plain and streamed. The wire format is OpenAI's; the "model"
behind it is a few rules, so every answer is predictable:

* It repeats the question; after a tool result, it repeats the result.
* It calls the tools that the question names, or else the first one, with arguments made from the
  tool's JSON schema, until a tool result follows the question. It obeys `tool_choice`.
* It writes JSON that fits a `json_schema` format, and stops at the token limit (finish reason `length`).
* A token is up to eight characters of a word with the space before it. Ids count the requests.

Three models fail, on every endpoint: `no-such-model` with 404, `overloaded` with 500, and `rate-limited` with 429 at
the first attempt of each call (by `x-stainless-retry-count`); later attempts succeed.
The key `invalid` is refused with 401, and so is a request without a key; any other key is accepted.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import email.message
import http.server
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
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]

CREATED = 1_750_000_000  # every `created`, in seconds since 1970: answers do not depend on the clock
SNAPSHOTS = {  # the API answers a model's alias with the name of its snapshot
    "gpt-4.1-mini": "gpt-4.1-mini-2025-04-14",
    "gpt-4o-mini": "gpt-4o-mini-2024-07-18",
    "gpt-4o": "gpt-4o-2024-08-06",
}


# ---------------------------------------------------------------- requests and replies


@dataclass(frozen=True)
class Request:
    """One HTTP request. `path` has no version or deployment prefix; `number` counts from 1 per server."""

    method: str
    path: str
    headers: email.message.Message
    body: Json
    number: int

    @property
    def streams(self) -> bool:
        """Return whether the reply is a stream of events."""
        return self.body.get("stream") is True

    def id(self, prefix: str, *parts: int) -> str:
        """Make an id from the request's number."""
        return f"{prefix}{self.number:020x}" + "".join(f"{part:02x}" for part in parts)


Reply = Json | Iterable[Json | str]  # JSON, or server-sent events


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
    """A call of one of the request's functions; `arguments` is JSON."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True)
class Answer:
    """The model's answer: a text or tool calls, and the finish reason."""

    text: str
    calls: tuple[ToolCall, ...]
    finish_reason: str

    @property
    def tokens(self) -> int:
        """Count the tokens of the text and the calls."""
        return sum(len(tokens(part)) for part in (self.text, *(call.arguments for call in self.calls)))


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
    tools = [tool for tool in body.get("tools") or () if tool["type"] == "function"]
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
    return ToolCall(call_id, about["name"], arguments)


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
        with_usage = bool((body.get("stream_options") or {}).get("include_usage"))
        return chat_chunks({**head, "object": "chat.completion.chunk"}, answers, tail, with_usage=with_usage)
    return {**head, "choices": [chat_choice(index, answer) for index, answer in enumerate(answers)], **tail}


def chat_choice(index: int, answer: Answer) -> Json:
    """Write one choice of a completion."""
    message: Json = {"role": "assistant", "content": answer.text or None, "refusal": None, "annotations": []}
    if answer.calls:
        message["tool_calls"] = [{"id": call.id, **chat_call(call, call.arguments)} for call in answer.calls]
    return {"index": index, "message": message, "logprobs": None, "finish_reason": answer.finish_reason}


def chat_call(call: ToolCall, arguments: str) -> Json:
    """Write a tool call without its id; the first fragment of a stream has no arguments."""
    return {"type": "function", "function": {"name": call.name, "arguments": arguments}}


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
        for token in tokens(call.arguments):
            yield {"tool_calls": [{"index": index, "function": {"arguments": token}}]}, None
    yield {}, answer.finish_reason


def chat_usage(prompt: str, output: int) -> Json:
    """Write the usage of a chat completion."""
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
    return response_events(final) if request.streams else final


def response_object(request: Request, answer: Answer, prompt: str) -> Json:
    """Write the final response."""
    body, stopped = request.body, answer.finish_reason == "length"
    return {
        "id": request.id("resp_"),
        "object": "response",
        "created_at": CREATED,
        "status": "incomplete" if stopped else "completed",
        "background": False,
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
    return [
        {
            "id": request.id("fc_", index),
            "type": "function_call",
            "status": status,
            "call_id": call.id,
            "name": call.name,
            "arguments": call.arguments,
        }
        for index, call in enumerate(answer.calls)
    ]


def response_events(final: Json) -> Iterator[Json]:
    """Stream the numbered events that lead to this response."""

    def events() -> Iterator[Json]:
        later = {"completed_at": None, "incomplete_details": None, "usage": None}
        started = {**final, "status": "in_progress", "output": [], **later}
        yield {"type": "response.created", "response": started}
        yield {"type": "response.in_progress", "response": started}
        for index, item in enumerate(final["output"]):
            content = {key: type(item[key])() for key in ("content", "arguments") if key in item}
            empty = {**item, "status": "in_progress", **content}
            yield {"type": "response.output_item.added", "output_index": index, "item": empty}
            for event in item_events(item):
                yield {**event, "item_id": item["id"], "output_index": index}
            yield {"type": "response.output_item.done", "output_index": index, "item": item}
        yield {"type": f"response.{final['status']}", "response": final}

    return ({**event, "sequence_number": number} for number, event in enumerate(events()))


def item_events(item: Json) -> Iterator[Json]:
    """Stream the events that fill one output item."""
    if item["type"] == "function_call":
        name = "response.function_call_arguments"
        yield from ({"type": f"{name}.delta", "delta": token} for token in tokens(item["arguments"]))
        yield {"type": f"{name}.done", "name": item["name"], "arguments": item["arguments"]}
        return
    for index, part in enumerate(item["content"]):
        place = {"content_index": index, "logprobs": []}
        yield {"type": "response.content_part.added", "content_index": index, "part": {**part, "text": ""}}
        for token in tokens(part["text"]):
            yield {"type": "response.output_text.delta", "delta": token, **place}
        yield {"type": "response.output_text.done", "text": part["text"], **place}
        yield {"type": "response.content_part.done", "content_index": index, "part": part}


# ---------------------------------------------------------------- embeddings


def embeddings(request: Request) -> Reply:
    """Answer POST /embeddings with unit vectors derived from each text, or list of token numbers."""
    body = request.body
    given = body["input"]
    several = isinstance(given, list) and not all(isinstance(item, int) for item in given)
    texts = [
        item if isinstance(item, str) else " ".join(map(str, item))
        for item in (given if several else [given])
    ]
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


# ---------------------------------------------------------------- routes

#: Path → the function that answers a POST, and the parameters that it needs.
ROUTES: dict[str, tuple[Callable[[Request], Reply], tuple[str, ...]]] = {
    "/chat/completions": (chat, ("model", "messages")),
    "/responses": (create_response, ("model",)),
    "/embeddings": (embeddings, ("model", "input")),
}


def respond(request: Request) -> Reply:
    """Find the route and answer, or raise the Refusal that OpenAI would send."""
    check_key(request)
    if request.method != "POST" or request.path not in ROUTES:
        raise Refusal(404, f"Invalid URL ({request.method} /v1{request.path})")
    check_model(request)
    answer, required = ROUTES[request.path]
    for name in required:
        if name not in request.body:
            message = f"Missing required parameter: '{name}'."
            raise Refusal(400, message, param=name, code="missing_required_parameter")
    return answer(request)


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


def parse_body(content: bytes) -> Json:
    """Read a JSON body."""
    try:
        body = json.loads(content or b"{}")
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise Refusal(400, "We could not parse the JSON body of your request.")
    return body


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

    def do_POST(self) -> None:
        """Answer one request."""
        content = self.rfile.read(int(self.headers.get("content-length") or 0))
        number = next(self.server.numbers)
        status, headers = 200, {**HEADERS, "x-request-id": f"req_{number:032x}"}
        reply: Reply
        try:
            path = PREFIX.sub("", urllib.parse.urlsplit(self.path).path)
            reply = respond(Request(self.command, path, self.headers, parse_body(content), number))
        except Refusal as refusal:
            status, reply = refusal.status, refusal.body()
            headers.update(refusal.headers)
        if isinstance(reply, dict):
            data = json.dumps(reply).encode()
            plain = {"content-type": "application/json", "content-length": str(len(data))}
            self.send_head(status, {**headers, **plain})
            self.wfile.write(data)
            return
        stream = {"content-type": "text/event-stream; charset=utf-8", "transfer-encoding": "chunked"}
        self.send_head(status, {**headers, **stream})
        for event in reply:
            data = server_sent_event(event)
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.write(b"0\r\n\r\n")

    do_GET = do_POST  # noqa: N815 - the name that http.server looks for; it is refused

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
