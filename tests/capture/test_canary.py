"""With content capture off, nothing that was said leaves the process, by any way that telemetry has.

A canary, a string found nowhere else, is put into every content field of a call and of its answer. Then every
span, event, metric, log record, line on standard output and error and every file is searched for it. A row of
:data:`CALLS` is one operation in one form; a new operation adds its rows there.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
import pytest

from openai_lifecycle.shield import SHIELD
from tests import wire, wire_responses
from tests.capture.application import client_for, fitting
from tests.observed import Observed
from tests.scripted_server import ScriptedServer, Step, event_stream, reply

CANARY = "kanarienvogel"
OBJECT = json.dumps({CANARY: CANARY})
SCHEMA = {"type": "object", "properties": {CANARY: {"type": "string", "description": CANARY}}}
DATA = f"data:image/png;base64,{CANARY}"


@dataclass(frozen=True)
class Row:
    """One call: what the application does with a client, and what the server answers."""

    name: str
    act: Callable[[openai.OpenAI], Any]
    answer: list[Step]
    raises: type[Exception] | None = None


def whole(body: object, status: int = 200) -> list[Step]:
    """Return a script that answers with ``body``."""
    return reply(json.dumps(body).encode(), status=status)


# ------------------------------------------------------------------ chat
PARTS = [
    {"type": "text", "text": CANARY},
    {"type": "image_url", "image_url": {"url": DATA}},
    {"type": "input_audio", "input_audio": {"data": CANARY, "format": "wav"}},
    {"type": "file", "file": {"file_data": CANARY, "filename": CANARY}},
]
CHAT: dict[str, Any] = {
    **wire.REQUEST,
    "messages": [
        {"role": "system", "content": CANARY},
        {"role": "user", "content": PARTS, "name": CANARY},
        {"role": "assistant", "tool_calls": [wire.tool_call("c", "f", OBJECT)], "refusal": CANARY},
        {"role": "tool", "tool_call_id": "c", "content": CANARY},
    ],
    "tools": [{"type": "function", "function": {"name": "f", "description": CANARY, "parameters": SCHEMA}}],
    "prediction": {"type": "content", "content": CANARY},
    "metadata": {"note": CANARY},
}
ANSWER = {
    "role": "assistant",
    "content": CANARY,
    "refusal": CANARY,
    "reasoning_content": CANARY,
    "reasoning": CANARY,
    "audio": {"id": "a", "data": CANARY, "transcript": CANARY, "expires_at": 1},
    "tool_calls": [wire.tool_call("c1", "f", OBJECT)],
    "function_call": {"name": "f", "arguments": OBJECT},
}
FRAGMENT = {**ANSWER, "tool_calls": [{"index": 0, **wire.tool_call("c1", "f", OBJECT)}]}
FAILURE = {"error": {"message": CANARY, "type": "invalid_request_error", "param": CANARY, "code": "bad"}}


def _chat(client: openai.OpenAI) -> None:
    client.chat.completions.create(**fitting(client.chat.completions.create, CHAT))


def _chat_stream(client: openai.OpenAI) -> None:
    list(client.chat.completions.create(**fitting(client.chat.completions.create, {**CHAT, "stream": True})))


CHAT_CALLS = [
    Row(
        "chat",
        _chat,
        whole(wire.completion(choices=[{"index": 0, "message": ANSWER, "finish_reason": "stop"}])),
    ),
    Row("chat streamed", _chat_stream, event_stream(wire.chunk(FRAGMENT), wire.chunk({}, "stop"))),
    Row("chat refused", _chat, whole(FAILURE, 400), openai.BadRequestError),
    Row("chat cut short", _chat_stream, event_stream(wire.chunk(FRAGMENT), FAILURE), openai.APIError),
    Row(
        "chat of nonsense",
        _chat,
        whole({CANARY: CANARY, "choices": [CANARY, {"index": CANARY, "message": CANARY}]}),
    ),
]

# ------------------------------------------------------------------ responses
RESPONSE: dict[str, Any] = {
    **wire_responses.REQUEST,
    "instructions": CANARY,
    "input": [
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": CANARY},
                {"type": "input_image", "image_url": DATA},
                {"type": "input_file", "file_data": CANARY, "filename": CANARY},
            ],
        },
        wire_responses.function_call("c", "f", OBJECT),
        {"type": "function_call_output", "call_id": "c", "output": CANARY},
        {"id": "r", "type": "reasoning", "summary": [{"type": "summary_text", "text": CANARY}]},
    ],
    "tools": [
        {"type": "function", "name": "f", "description": CANARY, "parameters": SCHEMA, "strict": False}
    ],
    "prompt": {"id": "pmpt_1", "variables": {"who": CANARY}},
    "text": {"format": {"type": "json_schema", "name": CANARY, "description": CANARY, "schema": SCHEMA}},
    "metadata": {"note": CANARY},
}
OUTPUT = [
    {"id": "r", "type": "reasoning", "summary": [{"type": "summary_text", "text": CANARY}]},
    wire_responses.message(CANARY),
    wire_responses.message(content=[{"type": "refusal", "refusal": CANARY}]),
    wire_responses.function_call("c1", "f", OBJECT),
    {"id": "c2", "type": "custom_tool_call", "call_id": "c2", "name": "g", "input": CANARY},
    {"id": "m", "type": "mcp_call", "name": "f", "server_label": "s", "arguments": OBJECT, "output": CANARY},
    {
        "id": "w",
        "type": "web_search_call",
        "status": "completed",
        "action": {"type": "search", "query": CANARY},
    },
    {
        "id": "i",
        "type": "code_interpreter_call",
        "code": CANARY,
        "outputs": [{"type": "logs", "logs": CANARY}],
    },
    {"id": "p", "type": "image_generation_call", "result": CANARY, "revised_prompt": CANARY},
]
ANSWERED = wire_responses.response(output=OUTPUT, instructions=CANARY, metadata={"note": CANARY})
FAILED = wire_responses.response(
    status="failed", output=[], error={"code": CANARY + " said", "message": CANARY}
)
SIMPLE = wire_responses.response(output=[OUTPUT[0], OUTPUT[1], OUTPUT[3]])


def _response(client: openai.OpenAI) -> None:
    client.responses.create(**fitting(client.responses.create, RESPONSE))


def _response_stream(client: openai.OpenAI) -> None:
    list(client.responses.create(**fitting(client.responses.create, {**RESPONSE, "stream": True})))


def _read(client: openai.OpenAI) -> None:
    client.responses.retrieve("resp_1")


def _cancel(client: openai.OpenAI) -> None:
    client.post("/responses/resp_1/cancel", cast_to=object)


def _compact(client: openai.OpenAI) -> None:
    body = {"model": wire.MODEL, "input": RESPONSE["input"], "instructions": CANARY}
    client.post("/responses/compact", cast_to=object, body=body)


ERROR_EVENT = {
    "type": "error",
    "code": CANARY + "!",
    "message": CANARY,
    "param": CANARY,
    "sequence_number": 0,
}
RESPONSE_CALLS = [
    Row("response", _response, whole(ANSWERED)),
    Row("response streamed", _response_stream, event_stream(*wire_responses.events(SIMPLE))),
    Row("response failed", _response, whole(FAILED)),
    Row("response failed in a stream", _response_stream, event_stream(ERROR_EVENT)),
    Row("response refused", _response, whole(FAILURE, 400), openai.BadRequestError),
    Row("response read", _read, whole(ANSWERED)),
    Row("failed response read", _read, whole(FAILED)),
    Row("response not found", _read, whole(FAILURE, 404), openai.NotFoundError),
    Row("response cancelled", _cancel, whole(ANSWERED)),
    Row(
        "conversation compacted",
        _compact,
        whole({"id": "c", "object": "response.compaction", "output": OUTPUT}),
    ),
]

CALLS = [*CHAT_CALLS, *RESPONSE_CALLS]


@pytest.mark.parametrize("row", CALLS, ids=lambda row: row.name.replace(" ", "-"))
@pytest.mark.parametrize("defect", [False, True], ids=["", "with-a-defect-of-ours"])
def test_nothing_that_was_said_leaves(
    server: ScriptedServer,
    row: Row,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    *,
    defect: bool,
) -> None:
    """The canary is on no span, in no event, metric, log record or file, and on no stream of the process."""
    caplog.set_level(logging.DEBUG, logger="openai_lifecycle")
    server.script(row.answer)
    if defect:  # an exception of ours may quote what it choked on; the log line about it must not
        monkeypatch.setattr(SHIELD, "reraise", False)
        monkeypatch.setattr("openai_lifecycle.codec.generation_success", _choke)
        monkeypatch.setattr("openai_lifecycle.codec.generation_error", _choke)
    with Observed(capture="no_content") as observed, client_for(server, is_async=False) as client:
        if row.raises is None:
            row.act(client)
        else:
            with pytest.raises(row.raises):
                row.act(client)
        assert observed.spans(None)
        spans = "".join(span.to_json() for span in observed.spans(None))
        metrics = repr(observed.metrics())
    captured = capfd.readouterr()
    places = {
        "spans": spans,
        "metrics": metrics,
        "log records": "".join(
            r.getMessage() + str(r.exc_text) for r in caplog.records if "openai_l" in r.name
        ),
        "standard output": captured.out,
        "standard error": captured.err,
        **{str(file): file.read_text(errors="replace") for file in Path().rglob("*") if file.is_file()},
    }
    assert "events.log" in places
    exchanged = server.requests[0] + b"".join(step for step in row.answer if isinstance(step, bytes))
    assert CANARY.encode() in exchanged
    assert [place for place, said in places.items() if CANARY in said] == []


def _choke(**said: Any) -> Any:
    raise ValueError(repr(said), CANARY)


@pytest.mark.parametrize("row", [CHAT_CALLS[0], RESPONSE_CALLS[0]], ids=lambda row: row.name)
def test_the_canary_sings(server: ScriptedServer, row: Row) -> None:
    """With capture on, the canary is found where it should be: the search of the other test can fail."""
    server.script(row.answer)
    with Observed(capture="span_and_event") as observed, client_for(server, is_async=False) as client:
        row.act(client)
        said = observed.span().to_json()
    assert said.count(CANARY) > 5
    assert CANARY in Path("events.log").read_text()
