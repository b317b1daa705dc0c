"""Client construction: START, then SUCCESS or ERROR, once; copies write nothing."""

from __future__ import annotations

import gc
import json
import re
import weakref
from pathlib import Path
from typing import Any

import openai
import pytest

from openai_lifecycle.events import (
    LLMInitializationError,
    LLMInitializationStart,
    LLMInitializationSuccess,
)
from openai_lifecycle.shield import SHIELD
from tests import wire
from tests.observed import Observed, entries
from tests.scripted_server import ScriptedServer, reply

KEY = "sk-secret-0123456789"
AZURE: dict[str, Any] = {
    "api_key": KEY,
    "api_version": "2024-10-21",
    "azure_endpoint": "https://acme.openai.azure.com",
}
#: class, arguments → provider, base_url
CLIENTS: dict[str, tuple[str, dict[str, Any], str, str]] = {
    "OpenAI": ("OpenAI", {"api_key": KEY}, "openai", "https://api.openai.com"),
    "AsyncOpenAI": ("AsyncOpenAI", {"api_key": KEY}, "openai", "https://api.openai.com"),
    "AzureOpenAI": ("AzureOpenAI", AZURE, "azure.ai.openai", "https://acme.openai.azure.com"),
    "AsyncAzureOpenAI": ("AsyncAzureOpenAI", AZURE, "azure.ai.openai", "https://acme.openai.azure.com"),
    "another provider": (
        "OpenAI",
        {"api_key": KEY, "base_url": "https://user:pass@api.deepseek.com:8443/v1?key=1"},
        "deepseek",
        "https://api.deepseek.com:8443",
    ),
}


@pytest.mark.parametrize("name", CLIENTS)
def test_success(observed: Observed, name: str) -> None:
    """Each client class leaves START and SUCCESS on one span, with provider, class and server."""
    kind, arguments, provider, base_url = CLIENTS[name]
    getattr(openai, kind)(**arguments)
    start, success = entries()
    assert isinstance(start, LLMInitializationStart)
    assert isinstance(success, LLMInitializationSuccess)
    assert success.capabilities == "text_generation,tool_calling,streaming"
    assert observed.span(None).name == f"initialize {provider}"
    for entry in (start, success):
        custom = entry.metadata.custom_fields
        assert (entry.provider, custom["client"], custom["base_url"]) == (provider, kind, base_url)
    keys = list(success.metadata.custom_fields)
    assert keys == [
        "provider",
        "status",
        "capabilities",
        "client",
        "base_url",
        "duration_ms",
        "span_id",
        "timestamp",
    ]


#: class, arguments → the exception's type
FAILURES: dict[str, tuple[str, dict[str, Any], type[Exception]]] = {
    "missing credentials": ("OpenAI", {}, openai.OpenAIError),
    "missing credentials, async": ("AsyncOpenAI", {}, openai.OpenAIError),
    "azure without version": ("AzureOpenAI", {"api_key": KEY, "azure_endpoint": "https://a.b"}, ValueError),
    "azure without endpoint": ("AsyncAzureOpenAI", {"api_key": KEY, "api_version": "1"}, ValueError),
    "azure with two endpoints": ("AzureOpenAI", {**AZURE, "base_url": "https://a.b"}, ValueError),
    "max_retries None": ("OpenAI", {"api_key": KEY, "max_retries": None}, TypeError),
    "http_client of the wrong kind": ("OpenAI", {"api_key": KEY, "http_client": "none"}, Exception),
    "bad url": ("OpenAI", {"api_key": KEY, "base_url": "http://[::1"}, Exception),
    "unknown argument": ("OpenAI", {"api_key": KEY, "nonsense": 1}, TypeError),
}


@pytest.mark.parametrize("name", FAILURES)
def test_error(observed: Observed, name: str) -> None:
    """A constructor that raises raises the same, and leaves START and ERROR with its message and no key."""
    kind, arguments, expected = FAILURES[name]
    with pytest.raises(expected) as raised:
        getattr(openai, kind)(**arguments)
    start, error = entries()
    assert isinstance(start, LLMInitializationStart)
    assert isinstance(error, LLMInitializationError)
    assert error.error == str(raised.value).replace(KEY, "[REDACTED]")
    assert error.operation == "llm_initialization"
    custom = error.metadata.custom_fields
    assert (custom["status"], custom["error_type"]) == ("failed", type(raised.value).__qualname__)
    assert [field for field in custom if field != "base_url"] == [  # not always known
        "provider",
        "operation",
        "status",
        "error_type",
        "client",
        "duration_ms",
        "span_id",
        "timestamp",
    ]
    span = observed.span(None)
    assert span.status.description == error.error
    assert KEY not in span.to_json()


