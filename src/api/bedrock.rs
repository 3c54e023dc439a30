//! AWS Bedrock: Converse, and InvokeModel with each model's own format.
//!
//! Converse leaves cached tokens out of `inputTokens`; it repeats the cache counts under undocumented names, which
//! are not read. Streams are AWS event streams; InvokeModelWithResponseStream wraps the model's own events in base64
//! and adds `amazon-bedrock-invocationMetrics` to the last. Where an InvokeModel body has no usage, the response
//! headers `x-amzn-bedrock-*` have. The model stands in the path.
//! Source: <https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_TokenUsage.html>.

use super::{Dialect, Format, PLAIN, ReplyField, RequestField, Side, Slot, anthropic, count, openai};
use crate::body::json::{Place, Places, container, container_each, each, key, pieces, within, within_each};
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

/// `POST /model/{id}/converse` and `converse-stream`.
pub(super) static CONVERSE: Format = Format {
    name: "bedrock_converse",
    operation: "chat",
    request: &[
        within("inferenceConfig", &[key("maxTokens", RequestField::MaxOutputTokens)]),
        within("messages", &[each(RequestField::Message)]),
        within(
            "toolConfig",
            &[within(
                "tools",
                &[container_each(RequestField::Tool, &[within("toolSpec", &[key("name", RequestField::ToolName)])])],
            )],
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
        anthropic::THINKING,
        key("inputTokens", count(|usage| &mut usage.input)),
        key("outputTokens", count(|usage| &mut usage.output)),
        key("totalTokens", count(|usage| &mut usage.total)),
        key("cacheReadInputTokenCount", count(|usage| &mut usage.cached_input)),
        key("cacheWriteInputTokenCount", count(|usage| &mut usage.cache_creation)),
        key("prompt_tokens", count(|usage| &mut usage.input)),
        key("completion_tokens", count(|usage| &mut usage.output)),
        key("total_tokens", count(|usage| &mut usage.total)),
    ],
);

/// `POST /model/{id}/invoke` and `invoke-with-response-stream`: Anthropic's, Nova's, Titan's, Llama's and OpenAI's
/// shapes in one, since the path's model may be an ARN that tells nothing.
pub(super) static INVOKE: Format = Format {
    name: "bedrock_invoke",
    operation: "chat",
    request: &[
        key("max_tokens", RequestField::MaxOutputTokens),
        within("messages", &[each(RequestField::Message)]),
        openai::TOOLS,
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
