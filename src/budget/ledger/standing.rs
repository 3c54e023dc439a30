//! How a counter stands, and why a call is not held there.

use crate::budget::Amount;

/// How a counter stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Spent in this window.
    pub spent: Amount,
    /// Held by calls under way.
    pub held: Amount,
    /// Temporarily granted on top of the limits.
    pub granted: Amount,
    /// Until when, in seconds since 1970.
    pub granted_until: Option<u64>,
}

/// Why nothing was held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// What is spent leaves too little.
    Exceeded(Box<Standing>),
    /// What is spent leaves enough, and what other calls hold does not.
    Busy(Box<Standing>),
    /// A new scope, and no room for it.
    Full,
    /// The store failed, or other workers kept this one out.
    Unavailable,
}

impl Refused {
    /// Whether it is for what is spent and held, about which a budget has its policy.
    pub fn is_for_room(&self) -> bool {
        matches!(self, Refused::Exceeded(_) | Refused::Busy(_))
    }

    /// Whether it is no use to come again in a moment.
    pub fn lasts(&self) -> bool {
        matches!(self, Refused::Exceeded(_) | Refused::Full)
    }
}
