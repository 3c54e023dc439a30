//! What callers are told of the cost of their calls.

use super::*;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

fn telling(metering: &str) -> Bench {
    Bench::with(&CONFIG.replace(r#""metering": {"#, &format!(r#""metering": {{{metering}, "#)))
}

impl Bench {
    fn answer(&mut self, pairs: &[(&str, &str)]) -> Verdict {
        let headers = headers(pairs, &[]);
        self.verdict(Event::ResponseHeaders { headers: &headers, end_of_stream: false })
    }

    fn piece(&mut self, chunk: &str, end_of_stream: bool) -> Verdict {
        self.verdict(Event::ResponseBody { chunk: chunk.as_bytes(), end_of_stream })
    }
}

fn told(verdict: &Verdict) -> Vec<(&str, &str)> {
    let edits = verdict.edits.iter().chain(&verdict.trailers);
    let set = edits.filter_map(|edit| match edit {
        Edit::Set(name, text) if name.starts_with("x-cost-") => Some((*name, &**text)),
        _ => None,
    });
    set.collect()
}

const PRICED: [(&str, &str); 4] = [
    ("x-cost-usd", "0.00725"),
    ("x-cost-status", "priced"),
    ("x-cost-input-tokens", "1000"),
    ("x-cost-output-tokens", "500"),
];

const JSON: [(&str, &str); 2] = [(":status", "200"), ("content-type", "application/json")];

#[test]
fn an_answer_that_is_no_stream_waits_for_its_cost() {
    for ends_in_trailers in [false, true] {
        let mut bench = telling(r#""cost_headers": true"#);
        bench.request(&[], r#"{"model":"gpt-4o"}"#);
        assert!(bench.answer(&JSON).pause && bench.exchange.holds_reply());
        let (first, second) = REPLY.split_at(100);
        let waiting = bench.piece(first, false);
        assert!(waiting.pause && waiting.body.is_none() && told(&waiting).is_empty());
        let last = if ends_in_trailers {
            bench.piece(second, false);
            bench.verdict(Event::ResponseTrailers)
        } else {
            bench.piece(second, true)
        };
        assert!(!last.pause && last.body.is_none() && last.trailers.is_empty());
        assert_eq!(told(&last), PRICED);
        let record = bench.log("via_upstream");
        assert_eq!((record.cost_picousd, record.charges.len()), (Some(7_250_000_000), 3), "counted once");
        assert_eq!(bench.host.counter("tollgate_cost_usd_nanos_total.department.unattributed.model.gpt-4o"), 7_250_000);
    }
}

#[test]
fn nothing_waits_that_has_no_cost_to_tell_or_should_not_wait() {
    let long = (256 * 1024 + 1).to_string();
    let sized = [JSON[0], JSON[1], ("content-length", &*long)];
    let sse = [JSON[0], ("content-type", "text/event-stream")];
    let image = [JSON[0], ("content-type", "image/png")];
    let on = r#""cost_headers": true"#;
    for (what, metering, body, answer) in [
        ("off", r#""cost_headers": false"#, r#"{"model":"gpt-4o"}"#, &JSON[..]),
        ("a stream", on, r#"{"model":"gpt-4o","stream":true}"#, &sse),
        ("an answer to a stream's request", on, r#"{"model":"gpt-4o","stream":true}"#, &JSON),
        ("a long answer", on, r#"{"model":"gpt-4o"}"#, &sized),
        ("no text", on, r#"{"model":"gpt-4o"}"#, &image),
    ] {
        let mut bench = telling(metering);
        bench.request(&[], body);
        assert!(!bench.answer(answer).pause && !bench.exchange.holds_reply(), "{what}");
        assert_eq!(told(&bench.piece(REPLY, true)), [], "{what}");
    }
}

#[test]
fn an_answer_that_grows_too_long_goes_on_without_its_cost() {
    let mut bench = telling(r#""cost_headers": true"#);
    bench.request(&[], r#"{"model":"gpt-4o"}"#);
    bench.answer(&JSON);
    let padding = " ".repeat(128 * 1024);
    assert!(bench.piece(&padding, false).pause);
    assert!(bench.piece(&padding, false).pause);
    assert!(!bench.piece(REPLY, false).pause && !bench.exchange.holds_reply());
    assert_eq!(told(&bench.piece("", true)), []);
    assert_eq!(bench.log("via_upstream").cost_picousd, Some(7_250_000_000));
}

#[test]
fn an_answer_that_is_held_in_vain_goes_on_and_is_counted() {
    let mut bench = telling(r#""cost_headers": true"#);
    bench.request(&[], r#"{"model":"gpt-4o"}"#);
    bench.answer(&JSON);
    bench.verdict(Event::ReplyHeldInVain);
    assert!(!bench.exchange.holds_reply());
    assert_eq!(bench.host.counter("tollgate_released_holds_total"), 1);
    assert_eq!(told(&bench.piece(REPLY, true)), []);
    assert_eq!(bench.log("via_upstream").cost_picousd, Some(7_250_000_000));
}

#[test]
fn an_error_costs_nothing_and_an_unknown_model_has_no_cost_to_tell() {
    for (status, body, told_of) in [
        ("400", r#"{"error":{"message":"no"}}"#, &[("x-cost-usd", "0"), ("x-cost-status", "free")][..]),
        (
            "200",
            r#"{"model":"new","usage":{"prompt_tokens":3,"completion_tokens":4}}"#,
            &[("x-cost-status", "unknown_model"), ("x-cost-input-tokens", "3"), ("x-cost-output-tokens", "4")],
        ),
    ] {
        let mut bench = telling(r#""cost_headers": true"#);
        bench.request(&[], r#"{"model":"new"}"#);
        bench.answer(&[(":status", status), JSON[1]]);
        assert_eq!(told(&bench.piece(body, true)), told_of, "{status}");
    }
}

const EVENTS: &str = "data: {\"id\":\"1\",\"model\":\"gpt-4o-2024-08-06\",\"choices\":[],\"usage\":{\"prompt_tokens\":1000,\
    \"completion_tokens\":500,\"prompt_tokens_details\":{\"cached_tokens\":200}}}\n\ndata: [DONE]\n\n";

const SSE: [(&str, &str); 3] = [(":status", "200"), ("content-type", "text/event-stream"), ("content-length", "999")];

#[test]
fn a_stream_tells_its_cost_behind_its_last_event() {
    let comment =
        ": x-cost-usd: 0.00725\n: x-cost-status: priced\n: x-cost-input-tokens: 1000\n: x-cost-output-tokens: 500\n\n";
    for (last, expected) in [("", comment.to_owned()), (EVENTS, format!("{EVENTS}{comment}"))] {
        let mut bench = telling(r#""streamed_cost": "comment""#);
        bench.request(&[], r#"{"model":"gpt-4o","stream":true}"#);
        let head = bench.answer(&SSE);
        assert!(!head.pause && head.edits.contains(&Edit::Remove("content-length".into())));
        if last.is_empty() {
            assert_eq!(bench.piece(EVENTS, false).body, None, "the events stay as they are");
        }
        assert_eq!(bench.piece(last, true).body, Some(expected.into_bytes()));
    }
}

#[test]
fn a_comment_never_completes_half_an_event() {
    for (body, whole) in [
        ("data: {}\n\n", true),
        ("data: {}\r\n\r\n", true),
        ("data: {}\r\r", true),
        ("data: {}\n\n: kept alive\n\n", true),
        ("", true),
        ("data: {}\n", false),
        ("data: {}\r\n", false),
        ("data: {}", false),
        ("data: {}\n\ndata: {\"choices\":[{\"delta\":{\"conte", false),
    ] {
        for pieces in [vec![body], body.split_inclusive('\n').collect(), body.split_inclusive(['\r', '{']).collect()] {
            let mut bench = telling(r#""streamed_cost": "comment""#);
            bench.request(&[], r#"{"model":"gpt-4o","stream":true}"#);
            bench.answer(&SSE);
            for piece in pieces {
                bench.piece(piece, false);
            }
            assert_eq!(bench.piece("", true).body.is_some(), whole, "{body:?}");
        }
    }
}

#[test]
fn a_stream_tells_its_cost_in_trailers() {
    for ends_in_trailers in [false, true] {
        let mut bench = telling(r#""streamed_cost": "trailers""#);
        bench.request(&[], r#"{"model":"gpt-4o","stream":true}"#);
        assert!(!bench.answer(&SSE).edits.contains(&Edit::Remove("content-length".into())));
        let last = if ends_in_trailers {
            bench.piece(EVENTS, false);
            bench.verdict(Event::ResponseTrailers)
        } else {
            bench.piece(EVENTS, true)
        };
        assert!(last.edits.is_empty() && last.body.is_none());
        assert_eq!(told(&last), PRICED);
    }
}

#[test]
fn a_compressed_stream_and_one_that_ends_in_trailers_get_no_comment() {
    let mut bench = telling(r#""streamed_cost": "comment""#);
    bench.request(&[], r#"{"model":"gpt-4o","stream":true}"#);
    bench.answer(&[SSE[0], SSE[1], ("content-encoding", "gzip")]);
    assert_eq!(bench.piece("no gzip", true).body, None);
    let mut bench = telling(r#""streamed_cost": "comment""#);
    bench.request(&[], r#"{"model":"gpt-4o","stream":true}"#);
    bench.answer(&SSE);
    bench.piece(EVENTS, false);
    assert_eq!(bench.verdict(Event::ResponseTrailers), Verdict::default());
}
