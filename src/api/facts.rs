//! What a request and a reply say, gathered as their places come by.

mod staged;

use super::uses::{Use, Uses};
use super::{ReplyField, RequestField, number};
use crate::body::ReplySink;
use crate::body::json::{MAX_CAPTURE_BYTES, Sink, Value};
use crate::money::Decimal;
use crate::usage::{Rule, Unit, UsageReport};
use staged::{Detail, Modality, Staged};
use std::collections::BTreeMap;

/// Names of tools that are kept, and characters of each: Anthropic and Gemini allow 128.
const MAX_TOOL_NAMES: usize = 512;
const MAX_TOOL_NAME_CHARS: usize = 128;

/// What a request's body says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestFacts {
    /// The model asked for.
    pub model: Option<Box<str>>,
    /// Whether a stream was asked for.
    pub stream: Option<bool>,
    /// The caller's own limit on generated tokens.
    pub max_output_tokens: Option<u64>,
    /// Messages in the conversation.
    pub message_count: Option<u64>,
    /// Tools offered.
    pub tool_count: Option<u64>,
    /// The names of the first of them.
    pub tool_names: Vec<Box<str>>,
    /// Characters to be spoken.
    pub characters: Option<u64>,
    /// The service tier asked for.
    pub service_tier: Option<Box<str>>,
    /// The speed asked for.
    pub speed: Option<Box<str>>,
    /// The geography asked for.
    pub geo: Option<Box<str>>,
    /// Answers asked for.
    pub choices: Option<u64>,
    /// The most tokens to think with, which are a part of the output.
    pub thinking_budget: Option<u64>,
    /// Images, sounds, films and documents put in.
    pub media_count: Option<u64>,
    /// What it asks of its model.
    pub uses: Uses,
    /// What stands at the places that the configuration names, by their numbers.
    pub configured: Vec<(u8, Configured)>,
}

/// What stands at a place that the configuration names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Configured {
    /// A string, or the text of a number, `true` or `false`.
    Text(Box<str>),
    /// A string that is longer than is read.
    TooLong,
    /// A string that is not UTF-8.
    NotUtf8,
    /// A list or an object.
    Container,
}

impl RequestFacts {
    /// Takes what stands at a configured place; of a key that is written twice the last counts, as in JSON parsers.
    pub fn set_configured(&mut self, number: u8, value: Configured) {
        self.configured.retain(|(own, _)| *own != number);
        self.configured.push((number, value));
    }
}

