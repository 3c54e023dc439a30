//! Another model in a request that is held in memory, and no higher limit on its output than that model allows.
//!
//! Only the values are replaced: every other byte stays, so that nothing is said to the provider that the client did not
//! say. Where a key stands twice, parsers differ on which one counts: each is replaced. What is not JSON from its first
//! byte to its last is not edited.

use crate::body::multipart;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::fmt;

/// The most values that are replaced in one body. Clients write each key once; this bounds what a body made of nothing
/// but such keys can grow to.
const MAX_EDITS: usize = 32;

/// What is to be changed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Edits<'a> {
    /// The model to ask for; `None` where the body names none.
    pub model: Option<&'a str>,
    /// The most output tokens the request may ask for: a higher limit is lowered, none is added. Limits are
    /// `max_tokens`, `max_completion_tokens` and `max_output_tokens` at the top, and the settings objects of Gemini,
    /// Bedrock and Ollama have their own.
    pub max_output_tokens: Option<u64>,
}

/// The JSON body with these edits; `None` where it is not one well-formed JSON object in UTF-8, or lacks the `model` that
/// is to be replaced.
pub fn replace(body: &[u8], edits: &Edits<'_>) -> Option<Vec<u8>> {
    let text = str::from_utf8(body).ok()?;
    let model = edits.model.map(serde_json::to_string).transpose().ok()?;
    let mut found = Found { text, max_output_tokens: edits.max_output_tokens, has_model: false, places: Vec::new() };
    found.read(text, Keys::Root).ok()?;
    if model.is_some() && !found.has_model {
        return None;
    }
    let limit = edits.max_output_tokens.unwrap_or(u64::MAX).to_string();
    let mut out = Vec::with_capacity(body.len() + found.places.len() * model.as_ref().map_or(0, String::len));
    let mut copied = 0;
    for place in found.places {
        let value = match place.value {
            Value::Model => model.as_deref(),
            Value::Limit => Some(limit.as_str()),
        };
        if let Some(value) = value {
            out.extend_from_slice(body.get(copied..place.begin)?);
            out.extend_from_slice(value.as_bytes());
            copied = place.end;
        }
    }
    out.extend_from_slice(body.get(copied..)?);
    Some(out)
}

/// The form with another value in its field `model`, as transcriptions and edits of images are asked for; `None` where it
/// is no form with such a field, or the model can't stand in one. The field is found by the reader that found what
/// the call asks for.
pub fn replace_in_form(body: &[u8], content_type: &[u8], model: &str) -> Option<Vec<u8>> {
    if model.contains(char::is_control) {
        return None;
    }
    let mut reader = multipart::Reader::new(content_type)?;
    let mut out = Vec::with_capacity(body.len() + model.len());
    let (mut replaced, mut after_model) = (0, false);
    for line in body.split_inclusive(|&byte| byte == b'\n') {
        let mut is_model = false;
        reader.feed(line, |name, _| is_model = name == "model");
        if is_model {
            replaced += 1;
            out.extend_from_slice(model.as_bytes());
            out.extend_from_slice(if line.ends_with(b"\r\n") { b"\r\n" } else { b"\n" });
        } else {
            out.extend_from_slice(line);
        }
        // A value of several lines names no model, and half of it must not go on behind another.
        if std::mem::replace(&mut after_model, is_model) && !line.starts_with(b"--") {
            return None;
        }
    }
    (!after_model && (1..=MAX_EDITS).contains(&replaced)).then_some(out)
}

/// A value that is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Value {
    Model,
    Limit,
}

/// Where it stands.
#[derive(Debug)]
struct Place {
    value: Value,
    begin: usize,
    end: usize,
}

/// The keys that mean something in an object.
#[derive(Clone, Copy)]
enum Keys {
    Root,
    /// An object of settings, with its names for the limit.
    Settings(&'static [&'static str]),
}

/// What a key means.
#[derive(Clone, Copy)]
enum Key {
    Other,
    Value(Value),
    Settings(&'static [&'static str]),
}

impl Keys {
    fn key(self, name: &str) -> Key {
        match (self, name) {
            (Keys::Settings(limits), _) if limits.contains(&name) => Key::Value(Value::Limit),
            (Keys::Settings(_), _) => Key::Other,
            (Keys::Root, "model") => Key::Value(Value::Model),
            (Keys::Root, "max_tokens" | "max_completion_tokens" | "max_output_tokens") => Key::Value(Value::Limit),
            // Google's servers take either spelling of a name.
            (Keys::Root, "generationConfig" | "generation_config") => {
                Key::Settings(&["maxOutputTokens", "max_output_tokens"])
            }
            (Keys::Root, "inferenceConfig") => Key::Settings(&["maxTokens", "max_new_tokens"]),
            (Keys::Root, "options") => Key::Settings(&["num_predict"]),
            (Keys::Root, _) => Key::Other,
        }
    }
}

/// The values found so far, in the order of the text.
struct Found<'t> {
    text: &'t str,
    max_output_tokens: Option<u64>,
    has_model: bool,
    places: Vec<Place>,
}

impl<'t> Found<'t> {
    /// Reads one object, which is a part of the text.
    fn read(&mut self, object: &'t str, keys: Keys) -> serde_json::Result<()> {
        let mut deserializer = serde_json::Deserializer::from_str(object);
        deserializer.deserialize_map(Members { found: self, keys })?;
        deserializer.end()
    }

    /// Notes the value if it is to be replaced. `raw` is a part of the text.
    fn value<E: Error>(&mut self, value: Value, raw: &'t RawValue) -> Result<(), E> {
        let raw = raw.get();
        self.has_model |= value == Value::Model;
        if value == Value::Limit && !self.max_output_tokens.is_some_and(|most| exceeds(raw, most)) {
            return Ok(());
        }
        if self.places.len() == MAX_EDITS {
            return Err(E::custom("too many values to replace"));
        }
        let begin = raw.as_ptr().addr().saturating_sub(self.text.as_ptr().addr());
        self.places.push(Place { value, begin, end: begin + raw.len() });
        Ok(())
    }
}

/// Whether a limit is higher than `most`. What is no whole number is left to the provider to refuse.
fn exceeds(raw: &str, most: u64) -> bool {
    raw.bytes().all(|byte| byte.is_ascii_digit()) && raw.parse().map_or(true, |limit: u64| limit > most)
}

/// Reads the members of one object.
struct Members<'f, 't> {
    found: &'f mut Found<'t>,
    keys: Keys,
}

impl<'t> Visitor<'t> for Members<'_, 't> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'t>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key_seed(self.keys)? {
            match key {
                Key::Other => {
                    map.next_value::<IgnoredAny>()?;
                }
                Key::Value(value) => self.found.value(value, map.next_value()?)?,
                Key::Settings(limits) => {
                    let raw: &'t RawValue = map.next_value()?;
                    if raw.get().starts_with('{') {
                        self.found.read(raw.get(), Keys::Settings(limits)).map_err(A::Error::custom)?;
                    }
                }
            }
        }
        Ok(())
    }
}

impl<'t> DeserializeSeed<'t> for Keys {
    type Value = Key;

    fn deserialize<D: Deserializer<'t>>(self, deserializer: D) -> Result<Key, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Keys {
    type Value = Key;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, name: &str) -> Result<Key, E> {
        Ok(self.key(name))
    }
}

#[cfg(test)]
mod tests;
