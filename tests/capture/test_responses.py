"""The Responses API: what is recorded of creating, streaming, reading again, cancelling and compacting."""

from __future__ import annotations

import asyncio
import inspect
import json
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from openai_lifecycle.capture import generations, routes
from openai_lifecycle.capture.facts import Reply, ToolCall
from openai_lifecycle.capture.operations.responses import FETCH, RESPONSES
from openai_lifecycle.events import LLMGenerationError, LLMGenerationSuccess
from tests import wire_responses as wire
from tests.capture.application import client_for, closing, each, entered, fitting, http, settle
from tests.observed import Observed, entries
from tests.scripted_server import ScriptedServer, Step, event_stream, reply
from tests.wire import ANSWERED_BY, MODEL, TIME, WEATHER

CALLS = [("call_1", "get_weather", WEATHER), ("call_2", "get_time", TIME)]


def whole(body: dict[str, Any]) -> list[Step]:
    """Return a script that answers with ``body``."""
    return reply(json.dumps(body).encode(), x_request_id="req_1")


def create(server: ScriptedServer, body: dict[str, Any] | None = None, **request: Any) -> Any:
    """Create one response, which is ``body``."""
    server.script(whole(wire.response() if body is None else body))
    with client_for(server, is_async=False) as client:
        return client.responses.create(**fitting(client.responses.create, {**wire.REQUEST, **request}))


def stream(server: ScriptedServer, script: list[Step], **request: Any) -> None:
    """Create one response that is streamed by ``script``, and read it to its end."""
    server.script(script)
    with client_for(server, is_async=False) as client:
        list(client.responses.create(**wire.REQUEST, **request, stream=True))


def calls(observed: Observed) -> list[tuple[str, str, str]]:
    """Return id, name and arguments of the tool calls in the log."""
    return [(call.tool_call_id, call.tool_name, call.arguments) for call in observed.tool_calls()]


def kinds() -> list[str]:
    """Return what kinds of entries of calls the log has."""
    return [e.event_type.removeprefix("LLM_") for e in entries() if "INITIALIZATION" not in e.event_type]


# ------------------------------------------------------------------ every way to call
async def _drain(stream: Any) -> None:
    async for _ in each(stream):
        pass


async def _create(client: Any) -> None:
    await settle(client.responses.create(**wire.REQUEST))


async def _parse(client: Any) -> None:
    await settle(client.responses.parse(**wire.REQUEST))


async def _raw(client: Any) -> None:
    await settle(client.responses.with_raw_response.create(**wire.REQUEST))


async def _streaming(client: Any) -> None:
    async with entered(client.responses.with_streaming_response.create(**wire.REQUEST)) as response:
        await settle(response.read())


async def _beta(client: Any) -> None:
    await settle(client.beta.responses.create(**wire.REQUEST))


async def _by_hand(client: Any) -> None:
    await settle(client.post("responses", cast_to=object, body=wire.REQUEST))


async def _stream(client: Any) -> None:
    await _drain(await settle(client.responses.create(**wire.REQUEST, stream=True)))


async def _helper(client: Any) -> None:
    async with entered(client.responses.stream(**wire.REQUEST)) as stream:
        final = await settle(stream.get_final_response())
    assert final.output_text == wire.TEXT


async def _raw_stream(client: Any) -> None:
    raw = await settle(client.responses.with_raw_response.create(**wire.REQUEST, stream=True))
    await _drain(await settle(raw.parse()))


async def _streaming_lines(client: Any) -> None:
    create = client.responses.with_streaming_response.create
    async with entered(create(**wire.REQUEST, stream=True)) as response:
        async for _ in each(response.iter_lines()):
            pass


async def _beta_stream(client: Any) -> None:
    await _drain(await settle(client.beta.responses.create(**wire.REQUEST, stream=True)))


