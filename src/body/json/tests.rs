use super::*;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

const PLACES: Places<&str> = &[
    key("model", "model"),
    container(
        "usage",
        "usage",
        &[key("prompt_tokens", "prompt_tokens"), within("details", &[key("cached", "cached")])],
    ),
    within("choices", &[within_each(&[key("finish_reason", "finish_reason")])]),
    within("tools", &[each("tool")]),
    key("stream", "stream"),
    pieces("bytes", "bytes"),
];

fn show(name: &str, value: Value<'_>) -> String {
    format!("{name}={value:?}")
}

fn scan_in(pieces: &[&[u8]]) -> (Vec<String>, bool) {
    let mut seen = Vec::new();
    let mut sink = |name: &str, value: Value<'_>| seen.push(show(name, value));
    let mut scanner = Scanner::new(PLACES);
    for piece in pieces {
        scanner.feed(piece, &mut sink);
    }
    scanner.finish(&mut sink);
    (seen, scanner.is_complete())
}

/// Scans `text` whole and in pieces of every small size; all must agree.
fn scan(text: &str) -> Vec<String> {
    let (whole, _) = scan_in(&[text.as_bytes()]);
    for size in [1, 2, 3, 5, 7] {
        let pieces: Vec<&[u8]> = text.as_bytes().chunks(size).collect();
        assert_eq!(scan_in(&pieces).0, whole, "in pieces of {size}");
    }
    whole
}

fn text(name: &str, text: &str) -> String {
    format!("{name}={:?}", Value::Text { text, bytes: text.len() as u64 })
}

#[test]
fn values_at_the_places_come_out_in_order_and_nothing_else_does() {
    let seen = scan(
        r#" {"id":"x","model":"gpt-4o","nested":{"model":"no","usage":{"prompt_tokens":1}},
            "choices":[{"index":0,"finish_reason":null},{"finish_reason":"stop","x":[[]]}],
            "usage":{"prompt_tokens":19,"details":{"cached":7},"other":{"cached":1}},"stream":true} "#,
    );
    assert_eq!(
        seen,
        [
            text("model", "gpt-4o").as_str(),
            "finish_reason=Null",
            &text("finish_reason", "stop"),
            "usage=Object",
            r#"prompt_tokens=Number("19")"#,
            r#"cached=Number("7")"#,
            "usage=End",
            "stream=Bool(true)",
        ]
    );
}

