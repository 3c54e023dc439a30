//! AWS Bedrock: Converse, and InvokeModel with each model's own format.
//!
//! Converse leaves cached tokens out of `inputTokens`; it repeats the cache counts under undocumented names, which
//! are not read. Streams are AWS event streams; InvokeModelWithResponseStream wraps the model's own events in base64
//! and adds `amazon-bedrock-invocationMetrics` to the last. Where an InvokeModel body has no usage, the response
//! headers `x-amzn-bedrock-*` have. The model stands in the path.
//! Source: <https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_TokenUsage.html>.

use super::uses::Use;
use super::{Dialect, Format, PLAIN, ReplyField, RequestField, Side, Slot, anthropic, count, openai};
use crate::body::json::{Place, Places, container, container_each, key, pieces, within, within_each};
use crate::usage::Rule;

const USAGE: Places<ReplyField> = &[
    key("inputTokens", count(|usage| &mut usage.input)),
    key("outputTokens", count(|usage| &mut usage.output)),
    key("totalTokens", count(|usage| &mut usage.total)),
    key("cacheReadInputTokens", count(|usage| &mut usage.cached_input)),
    key("cacheWriteInputTokens", count(|usage| &mut usage.cache_creation)),
    within(
        "cacheDetails",
        &[container_each(
            ReplyField::Detail(Side::CacheWrite),
            &[key("ttl", ReplyField::DetailModality), key("inputTokens", ReplyField::DetailTokens)],
        )],
    ),
];

const SERVICE_TIER: Place<ReplyField> = within("serviceTier", &[key("type", ReplyField::ServiceTier)]);

const TEXT: Places<ReplyField> = &[pieces("text", ReplyField::Text)];

/// The messages of a conversation, in the parts of Converse and in those of Anthropic's and OpenAI's APIs, which have
/// a `type`. Files in what a tool returned to Converse stand deeper than places can.
const REQUEST_MESSAGES: Place<RequestField> = within(
    "messages",
    &[container_each(
        RequestField::Message,
        &[
            key("role", RequestField::Role),
            within(
                "content",
                &[within_each(&[
                    key("type", RequestField::PartKind),
                    key("image", RequestField::Media(Use::Vision)),
                    key("audio", RequestField::Media(Use::Audio)),
                    key("video", RequestField::Media(Use::Video)),
                    key("document", RequestField::Media(Use::Documents)),
                    TOOL_RESULT,
                    key("reasoningContent", RequestField::Use(Use::ReasoningHistory)),
                    openai::CONTENT,
                ])],
            ),
        ],
    )],
);

const INFERENCE_CONFIG: Place<RequestField> = within(
    "inferenceConfig",
    &[
        key("maxTokens", RequestField::MaxOutputTokens),
        key("max_new_tokens", RequestField::MaxOutputTokens),
        openai::TEMPERATURE,
        key("topP", RequestField::Use(Use::Sampling)),
        key("topK", RequestField::Use(Use::Sampling)),
    ],
);

const TOOL_CONFIG: Place<RequestField> = within(
    "toolConfig",
    &[
        within(
            "tools",
            &[container_each(
                RequestField::Tool,
                &[
                    within("toolSpec", &[key("name", RequestField::ToolName)]),
                    key("systemTool", RequestField::Use(Use::ServerTools)),
                ],
            )],
        ),
        within(
            "toolChoice",
            &[
                key("any", RequestField::Use(Use::ForcedToolChoice)),
                key("tool", RequestField::Use(Use::ForcedToolChoice)),
            ],
        ),
    ],
);

/// What a tool gave back, which may be media too.
const TOOL_RESULT: Place<RequestField> = within(
    "toolResult",
    &[within(
        "content",
        &[within_each(&[
            key("image", RequestField::Media(Use::Vision)),
            key("video", RequestField::Media(Use::Video)),
            key("document", RequestField::Media(Use::Documents)),
        ])],
    )],
);

/// `POST /model/{id}/converse` and `converse-stream`.
pub(super) static CONVERSE: Format = Format {
    name: "bedrock_converse",
    operation: "chat",
    request: &[
        INFERENCE_CONFIG,
        REQUEST_MESSAGES,
        TOOL_CONFIG,
        within("serviceTier", &[key("type", RequestField::ServiceTier)]),
        within("performanceConfig", &[key("latency", RequestField::Speed)]),
        within("outputConfig", &[within("textFormat", &[key("type", RequestField::OutputFormat)])]),
        container(
            "additionalModelRequestFields",
            RequestField::Use(Use::ModelFields),
            &[anthropic::THINKING, anthropic::OUTPUT_CONFIG],
        ),
    ],
    reply: &[
        container("usage", ReplyField::Usage, USAGE),
        key("stopReason", ReplyField::FinishReason),
        within("delta", TEXT),
        within("output", &[within("message", &[within("content", &[within_each(TEXT)])])]),
        within("trace", &[within("promptRouter", &[key("invokedModelId", ReplyField::Model)])]),
        SERVICE_TIER,
        key("__type", ReplyField::ErrorCode),
    ],
    rule: Rule::CacheApart,
    dialect: Dialect::Bedrock,
    ..PLAIN
};

