//! What a call costs: disjoint charges that sum to the total.

use super::terms::{Applied, Circumstances};
use super::{Model, NoPrice};
use crate::money::{self, Decimal, Rate, Usd};
use crate::usage::{Class, TokenUsage, Unit};
use std::collections::BTreeMap;

/// What a charge is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item {
    /// Tokens of a class.
    Tokens(Class),
    /// Something that is not tokens.
    Unit(Unit),
}

impl Item {
    /// The name in records.
    pub const fn name(self) -> &'static str {
        match self {
            Item::Tokens(class) => class.name(),
            Item::Unit(unit) => unit.name(),
        }
    }

    /// What one of it is called.
    pub const fn unit_name(self) -> &'static str {
        match self {
            Item::Tokens(_) => "tokens",
            Item::Unit(unit) => unit.unit_name(),
        }
    }
}

/// One line of a cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Charge {
    /// What was counted.
    pub item: Item,
    /// How much of it.
    pub quantity: Decimal,
    /// At which rate.
    pub rate: Rate,
    /// Times what; one for most.
    pub multiplier: Decimal,
    /// The product.
    pub cost: Usd,
}

/// A cost and the lines it is the sum of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CostBreakdown {
    /// Disjoint lines.
    pub charges: Vec<Charge>,
    /// Their sum.
    pub total: Usd,
    /// True where a line or the sum exceeded what can be counted and stopped at the largest amount.
    pub saturated: bool,
    /// True where the response names a service tier that the model has no terms for.
    pub unknown_service_tier: bool,
    /// Things that were counted and have no price here; many are paid for by tokens.
    pub unpriced_units: Vec<Unit>,
}

impl CostBreakdown {
    fn add(&mut self, item: Item, quantity: Decimal, rate: Rate, multiplier: Option<Decimal>) {
        let cost = multiplier.and_then(|multiplier| money::charge(quantity, rate, multiplier));
        self.saturated |= cost.is_none();
        let cost = cost.unwrap_or(Usd::MAX);
        self.total = self.total.saturating_add(cost);
        self.saturated |= self.total == Usd::MAX;
        self.charges.push(Charge { item, quantity, rate, multiplier: multiplier.unwrap_or(Decimal::ONE), cost });
    }
}

/// Units by kind, as reported.
pub type Units = BTreeMap<Unit, Decimal>;

/// What `usage` and `units` cost at `model`.
///
/// # Errors
/// [`NoPrice::Unpriced`] where a class with tokens has no rate, not even its parent's, or nothing that was counted has
/// a price. A model that is sold by something else than tokens, and has no token rates at all, needs none.
pub fn cost(
    model: &Model,
    usage: &TokenUsage,
    units: &Units,
    circumstances: &Circumstances<'_>,
) -> Result<CostBreakdown, NoPrice> {
    let applied = model.apply(usage.counts().input.unwrap_or(0), circumstances);

    let mut breakdown = CostBreakdown { unknown_service_tier: applied.unknown_service_tier, ..Default::default() };
    let sold_by_units = charge_units(&mut breakdown, &applied, units);
    for (class, quantity) in usage.buckets() {
        // The same sound is counted in tokens and in seconds; it is paid for once.
        let heard = class == Class::InputAudio && applied.rates.own(class).is_none();
        if heard && units.contains_key(&Unit::AudioSeconds) && applied.unit(Unit::AudioSeconds).is_some() {
            continue;
        }
        match applied.rates.get(class) {
            Some(usd) => {
                breakdown.add(Item::Tokens(class), Decimal::from(quantity), Rate::per_million(usd), applied.multiplier);
            }
            None if sold_by_units && applied.rates.is_empty() => {}
            None => return Err(NoPrice::Unpriced),
        }
    }
    if breakdown.charges.is_empty() && !breakdown.unpriced_units.is_empty() {
        return Err(NoPrice::Unpriced);
    }
    Ok(breakdown)
}

/// Charges what is not tokens; true where there was something to charge.
fn charge_units(breakdown: &mut CostBreakdown, applied: &Applied<'_>, units: &Units) -> bool {
    for (&unit, &quantity) in units {
        match applied.unit(unit) {
            Some(rate) => breakdown.add(Item::Unit(unit), quantity, rate, applied.commercial),
            // Every call is a request, and few are sold by it.
            None if unit == Unit::Requests => {}
            None => breakdown.unpriced_units.push(unit),
        }
    }
    !breakdown.charges.is_empty()
}
