//! One genai-prices model as terms, and as terms from later dates on.

use super::super::amount::Amount;
use super::super::losses::Report;
use super::super::table::{Effective, Factor, OffPeak, Rates, ServiceTier, Terms, Threshold, Tiers, UnitPrice, Units};
use super::is_null;
use crate::document::Node;
use std::collections::{BTreeMap, BTreeSet};
use tollgate::usage::{Class, Unit};

const RATES: [(&str, Class); 15] = [
    ("input_mtok", Class::Input),
    ("cache_read_mtok", Class::CachedInput),
    ("cache_write_mtok", Class::CacheCreation),
    ("cache_write_1h_mtok", Class::CacheCreation1h),
    ("cache_audio_write_mtok", Class::CacheCreationAudio),
    ("input_audio_mtok", Class::InputAudio),
    ("cache_audio_read_mtok", Class::CachedInputAudio),
    ("input_image_mtok", Class::InputImage),
    ("cache_image_read_mtok", Class::CachedInputImage),
    ("input_video_mtok", Class::InputVideo),
    ("output_mtok", Class::Output),
    ("output_reasoning_mtok", Class::Reasoning),
    ("output_audio_mtok", Class::OutputAudio),
    ("output_image_mtok", Class::OutputImage),
    ("output_video_mtok", Class::OutputVideo),
];

/// The same for a class that one key prices in whole and another for one lifetime of the cache.
const OTHER_RATES: [(&str, Class); 2] =
    [("cache_write_5m_mtok", Class::CacheCreation), ("output_citation_mtok", Class::Citation)];

/// A unit and how the source counts it.
const UNITS: [(&str, Unit, Count); 6] = [
    ("web_searches_kcount", Unit::WebSearchRequests, Count::Power(3)),
    ("requests_kcount", Unit::Requests, Count::Power(3)),
    ("input_document_kpages", Unit::Pages, Count::Power(3)),
    ("input_mchars", Unit::Characters, Count::Power(6)),
    ("audio_hours", Unit::AudioSeconds, Count::Times(3600)),
    ("input_audio_hours", Unit::AudioSeconds, Count::Times(3600)),
];

/// How many units a price is for.
#[derive(Clone, Copy)]
enum Count {
    /// A power of ten, so that the price of one is a decimal.
    Power(i64),
    /// Another number.
    Times(u64),
}

/// What `prices` of a model or variant come to.
#[derive(Clone, Debug, Default, PartialEq)]
struct Prices {
    rates: Rates,
    tiers: Tiers,
    units: Units,
}

/// The model's terms now, and later ones, ascending.
pub(super) fn read(place: &str, model: &Node, report: &mut Report) -> (Terms, Vec<Effective>) {
    let mut reader = Reader { place, report, told: BTreeSet::new() };
    let Some(prices) = model.get("prices") else { return Default::default() };
    let standard = reader.conditional(prices);
    let variants = reader.variants(model.get("price_variants"));
    let dated = standard.iter().map(|price| &price.when).chain(variants.iter().map(|variant| &variant.constraint));
    let dates: BTreeSet<&str> = dated.filter_map(Constraint::date).collect();
    let first = reader.at(&standard, &variants, None);
    let mut last = first.clone();
    let mut effective = Vec::new();
    for date in dates {
        let terms = reader.at(&standard, &variants, Some(date));
        if terms != last {
            effective.push(Effective { from: format!("{date}T00:00:00Z"), terms: terms.clone() });
            last = terms;
        }
    }
    for variant in variants.iter().filter(|variant| variant.place.is_none()) {
        let when: Vec<String> = variant.when.iter().map(|(key, value)| format!("{key}={value}")).collect();
        reader.report.lose(place, &format!("price_variants[{}]", when.join(" ")), "the table has no such condition");
    }
    (first, effective)
}

/// When a price counts.
#[derive(Clone, Debug, PartialEq)]
enum Constraint {
    Always,
    From(String),
    Daily(String),
    /// A condition that no table can say.
    Unknown,
}

impl Constraint {
    fn date(&self) -> Option<&str> {
        if let Constraint::From(date) = self { Some(date) } else { None }
    }

