"""Whatever a server sends, the application gets what the bare client gives, and one entry tells of the call.

Real-shaped bodies and streams are mutated: members missing, null, of a wrong type; items dropped, doubled, out of
order; events of an unknown type; bytes cut off anywhere. ``OPENAI_LIFECYCLE_FUZZ=5000`` tries that many for each
test, at random; the ordinary run tries the same few every time.
"""

from __future__ import annotations

import asyncio
import copy
import json
import logging
import os
import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openai.types.chat import ChatCompletionChunk
from opentelemetry.instrumentation.utils import suppress_instrumentation
from opentelemetry.trace import SpanKind

from openai_lifecycle.capture.facts import Reply
from openai_lifecycle.capture.operations.chat import CHAT
from tests import wire, wire_responses
from tests.capture.application import each, http, seen, settle
from tests.observed import Observed

EXAMPLES = int(os.environ.get("OPENAI_LIFECYCLE_FUZZ", "0"))
FUZZ = settings(
    max_examples=EXAMPLES or 250,
    derandomize=not EXAMPLES,
    database=None,
    deadline=None,
    # The fixture's observation is emptied for each example.
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

Call = Callable[[Any, bool], Any]


def chat(client: Any, stream: bool) -> Any:
    """Call a chat."""
    return client.chat.completions.create(**wire.REQUEST, stream=stream)


def respond(client: Any, stream: bool) -> Any:
    """Create a response."""
    return client.responses.create(**wire_responses.REQUEST, stream=stream)


def read(client: Any, _: bool) -> Any:
    """Read a response."""
    return client.responses.retrieve("resp_1")


RICH = wire_responses.response(
    output=[
        *wire_responses.output(),
        {
            "id": "m",
            "type": "mcp_call",
            "name": "roll",
            "server_label": "d",
            "arguments": "{}",
            "output": "6",
        },
        {
            "id": "w",
            "type": "web_search_call",
            "status": "completed",
            "action": {"type": "search", "query": "q"},
        },
        {
            "id": "c",
            "type": "computer_call",
            "call_id": "c",
            "actions": [{"type": "wait"}],
            "status": "completed",
        },
        {"id": "x", "type": "compaction", "encrypted_content": "A"},
    ],
    conversation={"id": "conv_1"},
)
BODIES: list[tuple[Call, Any]] = [
    (chat, wire.completion()),
    (respond, RICH),
    (respond, wire_responses.FAILED),
    (respond, {**RICH, "status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}),
]
STREAMS: list[tuple[Call, list[Any]]] = [
    (chat, wire.chunks()),
    (respond, wire_responses.events(RICH)),
    (respond, wire_responses.events(wire_responses.FAILED)),
]

# ------------------------------------------------------------------ mutations
ODD = st.sampled_from(
    [None, True, 0, -1, 2**70, 1.5, "", "odd", "\ud800", [], [None], ["odd"], {}, {"odd": 1}]
)


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every (container, key) in a JSON value."""
    members = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    for key, inner in members:
        yield value, key
        yield from places(inner)


def mutated(draw: st.DrawFn, value: Any) -> Any:
    """Return ``value`` with a few members changed."""
    value = copy.deepcopy(value)
    for _ in range(draw(st.integers(0, 4))):
        found = list(places(value))
        if not found:
            break
        container, key = found[draw(st.integers(0, len(found) - 1))]
        match draw(st.sampled_from(["remove", "null", "odd", "double", "reverse", "rename"])):
            case "remove":
                del container[key]
            case "null":
                container[key] = None
            case "odd":
                container[key] = copy.deepcopy(draw(ODD))
            case "double" if isinstance(container, list):
                container.insert(key, container[key])
            case "reverse" if isinstance(container[key], list):
                container[key].reverse()
            case "rename" if isinstance(container, dict):
                container["unheard_of"] = container.pop(key)
            case _:
                container[key] = {"type": "unheard_of"}
    return value


@st.composite
def bodies(draw: st.DrawFn) -> tuple[Call, bytes]:
    """Draw a call and the body of its answer."""
    call, body = draw(st.sampled_from(BODIES))
    sent = json.dumps(mutated(draw, body)).encode()
    return call, sent[: draw(st.integers(0, len(sent)))] if draw(st.integers(0, 5)) == 0 else sent


@st.composite
def streams(draw: st.DrawFn) -> tuple[Call, bytes]:
    """Draw a call and the bytes of its stream."""
    call, events = draw(st.sampled_from(STREAMS))
    events = mutated(draw, events)
    if draw(st.integers(0, 3)) == 0:
        events = draw(st.permutations(events))
    end = draw(
        st.sampled_from(["data: [DONE]\n\n", "", "data: {\n\n", ": comment\n\n", "event: odd\ndata: 1\n\n"])
    )
    sent = ("".join(f"data: {json.dumps(event)}\n\n" for event in events) + end).encode()
    return call, sent[: draw(st.integers(0, len(sent)))] if draw(st.integers(0, 2)) == 0 else sent


# ------------------------------------------------------------------ the application
async def trail(client: Any, call: Call, form: str, *, stream: bool) -> list[Any]:
    """Return all that the application sees of one call."""
    found: list[Any] = []
    try:
        if form == "raw":
            value = await settle((await settle(call(_Raw(client), stream))).parse())
        else:
            value = await settle(call(client, stream))
        if not stream:
            found.append(said(value))
        else:
            async for chunk in each(value):
                found.append(said(chunk))  # noqa: PERF401 - what came before an exception counts
    except Exception as error:
        found.append((type(error), str(error)))
    return found


class _Raw:
    """A client whose methods all return raw responses."""

    def __init__(self, client: Any) -> None:
        self.responses = client.responses.with_raw_response
        self.chat = client.chat.with_raw_response


def said(value: Any) -> Any:
    """Return a comparable form of a value; the client's models complain of odd members when they are dumped."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return seen(value)
        except Exception as error:
            return type(error), repr(value)


def client_of(sent: bytes, kind: str, *, is_async: bool) -> Any:
    """Return a client whose server answers with ``sent``."""

    def answer(_: Any) -> Any:
        return http.Response(200, headers={"content-type": kind}, content=sent)

    transport = http.MockTransport(answer)
    if is_async:
        ahttp = openai.DefaultAsyncHttpxClient(transport=transport, verify=False)
        return openai.AsyncOpenAI(api_key="sk-fuzz-0123456789", max_retries=0, http_client=ahttp)
    own = openai.DefaultHttpxClient(transport=transport, verify=False)
    return openai.OpenAI(api_key="sk-fuzz-0123456789", max_retries=0, http_client=own)


HEADER = re.compile(r"^\[[^]]+\] \[EVENT: (\w+)\]$", re.MULTILINE)


def check(
    observed: Observed, caplog: pytest.LogCaptureFixture, example: tuple[Call, bytes], **how: Any
) -> None:
    """Make a call bare and observed, and compare."""
    call, sent = example
    is_async, form, stream = how["is_async"], how["form"], how["stream"]
    kind = "text/event-stream" if stream else "application/json"

    def once() -> list[Any]:
        client = client_of(sent, kind, is_async=is_async)
        return asyncio.run(trail(client, call, form, stream=stream))

    with suppress_instrumentation():
        bare = once()
    caplog.clear()
    observed.clear()
    assert once() == bare
    tags = HEADER.findall(Path("events.log").read_text()) if Path("events.log").exists() else []
    generations = [tag for tag in tags if tag.startswith("GENERATION_")]
    assert len(generations) == 1 if call is not read else len(generations) <= 1
    (span,) = (span for span in observed.spans(None) if span.kind is SpanKind.CLIENT)
    span.to_json()
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


@pytest.fixture
def observed(caplog: pytest.LogCaptureFixture) -> Iterator[Observed]:
    """Instrument with content everywhere, so that everything is read."""
    caplog.set_level(logging.ERROR)
    with Observed(capture="span_and_event") as observation:
        yield observation


HOW = {"is_async": st.booleans(), "form": st.sampled_from(["plain", "plain", "raw"])}


@FUZZ
@given(example=bodies(), **HOW)
def test_any_body(
    observed: Observed, caplog: pytest.LogCaptureFixture, example: Any, is_async: bool, form: str
) -> None:
    """Any body gives the application what the bare client gives, and one entry."""
    check(observed, caplog, example, is_async=is_async, form=form, stream=False)


@FUZZ
@given(example=streams(), **HOW)
def test_any_stream(
    observed: Observed, caplog: pytest.LogCaptureFixture, example: Any, is_async: bool, form: str
) -> None:
    """Any stream, cut anywhere, gives the application what the bare client gives, and one entry."""
    check(observed, caplog, example, is_async=is_async, form=form, stream=True)


@FUZZ
@given(example=bodies(), **HOW)
def test_any_body_read_again(
    observed: Observed, caplog: pytest.LogCaptureFixture, example: Any, is_async: bool, form: str
) -> None:
    """Reading a response back gives the application what the bare client gives, and at most one entry."""
    check(observed, caplog, (read, example[1]), is_async=is_async, form=form, stream=False)


def any_of(common: Any, *odd: Any) -> st.SearchStrategy[Any]:
    """Draw ``common`` half of the time."""
    return st.just(common) | st.sampled_from(odd)


FRAGMENT = {"index": 0, "id": "call_1", "function": {"name": "f", "arguments": "{}"}}
DELTAS = st.fixed_dictionaries(
    {"content": any_of(" word", None, "", ["a list"], 3)},
    optional={
        "tool_calls": any_of(None, [], [FRAGMENT], [{"function": {"arguments": "1"}}, None]),
        "function_call": any_of(None, {"name": "f", "arguments": "{}"}),
        "role": st.just("assistant"),
    },
)
CHOICES = st.fixed_dictionaries(
    {"index": any_of(0, 1, None), "delta": DELTAS | DELTAS | any_of(None, [], "odd")},
    optional={"finish_reason": any_of(None, "stop", "", 3)},
)
CHUNKS = st.fixed_dictionaries(
    {
        "choices": st.lists(CHOICES, min_size=1, max_size=1)
        | st.lists(CHOICES, max_size=2)
        | any_of([], None, {})
    },
    optional={
        "id": any_of("chatcmpl-1", None),
        "model": any_of(wire.ANSWERED_BY, None, ""),
        "usage": any_of(None, wire.USAGE),
    },
)


@settings(FUZZ, max_examples=EXAMPLES or 2000)
@given(first=any_of([wire.chunk({"content": "Hello"})], []), others=st.lists(CHUNKS, min_size=1, max_size=4))
def test_models_and_json_say_the_same(first: list[Any], others: list[Any]) -> None:
    """The chunks of a chat tell the same as the client's models and as the JSON that they are made of."""
    events = first + others
    assert folded([ChatCompletionChunk.construct(**event) for event in events]) == folded(events)


def folded(chunks: list[Any]) -> Reply:
    """Return what ``chunks`` say, without the times at which they came."""
    reply = Reply()
    for chunk in chunks:
        CHAT.chunk(reply, chunk)
    for tool in reply.tool_calls.values():
        tool.time = None
    return reply
