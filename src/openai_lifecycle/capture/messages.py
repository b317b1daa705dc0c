"""Message content for spans, in the conventions' JSON schemas (``gen-ai-input-messages.json`` and related schemas).

A converter turns one message, item or tool into plain JSON dicts; :func:`as_json` writes as many as fit into
an attribute. Part types are those of the schemas: text, reasoning, tool_call, tool_call_response,
server_tool_call, server_tool_call_response, blob, uri, file, compaction. Any other becomes a generic part
and keeps its type. Unknown optional members are left out. Inline data (images, audio, files) is described by
kind and ``size`` in bytes; a blob's ``content``, which the schema requires, is empty.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from openai_lifecycle.capture.facts import Choice, Fields, Json, ToolCall, fields, items, text
from openai_lifecycle.capture.tools import chat_call, id_of, item_call, output_of, plain, role_of
from openai_lifecycle.redaction import margin, redact_start
from openai_lifecycle.texts import parse_json


# ------------------------------------------------------------------ messages
def chat_message(message: object) -> Json:
    """Return a message of a chat."""
    m = fields(message)
    role, name = text(m.get("role")), text(m.get("name"))
    if role in ("tool", "function"):
        result = _result(text(m.get("tool_call_id")), m.get("content"))
        return _message(role, [result], name)
    said = (*parts(m.get("content")), *images(m), *_spoken(m))
    return _message(role, [*_thoughts(m), *said, *_chat_calls(m)], name)


def response_item(item: object) -> Json:
    """Return an item of the Responses API's ``input``, which may be just a text."""
    if isinstance(item, str):
        return _message("user", list(parts(item)))
    i = fields(item)
    return _message(role_of(i), list(item_parts(i)))


def instruction(given: object) -> Json:
    """Return a system instruction: a part, not a message."""
    return _part("text", content=text(given))


def chat_tool(tool: object) -> Json:
    """Return a tool definition of a chat: only type and name, as the rest is large and not recommended."""
    t = fields(tool)
    kind = text(t.get("type")) or "function"  # Mistral takes it as given
    return _definition(kind, fields(t.get(kind)))


def response_tool(tool: object) -> Json:
    """Return a tool definition of the Responses API."""
    t = fields(tool)
    return _definition(text(t.get("type")), t)


def answer(choice: Choice) -> Json:
    """Return a choice of the model's answer as a message, with its finish reason if it has arrived."""
    answered = [
        *([_part("reasoning", content="".join(choice.thoughts))] if choice.thoughts else []),
        *choice.parts,
        *([_part("text", content="".join(choice.text))] if choice.text else []),
        *map(tool_part, choice.calls),
    ]
    ending = {"finish_reason": choice.finish_reason} if choice.finish_reason else {}
    return {"role": "assistant", **ending, "parts": answered}


def _message(role: str, parts: Sequence[Json], name: str = "") -> Json:
    return {"role": role[:32] or "user", "parts": parts, **({"name": name} if name else {})}


def _definition(kind: str, tool: Fields) -> Json:
    name = text(tool.get("name")) or text(tool.get("server_label"))
    return {"type": kind or "function", "name": name or kind}


# ------------------------------------------------------------------ parts
def parts(content: object) -> Iterator[Json]:
    """Yield the parts of a message's content."""
    if isinstance(content, str):
        yield _part("text", content=content)
    for part in items(content):
        p = fields(part)
        kind = text(p.get("type"))
        if isinstance(part, str):
            yield _part("text", content=part)
        elif kind in _MEDIA:
            yield _MEDIA[kind](p)
        elif kind == "thinking" or "summary" in p:
            yield _part("reasoning", content=thinking(p))
        elif isinstance(p.get("text"), str):
            yield _part("reasoning" if kind in _REASONING else "text", content=p["text"])
        elif isinstance(p.get("refusal"), str):
            yield _part("text", content=p["refusal"])
        else:
            yield _part(kind[:64] or "generic")


def item_parts(item: object) -> Iterator[Json]:
    """Yield the message parts of an item of the Responses API, sent or received."""
    i = fields(item)
    kind = text(i.get("type"))
    call = item_call(i)
    if call is not None:
        yield tool_part(call)
        yield from _hosted_result(i, call)
    elif kind.endswith("_output"):
        yield _result(id_of(i), output_of(i))
    elif kind == "reasoning":
        for thought in (*items(i.get("summary")), *items(i.get("content"))):
            yield _part("reasoning", content=text(fields(thought).get("text")))
    elif i.get("content") is not None or (i.get("role") and kind in ("message", "")):
        yield from parts(i.get("content"))
    else:  # an item that the client does not know has content and role there too, both null
        yield _part(kind[:64] or "generic", id=text(i.get("id")))


