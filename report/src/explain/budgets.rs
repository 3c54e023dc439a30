//! What each budget says of a call, and why.
//!
//! What a call holds, and what becomes of it, is read off the filter's own code: the call is played where no budget
//! refuses, to see where and how much it holds, and where every budget that downgrades has nothing left, to see whether
//! it goes to a cheaper model.

use super::exchange::Exchange;
use super::play::{self, Hold, Played};
use crate::recorded::{self, Values};
use crate::settings::Settings;
use anyhow::{Context, bail};
use serde::Serialize;
use std::collections::BTreeMap;
use std::rc::Rc;
use tollgate::api::uses::Use;
use tollgate::api::{Api, Endpoint, RequestFacts, provider};
use tollgate::body::json::Scanner;
use tollgate::budget::ledger::{Account, Standing};
use tollgate::budget::{Action, Amount, Budget, Condition, Limits, Scope, Subject};
use tollgate::config::{Config, OnUnknownModel};
use tollgate::estimate::{self, Size, TOKENS_PER_MEDIUM};
use tollgate::exchange::Route;
use tollgate::glob::Glob;
use tollgate::money::{Decimal, Usd};
use tollgate::price::{Circumstances, Model};
use tollgate::record::{Decision, UsageRecord};
use tollgate::time::rfc3339_seconds;
use tollgate::workload;

/// What was spent in a budget before.
#[derive(Clone, Debug)]
pub(super) struct Spent {
    budget: String,
    usd: Usd,
}

/// Reads `BUDGET=USD`.
pub(super) fn spent(text: &str) -> Result<Spent, String> {
    let (budget, usd) = text.rsplit_once('=').ok_or("expected the budget's name and dollars, as team-daily=9.50")?;
    let decimal = Decimal::parse(usd).map_err(|error| format!("{error}, got {usd:?}"))?;
    let usd = Usd::of(decimal).ok_or("is more than can be counted")?;
    Ok(Spent { budget: budget.into(), usd })
}

/// What all budgets say.
#[derive(Debug, Serialize)]
pub(super) struct Governed {
    /// The most the call may cost; absent where no budget counts it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) estimate: Option<Bound>,
    /// Where the call may go instead, if some budget downgrades.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) downgrade: Option<Downgrade>,
    /// In the order of the configuration.
    pub(super) budgets: Vec<Verdict>,
}

/// The most a call may cost, and why.
#[derive(Debug, Serialize)]
pub(super) struct Bound {
    /// In dollars.
    #[serde(serialize_with = "as_text")]
    pub(super) usd: Usd,
    /// In tokens.
    pub(super) tokens: u64,
    /// What it is made of.
    pub(super) terms: Vec<BoundTerm>,
}

/// A part of an estimate.
#[derive(Debug, Serialize)]
pub(super) struct BoundTerm {
    pub(super) what: &'static str,
    pub(super) tokens: u64,
    /// Where the number comes from.
    pub(super) from: String,
    /// Dollars per million tokens, the dearest that may apply; absent where there is no price.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rate_usd: Option<String>,
}

/// A cheaper model.
#[derive(Debug, Serialize)]
pub(super) struct Downgrade {
    /// Which; absent where none is named for the call's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) to: Option<String>,
    /// Why the call can't go there; absent where it can.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) why_not: Option<String>,
    /// The most it may cost there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) estimated_usd: Option<String>,
}

/// What a budget says.
#[derive(Debug, Serialize)]
pub(super) struct Verdict {
    pub(super) budget: String,
    pub(super) mode: &'static str,
    /// Whether the call counts here.
    pub(super) applies: bool,
    /// Why it does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) why_not: Option<String>,
    /// Its counter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) counter: Option<CounterView>,
    /// `fits`, or what the budget does about it: `block`, `downgrade`, `allow`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) decision: Option<&'static str>,
    #[serde(skip)]
    spent: Option<(Account, Amount)>,
}

