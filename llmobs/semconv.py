"""Every name that crosses the wire: attributes, events, metrics, and the values of their enums.

The GenAI conventions as of ``open-telemetry/semantic-conventions-genai`` main of about
2026-10-09 (all at stability *development*), core's ``session.*``, ``user.*``, ``service.*``,
and the names of our own, all below ``llmobs.``. Names that producers used before are not
here: ``analyzer.normalize`` maps them.
"""

from __future__ import annotations

from typing import Final

VERSION: Final = "1.42.0-dev+2026-10-09"
SCHEMA_URL: Final = "https://opentelemetry.io/schemas/gen-ai-dev/1.42.0-dev"

# Attributes of the conventions.
ERROR_MESSAGE: Final = "error.message"
ERROR_TYPE: Final = "error.type"
EXCEPTION_MESSAGE: Final = "exception.message"
EXCEPTION_STACKTRACE: Final = "exception.stacktrace"
EXCEPTION_TYPE: Final = "exception.type"
GEN_AI_AGENT_DESCRIPTION: Final = "gen_ai.agent.description"
GEN_AI_AGENT_ID: Final = "gen_ai.agent.id"
GEN_AI_AGENT_NAME: Final = "gen_ai.agent.name"
GEN_AI_AGENT_VERSION: Final = "gen_ai.agent.version"
GEN_AI_CONVERSATION_COMPACTED: Final = "gen_ai.conversation.compacted"
GEN_AI_CONVERSATION_ID: Final = "gen_ai.conversation.id"
GEN_AI_DATA_SOURCE_ID: Final = "gen_ai.data_source.id"
GEN_AI_EMBEDDINGS_DIMENSION_COUNT: Final = "gen_ai.embeddings.dimension.count"
GEN_AI_EVALUATION_EXPLANATION: Final = "gen_ai.evaluation.explanation"
GEN_AI_EVALUATION_NAME: Final = "gen_ai.evaluation.name"
GEN_AI_EVALUATION_SCORE_LABEL: Final = "gen_ai.evaluation.score.label"
GEN_AI_EVALUATION_SCORE_VALUE: Final = "gen_ai.evaluation.score.value"
GEN_AI_INPUT_MESSAGES: Final = "gen_ai.input.messages"
GEN_AI_MAIN_AGENT_DESCRIPTION: Final = "gen_ai.main_agent.description"
GEN_AI_MAIN_AGENT_ID: Final = "gen_ai.main_agent.id"
GEN_AI_MAIN_AGENT_NAME: Final = "gen_ai.main_agent.name"
GEN_AI_OPERATION_NAME: Final = "gen_ai.operation.name"
GEN_AI_OUTPUT_MESSAGES: Final = "gen_ai.output.messages"
GEN_AI_OUTPUT_TYPE: Final = "gen_ai.output.type"
GEN_AI_PROMPT_NAME: Final = "gen_ai.prompt.name"
GEN_AI_PROMPT_VARIABLE: Final = "gen_ai.prompt.variable"
GEN_AI_PROMPT_VERSION: Final = "gen_ai.prompt.version"
GEN_AI_PROVIDER_NAME: Final = "gen_ai.provider.name"
GEN_AI_REQUEST_CHOICE_COUNT: Final = "gen_ai.request.choice.count"
GEN_AI_REQUEST_ENCODING_FORMATS: Final = "gen_ai.request.encoding_formats"
GEN_AI_REQUEST_FREQUENCY_PENALTY: Final = "gen_ai.request.frequency_penalty"
GEN_AI_REQUEST_MAX_TOKENS: Final = "gen_ai.request.max_tokens"
GEN_AI_REQUEST_MODEL: Final = "gen_ai.request.model"
GEN_AI_REQUEST_PRESENCE_PENALTY: Final = "gen_ai.request.presence_penalty"
GEN_AI_REQUEST_PREVIOUS_RESPONSE_ID: Final = "gen_ai.request.previous_response.id"
GEN_AI_REQUEST_REASONING_LEVEL: Final = "gen_ai.request.reasoning.level"
GEN_AI_REQUEST_SEED: Final = "gen_ai.request.seed"
GEN_AI_REQUEST_STOP_SEQUENCES: Final = "gen_ai.request.stop_sequences"
GEN_AI_REQUEST_STREAM: Final = "gen_ai.request.stream"
GEN_AI_REQUEST_STREAM_CURSOR: Final = "gen_ai.request.stream_cursor"
GEN_AI_REQUEST_TEMPERATURE: Final = "gen_ai.request.temperature"
GEN_AI_REQUEST_TOP_K: Final = "gen_ai.request.top_k"
GEN_AI_REQUEST_TOP_P: Final = "gen_ai.request.top_p"
GEN_AI_RESPONSE_FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
GEN_AI_RESPONSE_ID: Final = "gen_ai.response.id"
GEN_AI_RESPONSE_MODEL: Final = "gen_ai.response.model"
GEN_AI_RESPONSE_STATUS: Final = "gen_ai.response.status"
GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK: Final = "gen_ai.response.time_to_first_chunk"
GEN_AI_RETRIEVAL_DOCUMENTS: Final = "gen_ai.retrieval.documents"
GEN_AI_RETRIEVAL_QUERY_TEXT: Final = "gen_ai.retrieval.query.text"
GEN_AI_RETRIEVAL_TOP_K: Final = "gen_ai.retrieval.top_k"
GEN_AI_SKILL_DESCRIPTION: Final = "gen_ai.skill.description"
GEN_AI_SKILL_NAME: Final = "gen_ai.skill.name"
GEN_AI_SKILL_RESOURCE_NAME: Final = "gen_ai.skill.resource.name"
GEN_AI_SKILL_SOURCE_URI: Final = "gen_ai.skill.source.uri"
GEN_AI_SYSTEM_INSTRUCTIONS: Final = "gen_ai.system_instructions"
GEN_AI_TOKEN_MODALITY: Final = "gen_ai.token.modality"
GEN_AI_TOKEN_TYPE: Final = "gen_ai.token.type"  # on the superseded metric only
GEN_AI_TOOL_CALL_ARGUMENTS: Final = "gen_ai.tool.call.arguments"
GEN_AI_TOOL_CALL_ID: Final = "gen_ai.tool.call.id"
GEN_AI_TOOL_CALL_RESULT: Final = "gen_ai.tool.call.result"
GEN_AI_TOOL_DEFINITIONS: Final = "gen_ai.tool.definitions"
GEN_AI_TOOL_DESCRIPTION: Final = "gen_ai.tool.description"
GEN_AI_TOOL_NAME: Final = "gen_ai.tool.name"
GEN_AI_TOOL_TYPE: Final = "gen_ai.tool.type"
GEN_AI_USAGE_AUDIO_CACHE_READ_INPUT_TOKENS: Final = "gen_ai.usage.audio.cache_read.input_tokens"
GEN_AI_USAGE_AUDIO_INPUT_TOKENS: Final = "gen_ai.usage.audio.input_tokens"
GEN_AI_USAGE_AUDIO_OUTPUT_TOKENS: Final = "gen_ai.usage.audio.output_tokens"
GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS: Final = "gen_ai.usage.cache_read.input_tokens"
GEN_AI_USAGE_CACHE_WRITE_INPUT_TOKENS: Final = "gen_ai.usage.cache_write.input_tokens"
GEN_AI_USAGE_IMAGE_CACHE_READ_INPUT_TOKENS: Final = "gen_ai.usage.image.cache_read.input_tokens"
GEN_AI_USAGE_IMAGE_INPUT_TOKENS: Final = "gen_ai.usage.image.input_tokens"
GEN_AI_USAGE_IMAGE_OUTPUT_TOKENS: Final = "gen_ai.usage.image.output_tokens"
GEN_AI_USAGE_INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
GEN_AI_USAGE_OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
GEN_AI_USAGE_REASONING_OUTPUT_TOKENS: Final = "gen_ai.usage.reasoning.output_tokens"
GEN_AI_USAGE_TEXT_CACHE_READ_INPUT_TOKENS: Final = "gen_ai.usage.text.cache_read.input_tokens"
GEN_AI_USAGE_TEXT_INPUT_TOKENS: Final = "gen_ai.usage.text.input_tokens"
GEN_AI_USAGE_TEXT_OUTPUT_TOKENS: Final = "gen_ai.usage.text.output_tokens"
GEN_AI_WORKFLOW_NAME: Final = "gen_ai.workflow.name"
MCP_METHOD_NAME: Final = "mcp.method.name"
MCP_PROTOCOL_VERSION: Final = "mcp.protocol.version"
MCP_RESOURCE_URI: Final = "mcp.resource.uri"
MCP_SESSION_ID: Final = "mcp.session.id"
OPENAI_API_TYPE: Final = "openai.api.type"
OPENAI_REQUEST_SERVICE_TIER: Final = "openai.request.service_tier"
OPENAI_RESPONSE_SERVICE_TIER: Final = "openai.response.service_tier"
OPENAI_RESPONSE_SYSTEM_FINGERPRINT: Final = "openai.response.system_fingerprint"
SERVER_ADDRESS: Final = "server.address"
SERVER_PORT: Final = "server.port"
SERVICE_INSTANCE_ID: Final = "service.instance.id"
SERVICE_NAME: Final = "service.name"
SERVICE_NAMESPACE: Final = "service.namespace"
SERVICE_VERSION: Final = "service.version"
SESSION_ID: Final = "session.id"
USER_ID: Final = "user.id"
DEPLOYMENT_ENVIRONMENT_NAME: Final = "deployment.environment.name"

