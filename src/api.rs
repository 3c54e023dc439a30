//! Wire formats: which LLM API a call speaks, and where its facts stand.
//!
//! One file per format below. A format is data: the places to look at in a request and in a reply, and which
//! fact stands there. It knows nothing of prices, budgets or hosts.

pub mod openai_chat;

use crate::body::ReplySink;
use crate::body::json::{Places, Sink, Value};
use crate::usage::UsageReport;

/// The wire format of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Api {
    /// `POST …/chat/completions`.
    OpenaiChat,
}

/// Where a format's facts stand.
pub struct Format {
    /// Name in records, configuration and metrics.
    pub name: &'static str,
    /// OpenTelemetry's `gen_ai.operation.name`.
    pub operation: &'static str,
    /// Facts of a request.
    pub request: Places<RequestField>,
    /// Facts of a reply.
    pub reply: Places<ReplyField>,
}

/// A fact of a request.
#[derive(Clone, Copy, Debug)]
pub enum RequestField {
    /// The model asked for.
    Model,
    /// Whether a stream is asked for.
    Stream,
    /// The caller's limit on generated tokens.
    MaxOutputTokens,
    /// One message of the conversation.
    Message,
    /// One tool offered.
    Tool,
}

/// A fact of a reply.
#[derive(Clone, Copy, Debug)]
pub enum ReplyField {
    /// The object the counts stand in.
    Usage,
    /// One count of it.
    Count(fn(&mut UsageReport) -> &mut Option<u64>),
    /// The provider's id of the response.
    Id,
    /// The model that answers.
    Model,
    /// The service tier it is served at.
    ServiceTier,
    /// Why generation ended.
    FinishReason,
    /// The provider's error code.
    ErrorCode,
    /// The provider's kind of error, where there is no code.
    ErrorType,
}

impl Api {
    /// The format a request speaks, by its method and path; `None` where it is not an LLM call this filter meters.
    pub fn recognise(method: &[u8], path: &[u8]) -> Option<Api> {
        let path = path.split(|&b| b == b'?' || b == b'#').next().unwrap_or_default();
        let path = path.strip_suffix(b"/").unwrap_or(path);
        (method == b"POST" && path.ends_with(b"/chat/completions")).then_some(Api::OpenaiChat)
    }

    /// Where its facts stand.
    pub fn format(self) -> &'static Format {
        match self {
            Api::OpenaiChat => &openai_chat::FORMAT,
        }
    }
}

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
    /// Why generation ended.
    pub finish_reason: Option<Box<str>>,
    /// The provider's error code or type.
    pub error: Option<Box<str>>,
    /// Whether the stream said that it is over.
    pub done: bool,
    /// The usage of all events so far.
    pub usage: UsageReport,
    /// The usage object being read; it counts once it is whole.
    pending: Option<UsageReport>,
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
            RequestField::MaxOutputTokens => self.max_output_tokens = value.as_count().or(self.max_output_tokens),
            RequestField::Message => count_element(&mut self.message_count, value),
            RequestField::Tool => count_element(&mut self.tool_count, value),
        }
    }
}

impl Sink<ReplyField> for ReplyFacts {
    fn value(&mut self, field: ReplyField, value: Value<'_>) {
        match field {
            ReplyField::Usage => self.usage_object(value),
            ReplyField::Count(slot) => *slot(self.pending.get_or_insert_default()) = value.as_count(),
            ReplyField::Id => set_text(&mut self.id, value),
            ReplyField::Model => set_text(&mut self.model, value),
            ReplyField::ServiceTier => set_text(&mut self.service_tier, value),
            ReplyField::FinishReason => set_text(&mut self.finish_reason, value),
            ReplyField::ErrorCode => set_text(&mut self.error, value),
            ReplyField::ErrorType if self.error.is_none() => set_text(&mut self.error, value),
            ReplyField::ErrorType => {}
        }
    }
}

impl ReplySink<ReplyField> for ReplyFacts {
    /// A usage object the text left open does not count.
    fn end_of_text(&mut self) {
        self.pending = None;
    }

    fn done(&mut self) {
        self.done = true;
    }
}

impl ReplyFacts {
    fn usage_object(&mut self, value: Value<'_>) {
        match value {
            Value::Object => self.pending = Some(UsageReport::default()),
            Value::End => {
                if let Some(report) = self.pending.take() {
                    self.usage.update(&report);
                }
            }
            _ => self.pending = None,
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn an_llm_call_is_recognised_by_method_and_path() {
        for (method, path, api) in [
            ("POST", "/v1/chat/completions", Some(Api::OpenaiChat)),
            ("POST", "/v1/chat/completions/", Some(Api::OpenaiChat)),
            ("POST", "/openai/v1/chat/completions?api-version=1", Some(Api::OpenaiChat)),
            ("POST", "/chat/completions", Some(Api::OpenaiChat)),
            ("GET", "/v1/chat/completions", None),
            ("POST", "/v1/chat/completions/abc", None),
            ("POST", "/v1/models?x=/chat/completions", None),
            ("GET", "/healthz", None),
            ("POST", "", None),
        ] {
            assert_eq!(Api::recognise(method.as_bytes(), path.as_bytes()), api, "{method} {path}");
        }
    }
}
