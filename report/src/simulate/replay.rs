//! Plays calls against budgets.
//!
//! The ledger, the windows and the limits are the filter's own, on a store in memory. What becomes of a call that does not
//! fit is decided as the filter does it: the strictest action of the budgets it does not fit into, with everything held
//! or nothing.

use super::calls::{Call, Cheaper, Reader};
use super::tally::{Event, Outcome, Tallies, Total};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use tollgate::budget::ledger::{Access, Account, Held, Ledger, Refused};
use tollgate::budget::{Action, Amount, Budget, Limits, Scope};
use tollgate::config::Config;
use tollgate::memory::MemoryHost;
use tollgate::money::Usd;
use tollgate::time::rfc3339_micros;

/// A replay under way.
pub(super) struct Replay<'c> {
    config: &'c Config,
    store: MemoryHost,
    ledger: Ledger,
    /// The clock, in seconds since 1970.
    now: u64,
    open: BinaryHeap<Reverse<Open>>,
    tallies: Tallies,
    total: Total,
    first_ns: Option<u64>,
    last_ns: u64,
}

/// A call under way.
struct Open {
    end_ns: u64,
    /// Tells calls apart that end together.
    number: u64,
    held: Vec<Hold>,
    cost: Option<Usd>,
    tokens: Option<u64>,
}

struct Hold {
    budget: usize,
    held: Held,
    limits: Limits,
}

/// A budget that a call counts against.
struct Match<'c> {
    index: usize,
    budget: &'c Budget,
    account: Account,
    limits: Limits,
    hard_limit_usd: Option<Usd>,
}