PLAIN = [_create, _parse, _raw, _streaming, _beta, _by_hand]
STREAMED = [_stream, _helper, _raw_stream, _streaming_lines, _beta_stream]


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("call", [*PLAIN, *STREAMED], ids=lambda call: call.__name__)
def test_every_way_to_create(
    server: ScriptedServer, observed: Observed, call: Any, *, is_async: bool
) -> None:
    """However a response is created, one span and the same entries tell all that the server said of it."""
    client = client_for(server, is_async=is_async)
    if "beta" in call.__name__ and not hasattr(client.beta, "responses"):
        pytest.skip("this version of openai has no beta.responses")
    if call is _helper and openai.__version__.startswith("1.66."):
        pytest.skip("the first version of the helper fails by itself")
    server.script(
        event_stream(*wire.events(), x_request_id="req_1") if call in STREAMED else whole(wire.response())
    )
    asyncio.run(closing(client, call(client)))
    entry, attributes = observed.generation(), observed.attributes()
    assert observed.span().name == f"chat {MODEL}"
    assert isinstance(entry, LLMGenerationSuccess)
    assert calls(observed) == CALLS
    assert kinds() == ["TOOL_CALL_DETECTED", "TOOL_CALL_DETECTED", "GENERATION_SUCCESS"]
    assert (entry.messages_count, entry.message_content, entry.temperature) == (1, "user: Hi there", 0)
    assert (entry.response_length, entry.choices_count) == (len(wire.TEXT), 1)
    wanted = {
        "gen_ai.response.id": "resp_1",
        "gen_ai.response.model": ANSWERED_BY,
        "gen_ai.response.status": "completed",
        "gen_ai.response.finish_reasons": ("tool_calls",),
        "gen_ai.usage.input_tokens": 19,
        "gen_ai.usage.output_tokens": 10,
        "gen_ai.usage.cache_read.input_tokens": 0,
        "gen_ai.usage.cache_creation.input_tokens": 2,
        "gen_ai.usage.reasoning.output_tokens": 0,
        "openai_lifecycle.usage.total_tokens": 29,
        "openai.response.service_tier": "default",
        "openai.api.type": "responses",
        "openai_lifecycle.request_id": "req_1",
    }
    assert {name: attributes.get(name) for name in wanted} == wanted
    assert attributes.get("gen_ai.request.stream") is (True if call in STREAMED else None)
    assert ("gen_ai.response.time_to_first_chunk" in attributes) == (call in STREAMED)


# ------------------------------------------------------------------ requests
def test_every_request_fact(server: ScriptedServer, observed: Observed) -> None:
    """Every request parameter that the conventions name is on the span, also one whose value is zero."""
    create(
        server,
        top_p=0,
        max_output_tokens=0,
        previous_response_id="resp_0",
        reasoning={"effort": "low"},
        service_tier="flex",
        text={"format": {"type": "json_schema", "name": "n", "schema": {}}},
        prompt={"id": "pmpt_1", "version": "3", "variables": {"who": "you"}},
        safety_identifier="u-1",
    )
    wanted = {
        "gen_ai.request.model": MODEL,
        "gen_ai.request.temperature": 0.0,
        "gen_ai.request.top_p": 0.0,
        "gen_ai.request.max_tokens": 0,
        "gen_ai.request.previous_response.id": "resp_0",
        "gen_ai.request.reasoning.level": "low",
        "openai.request.service_tier": "flex",
        "gen_ai.output.type": "json",
        "gen_ai.prompt.name": "pmpt_1",
        "gen_ai.prompt.version": "3",
        "openai.api.type": "responses",
        "gen_ai.provider.name": "openai",
    }
    attributes = observed.attributes()
    assert {name: attributes.get(name) for name in wanted} == wanted
    metadata = observed.generation().metadata
    assert (metadata.max_tokens, metadata.top_p, metadata.user) == (0, 0.0, "u-1")


@pytest.mark.parametrize("conversation", ["conv_1", {"id": "conv_1"}])
def test_the_conversation(server: ScriptedServer, observed: Observed, conversation: Any) -> None:
    """A conversation is recorded by its id, whichever way it is named."""
    create(server, conversation=conversation)
    assert observed.attributes()["gen_ai.conversation.id"] == "conv_1"


