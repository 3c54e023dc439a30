//! `tollgate prices diff`: what is different between two price tables, price by price.

use super::amount::Amount;
use super::layout::Doc;
use super::leaves::{self, Leaves};
use super::reprice::{self, Effect};
use super::tables::{self, Table};
use crate::cli::{Exit, Format, FormatArgs};
use crate::document::Node;
use crate::output::{Columns, Output, STRONG};
use clap::Args;
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;

/// Compare two price tables, and say what the change means for calls that were made.
///
/// A table is a section `prices` in YAML or JSON, or a configuration of the filter or of Envoy with one.
#[derive(Args, Debug)]
#[command(after_help = AFTER)]
pub(crate) struct DiffArgs {
    /// The table in use.
    old: PathBuf,
    /// The table to compare with it.
    new: PathBuf,
    /// Usage records, a JSON object a line, also compressed by gzip: what would these calls cost under each table?
    #[arg(long, value_name = "FILE")]
    records: Option<PathBuf>,
    #[command(flatten)]
    format: FormatArgs,
}

const AFTER: &str = "\
Examples:
  tollgate prices diff prices.yaml prices-new.yaml
  tollgate prices diff envoy.yaml prices-new.yaml --records usage.ndjson
  tollgate prices diff old.json new.json --format json

Calls are priced again from the tokens and units in their records, at the time they ended. What
`upstreams` says of a `price_multiplier` is left out on both sides. A record that is there twice
counts twice: `tollgate records merge` leaves one.

Exit codes: 0 no differences, 1 differences, 2 a file cannot be read or the filter would refuse
it.";

/// A value that is not the same in both tables.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Change {
    /// Where: `tiers[over 272000].rates.input`.
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    old: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    new: Option<String>,
    /// How much more the new one is, where both are amounts.
    #[serde(skip_serializing_if = "Option::is_none")]
    change: Option<String>,
}

/// Everything that is different.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct Difference {
    /// Of the table as a whole: its version, terms of providers.
    settings: Vec<Change>,
    /// Models only the new table has.
    added: Vec<String>,
    /// Models only the old table has.
    removed: Vec<String>,
    /// Models with other terms.
    changed: BTreeMap<String, Vec<Change>>,
}

#[derive(Serialize)]
struct Report<'a> {
    #[serde(flatten)]
    difference: &'a Difference,
    #[serde(skip_serializing_if = "Option::is_none")]
    records: Option<&'a Effect>,
}

/// Compares.
pub(crate) fn run(args: &DiffArgs, output: &mut Output) -> anyhow::Result<Exit> {
    let (old, new) = (Table::read(&args.old)?, Table::read(&args.new)?);
    let difference = Difference::between(&old.section, &new.section);
    let effect = args.records.as_ref().map(|records| reprice::effect(records, &old.prices, &new.prices)).transpose()?;
    match args.format.format {
        Format::Json => output.json(&Report { difference: &difference, records: effect.as_ref() })?,
        Format::Text => {
            difference.print(output)?;
            if let Some(effect) = &effect {
                effect.print(output)?;
            }
        }
    }
    Ok(if difference == Difference::default() { Exit::Clean } else { Exit::Findings })
}

impl Difference {
    fn between(old: &Node, new: &Node) -> Difference {
        let ((old_settings, old_models), (new_settings, new_models)) = (split(old), split(new));
        let mut difference = Difference { settings: changes(&old_settings, &new_settings), ..Difference::default() };
        for (name, new) in &new_models {
            match old_models.get(name) {
                None => difference.added.push(name.clone()),
                Some(old) if old != new => drop(difference.changed.insert(name.clone(), changes(old, new))),
                Some(_) => {}
            }
        }
        difference.removed = old_models.into_keys().filter(|name| !new_models.contains_key(name)).collect();
        difference
    }

    fn print(&self, output: &mut Output) -> anyhow::Result<()> {
        if *self == Difference::default() {
            writeln!(output, "The tables are the same.")?;
        }
        for (heading, names) in [("added", &self.added), ("removed", &self.removed)] {
            if !names.is_empty() {
                writeln!(output, "{STRONG}{heading}: {}{STRONG:#}", names.len())?;
                names.iter().try_for_each(|name| writeln!(output, "  {name}"))?;
            }
        }
        if !self.changed.is_empty() || !self.settings.is_empty() {
            writeln!(output, "{STRONG}changed: {}{STRONG:#}", self.changed.len())?;
            print_changes(output, "  ", &self.settings)?;
        }
        for (name, changes) in &self.changed {
            writeln!(output, "  {name}")?;
            print_changes(output, "    ", changes)?;
        }
        Ok(())
    }
}

fn print_changes(output: &mut Output, indent: &str, changes: &[Change]) -> anyhow::Result<()> {
    let mut columns = Columns::new(&[]);
    for change in changes {
        let [old, new] = [&change.old, &change.new].map(|value| value.as_deref().unwrap_or("none"));
        let change_text = change.change.as_deref().unwrap_or_default();
        columns.row([change.path.as_str(), &format!("{old} -> {new}"), change_text]);
    }
    Ok(output.columns(indent, columns)?)
}

