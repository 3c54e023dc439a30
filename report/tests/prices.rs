//! `tollgate prices` as people call it, and whether every price of LiteLLM's table arrives.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use bigdecimal::{BigDecimal, RoundingMode};
use serde_json::value::RawValue;
use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;
use support::{file, price_source, tollgate};
use tollgate::config::{Config, Origin};
use tollgate::price::{Biller, Circumstances, Model, PriceTable};
use tollgate::usage::Class;

/// The table in what the command wrote.
fn load(text: &str) -> PriceTable {
    let config = Config::from_json(text, Origin::Json);
    config
        .unwrap_or_else(|errors| panic!("{:#?}", errors.iter().take(9).map(ToString::to_string).collect::<Vec<_>>()))
        .prices
        .table
}

type Entry<'a> = BTreeMap<String, &'a RawValue>;

fn object(raw: &RawValue) -> Entry<'_> {
    serde_json::from_str(raw.get()).unwrap()
}

fn objects(raw: &RawValue) -> Vec<Entry<'_>> {
    serde_json::from_str(raw.get()).unwrap()
}

/// A price per token as dollars per million, without float noise: the test's own arithmetic.
fn per_million(raw: &RawValue) -> Option<BigDecimal> {
    let per_token = BigDecimal::from_str(raw.get().trim_matches('"')).ok()?;
    let rounded = per_token.with_scale_round(12, RoundingMode::HalfEven);
    let noise = (&rounded - &per_token).abs() * BigDecimal::from(100_000_000_000_000u64) <= per_token;
    let price = if noise { rounded } else { per_token };
    Some((price * BigDecimal::from(1_000_000)).normalized())
}

/// What a key says, read in another way than the importer does: class, size above which, service tier.
fn meaning(key: &str) -> Option<(Class, u64, Option<&str>)> {
    let words: Vec<&str> = key.split('_').collect();
    let service = ["flex", "priority", "batches", "balanced", "ultrafast", "decisions"]
        .into_iter()
        .find(|s| words.last() == Some(s));
    let over =
        words.iter().rev().find_map(|word| word.strip_suffix('k')?.parse::<u64>().ok()).unwrap_or_default() * 1000;
    let has = |word: &str| words.contains(&word);
    if !has("token") || !has("cost") || has("dbu") || (over == 0 && key.contains("_tokens")) {
        return None;
    }
    let class = match (words[0], has("cache"), has("creation"), has("1hr")) {
        ("citation", ..) => Class::Citation,
        ("output", ..) if has("reasoning") => Class::Reasoning,
        ("output", ..) if has("audio") => Class::OutputAudio,
        ("output", ..) if has("image") => Class::OutputImage,
        ("output", ..) if has("video") => Class::OutputVideo,
        ("output", ..) => Class::Output,
        (_, true, true, true) => Class::CacheCreation1h,
        (_, true, true, _) if has("12hr") => Class::CacheCreation12h,
        (_, true, true, _) if has("audio") => Class::CacheCreationAudio,
        (_, true, true, _) => Class::CacheCreation,
        (_, true, ..) if has("explicit") => Class::ExplicitCachedInput,
        (_, true, ..) if has("audio") => Class::CachedInputAudio,
        (_, true, ..) if has("image") => Class::CachedInputImage,
        (_, true, ..) => Class::CachedInput,
        _ if has("audio") => Class::InputAudio,
        _ if has("image") => Class::InputImage,
        _ if has("video") => Class::InputVideo,
        _ => Class::Input,
    };
    Some((class, over, service))
}

/// Wednesday 2026-11-18, 02:30 UTC: no off-peak window of the table is open.
const PEAK: u64 = 1_794_969_000;
/// The Saturday after: all are.
const OFF_PEAK: u64 = PEAK + 3 * 86_400;

/// The rate for a call of `input_tokens`, multiplied out.
fn rate(
    model: &Model,
    class: Class,
    input_tokens: u64,
    service_tier: Option<&str>,
    unix_seconds: u64,
) -> Option<BigDecimal> {
    let circumstances = Circumstances { unix_seconds, service_tier, ..Circumstances::default() };
    let applied = model.terms_at(unix_seconds).apply(input_tokens, &circumstances);
    let decimal = |text: String| BigDecimal::from_str(&text).unwrap();
    let rate = decimal(applied.rates.get(class)?.to_string());
    Some((rate * decimal(applied.multiplier.unwrap().to_string())).normalized())
}

