//! The account of a call for people.

use super::account::Account;
use super::budgets::{BoundTerm, CounterView, Downgrade, Governed};
use crate::document::Node;
use crate::output::{Columns, FAINT, Output, STRONG};
use std::io::Write;
use tollgate::money::Usd;

/// Writes the account.
pub(super) fn print(account: &Account, output: &mut Output) -> anyhow::Result<()> {
    call(account, output)?;
    attribution(account, output)?;
    usage(account, output)?;
    cost(account, output)?;
    if let Some(governed) = &account.budgets {
        budgets(governed, account, output)?;
    }
    let (_, notes) = account.notes();
    if !notes.is_empty() {
        heading("Notes", "", output)?;
        for note in notes {
            writeln!(output, "  {note}")?;
        }
    }
    Ok(())
}

fn heading(title: &str, more: &str, output: &mut Output) -> anyhow::Result<()> {
    let more = if more.is_empty() { String::new() } else { format!("{FAINT}, {more}{FAINT:#}") };
    Ok(writeln!(output, "\n{STRONG}{title}{STRONG:#}{more}")?)
}

fn call(account: &Account, output: &mut Output) -> anyhow::Result<()> {
    let field = |name: &str| account.field(name).unwrap_or_default();
    let mut rows = Columns::new(&[]);
    writeln!(output, "{STRONG}Call{STRONG:#}")?;
    rows.row(["api".into(), format!("{} ({}), told by {}", field("api"), field("operation"), account.recognised_by)]);
    let names = [("asked for", "request_model"), ("answered by", "response_model"), ("billed by", "provider")];
    for (title, name) in names {
        if let Some(value) = account.field(name) {
            rows.row([title, value]);
        }
    }
    let mut end: Vec<String> = Vec::new();
    end.extend(account.field("status").map(String::from));
    end.extend((account.field("stream") == Some("true")).then(|| "stream".into()));
    end.push(field("end_reason").into());
    end.extend(account.field("finish_reason").map(|reason| format!("finish reason {reason}")));
    end.extend(account.field("error").map(|error| format!("error {error}")));
    rows.row(["answer", &end.join(", ")]);
    let served =
        [("service tier", "service_tier"), ("speed", "speed"), ("geography", "inference_geo"), ("region", "region")];
    for (title, name) in served {
        if let Some(value) = account.field(name) {
            rows.row([title, value]);
        }
    }
    rows.row(["at", field("ts")]);
    if !account.request_changes.is_empty() {
        rows.row(["sent on", &account.request_changes.join("; ")]);
    }
    if account.field("decision") != Some("allowed") {
        rows.row(["decision", field("decision")]);
    }
    Ok(output.columns("  ", rows)?)
}

fn attribution(account: &Account, output: &mut Output) -> anyhow::Result<()> {
    heading("Attribution", "", output)?;
    let sources = account.fields.get("attribution_source").map(Node::entries).unwrap_or_default();
    let mut rows = Columns::new(&[]);
    for source in sources {
        let value = match source.key.strip_prefix("tags.") {
            Some(tag) => account.fields.get("tags").and_then(|tags| tags.get(tag)),
            None => account.fields.get(&source.key),
        };
        let from = match source.value.text().unwrap_or_default() {
            "inferred" => "inferred from the tools offered".into(),
            from => format!("from a {from}"),
        };
        rows.row([source.key.as_str(), value.and_then(Node::text).unwrap_or_default(), from.as_str()]);
    }
    for dropped in account.notes().0 {
        let (header, reason) = dropped.split_once(": ").unwrap_or((dropped, ""));
        rows.row([header, "dropped", reason]);
    }
    Ok(output.columns("  ", rows)?)
}

fn usage(account: &Account, output: &mut Output) -> anyhow::Result<()> {
    let source = account.field("usage_source").unwrap_or_default();
    heading("Usage", source, output)?;
    let mut rows = Columns::new(&[1]);
    for entry in account.fields.entries() {
        let key = entry.key.as_str();
        if !key.ends_with("_tokens") || key == "max_output_tokens" {
            continue;
        }
        let whole = matches!(key, "input_tokens" | "output_tokens" | "total_tokens");
        let name = if whole { key.into() } else { format!("  {key}") };
        rows.row([name.as_str(), entry.value.text().unwrap_or_default()]);
    }
    for unit in account.fields.get("units").map(Node::entries).unwrap_or_default() {
        rows.row([unit.key.as_str(), unit.value.text().unwrap_or_default()]);
    }
    Ok(output.columns("  ", rows)?)
}

