"""The patch table: what wrapt wraps, installed and undone from the same data.

Everything a client sends goes through ``request`` of two base classes, and every response through
``_process_response`` (``openai/_base_client.py``). Patching there covers ``create``, ``parse``, the stream
helpers, raw and streaming responses, ``client.post`` and methods bound earlier. It also avoids importing the
resource modules, which together cost more than a second.

A call travels with its request options, as a :class:`_Hook` in ``post_parser``. ``_process_response`` and the
retry loop receive copies of the options and find their call by that hook; by the current context if a subclass
has replaced the hook.
"""

from __future__ import annotations

import functools
import inspect
import logging
import sys
import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple

import wrapt
from opentelemetry import propagate
from opentelemetry.instrumentation.utils import is_instrumentation_enabled

from openai_lifecycle.capture import routes
from openai_lifecycle.capture.body import read_along, read_now
from openai_lifecycle.capture.call import Call, current
from openai_lifecycle.capture.credentials import secrets_of
from openai_lifecycle.capture.endpoints import endpoint_of
from openai_lifecycle.capture.facts import FILES, Fields, fields
from openai_lifecycle.capture.initialization import Initializations
from openai_lifecycle.capture.recorder import Recorder
from openai_lifecycle.encoding import parse_json
from openai_lifecycle.shield import SHIELD

_logger = logging.getLogger(__name__)


#: What ``cast_to`` may make of a body without parsing it; :func:`_returned` parses it then.
_UNPARSED: Final = (str, bytes, type(None))


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
            if not (_is_stream(parsed) or isinstance(parsed, _UNPARSED)):
                self.call.parsed(parsed)
        result = self.previous(parsed) if callable(self.previous) else parsed
        with SHIELD:
            if _is_stream(result):
                self.call.stream(result)
        return result


def _is_stream(parsed: Any) -> bool:
    """Whether ``parsed`` is a ``Stream``; ``hasattr`` on a model would make pydantic raise an error."""
    return "_iterator" in getattr(parsed, "__dict__", ())


