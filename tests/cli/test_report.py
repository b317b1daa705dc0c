"""``report``: the page says what the log says, in a real browser, and nothing in a log gets to run."""

from __future__ import annotations

import base64
import gzip
import itertools
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from openai_lifecycle.cli import stats
from openai_lifecycle.cli.costs import Prices
from openai_lifecycle.cli.report import Timeline
from openai_lifecycle.cli.terminal import clean
from openai_lifecycle.events import LLMGenerationSuccess, LLMInitializationError
from openai_lifecycle.eventslog.format import render
from openai_lifecycle.eventslog.reader import read_events
from tests import generated
from tests.cli.test_stats import count
from tests.limits import HANGS

Run = Callable[..., Result]


def data(page: Path) -> dict[str, Any]:
    """Return the data that the page carries."""
    found = re.search(r'id="data">([A-Za-z0-9+/=]+)</script>', page.read_text(encoding="utf-8"))
    assert found is not None
    return json.loads(gzip.decompress(base64.b64decode(found[1])))  # type: ignore[no-any-return]


@pytest.mark.parametrize("which", ["real_log", "log", "hostile_log"])
def test_the_page_has_the_numbers_of_the_log(
    run: Run, tmp_path: Path, which: str, request: pytest.FixtureRequest
) -> None:
    """Totals, tables and charts agree to the token with an independent count, and every entry is listed."""
    log = request.getfixturevalue(which)
    run("report", "-o", tmp_path / "report.html", log)
    page, expected = data(tmp_path / "report.html"), count(log)
    for part in ([page["total"]], page["timeline"]["points"], *page["tables"].values()):
        assert {name: sum(group[name] for group in part) for name in expected} == expected
    for point in page["timeline"]["points"]:
        assert sum(point["calls_by_model"]) == point["calls"]
    assert [entry[1] for entry in reversed(page["entries"])] == [event.tag for event in read_events(log)]
    assert page["left_out"] == 0
    assert sum(error["count"] for error in page["errors"]) >= expected["errors"]
    durations = [float(call["duration_ms"]) for call in page["slowest"]]
    assert durations == sorted(durations, reverse=True)
    costs = [call["cost"] for call in page["most_expensive"]]
    assert costs == sorted(costs, reverse=True)


def test_the_list_may_be_shorter_than_the_log(run: Run, log: Path, tmp_path: Path) -> None:
    """``--entries`` keeps the newest, the last first; the numbers stay those of all."""
    run("report", "--entries", "5", "-o", tmp_path / "report.html", log)
    page = data(tmp_path / "report.html")
    newest = [event.trace_id for event in read_events(log)][:-6:-1]
    assert [entry[8] for entry in page["entries"]] == newest
    assert page["left_out"] == len(list(read_events(log))) - 5
    assert page["total"]["calls"] == 300


def test_the_newest_of_several_logs(run: Run, tmp_path: Path) -> None:
    """Of several logs the newest entries are listed by time, and the last failure of a kind, in whichever log they are."""
    events = list(generated.events(90))
    for name, part in (("a.log", events[1::2]), ("b.log", events[::2])):
        generated.write(tmp_path / name, part)
    for names in (["a.log", "b.log"], ["b.log", "a.log"]):
        run("report", "--entries", "9", "-o", "report.html", *names)
        page = data(tmp_path / "report.html")
        assert [entry[0] for entry in page["entries"]] == [f"{event.time}" for event in events[:-10:-1]]
        assert page["left_out"] == len(events) - 9
        last = {
            (event.metadata.custom_fields["error_type"], event.model_id): f"{event.time}"
            for event in events
            if event.tag == "GENERATION_ERROR"
        }
        assert {(error["type"], error["model"]): error["time"] for error in page["errors"]} == last


