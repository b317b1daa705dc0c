"""Tests that the benchmarks run; ``python -m tests.benchmarks`` measures."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.benchmarks import __main__ as benchmarks
from tests.benchmarks import exporter, imports, instructions, measure, memory, peers
from tests.benchmarks.scenarios import SCENARIOS
from tests.benchmarks.variants import OURS
from tests.limits import HANGS

SILENT = {"bare", "bare again", "floor, not sampled", "not sampled, file", "not sampled", "nothing recorded"}


@pytest.mark.parametrize("variant", OURS)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_each_call_makes_one_span(scenario: str, variant: str) -> None:
    """Every variant makes the same calls in every scenario, and one span per call unless it is silent."""
    with measure.installed(scenario, variant) as (subject, telemetry):
        before = telemetry.exported()  # of the client's own initialization
        times = subject.times(2)
        assert telemetry.exported() - before == (0 if variant in SILENT else 2)
    assert len(times) == 2
    assert min(times) > 0


def test_the_table_compares_with_bare_and_floor(capsys: pytest.CaptureFixture[str]) -> None:
    """The command measures variants in interleaved processes and prints them next to bare, as table or JSON."""
    asked = ["--scenarios", "chat", "--variants", "floor with metrics", "--rounds", "2", "--calls", "1"]
    benchmarks.main(asked)
    header, _, bare, floor = capsys.readouterr().out.splitlines()
    assert "times floor with metrics" in header
    assert "**chat** | bare" in bare
    assert "| floor with metrics |" in floor
    benchmarks.main([*asked, "--json"])
    rows = json.loads(capsys.readouterr().out)
    assert [row["variant"] for row in rows] == ["bare", "floor with metrics"]


def test_instructions_are_counted_of_any_variant() -> None:
    """The process that valgrind watches takes any variant's name, and reports one child for each count."""
    asked = json.dumps([["chat"], ["not sampled, file"]])
    command = [sys.executable, "-m", "tests.benchmarks.instructions", asked]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=HANGS, cwd=peers._ROOT)
    found = [match[1:] for match in instructions._LINE.findall(done.stdout)]
    assert found == [("chat", "not sampled, file", "100"), ("chat", "not sampled, file", "140")]


def test_ratio_to_noise_is_no_ratio() -> None:
    """A ratio is shown only if the reference exceeds its own noise."""
    assert benchmarks._ratio(measure.Figure(3e-4, 1e-5), measure.Figure(2e-4, 1e-5)) == "1.50"
    assert benchmarks._ratio(measure.Figure(3e-4, 1e-5), measure.Figure(2e-5, 1e-5)) == ""


def test_the_exporter_is_measured_in_every_mode() -> None:
    """The exporter's table has a row for each durability, and the rows it is compared with."""
    rows = exporter.table(count=3, rounds=1).splitlines()[2:]
    assert [row.split("|")[1].strip() for row in rows] == [
        "render alone",
        "render and write(2)",
        "decode alone",
        "exporter, buffered",
        "exporter, write",
        "exporter, fsync",
    ]


def test_imports_are_measured_in_processes() -> None:
    """A program's start is measured in a process of its own."""
    assert imports.milliseconds("import json") > 0


def test_what_a_call_allocates_is_measured() -> None:
    """A call that is recorded takes more memory at its peak than it keeps until the export, and more than a bare one."""
    bare, recorded = (memory.allocated("chat", variant, calls=3) for variant in ("bare", "everything on"))
    assert recorded[0] > recorded[1] > bare[1]
    assert recorded[2] > bare[2]
