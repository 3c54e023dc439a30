//! Records as OpenTelemetry log records, in the JSON of OTLP/HTTP.
//!
//! What the semantic conventions for generative AI have a name for is named so; the rest is `llm.cost.<field>`. Integers of
//! 64 bits are strings, as that JSON has them; trace and span ids are hexadecimal.

use super::encoding::{list, raw};
use super::json::{Json, Members};
use crate::time;
use serde::Serialize;
use serde::ser::{SerializeMap, SerializeSeq, Serializer};
use serde_json::value::RawValue;
use std::borrow::Cow;

/// Fields that OpenTelemetry knows, and its names for them.
const CONVENTIONS: [(&str, &str); 17] = [
    ("operation", "gen_ai.operation.name"),
    ("request_model", "gen_ai.request.model"),
    ("max_output_tokens", "gen_ai.request.max_tokens"),
    ("stream", "gen_ai.request.stream"),
    ("response_model", "gen_ai.response.model"),
    ("response_id", "gen_ai.response.id"),
    ("input_tokens", "gen_ai.usage.input_tokens"),
    ("output_tokens", "gen_ai.usage.output_tokens"),
    ("cached_input_tokens", "gen_ai.usage.cache_read.input_tokens"),
    ("cache_creation_input_tokens", "gen_ai.usage.cache_creation.input_tokens"),
    ("reasoning_tokens", "gen_ai.usage.reasoning.output_tokens"),
    ("session", "gen_ai.conversation.id"),
    ("user", "user.id"),
    ("status", "http.response.status_code"),
    ("error", "error.type"),
    ("cost_usd", "llm.cost.usd"),
    ("cost_picousd", "llm.cost.picousd"),
];

/// Providers whose names differ in `gen_ai.provider.name`.
const PROVIDERS: [(&str, &str); 7] = [
    ("azure", "azure.ai.openai"),
    ("azure_ai", "azure.ai.inference"),
    ("bedrock", "aws.bedrock"),
    ("gemini", "gcp.gemini"),
    ("vertex_ai", "gcp.vertex_ai"),
    ("mistral", "mistral_ai"),
    ("xai", "x_ai"),
];

/// Fields that a log record has a place of its own for, or its resource.
const PLACED: [&str; 3] = ["ts", "instance", "gateway"];

/// Severity of what happens all day.
const INFO: u32 = 9;
/// Severity of what somebody should look at.
const WARN: u32 = 13;

/// Writes the request that exports `lines`. All records of a batch are of one VM, which is the resource.
pub(super) fn write(body: &mut Vec<u8>, lines: &[Vec<u8>], now_ns: u64) {
    let first = lines.iter().find_map(|line| serde_json::from_slice(line).ok());
    let resource = Resource(&first.unwrap_or_default());
    let resource = serde_json::to_string(&resource).unwrap_or_default();
    let version = env!("CARGO_PKG_VERSION");
    body.extend_from_slice(b"{\"resourceLogs\":[{\"resource\":{\"attributes\":");
    body.extend_from_slice(resource.as_bytes());
    body.extend_from_slice(b"},\"scopeLogs\":[{\"scope\":{\"name\":\"tollgate\",\"version\":\"");
    body.extend_from_slice(version.as_bytes());
    body.extend_from_slice(b"\"},\"logRecords\":");
    list(body, lines, |body, line| {
        let record: Members<'_> = serde_json::from_str(raw(line)?.get()).ok()?;
        serde_json::to_writer(&mut *body, &LogRecord { record: &record, now_ns }).ok()
    });
    body.extend_from_slice(b"}]}]}");
}

/// The records that a collector says, in an answer of 200, that it did not take.
pub(super) fn rejected(answer: &[u8]) -> usize {
    let read = || {
        let answer: Members<'_> = serde_json::from_slice(answer).ok()?;
        let partial: Members<'_> = serde_json::from_str(answer.get("partialSuccess")?.get()).ok()?;
        match Json::of(partial.get("rejectedLogRecords")?).ok()? {
            Json::Text(digits) => digits.parse().ok(),
            Json::Integer(number) => usize::try_from(number).ok(),
            _ => None,
        }
    };
    read().unwrap_or(0)
}

/// The attributes of who sends.
struct Resource<'a>(&'a Members<'a>);

impl Serialize for Resource<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(None)?;
        list.serialize_element(&Attribute { key: "service.name", value: Any::Text("tollgate") })?;
        list.serialize_element(&Attribute { key: "service.version", value: Any::Text(env!("CARGO_PKG_VERSION")) })?;
        for (field, key) in [("instance", "service.instance.id"), ("gateway", "llm.cost.gateway")] {
            if let Some(value) = self.0.get(field) {
                list.serialize_element(&Attribute { key, value: Any::Of(value) })?;
            }
        }
        list.end()
    }
}

struct LogRecord<'a> {
    record: &'a Members<'a>,
    now_ns: u64,
}

impl LogRecord<'_> {
    /// A hexadecimal id of so many digits.
    fn id(&self, field: &str, digits: usize) -> Option<Cow<'_, str>> {
        let id = self.record.text(field)?;
        (id.len() == digits && id.bytes().all(|b| b.is_ascii_hexdigit())).then_some(id)
    }

    /// One line for people. The id ends it, because there are stores that take two log records of the same time and
    /// line for one: <https://github.com/grafana/loki/issues/15425>.
    fn summary(&self) -> String {
        let kind = self.record.text("type").unwrap_or_default();
        let fields = if kind == "usage" {
            ["provider", "request_model", "end_reason", "decision", "id"]
        } else {
            ["budget", "action", "reason", "window_start", "id"]
        };
        let mut summary = kind.into_owned();
        for value in fields.into_iter().filter_map(|field| self.record.text(field)) {
            summary.push(' ');
            summary.push_str(&value);
        }
        summary
    }
}

