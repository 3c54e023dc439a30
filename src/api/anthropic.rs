//! Anthropic Messages, on Anthropic's own API, Vertex AI (`rawPredict`) and Foundry.
//!
//! `input_tokens` leaves out cached tokens, read and written. A stream reports in `message_start` (everything but
//! the output, of which it holds a provisional count) and in `message_delta` (cumulative, sometimes only the
//! output): what comes later replaces, nothing is added. With `iterations`, those are what is billed, each at its own
//! model; the counts beside them leave some out.
//! Source: <https://docs.anthropic.com/en/api/messages>.

use super::uses::Use;
use super::{Dialect, Format, PLAIN, ReplyField, RequestField, count, openai};
use crate::body::json::{Place, Places, container, container_each, each, key, pieces, within, within_each};
use crate::usage::{Rule, Unit};

pub(super) const INPUT: Place<ReplyField> = key("input_tokens", count(|usage| &mut usage.input));
pub(super) const CACHE_READ: Place<ReplyField> = key("cache_read_input_tokens", count(|usage| &mut usage.cached_input));
pub(super) const CACHE_WRITE: Place<ReplyField> =
    key("cache_creation_input_tokens", count(|usage| &mut usage.cache_creation));
pub(super) const CACHE_WRITE_SPLIT: Place<ReplyField> =
    within("cache_creation", &[key("ephemeral_1h_input_tokens", count(|usage| &mut usage.cache_creation_1h))]);
pub(super) const OUTPUT: Place<ReplyField> = key("output_tokens", count(|usage| &mut usage.output));
pub(super) const THOUGHTS: Place<ReplyField> =
    within("output_tokens_details", &[key("thinking_tokens", count(|usage| &mut usage.reasoning))]);

const ITERATION: Places<ReplyField> =
    &[key("model", ReplyField::IterationModel), INPUT, CACHE_READ, CACHE_WRITE, CACHE_WRITE_SPLIT, OUTPUT, THOUGHTS];

const SERVICE_TIER: Place<ReplyField> = key("service_tier", ReplyField::ServiceTier);
const SPEED: Place<ReplyField> = key("speed", ReplyField::Speed);
const GEO: Place<ReplyField> = key("inference_geo", ReplyField::Geo);
pub(super) const TOOL_USE: Place<ReplyField> =
    within("server_tool_use", &[key("web_search_requests", ReplyField::Unit(Unit::WebSearchRequests))]);
pub(super) const ITERATIONS: Place<ReplyField> =
    container("iterations", ReplyField::Iterations, &[container_each(ReplyField::Iteration, ITERATION)]);

/// `usage` of a whole message, and of the event that ends a stream.
const USAGE: Place<ReplyField> = container(
    "usage",
    ReplyField::Usage,
    &[
        INPUT,
        CACHE_READ,
        CACHE_WRITE,
        CACHE_WRITE_SPLIT,
        OUTPUT,
        THOUGHTS,
        SERVICE_TIER,
        SPEED,
        GEO,
        TOOL_USE,
        ITERATIONS,
    ],
);

/// The message that begins a stream. The output it counts is what there was before anything was generated: a stream
/// that breaks off has an output nobody counted.
pub(super) const MESSAGE: Place<ReplyField> = within(
    "message",
    &[
        key("id", ReplyField::Id),
        key("model", ReplyField::Model),
        container(
            "usage",
            // Some proxies begin twice.
            ReplyField::FirstUsage,
            &[INPUT, CACHE_READ, CACHE_WRITE, CACHE_WRITE_SPLIT, SERVICE_TIER, SPEED, GEO, TOOL_USE],
        ),
    ],
);

pub(super) const DELTA: Place<ReplyField> = within(
    "delta",
    &[
        key("stop_reason", ReplyField::FinishReason),
        pieces("text", ReplyField::Text),
        pieces("thinking", ReplyField::Text),
        pieces("partial_json", ReplyField::Text),
    ],
);

/// The messages of a conversation: parts, some of which are what a tool returned, in parts.
const REQUEST_MESSAGES: Place<RequestField> = within(
    "messages",
    &[container_each(
        RequestField::Message,
        &[
            key("role", RequestField::Role),
            within("content", &[within_each(&[key("type", RequestField::PartKind), openai::CONTENT])]),
        ],
    )],
);

pub(super) const THINKING: Place<RequestField> =
    within("thinking", &[key("type", RequestField::ThinkingKind), key("budget_tokens", RequestField::ThinkingBudget)]);

pub(super) const OUTPUT_CONFIG: Place<RequestField> = within(
    "output_config",
    &[key("effort", RequestField::Use(Use::Effort)), key("format", RequestField::Use(Use::StructuredOutput))],
);

/// The tools of an MCP server that the caller allows, where that is not all of them.
const MCP_SERVER: Places<RequestField> =
    &[within("tool_configuration", &[within("allowed_tools", &[each(RequestField::ToolName)])])];

/// `POST …/v1/messages` and Vertex AI's `rawPredict` and `streamRawPredict`.
pub(super) static MESSAGES: Format = Format {
    name: "anthropic_messages",
    operation: "chat",
    request: &[
        key("model", RequestField::Model),
        key("stream", RequestField::Stream),
        key("max_tokens", RequestField::MaxOutputTokens),
        REQUEST_MESSAGES,
        openai::TOOLS,
        openai::TOOL_CHOICE,
        key("service_tier", RequestField::ServiceTier),
        key("speed", RequestField::Speed),
        key("inference_geo", RequestField::Geo),
        THINKING,
        OUTPUT_CONFIG,
        // By its first name.
        key("output_format", RequestField::Use(Use::StructuredOutput)),
        openai::TEMPERATURE,
        openai::TOP_P,
        openai::TOP_K,
        container("mcp_servers", RequestField::Use(Use::ServerTools), &[within_each(MCP_SERVER)]),
        key("container", RequestField::Use(Use::ServerTools)),
    ],
    reply: &[
        key("type", ReplyField::EventType),
        key("id", ReplyField::Id),
        key("model", ReplyField::Model),
        key("stop_reason", ReplyField::FinishReason),
        within("content", &[within_each(&[pieces("text", ReplyField::Text), pieces("thinking", ReplyField::Text)])]),
        MESSAGE,
        DELTA,
        USAGE,
        within("error", &[key("type", ReplyField::ErrorType)]),
    ],
    rule: Rule::CacheApart,
    dialect: Dialect::Anthropic,
    ..PLAIN
};

/// `POST …/v1/messages/count_tokens`: free.
pub(super) static COUNT_TOKENS: Format = Format {
    name: "anthropic_count_tokens",
    operation: "count_tokens",
    request: &[key("model", RequestField::Model)],
    free: true,
    dialect: Dialect::Anthropic,
    ..PLAIN
};
