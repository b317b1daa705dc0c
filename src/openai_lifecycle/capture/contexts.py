"""Contexts: one is current for a while, where the runtime context can take it back, or travels in headers."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from contextvars import Token
from typing import Final

from opentelemetry import context, propagate

_PROBE: Final = context.create_key("openai-lifecycle-probe")


@functools.cache  # there is one runtime context in a process, chosen when the API is imported
def _gives_back() -> bool:
    """Return whether the runtime context returns what is attached to it.

    Datadog's keeps only the span, as the parent of all that follows, and never takes it back
    (``ddtrace/internal/opentelemetry/context.py``, ``attach`` and ``detach``).
    """
    token = context.attach(context.set_value(_PROBE, True))  # noqa: FBT003 - a value of any type
    try:
        return context.get_value(_PROBE) is True
    finally:
        context.detach(token)


def attach(current: context.Context) -> Token[context.Context] | None:
    """Make ``current`` the current context; return what :func:`detach` takes, ``None`` if nothing was done."""
    return context.attach(current) if _gives_back() else None


def detach(token: Token[context.Context] | None) -> None:
    """Undo :func:`attach`."""
    if token is not None:
        context.detach(token)


def with_trace(headers: Mapping[str, str], carried: context.Context | None = None) -> dict[str, str]:
    """Return ``headers`` with those that carry a context, by default the current one."""
    carrier = dict(headers)
    propagate.inject(carrier, carried)
    return carrier
