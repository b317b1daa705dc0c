"""The list of `redaction.yaml` and the package's own; no program is needed to compare them."""

from __future__ import annotations

import re

from openai_lifecycle import semconv

from .harness import CONFIGS


def test_every_content_attribute_is_deleted() -> None:
    """What the package declares as content, `redaction.yaml` deletes, in spans, events and log records alike."""
    text = (CONFIGS / "redaction.yaml").read_text()
    deleted = set(re.findall(r'- delete_key\(attributes, "([^"]+)"\)', text))
    assert set(semconv.CONTENT_ATTRIBUTES) <= deleted
    contexts = re.findall(r"context: (\w+)\n\s+statements: [&*]without_content\n", text)
    assert contexts == ["span", "spanevent", "log"]
