//! The compiled module in-process: ends of streams, faults of every host call, several workers, fuel, memory.

use crate::golden;
use crate::support::chunks::Chunking;
use crate::support::exchange::Exchange;
use crate::support::wasm_driver::{play_until_log, set_properties, start};
use crate::support::wasm_host::{Fault, HostCall, HttpStream, NO_HEADERS, Process, Program, Vm};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

fn config_with_collector() -> Vec<u8> {
    let mut config: Value = serde_json::from_slice(&golden::config()).unwrap();
    config["collector"] = json!({"cluster": "cost_collector", "path": "/v1/records", "flush_ms": 100, "max_batch": 3});
    config.to_string().into_bytes()
}

fn case(name: &str) -> Exchange {
    golden::exchange(&golden::cases()[name])
}

/// Plays a whole exchange and returns its record.
fn play(vm: &Vm, exchange: &Exchange) -> Value {
    let call = vm.stream();
    set_properties(&call, &exchange.code_details);
    play_until_log(&call, exchange, Chunking::Whole);
    call.finish().unwrap();
    record_of(&call).expect("a record")
}

fn record_of(call: &HttpStream) -> Option<Value> {
    call.filter_state("tollgate.record").map(|record| serde_json::from_str(&record).unwrap())
}

/// The lines of every batch sent so far.
fn sent(vm: &Vm) -> Vec<Value> {
    let bodies = vm.calls().into_iter().map(|call| String::from_utf8(call.body).unwrap());
    bodies.flat_map(|body| body.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<_>>()).collect()
}

#[test]
fn the_collector_gets_the_record_of_the_access_log_in_batches() {
    let (envoy, vm) = start(&config_with_collector());
    let records: Vec<Value> = (0..7).map(|_| play(&vm, &case("json-plain"))).collect();
    assert!(vm.calls().is_empty(), "nothing is sent before the tick");
    vm.tick().unwrap();
    vm.tick().unwrap();
    let first = vm.open_calls();
    assert_eq!(first.len(), 1, "one batch under way at a time");
    vm.answer_call(first[0].token, 202, NO_HEADERS, b"").unwrap();
    let second = vm.open_calls();
    assert_eq!(second.len(), 1, "the next full one follows the answer at once");
    vm.answer_call(second[0].token, 202, NO_HEADERS, b"").unwrap();
    assert!(vm.open_calls().is_empty(), "what does not fill a batch waits for its time");
    envoy.clock.advance(Duration::from_millis(100));
    vm.tick().unwrap();
    vm.answer_call(vm.open_calls()[0].token, 202, NO_HEADERS, b"").unwrap();
    assert_eq!(sent(&vm), records);
    let header = |name: &str| first[0].headers.text(name);
    assert_eq!(header(":path").as_deref(), Some("/v1/records"));
    assert_eq!(header("content-type").as_deref(), Some("application/x-ndjson"));
    assert_ne!(header("idempotency-key"), second[0].headers.text("idempotency-key"));
}

#[test]
fn what_the_collector_answers_is_understood() {
    let (envoy, vm) = start(&config_with_collector());
    let records: Vec<Value> = (0..3).map(|_| play(&vm, &case("json-plain"))).collect();
    vm.tick().unwrap();
    vm.answer_call(vm.open_calls()[0].token, 429, &[("retry-after", "20")], b"").unwrap();
    envoy.clock.advance(Duration::from_secs(19));
    vm.tick().unwrap();
    assert!(vm.open_calls().is_empty(), "it asked to be left alone for longer");
    envoy.clock.advance(Duration::from_secs(1));
    vm.tick().unwrap();
    // The second of three is what it cannot read: they come as one and two, then one by one.
    for status in [400, 200, 400, 400, 200] {
        let call = vm.open_calls().remove(0);
        vm.answer_call(call.token, status, NO_HEADERS, b"cannot\nparse").unwrap();
    }
    assert!(vm.open_calls().is_empty());
    assert_eq!(envoy.counter("tollgate_records_total.result.sent"), Some(2));
    assert_eq!(envoy.counter("tollgate_records_total.result.dropped_rejected"), Some(1));
    let last = sent(&vm).pop().unwrap();
    assert_eq!(last["id"], records[2]["id"]);
    let said = |text: &str| vm.logs().iter().filter(|line| line.text.contains(text)).count();
    assert_eq!(said("1 dropped after status 400 \"cannot parse\""), 1);
}

