"""Neighbours: other instrumentations of the client, and the frameworks that call it.

The tests marked ``compat`` run real packages, which need an environment of their own (``pyproject.toml``), against
the examples' offline server.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from types import SimpleNamespace
from typing import Any

import openai
import pytest
import wrapt
from opentelemetry import trace
from opentelemetry.instrumentation.instrumentor import BaseInstrumentor  # type: ignore[attr-defined]

from openai_lifecycle.capture.other_instrumentations import OTHERS
from openai_lifecycle.events import LLMGenerationSuccess
from tests import wire
from tests.capture.application import client_for, settle
from tests.observed import Observed, entries, generations
from tests.scripted_server import ScriptedServer, reply

KEY = "sk-test-0123456789abcdef"
MODEL = "gpt-4o-mini"
COMPAT = pytest.mark.compat
WHOLE = reply(json.dumps(wire.completion()).encode())


def successes() -> list[LLMGenerationSuccess]:
    """Return the ``GENERATION_*`` entries, none of which may be an error."""
    found = [e for e in generations() if isinstance(e, LLMGenerationSuccess)]
    assert found == generations()
    return found


@pytest.mark.parametrize("module", OTHERS)
@pytest.mark.parametrize("state", ["on", "off", "not made"])
def test_another_instrumentation_of_the_client_is_named(
    server: ScriptedServer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    module: str,
    state: str,
) -> None:
    """Where another instrumentation of the client is on, one warning names it and the variable that turns off either.

    Otherwise there is none, and nothing of the others is imported to find out.
    """

    class OpenAIInstrumentor(BaseInstrumentor):  # type: ignore[misc]
        def instrumentation_dependencies(self) -> tuple[str, ...]:
            return ()

        def _instrument(self, **_: Any) -> None: ...

        def _uninstrument(self, **_: Any) -> None: ...

    server.script(WHOLE)
    with Observed(), client_for(server, is_async=False) as client:
        if state != "not made":
            OpenAIInstrumentor().instrument()  # after ours: the order does not matter
        if state == "off":
            OpenAIInstrumentor().uninstrument()
        assert not set(OTHERS) & set(sys.modules)
        other: Any = SimpleNamespace(OpenAIInstrumentor=OpenAIInstrumentor)
        monkeypatch.setitem(sys.modules, module, other)
        for _ in range(2):
            client.chat.completions.create(**wire.REQUEST)
        assert set(OTHERS) & set(sys.modules) == {module}
    assert len(caplog.messages) == (state == "on")
    for warning in caplog.messages:
        assert warning.startswith(f"{OTHERS[module]} instruments the OpenAI client too")
        assert "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS=openai turns" in warning
        assert "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS=openai_lifecycle" in warning


def _passing(wrapped: Any, _: Any, args: Any, kwargs: Any) -> Any:
    return wrapped(*args, **kwargs)


@pytest.mark.parametrize("order", ["before", "after", "before and gone"])
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_request_of_a_client_class(server: ScriptedServer, order: str, *, is_async: bool) -> None:
    """A ``request`` that another put into a client class, before or after, neither hides nor doubles a call."""
    kind: Any = openai.AsyncOpenAI if is_async else openai.OpenAI
    base_request = kind.request
    server.script(WHOLE)

    async def call() -> None:
        client = client_for(server, is_async=is_async)
        await settle(client.chat.completions.create(**wire.REQUEST))
        await settle(client.close())

    observed = Observed()
    try:
        if order != "after":
            wrapt.wrap_function_wrapper("openai", f"{kind.__name__}.request", _passing)
        if order == "before and gone":
            kind.request = base_request
        with observed:
            if order == "after":
                wrapt.wrap_function_wrapper("openai", f"{kind.__name__}.request", _passing)
            for count in (1, 2):
                asyncio.run(call())
                assert len(observed.spans()) == count
                assert len(successes()) == count
                observed.instrument()
    finally:
        if "request" in vars(kind):
            del kind.request


# ------------------------------------------------------------------ real packages
def tools() -> list[tuple[str, str]]:
    return [
        (e.tool_name, e.metadata.custom_fields["tool_type"]) for e in entries() if hasattr(e, "tool_name")
    ]


@COMPAT
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("responses", [False, True], ids=["chat", "responses"])
def test_langchain(base_url: str, observed: Observed, responses: bool, *, is_async: bool) -> None:
    """LangChain's model, called, streamed and with tools, leaves one entry a call, inside its caller's span."""
    model_class = pytest.importorskip("langchain_openai").ChatOpenAI

    model = model_class(
        model=MODEL, base_url=base_url, api_key=KEY, stream_usage=True, use_responses_api=responses
    )

    def get_weather(location: str) -> str:
        """Return the weather in a place."""
        return location

    async def work() -> list[Any]:
        bound = model.bind_tools([get_weather])
        if is_async:
            chunks = [c.text async for c in model.astream("Stream it")]
            return [
                await model.ainvoke("Say it"),
                "".join(map(str, chunks)),
                await bound.ainvoke("get_weather in Paris"),
            ]
        streamed = "".join(str(c.text) for c in model.stream("Stream it"))
        return [model.invoke("Say it"), streamed, bound.invoke("get_weather in Paris")]

    tracer = observed.provider.get_tracer("application")
    with tracer.start_as_current_span("chain") as chain:
        said, streamed, called = asyncio.run(work())
    first, second, third = sorted(successes(), key=lambda e: "Say" not in e.message_content)
    by_content = {e.message_content: e for e in (first, second, third)}
    assert set(by_content) == {"user: Say it", "user: Stream it", "user: get_weather in Paris"}
    assert by_content["user: Say it"].response_length == len(str(said.text))
    assert by_content["user: Stream it"].response_length == len(streamed)
    assert by_content["user: Stream it"].metadata.custom_fields["stream"] == "true"
    assert [call["name"] for call in called.tool_calls] == ["get_weather"]
    assert tools() == [("get_weather", "function")]
    assert all(int(e.metadata.custom_fields["input_tokens"]) > 0 for e in (first, second, third))
    assert all(s.parent and s.parent.span_id == chain.get_span_context().span_id for s in observed.spans())


@COMPAT
@pytest.mark.filterwarnings("default")
def test_langchain_embeddings(base_url: str, observed: Observed) -> None:
    """LangChain's embeddings leave one entry a request."""
    model_class = pytest.importorskip("langchain_openai").OpenAIEmbeddings

    model = model_class(
        model="text-embedding-3-small", base_url=base_url, api_key=KEY, check_embedding_ctx_length=False
    )
    assert len(model.embed_documents(["one", "two"])) == 2
    (entry,) = successes()
    assert (entry.operation, entry.messages_count, entry.choices_count) == ("llm_embedding", 2, 2)
    assert entry.message_content == "one | two"
    assert observed.spans("embeddings")


