//! The sections `budgets`, `downgrades`, `ledger` and `reservation`.

use super::*;
use crate::config::{Config, ReservationConfig};
use crate::money::Decimal;
use serde_json::{Value, json};
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

fn read_config(config: &Value) -> Config {
    Config::from_bytes(config.to_string().as_bytes()).unwrap()
}

fn errors(config: &Value) -> Vec<String> {
    Config::from_bytes(config.to_string().as_bytes()).unwrap_err().iter().map(ToString::to_string).collect()
}

fn one(more: &Value) -> Value {
    let mut budget = json!({"name": "b", "limit_usd": "10", "window": "month"});
    for (key, value) in more.as_object().unwrap() {
        budget[key] = value.clone();
    }
    json!({"budgets": [budget], "downgrades": [{"from": "a", "to": "b"}]})
}

fn dollars(text: &str) -> Option<Usd> {
    Usd::of(Decimal::parse(text).unwrap())
}

fn shown(conditions: &[Condition]) -> Vec<(&str, usize)> {
    conditions.iter().map(|condition| (&*condition.key, condition.patterns.len())).collect()
}

#[test]
fn all_that_a_budget_says_is_read() {
    let config = read_config(&one(&json!({
        "name": "department-month",
        "match": {"environment": "production", "model": ["gpt-*", "claude-*"], "api_key": "bot", "tags.tier": "gold"},
        "per": ["department", "tags.region"],
        "when_missing": "skip",
        "limit_usd": "2000.00", "limit_tokens": 1_000_000, "limit_calls": "5000",
        "overrides": [
            {"match": {"department": "sales"}, "limit_usd": "500"},
            {"match": {"department": "lab"}, "limit_usd": 2500.5, "limit_calls": 7, "hard_limit_usd": "2600"},
        ],
        "timezone": "Europe/Berlin", "starts_on": 15,
        "alert_at": [50, 80, 100],
        "on_exceeded": {"agentic_write": "allow", "agentic_read": "downgrade"},
        "hard_limit_usd": "2200.00",
        "mode": "observe",
    })));
    let [budget] = &*config.budgets else { panic!("{:?}", config.budgets) };
    assert_eq!((&*budget.name, &*budget.timezone, budget.observe), ("department-month", "Europe/Berlin", true));
    let mut conditions = shown(&budget.conditions);
    conditions.sort_unstable();
    assert_eq!(conditions, [("api_key", 1), ("environment", 1), ("model", 2), ("tags.tier", 1)]);
    assert_eq!(budget.per.iter().map(|key| &**key).collect::<Vec<_>>(), ["department", "tags.region"]);
    assert_eq!(budget.when_missing, WhenMissing::Skip);
    let limits = Limits { usd: dollars("2000"), tokens: Some(1_000_000), calls: Some(5000) };
    assert_eq!((budget.limits, budget.hard_limit_usd), (limits, dollars("2200")));
    let [sales, lab] = &*budget.overrides else { panic!("{:?}", budget.overrides) };
    assert_eq!(shown(&sales.conditions), [("department", 1)]);
    assert_eq!((sales.limits, sales.hard_limit_usd), (Limits { usd: dollars("500"), ..limits }, dollars("500")));
    assert_eq!(lab.limits, Limits { usd: dollars("2500.5"), calls: Some(7), ..limits });
    assert_eq!(lab.hard_limit_usd, dollars("2600"));
    let zone = Zone::named("Europe/Berlin").unwrap();
    assert_eq!(budget.calendar, Calendar { window: Window::Month, zone, starts_on: 15 });
    assert_eq!(&*budget.alert_at, [50, 80, 100]);
    assert_eq!((budget.on_exceeded_write, budget.on_exceeded_read), (Action::Allow, Action::Downgrade));
    assert_eq!(budget.idle_ttl_secs, None);
}

