//! What LiteLLM's keys for token prices say.

use tollgate::usage::Class;

/// The key of a price per token, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TokenKey {
    /// What is priced.
    pub(super) class: Class,
    /// The size of the input above which it applies.
    pub(super) over: Option<u64>,
    /// The service tier at which it applies, in our name.
    pub(super) service: Option<&'static str>,
}

const CLASSES: [(&str, Class); 18] = [
    ("input_cost_per_token", Class::Input),
    ("cache_read_input_token_cost", Class::CachedInput),
    ("explicit_cache_read_input_token_cost", Class::ExplicitCachedInput),
    ("cache_creation_input_token_cost", Class::CacheCreation),
    ("cache_creation_input_token_cost_above_1hr", Class::CacheCreation1h),
    ("cache_creation_input_token_cost_above_12hr", Class::CacheCreation12h),
    ("cache_creation_input_audio_token_cost", Class::CacheCreationAudio),
    ("input_cost_per_audio_token", Class::InputAudio),
    ("cache_read_input_audio_token_cost", Class::CachedInputAudio),
    ("input_cost_per_image_token", Class::InputImage),
    ("cache_read_input_image_token_cost", Class::CachedInputImage),
    ("input_cost_per_video_token", Class::InputVideo),
    ("output_cost_per_token", Class::Output),
    ("output_cost_per_reasoning_token", Class::Reasoning),
    ("output_cost_per_audio_token", Class::OutputAudio),
    ("output_cost_per_image_token", Class::OutputImage),
    ("output_cost_per_video_token", Class::OutputVideo),
    ("citation_cost_per_token", Class::Citation),
];

const SERVICES: [(&str, &str); 6] = [
    ("_flex", "flex"),
    ("_priority", "priority"),
    ("_batches", "batch"),
    ("_balanced", "balanced"),
    ("_ultrafast", "ultrafast"),
    ("_decisions", "decisions"),
];

/// The class, size and service tier `key` names; `None` where it is no price per token, or of a class that a price
/// table does not have.
pub(super) fn token_key(key: &str) -> Option<TokenKey> {
    let at_service = SERVICES.iter().find_map(|(suffix, name)| Some((key.strip_suffix(suffix)?, *name)));
    let (key, service) = at_service.map_or((key, None), |(key, name)| (key, Some(name)));
    let (key, over) = match key.strip_suffix("_tokens").and_then(|key| key.rsplit_once("_above_")) {
        Some((key, size)) => (key, Some(tokens(size)?)),
        None => (key, None),
    };
    let (_, class) = CLASSES.iter().find(|(name, _)| *name == key)?;
    Some(TokenKey { class: *class, over, service })
}

/// `200k` or `128000`.
fn tokens(size: &str) -> Option<u64> {
    match size.strip_suffix('k') {
        Some(thousands) => thousands.parse::<u64>().ok()?.checked_mul(1000),
        None => size.parse().ok(),
    }
}

/// Whether a key is about money at all; the rest of an entry says what the model can do.
pub(super) fn is_price(key: &str) -> bool {
    ["cost", "pric", "multiplier", "billing"].iter().any(|word| key.contains(word)) || key == "provider_specific_entry"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_says_class_size_and_service_tier() {
        for (key, expected) in [
            ("input_cost_per_token", Some((Class::Input, None, None))),
            ("input_cost_per_token_above_272k_tokens", Some((Class::Input, Some(272_000), None))),
            ("output_cost_per_token_above_128000_tokens", Some((Class::Output, Some(128_000), None))),
            ("input_cost_per_token_above_272k_tokens_priority", Some((Class::Input, Some(272_000), Some("priority")))),
            ("cache_read_input_token_cost_batches", Some((Class::CachedInput, None, Some("batch")))),
            // An hour is how long the cache lives, not a size.
            ("cache_creation_input_token_cost_above_1hr", Some((Class::CacheCreation1h, None, None))),
            (
                "cache_creation_input_token_cost_above_1hr_above_200k_tokens",
                Some((Class::CacheCreation1h, Some(200_000), None)),
            ),
            (
                "cache_creation_input_token_cost_above_12hr_above_272k_tokens_flex",
                Some((Class::CacheCreation12h, Some(272_000), Some("flex"))),
            ),
            ("explicit_cache_read_input_token_cost", Some((Class::ExplicitCachedInput, None, None))),
            ("output_cost_per_image", None),
            ("input_dbu_cost_per_token", None),
            ("max_tokens", None),
        ] {
            let found = token_key(key).map(|key| (key.class, key.over, key.service));
            assert_eq!(found, expected, "{key}");
        }
    }

    #[test]
    fn keys_about_money_are_told_from_the_rest() {
        for key in [
            "output_cost_per_pixel",
            "tiered_pricing",
            "regional_endpoint_uplift_multiplier",
            "web_search_billing_unit",
        ] {
            assert!(is_price(key), "{key}");
        }
        for key in ["max_output_tokens", "mode", "supports_vision", "litellm_provider", "source"] {
            assert!(!is_price(key), "{key}");
        }
    }
}
