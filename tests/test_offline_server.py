"""The examples' offline server against the real client, over a real socket.

Every object that comes back is validated against the client's own type: the client itself takes
whatever a server sends. Older clients lack the names of newer things, so this needs the newest major.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import http.client
import json
import socket
import struct
import subprocess
import sys
import threading
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from operator import attrgetter
from pathlib import Path
from typing import Any

import offline_server
import openai
import pydantic
import pytest

from tests.limits import HANGS, until

WEATHER = {
    "name": "get_weather",
    "description": "The weather in a place.",
    "parameters": {
        "type": "object",
        "properties": {
            "location": {"type": "string"},
            "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
        },
        "required": ["location", "unit"],
    },
}
CHAT_WEATHER = {"type": "function", "function": WEATHER}
CHAT_TIME = {"type": "function", "function": {"name": "get_time", "parameters": {"type": "object"}}}
WEATHER_ARGUMENTS = '{"location": "San Francisco", "unit": "celsius"}'

Call = Callable[..., Any]


@pytest.fixture(params=["sync", "async"])
def call(request: pytest.FixtureRequest, base_url: str) -> Call:
    """Call a method by its path, with both clients; a stream comes back as the list of its events.

    `typed=False` is for the few places where the client's types do not have what the API sends.
    """

    def sync_call(path: str, api_key: str, arguments: dict[str, Any]) -> Any:
        with openai.OpenAI(base_url=base_url, api_key=api_key, max_retries=1) as client:
            result = attrgetter(path)(client)(**arguments)
            return list(result) if isinstance(result, openai.Stream) else result

    async def async_call(path: str, api_key: str, arguments: dict[str, Any]) -> Any:
        async with openai.AsyncOpenAI(base_url=base_url, api_key=api_key, max_retries=1) as client:
            result = await attrgetter(path)(client)(**arguments)
            return [event async for event in result] if isinstance(result, openai.AsyncStream) else result

    def either_call(path: str, api_key: str = "offline", typed: bool = True, **arguments: Any) -> Any:
        result = (
            sync_call(path, api_key, arguments)
            if request.param == "sync"
            else asyncio.run(async_call(path, api_key, arguments))
        )
        return valid(result) if typed else result

    return either_call


def valid(result: Any) -> Any:
    """Return the result; raise ValidationError when it, or one of its events, is not what its type says."""
    for one in result if isinstance(result, list) else [result]:
        if isinstance(one, pydantic.BaseModel) and int(openai.VERSION.split(".")[0]) >= 3:
            type(one).model_validate(one.model_dump(by_alias=True, exclude_unset=True, warnings=False))
    return result


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


# ---------------------------------------------------------------- chat completions


def test_chat_repeats_the_question_and_counts_its_tokens(call: Call) -> None:
    """A plain chat call has an answer, the model's snapshot, and usage that adds up."""
    reply = call("chat.completions.create", model="gpt-4o-mini", messages=[user("What is a span?")])
    assert reply.choices[0].message.content == "This is the offline model. You asked: What is a span?"
    assert (reply.choices[0].finish_reason, reply.model) == ("stop", "gpt-4o-mini-2024-07-18")
    assert reply.usage.prompt_tokens == len(["What", " is", " a", " span?"])
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens


@pytest.mark.parametrize("with_usage", [False, True])
def test_chat_stream_adds_up_to_the_plain_answer(call: Call, with_usage: bool) -> None:
    """Streamed choices arrive side by side, equal the plain ones, and usage comes last, when asked for."""
    question: dict[str, Any] = {"model": "gpt-4o", "messages": [user("Why?")], "n": 2}
    plain = call("chat.completions.create", **question)
    options = {"stream_options": {"include_usage": True}} if with_usage else {}
    chunks = call("chat.completions.create", stream=True, **question, **options)
    texts, finishes = ["", ""], {}
    for choice in (choice for chunk in chunks for choice in chunk.choices):
        texts[choice.index] += choice.delta.content or ""
        if choice.finish_reason:
            finishes[choice.index] = choice.finish_reason
    assert texts == [choice.message.content for choice in plain.choices]
    assert finishes == {0: "stop", 1: "stop"}
    assert [chunk.choices[0].index for chunk in chunks[:4]] == [0, 1, 0, 1]
    assert len({chunk.id for chunk in chunks}) == 1
    assert [chunk.usage for chunk in chunks if chunk.usage] == ([plain.usage] if with_usage else [])
    assert bool(chunks[-1].choices) is not with_usage


