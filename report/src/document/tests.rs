use super::*;

fn yaml(text: &str) -> Node {
    Document::parse(text, Dialect::Yaml).unwrap().roots.remove(0)
}

fn json(text: &str) -> Node {
    Document::parse(text, Dialect::Json).unwrap().roots.remove(0)
}

fn error(text: &str, dialect: Dialect) -> String {
    Document::parse(text, dialect).unwrap_err().to_string()
}

#[test]
fn a_plain_yaml_scalar_is_read_as_envoy_reads_it() {
    for (text, envoys, written) in [
        ("2", "2", "2"),
        ("-2", "-2", "-2"),
        ("+2", "2", "\"+2\""),
        ("0x10", "16", "\"0x10\""),
        ("010", "8", "\"010\""),
        ("08", "\"08\"", "\"08\""),
        ("2147483647", "2147483647", "2147483647"),
        ("2147483648", "\"2147483648\"", "2147483648"),
        ("2.50", "\"2.50\"", "2.50"),
        ("1e-6", "\"1e-6\"", "1e-6"),
        ("yes", "true", "\"yes\""),
        ("Off", "false", "\"Off\""),
        ("yEs", "\"yEs\"", "\"yEs\""),
        ("TRUE", "true", "true"),
        ("~", "null", "null"),
        ("", "null", "null"),
        ("null", "null", "null"),
        ("gpt-4o", "\"gpt-4o\"", "\"gpt-4o\""),
        ("'2'", "\"2\"", "\"2\""),
        ("\"yes\"", "\"yes\"", "\"yes\""),
        ("! 2", "\"2\"", "\"2\""),
        ("!!str 2", "2", "2"),
        ("!!int '3'", "3", "3"),
    ] {
        let node = yaml(&format!("key: {text}"));
        let value = node.get("key").unwrap();
        assert_eq!(value.to_json(Numbers::EnvoyYaml), envoys, "Envoy's {text}");
        assert_eq!(value.to_json(Numbers::AsWritten), written, "{text}");
    }
}

#[test]
fn a_json_number_keeps_its_digits_or_becomes_the_double_that_envoy_makes_of_it() {
    for (text, written, envoys) in [
        ("2.50", "2.50", "2.5"),
        ("1e-6", "1e-6", "0.000001"),
        ("12345678901234567890", "12345678901234567890", "12345678901234567000"),
        ("0.1234567890123456789", "0.1234567890123456789", "0.12345678901234568"),
        ("true", "true", "true"),
        ("\"2.50\"", "\"2.50\"", "\"2.50\""),
    ] {
        let node = json(text);
        assert_eq!(node.to_json(Numbers::AsWritten), written);
        assert_eq!(node.to_json(Numbers::EnvoyJson), envoys);
    }
}

#[test]
fn json_is_read_whole_also_where_yaml_would_not() {
    for text in [r#"{"a":[1,{"b":null}],"c":"x\"y\n","c":{}}"#, "[\"\u{1F600}\"]", "[]", "{}", "7"] {
        assert_eq!(json(text).to_json(Numbers::AsWritten), text);
    }
    assert_eq!(json(r#""\ud83d\ude00\/""#).to_json(Numbers::AsWritten), "\"\u{1F600}/\"");
    assert_eq!(json("{\n\t\"a\":\t1\n}").to_json(Numbers::AsWritten), r#"{"a":1}"#);
}

#[test]
fn every_place_is_found_by_its_path() {
    let text = "version: 1\nprices:\n  models:\n  - model: gpt-4o\n    rates: {input: 2, \"out.put\": 3}\n  - model: o3\n    \
                rates:\n      input: x\n      input: y\n";
    let root = yaml(text);
    for (path, place) in [
        ("", "1:1"),
        ("version", "1:1"),
        ("prices.models", "3:3"),
        ("prices.models[0]", "4:5"),
        ("prices.models[0].rates.input", "5:13"),
        ("prices.models[0].rates.out.put", "5:23"),
        ("prices.models[1].rates", "7:5"),
        // The later of two is the one too many.
        ("prices.models[1].rates.input", "9:7"),
        // What is missing is missing where it should have been.
        ("prices.models[1].rates.output", "7:5"),
        ("prices.models[7].rates", "3:3"),
        ("collector.cluster", "1:1"),
    ] {
        assert_eq!(root.locate(path).to_string(), place, "{path}");
    }
    let root = json("{\n  \"prices\": {\"models\": [\n    {\"é\": 1, \"model\": 7}]}\n}");
    for (path, place) in [("prices", "2:3"), ("prices.models[0]", "3:5"), ("prices.models[0].model", "3:14")] {
        assert_eq!(root.locate(path).to_string(), place, "{path}");
    }
}

#[test]
fn an_anchor_is_copied_and_what_envoy_ignores_is_left_out() {
    let root = yaml("? !ignore shared\n: &rates {input: 1}\na: *rates\nb: [*rates]\n");
    assert_eq!(root.to_json(Numbers::EnvoyYaml), r#"{"a":{"input":1},"b":[{"input":1}]}"#);
    assert_eq!(root.locate("a.input").to_string(), "2:11");
}

#[test]
fn a_place_in_a_block_of_text_is_a_place_in_the_file() {
    let root = yaml("a:\n  value: |\n    {\n      \"b\": 1\n    }\n  other: \"{}\"\n");
    let inner = Position { line: 2, column: 3 };
    let block = root.get("a").and_then(|a| a.get("value")).unwrap();
    assert_eq!(block.text(), Some("{\n  \"b\": 1\n}\n"));
    assert_eq!(block.position_within(inner).to_string(), "4:7");
    let quoted = root.get("a").and_then(|a| a.get("other")).unwrap();
    assert_eq!(quoted.position_within(inner).to_string(), "6:10");
}

#[test]
fn what_is_no_yaml_or_json_is_refused_with_its_place() {
    for (text, dialect, place) in [
        ("a: [1, 2\nb: 3\n", Dialect::Yaml, "2:"),
        ("a: b: c\n", Dialect::Yaml, "1:"),
        ("{a: 1}: 2\n", Dialect::Yaml, "1:1: a key must be a string"),
        ("a: *b\n", Dialect::Yaml, "1:4: "),
        ("{\"a\": 1,}", Dialect::Json, "1:9: not valid JSON: key must be a string"),
        ("{\"a\": 1} x", Dialect::Json, "1:10: not valid JSON: trailing characters"),
        ("", Dialect::Json, "1:1: not valid JSON: EOF"),
    ] {
        assert!(error(text, dialect).starts_with(place), "{text:?}: {}", error(text, dialect));
    }
}

#[test]
fn a_document_cannot_ask_for_all_memory_or_stack() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for n in 1..12 {
        let copies = vec![format!("*a{}", n - 1); 10].join(", ");
        bomb += &format!("a{n}: &a{n} [{copies}]\n");
    }
    assert!(error(&bomb, Dialect::Yaml).contains("aliases copy too much"));
    for (dialect, deep) in [(Dialect::Yaml, 200), (Dialect::Json, 120), (Dialect::Json, 5000)] {
        let nested = format!("{}{}", "[".repeat(deep), "]".repeat(deep));
        let result = Document::parse(&nested, dialect);
        assert_eq!(result.is_ok(), deep < 128, "{dialect:?} {deep}");
    }
}
