//! What the headers of a request decide, what its body may still change, and what is held meanwhile.

use super::budgets::{Gateway, month};
use super::*;
use serde_json::json;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

fn open(gateway: &mut Gateway, pairs: &[(&str, &str)]) -> (Exchange, Verdict) {
    let all: Vec<_> = [(":method", "POST"), (":path", "/v1/chat/completions")].iter().chain(pairs).copied().collect();
    let headers = headers(&all, &[]);
    let mut exchange = Exchange::new(Rc::clone(&gateway.config));
    let context = &mut Context { host: &mut gateway.host, instance: &mut gateway.instance };
    let event = Event::RequestHeaders { headers: &headers, route: Route::default(), end_of_stream: false };
    let verdict = exchange.on(event, context);
    (exchange, verdict)
}

fn feed(gateway: &mut Gateway, exchange: &mut Exchange, chunk: &[u8], end_of_stream: bool) -> Verdict {
    let context = &mut Context { host: &mut gateway.host, instance: &mut gateway.instance };
    exchange.on(Event::RequestBody { chunk, end_of_stream }, context)
}

#[test]
fn a_workload_that_the_body_may_still_change_refuses_nothing_early() {
    let mut budget = month("0.1");
    budget["on_exceeded"] = json!({"agentic_write": "block", "agentic_read": "allow"});
    let from = json!([{"body": "metadata.workload"}, {"header": "x-cost-workload"}]);
    let attribution = json!({"dimensions": {"workload": {"from": from}}});
    let mut gateway = Gateway::new(&json!([budget]), &json!({"attribution": attribution}));
    let body = br#"{"model":"gpt-4o","max_tokens":90,"metadata":{"workload":"agentic-read"}}"#;
    let sales = ("x-cost-department", "sales");
    let (mut exchange, verdict) = open(&mut gateway, &[sales, ("x-cost-workload", "agentic-read")]);
    assert!(verdict.reply.is_none());
    feed(&mut gateway, &mut exchange, body, true);
    let answer = r#"{"model":"gpt-4o","usage":{"prompt_tokens":10,"completion_tokens":190}}"#;
    gateway.end(exchange, Some(answer), "via_upstream");
    // Without the header, the body decides: it passes.
    let (mut exchange, verdict) = open(&mut gateway, &[sales]);
    assert!(verdict.reply.is_none());
    assert!(feed(&mut gateway, &mut exchange, body, true).reply.is_none());
    // With one, the same body would decide the same.
    let (_, verdict) = open(&mut gateway, &[sales, ("x-cost-workload", "agentic-write")]);
    assert_eq!(verdict.reply.map(|reply| reply.details), None, "its body says that it reads");
}

#[test]
fn what_need_not_be_held_makes_room_for_what_must() {
    let mut budget = month("100");
    budget["match"] = json!({"department": "sales"});
    let mut gateway = Gateway::new(
        &json!([budget]),
        &json!({"metering": {
        "inject_include_usage": true, "hold_request_headers": true, "max_request_bytes": 1024, "max_withheld_bytes": 1024}}),
    );
    let (mut optional, verdict) = open(&mut gateway, &[("x-cost-department", "research")]);
    assert!(verdict.pause, "held, to be asked for its usage");
    assert!(feed(&mut gateway, &mut optional, &[b' '; 500], false).pause);
    let (_, verdict) = open(&mut gateway, &[("x-cost-department", "sales"), ("content-length", "100")]);
    assert_eq!(verdict.reply.map(|reply| reply.details), None, "nobody has to hold the other one");
}

#[test]
fn every_collector_gets_the_snapshots_of_its_configuration() {
    let mut gateway = Gateway::new(&json!([month("1")]), &json!({}));
    gateway.call("sales", 10, 10);
    let first = Rc::clone(&gateway.config);
    gateway.reconfigure(&json!({"collector": {"cluster": "other"}}));
    let configs = [first, Rc::clone(&gateway.config)];
    let mut turns = [crate::overview::Turn::default(), crate::overview::Turn::default()];
    let mut got = [0, 0];
    gateway.host.lines.clear();
    for _ in 0..600 {
        for (index, config) in configs.iter().enumerate() {
            let context = &mut Context { host: &mut gateway.host, instance: &mut gateway.instance };
            crate::overview::tick(config, &mut turns[index], context);
            got[index] += gateway.host.lines.drain(..).count();
        }
        gateway.host.now_ns += 1_000_000_000;
    }
    assert!(got[0] > 0 && got[1] > 0, "{got:?}");
}

