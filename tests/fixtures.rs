//! Every fixture gives the usage that its index says was billed, natively and in the compiled module, however it is
//! cut, plain and compressed.

use crate::golden::{config, fixture, gzip};
use crate::support::chunks::Chunking;
use crate::support::core_driver::CoreDriver;
use crate::support::exchange::{Driver, End, Exchange, Headers};
use crate::support::wasm_driver::WasmDriver;
use serde_json::{Map, Value, json};

/// What a record may say of usage.
const COUNTS: [&str; 15] = [
    "input_tokens",
    "cached_input_tokens",
    "cache_creation_input_tokens",
    "cache_creation_1h_input_tokens",
    "input_audio_tokens",
    "cached_input_audio_tokens",
    "input_image_tokens",
    "input_video_tokens",
    "output_tokens",
    "reasoning_tokens",
    "output_audio_tokens",
    "output_image_tokens",
    "total_tokens",
    "units",
    "provider_cost_usd",
];

fn index() -> Vec<Value> {
    let index: Value = serde_json::from_slice(&fixture("index.json")).unwrap();
    index["fixtures"].as_array().unwrap().clone()
}

/// The request that gets the fixture for an answer.
fn request(entry: &Value) -> (Vec<u8>, String) {
    let Some(form) = entry["form"].as_object() else {
        let body = match &entry["request"] {
            Value::Null => json!({"model": entry["request_model"]}),
            body => body.clone(),
        };
        return (body.to_string().into_bytes(), "application/json".into());
    };
    let mut body = String::new();
    for (name, value) in form {
        let value = value.as_str().unwrap();
        let file = if value.starts_with('@') { "; filename=\"file\"" } else { "" };
        body += &format!("--b0undary\r\ncontent-disposition: form-data; name=\"{name}\"{file}\r\n\r\n{value}\r\n");
    }
    body += "--b0undary--\r\n";
    (body.into_bytes(), "multipart/form-data; boundary=b0undary".into())
}

fn exchange(entry: &Value, compressed: bool) -> Exchange {
    let text = |field: &str| entry[field].as_str().unwrap_or_default().as_bytes().to_vec();
    let (request_body, request_type) = request(entry);
    let mut config: Value = serde_json::from_slice(&config()).unwrap();
    // What is served has to be read as it is: other tests are about what is asked for in between.
    config["metering"] = json!({"inject_include_usage": false});
    if let Some(quirk) = entry["quirk"].as_str() {
        config["upstreams"] = json!([{"match": {"host": entry["host"]}, "quirks": [quirk]}]);
    }
    let method = entry["method"].as_str().unwrap_or("POST");
    let mut response: Headers = vec![(":status".into(), entry["status"].to_string().into_bytes())];
    if let Some(content_type) = entry["content_type"].as_str() {
        response.push(("content-type".into(), content_type.as_bytes().to_vec()));
    }
    for (name, value) in entry["headers"].as_object().unwrap_or(&Map::new()) {
        response.push((name.to_ascii_lowercase(), value.as_str().unwrap().as_bytes().to_vec()));
    }
    let mut response_body = fixture(entry["file"].as_str().unwrap());
    if compressed {
        response.push(("content-encoding".into(), b"gzip".to_vec()));
        response_body = gzip(&response_body);
    }
    Exchange {
        config: config.to_string().into_bytes(),
        request_headers: vec![
            (":method".into(), method.as_bytes().to_vec()),
            (":path".into(), text("path")),
            (":authority".into(), text("host")),
            ("content-type".into(), request_type.into_bytes()),
        ],
        request_body: if method == "GET" { Vec::new() } else { request_body },
        response_headers: Some(response),
        response_body,
        end: End::Body,
        code_details: "via_upstream".into(),
    }
}

/// Plays every fixture; what differs is listed whole, so that one run shows everything.
fn check(driver: &mut impl Driver, chunkings: &[Chunking]) {
    let mut wrong = Vec::new();
    for entry in index() {
        let file = entry["file"].as_str().unwrap();
        for compressed in [false, true] {
            let exchange = exchange(&entry, compressed);
            for &chunking in chunkings {
                let outcome = driver.play(&exchange, chunking);
                assert_eq!(outcome.client_body, exchange.response_body, "{file}: the response's bytes");
                let Some(record) = outcome.record else {
                    wrong.push(format!("{file}: no record"));
                    break;
                };
                for field in ["api", "request_model", "response_model"] {
                    if entry[field] != record[field] {
                        wrong.push(format!("{file} {field}: {}, expected {}", record[field], entry[field]));
                    }
                }
                let estimated = record["usage_source"] == "estimated";
                for field in COUNTS {
                    let (found, expected) = (&record[field], &entry["usage"][field]);
                    // A zero that the provider reports is a zero; the index may be silent on it.
                    let silent = expected.is_null() && (estimated || *found == 0);
                    if found != expected && !silent {
                        wrong.push(format!("{file} {field}: {found}, expected {expected} ({chunking:?})"));
                    }
                }
                if entry["usage"]["free"] == true && (record["cost_picousd"] != 0 || record["price_status"] != "free") {
                    wrong.push(format!("{file}: not free"));
                }
            }
        }
    }
    wrong.dedup_by_key(|line| line.split(" (").next().unwrap().to_owned());
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn every_fixture_gives_the_usage_that_is_billed_natively() {
    check(&mut CoreDriver, &Chunking::ALL);
}

#[test]
fn every_fixture_gives_the_usage_that_is_billed_in_the_compiled_module() {
    check(&mut WasmDriver::default(), &[Chunking::Whole, Chunking::Every(7), Chunking::Random(1)]);
}
