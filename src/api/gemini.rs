//! Google's Gemini API and Vertex AI.
//!
//! Thoughts are not in `candidatesTokenCount` and the provider's tool use is not in `promptTokenCount`. A stream is
//! server-sent events with `alt=sse`, else one JSON array; either way `usageMetadata` is cumulative and may lack any
//! count in any chunk. With integer enumerations a modality is a number. The model stands in the path only.
//! Source: <https://ai.google.dev/api/generate-content#UsageMetadata>.

use super::uses::Use;
use super::{Dialect, Format, PLAIN, ReplyField, RequestField, Side, count, openai};
use crate::body::json::{Place, Places, container, container_each, each, key, pieces, within, within_each};
use crate::usage::{Rule, Unit};

const DETAIL: Places<ReplyField> =
    &[key("modality", ReplyField::DetailModality), key("tokenCount", ReplyField::DetailTokens)];

const PROMPT_DETAILS: Places<ReplyField> = &[container_each(ReplyField::Detail(Side::Prompt), DETAIL)];

/// Usage, by names that no other format has.
pub(super) const USAGE: Place<ReplyField> = container(
    "usageMetadata",
    ReplyField::Usage,
    &[
        key("promptTokenCount", ReplyField::TellingCount(|usage| &mut usage.input, Rule::ThoughtsApart)),
        key("cachedContentTokenCount", count(|usage| &mut usage.cached_input)),
        key("candidatesTokenCount", count(|usage| &mut usage.output)),
        key("thoughtsTokenCount", count(|usage| &mut usage.reasoning)),
        key("toolUsePromptTokenCount", count(|usage| &mut usage.tool_use_input)),
        // By itself it is the size of a cache that was made, and not billed with the call.
        key("totalTokenCount", ReplyField::TellingCount(|usage| &mut usage.total, Rule::ThoughtsApart)),
        within("promptTokensDetails", PROMPT_DETAILS),
        // Batch embeddings leave out an s.
        within("promptTokenDetails", PROMPT_DETAILS),
        within("toolUsePromptTokensDetails", PROMPT_DETAILS),
        within("cacheTokensDetails", &[container_each(ReplyField::Detail(Side::Cache), DETAIL)]),
        within("candidatesTokensDetails", &[container_each(ReplyField::Detail(Side::Answer), DETAIL)]),
        key("trafficType", ReplyField::ServiceTier),
        key("serviceTier", ReplyField::ServiceTier),
    ],
);

const ERROR: Place<ReplyField> = within("error", &[key("status", ReplyField::ErrorCode)]);

const CANDIDATES: Place<ReplyField> = within(
    "candidates",
    &[within_each(&[
        key("finishReason", ReplyField::FinishReason),
        within("content", &[within("parts", &[within_each(&[pieces("text", ReplyField::Text)])])]),
        within("groundingMetadata", &[within("webSearchQueries", &[each(ReplyField::GroundingQuery)])]),
    ])],
);

const CHUNK: Places<ReplyField> =
    &[key("modelVersion", ReplyField::Model), key("responseId", ReplyField::Id), CANDIDATES, USAGE, ERROR];

// Google's servers take names in requests as `camelCase` and as `snake_case`; both are in its documentation.

pub(super) const SETTINGS: Places<RequestField> = &[
    key("maxOutputTokens", RequestField::MaxOutputTokens),
    key("max_output_tokens", RequestField::MaxOutputTokens),
    key("candidateCount", RequestField::Choices),
    key("candidate_count", RequestField::Choices),
    key("responseMimeType", RequestField::OutputFormat),
    key("response_mime_type", RequestField::OutputFormat),
    key("responseSchema", RequestField::Use(Use::StructuredOutput)),
    key("response_schema", RequestField::Use(Use::StructuredOutput)),
    key("responseJsonSchema", RequestField::Use(Use::StructuredOutput)),
    key("response_json_schema", RequestField::Use(Use::StructuredOutput)),
    within("responseModalities", &[each(RequestField::OutputModality)]),
    within("response_modalities", &[each(RequestField::OutputModality)]),
    key("thinkingConfig", RequestField::Use(Use::Reasoning)),
    key("thinking_config", RequestField::Use(Use::Reasoning)),
    // In interactions it stands by itself.
    key("thinking_level", RequestField::Use(Use::Reasoning)),
    key("responseLogprobs", RequestField::Use(Use::Logprobs)),
    key("response_logprobs", RequestField::Use(Use::Logprobs)),
    key("speechConfig", RequestField::Use(Use::AudioOutput)),
    key("speech_config", RequestField::Use(Use::AudioOutput)),
    openai::TEMPERATURE,
    key("topP", RequestField::Use(Use::Sampling)),
    openai::TOP_P,
    key("topK", RequestField::Use(Use::Sampling)),
    openai::TOP_K,
];

