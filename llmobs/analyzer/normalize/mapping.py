"""The table of names: which attribute of which producer fills which column.

The one place to change when a producer renames something. A target's sources stand in order
of preference; the first that a span has fills the column and leaves the rest of the
attributes, all others stay there. Names and meanings: OpenTelemetry GenAI conventions of all
ages, and the producers' own packages.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Final, NamedTuple

from llmobs import semconv

__all__ = [
    "CACHE_APART",
    "CALL_INPUTS",
    "CALL_OUTPUTS",
    "DROPPED",
    "FAMILIES",
    "MARKERS",
    "NAMED_BY_SPAN",
    "NUMBERS",
    "SCOPES",
    "TEXTS",
    "TOOL_INPUTS",
    "TOOL_OUTPUTS",
    "VALUES",
    "Dialect",
    "Family",
    "Source",
]


class Dialect(IntEnum):
    """Whose names a span uses."""

    OTEL = 0  # also llmobs: the conventions, of any age
    OPENINFERENCE = 1
    OPENLLMETRY = 2
    LANGFUSE = 3
    VERCEL = 4
    PYDANTIC_AI = 5
    LANGSMITH = 6
    OPENLIT = 7
    AGENTO11Y = 8


# How a span's producer is found: by its scope's name (a regular expression for its begin),
# else by an attribute only it has.
SCOPES: Final = (
    (r"(@arizeai/)?openinference", Dialect.OPENINFERENCE),
    (r"traceloop", Dialect.OPENLLMETRY),
    (r"langfuse", Dialect.LANGFUSE),
    (r"ai$", Dialect.VERCEL),
    (r"pydantic-ai|logfire", Dialect.PYDANTIC_AI),
    (r"langsmith", Dialect.LANGSMITH),
    (r"openlit", Dialect.OPENLIT),
    (r"agento11y|sigil", Dialect.AGENTO11Y),
)
MARKERS: Final = (
    ("openinference.span.kind", Dialect.OPENINFERENCE),
    ("langfuse.observation.", Dialect.LANGFUSE),
    ("ai.operationId", Dialect.VERCEL),
    ("traceloop.", Dialect.OPENLLMETRY),
    ("llm.request.type", Dialect.OPENLLMETRY),
    ("langsmith.", Dialect.LANGSMITH),
    ("pydantic_ai.", Dialect.PYDANTIC_AI),
    ("logfire.", Dialect.PYDANTIC_AI),
    ("agento11y.", Dialect.AGENTO11Y),
    ("sigil.", Dialect.AGENTO11Y),
)


class Source(NamedTuple):
    """One attribute that may fill a column.

    Attributes:
        key: The attribute.
        values: The table in `VALUES` that the values of a text are read by.
        factor: What a number is multiplied with to have the column's unit.
        of: The only producer whose spans are meant; None for all.
        at_root: Whether only the outermost span of a trace is meant.
    """

    key: str
    values: str = ""
    factor: float = 1.0
    of: Dialect | None = None
    at_root: bool = False


OI, TL, LF, AI = Dialect.OPENINFERENCE, Dialect.OPENLLMETRY, Dialect.LANGFUSE, Dialect.VERCEL

TEXTS: Final[Mapping[str, tuple[Source, ...]]] = {
    "operation": (
        # Whose gen_ai.operation.name says "chat" for a prompt template too.
        Source("langsmith.span.kind", "langsmith", of=Dialect.LANGSMITH),
        Source(semconv.GEN_AI_OPERATION_NAME, "operation"),
        Source("openinference.span.kind", "openinference"),
        Source("langfuse.observation.type", "langfuse"),
        Source("ai.operationId", "vercel"),
        Source("llm.request.type", "operation"),
        Source("traceloop.span.kind", "traceloop"),
        Source("langsmith.span.kind", "langsmith"),
    ),
    "provider": (
        Source(semconv.GEN_AI_PROVIDER_NAME, "provider"),
        Source("gen_ai.system", "provider"),
        Source("llm.provider", "provider", of=OI),
        Source("llm.system", "provider", of=OI),
        Source("ai.model.provider", "provider"),
        Source("langsmith.metadata.ls_provider", "provider"),
        Source("llm.vendor", "provider"),
    ),
    "request_model": (
        Source(semconv.GEN_AI_REQUEST_MODEL),
        Source("llm.request.model_name", of=OI),
        Source("ai.model.id"),
        Source("langfuse.observation.model.name"),
        Source("embedding.model_name", of=OI),
        Source("reranker.model_name", of=OI),
        Source("langsmith.metadata.ls_model_name"),
        Source("llm.request.model"),
        Source("llm.model_name", of=OI),
    ),
    "response_model": (
        Source(semconv.GEN_AI_RESPONSE_MODEL),
        Source("llm.response.model_name", of=OI),
        Source("ai.response.model"),
        Source("llm.response.model"),
        Source("llm.model_name", of=OI),
    ),
    "agent": (
        Source(semconv.GEN_AI_AGENT_NAME),
        Source("agent.name", of=OI),
        Source("agent_name", of=Dialect.PYDANTIC_AI),
        Source("ai.telemetry.functionId"),
    ),
    "tool": (
        Source(semconv.GEN_AI_TOOL_NAME),
        Source("tool.name", of=OI),
        Source("ai.toolCall.name"),
    ),
    "workflow": (
        Source(semconv.GEN_AI_WORKFLOW_NAME),
        Source("traceloop.workflow.name"),
        Source("langfuse.trace.name"),
        Source("langsmith.trace.name", at_root=True),  # below it, each run's own name
    ),
    "session_id": (
        Source(semconv.GEN_AI_CONVERSATION_ID),
        Source(semconv.SESSION_ID),
        Source("langfuse.session.id"),
        Source("traceloop.association.properties.session_id"),
        Source("traceloop.association.properties.conversation_id"),
        Source("langsmith.metadata.thread_id"),
        Source("langsmith.metadata.session_id"),
        Source("langsmith.metadata.conversation_id"),
        Source("ai.telemetry.metadata.sessionId"),
        Source("ai.telemetry.metadata.chatId"),
        Source("agento11y.framework.session_id"),
        Source("agento11y.framework.thread_id"),
        Source("sigil.framework.thread_id"),
    ),
    "user_id": (
        Source(semconv.USER_ID),
        Source("enduser.id"),
        Source("enduser.pseudo.id"),
        Source("langfuse.user.id"),
        Source("traceloop.association.properties.user_id"),
        Source("langsmith.metadata.user_id"),
        Source("ai.telemetry.metadata.userId"),
        Source("agento11y.user.id"),
        Source("sigil.user.id"),
        Source("gen_ai.user"),
        Source("llm.user"),
    ),
    "error_type": (
        Source(semconv.ERROR_TYPE),
        Source(semconv.EXCEPTION_TYPE),
    ),
    "finish_reason": (
        Source(semconv.GEN_AI_RESPONSE_FINISH_REASONS, "finish_reason"),
        Source("gen_ai.response.finish_reason", "finish_reason"),
        Source("gen_ai.response.stop_reason", "finish_reason"),
        Source("llm.response.finish_reason", "finish_reason"),
        Source("llm.response.stop_reason", "finish_reason"),
        Source("llm.finish_reason", "finish_reason"),
        Source("ai.response.finishReason", "finish_reason"),
        Source("langfuse.observation.metadata.finish_reason", "finish_reason"),
        Source("anthropic.message.stop_reason", "finish_reason"),
        Source("gen_ai.completion.0.finish_reason", "finish_reason"),
    ),
    "prompt_name": (
        Source(semconv.GEN_AI_PROMPT_NAME),
        Source("langfuse.observation.prompt.name"),
        Source("traceloop.prompt.key"),
        Source("prompt.id", of=OI),
    ),
    "prompt_version": (
        Source(semconv.GEN_AI_PROMPT_VERSION),
        Source("langfuse.observation.prompt.version"),
        Source("traceloop.prompt.version"),
        Source("llm.prompt_template.version"),
    ),
    "response_id": (
        Source(semconv.GEN_AI_RESPONSE_ID),
        Source("ai.response.id"),
        Source("llm.response.id"),
    ),
    "status_message": (Source("langfuse.observation.status_message"),),
    # What the resource says goes before these.
    "environment": (
        Source("langfuse.environment"),
        Source(semconv.DEPLOYMENT_ENVIRONMENT_NAME),
        Source("deployment.environment"),
    ),
    "service": (Source(semconv.SERVICE_NAME),),
    # Not a column: whether `input_tokens` includes cached ones, where a producer says so.
    "token_semantics": (Source("gen_ai.token.semantics"),),
    # Not a column: ERROR sets the status.
    "level": (Source("langfuse.observation.level"),),
    # What people call the part of their app. Where a producer has no such name, the workflow
    # or the agent is the nearest; the service is not repeated here: monitors group by both.
    "feature": (
        Source(semconv.LLMOBS_FEATURE),
        Source("traceloop.workflow.name"),
        Source("langfuse.trace.name"),
        Source("ai.telemetry.functionId"),
        Source(semconv.GEN_AI_WORKFLOW_NAME),
        Source("langsmith.trace.name", at_root=True),
        Source(semconv.GEN_AI_AGENT_NAME),
        Source("agent_name", of=Dialect.PYDANTIC_AI),
    ),
}

NAMED_BY_SPAN: Final = frozenset(
    {Dialect.OPENINFERENCE, Dialect.OPENLLMETRY, Dialect.LANGFUSE, Dialect.LANGSMITH}
)
"""Producers that tell the name of a tool, an agent or a workflow as the span's own name."""

