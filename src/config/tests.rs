use super::*;
use crate::price::Biller;
use crate::usage::Class;
use serde_json::json;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

fn errors(text: &str) -> Vec<String> {
    Config::from_bytes(text.as_bytes()).unwrap_err().iter().map(ToString::to_string).collect()
}

#[test]
fn every_section_is_optional() {
    for text in ["", "  ", "{}", r#"{"version":1}"#, r#"{"prices":null}"#] {
        let config = Config::from_bytes(text.as_bytes()).unwrap();
        assert!(config.prices.table.is_empty() && config.collector.is_none(), "{text:?}");
        assert!(config.attribution.max_value_bytes() == 128 && !config.attribution.forwards_headers());
    }
}

#[test]
fn a_whole_configuration_is_read_from_text_and_from_a_struct_alike() {
    let value = json!({
        "version": 1,
        "attribution": {"max_value_bytes": 64, "forward_headers": true},
        "prices": {"version": "2026-11-01", "models": [
            {"provider": "openai", "model": "gpt-4o", "aliases": ["gpt-4o-2024-*"],
             "rates": {"input": "2.50", "cached_input": 1.25, "output": 10}},
        ]},
        "collector": {"cluster": "c", "path": "/v1/records", "headers": {"Authorization": "Bearer x"},
                      "flush_ms": 250, "max_batch": "20"},
    });
    for bytes in [value.to_string().into_bytes(), structpb::tests::encode(&value)] {
        let config = Config::from_bytes(&bytes).unwrap();
        assert!(config.attribution.max_value_bytes() == 64 && config.attribution.forwards_headers());
        assert_eq!(config.prices.table.version(), Some("2026-11-01"));
        let model = config.prices.table.find("gpt-4o-2024-08-06", Biller::Unknown, None).unwrap().0;
        assert_eq!(model.terms.standard.rates.own(Class::Output).unwrap().to_string(), "10");
        assert_eq!(model.terms.standard.rates.own(Class::CachedInput).unwrap().to_string(), "1.25");
        let collector = config.collector.unwrap();
        assert_eq!((collector.flush_ms, collector.max_batch, collector.max_attempts), (250, 20, 8));
        assert_eq!(collector.authority, "c", "the cluster's name where nothing else is said");
        assert_eq!(collector.headers, [("authorization".to_owned(), "Bearer x".to_owned())]);
    }
}

#[test]
fn an_unknown_key_is_told_the_nearest_or_each_that_is_known_once() {
    for (text, expected) in [
        (r#"{"admin": {"token": "x"}}"#, "admin.token: unknown key; known here: path, token_sha256"),
        (
            r#"{"collector": {"cluster": "c", "url": "x"}}"#,
            "collector.url: unknown key; known here: cluster, path, authority, format, content_type, cloudevents, headers, \
             flush_ms, max_batch, max_batch_bytes, max_queue_bytes, max_attempts, timeout_ms",
        ),
        (r#"{"prices": {"modles": []}}"#, "prices.modles: unknown key; did you mean models?"),
        (r#"{"prices": {"providers": {"openai": {"disc": 1}}}}"#, "disc: unknown key; known here: discount, markup"),
    ] {
        let found = errors(text);
        assert!(found.iter().any(|error| error.ends_with(expected)), "{found:?}");
    }
}

#[test]
fn all_errors_come_at_once_each_with_its_path() {
    assert_eq!(
        errors(
            r#"{"version": 2, "budgetts": [], "atribution": {},
                "prices": {"models": [
                    {"model": "a", "rates": {"input": "ten", "imput": "1"}},
                    {"rates": {"input": "-1"}},
                    {"model": "", "rates": []},
                    7
                ]},
                "metering": {"max_request_bytes": 9000, "max_withheld_bytes": 8999, "hold_request_headers": 1},
                "collector": {"path": "v1", "flush_ms": 1.5, "max_batch": 0, "headers": {"a b": "change me"},
                              "format": "xml"}}"#
        ),
        [
            "version: this filter reads version 1",
            "prices.models[0].rates.input: expected a decimal amount, got \"ten\"",
            "prices.models[0].rates.imput: unknown key; did you mean input?",
            "prices.models[1].model: is missing",
            "prices.models[1].rates.input: expected an amount of zero or more, got \"-1\"",
            "prices.models[2].model: must not be empty",
            "prices.models[2].rates: expected an object, got a list",
            "prices.models[3]: expected an object, got 7",
            "metering.max_withheld_bytes: must not be less than max_request_bytes, which is 9000",
            "metering.hold_request_headers: expected true or false, got 1",
            "collector.cluster: is missing",
            "collector.path: must begin with /",
            "collector.format: expected ndjson, json_array, msgpack, otlp_json or cloudevents, got \"xml\"",
            "collector.headers.a b: is no header name",
            "collector.headers.a b: \"change me\" is a placeholder: put the real value here",
            "collector.flush_ms: expected a whole number from 10 to 3600000, got 1.5",
            "collector.max_batch: expected a whole number from 1 to 100000, got 0",
            "budgetts: unknown key; did you mean budgets?",
            "atribution: unknown key; did you mean attribution?",
        ]
    );
}

#[test]
fn a_name_that_stands_for_two_models_says_where_both_are() {
    let model = r#""rates":{"input":"1"}"#;
    assert_eq!(
        errors(&format!(
            r#"{{"prices":{{"models":[{{"model":"a",{model}}},{{"model":"b","aliases":["x-*","a"],{model}}},
                                     {{"model":"a",{model}}}]}}}}"#
        )),
        [
            "prices.models[1].aliases[1]: models[0] (a) has this name already",
            "prices.models[2].model: models[0] (a) has this name already",
        ]
    );
}

