//! A record as a line of JSON.
//!
//! A call writes its record up to three times: when its headers have come, when its request is over, and in the end.
//! What it is charged to is most of the line and stays the same, so it is rendered once and spliced into each line.
//! The names of the fields, their order and what is left out are those of [`UsageRecord`]'s `Serialize` here as well:
//! it is driven with a serializer that keeps some of the fields and leaves each value to serde_json.

use super::{Sources, UsageRecord};
use serde::Serialize;
use serde::ser::{Error as _, Impossible, SerializeStruct, Serializer};
use serde_json::Error;
use std::borrow::Cow;

/// The first field of the attribution.
const FIRST: &str = "feature";
/// The last one.
const LAST: &str = "attribution_source";
/// Room for what a record says besides its attribution.
const USUAL_BYTES: usize = 1536;

/// The attribution of a record as it is written, up to its last source: one may be added. It says nothing that the
/// record does not, so it makes no difference between two of them.
#[derive(Clone, Debug, Default)]
pub struct Rendered {
    fields: Box<[u8]>,
    /// How many sources are in it; 0 where nothing is rendered.
    sources: usize,
}

impl PartialEq for Rendered {
    fn eq(&self, _: &Rendered) -> bool {
        true
    }
}

impl UsageRecord {
    /// Renders the attribution for all lines to come. From here on, no dimension but `workload` and no tag may change,
    /// and sources may only be added.
    pub fn render_attribution(&mut self) {
        let sources = self.attribution_source.0.len();
        let mut writer = Writer::new(self, Vec::with_capacity(64 * sources), Part::Attribution);
        self.rendered = match self.serialize(&mut writer) {
            // Without a source there is no attribution.
            Ok(()) if sources > 0 => Rendered { fields: writer.line.into(), sources },
            _ => Rendered::default(),
        };
    }

    /// The record as one line of JSON, without a newline.
    ///
    /// # Errors
    /// None that is known; the serialiser's signature allows them.
    pub fn to_json(&self) -> serde_json::Result<Vec<u8>> {
        let line = Vec::with_capacity(self.rendered.fields.len() + USUAL_BYTES);
        let mut writer = Writer::new(self, line, Part::Line(&self.rendered));
        self.serialize(&mut writer)?;
        debug_assert_eq!(writer.line, serde_json::to_vec(self)?, "the attribution changed after it was rendered");
        Ok(writer.line)
    }
}

impl Sources {
    /// Writes all entries but the first `written`, which stand before.
    fn write(&self, written: usize, line: &mut Vec<u8>) -> Result<(), Error> {
        for (number, (place, source)) in self.0.iter().enumerate().skip(written) {
            let comma = if number > 0 { "," } else { "" };
            for (mark, name) in [(comma, place), (":", source)] {
                line.extend_from_slice(mark.as_bytes());
                match name {
                    // A name of ours, which has nothing to escape.
                    Cow::Borrowed(name) => {
                        line.push(b'"');
                        line.extend_from_slice(name.as_bytes());
                        line.push(b'"');
                    }
                    Cow::Owned(name) => serde_json::to_writer(&mut *line, name)?,
                }
            }
        }
        Ok(())
    }
}

/// What a writer takes of a record.
#[derive(Clone, Copy)]
enum Part<'r> {
    /// The fields of the attribution, each with a comma before it, up to the last source.
    Attribution,
    /// Everything, in braces; the attribution as it was rendered, where it was.
    Line(&'r Rendered),
}

/// Writes a record's fields, or some of them.
struct Writer<'r> {
    line: Vec<u8>,
    part: Part<'r>,
    sources: &'r Sources,
    /// Whether the fields at hand are those of the attribution.
    in_attribution: bool,
}

impl<'r> Writer<'r> {
    fn new(record: &'r UsageRecord, line: Vec<u8>, part: Part<'r>) -> Writer<'r> {
        Writer { line, part, sources: &record.attribution_source, in_attribution: false }
    }

    /// Comes to the field `key`, which may be one that is absent, and says whether it is to be written if it is not.
    /// Inlined, most of it is gone: a record has some 80 fields, and each call of this knows its key.
    #[inline(always)]
    fn reach(&mut self, key: &str) -> Result<bool, Error> {
        if key == FIRST {
            self.in_attribution = true;
        }
        let in_attribution = self.in_attribution;
        if key == LAST {
            self.in_attribution = false;
        }
        match self.part {
            Part::Attribution if key == LAST => {
                self.line.extend_from_slice(b",\"attribution_source\":{");
                self.sources.write(0, &mut self.line)?;
                Ok(false)
            }
            Part::Attribution => Ok(in_attribution),
            Part::Line(Rendered { sources: 0, .. }) => Ok(true),
            Part::Line(rendered) => {
                if key == LAST {
                    self.line.extend_from_slice(&rendered.fields);
                    self.sources.write(rendered.sources, &mut self.line)?;
                    self.line.push(b'}');
                }
                Ok(!in_attribution)
            }
        }
    }

    fn write_field<T: Serialize + ?Sized>(&mut self, key: &str, value: &T) -> Result<(), Error> {
        let opens = self.line.is_empty() && matches!(self.part, Part::Line(_));
        // Names of fields have nothing to escape.
        self.line.extend_from_slice(if opens { b"{\"" } else { b",\"" });
        self.line.extend_from_slice(key.as_bytes());
        self.line.extend_from_slice(b"\":");
        value.serialize(&mut serde_json::Serializer::new(&mut self.line))
    }
}

