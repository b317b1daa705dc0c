"""Inputs that are not messages; embeddings, legacy completions and moderations share their shapes.

An input is a text, a list of token ids, a part like those of a message, or a list of any of these.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from openai_lifecycle import semconv
from openai_lifecycle.capture import content, messages
from openai_lifecycle.capture.facts import FILES, Content, Fields, integer, items

_PLACEHOLDERS = {"image": "[image]", "mask": "[image]", "file": "[audio]"}


def split(value: object) -> list[Any]:
    """Return the list of inputs; a text is one input, and so is a list of token ids."""
    if not isinstance(value, list):
        return [] if value is None else [value]
    return [value] if value and integer(value[0]) is not None else value


def lines(inputs: Iterable[object]) -> Iterator[str]:
    """Yield each input as text: token ids by their count, parts as in a message."""
    for one in inputs:
        if isinstance(one, list):
            yield f"[{len(one)} tokens]"
        else:
            yield from content.parts(one if isinstance(one, str) else [one])


def prompt(body: Fields) -> str:
    """Return the prompt, with a placeholder for each file that is uploaded with it."""
    files = [_PLACEHOLDERS.get(name, "[file]") for name in items(body.get(FILES))]
    return " ".join([*content.parts(body.get("prompt")), *files])


def sent_content(name: str) -> Callable[[Fields], Content]:
    """Return a reader of the texts under ``name`` of a body, for the span; each is a user message."""

    def read(body: Fields) -> Content:
        texts = [one for one in split(body.get(name)) if isinstance(one, str)]
        return {semconv.INPUT_MESSAGES: (texts, messages.response_item)}

    return read
