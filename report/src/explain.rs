//! `tollgate explain`: why a call was attributed and priced as it was.
//!
//! The call is played through the filter's own core, so that what is explained is what the filter does.

mod account;
mod budgets;
mod exchange;
mod play;
mod text;

use crate::cli::{Exit, Format, FormatArgs};
use crate::output::Output;
use crate::settings::{self, Settings};
use account::Account;
use budgets::{Governed, Spent};
use clap::Args;
use jiff::Timestamp;
use std::io::Write;
use std::path::PathBuf;
use std::rc::Rc;

/// Explain what the filter makes of one call: its owner, its usage, each term of its price, what budgets say of it.
///
/// The call is given whole, as --exchange, or in parts, as `curl -v` and `curl -D` write them.
#[derive(Args, Debug)]
#[command(after_help = AFTER)]
pub(crate) struct ExplainArgs {
    /// The filter's configuration, by itself or in an Envoy configuration.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A price table to take instead of the configuration's: a section `prices`, or a configuration with one.
    #[arg(long, value_name = "FILE")]
    prices: Option<PathBuf>,
    /// So many dollars were spent before in the call's scope of a budget; may be given for several.
    #[arg(long, value_name = "BUDGET=USD", value_parser = budgets::spent)]
    spent: Vec<Spent>,
    #[command(flatten)]
    call: exchange::CallArgs,
    #[command(flatten)]
    format: FormatArgs,
}

const AFTER: &str = "\
Examples:
  tollgate explain --config envoy.yaml --exchange call.json
  tollgate explain --prices prices.yaml --path /v1/chat/completions --response-body answer.json
  tollgate explain --config envoy.yaml --request-headers sent.txt --request-body sent.json \\
      --response-headers got.txt --response-body got.sse --at 2026-11-18T12:00:00Z
  tollgate explain --config envoy.yaml --exchange call.json --spent team-daily=99.50

An exchange is JSON or YAML; of the bodies each may also be `body_file` or `body_base64`:
  {\"request\":  {\"method\": \"POST\", \"path\": \"/v1/chat/completions\",
                \"headers\": {\"x-cost-team\": \"search\"}, \"body\": {\"model\": \"gpt-4o\"}},
   \"response\": {\"status\": 200, \"headers\": {\"content-type\": \"application/json\"},
                \"body\": {\"usage\": {\"prompt_tokens\": 9, \"completion_tokens\": 3}}},
   \"at\": \"2026-11-18T12:00:00Z\"}

Exit codes: 0 explained, 1 it is no LLM call or the configuration is refused, 2 a file cannot be
read.";

/// Explains a call.
pub(crate) fn run(args: &ExplainArgs, output: &mut Output) -> anyhow::Result<Exit> {
    let exchange = args.call.read(output)?;
    let Some(settings) = settings::read(args.config.as_deref(), args.prices.as_deref(), output)? else {
        return Ok(Exit::Findings);
    };
    let now = u64::try_from(Timestamp::now().as_nanosecond()).unwrap_or_default();
    let at_ns = exchange.at_ns.unwrap_or(now);
    let governed = Governed::of(&exchange, &settings, at_ns, &args.spent)?;
    let Settings { config, prices, .. } = settings;
    let config = Rc::new(config);
    let spent = governed.as_ref().map(Governed::spent).unwrap_or_default();
    let played = play::play(&exchange, &config, at_ns, &spent);
    let account = Account::of(&exchange, &config, &played, prices.as_ref(), governed)?;
    match (args.format.format, &account) {
        (Format::Json, account) => output.json(account)?,
        (Format::Text, Some(account)) => text::print(account, output)?,
        (Format::Text, None) => writeln!(
            output,
            "No LLM call: nothing is metered at {} {}, and no entry of `upstreams` says what it speaks.",
            exchange.header(":method"),
            exchange.header(":path")
        )?,
    }
    Ok(if account.is_some() { Exit::Clean } else { Exit::Findings })
}
