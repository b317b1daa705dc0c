"""What an instrumentation must not do to the application, one habit a test."""

from __future__ import annotations

import asyncio
import gc
import importlib
import json
import linecache
import logging
import os
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import openai._base_client
import pytest
from openai._models import FinalRequestOptions
from opentelemetry import context, trace
from opentelemetry.instrumentation.utils import suppress_instrumentation
from opentelemetry.sdk.trace import SpanLimits, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import openai_lifecycle
from openai_lifecycle import pipeline, sdk
from openai_lifecycle.capture import call as call_module
from openai_lifecycle.capture import contexts
from openai_lifecycle.capture.operations.chat import CHAT
from openai_lifecycle.events import LLMGenerationError, LLMGenerationSuccess
from openai_lifecycle.shield import SHIELD
from tests import wire, wire_responses
from tests.capture.application import client_for, closing, http, run
from tests.limits import HANGS
from tests.observed import Observed, entries, generations
from tests.scripted_server import ScriptedServer, Step, event_stream, reply

WHOLE = reply(json.dumps(wire.completion()).encode())


def once(server: ScriptedServer, form: str = "plain", leave: str = "drained", **options: Any) -> list[Any]:
    """Make one synchronous call in ``form``."""
    client = client_for(server, is_async=False, **options)
    trail: list[Any] = asyncio.run(closing(client, run(client, form, leave)))
    return trail


# ------------------------------------------------------------------ the span and its context
def test_the_span_is_current_during_the_request_only(server: ScriptedServer, observed: Observed) -> None:
    """A span made inside the HTTP request is a child of ours; one made between chunks is not."""
    tracer = observed.provider.get_tracer("application")
    server.script(event_stream(*wire.chunks()))

    def on_request(_: Any) -> None:
        tracer.start_span("http").end()

    http = openai.DefaultHttpxClient(verify=False, event_hooks={"request": [on_request]})
    client = openai.OpenAI(base_url=server.base_url, api_key="sk-test-0123456789", http_client=http)
    with tracer.start_as_current_span("work") as work, client:
        for _ in client.chat.completions.create(**wire.REQUEST, stream=True):
            tracer.start_span("between").end()
            assert trace.get_current_span() is work
    chat = observed.span()
    parents = {s.name: s.parent.span_id for s in observed.spans(None) if s.parent}
    assert parents["http"] == chat.context.span_id
    assert parents["between"] == parents[chat.name] == work.get_span_context().span_id


def test_two_streams_interleave(server: ScriptedServer, observed: Observed) -> None:
    """Two streams read in turns are two spans, neither the other's parent."""
    server.script(event_stream(*wire.chunks()))
    with client_for(server, is_async=False) as client:
        streams = [client.chat.completions.create(**wire.REQUEST, stream=True) for _ in range(2)]
        for _ in zip(*streams, strict=True):
            pass
    assert [s.parent for s in observed.spans()] == [None, None]


def test_suppressed_calls_pass_through(server: ScriptedServer, observed: Observed) -> None:
    """Inside suppress_instrumentation() neither a construction nor a call is recorded."""
    server.script(WHOLE)
    with suppress_instrumentation():
        assert once(server)
    assert not observed.spans(None)
    assert not entries()


# ------------------------------------------------------------------ defects of our own
@pytest.mark.parametrize("form", ["plain", "stream", "raw", "streaming"])
@pytest.mark.parametrize("place", ["request", "response", "chunk"])
def test_a_defect_of_ours_costs_the_application_nothing(
    server: ScriptedServer,
    observed: Observed,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    form: str,
    place: str,
) -> None:
    """When extraction raises, the call succeeds and one log line, without content, says where."""
    server.script(event_stream(*wire.chunks()) if form == "stream" else WHOLE)
    openai_lifecycle.uninstrument()
    bare = once(server, form)
    observed.instrument()

    def broken(*_: Any) -> Any:
        raise RuntimeError("the prompt: Hi there")

    broken_chat = {name: getattr(CHAT, name) for name in ("name", "request", "response", "chunk")} | {
        place: broken
    }
    monkeypatch.setattr("openai_lifecycle.capture.routes.find", lambda *_: (type(CHAT)(**broken_chat), {}))
    monkeypatch.setattr(SHIELD, "reraise", False)
    monkeypatch.setattr(SHIELD, "_reported", set())
    with caplog.at_level(logging.ERROR):
        assert once(server, form) == bare
    used = place == "request" or (place == "chunk") == (form == "stream")
    assert [r.message for r in caplog.records if "Hi there" in r.message] == []
    assert len([r for r in caplog.records if "RuntimeError at test_behaviour.py" in r.message]) == used
    assert [type(entry) for entry in generations()] == [LLMGenerationSuccess]


