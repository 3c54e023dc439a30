//! genai-prices' clauses and conditions, one by one.

use super::*;
use crate::document::{Dialect, Document};
use crate::prices::leaves;

fn import_json(models: &str) -> (Vec<Model>, Report) {
    import_of("google", models)
}

fn import_of(provider: &str, models: &str) -> (Vec<Model>, Report) {
    let json = format!(r#"[{{"id": "{provider}", "models": [{models}]}}]"#);
    let document = Document::parse(&json, Dialect::Json).unwrap();
    let mut report = Report::default();
    let models = import(&document.roots[0], &mut Filter::default(), &mut report);
    (models, report)
}

/// The leaves of a model with these prices, as lines.
fn lines(fields: &str) -> Vec<String> {
    let (models, report) = import_json(&format!(r#"{{"id": "m", "match": {{"equals": "m"}}, {fields}}}"#));
    let skip = ["provider", "model"];
    let leaves = leaves::of(&models[0].doc()).into_iter().filter(|(key, _)| !skip.contains(&key.as_str()));
    let mut lines: Vec<String> = leaves.map(|(key, value)| format!("{key} {value}")).collect();
    lines.extend(report.not_carried.keys().map(|loss| format!("lost {}: {}", loss.key, loss.reason)));
    lines
}

#[test]
fn a_clause_becomes_the_globs_that_say_the_same() {
    for (clause, aliases, lost) in [
        (r#"{"equals": "m"}"#, vec![], None),
        (r#"{"equals": "x"}"#, vec!["x"], None),
        (r#"{"starts_with": "x"}"#, vec!["x*"], None),
        (r#"{"ends_with": "x"}"#, vec!["*x"], None),
        (r#"{"contains": "x"}"#, vec!["*x*"], None),
        (r#"{"or": [{"equals": "x"}, {"or": [{"contains": "y"}, {"equals": "x"}]}]}"#, vec!["x", "*y*"], None),
        (r#"{"and": [{"contains": "x"}, {"contains": "y"}]}"#, vec![], Some("match.and")),
        (r#"{"equals": "a*b"}"#, vec![], Some("match.equals")),
        // A dated name is found under the one without a date.
        (r#"{"regex": "^x-5\\.1-\\d{4}-\\d{2}-\\d{2}$"}"#, vec!["x-5.1"], None),
        (r#"{"regex": "^x\\[fast=true\\]$"}"#, vec!["x[fast=true]"], None),
        (r#"{"regex": "^o[134]"}"#, vec![], Some("match.regex")),
        (r#"{"regex": "^x-\\d$"}"#, vec![], Some("match.regex")),
    ] {
        let model = format!(r#"{{"id": "m", "match": {clause}, "prices": {{"input_mtok": 1}}}}"#);
        let (models, report) = import_json(&model);
        assert_eq!(models[0].aliases, aliases, "{clause}");
        assert_eq!(report.not_carried.keys().next().map(|loss| loss.key.as_str()), lost, "{clause}");
    }
}

#[test]
fn an_alias_stands_for_the_first_model_that_claims_it() {
    let model =
        |id: &str, clause: &str| format!(r#"{{"id": "{id}", "match": {clause}, "prices": {{"input_mtok": 1}}}}"#);
    let (models, report) = import_json(&format!(
        "{}, {}, {}",
        model("a", r#"{"or": [{"starts_with": "x"}, {"equals": "b"}]}"#),
        model("b", r#"{"starts_with": "x"}"#),
        model("a", r#"{"equals": "a"}"#),
    ));
    let names: Vec<_> = models.iter().map(|model| (model.name.as_str(), model.aliases.join(" "))).collect();
    assert_eq!(names, [("a", "x*".into()), ("b", String::new())]);
    assert_eq!(models[0].provider.as_deref(), Some("gemini"));
    assert_eq!(report.not_carried.values().map(|tally| tally.count).sum::<usize>(), 2);
    assert_eq!(report.skipped.values().map(|tally| tally.count).sum::<usize>(), 1);
}

#[test]
fn prices_keep_their_digits_and_units_their_counts() {
    let fields = r#""prices": {"input_mtok": 0.30, "cache_write_1h_mtok": 1.6, "output_citation_mtok": 2,
        "web_searches_kcount": 35, "requests_kcount": 5, "input_document_kpages": 1.5, "input_mchars": 40,
        "audio_hours": 0.24, "storage_searches_kcount": 2.5, "output_mtok": null}"#;
    assert_eq!(
        lines(fields),
        [
            "rates.cache_creation_1h 1.6",
            "rates.citation 2",
            "rates.input 0.3",
            "units.audio_seconds.per 3600",
            "units.audio_seconds.usd 0.24",
            "units.characters 0.00004",
            "units.pages 0.0015",
            "units.requests 0.005",
            "units.web_search_requests 0.035",
            "lost storage_searches_kcount: the table has no such price",
        ]
    );
}

#[test]
fn google_bills_grounded_prompts_before_gemini_3() {
    for (provider, name, unit) in [
        ("google", "gemini-2.5-pro", "grounded_requests"),
        ("google", "gemini-3-pro", "web_search_requests"),
        ("anthropic", "claude", "web_search_requests"),
    ] {
        let models = format!(r#"{{"id": "{name}", "prices": {{"web_searches_kcount": 35}}}}"#);
        let (models, report) = import_of(provider, &models);
        assert!(models[0].doc().json().contains(&format!(r#""units":{{"{unit}":"0.035"}}"#)), "{name}");
        assert_eq!(report.changed.len(), usize::from(unit == "grounded_requests"));
    }
}

#[test]
fn a_tier_begins_above_its_start_and_at_a_round_number_where_that_is_meant() {
    let tiered = |start: u64| {
        lines(&format!(
            r#""prices": {{"input_mtok": {{"base": 1, "tiers": [{{"start": {start}, "price": 2}}]}}, "output_mtok": 3}}"#
        ))
    };
    assert!(tiered(200_000).contains(&"tiers[over 200000].rates.input 2".into()));
    assert!(tiered(199_999).contains(&"tiers[from 200000].rates.input 2".into()));
}

#[test]
fn prices_change_at_their_dates_and_what_ends_is_said() {
    let fields = r#""prices": [
        {"prices": {"input_mtok": {"base": 1, "tiers": [{"start": 100, "price": 2}]}, "output_mtok": 5}},
        {"constraint": {"start_date": "2026-03-01"}, "prices": {"input_mtok": 3, "output_mtok": 5}}]"#;
    let (models, _) = import_json(&format!(r#"{{"id": "m", "match": {{"equals": "m"}}, {fields}}}"#));
    let json = models[0].doc().json();
    assert!(
        json.contains(r#""effective":[{"from":"2026-03-01T00:00:00Z","rates":{"input":"3","output":"5"},"tiers":[]}]"#),
        "{json}"
    );
}

#[test]
fn hours_are_off_peak_blocks_over_the_price_before_them() {
    let fields = r#""prices": [
        {"prices": {"input_mtok": 1}},
        {"constraint": {"start_time": "00:30:00Z", "end_time": "16:30:00Z"}, "prices": {"input_mtok": 2}}]"#;
    assert_eq!(
        lines(fields),
        ["off_peak[00:30-16:30].hours_utc 00:30-16:30", "off_peak[00:30-16:30].rates.input 2", "rates.input 1"]
    );
}

#[test]
fn a_price_under_a_condition_that_no_table_can_say_never_counts() {
    let fields = r#""prices": [{"prices": {"input_mtok": 1}},
        {"constraint": {"start_time": "00:30:00Z"}, "prices": {"input_mtok": 2}}],
        "price_variants": [{"when": {"processing": "batch"}, "prices": {"input_mtok": 0.5},
            "constraint": {"start_time": "00:30:00Z", "end_time": "01:00:00Z"}}]"#;
    assert_eq!(
        lines(fields),
        ["rates.input 1", "lost constraint: neither a date nor hours", "lost price_variants: hours in a variant"]
    );
}

#[test]
fn variants_become_service_tiers_that_the_models_own_tiers_do_not_reprice() {
    let fields = r#""prices": {"input_mtok": {"base": 1, "tiers": [{"start": 100, "price": 2}]}, "output_mtok": 5},
        "price_variants": [
        {"when": {"processing": "batch"}, "prices": {"input_mtok": 0.5}},
        {"when": {"service_tier": "priority"}, "prices": {"input_mtok": {"base": 2, "tiers": [{"start": 100, "price": 4}]}}},
        {"when": {"service_tier": "default"}, "prices": {}},
        {"when": {"route": "eu"}, "prices": {"input_mtok": 9}}]"#;
    let lines = lines(fields);
    for line in [
        "service_tiers.batch.rates.input 0.5",
        "service_tiers.batch.tiers[over 100].rates.input 0.5",
        "service_tiers.priority.tiers[over 100].rates.input 4",
        "lost price_variants[route=eu]: the table has no such condition",
    ] {
        assert!(lines.iter().any(|found| found == line), "{line} in {lines:#?}");
    }
    assert!(!lines.iter().any(|line| line.contains("default")));
}

#[test]
fn a_speed_is_a_multiplier_if_it_multiplies_every_rate_by_the_same() {
    let speed = |output: &str| {
        lines(&format!(
            r#""prices": {{"input_mtok": 5, "output_mtok": 25}},
            "price_variants": [{{"when": {{"speed": "fast"}}, "prices": {{"input_mtok": 10, "output_mtok": {output}}}}}]"#
        ))
    };
    assert!(speed("50").contains(&"multipliers.speed.fast 2".into()));
    assert!(speed("60").contains(&"lost price_variants[speed=fast]: not the same multiple of every rate".into()));
}

#[test]
fn a_dated_variant_begins_with_its_date() {
    let fields = r#""prices": {"input_mtok": 1},
        "price_variants": [{"when": {"processing": "batch"}, "constraint": {"start_date": "2026-10-14"}, "prices": {"input_mtok": 0.5}}]"#;
    let lines = lines(fields);
    assert!(
        lines.contains(&"effective[2026-10-14T00:00:00Z].service_tiers.batch.rates.input 0.5".into()),
        "{lines:#?}"
    );
    assert!(!lines.iter().any(|line| line.starts_with("service_tiers")));
}
