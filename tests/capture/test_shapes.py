"""Odd requests and odd responses: the application gets what it gets without us, and the call is recorded."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from openai_lifecycle.events import LLMGenerationSuccess
from tests import wire
from tests.capture.application import client_for, closing, run
from tests.observed import Observed
from tests.scripted_server import ScriptedServer, event_stream, reply

CALL = wire.tool_call("c", "f", "{}")
BODIES: dict[str, dict[str, Any]] = {
    "choices null": {"choices": None},
    "choices empty": {"choices": []},
    "choices missing": {"choices": ...},
    "choice without message": {"choices": [{"index": 0, "finish_reason": "stop"}]},
    "message null": {"choices": [{"index": 0, "message": None}]},
    "index missing": {"choices": [{"message": {"content": "a"}}]},
    "index from seven": {"choices": [{"index": 7, "message": {"content": "a"}}]},
    "content a list": {"choices": [{"index": 0, "message": {"content": [{"type": "text", "text": "a"}]}}]},
    "usage null": {"usage": None},
    "usage of text": {"usage": "many"},
    "details null": {"usage": {"prompt_tokens": 1, "completion_tokens": 0, "prompt_tokens_details": None}},
    "tokens of text": {"usage": {"prompt_tokens": "1", "completion_tokens": None, "total_tokens": True}},
    "arguments an object": {
        "choices": [
            {"message": {"tool_calls": [{**CALL, "function": {"name": "f", "arguments": {"x": 1}}}]}},
        ]
    },
    "arguments null": {
        "choices": [{"message": {"tool_calls": [{**CALL, "function": {"name": "f", "arguments": None}}]}}]
    },
    "function null": {"choices": [{"message": {"tool_calls": [{**CALL, "function": None}]}}]},
    "tool calls of nothing": {"choices": [{"message": {"tool_calls": [None, {}, 3]}}]},
    "ids null": {"id": None, "model": None, "system_fingerprint": None, "service_tier": None},
    "error beside": {"error": None},
}
STREAMS: dict[str, list[Any]] = {
    "no chunk": [],
    "choice without delta": [wire.chunk({"content": "a"}), {**wire.chunk({}), "choices": [{"index": 0}]}],
    "delta null": [{**wire.chunk({}), "choices": [{"index": 0, "delta": None}]}],
    "choices null": [{**wire.chunk({}), "choices": None}],
    "no choices at all": [{"id": "x"}],
    "choice index missing": [{**wire.chunk({}), "choices": [{"delta": {"content": "a"}}]}],
    "tool index missing": [
        wire.chunk({"tool_calls": [CALL]}),
        wire.chunk({"tool_calls": [{"function": {"arguments": "1"}}]}),
    ],
    "tool index from one": [
        wire.chunk(wire.fragment(1, "{}", id="a", name="f")),
        wire.chunk({}, "tool_calls"),
    ],
    "tool index out of order": [
        wire.chunk(wire.fragment(1, "{}", id="b", name="g")),
        wire.chunk(wire.fragment(0, "{}", id="a", name="f")),
    ],
    "tool function null": [wire.chunk({"tool_calls": [{"index": 0, "id": "a", "function": None}]})],
    "a number": [3],
    "a list": [[1, 2]],
    "usage in every chunk": [
        wire.chunk({"content": "a"}, usage=wire.USAGE),
        wire.chunk({}, "stop", usage=wire.USAGE),
    ],
}


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize(
    ("form", "name"),
    [*(("plain", n) for n in BODIES), *(("raw", n) for n in BODIES), *(("stream", n) for n in STREAMS)],
)
def test_odd_responses(server: ScriptedServer, form: str, name: str, *, is_async: bool) -> None:
    """Whatever the server sends, the application's trail is that of the bare client and one entry is written."""
    if form == "stream":
        server.script(event_stream(*STREAMS[name]))
    else:
        body = {k: v for k, v in (wire.completion() | BODIES[name]).items() if v is not ...}
        server.script(reply(json.dumps(body).encode()))

    def trail() -> Any:
        client = client_for(server, is_async=is_async)
        return _raised(lambda: asyncio.run(closing(client, run(client, form))))

    bare = trail()
    with Observed() as observed:
        assert trail() == bare
        assert observed.generation()


def _raised(work: Any) -> Any:
    try:
        return work()
    except Exception as error:
        return type(error), str(error)


