"""The package's shape: its public names, its layers, its options and what the README says of them."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

import openai_lifecycle
from openai_lifecycle import codec, environment_variables
from openai_lifecycle.capture import routes, sockets
from openai_lifecycle.eventslog.format import KEYS, METADATA_KEYS
from openai_lifecycle.options import OPTIONS, Capture, Options, read
from tests.limits import HANGS

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "openai_lifecycle"
README = (ROOT / "README.md").read_text(encoding="utf-8")

#: Lower rank never imports higher; what stands on one line may know each other. The longest prefix counts.
RANKS = [
    ["version", "semconv", "environment_variables", "shield", "texts", "ending", "threads"],
    ["redaction"],
    ["events"],
    ["options", "codec", "foreign", "losses", "sampling", "ids", "sdk"],
    ["eventslog", "capture"],
    ["records"],
    ["sinks"],
    ["eventslog.exporter"],
    ["pipeline", "cli"],
    ["switch"],
    ["instrumentor"],
    [""],
]
#: Packages that must not import each other: the command starts without the client, the log needs none.
TOWERS = {
    "eventslog": ["capture"],
    "sinks": ["capture"],
    "cli": ["capture"],
    "capture": ["eventslog", "sinks"],
}


def imports(file: Path) -> set[str]:
    """Return the modules of this package that ``file`` imports at its top, without the package's name."""
    found: set[str] = set()
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("openai_lifecycle"):
            module = (node.module or "").removeprefix("openai_lifecycle").lstrip(".")
            found |= {module} if module else {alias.name for alias in node.names}
    return found


def rank(module: str) -> int:
    """Return the rank of a module by the longest name that it starts with."""
    fitting = [name for names in RANKS for name in names if f"{module}.".startswith(f"{name}.") or not name]
    return next(number for number, names in enumerate(RANKS) if max(fitting, key=len) in names)


def test_lower_never_imports_higher() -> None:
    """Every import goes down the ranks, and the two towers meet only at the bottom."""
    for file in PACKAGE.rglob("*.py"):
        module = (
            ".".join(file.relative_to(PACKAGE).with_suffix("").parts).removesuffix("__init__").rstrip(".")
        )
        for imported in imports(file):
            assert rank(imported) <= rank(module), f"{module} imports {imported}"
            strangers = TOWERS.get(module.split(".")[0], [])
            assert imported.split(".")[0] not in strangers, f"{module} imports {imported}"


def test_public_names() -> None:
    """The public names are these, and every one of them is there."""
    assert openai_lifecycle.__all__ == [
        "EventsLogExporter",
        "LLMGenerationError",
        "LLMGenerationSuccess",
        "LLMInitializationError",
        "LLMInitializationStart",
        "LLMInitializationSuccess",
        "LifecycleEvent",
        "Metadata",
        "OpenAILifecycleInstrumentor",
        "ToolCallDetected",
        "__version__",
        "instrument",
        "read_events",
        "uninstrument",
    ]
    assert all(getattr(openai_lifecycle, name) for name in openai_lifecycle.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = openai_lifecycle.nothing


def test_every_option_has_a_row_in_the_readme() -> None:
    """The README's options table is the one that options.py makes."""
    lines = ["| `instrument()` | variable | default | allowed | meaning |", "|---|---|---|---|---|"]
    for option in OPTIONS:
        variable = f"`{option.variable}`" if option.variable else "-"
        cells = (f"`{option.name}`", variable, option.shown_default, option.allowed, option.help)
        lines.append(f"| {' | '.join(cells)} |")
    assert "\n".join(lines) in README


def test_help_of_instrument_lists_the_options() -> None:
    """`help(openai_lifecycle.instrument)` has every option with its meaning, what is allowed, and its variable."""
    shown = inspect.getdoc(openai_lifecycle.instrument)
    assert shown is not None
    for option in OPTIONS:
        assert f"\n    {option.name}: {option.help}\n        {option.allowed}; default: " in shown
        assert (option.variable or "") in shown


def _table(heading: str) -> list[list[str]]:
    """Return the cells below ``heading`` of the README's table that begins with it."""
    _, found, rest = README.partition(f"\n{heading}\n")
    assert found, heading
    rows = rest.partition("\n\n")[0].splitlines()[1:]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in rows]


