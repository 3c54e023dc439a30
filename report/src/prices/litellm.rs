//! LiteLLM's `model_prices_and_context_window_backup.json` as a price table.
//!
//! An entry is a flat map whose keys say what is priced, above which size and at which service tier. What the keys
//! mean is what LiteLLM's own calculator makes of them (`litellm_core_utils/llm_cost_calc/utils.py`).

mod batch;
mod entry;
mod keys;
mod off_peak;

use super::leaves;
use super::losses::Report;
use super::names::{self, Filter};
use super::table::Model;
use crate::document::Node;
use std::collections::BTreeMap;

/// Imports what `filter` asks for, sorted by provider and name.
pub(crate) fn import(source: &Node, filter: &mut Filter, report: &mut Report) -> Vec<Model> {
    let mut found: BTreeMap<(Option<String>, String), Vec<Candidate>> = BTreeMap::new();
    for source in source.entries() {
        let (key, entry) = (source.key.as_str(), &source.value);
        report.read += 1;
        if key == "sample_spec" {
            report.skip(key, "not a model");
            continue;
        }
        let their_provider = entry.get("litellm_provider").and_then(Node::text);
        let provider = their_provider.map(names::provider);
        let name = names::model(key, their_provider.unwrap_or_default());
        if !filter.wants(provider, name, key) {
            report.filtered_out += 1;
            continue;
        }
        let lost = report.lost();
        let terms = entry::terms(key, provider.unwrap_or_default(), entry, report);
        if terms.is_empty() {
            report.skip(key, if report.lost() > lost { "no price that a table can say" } else { "no price" });
            continue;
        }
        let model = Model {
            provider: provider.map(str::to_owned),
            name: name.into(),
            terms,
            max_output_tokens: entry::limit(entry, "max_output_tokens"),
            max_input_tokens: entry::limit(entry, "max_input_tokens"),
            ..Model::default()
        };
        let slot = found.entry((model.provider.clone(), model.name.clone())).or_default();
        slot.push(Candidate { key: key.into(), model });
    }
    let mut models: Vec<Model> = found.into_values().flat_map(|same| settle(same, report)).collect();
    models.sort_by(|a, b| (&a.provider, &a.name).cmp(&(&b.provider, &b.name)));
    models
}

/// An entry that was read.
struct Candidate {
    key: String,
    model: Model,
}

impl Candidate {
    /// Who gets the short name: the entry that is called so, then the one in its provider's own name.
    fn rank(&self) -> u8 {
        let own = self.model.provider.as_ref().map(|provider| format!("{provider}/{}", self.model.name));
        match &self.key {
            key if *key == self.model.name => 0,
            key if Some(key) == own.as_ref() => 1,
            _ => 2,
        }
    }
}

/// Entries of one provider that are one model: those that say the same become one, also where one of them says more;
/// of others the first has the name and the rest keep their full key.
fn settle(mut same: Vec<Candidate>, report: &mut Report) -> Vec<Model> {
    same.sort_by_key(Candidate::rank);
    let mut kept: Vec<Model> = Vec::new();
    for mut candidate in same {
        let Some(first) = kept.first_mut() else {
            kept.push(candidate.model);
            continue;
        };
        let (known, new) = (leaves::of_terms(&first.terms), leaves::of_terms(&candidate.model.terms));
        let contains =
            |all: &leaves::Leaves, some: &leaves::Leaves| some.iter().all(|(key, v)| all.get(key) == Some(v));
        if contains(&known, &new) || contains(&new, &known) {
            if new.len() > known.len() {
                first.terms = candidate.model.terms;
            }
            first.max_output_tokens = first.max_output_tokens.or(candidate.model.max_output_tokens);
            first.max_input_tokens = first.max_input_tokens.or(candidate.model.max_input_tokens);
            report.merged_into(&candidate.key);
        } else {
            report.change(&candidate.key, "kept its full key as name: another entry of the name has other prices");
            candidate.model.name = candidate.key;
            kept.push(candidate.model);
        }
    }
    kept
}

#[cfg(test)]
mod tests;