# Attributes of our own.
LLMOBS_FEATURE: Final = "llmobs.feature"
"""The part of the app that calls; the *route* of a drift monitor. A few dozen values at most."""
LLMOBS_COST_USD: Final = "llmobs.cost_usd"
LLMOBS_CONTENT: Final = "llmobs.content"
"""How much content was captured: ``off``, ``metadata``, ``redacted`` or ``full``."""
LLMOBS_CONTENT_TRUNCATED: Final = "llmobs.content.truncated"
LLMOBS_INPUT_CHARACTERS: Final = "llmobs.input.characters"
"""Length of the input's text; sent in place of the text when content is ``metadata``."""
LLMOBS_OUTPUT_CHARACTERS: Final = "llmobs.output.characters"
LLMOBS_SEQUENCE: Final = "llmobs.sequence"
"""Number of the span within its process, from 0; gaps are spans that were lost."""
LLMOBS_PROCESS_ID: Final = "llmobs.process.id"
"""Random, one per process, another after a fork: the stream that `LLMOBS_SEQUENCE` counts in."""
LLMOBS_KIND: Final = "llmobs.kind"
"""``rerank`` or ``batch``: calls that the conventions have no operation of their own for."""
LLMOBS_BATCH_SIZE: Final = "llmobs.batch.size"
"""Results of a batch that one span stands for; its usage is their sum."""
LLMOBS_ATTEMPTS: Final = "llmobs.attempts"
"""Tries that one call took: the client's own, or those that the application counted."""
LLMOBS_USAGE_ESTIMATED: Final = "llmobs.usage.estimated"
LLMOBS_FEEDBACK_SOURCE: Final = "llmobs.feedback.source"
LLMOBS_EVALUATION_VERSION: Final = "llmobs.evaluation.version"
LLMOBS_EVALUATION_TARGET: Final = "llmobs.evaluation.target"
LLMOBS_EVALUATION_SOURCE: Final = "llmobs.evaluation.source"
EVALUATION_SOURCE_ANALYZER: Final = "analyzer"
"""Value of `LLMOBS_EVALUATION_SOURCE`: the analyzer's own score, stored before it was sent."""

