"""What servers of other makes send, and what answers from memory: read the same in every form of a call."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import weakref
from typing import Any

import openai
import pytest

from openai_lifecycle import semconv
from openai_lifecycle.capture import body
from openai_lifecycle.events import LLMGenerationError, LLMGenerationSuccess
from tests import wire, wire_responses
from tests.capture.application import client_for, closing, each, entered, http, run, settle
from tests.observed import Observed
from tests.scripted_server import ScriptedServer, event_stream, head, reply

BOTH = pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])


def chat(server: ScriptedServer, form: str = "plain", **request: Any) -> None:
    """Call the chat API once, in one of the forms of ``application.py``."""
    client = client_for(server, is_async=False)
    asyncio.run(closing(client, run(client, form, **request)))


def read_in_pieces(server: ScriptedServer, observed: Observed, size: int) -> LLMGenerationSuccess:
    """Return the entry of a stream whose bytes the application reads ``size`` at a time."""
    with (
        client_for(server, is_async=False) as client,
        client.chat.completions.with_streaming_response.create(**wire.REQUEST, stream=True) as response,
    ):
        for _ in response.iter_bytes(size):
            pass
    entry = observed.generation()
    assert isinstance(entry, LLMGenerationSuccess)
    return entry


def whole(**changes: Any) -> Any:
    """Return a script that answers with one completion."""
    return reply(json.dumps(wire.completion(**changes)).encode())


# ------------------------------------------------------------------ chat
@pytest.mark.parametrize("capture", ["event_only", "span_and_event"])
@pytest.mark.parametrize("form", ["stream", "raw_stream", "streaming_stream"])
def test_the_head_of_a_stream_may_come_late(server: ScriptedServer, form: str, capture: str) -> None:
    """Id and model are the last that a stream's chunks name; an empty finish reason takes none back."""
    first = wire.chunk(choices=[], id="", model="a-router", prompt_filter_results=[])
    chunks = [wire.chunk({"content": text}, id="late") for text in "ab"]
    server.script(event_stream(first, *chunks, wire.chunk({}, "stop", id="late"), wire.chunk({}, "")))
    with Observed(capture=capture) as observed:
        chat(server, form)
        attributes = observed.attributes()
    assert attributes["gen_ai.response.id"] == "chatcmpl-1"
    assert attributes["gen_ai.response.model"] == wire.ANSWERED_BY
    assert attributes["gen_ai.response.finish_reasons"] == ("stop",)


def test_what_the_last_chunk_of_a_choice_says(server: ScriptedServer, observed: Observed) -> None:
    """Service tier and fingerprint may come with the finish reason, and no usage after it."""
    end = wire.chunk({}, "stop", service_tier="flex", system_fingerprint="fp_9")
    server.script(event_stream(wire.chunk({"content": "a"}, service_tier=None, system_fingerprint=None), end))
    chat(server, "stream")
    attributes = observed.attributes()
    assert attributes["openai.response.service_tier"] == "flex"
    assert attributes["openai.response.system_fingerprint"] == "fp_9"


def test_a_long_line_in_many_pieces(server: ScriptedServer, observed: Observed) -> None:
    """A chunk of a megabyte that is read in pieces of a few bytes is put together once, not once a piece."""
    server.script(event_stream(wire.chunk({"content": "a" * 1_000_000}), wire.chunk({}, "stop")))
    entry = read_in_pieces(server, observed, 8)
    assert entry.response_length == 1_000_000


EVERY_END = pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=["LF", "CRLF", "CR"])


def in_lines(value: Any, end: str, width: int = 0) -> str:
    """Return an event whose JSON is spread over lines, each filled up to ``width`` characters."""
    lines = json.dumps(value, indent=0).splitlines()
    return "".join(f"data:{line}".ljust(width) + end for line in lines) + end


@EVERY_END
def test_every_end_of_a_line(server: ScriptedServer, observed: Observed, end: str) -> None:
    """Lines may end in any way that the standard allows, also when the bytes of one end arrive apart."""
    body = "".join(f": ping{end}{end}{in_lines(chunk, end)}" for chunk in wire.chunks())
    server.script(reply(body.encode(), kind="text/event-stream"))
    entry = read_in_pieces(server, observed, 1)
    assert entry.response_length == len("Hello, world")
    custom = entry.metadata.custom_fields
    assert (custom["finish_reasons"], custom["output_tokens"]) == ("tool_calls", "10")  # the last event's


