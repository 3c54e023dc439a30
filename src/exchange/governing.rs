//! What budgets say of a call: held before it leaves, settled at its end.
//!
//! Every budget that a call counts against holds the most the call may cost, in a fixed order of counters; the call leaves
//! only when all of them do, else what was held is given back. Where one does not fit, the strictest action of those
//! that do not decides: block over downgrade over allow.

mod matches;

use super::bound;
use super::call::Call;
use super::{Context, Edit, Verdict};
use crate::api::{self, Api};
use crate::budget::ledger::{Held, Refused};
use crate::budget::{Action, Amount, Budget, Limits, Scope};
use crate::config::{Config, DowngradeConfig};
use crate::downgrade::{self, Capabilities};
use crate::estimate::Estimate;
use crate::host::Host;
use crate::http::Headers;
use crate::money::Usd;
use crate::overview;
use crate::record::{Decision, ExactNumber, PriceStatus, Text, UsageRecord, UsageSource};
use crate::reply::{self, BudgetRefusal, Refusal, Why};
use crate::rewrite;
use matches::{Known, Match};

/// What a call holds.
#[derive(Debug, Default)]
pub(super) struct Reservation {
    /// The budgets that the request's headers decide, until its body has come.
    known: Vec<Known>,
    /// By index of the budget.
    held: Vec<(usize, Held)>,
    /// The most it may cost.
    pub(super) estimate: Option<Estimate>,
    /// What a budget that only observes would have done, and which.
    pub(super) would: Option<(Action, Box<str>)>,
    /// The budget that did not fit.
    pub(super) budget: Option<Box<str>>,
    /// The model the call goes to instead of its own.
    pub(super) downgraded_to: Option<Box<str>>,
    /// The body that asks for it.
    pub(super) rewritten: Option<Vec<u8>>,
    /// The path that asks for it, where that names the model and is still held.
    pub(super) path: Option<String>,
    /// The least that any budget has left, in dollars.
    remaining_usd: Option<Usd>,
    /// What is to be said of it in the record.
    pub(super) notes: Vec<Text>,
}

/// A budget that a call does not fit into.
struct Misfit<'m, 'c> {
    by: &'m Match<'c>,
    action: Action,
    refused: Refused,
}

/// Whether some budget might refuse or change the call, for all that its headers say.
pub(super) fn may_govern(call: &Call, config: &Config) -> bool {
    is_billed(call)
        && config.budgets.iter().any(|budget| !budget.observe && budget.may_apply(call, &late(call, config)))
}

/// Whether a dollar budget with consequences counts the call.
pub(super) fn limits_dollars(call: &Call, config: &Config) -> bool {
    let dollars = |budget: &Budget| !budget.observe && budget.limits(call).0.usd.is_some();
    config.budgets.iter().any(|budget| dollars(budget) && budget.may_apply(call, &late(call, config)))
}

/// Which values a request's body may still bring.
fn late<'c>(call: &Call, config: &'c Config) -> impl Fn(&str) -> bool + use<'c> {
    let model = call.endpoint.model.is_none();
    move |key| match key {
        "model" => model,
        "workload" => true,
        _ => config.attribution.comes_with_body(key),
    }
}

fn is_billed(call: &Call) -> bool {
    !call.api().format().free && !call.endpoint.is_poll && !call.endpoint.is_guess
}

/// Why a call is refused for what its headers say alone: a budget has nothing left, and blocks whatever the body says.
pub(super) fn refuse_early(call: &mut Call, config: &Config, context: &mut Context<'_>) -> Option<Refusal> {
    if !is_billed(call) {
        return None;
    }
    let now = seconds(context.host);
    let least = Amount { usd: Usd::from_pico(1), tokens: 1, calls: 1 };
    let mut full = full(call, config, context, now, Action::Block, &least).into_iter();
    let (own, refused) = full.find(|(_, refused)| matches!(refused, Refused::Exceeded(_)))?;
    Some(refusal(&own, &refused, now))
}