# Events (log records; the name is in the record's event_name).
EVENT_GEN_AI_CLIENT_INFERENCE_OPERATION_DETAILS: Final = "gen_ai.client.inference.operation.details"
EVENT_GEN_AI_EVALUATION_RESULT: Final = "gen_ai.evaluation.result"
EVENT_GEN_AI_CLIENT_OPERATION_EXCEPTION: Final = "gen_ai.client.operation.exception"

# Metrics of the conventions.
METRIC_GEN_AI_CLIENT_OPERATION_DURATION: Final = "gen_ai.client.operation.duration"
METRIC_GEN_AI_CLIENT_INFERENCE_DURATION: Final = "gen_ai.client.inference.duration"
METRIC_GEN_AI_CLIENT_INFERENCE_TIME_TO_FIRST_CHUNK: Final = (
    "gen_ai.client.inference.time_to_first_chunk"
)
METRIC_GEN_AI_CLIENT_INFERENCE_TIME_PER_OUTPUT_CHUNK: Final = (
    "gen_ai.client.inference.time_per_output_chunk"
)
METRIC_GEN_AI_SERVER_REQUEST_DURATION: Final = "gen_ai.server.request.duration"
METRIC_GEN_AI_SERVER_TIME_PER_OUTPUT_TOKEN: Final = "gen_ai.server.time_per_output_token"
METRIC_GEN_AI_SERVER_TIME_TO_FIRST_TOKEN: Final = "gen_ai.server.time_to_first_token"
METRIC_GEN_AI_INVOKE_WORKFLOW_DURATION: Final = "gen_ai.invoke_workflow.duration"
METRIC_GEN_AI_INVOKE_AGENT_DURATION: Final = "gen_ai.invoke_agent.duration"
METRIC_GEN_AI_INVOKE_AGENT_INFERENCE_CALLS: Final = "gen_ai.invoke_agent.inference_calls"
METRIC_GEN_AI_INVOKE_AGENT_TOOL_CALLS: Final = "gen_ai.invoke_agent.tool_calls"
METRIC_GEN_AI_EXECUTE_TOOL_DURATION: Final = "gen_ai.execute_tool.duration"
METRIC_GEN_AI_CLIENT_INFERENCE_USAGE_INPUT_TOKENS: Final = (
    "gen_ai.client.inference.usage.input_tokens"
)
METRIC_GEN_AI_CLIENT_INFERENCE_USAGE_OUTPUT_TOKENS: Final = (
    "gen_ai.client.inference.usage.output_tokens"
)
METRIC_GEN_AI_CLIENT_INFERENCE_USAGE_CACHE_READ_INPUT_TOKENS: Final = (
    "gen_ai.client.inference.usage.cache_read.input_tokens"
)
METRIC_GEN_AI_CLIENT_INFERENCE_USAGE_CACHE_WRITE_INPUT_TOKENS: Final = (
    "gen_ai.client.inference.usage.cache_write.input_tokens"
)
METRIC_GEN_AI_CLIENT_INFERENCE_USAGE_REASONING_OUTPUT_TOKENS: Final = (
    "gen_ai.client.inference.usage.reasoning.output_tokens"
)
METRIC_GEN_AI_CLIENT_INFERENCE_OPERATION_INPUT_TOKENS: Final = (
    "gen_ai.client.inference.operation.input_tokens"
)
METRIC_GEN_AI_CLIENT_INFERENCE_OPERATION_OUTPUT_TOKENS: Final = (
    "gen_ai.client.inference.operation.output_tokens"
)
METRIC_MCP_CLIENT_OPERATION_DURATION: Final = "mcp.client.operation.duration"
METRIC_MCP_SERVER_OPERATION_DURATION: Final = "mcp.server.operation.duration"
METRIC_MCP_CLIENT_SESSION_DURATION: Final = "mcp.client.session.duration"
METRIC_MCP_SERVER_SESSION_DURATION: Final = "mcp.server.session.duration"

