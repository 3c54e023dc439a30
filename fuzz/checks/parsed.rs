//! JSON as serde_json reads it, but with the order and repetition of keys and the spelling of numbers.

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::fmt;

struct Fields<'j>(Vec<(String, &'j RawValue)>);

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Fields<'de>, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(Collect)
    }
}

/// One value, whose containers are not opened yet.
pub(super) enum Value<'j> {
    /// `null`, `true`, `false` or a number, as it is spelt.
    Scalar(&'j str),
    Text(String),
    Array(Vec<&'j RawValue>),
    Object(Vec<(String, &'j RawValue)>),
}

/// What `text` is; `None` where it is no JSON, or a string in it no Unicode.
pub(super) fn parse(text: &str) -> Option<Value<'_>> {
    let raw: &RawValue = serde_json::from_str(text).ok()?;
    open(raw)
}

pub(super) fn open(raw: &RawValue) -> Option<Value<'_>> {
    let text = raw.get();
    Some(match text.as_bytes().first()? {
        b'{' => Value::Object(serde_json::from_str::<Fields<'_>>(text).ok()?.0),
        b'[' => Value::Array(serde_json::from_str(text).ok()?),
        b'"' => Value::Text(serde_json::from_str(text).ok()?),
        _ => Value::Scalar(text),
    })
}
