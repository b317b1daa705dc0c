"""The GenAI client metrics (conventions of 2026-08, "Generative AI client metrics")."""

from __future__ import annotations

import functools
from typing import Final

from opentelemetry.metrics import MeterProvider, NoOpMeterProvider, get_meter, get_meter_provider

from openai_lifecycle import semconv
from openai_lifecycle.capture.call import Call
from openai_lifecycle.capture.facts import Attributes
from openai_lifecycle.capture.unchecked import Record, record_in
from openai_lifecycle.version import __version__

_SECONDS: Final = [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92]
_TOKENS: Final = [4**power for power in range(14)]
#: The attributes of a metric besides those that a span starts with.
_DIMENSIONS: Final[tuple[str, ...]] = (
    semconv.RESPONSE_MODEL,
    semconv.ERROR_TYPE,
    semconv.OPENAI_RESPONSE_SERVICE_TIER,
    semconv.OPENAI_SYSTEM_FINGERPRINT,
)


def is_unset(provider: object) -> bool:
    """Whether a global provider is the API's proxy for one that is not set yet."""
    return type(provider).__name__.startswith("_Proxy")


class Instruments:
    """Operation duration, token usage, time to first chunk and per output chunk; the global provider's by default."""

    def __init__(self, provider: MeterProvider | None) -> None:
        self._provider = provider
        meter = get_meter(semconv.SCOPE, __version__, provider, semconv.SCHEMA_URL)

        def histogram(name: str, unit: str, description: str, bounds: list[float]) -> Record:
            return record_in(
                meter.create_histogram(name, unit, description, explicit_bucket_boundaries_advisory=bounds)
            )

        self._duration = histogram(
            semconv.DURATION,
            "s",
            "Duration of a GenAI operation, retries included.",
            _SECONDS,
        )
        self._tokens = histogram(
            semconv.TOKEN_USAGE,
            "{token}",
            "Tokens used, input and output.",
            _TOKENS,
        )
        self._first_chunk = histogram(
            semconv.TIME_TO_FIRST_CHUNK_METRIC,
            "s",
            "Time until a stream's first chunk.",
            _SECONDS,
        )
        self._per_chunk = histogram(
            semconv.TIME_PER_OUTPUT_CHUNK,
            "s",
            "Time between the chunks of a stream: one value a stream, the mean after the first chunk.",
            _SECONDS,
        )

    def are_read(self) -> bool:
        """Whether any provider takes what is recorded."""
        provider = self._provider or get_meter_provider()
        return not (isinstance(provider, NoOpMeterProvider) or is_unset(provider))

    def record(self, call: Call, named: Attributes, attributes: Attributes, duration: float) -> None:
        """Record the metrics of a call that ended after ``duration`` seconds.

        Its span started with the attributes ``named`` and got ``attributes`` at its end. The metrics are recorded in
        the call's context, so that an exemplar leads to its span.
        """
        common = named.copy()
        for name in _DIMENSIONS:
            if name in attributes:
                common[name] = attributes[name]
        context = call.context
        self._duration(duration, common, context)
        for kind, name in (("input", semconv.INPUT_TOKENS), ("output", semconv.OUTPUT_TOKENS)):
            count = attributes.get(name, -1)
            if count >= 0:  # a server may count -1, of which the SDK would warn at every call
                self._tokens(count, {**common, semconv.TOKEN_TYPE: kind}, context)
        if call.chunks > 0:
            self._first_chunk(call.first_chunk - call.started, common, context)
        if call.chunks > 1:
            mean = (call.last_chunk - call.first_chunk) / (call.chunks - 1)
            self._per_chunk(mean, common, context)


def instruments(provider: MeterProvider | None) -> Instruments:
    """Return the instruments of ``provider``, the global one if ``None``."""
    return _of_proxy() if is_unset(provider or get_meter_provider()) else Instruments(provider)


@functools.cache
def _of_proxy() -> Instruments:
    """Return the instruments of the API's proxy, made once: it keeps every meter that it makes."""
    return Instruments(None)
