//! Writes a price table as YAML that people can read and compare, and as JSON.

use super::amount::Amount;
use std::io::{self, Write};

/// A value with its keys in the order they are written.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Doc {
    /// A string; amounts are strings.
    Text(String),
    /// A whole number.
    Number(u64),
    /// A list.
    List(Vec<Doc>),
    /// Keys and values.
    Map(Vec<(String, Doc)>),
}

impl Doc {
    /// A string.
    pub(crate) fn text(text: &str) -> Doc {
        Doc::Text(text.into())
    }

    /// An amount as the configuration takes it.
    pub(crate) fn amount(amount: &Amount) -> Doc {
        Doc::Text(amount.to_string())
    }

    /// Whether it is a list or a map with nothing in it.
    pub(crate) fn is_empty(&self) -> bool {
        match self {
            Doc::List(list) => list.is_empty(),
            Doc::Map(map) => map.is_empty(),
            Doc::Text(_) | Doc::Number(_) => false,
        }
    }

    /// On one line; `string` writes strings and keys.
    fn flow(&self, out: &mut String, string: fn(&str) -> String, space: &str) {
        match self {
            Doc::Text(text) => out.push_str(&string(text)),
            Doc::Number(number) => out.push_str(&number.to_string()),
            Doc::List(list) => {
                out.push('[');
                for (index, value) in list.iter().enumerate() {
                    if index > 0 {
                        out.push(',');
                        out.push_str(space);
                    }
                    value.flow(out, string, space);
                }
                out.push(']');
            }
            Doc::Map(map) => {
                out.push('{');
                for (index, (key, value)) in map.iter().enumerate() {
                    if index > 0 {
                        out.push(',');
                        out.push_str(space);
                    }
                    out.push_str(&string(key));
                    out.push(':');
                    out.push_str(space);
                    value.flow(out, string, space);
                }
                out.push('}');
            }
        }
    }

    /// As compact JSON.
    pub(crate) fn json(&self) -> String {
        let mut out = String::new();
        self.flow(&mut out, quoted, "");
        out
    }

    /// As YAML on one line.
    fn yaml(&self) -> String {
        let mut out = String::new();
        self.flow(&mut out, yaml_string, " ");
        out
    }
}

/// As JSON, which is YAML too.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Without quotes where no reader of YAML takes it for anything but this string.
fn yaml_string(text: &str) -> String {
    const WORDS: [&str; 9] = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    let plain = text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'/'))
        && !WORDS.iter().any(|word| word.eq_ignore_ascii_case(text));
    if plain { text.into() } else { quoted(text) }
}

/// Writes `models` as the section `prices` in YAML, below `comment`.
pub(crate) fn write_yaml(out: &mut impl Write, comment: &[String], version: &str, models: &[Doc]) -> io::Result<()> {
    for line in comment {
        writeln!(out, "# {line}")?;
    }
    writeln!(out, "prices:\n  version: {}", quoted(version))?;
    if models.is_empty() {
        return writeln!(out, "  models: []");
    }
    writeln!(out, "  models:")?;
    models.iter().try_for_each(|model| write_model(out, model))
}

/// One key a line; of maps of maps and lists of maps one element a line.
fn write_model(out: &mut impl Write, model: &Doc) -> io::Result<()> {
    let Doc::Map(entries) = model else { return writeln!(out, "  - {}", model.yaml()) };
    for (index, (key, value)) in entries.iter().enumerate() {
        let lead = if index == 0 { "  - " } else { "    " };
        match value {
            Doc::List(list) if list.iter().all(|value| matches!(value, Doc::Map(_))) => {
                writeln!(out, "{lead}{key}:")?;
                for value in list {
                    writeln!(out, "    - {}", value.yaml())?;
                }
            }
            Doc::Map(map) if map.iter().all(|(_, value)| matches!(value, Doc::Map(_))) => {
                writeln!(out, "{lead}{key}:")?;
                for (key, value) in map {
                    writeln!(out, "      {}: {}", yaml_string(key), value.yaml())?;
                }
            }
            _ => writeln!(out, "{lead}{key}: {}", value.yaml())?,
        }
    }
    Ok(())
}

/// Writes `models` as the section `prices` in JSON, one model a line.
pub(crate) fn write_json(out: &mut impl Write, version: &str, models: &[Doc]) -> io::Result<()> {
    write!(out, "{{\"prices\":{{\"version\":{},\"models\":[", quoted(version))?;
    for (index, model) in models.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        write!(out, "{comma}\n{}", model.json())?;
    }
    writeln!(out, "\n]}}}}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_string_goes_without_quotes_only_where_every_reader_agrees() {
        for (text, written) in [
            ("gpt-4o", "gpt-4o"),
            ("meta/llama-3.1", "meta/llama-3.1"),
            ("2.5", "\"2.5\""),
            ("No", "\"No\""),
            ("gpt-4o-*", "\"gpt-4o-*\""),
            ("claude:0", "\"claude:0\""),
            ("", "\"\""),
            ("a b", "\"a b\""),
            ("1e3", "\"1e3\""),
        ] {
            assert_eq!(yaml_string(text), written);
        }
    }

    fn sample() -> Doc {
        let rates = Doc::Map(vec![("input".into(), Doc::text("2.5"))]);
        let tier = Doc::Map(vec![("input_over".into(), Doc::Number(272_000)), ("rates".into(), rates.clone())]);
        Doc::Map(vec![
            ("model".into(), Doc::text("gpt-4o")),
            ("aliases".into(), Doc::List(vec![Doc::text("gpt-4o-2024-*"), Doc::text("chat")])),
            ("rates".into(), rates.clone()),
            ("tiers".into(), Doc::List(vec![tier])),
            ("service_tiers".into(), Doc::Map(vec![("flex".into(), Doc::Map(vec![("rates".into(), rates)]))])),
        ])
    }

    #[test]
    fn yaml_has_a_line_for_each_key_tier_and_service_tier() {
        let mut out = Vec::new();
        write_yaml(&mut out, &["From somewhere.".into()], "2026-11-01", &[sample()]).unwrap();
        let expected = "\
# From somewhere.
prices:
  version: \"2026-11-01\"
  models:
  - model: gpt-4o
    aliases: [\"gpt-4o-2024-*\", chat]
    rates: {input: \"2.5\"}
    tiers:
    - {input_over: 272000, rates: {input: \"2.5\"}}
    service_tiers:
      flex: {rates: {input: \"2.5\"}}
";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn json_has_a_line_for_each_model() {
        let mut out = Vec::new();
        write_json(&mut out, "1", &[sample(), sample()]).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text.lines().count(), 4);
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["prices"]["models"][1]["tiers"][0]["input_over"], 272_000);
    }
}