/// `usage` as Anthropic's, Nova's and OpenAI-shaped models spell it.
const INVOKE_USAGE: Place<ReplyField> = container(
    "usage",
    ReplyField::Usage,
    &[
        anthropic::INPUT,
        anthropic::CACHE_READ,
        anthropic::CACHE_WRITE,
        anthropic::CACHE_WRITE_SPLIT,
        anthropic::OUTPUT,
        anthropic::THOUGHTS,
        anthropic::TOOL_USE,
        anthropic::ITERATIONS,
        key("inputTokens", count(|usage| &mut usage.input)),
        key("outputTokens", count(|usage| &mut usage.output)),
        key("totalTokens", count(|usage| &mut usage.total)),
        key("cacheReadInputTokenCount", count(|usage| &mut usage.cached_input)),
        key("cacheWriteInputTokenCount", count(|usage| &mut usage.cache_creation)),
        key("prompt_tokens", ReplyField::TellingCount(|usage| &mut usage.input, Rule::OpenAi)),
        key("completion_tokens", count(|usage| &mut usage.output)),
        key("total_tokens", count(|usage| &mut usage.total)),
        within("prompt_tokens_details", openai::PROMPT_DETAILS),
        within("completion_tokens_details", openai::OUTPUT_DETAILS),
    ],
);

/// `POST /model/{id}/invoke` and `invoke-with-response-stream`: Anthropic's, Nova's, Titan's, Llama's and OpenAI's
/// shapes in one, since the path's model may be an ARN that tells nothing.
pub(super) static INVOKE: Format = Format {
    name: "bedrock_invoke",
    operation: "chat",
    request: &[
        key("max_tokens", RequestField::MaxOutputTokens),
        REQUEST_MESSAGES,
        openai::TOOLS,
        openai::TOOL_CHOICE,
        openai::RESPONSE_FORMAT,
        openai::REASONING_EFFORT,
        openai::TEMPERATURE,
        openai::TOP_P,
        openai::TOP_K,
        anthropic::THINKING,
        anthropic::OUTPUT_CONFIG,
        INFERENCE_CONFIG,
        TOOL_CONFIG,
    ],
    reply: &[
        key("type", ReplyField::EventType),
        key("id", ReplyField::Id),
        key("model", ReplyField::Model),
        key("stop_reason", ReplyField::FinishReason),
        key("stopReason", ReplyField::FinishReason),
        anthropic::MESSAGE,
        anthropic::DELTA,
        INVOKE_USAGE,
        // Nova's streams.
        within("metadata", &[INVOKE_USAGE]),
        within("messageStop", &[key("stopReason", ReplyField::FinishReason)]),
        within("contentBlockDelta", &[within("delta", TEXT)]),
        openai::CHOICES,
        // Texts of Llama, Titan, Mistral and the first Claude.
        pieces("generation", ReplyField::Text),
        pieces("outputText", ReplyField::Text),
        within("outputs", &[within_each(TEXT)]),
        pieces("completion", ReplyField::Text),
        key("totalOutputTextTokenCount", ReplyField::BareCount(|usage| &mut usage.output)),
        key("inputTextTokenCount", ReplyField::BareCount(|usage| &mut usage.input)),
        within("results", &[within_each(&[key("tokenCount", ReplyField::BareCount(|usage| &mut usage.output))])]),
        key("prompt_token_count", ReplyField::BareCount(|usage| &mut usage.input)),
        key("generation_token_count", ReplyField::BareCount(|usage| &mut usage.output)),
        within(
            "amazon-bedrock-invocationMetrics",
            &[
                key("inputTokenCount", ReplyField::BareCount(|usage| &mut usage.input)),
                key("outputTokenCount", ReplyField::BareCount(|usage| &mut usage.output)),
                key("cacheReadInputTokenCount", ReplyField::BareCount(|usage| &mut usage.cached_input)),
                key("cacheWriteInputTokenCount", ReplyField::BareCount(|usage| &mut usage.cache_creation)),
            ],
        ),
        key("__type", ReplyField::ErrorCode),
    ],
    rule: Rule::CacheApart,
    dialect: Dialect::Bedrock,
    ..PLAIN
};

/// `POST /model/{id}/count-tokens`: free.
pub(super) static COUNT_TOKENS: Format =
    Format { name: "bedrock_count_tokens", operation: "count_tokens", free: true, dialect: Dialect::Bedrock, ..PLAIN };

/// Response headers of InvokeModel and the counts they hold.
pub(super) const HEADERS: [(&str, Slot); 4] = [
    ("x-amzn-bedrock-input-token-count", |usage| &mut usage.input),
    ("x-amzn-bedrock-output-token-count", |usage| &mut usage.output),
    ("x-amzn-bedrock-cache-read-input-token-count", |usage| &mut usage.cached_input),
    ("x-amzn-bedrock-cache-write-input-token-count", |usage| &mut usage.cache_creation),
];