def tool_part(call: ToolCall) -> Json:
    """Return a tool call; its arguments are an object if the model wrote one."""
    arguments = parse_json(call.arguments, default=call.arguments)
    if call.hosted:
        asked = arguments if isinstance(arguments, dict) else {"arguments": arguments}
        details = {"type": call.kind, **{name: asked[name] for name in asked if name != "type"}}
        return _part("server_tool_call", id=call.id, name=call.name, server_tool_call=details)
    return _part("tool_call", id=call.id, name=call.name, arguments=arguments)


def audio_part(audio: object) -> Json:
    """Return a chat message's audio: its size, or the id of earlier audio."""
    a = fields(audio)
    data, audio_id = a.get("data"), text(a.get("id"))
    return (
        _blob("audio", data) if isinstance(data, str) else _part("file", modality="audio", file_id=audio_id)
    )


def images(message: Fields) -> Iterator[Json]:
    """Yield the images of a chat message that are beside its content, which is where OpenRouter has them."""
    for image in items(message.get("images")):
        yield _MEDIA["image_url"](fields(image))


def _thoughts(message: Fields) -> Iterator[Json]:
    said = thought(message)
    if said:
        yield _part("reasoning", content=said)


def thought(message: Fields) -> str:
    """Return the thoughts in a chat message, of which OpenAI's own API sends none.

    ``reasoning_content`` is DeepSeek's name; vLLM, Groq, OpenRouter and Ollama say ``reasoning``, some of them both.
    """
    return text(message.get("reasoning_content")) or text(message.get("reasoning"))


def thinking(part: Fields) -> str:
    """Return the thoughts in a part of a message's content.

    They are a text, as Anthropic has it, or parts, as Mistral does; Databricks calls these parts their summary.
    """
    said = part.get("thinking", part.get("summary"))
    return text(said) or "".join([text(fields(one).get("text")) for one in items(said)])


def _spoken(message: Fields) -> Iterator[Json]:
    audio = fields(message.get("audio"))
    for said in (message.get("refusal"), audio.get("transcript")):
        if isinstance(said, str):
            yield _part("text", content=said)
    if audio:
        yield audio_part(audio)


def _chat_calls(message: Fields) -> Iterator[Json]:
    calls = [*items(message.get("tool_calls"))]
    if message.get("function_call"):
        calls.append({"function": message["function_call"]})
    for call in calls:
        call_id, name, kind, arguments = chat_call(call)
        yield tool_part(ToolCall(id=call_id, name=name, kind=kind, fragments=[arguments]))


def _result(call_id: str, result: object) -> Json:
    shown = result if isinstance(result, str) else list(parts(result))
    return _part("tool_call_response", id=call_id, response=shown)


#: Members of a hosted tool's call that hold its result.
_RESULTS: Final = ("output", "outputs", "results", "error")


def _hosted_result(item: Fields, call: ToolCall) -> Iterator[Json]:
    found = {name: plain(item[name]) for name in _RESULTS if item.get(name) is not None}
    image = item.get("result")
    if isinstance(image, str):
        found["image"] = _blob("image", image)
    if found:
        details = {"type": call.kind, **found}
        yield _part("server_tool_call_response", id=call.id, server_tool_call_response=details)


def _part(kind: str, **members: Any) -> Json:
    return {"type": kind, **{k: v for k, v in members.items() if v is not None and (v != "" or k != "id")}}


# ------------------------------------------------------------------ images, audio, files
def _blob(modality: str, data: str, mime_type: str | None = None, **members: Any) -> Json:
    head, comma, _ = data[:256].partition(",")
    if comma and head.startswith("data:"):
        mime_type, length = head[5:].partition(";")[0] or mime_type, len(data) - len(head) - 1
    else:
        length = len(data)
    size = length * 3 // 4 or None  # unknown if ``sockets.py`` has kept only the type
    return _part("blob", mime_type=mime_type, modality=modality, content="", size=size, **members)


def _media(modality: str, *, url: object = None, data: object = None, file_id: object = None) -> Json:
    if isinstance(url, str) and not url.startswith("data:"):
        return _part("uri", modality=modality, uri=url)
    inline = url if isinstance(url, str) else data
    if isinstance(inline, str):
        return _blob(modality, inline)
    return _part("file", modality=modality, file_id=text(file_id))


def _linked(modality: str) -> Callable[[Fields], Json]:
    """Return the reader of a part such as ``{"type": "image_url", "image_url": {"url": …}}``."""

    def read(part: Fields) -> Json:
        link = part.get(f"{modality}_url")
        return _media(modality, url=fields(link).get("url", link), file_id=part.get("file_id"))

    return read


