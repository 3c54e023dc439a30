//! Costs of calls: every kind of term, by itself and together.

use super::*;
use crate::money::{Rate, Usd};
use crate::usage::{Rule, TokenUsage, Unit, UsageReport};
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

fn decimal(text: &str) -> Decimal {
    Decimal::parse(text).unwrap()
}

fn rates(list: &[(Class, &str)]) -> Rates {
    list.iter().map(|&(class, usd)| (class, decimal(usd))).collect()
}

fn model(list: &[(Class, &str)]) -> Model {
    let standard = Schedule { rates: rates(list), ..Schedule::default() };
    Model { terms: Terms { standard, ..Terms::default() }, ..Model::default() }
}

fn usage(input: u64, output: u64) -> TokenUsage {
    UsageReport { input: Some(input), output: Some(output), ..Default::default() }.normalise(Rule::OpenAi)
}

fn plain(usage: &TokenUsage, model: &Model) -> Result<CostBreakdown, NoPrice> {
    cost(model, usage, &Units::new(), &Circumstances::default())
}

fn sum(breakdown: &CostBreakdown) -> Usd {
    breakdown.charges.iter().fold(Usd::ZERO, |sum, charge| sum.saturating_add(charge.cost))
}

#[test]
fn charges_sum_to_the_cost() {
    let usage = UsageReport {
        input: Some(2006),
        cached_input: Some(1920),
        output: Some(300),
        reasoning: Some(64),
        ..Default::default()
    }
    .normalise(Rule::OpenAi);
    let model = model(&[(Class::Input, "2.50"), (Class::CachedInput, "1.25"), (Class::Output, "10.00")]);
    let breakdown = plain(&usage, &model).unwrap();
    assert_eq!(breakdown.total.to_string(), "0.005615");
    assert_eq!(sum(&breakdown), breakdown.total);
    assert_eq!(breakdown.charges.len(), 4);
}

#[test]
fn a_used_class_without_any_rate_leaves_the_call_unpriced() {
    let input_only = model(&[(Class::Input, "1")]);
    assert_eq!(plain(&usage(1, 1), &input_only), Err(NoPrice::Unpriced));
    assert!(plain(&usage(1, 0), &input_only).is_ok());
    assert_eq!(plain(&usage(1, 1), &model(&[])), Err(NoPrice::Unpriced));
}

#[test]
fn units_are_charged_beside_tokens_and_without_them() {
    let units = |list: &[(Unit, &str)]| -> Units { list.iter().map(|&(unit, n)| (unit, decimal(n))).collect() };
    let priced = |rates: &[(Class, &str)], prices: &[(Unit, &str)]| {
        let mut model = model(rates);
        model.terms.units = prices.iter().map(|&(unit, usd)| (unit, Rate::per_one(decimal(usd)))).collect();
        model
    };
    let search = [(Unit::WebSearchRequests, "0.01")];
    let seconds = [(Unit::AudioSeconds, "0.0001")];
    let tokens = [(Class::Input, "2"), (Class::Output, "10")];
    for (model, usage, counted, total) in [
        (priced(&tokens, &search), usage(9447, 114), units(&[(Unit::WebSearchRequests, "2")]), Ok("0.040034")),
        (priced(&[], &seconds), TokenUsage::default(), units(&[(Unit::AudioSeconds, "61.5")]), Ok("0.00615")),
        // A model that is sold by the second may report tokens all the same.
        (priced(&[], &seconds), usage(5, 5), units(&[(Unit::AudioSeconds, "61")]), Ok("0.0061")),
        (priced(&tokens, &[]), usage(1, 0), units(&[(Unit::Images, "1")]), Ok("0.000002")),
        (priced(&tokens, &[]), TokenUsage::default(), units(&[(Unit::Images, "1")]), Err(NoPrice::Unpriced)),
        (priced(&tokens, &[(Unit::Requests, "0.005")]), usage(1, 0), units(&[(Unit::Requests, "1")]), Ok("0.005002")),
        (priced(&tokens, &[]), usage(1, 0), units(&[(Unit::Requests, "1")]), Ok("0.000002")),
    ] {
        let breakdown = cost(&model, &usage, &counted, &Circumstances::default());
        assert_eq!(breakdown.clone().map(|cost| cost.total.to_string()), total.map(Into::into), "{counted:?}");
        if let Ok(breakdown) = breakdown {
            assert_eq!(sum(&breakdown), breakdown.total);
            let unpriced = !breakdown.unpriced_units.is_empty();
            assert_eq!(unpriced, counted.contains_key(&Unit::Images), "{counted:?}");
        }
    }
}

