"""``python -m tests.benchmarks``: what observing a call costs, as ratios within one run."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys

from tests.benchmarks import imports, instructions, loop, measure, memory, peers
from tests.benchmarks.measure import Figure, Row
from tests.benchmarks.scenarios import CHUNKS, SCENARIOS
from tests.benchmarks.variants import OURS, VARIANTS


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    add = parser.add_argument
    add("--scenarios", nargs="+", choices=SCENARIOS, default=list(SCENARIOS), metavar="NAME")
    add("--variants", nargs="+", choices=VARIANTS, default=list(OURS), metavar="NAME")
    add("--rounds", type=int, default=60, help="batches of each variant (default: %(default)s)")
    add("--calls", type=int, default=20, help="calls in a batch (default: %(default)s)")
    add("--json", action="store_true", help="print rows as JSON instead of a table")
    more = parser.add_argument_group("instead of the table")
    mode = more.add_mutually_exclusive_group()
    mode.add_argument(
        "--peers", action="store_true", help="the same for other packages, each in an environment of its own"
    )
    mode.add_argument("--imports", action="store_true", help="what importing and instrumenting costs")
    mode.add_argument("--instructions", action="store_true", help="instructions a call, counted by valgrind")
    mode.add_argument("--memory", action="store_true", help="growth over 100 000 calls and 10 000 streams")
    mode.add_argument("--exporter", action="store_true", help="entries a second that reach the file")
    mode.add_argument("--loop", action="store_true", help="delay of the event loop under 200 streams")
    return parser


def main(arguments: list[str]) -> None:
    """Run the requested measurement and print the result."""
    asked = _parser().parse_args(arguments)
    if asked.imports:
        print(imports.table(asked.rounds))
    elif asked.instructions:
        print(instructions.table(asked.scenarios, asked.variants))
    elif asked.memory:
        print(memory.table())
    elif asked.exporter:
        from tests.benchmarks import exporter  # needs this package, which a peer's environment lacks

        print(exporter.table())
    elif asked.loop:
        print(loop.table())
    elif asked.peers:
        for rows in peers.rows(asked.scenarios, rounds=asked.rounds, calls=asked.calls):
            print(table(rows), end="\n\n", flush=True)
    else:
        variants = list(dict.fromkeys([measure.BARE, *asked.variants]))
        rows = measure.run(asked.scenarios, variants, rounds=asked.rounds, calls=asked.calls)
        print(json.dumps([dataclasses.asdict(row) for row in rows]) if asked.json else table(rows))


def table(rows: list[Row]) -> str:
    """Return ``rows`` as a table in Markdown."""
    lines = [
        "| scenario | variant | added µs | over bare | times floor with metrics | µs a chunk |",
        "|---|---|---:|---:|---:|---:|",
    ]
    by_name = {(row.scenario, row.variant): row for row in rows}
    for row in rows:
        bare = by_name[row.scenario, measure.BARE]
        if row is bare:
            lines.append(f"| **{row.scenario}** | bare | {bare.total.value * 1e6:.0f} in all | | | |")
            continue
        reference = by_name.get((row.scenario, measure.REFERENCE))
        streamed = SCENARIOS[row.scenario].is_streamed
        cells = (
            "",
            row.variant,
            _shown(row.added, 1e6, 0),
            _shown(row.added, 100 / bare.total.value, 1) + " %",
            _ratio(row.added, reference.added) if reference else "",
            _shown(row.added, 1e6 / CHUNKS, 2) if streamed else "",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _ratio(figure: Figure, reference: Figure) -> str:
    """Return ``figure`` as a multiple of ``reference``, or nothing if that is within noise."""
    return f"{figure.value / reference.value:.2f}" if reference.value > 3 * reference.error else ""


def _shown(figure: Figure, scale: float, digits: int) -> str:
    return f"{figure.value * scale:+.{digits}f} ± {figure.error * scale:.{digits}f}"


if __name__ == "__main__":
    main(sys.argv[1:])
