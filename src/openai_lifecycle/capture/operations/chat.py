"""Chat Completions: ``POST /chat/completions``, plain and streamed.

Shapes: ``openai/types/chat/chat_completion.py`` and ``chat_completion_chunk.py``. Compatible servers omit,
null or misnumber nearly every field, so nothing here relies on one.
"""

from __future__ import annotations

import time
from typing import Any, Final

from openai_lifecycle import semconv
from openai_lifecycle.capture import content, messages
from openai_lifecycle.capture.facts import (
    Attributes,
    Choice,
    Content,
    Fields,
    Operation,
    Reply,
    Request,
    ToolCall,
    double,
    effort,
    fields,
    integer,
    items,
    members,
    not_auto,
    number,
    output_type,
    pick,
    text,
    texts,
)
from openai_lifecycle.capture.operations.usage import usage
from openai_lifecycle.capture.tools import chat_call, raw_text
from openai_lifecycle.texts import encodable, parse_json


def _not_one(value: object) -> int | None:
    count = integer(value)
    return None if count == 1 else count


def _more_than_text(modalities: object) -> str | None:
    asked = items(modalities)
    return "speech" if "audio" in asked else "image" if "image" in asked else None


REQUEST = {
    "max_tokens": (semconv.MAX_TOKENS, integer),
    "max_completion_tokens": (semconv.MAX_TOKENS, integer),
    "temperature": (semconv.TEMPERATURE, double),
    "top_p": (semconv.TOP_P, double),
    "top_k": (semconv.TOP_K, integer),  # of compatible servers
    "frequency_penalty": (semconv.FREQUENCY_PENALTY, double),
    "presence_penalty": (semconv.PRESENCE_PENALTY, double),
    "stop": (semconv.STOP_SEQUENCES, texts),
    "seed": (semconv.SEED, integer),
    "n": (semconv.CHOICE_COUNT, _not_one),
    "service_tier": (semconv.OPENAI_REQUEST_SERVICE_TIER, not_auto),
    "reasoning": (semconv.REASONING_LEVEL, effort),  # of OpenRouter
    "reasoning_effort": (semconv.REASONING_LEVEL, text),
    "response_format": (semconv.OUTPUT_TYPE, output_type),
    "modalities": (semconv.OUTPUT_TYPE, _more_than_text),
    "user": (semconv.USER_ID, text),
    "safety_identifier": (semconv.USER_ID, text),
}
RESPONSE = {
    "service_tier": (semconv.OPENAI_RESPONSE_SERVICE_TIER, text),
    "system_fingerprint": (semconv.OPENAI_SYSTEM_FINGERPRINT, text),
}


def request(body: Fields) -> Request:
    """Return the facts of a chat request."""
    attributes: Attributes = {semconv.OPENAI_API_TYPE: "chat_completions"}
    sent = items(body.get("messages"))
    return Request(
        temperature=number(body.get("temperature")),
        messages_count=len(sent),
        lines=content.chat_messages(sent),
        attributes=pick(body, REQUEST, attributes),
    )


def sent_content(body: Fields) -> Content:
    """Return messages and tools for the span."""
    tools = items(body.get("tools")) or [
        {"type": "function", "function": f} for f in items(body.get("functions"))
    ]
    return {
        semconv.INPUT_MESSAGES: (items(body.get("messages")), messages.chat_message),
        semconv.TOOL_DEFINITIONS: (tools, messages.chat_tool),
    }


def response(reply: Reply, body: Any) -> None:
    """Fold a whole chat completion into ``reply``."""
    completion = fields(body)
    head(reply, completion)
    for position, choice in enumerate(items(completion.get("choices"))):
        _choice(reply, choice, position, ("message", "delta"))


def chunk(reply: Reply, part: Any) -> None:
    """Fold one chunk of a streamed chat completion into ``reply``."""
    if not reply.keep_text and type(part) is not dict:
        try:  # fast path: nearly all chunks are only more text of one choice
            completion = part.__dict__
            (only,) = completion["choices"]
            choice = only.__dict__
            delta = choice["delta"].__dict__
            said = delta["content"]
            if (
                type(said) is str
                and delta["tool_calls"] is None
                and delta["function_call"] is None
                and choice["finish_reason"] is None
                and completion["usage"] is None
                and completion["id"] == reply.id
                and completion["model"] == reply.model
            ):
                reply.choices[choice["index"]].length += len(said)
                return
        except (AttributeError, KeyError, TypeError, ValueError):  # a different shape
            pass
    _any_chunk(reply, part)


def _any_chunk(reply: Reply, part: Any) -> None:
    """Fold one chunk of any shape into ``reply``."""
    completion = members(part)
    choices = items(completion.get("choices"))
    same_head = completion.get("id") == reply.id and completion.get("model") == reply.model
    ends = any(members(choice).get("finish_reason") for choice in choices)
    if ends or not same_head or completion.get("usage") is not None:
        head(reply, fields(part))
    for position, choice in enumerate(choices):
        _choice(reply, choice, position, ("delta", "message"))


def head(reply: Reply, completion: Fields) -> None:
    """Fold what a completion or a chunk says besides its choices into ``reply``."""
    reply.identify(completion)
    pick(completion, RESPONSE, reply.attributes)
    counted = completion.get("usage")
    usage(reply, _usage_elsewhere(reply, completion) if counted is None else counted)


def _usage_elsewhere(reply: Reply, completion: Fields) -> object:
    """Return the usage from where Groq and Moonshot put it in a stream whose request has no ``include_usage``."""
    counted = fields(completion.get("x_groq")).get("usage")
    choices = items(completion.get("choices"))
    if counted is None and len(choices) == 1 and len(reply.choices) <= 1:  # of several, each has its own
        counted = fields(choices[0]).get("usage")
    return counted


