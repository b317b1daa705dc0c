"""The facts of one API call: :class:`Request`, what was asked; :class:`Reply`, what came back.

Operations (``operations/``) fill them from bodies and chunks; the recorder writes them to the span. Both are
plain values and know nothing of spans.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from openai_lifecycle.texts import encodable

Fields: TypeAlias = Mapping[str, Any]
Attributes: TypeAlias = dict[str, Any]
#: A message, part or tool of the conventions' JSON schemas (``gen-ai-input-messages.json`` and related schemas).
Json: TypeAlias = dict[str, Any]
#: Key that ``requests.py`` adds to a multipart request's body: the names of the form fields that carry files.
FILES = "files"
#: Content attribute → the values sent, and the converter of one of them into the conventions' JSON.
Content: TypeAlias = Mapping[str, tuple[Sequence[Any], Callable[[Any], Json]]]


@dataclass(slots=True)
class Request:
    """What was asked. ``lines`` yields a line of text for each message; it is read only when content is recorded."""

    temperature: int | float | None = None
    messages_count: int = 1
    lines: Iterable[str] = ()
    attributes: Attributes = field(default_factory=dict)


@dataclass(slots=True)
class ToolCall:
    """One tool call that the model asked for; its arguments arrive in fragments.

    The server runs a ``hosted`` tool itself, and waits for the application to run any other. ``has_many_ids`` says that
    its fragments had different ids, of which ``id`` is the latest.
    """

    id: str = ""
    name: str = ""
    kind: str = "function"
    hosted: bool = False
    fragments: list[str] = field(default_factory=list)
    time: int | None = None
    has_many_ids: bool = False

    @property
    def arguments(self) -> str:
        """The JSON text as the model wrote it; ``{}`` when it wrote none."""
        return "".join(self.fragments) or "{}"


@dataclass(slots=True)
class Choice:
    """One choice. ``length`` counts all its text, ``kept`` the characters of ``thoughts`` and ``text``.

    ``thoughts``, ``parts``, ``text`` and ``calls``, a chat's tool calls, are what the span shows of it, in this order.
    ``call_at`` has the latest of the calls at each index of a stream.
    """

    finish_reason: str | None = None
    length: int = 0
    kept: int = 0
    thoughts: list[str] = field(default_factory=list)
    parts: list[Json] = field(default_factory=list)
    text: list[str] = field(default_factory=list)
    calls: list[ToolCall] = field(default_factory=list)
    call_at: dict[int | str, ToolCall] = field(default_factory=dict)

    def keep(self, said: str, limit: int, where: list[str]) -> None:
        """Append ``said`` to ``where``, ``thoughts`` or ``text``, unless ``limit`` characters are kept."""
        if said and self.kept < limit:
            self.kept += len(said)
            where.append(said)


#: How many choices are kept: the API allows 128, and a server may go on for ever.
_MOST_CHOICES: Final = 1024
#: How many characters of a reply's tool calls are kept.
_MOST_OF_CALLS: Final = 8 * 1024 * 1024
#: How many of them a call takes up besides its arguments.
_CALL: Final = 512


@dataclass(slots=True)
class Reply:
    """What came back, folded from one body or many chunks; its size is bounded, however long the stream.

    ``keep_text`` is how many characters of output text are kept for the span, 0 for none; ``room`` is how many more
    characters of tool calls are kept. ``pending`` says whether the server still generates after the call; it is ``None``
    for a reply that cannot be read again later.
    """

    keep_text: int = 0
    id: str | None = None
    model: str | None = None
    choices: dict[int, Choice] = field(default_factory=dict)
    tool_calls: dict[Any, ToolCall] = field(default_factory=dict)
    response_length: int | None = None
    choices_count: int | None = None
    error: tuple[str, str] | None = None
    pending: bool | None = None
    attributes: Attributes = field(default_factory=dict)
    room: int = _MOST_OF_CALLS

    @property
    def ordered_choices(self) -> list[Choice]:
        """The choices in the order of their index."""
        return [self.choices[index] for index in sorted(self.choices)]

    def identify(self, body: Fields) -> None:
        """Take the id and the model of a response, or of a chunk that names them."""
        self.id = text(body.get("id")) or self.id
        self.model = text(body.get("model")) or self.model

    def choice(self, index: int) -> Choice:
        """Return the choice with that index; its first mention creates it."""
        found = self.choices.get(index)
        if found is None:
            found = Choice()
            if len(self.choices) < _MOST_CHOICES:
                self.choices[index] = found
        return found

    def add_call(self, key: Any, call: ToolCall) -> bool:
        """Add a tool call if there is room for it; return whether it was added."""
        if self.room <= _CALL:
            self.room = 0  # none for its arguments either, which a chat would add to the last call's
            return False
        self.room -= _CALL
        self.tool_calls[key] = call
        return True

    def fitting(self, arguments: str) -> str:
        """Return as much of a tool call's arguments as there is room for, which it takes up."""
        kept = arguments[: self.room]
        self.room -= len(kept)
        return kept

    def forget_calls(self) -> None:
        """Forget all tool calls."""
        self.tool_calls, self.room = {}, _MOST_OF_CALLS


