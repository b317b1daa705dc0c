"""Facts → span attributes, lifecycle events, metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from time import perf_counter
from typing import Any, ClassVar, Final, NamedTuple, Protocol, TypeVar

from opentelemetry import trace
from opentelemetry.trace import SpanKind, Status, StatusCode

from openai_lifecycle import codec, semconv
from openai_lifecycle.capture import messages, other_instrumentations, unchecked
from openai_lifecycle.capture.call import Call
from openai_lifecycle.capture.content import one_line
from openai_lifecycle.capture.credentials import secrets_sent
from openai_lifecycle.capture.endpoints import Endpoint, parse_endpoint
from openai_lifecycle.capture.facts import Attributes, Fields, Operation, Reply, Request, message
from openai_lifecycle.capture.generations import Entries, Generations
from openai_lifecycle.capture.headers import answered_with, sent_with
from openai_lifecycle.capture.metrics import Instruments
from openai_lifecycle.options import Capture, Options
from openai_lifecycle.redaction import margin, redact, redact_attributes, redact_recurring
from openai_lifecycle.shield import SHIELD

_T = TypeVar("_T")


class Telemetry(Protocol):
    """Where spans and metrics go (``pipeline.py``)."""

    instruments: Instruments

    def start_span(self, name: str, kind: SpanKind, attributes: Attributes) -> trace.Span:
        """Start a span of the provider in force."""

    def end_span(self, span: trace.Span) -> None:
        """End it; raises what the application's processors raise."""


class Recorder:
    """Starts the spans of calls and records how they end."""

    def __init__(self, pipeline: Telemetry, options: Options) -> None:
        self.pipeline = pipeline
        self.options = options
        self.generations = Generations()
        self._checked_others = False

    def begin(self, operation: Operation, body: Fields, endpoint: Endpoint, secrets: tuple[str, ...]) -> Call:
        """Start the span of a call and return the call."""
        if not self._checked_others:  # not earlier: another instrumentation may be set up after this one
            self._checked_others = True
            with SHIELD:  # the application's log handler may raise
                other_instrumentations.warn()
        model = redact_recurring(_read(operation.model, body) or "", secrets)
        # What the conventions want a sampler to see; the rest is set in bulk at the end.
        named: Attributes = {semconv.OPERATION: operation.name, **endpoint.attributes()}
        if model:
            named[semconv.REQUEST_MODEL] = model
        name = f"{operation.name} {model}" if model else operation.name
        span = self.pipeline.start_span(name, SpanKind.CLIENT, named)
        is_recording = span.is_recording()
        if not is_recording and not self.pipeline.instruments.are_read():
            return Call(operation, Request(), Reply(), Unrecorded(span))
        # The metrics need nothing of what was asked but the model.
        request = (_read(operation.request, body) if is_recording else None) or Request()
        if _read(_is_streamed, body):
            request.attributes[semconv.STREAM] = True
        asked = dict(request.attributes)
        recording = Recording(self, span, named, asked, secrets, chosen_by=endpoint.chosen_by)
        options = self.options
        keep_text = 0
        if is_recording and options.capture.on_events:
            with SHIELD:
                recording.content = one_line(request.lines, options.content_limit, secrets)
        if is_recording and options.capture.on_spans:
            # More than is shown: a credential that the cut would divide is only found as a whole.
            keep_text = options.content_limit and options.content_limit + margin(secrets)
            with SHIELD:
                recording.messages = self._content(operation, body, secrets)
        request.lines = ()  # it references the body
        return Call(operation, request, Reply(keep_text), recording)

    def _content(self, operation: Operation, body: Fields, secrets: tuple[str, ...]) -> Attributes:
        limit = self.options.content_limit
        return {
            name: messages.as_json(values, convert, limit, secrets)
            for name, (values, convert) in operation.content(body).items()
            if values
        }


def _read(read: Callable[[Fields], _T], body: Fields) -> _T | None:
    """Return ``read(body)``, or ``None`` if it raises: an unreadable request is recorded all the same."""
    try:
        return read(body)
    except Exception as error:  # noqa: BLE001 - "with SHIELD", without its two calls
        SHIELD.swallow(error)
        return None


def _is_streamed(body: Fields) -> bool:
    return body.get("stream") is True


class _End(NamedTuple):
    """How a call ended: its exception, its ``error.type``, its duration in seconds, the entries to write.

    ``sent`` are the headers of a request that failed, with names in lower case.
    """

    call: Call
    error: BaseException | None
    failure: str | None
    duration: float
    entries: Entries
    sent: Mapping[bytes, bytes]


