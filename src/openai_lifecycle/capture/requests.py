"""Observes the client's HTTP requests: each is a :class:`Call` from its options to its parsed response.

A call travels with its request options, as a :class:`_Hook` in ``post_parser``. ``_process_response`` and the
retry loop receive copies of the options and find their call by that hook; by the current context if a subclass
has replaced the hook.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any, Final

from opentelemetry.instrumentation.utils import is_instrumentation_enabled

from openai_lifecycle.capture import contexts, routes
from openai_lifecycle.capture.body import defer, read_along, read_now
from openai_lifecycle.capture.call import Call, current
from openai_lifecycle.capture.credentials import secrets_of
from openai_lifecycle.capture.endpoints import endpoint_of, url_of
from openai_lifecycle.capture.facts import FILES, Fields, fields
from openai_lifecycle.capture.recorder import Recorder
from openai_lifecycle.shield import SHIELD
from openai_lifecycle.texts import parse_json

#: What ``cast_to`` may make of a body without parsing it; :func:`_returned` parses it then.
_UNPARSED: Final = frozenset({str, bytes, type(None)})


class _Hook:
    """The ``post_parser`` of an observed request: reads what the client parsed, changes nothing."""

    __slots__ = ("call", "previous")

    def __init__(self, call: Call, previous: Any) -> None:
        self.call = call
        self.previous = previous

    def __deepcopy__(self, _: Any) -> _Hook:
        """Return itself: options copied by an application's ``_prepare_options`` belong to the same call."""
        return self

    def __call__(self, parsed: Any) -> Any:
        with SHIELD:
            if not (_is_stream(parsed) or _is_body(parsed)):
                self.call.parsed(parsed)
        result = self.previous(parsed) if callable(self.previous) else parsed
        with SHIELD:
            if _is_stream(result):
                self.call.stream(result)
        return result


def _is_body(parsed: Any) -> bool:
    """Whether ``parsed`` is the body as it came: text, bytes, or speech (``HttpxBinaryResponseContent``)."""
    return type(parsed) in _UNPARSED or "iter_bytes" in vars(type(parsed))


def _is_stream(parsed: Any) -> bool:
    """Whether ``parsed`` is a ``Stream``; ``hasattr`` on a model would make pydantic raise an error."""
    return "_iterator" in getattr(parsed, "__dict__", ())


