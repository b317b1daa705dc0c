"""Which server a client talks to, and which provider runs it.

The provider follows from the client's class and the host. The end of the host is matched label by label, so
``api.openai.com.example.org`` is unknown.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any, Final
from urllib.parse import urlsplit

from openai_lifecycle import semconv
from openai_lifecycle.capture.facts import Attributes

#: End of the host's name → ``gen_ai.provider.name``: the conventions' value, else the provider's own name.
#: ``*`` matches within one label. On a cloud's domains only the model service's hosts count, not those of its customers.
PROVIDERS: Final[Mapping[str, str]] = {
    "openai.com": "openai",
    "openai.azure.com": "azure.ai.openai",
    "openai.azure.us": "azure.ai.openai",
    "openai.azure.cn": "azure.ai.openai",
    "cognitiveservices.azure.com": "azure.ai.openai",
    "api.cognitive.microsoft.com": "azure.ai.openai",
    "services.ai.azure.com": "azure.ai.inference",
    "models.ai.azure.com": "azure.ai.inference",
    "inference.ai.azure.com": "azure.ai.inference",
    "bedrock*.*.amazonaws.com": "aws.bedrock",
    "bedrock*.*.vpce.amazonaws.com": "aws.bedrock",
    "bedrock*.*.amazonaws.com.cn": "aws.bedrock",
    "bedrock*.*.amazonaws.eu": "aws.bedrock",
    "bedrock*.*.api.aws": "aws.bedrock",
    "aiplatform.googleapis.com": "gcp.vertex_ai",
    "*-aiplatform.googleapis.com": "gcp.vertex_ai",
    "aiplatform.*.rep.googleapis.com": "gcp.vertex_ai",
    "generativelanguage.googleapis.com": "gcp.gemini",
    "ml.cloud.ibm.com": "ibm.watsonx.ai",
    "anthropic.com": "anthropic",
    "cohere.ai": "cohere",
    "cohere.com": "cohere",
    "deepseek.com": "deepseek",
    "groq.com": "groq",
    "mistral.ai": "mistral_ai",
    "moonshot.ai": "moonshot_ai",
    "moonshot.cn": "moonshot_ai",
    "perplexity.ai": "perplexity",
    "x.ai": "x_ai",
    "openrouter.ai": "openrouter",
    "together.xyz": "together_ai",
    "together.ai": "together_ai",
    "fireworks.ai": "fireworks_ai",
}
#: Part of a client class's name → its provider, whatever the host.
_BY_CLASS: Final[Mapping[str, str]] = {"Azure": "azure.ai.openai", "Bedrock": "aws.bedrock"}
#: The same for the runtime of ``OpenAI(provider=…)`` (``openai/providers``), whose host may be a gateway.
_BY_RUNTIME: Final[Mapping[str, str]] = {"vertex": "gcp.vertex_ai", "bedrock": "aws.bedrock"}
_DEFAULT_PORTS: Final[Mapping[str, int]] = {"https": 443, "wss": 443, "http": 80, "ws": 80}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The server of a client: ``base_url`` is scheme, host and port only.

    ``chosen_by`` is the class of a client of the application's that may choose another server for each request, which
    only the URL of the request tells; ``None`` for any other client.
    """

    provider: str
    address: str = ""
    port: int | None = None
    base_url: str = ""
    chosen_by: type | None = None

    def attributes(self) -> Attributes:
        """Return the server's span attributes."""
        attributes: Attributes = {semconv.PROVIDER: self.provider}
        if self.address:
            attributes[semconv.SERVER_ADDRESS] = self.address
        if self.port:
            attributes[semconv.SERVER_PORT] = self.port
        return attributes


def provider_of(host: str, client: type) -> str:
    """Return ``gen_ai.provider.name`` for a host and the class of the client that calls it."""
    for base in client.__mro__:
        for marker, provider in _BY_CLASS.items():
            # Of a class that the package exports, the module is ``openai`` alone (``openai/__init__.py``, at its end).
            if marker in base.__name__ and base.__module__.partition(".")[0] == "openai":
                return provider
    return _provider_at(host.lower().rstrip("."))