/// The budgets that have no room for `amount` and do `action` about it, as far as the headers alone tell.
fn full<'c>(
    call: &mut Call,
    config: &'c Config,
    context: &mut Context<'_>,
    now: u64,
    action: Action,
    amount: &Amount,
) -> Vec<(Match<'c>, Refused)> {
    let late = late(call, config);
    let workload = call.stated_workload().filter(|_| !config.attribution.comes_with_body("workload"));
    let mut full = Vec::new();
    for (index, budget) in config.budgets.iter().enumerate() {
        let does = match workload {
            Some(writes) => budget.action(writes) == action,
            None => budget.action(true) == action && budget.action(false) == action,
        };
        if budget.observe || !does || !budget.is_decided_by_headers(&late) {
            continue;
        }
        let Scope::Account(account) = budget.scope(&*call, now) else { continue };
        let own = Match::new(index, budget, account, call);
        let (ledger, mut access) = context.ledger(config, now);
        let (standing, seen) = ledger.look(&mut access, &own.account).ok().unzip();
        let admitted = standing.map(|standing| own.limits.admit(&standing, amount));
        call.reservation.known.push(own.known(seen.flatten()));
        if let Some(Err(refused @ (Refused::Exceeded(_) | Refused::Busy(_)))) = admitted {
            full.push((own, refused));
        }
    }
    full
}

/// Sends a call whose path names its model to a cheaper one, while its path can still be changed: where a budget that does
/// so has no room for what the headers tell of it. What the body says is held against the target when it has come.
pub(super) fn downgrade_path(
    call: &mut Call,
    headers: &Headers<'_>,
    config: &Config,
    context: &mut Context<'_>,
    verdict: &mut Verdict,
) {
    let Some(asked) = call.endpoint.model.clone() else { return };
    if config.downgrades.is_empty() || !is_billed(call) || headers.fix_body() {
        return;
    }
    let now = seconds(context.host);
    call.request.text_bytes = headers.number("content-length").unwrap_or(0);
    let estimate = bound::bound(call, config, None, now);
    let full = full(call, config, context, now, Action::Downgrade, &amount(&estimate));
    let Some((by, _)) = full.first() else { return };
    let target = config.downgrades.iter().find(|other| other.from.matches(&asked) && *other.to != *asked);
    let Some(target) = target.filter(|target| fits(call, config, &target.to, now)) else { return };
    let path = headers.get(":path").and_then(|path| api::path::with_model(call.api(), path, &target.to));
    if let Some(path) = path {
        verdict.edits.push(Edit::Set(":path", path));
        verdict.all_or_nothing = true;
        // Its limit on the answer may have to be lowered.
        verdict.edits.push(Edit::Remove("content-length".into()));
        call.reservation.downgraded_to = Some(target.to.clone());
        call.reservation.budget = Some(by.budget.name.clone());
    }
}

/// Whether a call may go to the model `target` for all that its body does not say.
fn fits(call: &Call, config: &Config, target: &str, now: u64) -> bool {
    let asked = call.request_model().unwrap_or_default();
    downgrade::reads_alike(call.api(), asked, target) && bound::is_cheaper(call, config, target, now)
}

/// Holds what the call may cost, or says why it may not go on. `body` is the request's, where it is about to leave whole:
/// only then may the call go to a cheaper model, see [`Reservation::downgraded_to`].
pub(super) fn reserve(
    call: &mut Call,
    body: Option<&[u8]>,
    config: &Config,
    context: &mut Context<'_>,
) -> Result<(), Refusal> {
    if config.budgets.is_empty() || !is_billed(call) {
        return Ok(());
    }
    let now = seconds(context.host);
    let mut known = std::mem::take(&mut call.reservation.known);
    let mut matches = Vec::with_capacity(config.budgets.len());
    for (index, budget) in config.budgets.iter().enumerate() {
        if let Some(own) = matches::take(&mut known, index, budget, now) {
            matches.push(own);
            continue;
        }
        match budget.scope(&*call, now) {
            Scope::Elsewhere => {}
            Scope::Account(account) => matches.push(Match::new(index, budget, account, call)),
            Scope::Missing(_) if budget.observe => {
                call.reservation.would = Some((Action::Block, budget.name.clone()));
            }
            Scope::Missing(key) => {
                call.reservation.budget = Some(budget.name.clone());
                return Err(Refusal::Budget(BudgetRefusal::missing(&budget.name, key).into()));
            }
        }
    }
    if matches.is_empty() {
        return Ok(());
    }
    matches.sort_unstable_by_key(|own| own.account.id);
    let sent = call.reservation.downgraded_to.clone();
    let estimate = bound::bound(call, config, sent.as_deref(), now);
    call.reservation.estimate = Some(estimate);
    let mut governor = Governor { config, context, now, body };
    if let Some(target) = sent {
        return governor.hold_downgraded(call, &matches, &estimate, &target);
    }
    let plain = |own: &Match<'_>| Some(own.limits);
    match governor.hold_all(call, &matches, &estimate, &plain) {
        Ok(()) => Ok(()),
        Err(first) => governor.resolve(call, &matches, &estimate, first),
    }
}