@pytest.mark.parametrize("form", ["plain", "stream"])
def test_a_defect_of_ours_at_the_end(
    server: ScriptedServer, observed: Observed, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    """When what a call's record is made of cannot be put together, the call succeeds all the same."""
    server.script(event_stream(*wire.chunks()) if form == "stream" else WHOLE)
    whole = once(server, form)
    monkeypatch.setattr("openai_lifecycle.capture.recorder._failure", None)
    monkeypatch.setattr(SHIELD, "reraise", False)
    assert once(server, form) == whole
    assert not call_module._open


def test_the_report_of_a_defect_reads_no_source_file(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A defect is reported from what is in memory: a file is slow to read, and needs much of the stack."""
    monkeypatch.setattr(SHIELD, "reraise", False)
    monkeypatch.setattr(SHIELD, "_reported", set())
    linecache.clearcache()
    with SHIELD:
        raise RuntimeError("a defect")
    assert "RuntimeError at test_behaviour.py:" in caplog.text
    assert __file__ not in linecache.cache


#: Threads that import the client while others instrument it.
IMPORTS = """
import threading
together, raised = threading.Barrier(5), []
def run(act):
    together.wait()
    try:
        act()
    except BaseException as error:
        raised.append(error)
def uses():
    import openai
    openai.OpenAI(api_key="sk-test-0123456789").chat.completions
def instruments():
    import openai_lifecycle
    openai_lifecycle.instrument()
threads = [threading.Thread(target=run, args=(act,)) for act in (uses, instruments, uses, instruments, uses)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
import openai
print(raised, hasattr(openai.OpenAI.__init__, "__wrapped__"))
"""


def test_the_client_is_imported_meanwhile() -> None:
    """``instrument()`` in one thread does not fail the import of the client that another has begun."""
    done = subprocess.run(
        [sys.executable, "-c", IMPORTS], check=True, capture_output=True, text=True, timeout=HANGS
    )
    assert (done.stdout, done.stderr) == ("[] True\n", "")


def test_a_part_of_the_client_that_cannot_be_waited_for(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the import of a part with WebSockets waits for the thread that calls ``instrument()``, calls are recorded."""
    module = "openai.resources.responses.responses"
    importlib.import_module(module)
    imported = importlib.import_module

    def waits(name: str, package: str | None = None) -> Any:
        if name == module:
            raise RuntimeError(name)  # importlib's _DeadlockError is one
        return imported(name, package)

    monkeypatch.setattr(importlib, "import_module", waits)
    monkeypatch.setattr(SHIELD, "reraise", False)
    openai_lifecycle.instrument()
    server.script(WHOLE)
    once(server, "plain")
    assert [type(entry) for entry in generations()] == [LLMGenerationSuccess]


def test_nothing_stays_current_after_a_failure(server: ScriptedServer, observed: Observed) -> None:
    """After a call that failed, the first in its process, the context is what it was and no call is open."""
    contexts._gives_back.cache_clear()
    before = context.get_current()
    server.script(["cut"])
    with client_for(server, is_async=False) as client, pytest.raises(openai.APIConnectionError):
        client.chat.completions.create(**wire.REQUEST)
    assert context.get_current() == before
    assert not call_module._open


# ------------------------------------------------------------------ endings
def test_threads_may_end_abandoned_calls_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """When another thread takes the last abandoned call just after this one saw it, nothing is raised."""

    class Raced(deque[Any]):
        def __bool__(self) -> bool:
            return True

    monkeypatch.setattr(call_module, "_abandoned", Raced())
    call_module.end_abandoned()


def test_an_abandoned_stream_is_recorded_when_it_is_collected(
    server: ScriptedServer, observed: Observed
) -> None:
    """Dropping a half-read stream ends the call with what was received; nothing of it stays behind."""
    server.script(event_stream(*wire.chunks()))
    with client_for(server, is_async=False) as client:
        stream = client.chat.completions.create(**wire.REQUEST, stream=True)
        for _ in range(3):
            next(stream)
        del stream
        gc.collect()
        entry = observed.generation()
    assert isinstance(entry, LLMGenerationSuccess)
    assert entry.response_length == len("Hello, world")
    assert not call_module._open


class Shipping(SpanProcessor):
    """A span processor of the application, whose methods may hold a lock."""

    def ship(self, step: Callable[[], None]) -> None:
        """Do a step of the work."""
        step()


class Express(Shipping):
    """One that inherits its methods."""


class ShippingExporter(InMemorySpanExporter):
    """An exporter of the application, whose methods may hold a lock."""

    ship = Shipping.ship


def test_a_stream_closed_beside_a_processor(server: ScriptedServer, observed: Observed) -> None:
    """Where the application has a span processor in the module that makes the calls, a closed stream is recorded at once."""
    observed.provider.add_span_processor(Shipping())
    observed.instrument()
    server.script(event_stream(*wire.chunks()))
    with client_for(server, is_async=False) as client:
        stream = client.chat.completions.create(**wire.REQUEST, stream=True)
        next(stream)
        stream.close()
        assert isinstance(observed.generation(), LLMGenerationSuccess)


@pytest.mark.parametrize("read", [0, 3], ids=["not read", "half read"])
@pytest.mark.parametrize(
    "whose",
    [
        "opentelemetry.sdk.trace",
        "opentelemetry.exporter.otlp",
        "openai_lifecycle.eventslog.file",
        "a processor",
        "an exporter",
    ],
)
def test_collection_under_a_lock_does_not_record_there(
    server: ScriptedServer, observed: Observed, whose: str, read: int
) -> None:
    """A stream collected while a lock may be held, by a module or what gets the spans, is recorded after, not inside."""
    shipping: Any = ShippingExporter() if whose == "an exporter" else Express()
    call_module.LOCKING_CODE.clear()  # of other tests
    observed.provider.add_span_processor(
        SimpleSpanProcessor(shipping) if whose == "an exporter" else shipping
    )
    observed.instrument()
    server.script(event_stream(*wire.chunks()))
    client = client_for(server, is_async=False)
    streams = [client.chat.completions.create(**wire.REQUEST, stream=True)]
    for _ in range(read):
        next(streams[0])
    inside: list[int] = []

    def collect() -> None:
        streams.clear()
        gc.collect()
        inside.append(len(observed.spans()))

    if whose in ("a processor", "an exporter"):
        shipping.ship(collect)
    else:
        called_in(whose, collect)
    assert inside == [0]
    server.script(WHOLE)
    once(server)
    client.close()
    assert len(observed.spans()) == 2


def test_a_coroutine_destroyed_under_a_lock(observed: Observed) -> None:
    """A call that is destroyed half-way while a lock may be held is recorded after, as the failure it is."""

    async def never(_: Any) -> Any:
        return await asyncio.get_running_loop().create_future()

    async def work() -> None:
        transport = http.AsyncClient(transport=http.MockTransport(never))
        async with openai.AsyncOpenAI(api_key="k", http_client=transport) as client:
            calling = client.chat.completions.create(**wire.REQUEST)
            calling.send(None)
            called_in("opentelemetry.sdk.trace", calling.close)
            assert not observed.spans()

    asyncio.run(work())
    call_module.end_abandoned()
    entry = observed.generation()
    assert isinstance(entry, LLMGenerationError)
    assert entry.metadata.custom_fields["error_type"] == "GeneratorExit"


def test_any_number_of_streams_may_be_abandoned_at_once(observed: Observed) -> None:
    """However many calls wait for a safe moment, the next call records them all, and the application's succeeds."""
    body, count = json.dumps(wire.completion()).encode(), sys.getrecursionlimit()
    transport = http.MockTransport(lambda _: http.Response(200, content=body))
    with openai.OpenAI(api_key="sk-test-0123456789", http_client=http.Client(transport=transport)) as client:
        create = client.chat.completions.create
        streams = [create(**wire.REQUEST, stream=True) for _ in range(count)]

        def collect() -> None:
            streams.clear()
            gc.collect()

        called_in("opentelemetry.sdk.trace", collect)
        assert create(**wire.REQUEST).id == "chatcmpl-1"
    assert len(observed.spans()) == count + 1


def called_in(module: str, function: Callable[[], None]) -> None:
    """Call ``function`` from a frame of ``module``."""
    names: dict[str, Any] = {"__name__": module, "function": function}
    exec("def caller(): function()", names)
    names["caller"]()


def test_calls_open_at_exit_are_recorded(server: ScriptedServer, tmp_path: Any) -> None:
    """A stream still open when the interpreter exits, by sys.exit or an exception, has its entry."""
    server.script(event_stream(*wire.chunks()))
    program = f"""
import openai, openai_lifecycle, sys
openai_lifecycle.instrument()
client = openai.OpenAI(base_url={server.base_url!r}, api_key="sk-test-0123456789")
stream = client.chat.completions.create(model="m", messages=[], stream=True)
next(stream)
{{}}
"""
    for end, status in (("sys.exit(7)", 7), ("raise ValueError('uncaught')", 1), ("pass", 0)):
        done = subprocess.run(
            [sys.executable, "-c", program.format(end)],
            capture_output=True,
            text=True,
            timeout=HANGS,
            check=False,
        )
        assert done.returncode == status, done.stderr
        assert [type(entry) for entry in generations()] == [LLMGenerationSuccess]
        (tmp_path / "events.log").unlink()


def test_a_garbage_collection_while_open_calls_are_ended(observed: Observed) -> None:
    """At exit, an abandoned stream may be collected at any allocation, and all others still have their entries."""
    body = json.dumps(wire.completion()).encode()
    transport = http.MockTransport(lambda _: http.Response(200, content=body))
    thresholds = gc.get_threshold()
    try:
        with openai.OpenAI(
            api_key="sk-test-0123456789", http_client=http.Client(transport=transport)
        ) as client:
            for allocations in range(4):
                gc.collect()
                gc.disable()
                streams = [client.chat.completions.create(**wire.REQUEST, stream=True) for _ in range(25)]
                del streams[0]
                gc.set_threshold(gc.get_count()[0] + allocations)
                gc.enable()
                call_module.end_all()
                assert len(observed.spans()) == 25 * (allocations + 1)
    finally:
        gc.set_threshold(*thresholds)
        gc.enable()


def test_a_forked_child_does_not_end_its_parents_calls(server: ScriptedServer) -> None:
    """A stream open across os.fork() is recorded once, by the process that opened it."""
    server.script(event_stream(*wire.chunks()))
    program = f"""
import gc, openai, openai_lifecycle, os, sys
openai_lifecycle.instrument()
client = openai.OpenAI(base_url={server.base_url!r}, api_key="sk-test-0123456789")
stream = client.chat.completions.create(model="m", messages=[], stream=True)
next(stream)
child = os.fork()
if child == 0:
    del stream
    gc.collect()
    sys.exit(0)
os.waitpid(child, 0)
for _ in stream: pass
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=HANGS)
    (entry,) = generations()
    assert entry.metadata.custom_fields["finish_reasons"] == "tool_calls"


def test_locks_held_at_a_fork(server: ScriptedServer) -> None:
    """A child forked while another thread holds each lock of ours can switch off and on, join a provider, and call."""
    server.script(reply(json.dumps(wire_responses.response()).encode()))
    program = f"""
import contextlib, gc, openai, openai_lifecycle, os, sys, threading
from openai_lifecycle.threads import Locked
openai_lifecycle.instrument()
def call():
    openai.OpenAI(base_url={server.base_url!r}, api_key="sk-test-0123456789").responses.create(model="m", input="q")
call()
held, done = threading.Event(), threading.Event()
def hold():
    with contextlib.ExitStack() as locks:
        for holder in [holder for holder in gc.get_objects() if issubclass(type(holder), Locked)]:
            locks.enter_context(holder.lock)
        held.set()
        done.wait()
thread = threading.Thread(target=hold)
thread.start()
held.wait()
child = os.fork()
if child == 0:
    call()
    openai_lifecycle.uninstrument()
    openai_lifecycle.instrument()
    call()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
done.set()
thread.join()
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=HANGS)
    assert [type(entry) for entry in generations()] == [LLMGenerationSuccess] * 3


CHILD = """
import importlib, os, sys
package, method, switched_on = sys.argv[1:]
def switch_on():
    global client
    import openai, openai_lifecycle
    openai_lifecycle.instrument()
    client = openai.OpenAI(base_url=os.environ["SERVER"], api_key="sk-test-0123456789")
def work():
    global stream
    if switched_on == "in the child":
        switch_on()
    stream = client.chat.completions.create(model="m", messages=[], stream=True)
    next(stream)
if switched_on == "before the import":
    switch_on()
context = importlib.import_module(package).get_context(method)
importlib.import_module(package + ".util")
if switched_on == "after the import":
    switch_on()
if __name__ == "__main__":
    child = context.Process(target=work)
    child.start()
    child.join()
    sys.exit(child.exitcode)
"""


@pytest.mark.parametrize("durability", ["write", "buffered"])
@pytest.mark.parametrize(
    ("package", "method", "switched_on"),
    [
        ("multiprocessing", "fork", "before the import"),
        ("multiprocessing", "fork", "after the import"),
        ("multiprocessing", "fork", "in the child"),
        ("multiprocessing", "forkserver", "before the import"),
        ("multiprocessing", "spawn", "before the import"),
        ("billiard", "fork", "before the import"),  # Celery's
    ],
)
def test_calls_open_when_a_worker_ends(
    server: ScriptedServer, tmp_path: Path, package: str, method: str, switched_on: str, durability: str
) -> None:
    """A stream that a worker process still has open when it ends has its entry, though no exit handler runs there."""
    pytest.importorskip(package)
    server.script(event_stream(*wire.chunks()))
    (tmp_path / "app.py").write_text(CHILD, encoding="utf-8")
    environment = {"SERVER": server.base_url, "OTEL_PYTHON_OPENAI_LIFECYCLE_DURABILITY": durability}
    command = [sys.executable, "app.py", package, method, switched_on]
    subprocess.run(command, env={**os.environ, **environment}, cwd=tmp_path, check=True, timeout=HANGS)
    assert [type(entry) for entry in generations()] == [LLMGenerationSuccess]


OUTLASTING = """
import multiprocessing, sys, threading
import openai, openai._base_client, openai_lifecycle
httpx = getattr(openai._base_client, "httpx2", None) or openai._base_client.httpx
openai_lifecycle.instrument()
begun, ending = threading.Event(), threading.Event()
def answer(request):
    begun.set()
    ending.wait()
    return httpx.Response(200, json={"id": "c1", "model": "m", "choices": []})
def call():
    http = httpx.Client(transport=httpx.MockTransport(answer))
    openai.OpenAI(api_key="sk-test-0123456789", http_client=http).chat.completions.create(model="m", messages=[])
def work():
    threading._register_atexit(ending.set)  # runs when the child begins to wait for its threads
    threading.Thread(target=call).start()
    begun.wait()
if __name__ == "__main__":
    child = multiprocessing.get_context(sys.argv[1]).Process(target=work)
    child.start()
    child.join()
    sys.exit(child.exitcode)
"""


@pytest.mark.parametrize("durability", ["write", "buffered"])
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_thread_that_outlasts_the_work_of_a_child(tmp_path: Path, method: str, durability: str) -> None:
    """A call of a thread that a child of ``multiprocessing`` still waits for gets its answer, and so does its entry."""
    (tmp_path / "app.py").write_text(OUTLASTING, encoding="utf-8")
    environment = {**os.environ, "OTEL_PYTHON_OPENAI_LIFECYCLE_DURABILITY": durability}
    command = [sys.executable, "app.py", method]
    subprocess.run(command, env=environment, cwd=tmp_path, check=True, timeout=HANGS)
    assert [type(entry) for entry in generations()] == [LLMGenerationSuccess]


# ------------------------------------------------------------------ retries
def test_retries_are_visible(server: ScriptedServer, observed: Observed) -> None:
    """Each retry is an event with cause and delay; the count is on the span and in the entry; one span in all."""
    busy = reply(b"{}", status=429, retry_after_ms="1")
    server.script(busy, ["cut"], WHOLE)
    once(server, max_retries=2)
    events: list[Any] = [e.attributes for e in observed.span().events if e.name == "openai_lifecycle.retry"]
    causes = [event["error.type"] for event in events]
    assert causes[0] == "429"
    assert len(causes) == 2
    assert causes[1] != "_OTHER"
    assert all(event["openai_lifecycle.retry.delay"] > 0 for event in events)
    assert observed.attributes()["openai_lifecycle.retries"] == 2
    assert observed.generation().metadata.custom_fields["retries"] == "2"


def test_retries_that_do_not_help(server: ScriptedServer, observed: Observed) -> None:
    """A call that fails after its retries has one error entry with status, request id and count."""
    server.script(reply(b"{}", status=503, x_request_id="req_9", retry_after_ms="1"))
    once(server, max_retries=1)
    entry = observed.generation()
    assert isinstance(entry, LLMGenerationError)
    fields = entry.metadata.custom_fields
    assert (fields["status_code"], fields["request_id"], fields["retries"]) == ("503", "req_9", "1")


# ------------------------------------------------------------------ undoing
TOUCHED = [
    (openai._base_client.SyncAPIClient, "request"),
    (openai._base_client.AsyncAPIClient, "_process_response"),
    (openai.OpenAI, "__init__"),
    (openai.AsyncAzureOpenAI, "with_options"),
]


def test_uninstrument_restores_the_classes() -> None:
    """After uninstrument() every function is the very object it was, also after other options, and after a second round."""
    before = [owner.__dict__[name] for owner, name in TOUCHED]
    for _ in range(2):
        openai_lifecycle.instrument()
        openai_lifecycle.instrument(capture="no_content")
        assert not any(owner.__dict__[name] is f for (owner, name), f in zip(TOUCHED, before, strict=True))
        openai_lifecycle.uninstrument()
        openai_lifecycle.uninstrument()
        assert all(owner.__dict__[name] is f for (owner, name), f in zip(TOUCHED, before, strict=True))


def test_what_others_have_wrapped_stays(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A function that was put around ours stays where it is after uninstrument(), and is called as before."""
    kind, asked = openai._base_client.SyncAPIClient, []
    monkeypatch.setattr(kind, "request", kind.request)  # put back at the end
    server.script(WHOLE)
    with Observed() as observed, client_for(server, is_async=False) as client:
        ours = kind.request

        def theirs(self: Any, *args: Any, **kwargs: Any) -> Any:
            asked.append(self)
            return ours(self, *args, **kwargs)

        monkeypatch.setattr(kind, "request", theirs)
        openai_lifecycle.uninstrument()
        client.chat.completions.create(**wire.REQUEST)
        assert asked == [client]
        assert not observed.spans()


def test_bound_methods_follow(server: ScriptedServer) -> None:
    """A method bound before instrument() is recorded; one bound in between falls silent after uninstrument()."""
    server.script(WHOLE)
    with client_for(server, is_async=False) as client:
        early, raw_early = client.chat.completions.create, client.chat.completions.with_raw_response.create
        with Observed() as observed:
            early(**wire.REQUEST)
            raw_early(**wire.REQUEST)
            assert len(observed.spans()) == 2
            between, request = client.chat.completions.create, client.request
            wrapped_twice = client.chat.completions.with_raw_response.create
            openai_lifecycle.uninstrument()
            between(**wire.REQUEST)
            wrapped_twice(**wire.REQUEST)
            request(
                object, FinalRequestOptions(method="post", url="/chat/completions", json_data=wire.REQUEST)
            )
            assert len(server.requests) == 5
            assert len(observed.spans()) == 2


def test_a_provider_that_has_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a provider that was freed nothing is remembered by its ``id()``, which Python may give to another one."""
    provider = TracerProvider(shutdown_on_exit=False)
    key, inner = id(provider), provider._active_span_processor
    with monkeypatch.context() as patch:
        patch.setattr(trace, "_TRACER_PROVIDER", provider)
        openai_lifecycle.instrument()
    openai_lifecycle.uninstrument()
    assert key in pipeline._processors
    del provider
    gc.collect()
    assert key not in pipeline._processors
    inner.shutdown()


def test_uninstrument_exports_what_has_ended(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A provider of our own has exported every span when ``uninstrument()`` returns."""
    made = []

    class Exporter(InMemorySpanExporter):
        def __init__(self) -> None:
            super().__init__()
            made.append(self)

    monkeypatch.setattr(sdk, "loaded", lambda signal: iter([Exporter] if signal is sdk.TRACES else []))
    openai_lifecycle.instrument()
    server.script(WHOLE)
    once(server)
    openai_lifecycle.uninstrument()
    (exporter,) = made
    assert [span.name.split()[0] for span in exporter.get_finished_spans()] == ["initialize", "chat"]


def test_instrumenting_again_doubles_nothing(server: ScriptedServer, observed: Observed) -> None:
    """However often it is switched on, a provider has one span processor of ours, and a call one span and one entry."""
    before = observed.provider._active_span_processor._span_processors
    observed.instrument()
    observed.instrument()
    assert observed.provider._active_span_processor._span_processors == before
    server.script(WHOLE)
    once(server)
    assert len(observed.spans()) == 1
    assert observed.generation()


# ------------------------------------------------------------------ load
def test_no_thread(server: ScriptedServer) -> None:
    """instrument() and a call start no thread, and so no event loop in one."""
    server.script(WHOLE)
    program = f"""
import threading, openai, openai_lifecycle
openai_lifecycle.instrument()
client = openai.OpenAI(base_url={server.base_url!r}, api_key="sk-test-0123456789")
client.chat.completions.create(model="m", messages=[])
assert threading.enumerate() == [threading.main_thread()], threading.enumerate()
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=HANGS)


def test_a_long_stream_leaves_a_small_span(server: ScriptedServer, observed: Observed) -> None:
    """A stream of 2000 chunks has no event and no attribute a chunk, and keeps no chunk."""
    server.script(event_stream(*[wire.chunk({"content": "x"})] * 2000, wire.chunk({}, "stop")))
    once(server, "stream")
    assert [e.name for e in observed.span().events] == ["LLM_GENERATION_SUCCESS"]
    assert len(observed.attributes()) < 30
    generation = observed.generation()
    assert isinstance(generation, LLMGenerationSuccess)
    assert generation.response_length == 2000


def two_hundred_tool_calls() -> list[Step]:
    """Return a script that answers with more tool calls than the SDK keeps events of a span, 128."""
    message = {"role": "assistant", "tool_calls": [wire.tool_call(f"c{n}", "f", "{}") for n in range(200)]}
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls"}
    return reply(json.dumps(wire.completion(choices=[choice])).encode())


def test_more_tool_calls_than_the_sdk_keeps_events(server: ScriptedServer, observed: Observed) -> None:
    """All of 200 tool calls are written, and the limit of the application's own spans, 128, stays as it was."""
    server.script(two_hundred_tool_calls())
    once(server)
    assert [call.tool_call_id for call in observed.tool_calls()] == [f"c{n}" for n in range(200)]
    with observed.provider.get_tracer("the application's").start_as_current_span("own") as span:
        for number in range(200):
            span.add_event(f"{number}")
    assert len(observed.spans(None)[-1].events) == 128


@pytest.mark.parametrize(
    ("variable", "limits"),
    [({}, SpanLimits(max_events=5)), ({"OTEL_SPAN_EVENT_COUNT_LIMIT": "128"}, SpanLimits())],
    ids=["by the application", "by the environment"],
)
def test_a_limit_of_events_that_was_set(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, variable: dict[str, str], limits: SpanLimits
) -> None:
    """A span keeps no more events than somebody has asked for, also where that is the number that the SDK would take."""
    for name, value in variable.items():
        monkeypatch.setenv(name, value)
    kept, exporter = limits.max_events, InMemorySpanExporter()
    provider = TracerProvider(span_limits=limits, shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    openai_lifecycle.instrument(tracer_provider=provider)
    server.script(two_hundred_tool_calls())
    once(server)
    assert len(exporter.get_finished_spans()[-1].events) == kept
    provider.shutdown()


def test_many_threads(server: ScriptedServer, observed: Observed) -> None:
    """Calls of eight threads on one client are recorded once each."""
    server.script(WHOLE)
    with client_for(server, is_async=False) as client:
        threads = [
            threading.Thread(target=client.chat.completions.create, kwargs=wire.REQUEST) for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(HANGS)
    assert len({s.context.span_id for s in observed.spans()}) == 8
    assert [type(entry) for entry in generations()] == [LLMGenerationSuccess] * 8


# ------------------------------------------------------------------ privacy
def test_no_content_means_none(server: ScriptedServer, observed: Observed) -> None:
    """With capture off a server's error that quotes the prompt leaves no word of it in span or entry."""
    observed.instrument(capture="no_content")
    server.script(
        reply(json.dumps({"error": {"message": "bad: Hi there", "code": "Hi there"}}).encode(), status=400)
    )
    once(server)
    entry, span = observed.generation(), observed.span()
    assert isinstance(entry, LLMGenerationError)
    assert entry.error == span.status.description == "BadRequestError: HTTP 400"
    assert "Hi there" not in span.to_json()


def test_keys_are_redacted(server: ScriptedServer, observed: Observed) -> None:
    """The client's key and anything like one is replaced in errors, prompts and arguments."""
    message = "Incorrect API key provided: sk-test-0123456789abcdef; Authorization: Bearer abcdefgh12345"
    server.script(reply(json.dumps({"error": {"message": message}}).encode(), status=401))
    once(server)
    entry = observed.generation()
    assert isinstance(entry, LLMGenerationError)
    for secret in ("sk-test", "abcdefgh12345"):
        assert secret not in entry.error
        assert secret not in observed.span().to_json()
    assert entry.error.count("[REDACTED]") == 2


# ------------------------------------------------------------------ metrics
@pytest.mark.parametrize("form", ["plain", "stream"])
def test_metrics(server: ScriptedServer, observed: Observed, form: str) -> None:
    """Duration, tokens and, for streams, chunk times are recorded with the recommended attributes."""
    server.script(event_stream(*wire.chunks()) if form == "stream" else WHOLE)
    once(server, form)
    metrics = observed.metrics()
    (duration,) = metrics["gen_ai.client.operation.duration"]
    assert duration.explicit_bounds[:2] == (0.01, 0.02)
    assert duration.attributes["gen_ai.response.model"] == wire.ANSWERED_BY
    assert duration.attributes["server.address"] == "127.0.0.1"
    tokens = {p.attributes["gen_ai.token.type"]: p.sum for p in metrics["gen_ai.client.token.usage"]}
    assert tokens == {"input": 19, "output": 10}
    assert ("gen_ai.client.operation.time_to_first_chunk" in metrics) == (form == "stream")
    per_chunk = metrics.get("gen_ai.client.operation.time_per_output_chunk", [])
    assert [point.sum > 0 for point in per_chunk] == [True] * (form == "stream")


@pytest.mark.parametrize("whose", ["passed", "global"])
def test_metrics_of_a_provider_of_the_application(
    server: ScriptedServer, observed: Observed, monkeypatch: pytest.MonkeyPatch, whose: str
) -> None:
    """The application's MeterProvider gets the metrics, also where the environment asks for an exporter of our own."""
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "console")
    if whose == "global":
        openai_lifecycle.uninstrument()
        monkeypatch.setattr("opentelemetry.metrics._internal._METER_PROVIDER", observed.meters)
        openai_lifecycle.instrument(tracer_provider=observed.provider)
    server.script(WHOLE)
    once(server)
    assert "gen_ai.client.operation.duration" in observed.metrics()


@pytest.mark.parametrize("form", ["plain", "stream"])
def test_exemplars(server: ScriptedServer, observed: Observed, form: str) -> None:
    """An exemplar of each metric leads to the span of the call, not to the one that was current when it ended."""
    server.script(event_stream(*wire.chunks()) if form == "stream" else WHOLE)
    with observed.provider.get_tracer("test").start_as_current_span("request"):
        once(server, form)
    expected = {observed.span().context.span_id}
    for name, points in observed.metrics().items():
        assert {e.span_id for point in points for e in point.exemplars} == expected, name


def test_metrics_of_a_failure(server: ScriptedServer, observed: Observed) -> None:
    """A failed call has a duration with its error type, and no tokens."""
    server.script(["cut"])
    once(server)
    (duration,) = observed.metrics()["gen_ai.client.operation.duration"]
    assert duration.attributes["error.type"] == "APIConnectionError"
    assert "gen_ai.client.token.usage" not in observed.metrics()


@pytest.mark.parametrize("form", ["plain", "stream", "failure"])
def test_metrics_of_what_is_not_sampled(server: ScriptedServer, observed: Observed, form: str) -> None:
    """A call that the sampler drops counts in every metric, with the attributes of one that it keeps."""
    answers = {"plain": WHOLE, "stream": event_stream(*wire.chunks()), "failure": reply(b"{}", status=400)}
    server.script(answers[form], answers[form])
    observed.instrument(events_log="none")
    unsampled = trace.NonRecordingSpan(trace.SpanContext(1, 1, is_remote=True))
    for parent in (trace.INVALID_SPAN, unsampled):
        with trace.use_span(parent):
            once(server, "stream" if form == "stream" else "plain")
    assert len(observed.spans()) == 1
    assert {point.count for points in observed.metrics().values() for point in points} == {2}


def test_metrics_of_a_negative_count(
    server: ScriptedServer, observed: Observed, caplog: pytest.LogCaptureFixture
) -> None:
    """A token count below zero is in the entry as the server gave it, but in no metric, and nothing is logged of it."""
    server.script(reply(json.dumps(wire.completion(usage={**wire.USAGE, "prompt_tokens": -1})).encode()))
    once(server)
    assert observed.generation().metadata.custom_fields["input_tokens"] == "-1"
    (tokens,) = observed.metrics()["gen_ai.client.token.usage"]
    assert tokens.attributes["gen_ai.token.type"] == "output"
    assert caplog.records == []


# ------------------------------------------------------------------ spans of others
def test_other_instrumentations_may_be_first(observed: Observed) -> None:
    """A GenAI span of another instrumentation has its entry before any OpenAI client was made."""
    asked = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "anthropic",
        "gen_ai.request.model": "c",
    }
    observed.provider.get_tracer("another").start_span("chat c", attributes=asked).end()
    assert observed.generation().provider == "anthropic"
