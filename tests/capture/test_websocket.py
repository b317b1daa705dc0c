"""WebSocket connections against a real server: what the application sees, and what is recorded of it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from opentelemetry import trace
from opentelemetry.instrumentation.utils import suppress_instrumentation
from opentelemetry.trace import StatusCode
from websockets.exceptions import ConnectionClosedOK, InvalidStatus

import openai_lifecycle
from openai_lifecycle.capture import call as call_module
from openai_lifecycle.capture.sockets import Socket
from openai_lifecycle.events import LLMGenerationError, LLMGenerationSuccess, ToolCallDetected
from openai_lifecycle.shield import SHIELD
from tests import scripted_sockets as ws
from tests.capture.application import each, entered, seen, settle
from tests.limits import HANGS
from tests.observed import Observed, entries, generations
from tests.scripted_sockets import SocketServer, Step, serving_sockets

Trail = list[Any]
BOTH = pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
KEY = "sk-test-0123456789abcdef"


@pytest.fixture(scope="module")
def sockets() -> Iterator[SocketServer]:
    """Return a scripted WebSocket server."""
    with serving_sockets() as running:
        yield running


def client_for(server: SocketServer, *, is_async: bool) -> Any:
    # Older clients speak TLS unless they are told where to connect to. Loading the certificates takes a tenth
    # of a second, and nothing here speaks TLS.
    options: dict[str, Any] = {
        "api_key": KEY,
        "base_url": server.base_url,
        "websocket_base_url": server.base_url.replace("http", "ws"),
    }
    if is_async:
        return openai.AsyncOpenAI(http_client=openai.DefaultAsyncHttpxClient(verify=False), **options)
    return openai.OpenAI(http_client=openai.DefaultHttpxClient(verify=False), **options)


def manager_of(client: Any, api: str, **options: Any) -> Any:
    resource: Any = getattr(client, api, None)
    if not hasattr(resource, "connect"):
        pytest.skip(f"this openai has no {api}.connect()")
    if api == "realtime":
        options["model"] = "gpt-realtime"
    return resource.connect(**options)


@contextlib.contextmanager
def connected(server: SocketServer, api: str) -> Iterator[Any]:
    """Connect with a client that is closed with the connection."""
    with client_for(server, is_async=False) as client, manager_of(client, api) as connection:
        yield connection


def receive_until(connection: Any, kind: str) -> None:
    """Receive events up to the first one of ``kind``."""
    while connection.recv().type != kind:
        pass


async def converse(client: Any, api: str, events: int | None = None, **options: Any) -> Trail:
    """Ask for one response; read until it ends, or only so many events. Return all that was seen."""
    trail: Trail = []
    try:
        async with entered(manager_of(client, api, **options)) as connection:
            trail.append(type(connection))
            if api == "responses":
                await settle(connection.response.create(model="gpt-5-mini", input="Hi there"))
            else:
                await settle(connection.conversation.item.create(item=ws.user_said("Hi there")))
                await settle(connection.response.create(response={"output_modalities": ["audio"]}))
            trail.append(trace.get_current_span())
            async for event in each(connection):
                trail.append(seen(event))
                if event.type in ENDS or len(trail) == events:
                    break
    except Exception as error:
        trail.append((type(error), str(error)))
    finally:
        await settle(client.close())
    return trail


ENDS = ("response.completed", "response.failed", "response.incomplete", "response.done", "error")


def turn(api: str, end: Step | None) -> list[Step]:
    """Return a script: a response that begins, says a little, and then ends with ``end``."""
    if api == "responses":
        begin: list[Step] = ["response.create", ws.created()]
        said = [ws.delta("Hel"), ws.delta("lo")]
    else:
        begin = [ws.SESSION, "response.create", ws.spoken_created()]
        said = [ws.speech("Hel"), ws.speech("lo")]
    return [*begin, *said, *([] if end is None else [end])]


BROKE = {"type": "server_error", "code": "server_error", "message": "it broke"}


def end_of(api: str, status: str, error: dict[str, str] = BROKE) -> dict[str, Any]:
    """Return the last event of a response; ``error`` is why it failed, if it did."""
    if api == "responses":
        changes: dict[str, Any] = {
            "failed": {"error": error},
            "incomplete": {"incomplete_details": {"reason": "max_output_tokens"}},
        }.get(status, {})
        return ws.event(f"response.{status}", response=ws.finished(status=status, **changes))
    details = {
        "failed": {"type": "failed", "error": error},
        "incomplete": {"type": "incomplete", "reason": "max_output_tokens"},
        "cancelled": {"type": "cancelled", "reason": "turn_detected"},
    }.get(status)
    return ws.realtime("response.done", response=ws.spoken(status=status, status_details=details))


def by_id() -> dict[str, Any]:
    """Return the ``GENERATION_*`` entries by the ids of their responses."""
    return {entry.metadata.custom_fields["response_id"]: entry for entry in generations()}


def thrice(observe: Callable[[], Observed], once: Callable[[], Any]) -> Observed:
    """Run bare, observed and bare again; all must be the same."""
    bare = once()
    with observe() as observed:
        assert once() == bare
        openai_lifecycle.uninstrument()
        assert once() == bare
    return observed


@BOTH
@pytest.mark.parametrize("api", ["responses", "realtime"])
@pytest.mark.parametrize(
    ("ending", "error_type", "finish"),
    [
        ("completed", None, "tool_calls"),
        ("incomplete", None, "length"),
        ("cancelled", None, "cancelled"),
        ("failed", "server_error", None),
        ("left early", None, None),
        ("closed by the server", "ConnectionClosedError", None),
        ("closed normally by the server", "ConnectionClosedOK", None),
        ("cut", "ConnectionClosedError", None),
    ],
)
def test_every_ending(
    sockets: SocketServer,
    api: str,
    ending: str,
    error_type: str | None,
    finish: str | None,
    *,
    is_async: bool,
) -> None:
    """However a response ends, the application sees what it does without us and one entry tells the ending."""
    if (api, ending) == ("responses", "cancelled"):
        pytest.skip("the Responses API has no such event")
    steps: dict[str, Step | None] = {
        "left early": None,
        "closed by the server": 1011,
        "closed normally by the server": 1000,
        "cut": "cut",
    }
    script = turn(api, steps[ending] if ending in steps else end_of(api, ending))
    events = 4 if ending == "left early" else None

    def once() -> tuple[Trail, list[Any]]:
        sockets.script(script)
        trail = asyncio.run(converse(client_for(sockets, is_async=is_async), api, events))
        return trail, sockets.events()

    observed = thrice(Observed, once)
    (entry,), (span,) = generations(), observed.spans("chat")
    connection = observed.attributes("connect")
    custom = entry.metadata.custom_fields
    assert span.parent is not None
    assert span.parent.span_id == observed.span("connect").context.span_id
    assert (entry.messages_count, entry.message_content) == (1, "user: Hi there")
    assert (custom["response_id"], custom["stream"]) == ("resp_1", "true")
    assert custom.get("error_type") == error_type
    assert isinstance(entry, LLMGenerationSuccess if error_type is None else LLMGenerationError)
    assert custom.get("finish_reasons") == finish
    assert observed.span("connect").status.is_unset == (error_type != "ConnectionClosedError")
    assert connection["openai_lifecycle.request_id"] == "req_ws"
    broken = error_type == "ConnectionClosedError"
    assert connection.get("error.type") == (error_type if broken else None)


@BOTH
@pytest.mark.parametrize("api", ["responses", "realtime"])
def test_facts(sockets: SocketServer, api: str, *, is_async: bool) -> None:
    """Tool calls, usage, models and text of a response on a connection are recorded as those of a streamed one."""
    sockets.script(turn(api, end_of(api, "completed")))
    with Observed() as observed:
        asyncio.run(converse(client_for(sockets, is_async=is_async), api))
        attributes = observed.attributes("chat")
        (tool,) = observed.tool_calls()
        entry = observed.generation()
    asked, answered = {
        "responses": ("gpt-5-mini", "gpt-5-mini-2026"),
        "realtime": ("gpt-realtime", "gpt-realtime-2026"),
    }[api]
    assert (tool.tool_call_id, tool.tool_name, tool.arguments) == (
        "call_1",
        "get_weather",
        '{"location": "Paris"}',
    )
    assert [type(e) for e in entries()][-2:] == [ToolCallDetected, LLMGenerationSuccess]
    assert isinstance(entry, LLMGenerationSuccess)
    assert (entry.model_id, entry.response_length, entry.choices_count) == (asked, 5, 1)
    wanted = {
        "gen_ai.request.model": asked,
        "gen_ai.response.model": answered,
        "gen_ai.request.stream": True,
        "gen_ai.usage.input_tokens": 11,
        "gen_ai.usage.output_tokens": 7,
        "gen_ai.usage.cache_read.input_tokens": 4,
        "openai.api.type": api,
        "server.address": "127.0.0.1",
    }
    assert {name: attributes.get(name) for name in wanted} == wanted
    assert attributes["gen_ai.response.time_to_first_chunk"] > 0
    if api == "realtime":
        assert attributes["gen_ai.output.type"] == "speech"
        assert attributes["gen_ai.conversation.id"] == "conv_1"
        assert attributes["openai_lifecycle.usage.input_audio_tokens"] == 6
    else:
        assert attributes["gen_ai.usage.reasoning.output_tokens"] == 2


@BOTH
def test_connection_that_is_refused(sockets: SocketServer, *, is_async: bool) -> None:
    """A refused handshake raises what it raises without us; the connection's span says why, and no entry is written."""

    def once() -> Trail:
        sockets.script([], refuse=[401])
        return asyncio.run(converse(client_for(sockets, is_async=is_async), "realtime"))

    observed = thrice(Observed, once)
    attributes = observed.attributes("connect")
    assert attributes["error.type"] == "InvalidStatus"
    assert attributes["http.response.status_code"] == 401
    assert observed.span("connect").status.status_code is StatusCode.ERROR
    assert not generations()


