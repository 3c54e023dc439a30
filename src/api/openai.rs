//! OpenAI's APIs, and the many servers that speak them.
//!
//! A chat stream reports usage once, in its last data event before `[DONE]`, if the request asked for it with
//! `stream_options.include_usage`; other events carry `"usage": null` or none. Compatible servers put usage into an
//! event that still has choices (Mistral, DeepSeek, OpenRouter) or into the choice itself (Moonshot), repeat it (Groq,
//! vLLM) or send it cumulatively (Perplexity), so any object counts, the last one wins and nothing is summed. Their own
//! spellings of the same counts stand in the one table here: `prompt_cache_hit_tokens` (DeepSeek), `cached_tokens` at
//! the top (Together), `prompt_token_details` (Writer, Mistral), `num_cached_tokens` and `service_tier` (Mistral),
//! `citation_tokens`, `num_search_queries` and `tool_calls_details` (Perplexity), costs (OpenRouter, Vercel, Perplexity,
//! xAI), `cache_read_input_tokens` (Databricks; among the details Perplexity), `cache_creation_input_tokens` and
//! `cache_type` among the details (Alibaba). Groq's compound systems say in `usage_breakdown` which models they called, and
//! that is what is billed. A Responses stream reports in its terminal event, inside `response`.
//! Source: <https://platform.openai.com/docs/api-reference>; of Alibaba's caches
//! <https://www.alibabacloud.com/help/en/model-studio/context-cache>.

use super::uses::Use;
use super::{Format, PLAIN, ReplyField, RequestField, anthropic, count};
use crate::body::json::{Place, Places, container, container_each, each, key, pieces, within, within_each};
use crate::usage::{Rule, Unit};

/// `tools`, each with its kind, and its name beside it, in `function` or, of a tool whose input is free text, in
/// `custom`. Those of an MCP server are named where the caller allows some only: in a list, or in one in an object.
pub(super) const TOOLS: Place<RequestField> = within(
    "tools",
    &[container_each(
        RequestField::Tool,
        &[
            key("type", RequestField::ToolKind),
            key("name", RequestField::ToolName),
            within("function", &[key("name", RequestField::ToolName)]),
            within("custom", &[key("name", RequestField::ToolName)]),
            within(
                "allowed_tools",
                &[each(RequestField::ToolName), within("tool_names", &[each(RequestField::ToolName)])],
            ),
        ],
    )],
);

/// A word, or an object with the word in `type`.
pub(super) const TOOL_CHOICE: Place<RequestField> =
    container("tool_choice", RequestField::ToolChoice, &[key("type", RequestField::ToolChoice)]);

/// Parts of a message, each with its kind.
pub(super) const CONTENT: Place<RequestField> =
    within("content", &[within_each(&[key("type", RequestField::PartKind)])]);

pub(super) const RESPONSE_FORMAT: Place<RequestField> =
    within("response_format", &[key("type", RequestField::OutputFormat)]);

pub(super) const REASONING_EFFORT: Place<RequestField> = key("reasoning_effort", RequestField::Use(Use::Reasoning));
pub(super) const TEMPERATURE: Place<RequestField> = key("temperature", RequestField::Use(Use::Sampling));
pub(super) const TOP_P: Place<RequestField> = key("top_p", RequestField::Use(Use::Sampling));
pub(super) const TOP_K: Place<RequestField> = key("top_k", RequestField::Use(Use::Sampling));
const TOP_LOGPROBS: Place<RequestField> = key("top_logprobs", RequestField::Use(Use::Logprobs));
const SERVICE_TIER: Place<RequestField> = key("service_tier", RequestField::ServiceTier);

/// In the Responses API and, by OpenRouter, in the chat API.
const REASONING: Place<RequestField> = within(
    "reasoning",
    &[
        key("effort", RequestField::Use(Use::Reasoning)),
        key("summary", RequestField::Use(Use::Reasoning)),
        key("generate_summary", RequestField::Use(Use::Reasoning)),
        key("max_tokens", RequestField::Use(Use::Reasoning)),
        key("enabled", RequestField::Use(Use::Reasoning)),
    ],
);

