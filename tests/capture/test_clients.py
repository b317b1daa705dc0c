"""Whose model a client calls, and where: by the client's class and the end of the host's name."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest

from openai_lifecycle.capture.credentials import secrets_in, secrets_of
from openai_lifecycle.capture.endpoints import Endpoint, endpoint_of, parse_endpoint, provider_of
from tests import wire
from tests.observed import Observed
from tests.scripted_server import ScriptedServer, reply

KEY = "sk-test-0123456789abcdef"


@pytest.mark.parametrize(
    ("host", "provider"),
    [
        ("api.openai.com", "openai"),
        ("eu.api.openai.com", "openai"),
        ("API.OpenAI.com.", "openai"),
        ("contoso.openai.azure.com", "azure.ai.openai"),
        ("contoso.openai.azure.us", "azure.ai.openai"),
        ("contoso.cognitiveservices.azure.com", "azure.ai.openai"),
        ("westeurope.api.cognitive.microsoft.com", "azure.ai.openai"),
        ("contoso.services.ai.azure.com", "azure.ai.inference"),
        ("llama.eastus.models.ai.azure.com", "azure.ai.inference"),
        ("bedrock-runtime.us-east-1.amazonaws.com", "aws.bedrock"),
        ("bedrock-runtime-fips.us-gov-west-1.amazonaws.com", "aws.bedrock"),
        ("vpce-0a1b-2c3d.bedrock-runtime.us-east-1.vpce.amazonaws.com", "aws.bedrock"),
        ("bedrock-mantle.eu-west-1.api.aws", "aws.bedrock"),
        ("aiplatform.googleapis.com", "gcp.vertex_ai"),
        ("us-central1-aiplatform.googleapis.com", "gcp.vertex_ai"),
        ("generativelanguage.googleapis.com", "gcp.gemini"),
        ("us-south.ml.cloud.ibm.com", "ibm.watsonx.ai"),
        ("api.anthropic.com", "anthropic"),
        ("api.cohere.ai", "cohere"),
        ("api.deepseek.com", "deepseek"),
        ("api.groq.com", "groq"),
        ("api.mistral.ai", "mistral_ai"),
        ("api.moonshot.cn", "moonshot_ai"),
        ("api.perplexity.ai", "perplexity"),
        ("api.x.ai", "x_ai"),
        ("openrouter.ai", "openrouter"),
        ("api.together.xyz", "together_ai"),
        ("api.fireworks.ai", "fireworks_ai"),
    ],
)
def test_known_hosts(host: str, provider: str) -> None:
    """A provider is known by the end of its host's name, whatever its case."""
    assert provider_of(host, openai.OpenAI) == provider


@pytest.mark.parametrize(
    "host",
    [
        "api.deepseek.com.example.org",
        "notdeepseek.com",
        "deepseek.com-proxy.example.org",
        "mygroq.com",
        "groq.com.evil.test",
        "max.ai",
        "openai.azure.com.example.org",
        "fakeopenai.azure.com",
        "my-loadbalancer-1.us-east-1.elb.amazonaws.com",
        "abc.execute-api.us-east-1.amazonaws.com",
        "vpce-svc-0a1b.us-east-1.vpce.amazonaws.com",
        "bedrock-runtime.amazonaws.com.example.org",
        "run.googleapis.com",
        "aiplatform.googleapis.com.example.org",
        "localhost",
        "127.0.0.1",
        "",
    ],
)
def test_unknown_and_look_alike_hosts(host: str) -> None:
    """A host that only contains a provider's name, or stands on a cloud as anybody's, is an OpenAI-compatible one."""
    assert provider_of(host, openai.OpenAI) == "openai"


@pytest.mark.parametrize(
    ("url", "address", "port", "shown"),
    [
        ("https://api.openai.com/v1/", "api.openai.com", 443, "https://api.openai.com"),
        ("http://localhost:11434/v1", "localhost", 11434, "http://localhost:11434"),
        ("http://user:secret@proxy:80/v1?key=secret", "proxy", 80, "http://proxy:80"),
        ("http://[::1]:8080/v1", "::1", 8080, "http://[::1]:8080"),
        ("wss://api.openai.com/v1", "api.openai.com", 443, "wss://api.openai.com"),
        ("not a url", "", None, ""),
        ("http://host:port/", "", None, ""),
    ],
)
def test_address(url: str, address: str, port: int | None, shown: str) -> None:
    """Address and port are named, also a default one; of the URL nothing is shown that may hold a secret."""
    assert parse_endpoint(url, openai.OpenAI) == Endpoint("openai", address, port, shown)


def _bedrock(**options: Any) -> Any:
    if not hasattr(openai, "BedrockOpenAI"):
        pytest.skip("this openai has no BedrockOpenAI")
    return openai.BedrockOpenAI(**options)