/// A model that a call goes to instead of its own.
struct Target<'g> {
    model: &'g str,
    /// The body that asks for it, where that is another than came.
    body: Option<Vec<u8>>,
    /// The path, where that names the model.
    path: Option<String>,
}

/// The pieces that deciding takes.
struct Governor<'g, 'h> {
    config: &'g Config,
    context: &'g mut Context<'h>,
    now: u64,
    body: Option<&'g [u8]>,
}

impl<'g> Governor<'g, '_> {
    /// Holds `estimate` in every counter, or in none. `limits` says against what; `None`: in any case.
    fn hold_all<'m, 'c>(
        &mut self,
        call: &mut Call,
        matches: &'m [Match<'c>],
        estimate: &Estimate,
        limits: &dyn Fn(&Match<'_>) -> Option<Limits>,
    ) -> Result<(), (&'m Match<'c>, Refused)> {
        let amount = amount(estimate);
        let mut held = Vec::with_capacity(matches.len());
        let mut remaining: Option<Usd> = None;
        for own in matches {
            let against = limits(own);
            let mut result = self.hold(own, amount, against.as_ref());
            if own.budget.observe
                && let Err(refused) = &result
            {
                if matches!(refused, Refused::Exceeded(_) | Refused::Busy(_)) {
                    let action = own.budget.action(call.writes);
                    let worse = call.reservation.would.as_ref().is_none_or(|(other, _)| action > *other);
                    if worse {
                        call.reservation.would = Some((action, own.budget.name.clone()));
                    }
                    result = self.hold(own, amount, None);
                }
                if result.is_err() {
                    continue;
                }
            }
            match result {
                Ok(hold) => {
                    let standing = &hold.standing;
                    let limit = own.limits.with(&standing.granted).usd;
                    let left = limit.map(|limit| limit.saturating_sub(standing.spent.plus(&standing.held).usd));
                    remaining = left.filter(|_| !own.budget.observe).into_iter().chain(remaining).min();
                    held.push((own.index, hold));
                }
                Err(Refused::Full) if self.config.ledger.admit_when_full => {
                    call.reservation.notes.push("ledger_full".into());
                }
                Err(Refused::Unavailable) if self.config.ledger.admit_on_contention => {
                    call.reservation.notes.push("ledger_unavailable".into());
                }
                Err(refused) => {
                    for (_, hold) in held {
                        let (ledger, mut access) = self.context.ledger(self.config, self.now);
                        ledger.release(&mut access, hold);
                    }
                    return Err((own, refused));
                }
            }
        }
        call.reservation.held = held;
        call.reservation.remaining_usd = remaining;
        Ok(())
    }

    fn hold(&mut self, own: &Match<'_>, amount: Amount, limits: Option<&Limits>) -> Result<Held, Refused> {
        let (ledger, mut access) = self.context.ledger(self.config, self.now);
        ledger.reserve_seen(&mut access, &own.account, amount, limits, own.seen.take())
    }

    /// Holds for a call whose path already names the cheaper `target`.
    fn hold_downgraded(
        &mut self,
        call: &mut Call,
        matches: &[Match<'_>],
        estimate: &Estimate,
        target: &str,
    ) -> Result<(), Refusal> {
        let writes = call.writes;
        let raised = |own: &Match<'_>| match own.budget.action(writes) {
            Action::Allow => None,
            Action::Downgrade => Some(own.raised()),
            Action::Block => Some(own.limits),
        };
        let misfit = self.misfit(call, target);
        if let Some(misfit) = misfit {
            call.reservation.notes.extend([misfit.note().into(), "no_downgrade".into()]);
            call.reservation.downgraded_to = None;
            let sent_by = |own: &&Match<'_>| Some(&own.budget.name) == call.reservation.budget.as_ref();
            if let Some(by) = matches.iter().find(sent_by).or(matches.first()) {
                let (ledger, mut access) = self.context.ledger(self.config, self.now);
                let standing = ledger.standing(&mut access, &by.account).unwrap_or_default();
                return Err(refusal(by, &Refused::Exceeded(standing.into()), self.now));
            }
        }
        let now = self.now;
        self.hold_all(call, matches, estimate, &raised).map_err(|(by, refused)| refusal(by, &refused, now))?;
        let model = call.find_model(&self.config.prices.table, target);
        let max_output_tokens = model.and_then(|model| model.max_output_tokens);
        let edits = rewrite::model::Edits { model: None, max_output_tokens };
        call.reservation.rewritten = self.body.and_then(|body| rewrite::model::replace(body, &edits));
        Ok(())
    }

    /// What the request asks for that `target` can't do.
    fn misfit(&self, call: &Call, target: &str) -> Option<downgrade::Misfit> {
        let supports = self.config.downgrades.iter().find(|other| *other.to == *target).map(|other| other.supports);
        let model = call.find_model(&self.config.prices.table, target);
        let max_output_tokens = model.and_then(|model| model.max_output_tokens);
        let uses = supports.unwrap_or(Capabilities::default().uses);
        downgrade::misfit(&call.request.facts, &Capabilities { uses, max_output_tokens })
    }

    /// Decides about a call that did not fit: `first` is the first budget that said so.
    fn resolve(
        &mut self,
        call: &mut Call,
        matches: &[Match<'_>],
        estimate: &Estimate,
        first: (&Match<'_>, Refused),
    ) -> Result<(), Refusal> {
        let now = self.now;
        let misfits = self.misfits(call, matches, estimate, first);
        let rank = |misfit: &&Misfit<'_, '_>| (misfit.action, !matches!(misfit.refused, Refused::Busy(_)));
        let Some(worst) = misfits.iter().max_by_key(rank) else { return Ok(()) };
        call.reservation.budget = Some(worst.by.budget.name.clone());
        let lenient = |own: &Match<'_>, wanted: Action| {
            misfits.iter().any(|misfit| misfit.by.index == own.index && misfit.action == wanted)
        };
        let unlimited = |own: &Match<'_>| (!lenient(own, Action::Allow)).then_some(own.limits);
        match worst.action {
            Action::Block => return Err(refusal(worst.by, &worst.refused, now)),
            Action::Allow => {
                let held = self.hold_all(call, matches, estimate, &unlimited);
                return held.map_err(|(by, refused)| refusal(by, &refused, now));
            }
            Action::Downgrade => {}
        }
        let raised = |own: &Match<'_>| {
            unlimited(own).map(|limits| if lenient(own, Action::Downgrade) { own.raised() } else { limits })
        };
        let target = self.target(call);
        if target.is_none() && call.passes_signed {
            // Policy prefers a dearer call, up to where downgraded ones may go, to one whose signature is broken.
            call.reservation.notes.push("downgrade_signed".into());
            let held = self.hold_all(call, matches, estimate, &raised);
            return held.map_err(|(by, refused)| refusal(by, &refused, now));
        }
        let Some(Target { model: target, body, path }) = target else {
            call.reservation.notes.push("no_downgrade".into());
            return Err(refusal(worst.by, &worst.refused, now));
        };
        let cheaper = bound::bound(call, self.config, Some(target), self.now);
        self.hold_all(call, matches, &cheaper, &raised).map_err(|(by, refused)| refusal(by, &refused, now))?;
        call.reservation.estimate = Some(cheaper);
        call.reservation.downgraded_to = Some(target.into());
        call.reservation.rewritten = body;
        call.reservation.path = path;
        Ok(())
    }

    /// Every budget with consequences that the call does not fit into.
    fn misfits<'m, 'c>(
        &mut self,
        call: &Call,
        matches: &'m [Match<'c>],
        estimate: &Estimate,
        (first, refused): (&Match<'_>, Refused),
    ) -> Vec<Misfit<'m, 'c>> {
        let mut misfits = Vec::new();
        for by in matches.iter().filter(|own| !own.budget.observe) {
            let refused = if by.index == first.index {
                Err(refused.clone())
            } else {
                let (ledger, mut access) = self.context.ledger(self.config, self.now);
                let standing = ledger.standing(&mut access, &by.account);
                standing.and_then(|standing| by.limits.admit(&standing, &amount(estimate)))
            };
            if let Err(refused) = refused {
                let decides = matches!(refused, Refused::Exceeded(_) | Refused::Busy(_));
                let action = if decides { by.budget.action(call.writes) } else { Action::Block };
                misfits.push(Misfit { by, action, refused });
            }
        }
        misfits
    }

    /// A model the call may go to instead, and what asks for it: the first that is written for it, if it can do what the
    /// request asks for and the call is not dearer there.
    fn target(&self, call: &mut Call) -> Option<Target<'g>> {
        let asked = call.request_model()?.to_owned();
        let for_it = |other: &&DowngradeConfig| other.from.matches(&asked) && *other.to != *asked;
        let target = self.config.downgrades.iter().find(for_it)?;
        if let Some(misfit) = self.misfit(call, &target.to) {
            call.reservation.notes.push(misfit.note().into());
            return None;
        }
        if !call.can_be_downgraded || !fits(call, self.config, &target.to, self.now) {
            return None;
        }
        let model = call.find_model(&self.config.prices.table, &target.to);
        let max_output_tokens = model.and_then(|model| model.max_output_tokens);
        if call.endpoint.model.is_some() {
            let path = api::path::with_model(call.api(), call.held_path.as_deref()?, &target.to)?;
            let edits = rewrite::model::Edits { model: None, max_output_tokens };
            let body = self.body.and_then(|body| rewrite::model::replace(body, &edits));
            return Some(Target { model: &target.to, body, path: Some(path) });
        }
        let edits = rewrite::model::Edits { model: Some(&target.to), max_output_tokens };
        let body = match &call.request.form {
            Some(content_type) => rewrite::model::replace_in_form(self.body?, content_type, &target.to),
            None => rewrite::model::replace(self.body?, &edits),
        };
        Some(Target { model: &target.to, body: Some(body?), path: None })
    }
}

