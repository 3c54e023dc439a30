//! A record as a line of JSON.
//!
//! A call writes its record up to three times: when its headers have come, when its request is over, and in the end.
//! What it is charged to is most of the line and stays the same, so it is rendered once, straight from the
//! [`Attribution`], and spliced into each line. The names of the fields, their order and what is left out are those of
//! [`UsageRecord`]'s `Serialize` in every other respect: it is driven with a serializer that leaves each value to
//! serde_json.

use super::{Sources, UsageRecord};
use crate::attribution::{Attribution, Dimension, Name, Origin};
use serde::Serialize;
use serde::ser::{Error as _, Impossible, SerializeStruct, Serializer};
use serde_json::Error;
use std::collections::BTreeMap;

/// The last field of the attribution.
const LAST: &str = "attribution_source";
/// Room for what a record says besides its attribution.
const USUAL_BYTES: usize = 1536;

/// What a call is charged to as its record says it: the fields from `feature` to `attribution_source`, each with a
/// comma before it, up to the last source: one may be added. Empty where there is no attribution.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rendered(Vec<u8>);

impl Rendered {
    /// Renders `attribution` for all lines to come. `workload` is apart, as it is in the record.
    ///
    /// # Errors
    /// None that is known; the serialiser's signature allows them.
    pub fn new(attribution: &Attribution) -> serde_json::Result<Rendered> {
        let values = attribution.values();
        let sources = values.len() + attribution.tags.len();
        if sources == 0 {
            return Ok(Rendered::default());
        }
        let mut line = Vec::with_capacity(64 * sources);
        for dimension in Dimension::ALL.into_iter().filter(|&dimension| dimension != Dimension::Workload) {
            if let Some(text) = attribution.get(dimension) {
                line.extend_from_slice(dimension.json_key().as_bytes());
                serde_json::to_writer(&mut line, text)?;
            }
        }
        let mut tags: BTreeMap<&str, &str> = attribution.tags.iter().map(|(name, text)| (&**name, &**text)).collect();
        tags.extend(values.filter_map(|value| match value.name {
            Name::BuiltIn(_) => None,
            Name::Tag(tag) => Some((&**tag, value.text)),
        }));
        if !tags.is_empty() {
            write_field("tags", &tags, &mut line)?;
        }
        line.extend_from_slice(b",\"attribution_source\":");
        let first = line.len();
        for value in attribution.values() {
            write_source(value.name, value.origin, &mut line)?;
        }
        for name in attribution.tags.keys() {
            write_source(&Name::Tag(name.clone()), Origin::Header, &mut line)?;
        }
        // The comma before the first one.
        if let Some(comma) = line.get_mut(first) {
            *comma = b'{';
        }
        Ok(Rendered(line))
    }
}

impl UsageRecord {
    /// The record as one line of JSON, without a newline.
    ///
    /// # Errors
    /// None that is known; the serialiser's signature allows them.
    pub fn to_json(&self) -> serde_json::Result<Vec<u8>> {
        let line = Vec::with_capacity(self.rendered.0.len() + USUAL_BYTES);
        let mut writer = Writer { line, rendered: &self.rendered.0, later: &self.attribution_source };
        self.serialize(&mut writer)?;
        Ok(writer.line)
    }
}

/// Writes a field behind others. Its name is one of ours, which has nothing to escape.
fn write_field<T: Serialize + ?Sized>(key: &str, value: &T, line: &mut Vec<u8>) -> Result<(), Error> {
    line.extend_from_slice(b",\"");
    line.extend_from_slice(key.as_bytes());
    line.extend_from_slice(b"\":");
    value.serialize(&mut serde_json::Serializer::new(line))
}

/// Writes where the value of a dimension came from, behind others.
fn write_source(name: &Name, origin: Origin, line: &mut Vec<u8>) -> Result<(), Error> {
    match name {
        Name::BuiltIn(dimension) => line.extend_from_slice(dimension.json_key().as_bytes()),
        Name::Tag(_) => {
            line.push(b',');
            serde_json::to_writer(&mut *line, &name.place())?;
            line.push(b':');
        }
    }
    line.push(b'"');
    line.extend_from_slice(origin.name().as_bytes());
    line.push(b'"');
    Ok(())
}

/// Writes a record's fields, with the attribution as it was rendered.
struct Writer<'r> {
    line: Vec<u8>,
    rendered: &'r [u8],
    /// Sources that are not in it.
    later: &'r Sources,
}

impl Writer<'_> {
    /// Writes the attribution where it stands, if it was rendered; says whether that was the field `key`.
    ///
    /// Inlined, most of it is gone: a record has some 80 fields, and each call of this knows its key.
    #[inline(always)]
    fn splices(&mut self, key: &str) -> Result<bool, Error> {
        if key != LAST || self.rendered.is_empty() {
            return Ok(false);
        }
        self.line.extend_from_slice(self.rendered);
        for (place, source) in &self.later.0 {
            self.line.push(b',');
            serde_json::to_writer(&mut self.line, place)?;
            self.line.push(b':');
            serde_json::to_writer(&mut self.line, source)?;
        }
        self.line.push(b'}');
        Ok(true)
    }
}

