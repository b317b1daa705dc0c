"""Every operation × sync/async × form of the call × success and HTTP error, over a real socket.

To test another operation, add a :class:`Case` to ``CASES``.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import re
from dataclasses import dataclass, field, replace
from operator import attrgetter
from pathlib import Path
from typing import Any

import openai
import pytest

import openai_lifecycle
from openai_lifecycle.events import LLMGenerationError, LLMGenerationSuccess
from tests import wire
from tests.capture.application import client_for, closing, each, entered, seen, settle
from tests.observed import Observed, entries, generations
from tests.scripted_server import ScriptedServer, Step, event_stream, reply

HEADERS: dict[str, Any] = {"x_request_id": "req_1"}
PNG = b"\x89PNG\r\n\x1a\nnot much of an image"
WAV = ("speech.wav", b"RIFF\x00\x00\x00\x00WAVE")


@dataclass(frozen=True)
class Case:
    """One call. ``entry``: operation, inputs, content, response length, choices; ``None``: it has no entry.

    ``attributes`` are the span's; ``name`` is the span's name.
    """

    method: str
    arguments: dict[str, Any]
    answer: Any
    name: str
    entry: tuple[str, int, str, int, int] | None
    attributes: dict[str, Any] = field(default_factory=dict)
    events: tuple[Any, ...] = ()
    kind: str = "application/json"

    @property
    def id(self) -> str:
        """Return what the test is called."""
        shape = next((str(self.arguments[k]) for k in ("input", "prompt") if k in self.arguments), "")
        return f"{self.method}({re.sub(r'[^a-z0-9]+', '_', shape.lower())[:24]})"


# ------------------------------------------------------------------ what the server answers
COUNTED = {"input_tokens": 5, "output_tokens": 9, "total_tokens": 14}
COUNTED_ATTRIBUTES = {
    "gen_ai.usage.input_tokens": 5,
    "gen_ai.usage.output_tokens": 9,
    "openai_lifecycle.usage.total_tokens": 14,
}
VECTORS = {
    "object": "list",
    "model": "text-embedding-3-small",
    "data": [
        {"object": "embedding", "index": 0, "embedding": "AACAPwAAAEAAAEBA"},
        {"object": "embedding", "index": 1, "embedding": "AACAPwAAAEAAAEBA"},
    ],
    "usage": {"prompt_tokens": 6, "total_tokens": 6},
}
FLOATS = {**VECTORS, "data": [{"object": "embedding", "index": 0, "embedding": [1.0, 2.0, 3.0]}]}
EMBEDDED = {
    "gen_ai.request.model": "text-embedding-3-small",
    "gen_ai.response.model": "text-embedding-3-small",
    "gen_ai.usage.input_tokens": 6,
    "gen_ai.embeddings.dimension.count": 3,
    "gen_ai.request.encoding_formats": None,
}


def completion(*texts: str, finish: str | None = "stop", usage: bool = True) -> dict[str, Any]:
    choices = [
        {"index": i, "text": said, "finish_reason": finish, "logprobs": None} for i, said in enumerate(texts)
    ]
    counts = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
    return {
        "id": "cmpl-1",
        "object": "text_completion",
        "created": 1,
        "model": "gpt-3.5-turbo-instruct:2",
        "system_fingerprint": "fp_1",
        "choices": choices,
        **({"usage": counts} if usage else {}),
    }


COMPLETED = {
    "gen_ai.response.id": "cmpl-1",
    "gen_ai.response.model": "gpt-3.5-turbo-instruct:2",
    "gen_ai.usage.input_tokens": 3,
    "gen_ai.usage.output_tokens": 4,
    "openai.response.system_fingerprint": "fp_1",
}
ASKED = {"model": "gpt-3.5-turbo-instruct", "max_tokens": 16, "temperature": 0.5, "stop": ["\n"], "seed": 1}
IMAGES = {
    "created": 1,
    "data": [{"b64_json": "AAAA"}, {"b64_json": "BBBB"}],
    "usage": {**COUNTED, "input_tokens_details": {"image_tokens": 0, "text_tokens": 5}},
}
RUN = {
    "id": "run_1",
    "object": "thread.run",
    "thread_id": "thread_1",
    "assistant_id": "asst_1",
    "status": "completed",
    "model": "gpt-4o",
    "usage": {"prompt_tokens": 5, "completion_tokens": 9, "total_tokens": 14},
}
RUNNING = {
    "gen_ai.response.id": "run_1",
    "gen_ai.response.status": "completed",
    "gen_ai.response.model": "gpt-4o",
    "gen_ai.conversation.id": "thread_1",
    "gen_ai.agent.id": "asst_1",
    **COUNTED_ATTRIBUTES,
}
SESSION = {
    "id": "sess_1",
    "object": "agent.session",
    "agent": {"id": "agent_1", "model": "gpt-5.5"},
    "status": "idle",
    "usage": COUNTED,
}
SESSION_CREATED = {**SESSION, "status": "in_progress", "usage": None}
TURN = {"id": "turn_1", "object": "agent.session.turn", "agent_id": "agent_1", "usage": COUNTED}
VIDEO = {
    "id": "video_1",
    "object": "video",
    "status": "queued",
    "model": "sora-2",
    "progress": 0,
    "created_at": 1,
}
QUEUED = {
    "gen_ai.response.id": "video_1",
    "gen_ai.response.status": "queued",
    "gen_ai.response.model": "sora-2",
}


def image_event(kind: str, **members: Any) -> dict[str, Any]:
    common = {
        "b64_json": "AAAA",
        "created_at": 1,
        "size": "1024x1024",
        "quality": "low",
        "background": "opaque",
    }
    return {"type": kind, "output_format": "png", **common, **members}


def run_event(kind: str, **changes: Any) -> str:
    """Return the data and name of an event: the Assistants API names its events."""
    return f"{json.dumps({**RUN, **changes})}\nevent: {kind}"


EMBEDDING = {"model": "text-embedding-3-small"}
SPEECH = {"model": "gpt-4o-mini-tts", "voice": "alloy", "input": "Say it"}
TRANSCRIPT = {
    "text": "It was said",
    "usage": {"type": "tokens", **COUNTED, "input_token_details": {"audio_tokens": 4}},
}
JUDGED: dict[str, Any] = {
    "id": "modr-1",
    "model": "omni-moderation-2026",
    "results": [
        {"flagged": False, "categories": {}, "category_scores": {}, "category_applied_input_types": {}}
    ],
}
MODERATED = {"gen_ai.response.id": "modr-1", "gen_ai.response.model": "omni-moderation-2026"}
OMNI = {"model": "omni-moderation-latest"}

CASES = (
    # -------------------------------------------------------------- embeddings
    Case(
        "embeddings.create",
        {**EMBEDDING, "input": ["one", "two"], "dimensions": 3, "user": "user-1"},
        VECTORS,
        "embeddings text-embedding-3-small",
        ("llm_embedding", 2, "one | two", 0, 2),
        {**EMBEDDED, "user.id": "user-1"},
    ),
    Case(
        "embeddings.create",
        {**EMBEDDING, "input": "one", "encoding_format": "float"},
        FLOATS,
        "embeddings text-embedding-3-small",
        ("llm_embedding", 1, "one", 0, 1),
        {**EMBEDDED, "gen_ai.request.encoding_formats": ("float",)},
    ),
    Case(
        "embeddings.create",
        {**EMBEDDING, "input": [1, 2, 3]},
        FLOATS,
        "embeddings text-embedding-3-small",
        ("llm_embedding", 1, "[3 tokens]", 0, 1),
        EMBEDDED,
    ),
    Case(
        "embeddings.create",
        {**EMBEDDING, "input": [[1, 2, 3], [4]]},
        VECTORS,
        "embeddings text-embedding-3-small",
        ("llm_embedding", 2, "[3 tokens] | [1 tokens]", 0, 2),
        EMBEDDED,
    ),
    # -------------------------------------------------------------- legacy completions
    Case(
        "completions.create",
        {**ASKED, "prompt": "Once upon"},
        completion(" a time"),
        "text_completion gpt-3.5-turbo-instruct",
        ("llm_generation", 1, "Once upon", 7, 1),
        {
            **COMPLETED,
            "gen_ai.request.max_tokens": 16,
            "gen_ai.request.temperature": 0.5,
            "gen_ai.request.stop_sequences": ("\n",),
            "gen_ai.request.seed": 1,
            "gen_ai.response.finish_reasons": ("stop",),
        },
        events=(
            completion(" a", finish=None, usage=False),
            completion(" time", usage=False),
            {**completion(), "choices": []},
        ),
    ),
    Case(
        "completions.create",
        {**ASKED, "prompt": ["Once", "Twice"], "n": 2},
        completion("one", "three", "4", "5", finish="length"),
        "text_completion gpt-3.5-turbo-instruct",
        ("llm_generation", 2, "Once | Twice", 3, 4),
        {
            **COMPLETED,
            "gen_ai.request.choice.count": 2,
            "gen_ai.response.finish_reasons": ("length",) * 4,
        },
        events=(completion("one", "three", "4", "5", finish="length"),),
    ),
    Case(
        "completions.create",
        {**ASKED, "prompt": [15, 16]},
        completion("!"),
        "text_completion gpt-3.5-turbo-instruct",
        ("llm_generation", 1, "[2 tokens]", 1, 1),
        COMPLETED,
    ),
    Case(
        "completions.create",
        {**ASKED, "prompt": [[15, 16], [17]]},
        completion("!", "?"),
        "text_completion gpt-3.5-turbo-instruct",
        ("llm_generation", 2, "[2 tokens] | [1 tokens]", 1, 2),
        COMPLETED,
    ),
    # -------------------------------------------------------------- images
    Case(
        "images.generate",
        {"model": "gpt-image-1", "prompt": "A cat", "n": 2},
        IMAGES,
        "image_generation gpt-image-1",
        ("llm_image_generation", 1, "A cat", 0, 2),
        {**COUNTED_ATTRIBUTES, "gen_ai.output.type": "image", "gen_ai.request.choice.count": 2},
        events=(
            image_event("image_generation.partial_image", partial_image_index=0),
            image_event("image_generation.completed", usage=COUNTED),
            image_event("image_generation.completed", usage=COUNTED),
        ),
    ),
    Case(
        "images.generate",
        {"model": "gpt-image-2", "prompt": "A dog", "user": "user-1", "safety_identifier": "user-2"},
        IMAGES,
        "image_generation gpt-image-2",
        ("llm_image_generation", 1, "A dog", 0, 2),
        {"user.id": "user-2"},
    ),
    Case(
        "images.edit",
        {"model": "gpt-image-1", "prompt": "A hat", "image": PNG, "mask": PNG},
        IMAGES,
        "image_generation gpt-image-1",
        ("llm_image_generation", 1, "A hat [image] [image]", 0, 2),
        COUNTED_ATTRIBUTES,
        events=(
            image_event("image_edit.partial_image", partial_image_index=0),
            image_event("image_edit.completed", usage=COUNTED),
            image_event("image_edit.completed", usage=COUNTED),
        ),
    ),
    Case(
        "images.edit",
        {"model": "gpt-image-1", "prompt": "Two hats", "image": [PNG, PNG], "input_fidelity": "low"},
        IMAGES,
        "image_generation gpt-image-1",
        ("llm_image_generation", 1, "Two hats [image] [image]", 0, 2),
        COUNTED_ATTRIBUTES,
    ),
    Case(
        "images.create_variation",
        {"model": "dall-e-2", "image": PNG},
        {"created": 1, "data": [{"url": "https://images.example/1.png"}]},
        "image_generation dall-e-2",
        ("llm_image_generation", 1, "[image]", 0, 1),
        {"gen_ai.output.type": "image"},
    ),
    # -------------------------------------------------------------- audio
    Case(
        "audio.speech.create",
        SPEECH,
        b"\xff\xf3\x00\x01mp3",
        "speech gpt-4o-mini-tts",
        ("llm_speech", 1, "Say it", 0, 0),
        {"gen_ai.output.type": "speech"},
        kind="audio/mpeg",
    ),
    Case(
        "audio.transcriptions.create",
        {"model": "gpt-4o-transcribe", "file": WAV, "prompt": "Names", "temperature": 0},
        TRANSCRIPT,
        "transcription gpt-4o-transcribe",
        ("llm_transcription", 1, "Names [audio]", 0, 0),
        {
            **COUNTED_ATTRIBUTES,
            "openai_lifecycle.usage.input_audio_tokens": 4,
            "gen_ai.request.temperature": 0.0,
        },
        events=(
            {"type": "transcript.text.delta", "delta": "It was"},
            {"type": "transcript.text.delta", "delta": " said"},
            {"type": "transcript.text.done", **TRANSCRIPT},
        ),
    ),
    Case(
        "audio.transcriptions.create",
        {"model": "whisper-1", "file": WAV, "response_format": "verbose_json"},
        {
            "text": "It was said",
            "language": "english",
            "duration": 2.5,
            "usage": {"type": "duration", "seconds": 3},
        },
        "transcription whisper-1",
        ("llm_transcription", 1, "[audio]", 0, 0),
        {"openai_lifecycle.usage.input_seconds": 3.0},
    ),
    Case(
        "audio.transcriptions.create",
        {"model": "whisper-1", "file": WAV, "response_format": "text"},
        b"It was said\n",
        "transcription whisper-1",
        ("llm_transcription", 1, "[audio]", 0, 0),
        kind="text/plain",
    ),
    Case(
        "audio.translations.create",
        {"model": "whisper-1", "file": WAV},
        {"text": "It was said"},
        "translation whisper-1",
        ("llm_translation", 1, "[audio]", 0, 0),
    ),
    # -------------------------------------------------------------- moderations
    Case(
        "moderations.create",
        {**OMNI, "input": "Nice"},
        JUDGED,
        "moderation omni-moderation-latest",
        ("llm_moderation", 1, "Nice", 0, 1),
        MODERATED,
    ),
    Case(
        "moderations.create",
        {**OMNI, "input": ["Nice", "Nasty"]},
        {**JUDGED, "results": JUDGED["results"] * 2},
        "moderation omni-moderation-latest",
        ("llm_moderation", 2, "Nice | Nasty", 0, 2),
        MODERATED,
    ),
    Case(
        "moderations.create",
        {
            **OMNI,
            "input": [
                {"type": "text", "text": "Look"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
            ],
        },
        JUDGED,
        "moderation omni-moderation-latest",
        ("llm_moderation", 2, "Look | [image]", 0, 1),
        MODERATED,
    ),
    # -------------------------------------------------------------- no generations
    Case(
        "decisions.create",
        {
            "model": "gpt-6-luna",
            "input": "Is it?",
            "questions": [{"type": "predicate", "question": "Is it?"}],
            "safety_identifier": "user-1",
        },
        {
            "model": "gpt-6-luna",
            "answers": [{"type": "predicate", "probability": 0.9}],
            "usage": {
                **COUNTED,
                "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
                "output_tokens_details": {"reasoning_tokens": 0},
            },
        },
        "decision gpt-6-luna",
        None,
        {
            **COUNTED_ATTRIBUTES,
            "gen_ai.usage.cache_read.input_tokens": 0,
            "gen_ai.response.model": "gpt-6-luna",
            "user.id": "user-1",
        },
    ),
    Case(
        "videos.create",
        {"model": "sora-2", "prompt": "A cat"},
        VIDEO,
        "video_generation sora-2",
        None,
        QUEUED,
    ),
    Case("videos.edit", {"prompt": "A hat", "video": PNG}, VIDEO, "video_generation", None, QUEUED),
    Case(
        "videos.extend",
        {"prompt": "More", "seconds": "4", "video": PNG},
        VIDEO,
        "video_generation",
        None,
        QUEUED,
    ),
    Case("videos.remix", {"video_id": "video_0", "prompt": "A dog"}, VIDEO, "video_generation", None, QUEUED),
    Case(
        "batches.create",
        {"completion_window": "24h", "endpoint": "/v1/responses", "input_file_id": "file_1"},
        {
            "id": "batch_1",
            "object": "batch",
            "status": "validating",
            "created_at": 1,
            "completion_window": "24h",
            "endpoint": "/v1/responses",
            "input_file_id": "file_1",
        },
        "batch",
        None,
        {"gen_ai.response.id": "batch_1", "gen_ai.response.status": "validating"},
    ),
    Case(
        "evals.runs.create",
        {
            "eval_id": "eval_1",
            "data_source": {
                "type": "completions",
                "model": "gpt-4o",
                "source": {"type": "file_id", "id": "file_1"},
            },
        },
        {"id": "evalrun_1", "object": "eval.run", "status": "queued", "model": "gpt-4o", "created_at": 1},
        "evaluation gpt-4o",
        None,
        {
            "gen_ai.response.id": "evalrun_1",
            "gen_ai.response.status": "queued",
            "gen_ai.request.model": "gpt-4o",
        },
    ),
    Case(
        "beta.threads.runs.create",
        {"thread_id": "thread_1", "assistant_id": "asst_1", "model": "gpt-4o"},
        RUN,
        "invoke_agent gpt-4o",
        None,
        RUNNING,
        events=(
            run_event("thread.run.created", status="queued", usage=None),
            '{"id": "step_1", "object": "thread.run.step", "status": "failed"}\nevent: thread.run.step.failed',
            run_event("thread.run.completed"),
        ),
    ),
    Case("beta.threads.create_and_run", {"assistant_id": "asst_1"}, RUN, "invoke_agent", None, RUNNING),
    Case(
        "beta.threads.runs.submit_tool_outputs",
        {
            "run_id": "run_1",
            "thread_id": "thread_1",
            "tool_outputs": [{"tool_call_id": "call_1", "output": "x"}],
        },
        RUN,
        "invoke_agent",
        None,
        RUNNING,
    ),
    Case(
        "beta.agents.sessions.create",
        {"agent": {"model": "gpt-5.5"}, "environment": {"type": "none"}, "input": "Hi"},
        SESSION,
        "invoke_agent gpt-5.5",
        None,
        {
            **COUNTED_ATTRIBUTES,
            "gen_ai.response.id": "sess_1",
            "gen_ai.response.model": "gpt-5.5",
            "gen_ai.response.status": "idle",
        },
        events=(
            json.dumps({"type": "agent.session.created", "session": SESSION_CREATED}),
            json.dumps(
                {
                    "type": "agent.session.turn.completed",
                    "session_id": "sess_1",
                    "turn": {**TURN, "status": "idle"},
                }
            ),
        ),
    ),
)
FORMS = ("plain", "raw", "streaming")
STREAMED = ("stream", "raw_stream", "streaming_stream")


# ------------------------------------------------------------------ the application
async def application(client: Any, case: Case, form: str) -> list[Any]:
    """Make the call of ``case`` in one form; return all that was seen."""
    place, _, name = case.method.rpartition(".")
    resource = attrgetter(place)(client)
    if form.startswith("raw"):
        resource = resource.with_raw_response
    elif form.startswith("streaming"):
        resource = resource.with_streaming_response
    arguments = {**case.arguments, **({"stream": True} if form in STREAMED else {})}
    trail: list[Any] = []
    try:
        called = getattr(resource, name)(**arguments)
        if form.startswith("streaming"):
            async with entered(called) as response:
                trail.append(response.http_response.is_stream_consumed)
                await _take(response, case, trail)
        else:
            answer = await settle(called)
            await (_take(answer, case, trail) if form.startswith("raw") else _see(answer, trail))
    except openai.OpenAIError as error:
        trail.append(seen(error))
    return trail


async def _take(response: Any, case: Case, trail: list[Any]) -> None:
    """Take what a raw response holds: speech that is still coming is read, everything else is parsed."""
    trail.append(type(response))
    if case.kind == "audio/mpeg" and hasattr(response, "read"):
        trail.append(await settle(response.read()))
    else:
        await _see(await settle(response.parse()), trail)


async def _see(answer: Any, trail: list[Any]) -> None:
    trail.append(type(answer))
    if isinstance(answer, (openai.Stream, openai.AsyncStream)):
        trail += [seen(event) async for event in each(answer)]
    else:
        trail.append(answer.read() if hasattr(answer, "read") else seen(answer)[1:])


def script(case: Case, form: str, outcome: str) -> list[Step]:
    """Return what the server does."""
    if outcome == "http error":
        return reply(json.dumps(wire.ERROR).encode(), status=400, **HEADERS)
    if form in STREAMED:
        return event_stream(*case.events, **HEADERS)
    body = case.answer if isinstance(case.answer, bytes) else json.dumps(case.answer).encode()
    return reply(body, kind=case.kind, **HEADERS)


def sent(server: ScriptedServer) -> list[bytes]:
    """Return the requests as they were received, but for the random boundary of their parts."""
    found = []
    for request in server.requests:
        boundary = re.search(rb"boundary=([0-9a-f]+)", request)
        found.append(request.replace(boundary[1], b"-") if boundary else request)
    return found


def needs(server: ScriptedServer, case: Case, form: str = "plain") -> None:
    """Skip the test unless this openai has the method, and takes its arguments."""
    with client_for(server, is_async=False) as probe:
        try:
            taken = inspect.signature(attrgetter(case.method)(probe)).parameters
        except AttributeError:
            pytest.skip(f"this openai has no {case.method}")
    if not {*case.arguments, *(["stream"] if form in STREAMED else [])} <= set(taken):
        pytest.skip(f"the {case.method} of this openai takes less")


def parameters() -> list[Any]:
    return [
        pytest.param(case, form, id=f"{case.id}-{form}")
        for case in CASES
        for form in (*FORMS, *(STREAMED if case.events else ()))
    ]


# ------------------------------------------------------------------ the tests
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("outcome", ["success", "http error"])
@pytest.mark.parametrize(("case", "form"), parameters())
def test_every_operation(
    server: ScriptedServer, case: Case, form: str, outcome: str, *, is_async: bool
) -> None:
    """The application sends and sees what it does without us, and span and entry tell what happened."""
    needs(server, case, form)

    def once() -> tuple[list[Any], list[bytes]]:
        server.script(script(case, form, outcome))
        client = client_for(server, is_async=is_async)
        return asyncio.run(closing(client, application(client, case, form))), sent(server)

    bare = once()
    with Observed() as observed:
        assert once() == bare
        (span,) = [span for span in observed.spans(None) if not span.name.startswith("initialize")]
        openai_lifecycle.uninstrument()
        assert once() == bare
    attributes = dict(span.attributes or {})
    assert span.name == case.name
    assert attributes["gen_ai.operation.name"] == case.name.partition(" ")[0]
    assert (attributes["gen_ai.provider.name"], attributes["server.address"]) == ("openai", "127.0.0.1")
    assert attributes["openai_lifecycle.request_id"] == "req_1"
    assert attributes.get("gen_ai.request.stream") is (True if form in STREAMED else None)
    if outcome == "http error":
        check_error(case, attributes)
    else:
        check_success(case, form, attributes)


def check_error(case: Case, attributes: dict[str, Any]) -> None:
    """Check span and entry of a call that was answered with an error."""
    assert (attributes["error.type"], attributes["http.response.status_code"]) == ("BadRequestError", 400)
    if case.entry is None:
        assert not generations()
        return
    (entry,) = generations()
    assert isinstance(entry, LLMGenerationError)
    assert (entry.operation, entry.messages_count, entry.message_content) == case.entry[:3]
    assert "Unsupported value" in entry.error


def check_success(case: Case, form: str, attributes: dict[str, Any]) -> None:
    """Check span and entry of a call that went well."""
    assert "error.type" not in attributes
    assert {name: attributes.get(name) for name in case.attributes} == case.attributes
    assert ("gen_ai.response.time_to_first_chunk" in attributes) == (form in STREAMED)
    if case.entry is None:
        assert not generations()
        return
    (entry,) = generations()
    assert isinstance(entry, LLMGenerationSuccess)
    counted = (entry.response_length, entry.choices_count)
    assert (entry.operation, entry.messages_count, entry.message_content, *counted) == case.entry
    assert entry.temperature == case.arguments.get("temperature")
    assert entry.metadata.custom_fields["stream"] == str(form in STREAMED).lower()


FAILURES = {
    "videos.create": {**VIDEO, "status": "failed", "error": {"code": "moderation_blocked", "message": "no"}},
    "beta.threads.runs.create": {
        **RUN,
        "status": "failed",
        "last_error": {"code": "server_error", "message": "no"},
    },
    "batches.create": {
        "id": "batch_1",
        "status": "failed",
        "errors": {"object": "list", "data": [{"code": "empty_file", "message": "no"}]},
    },
}


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("form", ["plain", "raw", "streaming"])
def test_speech_in_events(server: ScriptedServer, observed: Observed, form: str, *, is_async: bool) -> None:
    """Speech that comes as events has its tokens, also where the application takes it as bytes."""
    case = Case(
        "audio.speech.create", {**SPEECH, "stream_format": "sse"}, b"", "", None, {}, kind="audio/mpeg"
    )
    needs(server, case)
    audio = {"type": "speech.audio.delta", "audio": "AAAA"}
    server.script(event_stream(audio, {"type": "speech.audio.done", "usage": COUNTED}, end=()))
    client = client_for(server, is_async=is_async)
    trail = asyncio.run(closing(client, application(client, case, form)))
    assert trail[-1].startswith(b'data: {"type": "speech.audio.delta"')
    assert COUNTED_ATTRIBUTES.items() <= observed.attributes("speech").items()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("method", FAILURES)
def test_job_that_failed(server: ScriptedServer, method: str) -> None:
    """A job that is answered as failed is a failed span, whose error type is the job's code."""
    case = next(case for case in CASES if case.method == method)
    body = FAILURES[method]
    server.script(reply(json.dumps(body).encode()))
    needs(server, case)
    with Observed() as observed, client_for(server, is_async=False) as client:
        attrgetter(method)(client)(**case.arguments)
        (span,) = [span for span in observed.spans(None) if span.name == case.name]
    code = re.search(r'"code": "(\w+)"', json.dumps(body))
    assert code is not None
    assert (span.attributes or {})["error.type"] == code[1]
    assert span.status.description == "no"
    assert not generations()