class Patches:
    """Everything that ``instrument()`` puts into the client and removes again."""

    def __init__(self, recorder: Recorder, initializations: Initializations) -> None:
        self._recorder = recorder
        self._initializations = initializations
        self._installed: list[tuple[Any, str, Callable[..., Any], Any]] = []
        self._active = True

    def install(self, _: Any = None) -> None:
        """Install the table; called once ``openai`` has been imported, now or later."""
        if not self._active or self._installed:
            return
        self._wrap_all(self._table())
        # Their modules are the expensive ones: we wait until the application imports each.
        for module in routes.CONNECTIONS:
            on_import(module, self._install_websockets)

    def _install_websockets(self, module: Any) -> None:
        with SHIELD:  # a failure here would break the application's import
            from openai_lifecycle.capture.websocket import WebSockets  # few applications need it

            sockets = WebSockets(self._recorder, lambda: self._active)
            points = sockets.points(*routes.CONNECTIONS[module.__name__])
            self._wrap_all(_Point(module.__name__, path, wrapper, required=False) for path, wrapper in points)

    def undo(self) -> None:
        """Restore the originals; a wrapper that other code still holds or has wrapped does nothing more."""
        self._active = False
        for owner, name, stand_in, original in reversed(self._installed):
            if owner.__dict__.get(name) is stand_in:
                setattr(owner, name, original)
        self._installed.clear()

    def _table(self) -> tuple[_Point, ...]:
        base, client = "openai._base_client", "openai._client"
        azure, bedrock = "openai.lib.azure", "openai.lib.bedrock"
        construct, copy = self._initializations.construct, self._initializations.copy
        clients = (
            (client, "OpenAI", True),
            (client, "AsyncOpenAI", True),
            (azure, "AzureOpenAI", True),
            (azure, "AsyncAzureOpenAI", True),
            (bedrock, "BedrockOpenAI", False),  # since openai 2.40
            (bedrock, "AsyncBedrockOpenAI", False),
        )
        return (
            _Point(base, "SyncAPIClient.request", self._request),
            _Point(base, "AsyncAPIClient.request", self._arequest),
            _Point(base, "SyncAPIClient._process_response", self._process_response),
            _Point(base, "AsyncAPIClient._process_response", self._aprocess_response),
            _Point(base, "BaseClient._calculate_retry_timeout", self._retry_delay),
            # Another instrumentation may have put a ``request`` into a client class, which hides the base's:
            # openinference/instrumentation/openai/__init__.py, ``_instrument`` and ``_uninstrument``.
            *(_Point(m, f"{name}.request", self._request_of(name), required=False) for m, name, _ in clients),
            *(_Point(m, f"{name}.__init__", construct, required) for m, name, required in clients),
            *(_Point(m, f"{name}.copy", copy, required) for m, name, required in clients),
            *(_Point(m, f"{name}.with_options", copy, required) for m, name, required in clients),
        )

    def _request_of(self, client: str) -> Callable[..., Any]:
        return self._arequest if client.startswith("Async") else self._request

    def _wrap_all(self, points: Iterable[_Point]) -> None:
        for point in points if self._active else ():
            try:
                self._wrap(point)
            except (ImportError, AttributeError):
                if point.required:
                    _logger.warning(
                        "this version of openai has no %s.%s; calls through it are not recorded",
                        point.module,
                        point.path,
                    )

    def _wrap(self, point: _Point) -> None:
        owner, name, original = wrapt.resolve_path(point.module, point.path)
        if name not in owner.__dict__:  # inherited: the base class's wrapper serves
            return
        factory: Any = _stand_in  # wrapt's types only allow proxies
        stand_in = wrapt.wrap_object(point.module, point.path, factory, (point.wrapper, lambda: self._active))
        self._installed.append((owner, name, stand_in, original))

    # -------------------------------------------------------------- request
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
        changes: dict[str, Any] = {"post_parser": _Hook(call, parser) if call.recording.reads else parser}
        if propagates:
            headers: dict[str, str] = {}
            propagate.inject(headers, context=call.context)
            changes["headers"] = {**(options.headers or {}), **headers}
        # A copy, because the caller's options are used again for the next page of a list.
        copy = options.model_copy if hasattr(options, "model_copy") else options.copy  # of pydantic 2, or 1
        return copy(update=changes)

    def _request(
        self, wrapped: Callable[..., Any], client: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        begun = self._begin(client, args, kwargs)
        if begun is None:
            return wrapped(*args, **kwargs)
        call, options = begun
        args, kwargs = _with_options(options, args, kwargs)
        with call:
            return wrapped(*args, **kwargs)

    async def _arequest(
        self, wrapped: Callable[..., Any], client: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        begun = self._begin(client, args, kwargs)
        if begun is None:
            return await wrapped(*args, **kwargs)
        call, options = begun
        args, kwargs = _with_options(options, args, kwargs)
        with call:
            return await wrapped(*args, **kwargs)

    # -------------------------------------------------------------- response
    def _process_response(
        self, wrapped: Callable[..., Any], client: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        call = _responded(client, kwargs, is_async=False)
        result = wrapped(*args, **kwargs)
        _returned(call, kwargs, is_async=False)
        return result

    async def _aprocess_response(
        self, wrapped: Callable[..., Any], client: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        call = _responded(client, kwargs, is_async=True)
        result = await wrapped(*args, **kwargs)
        _returned(call, kwargs, is_async=True)
        return result

    # -------------------------------------------------------------- retries
    def _retry_delay(
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


def on_import(module: str, install: Callable[[Any], None]) -> None:
    """Call the bound method ``install`` once ``module`` is imported, now or later.

    A weak reference, because wrapt keeps a hook until the import, which may never come.
    """
    method = weakref.WeakMethod(install)

    def hook(imported: Any) -> None:
        found = method()
        if found is not None:
            found(imported)

    wrapt.register_post_import_hook(hook, module)


class _Point(NamedTuple):
    """One row: the wrapper of one function; not required if some supported version lacks the function."""

    module: str
    path: str
    wrapper: Callable[..., Any]
    required: bool = True


def _stand_in(
    original: Callable[..., Any], wrapper: Callable[..., Any], active: Callable[[], bool]
) -> Callable[..., Any]:
    """Return a function that passes calls of the method ``original`` to ``wrapper`` while ``active``.

    It is a plain function, not a proxy like ``wrapt.FunctionWrapper``, so that code which inspects, binds,
    copies, pickles, weakly references or mocks methods can handle it.
    """
    if inspect.iscoroutinefunction(original):

        @functools.wraps(original)
        async def stand_in(self: Any, /, *args: Any, **kwargs: Any) -> Any:
            method = original.__get__(self, type(self))
            return await (wrapper(method, self, args, kwargs) if active() else method(*args, **kwargs))

    else:

        @functools.wraps(original)
        def stand_in(self: Any, /, *args: Any, **kwargs: Any) -> Any:
            method = original.__get__(self, type(self))
            return wrapper(method, self, args, kwargs) if active() else method(*args, **kwargs)

    return stand_in


def _with_options(
    options: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if len(args) > 1:
        return (args[0], options, *args[2:]), kwargs
    return args, {**kwargs, "options": options}


def _path(client: Any, url: str) -> str:
    """Return the path below the client's ``base_url``; another server's URL stays unchanged."""
    return url.removeprefix(str(client.base_url)) if "://" in url else url


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
    return {**body, **options.extra_json} if isinstance(options.extra_json, Mapping) else body


def _call_of(client: Any, options: Any) -> Call | None:
    """Return the call that a request with ``options`` belongs to, ``None`` if it is not recorded."""
    hook = options.post_parser
    if isinstance(hook, _Hook):
        return hook.call
    # A subclass's ``_prepare_options`` may have replaced the hook. This may also be another request that it makes
    # during the call, for a token perhaps, so the operation must match.
    call = current()
    if call is None or not call.recording.reads:
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
                call.defer(response, is_async=is_async)
            return call
    return None


def _returned(call: Call | None, kwargs: dict[str, Any], *, is_async: bool) -> None:
    """Read a response that the client left unparsed; the application parses it later or never.

    It comes from ``with_raw_response`` or ``with_streaming_response``, or the application asked for the HTTP
    response itself: ``client.post(…, cast_to=httpx.Response)``. It may also read that of a ``Stream`` itself.
    """
    if call is None or call.answered:
        return
    with SHIELD:
        response = kwargs["response"]
        # With ``with_streaming_response`` too, if the body was in memory.
        if response.is_stream_consumed and not call.streaming:
            read_now(response, call)
            call.end()
            return
        if not call.deferred:
            call.defer(response, is_async=is_async)
        read_along(response, call, is_async=is_async)


def _cause(error: BaseException | None) -> str:
    """Return why the client retries: the HTTP status, else the transport's exception."""
    response = getattr(error, "response", None)
    return str(response.status_code) if response is not None else type(error).__qualname__
