//! Reports brought to one rule and taken apart into classes.

use super::*;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

fn report(input: u64, output: u64, total: u64) -> UsageReport {
    UsageReport { input: Some(input), output: Some(output), total: Some(total), ..UsageReport::default() }
}

fn buckets(report: &UsageReport) -> Vec<(&'static str, u64)> {
    report.normalise(Rule::OpenAi).buckets().map(|(class, tokens)| (class.name(), tokens)).collect()
}

#[test]
fn cached_and_reasoning_tokens_are_charged_once() {
    let usage = UsageReport { cached_input: Some(1920), reasoning: Some(64), ..report(2006, 300, 2306) };
    assert_eq!(buckets(&usage), [("input", 86), ("cached_input", 1920), ("output", 236), ("reasoning", 64)]);
}

#[test]
fn reasoning_on_top_of_the_completion_is_found_by_the_total() {
    let xai = UsageReport { reasoning: Some(50), ..report(10, 20, 80) };
    assert_eq!(xai.normalise(Rule::OpenAi).counts().output, Some(70));
    let larger_than_completion = UsageReport { reasoning: Some(50), ..report(10, 20, 30) };
    assert_eq!(larger_than_completion.normalise(Rule::OpenAi).counts().output, Some(70));
    let inside = UsageReport { reasoning: Some(15), ..report(10, 20, 30) };
    assert_eq!(inside.normalise(Rule::OpenAi).counts().output, Some(20));
}

#[test]
fn hidden_thinking_is_the_gap_to_the_total() {
    assert_eq!(report(35, 12, 109).normalise(Rule::OpenAi).counts().output, Some(74));
}

#[test]
fn audio_on_top_of_the_prompt_is_added_to_it() {
    let usage = UsageReport { input_audio: Some(375), ..report(5, 20, 400) }.normalise(Rule::OpenAi);
    assert_eq!(usage.counts().input, Some(380));
    assert_eq!(usage.buckets().map(|(_, tokens)| tokens).sum::<u64>(), 400);
}

#[test]
fn sound_that_only_the_total_counts_is_input() {
    for (usage, input, audio) in [
        (UsageReport { cached_input: Some(368), ..report(5, 24, 404) }, 380, Some(375)),
        (UsageReport { input_audio: Some(375), ..report(3, 41, 419) }, 378, Some(375)),
        (UsageReport { input_audio: Some(3), ..report(5, 24, 29) }, 5, Some(3)),
        (UsageReport { total: Some(9), ..UsageReport::default() }, 9, None),
    ] {
        let known = usage.normalise(Rule::SoundApart);
        assert_eq!((known.counts().input, known.counts().input_audio), (Some(input), audio), "{usage:?}");
        assert_eq!((known.counts().output, known.clamped()), (usage.output, false), "{usage:?}");
    }
}

#[test]
fn a_cache_that_was_asked_for_is_read_apart_from_sound_and_images() {
    let usage = UsageReport {
        cached_input: Some(1000),
        explicit_cached_input: Some(1000),
        cached_input_image: Some(300),
        input_image: Some(300),
        ..report(1200, 10, 1210)
    };
    let expected = [("input", 200), ("explicit_cached_input", 700), ("cached_input_image", 300), ("output", 10)];
    assert_eq!(buckets(&usage), expected);
    let more_than_cached = UsageReport { cached_input: Some(5), explicit_cached_input: Some(6), ..report(9, 1, 10) };
    assert_eq!(buckets(&more_than_cached), [("input", 4), ("explicit_cached_input", 5), ("output", 1)]);
    assert!(more_than_cached.normalise(Rule::OpenAi).clamped());
}

#[test]
fn more_cached_tokens_than_prompt_tokens_are_clamped_and_said() {
    let usage = UsageReport { cached_input: Some(700), ..report(500, 1, 501) }.normalise(Rule::OpenAi);
    assert_eq!(usage.counts().cached_input, Some(500));
    assert!(usage.clamped());
}

#[test]
fn a_part_of_an_unknown_whole_is_not_counted_twice() {
    let usage = UsageReport { cached_input_audio: Some(1), cache_creation_1h: Some(1), ..report(0, 0, 0) };
    assert_eq!(buckets(&usage), []);
}

#[test]
fn each_rule_puts_apart_counts_where_they_belong() {
    let counts = UsageReport {
        input: Some(10),
        cached_input: Some(7351),
        cache_creation: Some(100),
        output: Some(4),
        reasoning: Some(3),
        tool_use_input: Some(5),
        ..Default::default()
    };
    for (rule, input, output) in [
        (Rule::CacheApart, 7461, 4),
        (Rule::ThoughtsApart, 15, 7),
        (Rule::ReasoningApart, 10, 7),
        (Rule::OpenAi, 10, 4),
    ] {
        let usage = counts.normalise(rule);
        assert_eq!((usage.counts().input, usage.counts().output), (Some(input), Some(output)), "{rule:?}");
    }
}

#[test]
fn a_total_alone_is_input() {
    let voyage = UsageReport { total: Some(10), ..Default::default() };
    assert_eq!(buckets(&voyage), [("input", 10)]);
}

#[test]
fn cached_images_are_not_charged_out_of_fresh_text() {
    let usage = UsageReport {
        cached_input: Some(1000),
        cached_input_image: Some(1000),
        input_image: Some(1000),
        ..report(2000, 10, 2010)
    };
    assert_eq!(buckets(&usage), [("input", 1000), ("cached_input_image", 1000), ("output", 10)]);
}

#[test]
fn reasoning_beside_citations_is_on_top_of_the_completion() {
    let usage = UsageReport { reasoning: Some(10), citation: Some(5), ..report(10, 20, 30) };
    assert_eq!(buckets(&usage), [("input", 10), ("output", 20), ("reasoning", 10), ("citation", 5)]);
}

#[test]
fn unknown_stays_unknown() {
    let usage = UsageReport { input: Some(8), total: Some(8), ..UsageReport::default() }.normalise(Rule::OpenAi);
    assert_eq!(usage.counts().output, None);
    assert_eq!(usage.counts().cached_input, None);
    assert!(UsageReport::default().is_empty());
}

#[test]
fn a_later_event_replaces_what_it_names_and_keeps_the_rest() {
    let mut usage = UsageReport { input: Some(4), cache_creation: Some(1165), output: Some(1), ..Default::default() };
    usage.update(&UsageReport { output: Some(201), ..Default::default() });
    assert_eq!((usage.input, usage.cache_creation, usage.output), (Some(4), Some(1165), Some(201)));
}

#[test]
fn absurd_counts_saturate() {
    let all = UsageReport {
        input: Some(u64::MAX),
        cached_input: Some(u64::MAX),
        cache_creation: Some(u64::MAX),
        input_audio: Some(u64::MAX),
        output: Some(u64::MAX),
        reasoning: Some(u64::MAX),
        total: Some(u64::MAX),
        ..Default::default()
    };
    let usage = all.normalise(Rule::OpenAi);
    assert_eq!(usage.buckets().collect::<Vec<_>>(), [(Class::CachedInput, u64::MAX), (Class::Reasoning, u64::MAX)]);
    assert!(usage.clamped(), "a cache write beside a wholly cached prompt");
}
