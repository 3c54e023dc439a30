//! OpenAI chat completions, and the many servers that speak them.
//!
//! A stream reports usage once, in its last data event before `[DONE]`, if the request asked for it with
//! `stream_options.include_usage`; other events carry `"usage": null` or none. Compatible servers put usage into
//! an event that still has choices (Mistral, Groq, DeepSeek), repeat it (Groq, vLLM) or send it cumulatively, so
//! any object counts, the last one wins and nothing is summed.
//! Source: <https://platform.openai.com/docs/api-reference/chat>.

use super::{Format, ReplyField, RequestField};
use crate::body::json::EACH;

/// The format.
pub static FORMAT: Format = Format {
    name: "openai_chat",
    operation: "chat",
    request: &[
        (&["model"], RequestField::Model),
        (&["stream"], RequestField::Stream),
        (&["max_tokens"], RequestField::MaxOutputTokens),
        (&["max_completion_tokens"], RequestField::MaxOutputTokens),
        (&["messages", EACH], RequestField::Message),
        (&["tools", EACH], RequestField::Tool),
    ],
    reply: &[
        (&["usage"], ReplyField::Usage),
        (&["usage", "prompt_tokens"], ReplyField::Count(|usage| &mut usage.input)),
        (&["usage", "completion_tokens"], ReplyField::Count(|usage| &mut usage.output)),
        (&["usage", "total_tokens"], ReplyField::Count(|usage| &mut usage.total)),
        (&["usage", "prompt_tokens_details", "cached_tokens"], ReplyField::Count(|usage| &mut usage.cached_input)),
        (
            &["usage", "prompt_tokens_details", "cache_write_tokens"],
            ReplyField::Count(|usage| &mut usage.cache_creation),
        ),
        (&["usage", "prompt_tokens_details", "audio_tokens"], ReplyField::Count(|usage| &mut usage.input_audio)),
        (&["usage", "prompt_tokens_details", "image_tokens"], ReplyField::Count(|usage| &mut usage.input_image)),
        (&["usage", "completion_tokens_details", "reasoning_tokens"], ReplyField::Count(|usage| &mut usage.reasoning)),
        (&["usage", "completion_tokens_details", "audio_tokens"], ReplyField::Count(|usage| &mut usage.output_audio)),
        (&["usage", "completion_tokens_details", "image_tokens"], ReplyField::Count(|usage| &mut usage.output_image)),
        (&["id"], ReplyField::Id),
        (&["model"], ReplyField::Model),
        (&["service_tier"], ReplyField::ServiceTier),
        (&["choices", EACH, "finish_reason"], ReplyField::FinishReason),
        (&["error", "code"], ReplyField::ErrorCode),
        (&["error", "type"], ReplyField::ErrorType),
    ],
};
