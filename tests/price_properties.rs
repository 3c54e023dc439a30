//! What must hold for any prices and any usage.

use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use tollgate::config::{Config, Origin};
use tollgate::glob::Glob;
use tollgate::money::{Decimal, Rate, Usd};
use tollgate::price::{
    Biller, Circumstances, ContextTier, CostBreakdown, Factors, Match, Model, Multipliers, PriceTable, Rates, Schedule,
    ServiceTier, Terms, UnitRates, Units, cost,
};
use tollgate::usage::{Class, Rule, TokenUsage, Unit, UsageReport};

/// Where the one context tier of [`prices`] begins.
const TIER: u64 = 1 << 40;

/// A decimal of any size and precision.
fn any_decimal() -> BoxedStrategy<Decimal> {
    (any::<u64>(), 0u32..=30)
        .prop_filter_map("more places than digits allow", |(digits, places)| {
            Decimal::parse(&format!("{digits}e-{places}")).ok()
        })
        .boxed()
}

/// A rate as providers write them, in the millionths.
fn rate() -> BoxedStrategy<Decimal> {
    (0u64..1_000_000_000, 0u32..=6)
        .prop_map(|(digits, places)| Decimal::parse(&format!("{digits}e-{places}")).unwrap())
        .boxed()
}

fn rates(rate: BoxedStrategy<Decimal>) -> BoxedStrategy<Rates> {
    let optional = vec(option::of(rate.clone()), Class::ALL.len());
    (optional, rate.clone(), rate)
        .prop_map(|(others, input, output)| {
            let own = |(class, rate): (Class, Option<Decimal>)| match class {
                Class::Input => Some((class, input)),
                Class::Output => Some((class, output)),
                _ => Some((class, rate?)),
            };
            Class::ALL.into_iter().zip(others).filter_map(own).collect()
        })
        .boxed()
}

/// A model with rates, one context tier and prices of units.
fn prices(rate: BoxedStrategy<Decimal>) -> impl Strategy<Value = Model> {
    let units = vec((rate.clone(), 1u32..5000), Unit::ALL.len());
    (rates(rate.clone()), rates(rate), units).prop_map(|(standard, above, units)| {
        let units = Unit::ALL.into_iter().zip(units).map(|(unit, (usd, per))| (unit, Rate { usd, per }));
        let tiers = [ContextTier { from: TIER, rates: above }].into();
        let terms = Terms {
            standard: Schedule { rates: standard, tiers },
            units: units.collect::<UnitRates>(),
            ..Terms::default()
        };
        Model { name: "m".into(), terms, ..Model::default() }
    })
}

/// The classes that some provider counts; price tables have rates for more.
const COUNTED: [Class; 16] = [
    Class::Input,
    Class::CachedInput,
    Class::ExplicitCachedInput,
    Class::CacheCreation,
    Class::CacheCreation1h,
    Class::InputAudio,
    Class::CachedInputAudio,
    Class::CachedInputImage,
    Class::InputImage,
    Class::InputVideo,
    Class::Output,
    Class::Reasoning,
    Class::OutputAudio,
    Class::OutputImage,
    Class::OutputVideo,
    Class::Citation,
];

/// Tokens by place in [`COUNTED`].
type Counts = BTreeMap<usize, u64>;

/// Any tokens below the context tier.
fn counts() -> impl Strategy<Value = Counts> {
    btree_map(0..COUNTED.len(), 0u64..1 << 32, 0..8)
}

