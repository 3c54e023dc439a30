use super::*;

const STRUCT: &str = "\"@type\": type.googleapis.com/google.protobuf.Struct";
const STRING: &str = "\"@type\": type.googleapis.com/google.protobuf.StringValue";

fn yaml(text: &str) -> anyhow::Result<Configured> {
    configured(&Document::parse(text, Dialect::Yaml).unwrap())
}

fn json(text: &str) -> anyhow::Result<Configured> {
    configured(&Document::parse(text, Dialect::Json).unwrap())
}

fn the_one(configured: anyhow::Result<Configured>) -> Found {
    let mut filters = configured.unwrap().filters;
    assert_eq!(filters.len(), 1);
    filters.remove(0)
}

fn flush_ms(found: &Found) -> u32 {
    found.read().unwrap().collector.unwrap().flush_ms
}

/// A plugin in YAML, as one line.
fn plugin(root_id: &str, module: &str, flush_ms: u32) -> String {
    let value = format!("{{collector: {{cluster: c, flush_ms: {flush_ms}}}}}");
    format!(
        "{{root_id: {root_id}, vm_config: {{code: {{local: {{filename: {module}}}}}}}, configuration: {{{STRUCT}, value: \
         {value}}}}}"
    )
}

#[test]
fn a_filter_is_found_wherever_envoy_can_have_one() {
    let plugin = plugin("tollgate", "/etc/t.wasm", 77);
    for place in [
        format!(
            "static_resources: {{listeners: [{{filter_chains: [{{filters: [{{typed_config: {{http_filters: [{{typed_config: {{config: {plugin}}}}}]}}}}]}}]}}]}}"
        ),
        format!("routes: [{{typed_per_filter_config: {{tollgate: {{config: {plugin}}}}}}}]"),
        format!("resources: [{{\"@type\": x, typed_config: {{type_url: y, value: {{config: {plugin}}}}}}}]"),
        format!("typed_config: {{config: {plugin}}}"),
        format!(
            "kind: EnvoyFilter\nspec: {{configPatches: [{{patch: {{value: {{typed_config: {{config: {plugin}}}}}}}}}]}}"
        ),
        format!("kind: Service\n---\nconfig: {plugin}\n"),
    ] {
        assert_eq!(flush_ms(&the_one(yaml(&place))), 77, "{place}");
    }
}

#[test]
fn a_config_dump_is_json_with_the_names_of_either_case() {
    let dump = r#"{"configs": [{"@type": "x", "dynamic_listeners": [{"config": {"rootId": "tollgate", "vmConfig": {},
        "configuration": {"@type": "type.googleapis.com/google.protobuf.Struct",
        "value": {"collector": {"cluster": "c", "flush_ms": 50}}}}}]}]}"#;
    assert_eq!(flush_ms(&the_one(json(dump))), 50);
}

#[test]
fn of_several_wasm_filters_it_is_those_that_are_called_so() {
    let [ours, named, other] = [
        plugin("tollgate", "/etc/a.wasm", 1000),
        plugin("x", "/etc/tollgate.wasm", 2000),
        plugin("y", "/etc/coraza.wasm", 3000),
    ];
    for (plugins, found) in [
        (format!("[{other}, {ours}]"), Some(vec![1000])),
        (format!("[{other}, {named}, {ours}]"), Some(vec![2000, 1000])),
        (format!("[{other}]"), Some(vec![3000])),
        (format!("[{other}, {other}]"), None),
    ] {
        let read = yaml(&format!("http_filters: {plugins}")).ok();
        let read = read.map(|configured| configured.filters.iter().map(flush_ms).collect::<Vec<_>>());
        assert_eq!(read, found, "{plugins}");
    }
}

