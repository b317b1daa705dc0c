"""Every attribute, event and metric name this package writes, and nothing else.

The GenAI conventions (repository ``semantic-conventions-genai``, version of 2026-08, commit 4a39b6ef) are in
Development and rename things between versions, so the names live here and nowhere else. The constants of
``opentelemetry-semantic-conventions`` mark every ``gen_ai.*`` name as moved and lack several; hence our own.
"""

from typing import Final

SCHEMA_URL: Final = "https://opentelemetry.io/schemas/1.37.0"
SCOPE: Final = "openai_lifecycle"

# ------------------------------------------------------------------ span attributes: the request
OPERATION: Final = "gen_ai.operation.name"
PROVIDER: Final = "gen_ai.provider.name"
REQUEST_MODEL: Final = "gen_ai.request.model"
MAX_TOKENS: Final = "gen_ai.request.max_tokens"
TEMPERATURE: Final = "gen_ai.request.temperature"
TOP_P: Final = "gen_ai.request.top_p"
TOP_K: Final = "gen_ai.request.top_k"
FREQUENCY_PENALTY: Final = "gen_ai.request.frequency_penalty"
PRESENCE_PENALTY: Final = "gen_ai.request.presence_penalty"
STOP_SEQUENCES: Final = "gen_ai.request.stop_sequences"
SEED: Final = "gen_ai.request.seed"
CHOICE_COUNT: Final = "gen_ai.request.choice.count"
STREAM: Final = "gen_ai.request.stream"
ENCODING_FORMATS: Final = "gen_ai.request.encoding_formats"
REASONING_LEVEL: Final = "gen_ai.request.reasoning.level"
PREVIOUS_RESPONSE_ID: Final = "gen_ai.request.previous_response.id"
DIMENSION_COUNT: Final = "gen_ai.embeddings.dimension.count"
OUTPUT_TYPE: Final = "gen_ai.output.type"
AGENT_ID: Final = "gen_ai.agent.id"
CONVERSATION_ID: Final = "gen_ai.conversation.id"
CONVERSATION_COMPACTED: Final = "gen_ai.conversation.compacted"
PROMPT_NAME: Final = "gen_ai.prompt.name"
PROMPT_VERSION: Final = "gen_ai.prompt.version"
SERVER_ADDRESS: Final = "server.address"
SERVER_PORT: Final = "server.port"
OPENAI_API_TYPE: Final = "openai.api.type"
OPENAI_REQUEST_SERVICE_TIER: Final = "openai.request.service_tier"
USER_ID: Final = "user.id"

# ------------------------------------------------------------------ span attributes: the response
RESPONSE_ID: Final = "gen_ai.response.id"
RESPONSE_MODEL: Final = "gen_ai.response.model"
RESPONSE_STATUS: Final = "gen_ai.response.status"
FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
TIME_TO_FIRST_CHUNK: Final = "gen_ai.response.time_to_first_chunk"
INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
CACHE_READ_TOKENS: Final = "gen_ai.usage.cache_read.input_tokens"
CACHE_CREATION_TOKENS: Final = "gen_ai.usage.cache_creation.input_tokens"
REASONING_TOKENS: Final = "gen_ai.usage.reasoning.output_tokens"
OPENAI_RESPONSE_SERVICE_TIER: Final = "openai.response.service_tier"
OPENAI_SYSTEM_FINGERPRINT: Final = "openai.response.system_fingerprint"
ERROR_TYPE: Final = "error.type"
HTTP_STATUS_CODE: Final = "http.response.status_code"

# ------------------------------------------------------------------ content, on the span only when captured
INPUT_MESSAGES: Final = "gen_ai.input.messages"
OUTPUT_MESSAGES: Final = "gen_ai.output.messages"
SYSTEM_INSTRUCTIONS: Final = "gen_ai.system_instructions"
TOOL_DEFINITIONS: Final = "gen_ai.tool.definitions"

# ------------------------------------------------------------------ tool calls
TOOL_NAME: Final = "gen_ai.tool.name"
TOOL_TYPE: Final = "gen_ai.tool.type"
TOOL_CALL_ID: Final = "gen_ai.tool.call.id"
TOOL_CALL_ARGUMENTS: Final = "gen_ai.tool.call.arguments"

# ------------------------------------------------------------------ beyond the conventions
CLIENT: Final = "openai_lifecycle.client"
BASE_URL: Final = "openai_lifecycle.base_url"
CAPABILITIES: Final = "openai_lifecycle.capabilities"
MESSAGES_COUNT: Final = "openai_lifecycle.messages_count"
MESSAGE_CONTENT: Final = "openai_lifecycle.message_content"
RESPONSE_LENGTH: Final = "openai_lifecycle.response_length"
CHOICES_COUNT: Final = "openai_lifecycle.choices_count"
ERROR_MESSAGE: Final = "exception.message"
TOTAL_TOKENS: Final = "openai_lifecycle.usage.total_tokens"
INPUT_AUDIO_TOKENS: Final = "openai_lifecycle.usage.input_audio_tokens"
OUTPUT_AUDIO_TOKENS: Final = "openai_lifecycle.usage.output_audio_tokens"
INPUT_SECONDS: Final = "openai_lifecycle.usage.input_seconds"
REQUEST_ID: Final = "openai_lifecycle.request_id"
PROCESSING_MS: Final = "openai_lifecycle.processing_ms"
REMAINING_REQUESTS: Final = "openai_lifecycle.ratelimit.remaining_requests"
REMAINING_TOKENS: Final = "openai_lifecycle.ratelimit.remaining_tokens"
RETRIES: Final = "openai_lifecycle.retries"
RETRY_DELAY: Final = "openai_lifecycle.retry.delay"

# ------------------------------------------------------------------ span events
INITIALIZATION_START: Final = "LLM_INITIALIZATION_START"
INITIALIZATION_SUCCESS: Final = "LLM_INITIALIZATION_SUCCESS"
INITIALIZATION_ERROR: Final = "LLM_INITIALIZATION_ERROR"
GENERATION_SUCCESS: Final = "LLM_GENERATION_SUCCESS"
GENERATION_ERROR: Final = "LLM_GENERATION_ERROR"
TOOL_CALL_DETECTED: Final = "TOOL_CALL_DETECTED"
RETRY: Final = "openai_lifecycle.retry"

# ------------------------------------------------------------------ metrics
DURATION: Final = "gen_ai.client.operation.duration"
TOKEN_USAGE: Final = "gen_ai.client.token.usage"  # noqa: S105 - a metric's name
TIME_TO_FIRST_CHUNK_METRIC: Final = "gen_ai.client.operation.time_to_first_chunk"
TIME_PER_OUTPUT_CHUNK: Final = "gen_ai.client.operation.time_per_output_chunk"
TOKEN_TYPE: Final = "gen_ai.token.type"  # noqa: S105 - an attribute's name
EVENTS_LOST: Final = "openai_lifecycle.events.lost"

#: Attributes that may hold text written by a person or a model: a redacting Collector has to delete these.
CONTENT_ATTRIBUTES: Final = (
    INPUT_MESSAGES,
    OUTPUT_MESSAGES,
    SYSTEM_INSTRUCTIONS,
    TOOL_DEFINITIONS,
    TOOL_CALL_ARGUMENTS,
    MESSAGE_CONTENT,
    ERROR_MESSAGE,
)
