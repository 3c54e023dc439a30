//! Answers on paths that no format is known for: usage of any shape.
//!
//! Which shape it is, and so how the counts relate, is told by the names of the counts. Nothing is estimated here: that
//! it is an LLM call at all is known only from its usage.

use super::{Dialect, Format, PLAIN, ReplyField, anthropic, cohere, count, gemini, openai};
use crate::body::json::{Place, container, key, within, within_each};
use crate::usage::{Rule, Unit};

/// `usage` as OpenAI, Anthropic and Bedrock spell it.
const USAGE: Place<ReplyField> = container(
    "usage",
    ReplyField::Usage,
    &[
        key("prompt_tokens", ReplyField::TellingCount(|usage| &mut usage.input, Rule::OpenAi)),
        key("completion_tokens", count(|usage| &mut usage.output)),
        key("total_tokens", count(|usage| &mut usage.total)),
        within("prompt_tokens_details", openai::PROMPT_DETAILS),
        within("prompt_token_details", openai::PROMPT_DETAILS),
        within("completion_tokens_details", openai::OUTPUT_DETAILS),
        within("input_tokens_details", openai::PROMPT_DETAILS),
        within("output_tokens_details", openai::OUTPUT_DETAILS),
        anthropic::INPUT,
        anthropic::OUTPUT,
        anthropic::CACHE_WRITE,
        anthropic::CACHE_WRITE_SPLIT,
        key("cache_read_input_tokens", ReplyField::TellingCount(|usage| &mut usage.cached_input, Rule::CacheApart)),
        key("inputTokens", ReplyField::TellingCount(|usage| &mut usage.input, Rule::CacheApart)),
        key("outputTokens", count(|usage| &mut usage.output)),
        key("totalTokens", count(|usage| &mut usage.total)),
        key("cacheReadInputTokens", count(|usage| &mut usage.cached_input)),
        key("cacheWriteInputTokens", count(|usage| &mut usage.cache_creation)),
        key("seconds", ReplyField::Unit(Unit::AudioSeconds)),
        openai::TOOL_CALLS,
        // Mistral's conversations.
        key("connector_tokens", count(|usage| &mut usage.tool_use_input)),
        within("connectors", &[key("web_search", ReplyField::Unit(Unit::WebSearchRequests))]),
        within("billed_units", cohere::BILLED_UNITS),
    ],
);

const ID: Place<ReplyField> = key("id", ReplyField::Id);
const MODEL: Place<ReplyField> = key("model", ReplyField::Model);

/// Any path.
pub(super) static ANY: Format = Format {
    name: "unrecognised",
    operation: "unknown",
    request: openai::CHAT_REQUEST,
    reply: &[
        key("type", ReplyField::EventType),
        ID,
        MODEL,
        key("service_tier", ReplyField::ServiceTier),
        USAGE,
        // Events that carry the whole response or message.
        within("response", &[ID, MODEL, USAGE]),
        within("message", &[ID, MODEL, USAGE]),
        key("modelVersion", ReplyField::Model),
        key("responseId", ReplyField::Id),
        gemini::USAGE,
        // Gemini streams arrays.
        within_each(&[key("modelVersion", ReplyField::Model), key("responseId", ReplyField::Id), gemini::USAGE]),
        key("prompt_eval_count", ReplyField::BareCount(|usage| &mut usage.input)),
        key("eval_count", ReplyField::BareCount(|usage| &mut usage.output)),
        cohere::META,
        // Cloudflare's.
        within("result", &[MODEL, USAGE]),
        within("error", &[key("code", ReplyField::ErrorCode), key("type", ReplyField::ErrorType)]),
    ],
    dialect: Dialect::OpenAi,
    ..PLAIN
};