#[test]
fn a_collector_that_fails_or_is_not_there_costs_no_call_and_is_said_once() {
    let (envoy, vm) = start(&config_with_collector());
    play(&vm, &case("json-plain"));
    vm.tick().unwrap();
    vm.fail_call(vm.open_calls()[0].token).unwrap();
    envoy.clock.advance(Duration::from_secs(1));
    vm.tick().unwrap();
    vm.answer_call(vm.open_calls()[0].token, 503, NO_HEADERS, b"").unwrap();
    envoy.clock.advance(Duration::from_secs(2));
    vm.tick().unwrap();
    vm.answer_call(vm.open_calls()[0].token, 200, NO_HEADERS, b"").unwrap();
    assert_eq!(sent(&vm).len(), 3, "the same batch three times");
    assert_eq!(envoy.counter("tollgate_records_total.result.retried"), Some(2));
    assert_eq!(envoy.counter("tollgate_records_total.result.sent"), Some(1));

    let mut config: Value = serde_json::from_slice(&config_with_collector()).unwrap();
    config["collector"]["cluster"] = "nowhere".into();
    config["collector"]["max_attempts"] = 2.into();
    let (envoy, vm) = start(config.to_string().as_bytes());
    for _ in 0..3 {
        play(&vm, &case("json-plain"));
        vm.tick().unwrap();
        envoy.clock.advance(Duration::from_secs(60));
    }
    assert_eq!(envoy.counter("tollgate_records_total.result.dropped_attempts"), Some(1));
    let lines = vm.logs().into_iter().filter(|line| line.text.contains("nowhere")).count();
    assert_eq!(lines, 1, "{:?}", vm.logs());
}

#[test]
fn two_workers_write_records_that_never_collide() {
    let envoy = Process::new();
    let workers = [envoy.start_vm(&Program::filter()), envoy.start_vm(&Program::filter())];
    for worker in &workers {
        assert!(worker.configure(golden::config().as_slice()).unwrap().1);
    }
    let mut seqs: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    let mut ids = BTreeSet::new();
    for n in 0..40 {
        let record = play(&workers[n % 2], &case("json-plain"));
        assert!(ids.insert(record["id"].to_string()), "an id twice");
        seqs.entry(record["instance"].to_string()).or_default().push(record["seq"].as_u64().unwrap());
    }
    assert_eq!(seqs.len(), 2);
    assert!(seqs.values().all(|seq| seq.iter().copied().eq(1..=20)), "{seqs:?}");
}

#[test]
fn configuring_alone_touches_nothing_shared() {
    // Envoy configures a canary and its main thread too; none of them serves calls.
    let (envoy, vm) = start(&config_with_collector());
    vm.tick().unwrap();
    assert_eq!((vm.made(HostCall::SetSharedData), vm.made(HostCall::DefineMetric)), (0, 0));
    assert!(vm.calls().is_empty() && envoy.shared.borrow().entries.is_empty());
}

#[test]
fn a_refused_configuration_names_every_error_and_an_update_of_it_changes_nothing() {
    let (_, vm) = start(&golden::config());
    let bad: &[u8] = br#"{"budget": 1, "prices": {"models": [{"model": "a", "rates": {"input": "ten"}}]}}"#;
    let (_, accepted) = vm.configure(bad).unwrap();
    assert!(!accepted);
    let log: Vec<String> = vm.logs().into_iter().map(|line| line.text).collect();
    for wanted in ["prices.models[0].rates.input: expected a decimal amount, got \"ten\"", "budget: unknown key"] {
        assert!(log.iter().any(|line| line.contains(wanted)), "{wanted} in {log:?}");
    }
    assert_eq!(play(&vm, &case("json-plain"))["price_version"], "2026-11-01");
}