def _audio(part: Fields) -> Json:
    audio = fields(part.get("input_audio"))
    kind = text(audio.get("format"))
    return _blob("audio", text(audio.get("data")), f"audio/{kind}" if kind else None)


def _file(part: Fields) -> Json:
    file = fields(part.get("file")) or part
    return _media(
        "document", url=file.get("file_url"), data=file.get("file_data"), file_id=file.get("file_id")
    )


_MEDIA: Final[Mapping[str, Callable[[Fields], Json]]] = {
    "image_url": _linked("image"),
    "input_image": _linked("image"),
    "computer_screenshot": _linked("image"),
    "video_url": _linked("video"),  # of vLLM and OpenRouter
    "audio_url": _linked("audio"),  # of vLLM
    "input_audio": _audio,
    "file": _file,
    "input_file": _file,
}
_REASONING: Final = ("reasoning_text", "summary_text")

# ------------------------------------------------------------------ writing, within bounds
#: A message needs at least this many characters of room: a shorter fragment says nothing.
_LEAST: Final = 64
_DEEPEST: Final = 24


def as_json(
    values: Sequence[Any], convert: Callable[[Any], Json], limit: int, secrets: Iterable[str] = ()
) -> str:
    """Return the converted ``values`` as a JSON array of at most ``limit`` characters.

    Long texts are cut and say how much is missing: ``… [+N chars]``. Of too many values we keep the first,
    which set up the conversation, and as many of the last as fit, which are what this call was about. Only kept
    values are converted. Credentials are replaced.
    """
    writer = _Writer(secrets)
    count = len(values)
    room = max(limit - 2, 0)
    head = writer.write(convert(values[0]), room if count == 1 else room // 2)
    room -= len(head)
    tail: list[str] = []
    for index in range(count - 1, 0, -1):
        if room < _LEAST:
            break
        tail.append(writer.write(convert(values[index]), room - 1))
        room -= len(tail[-1]) + 1
    return f"[{','.join(filter(None, [head, *reversed(tail)]))}]"


class _Writer:
    """Writes JSON of bounded length, which is valid whatever is cut."""

    def __init__(self, secrets: Iterable[str]) -> None:
        self._secrets = tuple(secrets)
        self._margin = margin(self._secrets)

    def write(self, value: Any, room: int, depth: int = 0) -> str:
        """Return the JSON of ``value`` in at most ``room`` characters, or nothing if it does not fit."""
        if isinstance(value, str):
            return self._text(value, room)
        if depth > _DEEPEST:
            return self._text("…", room)
        if isinstance(value, Mapping):
            members = ((self._text(str(name), room) + ":", inner) for name, inner in value.items())
            return self._joined("{}", members, room, depth)
        if isinstance(value, (list, tuple)):
            return self._joined("[]", (("", inner) for inner in value), room, depth)
        if value is None or isinstance(value, int):
            written = json.dumps(value)
        elif isinstance(value, float):
            written = json.dumps(value) if math.isfinite(value) else "null"
        else:
            return self._text(str(value), room)
        return written if len(written) <= room else ""

    def _joined(self, brackets: str, members: Iterable[tuple[str, Any]], room: int, depth: int) -> str:
        room -= 2
        if room < 0:
            return ""
        written: list[str] = []
        for name, value in members:  # a name that does not fit is only ":"
            inner = self.write(value, room - len(name) - bool(written), depth + 1) if name != ":" else ""
            if not inner:
                break
            written.append(name + inner)
            room -= len(name) + len(inner) + (len(written) > 1)
        return brackets[0] + ",".join(written) + brackets[1]

    def _text(self, value: str, room: int) -> str:
        shown = redact_start(value, room, self._margin, self._secrets)
        quoted = _quoted(shown)
        if len(quoted) <= room and len(value) <= room + self._margin:
            return quoted
        missing = f"… [+{len(value)} chars]"  # the final number, still unknown, is no longer than this
        keep = room - 2 - len(missing)
        if keep <= 0:
            return ""
        while len(quoted) - 2 > keep:
            shown = shown[: min(len(shown) - 1, len(shown) * keep // (len(quoted) - 2))]
            quoted = _quoted(shown)
        return f'{quoted[:-1]}… [+{max(len(value) - len(shown), 1)} chars]"'


def _quoted(value: str) -> str:
    quoted = json.dumps(value, ensure_ascii=False)
    # A lone surrogate is legal in JSON but not in the UTF-8 that exporters write.
    return quoted if quoted.isascii() else quoted.encode("utf-8", "replace").decode()
