//! The section `prices`.

use super::node::{Node, Object};
use crate::glob::Glob;
use crate::money::{Decimal, Rate};
use crate::price::{
    ContextTier, Factors, Model, Multipliers, OffPeak, PriceTable, Rates, Schedule, ServiceTier, Terms, UnitRates,
    Window,
};
use crate::time;
use crate::usage::{Class, Unit};
use hashbrown::HashMap;

/// The section `prices`.
#[derive(Debug, Default)]
pub struct PricesConfig {
    /// All models.
    pub table: PriceTable,
    /// What becomes of a call whose model is not among them; `None`: as budgets need it.
    pub on_unknown_model: Option<OnUnknownModel>,
}

/// What becomes of a call whose model has no price.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnUnknownModel {
    /// It passes, and its record has no cost.
    Allow,
    /// It is refused before the provider sees it.
    Reject,
    /// It passes and is priced as the dearest model of its provider.
    AssumeHighest,
}

pub(super) fn read(node: Node<'_, '_>) -> Option<PricesConfig> {
    let object = node.object()?;
    let version = object.get("version").and_then(owned);
    let policies = [
        ("allow", OnUnknownModel::Allow),
        ("reject", OnUnknownModel::Reject),
        ("assume_highest", OnUnknownModel::AssumeHighest),
    ];
    let on_unknown_model = object.get("on_unknown_model").and_then(|policy| policy.one_of(&policies));
    let mut providers: HashMap<Box<str>, Decimal> = HashMap::new();
    if let Some(terms) = object.get("providers").and_then(Node::object) {
        terms.each(|name, terms| {
            if let Some(terms) = terms.object() {
                if let Some(multiple) = commercial(&terms) {
                    providers.insert(name.into(), multiple);
                }
                terms.finish();
            }
        });
    }
    let table = match object.get("models") {
        Some(list) => models(list, version, &providers),
        None => PriceTable::new(version, Vec::new()).ok(),
    };
    object.finish();
    Some(PricesConfig { table: table?, on_unknown_model })
}

fn models(list: Node<'_, '_>, version: Option<Box<str>>, providers: &HashMap<Box<str>, Decimal>) -> Option<PriceTable> {
    let models = list.list(|node| Some(model(node, providers)))?;
    let names: Vec<_> = models.iter().flatten().map(|model| model.name.clone()).collect();
    // Positions in the list are the user's only while every element could be read.
    let whole = names.len() == models.len();
    let clashes = match PriceTable::new(version, models.into_iter().flatten().collect()) {
        Ok(table) => return Some(table),
        Err(clashes) => clashes,
    };
    for clash in clashes.iter().filter(|_| whole) {
        let key = clash.alias.map_or("model".into(), |alias| format!("aliases[{alias}]"));
        let earlier = names.get(clash.earlier).map_or("", |name| &**name);
        let message = match &clash.pattern {
            None => format!("models[{}] ({earlier}) has this name already", clash.earlier),
            Some(pattern) => {
                format!(
                    "{pattern:?} of models[{}] ({earlier}) can match the same name, and neither is closer",
                    clash.earlier
                )
            }
        };
        list.error_at(&format!("[{}].{key}", clash.model), message);
    }
    None
}

fn owned(node: Node<'_, '_>) -> Option<Box<str>> {
    node.text().map(|text| Box::from(&*text))
}

