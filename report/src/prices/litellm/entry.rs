//! One LiteLLM entry as terms.

use super::super::amount::Amount;
use super::super::losses::Report;
use super::super::table::{Factor, Rates, Terms, Threshold, Tiers, UnitPrice};
use super::{batch, keys, off_peak};
use crate::document::{Node, Value};
use tollgate::usage::{Class, Unit};

/// Keys that the reader looks for by name; all other price keys are losses.
const OTHERS: [&str; 18] = [
    "tiered_pricing",
    "off_peak_pricing",
    "provider_specific_entry",
    "regional_processing_uplift_multiplier_eu",
    "regional_processing_uplift_multiplier_us",
    "regional_endpoint_uplift_multiplier",
    "search_context_cost_per_query",
    CACHE_HIT,
    "input_cost_per_query",
    "input_cost_per_request",
    "ocr_cost_per_page",
    "ocr_cost_per_page_batches",
    "input_cost_per_character",
    "input_cost_per_image",
    "output_cost_per_image",
    "input_cost_per_second",
    "output_cost_per_second",
    "input_cost_per_audio_per_second",
];

/// An older name of `cache_read_input_token_cost`.
const CACHE_HIT: &str = "input_cost_per_token_cache_hit";

/// Whether a search is billed by the query or by the prompt.
const SEARCH_UNIT: &str = "web_search_billing_unit";

/// The terms of the entry `key`.
pub(super) fn terms(key: &str, provider: &str, entry: &Node, report: &mut Report) -> Terms {
    let mode = entry.get("mode").and_then(Node::text).unwrap_or_default();
    let mut reader = Reader { key, provider, mode, entry, report, terms: Terms::default() };
    reader.token_prices();
    reader.tiered();
    reader.derived_rates();
    reader.off_peak();
    reader.multipliers();
    reader.units();
    reader.reasoning();
    batch::settle(&mut reader.terms);
    reader.terms
}

/// A whole number of tokens; the file has some as `256000.0`.
fn tokens(node: Option<&Node>) -> Option<u64> {
    Amount::parse(node?.text()?)?.to_string().parse().ok()
}

/// The limit in `key`; zero stands for an unknown one.
pub(super) fn limit(entry: &Node, key: &str) -> Option<u64> {
    tokens(entry.get(key)).filter(|&tokens| tokens > 0)
}

struct Reader<'a> {
    key: &'a str,
    provider: &'a str,
    mode: &'a str,
    entry: &'a Node,
    report: &'a mut Report,
    terms: Terms,
}

