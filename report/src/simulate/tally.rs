//! What came of the calls, by budget and scope.

use super::calls::Found;
use serde::{Serialize, Serializer};
use std::collections::{BTreeMap, HashMap};
use tollgate::budget::codec::CounterId;
use tollgate::budget::ledger::{Account, Settled};
use tollgate::budget::{Amount, Budget, Limits, Values};
use tollgate::money::Usd;
use tollgate::time::rfc3339_seconds;

/// Scopes that are told apart; the calls of all others count for their budget only.
const MAX_SCOPES: usize = 100_000;

/// Everything a replay came to.
#[derive(Debug, Serialize)]
pub(super) struct Outcome<'a> {
    /// What was read.
    #[serde(rename = "records")]
    pub(super) input: &'a Found,
    /// When the first call began, and when the last one did.
    pub(super) period: Option<(String, String)>,
    /// All calls together.
    pub(super) total: Total,
    /// In the order of the configuration.
    pub(super) budgets: Vec<BudgetOutcome<'a>>,
}

/// All calls together.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Total {
    pub(super) calls: u64,
    /// What they cost when they were made.
    #[serde(serialize_with = "as_text")]
    pub(super) recorded_usd: Usd,
    /// What they would have cost.
    #[serde(serialize_with = "as_text")]
    pub(super) spent_usd: Usd,
    /// Calls that would have been refused.
    pub(super) refused: u64,
    /// What those cost.
    #[serde(serialize_with = "as_text")]
    pub(super) refused_usd: Usd,
    /// Calls that would have gone to a cheaper model.
    pub(super) downgraded: u64,
    /// How much less those would have cost.
    #[serde(serialize_with = "as_text")]
    pub(super) saved_usd: Usd,
}

/// One budget.
#[derive(Debug, Serialize)]
pub(super) struct BudgetOutcome<'a> {
    pub(super) budget: &'a str,
    pub(super) mode: &'static str,
    pub(super) window: &'static str,
    pub(super) timezone: &'a str,
    /// Calls that were refused for a value of the scope that they lack.
    pub(super) without_scope: u64,
    /// All scopes together.
    #[serde(flatten)]
    pub(super) all: Tally,
    /// How many scopes there were, as far as they are told apart.
    pub(super) scopes: usize,
    /// Those with refusals and the fullest first.
    pub(super) top: Vec<ScopeOutcome>,
}

/// One scope of a budget.
#[derive(Clone, Debug, Serialize)]
pub(super) struct ScopeOutcome {
    pub(super) scope: BTreeMap<String, String>,
    #[serde(flatten)]
    pub(super) tally: Tally,
}

/// What came of some calls.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Tally {
    /// Calls that count here.
    pub(super) calls: u64,
    /// What those that passed cost.
    #[serde(serialize_with = "as_text")]
    pub(super) spent_usd: Usd,
    /// Their tokens.
    pub(super) spent_tokens: u64,
    /// Calls that this budget refused; one that only observes would have.
    pub(super) refused: u64,
    /// Those of them that only the holds of others stood in the way of.
    pub(super) refused_busy: u64,
    /// What they cost when they were made.
    #[serde(serialize_with = "as_text")]
    pub(super) refused_usd: Usd,
    /// When the first of them began.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "as_time")]
    pub(super) first_refused: Option<u64>,
    /// Calls that this budget sent to a cheaper model, or would have.
    pub(super) downgraded: u64,
    /// How much less they cost there.
    #[serde(serialize_with = "as_text")]
    pub(super) saved_usd: Usd,
    /// Calls that passed over the limit, as the budget allows.
    pub(super) passed_over: u64,
    /// The most of a limit that was spent in one window, in percent.
    pub(super) peak_percent: u32,
    /// When that window began.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "as_time")]
    pub(super) peak_window: Option<u64>,
    /// Alerts by their threshold in percent.
    pub(super) alerts: BTreeMap<u32, u64>,
}

fn as_text<S: Serializer>(usd: &Usd, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(usd)
}

#[allow(clippy::ref_option)] // serde's signature
fn as_time<S: Serializer>(seconds: &Option<u64>, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&seconds.map(rfc3339_seconds).unwrap_or_default())
}

