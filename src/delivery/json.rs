//! A JSON text, seen as what it is without being copied: an object's members, a list's elements, a scalar.
//!
//! Records are rendered as JSON once and kept so; other formats are written from that text. A number keeps its digits
//! all the way.

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde::ser::{Error as _, Serialize, Serializer};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;

/// One value of a JSON text.
#[derive(Debug)]
pub enum Json<'a> {
    /// `{…}`
    Object(Members<'a>),
    /// `[…]`
    List(Vec<&'a RawValue>),
    /// `"…"`, unescaped.
    Text(Cow<'a, str>),
    /// A number without fraction or exponent that 64 bits hold.
    Integer(i64),
    /// Any other number, by its digits.
    Number(&'a str),
    /// `true`, `false`
    Bool(bool),
    /// `null`
    Null,
}

impl<'a> Json<'a> {
    /// Looks at `raw`.
    ///
    /// # Errors
    /// Where a part of it, such as a lone surrogate in a string, is no valid text.
    pub fn of(raw: &'a RawValue) -> serde_json::Result<Json<'a>> {
        let text = raw.get();
        Ok(match text.as_bytes().first() {
            Some(b'{') => Json::Object(serde_json::from_str(text)?),
            Some(b'[') => Json::List(serde_json::from_str(text)?),
            Some(b'"') => Json::Text(serde_json::from_str::<Text<'a>>(text)?.0),
            Some(b't') => Json::Bool(true),
            Some(b'f') => Json::Bool(false),
            Some(b'n') => Json::Null,
            _ => text.parse().map_or(Json::Number(text), Json::Integer),
        })
    }
}

/// An object's members in their order.
#[derive(Debug, Default)]
pub struct Members<'a>(pub Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'a> Members<'a> {
    /// The value of the member `name`.
    pub fn get(&self, name: &str) -> Option<&'a RawValue> {
        self.0.iter().find(|(own, _)| own == name).map(|(_, value)| *value)
    }

    /// The same, where it is a string.
    pub fn text(&self, name: &str) -> Option<Cow<'a, str>> {
        match Json::of(self.get(name)?) {
            Ok(Json::Text(text)) => Some(text),
            _ => None,
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Members<'a>, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some((Text(name), value)) = map.next_entry()? {
                    members.push((name, value));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Reader)
    }
}

/// A string, borrowed where nothing in it is escaped.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// The same value in another format. Amounts are never floats: a number that is no 64-bit integer becomes the string of
/// its digits.
pub struct Transcoded<'a>(pub &'a RawValue);

impl Serialize for Transcoded<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match Json::of(self.0).map_err(S::Error::custom)? {
            Json::Object(members) => {
                serializer.collect_map(members.0.iter().map(|(name, value)| (name, Transcoded(value))))
            }
            Json::List(list) => serializer.collect_seq(list.into_iter().map(Transcoded)),
            Json::Text(text) => serializer.serialize_str(&text),
            Json::Integer(number) => serializer.serialize_i64(number),
            Json::Number(digits) => serializer.serialize_str(digits),
            Json::Bool(value) => serializer.serialize_bool(value),
            Json::Null => serializer.serialize_unit(),
        }
    }
}
