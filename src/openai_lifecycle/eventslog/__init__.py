"""``events.log``: rendering, writing and reading. Needs no OpenAI client."""
