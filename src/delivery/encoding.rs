//! The formats a batch may have. Each is written from the records' JSON lines; a line that could not be written in a
//! format would be left out of it, but a record has nothing that any of them cannot say.

use super::json::{Members, Transcoded};
use super::otlp;
use crate::config::CollectorConfig;
use serde::Serialize;
use serde_json::value::RawValue;

/// How the records of a batch are put together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// A record a line.
    #[default]
    Ndjson,
    /// A JSON array of records.
    JsonArray,
    /// A MessagePack array of maps; amounts that are no integers are strings.
    Msgpack,
    /// OpenTelemetry's log records, as OTLP/HTTP takes them in JSON.
    OtlpJson,
    /// CNCF CloudEvents in the batched JSON format.
    CloudEvents,
}

impl Format {
    /// Every format by the name it has in the configuration.
    pub const NAMES: [(&'static str, Format); 5] = [
        ("ndjson", Format::Ndjson),
        ("json_array", Format::JsonArray),
        ("msgpack", Format::Msgpack),
        ("otlp_json", Format::OtlpJson),
        ("cloudevents", Format::CloudEvents),
    ];

    /// What it is called in the header `content-type`, where nothing else is configured.
    pub const fn content_type(self) -> &'static str {
        match self {
            Format::Ndjson => "application/x-ndjson",
            Format::JsonArray | Format::OtlpJson => "application/json",
            Format::Msgpack => "application/msgpack",
            Format::CloudEvents => "application/cloudevents-batch+json",
        }
    }
}

/// What CloudEvents say besides the record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloudEventsConfig {
    /// The events' `source`.
    pub source: Box<str>,
    /// The dimension, or other field of a record, that is the events' `subject`.
    pub subject: Box<str>,
}

impl Default for CloudEventsConfig {
    fn default() -> CloudEventsConfig {
        CloudEventsConfig { source: "tollgate".into(), subject: "department".into() }
    }
}

/// The body of a batch that leaves at `now_ns`.
pub fn encode(config: &CollectorConfig, lines: &[Vec<u8>], now_ns: u64) -> Vec<u8> {
    let mut body = Vec::with_capacity(lines.iter().map(|line| line.len() + 1).sum());
    match config.format {
        Format::Ndjson => {
            for line in lines {
                body.extend_from_slice(line);
                body.push(b'\n');
            }
        }
        Format::JsonArray => {
            list(&mut body, lines, |body, line| {
                body.extend_from_slice(line);
                Some(())
            });
        }
        Format::CloudEvents => {
            list(&mut body, lines, |body, line| {
                let event = cloud_event(&config.cloudevents, line)?;
                body.extend_from_slice(&event);
                Some(())
            });
        }
        Format::Msgpack => {
            let packed = |line: &Vec<u8>| rmp_serde::to_vec(&Transcoded(raw(line)?)).ok();
            let records: Vec<_> = lines.iter().filter_map(packed).collect();
            let number = u32::try_from(records.len()).unwrap_or(u32::MAX);
            // A vector takes all that is written to it.
            let _ = rmp::encode::write_array_len(&mut body, number);
            body.extend(records.into_iter().flatten());
        }
        Format::OtlpJson => otlp::write(&mut body, lines, now_ns),
    }
    body
}

/// How many records of a batch a collector that answered 2xx did not take all the same.
pub fn rejected(format: Format, answer: &[u8]) -> usize {
    if format == Format::OtlpJson { otlp::rejected(answer) } else { 0 }
}

/// Writes `[…]`.
pub(super) fn list(body: &mut Vec<u8>, lines: &[Vec<u8>], mut element: impl FnMut(&mut Vec<u8>, &[u8]) -> Option<()>) {
    body.push(b'[');
    let mut written = false;
    for line in lines {
        let before = body.len();
        if written {
            body.push(b',');
        }
        match element(body, line) {
            Some(()) => written = true,
            None => body.truncate(before),
        }
    }
    body.push(b']');
}

/// The value that a record's line is.
pub(super) fn raw(line: &[u8]) -> Option<&RawValue> {
    serde_json::from_slice(line).ok()
}

#[derive(Serialize)]
struct CloudEvent<'a> {
    specversion: &'static str,
    id: &'a str,
    source: &'a str,
    #[serde(rename = "type")]
    event_type: String,
    subject: &'a str,
    time: &'a str,
    datacontenttype: &'static str,
    data: &'a RawValue,
}

fn cloud_event(config: &CloudEventsConfig, line: &[u8]) -> Option<Vec<u8>> {
    let data = raw(line)?;
    let record: Members<'_> = serde_json::from_str(data.get()).ok()?;
    let tags: Members<'_> =
        record.get("tags").and_then(|tags| serde_json::from_str(tags.get()).ok()).unwrap_or_default();
    let tag = config.subject.strip_prefix("tags.").unwrap_or(&config.subject);
    let subject = record.text(&config.subject).or_else(|| tags.text(tag));
    let event = CloudEvent {
        specversion: "1.0",
        id: &record.text("id")?,
        source: &config.source,
        event_type: format!("tollgate.{}", record.text("type")?),
        // There are consumers that refuse an event without one.
        subject: subject.as_deref().unwrap_or("unattributed"),
        time: &record.text("ts")?,
        datacontenttype: "application/json",
        data,
    };
    serde_json::to_vec(&event).ok()
}

#[cfg(test)]
mod tests;
