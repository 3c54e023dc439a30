use super::*;
use crate::body::json::{Places, Scanner, key};
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

fn edited(body: &str, model: Option<&str>, max_output_tokens: Option<u64>) -> Option<String> {
    replace(body.as_bytes(), &Edits { model, max_output_tokens }).map(|bytes| String::from_utf8(bytes).unwrap())
}

fn with_model(body: &str) -> Option<String> {
    edited(body, Some("small"), None)
}

#[test]
fn the_model_is_replaced_and_nothing_else() {
    for (body, expected) in [
        (r#"{"model":"big"}"#, r#"{"model":"small"}"#),
        (" {\n\t\"model\" :  \"big\" ,\"x\":1} \r\n", " {\n\t\"model\" :  \"small\" ,\"x\":1} \r\n"),
        (
            r#"{"messages":[{"model":"big","content":"\"model\":\"big\""}],"model":"big"}"#,
            r#"{"messages":[{"model":"big","content":"\"model\":\"big\""}],"model":"small"}"#,
        ),
        (r#"{"a":{"model":"big"},"model":"b\u0069g\\\""}"#, r#"{"a":{"model":"big"},"model":"small"}"#),
        (r#"{"n":1.50E+2,"model":"big","é":"\ud83d"}"#, r#"{"n":1.50E+2,"model":"small","é":"\ud83d"}"#),
        (r#"{"Model":"big","model":"big","models":1}"#, r#"{"Model":"big","model":"small","models":1}"#),
    ] {
        assert_eq!(with_model(body).as_deref(), Some(expected), "{body}");
    }
}

#[test]
fn every_model_is_replaced_however_its_key_is_spelt() {
    for (body, expected) in [
        (r#"{"model":"a","model":"b","x":0}"#, r#"{"model":"small","model":"small","x":0}"#),
        (r#"{"mod\u0065l":"a","model":"b"}"#, r#"{"mod\u0065l":"small","model":"small"}"#),
        (r#"{"\u006D\u006fdel":"a"}"#, r#"{"\u006D\u006fdel":"small"}"#),
        (r#"{"model":null,"model":{"a":"model"},"model":[1]}"#, r#"{"model":"small","model":"small","model":"small"}"#),
    ] {
        assert_eq!(with_model(body).as_deref(), Some(expected), "{body}");
    }
}

#[test]
fn the_scanner_finds_no_other_model_in_what_was_edited() {
    const PLACES: Places<()> = &[key("model", ())];
    for body in [
        r#"{"model":"big"}"#,
        r#"{"mod\u0065l":"big","model":"big"}"#,
        r#"{"x":{"model":"big"},"\u006dodel" : "big" , "model":"big","y":[{"model":"big"}]}"#,
    ] {
        let (mut models, mut scanner) = (Vec::new(), Scanner::new(PLACES));
        let edited = with_model(body).unwrap();
        scanner.feed(edited.as_bytes(), &mut |(): (), value: crate::body::json::Value<'_>| {
            models.push(value.as_text().unwrap().to_owned());
        });
        assert!(!models.is_empty() && models.iter().all(|model| model == "small"), "{edited}: {models:?}");
    }
}

#[test]
fn a_model_is_written_as_json() {
    for (model, expected) in [
        ("a\"b\\c\n", r#"{"model":"a\"b\\c\n"}"#),
        ("\u{1}é😀/", "{\"model\":\"\\u0001é😀/\"}"),
        (r#"x","stream":true,"y":""#, r#"{"model":"x\",\"stream\":true,\"y\":\""}"#),
    ] {
        assert_eq!(edited(r#"{"model":1}"#, Some(model), None).as_deref(), Some(expected));
    }
}

#[test]
fn limits_above_the_maximum_are_lowered() {
    for (body, expected) in [
        (r#"{"max_tokens":101}"#, r#"{"max_tokens":100}"#),
        (r#"{"max_tokens":100}"#, r#"{"max_tokens":100}"#),
        (r#"{"max_tokens":0}"#, r#"{"max_tokens":0}"#),
        (r#"{"max_completion_tokens": 4096 ,"x":4096}"#, r#"{"max_completion_tokens": 100 ,"x":4096}"#),
        (r#"{"max_output_tokens":200,"max_tokens":7}"#, r#"{"max_output_tokens":100,"max_tokens":7}"#),
        (r#"{"m\u0061x_tokens":200,"max_tokens":300}"#, r#"{"m\u0061x_tokens":100,"max_tokens":100}"#),
        (r#"{"max_tokens":99999999999999999999999999}"#, r#"{"max_tokens":100}"#),
        (
            r#"{"generationConfig":{"maxOutputTokens":200,"topK":200}}"#,
            r#"{"generationConfig":{"maxOutputTokens":100,"topK":200}}"#,
        ),
        (r#"{"generation_config":{"max_output_tokens":200}}"#, r#"{"generation_config":{"max_output_tokens":100}}"#),
        (r#"{"inferenceConfig": {"maxTokens": 200 } }"#, r#"{"inferenceConfig": {"maxTokens": 100 } }"#),
        (r#"{"options":{"num_predict":200,"num_ctx":200}}"#, r#"{"options":{"num_predict":100,"num_ctx":200}}"#),
    ] {
        assert_eq!(edited(body, None, Some(100)).as_deref(), Some(expected), "{body}");
        assert_eq!(edited(body, None, None).as_deref(), Some(body), "{body}");
    }
}

#[test]
fn what_is_no_limit_is_not_lowered() {
    for body in [
        r#"{"max_tokens":null}"#,
        r#"{"max_tokens":"200"}"#,
        r#"{"max_tokens":-200}"#,
        r#"{"max_tokens":2.5e2}"#,
        r#"{"max_tokens":[200]}"#,
        r#"{"metadata":{"max_tokens":200}}"#,
        r#"{"tools":[{"max_tokens":200}],"num_predict":200,"maxTokens":200}"#,
        r#"{"generationConfig":null,"inferenceConfig":[200],"options":"max"}"#,
        r#"{"generationConfig":{"model":"x","max_tokens":200,"inner":{"maxOutputTokens":200}}}"#,
        "{}",
    ] {
        assert_eq!(edited(body, None, Some(100)).as_deref(), Some(body), "{body}");
    }
}

#[test]
fn model_and_limits_are_replaced_together() {
    assert_eq!(
        edited(r#"{"max_tokens":9,"model":"big","generationConfig":{"maxOutputTokens":9}}"#, Some("small"), Some(5)),
        Some(r#"{"max_tokens":5,"model":"small","generationConfig":{"maxOutputTokens":5}}"#.into())
    );
}

#[test]
fn what_is_not_one_json_object_with_a_model_is_not_edited() {
    for body in [
        "",
        " ",
        "null",
        "\"model\"",
        "[{\"model\":\"big\"}]",
        "{}",
        r#"{"messages":[{"model":"big"}]}"#,
        r#"{"model":"big""#,
        r#"{"model":"big"}}"#,
        r#"{"model":"big"} {"#,
        r#"{"model":"big"}x"#,
        r#"{"model":"big",}"#,
        r#"{"model":"big","x":01}"#,
        r#"{"model":"big","x":[1,]}"#,
        r#"{"model":"big","x":{"y"}}"#,
        r#"{"model":"big","x":"\q"}"#,
        "{\"model\":\"big\",\"x\":\"\n\"}",
        r#"{"model":"big","generationConfig":{"x":tru}}"#,
        r#"{"model" "big"}"#,
        r#"{model:"big"}"#,
        r#"{'model':"big"}"#,
        "{\"model\":\"big\"}\0",
        "\u{feff}{\"model\":\"big\"}",
    ] {
        assert_eq!(with_model(body), None, "{body}");
    }
    let model_only = Edits { model: Some("small"), max_output_tokens: None };
    assert_eq!(replace(b"{\"model\":\"big\",\"x\":\"\xff\"}", &model_only), None);
    let utf16: Vec<u8> = "{\"model\":\"big\"}".encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert_eq!(replace(&utf16, &model_only), None);
}

#[test]
fn a_body_cut_anywhere_is_not_edited() {
    let body = r#"{"a":[1,{"b":"c"}],"model":"big","max_tokens":12}"#;
    for cut in 0..body.len() {
        let edits = Edits { model: Some("small"), max_output_tokens: None };
        assert_eq!(replace(&body.as_bytes()[..cut], &edits), None, "cut at {cut}");
    }
}

#[test]
fn a_body_of_nothing_but_models_does_not_multiply() {
    let body = |count| format!("{{{}}}", vec![r#""model":1"#; count].join(","));
    assert!(with_model(&body(MAX_EDITS)).is_some());
    assert_eq!(with_model(&body(MAX_EDITS + 1)), None);
    assert_eq!(with_model(&body(500_000)), None);
    // Limits that are low enough are no edits.
    let limits = format!("{{{}}}", vec![r#""max_tokens":1"#; 1000].join(","));
    assert_eq!(edited(&limits, None, Some(5)), Some(limits));
}

#[test]
fn deep_and_large_bodies_are_edited() {
    let nested = format!(r#"{{"x":{}1{},"model":"big"}}"#, "[{\"a\":".repeat(100_000), "}]".repeat(100_000));
    assert_eq!(with_model(&nested), Some(nested.replace("big", "small")));
    let image = "QUJD".repeat(2_000_000);
    let large = format!(r#"{{"messages":[{{"content":"{image}"}}],"model":"big","y":"{image}"}}"#);
    assert_eq!(with_model(&large), Some(large.replace("big", "small")));
}

const FORM: &[u8] = b"multipart/form-data; boundary=xyz";

fn form(parts: &[(&str, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (disposition, value) in parts {
        body.extend(format!("--xyz\r\nContent-Disposition: form-data; {disposition}\r\n\r\n").as_bytes());
        body.extend(*value);
        body.extend(b"\r\n");
    }
    body.extend(b"--xyz--\r\n");
    body
}

#[test]
fn the_model_of_a_form_is_replaced_and_its_files_stay() {
    let file = [0, 255, b'\n', b'-', b'-', b'x', b'\r', b'\n'].repeat(3000);
    let of = |model: &[u8]| {
        form(&[
            ("name=\"file\"; filename=\"model\"", &file),
            ("name=\"model\"", model),
            ("name=\"language\"", b"model"),
            ("name=\"model\"; filename=\"model\"", b"big"),
        ])
    };
    assert_eq!(replace_in_form(&of(b"big"), FORM, "small"), Some(of(b"small")));
    assert_eq!(replace_in_form(&of(b""), FORM, "small"), Some(of(b"small")));
    let twice = |model: &[u8]| form(&[("name=model", model), ("name=\"model\"", model)]);
    assert_eq!(replace_in_form(&twice(b"big"), FORM, "small"), Some(twice(b"small")));
    // Lines may end in a line feed alone.
    let bare = |model: &str| format!("--xyz\nContent-Disposition: form-data; name=model\n\n{model}\n--xyz--\n");
    assert_eq!(replace_in_form(bare("big").as_bytes(), FORM, "small"), Some(bare("small").into_bytes()));
}

#[test]
fn a_form_without_one_plain_model_is_not_edited() {
    for body in [
        form(&[]),
        form(&[("name=\"file\"; filename=\"model\"", b"big")]),
        form(&[("name=\"model\"", b"big\r\nbigger")]),
        form(&[("name=\"model\"", &b"x".repeat(5000))]),
        form(&[("name=\"model\"", b"\xff")]),
        form(&[("name=\"model\"", &b"big"[..]); MAX_EDITS + 1]),
        form(&[("name=\"model\"", b"big")])[..60].to_vec(),
        br#"{"model":"big"}"#.to_vec(),
    ] {
        assert_eq!(replace_in_form(&body, FORM, "small"), None, "{}", body.escape_ascii());
    }
    let body = form(&[("name=\"model\"", b"big")]);
    assert_eq!(replace_in_form(&body, b"application/json", "small"), None);
    assert_eq!(replace_in_form(&body, b"multipart/form-data; boundary=other", "small"), None);
    assert_eq!(replace_in_form(&body, FORM, "small\r\n--xyz"), None);
}