def test_a_jobs_error_that_is_no_code(server: ScriptedServer) -> None:
    """An error's code that is a sentence, which may quote the prompt, becomes no error type."""
    case = next(case for case in CASES if case.method == "batches.create")
    error = {"code": f"no: {CANARY} said so"}
    body: dict[str, Any] = {"id": "batch_1", "status": "failed", "errors": {"data": [error]}}
    server.script(reply(json.dumps(body).encode()))
    with Observed(capture="no_content") as observed, client_for(server, is_async=False) as client:
        client.batches.create(**case.arguments)
        span = observed.span("batch")
        assert CANARY not in repr(observed.metrics()) + span.to_json()
    assert (span.attributes or {})["error.type"] == "_OTHER"


def test_many_vectors_cost_no_more_than_one(server: ScriptedServer) -> None:
    """Of the vectors, only the first is looked at: the others may be anything."""
    data = [{"object": "embedding", "index": 0, "embedding": [0.5, 0.25]}, *({} for _ in range(2000))]
    server.script(reply(json.dumps({**FLOATS, "data": data}).encode()))
    with Observed() as observed, client_for(server, is_async=False) as client:
        client.embeddings.create(model="m", input=["x"] * 2001, encoding_format="float")
        entry = observed.generation()
        assert observed.attributes("embeddings")["gen_ai.embeddings.dimension.count"] == 2
    assert isinstance(entry, LLMGenerationSuccess)
    assert (entry.messages_count, entry.choices_count) == (2001, 2001)


