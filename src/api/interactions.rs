//! Google's Interactions API, on the Gemini API and on Vertex AI.
//!
//! Thoughts are not in the output's total and the provider's tool use is not in the input's; cached tokens are. A stream
//! reports with the event that ends it, in the interaction or in the event's own `metadata`. An agent may stand in the
//! model's place. Vertex AI writes the same names in `camelCase`.
//! Source: <https://ai.google.dev/api/interactions-api>.

use super::uses::Use;
use super::{Dialect, Format, PLAIN, ReplyField, RequestField, Side, count, gemini, openai};
use crate::body::json::{Place, Places, container, container_each, each, key, pieces, within, within_each};
use crate::usage::Rule;

const BY_MODALITY: Places<ReplyField> =
    &[key("modality", ReplyField::DetailModality), key("tokens", ReplyField::DetailTokens)];

const PROMPT: Places<ReplyField> = &[container_each(ReplyField::Detail(Side::Prompt), BY_MODALITY)];
const CACHE: Places<ReplyField> = &[container_each(ReplyField::Detail(Side::Cache), BY_MODALITY)];
const ANSWER: Places<ReplyField> = &[container_each(ReplyField::Detail(Side::Answer), BY_MODALITY)];
const TOOLS: Places<ReplyField> = &[container_each(
    ReplyField::Detail(Side::Tools),
    &[key("type", ReplyField::DetailModality), key("count", ReplyField::DetailTokens)],
)];

const USAGE: Place<ReplyField> = container(
    "usage",
    ReplyField::Usage,
    &[
        key("total_input_tokens", count(|usage| &mut usage.input)),
        key("totalInputTokens", count(|usage| &mut usage.input)),
        key("total_cached_tokens", count(|usage| &mut usage.cached_input)),
        key("totalCachedTokens", count(|usage| &mut usage.cached_input)),
        key("total_output_tokens", count(|usage| &mut usage.output)),
        key("totalOutputTokens", count(|usage| &mut usage.output)),
        key("total_thought_tokens", count(|usage| &mut usage.reasoning)),
        key("totalThoughtTokens", count(|usage| &mut usage.reasoning)),
        key("total_tool_use_tokens", count(|usage| &mut usage.tool_use_input)),
        key("totalToolUseTokens", count(|usage| &mut usage.tool_use_input)),
        key("total_tokens", count(|usage| &mut usage.total)),
        key("totalTokens", count(|usage| &mut usage.total)),
        within("input_tokens_by_modality", PROMPT),
        within("inputTokensByModality", PROMPT),
        within("cached_tokens_by_modality", CACHE),
        within("cachedTokensByModality", CACHE),
        within("output_tokens_by_modality", ANSWER),
        within("outputTokensByModality", ANSWER),
        within("grounding_tool_count", TOOLS),
        within("groundingToolCount", TOOLS),
    ],
);

const ID: Place<ReplyField> = key("id", ReplyField::Id);
const MODEL: Place<ReplyField> = key("model", ReplyField::Model);
const AGENT: Place<ReplyField> = key("agent", ReplyField::Model);
const STATUS: Place<ReplyField> = key("status", ReplyField::Status);
const SERVICE_TIER: Place<ReplyField> = key("service_tier", ReplyField::ServiceTier);

const PARTS: Places<ReplyField> = &[within_each(&[pieces("text", ReplyField::Text)])];

/// `POST …/interactions`.
pub(super) static INTERACTIONS: Format = Format {
    name: "gemini_interactions",
    operation: "generate_content",
    request: &[
        key("model", RequestField::Model),
        key("stream", RequestField::Stream),
        within("generation_config", gemini::SETTINGS),
        within(
            "input",
            &[container_each(RequestField::Message, &[key("type", RequestField::PartKind), openai::CONTENT])],
        ),
        openai::TOOLS,
        within("response_modalities", &[each(RequestField::OutputModality)]),
        openai::RESPONSE_FORMAT,
        key("response_mime_type", RequestField::OutputFormat),
        key("service_tier", RequestField::ServiceTier),
        key("previous_interaction_id", RequestField::Use(Use::Conversation)),
    ],
    reply: &[
        key("event_type", ReplyField::EventType),
        within("delta", &[pieces("text", ReplyField::Text)]),
        within("interaction", &[ID, MODEL, AGENT, STATUS, SERVICE_TIER, USAGE]),
        within("metadata", &[USAGE]),
        ID,
        MODEL,
        AGENT,
        STATUS,
        SERVICE_TIER,
        within("outputs", PARTS),
        within("steps", &[within_each(&[within("content", PARTS)])]),
        USAGE,
        within("error", &[key("code", ReplyField::ErrorCode)]),
    ],
    rule: Rule::ThoughtsApart,
    dialect: Dialect::Google,
    ..PLAIN
};