/// A usage that has so many tokens of each class.
fn usage(counts: &Counts) -> TokenUsage {
    let of = |class: Class| -> u64 {
        let index = COUNTED.iter().position(|own| *own == class).unwrap();
        counts.get(&index).copied().unwrap_or(0)
    };
    let sum = |classes: &[Class]| Some(classes.iter().map(|&class| of(class)).sum());
    let explicit = Class::ExplicitCachedInput;
    let (audio, image) = (Class::CachedInputAudio, Class::CachedInputImage);
    let report = UsageReport {
        input: sum(&[
            Class::Input,
            Class::CachedInput,
            explicit,
            audio,
            image,
            Class::CacheCreation,
            Class::CacheCreation1h,
            Class::InputAudio,
            Class::InputImage,
            Class::InputVideo,
        ]),
        cached_input: sum(&[Class::CachedInput, explicit, audio, image]),
        explicit_cached_input: sum(&[explicit]),
        cached_input_audio: sum(&[audio]),
        cached_input_image: sum(&[image]),
        cache_creation: sum(&[Class::CacheCreation, Class::CacheCreation1h]),
        cache_creation_1h: sum(&[Class::CacheCreation1h]),
        input_audio: sum(&[Class::InputAudio, audio]),
        input_image: sum(&[Class::InputImage, image]),
        input_video: sum(&[Class::InputVideo]),
        output: sum(&[Class::Output, Class::OutputAudio, Class::OutputImage, Class::OutputVideo]),
        reasoning: sum(&[Class::Reasoning]),
        output_audio: sum(&[Class::OutputAudio]),
        output_image: sum(&[Class::OutputImage]),
        output_video: sum(&[Class::OutputVideo]),
        citation: sum(&[Class::Citation]),
        ..UsageReport::default()
    };
    let usage = report.normalise(Rule::ThoughtsApart);
    let found: BTreeMap<_, _> = usage.buckets().map(|(class, tokens)| (class.name(), tokens)).collect();
    let wanted = counts.iter().filter(|(_, tokens)| **tokens > 0);
    assert_eq!(found, wanted.map(|(&class, &tokens)| (COUNTED[class].name(), tokens)).collect());
    usage
}

fn priced(model: &Model, usage: &TokenUsage) -> CostBreakdown {
    cost(model, usage, &Units::new(), &Circumstances::default()).unwrap()
}

/// The sum of the charges; `None` beyond the largest amount.
fn sum(cost: &CostBreakdown) -> Option<i128> {
    cost.charges.iter().try_fold(0i128, |sum, charge| sum.checked_add(charge.cost.pico()))
}

/// A factor with at most three digits, below ten.
fn factor() -> impl Strategy<Value = Decimal> {
    (1u64..1000, 2u32..=3).prop_map(|(digits, places)| Decimal::parse(&format!("{digits}e-{places}")).unwrap())
}

/// A model of few rates, from a few, that change with the size of the prompt and with time.
fn at_times() -> impl Strategy<Value = Model> {
    let rates = || {
        (0u64..5, 0u64..5).prop_map(|(input, output)| -> Rates {
            [(Class::Input, input.into()), (Class::Output, output.into())].into_iter().collect()
        })
    };
    let terms = move || {
        (rates(), option::of((1u64..200, rates()))).prop_map(|(rates, tier)| {
            let tiers = tier.map(|(from, rates)| ContextTier { from, rates }).into_iter().collect();
            Terms { standard: Schedule { rates, tiers }, ..Terms::default() }
        })
    };
    (terms(), option::of((1u64..200, terms())), factor()).prop_map(|(terms, later, commercial)| Model {
        terms,
        later: later.into_iter().collect(),
        commercial,
        ..Model::default()
    })
}

/// A name of a model, with what decorates names likely.
fn name() -> impl Strategy<Value = String> {
    "((us|eu|global|apac)\\.|openai/|arn:aws:bedrock:|é|)([a-c]|gpt-4o|claude){0,2}(-2024-08-06|-2025|@20251001|-v1:0|-latest|-00|:|-|@|/|\\*|\\.|){0,2}"
}

fn provider() -> impl Strategy<Value = Option<&'static str>> {
    proptest::sample::select(vec![None, Some("openai"), Some("azure")])
}