@pytest.mark.parametrize("absent", [None, openai.NOT_GIVEN, getattr(openai, "omit", openai.NOT_GIVEN)])
def test_absent_values_add_nothing(server: ScriptedServer, observed: Observed, absent: Any) -> None:
    """None, NOT_GIVEN and omit for any argument neither raise nor become attributes."""
    names = ("temperature", "top_p", "reasoning", "text", "tools", "instructions", "previous_response_id")
    create(server, **dict.fromkeys(names, absent))
    assert [n for n in observed.attributes() if n.startswith("gen_ai.request.")] == ["gen_ai.request.model"]
    assert observed.generation().temperature is None


def test_items_as_one_line(server: ScriptedServer, observed: Observed) -> None:
    """Messages, tool calls, results and parts that are not text are told in one line, and counted."""
    parts = [
        {"type": "input_text", "text": "look"},
        {"type": "input_image", "image_url": "data:image/png;base64,A"},
    ]
    sent = [
        {"role": "user", "content": parts},
        {"role": "assistant", "content": "one moment"},
        wire.function_call(),
        {"type": "function_call_output", "call_id": "call_1", "output": "sunny"},
        wire.REASONING,
        {"type": "item_reference", "id": "msg_0"},
    ]
    create(server, input=sent, instructions="Be brief")
    entry = observed.generation()
    assert entry.messages_count == 6
    assert entry.message_content == (
        "system: Be brief | user: look [image] | assistant: one moment | assistant: [tool_call get_weather]"
        " | tool: [tool_result call_1] sunny | [reasoning] | [item_reference]"
    )


# ------------------------------------------------------------------ tool calls
BUILT_IN: list[tuple[dict[str, Any], str, str, str]] = [
    ({"type": "custom_tool_call", "call_id": "c", "name": "grep", "input": "a b"}, "custom", "grep", "a b"),
    ({"type": "function_call", "call_id": "c", "name": "f", "arguments": ""}, "function", "f", "{}"),
    (
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": {"a": 1}},
        "function",
        "f",
        '{"a": 1}',
    ),
    (
        {"type": "mcp_call", "id": "c", "name": "roll", "server_label": "dice", "arguments": "{ }"},
        "mcp",
        "roll",
        "{ }",
    ),
    (
        {
            "type": "mcp_approval_request",
            "id": "c",
            "name": "roll",
            "server_label": "dice",
            "arguments": "{}",
        },
        "mcp_approval_request",
        "roll",
        "{}",
    ),
    (
        {
            "type": "computer_call",
            "id": "x",
            "call_id": "c",
            "action": {"type": "wait"},
            "pending_safety_checks": [],
        },
        "computer",
        "computer",
        '{"type": "wait"}',
    ),
    (
        {"type": "shell_call", "call_id": "c", "action": {"commands": ["ls"]}},
        "shell",
        "shell",
        '{"commands": ["ls"]}',
    ),
    (
        {
            "type": "local_shell_call",
            "call_id": "c",
            "action": {"type": "exec", "command": ["ls"], "env": {}},
        },
        "local_shell",
        "local_shell",
        '{"command": ["ls"], "env": {}, "type": "exec"}',
    ),
    (
        {"type": "apply_patch_call", "call_id": "c", "operation": {"type": "delete_file", "path": "a"}},
        "apply_patch",
        "apply_patch",
        '{"path": "a", "type": "delete_file"}',
    ),
    (
        {"type": "web_search_call", "id": "c", "action": {"type": "search", "query": "q"}},
        "web_search",
        "web_search",
        '{"type": "search", "query": "q"}',
    ),
    (
        {"type": "file_search_call", "id": "c", "queries": ["q"]},
        "file_search",
        "file_search",
        '{"queries": ["q"]}',
    ),
    (
        {"type": "code_interpreter_call", "id": "c", "code": "1+1", "container_id": "x"},
        "code_interpreter",
        "code_interpreter",
        '{"code": "1+1"}',
    ),
    (
        {"type": "image_generation_call", "id": "c", "result": "AAAA"},
        "image_generation",
        "image_generation",
        "{}",
    ),
    (
        {"type": "tool_search_call", "id": "c", "arguments": {"q": 1}},
        "tool_search",
        "tool_search",
        '{"q": 1}',
    ),
]


