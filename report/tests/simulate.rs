//! What `tollgate simulate` says of recorded calls.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::string_slice, clippy::panic)]

mod support;

use serde_json::{Value, json};
use support::{Run, file, tollgate, tollgate_with};

const MODELS: &str = r#"prices:
  models:
  - {provider: openai, model: large, rates: {input: 10, output: 30}}
  - {provider: openai, model: small, rates: {input: 1, output: 3}}
"#;

/// The record of a call of `team` that began `second` seconds into the day, took `seconds` and cost `cost` USD.
fn call(id: u64, team: &str, second: u64, seconds: u64, cost: &str) -> Value {
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let (whole, places) = cost.split_once('.').unwrap_or((cost, ""));
    let pico: i64 = format!("{whole}{places:0<12}").parse().unwrap();
    json!({
        "schema_version": 1, "type": "usage", "id": format!("call-{id}"), "instance": "i", "end_reason": "complete",
        "ts": format!("2026-11-18T{hour:02}:{minute:02}:{second:02}.000000Z"), "duration_ms": seconds * 1000,
        "team": team, "workload": "agentic-read", "provider": "openai", "api": "openai_chat", "operation": "chat",
        "request_model": "large", "priced_model": "large", "decision": "allowed", "usage_source": "reported",
        "input_tokens": 1000, "output_tokens": 100, "cost_picousd": pico, "price_status": "priced",
        "estimated_cost_usd": serde_json::from_str::<Value>(cost).unwrap(),
    })
}

fn lines(records: &[Value]) -> String {
    records.iter().map(|record| record.to_string() + "\n").collect()
}

fn simulate(config: &str, name: &str, records: &str, more: &[&str]) -> Run {
    let config = file(&format!("simulate/{name}.yaml"), config);
    let mut arguments = vec!["simulate", "--config", &config];
    arguments.extend(more);
    arguments.push("-");
    tollgate_with(&arguments, records)
}

fn outcome(config: &str, name: &str, records: &[Value], more: &[&str]) -> Value {
    let run = simulate(config, name, &lines(records), &[&["--format", "json"], more].concat());
    assert_eq!(run.code, 0, "{}", run.err);
    serde_json::from_str(&run.out).unwrap()
}

fn team_budget(more: &str) -> String {
    format!("{MODELS}budgets:\n- {{name: teams, per: [team], when_missing: share, window: day, {more}}}\n")
}

#[test]
fn a_call_that_does_not_fit_is_refused_and_spends_nothing() {
    let records = [
        call(1, "a", 100, 1, "0.4"),
        call(2, "a", 200, 1, "0.4"),
        call(3, "a", 300, 1, "0.4"),
        call(4, "b", 300, 1, "0.4"),
        call(5, "a", 400, 1, "0.2"),
    ];
    let outcome = outcome(&team_budget("limit_usd: 1, alert_at: [50, 80, 100]"), "refused", &records, &[]);
    assert_eq!(
        outcome["total"],
        json!({"calls": 5, "recorded_usd": "1.8", "spent_usd": "1.4", "refused": 1, "refused_usd": "0.4",
               "downgraded": 0, "saved_usd": "0"})
    );
    let budget = &outcome["budgets"][0];
    assert_eq!((&budget["calls"], &budget["scopes"]), (&json!(5), &json!(2)));
    let [first, second] = budget["top"].as_array().unwrap().as_slice() else { panic!("{budget}") };
    assert_eq!((&first["scope"], &second["scope"]), (&json!({"team": "a"}), &json!({"team": "b"})));
    assert_eq!(first["refused"], 1);
    assert_eq!(first["refused_busy"], 0);
    assert_eq!(first["first_refused"], "2026-11-18T00:05:00Z");
    assert_eq!(first["peak_percent"], 100);
    assert_eq!(first["peak_window"], "2026-11-18T00:00:00Z");
    assert_eq!(first["alerts"], json!({"50": 1, "80": 1, "100": 1}));
    assert_eq!(second["spent_usd"], "0.4");
    assert!(second["first_refused"].is_null());
}