impl Sink<RequestField> for RequestFacts {
    fn value(&mut self, field: RequestField, value: Value<'_>) {
        match field {
            RequestField::Model => set_text(&mut self.model, value),
            RequestField::Stream => {
                if let Value::Bool(stream) = value {
                    self.stream = Some(stream);
                }
            }
            // Of several limits the highest is the one to reckon with.
            RequestField::MaxOutputTokens => self.max_output_tokens = self.max_output_tokens.max(value.as_count()),
            RequestField::Message => count_element(&mut self.message_count, value),
            RequestField::Tool => {
                count_element(&mut self.tool_count, value);
                self.uses.insert(Use::Tools);
            }
            RequestField::ToolName => {
                if let Some(name) = value.as_text().filter(|_| self.tool_names.len() < MAX_TOOL_NAMES) {
                    self.tool_names.push(name.chars().take(MAX_TOOL_NAME_CHARS).collect::<String>().into());
                }
            }
            RequestField::Configured(number) => {
                let value = match value {
                    Value::Text { text, bytes } if bytes == text.len() as u64 => Configured::Text(text.into()),
                    Value::Text { bytes, .. } if bytes <= MAX_CAPTURE_BYTES as u64 => Configured::NotUtf8,
                    Value::Text { .. } => Configured::TooLong,
                    Value::Number(text) => Configured::Text(text.into()),
                    Value::Bool(flag) => Configured::Text(if flag { "true" } else { "false" }.into()),
                    Value::Object | Value::Array => Configured::Container,
                    // `null` is the same as leaving the key out.
                    Value::Null | Value::Piece(_) | Value::End => return,
                };
                self.set_configured(number, value);
            }
            RequestField::Characters => {
                if let Value::Piece(piece) = value {
                    // Characters, not bytes: continuation bytes do not begin one.
                    let characters = piece.iter().filter(|&&byte| byte & 0xc0 != 0x80).count() as u64;
                    self.characters = Some(self.characters.unwrap_or(0).saturating_add(characters));
                }
            }
            RequestField::MaxTokens => {
                self.max_output_tokens = self.max_output_tokens.max(value.as_count());
                self.uses_if(Use::MaxTokens, value);
            }
            RequestField::Choices => {
                self.choices = value.as_count().or(self.choices);
                self.uses.set(Use::Choices, self.choices.is_some_and(|choices| choices > 1));
            }
            RequestField::ServiceTier => {
                set_text(&mut self.service_tier, value);
                self.uses_unless(Use::ServiceTier, value, &["auto", "default", "standard", "standard_only"]);
            }
            RequestField::Speed => {
                set_text(&mut self.speed, value);
                self.uses_unless(Use::ServiceTier, value, &["standard"]);
            }
            RequestField::Geo => set_text(&mut self.geo, value),
            RequestField::Use(one) => self.uses_if(one, value),
            RequestField::ToolKind => self.uses_unless(Use::ServerTools, value, &["function", "custom"]),
            RequestField::ToolChoice => self.uses_unless(Use::ForcedToolChoice, value, &["auto", "none"]),
            RequestField::OutputFormat => self.uses_unless(Use::StructuredOutput, value, &["text", "text/plain"]),
            RequestField::OutputModality => match value.as_text() {
                Some(text) if text.eq_ignore_ascii_case("audio") => self.uses.insert(Use::AudioOutput),
                Some(text) if text.eq_ignore_ascii_case("image") => self.uses.insert(Use::ImageOutput),
                _ => {}
            },
            RequestField::Include => match value.as_text() {
                Some(text) if text.starts_with("reasoning.") => self.uses.insert(Use::Reasoning),
                Some(text) if text.ends_with(".logprobs") => self.uses.insert(Use::Logprobs),
                _ => {}
            },
            RequestField::ThinkingKind => {
                self.uses_unless(Use::Reasoning, value, &["disabled"]);
                if value.as_text() == Some("adaptive") {
                    self.uses.insert(Use::AdaptiveThinking);
                }
            }
            RequestField::ThinkingBudget => {
                self.thinking_budget = value.as_count().or(self.thinking_budget);
            }
            // The last message tells.
            RequestField::Role => self.uses.set(Use::Prefill, value.as_text() == Some("assistant")),
            RequestField::PartKind => {
                if let Some(one) = value.as_text().and_then(use_of_part) {
                    self.uses.insert(one);
                    if matches!(one, Use::Vision | Use::Audio | Use::Video | Use::Documents) {
                        count_element(&mut self.media_count, value);
                    }
                }
            }
            RequestField::Media(_) | RequestField::File if value == Value::Null => {}
            RequestField::Media(one) => {
                count_element(&mut self.media_count, value);
                self.uses_if(one, value);
            }
            RequestField::File => count_element(&mut self.media_count, value),
            RequestField::FileKind => {
                if let Some(kind) = value.as_text() {
                    self.uses.insert(match kind.split('/').next() {
                        Some("image") => Use::Vision,
                        Some("audio") => Use::Audio,
                        Some("video") => Use::Video,
                        _ => Use::Documents,
                    });
                }
            }
        }
    }
}

impl RequestFacts {
    /// Anything is a use but null, false, nothing and the end of what was.
    fn uses_if(&mut self, one: Use, value: Value<'_>) {
        if !matches!(value, Value::Null | Value::Bool(false) | Value::End | Value::Text { text: "", .. }) {
            self.uses.insert(one);
        }
    }

    /// A word is a use unless it says the usual thing.
    fn uses_unless(&mut self, one: Use, value: Value<'_>, usual: &[&str]) {
        if let Some(text) = value.as_text().filter(|text| !text.is_empty())
            && !usual.iter().any(|usual| text.eq_ignore_ascii_case(usual))
        {
            self.uses.insert(one);
        }
    }
}

/// What a part of a message is a use of, by its `type` in OpenAI's and Anthropic's APIs.
fn use_of_part(kind: &str) -> Option<Use> {
    Some(match kind {
        "image_url" | "input_image" | "image" | "computer_screenshot" => Use::Vision,
        "input_audio" | "audio_url" | "audio" => Use::Audio,
        "video_url" | "input_video" | "video" => Use::Video,
        "file" | "input_file" | "document" | "document_url" => Use::Documents,
        "thinking" | "redacted_thinking" | "reasoning" => Use::ReasoningHistory,
        "server_tool_use" | "mcp_tool_use" | "container_upload" => Use::ServerTools,
        _ => return None,
    })
}

/// One of several calls a reply was made of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Iteration {
    /// Its model, where it is not the reply's.
    pub model: Option<Box<str>>,
    /// Its counts.
    pub usage: UsageReport,
}

