//! Ways around a budget that are none.

use super::budgets::{Gateway, month};
use super::*;
use serde_json::json;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

impl Gateway {
    fn exchange(&mut self) -> Exchange {
        Exchange::new(Rc::clone(&self.config))
    }

    fn on(&mut self, exchange: &mut Exchange, event: Event<'_>) -> Verdict {
        exchange.on(event, &mut Context { host: &mut self.host, instance: &mut self.instance })
    }

    fn head(&mut self, exchange: &mut Exchange, pairs: &[(&str, &str)], end_of_stream: bool) -> Verdict {
        let all: Vec<_> = pairs.iter().copied().chain([("x-cost-department", "sales")]).collect();
        let headers = headers(&all, &[]);
        self.on(exchange, Event::RequestHeaders { headers: &headers, route: Route::default(), end_of_stream })
    }

    fn body(&mut self, exchange: &mut Exchange, chunk: &str, end_of_stream: bool) -> Verdict {
        self.on(exchange, Event::RequestBody { chunk: chunk.as_bytes(), end_of_stream })
    }
}

const CHAT: [(&str, &str); 2] = [(":method", "POST"), (":path", "/v1/chat/completions")];

#[test]
fn a_background_response_is_charged_by_the_look_that_finds_its_cost() {
    let mut gateway = Gateway::new(&json!([month("1")]), &json!({}));
    let mut first = gateway.exchange();
    gateway.head(&mut first, &[(":method", "POST"), (":path", "/v1/responses")], false);
    gateway.body(&mut first, r#"{"model":"gpt-4o","background":true,"max_output_tokens":9}"#, true);
    gateway.end(first, Some(r#"{"id":"resp_1","background":true,"status":"queued","model":"gpt-4o"}"#), "via_upstream");
    assert_eq!(gateway.standing("sales"), ("0".into(), "0".into()));
    let done = r#"{"id":"resp_1","background":true,"status":"completed","model":"gpt-4o",
                   "usage":{"input_tokens":10,"output_tokens":10}}"#;
    for spent in ["0.02", "0.02"] {
        let mut poll = gateway.exchange();
        gateway.head(&mut poll, &[(":method", "GET"), (":path", "/v1/responses/resp_1")], true);
        gateway.end(poll, Some(done), "via_upstream");
        assert_eq!(gateway.standing("sales"), (spent.into(), "0".into()), "once, however often it is looked at");
    }
}

#[test]
fn an_interaction_is_charged_once_by_whoever_sees_what_it_used_first() {
    let done = r#"{"id":"v1_1","status":"completed","model":"gpt-4o",
                   "usage":{"total_input_tokens":10,"total_output_tokens":10,"total_tokens":20}}"#;
    let pending = r#"{"id":"v1_1","status":"in_progress","model":"gpt-4o"}"#;
    for (answer, spent) in [(pending, ["0", "0.02", "0.02"]), (done, ["0.02", "0.02", "0.02"])] {
        let mut gateway = Gateway::new(&json!([month("9")]), &json!({}));
        let mut first = gateway.exchange();
        gateway.head(&mut first, &[(":method", "POST"), (":path", "/v1beta/interactions")], false);
        gateway.body(&mut first, r#"{"model":"gpt-4o","input":"a"}"#, true);
        gateway.end(first, Some(answer), "via_upstream");
        assert_eq!(gateway.standing("sales"), (spent[0].into(), "0".into()));
        for spent in &spent[1..] {
            let mut poll = gateway.exchange();
            gateway.head(&mut poll, &[(":method", "GET"), (":path", "/v1beta/interactions/v1_1")], true);
            gateway.end(poll, Some(done), "via_upstream");
            assert_eq!(gateway.standing("sales"), ((*spent).into(), "0".into()), "{answer}");
        }
    }
}

#[test]
fn a_call_that_only_its_answer_proves_to_be_one_is_charged() {
    let mut gateway = Gateway::new(&json!([month("1")]), &json!({}));
    let mut exchange = gateway.exchange();
    let guess = [(":method", "POST"), (":path", "/ask"), ("content-type", "application/json")];
    gateway.head(&mut exchange, &guess, false);
    let answer = r#"{"model":"gpt-4o","usage":{"prompt_tokens":10,"completion_tokens":10}}"#;
    gateway.end(exchange, Some(answer), "via_upstream");
    assert_eq!(gateway.standing("sales"), ("0.02".into(), "0".into()));
}

#[test]
fn an_answer_that_comes_before_the_request_was_judged_lets_nothing_of_it_pass() {
    let mut gateway = Gateway::new(&json!([month("1")]), &json!({}));
    let mut exchange = gateway.exchange();
    gateway.head(&mut exchange, &CHAT, false);
    gateway.body(&mut exchange, r#"{"model":"gpt-4o","#, false);
    let reply = headers(&[(":status", "200"), ("content-type", "application/json")], &[]);
    gateway.on(&mut exchange, Event::ResponseHeaders { headers: &reply, end_of_stream: false });
    for (chunk, end_of_stream) in [(r#""max_tokens":9"#, false), ("}", true)] {
        assert_eq!(gateway.body(&mut exchange, chunk, end_of_stream).body.as_deref(), Some(&b""[..]));
    }
    let chunk = br#"{"model":"gpt-4o","usage":{"prompt_tokens":10,"completion_tokens":10}}"#;
    gateway.on(&mut exchange, Event::ResponseBody { chunk, end_of_stream: true });
    gateway.end(exchange, None, "via_upstream");
    assert_eq!(gateway.standing("sales"), ("0.02".into(), "0".into()), "what it cost counts all the same");
}

#[test]
fn a_websocket_under_a_budget_passes_as_it_is() {
    let mut gateway = Gateway::new(&json!([month("1")]), &json!({}));
    let mut exchange = gateway.exchange();
    let realtime =
        [(":method", "GET"), (":path", "/v1/realtime"), (":authority", "api.openai.com"), ("upgrade", "websocket")];
    assert_eq!(gateway.head(&mut exchange, &realtime, false).reply, None);
    assert!(!exchange.reads_request_body());
    assert_eq!(gateway.body(&mut exchange, "frame", false).body, None);
    gateway.end(exchange, None, "via_upstream");
    assert_eq!(gateway.standing("sales"), ("0".into(), "0".into()));
}

#[test]
fn a_path_that_cannot_be_metered_costs_the_budget_nothing_that_its_record_does_not_say() {
    let mut gateway = Gateway::new(&json!([month("1000")]), &json!({}));
    let mut exchange = gateway.exchange();
    gateway.head(
        &mut exchange,
        &[(":method", "POST"), (":path", "/v1/files"), (":authority", "api.openai.com")],
        false,
    );
    gateway.body(&mut exchange, "a file", true);
    let record = gateway.end(exchange, Some(r#"{"id":"file-1"}"#), "via_upstream");
    assert_eq!((record.cost_picousd, gateway.standing("sales").0.as_str()), (None, "0"));
}

#[test]
fn a_reply_that_cannot_be_read_costs_its_bound_in_ledger_and_record_alike() {
    let mut gateway = Gateway::new(&json!([month("1")]), &json!({}));
    let mut exchange = gateway.exchange();
    gateway.head(&mut exchange, &CHAT, false);
    gateway.body(&mut exchange, r#"{"model":"gpt-4o","max_tokens":10}"#, true);
    let reply = headers(&[(":status", "200"), ("content-type", "application/json"), ("content-encoding", "br")], &[]);
    gateway.on(&mut exchange, Event::ResponseHeaders { headers: &reply, end_of_stream: false });
    gateway.on(&mut exchange, Event::ResponseBody { chunk: b"\x8b", end_of_stream: true });
    let record = gateway.end(exchange, None, "via_upstream");
    let cost = record.cost_usd.unwrap();
    assert_eq!(gateway.standing("sales").0, cost.as_str());
    assert_eq!(
        (record.price_status, record.notes.last().map(|n| &**n)),
        (Some(PriceStatus::Estimated), Some("bound_charged"))
    );
    let pico = record.cost_picousd.unwrap();
    assert_eq!(pico % 1000, 0, "no part of it is below what the metric counts in");
    let stat = "tollgate_cost_usd_nanos_total.department.sales.model.gpt-4o";
    assert_eq!(gateway.host.counter(stat), u64::try_from(pico / 1000).unwrap());
}

#[test]
fn a_body_that_hides_what_it_says_is_refused_or_read_all_the_same() {
    let mut gateway = Gateway::new(&json!([month("1")]), &json!({}));
    let mut exchange = gateway.exchange();
    let encoded = [CHAT[0], CHAT[1], ("content-encoding", "gzip")];
    assert_eq!(gateway.head(&mut exchange, &encoded, false).reply.unwrap().status, 415);
    let mut exchange = gateway.exchange();
    let form = [CHAT[0], CHAT[1], ("content-type", "multipart/form-data; boundary=x")];
    assert_eq!(gateway.head(&mut exchange, &form, false).reply, None);
    gateway.body(&mut exchange, r#"{"model":"gpt-4o","max_tokens":10}"#, true);
    assert_eq!(gateway.standing("sales").1, "0.019", "9 tokens of 34 bytes, and 10");
}

#[test]
fn a_path_spelt_otherwise_is_the_same_path() {
    for path in ["/v1/chat/completions//", "/v1//chat/completions", "/v1/Chat/Completions", "/v1/chat%2Fcompletions"] {
        let mut gateway = Gateway::new(&json!([month("1")]), &json!({}));
        let mut exchange = gateway.exchange();
        gateway.head(&mut exchange, &[(":method", "POST"), (":path", path)], false);
        gateway.body(&mut exchange, r#"{"model":"gpt-4o","max_tokens":10}"#, true);
        assert_ne!(gateway.standing("sales").1, "0", "{path}");
    }
}

#[test]
fn what_a_request_says_of_its_size_cannot_be_talked_down() {
    for (body, at_least) in [
        (r#"{"model":"gpt-4o","max_completion_tokens":500,"max_tokens":1}"#.to_owned(), 0.5),
        (r#"{"model":"gpt-4o","max_tokens":500,"max_tokens":1}"#.to_owned(), 0.5),
        (r#"{"model":"gpt-4o","max_tokens":0}"#.to_owned(), 4.0),
        (format!(r#"{{"model":"gpt-4o","max_tokens":1,"messages":"{}"}}"#, "x".repeat(400_000)), 99.0),
    ] {
        let mut gateway = Gateway::new(&json!([month("1000")]), &json!({}));
        let mut exchange = gateway.exchange();
        gateway.head(&mut exchange, &CHAT, false);
        gateway.body(&mut exchange, &body, true);
        let held: f64 = gateway.standing("sales").1.parse().unwrap();
        assert!(held >= at_least, "{held} for {} bytes", body.len());
    }
}

#[test]
fn a_call_holds_what_it_costs_at_the_speed_and_in_the_place_it_asks_for() {
    let prices = json!({"models": [{"model": "claude", "rates": {"input": "0", "output": "1000"},
                                    "multipliers": {"speed": {"fast": "6"}, "geo": {"us": "1.5"}}}]});
    for (asked, held) in [
        ("", "0.01"),
        (r#""speed":"standard","#, "0.01"),
        (r#""speed":"fast","#, "0.06"),
        (r#""inference_geo":"us","#, "0.015"),
        (r#""speed":"fast","inference_geo":"us","#, "0.09"),
    ] {
        let mut gateway = Gateway::new(&json!([month("1")]), &json!({ "prices": prices }));
        let mut exchange = gateway.exchange();
        gateway.head(&mut exchange, &[(":method", "POST"), (":path", "/v1/messages"), CHAT[1]], false);
        gateway.body(&mut exchange, &format!(r#"{{{asked}"model":"claude","max_tokens":10}}"#), true);
        assert_eq!(gateway.standing("sales").1, held, "{asked}");
    }
}

#[test]
fn the_admin_tokens_request_does_not_go_on_while_its_body_is_read() {
    let admin = json!({"token_sha256": "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b"});
    let mut gateway = Gateway::new(&json!([month("1")]), &json!({"admin": admin}));
    let mut exchange = gateway.exchange();
    let order = [(":method", "POST"), (":path", "/.tollgate/budgets/month/reset"), ("authorization", "Bearer secret")];
    assert!(gateway.head(&mut exchange, &order, false).pause);
    let part = gateway.body(&mut exchange, r#"{"scope":{"department":"sales"},"#, false);
    assert!(part.pause && part.body.as_deref() == Some(b""));
    assert_eq!(gateway.body(&mut exchange, r#""reason":"test"}"#, true).reply.unwrap().status, 200);
}

#[test]
fn an_asked_for_model_cannot_smuggle_a_header() {
    let mut budget = month("0.01");
    budget["on_exceeded"] = json!("downgrade");
    budget["hard_limit_usd"] = json!("1");
    let more = json!({"downgrades": [{"from": "gpt-4o*", "to": "gpt-4o-mini"}], "prices": {"models": [
        {"model": "gpt-4o", "aliases": ["gpt-4o*"], "rates": {"input": "1000", "output": "1000"}},
        {"model": "gpt-4o-mini", "rates": {"input": "10", "output": "10"}}]}});
    let mut gateway = Gateway::new(&json!([budget]), &more);
    let mut exchange = gateway.exchange();
    gateway.head(&mut exchange, &CHAT, false);
    assert_eq!(
        gateway.body(&mut exchange, r#"{"model":"gpt-4o\r\nset-cookie: a=b","max_tokens":10}"#, true).reply,
        None
    );
    let reply = headers(&[(":status", "200"), ("content-type", "application/json")], &[]);
    let edits = gateway.on(&mut exchange, Event::ResponseHeaders { headers: &reply, end_of_stream: true }).edits;
    let asked = Edit::Set("x-cost-requested-model", "gpt-4o??set-cookie: a=b".into());
    assert!(edits.contains(&asked), "{edits:?}");
}