    /// Whether it holds on `date`, whatever the hour; `None` is before all dates.
    fn holds(&self, date: Option<&str>) -> bool {
        match self {
            Constraint::Always => true,
            // Both are ISO dates.
            Constraint::From(from) => date.is_some_and(|date| from.as_str() <= date),
            Constraint::Daily(_) | Constraint::Unknown => false,
        }
    }
}

struct Conditional {
    when: Constraint,
    prices: Prices,
}

struct Variant {
    when: Vec<(String, String)>,
    constraint: Constraint,
    prices: Prices,
    place: Option<Place>,
}

/// Where a variant stands in a table.
#[derive(Clone, Debug, PartialEq)]
enum Place {
    Service(String),
    Speed(String),
}

struct Reader<'a> {
    place: &'a str,
    report: &'a mut Report,
    /// Losses that were told: a price that holds on several dates is lost once.
    told: BTreeSet<String>,
}

impl Reader<'_> {
    /// A model's prices in the order of the source: the last that holds counts, and the first where none does.
    fn conditional(&mut self, prices: &Node) -> Vec<Conditional> {
        if prices.elements().is_empty() {
            return vec![Conditional { when: Constraint::Always, prices: self.prices(prices) }];
        }
        let read = |(index, element): (usize, &Node)| {
            let when = self.constraint(element.get("constraint"));
            let prices = element.get("prices").map(|prices| self.prices(prices)).unwrap_or_default();
            // Before all dates the first one counts.
            let when = if index == 0 { Constraint::Always } else { when };
            Conditional { when, prices }
        };
        prices.elements().iter().enumerate().map(read).collect()
    }

    fn constraint(&mut self, node: Option<&Node>) -> Constraint {
        let Some(node) = node.filter(|node| !is_null(node)) else { return Constraint::Always };
        let text = |key: &str| node.get(key).and_then(Node::text);
        // JSON has 00:30:00Z where Python has a time of hours and minutes.
        let minutes = |time: &str| time.get(..5).map(str::to_owned);
        match (text("start_date"), text("start_time").and_then(minutes), text("end_time").and_then(minutes)) {
            (Some(date), ..) => Constraint::From(date.into()),
            (None, Some(start), Some(end)) => Constraint::Daily(format!("{start}-{end}")),
            _ => {
                self.report.lose(self.place, "constraint", "neither a date nor hours");
                Constraint::Unknown
            }
        }
    }

    fn variants(&mut self, node: Option<&Node>) -> Vec<Variant> {
        let mut variants = Vec::new();
        for variant in node.map(Node::elements).unwrap_or_default() {
            let prices = variant.get("prices").map(|prices| self.prices(prices)).unwrap_or_default();
            if prices == Prices::default() {
                continue;
            }
            let conditions = variant.get("when").map(Node::entries).unwrap_or_default();
            let text = |node: &Node| node.text().unwrap_or_default().to_owned();
            let when: Vec<(String, String)> =
                conditions.iter().map(|entry| (entry.key.clone(), text(&entry.value))).collect();
            let place = match when.as_slice() {
                [(key, value)] => match (key.as_str(), value.as_str()) {
                    ("processing", "batch") => Some(Place::Service("batch".into())),
                    ("service_tier", name) => Some(Place::Service(name.to_ascii_lowercase())),
                    ("speed", name) => Some(Place::Speed(name.into())),
                    _ => None,
                },
                _ => None,
            };
            let constraint = self.constraint(variant.get("constraint"));
            if matches!(constraint, Constraint::Daily(_)) {
                self.report.lose(self.place, "price_variants", "hours in a variant");
            }
            variants.push(Variant { when, constraint, prices, place });
        }
        variants
    }

    /// All terms on a date.
    fn at(&mut self, standard: &[Conditional], variants: &[Variant], date: Option<&str>) -> Terms {
        let active = standard.iter().rposition(|price| price.when.holds(date)).unwrap_or_default();
        let Some(plain) = standard.get(active).map(|price| price.prices.clone()) else { return Terms::default() };
        let mut terms = Terms { rates: plain.rates, tiers: plain.tiers, units: plain.units, ..Terms::default() };
        // The last of the windows that are open counts in the source; in a table they must not overlap.
        for price in standard.iter().skip(active + 1) {
            if let Constraint::Daily(hours) = &price.when {
                let rates = self.flat(&price.prices);
                terms.off_peak.push(OffPeak { hours_utc: vec![hours.clone()], weekdays: Vec::new(), rates });
            }
        }
        let mut places: Vec<&Place> = Vec::new();
        for place in variants.iter().filter_map(|variant| variant.place.as_ref()) {
            if !places.contains(&place) {
                places.push(place);
            }
        }
        for place in places {
            let active = variants.iter().filter(|variant| variant.place.as_ref() == Some(place));
            let Some(prices) = overlaid(active.filter(|variant| variant.constraint.holds(date))) else { continue };
            match place {
                Place::Service(name) => drop(terms.service_tiers.insert(name.clone(), service_tier(&terms, prices))),
                Place::Speed(name) => match multiplier(&terms, &prices) {
                    Some(factor) => {
                        terms.multipliers.entry(Factor::Speed).or_default().insert(name.clone(), factor);
                    }
                    None => {
                        let key = format!("price_variants[speed={name}]");
                        self.lose_once(key, "not the same multiple of every rate");
                    }
                },
            }
        }
        terms
    }

    /// Rates alone: a block of hours has no place for tiers and units.
    fn flat(&mut self, prices: &Prices) -> Rates {
        if !prices.tiers.is_empty() || !prices.units.is_empty() {
            self.lose_once("prices".into(), "tiers or units at some hours");
        }
        prices.rates.clone()
    }

    fn lose_once(&mut self, key: String, reason: &str) {
        if self.told.insert(key.clone()) {
            self.report.lose(self.place, &key, reason);
        }
    }

    fn prices(&mut self, node: &Node) -> Prices {
        let mut prices = Prices::default();
        for (key, value) in node.entries().iter().map(|entry| (entry.key.as_str(), &entry.value)) {
            if is_null(value) {
                continue;
            }
            if let Some((_, class)) = RATES.iter().chain(&OTHER_RATES).find(|(name, _)| *name == key) {
                self.rate(key, value, *class, &mut prices);
            } else if let Some((_, unit, count)) = UNITS.iter().find(|(name, ..)| *name == key) {
                let unit = self.search_unit(*unit);
                self.unit(key, value, unit, *count, &mut prices.units);
            } else {
                self.report.lose_price(self.place, key, amount(value).as_ref(), "the table has no such price");
            }
        }
        prices
    }

    /// Before Gemini 3, Google bills a prompt that was grounded on searches, however many; the source counts searches.
    fn search_unit(&mut self, unit: Unit) -> Unit {
        let by_prompt = ["google/gemini-1", "google/gemini-2"].iter().any(|family| self.place.starts_with(family));
        if unit != Unit::WebSearchRequests || !by_prompt {
            return unit;
        }
        if self.told.insert("search unit".into()) {
            self.report.change(self.place, "searches by the grounded prompt, as Google bills them before Gemini 3");
        }
        Unit::GroundedRequests
    }

    /// A rate, or rates by size of input: `base` up to the first `start`, then all tokens at that tier's price.
    fn rate(&mut self, key: &str, value: &Node, class: Class, prices: &mut Prices) {
        let base = value.get("base").unwrap_or(value);
        let Some(rate) = self.per_million(key, base) else { return };
        if prices.rates.get(class).is_some_and(|known| *known != rate) {
            return self.report.lose_price(self.place, key, Some(&rate), "another key has another price for it");
        }
        prices.rates.set(class, rate);
        for tier in value.get("tiers").map(Node::elements).unwrap_or_default() {
            let start = tier.get("start").and_then(Node::text).and_then(|start| start.parse::<u64>().ok());
            let rate = tier.get("price").and_then(|price| self.per_million(key, price));
            match (start.map(threshold), rate) {
                (Some(threshold), Some(rate)) => prices.tiers.entry(threshold).or_default().set(class, rate),
                _ => self.report.lose(self.place, key, "a tier without start or price"),
            }
        }
    }

    fn per_million(&mut self, key: &str, value: &Node) -> Option<Amount> {
        let Some(amount) = amount(value) else {
            self.report.lose(self.place, key, "not an amount");
            return None;
        };
        self.report.prices += 1;
        let (rate, noise) = amount.shifted(6).per_million();
        if noise {
            self.report.change(self.place, "float noise rounded away");
        }
        Some(rate)
    }

    fn unit(&mut self, key: &str, value: &Node, unit: Unit, count: Count, units: &mut Units) {
        let Some(amount) = amount(value) else {
            return self.report.lose(self.place, key, "not an amount");
        };
        let price = match count {
            Count::Power(places) => UnitPrice::one(amount.shifted(places)),
            Count::Times(per) => UnitPrice { usd: amount.clone(), per },
        };
        if units.get(&unit).is_some_and(|known| *known != price) {
            return self.report.lose_price(self.place, key, Some(&amount), "another key has another price for it");
        }
        self.report.prices += 1;
        units.insert(unit, price);
    }
}

