//! Budgets: how much may be spent by whom in which period.
//!
//! A [`Budget`] says which calls count against it, which of them share a counter, and its limits. Its counters live in the
//! [`ledger`], in the store that all workers of one Envoy share: a call holds the most it may cost before it leaves
//! and settles what it did cost at its end. [`window`] computes periods from the clock.

pub mod codec;
pub mod decision;
pub mod ledger;
pub mod recent;
pub mod window;
pub mod zone;

use crate::glob::Glob;
use crate::money::Usd;
use codec::CounterId;
use ledger::{Account, Refused, Standing};
use recent::Recent;
use sha2::{Digest, Sha256};
use std::rc::Rc;
use window::{Calendar, LastSpan, Span};

/// Something spent or held: dollars, tokens and calls together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// Dollars; never below zero.
    pub usd: Usd,
    /// Input and output tokens.
    pub tokens: u64,
    /// Calls.
    pub calls: u64,
}

impl Amount {
    /// The least that there has to be left of a limit: what is used up takes no call more, not even a free one. So it is
    /// refused for its headers, before anybody knows what it costs.
    const LEAST: Amount = Amount { usd: Usd::from_pico(1), tokens: 1, calls: 1 };

    /// Both together.
    #[must_use]
    pub fn plus(&self, other: &Amount) -> Amount {
        Amount {
            usd: self.usd.saturating_add(other.usd),
            tokens: self.tokens.saturating_add(other.tokens),
            calls: self.calls.saturating_add(other.calls),
        }
    }

    /// The larger of both, each thing by itself.
    #[must_use]
    pub fn max(&self, other: &Amount) -> Amount {
        Amount {
            usd: self.usd.max(other.usd),
            tokens: self.tokens.max(other.tokens),
            calls: self.calls.max(other.calls),
        }
    }

    /// What is left without `other`; nothing is below zero.
    #[must_use]
    pub fn minus(&self, other: &Amount) -> Amount {
        Amount {
            usd: Usd::from_pico(self.usd.pico().saturating_sub(other.usd.pico()).max(0)),
            tokens: self.tokens.saturating_sub(other.tokens),
            calls: self.calls.saturating_sub(other.calls),
        }
    }

    /// Whether it is nothing.
    pub fn is_zero(&self) -> bool {
        *self == Amount::default()
    }
}

/// The limits of one counter; what is not limited is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Dollars.
    pub usd: Option<Usd>,
    /// Input and output tokens.
    pub tokens: Option<u64>,
    /// Calls.
    pub calls: Option<u64>,
}

impl Limits {
    /// The same, raised by what was granted.
    #[must_use]
    pub fn with(&self, granted: &Amount) -> Limits {
        Limits {
            usd: self.usd.map(|usd| usd.saturating_add(granted.usd)),
            tokens: self.tokens.map(|tokens| tokens.saturating_add(granted.tokens)),
            calls: self.calls.map(|calls| calls.saturating_add(granted.calls)),
        }
    }

    /// Whether there is a limit for every kind of thing in `amount`.
    pub fn take(&self, amount: &Amount) -> bool {
        (amount.usd == Usd::ZERO || self.usd.is_some())
            && (amount.tokens == 0 || self.tokens.is_some())
            && (amount.calls == 0 || self.calls.is_some())
    }

    fn leave_room_for(&self, total: &Amount) -> bool {
        self.usd.is_none_or(|limit| total.usd <= limit)
            && self.tokens.is_none_or(|limit| total.tokens <= limit)
            && self.calls.is_none_or(|limit| total.calls <= limit)
    }

    /// Whether `amount` fits beside what is spent and held.
    ///
    /// # Errors
    /// [`Refused::Exceeded`] where it does not fit beside what is spent, [`Refused::Busy`] where only holds stand in the
    /// way.
    pub fn admit(&self, standing: &Standing, amount: &Amount) -> Result<(), Refused> {
        let limits = self.with(&standing.granted);
        if !limits.leave_room_for(&standing.spent.plus(&amount.max(&Amount::LEAST))) {
            Err(Refused::Exceeded(standing.clone().into()))
        } else if !limits.leave_room_for(&standing.spent.plus(amount).plus(&standing.held)) {
            Err(Refused::Busy(standing.clone().into()))
        } else {
            Ok(())
        }
    }

