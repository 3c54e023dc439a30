//! The command line: subcommands, the options they share, and exit codes.

use crate::check;
use crate::explain;
use crate::output::Output;
use crate::prices;
use crate::records;
use crate::simulate;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::process::ExitCode;

/// Checks, explains and prices what Tollgate does: LLM cost attribution for Envoy.
#[derive(Parser)]
#[command(name = "tollgate", version, arg_required_else_help = true, max_term_width = 100, after_help = AFTER)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
    #[command(flatten)]
    pub(crate) color: colorchoice_clap::Color,
}

const AFTER: &str = "\
Exit codes: 0 fine, 1 something was found in the input, 2 wrong usage or an input that cannot be
read.
A file named `-` is standard input.";

/// What can be asked.
#[derive(Subcommand)]
pub(crate) enum Command {
    Check(check::CheckArgs),
    Explain(explain::ExplainArgs),
    Prices(prices::PricesArgs),
    Records(records::RecordsArgs),
    Simulate(simulate::SimulateArgs),
}

impl Command {
    /// Does what is asked.
    pub(crate) fn run(self, output: &mut Output) -> anyhow::Result<Exit> {
        match self {
            Command::Check(args) => check::run(&args, output),
            Command::Explain(args) => explain::run(&args, output),
            Command::Prices(args) => prices::run(&args, output),
            Command::Records(args) => records::run(&args, output),
            Command::Simulate(args) => simulate::run(&args, output),
        }
    }
}

/// `--format`, for commands whose output is read by people and by programs.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct FormatArgs {
    /// How to write the result.
    #[arg(long, value_enum, default_value_t = Format::Text, value_name = "FORMAT")]
    pub(crate) format: Format,
}

/// How a result is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// What a run came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Nothing to complain about.
    Clean,
    /// Something is wrong with what was looked at.
    Findings,
    /// It could not be looked at.
    Unusable,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(match exit {
            Exit::Clean => 0,
            Exit::Findings => 1,
            Exit::Unusable => 2,
        })
    }
}