impl Reader<'_> {
    /// Every price per token, and a word about every key that is a price and has no place in the table.
    fn token_prices(&mut self) {
        let entry = self.entry;
        for (name, value) in entry.entries().iter().map(|entry| (entry.key.as_str(), &entry.value)) {
            if let Some(key) = keys::token_key(name) {
                let Some(rate) = self.per_token(name, value) else { continue };
                let rates = match (key.service, key.over.map(|over| self.threshold(over))) {
                    (None, None) => &mut self.terms.rates,
                    (None, Some(over)) => self.terms.tiers.entry(over).or_default(),
                    (Some(service), over) => {
                        let service = self.terms.service_tiers.entry(service.into()).or_default();
                        over.map_or(&mut service.rates, |over| service.tiers.entry(over).or_default())
                    }
                };
                rates.set(key.class, rate);
            } else if name == SEARCH_UNIT && matches!(value.text(), Some("per_query" | "per_prompt")) {
                // It says which unit a search is.
            } else if keys::is_price(name) && !OTHERS.contains(&name) {
                self.lose(name, value, "the table has no such price");
            }
        }
    }

    /// xAI's dearer rates begin at the size, all others' above it.
    fn threshold(&self, tokens: u64) -> Threshold {
        Threshold { tokens, inclusive: self.provider == "xai" }
    }

    /// `tiered_pricing` lists whole rows of rates by input size; what a row leaves out is billed as its input or output.
    fn tiered(&mut self) {
        let entry = self.entry;
        let Some(pricing) = entry.get("tiered_pricing") else { return };
        let mut rows = Vec::new();
        for row in pricing.elements() {
            match row.get("range").and_then(|range| tokens(range.elements().first())) {
                Some(over) => rows.push((over, self.row(row))),
                None => self.report.lose(self.key, "tiered_pricing", "priced by the number of results"),
            }
        }
        rows.sort_by_key(|(over, _)| *over);
        for class in [Class::CachedInput, Class::CacheCreation, Class::CacheCreation1h, Class::Reasoning] {
            if rows.iter().any(|(_, row)| row.get(class).is_some()) {
                let parent = if class == Class::Reasoning { Class::Output } else { Class::Input };
                for (_, row) in &mut rows {
                    row.set_missing(class, row.get(parent).cloned());
                }
            }
        }
        for (over, row) in rows {
            if over > 0 {
                let threshold = self.threshold(over);
                self.terms.tiers.insert(threshold, row);
                continue;
            }
            for (class, rate) in row.iter() {
                if self.terms.rates.get(class).is_some_and(|own| own != rate) {
                    self.report.change(self.key, "its first tier replaces another rate of its own");
                }
                self.terms.rates.set(class, rate.clone());
            }
        }
    }

    fn row(&mut self, row: &Node) -> Rates {
        self.plain_rates(row, "tiered_pricing", &["range"])
    }

    /// Rates for classes only; other keys than these and `known` are losses.
    fn plain_rates(&mut self, node: &Node, within: &str, known: &[&str]) -> Rates {
        let mut rates = Rates::default();
        for (name, value) in node.entries().iter().map(|entry| (entry.key.as_str(), &entry.value)) {
            match keys::token_key(name) {
                Some(key) if key.service.is_none() && key.over.is_none() => {
                    if let Some(rate) = self.per_token(name, value) {
                        rates.set(key.class, rate);
                    }
                }
                _ if known.contains(&name) => {}
                _ => self.lose(&format!("{within}.{name}"), value, "the table has no such price"),
            }
        }
        rates
    }

    /// Rates that stand under another name, or that LiteLLM's calculator puts in.
    fn derived_rates(&mut self) {
        if let Some(hit) = self.entry.get(CACHE_HIT) {
            let rate = self.per_token(CACHE_HIT, hit);
            match self.terms.rates.get(Class::CachedInput) {
                Some(known) if rate.as_ref().is_some_and(|rate| rate != known) => {
                    self.lose(CACHE_HIT, hit, "differs from cache_read_input_token_cost");
                }
                _ => self.terms.rates.set_missing(Class::CachedInput, rate),
            }
        }
        // An image model that prices no text: what it puts out is billed as images.
        let image = self.terms.rates.get(Class::OutputImage).cloned();
        self.terms.rates.set_missing(Class::Output, image);
        // Fireworks bills cached input at half, which LiteLLM knows in its code and not in the file.
        if self.provider == "fireworks_ai"
            && matches!(self.mode, "chat" | "completion" | "responses")
            && self.terms.rates.get(Class::CachedInput).is_none()
            && let Some(half) = self.terms.rates.get(Class::Input).map(Amount::half)
        {
            self.terms.rates.set(Class::CachedInput, half);
            self.report.change(self.key, "cached input at half the input rate, as Fireworks bills it");
        }
    }

    fn off_peak(&mut self) {
        let entry = self.entry;
        let Some(pricing) = entry.get("off_peak_pricing") else { return };
        let rates = self.plain_rates(pricing, "off_peak_pricing", &["hours_utc", "windows", "weekday_timezone"]);
        match off_peak::blocks(pricing, &rates) {
            Ok(blocks) => self.terms.off_peak = blocks,
            Err(reason) => self.report.lose(self.key, "off_peak_pricing", reason),
        }
    }

    fn multipliers(&mut self) {
        for region in ["eu", "us"] {
            if let Some(factor) = self.amount(&format!("regional_processing_uplift_multiplier_{region}")) {
                self.factor(Factor::Region, region, factor);
            }
        }
        // Vertex: every location but `global`.
        if let Some(factor) = self.amount("regional_endpoint_uplift_multiplier") {
            self.factor(Factor::Region, "*", factor);
            self.factor(Factor::Region, "global", Amount::one());
        }
        let entry = self.entry;
        for extra in entry.get("provider_specific_entry").map(Node::entries).unwrap_or_default() {
            let name = extra.key.as_str();
            let factor = extra.value.text().and_then(Amount::parse);
            match factor {
                Some(factor) if name == "fast" => self.factor(Factor::Speed, name, factor),
                Some(factor) if is_geo(name) => self.factor(Factor::Geo, name, factor),
                _ => self.report.lose(self.key, &format!("provider_specific_entry.{name}"), "not a multiplier"),
            }
        }
    }

    fn factor(&mut self, factor: Factor, value: &str, amount: Amount) {
        self.terms.multipliers.entry(factor).or_default().insert(value.into(), amount);
    }

    fn units(&mut self) {
        self.web_search();
        let query = if self.mode == "rerank" { Unit::SearchUnits } else { Unit::Requests };
        self.unit("input_cost_per_query", query, None);
        self.unit("input_cost_per_request", Unit::Requests, None);
        self.unit("ocr_cost_per_page", Unit::Pages, None);
        if let Some(price) = self.per_one("ocr_cost_per_page_batches") {
            let batch = self.terms.service_tiers.entry("batch".into()).or_default();
            batch.units.insert(Unit::Pages, UnitPrice::one(price));
        }
        let speech = (self.mode != "audio_speech").then_some("characters are counted for speech only");
        self.unit("input_cost_per_character", Unit::Characters, speech);
        let images = match self.mode {
            "image_generation" | "image_edit" => [Class::OutputImage, Class::Output]
                .into_iter()
                .any(|class| self.terms.rates.get(class).is_some_and(|rate| !rate.is_zero()))
                .then_some("its images are priced by token too"),
            _ => Some("images are counted where they are made"),
        };
        self.unit("output_cost_per_image", Unit::Images, images);
        self.unit("input_cost_per_image", Unit::Images, images);
        // Transcription has its price on one side, or the same on both, for one second of audio.
        let seconds = (self.mode != "audio_transcription").then_some("seconds are counted for transcription only");
        for key in ["input_cost_per_second", "output_cost_per_second", "input_cost_per_audio_per_second"] {
            self.unit(key, Unit::AudioSeconds, seconds);
        }
    }

    /// The price in `key` as that of `unit`, unless something speaks against it. A price of zero gives way to another.
    fn unit(&mut self, key: &str, unit: Unit, against: Option<&str>) {
        let Some(price) = self.amount(key) else { return };
        let known = self.terms.units.get(&unit).map(|known| &known.usd);
        let reason = match known {
            _ if against.is_some() => against,
            Some(known) if known != &price && !known.is_zero() && !price.is_zero() => {
                Some("another key has another price for it")
            }
            _ => None,
        };
        if let Some(reason) = reason {
            self.report.lose_price(self.key, key, Some(&price), reason);
        } else if let Some(price) = self.per_one(key)
            && self.terms.units.get(&unit).is_none_or(|known| known.usd.is_zero())
        {
            self.terms.units.insert(unit, UnitPrice::one(price));
        }
    }

    /// Searches by how much they bring into the context; `medium` is what providers do unasked. Unless the entry
    /// says so, Google does not bill a search but a prompt that was grounded on any.
    fn web_search(&mut self) {
        const KEY: &str = "search_context_cost_per_query";
        let entry = self.entry;
        let Some(prices) = entry.get(KEY) else { return };
        let size = |name: &str| {
            prices.get(&format!("search_context_size_{name}")).and_then(Node::text).and_then(Amount::parse)
        };
        let Some(medium) = size("medium") else {
            return self.lose(KEY, prices, "no price for the medium size");
        };
        for name in ["low", "high"] {
            if let Some(price) = size(name).filter(|price| *price != medium) {
                self.report.lose_price(self.key, &format!("{KEY}.{name}"), Some(&price), "differs from medium");
            }
        }
        let text = |key: &str| entry.get(key).and_then(Node::text);
        let by_prompt = match text(SEARCH_UNIT) {
            Some(unit) => unit == "per_prompt",
            // Anthropic bills its own searches on Vertex too.
            None => {
                matches!(self.provider, "gemini" | "vertex_ai")
                    && text("litellm_provider") != Some("vertex_ai-anthropic_models")
            }
        };
        let unit = if by_prompt { Unit::GroundedRequests } else { Unit::WebSearchRequests };
        self.report.prices += 1;
        self.terms.units.insert(unit, UnitPrice::one(medium));
    }

    /// Reasoning at the output rate is output: said once, it follows the output's tiers and service tiers. At a rate of
    /// its own, LiteLLM bills it at a service tier's output rate where the tier has one.
    fn reasoning(&mut self) {
        let rates = &mut self.terms.rates;
        let Some(own) = rates.get(Class::Reasoning).cloned() else { return };
        let has_own = |tiers: &Tiers| tiers.values().any(|rates| rates.get(Class::Reasoning).is_some());
        if rates.get(Class::Output) == Some(&own) && !has_own(&self.terms.tiers) {
            rates.remove(Class::Reasoning);
            return;
        }
        for service in self.terms.service_tiers.values_mut() {
            let output = service.rates.get(Class::Output).cloned();
            service.rates.set_missing(Class::Reasoning, output);
        }
    }

    /// A price per token as dollars per million.
    fn per_token(&mut self, key: &str, value: &Node) -> Option<Amount> {
        let (rate, noise) = self.read(key, value)?.per_million();
        self.report.prices += 1;
        if noise {
            self.report.change(self.key, "float noise rounded away");
        }
        Some(rate)
    }

    /// The price in `key` as dollars for one.
    fn per_one(&mut self, key: &str) -> Option<Amount> {
        let (price, rounded) = self.amount(key)?.kept();
        self.report.prices += 1;
        if rounded {
            self.report.change(self.key, "rounded to 19 digits");
        }
        Some(price)
    }

    fn amount(&mut self, key: &str) -> Option<Amount> {
        let entry = self.entry;
        self.read(key, entry.get(key)?)
    }

    /// An amount; `null` is none.
    fn read(&mut self, key: &str, value: &Node) -> Option<Amount> {
        if value.value == Value::Plain("null".into()) {
            return None;
        }
        let amount = value.text().and_then(Amount::parse);
        if amount.is_none() {
            self.report.lose(self.key, key, "not an amount");
        }
        amount
    }

    fn lose(&mut self, key: &str, value: &Node, reason: &str) {
        let price = value.text().and_then(Amount::parse);
        self.report.lose_price(self.key, key, price.as_ref(), reason);
    }
}

/// Anthropic's `inference_geo`: a country or continent.
fn is_geo(name: &str) -> bool {
    name.len() == 2 && name.bytes().all(|b| b.is_ascii_lowercase())
}