/// Something that is counted.
#[derive(Clone, Copy, Debug)]
pub(super) enum Event<'e> {
    /// A call counts here.
    Call,
    /// It was refused here, at that time.
    Refused { busy: bool, cost: Usd, at: u64 },
    /// It went to a cheaper model, and cost that much less.
    Downgraded { saved: Usd },
    /// It passed over the limit.
    PassedOver,
    /// It ended.
    Settled { spent: &'e Amount, settled: &'e Settled, limits: &'e Limits, window: u64 },
}

impl Tally {
    fn add(&mut self, event: Event<'_>) {
        match event {
            Event::Call => self.calls += 1,
            Event::Refused { busy, cost, at } => {
                self.refused += 1;
                self.refused_busy += u64::from(busy);
                self.refused_usd = self.refused_usd.saturating_add(cost);
                self.first_refused.get_or_insert(at);
            }
            Event::Downgraded { saved } => {
                self.downgraded += 1;
                self.saved_usd = self.saved_usd.saturating_add(saved);
            }
            Event::PassedOver => self.passed_over += 1,
            Event::Settled { spent, settled, limits, window } => {
                self.spent_usd = self.spent_usd.saturating_add(spent.usd);
                self.spent_tokens = self.spent_tokens.saturating_add(spent.tokens);
                let percent = limits.percent_of(&settled.standing.spent);
                if percent > self.peak_percent {
                    (self.peak_percent, self.peak_window) = (percent, Some(window));
                }
                for threshold in &settled.alerts {
                    *self.alerts.entry(*threshold).or_default() += 1;
                }
            }
        }
    }
}

/// What is counted of every budget.
#[derive(Debug, Default)]
pub(super) struct Tallies {
    budgets: Vec<Counted>,
    told_apart: usize,
}

#[derive(Debug, Default)]
struct Counted {
    all: Tally,
    without_scope: u64,
    scopes: HashMap<CounterId, (Values, Tally)>,
}

impl Tallies {
    /// None so far, of so many budgets.
    pub(super) fn new(budgets: usize) -> Tallies {
        Tallies { budgets: std::iter::repeat_with(Counted::default).take(budgets).collect(), told_apart: 0 }
    }

    /// Counts an event of the budget with this index.
    pub(super) fn add(&mut self, budget: usize, account: &Account, event: Event<'_>) {
        let Some(counted) = self.budgets.get_mut(budget) else { return };
        counted.all.add(event);
        if let Some((_, tally)) = counted.scopes.get_mut(&account.id) {
            tally.add(event);
        } else if self.told_apart < MAX_SCOPES {
            self.told_apart += 1;
            let mut tally = Tally::default();
            tally.add(event);
            counted.scopes.insert(account.id, (account.scope.clone(), tally));
        }
    }

    /// Counts a call that was refused for a value that it lacks.
    pub(super) fn refuse_without_scope(&mut self, budget: usize, cost: Usd, at: u64) {
        let Some(counted) = self.budgets.get_mut(budget) else { return };
        counted.without_scope += 1;
        counted.all.add(Event::Call);
        counted.all.add(Event::Refused { busy: false, cost, at });
    }

    /// What was counted, with the first `top` scopes of each.
    pub(super) fn outcome<'a>(&self, budgets: &'a [Budget], top: usize) -> Vec<BudgetOutcome<'a>> {
        let outcomes = budgets.iter().zip(&self.budgets).map(|(budget, counted)| {
            let mut scopes: Vec<&(Values, Tally)> = counted.scopes.values().collect();
            scopes.sort_by(|(scope, own), (other_scope, other)| {
                let rank = |tally: &Tally| (tally.refused, tally.downgraded, tally.peak_percent, tally.spent_usd);
                rank(other).cmp(&rank(own)).then_with(|| scope.cmp(other_scope))
            });
            let outcome = |(scope, tally): &&(Values, Tally)| ScopeOutcome {
                scope: scope.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect(),
                tally: tally.clone(),
            };
            BudgetOutcome {
                budget: &budget.name,
                mode: if budget.observe { "observe" } else { "enforce" },
                window: budget.calendar.window.name(),
                timezone: &budget.timezone,
                without_scope: counted.without_scope,
                all: counted.all.clone(),
                scopes: counted.scopes.len(),
                top: scopes.iter().take(top).map(outcome).collect(),
            }
        });
        outcomes.collect()
    }
}
