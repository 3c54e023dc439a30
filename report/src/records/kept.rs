//! The records that are kept, one of each id.
//!
//! In memory there is only what tells records apart and where each stands; their texts are in an unnamed temporary file,
//! so that any input can be read once and as it comes: compressed, from a pipe, or while a log is rotated.

use super::line::{About, Id, Record};
use crate::output::Progress;
use anyhow::Context;
use indexmap::IndexMap;
use indexmap::map;
use serde::Serialize;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::Path;

/// Room for a few records: most are read in the order in which they were written, and a step further is cheap.
const READ_BYTES: usize = 1 << 14;

/// Where a record comes from. The later one counts where both have the end of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Source {
    AccessLog,
    Collector,
}

impl Source {
    const fn bit(self) -> u8 {
        match self {
            Source::AccessLog => 1,
            Source::Collector => 2,
        }
    }
}

/// One of each id.
#[derive(Debug)]
pub(super) struct Kept {
    records: IndexMap<Id, Entry>,
    texts: BufWriter<File>,
    end: u64,
}

/// A record, but for its id. There is one in memory for each.
#[derive(Clone, Copy, Debug)]
struct Entry {
    ts_micros: i64,
    offset: u64,
    /// Of its text, in bytes.
    length: u32,
    state: State,
    source: Source,
    /// The bits of the sources that had the id.
    seen: u8,
}

/// What a record says, as far as records of the same id differ in it.
#[derive(Clone, Copy, Debug)]
enum State {
    Ended { outcome: u32 },
    UnderWay { duration_ms: u32 },
    Other,
}

impl Entry {
    /// Of two records of the same id the one that is higher stays. The end of a call is above a look at it while it was
    /// under way; of several looks, the one that saw most of it.
    fn rank(&self) -> (u8, Option<Source>, u32, u32) {
        match self.state {
            State::Ended { .. } => (2, Some(self.source), 0, 0),
            State::Other => (1, Some(self.source), 0, 0),
            State::UnderWay { duration_ms } => (0, None, duration_ms, self.length),
        }
    }
}

/// What became of a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Taken {
    /// The same source had its id before.
    pub(super) repeated: bool,
    /// Another record of the call says that it came to something else.
    pub(super) contradicts: bool,
}

/// What was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Written {
    #[serde(rename = "written")]
    pub(super) records: u64,
    /// Those that only the access log has.
    pub(super) added: u64,
    /// Those of which the collector's files have no end, and the access log has it.
    pub(super) ended: u64,
    /// Those of which nobody has seen the end.
    pub(super) provisional: u64,
}

impl Kept {
    /// Nothing yet; texts go to a file in `directory` that has no name.
    ///
    /// # Errors
    /// There can be no file.
    pub(super) fn new(directory: &Path) -> anyhow::Result<Kept> {
        let file = tempfile::tempfile_in(directory);
        let file = file.with_context(|| format!("cannot create a temporary file in {}", directory.display()))?;
        Ok(Kept { records: IndexMap::new(), texts: BufWriter::with_capacity(1 << 18, file), end: 0 })
    }

    /// Keeps `record`, unless there is a better one of its id.
    ///
    /// # Errors
    /// The disk is full.
    pub(super) fn take(&mut self, record: &Record<'_>, source: Source) -> anyhow::Result<Taken> {
        let state = match &record.about {
            About::Ended(ended) => State::Ended { outcome: ended.outcome },
            About::UnderWay { duration_ms } => State::UnderWay { duration_ms: *duration_ms },
            About::Other => State::Other,
        };
        let length = u32::try_from(record.text.len()).context("a record of 4 GiB")?;
        let seen = source.bit();
        let mut new = Entry { ts_micros: record.ts_micros, offset: self.end, length, state, source, seen };
        let mut taken = Taken::default();
        match self.records.entry(record.id) {
            map::Entry::Vacant(vacant) => {
                vacant.insert(new);
            }
            map::Entry::Occupied(mut occupied) => {
                let old = occupied.get_mut();
                taken.repeated = old.seen & seen != 0;
                taken.contradicts = matches!((old.state, new.state),
                    (State::Ended { outcome: old }, State::Ended { outcome: new }) if old != new);
                old.seen |= seen;
                if new.rank() <= old.rank() {
                    return Ok(taken);
                }
                new.seen = old.seen;
                *old = new;
            }
        }
        self.texts.write_all(record.text.as_bytes()).context("cannot write to a temporary file")?;
        self.end += u64::from(length);
        Ok(taken)
    }

    /// Writes each record on a line of its own, by time and id.
    ///
    /// # Errors
    /// A file can't be written or read.
    pub(super) fn write(self, to: &mut impl Write) -> anyhow::Result<Written> {
        let Kept { mut records, texts, .. } = self;
        records.sort_unstable_by(|id, entry, other_id, other| (entry.ts_micros, id).cmp(&(other.ts_micros, other_id)));
        let mut file = texts.into_inner().map_err(io::IntoInnerError::into_error).context(TEXTS)?;
        file.seek(SeekFrom::Start(0)).context(TEXTS)?;
        let mut texts = BufReader::with_capacity(READ_BYTES, file);
        let progress = Progress::new(u64::try_from(records.len()).unwrap_or(u64::MAX), "records");
        let mut written = Written::default();
        let mut at = 0u64;
        for entry in records.values() {
            // Stays in what was read ahead, where it can.
            texts.seek_relative(entry.offset.wrapping_sub(at).cast_signed()).context(TEXTS)?;
            let length = u64::from(entry.length);
            let copied = io::copy(&mut texts.by_ref().take(length), to).context("cannot write the records")?;
            anyhow::ensure!(copied == length, "{TEXTS}: it is shorter than what was written");
            at = entry.offset.saturating_add(length);
            to.write_all(b"\n").context("cannot write the records")?;
            progress.advance(1);
            written.records += 1;
            written.added += u64::from(entry.seen == Source::AccessLog.bit());
            match entry.state {
                State::Ended { .. }
                    if entry.source == Source::AccessLog && entry.seen & Source::Collector.bit() != 0 =>
                {
                    written.ended += 1;
                }
                State::UnderWay { .. } => written.provisional += 1,
                State::Ended { .. } | State::Other => {}
            }
        }
        Ok(written)
    }
}

