//! The table of attribution, `attribution.json`: every source, their precedence, locks and bad values, on the core and
//! in the compiled module. `tests/envoy/test_attribution.py` sends the same calls through real Envoy.

use crate::support::chunks::Chunking;
use crate::support::core_driver::borrowed;
use crate::support::exchange::Headers;
use crate::support::wasm_driver::{set_properties, start};
use serde_json::{Value, json};
use std::rc::Rc;
use tollgate::config::Config;
use tollgate::exchange::{Context, Ending, Event, Exchange, Route};
use tollgate::identity::Instance;
use tollgate::memory::MemoryHost;

fn table() -> Value {
    serde_json::from_str(include_str!("attribution.json")).unwrap()
}

fn config(table: &Value) -> Vec<u8> {
    json!({"attribution": table["attribution"], "metering": {"inject_include_usage": false}}).to_string().into_bytes()
}

/// A value as Envoy hands it over: numbers in metadata are doubles, and a list is a message.
fn property(value: &Value) -> Option<Vec<u8>> {
    match value {
        Value::String(text) => Some(text.clone().into_bytes()),
        Value::Number(number) => Some(number.as_f64().unwrap().to_le_bytes().to_vec()),
        Value::Bool(flag) => Some(vec![u8::from(*flag)]),
        Value::Array(_) => Some(b"\x0a\x03\x1a\x01a\x0a\x03\x1a\x01b".to_vec()),
        _ => None,
    }
}

fn metadata(path: &str) -> String {
    path.strip_prefix("metadata\0filter_metadata\0caller\0").expect("all properties are the caller's metadata").into()
}

fn headers(case: &Value) -> Headers {
    let mut headers: Headers = [(":method", "POST"), (":path", case["path"].as_str().unwrap())]
        .map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()))
        .into();
    headers.push(("content-type".into(), b"application/json".to_vec()));
    headers.push(("x-cost-session".into(), b"s-1".to_vec()));
    for pair in case["headers"].as_array().unwrap() {
        let bytes = pair[1].as_str().unwrap().chars().map(|c| u8::try_from(u32::from(c)).unwrap()).collect();
        headers.push((pair[0].as_str().unwrap().to_lowercase(), bytes));
    }
    headers
}

fn natively(table: &Value, case: &Value, chunking: Chunking) -> Value {
    let config = Config::from_bytes(&config(table)).unwrap();
    let mut host = MemoryHost::default();
    let mut instance = Instance::register(&mut host, None);
    let mut exchange = Exchange::new(Rc::new(config));
    let properties: Vec<_> =
        exchange.wants_properties().iter().map(|path| property(&table["metadata"][metadata(path)])).collect();
    let (headers, body) = (headers(case), case["body"].to_string());
    let mut on = |event: Event<'_>| drop(exchange.on(event, &mut Context { host: &mut host, instance: &mut instance }));
    let route = Route { properties: &properties, ..Route::default() };
    on(Event::RequestHeaders { headers: &borrowed(&headers), route, end_of_stream: false });
    for chunk in chunking.cut(body.as_bytes()) {
        on(Event::RequestBody { chunk, end_of_stream: false });
    }
    on(Event::RequestBody { chunk: b"", end_of_stream: true });
    on(Event::Log(Ending::default()));
    serde_json::from_slice(&host.records[0].to_json().unwrap()).unwrap()
}

fn in_wasm(vm: &crate::support::wasm_host::Vm, table: &Value, case: &Value, chunking: Chunking) -> Value {
    let call = vm.stream();
    set_properties(&call, "via_upstream");
    for (name, value) in table["metadata"].as_object().unwrap() {
        call.set_property(&["metadata", "filter_metadata", "caller", name], property(value).unwrap());
    }
    let headers = headers(case);
    let borrowed: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_slice())).collect();
    call.request_headers(&borrowed, false).unwrap();
    let left: Vec<_> = call.upstream_headers().0.into_iter().map(|(name, _)| name).collect();
    let ours = ["x-owner-team", "helicone-property-feature", "x-project", "x-groups"];
    let leaked = left.iter().find(|name| name.starts_with("x-cost-") || ours.contains(&name.as_str()));
    assert_eq!(leaked, None, "{case}: reached the provider");
    for kept in ["authorization", "x-api-key", "api-key", "baggage", "x-trace-id"] {
        let sent = headers.iter().any(|(name, _)| name == kept);
        assert_eq!(left.iter().any(|name| name == kept), sent, "{case}: {kept}");
    }
    for chunk in chunking.cut(case["body"].to_string().as_bytes()) {
        call.request_body(chunk, false).unwrap();
    }
    call.request_body("", true).unwrap();
    call.finish().unwrap();
    serde_json::from_str(&call.filter_state("tollgate.record").expect("a record")).unwrap()
}

fn check(case: &Value, record: &Value) {
    for (field, value) in case["expect"].as_object().unwrap() {
        // An absent field and null are the same to `[]`.
        assert_eq!(&record[field], value, "{}: {field} in {record}", case["about"]);
    }
    let text = record.to_string();
    for secret in ["sk-support", "sk-stranger", "sk-nameless"] {
        assert!(!text.contains(secret), "{}: {text}", case["about"]);
    }
}

#[test]
fn every_call_is_charged_as_the_table_says_natively() {
    let table = table();
    for case in table["cases"].as_array().unwrap() {
        for chunking in Chunking::ALL {
            check(case, &natively(&table, case, chunking));
        }
    }
}

#[test]
fn every_call_is_charged_as_the_table_says_in_the_compiled_module() {
    let table = table();
    let (_process, vm) = start(&config(&table));
    for case in table["cases"].as_array().unwrap() {
        for chunking in Chunking::ALL {
            check(case, &in_wasm(&vm, &table, case, chunking));
        }
    }
    let said = format!("{:?}", vm.logs());
    for secret in ["sk-support", "sk-stranger", "sk-nameless"] {
        assert!(!said.contains(secret), "{said}");
    }
}