NUMBERS: Final[Mapping[str, tuple[Source, ...]]] = {
    "input_tokens": (
        Source(semconv.GEN_AI_USAGE_INPUT_TOKENS),
        Source("gen_ai.usage.prompt_tokens"),
        Source("llm.usage.prompt_tokens"),
        Source("llm.token_count.prompt"),
        Source("ai.usage.inputTokens"),
        Source("ai.usage.promptTokens"),
        Source("ai.usage.tokens"),
    ),
    "output_tokens": (
        Source(semconv.GEN_AI_USAGE_OUTPUT_TOKENS),
        Source("gen_ai.usage.completion_tokens"),
        Source("llm.usage.completion_tokens"),
        Source("llm.token_count.completion"),
        Source("ai.usage.outputTokens"),
        Source("ai.usage.completionTokens"),
    ),
    "cache_read_tokens": (
        Source(semconv.GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS),
        Source("gen_ai.usage.cache_read_input_tokens"),
        Source("gen_ai.usage.input_tokens.cached"),
        Source("gen_ai.usage.details.cache_read_tokens"),
        Source("gen_ai.usage.details.cache_read_input_tokens"),
        Source("llm.token_count.prompt_details.cache_read"),
        Source("llm.token_count.prompt_details.cache_input"),
        Source("ai.usage.inputTokenDetails.cacheReadTokens"),
        Source("ai.usage.cachedInputTokens"),
    ),
    "cache_write_tokens": (
        Source(semconv.GEN_AI_USAGE_CACHE_WRITE_INPUT_TOKENS),
        Source("gen_ai.usage.cache_creation.input_tokens"),
        Source("gen_ai.usage.cache_creation_input_tokens"),
        Source("gen_ai.usage.cache_write_input_tokens"),
        Source("gen_ai.usage.details.cache_write_tokens"),
        Source("gen_ai.usage.details.cache_creation_input_tokens"),
        Source("llm.token_count.prompt_details.cache_write"),
        Source("ai.usage.inputTokenDetails.cacheWriteTokens"),
    ),
    "reasoning_tokens": (
        Source(semconv.GEN_AI_USAGE_REASONING_OUTPUT_TOKENS),
        Source("gen_ai.usage.reasoning_tokens"),
        Source("gen_ai.usage.output_tokens.reasoning"),
        Source("gen_ai.usage.details.reasoning_tokens"),
        Source("llm.usage.reasoning_tokens"),
        Source("llm.token_count.completion_details.reasoning"),
        Source("ai.usage.outputTokenDetails.reasoningTokens"),
        Source("ai.usage.reasoningTokens"),
    ),
    "ttft_ns": (
        Source(semconv.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK, factor=1e9),
        Source("gen_ai.server.time_to_first_token", factor=1e9),
        Source("gen_ai.client.time_to_first_token", factor=1e9),
        Source("ai.response.msToFirstChunk", factor=1e6),
        Source("ai.stream.msToFirstChunk", factor=1e6),
    ),
}

