//! Requests whose headers wait for their bodies: what reaches the provider, and what never does.

use super::budgets::{Gateway, month};
use super::*;
use crate::reply::LocalReply;
use serde_json::{Value, json};
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

/// How a request's body is cut.
const SIZES: [usize; 5] = [1, 5, 7, 40, 1 << 20];

const CHAT: &str = "/v1/chat/completions";
const GEMINI: &str = "/v1beta/models/gpt-4o:generateContent?key=k";

/// A request on its way through a host that holds what it is told to hold.
struct Wire {
    exchange: Exchange,
    headers: Vec<(String, String)>,
    /// What the host holds of the body.
    held: Vec<u8>,
    /// What the provider has got; `None`: not even headers.
    seen: Option<Vec<u8>>,
    reply: Option<LocalReply>,
}

impl Wire {
    fn new(gateway: &mut Gateway, pairs: &[(&str, &str)]) -> Wire {
        let post = [(":method", "POST"), ("x-cost-department", "sales")];
        let headers = post.iter().chain(pairs).map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
        let exchange = Exchange::new(Rc::clone(&gateway.config));
        let mut wire = Wire { exchange, headers, held: Vec::new(), seen: None, reply: None };
        let pairs = wire.headers.clone();
        let event = Event::RequestHeaders { headers: &borrowed(&pairs), route: Route::default(), end_of_stream: false };
        wire.on(gateway, event);
        wire
    }

    /// A whole request, its body in pieces of `size` bytes.
    fn whole(gateway: &mut Gateway, pairs: &[(&str, &str)], body: &str, size: usize) -> Wire {
        let mut wire = Wire::new(gateway, pairs);
        for chunk in body.as_bytes().chunks(size) {
            assert!(wire.reply.is_some() || wire.seen.is_none(), "nothing goes on before the end");
            wire.piece(gateway, chunk, false);
        }
        wire.piece(gateway, b"", true);
        wire
    }

    fn piece(&mut self, gateway: &mut Gateway, chunk: &[u8], end_of_stream: bool) {
        self.held.extend_from_slice(chunk);
        self.on(gateway, Event::RequestBody { chunk, end_of_stream });
    }

    fn on(&mut self, gateway: &mut Gateway, event: Event<'_>) {
        if self.reply.is_some() {
            return;
        }
        let context = &mut Context { host: &mut gateway.host, instance: &mut gateway.instance };
        let verdict = self.exchange.on(event, context);
        self.reply = verdict.reply;
        if self.reply.is_some() {
            return;
        }
        self.held = verdict.body.unwrap_or_else(|| std::mem::take(&mut self.held));
        assert!(self.seen.is_none() || verdict.edits.is_empty(), "too late: {:?}", verdict.edits);
        for edit in verdict.edits {
            let name = match &edit {
                Edit::Remove(name) => &**name,
                Edit::Set(name, _) => name,
            };
            self.headers.retain(|(own, _)| own != name);
            if let Edit::Set(name, value) = edit {
                self.headers.push((name.into(), value));
            }
        }
        if !verdict.pause {
            self.seen.get_or_insert_default().append(&mut self.held);
        }
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }

    /// What the provider has got of the body.
    fn body(&self) -> &str {
        str::from_utf8(self.seen.as_deref().expect("it went on")).unwrap()
    }

    fn refused(&self) -> Option<u16> {
        assert_ne!(self.reply.is_some(), self.seen.is_some(), "a refused call shows the provider nothing");
        self.reply.as_ref().map(|reply| reply.status)
    }
}

fn borrowed(pairs: &[(String, String)]) -> Headers<'_> {
    pairs.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect()
}

/// A month with a cheaper model to go to, of which `spent` tokens at 0.001 USD are used.
fn gateway(metering: &Value, spent: u64) -> Gateway {
    let mut budget = month("0.1");
    budget["on_exceeded"] = json!("downgrade");
    budget["hard_limit_usd"] = json!("0.2");
    let downgrades = json!([{"from": "gpt-4o", "to": "gpt-4o-mini", "supports": ["tools", "max_tokens"]}]);
    let mut gateway = Gateway::new(&json!([budget]), &json!({"downgrades": downgrades}));
    if spent > 0 {
        gateway.call("sales", spent, spent);
    }
    let mut config = json!({"metering": metering});
    config["metering"]["hold_request_headers"] = json!(true);
    gateway.reconfigure(&config);
    gateway
}

