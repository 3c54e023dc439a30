//! Asking for usage in the caller's place: the provider is asked, and the client's stream is the provider's minus
//! exactly the event that it would not have got, natively and in the compiled module, however it is cut.

use crate::golden::{config, fixture, gzip};
use crate::support::chunks::Chunking;
use crate::support::core_driver::CoreDriver;
use crate::support::exchange::{Driver, End, Exchange, Headers};
use crate::support::wasm_driver::WasmDriver;
use serde_json::{Value, json};

/// Streams of formats that report usage on request.
fn streams() -> Vec<String> {
    let index: Value = serde_json::from_slice(&fixture("index.json")).unwrap();
    let on_request = |entry: &&Value| {
        let format = entry["api"] == "openai_chat" || entry["api"] == "openai_completions";
        format && entry["file"].as_str().unwrap().ends_with(".sse")
    };
    let names = index["fixtures"].as_array().unwrap().iter().filter(on_request);
    names.map(|entry| entry["file"].as_str().unwrap().to_owned()).collect()
}

/// The stream without its usage-only events, cut at blank lines by hand.
fn without_usage_event(stream: &[u8]) -> Vec<u8> {
    let text = String::from_utf8(stream.to_vec()).unwrap();
    let blank = if text.contains("\r\n\r\n") { "\r\n\r\n" } else { "\n\n" };
    let keeps = |event: &&str| {
        let data = event.trim().strip_prefix("data:").unwrap_or_default();
        let json: Value = serde_json::from_str(data).unwrap_or_default();
        !(json["choices"] == json!([]) && json["usage"].is_object())
    };
    text.split_inclusive(blank).filter(keeps).collect::<String>().into_bytes()
}

fn exchange(path: &str, request: &Value, stream: Vec<u8>, encoded: bool) -> Exchange {
    let mut config: Value = serde_json::from_slice(&config()).unwrap();
    config.as_object_mut().unwrap().remove("metering");
    let mut response: Headers = vec![
        (":status".into(), b"200".to_vec()),
        ("content-type".into(), b"text/event-stream".to_vec()),
        ("content-length".into(), stream.len().to_string().into_bytes()),
    ];
    if encoded {
        response.push(("content-encoding".into(), b"gzip".to_vec()));
    }
    let request_body = request.to_string().into_bytes();
    Exchange {
        config: config.to_string().into_bytes(),
        request_headers: vec![
            (":method".into(), b"POST".to_vec()),
            (":path".into(), path.as_bytes().to_vec()),
            ("content-length".into(), request_body.len().to_string().into_bytes()),
            ("accept-encoding".into(), b"gzip".to_vec()),
        ],
        request_body,
        response_headers: Some(response),
        response_body: stream,
        end: End::Body,
        code_details: "via_upstream".into(),
    }
}

fn value<'h>(headers: &'h Headers, name: &str) -> Option<&'h [u8]> {
    headers.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_slice())
}

fn check(driver: &mut impl Driver, chunkings: &[Chunking]) {
    let streams = streams();
    assert!(streams.len() > 8, "the fixtures are gone");
    let silent = json!({"model": "gpt-4o", "stream": true, "messages": []});
    let refusing = json!({"stream_options": {"include_usage": false, "x": [1]}, "model": "gpt-4o", "stream": true});
    for name in streams {
        let stream = fixture(&name);
        let path = if name.contains("completions") { "/v1/completions" } else { "/v1/chat/completions" };
        for request in [&silent, &refusing] {
            for &chunking in chunkings {
                let outcome = driver.play(&exchange(path, request, stream.clone(), false), chunking);
                let mut asked = request.clone();
                asked["stream_options"]["include_usage"] = true.into();
                let sent: Value = serde_json::from_slice(&outcome.upstream_body).unwrap();
                assert_eq!(sent, asked, "{name} {chunking:?}");
                assert_eq!(value(&outcome.upstream_headers, "content-length"), None);
                assert_eq!(value(&outcome.upstream_headers, "accept-encoding"), Some(&b"identity"[..]));
                assert!(outcome.client_body == without_usage_event(&stream), "{name} {chunking:?}: the client's bytes");
                assert_eq!(value(&outcome.client_headers, "content-length"), None);
                assert!(outcome.record.unwrap().get("notes").is_none(), "{name} {chunking:?}");
            }
        }

        // An answer that comes encoded all the same keeps its extra event, and says so.
        let encoded = exchange(path, &silent, gzip(&stream), true);
        let outcome = driver.play(&encoded, Chunking::Whole);
        assert!(outcome.client_body == encoded.response_body, "{name}: encoded");
        assert_eq!(outcome.record.unwrap()["notes"], json!(["usage_event_kept"]), "{name}");

        // Who asks gets what was asked for; who does not stream is left alone.
        for request in [
            json!({"model": "gpt-4o", "stream": true, "stream_options": {"include_usage": true}}),
            json!({"model": "gpt-4o", "stream": false}),
        ] {
            let untouched = exchange(path, &request, stream.clone(), false);
            let outcome = driver.play(&untouched, Chunking::Every(7));
            assert!(
                outcome.client_body == untouched.response_body && outcome.upstream_body == untouched.request_body,
                "{name}"
            );
        }
    }
}

#[test]
fn the_client_gets_the_stream_it_would_have_got_natively() {
    check(&mut CoreDriver, &Chunking::ALL);
}

#[test]
fn the_client_gets_the_stream_it_would_have_got_in_the_compiled_module() {
    check(&mut WasmDriver::default(), &[Chunking::Whole, Chunking::Every(7), Chunking::Random(1)]);
}
