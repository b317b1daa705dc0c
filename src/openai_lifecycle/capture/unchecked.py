"""Attributes handed to the SDK as they are, where it would check and clean each again.

That check (``opentelemetry/attributes``, ``_clean_attribute_value``) is a fifth of all that recording a call costs.
What comes here needs none: keys are constants, values are text, numbers, booleans and tuples of texts. An SDK that
has a limit to enforce, whose insides are other ones, or that is none, is given the attributes the public way.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from time import time_ns
from types import FunctionType
from typing import Any, Final, TypeAlias

from opentelemetry.attributes import BoundedAttributes
from opentelemetry.context import get_current
from opentelemetry.metrics import Histogram
from opentelemetry.sdk.trace import Event
from opentelemetry.sdk.trace import Span as SdkSpan
from opentelemetry.trace import Span

from openai_lifecycle.capture.facts import Attributes
from openai_lifecycle.events import assemble

Record: TypeAlias = Callable[[float, Attributes], None]


def _own(kind: type, method: str) -> object:
    """Return a method of one of the SDK's classes, unless somebody has put something else in its place."""
    found = getattr(kind, method)
    is_own = type(found) is FunctionType and found.__globals__ is vars(sys.modules[kind.__module__])
    return found if is_own else None


# A span or histogram whose class does something else here, to hide a value perhaps, is asked to do it.
_SET_ATTRIBUTES: Final = _own(SdkSpan, "set_attributes")
_ADD_EVENT: Final = _own(SdkSpan, "add_event")


def set_attributes(span: Span, attributes: Attributes, *, kept: Attributes) -> None:
    """Set further attributes of a span that is recording: ``Span.set_attributes``.

    Where a limit drops some, those in ``kept``, which the span has already, are not among them.
    """
    if getattr(type(span), "set_attributes", None) is _SET_ATTRIBUTES:
        held = getattr(span, "_attributes", None)
        if type(held) is BoundedAttributes and _takes(held, len(attributes)):
            with held._lock:
                held._dict.update(attributes)
            return
    span.set_attributes(attributes | kept)


def add_event(span: Span, name: str, attributes: Attributes, timestamp: int | None = None) -> None:
    """Add an event to a span that is recording: ``Span.add_event``."""
    if getattr(type(span), "add_event", None) is _ADD_EVENT:
        limits, add = getattr(span, "_limits", None), getattr(span, "_add_event", None)
        if limits is not None and add is not None:
            held = BoundedAttributes(limits.max_event_attributes, max_value_len=limits.max_attribute_length)
            if _takes(held, len(attributes)):
                held._dict.update(attributes)
                add(Event(name, held, timestamp))
                return
    span.add_event(name, attributes, timestamp)


#: What of ``BoundedAttributes`` is relied on.
_KNOWN: Final = all(hasattr(BoundedAttributes(), n) for n in ("_dict", "_lock", "maxlen", "max_value_len"))


def _takes(held: Any, more: int) -> bool:
    """Whether no limit cuts a value or drops an attribute when there are so many more."""
    return (
        _KNOWN
        and held.max_value_len is None
        and (held.maxlen is None or len(held._dict) + more <= held.maxlen)
    )


def recorder(histogram: Histogram) -> Record:
    """Return what records a value in ``histogram``: ``Histogram.record``."""
    sdk = sys.modules.get("opentelemetry.sdk.metrics")  # not imported for nothing
    if sdk is None:
        return histogram.record
    own = _own(sdk.Histogram, "record")
    try:
        kind = _measurement()
        is_enabled: Callable[[], bool] = histogram._is_enabled  # type: ignore[attr-defined]
        consume: Callable[[Any], None] = histogram._measurement_consumer.consume_measurement  # type: ignore[attr-defined]
    except (ImportError, AttributeError):
        return histogram.record

    def record(value: float, attributes: Attributes) -> None:
        if value < 0 or getattr(type(histogram), "record", None) is not own or not is_enabled():
            histogram.record(value, attributes)
        else:
            values = {
                "value": value,
                "time_unix_nano": time_ns(),
                "instrument": histogram,
                "context": get_current(),
                "attributes": attributes,
            }
            consume(assemble(kind, values))

    return record


def _measurement() -> type[Any]:
    """Return the SDK's kind of measurement, which cleans its attributes when it is constructed.

    Raises:
        ImportError, AttributeError: the SDK has another one, or one that cleans nothing.
    """
    from opentelemetry.sdk.metrics._internal.measurement import Measurement

    Measurement.__post_init__  # noqa: B018 - which cleans; without it there is nothing to leave out
    names = [field.name for field in dataclasses.fields(Measurement)]
    if names != ["value", "time_unix_nano", "instrument", "context", "attributes"]:
        raise AttributeError("a measurement has other fields")
    return Measurement
