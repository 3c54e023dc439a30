//! Wire formats: which LLM API a call speaks, and where its facts stand.
//!
//! One file per family of formats below. A format is data: the places to look at in a request and in a reply, which
//! fact stands there, and how its counts are to be read. It knows nothing of prices, budgets or hosts. What the facts
//! are is in [`facts`], how a format is recognised in [`recognise`].

pub mod facts;
pub mod path;
pub mod provider;
pub mod recognise;
pub mod uses;

mod anthropic;
mod bedrock;
mod cohere;
mod gemini;
mod interactions;
mod mistral;
mod ollama;
mod openai;
mod unrecognised;

pub use facts::{ReplyFacts, RequestFacts};
pub use recognise::Endpoint;

use crate::body::json::{Places, Value};
use crate::usage::{Rule, Unit, UsageReport};
use uses::Use;

/// The wire format of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // each is documented where its places are
pub enum Api {
    OpenaiChat,
    OpenaiResponses,
    OpenaiCompletions,
    OpenaiEmbeddings,
    OpenaiImages,
    OpenaiTranscription,
    OpenaiSpeech,
    OpenaiModerations,
    OpenaiInputTokens,
    AnthropicMessages,
    AnthropicCountTokens,
    GeminiGenerateContent,
    GeminiInteractions,
    GeminiCountTokens,
    GeminiEmbed,
    VertexPredict,
    BedrockConverse,
    BedrockInvoke,
    BedrockCountTokens,
    CohereChat,
    CohereEmbed,
    CohereRerank,
    MistralOcr,
    OllamaChat,
    OllamaEmbed,
    Unrecognised,
}

impl Api {
    /// Every format.
    pub const ALL: [Api; 26] = [
        Api::OpenaiChat,
        Api::OpenaiResponses,
        Api::OpenaiCompletions,
        Api::OpenaiEmbeddings,
        Api::OpenaiImages,
        Api::OpenaiTranscription,
        Api::OpenaiSpeech,
        Api::OpenaiModerations,
        Api::OpenaiInputTokens,
        Api::AnthropicMessages,
        Api::AnthropicCountTokens,
        Api::GeminiGenerateContent,
        Api::GeminiInteractions,
        Api::GeminiCountTokens,
        Api::GeminiEmbed,
        Api::VertexPredict,
        Api::BedrockConverse,
        Api::BedrockInvoke,
        Api::BedrockCountTokens,
        Api::CohereChat,
        Api::CohereEmbed,
        Api::CohereRerank,
        Api::MistralOcr,
        Api::OllamaChat,
        Api::OllamaEmbed,
        Api::Unrecognised,
    ];

    /// Where its facts stand.
    pub fn format(self) -> &'static Format {
        match self {
            Api::OpenaiChat => &openai::CHAT,
            Api::OpenaiResponses => &openai::RESPONSES,
            Api::OpenaiCompletions => &openai::COMPLETIONS,
            Api::OpenaiEmbeddings => &openai::EMBEDDINGS,
            Api::OpenaiImages => &openai::IMAGES,
            Api::OpenaiTranscription => &openai::TRANSCRIPTION,
            Api::OpenaiSpeech => &openai::SPEECH,
            Api::OpenaiModerations => &openai::MODERATIONS,
            Api::OpenaiInputTokens => &openai::INPUT_TOKENS,
            Api::AnthropicMessages => &anthropic::MESSAGES,
            Api::AnthropicCountTokens => &anthropic::COUNT_TOKENS,
            Api::GeminiGenerateContent => &gemini::GENERATE_CONTENT,
            Api::GeminiInteractions => &interactions::INTERACTIONS,
            Api::GeminiCountTokens => &gemini::COUNT_TOKENS,
            Api::GeminiEmbed => &gemini::EMBED,
            Api::VertexPredict => &gemini::VERTEX_PREDICT,
            Api::BedrockConverse => &bedrock::CONVERSE,
            Api::BedrockInvoke => &bedrock::INVOKE,
            Api::BedrockCountTokens => &bedrock::COUNT_TOKENS,
            Api::CohereChat => &cohere::CHAT,
            Api::CohereEmbed => &cohere::EMBED,
            Api::CohereRerank => &cohere::RERANK,
            Api::MistralOcr => &mistral::OCR,
            Api::OllamaChat => &ollama::CHAT,
            Api::OllamaEmbed => &ollama::EMBED,
            Api::Unrecognised => &unrecognised::ANY,
        }
    }

    /// The format of this name.
    pub fn of_name(name: &str) -> Option<Api> {
        Api::ALL.into_iter().find(|api| api.format().name == name)
    }
}

