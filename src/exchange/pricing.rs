//! From what a reply said to what it cost: usage reported or estimated, charges at each model's rates.

use super::call::Call;
use crate::api::Api;
use crate::api::facts::Iteration;
use crate::body::Damage;
use crate::config::{Config, OnUnknownModel};
use crate::money::{Decimal, Usd};
use crate::price::{self, Circumstances, Model, NoPrice, PricedBy, Units};
use crate::record::{ChargeLine, EndReason, ExactNumber, PriceStatus, Text, UsageRecord, UsageSource};
use crate::usage::{Class, Rule, TokenUsage, Unit, UsageReport};

/// What settling came to, for the metrics.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// Tokens billed, by class.
    pub(super) tokens: Vec<(Class, u64)>,
    /// The provider should have reported usage and did not.
    pub(super) unmetered: bool,
}

/// Writes usage and cost into the record of a call that ended at `unix_seconds`.
pub(super) fn settle(call: &Call, record: &mut UsageRecord, config: &Config, unix_seconds: u64) -> Outcome {
    record.provider_cost_usd = call.reply.cost_usd.map(|cost| ExactNumber::new(&cost));
    let mut units = call.reply.units.clone();
    if let Some(characters) = call.request.facts.characters.filter(|_| !refused(call, record)) {
        units.insert(Unit::Characters, Decimal::from(characters));
    }
    record.units = units.iter().map(|(unit, quantity)| (unit.name().into(), ExactNumber::new(quantity))).collect();
    // What an error counts is not billed.
    let unused = if call.reply.usage.is_empty() { refused(call, record) } else { is_error(call.status) };
    if call.api().format().free || unused {
        return free(record, None);
    }
    let pricing = Pricing { call, config, unix_seconds, units: &units };
    let report = call.reply.usage;
    // A total by itself says that there was usage, and not of what.
    record.total_tokens = report.total;
    if report.normalise(call.rule()).is_known() {
        // A stream that broke off may have told its input and not its output, a server that answered from a cache its
        // output and not its input.
        let text = call.reply.text_bytes;
        let (output_cut, input_left_out) = (report.output.is_none() && text > 0, misses_input(&report));
        let output = if output_cut { Some(tokens_of(text, config)) } else { report.output };
        let input = if input_left_out { estimated_input(call, config) } else { report.input };
        let usage = UsageReport { input, output, ..report }.normalise(call.rule());
        let (source, status) = if output_cut || (input_left_out && input.is_some()) {
            (UsageSource::Estimated, PriceStatus::Estimated)
        } else {
            (UsageSource::Reported, PriceStatus::Priced)
        };
        record.usage_source = source;
        write_usage(record, &usage);
        return pricing.price(record, &usage, status);
    }
    if !units.is_empty() {
        record.usage_source = UsageSource::Reported;
        return pricing.price(record, &TokenUsage::default(), PriceStatus::Priced);
    }
    if call.api() == Api::Unrecognised {
        record.notes.push("unmetered".into());
        return Outcome { unmetered: true, ..Outcome::default() };
    }
    let waits = record.end_reason == EndReason::Complete && record.stream != Some(true) && call.reply.pending;
    if call.endpoint.is_poll || call.reply.background || waits {
        // The work goes on at the provider; a later look at the response will find what it used.
        return free(record, Some("not_finished"));
    }
    let unmetered = record.end_reason == EndReason::Complete;
    let Some(usage) = estimate(call, config) else { return Outcome { unmetered, ..Outcome::default() } };
    record.usage_source = UsageSource::Estimated;
    write_usage(record, &usage);
    Outcome { unmetered, ..pricing.price(record, &usage, PriceStatus::Estimated) }
}

/// A response that was charged before is looked at again: no usage, no cost.
pub(super) fn repeat(record: &mut UsageRecord) -> Outcome {
    free(record, Some("charged_before"))
}

/// Nothing to pay, and why, where that is not plain from the record.
fn free(record: &mut UsageRecord, note: Option<&str>) -> Outcome {
    record.price_status = Some(PriceStatus::Free);
    record.set_cost(Usd::ZERO);
    record.notes.extend(note.map(Text::from));
    Outcome::default()
}

/// Whether a status tells of an error. 101 opens a WebSocket: what goes through it is work.
fn is_error(status: Option<u16>) -> bool {
    status.is_some_and(|status| status != 101 && !(200..300).contains(&status))
}

/// Whether the provider did no work that it would bill: an error, an answer of the gateway's own, or a request that
/// never reached it, or not whole.
fn refused(call: &Call, record: &UsageRecord) -> bool {
    if call.is_incomplete && record.status.is_none() {
        return true;
    }
    // An error may come with 200, too, and instead of an answer.
    let error = is_error(record.status) || (call.reply.error.is_some() && call.reply.text_bytes == 0);
    match record.end_reason {
        EndReason::LocalReply => call.reply.text_bytes == 0,
        EndReason::Complete | EndReason::ClientAbort | EndReason::GatewayClosed | EndReason::Unknown => error,
        EndReason::UpstreamReset => record.error.as_deref().is_some_and(never_arrived),
        EndReason::Timeout | EndReason::Provisional => false,
    }
}

