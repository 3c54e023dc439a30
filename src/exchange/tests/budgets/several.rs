//! Several budgets over one call, and those that are used up.

use super::*;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

/// Counters are held in the order of their ids, which names decide: among so many there are some before any other.
const NAMES: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];

/// A budget of `limit_usd` with some more keys.
fn budget(name: &str, limit_usd: &str, more: &Value) -> Value {
    let mut budget = json!({"name": name, "limit_usd": limit_usd, "window": "month"});
    for (key, value) in more.as_object().unwrap() {
        budget[key] = value.clone();
    }
    budget
}

#[test]
fn what_a_budget_would_do_does_not_depend_on_who_refuses_the_call() {
    let downgrade = json!({"mode": "observe", "on_exceeded": "downgrade", "hard_limit_usd": "9"});
    for (what, refusing, spent) in [
        ("too little is left", budget("z", "0.05", &json!({})), 0),
        ("nothing is left, and the headers say so", budget("z", "0.01", &json!({})), 20),
        (
            "it lacks a value",
            budget("z", "9", &json!({"per": ["team"], "when_missing": "refuse", "match": {"department": "sales"}})),
            0,
        ),
    ] {
        for name in NAMES {
            for first in [true, false] {
                let watching = budget(name, "0.01", &downgrade);
                let budgets = if first { [watching, refusing.clone()] } else { [refusing.clone(), watching] };
                let more = json!({"downgrades": [{"from": "gpt-4o", "to": "gpt-4o-mini"}]});
                let mut gateway = Gateway::new(&json!(budgets), &more);
                if spent > 0 {
                    gateway.call("sales", 1, spent);
                }
                let record = gateway.call("sales", 90, 90).record.unwrap();
                assert_eq!(
                    (record.decision, record.would_decide, record.budget.as_deref()),
                    (Decision::Refused, Some(Decision::Downgraded), Some("z")),
                    "{what}, {name}, {first}"
                );
            }
        }
    }
}

