"""Every option of this package: keyword, environment variable, default, allowed values, help.

:func:`read` turns the keywords of ``instrument()`` and the environment into one frozen :class:`Options`.
A keyword wins over its variable, a variable over the default. A wrong keyword raises, because it is a mistake
in the program and is seen at its first start; a wrong variable is logged as one error and the default is
used (for ``capture``, ``no_content``), because a deployment's typo must not stop the application.
"""

from __future__ import annotations

import contextlib
import enum
import functools
import logging
import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, NamedTuple, TypeAlias, cast

from openai_lifecycle import environment_variables as env
from openai_lifecycle.events import LifecycleEvent, Number
from openai_lifecycle.redaction import address

_logger = logging.getLogger(__name__)

Durability: TypeAlias = Literal["write", "fsync", "buffered"]
Transform: TypeAlias = Callable[[LifecycleEvent], "LifecycleEvent | None"]

#: The official packages' variable, so that one setting serves every GenAI instrumentation of a process.
CAPTURE_VARIABLE = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"


class Capture(enum.Enum):
    """Where prompts, completions, tool arguments and error texts may appear."""

    NO_CONTENT = "no_content"
    EVENT_ONLY = "event_only"
    SPAN_ONLY = "span_only"
    SPAN_AND_EVENT = "span_and_event"

    @functools.cached_property
    def on_events(self) -> bool:
        """Whether lifecycle events, and so ``events.log``, carry content."""
        return self in (Capture.EVENT_ONLY, Capture.SPAN_AND_EVENT)

    @functools.cached_property
    def on_spans(self) -> bool:
        """Whether span attributes carry content, for Jaeger's GenAI view."""
        return self in (Capture.SPAN_ONLY, Capture.SPAN_AND_EVENT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What ``instrument()`` was asked to do; see :data:`OPTIONS` for each field's meaning."""

    events_log: str | None = "events.log"
    model: str | None = None
    temperature: Number | None = None
    top_p: Number | None = None
    max_tokens: int | None = None
    durability: Durability = "write"
    max_bytes: int = 0
    backups: int = 5
    compress: bool = False
    utc: bool = False
    content_limit: int = 8192
    propagate: bool = False
    capture: Capture = Capture.EVENT_ONLY
    transform: Transform | None = None
    sinks: tuple[Any, ...] = ()
    tracer_provider: Any = None
    meter_provider: Any = None


class Option(NamedTuple):
    """One row of the options table; ``parse`` takes a keyword's value or a variable's text."""

    name: str
    variable: str | None
    parse: Callable[[Any], Any]
    allowed: str
    help: str

    @property
    def default(self) -> object:
        """The value when neither keyword nor variable is given."""
        return _DEFAULTS[self.name]

    @property
    def shown_default(self) -> str:
        """The default as people write it."""
        return "unset" if self.default in (None, ()) else _shown(self.default)


#: What ``parse`` functions raise for a value that is not allowed.
_WRONG = (ValueError, TypeError, KeyError, AttributeError, OverflowError)
_DEFAULTS: Mapping[str, object] = {f.name: f.default for f in fields(Options)}


def _path(value: Any) -> str | None:
    text = os.fspath(value)
    if not isinstance(text, str) or not text.strip() or "\0" in text:
        raise ValueError
    return None if text.strip().lower() == "none" else text


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError
    return value


def _number(value: Any) -> Number:
    if isinstance(value, str):
        value = int(value) if value.strip().lstrip("+-").isdigit() else float(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError
    return value


def _natural(value: Any) -> int:
    number = _number(value)
    if not isinstance(number, int) or number < 0:
        raise ValueError
    return number


def _flag(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    return {"true": True, "1": True, "false": False, "0": False}[value.strip().lower()]


def _durability(value: Any) -> Durability:
    text = value.strip().lower()
    if text not in ("write", "fsync", "buffered"):
        raise ValueError
    return cast("Durability", text)


def _capture(value: Any) -> Capture:
    if isinstance(value, Capture):
        return value
    text = str(value).strip().lower()
    return {"true": Capture.SPAN_AND_EVENT, "false": Capture.NO_CONTENT}.get(text) or Capture(text)


def _function(value: Any) -> Transform:
    if not callable(value):
        raise TypeError
    return cast("Transform", value)


# A URL may contain commas; a new one begins with a scheme.
_COMMA = re.compile(r",(?=\s*[A-Za-z][A-Za-z0-9+.-]*:)")


def _sinks(value: Any) -> tuple[Any, ...]:
    if isinstance(value, str):
        return tuple(url.strip() for url in _COMMA.split(value) if url.strip())
    sinks = tuple(value)
    if not all(isinstance(sink, str) or _has(sink, "write", "flush", "close") for sink in sinks):
        raise ValueError
    return sinks


def _has(value: Any, *methods: str) -> bool:
    """Return whether ``value`` is an object, not a class, with these methods."""
    return not isinstance(value, type) and all(callable(getattr(value, name, None)) for name in methods)


def _without_secrets(sinks: Any) -> str:
    """Describe the sinks that were given: URLs and numbers by value, anything else only by type."""
    if isinstance(sinks, str):
        return repr(address(sinks))
    if type(sinks) in (list, tuple):  # not subclasses: SQLAlchemy's URL is a tuple of texts
        return f"[{', '.join(map(_without_secrets, sinks))}]"
    return repr(sinks) if isinstance(sinks, (int, float)) else type(sinks).__qualname__


def _provider(value: Any, method: str) -> Any:
    if not _has(value, method):
        raise TypeError
    return value


_NUMBER = "a finite number"
_NATURAL = "a whole number, 0 or more"
_FLAG = "true or false"

OPTIONS = (
    Option(
        "events_log",
        env.OTEL_PYTHON_OPENAI_LIFECYCLE_EVENTS_LOG,
        _path,
        "a path, or none",
        "The file that entries are appended to. It may be `/dev/stdout`; `none` writes no file.",
    ),
    Option(
        "model",
        env.OTEL_PYTHON_OPENAI_LIFECYCLE_MODEL,
        _text,
        "a model name",
        "The model recorded in `INIT_*` entries.",
    ),
    Option(
        "temperature",
        env.OTEL_PYTHON_OPENAI_LIFECYCLE_TEMPERATURE,
        _number,
        _NUMBER,
        "The temperature recorded in `INIT_*` entries.",
    ),
    Option(
        "top_p",
        env.OTEL_PYTHON_OPENAI_LIFECYCLE_TOP_P,
        _number,
        _NUMBER,
        "The top_p recorded in `INIT_*` entries.",
    ),
    Option(
        "max_tokens",
        env.OTEL_PYTHON_OPENAI_LIFECYCLE_MAX_TOKENS,
        _natural,
        _NATURAL,
        "The token limit recorded in `INIT_*` entries.",
    ),
    Option(
        "durability",
        env.OTEL_PYTHON_OPENAI_LIFECYCLE_DURABILITY,
        _durability,
        "write, fsync or buffered",
        "When an entry is written: before the call returns (`write`), and also synced to disk by then (`fsync`), or soon after the call (`buffered`).",
    ),
    Option(
        "max_bytes",
        env.OTEL_PYTHON_OPENAI_LIFECYCLE_MAX_BYTES,
        _natural,
        _NATURAL,
        "Rotate the file before it grows beyond this many bytes; 0 never rotates.",
    ),
    Option(
        "backups",
        env.OTEL_PYTHON_OPENAI_LIFECYCLE_BACKUPS,
        _natural,
        _NATURAL,
        "How many rotated files to keep.",
    ),
    Option(
        "compress",
        env.OTEL_PYTHON_OPENAI_LIFECYCLE_COMPRESS,
        _flag,
        _FLAG,
        "Compress rotated files with gzip.",
    ),
    Option(
        "utc",
        env.OTEL_PYTHON_OPENAI_LIFECYCLE_UTC,
        _flag,
        _FLAG,
        "Write the header's time in UTC instead of local time.",
    ),
    Option(
        "content_limit",
        env.OTEL_PYTHON_OPENAI_LIFECYCLE_CONTENT_LIMIT,
        _natural,
        _NATURAL,
        "After how many characters `message_content`, and each content attribute of a span, is cut.",
    ),
    Option(
        "propagate",
        env.OTEL_PYTHON_OPENAI_LIFECYCLE_PROPAGATE,
        _flag,
        _FLAG,
        "Send the trace context (`traceparent`) to the model's server.",
    ),
    Option(
        "capture",
        CAPTURE_VARIABLE,
        _capture,
        "no_content, event_only, span_only, span_and_event, true or false",
        "Where prompts, completions, tool arguments and error texts may appear.",
    ),
    Option(
        "transform",
        None,
        _function,
        "a function that takes a LifecycleEvent and returns one or None",
        "Changes or redacts an entry before it is written, or drops it by returning `None`.",
    ),
    Option(
        "sinks",
        env.OTEL_PYTHON_OPENAI_LIFECYCLE_SINKS,
        _sinks,
        "URLs separated by commas, or a list of URLs and EventSink objects",
        "Where events go in addition to the file: `jsonl:///path`, a database URL, `webhook+https://host/path`.",
    ),
    Option(
        "tracer_provider",
        None,
        functools.partial(_provider, method="get_tracer"),
        "a TracerProvider",
        "Where spans go; the global provider by default.",
    ),
    Option(
        "meter_provider",
        None,
        functools.partial(_provider, method="get_meter"),
        "a MeterProvider",
        "Where metrics go; the global provider by default.",
    ),
)


def read(keywords: Mapping[str, Any] | None = None, environ: Mapping[str, str] = os.environ) -> Options:
    """Return the options in force.

    Raises:
        TypeError: a keyword is not an option.
        ValueError: a keyword's value is not allowed; the message names option, value and what is allowed.
    """
    keywords = dict(keywords or {})
    values: dict[str, Any] = {}
    for option in OPTIONS:
        given = keywords.pop(option.name, None)
        text = environ.get(option.variable, "") if option.variable else ""
        if given is not None:
            values[option.name] = _checked(option, given)
        elif text:
            values[option.name] = _from_environment(option, text)
    if keywords:
        known = ", ".join(option.name for option in OPTIONS)
        raise TypeError(f"instrument() has no option {next(iter(keywords))!r}; its options are {known}")
    return Options(**values)


def _checked(option: Option, value: Any) -> Any:
    try:
        return option.parse(value)
    except _WRONG:
        shown = _without_secrets(value) if option.name == "sinks" else repr(value)
        raise ValueError(f"{option.name}={shown} is not allowed: it must be {option.allowed}") from None


def _from_environment(option: Option, text: str) -> Any:
    with contextlib.suppress(*_WRONG):
        return option.parse(text)
    # ``capture`` is a promise about privacy: a value that cannot be read must not capture more.
    used = Capture.NO_CONTENT if option.name == "capture" else option.default
    _logger.error(
        "%s=%r is not allowed: it must be %s; %s",
        option.variable,
        text,
        option.allowed,
        "it is ignored" if used is None else f"using {_shown(used)}",
    )
    return used


def _shown(value: object) -> str:
    return str(value.value if isinstance(value, Capture) else value).lower()


def described() -> str:
    """Return two lines of help for every option."""
    return "".join(
        f"    {option.name}: {option.help}\n"
        f"        {option.allowed}; default: {option.shown_default}"
        f"{f'; variable {option.variable}' if option.variable else ''}\n"
        for option in OPTIONS
    )