/// Names of one provider: what the table calls it, by what LiteLLM does.
fn provider(theirs: &str) -> &str {
    match theirs {
        "bedrock_converse" => "bedrock",
        "cohere_chat" => "cohere",
        "azure_text" => "azure",
        "text-completion-openai" => "openai",
        "codestral" | "text-completion-codestral" => "mistral",
        "text-completion-inception" => "inception",
        "fireworks_ai-embedding-models" => "fireworks_ai",
        _ if theirs.starts_with("vertex_ai") => "vertex_ai",
        _ => theirs,
    }
}

/// The provider and the short name of an entry.
fn name<'a>(key: &'a str, entry: &Entry<'a>) -> (&'a str, &'a str) {
    let theirs: &str = entry.get("litellm_provider").map_or("", |raw| raw.get().trim_matches('"'));
    let ours = provider(theirs);
    let short = [theirs, ours].iter().find_map(|prefix| key.strip_prefix(*prefix)?.strip_prefix('/'));
    (ours, short.unwrap_or(key))
}

#[test]
fn every_token_price_of_litellm_is_what_the_loaded_table_charges() {
    let Some(source) = price_source("litellm") else { return };
    let run = tollgate(&["prices", "import", "litellm", source.to_str().unwrap(), "--format", "json"]);
    assert_eq!(run.code, 0, "{}", run.err);
    let table = load(&run.out);
    let models: BTreeMap<(&str, &str), &Model> = table
        .models()
        .iter()
        .map(|model| ((model.provider.as_deref().unwrap_or_default(), &*model.name), model))
        .collect();

    let text = std::fs::read_to_string(source).unwrap();
    let entries: BTreeMap<String, Entry<'_>> = serde_json::from_str(&text).unwrap();
    let entries =
        || entries.iter().filter(|(key, _)| *key != "sample_spec").map(|(key, entry)| (name(key, entry), key, entry));
    let short_names: BTreeSet<(&str, &str)> =
        entries().filter(|((_, short), key, _)| short != key).map(|(name, ..)| name).collect();
    let (mut compared, mut wrong, mut unread) = (0, Vec::new(), BTreeSet::new());
    for ((ours, short), key, entry) in entries() {
        // An entry whose short name another one has keeps its key, unless that is yet another one's short name.
        let full = models.get(&(ours, key)).filter(|_| !short_names.contains(&(ours, key)));
        let model = full.or_else(|| models.get(&(ours, short)));
        let found = |class, tokens, service, time| model.and_then(|model| rate(model, class, tokens, service, time));
        let mut compare = |key: &str, class, tokens, service, time, raw: &RawValue| {
            let Some(expected) = per_million(raw) else { return };
            compared += 1;
            let found = found(class, tokens, service, time);
            if found.as_ref() != Some(&expected) {
                wrong.push(format!("{ours} {short} {key}: {expected} became {found:?}"));
            }
        };
        // Sizes are exclusive, but for one provider.
        let above = |over: u64| if ours == "xai" { over.max(1) } else { over + 1 };
        for (name, raw) in entry {
            match meaning(name) {
                Some((class, over, service)) => {
                    let service = service.map(|name| if name == "batches" { "batch" } else { name });
                    compare(name, class, above(over), service, PEAK, raw);
                    // One model has two sizes.
                    if over > 0 && service.is_none() && short != "qwen3.7-flash" {
                        assert_eq!(
                            found(class, above(over) - 1, None, PEAK),
                            found(class, 1, None, PEAK),
                            "{key} {name}"
                        );
                    }
                }
                None if name.contains("token") && name.contains("cost") => drop(unread.insert(name.as_str())),
                None => {}
            }
        }
        for row in entry.get("tiered_pricing").map(|raw| objects(raw)).unwrap_or_default() {
            let Some(range) = row.get("range") else { continue };
            let start = range.get().trim_start_matches('[').split([',', '.']).next().unwrap().trim().parse().unwrap();
            for (name, raw) in row.iter().filter(|(name, _)| *name != "range") {
                compare(name, meaning(name).unwrap().0, above(start), None, PEAK, raw);
            }
        }
        for (name, raw) in entry.get("off_peak_pricing").map(|raw| object(raw)).unwrap_or_default() {
            if let Some((class, ..)) = meaning(&name) {
                compare(&name, class, 1, None, OFF_PEAK, raw);
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new(), "{} of {compared}", wrong.len());
    // Databricks' units are no dollars, and the rest are tiers of what is not tokens, at two models without a price.
    const NO_TOKEN_PRICE: [&str; 7] = [
        "input_dbu_cost_per_token",
        "output_dbu_cost_per_token",
        "input_cost_per_audio_per_second_above_128k_tokens",
        "input_cost_per_character_above_128k_tokens",
        "input_cost_per_image_above_128k_tokens",
        "input_cost_per_video_per_second_above_128k_tokens",
        "output_cost_per_character_above_128k_tokens",
    ];
    unread.retain(|name| !NO_TOKEN_PRICE.contains(name));
    assert_eq!(unread, BTreeSet::new());
    assert!(compared > 15_800, "only {compared}");
}

#[test]
fn genai_prices_loads_whole_and_finds_models_by_their_clauses() {
    let Some(source) = price_source("genai-prices") else { return };
    let run = tollgate(&["prices", "import", "genai-prices", source.to_str().unwrap(), "--format", "json"]);
    assert_eq!(run.code, 0, "{}", run.err);
    let table = load(&run.out);
    assert!(table.models().len() > 2000, "only {}", table.models().len());
    let price = |provider, name, class, tokens, service, time| {
        let (model, _) = table.find(name, Biller::Known(provider), None).unwrap();
        rate(model, class, tokens, service, time).unwrap().to_string()
    };
    for (provider, name, class, tokens, service, time, expected) in [
        ("anthropic", "claude-3-5-haiku-20241022", Class::CacheCreation1h, 1, None, PEAK, "1.6"),
        ("anthropic", "claude-haiku-5-5", Class::Input, 100_001, None, PEAK, "0.5"),
        ("anthropic", "claude-haiku-5-5", Class::Input, 100_000, Some("batch"), PEAK, "0.05"),
        ("anthropic", "claude-haiku-5-5", Class::Input, 100_001, Some("batch"), PEAK, "0.25"),
        ("xai", "grok-4.3", Class::Input, 199_999, None, PEAK, "1.25"),
        ("xai", "grok-4.3", Class::Input, 200_000, None, PEAK, "2.5"),
        ("deepseek", "deepseek-flash", Class::Input, 1, None, PEAK, "0.3"),
        ("deepseek", "deepseek-flash", Class::Input, 1, None, PEAK + 3 * 3600, "0.15"),
    ] {
        assert_eq!(
            price(provider, name, class, tokens, service, time),
            expected,
            "{provider} {name} {tokens} {service:?}"
        );
    }
}

/// A sample in LiteLLM's format.
const SAMPLE: &str = "report/tests/data/litellm.json";

#[test]
fn an_import_is_a_table_to_paste_and_a_word_about_all_that_is_missing() {
    let run = tollgate(&["prices", "import", "litellm", SAMPLE, "--version", "2026-11-01"]);
    assert_eq!(run.code, 0, "{}", run.err);
    let expected = r#"# Prices from litellm, imported by `tollgate prices import`.
# 5 models, 18 prices carried over; 2 prices and names have no place in a table.
prices:
  version: "2026-11-01"
  models:
  - provider: azure
    model: eu/gpt-4o
    rates: {input: "2.75", output: "11"}
  - provider: databricks
    model: databricks-dbrx
    rates: {input: "0.74998"}
  - provider: gemini
    model: gemini-2.5-pro
    rates: {input: "1.25", output: "10"}
    tiers:
    - {input_over: 200000, rates: {input: "2.5", output: "15"}}
    units: {grounded_requests: "0.035"}
    max_output_tokens: 65535
  - provider: openai
    model: gpt-4o
    rates: {input: "2.5", cached_input: "1.25", output: "10"}
    service_tiers:
      batch: {multiplier: "0.5"}
      priority: {rates: {input: "4.25", output: "17"}}
    max_output_tokens: 16384
    max_input_tokens: 128000
  - provider: openai
    model: whisper-1
    units: {audio_seconds: "0.0001"}
"#;
    assert_eq!(run.out, expected);
    for line in [
        "litellm: 7 entries read, 5 models written, 18 prices carried over",
        "  no price: 1, as in omni-moderation-latest",
        "  float noise rounded away: 1, as in databricks/databricks-dbrx",
        "  google_maps_grounding_cost_per_query (the table has no such price): 1, as in gemini/gemini-2.5-pro",
        "  input_dbu_cost_per_token (the table has no such price): 1, as in databricks/databricks-dbrx",
    ] {
        assert!(run.err.lines().any(|found| found == line), "{line} in {}", run.err);
    }
}

#[test]
fn what_was_asked_for_is_imported_and_what_is_missing_fails_the_run() {
    let list = file("prices/models.txt", "gpt-4o   # chat\n\nazure/*\ngpt-6\n");
    let report = file("prices/report.json", "");
    let run = tollgate(&["prices", "import", "litellm", SAMPLE, "--models-file", &list, "--report", &report]);
    assert_eq!((run.code, run.err.as_str()), (1, ""));
    assert!(run.out.contains("model: eu/gpt-4o") && run.out.contains("model: gpt-4o") && !run.out.contains("whisper"));
    let report: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(report).unwrap()).unwrap();
    assert_eq!(report["not_found"], serde_json::json!(["gpt-6"]));
    assert_eq!((&report["models"], &report["filtered_out"]), (&2.into(), &4.into()));

    let run = tollgate(&["prices", "import", "litellm", SAMPLE, "--provider", "vertex_ai-language-models"]);
    assert!(run.out.ends_with("  models: []\n"));
    let run = tollgate(&["prices", "import", "genai-prices", SAMPLE]);
    assert!(run.code == 2 && run.err.contains("has no entries of genai-prices"), "{}", run.err);
}

#[test]
fn yaml_and_json_are_the_same_table() {
    let import = |format: &str| {
        let path = file(&format!("prices/same.{format}"), "");
        let run = tollgate(&["prices", "import", "litellm", SAMPLE, "--format", format, "--output", &path]);
        assert_eq!((run.code, run.out.as_str()), (0, ""));
        path
    };
    let (yaml, json) = (import("yaml"), import("json"));
    let run = tollgate(&["prices", "diff", &yaml, &json]);
    assert_eq!((run.code, run.out.as_str()), (0, "The tables are the same.\n"), "{}", run.err);
    load(&std::fs::read_to_string(json).unwrap());
}

#[test]
fn a_difference_is_shown_with_what_it_means_for_calls() {
    let old = file(
        "prices/old.yaml",
        "models:\n- {model: m, rates: {input: '2', output: '10'}}\n- {model: gone, rates: {input: 1}}\n",
    );
    let new = file("prices/new.yaml", "prices:\n  models:\n  - {model: m, rates: {input: '1.5', output: '10'}}\n");
    let call = |model: &str| {
        format!(
            r#"{{"type": "usage", "ts": "2026-11-18T12:00:00Z", "response_model": "{model}", "input_tokens": 1000, "output_tokens": 100}}"#
        )
    };
    let records = file("prices/usage.ndjson", &format!("{}\n{}\n", call("m"), call("x")));
    let run = tollgate(&["prices", "diff", &old, &new, "--records", &records]);
    assert_eq!(run.code, 1, "{}", run.err);
    let expected = "\
removed: 1
  gone
changed: 1
  m
    rates.input  2 -> 1.5  -25%
cost of the calls in USD
  model  calls  old    new     difference
  m      1      0.003  0.0025  -0.0005
  total  1      0.003  0.0025  -0.0005
  left out, model unknown in both tables: 1
";
    let squeeze = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(squeeze(&run.out), squeeze(expected), "{}", run.out);

    let run = tollgate(&["prices", "diff", &old, &new, "--records", &records, "--format", "json"]);
    let value: serde_json::Value = serde_json::from_str(&run.out).unwrap();
    assert_eq!(value["changed"]["m"][0]["change"], "-25%");
    assert_eq!(value["records"]["total"]["new_usd"], "0.0025");
}

#[test]
fn a_table_that_the_filter_would_refuse_is_refused_with_its_places() {
    let bad = file("prices/bad.yaml", "models:\n- {model: m, rates: {input: ten}}\n");
    let run = tollgate(&["prices", "diff", &bad, &bad]);
    assert_eq!(run.code, 2);
    assert!(run.err.contains("bad.yaml:2:") && run.err.contains("models[0].rates.input"), "{}", run.err);
    let run = tollgate(&["prices", "import", "litellm", "no-such-file"]);
    assert_eq!(run.code, 2);
    assert!(run.err.contains("cannot read no-such-file"), "{}", run.err);
}

#[test]
fn the_commands_have_help_with_examples_and_exit_codes() {
    for command in ["import", "diff"] {
        let run = tollgate(&["prices", command, "--help"]);
        assert_eq!(run.code, 0);
        for part in ["Examples:", "Exit codes: 0", &format!("tollgate prices {command} "), "--format"] {
            assert!(run.out.contains(part), "{part} in {}", run.out);
        }
    }
}
