"""Applications that do with the client what they may and few do: nothing breaks, nothing is lost."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import copy
import dataclasses
import enum
import functools
import gc
import importlib
import inspect
import json
import logging
import pickle
import pkgutil
import signal
import sys
import threading
import tracemalloc
import weakref
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import openai._base_client
import pydantic
import pytest
import wrapt
from openai._base_client import make_request_options
from openai._compat import model_dump
from openai._models import FinalRequestOptions
from openai.types.chat import ChatCompletion
from opentelemetry import context, trace
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.instrumentation.utils import suppress_instrumentation
from opentelemetry.sdk.trace import SpanLimits, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Decision, Sampler, SamplingResult

import openai_lifecycle
from openai_lifecycle.capture import call, contexts, facts, patches
from openai_lifecycle.capture.operations import chat, responses
from openai_lifecycle.capture.patches import Patches
from openai_lifecycle.events import LifecycleEvent, LLMGenerationError, LLMGenerationSuccess
from openai_lifecycle.pipeline import Pipeline
from openai_lifecycle.shield import SHIELD
from openai_lifecycle.switch import SWITCH
from tests import wire, wire_responses
from tests.capture.application import client_for, closing, http, run, settle
from tests.limits import HANGS, until
from tests.observed import Observed, entries, generations
from tests.raising_handler import Raises
from tests.scripted_server import ScriptedServer, event_stream, reply

WHOLE = reply(json.dumps(wire.completion()).encode())
STREAM = event_stream(*wire.chunks())
SYNC = openai._base_client.SyncAPIClient
ASYNC = openai._base_client.AsyncAPIClient


def recorded_whole(observed: Observed) -> bool:
    """Return whether the one call has its answer and its tool calls on record."""
    generation = observed.generation()
    assert isinstance(generation, LLMGenerationSuccess)
    return generation.response_length == len("Hello, world") and len(observed.tool_calls()) == 2


def broken(*_: object, **__: object) -> None:
    """Raise, in the place of something of the application's."""
    raise RuntimeError


# ------------------------------------------------------------------ what is looked at
def test_patched_methods_are_functions(observed: Observed) -> None:
    """A patched method is inspected, copied, pickled and weakly referenced as the function it stands for."""
    client = openai.OpenAI(api_key="sk-test-0123456789")
    for function in (SYNC.request, ASYNC.request, openai.OpenAI.__init__, openai.OpenAI.copy):
        assert inspect.isfunction(function)
        assert copy.copy(function) is copy.deepcopy(function) is function
        assert pickle.loads(pickle.dumps(function)) is function
        assert inspect.signature(function) == inspect.signature(inspect.unwrap(function))
        assert inspect.getfullargspec(function) == inspect.getfullargspec(inspect.unwrap(function))
    assert inspect.iscoroutinefunction(ASYNC.request)
    assert not inspect.iscoroutinefunction(SYNC.request)
    assert weakref.WeakMethod(client.request)() == client.request
    unawaited = openai.AsyncOpenAI(api_key="sk-test-0123456789").request(object, None)  # type: ignore[call-overload]
    assert unawaited.__qualname__ == "AsyncAPIClient.request"
    unawaited.close()


def test_objects_that_answer_to_any_name(server: ScriptedServer, observed: Observed) -> None:
    """A dict whose attributes are made when they are asked for is sent as it is, and read."""

    class Answers(defaultdict[str, Any]):
        def __getattr__(self, name: str) -> Any:
            return self[name]

    server.script(WHOLE)
    body = {**wire.REQUEST, "messages": [Answers(dict, role="user", content="hi")]}
    with client_for(server, is_async=False) as client:
        client.post("/chat/completions", body=body, cast_to=object)
    assert server.bodies()[-1]["messages"] == [{"role": "user", "content": "hi"}]
    assert observed.generation().message_content == "user: hi"


def test_a_request_by_keywords(server: ScriptedServer, observed: Observed) -> None:
    """``request`` is also seen, and changed, when it is called by the names of its parameters."""
    observed.instrument(propagate=True)
    server.script(WHOLE)
    options = FinalRequestOptions.construct(method="post", url="/chat/completions", json_data=wire.REQUEST)
    with client_for(server, is_async=False) as client:
        assert type(client.request(cast_to=ChatCompletion, options=options)) is ChatCompletion
    assert b"traceparent" in server.requests[0].lower()
    assert recorded_whole(observed)


