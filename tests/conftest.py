"""Every test starts in an empty folder, with nothing instrumented, and the same whoever runs it."""

from __future__ import annotations

import gc
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import offline_server
import pytest
from hypothesis import HealthCheck, settings

from tests.scripted_server import ScriptedServer, serving

if TYPE_CHECKING:
    from tests.observed import Observed

# What would configure OpenTelemetry, the client, or the way of a request. Some is read when a module is imported,
# so nothing above imports either, and some by fixtures that live longer than a test.
_SETTINGS = re.compile(r"OTEL_|(AZURE_)?OPENAI_(?!LIFECYCLE_)|(HTTPS?|ALL|NO)_PROXY$", re.IGNORECASE)
for _name in filter(_SETTINGS.match, list(os.environ)):
    del os.environ[_name]

# A shell's background job ignores it, and so would the programs that tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

# How fast the machine is proves nothing.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


@pytest.fixture(autouse=True)
def _clean_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    import openai_lifecycle
    from openai_lifecycle.shield import SHIELD

    monkeypatch.chdir(tmp_path)
    # A defect of ours must fail the test, not hide behind the shield.
    monkeypatch.setattr(SHIELD, "reraise", True)
    yield
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
    from tests.observed import Observed

    with Observed() as observation:
        yield observation
    gc.collect()
