"""The counter of lost events: one instrument, shared by everything that counts."""

from __future__ import annotations

from opentelemetry.metrics import Counter, MeterProvider, get_meter, get_meter_provider

from openai_lifecycle import semconv
from openai_lifecycle.version import __version__

_started: MeterProvider | None = None  # by this package, because the application has none
#: The latest provider and its counter. Not one for each loss: the API's proxy keeps every meter that it makes.
_latest: tuple[MeterProvider, Counter] | None = None


def use(meter_provider: MeterProvider | None) -> None:
    """Count in ``meter_provider``, which was started because the application has none; in the global one if ``None``."""
    global _started, _latest
    _started, _latest = meter_provider, None


def counter(meter_provider: MeterProvider | None) -> Counter:
    """Return the counter of events that ``events.log`` or a sink could not take.

    An entry that the file could not take went to stderr (attribute ``error.type``); an event that a sink
    could not take is lost (attribute ``sink``).
    """
    global _latest
    provider, latest = meter_provider or _started or get_meter_provider(), _latest
    if latest is None or latest[0] is not provider:
        meter = get_meter(semconv.SCOPE, __version__, provider, semconv.SCHEMA_URL)
        made = meter.create_counter(
            semconv.EVENTS_LOST, "{event}", "Events that events.log or another destination could not take."
        )
        _latest = latest = provider, made
    return latest[1]