/// The leaves of a table's own keys, and those of each model by its name.
fn split(section: &Node) -> (Leaves, BTreeMap<String, Leaves>) {
    let Doc::Map(mut map) = tables::values(section) else { return Default::default() };
    let models = map.iter().position(|(key, _)| key == "models").map(|index| map.remove(index).1);
    let Some(Doc::List(models)) = models else { return (leaves::of(&Doc::Map(map)), BTreeMap::new()) };
    let named = models.iter().map(|model| {
        let mut leaves = leaves::of(model);
        let provider = leaves.remove("provider");
        let name = leaves.remove("model").unwrap_or_default();
        // In which order names stand does not matter.
        if let Some(aliases) = leaves.get_mut("aliases") {
            let mut sorted: Vec<&str> = aliases.split(", ").collect();
            sorted.sort_unstable();
            *aliases = sorted.join(", ");
        }
        (provider.map_or(name.clone(), |provider| format!("{provider}: {name}")), leaves)
    });
    (leaves::of(&Doc::Map(map)), named.collect())
}

fn changes(old: &Leaves, new: &Leaves) -> Vec<Change> {
    let paths = old.keys().chain(new.keys().filter(|path| !old.contains_key(*path)));
    let mut changes: Vec<Change> = paths
        .filter(|path| old.get(*path) != new.get(*path))
        .map(|path| {
            let (old, new) = (old.get(path), new.get(path));
            let amount = |value: Option<&String>| Amount::parse(value?);
            let change = amount(old).zip(amount(new)).and_then(|(old, new)| old.percent_to(&new));
            Change { path: path.clone(), old: old.cloned(), new: new.cloned(), change }
        })
        .collect();
    changes.sort_by(|a, b| a.path.cmp(&b.path));
    changes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::{Dialect, Document};

    fn lines(old: &str, new: &str) -> Vec<String> {
        let section = |yaml: &str| Document::parse(yaml, Dialect::Yaml).unwrap().roots.remove(0);
        let difference = Difference::between(&section(old), &section(new));
        let mut lines: Vec<String> = difference.added.iter().map(|name| format!("added {name}")).collect();
        lines.extend(difference.removed.iter().map(|name| format!("removed {name}")));
        let all = std::iter::once(("table", &difference.settings))
            .chain(difference.changed.iter().map(|(name, changes)| (name.as_str(), changes)));
        for (name, changes) in all {
            for Change { path, old, new, change } in changes {
                let [old, new, change] = [old, new, change].map(|text| text.as_deref().unwrap_or("-"));
                lines.push(format!("{name} {path} {old} {new} {change}"));
            }
        }
        lines
    }

    #[test]
    fn every_kind_of_change_is_told_with_its_place() {
        let old = "
version: a
providers: {openai: {discount: '0.1'}}
models:
- {provider: openai, model: gone, rates: {input: '1'}}
- provider: openai
  model: m
  aliases: [x, y]
  rates: {input: '2.50', output: '10'}
  tiers: [{input_over: 200, rates: {input: '5'}}]
  off_peak: [{hours_utc: '16:30-00:30', weekdays: [1, 2], rates: {input: '1'}}]
  max_output_tokens: 100
";
        let new = "
version: b
providers: {openai: {discount: '0.2'}}
models:
- {model: new, rates: {input: '1'}}
- provider: openai
  model: m
  aliases: [y, x]
  rates: {input: '2.5', cached_input: '1', output: '8'}
  tiers: [{input_over: 100, rates: {input: '5'}}, {input_over: 200, rates: {input: '6'}}]
  off_peak: [{hours_utc: '16:30-00:30', weekdays: [1, 2], rates: {input: '0.5'}}]
  max_output_tokens: 100
";
        assert_eq!(
            lines(old, new),
            [
                "added new",
                "removed openai: gone",
                "table providers.openai.discount 0.1 0.2 +100%",
                "table version a b -",
                "openai: m off_peak[16:30-00:30 on 1 2].rates.input 1 0.5 -50%",
                "openai: m rates.cached_input - 1 -",
                "openai: m rates.output 10 8 -20%",
                "openai: m tiers[over 100].input_over - 100 -",
                "openai: m tiers[over 100].rates.input - 5 -",
                "openai: m tiers[over 200].rates.input 5 6 +20%",
            ]
        );
    }

    #[test]
    fn a_table_does_not_differ_from_itself_written_otherwise() {
        let yaml = "models: [{model: m, rates: {input: '2.50', output: 10}}]";
        let json = r#"{"models": [{"model": "m", "rates": {"output": "10.00", "input": 2.5}}]}"#;
        assert_eq!(lines(yaml, json), Vec::<String>::new());
    }
}
