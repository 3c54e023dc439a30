//! What `tollgate explain` says of budgets, of what they hold, and of downgrades.

use super::support::file;
use super::{AT, explain, pico};
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;

/// Budgets of every kind, above prices that are easy to follow.
const BUDGETS: &str = r#"
prices:
  models:
  - {provider: openai, model: large, rates: {input: 10, output: 30}}
  - {provider: openai, model: small, rates: {input: 1, output: 3}}
budgets:
- {name: team-daily, per: [team], when_missing: share, window: day, limit_usd: 10, hard_limit_usd: 12, on_exceeded: downgrade}
- {name: research, match: {team: [research, "lab-*"]}, window: month, limit_usd: 5}
- {name: users, per: [user], when_missing: skip, window: month, limit_usd: 5}
- {name: watched, window: lifetime, limit_usd: "0.001", mode: observe}
- {name: calls, match: {provider: openai}, per: [team, session], when_missing: share, window: hour, limit_calls: 100,
   overrides: [{match: {team: search}, limit_calls: 50}]}
downgrades:
- {from: large, to: small}
"#;

fn governed_call(body: Value) -> Value {
    json!({
        "request": {"path": "/v1/chat/completions", "host": "api.openai.com", "headers": {"x-cost-team": "search"},
                    "body": body},
        "response": {"body": {"model": "large", "usage": {"prompt_tokens": 20, "completion_tokens": 10}}},
        "at": AT,
    })
}

#[test]
fn what_each_budget_says_is_explained() {
    let config = file("budgets.yaml", BUDGETS);
    let call =
        governed_call(json!({"model": "large", "max_tokens": 100, "messages": [{"role": "user", "content": "Hi"}]}));
    for (name, spent) in [
        ("budgets.txt", [].as_slice()),
        ("budgets-spent.txt", &["--spent", "team-daily=9.9999", "--spent", "watched=0.0005"]),
    ] {
        let run = explain(&call, &[&["--config", config.as_str()], spent].concat());
        assert_eq!(run.code, 0, "{}", run.err);
        let out: String =
            run.out.lines().skip_while(|line| !line.starts_with("Budgets")).map(|l| format!("{l}\n")).collect();
        let golden = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&golden, &out).unwrap();
        }
        assert_eq!(out, fs::read_to_string(&golden).unwrap_or_default(), "{name}");
    }
}

#[test]
fn a_workload_of_another_word_leaves_what_a_budget_does_to_the_tools() {
    let by_kind = "budgets:\n- {name: all, window: day, limit_usd: 1, \
                   on_exceeded: {agentic_write: block, agentic_read: allow}}\n";
    let own_words = "workload: {write_words: [file]}\n";
    for (said, tool, more, decision) in [
        (Some("batch"), "delete_file", "", "block"),
        (Some("batch"), "read_file", "", "allow"),
        (Some("batch"), "read_file", own_words, "block"),
        (Some("batch"), "delete_row", own_words, "allow"),
        (Some("agentic-read"), "delete_file", "", "allow"),
        (Some("agentic_write"), "read_file", "", "block"),
        (None, "delete_file", "", "block"),
        (None, "read_file", "", "allow"),
    ] {
        let prices = BUDGETS.split_once("budgets:").unwrap().0;
        let config = file("budgets-workload.yaml", &format!("{prices}{by_kind}{more}"));
        let tools = json!([{"type": "function", "function": {"name": tool}}]);
        let mut call = governed_call(json!({"model": "large", "max_tokens": 100, "tools": tools}));
        if let Some(said) = said {
            call["request"]["headers"]["x-cost-workload"] = json!(said);
        }
        let run = explain(&call, &["--config", &config, "--spent", "all=1", "--format", "json"]);
        let account: Value = serde_json::from_str(&run.out).unwrap_or_else(|_| panic!("{run:?}"));
        let found = &account["budgets"]["budgets"][0]["decision"];
        assert_eq!(found, decision, "{said:?} {tool} {more}: {account}");
    }
}

#[test]
fn the_terms_of_an_estimate_are_what_is_held() {
    let config = file("budgets-terms.yaml", BUDGETS);
    let text = |text: &str| json!([{"role": "user", "content": text}]);
    let image = json!([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x/y.png"}}]}]);
    for (body, output, from) in [
        (json!({"model": "large", "max_tokens": 100, "messages": text("Hi")}), 100, "the request's limit"),
        (json!({"model": "large", "max_tokens": 100, "n": 3, "messages": text("Hi")}), 300, "3 answers of 100"),
        (json!({"model": "large", "messages": text(&"x".repeat(70_000))}), 4096, "default_max_output_tokens"),
        (json!({"model": "large", "max_tokens": 7, "messages": image}), 7, "the request's limit"),
    ] {
        let run = explain(&governed_call(body.clone()), &["--config", &config, "--format", "json"]);
        let account: Value = serde_json::from_str(&run.out).unwrap_or_else(|_| panic!("{run:?}"));
        let estimate = &account["budgets"]["estimate"];
        let terms = estimate["terms"].as_array().unwrap();
        let rate = |term: &Value| i128::from(term["rate_usd"].as_str().unwrap().parse::<u32>().unwrap());
        let sum: i128 = terms.iter().map(|term| i128::from(term["tokens"].as_u64().unwrap()) * rate(term)).sum();
        assert_eq!(sum * 1_000_000, pico(estimate["usd"].as_str().unwrap()), "{estimate}");
        let last = terms.last().unwrap();
        assert_eq!(last["tokens"], output, "{estimate}");
        assert!(last["from"].as_str().unwrap().contains(from), "{estimate}");
        assert_eq!(terms.iter().any(|term| term["what"] == "media" && term["tokens"] == 2000), body["max_tokens"] == 7);
        // The record has the same.
        assert_eq!(pico(&account["record"]["estimated_cost_usd"].to_string()), pico(estimate["usd"].as_str().unwrap()));
    }
}

#[test]
fn a_downgrade_that_is_not_made_says_why() {
    let plain = json!({"model": "large", "max_tokens": 100});
    let strict = json!({"model": "large", "max_tokens": 100, "response_format": {"type": "json_schema"}});
    let entry = "{from: large, to: small}";
    for (downgrade, body, said) in [
        (entry, &plain, "small could take it, and holds 0.0003"),
        (
            entry,
            &strict,
            "small can't take it: the request uses structured_output, which downgrades[0].supports does not list",
        ),
        ("{from: other, to: small}", &plain, "no model can't take it: no entry of downgrades is for \"large\""),
        ("{from: large, to: tiny}", &plain, "tiny can't take it: the price table has no \"tiny\""),
        ("{from: large, to: alien}", &plain, "alien can't take it: another provider sells it"),
    ] {
        let alien = "prices:\n  models:\n  - {provider: xai, model: alien, rates: {input: 1, output: 1}}";
        let config = BUDGETS.replace(entry, downgrade).replace("prices:\n  models:", alien);
        let config = file("budgets-downgrade.yaml", &config);
        let run = explain(&governed_call(body.clone()), &["--config", &config]);
        assert!(run.out.contains(said), "{said}: {}{}", run.out, run.err);
    }
    let config = file("budgets-unknown.yaml", BUDGETS);
    let run = explain(&governed_call(plain), &["--config", &config, "--spent", "taem=1"]);
    assert_eq!(run.code, 2);
    assert!(run.err.contains("no budget \"taem\": it has team-daily, research"), "{}", run.err);
}