/// Whether Envoy's account of a reset says that the request was never sent: no connection, or none to be had.
fn never_arrived(details: &str) -> bool {
    const REASONS: [&str; 4] = ["connection_failure", "connection_timeout", "overflow", "refused_stream"];
    details.starts_with("upstream_reset_before_response_started")
        && REASONS.iter().any(|reason| details.contains(reason))
}

/// Whether a report has output and no input of any kind.
fn misses_input(report: &UsageReport) -> bool {
    report.input.is_none() && report.output.is_some() && report.cached_input.is_none()
}

/// What the call used, by the length of what was sent and what came back. A guess, and marked as one; of a body that
/// could not be read there is none.
fn estimate(call: &Call, config: &Config) -> Option<TokenUsage> {
    if call.damage.is_some_and(|damage| damage != Damage::Truncated) {
        return None;
    }
    let text = call.reply.text_bytes;
    let input = estimated_input(call, config)?;
    let output = (text > 0).then(|| tokens_of(text, config));
    Some(UsageReport { input: Some(input), output, ..UsageReport::default() }.normalise(Rule::OpenAi))
}

fn estimated_input(call: &Call, config: &Config) -> Option<u64> {
    let sent = call.request.text_bytes;
    (sent > 0).then(|| tokens_of(sent, config))
}

fn tokens_of(bytes: u64, config: &Config) -> u64 {
    config.reservation.tokens_per_byte.times_up(bytes)
}

fn write_usage(record: &mut UsageRecord, usage: &TokenUsage) {
    let counts = usage.counts();
    record.input_tokens = counts.input;
    record.cached_input_tokens = counts.cached_input;
    record.cache_creation_input_tokens = counts.cache_creation;
    record.cache_creation_1h_input_tokens = counts.cache_creation_1h;
    record.input_audio_tokens = counts.input_audio;
    record.cached_input_audio_tokens = counts.cached_input_audio;
    record.input_image_tokens = counts.input_image;
    record.input_video_tokens = counts.input_video;
    record.output_tokens = counts.output;
    record.reasoning_tokens = counts.reasoning;
    record.output_audio_tokens = counts.output_audio;
    record.output_image_tokens = counts.output_image;
    record.output_video_tokens = counts.output_video;
    record.total_tokens = counts.total.or(record.total_tokens);
    if usage.clamped() {
        record.notes.push("usage_clamped".into());
    }
}

/// What pricing a call takes besides its usage.
struct Pricing<'a> {
    call: &'a Call,
    config: &'a Config,
    unix_seconds: u64,
    units: &'a Units,
}

/// A part of a call with a price of its own.
struct Part<'t> {
    model: Option<&'t Model>,
    /// The table has no such model: it is the dearest.
    is_assumed: bool,
    usage: TokenUsage,
    units: Units,
}

