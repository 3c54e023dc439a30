//! The section `collector`: where records are sent, in which format and how often.

use super::node::Node;
use super::{access_log, read_size, read_u32};
use crate::attribution::Rules;
use crate::delivery::encoding::{CloudEventsConfig, Format};

/// The section `collector`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CollectorConfig {
    /// Envoy cluster to send to.
    pub cluster: String,
    /// `:path` of a batch.
    pub path: String,
    /// `:authority` of a batch.
    pub authority: String,
    /// Further headers of a batch.
    pub headers: Vec<(String, String)>,
    /// How the records of a batch are put together.
    pub format: Format,
    /// What CloudEvents say besides.
    pub cloudevents: CloudEventsConfig,
    /// `content-type` of a batch.
    pub content_type: String,
    /// How often batches leave, in milliseconds.
    pub flush_ms: u32,
    /// Records in a batch.
    pub max_batch: usize,
    /// Bytes of records in a batch; a longer record travels alone.
    pub max_batch_bytes: usize,
    /// Bytes of records that may wait, per worker.
    pub max_queue_bytes: usize,
    /// Times a batch is sent before it is dropped.
    pub max_attempts: u32,
    /// How long the collector may take to answer, in milliseconds.
    pub timeout_ms: u32,
}

pub(super) fn read(node: Node<'_, '_>, rules: &Rules) -> Option<CollectorConfig> {
    let object = node.object()?;
    let text = |key| object.get(key).and_then(Node::line).map(String::from);
    let cluster = object.require("cluster").and_then(Node::text).map(String::from);
    let path = text("path").unwrap_or_else(|| "/".into());
    if let Some(node) = object.get("path")
        && !path.starts_with('/')
    {
        node.error("must begin with /");
    }
    let authority = text("authority");
    let format = object.get("format").and_then(|format| format.one_of(&Format::NAMES)).unwrap_or_default();
    let content_type = text("content_type").unwrap_or_else(|| format.content_type().into());
    let cloudevents = object.get("cloudevents").and_then(|node| read_cloudevents(node, rules));
    if let Some(node) = object.get("cloudevents")
        && format != Format::CloudEvents
    {
        node.error("is for format cloudevents only");
    }
    let mut headers = Vec::new();
    if let Some(list) = object.get("headers").and_then(Node::object) {
        list.each(|name, value| {
            let valid = !name.is_empty() && name.bytes().all(|b| b.is_ascii_graphic() && b != b':');
            if !valid {
                value.error("is no header name");
            } else if OWN_HEADERS.iter().any(|own| name.eq_ignore_ascii_case(own)) {
                value.error("is set by the filter; see collector.content_type and collector.authority");
            }
            if let Some(text) = value.line() {
                headers.push((name.to_ascii_lowercase(), text.into_owned()));
            }
        });
    }
    let config = CollectorConfig {
        path,
        headers,
        format,
        cloudevents: cloudevents.unwrap_or_default(),
        content_type,
        flush_ms: read_u32(&object, "flush_ms", 1000, 10..=3_600_000),
        max_batch: read_size(&object, "max_batch", 500, 1..=100_000),
        max_batch_bytes: read_size(&object, "max_batch_bytes", 4_000_000, 1024..=64 << 20),
        max_queue_bytes: read_size(&object, "max_queue_bytes", 8 << 20, 65_536..=128 << 20),
        max_attempts: read_u32(&object, "max_attempts", 8, 1..=1000),
        timeout_ms: read_u32(&object, "timeout_ms", 5000, 1..=600_000),
        authority: authority.or_else(|| cluster.clone()).unwrap_or_default(),
        cluster: cluster.unwrap_or_default(),
    };
    object.finish();
    Some(config)
}

/// Headers of a batch that are not the configuration's to add.
const OWN_HEADERS: [&str; 5] = ["content-type", "content-length", "host", "idempotency-key", "transfer-encoding"];

fn read_cloudevents(node: Node<'_, '_>, rules: &Rules) -> Option<CloudEventsConfig> {
    let object = node.object()?;
    let default = CloudEventsConfig::default();
    let source = |node: Node<'_, '_>| {
        let text = node.text()?;
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            node.error("expected a URI reference, as tollgate or //gateway.example/tollgate");
        }
        Some(text.into())
    };
    let subject = |node: Node<'_, '_>| {
        let name = node.text()?;
        if !access_log::is_value(&name, rules) {
            node.error(access_log::no_value(&name));
        }
        Some(name.into())
    };
    let config = CloudEventsConfig {
        source: object.get("source").and_then(source).unwrap_or(default.source),
        subject: object.get("subject").and_then(subject).unwrap_or(default.subject),
    };
    object.finish();
    Some(config)
}
