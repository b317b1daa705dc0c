"""The webhook against a real HTTP server that is slow, failing, and closing connections."""

from __future__ import annotations

import base64
import http.server
import json
import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from typing import Any

import pytest

from openai_lifecycle import records
from openai_lifecycle.sinks import Rejected, Unavailable, webhook
from openai_lifecycle.sinks.webhook import WebhookSink
from tests import generated
from tests.limits import HANGS
from tests.sinks.conftest import EVENTS, Dispatch

Answer = Callable[[http.server.BaseHTTPRequestHandler], object]


def status(code: int, **headers: str) -> Answer:
    """Return an answer that is a status and headers."""

    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        request.send_response(code)
        for name, value in {"Content-Length": "0", **headers}.items():
            request.send_header(name.replace("_", "-"), value)
        request.end_headers()

    return answer


def closing(request: http.server.BaseHTTPRequestHandler) -> None:
    """Close the connection without an answer."""
    request.close_connection = True


def babbling(request: http.server.BaseHTTPRequestHandler) -> None:
    """Answer what is not HTTP."""
    request.wfile.write(b"what?\r\n\r\n")


class Receiver:
    """A server on loopback: answers as it is told, and keeps what it got."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.got: list[tuple[dict[str, str], list[dict[str, Any]]]] = []
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.got.append((dict(self.headers.items()), json.loads(body)))
                receiver.answers.pop(0)(self) if receiver.answers else status(204)(self)

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        self.host = f"127.0.0.1:{self._server.server_port}"
        self.url = f"webhook+http://{self.host}/hook?a=b"

    def stop(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(HANGS)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """Return a running server."""
    running = Receiver()
    yield running
    running.stop()


def test_events_are_cloud_events(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch is one POST of CloudEvents 1.0 in JSON, whose data gives each event back."""
    monkeypatch.setenv("OTEL_SERVICE_NAME", "my shop")
    sink = WebhookSink(receiver.url)
    sink.write(EVENTS)
    sink.flush()
    sink.close()
    ((headers, body),) = receiver.got
    assert headers["Content-Type"] == "application/cloudevents-batch+json; charset=utf-8"
    assert [generated.restored(item["data"]) for item in body] == EVENTS
    for item, event in zip(body, EVENTS, strict=True):
        span = event.metadata.custom_fields["span_id"]
        assert {name: value for name, value in item.items() if name != "data"} == {
            "specversion": "1.0",
            "id": records.event_id(event),
            "source": "my%20shop",
            "type": f"openai_lifecycle.{event.event_type}",
            "time": event.metadata.custom_fields["timestamp"],
            "datacontenttype": "application/json",
            "traceparent": f"00-{event.trace_id}-{span}-01",
        }
    assert len({item["id"] for item in body}) == len(EVENTS)


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("http://b\u00fccher.example/hook", "xn--bcher-kva.example"),
        ("http://user:word@\u4f8b\u3048.jp:8080/hook", "xn--r8jz45g.jp:8080"),
        ("http://[::1]:8080/hook", "[::1]:8080"),
    ],
)
def test_hosts_are_sent_as_dns_spells_them(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, url: str, host: str
) -> None:
    """The name of a host may have any letters; the server gets it encoded, with its port."""
    monkeypatch.setenv("http_proxy", f"http://{receiver.host}")  # it gets whatever the host
    monkeypatch.delenv("no_proxy", raising=False)
    WebhookSink(f"webhook+{url}").write(EVENTS)
    ((headers, body),) = receiver.got
    assert headers["Host"] == host
    assert len(body) == len(EVENTS)


def test_hostile_texts_arrive_as_they_are(receiver: Receiver) -> None:
    """Hostile texts in every field of an event arrive as they are."""
    WebhookSink(receiver.url).write(generated.hostile())
    assert [generated.restored(item["data"]) for item in receiver.got[0][1]] == generated.hostile()


@pytest.mark.parametrize(
    ("user", "header"),
    [
        ("", None),
        ("name:pass%40word@", "Basic " + base64.b64encode(b"name:pass@word").decode()),
        ("t%2Fken@", "Bearer t/ken"),
    ],
)
def test_the_url_s_user_is_the_authorization(receiver: Receiver, user: str, header: str | None) -> None:
    """``name:password@`` is basic authentication, ``token@`` a bearer token; neither is in the request's URL."""
    WebhookSink(receiver.url.replace("://", f"://{user}")).write(EVENTS[:1])
    headers = receiver.got[0][0]
    assert headers.get("Authorization") == header
    assert headers["Host"] == receiver.host


@pytest.mark.parametrize("code", [408, 425, 429, 500, 502, 503, 504])
def test_a_server_in_trouble_is_tried_again(receiver: Receiver, code: int) -> None:
    """After these answers a batch is tried again, when ``Retry-After`` says, if it says anything."""
    waits = {"7": 7.0, "Wed, 21 Oct 2015 07:28:00 GMT": 0.0, "soon": None, "": None}
    receiver.answers = [status(code, Retry_After=text) for text in waits]
    for after in waits.values():
        with pytest.raises(Unavailable, match=f"^the server answered {code}$") as raised:
            WebhookSink(receiver.url).write(EVENTS)
        assert raised.value.after == after