impl<'a> Pricing<'a> {
    fn circumstances(&self) -> Circumstances<'a> {
        let reply = &self.call.reply;
        Circumstances {
            unix_seconds: self.unix_seconds,
            service_tier: reply.service_tier.as_deref(),
            speed: reply.speed.as_deref(),
            geo: reply.geo.as_deref(),
            region: self.call.region.as_deref(),
            multiplier: self.call.price_multiplier,
        }
    }

    /// Prices `usage`, or the iterations that are billed in its place, each at its own model.
    fn price(&self, record: &mut UsageRecord, usage: &TokenUsage, priced: PriceStatus) -> Outcome {
        let prices = &self.config.prices;
        let mut status = priced;
        let (mut model, mut by) = self.call.priced_on(&prices.table).unzip();
        let parts = self.parts(model, usage);
        if let Some(assumed) = parts.iter().find(|part| part.is_assumed) {
            status = PriceStatus::Estimated;
            if model.is_none() {
                (model, by) = (assumed.model, Some(PricedBy::AssumedHighest));
            }
        }
        record.priced_model = model.map(|model| model.name.clone());
        record.priced_by = by.map(|by| by.name().into());
        record.price_version = prices.table.version().map(Into::into);
        if record.provider.is_none() && by != Some(PricedBy::AssumedHighest) {
            record.provider = model.and_then(|model| model.provider.clone());
        }
        let mut outcome = Outcome::default();
        let mut total = Some(Usd::ZERO);
        let mut notes = Notes::default();
        for part in parts {
            outcome.tokens.extend(part.usage.buckets());
            let cost = part.model.ok_or(NoPrice::UnknownModel);
            let cost = cost.and_then(|model| price::cost(model, &part.usage, &part.units, &self.circumstances()));
            match cost {
                Ok(cost) => {
                    total = total.map(|total| total.saturating_add(cost.total));
                    notes.saturated |= cost.saturated;
                    notes.unknown_service_tier |= cost.unknown_service_tier;
                    notes.unpriced_units |= !cost.unpriced_units.is_empty();
                    record.charges.extend(cost.charges.iter().map(|charge| charge_line(part.model, charge)));
                }
                // Iterations are paid for by their tokens, each at its model; what was counted beside them may have no
                // price, and nor may the model that made them.
                Err(_) if !part.usage.is_known() && !self.call.reply.iterations.is_empty() => {
                    notes.unpriced_units |= part.units.len() > 1;
                }
                Err(reason) => {
                    total = None;
                    status = match reason {
                        NoPrice::Unpriced => PriceStatus::Unpriced,
                        NoPrice::UnknownModel => PriceStatus::UnknownModel,
                    };
                }
            }
        }
        record.price_status = Some(status);
        match total {
            Some(total) => record.set_cost(total),
            None => record.charges.clear(),
        }
        record.notes.extend(notes.into_texts());
        record.avoided_cost_usd = total.and_then(|total| self.avoided(usage, total)).map(|usd| ExactNumber::new(&usd));
        outcome
    }

    /// What the same usage would have cost more at the model that was asked for, where the call went to another.
    fn avoided(&self, usage: &TokenUsage, paid: Usd) -> Option<Usd> {
        self.call.reservation.downgraded_to.as_ref()?;
        let asked = self.call.find_model(&self.config.prices.table, self.call.request_model()?)?;
        let cost = price::cost(asked, usage, &Units::new(), &self.circumstances()).ok()?;
        Some(cost.total.saturating_sub(paid).max(Usd::ZERO))
    }

    /// What is billed: the call as a whole, or each of its iterations. Units are the call's own.
    fn parts<'t>(&'t self, model: Option<&'t Model>, usage: &TokenUsage) -> Vec<Part<'t>> {
        let mut units = self.units.clone();
        units.insert(Unit::Requests, Decimal::ONE);
        let iterations = &self.call.reply.iterations;
        if iterations.is_empty() {
            return vec![self.part(model, *usage, units)];
        }
        let part = |iteration: &Iteration| {
            let model = match iteration.model.as_deref() {
                Some(name) => self.call.find_model(&self.config.prices.table, name),
                None => model,
            };
            self.part(model, iteration.usage.normalise(self.call.rule()), Units::new())
        };
        let mut parts: Vec<_> = iterations.iter().map(part).collect();
        let assumed = parts.iter().find(|part| part.is_assumed).and_then(|part| part.model);
        parts.push(Part { model: model.or(assumed), is_assumed: false, usage: TokenUsage::default(), units });
        parts
    }

    /// A part at `model`, or at the dearest where that is to be assumed of what nobody has a price for.
    fn part<'t>(&'t self, model: Option<&'t Model>, usage: TokenUsage, units: Units) -> Part<'t> {
        let assumes = model.is_none() && self.call.on_unknown_model(self.config) == OnUnknownModel::AssumeHighest;
        let assumed = if assumes { self.dearest(&usage) } else { None };
        Part { model: model.or(assumed), is_assumed: assumed.is_some(), usage, units }
    }

    /// The model of the biller at which `usage` costs most.
    fn dearest(&self, usage: &TokenUsage) -> Option<&'a Model> {
        let candidates = self.config.prices.table.dearest(self.call.biller());
        let cost = |model: &&Model| {
            let cost = price::cost(model, usage, &Units::new(), &self.circumstances());
            cost.map(|cost| cost.total).unwrap_or_default()
        };
        candidates.into_iter().max_by_key(cost)
    }
}

/// What a record has to say about its cost.
#[derive(Default)]
struct Notes {
    saturated: bool,
    unknown_service_tier: bool,
    unpriced_units: bool,
}

impl Notes {
    fn into_texts(self) -> impl Iterator<Item = Text> {
        let notes = [
            (self.saturated, "cost_saturated"),
            (self.unknown_service_tier, "service_tier_unknown"),
            (self.unpriced_units, "units_unpriced"),
        ];
        notes.into_iter().filter(|(applies, _)| *applies).map(|(_, note)| note.into())
    }
}

fn charge_line(model: Option<&Model>, charge: &price::Charge) -> ChargeLine {
    ChargeLine {
        model: model.map(|model| model.name.clone()).unwrap_or_default(),
        class: charge.item.name().into(),
        quantity: ExactNumber::new(&charge.quantity),
        unit: charge.item.unit_name().into(),
        rate_usd: ExactNumber::new(&charge.rate.usd),
        per: charge.rate.per,
        multiplier: (charge.multiplier != Decimal::ONE).then(|| ExactNumber::new(&charge.multiplier)),
        cost_picousd: charge.cost.pico(),
    }
}
