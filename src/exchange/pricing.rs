//! From what a reply said to what it cost: usage reported or estimated, charges at each model's rates.

use super::call::Call;
use crate::body::Damage;
use crate::config::Config;
use crate::money::Usd;
use crate::price::{self, Model, NoPrice};
use crate::record::{ChargeLine, EndReason, ExactNumber, PriceStatus, Text, UsageRecord, UsageSource};
use crate::usage::{Class, Rule, TokenUsage, UsageReport};

/// What settling came to, for the metrics.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// Tokens billed, by class.
    pub(super) tokens: Vec<(Class, u64)>,
    /// The cost, where there is a price.
    pub(super) cost: Option<Usd>,
    /// The provider should have reported usage and did not.
    pub(super) unmetered: bool,
}

/// Writes usage and cost into the record.
pub(super) fn settle(call: &Call, record: &mut UsageRecord, config: &Config) -> Outcome {
    record.provider_cost_usd = call.reply.cost_usd.map(|cost| ExactNumber::new(&cost));
    record.units =
        call.reply.units.iter().map(|(unit, quantity)| (unit.name().into(), ExactNumber::new(quantity))).collect();
    if let Some(characters) = call.request.facts.characters.filter(|_| !refused(call, record)) {
        record.units.insert("characters".into(), ExactNumber::new(&characters));
    }
    if call.api().format().free || (call.reply.usage.is_empty() && refused(call, record)) {
        return free(record, None);
    }
    let report = call.reply.usage;
    if !report.is_empty() {
        // A stream that broke off may have told its input and not its output, a server that answered from a cache its
        // output and not its input.
        let text = call.reply.text_bytes;
        let (output_cut, input_left_out) = (report.output.is_none() && text > 0, misses_input(&report));
        let output = if output_cut { Some(tokens_of(text, config)) } else { report.output };
        let input = if input_left_out { estimated_input(call, config) } else { report.input };
        let usage = UsageReport { input, output, ..report }.normalise(call.rule);
        let (source, status) = if output_cut || (input_left_out && input.is_some()) {
            (UsageSource::Estimated, PriceStatus::Estimated)
        } else {
            (UsageSource::Reported, PriceStatus::Priced)
        };
        record.usage_source = source;
        write_usage(record, &usage);
        return price(call, record, config, &usage, status);
    }
    if !record.units.is_empty() {
        // Billed by something else than tokens, for which there are no prices yet.
        record.usage_source = UsageSource::Reported;
        record.price_status = Some(PriceStatus::Unpriced);
        return Outcome::default();
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
    Outcome { unmetered, ..price(call, record, config, &usage, PriceStatus::Estimated) }
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

/// Whether the provider did no work that it would bill: an error, an answer of the gateway's own, or a request that
/// never reached it.
fn refused(call: &Call, record: &UsageRecord) -> bool {
    let error = record.status.is_some_and(|status| !(200..300).contains(&status));
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
    record.total_tokens = counts.total;
    if usage.clamped() {
        record.notes.push("usage_clamped".into());
    }
}

/// Prices `usage`, or the iterations that are billed in its place, each at its own model.
fn price(call: &Call, record: &mut UsageRecord, config: &Config, usage: &TokenUsage, priced: PriceStatus) -> Outcome {
    let deployment = call.endpoint.is_deployment;
    let asked = call.request_model().filter(|_| !deployment);
    let names = [call.reply.model.as_deref(), asked];
    let model = names.into_iter().flatten().find_map(|name| config.prices.find(name));
    record.priced_model = model.map(|model| model.name.clone());
    record.price_version = config.prices.version().map(Into::into);
    if record.provider.is_none() {
        record.provider = model.and_then(|model| model.provider.clone());
    }

    let mut billed: Vec<(Option<&Model>, TokenUsage)> = Vec::new();
    for iteration in &call.reply.iterations {
        let own = match iteration.model.as_deref() {
            Some(name) => config.prices.find(name),
            None => model,
        };
        billed.push((own, iteration.usage.normalise(call.rule)));
    }
    if billed.is_empty() {
        billed.push((model, *usage));
    }
    if !record.units.is_empty() {
        record.notes.push("units_unpriced".into());
    }

    let mut outcome = Outcome::default();
    let mut total = Some(Usd::ZERO);
    let mut status = priced;
    let mut saturated = false;
    for (model, usage) in &billed {
        outcome.tokens.extend(usage.buckets());
        let cost = model.ok_or(NoPrice::UnknownModel).and_then(|model| price::cost(usage, &model.rates));
        match cost {
            Ok(cost) => {
                total = total.map(|total| total.saturating_add(cost.total));
                saturated |= cost.saturated;
                record.charges.extend(cost.charges.iter().map(|charge| charge_line(*model, charge)));
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
    if saturated {
        record.notes.push("cost_saturated".into());
    }
    outcome.cost = total;
    outcome
}

fn charge_line(model: Option<&Model>, charge: &price::Charge) -> ChargeLine {
    ChargeLine {
        model: model.map(|model| model.name.clone()).unwrap_or_default(),
        class: charge.class.name().into(),
        quantity: charge.quantity,
        unit: Text::from("tokens"),
        rate_usd: ExactNumber::new(&charge.rate.usd),
        per: charge.rate.per.count(),
        cost_picousd: charge.cost.pico(),
    }
}