@EVERY_END
@pytest.mark.parametrize("lines", ["one line", "lines"])
def test_an_event_beyond_all_bounds(
    server: ScriptedServer, observed: Observed, monkeypatch: pytest.MonkeyPatch, lines: str, end: str
) -> None:
    """Of an event without end no more than a limit is kept; the events after it are read."""
    monkeypatch.setattr(body, "LIMIT", 5_000)
    huge = {**wire.chunk({"content": "a"}), "padding": ["x"] * 1_000}
    # Each of the lines arrives whole: what is dropped is not only their ends.
    sent = in_lines(huge, end, 100 - len(end)) if lines == "lines" else f"data: {json.dumps(huge)}{end}{end}"
    rest = "".join(f"data: {json.dumps(chunk)}{end}{end}" for chunk in wire.chunks())
    server.script(reply((sent + rest).encode(), kind="text/event-stream"))
    entry = read_in_pieces(server, observed, 100)
    assert entry.response_length == len("Hello, world")


def test_a_document_beyond_all_bounds(
    server: ScriptedServer, observed: Observed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A document longer than a limit is not kept: the call is a success whose facts are not known."""
    monkeypatch.setattr(body, "LIMIT", 100)
    server.script(whole())
    entry = read_in_pieces(server, observed, 10)
    assert "output_tokens" not in entry.metadata.custom_fields


def test_a_stream_of_nothing(server: ScriptedServer, observed: Observed) -> None:
    """The mark at the end of a stream is no chunk: a stream without any has no time to the first."""
    server.script(event_stream())
    entry = read_in_pieces(server, observed, 100)
    assert "time_to_first_token_ms" not in entry.metadata.custom_fields


def test_a_rate_limit_beyond_all_bounds(server: ScriptedServer, observed: Observed) -> None:
    """A header's number that no attribute can hold is left out, and the others stay."""
    body = json.dumps(wire.completion()).encode()
    server.script(reply(body, x_ratelimit_remaining_tokens="9" * 20, x_ratelimit_remaining_requests="7"))
    chat(server)
    attributes = observed.attributes()
    assert semconv.REMAINING_TOKENS not in attributes
    assert attributes[semconv.REMAINING_REQUESTS] == 7


PARTS = [
    {"type": "thinking", "thinking": [{"type": "text", "text": "H"}, {"type": "text", "text": "m"}]},
    {"type": "reasoning", "summary": [{"type": "summary_text", "text": "!"}]},
    {"type": "text", "text": "Hello, "},
    {"type": "text", "text": "you"},
]


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
def test_content_in_parts(server: ScriptedServer, *, stream: bool) -> None:
    """Text that comes as a list of parts counts and is shown like a text; thoughts among them are shown but not text."""
    message = {"role": "assistant", "content": PARTS}
    chunks = event_stream(wire.chunk(message), wire.chunk({}, "stop"))
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    server.script(chunks if stream else whole(choices=[choice]))
    with Observed(capture="span_and_event") as observed, client_for(server, is_async=False) as client:
        list(client.chat.completions.create(**wire.REQUEST, stream=stream))
        entry, attributes = observed.generation(), observed.attributes()
    assert isinstance(entry, LLMGenerationSuccess)
    assert entry.response_length == len("Hello, you")
    (answer,) = json.loads(attributes["gen_ai.output.messages"])
    assert answer["parts"] == [
        {"type": "reasoning", "content": "Hm!"},
        {"type": "text", "content": "Hello, you"},
    ]


@pytest.mark.parametrize("form", ["plain", "stream", "streaming_stream"])
def test_images_beside_the_content(server: ScriptedServer, form: str) -> None:
    """Images that were drawn in a chat are shown by their size, and in the next question as what they are."""
    drawn = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 400}}
    message = {"role": "assistant", "content": None, "images": [drawn]}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    streamed = event_stream(*[wire.chunk(message)] * 100, wire.chunk({}, "stop"))
    server.script(whole(choices=[choice]) if form == "plain" else streamed)
    with Observed(capture="span_and_event", content_limit=100_000) as observed:
        chat(server, form, messages=[message], extra_body={"modalities": ["image", "text"]})
        entry, attributes = observed.generation(), observed.attributes()
    blob = {"type": "blob", "mime_type": "image/png", "modality": "image", "content": "", "size": 300}
    (answer,) = json.loads(attributes["gen_ai.output.messages"])
    assert answer["parts"] == [blob] * (1 if form == "plain" else 64)  # of a hundred: an answer is bounded
    (asked,) = json.loads(attributes["gen_ai.input.messages"])
    assert blob in asked["parts"]
    assert entry.message_content == "assistant: [image]"
    assert attributes["gen_ai.output.type"] == "image"


@pytest.mark.parametrize("form", ["plain", "raw", "streaming"])
def test_content_that_is_an_object(server: ScriptedServer, form: str) -> None:
    """An object in the place of a text, as Cloudflare answers a wish for JSON, counts and is shown as its JSON text."""
    message = {"role": "assistant", "content": {"colour": "grün", "sizes": [1, 2]}}
    server.script(whole(choices=[{"index": 0, "message": message, "finish_reason": "stop"}]))
    with Observed(capture="span_and_event") as observed:
        chat(server, form)
        entry, attributes = observed.generation(), observed.attributes()
    assert isinstance(entry, LLMGenerationSuccess)
    (answer,) = json.loads(attributes["gen_ai.output.messages"])
    (part,) = answer["parts"]
    assert part["type"] == "text"
    assert json.loads(part["content"]) == message["content"]
    assert entry.response_length == len(part["content"])