fn amount(estimate: &Estimate) -> Amount {
    Amount { usd: estimate.usd.unwrap_or_default(), tokens: estimate.tokens(), calls: 1 }
}

fn refusal(own: &Match<'_>, refused: &Refused, now: u64) -> Refusal {
    let why = match refused {
        Refused::Exceeded(standing) => Why::Exceeded(standing.clone()),
        Refused::Busy(standing) => Why::Busy(standing.clone()),
        Refused::Full => Why::Full,
        Refused::Unavailable => Why::Unavailable,
    };
    let lasts = matches!(refused, Refused::Exceeded(_));
    let budget = BudgetRefusal {
        budget: own.budget.name.clone(),
        why,
        limits: own.limits,
        resets_at: own.account.window_end.filter(|_| lasts),
        now,
    };
    Refusal::Budget(budget.into())
}

/// Writes what was decided.
pub(super) fn write_record(call: &Call, record: &mut UsageRecord) {
    let reservation = &call.reservation;
    record.estimated_cost_usd =
        reservation.estimate.and_then(|estimate| estimate.usd).map(|usd| ExactNumber::new(&usd));
    record.budget = match &call.refusal {
        Some(Refusal::Budget(refusal)) => Some(refusal.budget.clone()),
        _ => reservation.budget.clone(),
    };
    record.notes.extend(reservation.notes.iter().cloned());
    if reservation.downgraded_to.is_some() && call.refusal.is_none() {
        record.decision = Decision::Downgraded;
        record.downgraded_from = call.request_model().map(Into::into);
    }
    if let Some((action, budget)) = &reservation.would {
        record.would_decide = match action {
            Action::Allow => None,
            Action::Downgrade => Some(Decision::Downgraded),
            Action::Block => Some(Decision::Refused),
        };
        record.budget.get_or_insert_with(|| budget.clone());
    }
}

