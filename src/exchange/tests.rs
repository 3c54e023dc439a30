use super::*;
use crate::memory::MemoryHost;
use crate::record::{Decision, EndReason, PriceStatus, UsageRecord, UsageSource};
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

mod access_log;
mod attribution;
mod between;
mod budgets;
mod bypass;
mod costs;
mod held;
mod metering;
mod policy;

const CONFIG: &str = r#"{"prices": {"version": "v1", "models": [
    {"provider": "openai", "model": "gpt-4o", "aliases": ["gpt-4o-2024-*"],
     "rates": {"input": "2.50", "cached_input": "1.25", "output": "10.00"}},
    {"model": "free", "rates": {"input": "0"}}]},
    "metering": {"inject_include_usage": false}}"#;

const REPLY: &str = r#"{"id":"chatcmpl-1","model":"gpt-4o-2024-08-06","service_tier":"default",
    "choices":[{"index":0,"message":{"content":"hi"},"finish_reason":"stop"}],
    "usage":{"prompt_tokens":1000,"completion_tokens":500,"total_tokens":1500,
             "prompt_tokens_details":{"cached_tokens":200}}}"#;

/// A host, a VM and one exchange.
struct Bench {
    host: MemoryHost,
    instance: Instance,
    exchange: Exchange,
}

impl Bench {
    fn new() -> Bench {
        Bench::with(CONFIG)
    }

    fn with(config: &str) -> Bench {
        let config = Config::from_bytes(config.as_bytes()).unwrap();
        let mut host = MemoryHost::default();
        let instance = Instance::register(&mut host, Some("gateway-1".into()));
        Bench { host, instance, exchange: Exchange::new(Rc::new(config)) }
    }

    fn on(&mut self, event: Event<'_>) -> Vec<Edit> {
        self.host.now_ns += 5_000_000;
        self.verdict(event).edits
    }

    fn verdict(&mut self, event: Event<'_>) -> Verdict {
        self.exchange.on(event, &mut Context { host: &mut self.host, instance: &mut self.instance })
    }

    fn request_headers(&mut self, more: &[(&str, &[u8])], end_of_stream: bool) -> Vec<Edit> {
        let headers = headers(&[(":method", "POST"), (":path", "/v1/chat/completions")], more);
        self.on(Event::RequestHeaders { headers: &headers, route: Route::default(), end_of_stream })
    }

    fn request(&mut self, more: &[(&str, &[u8])], body: &str) -> Vec<Edit> {
        let edits = self.request_headers(more, false);
        self.on(Event::RequestBody { chunk: body.as_bytes(), end_of_stream: true });
        edits
    }

    fn reply_headers(&mut self, status: &str, content_type: &str, end_of_stream: bool) -> Vec<Edit> {
        let headers = headers(&[(":status", status), ("content-type", content_type)], &[]);
        self.on(Event::ResponseHeaders { headers: &headers, end_of_stream })
    }

    fn reply(&mut self, status: &str, body: &str) {
        self.reply_headers(status, "application/json", false);
        self.on(Event::ResponseBody { chunk: body.as_bytes(), end_of_stream: true });
    }

    fn log(&mut self, code_details: &str) -> UsageRecord {
        self.on(Event::Log(Ending { code_details: Some(code_details), ..Ending::default() }));
        assert_eq!(self.host.records.len(), 1);
        self.host.records[0].clone()
    }
}

fn headers<'a>(pairs: &[(&'a str, &'a str)], more: &[(&'a str, &'a [u8])]) -> Headers<'a> {
    let pairs = pairs.iter().map(|&(name, value)| (name.as_bytes(), value.as_bytes()));
    pairs.chain(more.iter().map(|&(name, value)| (name.as_bytes(), value))).collect()
}

