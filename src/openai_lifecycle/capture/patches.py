"""The patch table: what wrapt wraps, installed and undone from the same data.

Everything a client sends goes through ``request`` of two base classes, and every response through
``_process_response`` (``openai/_base_client.py``). Patching there covers ``create``, ``parse``, the stream
helpers, raw and streaming responses, ``client.post`` and methods bound earlier. It also avoids importing the
resource modules, which together cost more than a second.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
import logging
import sys
import weakref
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import wrapt

from openai_lifecycle.capture import routes
from openai_lifecycle.capture.initialization import Initializations
from openai_lifecycle.capture.recorder import Recorder
from openai_lifecycle.capture.requests import Requests
from openai_lifecycle.shield import SHIELD

_logger = logging.getLogger(__name__)


class Patches:
    """Everything that ``instrument()`` puts into the client and removes again."""

    def __init__(self, recorder: Recorder, initializations: Initializations) -> None:
        self._recorder = recorder
        self._initializations = initializations
        self._installed: list[tuple[Any, str, Callable[..., Any], Any]] = []
        self._active = True

    def install(self, _: Any) -> None:
        """Install the table; called once ``openai`` has been imported, now or later."""
        if not self._active or self._installed:
            return
        self._wrap_all(self._table())
        # Their modules are the expensive ones: we wait until the application imports each.
        for module in routes.CONNECTIONS:
            with SHIELD:  # another thread may be importing it, and may fail or wait for this one
                on_import(module, self._install_websockets)

    def _install_websockets(self, module: Any) -> None:
        if not self._active:
            return
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

    def _table(self) -> list[_Point]:
        base, client = "openai._base_client", "openai._client"
        azure, bedrock = "openai.lib.azure", "openai.lib.bedrock"
        construct, copy = self._initializations.construct, self._initializations.copy
        requests = Requests(self._recorder)
        clients = (
            (client, "OpenAI", True),
            (client, "AsyncOpenAI", True),
            (azure, "AzureOpenAI", True),
            (azure, "AsyncAzureOpenAI", True),
            (bedrock, "BedrockOpenAI", False),  # since openai 2.40
            (bedrock, "AsyncBedrockOpenAI", False),
        )
        points = [
            _Point(base, "SyncAPIClient.request", requests.request),
            _Point(base, "AsyncAPIClient.request", requests.arequest),
            _Point(base, "SyncAPIClient._process_response", requests.process_response),
            _Point(base, "AsyncAPIClient._process_response", requests.aprocess_response),
            _Point(base, "BaseClient._calculate_retry_timeout", requests.retry_delay),
        ]
        for module, name, required in clients:
            request = requests.arequest if name.startswith("Async") else requests.request
            points += [
                # Another instrumentation may have put a ``request`` into a client class, which hides the base's:
                # openinference/instrumentation/openai/__init__.py, ``_instrument`` and ``_uninstrument``.
                _Point(module, f"{name}.request", request, required=False),
                _Point(module, f"{name}.__init__", construct, required),
                _Point(module, f"{name}.copy", copy, required),
                _Point(module, f"{name}.with_options", copy, required),
            ]
        return points

    def _wrap_all(self, points: Iterable[_Point]) -> None:
        for point in points:
            try:
                self._wrap(point)
            except (ImportError, AttributeError):
                if point.required:
                    with SHIELD:  # the application's log handler may raise
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


#: Module → what waits for its import, and the modules that have a hook. One hook for each: wrapt keeps a hook until the
#: import, which may never come, and the client may be instrumented again and again.
_awaited: dict[str, weakref.WeakMethod[Callable[[Any], None]]] = {}
_hooked: set[str] = set()


def on_import(module: str, install: Callable[[Any], None]) -> None:
    """Call the bound method ``install`` once ``module`` is imported, now or later.

    It replaces a method that waits for the same module. Only a weak reference is kept.
    """
    _awaited[module] = weakref.WeakMethod(install)
    if module not in _hooked or sys.modules.get(module) is not None:
        _hooked.add(module)
        wrapt.register_post_import_hook(functools.partial(_imported, module), module)


def _imported(name: str, module: Any) -> None:
    _hooked.discard(name)  # wrapt has dropped the hook
    method = _awaited.pop(name, None)
    install = None if method is None else method()
    if install is not None:
        # Waits for another thread that is still importing the module: to import a submodule now would make that fail.
        importlib.import_module(name)
        install(module)


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
    # A mock that the application has put there is no descriptor, and gets no ``self``.
    bind = getattr(type(original), "__get__", lambda function, *_: function)
    if inspect.iscoroutinefunction(original):

        @functools.wraps(original)
        async def stand_in(self: Any, /, *args: Any, **kwargs: Any) -> Any:
            method = bind(original, self, type(self))
            return await (wrapper(method, self, args, kwargs) if active() else method(*args, **kwargs))

    else:

        @functools.wraps(original)
        def stand_in(self: Any, /, *args: Any, **kwargs: Any) -> Any:
            method = bind(original, self, type(self))
            return wrapper(method, self, args, kwargs) if active() else method(*args, **kwargs)

    with contextlib.suppress(TypeError, ValueError):  # inspect.getfullargspec does not follow __wrapped__
        stand_in.__dict__["__signature__"] = inspect.signature(original)
    return stand_in