@pytest.mark.parametrize("capture", ["event_only", "span_and_event"])
@pytest.mark.parametrize("form", ["plain", "stream", "raw_stream", "streaming_stream"])
def test_a_message_where_a_delta_belongs(server: ScriptedServer, form: str, capture: str) -> None:
    """Text and calls count also if a stream's chunk holds a whole message, or a whole body a delta."""
    message = {"role": "assistant", "content": "whole", "tool_calls": [wire.tool_call("c", "f", "{}")]}
    wrong = "delta" if form == "plain" else "message"
    choices = [{"index": 0, wrong: message, "finish_reason": "tool_calls"}]
    server.script(whole(choices=choices) if form == "plain" else event_stream(wire.chunk(choices=choices)))
    with Observed(capture=capture) as observed:
        chat(server, form)
        (call,), entry, attributes = observed.tool_calls(), observed.generation(), observed.attributes()
    assert (call.tool_call_id, call.tool_name) == ("c", "f")
    assert isinstance(entry, LLMGenerationSuccess)
    assert entry.response_length == len("whole")
    assert ("whole" in attributes.get("gen_ai.output.messages", "")) == (capture == "span_and_event")


@pytest.mark.parametrize("capture", ["event_only", "span_and_event"])
def test_a_message_after_its_deltas(server: ScriptedServer, capture: str) -> None:
    """Text and calls count once if a stream ends with the message that its deltas made, as MiniMax's does."""
    calls = [wire.tool_call("c", "f", "{}")]
    last = {
        "index": 0,
        "message": {"role": "assistant", "content": "whole", "tool_calls": calls},
        "finish_reason": "tool_calls",
    }
    deltas: list[dict[str, Any]] = [
        {"content": "who"},
        {"content": "le"},
        {"tool_calls": [{**calls[0], "index": 0}]},
    ]
    chunks = [*(wire.chunk(delta) for delta in deltas), wire.chunk(choices=[last], object="chat.completion")]
    server.script(event_stream(*chunks))
    with Observed(capture=capture) as observed:
        chat(server, "stream")
        (call,), entry, attributes = observed.tool_calls(), observed.generation(), observed.attributes()
    assert (call.tool_call_id, call.tool_name, call.arguments) == ("c", "f", "{}")
    assert isinstance(entry, LLMGenerationSuccess)
    assert entry.response_length == len("whole")
    assert entry.metadata.custom_fields["finish_reasons"] == "tool_calls"
    assert attributes.get("gen_ai.output.messages", "").count("whole") == (capture == "span_and_event")


@pytest.mark.parametrize("form", ["plain", "raw", "streaming"])
def test_calls_of_one_index_in_a_whole_body(server: ScriptedServer, form: str) -> None:
    """In a whole message every tool call is one, whatever index it is given."""
    calls = [{**wire.tool_call(c, f"f{c}", "{}"), "index": 0} for c in "ab"]
    server.script(whole(choices=[{"index": 0, "message": {"role": "assistant", "tool_calls": calls}}]))
    with Observed() as observed:
        chat(server, form)
        assert [(c.tool_call_id, c.tool_name) for c in observed.tool_calls()] == [("a", "fa"), ("b", "fb")]