fn cost(account: &Account, output: &mut Output) -> anyhow::Result<()> {
    heading("Cost in USD", account.field("price_status").unwrap_or("unknown"), output)?;
    let mut rows = Columns::new(&[]);
    if let Some(entry) = &account.price_entry {
        rows.row(["price", &format!("{} at {}", entry.path, entry.place)]);
        rows.row(["found by", &entry.found_by]);
    }
    if let Some(version) = account.field("price_version") {
        rows.row(["table", version]);
    }
    if let Some(reason) = account.no_cost_because {
        rows.row(["because", reason]);
    }
    output.columns("  ", rows)?;

    let charges = account.fields.get("charges").map(Node::elements).unwrap_or_default();
    let text = |node: &Node, key: &str| node.get(key).and_then(Node::text).unwrap_or_default().to_owned();
    let several_models = charges.windows(2).any(|pair| match pair {
        [a, b] => text(a, "model") != text(b, "model"),
        _ => false,
    });
    let mut terms = Columns::new(&[1, 5]);
    for charge in charges {
        let mut name = text(charge, "class");
        if several_models {
            name = format!("{} {name}", text(charge, "model"));
        }
        let multiplier = charge.get("multiplier").and_then(Node::text);
        let multiplier = multiplier.map(|multiplier| format!(" x {multiplier}")).unwrap_or_default();
        terms.row([
            name,
            text(charge, "quantity"),
            text(charge, "unit"),
            format!("x {} / {}{multiplier}", text(charge, "rate_usd"), text(charge, "per")),
            "=".into(),
            usd(&text(charge, "cost_picousd")),
        ]);
    }
    if let Some(total) = account.field("cost_picousd") {
        terms.row(["total".into(), String::new(), String::new(), String::new(), "=".into(), usd(total)]);
    }
    output.columns("  ", terms)?;
    if let Some(theirs) = account.field("provider_cost_usd") {
        writeln!(output, "  the provider says {theirs}")?;
    }
    Ok(())
}

fn budgets(governed: &Governed, account: &Account, output: &mut Output) -> anyhow::Result<()> {
    let field = |name: &str| account.field(name);
    let decision = field("decision").unwrap_or_default();
    let by = field("budget").map(|budget| format!(" by {budget}")).unwrap_or_default();
    let more = match field("would_decide") {
        None if decision == "allowed" => decision.to_owned(),
        None => format!("{decision}{by}"),
        Some(would) if decision == "allowed" => format!("allowed, would be {would}{by}"),
        Some(would) => format!("{decision}{by}, would be {would} by one that observes"),
    };
    heading("Budgets", &more, output)?;
    if let Some(estimate) = &governed.estimate {
        let mut rows = Columns::new(&[1]);
        for BoundTerm { what, tokens, from, rate_usd } in &estimate.terms {
            let rate = rate_usd.as_ref().map_or("without a price".into(), |usd| format!("x {usd} / 1000000"));
            rows.row([what.to_string(), tokens.to_string(), "tokens".into(), rate, from.clone()]);
        }
        rows.row([
            "holds".into(),
            estimate.tokens.to_string(),
            "tokens".into(),
            format!("{} USD", estimate.usd),
            String::new(),
        ]);
        output.columns("  ", rows)?;
    }
    let mut rows = Columns::new(&[]);
    for verdict in &governed.budgets {
        let observes = if verdict.mode == "observe" { "observes: " } else { "" };
        let decision = match (verdict.decision, &verdict.why_not) {
            (Some("fits"), _) => "fits".into(),
            (Some("block"), None) => "does not fit: block".into(),
            (Some(action), None) => format!("does not fit: {action}"),
            (Some(_), Some(why)) => format!("block: {why}"),
            (None, why) => format!("does not apply: {}", why.as_deref().unwrap_or_default()),
        };
        rows.row([verdict.budget.clone(), format!("{observes}{decision}")]);
        if let Some(counter) = &verdict.counter {
            rows.row([String::new(), counter_text(counter)]);
        }
    }
    if let Some(Downgrade { to, why_not, estimated_usd }) = &governed.downgrade {
        let target = to.as_deref().unwrap_or("no model");
        let how = match (why_not, estimated_usd) {
            (Some(why), _) => format!("{target} can't take it: {why}"),
            (None, Some(usd)) => format!("{target} could take it, and holds {usd} USD"),
            (None, None) => format!("{target} could take it"),
        };
        rows.row(["downgrade".into(), how]);
    }
    Ok(output.columns("  ", rows)?)
}

fn counter_text(counter: &CounterView) -> String {
    let value = |(key, value): (&String, &String)| {
        if value.is_empty() { format!("no {key}") } else { format!("{key}={value}") }
    };
    let scope: Vec<String> = counter.scope.iter().map(value).collect();
    let scope = if scope.is_empty() { "all calls".into() } else { scope.join(" ") };
    let mut limits = Vec::new();
    limits.extend(counter.limit_usd.as_ref().map(|usd| format!("{usd} USD")));
    limits.extend(counter.hard_limit_usd.as_ref().map(|usd| format!("downgraded up to {usd} USD")));
    limits.extend(counter.limit_tokens.map(|tokens| format!("{tokens} tokens")));
    limits.extend(counter.limit_calls.map(|calls| format!("{calls} calls")));
    let resets = counter.resets_at.as_ref().map(|end| format!(" to {end}")).unwrap_or_default();
    let window = if counter.resets_at.is_some() {
        format!("{} from {}{resets}", counter.window, counter.window_start)
    } else {
        counter.window.into()
    };
    let of = if counter.limit_usd.is_some() { format!("{} USD spent of", counter.spent_usd) } else { "at most".into() };
    format!("{scope}, {window}: {of} {}", limits.join(", "))
}

/// Pico-dollars as dollars.
fn usd(pico: &str) -> String {
    pico.parse().map(|pico| Usd::from_pico(pico).to_string()).unwrap_or_default()
}