#[test]
fn a_file_without_the_filter_says_so() {
    for (text, message) in [
        ("", "it is empty"),
        ("static_resources: {clusters: []}", "it has no Wasm filter"),
        ("version: 1\n---\nversion: 1\n", "several documents"),
    ] {
        assert!(yaml(text).unwrap_err().to_string().contains(message), "{text}");
    }
    let bare = the_one(yaml("version: 1\ncollector: {cluster: c, flush_ms: 20}"));
    assert_eq!(flush_ms(&bare), 20);
}

#[test]
fn amounts_arrive_as_envoy_delivers_them() {
    let plugin = |number: &str| {
        format!(
            "{{\"root_id\": \"tollgate\", \"vm_config\": {{}}, \"configuration\": {{{STRUCT_JSON}, \"value\":
             {{\"reservation\": {{\"tokens_per_byte\": {number}}}}}}}}}"
        )
    };
    const STRUCT_JSON: &str = "\"@type\": \"type.googleapis.com/google.protobuf.Struct\"";
    // In YAML a fraction is a string to Envoy; in JSON it is a double, which must not be too long to be meant.
    let long = "0.1234567890123456789";
    assert!(the_one(yaml(&plugin(long))).read().is_ok());
    assert!(the_one(json(&plugin("0.25"))).read().is_ok());
    let errors = the_one(json(&plugin(long))).read().unwrap_err();
    assert!(errors[0].message.contains("write a string"), "{errors:?}");
}

#[test]
fn json_in_a_string_is_read_with_the_places_of_the_file() {
    let text = format!(
        "config:\n  root_id: tollgate\n  vm_config: {{}}\n  configuration:\n    {STRING}\n    value: |\n      {{\n        \
         \"collector\": {{\n          \"cluster\": 7\n"
    );
    let whole = format!("{text}        }}\n      }}\n");
    let found = the_one(yaml(&whole));
    let errors = found.read().unwrap_err();
    assert_eq!(errors[0].path, "collector.cluster");
    assert_eq!(found.tree.locate(&errors[0].path).to_string(), "9:11");

    let cut = the_one(yaml(&text));
    let errors = cut.read().unwrap_err();
    assert!(errors[0].message.contains("not valid JSON"), "{errors:?}");
    assert_eq!(cut.tree.locate(&errors[0].path).line, 10);
}

#[test]
fn a_configuration_of_another_type_is_refused() {
    for (configuration, message) in [
        ("{value: {version: 1}}", "no \"@type\""),
        ("{\"@type\": type.googleapis.com/google.protobuf.Int32Value, value: 1}", "is a google.protobuf.Int32Value"),
        ("{\"@type\": type.googleapis.com/google.protobuf.BytesValue, value: '%'}", "not base64"),
    ] {
        let text = format!("root_id: tollgate\nvm_config: {{}}\nconfiguration: {configuration}");
        let error = yaml(&text).unwrap_err().to_string();
        assert!(error.starts_with("3:") && error.contains(message), "{error}");
    }
    let bytes = STANDARD.encode(r#"{"collector": {"cluster": "c", "flush_ms": 30}}"#);
    let value = format!("{{\"@type\": type.googleapis.com/google.protobuf.BytesValue, value: {bytes}}}");
    let found = the_one(yaml(&format!("root_id: tollgate\nvm_config: {{}}\nconfiguration: {value}")));
    assert_eq!(flush_ms(&found), 30);
}

#[test]
fn clusters_are_known_only_where_none_can_come_later() {
    let config = plugin("tollgate", "t.wasm", 100);
    for (rest, known) in [
        ("static_resources: {clusters: [{name: a}, {name: b}]}", Some(vec!["a", "b"])),
        ("static_resources: {clusters: [{name: a}]}\ndynamic_resources: {cds_config: {ads: {}}}", None),
        ("x: 1", None),
    ] {
        let configured = yaml(&format!("config: {config}\n{rest}")).unwrap();
        let clusters = configured.clusters.map(|clusters| clusters.into_iter().collect::<Vec<_>>());
        assert_eq!(clusters, known.map(|known| known.into_iter().map(String::from).collect()), "{rest}");
    }
}
