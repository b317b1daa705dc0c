"""``webhook+https://host/path``: batches of CloudEvents, sent with POST.

The body is a JSON batch as CloudEvents 1.0 defines it ("JSON Event Format", section 4; "HTTP Protocol Binding",
section 3.3). A receiver that answers late may get a batch again; ``id`` identifies duplicates.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from email.utils import parsedate_to_datetime
from typing import Any, Final
from urllib.parse import SplitResult, quote, unquote, urlsplit, urlunsplit

from openai_lifecycle.events import LifecycleEvent
from openai_lifecycle.records import decimal, event_id, instant, to_object
from openai_lifecycle.sinks import Rejected, Unavailable
from openai_lifecycle.version import __version__

_TIMEOUT: Final = 10.0  # seconds without a byte
_RETRYABLE: Final = frozenset({408, 425, 429, 500, 502, 503, 504})  # other codes, except 2xx, are final
_BAD_BATCH: Final = frozenset({400, 413, 422})  # fewer or other events may be accepted
_SENDABLE: Final = re.compile("[!-~]*")


class WebhookSink:
    """Posts events to ``url`` without its ``webhook+``.

    ``user:password@`` in the URL becomes basic authentication, ``token@`` alone a bearer token. Proxies come from the
    environment. Redirects are not followed: a POST would become a GET.

    Raises:
        ValueError: the URL names no host, or cannot be sent as it is.
    """

    def __init__(self, url: str) -> None:
        parts, host = _parts(url.removeprefix("webhook+"))
        self._url = urlunsplit((parts.scheme, host, parts.path or "/", parts.query, ""))
        self._headers = {
            "Content-Type": "application/cloudevents-batch+json; charset=utf-8",
            "User-Agent": f"openai-lifecycle/{__version__}",
        }
        if parts.password is not None:
            pair = f"{unquote(parts.username or '')}:{unquote(parts.password)}"
            self._headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        elif parts.username:
            self._headers["Authorization"] = f"Bearer {unquote(parts.username)}"
        self._source = quote(os.environ.get("OTEL_SERVICE_NAME") or "openai-lifecycle")
        self._opener = urllib.request.build_opener(_NoRedirect)

    def write(self, events: Sequence[LifecycleEvent]) -> None:
        """Post ``events`` as one batch.

        Raises:
            Unavailable: the server cannot be reached, does not answer in time, or asks to retry.
            Rejected: the server refuses the batch.
        """
        body = json.dumps([self._cloud_event(event) for event in events]).encode()
        request = urllib.request.Request(self._url, body, self._headers, method="POST")  # noqa: S310 - http(s)
        try:
            with self._opener.open(request, timeout=_TIMEOUT):
                pass
        except urllib.error.HTTPError as error:
            with error:
                message = f"the server answered {error.code}"
                if error.code not in _RETRYABLE:
                    raise Rejected(message, permanent=error.code not in _BAD_BATCH) from None
                raise Unavailable(message, _seconds(error.headers.get("Retry-After", ""))) from None
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            raise Unavailable(f"the server cannot be reached ({type(reason).__name__})") from None

    def _cloud_event(self, event: LifecycleEvent) -> dict[str, Any]:
        attributes = {
            "specversion": "1.0",
            "id": event_id(event),
            "source": self._source,
            "type": f"openai_lifecycle.{event.event_type}",
            "time": instant(event).isoformat(),
            "datacontenttype": "application/json",
        }
        span_id = event.metadata.custom_fields.get("span_id")
        if event.trace_id and span_id:  # the distributed tracing extension
            attributes["traceparent"] = f"00-{event.trace_id}-{span_id}-01"
        return {**attributes, "data": to_object(event)}

    def flush(self) -> None:
        """Do nothing: the server has answered every write."""

    def close(self) -> None:
        """Do nothing: no connection is kept."""


def _seconds(after: str) -> float | None:
    """Return how long ``Retry-After``, seconds or a date (RFC 9110, section 10.2.3), says to wait, if it can be read."""
    seconds = decimal(after)
    if seconds is None:
        with contextlib.suppress(ValueError, OverflowError):
            seconds = max(0.0, parsedate_to_datetime(after).timestamp() - time.time())
    return seconds


def _parts(url: str) -> tuple[SplitResult, str]:
    """Return the parts of ``url``, checked to be sendable by http.client, and host and port as they are sent."""
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").encode("idna").decode()
        nowhere = not host or parts.port == 0
    except ValueError:  # not chained: its text quotes the URL
        nowhere = True
    if nowhere:
        raise ValueError("it needs a host, as in webhook+https://host/path or webhook+https://host:8443/path")
    if not _SENDABLE.fullmatch(f"{host}{parts.path}{parts.query}"):
        raise ValueError("host, path and query may hold only visible ASCII: %-encode the rest")
    if parts.password is None and not _SENDABLE.fullmatch(unquote(parts.username or "")):
        raise ValueError("its bearer token may hold only visible ASCII")
    shown = f"[{host}]" if ":" in host else host
    return parts, shown if parts.port is None else f"{shown}:{parts.port}"


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None
