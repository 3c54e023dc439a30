//! The account of one call: its record, and what a record has no room to say.
//!
//! It is built from the record as it is written, so that what is explained is what a collector would get, digit for
//! digit.

use super::budgets::Governed;
use super::exchange::Exchange;
use super::play::Played;
use crate::document::{Dialect, Document, Node};
use crate::settings::PriceSource;
use serde::Serialize;
use serde_json::value::RawValue;
use tollgate::api::Endpoint;
use tollgate::config::Config;
use tollgate::exchange::{Edit, Route};
use tollgate::glob::Glob;
use tollgate::http::Headers;

/// Everything there is to say of a call.
#[derive(Debug, Serialize)]
pub(super) struct Account {
    /// How it was told what the call speaks.
    pub(super) recognised_by: String,
    /// What the provider gets otherwise than the caller sent it.
    pub(super) request_changes: Vec<String>,
    /// The entry of the price table; absent where there was none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) price_entry: Option<PriceEntry>,
    /// Why there is no cost, or none but zero; absent where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) no_cost_because: Option<&'static str>,
    /// What budgets say; absent where there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) budgets: Option<Governed>,
    /// The record.
    pub(super) record: Box<RawValue>,
    /// The record to look things up in.
    #[serde(skip)]
    pub(super) fields: Node,
}

/// The entry of the price table that a call was priced by.
#[derive(Debug, Serialize)]
pub(super) struct PriceEntry {
    /// Where it stands, as `prices.yaml:12:5`.
    pub(super) place: String,
    /// Where it stands in the configuration.
    pub(super) path: String,
    /// Which name led to it and how.
    pub(super) found_by: String,
}

impl Account {
    /// The account of a call that was played; `None` where it is no LLM call.
    pub(super) fn of(
        exchange: &Exchange,
        config: &Config,
        played: &Played,
        prices: Option<&PriceSource>,
        budgets: Option<Governed>,
    ) -> anyhow::Result<Option<Account>> {
        let Some(record) = &played.record else { return Ok(None) };
        let json = String::from_utf8(record.to_json()?)?;
        let document = Document::parse(&json, Dialect::Json).map_err(|error| anyhow::anyhow!("the record: {error}"))?;
        let Some(fields) = document.roots.into_iter().next() else { return Ok(None) };
        Ok(Some(Account {
            recognised_by: recognised_by(exchange, config),
            request_changes: request_changes(played),
            price_entry: prices.and_then(|prices| price_entry(&fields, prices)),
            no_cost_because: no_cost_because(&fields),
            budgets,
            record: RawValue::from_string(json)?,
            fields,
        }))
    }

    /// The text of a field of the record.
    pub(super) fn field(&self, name: &str) -> Option<&str> {
        self.fields.get(name)?.text()
    }

    /// The notes about attribution headers that were dropped, and all others.
    pub(super) fn notes(&self) -> (Vec<&str>, Vec<&str>) {
        let notes = self.fields.get("notes").map(Node::elements).unwrap_or_default();
        notes.iter().filter_map(Node::text).partition(|note| note.contains(": "))
    }
}

fn recognised_by(exchange: &Exchange, config: &Config) -> String {
    let (method, path) = (exchange.header(":method"), exchange.header(":path"));
    if Endpoint::recognise(method.as_bytes(), path.as_bytes()).is_some() {
        return "its path".into();
    }
    let route = Route { route: exchange.route.as_deref(), cluster: exchange.cluster.as_deref(), properties: &[] };
    let headers: Headers<'_> =
        exchange.request_headers.iter().map(|(name, value)| (name.as_bytes(), value.as_slice())).collect();
    let upstream = config.upstream(route, headers.text(":authority", 256));
    let told = upstream.filter(|upstream| upstream.api.is_some());
    match told.and_then(|told| config.upstreams.iter().position(|upstream| std::ptr::eq(upstream, told))) {
        Some(index) => format!("upstreams[{index}] of the configuration"),
        None => "its answer".into(),
    }
}

fn request_changes(played: &Played) -> Vec<String> {
    let removed = |edit: &Edit| if let Edit::Remove(name) = edit { Some(name.to_string()) } else { None };
    let set = |edit: &Edit| if let Edit::Set(name, value) = edit { Some(format!("{name}: {value}")) } else { None };
    let removed: Vec<String> = played.edits.iter().filter_map(removed).collect();
    let mut changes = Vec::new();
    if !removed.is_empty() {
        changes.push(format!("without {}", removed.join(", ")));
    }
    changes.extend(played.edits.iter().filter_map(set));
    if played.rewrites_body {
        changes.push("stream_options.include_usage set in the body".into());
    }
    changes
}

/// The entry whose name the record gives.
fn price_entry(record: &Node, prices: &PriceSource) -> Option<PriceEntry> {
    let text = |key: &str| record.get(key).and_then(Node::text);
    let priced = text("priced_model")?;
    let billed_by = text("provider");
    let provider = |model: &Node| model.get("provider").and_then(Node::text).map(String::from);
    let models = prices.tree.get("models")?.elements().iter().enumerate();
    let named = models.filter(|(_, model)| model.get("model").and_then(Node::text) == Some(priced));
    // Several providers may sell a model of one name; an entry without a provider is for the rest.
    let (index, model) = named.min_by_key(|(_, model)| match provider(model) {
        own if own.as_deref() == billed_by => 0,
        None => 1,
        Some(_) => 2,
    })?;
    Some(PriceEntry {
        place: format!("{}:{}", prices.name, model.at),
        path: format!("prices.models[{index}]"),
        found_by: found_by(record, model),
    })
}

/// Which name led to the entry `model`, and how.
fn found_by(record: &Node, model: &Node) -> String {
    let text = |key: &str| record.get(key).and_then(Node::text).unwrap_or_default();
    let by = text("priced_by");
    if by == "assumed_highest" {
        return "nothing: the table has none of the call's models, and the dearest is assumed".into();
    }
    let (whose, name) = match by.strip_suffix("_alias").unwrap_or(by) {
        "response_model" => ("the answer's model", text("response_model")),
        _ => ("the request's model", text("request_model")),
    };
    if !by.ends_with("_alias") {
        return format!("{whose}, {name}");
    }
    let aliases = model.get("aliases").map(Node::elements).unwrap_or_default();
    match aliases.iter().filter_map(Node::text).find(|alias| Glob::new(alias).matches(name)) {
        Some(alias) => format!("{whose}, {name}, and the alias {alias}"),
        None => format!("{whose}, {name}, with its region or without what providers and dates add to it"),
    }
}

fn no_cost_because(record: &Node) -> Option<&'static str> {
    let status = record.get("price_status").and_then(Node::text);
    let noted = |wanted: &str| {
        let notes = record.get("notes").map(Node::elements).unwrap_or_default();
        notes.iter().any(|note| note.text() == Some(wanted))
    };
    match status {
        None => Some("nothing is known of what was used"),
        Some("unknown_model") => Some("the price table has none of the call's models"),
        Some("unpriced") => Some("the model's entry has no price for something that was used"),
        Some("free") if noted("not_finished") => {
            Some("the work goes on at the provider; the call that fetches it pays")
        }
        Some("free") if noted("charged_before") => Some("this response was charged before"),
        Some("free") => Some("there is nothing to pay: an error, the gateway's own answer, or a free endpoint"),
        Some(_) => None,
    }
}
