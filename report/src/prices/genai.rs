//! genai-prices' data as a price table.
//!
//! Its models match names by clauses, its prices change with dates and hours, and variants of a call (batch, service
//! tier, speed) overlay single prices. The meaning is that of `genai_prices/types.py`.

mod matching;
mod terms;

use super::losses::Report;
use super::names::{self, Filter};
use super::table::Model;
use crate::document::{Node, Value};
use std::collections::BTreeSet;
use tollgate::glob::Glob;

/// Imports what `filter` asks for, sorted by provider and name.
pub(crate) fn import(source: &Node, filter: &mut Filter, report: &mut Report) -> Vec<Model> {
    let mut models = Vec::new();
    for their_provider in source.elements() {
        let Some(id) = their_provider.get("id").and_then(Node::text) else { continue };
        let provider = names::provider(id);
        let mut found = Vec::new();
        for model in their_provider.get("models").map(Node::elements).unwrap_or_default() {
            let Some(name) = model.get("id").and_then(Node::text) else { continue };
            let place = format!("{id}/{name}");
            report.read += 1;
            if !filter.wants(Some(provider), name, &place) {
                report.filtered_out += 1;
                continue;
            }
            let (terms, effective) = terms::read(&place, model, report);
            if terms.is_empty() && effective.is_empty() {
                report.skip(&place, "no price");
                continue;
            }
            let aliases = matching::aliases(&place, name, model.get("match"), report);
            found.push(Model {
                provider: Some(provider.into()),
                name: name.into(),
                aliases,
                terms,
                effective,
                ..Model::default()
            });
        }
        models.append(&mut found);
    }
    let mut models = distinct(models, report);
    models.sort_by(|a, b| (&a.provider, &a.name).cmp(&(&b.provider, &b.name)));
    models
}

/// A name stands for one model of a provider. The first model that claims an alias keeps it, as in the source, where
/// the first that matches counts; a model's own name is its own. Globs of which neither is closer are one claim too.
fn distinct(models: Vec<Model>, report: &mut Report) -> Vec<Model> {
    let mut taken: BTreeSet<(Option<String>, String)> = BTreeSet::new();
    let mut kept: Vec<Model> = Vec::new();
    let place = |model: &Model| format!("{}/{}", model.provider.as_deref().unwrap_or_default(), model.name);
    for model in models {
        if taken.insert((model.provider.clone(), model.name.clone())) {
            kept.push(model);
        } else {
            report.skip(&place(&model), "another model of the provider has its name");
        }
    }
    let mut globs: Vec<(Option<String>, Glob, usize)> = Vec::new();
    for (index, model) in kept.iter_mut().enumerate() {
        let at = place(model);
        let Model { provider, aliases, .. } = model;
        aliases.retain(|alias| {
            let glob = Glob::new(alias);
            let ties = |(other_provider, other, owner): &(Option<String>, Glob, usize)| {
                *owner != index && other_provider == provider && other.ties_with(&glob)
            };
            let free =
                if glob.is_wild() { !globs.iter().any(ties) } else { taken.insert((provider.clone(), alias.clone())) };
            if !free {
                report.lose(&at, "match", "another model of the provider has this alias, or one as close");
            } else if glob.is_wild() {
                globs.push((provider.clone(), glob, index));
            }
            free
        });
    }
    kept
}

/// A value that says nothing.
fn is_null(node: &Node) -> bool {
    node.value == Value::Plain("null".into())
}

#[cfg(test)]
mod tests;