@pytest.mark.parametrize("stream", [False, True])
def test_chat_calls_a_tool_and_then_answers_from_its_result(call: Call, stream: bool) -> None:
    """With tools and no result the model calls one, whole or in fragments; with a result it answers."""
    messages: list[Any] = [user("What is the weather in San Francisco?")]
    arguments: dict[str, Any] = {"model": "gpt-4o", "tools": [CHAT_WEATHER, CHAT_TIME], "stream": stream}
    message, finish = chat_message(call("chat.completions.create", messages=messages, **arguments))
    assert (message["content"], finish) == (None, "tool_calls")
    [tool_call] = message["tool_calls"]
    assert tool_call["id"].startswith("call_")
    assert tool_call["function"] == {"name": "get_weather", "arguments": WEATHER_ARGUMENTS}

    messages += [message, {"role": "tool", "tool_call_id": tool_call["id"], "content": "18 degrees"}]
    message, finish = chat_message(call("chat.completions.create", messages=messages, **arguments))
    assert (message["content"], finish) == ("The tool says: 18 degrees", "stop")

    messages += [message, user("And in Paris?")]
    message, finish = chat_message(call("chat.completions.create", messages=messages, **arguments))
    assert "Paris" in message["tool_calls"][0]["function"]["arguments"], "an older result answers nothing new"


@pytest.mark.parametrize("stream", [False, True])
def test_chat_calls_every_tool_that_the_question_names(call: Call, stream: bool) -> None:
    """Parallel calls have ids of their own and keep their order."""
    messages = [user("Use get_time, then get_weather.")]
    tools = [CHAT_WEATHER, CHAT_TIME]
    reply = call("chat.completions.create", model="gpt-4o", messages=messages, tools=tools, stream=stream)
    message, _ = chat_message(reply)
    first, second = message["tool_calls"]
    assert first["id"] != second["id"]
    assert [first["function"]["name"], second["function"]["name"]] == ["get_weather", "get_time"]
    assert json.loads(first["function"]["arguments"]) == {"location": "text", "unit": "celsius"}
    assert second["function"]["arguments"] == "{}"


@pytest.mark.parametrize(
    ("choice", "called"),
    [
        ("none", []),
        ("auto", ["get_weather"]),
        ("required", ["get_weather"]),
        ({"type": "function", "function": {"name": "get_time"}}, ["get_time"]),
    ],
)
def test_chat_obeys_tool_choice(call: Call, choice: Any, called: list[str]) -> None:
    """`tool_choice` turns tools off or names the one to call."""
    tools = [CHAT_WEATHER, CHAT_TIME]
    messages = [user("Hello")]
    reply = call("chat.completions.create", model="m", messages=messages, tools=tools, tool_choice=choice)
    assert [each.function.name for each in reply.choices[0].message.tool_calls or []] == called


def chat_message(reply: Any) -> tuple[dict[str, Any], str]:
    """Return the first choice's message and finish reason, put together from fragments if need be."""
    if not isinstance(reply, list):
        choice = reply.choices[0]
        return choice.message.to_dict(), choice.finish_reason
    message: dict[str, Any] = {"role": "assistant", "content": None}
    calls: dict[int, dict[str, Any]] = {}
    for choice in (choice for chunk in reply for choice in chunk.choices):
        delta = choice.delta.to_dict()
        if delta.get("content"):
            message["content"] = (message["content"] or "") + delta["content"]
        for part in delta.get("tool_calls", []):
            index = part.pop("index")
            if "id" in part:
                calls[index] = part
                continue
            for kind, value in part.items():
                for key, text in value.items():
                    calls[index][kind][key] += text
    if calls:
        message["tool_calls"] = [calls[index] for index in sorted(calls)]
    return message, reply[-1].choices[0].finish_reason


@pytest.mark.parametrize("stream", [False, True])
def test_chat_stops_at_the_token_limit(call: Call, stream: bool) -> None:
    """An answer longer than `max_completion_tokens` is cut and says so."""
    limits = {"max_completion_tokens": 2, "stream": stream}
    reply = call("chat.completions.create", model="gpt-4o", messages=[user("Hi")], **limits)
    message, finish = chat_message(reply)
    assert (message["content"], finish) == ("This is", "length")