#: What a server puts into the fragments of a stream's calls: index, id, name, arguments.
CALLS: dict[str, tuple[list[tuple[Any, Any, Any, str]], list[tuple[str, str, str]]]] = {
    "all have index 0": ([(0, "a", "f", "{}"), (0, "b", "g", "[1]")], [("a", "f", "{}"), ("b", "g", "[1]")]),
    "a second call at index 0, after one at index 1": (
        [(0, "a", "f", "{}"), (1, "b", "g", "[1]"), (0, "c", "g", "[2]")],
        [("a", "f", "{}"), ("b", "g", "[1]"), ("c", "g", "[2]")],
    ),
    "none has an index": (
        [(None, "a", "f", "{}"), (None, "b", "f", "{}")],
        [("a", "f", "{}"), ("b", "f", "{}")],
    ),
    "each fragment has an id": (
        [(0, "a", "f", '{"x"'), (0, "b", None, ": {}}")],
        [("b", "f", '{"x": {}}')],
    ),
    "each fragment has an id and the name": (
        [(0, "a", "f", ""), (0, "b", "f", '{"x": {}'), (0, "c", "f", "}"), (0, "d", "f", "")],
        [("d", "f", '{"x": {}}')],
    ),
    "calls in pieces have index 0": (
        [(0, "a", "f", ""), (0, "", None, '{"x": 1}'), (0, "b", "f", ""), (0, None, None, "{}")],
        [("a", "f", '{"x": 1}'), ("b", "f", "{}")],
    ),
    "no id": (
        [(0, "", "f", '{"x": 1}'), (0, "", "f", '{"x": 2}'), (None, None, "g", "{}")],
        [("", "f", '{"x": 1}'), ("", "f", '{"x": 2}'), ("", "g", "{}")],
    ),
    "all have one id": (
        [(0, "a", "f", '{"x": 1}'), (0, "a", "f", '{"x": 2}')],
        [("a", "f", '{"x": 1}'), ("a", "f", '{"x": 2}')],
    ),
    "the last fragment at the next index": (
        [(0, "a", "f", '{"x"'), (1, None, None, ": {}}")],
        [("a", "f", '{"x": {}}')],
    ),
    "the rest at another index than the head": (
        [(0, "a", "f", "{}"), (0, "b", "g", ""), (1, None, None, "[1"), (1, None, None, "]")],
        [("a", "f", "{}"), ("b", "g", "[1]")],
    ),
    "the name in every fragment": (
        [(0, "a", "f", '{"x"'), (0, None, "f", ": {}"), (0, "a", "f", "}")],
        [("a", "f", '{"x": {}}')],
    ),
    "the name in pieces": (
        [(0, "a", "get_", ""), (0, None, "time", ""), (0, None, None, "{}")],
        [("a", "get_time", "{}")],
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_how_servers_tell_calls_apart(server: ScriptedServer, observed: Observed, name: str) -> None:
    """Calls of a stream that share an index, as those of Gemini's adapters do, are several; a repeated name is one."""
    sent, wanted = CALLS[name]
    fragments = [
        {
            "index": index,
            "id": call_id,
            "type": "function",
            "function": {"name": name, "arguments": arguments},
        }
        for index, call_id, name, arguments in sent
    ]
    server.script(
        event_stream(*(wire.chunk({"tool_calls": [one]}) for one in fragments), wire.chunk({}, "stop"))
    )
    chat(server, "stream")
    assert [(call.tool_call_id, call.tool_name, call.arguments) for call in observed.tool_calls()] == wanted


def test_a_call_outside_a_list(server: ScriptedServer, observed: Observed) -> None:
    """A call that a chunk has instead of a list of calls is recorded; old versions of TGI stream calls so."""
    functions = [{"name": "f", "arguments": '{"x"'}, {"name": None, "arguments": ": 1}"}]
    calls = [{"index": 0, "id": "", "type": "function", "function": function} for function in functions]
    chunks = [*(wire.chunk({"tool_calls": call}) for call in calls), wire.chunk({}, "stop")]
    server.script(event_stream(*chunks), event_stream(*chunks))
    read_in_pieces(server, observed, 100)
    # Not with ``chat``, which dumps the chunks: pydantic warns of these.
    with client_for(server, is_async=False) as client:
        for _ in client.chat.completions.create(**wire.REQUEST, stream=True):
            pass
    found = [(call.tool_call_id, call.tool_name, call.arguments) for call in observed.tool_calls()]
    assert found == [("", "f", '{"x": 1}')] * 2


def test_facts_of_a_chat_that_few_servers_know(server: ScriptedServer, observed: Observed) -> None:
    """Tokens written to the cache, and top_k, speech and OpenRouter's effort that were asked for, are on the span."""
    usage = {**wire.USAGE, "prompt_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 7}}
    server.script(whole(usage=usage))
    asked = {"top_k": 40, "modalities": ["text", "audio"], "reasoning": {"effort": "high", "exclude": True}}
    chat(server, extra_body=asked)
    wanted = {
        "gen_ai.usage.cache_creation.input_tokens": 7,
        "gen_ai.request.top_k": 40,
        "gen_ai.output.type": "speech",
        "gen_ai.request.reasoning.level": "high",
    }
    assert wanted.items() <= observed.attributes().items()


@pytest.mark.parametrize(
    ("said", "field", "count"),
    [
        ({"prompt_cache_hit_tokens": 3, "prompt_cache_miss_tokens": 8}, "cached_tokens", "3"),
        ({"cached_tokens": 3}, "cached_tokens", "3"),
        ({"prompt_cache_hit_tokens": 3, "prompt_tokens_details": {"cached_tokens": 4}}, "cached_tokens", "4"),
        ({"reasoning_tokens": 5, "citation_tokens": 6}, "reasoning_tokens", "5"),
        (
            {"reasoning_tokens": 5, "completion_tokens_details": {"reasoning_tokens": 0}},
            "reasoning_tokens",
            "0",
        ),
    ],
    ids=["DeepSeek", "Moonshot", "cached in both", "Perplexity", "reasoning in both"],
)
def test_counts_outside_the_details(
    server: ScriptedServer, observed: Observed, said: dict[str, Any], field: str, count: str
) -> None:
    """Cached and reasoning tokens are recorded where a server has them outside the details, which come first."""
    counts = {k: v for k, v in wire.USAGE.items() if not k.endswith("_details")}
    server.script(whole(usage={**counts, **said}))
    chat(server)
    assert observed.generation().metadata.custom_fields[field] == count


def test_counts_by_anthropics_names(server: ScriptedServer, observed: Observed) -> None:
    """Tokens read from the cache and written to it are recorded by the names that LiteLLM's proxy has for them."""
    counts = {"cache_read_input_tokens": 3, "cache_creation_input_tokens": 7}
    server.script(whole(usage={**wire.USAGE, "prompt_tokens_details": None, **counts}))
    chat(server)
    attributes = observed.attributes()
    assert attributes["gen_ai.usage.cache_read.input_tokens"] == 3
    assert attributes["gen_ai.usage.cache_creation.input_tokens"] == 7


def test_an_embedding_with_an_id(server: ScriptedServer, observed: Observed) -> None:
    """The id that vLLM and Mistral give to embeddings is that of the response, though OpenAI's have none."""
    vectors = [{"object": "embedding", "index": 0, "embedding": [0.5, 0.25]}]
    server.script(reply(json.dumps({"id": "embd-7", "model": "m", "data": vectors}).encode()))
    with client_for(server, is_async=False) as client:
        client.embeddings.create(model="m", input="x", encoding_format="float")
    assert observed.attributes("embeddings")["gen_ai.response.id"] == "embd-7"
    assert observed.generation().metadata.custom_fields["response_id"] == "embd-7"


def test_images_with_an_id(server: ScriptedServer, observed: Observed) -> None:
    """The id and the model that Together gives to images are those of the response, though OpenAI's have none."""
    drawn = {
        "id": "img-7",
        "model": "flux-2",
        "object": "list",
        "data": [{"index": 0, "url": "https://x.y/1"}],
    }
    server.script(reply(json.dumps(drawn).encode()))
    with client_for(server, is_async=False) as client:
        client.images.generate(model="flux", prompt="A cat")
    custom = observed.generation().metadata.custom_fields
    assert (custom["response_id"], custom["response_model"]) == ("img-7", "flux-2")


def test_a_transcript_with_a_model(server: ScriptedServer, observed: Observed) -> None:
    """Mistral's endpoint for transcripts names the model that answered and says how long the recording is."""
    usage = {"prompt_audio_seconds": 3, "prompt_tokens": 4, "completion_tokens": 5, "total_tokens": 384}
    body: Any = {"model": "voxtral-mini-2507", "text": "It was said", "language": None, "segments": []}
    server.script(reply(json.dumps({**body, "usage": usage}).encode()))
    with client_for(server, is_async=False) as client:
        client.audio.transcriptions.create(model="voxtral-mini-latest", file=("a.wav", b"RIFF"))
    wanted = {
        "gen_ai.response.model": "voxtral-mini-2507",
        "openai_lifecycle.usage.input_seconds": 3.0,
        "gen_ai.usage.input_tokens": 4,
        "gen_ai.usage.output_tokens": 5,
    }
    assert wanted.items() <= observed.attributes("transcription").items()


@pytest.mark.parametrize("place", ["x_groq", "choices"])
def test_usage_in_another_place(server: ScriptedServer, observed: Observed, place: str) -> None:
    """The last chunk of a stream has the usage where Groq puts it, or in its choice as from Moonshot."""
    holder = {"index": 0, "delta": {}, "finish_reason": "stop", "usage": wire.USAGE}
    end = wire.chunk({}, "stop", **{place: [holder] if place == "choices" else {"usage": wire.USAGE}})
    server.script(event_stream(wire.chunk({"content": "a"}, x_groq={"id": "req_1"}), end))
    chat(server, "stream")
    custom = observed.generation().metadata.custom_fields
    assert (custom["input_tokens"], custom["output_tokens"]) == ("19", "10")


def test_no_usage_of_one_choice_for_all(server: ScriptedServer, observed: Observed) -> None:
    """The usage of one of several choices is not taken for that of the call."""
    ends = [{"index": i, "delta": {}, "finish_reason": "stop", "usage": wire.USAGE} for i in (0, 1)]
    server.script(
        event_stream(
            *(wire.chunk(choices=[{**end, "finish_reason": None, "usage": None}]) for end in ends),
            *(wire.chunk(choices=[end]) for end in ends),
        )
    )
    chat(server, "stream", n=2)
    assert "output_tokens" not in observed.generation().metadata.custom_fields


def test_counts_with_a_decimal_point(server: ScriptedServer, observed: Observed) -> None:
    """A count of 7.0 is 7, also where the client leaves the usage as it came because another count is missing."""
    server.script(whole(usage={"prompt_tokens": None, "completion_tokens": 7.0, "total_tokens": 7.5}))
    chat(server)
    count = observed.attributes()["gen_ai.usage.output_tokens"]
    assert (type(count), count) == (int, 7)
    assert observed.generation().metadata.custom_fields["output_tokens"] == "7"


@pytest.mark.parametrize(
    ("headers", "request_id"),
    [
        ({"x_request_id": "x", "apim_request_id": "a"}, "x"),
        ({"apim_request_id": "a", "x_request_id": "x"}, "x"),
        ({"apim_request_id": "a"}, "a"),
        ({"request_id": "r"}, "r"),
        ({"x_amzn_RequestId": "b"}, "b"),
    ],
)
def test_request_id(server: ScriptedServer, observed: Observed, headers: Any, request_id: str) -> None:
    """The request's id is the one that the client itself shows; that of Azure's gateway or others, where there is none."""
    server.script(reply(json.dumps(wire.completion()).encode(), **headers))
    chat(server)
    assert observed.generation().metadata.custom_fields["request_id"] == request_id


def test_a_refusal_that_is_sent_is_shown(server: ScriptedServer, observed: Observed) -> None:
    """A refusal in the history of a conversation is part of what was sent."""
    server.script(whole())
    chat(server, messages=[{"role": "assistant", "content": None, "refusal": "I can't."}])
    assert observed.generation().message_content == "assistant: I can't."


# ------------------------------------------------------------------ responses
def respond(server: ScriptedServer, *events: Any) -> None:
    """Read a stream of the Responses API to its end."""
    server.script(event_stream(*events))
    with client_for(server, is_async=False) as client:
        list(client.responses.create(**wire_responses.REQUEST, stream=True))


def test_the_last_event_says_which_calls_there_were(server: ScriptedServer, observed: Observed) -> None:
    """A stream's last event carries all: calls of one id are two, a call with another id than before is one."""
    output = [wire_responses.function_call("same", name, "{}") for name in "fg"]
    done = [
        {"type": "response.output_item.done", "output_index": i, "item": {**item, "call_id": f"first_{i}"}}
        for i, item in enumerate(output)
    ]
    respond(server, *done, {"type": "response.completed", "response": wire_responses.response(output=output)})
    assert [(c.tool_call_id, c.tool_name) for c in observed.tool_calls()] == [("same", "f"), ("same", "g")]


@pytest.mark.parametrize(
    ("kind", "status", "reason"),
    [("response.done", "completed", "tool_calls"), ("response.cancelled", "cancelled", "cancelled")],
)
def test_other_last_events(
    server: ScriptedServer, observed: Observed, kind: str, status: str, reason: str
) -> None:
    """What other servers call the last event of a stream is the last event."""
    respond(server, {"type": kind, "response": wire_responses.response(status=status)})
    attributes = observed.attributes()
    assert attributes["gen_ai.response.finish_reasons"] == (reason,)
    assert attributes["gen_ai.usage.output_tokens"] == 10
    assert len(observed.tool_calls()) == 2


@pytest.mark.parametrize(
    ("item", "is_hosted"),
    [
        ({"type": "shell_call", "environment": {"type": "container_reference", "container_id": "c"}}, True),
        ({"type": "shell_call", "environment": {"type": "local"}}, False),
        ({"type": "tool_search_call", "execution": "server"}, True),
        ({"type": "tool_search_call", "execution": "client"}, False),
        ({"type": "multi_agent_call", "action": "send", "arguments": "{}"}, True),
    ],
)
def test_who_runs_a_tool(server: ScriptedServer, item: dict[str, Any], *, is_hosted: bool) -> None:
    """Where a kind of tool may run on either side, the call says where: only the application's are waited for."""
    final = wire_responses.response(output=[{"id": "i", "call_id": "c", "status": "completed", **item}])
    server.script(reply(json.dumps(final).encode()))
    with Observed(capture="span_and_event") as observed, client_for(server, is_async=False) as client:
        client.responses.create(**wire_responses.REQUEST)
        attributes = observed.attributes()
        assert len(observed.tool_calls()) == 1
    assert attributes["gen_ai.response.finish_reasons"] == ("stop" if is_hosted else "tool_calls",)
    (answer,) = json.loads(attributes["gen_ai.output.messages"])
    assert answer["parts"][0]["type"] == ("server_tool_call" if is_hosted else "tool_call")


# ------------------------------------------------------------------ errors in a stream that is read as text
ERRORS = {
    "chat": {"error": {"message": "boom", "code": "server_error"}},
    "responses": {"type": "error", "code": "server_error", "message": "boom"},
    "responses, nested": {"type": "error", "error": {"code": "server_error", "message": "boom"}},
}


@pytest.mark.parametrize("api", ERRORS)
def test_an_error_in_lines(server: ScriptedServer, observed: Observed, api: str) -> None:
    """An error event is a failure too where the application reads the stream's lines and nothing raises."""
    server.script(event_stream(ERRORS[api], end=()))
    with client_for(server, is_async=False) as client:
        resource, request = (
            (client.chat.completions, wire.REQUEST)
            if api == "chat"
            else (client.responses, wire_responses.REQUEST)
        )
        with resource.with_streaming_response.create(**request, stream=True) as response:
            assert "boom" in "".join(response.iter_lines())
    entry = observed.generation()
    assert isinstance(entry, LLMGenerationError)
    assert (entry.error, entry.metadata.custom_fields["error_type"]) == ("boom", "server_error")


# ------------------------------------------------------------------ from memory
def test_an_error_that_quotes_the_request(server: ScriptedServer, observed: Observed) -> None:
    """Of an error's message, in which a server may quote the whole prompt, the start is kept, in entry and span."""
    error = {"error": {"message": "x" * 100_000 + " sk-abcdefgh12345678"}}
    server.script(reply(json.dumps(error).encode(), status=400))
    with (
        client_for(server, is_async=False) as client,
        pytest.raises(openai.BadRequestError) as raised,
    ):
        client.chat.completions.create(**wire.REQUEST)
    entry, said = observed.generation(), str(raised.value)
    assert isinstance(entry, LLMGenerationError)
    assert entry.error == f"{said[:8192]}… [+{len(said) - 8192} chars]"
    assert observed.span().status.description == entry.error


def _stream(value: Any) -> bytes:
    return f"data: {json.dumps(value)}\n\n".encode()


EVENTS = b"".join(map(_stream, wire.chunks())) + b"data: [DONE]\n\n"
MEMORY: dict[str, tuple[str | None, bytes, bool]] = {
    "json": ("application/json", json.dumps(wire.completion()).encode(), False),
    "json called text": ("text/plain", json.dumps(wire.completion()).encode(), False),
    "json called bytes": ("application/octet-stream", json.dumps(wire.completion()).encode(), False),
    "json in capitals": ("Application/JSON", json.dumps(wire.completion()).encode(), False),
    "json called nothing": (None, json.dumps(wire.completion()).encode(), False),
    "json for a stream": ("application/json", json.dumps(wire.completion()).encode(), True),
    "events": ("text/event-stream", EVENTS, True),
    "events called text": ("text/plain; charset=utf-8", EVENTS, True),
    "events called bytes": ("application/octet-stream", EVENTS, True),
    "events called nothing": (None, EVENTS, True),
    "events unasked": ("text/event-stream", EVENTS, False),
}


def answering(kind: str | None, body: Any, *, is_async: bool) -> Any:
    """Return a client that is answered from memory, as by a mock or a cache."""
    headers = {} if kind is None else {"content-type": kind}
    content = {"content" if isinstance(body, bytes) else "stream": body}
    transport = http.MockTransport(lambda _: http.Response(200, headers=headers, **content))
    if is_async:
        return openai.AsyncOpenAI(api_key="k", http_client=http.AsyncClient(transport=transport))
    return openai.OpenAI(api_key="k", http_client=http.Client(transport=transport))


async def _read(response: Any) -> None:
    await settle(response.read())


async def _text(response: Any) -> None:
    await settle(response.text())


async def _parse(response: Any) -> None:
    parsed = await settle(response.parse())
    if isinstance(parsed, (openai.Stream, openai.AsyncStream)):
        async for _ in each(parsed):
            pass


async def _lines(response: Any) -> None:
    async for _ in each(response.iter_lines()):
        pass


@BOTH
@pytest.mark.parametrize("read", [_read, _text, _parse, _lines], ids=lambda read: read.__name__)
@pytest.mark.parametrize("name", MEMORY)
def test_a_body_from_memory(observed: Observed, name: str, read: Any, *, is_async: bool) -> None:
    """However a response that came from memory is read, its facts are in one entry."""
    kind, body, stream = MEMORY[name]

    async def application() -> None:
        client = answering(kind, body, is_async=is_async)
        create = client.chat.completions.with_streaming_response.create
        async with entered(create(**wire.REQUEST, **({"stream": True} if stream else {}))) as response:
            await read(response)
        await settle(client.close())

    asyncio.run(application())
    entry = observed.generation()
    assert isinstance(entry, LLMGenerationSuccess)
    assert (entry.response_length, entry.metadata.custom_fields["output_tokens"]) == (12, "10")
    assert len(observed.tool_calls()) == 2


@pytest.mark.parametrize("name", [name for name in MEMORY if name.startswith("json called")])
def test_a_raw_body_from_memory(observed: Observed, name: str) -> None:
    """A raw response is read for its entry whatever its body is called, as the client reads it when it parses."""
    kind, body, _ = MEMORY[name]
    with answering(kind, body, is_async=False) as client:
        raw = client.chat.completions.with_raw_response.create(**wire.REQUEST)
        assert raw.parse().usage.completion_tokens == 10
    assert observed.generation().metadata.custom_fields["output_tokens"] == "10"


@BOTH
def test_a_raw_stream_from_memory_that_is_not_parsed(observed: Observed, *, is_async: bool) -> None:
    """A raw stream that came from memory has its entry, also when the application takes only its bytes."""
    kind, body, _ = MEMORY["events"]

    async def application() -> bytes:
        client = answering(kind, body, is_async=is_async)
        raw = await settle(client.chat.completions.with_raw_response.create(**wire.REQUEST, stream=True))
        content: bytes = raw.http_response.content
        await settle(client.close())
        return content

    assert asyncio.run(application()) == body
    custom = observed.generation().metadata.custom_fields
    assert custom["output_tokens"] == "10"
    assert "time_to_first_token_ms" not in custom  # all came at once


@BOTH
@pytest.mark.parametrize("read", ["iter_bytes", "iter_raw"])
@pytest.mark.parametrize("kind", ["audio/mpeg", "application/json", "text/event-stream"])
def test_a_body_that_breaks(
    server: ScriptedServer, observed: Observed, kind: str, read: str, *, is_async: bool
) -> None:
    """A body that breaks while it is read is an error, whatever it holds and however it is read."""
    server.script([head(200, kind, 100_000), b"x" * 1000, "cut"])

    async def application() -> None:
        client = client_for(server, is_async=is_async)
        create = client.audio.speech.with_streaming_response.create
        async with entered(create(model="tts-1", voice="alloy", input="Hello")) as response:
            async for _ in each(getattr(response.http_response, f"a{read}" if is_async else read)()):
                pass

    with pytest.raises(http.HTTPError) as raised:
        asyncio.run(application())
    entry = observed.generation()
    assert isinstance(entry, LLMGenerationError)
    assert entry.metadata.custom_fields["error_type"] == raised.type.__qualname__


class Closing(http.SyncByteStream, http.AsyncByteStream):  # type: ignore[misc]
    """A body that is never read, and whose closing may fail."""

    def __init__(self, *, fails: bool) -> None:
        self.fails = fails

    def close(self) -> None:
        if self.fails:
            raise OSError("connection lost")

    async def aclose(self) -> None:
        self.close()


@BOTH
@pytest.mark.parametrize("fails", [False, True], ids=["closes", "fails"])
@pytest.mark.parametrize("is_raw", [False, True], ids=["stream", "raw"])
def test_a_stream_that_is_closed(observed: Observed, *, is_raw: bool, fails: bool, is_async: bool) -> None:
    """A stream that the application closes and keeps has its entry at once; what closing raises it gets."""

    async def application() -> None:
        client = answering("text/event-stream", Closing(fails=fails), is_async=is_async)
        chat = client.chat.completions
        create = chat.with_raw_response.create if is_raw else chat.create
        answered = await settle(create(**wire.REQUEST, stream=True))
        response = answered.http_response if is_raw else answered.response
        with pytest.raises(OSError, match="lost") if fails else contextlib.nullcontext():
            await settle(response.aclose() if is_async else response.close())
        assert isinstance(observed.generation(), LLMGenerationSuccess)
        await settle(client.close())

    asyncio.run(application())


@BOTH
def test_a_body_that_is_closed_unread(server: ScriptedServer, *, is_async: bool) -> None:
    """A response that is closed unread is freed without the garbage collector if it is without us."""
    server.script(reply(json.dumps(wire.completion()).encode()))

    async def application() -> weakref.ref[Any]:
        client = client_for(server, is_async=is_async)
        create = client.chat.completions.with_streaming_response.create
        async with entered(create(**wire.REQUEST)) as response:
            http_response = weakref.ref(response.http_response)
        del response
        await settle(client.close())
        return http_response

    def is_freed() -> bool:
        gc.collect()
        gc.disable()
        try:
            return asyncio.run(application())() is None
        finally:
            gc.enable()

    bare = is_freed()
    with Observed():
        assert is_freed() == bare


@BOTH
def test_a_body_read_raw(server: ScriptedServer, observed: Observed, *, is_async: bool) -> None:
    """A body that the application takes as it came is a success, and the application gets each of its bytes."""
    body = json.dumps(wire.completion()).encode()
    server.script(reply(body))

    async def application() -> bytes:
        client = client_for(server, is_async=is_async)
        create = client.chat.completions.with_streaming_response.create
        async with entered(create(**wire.REQUEST)) as response:
            raw = response.http_response
            return b"".join([data async for data in each(raw.aiter_raw() if is_async else raw.iter_raw())])

    assert asyncio.run(application()) == body
    assert isinstance(observed.generation(), LLMGenerationSuccess)
