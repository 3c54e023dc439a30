//! Costs that were worked out by hand from provider documentation and recordings, where they are at hand.
//!
//! They are not part of the project: `vectors/cost_vectors.json` is looked for in `$TOLLGATE_VECTORS`, else in
//! `../shared/vectors` beside the checkout. The project's own cases cover the same rules without them. A vector has a
//! response, and its model's entry in LiteLLM's table; the entry is turned into a price table here, by rules just
//! enough for the vectors.

use super::{picousd, seconds};
use crate::support::chunks::Chunking;
use crate::support::core_driver::CoreDriver;
use crate::support::exchange::{Driver, End, Exchange};
use crate::support::wasm_driver::WasmDriver;
use serde_json::{Map, Value, json};
use std::fs;
use std::path::{Path, PathBuf};

fn vectors() -> Option<Value> {
    let named = std::env::var_os("TOLLGATE_VECTORS").map(PathBuf::from);
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/vectors");
    let file = named.unwrap_or(beside).join("cost_vectors.json");
    file.exists().then(|| serde_json::from_slice(&fs::read(file).unwrap()).unwrap())
}

/// The classes of LiteLLM's prices per token.
const CLASSES: [(&str, &str); 10] = [
    ("input_cost_per_token", "input"),
    ("cache_read_input_token_cost", "cached_input"),
    ("cache_creation_input_token_cost_above_1hr", "cache_creation_1h"),
    ("cache_creation_input_token_cost", "cache_creation"),
    ("input_cost_per_audio_token", "input_audio"),
    ("cache_read_input_audio_token_cost", "cached_input_audio"),
    ("input_cost_per_image_token", "input_image"),
    ("output_cost_per_reasoning_token", "reasoning"),
    ("output_cost_per_audio_token", "output_audio"),
    ("output_cost_per_token", "output"),
];

/// A price per token as one per million, by moving the point.
fn per_million(price: &str, percent: i32) -> String {
    let (mantissa, exponent) = price.split_once('e').unwrap_or((price, "0"));
    match percent {
        100 => format!("{mantissa}e{}", exponent.parse::<i32>().unwrap() + 6),
        50 => {
            let digits: u64 = mantissa.replace('.', "").parse().unwrap();
            let places = mantissa.split_once('.').map_or(0, |(_, fraction)| fraction.len());
            format!("{}e{}", digits * 5, exponent.parse::<i32>().unwrap() + 5 - i32::try_from(places).unwrap())
        }
        _ => panic!("{percent} percent"),
    }
}

/// The rates among `prices` whose keys end in `suffix`, which is taken off.
fn rates(prices: &Map<String, Value>, suffix: &str) -> Map<String, Value> {
    let rate = |(key, class): (&str, &str)| {
        let price = prices.get(&format!("{key}{suffix}"))?.as_str()?;
        Some((class.to_owned(), Value::from(per_million(price, 100))))
    };
    CLASSES.into_iter().filter_map(rate).collect()
}

/// Rates and context tiers of one service tier; an empty suffix is the ordinary one.
fn schedule(prices: &Map<String, Value>, provider: &str, suffix: &str) -> Value {
    let bound = if provider == "xai" { "input_from" } else { "input_over" };
    let mut tiers = Vec::new();
    for thousands in [100, 128, 200, 272, 512] {
        let rates = rates(prices, &format!("_above_{thousands}k_tokens{suffix}"));
        if !rates.is_empty() {
            tiers.push(json!({bound: thousands * 1000, "rates": rates}));
        }
    }
    json!({"rates": rates(prices, suffix), "tiers": tiers})
}