#[test]
fn calls_hold_their_estimates_while_they_overlap() {
    let estimated = |id, second, seconds| {
        let mut call = call(id, "a", second, seconds, "0.1");
        call["estimated_cost_usd"] = serde_json::from_str("0.6").unwrap();
        call
    };
    for (what, second_call, refused) in [("beside each other", 5, 1), ("one after the other", 10, 0)] {
        let records = [estimated(1, 0, 10), estimated(2, second_call, 10)];
        let outcome = outcome(&team_budget("limit_usd: 1"), "overlap", &records, &[]);
        assert_eq!(outcome["total"]["refused"], refused, "{what}");
        assert_eq!(outcome["budgets"][0]["refused_busy"], refused, "{what}");
    }
    // A call of an hour keeps its hold, and counts in the window in which it ends.
    let late = 24 * 3600 - 1800;
    let outcome =
        outcome(&team_budget("limit_usd: 1"), "long", &[estimated(1, late, 3600), estimated(2, late + 1700, 1)], &[]);
    assert_eq!(outcome["budgets"][0]["refused_busy"], 1);
    assert_eq!(outcome["budgets"][0]["peak_window"], "2026-11-19T00:00:00Z");
}

#[test]
fn a_call_that_one_budget_refuses_holds_nothing_in_the_others() {
    let config = team_budget("limit_usd: \"0.5\"") + "- {name: all, window: day, limit_usd: 1}\n";
    // Budgets are asked in the order of a hash of their scopes: for some teams the one for all comes first.
    for team in ["a", "c", "d", "e", "f", "g", "h", "i"] {
        let records = [call(1, team, 0, 60, "0.4"), call(2, team, 1, 60, "0.4"), call(3, "b", 2, 60, "0.4")];
        let outcome = outcome(&config, "released", &records, &[]);
        assert_eq!(outcome["total"]["refused"], 1, "{team}");
        assert_eq!(outcome["budgets"][0]["refused_busy"], 1, "{team}");
        assert_eq!(outcome["total"]["spent_usd"], "0.8", "{team}");
    }
}

#[test]
fn a_window_that_is_over_leaves_room_again() {
    let config = format!("{MODELS}budgets:\n- {{name: hourly, window: hour, limit_calls: 2}}\n");
    let records: Vec<Value> = (0..6).map(|n| call(n, "a", 3000 + n * 300, 1, "0.1")).collect();
    // Three begin before the full hour, three behind it.
    assert_eq!(outcome(&config, "window", &records, &[])["total"]["refused"], 2);
}

#[test]
fn a_cheaper_model_saves_what_the_same_tokens_cost_less_there() {
    let config = |mode: &str| {
        let downgrades = "downgrades:\n- {from: large, to: small}\n";
        team_budget(&format!("limit_usd: 0.02, hard_limit_usd: 1, on_exceeded: downgrade, mode: {mode}")) + downgrades
    };
    // 1000 tokens in and 100 out: 0.013 USD, and a tenth of that at the small model.
    let records = [call(1, "a", 1, 1, "0.013"), call(2, "a", 10, 1, "0.013")];
    let enforced = outcome(&config("enforce"), "downgrade", &records, &[]);
    assert_eq!(enforced["total"]["downgraded"], 1);
    assert_eq!(enforced["total"]["saved_usd"], "0.0117");
    assert_eq!(enforced["total"]["spent_usd"], "0.0143");
    let observed = outcome(&config("observe"), "downgrade-observed", &records, &[]);
    assert_eq!(observed["total"]["downgraded"], 0);
    assert_eq!(observed["total"]["spent_usd"], "0.026");
    assert_eq!(observed["budgets"][0]["downgraded"], 1);
    assert_eq!(observed["budgets"][0]["saved_usd"], "0.0117");

    // What went to the cheaper model when it was made had asked for the dear one.
    let mut downgraded = call(3, "a", 20, 1, "0.0013");
    downgraded["decision"] = "downgraded".into();
    downgraded["priced_model"] = "small".into();
    downgraded["downgraded_from"] = "large".into();
    downgraded["avoided_cost_usd"] = serde_json::from_str("0.0117").unwrap();
    let free = team_budget("limit_usd: 1");
    assert_eq!(outcome(&free, "downgraded-before", &[downgraded], &[])["total"]["spent_usd"], "0.013");
}

