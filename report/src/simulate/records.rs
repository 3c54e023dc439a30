//! What the lines of a file with usage records are.

use crate::lines::{self, Lines, MAX_LINE_BYTES};
use serde::Deserialize;
use tollgate::record::{EndReason, RecordType, UsageRecord};

/// What a line is.
pub(super) enum Line {
    /// The record of a call that has ended.
    Record(Box<UsageRecord>),
    /// The record of a call of which nobody has seen the end.
    Provisional,
    /// A record about something else.
    Other,
    /// No record, and why.
    Damaged(String),
}

/// The next line that is not empty; `None` at the end.
///
/// # Errors
/// The file can't be read any further.
pub(super) fn next(lines: &mut Lines) -> anyhow::Result<Option<Line>> {
    Ok(lines.next()?.map(|line| match line {
        lines::Line::Whole(line) => parse(line),
        lines::Line::TooLong => Line::Damaged(format!("longer than {} MiB", MAX_LINE_BYTES >> 20)),
    }))
}

fn parse(line: &[u8]) -> Line {
    /// What every record has.
    #[derive(Deserialize)]
    struct Kind {
        #[serde(rename = "type")]
        kind: String,
    }
    match serde_json::from_slice::<UsageRecord>(line) {
        Ok(record) if record.record_type != RecordType::Usage => Line::Other,
        // Without a type anything reads as a record of nothing.
        Ok(record) if record.ts.is_empty() || record.id.is_empty() => Line::Damaged("it has no id or no ts".into()),
        Ok(record) if record.end_reason == EndReason::Provisional => Line::Provisional,
        Ok(record) => Line::Record(Box::new(record)),
        Err(error) => match serde_json::from_slice::<Kind>(line) {
            // Later versions have other records beside these.
            Ok(Kind { kind }) if kind != "usage" => Line::Other,
            _ => Line::Damaged(error.to_string()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &'static str) -> Vec<String> {
        let mut lines = Lines::of("x".into(), Box::new(text.as_bytes()));
        let mut all = Vec::new();
        while let Some(line) = next(&mut lines).unwrap() {
            let what = match line {
                Line::Record(record) => format!("record {}", record.id),
                Line::Provisional => "provisional".into(),
                Line::Other => "other".into(),
                Line::Damaged(problem) => format!("damaged {problem}"),
            };
            all.push(format!("{} {what}", lines.number));
        }
        all
    }

    #[test]
    fn every_line_is_told_for_what_it_is() {
        let lines = all(concat!(
            r#"{"type": "usage", "id": "a", "ts": "2026-11-18T12:00:00Z", "end_reason": "complete", "new": 1}"#,
            "\n\n",
            r#"{"type": "usage", "id": "b", "ts": "2026-11-18T12:00:00Z", "end_reason": "provisional"}"#,
            "\r\n",
            r#"{"type": "budget_snapshot", "id": "c", "budget": "x", "scope": {}}"#,
            "\n",
            r#"{"type": "of_the_future", "decision": 7}"#,
            "\n",
            r#"{"hello": "world"}"#,
            "\noops\n",
            r#"{"type": "usage", "id": "d", "ts"#,
        ));
        assert_eq!(
            lines.get(..5).unwrap(),
            ["1 record a", "3 provisional", "4 other", "5 other", "6 damaged it has no id or no ts"]
        );
        assert!(lines[5].starts_with("7 damaged expected value"), "{lines:?}");
        assert!(lines[6].starts_with("8 damaged EOF while parsing"), "{lines:?}");
        assert_eq!(lines.len(), 7);
    }
}