#[test]
fn an_update_prices_new_calls_while_old_ones_end_as_they_began_and_the_old_queue_is_sent() {
    let (_, vm) = start(&config_with_collector());
    let exchange = case("json-plain");
    let old = vm.stream();
    set_properties(&old, "via_upstream");
    let mut config: Value = serde_json::from_slice(&config_with_collector()).unwrap();
    config["prices"]["version"] = "new".into();
    play_until_log(&old, &exchange, Chunking::Whole);
    assert!(vm.configure(config.to_string().as_bytes()).unwrap().1);
    old.finish().unwrap();
    assert_eq!(record_of(&old).unwrap()["price_version"], "2026-11-01");
    assert_eq!(play(&vm, &exchange)["price_version"], "new");
    vm.tick().unwrap();
    let versions: BTreeSet<String> = sent(&vm).iter().map(|record| record["price_version"].to_string()).collect();
    assert_eq!(versions.len(), 2, "both root contexts send what they have: {versions:?}");
}

#[test]
fn the_queue_of_a_drained_configuration_is_sent_by_the_one_that_stays() {
    let (envoy, vm) = start(&config_with_collector());
    let exchange = case("json-plain");
    let (old_root, _) = vm.configure(config_with_collector().as_slice()).unwrap();
    let first = play(&vm, &exchange);
    vm.tick().unwrap();
    let under_way = vm.open_calls();
    let second = play(&vm, &exchange);
    let late = vm.stream();
    set_properties(&late, "via_upstream");
    play_until_log(&late, &exchange, Chunking::Whole);

    let (_, accepted) = vm.configure(config_with_collector().as_slice()).unwrap();
    assert!(accepted);
    vm.retire(old_root).unwrap();
    late.finish().unwrap();
    let third = record_of(&late).unwrap();
    for _ in 0..3 {
        envoy.clock.advance(Duration::from_secs(1));
        vm.tick().unwrap();
        for call in vm.open_calls() {
            if !under_way.iter().any(|lost| lost.token == call.token) {
                vm.answer_call(call.token, 202, NO_HEADERS, b"").unwrap();
            }
        }
    }
    let ids: BTreeSet<String> = sent(&vm).iter().map(|record| record["id"].to_string()).collect();
    assert_eq!(ids, [first, second, third].iter().map(|record| record["id"].to_string()).collect());
    assert_eq!(envoy.counter("tollgate_records_total.result.sent"), Some(3));
}

#[test]
fn any_host_call_may_fail_and_every_call_still_passes() {
    let exchange = case("sse-with-usage");
    for host_call in HostCall::ALL {
        for status in [1, 2, 3, 7, 8, 10, 12, 99] {
            let (envoy, vm) = start(&config_with_collector());
            vm.fail(*host_call, Fault::always(status));
            for _ in 0..2 {
                let call = vm.stream();
                set_properties(&call, "via_upstream");
                // Traps are errors here, so this says that there is none.
                play_until_log(&call, &exchange, Chunking::Every(200));
                call.finish().unwrap_or_else(|dead| panic!("{host_call:?} {status}: {dead:?}"));
                assert_eq!(call.client_body(), exchange.response_body, "{host_call:?} {status}");
                assert_eq!(call.upstream_body(), exchange.request_body, "{host_call:?} {status}");
                assert!(call.local_reply().is_none());
            }
            // The SDK's own HTTP call panics on statuses no host gives it: 2 and 10 are what Envoy returns.
            if *host_call != HostCall::HttpCall || [2, 10].contains(&status) {
                vm.tick().unwrap_or_else(|dead| panic!("{host_call:?} {status}: {dead:?}"));
            }
            vm.heal(*host_call);
            envoy.clock.advance(Duration::from_secs(1));
            let record = play(&vm, &exchange);
            assert_eq!(record["usage_source"], "reported", "{host_call:?} {status}: the next call is whole again");
        }
    }
}

#[test]
fn a_failed_host_call_is_counted_and_said_once() {
    let (envoy, vm) = start(&golden::config());
    vm.fail(HostCall::RemoveHeaderMapValue, Fault::always(2));
    for _ in 0..3 {
        play(&vm, &case("json-plain"));
    }
    let counter = envoy.counter("tollgate_host_errors_total.call.proxy_remove_header_map_value");
    assert_eq!(counter, Some(6), "two headers, three calls");
    let lines: Vec<_> =
        vm.logs().into_iter().filter(|line| line.text.contains("proxy_remove_header_map_value")).collect();
    assert_eq!(lines.len(), 1, "{lines:?}");
}