def test_chat_writes_json(call: Call) -> None:
    """`json_object` and `json_schema` are answered with JSON, and the schema is followed."""
    schema = {"name": "place", "schema": WEATHER["parameters"]}
    for wanted, expected in [
        ({"type": "json_object"}, {"question": "Where is Rome?"}),
        ({"type": "json_schema", "json_schema": schema}, {"location": "Rome", "unit": "celsius"}),
        ({"type": "text"}, None),
    ]:
        reply = call(
            "chat.completions.create",
            model="gpt-4o",
            messages=[user("Where is Rome?")],
            response_format=wanted,
        )
        text = reply.choices[0].message.content
        assert text.startswith("This is") if expected is None else json.loads(text) == expected


class Reading(pydantic.BaseModel):
    celsius: float
    humidity: int = pydantic.Field(ge=3)
    day: pydantic.AwareDatetime


class Station(pydantic.BaseModel):
    """A schema with most of what pydantic writes: references, unions, formats, bounds, recursion."""

    name: str
    readings: list[Reading]
    active: bool
    kind: str | None
    parent: Station | None
    neighbours: list[Station]
    labels: list[str] = pydantic.Field(min_length=2)


def test_chat_parse_fits_a_pydantic_model(call: Call) -> None:
    """The helper that sends a model's schema gets an object of that model back."""
    with openai.OpenAI(base_url="http://localhost", api_key="x") as client:
        path = "chat.completions.parse" if hasattr(client.chat.completions, "parse") else None
    path = path or "beta.chat.completions.parse"  # its name until 1.92
    question = {"model": "gpt-4o", "messages": [user("Which one, Kew?")]}
    reply = call(path, typed=False, response_format=Station, **question)  # generic: its own type is unbound
    station = reply.choices[0].message.parsed
    assert isinstance(station, Station)
    assert station.name == "Kew"
    assert station.readings[0].humidity == 3
    assert len(station.labels) == 2


def test_chat_reads_text_parts(call: Call) -> None:
    """A question made of parts is the text in them."""
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    parts = [{"type": "text", "text": "What is"}, image, {"type": "text", "text": "this?"}]
    reply = call("chat.completions.create", model="gpt-4o", messages=[{"role": "user", "content": parts}])
    assert reply.choices[0].message.content.endswith("You asked: What is this?")


def test_chat_stream_helper(base_url: str) -> None:
    """The client's accumulating stream helper ends with the same completion as a plain call."""
    with openai.OpenAI(base_url=base_url, api_key="offline") as client:
        chat: Any = client.chat if hasattr(client.chat.completions, "stream") else client.beta.chat
        question: Any = {"model": "gpt-4o", "messages": [user("In Rome?")], "tools": [CHAT_WEATHER]}
        with chat.completions.stream(**question, stream_options={"include_usage": True}) as stream:
            for _ in stream:
                pass
            final = stream.get_final_completion()
        plain = client.chat.completions.create(**question)
    assert final.choices[0].finish_reason == "tool_calls"
    tool_call = final.choices[0].message.tool_calls[0].function
    expected = plain.to_dict()["choices"][0]["message"]["tool_calls"][0]["function"]
    assert {"name": tool_call.name, "arguments": tool_call.arguments} == expected
    assert final.usage == plain.usage


# ---------------------------------------------------------------- responses

RESPONSE_WEATHER = {"type": "function", "strict": True, **WEATHER}


def test_response_to_text(call: Call) -> None:
    """A plain response has its text, echoes the request's settings, and counts tokens."""
    arguments = {"instructions": "Be brief.", "input": "What is a span?", "temperature": 0.5}
    reply = call("responses.create", model="gpt-4.1-mini", **arguments)
    assert reply.output_text == "This is the offline model. You asked: What is a span?"
    assert (reply.status, reply.model, reply.temperature) == ("completed", "gpt-4.1-mini-2025-04-14", 0.5)
    assert reply.usage.input_tokens == len(["Be", " brief.", " What", " is", " a", " span?"])
    assert reply.usage.total_tokens == reply.usage.input_tokens + reply.usage.output_tokens


def test_response_stream_has_the_events_in_order(call: Call) -> None:
    """The events are numbered, in the API's order, and their deltas are the final text."""
    events = call("responses.create", model="gpt-4o", input="Why?", stream=True)
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert [event.type for event in events] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        *["response.output_text.delta"] * len(deltas),
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    final = events[-1].response
    assert "".join(deltas) == final.output_text == "This is the offline model. You asked: Why?"
    assert len(deltas) == final.usage.output_tokens
    assert (events[0].response.status, events[0].response.output) == ("in_progress", [])
    assert [event.to_dict()["sequence_number"] for event in events] == list(range(len(events)))


