//! The `tollgate` command: what finance and engineering ask of Tollgate's usage records.
//!
//! This release has the shell only: `tollgate --version` and `tollgate --help`.

use clap::Parser;

/// Reports, checks and exports from Tollgate's usage records.
#[derive(Parser)]
#[command(name = "tollgate", version, about, arg_required_else_help = true)]
struct Cli {}

fn main() {
    let Cli {} = Cli::parse();
}