#[test]
fn what_a_budget_leaves_out_has_a_default() {
    let config = read_config(&json!({"budgets": [
        {"name": "a", "limit_calls": 0, "window": "day"},
        {"name": "b", "limit_tokens": 1, "window": "lifetime", "idle_ttl_secs": 86400, "on_exceeded": "allow"},
        {"name": "c", "limit_usd": "0", "window": "week", "on_exceeded": {"agentic_read": "allow"}},
    ]}));
    let [a, b, c] = &*config.budgets else { panic!("{:?}", config.budgets) };
    assert!(a.conditions.is_empty() && a.per.is_empty() && a.overrides.is_empty() && a.alert_at.is_empty());
    assert_eq!((a.when_missing, a.observe, &*a.timezone), (WhenMissing::Share, false, "UTC"));
    assert_eq!((a.limits, a.hard_limit_usd), (Limits { calls: Some(0), ..Limits::default() }, None));
    assert_eq!((a.on_exceeded_write, a.on_exceeded_read), (Action::Block, Action::Block));
    assert_eq!((a.calendar.window, a.calendar.starts_on), (Window::Day, 1));
    assert_eq!(
        (b.idle_ttl_secs, b.on_exceeded_write, b.on_exceeded_read),
        (Some(86_400), Action::Allow, Action::Allow)
    );
    assert_eq!(
        (c.limits.usd, c.on_exceeded_write, c.on_exceeded_read),
        (Some(Usd::ZERO), Action::Block, Action::Allow)
    );
}

#[test]
fn every_window_is_known_by_name() {
    for window in Window::ALL {
        let config = read_config(&one(&json!({"window": window.name()})));
        assert_eq!(config.budgets[0].calendar.window, window);
    }
}

#[test]
fn a_match_that_normalising_leaves_nothing_of_is_refused() {
    let with = |pattern: &str| {
        let mut config = one(&json!({"match": {"team": [pattern]}}));
        config["attribution"] = json!({"normalise": "lowercase_hyphen"});
        config
    };
    for pattern in ["_*", "*-", "--"] {
        // What is left would match every call, or none.
        let expected = "budgets[0].match.team[0]: is nothing once it is normalised";
        assert_eq!(errors(&with(pattern)), [expected], "{pattern}");
    }
    for (pattern, spelt) in [("*", "*"), ("_A*", "a*"), ("a_*-b", "a-*-b")] {
        let config = read_config(&with(pattern));
        assert_eq!(config.budgets[0].conditions[0].patterns[0].as_str(), spelt);
    }
}