    /// How much of the limits is `spent`, in whole percent, by the limit that is nearest.
    pub fn percent_of(&self, spent: &Amount) -> u32 {
        let part = |spent: i128, limit: i128| {
            let percent = if limit <= 0 { i128::from(spent > 0) * 100 } else { spent.saturating_mul(100) / limit };
            u32::try_from(percent).unwrap_or(u32::MAX)
        };
        let usd = self.usd.map(|limit| part(spent.usd.pico(), limit.pico()));
        let tokens = self.tokens.map(|limit| part(spent.tokens.into(), limit.into()));
        let calls = self.calls.map(|limit| part(spent.calls.into(), limit.into()));
        usd.max(tokens).max(calls).unwrap_or(0)
    }
}

/// What a budget may look at in a call: a dimension's name, `tags.<name>`, `model`, `provider` or `api_key`.
pub type Key = Rc<str>;

/// The values of a scope, by what the budget is kept by.
pub type Values = Rc<[(Key, Box<str>)]>;

/// A condition on one value of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// Which value.
    pub key: Key,
    /// Any of these.
    pub patterns: Box<[Glob]>,
}

/// What a call that lacks a value of its scope means to a budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenMissing {
    /// All such calls share a counter.
    Share,
    /// The budget does not apply.
    Skip,
    /// The call is refused.
    Refuse,
}

/// What becomes of a call that does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// It passes.
    Allow,
    /// It goes to a cheaper model.
    Downgrade,
    /// It is refused.
    Block,
}

/// Other limits for some scopes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Override {
    /// Which.
    pub conditions: Box<[Condition]>,
    /// Those limits.
    pub limits: Limits,
    /// The dollars downgraded calls may go up to.
    pub hard_limit_usd: Option<Usd>,
}

/// One budget.
#[derive(Clone, Debug)]
pub struct Budget {
    /// Its name, unique.
    pub name: Box<str>,
    /// Which calls count against it: those that meet all.
    pub conditions: Box<[Condition]>,
    /// One counter for each distinct combination of these values.
    pub per: Box<[Key]>,
    /// What a call without one of them means.
    pub when_missing: WhenMissing,
    /// How much may be spent.
    pub limits: Limits,
    /// The dollars downgraded calls may go up to.
    pub hard_limit_usd: Option<Usd>,
    /// Other limits for some scopes; the first that fits counts.
    pub overrides: Box<[Override]>,
    /// For which period.
    pub calendar: Calendar,
    /// Name of its time zone.
    pub timezone: Box<str>,
    /// How long a scope of a lifetime budget is remembered after its last use, in seconds.
    pub idle_ttl_secs: Option<u64>,
    /// Percentages of a limit at which to alert, ascending.
    pub alert_at: Box<[u32]>,
    /// What becomes of calls that write and do not fit.
    pub on_exceeded_write: Action,
    /// What becomes of calls that only read and do not fit.
    pub on_exceeded_read: Action,
    /// Only tell what would be done.
    pub observe: bool,
    /// The period of the last call.
    pub last_span: LastSpan,
    /// The scopes of the last calls.
    pub recent: Recent,
}

/// The values of a call by the names that budgets use.
pub trait Subject {
    /// The value of `key`, where the call has one.
    fn value(&self, key: &str) -> Option<&str>;
}

/// How a budget takes a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// It counts here.
    Account(Account),
    /// It does not count.
    Elsewhere,
    /// It lacks this value, and is refused for it.
    Missing(Key),
}

impl Condition {
    /// The value that every call has which meets it, where there is only one.
    pub fn only_value(&self) -> Option<&str> {
        match &*self.patterns {
            [pattern] if !pattern.is_wild() => Some(pattern.as_str()),
            _ => None,
        }
    }

    fn holds(&self, subject: &dyn Subject) -> bool {
        subject.value(&self.key).is_some_and(|value| self.patterns.iter().any(|pattern| pattern.matches(value)))
    }
}

impl Budget {
    /// Whether a call counts against it.
    pub fn applies(&self, subject: &dyn Subject) -> bool {
        self.conditions.iter().all(|condition| condition.holds(subject))
    }