/// A counter and its limits.
#[derive(Debug, Serialize)]
pub(super) struct CounterView {
    pub(super) scope: BTreeMap<String, String>,
    pub(super) window: &'static str,
    pub(super) window_start: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) resets_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) limit_usd: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) hard_limit_usd: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) limit_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) limit_calls: Option<u64>,
    pub(super) spent_usd: String,
}

fn as_text<S: serde::Serializer>(usd: &Usd, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(usd)
}

/// A call, with what there is to know of it.
struct Call<'a> {
    exchange: &'a Exchange,
    config: &'a Config,
    record: UsageRecord,
    values: Values,
    facts: RequestFacts,
    holds: Vec<Hold>,
    now: u64,
    multiplier: Option<Decimal>,
}

impl Governed {
    /// What the budgets of a configuration say of a call; `None` where there are none, or it is no LLM call.
    ///
    /// # Errors
    /// Something was spent in a budget that does not exist.
    pub(super) fn of(
        exchange: &Exchange,
        settings: &Settings,
        at_ns: u64,
        spent: &[Spent],
    ) -> anyhow::Result<Option<Governed>> {
        let config = &settings.config;
        if let Some(other) = spent.iter().find(|one| !config.budgets.iter().any(|budget| *budget.name == *one.budget)) {
            let names: Vec<&str> = config.budgets.iter().map(|budget| &*budget.name).collect();
            let known = if names.is_empty() { "it has none".into() } else { format!("it has {}", names.join(", ")) };
            bail!("the configuration has no budget {:?}: {known}", other.budget);
        }
        if config.budgets.is_empty() {
            return Ok(None);
        }
        let Some(call) = Call::read(exchange, settings, at_ns)? else { return Ok(None) };
        let budgets: Vec<Verdict> = config.budgets.iter().map(|budget| call.verdict(budget, spent)).collect();
        let downgrade = call.downgrade(settings, &budgets, at_ns)?;
        Ok(Some(Governed { estimate: call.bound(), downgrade, budgets }))
    }

    /// What was spent in which counter.
    pub(super) fn spent(&self) -> Vec<(Account, Amount)> {
        self.budgets.iter().filter_map(|verdict| verdict.spent.clone()).collect()
    }
}

/// The configuration again, with every budget changed.
fn changed(settings: &Settings, change: impl Fn(&mut Config)) -> anyhow::Result<Rc<Config>> {
    let mut config = settings.found.read().ok().context("the configuration cannot be read twice")?;
    change(&mut config);
    Ok(Rc::new(config))
}

