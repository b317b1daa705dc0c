"""Produces every type of lifecycle event in one run, and one `events.log` with all of them.

    python examples/quickstart.py

If OPENAI_API_KEY is set, it uses OpenAI's server or that of OPENAI_BASE_URL. If not, it starts the offline server of
this folder. OPENAI_MODEL names the model. `opentelemetry-instrument python examples/quickstart.py` does the same.
"""

import collections
import json
import os
import pathlib
import sys

import offline_server
import openai

import openai_lifecycle

MODEL = os.environ.get("OPENAI_MODEL", "gpt-4.1-mini")
EVENTS_LOG = os.environ.get("OTEL_PYTHON_OPENAI_LIFECYCLE_EVENTS_LOG", "events.log")
WEATHER_TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Tell the weather in a place.",
        "parameters": {
            "type": "object",
            "properties": {"location": {"type": "string", "description": "A city"}},
            "required": ["location"],
        },
    },
}


def main() -> None:
    """Instrument, choose the server, run the six steps, and summarize the log."""
    openai_lifecycle.instrument(model=MODEL)
    # Removed from the environment, so that the last step finds no credentials.
    api_key = os.environ.pop("OPENAI_API_KEY", None)
    os.environ.pop("OPENAI_ADMIN_KEY", None)
    try:
        if api_key:
            run(api_key, base_url=None)
        else:
            print("OPENAI_API_KEY is not set: using the offline server, which only repeats what it is asked.")
            with offline_server.serve() as base_url:
                run("offline", base_url)
    except openai.OpenAIError as error:
        print(f"Stopped by {type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(1)
    finally:
        summarize(pathlib.Path(EVENTS_LOG).resolve())


def run(api_key: str, base_url: str | None) -> None:
    """Do the six steps."""
    print("[1/6] Creating a client")
    with openai.OpenAI(api_key=api_key, base_url=base_url) as client:
        print(f"      {MODEL} at {client.base_url}")
        print("[2/6] Asking a question")
        ask(client)
        print("[3/6] Asking for a streamed answer")
        stream(client)
        print("[4/6] Asking with a tool")
        use_a_tool(client)
        print("[5/6] Asking a model that does not exist")
        try:
            client.chat.completions.create(
                model="no-such-model", messages=[{"role": "user", "content": "Is anybody there?"}]
            )
        except openai.APIStatusError as error:
            print(f"      {type(error).__name__}: {error}")
    print("[6/6] Creating a client without credentials")
    try:
        openai.OpenAI()
    except openai.OpenAIError as error:
        print(f"      {type(error).__name__}: {str(error).partition('.')[0]}.")


def ask(client: openai.OpenAI) -> None:
    """Print an answer and its token usage."""
    reply = client.chat.completions.create(
        model=MODEL,
        temperature=0.7,
        messages=[
            {"role": "system", "content": "Answer in one sentence."},
            {"role": "user", "content": "What is an audit log good for?"},
        ],
    )
    print(f"      {reply.choices[0].message.content}")
    print(f"      tokens: {reply.usage.prompt_tokens} in, {reply.usage.completion_tokens} out")


def stream(client: openai.OpenAI) -> None:
    """Print an answer as it arrives."""
    chunks = client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "Count from one to five."}],
        stream=True,
        stream_options={"include_usage": True},
    )
    print("      ", end="")
    for chunk in chunks:
        for choice in chunk.choices:
            print(choice.delta.content or "", end="", flush=True)
    print()


def use_a_tool(client: openai.OpenAI) -> None:
    """Run the tools that the model calls, and print its answer to their results."""
    messages = [{"role": "user", "content": "What is the weather in Reykjavik?"}]
    reply = client.chat.completions.create(model=MODEL, messages=messages, tools=[WEATHER_TOOL])
    message = reply.choices[0].message
    messages.append(message)
    for call in message.tool_calls or []:
        print(f"      the model calls {call.function.name}({call.function.arguments})")
        result = get_weather(**json.loads(call.function.arguments))
        messages.append({"role": "tool", "tool_call_id": call.id, "content": result})
    reply = client.chat.completions.create(model=MODEL, messages=messages, tools=[WEATHER_TOOL])
    print(f"      {reply.choices[0].message.content}")


def get_weather(location: str) -> str:
    """Return the weather: the tool that the model calls."""
    return f"4 degrees and windy in {location}"


def summarize(path: pathlib.Path) -> None:
    """Count the log's entries by type, including those of earlier runs."""
    if not path.is_file():
        print("No events.log was written.")
        return
    counts = collections.Counter(event.event_type for event in openai_lifecycle.read_events(path))
    print(f"{path} holds {counts.total()} entries:")
    for event_type, count in counts.items():
        print(f"{count:5} {event_type}")


if __name__ == "__main__":
    main()
