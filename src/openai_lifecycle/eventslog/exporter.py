"""Finished spans → lifecycle events → text → the file.

:class:`EventsLogExporter` is an ordinary ``SpanExporter``; ``OTEL_TRACES_EXPORTER=events_log`` selects it.
:class:`EventsLogProcessor` is what ``instrument()`` attaches. Unlike the SDK's two processors it exports a span in
the thread that ended it, so the entry is written before the call returns, and it does not skip spans that the
sampler dropped (``opentelemetry/sdk/trace/export/__init__.py``, ``on_end``).

A span may come to an exporter in three ways, and its entries are written once to each place, a file or a set of sinks:

* The processor gives its exporter every span of its provider that ends.
* A span of ours does not reach the processor if one before that raises. So the pipeline calls
  :meth:`EventsLogExporter.complete` when it has ended a span: of these two, the first takes it (``_TAKEN``).
* The application's own pipeline may have an exporter, which gets what is sampled. One that ``OTEL_TRACES_EXPORTER`` has
  made leaves the span to the processor that writes to the same place (``_OWNERS``).

Whoever has a span writes to those of its places that the span bears no mark of yet (:func:`_claim`).
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from openai_lifecycle import codec, foreign
from openai_lifecycle.eventslog.file import EventsFile
from openai_lifecycle.eventslog.overlap import Overlap
from openai_lifecycle.eventslog.transform import Entry, Renderer
from openai_lifecycle.options import Options, read
from openai_lifecycle.shield import SHIELD

if TYPE_CHECKING:
    from openai_lifecycle.sinks.dispatch import Dispatcher

_OVERLAP: Final = Overlap()
#: Where entries go → the processor of ``instrument()`` that writes them.
_OWNERS: weakref.WeakValueDictionary[str, EventsLogProcessor] = weakref.WeakValueDictionary()
#: The mark of a span of ours that was given to an exporter once it had ended.
_TAKEN: Final = "_openai_lifecycle_taken"


class EventsLogExporter(SpanExporter):
    """Writes the lifecycle events of spans to ``events.log``.

    Takes the keywords of ``instrument()``; one that is not given comes from its variable. An exporter made without
    any, as by ``OTEL_TRACES_EXPORTER``, leaves entries for the same file to ``instrument()``, whose ``transform``, if
    any, must not be bypassed.

    Raises:
        TypeError: a keyword is not an option.
        ValueError: a keyword's value is not allowed.
    """

    def __init__(self, options: Options | None = None, **keywords: Any) -> None:
        self._options = options or read(keywords)
        self._file = EventsFile(self._options) if self._options.events_log else None
        self._sinks = _dispatcher(self._options) if self._options.sinks else None
        self._renderer = Renderer(self._options.transform)
        self.place = self._file.path if self._file else "sinks"  # where entries go
        # Marks of a span whose entries are there already. Several exporters may get it and write to the same place.
        self._file_mark = f"_openai_lifecycle_written {self.place}"
        sinks = (sink if isinstance(sink, str) else id(sink) for sink in self._options.sinks)
        self._sinks_mark = f"_openai_lifecycle_sent {hash(tuple(sinks))}"  # no URL: it may hold a password
        self._is_default = options is None and not keywords

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Write the entries of ``spans``; an entry that cannot be written goes to stderr, so this succeeds."""
        for span in spans:
            if not (self._is_default and self._leave_to_owner(span)):
                self.take(span)
        return SpanExportResult.SUCCESS

    def take(self, span: ReadableSpan) -> None:
        """Write the entries of ``span``, unless already written."""
        try:
            self._write(span)
        except Exception as error:  # noqa: BLE001 - cheaper than a with statement
            SHIELD.swallow(error)

    def complete(self, span: trace.Span) -> None:
        """Write the entries of our ended ``span`` unless a processor was given it.

        One that the application has put before ours may have raised, which keeps a span from those behind it
        (``opentelemetry/sdk/trace/__init__.py``, ``SynchronousMultiSpanProcessor.on_end``).
        """
        if isinstance(span, ReadableSpan) and _claim(span, _TAKEN):
            self.take(span)

    def _leave_to_owner(self, span: ReadableSpan) -> bool:
        """Return whether ``instrument()``'s processor writes the entries of ``span``; if need be, hand the span to it."""
        owner = _OWNERS.get(self.place)
        if owner is None:
            return False
        if codec.is_ours(span):  # the owner's exporter gets it by itself, also after uninstrument()
            return True
        if owner.is_joined:  # perhaps to another provider than that of this span, so it would not get it
            owner.on_end(span)
        return owner.is_joined

    def _write(self, span: ReadableSpan) -> None:
        options = self._options
        events = codec.decode(span, utc=options.utc) or foreign.decode(
            span, utc=options.utc, content=options.capture.on_events, content_limit=options.content_limit
        )
        if not events:
            return
        if codec.is_ours(span):
            _OVERLAP.note(span)
            _OVERLAP.note_response(span, events[-1].metadata.custom_fields.get("response_id"))
        elif _OVERLAP.is_duplicate(span):
            return
        file = self._file if self._file is not None and _claim(span, self._file_mark) else None
        sinks = self._sinks if self._sinks is not None and _claim(span, self._sinks_mark) else None
        if file is None and sinks is None:
            return
        entries: list[Entry] = []
        try:
            self._renderer.render(events, entries)
        finally:  # also when the hook was interrupted
            if file is not None and entries:
                file.write(*[text for _, text in entries])
            if sinks is not None:
                for event, _ in entries:
                    with SHIELD:  # the entries after this one are still to be delivered
                        sinks.put(event)

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Return whether everything exported so far is, in time, as safe as the durability option says."""
        deadline = time.monotonic() + timeout_millis / 1000
        safe = self._file is None or self._file.flush(timeout_millis / 1000)
        return (self._sinks is None or self._sinks.flush(deadline - time.monotonic())) and safe

    def shutdown(self) -> None:
        """Flush and close file and sinks; a span exported later opens them again, so that nothing is lost."""
        if self._file is not None:
            self._file.close()
        if self._sinks is not None:
            self._sinks.close()


def _dispatcher(options: Options) -> Dispatcher:
    from openai_lifecycle.sinks import destinations
    from openai_lifecycle.sinks.dispatch import Dispatcher

    return Dispatcher(destinations(options.sinks), options.meter_provider)


def _claim(span: ReadableSpan, mark: str) -> bool:
    """Set the ``mark`` on ``span``; return False if it was already set.

    It is set on the span's context, which the span has in common with what ``Span.end`` gives to processors. Ids would
    not do: an application that seeds ``random`` gets the same ones again.
    """
    mine = object()
    return (span.get_span_context() or span).__dict__.setdefault(mark, mine) is mine  # atomic


class EventsLogProcessor(SpanProcessor):
    """Hands every ended span to its exporter at once, sampled or not."""

    def __init__(self, exporter: EventsLogExporter | None = None) -> None:
        self.exporter: EventsLogExporter | None = None
        self.is_joined = False
        if exporter is not None:
            self.join(exporter)

    def join(self, exporter: EventsLogExporter) -> None:
        """Hand spans to ``exporter`` from now on."""
        self.exporter, self.is_joined = exporter, True
        _OWNERS[exporter.place] = self

    def leave(self) -> None:
        """Stop taking spans; :meth:`EventsLogExporter.complete` writes those of our calls that are still open."""
        self.is_joined = False

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:  # noqa: ARG002
        """Remember the parent span of our call; entries are made only of finished spans."""
        if self.is_joined:
            try:
                _OVERLAP.note(span)
            except Exception as error:  # noqa: BLE001 - cheaper than a with statement
                SHIELD.swallow(error)

    def on_end(self, span: ReadableSpan) -> None:
        """Write the entries of ``span``."""
        if self.exporter is not None and self.is_joined:
            if codec.is_ours(span) and not _claim(span, _TAKEN):
                return
            self.exporter.take(span)

    def shutdown(self) -> None:
        """Flush and close file and sinks."""
        if self.exporter is not None:
            self.exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Flush file and sinks."""
        return self.exporter is None or self.exporter.force_flush(timeout_millis)
