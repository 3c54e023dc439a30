//! What budgets decide about a call, for whoever has calls: the filter, and the command that plays recorded ones.
//!
//! Every budget that a call counts against holds the most the call may cost, in a fixed order of counters; the call goes on
//! only when all of them do, else what was held is given back. Where one does not fit, the strictest action of those
//! that do not decides: block over downgrade over allow.

mod matches;

pub use matches::{Known, Match, Matches};

use super::ledger::{Access, Held, Ledger, Refused, Standing};
use super::{Action, Amount, Limits};
use crate::money::Usd;
use crate::record::{self, Text};

/// What is noted of a call that a budget has no room to count.
pub const LEDGER_FULL: &str = "ledger_full";

/// What a decision depends on, of the call itself.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// It is made by an agent that writes.
    pub writes: bool,
    /// The most it may cost.
    pub amount: Amount,
}

/// Where a call may go that has to cost less.
pub enum Instead<T> {
    /// To a cheaper model, where it costs no more than this.
    Cheaper(T, Amount),
    /// Nowhere else, and a signature that must not be broken lets it pass as one that was downgraded.
    AsItIs,
    /// Nowhere.
    Nowhere,
}

/// What a call holds.
#[derive(Debug, Default)]
pub struct Holds {
    /// By index of the budget.
    pub held: Vec<(usize, Held)>,
    /// The least that any budget with consequences has left, in dollars.
    pub remaining_usd: Option<Usd>,
}

/// A budget that a call does not fit into.
pub struct Misfit<'m, 'c> {
    /// Which.
    pub by: &'m Match<'c>,
    /// What it does about it.
    pub action: Action,
    /// Why the call does not fit.
    pub refused: Refused,
}

/// What became of a call.
pub struct Decision<'m, 'c, T> {
    /// The budgets with consequences that it did not fit into at its own model.
    pub misfits: Vec<Misfit<'m, 'c>>,
    /// The one of them that decided.
    pub by: Option<&'m Match<'c>>,
    /// What it holds, and the model it goes to instead of its own; or the budget that refuses it.
    pub outcome: Result<(Holds, Option<T>), (&'m Match<'c>, Refused)>,
}

/// What there is to tell of a decision besides its outcome.
#[derive(Debug, Default)]
pub struct Told {
    /// What a budget that only observes would have done, the strictest of all, and which.
    pub would: Option<(Action, Box<str>)>,
    /// Notes for the record.
    pub notes: Vec<Text>,
}

/// A decision under way.
pub struct Governor<'g> {
    ledger: &'g mut Ledger,
    access: Access<'g>,
    /// What there is to tell so far.
    pub told: Told,
}

impl<'m, 'c> Misfit<'m, 'c> {
    /// What the budget does about a call that it refuses.
    pub fn new(by: &'m Match<'c>, refused: Refused, writes: bool) -> Misfit<'m, 'c> {
        let action = if refused.is_for_room() { by.budget.action(writes) } else { Action::Block };
        Misfit { by, action, refused }
    }

    /// The strictest counts; of those, one that has too little left even without what others hold; of those, the one
    /// that the caller has to wait for longest.
    pub fn rank(&self) -> (Action, bool, u64) {
        (self.action, self.refused.lasts(), self.by.resets())
    }
}