/// A section `prices` that uses everything there is.
fn full_section() -> Value {
    json!({
        "version": "v", "on_unknown_model": "assume_highest", "providers": {"openai": {"discount": "0.1"}},
        "models": [
            {
                "provider": "openai", "model": "m", "aliases": ["n", "m-*"],
                "rates": {"input": "2.50", "cached_input": "1.25", "output": 10},
                "tiers": [{"input_over": 200, "rates": {"input": 5}}, {"input_from": 300, "rates": {"input": 6}}],
                "service_tiers": {"flex": {"rates": {"input": 1}, "tiers": [{"input_over": 9, "rates": {"input": 3}}],
                                           "units": {"pages": 1}, "multiplier": "0.5"}},
                "multipliers": {"speed": {"fast": "2"}, "geo": {"us": "1.1"}, "region": {"eu": "1.2"}},
                "off_peak": [{"hours_utc": "16:30-00:30", "weekdays": [1, 7], "rates": {"input": "0.1"}},
                             {"hours_utc": ["01:00-02:00"], "rates": {"input": "0.2"}}],
                "units": {"web_search_requests": "0.01", "audio_seconds": {"usd": "0.24", "per": 3600}},
                "effective": [{"from": "2026-12-01T00:00:00Z", "tiers": []}],
                "max_output_tokens": 16384, "max_input_tokens": 128000,
            },
            {"model": "o", "units": {"pages": 1}, "markup": "0.25"},
        ],
    })
}

/// Every place of a document.
fn pointers(json: &Value, at: &str, found: &mut Vec<String>) {
    found.push(at.to_owned());
    match json {
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(index, item)| pointers(item, &format!("{at}/{index}"), found));
        }
        Value::Object(fields) => fields.iter().for_each(|(key, item)| pointers(item, &format!("{at}/{key}"), found)),
        _ => {}
    }
}