    /// Whether a call of which only the headers are known may count against it; `late` says which values its body may
    /// still bring.
    pub fn may_apply(&self, subject: &dyn Subject, late: &dyn Fn(&str) -> bool) -> bool {
        let open = |key: &Key| late(key);
        let missing = |key: &Key| !open(key) && subject.value(key).is_none();
        let skips = self.when_missing == WhenMissing::Skip && self.per.iter().any(missing);
        !skips && self.conditions.iter().all(|condition| open(&condition.key) || condition.holds(subject))
    }

    /// Whether a call's headers say all that it looks at.
    pub fn is_decided_by_headers(&self, late: &dyn Fn(&str) -> bool) -> bool {
        let overrides = self.overrides.iter().flat_map(|other| &other.conditions);
        let keys = self.conditions.iter().chain(overrides).map(|condition| &condition.key).chain(&self.per);
        keys.into_iter().all(|key| !late(key))
    }

    /// The counter of a call at `unix_seconds`.
    pub fn scope(&self, subject: &dyn Subject, unix_seconds: u64) -> Scope {
        if !self.applies(subject) {
            return Scope::Elsewhere;
        }
        let mut values = Vec::with_capacity(self.per.len());
        for key in &self.per {
            match (subject.value(key), self.when_missing) {
                (Some(value), _) => values.push(value),
                (None, WhenMissing::Share) => values.push(""),
                (None, WhenMissing::Skip) => return Scope::Elsewhere,
                (None, WhenMissing::Refuse) => return Scope::Missing(key.clone()),
            }
        }
        let (scope, id) = self.recent.find(&values, || {
            let scope: Values = self.per.iter().cloned().zip(values.iter().map(|&value| value.into())).collect();
            let id = self.counter_id(&scope);
            (scope, id)
        });
        Scope::Account(self.account_of(scope, id, unix_seconds))
    }

    /// Brings an account of this budget to the window of `unix_seconds`.
    pub fn renew(&self, account: &mut Account, unix_seconds: u64) {
        let Span { start, end } = self.last_span.of(&self.calendar, unix_seconds);
        account.window = start;
        account.window_end = end;
    }

    /// The counter of a scope at `unix_seconds`.
    pub fn account(&self, scope: Values, unix_seconds: u64) -> Account {
        let id = self.counter_id(&scope);
        self.account_of(scope, id, unix_seconds)
    }

    fn account_of(&self, scope: Values, id: CounterId, unix_seconds: u64) -> Account {
        let Span { start, end } = self.last_span.of(&self.calendar, unix_seconds);
        Account {
            id,
            budget: (&*self.name).into(),
            scope,
            window: start,
            window_end: end,
            idle_ttl_secs: self.idle_ttl_secs,
        }
    }

    /// A counter is the same as long as budget name, scope, window and time zone are; its limits are no part of it.
    pub(crate) fn counter_id(&self, scope: &[(Key, Box<str>)]) -> CounterId {
        let mut hash = Sha256::new();
        let mut part = |text: &str| {
            hash.update(text.len().to_be_bytes());
            hash.update(text);
        };
        part(&self.name);
        part(self.calendar.window.name());
        part(&self.timezone);
        for (key, value) in scope {
            part(key);
            part(value);
        }
        hash.update([self.calendar.starts_on]);
        hash.finalize().first_chunk().copied().unwrap_or_default()
    }

    /// The limits of a call's counter, and the dollars downgraded calls may go up to.
    pub fn limits(&self, subject: &dyn Subject) -> (Limits, Option<Usd>) {
        let fits = |other: &&Override| other.conditions.iter().all(|condition| condition.holds(subject));
        match self.overrides.iter().find(fits) {
            Some(other) => (other.limits, other.hard_limit_usd),
            None => (self.limits, self.hard_limit_usd),
        }
    }

    /// Whether calls that do not fit may go to cheaper models.
    pub fn downgrades(&self) -> bool {
        [self.on_exceeded_write, self.on_exceeded_read].contains(&Action::Downgrade)
    }

    /// What becomes of a call that does not fit.
    pub fn action(&self, writes: bool) -> Action {
        if writes { self.on_exceeded_write } else { self.on_exceeded_read }
    }
}