/// What may go wrong while texts are read again.
const TEXTS: &str = "cannot read a temporary file";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::line::{Found, find};
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    /// A call's records: its looks under way by their durations, and its end.
    fn lines(id: u8, durations: &[u16], ended: bool) -> Vec<String> {
        let record = |more: String| {
            let ts = format!("2026-11-18T12:00:{:02}Z", id % 7);
            format!(
                r#"{{"schema_version":1,"type":"usage","id":"0199aaaa-bbbb-7ccc-8ddd-eeeeffff00{id:02x}","ts":"{ts}",{more}}}"#
            )
        };
        let look = |duration: &u16| record(format!(r#""end_reason":"provisional","duration_ms":{duration}"#));
        let end = || record(r#""end_reason":"complete","duration_ms":99,"seq":1,"instance":"i""#.into());
        durations.iter().map(look).chain(ended.then(end)).collect()
    }

    fn merge(lines: &[(Source, &String)]) -> (Vec<String>, Written) {
        let mut kept = Kept::new(&std::env::temp_dir()).unwrap();
        for (source, line) in lines {
            let Found::Record(record) = find(line.as_bytes()) else { panic!("{line}") };
            kept.take(&record, *source).unwrap();
        }
        let mut bytes = Vec::new();
        let written = kept.write(&mut bytes).unwrap();
        let text = String::from_utf8(bytes).unwrap();
        assert!(text.is_empty() || text.ends_with('\n'));
        (text.lines().map(String::from).collect(), written)
    }

    #[test]
    fn of_two_ends_the_collectors_stays_and_of_two_alike_the_first() {
        let end = |cost: u8| lines(1, &[], true).remove(0).replace(r#""seq":1"#, &format!(r#""cost_picousd":{cost}"#));
        let (a, b) = (end(1), end(2));
        use Source::{AccessLog, Collector};
        for (first, second, stays) in [
            (Collector, AccessLog, &a),
            (AccessLog, Collector, &b),
            (Collector, Collector, &a),
            (AccessLog, AccessLog, &a),
        ] {
            assert_eq!(merge(&[(first, &a), (second, &b)]).0, std::slice::from_ref(stays), "{first:?}, {second:?}");
        }
    }

    proptest! {
        #[test]
        fn any_split_in_any_order_gives_each_call_once(
            calls in prop::collection::btree_map(any::<u8>(), (prop::collection::vec(1u16..50, 0..4), any::<bool>()), 0..30),
            places in prop::collection::vec((any::<bool>(), any::<bool>(), any::<u32>()), 200),
        ) {
            let records: Vec<(u8, String)> =
                calls.iter().flat_map(|(id, (looks, ended))| lines(*id, looks, *ended).into_iter().map(|line| (*id, line))).collect();
            // Each is in one file or both, at any place of it.
            let mut split: Vec<(u32, Source, &String)> = Vec::new();
            for ((_, line), (at_collector, logged, place)) in records.iter().zip(&places) {
                if *at_collector {
                    split.push((*place, Source::Collector, line));
                }
                if *logged || !at_collector {
                    split.push((place.rotate_left(7), Source::AccessLog, line));
                }
            }
            split.sort();
            let split: Vec<_> = split.into_iter().map(|(_, source, line)| (source, line)).collect();
            let (merged, written) = merge(&split);

            // The end of each call, else the latest look at it, by time and id.
            let mut expected: BTreeMap<(u8, u8), String> = BTreeMap::new();
            for (id, (looks, ended)) in &calls {
                if *ended || !looks.is_empty() {
                    let latest: Vec<u16> = looks.iter().max().copied().into_iter().collect();
                    expected.insert((id % 7, *id), lines(*id, &latest, *ended).pop().unwrap());
                }
            }
            let expected: Vec<String> = expected.into_values().collect();
            prop_assert_eq!(&merged, &expected);
            prop_assert_eq!(written.records, u64::try_from(expected.len()).unwrap());
            let under_way = expected.iter().filter(|line| line.contains("provisional")).count();
            prop_assert_eq!(written.provisional, u64::try_from(under_way).unwrap());
            let only_logged = |id: &u8| split.iter().all(|(source, line)| *source == Source::AccessLog || !lines(*id, &calls[id].0, calls[id].1).contains(line));
            let added = calls.iter().filter(|(id, (looks, ended))| (*ended || !looks.is_empty()) && only_logged(id)).count();
            prop_assert_eq!(written.added, u64::try_from(added).unwrap());

            // Backwards, and merged with itself, it is the same.
            let backwards: Vec<_> = split.iter().rev().copied().collect();
            prop_assert_eq!(&merge(&backwards).0, &expected);
            let again: Vec<_> = merged.iter().map(|line| (Source::Collector, line)).chain(split).collect();
            let (again, written) = merge(&again);
            prop_assert_eq!(&again, &expected);
            prop_assert_eq!((written.added, written.ended), (0, 0));
        }
    }
}
