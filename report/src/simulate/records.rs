//! Lines of files with usage records.

use crate::input;
use crate::output::Progress;
use anyhow::Context;
use flate2::bufread::MultiGzDecoder;
use serde::Deserialize;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::rc::Rc;
use tollgate::record::{EndReason, RecordType, UsageRecord};

/// The longest line that may be a record: what one is made of is bounded.
const MAX_LINE_BYTES: u64 = 4 << 20;

/// The first bytes of gzip.
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// A file's lines.
pub(super) struct Lines {
    /// How the file is called in messages.
    pub(super) name: String,
    /// The number of the line that was read last.
    pub(super) number: u64,
    from: Box<dyn BufRead>,
    line: Vec<u8>,
}

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

/// Counts what is read of a file, compressed or not.
struct Counted {
    file: File,
    progress: Rc<Progress>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.file.read(buffer)?;
        self.progress.advance(u64::try_from(bytes).unwrap_or_default());
        Ok(bytes)
    }
}

impl Lines {
    /// Opens a file, or standard input.
    pub(super) fn open(path: &Path, progress: &Rc<Progress>) -> anyhow::Result<Lines> {
        let name = input::name(path);
        let mut from: Box<dyn BufRead> = if path == Path::new("-") {
            Box::new(BufReader::with_capacity(1 << 16, io::stdin()))
        } else {
            let file = File::open(path).with_context(|| format!("cannot read {name}"))?;
            Box::new(BufReader::with_capacity(1 << 16, Counted { file, progress: Rc::clone(progress) }))
        };
        let compressed = from.fill_buf().with_context(|| format!("cannot read {name}"))?.starts_with(&GZIP);
        if compressed {
            from = Box::new(BufReader::with_capacity(1 << 16, MultiGzDecoder::new(from)));
        }
        Ok(Lines { name, number: 0, from, line: Vec::new() })
    }

    /// The next line that is not empty; `None` at the end.
    ///
    /// # Errors
    /// The file can't be read any further.
    pub(super) fn next(&mut self) -> anyhow::Result<Option<Line>> {
        loop {
            self.number += 1;
            self.line.clear();
            let place = || format!("cannot read {}:{}", self.name, self.number);
            let read = self.from.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut self.line);
            let bytes = read.with_context(place)?;
            if bytes == 0 {
                return Ok(None);
            }
            let cut = u64::try_from(bytes).is_ok_and(|bytes| bytes == MAX_LINE_BYTES) && !self.line.ends_with(b"\n");
            if cut {
                self.from.skip_until(b'\n').with_context(place)?;
                return Ok(Some(Line::Damaged(format!("longer than {} MiB", MAX_LINE_BYTES >> 20))));
            }
            if !self.line.trim_ascii().is_empty() {
                return Ok(Some(parse(&self.line)));
            }
        }
    }
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
    use std::io::Write;

    fn all(from: impl BufRead + 'static) -> Vec<String> {
        let mut lines = Lines { name: "x".into(), number: 0, from: Box::new(from), line: Vec::new() };
        let mut all = Vec::new();
        while let Some(line) = lines.next().unwrap() {
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
        let text = concat!(
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
        );
        let lines = all(text.as_bytes());
        assert_eq!(
            lines.get(..5).unwrap(),
            ["1 record a", "3 provisional", "4 other", "5 other", "6 damaged it has no id or no ts"]
        );
        assert!(lines[5].starts_with("7 damaged expected value"), "{lines:?}");
        assert!(lines[6].starts_with("8 damaged EOF while parsing"), "{lines:?}");
        assert_eq!(lines.len(), 7);
    }

    #[test]
    fn a_line_without_end_does_not_fill_the_memory() {
        let long = "x".repeat(usize::try_from(MAX_LINE_BYTES).unwrap() + 10) + "\n{}\n";
        let lines = all(io::Cursor::new(long.into_bytes()));
        assert_eq!(lines, ["1 damaged longer than 4 MiB", "2 damaged it has no id or no ts"]);
    }

    #[test]
    fn several_compressed_files_in_one_are_read_to_the_end() {
        let pack = |text: &str| {
            let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            gzip.write_all(text.as_bytes()).unwrap();
            gzip.finish().unwrap()
        };
        let path = std::env::temp_dir().join(format!("tollgate-records-{}.gz", std::process::id()));
        let record = r#"{"type": "usage", "id": "a", "ts": "2026-11-18T12:00:00Z", "end_reason": "complete"}"#;
        std::fs::write(&path, [pack(record), pack("\n"), pack(record)].concat()).unwrap();
        let mut lines = Lines::open(&path, &Rc::new(Progress::new(0, "bytes"))).unwrap();
        assert!(matches!(lines.next(), Ok(Some(Line::Record(_)))));
        assert!(matches!(lines.next(), Ok(Some(Line::Record(_)))));
        assert!(matches!(lines.next(), Ok(None)));
        std::fs::remove_file(path).unwrap();
    }
}