@pytest.mark.parametrize("names", [["x-request-id"], ["apim-request-id"], ["x-request-id"] * 2])
@pytest.mark.parametrize("refusals", [[], [429]], ids=["accepted", "refused"])
def test_request_id_of_a_handshake(
    sockets: SocketServer, monkeypatch: pytest.MonkeyPatch, names: list[str], refusals: list[int]
) -> None:
    """The id that the server gives a handshake, OpenAI's, Azure's or the last of several, is on the connection's span.

    So it is if the handshake is refused, and then there is the error too.
    """
    ids = [(name, f"req_{len(names) - at}") for at, name in enumerate(names)]
    monkeypatch.setattr(sockets, "headers", [*ids, ("x-note", "é")])
    sockets.script([], refuse=refusals)
    with Observed() as observed:
        with contextlib.suppress(InvalidStatus), client_for(sockets, is_async=False) as client:
            manager_of(client, "responses").enter().close()
        attributes = observed.attributes("connect")
    assert attributes["openai_lifecycle.request_id"] == "req_1"
    assert attributes.get("error.type") == ("InvalidStatus" if refusals else None)


@BOTH
@pytest.mark.parametrize("nested", [True, False])
def test_refused_request(sockets: SocketServer, *, nested: bool, is_async: bool) -> None:
    """An error event instead of a response, in either shape, is the failure of that request, with its code and status."""
    error = {"code": "bad_model", "message": "no such model"}
    inner = {"error": {**error, "type": "invalid"}} if nested else error
    sockets.script(["response.create", {"type": "error", "status": 400, **inner}])
    with Observed() as observed:
        asyncio.run(converse(client_for(sockets, is_async=is_async), "responses"))
        entry = observed.generation()
    assert isinstance(entry, LLMGenerationError)
    assert entry.error == "no such model"
    assert entry.metadata.custom_fields["error_type"] == "bad_model"
    assert entry.metadata.custom_fields["status_code"] == "400"


