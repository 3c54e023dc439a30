//! `google.protobuf.Struct` to JSON: Envoy hands a Struct over as its serialized bytes.
//!
//! Only a buffer that is a Struct from its first byte to its last is taken for one. Numbers are doubles on the
//! wire; they are written in their shortest decimal form. The wire format is
//! <https://protobuf.dev/programming-guides/encoding/>, the messages are those of
//! <https://protobuf.dev/reference/protobuf/google.protobuf/#struct>.

use std::collections::BTreeMap;

/// Deeper configurations are refused rather than recursed into.
const MAX_DEPTH: u32 = 64;

/// The Struct in `bytes` as JSON text; `None` where the bytes are no Struct.
pub(crate) fn to_json(bytes: &[u8]) -> Option<String> {
    let mut json = String::with_capacity(bytes.len() * 2);
    write_struct(bytes, &mut json, 0)?;
    Some(json)
}

struct Field<'a> {
    number: u64,
    value: Wire<'a>,
}

enum Wire<'a> {
    Varint(u64),
    Fixed64([u8; 8]),
    Bytes(&'a [u8]),
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let bits = u64::from(byte & 0x7f);
        if shift == 63 && bits > 1 {
            return None;
        }
        value |= bits << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn field<'a>(bytes: &mut &'a [u8]) -> Option<Field<'a>> {
    let tag = varint(bytes)?;
    let value = match tag & 7 {
        0 => Wire::Varint(varint(bytes)?),
        1 => {
            let (fixed, rest) = bytes.split_first_chunk::<8>()?;
            *bytes = rest;
            Wire::Fixed64(*fixed)
        }
        2 => {
            let length = usize::try_from(varint(bytes)?).ok()?;
            let (value, rest) = bytes.split_at_checked(length)?;
            *bytes = rest;
            Wire::Bytes(value)
        }
        _ => return None,
    };
    Some(Field { number: tag >> 3, value })
}

/// `Struct { map<string, Value> fields = 1 }`; of a key that stands twice the last counts, as protobuf has it.
fn write_struct(mut bytes: &[u8], json: &mut String, depth: u32) -> Option<()> {
    let mut entries: BTreeMap<&str, &[u8]> = BTreeMap::new();
    while !bytes.is_empty() {
        let Field { number: 1, value: Wire::Bytes(mut entry) } = field(&mut bytes)? else { return None };
        let (mut key, mut value) = ("", &b""[..]);
        while !entry.is_empty() {
            match field(&mut entry)? {
                Field { number: 1, value: Wire::Bytes(name) } => key = str::from_utf8(name).ok()?,
                Field { number: 2, value: Wire::Bytes(inner) } => value = inner,
                _ => return None,
            }
        }
        entries.insert(key, value);
    }
    json.push('{');
    for (index, (key, value)) in entries.into_iter().enumerate() {
        if index > 0 {
            json.push(',');
        }
        write_text(key, json)?;
        json.push(':');
        write_value(value, json, depth + 1)?;
    }
    json.push('}');
    Some(())
}

/// `Value { oneof { null = 1, number = 2, string = 3, bool = 4, struct = 5, list = 6 } }`.
fn write_value(mut bytes: &[u8], json: &mut String, depth: u32) -> Option<()> {
    if depth > MAX_DEPTH {
        return None;
    }
    if bytes.is_empty() {
        json.push_str("null");
        return Some(());
    }
    let Field { number, value } = field(&mut bytes)?;
    if !bytes.is_empty() {
        return None;
    }
    match (number, value) {
        (1, Wire::Varint(0)) => json.push_str("null"),
        (2, Wire::Fixed64(fixed)) => {
            let number = f64::from_le_bytes(fixed);
            if !number.is_finite() {
                return None;
            }
            json.push_str(&number.to_string());
        }
        (3, Wire::Bytes(text)) => write_text(str::from_utf8(text).ok()?, json)?,
        (4, Wire::Varint(flag @ (0 | 1))) => json.push_str(if flag == 1 { "true" } else { "false" }),
        (5, Wire::Bytes(inner)) => write_struct(inner, json, depth)?,
        (6, Wire::Bytes(inner)) => write_list(inner, json, depth)?,
        _ => return None,
    }
    Some(())
}