#[test]
fn a_call_becomes_one_attributed_priced_record() {
    let mut bench = Bench::new();
    let attribution: &[(&str, &[u8])] = &[
        ("x-cost-department", b"sales"),
        ("x-cost-tag-customer", b"acme"),
        ("x-request-id", b"r-1"),
        ("x-stainless-retry-count", b"2"),
        ("traceparent", b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
    ];
    bench.request(attribution, r#"{"model":"gpt-4o","messages":[{},{}],"tools":[{}],"max_tokens":64,"stream":false}"#);
    bench.reply("200", REPLY);
    let record = bench.log("via_upstream");

    assert_eq!(record.department.as_deref(), Some("sales"));
    assert_eq!(record.tags.get("customer").map(|value| &**value), Some("acme"));
    assert_eq!(record.attribution_source.get("tags.customer").map(|value| &**value), Some("header"));
    assert_eq!(record.request_id.as_deref(), Some("r-1"));
    assert_eq!(record.trace_id.as_deref(), Some("4bf92f3577b34da6a3ce929d0e0e4736"));
    assert_eq!(record.client_retry, Some(2));
    assert_eq!((record.message_count, record.tool_count, record.max_output_tokens), (Some(2), Some(1), Some(64)));
    assert_eq!(record.request_model.as_deref(), Some("gpt-4o"));
    assert_eq!(record.response_model.as_deref(), Some("gpt-4o-2024-08-06"));
    assert_eq!(record.priced_model.as_deref(), Some("gpt-4o"));
    assert_eq!(record.provider.as_deref(), Some("openai"));
    assert_eq!(
        (record.input_tokens, record.cached_input_tokens, record.output_tokens),
        (Some(1000), Some(200), Some(500))
    );
    assert_eq!(record.reasoning_tokens, None, "nobody reported it");
    assert_eq!(record.cost_picousd, Some(7_250_000_000));
    assert_eq!(record.charges.iter().map(|charge| charge.cost_picousd).sum::<i128>(), 7_250_000_000);
    assert_eq!((record.price_status, record.end_reason), (Some(PriceStatus::Priced), EndReason::Complete));
    assert_eq!((record.seq, record.status, record.stream), (Some(1), Some(200), Some(false)));
    assert_eq!(record.ttft_ms, None, "it was not streamed");
    assert_eq!(bench.host.counter("tollgate_cost_usd_nanos_total.department.sales.model.gpt-4o"), 7_250_000);
    assert_eq!(bench.host.counter("tollgate_tokens_total.class.cached_input"), 200);
    assert_eq!(bench.host.counter("tollgate_calls_total.decision.allowed.api.openai_chat"), 1);
}

#[test]
fn attribution_headers_do_not_reach_the_provider() {
    for (path, method) in [("/v1/chat/completions", "POST"), ("/v1/models", "GET"), ("/index.html", "GET")] {
        let mut bench = Bench::new();
        let headers = headers(
            &[(":method", method), (":path", path), ("x-cost-team", "a"), ("x-cost-anything", "b"), ("x-costume", "c")],
            &[("x-cost-team", b"twice")],
        );
        let edits = bench.on(Event::RequestHeaders { headers: &headers, route: Route::default(), end_of_stream: true });
        assert_eq!(edits, [Edit::Remove("x-cost-team".into()), Edit::Remove("x-cost-anything".into())], "{path}");
    }
    let mut bench =
        Bench::with(r#"{"attribution":{"forward_headers":true},"metering":{"inject_include_usage":false}}"#);
    assert_eq!(bench.request(&[("x-cost-team", b"a")], "{}"), []);
}

#[test]
fn what_a_signature_covers_stays() {
    let mut bench = Bench::new();
    let authorization = b"AWS4-HMAC-SHA256 Credential=x, SignedHeaders=accept-encoding;x-cost-team, Signature=y";
    let edits = bench.request(
        &[("authorization", authorization), ("x-cost-team", b"a"), ("x-cost-user", b"u"), ("accept-encoding", b"br")],
        "{}",
    );
    assert_eq!(edits, [Edit::Remove("x-cost-user".into())]);
}

#[test]
fn the_provider_is_asked_for_an_encoding_that_can_be_read() {
    let edits = Bench::new().request(&[("accept-encoding", b"gzip, deflate, br, zstd")], "{}");
    assert_eq!(edits, [Edit::Set("accept-encoding", "gzip, deflate".into())]);
}

#[test]
fn a_request_that_is_no_llm_call_leaves_no_trace() {
    let mut bench = Bench::new();
    let request = headers(&[(":method", "GET"), (":path", "/v1/models")], &[]);
    bench.on(Event::RequestHeaders { headers: &request, route: Route::default(), end_of_stream: true });
    assert_eq!(bench.reply_headers("200", "application/json", false), []);
    assert!(!bench.exchange.reads_response_body() && !bench.exchange.is_open());
    bench.on(Event::ResponseBody { chunk: REPLY.as_bytes(), end_of_stream: true });
    bench.on(Event::Log(Ending::default()));
    assert!(bench.host.records.is_empty() && bench.host.provisional.is_empty() && bench.host.counters.is_empty());
}

#[test]
fn the_response_names_the_record() {
    let mut bench = Bench::new();
    bench.request(&[], "{}");
    let edits = bench.reply_headers("204", "", true);
    let record = bench.log("via_upstream");
    assert_eq!(edits, [Edit::Set(ID_HEADER, record.id.to_string())]);
}

/// Plays a call to some end; the last argument of `play` is the bench.
fn ending(play: impl FnOnce(&mut Bench), code_details: &str) -> UsageRecord {
    let mut bench = Bench::new();
    play(&mut bench);
    let record = bench.log(code_details);
    bench.on(Event::Log(Ending::default()));
    bench.on(Event::ResponseTrailers);
    assert_eq!(bench.host.records.len(), 1, "one record, whatever comes after");
    record
}

#[test]
fn every_end_gives_exactly_one_record_that_says_how() {
    let body = r#"{"model":"gpt-4o"}"#;
    let cut = REPLY.get(..REPLY.len() - 60).unwrap();

    let complete = ending(
        |b| {
            b.request(&[], body);
            b.reply("200", REPLY);
        },
        "via_upstream",
    );
    assert_eq!((complete.end_reason, complete.usage_source), (EndReason::Complete, UsageSource::Reported));

    let trailers = ending(
        |b| {
            b.request(&[], body);
            b.reply_headers("200", "application/json", false);
            b.on(Event::ResponseBody { chunk: REPLY.as_bytes(), end_of_stream: false });
            b.on(Event::ResponseTrailers);
        },
        "via_upstream",
    );
    assert_eq!((trailers.end_reason, trailers.cost_picousd), (EndReason::Complete, Some(7_250_000_000)));

    let left = ending(
        |b| {
            b.request(&[], body);
            b.reply_headers("200", "application/json", false);
            b.on(Event::ResponseBody { chunk: cut.as_bytes(), end_of_stream: false });
        },
        "downstream_remote_disconnect",
    );
    // 18 bytes were asked and two came back; at a quarter token each, rounded up.
    assert_eq!((left.end_reason, left.usage_source), (EndReason::ClientAbort, UsageSource::Estimated));
    assert_eq!((left.input_tokens, left.output_tokens, left.cost_picousd), (Some(5), Some(1), Some(22_500_000)));
    assert_eq!(left.price_status, Some(PriceStatus::Estimated), "the provider may well bill it: a guess, not zero");
    assert_eq!(left.error.as_deref(), Some("downstream_remote_disconnect"));

    let left_early = ending(
        |b| {
            b.request_headers(&[], false);
        },
        "downstream_remote_disconnect",
    );
    assert_eq!((left_early.end_reason, left_early.status), (EndReason::ClientAbort, None));

    let closed = ending(|b| b.request_headers(&[], false).clear(), "downstream_local_disconnect(purging_socket)");
    assert_eq!(closed.end_reason, EndReason::GatewayClosed);

    let reset = ending(
        |b| {
            b.request(&[], body);
            b.reply_headers("200", "application/json", false);
        },
        "upstream_reset_after_response_started{protocol_error}",
    );
    assert_eq!((reset.end_reason, reset.usage_source), (EndReason::UpstreamReset, UsageSource::Estimated));

    let no_route = ending(
        |b| {
            b.request(&[], body);
            b.reply("404", "");
        },
        "route_not_found",
    );
    assert_eq!((no_route.end_reason, no_route.price_status), (EndReason::LocalReply, Some(PriceStatus::Free)));

    let timeout = ending(
        |b| {
            b.request(&[], body);
            b.reply("504", "upstream request timeout");
        },
        "response_timeout",
    );
    assert_eq!((timeout.end_reason, timeout.price_status), (EndReason::Timeout, Some(PriceStatus::Estimated)));

    let refused = ending(
        |b| {
            b.request(&[], body);
            b.reply("429", r#"{"error":{"message":"slow down","type":"requests","code":"rate_limit_exceeded"}}"#);
        },
        "via_upstream",
    );
    assert_eq!((refused.price_status, refused.cost_picousd), (Some(PriceStatus::Free), Some(0)));
    assert_eq!((refused.error.as_deref(), refused.status), (Some("rate_limit_exceeded"), Some(429)));

    let early = ending(
        |b| {
            b.request_headers(&[], false);
            b.on(Event::RequestBody { chunk: br#"{"model":"gpt-4o","mess"#, end_of_stream: false });
            b.reply("413", "too large");
            b.on(Event::RequestBody { chunk: b"more", end_of_stream: true });
        },
        "via_upstream",
    );
    assert_eq!((early.request_model.as_deref(), early.status), (Some("gpt-4o"), Some(413)));

    let bodiless = ending(
        |b| {
            b.request_headers(&[], true);
            b.reply_headers("204", "", true);
        },
        "via_upstream",
    );
    assert_eq!((bodiless.end_reason, bodiless.usage_source), (EndReason::Complete, UsageSource::None));

    let request_trailers = ending(
        |b| {
            b.request_headers(&[], false);
            b.on(Event::RequestBody { chunk: body.as_bytes(), end_of_stream: false });
            b.on(Event::RequestTrailers);
            b.reply("200", REPLY);
        },
        "via_upstream",
    );
    assert_eq!(request_trailers.request_model.as_deref(), Some("gpt-4o"));

    let silent_host = ending(
        |b| {
            b.request(&[], body);
            b.reply("200", REPLY);
        },
        "",
    );
    assert_eq!(silent_host.end_reason, EndReason::Complete);
}

#[test]
fn a_client_that_closes_a_finished_stream_has_not_aborted_it() {
    let usage = r#"data: {"model":"gpt-4o","usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}"#;
    for (events, end_reason) in [
        (format!("{usage}\n\ndata: [DONE]\n\n"), EndReason::Complete),
        (format!("{usage}\n\n"), EndReason::ClientAbort),
        (format!("{usage}\n\ndata: [DONE"), EndReason::ClientAbort),
        (format!("{usage}\n\ndata: [DONE]]\n\n"), EndReason::ClientAbort),
    ] {
        for size in [1, 5, 1000] {
            let record = ending(
                |b| {
                    b.request(&[], "{}");
                    b.reply_headers("200", "text/event-stream", false);
                    for chunk in events.as_bytes().chunks(size) {
                        b.on(Event::ResponseBody { chunk, end_of_stream: false });
                    }
                },
                "downstream_remote_disconnect",
            );
            assert_eq!((record.end_reason, record.total_tokens), (end_reason, Some(2)), "{events:?} by {size}");
            assert_eq!(record.stream, Some(true));
            assert!(record.ttft_ms.is_some());
        }
    }
}

#[test]
fn a_filter_that_refused_before_this_one_still_leaves_a_record() {
    let mut bench = Bench::new();
    let request = headers(&[(":method", "POST"), (":path", "/v1/chat/completions"), ("x-cost-team", "a")], &[]);
    assert!(bench.exchange.is_idle());
    bench.on(Event::Log(Ending {
        code_details: Some("rbac_access_denied_matched_policy[none]"),
        status: Some(403),
        request_headers: Some(&request),
        ..Ending::default()
    }));
    let record = &bench.host.records[0];
    assert_eq!((record.end_reason, record.status), (EndReason::LocalReply, Some(403)));
    assert_eq!((record.team.as_deref(), record.price_status), (Some("a"), Some(PriceStatus::Free)));
}

#[test]
fn a_provisional_record_stands_from_the_first_moment_on() {
    let mut bench = Bench::new();
    bench.request_headers(&[("x-cost-team", b"a")], false);
    let first = bench.host.provisional[0].clone();
    assert_eq!((first.end_reason, first.seq, first.team.as_deref()), (EndReason::Provisional, None, Some("a")));
    bench.on(Event::RequestBody { chunk: br#"{"model":"gpt-4o"}"#, end_of_stream: true });
    let second = bench.host.provisional[1].clone();
    assert_eq!((second.id, second.request_model.as_deref()), (first.id.clone(), Some("gpt-4o")));
    bench.reply("200", REPLY);
    assert_eq!(bench.log("via_upstream").id, first.id);
}

#[test]
fn a_model_without_a_price_is_never_free() {
    for (model, status) in [("nobody-knows", PriceStatus::UnknownModel), ("free", PriceStatus::Unpriced)] {
        let mut bench = Bench::new();
        bench.request(&[], &format!(r#"{{"model":"{model}"}}"#));
        bench.reply("200", r#"{"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}"#);
        let record = bench.log("via_upstream");
        assert_eq!((record.price_status, record.cost_picousd, record.input_tokens), (Some(status), None, Some(1)));
        assert!(bench.host.log[0].contains(model), "{:?}", bench.host.log);
    }
}

#[test]
fn bad_headers_are_noted_counted_and_said_once_and_the_call_passes() {
    let mut bench = Bench::new();
    bench.request(&[("x-cost-team", b"\xff\xfe"), ("x-request-id", b"\xff")], "{}");
    bench.reply("200", REPLY);
    let record = bench.log("via_upstream");
    assert_eq!(record.notes, ["x-cost-team: not_utf8".into()]);
    assert_eq!((record.team, record.request_id), (None, None));
    assert_eq!(bench.host.counter("tollgate_dropped_values_total.reason.not_utf8"), 1);
    assert_eq!(bench.host.log.len(), 1);
}

#[test]
fn a_damaged_reply_keeps_what_was_read_and_says_so() {
    let mut bench = Bench::new();
    bench.request(&[], "{}");
    let reply = headers(&[(":status", "200"), ("content-type", "application/json"), ("content-encoding", "br")], &[]);
    bench.on(Event::ResponseHeaders { headers: &reply, end_of_stream: false });
    bench.on(Event::ResponseBody { chunk: b"\x0b\x02\x80{}\x03", end_of_stream: true });
    let record = bench.log("via_upstream");
    assert_eq!(record.notes, ["response_encoding_unreadable".into()]);
    assert_eq!(bench.host.counter("tollgate_damaged_replies_total.reason.response_encoding_unreadable"), 1);
    assert_eq!(bench.host.counter("tollgate_unmetered_calls_total.api.openai_chat"), 1);
}

#[test]
fn usage_is_asked_for_only_where_the_request_may_be_changed() {
    let config = r#"{"upstreams": [{"match": {"host": "stubborn.example"}, "inject_include_usage": false}]}"#;
    let asked = [Edit::Remove("content-length".into()), Edit::Set("accept-encoding", "identity".into())];
    for (name, value, injects) in [
        ("x-any", "thing", true),
        ("accept-encoding", "gzip", true),
        ("content-encoding", "gzip", false),
        ("x-amz-content-sha256", "0", false),
        ("content-md5", "0", false),
        ("trailer", "x", false),
        ("authorization", "AWS4-HMAC-SHA256 SignedHeaders=content-length;host", false),
        (":authority", "stubborn.example", false),
        (":authority", "api.mistral.ai", false),
    ] {
        let mut bench = Bench::with(config);
        let edits = bench.request(&[(name, value.as_bytes())], r#"{"model":"gpt-4o","stream":true}"#);
        assert_eq!(edits == asked, injects, "{name}: {value}: {edits:?}");
    }
}

#[test]
fn a_request_that_an_early_answer_overtakes_still_goes_out_whole() {
    let mut bench = Bench::with("{}");
    bench.request_headers(&[], false);
    let mut sent = Vec::new();
    let mut send = |bench: &mut Bench, chunk: &[u8], end_of_stream: bool| {
        bench.host.now_ns += 1;
        let mut context = Context { host: &mut bench.host, instance: &mut bench.instance };
        let verdict = bench.exchange.on(Event::RequestBody { chunk, end_of_stream }, &mut context);
        sent.extend(verdict.body.unwrap_or_else(|| chunk.to_vec()));
    };
    let body = br#"{"stream_options":{"x":1},"model":"gpt-4o","stream":true}"#;
    send(&mut bench, &body[..30], false);
    bench.reply_headers("200", "text/event-stream", false);
    send(&mut bench, &body[30..], true);
    bench.on(Event::ResponseBody { chunk: b"data: [DONE]\n\n", end_of_stream: true });
    let sent: serde_json::Value = serde_json::from_slice(&sent).unwrap();
    assert_eq!(sent["stream_options"], serde_json::json!({"x": 1, "include_usage": true}));
    assert_eq!(bench.log("via_upstream").request_model.as_deref(), Some("gpt-4o"));
}

#[test]
fn a_request_that_is_too_long_is_refused_where_policy_says_so() {
    let config = r#"{"metering": {"max_request_bytes": 1024, "on_oversize": "refuse"}}"#;
    let headers = headers(&[(":method", "POST"), (":path", "/v1/messages")], &[("x-cost-team", b"a")]);

    let announced = |bench: &mut Bench| {
        let mut pairs: Vec<_> = headers.iter().collect();
        pairs.push((b"content-length", b"1025"));
        let headers: Headers<'_> = pairs.into_iter().collect();
        let event = Event::RequestHeaders { headers: &headers, route: Route::default(), end_of_stream: false };
        bench.exchange.on(event, &mut Context { host: &mut bench.host, instance: &mut bench.instance })
    };
    let chunked = |bench: &mut Bench| {
        bench.on(Event::RequestHeaders { headers: &headers, route: Route::default(), end_of_stream: false });
        bench.on(Event::RequestBody { chunk: &[b' '; 1000], end_of_stream: false });
        let event = Event::RequestBody { chunk: &[b' '; 25], end_of_stream: false };
        bench.exchange.on(event, &mut Context { host: &mut bench.host, instance: &mut bench.instance })
    };
    for refuse in [&announced as &dyn Fn(&mut Bench) -> Verdict, &chunked] {
        let mut bench = Bench::with(config);
        let reply = refuse(&mut bench).reply.expect("a local reply");
        assert_eq!(reply.status, 413);
        assert!(reply.body.starts_with(r#"{"type":"error","error":{"type":"request_too_large","#), "{}", reply.body);
        // The filter's own answer comes back through the response callbacks.
        bench.reply_headers("413", "application/json", false);
        bench.on(Event::ResponseBody { chunk: reply.body.as_bytes(), end_of_stream: true });
        let record = bench.log("tollgate_request_too_large");
        assert!(reply.headers.contains(&(ID_HEADER, record.id.to_string())));
        assert_eq!((record.decision, record.status), (crate::record::Decision::Refused, Some(413)));
        assert_eq!((record.end_reason, record.cost_picousd), (EndReason::LocalReply, Some(0)));
        assert_eq!((record.error.as_deref(), record.team.as_deref()), (Some("request_too_large"), Some("a")));
        assert_eq!(bench.host.counter("tollgate_calls_total.decision.refused.api.anthropic_messages"), 1);
    }

    let mut bench = Bench::with(r#"{"metering": {"max_request_bytes": 1024}}"#);
    assert_eq!(chunked(&mut bench).reply, None, "the default lets it pass, metered");
}

#[test]
fn the_workload_is_inferred_from_tools_where_the_caller_does_not_say() {
    let chat = r#"{"tools":[{"type":"function","function":{"name":"search"}},{"function":{"name":"sendEmail"}}]}"#;
    let long_name = format!(r#"{{"tools":[{{"name":"mcp__{}__delete_file"}}]}}"#, "x".repeat(90));
    let many = format!(r#"{{"tools":[{}{{"name":"send"}}]}}"#, r#"{"name":"read"},"#.repeat(400));
    for (path, body, header, workload, source) in [
        ("/v1/chat/completions", chat, None, "agentic-write", "inferred"),
        ("/v1/chat/completions", chat, Some("agentic-read"), "agentic-read", "header"),
        ("/v1/chat/completions", "{}", None, "agentic-read", "inferred"),
        ("/v1/chat/completions", r#"{"functions":[{"name":"create_ticket"}]}"#, None, "agentic-write", "inferred"),
        ("/v1/responses", r#"{"tools":[{"type":"function","name":"updateRow"}]}"#, None, "agentic-write", "inferred"),
        ("/v1/messages", r#"{"tools":[{"name":"overwrite"}]}"#, None, "agentic-read", "inferred"),
        (
            "/v1/models/m:generateContent",
            r#"{"tools":[{"functionDeclarations":[{"name":"delete-file"}]}]}"#,
            None,
            "agentic-write",
            "inferred",
        ),
        // Google takes what stands alone for a list.
        (
            "/v1/models/m:generateContent",
            r#"{"tools":{"functionDeclarations":[{"name":"read"},{"name":"delete-file"}]}}"#,
            None,
            "agentic-write",
            "inferred",
        ),
        (
            "/v1/models/m:generateContent",
            r#"{"tools":[{"function_declarations":{"name":"delete-file"}}]}"#,
            None,
            "agentic-write",
            "inferred",
        ),
        (
            "/model/m/converse",
            r#"{"toolConfig":{"tools":[{"toolSpec":{"name":"WriteFile"}}]}}"#,
            None,
            "agentic-write",
            "inferred",
        ),
        (
            "/v1/chat/completions",
            r#"{"tools":[{"type":"custom","custom":{"name":"update_page"}}]}"#,
            None,
            "agentic-write",
            "inferred",
        ),
        (
            "/v1/responses",
            r#"{"tools":[{"type":"mcp","server_label":"jira","allowed_tools":["read","create_ticket"]}]}"#,
            None,
            "agentic-write",
            "inferred",
        ),
        (
            "/v1/responses",
            r#"{"tools":[{"type":"mcp","allowed_tools":{"tool_names":["update"]}}]}"#,
            None,
            "agentic-write",
            "inferred",
        ),
        (
            "/v1/messages",
            r#"{"mcp_servers":[{"name":"m","tool_configuration":{"enabled":true,"allowed_tools":["send"]}}]}"#,
            None,
            "agentic-write",
            "inferred",
        ),
        ("/v1/messages", &long_name, None, "agentic-write", "inferred"),
        ("/v1/messages", &many, None, "agentic-write", "inferred"),
        ("/v1/chat/completions", "{}", Some("Agentic_Write"), "agentic-write", "header"),
        // What is neither word is recorded as it came.
        ("/v1/chat/completions", chat, Some("batch"), "batch", "header"),
    ] {
        let mut bench = Bench::new();
        let more: Vec<(&str, &[u8])> =
            header.iter().map(|value: &&str| ("x-cost-workload", value.as_bytes())).collect();
        let headers = headers(&[(":method", "POST"), (":path", path)], &more);
        bench.on(Event::RequestHeaders { headers: &headers, route: Route::default(), end_of_stream: false });
        bench.on(Event::RequestBody { chunk: body.as_bytes(), end_of_stream: true });
        let record = bench.log("route_not_found");
        assert_eq!(record.workload.as_deref(), Some(workload), "{body}");
        assert_eq!(record.attribution_source.get("workload").map(|value| &**value), Some(source), "{body}");
    }
}
