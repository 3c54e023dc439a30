//! `tollgate records`: what is done with files of usage records.

mod gaps;
mod kept;
mod line;
mod merge;
mod summary;
mod target;

use crate::cli::Exit;
use crate::output::Output;
use clap::{Args, Subcommand};

/// Complete usage records from Envoy's access log.
#[derive(Args, Debug)]
pub(crate) struct RecordsArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Merge(merge::MergeArgs),
}

/// Does what is asked.
pub(crate) fn run(args: &RecordsArgs, output: &mut Output) -> anyhow::Result<Exit> {
    match &args.command {
        Command::Merge(args) => merge::run(args, output),
    }
}