@pytest.mark.parametrize(("item", "kind", "name", "arguments"), BUILT_IN, ids=[row[1] for row in BUILT_IN])
@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
def test_every_kind_of_tool_call(
    server: ScriptedServer,
    observed: Observed,
    item: dict[str, Any],
    kind: str,
    name: str,
    arguments: str,
    *,
    streamed: bool,
) -> None:
    """Function, custom, MCP, computer, shell and hosted tool calls are each one entry with their type."""
    final = wire.response(output=[{"id": "i", "status": "completed", **item}])
    if streamed:
        done = {"type": "response.output_item.done", "output_index": 0, "item": final["output"][0]}
        stream(server, event_stream(done, {"type": "response.completed", "response": final}))
    else:
        create(server, final)
    (call,) = observed.tool_calls()
    assert (call.tool_call_id, call.tool_name) == ("c", name)
    assert call.metadata.custom_fields["tool_type"] == kind
    same = call.arguments == arguments or json.loads(call.arguments) == json.loads(arguments)
    assert same, call.arguments  # an object's members come in the order of the client's model
    waits = kind in (
        "function",
        "custom",
        "mcp_approval_request",
        "computer",
        "shell",
        "local_shell",
        "apply_patch",
    )
    assert observed.attributes()["gen_ai.response.finish_reasons"] == ("tool_calls" if waits else "stop",)


def test_what_is_no_tool_call(server: ScriptedServer, observed: Observed) -> None:
    """A list of tools, a tool's output and a compaction are no tool calls; the compaction is a fact of its own."""
    output = [
        {"type": "mcp_list_tools", "id": "m", "server_label": "dice", "tools": []},
        {"type": "shell_call_output", "id": "s", "call_id": "c", "output": []},
        {"type": "compaction", "id": "cmp_1", "encrypted_content": "AAAA"},
        wire.message(),
    ]
    create(server, wire.response(output=output))
    assert observed.tool_calls() == []
    assert observed.attributes()["gen_ai.conversation.compacted"] is True