#[test]
fn escapes_are_resolved_in_keys_and_values() {
    assert_eq!(
        scan(r#"{"mod\u0065l":"a\"\\\/\b\f\n\r\té\ud83d\ude00z","\u006dodel":"second"}"#),
        [text("model", "a\"\\/\u{8}\u{c}\n\r\té😀z"), text("model", "second")]
    );
}

#[test]
fn a_half_surrogate_becomes_the_replacement_character() {
    for (json, expected) in [
        (r#"{"model":"\ud83d"}"#, "\u{fffd}"),
        (r#"{"model":"\ud83dx"}"#, "\u{fffd}x"),
        (r#"{"model":"\ude00"}"#, "\u{fffd}"),
        (r#"{"model":"\ud83d\n"}"#, "\u{fffd}\n"),
    ] {
        assert_eq!(scan(json), [text("model", expected)], "{json}");
    }
}

#[test]
fn a_long_string_is_cut_at_a_character_and_counted_whole() {
    let long = "é".repeat(400);
    let seen = scan(&format!(r#"{{"model":"x{long}"}}"#));
    let kept = format!("x{}", "é".repeat(255));
    assert_eq!(seen, [format!("model={:?}", Value::Text { text: &kept, bytes: 801 })]);
}

#[test]
fn a_key_longer_than_any_place_matches_none() {
    let key = format!("model{}", "x".repeat(200));
    assert!(scan(&format!(r#"{{"{key}":"no"}}"#)).is_empty());
}

#[test]
fn brackets_and_quotes_inside_skipped_strings_do_not_count() {
    assert_eq!(scan(r#"{"skip":{"a":"}]\"}","b":["[{\\"]},"model":"m"}"#), [text("model", "m")]);
}

#[test]
fn elements_are_reported_by_what_they_are() {
    assert_eq!(
        scan(r#"{"tools":[{"a":1},[2],3,"four",null]}"#),
        [
            "tool=Object",
            "tool=End",
            "tool=Array",
            "tool=End",
            r#"tool=Number("3")"#,
            r#"tool=Text { text: "four", bytes: 4 }"#,
            "tool=Null",
        ]
    );
}

#[test]
fn an_object_has_no_elements_and_an_array_no_keys() {
    assert!(
        scan(r#"{"tools":{"[]":1,"0":2},"choices":{"finish_reason":"x"},"usage":[{"prompt_tokens":1}]}"#)
            == ["usage=Array", "usage=End"]
    );
}

#[test]
fn wrong_shapes_on_the_way_report_nothing() {
    assert_eq!(scan(r#"{"usage":null}"#), ["usage=Null"]);
    assert_eq!(scan(r#"{"usage":"x","model":{"a":"b"}}"#), [text("usage", "x").as_str(), "model=Object", "model=End"]);
    assert!(scan(r#"[{"model":"x"}]"#).is_empty());
    assert!(scan(r#""model""#).is_empty());
    assert!(scan("12").is_empty());
}

#[test]
fn what_is_no_json_stops_the_scanner_until_it_is_reset() {
    for junk in ["[DONE]", "{]", "{\"model\" 1}", "{\"model\":}", "<html>", "{\"model\":tru}", "{\"model\":\"\\x\"}"] {
        let mut scanner = Scanner::new(PLACES);
        let mut sink = |name: &str, value: Value<'_>| panic!("{junk}: {}", show(name, value));
        scanner.feed(junk.as_bytes(), &mut sink);
        assert!(scanner.is_broken(), "{junk}");
        scanner.feed(b"{\"model\":\"x\"}", &mut sink);
        scanner.reset();
        let mut count = 0;
        scanner.feed(b"{\"model\":\"x\"}", &mut |_: &str, _: Value<'_>| count += 1);
        assert_eq!(count, 1, "{junk}");
    }
}

#[test]
fn completeness_tells_a_cut_text_from_a_whole_one() {
    let whole = br#"{"model":"x","usage":{"prompt_tokens":1}}"#;
    for cut in 0..whole.len() {
        assert!(!scan_in(&[&whole[..cut]]).1, "cut at {cut}");
    }
    assert!(scan_in(&[whole]).1);
}

#[test]
fn nesting_deeper_than_any_place_is_only_counted() {
    let deep = format!(r#"{{"x":{}1{},"model":"m"}}"#, "[".repeat(5000), "]".repeat(5000));
    assert_eq!(scan(&deep), [text("model", "m")]);
}

#[test]
fn a_count_is_a_whole_number_of_64_bits() {
    for (number, count) in [
        ("0", Some(0)),
        ("18446744073709551615", Some(u64::MAX)),
        ("18446744073709551616", None),
        ("-1", None),
        ("1.0", Some(1)),
        ("7.000", Some(7)),
        ("-1.0", None),
        ("1.5", None),
        ("1.", None),
        ("1e3", None),
    ] {
        assert_eq!(Value::Number(number).as_count(), count, "{number}");
    }
    assert_eq!(Value::Null.as_count(), None);
}

#[test]
fn a_long_string_comes_in_pieces_and_ends() {
    let long = r"abc\/d\u00e9".repeat(300);
    let text = format!(r#"{{"bytes":"{long}","model":"m"}}"#);
    for size in [1, 7, 100_000] {
        let (mut whole, mut ended, mut model) = (Vec::new(), 0, 0);
        let mut scanner = Scanner::new(PLACES);
        for piece in text.as_bytes().chunks(size) {
            scanner.feed(piece, &mut |name: &str, value: Value<'_>| match value {
                Value::Piece(bytes) => whole.extend_from_slice(bytes),
                Value::End => ended += 1,
                _ => model += usize::from(name == "model"),
            });
        }
        assert_eq!(String::from_utf8(whole).unwrap(), "abc/dé".repeat(300), "in pieces of {size}");
        assert_eq!((ended, model), (1, 1));
    }
}

#[test]
fn a_number_that_may_be_cut_in_half_is_not_reported() {
    let (seen, complete) = scan_in(&[br#"{"usage":{"prompt_tokens":29"#]);
    assert_eq!((seen, complete), (vec!["usage=Object".to_owned()], false));
}

#[test]
fn a_caller_that_steps_knows_where_values_stand() {
    let text = r#"{"model":"m","usage" : {"prompt_tokens" : 12 ,"x":[{"}":"\""}]},"tools":[tr],"stream":false}"#;
    for size in [1, 2, 3, 5, 7, text.len()] {
        let (mut begins, mut seen) = (Vec::new(), Vec::new());
        let mut scanner = Scanner::new(PLACES);
        let mut behind = 0;
        for piece in text.as_bytes().chunks(size) {
            behind += piece.len();
            let mut rest = piece;
            while !rest.is_empty() {
                let at = behind - rest.len();
                let byte = text.as_bytes()[at];
                begins.extend(scanner.awaited().filter(|_| byte != b' ').map(|name| (name, at)));
                rest = scanner.step(rest, &mut |name: &str, value: Value<'_>| {
                    if !matches!(value, Value::Text { .. }) {
                        seen.push((show(name, value), char::from(byte)));
                    }
                });
            }
        }
        assert!(scanner.is_broken());
        let at = |what: &str| text.find(what).unwrap();
        let expected =
            [("model", at(r#""m""#)), ("usage", at(r#"{"pro"#)), ("prompt_tokens", at("12")), ("tool", at("tr"))];
        assert_eq!(begins, expected, "in pieces of {size}");
        let seen: Vec<_> = seen.iter().map(|(value, byte)| (value.as_str(), *byte)).collect();
        assert_eq!(
            seen,
            [("usage=Object", '{'), (r#"prompt_tokens=Number("12")"#, ' '), ("usage=End", '}')],
            "in pieces of {size}"
        );
    }
}

#[test]
fn an_object_is_known_to_be_empty_until_its_first_key() {
    for (text, is_at_first) in [
        ("", false),
        ("{", true),
        ("{ \n", true),
        ("{}", false),
        (r#"{""#, false),
        (r#"{"a":1,"#, false),
        (r#"{"usage":"#, false),
        (r#"{"usage":{ "#, true),
        (r#"{"usage":{}"#, false),
        (r#"{"tools":["#, false),
        (r#"{"other":{"#, false),
    ] {
        let mut scanner = Scanner::new(PLACES);
        scanner.feed(text.as_bytes(), &mut |_: &str, _: Value<'_>| {});
        assert_eq!(scanner.is_at_first_key(), is_at_first, "{text}");
    }
}
