//! What the command writes: results to standard output, everything else to standard error.
//!
//! Colours and the progress bar appear on a terminal only; `--color` and NO_COLOR decide for colours.

use anstyle::{AnsiColor, Style};
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use std::io::{self, Write};
use std::time::{Duration, Instant};

/// Headings and names.
pub(crate) const STRONG: Style = Style::new().bold();
/// What is said by the way.
pub(crate) const FAINT: Style = Style::new().dimmed();
/// Errors.
pub(crate) const ERROR: Style = AnsiColor::Red.on_default().bold();
/// Warnings.
pub(crate) const WARNING: Style = AnsiColor::Yellow.on_default().bold();

/// Where results go; it is an [`io::Write`] itself.
pub(crate) struct Output {
    results: Box<dyn Write>,
    messages: Box<dyn Write>,
}

impl Output {
    /// Standard output and standard error.
    pub(crate) fn stdio() -> Output {
        let results = io::BufWriter::new(anstream::stdout().lock());
        Output { results: Box::new(results), messages: Box::new(anstream::stderr()) }
    }

    /// Results to standard error as well, where standard output is taken.
    pub(crate) fn stderr() -> Output {
        Output { results: Box::new(anstream::stderr()), messages: Box::new(anstream::stderr()) }
    }

    /// Writes a value as JSON over several lines.
    pub(crate) fn json(&mut self, value: &impl Serialize) -> anyhow::Result<()> {
        serde_json::to_writer_pretty(&mut self.results, value)?;
        Ok(writeln!(self.results)?)
    }

    /// Writes rows in columns, each line behind `indent`.
    pub(crate) fn columns(&mut self, indent: &str, columns: Columns) -> io::Result<()> {
        for line in columns.lines() {
            writeln!(self.results, "{indent}{line}")?;
        }
        Ok(())
    }

    /// Says why the command cannot go on.
    pub(crate) fn error(&mut self, message: &str) {
        self.say(ERROR, "error", message);
    }

    /// Says something that is good to know.
    pub(crate) fn note(&mut self, message: &str) {
        self.say(STRONG, "note", message);
    }

    /// Says something on standard error, behind a word that tells what kind of message it is. Where nobody can read
    /// messages there is nobody to tell.
    fn say(&mut self, style: Style, kind: &str, message: &str) {
        let _ = self.results.flush();
        let _ = writeln!(self.messages, "{style}{kind}{style:#}: {message}");
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.results.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.results.flush()
    }
}

/// Rows whose columns line up.
pub(crate) struct Columns {
    table: Table,
    right: Vec<usize>,
}

impl Columns {
    /// No rows yet; the columns at the indexes `right` are aligned to the right, as numbers are.
    pub(crate) fn new(right: &[usize]) -> Columns {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        Columns { table, right: right.into() }
    }

    /// Puts a line of headings above.
    pub(crate) fn headings<const N: usize>(mut self, headings: [&str; N]) -> Columns {
        self.table.set_header(headings);
        self
    }

    /// Adds a row.
    pub(crate) fn row<T: Into<comfy_table::Cell>, const N: usize>(&mut self, cells: [T; N]) {
        self.table.add_row(cells);
    }

    fn lines(mut self) -> Vec<String> {
        for (index, column) in self.table.column_iter_mut().enumerate() {
            column.set_padding((0, 2));
            if self.right.contains(&index) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        self.table.lines().map(|line| line.trim_end().to_owned()).collect()
    }
}

/// A bar on standard error for work that turns out to take longer than a second; on a terminal only.
pub(crate) struct Progress {
    bar: ProgressBar,
    started: Instant,
}

impl Progress {
    /// Before the first of `total` steps, which are counted in `unit`, as in `records`.
    pub(crate) fn new(total: u64, unit: &'static str) -> Progress {
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::hidden());
        if let Ok(style) = ProgressStyle::with_template("{bar:40} {human_pos}/{human_len} {msg}, {eta} to go") {
            bar.set_style(style);
        }
        Progress { bar: bar.with_message(unit), started: Instant::now() }
    }

    /// So many more steps are done.
    pub(crate) fn advance(&self, steps: u64) {
        if self.bar.is_hidden() && self.started.elapsed() > Duration::from_secs(1) {
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
        self.bar.inc(steps);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
