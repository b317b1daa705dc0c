"""The operation table: (method, path) → operation. The one place to add an endpoint.

What is not in the table passes through untouched.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from openai_lifecycle.capture.facts import Operation
from openai_lifecycle.capture.operations.chat import CHAT

ROUTES: Final[Mapping[tuple[str, str], Operation]] = {
    ("post", "/chat/completions"): CHAT,
}


def find(method: str, url: str) -> Operation | None:
    """Return the operation that serves ``method url``, or ``None``.

    ``url`` is as the resource classes pass it: a path, still without Azure's ``/deployments/…`` prefix, which
    ``_build_request`` adds later (``openai/lib/azure.py``); the beta resources append a query.
    """
    return ROUTES.get((method.lower(), url.partition("?")[0]))