#[test]
fn what_a_budget_would_do_is_told_of_calls_whose_path_was_changed_too() {
    let downgrade = json!({"on_exceeded": "downgrade", "hard_limit_usd": "9"});
    let watching = budget("watch", "0.01", &json!({"mode": "observe"}));
    let same = budget("same", "0.01", &json!({"mode": "observe", "on_exceeded": "downgrade", "hard_limit_usd": "9"}));
    for (body, decision) in [
        (r#"{"contents":[]}"#, Decision::Downgraded),
        (r#"{"contents":[{"parts":[{"inlineData":{"mimeType":"image/png","data":"x"}}]}]}"#, Decision::Refused),
    ] {
        for (observing, would) in [(&watching, Decision::Refused), (&same, Decision::Downgraded)] {
            let more = json!({"downgrades": [{"from": "gpt-4o", "to": "gpt-4o-mini"}]});
            let mut gateway = Gateway::new(&json!([budget("month", "0.01", &downgrade), observing]), &more);
            gateway.call("sales", 1, 20);
            let (exchange, _, verdict) = gemini(&mut gateway, &[], body);
            assert_eq!(verdict.reply.is_some(), decision == Decision::Refused);
            let record = gateway.end(exchange, None, "via_upstream");
            assert_eq!(
                (record.decision, record.would_decide, record.budget.as_deref()),
                (decision, Some(would), Some("month"))
            );
        }
    }
}

#[test]
fn what_only_others_hold_refuses_nothing_at_the_headers() {
    let mixed = |limit: &str, hard: &str| {
        let actions = json!({"agentic_write": "block", "agentic_read": "downgrade"});
        json!([budget("all", limit, &json!({"on_exceeded": actions, "hard_limit_usd": hard}))])
    };
    let more = json!({"downgrades": [{"from": "gpt-4o", "to": "gpt-4o-mini"}]});
    let mut gateway = Gateway::new(&mixed("1", "2"), &more);
    let (_open, _) = gateway.begin("sales", r#"{"model":"gpt-4o","max_tokens":150}"#);
    gateway.call("sales", 80, 90);
    gateway.reconfigure(&json!({"budgets": mixed("0.1", "0.2")}));
    let (mut exchange, mut played) = gateway.announce("sales");
    assert!(played.reply.is_none(), "a call that reads may go on in a moment");
    gateway.send(&mut exchange, &mut played, r#"{"model":"gpt-4o","max_tokens":1}"#);
    assert_eq!(played.reply.unwrap().details, "tollgate_budget_busy");
}

#[test]
fn a_budget_that_has_too_little_left_is_named_before_one_that_is_only_busy() {
    for name in NAMES {
        let busy = json!({"name": name, "limit_usd": "0.2", "window": "year"});
        let little = json!({"name": "z", "match": {"department": "sales"}, "limit_usd": "0.09", "window": "minute"});
        let mut gateway = Gateway::new(&json!([busy, little]), &json!({}));
        let (_open, _) = gateway.begin("support", r#"{"model":"gpt-4o","max_tokens":150}"#);
        let (_, played) = gateway.begin("sales", r#"{"model":"gpt-4o","max_tokens":100}"#);
        let reply = played.reply.unwrap();
        assert_eq!(reply.details, "tollgate_budget_exceeded", "{name}");
        assert!(reply.headers.contains(&("x-cost-budget", "z".into())), "{name}");
    }
}

#[test]
fn a_budget_refuses_at_the_headers_as_soon_as_the_body_can_make_no_difference() {
    let downgrade = json!({"on_exceeded": "downgrade", "hard_limit_usd": "0.2"});
    let mixed = json!({"on_exceeded": {"agentic_write": "block", "agentic_read": "downgrade"},
                       "hard_limit_usd": "0.2"});
    let allow = json!({"on_exceeded": {"agentic_write": "block", "agentic_read": "allow"}});
    let calls = json!({"on_exceeded": "downgrade", "hard_limit_usd": "0.2", "limit_calls": 1});
    for (more, used, refused) in [
        (json!({}), 89, false),
        (json!({}), 90, true),
        (downgrade.clone(), 90, false),
        (downgrade.clone(), 189, false),
        (downgrade, 190, true),
        (mixed.clone(), 189, false),
        (mixed, 190, true),
        (allow, 500, false),
        (calls, 1, true),
    ] {
        let sections = json!({"downgrades": [{"from": "gpt-4o", "to": "gpt-4o-mini"}]});
        let sections = if more["hard_limit_usd"].is_null() { json!({}) } else { sections };
        for late in [false, true] {
            let mut limited = budget("all", "0.1", &more);
            if late {
                // What has a workload to match is asked at the body's end only, which comes to the same.
                limited["match"] = json!({"workload": "*"});
            }
            let mut gateway = Gateway::new(&json!([limited]), &sections);
            gateway.call("sales", 80, used);
            let (mut exchange, mut played) = gateway.announce("sales");
            assert_eq!(played.reply.is_some(), refused && !late, "{more} {used} {late}");
            if played.reply.is_none() {
                gateway.send(&mut exchange, &mut played, r#"{"model":"gpt-4o","max_tokens":1}"#);
                assert!(played.reply.is_some() || !refused, "{more} {used} {late}");
            }
        }
    }
}

#[test]
fn a_refusal_that_is_for_no_budget_names_none() {
    let downgrade = json!({"on_exceeded": "downgrade", "hard_limit_usd": "9"});
    let more = json!({"metering": {"max_request_bytes": 1024},
                      "downgrades": [{"from": "gpt-4o", "to": "gpt-4o-mini"}]});
    let mut gateway = Gateway::new(&json!([budget("month", "0.01", &downgrade)]), &more);
    gateway.call("sales", 1, 20);
    let pairs = [(":method", "POST"), (":path", "/v1beta/models/gpt-4o:generateContent"), ("x-cost-department", "a")];
    let headers = headers(&pairs, &[]);
    let mut exchange = Exchange::new(Rc::clone(&gateway.config));
    let context = &mut Context { host: &mut gateway.host, instance: &mut gateway.instance };
    let event = Event::RequestHeaders { headers: &headers, route: Route::default(), end_of_stream: false };
    let verdict = exchange.on(event, context);
    assert!(verdict.edits.iter().any(|edit| matches!(edit, Edit::Set(":path", _))), "it is on its way elsewhere");
    let verdict = exchange.on(Event::RequestBody { chunk: &[b' '; 1025], end_of_stream: false }, context);
    assert_eq!(verdict.reply.unwrap().status, 413);
    let record = gateway.end(exchange, None, "tollgate_request_too_large");
    assert_eq!((record.decision, record.budget), (Decision::Refused, None));
    assert!(!gateway.host.counters.keys().any(|name| name.contains("budget_refusals")), "{:?}", gateway.host.counters);
}

#[test]
fn of_budgets_that_refuse_the_caller_hears_of_the_one_to_wait_for_longest() {
    for (tokens, when) in [(90, "its body"), (100, "its headers")] {
        for name in NAMES {
            let minute = json!({"name": name, "limit_usd": "0.1", "window": "minute"});
            let mut gateway = Gateway::new(&json!([minute, month("0.1")]), &json!({}));
            gateway.call("sales", 80, tokens - 10);
            let reply = gateway.call("sales", 90, 0).reply.unwrap();
            assert!(reply.headers.contains(&("x-cost-budget", "month".into())), "{when}, {name}: {:?}", reply.headers);
        }
    }
}

#[test]
fn of_budgets_that_refuse_the_strictest_is_named_at_the_headers_as_at_the_body() {
    let budgets = |name: &str, limits: [&str; 3], condition: &Value| {
        let [soft, hard, strict] = limits;
        let actions = json!({"on_exceeded": "downgrade", "hard_limit_usd": hard, "window": "year", "match": condition});
        json!([budget(name, soft, &actions), budget("strict", strict, &json!({"match": condition}))])
    };
    let more = json!({"downgrades": [{"from": "gpt-4o", "to": "gpt-4o-mini"}]});
    // What has a workload to match is asked at the body's end only.
    for (condition, at_headers) in [(json!({}), true), (json!({"workload": "*"}), false)] {
        for name in NAMES {
            let mut gateway = Gateway::new(&budgets(name, ["1", "2", "1"], &condition), &more);
            gateway.call("sales", 80, 90);
            gateway.reconfigure(&json!({"budgets": budgets(name, ["0.05", "0.1", "0.1"], &condition)}));
            let (mut exchange, mut played) = gateway.announce("sales");
            assert_eq!(played.reply.is_some(), at_headers, "{name}");
            if !at_headers {
                gateway.send(&mut exchange, &mut played, r#"{"model":"gpt-4o","max_tokens":1}"#);
            }
            let reply = played.reply.unwrap();
            assert!(reply.headers.contains(&("x-cost-budget", "strict".into())), "{name}: {:?}", reply.headers);
        }
    }
}

#[test]
fn a_counter_is_read_once_for_all_that_is_asked_of_it_at_the_headers() {
    let downgrade = json!({"on_exceeded": "downgrade", "hard_limit_usd": "9"});
    let more = json!({"downgrades": [{"from": "gpt-4o", "to": "gpt-4o-mini"}]});
    for budgets in 1..4 {
        let budgets: Vec<_> = NAMES.iter().take(budgets).map(|name| budget(name, "0.01", &downgrade)).collect();
        let mut gateway = Gateway::new(&json!(budgets), &more);
        gateway.call("sales", 1, 20);
        let pairs = [(":method", "POST"), (":path", "/v1beta/models/gpt-4o:generateContent")];
        let headers = headers(&pairs, &[]);
        let mut exchange = Exchange::new(Rc::clone(&gateway.config));
        let before = gateway.host.reads;
        let context = &mut Context { host: &mut gateway.host, instance: &mut gateway.instance };
        let event = Event::RequestHeaders { headers: &headers, route: Route::default(), end_of_stream: false };
        let verdict = exchange.on(event, context);
        assert!(verdict.edits.iter().any(|edit| matches!(edit, Edit::Set(":path", _))), "it goes elsewhere");
        assert_eq!(gateway.host.reads - before, budgets.len() as u64);
    }
}

#[test]
fn a_budget_that_is_used_up_takes_no_free_call_either_whenever_it_is_asked() {
    let prices = json!({"models": [
        {"model": "gpt-4o", "rates": {"input": "1000", "output": "1000"}},
        {"model": "free", "rates": {"input": "0", "output": "0"}}]});
    let body = r#"{"model":"free","max_tokens":5}"#;
    for (used, passes) in [(79, true), (80, false), (81, false)] {
        // What has a workload to match is asked at the body's end only.
        for conditions in [json!({}), json!({"workload": "*"})] {
            let limited = budget("all", "0.09", &json!({"match": conditions}));
            let mut gateway = Gateway::new(&json!([limited]), &json!({"prices": prices}));
            gateway.call("sales", 70, used);
            let (_, played) = gateway.begin("sales", body);
            assert_eq!(played.reply.is_none(), passes, "{used} {conditions}");
        }
    }
    // What only others hold is no reason to refuse what costs nothing.
    let mut gateway = Gateway::new(&json!([budget("all", "0.09", &json!({}))]), &json!({"prices": prices}));
    let (_open, played) = gateway.begin("sales", r#"{"model":"gpt-4o","max_tokens":80,"x":1}"#);
    assert!(played.reply.is_none());
    assert_eq!(gateway.standing(""), ("0".into(), "0.09".into()));
    assert!(gateway.begin("sales", body).1.reply.is_none());
}

#[test]
fn a_budget_that_observes_and_finds_no_room_says_so_and_refuses_nothing() {
    let watching = json!({"name": "runs", "per": ["department"], "when_missing": "share", "limit_calls": 5,
                          "window": "lifetime", "mode": "observe"});
    let mut gateway = Gateway::new(&json!([watching]), &json!({"ledger": {"max_bytes": 4 << 20}}));
    let noted = |record: &UsageRecord| record.notes.iter().filter(|note| ***note == *"ledger_full").count();
    let mut full = (0..40_000).map(|n| gateway.call(&format!("department-{n:0100}"), 1, 1).record.unwrap());
    let record = full.find(|record| noted(record) > 0).expect("it gets full");
    assert_eq!((record.decision, record.would_decide, noted(&record)), (Decision::Allowed, None, 1));
}

#[test]
fn what_passes_without_a_hold_since_the_ledger_was_busy_is_counted_all_the_same() {
    let admits = json!({"ledger": {"on_contention": "admit"}});
    for (mode, more, passes) in [("enforce", json!({}), false), ("enforce", admits, true), ("observe", json!({}), true)]
    {
        let mut budget = month("1");
        budget["mode"] = json!(mode);
        budget["limit_calls"] = json!(9);
        let mut gateway = Gateway::new(&json!([budget]), &more);
        let (mut exchange, mut played) = gateway.announce("sales");
        gateway.host.conflicts = 1000;
        gateway.send(&mut exchange, &mut played, r#"{"model":"gpt-4o","max_tokens":90}"#);
        gateway.host.conflicts = 0;
        assert_eq!(played.reply.is_none(), passes, "{mode} {more}");
        let (first, mut second) = (gateway.standing("sales"), None);
        if passes {
            // Another's hold stays what it is when this call ends.
            second = Some(gateway.begin("sales", r#"{"model":"gpt-4o","max_tokens":90}"#).0);
            let answer = r#"{"model":"gpt-4o","usage":{"prompt_tokens":10,"completion_tokens":10}}"#;
            let record = gateway.end(exchange, Some(answer), "via_upstream");
            assert_eq!(record.notes, ["ledger_unavailable".into()]);
        }
        let spent = if passes { ("0.02", "0.099") } else { ("0", "0") };
        assert_eq!(first, ("0".into(), "0".into()));
        assert_eq!(gateway.standing("sales"), (spent.0.into(), spent.1.into()), "{mode} {more}");
        drop(second);
    }
}

#[test]
fn what_is_counted_late_and_finds_no_room_is_noted_and_waits_for_none() {
    for on_full in ["admit", "refuse"] {
        let runs = json!({"name": "runs", "per": ["department"], "when_missing": "share", "limit_usd": "5",
                          "window": "lifetime"});
        let mut gateway = Gateway::new(&json!([runs]), &json!({"ledger": {"max_bytes": 4 << 20, "on_full": on_full}}));
        let mut look = |n: u32| {
            let department = format!("department-{n:0100}");
            let path = format!("/v1/responses/resp_{n}");
            let pairs = [(":method", "GET"), (":path", &path), ("x-cost-department", &department)];
            let headers = headers(&pairs, &[]);
            let mut exchange = Exchange::new(Rc::clone(&gateway.config));
            let context = &mut Context { host: &mut gateway.host, instance: &mut gateway.instance };
            let event = Event::RequestHeaders { headers: &headers, route: Route::default(), end_of_stream: true };
            exchange.on(event, context);
            let answer = format!(
                r#"{{"id":"resp_{n}","object":"response","background":true,"status":"completed","model":"gpt-4o",
                    "usage":{{"input_tokens":10,"output_tokens":5}}}}"#
            );
            gateway.end(exchange, Some(&answer), "via_upstream")
        };
        let mut records = (0..40_000).map(&mut look);
        let record = records.find(|record| !record.notes.is_empty()).expect("it gets full");
        assert_eq!((record.notes, record.cost_usd.unwrap().as_str()), (vec!["ledger_full".into()], "0.015"));
        drop(records);
        assert_eq!(gateway.instance.ledger.owed(), 0, "{on_full}");
    }
}
