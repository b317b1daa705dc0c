"""What instrumentation observed: the spans in memory, the entries of ``events.log``, the metrics."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from opentelemetry.attributes import BoundedAttributes
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from typing_extensions import Self

import openai_lifecycle
from openai_lifecycle.events import LifecycleEvent, LLMGenerationError, LLMGenerationSuccess, ToolCallDetected
from openai_lifecycle.eventslog.format import parse


def entries(path: str | Path = "events.log") -> list[LifecycleEvent]:
    """Return the entries of a log file, each of which must be whole."""
    file = Path(path)
    texts = file.read_text(encoding="utf-8").split("}\n\n") if file.exists() else [""]
    assert texts.pop() == "", "the log ends within an entry"
    return [parse(text + "}\n") for text in texts]


def generations(path: str | Path = "events.log") -> list[LLMGenerationSuccess | LLMGenerationError]:
    """Return the ``GENERATION_*`` entries of a log file."""
    return [e for e in entries(path) if isinstance(e, (LLMGenerationSuccess, LLMGenerationError))]


class Observed:
    """Instruments on entry, undoes it on exit; ``options`` are those of ``instrument()``."""

    def __init__(self, **options: Any) -> None:
        self._options = options
        self._spans = InMemorySpanExporter()
        self._reader = InMemoryMetricReader()
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self._spans))
        self.meters = MeterProvider([self._reader], shutdown_on_exit=False)

    def __enter__(self) -> Self:
        self.instrument()
        return self

    def __exit__(self, *_: object) -> None:
        openai_lifecycle.uninstrument()
        for span in self.spans(None):
            _assert_clean(span.attributes)
            for event in span.events:
                _assert_clean(event.attributes)
        self.provider.shutdown()
        self.meters.shutdown()

    def instrument(self, **options: Any) -> None:
        """Instrument, again if need be, with ``options`` on top of the first ones."""
        openai_lifecycle.uninstrument()
        openai_lifecycle.instrument(
            tracer_provider=self.provider, meter_provider=self.meters, **{**self._options, **options}
        )

    def clear(self) -> None:
        """Forget what was observed so far."""
        self._spans.clear()
        Path("events.log").unlink(missing_ok=True)

    def spans(self, operation: str | None = "chat") -> list[ReadableSpan]:
        """Return the finished spans of one operation, of all with ``None``."""
        return [
            span
            for span in self._spans.get_finished_spans()
            if operation is None or (span.attributes or {}).get("gen_ai.operation.name") == operation
        ]

    def span(self, operation: str | None = "chat") -> ReadableSpan:
        """Return the one span of an operation."""
        (span,) = self.spans(operation)
        return span

    def attributes(self, operation: str | None = "chat") -> dict[str, Any]:
        """Return the attributes of the one span of an operation."""
        return dict(self.span(operation).attributes or {})

    def generation(self) -> LLMGenerationSuccess | LLMGenerationError:
        """Return the one ``GENERATION_*`` entry of the log."""
        (entry,) = generations()
        return entry

    def tool_calls(self) -> list[ToolCallDetected]:
        """Return the ``TOOL_CALL_DETECTED`` entries of the log."""
        return [e for e in entries() if isinstance(e, ToolCallDetected)]

    def metrics(self) -> dict[str, list[Any]]:
        """Return the data points recorded, by metric name."""
        data = self._reader.get_metrics_data()
        found: dict[str, list[Any]] = {
            metric.name: list(metric.data.data_points)
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }
        for point in (point for points in found.values() for point in points):
            _assert_clean(point.attributes)
        return found


def _assert_clean(attributes: Mapping[str, Any] | None) -> None:
    """Everything is recorded as the SDK would have it: it is not given the chance to mend it (``unchecked.py``)."""
    recorded = dict(attributes or {})
    assert dict(BoundedAttributes(attributes=recorded)) == recorded