# ------------------------------------------------------------------ endings
@pytest.mark.parametrize(
    ("changes", "reasons"),
    [
        ({"output": [wire.message()]}, ("stop",)),
        ({"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}, ("length",)),
        ({"status": "incomplete", "incomplete_details": {"reason": "content_filter"}}, ("content_filter",)),
        ({"status": "incomplete", "incomplete_details": None}, ("incomplete",)),
        ({"status": "queued", "output": []}, None),
    ],
)
def test_finish_reasons(
    server: ScriptedServer, observed: Observed, changes: dict[str, Any], reasons: tuple[str, ...] | None
) -> None:
    """A response has one finish reason, said in the words of chats, and none before it has ended."""
    create(server, wire.response(**changes))
    assert observed.attributes().get("gen_ai.response.finish_reasons") == reasons
    assert isinstance(observed.generation(), LLMGenerationSuccess)
    assert observed.span().status.is_unset


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
def test_a_failed_response_is_an_error(server: ScriptedServer, observed: Observed, *, streamed: bool) -> None:
    """A response that the server says has failed is an error, though the client raises nothing."""
    if streamed:
        stream(server, event_stream(*wire.events(wire.FAILED)))
    else:
        assert create(server, wire.FAILED).status == "failed"
    entry = observed.generation()
    assert isinstance(entry, LLMGenerationError)
    assert entry.error == "The model is on fire: the prompt"
    assert entry.metadata.custom_fields["error_type"] == "server_error"
    assert entry.metadata.custom_fields["response_id"] == "resp_1"
    assert observed.attributes()["gen_ai.response.finish_reasons"] == ("error",)
    assert not observed.span().status.is_ok
    assert observed.span().status.description == entry.error


@pytest.mark.parametrize(
    ("code", "kind"),
    [("server_error", "server_error"), ("a sentence, not a code", "_OTHER"), (None, "_OTHER")],
)
def test_an_error_event(server: ScriptedServer, observed: Observed, code: str | None, kind: str) -> None:
    """An error event in a stream, which the client hands on like any other, makes the call an error of its code."""
    error = {"type": "error", "code": code, "message": "too bad", "param": None}
    stream(server, event_stream(*wire.events()[:3], {**error, "sequence_number": 3}))
    entry = observed.generation()
    assert isinstance(entry, LLMGenerationError)
    assert (entry.error, entry.metadata.custom_fields["error_type"]) == ("too bad", kind)


def test_a_stream_left_early(server: ScriptedServer, observed: Observed) -> None:
    """Of a stream that is closed in the middle, what arrived is told: text so far and finished calls."""
    events = wire.events()
    third = [e["type"] for e in events].index("response.output_item.done", 12)
    server.script(event_stream(*events))
    with (
        client_for(server, is_async=False) as client,
        client.responses.create(**wire.REQUEST, stream=True) as stream,
    ):
        for number, _ in enumerate(stream):
            if number == third:
                break
    entry = observed.generation()
    assert isinstance(entry, LLMGenerationSuccess)
    assert calls(observed) == CALLS[:1]
    assert (entry.response_length, entry.choices_count) == (len(wire.TEXT), 1)
    assert entry.metadata.custom_fields["response_id"] == "resp_1"
    assert "finish_reasons" not in entry.metadata.custom_fields


def test_a_stream_cut_after_its_tool_calls(server: ScriptedServer, observed: Observed) -> None:
    """The tool calls that had been received whole when the connection was cut have their entries beside the error's."""
    server.script(event_stream(*wire.events()[:-1], end=["cut"]))
    with (
        client_for(server, is_async=False) as client,
        pytest.raises((openai.APIConnectionError, http.TransportError)),
    ):
        list(client.responses.create(**wire.REQUEST, stream=True))
    assert calls(observed) == CALLS
    assert isinstance(observed.generation(), LLMGenerationError)


@pytest.mark.parametrize("capture", ["no_content", "span_and_event"])
def test_a_message_counts_when_it_is_whole(server: ScriptedServer, capture: str) -> None:
    """Of a stream that is closed in the middle of its message, none is counted, wherever content is captured."""
    server.script(event_stream(*wire.events()))
    with Observed(capture=capture) as observed, client_for(server, is_async=False) as client:
        with client.responses.create(**wire.REQUEST, stream=True) as stream:
            next(event for event in stream if event.type == "response.output_text.delta")
        entry = observed.generation()
    assert isinstance(entry, LLMGenerationSuccess)
    assert (entry.response_length, entry.choices_count) == (len("Hello"), 0)


def test_a_last_event_without_output(server: ScriptedServer, observed: Observed) -> None:
    """A server that leaves the output out of the last event is believed for what it sent before."""
    events = wire.events()
    events[-1]["response"]["output"] = []
    stream(server, event_stream(*events))
    entry = observed.generation()
    assert isinstance(entry, LLMGenerationSuccess)
    assert calls(observed) == CALLS
    assert (entry.response_length, entry.choices_count) == (len(wire.TEXT), 1)
    assert entry.metadata.custom_fields["finish_reasons"] == "tool_calls"


def test_parse_fails_in_the_application(server: ScriptedServer, observed: Observed) -> None:
    """An answer that does not fit the application's model raises there, and is an error here."""

    class Answer(BaseModel):
        number: int

    server.script(whole(wire.response(output=[wire.message("no json")])))
    with client_for(server, is_async=False) as client, pytest.raises(ValueError, match="Invalid JSON"):
        client.responses.parse(**wire.REQUEST, text_format=Answer)
    assert isinstance(observed.generation(), LLMGenerationError)


# ------------------------------------------------------------------ reading again
def read(server: ScriptedServer, *bodies: dict[str, Any], response_id: str = "resp_1") -> None:
    """Read a response as often as there are bodies."""
    server.script(*(whole(body) for body in bodies))
    with client_for(server, is_async=False) as client:
        for _ in bodies:
            client.responses.retrieve(response_id)


def test_reading_counts_nothing_twice(server: ScriptedServer, observed: Observed) -> None:
    """A response read again has a span without messages and tokens, and no entry of its own."""
    create(server)
    before = entries()
    read(server, wire.response(), wire.response())
    first, _ = observed.spans("fetch_response")
    attributes = dict(first.attributes or {})
    assert first.name == "fetch_response"
    assert first.status.is_unset
    wanted = {
        "gen_ai.provider.name": "openai",
        "gen_ai.response.id": "resp_1",
        "gen_ai.response.model": ANSWERED_BY,
        "gen_ai.response.status": "completed",
        "gen_ai.response.finish_reasons": ("tool_calls",),
    }
    assert {name: attributes.get(name) for name in wanted} == wanted
    assert not [name for name in attributes if "usage" in name or "messages" in name]
    assert [e for e in entries() if e not in before and "INITIALIZATION" not in e.event_type] == []
    counted = [p.attributes["gen_ai.operation.name"] for p in observed.metrics()["gen_ai.client.token.usage"]]
    assert set(counted) == {"chat"}


def test_a_background_response(server: ScriptedServer, observed: Observed) -> None:
    """The creating call writes the one generation entry; tool calls have theirs once, when it is first seen completed."""
    create(server, wire.pending(), background=True)
    assert kinds() == ["GENERATION_SUCCESS"]
    late = wire.pending("in_progress")  # of a server that lags behind
    read(server, wire.pending("in_progress"), wire.response(), late, wire.response())
    assert kinds() == ["GENERATION_SUCCESS", "TOOL_CALL_DETECTED", "TOOL_CALL_DETECTED"]
    assert calls(observed) == CALLS


def test_a_background_response_whose_stream_is_left(server: ScriptedServer, observed: Observed) -> None:
    """Tool calls that were recorded while streaming are not recorded again when the response is read."""
    events = [event for event in wire.events() if event["type"] != "response.completed"]
    stream(server, event_stream(*events, end=()), extra_body={"background": True})
    before = calls(observed)
    assert before == CALLS
    read(server, wire.pending("in_progress"), wire.response(), wire.response())
    assert calls(observed) == before
    assert kinds().count("GENERATION_SUCCESS") == 1


def test_a_background_response_whose_stream_is_cut_within_a_call(
    server: ScriptedServer, observed: Observed
) -> None:
    """A tool call that was not complete when the stream ended is recorded when the response is read."""
    events = wire.events()
    ends = [
        number
        for number, event in enumerate(events)
        if event["type"] == "response.output_item.done" and event["item"]["type"] == "function_call"
    ]
    stream(server, event_stream(*events[: ends[1]], end=()), extra_body={"background": True})
    assert calls(observed) == CALLS[:1]
    read(server, wire.response(), wire.response())
    assert calls(observed) == CALLS


def test_a_background_response_that_fails(server: ScriptedServer, observed: Observed) -> None:
    """A background response that fails is an error on the span that finds it out, and one entry however often it is read."""
    create(server, wire.pending(), background=True)
    read(server, wire.pending("in_progress"), wire.FAILED, wire.FAILED)
    assert kinds() == ["GENERATION_SUCCESS", "GENERATION_ERROR"]
    waiting, found, again = observed.spans("fetch_response")
    assert waiting.status.is_unset
    for span in (found, again):
        assert span.status.description == "The model is on fire: the prompt"
        assert (span.attributes or {})["error.type"] == "server_error"
    assert entries()[-1].metadata.custom_fields["response_id"] == "resp_1"


def test_a_response_of_another_process(server: ScriptedServer, observed: Observed) -> None:
    """A response that another process made has its entries once, when this one first reads it as done."""
    read(server, wire.pending(), wire.response(), wire.response())
    # it was seen pending, so its making is on record somewhere
    assert kinds() == ["TOOL_CALL_DETECTED", "TOOL_CALL_DETECTED"]
    read(server, wire.response(id="resp_2"), wire.response(id="resp_2"), response_id="resp_2")
    assert kinds()[2:] == ["TOOL_CALL_DETECTED", "TOOL_CALL_DETECTED", "GENERATION_SUCCESS"]


def test_reading_that_raises(server: ScriptedServer, observed: Observed) -> None:
    """A read that raises is an error entry with the id that was asked for on its span."""
    server.script(reply(b'{"error": {"message": "not found"}}', status=404))
    with client_for(server, is_async=False) as client, pytest.raises(openai.NotFoundError):
        client.responses.retrieve("resp_9")
    entry = observed.generation()
    assert isinstance(entry, LLMGenerationError)
    assert entry.metadata.custom_fields["error_type"] == "NotFoundError"
    assert observed.attributes("fetch_response")["gen_ai.response.id"] == "resp_9"


@pytest.fixture
def _streams_again() -> None:
    from openai.resources.responses import Responses

    if "stream" not in inspect.signature(Responses.retrieve).parameters:
        pytest.skip("this version of openai cannot stream a response again")


@pytest.mark.usefixtures("_streams_again")
def test_reading_as_a_stream(server: ScriptedServer, observed: Observed) -> None:
    """A response can be streamed again: chunks are timed, tokens are not counted, tool calls told once."""
    create(server, wire.pending(), background=True)
    for last in ("response.in_progress", "response.output_item.done function_call", "response.completed"):
        server.script(event_stream(*wire.events()))
        with (
            client_for(server, is_async=False) as client,
            client.responses.retrieve("resp_1", stream=True) as stream,
        ):
            for event in stream:
                if f"{event.type} {getattr(getattr(event, 'item', None), 'type', '')}".rstrip() == last:
                    break
    *early, full = (dict(span.attributes or {}) for span in observed.spans("fetch_response"))
    assert not any("gen_ai.response.finish_reasons" in attributes for attributes in early)
    assert full["gen_ai.request.stream"] is True
    assert full["gen_ai.response.finish_reasons"] == ("tool_calls",)
    assert "gen_ai.response.time_to_first_chunk" in full
    assert not [name for name in full if "usage" in name]
    assert kinds() == ["GENERATION_SUCCESS", "TOOL_CALL_DETECTED", "TOOL_CALL_DETECTED"]


@pytest.mark.usefixtures("_streams_again")
def test_reading_as_a_stream_that_is_cut(server: ScriptedServer, observed: Observed) -> None:
    """What a reading that failed had received is not told of; the tool calls are when a reading succeeds."""
    create(server, wire.pending(), background=True)
    server.script(event_stream(*wire.events()[:-1], end=["cut"]))
    with (
        client_for(server, is_async=False) as client,
        client.responses.retrieve("resp_1", stream=True) as stream,
        pytest.raises((openai.APIConnectionError, http.TransportError)),  # the latter of older clients
    ):
        list(stream)
    assert kinds() == ["GENERATION_SUCCESS", "GENERATION_ERROR"]
    read(server, wire.response(), wire.response())
    assert kinds()[2:] == ["TOOL_CALL_DETECTED", "TOOL_CALL_DETECTED"]
    assert calls(observed) == CALLS


def test_cancelling(server: ScriptedServer, observed: Observed) -> None:
    """Cancelling has a span of its own and adds no entry to that of the response's making."""
    create(server, wire.pending(), background=True)
    server.script(whole(wire.pending("cancelled")))
    with client_for(server, is_async=False) as client:
        # The method is there since openai 1.81; what it does is this.
        client.post("/responses/resp_1/cancel", cast_to=object)
    assert kinds() == ["GENERATION_SUCCESS"]
    attributes = observed.attributes("cancel_response")
    assert (attributes["gen_ai.response.id"], attributes["gen_ai.response.status"]) == ("resp_1", "cancelled")
    assert observed.span("cancel_response").status.is_unset


def test_compacting(server: ScriptedServer, observed: Observed) -> None:
    """Compacting is a generation with token counts; the messages it gives back are not its answer."""
    asked = {"type": "message", "id": "m", "role": "user", "content": [{"type": "input_text", "text": "Hi"}]}
    summary = {"type": "compaction", "id": "cmp_1", "encrypted_content": "AAAA"}
    body = {"id": "resp_c", "object": "response.compaction", "created_at": 1, "output": [asked, summary]}
    server.script(whole({**body, "usage": wire.USAGE}))
    with client_for(server, is_async=False) as client:
        # The method is there since openai 2.9; what it does is this.
        client.post("/responses/compact", cast_to=object, body={"model": MODEL, "input": "Hi there"})
    attributes, entry = observed.attributes("compact"), observed.generation()
    assert observed.span("compact").name == f"compact {MODEL}"
    assert attributes["gen_ai.usage.input_tokens"] == 19
    assert attributes["gen_ai.conversation.compacted"] is True
    assert isinstance(entry, LLMGenerationSuccess)
    assert (entry.operation, entry.choices_count, entry.response_length) == ("llm_generation", 0, 0)


def test_memory_of_responses_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of all responses that can be read again, only so many are remembered: the oldest are forgotten."""
    monkeypatch.setattr(generations, "LIMIT", 3)
    seen = generations.Generations()
    call: Any = type("Call", (), {"operation": RESPONSES})
    for number in range(5):
        call.reply = Reply(id=f"resp_{number}", pending=True)
        assert seen.entries(call, None).success
    for call.reply in (Reply(id="chatcmpl-1"), Reply(pending=True)):
        assert seen.entries(call, None).success
    assert list(seen._responses) == [*map(hash, ["resp_2", "resp_3", "resp_4"])]
    call.operation, call.reply = FETCH, Reply(id="resp_0", pending=False)
    assert seen.entries(call, None).success


def test_tool_calls_are_remembered_while_a_response_is_pending() -> None:
    """Of a response that has ended, for which nothing more is written, only its id is kept."""
    seen = generations.Generations()
    call: Any = type("Call", (), {"operation": RESPONSES})

    def kept(response: str, *, pending: bool) -> frozenset[int]:
        call.reply = Reply(id=response, pending=pending, tool_calls={0: ToolCall(id="call_1", time=1)})
        seen.entries(call, None)
        return seen._responses[hash(response)].tool_calls

    assert kept("resp_1", pending=True) == {hash("call_1")}
    assert kept("resp_1", pending=False) == frozenset()
    assert kept("resp_2", pending=False) == frozenset()


# ------------------------------------------------------------------ routes
@pytest.mark.parametrize(
    ("method", "url", "name", "found"),
    [
        ("post", "/responses", "chat", {}),
        ("post", "/responses?beta=true", "chat", {}),
        ("POST", "responses", "chat", {}),
        ("get", "/responses/resp_1", "fetch_response", {"id": "resp_1"}),
        ("get", "/responses/a%2Fb?beta=true", "fetch_response", {"id": "a/b"}),
        ("post", "/responses/resp_1/cancel?beta=true", "cancel_response", {"id": "resp_1"}),
        ("post", "/responses/compact", "compact", {}),
    ],
)
def test_routes(method: str, url: str, name: str, found: dict[str, str]) -> None:
    """A path finds its operation and the id in it, whatever query it has."""
    route = routes.find(method, url)
    assert route is not None
    assert (route[0].name, route[1]) == (name, found)


@pytest.mark.parametrize(
    ("method", "url"),
    [
        ("post", "/responses/input_tokens"),
        ("delete", "/responses/resp_1"),
        ("get", "/responses/resp_1/input_items"),
        ("get", "/models"),
        ("get", "/"),
        ("get", ""),
    ],
)
def test_what_passes_through(method: str, url: str) -> None:
    """What manages or counts, but generates nothing, is not in the table."""
    assert routes.find(method, url) is None