/// Against which limits a call is held, if any.
type Against<'f> = &'f dyn Fn(&Match<'_>) -> Option<Limits>;

impl Open {
    fn key(&self) -> (u64, u64) {
        (self.end_ns, self.number)
    }
}

impl Ord for Open {
    fn cmp(&self, other: &Open) -> std::cmp::Ordering {
        self.key().cmp(&other.key())
    }
}

impl PartialOrd for Open {
    fn partial_cmp(&self, other: &Open) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Open {
    fn eq(&self, other: &Open) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Open {}

impl<'c> Replay<'c> {
    /// Before the first call.
    pub(super) fn new(config: &'c Config) -> Replay<'c> {
        Replay {
            config,
            store: MemoryHost::default(),
            ledger: Ledger::new(1),
            now: 0,
            open: BinaryHeap::new(),
            tallies: Tallies::new(config.budgets.len()),
            total: Total::default(),
            first_ns: None,
            last_ns: 0,
        }
    }

    /// Plays the next call.
    pub(super) fn take(&mut self, call: Call) {
        while self.open.peek().is_some_and(|Reverse(open)| open.end_ns <= call.start_ns) {
            self.end_next();
        }
        self.reach(call.start_ns);
        self.first_ns.get_or_insert(call.start_ns);
        self.last_ns = self.last_ns.max(call.start_ns);
        self.total.calls += 1;
        let cost = call.cost.unwrap_or_default();
        self.total.recorded_usd = self.total.recorded_usd.saturating_add(cost);
        match self.reserve(&call) {
            Some((held, None)) => self.begin(&call, held, call.cost),
            Some((held, Some(cheaper))) => {
                self.total.downgraded += 1;
                let saved = cost.saturating_sub(cheaper.cost).max(Usd::ZERO);
                self.total.saved_usd = self.total.saved_usd.saturating_add(saved);
                self.begin(&call, held, Some(cheaper.cost));
            }
            None => {
                self.total.refused += 1;
                self.total.refused_usd = self.total.refused_usd.saturating_add(cost);
            }
        }
    }

    /// Ends the calls that are under way.
    pub(super) fn finish(&mut self) {
        while !self.open.is_empty() {
            self.end_next();
        }
    }

    /// What it came to.
    pub(super) fn outcome<'a>(&'a self, reader: &'a Reader<'_>, top: usize) -> Outcome<'a> {
        Outcome {
            input: &reader.found,
            period: self.first_ns.map(|first| (rfc3339_micros(first), rfc3339_micros(self.last_ns))),
            total: self.total.clone(),
            budgets: self.tallies.outcome(&self.config.budgets, top),
        }
    }

    /// Lets the clock reach `ns`. While calls are under way the lease is kept, as a worker does.
    fn reach(&mut self, ns: u64) {
        let now = ns / 1_000_000_000;
        let step = (self.config.ledger.lease_secs / 3).max(1);
        while !self.open.is_empty() && self.now.saturating_add(step) < now {
            self.now += step;
            let (ledger, mut access) = self.access();
            ledger.tick(&mut access);
        }
        self.now = self.now.max(now);
    }

    fn access(&mut self) -> (&mut Ledger, Access<'_>) {
        (&mut self.ledger, Access { store: &mut self.store, now: self.now, config: &self.config.ledger })
    }

    fn begin(&mut self, call: &Call, held: Vec<Hold>, cost: Option<Usd>) {
        if held.is_empty() {
            self.total.spent_usd = self.total.spent_usd.saturating_add(cost.unwrap_or_default());
            return;
        }
        let (end_ns, tokens) = (call.end_ns.max(call.start_ns), call.tokens);
        self.open.push(Reverse(Open { end_ns, number: self.total.calls, held, cost, tokens }));
    }

    /// Ends the call under way that ends first.
    fn end_next(&mut self) {
        let Some(Reverse(open)) = self.open.pop() else { return };
        // It counts as one that is open until it is settled.
        let end_ns = open.end_ns;
        self.open.push(Reverse(open));
        self.reach(end_ns);
        let Some(Reverse(Open { held, cost, tokens, .. })) = self.open.pop() else { return };
        let unknown = held.iter().map(|hold| hold.held.amount.usd).max().unwrap_or_default();
        self.total.spent_usd = self.total.spent_usd.saturating_add(cost.unwrap_or(unknown));
        for Hold { budget: index, mut held, limits } in held {
            let Some(budget) = self.config.budgets.get(index) else { continue };
            let spent = Amount {
                usd: cost.unwrap_or(held.amount.usd),
                tokens: tokens.unwrap_or(held.amount.tokens),
                calls: held.amount.calls,
            };
            // A call that ends in another window than it began in counts in that one.
            held.account = budget.account(std::mem::take(&mut held.account.scope), self.now);
            let account = held.account.clone();
            let (ledger, mut access) = self.access();
            let settled = ledger.settle(&mut access, held, spent, &budget.alert_at, &limits);
            let event = Event::Settled { spent: &spent, settled: &settled, limits: &limits, window: account.window };
            self.tallies.add(index, &account, event);
        }
    }

    /// Holds what a call may cost, at its own model or at a cheaper one; `None`: it is refused.
    fn reserve<'a>(&mut self, call: &'a Call) -> Option<(Vec<Hold>, Option<&'a Cheaper>)> {
        let cost = call.cost.unwrap_or_default();
        let mut matches = Vec::new();
        for (index, budget) in self.config.budgets.iter().enumerate() {
            match budget.scope(&call.values, self.now) {
                Scope::Elsewhere => {}
                Scope::Account(account) => {
                    let (limits, hard_limit_usd) = budget.limits(&call.values);
                    matches.push(Match { index, budget, account, limits, hard_limit_usd });
                }
                Scope::Missing(_) => {
                    self.tallies.refuse_without_scope(index, cost, self.now);
                    if !budget.observe {
                        return None;
                    }
                }
            }
        }
        matches.sort_unstable_by_key(|own| own.account.id);
        for own in &matches {
            self.tallies.add(own.index, &own.account, Event::Call);
            if own.budget.observe
                && let Err(refused) = self.admits(own, &call.estimate)
            {
                self.observe(call, own, &refused);
            }
        }
        match self.hold_all(&matches, &call.estimate, &|own| Some(own.limits)) {
            Ok(held) => Some((held, None)),
            Err(first) => self.resolve(call, &matches, first),
        }
    }

    /// Holds `amount` in every counter, or in none.
    fn hold_all(
        &mut self,
        matches: &[Match<'_>],
        amount: &Amount,
        against: Against<'_>,
    ) -> Result<Vec<Hold>, (usize, Refused)> {
        let mut all: Vec<Hold> = Vec::with_capacity(matches.len());
        for (at, own) in matches.iter().enumerate() {
            let limits = if own.budget.observe { None } else { against(own) };
            match self.hold(own, *amount, limits.as_ref()) {
                Ok(held) => all.push(Hold { budget: own.index, held, limits: own.limits }),
                Err(_) if own.budget.observe => {}
                Err(Refused::Full) if self.config.ledger.admit_when_full => {}
                Err(Refused::Unavailable) if self.config.ledger.admit_on_contention => {}
                Err(refused) => {
                    for hold in all {
                        let (ledger, mut access) = self.access();
                        ledger.release(&mut access, hold.held);
                    }
                    return Err((at, refused));
                }
            }
        }
        Ok(all)
    }

    fn hold(&mut self, own: &Match<'_>, amount: Amount, limits: Option<&Limits>) -> Result<Held, Refused> {
        let (ledger, mut access) = self.access();
        ledger.reserve(&mut access, &own.account, amount, limits)
    }

    fn admits(&mut self, own: &Match<'_>, amount: &Amount) -> Result<(), Refused> {
        let (ledger, mut access) = self.access();
        let standing = ledger.standing(&mut access, &own.account)?;
        own.limits.admit(&standing, amount)
    }

    /// Counts what a budget that only observes would have done.
    fn observe(&mut self, call: &Call, own: &Match<'_>, refused: &Refused) {
        let event = match (own.budget.action(call.writes), &call.cheaper) {
            (Action::Allow, _) => Event::PassedOver,
            (Action::Downgrade, Some(cheaper)) => downgraded(call, cheaper),
            (Action::Downgrade | Action::Block, _) => self.refused(call, refused),
        };
        self.tallies.add(own.index, &own.account, event);
    }

    /// Decides about a call that did not fit: `first` is the first budget that said so.
    fn resolve<'a>(
        &mut self,
        call: &'a Call,
        matches: &[Match<'_>],
        first: (usize, Refused),
    ) -> Option<(Vec<Hold>, Option<&'a Cheaper>)> {
        let misfits = self.misfits(call, matches, first);
        let rank = |(_, refused, action): &&(usize, Refused, Action)| (*action, !matches!(refused, Refused::Busy(_)));
        let (worst, refused, action) = misfits.iter().max_by_key(rank)?;
        let does = |own: &Match<'_>, wanted: Action| {
            let own = |at: usize| matches.get(at).is_some_and(|other| other.index == own.index);
            misfits.iter().any(|(at, _, action)| own(*at) && *action == wanted)
        };
        let unlimited = |own: &Match<'_>| (!does(own, Action::Allow)).then_some(own.limits);
        let raised = |own: &Match<'_>| {
            let hard = own.hard_limit_usd.filter(|_| does(own, Action::Downgrade));
            unlimited(own).map(|limits| Limits { usd: hard.or(limits.usd), ..limits })
        };
        let cheaper = call.cheaper.as_deref();
        let held = match (action, cheaper) {
            (Action::Allow, _) => self.hold_all(matches, &call.estimate, &unlimited),
            (Action::Downgrade, Some(cheaper)) => self.hold_all(matches, &cheaper.estimate, &raised),
            (Action::Downgrade, None) | (Action::Block, _) => Err((*worst, refused.clone())),
        };
        match held {
            Ok(held) => {
                for (at, _, _) in misfits.iter().filter(|(_, _, own)| *own == Action::Allow) {
                    self.count(matches, *at, Event::PassedOver);
                }
                let cheaper = cheaper.filter(|_| *action == Action::Downgrade);
                if let Some(cheaper) = cheaper {
                    self.count(matches, *worst, downgraded(call, cheaper));
                }
                Some((held, cheaper))
            }
            Err((at, refused)) => {
                let event = self.refused(call, &refused);
                self.count(matches, at, event);
                None
            }
        }
    }

    /// Every budget with consequences that the call does not fit into, and what each does about it.
    fn misfits(
        &mut self,
        call: &Call,
        matches: &[Match<'_>],
        (first, refused): (usize, Refused),
    ) -> Vec<(usize, Refused, Action)> {
        let mut misfits = Vec::new();
        for (at, own) in matches.iter().enumerate().filter(|(_, own)| !own.budget.observe) {
            let admitted = if at == first { Err(refused.clone()) } else { self.admits(own, &call.estimate) };
            if let Err(refused) = admitted {
                let decides = matches!(refused, Refused::Exceeded(_) | Refused::Busy(_));
                let action = if decides { own.budget.action(call.writes) } else { Action::Block };
                misfits.push((at, refused, action));
            }
        }
        misfits
    }

    fn refused(&self, call: &Call, refused: &Refused) -> Event<'static> {
        let busy = matches!(refused, Refused::Busy(_));
        Event::Refused { busy, cost: call.cost.unwrap_or_default(), at: self.now }
    }

    fn count(&mut self, matches: &[Match<'_>], at: usize, event: Event<'_>) {
        if let Some(own) = matches.get(at) {
            self.tallies.add(own.index, &own.account, event);
        }
    }
}

fn downgraded(call: &Call, cheaper: &Cheaper) -> Event<'static> {
    Event::Downgraded { saved: call.cost.unwrap_or_default().saturating_sub(cheaper.cost).max(Usd::ZERO) }
}
