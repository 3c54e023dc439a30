//! What budgets say of a call: held before it leaves, settled at its end.
//!
//! What becomes of a call is decided in [`crate::budget::decision`]. Here is what only the filter has: headers that are
//! decided before their body has come, bodies and paths that ask for another model, and the record.

use super::bound;
use super::call::Call;
use super::{Context, Edit, Verdict};
use crate::api;
use crate::budget::decision::{Governor, Holds, Instead, Known, LEDGER_FULL, Match, Matches, Misfit, Request, Told};
use crate::budget::ledger::{Full, Held, Refused, Standing};
use crate::budget::{Action, Amount, Budget, Limits, Scope};
use crate::config::Config;
use crate::downgrade::{self, Capabilities};
use crate::estimate::Estimate;
use crate::host::Host;
use crate::http::Headers;
use crate::money::Usd;
use crate::overview;
use crate::record::{self, Decision, ExactNumber, PriceStatus, Text, UsageRecord};
use crate::reply::{self, BudgetRefusal, Refusal, Why};
use crate::rewrite;

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

impl Reservation {
    /// How the counter of a budget stands that the request's headers decide, read once a second at most; `None` where the
    /// store fails.
    fn look(&mut self, own: &Match<'_>, config: &Config, context: &mut Context<'_>, now: u64) -> Option<&Standing> {
        let place = self.known.iter().position(|known| known.is_of(own.index));
        if place.and_then(|place| self.known.get(place)?.standing(now)).is_none() {
            let (ledger, mut access) = context.ledger(config, now);
            let looked = ledger.look(&mut access, &own.account).ok()?;
            self.known.retain(|known| !known.is_of(own.index));
            self.known.push(own.known(looked, now));
        }
        self.known.iter().find(|known| known.is_of(own.index))?.standing(now)
    }
}

/// Whether some budget might refuse or change the call, for all that its headers say.
pub(super) fn may_govern(call: &Call, config: &Config) -> bool {
    is_billed(call)
        && config.budgets.iter().any(|budget| !budget.observe && budget.may_apply(call, &late(call, config)))
}

/// Which values a request's body may still bring.
pub(super) fn late<'c>(call: &Call, config: &'c Config) -> impl Fn(&str) -> bool + use<'c> {
    config.late(call.endpoint.model.is_some())
}

fn is_billed(call: &Call) -> bool {
    !call.api().format().free && !call.endpoint.is_poll && !call.endpoint.is_guess
}

/// Why a call is refused for what its headers say alone: a budget has nothing left, and refuses whatever the body says.
pub(super) fn refuse_early(call: &mut Call, config: &Config, context: &mut Context<'_>) -> Option<Refusal> {
    if !is_billed(call) {
        return None;
    }
    let now = seconds(context.host);
    let nothing = Amount::default();
    let refusing = Asking { observe: false, amount: nothing, limits: &|own, writes| own.against(writes) };
    let full = refusing.full(call, config, context, now);
    // The one is named that would be at the body's end.
    let writes = known_workload(call, config).unwrap_or(call.writes);
    let lasting = full.iter().filter(|(_, refused)| refused.lasts());
    let misfits = lasting.map(|(own, refused)| Misfit::new(own, refused.clone(), writes));
    let worst = misfits.max_by_key(Misfit::rank)?;
    // Those that only observe are not asked again.
    for action in [Action::Block, Action::Downgrade] {
        let watching = Asking { observe: true, amount: nothing, limits: &|own, writes| own.limits_of(action, writes) };
        let would = watching.full(call, config, context, now).first().map(|(own, _)| (action, own.budget.name.clone()));
        call.reservation.would = call.reservation.would.take().or(would);
    }
    Some(refusal(worst.by, &worst.refused, now))
}

/// Whether the call writes, where its headers settle that.
fn known_workload(call: &Call, config: &Config) -> Option<bool> {
    call.stated_workload().filter(|_| !config.attribution.comes_with_body("workload"))
}

/// What budgets are asked about a call of which only the headers are known.
struct Asking<'a> {
    /// Those that only observe, or those with consequences.
    observe: bool,
    /// What the call takes at least.
    amount: Amount,
    /// Against what that is held for a call that writes, or one that only reads; `None`: such a call is none of it.
    limits: &'a dyn Fn(&Match<'_>, bool) -> Option<Limits>,
}

