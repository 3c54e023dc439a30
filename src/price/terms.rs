//! What a model is sold at: rates, and everything that replaces or multiplies them.
//!
//! Which rates apply to a call is decided in one place, [`Terms::apply`]. Each step lays its rates over the ones before,
//! class by class: the model's rates, the service tier's, each context tier the prompt reaches (ascending), each of the
//! service tier's own, the open off-peak window's. Multipliers come on top, as one exact decimal.

use super::rates::{Layers, Rates, UnitRates};
use crate::glob::Glob;
use crate::money::{Decimal, Rate};
use crate::usage::Unit;

/// Rates and the context sizes at which others replace them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Schedule {
    /// For a prompt of any size.
    pub rates: Rates,
    /// For larger ones, ascending. A tier is a cliff: it reprices the whole call.
    pub tiers: Box<[ContextTier]>,
}

/// Rates from a prompt size on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContextTier {
    /// The first total of input tokens, cached ones included, that it applies to.
    pub from: u64,
    /// Its rates.
    pub rates: Rates,
}

impl Schedule {
    fn reached(&self, input_tokens: u64) -> impl Iterator<Item = &Rates> {
        self.tiers.iter().filter(move |tier| input_tokens >= tier.from).map(|tier| &tier.rates)
    }
}

/// What differs at one service tier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceTier {
    /// Its name in lower case.
    pub name: Box<str>,
    /// Its own rates.
    pub schedule: Schedule,
    /// Its own prices of things that are not tokens.
    pub units: UnitRates,
    /// What multiplies its token rates.
    pub multiplier: Decimal,
}

/// Factors by the closest pattern.
pub type Factors = Box<[(Glob, Decimal)]>;

/// What multiplies token rates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Multipliers {
    /// By the speed the response says it was served at.
    pub speed: Factors,
    /// By the geography the response says it was served in.
    pub geo: Factors,
    /// By the region of the endpoint.
    pub region: Factors,
}

/// Rates for hours of little use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffPeak {
    /// When.
    pub windows: Box<[Window]>,
    /// Days of the week in UTC, bit 0 for Monday: of the moment itself, also where a window began the day before.
    pub weekdays: u8,
    /// Its rates.
    pub rates: Rates,
}

/// Part of a day in UTC; it may go over midnight, and one that ends where it starts is the whole day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// First minute of the day in it.
    pub start: u16,
    /// First minute of the day that is not.
    pub end: u16,
}

impl OffPeak {
    /// Every day of the week.
    pub const EVERY_DAY: u8 = 0b111_1111;

    fn is_open(&self, unix_seconds: u64) -> bool {
        let (day, second) = (unix_seconds / 86_400, unix_seconds % 86_400);
        // 1970-01-01 was a Thursday.
        let today = self.weekdays >> ((day + 3) % 7) & 1 == 1;
        today
            && self.windows.iter().any(|window| {
                let (start, end) = (u64::from(window.start) * 60, u64::from(window.end) * 60);
                if start < end { (start..end).contains(&second) } else { second >= start || second < end }
            })
    }
}

/// Everything a model is sold at, from one date to the next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// What applies where nothing else does.
    pub standard: Schedule,
    /// By the service tier the response says it was served at.
    pub service_tiers: Box<[ServiceTier]>,
    /// What multiplies token rates.
    pub multipliers: Multipliers,
    /// By the time of day.
    pub off_peak: Box<[OffPeak]>,
    /// Prices of things that are not tokens.
    pub units: UnitRates,
}

/// Under what circumstances a call was served, as far as prices depend on it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Circumstances<'a> {
    /// When it is billed: when it ended.
    pub unix_seconds: u64,
    /// The service tier, as the response names it.
    pub service_tier: Option<&'a str>,
    /// The speed, as the response names it.
    pub speed: Option<&'a str>,
    /// The geography, as the response names it.
    pub geo: Option<&'a str>,
    /// The region of the endpoint.
    pub region: Option<&'a str>,
    /// What the configuration says this upstream costs, as a multiple; `None`: once.
    pub multiplier: Option<Decimal>,
}

/// The prices of one call.
#[derive(Clone, Debug)]
pub struct Applied<'t> {
    /// Token rates.
    pub rates: Layers<'t>,
    /// What multiplies token rates; `None` where the product can't be kept.
    pub multiplier: Option<Decimal>,
    /// What multiplies everything: the customer's own terms.
    pub commercial: Option<Decimal>,
    /// The response names a service tier that has no terms of its own here.
    pub unknown_service_tier: bool,
    units: [Option<&'t UnitRates>; 2],
}

impl Applied<'_> {
    /// The price of `unit`.
    pub fn unit(&self, unit: Unit) -> Option<Rate> {
        self.units.iter().flatten().find_map(|rates| rates.get(unit))
    }
}

