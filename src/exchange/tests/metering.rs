//! What is estimated, what is free, what is charged once, and what is asked for in the caller's place.

use super::*;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

#[test]
fn only_what_reached_the_provider_is_estimated() {
    let body = r#"{"model":"gpt-4o"}"#;
    let reset = |reason: &str| format!("upstream_reset_before_response_started{{{reason}}}");
    for (status, details, source, price) in [
        ("503", reset("connection_failure|delayed_connect_error:_111"), UsageSource::None, Some(PriceStatus::Free)),
        ("503", reset("overflow"), UsageSource::None, Some(PriceStatus::Free)),
        ("503", reset("remote_refused_stream_reset"), UsageSource::None, Some(PriceStatus::Free)),
        ("504", reset("connection_timeout"), UsageSource::None, Some(PriceStatus::Free)),
        ("503", reset("connection_termination"), UsageSource::Estimated, Some(PriceStatus::Estimated)),
        ("504", "upstream_response_timeout".into(), UsageSource::Estimated, Some(PriceStatus::Estimated)),
        ("429", "downstream_remote_disconnect".into(), UsageSource::None, Some(PriceStatus::Free)),
        ("308", "via_upstream".into(), UsageSource::None, Some(PriceStatus::Free)),
        ("200", "downstream_remote_disconnect".into(), UsageSource::Estimated, Some(PriceStatus::Estimated)),
    ] {
        let record = ending(
            |bench| {
                bench.request(&[], body);
                bench.reply_headers(status, "text/plain", false);
            },
            &details,
        );
        assert_eq!((record.usage_source, record.price_status), (source, price), "{status} {details}");
    }
}