def test_unknown_endpoint_passes_through(server: ScriptedServer) -> None:
    """An endpoint that is not in the table is called as if nothing were instrumented, and leaves no span."""
    server.script(reply(b'{"object": "list", "data": []}'))
    with Observed() as observed, client_for(server, is_async=False) as client:
        observed.clear()
        assert list(client.models.list()) == []
        assert client.post("/something/new", body={"a": 1}, cast_to=object) == {"object": "list", "data": []}
        assert not observed.spans(None)
        assert not entries()


@pytest.mark.parametrize(
    ("method", "text"),
    [("completions.create", "Once upon"), ("images.generate", "A cat"), ("audio.speech.create", "Say it")],
)
def test_content_on_the_span(server: ScriptedServer, method: str, text: str) -> None:
    """Where it is asked for, the span shows what was sent as a message of the user, and text that came back."""
    case = next(case for case in CASES if case.method == method)
    server.script(script(case, "plain", "success"))
    with Observed(capture="span_and_event") as observed, client_for(server, is_async=False) as client:
        attrgetter(method)(client)(**case.arguments)
        attributes = observed.attributes(case.name.partition(" ")[0])
    asked = [{"role": "user", "parts": [{"type": "text", "content": text}]}]
    assert json.loads(attributes["gen_ai.input.messages"]) == asked
    answered = [
        {"role": "assistant", "parts": [{"type": "text", "content": " a time"}], "finish_reason": "stop"}
    ]
    assert json.loads(attributes.get("gen_ai.output.messages", "[]")) == (
        answered if "completions" in method else []
    )