impl Asking<'_> {
    /// Those that have no room, as far as the headers alone tell.
    fn full<'c>(
        &self,
        call: &mut Call,
        config: &'c Config,
        context: &mut Context<'_>,
        now: u64,
    ) -> Vec<(Match<'c>, Refused)> {
        let late = late(call, config);
        let workload = known_workload(call, config);
        let mut full = Vec::new();
        for (index, budget) in config.budgets.iter().enumerate() {
            if budget.observe != self.observe || !budget.is_decided_by_headers(&late) {
                continue;
            }
            let Scope::Account(account) = budget.scope(&*call, now) else { continue };
            let own = Match::new(index, budget, account, call);
            let [write, read] = [true, false].map(|writes| (self.limits)(&own, workload.unwrap_or(writes)));
            let Some((write, read)) = write.zip(read) else { continue };
            let Some(standing) = call.reservation.look(&own, config, context, now) else { continue };
            let admitted = [write, read].map(|limits| limits.admit(standing, &self.amount));
            if let [Err(write), Err(read)] = admitted {
                full.push((own, if write.lasts() { read } else { write }));
            }
        }
        full
    }
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
    let estimate = bound::asked(call, config, now, |asked| asked.bound(None));
    let downgrade = |own: &Match<'_>, writes| own.limits_of(Action::Downgrade, writes);
    let asking = Asking { observe: false, amount: amount(&estimate), limits: &downgrade };
    let full = asking.full(call, config, context, now);
    let Some((by, _)) = full.first() else { return };
    let target = config.downgrade(&asked).filter(|(_, target)| fits(call, config, &target.to, now));
    let Some((_, target)) = target else { return };
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
    bound::asked(call, config, now, |asked| downgrade::fits(call.api(), asked, target))
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
    let matches = Matches::of(&config.budgets, &*call, &mut known, now);
    if let Some((_, budget, _)) = matches.missing.iter().rfind(|(_, budget, _)| budget.observe) {
        call.reservation.would = Some((Action::Block, budget.name.clone()));
    }
    let refused = matches.refused().map(|(budget, key)| BudgetRefusal::missing(&budget.name, key.clone()));
    let matches = matches.counted;
    if matches.is_empty() && refused.is_none() {
        return Ok(());
    }
    let sent = call.reservation.downgraded_to.clone();
    let estimate = bound::asked(call, config, now, |asked| asked.bound(sent.as_deref()));
    let request = Request { writes: call.writes, amount: amount(&estimate) };
    let mut governor = Governor::new(context.ledger(config, now));
    governor.told.would = call.reservation.would.take();
    if let Some(refused) = refused {
        governor.watch(&matches, &request);
        call.reservation.would = governor.told.would;
        return Err(Refusal::Budget(refused.into()));
    }
    call.reservation.estimate = Some(estimate);
    let leaving = Leaving { config, now, body };
    let outcome = match sent {
        Some(target) => leaving.hold_sent(call, &matches, &request, &target, &mut governor),
        None => {
            let decision = governor.decide(&matches, &request, |told| leaving.instead(call, told));
            if let Some(by) = decision.by {
                call.reservation.budget = Some(by.budget.name.clone());
            }
            decision.outcome
        }
    };
    let Told { would, notes } = governor.told;
    call.reservation.would = would;
    call.reservation.notes.extend(notes);
    let (holds, target) = outcome.map_err(|(by, refused)| refusal(by, &refused, now))?;
    call.reservation.held = holds.held;
    call.reservation.remaining_usd = holds.remaining_usd;
    if let Some(Target { model, estimate, body, path }) = target {
        call.reservation.estimate = Some(estimate);
        call.reservation.downgraded_to = Some(model.into());
        call.reservation.rewritten = body;
        call.reservation.path = path;
    }
    Ok(())
}

/// A model that a call goes to instead of its own.
struct Target<'l> {
    model: &'l str,
    /// The most the call may cost there.
    estimate: Estimate,
    /// The body that asks for it, where that is another than came.
    body: Option<Vec<u8>>,
    /// The path, where that names the model.
    path: Option<String>,
}

/// A request that is about to leave.
struct Leaving<'l> {
    config: &'l Config,
    now: u64,
    body: Option<&'l [u8]>,
}

/// What a call holds and where it goes, or the budget that refuses it.
type Outcome<'l, 'm, 'c> = Result<(Holds, Option<Target<'l>>), (&'m Match<'c>, Refused)>;

