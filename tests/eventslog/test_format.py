"""The text of an entry: the documented bytes, safe characters, and the way back."""

from __future__ import annotations

import dataclasses
import enum
import json
import math
import unicodedata
from datetime import datetime, timedelta, timezone, tzinfo
from typing import Any

import pytest
from hypothesis import given

from openai_lifecycle.events import (
    LifecycleEvent,
    LLMGenerationError,
    LLMGenerationSuccess,
    LLMInitializationError,
    LLMInitializationStart,
    LLMInitializationSuccess,
    Metadata,
    ToolCallDetected,
    assemble,
)
from openai_lifecycle.eventslog.format import parse, render
from tests.eventslog.samples import SUCCESS
from tests.eventslog.strategies import events

INIT_START = """\
[2025-01-27 14:30:25] [EVENT: INIT_START]
{
  "event_type": "LLM_INITIALIZATION_START",
  "provider": "openai",
  "model_id": "gpt-4.1-mini",
  "temperature": 0.7,
  "trace_id": "",
  "metadata": {
    "model_version": "gpt-4.1-mini",
    "max_tokens": 0,
    "top_p": 0.7,
    "user": "openai_user",
    "custom_fields": {
      "provider": "openai",
      "operation": "llm_initialization"
    }
  }
}

"""

TOOL_CALL_DETECTED = """\
[2025-01-27 14:30:26] [EVENT: TOOL_CALL_DETECTED]
{
  "event_type": "TOOL_CALL_DETECTED",
  "provider": "openai",
  "model_id": "gpt-4.1-mini",
  "tool_call_id": "call_abc123",
  "tool_name": "get_weather",
  "arguments": "{\\"location\\": \\"San Francisco\\"}",
  "trace_id": "",
  "metadata": {
    "user": "tool_call_user",
    "custom_fields": {
      "provider": "openai",
      "model_id": "gpt-4.1-mini",
      "tool_call_id": "call_abc123",
      "tool_type": "function",
      "tool_name": "get_weather"
    }
  }
}

"""

GOLDEN: list[tuple[str, LifecycleEvent]] = [
    (
        INIT_START,
        LLMInitializationStart(
            time=datetime.fromisoformat("2025-01-27 14:30:25"),
            provider="openai",
            model_id="gpt-4.1-mini",
            temperature=0.7,
            metadata=Metadata(
                model_version="gpt-4.1-mini",
                max_tokens=0,
                top_p=0.7,
                user="openai_user",
                custom_fields={"provider": "openai", "operation": "llm_initialization"},
            ),
        ),
    ),
    (
        TOOL_CALL_DETECTED,
        ToolCallDetected(
            time=datetime.fromisoformat("2025-01-27 14:30:26"),
            provider="openai",
            model_id="gpt-4.1-mini",
            tool_call_id="call_abc123",
            tool_name="get_weather",
            arguments='{"location": "San Francisco"}',
            metadata=Metadata(
                user="tool_call_user",
                custom_fields={
                    "provider": "openai",
                    "model_id": "gpt-4.1-mini",
                    "tool_call_id": "call_abc123",
                    "tool_type": "function",
                    "tool_name": "get_weather",
                },
            ),
        ),
    ),
]

KEYS = {
    LLMInitializationStart: "event_type provider model_id temperature trace_id metadata",
    LLMInitializationSuccess: "event_type provider model_id capabilities trace_id metadata",
    LLMInitializationError: "event_type provider model_id operation error trace_id metadata",
    LLMGenerationSuccess: "event_type provider model_id operation messages_count temperature message_content"
    " response_length choices_count trace_id metadata",
    LLMGenerationError: "event_type provider model_id operation messages_count temperature message_content"
    " error trace_id metadata",
    ToolCallDetected: "event_type provider model_id tool_call_id tool_name arguments trace_id metadata",
}


