//! The record in a line of a collector's file or of an access log.
//!
//! A line may be the record itself, have it behind something else (a container runtime's time and stream), or be an
//! object that has it under one of its keys, as an object or as text (Envoy's `json_format`, CloudEvents, log shippers).
//! Only what tells records apart is read, so that records of later versions are carried along.

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

/// A key that every record has, and hardly anything else.
const MARK: &str = "schema_version";

/// The bytes of an id, which is a UUID; ids are in the same order as their texts.
pub(super) type Id = [u8; 16];

/// What a line is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found<'a> {
    /// A record.
    Record(Record<'a>),
    /// JSON without a record.
    Json,
    /// Text without a record.
    Text,
    /// What seems to be a record and cannot be read, with what is wrong.
    Damaged(String),
}

/// A record, as much of it as merging has to know.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Record<'a> {
    /// Its text, as it came.
    pub(super) text: Cow<'a, str>,
    /// Its id.
    pub(super) id: Id,
    /// Microseconds since 1970.
    pub(super) ts_micros: i64,
    /// What it is about.
    pub(super) about: About,
}

/// What a record is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum About {
    /// A call that has ended.
    Ended(Ended),
    /// A call whose end nobody has seen, that far into it.
    UnderWay {
        /// How long it had taken.
        duration_ms: u32,
    },
    /// No call.
    Other,
}

/// A call that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ended {
    /// The VM that wrote the record, and its number there.
    pub(super) place: Option<(Box<str>, u64)>,
    /// A hash of what the call came to: how it ended, what it used and what it cost.
    pub(super) outcome: u32,
}

/// The fields that are read; all others are passed over.
#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(borrow)]
    schema_version: Option<&'a RawValue>,
    #[serde(borrow, rename = "type")]
    record_type: Option<&'a RawValue>,
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    instance: Option<&'a RawValue>,
    #[serde(borrow)]
    seq: Option<&'a RawValue>,
    #[serde(borrow)]
    ts: Option<&'a RawValue>,
    #[serde(borrow)]
    duration_ms: Option<&'a RawValue>,
    #[serde(borrow)]
    status: Option<&'a RawValue>,
    #[serde(borrow)]
    end_reason: Option<&'a RawValue>,
    #[serde(borrow)]
    decision: Option<&'a RawValue>,
    #[serde(borrow)]
    usage_source: Option<&'a RawValue>,
    #[serde(borrow)]
    input_tokens: Option<&'a RawValue>,
    #[serde(borrow)]
    output_tokens: Option<&'a RawValue>,
    #[serde(borrow)]
    price_status: Option<&'a RawValue>,
    #[serde(borrow)]
    cost_picousd: Option<&'a RawValue>,
}

/// Finds the record in a line.
pub(super) fn find(line: &[u8]) -> Found<'_> {
    let Ok(text) = std::str::from_utf8(line) else {
        let marked = line.windows(MARK.len()).any(|window| window == MARK.as_bytes());
        return if marked { Found::Damaged("not UTF-8 text".into()) } else { Found::Text };
    };
    if text.starts_with('{') {
        return in_object(text);
    }
    match text.find('{').and_then(|start| text.get(start..)) {
        Some(rest) if rest.contains(MARK) => in_object(rest),
        _ => Found::Text,
    }
}

/// Finds the record in text that begins like an object.
fn in_object(text: &str) -> Found<'_> {
    match read(Cow::Borrowed(text)) {
        // Most lines of an access log of one's own are about something else.
        Found::Json if text.contains(MARK) => in_values(text),
        found => found,
    }
}

/// Finds the record among the values of an object.
fn in_values(text: &str) -> Found<'_> {
    let Ok(values) = serde_json::from_str::<BTreeMap<Cow<'_, str>, &RawValue>>(text) else { return Found::Json };
    let objects = values.into_values().map(RawValue::get).filter_map(|value| {
        // Container runtimes keep the line's end.
        let inner = match serde_json::from_str::<String>(value) {
            Ok(inner) => Cow::Owned(inner.trim().to_owned()),
            Err(_) => Cow::Borrowed(value),
        };
        (inner.starts_with('{') && inner.contains(MARK)).then_some(inner)
    });
    let found = objects.map(read).find(|found| matches!(found, Found::Record(_) | Found::Damaged(_)));
    found.unwrap_or(Found::Json)
}

