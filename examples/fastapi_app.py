"""An async service with a streaming endpoint.

    python examples/fastapi_app.py
    curl --no-buffer "http://127.0.0.1:8000/chat?question=Why"

It needs `pip install fastapi uvicorn`. If OPENAI_API_KEY is set, it uses OpenAI's server or that of
OPENAI_BASE_URL. If not, it starts the offline server.
"""

import contextlib
import os
import sys
from collections.abc import AsyncIterator

import fastapi
import fastapi.responses
import offline_server
import openai
import uvicorn

import openai_lifecycle

MODEL = os.environ.get("OPENAI_MODEL", "gpt-4.1-mini")


@contextlib.asynccontextmanager
async def lifespan(app: fastapi.FastAPI) -> AsyncIterator[None]:
    """Keep one client, and its connections, for the life of the service."""
    async with openai.AsyncOpenAI() as app.state.client:
        yield


app = fastapi.FastAPI(lifespan=lifespan)


@app.get("/chat")
async def chat(question: str) -> fastapi.responses.StreamingResponse:
    """Stream the model's answer as plain text."""
    try:
        stream = await app.state.client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": question}],
            stream=True,
            stream_options={"include_usage": True},  # without it, no tokens and no cost are known
        )
    except openai.APIStatusError as error:
        raise fastapi.HTTPException(error.status_code, error.message) from error

    async def answer() -> AsyncIterator[str]:
        async with stream:  # closed even when the client disconnects in the middle
            async for chunk in stream:
                for choice in chunk.choices:
                    yield choice.delta.content or ""

    return fastapi.responses.StreamingResponse(answer(), media_type="text/plain")


def main() -> None:
    """Serve on port 8000, or on the port given."""
    openai_lifecycle.instrument()
    with contextlib.ExitStack() as stack:
        if "OPENAI_API_KEY" not in os.environ:
            base_url = stack.enter_context(offline_server.serve())
            os.environ.update(OPENAI_API_KEY="offline", OPENAI_BASE_URL=base_url)
            print(f"OPENAI_API_KEY is not set: using the offline server at {base_url}", flush=True)
        uvicorn.run(app, port=int(sys.argv[1]) if len(sys.argv) > 1 else 8000)


if __name__ == "__main__":
    main()