@COMPAT
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("api", ["chat_completions", "responses"])
@pytest.mark.parametrize("streamed", [False, True], ids=["run", "streamed"])
def test_openai_agents(base_url: str, observed: Observed, api: str, streamed: bool) -> None:
    """An agent that uses a tool leaves an entry for each turn and one for the tool call."""
    agents: Any = pytest.importorskip("agents")

    agents.set_tracing_disabled(disabled=True)

    @agents.function_tool  # type: ignore[untyped-decorator]
    def get_weather(location: str) -> str:
        """Return the weather in a place."""
        return f"Sunny in {location}"

    async def work() -> Any:
        async with openai.AsyncOpenAI(api_key=KEY, base_url=base_url) as client:
            kind = agents.OpenAIResponsesModel if api == "responses" else agents.OpenAIChatCompletionsModel
            agent = agents.Agent(
                name="Weather",
                instructions="Be brief",
                tools=[get_weather],
                model=kind(MODEL, openai_client=client),
            )
            if not streamed:
                return (await agents.Runner.run(agent, "get_weather in Paris")).final_output
            result = agents.Runner.run_streamed(agent, "get_weather in Paris")
            async for _ in result.stream_events():
                pass
            return result.final_output

    said = asyncio.run(work())
    assert "Sunny" in said
    first, last = successes()
    assert tools() == [("get_weather", "function")]
    assert first.metadata.custom_fields["finish_reasons"] == "tool_calls"
    assert last.response_length == len(said)
    assert "[tool_result" in last.message_content
    assert {e.metadata.custom_fields["stream"] for e in (first, last)} == {str(streamed).lower()}
    assert len(observed.spans()) == 2