/// How a family of APIs words its errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // named after their families
pub enum Dialect {
    OpenAi,
    Anthropic,
    Google,
    Bedrock,
    Cohere,
    Ollama,
}

/// Where a format's facts stand and how they are to be read.
pub struct Format {
    /// Name in records, configuration and metrics.
    pub name: &'static str,
    /// OpenTelemetry's `gen_ai.operation.name`.
    pub operation: &'static str,
    /// Facts of a request.
    pub request: Places<RequestField>,
    /// Facts of a reply.
    pub reply: Places<ReplyField>,
    /// How it words errors.
    pub dialect: Dialect,
    /// How the counts relate to each other.
    pub rule: Rule,
    /// Whether calls are free of charge.
    pub free: bool,
    /// Whether a stream reports usage only where `stream_options.include_usage` asks for it.
    pub include_usage: bool,
}

/// What most formats have in common; each names what it does otherwise.
const PLAIN: Format = Format {
    name: "",
    operation: "",
    request: &[],
    reply: &[],
    dialect: Dialect::OpenAi,
    rule: Rule::OpenAi,
    free: false,
    include_usage: false,
};

/// A fact of a request.
#[derive(Clone, Copy, Debug)]
pub enum RequestField {
    /// The model asked for.
    Model,
    /// Whether a stream is asked for.
    Stream,
    /// The caller's limit on generated tokens.
    MaxOutputTokens,
    /// The same by the name that OpenAI's reasoning models refuse.
    MaxTokens,
    /// One message of the conversation.
    Message,
    /// One tool offered.
    Tool,
    /// Its name.
    ToolName,
    /// The text to be spoken; billed by the character.
    Characters,
    /// How many answers are asked for.
    Choices,
    /// The service tier asked for.
    ServiceTier,
    /// The speed asked for.
    Speed,
    /// The geography asked for.
    Geo,
    /// Anything but null, false and nothing is this use.
    Use(Use),
    /// The kind of a tool offered.
    ToolKind,
    /// Whether and which tool is to be called.
    ToolChoice,
    /// The kind of output asked for.
    OutputFormat,
    /// A kind of output, one of several.
    OutputModality,
    /// Something more to be put out.
    Include,
    /// The kind of thinking.
    ThinkingKind,
    /// The most tokens to think with.
    ThinkingBudget,
    /// Who wrote a message.
    Role,
    /// The kind of a message's part.
    PartKind,
    /// A part that is a file, and what its kind is a use of.
    Media(Use),
    /// A part that is a file of the kind that stands in it.
    File,
    /// That kind.
    FileKind,
    /// A place that the configuration names, by its number there.
    Configured(u8),
}

/// Where one count of a usage report is kept.
pub type Slot = fn(&mut UsageReport) -> &mut Option<u64>;

/// A fact of a reply.
#[derive(Clone, Copy, Debug)]
pub enum ReplyField {
    /// The object the counts stand in.
    Usage,
    /// The same where it begins the counting anew.
    FirstUsage,
    /// One count of it, or of the iteration being read.
    Count(Slot),
    /// A count that tells how a usage object of unknown format is to be read.
    TellingCount(Slot, Rule),
    /// A count that stands outside any usage object.
    BareCount(Slot),
    /// One of several counts outside any usage object, which add up.
    AddedCount(Slot),
    /// A count of things that are not tokens.
    Unit(Unit),
    /// One of the things that are billed by their number.
    Element(Unit),
    /// One piece of a stream that comes as one text: what it counts, it counts for the stream so far.
    Chunk,
    /// One query of a search that the answer is grounded on.
    GroundingQuery,
    /// The list of the calls a reply was made of, where it was several.
    Iterations,
    /// One of them, with its own counts and perhaps model.
    Iteration,
    /// Its model.
    IterationModel,
    /// One element of a list of counts by modality.
    Detail(Side),
    /// Its modality.
    DetailModality,
    /// Its count.
    DetailTokens,
    /// Which of a provider's caches the cached tokens were read from.
    CacheType,
    /// What the provider says the call cost, in dollars.
    CostUsd,
    /// The same in units of 1e-10 dollars.
    CostTicks,
    /// The list of what was put out.
    Outputs,
    /// What one of them is.
    OutputType,
    /// What it did.
    OutputAction,
    /// The media type of a thing made; images are billed by their number.
    MediaType,
    /// Generated text, as it is streamed or whole.
    Text,
    /// The provider's id of the response.
    Id,
    /// The model that answers.
    Model,
    /// The service tier it is served at.
    ServiceTier,
    /// The speed it is served at.
    Speed,
    /// The geography it is served in.
    Geo,
    /// Why generation ended.
    FinishReason,
    /// How far a response has come; in the end it is why generation ended.
    Status,
    /// Whether the response is made in the background.
    Background,
    /// The kind of an event; some kinds end the stream.
    EventType,
    /// Whether the stream is over.
    Done,
    /// The provider's error code.
    ErrorCode,
    /// The provider's kind of error, where there is no code.
    ErrorType,
    /// The error code of an event, if that is an error.
    EventCode,
    /// An error, which may be nothing but a text.
    Error,
}