fn model(node: Node<'_, '_>, providers: &HashMap<Box<str>, Decimal>) -> Option<Model> {
    let object = node.object()?;
    let provider = object.get("provider").and_then(owned);
    let name = object.require("model").and_then(owned);
    let aliases = object.get("aliases").and_then(|list| list.list(|alias| alias.text().map(|text| Glob::new(&text))));
    if object.get("rates").is_none() && object.get("units").is_none() && object.get("effective").is_none() {
        object.error("expected rates or units");
    }
    let terms = terms(&object, &Terms::default());
    let mut later: Vec<(u64, Terms)> = Vec::new();
    if let Some(list) = object.get("effective") {
        list.list(|node| {
            let object = node.object()?;
            let from = object.require("from").and_then(instant);
            let before = later.last().map_or(&terms, |(_, terms)| terms);
            let terms = self::terms(&object, before);
            if let (Some(from), Some((earlier, _))) = (from, later.last())
                && from <= *earlier
            {
                object.error("from must be later than that of the entry before");
            }
            object.finish();
            later.push((from?, terms));
            Some(())
        });
    }
    let own = commercial(&object);
    let billed = provider.as_deref().and_then(|provider| providers.get(provider));
    let tokens = |key| object.get(key).and_then(|node| node.integer(1..=u64::MAX));
    let (max_output_tokens, max_input_tokens) = (tokens("max_output_tokens"), tokens("max_input_tokens"));
    object.finish();
    Some(Model {
        provider,
        name: name?,
        aliases: aliases.unwrap_or_default().into(),
        terms,
        later: later.into(),
        commercial: own.or(billed.copied()).unwrap_or(Decimal::ONE),
        max_output_tokens,
        max_input_tokens,
    })
}

/// `discount` or `markup` as a multiple.
fn commercial(object: &Object<'_, '_>) -> Option<Decimal> {
    let (discount, markup) = (object.get("discount"), object.get("markup"));
    if let (Some(_), Some(markup)) = (discount, markup) {
        markup.error("must not stand beside a discount");
        return None;
    }
    let multiple = match (discount.and_then(multiple), markup.and_then(multiple)) {
        (Some(discount), _) => discount.one_minus(),
        (None, Some(markup)) => markup.plus_one(),
        (None, None) => return None,
    };
    if let (None, Some(node)) = (multiple, discount) {
        node.error("expected a part of one: 0.1 takes a tenth off");
    }
    multiple
}

/// A factor: a decimal that products with others can be kept of exactly.
pub(super) fn multiple(node: Node<'_, '_>) -> Option<Decimal> {
    let factor = node.decimal()?;
    let fine = factor.decimal_places() <= 6 && factor <= Decimal::from(1000);
    if !fine {
        node.error("expected a factor of at most 1000 with at most six decimal places");
    }
    fine.then_some(factor)
}

/// The terms written in `object`; those it leaves out are as `before`.
fn terms(object: &Object<'_, '_>, before: &Terms) -> Terms {
    let (rates, tiers) = (object.get("rates").and_then(rates), object.get("tiers").and_then(tiers));
    Terms {
        standard: Schedule {
            rates: rates.unwrap_or_else(|| before.standard.rates.clone()),
            tiers: tiers.unwrap_or_else(|| before.standard.tiers.clone()),
        },
        service_tiers: object
            .get("service_tiers")
            .and_then(service_tiers)
            .unwrap_or_else(|| before.service_tiers.clone()),
        multipliers: object.get("multipliers").and_then(multipliers).unwrap_or_else(|| before.multipliers.clone()),
        off_peak: object.get("off_peak").and_then(off_peak).unwrap_or_else(|| before.off_peak.clone()),
        units: object.get("units").and_then(units).unwrap_or_else(|| before.units.clone()),
    }
}

fn rates(node: Node<'_, '_>) -> Option<Rates> {
    let object = node.object()?;
    let read = |class: Class| Some((class, object.get(class.name())?.decimal()?));
    let rates = Class::ALL.into_iter().filter_map(read).collect();
    object.finish();
    Some(rates)
}

fn tiers(node: Node<'_, '_>) -> Option<Box<[ContextTier]>> {
    let mut previous = 0;
    let tiers = node.list(|node| {
        let object = node.object()?;
        let tokens = |key| object.get(key).and_then(|node| node.integer(0..=u64::MAX - 1));
        let from = match (tokens("input_over"), tokens("input_from")) {
            (Some(over), None) => Some(over + 1),
            (None, Some(from)) => Some(from),
            _ => {
                object.error("expected one of input_over and input_from");
                None
            }
        };
        if from.is_some_and(|from| from <= previous) {
            object.error("must begin at more tokens than the tier before");
        }
        previous = from.unwrap_or(previous);
        let rates = object.require("rates").and_then(rates);
        object.finish();
        Some(ContextTier { from: from?, rates: rates? })
    })?;
    Some(tiers.into())
}