pub(super) const CHAT_REQUEST: Places<RequestField> = &[
    key("model", RequestField::Model),
    key("stream", RequestField::Stream),
    key("max_tokens", RequestField::MaxTokens),
    key("max_completion_tokens", RequestField::MaxOutputTokens),
    within("messages", &[container_each(RequestField::Message, &[CONTENT])]),
    TOOLS,
    within("functions", &[container_each(RequestField::Tool, &[key("name", RequestField::ToolName)])]),
    TOOL_CHOICE,
    container("function_call", RequestField::ToolChoice, &[key("name", RequestField::ToolChoice)]),
    key("n", RequestField::Choices),
    SERVICE_TIER,
    RESPONSE_FORMAT,
    REASONING_EFFORT,
    REASONING,
    // Of servers that took it over from Anthropic.
    anthropic::THINKING,
    key("verbosity", RequestField::Use(Use::Verbosity)),
    TEMPERATURE,
    TOP_P,
    key("frequency_penalty", RequestField::Use(Use::Sampling)),
    key("presence_penalty", RequestField::Use(Use::Sampling)),
    key("logit_bias", RequestField::Use(Use::Sampling)),
    key("stop", RequestField::Use(Use::Sampling)),
    key("logprobs", RequestField::Use(Use::Logprobs)),
    TOP_LOGPROBS,
    key("prediction", RequestField::Use(Use::Prediction)),
    key("audio", RequestField::Use(Use::AudioOutput)),
    within("modalities", &[each(RequestField::OutputModality)]),
    key("web_search_options", RequestField::Use(Use::ServerTools)),
    // OpenRouter's.
    key("models", RequestField::Use(Use::FallbackModels)),
];

/// `ephemeral` where the cache is one that the caller asked for; else absent, or `implicit` (Alibaba).
const CACHE_TYPE: Place<ReplyField> = key("cache_type", ReplyField::CacheType);

/// Where Alibaba's Responses API says of a session's cache what the details beside it leave out.
const X_DETAILS: Place<ReplyField> = within(
    "x_details",
    &[within_each(&[within(
        "prompt_tokens_details",
        &[CACHE_TYPE, anthropic::CACHE_WRITE, anthropic::CACHE_WRITE_SPLIT],
    )])],
);

pub(super) const PROMPT_DETAILS: Places<ReplyField> = &[
    key("cached_tokens", count(|usage| &mut usage.cached_input)),
    anthropic::CACHE_READ,
    within(
        "cached_tokens_details",
        &[
            key("audio_tokens", count(|usage| &mut usage.cached_input_audio)),
            key("image_tokens", count(|usage| &mut usage.cached_input_image)),
        ],
    ),
    key("cache_write_tokens", count(|usage| &mut usage.cache_creation)),
    anthropic::CACHE_WRITE,
    anthropic::CACHE_WRITE_SPLIT,
    CACHE_TYPE,
    key("audio_tokens", count(|usage| &mut usage.input_audio)),
    key("image_tokens", count(|usage| &mut usage.input_image)),
    key("video_tokens", count(|usage| &mut usage.input_video)),
];

pub(super) const OUTPUT_DETAILS: Places<ReplyField> = &[
    key("reasoning_tokens", count(|usage| &mut usage.reasoning)),
    key("audio_tokens", count(|usage| &mut usage.output_audio)),
    key("image_tokens", count(|usage| &mut usage.output_image)),
];

/// What Perplexity's agents did.
pub(super) const TOOL_CALLS: Place<ReplyField> = within(
    "tool_calls_details",
    &[within("search_web", &[key("invocation", ReplyField::Unit(Unit::WebSearchRequests))])],
);

/// `usage` in either of OpenAI's spellings, prompt/completion and input/output.
pub(super) const USAGE: Place<ReplyField> = container(
    "usage",
    ReplyField::Usage,
    &[
        key("prompt_tokens", count(|usage| &mut usage.input)),
        key("completion_tokens", count(|usage| &mut usage.output)),
        key("total_tokens", count(|usage| &mut usage.total)),
        within("prompt_tokens_details", PROMPT_DETAILS),
        within("completion_tokens_details", OUTPUT_DETAILS),
        key("input_tokens", count(|usage| &mut usage.input)),
        key("output_tokens", count(|usage| &mut usage.output)),
        within("input_tokens_details", PROMPT_DETAILS),
        within("input_token_details", PROMPT_DETAILS),
        within("output_tokens_details", OUTPUT_DETAILS),
        within("prompt_token_details", PROMPT_DETAILS),
        X_DETAILS,
        key("prompt_cache_hit_tokens", count(|usage| &mut usage.cached_input)),
        key("cached_tokens", count(|usage| &mut usage.cached_input)),
        key("num_cached_tokens", count(|usage| &mut usage.cached_input)),
        anthropic::CACHE_READ,
        anthropic::CACHE_WRITE,
        key("reasoning_tokens", count(|usage| &mut usage.reasoning)),
        key("citation_tokens", count(|usage| &mut usage.citation)),
        key("seconds", ReplyField::Unit(Unit::AudioSeconds)),
        key("prompt_audio_seconds", ReplyField::Unit(Unit::AudioSeconds)),
        container("cost", ReplyField::CostUsd, &[key("total_cost", ReplyField::CostUsd)]),
        key("cost_in_usd_ticks", ReplyField::CostTicks),
        within("server_side_tool_usage_details", &[key("web_search_calls", ReplyField::Unit(Unit::WebSearchRequests))]),
        key("num_search_queries", ReplyField::Unit(Unit::WebSearchRequests)),
        TOOL_CALLS,
        key("service_tier", ReplyField::ServiceTier),
    ],
);

