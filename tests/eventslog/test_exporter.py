"""Spans to entries: what is written once, what the transform hook may do, and what is never in the file."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
from opentelemetry.trace import Span, Status, StatusCode, set_span_in_context

from openai_lifecycle import codec, redaction, semconv
from openai_lifecycle.events import LifecycleEvent, LLMGenerationError, LLMGenerationSuccess, ToolCallDetected
from openai_lifecycle.eventslog.exporter import EventsLogExporter, EventsLogProcessor
from openai_lifecycle.eventslog.file import EventsFile
from openai_lifecycle.eventslog.overlap import Overlap
from openai_lifecycle.eventslog.reader import read_events
from openai_lifecycle.eventslog.transform import Renderer
from openai_lifecycle.shield import SHIELD
from openai_lifecycle.sinks.dispatch import Dispatcher
from tests.limits import HANGS
from tests.raising_handler import Raises

LOG = Path("events.log")


def entries() -> list[LifecycleEvent]:
    return list(read_events(LOG)) if LOG.exists() else []


@pytest.fixture
def provider() -> Iterator[TracerProvider]:
    provider = TracerProvider(shutdown_on_exit=False)
    yield provider
    provider.shutdown()


def generate(provider: TracerProvider, content: str = "user: What is my PIN?", **attributes: Any) -> Span:
    """End a span of ours with a tool call and a success, and return it."""
    with provider.get_tracer(semconv.SCOPE).start_as_current_span(
        "chat m",
        attributes={
            semconv.OPERATION: "chat",
            semconv.PROVIDER: "openai",
            semconv.REQUEST_MODEL: "m",
            **attributes,
        },
    ) as span:
        span.add_event(
            semconv.TOOL_CALL_DETECTED,
            codec.tool_call(
                call_id="call_1", name="ask", kind="function", arguments='{"pin": 31415926535897932384}'
            ),
        )
        span.add_event(
            semconv.GENERATION_SUCCESS,
            codec.generation_success(
                messages_count=1,
                message_content=content,
                temperature=None,
                response_length=2,
                choices_count=1,
            ),
        )
    return span


# ------------------------------------------------------------------ once
def test_a_span_s_entries_are_written_when_it_ends(provider: TracerProvider) -> None:
    """The processor writes in the thread that ends the span, tool calls before the generation."""
    provider.add_span_processor(EventsLogProcessor(EventsLogExporter()))
    generate(provider)
    assert [event.tag for event in entries()] == ["TOOL_CALL_DETECTED", "GENERATION_SUCCESS"]


def test_a_span_s_entries_are_one_write(provider: TracerProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk is waited for once a call, however many tools the model asks for."""
    synced: list[str] = []
    monkeypatch.setattr(
        os, "fsync", lambda descriptor: synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
    )
    provider.add_span_processor(EventsLogProcessor(EventsLogExporter(durability="fsync")))
    generate(provider)
    assert len(entries()) == 2
    assert synced.count(str(LOG.resolve())) == 1


@pytest.mark.parametrize("batch_first", [False, True])
def test_a_span_that_comes_twice_is_written_once(provider: TracerProvider, batch_first: bool) -> None:
    """With our processor and ``OTEL_TRACES_EXPORTER=events_log`` on one provider each entry is single."""
    processors = [EventsLogProcessor(EventsLogExporter()), BatchSpanProcessor(EventsLogExporter())]
    for processor in reversed(processors) if batch_first else processors:
        provider.add_span_processor(processor)
    for _ in range(20):
        generate(provider)
    assert provider.force_flush()
    assert len(entries()) == 40


def test_two_logs_each_get_the_entry(provider: TracerProvider) -> None:
    """Exporters with different paths do not keep entries from each other."""
    for path in ("events.log", "other.log"):
        provider.add_span_processor(SimpleSpanProcessor(EventsLogExporter(events_log=path)))
    generate(provider)
    assert entries() == list(read_events("other.log")) != []


class Taking:
    """A destination that keeps what it gets."""

    def __init__(self) -> None:
        self.taken: list[LifecycleEvent] = []

    def write(self, events: Sequence[LifecycleEvent]) -> None:
        """Keep ``events``."""
        self.taken += events

    def flush(self) -> None: ...

    def close(self) -> None: ...


@pytest.mark.parametrize("path", ["events.log", "none"])
def test_the_sinks_of_two_exporters_each_get_the_event(provider: TracerProvider, path: str) -> None:
    """Exporters of one file, or of none, write it once and keep events from neither's destinations."""
    sinks = [Taking(), Taking()]
    exporters = [EventsLogExporter(events_log=path, sinks=[sink]) for sink in sinks]
    for exporter in exporters:
        provider.add_span_processor(SimpleSpanProcessor(exporter))
    generate(provider)
    assert all(exporter.force_flush() for exporter in exporters)
    assert [len(sink.taken) for sink in sinks] == [2, 2]
    assert len(entries()) == (2 if path == "events.log" else 0)


