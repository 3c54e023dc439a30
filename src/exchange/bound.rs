//! The most a call may cost, at its own model or at another.

use super::call::Call;
use crate::api::uses::Use;
use crate::config::{Config, OnUnknownModel};
use crate::estimate::{self, Estimate};
use crate::price::{self, Circumstances, Model, Units};
use crate::usage::{Rule, UsageReport};

/// The most that `call` may cost at `model`, or at its own.
pub(super) fn bound(call: &Call, config: &Config, model: Option<&str>, unix_seconds: u64) -> Estimate {
    let size = size(call);
    let (found, circumstances) = sold_at(call, config, model, unix_seconds);
    estimate::estimate(&size, found, &config.reservation, &circumstances)
}

fn size(call: &Call) -> estimate::Size {
    let facts = &call.request.facts;
    // What looks like files is text where the request says of no files.
    let files = if facts.media_count.unwrap_or(0) == 0 { call.request.file_bytes } else { 0 };
    estimate::Size {
        text_bytes: call.request.text_bytes.saturating_add(files),
        media: facts.media_count.unwrap_or(0),
        max_output_tokens: facts.max_output_tokens,
        answers: facts.choices.unwrap_or(1),
        characters: facts.characters.unwrap_or(0),
        unseen_prompt: facts.uses.contains(Use::Conversation) || facts.uses.contains(Use::CachedContent),
    }
}

/// The price entry of `model`, or of the one that was asked for, and what its prices depend on before the answer is there.
fn sold_at<'a>(
    call: &'a Call,
    config: &'a Config,
    model: Option<&str>,
    unix_seconds: u64,
) -> (Option<&'a Model>, Circumstances<'a>) {
    let table = &config.prices.table;
    let circumstances = Circumstances {
        unix_seconds,
        service_tier: call.request.facts.service_tier.as_deref(),
        region: call.region.as_deref(),
        multiplier: call.price_multiplier,
        ..Circumstances::default()
    };
    let found = model.or(call.request_model()).and_then(|name| call.find_model(table, name));
    if found.is_some() || call.on_unknown_model(config) != OnUnknownModel::AssumeHighest {
        return (found, circumstances);
    }
    let size = size(call);
    let cost = |model: &&Model| estimate::estimate(&size, Some(model), &config.reservation, &circumstances).usd;
    (table.dearest(call.biller()).into_iter().max_by_key(cost), circumstances)
}

/// Whether the call costs less at `model` of the same provider, even if its prompt is cached where it was going.
pub(super) fn is_cheaper(call: &Call, config: &Config, model: &str, unix_seconds: u64) -> bool {
    let (own, circumstances) = sold_at(call, config, None, unix_seconds);
    let (other, _) = sold_at(call, config, Some(model), unix_seconds);
    let (Some(own), Some(other)) = (own, other) else { return false };
    let bound = estimate::estimate(&size(call), Some(own), &config.reservation, &circumstances);
    let usage = |cached| UsageReport {
        input: Some(bound.input_tokens),
        cached_input: Some(cached),
        explicit_cached_input: Some(cached),
        output: Some(bound.output_tokens),
        ..UsageReport::default()
    };
    let cost = |model: &Model, usage: UsageReport| {
        let usage = usage.normalise(Rule::OpenAi);
        price::cost(model, &usage, &Units::new(), &circumstances).map(|cost| cost.total).ok()
    };
    let (there, here) = (cost(other, usage(0)), cost(own, usage(bound.input_tokens)));
    own.provider == other.provider && there.zip(here).is_some_and(|(there, here)| there < here)
}
