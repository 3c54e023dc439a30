use crate::config::Config;
use serde_json::{Value, json};
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

const HASH: &str = "5feceb66ffc86f38d952786c6d696c79c2dbc239dd4e91b46729d73a27fb57e9";

fn errors(section: &Value) -> Vec<String> {
    let text = json!({"attribution": section}).to_string();
    Config::from_bytes(text.as_bytes())
        .map_or_else(|errors| errors.iter().map(ToString::to_string).collect(), |_| vec![])
}

#[test]
fn a_section_with_everything_in_it_is_read() {
    let section = json!({
        "dimensions": {
            "feature": {"from": [{"header": "x-cost-feature"}, {"header": "helicone-property-feature"}]},
            "department": {"default": "shared"},
            "tenant": {"from": [{"property": ["metadata", "filter_metadata", "envoy.filters.http.jwt_authn", "p", "t"]}]},
            "user": {"from": [{"header": "x-cost-user"}, {"body": "metadata.user"}, {"baggage": "user"}]},
        },
        "required": ["feature", "tenant"], "on_missing": "reject", "normalise": "lowercase_hyphen",
        "max_value_bytes": 64, "pseudonymise": ["user"], "pseudonym_key": "sixteen and more", "forward_headers": true,
        "trust_headers": {"property": ["connection", "subject_peer_certificate"], "matches": ["CN=edge-*"]},
        "keys": [{"sha256": HASH, "name": "bot", "set": {"department": "cs", "tenant": "acme"}, "locked": ["tenant"]},
                 {"sha256": HASH.replace('5', "6").to_uppercase()}],
    });
    assert_eq!(errors(&section), Vec::<String>::new());
}

#[test]
fn what_is_never_normalised_may_be_all_hyphens() {
    for own in [
        json!({"dimensions": {"user": {"default": "-"}}}),
        json!({"keys": [{"sha256": HASH, "set": {"gl_account": "--", "run_id": "_"}, "locked": ["run_id"]}]}),
        json!({"keys": [{"sha256": HASH, "name": "-"}]}),
    ] {
        let mut section = own;
        section["normalise"] = json!("lowercase_hyphen");
        assert_eq!(errors(&section), Vec::<String>::new(), "{section}");
    }
}

