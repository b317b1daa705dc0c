"""A sampler that limits what goes to the backend, not what is audited."""

from __future__ import annotations

from collections.abc import Sequence

from opentelemetry.context import Context
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, Decision, Sampler, SamplingResult
from opentelemetry.trace import Link, SpanKind, TraceState
from opentelemetry.util.types import Attributes

from openai_lifecycle.shield import SHIELD


class RecordAll(Sampler):
    """Asks another sampler, but records what that one drops.

    A dropped span becomes ``RECORD_ONLY``: it reaches our processor, which ignores the sampled flag, but not the
    exporters of the SDK's processors, which check it. Its context stays unsampled for everything downstream.
    """

    def __init__(self, inner: Sampler) -> None:
        self.inner = inner

    def should_sample(  # noqa: PLR0917 - the SDK's signature
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,  # noqa: ARG002 - the parent context carries it
    ) -> SamplingResult:
        """Return the inner sampler's result, with ``DROP`` turned into ``RECORD_ONLY``; one that raises drops."""
        try:
            result = self.inner.should_sample(parent_context, trace_id, name, kind, attributes, links)
        except Exception as error:  # noqa: BLE001 - cheaper than a with statement
            SHIELD.swallow(error)
            result = ALWAYS_OFF.should_sample(parent_context, trace_id, name, kind, attributes, links)
        # A span starts with the attributes that its sampler returns. One that drops the span returns none, and a
        # composite one only those that it adds (``opentelemetry/sdk/trace/_sampling_experimental/_sampler.py``,
        # ``should_sample``).
        decision = Decision.RECORD_ONLY if result.decision is Decision.DROP else result.decision
        return SamplingResult(decision, {**(attributes or {}), **result.attributes}, result.trace_state)

    def get_description(self) -> str:
        """Return a description for debugging."""
        return f"RecordAll({self.inner.get_description()})"
