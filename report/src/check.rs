//! `tollgate check`: what the filter would say of a configuration, before Envoy has it.
//!
//! Errors come from the filter's own reader, so the two never disagree. Warnings are about what is allowed and most
//! likely not meant.

mod around;
mod budgets;
mod held;
mod warnings;

use crate::cli::{Exit, Format, FormatArgs};
use crate::document::Position;
use crate::envoy::{self, Configured};
use crate::input;
use crate::output::{ERROR, Output, STRONG, WARNING};
use anyhow::Context;
use clap::Args;
use serde::Serialize;
use std::io::Write;
use std::path::PathBuf;

/// Check a configuration before it goes live.
///
/// CONFIG is the filter's configuration by itself, or an Envoy configuration that holds it: a bootstrap, a listener,
/// xDS resources or a config dump. YAML and JSON are read as Envoy reads them.
#[derive(Args, Debug)]
#[command(after_help = AFTER)]
pub(crate) struct CheckArgs {
    /// The file, or - for standard input.
    #[arg(value_name = "CONFIG")]
    config: PathBuf,
    /// Let warnings fail the check as errors do.
    #[arg(long)]
    strict: bool,
    #[command(flatten)]
    format: FormatArgs,
}

const AFTER: &str = "\
Examples:
  tollgate check envoy.yaml
  tollgate check --strict --format json tollgate.json
  curl -s localhost:9901/config_dump | tollgate check -

Exit codes: 0 no errors, 1 errors (with --strict also warnings), 2 the file cannot be read.";

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Severity {
    /// The filter refuses the configuration.
    Error,
    /// The filter takes it; it is most likely not what was meant.
    Warning,
    /// It is good to know.
    Note,
}

/// Something to say about a configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    severity: Severity,
    /// Where in the filter's configuration.
    path: String,
    line: usize,
    column: usize,
    message: String,
    /// What kind of finding it is, for programs.
    code: &'static str,
}

/// Checks a file.
pub(crate) fn run(args: &CheckArgs, output: &mut Output) -> anyhow::Result<Exit> {
    let document = input::document(&args.config)?;
    let name = input::name(&args.config);
    let configured = envoy::configured(&document).with_context(|| format!("cannot check {name}"))?;
    let findings = findings(&configured, jiff::Timestamp::now());
    match args.format.format {
        Format::Json => output.json(&findings)?,
        Format::Text => print(&name, &findings, output)?,
    }
    let fails = |finding: &Finding| match finding.severity {
        Severity::Error => true,
        Severity::Warning => args.strict,
        Severity::Note => false,
    };
    Ok(if findings.iter().any(fails) { Exit::Findings } else { Exit::Clean })
}

/// Everything there is to say, in the order of the file.
fn findings(configured: &Configured, now: jiff::Timestamp) -> Vec<Finding> {
    let mut findings: Vec<Finding> = Vec::new();
    for found in &configured.filters {
        let config = found.read();
        let mut add = |severity, path: &str, message: String, code| {
            let Position { line, column } = found.tree.locate(path);
            let finding = Finding { severity, path: path.into(), line, column, message, code };
            // One configuration may stand in several places by a YAML alias.
            if !findings.contains(&finding) {
                findings.push(finding);
            }
        };
        for error in config.as_ref().err().into_iter().flatten() {
            add(Severity::Error, &error.path, error.message.clone(), "invalid");
        }
        let refused = |path: &str| {
            let errors = config.as_ref().err().into_iter().flatten();
            let mut below = errors.filter_map(|error| error.path.strip_prefix(path));
            !path.is_empty() && below.any(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        };
        let mut list = warnings::of(&found.tree, now);
        list.extend(warnings::of_clusters(&found.tree, configured.clusters.as_ref()));
        list.extend(config.as_ref().map(|config| budgets::of(config, &found.tree, now)).unwrap_or_default());
        if let Ok(config) = &config {
            list.extend(held::of(config, found.can_hold, &configured.buffers));
            list.extend(around::of(config, &found.tree, &configured.around));
        }
        for warning in list {
            if !refused(&warning.path) {
                add(warning.severity, &warning.path, warning.message, warning.code);
            }
        }
    }
    findings.sort_by_key(|finding| (finding.line, finding.column));
    findings
}

fn print(name: &str, findings: &[Finding], output: &mut Output) -> anyhow::Result<()> {
    for finding in findings {
        let (style, word) = match finding.severity {
            Severity::Error => (ERROR, "error"),
            Severity::Warning => (WARNING, "warning"),
            Severity::Note => (STRONG, "note"),
        };
        let place = format!("{name}:{}:{}", finding.line, finding.column);
        let path = if finding.path.is_empty() { String::new() } else { format!("{}: ", finding.path) };
        writeln!(output, "{STRONG}{place}{STRONG:#}: {style}{word}{style:#}: {path}{}", finding.message)?;
    }
    let count = |severity| findings.iter().filter(|finding| finding.severity == severity).count();
    let counted = |count: usize, word: &str| format!("{count} {word}{}", if count == 1 { "" } else { "s" });
    let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
    writeln!(output, "{name}: {}, {}", counted(errors, "error"), counted(warnings, "warning"))?;
    Ok(())
}

#[cfg(test)]
mod tests;
