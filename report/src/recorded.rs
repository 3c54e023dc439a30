//! What a usage record says of a call that was made: its values as budgets see them, and what it costs at any prices.
//!
//! A record's charges say which tokens of which class went to which model; a record without a price has its counts
//! only.

use std::rc::Rc;
use tollgate::api::{Api, provider};
use tollgate::attribution::Dimension;
use tollgate::budget::{Budget, Key, Subject};
use tollgate::money::{Decimal, Usd};
use tollgate::price::{self, Biller, Circumstances, Model, NoPrice, PriceTable, Units};
use tollgate::record::UsageRecord;
use tollgate::time;
use tollgate::usage::{Class, Rule, TokenUsage, Unit, UsageReport};

/// What a record says that a price depends on.
#[derive(Debug)]
pub(crate) struct Recorded<'r> {
    record: &'r UsageRecord,
    /// Tokens by the model they were charged to; `None` is the model of the call.
    parts: Vec<(Option<&'r str>, TokenUsage)>,
    units: Units,
    unix_seconds: u64,
}

impl<'r> Recorded<'r> {
    /// What `record` says; `None` where it tells of no usage.
    pub(crate) fn of(record: &'r UsageRecord) -> Option<Recorded<'r>> {
        let unit = |name: &str| Unit::ALL.into_iter().find(|unit| unit.name() == name);
        let mut units: Units = record
            .units
            .iter()
            .filter_map(|(name, quantity)| Some((unit(name)?, Decimal::parse(quantity.as_str()).ok()?)))
            .collect();
        let parts = parts(record);
        if parts.is_empty() && units.is_empty() {
            return None;
        }
        units.insert(Unit::Requests, Decimal::ONE);
        // Prices count at the end of a call.
        let seconds = record.duration_ms.unwrap_or_default() / 1000;
        let unix_seconds = time::parse_rfc3339(&record.ts).unwrap_or_default().saturating_add(seconds);
        Some(Recorded { record, parts, units, unix_seconds })
    }

    /// The name the call is listed under.
    pub(crate) fn name(&self) -> &'r str {
        let record = self.record;
        let name = record.priced_model.as_ref().or(record.response_model.as_ref()).or(record.request_model.as_ref());
        name.map_or("unknown", |name| name)
    }

    /// The model of `table` that the call is priced by.
    fn model<'t>(&self, table: &'t PriceTable) -> Option<&'t Model> {
        let (answered, asked) = (self.record.response_model.as_deref(), self.record.request_model.as_deref());
        let found = table.find_first(answered, asked, biller(self.record), self.record.region.as_deref());
        found.map(|(model, _)| model)
    }

    /// What it would cost under `table`.
    pub(crate) fn cost(&self, table: &PriceTable) -> Result<Usd, NoPrice> {
        self.cost_at(self.model(table), table)
    }

    /// What it would cost if `own` had answered. Iterations that other models made stay theirs.
    pub(crate) fn cost_at(&self, own: Option<&Model>, table: &PriceTable) -> Result<Usd, NoPrice> {
        let record = self.record;
        let circumstances = circumstances(record, self.unix_seconds);
        let cost = |model: Option<&Model>, usage: &TokenUsage, units: &Units| {
            let cost = price::cost(model.ok_or(NoPrice::UnknownModel)?, usage, units, &circumstances)?;
            Ok(cost.total)
        };
        // One part is the call itself; of several each has its model, and units are the call's.
        if let [(None, usage)] = self.parts.as_slice() {
            return cost(own, usage, &self.units);
        }
        let mut total = cost(own, &TokenUsage::default(), &self.units)?;
        for (name, usage) in &self.parts {
            let model = match name {
                Some(name) => table.find(name, biller(record), record.region.as_deref()).map(|(model, _)| model),
                None => own,
            };
            total = total.saturating_add(cost(model, usage, &Units::new())?);
        }
        Ok(total)
    }
}

/// Who billed a call.
pub(crate) fn biller(record: &UsageRecord) -> Biller<'_> {
    record.provider.as_deref().map_or(Biller::Unknown, Biller::Likely)
}

/// What a call's prices depend on besides its model, where it ended at `unix_seconds`.
pub(crate) fn circumstances(record: &UsageRecord, unix_seconds: u64) -> Circumstances<'_> {
    Circumstances {
        unix_seconds,
        service_tier: record.service_tier.as_deref(),
        speed: record.speed.as_deref(),
        geo: record.inference_geo.as_deref(),
        region: record.region.as_deref(),
        multiplier: None,
    }
}

/// The value of a call that budgets call `key`. A record gives its dimensions to writers only.
fn value(record: &mut UsageRecord, key: &str) -> Option<Rc<str>> {
    match key {
        "model" => record.request_model.as_deref().map(Rc::from),
        "provider" => {
            let home = || provider::of_format(Api::of_name(&record.api)?, "");
            record.provider.as_deref().or_else(home).map(Rc::from)
        }
        "api_key" => record.api_key.as_deref().map(Rc::from),
        _ => match Dimension::named(key) {
            Some(dimension) => record.dimension_mut(dimension).clone(),
            None => record.tags.get(key.strip_prefix("tags.").unwrap_or(key)).cloned(),
        },
    }
}

