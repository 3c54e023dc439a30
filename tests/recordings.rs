//! Real provider answers, where they are at hand.
//!
//! They are not part of the project: `recordings/index.json` is looked for in `$TOLLGATE_RECORDINGS`, else in
//! `../shared/recordings` beside the checkout. The project's own fixtures cover the same shapes without them.

use crate::golden::{config, gzip};
use crate::support::chunks::Chunking;
use crate::support::core_driver::CoreDriver;
use crate::support::exchange::{Driver, End, Exchange, Headers};
use crate::support::wasm_driver::WasmDriver;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

fn directory() -> Option<PathBuf> {
    let named = std::env::var_os("TOLLGATE_RECORDINGS").map(PathBuf::from);
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/recordings");
    named.or_else(|| beside.join("index.json").exists().then_some(beside))
}

fn recordings(directory: &Path) -> Vec<Value> {
    serde_json::from_slice(&fs::read(directory.join("index.json")).unwrap()).unwrap()
}

fn exchange(recording: &Value, body: Vec<u8>, encoded: bool) -> Exchange {
    let text = |field: &str| recording[field].as_str().unwrap_or_default().as_bytes().to_vec();
    let mut response: Headers =
        vec![(":status".into(), b"200".to_vec()), ("content-type".into(), text("content_type"))];
    if encoded {
        response.push(("content-encoding".into(), b"gzip".to_vec()));
    }
    Exchange {
        config: config(),
        request_headers: vec![(":method".into(), text("method")), (":path".into(), text("path"))],
        request_body: b"{}".to_vec(),
        response_headers: Some(response),
        response_body: body,
        end: End::Body,
        code_details: "via_upstream".into(),
    }
}

fn check(driver: &mut impl Driver) {
    let Some(directory) = directory() else {
        eprintln!("no recordings at hand; the fixtures cover the same shapes");
        return;
    };
    for recording in recordings(&directory) {
        let file = recording["file"].as_str().unwrap();
        let body = fs::read(directory.join(file)).unwrap();
        let encoded = recording["content_encoding"] == "gzip";
        let mut variants = vec![exchange(&recording, body.clone(), encoded)];
        if !encoded {
            variants.push(exchange(&recording, gzip(&body), true));
        }
        for variant in &variants {
            for chunking in Chunking::ALL {
                let record = driver.play(variant, chunking).record.unwrap();
                for (ours, theirs) in [
                    ("input_tokens", "input_total"),
                    ("cached_input_tokens", "cache_read"),
                    ("cache_creation_input_tokens", "cache_write"),
                    ("cache_creation_1h_input_tokens", "cache_write_1h"),
                    ("input_audio_tokens", "input_audio"),
                    ("output_audio_tokens", "output_audio"),
                    ("output_tokens", "output_total"),
                    ("reasoning_tokens", "reasoning"),
                ] {
                    // The index writes 0 where the answer is silent; the record leaves it out.
                    let expected = recording["expected"][theirs].as_u64();
                    let found = record[ours].as_u64().filter(|_| record["usage_source"] == "reported");
                    let silent = |count: Option<u64>| count.is_none() || count == Some(0);
                    assert!(
                        found == expected || (silent(found) && silent(expected)),
                        "{file} {chunking:?} {ours}: {found:?}, expected {expected:?}"
                    );
                }
                let source = if recording["expected"].is_null() { "estimated" } else { "reported" };
                assert_eq!(record["usage_source"], source, "{file} {chunking:?}");
            }
        }
    }
}

#[test]
fn recorded_answers_give_the_usage_that_was_billed_natively() {
    check(&mut CoreDriver);
}

#[test]
fn recorded_answers_give_the_usage_that_was_billed_in_the_compiled_module() {
    check(&mut WasmDriver::default());
}