CACHE_APART: Final = frozenset(
    {(Dialect.OPENLIT, "anthropic"), (Dialect.VERCEL, "anthropic"), (Dialect.LANGFUSE, "anthropic")}
)
"""Producer and provider whose `input_tokens` leave out what was read from or written to a cache
(Anthropic's own counting, passed on). Vercel's ``inputTokenDetails`` come with full counts."""

# Texts of a call: messages as JSON in anybody's shape, or plain text; tried in this order.
CALL_INPUTS: Final = (
    Source(semconv.GEN_AI_INPUT_MESSAGES),
    Source("ai.prompt.messages"),
    Source("ai.prompt"),
    Source("langfuse.observation.input"),
    Source("traceloop.entity.input"),
    Source("gen_ai.prompt"),
    Source("gen_ai.embeddings.input_texts"),
    Source("pydantic_ai.all_messages", of=Dialect.PYDANTIC_AI),
    Source("all_messages_events", of=Dialect.PYDANTIC_AI),
    Source("events", of=Dialect.PYDANTIC_AI),
    Source(semconv.GEN_AI_RETRIEVAL_QUERY_TEXT),
    Source("ai.value"),
    Source("ai.values"),
    Source("input.value", of=OI),
    Source("gen_ai.content.prompt"),
)
CALL_OUTPUTS: Final = (
    Source(semconv.GEN_AI_OUTPUT_MESSAGES),
    Source("ai.response.text"),
    Source("ai.response.object"),
    Source("langfuse.observation.output"),
    Source("traceloop.entity.output"),
    Source("gen_ai.completion"),
    Source("final_result", of=Dialect.PYDANTIC_AI),
    Source("output.value", of=OI),
    Source("gen_ai.content.completion"),
)
# Of a tool: shown as they are.
TOOL_INPUTS: Final = (
    Source(semconv.GEN_AI_TOOL_CALL_ARGUMENTS),
    Source("ai.toolCall.args"),
    Source("tool_arguments", of=Dialect.PYDANTIC_AI),
    Source("langfuse.observation.input"),
    Source("traceloop.entity.input"),
    Source("input.value", of=OI),
    Source("gen_ai.prompt", of=Dialect.LANGSMITH),
    Source("tool.parameters", of=OI),
)
TOOL_OUTPUTS: Final = (
    Source(semconv.GEN_AI_TOOL_CALL_RESULT),
    Source("ai.toolCall.result"),
    Source("tool_response", of=Dialect.PYDANTIC_AI),
    Source("langfuse.observation.output"),
    Source("traceloop.entity.output"),
    Source("output.value", of=OI),
    Source("gen_ai.completion", of=Dialect.LANGSMITH),
)


