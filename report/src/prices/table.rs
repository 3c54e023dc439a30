//! A price table being built: what the section `prices` of the configuration can say, amounts exact.

use super::amount::Amount;
use super::layout::Doc;
use std::collections::BTreeMap;
use tollgate::usage::{Class, Unit};

/// Dollars per million tokens, by class.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Rates([Option<Amount>; Class::ALL.len()]);

impl Rates {
    /// The rate of `class`, without falling back.
    pub(crate) fn get(&self, class: Class) -> Option<&Amount> {
        self.0.get(index(class)).and_then(Option::as_ref)
    }

    /// Gives `class` a rate.
    pub(crate) fn set(&mut self, class: Class, rate: Amount) {
        if let Some(slot) = self.0.get_mut(index(class)) {
            *slot = Some(rate);
        }
    }

    /// Gives `class` a rate unless it has one.
    pub(crate) fn set_missing(&mut self, class: Class, rate: Option<Amount>) {
        if let (None, Some(rate)) = (self.get(class), rate) {
            self.set(class, rate);
        }
    }

    /// Takes the rate of `class` away.
    pub(crate) fn remove(&mut self, class: Class) {
        if let Some(slot) = self.0.get_mut(index(class)) {
            *slot = None;
        }
    }

    /// Classes with a rate, in the order of the schema.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Class, &Amount)> {
        Class::ALL.into_iter().zip(&self.0).filter_map(|(class, rate)| rate.as_ref().map(|rate| (class, rate)))
    }

    /// Whether no class has a rate.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.iter().all(Option::is_none)
    }

    fn doc(&self) -> Doc {
        Doc::Map(self.iter().map(|(class, rate)| (class.name().into(), Doc::amount(rate))).collect())
    }
}

/// Where a class stands; `Class::ALL` is in the order of the schema.
fn index(class: Class) -> usize {
    Class::ALL.iter().position(|&other| other == class).unwrap_or(usize::MAX)
}

/// The total input from which a tier applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Threshold {
    /// In tokens.
    pub(crate) tokens: u64,
    /// Whether a call of exactly as many tokens is in the tier.
    pub(crate) inclusive: bool,
}

/// Rates by threshold, ascending.
pub(crate) type Tiers = BTreeMap<Threshold, Rates>;

fn tiers_doc(tiers: &Tiers) -> Doc {
    let tier = |(threshold, rates): (&Threshold, &Rates)| {
        let key = if threshold.inclusive { "input_from" } else { "input_over" };
        Doc::Map(vec![(key.into(), Doc::Number(threshold.tokens)), ("rates".into(), rates.doc())])
    };
    Doc::List(tiers.iter().map(tier).collect())
}

/// The price of things that are no tokens.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct UnitPrice {
    /// Dollars.
    pub(crate) usd: Amount,
    /// For how many of them: an hour has 3600 seconds and a third of a cent no decimal.
    pub(crate) per: u64,
}

impl UnitPrice {
    /// Dollars for one.
    pub(crate) fn one(usd: Amount) -> UnitPrice {
        UnitPrice { usd, per: 1 }
    }

    fn doc(&self) -> Doc {
        match self.per {
            1 => Doc::amount(&self.usd),
            per => Doc::Map(vec![("usd".into(), Doc::amount(&self.usd)), ("per".into(), Doc::Number(per))]),
        }
    }
}

/// Prices by unit.
pub(crate) type Units = BTreeMap<Unit, UnitPrice>;

fn units_doc(units: &Units) -> Doc {
    Doc::Map(units.iter().map(|(unit, price)| (unit.name().into(), price.doc())).collect())
}

/// What differs at one service tier.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ServiceTier {
    /// Rates that replace the model's.
    pub(crate) rates: Rates,
    /// Rates that replace the model's tiers'.
    pub(crate) tiers: Tiers,
    /// Unit prices that replace the model's.
    pub(crate) units: Units,
    /// What every token charge is multiplied by.
    pub(crate) multiplier: Option<Amount>,
}

impl ServiceTier {
    fn doc(&self) -> Doc {
        let mut map = Vec::new();
        push(&mut map, "rates", self.rates.doc());
        push(&mut map, "tiers", tiers_doc(&self.tiers));
        push(&mut map, "units", units_doc(&self.units));
        if let Some(multiplier) = &self.multiplier {
            map.push(("multiplier".into(), Doc::amount(multiplier)));
        }
        Doc::Map(map)
    }
}

/// Rates at some hours.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct OffPeak {
    /// `HH:MM-HH:MM`, UTC.
    pub(crate) hours_utc: Vec<String>,
    /// 1 is Monday; empty means every day.
    pub(crate) weekdays: Vec<u8>,
    /// Rates that replace all others.
    pub(crate) rates: Rates,
}

