"""Attributes handed to the SDK as they are, where it would check and clean each again.

That check (``opentelemetry/attributes``, ``_clean_attribute_value``) is a fifth of all that recording a call costs.
What comes here needs none: keys are constants, values are text, numbers, booleans and tuples of texts. An SDK that
has a limit to enforce, whose insides are other ones, or that is none, is given the attributes the public way.
"""

from __future__ import annotations

from collections.abc import Callable
from time import time_ns
from typing import Any, Final, TypeAlias

from opentelemetry.attributes import BoundedAttributes
from opentelemetry.context import get_current
from opentelemetry.metrics import Histogram
from opentelemetry.sdk.trace import Event
from opentelemetry.trace import Span

from openai_lifecycle.capture.facts import Attributes

Record: TypeAlias = Callable[[float, Attributes], None]


def set_attributes(span: Span, attributes: Attributes) -> None:
    """Set the attributes of a span that is recording: ``Span.set_attributes``."""
    held = getattr(span, "_attributes", None)
    if type(held) is BoundedAttributes and _takes(held, len(attributes)):
        with held._lock:
            held._dict.update(attributes)
    else:
        span.set_attributes(attributes)


def add_event(span: Span, name: str, attributes: Attributes, timestamp: int | None = None) -> None:
    """Add an event to a span that is recording: ``Span.add_event``."""
    limits, add = getattr(span, "_limits", None), getattr(span, "_add_event", None)
    if limits is not None and add is not None:
        held = BoundedAttributes(limits.max_event_attributes, max_value_len=limits.max_attribute_length)
        if _takes(held, len(attributes)):
            held._dict.update(attributes)
            add(Event(name, held, timestamp))
            return
    span.add_event(name, attributes, timestamp)


#: What of ``BoundedAttributes`` is relied on.
_KNOWN: Final = {"_dict", "_lock", "maxlen", "max_value_len"} <= vars(BoundedAttributes()).keys()


def _takes(held: Any, more: int) -> bool:
    """Whether no limit cuts a value or drops an attribute when there are so many more."""
    return (
        _KNOWN
        and held.max_value_len is None
        and (held.maxlen is None or len(held._dict) + more <= held.maxlen)
    )


def recorder(histogram: Histogram) -> Record:
    """Return what records a value in ``histogram``: ``Histogram.record``."""
    try:
        measurement = _measurement()
        is_enabled: Callable[[], bool] = histogram._is_enabled  # type: ignore[attr-defined]
        consume: Callable[[Any], None] = histogram._measurement_consumer.consume_measurement  # type: ignore[attr-defined]
    except (ImportError, AttributeError):
        return histogram.record

    def record(value: float, attributes: Attributes) -> None:
        if value < 0 or not is_enabled():
            histogram.record(value, attributes)
        else:
            consume(measurement(value, time_ns(), histogram, get_current(), attributes))

    return record


def _measurement() -> type[Any]:
    """Return the SDK's kind of measurement, but one that leaves its attributes alone.

    Raises:
        ImportError, AttributeError: the SDK has another one, or one that cleans nothing.
    """
    from opentelemetry.sdk.metrics._internal.measurement import Measurement

    Measurement.__post_init__  # noqa: B018 - which cleans; without it there is nothing to leave out

    class Clean(Measurement):
        def __post_init__(self) -> None:
            pass

    return Clean