@COMPAT
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_instructor(base_url: str, observed: Observed, *, is_async: bool) -> None:
    """A structured answer that instructor asks for is one generation with the tool call that it is made of."""
    instructor: Any = pytest.importorskip("instructor")
    import pydantic

    class Person(pydantic.BaseModel):
        name: str
        age: int

    question: dict[str, Any] = {
        "model": MODEL,
        "response_model": Person,
        "messages": [{"role": "user", "content": "Ada is 36"}],
        "max_retries": 1,
    }

    async def work() -> Any:
        if is_async:
            async with openai.AsyncOpenAI(api_key=KEY, base_url=base_url) as client:
                return await instructor.from_openai(client).chat.completions.create(**question)
        with openai.OpenAI(api_key=KEY, base_url=base_url) as client:
            return instructor.from_openai(client).chat.completions.create(**question)

    assert isinstance(asyncio.run(work()), Person)
    (entry,) = successes()
    assert tools() == [("Person", "function")]
    assert entry.message_content.endswith("user: Ada is 36")
    assert len(observed.spans()) == 1


@COMPAT
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
def test_litellm(base_url: str, observed: Observed, stream: bool, *, is_async: bool) -> None:
    """A completion through LiteLLM is one generation with its tokens and text."""
    litellm: Any = pytest.importorskip("litellm")

    request: dict[str, Any] = {
        "model": f"openai/{MODEL}",
        "messages": [{"role": "user", "content": "Say it"}],
        "api_base": base_url,
        "api_key": KEY,
        "stream": stream,
        "stream_options": {"include_usage": True} if stream else None,
    }

    async def work() -> str:
        if not is_async:
            answer = litellm.completion(**request)
            return _text(answer) if not stream else "".join(map(_delta, answer))
        answer = await litellm.acompletion(**request)
        return _text(answer) if not stream else "".join([_delta(part) async for part in answer])

    said = asyncio.run(work())
    (entry,) = successes()
    assert entry.message_content == "user: Say it"
    assert entry.response_length == len(said) > 0
    assert int(entry.metadata.custom_fields["output_tokens"]) > 0
    assert len(observed.spans()) == 1


def _text(answer: Any) -> str:
    return str(answer.choices[0].message.content)


def _delta(part: Any) -> str:
    return str(part.choices[0].delta.content or "") if part.choices else ""


@COMPAT
@pytest.mark.filterwarnings("default")
def test_http_instrumentation(base_url: str, observed: Observed) -> None:
    """The span that an instrumentation of the HTTP client makes of a request is a child of the call's."""
    httpx: Any = pytest.importorskip("httpx")
    instrumentor = pytest.importorskip("opentelemetry.instrumentation.httpx").HTTPXClientInstrumentor

    instrumentor().instrument(tracer_provider=observed.provider)
    try:
        client: Any = openai.OpenAI(api_key=KEY, base_url=base_url, http_client=httpx.Client())
        client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "Say it"}])
        client.close()
    finally:
        instrumentor().uninstrument()
    (http,) = [s for s in observed.spans(None) if s.name == "POST"]
    assert http.parent is not None
    assert http.parent.span_id == observed.span().context.span_id
    assert trace.get_current_span() is trace.INVALID_SPAN


# Last, because not each of them takes all of its patches back.
@COMPAT
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("module", OTHERS)
def test_beside_another_instrumentation(base_url: str, module: str, caplog: pytest.LogCaptureFixture) -> None:
    """Beside each of the others the application gets its answer, there is one warning and one entry a call."""
    other = pytest.importorskip(module, exc_type=ImportError).OpenAIInstrumentor()
    with Observed() as observed, openai.OpenAI(api_key=KEY, base_url=base_url) as client:
        other.instrument(tracer_provider=observed.provider, skip_dep_check=True)
        try:
            plain = client.chat.completions.create(
                model=MODEL, messages=[{"role": "user", "content": "Say it"}]
            )
            stream = client.chat.completions.create(
                model=MODEL, messages=[{"role": "user", "content": "Say it"}], stream=True
            )
            said = "".join(c.choices[0].delta.content or "" for c in stream if c.choices)
        finally:
            other.uninstrument()
        ours = [
            s
            for s in observed.spans()
            if s.instrumentation_scope and s.instrumentation_scope.name == "openai_lifecycle"
        ]
        theirs = [s for s in observed.spans(None) if s not in ours and not s.name.startswith("initialize")]
    assert said == plain.choices[0].message.content
    assert len(ours) == 2
    assert theirs
    assert [entry.response_length for entry in successes()] == [len(said)] * 2
    warnings = [
        r.getMessage()
        for r in caplog.records
        if r.name.startswith("openai_lifecycle") and r.levelno == logging.WARNING
    ]
    assert [w.partition(" ")[0] for w in warnings] == [OTHERS[module]]
