"""What is handed to the SDK unchecked arrives as if it had been handed over the public way."""

from __future__ import annotations

import copy
from typing import Any, Final

import pytest
from opentelemetry.attributes import BoundedAttributes
from opentelemetry.context import Context
from opentelemetry.metrics import NoOpMeterProvider, get_meter
from opentelemetry.sdk.metrics import Histogram, MeterProvider
from opentelemetry.sdk.metrics._internal.measurement import Measurement
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, MetricsData
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanLimits, TracerProvider
from opentelemetry.trace import INVALID_SPAN

from openai_lifecycle.capture import unchecked

_ATTRIBUTES: dict[str, Any] = {"text": "four score", "whole": 7, "part": 0.5, "yes": True, "all": ("a", "b")}
_NOWHERE: Final = Context()


def _span(limits: SpanLimits | None, *, publicly: bool) -> ReadableSpan:
    span: Any = TracerProvider(span_limits=limits, shutdown_on_exit=False).get_tracer("test").start_span("s")
    span.set_attribute("whole", "before")
    span.set_attributes(_ATTRIBUTES) if publicly else unchecked.set_attributes(span, _ATTRIBUTES, kept={})
    readable: ReadableSpan = span
    return readable


@pytest.mark.parametrize(
    "limits", [None, SpanLimits(max_span_attributes=3), SpanLimits(max_span_attribute_length=4)]
)
@pytest.mark.filterwarnings("ignore")
def test_span_attributes(limits: SpanLimits | None) -> None:
    """A span holds the same attributes, cut and dropped by the same limits, as after ``set_attributes``."""
    ours, theirs = _span(limits, publicly=False), _span(limits, publicly=True)
    assert dict(ours.attributes or {}) == dict(theirs.attributes or {})
    assert ours.dropped_attributes == theirs.dropped_attributes


@pytest.mark.parametrize(
    "limits", [None, SpanLimits(max_event_attributes=3), SpanLimits(max_attribute_length=4)]
)
@pytest.mark.filterwarnings("ignore")
def test_event(limits: SpanLimits | None) -> None:
    """An event is the same, cut by the same limits, as after ``add_event``."""
    span: Any = TracerProvider(span_limits=limits, shutdown_on_exit=False).get_tracer("test").start_span("s")
    unchecked.add_event(span, "happened", _ATTRIBUTES, 7)
    span.add_event("happened", _ATTRIBUTES, 7)
    ours, theirs = span.events
    assert (ours.name, ours.timestamp) == (theirs.name, theirs.timestamp)
    assert dict(ours.attributes) == dict(theirs.attributes)
    assert ours.dropped_attributes == theirs.dropped_attributes
    if limits is None:  # as exporters do that change a copy
        assert dict(copy.deepcopy(ours).attributes) == dict(ours.attributes)


def test_spans_of_other_kinds() -> None:
    """A span that is none of the SDK's, or whose attributes the SDK holds in another way, gets them publicly."""
    unchecked.set_attributes(INVALID_SPAN, _ATTRIBUTES, kept={})
    unchecked.add_event(INVALID_SPAN, "happened", _ATTRIBUTES)
    span: Any = TracerProvider(shutdown_on_exit=False).get_tracer("test").start_span("s")
    span._attributes = type("Changed", (BoundedAttributes,), {})(immutable=False)
    unchecked.set_attributes(span, _ATTRIBUTES, kept={})
    assert dict(span.attributes) == _ATTRIBUTES


def _recorded(*, publicly: bool) -> MetricsData | None:
    reader = InMemoryMetricReader()
    histogram = MeterProvider([reader], shutdown_on_exit=False).get_meter("test").create_histogram("h", "s")
    record = histogram.record if publicly else unchecked.record_in(histogram)
    for value in (0, 1.5, 7):
        record(value, {"kind": "some", "count": 1}, _NOWHERE)
        record(value, {"kind": "other", "count": 1}, _NOWHERE)
    return reader.get_metrics_data()


def _points(data: MetricsData | None) -> list[tuple[Any, ...]]:
    assert data is not None
    points: Any = data.resource_metrics[0].scope_metrics[0].metrics[0].data.data_points
    return [(dict(p.attributes), p.count, p.sum, p.min, p.max, tuple(p.bucket_counts)) for p in points]


