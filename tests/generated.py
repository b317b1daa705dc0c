"""Events made up for tests: ordinary ones by the number, and hostile ones in every field."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from openai_lifecycle.events import (
    LifecycleEvent,
    LLMGenerationError,
    LLMGenerationSuccess,
    LLMInitializationStart,
    LLMInitializationSuccess,
    Metadata,
    ToolCallDetected,
)
from openai_lifecycle.eventslog.format import KEYS, parse, render

START = datetime(2026, 1, 5, tzinfo=timezone.utc)
MODELS = (
    ("openai", "gpt-4.1-mini"),
    ("openai", "gpt-4o"),
    ("azure.ai.openai", "gpt-4o"),
    ("deepseek", "deepseek-chat"),
    ("openai", "house-model"),
)
HOSTILE = (
    "<script>document.title='owned'</script>",
    "<img src=x onerror=\"document.title='owned'\">",
    "</script><script>document.title='owned'</script>",
    "<a href=\"javascript:document.title='owned'\">x</a>",
    "\x1b[31mred\x1b[0m\x07\x9b2J",
    "[2026-01-05 00:00:00] [EVENT: INIT_START]\n{\n",
    "tab\tnew\nline\rreturn\0nul",
    "\u202egnirts\u2066 \u2028 \u0085",
    "lone \ud800 surrogate",
    "=1+1",
    "'; DROP TABLE openai_lifecycle_events; --",
    "%%DATA%% [bold]markup[/bold] {0} %s",
    "__proto__",
    "…" * 400,
)


def events(count: int, seed: int = 1, characters: int = 60) -> Iterator[LifecycleEvent]:
    """Yield ``count`` calls of several models, users and outcomes, with the tool calls between them."""
    chance = random.Random(seed)
    moment = START
    for index in range(count):
        moment += timedelta(seconds=chance.random() * 60)
        provider, model = chance.choice(MODELS)
        user = chance.choice(("alice", "bob", "llm_generation_user"))
        sent, received = chance.randrange(3000), chance.randrange(500)
        tokens = {
            "input_tokens": str(sent),
            "output_tokens": str(received),
            "total_tokens": str(sent + received),
            "cached_tokens": str(sent // 3),
            "reasoning_tokens": str(received // 5),
        }
        last = {"span_id": f"{index + 1:016x}", "timestamp": moment.isoformat(timespec="microseconds")}
        first = {"provider": provider, "model_id": model}
        common: dict[str, Any] = {
            "time": moment.replace(tzinfo=None, microsecond=0),
            "provider": provider,
            "model_id": model,
            "trace_id": f"{index // 3 + 1:032x}",
        }
        timing = {"stream": "true", "duration_ms": f"{chance.expovariate(1) * 1000:.3f}"}
        kind = chance.random()
        if kind < 0.1:
            error = chance.choice(("RateLimitError", "APITimeoutError"))
            custom = {**first, "operation_name": "chat", "error_type": error, **timing, **last}
            yield LLMGenerationError(
                operation="llm_generation", error="try again", metadata=_metadata(user, custom), **common
            )
            continue
        if kind < 0.3:
            call = {"tool_call_id": f"call_{index}", "tool_type": "function", "tool_name": "get_weather"}
            yield ToolCallDetected(
                tool_call_id=f"call_{index}",
                tool_name="get_weather",
                arguments='{"location": "Reykjavík"}',
                metadata=_metadata("tool_call_user", {**first, **call, **last}),
                **common,
            )
        custom = {
            **first,
            "operation_name": "chat",
            "response_id": f"chatcmpl-{index}",
            "response_model": model,
        }
        if chance.random() < 0.95:
            custom.update(tokens)
        yield LLMGenerationSuccess(
            operation=chance.choice(("llm_generation", "llm_generation", "llm_embedding")),
            messages_count=2,
            temperature=chance.choice((None, 0, 0.7, 1)),
            message_content="user: " + 'wörds and "quotes"\n ' * (characters // 20),
            response_length=received * 4,
            choices_count=1,
            metadata=_metadata(user, {**custom, **timing, "time_to_first_token_ms": "12.5", **last}),
            **common,
        )


def _metadata(user: str, custom: dict[str, str]) -> Metadata:
    return Metadata(model_version=custom["model_id"], max_tokens=100, user=user, custom_fields=custom)


def hostile() -> list[LifecycleEvent]:
    """Return events with each of :data:`HOSTILE` in every text."""
    found: list[LifecycleEvent] = []
    for index, text in enumerate(HOSTILE):
        moment = START + timedelta(minutes=index)
        custom = dict.fromkeys(
            ("provider", "operation_name", "response_model", "finish_reasons", "request_id", "error_type"),
            text,
        )
        custom |= {
            text: text,
            "input_tokens": "10",
            "duration_ms": "5.5",
            "cached_tokens": text,
            "status_code": text,
        }
        custom |= {"span_id": text, "timestamp": moment.isoformat(timespec="microseconds")}
        metadata = Metadata(
            model_version=text, stop_sequences=(text, ""), top_p=0, user=text, custom_fields=custom
        )
        time = moment.replace(tzinfo=None)
        common: dict[str, Any] = {
            "time": time,
            "provider": text,
            "model_id": text,
            "trace_id": text,
            "metadata": metadata,
        }
        found += [
            LLMInitializationStart(temperature=10**300, **common),
            LLMInitializationSuccess(capabilities=text, **common),
            ToolCallDetected(tool_call_id=text, tool_name=text, arguments=text, **common),
            LLMGenerationSuccess(operation=text, message_content=text, messages_count=2**70, **common),
            LLMGenerationError(operation=text, message_content=text, error=text, **common),
        ]
    return found


def success() -> LLMGenerationSuccess:
    """Return a call that succeeded."""
    return next(event for event in events(9) if isinstance(event, LLMGenerationSuccess))


def write(path: Path, entries: Iterable[LifecycleEvent]) -> Path:
    """Write ``entries`` to ``path`` as the exporter would."""
    path.write_bytes("".join(map(render, entries)).encode())
    return path


def restored(members: Mapping[str, Any]) -> LifecycleEvent:
    """Return the event of which ``records.to_object`` made ``members``."""
    (kind,) = [kind for kind in KEYS if kind.event_type == members["event_type"]]
    return parse(f"[{members['time'].replace('T', ' ')}] [EVENT: {kind.tag}]\n{json.dumps(members)}")