#[test]
fn what_is_estimated_is_counted_whether_it_is_the_usage_or_the_price() {
    let assume = CONFIG.replace(r#""version": "v1""#, r#""version": "v1", "on_unknown_model": "assume_highest""#);
    for (config, model, reply, estimated) in [
        (CONFIG, "gpt-4o", Some(REPLY), 0),
        (CONFIG, "gpt-4o", None, 1),
        // Tokens of a model that has no price are an estimate all the same.
        (CONFIG, "acme-9b", None, 1),
        (&assume, "acme-9b", Some(&REPLY.replace("gpt-4o-2024-08-06", "acme-9b")), 1),
    ] {
        let mut bench = Bench::with(config);
        bench.request(&[], &format!(r#"{{"model":"{model}"}}"#));
        match reply {
            Some(reply) => bench.reply("200", reply),
            None => drop(bench.reply_headers("200", "application/json", false)),
        }
        bench.log(if reply.is_some() { "via_upstream" } else { "downstream_remote_disconnect" });
        let counted = bench.host.counter("tollgate_estimated_calls_total.api.openai_chat");
        assert_eq!(counted, estimated, "{model} {reply:?}");
    }
}

#[test]
fn files_in_a_request_are_not_taken_for_text() {
    let image = format!(r#"{{"model":"gpt-4o","image":"data:image/png;base64,{}"}}"#, "QUJD".repeat(500_000));
    let form = format!("--b\r\ncontent-disposition: form-data; name=\"model\"\r\n\r\nwhisper-1\r\n--b\r\n\r\n{image}");
    // A chat has no forms, whatever its header says: what it says is read all the same.
    for (content_type, body) in [("application/json", &image), ("multipart/form-data; boundary=b", &form)] {
        let mut bench = Bench::new();
        bench.request(&[("content-type", content_type.as_bytes())], body);
        bench.reply_headers("200", "text/plain", false);
        let record = bench.log("downstream_remote_disconnect");
        assert!(record.input_tokens.is_some_and(|tokens| tokens <= 17_000), "{:?}", record.input_tokens);
    }
}

#[test]
fn what_only_looks_like_a_stream_is_not_one() {
    for content_type in ["text/plain", "text/html", "audio/mpeg"] {
        let mut bench = Bench::new();
        bench.request(&[], "{}");
        bench.reply_headers("200", content_type, false);
        bench.on(Event::ResponseBody { chunk: b"data is upstream\n\n\0", end_of_stream: true });
        let record = bench.log("via_upstream");
        assert_eq!((record.stream, record.ttft_ms, record.notes.len()), (None, None, 0), "{content_type}");
    }
}

#[test]
fn a_stream_that_its_request_was_overtaken_by_is_cleaned_or_was_never_asked_for() {
    let event = b"data: {\"choices\":[],\"usage\":{\"prompt_tokens\":1}}\n\n";
    for (first, rest) in
        [(&br#"{"stream":true,"stream_options":{},"x":1"#[..], &b"}"[..]), (br#"{"stream":true,"x":1"#, b"}")]
    {
        let mut bench = Bench::with("{}");
        bench.request_headers(&[], false);
        let mut context = Context { host: &mut bench.host, instance: &mut bench.instance };
        let sent = |verdict: Verdict, chunk: &[u8]| verdict.body.unwrap_or_else(|| chunk.to_vec());
        let mut upstream =
            sent(bench.exchange.on(Event::RequestBody { chunk: first, end_of_stream: false }, &mut context), first);
        let reply = headers(&[(":status", "200"), ("content-type", "text/event-stream")], &[]);
        bench.exchange.on(Event::ResponseHeaders { headers: &reply, end_of_stream: false }, &mut context);
        upstream.extend(sent(
            bench.exchange.on(Event::RequestBody { chunk: rest, end_of_stream: true }, &mut context),
            rest,
        ));
        let asked = String::from_utf8(upstream).unwrap().contains("include_usage");
        let verdict = bench.exchange.on(Event::ResponseBody { chunk: event, end_of_stream: true }, &mut context);
        let client_got_it = sent(verdict, event) == event;
        assert_eq!(asked, !client_got_it);
    }
}

#[test]
fn mistrals_models_are_not_asked_whoever_serves_them() {
    for (model, asked) in [("mistral-large-latest", false), ("mistralai/pixtral-12b", false), ("gpt-4o", true)] {
        let mut bench = Bench::with("{}");
        bench.request_headers(&[], false);
        let body = format!(r#"{{"model":"{model}","stream":true}}"#);
        let mut context = Context { host: &mut bench.host, instance: &mut bench.instance };
        let event = Event::RequestBody { chunk: body.as_bytes(), end_of_stream: true };
        assert_eq!(bench.exchange.on(event, &mut context).body.is_some(), asked, "{model}");
    }
}

#[test]
fn a_response_is_charged_once_however_often_it_is_looked_at() {
    let usage = r#""usage":{"input_tokens":10,"output_tokens":5,"total_tokens":15}"#;
    let done = |background: bool| {
        format!(r#"{{"id":"resp_1","model":"gpt-4o","status":"completed","background":{background},{usage}}}"#)
    };
    let queued = r#"{"id":"resp_1","model":"gpt-4o","status":"queued","background":true,"usage":null}"#.to_owned();
    for (calls, charged) in [
        (vec![("POST", done(false)), ("GET", done(false)), ("GET", done(false))], [true, false, false]),
        (vec![("POST", queued), ("GET", done(true)), ("GET", done(true))], [false, true, false]),
    ] {
        let mut bench = Bench::new();
        for ((method, reply), charged) in calls.into_iter().zip(charged) {
            bench.exchange = Exchange::new(Rc::clone(&bench.exchange.config));
            let path = if method == "GET" { "/v1/responses/resp_1" } else { "/v1/responses" };
            let request = headers(&[(":method", method), (":path", path)], &[]);
            let end_of_stream = method == "GET";
            bench.on(Event::RequestHeaders { headers: &request, route: Route::default(), end_of_stream });
            if !end_of_stream {
                bench.on(Event::RequestBody { chunk: br#"{"model":"gpt-4o"}"#, end_of_stream: true });
            }
            bench.reply("200", &reply);
            bench.on(Event::Log(Ending { code_details: Some("via_upstream"), ..Ending::default() }));
            let record = bench.host.records.pop().unwrap();
            assert_eq!(record.cost_picousd, Some(if charged { 75_000_000 } else { 0 }), "{method} {reply}");
        }
    }
}

#[test]
fn an_error_is_named_wherever_it_stands() {
    let event =
        |data: &str| format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\"hi\"}}}}]}}\n\ndata: {data}\n\n");
    for (path, data, error) in [
        // OpenRouter has HTTP's numbers, vLLM a kind beside them, others nothing but a text.
        ("/v1/chat/completions", r#"{"error":{"code":502,"message":"x"}}"#, Some("502")),
        ("/v1/chat/completions", r#"{"error":{"code":400,"type":"BadRequestError"}}"#, Some("BadRequestError")),
        ("/v1/chat/completions", r#"{"error":{"type":"BadRequestError","code":400}}"#, Some("BadRequestError")),
        ("/v1/chat/completions", r#"{"error":{"type":"server_error","code":"overloaded"}}"#, Some("overloaded")),
        ("/v1/chat/completions", r#"{"error":"overloaded"}"#, Some("error")),
        ("/v1/chat/completions", r#"{"error":null}"#, None),
        ("/v1/responses", r#"{"type":"error","code":"server_error","message":"x"}"#, Some("server_error")),
        ("/v1/responses", r#"{"code":"server_error","type":"error"}"#, Some("server_error")),
        ("/v1/responses", r#"{"type":"error","error":{"code":"model_not_found"}}"#, Some("model_not_found")),
        ("/v1/responses", r#"{"type":"error","code":null}"#, Some("error")),
        // Not every event's code is an error's.
        ("/v1/responses", r#"{"type":"response.code_interpreter_call_code.done","code":"print(1)"}"#, None),
        ("/v1/messages", r#"{"type":"error","error":{"type":"overloaded_error"}}"#, Some("overloaded_error")),
        ("/api/chat", r#"{"error":"the runner stopped"}"#, Some("error")),
    ] {
        let mut bench = Bench::new();
        let request = headers(&[(":method", "POST"), (":path", path)], &[]);
        bench.on(Event::RequestHeaders { headers: &request, route: Route::default(), end_of_stream: false });
        bench.on(Event::RequestBody { chunk: br#"{"model":"gpt-4o","stream":true}"#, end_of_stream: true });
        bench.reply_headers("200", "text/event-stream", false);
        bench.on(Event::ResponseBody { chunk: event(data).as_bytes(), end_of_stream: true });
        let record = bench.log("via_upstream");
        assert_eq!(record.error.as_deref(), error, "{path} {data}");
    }
}

#[test]
fn an_error_costs_nothing_unless_something_was_generated() {
    let chunk = "data: {\"choices\":[{\"delta\":{\"content\":\"hi\"}}]}\n\n";
    let error = "data: {\"error\":{\"code\":502,\"message\":\"x\"}}\n\n";
    for (body, status) in [
        (error.to_owned(), PriceStatus::Free),
        (format!("{chunk}{error}"), PriceStatus::Estimated),
        (chunk.to_owned(), PriceStatus::Estimated),
    ] {
        let mut bench = Bench::new();
        bench.request(&[], r#"{"model":"gpt-4o","stream":true}"#);
        bench.reply_headers("200", "text/event-stream", false);
        bench.on(Event::ResponseBody { chunk: body.as_bytes(), end_of_stream: true });
        assert_eq!(bench.log("via_upstream").price_status, Some(status), "{body}");
    }
}

#[test]
fn why_a_response_is_incomplete_is_told_wherever_it_stands() {
    let details = r#""incomplete_details":{"reason":"max_output_tokens"}"#;
    for (reply, reason) in [
        (format!(r#"{{"status":"incomplete",{details}}}"#), "max_output_tokens"),
        (format!(r#"{{{details},"status":"incomplete"}}"#), "max_output_tokens"),
        (r#"{"status":"incomplete","incomplete_details":null}"#.to_owned(), "incomplete"),
        (r#"{"incomplete_details":null,"status":"completed"}"#.to_owned(), "completed"),
    ] {
        let mut bench = Bench::new();
        let request = headers(&[(":method", "POST"), (":path", "/v1/responses")], &[]);
        bench.on(Event::RequestHeaders { headers: &request, route: Route::default(), end_of_stream: false });
        bench.on(Event::RequestBody { chunk: br#"{"model":"gpt-4o"}"#, end_of_stream: true });
        bench.reply("200", &reply);
        assert_eq!(bench.log("via_upstream").finish_reason.as_deref(), Some(reason), "{reply}");
    }
}