# Metrics that the conventions have superseded; producers still send them.
METRIC_GEN_AI_CLIENT_TOKEN_USAGE: Final = "gen_ai.client.token.usage"
METRIC_GEN_AI_CLIENT_OPERATION_TIME_TO_FIRST_CHUNK: Final = (
    "gen_ai.client.operation.time_to_first_chunk"
)
METRIC_GEN_AI_CLIENT_OPERATION_TIME_PER_OUTPUT_CHUNK: Final = (
    "gen_ai.client.operation.time_per_output_chunk"
)
METRIC_GEN_AI_WORKFLOW_DURATION: Final = "gen_ai.workflow.duration"

# Advised histogram boundaries: seconds of a call, its tokens, seconds of a workflow, an agent.
BUCKETS_DURATION_S: Final = (
    0.01,
    0.02,
    0.04,
    0.08,
    0.16,
    0.32,
    0.64,
    1.28,
    2.56,
    5.12,
    10.24,
    20.48,
    40.96,
    81.92,
)
BUCKETS_TOKENS: Final = (
    1,
    4,
    16,
    64,
    256,
    1024,
    4096,
    16384,
    65536,
    262144,
    1048576,
    4194304,
    16777216,
    67108864,
)
BUCKETS_WORKFLOW_S: Final = (1, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200)
BUCKETS_MCP_S: Final = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120, 300)
BUCKETS_CALLS: Final = (1, 2, 4, 8, 16, 32, 64, 128)
BUCKETS_AGENT_S: Final = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 51.2, 102.4, 204.8, 409.6)

# Values of gen_ai.operation.name.
OPERATION_CHAT: Final = "chat"
OPERATION_GENERATE_CONTENT: Final = "generate_content"
OPERATION_TEXT_COMPLETION: Final = "text_completion"
OPERATION_EMBEDDINGS: Final = "embeddings"
OPERATION_RETRIEVAL: Final = "retrieval"
OPERATION_FETCH_RESPONSE: Final = "fetch_response"
OPERATION_CREATE_AGENT: Final = "create_agent"
OPERATION_INVOKE_AGENT: Final = "invoke_agent"
OPERATION_EXECUTE_TOOL: Final = "execute_tool"
OPERATION_INVOKE_WORKFLOW: Final = "invoke_workflow"
OPERATION_PLAN: Final = "plan"

MCP_METHOD_TOOLS_CALL: Final = "tools/call"

INFERENCE_OPERATIONS: Final = frozenset({"chat", "generate_content", "text_completion"})
"""Operations that ask a model for an answer: what is scored, and counted as a *call*."""
MODEL_OPERATIONS: Final = INFERENCE_OPERATIONS | {"embeddings"}
"""Operations that a provider bills by the token."""
ERROR_TYPE_OTHER: Final = "_OTHER"
PROVIDER_UNKNOWN: Final = "unknown"
"""The provider is required on a model's spans; this stands where nobody told it."""
TOKEN_MODALITY_UNKNOWN: Final = "unknown"
TOKEN_TYPE_INPUT: Final = "input"
TOKEN_TYPE_OUTPUT: Final = "output"
