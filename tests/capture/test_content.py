"""Content on the span: the conventions' JSON, bounded, valid whatever is cut, and without credentials."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openai_lifecycle.capture import content, messages
from openai_lifecycle.capture.facts import Json
from openai_lifecycle.events import LLMGenerationSuccess
from tests import wire, wire_responses
from tests.capture.application import CHAT, RESPONSES, Api, client_for, closing, run
from tests.observed import Observed
from tests.scripted_server import ScriptedServer, event_stream, reply

KEY = "sk-test-0123456789abcdef"  # the client's own, see client_for
IMAGE = "data:image/png;base64," + "A" * 4000


@pytest.fixture
def observed() -> Any:
    """Instrument with content on spans only."""
    with Observed(capture="span_only") as observation:
        yield observation


def shown(observed: Observed, name: str) -> Any:
    """Return a content attribute of the one span, read as JSON."""
    return json.loads(observed.attributes()[f"gen_ai.{name}"])


def chat(server: ScriptedServer, answer: dict[str, Any] | None = None, **request: Any) -> None:
    """Make one plain chat call."""
    server.script(reply(json.dumps(wire.completion() if answer is None else answer).encode()))
    with client_for(server, is_async=False) as client:
        client.chat.completions.create(**{**wire.REQUEST, **request})


def respond(server: ScriptedServer, answer: dict[str, Any] | None = None, **request: Any) -> None:
    """Create one plain response."""
    server.script(reply(json.dumps(wire_responses.response() if answer is None else answer).encode()))
    with client_for(server, is_async=False) as client:
        client.responses.create(**{**wire_responses.REQUEST, **request})


def text(said: str) -> Json:
    """Return a text part."""
    return {"type": "text", "content": said}


BLOB = {"type": "blob", "mime_type": "image/png", "modality": "image", "content": "", "size": 3000}
CHAT_MESSAGES: list[tuple[Json, Json]] = [
    ({"role": "system", "content": "Be brief"}, {"role": "system", "parts": [text("Be brief")]}),
    (
        {"role": "user", "name": "Ann", "content": [{"type": "text", "text": "look"}]},
        {"role": "user", "parts": [text("look")], "name": "Ann"},
    ),
    (
        {
            "role": "user",
            "content": [{"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}],
        },
        {"role": "user", "parts": [{"type": "uri", "modality": "image", "uri": "https://example.com/a.png"}]},
    ),
    (
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": IMAGE}}]},
        {"role": "user", "parts": [BLOB]},
    ),
    *(
        (
            {
                "role": "user",
                "content": [{"type": f"{kind}_url", f"{kind}_url": {"url": "https://example.com/a"}}],
            },
            {"role": "user", "parts": [{"type": "uri", "modality": kind, "uri": "https://example.com/a"}]},
        )
        for kind in ("video", "audio")
    ),
    (
        {
            "role": "user",
            "content": [{"type": "input_audio", "input_audio": {"data": "A" * 8, "format": "wav"}}],
        },
        {
            "role": "user",
            "parts": [
                {"type": "blob", "mime_type": "audio/wav", "modality": "audio", "content": "", "size": 6}
            ],
        },
    ),
    (
        {"role": "user", "content": [{"type": "file", "file": {"file_id": "file_1"}}]},
        {"role": "user", "parts": [{"type": "file", "modality": "document", "file_id": "file_1"}]},
    ),
    (
        {
            "role": "assistant",
            "content": None,
            "refusal": "No",
            "reasoning_content": "Hm",
            "audio": {"id": "audio_1"},
            "tool_calls": [wire.tool_call("c1", "f", '{"a": null}')],
        },
        {
            "role": "assistant",
            "parts": [
                {"type": "reasoning", "content": "Hm"},
                text("No"),
                {"type": "file", "modality": "audio", "file_id": "audio_1"},
                {"type": "tool_call", "id": "c1", "name": "f", "arguments": {"a": None}},
            ],
        },
    ),
    (
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": [{"type": "text", "text": "Hm"}]},
                {"type": "thinking", "thinking": "So", "signature": "c2ln"},
                {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Then"}]},
                {"type": "text", "text": "Yes"},
            ],
        },
        {
            "role": "assistant",
            "parts": [
                {"type": "reasoning", "content": "Hm"},
                {"type": "reasoning", "content": "So"},
                {"type": "reasoning", "content": "Then"},
                text("Yes"),
            ],
        },
    ),
    (
        {"role": "assistant", "function_call": {"name": "old", "arguments": "not json"}},
        {"role": "assistant", "parts": [{"type": "tool_call", "name": "old", "arguments": "not json"}]},
    ),
    (
        {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
        {"role": "tool", "parts": [{"type": "tool_call_response", "id": "c1", "response": "sunny"}]},
    ),
    ({"role": "user", "content": [{"type": "hologram"}]}, {"role": "user", "parts": [{"type": "hologram"}]}),
]


@pytest.mark.parametrize(
    ("message", "line"),
    [
        ({"role": "user", "content": "hi"}, "user: hi"),
        ({"role": "tool", "content": "sunny"}, "tool: [tool_result ] sunny"),
        ({"content": "well", "tool_calls": [wire.tool_call("c1", "f", "{}")]}, ": well [tool_call f]"),
        ({"role": "user", "content": None}, "user: "),
        ({"role": "assistant", "function_call": {"name": "old"}}, "assistant: [tool_call old]"),
        ({"role": "assistant", "content": "hi", "audio": {"id": "audio_1"}}, "assistant: hi [audio]"),
    ],
)
def test_lines_of_messages(message: Json, line: str) -> None:
    """However few members a message has, its line says of each what it is."""
    assert list(content.chat_messages([message])) == [line]


@pytest.mark.parametrize(("message", "wanted"), CHAT_MESSAGES)
def test_chat_messages(server: ScriptedServer, observed: Observed, message: Json, wanted: Json) -> None:
    """Each kind of chat message is in the schema's words: large values by size, unknown members left out."""
    chat(server, messages=[message])
    assert shown(observed, "input.messages") == [wanted]