fn amount(node: &Node) -> Option<Amount> {
    Amount::parse(node.text()?)
}

/// A tier begins above its start; xAI's begin at 200,000 and are written as 199,999.
fn threshold(start: u64) -> Threshold {
    if start % 1000 == 999 {
        Threshold { tokens: start + 1, inclusive: true }
    } else {
        Threshold { tokens: start, inclusive: false }
    }
}

/// Variants of one kind overlay the prices key by key; of two that hold the first has the say.
fn overlaid<'v>(variants: impl Iterator<Item = &'v Variant>) -> Option<Prices> {
    let mut all: Option<Prices> = None;
    for variant in variants {
        let prices = all.get_or_insert_default();
        let known: BTreeSet<&str> = prices.rates.iter().map(|(class, _)| class.name()).collect();
        let new: Vec<(Class, Amount)> = variant
            .prices
            .rates
            .iter()
            .filter(|(class, _)| !known.contains(class.name()))
            .map(|(c, r)| (c, r.clone()))
            .collect();
        for (class, rate) in new {
            prices.rates.set(class, rate);
            for (threshold, rates) in &variant.prices.tiers {
                if let Some(rate) = rates.get(class) {
                    prices.tiers.entry(*threshold).or_default().set(class, rate.clone());
                }
            }
        }
        for (unit, price) in &variant.prices.units {
            prices.units.entry(*unit).or_insert_with(|| price.clone());
        }
    }
    all
}

