//! What budgets and downgrades may say and most likely do not mean.
//!
//! These look at what the filter makes of the configuration, and at its text only for where something stands.

use super::warnings::{Warning, note, warning};
use crate::document::Node;
use jiff::Timestamp;
use tollgate::api::provider;
use tollgate::budget::{Action, Amount, Budget, Condition, Limits, WhenMissing};
use tollgate::config::{Config, DowngradeConfig, OnUnknownModel, OnUnmetered, ReservationConfig};
use tollgate::estimate::{self, Size};
use tollgate::glob::Glob;
use tollgate::money::{Decimal, Usd};
use tollgate::price::{Biller, Circumstances, Model};

/// The bytes of a short question.
const SHORT_BYTES: u64 = 200;

/// Warnings about the budgets of a configuration, and what goes past them.
pub(super) fn of(config: &Config, tree: &Node, now: Timestamp) -> Vec<Warning> {
    let mut list = Vec::new();
    let now = u64::try_from(now.as_second()).unwrap_or_default();
    for (index, budget) in config.budgets.iter().enumerate() {
        let path = format!("budgets[{index}]");
        conditions(config, tree, &budget.conditions, &format!("{path}.match"), &mut list);
        limits(config, tree, budget, &path, now, &mut list);
        overrides(config, tree, budget, &path, &mut list);
    }
    downgrades(config, now, &mut list);
    bypasses(config, &mut list);
    if config.admin.is_some() && config.budgets.is_empty() {
        list.push(warning("admin", "admin_without_budgets", "there are no budgets to look at or to change"));
    }
    list
}

/// Conditions that no call can meet, as far as that is certain.
fn conditions(config: &Config, tree: &Node, conditions: &[Condition], path: &str, list: &mut Vec<Warning>) {
    for condition in conditions {
        let patterns = &condition.patterns;
        let none = |is_possible: &dyn Fn(&Glob) -> bool| !patterns.iter().any(is_possible);
        let message = match &*condition.key {
            _ if patterns.is_empty() => Some("has no values: no call can match"),
            "model" if !config.prices.table.is_empty() && none(&|pattern| may_be_model(config, pattern)) => {
                Some("no model of the price table has such a name: only calls without a price could match")
            }
            "provider" if none(&|pattern| may_be_provider(config, pattern)) => {
                Some("no provider has such a name: upstreams name none, nor does any host or format that is known")
            }
            "api_key" if none(&|pattern| may_be_key(tree, pattern)) => {
                Some("matches no key: it is neither a name in attribution.keys nor 12 hex digits of a key's SHA-256")
            }
            key if none(&|pattern| may_be_value(tree, key, pattern)) => {
                Some("can never match: attribution.pseudonymise puts pseudonyms in the place of its values")
            }
            key if has_no_source(tree, key) => {
                Some("no call has a value of it, as attribution.trust_headers is never: no call can match")
            }
            _ => None,
        };
        if let Some(message) = message {
            list.push(warning(format!("{path}.{}", condition.key), "budget_never_matches", message));
        }
    }
}

/// Whether a name that the price table knows may match. A pattern may also be for names with a date or a prefix, which
/// the table finds without.
fn may_be_model(config: &Config, pattern: &Glob) -> bool {
    let table = &config.prices.table;
    let core = pattern.as_str().trim_matches('*').trim_end_matches(['-', '@', ':']);
    let known = |model: &Model| {
        model.name.contains(core)
            || pattern.matches(&model.name)
            || model.aliases.iter().any(|name| meet(name, pattern))
    };
    table.models().iter().any(known) || table.find(core, Biller::Unknown, None).is_some()
}

fn may_be_provider(config: &Config, pattern: &Glob) -> bool {
    let mut configured = config.upstreams.iter().filter_map(|upstream| upstream.provider.as_deref());
    configured.any(|provider| pattern.matches(provider)) || provider::all().any(|provider| pattern.matches(provider))
}

fn may_be_key(tree: &Node, pattern: &Glob) -> bool {
    let keys = tree.get("attribution").and_then(|attribution| attribution.get("keys"));
    let mut names = keys.map(Node::elements).unwrap_or_default().iter().filter_map(|key| key.get("name")?.text());
    let text = pattern.as_str();
    let hash = text.len() == 12 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    pattern.is_wild() || hash || names.any(|name| pattern.matches(name))
}

