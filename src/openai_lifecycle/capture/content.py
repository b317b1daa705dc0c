"""Message content as one line of text, for ``message_content``.

Chat and responses share the shape of a message: ``{"role", "content"}``, where content is a text or a list of
parts. Images, audio and files appear by kind, never by value. The conventions' JSON is in ``messages.py``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from openai_lifecycle.capture.facts import Fields, fields, items, text
from openai_lifecycle.capture.tools import chat_call, id_of, item_call, output_of, role_of
from openai_lifecycle.redaction import margin, redact_start
from openai_lifecycle.texts import shortened

_PLACEHOLDERS: Final = {
    "image_url": "[image]",
    "input_image": "[image]",
    "image": "[image]",
    "input_audio": "[audio]",
    "audio": "[audio]",
    "audio_url": "[audio]",  # of vLLM, as are videos
    "video_url": "[video]",
    "file": "[file]",
    "input_file": "[file]",
    "computer_screenshot": "[image]",
}


def one_line(pieces: Iterable[str], limit: int, secrets: tuple[str, ...]) -> str:
    """Join ``pieces`` with `` | ``, redact, cut after ``limit`` characters and say how many are missing."""
    if limit <= 0:
        return ""
    kept: list[str] = []
    more = margin(secrets)
    room, total = limit + more + 1, 0  # one more tells that the text is longer
    for piece in pieces:
        separated = f" | {piece}" if total else piece
        total += len(separated)
        if room > 0:
            kept.append(separated[:room])
            room -= len(separated)
    return shortened(redact_start("".join(kept), limit, more, secrets), limit, total)


def chat_messages(messages: object) -> Iterator[str]:
    """Yield each message of a chat as ``role: text``."""
    for message in items(messages):
        m = fields(message)
        role, said = m.get("role"), m.get("content")
        if len(m) > 2 or role is None or role == "tool" or type(said) is not str:
            said = " ".join(_said(m))  # more than a role and a text
        yield f"{text(role)}: {said}"


def _said(message: Fields) -> Iterator[str]:
    if message.get("role") == "tool":
        yield f"[tool_result {text(message.get('tool_call_id'))}]"
    yield from parts(message.get("content"))
    for _ in items(message.get("images")):  # OpenRouter has them beside the content
        yield "[image]"
    if isinstance(message.get("refusal"), str):
        yield message["refusal"]
    for call in items(message.get("tool_calls")):
        yield f"[tool_call {chat_call(call)[1]}]"
    if message.get("function_call"):
        yield f"[tool_call {text(fields(message['function_call']).get('name'))}]"
    if message.get("audio"):
        yield "[audio]"


def response_items(sent: object) -> Iterator[str]:
    """Yield each item of the Responses API's ``input`` as ``role: text``; a bare text is the user's."""
    if isinstance(sent, str):
        yield f"user: {sent}"
    for item in items(sent):
        i = fields(item)
        kind = text(i.get("type"))
        call = item_call(i)
        if call is not None:
            yield f"assistant: [tool_call {call.name}]"
        elif kind.endswith("_output"):
            result = " ".join(parts(output_of(i)))
            yield f"tool: [tool_result {id_of(i)}] {result}".rstrip()
        elif "content" in i and kind != "reasoning":
            yield f"{role_of(i)}: {' '.join(parts(i['content']))}"
        else:
            yield f"[{kind or 'item'}]"


def parts(content: object) -> Iterator[str]:
    """Yield each part of a message's content: text as it is, everything else by its kind."""
    if isinstance(content, str):
        yield content
    for part in items(content):
        p = fields(part)
        kind = text(p.get("type"))
        said = p.get("text", p.get("refusal"))
        yield said if isinstance(said, str) else _PLACEHOLDERS.get(kind, f"[{kind}]" if kind else text(part))