impl SerializeStruct for &mut Writer<'_> {
    type Ok = ();
    type Error = Error;

    #[inline(always)]
    fn serialize_field<T: Serialize + ?Sized>(&mut self, key: &'static str, value: &T) -> Result<(), Error> {
        if self.splices(key)? { Ok(()) } else { write_field(key, value, &mut self.line) }
    }

    #[inline(always)]
    fn skip_field(&mut self, key: &'static str) -> Result<(), Error> {
        self.splices(key).map(drop)
    }

    /// Every field has a comma before it; that of the first one becomes the brace.
    fn end(self) -> Result<(), Error> {
        if let Some(comma) = self.line.first_mut() {
            *comma = b'{';
        }
        self.line.push(b'}');
        Ok(())
    }
}

/// A record is a struct; anything else is refused.
macro_rules! refuse {
    ($($name:ident($($argument:ty),*) -> $output:ty;)*) => {
        $(fn $name(self, $(_: $argument),*) -> Result<$output, Error> {
            Err(Error::custom("not a record"))
        })*
    };
}

impl<'w, 'r> Serializer for &'w mut Writer<'r> {
    type Ok = ();
    type Error = Error;
    type SerializeSeq = Impossible<(), Error>;
    type SerializeTuple = Impossible<(), Error>;
    type SerializeTupleStruct = Impossible<(), Error>;
    type SerializeTupleVariant = Impossible<(), Error>;
    type SerializeMap = Impossible<(), Error>;
    type SerializeStruct = &'w mut Writer<'r>;
    type SerializeStructVariant = Impossible<(), Error>;

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<&'w mut Writer<'r>, Error> {
        Ok(self)
    }

