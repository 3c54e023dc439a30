//! The budgets that a call counts against. Those that its headers decide are worked out and looked at when the headers
//! come; that is kept until the body is there, for nothing that it depends on can change.

use crate::budget::ledger::{Account, Seen, Standing};
use crate::budget::{Action, Budget, Key, Limits, Scope, Subject};
use crate::money::Usd;
use std::cell::Cell;

/// A budget that a call counts against.
pub struct Match<'c> {
    /// Its place in the configuration.
    pub index: usize,
    /// Which.
    pub budget: &'c Budget,
    /// The call's counter.
    pub account: Account,
    /// The limits of that.
    pub limits: Limits,
    /// The dollars downgraded calls may go up to.
    pub hard_limit_usd: Option<Usd>,
    /// Its counter, where that was read for the headers: good for one try to hold.
    pub(super) seen: Cell<Option<Seen>>,
}

/// What is kept of one until the body has come.
#[derive(Debug)]
pub struct Known {
    index: usize,
    account: Account,
    limits: Limits,
    hard_limit_usd: Option<Usd>,
    seen: Option<Seen>,
    /// How its counter stood.
    standing: Standing,
    /// When, in seconds since 1970.
    at: u64,
}

/// How all budgets take a call.
pub struct Matches<'c> {
    /// Those it counts against, in the order in which their counters are held: the same for all calls.
    pub counted: Vec<Match<'c>>,
    /// Those that refuse it for a value that it lacks: all that only observe, and the first that does not.
    pub missing: Vec<(usize, &'c Budget, Key)>,
}

impl<'c> Match<'c> {
    /// What it is to a call.
    pub fn new(index: usize, budget: &'c Budget, account: Account, call: &dyn Subject) -> Match<'c> {
        let (limits, hard_limit_usd) = budget.limits(call);
        Match { index, budget, account, limits, hard_limit_usd, seen: Cell::default() }
    }

    /// The limits for a call that was downgraded.
    fn raised(&self) -> Limits {
        Limits { usd: self.hard_limit_usd.or(self.limits.usd), ..self.limits }
    }

    /// The limits for a call that goes on in spite of some: each budget's own action says how far; `None`: in any case.
    /// One that only observes is asked about its own.
    pub fn against(&self, writes: bool) -> Option<Limits> {
        match self.budget.action(writes) {
            _ if self.budget.observe => Some(self.limits),
            Action::Allow => None,
            Action::Downgrade => Some(self.raised()),
            Action::Block => Some(self.limits),
        }
    }

    /// The limits for a call about which the budget does `action`.
    pub fn limits_of(&self, action: Action, writes: bool) -> Option<Limits> {
        (self.budget.action(writes) == action).then_some(self.limits)
    }

    /// When its window ends; one that never does is the last.
    pub fn resets(&self) -> u64 {
        self.account.window_end.unwrap_or(u64::MAX)
    }

    /// It, for when the body has come.
    pub fn known(&self, (standing, seen): (Standing, Option<Seen>), at: u64) -> Known {
        let (account, limits, hard_limit_usd) = (self.account.clone(), self.limits, self.hard_limit_usd);
        Known { index: self.index, account, limits, hard_limit_usd, seen, standing, at }
    }
}

impl Known {
    /// Whether it is the budget's at this place.
    pub fn is_of(&self, index: usize) -> bool {
        self.index == index
    }

    /// How its counter stands, where it was looked at in the second `now`.
    pub fn standing(&self, now: u64) -> Option<&Standing> {
        (self.at == now).then_some(&self.standing)
    }
}

impl<'c> Matches<'c> {
    /// How `budgets` take `call`. What is `known` of some from its headers is taken out.
    pub fn of(budgets: &'c [Budget], call: &dyn Subject, known: &mut Vec<Known>, now: u64) -> Matches<'c> {
        let mut matches = Matches { counted: Vec::with_capacity(budgets.len()), missing: Vec::new() };
        for (index, budget) in budgets.iter().enumerate() {
            if let Some(own) = take(known, index, budget, now) {
                matches.counted.push(own);
                continue;
            }
            match budget.scope(call, now) {
                Scope::Elsewhere => {}
                Scope::Account(account) => matches.counted.push(Match::new(index, budget, account, call)),
                Scope::Missing(_) if !budget.observe && matches.refused().is_some() => {}
                Scope::Missing(key) => matches.missing.push((index, budget, key)),
            }
        }
        // Those that only observe come first: what they would do is told whoever refuses the call.
        matches.counted.sort_unstable_by_key(|own| (!own.budget.observe, own.account.id));
        matches
    }

    /// The budget that refuses the call for a value that it lacks.
    pub fn refused(&self) -> Option<(&'c Budget, &Key)> {
        self.missing.iter().find(|(_, budget, _)| !budget.observe).map(|(_, budget, key)| (*budget, key))
    }
}

/// Takes what is known of the budget at `index` out of `known`, for a later time than it was worked out at.
fn take<'c>(known: &mut Vec<Known>, index: usize, budget: &'c Budget, now: u64) -> Option<Match<'c>> {
    let place = known.iter().position(|own| own.index == index)?;
    let Known { mut account, limits, hard_limit_usd, seen, .. } = known.swap_remove(place);
    budget.renew(&mut account, now);
    Some(Match { index, budget, account, limits, hard_limit_usd, seen: Cell::new(seen) })
}