/// Reads text that may be a record and nothing else.
fn read(text: Cow<'_, str>) -> Found<'_> {
    let parts = match serde_json::from_str::<Fields<'_>>(&text) {
        Ok(fields) if fields.schema_version.is_none() => return Found::Json,
        Ok(fields) => fields.parts(),
        Err(error) if text.contains(MARK) => Err(error.to_string()),
        Err(_) => return Found::Text,
    };
    match parts {
        // It would be several lines of the output too.
        Ok(_) if text.contains('\n') => Found::Damaged("the record has several lines".into()),
        Ok((id, ts_micros, about)) => Found::Record(Record { text, id, ts_micros, about }),
        Err(message) => Found::Damaged(message),
    }
}

impl Fields<'_> {
    /// The record's id, its time and what it is about.
    fn parts(&self) -> Result<(Id, i64, About), String> {
        let kind = text(self.record_type).ok_or("it has no type")?;
        let id = text(self.id).ok_or("it has no id")?;
        let ts = text(self.ts).ok_or("it has no ts")?;
        let id = uuid(&id).ok_or_else(|| format!("its id {id:?} is no UUID"))?;
        let ts = ts.parse::<Timestamp>().map_err(|_| format!("its ts {ts:?} is no point in time"))?;
        Ok((id, ts.as_microsecond(), self.about(&kind)?))
    }

    fn about(&self, kind: &str) -> Result<About, String> {
        if kind != "usage" {
            return Ok(About::Other);
        }
        // Without it nobody knows whether the call has ended.
        let end_reason = text(self.end_reason).ok_or("it has no end_reason")?;
        if end_reason == "provisional" {
            let duration_ms = number(self.duration_ms).unwrap_or_default();
            return Ok(About::UnderWay { duration_ms: u32::try_from(duration_ms).unwrap_or(u32::MAX) });
        }
        let place = text(self.instance).zip(number(self.seq));
        let outcome = [
            self.status,
            self.end_reason,
            self.decision,
            self.usage_source,
            self.input_tokens,
            self.output_tokens,
            self.price_status,
            self.cost_picousd,
        ];
        let mut hash = DefaultHasher::new();
        outcome.map(|field| field.map(RawValue::get)).hash(&mut hash);
        // Half of it will do, for there is one for every record in memory.
        let outcome = u32::try_from(hash.finish() >> 32).unwrap_or_default();
        Ok(About::Ended(Ended { place: place.map(|(instance, seq)| (instance.into(), seq)), outcome }))
    }
}

fn text(field: Option<&RawValue>) -> Option<Cow<'_, str>> {
    let text: Text<'_> = serde_json::from_str(field?.get()).ok()?;
    Some(text.0)
}

/// A text, borrowed where it can be.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

fn number(field: Option<&RawValue>) -> Option<u64> {
    field?.get().parse().ok()
}

