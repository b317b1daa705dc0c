"""The metrics of the package as Prometheus sees them, and the dashboard that asks for them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from .applications import QUICKSTART, run
from .harness import CONFIGS, Backends

pytestmark = pytest.mark.backends

EXPOSED = re.compile(r"^(\w+)\{(.*)\} ", re.MULTILINE)
ASKED = re.compile(r"([a-z_]+)\{([^}]*)\}")  # in PromQL: a metric with its matchers
GROUPED = re.compile(r"by \(([^)]*)\)")
MATCHER = re.compile(r"(\w+)(?:=|!=|=~)\"")


def test_the_dashboard_finds_what_it_asks_for(backends: Backends, tmp_path: Path) -> None:
    """Every metric and label of the dashboard is in what Prometheus scrapes after two runs of the quickstart."""
    collector = backends.collector("prometheus.yaml")
    for log in ("events.log", "/dev/full"):  # the second loses every entry
        run(
            QUICKSTART,
            tmp_path,
            OTEL_PYTHON_OPENAI_LIFECYCLE_EVENTS_LOG=log,
            OTEL_TRACES_EXPORTER="none",
            OTEL_METRICS_EXPORTER="otlp",
            OTEL_EXPORTER_OTLP_ENDPOINT=f"http://{collector.grpc}",
        )
    exposed: dict[str, set[str]] = {}
    for name, labels in EXPOSED.findall(collector.prometheus()):
        exposed.setdefault(name, set()).update(MATCHER.findall(labels))

    dashboard = json.loads((CONFIGS / "grafana-dashboard.json").read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    asked = [found for query in queries for found in ASKED.findall(query)]
    for name, matchers in asked:
        assert set(MATCHER.findall(matchers)) <= exposed.get(name, set()), name
    # Three series of two histograms, the buckets of two more, and the lost entries.
    assert len({name for name, _ in asked}) == 7
    labels_by_name = set().union(*(exposed[name] for name, _ in asked))
    for query in queries:
        for group in GROUPED.findall(query):
            assert set(group.split(", ")) <= labels_by_name
    for variable in dashboard["templating"]["list"][1:]:
        metric, label = re.findall(r"\w+", variable["query"]["query"])[1:]  # label_values(metric, label)
        assert label in exposed[metric]