/// Nobody's budget: only the usage is asked for.
fn unlimited(metering: &Value) -> Gateway {
    let mut gateway = Gateway::new(&json!([]), &json!({}));
    let mut config = json!({"metering": metering});
    config["metering"]["hold_request_headers"] = json!(true);
    config["metering"]["inject_include_usage"] = json!(true);
    gateway.reconfigure(&config);
    gateway
}

#[test]
fn a_held_call_that_fits_goes_on_as_it_came() {
    let body = r#"{"model": "gpt-4o", "max_tokens": 60, "stream": false}"#;
    for size in SIZES {
        let mut gateway = gateway(&json!({}), 0);
        let length = body.len().to_string();
        let pairs = [(":path", CHAT), ("content-length", &*length), ("accept-encoding", "gzip")];
        let wire = Wire::whole(&mut gateway, &pairs, body, size);
        assert_eq!((wire.refused(), wire.body()), (None, body));
        assert_eq!((wire.header("content-length"), wire.header("accept-encoding")), (Some(&*length), Some("gzip")));
        assert_eq!(wire.header("x-cost-department"), None);
    }
}

#[test]
fn a_held_call_goes_to_a_cheaper_model_with_its_length_or_shows_the_provider_nothing() {
    let asks = |tokens: u64| format!(r#"{{"model":"gpt-4o","max_tokens":{tokens}}}"#);
    for size in SIZES {
        let mut gateway = gateway(&json!({}), 80);
        let wire = Wire::whole(&mut gateway, &[(":path", CHAT), ("content-length", "999")], &asks(80), size);
        let body = r#"{"model":"gpt-4o-mini","max_tokens":50}"#;
        assert_eq!((wire.refused(), wire.body()), (None, body));
        assert_eq!(wire.header("content-length"), Some(&*body.len().to_string()));
        let answer = r#"{"model":"gpt-4o-mini","usage":{"prompt_tokens":10,"completion_tokens":10}}"#;
        let record = gateway.end(wire.exchange, Some(answer), "via_upstream");
        assert_eq!((record.decision, record.downgraded_from.as_deref()), (Decision::Downgraded, Some("gpt-4o")));

        let vision = r#"{"model":"gpt-4o","messages":[{"content":[{"type":"image_url","image_url":{}}]}]}"#;
        let wire = Wire::whole(&mut gateway, &[(":path", CHAT)], vision, size);
        assert_eq!(wire.refused(), Some(429));
        let record = gateway.end(wire.exchange, None, "tollgate_budget_exceeded");
        assert!(record.notes.contains(&"downgrade_misfit:vision".into()), "{:?}", record.notes);
        assert_eq!(gateway.instance.withheld.bytes(), 0);
    }
}

#[test]
fn a_held_path_names_the_cheaper_model_once_the_body_has_said_what_it_asks_for() {
    let asks = |tokens: u64| format!(r#"{{"generationConfig":{{"maxOutputTokens":{tokens}}},"contents":[]}}"#);
    for size in SIZES {
        let mut gateway = gateway(&json!({}), 40);
        // Without the body, this call would count as 4096 tokens and go elsewhere.
        let small = Wire::whole(&mut gateway, &[(":path", GEMINI)], &asks(30), size);
        assert_eq!((small.refused(), small.header(":path"), small.body()), (None, Some(GEMINI), &*asks(30)));
        gateway.end(small.exchange, None, "downstream_remote_disconnect");

        let wire = Wire::whole(&mut gateway, &[(":path", GEMINI), ("content-length", "9")], &asks(80), size);
        let cheaper = "/v1beta/models/gpt-4o-mini:generateContent?key=k";
        assert_eq!((wire.refused(), wire.header(":path"), wire.body()), (None, Some(cheaper), &*asks(50)));
        assert_eq!(wire.header("content-length"), Some(&*asks(50).len().to_string()));
        let answer =
            r#"{"modelVersion":"gpt-4o-mini","usageMetadata":{"promptTokenCount":10,"candidatesTokenCount":10}}"#;
        let record = gateway.end(wire.exchange, Some(answer), "via_upstream");
        assert_eq!((record.decision, record.downgraded_from.as_deref()), (Decision::Downgraded, Some("gpt-4o")));
        assert_eq!(record.cost_usd.unwrap().as_str(), "0.0002");

        let vision = r#"{"contents":[{"parts":[{"inlineData":{"mimeType":"image/png","data":"x"}}]}]}"#;
        let wire = Wire::whole(&mut gateway, &[(":path", GEMINI)], vision, size);
        assert_eq!(wire.refused(), Some(429));
        // A signature covers the path.
        let signed = ("authorization", "AWS4-HMAC-SHA256 Credential=x, SignedHeaders=host, Signature=y");
        let wire = Wire::whole(&mut gateway, &[(":path", GEMINI), signed], &asks(80), size);
        assert_eq!((wire.refused(), wire.header(":path")), (Some(429), Some(GEMINI)));
    }
}

#[test]
fn usage_is_asked_for_with_an_exact_length_and_every_other_request_stays_as_it_came() {
    let asked = r#"{"model":"gpt-4o","stream":true,"stream_options":{"include_usage":true}}"#;
    for (body, sent) in [
        (r#"{"model":"gpt-4o","stream":true}"#, Some(asked)),
        (r#"{"model":"gpt-4o","stream":true,"stream_options":{"include_usage":null}}"#, Some(asked)),
        (asked, None),
        (r#"{"model":"gpt-4o","stream":false}"#, None),
        (r#"{"model":"mistral-large-latest","stream":true}"#, None),
        (r#"{"model":"gpt-4o","stream":tr"#, None),
        ("no json", None),
    ] {
        for size in SIZES {
            let mut gateway = unlimited(&json!({}));
            let length = body.len().to_string();
            let pairs = [(":path", CHAT), ("content-length", &*length), ("accept-encoding", "gzip, br")];
            let wire = Wire::whole(&mut gateway, &pairs, body, size);
            assert_eq!((wire.refused(), wire.body()), (None, sent.unwrap_or(body)), "{body} by {size}");
            assert_eq!(wire.header("content-length"), Some(&*wire.body().len().to_string()), "{body}");
            let encoding = if sent.is_some() { "identity" } else { "gzip" };
            assert_eq!(wire.header("accept-encoding"), Some(encoding), "{body}");
        }
    }
}

#[test]
fn a_request_that_is_too_long_to_hold_is_refused_or_let_go_as_policy_says() {
    let bound = json!({"max_request_bytes": 1024, "max_withheld_bytes": 4096});
    let filler = "x".repeat(2000);
    let body = format!(r#"{{"stream":true,"model":"gpt-4o","user":"{filler}"}}"#);
    let asked = format!(r#"{},"stream_options":{{"include_usage":true}}}}"#, body.strip_suffix('}').unwrap());
    let length = body.len().to_string();
    for size in SIZES {
        for pairs in [&[(":path", CHAT)][..], &[(":path", CHAT), ("content-length", &length)]] {
            let mut gateway = gateway(&bound, 0);
            let mut wire = Wire::new(&mut gateway, pairs);
            body.as_bytes().chunks(size).for_each(|chunk| wire.piece(&mut gateway, chunk, false));
            assert_eq!(wire.refused(), Some(413), "a budget has to see all of it");
            drop(wire);
            assert_eq!(gateway.instance.withheld.bytes(), 0);

            let mut gateway = unlimited(&bound);
            let mut wire = Wire::new(&mut gateway, pairs);
            body.as_bytes().chunks(size).for_each(|chunk| wire.piece(&mut gateway, chunk, false));
            wire.piece(&mut gateway, b"", true);
            assert_eq!((wire.refused(), wire.body()), (None, &*asked), "{pairs:?} by {size}");
            assert_eq!((wire.header("content-length"), wire.header("accept-encoding")), (None, Some("identity")));
        }
    }
}

#[test]
fn a_held_request_that_ends_in_trailers_goes_on_whole() {
    for size in SIZES {
        let mut gateway = gateway(&json!({}), 80);
        let mut wire = Wire::new(&mut gateway, &[(":path", CHAT), ("content-length", "9")]);
        let body = r#"{"model":"gpt-4o","max_tokens":80}"#;
        body.as_bytes().chunks(size).for_each(|chunk| wire.piece(&mut gateway, chunk, false));
        wire.on(&mut gateway, Event::RequestTrailers);
        assert_eq!((wire.refused(), wire.body()), (None, r#"{"model":"gpt-4o-mini","max_tokens":50}"#));
        assert_eq!(wire.header("content-length"), None, "trailers need chunks");
    }
}

#[test]
fn a_request_held_in_vain_goes_on_governed_as_if_it_had_not_been_held() {
    let release = |gateway: &mut Gateway, wire: &mut Wire| {
        assert!(wire.exchange.holds_request() && wire.seen.is_none());
        let pairs = wire.headers.clone();
        wire.on(gateway, Event::HeldInVain { headers: &borrowed(&pairs) });
        assert!(!wire.exchange.holds_request());
        assert_eq!(wire.body(), "", "its headers are gone");
    };
    for size in SIZES {
        let mut gateway = gateway(&json!({}), 80);
        let mut wire = Wire::new(&mut gateway, &[(":path", CHAT), ("content-length", "34")]);
        release(&mut gateway, &mut wire);
        assert_eq!(wire.header("content-length"), None);
        let body = r#"{"model":"gpt-4o","max_tokens":80}"#;
        for chunk in body.as_bytes().chunks(size) {
            wire.piece(&mut gateway, chunk, false);
            assert_eq!(wire.body(), "", "the body is withheld");
        }
        wire.piece(&mut gateway, b"", true);
        assert_eq!(wire.body(), r#"{"model":"gpt-4o-mini","max_tokens":50}"#);

        // A path is changed while it still can be; what the body says is held against it later.
        let mut wire = Wire::new(&mut gateway, &[(":path", GEMINI)]);
        release(&mut gateway, &mut wire);
        assert_eq!(wire.header(":path"), Some("/v1beta/models/gpt-4o-mini:generateContent?key=k"));
        let vision = r#"{"contents":[{"parts":[{"inlineData":{"mimeType":"image/png","data":"x"}}]}]}"#;
        vision.as_bytes().chunks(size).for_each(|chunk| wire.piece(&mut gateway, chunk, false));
        wire.piece(&mut gateway, b"", true);
        assert_eq!((wire.reply.as_ref().map(|reply| reply.status), wire.body()), (Some(429), ""));

        let mut gateway = unlimited(&json!({}));
        let mut wire = Wire::new(&mut gateway, &[(":path", CHAT), ("content-length", "9")]);
        release(&mut gateway, &mut wire);
        assert_eq!((wire.header("content-length"), wire.header("accept-encoding")), (None, Some("identity")));
        br#"{"stream":true}"#.chunks(size).for_each(|chunk| wire.piece(&mut gateway, chunk, false));
        wire.piece(&mut gateway, b"", true);
        assert_eq!(wire.body(), r#"{"stream":true,"stream_options":{"include_usage":true}}"#);
        assert_eq!(gateway.host.counter("tollgate_released_holds_total"), 1);
        assert!(gateway.host.log[0].contains("allow_on_headers_stop_iteration"), "{:?}", gateway.host.log);
    }
}

#[test]
fn a_call_that_is_only_asked_for_its_usage_is_let_go_where_others_need_the_room() {
    let more = json!({"max_request_bytes": 1024, "max_withheld_bytes": 2048, "hold_request_headers": true});
    let mut gateway = unlimited(&more);
    let mut first = Wire::new(&mut gateway, &[(":path", CHAT)]);
    first.piece(&mut gateway, &[b' '; 1000], false);
    let mut second = Wire::new(&mut gateway, &[(":path", CHAT)]);
    for (bytes, held) in [(24, 1024), (1, 1000)] {
        second.piece(&mut gateway, &vec![b' '; bytes], false);
        assert_eq!(gateway.instance.withheld.bytes(), held, "half of the room is for what has to be judged");
    }
    first.piece(&mut gateway, &[b' '; 25], false);
    assert_eq!(gateway.instance.withheld.bytes(), 0, "it is too long, and has gone on");
    for (wire, bytes) in [(first, 1025), (second, 25)] {
        assert_eq!(wire.body().len(), bytes);
    }
}

#[test]
fn what_is_let_go_and_withheld_all_the_same_counts_once() {
    let more = json!({"hold_request_headers": true});
    let mut gateway = Gateway::new(&json!([month("100")]), &json!({ "metering": more }));
    let mut wire = Wire::new(&mut gateway, &[(":path", CHAT)]);
    wire.piece(&mut gateway, &[b' '; 100], false);
    let headers = wire.headers.clone();
    wire.on(&mut gateway, Event::HeldInVain { headers: &borrowed(&headers) });
    assert!(wire.seen.is_some());
    assert_eq!(gateway.instance.withheld.bytes(), 100);
}

#[test]
fn what_is_withheld_is_bounded_and_given_back_at_every_end() {
    for hold in [true, false] {
        let bound = json!({"max_request_bytes": 1024, "max_withheld_bytes": 1024, "hold_request_headers": hold});
        let mut gateway = Gateway::new(&json!([month("100")]), &json!({ "metering": bound }));
        let mut first = Wire::new(&mut gateway, &[(":path", CHAT)]);
        first.piece(&mut gateway, &[b' '; 1000], false);
        assert_eq!(gateway.instance.withheld.bytes(), 1000);

        // One that says how long it is, and one that does not.
        let announced = Wire::new(&mut gateway, &[(":path", "/v1/messages"), ("content-length", "25")]);
        let mut chunked = Wire::new(&mut gateway, &[(":path", CHAT)]);
        chunked.piece(&mut gateway, &[b' '; 25], false);
        for (wire, code) in [(announced, "overloaded_error"), (chunked, "gateway_busy")] {
            let reply = wire.reply.as_ref().unwrap();
            assert_eq!((reply.status, reply.details), (503, "tollgate_busy"));
            assert!(reply.body.contains(code), "{}", reply.body);
            assert!(reply.headers.contains(&("x-should-retry", "true".into())));
            assert!(reply.headers.contains(&("retry-after", "1".into())));
            let record = gateway.end(wire.exchange, None, "tollgate_busy");
            assert_eq!((record.error.as_deref(), record.cost_picousd), (Some("gateway_busy"), Some(0)));
        }
        assert_eq!(gateway.host.counter("tollgate_busy_refusals_total"), 2);
        assert_eq!(gateway.host.log.iter().filter(|line| line.contains("max_withheld_bytes")).count(), 1);
        assert_eq!(gateway.instance.withheld.bytes(), 1000);

        let end = |gateway: &mut Gateway, wire: Wire| gateway.end(wire.exchange, None, "downstream_remote_disconnect");
        end(&mut gateway, first);
        assert_eq!(gateway.instance.withheld.bytes(), 0, "the client has left");
        let mut sent = Wire::new(&mut gateway, &[(":path", CHAT)]);
        sent.piece(&mut gateway, br#"{"model":"gpt-4o","max_tokens":1}"#, true);
        assert_eq!(gateway.instance.withheld.bytes(), 0, "it has gone on");
        end(&mut gateway, sent);
        let mut answered = Wire::new(&mut gateway, &[(":path", CHAT)]);
        answered.piece(&mut gateway, &[b' '; 1000], false);
        let reply = headers(&[(":status", "408"), ("content-type", "text/plain")], &[]);
        let context = &mut Context { host: &mut gateway.host, instance: &mut gateway.instance };
        answered.exchange.on(Event::ResponseHeaders { headers: &reply, end_of_stream: false }, context);
        let late = answered.exchange.on(Event::RequestBody { chunk: &[b' '; 10], end_of_stream: false }, context);
        assert_eq!((late.pause, late.body.is_some()), (hold, !hold), "nothing goes on any more");
        answered.exchange.on(Event::ResponseBody { chunk: b"timeout", end_of_stream: true }, context);
        end(&mut gateway, answered);
        assert_eq!(gateway.instance.withheld.bytes(), 0, "it was answered before its end");
        let mut dropped = Wire::new(&mut gateway, &[(":path", CHAT)]);
        dropped.piece(&mut gateway, br#"{"model":"#, false);
        drop(dropped);
        assert_eq!(gateway.instance.withheld.bytes(), 0, "nobody has ended it");
    }
}
