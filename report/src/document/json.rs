//! JSON to a tree, and a tree to JSON.

use super::{Entry, MAX_DEPTH, Node, Numbers, Position, SyntaxError, Value};
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::fmt;

/// The value in `text`.
pub(super) fn parse(text: &str) -> Result<Node, SyntaxError> {
    let lines = Lines::new(text);
    let raw: &RawValue = serde_json::from_str(text).map_err(|error| SyntaxError {
        at: Position { line: error.line(), column: error.column().max(1) },
        message: format!("not valid JSON: {}", without_place(&error)),
    })?;
    lines.node(raw, 0)
}

/// What serde_json says is wrong; where is said in front of it.
fn without_place(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    text.strip_suffix(&place).map(String::from).unwrap_or(text)
}

/// Turns places in memory into lines: raw values borrow from the text, so their addresses tell where they stand.
struct Lines<'t> {
    text: &'t str,
    /// The offset of each line's first byte.
    starts: Vec<usize>,
}

impl<'t> Lines<'t> {
    fn new(text: &'t str) -> Lines<'t> {
        let after_newlines = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(index, _)| index + 1);
        Lines { text, starts: std::iter::once(0).chain(after_newlines).collect() }
    }

    fn position(&self, part: &str) -> Position {
        let offset = (part.as_ptr() as usize).saturating_sub(self.text.as_ptr() as usize);
        let line = self.starts.partition_point(|&start| start <= offset);
        let start = self.starts.get(line.saturating_sub(1)).copied().unwrap_or_default();
        let column = self.text.get(start..offset).map_or(0, |before| before.chars().count()) + 1;
        Position { line, column }
    }

    fn node(&self, raw: &'t RawValue, depth: usize) -> Result<Node, SyntaxError> {
        let text = raw.get();
        let at = self.position(text);
        if depth > MAX_DEPTH {
            return Err(SyntaxError { at, message: format!("nested deeper than {MAX_DEPTH} levels") });
        }
        let invalid = |error: serde_json::Error| SyntaxError { at, message: without_place(&error) };
        let mut json = serde_json::Deserializer::from_str(text);
        let value = match text.bytes().next() {
            Some(b'{') => {
                let entries = json.deserialize_map(Entries).map_err(invalid)?;
                let read = entries.into_iter().map(|(key, value)| {
                    let name = serde_json::from_str(key.get()).map_err(invalid)?;
                    Ok(Entry { at: self.position(key.get()), key: name, value: self.node(value, depth + 1)? })
                });
                Value::Map(read.collect::<Result<_, SyntaxError>>()?)
            }
            Some(b'[') => {
                let elements = json.deserialize_seq(Elements).map_err(invalid)?;
                Value::List(
                    elements.into_iter().map(|element| self.node(element, depth + 1)).collect::<Result<_, _>>()?,
                )
            }
            Some(b'"') => Value::Text { text: serde_json::from_str(text).map_err(invalid)?, block: None },
            _ => Value::Plain(text.into()),
        };
        Ok(Node { at, value })
    }
}

/// One level of an object; keys and values stay text.
struct Entries;

impl<'de> Visitor<'de> for Entries {
    type Value = Vec<(&'de RawValue, &'de RawValue)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(entries)
    }
}

/// One level of a list.
struct Elements;

impl<'de> Visitor<'de> for Elements {
    type Value = Vec<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut elements = Vec::new();
        while let Some(element) = seq.next_element()? {
            elements.push(element);
        }
        Ok(elements)
    }
}

/// Appends `node` as JSON.
pub(super) fn write(node: &Node, numbers: Numbers, out: &mut String) {
    match &node.value {
        Value::Plain(text) => plain(text, numbers, out),
        Value::Text { text, .. } => string(text, out),
        Value::List(elements) => {
            out.push('[');
            for (index, element) in elements.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write(element, numbers, out);
            }
            out.push(']');
        }
        Value::Map(entries) => {
            out.push('{');
            for (index, entry) in entries.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                string(&entry.key, out);
                out.push(':');
                write(&entry.value, numbers, out);
            }
            out.push('}');
        }
    }
}

fn string(text: &str, out: &mut String) {
    out.push_str(&serde_json::Value::from(text).to_string());
}

fn plain(text: &str, numbers: Numbers, out: &mut String) {
    let word = match numbers {
        Numbers::EnvoyYaml => envoy_word(text),
        Numbers::AsWritten | Numbers::EnvoyJson => core_word(text),
    };
    if let Some(word) = word {
        out.push_str(word);
        return;
    }
    match numbers {
        Numbers::AsWritten if is_number(text) => out.push_str(text),
        Numbers::EnvoyJson if is_number(text) => match text.parse::<f64>() {
            Ok(double) if double.is_finite() => out.push_str(&double.to_string()),
            _ => string(text, out),
        },
        Numbers::EnvoyYaml => match envoy_integer(text) {
            Some(small) if i32::try_from(small).is_ok() => out.push_str(&small.to_string()),
            Some(large) => string(&large.to_string(), out),
            None => string(text, out),
        },
        Numbers::AsWritten | Numbers::EnvoyJson => string(text, out),
    }
}

/// `null`, `true` and `false` by YAML's core schema, of which JSON's are a part.
fn core_word(text: &str) -> Option<&'static str> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Some("null"),
        "true" | "True" | "TRUE" => Some("true"),
        "false" | "False" | "FALSE" => Some("false"),
        _ => None,
    }
}

/// The same as Envoy's YAML reader sees it; it also takes `yes`, `on`, `y` and their opposites.
fn envoy_word(text: &str) -> Option<&'static str> {
    let usual_case = text == text.to_ascii_lowercase()
        || text == text.to_ascii_uppercase()
        || text.chars().skip(1).all(|c| c.is_ascii_lowercase());
    match text.to_ascii_lowercase().as_str() {
        "y" | "yes" | "on" | "true" if usual_case => Some("true"),
        "n" | "no" | "off" | "false" if usual_case => Some("false"),
        _ => core_word(text),
    }
}

/// A whole number as Envoy's YAML reader sees it: C's rules, by which `0x10` is 16 and `010` is 8.
fn envoy_integer(text: &str) -> Option<i64> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (digits, radix) = match digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        Some(digits) => (digits, 16),
        None if digits.len() > 1 && digits.starts_with('0') => (digits, 8),
        None => (digits, 10),
    };
    if !digits.chars().all(|c| c.is_digit(radix)) {
        return None;
    }
    let number = i64::from_str_radix(digits, radix).ok()?;
    Some(if negative { -number } else { number })
}

fn is_number(text: &str) -> bool {
    text.starts_with(|c: char| c == '-' || c.is_ascii_digit()) && serde_json::from_str::<&RawValue>(text).is_ok()
}