/// Something to put where something else belongs.
fn intruder() -> impl Strategy<Value = Value> {
    prop_oneof![
        proptest::sample::select(vec![
            json!(null),
            json!(true),
            json!([]),
            json!({}),
            json!(""),
            json!("*"),
            json!("0"),
            json!("-0"),
            json!(-1),
            json!(u64::MAX),
            json!(1e300),
            json!("1e-30"),
            json!("18446744073709551615"),
            json!("00:00-24:00"),
            json!("2026-02-30T00:00:00Z"),
            json!(["a*", "*a"]),
        ]),
        any::<String>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn charges_sum_to_the_cost(model in prices(rate()), counts in counts(), quantities in vec(option::of(rate()), 8)) {
        let units: Units = Unit::ALL.into_iter().zip(quantities).filter_map(|(unit, n)| Some((unit, n?))).collect();
        let cost = cost(&model, &usage(&counts), &units, &Circumstances::default()).unwrap();
        prop_assert!(!cost.saturated);
        prop_assert_eq!(sum(&cost), Some(cost.total.pico()));
        let tokens = counts.iter().filter(|(_, tokens)| **tokens > 0).count();
        prop_assert!(cost.charges.len() <= tokens + units.len());
    }

    #[test]
    fn a_usage_in_two_halves_costs_the_same_but_for_rounding(model in prices(rate()), a in counts(), b in counts(), commercial in factor()) {
        let model = Model { commercial, ..model };
        let mut both = a.clone();
        b.iter().for_each(|(&class, tokens)| *both.entry(class).or_default() += tokens);
        let [a, b, both] = [a, b, both].map(|counts| priced(&model, &usage(&counts)));
        let apart = a.total.pico() + b.total.pico();
        prop_assert!((both.total.pico() - apart).unsigned_abs() <= both.charges.len() as u128);
    }

    #[test]
    fn more_tokens_never_cost_less(model in prices(rate()), counts in counts(), class in 0..COUNTED.len(), more in 1u64..1 << 32) {
        let before = priced(&model, &usage(&counts));
        let mut counts = counts;
        *counts.entry(class).or_default() += more;
        prop_assert!(priced(&model, &usage(&counts)).total >= before.total);
    }

    #[test]
    fn a_context_tier_reprices_every_token(model in prices(rate()), fresh in 0u64..1 << 20, cached in 0u64..1 << 20) {
        // The same usage on both sides of the bound, and at a model with the tier's rates alone.
        let tier = |from: u64, rates: &Rates| {
            let mut model = model.clone();
            model.terms.standard.tiers = [ContextTier { from, rates: rates.clone() }].into();
            model
        };
        // A class that a tier leaves out would keep its rate.
        let others = model.terms.standard.tiers[0].rates.iter().filter(|(class, _)| *class != Class::CachedInput);
        let rates: Rates = others.chain([(Class::CachedInput, Decimal::ONE)]).collect();
        let (reached, missed) = (tier(fresh + cached, &rates), tier(fresh + cached + 1, &rates));
        let mut always = model.clone();
        always.terms.standard = Schedule { rates, ..Schedule::default() };
        // Input, cached input and output.
        let usage = usage(&[(0, fresh), (1, cached), (10, 7)].into());
        prop_assert_eq!(priced(&reached, &usage).total, priced(&always, &usage).total);
        prop_assert_eq!(priced(&missed, &usage).total, priced(&model, &usage).total);
    }

    #[test]
    fn absurd_numbers_saturate_and_say_so(
        model in prices(any_decimal()), counts in vec(option::of(any::<u64>()), 6), quantity in any_decimal(),
        commercial in any_decimal(), multiplier in any_decimal(),
    ) {
        let report = UsageReport {
            input: counts[0], cached_input: counts[1], cache_creation: counts[2], input_audio: counts[3],
            output: counts[4], reasoning: counts[5], ..UsageReport::default()
        };
        let model = Model { commercial, ..model };
        let circumstances = Circumstances { multiplier: Some(multiplier), ..Circumstances::default() };
        let units: Units = Unit::ALL.into_iter().map(|unit| (unit, quantity)).collect();
        for rule in [Rule::OpenAi, Rule::CacheApart, Rule::ThoughtsApart, Rule::ReasoningApart] {
            let cost = cost(&model, &report.normalise(rule), &units, &circumstances).unwrap();
            prop_assert!(cost.charges.iter().all(|charge| charge.cost >= Usd::ZERO));
            prop_assert_eq!(cost.saturated, cost.total == Usd::MAX);
            prop_assert_eq!(sum(&cost).unwrap_or(i128::MAX), cost.total.pico());
        }
    }

    #[test]
    fn factors_may_come_in_any_order(
        model in prices(rate()), counts in counts(), factors in vec(factor(), 6),
        order in Just((0..6usize).collect::<Vec<_>>()).prop_shuffle(),
    ) {
        let total = |factors: &[Decimal]| {
            let of = |name: &str, factor: Decimal| -> Factors { [(Glob::new(name), factor)].into() };
            let mut model = model.clone();
            model.terms.multipliers =
                Multipliers { speed: of("fast", factors[0]), geo: of("us", factors[1]), region: of("e*", factors[2]) };
            model.terms.service_tiers = [ServiceTier {
                name: "flex".into(), schedule: Schedule::default(), units: UnitRates::default(), multiplier: factors[3],
            }].into();
            model.commercial = factors[4];
            let circumstances = Circumstances {
                speed: Some("fast"), geo: Some("us"), region: Some("eu"), service_tier: Some("flex"),
                multiplier: Some(factors[5]), ..Circumstances::default()
            };
            let cost = cost(&model, &usage(&counts), &Units::new(), &circumstances).unwrap();
            (cost.total, cost.saturated)
        };
        let shuffled: Vec<_> = order.iter().map(|&index| factors[index]).collect();
        prop_assert_eq!(total(&factors), total(&shuffled));
        prop_assert!(!total(&factors).1);
    }

    #[test]
    fn a_model_is_found_by_its_own_name_and_any_name_finds_one_or_none(
        models in vec((provider(), name(), vec(name(), 0..3)), 1..8), asked in vec(name(), 1..8), region in option::of("(eu|us|)"),
    ) {
        let models: Vec<_> = models.into_iter().map(|(provider, name, aliases)| Model {
            provider: provider.map(Into::into), name: name.into(),
            aliases: aliases.iter().map(|alias| Glob::new(alias)).collect(), ..Model::default()
        }).collect();
        let own: BTreeSet<_> = models.iter().map(|model| (model.provider.clone(), model.name.clone())).collect();
        match PriceTable::new(None, models) {
            Err(clashes) => prop_assert!(!clashes.is_empty()),
            Ok(table) => {
                prop_assert_eq!(own.len(), table.models().len(), "a name twice, and nobody complained");
                for (provider, name) in &own {
                    let biller = provider.as_deref().map_or(Biller::Unknown, Biller::Known);
                    let (found, how) = table.find(name, biller, None).expect("its own name");
                    prop_assert_eq!((&found.provider, &found.name, how), (provider, name, Match::Exact));
                }
                for name in &asked {
                    for biller in [Biller::Unknown, Biller::Likely("openai"), Biller::Known("azure"), Biller::Known("x")] {
                        let first = table.find(name, biller, region.as_deref()).map(|(model, _)| model.name.clone());
                        let again = table.find(name, biller, region.as_deref()).map(|(model, _)| model.name.clone());
                        prop_assert_eq!(first, again);
                    }
                }
            }
        }
    }

    #[test]
    fn the_dearest_model_is_among_the_dearest(models in vec(at_times(), 1..8), input in 0u64..200, output in 0u64..200, now in 0u64..200) {
        let named = models.into_iter().enumerate().map(|(n, model)| Model { name: n.to_string().into(), ..model });
        let table = PriceTable::new(None, named.collect()).unwrap();
        let usage = usage(&[(0, input), (9, output)].into());
        let circumstances = Circumstances { unix_seconds: now, ..Circumstances::default() };
        let highest = |models: Vec<&Model>| {
            models.into_iter().map(|model| cost(model, &usage, &Units::new(), &circumstances).unwrap().total).max()
        };
        prop_assert_eq!(highest(table.dearest(Biller::Unknown)), highest(table.models().iter().collect()));
    }

    #[test]
    fn terms_are_those_of_the_last_date_that_has_come(
        first in rates(rate()), later in btree_map(0u64..1000, rates(rate()), 0..6), now in 0u64..1100,
    ) {
        let terms = |rates: &Rates| Terms {
            standard: Schedule { rates: rates.clone(), ..Schedule::default() },
            ..Terms::default()
        };
        let expected = later.range(..=now).next_back().map_or(&first, |(_, rates)| rates);
        let model = Model {
            terms: terms(&first), later: later.iter().map(|(&from, rates)| (from, terms(rates))).collect(), ..Model::default()
        };
        prop_assert_eq!(model.terms_at(now), &terms(expected));
    }

    #[test]
    fn a_damaged_price_table_is_read_or_refused(damages in vec((any::<prop::sample::Index>(), intruder()), 1..4)) {
        let mut section = full_section();
        for (place, intruder) in damages {
            let mut places = Vec::new();
            pointers(&section, "", &mut places);
            *section.pointer_mut(place.get::<String>(&places)).unwrap() = intruder;
        }
        for origin in [Origin::Json, Origin::Struct] {
            match Config::from_json(&json!({"prices": section}).to_string(), origin) {
                Ok(config) => config.prices.table.models().iter().for_each(|model| {
                    model.terms_at(u64::MAX).apply(u64::MAX, &Circumstances::default());
                }),
                Err(errors) => prop_assert!(!errors.is_empty() && errors.iter().all(|error| error.path.starts_with("prices"))),
            }
        }
    }
}

#[test]
fn the_whole_section_is_good_before_it_is_damaged() {
    let config = Config::from_json(&json!({"prices": full_section()}).to_string(), Origin::Json);
    assert_eq!(config.map(|config| config.prices.table.models().len()).map_err(|errors| format!("{errors:?}")), Ok(2));
}