CANARY = "canary-4711"
CONTENT = ("prompt", "input", "text", "b64_json", "url", "message", "question", "delta", "output")


def planted(value: Any, *, content: bool = False) -> Any:
    """Return ``value`` with the canary in place of every text that is content."""
    if isinstance(value, dict):
        return {key: planted(inner, content=key in CONTENT) for key, inner in value.items()}
    if isinstance(value, list):
        return [planted(inner, content=content) for inner in value]
    return CANARY if content and isinstance(value, str) else value


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("outcome", ["success", "http error"])
@pytest.mark.parametrize("case", [pytest.param(case, id=case.id) for case in CASES])
def test_no_content_leaves_nothing(
    server: ScriptedServer, case: Case, outcome: str, caplog: pytest.LogCaptureFixture
) -> None:
    """With capture off, no text that was sent or received is in any span, entry, metric or log record."""
    needs(server, case)
    answer = case.answer if case.kind == "application/json" else CANARY.encode()
    body = planted(answer if outcome == "success" else wire.ERROR)
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    kind = case.kind if outcome == "success" else "application/json"
    server.script(reply(data, kind=kind, status=200 if outcome == "success" else 400))
    caplog.set_level("DEBUG", "openai_lifecycle")
    with Observed(capture="no_content") as observed, client_for(server, is_async=False) as client:
        asyncio.run(application(client, replace(case, arguments=planted(case.arguments)), "plain"))
        seen_by_us = [span.to_json() for span in observed.spans(None)]
        seen_by_us += [repr(observed.metrics()), Path("events.log").read_text(encoding="utf-8"), caplog.text]
    assert len(observed.spans(None)) == 2
    assert not [text for text in seen_by_us if CANARY in text]
