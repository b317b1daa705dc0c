"""The shapes that leave for other programs: valid JSON and times that exist, whatever an event says."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from enum import IntEnum
from typing import Any

import pytest

from openai_lifecycle import records
from openai_lifecycle.events import LLMGenerationSuccess, Metadata
from openai_lifecycle.eventslog.format import parse, render
from tests import generated

TIME = datetime(2025, 1, 27, 14, 30, 25)  # noqa: DTZ001 - as a header has it
EAST, WEST = timezone(timedelta(hours=23)), timezone(-timedelta(hours=23))
EARLIEST = datetime.min.replace(tzinfo=timezone.utc)


class Member(IntEnum):
    """A number that is written as a name by some."""

    THREE = 3


def refuse(constant: str) -> None:
    """Refuse what Python's JSON has and JSON has not."""
    raise ValueError(constant)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (float("nan"), None),
        (float("inf"), None),
        (float("-inf"), None),
        (10**5000, None),
        (-(10**5000), None),
        (10**300, 10**300),
        (Member.THREE, 3),
        (True, 1),
        (0.5, 0.5),
    ],
    ids=["nan", "inf", "-inf", "digits", "-digits", "large", "member", "true", "float"],
)
def test_a_number_that_json_cannot_say_is_null(given: Any, kept: Any) -> None:
    """The object of an event is valid JSON, and gives back the event of its entry in the log; a row has the same."""
    event = LLMGenerationSuccess(
        time=TIME, temperature=given, messages_count=given, metadata=Metadata(top_p=given, max_tokens=given)
    )
    read = json.loads(records.to_json(event), parse_constant=refuse)
    assert read["temperature"] == read["messages_count"] == kept
    assert read["metadata"].get("top_p") == read["metadata"].get("max_tokens") == kept
    assert generated.restored(read) == parse(render(event))
    row = records.to_row(event)
    for column in ("temperature", "messages_count", "top_p", "max_tokens"):
        assert row[column] == kept
        assert repr(row[column]) == repr(kept)


@pytest.mark.parametrize(
    ("stated", "time", "expected"),
    [
        ("2025-01-27T14:30:25.000001+01:00", TIME, "2025-01-27T13:30:25.000001+00:00"),
        ("0001-01-01T00:00:00+00:00", TIME, "0001-01-01T00:00:00+00:00"),
        ("9999-12-31T23:59:59+00:00", TIME, "9999-12-31T23:59:59+00:00"),
        ("0001-01-01T00:00:00", TIME, None),
        ("0001-01-01T00:00:00+23:59", TIME, None),
        ("9999-12-31T23:59:59-23:59", TIME, None),
        ("", TIME, None),
        ("0001-01-01T00:00:00+23:59", datetime.min.replace(tzinfo=EAST), "0001-01-01T00:00:00+00:00"),
        ("", datetime.max.replace(tzinfo=WEST), "9999-12-31T23:59:59.999999+00:00"),
    ],
)
def test_when_an_event_happened_can_always_be_said(stated: str, time: datetime, expected: str | None) -> None:
    """A time that UTC cannot say is no time: the header's counts, and where that is none either, it counts as UTC."""
    event = LLMGenerationSuccess(time=time, metadata=Metadata(custom_fields={"timestamp": stated}))
    instant = records.instant(event)
    assert instant >= EARLIEST
    said = records.to_row(event)["timestamp"]
    assert said == instant
    assert said.isoformat() == (expected or TIME.astimezone(timezone.utc).isoformat())


def test_a_time_with_a_zone_is_the_header_s() -> None:
    """The object of an event whose time has a zone gives back the event of its entry, whose header has none."""
    event = LLMGenerationSuccess(time=TIME.replace(tzinfo=timezone.utc))
    assert generated.restored(records.to_object(event)) == parse(render(event))