#[test]
fn sound_that_is_paid_by_the_second_is_not_paid_by_the_token_too() {
    let mut model = model(&[(Class::Input, "2"), (Class::Output, "10")]);
    model.terms.units = [(Unit::AudioSeconds, Rate::per_one(decimal("0.0001")))].into_iter().collect();
    let usage = UsageReport { input: Some(110), input_audio: Some(100), output: Some(1), ..Default::default() };
    let usage = usage.normalise(Rule::OpenAi);
    let seconds: Units = [(Unit::AudioSeconds, Decimal::from(4))].into_iter().collect();
    let plain = Circumstances::default();
    assert_eq!(cost(&model, &usage, &seconds, &plain).unwrap().total.to_string(), "0.00043");
    assert_eq!(cost(&model, &usage, &Units::new(), &plain).unwrap().total.to_string(), "0.00023");
    model.terms.standard.rates = rates(&[(Class::Input, "2"), (Class::InputAudio, "8"), (Class::Output, "10")]);
    assert_eq!(cost(&model, &usage, &seconds, &plain).unwrap().total.to_string(), "0.00123");
}

#[test]
fn discounts_take_off_everything_and_multipliers_only_token_rates() {
    let mut model = model(&[(Class::Input, "2"), (Class::Output, "10")]);
    model.terms.units = [(Unit::WebSearchRequests, Rate::per_one(decimal("0.01")))].into_iter().collect();
    model.terms.multipliers.geo = [(Glob::new("us"), decimal("1.1"))].into();
    model.commercial = decimal("0.9");
    let searches: Units = [(Unit::WebSearchRequests, Decimal::from(1))].into_iter().collect();
    let circumstances = Circumstances { geo: Some("us"), multiplier: Some(decimal("0.5")), ..Circumstances::default() };
    let breakdown = cost(&model, &usage(1_000_000, 0), &searches, &circumstances).unwrap();
    let lines: Vec<_> = breakdown.charges.iter().map(|c| (c.multiplier.to_string(), c.cost.to_string())).collect();
    assert_eq!(lines, [("0.45".into(), "0.0045".into()), ("0.495".into(), "0.99".into())]);
}

#[test]
fn terms_change_on_their_date() {
    let mut model = model(&[(Class::Input, "2"), (Class::Output, "2")]);
    let later = |usd| Terms {
        standard: Schedule { rates: rates(&[(Class::Input, usd), (Class::Output, usd)]), ..Schedule::default() },
        ..Terms::default()
    };
    model.later = [(1000, later("3")), (2000, later("4"))].into();
    for (unix_seconds, total) in [(0, "2"), (999, "2"), (1000, "3"), (1999, "3"), (2000, "4"), (u64::MAX, "4")] {
        let circumstances = Circumstances { unix_seconds, ..Circumstances::default() };
        let breakdown = cost(&model, &usage(1_000_000, 0), &Units::new(), &circumstances).unwrap();
        assert_eq!(breakdown.total.to_string(), total, "{unix_seconds}");
    }
}

#[test]
fn an_absurd_count_saturates_and_says_so() {
    let dear = model(&[(Class::Input, "18446744073709551615"), (Class::Output, "18446744073709551615")]);
    let breakdown = plain(&usage(u64::MAX, u64::MAX), &dear).unwrap();
    assert!(breakdown.total > Usd::ZERO);
    let mut dearer = dear;
    dearer.commercial = decimal("1000.000001");
    let breakdown = plain(&usage(u64::MAX, u64::MAX), &dearer).unwrap();
    assert_eq!(breakdown.total, Usd::MAX);
    assert!(breakdown.saturated);
}
