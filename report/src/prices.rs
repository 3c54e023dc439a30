//! `tollgate prices`: price tables from others' data, and what differs between two tables.

mod amount;
mod diff;
mod genai;
mod import;
mod layout;
mod leaves;
mod litellm;
mod losses;
mod names;
mod python;
mod reprice;
mod source;
mod table;
mod tables;

use crate::cli::Exit;
use crate::output::Output;
use clap::{Args, Subcommand};
pub(crate) use tables::section;

/// Import price tables, and compare them.
#[derive(Args, Debug)]
pub(crate) struct PricesArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Import(import::ImportArgs),
    Diff(diff::DiffArgs),
}

/// Does what is asked.
pub(crate) fn run(args: &PricesArgs, output: &mut Output) -> anyhow::Result<Exit> {
    match &args.command {
        Command::Import(args) => import::run(args, output),
        Command::Diff(args) => diff::run(args, output),
    }
}
