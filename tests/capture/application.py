"""One application in every form in which a chat or a response can be called and left, sync and async alike.

:func:`run` returns a trail of all that the application saw: values, types, laziness, exceptions. Two runs of
the same form, with and without instrumentation, must leave the same trail.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import openai

from tests import wire, wire_responses
from tests.scripted_server import ScriptedServer

FORMS = ("plain", "parse", "stream", "helper", "raw", "raw_stream", "streaming", "streaming_stream")
STREAMED = ("stream", "helper", "raw_stream", "streaming_stream")
Trail = list[Any]
#: The package that this version of the client speaks HTTP with.
http: Any = importlib.import_module("httpx2" if int(openai.__version__.split(".")[0]) >= 3 else "httpx")


@dataclass(frozen=True)
class Api:
    """What has all these forms: the resource, a request, and what the stream helper calls its result."""

    resource: Callable[[Any], Any]
    request: dict[str, Any]
    final: str


CHAT = Api(attrgetter("chat.completions"), wire.REQUEST, "get_final_completion")
RESPONSES = Api(attrgetter("responses"), wire_responses.REQUEST, "get_final_response")


async def settle(value: Any) -> Any:
    """Await what is awaitable: the one difference between the two clients."""
    return await value if inspect.isawaitable(value) else value


async def each(iterable: Any) -> AsyncIterator[Any]:
    """Iterate over either kind of iterable."""
    if hasattr(iterable, "__aiter__"):
        async for item in iterable:
            yield item
    else:
        for item in iterable:
            yield item


@contextlib.asynccontextmanager
async def entered(manager: Any) -> AsyncIterator[Any]:
    """Enter either kind of context manager."""
    if hasattr(manager, "__aenter__"):
        async with manager as value:
            yield value
    else:
        with manager as value:
            yield value


def fitting(method: Any, request: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments for ``method``; what this version of the client has no name for goes into the body."""
    known = inspect.signature(method).parameters
    extra = {name: value for name, value in request.items() if name not in known}
    given = {name: value for name, value in request.items() if name in known}
    return {**given, **({"extra_body": extra} if extra else {})}


def seen(value: Any) -> Any:
    """Return a comparable form of what the application got."""
    if isinstance(value, openai.BaseModel):
        return type(value).__name__, value.to_dict(), sorted(value.__dict__)
    if isinstance(value, Exception):
        return type(value), str(value), getattr(value, "status_code", None), getattr(value, "body", None)
    return type(value), getattr(value, "data", value)


async def run(client: Any, form: str, leave: str = "drained", api: Api = CHAT, **request: Any) -> Trail:
    """Make a call in ``form`` and leave it as ``leave`` says."""
    trail: Trail = []
    try:
        await _FORMS[form](_Target(client, api), leave, trail, {**api.request, **request})
    except Exception as error:  # the client's; before openai 3.20 the transport's too, in mid-stream
        trail.append(seen(error))
    return trail


class _Target:
    def __init__(self, client: Any, api: Api) -> None:
        self.resource = api.resource(client)
        beta = client.beta.chat.completions if api is CHAT and not hasattr(self.resource, "parse") else None
        self.structured = beta or self.resource  # where parse() and stream() were before openai 1.92
        self.final = api.final
        self.is_async = isinstance(client, openai.AsyncOpenAI)


async def _plain(target: _Target, _: str, trail: Trail, request: dict[str, Any]) -> None:
    trail.append(seen(await settle(target.resource.create(**request))))


async def _parse(target: _Target, _: str, trail: Trail, request: dict[str, Any]) -> None:
    trail.append(seen(await settle(target.structured.parse(**request))))


async def _stream(target: _Target, leave: str, trail: Trail, request: dict[str, Any]) -> None:
    stream = await settle(target.resource.create(**request, stream=True))
    trail.append(type(stream))
    await _iterate(stream, leave, trail)


