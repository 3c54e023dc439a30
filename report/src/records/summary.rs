//! What a merge came to.

use super::gaps::Missing;
use super::kept::Written;
use crate::lines::Damaged;
use crate::output::{Columns, Output};
use serde::Serialize;

/// Lines that are named, of each kind.
pub(super) const MAX_NAMED: usize = 20;

/// What was read and written.
#[derive(Debug, Default, Serialize)]
pub(super) struct Summary {
    pub(super) collector: Input,
    pub(super) access_log: Input,
    /// Where the records went.
    pub(super) output: String,
    #[serde(flatten)]
    pub(super) written: Written,
    /// Lines that seem to be records and cannot be read, and the first of them.
    pub(super) unreadable: Named,
    /// Records that contradict another of their id, and the first of them.
    pub(super) contradicting: Named,
    /// Records that the numbers of others say there were.
    pub(super) missing: Missing,
}

/// What was read of one kind of file.
#[derive(Debug, Default, Serialize)]
pub(super) struct Input {
    pub(super) files: u64,
    /// Lines that are not empty.
    pub(super) lines: u64,
    pub(super) records: u64,
    /// Those of them whose id such a file had before.
    pub(super) repeated: u64,
    /// Those of them that are not about a call.
    pub(super) other_records: u64,
    /// Lines of JSON without a record.
    pub(super) other_json: u64,
    /// Lines of text without a record.
    pub(super) other_text: u64,
}

/// Lines, of which the first are named.
#[derive(Debug, Default, Serialize)]
pub(super) struct Named {
    pub(super) count: u64,
    pub(super) first: Vec<Damaged>,
}

impl Named {
    /// One more.
    pub(super) fn add(&mut self, one: Damaged) {
        self.count += 1;
        if self.first.len() < MAX_NAMED {
            self.first.push(one);
        }
    }
}

impl Summary {
    /// Whether records are missing, or there are lines that can't be relied on.
    pub(super) fn has_findings(&self) -> bool {
        self.unreadable.count + self.contradicting.count + self.missing.records > 0
    }

    /// For people.
    pub(super) fn print(&self, to: &mut Output) -> anyhow::Result<()> {
        let mut rows = Columns::new(&[1]);
        let mut row = |what: &str, count: u64, more: &str| rows.row([what, &count.to_string(), more]);
        for (what, input) in [("from the collector", &self.collector), ("from the access log", &self.access_log)] {
            if input.files > 0 {
                row(what, input.records, &input.details());
            }
        }
        let Written { records, added, ended, provisional } = self.written;
        row("added", added, "that only the access log has");
        for (what, count, more) in [
            ("ended", ended, "in the access log, and not in the collector's files"),
            ("provisional", provisional, "of calls whose VM died, or that were under way"),
            ("unreadable", self.unreadable.count, "lines of both"),
            (
                "contradicting",
                self.contradicting.count,
                "another record of the call: the collector's counts, or the first",
            ),
        ] {
            if count > 0 {
                row(what, count, more);
            }
        }
        let of = match self.missing.instances {
            0 => "each VM".into(),
            some => counted(some, "VM"),
        };
        row("missing", self.missing.records, &format!("by the numbers of {of}"));
        row("written", records, &format!("to {}", self.output));
        to.columns("", rows)?;
        for (named, what) in [(&self.unreadable, "unreadable"), (&self.contradicting, "contradicting")] {
            for Damaged { file, line, message } in &named.first {
                to.note(&format!("{file}:{line}: {what}: {message}"));
            }
        }
        for gap in &self.missing.gaps {
            let (first, last) = (gap.first_seq, gap.last_seq);
            let numbers = if first == last { format!("seq {first}") } else { format!("seq {first} to {last}") };
            to.note(&format!("missing: instance {}, {numbers}", gap.instance));
        }
        Ok(())
    }
}

impl Input {
    fn details(&self) -> String {
        let mut details = format!("in {}", counted(self.files, "file"));
        for (count, what) in [(self.repeated, "repeated"), (self.other_records, "not about a call")] {
            if count > 0 {
                details += &format!(", {count} {what}");
            }
        }
        let kinds = [(self.other_text, "of text"), (self.other_json, "of JSON")];
        let kinds: Vec<String> =
            kinds.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
        if !kinds.is_empty() {
            details += &format!("; other lines: {}", kinds.join(", "));
        }
        details
    }
}

fn counted(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
