//! OpenAI chat completions, and the many servers that speak them.
//!
//! A stream reports usage once, in its last data event before `[DONE]`, if the request asked for it with
//! `stream_options.include_usage`; other events carry `"usage": null` or none. Compatible servers put usage into
//! an event that still has choices (Mistral, Groq, DeepSeek), repeat it (Groq, vLLM) or send it cumulatively, so
//! any object counts, the last one wins and nothing is summed.
//! Source: <https://platform.openai.com/docs/api-reference/chat>.

use super::{Format, ReplyField, RequestField};
use crate::body::json::{container, each, key, within, within_each};

/// The format.
pub static FORMAT: Format = Format {
    name: "openai_chat",
    operation: "chat",
    request: &[
        key("model", RequestField::Model),
        key("stream", RequestField::Stream),
        key("max_tokens", RequestField::MaxOutputTokens),
        key("max_completion_tokens", RequestField::MaxOutputTokens),
        within("messages", &[each(RequestField::Message)]),
        within("tools", &[each(RequestField::Tool)]),
    ],
    reply: &[
        key("id", ReplyField::Id),
        key("model", ReplyField::Model),
        key("service_tier", ReplyField::ServiceTier),
        within("choices", &[within_each(&[key("finish_reason", ReplyField::FinishReason)])]),
        container(
            "usage",
            ReplyField::Usage,
            &[
                key("prompt_tokens", ReplyField::Count(|usage| &mut usage.input)),
                key("completion_tokens", ReplyField::Count(|usage| &mut usage.output)),
                key("total_tokens", ReplyField::Count(|usage| &mut usage.total)),
                within(
                    "prompt_tokens_details",
                    &[
                        key("cached_tokens", ReplyField::Count(|usage| &mut usage.cached_input)),
                        key("cache_write_tokens", ReplyField::Count(|usage| &mut usage.cache_creation)),
                        key("audio_tokens", ReplyField::Count(|usage| &mut usage.input_audio)),
                        key("image_tokens", ReplyField::Count(|usage| &mut usage.input_image)),
                    ],
                ),
                within(
                    "completion_tokens_details",
                    &[
                        key("reasoning_tokens", ReplyField::Count(|usage| &mut usage.reasoning)),
                        key("audio_tokens", ReplyField::Count(|usage| &mut usage.output_audio)),
                        key("image_tokens", ReplyField::Count(|usage| &mut usage.output_image)),
                    ],
                ),
            ],
        ),
        within("error", &[key("code", ReplyField::ErrorCode), key("type", ReplyField::ErrorType)]),
    ],
};