/// A price table of one model.
fn table(vector: &Value) -> Value {
    let prices = vector["prices"].as_object().unwrap();
    let text = |value: &Value, key: &str| value[key].as_str().map(ToOwned::to_owned);
    let provider = vector["provider"].as_str().unwrap();
    let mut model = schedule(prices, provider, "");
    model["model"] = vector["model"].clone();
    for (suffix, name) in [("_flex", "flex"), ("_priority", "priority"), ("_batches", "batch")] {
        let mut tier = schedule(prices, provider, suffix);
        // There is no key for an hour's cache write in a batch: like all else it costs half.
        if let Some(hour) = prices.get("cache_creation_input_token_cost_above_1hr").filter(|_| name == "batch") {
            tier["rates"]["cache_creation_1h"] = per_million(hour.as_str().unwrap(), 50).into();
        }
        model["service_tiers"][name] = tier;
    }
    if let Some(search) = text(&vector["prices"]["search_context_cost_per_query"], "search_context_size_medium") {
        let unit = if provider == "google" { "grounded_requests" } else { "web_search_requests" };
        model["units"][unit] = search.into();
    }
    if let Some(second) = text(&vector["prices"], "input_cost_per_second") {
        model["units"]["audio_seconds"] = second.into();
    }
    for (factor, kind) in [("us", "geo"), ("fast", "speed")] {
        if let Some(multiple) = text(&vector["prices"]["provider_specific_entry"], factor) {
            model["multipliers"][kind][factor] = multiple.into();
        }
    }
    if let Some(ranges) = prices.get("tiered_pricing").and_then(Value::as_array) {
        // A range is open below and closed above.
        let from = |range: &Value| range["range"][0].as_str().unwrap().trim_end_matches(".0").parse::<u64>().unwrap();
        let row = |range: &Value| rates(range.as_object().unwrap(), "");
        model["rates"] = row(&ranges[0]).into();
        let tiers = ranges.iter().skip(1).map(|range| json!({"input_over": from(range), "rates": row(range)}));
        model["tiers"] = tiers.collect();
    }
    if let Some(off_peak) = prices.get("off_peak_pricing").and_then(Value::as_object) {
        let block = |window: &Value| {
            let days = window["weekdays"].as_array().unwrap().iter();
            let days: Vec<u64> = days.map(|day| day.as_str().unwrap().parse().unwrap()).collect();
            json!({"hours_utc": window["hours_utc"], "weekdays": days, "rates": rates(off_peak, "")})
        };
        model["off_peak"] = off_peak["windows"].as_array().unwrap().iter().map(block).collect();
    }
    json!({"models": [model]})
}

/// Path, and body where it is not JSON, of the request that a vector's response answers.
fn request(vector: &Value) -> (String, Option<String>) {
    let (endpoint, model) = (vector["endpoint"].as_str().unwrap(), vector["model"].as_str().unwrap());
    let word = endpoint.split([' ', '(']).next().unwrap();
    let path = match word {
        "embeddings" => "/v1/embeddings".into(),
        "messages" | "message" => "/v1/messages".into(),
        "generateContent" => format!("/v1beta/models/{model}:generateContent"),
        "converse" => format!("/model/{model}/converse"),
        "v2/chat" => "/v2/chat".into(),
        "audio.transcriptions" => {
            let form = format!("--b\r\ncontent-disposition: form-data; name=\"model\"\r\n\r\n{model}\r\n--b--\r\n");
            return ("/v1/audio/transcriptions".into(), Some(form));
        }
        "chat.completions" | "batch" | "azure" => "/v1/chat/completions".into(),
        other => panic!("unknown endpoint {other}"),
    };
    (path, None)
}

fn exchange(vector: &Value) -> Exchange {
    let (path, form) = request(vector);
    let content_type = if form.is_some() { "multipart/form-data; boundary=b" } else { "application/json" };
    let mut response = vector["response"].clone();
    if vector["endpoint"] == "batch" {
        // The result of a batch does not say what it is.
        response["service_tier"] = "batch".into();
    }
    let header = |name: &str, value: &str| (name.to_owned(), value.as_bytes().to_vec());
    Exchange {
        config: json!({"prices": table(vector)}).to_string().into_bytes(),
        request_headers: vec![header(":method", "POST"), header(":path", &path), header("content-type", content_type)],
        request_body: form.unwrap_or_else(|| json!({"model": vector["model"]}).to_string()).into_bytes(),
        response_headers: Some(vec![header(":status", "200"), header("content-type", "application/json")]),
        response_body: serde_json::to_vec(&response).unwrap(),
        end: End::Body,
        code_details: "via_upstream".into(),
    }
}

fn check(driver: &mut impl Driver) {
    let Some(vectors) = vectors() else {
        eprintln!("no cost vectors at hand; the cases cover the same rules");
        return;
    };
    let list = vectors["vectors"].as_array().unwrap();
    assert!(!list.is_empty());
    let mut wrong = Vec::new();
    for vector in list {
        let time = if vector["context"]["time"].is_null() { "billing_time_default" } else { "context" };
        let time = if time == "context" { &vector["context"]["time"] } else { &vectors[time] };
        let record = driver.play_at(&exchange(vector), Chunking::Whole, Some(seconds(time))).record.unwrap();
        let expected = picousd(vector["expected_cost_usd"].as_str().unwrap());
        if record["cost_picousd"].as_u64() != Some(expected) {
            wrong.push(format!("{} ({}): expected {expected} of {record}", vector["id"], vector["why"]));
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn the_vectors_cost_what_was_worked_out_by_hand_natively() {
    check(&mut CoreDriver);
}

#[test]
fn the_vectors_cost_what_was_worked_out_by_hand_in_the_compiled_module() {
    check(&mut WasmDriver::default());
}