@lru_cache(maxsize=256)
def _provider_at(host: str) -> str:
    """Return the provider of a host; ``openai`` for an unknown one, because it speaks OpenAI's API."""
    labels = host.split(".")
    for pattern, provider in PROVIDERS.items():
        wanted = pattern.split(".")
        if len(labels) >= len(wanted) and all(map(fnmatchcase, labels[-len(wanted) :], wanted)):
            return provider
    return "openai"


def parse_endpoint(url: object, client: type) -> Endpoint:
    """Return the endpoint of ``url``, which a ``client`` of that class calls; user, password, path and query are left out."""
    try:
        parts = urlsplit(str(url))
        host, port = parts.hostname, parts.port or _DEFAULT_PORTS.get(parts.scheme)
    except ValueError:
        host = None
    if not host:
        return Endpoint(provider_of("", client))
    shown = f"[{host}]" if ":" in host else host
    explicit = "" if parts.port is None else f":{parts.port}"
    return Endpoint(provider_of(host, client), host, port, f"{parts.scheme}://{shown}{explicit}")


#: ``id(client)`` → client, its URL, its endpoint. By identity, because a subclass may override ``__eq__``.
_endpoints: dict[int, tuple[weakref.ref[Any], Any, Endpoint]] = {}


def endpoint_of(client: Any) -> Endpoint:
    """Return the endpoint of a constructed client, cached per client while its URL is the same object."""
    key = id(client)
    kept = _endpoints.get(key)
    if kept is not None and kept[1] is client._base_url and kept[0]() is client:
        return kept[2]
    owner = _owner_of_url(client)
    if owner not in _CLIENTS:
        endpoint = _endpoint(client, url_of(client))
        return endpoint if owner == _MODULE else replace(endpoint, chosen_by=type(client))
    current = client._base_url
    endpoint = _endpoint(client, current)
    _endpoints[key] = weakref.ref(client, lambda _: _endpoints.pop(key, None)), current, endpoint
    return endpoint


#: Modules whose property ``base_url`` returns ``_base_url``; and the one whose module-level client computes it from
#: module variables (``openai/__init__.py``, ``_ModuleClient``).
_CLIENTS: Final = ("openai._base_client", "openai._client")
_MODULE: Final = "openai"


def url_of(client: Any) -> Any:
    """Return the ``base_url`` of a client, without calling a property of the application's: it may balance load."""
    return client.base_url if _owner_of_url(client) == _MODULE else client._base_url


def _owner_of_url(client: Any) -> str | None:
    """Return the module that the property ``base_url`` of a client's class is from."""
    return getattr(getattr(type(client).base_url, "fget", None), "__module__", None)


def _endpoint(client: Any, url: object) -> Endpoint:
    endpoint = parse_endpoint(url, type(client))
    runtime = getattr(client, "_provider_runtime", None)  # OpenAI(provider=…), since openai 2.54
    if runtime is None:
        return endpoint
    return replace(endpoint, provider=_BY_RUNTIME.get(runtime.name, endpoint.provider))


#: Provider of a client's class → the variable that its constructor reads (``openai/lib/azure.py``,
#: ``openai/providers/bedrock.py``); all others read ``OPENAI_BASE_URL``.
_URL_VARIABLES: Final[Mapping[str, str]] = {
    "azure.ai.openai": "AZURE_OPENAI_ENDPOINT",
    "aws.bedrock": "AWS_BEDROCK_BASE_URL",
}


def endpoint_in(client: type, arguments: Mapping[str, Any]) -> Endpoint:
    """Return the endpoint that a constructor's arguments or the environment name, for when the construction fails."""
    variable = _URL_VARIABLES.get(provider_of("", client), "OPENAI_BASE_URL")
    url = arguments.get("base_url") or arguments.get("azure_endpoint") or os.environ.get(variable)
    return parse_endpoint(url or "", client)