def test_the_log_can_be_turned_off(provider: TracerProvider) -> None:
    """With ``none`` for a path there is no file, and nothing fails."""
    provider.add_span_processor(EventsLogProcessor(EventsLogExporter(events_log="none")))
    generate(provider)
    assert provider.force_flush()
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize("file_is_safe", [True, False])
@pytest.mark.parametrize("sinks_are_safe", [True, False])
def test_a_flush(monkeypatch: pytest.MonkeyPatch, *, file_is_safe: bool, sinks_are_safe: bool) -> None:
    """A flush asks both file and destinations, with what is left of its time, and succeeds if both do."""
    waits: list[float] = []
    for kind, is_safe in ((EventsFile, file_is_safe), (Dispatcher, sinks_are_safe)):

        def flush(_: object, seconds: float, is_safe: bool = is_safe) -> bool:
            waits.append(seconds)
            return is_safe

        monkeypatch.setattr(kind, "flush", flush)
    processor = EventsLogProcessor(EventsLogExporter(sinks="jsonl:out.jsonl"))
    assert processor.force_flush(HANGS * 2_000) == (file_is_safe and sinks_are_safe)
    assert [HANGS < seconds <= HANGS * 2 for seconds in waits] == [True, True]
    processor.shutdown()


def test_a_span_after_shutdown_is_still_written(provider: TracerProvider) -> None:
    """A call that ends after the SDK was shut down, as at the end of a process, is in the file."""
    exporter = EventsLogExporter(durability="buffered")
    provider.add_span_processor(EventsLogProcessor(exporter))
    generate(provider)
    exporter.shutdown()
    generate(provider)
    assert len(entries()) == 4


