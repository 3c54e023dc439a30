//! Budgets: what is promised holds for any order of what workers, callers and clocks may do.

mod exchanges;
mod fuel;
mod ledger;
