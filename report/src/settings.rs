//! The configuration that a command works under: the filter's own, perhaps with a price table from elsewhere.

use crate::document::{Node, Position};
use crate::envoy::{self, Found};
use crate::input;
use crate::output::Output;
use crate::prices;
use anyhow::{Context, bail};
use std::path::Path;
use tollgate::config::{Config, ConfigError};

/// A configuration that the filter takes.
#[derive(Debug)]
pub(crate) struct Settings {
    /// What the filter makes of it.
    pub(crate) config: Config,
    /// Where its prices stand.
    pub(crate) prices: Option<PriceSource>,
    /// As it is written.
    pub(crate) found: Found,
}

/// Where a price table was read from, to say where an entry stands.
#[derive(Debug)]
pub(crate) struct PriceSource {
    /// The file's name.
    pub(crate) name: String,
    /// The section `prices`.
    pub(crate) tree: Node,
}

/// Reads the configuration in the file `config`, or an empty one, with the prices in the file `table` if there is one.
/// What the filter has to say against it goes to `output`, and then there is none.
pub(crate) fn read(
    config: Option<&Path>,
    table: Option<&Path>,
    output: &mut Output,
) -> anyhow::Result<Option<Settings>> {
    let mut found = match config {
        None => Found::empty(Position::default()),
        Some(path) => {
            let document = input::document(path)?;
            let name = input::name(path);
            let configured = envoy::configured(&document).with_context(|| format!("cannot use {name}"))?;
            let mut filters = configured.filters.into_iter();
            match (filters.next(), filters.next()) {
                (Some(found), None) => found,
                _ => bail!("{name} has several configurations of the filter; give the one to use by itself"),
            }
        }
    };
    let config_name = config.map(input::name).unwrap_or_default();
    let mut source = found.tree.get("prices").map(|tree| PriceSource { name: config_name.clone(), tree: tree.clone() });
    if let Some(path) = table {
        let tree = prices::section(path)?;
        found.replace("prices", tree.clone())?;
        source = Some(PriceSource { name: input::name(path), tree });
    }
    match found.read() {
        Ok(config) => Ok(Some(Settings { config, prices: source, found })),
        Err(errors) => {
            let place = |error: &ConfigError| match (error.path.strip_prefix("prices"), &source, table) {
                (Some(below), Some(source), Some(_)) => (source.name.clone(), source.tree.locate(below)),
                _ => (config_name.clone(), found.tree.locate(&error.path)),
            };
            for error in errors {
                let (name, at) = place(&error);
                output.error(&format!("{name}:{at}: {error}"));
            }
            Ok(None)
        }
    }
}