#[test]
fn a_vm_that_dies_leaves_the_provisional_record_behind() {
    for (host_call, nth) in
        [(HostCall::GetBufferBytes, 2), (HostCall::GetBufferBytes, 3), (HostCall::ReplaceHeaderMapValue, 1)]
    {
        let (_, vm) = start(&golden::config());
        let made = vm.made(host_call);
        vm.fail(host_call, Fault::trap_at(made + nth));
        let exchange = case("sse-with-usage");
        let call = vm.stream();
        let played = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            play_until_log(&call, &exchange, Chunking::Every(300));
        }));
        assert!(played.is_err() && vm.death().is_some(), "{host_call:?} {nth}: the VM should have died");
        let record = record_of(&call).expect("the provisional record");
        assert_eq!((&record["end_reason"], &record["department"]), (&json!("provisional"), &json!("support")));
        assert!(record.get("seq").is_none() && record.get("cost_usd").is_none());
    }
}

#[test]
fn a_host_without_a_log_callback_still_gets_its_record() {
    let (_, vm) = start(&golden::config());
    let call = vm.stream();
    play_until_log(&call, &case("json-plain"), Chunking::Whole);
    call.done().unwrap();
    call.delete().unwrap();
    assert_eq!(record_of(&call).unwrap()["end_reason"], "complete");
}

#[test]
fn a_filter_in_front_that_refuses_leaves_a_record() {
    let (_, vm) = start(&golden::config());
    let call = vm.stream();
    set_properties(&call, "rbac_access_denied_matched_policy[none]");
    call.set_property(&["response", "code"], 403u64.to_le_bytes());
    let headers = [(":method", "POST"), (":path", "/v1/chat/completions"), ("x-cost-team", "a")];
    *call.state_mut() = {
        let mut state = call.state().clone();
        state.request.headers = crate::support::wasm_host::HeaderMap::new(&headers);
        state
    };
    call.finish().unwrap();
    let record = record_of(&call).expect("a record");
    assert_eq!(
        (&record["end_reason"], &record["status"], &record["team"]),
        (&json!("local_reply"), &json!(403), &json!("a"))
    );
}

#[test]
fn a_request_that_is_too_long_is_answered_by_the_filter_and_recorded() {
    let mut config: Value = serde_json::from_slice(&golden::config()).unwrap();
    config["metering"] = json!({"max_request_bytes": 1024, "on_oversize": "refuse"});
    let (_, vm) = start(config.to_string().as_bytes());
    let call = vm.stream();
    set_properties(&call, "tollgate_request_too_large");
    call.request_headers(&[(":method", "POST"), (":path", "/v1/chat/completions")], false).unwrap();
    call.request_body([b' '; 1000], false).unwrap();
    assert!(call.local_reply().is_none());
    call.request_body([b' '; 100], false).unwrap();
    let reply = call.local_reply().expect("a local reply");
    assert_eq!(reply.status, 413);
    call.finish().unwrap();
    let record = record_of(&call).unwrap();
    assert_eq!(reply.headers.text("x-tollgate-id").as_deref(), record["id"].as_str());
    assert_eq!((&record["decision"], &record["error"]), (&json!("refused"), &json!("request_too_large")));
}

#[test]
fn values_that_are_no_text_are_dropped_and_the_call_passes() {
    let (envoy, vm) = start(&golden::config());
    let mut exchange = case("json-plain");
    exchange.request_headers.push(("x-cost-team".into(), b"\xff\xfe".to_vec()));
    exchange.request_headers.push(("traceparent".into(), b"\xff".to_vec()));
    let record = play(&vm, &exchange);
    assert_eq!(record["notes"], json!(["x-cost-team: not_utf8"]));
    assert_eq!(envoy.counter("tollgate_dropped_values_total.reason.not_utf8"), Some(1));
    exchange.request_headers.retain(|(name, _)| name != "x-cost-team");
    assert!(play(&vm, &exchange).get("notes").is_none());
}