def test_error_while_a_response_is_under_way(sockets: SocketServer) -> None:
    """An error event ends the Responses response that is under way on its lane."""
    error = {"type": "error", "error": {"code": "server_error", "message": "it broke"}}
    sockets.script(turn("responses", error))
    with Observed() as observed:
        asyncio.run(converse(client_for(sockets, is_async=False), "responses"))
        entry = observed.generation()
    assert isinstance(entry, LLMGenerationError)
    assert (entry.error, entry.metadata.custom_fields["response_id"]) == ("it broke", "resp_1")


@pytest.mark.parametrize(
    ("named", "code"),
    [(True, None), (False, None), (False, "conversation_already_has_active_response")],
    ids=["named", "not named", "by its code"],
)
def test_realtime_error_is_about_what_it_names(sockets: SocketServer, named: bool, code: str | None) -> None:
    """A Realtime error fails at once the request that it names, or that its code is about.

    One that says neither fails a request that never begins.
    """
    error = {
        "type": "invalid_request_error",
        "code": code,
        "message": "no",
        "event_id": "mine" if named else None,
    }
    sockets.script([ws.SESSION, "response.create", ws.realtime("error", error=error)])
    with Observed() as observed, connected(sockets, "realtime") as connection:
        connection.response.create(**({"event_id": "mine"} if named else {}))
        receive_until(connection, "error")
        assert len(generations()) == int(named or code is not None)
    entry = observed.generation()
    assert isinstance(entry, LLMGenerationError)
    assert entry.error == "no"


@pytest.mark.parametrize("begun", [False, True])
def test_realtime_error_about_something_else(sockets: SocketServer, *, begun: bool) -> None:
    """An error that names no event fails neither a request that then begins after all nor one that has begun."""
    error = ws.realtime(
        "error", error={"type": "invalid_request_error", "message": "bad session", "event_id": None}
    )
    script = turn("realtime", end_of("realtime", "completed"))
    script.insert(3 if begun else 2, error)
    sockets.script(script)
    with Observed() as observed, connected(sockets, "realtime") as connection:
        connection.response.create()
        receive_until(connection, "response.done")
    entry = observed.generation()
    assert isinstance(entry, LLMGenerationSuccess)
    assert entry.response_length == len("Hello")


@pytest.mark.parametrize("commits", [False, True])
def test_response_that_the_server_begins(sockets: SocketServer, *, commits: bool) -> None:
    """Each response to speech, whoever saw it end, has what was said since the last, and the session's model."""
    committed = ws.realtime("input_audio_buffer.committed", item_id="item_0", previous_item_id=None)
    updated = ws.realtime("session.updated", session={"type": "realtime"})
    _, _, *rest = turn("realtime", end_of("realtime", "completed"))
    commit = ["input_audio_buffer.commit"] if commits else []
    spoken = ["conversation.item.create", "input_audio_buffer.append", *commit, committed, *rest]
    sockets.script([ws.SESSION, updated, *spoken, *spoken])
    with Observed(), connected(sockets, "realtime") as connection:
        for _ in range(2):
            connection.conversation.item.create(item=ws.user_said("Well?"))
            connection.input_audio_buffer.append(audio="AAAA")
            if commits:
                connection.input_audio_buffer.commit()
            receive_until(connection, "response.done")
    both = generations()
    said = "user: Well? | user: [audio]"
    assert [(entry.messages_count, entry.message_content) for entry in both] == [(2, said)] * 2
    assert {entry.metadata.custom_fields["response_model"] for entry in both} == {"gpt-realtime-2026"}


@pytest.mark.parametrize(("events", "first"), [(1, None), (3, "2000.000")])
def test_first_token_of_a_response_that_the_server_begins(
    sockets: SocketServer, monkeypatch: pytest.MonkeyPatch, events: int, first: str | None
) -> None:
    """The event that tells of a response which nobody asked for is its beginning, and the next one its first token."""
    monkeypatch.setattr(
        call_module, "perf_counter", itertools.count().__next__
    )  # a second between any two looks
    _, _, *rest = turn("realtime", None)
    sockets.script(rest)
    with Observed(), connected(sockets, "realtime") as connection:
        for _ in range(events):
            connection.recv()
    (entry,) = generations()
    assert entry.metadata.custom_fields.get("time_to_first_token_ms") == first


def test_media_of_an_item(sockets: SocketServer) -> None:
    """Of audio and images that are sent before a response is asked for, a span shows what they are, or their link."""
    sockets.script(turn("realtime", None)[:3])
    link, inlined = "https://example.com/cat.png", "data:image/png;base64,AAAA"
    sent = [
        {"type": "input_audio", "audio": "AAAA"},
        *({"type": "input_image", "image_url": url} for url in (inlined, link)),
    ]
    with Observed(capture="span_only") as observed, connected(sockets, "realtime") as connection:
        connection.conversation.item.create(item={"type": "message", "role": "user", "content": sent})
        connection.response.create()
        for _ in range(2):
            connection.recv()
    (message,) = json.loads(observed.attributes()["gen_ai.input.messages"])
    assert message["parts"] == [
        {"type": "blob", "modality": "audio", "content": ""},
        {"type": "blob", "mime_type": "image/png", "modality": "image", "content": ""},
        {"type": "uri", "modality": "image", "uri": link},
    ]


