use super::*;
use serde_json::{Value, json};
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

const USAGE: &str = r#"{"schema_version":1,"type":"usage","id":"0199-1","instance":"gw-1-1","seq":3,"ts":"2026-11-21T12:00:00.000001Z","ttft_ms":45,"trace_id":"5b8efff798038103d269b633813fc60c","span_id":"eee19b7ec3c1b174","gateway":"gw","department":"sales","session":"s-1","tags":{"tier":"gold","é\"":"x"},"attribution_source":{"department":"header"},"provider":"bedrock","api":"bedrock_converse","operation":"chat","request_model":"m","response_model":"m-2","stream":true,"status":200,"finish_reason":"stop","end_reason":"complete","decision":"allowed","input_tokens":1234,"cached_input_tokens":1000,"output_tokens":18446744073709551615,"usage_source":"reported","cost_picousd":170141183460469231731687303715884105727,"cost_usd":0.000000000000000001,"charges":[{"model":"m","class":"input","quantity":12.5,"unit":"seconds","rate_usd":2.5,"per":1000000,"cost_picousd":-7}],"notes":["a","b"]}"#;

const ALERT: &str = r#"{"schema_version":1,"type":"budget_alert","id":"0199-2","instance":"gw-1-1","seq":1,"ts":"2026-11-21T12:00:01Z","budget":"month","scope":{"department":"sales"},"threshold_percent":80,"spent_usd":8.5,"spent_tokens":0}"#;

fn body(format: Format, lines: &[&str]) -> Vec<u8> {
    let config = CollectorConfig { format, ..CollectorConfig::default() };
    let lines: Vec<_> = lines.iter().map(|line| line.as_bytes().to_vec()).collect();
    encode(&config, &lines, 1_795_262_402_000_000_000)
}

fn parsed(format: Format, lines: &[&str]) -> Value {
    serde_json::from_slice(&body(format, lines)).unwrap()
}

#[test]
fn ndjson_is_a_record_a_line_to_the_letter() {
    assert_eq!(body(Format::Ndjson, &[USAGE, ALERT]), format!("{USAGE}\n{ALERT}\n").as_bytes());
}

#[test]
fn a_json_array_has_the_same_records() {
    assert_eq!(body(Format::JsonArray, &[USAGE, ALERT]), format!("[{USAGE},{ALERT}]").as_bytes());
    assert_eq!(body(Format::JsonArray, &[USAGE]), format!("[{USAGE}]").as_bytes());
}

#[test]
fn what_is_no_json_is_left_out_where_a_format_has_to_read_it() {
    for format in [Format::CloudEvents, Format::OtlpJson] {
        let clean = parsed(format, &[USAGE, ALERT]);
        let among_others = parsed(format, &["{", USAGE, "", ALERT, "nonsense"]);
        assert!(among_others == clean, "{format:?}: {among_others}");
        assert!(parsed(format, &["nonsense"]).is_object() || parsed(format, &["nonsense"]) == json!([]));
    }
    assert_eq!(body(Format::Msgpack, &["x", USAGE]), body(Format::Msgpack, &[USAGE]));
}

#[test]
fn cloud_events_wrap_each_record_and_can_be_told_apart_by_id_and_source() {
    let events = parsed(Format::CloudEvents, &[USAGE, ALERT]);
    assert_eq!(
        events[0],
        json!({"specversion": "1.0", "id": "0199-1", "source": "tollgate", "type": "tollgate.usage", "subject": "sales",
               "time": "2026-11-21T12:00:00.000001Z", "datacontenttype": "application/json",
               "data": serde_json::from_str::<Value>(USAGE).unwrap()})
    );
    assert_eq!((&events[1]["type"], &events[1]["subject"]), (&json!("tollgate.budget_alert"), &json!("unattributed")));
    let wrapped = String::from_utf8(body(Format::CloudEvents, &[USAGE])).unwrap();
    assert!(wrapped.contains(USAGE), "the record is the same to the last digit");
}

#[test]
fn the_subject_of_a_cloud_event_is_any_field_or_tag() {
    for (field, subject) in [("session", "s-1"), ("tags.tier", "gold"), ("tier", "gold"), ("team", "unattributed")] {
        let cloudevents = CloudEventsConfig { source: "//gw".into(), subject: field.into() };
        let config = CollectorConfig { format: Format::CloudEvents, cloudevents, ..CollectorConfig::default() };
        let events: Value = serde_json::from_slice(&encode(&config, &[USAGE.into()], 0)).unwrap();
        assert_eq!((&events[0]["subject"], &events[0]["source"]), (&json!(subject), &json!("//gw")), "{field}");
    }
}

#[test]
fn msgpack_keeps_every_digit() {
    let bytes = body(Format::Msgpack, &[USAGE, ALERT]);
    let records: Vec<Value> = rmp_serde::from_slice(&bytes).unwrap();
    let [usage, alert] = &*records else { panic!("{records:?}") };
    for (field, value) in [
        ("seq", json!(3)),
        ("stream", json!(true)),
        ("department", json!("sales")),
        ("cost_usd", json!("0.000000000000000001")),
        ("cost_picousd", json!("170141183460469231731687303715884105727")),
        ("output_tokens", json!("18446744073709551615")),
        ("tags", json!({"tier": "gold", "é\"": "x"})),
        ("notes", json!(["a", "b"])),
    ] {
        assert_eq!(usage[field], value, "{field}");
    }
    assert_eq!(usage["charges"][0]["cost_picousd"], json!(-7));
    assert_eq!(usage["charges"][0]["quantity"], json!("12.5"));
    assert_eq!(alert["spent_usd"], json!("8.5"));
    let fields = serde_json::from_str::<Value>(USAGE).unwrap();
    assert_eq!(usage.as_object().unwrap().len(), fields.as_object().unwrap().len());
}