def test_measurements() -> None:
    """A histogram ends with the same points as after ``record``."""
    points = _points(_recorded(publicly=False))
    assert points == _points(_recorded(publicly=True))
    assert [count for _, count, *_ in points] == [3, 3]


def test_negative_measurement(caplog: pytest.LogCaptureFixture) -> None:
    """A negative value is refused by the SDK in its own words, and not recorded."""
    reader = InMemoryMetricReader()
    histogram = MeterProvider([reader], shutdown_on_exit=False).get_meter("test").create_histogram("h")
    unchecked.record_in(histogram)(-1, {}, _NOWHERE)
    assert reader.get_metrics_data() is None
    assert "non-negative" in caplog.text


def test_histograms_of_other_kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A histogram that is none of the SDK's, or has other insides, records the public way."""
    absent = get_meter("test", meter_provider=NoOpMeterProvider()).create_histogram("h")
    assert unchecked.record_in(absent) == absent.record
    monkeypatch.delattr(Measurement, "__post_init__", raising=False)
    histogram = MeterProvider(shutdown_on_exit=False).get_meter("test").create_histogram("h")
    assert unchecked.record_in(histogram) == histogram.record


class _Masks:
    """Stands before a span or histogram and hides what it is given."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def set_attributes(self, attributes: dict[str, Any]) -> None:
        self._inner.set_attributes(dict.fromkeys(attributes, "***"))

    def add_event(self, name: str, attributes: dict[str, Any], timestamp: int | None = None) -> None:
        self._inner.add_event(name, dict.fromkeys(attributes, "***"), timestamp)

    def record(self, value: float, attributes: dict[str, Any], context: Context) -> None:
        self._inner.record(value, dict.fromkeys(attributes, "***"), context)


def test_what_stands_before_the_sdk_is_asked() -> None:
    """An application's proxy of a span or histogram, which hides values, is not passed by."""
    span: Any = TracerProvider(shutdown_on_exit=False).get_tracer("test").start_span("s")
    reader = InMemoryMetricReader()
    histogram = MeterProvider([reader], shutdown_on_exit=False).get_meter("test").create_histogram("h")
    masked: Any = _Masks(span)
    unchecked.set_attributes(masked, _ATTRIBUTES, kept={})
    unchecked.add_event(masked, "happened", _ATTRIBUTES)
    masked = _Masks(histogram)
    unchecked.record_in(masked)(1, {"kind": "some"}, _NOWHERE)
    hidden = dict.fromkeys(_ATTRIBUTES, "***")
    assert (dict(span.attributes), dict(span.events[0].attributes)) == (hidden, hidden)
    assert _points(reader.get_metrics_data())[0][0] == {"kind": "***"}


def test_patched_methods_are_called(monkeypatch: pytest.MonkeyPatch) -> None:
    """Methods of the SDK's that somebody has replaced do what they were replaced for."""
    seen: list[object] = []
    for kind, method in ((Span, "set_attributes"), (Span, "add_event"), (Histogram, "record")):
        monkeypatch.setattr(kind, method, lambda _, value, *__: seen.append(value))
    span: Any = TracerProvider(shutdown_on_exit=False).get_tracer("test").start_span("s")
    histogram = MeterProvider(shutdown_on_exit=False).get_meter("test").create_histogram("h")
    unchecked.set_attributes(span, {"kind": "some"}, kept={})
    unchecked.add_event(span, "happened", {})
    unchecked.record_in(histogram)(1, {}, _NOWHERE)
    assert seen == [{"kind": "some"}, "happened", 1]


def test_a_limit_drops_none_of_what_a_span_was_started_with() -> None:
    """Of more attributes than fit, those stay that say whose call it was."""
    provider = TracerProvider(span_limits=SpanLimits(max_span_attributes=4), shutdown_on_exit=False)
    kept = {"gen_ai.provider.name": "openai", "gen_ai.request.model": "m"}
    span: Any = provider.get_tracer("test").start_span("s", attributes=kept)
    unchecked.set_attributes(span, _ATTRIBUTES, kept=kept)
    assert dict(span.attributes) == {"yes": True, "all": ("a", "b"), **kept}
