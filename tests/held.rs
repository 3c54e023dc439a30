//! Held requests in the compiled module: what goes on and when, hosts that can't hold, and answers that can't be sent.

use crate::golden;
use crate::support::chunks::Chunking;
use crate::support::core_driver::CoreDriver;
use crate::support::exchange::{Driver, Outcome, stable};
use crate::support::wasm_driver::WasmDriver;
use crate::support::wasm_host::{Action, Fault, HostCall, HttpStream, NO_HEADERS, Plugin, Process, Program, Vm};
use serde_json::{Value, json};
use std::time::Duration;

const CHAT: [(&str, &str); 5] = [
    (":method", "POST"),
    (":path", "/v1/chat/completions"),
    ("content-length", "34"),
    ("accept-encoding", "gzip"),
    ("x-cost-department", "sales"),
];
const BODY: &str = r#"{"model":"gpt-4o","max_tokens":80}"#;
const CHEAPER: &str = r#"{"model":"gpt-4o-mini","max_tokens":50}"#;

/// A budget that `BODY` does not fit into, under which `action` is taken.
fn config(action: &str) -> Value {
    let rates = |usd: &str| json!({"input": usd, "output": usd});
    json!({
        "prices": {"models": [
            {"provider": "openai", "model": "gpt-4o", "rates": rates("1000")},
            {"provider": "openai", "model": "gpt-4o-mini", "rates": rates("10"), "max_output_tokens": 50},
        ]},
        "budgets": [{"name": "month", "limit_usd": "0.05", "hard_limit_usd": "0.06", "window": "month", "on_exceeded": action}],
        "downgrades": [{"from": "gpt-4o", "to": "gpt-4o-mini", "supports": ["max_tokens"]}],
        "metering": {"hold_request_headers": true},
    })
}

/// An Envoy whose plugin configuration lets it hold, or does not.
fn start(config: &Value, can_hold: bool) -> (Process, Vm) {
    let envoy = Process::new();
    let vm = envoy.start_vm(&Program::filter());
    let configuration = config.to_string().into_bytes();
    let plugin = Plugin { configuration, allow_on_headers_stop_iteration: can_hold };
    assert!(vm.configure(plugin).unwrap().1, "{:?}", vm.logs());
    (envoy, vm)
}

fn begin(vm: &Vm, headers: &[(&str, &str)]) -> HttpStream {
    let call = vm.stream();
    assert_eq!(call.request_headers(headers, false), Ok(Action::Pause));
    assert!(is_unseen(&call));
    call
}

/// Whether the provider has got nothing of the request.
fn is_unseen(call: &HttpStream) -> bool {
    call.state().request.sent_headers.is_none() && call.upstream_body().is_empty()
}

fn record_of(call: &HttpStream) -> Value {
    call.finish().unwrap();
    serde_json::from_str(&call.filter_state("tollgate.record").expect("a record")).unwrap()
}

fn log_lines(vm: &Vm, word: &str) -> usize {
    vm.logs().iter().filter(|line| line.text.contains(word)).count()
}

#[test]
fn a_held_request_goes_on_at_its_end_in_one_piece_with_its_length() {
    for chunking in Chunking::ALL {
        let (_, vm) = start(&config("downgrade"), true);
        let call = begin(&vm, &CHAT);
        for chunk in chunking.cut(BODY.as_bytes()) {
            assert_eq!(call.request_body(chunk, false), Ok(Action::Pause));
            assert!(is_unseen(&call));
        }
        assert_eq!(call.request_body("", true), Ok(Action::Continue));
        assert_eq!(String::from_utf8(call.upstream_body()).unwrap(), CHEAPER, "{chunking:?}");
        let sent = call.upstream_headers();
        assert_eq!(sent.text("content-length"), Some(CHEAPER.len().to_string()));
        assert_eq!((sent.text("accept-encoding").as_deref(), sent.has("x-cost-department")), (Some("gzip"), false));
        assert_eq!(record_of(&call)["decision"], "downgraded");
    }
}

/// Every golden exchange, under a budget that has to see its body.
fn outcomes(driver: &mut dyn Driver, hold: bool, chunking: Chunking) -> Vec<(String, Outcome)> {
    let mut config: Value = serde_json::from_slice(&golden::config()).unwrap();
    config["budgets"] = json!([{"name": "calls", "limit_calls": 1_000_000, "window": "lifetime"}]);
    config["metering"] = json!({ "hold_request_headers": hold });
    let cases = golden::cases().into_iter();
    let outcomes = cases.map(|(name, case)| {
        let mut exchange = golden::exchange(&case);
        exchange.config = config.to_string().into_bytes();
        let mut outcome = driver.play(&exchange, chunking);
        outcome.record = outcome.record.as_ref().map(stable);
        (name, outcome)
    });
    outcomes.collect()
}

