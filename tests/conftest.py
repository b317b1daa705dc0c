"""Every test starts in an empty folder, with no OpenTelemetry variable set and nothing instrumented."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import offline_server
import pytest

from openai_lifecycle.shield import SHIELD
from tests.observed import Observed
from tests.scripted_server import ScriptedServer, serving


@pytest.fixture(autouse=True)
def _clean_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in list(os.environ):
        if name.startswith(("OTEL_", "OPENAI_", "AZURE_OPENAI_")) and not name.startswith(
            "OPENAI_LIFECYCLE_"
        ):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    # A defect of ours must fail the test, not hide behind the shield.
    monkeypatch.setattr(SHIELD, "reraise", True)
    yield
    import openai_lifecycle

    openai_lifecycle.uninstrument()


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    """Return a scripted server on loopback."""
    with serving() as running:
        yield running


@pytest.fixture(scope="module")
def base_url() -> Iterator[str]:
    """Return the URL of an offline server; it keeps nothing that one test could see of another."""
    with offline_server.serve() as url:
        yield url


@pytest.fixture
def observed() -> Iterator[Observed]:
    """Instrument with a provider of the test's own; spans in memory, entries in ``events.log``."""
    with Observed() as observation:
        yield observation
    gc.collect()