#[test]
fn a_call_that_a_signature_kept_from_a_cheaper_model_goes_up_to_the_hard_limit() {
    let config = team_budget("limit_usd: 0.02, hard_limit_usd: 0.03, on_exceeded: downgrade")
        + "downgrades:\n- {from: large, to: small}\n";
    let records = [1, 2, 3].map(|id| {
        let mut signed = call(id, "a", id * 10, 1, "0.013");
        signed["notes"] = json!(["downgrade_signed"]);
        signed
    });
    let outcome = outcome(&config, "signed", &records, &[]);
    assert_eq!((&outcome["total"]["downgraded"], &outcome["total"]["refused"]), (&json!(0), &json!(1)));
    assert_eq!(outcome["budgets"][0]["passed_over"], 1);
}

#[test]
fn a_call_that_lacks_its_scope_is_taken_as_the_budget_says() {
    let mut anonymous = call(1, "", 1, 1, "0.1");
    anonymous.as_object_mut().unwrap().remove("team");
    for (policy, refused, counted) in [("share", 0, 1), ("skip", 0, 0), ("refuse", 1, 1)] {
        let config = team_budget("limit_usd: 1").replace("share", policy);
        let outcome = outcome(&config, "missing", std::slice::from_ref(&anonymous), &[]);
        assert_eq!(outcome["total"]["refused"], refused, "{policy}");
        assert_eq!(outcome["budgets"][0]["without_scope"], refused, "{policy}");
        assert_eq!(outcome["budgets"][0]["calls"], counted, "{policy}");
    }
}

#[test]
fn lines_that_are_no_calls_are_counted_and_left_out() {
    let mut refused = call(2, "a", 2, 1, "0");
    refused["decision"] = "refused".into();
    let mut provisional = call(3, "a", 3, 1, "0");
    provisional["end_reason"] = "provisional".into();
    let good = call(1, "a", 1, 1, "0.1").to_string();
    let alert = r#"{"type": "budget_alert", "id": "x", "ts": "2026-11-18T00:00:00Z", "budget": "b", "scope": {}}"#;
    let text = format!("{good}\nnonsense\n{good}\n{refused}\n{provisional}\n{alert}\n{}", &good[..40]);
    let config = team_budget("limit_usd: 1");
    let run = simulate(&config, "left-out", &text, &["--format", "json"]);
    assert_eq!(run.code, 0, "{}", run.err);
    let outcome: Value = serde_json::from_str(&run.out).unwrap();
    assert_eq!(outcome["records"]["lines"], 7);
    assert_eq!(
        outcome["records"]["left_out"],
        json!({"met before": 1, "no record": 2, "not the record of a call": 1, "provisional": 1,
               "refused when it was made": 1})
    );
    let places: Vec<_> = outcome["records"]["damaged"].as_array().unwrap().iter().map(|one| &one["line"]).collect();
    assert_eq!(places, [2, 7]);
    assert!(run.err.contains("<stdin>:2: no record: expected"), "{}", run.err);
    assert_eq!(simulate(&config, "strict", &text, &["--strict"]).code, 1);
    assert_eq!(simulate(&config, "strict", &good, &["--strict"]).code, 0);
    assert_eq!(simulate(&config, "strict", "", &["--strict"]).code, 0);
    let none = simulate("version: 1\n", "no-budgets", &good, &[]);
    assert!(none.code == 2 && none.err.contains("has no budgets"), "{none:?}");
    let wrong = simulate("budgets: [{name: a}]\n", "refused-config", &good, &[]);
    assert!(wrong.code == 2 && wrong.err.contains("refused-config.yaml:1:"), "{wrong:?}");
}

/// Numbers that look random and are the same every time.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

