//! Batch prices. LiteLLM lists some of them and halves the rest; most providers just take half of everything.

use super::super::amount::Amount;
use super::super::table::{Rates, ServiceTier, Terms};
use tollgate::usage::Class;

/// Classes that are half of the standard price in a batch unless the source says otherwise.
const HALVED: [Class; 5] =
    [Class::Input, Class::CacheCreation, Class::CacheCreation1h, Class::CacheCreation12h, Class::Output];

/// Turns listed batch prices into a multiplier where all are exactly half, else lists those that LiteLLM derives.
pub(super) fn settle(terms: &mut Terms) {
    let Some(mut batch) = terms.service_tiers.remove("batch") else { return };
    if !batch.rates.is_empty() || !batch.tiers.is_empty() {
        if is_half(terms, &batch) {
            batch = ServiceTier { units: batch.units, multiplier: Amount::parse("0.5"), ..ServiceTier::default() };
        } else {
            complete(terms, &mut batch);
        }
    }
    terms.service_tiers.insert("batch".into(), batch);
}

fn is_half(terms: &Terms, batch: &ServiceTier) -> bool {
    const TEXT: [Class; 4] = [Class::Input, Class::CachedInput, Class::CacheCreation, Class::Output];
    let listed = |class: &Class| match terms.rates.get(*class) {
        Some(rate) if !rate.is_zero() => batch.rates.get(*class).is_some(),
        _ => true,
    };
    let halves = |batch: &Rates, standard: &Rates| {
        batch.iter().all(|(class, rate)| effective(standard, class).map(Amount::half).as_ref() == Some(rate))
    };
    TEXT.iter().all(listed)
        && halves(&batch.rates, &terms.rates)
        && batch
            .tiers
            .iter()
            .all(|(threshold, rates)| terms.tiers.get(threshold).is_some_and(|standard| halves(rates, standard)))
}

/// The rate of `class` or of the class it falls back to.
fn effective(rates: &Rates, class: Class) -> Option<&Amount> {
    rates.get(class).or_else(|| effective(rates, class.parent()?))
}

/// The tiers of a model apply to its service tiers too, so each of them needs its batch prices.
fn complete(terms: &Terms, batch: &mut ServiceTier) {
    let cached_is_listed = batch.rates.get(Class::CachedInput).is_some();
    let complete = |batch: &mut Rates, standard: &Rates, input: Option<Amount>| {
        for class in HALVED {
            batch.set_missing(class, standard.get(class).map(Amount::half));
        }
        if let Some(cached) = standard.get(Class::CachedInput) {
            let input = batch.get(Class::Input).cloned().or(input);
            batch.set_missing(Class::CachedInput, if cached_is_listed { Some(cached.half()) } else { input });
        }
    };
    complete(&mut batch.rates, &terms.rates, None);
    for (threshold, standard) in &terms.tiers {
        let input = batch.rates.get(Class::Input).cloned();
        complete(batch.tiers.entry(*threshold).or_default(), standard, input);
    }
}
