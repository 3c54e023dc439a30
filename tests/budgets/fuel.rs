//! What budgets cost per call, in fuel of the compiled module: a sum that is the same on every machine.

use crate::golden;
use crate::support::chunks::Chunking;
use crate::support::wasm_driver::{play_until_log, set_properties, start};
use serde_json::{Value, json};

/// Of a call of the case `json-plain`, in the steady state.
fn fuel(budgets: Value) -> u64 {
    let mut config: Value = serde_json::from_slice(&golden::config()).unwrap();
    config["budgets"] = budgets;
    let (_, vm) = start(config.to_string().as_bytes());
    let exchange = golden::exchange(&golden::cases()["json-plain"]);
    let play = || {
        let call = vm.stream();
        set_properties(&call, &exchange.code_details);
        play_until_log(&call, &exchange, Chunking::Whole);
        call.finish().unwrap();
        let record: Value = serde_json::from_str(&call.filter_state("tollgate.record").unwrap()).unwrap();
        assert_eq!(record["decision"], "allowed", "{record}");
    };
    vm.tick().unwrap();
    play();
    vm.fuel_used(play).1
}

/// In the steady state: the scopes are remembered, and each counter is read and written to hold and again to settle.
#[test]
fn three_budgets_that_match_burn_no_more_than_they_are_known_to() {
    const KNOWN: u64 = 283_000;
    let without = fuel(json!([]));
    let with = fuel(json!([
        {"name": "department-month", "per": ["department"], "when_missing": "share", "limit_usd": "2000",
         "window": "month", "timezone": "Europe/Berlin", "alert_at": [50, 80, 100]},
        {"name": "feature-day", "per": ["feature", "environment"], "when_missing": "share", "limit_usd": "100",
         "limit_tokens": 100_000_000, "window": "day"},
        {"name": "all-hour", "limit_calls": 100_000, "window": "hour"},
    ]));
    let added = with - without;
    assert!(added < KNOWN * 11 / 10, "{added} beside {without}, known {KNOWN}");
    assert!(added > KNOWN / 2, "{added} beside {without}: much better than the known {KNOWN}, write it down");
}