/// What a reply's body says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplyFacts {
    /// The provider's id of the response.
    pub id: Option<Box<str>>,
    /// The model that answered.
    pub model: Option<Box<str>>,
    /// The service tier it was served at.
    pub service_tier: Option<Box<str>>,
    /// The speed it was served at.
    pub speed: Option<Box<str>>,
    /// The geography it was served in.
    pub geo: Option<Box<str>>,
    /// Why generation ended.
    pub finish_reason: Option<Box<str>>,
    /// The provider's error code or type.
    pub error: Option<Box<str>>,
    /// Whether the stream said that it is over.
    pub done: bool,
    /// Whether the response is made in the background, to be fetched later.
    pub background: bool,
    /// Whether the response is only queued or in progress: its usage comes later.
    pub pending: bool,
    /// The usage of all events so far.
    pub usage: UsageReport,
    /// How the counts are to be read, where only they tell.
    pub rule: Option<Rule>,
    /// Where the reply was made of several calls: those, which are what is billed.
    pub iterations: Vec<Iteration>,
    /// Billed things that are not tokens.
    pub units: BTreeMap<Unit, Decimal>,
    /// What the provider says the call cost, in dollars.
    pub cost_usd: Option<Decimal>,
    /// Bytes of generated text.
    pub text_bytes: u64,
    staged: Staged,
}

impl Sink<ReplyField> for ReplyFacts {
    fn value(&mut self, field: ReplyField, value: Value<'_>) {
        let staged = &mut self.staged;
        match field {
            ReplyField::Usage => staged.usage_object(value),
            ReplyField::FirstUsage => {
                staged.anew |= value == Value::Object;
                staged.usage_object(value);
            }
            ReplyField::Count(slot) => {
                if let Some(tokens) = number(value) {
                    staged.count(slot, tokens);
                }
            }
            ReplyField::TellingCount(slot, rule) => {
                if let Some(tokens) = number(value) {
                    staged.count(slot, tokens);
                    // What OpenAI's names tell stands, whatever other names are beside them.
                    if self.rule != Some(Rule::OpenAi) {
                        self.rule = Some(rule);
                    }
                }
            }
            ReplyField::BareCount(slot) => {
                if let Some(tokens) = number(value) {
                    *slot(&mut staged.usage) = Some(tokens);
                }
            }
            ReplyField::AddedCount(slot) => {
                if let Some(tokens) = number(value) {
                    let slot = slot(&mut staged.usage);
                    *slot = Some(slot.unwrap_or(0).saturating_add(tokens));
                }
            }
            ReplyField::Unit(unit) => {
                if let Value::Number(text) = value
                    && let Ok(quantity) = Decimal::parse(text)
                    && !quantity.is_zero()
                {
                    staged.units.insert(unit, quantity);
                }
            }
            ReplyField::Element(unit) => {
                if value != Value::End {
                    staged.elements = staged.elements.saturating_add(1);
                    staged.units.insert(unit, Decimal::from(staged.elements));
                }
            }
            ReplyField::GroundingQuery => {
                if value != Value::End {
                    staged.searches = staged.searches.saturating_add(1);
                    staged.grounded_on(staged.searches);
                }
            }
            ReplyField::Chunk => {
                if value == Value::Object {
                    staged.searches = 0;
                }
            }
            ReplyField::Iterations => {
                // One that is written twice counts once.
                if value == Value::Array {
                    staged.iterations.clear();
                }
            }
            ReplyField::Iteration => staged.iteration(value),
            ReplyField::IterationModel => {
                if let Some(iteration) = staged.iterations.last_mut() {
                    set_text(&mut iteration.model, value);
                }
            }
            ReplyField::Detail(side) => match value {
                Value::End => staged.end_detail(),
                _ => staged.detail = Some(Detail { side, modality: None, tokens: None }),
            },
            ReplyField::DetailModality => {
                if let Some(detail) = &mut staged.detail {
                    detail.modality = Modality::of(value);
                }
            }
            ReplyField::DetailTokens => {
                if let Some(detail) = &mut staged.detail {
                    detail.tokens = number(value);
                }
            }
            ReplyField::CacheType => staged.explicit_cache |= value.as_text() == Some("ephemeral"),
            ReplyField::CostUsd => self.cost_usd = decimal(value).or(self.cost_usd),
            ReplyField::CostTicks => {
                self.cost_usd = decimal(value).and_then(|ticks| ticks.shifted(10)).or(self.cost_usd);
            }
            ReplyField::Outputs => {
                if value == Value::Array {
                    (staged.searches, staged.pages) = (0, 0);
                }
            }
            ReplyField::OutputType => {
                if value.as_text() == Some("web_search_call") {
                    staged.searches = staged.searches.saturating_add(1);
                    staged.count_searches();
                }
            }
            ReplyField::OutputAction => {
                // A page that is opened or looked through is no search, and free.
                if matches!(value.as_text(), Some("open_page" | "find_in_page")) {
                    staged.pages = staged.pages.saturating_add(1);
                    staged.count_searches();
                }
            }
            ReplyField::MediaType => {
                if value.as_text().is_some_and(|kind| kind.starts_with("image/")) {
                    staged.elements = staged.elements.saturating_add(1);
                    staged.units.insert(Unit::Images, Decimal::from(staged.elements));
                }
            }
            ReplyField::Text => {
                if let Value::Piece(piece) = value {
                    self.text_bytes = self.text_bytes.saturating_add(piece.len() as u64);
                }
            }
            ReplyField::Id => set_text(&mut self.id, value),
            ReplyField::Model => set_text(&mut self.model, value),
            ReplyField::ServiceTier => match value {
                Value::Number(text) => self.service_tier = Some(text.into()),
                _ => set_text(&mut self.service_tier, value),
            },
            ReplyField::Speed => set_text(&mut self.speed, value),
            ReplyField::Geo => set_text(&mut self.geo, value),
            ReplyField::FinishReason => set_text(&mut self.finish_reason, value),
            ReplyField::Status => {
                // Why a response is incomplete may stand before or behind the word that it is.
                if value.as_text() != Some("incomplete") || self.finish_reason.as_deref().is_none_or(is_status) {
                    set_text(&mut self.finish_reason, value);
                }
                self.pending = matches!(value.as_text(), Some("queued" | "in_progress"));
            }
            ReplyField::Background => self.background = value == Value::Bool(true),
            ReplyField::EventType => {
                self.done |= value.as_text().is_some_and(ends_the_stream);
                staged.is_error |= value.as_text() == Some("error");
            }
            ReplyField::Done => self.done |= value == Value::Bool(true),
            ReplyField::ErrorCode => match value {
                Value::Number(code) if self.error.is_none() => self.error = Some(code.into()),
                _ => set_text(&mut self.error, value),
            },
            // It says more than a number does.
            ReplyField::ErrorType if self.error.as_deref().is_none_or(is_number) => set_text(&mut self.error, value),
            ReplyField::ErrorType => {}
            ReplyField::EventCode => set_text(&mut staged.code, value),
            ReplyField::Error => staged.is_error |= value.as_text().is_some_and(|text| !text.is_empty()),
        }
    }
}

