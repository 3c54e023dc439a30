//! Price tables that were written before: read, and held to what the filter accepts.

use super::amount::Amount;
use super::layout::Doc;
use crate::document::{Document, Node, Numbers, Value};
use crate::envoy;
use crate::input;
use anyhow::{Context, bail};
use std::path::Path;
use tollgate::config::{Config, Origin};
use tollgate::price::PriceTable;

/// How many errors of a table are shown.
const MAX_ERRORS: usize = 20;

/// A price table in a file.
pub(crate) struct Table {
    /// The section `prices` as it is written.
    pub(crate) section: Node,
    /// The table the filter makes of it.
    pub(crate) prices: PriceTable,
}

impl Table {
    /// Reads a section `prices` by itself, or the one in a configuration of the filter or of Envoy.
    ///
    /// # Errors
    /// Everything that the filter has to say against it, with its places.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Table> {
        let name = input::name(path);
        let section = section(path)?;
        let json = format!("{{\"prices\":{}}}", section.to_json(Numbers::AsWritten));
        match Config::from_json(&json, Origin::Json) {
            Ok(config) => Ok(Table { section, prices: config.prices.table }),
            Err(errors) => {
                let lines = errors.iter().take(MAX_ERRORS).map(|error| {
                    let below = error.path.strip_prefix("prices").unwrap_or(&error.path);
                    format!("\n  {name}:{}: {error}", section.locate(below))
                });
                let lines: String = lines.collect();
                let more = errors.len().saturating_sub(MAX_ERRORS);
                let more = if more > 0 { format!("\n  and {more} more") } else { String::new() };
                bail!("the filter refuses the prices in {name}:{lines}{more}")
            }
        }
    }
}

/// The section `prices` in a file: the file as a whole, or what stands in a configuration of the filter or of Envoy.
///
/// # Errors
/// The file cannot be read, or has no such section, or several.
pub(crate) fn section(path: &Path) -> anyhow::Result<Node> {
    let document = input::document(path)?;
    let found = match document.roots.as_slice() {
        [root] if root.get("models").is_some() => Ok(root.clone()),
        _ => configured(&document),
    };
    found.with_context(|| format!("cannot read the prices in {}", input::name(path)))
}

fn configured(document: &Document) -> anyhow::Result<Node> {
    let filters = envoy::configured(document)?.filters;
    let mut sections = filters.into_iter().filter_map(|filter| filter.tree.get("prices").cloned());
    match (sections.next(), sections.next()) {
        (Some(section), None) => Ok(section),
        (None, _) => bail!("it has neither `models` nor a section `prices`"),
        (Some(_), Some(_)) => bail!("it has several sections `prices`; give the one to use by itself"),
    }
}

/// A tree of which only the values count: a number is the same with and without zeros behind it.
pub(crate) fn values(node: &Node) -> Doc {
    match &node.value {
        Value::Plain(text) | Value::Text { text, .. } => {
            Doc::Text(Amount::parse(text).map_or_else(|| text.clone(), |amount| amount.to_string()))
        }
        Value::List(list) => Doc::List(list.iter().map(values).collect()),
        Value::Map(map) => Doc::Map(map.iter().map(|entry| (entry.key.clone(), values(&entry.value))).collect()),
    }
}