#[test]
fn every_golden_exchange_comes_out_the_same_held_or_not() {
    let drivers: [&mut dyn Driver; 2] = [&mut CoreDriver, &mut WasmDriver::default()];
    for driver in drivers {
        for chunking in Chunking::ALL {
            let (held, passed) = (outcomes(driver, true, chunking), outcomes(driver, false, chunking));
            for ((name, held), (_, passed)) in held.into_iter().zip(passed) {
                assert_eq!(held.record, passed.record, "{name} {chunking:?}");
                assert_eq!(held.upstream_body, passed.upstream_body, "{name} {chunking:?}");
                assert_eq!(held.client_body, passed.client_body, "{name} {chunking:?}");
            }
        }
    }
}

#[test]
fn trailers_let_a_held_request_go_on_whole_too() {
    let (_, vm) = start(&config("downgrade"), true);
    let call = begin(&vm, &CHAT);
    assert_eq!(call.request_body(BODY, false), Ok(Action::Pause));
    assert_eq!(call.request_trailers(&[("x-end", "1")]), Ok(Action::Continue));
    assert_eq!(String::from_utf8(call.upstream_body()).unwrap(), CHEAPER);
    assert!(!call.upstream_headers().has("content-length"));
    assert_eq!(call.state().request.sent_trailers.as_ref().unwrap().text("x-end").as_deref(), Some("1"));
}

#[test]
fn a_refused_request_shows_the_provider_nothing() {
    for chunking in Chunking::ALL {
        let (_, vm) = start(&config("block"), true);
        let call = begin(&vm, &CHAT);
        for chunk in chunking.cut(BODY.as_bytes()) {
            call.request_body(chunk, false).unwrap();
        }
        call.request_body("", true).unwrap();
        assert_eq!(call.local_reply().expect("a refusal").status, 429);
        assert!(is_unseen(&call));
        assert_eq!(record_of(&call)["decision"], "refused");
    }
}

#[test]
fn a_host_that_cannot_hold_is_told_to_go_on_and_the_call_is_still_governed() {
    for (action, sent) in [("downgrade", CHEAPER), ("block", "")] {
        let (envoy, vm) = start(&config(action), false);
        for round in 1..=3 {
            let call = begin(&vm, &CHAT);
            assert_eq!(call.request_body(BODY, true), Ok(Action::Withheld), "the host shows nothing of it");
            for _ in 0..2 {
                vm.tick().unwrap();
                assert!(is_unseen(&call), "it has been held for a second at most");
                envoy.clock.advance(Duration::from_secs(1));
            }
            vm.tick().unwrap();
            assert!(call.state().request.sent_headers.is_some());
            assert_eq!(String::from_utf8(call.upstream_body()).unwrap(), sent);
            assert_eq!(call.local_reply().map(|reply| reply.status), sent.is_empty().then_some(429));
            assert!(!call.upstream_headers().has("content-length"), "its length may change");
            assert_eq!(record_of(&call)["decision"], if sent.is_empty() { "refused" } else { "downgraded" });
            assert_eq!(envoy.counter("tollgate_released_holds_total"), Some(round));
        }
        assert_eq!(log_lines(&vm, "allow_on_headers_stop_iteration"), 1);

        // By now it is not even tried, for a minute.
        let call = vm.stream();
        assert_eq!(call.request_headers(&CHAT, false), Ok(Action::Continue));
        call.request_body(BODY, true).unwrap();
        assert_eq!(String::from_utf8(call.upstream_body()).unwrap(), sent, "it is governed all the same");
        call.finish().unwrap();
        envoy.clock.advance(Duration::from_secs(60));
        begin(&vm, &CHAT).finish().unwrap();
    }
}

#[test]
fn a_slow_client_is_held_for_long_where_the_host_has_proved_that_it_can() {
    let (envoy, vm) = start(&config("block"), true);
    let first = begin(&vm, &CHAT);
    let second = begin(&vm, &CHAT);
    first.request_body("{", false).unwrap();
    envoy.clock.advance(Duration::from_secs(60));
    vm.tick().unwrap();
    for call in [first, second] {
        assert!(is_unseen(&call));
        call.finish().unwrap();
    }
    assert_eq!(log_lines(&vm, "allow_on_headers_stop_iteration"), 0);

    // The proof is of one plugin configuration: another in the same VM may lack the option.
    let plugin = Plugin { configuration: config("block").to_string().into(), allow_on_headers_stop_iteration: false };
    assert!(vm.configure(plugin).unwrap().1);
    let call = begin(&vm, &CHAT);
    envoy.clock.advance(Duration::from_secs(2));
    vm.tick().unwrap();
    assert!(call.state().request.sent_headers.is_some());
}