@pytest.mark.parametrize("stream", [False, True])
def test_response_calls_a_function_and_then_answers_from_its_result(call: Call, stream: bool) -> None:
    """A function call's arguments come whole or in fragments; its output is answered."""
    items: list[Any] = [user("What is the weather in San Francisco?")]
    arguments: dict[str, Any] = {"model": "gpt-4o", "tools": [RESPONSE_WEATHER], "stream": stream}
    reply = call("responses.create", input=items, **arguments)
    item = finished(reply).output[0]
    assert (item.type, item.name, item.arguments) == ("function_call", "get_weather", WEATHER_ARGUMENTS)
    if stream:
        deltas = [event.delta for event in reply if event.type == "response.function_call_arguments.delta"]
        assert "".join(deltas) == WEATHER_ARGUMENTS
        assert len(deltas) > 1
        assert "response.function_call_arguments.done" in [event.type for event in reply]
    output = {"type": "function_call_output", "call_id": item.call_id, "output": "18 degrees"}
    reply = call("responses.create", input=[*items, item.to_dict(), output], **arguments)
    assert finished(reply).output_text == "The tool says: 18 degrees"


def finished(reply: Any) -> Any:
    return reply[-1].response if isinstance(reply, list) else reply


@pytest.mark.parametrize("stream", [False, True])
def test_response_stops_at_the_token_limit(call: Call, stream: bool) -> None:
    """An answer longer than `max_output_tokens` is incomplete."""
    reply = call("responses.create", model="gpt-4o", input="Hi", max_output_tokens=2, stream=stream)
    assert finished(reply).status == "incomplete"
    assert finished(reply).incomplete_details.reason == "max_output_tokens"
    assert finished(reply).output_text == "This is"
    if stream:
        assert reply[-1].type == "response.incomplete"


def test_response_parse_fits_a_pydantic_model(call: Call) -> None:
    """A text format with a schema is followed."""
    reply = call("responses.parse", model="gpt-4o", input="Which one, Kew?", text_format=Station)
    assert reply.output_parsed.name == "Kew"


# ---------------------------------------------------------------- embeddings


def test_embeddings_in_both_encodings(call: Call) -> None:
    """Vectors have unit length and the dimensions asked for, and base64 carries the same numbers."""
    arguments: dict[str, Any] = {"model": "text-embedding-3-small", "input": ["one", "two"], "dimensions": 8}
    plain = call("embeddings.create", encoding_format="float", **arguments)
    packed = call(
        "embeddings.create", typed=False, encoding_format="base64", **arguments
    )  # a str, not floats
    default = call("embeddings.create", **arguments)
    assert [vector.index for vector in plain.data] == [0, 1]
    for vector, text in zip(plain.data, packed.data, strict=True):
        assert list(struct.unpack("<8f", base64.b64decode(text.embedding))) == vector.embedding
        assert sum(x * x for x in vector.embedding) == pytest.approx(1)
    assert plain.data[0].embedding != plain.data[1].embedding
    assert default.data[0].embedding == pytest.approx(plain.data[0].embedding)
    assert plain.usage.prompt_tokens == plain.usage.total_tokens == 2


@pytest.mark.parametrize(
    ("given", "count"), [("text", 1), (["a", "b", "c"], 3), ([1, 2, 3], 1), ([[1, 2], [3]], 2)]
)
def test_embeddings_of_every_kind_of_input(call: Call, given: Any, count: int) -> None:
    """One text or several, or lists of token numbers; the model decides the size."""
    reply = call("embeddings.create", model="text-embedding-3-large", input=given)
    assert [len(vector.embedding) for vector in reply.data] == [3072] * count


# ---------------------------------------------------------------- errors, headers, the server itself

EVERY_CALL: list[tuple[str, dict[str, Any]]] = [
    ("chat.completions.create", {"messages": [user("Hi")]}),
    ("chat.completions.create", {"messages": [user("Hi")], "stream": True}),
    ("responses.create", {"input": "Hi"}),
    ("embeddings.create", {"input": "Hi"}),
]


@pytest.mark.parametrize(("path", "arguments"), EVERY_CALL)
def test_every_endpoint_refuses_in_the_same_shape(call: Call, path: str, arguments: dict[str, Any]) -> None:
    """An unknown model is 404 and a bad key 401, with OpenAI's error body and a request id."""
    with pytest.raises(openai.NotFoundError) as missing:
        call(path, model="no-such-model", **arguments)
    error = missing.value
    assert (error.code, error.type, error.param) == ("model_not_found", "invalid_request_error", None)
    assert "`no-such-model` does not exist" in error.message
    assert (error.request_id or "").startswith("req_")
    with pytest.raises(openai.AuthenticationError) as refused:
        call(path, api_key="invalid", model="gpt-4o", **arguments)
    assert refused.value.code == "invalid_api_key"


