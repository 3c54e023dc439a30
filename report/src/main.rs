//! The `tollgate` command: what finance and engineering ask of Tollgate's configuration, prices and usage records.
//!
//! Every subcommand is a module with its arguments and a `run`. They read through [`input`], write through
//! [`output`], and answer with an [`Exit`]; an error is something that kept the command from its work.

mod check;
mod cli;
mod document;
mod envoy;
mod explain;
mod input;
mod lines;
mod output;
mod prices;
mod recorded;
mod records;
mod settings;
mod simulate;

use clap::Parser;
use cli::{Cli, Exit};
use output::Output;
use std::io::{self, Write};
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = Cli::parse();
    cli.color.write_global();
    let mut output = Output::stdio();
    // What is still buffered may meet a full disk or a closed pipe too.
    let run = cli.command.run(&mut output).and_then(|exit| Ok(output.flush().map(|()| exit)?));
    match run {
        Ok(exit) => exit.into(),
        // Whoever reads the output has seen enough, as in `tollgate … | head`.
        Err(error) if is_broken_pipe(&error) => Exit::Clean.into(),
        Err(error) => {
            output.error(&format!("{error:#}"));
            Exit::Unusable.into()
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let causes = error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>());
    causes.into_iter().any(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
}
