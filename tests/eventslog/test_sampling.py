"""Sampling decides what goes to the backend, never what is in the file."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from typing import Any

import openai
import pytest
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import Decision, ParentBased, Sampler, SamplingResult
from opentelemetry.trace import Link, SpanKind, TraceState
from opentelemetry.util.types import Attributes

import openai_lifecycle
from openai_lifecycle.eventslog.reader import read_events
from openai_lifecycle.shield import SHIELD
from tests import wire
from tests.capture.application import client_for
from tests.scripted_server import ScriptedServer, event_stream, reply

CALLS = 12


class Picky(Sampler):
    """An application's own sampler: it drops every GenAI span, and says so in the trace state."""

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        is_call = "gen_ai.operation.name" in (attributes or {})
        return SamplingResult(Decision.DROP if is_call else Decision.RECORD_AND_SAMPLE, attributes)

    def get_description(self) -> str:
        return "Picky"


class Quacking:
    """An application's own sampler without the SDK's base class, which the SDK does not ask for."""

    should_sample = Picky.should_sample
    get_description = Picky.get_description


class Failing(Picky):
    """An application's own sampler: it raises for every GenAI span."""

    def should_sample(self, *args: Any, **kwargs: Any) -> SamplingResult:
        result = super().should_sample(*args, **kwargs)
        if result.decision is Decision.DROP:
            raise RuntimeError
        return result


class Backend:
    """What would leave for a backend: spans that the SDK's own processor exports."""

    def __init__(self, **options: Any) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False, **options)
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))

    def calls(self) -> list[str]:
        """Return the trace ids of the calls that were exported."""
        return [
            trace.format_trace_id(span.context.trace_id)
            for span in self._exporter.get_finished_spans()
            if span.context and "gen_ai.operation.name" in (span.attributes or {})
        ]


@pytest.fixture
def _answering(server: ScriptedServer) -> None:
    server.script(reply(json.dumps(wire.completion()).encode()))


def call(server: ScriptedServer, count: int = CALLS) -> list[str]:
    """Make calls; returns the trace ids of their entries, each of which must be there with its tool calls."""
    with client_for(server, is_async=False) as client:
        for _ in range(count):
            client.chat.completions.create(**wire.REQUEST)
    events = [event for event in read_events("events.log") if not event.tag.startswith("INIT")]
    assert [event.tag for event in events] == [*["TOOL_CALL_DETECTED"] * 2, "GENERATION_SUCCESS"] * count
    assert all(getattr(event, "message_content", "user: Hi there") == "user: Hi there" for event in events)
    return [event.trace_id for event in events if event.tag == "GENERATION_SUCCESS"]


#: ``OTEL_TRACES_SAMPLER`` → whether every, no or some call without a parent reaches the backend.
SAMPLERS = {
    "always_on": "all",
    "always_off": "none",
    "traceidratio": "some",
    "parentbased_always_on": "all",
    "parentbased_always_off": "none",
    "parentbased_traceidratio": "some",
}