/// Replaces what the call holds by what it cost, and gives the alerts that are due. What cost something all the same and
/// holds nothing (a look at a response made in the background, a call that only its answer proved to be one) is counted
/// where it would have been held.
pub(super) fn settle(call: &mut Call, record: &mut UsageRecord, config: &Config, context: &mut Context<'_>) {
    let reservation = std::mem::take(&mut call.reservation);
    let now = seconds(context.host);
    let free = record.price_status == Some(PriceStatus::Free);
    let unmetered = call.api() == Api::Unrecognised && record.usage_source == UsageSource::None;
    let bound = reservation.estimate.and_then(|estimate| estimate.usd);
    if record.cost_picousd.is_none() && !free && !unmetered && !reservation.held.is_empty() {
        // What nobody knows is not nothing: the bound stays, in ledger and record alike.
        if let Some(bound) = bound {
            record.set_cost(bound);
            record.price_status = Some(PriceStatus::Estimated);
            record.notes.push("bound_charged".into());
        }
    }
    let usd = record.cost_picousd.map_or(Usd::ZERO, Usd::from_pico);
    let counted = [record.input_tokens, record.output_tokens].into_iter().flatten().reduce(u64::saturating_add);
    if reservation.held.is_empty() {
        if call.refusal.is_none() && (usd > Usd::ZERO || counted.is_some_and(|tokens| tokens > 0)) {
            charge(call, Amount { usd, tokens: counted.unwrap_or(0), calls: 0 }, config, now, context);
        }
        return;
    }
    for (index, mut held) in reservation.held {
        let Some(budget) = config.budgets.get(index) else { continue };
        let (limits, _) = budget.limits(&*call);
        let tokens = counted.unwrap_or(if free || unmetered { 0 } else { held.amount.tokens });
        // A call that ends in another window than it began in counts in that one.
        budget.renew(&mut held.account, now);
        let account = held.account.clone();
        let spent = Amount { usd, tokens, calls: held.amount.calls };
        let (ledger, mut access) = context.ledger(config, now);
        let settled = ledger.settle(&mut access, held, spent, &budget.alert_at, &limits);
        overview::alert(&account, &limits, &settled, context);
    }
}