const FILE: Places<RequestField> = &[key("mimeType", RequestField::FileKind), key("mime_type", RequestField::FileKind)];

const PARTS: Places<RequestField> = &[within_each(&[
    container("inlineData", RequestField::File, FILE),
    container("inline_data", RequestField::File, FILE),
    container("fileData", RequestField::File, FILE),
    container("file_data", RequestField::File, FILE),
    key("thoughtSignature", RequestField::Use(Use::ReasoningHistory)),
    key("thought_signature", RequestField::Use(Use::ReasoningHistory)),
])];

const FUNCTIONS: Places<RequestField> =
    &[container_each(RequestField::Tool, &[key("name", RequestField::ToolName)]), key("name", RequestField::ToolName)];

/// What stands in `tools`: a list or, which Google takes for a list, the only one of it.
macro_rules! tools {
    ($($place:expr,)*) => { &[within_each(&[$($place,)*]), $($place,)*] };
}

const TOOLS: Places<RequestField> = tools![
    within("functionDeclarations", FUNCTIONS),
    within("function_declarations", FUNCTIONS),
    key("googleSearch", RequestField::Use(Use::ServerTools)),
    key("google_search", RequestField::Use(Use::ServerTools)),
    key("googleSearchRetrieval", RequestField::Use(Use::ServerTools)),
    key("google_search_retrieval", RequestField::Use(Use::ServerTools)),
    key("googleMaps", RequestField::Use(Use::ServerTools)),
    key("google_maps", RequestField::Use(Use::ServerTools)),
    key("codeExecution", RequestField::Use(Use::ServerTools)),
    key("code_execution", RequestField::Use(Use::ServerTools)),
    key("urlContext", RequestField::Use(Use::ServerTools)),
    key("url_context", RequestField::Use(Use::ServerTools)),
    key("fileSearch", RequestField::Use(Use::ServerTools)),
    key("file_search", RequestField::Use(Use::ServerTools)),
    key("computerUse", RequestField::Use(Use::ServerTools)),
    key("computer_use", RequestField::Use(Use::ServerTools)),
    // Vertex AI's.
    key("retrieval", RequestField::Use(Use::ServerTools)),
];

const FUNCTION_CALLING: Places<RequestField> = &[key("mode", RequestField::ToolChoice)];

/// `POST …/models/{model}:generateContent` and `:streamGenerateContent`.
pub(super) static GENERATE_CONTENT: Format = Format {
    name: "gemini_generate_content",
    operation: "generate_content",
    request: &[
        within("generationConfig", SETTINGS),
        within("generation_config", SETTINGS),
        within("contents", &[container_each(RequestField::Message, &[within("parts", PARTS)])]),
        within("tools", TOOLS),
        within("toolConfig", &[within("functionCallingConfig", FUNCTION_CALLING)]),
        within("tool_config", &[within("function_calling_config", FUNCTION_CALLING)]),
        key("cachedContent", RequestField::Use(Use::CachedContent)),
        key("cached_content", RequestField::Use(Use::CachedContent)),
    ],
    // Without `alt=sse` a stream is an array of chunks.
    reply: &[
        key("modelVersion", ReplyField::Model),
        key("responseId", ReplyField::Id),
        CANDIDATES,
        USAGE,
        ERROR,
        container_each(ReplyField::Chunk, CHUNK),
    ],
    rule: Rule::ThoughtsApart,
    dialect: Dialect::Google,
    ..PLAIN
};

/// `POST …/models/{model}:countTokens`: free.
pub(super) static COUNT_TOKENS: Format =
    Format { name: "gemini_count_tokens", operation: "count_tokens", free: true, dialect: Dialect::Google, ..PLAIN };

/// `POST …/models/{model}:embedContent` and `:batchEmbedContents`; only newer models report usage.
pub(super) static EMBED: Format = Format {
    name: "gemini_embed",
    operation: "embeddings",
    reply: &[USAGE, ERROR],
    rule: Rule::ThoughtsApart,
    dialect: Dialect::Google,
    ..PLAIN
};

/// `POST …/models/{model}:predict` on Vertex AI: embeddings, counted per instance, which this adds up, and characters; or
/// images, by their number.
pub(super) static VERTEX_PREDICT: Format = Format {
    name: "vertex_predict",
    operation: "embeddings",
    reply: &[
        within(
            "predictions",
            &[within_each(&[
                within(
                    "embeddings",
                    &[within("statistics", &[key("token_count", ReplyField::AddedCount(|usage| &mut usage.input))])],
                ),
                key("mimeType", ReplyField::MediaType),
            ])],
        ),
        within("metadata", &[key("billableCharacterCount", ReplyField::Unit(Unit::Characters))]),
        ERROR,
    ],
    dialect: Dialect::Google,
    ..PLAIN
};