/// Every value of a call that `budgets` look at.
pub(crate) fn keys(budgets: &[Budget]) -> Vec<Key> {
    let overrides = budgets.iter().flat_map(|budget| &budget.overrides).flat_map(|other| &other.conditions);
    let conditions = budgets.iter().flat_map(|budget| &budget.conditions).chain(overrides);
    let per = budgets.iter().flat_map(|budget| &budget.per);
    let mut keys: Vec<Key> = conditions.map(|condition| &condition.key).chain(per).cloned().collect();
    keys.sort_unstable();
    keys.dedup();
    keys
}

/// The values of one call, by what budgets look at.
#[derive(Debug)]
pub(crate) struct Values {
    keys: Rc<[Key]>,
    values: Box<[Option<Rc<str>>]>,
}

impl Values {
    /// The values of `keys`.
    pub(crate) fn of(record: &mut UsageRecord, keys: &Rc<[Key]>) -> Values {
        Values { keys: Rc::clone(keys), values: keys.iter().map(|key| value(record, key)).collect() }
    }
}

impl Subject for Values {
    fn value(&self, key: &str) -> Option<&str> {
        let index = self.keys.iter().position(|own| **own == *key)?;
        self.values.get(index)?.as_deref()
    }
}

/// The tokens of a record, by model.
fn parts(record: &UsageRecord) -> Vec<(Option<&str>, TokenUsage)> {
    let class = |name: &str| Class::ALL.into_iter().find(|class| class.name() == name);
    let mut parts: Vec<(&str, Vec<(Class, u64)>)> = Vec::new();
    for line in &record.charges {
        let (Some(class), Ok(tokens)) = (class(&line.class), line.quantity.as_str().parse()) else { continue };
        match parts.last_mut() {
            // A class stands once in a part; where it comes again, the next iteration began.
            Some((model, tokens_by_class))
                if **model == *line.model && tokens_by_class.iter().all(|(known, _)| *known != class) =>
            {
                tokens_by_class.push((class, tokens));
            }
            _ => parts.push((&line.model, vec![(class, tokens)])),
        }
    }
    if parts.is_empty() {
        let usage = counted(record);
        return if usage.is_known() { vec![(None, usage)] } else { Vec::new() };
    }
    let own = record.priced_model.as_deref();
    parts.into_iter().map(|(model, tokens)| (Some(model).filter(|_| own != Some(model)), usage_of(&tokens))).collect()
}

/// The usage whose classes have these tokens.
fn usage_of(tokens: &[(Class, u64)]) -> TokenUsage {
    let sum = |classes: &[Class]| {
        let counts = tokens.iter().filter(|(class, _)| classes.contains(class)).map(|(_, tokens)| *tokens);
        Some(counts.fold(0, u64::saturating_add))
    };
    const CREATED: [Class; 4] =
        [Class::CacheCreation, Class::CacheCreation1h, Class::CacheCreation12h, Class::CacheCreationAudio];
    const CACHED: [Class; 4] =
        [Class::CachedInput, Class::ExplicitCachedInput, Class::CachedInputAudio, Class::CachedInputImage];
    const FRESH: [Class; 4] = [Class::Input, Class::InputAudio, Class::InputImage, Class::InputVideo];
    const OUTPUT: [Class; 4] = [Class::Output, Class::OutputAudio, Class::OutputImage, Class::OutputVideo];
    let input = [&CREATED[..], &CACHED, &FRESH].concat();
    UsageReport {
        input: sum(&input),
        cached_input: sum(&CACHED),
        explicit_cached_input: sum(&[Class::ExplicitCachedInput]),
        cache_creation: sum(&CREATED),
        cache_creation_1h: sum(&[Class::CacheCreation1h]),
        input_audio: sum(&[Class::InputAudio, Class::CachedInputAudio]),
        cached_input_audio: sum(&[Class::CachedInputAudio]),
        input_image: sum(&[Class::InputImage, Class::CachedInputImage]),
        cached_input_image: sum(&[Class::CachedInputImage]),
        input_video: sum(&[Class::InputVideo]),
        output: sum(&OUTPUT),
        reasoning: sum(&[Class::Reasoning]),
        output_audio: sum(&[Class::OutputAudio]),
        output_image: sum(&[Class::OutputImage]),
        output_video: sum(&[Class::OutputVideo]),
        citation: sum(&[Class::Citation]),
        ..UsageReport::default()
    }
    .normalise(Rule::ReasoningApart)
}

/// The counts of a record without charges.
fn counted(record: &UsageRecord) -> TokenUsage {
    UsageReport {
        input: record.input_tokens,
        cached_input: record.cached_input_tokens,
        cache_creation: record.cache_creation_input_tokens,
        cache_creation_1h: record.cache_creation_1h_input_tokens,
        input_audio: record.input_audio_tokens,
        cached_input_audio: record.cached_input_audio_tokens,
        input_image: record.input_image_tokens,
        input_video: record.input_video_tokens,
        // What a record counts is in order; of all rules this one guesses nothing.
        output: record.output_tokens.map(|output| output.saturating_sub(record.reasoning_tokens.unwrap_or_default())),
        reasoning: record.reasoning_tokens,
        output_audio: record.output_audio_tokens,
        output_image: record.output_image_tokens,
        output_video: record.output_video_tokens,
        ..UsageReport::default()
    }
    .normalise(Rule::ReasoningApart)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_comes_back_from_its_charges() {
        let all: Vec<(Class, u64)> = Class::ALL
            .into_iter()
            // Nobody counts these yet.
            .filter(|class| !matches!(class, Class::CacheCreation12h | Class::CacheCreationAudio))
            .zip(1..)
            .collect();
        assert_eq!(usage_of(&all).buckets().collect::<Vec<_>>(), all);
    }
}
