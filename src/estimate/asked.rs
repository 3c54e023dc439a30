//! What a call asks for, as far as its bound depends on it: the most it may cost, at its own model or at another.

use super::{Estimate, Size, estimate};
use crate::config::ReservationConfig;
use crate::price::{self, Biller, Circumstances, Model, PriceTable, Units};
use crate::usage::{Rule, UsageReport};

/// What a call asks for, and at what prices.
pub struct Asked<'a> {
    /// The models there are.
    pub table: &'a PriceTable,
    /// How tokens are estimated.
    pub reservation: &'a ReservationConfig,
    /// The model's name.
    pub model: Option<&'a str>,
    /// Who bills.
    pub biller: Biller<'a>,
    /// How large it is.
    pub size: Size,
    /// What its prices depend on before the answer is there.
    pub circumstances: Circumstances<'a>,
    /// Whether a model without a price counts as the dearest.
    pub assumes_highest: &'a dyn Fn() -> bool,
}

impl<'a> Asked<'a> {
    /// The most the call may cost at `model`, or at its own.
    pub fn bound(&self, model: Option<&str>) -> Estimate {
        self.bound_at(self.sold_at(model))
    }

    fn bound_at(&self, model: Option<&Model>) -> Estimate {
        estimate(&self.size, model, self.reservation, &self.circumstances)
    }

    /// The price entry of `model`, or of the one that was asked for.
    fn sold_at(&self, model: Option<&str>) -> Option<&'a Model> {
        let find = |name| self.table.find(name, self.biller, self.circumstances.region).map(|(model, _)| model);
        let found = model.or(self.model).and_then(find);
        if found.is_some() || !(self.assumes_highest)() {
            return found;
        }
        self.table.dearest(self.biller).into_iter().max_by_key(|model| self.bound_at(Some(model)).usd)
    }

    /// Whether the call costs less at `model` of the same provider, even if its prompt is cached where it was going.
    pub fn is_cheaper(&self, model: &str) -> bool {
        let (Some(own), Some(other)) = (self.sold_at(None), self.sold_at(Some(model))) else { return false };
        let bound = self.bound_at(Some(own));
        let usage = |cached| UsageReport {
            input: Some(bound.input_tokens),
            cached_input: Some(cached),
            explicit_cached_input: Some(cached),
            output: Some(bound.output_tokens),
            ..UsageReport::default()
        };
        let cost = |model: &Model, usage: UsageReport| {
            let usage = usage.normalise(Rule::OpenAi);
            price::cost(model, &usage, &Units::new(), &self.circumstances).map(|cost| cost.total).ok()
        };
        let (there, here) = (cost(other, usage(0)), cost(own, usage(bound.input_tokens)));
        own.provider == other.provider && there.zip(here).is_some_and(|(there, here)| there < here)
    }
}