impl SerializeStruct for &mut Writer<'_> {
    type Ok = ();
    type Error = Error;

    #[inline(always)]
    fn serialize_field<T: Serialize + ?Sized>(&mut self, key: &'static str, value: &T) -> Result<(), Error> {
        if self.reach(key)? { self.write_field(key, value) } else { Ok(()) }
    }

    #[inline(always)]
    fn skip_field(&mut self, key: &'static str) -> Result<(), Error> {
        self.reach(key).map(drop)
    }

    fn end(self) -> Result<(), Error> {
        if matches!(self.part, Part::Line(_)) {
            self.line.push(b'}');
        }
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
    use crate::record::SCHEMA_VERSION;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn charged_to(team: Option<&str>, tag: Option<&str>) -> UsageRecord {
        let mut record = UsageRecord { schema_version: SCHEMA_VERSION, id: "0199".into(), ..UsageRecord::default() };
        // In the order of their names, in which they are read back.
        if let Some(tag) = tag {
            record.tags.insert(tag.into(), "v".into());
            record.attribution_source.insert(format!("tags.{tag}").into(), "key".into());
        }
        if let Some(team) = team {
            record.team = Some(team.into());
            record.attribution_source.insert("team".into(), "header".into());
        }
        record
    }

    fn line(record: &UsageRecord) -> String {
        String::from_utf8(record.to_json().unwrap()).unwrap()
    }

    #[test]
    fn a_rendered_attribution_makes_the_same_line() {
        for (team, tag) in [(None, None), (Some("a"), None), (None, Some("é\"\\\n")), (Some("\u{1}\"}"), Some("x"))] {
            let mut record = charged_to(team, tag);
            record.render_attribution();
            assert_eq!(record.rendered.sources == 0, team.or(tag).is_none(), "{team:?} {tag:?}");
            // The same again later, when more is known of the call.
            for seq in [None, Some(7)] {
                record.seq = seq;
                record.notes.extend(seq.map(|_| "a note".into()));
                assert_eq!(line(&record), serde_json::to_string(&record).unwrap());
                assert_eq!(serde_json::from_str::<UsageRecord>(&line(&record)).unwrap(), record);
            }
        }
    }

    #[test]
    fn a_source_that_comes_later_joins_those_that_are_rendered() {
        for team in [None, Some("a")] {
            let mut record = charged_to(team, None);
            record.render_attribution();
            record.workload = Some("read".into());
            record.attribution_source.insert("workload".into(), "inferred".into());
            assert_eq!(line(&record), serde_json::to_string(&record).unwrap());
            assert!(line(&record).contains(r#""workload":"inferred"}"#), "{}", line(&record));
        }
    }

    #[test]
    fn what_was_rendered_is_not_rendered_again() {
        let mut record = charged_to(Some("a"), None);
        record.render_attribution();
        let rendered = record.rendered.fields.clone();
        assert_eq!(&*rendered, br#","team":"a","attribution_source":{"team":"header""#);
        assert!(line(&record).contains(std::str::from_utf8(&rendered).unwrap()));
    }

    /// Any texts in any fields.
    #[cfg(not(target_arch = "wasm32"))]
    mod properties {
        use super::*;
        use proptest::collection::{btree_map, vec};
        use proptest::prelude::*;

        /// Optional texts before, within and behind the attribution.
        const TEXTS: [&str; 12] = [
            "request_id",
            "route",
            "workload",
            "feature",
            "department",
            "user",
            "cost_centre",
            "environment",
            "api_key",
            "provider",
            "error",
            "request_hash",
        ];

        proptest! {
            #[test]
            fn the_line_is_what_serde_json_writes_and_reads_back(
                texts in vec(any::<Option<String>>(), TEXTS.len()),
                tags in btree_map(any::<String>(), any::<String>(), 0..4),
                sources in btree_map(any::<String>(), any::<String>(), 0..6),
                later in btree_map("later [a-z\"]{0,3}", any::<String>(), 0..3),
                tokens in any::<Option<u64>>(),
                cost in any::<Option<i128>>(),
                notes in vec(any::<String>(), 0..3),
            ) {
                let known = TEXTS.iter().zip(texts).filter_map(|(name, text)| Some(((*name).to_owned(), text?.into())));
                let mut json: serde_json::Map<String, serde_json::Value> = known.collect();
                json.insert("tags".into(), serde_json::to_value(tags).unwrap());
                json.insert("attribution_source".into(), serde_json::to_value(sources).unwrap());
                let mut record: UsageRecord = serde_json::from_value(json.into()).unwrap();
                record.render_attribution();
                for (place, source) in later {
                    record.attribution_source.insert(place.into(), source.into());
                }
                record.input_tokens = tokens;
                record.cost_picousd = cost;
                record.notes = notes.into_iter().map(Into::into).collect();
                let line = record.to_json().unwrap();
                prop_assert_eq!(&line, &serde_json::to_vec(&record).unwrap());
                // Sources that are read come in the order of their names.
                record.attribution_source.0.sort();
                prop_assert_eq!(serde_json::from_slice::<UsageRecord>(&line).unwrap(), record);
            }
        }
    }
}