impl OffPeak {
    fn doc(&self) -> Doc {
        let hours = match self.hours_utc.as_slice() {
            [one] => Doc::text(one),
            several => Doc::List(several.iter().map(|hours| Doc::text(hours)).collect()),
        };
        let mut map = vec![("hours_utc".into(), hours)];
        let weekdays = self.weekdays.iter().map(|&day| Doc::Number(day.into())).collect();
        push(&mut map, "weekdays", Doc::List(weekdays));
        map.push(("rates".into(), self.rates.doc()));
        Doc::Map(map)
    }
}

/// A dimension whose values multiply a token charge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Factor {
    /// Fast answers.
    Speed,
    /// Where a provider was told to compute.
    Geo,
    /// The endpoint's region.
    Region,
}

impl Factor {
    fn name(self) -> &'static str {
        match self {
            Factor::Speed => "speed",
            Factor::Geo => "geo",
            Factor::Region => "region",
        }
    }
}

/// Everything that makes a price.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Terms {
    /// Dollars per million tokens.
    pub(crate) rates: Rates,
    /// Rates of long inputs.
    pub(crate) tiers: Tiers,
    /// What differs by service tier.
    pub(crate) service_tiers: BTreeMap<String, ServiceTier>,
    /// Factors by value of a dimension.
    pub(crate) multipliers: BTreeMap<Factor, BTreeMap<String, Amount>>,
    /// Rates by time of day.
    pub(crate) off_peak: Vec<OffPeak>,
    /// Prices of other things than tokens.
    pub(crate) units: Units,
}

impl Terms {
    /// Whether nothing has a price.
    pub(crate) fn is_empty(&self) -> bool {
        self.rates.is_empty() && self.units.is_empty() && self.tiers.is_empty() && self.service_tiers.is_empty()
    }

    /// In the order of the schema; also what is empty.
    fn docs(&self) -> [(&'static str, Doc); 6] {
        let service_tiers = self.service_tiers.iter().map(|(name, tier)| (name.clone(), tier.doc()));
        let multipliers = self.multipliers.iter().map(|(factor, values)| {
            let values = values.iter().map(|(value, factor)| (value.clone(), Doc::amount(factor)));
            (factor.name().into(), Doc::Map(values.collect()))
        });
        [
            ("rates", self.rates.doc()),
            ("tiers", tiers_doc(&self.tiers)),
            ("service_tiers", Doc::Map(service_tiers.collect())),
            ("multipliers", Doc::Map(multipliers.collect())),
            ("off_peak", Doc::List(self.off_peak.iter().map(OffPeak::doc).collect())),
            ("units", units_doc(&self.units)),
        ]
    }
}

/// Terms from a time on.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Effective {
    /// RFC 3339, UTC.
    pub(crate) from: String,
    /// All of them; only what changes is written.
    pub(crate) terms: Terms,
}

/// One model of the table.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Model {
    /// Who bills it.
    pub(crate) provider: Option<String>,
    /// Its name.
    pub(crate) name: String,
    /// Other names and globs.
    pub(crate) aliases: Vec<String>,
    /// Its prices.
    pub(crate) terms: Terms,
    /// Its prices later, ascending.
    pub(crate) effective: Vec<Effective>,
    /// The longest answer.
    pub(crate) max_output_tokens: Option<u64>,
    /// The longest input.
    pub(crate) max_input_tokens: Option<u64>,
}

impl Model {
    /// As it stands in the configuration, keys in the order of the schema.
    pub(crate) fn doc(&self) -> Doc {
        let mut map = Vec::new();
        if let Some(provider) = &self.provider {
            map.push(("provider".into(), Doc::text(provider)));
        }
        map.push(("model".into(), Doc::text(&self.name)));
        push(&mut map, "aliases", Doc::List(self.aliases.iter().map(|alias| Doc::text(alias)).collect()));
        // A model with prices at some service tiers only says so; without a word it would look forgotten.
        let no_standard = self.terms.rates.is_empty() && self.terms.units.is_empty();
        for (key, doc) in self.terms.docs() {
            if key == "rates" && no_standard {
                map.push((key.into(), doc));
            } else {
                push(&mut map, key, doc);
            }
        }
        push(&mut map, "effective", self.effective_doc());
        for (key, tokens) in
            [("max_output_tokens", self.max_output_tokens), ("max_input_tokens", self.max_input_tokens)]
        {
            if let Some(tokens) = tokens {
                map.push((key.into(), Doc::Number(tokens)));
            }
        }
        Doc::Map(map)
    }

    /// A key that is given replaces the one before, so only what differs is written, and what ends is written empty.
    fn effective_doc(&self) -> Doc {
        let mut before = &self.terms;
        let mut list = Vec::new();
        for later in &self.effective {
            let mut map = vec![("from".into(), Doc::text(&later.from))];
            let changed = later.terms.docs().into_iter().zip(before.docs()).filter(|(now, then)| now != then);
            map.extend(changed.map(|((key, doc), _)| (key.into(), doc)));
            before = &later.terms;
            list.push(Doc::Map(map));
        }
        Doc::List(list)
    }
}

/// Adds what is not empty.
fn push(map: &mut Vec<(String, Doc)>, key: &str, doc: Doc) {
    if !doc.is_empty() {
        map.push((key.into(), doc));
    }
}