@dataclass(frozen=True, slots=True)
class Operation:
    """One row of the operation table: how an endpoint is named and read.

    name:     ``gen_ai.operation.name``
    request:  body → what was asked
    response: reply, body → nothing; folds a whole response into the reply
    chunk:    reply, chunk → nothing; folds one chunk of a stream into the reply
    model:    body → the requested model
    content:  body → the content attributes of the span (messages, instructions, tools), read only when wanted
    generates: False when the call only reads what an earlier one has generated (``generations.py``)
    entries:  False when the call is only a span and nothing goes to ``events.log``: its answer is not what was
        generated, but for example that a job was accepted
    """

    name: str
    request: Callable[[Fields], Request]
    response: Callable[[Reply, Any], None] = lambda *_: None
    chunk: Callable[[Reply, Any], None] = lambda *_: None
    content: Callable[[Fields], Content] = lambda _: {}
    model: Callable[[Fields], str] = lambda body: text(body.get("model"))
    generates: bool = True
    entries: bool = True


# ------------------------------------------------------------------ reading unvalidated bodies
_NO_FIELDS: Fields = {}


def fields(value: object) -> Fields:
    """Return the members of a JSON object or of one of the client's models; empty for anything else.

    Model fields are read from ``__dict__``: a missing one costs nothing there, while pydantic's
    ``__getattr__`` raises. Fields that the client's version does not know are in ``__pydantic_extra__``.
    """
    if value is None:
        return _NO_FIELDS
    if type(value) is dict:  # not isinstance(): most values are models, for which it takes twice as long
        return value
    # The type is checked: an application's object may define ``__getattr__``.
    if hasattr(type(value), "__pydantic_extra__"):
        own: Fields = vars(value)
        extra: Fields | None = getattr(value, "__pydantic_extra__", None)
        return {**extra, **own} if extra else own
    if isinstance(value, Mapping):  # checked last: for a model it costs more than all the rest
        return value
    return getattr(value, "__dict__", _NO_FIELDS)


def members(value: object) -> Fields:
    """Return the :func:`fields` known to the client's version; fast enough for every chunk."""
    own: Fields = value if type(value) is dict else getattr(value, "__dict__", _NO_FIELDS)
    return own


def items(value: object) -> list[Any]:
    """Return ``value`` as a list if it is a list or tuple, else an empty one."""
    return value if isinstance(value, list) else list(value) if isinstance(value, tuple) else []


def text(value: object) -> str:
    """Return ``value`` if it is text, else an empty one."""
    return encodable(value) if isinstance(value, str) else ""


def number(value: object) -> int | float | None:
    """Return ``value`` if it is a float or passes :func:`integer`, else ``None``."""
    return float(value) if isinstance(value, float) else integer(value)


def integer(value: object) -> int | None:
    """Return ``value`` if it is an integer, not a bool, within the 64 bits of an attribute, else ``None``.

    JSON does not tell ``7.0`` from ``7``.
    """
    if type(value) is not int:
        if type(value) is bool or not isinstance(value, (int, float)) or value % 1:
            return None
        value = int(value)
    return value if -(2**63) <= value < 2**63 else None


def double(value: object) -> float | None:
    """Return a number as the double that the conventions ask for."""
    found = number(value)
    return None if found is None else float(found)


def texts(value: object) -> tuple[str, ...] | None:
    """Return a text or a list of texts as a tuple, which is what attributes hold."""
    found = [value] if isinstance(value, str) else [v for v in items(value) if isinstance(v, str)]
    return tuple([encodable(v) for v in found]) or None


#: What an error's code or type looks like; anything else might quote the prompt.
_CODE: Final = re.compile(r"[\w.-]{1,64}")


def failure(error: object) -> tuple[str, str]:
    """Return type and message of an error object; a type that is no code becomes ``_OTHER``.

    So does ``error``, which is the ``type`` of the Responses API's error event (``response_error_event.py``).
    """
    e = fields(error)
    code = text(e.get("code")) or text(e.get("type"))
    return code if _CODE.fullmatch(code) and code != "error" else "_OTHER", text(e.get("message"))


def message(error: BaseException) -> str:
    """Return the message of an exception; empty for one that has none or cannot describe itself."""
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - an application's own exception may raise anything
        return ""


def not_auto(value: object) -> str | None:
    """Return the requested service tier, ``None`` for ``auto``, which is the default."""
    return text(value) if value != "auto" else None


def output_type(value: object) -> str | None:
    """Return ``gen_ai.output.type`` of a response format, ``{"type": "json_schema", …}``."""
    kind = text(fields(value).get("type"))
    return {"json_object": "json", "json_schema": "json"}.get(kind, kind) or None


def effort(value: object) -> str | None:
    """Return the level of reasoning that is asked for, ``{"effort": "high", …}``."""
    return text(fields(value).get("effort")) or None


#: A table of a body's keys: key → attribute, and the reader that returns its value or None.
Table: TypeAlias = Mapping[str, tuple[str, Callable[[object], Any]]]


def pick(body: Fields, table: Table, attributes: Attributes) -> Attributes:
    """Add the keys of ``table`` found in ``body`` to ``attributes``; skip null and ill-typed values."""
    for key in table:
        if key in body and (raw := body[key]) is not None:
            name, read = table[key]
            value = read(raw)
            if value is not None and value != "":
                attributes[name] = value
    return attributes