def members(entry: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(entry.partition("\n")[2])
    return loaded


@pytest.mark.parametrize(("text", "event"), GOLDEN, ids=["INIT_START", "TOOL_CALL_DETECTED"])
def test_golden_entries(text: str, event: LifecycleEvent) -> None:
    """The two documented examples are rendered to exactly their bytes, and parsed back."""
    assert render(event) == text
    assert parse(text) == event
    assert parse(text.encode()) == event


@pytest.mark.parametrize("kind", KEYS, ids=lambda kind: kind.tag)
def test_keys_always_appear_in_order(kind: type[LifecycleEvent]) -> None:
    """An entry about which nothing is known still has every key, in the documented order, empty or null."""
    entry = render(kind(time=datetime.fromisoformat("2025-01-27 14:30:25")))
    assert " ".join(members(entry)) == KEYS[kind]
    assert entry.startswith(
        f'[2025-01-27 14:30:25] [EVENT: {kind.tag}]\n{{\n  "event_type": "{kind.event_type}"'
    )
    assert {v for k, v in members(entry).items() if k not in ("event_type", "metadata")} <= {"", None}


def test_an_entry_is_what_json_writes() -> None:
    """The object has the very text that ``json.dumps(indent=2)`` gives it."""
    metadata = dataclasses.replace(SUCCESS.metadata, stop_sequences=("END", "\n"))
    entry = render(dataclasses.replace(SUCCESS, metadata=metadata))
    assert entry.partition("\n")[2] == json.dumps(members(entry), indent=2, ensure_ascii=False) + "\n\n"


@given(events)
def test_round_trip(event: LifecycleEvent) -> None:
    """What was rendered is parsed to an equal event, whatever its texts and numbers are."""
    entry = render(event)
    assert parse(entry.encode()) == event
    assert render(parse(entry)) == entry


@given(events)
def test_no_text_can_forge_an_entry_or_drive_a_terminal(event: LifecycleEvent) -> None:
    """A text adds no line, no control character, no separator, no bidirectional override and no surrogate."""
    entry = render(event)
    assert sum(line.startswith("[") for line in entry.split("\n")) == 1
    assert sum(line == "}" for line in entry.split("\n")) == 1
    for character in entry.replace("\n", ""):
        assert unicodedata.category(character) not in ("Cc", "Cs", "Zl", "Zp")
        assert unicodedata.bidirectional(character) not in ("LRE", "RLE", "LRO", "RLO", "PDF")
        assert unicodedata.bidirectional(character) not in ("LRI", "RLI", "FSI", "PDI")


@given(events)
def test_an_assembled_event_is_a_constructed_one(event: LifecycleEvent) -> None:
    """An event that got its values at once equals one made by its constructor, and is as immutable."""
    made = assemble(type(event), dict(vars(event)))
    assert made == event
    assert repr(made) == repr(event)
    assert dataclasses.replace(made, provider="p") == dataclasses.replace(event, provider="p")
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.provider = "p"  # type: ignore[misc]


@pytest.mark.parametrize("text", ['"', "\\", "\x00", "\x7f", "\u202e", "\ud800", "é", "a%sb{}", ""])
def test_one_custom_field_leaves_the_others_as_they_are(text: str) -> None:
    """A text that has to be escaped, or looks like a template, is; those beside it and their keys stay."""
    fields = {"first": "plain", f"odd {text}": text, "last": "1.5"}
    entry = render(
        dataclasses.replace(SUCCESS, metadata=dataclasses.replace(SUCCESS.metadata, custom_fields=fields))
    )
    assert members(entry)["metadata"]["custom_fields"] == fields
    assert '\n      "first": "plain",\n' in entry
    assert entry.endswith('\n      "last": "1.5"\n    }\n  }\n}\n\n')


def test_a_header_shows_the_time_of_its_own_event() -> None:
    """An event whose time has a zone shows its clock there, also after one that was the same instant elsewhere."""
    noon = datetime(2025, 1, 27, 12, tzinfo=timezone.utc)
    there = noon.astimezone(timezone(timedelta(hours=2)))
    for time, shown in (noon, "[2025-01-27 12:00:00]"), (there, "[2025-01-27 14:00:00]"):
        entry = render(dataclasses.replace(SUCCESS, time=time))
        assert entry.startswith(shown)
        assert parse(entry) == dataclasses.replace(SUCCESS, time=time.replace(tzinfo=None))


def test_a_time_of_any_zone_is_written() -> None:
    """A ``transform`` hook may give an event a time in a zone that cannot be a key, as dateutil's cannot."""

    class Zone(tzinfo):
        __hash__ = None  # type: ignore[assignment]

        def utcoffset(self, _: datetime | None) -> timedelta:
            return timedelta(hours=2)

        def dst(self, _: datetime | None) -> timedelta:
            return timedelta()

        def tzname(self, _: datetime | None) -> str:
            return "there"

    time = datetime(2025, 1, 27, 14, 30, 26, tzinfo=Zone())
    event = LLMInitializationStart(time=time)
    assert render(event).startswith("[2025-01-27 14:30:26] [EVENT: INIT_START]")


def test_readable_text_stays_readable() -> None:
    """Letters, emoji and right-to-left scripts are not escaped."""
    text = "Grüße, 世界, שלום, 👩\u200d🔬"
    assert text in render(dataclasses.replace(SUCCESS, message_content=text))


@pytest.mark.parametrize(
    ("value", "written"),
    [(1, "1"), (1.0, "1.0"), (0, "0"), (2**70, str(2**70)), (1e-07, "1e-07"), (None, "null")],
)
def test_numbers_are_written_as_given(value: float | None, written: str) -> None:
    """A temperature appears exactly as the caller gave it."""
    assert f'"temperature": {written},' in render(dataclasses.replace(SUCCESS, temperature=value))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, pytest.param(10**5000, id="huge")])
