//! The sections `budgets`, `downgrades` and `ledger`.

use super::node::{Node, Object};
use super::{Config, OnUnknownModel};
use crate::api::uses::{Use, Uses};
use crate::attribution::Rules;
use crate::budget::ledger::LedgerConfig;
use crate::budget::recent::Recent;
use crate::budget::window::{Calendar, LastSpan, Window};
use crate::budget::zone::Zone;
use crate::budget::{Action, Budget, Condition, Key, Limits, Override, Subject, WhenMissing};
use crate::downgrade::Capabilities;
use crate::glob::Glob;
use crate::money::Usd;

/// A cheaper model for others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DowngradeConfig {
    /// For which.
    pub from: Glob,
    /// Which.
    pub to: Box<str>,
    /// What the cheaper one can do.
    pub supports: Uses,
}

impl Config {
    /// The cheaper model for calls to `asked`, and its place among `downgrades`: the first that is for it.
    pub fn downgrade(&self, asked: &str) -> Option<(usize, &DowngradeConfig)> {
        self.downgrades.iter().enumerate().find(|(_, other)| other.from.matches(asked) && *other.to != *asked)
    }

    /// Which values of a call its body may still bring; `path_names_model` says whether its path has the model.
    pub fn late(&self, path_names_model: bool) -> impl Fn(&str) -> bool + use<'_> {
        move |key| match key {
            "model" => !path_names_model,
            "workload" => true,
            _ => self.attribution.comes_with_body(key),
        }
    }

    /// What becomes of a call if its model has no price. Under a dollar budget that refuses, what is not known must not
    /// be free; `late` says which of the call's values do not tell yet whether it counts there, see [`Config::late`].
    pub fn on_unknown_model(&self, call: &dyn Subject, late: &dyn Fn(&str) -> bool) -> OnUnknownModel {
        let limits_dollars =
            |budget: &Budget| !budget.observe && budget.limits(call).0.usd.is_some() && budget.may_apply(call, late);
        let by_budgets = || match self.budgets.iter().any(limits_dollars) {
            true => OnUnknownModel::AssumeHighest,
            false => OnUnknownModel::Allow,
        };
        self.prices.on_unknown_model.unwrap_or_else(by_budgets)
    }
}

const ACTIONS: [(&str, Action); 3] =
    [("block", Action::Block), ("downgrade", Action::Downgrade), ("allow", Action::Allow)];

pub(super) fn read(list: Node<'_, '_>, rules: &Rules) -> Option<Vec<Budget>> {
    let mut names: Vec<Box<str>> = Vec::new();
    list.list(|node| {
        let object = node.object()?;
        let budget = budget(&object, rules);
        if let Some(budget) = &budget {
            if names.contains(&budget.name) {
                object.error("another budget has this name");
            }
            names.push(budget.name.clone());
        }
        object.finish();
        budget
    })
}