@pytest.mark.parametrize(
    ("kind", "url"),
    [
        ("OpenAI", "https://openai.example"),
        ("AzureOpenAI", "https://azure.example"),
        ("BedrockOpenAI", "https://bedrock.example"),
    ],
)
@pytest.mark.parametrize("of_application", [False, True])
@pytest.mark.usefixtures("observed")
def test_the_server_of_a_failed_construction(
    monkeypatch: pytest.MonkeyPatch, kind: str, url: str, *, of_application: bool
) -> None:
    """Provider and server are those that the constructor would have taken from the environment, also a subclass's.

    A URL for WebSockets is not the client's.
    """
    client = getattr(openai, kind, None)
    if client is None:
        pytest.skip(f"this openai has no {kind}")
    monkeypatch.setenv("OPENAI_BASE_URL", "https://openai.example/v1")
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", "https://azure.example")
    monkeypatch.setenv("AWS_BEDROCK_BASE_URL", "https://bedrock.example/v1")
    provider = {"AzureOpenAI": "azure.ai.openai", "BedrockOpenAI": "aws.bedrock"}.get(kind, "openai")
    with pytest.raises(TypeError):
        (type("Assistant", (client,), {}) if of_application else client)(
            websocket_base_url="wss://sockets.example", nonsense=1
        )
    servers = [(entry.provider, entry.metadata.custom_fields["base_url"]) for entry in entries()]
    assert servers == [(provider, url)] * 2


def test_copies_write_nothing(observed: Observed) -> None:
    """copy() and with_options(), of subclasses too, are no initializations."""
    client = openai.AzureOpenAI(**AZURE)
    before = len(entries())
    client.copy(timeout=1)
    client.with_options(max_retries=3).with_options(timeout=2)
    assert len(entries()) == before


def test_a_subclass_is_initialized_once(observed: Observed) -> None:
    """A subclass of the application's own, whose constructor builds another client too, is two, no more."""

    class Mine(openai.OpenAI):
        def __init__(self) -> None:
            super().__init__(api_key=KEY)
            self.other = openai.AsyncOpenAI(api_key=KEY)

    Mine()
    clients = [
        e.metadata.custom_fields["client"] for e in entries() if isinstance(e, LLMInitializationSuccess)
    ]
    assert clients == ["Mine", "AsyncOpenAI"]


def test_a_subclass_whose_url_is_known_later(observed: Observed, monkeypatch: pytest.MonkeyPatch) -> None:
    """A URL that cannot be read yet when the base class is done costs neither the client nor an entry."""
    monkeypatch.setattr(SHIELD, "reraise", False)

    class Regional(openai.OpenAI):
        def __init__(self) -> None:
            super().__init__(api_key=KEY)
            self.region = "eu"

        @property
        def _base_url(self) -> Any:
            return self.first_url.copy_with(host=f"{self.region}.example.com")

        @_base_url.setter
        def _base_url(self, url: Any) -> None:
            self.first_url = url

    assert Regional().base_url.host == "eu.example.com"
    assert [type(e) for e in entries()] == [LLMInitializationStart, LLMInitializationSuccess]