    refuse! {
        serialize_bool(bool) -> ();
        serialize_i8(i8) -> ();
        serialize_i16(i16) -> ();
        serialize_i32(i32) -> ();
        serialize_i64(i64) -> ();
        serialize_u8(u8) -> ();
        serialize_u16(u16) -> ();
        serialize_u32(u32) -> ();
        serialize_u64(u64) -> ();
        serialize_f32(f32) -> ();
        serialize_f64(f64) -> ();
        serialize_char(char) -> ();
        serialize_str(&str) -> ();
        serialize_bytes(&[u8]) -> ();
        serialize_none() -> ();
        serialize_unit() -> ();
        serialize_unit_struct(&'static str) -> ();
        serialize_unit_variant(&'static str, u32, &'static str) -> ();
        serialize_seq(Option<usize>) -> Self::SerializeSeq;
        serialize_tuple(usize) -> Self::SerializeTuple;
        serialize_tuple_struct(&'static str, usize) -> Self::SerializeTupleStruct;
        serialize_tuple_variant(&'static str, u32, &'static str, usize) -> Self::SerializeTupleVariant;
        serialize_map(Option<usize>) -> Self::SerializeMap;
        serialize_struct_variant(&'static str, u32, &'static str, usize) -> Self::SerializeStructVariant;
    }

    fn serialize_some<T: Serialize + ?Sized>(self, _: &T) -> Result<(), Error> {
        self.serialize_none()
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, _: &T) -> Result<(), Error> {
        self.serialize_none()
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Result<(), Error> {
        self.serialize_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attribution::{DimensionDraft, Draft, Rules};
    use crate::record::SCHEMA_VERSION;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    /// With these dimensions of the configuration's own, each with its value where no header sets it.
    fn charged_to(own: &[(&str, &str)], headers: &[(&str, &str)]) -> Attribution {
        let dimension = |&(name, default): &(&str, &str)| DimensionDraft {
            name: Name::Tag(name.into()),
            sources: None,
            default: Some(default.into()),
        };
        let rules = Rules::new(Draft { dimensions: own.iter().map(dimension).collect(), ..Draft::default() });
        let headers = headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
        Attribution::read(&rules, &headers, &[], false, drop)
    }

    /// The record of a call that is charged so, as it is written and as it is read.
    fn both(attribution: &Attribution, record: UsageRecord) -> [UsageRecord; 2] {
        let workload = attribution.get(Dimension::Workload).map(Into::into);
        let mut read = UsageRecord { schema_version: SCHEMA_VERSION, workload, ..record };
        let written = UsageRecord { rendered: Rendered::new(attribution).unwrap(), ..read.clone() };
        for value in attribution.values() {
            read.attribution_source.insert(value.name.place(), value.origin.name().into());
            match value.name {
                Name::BuiltIn(dimension) => *read.dimension_mut(*dimension) = Some(value.text.into()),
                Name::Tag(tag) => drop(read.tags.insert(tag.clone(), value.text.into())),
            }
        }
        for (name, text) in &attribution.tags {
            read.attribution_source.insert(format!("tags.{name}").into(), "header".into());
            read.tags.insert(name.clone(), text.clone());
        }
        [written, read]
    }

    fn line(record: &UsageRecord) -> String {
        String::from_utf8(record.to_json().unwrap()).unwrap()
    }

    #[test]
    fn a_rendered_attribution_makes_the_same_line() {
        let team = ("x-cost-team", "\"}é\\");
        let tag = ("x-cost-tag-é\"\\", "v");
        let every_kind = [tag, ("x-cost-environment", "e"), team, ("x-cost-workload", "read"), ("x-cost-tag-b", "c")];
        let cases: [(&[_], &[_]); 7] = [
            (&[], &[]),
            (&[], &[team]),
            (&[], &[tag]),
            (&[], &[("x-cost-workload", "write")]),
            (&[("a\"", "b")], &[]),
            (&[("b", "d")], &[team, tag]),
            (&[("b", "d"), ("a", "d")], &every_kind),
        ];
        for (own, headers) in cases {
            let attribution = charged_to(own, headers);
            // The same again later, when more is known of the call.
            for seq in [None, Some(7)] {
                let notes = seq.iter().map(|_| "a note".into()).collect();
                let [written, mut read] = both(&attribution, UsageRecord { seq, notes, ..UsageRecord::default() });
                assert_eq!(line(&written), serde_json::to_string(&read).unwrap(), "{own:?} {headers:?}");
                assert_eq!(line(&written), line(&read));
                // Sources that are read come in the order of their names.
                read.attribution_source.0.sort();
                assert_eq!(serde_json::from_str::<UsageRecord>(&line(&written)).unwrap(), read);
            }
        }
    }

    #[test]
    fn a_source_that_comes_later_joins_those_that_are_rendered() {
        for headers in [&[][..], &[("x-cost-team", "a")]] {
            let [written, read] = both(&charged_to(&[], headers), UsageRecord::default()).map(|mut record| {
                record.workload = Some("read".into());
                record.attribution_source.insert("workload".into(), "inferred".into());
                line(&record)
            });
            assert_eq!(written, read);
            assert!(written.contains(r#""workload":"inferred"}"#), "{written}");
        }
    }

    #[test]
    fn what_is_rendered_stands_in_the_line_as_it_is() {
        let [written, _] = both(&charged_to(&[], &[("x-cost-team", "a")]), UsageRecord::default());
        let rendered = str::from_utf8(&written.rendered.0).unwrap();
        assert_eq!(rendered, r#","team":"a","attribution_source":{"team":"header""#);
        assert!(line(&written).contains(&format!("{rendered}}},")));
    }

    /// Any texts in any fields.
    #[cfg(not(target_arch = "wasm32"))]
    mod properties {
        use super::*;
        use proptest::collection::{btree_map, vec};
        use proptest::prelude::*;

        /// Optional texts before and behind the attribution.
        const TEXTS: [&str; 6] = ["request_id", "route", "api_key", "provider", "error", "request_hash"];
        /// What headers begin with, whose names end in any way.
        const HEADERS: [&str; 9] = [
            "x-cost-tag-",
            "x-cost-tag-",
            "x-cost-feature",
            "x-cost-workload",
            "x-cost-department",
            "x-cost-user",
            "x-cost-run-id",
            "x-cost-cost-centre",
            "x-cost-environment",
        ];

        proptest! {
            #[test]
            fn the_line_is_what_serde_json_writes_and_reads_back(
                texts in vec(any::<Option<String>>(), TEXTS.len()),
                own in btree_map(any::<String>(), "[ -~é]{1,20}", 0..3),
                headers in vec((0..HEADERS.len(), any::<String>(), "[ -~é]{1,20}"), 0..8),
                later in btree_map("later [a-z\"]{0,3}", any::<String>(), 0..3),
                tokens in any::<Option<u64>>(),
                cost in any::<Option<i128>>(),
                notes in vec(any::<String>(), 0..3),
            ) {
                let own: Vec<_> = own.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
                let headers: Vec<_> = headers.into_iter().map(|(at, end, value)| {
                    let end = if HEADERS[at].ends_with('-') { end } else { String::new() };
                    (format!("{}{end}", HEADERS[at]), value)
                }).collect();
                let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
                let attribution = charged_to(&own, &headers);
                let known = TEXTS.iter().zip(texts).filter_map(|(name, text)| Some(((*name).to_owned(), text?.into())));
                let json: serde_json::Map<String, serde_json::Value> = known.collect();
                let record = UsageRecord {
                    input_tokens: tokens,
                    cost_picousd: cost,
                    notes: notes.into_iter().map(Into::into).collect(),
                    ..serde_json::from_value(json.into()).unwrap()
                };
                let [written, mut read] = both(&attribution, record).map(|mut record| {
                    for (place, source) in &later {
                        record.attribution_source.insert(place.clone().into(), source.clone().into());
                    }
                    record
                });
                let line = written.to_json().unwrap();
                prop_assert_eq!(&line, &serde_json::to_vec(&read).unwrap());
                // Sources that are read come in the order of their names.
                read.attribution_source.0.sort();
                prop_assert_eq!(serde_json::from_slice::<UsageRecord>(&line).unwrap(), read);
            }
        }
    }
}