/// `ListValue { repeated Value values = 1 }`.
fn write_list(mut bytes: &[u8], json: &mut String, depth: u32) -> Option<()> {
    json.push('[');
    let mut first = true;
    while !bytes.is_empty() {
        let Field { number: 1, value: Wire::Bytes(item) } = field(&mut bytes)? else { return None };
        if !std::mem::replace(&mut first, false) {
            json.push(',');
        }
        write_value(item, json, depth + 1)?;
    }
    json.push(']');
    Some(())
}

fn write_text(text: &str, json: &mut String) -> Option<()> {
    json.push_str(&serde_json::to_string(text).ok()?);
    Some(())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use serde_json::{Value, json};
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn bytes_field(number: u8, bytes: &[u8], out: &mut Vec<u8>) {
        out.push(number << 3 | 2);
        let mut length = bytes.len();
        while length >= 0x80 {
            out.push((length & 0x7f) as u8 | 0x80);
            length >>= 7;
        }
        out.push(length as u8);
        out.extend_from_slice(bytes);
    }

    fn value_bytes(value: &Value) -> Vec<u8> {
        let mut out = Vec::new();
        match value {
            Value::Null => out.extend([1 << 3, 0]),
            Value::Number(number) => {
                out.push(2 << 3 | 1);
                out.extend(number.as_f64().unwrap().to_le_bytes());
            }
            Value::String(text) => bytes_field(3, text.as_bytes(), &mut out),
            Value::Bool(flag) => out.extend([4 << 3, u8::from(*flag)]),
            Value::Object(_) => bytes_field(5, &encode(value), &mut out),
            Value::Array(items) => {
                let mut list = Vec::new();
                for item in items {
                    bytes_field(1, &value_bytes(item), &mut list);
                }
                bytes_field(6, &list, &mut out);
            }
        }
        out
    }

    /// A JSON object as the bytes of a Struct.
    pub(crate) fn encode(value: &Value) -> Vec<u8> {
        let mut out = Vec::new();
        for (key, value) in value.as_object().unwrap() {
            let mut entry = Vec::new();
            bytes_field(1, key.as_bytes(), &mut entry);
            bytes_field(2, &value_bytes(value), &mut entry);
            bytes_field(1, &entry, &mut out);
        }
        out
    }

    #[test]
    fn a_struct_reads_as_the_json_it_stands_for() {
        for value in [
            json!({}),
            json!({"a": null, "b": true, "c": "x\"y\n", "d": [1, "2", {}, []], "e": {"f": {"g": false}}}),
            json!({"n": 1000000.0, "m": 0.00000025, "big": 8388608.0, "neg": -2.5}),
            json!({"long": "x".repeat(300)}),
        ] {
            let json = to_json(&encode(&value)).unwrap();
            assert_eq!(serde_json::from_str::<Value>(&json).unwrap().to_string(), normalised(&value), "{json}");
        }
    }

    /// Whole doubles are written without a fraction.
    fn normalised(value: &Value) -> String {
        value.to_string().replace(".0,", ",").replace(".0}", "}")
    }

    #[test]
    fn text_is_not_mistaken_for_a_struct() {
        for text in [&br#"{"version":1}"#[..], b"\n{}", b"version: 1", b"x", b"\x0a", b"\x0a\x05abc", b"\xff\xff"] {
            assert_eq!(to_json(text), None, "{text:?}");
        }
    }

    #[test]
    fn cut_or_damaged_bytes_are_refused_and_never_panic() {
        let whole = encode(&json!({"a": [1, {"b": "c"}], "d": 2.5}));
        for cut in 1..whole.len() {
            let _ = to_json(&whole[..cut]);
        }
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x55;
            let _ = to_json(&damaged);
        }
        let mut deep = json!({});
        for _ in 0..100 {
            deep = json!({ "a": deep });
        }
        assert_eq!(to_json(&encode(&deep)), None);
    }
}