#[test]
fn a_client_that_leaves_while_it_is_held_leaves_a_record_and_nothing_to_let_go() {
    let (envoy, vm) = start(&config("block"), false);
    let call = begin(&vm, &CHAT);
    call.set_property(&["response", "code_details"], "downstream_remote_disconnect");
    let record = record_of(&call);
    assert_eq!((&record["end_reason"], &record["cost_picousd"]), (&json!("client_abort"), &json!(0)));
    envoy.clock.advance(Duration::from_secs(3));
    vm.tick().unwrap();
    assert_eq!((vm.made(HostCall::ContinueStream), envoy.counter("tollgate_released_holds_total")), (0, None));
}

#[test]
fn a_root_that_lets_go_sends_its_batches_as_itself() {
    let mut config = config("block");
    config["collector"] = json!({"cluster": "cost_collector", "flush_ms": 100});
    let (envoy, vm) = start(&config, false);
    envoy.add_cluster("cost_collector");
    begin(&vm, &CHAT).finish().unwrap();
    let held = begin(&vm, &CHAT);
    envoy.clock.advance(Duration::from_secs(2));
    vm.tick().unwrap();
    assert!(held.state().request.sent_headers.is_some());
    held.finish().unwrap();
    let batch = vm.open_calls().remove(0);
    vm.answer_call(batch.token, 202, NO_HEADERS, b"").expect("the answer comes to the root");
    assert_eq!(envoy.counter("tollgate_records_total.result.sent"), Some(1));
}

#[test]
fn a_refusal_that_cannot_be_sent_does_not_let_the_call_pass() {
    for hold in [true, false] {
        for status in [1, 2, 10, 12] {
            let mut config = config("block");
            config["metering"] = json!({ "hold_request_headers": hold });
            let (envoy, vm) = start(&config, true);
            vm.fail(HostCall::SendLocalResponse, Fault::always(status));
            let call = vm.stream();
            call.request_headers(&CHAT, false).unwrap();
            assert_eq!(call.request_body(BODY, true), Ok(Action::Pause));
            assert!(call.state().reset, "the stream is broken off");
            assert_eq!(call.upstream_body(), b"", "{status}, hold: {hold}");
            assert_eq!(record_of(&call)["decision"], "refused");
            assert_eq!(envoy.counter("tollgate_host_errors_total.call.proxy_send_local_response"), Some(1));
            assert_eq!(log_lines(&vm, "the request is cut off"), 1);

            // Where the stream can't be broken off either, it stands still.
            vm.fail(HostCall::CloseStream, Fault::always(status));
            let call = vm.stream();
            call.request_headers(
                &[(":method", "POST"), (":path", "/v1/messages"), ("content-length", "99999999")],
                false,
            )
            .unwrap();
            assert!(call.state().request.sent_headers.is_none(), "too long for any budget");
            assert_eq!(call.request_body(BODY, false), Ok(Action::Pause));
            assert_eq!(call.request_trailers(NO_HEADERS), Ok(Action::Pause));
            assert!(is_unseen(&call));
            call.finish().unwrap();
        }
        // Other hosts trap here, which ends the stream as well.
        let (_, vm) = start(&config("block"), true);
        vm.fail(HostCall::SendLocalResponse, Fault::always(12));
        vm.fail(HostCall::CloseStream, Fault::trap_at(1));
        let call = begin(&vm, &CHAT);
        assert!(call.request_body(BODY, true).is_err());
        assert!(is_unseen(&call));
    }
}

#[test]
fn any_host_call_may_fail_while_a_request_is_held() {
    for host_call in HostCall::ALL {
        for status in [1, 2, 3, 7, 8, 10, 12, 99] {
            for can_hold in [true, false] {
                let (envoy, vm) = start(&config("downgrade"), can_hold);
                vm.fail(*host_call, Fault::always(status));
                let call = vm.stream();
                call.request_headers(&CHAT, false).unwrap();
                for chunk in Chunking::Every(9).cut(BODY.as_bytes()) {
                    call.request_body(chunk, false).unwrap();
                }
                call.request_body("", true).unwrap();
                for _ in 0..3 {
                    envoy.clock.advance(Duration::from_secs(1));
                    vm.tick().unwrap();
                }
                call.finish().unwrap_or_else(|dead| panic!("{host_call:?} {status}: {dead:?}"));
            }
        }
    }
}

#[test]
fn a_downgrade_that_cannot_be_written_does_not_let_the_dear_call_pass() {
    let gemini = [
        (":method", "POST"),
        (":path", "/v1beta/models/gpt-4o:generateContent"),
        ("content-type", "application/json"),
        ("x-cost-department", "sales"),
    ];
    for (fault, headers, body) in [
        (HostCall::SetBufferBytes, &CHAT[..], BODY),
        (HostCall::ReplaceHeaderMapValue, &gemini, r#"{"generationConfig":{"maxOutputTokens":80}}"#),
    ] {
        let (_, vm) = start(&config("downgrade"), true);
        vm.fail(fault, Fault::always(2));
        let call = begin(&vm, headers);
        call.request_body(body, true).unwrap();
        assert!(is_unseen(&call), "{fault:?}");
    }
}