#[test]
fn each_mistake_is_said_with_its_place() {
    let key = |key: Value| json!({"dimensions": {"tier": {"default": "x"}}, "keys": [key]});
    let source = |source: Value| json!({"dimensions": {"team": {"from": [source]}}});
    let no_dimension = "is no dimension: it is none of feature, department, team, user, session, run_id, parent_run_id, \
        mcp_server, agent_handoff, workload, project, outcome, gl_account, cost_centre, business_unit, environment, and \
        has no entry in attribution.dimensions";
    for (section, expected) in [
        (json!({"required": ["tenant"]}), format!("attribution.required[0]: \"tenant\" {no_dimension}")),
        (json!({"required": ["team", "team"]}), "attribution.required[1]: team is listed already".into()),
        (json!({"on_missing": "reject"}), "attribution.on_missing: reject needs at least one name in required".into()),
        (
            json!({"required": ["team"], "on_missing": "refuse"}),
            "attribution.on_missing: expected allow or reject, got \"refuse\"".into(),
        ),
        (json!({"normalise": "upper"}), "attribution.normalise: expected none or lowercase_hyphen, got \"upper\"".into()),
        (json!({"pseudonymise": ["user"]}), "attribution.pseudonymise: needs a pseudonym_key".into()),
        (
            json!({"pseudonymise": ["user"], "pseudonym_key": "short"}),
            "attribution.pseudonym_key: must have at least 16 characters".into(),
        ),
        (json!({"dimensions": {"team": {}}}), "attribution.dimensions.team: expected from, default or both".into()),
        (
            json!({"dimensions": {"My Team": {"default": "x"}}}),
            "attribution.dimensions.My Team: a dimension's name has 1 to 64 of a-z, 0-9, _ and -".into(),
        ),
        (
            json!({"dimensions": {"team": {"default": "x".repeat(129)}}}),
            "attribution.dimensions.team.default: is longer than max_value_bytes, 128".into(),
        ),
        (
            json!({"dimensions": {"team": {"from": []}}}),
            "attribution.dimensions.team.from: expected 1 to 8 sources".into(),
        ),
        (
            json!({"dimensions": {"team": {"from": [{"header": "X-A"}, {"header": "x-a"}]}}}),
            "attribution.dimensions.team.from[1]: is listed already".into(),
        ),
        (
            source(json!({})),
            "attribution.dimensions.team.from[0]: expected one of header, property, body, baggage".into(),
        ),
        (
            source(json!({"header": "a", "body": "b"})),
            "attribution.dimensions.team.from[0]: expected one of header, property, body, baggage".into(),
        ),
        (source(json!({"header": ":path"})), "attribution.dimensions.team.from[0].header: is no header name".into()),
        (
            source(json!({"header": "Authorization"})),
            "attribution.dimensions.team.from[0].header: authorization is a secret: a dimension cannot be read from it; \
             see attribution.keys"
                .into(),
        ),
        (
            source(json!({"property": ["request", "headers", "X-Api-Key"]})),
            "attribution.dimensions.team.from[0].property: X-Api-Key is a secret: a dimension cannot be read from it; \
             see attribution.keys"
                .into(),
        ),
        (
            source(json!({"property": ["request", "query"]})),
            "attribution.dimensions.team.from[0].property: may have an API key in it: a dimension cannot be read from it; \
             see [request, url_path]"
                .into(),
        ),
        (
            source(json!({"property": ["request", "headers", ":path"]})),
            "attribution.dimensions.team.from[0].property: may have an API key in it: a dimension cannot be read from it; \
             see [request, url_path]"
                .into(),
        ),
        (
            source(json!({"header": "helicone-property-*"})),
            "attribution.dimensions.team.from[0].header: is no header name: write out each, there are no patterns here"
                .into(),
        ),
        (
            json!({"max_value_bytes": 513, "dimensions": {"user": {"from": [{"body": "user"}]}}}),
            "attribution.max_value_bytes: is more than the 512 bytes that are read of a value in the body".into(),
        ),
        (
            json!({"normalise": "lowercase_hyphen", "keys": [{"sha256": HASH, "set": {"team": "_-"}, "locked": ["team"]}]}),
            "attribution.keys[0].set.team: is nothing once it is normalised".into(),
        ),
        (
            json!({"normalise": "lowercase_hyphen", "dimensions": {"team": {"default": "--"}}}),
            "attribution.dimensions.team.default: is nothing once it is normalised".into(),
        ),
        (
            source(json!({"property": []})),
            "attribution.dimensions.team.from[0].property: expected a path, as [metadata, filter_metadata, \
             envoy.filters.http.jwt_authn, payload, sub]"
                .into(),
        ),
        (
            source(json!({"property": "a.b"})),
            "attribution.dimensions.team.from[0].property: expected a list, got \"a.b\"".into(),
        ),
        (
            source(json!({"body": "a.b.c.d.e"})),
            "attribution.dimensions.team.from[0].body: expected 1 to 4 keys with dots between them, as metadata.team"
                .into(),
        ),
        (
            source(json!({"body": "a..b"})),
            "attribution.dimensions.team.from[0].body: expected 1 to 4 keys with dots between them, as metadata.team"
                .into(),
        ),
        (
            json!({"trust_headers": "sometimes"}),
            "attribution.trust_headers: expected always, never or an object with property and matches, got \"sometimes\""
                .into(),
        ),
        (
            json!({"trust_headers": {"property": ["a"], "matches": []}}),
            "attribution.trust_headers.matches: expected at least one value".into(),
        ),
        (
            json!({"trust_headers": {"property": ["a"], "matches": ["*"]}}),
            "attribution.trust_headers.matches[0]: matches everybody: write always".into(),
        ),
        (json!({"trust_headers": {"property": ["a"]}}), "attribution.trust_headers.matches: is missing".into()),
        (key(json!({"name": "bot"})), "attribution.keys[0].sha256: is missing".into()),
        (
            key(json!({"sha256": "sk-proj-the-key-itself"})),
            "attribution.keys[0].sha256: expected the SHA-256 of the key, 64 hex digits, got 22 characters that are not \
             shown"
                .into(),
        ),
        (
            key(json!({"sha256": 12})),
            "attribution.keys[0].sha256: expected the SHA-256 of the key, 64 hex digits".into(),
        ),
        (
            key(json!({"sha256": HASH, "locked": ["tier"]})),
            "attribution.keys[0].locked[0]: tier is not in this key's set: there is nothing to lock it to".into(),
        ),
        (
            key(json!({"sha256": HASH, "set": {"teir": "x"}})),
            format!("attribution.keys[0].set.teir: \"teir\" {no_dimension}"),
        ),
        (
            json!({"keys": [{"sha256": HASH}, {"sha256": HASH.to_uppercase()}]}),
            "attribution.keys[1].sha256: attribution.keys[0] has this hash already".into(),
        ),
        (json!({"key": []}), "attribution.key: unknown key; did you mean keys?".into()),
        (
            json!({"trust_headers": true}),
            "attribution.trust_headers: expected always, never or an object with property and matches, got true".into(),
        ),
        (
            key(json!({"sha256": HASH, "key": "support"})),
            "attribution.keys[0].key: unknown key; known here: sha256, name, set, locked".into(),
        ),
    ] {
        assert_eq!(errors(&section), [expected], "{section}");
    }
}

#[test]
fn the_hash_of_nothing_and_of_an_example_is_no_key() {
    for (hash, of) in [
        ("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", "nothing"),
        ("9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08", "test"),
        ("0000000000000000000000000000000000000000000000000000000000000000", "-"),
        ("abababababababababababababababababababababababababababababababab", "-"),
    ] {
        let section = json!({"keys": [{"sha256": hash}]});
        let expected = "attribution.keys[0].sha256: is a placeholder: put the SHA-256 of a real key here";
        assert_eq!(errors(&section), [expected], "{of}");
    }
}

#[test]
fn what_each_call_costs_is_bounded() {
    let many = |number: usize, entry: &dyn Fn(usize) -> Value| {
        let dimensions: serde_json::Map<_, _> = (0..number).map(|n| (format!("d{n}"), entry(n))).collect();
        errors(&json!({"dimensions": dimensions}))
    };
    let from = |source: Value| json!({"from": [source]});
    assert!(many(32, &|_| json!({"default": "x"})).is_empty());
    for (errors, expected) in [
        (many(33, &|_| json!({"default": "x"})), "has 33 dimensions of your own; 32 at most"),
        (many(17, &|n| from(json!({"property": [n.to_string()]}))), "has 17 different properties; 16 at most"),
        (many(9, &|n| from(json!({"body": n.to_string()}))), "has 9 different places in the body; 8 at most"),
    ] {
        assert_eq!(errors, [format!("attribution.dimensions: {expected}")]);
    }
}