impl<'g> Governor<'g> {
    /// One that counts in `ledger`.
    pub fn new((ledger, access): (&'g mut Ledger, Access<'g>)) -> Governor<'g> {
        Governor { ledger, access, told: Told::default() }
    }

    /// Decides about a call that counts against `matches`. Only if it has to cost less is asked where it may go `instead`.
    pub fn decide<'m, 'c, T>(
        &mut self,
        matches: &'m [Match<'c>],
        request: &Request,
        instead: impl FnOnce(&mut Told) -> Instead<T>,
    ) -> Decision<'m, 'c, T> {
        match self.hold_all(matches, request, &|own| Some(own.limits)) {
            Ok(holds) => Decision { misfits: Vec::new(), by: None, outcome: Ok((holds, None)) },
            Err(first) => self.resolve(matches, request, first, instead),
        }
    }

    /// Holds the most a call may cost in every counter, or in none. `limits` says against what; `None`: in any case.
    ///
    /// # Errors
    /// The first budget that has no room, and why.
    pub fn hold_all<'m, 'c>(
        &mut self,
        matches: &'m [Match<'c>],
        request: &Request,
        limits: &dyn Fn(&Match<'_>) -> Option<Limits>,
    ) -> Result<Holds, (&'m Match<'c>, Refused)> {
        let mut held = Vec::with_capacity(matches.len());
        let mut remaining: Option<Usd> = None;
        for own in matches {
            let against = limits(own);
            let mut result = self.hold(own, request.amount, against.as_ref());
            if own.budget.observe
                && let Err(refused) = &result
                && refused.is_for_room()
            {
                self.told.would_do(own.budget.action(request.writes), own);
                result = self.hold(own, request.amount, None);
            }
            match result {
                Ok(hold) => {
                    let standing = &hold.standing;
                    let limit = own.limits.with(&standing.granted).usd;
                    let left = limit.map(|limit| limit.saturating_sub(standing.spent.plus(&standing.held).usd));
                    remaining = left.filter(|_| !own.budget.observe).into_iter().chain(remaining).min();
                    held.push((own.index, hold));
                }
                Err(refused) => {
                    if let Some(note) = self.passes_unheld(own, &refused) {
                        self.told.note(note);
                        held.push((own.index, Held::unheld(own.account.clone(), request.amount)));
                        continue;
                    }
                    for (_, hold) in held {
                        self.ledger.release(&mut self.access, hold);
                    }
                    return Err((own, refused));
                }
            }
        }
        Ok(Holds { held, remaining_usd: remaining })
    }

    /// Tells what the budgets that only observe would do about a call that is refused before it holds anything.
    pub fn watch(&mut self, matches: &[Match<'_>], request: &Request) {
        for own in matches.iter().filter(|own| own.budget.observe) {
            if let Some(misfit) = self.misfit(own, request).filter(|misfit| misfit.refused.is_for_room()) {
                self.told.would_do(misfit.action, own);
            }
        }
    }

    /// Why a call does not fit into a budget as that stands, and what the budget does about it; `None` where it fits.
    pub fn misfit<'m, 'c>(&mut self, by: &'m Match<'c>, request: &Request) -> Option<Misfit<'m, 'c>> {
        let admitted = self.standing(by).and_then(|standing| by.limits.admit(&standing, &request.amount));
        admitted.err().map(|refused| Misfit::new(by, refused, request.writes))
    }

    /// How a call's counter stands.
    ///
    /// # Errors
    /// As [`Ledger::standing`].
    pub fn standing(&mut self, own: &Match<'_>) -> Result<Standing, Refused> {
        self.ledger.standing(&mut self.access, &own.account)
    }

    /// What to note of a call that passes although the ledger can't hold it.
    fn passes_unheld(&self, own: &Match<'_>, refused: &Refused) -> Option<&'static str> {
        let (admits, note) = match refused {
            Refused::Full => (self.access.config.admit_when_full, LEDGER_FULL),
            Refused::Unavailable => (self.access.config.admit_on_contention, "ledger_unavailable"),
            Refused::Exceeded(_) | Refused::Busy(_) => return None,
        };
        (admits || own.budget.observe).then_some(note)
    }

    fn hold(&mut self, own: &Match<'_>, amount: Amount, limits: Option<&Limits>) -> Result<Held, Refused> {
        self.ledger.reserve_seen(&mut self.access, &own.account, amount, limits, own.seen.take())
    }

    /// Decides about a call that did not fit: `first` is the first budget that said so.
    fn resolve<'m, 'c, T>(
        &mut self,
        matches: &'m [Match<'c>],
        request: &Request,
        (first, refused): (&'m Match<'c>, Refused),
        instead: impl FnOnce(&mut Told) -> Instead<T>,
    ) -> Decision<'m, 'c, T> {
        let mut misfits = Vec::new();
        for by in matches.iter().filter(|own| !own.budget.observe) {
            let misfit = if by.index == first.index {
                Some(Misfit::new(by, refused.clone(), request.writes))
            } else {
                self.misfit(by, request)
            };
            misfits.extend(misfit);
        }
        let worst = misfits.iter().max_by_key(|misfit| misfit.rank());
        let (by, action, refused) =
            worst.map_or((first, Action::Block, refused), |worst| (worst.by, worst.action, worst.refused.clone()));
        // Each by its own action, also where it has room now: others may take that on the way.
        let unlimited = |own: &Match<'_>| (own.budget.action(request.writes) != Action::Allow).then_some(own.limits);
        let raised = |own: &Match<'_>| own.against(request.writes);
        let as_it_is = |holds: Holds| (holds, None);
        let outcome = match action {
            Action::Block => Err((by, refused)),
            Action::Allow => self.hold_all(matches, request, &unlimited).map(as_it_is),
            Action::Downgrade => match instead(&mut self.told) {
                Instead::Cheaper(target, amount) => {
                    let cheaper = Request { amount, ..*request };
                    self.hold_all(matches, &cheaper, &raised).map(|holds| (holds, Some(target)))
                }
                Instead::AsItIs => {
                    // Policy prefers a dearer call, up to where downgraded ones may go, to one whose signature is broken.
                    self.told.note("downgrade_signed");
                    self.hold_all(matches, request, &raised).map(as_it_is)
                }
                Instead::Nowhere => {
                    self.told.note("no_downgrade");
                    Err((by, refused))
                }
            },
        };
        Decision { by: Some(by), misfits, outcome }
    }
}

impl Told {
    /// Adds a note, once.
    pub fn note(&mut self, note: &str) {
        record::note(&mut self.notes, note);
    }

    /// Remembers what a budget that only observes would have done, unless another would have done as much.
    fn would_do(&mut self, action: Action, own: &Match<'_>) {
        if self.would.as_ref().is_none_or(|(other, _)| action > *other) {
            self.would = Some((action, own.budget.name.clone()));
        }
    }
}
