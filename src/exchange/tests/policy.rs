//! Paths nobody knows, models without a price, and requests that never arrived whole.

use super::*;
use crate::reply::LocalReply;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

impl Bench {
    /// A POST of JSON to a path that says nothing.
    fn post(&mut self, host: &str, content_type: &str) -> Verdict {
        let pairs = [
            (":method", "POST"),
            (":path", "/ask"),
            (":authority", host),
            ("content-type", content_type),
            ("x-cost-team", "a"),
        ];
        self.verdict(Event::RequestHeaders {
            headers: &headers(&pairs, &[]),
            route: Route::default(),
            end_of_stream: false,
        })
    }

    fn end(&mut self) -> Option<&UsageRecord> {
        self.on(Event::Log(Ending { code_details: Some("via_upstream"), ..Ending::default() }));
        self.host.records.first()
    }
}

/// A configuration that differs from the tests' by one section.
fn config(sections: &str) -> String {
    CONFIG.replacen(r#""metering": {"inject_include_usage": false}"#, sections, 1)
}

#[test]
fn an_answer_with_usage_of_any_shape_makes_a_call_of_a_path_nobody_knows() {
    for (body, content_type, counts) in [
        (REPLY, "application/json", Some((1000, 500))),
        (
            r#"{"type":"message","model":"gpt-4o","usage":{"input_tokens":5,"cache_read_input_tokens":7,"output_tokens":2}}"#,
            "application/json",
            Some((12, 2)),
        ),
        (
            r#"{"object":"response","model":"gpt-4o","usage":{"input_tokens":9,"input_tokens_details":{"cached_tokens":7},"output_tokens":2}}"#,
            "application/json",
            Some((9, 2)),
        ),
        (
            r#"[{"modelVersion":"gpt-4o","usageMetadata":{"promptTokenCount":4,"candidatesTokenCount":1,"thoughtsTokenCount":3}}]"#,
            "application/json",
            Some((4, 4)),
        ),
        (
            r#"{"modelVersion":"gpt-4o","usageMetadata":{"promptTokenCount":4,"candidatesTokenCount":1,"thoughtsTokenCount":3}}"#,
            "application/json",
            Some((4, 4)),
        ),
        (
            r#"{"usage":{"inputTokens":4,"cacheReadInputTokens":6,"outputTokens":1,"totalTokens":11}}"#,
            "application/json; charset=utf-8",
            Some((10, 1)),
        ),
        (
            "data: {\"model\":\"gpt-4o\",\"usage\":null}\n\ndata: {\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":4}}\n\n",
            "text/event-stream",
            Some((3, 4)),
        ),
        (
            "data: {\"type\":\"message_start\",\"message\":{\"model\":\"m\",\"usage\":{\"input_tokens\":3,\"cache_read_input_tokens\":2}}}\n\ndata: {\"usage\":{\"output_tokens\":4}}\n\n",
            "text/event-stream",
            Some((5, 4)),
        ),
        (
            "{\"done\":false}\n{\"done\":true,\"prompt_eval_count\":8,\"eval_count\":9}\n",
            "application/x-ndjson",
            Some((8, 9)),
        ),
        (r#"{"usage":{"cpu":4},"id":"job-1","model":"T-800"}"#, "application/json", None),
        (r#"{"usage":{"prompt_tokens":3,"completion_tokens":4}}"#, "text/html", None),
    ] {
        let mut bench = Bench::new();
        assert_eq!(bench.post("internal", "application/json").edits, [Edit::Remove("x-cost-team".into())]);
        assert!(!bench.exchange.reads_request_body(), "a guess is not worth reading a request for");
        assert_eq!(bench.reply_headers("200", content_type, false), [], "nothing is changed on a guess");
        bench.on(Event::ResponseBody { chunk: body.as_bytes(), end_of_stream: true });
        let record = bench.end();
        let found = record.map(|record| (record.input_tokens.unwrap(), record.output_tokens.unwrap()));
        assert_eq!(found, counts, "{body}");
        if let Some(record) = record {
            assert_eq!((&*record.api, record.team.as_deref()), ("unrecognised", Some("a")));
        }
    }
}

#[test]
fn what_no_host_tells_is_told_by_its_answer_under_every_policy_but_allow() {
    for (policy, records) in [("record", 1), ("reject", 1), ("allow", 0)] {
        let mut bench = Bench::with(&config(&format!(r#""metering": {{"on_unmetered": "{policy}"}}"#)));
        let verdict = bench.post("internal", "application/json");
        assert_eq!(verdict.reply, None, "{policy}: it may be no LLM call");
        bench.reply("200", REPLY);
        let record = bench.end();
        assert_eq!(record.iter().len(), records, "{policy}");
        if let Some(record) = record {
            assert_eq!((record.input_tokens, record.decision), (Some(1000), Decision::Allowed), "{policy}");
        }
    }
}

#[test]
fn a_path_of_an_llm_host_that_cannot_be_metered_is_recorded_passed_or_refused_as_policy_says() {
    let upstream = r#", "upstreams": [{"match": {"host": "llm.internal"}, "provider": "openai"}]"#;
    for (policy, host, records, status) in [
        ("record", "api.openai.com", 1, None),
        ("record", "llm.internal", 1, None),
        ("record", "internal", 0, None),
        ("allow", "api.openai.com", 0, None),
        ("reject", "api.openai.com", 1, Some(403)),
        ("reject", "llm.internal:8080", 0, None),
        ("reject", "llm.internal", 1, Some(403)),
        ("reject", "internal", 0, None),
    ] {
        let mut bench = Bench::with(&config(&format!(r#""metering": {{"on_unmetered": "{policy}"}}{upstream}"#)));
        let reply = bench.post(host, "application/octet-stream").reply;
        assert_eq!(reply.map(|reply| reply.status), status, "{policy} {host}");
        if status.is_none() {
            bench.on(Event::RequestBody { chunk: b"\0\0", end_of_stream: true });
            bench.reply("200", r#"{"text":"hello"}"#);
        }
        let record = bench.end().cloned();
        assert_eq!(record.iter().len(), records, "{policy} {host}");
        if let Some(record) = record {
            assert_eq!((record.usage_source, record.cost_picousd), (UsageSource::None, status.map(|_| 0)));
            assert_eq!(record.notes.contains(&"unmetered".into()), status.is_none(), "{:?}", record.notes);
            assert_eq!(record.provider.as_deref(), Some("openai"));
        }
    }
}

#[test]
fn a_websocket_of_an_llm_host_is_recorded_and_its_plain_reads_are_not() {
    for (method, upgrade, records) in [("GET", "websocket", 1), ("GET", "", 0), ("DELETE", "", 0)] {
        let mut bench = Bench::new();
        let pairs =
            [(":method", method), (":path", "/v1/realtime"), (":authority", "api.openai.com"), ("upgrade", upgrade)];
        let event =
            Event::RequestHeaders { headers: &headers(&pairs, &[]), route: Route::default(), end_of_stream: true };
        bench.verdict(event);
        bench.reply_headers("101", "", false);
        let record = bench.end();
        assert_eq!(record.iter().len(), records, "{method} {upgrade}");
        if let Some(record) = record {
            assert_eq!((record.price_status, record.cost_picousd), (None, None), "what passes unseen is not free");
            assert_eq!(record.notes, ["unmetered".into()]);
        }
    }
}

fn refusal(reply: Option<LocalReply>) -> Option<(u16, String)> {
    reply.map(|reply| (reply.status, reply.body))
}

#[test]
fn a_model_without_a_price_is_refused_before_the_provider_sees_anything_where_policy_says_so() {
    let config = CONFIG.replacen(r#""version": "v1","#, r#""version": "v1", "on_unknown_model": "reject","#, 1);
    for (body, model) in [
        (r#"{"messages":[1,2,3],"model":"gpt-4o"}"#, Some("gpt-4o")),
        (r#"{"messages":[1,2,3],"model":"acme-9b"}"#, None),
        (r#"{"messages":[1,2,3]}"#, None),
        ("{\"model\":\"gpt-4o\"", Some("gpt-4o")),
    ] {
        let mut bench = Bench::with(&config);
        bench.request_headers(&[], false);
        let mut sent = Vec::new();
        let (first, second) = body.as_bytes().split_at(7);
        let event = Event::RequestBody { chunk: first, end_of_stream: false };
        sent.extend(bench.verdict(event).body.expect("nothing goes on yet"));
        assert!(sent.is_empty());
        let last = bench.verdict(Event::RequestBody { chunk: second, end_of_stream: true });
        let refused = refusal(last.reply);
        assert_eq!(refused.is_some(), model.is_none(), "{body}: {refused:?}");
        if let Some((status, text)) = refused {
            assert_eq!(status, 400);
            assert!(text.contains("unknown_model"), "{text}");
            let record = bench.end().unwrap();
            assert_eq!((record.decision, record.price_status), (Decision::Refused, Some(PriceStatus::Free)));
        } else {
            assert_eq!(last.body.as_deref(), Some(body.as_bytes()), "all of it, at its end");
        }
    }
}

#[test]
fn a_model_in_the_path_is_judged_at_once_and_what_is_free_is_not_judged() {
    let config = CONFIG.replacen(r#""version": "v1","#, r#""version": "v1", "on_unknown_model": "reject","#, 1);
    for (method, path, refused) in [
        ("POST", "/v1/models/acme:generateContent", true),
        ("POST", "/v1/models/gpt-4o:generateContent", false),
        ("POST", "/openai/deployments/acme/chat/completions", true),
        ("POST", "/v1/messages/count_tokens", false),
        ("GET", "/v1/responses/resp_1", false),
        ("GET", "/v1/models", false),
    ] {
        let mut bench = Bench::with(&config);
        let headers = headers(&[(":method", method), (":path", path)], &[]);
        let end_of_stream = method == "GET";
        let event = Event::RequestHeaders { headers: &headers, route: Route::default(), end_of_stream };
        assert_eq!(bench.verdict(event).reply.is_some(), refused, "{path}");
    }
}

#[test]
fn what_cannot_be_judged_is_refused_where_policy_must_judge() {
    let config = CONFIG
        .replacen(r#""version": "v1","#, r#""version": "v1", "on_unknown_model": "reject","#, 1)
        .replacen(r#""metering": {"#, r#""metering": {"max_request_bytes": 1024, "#, 1);
    // Longer than may be withheld, announced or not.
    let mut bench = Bench::with(&config);
    let announced = headers(&[(":method", "POST"), (":path", "/v1/completions"), ("content-length", "2000")], &[]);
    let event = Event::RequestHeaders { headers: &announced, route: Route::default(), end_of_stream: false };
    assert_eq!(refusal(bench.verdict(event).reply).unwrap().0, 413);
    let mut bench = Bench::with(&config);
    bench.request_headers(&[], false);
    let event = Event::RequestBody { chunk: &[b' '; 2000], end_of_stream: false };
    assert_eq!(refusal(bench.verdict(event).reply).unwrap().0, 413);
    // Trailers come after the last moment at which a body can be sent on.
    let mut bench = Bench::with(&config);
    bench.request_headers(&[], false);
    bench.verdict(Event::RequestBody { chunk: br#"{"model":"gpt-4o"}"#, end_of_stream: false });
    assert_eq!(refusal(bench.verdict(Event::RequestTrailers).reply).unwrap().0, 400);
    assert_eq!(bench.end().unwrap().error.as_deref(), Some("request_trailers"));
}

#[test]
fn a_model_without_a_price_may_be_priced_as_the_dearest_and_the_record_says_so() {
    let config = CONFIG.replacen(r#""version": "v1","#, r#""version": "v1", "on_unknown_model": "assume_highest","#, 1);
    let mut bench = Bench::with(&config);
    bench.request(&[], r#"{"model":"acme-9b"}"#);
    bench.reply("200", r#"{"model":"acme-9b","usage":{"prompt_tokens":1000,"completion_tokens":100}}"#);
    let record = bench.log("via_upstream");
    assert_eq!(record.priced_model.as_deref(), Some("gpt-4o"));
    assert_eq!(record.priced_by.as_deref(), Some("assumed_highest"));
    assert_eq!((record.price_status, record.cost_picousd), (Some(PriceStatus::Estimated), Some(3_500_000_000)));
    assert_eq!(record.provider, None, "nobody knows who bills it");
}

#[test]
fn a_request_that_never_arrived_whole_costs_nothing() {
    let mut bench = Bench::new();
    bench.request_headers(&[], false);
    bench.on(Event::RequestBody { chunk: br#"{"model":"gpt-4o","messages":["#, end_of_stream: false });
    let record = bench.log("downstream_remote_disconnect");
    assert_eq!((record.end_reason, record.price_status), (EndReason::ClientAbort, Some(PriceStatus::Free)));
    assert_eq!((record.usage_source, record.cost_picousd), (UsageSource::None, Some(0)));
}

#[test]
fn a_total_by_itself_is_no_usage_to_price() {
    for (path, body) in [
        ("/v1/models/gpt-4o:generateContent", r#"{"usageMetadata":{"totalTokenCount":50}}"#),
        ("/model/gpt-4o/converse", r#"{"usage":{"totalTokens":50}}"#),
    ] {
        let mut bench = Bench::new();
        let headers = headers(&[(":method", "POST"), (":path", path)], &[]);
        bench.on(Event::RequestHeaders { headers: &headers, route: Route::default(), end_of_stream: false });
        bench.on(Event::RequestBody { chunk: &[b'x'; 400], end_of_stream: true });
        bench.reply("200", body);
        let record = bench.log("via_upstream");
        assert_eq!((record.usage_source, record.price_status), (UsageSource::Estimated, Some(PriceStatus::Estimated)));
        assert_eq!((record.input_tokens, record.total_tokens), (Some(100), Some(50)), "{path}");
        assert_ne!(record.cost_picousd, Some(0), "{path}");
    }
}

#[test]
fn the_price_says_which_name_led_to_it_and_where_the_call_was_served() {
    let config = r#"{"prices": {"models": [
        {"provider": "openai", "model": "gpt-4o", "rates": {"input": "2.50", "output": "10"},
         "multipliers": {"region": {"eu": "1.1"}}, "service_tiers": {"batch": {"multiplier": "0.5"}}}]},
        "upstreams": [{"match": {"host": "eu.internal"}, "region": "EU", "price_multiplier": "0.9"}]}"#;
    for (host, answered, tier, by, region, cost) in [
        ("api.openai.com", r#""gpt-4o""#, "default", "response_model", None, 2_500_000_000),
        ("api.openai.com", r#""gpt-4o-2024-08-06""#, "default", "response_model_alias", None, 2_500_000_000),
        ("api.openai.com", "null", "default", "request_model", None, 2_500_000_000),
        ("eu.api.openai.com", r#""gpt-4o""#, "default", "response_model", Some("eu"), 2_750_000_000),
        ("eu.api.openai.com", r#""gpt-4o""#, "batch", "response_model", Some("eu"), 1_375_000_000),
        ("eu.internal", r#""gpt-4o""#, "default", "response_model", Some("eu"), 2_475_000_000),
    ] {
        let mut bench = Bench::with(config);
        bench.request(&[(":authority", host.as_bytes())], r#"{"model":"gpt-4o"}"#);
        let usage = r#"{"prompt_tokens":1000,"completion_tokens":0}"#;
        bench.reply("200", &format!(r#"{{"model":{answered},"service_tier":"{tier}","usage":{usage}}}"#));
        let record = bench.log("via_upstream");
        assert_eq!((record.priced_by.as_deref(), record.region.as_deref()), (Some(by), region), "{host} {answered}");
        assert_eq!(record.cost_picousd, Some(cost), "{host} {answered} {tier}");
    }
}