#[test]
fn memory_does_not_grow_with_bodies() {
    let (_, vm) = start(&golden::config());
    play(&vm, &case("sse-with-usage"));
    let chunk = format!("\"{}\",", "x".repeat(60_000));
    let event = "data: {\"choices\":[{\"delta\":{\"content\":\"word\"}}],\"usage\":null}\n\n".repeat(100);
    for (content_type, head, piece, tail) in [
        ("application/json", "{\"data\":[", chunk.as_str(), "0],\"usage\":{\"prompt_tokens\":1,\"total_tokens\":1}}"),
        ("text/event-stream", "", event.as_str(), "data: {\"usage\":{\"prompt_tokens\":1,\"total_tokens\":1}}\n\n"),
    ] {
        let body = |count: usize| {
            let call = vm.stream();
            call.request_headers(&[(":method", "POST"), (":path", "/v1/chat/completions")], true).unwrap();
            call.response_headers(&[(":status", "200"), ("content-type", content_type)], false).unwrap();
            call.response_body(head, false).unwrap();
            for _ in 0..count {
                call.response_body(piece, false).unwrap();
            }
            call.response_body(tail, true).unwrap();
            call.finish().unwrap();
            assert_eq!(record_of(&call).unwrap()["input_tokens"], 1);
        };
        body(3);
        let before = vm.memory_bytes();
        // 51 MB of JSON, 21,000 events.
        body(if content_type == "application/json" { 850 } else { 210 });
        assert_eq!(vm.memory_bytes(), before, "{content_type}");
    }
}

/// Headers of ten dimensions, as the benchmark sends them.
fn with_ten_headers(mut exchange: Exchange) -> Exchange {
    let names = "feature department team user session run-id project outcome gl-account environment";
    for name in names.split(' ') {
        exchange.request_headers.push((format!("x-cost-{name}"), format!("value-of-{name}").into_bytes()));
    }
    exchange
}

/// The configuration with more models than it needs, so that what a call keeps lies elsewhere in memory.
fn config_with_models(count: usize) -> Vec<u8> {
    let mut config: Value = serde_json::from_slice(&golden::config()).unwrap();
    let models = config["prices"]["models"].as_array_mut().unwrap();
    let name = |index: usize| format!("another-{}", "x".repeat(index * 7 % 37));
    models.extend((0..count).map(|index| json!({"model": name(index), "rates": {"input": "1", "output": "2"}})));
    config.to_string().into_bytes()
}

/// What attribution costs: the ten dimensions of the benchmark stand in three records, and are rendered once. Where blocks
/// of memory happen to lie moves the figure by a seventh either way, so it is a mean.
#[test]
fn ten_header_dimensions_burn_the_fuel_they_are_known_to_burn() {
    const KNOWN: u64 = 140_000;
    const TOLERANCE_PERCENT: u64 = 10;
    const LAYOUTS: usize = 24;
    let burnt = |config: &[u8], exchange: &Exchange| {
        let (_, vm) = start(config);
        play(&vm, exchange);
        vm.fuel_used(|| play(&vm, exchange)).1
    };
    let plain = case("json-plain");
    let ten = with_ten_headers(plain.clone());
    let added: Vec<u64> = (0..LAYOUTS)
        .map(config_with_models)
        .map(|config| burnt(&config, &ten).saturating_sub(burnt(&config, &plain)))
        .collect();
    let mean = added.iter().sum::<u64>() / LAYOUTS as u64;
    assert!(mean.abs_diff(KNOWN) * 100 <= KNOWN * TOLERANCE_PERCENT, "{mean} of {added:?}, known {KNOWN}");
}

/// Fuel of one exchange each, measured; a change beyond the tolerance is a change of cost on every call, for the
/// better or the worse: look at it and write the new number down.
#[test]
fn an_exchange_burns_the_fuel_it_is_known_to_burn() {
    const TOLERANCE_PERCENT: u64 = 10;
    let known: BTreeMap<String, u64> =
        serde_json::from_str(include_str!("fuel.json")).expect("fuel.json is a map of case names to fuel");
    let mut measured = BTreeMap::new();
    for name in known.keys() {
        let (_, vm) = start(&golden::config());
        let exchange = case(name);
        play(&vm, &exchange);
        let (_, fuel) = vm.fuel_used(|| play(&vm, &exchange));
        measured.insert(name.clone(), fuel);
    }
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuel.json");
        std::fs::write(path, serde_json::to_string_pretty(&measured).unwrap() + "\n").unwrap();
        return;
    }
    for (name, fuel) in &measured {
        let off = fuel.abs_diff(known[name]) * 100;
        assert!(off <= known[name] * TOLERANCE_PERCENT, "{name}: {fuel}, known {}; all: {measured:?}", known[name]);
    }
}