def _choice(reply: Reply, choice: Any, position: int, where: tuple[str, str]) -> None:
    """Fold one choice into ``reply``; its message is in the first member of ``where``, or else in the second."""
    own = members(choice)
    index = own.get("index")
    if type(index) is not int:
        index = position
    known = reply.choice(index)
    raw, reason = own.get(where[0]), own.get("finish_reason")
    # Some servers stream whole messages. MiniMax's last one repeats all that came before, and is left out.
    if raw is None and not (reason and (known.length or known.calls)):
        raw = fields(choice).get(where[1])
    message = members(raw)
    known.length += len(_content_text(message.get("content")))
    if reply.keep_text:
        _keep(reply, known, fields(raw))
    if message.get("tool_calls") or message.get("function_call"):
        _tool_calls(reply, known, message, in_fragments=where[0] == "delta")
    if type(reason) is str and reason:
        if known.finish_reason is None:
            _complete(known)
        known.finish_reason = encodable(reason)


#: Characters of a tool's name: the API allows 64, and a server may go on for ever.
_LONGEST_NAME: Final = 4096
#: Images that are kept of a choice, if each chunk brings one: a server may go on for ever.
_MOST_IMAGES: Final = 64


def _content_text(said: object) -> str:
    """Return the text of a message's content, which some servers send as a list of parts.

    Asked for JSON, Cloudflare sends the object itself (``response_format``, Workers AI); its JSON text counts.
    """
    if type(said) is str:
        return said
    if isinstance(said, dict):
        return raw_text(said)
    return "".join([text(fields(part).get("text")) for part in items(said)])


def _keep(reply: Reply, choice: Choice, message: Fields) -> None:
    """Keep what the span shows of a message or a fragment of one."""
    limit = reply.keep_text
    for member in ("content", "refusal"):
        if message.get(member):
            choice.keep(encodable(_content_text(message[member])), limit, choice.text)
    choice.keep(messages.thought(message), limit, choice.thoughts)
    for part in items(message.get("content")):
        choice.keep(messages.thinking(fields(part)), limit, choice.thoughts)
    if message.get("audio"):
        audio = fields(message["audio"])
        choice.keep(text(audio.get("transcript")), limit, choice.text)
        if not choice.parts:  # one part stands for a stream's many audio fragments
            choice.parts.append(messages.audio_part(audio))
    if message.get("images") and len(choice.parts) < _MOST_IMAGES:
        choice.parts.extend(messages.images(message))


# ------------------------------------------------------------------ tool calls
# Of a stream's calls, OpenAI gives each an index of its own, and sends its id and name in the first fragment only.
# Other servers were seen to send at one index (id, name and arguments of each fragment, "-" for none):
#
#   a f {"x": | - f 1}                one call: the name in each fragment, of some also the id (MiniMax)
#   a f {"x": | b - 1}                one call: an id of its own in each fragment (vLLM up to 0.8)
#   a f - | b f {"x": | c f 1}        one call: the same, and the name that ``tool_choice`` gave (vLLM up to 0.8)
#   a f {} | b g {}                   two calls, whole (adapters, such as Gemini's)
#   a f - | - - {} | b f - | - - {}   two calls, in pieces
#   - f {} | - f {}                   two calls, whole, without ids or all with the same one (Gemini's endpoint)
#
# Nebius sends a call's last fragment, without id and name, at the next index.
def _tool_calls(reply: Reply, choice: Choice, message: Fields, *, in_fragments: bool) -> None:
    calls = message.get("tool_calls")
    listed = [calls] if isinstance(calls, dict) else items(calls)  # TGI 2 streams a call outside a list
    for position, fragment in enumerate(listed):
        index = members(fragment).get("index") if in_fragments else None
        _fragment(reply, choice, index if type(index) is int else position, fragment)
    if message.get("function_call"):  # deprecated, still sent by older deployments: a call without an id
        _fragment(reply, choice, "function_call", {"function": message["function_call"]})


def _fragment(reply: Reply, choice: Choice, index: int | str, fragment: object) -> None:
    """Add a fragment of a tool call, or a whole one, to the latest call at ``index``, or to a new one."""
    call_id, name, kind, arguments = chat_call(fragment)
    call = choice.call_at.get(index)
    if call is None and choice.calls and not (call_id or name):  # Nebius, see above
        call = choice.calls[-1]
    if call is None or _begins_another(call, call_id, name, arguments):
        call = ToolCall()
        if not reply.add_call(len(reply.tool_calls), call):
            return
        choice.calls.append(call)
        choice.call_at[index] = call
    if call_id and call_id != call.id:
        call.has_many_ids = bool(call.id)
        call.id = call_id
    if name != call.name and len(call.name) < _LONGEST_NAME:  # else the name is repeated, see above
        call.name += name
    call.kind = kind or call.kind
    if arguments and (kept := reply.fitting(arguments)):
        call.fragments.append(kept)


def _begins_another(call: ToolCall, call_id: str, name: str, arguments: str) -> bool:
    """Return whether a fragment at the index of ``call`` begins another call: the rule that fits all rows above."""
    if not (name and call.name):
        return False
    if call_id and call.id and call_id != call.id:
        seems_whole = bool(call.fragments) and call.fragments[-1].rstrip().endswith("}")
        return name != call.name or (seems_whole and not call.has_many_ids)
    # Only after a whole first fragment: otherwise the name is repeated, or comes in pieces itself.
    return bool(arguments) and len(call.fragments) == 1 and isinstance(parse_json(call.fragments[0]), dict)


def _complete(choice: Choice) -> None:
    for call in choice.calls:
        if call.time is None:
            call.time = time.time_ns()


CHAT = Operation("chat", request, response, chunk, sent_content)