@BOTH
@pytest.mark.parametrize(
    ("then", "content"),
    [
        ("follows", "user: No, wait | user: Say [image]"),
        ("requested", "user: No, wait | user: Say [image] | user: Go on"),
        ("failed", "user: Go on"),
    ],
)
def test_steering(sockets: SocketServer, then: str, content: str, *, is_async: bool) -> None:
    """What an application queues for the successor of a response is part of what that one was asked, unless refused."""
    queued: list[Any] = [
        "No, wait",
        [
            {
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "Say"},
                    {"type": "input_image", "image_url": "data:image/png;base64,AAAA"},
                ],
            }
        ],
    ]
    steer = {"id": "steer_1", "previous_response_id": "resp_1"}
    failure = {"code": "response_not_active", "message": "too late"}
    said = {
        "follows": [],
        "requested": [ws.event("response.steer.pending", steer=steer, reason="r", required_input=[])],
        "failed": [ws.event("response.steer.failed", steer={**steer, "input": queued[0]}, error=failure)],
    }[then]
    successor = ws.finished("resp_2", previous_response_id="resp_1")
    sockets.script(
        [
            "response.create",
            ws.created(),
            *(["response.steer"] * 2),
            ws.event("response.steer.accepted", steer=steer),
            end_of("responses", "completed"),
            *said,
            *([] if then == "follows" else ["response.create"]),
            ws.event("response.created", response=ws.response("resp_2", previous_response_id="resp_1")),
            ws.event("response.completed", response=successor),
        ]
    )

    async def work() -> None:
        client = client_for(sockets, is_async=is_async)
        async with entered(manager_of(client, "responses")) as connection:

            async def send(kind: str, **event: Any) -> None:
                await settle(connection.send({"type": kind, **event}))

            await send("response.create", model="gpt-5-mini", input="Hi")
            await settle(connection.recv())
            for one in queued:
                await send("response.steer", previous_response_id="resp_1", input=one)
            for _ in range(2 + len(said)):
                await settle(connection.recv())
            if then != "follows":
                await send("response.create", model="m", input="Go on", previous_response_id="resp_1")
            for _ in range(2):
                await settle(connection.recv())
        await settle(client.close())

    with Observed():
        asyncio.run(work())
        first, second = generations()
    assert (first.message_content, second.message_content) == ("user: Hi", content)
    assert second.messages_count == content.count("user: ")


def test_interleaved_responses(sockets: SocketServer) -> None:
    """Responses that run at once on one connection are told apart: by id in Realtime."""
    done = [
        ws.realtime("response.done", response=ws.spoken(i, usage={"input_tokens": n}, conversation_id=None))
        for i, n in (("a", 1), ("b", 2))
    ]
    begun = [ws.spoken_created(i, conversation_id=None) for i in "ab"]
    sockets.script(
        [
            "response.create",
            "response.create",
            *begun,
            ws.speech("one", "b"),
            ws.speech("two", "a"),
            *done[::-1],
        ]
    )
    with Observed(), connected(sockets, "realtime") as connection:
        for said in ("first", "second"):
            asked = {"conversation": "none", "input": [ws.user_said(said)]}
            connection.response.create(response=asked)
        ends = 0
        while ends < 2:
            ends += connection.recv().type == "response.done"
    found = by_id()
    assert [found[i].message_content for i in "ab"] == ["user: first", "user: second"]
    assert [found[i].metadata.custom_fields["input_tokens"] for i in "ab"] == ["1", "2"]


def test_response_aside_takes_nothing_from_the_conversation(sockets: SocketServer) -> None:
    """What was said is part of a request outside the conversation without input of its own, and of the next within."""
    begun = [
        ws.spoken_created(i, conversation_id=within) for i, within in (("aside", None), ("within", "conv_1"))
    ]
    sockets.script(["response.create", "response.create", *begun])
    with Observed() as observed, connected(sockets, "realtime") as connection:
        connection.conversation.item.create(item=ws.user_said("Well?"))
        connection.response.create(response={"conversation": "none"})
        connection.response.create()
        for _ in begun:
            connection.recv()
    found = {name: entry.message_content for name, entry in by_id().items()}
    conversations = [(span.attributes or {}).get("gen_ai.conversation.id") for span in observed.spans("chat")]
    assert found == {"aside": "user: Well?", "within": "user: Well?"}
    assert conversations == [None, "conv_1"]


def test_response_aside_while_the_server_begins_one(sockets: SocketServer) -> None:
    """A response that the server begins to speech is not taken for one that was asked for outside the conversation."""
    begun = [
        ws.spoken_created(i, conversation_id=within) for i, within in (("spoken", "conv_1"), ("aside", None))
    ]
    committed = ws.realtime("input_audio_buffer.committed", item_id="item_0", previous_item_id=None)
    sockets.script([committed, "response.create", *begun])
    with Observed(), connected(sockets, "realtime") as connection:
        connection.recv()
        asked = {"conversation": "none", "input": [ws.user_said("Classify")]}
        connection.response.create(response=asked)
        for _ in begun:
            connection.recv()
    found = {name: entry.message_content for name, entry in by_id().items()}
    assert found == {"spoken": "user: [audio]", "aside": "user: Classify"}


def test_interleaved_responses_that_are_left(sockets: SocketServer) -> None:
    """When the application closes the connection early, each of its responses has what had arrived of it."""
    begun = [ws.spoken_created(i) for i in "ab"]
    sockets.script([*begun, ws.speech("one", "b"), ws.speech("three", "a")])
    with Observed(), connected(sockets, "realtime") as connection:
        for _ in range(4):
            connection.recv()
    assert [by_id()[i].response_length for i in "ab"] == [len("three"), len("one")]


REFUSED = {"type": "error", "error": {"type": "invalid_request_error", "code": None, "message": "no"}}