def test_what_json_cannot_write_is_null(value: float) -> None:
    """A number that is none is written as unknown, not as text that no JSON reader takes."""
    assert members(render(dataclasses.replace(SUCCESS, temperature=value)))["temperature"] is None


@pytest.mark.parametrize("value", [math.nan, math.inf, pytest.param(10**5000, id="huge")])
def test_what_json_cannot_write_is_not_set_in_metadata(value: float) -> None:
    """A member of ``metadata`` whose number JSON cannot write is left out, as one that was not given."""
    event = dataclasses.replace(SUCCESS, metadata=Metadata(top_p=value, max_tokens=3, user="u"))
    assert members(render(event))["metadata"] == {"max_tokens": 3, "user": "u"}


def test_a_number_beyond_every_float_is_written() -> None:
    """A whole number that no float holds is written digit by digit."""
    assert members(render(dataclasses.replace(SUCCESS, temperature=10**400)))["temperature"] == 10**400


def test_an_enumeration_is_written_as_its_number() -> None:
    """A member of an ``IntEnum`` does not break the entry."""

    class Level(enum.IntEnum):
        HIGH = 2

    assert members(render(dataclasses.replace(SUCCESS, temperature=Level.HIGH)))["temperature"] == 2


def test_other_versions_of_the_format_still_read() -> None:
    """Unknown keys are ignored and missing ones have their default."""
    text = '[2025-01-27 14:30:25] [EVENT: INIT_START]\n{"event_type": "LLM_INITIALIZATION_START", "new": [1]}'
    assert parse(text) == LLMInitializationStart(time=datetime.fromisoformat("2025-01-27 14:30:25"))


HEADER = "[2025-01-27 14:30:25] [EVENT: INIT_START]\n"
TYPE = '"event_type": "LLM_INITIALIZATION_START"'


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not a header"),
        ("{}", "not a header"),
        ("[2025-01-27 14:30:25] [EVENT: INIT_START] {}", "not a header"),
        (f"[2025-13-27 14:30:25] [EVENT: INIT_START]\n{{{TYPE}}}", "month must be in 1..12"),
        ("[2025-01-27 14:30:25] [EVENT: PARTY]\n{}", "unknown event PARTY"),
        (HEADER + "{}", "not LLM_INITIALIZATION_START"),
        (HEADER + '{"event_type": "TOOL_CALL_DETECTED"}', "not LLM_INITIALIZATION_START"),
        (HEADER + f"{{{TYPE}", "broken JSON"),
        (HEADER + f"{{{TYPE}}} {{}}", "broken JSON"),
        (HEADER + f'{{{TYPE}, "x": "torn', "broken JSON: Unterminated string starting at character 48$"),
        (HEADER + f'{{{TYPE}, "provider": 7}}', "provider has a value of the wrong type"),
        (HEADER + f'{{{TYPE}, "temperature": true}}', "temperature has a value of the wrong type"),
        (HEADER + f'{{{TYPE}, "metadata": [1]}}', "metadata is not an object"),
        (
            HEADER + f'{{{TYPE}, "metadata": {{"stop_sequences": [1]}}}}',
            "stop_sequences has a value of the wrong",
        ),
        (HEADER + f'{{{TYPE}, "metadata": {{"custom_fields": "x"}}}}', "custom_fields is not an object"),
        (HEADER + f'{{{TYPE}, "metadata": {{"custom_fields": {{"a": 1}}}}}}', "custom_fields has a value"),
        (HEADER + f'{{{TYPE}, "x": {"[" * 100_000}', "nested too deeply"),
    ],
)
def test_what_is_no_entry_is_refused(text: str, reason: str) -> None:
    """A text that is not one whole entry raises ``ValueError`` that says what is wrong."""
    with pytest.raises(ValueError, match=reason):
        parse(text)