fn budget(object: &Object<'_, '_>, rules: &Rules) -> Option<Budget> {
    let name = object.require("name").and_then(name);
    let conditions = object.get("match").and_then(|node| conditions(node, rules)).unwrap_or_default();
    let per: Box<[Key]> =
        object.get("per").and_then(|list| list.list(|node| key(node, rules))).unwrap_or_default().into();
    let words = [("share", WhenMissing::Share), ("skip", WhenMissing::Skip), ("refuse", WhenMissing::Refuse)];
    let certain = per.iter().all(|key| rules.is_certain(key));
    let when_missing = object.get("when_missing");
    if when_missing.is_none() && !certain {
        let message = "is missing; share, skip or refuse says what becomes of calls without a value for per";
        object.error_at(".when_missing", message);
    }
    let when_missing = when_missing.and_then(|node| node.one_of(&words)).unwrap_or(WhenMissing::Share);
    let limits = limits(object);
    let hard_limit_usd = object.get("hard_limit_usd").and_then(usd);
    if let (Some(hard), Some(node)) = (hard_limit_usd, object.get("hard_limit_usd"))
        && limits.usd.is_none_or(|limit| hard < limit)
    {
        node.error("must be no less than limit_usd");
    }
    let calendar = calendar(object);
    let timezone = object.get("timezone").and_then(Node::text).map_or_else(|| "UTC".into(), |text| Box::from(&*text));
    let idle_ttl_secs = object.get("idle_ttl_secs").and_then(|node| {
        if calendar.as_ref().is_some_and(|calendar| calendar.window != Window::Lifetime) {
            node.error("is for the window lifetime only");
        }
        node.integer(60..=10 * 366 * 86_400)
    });
    let mut last = 0;
    let alert_at = object.get("alert_at").and_then(|list| {
        list.list(|node| {
            let percent = node.integer(1..=1000)?;
            if percent <= last {
                node.error("must be more than the one before");
            }
            last = percent;
            u32::try_from(percent).ok()
        })
    });
    let (on_exceeded_write, on_exceeded_read) =
        object.get("on_exceeded").map_or((Action::Block, Action::Block), actions);
    let downgrades = [on_exceeded_write, on_exceeded_read].contains(&Action::Downgrade);
    if downgrades && limits.usd.is_some() && hard_limit_usd.is_none() {
        object.error("downgraded calls need a hard_limit_usd to go up to");
    }
    let observe = object.get("mode").and_then(|node| node.one_of(&[("enforce", false), ("observe", true)]));
    let overrides = object.get("overrides").and_then(|list| {
        list.list(|node| {
            other(node, &limits, hard_limit_usd.filter(|hard| limits.usd.is_none_or(|limit| *hard >= limit)), rules)
        })
    });
    // A counter has one limit: what it depends on must be the same for all of its calls.
    let fixed = |key: &Key| conditions.iter().any(|own| own.key == *key && own.only_value().is_some());
    let kept_by = |key: &Key| per.contains(key) || fixed(key);
    let keys = overrides.iter().flatten().flat_map(|other| &other.conditions).map(|condition| &condition.key);
    if let Some(other) = keys.into_iter().find(|key| !kept_by(key)) {
        object.error(&format!("an override is for a part of the scopes, and {other:?} is not in per"));
    }
    Some(Budget {
        name: name?,
        conditions,
        per,
        when_missing,
        limits,
        hard_limit_usd,
        overrides: overrides.unwrap_or_default().into(),
        calendar: calendar?,
        timezone,
        idle_ttl_secs,
        alert_at: alert_at.unwrap_or_default().into(),
        on_exceeded_write,
        on_exceeded_read,
        observe: observe.unwrap_or(false),
        last_span: LastSpan::default(),
        recent: Recent::default(),
    })
}

/// A name that can stand in a path and a header.
fn name(node: Node<'_, '_>) -> Option<Box<str>> {
    let name = node.text()?;
    if !name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')) {
        node.error("expected letters, digits, - _ and .");
    }
    Some(Box::from(&*name))
}

/// One action for all, or one for each kind of workload.
fn actions(node: Node<'_, '_>) -> (Action, Action) {
    if !node.is_object() {
        let action = node.one_of(&ACTIONS).unwrap_or(Action::Block);
        return (action, action);
    }
    let Some(object) = node.object() else { return (Action::Block, Action::Block) };
    let action = |key| object.get(key).and_then(|node| node.one_of(&ACTIONS)).unwrap_or(Action::Block);
    let both = (action("agentic_write"), action("agentic_read"));
    object.finish();
    both
}

fn calendar(object: &Object<'_, '_>) -> Option<Calendar> {
    let window = object.require("window").and_then(window);
    let zone = object.get("timezone").map_or_else(|| Zone::named("UTC"), zone);
    let starts_on = object.get("starts_on").and_then(|node| {
        if window.is_some_and(|window| !matches!(window, Window::Month | Window::Quarter | Window::Year)) {
            node.error("is for the windows month, quarter and year only");
        }
        node.integer(1..=28)
    });
    let starts_on = starts_on.and_then(|day| u8::try_from(day).ok()).unwrap_or(1);
    Some(Calendar { window: window?, zone: zone?, starts_on })
}

fn window(node: Node<'_, '_>) -> Option<Window> {
    let name = node.text()?;
    let window = Window::of_name(&name);
    if window.is_none() {
        node.error(format!("expected minute, hour, day, week, month, quarter, year or lifetime, got {name:?}"));
    }
    window
}

fn zone(node: Node<'_, '_>) -> Option<Zone> {
    let name = node.text()?;
    let zone = Zone::named(&name);
    if zone.is_none() {
        node.error(format!("expected an IANA time zone as Europe/Berlin, got {name:?}"));
    }
    zone
}

fn limits(object: &Object<'_, '_>) -> Limits {
    let count = |key| object.get(key).and_then(|node| node.integer(0..=u64::MAX));
    if ["limit_usd", "limit_tokens", "limit_calls"].iter().all(|key| object.get(key).is_none()) {
        object.error("expected limit_usd, limit_tokens or limit_calls");
    }
    Limits { usd: object.get("limit_usd").and_then(usd), tokens: count("limit_tokens"), calls: count("limit_calls") }
}