impl Serialize for LogRecord<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let kind = self.record.text("type").unwrap_or_default();
        let began = self.record.text("ts").and_then(|ts| time::parse_rfc3339_ns(&ts));
        let (number, text) = if kind == "budget_alert" { (WARN, "WARN") } else { (INFO, "INFO") };
        let (trace_id, span_id) = (self.id("trace_id", 32), self.id("span_id", 16));
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("timeUnixNano", &began.unwrap_or(self.now_ns).to_string())?;
        map.serialize_entry("observedTimeUnixNano", &self.now_ns.to_string())?;
        map.serialize_entry("severityNumber", &number)?;
        map.serialize_entry("severityText", text)?;
        map.serialize_entry("eventName", &format!("llm.cost.{kind}"))?;
        if let Some(id) = &trace_id {
            map.serialize_entry("traceId", id)?;
        }
        if let Some(id) = &span_id {
            map.serialize_entry("spanId", id)?;
        }
        map.serialize_entry("body", &Any::Text(&self.summary()))?;
        let ids = [trace_id.map(|_| "trace_id"), span_id.map(|_| "span_id")];
        let placed = |field: &str| PLACED.contains(&field) || ids.contains(&Some(field));
        map.serialize_entry("attributes", &Attributes { record: self.record, placed: &placed })?;
        map.end()
    }
}

/// The fields of a record that have no other place.
struct Attributes<'a> {
    record: &'a Members<'a>,
    placed: &'a dyn Fn(&str) -> bool,
}

impl Serialize for Attributes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(None)?;
        for (field, value) in self.record.0.iter().filter(|(field, _)| !(self.placed)(field)) {
            let known = CONVENTIONS.iter().find(|(own, _)| own == field).map(|(_, name)| *name);
            match &**field {
                "provider" => {
                    let provider = self.record.text("provider").unwrap_or_default();
                    let name = PROVIDERS.iter().find(|(own, _)| *own == provider).map(|(_, name)| *name);
                    let value = Any::Text(name.unwrap_or(&provider));
                    list.serialize_element(&Attribute { key: "gen_ai.provider.name", value })?;
                }
                "finish_reason" => {
                    let key = "gen_ai.response.finish_reasons";
                    list.serialize_element(&Attribute { key, value: Any::ListOf(value) })?;
                }
                "ttft_ms" => {
                    let seconds = seconds(value.get());
                    let key = "gen_ai.response.time_to_first_chunk";
                    list.serialize_element(&Attribute { key, value: Any::Double(&seconds) })?;
                }
                // One attribute each, since that is what can be searched for.
                "tags" | "units" | "scope" => {
                    let members: Members<'_> = serde_json::from_str(value.get()).unwrap_or_default();
                    for (name, value) in &members.0 {
                        let key = format!("llm.cost.{field}.{name}");
                        list.serialize_element(&Attribute { key: &key, value: Any::Of(value) })?;
                    }
                }
                _ => {
                    let own = || Cow::Owned(format!("llm.cost.{field}"));
                    let key = known.map_or_else(own, Cow::Borrowed);
                    list.serialize_element(&Attribute { key: &key, value: Any::Of(value) })?;
                }
            }
        }
        list.end()
    }
}

/// Milliseconds as a decimal number of seconds.
fn seconds(millis: &str) -> String {
    let millis = format!("{millis:0>4}");
    let (whole, fraction) = millis.split_at_checked(millis.len() - 3).unwrap_or(("0", "0"));
    format!("{whole}.{fraction}")
}

#[derive(Serialize)]
struct Attribute<'a> {
    key: &'a str,
    value: Any<'a>,
}

/// OTLP's `AnyValue`.
enum Any<'a> {
    /// What a JSON value is there.
    Of(&'a RawValue),
    /// A list of this one value.
    ListOf(&'a RawValue),
    Text(&'a str),
    /// A decimal number by its digits.
    Double(&'a str),
}

/// A number as it is written, which serde has no word for.
fn digits(text: &str) -> &RawValue {
    serde_json::from_str(text).unwrap_or(RawValue::NULL)
}

#[derive(Serialize)]
struct Values<T> {
    values: T,
}

impl Serialize for Any<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(1))?;
        match self {
            Any::Text(text) => map.serialize_entry("stringValue", text)?,
            Any::Double(text) => map.serialize_entry("doubleValue", digits(text))?,
            Any::ListOf(raw) => map.serialize_entry("arrayValue", &Values { values: [Any::Of(raw)] })?,
            Any::Of(raw) => match Json::of(raw).map_err(serde::ser::Error::custom)? {
                Json::Text(text) => map.serialize_entry("stringValue", &text)?,
                Json::Integer(number) => map.serialize_entry("intValue", &number.to_string())?,
                // An integer that 64 bits do not hold would lose digits as a double.
                Json::Number(text) if text.bytes().all(|b| b.is_ascii_digit() || b == b'-') => {
                    map.serialize_entry("stringValue", text)?;
                }
                Json::Number(text) => map.serialize_entry("doubleValue", digits(text))?,
                Json::Bool(value) => map.serialize_entry("boolValue", &value)?,
                Json::Null => map.serialize_entry("stringValue", "")?,
                Json::List(list) => {
                    let values: Vec<_> = list.into_iter().map(Any::Of).collect();
                    map.serialize_entry("arrayValue", &Values { values })?;
                }
                Json::Object(members) => {
                    let values: Vec<_> =
                        members.0.iter().map(|(key, value)| Attribute { key, value: Any::Of(value) }).collect();
                    map.serialize_entry("kvlistValue", &Values { values })?;
                }
            },
        }
        map.end()
    }
}
