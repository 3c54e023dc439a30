//! A configuration of any bytes is read or refused with reasons; text and Struct of the same are read alike.

use serde_json::Value as Json;
use tollgate::config::{Config, Origin};

pub(crate) fn check(data: &[u8]) {
    let read = outcome(Config::from_bytes(data));
    let Ok(text) = str::from_utf8(data) else { return };
    let as_text = outcome(Config::from_json(text, Origin::Json));
    let Ok(json) = serde_json::from_str::<Json>(text) else { return };
    assert_eq!(read, as_text, "valid JSON was not taken for text");

    let Json::Object(fields) = &json else { return };
    let mut bytes = Vec::new();
    let mut plain = true;
    for (key, value) in fields {
        field(&mut bytes, 1, &entry(key, value, &mut plain));
    }
    let as_struct = outcome(Config::from_bytes(&bytes));
    // Numbers of a Struct were doubles, which is told apart.
    if plain && as_text.is_ok() && !fields.is_empty() {
        assert_eq!(as_struct, as_text);
    }
}

fn outcome(result: Result<Config, Vec<tollgate::config::ConfigError>>) -> Result<String, Vec<String>> {
    match result {
        // Of a map's entries every other run has another order.
        Ok(config) => {
            let debug = format!("{config:?}");
            let mut words: Vec<&str> = debug.split([' ', ',', '{', '}']).collect();
            words.sort_unstable();
            Ok(words.join(" "))
        }
        Err(errors) => {
            assert!(!errors.is_empty(), "refused without a reason");
            assert!(errors.iter().all(|error| !error.message.is_empty()));
            Err(errors.iter().map(ToString::to_string).collect())
        }
    }
}

/// Appends a length-delimited protobuf field.
fn field(out: &mut Vec<u8>, number: u8, bytes: &[u8]) {
    out.push(number << 3 | 2);
    let mut length = bytes.len();
    while length >= 0x80 {
        out.push(0x80 | u8::try_from(length & 0x7f).unwrap());
        length >>= 7;
    }
    out.push(u8::try_from(length).unwrap());
    out.extend(bytes);
}

fn entry(key: &str, value: &Json, plain: &mut bool) -> Vec<u8> {
    let mut out = Vec::new();
    field(&mut out, 1, key.as_bytes());
    field(&mut out, 2, &message(value, plain));
    out
}

/// A `google.protobuf.Value`.
fn message(value: &Json, plain: &mut bool) -> Vec<u8> {
    let mut out = Vec::new();
    match value {
        Json::Null => out.extend([1 << 3, 0]),
        Json::Number(number) => {
            *plain = false;
            out.push(2 << 3 | 1);
            out.extend(number.as_f64().unwrap_or_default().to_le_bytes());
        }
        Json::String(text) => field(&mut out, 3, text.as_bytes()),
        Json::Bool(flag) => out.extend([4 << 3, u8::from(*flag)]),
        Json::Object(fields) => {
            let mut inner = Vec::new();
            for (key, value) in fields {
                field(&mut inner, 1, &entry(key, value, plain));
            }
            field(&mut out, 5, &inner);
        }
        Json::Array(items) => {
            let mut inner = Vec::new();
            for item in items {
                field(&mut inner, 1, &message(item, plain));
            }
            field(&mut out, 6, &inner);
        }
    }
    out
}