#[test]
fn with_room_enough_nothing_is_refused_and_everything_that_was_paid_is_spent() {
    let mut numbers = Numbers(7);
    let mut records = Vec::new();
    let mut pico: i64 = 0;
    for id in 0..400 {
        let cost = i64::try_from(numbers.below(1_000_000_000_000)).unwrap();
        let mut record = call(id, ["a", "b", "c"][usize::try_from(numbers.below(3)).unwrap()], 0, 0, "0");
        let second = numbers.below(86_000);
        record["ts"] = format!("2026-11-18T{:02}:{:02}:{:02}Z", second / 3600, second / 60 % 60, second % 60).into();
        record["duration_ms"] = numbers.below(2_000_000).into();
        record["cost_picousd"] = cost.into();
        pico += cost;
        records.push(record);
    }
    let spent = format!("{}.{:012}", pico / 1_000_000_000_000, pico % 1_000_000_000_000);
    let spent = spent.trim_end_matches('0');
    let config = team_budget("limit_usd: 1000000") + "- {name: all, window: lifetime, limit_usd: 1000000}\n";
    let whole = outcome(&config, "property", &records, &[]);
    for sum in [&whole["total"], &whole["budgets"][0], &whole["budgets"][1]] {
        assert_eq!(sum["calls"], 400);
        assert_eq!(sum["refused"], 0);
        assert_eq!(sum["spent_usd"], spent);
    }

    // Order, files, copies and compression make no difference.
    records.sort_by_key(|record| record["ts"].to_string());
    let tight = team_budget("limit_usd: 20") + "- {name: all, window: hour, limit_calls: 9}\n";
    let sorted = outcome(&tight, "tight", &records, &[]);
    assert!(sorted["total"]["refused"].as_u64() > Some(50), "{sorted}");
    assert_eq!(sorted["records"]["late"], 0);
    let (even, odd): (Vec<_>, Vec<_>) = records.iter().cloned().enumerate().partition(|(index, _)| index % 2 == 0);
    let of = |part: Vec<(usize, Value)>| lines(&part.into_iter().map(|(_, record)| record).collect::<Vec<_>>());
    let even = file("simulate/even.ndjson", &of(even));
    let odd = file("simulate/odd.ndjson", &(of(odd) + &lines(&records[..50])));
    let gzip = std::process::Command::new("gzip").args(["-kf", &odd]).status();
    let odd = if gzip.is_ok_and(|status| status.success()) { format!("{odd}.gz") } else { odd };
    let config = file("simulate/parts.yaml", &tight);
    let run = tollgate(&["simulate", "--format", "json", "--config", &config, &even, &odd]);
    let parts: Value = serde_json::from_str(&run.out).unwrap_or_else(|_| panic!("{run:?}"));
    assert_eq!(parts["records"]["left_out"]["met before"], 50);
    assert_eq!((&parts["total"], &parts["budgets"]), (&sorted["total"], &sorted["budgets"]));
}

#[test]
fn other_prices_are_taken_where_they_are_given() {
    let prices =
        file("simulate/prices.yaml", "models: [{provider: openai, model: large, rates: {input: 20, output: 60}}]\n");
    let config = team_budget("limit_usd: 1");
    let mut other = call(2, "a", 2, 1, "0.5");
    other["request_model"] = "unheard-of".into();
    other["priced_model"] = Value::Null;
    let outcome = outcome(&config, "repriced", &[call(1, "a", 1, 1, "0.013"), other], &["--prices", &prices]);
    assert_eq!(outcome["total"]["spent_usd"], "0.526");
    assert_eq!(outcome["records"]["priced_as_recorded"], 1);
}

#[test]
fn people_get_a_table_of_each_budget() {
    let config = team_budget("limit_usd: 1, alert_at: [50]")
        + "- {name: unused, match: {team: z}, window: month, limit_calls: 1}\n";
    let records = [call(1, "a", 100, 1, "0.6"), call(2, "a", 200, 1, "0.6"), call(3, "b", 300, 1, "0.25")];
    let run = simulate(&config, "text", &lines(&records), &[]);
    assert_eq!(
        run.out,
        "\
Calls
  from 2026-11-18T00:01:40.000000Z to 2026-11-18T00:05:00.000000Z
  played      3  cost 1.45 USD when they were made
  refused     1  of these 0.6 USD
  downgraded  0  save 0 USD
  spent          0.85 USD

Budget teams, per day in UTC
  scope     calls  spent USD  peak  refused  downgraded  saved USD  alerts   first refused
  team=a        2        0.6  60 %        1                         50 %: 1  2026-11-18T00:03:20Z
  team=b        1       0.25  25 %
  2 scopes      3       0.85  60 %        1                         50 %: 1  2026-11-18T00:03:20Z

Budget unused, per month in UTC
  no call counts here
"
    );
}
