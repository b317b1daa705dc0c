"""``stats``: every number agrees with an independent count of the same log."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import genai_prices
import pytest
from click.testing import Result
from hypothesis import given
from hypothesis import strategies as st

from openai_lifecycle.cli import costs, stats
from openai_lifecycle.cli.costs import Prices
from openai_lifecycle.cli.sketch import Sketch
from openai_lifecycle.events import LifecycleEvent, LLMGenerationError, LLMGenerationSuccess, ToolCallDetected
from openai_lifecycle.eventslog.format import parse, render
from openai_lifecycle.eventslog.reader import read_events
from tests import generated

Run = Callable[..., Result]


def numbers(run: Run, *arguments: object) -> Any:
    """Return what ``stats`` says as JSON."""
    return json.loads(run("stats", "--json", *arguments).stdout)


def count(log: Path) -> dict[str, Any]:
    """Count a log in the plainest way: each entry in full, all values kept."""
    endings = [e for e in read_events(log) if isinstance(e, (LLMGenerationSuccess, LLMGenerationError))]

    def total(name: str) -> int:
        texts = [e.metadata.custom_fields.get(name, "") for e in endings]
        return sum(int(text) for text in texts if text.isdecimal())

    return {
        "calls": len(endings),
        "errors": sum(isinstance(e, LLMGenerationError) for e in endings),
        "input_tokens": total("input_tokens"),
        "output_tokens": total("output_tokens"),
        "cached_tokens": total("cached_tokens"),
        "reasoning_tokens": total("reasoning_tokens"),
        "tool_calls": sum(isinstance(e, ToolCallDetected) for e in read_events(log)),
    }


@pytest.mark.parametrize("by", [["model"], ["provider", "model"], ["operation"], ["user"], ["hour"]])
def test_the_numbers_are_those_of_an_independent_count(run: Run, log: Path, by: list[str]) -> None:
    """Whatever calls are grouped by, the groups add up to the total, and it to the token is what a plain count gives."""
    options = [word for name in by for word in ("--by", name)]
    result = numbers(run, *options, log)
    expected = count(log)
    assert {name: result["total"][name] for name in expected} == expected
    for name in expected:
        assert sum(group[name] for group in result["groups"]) == expected[name]
    assert result["by"] == by
    assert len(result["groups"]) > 1


def test_an_entry_that_is_nested_too_deeply_is_damage(run: Run, log: Path) -> None:
    """An entry whose values are nested without end is skipped and told, and counts for nothing."""
    expected = numbers(run, log)
    deep = f'[2026-01-05 00:00:00] [EVENT: INIT_START]\n{{"event_type": "x", "a": {"[" * 1_000_000}{"]" * 1_000_000}\n}}\n\n'
    with log.open("a", encoding="utf-8") as file:
        file.write(deep)
    result = run("stats", "--json", log)
    assert json.loads(result.stdout) == expected
    assert "skipped" in result.stderr


def test_the_real_client_s_log(run: Run, real_log: Path) -> None:
    """On the log of the real client the numbers agree too, and errors and tools go by their names."""
    total = numbers(run, real_log)["total"]
    expected = count(real_log)
    assert {name: total[name] for name in expected} == expected
    assert total["error_types"] == {"NotFoundError": 1}
    assert total["tools"] == {"get_weather": 1}
    assert total["latency_p50_ms"] > 0
    assert total["first_token_p50_ms"] > 0


def test_groups_are_told_apart(run: Run, log: Path) -> None:
    """A group has the calls of its key: a user that nobody named is none, day and hour are those of the entry.

    Tool calls, which name no operation, count with the generation that they belong to.
    """
    users = {g["user"]: g["calls"] for g in numbers(run, "--by", "user", log)["groups"]}
    named: Counter[str] = Counter()
    days: Counter[str] = Counter()
    hours: Counter[str] = Counter()
    for event in read_events(log):
        if isinstance(event, (LLMGenerationSuccess, LLMGenerationError)):
            named[{"llm_generation_user": ""}.get(event.metadata.user or "", event.metadata.user or "")] += 1
            days[f"{event.time:%Y-%m-%d}"] += 1
            hours[f"{event.time:%Y-%m-%dT%H}:00+00:00"] += 1
    assert users == named
    by_operation = numbers(run, "--by", "operation", log)["groups"]
    assert {group["operation"] for group in by_operation} == {"llm_generation", "llm_embedding"}
    for name, counted in (("day", days), ("hour", hours)):
        groups = numbers(run, "--by", name, log)["groups"]
        assert [(group[name], group["calls"]) for group in groups] == sorted(counted.items())


def test_hours_are_in_the_order_of_time(run: Run, tmp_path: Path) -> None:
    """Hours are sorted as they passed, also when the clocks went back or hosts are in other zones; no time is first."""
    passed = [
        "",
        *(f"2026-10-25T{hour}" for hour in ("02:00+02:00", "02:00+01:00", "01:00-01:00", "04:00+01:00")),
    ]
    call = generated.success()

    def at(hour: str) -> LifecycleEvent:
        time = hour and f"{hour[:13]}:30:00.000000{hour[16:]}"
        custom = {**call.metadata.custom_fields, "timestamp": time}
        return replace(call, metadata=replace(call.metadata, custom_fields=custom))

    log = generated.write(tmp_path / "events.log", map(at, sorted(passed)))
    groups = numbers(run, "--by", "model", "--by", "hour", log)["groups"]
    assert [group["hour"] for group in groups] == passed


def test_filters_apply(run: Run, log: Path) -> None:
    """``stats`` counts only the entries that pass its filters."""
    result = numbers(run, "--model", "gpt-4o", "--error", log)
    assert [group["model"] for group in result["groups"]] == ["gpt-4o"]
    assert result["total"]["calls"] == result["total"]["errors"] > 0
    assert result["total"]["cost_usd"] == 0  # known, unlike that of a model without a price
    assert result["total"]["latency_p50_ms"] is None  # of calls that succeeded


def test_an_error_without_a_type_is_counted(run: Run, tmp_path: Path) -> None:
    """An error whose entry names no type is counted among the types too, as unknown."""
    event = next(e for e in generated.events(50) if isinstance(e, LLMGenerationError))
    log = generated.write(
        tmp_path / "events.log", [replace(event, metadata=replace(event.metadata, custom_fields={}))]
    )
    assert numbers(run, log)["total"]["error_types"] == {"unknown": 1}


def test_csv_and_table_say_the_same(run: Run, log: Path) -> None:
    """``--csv`` has a line a group with the values of ``--json``; the table has them too, and a total."""
    groups = numbers(run, log)["groups"]
    lines = list(csv.DictReader(run("stats", "--csv", log).stdout.splitlines()))
    assert [(line["model"], int(line["calls"]), int(line["input_tokens"])) for line in lines] == [
        (group["model"], group["calls"], group["input_tokens"]) for group in groups
    ]
    assert [json.loads(line["error_types"]) for line in lines] == [group["error_types"] for group in groups]
    table = run("stats", log).stdout.splitlines()
    for group, line in zip(groups, table[2:], strict=False):
        assert line.split()[:3] == [group["model"], str(group["calls"]), str(group["errors"])]
    assert table[-1].split()[:2] == ["total", "300"]


# ------------------------------------------------------------------ cost
def priced(event: LifecycleEvent) -> Decimal | None:
    """Ask genai-prices for one call."""
    custom = event.metadata.custom_fields
    if "input_tokens" not in custom:
        return None
    usage = genai_prices.Usage(
        input_tokens=int(custom["input_tokens"]),
        cache_read_tokens=int(custom["cached_tokens"]),
        output_tokens=int(custom["output_tokens"]),
    )
    try:
        return genai_prices.calc_price(
            usage,
            event.model_id,
            provider_id={"azure.ai.openai": "azure"}.get(event.provider, event.provider),
            genai_request_timestamp=datetime.fromisoformat(custom["timestamp"]),
        ).total_price
    except LookupError:
        return None


def test_cost_is_the_sum_of_genai_prices(run: Run, log: Path) -> None:
    """The cost of all calls is what genai-prices says for each, and those without a price are counted, not free."""
    prices = [priced(e) for e in read_events(log) if isinstance(e, LLMGenerationSuccess)]
    total = numbers(run, log)["total"]
    assert total["cost_usd"] == pytest.approx(float(sum(p for p in prices if p is not None)), rel=1e-12)
    assert total["unpriced_calls"] == sum(p is None for p in prices) > 0


def test_an_unknown_price_is_not_zero(run: Run, log: Path) -> None:
    """A model without a price costs ``?``, in JSON ``null``; where some calls have one, the rest stays visible."""
    groups = {g["model"]: g for g in numbers(run, log)["groups"]}
    assert groups["house-model"]["cost_usd"] is None
    table = run("stats", log).stdout.splitlines()
    house = next(line for line in table if line.startswith("house-model"))
    assert " ? " in house
    assert " + ? " in table[-1]


def test_prices_of_one_s_own_come_first(run: Run, log: Path, tmp_path: Path) -> None:
    """A file gives prices to unknown models and replaces known ones, for one provider or all."""
    prices = {"house-model": {"input": 1, "output": 2.5}, "azure.ai.openai/gpt-4o": {"input": 0, "output": 0}}
    (tmp_path / "prices.json").write_text(json.dumps(prices))
    result = numbers(run, "--by", "provider", "--by", "model", "--prices", tmp_path / "prices.json", log)
    groups = {(group["provider"], group["model"]): group for group in result["groups"]}
    house = groups["openai", "house-model"]
    expected = Fraction(house["input_tokens"] * 2 + house["output_tokens"] * 5, 2_000_000)
    assert house["cost_usd"] == pytest.approx(float(expected), rel=1e-12)
    assert groups["azure.ai.openai", "gpt-4o"]["cost_usd"] == 0
    assert groups["openai", "gpt-4o"]["cost_usd"] > 0


def test_an_own_price_of_the_requested_model(run: Run, tmp_path: Path) -> None:
    """An own price of the model asked for comes before genai-prices' of the model that answered; an own one of that first."""
    event = generated.success()
    fields = {"response_model": "gpt-4.1-mini-2025-04-14", "input_tokens": "1000000", "output_tokens": "0"}
    custom = {**event.metadata.custom_fields, **fields, "cached_tokens": "0", "reasoning_tokens": "0"}
    asked = replace(event, model_id="gpt-4.1-mini", metadata=replace(event.metadata, custom_fields=custom))
    log = generated.write(tmp_path / "events.log", [asked])
    prices = {"gpt-4.1-mini": {"input": 1000, "cached": 1, "output": 1}}
    for expected in (1000, 7):
        (tmp_path / "prices.json").write_text(json.dumps(prices))
        assert numbers(run, "--prices", tmp_path / "prices.json", log)["total"]["cost_usd"] == expected
        prices["gpt-4.1-mini-2025-04-14"] = {"input": 7}


