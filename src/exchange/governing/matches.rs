//! The budgets that a call counts against. Those that its headers decide are worked out and looked at when the headers
//! come; that is kept until the body is there, for nothing that it depends on can change.

use super::super::call::Call;
use crate::budget::ledger::{Account, Seen};
use crate::budget::{Budget, Limits};
use crate::money::Usd;
use std::cell::Cell;

/// A budget that a call counts against.
pub(super) struct Match<'c> {
    pub(super) index: usize,
    pub(super) budget: &'c Budget,
    pub(super) account: Account,
    pub(super) limits: Limits,
    pub(super) hard_limit_usd: Option<Usd>,
    /// Its counter, where that was read for the headers: good for one try to hold.
    pub(super) seen: Cell<Option<Seen>>,
}

/// What is kept of one until the body has come.
#[derive(Debug)]
pub(super) struct Known {
    index: usize,
    account: Account,
    limits: Limits,
    hard_limit_usd: Option<Usd>,
    seen: Option<Seen>,
}

impl<'c> Match<'c> {
    /// What it is to `call`.
    pub(super) fn new(index: usize, budget: &'c Budget, account: Account, call: &Call) -> Match<'c> {
        let (limits, hard_limit_usd) = budget.limits(call);
        Match { index, budget, account, limits, hard_limit_usd, seen: Cell::default() }
    }

    /// The limits for a call that was downgraded.
    pub(super) fn raised(&self) -> Limits {
        Limits { usd: self.hard_limit_usd.or(self.limits.usd), ..self.limits }
    }

    /// It, for when the body has come.
    pub(super) fn known(&self, seen: Option<Seen>) -> Known {
        let (account, limits, hard_limit_usd) = (self.account.clone(), self.limits, self.hard_limit_usd);
        Known { index: self.index, account, limits, hard_limit_usd, seen }
    }
}

/// Takes what is known of the budget at `index` out of `known`, for a later time than it was worked out at.
pub(super) fn take<'c>(known: &mut Vec<Known>, index: usize, budget: &'c Budget, now: u64) -> Option<Match<'c>> {
    let place = known.iter().position(|own| own.index == index)?;
    let Known { mut account, limits, hard_limit_usd, seen, .. } = known.swap_remove(place);
    budget.renew(&mut account, now);
    Some(Match { index, budget, account, limits, hard_limit_usd, seen: Cell::new(seen) })
}