class Unrecorded:
    """The span of a call that is not recorded. It is there for child spans, which follow that decision."""

    __slots__ = ("span",)
    reads: ClassVar = False

    def __init__(self, span: trace.Span) -> None:
        self.span = span

    def response(self, response: Any) -> None:
        """Read nothing."""

    def retry(self, cause: str, delay: float) -> None:
        """Record nothing."""

    def carried(self, credentials: tuple[str, ...]) -> None:
        """Note nothing."""

    def finish(self, call: Call, error: BaseException | None) -> None:  # noqa: ARG002 - as Recording's
        """End the span."""
        self.span.end()


class Recording:
    """The span of one call.

    It starts with the attributes ``named`` and gets the others when it ends. ``secrets`` are the client's own keys.
    ``chosen_by`` is :attr:`Endpoint.chosen_by`: if it is set, the server is read from the URL of the request that was
    answered. ``content`` is what was sent, as one line of text; ``messages`` are the attributes that show it.
    """

    __slots__ = (
        "_chosen_by",
        "_named",
        "_recorder",
        "_request",
        "_secrets",
        "attributes",
        "content",
        "messages",
        "span",
    )
    reads: ClassVar = True

    def __init__(
        self,
        recorder: Recorder,
        span: trace.Span,
        named: Attributes,
        attributes: Attributes,
        secrets: tuple[str, ...],
        *,
        chosen_by: type | None,
    ) -> None:
        self._recorder = recorder
        self._chosen_by = chosen_by
        self._secrets = secrets
        self._named = named
        self._request: Any = None  # the HTTP request of the latest response
        self.span = span
        self.attributes = attributes
        self.content = ""
        self.messages: Attributes = {}

    def response(self, response: Any) -> None:
        """Record the HTTP response's status and headers."""
        attributes = self.attributes
        self._request = request = _request_of(response)
        if request is not None and self._chosen_by:
            self._named.update(parse_endpoint(request.url, self._chosen_by).attributes())
            attributes.update(self._named)
        if not self.span.is_recording():  # the metrics need none of the rest
            return
        attributes[semconv.HTTP_STATUS_CODE] = response.status_code
        attributes.update(answered_with(response.headers))

    def carried(self, credentials: tuple[str, ...]) -> None:
        """Replace credentials of the request's headers, in what was already read of the call and in what follows."""
        new = tuple([one for one in credentials if one not in self._secrets])
        if new:
            self._secrets += new
            self.content = redact(self.content, new)
            self.messages = redact_attributes(self.messages, new)

    def retry(self, cause: str, delay: float) -> None:
        """Record that the client retries in ``delay`` seconds because of ``cause``."""
        self.span.add_event(semconv.RETRY, {semconv.ERROR_TYPE: cause, semconv.RETRY_DELAY: round(delay, 6)})

    def finish(self, call: Call, error: BaseException | None) -> None:
        """Record the end of ``call``: attributes in bulk, events, status, metrics.

        Each step is shielded separately, so a defect in one costs only that step.
        """
        duration = perf_counter() - call.started
        entries = self._recorder.generations.entries(call, error)
        failure = _failure(call, error)
        sent: Mapping[bytes, bytes] = {}
        if failure is not None:
            sent = sent_with(_request_of(error) or self._request)
            self.carried(secrets_sent(sent))
            failure = redact_recurring(failure, self._secrets)  # a server may have put anything into its code
        end = _End(call, error, failure, duration, entries, sent)
        steps = iter(_STEPS if self.span.is_recording() else _STEPS_FOR_METRICS)
        try:
            self._take(steps, end)
        finally:  # a signal handler may have raised
            self._take(steps, end)

    def _take(self, steps: Iterator[Callable[[Recording, _End], None]], end: _End) -> None:
        for step in steps:
            try:
                step(self, end)
            except Exception as defect:  # noqa: BLE001 - "with SHIELD", without its two calls for every step
                SHIELD.swallow(defect)

    def _reply(self, end: _End) -> None:
        response = getattr(end.error, "response", None)
        if response is not None:  # openai.APIStatusError
            self.response(response)
        call, failure = end.call, end.failure
        reply = call.reply
        attributes = self.attributes
        attributes.update(reply.attributes)
        if reply.id:
            attributes[semconv.RESPONSE_ID] = reply.id
        if reply.model:
            attributes[semconv.RESPONSE_MODEL] = reply.model
        reasons = _finish_reasons(reply, failed=failure is not None and call.chunks > 0)
        if reasons:
            attributes[semconv.FINISH_REASONS] = reasons
        # A subclass that works out the delay of a retry itself keeps us from seeing it; the header counts it.
        retried = end.sent.get(b"x-stainless-retry-count", b"")
        attributes[semconv.RETRIES] = max(call.retries, int(retried) if retried.isdigit() else 0)
        if call.chunks > 0:
            attributes[semconv.TIME_TO_FIRST_CHUNK] = call.first_chunk - call.started
        if failure is not None:
            attributes[semconv.ERROR_TYPE] = failure

    def _redact(self, _: _End) -> None:
        """Replace keys: the caller or the server may have put one into any attribute."""
        self.attributes = redact_attributes(self.attributes, self._secrets)

    def _messages(self, end: _End) -> None:
        self.attributes.update(self.messages)
        options = self._recorder.options
        if options.capture.on_spans and (choices := end.call.reply.ordered_choices):
            written = messages.as_json(choices, messages.answer, options.content_limit, self._secrets)
            self.attributes[semconv.OUTPUT_MESSAGES] = written

    def _set_attributes(self, _: _End) -> None:
        unchecked.set_attributes(self.span, self.attributes, kept=self._named)

    def _tool_calls(self, end: _End) -> None:
        if not end.entries.tool_calls:
            return
        capture = self._recorder.options.capture
        for tool in end.call.reply.tool_calls.values():
            if hash(tool.id) in end.entries.written:
                continue
            attributes = codec.tool_call(
                call_id=redact(tool.id, self._secrets),
                name=redact_recurring(tool.name, self._secrets),
                kind=redact_recurring(tool.kind, self._secrets),
                arguments=redact(tool.arguments, self._secrets) if capture.on_events else "",
            )
            unchecked.add_event(self.span, semconv.TOOL_CALL_DETECTED, attributes, tool.time)

    def _generation(self, end: _End) -> None:
        span, request, reply = self.span, end.call.request, end.call.reply
        asked: dict[str, Any] = {
            "messages_count": request.messages_count,
            "message_content": self.content,
            "temperature": request.temperature,
        }
        if end.failure is None:
            if end.entries.success:
                length, choices = _size(reply)
                done = codec.generation_success(response_length=length, choices_count=choices, **asked)
                unchecked.add_event(span, semconv.GENERATION_SUCCESS, done)
            return
        capture = self._recorder.options.capture
        full, brief = self._error_messages(end, end.failure)
        if end.entries.error:
            said = full if capture.on_events else brief
            unchecked.add_event(span, semconv.GENERATION_ERROR, codec.generation_error(error=said, **asked))
        description = brief if capture is Capture.NO_CONTENT else full
        span.set_status(Status(StatusCode.ERROR, description))

    def _end_span(self, _: _End) -> None:
        self._recorder.pipeline.end_span(self.span)

    def _measure(self, end: _End) -> None:
        self._recorder.pipeline.instruments.record(end.call, self._named, self.attributes, end.duration)

    def _error_messages(self, end: _End, failure: str) -> tuple[str, str]:
        """Return the failure's message, and a short form that quotes neither server nor caller."""
        brief = codec.brief_error(failure, self.attributes.get(semconv.HTTP_STATUS_CODE))
        said = message(end.error) if end.error is not None else (end.call.reply.error or ("", ""))[1]
        return one_line((said,), codec.LONGEST_ERROR, self._secrets) or brief, brief


