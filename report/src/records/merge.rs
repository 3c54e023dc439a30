//! `tollgate records merge`: the collector's records, completed from Envoy's access log.
//!
//! What a collector did not take in time, or lost, is in the access log, and so are the provisional records of calls
//! whose VM died. Every record is written as it came, byte for byte. Which of several is written does not depend on the
//! order of files or lines, unless two of the same source differ: then it is the first.

use super::gaps::Numbers;
use super::kept::{Kept, Source};
use super::line::{self, About, Found};
use super::summary::{Input, Summary};
use super::target::Target;
use crate::cli::{Exit, Format, FormatArgs};
use crate::lines::{self, Line, Lines, MAX_LINE_BYTES};
use crate::output::Output;
use anyhow::bail;
use clap::Args;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Complete the collector's records from Envoy's access log, each call once.
///
/// Both are usage records, a JSON object a line, also compressed by gzip. In a line, a record may also stand behind
/// something else, or under a key of an object, as an object or as text. Records are written as they came, in the order
/// of ts and id; a summary goes to standard error.
#[derive(Args, Debug)]
#[command(after_help = AFTER)]
pub(super) struct MergeArgs {
    /// The collector's files, or - for standard input.
    #[arg(value_name = "COLLECTOR", required_unless_present = "access_log")]
    collector: Vec<PathBuf>,
    /// Envoy's access logs, or - for standard input.
    #[arg(long, value_name = "LOG", num_args = 1..)]
    access_log: Vec<PathBuf>,
    /// Where to write the records: a file that appears when it is whole; else standard output.
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Let records that are missing, unreadable or contradicting fail the run.
    #[arg(long)]
    strict: bool,
    #[command(flatten)]
    format: FormatArgs,
}

const AFTER: &str = "\
Examples:
  tollgate records merge usage.ndjson --access-log access.log -o complete.ndjson
  tollgate records merge usage-*.ndjson.gz --access-log access-*.log.gz --strict -o complete.ndjson
  kubectl logs deploy/envoy | tollgate records merge usage.ndjson --access-log - > complete.ndjson

Of several records of one id, the end of the call counts more than a provisional record, and the
collector's more than the access log's; of several provisional ones, the one with the longest
duration. Records that are not about calls are kept, too. Missing are numbers (seq) of a VM
(instance) between two that there are: records that neither has.

Needs about 100 MB of memory per million records, and disk for what is written, once more: beside
the output, else in TMPDIR.

Exit codes: 0 merged, 1 merged, with --strict and records that are missing, unreadable or
contradicting, 2 a file cannot be read or written.";

/// Merges.
pub(super) fn run(args: &MergeArgs, output: &mut Output) -> anyhow::Result<Exit> {
    let inputs = || args.collector.iter().chain(&args.access_log);
    if inputs().filter(|path| **path == Path::new("-")).count() > 1 {
        bail!("standard input can be read once only");
    }
    let mut target = Target::open(args.output.as_deref(), inputs())?;
    let progress = lines::progress(inputs());
    let mut merge = Merge::new(&target.directory())?;
    // The collector's first: then most of the log is known and need not be put aside.
    for (paths, source) in [(&args.collector, Source::Collector), (&args.access_log, Source::AccessLog)] {
        for path in paths {
            merge.read(Lines::open(path, &progress)?, source)?;
        }
    }
    drop(progress);
    let name = target.name();
    let mut summary = merge.write(&mut target)?;
    target.finish()?;
    summary.output = name;
    let fails = args.strict && summary.has_findings();
    output.flush()?;
    let mut messages = Output::stderr();
    match args.format.format {
        Format::Json => messages.json(&summary)?,
        Format::Text => summary.print(&mut messages)?,
    }
    Ok(if fails { Exit::Findings } else { Exit::Clean })
}

/// A merge under way.
struct Merge {
    kept: Kept,
    numbers: Numbers,
    summary: Summary,
}

impl Merge {
    fn new(directory: &Path) -> anyhow::Result<Merge> {
        Ok(Merge { kept: Kept::new(directory)?, numbers: Numbers::default(), summary: Summary::default() })
    }

    fn read(&mut self, mut lines: Lines, source: Source) -> anyhow::Result<()> {
        self.input(source).files += 1;
        loop {
            let found = match lines.next()? {
                None => return Ok(()),
                Some(Line::TooLong) => Found::Damaged(format!("longer than {} MiB", MAX_LINE_BYTES >> 20)),
                Some(Line::Whole(line)) => line::find(line),
            };
            let input = self.input(source);
            input.lines += 1;
            let record = match found {
                Found::Record(record) => record,
                Found::Json => {
                    input.other_json += 1;
                    continue;
                }
                // Anything may stand in a log; a collector was told to write JSON.
                Found::Text if source == Source::AccessLog => {
                    input.other_text += 1;
                    continue;
                }
                Found::Text => {
                    self.summary.unreadable.add(lines.damaged("not JSON".into()));
                    continue;
                }
                Found::Damaged(message) => {
                    self.summary.unreadable.add(lines.damaged(message));
                    continue;
                }
            };
            input.records += 1;
            match &record.about {
                About::Ended(ended) => {
                    if let Some((instance, seq)) = &ended.place {
                        self.numbers.insert(instance, *seq);
                    }
                }
                About::UnderWay { .. } => {}
                About::Other => input.other_records += 1,
            }
            let taken = self.kept.take(&record, source)?;
            self.input(source).repeated += u64::from(taken.repeated);
            if taken.contradicts {
                let contradicting =
                    lines.damaged("another record of the call differs in its end, tokens or cost".into());
                self.summary.contradicting.add(contradicting);
            }
        }
    }

    fn input(&mut self, source: Source) -> &mut Input {
        match source {
            Source::Collector => &mut self.summary.collector,
            Source::AccessLog => &mut self.summary.access_log,
        }
    }

    /// Writes what was read.
    fn write(self, to: &mut impl Write) -> anyhow::Result<Summary> {
        let mut summary = self.summary;
        summary.written = self.kept.write(to)?;
        summary.missing = self.numbers.missing();
        Ok(summary)
    }
}
