//! What a call asks for, for the most it may cost.

use super::call::Call;
use crate::api::uses::Use;
use crate::config::{Config, OnUnknownModel};
use crate::estimate::{Asked, Size};
use crate::price::Circumstances;

/// What `look` says of what `call` asks for.
pub(super) fn asked<T>(call: &Call, config: &Config, unix_seconds: u64, look: impl FnOnce(&Asked<'_>) -> T) -> T {
    look(&Asked {
        table: &config.prices.table,
        reservation: &config.reservation,
        model: call.request_model(),
        biller: call.biller(),
        size: size(call),
        circumstances: Circumstances {
            unix_seconds,
            service_tier: call.request.facts.service_tier.as_deref(),
            speed: call.request.facts.speed.as_deref(),
            geo: call.request.facts.geo.as_deref(),
            region: call.region.as_deref(),
            multiplier: call.price_multiplier,
        },
        assumes_highest: &|| call.on_unknown_model(config) == OnUnknownModel::AssumeHighest,
    })
}

fn size(call: &Call) -> Size {
    let facts = &call.request.facts;
    // What looks like files is text where the request says of no files.
    let files = if facts.media_count.unwrap_or(0) == 0 { call.request.file_bytes } else { 0 };
    Size {
        text_bytes: call.request.text_bytes.saturating_add(files),
        media: facts.media_count.unwrap_or(0),
        max_output_tokens: facts.max_output_tokens,
        answers: facts.choices.unwrap_or(1),
        characters: facts.characters.unwrap_or(0),
        unseen_prompt: facts.uses.contains(Use::Conversation) || facts.uses.contains(Use::CachedContent),
    }
}