def test_a_result_that_cannot_be_looked_at(
    server: ScriptedServer, observed: Observed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the application's own parser returns is never asked so that the call fails."""

    class Opaque:
        @property
        def __dict__(self) -> Any:  # type: ignore[override]
            raise RuntimeError("not yet")

    monkeypatch.setattr(SHIELD, "reraise", False)
    server.script(WHOLE)
    with client_for(server, is_async=False) as client:
        options = make_request_options(post_parser=lambda _: Opaque())
        result = client.post("/chat/completions", body=wire.REQUEST, cast_to=ChatCompletion, options=options)
    assert type(result) is Opaque
    assert recorded_whole(observed)


def test_a_propagator_that_raises(
    server: ScriptedServer, observed: Observed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call whose trace context cannot be passed on is sent without it, and has its one ending."""
    monkeypatch.setattr("opentelemetry.propagate.inject", broken)
    monkeypatch.setattr(SHIELD, "reraise", False)
    observed.instrument(propagate=True)
    server.script(WHOLE)
    with client_for(server, is_async=False) as client:
        client.chat.completions.create(**wire.REQUEST)
    assert isinstance(observed.generation(), LLMGenerationSuccess)
    assert not call._open


def test_a_processor_that_changes_a_span_at_its_start(server: ScriptedServer, observed: Observed) -> None:
    """What an application's processor makes of the attributes that a span starts with is not undone."""

    class Hides(SpanProcessor):
        def on_start(self, span: Any, parent_context: Any = None) -> None:
            span.set_attribute("server.address", "hidden")

    observed.provider.add_span_processor(Hides())
    server.script(WHOLE)
    with client_for(server, is_async=False) as client:
        client.chat.completions.create(**wire.REQUEST)
    assert observed.attributes()["server.address"] == "hidden"


@pytest.mark.parametrize("error", [RuntimeError("half-way"), KeyboardInterrupt("half-way")])
def test_a_failure_to_switch_on(
    error: BaseException, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """When instrumenting fails half-way the client is what it was, and the log says so; an interruption is raised."""
    touched = [(SYNC, "request"), (ASYNC, "_process_response"), (openai.OpenAI, "__init__")]
    before = [owner.__dict__[name] for owner, name in touched]
    table = Patches._wrap_all

    def fails(self: Patches, points: Any) -> None:
        table(self, points)
        raise error

    monkeypatch.setattr(Patches, "_wrap_all", fails)
    if isinstance(error, Exception):
        openai_lifecycle.instrument()
        assert caplog.messages == [
            "openai-lifecycle: OpenAI calls are not recorded: RuntimeError('half-way')"
        ]
    else:
        with pytest.raises(KeyboardInterrupt):
            openai_lifecycle.instrument()
    assert all(owner.__dict__[name] is method for (owner, name), method in zip(touched, before, strict=True))
    assert not openai_lifecycle.OpenAILifecycleInstrumentor().is_instrumented_by_opentelemetry


@pytest.mark.parametrize(
    ("owner", "missing"),
    [
        (ASYNC, "openai._base_client.AsyncAPIClient._process_response"),
        (openai._base_client.BaseClient, "openai._base_client.BaseClient._calculate_retry_timeout"),
        (openai.AsyncOpenAI, "openai._client.AsyncOpenAI.with_options"),
    ],
)
def test_a_client_without_a_function(
    server: ScriptedServer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    owner: type,
    missing: str,
) -> None:
    """A client that lacks what we wrap is one warning that names it; what it has is recorded."""
    monkeypatch.delattr(owner, missing.rpartition(".")[2])
    server.script(WHOLE)
    with Observed() as observed, client_for(server, is_async=False) as client:
        client.chat.completions.create(**wire.REQUEST)
        assert recorded_whole(observed)
    told = f"this version of openai has no {missing}; calls through it are not recorded"
    assert caplog.messages == [told]


# ------------------------------------------------------------------ subclasses
def test_a_subclass_that_copies_the_options(server: ScriptedServer, observed: Observed) -> None:
    """``_prepare_options`` may return a deep copy of the options: the call succeeds and is recorded whole."""

    class Copies(openai.OpenAI):
        def _prepare_options(self, options: Any) -> Any:
            return copy.deepcopy(options)

    server.script(WHOLE)
    with Copies(base_url=server.base_url, api_key="sk-test-0123456789") as client:
        client.chat.completions.create(**wire.REQUEST)
    assert recorded_whole(observed)


def test_a_subclass_that_looks_at_what_is_set(server: ScriptedServer, observed: Observed) -> None:
    """Our hook is not among the fields that are set in a request's options, which old clients log and some dump."""
    dumped: list[dict[str, Any]] = []

    class Looks(openai.OpenAI):
        def _prepare_options(self, options: Any) -> Any:
            dumped.append(model_dump(options, exclude_unset=True))
            return super()._prepare_options(options)

    server.script(WHOLE)
    with Looks(base_url=server.base_url, api_key="sk-test-0123456789") as client:
        client.chat.completions.create(**wire.REQUEST)
    assert dumped[0]["json_data"] == wire.REQUEST
    assert "post_parser" not in dumped[0]
    assert recorded_whole(observed)


def test_a_subclass_that_compares(server: ScriptedServer, observed: Observed) -> None:
    """A subclass with an ``__eq__`` that raises until it is constructed, and no hash, is never compared."""

    class Compares(openai.OpenAI):  # noqa: PLW1641 - no hash
        def __init__(self, **options: Any) -> None:
            self.other = openai.OpenAI(api_key="sk-test-0123456789")
            super().__init__(**options)

        def __eq__(self, other: object) -> bool:
            raise NotImplementedError

    server.script(WHOLE)
    with Compares(base_url=server.base_url, api_key="sk-test-0123456789") as client:
        client.chat.completions.create(**wire.REQUEST)
    assert recorded_whole(observed)


def _wraps(options: Any) -> Any:
    parser = options.post_parser
    options.post_parser = lambda parsed: [parser(parsed)][0]
    return options


def _rebuilds(options: Any) -> Any:
    kept = {"method": options.method, "url": options.url, "json_data": options.json_data}
    return type(options)(**kept, headers=options.headers)


@pytest.mark.parametrize("form", ["plain", "stream", "raw", "raw_stream", "streaming", "streaming_stream"])
@pytest.mark.parametrize("prepare", [_wraps, _rebuilds])
def test_a_subclass_that_replaces_the_post_parser(
    server: ScriptedServer, observed: Observed, prepare: Callable[[Any], Any], form: str
) -> None:
    """The options that ``_prepare_options`` returns need not carry our hook: the call is recorded whole."""

    class Prepares(openai.OpenAI):
        def _prepare_options(self, options: Any) -> Any:
            return prepare(options)

    server.script(STREAM if "stream" in form.removeprefix("streaming") else WHOLE)
    client = Prepares(base_url=server.base_url, api_key="sk-test-0123456789", max_retries=0)
    asyncio.run(closing(client, run(client, form)))
    assert recorded_whole(observed)
    assert observed.attributes()["http.response.status_code"] == 200


@pytest.mark.parametrize("prepare", [_wraps, _rebuilds])
def test_a_suppressed_request_on_the_way(
    server: ScriptedServer, observed: Observed, prepare: Callable[[Any], Any]
) -> None:
    """A call that is not to be recorded, made by such a subclass meanwhile, is not taken for the call's own."""

    class Asks(openai.OpenAI):
        def _prepare_options(self, options: Any) -> Any:
            if isinstance(options.json_data, dict) and options.json_data["model"] != "inner":
                with suppress_instrumentation():
                    self.chat.completions.with_raw_response.create(model="inner", messages=[])
            return prepare(options)

    inner = json.dumps(wire.completion(id="inner")).encode()
    server.script(reply(inner, x_request_id="inner"), WHOLE)
    with Asks(base_url=server.base_url, api_key="sk-test-0123456789") as client:
        client.chat.completions.create(**wire.REQUEST)
    assert recorded_whole(observed)
    assert observed.attributes()["gen_ai.response.id"] == "chatcmpl-1"
    assert "openai_lifecycle.request_id" not in observed.attributes()


@pytest.mark.parametrize("prepare", [_wraps, _rebuilds])
def test_another_request_on_the_way(
    server: ScriptedServer, observed: Observed, prepare: Callable[[Any], Any]
) -> None:
    """A request for something else, which such a subclass makes meanwhile, is not taken for the call's own."""

    class Asks(openai.OpenAI):
        def _prepare_options(self, options: Any) -> Any:
            if options.url == "/models":
                return options
            self.models.list()
            return prepare(options)

    server.script(reply(b'{"object": "list", "data": []}', x_request_id="models"), WHOLE)
    with Asks(base_url=server.base_url, api_key="sk-test-0123456789") as client:
        client.chat.completions.create(**wire.REQUEST)
    assert recorded_whole(observed)
    assert "openai_lifecycle.request_id" not in observed.attributes()


@pytest.mark.parametrize("fails", [False, True], ids=["succeeds", "fails"])
def test_a_subclass_that_waits_in_its_own_way(
    server: ScriptedServer, observed: Observed, *, fails: bool
) -> None:
    """The retries of a call are counted, however long the client waits before each."""

    class Waits(openai.OpenAI):
        def _calculate_retry_timeout(self, *_: Any, **__: Any) -> float:
            return 0.001

    failure = reply(b"{}", status=500)
    server.script(failure, failure, failure if fails else WHOLE)
    with (
        Waits(base_url=server.base_url, api_key="sk-test-0123456789", max_retries=2) as client,
        pytest.raises(openai.InternalServerError) if fails else contextlib.nullcontext(),
    ):
        client.chat.completions.create(**wire.REQUEST)
    assert observed.attributes()["openai_lifecycle.retries"] == 2


def test_a_subclass_that_takes_turns(server: ScriptedServer) -> None:
    """Properties that choose a key and a server at each access are accessed as often as without us."""

    class TakesTurns(openai.OpenAI):
        def __init__(self) -> None:
            self.seen: list[str] = []
            super().__init__(api_key="sk-test-0123456789", max_retries=0)

        @property
        def api_key(self) -> str:
            self.seen.append("key")
            return f"sk-test-{len(self.seen)}"

        @api_key.setter
        def api_key(self, _: str) -> None:
            """Keep nothing."""

        @property  # type: ignore[misc]
        def base_url(self) -> Any:
            self.seen.append("url")
            return type(self._base_url)(server.base_url)

    def accesses() -> list[str]:
        with TakesTurns() as client:
            client.chat.completions.create(**wire.REQUEST)
            client.post("/chat/completions", cast_to=object, body=wire.REQUEST)
            return client.seen

    server.script(*[WHOLE] * 4)
    bare = accesses()
    with Observed() as observed:
        assert accesses() == bare
        assert {dict(span.attributes or {})["server.port"] for span in observed.spans()} == {
            int(server.base_url.rpartition(":")[2].partition("/")[0])
        }


@pytest.mark.parametrize(
    ("kind", "more", "provider"),
    [
        (openai.OpenAI, {}, "openai"),
        (
            openai.AzureOpenAI,
            {"azure_endpoint": "https://gateway.example.com", "api_version": "1"},
            "azure.ai.openai",
        ),
    ],
)
def test_a_subclass_that_chooses_its_url(
    server: ScriptedServer, observed: Observed, kind: Any, more: dict[str, str], provider: str
) -> None:
    """The server on record is the one that a subclass's own ``base_url`` names at the time of the call."""

    class Chooses(kind):  # type: ignore[misc]
        @property
        def base_url(self) -> Any:
            return type(self._base_url)(server.base_url)

    server.script(WHOLE)
    with Chooses(api_key="sk-test-0123456789", **more) as client:
        client.chat.completions.create(**wire.REQUEST)
    attributes = observed.attributes()
    assert (attributes["server.address"], attributes["gen_ai.provider.name"]) == ("127.0.0.1", provider)


class _Named(str, enum.Enum):
    """A kind of text whose ``str()`` is its name since Python 3.11, and whose JSON is its value."""

    MODEL = wire.MODEL
    ROLE = "user"


def test_texts_that_are_members_of_an_enum(server: ScriptedServer, observed: Observed) -> None:
    """The value that is sent is on record, as a plain text, and not the member's name."""
    server.script(WHOLE, WHOLE)
    asked = {"model": _Named.MODEL, "messages": [{"role": _Named.ROLE, "content": _Named.ROLE}]}
    with client_for(server, is_async=False) as client:
        client.chat.completions.create(**asked)
        client.chat.completions.create(**wire.REQUEST)
    for span in observed.spans():
        assert span.name == f"chat {wire.MODEL}"
        assert type((span.attributes or {})["gen_ai.request.model"]) is str
    first, _ = generations()
    assert first.message_content == "user: user"
    assert first.metadata.custom_fields["model_id"] == wire.MODEL


# ------------------------------------------------------------------ calls by hand
@pytest.mark.parametrize(
    "path", ["/chat/completions", "chat/completions", "/chat/completions/", "{}/chat/completions"]
)
def test_calls_by_hand(server: ScriptedServer, observed: Observed, path: str) -> None:
    """``client.post`` is recorded with and without slashes, and with the server's own absolute URL."""
    server.script(WHOLE)
    with client_for(server, is_async=False) as client:
        client.post(path.format(server.base_url), body=wire.REQUEST, cast_to=object)
    assert recorded_whole(observed)


def test_another_servers_url_is_left_alone(server: ScriptedServer, observed: Observed) -> None:
    """An absolute URL that is not below the client's ``base_url`` is not taken for one of its endpoints."""
    server.script(WHOLE)
    with client_for(server, is_async=False) as client:
        elsewhere = server.base_url.replace("/v1", "/v2")
        client.post(f"{elsewhere}/chat/completions", body=wire.REQUEST, cast_to=object)
    assert len(server.requests) == 1
    assert not observed.spans()


def test_the_http_response_itself(server: ScriptedServer, observed: Observed) -> None:
    """A call whose result is the bare HTTP response is recorded whole."""
    server.script(WHOLE)
    with client_for(server, is_async=False) as client:
        kind = type(client.chat.completions.with_raw_response.create(**wire.REQUEST).http_response)
        observed.clear()
        response = client.post("/chat/completions", body=wire.REQUEST, cast_to=kind)
    assert response.json() == wire.completion()
    assert recorded_whole(observed)


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("kind", [str, bytes, type(None)])
def test_a_body_that_is_not_parsed(
    server: ScriptedServer, observed: Observed, kind: Any, *, is_async: bool
) -> None:
    """A call whose result is not the parsed body, but its text, its bytes or nothing, is recorded whole."""
    server.script(WHOLE)
    client = client_for(server, is_async=is_async)
    posted = settle(client.post("/chat/completions", body=wire.REQUEST, cast_to=kind))
    result = asyncio.run(closing(client, posted))
    assert kind is type(None) or json.loads(result) == wire.completion()
    assert recorded_whole(observed)


class _Asked(pydantic.BaseModel):
    model: str
    messages: list[Any]


@pytest.mark.parametrize(
    "sent", [{"body": _Asked(**wire.REQUEST)}, {"content": json.dumps(wire.REQUEST).encode()}]
)
def test_a_request_that_is_no_dict(server: ScriptedServer, observed: Observed, sent: dict[str, Any]) -> None:
    """What a model of pydantic or encoded JSON asks for is on record too."""
    server.script(WHOLE)
    with client_for(server, is_async=False) as client:
        if not sent.keys() <= inspect.signature(client.post).parameters.keys():
            pytest.skip("this version of openai sends no encoded content")
        try:
            client.post("/chat/completions", cast_to=object, **sent)
        except TypeError:
            pytest.skip("this version of openai sends no model of pydantic")
    assert server.bodies()[0]["model"] == wire.MODEL
    entry = observed.generation()
    assert (entry.model_id, entry.messages_count) == (wire.MODEL, len(wire.REQUEST["messages"]))
    assert recorded_whole(observed)


@pytest.mark.parametrize(
    "read", [lambda stream: stream.response.iter_lines(), lambda stream: stream._iter_events()]
)
def test_a_stream_whose_response_is_read(
    server: ScriptedServer, observed: Observed, read: Callable[[Any], Any]
) -> None:
    """A stream that a proxy passes on, line by line or event by event, is recorded whole."""
    server.script(STREAM)
    with client_for(server, is_async=False) as client:
        assert len(list(read(client.chat.completions.create(**wire.REQUEST, stream=True)))) > 5
    assert recorded_whole(observed)
    assert "gen_ai.response.time_to_first_chunk" in observed.attributes()


def test_a_raw_stream_read_without_the_client(server: ScriptedServer, observed: Observed) -> None:
    """A raw stream that is never parsed but read line by line from its HTTP response is recorded whole."""
    server.script(STREAM)
    with client_for(server, is_async=False) as client:
        raw = client.chat.completions.with_raw_response.create(**wire.REQUEST, stream=True)
        assert list(raw.http_response.iter_lines())[-2] == "data: [DONE]"
    assert recorded_whole(observed)


def test_encoded_content_of_any_depth(server: ScriptedServer, observed: Observed) -> None:
    """Content that is no JSON that can be read is sent, and the call is recorded without what it says."""
    with client_for(server, is_async=False) as client:
        if "content" not in inspect.signature(client.post).parameters:
            pytest.skip("this version of openai sends no encoded content")
        for content in (b"[" * 100_000, b"\xff", b"[1]"):
            server.script(WHOLE)
            client.post("/chat/completions", cast_to=object, content=content)
    assert [span.name for span in observed.spans()] == ["chat"] * 3


def test_arguments_nested_too_deeply(server: ScriptedServer, observed: Observed) -> None:
    """Arguments in an object that the client can parse, but we perhaps cannot write, cost neither call nor reason."""
    call = wire.tool_call("c", "f", "{}")
    call["function"]["arguments"] = "deep"
    choice = {
        "index": 0,
        "message": {"role": "assistant", "tool_calls": [call]},
        "finish_reason": "tool_calls",
    }
    arguments = '{"a": ' * 700 + "1" + "}" * 700
    body = json.dumps(wire.completion(choices=[choice])).replace('"deep"', arguments)
    server.script(reply(body.encode()))
    with client_for(server, is_async=False) as client:
        client.chat.completions.create(**wire.REQUEST)
    (tool,) = observed.tool_calls()
    assert tool.tool_name == "f"
    # Python 3.14 can write them: it does not count the recursion of C code.
    assert tool.arguments in ("…", arguments)
    assert observed.attributes()["gen_ai.response.finish_reasons"] == ("tool_calls",)


def test_a_hook_that_waits_for_an_import_keeps_nothing_alive() -> None:
    """What waits for a module that is never imported is dropped with its owner."""

    class Owner:
        def install(self, module: Any) -> None: ...

    owner = Owner()
    gone = weakref.ref(owner)
    patches.on_import("a_module_that_is_never_imported", owner.install)
    del owner
    assert gone() is None


def test_one_hook_waits_for_an_import_however_often_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Of those that ask for the same module only the latest gets it, by one hook, and again after another import."""

    class Owner:
        def __init__(self) -> None:
            self.got: list[str] = []

        def install(self, module: Any) -> None:
            self.got.append(module.__name__)

    registered: list[str] = []
    register = wrapt.register_post_import_hook

    def counted(hook: Any, name: str) -> None:
        registered.append(name)
        register(hook, name)

    monkeypatch.setattr(wrapt, "register_post_import_hook", counted)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "a_late_module.py").touch()
    for _ in range(2):
        first, latest = owners = Owner(), Owner()
        for owner in owners:
            patches.on_import("a_late_module", owner.install)
        importlib.import_module("a_late_module")
        assert (first.got, latest.got) == ([], ["a_late_module"])
        patches.on_import("a_late_module", first.install)
        assert first.got == ["a_late_module"]  # it is there already
        del sys.modules["a_late_module"]
    assert len(registered) == 4


def test_a_body_that_the_client_refuses(server: ScriptedServer, observed: Observed) -> None:
    """An ``extra_body`` that is no mapping raises in the client, and the call ends in its error entry."""
    with client_for(server, is_async=False) as client, pytest.raises(TypeError) as raised:
        client.chat.completions.create(**wire.REQUEST, extra_body=[("seed", 1)])
    entry = observed.generation()
    assert isinstance(entry, LLMGenerationError)
    assert (entry.model_id, entry.error) == (wire.MODEL, str(raised.value))


def test_a_scheme_without_a_port(observed: Observed, caplog: pytest.LogCaptureFixture) -> None:
    """A ``base_url`` of a transport of the application's own has no port: none is recorded, nothing is logged."""
    with (
        openai.OpenAI(base_url="pipe://models/v1", api_key="sk-test-0123456789", max_retries=0) as client,
        pytest.raises(openai.APIConnectionError),
    ):
        client.chat.completions.create(**wire.REQUEST)
    recorded = [dict(span.attributes or {}) for span in observed.spans(None)]
    assert [attributes["server.address"] for attributes in recorded] == ["models", "models"]
    assert not any("server.port" in attributes for attributes in recorded)
    assert not [record for record in caplog.records if record.name.startswith("opentelemetry")]


# ------------------------------------------------------------------ credentials
TOKEN = "opaque.credential_of-the-company"


CARRYING = pytest.mark.parametrize(
    "client",
    [
        pytest.param(
            lambda url: openai.OpenAI(base_url=url, api_key=lambda: TOKEN, max_retries=0),
            marks=pytest.mark.skipif(
                not hasattr(openai.OpenAI, "_refresh_api_key"), reason="this openai takes no callable api_key"
            ),
        ),
        lambda url: openai.OpenAI(
            base_url=url,
            api_key="sk-test-0123456789",
            default_headers={"Authorization": f"Bearer {TOKEN}"},
            max_retries=0,
        ),
        lambda url: openai.AzureOpenAI(
            azure_endpoint=url, api_version="1", azure_ad_token_provider=lambda: TOKEN, max_retries=0
        ),
        lambda url: openai.AzureOpenAI(azure_endpoint=url, api_version="1", api_key=TOKEN, max_retries=0),
        *(
            functools.partial(
                lambda name, url: openai.OpenAI(
                    base_url=url, api_key="sk-test-0123456789", default_headers={name: TOKEN}, max_retries=0
                ),
                name,
            )
            for name in ("X-Amz-Security-Token", "Ocp-Apim-Subscription-Key", "Gateway-Auth", "Secret")
        ),
    ],
    ids=[
        "callable key",
        "header",
        "token provider",
        "azure key",
        "AWS",
        "API Management",
        "gateway",
        "secret",
    ],
)


@CARRYING
def test_what_the_request_carried_is_redacted(
    server: ScriptedServer, observed: Observed, client: Callable[[str], Any]
) -> None:
    """A credential that only the request knows, and that looks like none, is replaced where a server's 401 quotes it."""
    server.script(reply(json.dumps({"error": {"message": f"no such key: {TOKEN}"}}).encode(), status=401))
    with pytest.raises(openai.AuthenticationError):
        client(server.base_url).chat.completions.create(**wire.REQUEST)
    entry = observed.generation()
    assert isinstance(entry, LLMGenerationError)
    assert "no such key: [REDACTED]" in entry.error
    assert TOKEN not in observed.span().to_json()


@CARRYING
@pytest.mark.parametrize("form", ["plain", "stream"])
def test_what_a_failed_response_quotes_is_redacted(
    server: ScriptedServer, observed: Observed, client: Callable[[str], Any], form: str
) -> None:
    """A credential that only the request knows is also replaced in the error of a response that says that it failed."""
    error = {"code": "server_error", "message": f"no such key: {TOKEN}"}
    failed = wire_responses.response(status="failed", error=error)
    event = {"type": "response.failed", "sequence_number": 1, "response": failed}
    server.script(reply(json.dumps(failed).encode()) if form == "plain" else event_stream(event))
    response = client(server.base_url).responses.create(model="m", input="Hi", stream=form == "stream")
    assert form == "plain" or len(list(response)) == 1
    entry = observed.generation()
    assert isinstance(entry, LLMGenerationError)
    assert entry.error == "no such key: [REDACTED]"
    assert TOKEN not in observed.span().to_json()


@CARRYING
def test_what_a_failed_request_carried_and_said_is_redacted(
    server: ScriptedServer, observed: Observed, client: Callable[[str], Any]
) -> None:
    """A credential that only the request has is in no record of a failed call, though its prompt was read before."""
    observed.instrument(capture="span_and_event")
    server.script(reply(b"{}", status=401))
    messages = [{"role": "user", "content": f"Is it {TOKEN}?"}]
    with pytest.raises(openai.AuthenticationError):
        client(server.base_url).chat.completions.create(model="m", messages=messages)
    assert observed.generation().message_content == "user: Is it [REDACTED]?"
    assert "Is it [REDACTED]?" in observed.attributes()["gen_ai.input.messages"]
    assert TOKEN not in observed.span().to_json()


@pytest.mark.parametrize("capture", ["event_only", "no_content"])
def test_a_key_as_an_errors_code(server: ScriptedServer, capture: str) -> None:
    """What a server puts into the code of a failed response's error is redacted like its message."""
    error = {"code": TOKEN, "message": TOKEN}
    server.script(reply(json.dumps(wire_responses.response(status="failed", error=error)).encode()))
    with (
        Observed(capture=capture) as observed,
        openai.OpenAI(base_url=server.base_url, api_key=TOKEN) as client,
    ):
        client.responses.create(model="m", input="Hi")
        assert isinstance(observed.generation(), LLMGenerationError)
        assert TOKEN not in Path("events.log").read_text(encoding="utf-8")
        assert TOKEN not in observed.span().to_json()


@pytest.mark.parametrize(
    ("name", "more"),
    [("webhook_secret", {"api_key": "sk-test-0123456789"}), ("azure_ad_token", {"api_version": "1"})],
)
def test_every_secret_of_a_client(
    server: ScriptedServer, observed: Observed, name: str, more: dict[str, Any]
) -> None:
    """A prompt that quotes the client's webhook secret or Azure AD token does not put it on record."""
    server.script(WHOLE)
    kind: Any = openai.AzureOpenAI if "azure" in name else openai.OpenAI
    url = "azure_endpoint" if "azure" in name else "base_url"
    if name not in inspect.signature(kind.__init__).parameters:
        pytest.skip(f"this openai has no {name}")
    with kind(**{name: TOKEN, url: server.base_url}, **more) as client:
        client.chat.completions.create(model="m", messages=[{"role": "user", "content": f"Is it {TOKEN}?"}])
    assert observed.generation().message_content == "user: Is it [REDACTED]?"


# ------------------------------------------------------------------ what no exporter can write
BROKEN = "half of an emoji: \ud83d"


@pytest.mark.parametrize("kind", ["request", "response", "error"])
def test_lone_surrogates(server: ScriptedServer, observed: Observed, kind: str) -> None:
    """Text that UTF-8 cannot carry costs no span: what OTLP sends has each piece of it, escaped."""
    observed.instrument(capture="span_and_event")
    call = wire.tool_call(BROKEN, BROKEN, json.dumps(BROKEN, ensure_ascii=False))
    message = {"role": "assistant", "content": BROKEN, "tool_calls": [call]}
    choice = {"index": 0, "message": message, "finish_reason": BROKEN}
    body = wire.completion(id=BROKEN, model=BROKEN, system_fingerprint=BROKEN, choices=[choice])
    failure = reply(json.dumps({"error": {"message": BROKEN, "code": BROKEN}}).encode(), status=400)
    server.script(failure if kind == "error" else reply(json.dumps(body).encode()))
    request = wire.REQUEST
    if kind == "request":
        said = [{"role": "user", "content": BROKEN}]
        request = {"model": BROKEN, "messages": said, "stop": [BROKEN], "user": BROKEN}
    with (
        client_for(server, is_async=False) as client,
        contextlib.suppress(openai.BadRequestError, UnicodeError),
    ):
        client.chat.completions.create(**request)
    span = observed.span()
    sent = encode_spans([span]).resource_spans[0].scope_spans[0].spans[0]
    assert {a.key for a in sent.attributes} == set(span.attributes or {})
    assert [len(e.attributes) for e in sent.events] == [len(e.attributes or {}) for e in span.events]
    assert rb"emoji: \ud83d" in sent.SerializeToString()
    if kind == "response":
        (tool,) = observed.tool_calls()
        assert json.loads(tool.arguments) == BROKEN


def test_a_character_in_two_halves(server: ScriptedServer, observed: Observed) -> None:
    """The surrogates of one character that come in two fragments of a call's arguments are put together."""
    halves = [wire.chunk(wire.fragment(0, half)) for half in ('"\ud83d', '\ude00"')]
    start = wire.chunk(wire.fragment(0, "", id="c", name="f"))
    server.script(event_stream(start, *halves, wire.chunk({}, "tool_calls")))
    with client_for(server, is_async=False) as client:
        list(client.chat.completions.create(**wire.REQUEST, stream=True))
    (tool,) = observed.tool_calls()
    assert tool.arguments == '"\N{GRINNING FACE}"'


def test_numbers_beyond_64_bits(server: ScriptedServer, observed: Observed) -> None:
    """A number that no attribute holds is left out, and costs nothing else that is known of the call."""
    usage = {"prompt_tokens": 2**70, "completion_tokens": 10, "total_tokens": 2**70}
    server.script(reply(json.dumps(wire.completion(usage=usage)).encode()))
    with client_for(server, is_async=False) as client:
        client.chat.completions.create(**{**wire.REQUEST, "seed": 2**64 - 1, "temperature": 10**400})
    attributes = observed.attributes()
    assert attributes["gen_ai.request.model"] == wire.MODEL
    assert attributes["gen_ai.usage.output_tokens"] == 10
    assert {"gen_ai.request.seed", "gen_ai.request.temperature", "gen_ai.usage.input_tokens"}.isdisjoint(
        attributes
    )
    sent = encode_spans([observed.span()]).resource_spans[0].scope_spans[0].spans[0]
    assert {a.key for a in sent.attributes} == set(attributes)


def test_a_stream_without_end_of_names_and_choices() -> None:
    """What is kept of a stream is bounded, however many choices it begins and however long it makes a name."""
    state, count = facts.Reply(), 5_000
    for number in range(count):
        fragment = wire.fragment(0, "", id="c", name="f" * 100)
        chunk = wire.chunk(choices=[{"index": number, "delta": fragment, "finish_reason": "stop"}])
        chat.chunk(state, chunk)
        chunk["choices"][0]["index"] = 0
        chat.chunk(state, chunk)
    assert len(state.choices) < count / 2
    assert len(state.choices[0].calls[0].name) < count


def test_a_stream_without_end_of_tool_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is kept of a stream's tool calls is bounded, of the last call its start; so are a response's other items."""
    monkeypatch.setattr(facts, "_CALL", 2**20)
    chats, answers = facts.Reply(), facts.Reply(keep_text=100)
    arguments = "x" * 2**20
    thought = {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm"}]}
    for number in range(2000):
        chat.chunk(chats, wire.chunk(wire.fragment(number, arguments, id="c", name="f")))
        chat.chunk(chats, wire.chunk(wire.fragment(0, arguments)))
        for item in (wire_responses.function_call(f"c{number}", arguments=arguments), thought):
            event = {"type": "response.output_item.done", "output_index": number, "item": item}
            responses.chunk(answers, event)
    for state in (chats, answers):
        kept = "".join(call.arguments for call in state.tool_calls.values())
        assert 2**21 < len(kept) < 2**24
        assert len(state.tool_calls) < 10
    assert len(answers.choices[0].parts) < 2000
    responses.response(answers, wire_responses.response())
    assert [call.arguments for call in answers.tool_calls.values()] == [wire.WEATHER, wire.TIME]


def test_the_arguments_of_a_call_that_is_not_kept() -> None:
    """Arguments of a call beyond the bound, which is not kept, are not added to those of the last call that is."""
    state = facts.Reply(room=2 * facts._CALL)
    for number in range(4):
        chat.chunk(state, wire.chunk(wire.fragment(number, "", id="c", name="f")))
        chat.chunk(state, wire.chunk(wire.fragment(number, "{}")))
    assert [call.arguments for call in state.tool_calls.values()] == ["{}"]


def test_responses_with_long_ids(server: ScriptedServer) -> None:
    """What is remembered of a response to recognise it when it is read again is small, however long its ids are."""
    item = wire_responses.function_call("c" * 2**20)
    body = wire_responses.response(id="r" * 2**20, status="in_progress", output=[item])
    server.script(
        *[reply(json.dumps({**body, "id": f"{number}{body['id']}"}).encode()) for number in range(12)]
    )
    with (
        Observed(capture="no_content", events_log="none") as observed,
        client_for(server, is_async=False) as client,
    ):
        tracemalloc.start()
        for number in range(12):
            client.responses.create(**wire_responses.REQUEST)
            assert observed.attributes()["gen_ai.response.id"].startswith(f"{number}r")
            observed.clear()
            gc.collect()
            if number == 1:
                before = tracemalloc.get_traced_memory()[0]
        grown = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
    assert grown < 5 * 2**20


def test_a_transform_that_asks_a_model(server: ScriptedServer, observed: Observed) -> None:
    """A call that the ``transform`` hook makes is not recorded: the hook would be called for it again, without end."""
    server.script(WHOLE)
    with client_for(server, is_async=False) as client:

        def asks(event: LifecycleEvent) -> LifecycleEvent:
            if len(server.requests) < 10:
                client.chat.completions.create(**wire.REQUEST)
            return event

        observed.instrument(transform=asks)
        client.chat.completions.create(**wire.REQUEST)
    assert recorded_whole(observed)
    assert len(server.requests) == 1 + 3  # the hook has asked for each of the entries


# ------------------------------------------------------------------ contexts, threads, timing
@pytest.mark.parametrize("together", [True, False], ids=["one context", "two contexts"])
def test_a_coroutine_closed_by_hand(
    observed: Observed, caplog: pytest.LogCaptureFixture, *, together: bool
) -> None:
    """A call that is driven and closed by hand, wherever each is done, leaves no span current and nothing to log."""

    async def never(_: Any) -> Any:  # connecting would not let itself be closed at every point
        return await asyncio.get_running_loop().create_future()

    async def work() -> None:
        transport = http.AsyncClient(transport=http.MockTransport(never))
        async with openai.AsyncOpenAI(api_key="k", http_client=transport) as client:
            calling = client.chat.completions.create(**wire.REQUEST)
            driven, other = contextvars.copy_context(), contextvars.copy_context()
            driven.run(calling.send, None)
            closed_in = driven if together else other
            closed_in.run(calling.close)
            assert closed_in.run(trace.get_current_span) is trace.INVALID_SPAN

    asyncio.run(work())
    assert not caplog.records
    entry = observed.generation()
    assert isinstance(entry, LLMGenerationError)
    assert entry.metadata.custom_fields["error_type"] == "GeneratorExit"


class GoneError(BaseException):
    """What the client's handling of a destroyed coroutine may fail with."""


def test_a_coroutine_whose_destruction_fails(observed: Observed, caplog: pytest.LogCaptureFixture) -> None:
    """An exception that takes the place of ``GeneratorExit`` in another context is recorded, with nothing to log."""

    async def never(_: Any) -> Any:
        asked.set()
        try:
            return await asyncio.get_running_loop().create_future()
        except GeneratorExit:
            raise GoneError  # noqa: B904 - chained by itself

    async def work() -> None:
        transport = http.AsyncClient(transport=http.MockTransport(never))
        async with openai.AsyncOpenAI(api_key="k", http_client=transport) as client:
            task = asyncio.create_task(client.chat.completions.create(**wire.REQUEST))
            await asked.wait()
            calling: Any = task.get_coro()
            with pytest.raises(GoneError):
                calling.close()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    asked = asyncio.Event()
    asyncio.run(work())
    assert not caplog.records
    entry = observed.generation()
    assert isinstance(entry, LLMGenerationError)
    assert entry.metadata.custom_fields["error_type"] == "GoneError"


@pytest.mark.parametrize("options", [{}, {"durability": "buffered"}], ids=["write", "buffered"])
def test_undone_while_a_stream_is_open(
    server: ScriptedServer, observed: Observed, options: dict[str, Any]
) -> None:
    """A stream that is open when ``uninstrument()`` is called has its entry when it ends, and nothing else has."""
    observed.instrument(**options)
    server.script(STREAM)
    with client_for(server, is_async=False) as client:
        stream = client.chat.completions.create(**wire.REQUEST, stream=True)
        next(stream)
        openai_lifecycle.uninstrument()
        foreign = {"gen_ai.operation.name": "chat"}
        observed.provider.get_tracer("another").start_span("chat", attributes=foreign).end()
        list(stream)
        client.chat.completions.create(**wire.REQUEST)
    assert recorded_whole(observed)


def test_switched_by_many_threads_at_once() -> None:
    """``instrument()`` and ``uninstrument()`` of many threads at once patch once and undo all."""
    before = SYNC.request
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for switch, patches in ((openai_lifecycle.instrument, 1), (openai_lifecycle.uninstrument, 0)) * 10:
            together = threading.Barrier(6)

            def run(switch: Callable[[], None] = switch, together: threading.Barrier = together) -> None:
                together.wait(HANGS)
                switch()

            threads = [threading.Thread(target=run) for _ in range(6)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(HANGS)
            assert getattr(SYNC.request, "__wrapped__", before) is before
            assert (SYNC.request is not before) == patches
    finally:
        sys.setswitchinterval(interval)


def test_switched_off_while_another_thread_switches_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """``uninstrument()`` waits for an ``instrument()`` that is half done, which does not fail, and undoes all of it."""
    before, waits = SYNC.request, threading.Event()
    off = threading.Thread(target=openai_lifecycle.uninstrument)

    class Noting:
        """The switch's lock, which notes that the other thread asks for it."""

        def __enter__(self) -> None:
            if threading.current_thread() is off:
                waits.set()
            lock.acquire()

        def __exit__(self, *_: object) -> None:
            lock.release()

    def attach(_: Pipeline) -> None:
        off.start()
        until(lambda: waits.is_set() or not off.is_alive())

    lock = SWITCH.lock
    monkeypatch.setattr(SWITCH, "lock", Noting())
    monkeypatch.setattr(Pipeline, "attach", attach)
    openai_lifecycle.instrument()
    off.join(HANGS)
    assert not caplog.messages
    assert SYNC.request is before
    assert not openai_lifecycle.OpenAILifecycleInstrumentor().is_instrumented_by_opentelemetry


# ------------------------------------------------------------------ what else is in the process
def test_a_log_handler_that_raises(
    server: ScriptedServer,
    observed: Observed,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What a log handler raises, when we report what we did or a defect of ours, does not reach the application."""
    server.script(WHOLE)
    monkeypatch.setattr(SHIELD, "reraise", False)
    caplog.set_level(logging.INFO, "openai_lifecycle")
    with Raises(), client_for(server, is_async=False) as client:
        client.chat.completions.create(**wire.REQUEST)
        assert recorded_whole(observed)
        assert len(observed.spans(None)) == 2  # the client's and the call's, where the application wants them
        monkeypatch.setattr("openai_lifecycle.capture.routes.find", None)
        assert client.chat.completions.create(**wire.REQUEST).id == "chatcmpl-1"


@pytest.mark.parametrize("method", ["on_start", "_on_ending", "on_end"])
@pytest.mark.parametrize("is_first", [True, False], ids=["first", "last"])
def test_a_span_processor_that_raises(
    server: ScriptedServer,
    observed: Observed,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    *,
    is_first: bool,
) -> None:
    """What a span processor of the application raises does not reach it through us; entries and metrics are complete."""
    processor = SpanProcessor()
    monkeypatch.setattr(processor, method, broken, raising=False)  # old SDKs have no ``_on_ending``
    server.script(WHOLE)
    monkeypatch.setattr(SHIELD, "reraise", False)
    openai_lifecycle.uninstrument()
    provider = TracerProvider(shutdown_on_exit=False)
    if is_first:
        provider.add_span_processor(processor)
    openai_lifecycle.instrument(tracer_provider=provider, meter_provider=observed.meters)
    provider.add_span_processor(processor)
    with client_for(server, is_async=False) as client:
        assert client.chat.completions.create(**wire.REQUEST).id == "chatcmpl-1"
    assert recorded_whole(observed)
    assert [entry.tag for entry in entries()].count("INIT_SUCCESS") == 1
    assert "gen_ai.client.operation.duration" in observed.metrics()


def test_a_provider_that_makes_no_tracer(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the application's provider raises instead of making a tracer, each thread's call has its entry, and a line says why."""
    provider = TracerProvider(shutdown_on_exit=False)
    monkeypatch.setattr(provider, "get_tracer", broken)
    monkeypatch.setattr(SHIELD, "reraise", False)
    monkeypatch.setattr(SHIELD, "_reported", set())
    monkeypatch.setattr("openai_lifecycle.pipeline._PATIENCE", 0)  # no thread has to wait for one before it
    openai_lifecycle.instrument(tracer_provider=provider)
    server.script(WHOLE)
    with client_for(server, is_async=False) as client:
        for _ in range(2):
            thread = threading.Thread(target=client.chat.completions.create, kwargs=wire.REQUEST)
            thread.start()
            thread.join(HANGS)
    assert [type(entry) for entry in generations()] == [LLMGenerationSuccess] * 2
    (message,) = caplog.messages
    assert "RuntimeError at test_hostile.py" in message
    provider.shutdown()


@pytest.mark.parametrize("is_joined", [False, True])
def test_a_provider_that_another_thread_holds(
    server: ScriptedServer,
    observed: Observed,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    *,
    is_joined: bool,
) -> None:
    """While a thread stands still in what only one may do, another's call is answered, without a span, and nothing else fails."""
    monkeypatch.setattr("openai_lifecycle.pipeline._PATIENCE", 0.01)
    monkeypatch.setattr(SHIELD, "reraise", False)
    monkeypatch.setattr(SHIELD, "_reported", set())
    if is_joined:  # a provider of our own is what remains to be made
        client_for(server, is_async=False).close()
        monkeypatch.setattr(processor := SpanProcessor(), "on_start", broken)
        observed.provider.add_span_processor(processor)
        observed.clear()
    server.script(WHOLE)
    answers: list[str] = []

    def call() -> None:
        with client_for(server, is_async=False) as client:
            answers.append(client.chat.completions.create(**wire.REQUEST).id)

    pipeline, thread = SWITCH._pipeline, threading.Thread(target=call)
    assert pipeline is not None
    with pipeline.lock:
        thread.start()
        thread.join(HANGS)
        assert answers == ["chatcmpl-1"]
    assert not observed.spans(None)
    assert len(caplog.messages) == is_joined


def test_a_limit_of_few_attributes(server: ScriptedServer, observed: Observed) -> None:
    """Of a span that may hold few attributes the entry says whose call it was, and not that it was not streamed."""
    provider = TracerProvider(span_limits=SpanLimits(max_span_attributes=8), shutdown_on_exit=False)
    openai_lifecycle.uninstrument()
    openai_lifecycle.instrument(tracer_provider=provider)
    server.script(STREAM)
    with client_for(server, is_async=False) as client:
        list(client.chat.completions.create(**wire.REQUEST, stream=True))
    entry = observed.generation()
    assert (entry.provider, entry.model_id) == ("openai", wire.REQUEST["model"])
    assert "stream" not in entry.metadata.custom_fields


def test_a_file_that_is_turned_off(server: ScriptedServer, observed: Observed) -> None:
    """Of a call that begins after options have turned the file off nothing is written; an open one has its entry."""
    server.script(STREAM, WHOLE)
    with client_for(server, is_async=False) as client:
        stream = client.chat.completions.create(**wire.REQUEST, stream=True)
        observed.instrument(events_log="none")
        client.chat.completions.create(**wire.REQUEST)
        list(stream)
    assert len(observed.spans()) == 2
    assert observed.generation().metadata.custom_fields["stream"] == "true"


@dataclasses.dataclass
class InnerTracer(trace.Tracer):
    """Passes on what it is told, as Logfire's tracer does."""

    tracer: Any

    def start_span(self, *args: Any, **kwargs: Any) -> trace.Span:
        """Start a span of the SDK."""
        span: trace.Span = self.tracer.start_span(*args, **kwargs)
        return span

    def start_as_current_span(self, *args: Any, **kwargs: Any) -> Any:
        """Start a span of the SDK."""
        return self.tracer.start_as_current_span(*args, **kwargs)


@dataclasses.dataclass
class InnerProvider(trace.TracerProvider):
    """Passes on what it is told, as Logfire's provider does; like any dataclass that can be compared, it has no hash."""

    provider: TracerProvider

    def get_tracer(self, *args: Any, **kwargs: Any) -> InnerTracer:
        """Return a tracer that passes on what it is told."""
        return InnerTracer(self.provider.get_tracer(*args, **kwargs))

    def add_span_processor(self, processor: SpanProcessor) -> None:
        """Pass it on."""
        self.provider.add_span_processor(processor)


@pytest.mark.parametrize("is_sampled", [True, False])
def test_a_provider_within_another(server: ScriptedServer, observed: Observed, *, is_sampled: bool) -> None:
    """Spans go to a provider that only passes on what it is told, and the file has what the inner sampler drops."""
    observed.provider.sampler = ALWAYS_ON if is_sampled else ALWAYS_OFF
    server.script(WHOLE)
    openai_lifecycle.uninstrument()
    openai_lifecycle.instrument(tracer_provider=InnerProvider(observed.provider))
    with client_for(server, is_async=False) as client:
        client.chat.completions.create(**wire.REQUEST)
    assert recorded_whole(observed)
    assert len(observed.spans()) == is_sampled


def test_a_provider_that_is_closed_to_us(server: ScriptedServer) -> None:
    """Where a provider takes no processor and has an exporter of entries, what that gets of others is transformed too."""
    inner = TracerProvider(shutdown_on_exit=False)
    inner.add_span_processor(SimpleSpanProcessor(openai_lifecycle.EventsLogExporter()))

    class Closed(trace.TracerProvider):
        def get_tracer(self, *args: Any, **kwargs: Any) -> trace.Tracer:
            return inner.get_tracer(*args, **kwargs)

    def transform(event: LifecycleEvent) -> LifecycleEvent:
        return dataclasses.replace(event, provider="transformed")

    openai_lifecycle.instrument(tracer_provider=Closed(), transform=transform)
    client_for(server, is_async=False).close()
    inner.get_tracer("another").start_span("chat", attributes={"gen_ai.operation.name": "chat"}).end()
    inner.shutdown()
    assert [entry.tag for entry in entries()] == ["INIT_START", "INIT_SUCCESS", "GENERATION_SUCCESS"]
    assert {entry.provider for entry in entries()} == {"transformed"}


class SpansOnly:
    """A runtime context that keeps the span of what is attached and never gives back what was before, as ddtrace's."""

    def __init__(self) -> None:
        self.span: trace.Span = trace.INVALID_SPAN

    def attach(self, attached: context.Context) -> object:
        self.span = trace.get_current_span(attached)
        return object()

    def get_current(self) -> context.Context:
        return trace.set_span_in_context(self.span, context.Context())

    def detach(self, _: object) -> None:
        """Do nothing."""


@pytest.fixture
def _spans_only(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(context, "_RUNTIME_CONTEXT", SpansOnly())
    contexts._gives_back.cache_clear()
    yield
    contexts._gives_back.cache_clear()


@pytest.mark.usefixtures("_spans_only")
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_a_context_that_is_not_given_back(
    server: ScriptedServer, observed: Observed, *, is_async: bool
) -> None:
    """Where a context cannot be taken back, the application's span stays the current one during and after a call."""
    server.script(WHOLE)
    theirs = observed.provider.get_tracer("application").start_span("theirs")
    context.attach(trace.set_span_in_context(theirs))
    during: list[trace.Span] = []

    class Looks(openai.AsyncOpenAI if is_async else openai.OpenAI):  # type: ignore[misc]
        def _prepare_request(self, request: Any) -> Any:
            during.append(trace.get_current_span())
            return super()._prepare_request(request)

    client = Looks(base_url=server.base_url, api_key="sk-test-0123456789")
    asyncio.run(closing(client, settle(client.chat.completions.create(**wire.REQUEST))))
    assert during == [theirs]
    assert trace.get_current_span() is theirs
    assert recorded_whole(observed)
    parent = observed.span().parent
    assert parent is not None
    assert parent.span_id == theirs.get_span_context().span_id


def test_a_provider_that_is_shut_down(server: ScriptedServer, observed: Observed) -> None:
    """Calls that end, and calls that begin, after the provider was shut down are in the file."""
    server.script(STREAM)
    with client_for(server, is_async=False) as client:
        stream = client.chat.completions.create(**wire.REQUEST, stream=True)
        next(stream)
        observed.provider.shutdown()
        list(stream)
        list(client.chat.completions.create(**wire.REQUEST, stream=True))
    assert [type(entry) for entry in generations()] == [LLMGenerationSuccess] * 2


# ------------------------------------------------------------------ signals
class TimeUpError(Exception):
    """What a time limit raises, as Celery's does."""


class Limit:
    """A signal handler that is an object."""

    def __call__(self, *_: object) -> None:
        raise TimeUpError

    def expire(self, *_: object) -> None:
        raise TimeUpError


def test_only_a_signal_handler_interrupts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A defect of ours in any code that is no handler, such as an enum's, is kept from the application."""
    monkeypatch.setattr(SHIELD, "reraise", False)
    with SHIELD:
        signal.Handlers(-1)
    with pytest.raises(ValueError, match="-1"):
        signal.Handlers(-1)


HANDLERS: dict[str, Callable[..., Any]] = {
    "Ctrl-C": signal.default_int_handler,
    "function": lambda *_: Limit().expire(),
    "method": Limit().expire,
    "object": Limit(),
    "partial": functools.partial(Limit.expire, Limit()),
}


@pytest.fixture(params=HANDLERS)
def _limited(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(SHIELD, "reraise", False)
    before = signal.signal(signal.SIGUSR1, HANDLERS[request.param])
    yield
    signal.signal(signal.SIGUSR1, before)


@pytest.mark.usefixtures("_limited")
def test_a_time_limit_may_strike_anywhere() -> None:
    """What a signal handler raises is passed on also where it interrupts the very code that swallows exceptions."""
    with pytest.raises((TimeUpError, KeyboardInterrupt)), SHIELD:
        signal.raise_signal(signal.SIGUSR1)


@pytest.mark.usefixtures("_limited")
@pytest.mark.parametrize(
    ("place", "begun"),
    [
        ("capture.recorder.one_line", False),
        ("capture.headers.integer", True),
        ("capture.call.Call.parsed", True),
        ("capture.recorder._finish_reasons", True),
        ("capture.recorder.unchecked.set_attributes", True),
        ("capture.recorder.unchecked.add_event", True),
        ("capture.metrics.Instruments.record", True),
        ("eventslog.transform.suppress_instrumentation", True),  # around the transform hook
    ],
)
def test_a_time_limit_ends_the_call_wherever_it_strikes(
    server: ScriptedServer, observed: Observed, monkeypatch: pytest.MonkeyPatch, place: str, begun: bool
) -> None:
    """What a signal handler raises while our code runs reaches the application, and a call that has begun ends."""
    observed.instrument(transform=lambda event: event)
    path = f"openai_lifecycle.{place}"
    original = pkgutil.resolve_name(path)

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        monkeypatch.setattr(path, original)
        signal.raise_signal(signal.SIGUSR1)
        return original(*args, **kwargs)

    body = json.dumps(wire_responses.response()).encode()
    server.script(reply(body, x_ratelimit_remaining_requests="7"))
    with client_for(server, is_async=False) as client:
        monkeypatch.setattr(path, interrupted)
        with pytest.raises((TimeUpError, KeyboardInterrupt)):
            client.responses.create(**wire_responses.REQUEST)
    assert len(observed.spans()) == begun
    assert not call._open


class Bare(Sampler):
    """Samples everything and returns no attributes, as the SDK's experimental composite sampler does."""

    def should_sample(self, *_: Any, **__: Any) -> SamplingResult:
        return SamplingResult(Decision.RECORD_AND_SAMPLE)

    def get_description(self) -> str:
        return "Bare"


def test_a_sampler_that_returns_no_attributes(server: ScriptedServer, observed: Observed) -> None:
    """A span has its operation, provider and model, and so have its entries, whatever its sampler leaves out."""
    observed.provider.sampler = Bare()
    server.script(WHOLE)
    with client_for(server, is_async=False) as client:
        client.chat.completions.create(**wire.REQUEST)
    assert observed.attributes()["gen_ai.provider.name"] == "openai"
    entry = observed.generation()
    assert (entry.provider, entry.model_id) == ("openai", wire.REQUEST["model"])
