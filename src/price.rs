//! Price tables: which rates a model has, and what a usage costs under them.
//!
//! A [`PriceTable`] finds the [`Model`] that a name stands for; its [`Terms`] say which rates and multipliers apply to a
//! call; [`cost()`] makes disjoint charges of them that sum to the total. A model that is not found
//! has the status `unknown_model` and no cost: a silent zero would be a bypass.

mod cost;
mod names;
mod rates;
mod table;
mod terms;

pub use cost::{Charge, CostBreakdown, Item, Units, cost};
pub use names::bedrock_region;
pub use rates::{Layers, Rates, UnitRates};
pub use table::{Ambiguous, Biller, Match, PriceTable, PricedBy, same_provider};
pub use terms::{
    Applied, Circumstances, ContextTier, Factors, Multipliers, OffPeak, Schedule, ServiceTier, Terms, Window,
};

use crate::glob::Glob;
use crate::money::Decimal;
use crate::usage::Class;

/// One model of the table.
#[derive(Clone, Debug)]
pub struct Model {
    /// Who bills it, where the table says so.
    pub provider: Option<Box<str>>,
    /// Its name in the table; this is the record's `priced_model`.
    pub name: Box<str>,
    /// Other names, with `*` as a wildcard.
    pub aliases: Box<[Glob]>,
    /// What it is sold at.
    pub terms: Terms,
    /// What it is sold at from a date on, in seconds since 1970, ascending; each is complete.
    pub later: Box<[(u64, Terms)]>,
    /// The customer's own discount or markup, as a multiple.
    pub commercial: Decimal,
    /// The most it generates.
    pub max_output_tokens: Option<u64>,
    /// The longest prompt it takes.
    pub max_input_tokens: Option<u64>,
}

impl Default for Model {
    fn default() -> Model {
        Model {
            provider: None,
            name: Box::default(),
            aliases: Box::default(),
            terms: Terms::default(),
            later: Box::default(),
            commercial: Decimal::ONE,
            max_output_tokens: None,
            max_input_tokens: None,
        }
    }
}

impl Model {
    /// The prices of a call with so many input tokens under `circumstances`, with the customer's own terms.
    pub fn apply(&self, input_tokens: u64, circumstances: &Circumstances<'_>) -> Applied<'_> {
        let mut applied = self.terms_at(circumstances.unix_seconds).apply(input_tokens, circumstances);
        let commercial = circumstances.multiplier.unwrap_or(Decimal::ONE).product(self.commercial);
        applied.multiplier = applied.multiplier.zip(commercial).and_then(|(a, b)| a.product(b));
        applied.commercial = commercial;
        applied
    }

    /// What it is sold at at a time.
    pub fn terms_at(&self, unix_seconds: u64) -> &Terms {
        let begun = self.later.iter().rev().find(|(from, _)| *from <= unix_seconds);
        begun.map_or(&self.terms, |(_, terms)| terms)
    }

    /// The lowest and the highest rates of input and output at the ordinary service tier, over all prompt sizes, hours
    /// and dates; `None` where it has neither.
    fn rate_bounds(&self) -> Option<[InputOutput; 2]> {
        let terms = || std::iter::once(&self.terms).chain(self.later.iter().map(|(_, terms)| terms));
        let bounds = |class| {
            let rates = terms().flat_map(|terms| {
                let tiers = terms.standard.tiers.iter().map(|tier| &tier.rates);
                let off_peak = terms.off_peak.iter().map(|off_peak| &off_peak.rates);
                std::iter::once(&terms.standard.rates).chain(tiers).chain(off_peak)
            });
            let rates = rates.filter_map(|rates| rates.own(class)).filter_map(|usd| usd.times(self.commercial));
            rates.fold(None, |bounds, usd| match bounds {
                None => Some((usd, usd)),
                Some((low, high)) => Some((usd.min(low), usd.max(high))),
            })
        };
        let (input, output) = (bounds(Class::Input), bounds(Class::Output));
        if input.is_none() && output.is_none() {
            return None;
        }
        let (input, output) = (input.unwrap_or_default(), output.unwrap_or_default());
        Some([(input.0, output.0), (input.1, output.1)])
    }
}

/// Rates of input and output.
type InputOutput = (Decimal, Decimal);

/// Why a usage has no cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoPrice {
    /// No model of the table has one of the names.
    UnknownModel,
    /// The model is in the table, without a price for something that was used.
    Unpriced,
}

#[cfg(test)]
mod tests;
