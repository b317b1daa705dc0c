"""One log beside the real instrumentations of other providers' clients, and of the same client.

The packages need an environment of their own: ``opentelemetry-instrumentation-genai-openai``,
``opentelemetry-instrumentation-genai-anthropic`` and ``anthropic``.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider

import openai_lifecycle
from openai_lifecycle.events import LifecycleEvent, LLMGenerationError, LLMGenerationSuccess, ToolCallDetected
from openai_lifecycle.eventslog.exporter import EventsLogExporter, EventsLogProcessor
from openai_lifecycle.eventslog.reader import read_events
from tests import wire
from tests.capture.application import client_for
from tests.scripted_server import ScriptedServer, event_stream, reply

pytestmark = pytest.mark.compat

ANTHROPIC = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-answering",
    "content": [
        {"type": "text", "text": "Hi there"},
        {"type": "tool_use", "id": "toolu_1", "name": "get_weather", "input": {"city": "Paris"}},
    ],
    "stop_reason": "tool_use",
    "stop_sequence": None,
    "usage": {"input_tokens": 10, "output_tokens": 5},
}


def entries() -> list[LifecycleEvent]:
    events = read_events("events.log") if Path("events.log").exists() else iter(())
    return [event for event in events if not event.tag.startswith("INIT")]


@pytest.fixture(autouse=True)
def provider(monkeypatch: pytest.MonkeyPatch) -> Iterator[TracerProvider]:
    """Instrument with the two real packages, content on the spans."""
    monkeypatch.setenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "span_and_event")
    monkeypatch.setenv("OTEL_SEMCONV_STABILITY_OPT_IN", "gen_ai_latest_experimental")
    provider = TracerProvider(shutdown_on_exit=False)
    packages: list[Any] = []
    for name in ("openai", "anthropic"):
        module = pytest.importorskip(f"opentelemetry.instrumentation.genai.{name}")
        importlib.import_module(name)
        packages.append(next(v() for k, v in vars(module).items() if k.lower() == f"{name}instrumentor"))
    for package in packages:
        package.instrument(tracer_provider=provider)
    yield provider
    openai_lifecycle.uninstrument()
    for package in packages:
        package.uninstrument()
    provider.shutdown()


def ask_anthropic(server: ScriptedServer, **changes: Any) -> None:
    anthropic: Any = importlib.import_module("anthropic")

    client_for(server, is_async=False).close()  # the first span of ours joins the provider
    server.script(reply(json.dumps({**ANTHROPIC, **changes}).encode()))
    with anthropic.Anthropic(
        api_key="sk-ant-test-0123456789", base_url=server.base_url.removesuffix("/v1"), max_retries=0
    ) as client:
        client.messages.create(
            model="claude-asked",
            max_tokens=99,
            system="Be kind.",
            messages=[{"role": "user", "content": "What is the weather?"}],
        )


def test_anthropic_calls_are_in_the_log(server: ScriptedServer, provider: TracerProvider) -> None:
    """A call of Anthropic's client, traced by its own instrumentation, is an entry beside those of OpenAI's."""
    openai_lifecycle.instrument(tracer_provider=provider)
    ask_anthropic(server)
    tool, generation = entries()
    assert isinstance(tool, ToolCallDetected)
    assert (tool.tool_call_id, tool.tool_name) == ("toolu_1", "get_weather")
    assert json.loads(tool.arguments) == {"city": "Paris"}
    assert isinstance(generation, LLMGenerationSuccess)
    assert (generation.provider, generation.model_id) == ("anthropic", "claude-asked")
    assert generation.message_content == "system: Be kind. | user: What is the weather?"
    assert (generation.messages_count, generation.choices_count, generation.response_length) == (1, 1, 8)
    fields = generation.metadata.custom_fields
    assert (fields["input_tokens"], fields["output_tokens"], fields["response_id"]) == ("10", "5", "msg_1")


def test_without_capture_no_content(server: ScriptedServer, provider: TracerProvider) -> None:
    """With our content capture off the other's content is not in the log either."""
    openai_lifecycle.instrument(tracer_provider=provider, capture="no_content")
    ask_anthropic(server)
    assert [event.tag for event in entries()] == ["TOOL_CALL_DETECTED", "GENERATION_SUCCESS"]
    text = Path("events.log").read_text(encoding="utf-8")
    assert not any(said in text for said in ("weather?", "kind", "Paris"))


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize("ours", [True, False], ids=["with ours", "without ours"])
def test_one_entry_for_a_call_that_both_trace(
    server: ScriptedServer, provider: TracerProvider, ours: bool, stream: bool
) -> None:
    """A call that the official package traces too has one generation entry; alone, the official span makes it."""
    if ours:
        openai_lifecycle.instrument(tracer_provider=provider)
    else:
        provider.add_span_processor(EventsLogProcessor(EventsLogExporter()))
    server.script(event_stream(*wire.chunks()) if stream else reply(json.dumps(wire.completion()).encode()))
    with client_for(server, is_async=False) as client:
        result = client.chat.completions.create(**wire.REQUEST, stream=stream)
        if stream:
            for _ in result:
                pass
    generations = [event for event in entries() if isinstance(event, LLMGenerationSuccess)]
    tools = [event for event in entries() if isinstance(event, ToolCallDetected)]
    assert [event.model_id for event in generations] == [wire.MODEL]
    assert generations[0].message_content == "user: Hi there"
    assert generations[0].response_length == len("Hello, world")
    assert [(tool.tool_call_id, json.loads(tool.arguments)) for tool in tools] == [
        ("call_1", json.loads(wire.WEATHER)),
        ("call_2", json.loads(wire.TIME)),
    ]
    assert ("stream" in generations[0].metadata.custom_fields) == (ours or stream)  # who wrote it


def test_one_entry_for_a_call_that_both_trace_and_that_fails(
    server: ScriptedServer, provider: TracerProvider
) -> None:
    """A failed call has one error entry, without the key that the server repeats."""
    import openai

    openai_lifecycle.instrument(tracer_provider=provider)
    server.script(reply(b'{"error": {"message": "bad key sk-abcdefgh12345678"}}', status=401))
    with client_for(server, is_async=False) as client, pytest.raises(openai.AuthenticationError):
        client.chat.completions.create(**wire.REQUEST)
    (event,) = entries()
    assert isinstance(event, LLMGenerationError)
    assert "[REDACTED]" in event.error
    assert "sk-abcdefgh12345678" not in Path("events.log").read_text(encoding="utf-8")


def test_the_official_span_alone_is_redacted(server: ScriptedServer, provider: TracerProvider) -> None:
    """Without ours, the entry of the official package's failed call does not hold the key either."""
    import openai

    provider.add_span_processor(EventsLogProcessor(EventsLogExporter()))
    server.script(reply(b'{"error": {"message": "bad key sk-abcdefgh12345678"}}', status=401))
    with client_for(server, is_async=False) as client, pytest.raises(openai.AuthenticationError):
        client.chat.completions.create(**wire.REQUEST)
    (event,) = entries()
    assert isinstance(event, LLMGenerationError)
    assert "bad key [REDACTED]" in event.error
    assert "sk-abcdefgh" not in event.error
