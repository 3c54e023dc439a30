//! The price tables in `examples/prices`: each is ready to be used, says what the providers' lists say, and is what the
//! importer makes of its list of models.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;
use support::{file, price_release, price_source, repository, tollgate, tollgate_with};

/// The tables, by provider.
fn tables() -> Vec<(String, PathBuf)> {
    let files = fs::read_dir(repository().join("examples/prices")).unwrap().map(|entry| entry.unwrap().path());
    let tables: Vec<_> = files
        .filter(|path| path.extension().is_some_and(|ending| ending == "yaml"))
        .map(|path| (path.file_stem().unwrap().to_str().unwrap().to_owned(), path))
        .collect();
    assert!(tables.len() >= 16, "the tables are gone");
    tables
}

/// A file without what is said about it.
fn without_comments(text: &str) -> String {
    text.lines().filter(|line| !line.starts_with('#')).flat_map(|line| [line, "\n"]).collect()
}

/// Envoy's configuration of the filter with this section.
fn pasted(section: &str) -> String {
    let mut envoy = "vm_config: {vm_id: tollgate}\nconfiguration:\n".to_owned();
    envoy += "  \"@type\": type.googleapis.com/google.protobuf.Struct\n  value:\n    collector: {cluster: costs}\n";
    envoy.extend(section.lines().flat_map(|line| ["    ", line, "\n"]));
    envoy
}

#[test]
fn every_table_can_be_pasted_into_the_filters_configuration() {
    let release = price_release("litellm");
    let mut together = String::new();
    for (provider, path) in tables() {
        let text = fs::read_to_string(path).unwrap();
        let run = tollgate_with(&["check", "--strict", "-"], &pasted(&text));
        assert_eq!(run.code, 0, "{provider}: {}{}", run.out, run.err);
        for part in
            ["taken over on 20", &format!("tollgate prices import litellm {release}.json --provider {provider} ")]
        {
            assert!(text.contains(part), "{provider} does not say `{part}`");
        }
        together += without_comments(&text).split_once("  models:\n").unwrap().1;
    }
    let run = tollgate_with(&["check", "--strict", "-"], &pasted(&format!("prices:\n  models:\n{together}")));
    assert_eq!(run.code, 0, "all of them in one table: {}{}", run.out, run.err);
}

#[test]
fn the_tables_are_what_the_importer_makes_of_their_lists() {
    let Some(source) = price_source("litellm") else { return };
    let (source, version) = (source.to_str().unwrap(), &price_release("litellm"));
    for (provider, path) in tables() {
        let list = format!("examples/prices/models/{provider}.txt");
        let run = tollgate(&[
            "prices",
            "import",
            "litellm",
            source,
            "--provider",
            &provider,
            "--models-file",
            &list,
            "--version",
            version,
        ]);
        assert_eq!(run.code, 0, "{provider}: {}", run.err);
        let committed = fs::read_to_string(path).unwrap();
        assert!(
            without_comments(&run.out) == without_comments(&committed),
            "examples/prices/{provider}.yaml is not what {list} makes; run `make prices`"
        );
    }
}

/// From the providers' price lists, by hand: the model, the input and output tokens of a call, and what a million of
/// each cost.
const KNOWN: [(&str, &str, u64, [&str; 2]); 11] = [
    ("openai", "gpt-4o-2024-08-06", 1000, ["2.5", "10"]),
    ("openai", "gpt-4o-2024-05-13", 1000, ["5", "15"]),
    ("openai", "gpt-4.1-mini", 1000, ["0.4", "1.6"]),
    ("openai", "o3", 1000, ["2", "8"]),
    ("anthropic", "claude-sonnet-4-5-20250929", 1000, ["3", "15"]),
    ("anthropic", "claude-sonnet-4-6", 1000, ["3", "15"]),
    ("anthropic", "claude-haiku-4-5", 1000, ["1", "5"]),
    ("gemini", "gemini-2.5-pro", 200_000, ["1.25", "10"]),
    ("gemini", "gemini-2.5-pro", 200_001, ["2.5", "15"]),
    ("gemini", "gemini-2.5-flash-lite", 1000, ["0.1", "0.4"]),
    ("groq", "openai/gpt-oss-120b", 1000, ["0.15", "0.6"]),
];

#[test]
fn well_known_models_cost_what_their_providers_say() {
    for (provider, model, input, rates) in KNOWN {
        let config = file(
            &format!("examples/{provider}.yaml"),
            &format!("upstreams: [{{match: {{cluster: llm}}, provider: {provider}}}]\n"),
        );
        let exchange = json!({
            "request": {"path": "/v1/chat/completions", "body": {"model": model}},
            "response": {"body": {"model": model, "usage": {"prompt_tokens": input, "completion_tokens": 7}}},
            "at": "2026-11-22T12:00:00Z",
        });
        let prices = format!("examples/prices/{provider}.yaml");
        let arguments = ["--config", &config, "--prices", &prices, "--cluster", "llm", "--format", "json"];
        let run = tollgate_with(&[&["explain", "--exchange", "-"], &arguments[..]].concat(), &exchange.to_string());
        assert_eq!(run.code, 0, "{model}: {}", run.err);
        let account: Value = serde_json::from_str(&run.out).unwrap();
        let charges = account["record"]["charges"].as_array().unwrap_or_else(|| panic!("{model}: {account}"));
        let found: Vec<_> =
            charges.iter().map(|charge| (charge["class"].as_str().unwrap(), charge["rate_usd"].to_string())).collect();
        let [input_rate, output_rate] = rates.map(String::from);
        assert_eq!(found, [("input", input_rate), ("output", output_rate)], "{provider} {model} of {input} tokens");
    }
}

#[test]
fn the_documentation_shows_what_the_command_prints() {
    let page = fs::read_to_string(repository().join("docs/command.md")).unwrap();
    let command = page.lines().find_map(|line| line.strip_prefix("dist/tollgate explain ")).unwrap();
    let run = tollgate(&["explain"].into_iter().chain(command.split(' ')).collect::<Vec<_>>());
    let cost = run.out.find("Cost in USD").map(|at| run.out.split_at(at).1).unwrap();
    assert!(page.contains(&format!("```text\n{cost}```\n")), "{cost}");
}