def test_what_stands_out(run: Run, log: Path, tmp_path: Path) -> None:
    """The slowest and the dearest calls are those of the whole log, and so are number and last of each kind of failure."""
    failed = next(event for event in read_events(log) if event.tag == "GENERATION_ERROR")
    constructions = [
        LLMInitializationError(
            time=failed.time.replace(minute=minute),
            provider="openai",
            model_id="house-model",
            error="no key",
            metadata=replace(failed.metadata, custom_fields={"error_type": "OpenAIError"}),
        )
        for minute in range(60)
    ]
    generated.write(log, events := [*read_events(log), *constructions])
    run("report", "-o", tmp_path / "report.html", log)
    page = data(tmp_path / "report.html")
    calls = [event for event in events if event.tag in ("GENERATION_SUCCESS", "GENERATION_ERROR")]
    durations = sorted((float(call.metadata.custom_fields["duration_ms"]) for call in calls), reverse=True)
    assert [float(call["duration_ms"]) for call in page["slowest"]] == durations[:20]
    prices = Prices()
    costs = (float(stats.cost(prices, stats.decode(render(call).encode())) or 0) for call in calls)
    assert [call["cost"] for call in page["most_expensive"]] == sorted(costs, reverse=True)[:20]
    failures: dict[tuple[str, str], list[str]] = {}
    for event in events:
        kind = event.metadata.custom_fields.get("error_type")
        if kind:
            failures.setdefault((kind, event.model_id), []).append(f"{event.time}")
    listed = {(e["type"], e["model"]): (e["count"], e["time"][:19]) for e in page["errors"]}
    assert listed == {key: (len(times), times[-1]) for key, times in failures.items()}
    counts = [error["count"] for error in page["errors"]]
    assert counts == sorted(counts, reverse=True)


def test_what_does_not_stand_out(run: Run, tmp_path: Path) -> None:
    """A call of which neither duration nor cost is known is among neither the slowest nor the dearest."""
    found = next(event for event in generated.events(30) if event.tag == "GENERATION_ERROR")
    custom = {"error_type": "RateLimitError"}
    log = generated.write(
        tmp_path / "events.log", [replace(found, metadata=replace(found.metadata, custom_fields=custom))]
    )
    run("report", "-o", tmp_path / "report.html", log)
    page = data(tmp_path / "report.html")
    assert (len(page["errors"]), page["slowest"], page["most_expensive"]) == (1, [], [])


def texts(value: Any) -> Iterator[str]:
    """Yield every text in ``value``, which is of JSON's types."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield name
            yield from texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from texts(inner)


def test_the_page_has_no_control_characters(run: Run, hostile_log: Path, tmp_path: Path) -> None:
    """Whatever a log holds, what is copied from the page into a terminal does nothing there."""
    run("report", "-o", tmp_path / "report.html", hostile_log)
    assert [text for text in texts(data(tmp_path / "report.html")) if clean(text) != text] == []


def test_what_only_the_numbers_can_read_is_listed_with_its_reason(
    run: Run, log: Path, tmp_path: Path
) -> None:
    """An entry of another version, and a damaged one, are in the list with what is wrong; all others are as they were."""
    first, second, *_ = (render(event) for event in generated.events(9) if event.tag == "GENERATION_SUCCESS")
    unknown = '[2026-01-05 00:00:00] [EVENT: FUTURE]\n{\n  "event_type": "LLM_FUTURE"\n}\n\n'
    wrong = re.sub('"message_content": ".*"', '"message_content": 7', first)
    with log.open("a", encoding="utf-8") as file:
        file.write(f"{unknown}{wrong}glued {second}")
    run("report", "-o", tmp_path / "report.html", log)
    page = data(tmp_path / "report.html")
    assert {(entry[1], entry[9]) for entry in page["entries"] if entry[9].startswith("cannot")} == {
        ("LLM_GENERATION_SUCCESS", "cannot be read: not an entry: the first line is not a header"),
        ("LLM_GENERATION_SUCCESS", "cannot be read: message_content has a value of the wrong type"),
        ("LLM_FUTURE", "cannot be read: unknown event FUTURE"),
    }
    assert page["total"]["calls"] == 302


#: Times at the edges of what Python can say, as a header or with an offset.
TIMES = [
    "0001-01-01T00:00:00",
    "0001-01-01T00:00:00.000000+00:00",
    "0001-01-01T00:00:00.000000+23:59",
    "9999-12-31T23:59:59.000000+00:00",
    "9999-12-31T23:59:59.000000-23:59",
    "1970-01-01T00:00:00.000000+23:59",
    "9998-12-31T23:59:59.000000-23:59",
    "",
]


@pytest.mark.parametrize("stated", TIMES)
@pytest.mark.parametrize("header", ["0001-01-01 00:00:00", "9999-12-31 23:59:59"])
def test_a_time_at_the_edge_stops_no_command(run: Run, tmp_path: Path, header: str, stated: str) -> None:
    """Whatever time an entry states, every command ends well and the entry is in what it shows."""
    found = generated.success()
    custom = {
        **found.metadata.custom_fields,
        "span_id": "f" * 16,
        "timestamp": stated,
        "duration_ms": "9999999.5",
    }
    event = replace(
        found,
        time=datetime.fromisoformat(header),
        trace_id="abcd" * 8,
        metadata=replace(found.metadata, custom_fields=custom),
    )
    log = generated.write(tmp_path / "events.log", [event, *generated.events(2)])
    for command in (
        "show",
        "show --until 9999-12-31",
        "convert --to csv",
        "convert --to jsonl",
        "trace abcd",
    ):
        name, *options = command.split()
        shown = run(name, *options, log).stdout
        assert "abcd" * 8 in shown or "--until" in options
    run("stats", "--by", "hour", log)
    run("check", log)
    run("convert", "--to", "sqlite", "-o", tmp_path / "out.db", log)
    run("report", "-o", tmp_path / "report.html", log)
    assert data(tmp_path / "report.html")["total"]["calls"] == 3


def test_an_entry_that_states_no_time(run: Run, tmp_path: Path) -> None:
    """An entry whose exact time is missing is charted at its header's time, by which the list orders it too."""
    call = generated.success()
    bare = replace(call, metadata=replace(call.metadata, custom_fields={}))
    log = generated.write(tmp_path / "events.log", [bare])
    run("report", "-o", tmp_path / "report.html", log)
    (point,) = data(tmp_path / "report.html")["timeline"]["points"]
    assert (point["time"], point["calls"]) == (bare.time.isoformat(" ", "minutes"), 1)