def test_parallel_calls_of_several_choices_arrive_in_fragments(
    server: ScriptedServer, observed: Observed
) -> None:
    """Interleaved fragments of several calls in two choices become complete calls, in order of appearance."""
    first, second = wire.fragment(0, "", id="a", name="f"), wire.fragment(1, "", id="b", name="g")
    deltas = [(0, first), (1, first), (0, second)]
    deltas += [(0, wire.fragment(i, part)) for part in ("{", "}") for i in (1, 0)] + [
        (1, wire.fragment(0, "[]"))
    ]
    chunks = [wire.chunk(choices=[{"index": choice, "delta": delta}]) for choice, delta in deltas]
    ends = [wire.chunk(choices=[{"index": i, "delta": {}, "finish_reason": "tool_calls"}]) for i in (1, 0)]
    server.script(event_stream(*chunks, *ends))
    client = client_for(server, is_async=False)
    asyncio.run(closing(client, run(client, "stream", n=2)))
    calls = [(c.tool_call_id, c.tool_name, c.arguments) for c in observed.tool_calls()]
    assert calls == [("a", "f", "{}"), ("a", "f", "[]"), ("b", "g", "{}")]
    assert observed.attributes()["gen_ai.response.finish_reasons"] == ("tool_calls", "tool_calls")
    assert observed.attributes()["gen_ai.request.choice.count"] == 2


def test_custom_and_deprecated_calls(server: ScriptedServer, observed: Observed) -> None:
    """A custom tool's input and a deprecated function_call are tool calls with their type."""
    message = {
        "role": "assistant",
        "tool_calls": [{"id": "c1", "type": "custom", "custom": {"name": "grep", "input": "a b"}}],
        "function_call": {"name": "old", "arguments": ""},
    }
    server.script(reply(json.dumps(wire.completion(choices=[{"index": 0, "message": message}])).encode()))
    client = client_for(server, is_async=False)
    asyncio.run(closing(client, run(client, "plain")))
    found = [
        (c.tool_call_id, c.tool_name, c.arguments, c.metadata.custom_fields["tool_type"])
        for c in observed.tool_calls()
    ]
    assert found == [("c1", "grep", "a b", "custom"), ("", "old", "{}", "function")]


# ------------------------------------------------------------------ requests
def ask(server: ScriptedServer, **request: Any) -> Any:
    """Make one plain call; return the request's body as the server got it."""
    server.script(reply(json.dumps(wire.completion()).encode()))
    client = client_for(server, is_async=False)
    with client:
        client.chat.completions.create(**{**wire.REQUEST, **request})
    (body,) = server.bodies()
    return body


def test_generators_reach_the_wire(server: ScriptedServer, observed: Observed) -> None:
    """Messages and tools given as generators are sent, and counted."""
    tools: Iterator[Any] = ({"type": "function", "function": {"name": n}} for n in "ab")
    body = ask(server, messages=({"role": "user", "content": c} for c in "xyz"), tools=tools)
    assert [m["content"] for m in body["messages"]] == ["x", "y", "z"]
    assert len(body["tools"]) == 2
    entry = observed.generation()
    assert (entry.messages_count, entry.message_content) == (3, "user: x | user: y | user: z")


def test_the_callers_headers_are_not_touched(server: ScriptedServer, observed: Observed) -> None:
    """The caller's own extra_headers stay as they are, also when the trace context is propagated."""
    observed.instrument(propagate=True)
    headers = {"x-mine": "1"}
    ask(server, extra_headers=headers)
    assert headers == {"x-mine": "1"}
    assert b"x-mine: 1" in server.requests[0].lower()
    context = observed.span().context
    sent = f"traceparent: 00-{context.trace_id:032x}-{context.span_id:016x}-"
    assert sent.encode() in server.requests[0].lower()


def test_no_trace_headers_by_default(server: ScriptedServer, observed: Observed) -> None:
    """Nothing of the trace is sent to a third party unless asked for."""
    ask(server)
    assert b"traceparent" not in server.requests[0].lower()


@pytest.mark.parametrize("absent", [None, openai.NOT_GIVEN, getattr(openai, "omit", openai.NOT_GIVEN)])
def test_absent_values_add_nothing(server: ScriptedServer, observed: Observed, absent: Any) -> None:
    """None, NOT_GIVEN and omit for any argument neither raise nor become attributes."""
    names = (
        "temperature",
        "top_p",
        "max_tokens",
        "stop",
        "seed",
        "n",
        "tools",
        "response_format",
        "user",
        "service_tier",
    )
    ask(server, **dict.fromkeys(names, absent))
    assert [n for n in observed.attributes() if n.startswith("gen_ai.request.")] == ["gen_ai.request.model"]
    assert observed.generation().temperature is None


