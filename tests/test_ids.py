"""Trace and span ids: what they cost the application, and what they are in a forked process."""

from __future__ import annotations

import json
import os
import random
from types import SimpleNamespace

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

import openai_lifecycle
from openai_lifecycle import ids
from openai_lifecycle.ids import OwnRandomIds
from tests import wire
from tests.capture.application import client_for
from tests.observed import entries
from tests.scripted_server import ScriptedServer, reply


class Counted(RandomIdGenerator):
    """An application's own generator."""

    def generate_trace_id(self) -> int:
        """Return an id that can be told from others."""
        return 0xABC


@pytest.mark.parametrize("joins", [False, True])
def test_seeded_random_numbers(server: ScriptedServer, *, joins: bool) -> None:
    """A call takes no number from ``random``, so an application that seeds it gets the numbers it gets without us."""
    server.script(reply(json.dumps(wire.completion()).encode()))
    provider = TracerProvider(shutdown_on_exit=False) if joins else None
    openai_lifecycle.instrument(tracer_provider=provider)
    random.seed(1)
    before = random.getstate()
    with client_for(server, is_async=False) as client:
        client.chat.completions.create(**wire.REQUEST)
    assert random.getstate() == before
    assert len({entry.trace_id for entry in entries()}) == 2, "the client's and the call's"


def test_a_generator_of_the_application(server: ScriptedServer) -> None:
    """A provider that makes its ids in its own way makes ours too."""
    server.script(reply(json.dumps(wire.completion()).encode()))
    openai_lifecycle.instrument(
        tracer_provider=TracerProvider(id_generator=Counted(), shutdown_on_exit=False)
    )
    with client_for(server, is_async=False) as client:
        client.chat.completions.create(**wire.REQUEST)
    assert {entry.trace_id for entry in entries()} == {f"{0xABC:032x}"}


def test_an_id_is_never_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ids are as long as those of the SDK, and none is 0, which stands for no id."""
    drawn = iter([0, 1, 0, 1])
    monkeypatch.setattr(ids, "_RANDOM", SimpleNamespace(getrandbits=lambda bits: next(drawn) << (bits - 1)))
    assert OwnRandomIds().generate_span_id() == 1 << 63
    assert OwnRandomIds().generate_trace_id() == 1 << 127


def test_ids_of_a_forked_process() -> None:
    """A child's ids are not those that its parent makes after the fork."""
    own = OwnRandomIds()
    reading, writing = os.pipe()
    child = os.fork()
    made = f"{own.generate_trace_id()} {own.generate_span_id()}"
    if not child:
        os.write(writing, made.encode())
        os._exit(0)
    os.waitpid(child, 0)
    theirs = os.read(reading, 100).decode()
    os.close(reading)
    os.close(writing)
    assert len({*made.split(), *theirs.split()}) == 4