/// The calls that one of Groq's compound systems made, each at its own model.
const USAGE_BREAKDOWN: Place<ReplyField> = within(
    "usage_breakdown",
    &[container(
        "models",
        ReplyField::Iterations,
        &[container_each(
            ReplyField::Iteration,
            &[
                key("model", ReplyField::IterationModel),
                within(
                    "usage",
                    &[
                        key("prompt_tokens", count(|usage| &mut usage.input)),
                        key("completion_tokens", count(|usage| &mut usage.output)),
                        within("prompt_tokens_details", PROMPT_DETAILS),
                        within("completion_tokens_details", OUTPUT_DETAILS),
                    ],
                ),
            ],
        )],
    )],
);

const ERROR: Place<ReplyField> =
    container("error", ReplyField::Error, &[key("code", ReplyField::ErrorCode), key("type", ReplyField::ErrorType)]);

const MESSAGE: Places<ReplyField> = &[
    pieces("content", ReplyField::Text),
    pieces("reasoning_content", ReplyField::Text),
    pieces("reasoning", ReplyField::Text),
    pieces("refusal", ReplyField::Text),
    within("tool_calls", &[within_each(&[within("function", &[pieces("arguments", ReplyField::Text)])])]),
];

/// The answers, or pieces of them.
pub(super) const CHOICES: Place<ReplyField> = within(
    "choices",
    &[within_each(&[
        key("finish_reason", ReplyField::FinishReason),
        within("delta", MESSAGE),
        within("message", MESSAGE),
        USAGE,
    ])],
);

/// `POST …/chat/completions`.
pub(super) static CHAT: Format = Format {
    name: "openai_chat",
    operation: "chat",
    request: CHAT_REQUEST,
    reply: &[
        key("id", ReplyField::Id),
        key("model", ReplyField::Model),
        key("service_tier", ReplyField::ServiceTier),
        CHOICES,
        USAGE,
        USAGE_BREAKDOWN,
        within("x_groq", &[USAGE, USAGE_BREAKDOWN]),
        ERROR,
    ],
    include_usage: true,
    ..PLAIN
};

/// `POST …/completions`, the legacy one.
pub(super) static COMPLETIONS: Format = Format {
    name: "openai_completions",
    operation: "text_completion",
    request: CHAT_REQUEST,
    reply: &[
        key("id", ReplyField::Id),
        key("model", ReplyField::Model),
        within(
            "choices",
            &[within_each(&[key("finish_reason", ReplyField::FinishReason), pieces("text", ReplyField::Text)])],
        ),
        USAGE,
        ERROR,
    ],
    include_usage: true,
    ..PLAIN
};

const OUTPUT_ACTION: Place<ReplyField> = within("action", &[key("type", ReplyField::OutputAction)]);

const OUTPUT_ITEMS: Place<ReplyField> =
    container("output", ReplyField::Outputs, &[within_each(&[key("type", ReplyField::OutputType), OUTPUT_ACTION])]);

/// The same in an answer that is no stream, where the text has not been counted piece by piece.
const WHOLE_OUTPUT: Place<ReplyField> = container(
    "output",
    ReplyField::Outputs,
    &[within_each(&[
        key("type", ReplyField::OutputType),
        OUTPUT_ACTION,
        within("content", &[within_each(&[pieces("text", ReplyField::Text)])]),
    ])],
);

/// What a tool returned: parts, or one thing.
const TOOL_OUTPUT: Places<RequestField> =
    &[key("type", RequestField::PartKind), within_each(&[key("type", RequestField::PartKind)])];