/// In a table the model's tiers count for its service tiers too, so a rate that a variant has for every size is said
/// again in each of the model's tiers.
fn service_tier(standard: &Terms, variant: Prices) -> ServiceTier {
    let mut tiers: BTreeMap<Threshold, Rates> = BTreeMap::new();
    let thresholds: BTreeSet<Threshold> = standard.tiers.keys().chain(variant.tiers.keys()).copied().collect();
    for (class, rate) in variant.rates.iter() {
        let mut current = rate;
        for threshold in &thresholds {
            let own = variant.tiers.get(threshold).and_then(|rates| rates.get(class));
            current = own.unwrap_or(current);
            let overridden = standard.tiers.get(threshold).is_some_and(|rates| rates.get(class).is_some());
            if own.is_some() || overridden {
                tiers.entry(*threshold).or_default().set(class, current.clone());
            }
        }
    }
    ServiceTier { rates: variant.rates, tiers, units: variant.units, multiplier: None }
}

/// The factor between a variant and the standard, if it is one for every class at every size.
fn multiplier(standard: &Terms, variant: &Prices) -> Option<Amount> {
    if !variant.units.is_empty() || !variant.tiers.keys().eq(standard.tiers.keys()) {
        return None;
    }
    let levels =
        std::iter::once((&standard.rates, &variant.rates)).chain(standard.tiers.values().zip(variant.tiers.values()));
    let mut factor: Option<Amount> = None;
    for (standard, variant) in levels {
        for class in Class::ALL {
            let here = match (standard.get(class), variant.get(class)) {
                (None, None) => continue,
                (Some(standard), Some(variant)) if standard.is_zero() && variant.is_zero() => continue,
                (Some(standard), Some(variant)) => variant.ratio(standard)?,
                _ => return None,
            };
            if factor.get_or_insert_with(|| here.clone()) != &here {
                return None;
            }
        }
    }
    factor
}