fn service_tiers(node: Node<'_, '_>) -> Option<Box<[ServiceTier]>> {
    let mut tiers = Vec::new();
    node.object()?.each(|name, node| {
        let Some(object) = node.object() else { return };
        if object.is_empty() {
            object.error("expected rates, tiers, units or a multiplier");
        }
        tiers.push(ServiceTier {
            name: name.to_ascii_lowercase().into(),
            schedule: Schedule {
                rates: object.get("rates").and_then(rates).unwrap_or_default(),
                tiers: object.get("tiers").and_then(self::tiers).unwrap_or_default(),
            },
            units: object.get("units").and_then(units).unwrap_or_default(),
            multiplier: object.get("multiplier").and_then(multiple).unwrap_or(Decimal::ONE),
        });
        object.finish();
    });
    Some(tiers.into())
}

fn multipliers(node: Node<'_, '_>) -> Option<Multipliers> {
    let object = node.object()?;
    let factors = |key| object.get(key).and_then(factors).unwrap_or_default();
    let multipliers = Multipliers { speed: factors("speed"), geo: factors("geo"), region: factors("region") };
    object.finish();
    Some(multipliers)
}

fn factors(node: Node<'_, '_>) -> Option<Factors> {
    let mut factors = Vec::new();
    node.object()?.each(|pattern, factor| {
        if let Some(factor) = multiple(factor) {
            factors.push((Glob::new(&pattern.to_ascii_lowercase()), factor));
        }
    });
    Some(factors.into())
}

fn off_peak(node: Node<'_, '_>) -> Option<Box<[OffPeak]>> {
    let blocks = node.list(|node| {
        let object = node.object()?;
        let windows = object.require("hours_utc").and_then(|hours| {
            if hours.is_list() { hours.list(window) } else { window(hours).map(|window| vec![window]) }
        });
        let mut weekdays = OffPeak::EVERY_DAY;
        if let Some(list) = object.get("weekdays")
            && let Some(days) = list.list(|day| day.integer(1..=7))
        {
            weekdays = days.into_iter().fold(0, |mask, day| mask | 1 << (day - 1));
            if weekdays == 0 {
                list.error("expected at least one day, 1 for Monday to 7 for Sunday");
            }
        }
        let rates = object.require("rates").and_then(rates);
        object.finish();
        Some(OffPeak { windows: windows?.into(), weekdays, rates: rates? })
    })?;
    Some(blocks.into())
}

/// `16:30-00:30`.
fn window(node: Node<'_, '_>) -> Option<Window> {
    let text = node.text()?;
    let minute = |text: &str| {
        let (hour, minute) = text.trim().split_once(':')?;
        let two = |text: &str| (text.len() == 2).then(|| text.parse::<u16>().ok()).flatten();
        let (hour, minute) = (two(hour)?, two(minute)?);
        (hour < 24 && minute < 60).then_some(hour * 60 + minute)
    };
    let window =
        text.split_once('-').and_then(|(start, end)| Some(Window { start: minute(start)?, end: minute(end)? }));
    if window.is_none() {
        node.error(format!("expected hours as 16:30-00:30, got {text:?}"));
    }
    window
}

fn units(node: Node<'_, '_>) -> Option<UnitRates> {
    let object = node.object()?;
    let read = |unit: Unit| Some((unit, unit_rate(object.get(unit.name())?)?));
    let units = Unit::ALL.into_iter().filter_map(read).collect();
    object.finish();
    Some(units)
}

/// Dollars for one, or `{usd, per}` where that is no finite decimal.
fn unit_rate(node: Node<'_, '_>) -> Option<Rate> {
    if !node.is_object() {
        return node.decimal().map(Rate::per_one);
    }
    let object = node.object()?;
    let usd = object.require("usd").and_then(Node::decimal);
    let per = object.require("per").and_then(|node| node.integer(1..=1_000_000_000));
    object.finish();
    Some(Rate { usd: usd?, per: per.and_then(|per| u32::try_from(per).ok())? })
}