#: The steps at the end of a call, in order; below, those that remain when only metrics are recorded.
_STEPS: Final = (
    Recording._reply,
    Recording._redact,
    Recording._messages,
    Recording._set_attributes,
    Recording._tool_calls,
    Recording._generation,
    Recording._end_span,
    Recording._measure,
)
_STEPS_FOR_METRICS: Final = (Recording._reply, Recording._redact, Recording._end_span, Recording._measure)


def _failure(call: Call, error: BaseException | None) -> str | None:
    """Return ``error.type``: the exception's class, else the response's own error; ``None`` on success."""
    if error is not None:
        return type(error).__qualname__
    return call.reply.error[0] if call.reply.error else None


def _request_of(source: Any) -> Any:
    """Return the HTTP request of a response or of an ``openai.APIError``; ``None`` if it has none."""
    try:
        return source.request
    except Exception:  # noqa: BLE001 - of a handshake, or not such an error; httpx's own raise RuntimeError
        return None


def _finish_reasons(reply: Reply, *, failed: bool) -> tuple[str, ...]:
    reasons = [choice.finish_reason for choice in reply.ordered_choices]
    if failed:  # a finish reason was expected and never arrived
        return tuple([reason or "error" for reason in reasons]) or ("error",)
    return tuple([reason for reason in reasons if reason is not None])


def _size(reply: Reply) -> tuple[int, int]:
    """Return ``response_length`` and ``choices_count``."""
    length, choices = reply.response_length, reply.choices_count
    if length is None:
        length = reply.choices[min(reply.choices)].length if reply.choices else 0
    return length, len(reply.choices) if choices is None else choices
