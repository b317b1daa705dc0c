"""Passes attributes to the SDK without its check and cleaning of each.

That check (``opentelemetry/attributes``, ``_clean_attribute_value``) is a fifth of the cost of recording a
call. Our attributes need none: keys are constants, values are text, numbers, booleans and tuples of texts.
The public methods are used if the SDK enforces a limit or has different internals, and for any other class.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from time import time_ns
from types import FunctionType
from typing import Any, Final, TypeAlias

from opentelemetry.attributes import BoundedAttributes
from opentelemetry.context import Context
from opentelemetry.metrics import Histogram
from opentelemetry.sdk.trace import Event
from opentelemetry.sdk.trace import Span as SdkSpan
from opentelemetry.trace import Span

from openai_lifecycle.capture.facts import Attributes
from openai_lifecycle.events import assemble

Record: TypeAlias = Callable[[float, Attributes, Context], None]


def _own(kind: type, method: str) -> object:
    """Return a method of one of the SDK's classes, ``None`` if somebody has replaced it."""
    found = getattr(kind, method)
    is_own = type(found) is FunctionType and found.__globals__ is vars(sys.modules[kind.__module__])
    return found if is_own else None


# If a span's or histogram's class overrides these, perhaps to hide a value, its own method is called.
_SET_ATTRIBUTES: Final = _own(SdkSpan, "set_attributes")
_ADD_EVENT: Final = _own(SdkSpan, "add_event")


def set_attributes(span: Span, attributes: Attributes, *, kept: Attributes) -> None:
    """Set further attributes of a recording span, like ``Span.set_attributes``.

    If a limit drops some, it does not drop those in ``kept``, which the span already has.
    """
    if getattr(type(span), "set_attributes", None) is _SET_ATTRIBUTES:
        held = getattr(span, "_attributes", None)
        if _KNOWN and type(held) is BoundedAttributes:
            count = len(held._dict) + len(attributes)
            if _is_within(count, held.maxlen, held.max_value_len):
                with held._lock:
                    held._dict.update(attributes)
                return
    span.set_attributes(attributes | kept)


def add_event(span: Span, name: str, attributes: Attributes, timestamp: int | None = None) -> None:
    """Add an event to a recording span, like ``Span.add_event``."""
    if getattr(type(span), "add_event", None) is _ADD_EVENT:
        limits, add = getattr(span, "_limits", None), getattr(span, "_add_event", None)
        if limits is not None and add is not None:
            count = len(attributes)
            if _is_within(count, limits.max_event_attributes, limits.max_attribute_length):
                add(Event(name, attributes, timestamp))
                return
    span.add_event(name, attributes, timestamp)


#: Whether ``BoundedAttributes`` has the internals that we rely on.
_KNOWN: Final = all(hasattr(BoundedAttributes(), n) for n in ("_dict", "_lock", "maxlen", "max_value_len"))


def _is_within(count: int, most: int | None, longest: int | None) -> bool:
    """Whether the limits neither drop one of ``count`` attributes nor cut a value."""
    return longest is None and (most is None or count <= most)


def record_in(histogram: Histogram) -> Record:
    """Return a function that records a value in ``histogram``, like ``Histogram.record``."""
    sdk = sys.modules.get("opentelemetry.sdk.metrics")  # do not import it just for this
    if sdk is None:
        return histogram.record
    own = _own(sdk.Histogram, "record")
    try:
        kind = _measurement()
        is_enabled: Callable[[], bool] = histogram._is_enabled  # type: ignore[attr-defined]
        consume: Callable[[Any], None] = histogram._measurement_consumer.consume_measurement  # type: ignore[attr-defined]
    except (ImportError, AttributeError):
        return histogram.record

    def record(value: float, attributes: Attributes, context: Context) -> None:
        if value < 0 or getattr(type(histogram), "record", None) is not own or not is_enabled():
            histogram.record(value, attributes, context)
        else:
            values = {
                "value": value,
                "time_unix_nano": time_ns(),
                "instrument": histogram,
                "context": context,
                "attributes": attributes,
            }
            consume(assemble(kind, values))

    return record


def _measurement() -> type[Any]:
    """Return the SDK's measurement class, whose constructor cleans the attributes.

    Raises:
        ImportError, AttributeError: the SDK has a different one, or one that cleans nothing.
    """
    from opentelemetry.sdk.metrics._internal.measurement import Measurement

    Measurement.__post_init__  # noqa: B018 - it cleans; without it there is nothing to bypass
    names = [field.name for field in dataclasses.fields(Measurement)]
    if names != ["value", "time_unix_nano", "instrument", "context", "attributes"]:
        raise AttributeError("a measurement has other fields")
    return Measurement
