"""chat/responses × sync/async × every form of a call × every way it can end, over a real socket.

Each case runs three times: bare, instrumented, bare again. The trails must be equal, and the requests byte for
byte; then span and entries are checked.
"""

from __future__ import annotations

import asyncio
import gc
import json
from typing import Any

import pytest

import openai_lifecycle
from openai_lifecycle.events import LLMGenerationError, LLMGenerationSuccess
from tests import wire, wire_responses
from tests.capture.application import CHAT, FORMS, RESPONSES, STREAMED, Api, client_for, closing, run
from tests.limits import HANGS
from tests.observed import Observed
from tests.scripted_server import ScriptedServer, Step, event_stream, reply

HEADERS: dict[str, Any] = {"x_request_id": "req_1", "openai_processing_ms": "42"}
APIS = {"chat": CHAT, "responses": RESPONSES}


def events(api: Api) -> list[dict[str, Any]]:
    """Return the events of a whole stream."""
    return wire.chunks() if api is CHAT else wire_responses.events()


def begun(api: Api) -> list[dict[str, Any]]:
    """Return the events of a stream that has begun to speak."""
    if api is CHAT:
        return [wire.chunk({"role": "assistant", "content": "Hel"}), wire.chunk({"content": "lo"})]
    return wire_responses.events()[:3]


def script(api: Api, form: str, outcome: str) -> list[Step]:
    """Return what the server does."""
    if outcome == "http error":
        return reply(json.dumps(wire.ERROR).encode(), status=400, **HEADERS)
    if outcome == "connection cut":
        return event_stream(*begun(api), end=["cut"], **HEADERS) if form in STREAMED else ["cut"]
    if outcome == "sse error":
        error = {"error": {"message": "overloaded", "type": "server_error"}}
        return event_stream(*begun(api), error, **HEADERS)
    if form in STREAMED:
        return event_stream(*events(api), **HEADERS)
    whole = wire.completion(tools=form != "parse") if api is CHAT else wire_responses.response()
    return reply(json.dumps(whole).encode(), **HEADERS)


def cases() -> list[tuple[str, str, str]]:
    """Return (form, outcome, how the application leaves)."""
    found = [
        (form, outcome, "drained")
        for form in FORMS
        for outcome in ("success", "http error", "connection cut")
    ]
    found += [(form, "sse error", "drained") for form in STREAMED]
    found += [
        (form, "success", leave) for form in STREAMED for leave in ("with break", "close", "break", "never")
    ]
    found += [("raw_stream", "success", leave) for leave in ("unparsed", "dropped")]
    found += [("streaming_stream", "success", leave) for leave in ("unparsed", "lines")]
    found += [("streaming", "success", leave) for leave in ("unparsed", "read", "bytes")]
    return found


COMPLETE = ("drained", "lines", "read", "bytes")


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("api", APIS.values(), ids=APIS)
@pytest.mark.parametrize(("form", "outcome", "leave"), cases(), ids=lambda value: value.replace(" ", "-"))
def test_every_form_and_ending(
    server: ScriptedServer, api: Api, form: str, outcome: str, leave: str, *, is_async: bool
) -> None:
    """The application sees and sends what it does without us, and one span with one generation entry tells it."""

    def once() -> tuple[list[Any], list[bytes]]:
        server.script(script(api, form, outcome))
        client = client_for(server, is_async=is_async)
        trail = asyncio.run(closing(client, run(client, form, leave, api)))
        gc.collect()  # what the application dropped
        return trail, list(server.requests)

    bare = once()
    with Observed() as observed:
        assert once() == bare
        check(observed, api, form, outcome, leave, bare[0])
        before = len(observed.spans())
        openai_lifecycle.uninstrument()
        assert once() == bare
        assert len(observed.spans()) == before