/// Whether a value as it is recorded may match: a pseudonym, where the configuration says so.
fn may_be_value(tree: &Node, key: &str, pattern: &Glob) -> bool {
    if matches!(key, "model" | "provider" | "api_key") {
        return true;
    }
    let Some(attribution) = tree.get("attribution") else { return true };
    let name = key.strip_prefix("tags.").unwrap_or(key);
    let text = pattern.as_str();
    let hidden = attribution.get("pseudonymise").map(Node::elements).unwrap_or_default();
    let is_hidden = hidden.iter().any(|hidden| hidden.text() == Some(name));
    !is_hidden || pattern.is_wild() || (text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// The values that the configuration itself gives to a dimension.
fn stated_values<'n>(attribution: &'n Node, name: &'n str) -> impl Iterator<Item = &'n str> {
    let keys = attribution.get("keys").map(Node::elements).unwrap_or_default();
    let set = keys.iter().filter_map(move |key| key.get("set")?.get(name)?.text());
    let default = attribution.get("dimensions").and_then(|dimensions| dimensions.get(name)?.get("default")?.text());
    set.chain(default)
}

/// Whether no call can have a value of a dimension: only its header would say it, and no header is believed.
fn has_no_source(tree: &Node, key: &str) -> bool {
    let Some(attribution) = tree.get("attribution") else { return false };
    let name = key.strip_prefix("tags.").unwrap_or(key);
    let untrusted = attribution.get("trust_headers").and_then(Node::text) == Some("never");
    let listed = attribution.get("dimensions").and_then(|dimensions| dimensions.get(name)).is_some();
    untrusted
        && !listed
        && stated_values(attribution, name).next().is_none()
        && !matches!(name, "model" | "provider" | "api_key" | "workload")
}

/// Whether a text may match both; said only where it is certain that none can.
fn meet(a: &Glob, b: &Glob) -> bool {
    match (a.is_wild(), b.is_wild()) {
        (_, false) => a.matches(b.as_str()),
        (false, _) => b.matches(a.as_str()),
        (true, true) => {
            let front = |glob: &Glob| glob.as_str().split('*').next().unwrap_or_default().to_owned();
            let back = |glob: &Glob| glob.as_str().rsplit('*').next().unwrap_or_default().to_owned();
            let (fronts, backs) = ((front(a), front(b)), (back(a), back(b)));
            (fronts.0.starts_with(&fronts.1) || fronts.1.starts_with(&fronts.0))
                && (backs.0.ends_with(&backs.1) || backs.1.ends_with(&backs.0))
        }
    }
}

/// Whether whatever matches `inner` matches one of `outer`. What a star stands for may be a star.
fn covered(inner: &Glob, outer: &[Glob]) -> bool {
    outer.iter().any(|outer| outer.matches(inner.as_str()))
}

fn limits(config: &Config, tree: &Node, budget: &Budget, path: &str, now: u64, list: &mut Vec<Warning>) {
    if let Some(limit) = budget.limits.usd {
        let place = format!("{path}.limit_usd");
        if config.prices.table.is_empty() {
            let message = "there are no prices: no call would ever count against it";
            list.push(warning(place, "budget_without_prices", message));
        } else if let Some(least) = least_cost(config, budget, now)
            && limit > Usd::ZERO
            && limit < least
        {
            let message = format!(
                "is less than any call holds that does not limit its output: a short question to the cheapest model \
                 holds {least} USD"
            );
            list.push(warning(place, "limit_below_one_call", message));
        }
    }
    if budget.hard_limit_usd.is_some() && !budget.downgrades() {
        let message = "is for downgraded calls, and on_exceeded downgrades none";
        list.push(warning(format!("{path}.hard_limit_usd"), "hard_limit_unused", message));
    }
    let passes = [budget.on_exceeded_read, budget.on_exceeded_write].contains(&Action::Allow);
    let hard = budget.overrides.iter().map(|other| other.hard_limit_usd).chain([budget.hard_limit_usd]).flatten().max();
    let hard = hard.filter(|_| budget.downgrades());
    if !budget.observe && !passes {
        let limit = Limits { usd: budget.limits.usd, ..Limits::default() };
        let most = hard.map(|usd| limit.percent_of(&Amount { usd, ..Amount::default() })).unwrap_or_default().max(100);
        for (index, alert) in budget.alert_at.iter().enumerate().filter(|(_, alert)| **alert > most) {
            let message = format!(
                "calls are refused from {most} % of the limit on: {alert} % can only be reached by calls that cost \
                 more than their estimate"
            );
            list.push(warning(format!("{path}.alert_at[{index}]"), "alert_unreachable", message));
        }
    }
    for (index, key) in budget.per.iter().enumerate().filter(|(_, key)| has_no_source(tree, key)) {
        let follows = match budget.when_missing {
            WhenMissing::Share => "all of them share one counter",
            WhenMissing::Skip => "the budget never applies",
            WhenMissing::Refuse => "all of them are refused",
        };
        let message = format!("no call has a {key}, as attribution.trust_headers is never: {follows}");
        list.push(warning(format!("{path}.per[{index}]"), "budget_without_source", message));
    }
}

/// The least that a short call may hold which counts here and does not limit its output; `None` where nothing is sold by
/// tokens.
fn least_cost(config: &Config, budget: &Budget, now: u64) -> Option<Usd> {
    let counts = |model: &&Model| {
        let mut on_model = budget.conditions.iter().filter(|condition| *condition.key == *"model");
        on_model.all(|condition| condition.patterns.iter().any(|pattern| pattern.matches(&model.name)))
    };
    let short = Size { text_bytes: SHORT_BYTES, ..Size::default() };
    let cost = |model: &Model| hold(&short, model, &config.reservation, now);
    let costs = config.prices.table.models().iter().filter(counts).map(cost);
    costs.collect::<Option<Vec<_>>>()?.into_iter().min()
}

/// What a call holds at a model; `None` where that is nothing.
fn hold(size: &Size, model: &Model, reservation: &ReservationConfig, unix_seconds: u64) -> Option<Usd> {
    let circumstances = Circumstances { unix_seconds, ..Circumstances::default() };
    estimate::estimate(size, Some(model), reservation, &circumstances).usd.filter(|usd| *usd > Usd::ZERO)
}

fn overrides(config: &Config, tree: &Node, budget: &Budget, path: &str, list: &mut Vec<Warning>) {
    for (index, other) in budget.overrides.iter().enumerate() {
        let path = format!("{path}.overrides[{index}].match");
        conditions(config, tree, &other.conditions, &path, list);
        let apart = |own: &&Condition| {
            let mut same = budget.conditions.iter().filter(|condition| condition.key == own.key);
            same.any(|base| !own.patterns.iter().any(|own| base.patterns.iter().any(|base| meet(own, base))))
        };
        if let Some(own) = other.conditions.iter().find(apart) {
            let message = format!("the budget's own match has no {} in common with it: it never applies", own.key);
            list.push(warning(format!("{path}.{}", own.key), "override_never_applies", message));
            continue;
        }
        let implies = |earlier: &Condition| {
            let mut narrower = other.conditions.iter().chain(&budget.conditions);
            narrower.any(|own| own.key == earlier.key && own.patterns.iter().all(|own| covered(own, &earlier.patterns)))
        };
        let mut before = budget.overrides.iter().take(index);
        let shadow = before.position(|earlier| earlier.conditions.iter().all(implies));
        if let Some(earlier) = shadow {
            let message = format!("never applies: overrides[{earlier}] takes every call that it is for");
            list.push(warning(path, "override_shadowed", message));
        }
    }
}

fn downgrades(config: &Config, now: u64, list: &mut Vec<Warning>) {
    if !config.downgrades.is_empty() && !config.budgets.iter().any(Budget::downgrades) {
        list.push(warning("downgrades", "downgrade_unused", "no budget downgrades: see on_exceeded"));
    }
    for (index, downgrade) in config.downgrades.iter().enumerate() {
        let path = format!("downgrades[{index}]");
        let earlier =
            config.downgrades.iter().take(index).position(|earlier| earlier.from.matches(downgrade.from.as_str()));
        let (code, message) = if let Some(earlier) = earlier {
            ("downgrade_shadowed", format!("is never looked at: downgrades[{earlier}] is for the same models"))
        } else if let Some(problem) = downgrade_problem(config, downgrade, now) {
            problem
        } else {
            continue;
        };
        list.push(warning(path, code, message));
    }
}

/// Why a downgrade is never made, as far as that is certain.
fn downgrade_problem(config: &Config, downgrade: &DowngradeConfig, now: u64) -> Option<(&'static str, String)> {
    let (from, to, table) = (&downgrade.from, &*downgrade.to, &config.prices.table);
    if from.as_str() == to {
        return Some(("downgrade_to_itself", "leads to the model it is for".into()));
    }
    let unpriced = |what: String| Some(("downgrade_without_price", what + ": only calls with a price are downgraded"));
    if !table.models().iter().any(|model| *model.name == *to) && table.find(to, Biller::Unknown, None).is_none() {
        return unpriced(format!("the price table has no {to:?}"));
    }
    let literal = || table.find(from.as_str(), Biller::Unknown, None).map(|(model, _)| model);
    let named = table.models().iter().filter(|model| from.matches(&model.name) && *model.name != *to);
    let mut sources: Vec<&Model> = named.collect();
    if sources.is_empty() && !from.is_wild() {
        sources.extend(literal());
    }
    let meets_alias = |model: &Model| model.aliases.iter().any(|alias| meet(alias, from));
    if sources.is_empty() {
        sources.extend(table.models().iter().filter(|model| meets_alias(model)));
    }
    if sources.is_empty() {
        // Names that the table finds without their date or prefix.
        return if from.is_wild() { None } else { unpriced(format!("the price table has no {:?}", from.as_str())) };
    }
    let target = |source: &Model| {
        let biller = source.provider.as_deref().map_or(Biller::Unknown, Biller::Likely);
        table.find(to, biller, None).map(|(model, _)| model).filter(|model| model.provider == source.provider)
    };
    let targets: Vec<(&Model, &Model)> = sources.iter().filter_map(|source| Some((*source, target(source)?))).collect();
    if targets.is_empty() {
        let message = format!("{to:?} is sold by another provider than the models it is for: calls stay with theirs");
        return Some(("downgrade_other_provider", message));
    }
    let dearer = targets.iter().all(|(source, target)| {
        let tokens = |text_bytes, max| Size { text_bytes, max_output_tokens: Some(max), ..Size::default() };
        let by_tokens = ReservationConfig { tokens_per_byte: Decimal::ONE, ..config.reservation.clone() };
        [tokens(1000, 0), tokens(0, 1000)].iter().all(|size| {
            hold(size, target, &by_tokens, now).unwrap_or_default()
                >= hold(size, source, &by_tokens, now).unwrap_or_default()
        })
    });
    dearer.then(|| ("downgrade_dearer", format!("{to:?} costs no less than the models it is for: no call goes there")))
}

/// What goes past budgets that refuse.
fn bypasses(config: &Config, list: &mut Vec<Warning>) {
    let enforcing = || config.budgets.iter().filter(|budget| !budget.observe);
    if config.prices.on_unknown_model == Some(OnUnknownModel::Allow) && enforcing().any(|own| own.limits.usd.is_some())
    {
        let message = "calls to models without a price count nothing against budgets in dollars: assume_highest, which is \
                       the default then, or reject";
        list.push(warning("prices.on_unknown_model", "unknown_model_bypass", message));
    }
    if enforcing().next().is_none() {
        return;
    }
    let path = "metering.on_unmetered";
    match config.metering.on_unmetered {
        OnUnmetered::Allow => {
            let message = "calls on paths that are not known pass every budget, without a record";
            list.push(warning(path, "unmetered_bypass", message));
        }
        OnUnmetered::Record => {
            let message = "calls on paths that are not known are recorded and may not count against budgets: reject \
                           refuses those to LLM hosts";
            list.push(note(path, "unmetered_bypass", message));
        }
        OnUnmetered::Reject => {}
    }
    if config.metering.refuse_oversize == Some(false) {
        let message = "has no effect on calls that a budget may refuse: their bodies are held to their end, and longer \
                       ones are refused";
        list.push(note("metering.on_oversize", "oversize_refused", message));
    }
}