@pytest.mark.parametrize(
    ("make", "provider"),
    [
        (lambda url: openai.OpenAI(api_key=KEY, base_url=url), "openai"),
        (
            lambda url: openai.AzureOpenAI(api_key=KEY, base_url=url, api_version="2024-10-21"),
            "azure.ai.openai",
        ),
        (lambda url: openai.AsyncAzureOpenAI(api_key=KEY, base_url=url, api_version="1"), "azure.ai.openai"),
        (lambda url: _bedrock(api_key=KEY, base_url=url, aws_region="us-east-1"), "aws.bedrock"),
    ],
)
def test_class_of_the_client(make: Any, provider: str) -> None:
    """The class of a client says whose models it calls, also through a gateway; a subclass is what its base is."""
    endpoint = endpoint_of(make("https://gateway.example.org/llm"))
    assert (endpoint.provider, endpoint.address, endpoint.port) == (provider, "gateway.example.org", 443)


def test_class_of_the_application() -> None:
    """An application's own subclass is what its base is, and its name means nothing."""

    class AzureLookingClient(openai.OpenAI):
        pass

    assert (
        endpoint_of(AzureLookingClient(api_key=KEY, base_url="https://api.groq.com/openai/v1")).provider
        == "groq"
    )

    class Mine(openai.AzureOpenAI):
        pass

    mine = Mine(api_key=KEY, azure_endpoint="https://gateway.example.org", api_version="1")
    assert endpoint_of(mine).provider == "azure.ai.openai"


def test_provider_of_the_client() -> None:
    """``OpenAI(provider=…)`` says whose models are called, also through a gateway."""
    vertex = pytest.importorskip("openai.providers.vertex", reason="this openai has no providers")
    url = "https://gateway.example.org/v1"
    client = openai.OpenAI(provider=vertex.vertex(base_url=url, token_provider=lambda: "t"))
    assert endpoint_of(client).provider == "gcp.vertex_ai"


def test_base_url_that_changes() -> None:
    """The endpoint of a client follows its ``base_url``, and that of a copy its own."""
    client = openai.OpenAI(api_key=KEY, base_url="https://api.groq.com/openai/v1")
    assert endpoint_of(client).provider == "groq"
    assert endpoint_of(client) is endpoint_of(client)
    assert endpoint_of(client.with_options(base_url="https://api.deepseek.com")).provider == "deepseek"
    client.base_url = "https://api.mistral.ai/v1"
    assert endpoint_of(client).provider == "mistral_ai"


def test_module_level_client(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client that ``openai.chat`` uses takes its address from module variables, at each call."""
    server.script(reply(json.dumps(wire.completion()).encode()))
    monkeypatch.setattr(openai, "api_key", KEY)
    monkeypatch.setattr(openai, "_client", None, raising=False)
    with Observed() as observed:
        monkeypatch.setattr(openai, "base_url", server.base_url)
        openai.chat.completions.create(**wire.REQUEST)
        assert observed.attributes()["server.port"] == int(server.base_url.split(":")[2].split("/")[0])


def test_secrets() -> None:
    """The keys of a client are known, so that nothing recorded shows them; a key provider has none to show."""
    assert secrets_of(openai.OpenAI(api_key=KEY)) == (KEY,)
    assert secrets_of(object()) == ()
    module = type("_ModuleClient", (), {"__module__": "openai", "admin_api_key": property(lambda _: KEY)})
    assert secrets_of(module()) == (KEY,)


@pytest.mark.parametrize("name", ["api_key", "admin_api_key", "webhook_secret", "_azure_ad_token"])
def test_every_secret_of_a_client(name: str) -> None:
    """Each kind of key that a client of some version and class holds is known."""
    client = openai.OpenAI(api_key="k")
    setattr(client, name, KEY)
    assert KEY in secrets_of(client)


@pytest.mark.parametrize(
    ("argument", "variable"),
    [
        ("api_key", "OPENAI_API_KEY"),
        ("api_key", "AZURE_OPENAI_API_KEY"),
        ("admin_api_key", "OPENAI_ADMIN_KEY"),
        ("azure_ad_token", "AZURE_OPENAI_AD_TOKEN"),
        ("webhook_secret", "OPENAI_WEBHOOK_SECRET"),
        ("api_key", "AWS_BEARER_TOKEN_BEDROCK"),
        ("aws_secret_access_key", "AWS_SECRET_ACCESS_KEY"),
        ("aws_session_token", "AWS_SESSION_TOKEN"),
    ],
)
def test_every_secret_of_a_constructor(monkeypatch: pytest.MonkeyPatch, argument: str, variable: str) -> None:
    """Each kind of key that a constructor is given, or finds in the environment, is known when it fails."""
    assert KEY in secrets_in({argument: KEY})
    monkeypatch.setenv(variable, KEY)
    assert KEY in secrets_in({})