@pytest.mark.parametrize(("path", "arguments"), EVERY_CALL)
def test_a_rate_limit_passes_at_the_first_retry(base_url: str, path: str, arguments: dict[str, Any]) -> None:
    """Without retries the call is a 429 that says when to come back; with one it succeeds, every time."""
    with openai.OpenAI(base_url=base_url, api_key="offline", max_retries=0) as client:
        method = attrgetter(path)
        for _ in range(2):
            with pytest.raises(openai.RateLimitError) as limited:
                method(client)(model="rate-limited", **arguments)
            assert limited.value.response.headers["retry-after-ms"] == "10"
            assert limited.value.code == "rate_limit_exceeded"
            result = method(client.with_options(max_retries=1))(model="rate-limited", **arguments)
            if isinstance(result, openai.Stream):
                result.close()


def test_an_overloaded_model_fails_every_attempt(call: Call) -> None:
    """A 500 stays a 500 after the client's retry."""
    with pytest.raises(openai.InternalServerError) as failed:
        call("chat.completions.create", model="overloaded", messages=[user("Hi")])
    assert failed.value.type == "server_error"
    assert failed.value.request.headers["x-stainless-retry-count"] == "1"


def test_answers_carry_the_api_headers_and_a_new_id_each(base_url: str) -> None:
    """The headers that clients read are there, and ids are counted per server."""
    with openai.OpenAI(base_url=base_url, api_key="offline") as client:
        raws = [
            client.chat.completions.with_raw_response.create(model="gpt-4o", messages=[user("Hi")])  # type: ignore[list-item]
            for _ in range(2)
        ]
    for name in ("openai-processing-ms", "openai-version", "openai-organization"):
        assert raws[0].headers[name]
    for name in ("x-ratelimit-remaining-requests", "x-ratelimit-remaining-tokens"):
        assert int(raws[0].headers[name]) > 0
    assert raws[0].headers["content-type"] == "application/json"
    assert raws[0].headers["x-request-id"] != raws[1].headers["x-request-id"]
    assert raws[0].parse().id != raws[1].parse().id


def test_two_servers_give_the_same_answers() -> None:
    """Everything but the date header is determined by the requests."""
    answers = []
    for _ in range(2):
        with (
            offline_server.serve() as url,
            openai.OpenAI(base_url=url, api_key="offline") as client,
        ):
            raw = client.chat.completions.with_raw_response.create(
                model="gpt-4o",
                messages=[{"role": "user", "content": "In Rome?"}],
                tools=[CHAT_WEATHER],  # type: ignore[list-item]
            )
            answers.append((raw.content, {k: v for k, v in raw.headers.items() if k != "date"}))
    assert answers[0] == answers[1]


def test_azure_paths_lead_to_the_same_operations(base_url: str) -> None:
    """The Azure client, with its deployment path and key header, is served too."""
    with openai.AzureOpenAI(
        azure_endpoint=base_url.removesuffix("/v1"), api_key="offline", api_version="2024-10-21"
    ) as client:
        reply = client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "Hi"}])
        assert reply.choices[0].message.content
        with pytest.raises(openai.NotFoundError):
            client.chat.completions.create(model="no-such-model", messages=[])


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        ("/chat/completions", b'{"model": "gpt-4o"}', 400, "Missing required parameter: 'messages'."),
        ("/chat/completions", b"{", 400, "We could not parse the JSON body of your request."),
        ("/chat/completions", b"[]", 400, "We could not parse the JSON body of your request."),
        ("/images/generations", b"{}", 404, "Invalid URL (POST /v1/images/generations)"),
    ],
)
def test_bad_requests_are_explained(base_url: str, path: str, body: bytes, status: int, message: str) -> None:
    """A request that no client would send is refused in the same shape."""
    reply = http_request(base_url, "POST", f"/v1{path}", body, {"authorization": "Bearer offline"})
    assert (reply[0], json.loads(reply[1])["error"]["message"]) == (status, message)


def test_a_key_is_needed(base_url: str) -> None:
    """Without a key the answer is 401."""
    status, body = http_request(base_url, "POST", "/v1/embeddings", b"{}", {})
    assert status == 401
    assert json.loads(body)["error"]["type"] == "invalid_request_error"