/// The bytes of a UUID.
fn uuid(text: &str) -> Option<Id> {
    let mut number = 0u128;
    for (index, byte) in text.bytes().enumerate() {
        number = match (index, char::from(byte).to_digit(16)) {
            (8 | 13 | 18 | 23, None) if byte == b'-' => number,
            (8 | 13 | 18 | 23, _) => return None,
            (_, digit) => number << 4 | u128::from(digit?),
        };
    }
    (text.len() == 36).then(|| number.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0199aaaa-bbbb-7ccc-8ddd-eeeeffff0001";

    fn usage(more: &str) -> String {
        format!(
            r#"{{"schema_version":1,"type":"usage","id":"{ID}","instance":"i","ts":"2026-11-18T12:00:00.000001Z"{more}}}"#
        )
    }

    /// The text and what it is about, or what else there is.
    fn told(line: &str) -> Result<(String, About), String> {
        match find(line.as_bytes()) {
            Found::Record(record) => {
                assert_eq!(record.id, 0x0199_aaaa_bbbb_7ccc_8ddd_eeee_ffff_0001u128.to_be_bytes());
                assert_eq!(record.ts_micros, 1_795_003_200_000_001);
                Ok((record.text.into_owned(), record.about))
            }
            other => Err(format!("{other:?}")),
        }
    }

    fn outcome(line: &str) -> u32 {
        match told(line) {
            Ok((_, About::Ended(ended))) => ended.outcome,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_record_is_found_wherever_it_stands_in_a_line() {
        let record = usage(r#","seq":7,"end_reason":"complete","cost_usd":0.10,"text":"\"{\\n\"""#);
        let escaped = serde_json::to_string(&record).unwrap();
        let with_newline = serde_json::to_string(&(record.clone() + "\n")).unwrap();
        for line in [
            record.clone(),
            format!("2026-11-18T12:00:00.123456789Z stdout F {record}"),
            format!(r#"{{"time":"x","log":{with_newline},"stream":"stdout"}}"#),
            format!(r#"{{"code":200,"record":{escaped}}}"#),
            format!(r#"{{"specversion":"1.0","data":{record}}}"#),
            format!(r#"{{"a":"schema_version","b":["schema_version"],"c":{{}},"d":{escaped}}}"#),
        ] {
            let (text, about) = told(&line).unwrap();
            assert_eq!(text, record, "{line}");
            let About::Ended(ended) = about else { panic!("{line}") };
            assert_eq!(ended.place, Some(("i".into(), 7)), "{line}");
        }
    }

    #[test]
    fn a_call_under_way_is_told_from_one_that_has_ended() {
        let about = |more: &str| told(&usage(more)).unwrap().1;
        assert_eq!(about(r#","end_reason":"provisional""#), About::UnderWay { duration_ms: 0 });
        assert_eq!(about(r#","end_reason":"provisional","duration_ms":90"#), About::UnderWay { duration_ms: 90 });
        let alert = usage("").replace("usage", "budget_alert");
        assert_eq!(told(&alert).unwrap().1, About::Other);
        let later =
            usage("").replace("usage", "of_the_future").replace(r#""schema_version":1"#, r#""schema_version":9"#);
        assert_eq!(told(&later).unwrap().1, About::Other);
    }

    #[test]
    fn what_a_call_came_to_does_not_depend_on_how_it_is_written() {
        let plain = usage(r#","end_reason":"complete","input_tokens":5,"cost_picousd":7,"cost_usd":0.10"#);
        let other =
            usage(r#","cost_picousd": 7, "input_tokens": 5, "cost_usd":1e-1, "end_reason": "complete", "host":"a""#);
        assert_eq!(outcome(&plain), outcome(&other));
        for (from, to) in [(":7", ":8"), (":5", ":6"), ("complete", "client_abort"), (r#","input_tokens":5"#, "")] {
            assert_ne!(outcome(&plain), outcome(&plain.replace(from, to)), "{to}");
        }
    }

    #[test]
    fn what_has_no_record_is_told_by_kind_and_what_is_damaged_by_reason() {
        let whole = usage(r#","end_reason":"complete""#);
        let cut = whole.get(..60).unwrap();
        let escaped = serde_json::to_string(cut).unwrap();
        for (line, said) in [
            ("-".into(), "Text"),
            ("[2026-11-18] GET /index.html {a}".into(), "Text"),
            ("{oops".into(), "Text"),
            ("{}".into(), "Json"),
            (r#"{"type":"usage","id":1}"#.into(), "Json"),
            (r#"{"path":"schema_version","x":["schema_version"]}"#.into(), "Json"),
            (cut.into(), "EOF while parsing"),
            (format!(r#"{{"log":{escaped}}}"#), "EOF while parsing"),
            (format!("2026-11-18T12:00:00Z stdout P {cut}"), "EOF while parsing"),
            (usage(""), "no end_reason"),
            (whole.replace("0199aaaa-", "0199aaaa"), "is no UUID"),
            (whole.replace("0199aaaa-", "+199aaaa-"), "is no UUID"),
            (whole.replace("12:00", "25:00"), "is no point in time"),
            (whole.replace(r#""type":"usage","#, ""), "no type"),
            (whole.replace(r#""usage""#, "7"), "no type"),
            (format!(r#"{{"log":{}}}"#, serde_json::to_string(&whole.replace(',', ",\n")).unwrap()), "several lines"),
            (format!("{whole}{whole}"), "trailing characters"),
        ] {
            let told = told(&line).unwrap_err();
            assert!(told.contains(said), "{line}: {told}");
        }
        assert_eq!(find(b"\xff"), Found::Text);
        assert_eq!(find(b"{\"schema_version\":\"\xff\"}"), Found::Damaged("not UTF-8 text".into()));
    }
}
