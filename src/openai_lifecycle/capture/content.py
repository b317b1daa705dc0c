"""What was said, as one line of text for ``message_content`` and as the conventions' JSON for the span.

Both speak of messages in the shape that chat and responses share: ``{"role", "content"}`` with content a text
or a list of parts. Large values (images, audio, files) appear by kind and size, never by value.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from openai_lifecycle.capture.facts import Fields, fields, items, text
from openai_lifecycle.redaction import redact

_PLACEHOLDERS = {
    "image_url": "[image]",
    "input_image": "[image]",
    "image": "[image]",
    "input_audio": "[audio]",
    "audio": "[audio]",
    "file": "[file]",
    "input_file": "[file]",
}


def one_line(pieces: Iterable[str], limit: int) -> str:
    """Join ``pieces`` with `` | ``; cut after ``limit`` characters and say how many are missing."""
    if limit <= 0:
        return ""
    kept: list[str] = []
    room, total = limit, 0
    for piece in pieces:
        separated = f" | {piece}" if total else piece
        total += len(separated)
        if room > 0:
            kept.append(separated[:room])
            room -= len(separated)
    line = redact("".join(kept))
    return line if total <= limit else f"{line}… [+{total - limit} chars]"


def chat_messages(messages: object) -> Iterator[str]:
    """Yield each message of a chat as ``role: text``."""
    for message in items(messages):
        m = fields(message)
        said = " ".join(_said(m))
        yield f"{text(m.get('role'))}: {said}"


def _said(message: Fields) -> Iterator[str]:
    if message.get("role") == "tool":
        yield f"[tool_result {text(message.get('tool_call_id'))}]"
    yield from parts(message.get("content"))
    for call in items(message.get("tool_calls")):
        yield f"[tool_call {called(call)[1]}]"
    if message.get("function_call"):
        yield f"[tool_call {text(fields(message['function_call']).get('name'))}]"
    if message.get("audio"):
        yield "[audio]"


def parts(content: object) -> Iterator[str]:
    """Yield each part of a message's content: text as it is, everything else by its kind."""
    if isinstance(content, str):
        yield content
    for part in items(content):
        p = fields(part)
        kind = text(p.get("type"))
        said = p.get("text", p.get("refusal"))
        yield said if isinstance(said, str) else _PLACEHOLDERS.get(kind, f"[{kind}]" if kind else text(part))


def called(call: object) -> tuple[str, str, str, str]:
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


def raw_text(value: Any) -> str:
    """Return arguments as text; a server that sends an object instead of its JSON text is taken as it is."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    import json

    return json.dumps(value, ensure_ascii=False, default=str)
