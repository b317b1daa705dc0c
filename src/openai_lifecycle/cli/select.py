"""The filters that ``show``, ``tail``, ``stats``, ``report`` and ``convert`` share."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from typing import Any, Final

import click

from openai_lifecycle.cli.show import summary
from openai_lifecycle.events import (
    LifecycleEvent,
    LLMGenerationError,
    LLMInitializationError,
    ToolCallDetected,
)
from openai_lifecycle.eventslog.format import KEYS, render
from openai_lifecycle.records import instant, zoned

TAGS: Final = tuple(kind.tag for kind in KEYS)
_TAG_OF: Final = {kind.event_type: kind.tag for kind in KEYS}
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_AGO: Final = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)([smhdw])(?:\s+ago)?")
ALLOWED_TIMES: Final = "a time such as 2026-01-27, 2026-01-27T14:30 or 2026-01-27T14:30:25+01:00, or an age: 90s, 30m, 2h, 7d, 1w"


def moment(text: str, now: datetime) -> datetime:
    """Return the instant that ``text`` names: a time, local when it has no zone, or an age: ``2h`` or ``2h ago``.

    Raises:
        ValueError: it names none.
    """
    ago = _AGO.fullmatch(text.strip())
    if ago is not None:
        return now - timedelta(**{_UNITS[ago[2]]: float(ago[1])})
    return zoned(datetime.fromisoformat(text.strip().replace("Z", "+00:00")))


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Selects events: all conditions must hold; for each, any of its values."""

    event: tuple[str, ...] = ()
    model: tuple[str, ...] = ()
    provider: tuple[str, ...] = ()
    user: tuple[str, ...] = ()
    tool: tuple[str, ...] = ()
    trace: str = ""
    error: bool = False
    since: datetime | None = None
    until: datetime | None = None
    grep: re.Pattern[str] | None = None

    @property
    def everything(self) -> bool:
        """Whether every event is wanted."""
        return self == _EVERYTHING

    def __call__(self, event: LifecycleEvent) -> bool:
        """Whether ``event`` is wanted."""
        return (
            (not self.event or event.tag in self.event)
            and (not self.error or isinstance(event, (LLMGenerationError, LLMInitializationError)))
            and (not self.model or _any(self.model, event.model_id, _response_model(event)))
            and (not self.provider or _any(self.provider, event.provider))
            and (not self.user or _any(self.user, event.metadata.user or ""))
            and (not self.tool or (isinstance(event, ToolCallDetected) and _any(self.tool, event.tool_name)))
            and event.trace_id.startswith(self.trace)
            and (self.since is None or instant(event) >= self.since)
            and (self.until is None or instant(event) < self.until)
            and (self.grep is None or any(map(self.grep.search, (summary(event), render(event)))))
        )


_EVERYTHING: Final = Filter()


def _any(patterns: tuple[str, ...], *values: str) -> bool:
    return any(fnmatchcase(value, pattern) for pattern in patterns for value in values)


def _response_model(event: LifecycleEvent) -> str:
    return event.metadata.custom_fields.get("response_model", "")


# ------------------------------------------------------------------ as options
def _moment(ctx: click.Context, param: click.Parameter, value: str | None) -> datetime | None:
    try:
        return None if value is None else moment(value, datetime.now().astimezone())
    except (ValueError, OverflowError):
        raise click.BadParameter(
            f"{value!r} is not allowed: it must be {ALLOWED_TIMES}", ctx, param
        ) from None


def _regex(ctx: click.Context, param: click.Parameter, value: str | None) -> re.Pattern[str] | None:
    try:
        return None if value is None else re.compile(value, re.IGNORECASE if value == value.lower() else 0)
    except re.error as error:
        message = f"{value!r} is not allowed: it must be a regular expression ({error})"
        raise click.BadParameter(message, ctx, param) from None


def trace_prefix(ctx: click.Context, param: click.Parameter, value: str | None) -> str:
    """Return the first digits of a trace id as they are in the log; nothing if there is no ``value``."""
    if value is None:
        return ""
    prefix = value.strip().lower()
    if not prefix or any(digit not in "0123456789abcdef" for digit in prefix):
        raise click.BadParameter(f"{value!r} is not allowed: it must be hexadecimal digits", ctx, param)
    return prefix


class _Tag(click.Choice[str]):
    """A type of entry: its tag or its ``event_type``, in any case."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the tag; click's own message would name the allowed ones in lower case."""
        name: str = value.upper()
        tag = _TAG_OF.get(name, name)
        if tag not in TAGS:
            self.fail(f"{value!r} is not allowed: it must be one of {', '.join(TAGS)}", param, ctx)
        return tag


_OPTIONS: Final = (
    click.option(
        "--event",
        multiple=True,
        type=_Tag(TAGS, case_sensitive=False),
        metavar="TAG",
        help=f"Only this type of entry: {', '.join(TAGS)}, or an event_type; may be repeated.",
    ),
    click.option(
        "--model",
        multiple=True,
        metavar="GLOB",
        help="Only this model, requested or answering; may be repeated.",
    ),
    click.option("--provider", multiple=True, metavar="GLOB", help="Only this provider; may be repeated."),
    click.option("--user", multiple=True, metavar="GLOB", help="Only this user; may be repeated."),
    click.option("--tool", multiple=True, metavar="GLOB", help="Only calls of this tool; may be repeated."),
    click.option(
        "--since",
        callback=_moment,
        metavar="TIME",
        help="Only from this time on: 2026-01-27T14:30 (local unless it has a zone), or an age such as 2h.",
    ),
    click.option("--until", callback=_moment, metavar="TIME", help="Only before this time."),
    click.option(
        "--trace",
        callback=trace_prefix,
        metavar="ID",
        help="Only this trace; the first digits are enough.",
    ),
    click.option("--error", is_flag=True, help="Only errors."),
    click.option(
        "--grep",
        callback=_regex,
        metavar="REGEX",
        help="Only entries that match as `show` prints them or as they are in the file; a lower-case pattern ignores case.",
    ),
)


def filter_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give ``command`` the filter options; it gets them as one :class:`Filter` named ``wanted``."""

    @functools.wraps(command)
    def with_filter(*args: Any, **values: Any) -> Any:
        chosen = {name: values.pop(name) for name in Filter.__slots__}
        return command(*args, wanted=Filter(**chosen), **values)

    for option in reversed(_OPTIONS):
        with_filter = option(with_filter)
    return with_filter
