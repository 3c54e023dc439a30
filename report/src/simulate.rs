//! `tollgate simulate`: what budgets would have done to calls that were made.
//!
//! Usage records are played in the order in which their calls began, against the ledger of the filter itself on the
//! records' own clock: a call holds its estimate from its start to its end, so that calls overlap as they did. Memory is
//! bounded by what is looked at together ([`records`], [`tally`]), whatever the number of records.

mod calls;
mod records;
mod replay;
mod tally;
mod text;

use crate::cli::{Exit, Format, FormatArgs};
use crate::output::Output;
use crate::settings;
use anyhow::bail;
use calls::Reader;
use clap::Args;
use replay::Replay;
use std::path::PathBuf;

/// Replay recorded calls against budgets: what would they have refused, downgraded, saved?
///
/// RECORDS are usage records, a JSON object a line, as the collector gets them or as they stand in the access log, also
/// compressed by gzip. Several files are merged by time.
#[derive(Args, Debug)]
#[command(after_help = AFTER)]
pub(crate) struct SimulateArgs {
    /// The configuration with the budgets, by itself or in an Envoy configuration.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Price every call anew by this table, a section `prices` or a configuration with one; else calls cost what their
    /// records say.
    #[arg(long, value_name = "FILE")]
    prices: Option<PathBuf>,
    /// How many scopes of each budget are shown, those with refusals and the fullest first.
    #[arg(long, value_name = "NUMBER", default_value_t = 20)]
    top: usize,
    /// Let lines that are no records fail the run.
    #[arg(long)]
    strict: bool,
    #[command(flatten)]
    format: FormatArgs,
    /// The files, or - for standard input.
    #[arg(value_name = "RECORDS", required = true)]
    records: Vec<PathBuf>,
}

const AFTER: &str = "\
Examples:
  tollgate simulate --config new.yaml usage.ndjson
  zcat usage-*.ndjson.gz | tollgate simulate --config envoy.yaml --top 5 -
  tollgate simulate --config new.yaml --prices prices-new.yaml --format json usage-*.ndjson.gz

A call holds the estimate of its record, else the dearest its input and its limit on output may
cost. A call that is refused spends nothing; whether its caller would have tried again is not
known. Calls that were refused when they were made are left out, as nobody knows what they would
have used. A downgraded call is taken to use the same tokens at the target's prices; what a target
lacks is not in the records, so there may be fewer downgrades.

Memory: about 150 MB for records in about the order of their ends (the next 200000 are sorted by
their start), and up to 100000 scopes.

Exit codes: 0 replayed, 1 with --strict and lines that are no records, 2 a file cannot be read or
the configuration is refused.";

/// Replays.
pub(crate) fn run(args: &SimulateArgs, output: &mut Output) -> anyhow::Result<Exit> {
    let Some(settings) = settings::read(Some(&args.config), args.prices.as_deref(), output)? else {
        return Ok(Exit::Unusable);
    };
    let config = settings.config;
    if config.budgets.is_empty() {
        bail!("{} has no budgets", crate::input::name(&args.config));
    }
    let mut reader = Reader::open(&args.records, &config, args.prices.is_some())?;
    let mut replay = Replay::new(&config);
    while let Some(call) = reader.next()? {
        replay.take(call);
    }
    replay.finish();
    let outcome = replay.outcome(&reader, args.top);
    for problem in &outcome.input.damaged {
        output.note(&format!("{}:{}: no record: {}", problem.file, problem.line, problem.message));
    }
    match args.format.format {
        Format::Json => output.json(&outcome)?,
        Format::Text => text::print(&outcome, output)?,
    }
    let fails = args.strict && outcome.input.damaged_lines > 0;
    Ok(if fails { Exit::Findings } else { Exit::Clean })
}