def test_the_charts_stay_readable_over_years() -> None:
    """However long the log spans, there are at most some hundred points, and nothing is lost between them."""
    timeline, moments = Timeline(Prices()), 0
    for event in generated.events(10):
        entry = stats.decode(render(event).encode())
        for year in range(2000, 2026):
            for month, day in itertools.product(range(1, 13), (5, 20)):
                timeline.add(entry, datetime(year, month, day, tzinfo=timezone.utc).timestamp())
                moments += entry.event_type != "TOOL_CALL_DETECTED"
    assert len(timeline.buckets) <= 400
    assert {second % timeline.size for second in timeline.buckets} == {0}
    assert sum(numbers.total().calls for numbers in timeline.buckets.values()) == moments


# ------------------------------------------------------------------ in a browser
@pytest.fixture(scope="module")
def browser() -> Iterator[webdriver.Chrome]:
    """Return a headless Chromium."""
    # Ubuntu's chromium is a snap, which does not see temporary files; its runners have Google's.
    chromium, driver = shutil.which("google-chrome") or shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        if os.environ.get("OPENAI_LIFECYCLE_REQUIRE_BROWSER"):
            pytest.fail(
                "OPENAI_LIFECYCLE_REQUIRE_BROWSER is set, and there is no chromium or no chromedriver"
            )
        pytest.skip("needs chromium and chromedriver (Debian: chromium, chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1400,2400"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    running = webdriver.Chrome(options=options, service=Service(driver))
    running.set_page_load_timeout(HANGS)
    yield running
    running.quit()


def complaints(browser: webdriver.Chrome) -> list[Any]:
    """Return what the console holds: errors, and violations of the content security policy."""
    found: list[Any] = browser.get_log("browser")  # type: ignore[no-untyped-call]
    return found


def opened(browser: webdriver.Chrome, page: Path) -> None:
    """Open ``page``, and wait until it is ready; nothing may have gone wrong on the way."""
    browser.get(page.as_uri())
    WebDriverWait(browser, HANGS).until(
        lambda b: b.execute_script("return document.body.dataset.ready") == "yes"
    )
    assert complaints(browser) == []


def text(browser: webdriver.Chrome, selector: str) -> str:
    """Return the text of the first element that ``selector`` names."""
    return browser.find_element(By.CSS_SELECTOR, selector).text


def search(browser: webdriver.Chrome, words: str) -> str:
    """Search the list for ``words``, and return what it says to have found."""
    before = text(browser, "#found")
    browser.execute_script(
        "const box = document.getElementById('search'); box.value = arguments[0]; box.dispatchEvent(new Event('input'))",
        words,
    )
    WebDriverWait(browser, HANGS).until(lambda b: text(b, "#found") != before)
    return text(browser, "#found")


def test_the_page_works(run: Run, log: Path, tmp_path: Path, browser: webdriver.Chrome) -> None:
    """Charts are drawn, tables change with their tab, the list is searched, and a click shows the entry."""
    run("report", "-o", tmp_path / "report.html", log)
    opened(browser, tmp_path / "report.html")
    assert text(browser, "#summary").startswith("300 calls, ")
    assert len(browser.find_elements(By.CSS_SELECTOR, "figure .main-svg")) >= 6
    assert text(browser, "#numbers tbody tr td") == "gpt-4o"
    browser.find_elements(By.CSS_SELECTOR, "#by button")[1].click()
    assert text(browser, "#numbers tbody tr td") == "openai"
    total = len(list(read_events(log)))
    assert text(browser, "#found") == f"{total} of {total} entries"
    tools = sum(event.tag == "TOOL_CALL_DETECTED" for event in read_events(log))
    assert search(browser, "reykjavík TOOL") == f"{tools} of {total} entries"
    browser.find_element(By.CSS_SELECTOR, ".row").click()
    assert "get_weather(" in text(browser, "#entry")
    assert complaints(browser) == []


def test_the_list_works_by_keyboard(run: Run, log: Path, tmp_path: Path, browser: webdriver.Chrome) -> None:
    """Down and up choose entries and scroll to them; what a screen reader announces has names."""
    run("report", "-o", tmp_path / "report.html", log)
    opened(browser, tmp_path / "report.html")
    newest = [event.trace_id for event in read_events(log)][::-1]
    entries = browser.find_element(By.CSS_SELECTOR, "#list")
    entries.send_keys(Keys.ARROW_DOWN * 60 + Keys.ARROW_UP)
    assert newest[58] in text(browser, "#entry")
    chosen = browser.find_elements(By.CSS_SELECTOR, '.row[aria-selected="true"]')
    assert [row.is_displayed() for row in chosen] == [True]
    unnamed = (
        "figure:not([aria-label]):not([hidden]), table:not([aria-label]), [role=listbox]:not([aria-label])"
    )
    assert browser.find_elements(By.CSS_SELECTOR, unnamed) == []
    assert complaints(browser) == []


def test_nothing_in_a_log_runs(
    run: Run, hostile_log: Path, tmp_path: Path, browser: webdriver.Chrome
) -> None:
    """With markup and scripts in every field no script runs, no markup appears, and the texts are shown as they are."""
    page = tmp_path / "<img src=x onerror=document.title='owned'>.html"
    log = hostile_log.rename(tmp_path / "<script>document.title='owned'<|script>.log")
    run("report", "-o", page, log)
    opened(browser, page)
    assert browser.title == str(log)
    made = browser.execute_script(
        "return [...document.querySelectorAll('main img, main a, main script, main b')].length"
    )
    assert made == 0
    names = [cell.text for cell in browser.find_elements(By.CSS_SELECTOR, "#numbers tbody td:first-child")]
    assert generated.HOSTILE[0] in names
    legend = browser.execute_script(
        "return [...document.querySelectorAll('.legendtext')].map(t => t.textContent)"
    )
    assert any(entry.startswith("<") for entry in legend)
    assert complaints(browser) == []


def test_a_hundred_thousand_entries(run: Run, tmp_path: Path, browser: webdriver.Chrome) -> None:
    """A page of 100 000 entries holds a few rows at a time, scrolls to the oldest, and searches."""
    unit = list(map(render, generated.events(1000)))
    first = next(event for event in generated.events(9, seed=9) if isinstance(event, LLMGenerationSuccess))
    custom = {**first.metadata.custom_fields, "timestamp": "2026-01-01T00:00:00.000000+00:00"}  # before all
    metadata = replace(first.metadata, custom_fields=custom)
    needle = render(replace(first, message_content="needle", metadata=metadata))
    (tmp_path / "events.log").write_text("".join([needle, *(unit * 100)[: 100_000 - 1]]), encoding="utf-8")
    run("report", "-o", tmp_path / "report.html", tmp_path / "events.log")
    opened(browser, tmp_path / "report.html")
    assert "100,000 of 100,000 entries" in text(browser, "#found")
    assert len(browser.find_elements(By.CSS_SELECTOR, ".row")) < 100
    browser.execute_script("const list = document.getElementById('list'); list.scrollTop = list.scrollHeight")
    shown = "return document.getElementById('rows').textContent.includes('needle')"
    WebDriverWait(browser, HANGS).until(lambda b: b.execute_script(shown))
    assert search(browser, "needle").startswith("1 of 100,000 entries")
    assert complaints(browser) == []
