"""Client construction: ``LLM_INITIALIZATION_START``, then ``_SUCCESS`` or ``_ERROR``, once per construction.

``client.copy()`` and ``with_options()`` also construct (``openai/_client.py``, ``copy``) but initialize
nothing, and a subclass's constructor calls its base's. ``_under_construction`` tells them apart.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any, Final

from opentelemetry.instrumentation.utils import is_instrumentation_enabled
from opentelemetry.trace import Span, SpanKind, Status, StatusCode

from openai_lifecycle import codec, semconv
from openai_lifecycle.capture.content import one_line
from openai_lifecycle.capture.credentials import secrets_in
from openai_lifecycle.capture.endpoints import Endpoint, endpoint_in, endpoint_of
from openai_lifecycle.capture.facts import Attributes, double, integer, message, number, text
from openai_lifecycle.capture.recorder import Telemetry
from openai_lifecycle.options import Capture, Options
from openai_lifecycle.redaction import redact
from openai_lifecycle.shield import SHIELD

_CAPABILITIES: Final = "text_generation,tool_calling,streaming"
_COPY: Final = object()
_under_construction: ContextVar[object] = ContextVar("openai_lifecycle_under_construction", default=None)


class Initializations:
    """The wrappers of the clients' constructors and of ``copy``."""

    def __init__(self, pipeline: Telemetry, options: Options) -> None:
        self._pipeline = pipeline
        self._options = options

    def construct(
        self, wrapped: Callable[..., Any], instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Wrap ``__init__`` of a client class."""
        current = _under_construction.get()  # compared with `is`, which runs no subclass's __eq__
        if current is instance or current is _COPY or not is_instrumentation_enabled():
            return wrapped(*args, **kwargs)
        span = self._start(instance, kwargs)
        token = _under_construction.set(instance)
        try:
            result = wrapped(*args, **kwargs)
        except BaseException as error:
            self._failed(span, error, kwargs)
            raise
        finally:
            _under_construction.reset(token)
        self._succeeded(span, instance)
        return result

    def copy(self, wrapped: Callable[..., Any], _: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Wrap ``copy`` and ``with_options``."""
        token = _under_construction.set(_COPY)
        try:
            return wrapped(*args, **kwargs)
        finally:
            _under_construction.reset(token)

    # -------------------------------------------------------------- the span
    def _start(self, instance: Any, arguments: Mapping[str, Any]) -> Span | None:
        with SHIELD:
            client = type(instance)
            endpoint = endpoint_in(client, arguments)
            public_name = client.__name__.lstrip("_")  # of the module-level client: ``_ModuleClient``
            bound = self._bound(arguments) | _server(endpoint) | {semconv.CLIENT: public_name}
            span = self._pipeline.start_span(f"initialize {endpoint.provider}", SpanKind.INTERNAL, bound)
            span.add_event(semconv.INITIALIZATION_START)
            return span
        return None

    def _bound(self, arguments: Mapping[str, Any]) -> Attributes:
        """Return what the client is bound to: the options, and Azure's deployment where no model is given."""
        options = self._options
        model = text(options.model or arguments.get("azure_deployment"))
        values = {
            semconv.REQUEST_MODEL: redact(model, secrets_in(arguments)) or None,
            semconv.TEMPERATURE: number(options.temperature),
            semconv.TOP_P: double(options.top_p),
            semconv.MAX_TOKENS: integer(options.max_tokens),
        }
        return {name: value for name, value in values.items() if value is not None}

    def _succeeded(self, span: Span | None, instance: Any) -> None:
        if span is None:
            return
        with SHIELD:  # a subclass may lack what the endpoint is read from
            endpoint = endpoint_of(instance)
            span.update_name(f"initialize {endpoint.provider}")
            span.set_attributes(_server(endpoint))
        with SHIELD:
            span.add_event(semconv.INITIALIZATION_SUCCESS, {semconv.CAPABILITIES: _CAPABILITIES})
            self._pipeline.end_span(span)

    def _failed(self, span: Span | None, error: BaseException, arguments: Mapping[str, Any]) -> None:
        if span is None:
            return
        with SHIELD:
            kind, capture = type(error).__qualname__, self._options.capture
            described = one_line((message(error),), codec.LONGEST_ERROR, secrets_in(arguments)) or kind
            span.set_attribute(semconv.ERROR_TYPE, kind)
            said = described if capture.on_events else kind
            span.add_event(semconv.INITIALIZATION_ERROR, {semconv.ERROR_MESSAGE: said})
            span.set_status(Status(StatusCode.ERROR, kind if capture is Capture.NO_CONTENT else described))
            self._pipeline.end_span(span)


def _server(endpoint: Endpoint) -> Attributes:
    attributes = endpoint.attributes()
    if endpoint.base_url:
        attributes[semconv.BASE_URL] = endpoint.base_url
    return attributes