#[test]
fn every_error_in_a_budget_says_where_and_what() {
    let windows = "minute, hour, day, week, month, quarter, year or lifetime";
    let window = format!("budgets[0].window: expected {windows}, got \"fortnight\"");
    let keys = "expected one, or tags.<name>, model, provider, api_key";
    for (more, expected) in [
        (json!({"name": null}), vec!["budgets[0].name: is missing"]),
        (json!({"name": " "}), vec!["budgets[0].name: must not be empty"]),
        (json!({"window": null}), vec!["budgets[0].window: is missing"]),
        (json!({"window": "fortnight", "starts_on": 2, "timezone": "Asia/Tokyo"}), vec![&*window]),
        (json!({"limit_usd": null}), vec!["budgets[0]: expected limit_usd, limit_tokens or limit_calls"]),
        (json!({"limit_usd": "ten"}), vec!["budgets[0].limit_usd: expected a decimal amount, got \"ten\""]),
        (json!({"limit_usd": "-1"}), vec!["budgets[0].limit_usd: expected an amount of zero or more, got \"-1\""]),
        (
            json!({"limit_usd": "99999999999999999999"}),
            vec!["budgets[0].limit_usd: expected at most 19 significant digits and 30 decimal places, got "],
        ),
        (
            json!({"limit_tokens": 1.5, "limit_calls": -1}),
            vec![
                "budgets[0].limit_tokens: expected a whole number from 0 to 18446744073709551615, got 1.5",
                "budgets[0].limit_calls: expected a whole number from 0 to 18446744073709551615, got -1",
            ],
        ),
        (
            json!({"per": ["department"]}),
            vec![
                "budgets[0].when_missing: is missing; share, skip or refuse says what becomes of calls without a value for per",
            ],
        ),
        (json!({"per": "department"}), vec!["budgets[0].per: expected a list, got \"department\""]),
        (
            json!({"when_missing": "ignore"}),
            vec!["budgets[0].when_missing: expected share, skip or refuse, got \"ignore\""],
        ),
        (json!({"match": []}), vec!["budgets[0].match: expected an object, got a list"]),
        (json!({"match": {"team": 7}}), vec!["budgets[0].match.team: expected a string, got 7"]),
        (json!({"match": {"team": ["a", 7]}}), vec!["budgets[0].match.team[1]: expected a string, got 7"]),
        (json!({"starts_on": 29}), vec!["budgets[0].starts_on: expected a whole number from 1 to 28, got 29"]),
        (
            json!({"window": "week", "starts_on": 2}),
            vec!["budgets[0].starts_on: is for the windows month, quarter and year only"],
        ),
        (
            json!({"timezone": "Berlin"}),
            vec!["budgets[0].timezone: expected an IANA time zone as Europe/Berlin, got \"Berlin\""],
        ),
        (json!({"idle_ttl_secs": 600}), vec!["budgets[0].idle_ttl_secs: is for the window lifetime only"]),
        (
            json!({"window": "lifetime", "idle_ttl_secs": 59}),
            vec!["budgets[0].idle_ttl_secs: expected a whole number from 60 to 316224000, got 59"],
        ),
        (json!({"alert_at": [80, 80]}), vec!["budgets[0].alert_at[1]: must be more than the one before"]),
        (
            json!({"alert_at": [0, 1001]}),
            vec![
                "budgets[0].alert_at[0]: expected a whole number from 1 to 1000, got 0",
                "budgets[0].alert_at[1]: expected a whole number from 1 to 1000, got 1001",
            ],
        ),
        (
            json!({"on_exceeded": "stop"}),
            vec!["budgets[0].on_exceeded: expected block, downgrade or allow, got \"stop\""],
        ),
        (
            json!({"on_exceeded": {"agentic_write": "stop", "agentic_reed": "block"}}),
            vec![
                "budgets[0].on_exceeded.agentic_write: expected block, downgrade or allow, got \"stop\"",
                "budgets[0].on_exceeded.agentic_reed: unknown key; did you mean agentic_read?",
            ],
        ),
        (json!({"on_exceeded": "downgrade"}), vec!["budgets[0]: downgraded calls need a hard_limit_usd to go up to"]),
        (json!({"hard_limit_usd": "9.99"}), vec!["budgets[0].hard_limit_usd: must be no less than limit_usd"]),
        (json!({"mode": "watch"}), vec!["budgets[0].mode: expected enforce or observe, got \"watch\""]),
        (
            json!({"overrides": [{"limit_usd": "1"}, {"match": {}}, {"match": {}, "limit_uds": 1, "limit_calls": 1}, 7]}),
            vec![
                "budgets[0].overrides[0].match: is missing",
                "budgets[0].overrides[1]: expected limit_usd, limit_tokens or limit_calls",
                "budgets[0].overrides[2].limit_uds: unknown key; did you mean limit_usd?",
                "budgets[0].overrides[3]: expected an object, got 7",
            ],
        ),
        (
            json!({"per": ["team"], "when_missing": "skip",
                   "overrides": [{"match": {"team": "a"}, "limit_usd": "20", "hard_limit_usd": "19"}]}),
            vec!["budgets[0].overrides[0]: hard_limit_usd must be no less than limit_usd"],
        ),
        (
            json!({"overrides": [{"match": {"team": "a"}, "limit_usd": "20"}]}),
            vec!["budgets[0]: an override is for a part of the scopes, and \"team\" is not in per"],
        ),
        (
            // One counter with two limits.
            json!({"match": {"team": ["a", "b"]}, "overrides": [{"match": {"team": "a"}, "limit_usd": "20"}]}),
            vec!["budgets[0]: an override is for a part of the scopes, and \"team\" is not in per"],
        ),
        (json!({"limit": 1}), vec!["budgets[0].limit: unknown key; known here: "]),
    ] {
        let found = errors(&one(&more));
        assert_eq!(found.len(), expected.len(), "{more}: {found:?}");
        for (found, expected) in found.iter().zip(expected) {
            let exact = !expected.ends_with([':', ',', ' ']);
            assert!(if exact { found == expected } else { found.starts_with(expected) }, "{found}, not {expected}");
        }
    }
    for key in ["colour", "tags.", "Department", ""] {
        let found = errors(&one(&json!({"match": {key: "x"}, "per": ["team"], "when_missing": "skip"})));
        assert_eq!(found, [format!("budgets[0].match.{key}: {key:?} is no dimension; {keys}")]);
    }
    let found = errors(&one(&json!({"per": ["colour"], "when_missing": "skip"})));
    assert_eq!(found, [format!("budgets[0].per[0]: \"colour\" is no dimension; {keys}")]);
}