@pytest.mark.parametrize(
    ("provider", "counts", "expected"),
    [
        ("openai", {"input_tokens": "1000000", "cached_tokens": "1000000"}, 1),
        ("openai", {"input_tokens": "1000000", "cached_tokens": "1000001"}, None),
        ("openai", {"output_tokens": "1000000"}, 5),
        ("openai", {}, None),
        (
            "gcp.gemini",
            {"input_tokens": "1000000", "output_tokens": "1000000", "total_tokens": "2000000"},
            7,
        ),
        (
            "gcp.gemini",
            {"input_tokens": "1000000", "output_tokens": "1000000", "total_tokens": "3000000"},
            12,
        ),
        (
            "mistral_ai",
            {"input_tokens": "1000000", "output_tokens": "1000000", "total_tokens": "3000000"},
            7,
        ),
        ("openai", {"output_tokens": "1000000", "reasoning_tokens": "1000000"}, 5),
        (
            "perplexity",
            {"output_tokens": "1000000", "reasoning_tokens": "2000000", "total_tokens": "1000000"},
            15,
        ),
        (
            "x_ai",
            {"output_tokens": "1000000", "reasoning_tokens": "2000000", "total_tokens": "3000000"},
            15,
        ),
    ],
    ids=[
        "all cached",
        "more cached than sent",
        "output only",
        "no counts",
        "a plain total",
        "thoughts in the total only",
        "audio in the total only",
        "reasoning within the output",
        "reasoning beside output and total",
        "reasoning beside the output",
    ],
)
def test_what_a_call_costs(
    run: Run, tmp_path: Path, provider: str, counts: dict[str, str], expected: int | None
) -> None:
    """A call costs what its counts say, one and all; it has no cost when they are missing or contradict each other."""
    event = generated.success()
    metadata = replace(event.metadata, custom_fields={"duration_ms": "1", **counts})
    event = replace(event, provider=provider, model_id="m", metadata=metadata)
    log = generated.write(tmp_path / "events.log", [event])
    (tmp_path / "prices.json").write_text('{"m": {"input": 2, "cached": 1, "output": 5}}')
    total = numbers(run, "--prices", tmp_path / "prices.json", log)["total"]
    assert (total["cost_usd"], total["unpriced_calls"]) == (expected, int(expected is None))
    one = stats.cost(
        Prices(costs.load(str(tmp_path / "prices.json"))), stats.decode(log.read_bytes().rstrip())
    )
    assert one == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "it is not JSON"),
        pytest.param('{"m":' * 100_000, "it is not JSON", id="deep"),
        ("[]", "one JSON object of model names"),
        ('{"m": {"output": 1}}', "'m' must be"),
        ('{"m": {"input": "NaN"}}', "0 or more"),
        ('{"m": {"input": -1}}', "0 or more"),
        ('{"m": {"input": 1e400}}', "less than a million"),
        ('{"m": {"input": 1e99999999}}', "'m' must be"),
        ('{"m": {"input": {}}}', "'m' must be"),
        ('{"m": {"input": []}}', "'m' must be"),
        ('{"m": {"input": true}}', "'m' must be"),
        ('{"m": {"input": 1, "in": 1}}', "'m' must be"),
    ],
)
def test_a_wrong_price_file_says_what_is_allowed(
    run: Run, log: Path, tmp_path: Path, content: str, message: str
) -> None:
    """A price file that says something else is one error with its name, and no numbers."""
    (tmp_path / "prices.json").write_text(content)
    result = run("stats", "--prices", tmp_path / "prices.json", log, status=2)
    assert message in result.stderr
    assert "prices.json" in result.stderr
    assert not result.stdout
    assert "No such file" in run("stats", "--prices", "nowhere.json", log, status=2).stderr