def http_request(
    base_url: str, method: str, path: str, body: bytes, headers: dict[str, str]
) -> tuple[int, bytes]:
    with contextlib.closing(
        http.client.HTTPConnection(urllib.parse.urlsplit(base_url).netloc, timeout=HANGS)
    ) as connection:
        connection.request(method, path, body, headers)
        reply = connection.getresponse()
        return reply.status, reply.read()


def test_streams_on_the_wire(base_url: str) -> None:
    """Chat events are bare data and end with [DONE]; events of Responses are named and just end."""
    headers = {"authorization": "Bearer offline"}
    body = json.dumps({"model": "m", "messages": [user("Hi")], "stream": True}).encode()
    _, sent = http_request(base_url, "POST", "/v1/chat/completions", body, headers)
    assert sent.startswith(b'data: {"id": ')
    assert sent.endswith(b"\n\ndata: [DONE]\n\n")
    body = json.dumps({"model": "m", "input": "Hi", "stream": True}).encode()
    _, sent = http_request(base_url, "POST", "/v1/responses", body, headers)
    assert sent.startswith(b"event: response.created\ndata: {")
    assert b"[DONE]" not in sent


def test_a_client_that_hangs_up_leaves_no_trace(capfd: pytest.CaptureFixture[str]) -> None:
    """Streams dropped in the middle print nothing, and the server goes on answering."""
    long = "word " * 200_000  # more than the socket's buffers hold, so the server is still writing
    with offline_server.serve() as url, openai.OpenAI(base_url=url, api_key="offline") as client:
        for _ in range(3):
            with client.chat.completions.create(
                model="gpt-4o", messages=[{"role": "user", "content": long}], stream=True
            ) as stream:
                next(stream)
        assert client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "Hi"}])
    until(lambda: not server_threads())
    assert capfd.readouterr() == ("", "")


def test_the_server_stops_while_clients_stay_connected() -> None:
    """Leaving the block ends the port, the kept connections, and every thread."""
    with contextlib.ExitStack() as stack:
        with offline_server.serve() as url:
            client = stack.enter_context(openai.OpenAI(base_url=url, api_key="offline", max_retries=0))
            client.embeddings.create(model="m", input="Hi")
            idle = stack.enter_context(socket.create_connection(("127.0.0.1", port_of(url)), timeout=HANGS))
            until(lambda: len(server_threads()) == 3)
        assert idle.recv(1) == b""
        until(lambda: not server_threads())
        with pytest.raises(openai.APIConnectionError):
            client.embeddings.create(model="m", input="Hi")


def server_threads() -> list[threading.Thread]:
    """List the threads of servers, but for the one that the module's fixture keeps."""
    mine = [t for t in threading.enumerate() if t.name == "offline-server" or "process_request" in t.name]
    return [thread for thread in mine if thread not in KEPT_THREADS]


KEPT_THREADS: set[threading.Thread] = set()


@pytest.fixture(autouse=True)
def _other_threads() -> Iterator[None]:
    KEPT_THREADS.update(threading.enumerate())
    yield
    KEPT_THREADS.clear()


def port_of(url: str) -> int:
    return urllib.parse.urlsplit(url).port or 0


def test_many_clients_at_once(base_url: str) -> None:
    """Concurrent calls are all answered, with an id each."""

    async def ask_many() -> set[str]:
        async with openai.AsyncOpenAI(base_url=base_url, api_key="offline", max_retries=0) as client:
            asks = [
                client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "Hi"}])
                for _ in range(50)
            ]
            return {reply.id for reply in await asyncio.gather(*asks)}

    assert len(asyncio.run(ask_many())) == 50


def test_the_program_serves_and_says_where(tmp_path: Path) -> None:
    """`python offline_server.py` prints its address, answers there, and prints no request log."""
    program = [sys.executable, str(Path(offline_server.__file__))]
    with subprocess.Popen(
        program, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            assert process.stdout is not None
            first = process.stdout.readline()
            url = first.split()[1]
            headers = {"authorization": "Bearer x"}
            status, _ = http_request(url, "POST", "/v1/embeddings", b'{"model": "m", "input": "Hi"}', headers)
            assert status == 200
        finally:
            process.terminate()
        rest, _ = process.communicate(timeout=HANGS)
    assert first == f"Serving {url} until Ctrl+C. Any OPENAI_API_KEY will do.\n"
    assert rest == ""