def test_header_and_timestamp_are_the_same_instant(
    provider: TracerProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The header shows local time, or UTC where asked for, to the second of the exact timestamp."""
    for zone, utc, offset in (
        ("Asia/Kolkata", False, "+05:30"),
        ("Asia/Kolkata", True, "+00:00"),
        ("UTC", False, "+00:00"),
    ):
        with monkeypatch.context() as patch:
            patch.setenv("TZ", zone)
            time.tzset()
            exporter = EventsLogExporter(utc=utc)
            provider.add_span_processor(SimpleSpanProcessor(exporter))
            LOG.unlink(missing_ok=True)
            generate(provider)
            stamp = entries()[-1].metadata.custom_fields["timestamp"]
            assert stamp.endswith(offset)
            assert entries()[-1].time.isoformat() == stamp[:19]
            provider.shutdown()
            provider = TracerProvider(shutdown_on_exit=False)
    time.tzset()


# ------------------------------------------------------------------ transform
def transformed(provider: TracerProvider, transform: Callable[[LifecycleEvent], Any]) -> list[LifecycleEvent]:
    provider.add_span_processor(EventsLogProcessor(EventsLogExporter(transform=transform)))
    generate(provider)
    return entries()


def test_transform_may_change_an_entry(provider: TracerProvider) -> None:
    """What the hook returns is what is written."""

    def redact(event: LifecycleEvent) -> LifecycleEvent:
        return (
            dataclasses.replace(event, message_content="-")
            if isinstance(event, LLMGenerationSuccess)
            else event
        )

    tool, generation = transformed(provider, redact)
    assert isinstance(tool, ToolCallDetected)
    assert tool.arguments == '{"pin": 31415926535897932384}'
    assert isinstance(generation, LLMGenerationSuccess)
    assert generation.message_content == "-"


def test_transform_may_drop_an_entry(provider: TracerProvider) -> None:
    """An entry for which the hook returns ``None`` is not written; others are."""
    (event,) = transformed(provider, lambda event: None if isinstance(event, ToolCallDetected) else event)
    assert event.tag == "GENERATION_SUCCESS"


def refuse(event: LifecycleEvent) -> LifecycleEvent:
    raise ValueError(f"cannot redact {event}")


def spoil(event: LifecycleEvent) -> LifecycleEvent:
    vars(event.metadata)["custom_fields"]["span_id"] = object()
    return event


def wreck(event: LifecycleEvent) -> LifecycleEvent:
    vars(event).update(provider=5, metadata=None)
    raise ValueError


@pytest.mark.parametrize(
    ("transform", "reported"),
    [
        (refuse, "ValueError at "),
        (lambda event: "nonsense", "it returned str, not a LifecycleEvent or None"),
        (lambda event: dataclasses.replace(event, provider=None), "TypeError at "),
        (spoil, "TypeError at "),
        (wreck, "ValueError at "),
    ],
    ids=[
        "raises",
        "returns no event",
        "returns an event that cannot be written",
        "spoils the event",
        "wrecks the event and raises",
    ],
)
def test_a_failing_transform_costs_the_content_and_not_the_entry(
    provider: TracerProvider,
    transform: Callable[[LifecycleEvent], Any],
    reported: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The entry is written without its content; one log line, without content, says where the hook failed."""
    events = transformed(provider, transform)
    generate(provider)
    answer(provider, "resp_1", error="cannot tell the PIN")
    tool, success, failure = "TOOL_CALL_DETECTED", "GENERATION_SUCCESS", "GENERATION_ERROR"
    assert [event.tag for event in entries()] == [tool, success, tool, success, tool, failure]
    assert "PIN" not in LOG.read_text() + caplog.text
    assert "31415926535897932384" not in LOG.read_text() + caplog.text
    assert [getattr(event, "response_length", None) for event in events] == [None, 2]
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert reported in record.getMessage()


def test_a_failure_of_the_transform_that_cannot_be_logged(provider: TracerProvider) -> None:
    """The entries are written without their content also when the application's log handler raises."""
    with Raises():
        events = transformed(provider, refuse)
    assert [event.tag for event in events] == ["TOOL_CALL_DETECTED", "GENERATION_SUCCESS"]
    assert "PIN" not in LOG.read_text()


@pytest.mark.parametrize("at", ["TOOL_CALL_DETECTED", "GENERATION_SUCCESS"])
def test_what_ends_the_application_in_a_transform_costs_no_entry(provider: TracerProvider, at: str) -> None:
    """``SystemExit``, or another exception that is no ``Exception``, is raised; the entries lack their content."""

    def leave(event: LifecycleEvent) -> LifecycleEvent:
        if event.tag == at:
            raise SystemExit
        return event

    with pytest.raises(SystemExit):
        transformed(provider, leave)
    tool, generation = entries()
    assert (tool.tag, generation.tag) == ("TOOL_CALL_DETECTED", "GENERATION_SUCCESS")
    assert isinstance(tool, ToolCallDetected)
    assert (tool.arguments == "") == (at == "TOOL_CALL_DETECTED")
    assert "PIN" not in LOG.read_text()


@pytest.mark.parametrize("lines", [1, 2, 3])
def test_what_a_signal_handler_raises_after_a_transform_doubles_no_entry(
    provider: TracerProvider, lines: int
) -> None:
    """Each entry is written once if a signal handler raises that many lines after the hook has returned."""
    left = 0

    def aim(event: LifecycleEvent) -> LifecycleEvent:
        nonlocal left
        left = left or lines
        return event

    def strike(frame: FrameType, kind: str, _: Any) -> Any:
        nonlocal left
        if kind == "line" and left:
            left -= 1
            if not left:
                sys.settrace(None)
                raise SystemExit
        return strike if frame.f_code is Renderer.render.__code__ else None

    before = sys.gettrace()
    sys.settrace(strike)
    try:
        with pytest.raises(SystemExit):
            transformed(provider, aim)
    finally:
        sys.settrace(before)
    assert [event.tag for event in entries()] == ["TOOL_CALL_DETECTED", "GENERATION_SUCCESS"]


def bare(event: LifecycleEvent) -> LifecycleEvent:
    return dataclasses.replace(event, provider="transformed")


def providers() -> list[str]:
    return [event.provider for event in entries()]


def test_no_entry_escapes_the_transform(provider: TracerProvider) -> None:
    """An exporter that the environment asks for, and that is first to see a span, does not write it untransformed."""
    provider.add_span_processor(SimpleSpanProcessor(EventsLogExporter()))
    provider.add_span_processor(EventsLogProcessor(EventsLogExporter(transform=bare)))
    generate(provider)
    trace_foreign(provider)
    assert providers() == ["transformed"] * 4


def test_a_provider_that_was_not_joined_is_transformed_too(provider: TracerProvider) -> None:
    """Spans of others that only the environment's exporter sees lose no entry, and get the transform of the file."""
    other = TracerProvider(shutdown_on_exit=False)
    processor = EventsLogProcessor(EventsLogExporter(transform=bare))
    other.add_span_processor(processor)
    provider.add_span_processor(SimpleSpanProcessor(EventsLogExporter()))
    trace_foreign(provider)
    assert providers() == ["transformed"] * 2
    processor.leave()
    trace_foreign(provider)
    assert providers() == ["transformed"] * 2 + ["anthropic"] * 2
    other.shutdown()


def test_a_call_that_ends_after_uninstrument_is_transformed_too(provider: TracerProvider) -> None:
    """A span of ours that was open when the processor left is written by the exporter of its call, by nobody else."""
    exporter = EventsLogExporter(transform=bare)
    processor = EventsLogProcessor(exporter)
    provider.add_span_processor(SimpleSpanProcessor(EventsLogExporter()))
    provider.add_span_processor(processor)
    processor.leave()
    span = generate(provider)
    assert providers() == []
    exporter.complete(span)
    assert providers() == ["transformed"] * 2


@pytest.mark.parametrize("ways", ["pc", "cp", "ppc", "pxc"])
def test_a_span_that_its_call_completes(provider: TracerProvider, ways: str) -> None:
    """A span of ours is written once, whether processors get it in time, late or twice, or the exporter itself does."""
    exporter = EventsLogExporter()
    span: Any = generate(provider)
    for way in ways:
        if way == "c":
            exporter.complete(span)
        elif way == "p":
            EventsLogProcessor(exporter).on_end(span._readable_span())
        else:
            exporter.export([span._readable_span()])
    assert [event.tag for event in entries()] == ["TOOL_CALL_DETECTED", "GENERATION_SUCCESS"]


def test_an_exporter_with_options_of_its_own_does_not_stand_back(provider: TracerProvider) -> None:
    """What an application has set up by hand is not put out of force by the processor of ``instrument()``."""
    provider.add_span_processor(SimpleSpanProcessor(EventsLogExporter(transform=bare)))
    provider.add_span_processor(EventsLogProcessor(EventsLogExporter()))
    generate(provider)
    assert providers() == ["transformed"] * 2


# ------------------------------------------------------------------ other instrumentations
FOREIGN: dict[str, Any] = {
    semconv.OPERATION: "chat",
    semconv.PROVIDER: "anthropic",
    semconv.REQUEST_MODEL: "claude",
    semconv.MAX_TOKENS: 99,
    semconv.INPUT_TOKENS: 10,
    semconv.OUTPUT_TOKENS: 5,
    semconv.FINISH_REASONS: ["tool_call"],
    semconv.SYSTEM_INSTRUCTIONS: '[{"type": "text", "content": "Be kind."}]',
    semconv.INPUT_MESSAGES: '[{"role": "user", "parts": [{"type": "text", "content": "Use key sk-abcdefgh12345678"},'
    ' {"type": "uri", "modality": "image", "uri": "https://example.com/a.png"},'
    ' {"type": "tool_call_response", "id": "toolu_0", "response": "x"}, {"type": "strange"}]}]',
    semconv.OUTPUT_MESSAGES: '[{"role": "assistant", "parts": [{"type": "text", "content": "Hi there"},'
    ' {"type": "tool_call", "id": "toolu_1", "name": "look", "arguments": {"city": "Paris"}}]}]',
}


def trace_foreign(provider: TracerProvider, **attributes: Any) -> None:
    tracer = provider.get_tracer("opentelemetry.instrumentation.genai.anthropic")
    tracer.start_span("chat claude", attributes={**FOREIGN, **attributes}).end()


def fail_foreign(provider: TracerProvider, error: str, attributes: dict[str, Any] = FOREIGN) -> None:
    span = provider.get_tracer("foreign").start_span("chat", attributes=attributes)
    span.set_status(Status(StatusCode.ERROR, error))
    span.end()


@pytest.fixture
def writing(provider: TracerProvider) -> TracerProvider:
    provider.add_span_processor(EventsLogProcessor(EventsLogExporter()))
    return provider


@pytest.mark.parametrize(
    ("given", "arguments"),
    [
        ({}, "{}"),
        ({"arguments": None}, "{}"),
        ({"arguments": "{not JSON"}, "{not JSON"),
        ({"arguments": [1]}, "[1]"),
    ],
)
def test_arguments_of_a_foreign_tool_call(
    writing: TracerProvider, given: dict[str, Any], arguments: str
) -> None:
    """A text is shown as the model wrote it, anything else as JSON, and nothing as ``{}``."""
    part = {"type": "tool_call", "id": "toolu_1", "name": "look", **given}
    trace_foreign(writing, **{semconv.OUTPUT_MESSAGES: json.dumps([{"role": "assistant", "parts": [part]}])})
    tool = entries()[0]
    assert isinstance(tool, ToolCallDetected)
    assert tool.arguments == arguments


def test_a_foreign_span_with_an_error_type_has_failed(writing: TracerProvider) -> None:
    """The conventions' ``error.type`` is enough: not every instrumentation also sets the span's status."""
    trace_foreign(writing, **{semconv.ERROR_TYPE: "Timeout"})
    (event,) = entries()
    assert isinstance(event, LLMGenerationError)
    assert event.error == "Timeout"


def test_a_foreign_span_has_its_entries(writing: TracerProvider) -> None:
    """A span that follows the GenAI conventions is written with all that it says, credentials replaced."""
    trace_foreign(writing)
    tool, generation = entries()
    assert isinstance(tool, ToolCallDetected)
    assert (tool.tool_call_id, tool.tool_name, tool.arguments) == ("toolu_1", "look", '{"city": "Paris"}')
    assert isinstance(generation, LLMGenerationSuccess)
    assert (generation.provider, generation.model_id, generation.operation) == (
        "anthropic",
        "claude",
        "llm_generation",
    )
    assert generation.message_content == (
        "system: Be kind. | user: Use key [REDACTED] [image] [tool_result toolu_0] [strange]"
    )
    assert (generation.messages_count, generation.choices_count, generation.response_length) == (1, 1, 8)
    assert generation.metadata.max_tokens == 99
    assert generation.metadata.custom_fields["total_tokens"] == "15"
    assert generation.metadata.custom_fields["finish_reasons"] == "tool_call"
    assert "stream" not in generation.metadata.custom_fields


@pytest.mark.parametrize(
    ("options", "status", "error"),
    [
        ({}, 429, "gave up on Bearer [REDACTED]"),
        ({"capture": "no_content"}, 429, "Timeout: HTTP 429"),
        ({"capture": "no_content"}, 200, "Timeout"),
        ({"capture": "no_content"}, "many", "Timeout"),
        ({"transform": refuse}, 429, "Timeout: HTTP 429"),
        ({"transform": refuse}, 200, "Timeout"),
    ],
)
def test_a_foreign_error(
    provider: TracerProvider, options: dict[str, Any], status: object, error: str
) -> None:
    """A failed foreign call has an error with its message, credentials replaced; without content, type and HTTP status.

    It is without content where none is captured, and where the transform hook fails.
    """
    provider.add_span_processor(EventsLogProcessor(EventsLogExporter(**options)))
    attributes = {**FOREIGN, semconv.ERROR_TYPE: "Timeout", semconv.HTTP_STATUS_CODE: status}
    fail_foreign(provider, "gave up on Bearer abcdefgh1234", attributes)
    (event,) = entries()
    assert (event.tag, getattr(event, "error")) == ("GENERATION_ERROR", error)  # noqa: B009
    assert event.metadata.custom_fields["error_type"] == "Timeout"


def test_a_tool_that_a_foreign_server_runs(writing: TracerProvider) -> None:
    """A tool call that a foreign server answers has an entry with its kind and arguments, and is shown later as any call."""
    asked = {"type": "web_search", "query": "weather"}
    call = {"type": "server_tool_call", "id": "srv_1", "name": "web_search", "server_tool_call": asked}
    result = {
        "type": "server_tool_call_response",
        "id": "srv_1",
        "server_tool_call_response": {"type": "web_search"},
    }
    said = json.dumps([{"role": "assistant", "parts": [call, result]}])
    trace_foreign(writing, **{semconv.INPUT_MESSAGES: said, semconv.OUTPUT_MESSAGES: said})
    tool, generation = entries()
    assert isinstance(tool, ToolCallDetected)
    assert (tool.tool_call_id, tool.tool_name, tool.arguments) == (
        "srv_1",
        "web_search",
        '{"query": "weather"}',
    )
    assert tool.metadata.custom_fields["tool_type"] == "web_search"
    assert isinstance(generation, LLMGenerationSuccess)
    assert generation.message_content.endswith("assistant: [tool_call web_search] [tool_result srv_1]")


@pytest.mark.parametrize("written", [1, 1.0])
def test_foreign_numbers_are_shown_as_ours(writing: TracerProvider, written: float) -> None:
    """What is documented as a number with a fraction has one, however an instrumentation writes it."""
    doubles = (semconv.TOP_P, semconv.FREQUENCY_PENALTY, semconv.PRESENCE_PENALTY)
    trace_foreign(writing, **dict.fromkeys(doubles, written))
    text = LOG.read_text()
    for key in ("top_p", "frequency_penalty", "presence_penalty"):
        assert f'"{key}": 1.0,\n' in text


def test_a_foreign_span_without_a_context() -> None:
    """A finished span that a program has put together by hand, without ids, has its entries."""
    EventsLogExporter().export([ReadableSpan("chat claude", attributes=FOREIGN)])
    assert [event.tag for event in entries()] == ["TOOL_CALL_DETECTED", "GENERATION_SUCCESS"]


ODD: list[dict[str, Any]] = [
    {semconv.TOP_P: 10**400, semconv.TIME_TO_FIRST_CHUNK: 10**400},
    {semconv.INPUT_MESSAGES: "{not json", semconv.OUTPUT_MESSAGES: "17"},
    {
        semconv.INPUT_MESSAGES: '["text", 1, null]',
        semconv.OUTPUT_MESSAGES: '[{"parts": [1, {"type": "tool_call"}]}]',
    },
    {
        semconv.INPUT_MESSAGES: '[{"role": 5, "content": "plain"}]',
        semconv.OUTPUT_MESSAGES: '[{"parts": {"a": 1}}]',
    },
    {semconv.REQUEST_MODEL: 5, semconv.PROVIDER: ["x"], semconv.MAX_TOKENS: "many", semconv.TOP_P: True},
    {semconv.FINISH_REASONS: "stop", semconv.INPUT_TOKENS: 1.5, semconv.RESPONSE_ID: ["a", "b"]},
    {semconv.INPUT_MESSAGES: [{"role": "user", "parts": [{"type": "text", "content": "structured"}]}]},
    {semconv.SYSTEM_INSTRUCTIONS: "[" * 100_000},
]


@pytest.mark.parametrize("attributes", ODD, ids=range(len(ODD)))
def test_odd_attributes_degrade_to_what_is_known(writing: TracerProvider, attributes: dict[str, Any]) -> None:
    """Whatever an instrumentation writes, exactly one generation entry comes of it, without an exception."""
    trace_foreign(writing, **attributes)
    assert [event.tag for event in entries()].count("GENERATION_SUCCESS") == 1


@pytest.mark.parametrize("end", [1.7e18, -1, 10**25, float("nan"), "soon"])
def test_odd_times_degrade_to_what_is_known(writing: TracerProvider, end: Any) -> None:
    """The SDK takes any time of a span, such as ``time.time() * 1e9``; one that is no time counts as now."""
    trace_foreign(writing)
    writing.get_tracer("foreign").start_span("chat claude", attributes=FOREIGN).end(end)
    *_, whole, odd = (event for event in entries() if event.tag == "GENERATION_SUCCESS")
    if end == 1.7e18:
        assert odd.metadata.custom_fields["timestamp"].startswith("2023-11-1")
    else:
        assert whole.time <= odd.time
        assert "duration_ms" not in odd.metadata.custom_fields


@pytest.mark.parametrize("written", ["true", 1, "false"])
def test_a_foreign_stream_is_known_only_from_a_boolean(writing: TracerProvider, written: object) -> None:
    """An attribute of another type does not say that the answer was not streamed."""
    trace_foreign(writing, **{semconv.STREAM: written})
    assert "stream" not in entries()[1].metadata.custom_fields


def test_the_former_name_of_the_provider(writing: TracerProvider) -> None:
    """Instrumentations that still write ``gen_ai.system`` have a provider too."""
    writing.get_tracer("older").start_span(
        "chat", attributes={semconv.OPERATION: "chat", "gen_ai.system": "cohere"}
    ).end()
    assert [event.provider for event in entries()] == ["cohere"]


@pytest.mark.parametrize("place", ["foreign.decode", "eventslog.overlap.Overlap.note"])
def test_a_defect_of_ours_and_a_foreign_span(
    writing: TracerProvider, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, place: str
) -> None:
    """What our code raises about a span of the application, at its start or end, is logged and not raised."""

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(f"openai_lifecycle.{place}", broken)
    monkeypatch.setattr(SHIELD, "reraise", False)
    monkeypatch.setattr(SHIELD, "_reported", set())
    trace_foreign(writing)
    (message,) = caplog.messages
    assert "RuntimeError at test_exporter.py" in message


def test_spans_that_are_no_generations(writing: TracerProvider) -> None:
    """Agents, tools and everything outside of GenAI have no entries."""
    for operation in ("invoke_agent", "execute_tool", "create_agent", "retrieval", ["chat"]):
        trace_foreign(writing, **{semconv.OPERATION: operation})
    writing.get_tracer("http").start_span("GET").end()
    assert entries() == []


def test_events_of_others_that_are_named_as_ours(provider: TracerProvider) -> None:
    """What an application calls ``LLM_GENERATION_SUCCESS`` is no entry: it follows no option and hides no key."""
    provider.add_span_processor(EventsLogProcessor(EventsLogExporter(capture="no_content")))
    span = provider.get_tracer("application").start_span("chat", attributes={semconv.OPERATION: "chat"})
    span.add_event(semconv.GENERATION_SUCCESS, {semconv.MESSAGE_CONTENT: "user: sk-abcdefgh12345678"})
    span.end()
    (event,) = entries()
    assert isinstance(event, LLMGenerationSuccess)
    assert event.message_content == ""


@pytest.mark.parametrize("capture", ["no_content", "span_only"])
def test_a_foreign_span_s_content_follows_the_option(provider: TracerProvider, capture: str) -> None:
    """Where our events carry no content, entries of other instrumentations carry none either."""
    provider.add_span_processor(EventsLogProcessor(EventsLogExporter(capture=capture)))
    trace_foreign(provider)
    tool, generation = entries()
    assert (getattr(tool, "arguments"), getattr(generation, "message_content")) == ("", "")  # noqa: B009
    for said in ("kind", "Paris", "Use key"):
        assert said not in LOG.read_text()


def test_a_foreign_prompt_is_cut(provider: TracerProvider) -> None:
    """The limits of ``message_content`` and ``error`` hold for every entry."""
    provider.add_span_processor(EventsLogProcessor(EventsLogExporter(content_limit=10)))
    trace_foreign(provider)
    assert getattr(entries()[1], "message_content").startswith("system: Be… [+")  # noqa: B009
    fail_foreign(provider, "x" * 9000)
    assert getattr(entries()[2], "error") == f"{'x' * 8192}… [+808 chars]"  # noqa: B009


def test_what_is_cut_of_a_foreign_error_is_not_searched(
    writing: TracerProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a long error only the start is searched for credentials, and none across the cut is shown."""
    searched: list[int] = []
    find = redaction._SECRET

    class Counting:
        def sub(self, replacement: Any, text: str) -> str:
            searched.append(len(text))
            return find.sub(replacement, text)

    monkeypatch.setattr(redaction, "_SECRET", Counting())
    fail_foreign(writing, "x " * 4090 + "sk-0123456789abcdefghij " * 100_000)
    (event,) = entries()
    assert isinstance(event, LLMGenerationError)
    assert event.error.startswith("x " * 3000)
    assert "sk-" not in event.error
    assert max(searched) < 10_000


# ------------------------------------------------------------------ one call, two spans
@pytest.mark.parametrize("kind", [EventsLogProcessor, SimpleSpanProcessor])
def test_a_call_that_others_trace_too_is_written_once(provider: TracerProvider, kind: type[Any]) -> None:
    """Of a foreign span around ours, and a framework's around that, only ours is written; others are all written."""
    provider.add_span_processor(kind(EventsLogExporter()))
    attributes: dict[str, Any] = {semconv.OPERATION: "chat", semconv.REQUEST_MODEL: "m"}
    with provider.get_tracer("framework").start_as_current_span("chat", attributes=attributes):
        with provider.get_tracer("openai").start_as_current_span("chat m", attributes=attributes):
            generate(provider)
        trace_foreign(provider)
    generate(provider)
    with provider.get_tracer("framework").start_as_current_span("chat claude", attributes=FOREIGN):
        trace_foreign(provider)
    models = [event.model_id for event in entries() if event.tag == "GENERATION_SUCCESS"]
    assert models == ["m", "claude", "m", "claude", "claude"]


def fail(span: Span, error: str = "x") -> None:
    """Let ``span``, one of ours, say that its call has failed."""
    failure = codec.generation_error(messages_count=1, message_content="", temperature=None, error=error)
    span.add_event(semconv.GENERATION_ERROR, failure)


def answer(provider: TracerProvider, response: str, error: str = "x") -> int:
    """End a span of ours with a tool call, without a model, that has a response id; return when it started."""
    span: Any = provider.get_tracer(semconv.SCOPE).start_span(
        "chat", attributes={semconv.OPERATION: "chat", semconv.RESPONSE_ID: response}
    )
    span.add_event(
        semconv.TOOL_CALL_DETECTED, codec.tool_call(call_id="c", name="f", kind="function", arguments="{}")
    )
    fail(span, error)
    span.end()
    return int(span.start_time)


def test_a_call_that_others_report_afterwards_is_written_once(writing: TracerProvider) -> None:
    """A foreign span of another trace that tells of the same response has no entry.

    One of another response has one, and one with the same id at another time.
    """
    at = answer(writing, "chatcmpl-1")
    for model, response, start, end in (
        ("the same", "chatcmpl-1", at, None),
        ("another", "chatcmpl-2", at, None),
        ("earlier", "chatcmpl-1", at - 2, at - 1),
        ("later", "chatcmpl-1", None, None),
    ):
        attributes = {**FOREIGN, semconv.RESPONSE_ID: response, semconv.REQUEST_MODEL: model}
        writing.get_tracer("callback").start_span("chat", start_time=start, attributes=attributes).end(end)
    models = [event.model_id for event in entries() if event.tag.startswith("GENERATION")]
    assert models == ["", "another", "earlier", "later"]


def test_the_oldest_calls_are_forgotten(provider: TracerProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is remembered of calls is bounded: only a report of one that is too long ago has an entry."""
    monkeypatch.setattr("openai_lifecycle.eventslog.overlap._REMEMBERED", 2)
    monkeypatch.setattr("openai_lifecycle.eventslog.exporter._OVERLAP", Overlap())
    provider.add_span_processor(EventsLogProcessor(EventsLogExporter()))
    at = [answer(provider, f"chatcmpl-{number}") for number in range(3)]
    for number, start in enumerate(at):
        attributes = {**FOREIGN, semconv.RESPONSE_ID: f"chatcmpl-{number}"}
        provider.get_tracer("callback").start_span("chat", start_time=start, attributes=attributes).end()
    reported = [event for event in entries() if isinstance(event, LLMGenerationSuccess)]
    assert [event.metadata.custom_fields["response_id"] for event in reported] == ["chatcmpl-0"]


def test_a_foreign_span_within_ours(writing: TracerProvider) -> None:
    """A foreign span of our call that is made within ours has no entry; one of another model has its own."""
    ours = {semconv.OPERATION: "chat", semconv.REQUEST_MODEL: "m"}
    with writing.get_tracer(semconv.SCOPE).start_as_current_span("chat m", attributes=ours) as span:
        writing.get_tracer("logfire").start_span("chat m", attributes=ours).end()
        trace_foreign(writing)
        fail(span)
    assert [event.model_id for event in entries() if event.tag.startswith("GENERATION")] == ["claude", "m"]


def test_a_foreign_span_that_ends_first(writing: TracerProvider) -> None:
    """A foreign span of a stream that ends before ours does has no entry either."""
    outer = writing.get_tracer("openai").start_span(
        "chat m", attributes={semconv.OPERATION: "chat", semconv.REQUEST_MODEL: "m"}
    )
    context = set_span_in_context(outer)
    inner = writing.get_tracer(semconv.SCOPE).start_span(
        "chat m", context, attributes={semconv.OPERATION: "chat", semconv.REQUEST_MODEL: "m"}
    )
    outer.end()
    fail(inner)
    inner.end()
    assert [event.tag for event in entries()] == ["GENERATION_ERROR"]


def test_another_model_within_is_another_call(writing: TracerProvider) -> None:
    """A foreign call keeps its entry when what we record within it is another model's call, or a client."""
    with writing.get_tracer("anthropic").start_as_current_span("chat claude", attributes=FOREIGN):
        generate(writing)
        model = {semconv.REQUEST_MODEL: FOREIGN[semconv.REQUEST_MODEL]}
        writing.get_tracer(semconv.SCOPE).start_span("initialize openai", attributes=model).end()
    models = [event.model_id for event in entries() if event.tag == "GENERATION_SUCCESS"]
    assert models == ["m", "claude"]


def test_a_foreign_span_of_a_failed_call_that_names_no_model(writing: TracerProvider) -> None:
    """A foreign span around our failed call has no entry when it names no model, as where the response would tell it.

    So does Traceloop's instrumentation of the Agents SDK.
    """
    with writing.get_tracer("agents").start_as_current_span(
        "openai.response", attributes={semconv.OPERATION: "chat"}
    ) as outer:
        inner = writing.get_tracer(semconv.SCOPE).start_span(
            "chat m", attributes={semconv.OPERATION: "chat", semconv.REQUEST_MODEL: "m"}
        )
        fail(inner)
        inner.end()
        outer.set_status(StatusCode.ERROR, "x")
    assert [(event.tag, event.model_id) for event in entries()] == [("GENERATION_ERROR", "m")]


def test_what_others_do_not_redact_is_redacted(provider: TracerProvider) -> None:
    """A key that another instrumentation has put into any attribute that an entry shows is not in the log."""
    key = "sk-abcd1234efgh5678"
    call = {"type": "tool_call", "id": key, "name": key, "arguments": {}}
    attributes = {
        semconv.OPERATION: "chat",
        semconv.REQUEST_MODEL: key,
        semconv.RESPONSE_MODEL: key,
        semconv.PROVIDER: key,
        semconv.RESPONSE_ID: key,
        semconv.USER_ID: key,
        semconv.STOP_SEQUENCES: [key],
        semconv.FINISH_REASONS: [key],
        semconv.OUTPUT_MESSAGES: json.dumps([{"role": "assistant", "parts": [call]}]),
    }
    provider.add_span_processor(EventsLogProcessor(EventsLogExporter()))
    provider.get_tracer("another").start_span("chat", attributes=attributes).end()
    assert [event.tag for event in entries()] == ["TOOL_CALL_DETECTED", "GENERATION_SUCCESS"]
    assert LOG.read_text(encoding="utf-8").count("[REDACTED]") >= 9
    assert key not in LOG.read_text(encoding="utf-8")
