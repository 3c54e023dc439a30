//! What the access log can show besides the record: single values, and a stream under way.

use super::*;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

fn exposed(bench: &Bench) -> Vec<(&str, &str)> {
    bench.host.exposed.iter().map(|(key, text)| (&**key, &**text)).collect()
}

#[test]
fn single_values_stand_under_keys_of_their_own() {
    let values = r#"["cost_usd", "cost_microusd", "input_tokens", "request_model", "response_model", "decision",
        "department", "tags.customer", "workload", "team", "provider"]"#;
    let config = CONFIG.replacen('{', &format!(r#"{{"access_log": {{"values": {values}}}, "#), 1);
    let mut bench = Bench::with(&config);
    bench.request(&[("x-cost-department", b"sales"), ("x-cost-tag-customer", b"acme")], r#"{"model":"gpt-4o"}"#);
    bench.reply("200", REPLY);
    assert_eq!(exposed(&bench), [], "there is no cost before the end");
    bench.log("via_upstream");
    assert_eq!(
        exposed(&bench),
        [
            ("tollgate.cost_microusd", "7250"),
            ("tollgate.cost_usd", "0.00725"),
            ("tollgate.decision", "allowed"),
            ("tollgate.department", "sales"),
            ("tollgate.input_tokens", "1000"),
            ("tollgate.provider", "openai"),
            ("tollgate.request_model", "gpt-4o"),
            ("tollgate.response_model", "gpt-4o-2024-08-06"),
            ("tollgate.tags.customer", "acme"),
            ("tollgate.workload", "agentic-read"),
        ]
    );
}

#[test]
fn some_values_are_there_without_being_asked_for_and_none_is_possible() {
    let none = CONFIG.replacen('{', r#"{"access_log": {"values": []}, "#, 1);
    for (config, keys) in [(CONFIG, &["tollgate.cost_usd", "tollgate.feature"][..]), (&none, &[])] {
        let mut bench = Bench::with(config);
        bench.request(&[("x-cost-feature", b"chat")], r#"{"model":"gpt-4o"}"#);
        bench.reply("200", REPLY);
        bench.log("via_upstream");
        assert_eq!(bench.host.exposed.keys().collect::<Vec<_>>(), keys);
    }
}

const STREAM: [&str; 3] = [
    "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"m\",\"model\":\"claude\",\
     \"usage\":{\"input_tokens\":100,\"output_tokens\":1}}}\n\n",
    "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\
     \"text\":\"0123456789abcdef\"}}\n\n",
    "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\
     \"usage\":{\"output_tokens\":40}}\n\nevent: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
];

const CLAUDE: &str = r#"{"access_log": {"progress_secs": 10}, "prices": {"models": [
    {"model": "claude", "rates": {"input": "1", "output": "10"}}]}}"#;

/// A stream of Claude's whose host ticks before its second piece and a while after it, and the records that stood in
/// between.
fn streamed(config: &str) -> (Bench, Vec<UsageRecord>) {
    const SECOND: u64 = 1_000_000_000;
    let mut bench = Bench::with(config);
    let head = headers(&[(":method", "POST"), (":path", "/v1/messages")], &[]);
    bench.on(Event::RequestHeaders { headers: &head, route: Route::default(), end_of_stream: false });
    bench.on(Event::RequestBody { chunk: br#"{"model":"claude","stream":true}"#, end_of_stream: true });
    bench.reply_headers("200", "text/event-stream", false);
    let before = bench.host.provisional.len();
    let start_ns = bench.host.now_ns;
    for (piece, ticked_secs) in STREAM.iter().zip([1, 11, 12]) {
        bench.instance.ticked_ns = start_ns + ticked_secs * SECOND;
        bench.host.now_ns = bench.instance.ticked_ns;
        bench.on(Event::ResponseBody { chunk: piece.as_bytes(), end_of_stream: false });
    }
    let between = bench.host.provisional[before..].to_vec();
    (bench, between)
}

#[test]
fn a_long_stream_shows_what_it_has_used_so_far() {
    let (mut bench, between) = streamed(CLAUDE);
    let [so_far] = &*between else { panic!("{between:?}") };
    assert_eq!((so_far.end_reason, so_far.seq, so_far.status), (EndReason::Provisional, None, Some(200)));
    assert_eq!((so_far.input_tokens, so_far.stream), (Some(100), Some(true)));
    assert!(so_far.cost_picousd >= Some(100_000_000) && so_far.duration_ms >= Some(11_000), "{so_far:?}");
    assert_eq!(bench.host.exposed["tollgate.cost_usd"], so_far.cost_usd.as_ref().unwrap().as_str());

    // Nothing of it stays in the record of the end.
    bench.on(Event::ResponseBody { chunk: b"", end_of_stream: true });
    let with_progress = bench.log("via_upstream");
    let (mut bench, between) = streamed(&CLAUDE.replace("10}, \"prices", "0}, \"prices"));
    assert!(between.is_empty(), "{between:?}");
    bench.on(Event::ResponseBody { chunk: b"", end_of_stream: true });
    assert_eq!(bench.log("via_upstream"), with_progress);
    assert_eq!((with_progress.output_tokens, with_progress.cost_picousd), (Some(40), Some(500_000_000)));
}

#[test]
fn what_is_no_llm_call_leaves_no_record_however_long_it_lasts() {
    let mut bench = Bench::with(CLAUDE);
    let head = headers(&[(":method", "POST"), (":path", "/api/orders"), ("content-type", "application/json")], &[]);
    bench.on(Event::RequestHeaders { headers: &head, route: Route::default(), end_of_stream: false });
    bench.on(Event::RequestBody { chunk: b"{}", end_of_stream: true });
    bench.reply_headers("200", "text/event-stream", false);
    bench.instance.ticked_ns = bench.host.now_ns + 60_000_000_000;
    bench.on(Event::ResponseBody { chunk: b"data: {\"order\":1}\n\n", end_of_stream: false });
    bench.on(Event::Log(Ending { code_details: Some("via_upstream"), ..Ending::default() }));
    assert!(bench.host.provisional.is_empty() && bench.host.records.is_empty() && exposed(&bench).is_empty());
}
