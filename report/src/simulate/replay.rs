//! Plays calls against budgets.
//!
//! The ledger, the windows, the limits and the decision about each call are the filter's own, on a store in memory.

use super::calls::{Call, Cheaper, Reader};
use super::tally::{Event, Outcome, Tallies, Total};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use tollgate::budget::decision::{Decision, Governor, Instead, Matches, Misfit, Request};
use tollgate::budget::ledger::{Access, Held, Ledger, Refused};
use tollgate::budget::{Action, Amount, Limits};
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
                self.total.saved_usd = self.total.saved_usd.saturating_add(saved(&call, cheaper));
                self.begin(&call, held, cheaper.cost);
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
            budget.renew(&mut held.account, self.now);
            let account = held.account.clone();
            let (ledger, mut access) = self.access();
            let Ok(settled) = ledger.settle(&mut access, held, spent, &budget.alert_at, &limits) else { continue };
            let event = Event::Settled { spent: &spent, settled: &settled, limits: &limits, window: account.window };
            self.tallies.add(index, &account, event);
        }
    }

    /// Holds what a call may cost, at its own model or at a cheaper one; `None`: it is refused.
    fn reserve<'a>(&mut self, call: &'a Call) -> Option<(Vec<Hold>, Option<&'a Cheaper>)> {
        let config = self.config;
        let matches = Matches::of(&config.budgets, &call.values, &mut Vec::new(), self.now);
        for (index, _, _) in &matches.missing {
            self.tallies.refuse_without_scope(*index, call.cost.unwrap_or_default(), self.now);
        }
        let lacks_value = matches.refused().is_some();
        let matches = matches.counted;
        let request = Request { writes: call.writes, amount: call.estimate };
        // What is refused already is shown to those that only observe.
        for own in matches.iter().filter(|own| own.budget.observe || !lacks_value) {
            self.tallies.add(own.index, &own.account, Event::Call);
            if own.budget.observe
                && let Some(misfit) = Governor::new(self.access()).misfit(own, &request)
            {
                self.observe(call, &misfit);
            }
        }
        if lacks_value {
            return None;
        }
        let Decision { misfits, by, outcome } =
            Governor::new(self.access()).decide(&matches, &request, |_| match &call.cheaper {
                Some(cheaper) => Instead::Cheaper(&**cheaper, cheaper.estimate),
                None if call.passes_signed => Instead::AsItIs,
                None => Instead::Nowhere,
            });
        match outcome {
            Ok((holds, cheaper)) => {
                let passed = |misfit: &&Misfit<'_, '_>| misfit.action == Action::Allow || cheaper.is_none();
                for Misfit { by, .. } in misfits.iter().filter(passed) {
                    self.tallies.add(by.index, &by.account, Event::PassedOver);
                }
                if let (Some(by), Some(cheaper)) = (by, cheaper) {
                    self.tallies.add(by.index, &by.account, downgraded(call, cheaper));
                }
                let limits = |index| matches.iter().find(|own| own.index == index).map(|own| own.limits);
                let hold = |(budget, held)| Some(Hold { budget, held, limits: limits(budget)? });
                Some((holds.held.into_iter().filter_map(hold).collect(), cheaper))
            }
            Err((by, refused)) => {
                self.tallies.add(by.index, &by.account, self.refused(call, &refused));
                None
            }
        }
    }

    /// Counts what a budget that only observes would have done.
    fn observe(&mut self, call: &Call, Misfit { by, action, refused }: &Misfit<'_, '_>) {
        let event = match (action, &call.cheaper) {
            (Action::Allow, _) => Event::PassedOver,
            (Action::Downgrade, Some(cheaper)) => downgraded(call, cheaper),
            (Action::Downgrade, None) if call.passes_signed => Event::PassedOver,
            (Action::Downgrade | Action::Block, _) => self.refused(call, refused),
        };
        self.tallies.add(by.index, &by.account, event);
    }

    fn refused(&self, call: &Call, refused: &Refused) -> Event<'static> {
        let busy = matches!(refused, Refused::Busy(_));
        Event::Refused { busy, cost: call.cost.unwrap_or_default(), at: self.now }
    }
}

fn downgraded(call: &Call, cheaper: &Cheaper) -> Event<'static> {
    Event::Downgraded { saved: saved(call, cheaper) }
}

/// How much less a call costs at the cheaper model, where that is known.
fn saved(call: &Call, cheaper: &Cheaper) -> Usd {
    let saved = call.cost.zip(cheaper.cost).map(|(here, there)| here.saturating_sub(there).max(Usd::ZERO));
    saved.unwrap_or_default()
}