impl<'a> Call<'a> {
    fn read(exchange: &'a Exchange, settings: &'a Settings, at_ns: u64) -> anyhow::Result<Option<Call<'a>>> {
        let config = &settings.config;
        let probe = |unknown: Option<OnUnknownModel>| -> anyhow::Result<Played> {
            let observing = changed(settings, |config| {
                config.budgets.iter_mut().for_each(|budget| budget.observe = true);
                config.prices.on_unknown_model = unknown.or(config.prices.on_unknown_model);
            })?;
            Ok(play::play(exchange, &observing, at_ns, &[]))
        };
        let played = probe(None)?;
        let Some(record) = played.record.clone() else { return Ok(None) };
        let mut call = Call::new(exchange, config, record, played, at_ns / 1_000_000_000);
        // What the budgets make of an unknown model they do where they only observe, too.
        let (method, path) = (exchange.header(":method"), exchange.header(":path"));
        let endpoint = Endpoint::recognise(method.as_bytes(), path.as_bytes());
        let path_names_model = endpoint.is_some_and(|endpoint| endpoint.model.is_some());
        let unknown = config.on_unknown_model(&call.values, &config.late(path_names_model));
        if config.prices.on_unknown_model.is_none() && unknown != OnUnknownModel::Allow {
            call.holds = probe(Some(unknown))?.holds;
        }
        Ok(Some(call))
    }

    fn new(exchange: &'a Exchange, config: &'a Config, record: UsageRecord, played: Played, now: u64) -> Call<'a> {
        let path = exchange.header(":path");
        let host = Some(exchange.header(":authority")).filter(|host| !host.is_empty());
        let route = Route { route: exchange.route.as_deref(), cluster: exchange.cluster.as_deref(), properties: &[] };
        let upstream = config.upstream(route, host);
        let api = Api::of_name(&record.api).unwrap_or(Api::Unrecognised);
        let known = upstream.and_then(|upstream| upstream.provider.clone());
        let known = known.or_else(|| host.and_then(provider::of_host).map(Into::into));
        // The price table may have filled the record's in; budgets look at what is known before.
        let provider = known.or_else(|| provider::of_format(api, path).map(Into::into));
        let mut seen = UsageRecord { provider, ..record };
        let values = Values::of(&mut seen, &recorded::keys(&config.budgets).into());
        let mut facts = RequestFacts::default();
        let mut scanner = Scanner::new(api.format().request);
        scanner.feed(&exchange.request_body, &mut facts);
        scanner.finish(&mut facts);
        let multiplier = upstream.and_then(|upstream| upstream.price_multiplier);
        Call { exchange, config, record: seen, values, facts, holds: played.holds, now, multiplier }
    }

    fn hold(&self, budget: &Budget) -> Option<&Hold> {
        self.holds.iter().find(|hold| *hold.account.budget == *budget.name)
    }

    /// Whether the call writes: as its workload says, else as the tools it offers do.
    fn writes(&self) -> bool {
        let words = &self.config.workload.write_words;
        let by_tools = || self.facts.tool_names.iter().any(|tool| workload::names_a_write(tool, words));
        self.record.workload.as_deref().and_then(workload::writes).unwrap_or_else(by_tools)
    }

    fn verdict(&self, budget: &Budget, spent: &[Spent]) -> Verdict {
        let mut verdict = Verdict {
            budget: budget.name.to_string(),
            mode: if budget.observe { "observe" } else { "enforce" },
            applies: false,
            why_not: None,
            counter: None,
            decision: None,
            spent: None,
        };
        let account = match budget.scope(&self.values, self.now) {
            Scope::Elsewhere => {
                verdict.why_not = Some(self.why_elsewhere(budget));
                return verdict;
            }
            Scope::Missing(key) => {
                verdict.why_not = Some(format!("the call has no {key}, and when_missing is refuse"));
                verdict.decision = Some("block");
                return verdict;
            }
            Scope::Account(account) => account,
        };
        let Some(hold) = self.hold(budget) else {
            verdict.why_not = Some("calls that nothing is charged for count nowhere".into());
            return verdict;
        };
        let usd = spent.iter().filter(|one| *one.budget == *budget.name).map(|one| one.usd);
        let usd = usd.fold(Usd::ZERO, Usd::saturating_add);
        let spent = Amount { usd, ..Amount::default() };
        let (limits, hard) = budget.limits(&self.values);
        let standing = Standing { spent, ..Standing::default() };
        verdict.decision = Some(match limits.admit(&standing, &hold.amount) {
            Ok(()) => "fits",
            Err(_) => match budget.action(self.writes()) {
                Action::Allow => "allow",
                Action::Downgrade => "downgrade",
                Action::Block => "block",
            },
        });
        verdict.applies = true;
        verdict.counter = Some(CounterView {
            scope: account.scope.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect(),
            window: budget.calendar.window.name(),
            window_start: rfc3339_seconds(account.window),
            resets_at: account.window_end.map(rfc3339_seconds),
            limit_usd: limits.usd.map(|usd| usd.to_string()),
            hard_limit_usd: hard.map(|usd| usd.to_string()),
            limit_tokens: limits.tokens,
            limit_calls: limits.calls,
            spent_usd: usd.to_string(),
        });
        verdict.spent = (!spent.is_zero()).then_some((account, spent));
        verdict
    }

    /// The first condition that the call does not meet, or the value that it lacks.
    fn why_elsewhere(&self, budget: &Budget) -> String {
        let met = |condition: &&Condition| {
            let value = self.values.value(&condition.key);
            value.is_some_and(|value| condition.patterns.iter().any(|pattern| pattern.matches(value)))
        };
        match budget.conditions.iter().find(|condition| !met(condition)) {
            Some(condition) => {
                let patterns: Vec<&str> = condition.patterns.iter().map(Glob::as_str).collect();
                let (key, wanted) = (&condition.key, patterns.join(" or "));
                match self.values.value(key) {
                    Some(value) => format!("it is for {key} {wanted}, and the call's is {value}"),
                    None => format!("it is for {key} {wanted}, and the call has none"),
                }
            }
            None => {
                let missing = budget.per.iter().find(|key| self.values.value(key).is_none());
                format!("the call has no {}, and when_missing is skip", missing.map_or("", |key| key))
            }
        }
    }

    fn model(&self, name: &str) -> Option<&Model> {
        let found = self.config.prices.table.find(name, recorded::biller(&self.record), self.record.region.as_deref());
        found.map(|(model, _)| model)
    }

    /// What the estimate is made of. The sum is what the filter held.
    fn bound(&self) -> Option<Bound> {
        let Amount { usd, tokens, .. } = self.holds.first()?.amount;
        let model = self.record.request_model.as_deref().and_then(|name| self.model(name));
        let answers = self.facts.choices.unwrap_or(1);
        let asked = self.record.max_output_tokens;
        let size = Size { max_output_tokens: asked, answers, ..Size::default() };
        let reservation = &self.config.reservation;
        let output = estimate::estimate(&size, model, reservation, &Circumstances::default()).output_tokens;
        let each = output / answers.max(1);
        let most = model.filter(|model| model.max_output_tokens == Some(each));
        let from = match (asked, most) {
            (Some(asked), _) if asked == each => "the request's limit".into(),
            (_, Some(model)) => format!("the most that {} generates", model.name),
            _ => "reservation.default_max_output_tokens, as nobody sets a limit".into(),
        };
        let from = if answers > 1 { format!("{answers} answers of {each}, {from}") } else { from };
        let input = tokens.saturating_sub(output);
        let media = self.facts.media_count.unwrap_or(0).saturating_mul(TOKENS_PER_MEDIUM).min(input);
        let rates = model.map(|model| self.rates(model, input));
        let rate = |rates: Option<[Option<Decimal>; 2]>, index: usize| {
            rates.and_then(|rates| rates.get(index).copied().flatten()).map(|usd| usd.to_string())
        };
        let bytes = self.exchange.request_body.len();
        let per_byte = reservation.tokens_per_byte;
        let kept = [Use::Conversation, Use::CachedContent].into_iter().any(|one| self.facts.uses.contains(one));
        let longest = model.filter(|model| kept && model.max_input_tokens == Some(input));
        let mut terms = vec![BoundTerm {
            what: "input",
            tokens: input.saturating_sub(media),
            from: match longest {
                Some(model) => format!("the longest prompt {} takes, as the provider keeps part of it", model.name),
                None => format!("a body of {bytes} bytes, {per_byte} tokens a byte of text"),
            },
            rate_usd: rate(rates, 0),
        }];
        if media > 0 {
            let from = format!("{} images or files of {TOKENS_PER_MEDIUM}", media / TOKENS_PER_MEDIUM);
            terms.push(BoundTerm { what: "media", tokens: media, from, rate_usd: rate(rates, 0) });
        }
        terms.push(BoundTerm { what: "output", tokens: output, from, rate_usd: rate(rates, 1) });
        Some(Bound { usd, tokens, terms })
    }

    /// The dearest rates of input and output that may apply, with whatever multiplies them.
    fn rates(&self, model: &Model, input_tokens: u64) -> [Option<Decimal>; 2] {
        let circumstances = Circumstances {
            unix_seconds: self.now,
            service_tier: self.facts.service_tier.as_deref(),
            speed: self.facts.speed.as_deref(),
            geo: self.facts.geo.as_deref(),
            region: self.record.region.as_deref(),
            multiplier: self.multiplier,
        };
        let applied = model.apply(input_tokens, &circumstances);
        estimate::dearest(&applied).map(|rate| rate?.product(applied.multiplier?))
    }

    /// Whether the call could go to a cheaper model, if some budget it counts against would send it there.
    fn downgrade(&self, settings: &Settings, verdicts: &[Verdict], at_ns: u64) -> anyhow::Result<Option<Downgrade>> {
        let sends = |budget: &Budget| budget.action(self.writes()) == Action::Downgrade;
        let sending: Vec<&Budget> = self
            .config
            .budgets
            .iter()
            .zip(verdicts)
            .filter(|(own, view)| view.applies && sends(own))
            .map(|(own, _)| own)
            .collect();
        if sending.is_empty() {
            return Ok(None);
        }
        let asked = self.record.request_model.as_deref().unwrap_or_default();
        let Some((index, target)) = self.config.downgrade(asked) else {
            let why_not = Some(format!("no entry of downgrades is for {asked:?}"));
            return Ok(Some(Downgrade { to: None, why_not, estimated_usd: None }));
        };
        let names: Vec<Box<str>> = sending.iter().map(|budget| budget.name.clone()).collect();
        let enforcing = changed(settings, |config| {
            config.budgets.iter_mut().for_each(|own| own.observe = !names.contains(&own.name));
        })?;
        let used_up = |budget: &&Budget| {
            let Limits { usd, tokens, calls } = budget.limits(&self.values).0;
            let amount = match (usd, tokens) {
                (Some(usd), _) => Amount { usd, ..Amount::default() },
                (None, Some(tokens)) => Amount { tokens, ..Amount::default() },
                (None, None) => Amount { calls: calls.unwrap_or(0), ..Amount::default() },
            };
            self.hold(budget).map(|hold| (hold.account.clone(), amount))
        };
        let spent: Vec<_> = sending.iter().filter_map(used_up).collect();
        let played = play::play(self.exchange, &enforcing, at_ns, &spent);
        let to = Some(target.to.to_string());
        let went = played.record.as_ref().filter(|record| record.decision == Decision::Downgraded);
        if let Some(record) = went {
            let estimated_usd = record.estimated_cost_usd.as_ref().map(|usd| usd.as_str().to_owned());
            return Ok(Some(Downgrade { to, why_not: None, estimated_usd }));
        }
        let notes = played.record.as_ref().map(|record| record.notes.as_slice()).unwrap_or_default();
        let lacks = notes.iter().find_map(|note| note.strip_prefix("downgrade_misfit:"));
        let why_not = match (lacks, self.model(asked), self.model(&target.to)) {
            (Some("thinking_budget"), ..) => "it thinks with more tokens than the target puts out".into(),
            (Some(lacking), ..) => {
                format!("the request uses {lacking}, which downgrades[{index}].supports does not list")
            }
            (None, None, _) => format!("the price table has no {asked:?}"),
            (None, _, None) => format!("the price table has no {:?}", target.to),
            (None, Some(own), Some(other)) if own.provider != other.provider => "another provider sells it".into(),
            _ if played.holds.is_empty() && notes.iter().any(|note| **note == *"no_downgrade") => {
                "it costs no less there if its prompt is cached here, or its body can't be changed".into()
            }
            _ => "hard_limit_usd has no room for it there either".into(),
        };
        Ok(Some(Downgrade { to, why_not: Some(why_not), estimated_usd: None }))
    }
}