class Family(NamedTuple):
    """Messages or documents flattened into numbered attributes.

    Attributes:
        prefix: What stands before the number.
        target: ``input``, ``output`` or ``documents``.
        inner: What stands between the number and the fields, such as ``message.``.
    """

    prefix: str
    target: str
    inner: str = ""


FAMILIES: Final = (
    Family("gen_ai.prompt.", "input"),
    Family("gen_ai.completion.", "output"),
    Family("llm.input_messages.", "input", "message."),
    Family("llm.output_messages.", "output", "message."),
    Family("llm.prompts.", "input", "prompt."),
    Family("llm.choices.", "output", "completion."),
    Family("retrieval.documents.", "documents", "document."),
    Family("embedding.embeddings.", "input", "embedding."),
)

DROPPED: Final = frozenset(
    {
        "gen_ai.headers",  # may hold keys
        "llm.headers",
        "gen_ai.usage.total_tokens",  # input + output
        "llm.usage.total_tokens",
        "llm.token_count.total",
        "ai.usage.totalTokens",
        semconv.GEN_AI_OPERATION_NAME,  # a column, whoever named it
        "ai.embedding",  # the vectors themselves
        "ai.embeddings",
    }
)
"""Attributes that are not kept."""

VALUES: Final[Mapping[str, Mapping[str, str]]] = {
    "operation": {
        "completion": semconv.OPERATION_TEXT_COMPLETION,
        "embedding": semconv.OPERATION_EMBEDDINGS,
        "rerank": "",
        "unknown": "",
        "generateText": semconv.OPERATION_CHAT,
        "streamText": semconv.OPERATION_CHAT,
        "agent": semconv.OPERATION_INVOKE_AGENT,
        "tool": semconv.OPERATION_EXECUTE_TOOL,
        "vectordb": semconv.OPERATION_RETRIEVAL,
    },
    "openinference": {
        "LLM": semconv.OPERATION_CHAT,
        "EMBEDDING": semconv.OPERATION_EMBEDDINGS,
        "RETRIEVER": semconv.OPERATION_RETRIEVAL,
        "TOOL": semconv.OPERATION_EXECUTE_TOOL,
        "AGENT": semconv.OPERATION_INVOKE_AGENT,
        "CHAIN": semconv.OPERATION_INVOKE_WORKFLOW,  # at the root of a trace only
        "*": "",
    },
    "langfuse": {
        "generation": semconv.OPERATION_CHAT,
        "embedding": semconv.OPERATION_EMBEDDINGS,
        "retriever": semconv.OPERATION_RETRIEVAL,
        "tool": semconv.OPERATION_EXECUTE_TOOL,
        "agent": semconv.OPERATION_INVOKE_AGENT,
        "chain": semconv.OPERATION_INVOKE_WORKFLOW,
        "*": "",
    },
    "vercel": {
        "ai.generateText": semconv.OPERATION_INVOKE_AGENT,
        "ai.streamText": semconv.OPERATION_INVOKE_AGENT,
        "ai.generateObject": semconv.OPERATION_INVOKE_AGENT,
        "ai.streamObject": semconv.OPERATION_INVOKE_AGENT,
        "ai.generateText.doGenerate": semconv.OPERATION_CHAT,
        "ai.streamText.doStream": semconv.OPERATION_CHAT,
        "ai.generateObject.doGenerate": semconv.OPERATION_CHAT,
        "ai.streamObject.doStream": semconv.OPERATION_CHAT,
        "ai.toolCall": semconv.OPERATION_EXECUTE_TOOL,
        # The outer ones hold the same tokens as the inner ones.
        "ai.embed.doEmbed": semconv.OPERATION_EMBEDDINGS,
        "ai.embedMany.doEmbed": semconv.OPERATION_EMBEDDINGS,
        "*": "",
    },
    "traceloop": {
        "workflow": semconv.OPERATION_INVOKE_WORKFLOW,
        "agent": semconv.OPERATION_INVOKE_AGENT,
        "tool": semconv.OPERATION_EXECUTE_TOOL,
        "*": "",
    },
    "langsmith": {
        "llm": semconv.OPERATION_CHAT,
        "embedding": semconv.OPERATION_EMBEDDINGS,
        "retriever": semconv.OPERATION_RETRIEVAL,
        "tool": semconv.OPERATION_EXECUTE_TOOL,
        "chain": semconv.OPERATION_INVOKE_WORKFLOW,
        "*": "",
    },
    "provider": {
        "vertex_ai": "gcp.vertex_ai",
        "vertexai": "gcp.vertex_ai",
        "google_vertexai": "gcp.vertex_ai",
        "google.vertex": "gcp.vertex_ai",
        "gemini": "gcp.gemini",
        "google": "gcp.gemini",
        "google_genai": "gcp.gemini",
        "google.generative-ai": "gcp.gemini",
        "google-gla": "gcp.gemini",
        "google-vertex": "gcp.vertex_ai",
        "az.ai.inference": "azure.ai.inference",
        "az.ai.openai": "azure.ai.openai",
        "azure": "azure.ai.openai",
        "azure-openai": "azure.ai.openai",
        "aws": "aws.bedrock",
        "amazon-bedrock": "aws.bedrock",
        "amazon_bedrock": "aws.bedrock",
        "bedrock": "aws.bedrock",
        "aws_bedrock": "aws.bedrock",
        "mistralai": "mistral_ai",
        "mistral": "mistral_ai",
        "xai": "x_ai",
        "moonshot": "moonshot_ai",
        "watsonx": "ibm.watsonx.ai",
        "langchain": "",
        semconv.PROVIDER_UNKNOWN: "",
    },
    "finish_reason": {
        "tool_calls": "tool_call",
        "tool_use": "tool_call",
        "tool-calls": "tool_call",
        "function_call": "tool_call",
        "max_tokens": "length",
        "MAX_TOKENS": "length",
        "max_output_tokens": "length",
        "end_turn": "stop",
        "stop_sequence": "stop",
        "STOP": "stop",
        "completed": "stop",
        "content-filter": "content_filter",
        "SAFETY": "content_filter",
        "refusal": "content_filter",
        "guardrail_intervened": "content_filter",
    },
}
"""Values of producers to those of the conventions; ``*`` stands for all others, which are
otherwise kept as they are."""
