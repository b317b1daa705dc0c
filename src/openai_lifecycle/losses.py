"""The counter of lost events: one instrument, shared by everything that counts."""

from __future__ import annotations

from opentelemetry.metrics import Counter, MeterProvider, get_meter

from openai_lifecycle import semconv
from openai_lifecycle.version import __version__

_started: MeterProvider | None = None


def use(meter_provider: MeterProvider | None) -> None:
    """Count in ``meter_provider``, which was started because the application has none; in the global one if ``None``."""
    global _started
    _started = meter_provider


def counter(meter_provider: MeterProvider | None) -> Counter:
    """Return the counter of events that ``events.log`` or a sink could not take.

    An entry that the file could not take went to stderr (attribute ``error.type``); an event that a sink
    could not take is lost (attribute ``sink``).
    """
    meter = get_meter(semconv.SCOPE, __version__, meter_provider or _started, semconv.SCHEMA_URL)
    return meter.create_counter(
        semconv.EVENTS_LOST, "{event}", "Events that events.log or another destination could not take."
    )