def check(observed: Observed, api: Api, form: str, outcome: str, leave: str, trail: list[Any]) -> None:
    """Check the one span and the entries of a call."""
    entry, attributes = observed.generation(), observed.attributes()
    custom = entry.metadata.custom_fields
    assert observed.span().name == f"chat {wire.MODEL}"
    assert entry.trace_id == f"{observed.span().context.trace_id:032x}"
    assert (entry.temperature, entry.messages_count, entry.message_content) == (0, 1, "user: Hi there")
    assert custom["stream"] == str(form in STREAMED).lower()
    if outcome == "success":
        assert isinstance(entry, LLMGenerationSuccess)
        assert observed.span().status.is_unset
        assert custom["request_id"] == "req_1"
    else:
        assert isinstance(entry, LLMGenerationError)
        raised, text = trail[-1][:2]
        assert (custom["error_type"], attributes["error.type"]) == (raised.__name__, raised.__name__)
        assert entry.error == observed.span().status.description == (text or raised.__name__)
        assert custom.get("status_code") == ("400" if outcome == "http error" else custom.get("status_code"))
    if outcome == "success" and leave in COMPLETE:
        check_facts(observed, api, form)
    else:
        assert not observed.tool_calls()


def check_facts(observed: Observed, api: Api, form: str) -> None:
    """Check what a complete response told."""
    entry, attributes = observed.generation(), observed.attributes()
    assert isinstance(entry, LLMGenerationSuccess)
    wanted_calls = [("call_1", "get_weather", wire.WEATHER), ("call_2", "get_time", wire.TIME)]
    calls = [(call.tool_call_id, call.tool_name, call.arguments) for call in observed.tool_calls()]
    without_tools = form == "parse" and api is CHAT  # parse() refuses tools that are not strict
    assert calls == ([] if without_tools else wanted_calls)
    assert (entry.response_length, entry.choices_count) == (len("Hello, world"), 1)
    wanted = {
        "gen_ai.response.id": "chatcmpl-1" if api is CHAT else "resp_1",
        "gen_ai.response.model": wire.ANSWERED_BY,
        "gen_ai.response.finish_reasons": ("stop" if without_tools else "tool_calls",),
        "gen_ai.usage.input_tokens": 19,
        "gen_ai.usage.output_tokens": 10,
        "gen_ai.usage.cache_read.input_tokens": 4 if api is CHAT else 0,
        "gen_ai.usage.reasoning.output_tokens": 3 if api is CHAT else 0,
        "openai.response.service_tier": "default",
        "openai.response.system_fingerprint": "fp_1" if api is CHAT else None,
        "openai_lifecycle.request_id": "req_1",
        "openai_lifecycle.processing_ms": 42,
        "http.response.status_code": 200,
    }
    assert {name: attributes.get(name) for name in wanted} == wanted
    assert ("gen_ai.response.time_to_first_chunk" in attributes) == (form in STREAMED)


@pytest.mark.parametrize("api", APIS.values(), ids=APIS)
@pytest.mark.parametrize("form", ["plain", "stream", "helper", "raw_stream", "streaming"])
def test_cancellation(server: ScriptedServer, api: Api, form: str) -> None:
    """A task cancelled while it waits for the server leaves one error entry, with error type CancelledError."""
    import threading

    hang, asked = threading.Event(), threading.Event()
    whole = event_stream(*events(api)) if form in STREAMED else reply(b"{}")

    async def cancelled() -> None:
        client = client_for(server, is_async=True)
        task = asyncio.create_task(run(client, form, api=api))
        await asyncio.to_thread(asked.wait, HANGS)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        hang.set()
        await client.close()

    class Asked(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            asked.set()
            return hang.wait(timeout)

    server.script([*whole[:3], Asked(), *whole[3:]] if form in STREAMED else [Asked(), *whole])
    with Observed() as observed:
        asyncio.run(cancelled())
        entry = observed.generation()
        assert isinstance(entry, LLMGenerationError)
        assert entry.metadata.custom_fields["error_type"] == "CancelledError"