class Requests:
    """The wrappers of the methods that send a request, retry it, and read its response."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def _begin(self, client: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Call, Any] | None:
        """Start a call; return it with the options that replace the caller's, or ``None``."""
        with SHIELD:
            options = args[1] if len(args) > 1 else kwargs["options"]
            route = routes.find(options.method, _path(client, options.url))
            if route is None or not is_instrumentation_enabled():
                return None
            previous = options.post_parser
            if isinstance(previous, _Hook) and previous.call.ongoing:
                return None  # the wrapper of a subclass's ``request`` has already seen it
            operation, named = route
            asked = {**_body(options), **named} if named else _body(options)
            call = self._recorder.begin(operation, asked, endpoint_of(client), secrets_of(client))
            with SHIELD:  # the call has begun and will end, even if marking the options fails
                options = self._marked(options, call)
            return call, options
        return None

    def _marked(self, options: Any, call: Call) -> Any:
        """Return options that carry ``call``, if it is to be found again, and tell the server of its span."""
        propagates = self._recorder.options.propagate
        if not (call.recording.reads or propagates):
            return options
        previous = options.post_parser
        parser = previous.previous if isinstance(previous, _Hook) else previous
        changes = {"headers": contexts.with_trace(options.headers or {}, call.context)} if propagates else {}
        # A copy, because the caller's options are used again for the next page of a list.
        copy = options.model_copy if hasattr(options, "model_copy") else options.copy  # of pydantic 2, or 1
        marked = copy(update=changes)
        # Not as a change, which counts as a field that is set: the client and its subclasses log and dump those
        # (openai 1.66, ``_base_client.py``, ``_build_request``).
        vars(marked)["post_parser"] = _Hook(call, parser) if call.recording.reads else parser
        return marked

    def request(
        self, wrapped: Callable[..., Any], client: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Observe ``SyncAPIClient.request``."""
        begun = self._begin(client, args, kwargs)
        if begun is None:
            return wrapped(*args, **kwargs)
        call, options = begun
        args, kwargs = _with_options(options, args, kwargs)
        with call:
            return wrapped(*args, **kwargs)

    async def arequest(
        self, wrapped: Callable[..., Any], client: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Observe ``AsyncAPIClient.request``."""
        begun = self._begin(client, args, kwargs)
        if begun is None:
            return await wrapped(*args, **kwargs)
        call, options = begun
        args, kwargs = _with_options(options, args, kwargs)
        with call:
            return await wrapped(*args, **kwargs)

    # -------------------------------------------------------------- response
    def process_response(
        self, wrapped: Callable[..., Any], client: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Observe ``SyncAPIClient._process_response``."""
        call = _responded(client, kwargs, is_async=False)
        result = wrapped(*args, **kwargs)
        _returned(call, kwargs, is_async=False)
        return result

    async def aprocess_response(
        self, wrapped: Callable[..., Any], client: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Observe ``AsyncAPIClient._process_response``."""
        call = _responded(client, kwargs, is_async=True)
        result = await wrapped(*args, **kwargs)
        _returned(call, kwargs, is_async=True)
        return result

    # -------------------------------------------------------------- retries
    def retry_delay(
        self, wrapped: Callable[..., Any], client: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Record a retry: the client asks for the delay once before each, while handling the failure."""
        delay = wrapped(*args, **kwargs)
        with SHIELD:
            options = args[1] if len(args) > 1 else kwargs["options"]
            call = _call_of(client, options)
            if call is not None:
                call.retried(_cause(sys.exc_info()[1]), delay)
        return delay


def _with_options(
    options: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if len(args) > 1:
        return (args[0], options, *args[2:]), kwargs
    return args, {**kwargs, "options": options}


def _path(client: Any, url: str) -> str:
    """Return the path below the client's ``base_url``; another server's URL stays unchanged."""
    return url.removeprefix(str(url_of(client))) if "://" in url else url


def _body(options: Any) -> Fields:
    """Return the request's JSON, or the query of a GET.

    ``extra_body`` overrides the JSON (``openai/_base_client.py``, ``_build_request``).
    """
    sent = options.params if options.method.lower() == "get" else options.json_data
    content = getattr(options, "content", None)  # not in every version
    if isinstance(content, (str, bytes)):
        sent = parse_json(content)
    body = fields(sent)
    if options.files:
        names = options.files if isinstance(options.files, Mapping) else [name for name, _ in options.files]
        body = {**body, FILES: [name.partition("[")[0] for name in names]}
    extra = fields(options.extra_json)
    return {**body, **extra} if extra else body


def _call_of(client: Any, options: Any) -> Call | None:
    """Return the call that a request with ``options`` belongs to, ``None`` if it is not recorded."""
    hook = options.post_parser
    if isinstance(hook, _Hook):
        return hook.call
    # A subclass's ``_prepare_options`` may have replaced the hook. This may also be another request that it makes
    # during the call, for a token perhaps, so the operation must match.
    call = current()
    if call is None or not call.recording.reads or not is_instrumentation_enabled():
        return None
    route = routes.find(options.method, _path(client, options.url))
    return call if route is not None and route[0] is call.operation else None


def _responded(client: Any, kwargs: dict[str, Any], *, is_async: bool) -> Call | None:
    """Note a response before the client parses it; return its call."""
    with SHIELD:
        call, response = _call_of(client, kwargs["options"]), kwargs["response"]
        if call is not None:
            call.responded(response, retries=kwargs.get("retries_taken", 0))
            if kwargs["stream"]:
                defer(response, call, is_async=is_async)
            return call
    return None


def _returned(call: Call | None, kwargs: dict[str, Any], *, is_async: bool) -> None:
    """Read a response that the client left unparsed; the application parses it later or never.

    It comes from ``with_raw_response`` or ``with_streaming_response``, or the application asked for the HTTP
    response itself: ``client.post(…, cast_to=httpx.Response)``. The same goes for the response of a ``Stream``, which
    the application may read in its place.
    """
    if call is None or call.answered:
        return
    with SHIELD:
        response = kwargs["response"]
        # That of ``with_streaming_response`` too, if the body was in memory.
        if response.is_stream_consumed and not call.streaming:
            read_now(response, call)
            call.end()
            return
        if not call.deferred:
            defer(response, call, is_async=is_async)
        read_along(response, call, is_async=is_async)


def _cause(error: BaseException | None) -> str:
    """Return why the client retries: the HTTP status, else the transport's exception."""
    response = getattr(error, "response", None)
    return str(response.status_code) if response is not None else type(error).__qualname__
