"""Change, redact or drop entries before they are written: the `transform` hook.

    python examples/redact.py

It masks e-mail addresses in prompts and tool arguments, and drops the entries of client constructions.
"""

import dataclasses
import pathlib
import re

import offline_server
import openai

import openai_lifecycle
from openai_lifecycle import LifecycleEvent, LLMGenerationError, LLMGenerationSuccess, ToolCallDetected

ADDRESS = re.compile(r"[\w.+-]+@[\w-]+(\.[\w-]+)+")
REDACTED_LOG = pathlib.Path("redacted.log")


def redact(event: LifecycleEvent) -> LifecycleEvent | None:
    """Return the entry to write, or None to drop it."""
    match event:
        case LLMGenerationSuccess() | LLMGenerationError():
            return dataclasses.replace(event, message_content=ADDRESS.sub("[e-mail]", event.message_content))
        case ToolCallDetected():
            return dataclasses.replace(event, arguments=ADDRESS.sub("[e-mail]", event.arguments))
        case _:
            return None


def main() -> None:
    """Send a prompt with an address in it, and print the log."""
    openai_lifecycle.instrument(events_log=REDACTED_LOG, transform=redact)
    with (
        offline_server.serve() as base_url,
        openai.OpenAI(base_url=base_url, api_key="offline") as client,
    ):
        client.chat.completions.create(
            model="gpt-4.1-mini",
            messages=[{"role": "user", "content": "Write to ada@example.com that I am late."}],
        )
    print(REDACTED_LOG.read_text(encoding="utf-8"), end="")


if __name__ == "__main__":
    main()
