"""A log of a gigabyte: ``stats`` streams it in constant memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from openai_lifecycle.eventslog.format import render
from tests import generated
from tests.cli.test_stats import count

# Runs the command as it is, then says what it took: processor seconds and the most memory it had.
MEASURED = (
    "import resource, sys\n"
    "from openai_lifecycle.cli.commands import cli\n"
    "cli(['stats', '--json', *sys.argv[1:]], standalone_mode=False)\n"
    "used = resource.getrusage(resource.RUSAGE_SELF)\n"
    "print(used.ru_utime + used.ru_stime, used.ru_maxrss, file=sys.stderr)\n"
)


def measured(log: Path) -> tuple[dict[str, int], float, int]:
    """Return the totals of ``stats``, the processor seconds, and the kilobytes of memory."""
    ended = subprocess.run(
        [sys.executable, "-c", MEASURED, log], capture_output=True, text=True, check=True, timeout=600
    )
    seconds, kilobytes = ended.stderr.split()
    return json.loads(ended.stdout)["total"], float(seconds), int(kilobytes)


def repeated(path: Path, unit: bytes, times: int) -> Path:
    """Write ``unit`` so many times to ``path``."""
    with path.open("wb") as file:
        for _ in range(times):
            file.write(unit)
    return path


@pytest.mark.soak
def test_stats_streams_a_log_in_constant_memory(tmp_path: Path) -> None:
    """The memory for a large log is that for a log of a tenth, and every token is counted."""
    unit = "".join(map(render, generated.events(2000, characters=200))).encode()
    small = generated.write(tmp_path / "small.log", generated.events(2000, characters=200))
    expected, times = count(small), 1_000_000_000 // len(unit)
    tenth = repeated(tmp_path / "tenth.log", unit, times // 10)
    large = repeated(tmp_path / "large.log", unit, times)
    try:
        (_, start, _), (_, _, before) = measured(small), measured(tenth)
        total, seconds, after = measured(large)
    finally:
        large.unlink()
    assert {name: total[name] for name in expected} == {
        name: value * times for name, value in expected.items()
    }
    assert after < before + 50_000  # kilobytes; prices alone take more, and not always the same
    size = len(unit) * times
    rate = size / (seconds - start) / 1e6
    print(
        f"\n{size / 1e6:.0f} MB: {seconds:.1f} s, {rate:.0f} MB/s per core, {after / 1000:.0f} MB of memory"
    )