def test_the_module_level_client(
    server: ScriptedServer, observed: Observed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The module-level client is initialized at its first use, and its calls name the server they go to."""
    server.script(reply(json.dumps(wire.completion()).encode()))
    monkeypatch.setattr(openai, "api_key", KEY)
    monkeypatch.setattr(openai, "base_url", server.base_url)
    try:
        openai.chat.completions.create(**wire.REQUEST)
    finally:
        openai._reset_client()
    port = int(server.base_url.split(":")[2].split("/")[0])
    assert observed.attributes()["server.port"] == port
    assert [type(e) for e in entries()][:2] == [LLMInitializationStart, LLMInitializationSuccess]


def test_what_a_client_is_bound_to(observed: Observed) -> None:
    """Model and sampling defaults come from the options, else from Azure's deployment; zeros are written."""
    openai.AzureOpenAI(**AZURE, azure_deployment="gpt-deployed")
    assert {e.model_id for e in entries()} == {"gpt-deployed"}
    observed.instrument(model="gpt-4.1-mini", temperature=0.7, top_p=0.7, max_tokens=0)
    openai.AzureOpenAI(**AZURE, azure_deployment="gpt-deployed")
    start = entries()[2]
    assert isinstance(start, LLMInitializationStart)
    assert (start.model_id, start.temperature) == ("gpt-4.1-mini", 0.7)
    metadata = start.metadata
    assert (metadata.model_version, metadata.max_tokens, metadata.top_p) == ("gpt-4.1-mini", 0, 0.7)
    assert metadata.user == "openai_user"


def test_what_a_client_is_bound_to_can_be_exported(observed: Observed) -> None:
    """A key given as deployment is replaced, and what no attribute can hold is escaped or left out."""
    key = "sk-proj-abc123def456ghi789"
    openai.AzureOpenAI(**AZURE, azure_deployment=key)
    assert {e.model_id for e in entries()} == {"[REDACTED]"}
    observed.instrument(model="\ud83d", max_tokens=10**22)
    openai.OpenAI(api_key="k")
    attributes = dict(observed.spans(None)[-1].attributes or {})
    assert attributes["gen_ai.request.model"] == "\\ud83d"
    assert "gen_ai.request.max_tokens" not in attributes


@pytest.mark.parametrize("capture", ["no_content", "event_only"])
def test_a_failed_construction_quotes_only_what_may_be(capture: str) -> None:
    """What a constructor's message quotes is recorded where content is; with capture off only what failed."""
    with Observed(capture=capture) as observed:
        with pytest.raises(Exception, match="canary"):
            openai.OpenAI(api_key=KEY, base_url="http://127.0.0.1:canary/v1")
        seen = observed.span(None).to_json() + Path("events.log").read_text(encoding="utf-8")
        (_, error) = entries()
    assert isinstance(error, LLMInitializationError)
    assert ("canary" in seen) == (capture == "event_only")
    assert error.metadata.custom_fields["error_type"] in seen


def test_a_long_message_of_a_constructor_is_cut(observed: Observed) -> None:
    """A constructor's message that quotes more than fits is cut, as that of a call."""
    with pytest.raises(Exception, match="xxx"):
        openai.OpenAI(api_key=KEY, base_url=f"http://127.0.0.1:{'x' * 20_000}/v1")
    error = entries()[-1]
    assert isinstance(error, LLMInitializationError)
    assert re.fullmatch(r".{8192}… \[\+\d+ chars\]", error.error)


class SilentError(ValueError):
    """Has no text."""

    def __str__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize("raised", [SilentError, KeyboardInterrupt])
def test_a_constructor_that_raises(raised: type[BaseException]) -> None:
    """What a constructor raises reaches the application, and has its entry and span, even without a text."""

    class Failing(openai.OpenAI):
        def _enforce_trailing_slash(self, url: Any) -> Any:  # which every constructor calls
            raise raised

    with Observed() as observed:
        with pytest.raises(raised):
            Failing(api_key=KEY)
        _, error = entries()
        assert observed.span(None).status.is_ok is False
        assert observed.attributes(None)["error.type"] == raised.__qualname__
    assert isinstance(error, LLMInitializationError)
    assert error.error == raised.__qualname__


def test_a_client_is_not_kept(observed: Observed) -> None:
    """A client that the application drops is freed, and so is what it keeps open."""
    client = openai.OpenAI(api_key=KEY)
    kept = weakref.ref(client)
    del client
    gc.collect()
    assert kept() is None


def test_a_key_from_the_environment_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """A constructor that fails and quotes a key that it found in the environment leaves nothing of it."""
    monkeypatch.setenv("OPENAI_API_KEY", "no-usual-key-zebra")

    class Quoting(openai.OpenAI):
        def _enforce_trailing_slash(self, url: Any) -> Any:  # which every constructor calls
            raise ValueError(f"bad key {self.api_key} for {url}")

    with Observed() as observed:
        with pytest.raises(ValueError, match="zebra"):
            Quoting()
        text = Path("events.log").read_text(encoding="utf-8") + observed.span(None).to_json()
    assert "zebra" not in text
    assert "bad key [REDACTED]" in text


def test_the_clients_key_is_in_no_attribute(server: ScriptedServer, observed: Observed) -> None:
    """The client's key, sent by mistake as model, user or stop sequence, or sent back, is recorded nowhere."""
    server.script(reply(json.dumps(wire.completion(model=KEY)).encode()))
    with openai.OpenAI(api_key=KEY, base_url=server.base_url) as client:
        client.chat.completions.create(model=KEY, messages=[], user=KEY, stop=[KEY])
    text = Path("events.log").read_text(encoding="utf-8") + "".join(s.to_json() for s in observed.spans(None))
    assert KEY not in text + repr(observed.metrics())
    assert observed.generation().model_id == "[REDACTED]"