/// `POST …/responses`, also `/compact`.
pub(super) static RESPONSES: Format = Format {
    name: "openai_responses",
    operation: "chat",
    request: &[
        key("model", RequestField::Model),
        key("stream", RequestField::Stream),
        key("max_output_tokens", RequestField::MaxOutputTokens),
        within(
            "input",
            &[container_each(
                RequestField::Message,
                &[key("type", RequestField::PartKind), CONTENT, within("output", TOOL_OUTPUT)],
            )],
        ),
        TOOLS,
        TOOL_CHOICE,
        SERVICE_TIER,
        within(
            "text",
            &[
                within("format", &[key("type", RequestField::OutputFormat)]),
                key("verbosity", RequestField::Use(Use::Verbosity)),
            ],
        ),
        REASONING,
        TEMPERATURE,
        TOP_P,
        TOP_LOGPROBS,
        within("include", &[each(RequestField::Include)]),
        key("previous_response_id", RequestField::Use(Use::Conversation)),
        key("conversation", RequestField::Use(Use::Conversation)),
        key("prompt", RequestField::Use(Use::Conversation)),
    ],
    reply: &[
        key("type", ReplyField::EventType),
        key("code", ReplyField::EventCode),
        pieces("delta", ReplyField::Text),
        within(
            "response",
            &[
                key("id", ReplyField::Id),
                key("model", ReplyField::Model),
                key("service_tier", ReplyField::ServiceTier),
                key("status", ReplyField::Status),
                key("background", ReplyField::Background),
                within("incomplete_details", &[key("reason", ReplyField::FinishReason)]),
                OUTPUT_ITEMS,
                USAGE,
                ERROR,
            ],
        ),
        key("id", ReplyField::Id),
        key("model", ReplyField::Model),
        key("service_tier", ReplyField::ServiceTier),
        key("status", ReplyField::Status),
        key("background", ReplyField::Background),
        within("incomplete_details", &[key("reason", ReplyField::FinishReason)]),
        WHOLE_OUTPUT,
        USAGE,
        ERROR,
    ],
    ..PLAIN
};

/// `POST …/embeddings`. No completion is counted.
pub(super) static EMBEDDINGS: Format = Format {
    name: "openai_embeddings",
    operation: "embeddings",
    request: &[key("model", RequestField::Model)],
    reply: &[key("model", ReplyField::Model), USAGE, ERROR],
    ..PLAIN
};

/// `POST …/images/…`. The images come before the usage, and no model is named.
pub(super) static IMAGES: Format = Format {
    name: "openai_images",
    operation: "generate_content",
    request: &[key("model", RequestField::Model), key("stream", RequestField::Stream)],
    reply: &[
        key("type", ReplyField::EventType),
        within("data", &[each(ReplyField::Element(Unit::Images))]),
        USAGE,
        ERROR,
    ],
    rule: Rule::GeneratesImages,
    ..PLAIN
};

/// `POST …/audio/transcriptions` and `translations`: tokens or seconds; the request is a form.
pub(super) static TRANSCRIPTION: Format = Format {
    name: "openai_audio_transcription",
    operation: "transcription",
    request: &[key("model", RequestField::Model)],
    reply: &[key("type", ReplyField::EventType), key("model", ReplyField::Model), USAGE, ERROR],
    ..PLAIN
};

/// `POST …/audio/speech`: billed by the character of the request, or by tokens in a stream's last event.
pub(super) static SPEECH: Format = Format {
    name: "openai_audio_speech",
    operation: "speech",
    request: &[key("model", RequestField::Model), pieces("input", RequestField::Characters)],
    reply: &[key("type", ReplyField::EventType), USAGE, ERROR],
    rule: Rule::GeneratesAudio,
    ..PLAIN
};

/// `POST …/responses/input_tokens`: free.
pub(super) static INPUT_TOKENS: Format = Format {
    name: "openai_input_tokens",
    operation: "count_tokens",
    request: &[key("model", RequestField::Model)],
    free: true,
    ..PLAIN
};

/// `POST …/moderations`: free.
pub(super) static MODERATIONS: Format = Format {
    name: "openai_moderations",
    operation: "moderation",
    request: &[key("model", RequestField::Model)],
    reply: &[key("id", ReplyField::Id), key("model", ReplyField::Model), ERROR],
    free: true,
    ..PLAIN
};