@pytest.mark.parametrize("temperature", [0, 1, 1.0, 0.7])
def test_the_temperature_is_as_given(server: ScriptedServer, observed: Observed, temperature: float) -> None:
    """The entry has the caller's number, whole or not; the span has a double."""
    ask(server, temperature=temperature)
    assert repr(observed.generation().temperature) == repr(temperature)
    assert repr(observed.attributes()["gen_ai.request.temperature"]) == repr(float(temperature))


def test_extra_body_overrides(server: ScriptedServer, observed: Observed) -> None:
    """What extra_body puts on the wire is what is recorded, the model included."""
    assert ask(server, extra_body={"model": "other", "seed": 5})["model"] == "other"
    assert observed.span().name == "chat other"
    assert observed.attributes()["gen_ai.request.seed"] == 5


def test_every_request_fact(server: ScriptedServer, observed: Observed) -> None:
    """Every documented request parameter is on the span, and what the entry shows of it in the entry."""
    ask(
        server,
        top_p=0.5,
        max_completion_tokens=0,
        frequency_penalty=0,
        presence_penalty=1.5,
        stop=["END"],
        seed=7,
        n=2,
        service_tier="flex",
        reasoning_effort="low",
        response_format={"type": "json_object"},
        user="u-1",
    )
    wanted = {
        "gen_ai.request.top_p": 0.5,
        "gen_ai.request.max_tokens": 0,
        "gen_ai.request.frequency_penalty": 0.0,
        "gen_ai.request.presence_penalty": 1.5,
        "gen_ai.request.stop_sequences": ("END",),
        "gen_ai.request.seed": 7,
        "gen_ai.request.choice.count": 2,
        "openai.request.service_tier": "flex",
        "gen_ai.request.reasoning.level": "low",
        "gen_ai.output.type": "json",
        "openai.api.type": "chat_completions",
        "server.address": "127.0.0.1",
        "gen_ai.provider.name": "openai",
    }
    attributes = observed.attributes()
    assert {name: attributes.get(name) for name in wanted} == wanted
    metadata = observed.generation().metadata
    assert (metadata.max_tokens, metadata.top_p, metadata.presence_penalty) == (0, 0.5, 1.5)
    assert (metadata.stop_sequences, metadata.user) == (("END",), "u-1")


def test_a_long_prompt_is_cut(server: ScriptedServer, observed: Observed) -> None:
    """A prompt of 300 kB is cut after 8192 characters, and the entry says how many are missing."""
    ask(server, messages=[{"role": "user", "content": "x" * 300_000}])
    content = observed.generation().message_content
    assert content == "user: " + "x" * 8186 + f"… [+{300_006 - 8192} chars]"


def test_a_key_at_the_cut_is_not_cut_in_two(server: ScriptedServer, observed: Observed) -> None:
    """A key that begins before the limit and ends behind it leaves nothing of itself."""
    ask(
        server,
        messages=[{"role": "user", "content": "x" * 8170 + " sk-abcdefghijklmnopqrstuvwxyz0123456789 " * 9}],
    )
    assert "sk-ab" not in observed.generation().message_content


def test_parts_that_are_not_text(server: ScriptedServer, observed: Observed) -> None:
    """Images, audio, files, videos and tool traffic appear by kind, never by value."""
    parts = [
        {"type": "text", "text": "look"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
        {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
        {"type": "file", "file": {"file_id": "f"}},
        {"type": "video_url", "video_url": {"url": "https://example.com/a.mp4"}},
        {"type": "audio_url", "audio_url": {"url": "https://example.com/a.wav"}},
    ]
    called = {"role": "assistant", "content": None, "tool_calls": [wire.tool_call("c1", "f", "{}")]}
    told = {"role": "tool", "tool_call_id": "c1", "content": "done"}
    ask(server, messages=[{"role": "user", "content": parts}, called, told])
    assert observed.generation().message_content == (
        "user: look [image] [audio] [file] [video] [audio] | assistant: [tool_call f] | tool: [tool_result c1] done"
    )


def test_a_body_that_is_not_json(server: ScriptedServer, observed: Observed) -> None:
    """A response of another kind is returned as the client returns it, and recorded as a success."""
    server.script(reply(b"plain words", kind="text/plain"))
    with client_for(server, is_async=False) as client:
        assert client.chat.completions.create(**wire.REQUEST) == "plain words"
    assert isinstance(observed.generation(), LLMGenerationSuccess)