fn instant(node: Node<'_, '_>) -> Option<u64> {
    let text = node.text()?;
    let seconds = time::parse_rfc3339(&text);
    if seconds.is_none() {
        node.error(format!("expected a time as 2026-12-01T00:00:00Z, got {text:?}"));
    }
    seconds
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, ConfigError, Origin};
    use crate::price::{Biller, Circumstances};
    use serde_json::{Value, json};
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn read(prices: &Value) -> Result<PricesConfig, Vec<String>> {
        let text = json!({ "prices": prices }).to_string();
        let config = Config::from_json(&text, Origin::Json);
        config.map(|config| config.prices).map_err(|errors| errors.iter().map(ConfigError::to_string).collect())
    }

    /// The errors of one model.
    fn errors(model: Value) -> Vec<String> {
        read(&json!({ "models": [model] })).err().unwrap_or_default()
    }

    #[test]
    fn every_term_of_a_model_is_read() {
        let prices = read(&json!({
            "version": "v", "on_unknown_model": "assume_highest", "providers": {"openai": {"discount": "0.1"}},
            "models": [{
                "provider": "openai", "model": "m", "aliases": ["n", "m-*"],
                "rates": {"input": "2.50", "cached_input": "1.25", "output": 10},
                "tiers": [{"input_over": 200, "rates": {"input": 5}}, {"input_from": 300, "rates": {"input": 6}}],
                "service_tiers": {"Flex": {"rates": {"input": 1}, "tiers": [{"input_over": 9, "rates": {"input": 3}}]},
                                  "batch": {"multiplier": "0.5"}, "ocr": {"units": {"pages": "0.5"}}},
                "multipliers": {"speed": {"fast": "2"}, "geo": {"us": "1.1"}, "region": {"EU": "1.2"}},
                "off_peak": [{"hours_utc": "16:30-00:30", "weekdays": [1, 7], "rates": {"input": "0.1"}},
                             {"hours_utc": ["01:00-02:00", "03:00-04:00"], "rates": {"input": "0.2"}}],
                "units": {"web_search_requests": "0.01", "audio_seconds": {"usd": "0.24", "per": 3600}},
                "effective": [{"from": "2026-12-01T00:00:00Z", "tiers": []},
                              {"from": "2027-01-01T00:00:00Z", "rates": {"input": 7}, "units": {}}],
                "max_output_tokens": 16384, "max_input_tokens": 128000,
            }, {"model": "o", "units": {"pages": 1}, "markup": "0.25"}],
        }))
        .unwrap();
        assert_eq!(prices.on_unknown_model, Some(OnUnknownModel::AssumeHighest));
        let model = prices.table.find("m-1", Biller::Known("openai"), None).unwrap().0;
        let input = |tokens, unix_seconds, service_tier| {
            let circumstances = Circumstances { unix_seconds, service_tier, ..Circumstances::default() };
            model.terms_at(unix_seconds).apply(tokens, &circumstances).rates.get(Class::Input).unwrap().to_string()
        };
        const WEDNESDAY: u64 = 1_794_960_000; // 2026-11-18T00:00:00Z
        let noon = WEDNESDAY + 12 * 3600;
        for (tokens, time, service_tier, usd) in [
            (200, noon, None, "2.5"),
            (201, noon, None, "5"),
            (300, noon, None, "6"),
            (9, noon, Some("flex"), "1"),
            (10, noon, Some("flex"), "3"),
            (1, WEDNESDAY + 3600, None, "0.2"),
            (1, WEDNESDAY + 17 * 3600, None, "2.5"),
            (1, WEDNESDAY + 17 * 3600 - 2 * 86_400, None, "0.1"),
            (300, 1_796_083_200, None, "2.5"),
            (300, 1_798_761_600, None, "7"),
        ] {
            assert_eq!(input(tokens, time, service_tier), usd, "{tokens} at {time} {service_tier:?}");
        }
        assert_eq!(model.commercial.to_string(), "0.9");
        assert_eq!((model.max_output_tokens, model.max_input_tokens), (Some(16384), Some(128_000)));
        let applied = model.terms.apply(0, &Circumstances::default());
        let hour = applied.unit(Unit::AudioSeconds).unwrap();
        assert_eq!((hour.usd.to_string(), hour.per), ("0.24".into(), 3600));
        assert!(model.terms_at(u64::MAX).units.is_empty(), "an empty section replaces one that is not");
        assert_eq!(prices.table.models()[1].commercial.to_string(), "1.25");
    }

    #[test]
    fn what_is_wrong_with_a_price_is_said_with_its_place() {
        let rates = json!({"input": 1});
        for (model, expected) in [
            (json!({"model": "m"}), "prices.models[0]: expected rates or units"),
            (
                json!({"model": "m", "rates": rates, "tiers": [{"rates": rates}]}),
                "prices.models[0].tiers[0]: expected one of input_over and input_from",
            ),
            (
                json!({"model": "m", "rates": rates, "tiers": [{"input_over": 9, "rates": rates}, {"input_from": 10, "rates": rates}]}),
                "prices.models[0].tiers[1]: must begin at more tokens than the tier before",
            ),
            (
                json!({"model": "m", "rates": rates, "service_tiers": {"flex": {}}}),
                "prices.models[0].service_tiers.flex: expected rates, tiers, units or a multiplier",
            ),
            (
                json!({"model": "m", "rates": rates, "service_tiers": {"flex": {"multiplier": "0.12345678"}}}),
                "prices.models[0].service_tiers.flex.multiplier: expected a factor of at most 1000 with at most six decimal places",
            ),
            (
                json!({"model": "m", "rates": rates, "multipliers": {"speeds": {}}}),
                "prices.models[0].multipliers.speeds: unknown key; did you mean speed?",
            ),
            (
                json!({"model": "m", "rates": rates, "off_peak": [{"hours_utc": "16:30", "rates": rates}]}),
                "prices.models[0].off_peak[0].hours_utc: expected hours as 16:30-00:30, got \"16:30\"",
            ),
            (
                json!({"model": "m", "rates": rates, "off_peak": [{"hours_utc": "16:30-24:00", "rates": rates}]}),
                "prices.models[0].off_peak[0].hours_utc: expected hours as 16:30-00:30, got \"16:30-24:00\"",
            ),
            (
                json!({"model": "m", "rates": rates, "off_peak": [{"hours_utc": "16:30-00:00", "weekdays": [8], "rates": rates}]}),
                "prices.models[0].off_peak[0].weekdays[0]: expected a whole number from 1 to 7, got 8",
            ),
            (
                json!({"model": "m", "units": {"audio_seconds": {"usd": 1, "per": 0}}}),
                "prices.models[0].units.audio_seconds.per: expected a whole number from 1 to 1000000000, got 0",
            ),
            (
                json!({"model": "m", "units": {"page": 1}}),
                "prices.models[0].units.page: unknown key; did you mean pages?",
            ),
            (
                json!({"model": "m", "rates": rates, "effective": [{"from": "December", "rates": rates}]}),
                "prices.models[0].effective[0].from: expected a time as 2026-12-01T00:00:00Z, got \"December\"",
            ),
            (
                json!({"model": "m", "rates": rates, "effective": [{"from": "2026-12-01T00:00:00Z"}, {"from": "2026-12-01T00:00:00Z"}]}),
                "prices.models[0].effective[1]: from must be later than that of the entry before",
            ),
            (
                json!({"model": "m", "rates": rates, "discount": "0.1", "markup": "0.1"}),
                "prices.models[0].markup: must not stand beside a discount",
            ),
            (
                json!({"model": "m", "rates": rates, "discount": "10"}),
                "prices.models[0].discount: expected a part of one: 0.1 takes a tenth off",
            ),
        ] {
            let found = errors(model.clone());
            assert_eq!(found.first().map(String::as_str), Some(expected), "{model}");
        }
    }

    #[test]
    fn two_patterns_that_may_match_the_same_name_are_an_error() {
        let model = |name: &str, alias: &str| json!({"model": name, "aliases": [alias], "rates": {"input": 1}});
        assert_eq!(
            read(&json!({"models": [model("a", "xx*"), model("b", "*yy")]})).err().unwrap(),
            ["prices.models[1].aliases[0]: \"xx*\" of models[0] (a) can match the same name, and neither is closer"]
        );
        assert_eq!(
            read(&json!({"on_unknown_model": "deny"})).err().unwrap(),
            ["prices.on_unknown_model: expected allow, reject or assume_highest, got \"deny\""]
        );
    }
}
