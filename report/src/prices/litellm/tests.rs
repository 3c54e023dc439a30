//! LiteLLM's keys and the price table they become, one rule at a time.

use super::*;
use crate::document::{Dialect, Document};

fn import_json(entries: &str) -> (Vec<Model>, Report) {
    let document = Document::parse(&format!("{{{entries}}}"), Dialect::Json).unwrap();
    let mut report = Report::default();
    let models = import(&document.roots[0], &mut Filter::default(), &mut report);
    (models, report)
}

/// What an entry with these fields becomes: its terms as JSON, then its losses.
fn terms(provider: &str, mode: &str, fields: &str) -> (String, Vec<String>) {
    let entry = format!(r#""m": {{"litellm_provider": "{provider}", "mode": "{mode}", {fields}}}"#);
    let (models, report) = import_json(&entry);
    let json = models.first().map(|model| model.doc().json()).unwrap_or_default();
    let head = format!(r#"{{"provider":"{provider}","model":"m","#);
    let losses = report.not_carried.keys().map(|loss| loss.key.clone()).collect();
    (json.replace(&head, "{"), losses)
}

#[test]
fn token_prices_become_rates_by_class_size_and_service_tier() {
    for (fields, expected) in [
        (
            r#""input_cost_per_token": 2.5e-06, "output_cost_per_token": 1e-05, "cache_read_input_token_cost": 0.00000125"#,
            r#"{"rates":{"input":"2.5","cached_input":"1.25","output":"10"}}"#,
        ),
        (
            r#""input_cost_per_token": 1e-06, "input_cost_per_token_above_272k_tokens": 2e-06"#,
            r#"{"rates":{"input":"1"},"tiers":[{"input_over":272000,"rates":{"input":"2"}}]}"#,
        ),
        (
            r#""input_cost_per_token": 1e-06, "input_cost_per_token_priority": 2e-06,
               "input_cost_per_token_above_272k_tokens_priority": 4e-06"#,
            concat!(
                r#"{"rates":{"input":"1"},"service_tiers":{"priority":{"rates":{"input":"2"},"#,
                r#""tiers":[{"input_over":272000,"rates":{"input":"4"}}]}}}"#
            ),
        ),
        // Written as a string, or not at all.
        (r#""input_cost_per_token": "3e-07", "output_cost_per_token": null"#, r#"{"rates":{"input":"0.3"}}"#),
        (
            r#""input_cost_per_token": 0, "output_cost_per_token": 0.0, "max_output_tokens": 8192, "max_input_tokens": 1e5"#,
            r#"{"rates":{"input":"0","output":"0"},"max_output_tokens":8192,"max_input_tokens":100000}"#,
        ),
        // An older key for cached input.
        (
            r#""input_cost_per_token": 1e-06, "input_cost_per_token_cache_hit": 1e-07"#,
            r#"{"rates":{"input":"1","cached_input":"0.1"}}"#,
        ),
        // Text out of an image model is billed as the images are.
        (
            r#""input_cost_per_token": 5e-06, "output_cost_per_image_token": 4e-05"#,
            r#"{"rates":{"input":"5","output":"40","output_image":"40"}}"#,
        ),
    ] {
        assert_eq!(terms("openai", "chat", fields), (expected.into(), vec![]), "{fields}");
    }
}

#[test]
fn the_sizes_of_xai_are_inclusive_and_fireworks_halves_cached_input() {
    let fields = r#""input_cost_per_token": 1e-06, "input_cost_per_token_above_200k_tokens": 2e-06"#;
    let (json, _) = terms("xai", "chat", fields);
    assert!(json.contains(r#"{"input_from":200000,"rates":{"input":"2"}}"#), "{json}");
    let (json, _) = terms("fireworks_ai", "chat", r#""input_cost_per_token": 1e-06"#);
    assert_eq!(json, r#"{"rates":{"input":"1","cached_input":"0.5"}}"#);
}

#[test]
fn rows_of_tiered_pricing_are_complete() {
    let fields = r#""tiered_pricing": [
        {"range": [0, 32000.0], "input_cost_per_token": 1e-06, "output_cost_per_token": 4e-06, "cache_read_input_token_cost": 1e-07},
        {"range": [32000.0, 128000.0], "input_cost_per_token": 2e-06, "output_cost_per_token": 8e-06},
        {"range": [128000.0, 256000.0], "input_cost_per_token": 3e-06, "output_cost_per_token": 9e-06,
         "output_cost_per_reasoning_token": 1.2e-05}]"#;
    let (json, losses) = terms("dashscope", "chat", fields);
    let expected = concat!(
        r#"{"rates":{"input":"1","cached_input":"0.1","output":"4","reasoning":"4"},"tiers":["#,
        r#"{"input_over":32000,"rates":{"input":"2","cached_input":"2","output":"8","reasoning":"8"}},"#,
        r#"{"input_over":128000,"rates":{"input":"3","cached_input":"3","output":"9","reasoning":"12"}}]}"#
    );
    assert_eq!((json.as_str(), losses.len()), (expected, 0));
}

#[test]
fn reasoning_at_the_output_rate_is_output_and_another_is_replaced_at_a_service_tier() {
    let same = r#""output_cost_per_token": 2e-06, "output_cost_per_reasoning_token": 2e-06, "output_cost_per_token_flex": 1e-06"#;
    assert_eq!(
        terms("gemini", "chat", same).0,
        r#"{"rates":{"output":"2"},"service_tiers":{"flex":{"rates":{"output":"1"}}}}"#
    );
    let other = same.replacen("2e-06", "3e-06", 1);
    let expected = concat!(
        r#"{"rates":{"output":"3","reasoning":"2"},"#,
        r#""service_tiers":{"flex":{"rates":{"output":"1","reasoning":"1"}}}}"#
    );
    assert_eq!(terms("gemini", "chat", &other).0, expected);
}

#[test]
fn batch_prices_that_are_all_half_are_a_multiplier_and_others_are_completed() {
    let standard =
        r#""input_cost_per_token": 2e-06, "cache_read_input_token_cost": 1e-06, "output_cost_per_token": 8e-06"#;
    for (batch, expected) in [
        (
            r#""input_cost_per_token_batches": 1e-06, "cache_read_input_token_cost_batches": 5e-07, "output_cost_per_token_batches": 4e-06"#,
            r#"{"multiplier":"0.5"}"#,
        ),
        // Cached input is input in a batch unless it is listed; what is left out is half.
        (r#""input_cost_per_token_batches": 1e-06"#, r#"{"rates":{"input":"1","cached_input":"1","output":"4"}}"#),
        (
            r#""input_cost_per_token_batches": 1.5e-06, "cache_read_input_token_cost_batches": 5e-07, "output_cost_per_token_batches": 4e-06"#,
            r#"{"rates":{"input":"1.5","cached_input":"0.5","output":"4"}}"#,
        ),
        // The model's tiers count for a batch too, so they are completed as well.
        (
            r#""input_cost_per_token_batches": 1e-06, "output_cost_per_token_batches": 4e-06,
               "input_cost_per_token_above_200k_tokens": 4e-06, "cache_read_input_token_cost_above_200k_tokens": 2e-06"#,
            concat!(
                r#"{"rates":{"input":"1","cached_input":"1","output":"4"},"#,
                r#""tiers":[{"input_over":200000,"rates":{"input":"2","cached_input":"2"}}]}"#
            ),
        ),
    ] {
        let (json, losses) = terms("openai", "chat", &format!("{standard}, {batch}"));
        let found = json.split_once(r#""batch":"#).map_or("", |(_, rest)| rest);
        assert!(found.starts_with(expected), "{batch}: {json}");
        assert!(losses.is_empty());
    }
    assert!(!terms("openai", "chat", standard).0.contains("batch"));
}

#[test]
fn multipliers_stand_under_what_they_depend_on() {
    let fields = r#""input_cost_per_token": 1e-06, "provider_specific_entry": {"us": 1.1, "fast": 2.0, "schema": "x", "free_images": 5},
        "regional_processing_uplift_multiplier_eu": 1.1"#;
    let (json, losses) = terms("anthropic", "chat", fields);
    assert!(
        json.contains(r#""multipliers":{"speed":{"fast":"2"},"geo":{"us":"1.1"},"region":{"eu":"1.1"}}"#),
        "{json}"
    );
    assert_eq!(losses, ["provider_specific_entry.free_images", "provider_specific_entry.schema"]);
    let (json, _) =
        terms("vertex_ai", "chat", r#""input_cost_per_token": 1e-06, "regional_endpoint_uplift_multiplier": 1.1"#);
    assert!(json.contains(r#""multipliers":{"region":{"*":"1.1","global":"1"}}"#), "{json}");
}

#[test]
fn units_are_carried_where_they_are_counted() {
    for (mode, fields, expected, lost) in [
        ("rerank", r#""input_cost_per_query": 0.002"#, r#"{"units":{"search_units":"0.002"}}"#, vec![]),
        ("search", r#""input_cost_per_query": 0.007"#, r#"{"units":{"requests":"0.007"}}"#, vec![]),
        ("chat", r#""input_cost_per_request": 0.005"#, r#"{"units":{"requests":"0.005"}}"#, vec![]),
        (
            "ocr",
            r#""ocr_cost_per_page": 0.004, "ocr_cost_per_page_batches": 0.002, "annotation_cost_per_page": 0.005"#,
            r#"{"service_tiers":{"batch":{"units":{"pages":"0.002"}}},"units":{"pages":"0.004"}}"#,
            vec!["annotation_cost_per_page"],
        ),
        (
            "audio_transcription",
            r#""input_cost_per_second": 0.0001, "output_cost_per_second": 0.0001"#,
            r#"{"units":{"audio_seconds":"0.0001"}}"#,
            vec![],
        ),
        (
            "audio_transcription",
            r#""input_cost_per_second": 0.0002833333333333333, "output_cost_per_second": 0.0"#,
            r#"{"units":{"audio_seconds":"0.0002833333333333333"}}"#,
            vec![],
        ),
        (
            "audio_transcription",
            r#""input_cost_per_second": 0.0, "output_cost_per_second": 0.0001"#,
            r#"{"units":{"audio_seconds":"0.0001"}}"#,
            vec![],
        ),
        (
            "audio_transcription",
            r#""input_cost_per_second": 0.0002, "output_cost_per_second": 0.0001"#,
            r#"{"units":{"audio_seconds":"0.0002"}}"#,
            vec!["output_cost_per_second"],
        ),
        ("video_generation", r#""output_cost_per_second": 0.1"#, "", vec!["output_cost_per_second"]),
        ("audio_speech", r#""input_cost_per_character": 1.5e-05"#, r#"{"units":{"characters":"0.000015"}}"#, vec![]),
        ("chat", r#""input_cost_per_character": 1.5e-05"#, "", vec!["input_cost_per_character"]),
        ("image_generation", r#""output_cost_per_image": 0.04"#, r#"{"units":{"images":"0.04"}}"#, vec![]),
        ("image_generation", r#""input_cost_per_image": 0.04"#, r#"{"units":{"images":"0.04"}}"#, vec![]),
        (
            "image_generation",
            r#""output_cost_per_image": 0.04, "output_cost_per_image_token": 3e-05"#,
            r#"{"rates":{"output":"30","output_image":"30"}}"#,
            vec!["output_cost_per_image"],
        ),
        (
            "chat",
            r#""search_context_cost_per_query": {"search_context_size_low": 0.005, "search_context_size_medium": 0.008, "search_context_size_high": 0.008}"#,
            r#"{"units":{"web_search_requests":"0.008"}}"#,
            vec!["search_context_cost_per_query.low"],
        ),
    ] {
        let lost: Vec<String> = lost.into_iter().map(str::to_owned).collect();
        assert_eq!(terms("x", mode, fields), (expected.into(), lost), "{mode} {fields}");
    }
}

#[test]
fn google_bills_a_grounded_prompt_unless_the_entry_says_by_the_query() {
    let prices = r#""search_context_cost_per_query": {"search_context_size_medium": 0.035}"#;
    for (provider, more, unit) in [
        ("gemini", "", "grounded_requests"),
        ("vertex_ai-language-models", "", "grounded_requests"),
        ("gemini", r#", "web_search_billing_unit": "per_query""#, "web_search_requests"),
        ("openai", r#", "web_search_billing_unit": "per_prompt""#, "grounded_requests"),
        // Anthropic's models search by themselves, wherever they run.
        ("vertex_ai-anthropic_models", "", "web_search_requests"),
        ("openai", "", "web_search_requests"),
    ] {
        let (models, report) = import_json(&format!(r#""m": {{"litellm_provider": "{provider}", {prices}{more}}}"#));
        let json = models[0].doc().json();
        assert!(json.contains(&format!(r#""units":{{"{unit}":"0.035"}}"#)), "{provider}{more}: {json}");
        assert!(report.not_carried.is_empty());
    }
    let (_, losses) = terms("gemini", "chat", r#""input_cost_per_token": 1, "web_search_billing_unit": "per_moon""#);
    assert_eq!(losses, ["web_search_billing_unit"]);
}

#[test]
fn off_peak_rates_are_blocks_and_hours_that_cannot_be_said_are_a_loss() {
    let fields = r#""input_cost_per_token": 1e-06, "off_peak_pricing": {"hours_utc": "16:30-00:30", "input_cost_per_token": 5e-07}"#;
    let (json, losses) = terms("deepseek", "chat", fields);
    assert!(json.contains(r#""off_peak":[{"hours_utc":"16:30-00:30","rates":{"input":"0.5"}}]"#), "{json}");
    assert!(losses.is_empty());
    let (json, losses) = terms("deepseek", "chat", &fields.replace("16:30-00:30", "at night"));
    assert!(!json.contains("off_peak"));
    assert_eq!(losses, ["off_peak_pricing"]);
}

#[test]
fn what_is_no_amount_and_what_has_no_place_is_told() {
    let fields = r#""input_cost_per_token": -1, "output_cost_per_token": 1e-06, "output_cost_per_pixel": 0.0, "input_dbu_cost_per_token": 1e-05"#;
    let (json, losses) = terms("openai", "chat", fields);
    assert_eq!(json, r#"{"rates":{"output":"1"}}"#);
    assert_eq!(losses, ["input_cost_per_token", "input_dbu_cost_per_token", "output_cost_per_pixel"]);
}

#[test]
fn entries_without_prices_and_the_specification_are_left_out_and_counted() {
    let (models, report) = import_json(
        r#""sample_spec": {"input_cost_per_token": 0.0}, "m": {"litellm_provider": "x", "mode": "chat"},
           "n": {"litellm_provider": "x", "input_cost_per_token": 1e-06}"#,
    );
    assert_eq!(models.len(), 1);
    assert_eq!(report.read, 3);
    assert_eq!(report.skipped.keys().collect::<Vec<_>>(), ["no price", "not a model"]);
}

#[test]
fn two_keys_of_one_model_become_one_unless_they_contradict_each_other() {
    let entry =
        |key: &str, more: &str| format!(r#""{key}": {{"litellm_provider": "vertex_ai-language-models", {more}}}"#);
    let cheap = r#""input_cost_per_token": 1e-06"#;
    let names = |entries: [String; 2]| {
        let (models, report) = import_json(&entries.join(","));
        let names: Vec<String> = models.iter().map(|model| model.name.clone()).collect();
        (names.join(" "), report.merged.count, models[0].doc().json().contains("multipliers"))
    };
    assert_eq!(names([entry("g", cheap), entry("vertex_ai/g", cheap)]), ("g".into(), 1, false));
    // One of them says more: that is the one.
    let regional = format!(r#"{cheap}, "regional_endpoint_uplift_multiplier": 1.1"#);
    assert_eq!(names([entry("g", cheap), entry("vertex_ai/g", &regional)]), ("g".into(), 1, true));
    assert_eq!(names([entry("g", &regional), entry("vertex_ai/g", cheap)]), ("g".into(), 1, true));
    let dear = r#""input_cost_per_token": 2e-06"#;
    assert_eq!(names([entry("vertex_ai/g", dear), entry("g", cheap)]), ("g vertex_ai/g".into(), 0, false));
}