#[test]
fn budgets_have_names_of_their_own_and_downgrade_to_something() {
    let budget = json!({"name": "b", "limit_calls": 1, "window": "day"});
    assert_eq!(errors(&json!({"budgets": [budget, budget]})), ["budgets[1]: another budget has this name"]);
    let mut downgrades = one(&json!({"on_exceeded": "downgrade", "hard_limit_usd": "11"}));
    assert!(Config::from_bytes(downgrades.to_string().as_bytes()).is_ok());
    downgrades["downgrades"] = json!([]);
    assert_eq!(errors(&downgrades), ["budgets[0].on_exceeded: there are no downgrades to make"]);
}

#[test]
fn downgrades_are_read_with_what_their_targets_can_do() {
    let config = read_config(&json!({"downgrades": [
        {"from": "claude-opus-*", "to": "claude-haiku-4-5"},
        {"from": "gpt-4o", "to": "gpt-4o-mini", "supports": ["vision"]},
        {"from": "gpt-4", "to": "gpt-3", "supports": []},
    ]}));
    let [opus, gpt, none] = &*config.downgrades else { panic!("{:?}", config.downgrades) };
    assert!(opus.from.matches("claude-opus-4-1") && !opus.from.matches("claude-sonnet"));
    assert_eq!((&*opus.to, opus.supports), ("claude-haiku-4-5", Capabilities::default().uses));
    assert_eq!(gpt.supports, Uses::default().with(Use::Vision));
    assert_eq!(none.supports, Uses::default());
    let found = errors(&json!({"downgrades": [{"to": "b"}, {"from": "a"}, {"from": "a", "to": "b", "until": 1}]}));
    assert_eq!(found[..2], ["downgrades[0].from: is missing", "downgrades[1].to: is missing"]);
    assert!(found[2].starts_with("downgrades[2].until: unknown key"), "{found:?}");
    let found = errors(&json!({"downgrades": [{"from": "a", "to": "b", "supports": ["sight"]}]}));
    assert!(found[0].starts_with("downgrades[0].supports[0]: expected "), "{found:?}");
    assert!(found[0].ends_with(", got \"sight\""), "{found:?}");
}

#[test]
fn the_ledger_and_reservations_are_read() {
    let config = read_config(&json!({
        "ledger": {"max_bytes": 201_326_592, "on_full": "admit", "on_contention": "admit"},
        "reservation": {"tokens_per_byte": "0.3", "default_max_output_tokens": 100, "lease_secs": 60},
    }));
    let ledger =
        LedgerConfig { max_bytes: 192 << 20, admit_when_full: true, admit_on_contention: true, lease_secs: 60 };
    assert_eq!(config.ledger, ledger, "it has the lease of the section `reservation`");
    let tokens_per_byte = Decimal::parse("0.3").unwrap();
    assert_eq!(
        config.reservation,
        ReservationConfig { tokens_per_byte, default_max_output_tokens: 100, lease_secs: 60 }
    );
    for sections in [json!({}), json!({"ledger": {}, "reservation": {}})] {
        let config = read_config(&sections);
        assert_eq!((config.ledger, config.reservation), (LedgerConfig::default(), ReservationConfig::default()));
    }
    assert_eq!(
        errors(&json!({
            "ledger": {"max_bytes": 1024, "on_full": "drop", "on_contention": "wait", "on_ful": 1},
            "reservation": {"tokens_per_byte": "many", "default_max_output_tokens": 0, "lease_secs": 4, "lease": 1},
        })),
        [
            "reservation.tokens_per_byte: expected a decimal amount, got \"many\"",
            "reservation.default_max_output_tokens: expected a whole number from 1 to 100000000, got 0",
            "reservation.lease_secs: expected a whole number from 5 to 3600, got 4",
            "reservation.lease: unknown key; known here: tokens_per_byte, default_max_output_tokens, lease_secs",
            "ledger.on_full: expected refuse or admit, got \"drop\"",
            "ledger.on_contention: expected refuse or admit, got \"wait\"",
            "ledger.max_bytes: expected a whole number from 4194304 to 2147483648, got 1024",
            "ledger.on_ful: unknown key; did you mean on_full?",
        ]
    );
}