async def _helper(target: _Target, leave: str, trail: Trail, request: dict[str, Any]) -> None:
    async with entered(target.structured.stream(**request)) as stream:
        if leave == "never":
            return
        async for event in each(stream):
            trail.append(getattr(event, "type", type(event)))
            if leave != "drained" and len(trail) >= 3:
                return
        trail.append(seen(await settle(getattr(stream, target.final)())))


async def _raw(target: _Target, _: str, trail: Trail, request: dict[str, Any]) -> None:
    response = await settle(target.resource.with_raw_response.create(**request))
    trail += [type(response), response.status_code, response.retries_taken, sorted(response._parsed_by_type)]
    trail.append(seen(await settle(response.parse())))
    trail.append(response.parse() is response.parse())


async def _raw_stream(target: _Target, leave: str, trail: Trail, request: dict[str, Any]) -> None:
    response = await settle(target.resource.with_raw_response.create(**request, stream=True))
    trail += [type(response), response.http_response.is_closed, response.http_response.is_stream_consumed]
    if leave == "unparsed":
        await _close(response.http_response, is_async=target.is_async)
    elif leave != "dropped":
        await _iterate(await settle(response.parse()), leave, trail)


async def _streaming(target: _Target, leave: str, trail: Trail, request: dict[str, Any]) -> None:
    async with entered(target.resource.with_streaming_response.create(**request)) as response:
        trail += [type(response), response.http_response.is_stream_consumed]
        if leave == "drained":
            trail.append(seen(await settle(response.parse())))
        elif leave == "read":
            trail.append(await settle(response.json()))
        elif leave == "bytes":
            trail.append(b"".join([data async for data in each(response.iter_bytes(7))]))


async def _streaming_stream(target: _Target, leave: str, trail: Trail, request: dict[str, Any]) -> None:
    create = target.resource.with_streaming_response.create
    async with entered(create(**request, stream=True)) as response:
        trail += [type(response), response.http_response.is_stream_consumed]
        if leave == "lines":
            trail += [line async for line in each(response.iter_lines())]
        elif leave != "unparsed":
            await _iterate(await settle(response.parse()), leave, trail)


async def _iterate(stream: Any, leave: str, trail: Trail) -> None:
    trail += [isinstance(stream, (openai.Stream, openai.AsyncStream)), type(stream.response)]
    if leave == "never":
        return
    if leave == "with break":
        async with entered(stream):
            async for chunk in each(stream):
                trail.append(seen(chunk))
                if len(trail) > 4:
                    break
        return
    async for chunk in each(stream):
        trail.append(seen(chunk))
        if leave in ("close", "break") and len(trail) > 4:
            break
    if leave == "close":
        await _close(stream, is_async=isinstance(stream, openai.AsyncStream))


async def _close(closable: Any, *, is_async: bool) -> None:
    await settle(getattr(closable, "aclose" if is_async and hasattr(closable, "aclose") else "close")())


_FORMS: dict[str, Callable[[_Target, str, Trail, dict[str, Any]], Any]] = {
    "plain": _plain,
    "parse": _parse,
    "stream": _stream,
    "helper": _helper,
    "raw": _raw,
    "raw_stream": _raw_stream,
    "streaming": _streaming,
    "streaming_stream": _streaming_stream,
}


def client_for(server: ScriptedServer, *, is_async: bool, **options: Any) -> Any:
    """Return a client of the scripted server."""
    options = {"api_key": "sk-test-0123456789abcdef", "max_retries": 0, **options}
    # Loading the certificates takes a tenth of a second, and nothing here speaks TLS.
    if is_async:
        http = openai.DefaultAsyncHttpxClient(verify=False)
        return openai.AsyncOpenAI(base_url=server.base_url, http_client=http, **options)
    return openai.OpenAI(
        base_url=server.base_url, http_client=openai.DefaultHttpxClient(verify=False), **options
    )


async def closing(client: Any, work: Any) -> Any:
    """Await ``work`` and close the client after it."""
    try:
        return await work
    finally:
        await settle(client.close())