impl Terms {
    /// The prices of a call with so many input tokens under `circumstances`.
    pub fn apply(&self, input_tokens: u64, circumstances: &Circumstances<'_>) -> Applied<'_> {
        let named = circumstances.service_tier.and_then(service_tier_name);
        let find = |name: &str| self.service_tiers.iter().find(|tier| *tier.name == *name);
        let tier = named.as_deref().and_then(|name| match name {
            // One provider's word for what others call priority.
            "fast" => find(name).or_else(|| find("priority")),
            _ => find(name),
        });

        let mut rates = Layers::default();
        rates.lay(&self.standard.rates);
        if let Some(tier) = tier {
            rates.lay(&tier.schedule.rates);
        }
        self.standard.reached(input_tokens).for_each(|reached| rates.lay(reached));
        if let Some(tier) = tier {
            tier.schedule.reached(input_tokens).for_each(|reached| rates.lay(reached));
        }
        let open = self.off_peak.iter().filter(|off_peak| off_peak.is_open(circumstances.unix_seconds));
        open.for_each(|off_peak| rates.lay(&off_peak.rates));

        let factors = [
            tier.map(|tier| tier.multiplier),
            closest(&self.multipliers.speed, circumstances.speed),
            closest(&self.multipliers.geo, circumstances.geo),
            closest(&self.multipliers.region, circumstances.region),
        ];
        let multiplier = factors.into_iter().flatten().try_fold(Decimal::ONE, Decimal::product);
        Applied {
            rates,
            multiplier,
            commercial: Some(Decimal::ONE),
            unknown_service_tier: named.is_some() && tier.is_none(),
            units: [tier.map(|tier| &tier.units), Some(&self.units)],
        }
    }
}

/// The factor of the pattern that matches `name` and fixes most of it.
fn closest(factors: &Factors, name: Option<&str>) -> Option<Decimal> {
    let name = name?.to_ascii_lowercase();
    let fitting = factors.iter().filter(|(glob, _)| glob.matches(&name));
    fitting.max_by_key(|(glob, _)| glob.literal_bytes()).map(|&(_, factor)| factor)
}

/// A service tier's name in price tables; `None` for the ordinary one. Google names tiers by traffic types, also as
/// numbers of an enumeration.
fn service_tier_name(reported: &str) -> Option<String> {
    let name = reported.to_ascii_lowercase();
    let name = name.strip_prefix("on_demand_").or(name.strip_prefix("service_tier_")).unwrap_or(&name);
    match name {
        "" | "0" | "1" | "default" | "standard" | "auto" | "on_demand" | "unspecified" => None,
        "2" => Some("provisioned_throughput".into()),
        "batches" => Some("batch".into()),
        other => Some(other.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::usage::Class;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn decimal(text: &str) -> Decimal {
        Decimal::parse(text).unwrap()
    }

    fn rates(input: &str, output: &str) -> Rates {
        let both = [(Class::Input, input), (Class::Output, output)];
        both.into_iter().filter(|(_, usd)| !usd.is_empty()).map(|(class, usd)| (class, decimal(usd))).collect()
    }

    fn tier(from: u64, input: &str, output: &str) -> ContextTier {
        ContextTier { from, rates: rates(input, output) }
    }

    fn terms() -> Terms {
        Terms {
            standard: Schedule { rates: rates("1", "2"), tiers: [tier(101, "3", "4"), tier(201, "5", "")].into() },
            service_tiers: [
                ServiceTier {
                    name: "priority".into(),
                    schedule: Schedule { rates: rates("10", "20"), tiers: [tier(201, "50", "")].into() },
                    units: UnitRates::default(),
                    multiplier: Decimal::ONE,
                },
                ServiceTier {
                    name: "batch".into(),
                    schedule: Schedule::default(),
                    units: [(Unit::Pages, Rate::per_one(decimal("0.5")))].into_iter().collect(),
                    multiplier: decimal("0.5"),
                },
            ]
            .into(),
            multipliers: Multipliers {
                speed: [(Glob::new("fast"), decimal("2"))].into(),
                geo: [(Glob::new("us"), decimal("1.1"))].into(),
                region: [(Glob::new("*"), decimal("1.2")), (Glob::new("global"), Decimal::ONE)].into(),
            },
            units: [(Unit::Pages, Rate::per_one(decimal("1")))].into_iter().collect(),
            ..Terms::default()
        }
    }

    fn found(terms: &Terms, input_tokens: u64, circumstances: &Circumstances<'_>) -> String {
        let applied = terms.apply(input_tokens, circumstances);
        let rate = |class| applied.rates.get(class).map_or("-".into(), |usd: Decimal| usd.to_string());
        let multiplier = applied.multiplier.unwrap();
        let unknown = if applied.unknown_service_tier { " ?" } else { "" };
        format!("{} {} x{multiplier}{unknown}", rate(Class::Input), rate(Class::Output))
    }

    #[test]
    fn a_context_tier_is_a_cliff_and_service_tiers_lie_between() {
        for (input_tokens, service_tier, expected) in [
            (100, None, "1 2 x1"),
            (101, None, "3 4 x1"),
            (200, None, "3 4 x1"),
            (201, None, "5 4 x1"),
            (100, Some("priority"), "10 20 x1"),
            (101, Some("priority"), "3 4 x1"),
            (201, Some("PRIORITY"), "50 4 x1"),
            (100, Some("fast"), "10 20 x1"),
            (100, Some("ON_DEMAND_PRIORITY"), "10 20 x1"),
            (201, Some("batch"), "5 4 x0.5"),
            (100, Some("default"), "1 2 x1"),
            (100, Some("standard"), "1 2 x1"),
            (100, Some("ON_DEMAND"), "1 2 x1"),
            (100, Some("1"), "1 2 x1"),
            (100, Some("scale"), "1 2 x1 ?"),
            (100, Some("2"), "1 2 x1 ?"),
        ] {
            let circumstances = Circumstances { service_tier, ..Circumstances::default() };
            assert_eq!(found(&terms(), input_tokens, &circumstances), expected, "{input_tokens} {service_tier:?}");
        }
    }

    #[test]
    fn multipliers_multiply_exactly_and_the_closest_pattern_counts() {
        let plain = Circumstances::default();
        for (circumstances, multiplier) in [
            (Circumstances { speed: Some("fast"), ..plain }, "x2"),
            (Circumstances { speed: Some("standard"), ..plain }, "x1"),
            (Circumstances { geo: Some("us"), ..plain }, "x1.1"),
            (Circumstances { geo: Some("not_available"), ..plain }, "x1"),
            (Circumstances { region: Some("europe-west1"), ..plain }, "x1.2"),
            (Circumstances { region: Some("Global"), ..plain }, "x1"),
            (
                Circumstances {
                    speed: Some("fast"),
                    geo: Some("us"),
                    region: Some("eu"),
                    service_tier: Some("batch"),
                    ..plain
                },
                "x1.32",
            ),
        ] {
            assert!(found(&terms(), 1, &circumstances).ends_with(multiplier), "{circumstances:?}");
        }
    }

    #[test]
    fn a_service_tier_may_have_unit_prices_of_its_own() {
        let terms = terms();
        let price = |service_tier| {
            let circumstances = Circumstances { service_tier, ..Circumstances::default() };
            terms.apply(0, &circumstances).unit(Unit::Pages).unwrap().usd.to_string()
        };
        assert_eq!(
            (price(None), price(Some("batch")), price(Some("priority"))),
            ("1".into(), "0.5".into(), "1".into())
        );
        assert_eq!(terms.apply(0, &Circumstances::default()).unit(Unit::Images), None);
    }

    #[test]
    fn off_peak_windows_go_over_midnight_and_know_weekdays() {
        const THURSDAY: u64 = 1_795_046_400; // 2026-11-19T00:00:00Z
        let at = |days: u64, hour: u64, minute: u64| THURSDAY + days * 86_400 + hour * 3600 + minute * 60;
        let minute = |hour: u16, minute: u16| hour * 60 + minute;
        let night = Window { start: minute(16, 30), end: minute(0, 30) };
        let day = Window { start: minute(4, 0), end: minute(6, 0) };
        let whole = Window { start: 0, end: 0 };
        for (window, weekdays, time, open) in [
            (night, OffPeak::EVERY_DAY, at(0, 16, 29), false),
            (night, OffPeak::EVERY_DAY, at(0, 16, 30), true),
            (night, OffPeak::EVERY_DAY, at(0, 0, 29), true),
            (night, OffPeak::EVERY_DAY, at(0, 0, 30), false),
            (day, OffPeak::EVERY_DAY, at(0, 5, 59), true),
            (day, OffPeak::EVERY_DAY, at(0, 6, 0), false),
            // Monday to Friday, by the day of the moment.
            (night, 0b001_1111, at(2, 0, 15), false),
            (night, 0b001_1111, at(4, 0, 15), true),
            (night, 0b001_1111, at(2, 17, 0), false),
            // The weekend, whole.
            (whole, 0b110_0000, at(1, 23, 59), false),
            (whole, 0b110_0000, at(2, 0, 0), true),
            (whole, 0b110_0000, at(3, 23, 59), true),
            (whole, 0b110_0000, at(4, 0, 0), false),
        ] {
            let off_peak = OffPeak { windows: [window].into(), weekdays, rates: rates("0.1", "") };
            let terms = Terms { off_peak: [off_peak].into(), ..terms() };
            let circumstances = Circumstances { unix_seconds: time, ..Circumstances::default() };
            let expected = if open { "0.1 4 x1" } else { "3 4 x1" };
            assert_eq!(found(&terms, 150, &circumstances), expected, "{window:?} {weekdays:07b} at {time}");
        }
    }
}