@pytest.mark.parametrize(
    ("api", "mark", "begun", "error"),
    [
        (
            "realtime",
            "event_id",
            ws.spoken_created(),
            {**REFUSED, "event_id": "e", "error": {**REFUSED["error"], "event_id": "b"}},  # type: ignore[dict-item]
        ),
        (
            "responses",
            "stream_id",
            ws.created(stream_id="a"),
            {**REFUSED, "stream_id": "b"},
        ),
    ],
    ids=["by name", "by lane"],
)
def test_one_of_several_requests_is_refused(
    sockets: SocketServer, api: str, mark: str, begun: Step, error: Step
) -> None:
    """An error ends at once the request that it is about, and no other, also when that one was made first."""
    sockets.script(["response.create", "response.create", error, begun])
    with Observed(), connected(sockets, api) as connection:
        for name in "ab":
            asked = {"input": [ws.user_said(name)]}
            parameters = {"response": asked} if api == "realtime" else asked
            connection.send({"type": "response.create", mark: name, **parameters})
        assert connection.recv().type == "error"
        (refused,) = generations()
        assert connection.recv().type == "response.created"
    first, last = generations()
    assert (first, isinstance(first, LLMGenerationError)) == (refused, True)
    assert (first.message_content, last.message_content) == ("user: b", "user: a")
    assert isinstance(last, LLMGenerationSuccess)


@pytest.mark.parametrize("response_id", ["resp_1", ""], ids=["same id", "no id"])
@pytest.mark.parametrize("ends", [True, False])
def test_a_response_that_begins_twice(sockets: SocketServer, response_id: str, *, ends: bool) -> None:
    """A server that tells twice of a beginning still has one response, the one that was asked for."""
    begun = ws.created(response_id)
    end = ws.event("response.completed", response=ws.finished(response_id))
    sockets.script(["response.create", begun, begun, *([end] if ends else [])])
    before = calls_in_memory()
    with Observed(), connected(sockets, "responses") as connection:
        connection.response.create(model="m", input="x")
        for _ in range(2 + ends):
            connection.recv()
    (entry,) = generations()
    assert calls_in_memory() <= before + 1  # that of the connection
    assert (entry.model_id, entry.message_content) == ("m", "user: x")
    assert isinstance(entry, LLMGenerationSuccess)
    assert entry.response_length == (len("Hello") if ends else 0)


def nested(delegation: str, event: Step) -> Step:
    """Return the event in which a Live connection tells ``event`` of a delegated response."""
    return {"type": "response.event", "event_id": "e", "delegation_id": delegation, "event": event}


def test_delegations_without_ids(sockets: SocketServer) -> None:
    """Delegated responses without ids each have an entry when the application leaves, also if one with an id follows."""
    begun = [("a", ""), ("b", ""), ("a", "resp_1")]
    sockets.script([nested(name, ws.created(response_id)) for name, response_id in begun])
    with Observed(), connected(sockets, "live") as connection:
        for _ in begun:
            connection.recv()
    assert len(generations()) == len(begun)


def calls_in_memory() -> int:
    gc.collect()
    return sum(type(thing) is call_module.Call for thing in gc.get_objects())  # a proxy's __class__ may raise


@pytest.mark.parametrize("api", ["responses", "realtime"])
def test_a_long_connection_keeps_no_response(sockets: SocketServer, api: str) -> None:
    """What has ended on a connection takes no memory while the connection stays open."""
    script = turn(api, end_of(api, "completed"))
    sockets.script(script)
    before = calls_in_memory()
    with Observed(), connected(sockets, api) as connection:
        connection.send({"type": "response.create", "model": "m", "input": "x"})
        while connection.recv().type not in ENDS:
            pass
        assert calls_in_memory() <= before + 1  # that of the connection
    assert len(generations()) == 1


@BOTH
def test_lanes(sockets: SocketServer, *, is_async: bool) -> None:
    """Lanes, which write to the socket behind the connection's back, each have their own generation."""
    session = pytest.importorskip("openai.lib.responses_websocket", reason="this openai has no lanes")
    sockets.script(
        [
            "response.create",
            "response.create",
            ws.created("resp_b", stream_id="b"),
            ws.created("resp_a", stream_id="a"),
            ws.delta("Hello", stream_id="b"),
            ws.delta("Bye", stream_id="a"),
            ws.event("response.completed", response=ws.finished("resp_a", said="Bye"), stream_id="a"),
            ws.event("response.completed", response=ws.finished("resp_b"), stream_id="b"),
        ]
    )
    limits = session.ResponsesWebSocketLimits(
        max_lanes=3, max_events_per_lane=100, max_events=100, max_bytes_per_lane=10**6, max_bytes=10**6
    )
    kind = session.AsyncResponsesWebSocketSession if is_async else session.ResponsesWebSocketSession

    async def work() -> list[str]:
        client = client_for(sockets, is_async=is_async)
        async with (
            entered(manager_of(client, "responses")) as connection,
            entered(kind(connection, limits=limits)) as lanes,
        ):
            a, b = lanes.lane("a"), lanes.lane("b")
            for name, lane in (("a", a), ("b", b)):
                await settle(
                    lane.send({"type": "response.create", "model": "gpt-5-mini", "input": f"to {name}"})
                )
            finals = [await settle(lane.get_final_response()) for lane in (a, b)]
        await settle(client.close())
        return [final.output_text for final in finals]

    with Observed():
        assert asyncio.run(work()) == ["Bye", "Hello"]
        found = by_id()
    assert [found[i].message_content for i in ("resp_a", "resp_b")] == ["user: to a", "user: to b"]
    assert [found[i].response_length for i in ("resp_a", "resp_b")] == [3, 5]


