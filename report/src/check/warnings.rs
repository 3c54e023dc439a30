//! What a configuration may say and most likely does not mean.
//!
//! The functions are pure and look at the text as it is written, since what the filter makes of it no longer tells
//! how it was put.

use super::Severity;
use crate::document::Node;
use jiff::Timestamp;
use std::collections::BTreeSet;

/// Something that is allowed and most likely not meant.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Warning {
    /// Where in the filter's configuration.
    pub(super) path: String,
    /// What.
    pub(super) message: String,
    /// What kind of warning it is.
    pub(super) code: &'static str,
    /// How bad it is.
    pub(super) severity: Severity,
}

pub(super) fn warning(path: impl Into<String>, code: &'static str, message: impl Into<String>) -> Warning {
    Warning { path: path.into(), message: message.into(), code, severity: Severity::Warning }
}

/// Something that is as it was meant, perhaps, and good to know.
pub(super) fn note(path: impl Into<String>, code: &'static str, message: impl Into<String>) -> Warning {
    Warning { severity: Severity::Note, ..warning(path, code, message) }
}

/// Warnings about a configuration by itself.
pub(super) fn of(config: &Node, now: Timestamp) -> Vec<Warning> {
    let mut list = Vec::new();
    if config.get("collector").is_none_or(Node::is_null) {
        let message = "there is no collector: records go to Envoy's access log only";
        list.push(warning("", "no_collector", message));
    }
    secrets(config, &mut list);
    if let Some(prices) = config.get("prices") {
        of_prices(prices, now, &mut list);
    }
    list
}

/// Warnings about a configuration in an Envoy that has these clusters.
pub(super) fn of_clusters(config: &Node, clusters: Option<&BTreeSet<String>>) -> Option<Warning> {
    let cluster = config.get("collector")?.get("cluster")?.text()?;
    let missing = !clusters?.contains(cluster);
    missing.then(|| {
        let message = format!("Envoy has no cluster {cluster:?} in static_resources: records could not be sent");
        warning("collector.cluster", "unknown_cluster", message)
    })
}

/// Envoy shows the whole configuration to whoever can reach its admin port.
fn secrets(config: &Node, list: &mut Vec<Warning>) {
    let shown = "Envoy shows this secret in /config_dump: let nobody else reach its admin address";
    if config.get("metering").and_then(|metering| metering.get("hash_key")).is_some() {
        list.push(warning("metering.hash_key", "secret_in_config_dump", shown));
    }
    let headers = config.get("collector").and_then(|collector| collector.get("headers"));
    for header in headers.map(Node::entries).unwrap_or_default() {
        let name = header.key.to_ascii_lowercase();
        if ["auth", "key", "token", "secret", "password", "cookie"].iter().any(|word| name.contains(word)) {
            list.push(warning(format!("collector.headers.{}", header.key), "secret_in_config_dump", shown));
        }
    }
}

fn of_prices(prices: &Node, now: Timestamp, list: &mut Vec<Warning>) {
    let models = prices.get("models").map(Node::elements).unwrap_or_default();
    if models.is_empty() {
        if prices.get("version").is_some() {
            let message = "a price table without models: no call will have a cost";
            list.push(warning("prices.version", "no_prices", message));
        }
        if prices.get("on_unknown_model").and_then(Node::text) == Some("reject") {
            let message = "every model is unknown to a price table without models: every call will be refused";
            list.push(warning("prices.on_unknown_model", "rejects_everything", message));
        }
    }
    for terms in prices.get("providers").map(Node::entries).unwrap_or_default() {
        let is_its = |model: &Node| model.get("provider").and_then(Node::text) == Some(terms.key.as_str());
        if !models.iter().any(is_its) {
            let message = "no model of the table has this provider: these terms change nothing";
            list.push(warning(format!("prices.providers.{}", terms.key), "terms_without_models", message));
        }
    }
    for (index, model) in models.iter().enumerate() {
        let path = format!("prices.models[{index}]");
        if !has_price(model) {
            let message = "the model has neither rates nor units: its calls will be unpriced";
            list.push(warning(path.clone(), "model_without_rates", message));
        }
        useless_aliases(model, &path, list);
        effective_dates(model, &path, now, list);
    }
}

/// Whether a model has any price, in whatever place.
fn has_price(terms: &Node) -> bool {
    let any = |key: &str| terms.get(key).is_some_and(|rates| !rates.entries().is_empty());
    let below = |key: &str| terms.get(key).is_some_and(|list| list.elements().iter().any(has_price));
    let tiers = terms.get("service_tiers").map(Node::entries).unwrap_or_default();
    any("rates")
        || any("units")
        || below("tiers")
        || below("effective")
        || tiers.iter().any(|tier| has_price(&tier.value))
}

fn effective_dates(model: &Node, path: &str, now: Timestamp, list: &mut Vec<Warning>) {
    let entries = model.get("effective").map(Node::elements).unwrap_or_default();
    let from = |entry: &Node| entry.get("from").and_then(Node::text).and_then(|text| text.parse::<Timestamp>().ok());
    let dates: Vec<Option<Timestamp>> = entries.iter().map(from).collect();
    for (index, pair) in dates.windows(2).enumerate() {
        if let [Some(earlier), Some(later)] = pair
            && later <= earlier
        {
            let message = "is not later than the entry before: write them in the order in which they come into force";
            list.push(warning(format!("{path}.effective[{}].from", index + 1), "effective_order", message));
        }
    }
    let past = |date: &Option<Timestamp>| date.is_some_and(|date| date <= now);
    if !dates.is_empty() && dates.iter().all(past) {
        let message = "every entry is in force already: the terms above them only serve calls of the past";
        list.push(warning(format!("{path}.effective"), "effective_past", message));
    }
}

/// Aliases that another of the same model, or its name, leaves nothing to do. Of two models it is an error.
fn useless_aliases(model: &Node, path: &str, list: &mut Vec<Warning>) {
    let name = model.get("model").and_then(Node::text);
    let aliases = model.get("aliases").map(Node::elements).unwrap_or_default();
    for (index, alias) in aliases.iter().enumerate() {
        let Some(text) = alias.text() else { continue };
        let earlier = aliases.iter().take(index).position(|earlier| earlier.text() == Some(text));
        let message = match earlier {
            _ if name == Some(text) => "is the model's own name, which needs no alias".into(),
            Some(earlier) => format!("can never match: aliases[{earlier}] is the same"),
            None => continue,
        };
        list.push(warning(format!("{path}.aliases[{index}]"), "alias_shadowed", message));
    }
}
