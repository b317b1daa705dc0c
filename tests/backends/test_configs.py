"""Every file of `collector-config/` is accepted by the program it is for, and nothing is left out."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from .conftest import program
from .harness import CONFIGS, Backends

pytestmark = pytest.mark.backends

# As the files' first lines and the README say to start them.
COMBINATIONS = {
    "otelcol": [
        ("dev.yaml",),
        ("agent.yaml", "redaction.yaml"),
        ("gateway.yaml", "redaction.yaml", "sampling.yaml"),
        ("kafka-gateway.yaml", "redaction.yaml"),
        ("kafka-ingester.yaml", "sampling.yaml"),
        ("prometheus.yaml",),
        ("dev.yaml", "prometheus.yaml"),
        ("events-log.yaml",),
        ("events-log.yaml", "redaction.yaml"),
    ],
    "jaeger": [
        ("jaeger.yaml",),
        ("jaeger.yaml", "jaeger-badger.yaml"),
        ("jaeger.yaml", "jaeger-elasticsearch.yaml"),
        ("jaeger.yaml", "jaeger-clickhouse.yaml"),
    ],
}


@pytest.mark.parametrize(
    ("name", "files"), [(name, files) for name, several in COMBINATIONS.items() for files in several]
)
def test_is_valid(name: str, files: tuple[str, ...]) -> None:
    """`validate` accepts each combination of files as it stands, without a variable set."""
    arguments = [part for file in files for part in ("--config", str(CONFIGS / file))]
    result = subprocess.run(
        [str(program(name)), "validate", *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 0, result.stderr


def test_no_file_is_forgotten() -> None:
    """Every configuration that is delivered is one of those tested above."""
    tested = {file for several in COMBINATIONS.values() for files in several for file in files}
    delivered = {path.name for path in CONFIGS.glob("*.yaml")}
    assert delivered - tested <= {"docker-compose.yaml"}  # for Docker, not for these programs


def test_compose_runs_the_tested_collector() -> None:
    """The image in `docker-compose.yaml` is of the version that is built for these tests."""
    manifest = (Path(__file__).parent / "collector" / "manifest.yaml").read_text()
    (version,) = re.findall(r"^  version: (\S+)$", manifest, re.MULTILINE)
    compose = (CONFIGS / "docker-compose.yaml").read_text()
    assert f"image: otel/opentelemetry-collector-contrib:{version} " in compose


def test_every_documented_command_is_tested() -> None:
    """The commands in the README and in the heads of the files are combinations that are tested above."""
    known = {(name, files) for name, several in COMBINATIONS.items() for files in several}
    commands = set()
    for path in [CONFIGS / "README.md", *CONFIGS.glob("*.yaml")]:
        for name, options in re.findall(r"\b(otelcol|jaeger)((?: --config [\w-]+\.yaml)+)", path.read_text()):
            commands.add((name, tuple(re.findall(r"[\w-]+\.yaml", options))))
    assert commands <= known
    assert known - commands == {("otelcol", ("events-log.yaml", "redaction.yaml"))}  # described in words


@pytest.mark.parametrize(
    "files", [("agent.yaml",), ("gateway.yaml", "sampling.yaml"), ("kafka-gateway.yaml",)]
)
def test_refuses_to_start_without_redaction(backends: Backends, files: tuple[str, ...]) -> None:
    """Forgetting `redaction.yaml` is an error at the start, not a leak."""
    with pytest.raises(AssertionError, match=r"transform/redact_content.*not configured"):
        backends.collector(*files)
