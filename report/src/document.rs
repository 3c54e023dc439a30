//! YAML and JSON as a tree in which every value knows where it stands.
//!
//! Scalars keep the text they were written with until somebody says how to read it: money must never become a float
//! on the way, and Envoy reads numbers in YAML by rules of its own (see [`Numbers`]).

mod json;
mod yaml;

use std::fmt;

/// Deeper documents are refused rather than recursed into.
const MAX_DEPTH: usize = 128;

/// The language of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// JSON.
    Json,
    /// YAML 1.2, possibly several documents.
    Yaml,
}

/// A file's contents.
#[derive(Debug)]
pub(crate) struct Document {
    /// The language it is written in.
    pub(crate) dialect: Dialect,
    /// Its documents; YAML may have several, or none.
    pub(crate) roots: Vec<Node>,
}

/// A place in a file, counted from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position {
    /// The line.
    pub(crate) line: usize,
    /// The column, in characters.
    pub(crate) column: usize,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// Text that is no YAML or JSON.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct SyntaxError {
    /// Where.
    pub(crate) at: Position,
    /// What.
    pub(crate) message: String,
}

impl fmt::Display for SyntaxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.at, self.message)
    }
}

/// A value and where it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    /// Where it begins.
    pub(crate) at: Position,
    /// The value.
    pub(crate) value: Value,
}

/// A value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    /// A scalar without quotes: a number, `true`, `null`, or in YAML a string.
    Plain(String),
    /// A string for certain.
    Text {
        /// Its value.
        text: String,
        /// Where its first line stands, if its lines stand in the file as they are (a YAML `|` block).
        block: Option<Position>,
    },
    /// A list.
    List(Vec<Node>),
    /// Keys and values in the order of the file, also where a key stands twice.
    Map(Vec<Entry>),
}

/// A key and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Where the key stands.
    pub(crate) at: Position,
    /// The key.
    pub(crate) key: String,
    /// The value.
    pub(crate) value: Node,
}

/// How plain scalars are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Numbers {
    /// As written: a number keeps its digits.
    AsWritten,
    /// As Envoy puts YAML into a `google.protobuf.Struct`: small whole numbers are numbers (also `0x10` and `010`),
    /// larger ones and fractions are strings, `yes` and `on` are true.
    EnvoyYaml,
    /// As Envoy puts JSON into a `google.protobuf.Struct`: every number is a double.
    EnvoyJson,
}

impl Document {
    /// Reads `text`.
    pub(crate) fn parse(text: &str, dialect: Dialect) -> Result<Document, SyntaxError> {
        let roots = match dialect {
            Dialect::Json => vec![json::parse(text)?],
            Dialect::Yaml => yaml::parse(text)?,
        };
        Ok(Document { dialect, roots })
    }
}

impl Node {
    /// The value of `key` of a map.
    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        self.entries().iter().find(|entry| entry.key == key).map(|entry| &entry.value)
    }

    /// The entries of a map; none of anything else.
    pub(crate) fn entries(&self) -> &[Entry] {
        if let Value::Map(entries) = &self.value { entries } else { &[] }
    }

    /// The elements of a list; none of anything else.
    pub(crate) fn elements(&self) -> &[Node] {
        if let Value::List(elements) = &self.value { elements } else { &[] }
    }

    /// The text of a scalar.
    pub(crate) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Plain(text) | Value::Text { text, .. } => Some(text),
            Value::List(_) | Value::Map(_) => None,
        }
    }

    /// Whether it is `null`, or nothing.
    pub(crate) fn is_null(&self) -> bool {
        matches!(&self.value, Value::Plain(text) if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }

    /// The value as JSON.
    pub(crate) fn to_json(&self, numbers: Numbers) -> String {
        let mut out = String::new();
        json::write(self, numbers, &mut out);
        out
    }

    /// Where `path` leads, written as in `prices.models[2].rates.input`: the key or element itself, or the deepest
    /// place on the way that exists. Keys may have dots in them. Of a key that stands twice it is the later one.
    pub(crate) fn locate(&self, path: &str) -> Position {
        self.locate_from(path, self.at)
    }

    /// A place in this value's text, as a place in the file. Where the text's lines do not stand in the file as they
    /// are, it is the beginning of the value.
    pub(crate) fn position_within(&self, at: Position) -> Position {
        match &self.value {
            Value::Text { block: Some(first), .. } => Position {
                line: first.line + at.line.saturating_sub(1),
                column: first.column + at.column.saturating_sub(1),
            },
            _ => self.at,
        }
    }

    fn locate_from(&self, path: &str, at: Position) -> Position {
        let below = match &self.value {
            Value::List(elements) => element_of(path)
                .and_then(|(index, rest)| elements.get(index).map(|element| element.locate_from(rest, element.at))),
            Value::Map(entries) => {
                let path = path.strip_prefix('.').unwrap_or(path);
                let fits = |entry: &&Entry| {
                    let rest = path.strip_prefix(entry.key.as_str());
                    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
                };
                // A later one of the same key has the same length and wins.
                let entry = entries.iter().filter(fits).max_by_key(|entry| entry.key.len());
                entry.map(|entry| {
                    let rest = path.strip_prefix(entry.key.as_str()).unwrap_or_default();
                    entry.value.locate_from(rest, entry.at)
                })
            }
            Value::Plain(_) | Value::Text { .. } => None,
        };
        below.unwrap_or(at)
    }
}

/// The index and the rest of `[2].rates`.
fn element_of(path: &str) -> Option<(usize, &str)> {
    let (index, rest) = path.strip_prefix('[')?.split_once(']')?;
    Some((index.parse().ok()?, rest))
}

#[cfg(test)]
mod tests;