/// What a list of counts by modality is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The prompt.
    Prompt,
    /// The part of the prompt read from a cache.
    Cache,
    /// The part of the prompt written to a cache, by lifetime instead of modality.
    CacheWrite,
    /// What the provider's own tools did, by tool instead of modality.
    Tools,
    /// The answer.
    Answer,
}

/// In which Bedrock's models name the service tier of an answer.
pub const SERVICE_TIER_HEADER: &str = "x-amzn-bedrock-service-tier";

/// The counts in a response's headers, where its format has any.
pub fn header_usage<'h>(api: Api, header: impl Fn(&str) -> Option<&'h str>) -> UsageReport {
    let mut usage = UsageReport::default();
    if api == Api::BedrockInvoke {
        for (name, slot) in bedrock::HEADERS {
            *slot(&mut usage) = header(name).and_then(|value| value.parse().ok());
        }
    }
    usage
}

/// Whether a provider is known to answer with an error where `stream_options` asks for usage: Mistral reports it
/// anyway, and Azure learnt it with api-version 2024-09-01.
pub fn refuses_include_usage(host: Option<&str>, path: &[u8]) -> bool {
    let path = str::from_utf8(path).unwrap_or_default();
    let mistral_host = host.is_some_and(|host| host.split(['.', ':']).any(|label| label.starts_with("mistral")));
    let mistral_paths = ["/fim/completions", "/agents/completions", "streamRawPredict", "rawPredict"];
    let version = path.split_once("api-version=").map(|(_, rest)| rest);
    mistral_host
        || mistral_paths.iter().any(|part| path.contains(part))
        || version.is_some_and(|version| version.starts_with("20") && version < "2024-09-01")
}

/// Whether a model is one of Mistral's, whoever serves it: a gateway may rewrite the host after this filter.
pub fn is_mistral_model(model: &str) -> bool {
    const FAMILIES: [&str; 8] =
        ["mistral", "codestral", "ministral", "magistral", "pixtral", "devstral", "voxtral", "open-mi"];
    let name = model.rsplit('/').next().unwrap_or_default();
    FAMILIES.iter().any(|family| name.starts_with(family))
}

/// Shorthand for a count in a format's table.
const fn count(slot: Slot) -> ReplyField {
    ReplyField::Count(slot)
}

/// A number's value, where it is a string of digits or a count.
fn number(value: Value<'_>) -> Option<u64> {
    value.as_count().or_else(|| Value::Number(value.as_text()?).as_count())
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn providers_that_refuse_to_be_asked_for_usage_are_known() {
        for (host, path, refuses) in [
            (Some("api.mistral.ai"), "/v1/chat/completions", true),
            (Some("api.openai.com"), "/v1/chat/completions", false),
            (Some("mistral-large.eu.models.ai.azure.com"), "/v1/chat/completions", true),
            (None, "/v1/fim/completions", true),
            (None, "/openai/deployments/d/chat/completions?api-version=2024-02-01", true),
            (None, "/openai/deployments/d/chat/completions?api-version=2024-09-01-preview", false),
            (None, "/openai/deployments/d/chat/completions?x=1&api-version=2025-01-01", false),
            (None, "/openai/v1/chat/completions?api-version=preview", false),
        ] {
            assert_eq!(refuses_include_usage(host, path.as_bytes()), refuses, "{host:?} {path}");
        }
    }
}
