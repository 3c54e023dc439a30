//! Golden exchanges: a request, its response and the record that must come of them.
//!
//! Each file in `tests/golden/` is a case. It is played on the core and in the compiled module, fed whole and in
//! pieces of 1, 5, 7 and random sizes, and always the same record must come out and every byte of both bodies must
//! pass. `UPDATE_GOLDEN=1 cargo test golden` writes the records anew: read the difference before you commit it.

use crate::support::chunks::Chunking;
use crate::support::core_driver::CoreDriver;
use crate::support::exchange::{Driver, End, Exchange, Headers, stable};
use crate::support::wasm_driver::WasmDriver;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

fn directory(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name)
}

/// The price table of all cases, and nothing else.
pub fn config() -> Vec<u8> {
    fs::read(directory("golden").join("config.json")).unwrap()
}

/// A fixture's bytes.
pub fn fixture(name: &str) -> Vec<u8> {
    fs::read(directory("fixtures").join(name)).unwrap_or_else(|error| panic!("fixture {name}: {error}"))
}

/// Every case by name.
pub fn cases() -> BTreeMap<String, Value> {
    let files = fs::read_dir(directory("golden")).unwrap().map(|entry| entry.unwrap().path());
    let cases = files.filter(|path| path.file_name().is_some_and(|name| name != "config.json"));
    cases
        .map(|path| {
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            let case = serde_json::from_slice(&fs::read(&path).unwrap());
            (name, case.unwrap_or_else(|error| panic!("{}: {error}", path.display())))
        })
        .collect()
}

fn header_list(value: &Value) -> Headers {
    let fields = value.as_object().expect("headers are an object");
    fields.iter().map(|(name, value)| (name.clone(), value.as_str().unwrap().as_bytes().to_vec())).collect()
}

/// A gzip member around `data`.
pub fn gzip(data: &[u8]) -> Vec<u8> {
    let mut out = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    out.extend(miniz_oxide::deflate::compress_to_vec(data, 6));
    out.extend([0; 8]);
    out
}

/// The exchange a case describes.
pub fn exchange(case: &Value) -> Exchange {
    let request = &case["request"];
    let mut request_headers = header_list(&json!({
        ":method": request["method"].as_str().unwrap_or("POST"),
        ":path": request["path"].as_str().unwrap_or("/v1/chat/completions"),
        ":authority": "llm.example",
        "content-type": "application/json",
    }));
    request_headers.extend(header_list(&request["headers"]));
    let request_body = match &request["body"] {
        Value::Null => Vec::new(),
        Value::String(text) => text.clone().into_bytes(),
        json => serde_json::to_vec(json).unwrap(),
    };
    let response = &case["response"];
    let (mut response_headers, mut response_body) = (None, Vec::new());
    if let Some(status) = response["status"].as_u64() {
        response_body = match (&response["fixture"], &response["body"]) {
            (Value::String(name), _) => fixture(name),
            (_, Value::String(text)) => text.clone().into_bytes(),
            _ => Vec::new(),
        };
        if let Some(kept) = response["cut_after_bytes"].as_u64() {
            response_body.truncate(usize::try_from(kept).unwrap());
        }
        if response["gzip"] == true {
            response_body = gzip(&response_body);
        }
        let mut headers = vec![(":status".to_owned(), status.to_string().into_bytes())];
        headers.extend(header_list(&response["headers"]));
        response_headers = Some(headers);
    }
    Exchange {
        config: config(),
        request_headers,
        request_body,
        response_headers,
        response_body,
        end: match response["end"].as_str() {
            None => End::Body,
            Some("trailers") => End::Trailers,
            Some("none") => End::None,
            Some(other) => panic!("unknown end {other}"),
        },
        code_details: case["code_details"].as_str().unwrap_or("via_upstream").to_owned(),
    }
}

fn play_all(driver: &mut impl Driver, update: bool) {
    let cases = cases();
    assert!(cases.len() >= 12, "the cases are gone");
    for (name, mut case) in cases {
        let exchange = exchange(&case);
        for chunking in Chunking::ALL {
            let outcome = driver.play(&exchange, chunking);
            assert_eq!(outcome.upstream_body, exchange.request_body, "{name} {chunking:?}: the request's bytes");
            assert_eq!(outcome.client_body, exchange.response_body, "{name} {chunking:?}: the response's bytes");
            let leaked = outcome.upstream_headers.iter().find(|(header, _)| header.starts_with("x-cost-"));
            assert_eq!(leaked, None, "{name}: reached the provider");
            let named = outcome.client_headers.iter().find(|(header, _)| header == "x-tollgate-id");
            let id = outcome.record.as_ref().map(|record| record["id"].as_str().unwrap().as_bytes().to_vec());
            if exchange.response_headers.is_some() {
                assert_eq!(named.map(|(_, value)| value.clone()), id, "{name}: x-tollgate-id");
            }
            let record = outcome.record.as_ref().map_or(Value::Null, stable);
            if update {
                case["record"] = record;
                let path = directory("golden").join(format!("{name}.json"));
                fs::write(path, serde_json::to_string_pretty(&case).unwrap() + "\n").unwrap();
                break;
            }
            assert_eq!(record, case["record"], "{name} {chunking:?}");
        }
    }
}

#[test]
fn every_golden_exchange_gives_its_record_natively() {
    play_all(&mut CoreDriver, std::env::var_os("UPDATE_GOLDEN").is_some());
}

#[test]
fn every_golden_exchange_gives_its_record_in_the_compiled_module() {
    play_all(&mut WasmDriver::default(), false);
}

#[test]
fn the_cases_cost_what_a_calculator_says() {
    // Written down by hand, so that a wrong price engine cannot write its own expectation.
    for (name, picousd) in [
        ("json-plain", 1_030_000_000 + 310_000_000),
        ("sse-with-usage", 487_500_000u64 + 1_440_000_000 + 470_000_000),
        ("json-cached-and-reasoning", 432_500_000 + 608_000_000 + 8_060_000_000),
        ("groq-usage-thrice", 137_000_000 + 27_000_000),
    ] {
        assert_eq!(cases()[name]["record"]["cost_picousd"], json!(picousd), "{name}");
    }
}