def test_a_price_by_tier_and_date_is_that_of_the_call() -> None:
    """Where a price depends on how much was sent or on the date, a call costs what genai-prices says for it."""
    tiered, dated = "gemini-2.5-pro", ("openai", "o3")
    checked = 0
    for provider, ours, model in (("google", "gcp.gemini", tiered), (*dated[:1], dated[0], dated[1])):
        for sent in (1000, 200_000, 200_001, 500_000):
            for day in ("2025-05-01", "2025-09-01"):
                when = f"{day}T12:00:00.000000+00:00"
                expected = genai_prices.calc_price(
                    genai_prices.Usage(input_tokens=sent, cache_read_tokens=sent // 4, output_tokens=700),
                    model,
                    provider_id=provider,
                    genai_request_timestamp=datetime.fromisoformat(when),
                ).total_price
                rate = Prices().rate(ours, (model,), when, sent)
                assert rate is not None
                assert rate.cost(sent, sent // 4, 700) == expected
                checked += 1
    assert checked == 16


@pytest.mark.parametrize("model", ["sonar-pro", "sonar-deep-research"])
def test_a_price_of_the_request_and_of_reasoning_counts(run: Run, tmp_path: Path, model: str) -> None:
    """What a provider asks for each request, and for reasoning, is in the cost of each call and of all of them."""
    event = generated.success()
    counts = {"input_tokens": "1000", "output_tokens": "500", "reasoning_tokens": "400"}
    moment = datetime.fromisoformat(event.metadata.custom_fields["timestamp"])
    calls = [
        replace(
            event,
            provider="perplexity",
            model_id=model,
            metadata=replace(
                event.metadata,
                custom_fields={**counts, "span_id": f"{index}", "timestamp": moment.isoformat()},
            ),
        )
        for index in range(3)
    ]
    log = generated.write(tmp_path / "events.log", calls)
    expected = genai_prices.calc_price(
        genai_prices.Usage(input_tokens=1000, output_tokens=500, output_reasoning_tokens=400),
        model,
        provider_id="perplexity",
        genai_request_timestamp=moment,
    ).total_price
    total = numbers(run, log)["total"]
    assert total["cost_usd"] == pytest.approx(float(3 * expected), rel=1e-12)
    assert stats.cost(Prices(), stats.decode(render(calls[0]).encode())) == expected


def test_a_model_priced_by_something_else_is_unknown() -> None:
    """A model whose price is by the second or the image has no price by the token."""
    assert Prices().rate("openai", ("no-such-model",), "2026-01-01T00:00:00+00:00", 1) is None
    assert Prices().rate("no-such-provider", ("gpt-4o",), "2026-01-01T00:00:00+00:00", 1) is None


@pytest.mark.parametrize("provider", sorted(costs._PROVIDERS))
def test_each_provider_that_is_translated_exists(provider: str) -> None:
    """The providers that the client's hosts give are known to genai-prices under the names that are used here."""
    from genai_prices import data_snapshot

    known = {found.id for found in data_snapshot.get_snapshot().providers}
    assert costs._PROVIDERS[provider] in known


@pytest.mark.parametrize(
    ("provider", "model"),
    [("gcp.vertex_ai", "google/gemini-2.5-pro"), ("gcp.gemini", "models/gemini-2.5-pro")],
)
def test_a_model_is_known_by_the_name_that_google_wants(provider: str, model: str) -> None:
    """Google's endpoints for OpenAI's client want a prefix before the model, which then costs what it costs without."""
    when = "2026-01-01T00:00:00+00:00"
    rate, plain = (Prices().rate(provider, (name,), when, 9) for name in (model, "gemini-2.5-pro"))
    assert rate is not None
    assert plain is not None
    assert rate.cost(9, 4, 5) == plain.cost(9, 4, 5)


# ------------------------------------------------------------------ the fast path
def test_the_fast_decoder_reads_what_the_parser_reads() -> None:
    """The decoder of the hot path gives the same values as the parser for ordinary and for hostile entries."""
    for event in (*generated.events(50), *generated.hostile()):
        raw = render(event).encode()
        entry, parsed = stats.decode(raw), parse(raw)
        assert (entry.event_type, entry.provider, entry.model_id) == (
            parsed.event_type,
            parsed.provider,
            parsed.model_id,
        )
        assert entry.metadata.user == parsed.metadata.user
        for name in stats.Custom.__struct_fields__:
            assert getattr(entry.metadata.custom_fields, name) == parsed.metadata.custom_fields.get(name, "")


@pytest.mark.parametrize("cut", [3, 10, 100, 400])
def test_the_fast_decoder_refuses_what_is_torn(cut: int) -> None:
    """An entry without its end is no entry for the hot path either."""
    raw = render(next(generated.events(1))).encode()
    with pytest.raises(ValueError, match=r"\S"):
        stats.decode(raw[:-cut].rstrip())
    with pytest.raises(ValueError, match=r"\S"):
        stats.decode(raw[:cut])


@pytest.mark.parametrize("wrong", ["-1", "nan", "inf", "soon"])
def test_a_wrong_duration_is_no_latency(run: Run, tmp_path: Path, wrong: str) -> None:
    """A duration that is no amount of time counts for no percentile, and stops nothing; one of zero counts."""
    event = generated.success()
    for duration, expected in ((wrong, None), ("0", 0)):
        metadata = replace(event.metadata, custom_fields={"duration_ms": duration})
        log = generated.write(tmp_path / "events.log", [replace(event, metadata=metadata)])
        total = numbers(run, log)["total"]
        assert (total["calls"], total["latency_p99_ms"]) == (1, expected)


@given(st.lists(st.floats(min_value=1e-3, max_value=1e8), min_size=1, max_size=200))
def test_percentiles_are_right_to_half_a_percent(values: list[float]) -> None:
    """A percentile is within half a percent of the smallest value that as many values do not exceed; parts add up."""
    whole, parts = Sketch(), [Sketch(), Sketch()]
    for index, value in enumerate(values):
        whole.add(value)
        parts[index % 2].add(value)
    parts[0].merge(parts[1])
    for percent in (50, 95, 99):
        exact = sorted(values)[-(-len(values) * percent // 100) - 1]
        assert whole.percentile(percent) == pytest.approx(exact, rel=0.00501)
        assert parts[0].percentile(percent) == whole.percentile(percent)


def test_a_sketch_of_nothing_and_of_zero() -> None:
    """No value has no percentile; the percentile of zeros is zero."""
    sketch = Sketch()
    assert sketch.percentile(50) is None
    sketch.add(0.0)
    assert sketch.percentile(99) == 0.0
