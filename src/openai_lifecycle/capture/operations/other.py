"""Calls that are not generations: decisions, and jobs and agents that the server runs after it has answered.

Each is a span with provider, model, status, tokens and error. None writes an entry to ``events.log``: a job's
answer says that it was accepted, not what was generated, and a decision picks among the caller's own options.
"""

from __future__ import annotations

from typing import Any

from openai_lifecycle import semconv
from openai_lifecycle.capture.facts import (
    Fields,
    Operation,
    Reply,
    Request,
    failure,
    fields,
    items,
    pick,
    text,
)
from openai_lifecycle.capture.operations.usage import usage

RUN = {
    "thread_id": (semconv.CONVERSATION_ID, text),
    "assistant_id": (semconv.AGENT_ID, text),
    "agent_id": (semconv.AGENT_ID, text),
    "safety_identifier": (semconv.USER_ID, text),  # of a decision
}


def request(body: Fields) -> Request:
    """Return the facts of a request for a job."""
    return Request(attributes=pick(body, RUN, {}))


def _model(body: Fields) -> str:
    """Return the model; an eval may have it in its data source, a session has it in its agent."""
    holders = (body, fields(body.get("data_source")), fields(body.get("agent")))
    return next(filter(None, (text(holder.get("model")) for holder in holders)), "")


def response(reply: Reply, body: Any) -> None:
    """Fold an answer into ``reply``.

    Shapes: ``openai/types/{decision,video,batch}.py``, ``evals``, ``beta/threads/run.py``, ``beta/agent_session.py``.
    """
    job = fields(body)
    reply.id = text(job.get("id")) or reply.id
    reply.model = _model(job) or reply.model
    pick(job, {"status": (semconv.RESPONSE_STATUS, text), **RUN}, reply.attributes)
    usage(reply, job.get("usage"))
    if job.get("status") == "failed":
        reply.error = _error(job)


def chunk(reply: Reply, event: Any) -> None:
    """Fold one event of a streamed run into ``reply``: ``openai/types/beta/assistant_stream_event.py``.

    The client's event has a name and data; read off the wire, there is only the data.
    """
    e = fields(event)
    run = fields(e.get("data", e))
    if run.get("object") == "thread.run":
        response(reply, run)


def session_chunk(reply: Reply, event: Any) -> None:
    """Fold one event of an agent's session into ``reply``: ``openai/types/beta/agent_session_event.py``."""
    e = fields(event)
    turn, session = fields(e.get("turn")), fields(e.get("session"))
    if turn or session:
        response(reply, {**session, **turn, "id": e.get("session_id") or session.get("id")})


def _error(job: Fields) -> tuple[str, str]:
    """Return code and message of a job's error, which each kind of job keeps in a different place."""
    listed = items(fields(job.get("errors")).get("data"))
    error = job.get("error") or job.get("last_error") or (listed[0] if listed else None)
    return failure(error)


DECISION = Operation("decision", request, response, entries=False)
VIDEO = Operation("video_generation", request, response, entries=False)
BATCH = Operation("batch", request, response, entries=False)
EVALUATION = Operation("evaluation", request, response, model=_model, entries=False)
RUN_OF_THREAD = Operation("invoke_agent", request, response, chunk, entries=False)
AGENT_SESSION = Operation("invoke_agent", request, response, session_chunk, model=_model, entries=False)
