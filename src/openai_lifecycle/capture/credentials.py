"""The credentials of a client, which must not appear in anything recorded."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any, Final


def secrets_of(client: Any) -> tuple[str, ...]:
    """Return the keys that a client holds, which must not appear in anything recorded."""
    # The module-level client has only properties (``openai/__init__.py``, ``_ModuleClient`` and its subclasses).
    kind = type(client)
    if kind.__name__.endswith("ModuleClient") and kind.__module__ == "openai":
        return _texts([getattr(client, name, None) for name in _HELD])
    # Not by attribute: a property of the application's subclass may choose another key at each access.
    return _texts(map(getattr(client, "__dict__", {}).get, _HELD))


#: Attributes of a client that hold a secret (``openai/_client.py``, ``openai/lib/azure.py``).
_HELD: Final = ("api_key", "admin_api_key", "webhook_secret", "_azure_ad_token")


def _texts(values: Iterable[object]) -> tuple[str, ...]:
    return tuple([value for value in values if isinstance(value, str) and value])


#: Secret argument of a constructor → the variable that replaces a missing one (``openai/_client.py``,
#: ``openai/lib/azure.py``, ``openai/lib/bedrock.py``). The last two replace an ``api_key``.
_SECRETS: Final[Mapping[str, str]] = {
    "api_key": "OPENAI_API_KEY",
    "admin_api_key": "OPENAI_ADMIN_KEY",
    "azure_ad_token": "AZURE_OPENAI_AD_TOKEN",
    "webhook_secret": "OPENAI_WEBHOOK_SECRET",
    "aws_secret_access_key": "AWS_SECRET_ACCESS_KEY",
    "aws_session_token": "AWS_SESSION_TOKEN",
    "azure_api_key": "AZURE_OPENAI_API_KEY",
    "bedrock_api_key": "AWS_BEARER_TOKEN_BEDROCK",
}


def secrets_in(arguments: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the secrets that a constructor is given, or finds in the environment."""
    return _texts([*map(arguments.get, _SECRETS), *map(os.environ.get, _SECRETS.values())])


#: The last word of the name of a header with a credential. ``x-amz-security-token`` is one of Bedrock's, which AWS
#: quotes when it refuses a signature (``openai/providers/bedrock.py``); gateways have names of their own.
_CARRYING: Final = frozenset({b"authorization", b"auth", b"key", b"token", b"secret"})


def secrets_sent(headers: Mapping[bytes, bytes]) -> tuple[str, ...]:
    """Return the credentials in the ``headers`` of a request, whose names are in lower case.

    A callable key and an Azure AD token are fetched while the request is built, so only the request has them.
    """
    found = (value for name, value in headers.items() if name.rpartition(b"-")[2] in _CARRYING)
    return _texts(value.decode("latin-1").rpartition(" ")[2] for value in found)