def test_a_server_that_says_when(receiver: Receiver) -> None:
    """A date in ``Retry-After`` is the number of seconds until then."""
    receiver.answers = [
        status(503, Retry_After=format_datetime(datetime.now(timezone.utc) + timedelta(hours=1)))
    ]
    with pytest.raises(Unavailable) as raised:
        WebhookSink(receiver.url).write(EVENTS)
    assert 3500 < (raised.value.after or 0) <= 3600


@pytest.mark.parametrize("code", [301, 302, 307, 308, 400, 401, 403, 404, 413, 422, 501])
def test_a_refusal_is_final(receiver: Receiver, code: int) -> None:
    """After these answers a batch is given up, after three of them only as it is put together; a redirect is not followed."""
    receiver.answers = [status(code, Location=f"http://{receiver.host}/elsewhere")]
    with pytest.raises(Rejected, match=f"^the server answered {code}$") as raised:
        WebhookSink(receiver.url).write(EVENTS)
    assert raised.value.permanent == (code not in (400, 413, 422))
    assert len(receiver.got) == 1


def test_a_connection_that_breaks_is_tried_again(receiver: Receiver) -> None:
    """A closed connection, no HTTP, a server that is not there and a name that does not exist are all: later."""
    receiver.answers = [closing, babbling]
    for url in (receiver.url, receiver.url, "webhook+http://127.0.0.1:1/", "webhook+http://nowhere.invalid/"):
        with pytest.raises(Unavailable, match=r"^the server cannot be reached \(\w+\)$"):
            WebhookSink(url).write(EVENTS)


def test_a_server_that_never_answers_is_given_up(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that takes the batch and says nothing is: later."""
    monkeypatch.setattr(webhook, "_TIMEOUT", 0.05)
    answered = threading.Event()
    receiver.answers = [lambda _: answered.wait(HANGS)]
    with pytest.raises(Unavailable, match="the server cannot be reached"):
        WebhookSink(receiver.url).write(EVENTS)
    answered.set()


def test_nothing_is_lost_on_a_bad_day(receiver: Receiver, dispatcher: Dispatch) -> None:
    """Through closed connections, errors and slow answers every event arrives, and its id tells doubles apart."""
    receiver.answers = [
        closing,
        status(503),
        lambda request: None,
        status(500),
        closing,
        status(429, Retry_After="0"),
    ]
    dispatching = dispatcher(hook=WebhookSink(receiver.url))
    for event in EVENTS:
        dispatching.put(event)
        dispatching.flush(0.01)
    assert dispatching.flush(HANGS)
    ids = [item["id"] for _, body in receiver.got for item in body]
    assert list(dict.fromkeys(ids)) == list(map(records.event_id, EVENTS))
    assert dispatcher.lost() == {}


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("webhook+http:", "needs a host"),
        ("webhook+https:///path", "needs a host"),
        ("webhook+http://host:port/", "needs a host"),
        ("webhook+http://host:0/", "needs a host"),
        ("webhook+http://host:65536/", "needs a host"),
        ("webhook+http://[::1/", "needs a host"),
        ("webhook+http://a..b/", "needs a host"),
        ("webhook+http://ho st/", "visible ASCII"),
        ("webhook+http://host/a b", "path and query may hold only visible ASCII: %-encode the rest"),
        ("webhook+http://host/\u00fc", "visible ASCII"),
        ("webhook+http://host/?a b", "visible ASCII"),
        ("webhook+http://to%0Aken@host/", "its bearer token may hold only visible ASCII"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused(url: str, reason: str) -> None:
    """A URL that names no server, or that cannot be sent, raises at once and not for minutes at each batch."""
    with pytest.raises(ValueError, match=reason):
        WebhookSink(url)


@pytest.mark.parametrize(
    "url",
    ["webhook+http://b\u00fccher.example/", "webhook+http://[::1]:8080/", "webhook+http://u:%C3%BC@host/"],
)
def test_a_url_that_can_be_used_is_taken(url: str) -> None:
    """International names, IPv6 and passwords of any characters are fine."""
    WebhookSink(url)


def test_one_large_or_wrong_event_costs_no_other(receiver: Receiver, dispatcher: Dispatch) -> None:
    """Where the server refuses a batch that is too large, or for one event, all it can take arrives, in order."""

    def choosy(request: http.server.BaseHTTPRequestHandler) -> None:
        body = receiver.got[-1][1]
        refused = len(body) > 3 or EVENTS[7].trace_id in json.dumps(body)
        if refused:
            receiver.got.pop()
        status(413 if refused else 204)(request)

    receiver.answers = [choosy] * 99
    dispatching = dispatcher(hook=WebhookSink(receiver.url))
    for event in EVENTS:
        dispatching.put(event)
    assert dispatching.flush(HANGS)
    arrived = [generated.restored(item["data"]) for _, body in receiver.got for item in body]
    assert arrived == [event for event in EVENTS if event.trace_id != EVENTS[7].trace_id]
    assert dispatcher.lost() == {"hook": len(EVENTS) - len(arrived)}