def test_a_thread_asks_while_another_lane_is_looked_for(
    sockets: SocketServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request that another thread sends while an answer finds its own takes no entry from either."""
    created = [ws.created(f"resp_{lane}", stream_id=lane) for lane in "bac"]
    sockets.script(["response.create", "response.create", created[0], "response.create", *created[1:]])
    waiting = ["b", "a"]
    with Observed(), connected(sockets, "responses") as connection:

        def ask() -> None:
            while waiting:
                lane = waiting.pop()
                raw = {"type": "response.create", "model": "m", "input": f"to {lane}", "stream_id": lane}
                connection._connection.send(json.dumps(raw))

        def compare(one: object, other: object) -> bool:
            ask()  # Python may switch threads wherever code of its own runs
            return one is other

        ask()
        waiting.append("c")
        monkeypatch.setattr(call_module.Call, "__eq__", compare)
        connection.recv()
        ask()
        connection.recv()
        connection.recv()
    found = {name: entry.message_content for name, entry in by_id().items()}
    assert found == {f"resp_{lane}": f"user: to {lane}" for lane in "abc"}


def test_request_that_cannot_be_sent(sockets: SocketServer) -> None:
    """A request that the socket refuses to send is an error by itself, and the next one is not taken for it."""
    sockets.script(turn("responses", end_of("responses", "completed")))
    with Observed(), connected(sockets, "responses") as connection:
        raw, whole = connection._connection, '{"type": "response.create", "model": "m", "input": "x"}'
        with pytest.raises(TypeError):
            raw.send(whole, nonsense=1)
        raw.send(whole)
        receive_until(connection, "response.completed")
    first, last = generations()
    assert isinstance(first, LLMGenerationError)
    assert first.metadata.custom_fields["error_type"] == "TypeError"
    assert isinstance(last, LLMGenerationSuccess)
    assert last.metadata.custom_fields["response_id"] == "resp_1"


@BOTH
def test_raw_use_of_a_connection(sockets: SocketServer, *, is_async: bool) -> None:
    """What is sent and received as text or bytes, past the client's own models, is seen all the same."""
    sockets.script(turn("responses", end_of("responses", "completed")))

    async def work() -> None:
        client = client_for(sockets, is_async=is_async)
        async with entered(manager_of(client, "responses")) as connection:
            await settle(connection.send_raw('{"type": "response.create", "model": "m", "input": "raw"}'))
            while b"response.completed" not in await settle(connection.recv_bytes()):
                pass
        await settle(client.close())

    module = pytest.importorskip("openai.resources.responses.responses")
    if not hasattr(getattr(module, "ResponsesConnection", None), "send_raw"):
        pytest.skip("this openai has no send_raw")
    with Observed() as observed:
        asyncio.run(work())
        entry = observed.generation()
    assert isinstance(entry, LLMGenerationSuccess)
    assert (entry.message_content, entry.response_length) == ("user: raw", 5)


@BOTH
def test_connection_that_is_dropped(sockets: SocketServer, *, is_async: bool) -> None:
    """A connection that is forgotten after the server has closed it ends, and its response with what had arrived."""

    async def work() -> None:
        client = client_for(sockets, is_async=is_async)
        connection = await settle(manager_of(client, "responses").enter())
        await settle(connection.response.create(model="m", input="first"))
        for _ in range(2):
            await settle(connection.recv())
        if is_async:
            await connection._connection.wait_closed()
        held = vars(connection._connection).values()
        threads = [value for value in held if isinstance(value, threading.Thread)]  # of the sync class
        del connection, held
        for thread in threads:
            thread.join(HANGS)
        await settle(client.close())

    sockets.script(turn("responses", "cut"))
    with Observed() as observed:
        asyncio.run(work())
        gc.collect()
        assert not call_module._open
        assert len(observed.spans("connect")) == 1
        (only,) = generations()
    assert isinstance(only, LLMGenerationSuccess)
    assert only.response_length == len("Hel")


@BOTH
def test_reconnect(sockets: SocketServer, *, is_async: bool) -> None:
    """Each reconnect is another connection span, also if refused; the response that was cut is an error, the next is well."""
    refusals = [503]

    def refuse(_: object) -> None:
        sockets.refuse(refusals)
        refusals.clear()

    async def work() -> None:
        client = client_for(sockets, is_async=is_async)
        reconnects = {"on_reconnecting": refuse, "initial_delay": 0.001, "max_delay": 0.001}
        try:
            manager = manager_of(client, "responses", **reconnects)
        except TypeError:
            pytest.skip("this openai does not reconnect")
        async with entered(manager) as connection:
            await settle(connection.response.create(model="m", input="first"))
            async for event in each(connection):
                if event.type == "response.completed":
                    break
                if event.type == "response.queued":
                    await settle(connection.response.create(model="m", input="second"))
        await settle(client.close())

    hello = ws.event("response.queued", response=ws.response("resp_0", "queued"))
    second = turn("responses", end_of("responses", "completed"))
    sockets.script(turn("responses", "cut"), [hello, *second])
    with Observed() as observed:
        asyncio.run(work())
        codes = [
            (span.attributes or {}).get("http.response.status_code") for span in observed.spans("connect")
        ]
        assert (len(codes), codes.count(503)) == (3, 1)
        first, last = generations()
    assert isinstance(first, LLMGenerationError)
    assert isinstance(last, LLMGenerationSuccess)
    assert (first.message_content, last.message_content) == ("user: first", "user: second")


def test_closing_while_receiving_is_no_error(sockets: SocketServer) -> None:
    """A response that is still read when the application closes the connection ends on purpose, not with an error."""
    sockets.script(turn("responses", None))

    async def work() -> None:
        async with client_for(sockets, is_async=True) as client:
            connection = await manager_of(client, "responses").enter()
            await connection.response.create(model="m", input="x")
            for _ in range(3):
                await connection.recv()
            waiting = asyncio.ensure_future(connection.recv())
            await asyncio.sleep(0)  # until it waits
            await connection.close()
            with pytest.raises(ConnectionClosedOK):
                await waiting

    with Observed() as observed:
        asyncio.run(work())
        entry = observed.generation()
        assert observed.span("connect").status.is_unset
    assert isinstance(entry, LLMGenerationSuccess)
    assert entry.response_length == len("Hello")


def test_cancelled_receive_ends_nothing(sockets: SocketServer) -> None:
    """Cancelling a wait for the next event is safe in the client, and does not end the response here either."""
    sockets.script(
        ["response.create", "session.go", *turn("responses", end_of("responses", "completed"))[1:]]
    )

    async def work() -> None:
        async with (
            client_for(sockets, is_async=True) as client,
            manager_of(client, "responses") as connection,
        ):
            await connection.response.create(model="m", input="x")
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(connection.recv(), 0.01)
            assert not generations()
            await connection.send({"type": "session.go"})
            async for event in connection:
                if event.type == "response.completed":
                    break

    with Observed() as observed:
        asyncio.run(work())
        assert isinstance(observed.generation(), LLMGenerationSuccess)


def delegated(sockets: SocketServer, *script: Step) -> LLMGenerationSuccess | LLMGenerationError:
    """Return the entry of a response that a Live model delegates, told by ``script``, events that are nested."""
    sockets.script(["session.start", *(nested("d_1", event) for event in script)])
    last: Any = script[-1]
    with Observed() as observed, connected(sockets, "live") as connection:
        connection.send({"type": "session.start", "session": {"model": "gpt-live-1"}})
        for event in connection:
            if event.type == "response.event" and event.event["type"] == last["type"]:
                break
    return observed.generation()


def test_live_delegation(sockets: SocketServer) -> None:
    """A response that a Live model delegates is a generation, told by the events nested in the connection's."""
    entry = delegated(sockets, *turn("responses", end_of("responses", "completed"))[1:])
    assert isinstance(entry, LLMGenerationSuccess)
    assert (entry.model_id, entry.response_length) == ("gpt-5-mini-2026", 5)


def test_live_delegations_at_once(sockets: SocketServer) -> None:
    """Two delegated responses that run at once are told apart by their delegations."""
    told = [("d_a", ws.created("a")), ("d_b", ws.created("b")), ("d_a", ws.delta("Hello"))]
    sockets.script([nested(name, event) for name, event in told])
    with Observed(), connected(sockets, "live") as connection:
        for _ in told:
            connection.recv()
    assert [by_id()[i].response_length for i in "ab"] == [len("Hello"), 0]


def test_live_delegation_that_fails(sockets: SocketServer) -> None:
    """A delegated response whose events end with an error is a failed generation."""
    error = {"type": "error", "code": "server_error", "message": "it broke"}
    entry = delegated(sockets, turn("responses", None)[1], error)
    assert isinstance(entry, LLMGenerationError)
    assert (entry.error, entry.metadata.custom_fields["error_type"]) == ("it broke", "server_error")


@BOTH
def test_suppressed(sockets: SocketServer, *, is_async: bool) -> None:
    """A connection that is opened while instrumentation is suppressed is not observed, also after one that was."""

    async def work() -> None:
        await converse(client_for(sockets, is_async=is_async), "responses")
        client = client_for(sockets, is_async=is_async)
        observed.clear()
        with suppress_instrumentation():
            await converse(client, "responses")

    sockets.script(turn("responses", end_of("responses", "completed")))
    with Observed() as observed:
        asyncio.run(work())
        assert not observed.spans(None)
        assert not entries()


def test_the_clients_key_is_redacted(sockets: SocketServer) -> None:
    """The client's own key, sent as content by mistake over a connection, is recorded nowhere."""
    key = "no-usual-key-zebra"
    sockets.script(turn("responses", end_of("responses", "completed")))
    with Observed() as observed, client_for(sockets, is_async=False).copy(api_key=key) as client:
        with manager_of(client, "responses") as connection:
            connection.response.create(model="m", input=f"my key is {key}")
            receive_until(connection, "response.completed")
        (generation,) = generations()
        spans = "".join(span.to_json() for span in observed.spans(None))
    assert isinstance(generation, LLMGenerationSuccess)
    assert generation.message_content == "user: my key is [REDACTED]"
    assert key not in spans


@BOTH
@pytest.mark.parametrize("api", ["responses", "realtime"])
def test_what_the_handshake_carried_is_redacted(sockets: SocketServer, api: str, *, is_async: bool) -> None:
    """A credential that only the handshake's request has goes too, where the server quotes it in an error."""
    token = "opaque.credential_of-the-company"
    error = {"code": "invalid_api_key", "message": f"no such key: {token}"}
    end = ws.event("error", error=error) if api == "responses" else end_of(api, "failed", error)
    sockets.script(turn(api, end))
    headers = {"Authorization": f"Bearer {token}"}
    with Observed() as observed:
        asyncio.run(converse(client_for(sockets, is_async=is_async), api, extra_headers=headers))
        (generation,) = generations()
        spans = "".join(span.to_json() for span in observed.spans(None))
    assert isinstance(generation, LLMGenerationError)
    assert generation.error == "no such key: [REDACTED]"
    assert token not in spans


@BOTH
def test_what_the_handshake_carried_is_redacted_in_a_reason(sockets: SocketServer, *, is_async: bool) -> None:
    """A credential that only the handshake's request has is not in the connection's span either, if a close quotes it."""
    token = "opaque.credential_of-the-company"
    sockets.script(["response.create", (4001, f"no such key: {token}")])
    headers = {"Authorization": f"Bearer {token}"}
    with Observed() as observed:
        asyncio.run(converse(client_for(sockets, is_async=is_async), "realtime", extra_headers=headers))
        spans = observed.spans(None)
    described = {span.name.split()[0]: str(span.status.description) for span in spans}
    assert "no such key: [REDACTED]" in described["connect"]
    assert "no such key: [REDACTED]" in described["chat"]
    assert token not in "".join(span.to_json() for span in spans)


@BOTH
@pytest.mark.parametrize("api", ["responses", "realtime"])
@pytest.mark.parametrize("fails", [False, True], ids=["completed", "failed"])
def test_without_capture_no_content(
    sockets: SocketServer, caplog: pytest.LogCaptureFixture, api: str, *, fails: bool, is_async: bool
) -> None:
    """With content capture off, nothing that is said on a connection leaves the process, nor an error's text."""
    error = {"code": "bad", "message": "Hi there, it said"}
    sockets.script(turn(api, end_of(api, "failed" if fails else "completed", error)))
    with Observed(capture="no_content") as observed:
        asyncio.run(converse(client_for(sockets, is_async=is_async), api))
        (generation,) = generations()
        recorded = json.dumps([json.loads(span.to_json()) for span in observed.spans(None)])
    recorded += Path("events.log").read_text(encoding="utf-8") + caplog.text
    assert isinstance(generation, LLMGenerationError) == fails
    assert getattr(generation, "error", "bad") == "bad"
    for said in ("Hi there", "Hello", "Paris"):
        assert said not in recorded


@BOTH
@pytest.mark.parametrize("place", ["__init__", "opened", "sent", "received", "closed"])
def test_a_defect_of_ours_costs_the_application_nothing(
    sockets: SocketServer, monkeypatch: pytest.MonkeyPatch, place: str, *, is_async: bool
) -> None:
    """When reading a connection raises, the application sends, receives and closes as without us, and no call stays."""

    def broken(*_: Any) -> None:
        raise RuntimeError

    def once() -> Trail:
        return asyncio.run(converse(client_for(sockets, is_async=is_async), "responses"))

    sockets.script(turn("responses", end_of("responses", "completed")))
    monkeypatch.setattr(Socket, place, broken)
    monkeypatch.setattr(SHIELD, "reraise", False)
    thrice(Observed, once)
    gc.collect()  # what was not closed ends here, while exceptions are swallowed
    assert not call_module._open


@pytest.mark.parametrize("propagate", [True, False])
def test_trace_context(sockets: SocketServer, *, propagate: bool) -> None:
    """The handshake carries a ``traceparent`` only when that is asked for: that of the connection's span."""
    sockets.script(turn("responses", end_of("responses", "completed")))
    with Observed(propagate=propagate) as observed:
        asyncio.run(converse(client_for(sockets, is_async=False), "responses", extra_headers={"x-mine": "1"}))
        (handshake,) = sockets.handshakes
        assert handshake["x-mine"] == "1"
        sent = handshake.get("traceparent", "")
        assert sent[3:52] == (
            f"{observed.span('connect').context.trace_id:032x}-" + sent[36:52] if propagate else ""
        )
        assert sent[36:52] == (f"{observed.span('connect').context.span_id:016x}" if propagate else "")


@BOTH
@pytest.mark.parametrize("active", [True, False])
def test_trace_context_of_a_reconnect(sockets: SocketServer, *, active: bool, is_async: bool) -> None:
    """Each handshake of a connection that reconnects carries its own span, whatever headers the application gives."""

    def before(_: object) -> dict[str, Any]:
        if not active:
            openai_lifecycle.uninstrument()
        return {"extra_headers": {"x-mine": "2"}}

    async def work() -> None:
        client = client_for(sockets, is_async=is_async)
        try:
            manager = manager_of(client, "responses", on_reconnecting=before, initial_delay=0.001)
        except TypeError:
            pytest.skip("this openai does not reconnect")
        async with entered(manager) as connection:
            async for _ in each(connection):
                break
        await settle(client.close())

    sockets.script(["cut"], [ws.event("response.queued", response=ws.response())])
    with Observed(propagate=True) as observed:
        asyncio.run(work())
        sent = [handshake.get("traceparent", "")[3:52] for handshake in sockets.handshakes]
        spans = [span.context for span in observed.spans("connect")]
    assert sockets.handshakes[1]["x-mine"] == "2"
    expected = [f"{span.trace_id:032x}-{span.span_id:016x}" for span in spans]
    assert sent == (expected if active else [*expected, ""])


def test_uninstrument_leaves_nothing(sockets: SocketServer) -> None:
    """After ``uninstrument()`` the classes are the client's own, and an open connection is no longer observed."""
    responses = pytest.importorskip("openai.resources.responses.responses")
    if not hasattr(responses, "ResponsesConnection"):
        pytest.skip("this openai has no responses.connect()")
    managers = (responses.ResponsesConnectionManager, responses.AsyncResponsesConnectionManager)
    before = [dict(vars(cls)) for cls in (*managers, responses.ResponsesConnection)]
    sockets.script(turn("responses", end_of("responses", "completed")))
    with Observed() as observed, connected(sockets, "responses") as connection:
        openai_lifecycle.uninstrument()
        connection.response.create(model="m", input="x")
        receive_until(connection, "response.completed")
    assert not observed.spans("chat")
    assert [dict(vars(cls)) for cls in (*managers, responses.ResponsesConnection)] == before


def test_no_resource_is_imported_by_us() -> None:
    """``instrument()`` imports no resource module; one that is imported later is patched unless all is undone."""
    code = """
import sys, openai, openai_lifecycle
openai_lifecycle.instrument(events_log="none")
found = [name for name in sys.modules if name.startswith("openai.resources.")]
assert not found, found
import openai.resources.realtime.realtime as late
assert hasattr(vars(late.RealtimeConnectionManager)["enter"], "__wrapped__")
openai_lifecycle.uninstrument()
assert not hasattr(vars(late.RealtimeConnectionManager)["enter"], "__wrapped__")
import openai.resources.responses.responses as later
manager = getattr(later, "ResponsesConnectionManager", None)  # since openai 2.22
assert manager is None or not hasattr(vars(manager)["enter"], "__wrapped__")
"""
    if not hasattr(openai, "omit"):
        pytest.skip("older versions of openai import their resources themselves")
    subprocess.run([sys.executable, "-c", code], check=True, timeout=HANGS)