def item(part: Json, role: str = "assistant") -> Json:
    """Return a message of one part."""
    return {"role": role, "parts": [part]}


#: What two commands of a shell printed.
PRINTED = (
    {"stdout": "a.txt", "stderr": "", "outcome": {"type": "exit", "exit_code": 0}},
    {"stdout": "", "stderr": "no b", "outcome": {"type": "exit", "exit_code": 1}},
)
BETWEEN_AGENTS = {
    "type": "agent_message",
    "id": "m",
    "author": "helper",
    "recipient": "root",
    "content": [{"type": "input_text", "text": "Done"}],
}
ITEMS: list[tuple[Any, Json]] = [
    (BETWEEN_AGENTS, {"role": "assistant", "parts": [text("Done")]}),
    (
        {"type": "mcp_list_tools", "id": "l", "server_label": "dice", "tools": []},
        {"role": "assistant", "parts": [{"type": "mcp_list_tools", "id": "l"}]},
    ),
    (
        {
            "role": "user",
            "content": [{"type": "input_text", "text": "look"}, {"type": "input_image", "file_id": "f"}],
        },
        {"role": "user", "parts": [text("look"), {"type": "file", "modality": "image", "file_id": "f"}]},
    ),
    (
        {"role": "user", "content": [{"type": "input_file", "file_data": "A" * 8, "filename": "a.pdf"}]},
        item({"type": "blob", "modality": "document", "content": "", "size": 6}, "user"),
    ),
    (
        {"role": "user", "content": [{"type": "input_file", "file_url": "https://example.com/a.pdf"}]},
        item({"type": "uri", "modality": "document", "uri": "https://example.com/a.pdf"}, "user"),
    ),
    (
        wire_responses.function_call(),
        item(
            {
                "type": "tool_call",
                "id": "call_1",
                "name": "get_weather",
                "arguments": json.loads(wire.WEATHER),
            }
        ),
    ),
    (
        {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_text", "text": "sunny"}]},
        item({"type": "tool_call_response", "id": "c", "response": [text("sunny")]}, "tool"),
    ),
    (
        {"type": "shell_call_output", "call_id": "c", "output": [*PRINTED]},
        item({"type": "tool_call_response", "id": "c", "response": [text("a.txt"), text("no b")]}, "tool"),
    ),
    (
        {
            "type": "computer_call_output",
            "call_id": "c",
            "output": {"type": "computer_screenshot", "image_url": IMAGE},
        },
        item({"type": "tool_call_response", "id": "c", "response": [BLOB]}, "tool"),
    ),
    (
        {
            "type": "web_search_call",
            "id": "w",
            "status": "completed",
            "action": {"type": "search", "query": "q"},
        },
        item(
            {
                "type": "server_tool_call",
                "id": "w",
                "name": "web_search",
                "server_tool_call": {"type": "web_search", "query": "q"},
            }
        ),
    ),
    (wire_responses.REASONING, item({"type": "reasoning", "content": "Thinking"})),
    (
        {"type": "compaction", "id": "cmp_1", "encrypted_content": "AAAA"},
        item({"type": "compaction", "id": "cmp_1"}),
    ),
    ({"type": "item_reference", "id": "msg_0"}, item({"type": "item_reference", "id": "msg_0"}, "user")),
]


@pytest.mark.parametrize(
    ("sent", "line"),
    [
        (
            {"type": "shell_call_output", "call_id": "c", "output": [*PRINTED]},
            "tool: [tool_result c] a.txt no b",
        ),
        ({"type": "shell_call_output", "call_id": "c", "output": "a.txt"}, "tool: [tool_result c] a.txt"),
        ({"type": "shell_call_output", "call_id": "c", "output": [{"stdout": 1}]}, "tool: [tool_result c]"),
        (BETWEEN_AGENTS, "assistant: Done"),
    ],
)
def test_lines_of_items(sent: Json, line: str) -> None:
    """What a shell's commands printed, and what agents tell each other, is told with who said it."""
    assert list(content.response_items([sent])) == [line]


@pytest.mark.parametrize(("sent", "wanted"), ITEMS)
def test_response_items(server: ScriptedServer, observed: Observed, sent: Any, wanted: Json) -> None:
    """Each kind of item sent to the Responses API is a message in the schema's words."""
    respond(server, input=[sent])
    assert shown(observed, "input.messages") == [wanted]


def test_a_text_alone_and_instructions(server: ScriptedServer, observed: Observed) -> None:
    """A text alone is the user's; instructions, sent apart from the messages, are recorded apart."""
    respond(server, instructions="Be brief")
    assert shown(observed, "input.messages") == [{"role": "user", "parts": [text("Hi there")]}]
    assert shown(observed, "system_instructions") == [text("Be brief")]


@pytest.mark.parametrize("api", ["chat", "responses"])
def test_tool_definitions(server: ScriptedServer, observed: Observed, api: str) -> None:
    """Tools are recorded by type and name; descriptions and schemas, which are large, are not."""
    function = {"name": "f", "description": "long", "parameters": {"type": "object"}}
    if api == "chat":
        untyped = {"function": {"name": "g"}}  # Mistral does not need a type
        chat(server, tools=[{"type": "function", "function": function}, untyped])
        wanted = [{"type": "function", "name": "f"}, {"type": "function", "name": "g"}]
    else:
        tools = [
            {"type": "function", **function},
            {"type": "web_search"},
            {"type": "mcp", "server_label": "dice"},
        ]
        respond(server, tools=tools)
        named = (("function", "f"), ("web_search", "web_search"), ("mcp", "dice"))
        wanted = [{"type": kind, "name": name} for kind, name in named]
    assert shown(observed, "tool.definitions") == wanted


CALLED = [
    {"type": "tool_call", "id": "call_1", "name": "get_weather", "arguments": json.loads(wire.WEATHER)},
    {"type": "tool_call", "id": "call_2", "name": "get_time", "arguments": json.loads(wire.TIME)},
]


@pytest.mark.parametrize("form", ["plain", "stream", "helper", "raw", "streaming"])
def test_the_answer_of_a_chat(server: ScriptedServer, observed: Observed, form: str) -> None:
    """A chat's answer is one message per choice with text, tool calls and finish reason, streamed or not."""
    whole = reply(json.dumps(wire.completion()).encode())
    server.script(event_stream(*wire.chunks()) if form in ("stream", "helper") else whole)
    client = client_for(server, is_async=False)
    asyncio.run(closing(client, run(client, form)))
    wanted = {"role": "assistant", "finish_reason": "tool_calls", "parts": [text("Hello, world"), *CALLED]}
    assert shown(observed, "output.messages") == [wanted]


def test_the_answer_that_is_not_text(server: ScriptedServer, observed: Observed) -> None:
    """A thought, a refusal and spoken words are parts of the answer; the recording is there by its size."""
    audio = {"id": "audio_1", "data": "A" * 400, "transcript": "Said", "expires_at": 1}
    message = {
        "role": "assistant",
        "content": None,
        "refusal": "No",
        "reasoning_content": "Hm",
        "audio": audio,
    }
    chat(server, wire.completion(choices=[{"index": 0, "message": message, "finish_reason": "stop"}]))
    assert shown(observed, "output.messages")[0]["parts"] == [
        {"type": "reasoning", "content": "Hm"},
        {"type": "blob", "modality": "audio", "content": "", "size": 300},
        text("NoSaid"),
    ]


@pytest.mark.parametrize("form", ["plain", "stream"])
@pytest.mark.parametrize(
    "thoughts", [{"reasoning": "Hm"}, {"reasoning": "Hm", "reasoning_content": "Hm"}], ids=["one", "both"]
)
def test_thoughts_by_their_other_name(
    server: ScriptedServer, observed: Observed, thoughts: dict[str, str], form: str
) -> None:
    """Thoughts called reasoning are shown once, whether they are sent or received."""
    message = {"role": "assistant", "content": "Yes", **thoughts}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    answer = reply(json.dumps(wire.completion(choices=[choice])).encode())
    server.script(event_stream(wire.chunk(message), wire.chunk({}, "stop")) if form == "stream" else answer)
    client = client_for(server, is_async=False)
    asyncio.run(closing(client, run(client, form, messages=[message])))
    wanted = {"role": "assistant", "parts": [{"type": "reasoning", "content": "Hm"}, text("Yes")]}
    assert shown(observed, "input.messages") == [wanted]
    assert shown(observed, "output.messages") == [{**wanted, "finish_reason": "stop"}]


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
def test_the_answer_of_a_response(server: ScriptedServer, observed: Observed, *, streamed: bool) -> None:
    """A response is one message: thoughts, text, calls, hosted tools with their results, in the order received.

    Of an item that is none of these, or that the client does not know, the kind is shown.
    """
    mcp = {
        "type": "mcp_call",
        "id": "m",
        "name": "roll",
        "server_label": "d",
        "arguments": "{}",
        "output": "6",
    }
    picture = {"type": "image_generation_call", "id": "i", "status": "completed", "result": "A" * 400}
    unknown = {"type": "hologram", "id": "h", "status": "completed"}
    more_tools = {"type": "additional_tools", "id": "t", "role": "developer", "tools": []}
    final = wire_responses.response(output=[*wire_responses.output(), mcp, picture, unknown, more_tools])
    if streamed:
        server.script(event_stream(*wire_responses.events(final)))
        with client_for(server, is_async=False) as client:
            list(client.responses.create(**wire_responses.REQUEST, stream=True))
    else:
        respond(server, final)
    blob = {"type": "blob", "modality": "image", "content": "", "size": 300}

    def result(call_id: str, kind: str, **members: Any) -> Json:
        details = {"type": kind, **members}
        return {"type": "server_tool_call_response", "id": call_id, "server_tool_call_response": details}

    def hosted(call_id: str, kind: str, name: str) -> Json:
        return {"type": "server_tool_call", "id": call_id, "name": name, "server_tool_call": {"type": kind}}

    parts = [
        {"type": "reasoning", "content": "Thinking"},
        text(wire_responses.TEXT),
        *CALLED,
        hosted("m", "mcp", "roll"),
        result("m", "mcp", output="6"),
        hosted("i", "image_generation", "image_generation"),
        result("i", "image_generation", image=blob),
        {"type": "hologram", "id": "h"},
        {"type": "additional_tools", "id": "t"},
    ]
    assert shown(observed, "output.messages") == [
        {"role": "assistant", "finish_reason": "tool_calls", "parts": parts}
    ]


def test_a_compacted_conversation(server: ScriptedServer, observed: Observed) -> None:
    """The user's messages, which compacting gives back, are not shown as the assistant's."""
    asked = {"type": "message", "id": "m", "role": "user", "content": [{"type": "input_text", "text": "Hi"}]}
    summary = {"type": "compaction", "id": "cmp_1", "encrypted_content": "AAAA"}
    server.script(reply(json.dumps({"id": "resp_c", "output": [asked, summary]}).encode()))
    with client_for(server, is_async=False) as client:
        client.post("/responses/compact", cast_to=object, body=wire_responses.REQUEST)
    parts = [{"type": "compaction", "id": "cmp_1"}]
    answer = {"role": "assistant", "finish_reason": "stop", "parts": parts}
    assert json.loads(observed.attributes("compact")["gen_ai.output.messages"]) == [answer]


def test_a_stream_left_early(server: ScriptedServer, observed: Observed) -> None:
    """Of a response that is left in the middle of its text, what arrived is shown."""
    server.script(event_stream(*wire_responses.events()))
    with (
        client_for(server, is_async=False) as client,
        client.responses.create(**wire_responses.REQUEST, stream=True) as stream,
    ):
        for event in stream:
            if event.type == "response.output_text.delta":
                break
    parts = [{"type": "reasoning", "content": "Thinking"}, text("Hello")]
    assert shown(observed, "output.messages") == [{"role": "assistant", "parts": parts}]


def test_a_refusal_left_early(server: ScriptedServer, observed: Observed) -> None:
    """Of a response that is left in the middle of a refusal, what arrived is shown, and counts as no text."""
    place = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    deltas = [{"type": "response.refusal.delta", **place, "delta": said} for said in ("I ", "can't")]
    server.script(event_stream(*wire_responses.events()[:2], *deltas, end=()))
    with client_for(server, is_async=False) as client:
        list(client.responses.create(**wire_responses.REQUEST, stream=True))
    assert shown(observed, "output.messages") == [{"role": "assistant", "parts": [text("I can't")]}]
    entry = observed.generation()
    assert isinstance(entry, LLMGenerationSuccess)
    assert (entry.response_length, entry.choices_count) == (0, 0)


def test_a_refusal_without_room_for_it(server: ScriptedServer, observed: Observed) -> None:
    """When no text is kept, a refusal that is left early makes no message of its own, as other text makes none."""
    observed.instrument(capture="span_only", content_limit=0)
    refusal = {
        "type": "response.refusal.delta",
        "item_id": "msg_1",
        "output_index": 0,
        "content_index": 0,
        "delta": "I can't",
    }
    server.script(event_stream(*wire_responses.events()[:2], refusal, end=()))
    with client_for(server, is_async=False) as client:
        list(client.responses.create(**wire_responses.REQUEST, stream=True))
    assert "gen_ai.output.messages" not in observed.attributes()


# ------------------------------------------------------------------ where
@pytest.mark.parametrize(
    ("capture", "on_span", "on_event"),
    [
        ("no_content", False, False),
        ("event_only", False, True),
        ("span_only", True, False),
        ("span_and_event", True, True),
    ],
)
def test_where_content_appears(
    server: ScriptedServer, observed: Observed, capture: str, *, on_span: bool, on_event: bool
) -> None:
    """Each mode puts content where it says and nowhere else."""
    observed.instrument(capture=capture)
    chat(server)
    assert ("gen_ai.input.messages" in observed.attributes()) == on_span
    assert ("gen_ai.output.messages" in observed.attributes()) == on_span
    assert bool(observed.generation().message_content) == on_event
    assert [bool(call.arguments) for call in observed.tool_calls()] == [on_event] * 2


# ------------------------------------------------------------------ bounds
def test_a_long_text_is_cut(server: ScriptedServer, observed: Observed) -> None:
    """A text of 300 kB is cut, says how much is missing, and the attribute stays within the limit."""
    chat(server, messages=[{"role": "user", "content": 'a"\n' * 100_000}])
    attribute = observed.attributes()["gen_ai.input.messages"]
    (part,) = shown(observed, "input.messages")[0]["parts"]
    assert 8100 < len(attribute) <= 8192
    kept, _, rest = part["content"].partition("… [+")
    assert rest == f"{300_000 - len(kept)} chars]"


def test_the_content_limit_is_for_spans_too(server: ScriptedServer, observed: Observed) -> None:
    """The option limits `message_content` and each content attribute of the span."""
    observed.instrument(capture="span_and_event", content_limit=100)
    chat(server, messages=[{"role": "user", "content": "x" * 1000}])
    attributes = observed.attributes()
    assert 90 < len(attributes["gen_ai.input.messages"]) <= 100
    assert 2 < len(attributes["gen_ai.output.messages"]) <= 100
    assert observed.generation().message_content == "user: " + "x" * 94 + "… [+906 chars]"


@pytest.mark.parametrize("quoted", [0, 20], ids=["once", "often"])
def test_a_key_in_a_long_streamed_answer_is_not_cut_in_two(
    server: ScriptedServer, observed: Observed, quoted: int
) -> None:
    """A key of no known shape leaves nothing of itself where the kept part of a stream ends, even if others shrink it."""
    key = "Opaque" + "".join(f"{number}x" for number in range(120))
    said = f"{key} " * quoted
    said += "-" * (8000 - len(said)) + key + "-" * 1000
    server.script(
        event_stream(*[wire.chunk({"content": said[at : at + 16]}) for at in range(0, len(said), 16)])
    )
    observed.instrument(capture="span_only")
    with client_for(server, is_async=False, api_key=key) as client:
        list(client.chat.completions.create(**wire.REQUEST, stream=True))
    attribute = observed.attributes()["gen_ai.output.messages"]
    assert "---" in attribute
    assert "Opaque" not in attribute


def test_a_long_conversation_is_cut_in_the_middle(server: ScriptedServer, observed: Observed) -> None:
    """Of a conversation that is too long, its first message and its last ones are kept, in their order."""
    sent = [{"role": "user", "content": f"{number} " + "x" * 500} for number in range(1000)]
    chat(server, messages=sent)
    assert len(observed.attributes()["gen_ai.input.messages"]) <= 8192
    numbers = [int(m["parts"][0]["content"].split()[0]) for m in shown(observed, "input.messages")]
    assert numbers[0] == 0
    assert numbers[1:] == list(range(1000 - len(numbers) + 1, 1000))
    assert len(numbers) > 10


def test_a_long_answer_is_not_kept(server: ScriptedServer, observed: Observed) -> None:
    """A stream's text beyond the limit is counted, not kept."""
    server.script(event_stream(*[wire.chunk({"content": "y" * 1000})] * 50, wire.chunk({}, "stop")))
    client = client_for(server, is_async=False)
    asyncio.run(closing(client, run(client, "stream")))
    assert len(observed.attributes()["gen_ai.output.messages"]) <= 8192
    entry: Any = observed.generation()
    assert entry.response_length == 50_000


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(st.lists(ANYTHING, min_size=1, max_size=5), st.integers(0, 300))
def test_whatever_is_cut_is_valid_json(values: list[Any], limit: int) -> None:
    """Any values, cut at any length, are a JSON array within it that UTF-8 can encode."""
    written = messages.as_json(values, lambda value: value, limit)
    assert len(written) <= max(limit, 2)
    assert isinstance(json.loads(written, parse_constant=pytest.fail), list)
    written.encode()


@pytest.mark.parametrize("convert", [messages.chat_message, messages.response_item, messages.chat_tool])
@settings(max_examples=200, deadline=None)
@given(value=ANYTHING)
def test_whatever_is_sent_is_converted(convert: Any, value: Any) -> None:
    """Whatever stands where a message or a tool should, it is converted without an error."""
    assert isinstance(convert(value), dict)


def test_deep_nesting() -> None:
    """Arguments nested deeper than anyone reads end in an ellipsis, not in a RecursionError."""
    deep: Any = "end"
    for _ in range(500):
        deep = {"a": deep}
    written = messages.as_json([deep], lambda value: value, 8192)
    assert json.loads(written)
    assert "…" in written


# ------------------------------------------------------------------ credentials
def test_credentials_are_redacted(server: ScriptedServer, observed: Observed) -> None:
    """Keys in prompts, answers and arguments are replaced, also after an escaped line break and at the cut."""
    said = f"my key:\n{KEY}\nand Bearer abcdefghijklmnop"
    call = wire.tool_call("c1", "f", json.dumps({"key": KEY, KEY: 1}))
    answer = {"role": "assistant", "content": said, "tool_calls": [call]}
    long = "x" * 8100 + KEY
    chat(
        server,
        wire.completion(choices=[{"index": 0, "message": answer, "finish_reason": "stop"}]),
        messages=[{"role": "user", "content": said}, {"role": "user", "content": long}],
    )
    attributes = json.dumps(observed.attributes(), default=str)
    assert "sk-test" not in attributes
    assert "abcdefghijklmnop" not in attributes
    assert attributes.count("[REDACTED]") >= 5


@pytest.mark.parametrize("call", [chat, respond])
def test_the_clients_own_key_is_redacted(server: ScriptedServer, observed: Observed, call: Any) -> None:
    """A key that looks like nothing special, as Azure's do, is replaced because the client uses it."""
    observed.instrument(capture="span_and_event")
    key = "0123456789abcdef0123456789abcdef"
    server.script(reply(b"{}"))
    said = f"my key is {key}"
    request = {"messages": [{"role": "user", "content": said}]} if call is chat else {"input": said}
    with client_for(server, is_async=False, api_key=key) as client:
        method = client.chat.completions if call is chat else client.responses
        method.create(model="m", **request)
    assert key not in observed.span().to_json()
    assert observed.generation().message_content == "user: my key is [REDACTED]"


@pytest.mark.parametrize("form", ["plain", "stream"])
@pytest.mark.parametrize("api", [CHAT, RESPONSES], ids=["chat", "responses"])
def test_a_key_in_any_field_of_an_answer_is_redacted(
    server: ScriptedServer, observed: Observed, api: Api, form: str
) -> None:
    """A server that repeats the client's key in ids, names and other small fields does not put it on record."""
    key = "0123456789abcdef0123456789abcdef"
    observed.instrument(capture="span_and_event")
    small: dict[str, Any] = dict.fromkeys(("id", "model", "service_tier", "system_fingerprint"), key)
    if api is CHAT:
        tool_call = {"index": 0, **wire.tool_call(f"call {key}", key, "{}"), "type": key}
        fragment = {"tool_calls": [tool_call]}
        answer = {
            **small,
            "choices": [{"index": 0, "message": fragment, "delta": fragment, "finish_reason": key}],
        }
        event = answer
    else:
        call = {**wire_responses.function_call(f"call {key}", key, "{}"), "id": "fc_1"}
        answer = {**wire_responses.response(), **small, "conversation": {"id": key}, "output": [call]}
        event = {"type": "response.completed", "sequence_number": 1, "response": answer}
    whole = reply(json.dumps(answer).encode(), x_request_id=key)
    server.script(whole if form == "plain" else event_stream(event, x_request_id=key))
    asyncio.run(run(client_for(server, is_async=False, api_key=key), form, api=api))
    assert [tool.tool_name for tool in observed.tool_calls()] == ["[REDACTED]"]
    assert observed.generation().metadata.custom_fields["request_id"] == "[REDACTED]"
    assert key not in observed.span().to_json() + Path("events.log").read_text(encoding="utf-8")
