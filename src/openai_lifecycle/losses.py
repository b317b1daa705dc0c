"""The count of events that were lost: one instrument, whoever counts."""

from __future__ import annotations

from opentelemetry.metrics import Counter, MeterProvider, get_meter

from openai_lifecycle import semconv
from openai_lifecycle.version import __version__


def counter(meter_provider: MeterProvider | None) -> Counter:
    """Return the counter of entries that ``events.log``, or of events that a sink, could not take.

    An entry that the file could not take went to stderr (attribute ``error.type``); what a sink could not take
    is gone (attribute ``sink``).
    """
    meter = get_meter(semconv.SCOPE, __version__, meter_provider, semconv.SCHEMA_URL)
    return meter.create_counter(
        semconv.EVENTS_LOST, "{event}", "Events that events.log or another destination could not take."
    )