def _code(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def test_the_readme_has_the_format_of_every_entry() -> None:
    """The README's tables of entries have every key, placeholder and custom field of the code, in its order."""
    assert _table("| tag | `event_type` | keys |") == [
        [f"`{kind.tag}`", f"`{kind.event_type}`", _code(("event_type", *keys, "trace_id", "metadata"))]
        for kind, keys in KEYS.items()
    ]
    explained = ", ".join(row[0] for row in _table("| key | value |"))
    assert {f"`{key}`" for keys in KEYS.values() for key in (*keys, "trace_id")} == set(explained.split(", "))
    assert [row[0] for row in _table("| member | value |")] == [
        f"`{name}`" for name in (*METADATA_KEYS, "custom_fields")
    ]
    layouts = {kind: codec.LAYOUTS[kind.event_type] for kind in KEYS}
    assert _table("| tag | `user` when the request names no user | `custom_fields`, in this order |") == [
        [
            f"`{kind.tag}`",
            f"`{kind.placeholder_user}`",
            _code(("provider", *layout.fixed, *layout.custom, "span_id", "timestamp")),
        ]
        for kind, layout in layouts.items()
    ]


def test_the_readme_has_every_operation() -> None:
    """The README's table of operations names those of the code, and what `events.log` calls each."""
    operations = {
        *routes.ROUTES.values(),
        *(api.operation for api in sockets.APIS.values()),
        sockets.CONNECT,
    }
    named = {
        f"`{operation.name}`": f"`{codec.OPERATIONS.get(operation.name, 'llm_generation')}`"
        if operation.entries
        else "no entries"
        for operation in operations
    }
    rows = _table("| call | `gen_ai.operation.name` | `operation` of its entries |")
    assert {name: entries.partition(", ")[0] for _, name, entries in rows} == named


def test_every_link_of_the_readme_leads_somewhere() -> None:
    """What the README links to in itself and in the repository is there."""
    headings = re.findall(
        r"^#+ (.*)$", re.sub(r"^```.*?^```", "", README, flags=re.MULTILINE | re.DOTALL), re.MULTILINE
    )
    anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    links = re.findall(r"\]\((?!https:)([^)]*)\)", README)
    assert {link[1:] for link in links if link.startswith("#")} <= anchors
    assert all((ROOT / link.partition("#")[0]).exists() for link in links)


def test_the_configurations_readme_has_every_variable() -> None:
    """The table of variables beside the configurations names those that they read, and no other."""
    folder = ROOT / "collector-config"
    read_there = "".join(path.read_text(encoding="utf-8") for path in folder.glob("*.yaml"))
    _, _, table = (
        (folder / "README.md").read_text(encoding="utf-8").partition("| variable | used by | default |\n")
    )
    names = "".join(row.split("|")[1] for row in table.partition("\n\n")[0].splitlines())
    assert set(re.findall(r"`([A-Z_]+)`", names)) == set(re.findall(r"\$\{env:([A-Z_]+)", read_there))


def test_the_readme_begins_with_its_two_commands() -> None:
    """How to install it, what it then does, and how to run the tests stand on the first screen."""
    begin = "\n".join(README.splitlines()[:40])
    assert "pip install ." in begin
    assert re.search(r"^\$ .*quickstart\.py\n.*^```$", begin, re.MULTILINE | re.DOTALL)
    assert "`pip install uv && uv run --all-extras pytest -n auto`" in begin


def test_every_test_that_the_readme_names_is_there() -> None:
    """The guarantees name files and tests that exist."""
    sources = {file.name: file.read_text(encoding="utf-8") for file in (ROOT / "tests").rglob("test_*.py")}
    named = set(re.findall(r"`(?:\w+/)?(test_\w+\.py)`", README))
    assert named
    assert named <= sources.keys()
    everything = "\n".join(sources.values())
    functions = set(re.findall(r"`(test_\w+)`", README))
    assert functions
    assert not [name for name in functions if f"def {name}(" not in everything]


def test_options_and_variables_are_complete() -> None:
    """Every field of Options has a row, and every row's own variable is registered as a flag."""
    assert [option.name for option in OPTIONS] == list(Options.__slots__)
    registered = {name for name in dir(environment_variables) if name.startswith("OTEL_")}
    named = {option.variable for option in OPTIONS if option.variable}
    assert registered == {name for name in named if name.startswith("OTEL_PYTHON_OPENAI_LIFECYCLE_")}
    assert all(getattr(environment_variables, name) == name for name in registered)


@pytest.mark.parametrize(
    ("name", "text", "value", "keyword"),
    [
        ("EVENTS_LOG", "none", None, "mine"),
        ("EVENTS_LOG", "/dev/stdout", "/dev/stdout", "mine"),
        ("TEMPERATURE", "1", 1, 0),
        ("TEMPERATURE", "0.5", 0.5, 0),
        ("MAX_TOKENS", "0", 0, 1),
        ("DURABILITY", "fsync", "fsync", "buffered"),
        ("DURABILITY", " FSYNC", "fsync", "write"),
        ("COMPRESS", "TRUE", True, False),
        ("UTC", "0", False, True),
    ],
)
def test_variables_are_read(name: str, text: str, value: object, keyword: object) -> None:
    """A variable's text becomes the option's value, and a keyword wins over it, also one that is false."""
    variables = {f"OTEL_PYTHON_OPENAI_LIFECYCLE_{name}": text}
    assert getattr(read({}, variables), name.lower()) == value
    assert getattr(read({name.lower(): keyword}, variables), name.lower()) == keyword


@pytest.mark.parametrize(
    ("text", "capture"),
    [("true", Capture.SPAN_AND_EVENT), ("False", Capture.NO_CONTENT), ("span_only", Capture.SPAN_ONLY)],
)
def test_capture_modes(text: str, capture: Capture) -> None:
    """The official variable chooses the mode, with true and false for all and nothing."""
    assert read({}, {"OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": text}).capture is capture


def test_the_readme_shows_what_the_quickstart_prints(tmp_path: Path) -> None:
    """The output in the README is that of its command, but for times and ids."""
    shown = re.search(r"```console\n\$ [^\n]*quickstart\.py[^\n]*\n(.*?)```", README, re.DOTALL)
    assert shown is not None
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "quickstart.py")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=HANGS,
        check=True,
    )
    assert _steady(done.stdout) == _steady(shown[1])


def _steady(text: str) -> str:
    return re.sub(r"127\.0\.0\.1:\d+|/[^ ]*/events\.log|req_\w+", "…", text).strip()


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("events_log", "a\0b"),
        ("model", 7),
        ("temperature", True),
        ("top_p", "high"),
        ("max_tokens", 1.5),
        ("durability", "never"),
        ("max_bytes", -1),
        ("backups", "many"),
        ("compress", "perhaps"),
        ("utc", 2),
        ("content_limit", None.__class__),
        ("capture", "all"),
        ("transform", "print"),
        ("sinks", 7),
        ("tracer_provider", 1),
        ("meter_provider", "console"),
        ("temperature", 10**400),
    ],
)
def test_a_wrong_keyword_names_option_value_and_what_is_allowed(name: str, wrong: object) -> None:
    """Each option refuses what it cannot use, and says what it takes."""
    allowed = next(option.allowed for option in OPTIONS if option.name == name)
    with pytest.raises(ValueError, match=f"^{name}=.* is not allowed: it must be ") as raised:
        read({name: wrong}, {})
    assert allowed in str(raised.value)
    assert repr(wrong) in str(raised.value)