/// Counts `spent` in every budget that the call would have counted against.
fn charge(call: &Call, spent: Amount, config: &Config, now: u64, context: &mut Context<'_>) {
    for budget in &config.budgets {
        if let Scope::Account(account) = budget.scope(call, now) {
            let (limits, _) = budget.limits(call);
            let (ledger, mut access) = context.ledger(config, now);
            let settled = ledger.charge(&mut access, account.clone(), spent, &budget.alert_at, &limits);
            overview::alert(&account, &limits, &settled, context);
        }
    }
}

fn seconds(host: &mut dyn Host) -> u64 {
    host.now_ns() / 1_000_000_000
}

/// What an answer tells the caller of budgets.
pub(super) fn answer_headers(call: &Call, config: &Config, verdict: &mut Verdict) {
    if let Some(left) = call.reservation.remaining_usd.filter(|_| config.metering.cost_headers) {
        verdict.edits.push(Edit::Set("x-cost-budget-remaining-usd", left.max(Usd::ZERO).to_string()));
    }
    if let Some(model) = &call.reservation.downgraded_to {
        let asked = call.request_model().unwrap_or_default();
        verdict.edits.push(Edit::Set("x-cost-requested-model", reply::header_value(asked)));
        verdict.edits.push(Edit::Set("x-cost-model", reply::header_value(model)));
    }
}
