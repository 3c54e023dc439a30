//! What calls cost: whole exchanges with a price table each, and the cost that a calculator makes of them.
//!
//! Each file in `tests/prices/` has cases that stand alone: request, response, the section `prices`, and what must come
//! of them, worked out apart from the price engine. They are played on the core and in the compiled module, whole and
//! byte by byte, with the clock where the case says.

mod vectors;

use crate::support::chunks::Chunking;
use crate::support::core_driver::CoreDriver;
use crate::support::exchange::{Driver, End, Exchange, Headers};
use crate::support::wasm_driver::WasmDriver;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use tollgate::money::Decimal;
use tollgate::time::parse_rfc3339;

/// When a case is billed that says nothing: a Wednesday.
const NOON: &str = "2026-11-18T12:00:00Z";

fn cases() -> Vec<Value> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/prices");
    let files = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> =
        files.filter(|path| path.extension().is_some_and(|extension| extension == "json")).collect();
    files.sort();
    let read = |path: &Path| -> Value {
        serde_json::from_slice(&fs::read(path).unwrap()).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    files.iter().flat_map(|path| read(path)["cases"].as_array().unwrap().clone()).collect()
}

fn seconds(time: &Value) -> u64 {
    parse_rfc3339(time.as_str().unwrap_or(NOON)).unwrap()
}

fn bytes(body: &Value) -> Vec<u8> {
    match body {
        Value::String(text) => text.clone().into_bytes(),
        json => serde_json::to_vec(json).unwrap(),
    }
}

/// Headers with those that a case names in place of the usual ones.
fn headers(usual: &[(&str, &str)], own: &Value) -> Headers {
    let text = |value: &Value| value.as_str().unwrap().as_bytes().to_vec();
    let own: Headers = own.as_object().into_iter().flatten().map(|(name, value)| (name.clone(), text(value))).collect();
    let kept = usual.iter().filter(|(name, _)| own.iter().all(|(other, _)| other != name));
    let mut all: Headers = kept.map(|&(name, value)| (name.to_owned(), value.as_bytes().to_vec())).collect();
    all.extend(own);
    all
}

fn exchange(case: &Value) -> Exchange {
    let (request, response) = (&case["request"], &case["response"]);
    // What is served has to be read as it is: other tests are about what is asked for in between.
    let mut config = json!({"prices": case["prices"], "metering": {"inject_include_usage": false}});
    if !case["upstreams"].is_null() {
        config["upstreams"] = case["upstreams"].clone();
    }
    let request_line = [
        (":method", request["method"].as_str().unwrap_or("POST")),
        (":path", request["path"].as_str().unwrap()),
        (":authority", "llm.example"),
        ("content-type", "application/json"),
    ];
    let status = response["status"].as_u64().unwrap_or(200).to_string();
    Exchange {
        config: config.to_string().into_bytes(),
        request_headers: headers(&request_line, &request["headers"]),
        request_body: bytes(&request["body"]),
        response_headers: Some(headers(
            &[(":status", &status), ("content-type", "application/json")],
            &response["headers"],
        )),
        response_body: bytes(&response["body"]),
        end: End::Body,
        code_details: "via_upstream".into(),
    }
}

/// An exact amount of dollars in pico-dollars.
fn picousd(usd: &str) -> u64 {
    let (whole, fraction) = usd.split_once('.').unwrap_or((usd, ""));
    assert!(fraction.len() <= 12, "{usd} is finer than a pico-dollar");
    format!("{whole}{fraction:0<12}").parse().unwrap()
}

/// A number of a record or of a case as an exact decimal.
fn decimal(number: &Value) -> Decimal {
    Decimal::parse(number.as_str().map_or_else(|| number.to_string(), Into::into).as_str()).unwrap()
}

/// What a record charges, as cases write it: class, quantity, rate, per, multiplier.
fn charged(line: &Value) -> (String, [Decimal; 4]) {
    let multiplier = if line["multiplier"].is_null() { Decimal::ONE } else { decimal(&line["multiplier"]) };
    let numbers = [decimal(&line["quantity"]), decimal(&line["rate_usd"]), decimal(&line["per"]), multiplier];
    (line["class"].as_str().unwrap().into(), numbers)
}

fn expected_charge(line: &Value) -> (String, [Decimal; 4]) {
    let multiplier = line.get(4).map_or(Decimal::ONE, decimal);
    (line[0].as_str().unwrap().into(), [decimal(&line[1]), decimal(&line[2]), decimal(&line[3]), multiplier])
}

/// What differs between a record and what a case expects.
fn differences(record: &Value, expected: &Value) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut compare = |what: &str, found: String, wanted: String| {
        if found != wanted {
            wrong.push(format!("{what}: {found}, expected {wanted}"));
        }
    };
    let cost = expected["cost_usd"].as_str().map(picousd);
    compare("cost", format!("{:?}", record["cost_picousd"].as_u64()), format!("{cost:?}"));
    for field in ["price_status", "priced_model", "priced_by", "notes"] {
        compare(field, record[field].to_string(), expected[field].to_string());
    }
    let (none, lines) = (Vec::new(), record["charges"].as_array());
    let lines = lines.unwrap_or(&none);
    let wanted: Vec<_> = expected["charges"].as_array().unwrap_or(&none).iter().map(expected_charge).collect();
    compare("charges", format!("{:?}", lines.iter().map(charged).collect::<Vec<_>>()), format!("{wanted:?}"));
    if let Some(models) = expected["charge_models"].as_array() {
        let found: Vec<_> = lines.iter().map(|line| line["model"].clone()).collect();
        compare("charge_models", format!("{found:?}"), format!("{models:?}"));
    }
    let sum: u64 = lines.iter().map(|line| line["cost_picousd"].as_u64().unwrap()).sum();
    compare("sum of the charges", sum.to_string(), cost.unwrap_or(0).to_string());
    wrong
}

/// Plays every case; what differs is listed whole, so that one run shows everything.
fn check(driver: &mut impl Driver) {
    let cases = cases();
    assert!(cases.len() >= 100, "the cases are gone");
    let mut wrong = Vec::new();
    for case in &cases {
        let (name, exchange) = (case["name"].as_str().unwrap(), exchange(case));
        for chunking in [Chunking::Whole, Chunking::Every(1)] {
            let outcome = driver.play_at(&exchange, chunking, Some(seconds(&case["at"])));
            let Some(record) = outcome.record else {
                wrong.push(format!("{name} {chunking:?}: no record"));
                continue;
            };
            let found = differences(&record, &case["expected"]);
            wrong.extend(found.into_iter().map(|what| format!("{name} {chunking:?} {what}")));
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn every_case_costs_what_a_calculator_says_natively() {
    check(&mut CoreDriver);
}

#[test]
fn every_case_costs_what_a_calculator_says_in_the_compiled_module() {
    check(&mut WasmDriver::default());
}

#[test]
fn cases_have_names_of_their_own() {
    let cases = cases();
    let mut names: Vec<_> = cases.iter().map(|case| case["name"].as_str().unwrap()).collect();
    names.sort_unstable();
    let all = names.len();
    names.dedup();
    assert_eq!(names.len(), all);
}
