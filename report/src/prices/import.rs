//! `tollgate prices import`: the price tables of LiteLLM and genai-prices as the section `prices` of a configuration.

use super::layout::{self, Doc};
use super::losses::Report;
use super::names::Filter;
use super::source::Source;
use super::table::Model;
use super::{genai, litellm};
use crate::cli::Exit;
use crate::input;
use crate::output::Output;
use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// Turn LiteLLM's or genai-prices' table into a section `prices`.
///
/// What could not be carried over is said on standard error, by key and with counts.
#[derive(Args, Debug)]
#[command(after_help = AFTER)]
pub(crate) struct ImportArgs {
    /// Whose table FILE is.
    #[arg(value_enum)]
    source: Source,
    /// The data file, the package's wheel, or the folder it is installed in.
    file: PathBuf,
    /// Only this provider's models; may be given several times.
    #[arg(long, value_name = "NAME")]
    provider: Vec<String>,
    /// Only models whose name, key or provider/name this matches; `*` stands for anything; may be given several times.
    #[arg(long, value_name = "GLOB")]
    model: Vec<String>,
    /// Only models in this list: a name or glob a line, `#` begins a comment.
    #[arg(long, value_name = "LIST")]
    models_file: Option<PathBuf>,
    /// How to write the table.
    #[arg(long, value_enum, default_value_t = TableFormat::Yaml)]
    format: TableFormat,
    /// Write the table here instead of to standard output.
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Write the report here as JSON instead of to standard error.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// The table's version, as records will name it; by itself it is the source's.
    #[arg(long, value_name = "TEXT")]
    version: Option<String>,
}

const AFTER: &str = "\
Examples:
  pip download --no-deps litellm
  tollgate prices import litellm litellm-*.whl --provider openai --provider azure > prices.yaml
  tollgate prices import litellm prices.json --models-file models.txt --version 2026-11-01
  tollgate prices import genai-prices site-packages/genai_prices --format json --output prices.json

Exit codes: 0 imported, 1 a name that was asked for is not in the source, 2 the source cannot be
read.";

/// The language of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum TableFormat {
    /// For people, and for comparing versions.
    Yaml,
    /// One model a line.
    Json,
}

/// Imports.
pub(crate) fn run(args: &ImportArgs, output: &mut Output) -> anyhow::Result<Exit> {
    let prices = args.source.read(&args.file)?;
    let mut filter = filter(args)?;
    let mut report = Report::default();
    let models = match args.source {
        Source::Litellm => litellm::import(&prices.data, &mut filter, &mut report),
        Source::GenaiPrices => genai::import(&prices.data, &mut filter, &mut report),
    };
    if report.read == 0 {
        bail!("{} has no entries of {}: is it the right file?", input::name(&args.file), args.source.name());
    }
    let known = prices.version.map(|version| format!("{} {version}", args.source.name()));
    report.source = known.unwrap_or_else(|| args.source.name().into());
    report.models = models.len();
    report.not_found = filter.not_found();
    let version = args.version.as_ref().unwrap_or(&report.source);
    match &args.output {
        Some(path) => to_file(path, |out| write_table(out, args.format, version, &report, &models))?,
        None => write_table(output, args.format, version, &report, &models)?,
    }
    match &args.report {
        Some(path) => to_file(path, |out| {
            serde_json::to_writer_pretty(&mut *out, &report)?;
            writeln!(out)
        })?,
        None => {
            output.flush()?;
            report.write(&mut anstream::stderr())?;
        }
    }
    Ok(if report.not_found.is_empty() { Exit::Clean } else { Exit::Findings })
}

fn filter(args: &ImportArgs) -> anyhow::Result<Filter> {
    let mut names = args.model.clone();
    if let Some(list) = &args.models_file {
        let text = input::text(list)?;
        let lines = text.lines().map(|line| line.split_once('#').map_or(line, |(name, _)| name).trim());
        names.extend(lines.filter(|name| !name.is_empty()).map(str::to_owned));
    }
    Ok(Filter::new(&args.provider, names))
}

fn write_table(
    out: &mut impl Write,
    format: TableFormat,
    version: &str,
    report: &Report,
    models: &[Model],
) -> io::Result<()> {
    let docs: Vec<Doc> = models.iter().map(Model::doc).collect();
    match format {
        TableFormat::Json => layout::write_json(out, version, &docs),
        TableFormat::Yaml => {
            let comment = [
                format!("Prices from {}, imported by `tollgate prices import`.", report.source),
                format!(
                    "{} models, {} prices carried over; {} prices and names have no place in a table.",
                    models.len(),
                    report.prices,
                    report.lost()
                ),
            ];
            layout::write_yaml(out, &comment, version, &docs)
        }
    }
}

fn to_file(path: &Path, write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) -> anyhow::Result<()> {
    let context = || format!("cannot write {}", path.display());
    let mut file = BufWriter::new(File::create(path).with_context(context)?);
    write(&mut file).and_then(|()| file.flush()).with_context(context)
}