/// Whether it says how far a response has come, and not why it ended.
fn is_status(finish_reason: &str) -> bool {
    matches!(finish_reason, "queued" | "in_progress" | "incomplete")
}

fn is_number(code: &str) -> bool {
    code.parse::<i64>().is_ok()
}

/// Kinds of events after which nothing that matters follows.
fn ends_the_stream(kind: &str) -> bool {
    matches!(
        kind,
        "message_stop"
            | "response.completed"
            | "response.incomplete"
            | "response.failed"
            | "transcript.text.done"
            | "message-end"
            | "stream-end"
            | "interaction.completed"
            | "interaction.complete"
    )
}

impl ReplySink<ReplyField> for ReplyFacts {
    fn end_of_text(&mut self) {
        let staged = std::mem::take(&mut self.staged);
        if staged.anew {
            self.usage = UsageReport::default();
        }
        self.usage.update(&staged.usage);
        if staged.is_error && self.error.is_none() {
            self.error = Some(staged.code.unwrap_or_else(|| "error".into()));
        }
        // Without counts they are no account of what was used.
        if staged.iterations.iter().any(|iteration| !iteration.usage.is_empty()) {
            self.iterations = staged.iterations;
        }
        self.units.extend(staged.units);
    }

    fn discard_text(&mut self) {
        self.staged = Staged::default();
    }

    fn done(&mut self) {
        self.done = true;
    }

    fn exception(&mut self, kind: &str) {
        self.error = Some(kind.into());
    }
}

fn decimal(value: Value<'_>) -> Option<Decimal> {
    match value {
        Value::Number(text) | Value::Text { text, .. } => Decimal::parse(text).ok(),
        _ => None,
    }
}

/// Keeps a non-empty string. Every event of a stream repeats the same few: those are not stored again.
fn set_text(slot: &mut Option<Box<str>>, value: Value<'_>) {
    if let Some(text) = value.as_text().filter(|text| !text.is_empty() && slot.as_deref() != Some(text)) {
        *slot = Some(text.into());
    }
}

/// Counts an element of an array when it begins.
fn count_element(slot: &mut Option<u64>, value: Value<'_>) {
    if value != Value::End {
        *slot = Some(slot.unwrap_or(0).saturating_add(1));
    }
}