#[test]
fn what_comes_of_a_held_request_after_its_answer_is_not_kept_and_never_goes_on() {
    let mut gateway = Gateway::new(
        &json!([month("100")]),
        &json!({"metering": {
        "inject_include_usage": true, "hold_request_headers": true, "max_request_bytes": 1024, "max_withheld_bytes": 1024}}),
    );
    let (mut exchange, _) = open(&mut gateway, &[("x-cost-department", "sales")]);
    feed(&mut gateway, &mut exchange, &[b' '; 1000], false);
    let reply = headers(&[(":status", "408"), ("content-type", "text/plain")], &[]);
    let context = &mut Context { host: &mut gateway.host, instance: &mut gateway.instance };
    exchange.on(Event::ResponseHeaders { headers: &reply, end_of_stream: false }, context);
    feed(&mut gateway, &mut exchange, &[b' '; 100_000], false);
    let kept = gateway.instance.withheld.bytes();
    let context = &mut Context { host: &mut gateway.host, instance: &mut gateway.instance };
    let trailers = exchange.on(Event::RequestTrailers, context);
    assert_eq!((kept, trailers.pause), (0, true));
}

#[test]
fn a_scope_is_told_once_a_minute_whatever_else_its_configuration_counts() {
    let mut gateway = Gateway::new(&json!([month("1")]), &json!({}));
    gateway.call("sales", 10, 10);
    let first = Rc::clone(&gateway.config);
    let more = json!({"name": "more", "limit_calls": 1000, "window": "month"});
    gateway.reconfigure(&json!({"budgets": [month("5"), more]}));
    let configs = [first, Rc::clone(&gateway.config)];
    let mut turns = [crate::overview::Turn::default(), crate::overview::Turn::default()];
    gateway.host.lines.clear();
    for _ in 0..600 {
        for (config, turn) in configs.iter().zip(&mut turns) {
            crate::overview::tick(
                config,
                turn,
                &mut Context { host: &mut gateway.host, instance: &mut gateway.instance },
            );
        }
        gateway.host.now_ns += 1_000_000_000;
    }
    let lines: Vec<serde_json::Value> =
        gateway.host.lines.iter().map(|line| serde_json::from_slice(line).unwrap()).collect();
    let limits: Vec<_> =
        lines.iter().filter(|line| line["budget"] == "month").map(|line| line["limit_usd"].clone()).collect();
    assert!(limits.len() <= 10, "{} snapshots of one scope in ten minutes: {limits:?}", limits.len());
}

#[test]
fn what_the_body_may_still_say_is_not_taken_from_the_headers() {
    let mut budget = month("0.1");
    budget["per"] = json!(["team"]);
    let from = json!([{"body": "metadata.team"}, {"header": "x-cost-team"}]);
    let attribution = json!({"dimensions": {"team": {"from": from}}});
    let mut gateway = Gateway::new(&json!([budget]), &json!({"attribution": attribution}));
    let body = |team: &str| format!(r#"{{"model":"gpt-4o","max_tokens":50,"metadata":{{"team":"{team}"}}}}"#);
    let (mut exchange, _) = open(&mut gateway, &[("x-cost-team", "a")]);
    assert!(feed(&mut gateway, &mut exchange, body("b").as_bytes(), true).reply.is_none());
    assert_eq!(gateway.standing("a").1, "0");
    assert_ne!(gateway.standing("b").1, "0");
    let answer = r#"{"model":"gpt-4o","usage":{"prompt_tokens":10,"completion_tokens":190}}"#;
    gateway.end(exchange, Some(answer), "via_upstream");
    let (mut exchange, verdict) = open(&mut gateway, &[("x-cost-team", "b")]);
    assert!(verdict.reply.is_none(), "the body may still name another team");
    assert!(feed(&mut gateway, &mut exchange, body("c").as_bytes(), true).reply.is_none());
}