@pytest.mark.usefixtures("_answering")
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_file_is_complete_with_every_sampler(
    sampler: str, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With each of the SDK's samplers every call is in the file, and the backend gets what it chose."""
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", sampler)
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0.5")
    backend = Backend()
    openai_lifecycle.instrument(tracer_provider=backend.provider)
    traces = call(server, 40)
    assert len(set(traces)) == 40
    exported = backend.calls()
    assert set(exported) <= set(traces)
    expected = {"all": len(exported) == 40, "none": exported == [], "some": 0 < len(exported) < 40}
    assert expected[SAMPLERS[sampler]]
    backend.provider.shutdown()


@pytest.mark.usefixtures("_answering")
@pytest.mark.parametrize("sampled", [True, False])
def test_a_remote_parent_decides_for_the_backend_only(sampled: bool, server: ScriptedServer) -> None:
    """Under a caller that did not sample the trace the calls are in the file with that trace's id."""
    backend = Backend()
    openai_lifecycle.instrument(tracer_provider=backend.provider)
    parent = trace.SpanContext(
        0x0AF7651916CD43DD8448EB211C80319C,
        0xB7AD6B7169203331,
        is_remote=True,
        trace_flags=trace.TraceFlags(int(sampled)),
    )
    with trace.use_span(trace.NonRecordingSpan(parent)):
        traces = call(server)
    assert traces == ["0af7651916cd43dd8448eb211c80319c"] * CALLS
    assert backend.calls() == traces * sampled
    backend.provider.shutdown()


@pytest.mark.usefixtures("_answering")
@pytest.mark.parametrize("sampler", [Picky, Quacking])
def test_an_application_s_own_sampler(server: ScriptedServer, sampler: type[Any]) -> None:
    """A sampler that drops exactly our spans keeps them from the backend and not from the file."""
    backend = Backend(sampler=sampler())
    openai_lifecycle.instrument(tracer_provider=backend.provider)
    call(server)
    assert backend.calls() == []
    backend.provider.shutdown()


@pytest.mark.usefixtures("_answering")
def test_a_sampler_that_raises(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A call is in the file alone if the sampler that OTEL_TRACES_SAMPLER names raises for it, and one line says so."""
    backend = Backend(sampler=Failing())
    monkeypatch.setattr("openai_lifecycle.sdk.tracer_provider", lambda: backend.provider)
    monkeypatch.setattr(SHIELD, "reraise", False)
    monkeypatch.setattr(SHIELD, "_reported", set())
    openai_lifecycle.instrument()
    call(server)
    assert backend.calls() == []
    (message,) = caplog.messages
    assert "RuntimeError at test_sampling.py" in message
    backend.provider.shutdown()


@pytest.mark.usefixtures("_answering")
@pytest.mark.parametrize("decision", [*Decision, None])
def test_all_that_a_sampler_says(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, decision: Decision | None
) -> None:
    """A sampler is asked as the SDK asks it; its attributes and trace state count; where it raises, the parent's state does."""
    asked: list[Any] = []

    class Labels(Picky):
        def should_sample(self, parent_context: Context | None, trace_id: int, *rest: Any) -> SamplingResult:
            asked.append((trace.get_current_span(parent_context), rest[1], rest[3:]))
            if decision is None:
                raise RuntimeError
            return SamplingResult(decision, {"rule": "r"}, TraceState([("rule", "r")]))

    monkeypatch.setattr(SHIELD, "reraise", False)
    backend, ended, noting = Backend(sampler=Labels()), list[Any](), SpanProcessor()
    monkeypatch.setattr(noting, "on_end", ended.append)
    backend.provider.add_span_processor(noting)
    openai_lifecycle.instrument(tracer_provider=backend.provider)
    state = TraceState([("parent", "p")])
    parent = trace.NonRecordingSpan(trace.SpanContext(1, 1, is_remote=True, trace_state=state))
    with trace.use_span(parent), client_for(server, is_async=False) as client:
        client.chat.completions.create(**wire.REQUEST)
        with contextlib.suppress(RuntimeError):
            backend.provider.get_tracer("application").start_span("bare", kind=SpanKind.CLIENT)
    call, bare = asked[-2:]
    assert call == bare
    span = next(span for span in ended if span.name.startswith("chat"))
    assert span.attributes["gen_ai.request.model"] == wire.MODEL
    assert span.attributes.get("rule") == (None if decision is None else "r")
    assert dict(span.context.trace_state) == ({"parent": "p"} if decision is None else {"rule": "r"})
    backend.provider.shutdown()


@pytest.mark.usefixtures("_answering")
def test_the_application_s_own_spans_are_sampled_as_before(server: ScriptedServer) -> None:
    """Nothing but our spans is recorded against the sampler's word, and below ours nothing is sampled."""
    backend = Backend(sampler=ParentBased(Picky(), local_parent_sampled=Picky()))
    openai_lifecycle.instrument(tracer_provider=backend.provider)
    tracer = backend.provider.get_tracer("application")
    dropped = tracer.start_span("chat", attributes={"gen_ai.operation.name": "chat"})
    assert not dropped.is_recording()
    below: list[bool] = []

    class Traces(openai.OpenAI):
        def _prepare_request(self, request: Any) -> None:
            below.append(tracer.start_span("GET").is_recording())

    with (
        tracer.start_as_current_span("work") as work,
        Traces(base_url=server.base_url, api_key="sk-test-0123456789") as client,
    ):
        client.chat.completions.create(**wire.REQUEST)
        assert work.get_span_context().trace_flags.sampled
    assert below == [False]
    assert [event.tag for event in read_events("events.log")].count("GENERATION_SUCCESS") == 1
    assert backend.calls() == []
    backend.provider.shutdown()


@pytest.mark.usefixtures("_answering")
def test_samplers_decide_again_when_it_is_off(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each provider that was joined, one of them twice, gives its processors no span that its sampler drops afterwards."""
    backends = [Backend(sampler=Picky()) for _ in range(2)]
    openai_lifecycle.instrument()
    for count, backend in enumerate((*backends, backends[0]), start=1):
        monkeypatch.setattr(trace, "_TRACER_PROVIDER", backend.provider)
        with client_for(server, is_async=False) as client:
            client.chat.completions.create(**wire.REQUEST)
        generations = [event for event in read_events("events.log") if event.tag == "GENERATION_SUCCESS"]
        assert len(generations) == count
    for backend in backends:
        seen: list[str] = []
        noting = SpanProcessor()
        monkeypatch.setattr(noting, "on_end", lambda span, seen=seen: seen.append(span.name))
        backend.provider.add_span_processor(noting)
        openai_lifecycle.uninstrument()
        openai_lifecycle.instrument(tracer_provider=backend.provider, events_log="none")
        with client_for(server, is_async=False) as client:
            client.chat.completions.create(**wire.REQUEST)
        assert seen == ["initialize openai"]
        backend.provider.shutdown()


def test_a_tracer_that_does_not_sample(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tracer that is not the SDK's is left as it is."""
    backend, tracer = Backend(), trace.NoOpTracer()
    monkeypatch.setattr(backend.provider, "get_tracer", lambda *_: tracer)
    openai_lifecycle.instrument(tracer_provider=backend.provider)
    client_for(server, is_async=False).close()
    assert vars(tracer) == {}
    backend.provider.shutdown()


def test_an_unsampled_stream_is_complete(server: ScriptedServer) -> None:
    """A streamed call that the sampler drops is in the file with all that was received."""
    server.script(event_stream(*wire.chunks()))
    backend = Backend(sampler=Picky())
    openai_lifecycle.instrument(tracer_provider=backend.provider)
    with client_for(server, is_async=False) as client:
        for _ in client.chat.completions.create(**wire.REQUEST, stream=True):
            pass
    generation = [event for event in read_events("events.log") if event.tag == "GENERATION_SUCCESS"]
    assert [getattr(event, "response_length") for event in generation] == [len("Hello, world")]  # noqa: B009
    assert backend.calls() == []
    backend.provider.shutdown()