fn usd(node: Node<'_, '_>) -> Option<Usd> {
    let decimal = node.decimal()?;
    let usd = Usd::of(decimal);
    if usd.is_none() {
        node.error("is more than can be counted");
    }
    usd
}

fn other(node: Node<'_, '_>, base: &Limits, base_hard: Option<Usd>, rules: &Rules) -> Option<Override> {
    let object = node.object()?;
    let conditions = object.require("match").and_then(|node| conditions(node, rules));
    let own = limits(&object);
    let own_hard = object.get("hard_limit_usd").and_then(usd);
    // The budget's own hard limit belongs to its own limit; another limit without one leaves downgraded calls no more.
    let hard_limit_usd = own_hard.or_else(|| base_hard.map(|hard| own.usd.unwrap_or(hard)));
    let limits =
        Limits { usd: own.usd.or(base.usd), tokens: own.tokens.or(base.tokens), calls: own.calls.or(base.calls) };
    if let (Some(hard), Some(limit)) = (hard_limit_usd, limits.usd)
        && hard < limit
    {
        object.error("hard_limit_usd must be no less than limit_usd");
    }
    object.finish();
    Some(Override { conditions: conditions?, limits, hard_limit_usd })
}

fn conditions(node: Node<'_, '_>, rules: &Rules) -> Option<Box<[Condition]>> {
    let mut conditions = Vec::new();
    node.object()?.each(|name, values| {
        if !is_key(name, rules) {
            values.error(unknown_key(name));
        }
        // Values are compared as they are recorded.
        let glob = |node: Node<'_, '_>| {
            let text = node.text()?;
            let pattern = Glob::new(&rules.spelt(name, &text));
            if pattern.literal_bytes() == 0 && Glob::new(&text).literal_bytes() > 0 {
                node.error("is nothing once it is normalised");
            }
            Some(pattern)
        };
        let patterns = if values.is_list() { values.list(glob) } else { glob(values).map(|glob| vec![glob]) };
        conditions.push(Condition { key: name.into(), patterns: patterns.unwrap_or_default().into() });
    });
    Some(conditions.into())
}

fn key(node: Node<'_, '_>, rules: &Rules) -> Option<Key> {
    let name = node.text()?;
    if !is_key(&name, rules) {
        node.error(unknown_key(&name));
    }
    Some(Key::from(&*name))
}

/// Whether calls have a value of this name.
pub(super) fn is_key(name: &str, rules: &Rules) -> bool {
    matches!(name, "model" | "provider" | "api_key") || rules.knows(name)
}

fn unknown_key(name: &str) -> String {
    format!("{name:?} is no dimension; expected one, or tags.<name>, model, provider, api_key")
}

pub(super) fn read_downgrades(list: Node<'_, '_>) -> Option<Vec<DowngradeConfig>> {
    list.list(|node| {
        let object = node.object()?;
        let from = object.require("from").and_then(Node::text).map(|text| Glob::new(&text));
        let to = object.require("to").and_then(Node::text).map(|text| Box::from(&*text));
        let listed = object.get("supports").and_then(|list| list.list(|node| node.one_of(Use::WORDS)));
        let supports = listed.map(|listed| listed.into_iter().fold(Uses::default(), Uses::with));
        let supports = supports.unwrap_or_else(|| Capabilities::default().uses);
        object.finish();
        Some(DowngradeConfig { from: from?, to: to?, supports })
    })
}

pub(super) fn read_ledger(node: Node<'_, '_>) -> Option<LedgerConfig> {
    let object = node.object()?;
    let default = LedgerConfig::default();
    let policy = |key| object.get(key).and_then(|node| node.one_of(&[("refuse", false), ("admit", true)]));
    let (when_full, on_contention) = (policy("on_full"), policy("on_contention"));
    let max_bytes = object.get("max_bytes").and_then(|node| node.integer(4 << 20..=2 << 30));
    object.finish();
    Some(LedgerConfig {
        max_bytes: max_bytes.and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(default.max_bytes),
        admit_when_full: when_full.unwrap_or(default.admit_when_full),
        admit_on_contention: on_contention.unwrap_or(default.admit_on_contention),
        ..default
    })
}

#[cfg(test)]
mod tests;
