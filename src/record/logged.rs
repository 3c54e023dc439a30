//! Single values of a record, for access logs that have a format of their own.
//!
//! Each becomes a text in filter state under a key of its own, so that `%FILTER_STATE(wasm.tollgate.cost_usd:PLAIN)%` is the
//! cost and nothing else.

use super::UsageRecord;
use std::borrow::Cow;

/// A value that the access log may show by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggedValue {
    /// What it is called in filter state.
    pub key: Box<str>,
    /// Where it comes from.
    pub source: Source,
}

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A field that every call's record may have.
    Field(Field),
    /// A dimension, a tag or the API key's name.
    Attribution(Box<str>),
}

/// A field of the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // named after the fields of the record, which docs/records.md explains
pub enum Field {
    Id,
    CostUsd,
    /// Whole millionths of a dollar, rounded up: what Envoy's rate limit filter can add to a counter.
    CostMicrousd,
    CostPicousd,
    PriceStatus,
    UsageSource,
    InputTokens,
    OutputTokens,
    Decision,
    Budget,
    Provider,
    RequestModel,
    ResponseModel,
}

impl Field {
    /// Every field by its name.
    pub const NAMES: [(&'static str, Field); 13] = [
        ("id", Field::Id),
        ("cost_usd", Field::CostUsd),
        ("cost_microusd", Field::CostMicrousd),
        ("cost_picousd", Field::CostPicousd),
        ("price_status", Field::PriceStatus),
        ("usage_source", Field::UsageSource),
        ("input_tokens", Field::InputTokens),
        ("output_tokens", Field::OutputTokens),
        ("decision", Field::Decision),
        ("budget", Field::Budget),
        ("provider", Field::Provider),
        ("request_model", Field::RequestModel),
        ("response_model", Field::ResponseModel),
    ];

    /// Its text in `record`; `None` where that does not say.
    pub fn text(self, record: &UsageRecord) -> Option<Cow<'_, str>> {
        let number = |number: Option<u64>| number.map(|number| Cow::Owned(number.to_string()));
        match self {
            Field::Id => Some(Cow::Borrowed(&record.id)),
            Field::CostUsd => record.cost_usd.as_ref().map(|cost| Cow::Borrowed(cost.as_str())),
            Field::CostMicrousd => record.cost_picousd.map(|cost| Cow::Owned(microdollars(cost).to_string())),
            Field::CostPicousd => record.cost_picousd.map(|cost| Cow::Owned(cost.to_string())),
            Field::PriceStatus => record.price_status.map(|status| status.name().into()),
            Field::UsageSource => Some(record.usage_source.name().into()),
            Field::InputTokens => number(record.input_tokens),
            Field::OutputTokens => number(record.output_tokens),
            Field::Decision => Some(record.decision.name().into()),
            Field::Budget => record.budget.as_deref().map(Cow::Borrowed),
            Field::Provider => record.provider.as_deref().map(Cow::Borrowed),
            Field::RequestModel => record.request_model.as_deref().map(Cow::Borrowed),
            Field::ResponseModel => record.response_model.as_deref().map(Cow::Borrowed),
        }
    }
}

fn microdollars(pico: i128) -> i128 {
    const PICO_PER_MICRO: i128 = 1_000_000;
    pico / PICO_PER_MICRO + i128::from(pico % PICO_PER_MICRO > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::money::Usd;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn microdollars_are_rounded_up_so_that_no_call_is_free() {
        for (pico, micro) in [(0, 0), (1, 1), (1_000_000, 1), (1_000_001, 2), (2_500_000_000, 2500)] {
            assert_eq!(microdollars(pico), micro, "{pico}");
        }
    }

    #[test]
    fn what_a_record_does_not_say_is_no_value() {
        let mut record = UsageRecord { id: "0199".into(), input_tokens: Some(0), ..UsageRecord::default() };
        let texts = |record: &UsageRecord| {
            let text = |(name, field): (&'static str, Field)| Some((name, field.text(record)?.into_owned()));
            Field::NAMES.into_iter().filter_map(text).collect::<Vec<_>>()
        };
        let always = [("usage_source", "none"), ("decision", "allowed")];
        let expected = |more: &[(&'static str, &str)]| {
            let mut all: Vec<_> = more.iter().chain(&always).map(|(name, text)| (*name, (*text).to_owned())).collect();
            all.sort();
            all
        };
        let sorted = |mut list: Vec<(&'static str, String)>| {
            list.sort();
            list
        };
        assert_eq!(sorted(texts(&record)), expected(&[("id", "0199"), ("input_tokens", "0")]));
        record.set_cost(Usd::from_pico(1));
        let cost = [("cost_microusd", "1"), ("cost_picousd", "1"), ("cost_usd", "0.000000000001")];
        assert_eq!(sorted(texts(&record)), expected(&[&[("id", "0199"), ("input_tokens", "0")], &cost[..]].concat()));
    }
}
