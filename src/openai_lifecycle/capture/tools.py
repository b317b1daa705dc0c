"""Items, tool calls and their results, as the APIs write them: read alike for spans and for text."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from openai_lifecycle.capture.facts import Fields, ToolCall, fields, items, text


@dataclass(frozen=True, slots=True)
class Tool:
    """A kind of tool of the Responses API; ``asked`` names the members of its call that hold the arguments.

    A call of a ``named`` tool has the tool's name; every other kind has just one tool, named after the kind.
    ``hosted`` tells from a call whether the server runs it; if not, the response waits for the application.
    """

    kind: str
    asked: tuple[str, ...]
    named: bool = False
    hosted: Callable[[Fields], bool] = lambda _: False


def _always(_: Fields) -> bool:
    return True


def _in_container(call: Fields) -> bool:
    return fields(call.get("environment")).get("type") == "container_reference"


def _by_server(call: Fields) -> bool:
    return call.get("execution") != "client"


#: Type of an output item → tool (``openai/types/responses/response_output_item.py``).
TOOLS: Final[Mapping[str, Tool]] = {
    "function_call": Tool("function", ("arguments",), named=True),
    "custom_tool_call": Tool("custom", ("input",), named=True),
    "computer_call": Tool("computer", ("action", "actions")),
    "local_shell_call": Tool("local_shell", ("action",)),
    "shell_call": Tool("shell", ("action",), hosted=_in_container),
    "apply_patch_call": Tool("apply_patch", ("operation",)),
    "mcp_approval_request": Tool("mcp_approval_request", ("arguments",), named=True),
    "mcp_call": Tool("mcp", ("arguments",), named=True, hosted=_always),
    "tool_search_call": Tool("tool_search", ("arguments",), hosted=_by_server),
    "web_search_call": Tool("web_search", ("action",), hosted=_always),
    "file_search_call": Tool("file_search", ("queries",), hosted=_always),
    "code_interpreter_call": Tool("code_interpreter", ("code",), hosted=_always),
    "image_generation_call": Tool("image_generation", ("revised_prompt",), hosted=_always),
    "program": Tool("program", ("code",), hosted=_always),
    "multi_agent_call": Tool("multi_agent", ("action", "arguments"), hosted=_always),
}


#: Types of what the model says besides messages and tool calls. A message between agents has an author, not a role:
#: ``openai/types/beta/beta_response_output_item.py``.
_SAID: Final = ("reasoning", "compaction", "agent_message", "mcp_list_tools")


def role_of(item: Fields) -> str:
    """Return the role of an item of the Responses API: the one that it names, else the one that its type implies."""
    role = text(item.get("role"))
    if role:
        return role
    kind = text(item.get("type"))
    if kind.endswith("_output"):
        return "tool"
    return "assistant" if kind in TOOLS or kind in _SAID else "user"


def item_call(item: Fields) -> ToolCall | None:
    """Return an item of the Responses API as a tool call, ``None`` if it is not one.

    Arguments that the model wrote as text stay as they are. An ``action`` object becomes its JSON, anything
    else a JSON object of the members that :data:`TOOLS` names.
    """
    tool = TOOLS.get(text(item.get("type")))
    if tool is None:
        return None
    asked = {member: item[member] for member in tool.asked if item.get(member) is not None}
    only = next(iter(asked.values())) if len(asked) == 1 else None
    whole = fields(only) or (tool.named and isinstance(only, str))
    arguments = raw_text(only if whole else asked or None)
    return ToolCall(
        id=id_of(item),
        name=text(item.get("name")) if tool.named else tool.kind,
        kind=tool.kind,
        hosted=tool.hosted(item),
        fragments=[arguments],
    )


def chat_call(call: object) -> tuple[str, str, str, str]:
    """Return id, name, kind and arguments of a chat tool call or a fragment of one; each may be empty."""
    c = fields(call)
    kind = text(c.get("type")) or ("custom" if c.get("custom") else "")
    inner = fields(c.get("custom") if kind == "custom" else c.get("function"))
    return (
        text(c.get("id")),
        text(inner.get("name")),
        kind,
        raw_text(inner.get("arguments", inner.get("input"))),
    )


def id_of(item: Fields) -> str:
    """Return the id that a tool's call and its result have in common; a few kinds have only that of the item."""
    return text(item.get("call_id")) or text(item.get("id"))


def output_of(item: Fields) -> Any:
    """Return a tool's result: a text or a list of parts; a ``computer_call_output`` has one, a screenshot.

    What a shell's commands printed has another shape (``response_function_shell_tool_call_output.py``).
    """
    output = item.get("output", item.get("result"))
    if item.get("type") == "shell_call_output" and items(output):
        printed = [text(fields(one).get(where)) for one in items(output) for where in ("stdout", "stderr")]
        return [{"type": "text", "text": said} for said in printed if said]
    return [output] if isinstance(output, Mapping) else output


def raw_text(value: Any) -> str:
    """Return arguments as text; an object, which some servers send instead, becomes its JSON text, ``…`` if too deep."""
    if isinstance(value, str):
        return value
    try:
        return "" if value is None else json.dumps(plain(value), ensure_ascii=False, default=str)
    except RecursionError:  # nested too deeply for this, not for the client
        return "…"


def plain(value: Any) -> Any:
    """Return ``value`` with the client's models in it as plain dicts, without their nulls."""
    if isinstance(value, Mapping):
        return {name: plain(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    own = fields(value)
    return {name: plain(inner) for name, inner in own.items() if inner is not None} if own else value