fn attributes(list: &Value) -> std::collections::BTreeMap<String, Value> {
    let entry = |entry: &Value| (entry["key"].as_str().unwrap().to_owned(), entry["value"].clone());
    list.as_array().unwrap().iter().map(entry).collect()
}

#[test]
fn otlp_names_what_the_conventions_name() {
    let request = parsed(Format::OtlpJson, &[USAGE, ALERT]);
    let logs = &request["resourceLogs"][0];
    let resource = attributes(&logs["resource"]["attributes"]);
    assert_eq!(resource["service.name"], json!({"stringValue": "tollgate"}));
    assert_eq!(resource["service.instance.id"], json!({"stringValue": "gw-1-1"}));
    let records = &logs["scopeLogs"][0]["logRecords"];
    let usage = &records[0];
    for (field, value) in [
        ("timeUnixNano", json!("1795262400000001000")),
        ("observedTimeUnixNano", json!("1795262402000000000")),
        ("severityNumber", json!(9)),
        ("eventName", json!("llm.cost.usage")),
        ("traceId", json!("5b8efff798038103d269b633813fc60c")),
        ("spanId", json!("eee19b7ec3c1b174")),
        ("body", json!({"stringValue": "usage bedrock m complete allowed 0199-1"})),
    ] {
        assert_eq!(usage[field], value, "{field}");
    }
    let found = attributes(&usage["attributes"]);
    for (key, value) in [
        ("gen_ai.operation.name", json!({"stringValue": "chat"})),
        ("gen_ai.provider.name", json!({"stringValue": "aws.bedrock"})),
        ("gen_ai.request.model", json!({"stringValue": "m"})),
        ("gen_ai.response.model", json!({"stringValue": "m-2"})),
        ("gen_ai.request.stream", json!({"boolValue": true})),
        ("gen_ai.response.finish_reasons", json!({"arrayValue": {"values": [{"stringValue": "stop"}]}})),
        ("gen_ai.response.time_to_first_chunk", json!({"doubleValue": 0.045})),
        ("gen_ai.usage.input_tokens", json!({"intValue": "1234"})),
        ("gen_ai.usage.cache_read.input_tokens", json!({"intValue": "1000"})),
        ("gen_ai.usage.output_tokens", json!({"stringValue": "18446744073709551615"})),
        ("gen_ai.conversation.id", json!({"stringValue": "s-1"})),
        ("http.response.status_code", json!({"intValue": "200"})),
        ("llm.cost.id", json!({"stringValue": "0199-1"})),
        ("llm.cost.type", json!({"stringValue": "usage"})),
        ("llm.cost.department", json!({"stringValue": "sales"})),
        ("llm.cost.tags.tier", json!({"stringValue": "gold"})),
        ("llm.cost.picousd", json!({"stringValue": "170141183460469231731687303715884105727"})),
        ("llm.cost.usd", json!({"doubleValue": 0.000000000000000001})),
        (
            "llm.cost.attribution_source",
            json!({"kvlistValue": {"values": [{"key": "department", "value": {"stringValue": "header"}}]}}),
        ),
        ("llm.cost.notes", json!({"arrayValue": {"values": [{"stringValue": "a"}, {"stringValue": "b"}]}})),
    ] {
        assert_eq!(found.get(key), Some(&value), "{key}");
    }
    assert!(!found.keys().any(|key| key.contains("trace_id") || key == "llm.cost.ts"), "{found:?}");
    let charge = &found["llm.cost.charges"]["arrayValue"]["values"][0]["kvlistValue"]["values"];
    assert_eq!(attributes(charge)["cost_picousd"], json!({"intValue": "-7"}));
    let alert = &records[1];
    assert_eq!((&alert["severityText"], &alert["eventName"]), (&json!("WARN"), &json!("llm.cost.budget_alert")));
    assert_eq!(attributes(&alert["attributes"])["llm.cost.scope.department"], json!({"stringValue": "sales"}));
}

#[test]
fn a_trace_id_that_is_none_of_opentelemetrys_is_an_attribute() {
    let line = r#"{"type":"usage","ts":"x","trace_id":"my-trace","span_id":"eee19b7ec3c1b17Z","ttft_ms":7}"#;
    let request = parsed(Format::OtlpJson, &[line]);
    let record = &request["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0];
    assert_eq!((record.get("traceId"), record.get("spanId")), (None, None));
    assert_eq!(record["timeUnixNano"], json!("1795262402000000000"), "when it was sent, where nobody says better");
    let found = attributes(&record["attributes"]);
    assert_eq!(found["llm.cost.trace_id"], json!({"stringValue": "my-trace"}));
    assert_eq!(found["gen_ai.response.time_to_first_chunk"], json!({"doubleValue": 0.007}));
}

#[test]
fn a_partial_success_says_how_many_it_did_not_take() {
    for (answer, number) in [
        (r#"{"partialSuccess":{"rejectedLogRecords":"3","errorMessage":"x"}}"#, 3),
        (r#"{"partialSuccess":{"rejectedLogRecords":2}}"#, 2),
        (r#"{"partialSuccess":{"rejectedLogRecords":-2}}"#, 0),
        (r#"{"partialSuccess":{}}"#, 0),
        (r#"{"partialSuccess":null}"#, 0),
        ("{}", 0),
        ("", 0),
        ("<html>", 0),
    ] {
        assert_eq!(rejected(Format::OtlpJson, answer.as_bytes()), number, "{answer}");
        assert_eq!(rejected(Format::Ndjson, answer.as_bytes()), 0, "{answer}");
    }
}