impl<'l> Leaving<'l> {
    /// Holds for a call whose path already names the cheaper `target`.
    fn hold_sent<'m, 'c>(
        &self,
        call: &mut Call,
        matches: &'m [Match<'c>],
        request: &Request,
        target: &str,
        governor: &mut Governor<'_>,
    ) -> Outcome<'l, 'm, 'c> {
        let raised = |own: &Match<'_>| own.against(request.writes);
        if let Some(misfit) = self.misfit(call, target) {
            governor.watch(matches, request);
            governor.told.note(&misfit.note());
            governor.told.note("no_downgrade");
            call.reservation.downgraded_to = None;
            let sent_by = |own: &&Match<'_>| Some(&own.budget.name) == call.reservation.budget.as_ref();
            if let Some(by) = matches.iter().find(sent_by).or(matches.first()) {
                let standing = governor.standing(by).unwrap_or_default();
                return Err((by, Refused::Exceeded(standing.into())));
            }
        }
        let holds = governor.hold_all(matches, request, &raised)?;
        let edits = rewrite::model::Edits { model: None, max_output_tokens: self.most_output(call, target) };
        call.reservation.rewritten = self.body.and_then(|body| rewrite::model::replace(body, &edits));
        Ok((holds, None))
    }

    /// What the request asks for that `target` can't do.
    fn misfit(&self, call: &Call, target: &str) -> Option<downgrade::Misfit> {
        let supports = self.config.downgrades.iter().find(|other| *other.to == *target).map(|other| other.supports);
        let uses = supports.unwrap_or(Capabilities::default().uses);
        let max_output_tokens = self.most_output(call, target);
        downgrade::misfit(&call.request.facts, &Capabilities { uses, max_output_tokens })
    }

    fn most_output(&self, call: &Call, target: &str) -> Option<u64> {
        call.find_model(&self.config.prices.table, target)?.max_output_tokens
    }

    /// Where the call may go that has to cost less.
    fn instead(&self, call: &Call, told: &mut Told) -> Instead<Target<'l>> {
        match self.target(call, told) {
            Some(target) => {
                let amount = amount(&target.estimate);
                Instead::Cheaper(target, amount)
            }
            None if call.passes_signed => Instead::AsItIs,
            None => Instead::Nowhere,
        }
    }

    /// A model the call may go to instead, and what asks for it: the first that is written for it, if it can do what the
    /// request asks for and the call is not dearer there.
    fn target(&self, call: &Call, told: &mut Told) -> Option<Target<'l>> {
        let (_, target) = self.config.downgrade(call.request_model()?)?;
        if let Some(misfit) = self.misfit(call, &target.to) {
            told.note(&misfit.note());
            return None;
        }
        if !call.can_be_downgraded || !fits(call, self.config, &target.to, self.now) {
            return None;
        }
        let max_output_tokens = self.most_output(call, &target.to);
        let (body, path) = if call.endpoint.model.is_some() {
            let path = api::path::with_model(call.api(), call.held_path.as_deref()?, &target.to)?;
            let edits = rewrite::model::Edits { model: None, max_output_tokens };
            (self.body.and_then(|body| rewrite::model::replace(body, &edits)), Some(path))
        } else {
            let edits = rewrite::model::Edits { model: Some(&target.to), max_output_tokens };
            let body = match &call.request.form {
                Some(content_type) => rewrite::model::replace_in_form(self.body?, content_type, &target.to),
                None => rewrite::model::replace(self.body?, &edits),
            };
            (Some(body?), None)
        };
        let estimate = bound::asked(call, self.config, self.now, |asked| asked.bound(Some(&target.to)));
        Some(Target { model: &target.to, estimate, body, path })
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
        Some(_) => None,
        None => reservation.budget.clone(),
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
    let bound = reservation.estimate.and_then(|estimate| estimate.usd);
    if record.cost_picousd.is_none() && !record.costs_nothing() && !reservation.held.is_empty() {
        // What nobody knows is not nothing: the bound stays, in ledger and record alike.
        if let Some(bound) = bound {
            record.set_cost(bound);
            record.price_status = Some(PriceStatus::Estimated);
            record.notes.push("bound_charged".into());
        }
    }
    let usd = record.cost_picousd.map_or(Usd::ZERO, Usd::from_pico);
    let counted = record.counted_tokens();
    let settling = Settling { call, config, now };
    if reservation.held.is_empty() {
        if call.refusal.is_none() && (usd > Usd::ZERO || counted.is_some_and(|tokens| tokens > 0)) {
            let spent = Amount { usd, tokens: counted.unwrap_or(0), calls: 0 };
            settling.charge(spent, record, context);
        }
        return;
    }
    for (index, mut held) in reservation.held {
        let Some(budget) = config.budgets.get(index) else { continue };
        let tokens = counted.unwrap_or(held.amount.tokens);
        // A call that ends in another window than it began in counts in that one.
        budget.renew(&mut held.account, now);
        let spent = Amount { usd, tokens, calls: held.amount.calls };
        settling.settle(budget, held, spent, record, context);
    }
}

/// A call that is over.
struct Settling<'s> {
    call: &'s Call,
    config: &'s Config,
    now: u64,
}

impl Settling<'_> {
    /// Counts `spent` in a budget in place of what is held there, and tells what there is to tell of that.
    fn settle(&self, budget: &Budget, held: Held, spent: Amount, record: &mut UsageRecord, context: &mut Context<'_>) {
        let (limits, _) = budget.limits(self.call);
        let account = held.account.clone();
        let (ledger, mut access) = context.ledger(self.config, self.now);
        match ledger.settle(&mut access, held, spent, &budget.alert_at, &limits) {
            Ok(settled) => overview::alert(&account, &limits, &settled, context),
            Err(Full) => record::note(&mut record.notes, LEDGER_FULL),
        }
    }

    /// Counts `spent` in every budget that the call would have counted against.
    fn charge(&self, spent: Amount, record: &mut UsageRecord, context: &mut Context<'_>) {
        for budget in &self.config.budgets {
            if let Scope::Account(account) = budget.scope(self.call, self.now) {
                self.settle(budget, Held::unheld(account, Amount::default()), spent, record, context);
            }
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
