//! A whole exchange in one file, JSON or YAML.

use super::{Exchange, Headers, beside, nanoseconds};
use crate::document::{Node, Numbers, Position, Value};
use crate::input;
use anyhow::{Context, anyhow, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use std::path::Path;

/// Reads the exchange in a file.
pub(super) fn read(path: &Path) -> anyhow::Result<Exchange> {
    let document = input::document(path)?;
    let file = File { path };
    let [root] = document.roots.as_slice() else {
        bail!("{} is not one exchange", input::name(path));
    };
    let request = root.get("request").ok_or_else(|| file.error(root.at, "request: is missing"))?;
    let request = file.message(request, "request", &["method", "path", "host", "headers"])?;
    let mut exchange = Exchange { request_headers: request.headers, request_body: request.body, ..Exchange::default() };
    if let Some(node) = root.get("response").filter(|node| !node.is_null()) {
        let response = file.message(node, "response", &["status", "headers"])?;
        exchange.response_headers = Some(response.headers);
        exchange.response_body = response.body;
    }
    let text = |key: &str| root.get(key).and_then(Node::text).map(String::from);
    exchange.cluster = text("cluster");
    exchange.route = text("route");
    if let Some(at) = root.get("at") {
        let time = at.text().unwrap_or_default();
        let time: Timestamp = time.parse().map_err(|error| file.error(at.at, &format!("at: {error}")))?;
        exchange.at_ns = Some(nanoseconds(time)?);
    }
    Ok(exchange)
}

struct Message {
    headers: Headers,
    body: Vec<u8>,
}

struct File<'p> {
    path: &'p Path,
}

impl File<'_> {
    fn error(&self, at: Position, message: &str) -> anyhow::Error {
        anyhow!("{}:{at}: {message}", input::name(self.path))
    }

    /// A request or a response, whose further keys are `keys`.
    fn message(&self, node: &Node, what: &str, keys: &[&str]) -> anyhow::Result<Message> {
        if !matches!(node.value, Value::Map(_)) {
            return Err(self.error(node.at, &format!("{what}: expected an object")));
        }
        const BODIES: [&str; 3] = ["body", "body_file", "body_base64"];
        for entry in node.entries() {
            let key = entry.key.as_str();
            if !keys.contains(&key) && !BODIES.contains(&key) {
                let known = [keys, &BODIES].concat().join(", ");
                return Err(self.error(entry.at, &format!("{what}.{key}: unknown key; known here: {known}")));
            }
        }
        let mut headers = Headers::new();
        for (key, name) in [("method", ":method"), ("path", ":path"), ("host", ":authority"), ("status", ":status")] {
            match node.get(key).map(|value| (value, value.text())) {
                Some((_, Some(text))) => headers.push((name.into(), text.into())),
                Some((value, None)) => return Err(self.error(value.at, &format!("{what}.{key}: expected a value"))),
                None if key == "status" && what == "response" => headers.push((name.into(), b"200".to_vec())),
                None => {}
            }
        }
        if let Some(list) = node.get("headers") {
            self.headers(list, &format!("{what}.headers"), &mut headers)?;
        }
        let (body, is_json) = self.body(node, what)?;
        if is_json && !headers.iter().any(|(name, _)| name == "content-type") {
            headers.push(("content-type".into(), b"application/json".to_vec()));
        }
        Ok(Message { headers, body })
    }

    /// An object of names and values, of which a list stands for several, or a list of pairs.
    fn headers(&self, node: &Node, path: &str, headers: &mut Headers) -> anyhow::Result<()> {
        let mut add = |name: &str, value: &Node| match (value.text(), value.elements()) {
            (Some(text), _) => {
                headers.push((name.to_ascii_lowercase(), text.into()));
                Ok(())
            }
            (None, values) if !values.is_empty() && values.iter().all(|value| value.text().is_some()) => {
                let texts = values.iter().filter_map(Node::text);
                headers.extend(texts.map(|text| (name.to_ascii_lowercase(), text.into())));
                Ok(())
            }
            _ => Err(self.error(value.at, &format!("{path}.{name}: expected a string"))),
        };
        for entry in node.entries() {
            add(&entry.key, &entry.value)?;
        }
        for (index, pair) in node.elements().iter().enumerate() {
            match pair.elements() {
                [name, value] if name.text().is_some() => add(name.text().unwrap_or_default(), value)?,
                _ => return Err(self.error(pair.at, &format!("{path}[{index}]: expected a name and a value"))),
            }
        }
        match &node.value {
            Value::List(_) | Value::Map(_) => Ok(()),
            _ if node.is_null() => Ok(()),
            _ => Err(self.error(node.at, &format!("{path}: expected an object, or a list of pairs"))),
        }
    }

    /// The body, and whether it was written as JSON in the file.
    fn body(&self, node: &Node, what: &str) -> anyhow::Result<(Vec<u8>, bool)> {
        let given = |key: &str| node.get(key).filter(|value| !value.is_null());
        match (given("body"), given("body_file"), given("body_base64")) {
            (None, None, None) => Ok((Vec::new(), false)),
            (Some(Node { value: Value::Text { text, .. }, .. }), None, None) => Ok((text.clone().into(), false)),
            (Some(body), None, None) => Ok((body.to_json(Numbers::AsWritten).into_bytes(), true)),
            (None, Some(named), None) => {
                let path = beside(self.path, named.text().unwrap_or_default());
                let bytes = input::bytes(&path).map_err(|error| self.error(named.at, &format!("{error:#}")))?;
                Ok((bytes, false))
            }
            (None, None, Some(encoded)) => {
                let bytes = STANDARD.decode(encoded.text().unwrap_or_default().trim());
                let bytes = bytes.with_context(|| self.error(encoded.at, "not base64").to_string())?;
                Ok((bytes, false))
            }
            _ => Err(self.error(node.at, &format!("{what}: give one of body, body_file, body_base64"))),
        }
    }
}
