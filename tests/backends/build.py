"""Builds the programs that `tests/backends` runs, once: a Collector, Jaeger, Kafka and OpenSearch.

    python tests/backends/build.py

Each result lies in `~/.cache/openai-lifecycle-backends/` (or `$OPENAI_LIFECYCLE_BACKENDS`) under a hash of
the files that pin it, so a second run does nothing and a changed pin builds anew. Cold on two cores: about
six minutes for each of the two Go programs, half a minute for the other two. Needed are Go 1.26 (Collector,
Jaeger) and Maven with JDK 17 (Kafka, OpenSearch), nothing from the project's own environment.

To move to other versions:

* Collector: edit `builder/go.mod` and `collector/manifest.yaml` (one minor version throughout). In an empty
  directory run the builder on the manifest with `--skip-compilation` and copy `_build/go.mod` and `go.sum`
  to `collector/`.
* Jaeger: its modules are published as v1.x only (v1.76.0 is the code of v2.13.0). Edit `jaeger/go.mod`, start
  from Jaeger's own `go.sum` (it is in the module), run `go mod tidy`.
* Kafka, OpenSearch: edit `kafka/pom.xml`, `opensearch/pom.xml`.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
CACHE = Path(
    os.environ.get("OPENAI_LIFECYCLE_BACKENDS", Path.home() / ".cache" / "openai-lifecycle-backends")
)


def _run(*command: str | Path, cwd: Path) -> None:
    """Run a build step with low priority and reproducible Go settings; its output goes to ours."""
    environment = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false", "GOTOOLCHAIN": "local"}
    subprocess.run(["nice", "-n", "19", *map(str, command)], cwd=cwd, env=environment, check=True)


def _go_build(module: Path, package: str, output: Path, *, ldflags: str = "", tags: str = "") -> None:
    """Compile `package` of `module` from exactly what its go.mod and go.sum name, on at most two cores."""
    flags = ["-p", "2", "-mod=readonly", "-trimpath", "-tags", tags, "-ldflags", f"-s -w {ldflags}"]
    _run("go", "build", *flags, "-o", output, package, cwd=module)


def _collector(output: Path) -> None:
    builder, generated = output / "builder", output / "_build"
    _go_build(HERE / "builder", "go.opentelemetry.io/collector/cmd/builder", builder)
    # The builder writes the sources; the dependencies are ours, pinned, not what it would resolve today.
    steps = ["--skip-get-modules", "--skip-compilation"]
    _run(builder, "--config", HERE / "collector" / "manifest.yaml", *steps, cwd=output)
    for name in ("go.mod", "go.sum"):
        shutil.copyfile(HERE / "collector" / name, generated / name)
    _go_build(generated, ".", output / "otelcol", tags="grpcnotrace")
    shutil.rmtree(generated)
    builder.unlink()


def _jaeger(output: Path) -> None:
    package = "github.com/jaegertracing/jaeger"
    version = f"-X {package}/internal/version.latestVersion=v2.13.0"
    _go_build(HERE / "jaeger", f"{package}/cmd/jaeger", output / "jaeger", ldflags=version)


def _jars(pom: Path, output: Path) -> None:
    goal = ["dependency:copy-dependencies", f"-DoutputDirectory={output}"]
    _run("mvn", "--batch-mode", "--quiet", "-Dstyle.color=never", "--file", pom, *goal, cwd=output)


def _kafka(output: Path) -> None:
    _jars(HERE / "kafka" / "pom.xml", output)


def _opensearch(output: Path) -> None:
    _jars(HERE / "opensearch" / "pom.xml", output)
    _run("javac", "-cp", f"{output}/*", "-d", output, HERE / "opensearch" / "SingleNode.java", cwd=output)


@dataclass(frozen=True)
class Program:
    """Something to build: `file` in the result tells that it is there, `needs` are the tools it is built with."""

    file: str
    needs: tuple[str, ...]
    pins: tuple[str, ...]
    make: Callable[[Path], None]

    @property
    def directory(self) -> Path:
        """Where the result lies, named by what pins it."""
        digest = hashlib.sha256()
        for pin in self.pins:
            digest.update((HERE / pin).read_bytes())
        return CACHE / f"{self.pins[-1].split('/')[0]}-{digest.hexdigest()[:16]}"

    @property
    def path(self) -> Path:
        """The program, whether or not it has been built."""
        return self.directory / self.file

    @property
    def missing_tools(self) -> list[str]:
        """What would be needed to build it and is not on PATH."""
        return [tool for tool in self.needs if shutil.which(tool) is None]

    def build(self) -> Path:
        """Build it unless it is there. Raises CalledProcessError when a step fails; a half-built result is never seen."""
        if not self.path.exists():
            CACHE.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=CACHE, prefix="building-") as unfinished:
                output = Path(unfinished, "output")
                output.mkdir()
                self.make(output)
                if not self.path.exists():  # another process may have been quicker
                    shutil.rmtree(self.directory, ignore_errors=True)
                    output.rename(self.directory)
        return self.path


PROGRAMS = {
    "otelcol": Program(
        file="otelcol",
        needs=("go",),
        pins=(
            "builder/go.mod",
            "builder/go.sum",
            "collector/manifest.yaml",
            "collector/go.mod",
            "collector/go.sum",
        ),
        make=_collector,
    ),
    "jaeger": Program(file="jaeger", needs=("go",), pins=("jaeger/go.mod", "jaeger/go.sum"), make=_jaeger),
    "kafka": Program(
        file="kafka_2.13-4.1.0.jar", needs=("mvn", "java"), pins=("kafka/pom.xml",), make=_kafka
    ),
    "opensearch": Program(
        file="SingleNode.class",
        needs=("mvn", "javac", "java"),
        pins=("opensearch/SingleNode.java", "opensearch/pom.xml"),
        make=_opensearch,
    ),
}


def main() -> int:
    """Build everything; 1 when a tool is missing, after building what could be built."""
    failed = 0
    for name, program in PROGRAMS.items():
        if not program.path.exists() and program.missing_tools:
            print(f"{name}: needs {' and '.join(program.missing_tools)} on PATH", file=sys.stderr)
            failed = 1
        else:
            print(f"{name}: {program.build()}", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