#[test]
fn a_key_written_twice_is_an_error() {
    assert_eq!(errors(r#"{"prices":{"version":"a","version":"b"}}"#), ["prices.version: is written twice"]);
}

#[test]
fn what_is_no_json_is_said_with_its_place() {
    assert_eq!(errors("{\"version\": 1,\n  oops}"), ["not valid JSON: key must be a string at line 2 column 3"]);
    assert_eq!(errors("[]"), ["expected an object, got a list"]);
    let error = Config::from_bytes(b"\xff\xfe").unwrap_err();
    assert!(error[0].message.contains("StringValue"), "{}", error[0]);
}

#[test]
fn a_double_that_lost_its_digits_is_refused_and_a_short_one_is_taken() {
    let config = |rate: serde_json::Value| {
        structpb::tests::encode(&json!({"prices": {"models": [{"model": "a", "rates": {"input": rate}}]}}))
    };
    for rate in [json!(0.15), json!(2.5), json!(1e-6), json!("0.1000000000000000055"), json!(123456.789012345)] {
        assert!(Config::from_bytes(&config(rate.clone())).is_ok(), "{rate}");
    }
    let error = Config::from_bytes(&config(json!(0.1 + 0.2))).unwrap_err();
    assert_eq!(error[0].path, "prices.models[0].rates.input");
    assert!(error[0].message.contains("write a string"), "{}", error[0]);
    // The same digits as text are exactly what was written.
    let text = r#"{"prices":{"models":[{"model":"a","rates":{"input":0.30000000000000004}}]}}"#;
    assert!(Config::from_bytes(text.as_bytes()).is_ok());
}

#[test]
fn a_long_value_is_shown_short() {
    let text = format!(r#"{{"collector":{{"cluster":"c","flush_ms":"{}"}}}}"#, "secret".repeat(50));
    assert!(errors(&text)[0].len() < 160, "{}", errors(&text)[0]);
}

#[test]
fn what_the_access_log_shows_is_checked_by_name() {
    let config = |values: &str| {
        format!(
            r#"{{"attribution": {{"dimensions": {{"tenant": {{"from": [{{"header": "x-tenant"}}]}}}}}}, "access_log": {{"values": {values}}}}}"#
        )
    };
    let good = config(r#"["cost_usd", "tags.tenant", "tags.any", "session", "api_key", "id"]"#);
    assert_eq!(Config::from_bytes(good.as_bytes()).unwrap().access_log.values.len(), 6);
    let found = errors(&config(r#"["cost", "model", 7]"#));
    assert!(
        found[0].starts_with("access_log.values[0]: \"cost\" is no single value; expected id, cost_usd,"),
        "{found:?}"
    );
    assert!(found[1].starts_with("access_log.values[1]: \"model\" is no single value"), "{found:?}");
    assert_eq!(found.len(), 3, "{found:?}");
    assert_eq!(errors(r#"{"access_log": {"progress_secs": -1, "value": []}}"#).len(), 2);
}

#[test]
fn what_would_break_every_batch_is_refused_at_load() {
    let found = errors(
        r#"{"collector": {"cluster": "c", "path": "/a\nb", "authority": "a\rb", "content_type": "a\r\nx: 1", "format": "cloudevents",
            "headers": {"Content-Type": "x", "idempotency-key": "1", "x-team": "a\nb"},
            "cloudevents": {"source": "a b", "subject": "tier"}},
            "attribution": {"dimensions": {"record": {"from": [{"header": "x-record"}]}}},
            "access_log": {"values": ["record", "id", "id"]}}"#,
    );
    for wanted in [
        "collector.path: must not have control characters",
        "collector.authority: must not have control characters",
        "collector.content_type: must not have control characters",
        "collector.headers.Content-Type: is set by the filter",
        "collector.headers.idempotency-key: is set by the filter",
        "collector.headers.x-team: must not have control characters",
        "collector.cloudevents.source: expected a URI reference",
        "collector.cloudevents.subject: \"tier\" is no single value",
        "access_log.values[0]: \"record\" is no single value",
        "access_log.values[2]: is there twice",
    ] {
        assert!(found.iter().any(|error| error.starts_with(wanted)), "{wanted} in {found:#?}");
    }
    assert_eq!(found.len(), 10, "{found:#?}");
}
