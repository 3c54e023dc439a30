//! What must hold for any request and any stream that Tollgate edits.
//!
//! Each property has a second implementation to compare with: requests are written twice from one tree, as they come and
//! as they must go out; streams are made of events of which it is known whether they go.

use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::Value as Json;
use tollgate::rewrite::MAX_HELD_BYTES;
use tollgate::rewrite::include_usage::{Injector, Outcome, Reason};
use tollgate::rewrite::model::{self, Edits};
use tollgate::rewrite::usage_event::UsageEventFilter;

/// Cuts `bytes` where `cuts` say, which are taken modulo its length.
fn pieces<'a>(bytes: &'a [u8], cuts: &[usize]) -> Vec<&'a [u8]> {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
    cuts.sort_unstable();
    let ends = cuts.iter().copied().chain([bytes.len()]);
    let mut begin = 0;
    ends.map(|end| &bytes[std::mem::replace(&mut begin, end)..end]).collect()
}

fn cuts() -> impl Strategy<Value = Vec<usize>> {
    prop_oneof![vec(any::<usize>(), 0..6), vec(any::<usize>(), 0..200)]
}

fn inject(pieces: &[&[u8]], end_with_last: bool) -> (Vec<u8>, Outcome) {
    let mut injector = Injector::new();
    let mut edited = Vec::new();
    for (at, piece) in pieces.iter().enumerate() {
        let end = end_with_last && at + 1 == pieces.len();
        edited.extend(injector.feed(piece, end).unwrap_or(piece.to_vec()));
        assert!(injector.held_bytes() <= MAX_HELD_BYTES);
    }
    if !end_with_last {
        edited.extend(injector.feed(b"", true).unwrap_or_default());
    }
    assert_eq!(injector.held_bytes(), 0);
    (edited, injector.outcome())
}

fn filter(pieces: &[&[u8]], end_with_last: bool) -> (Vec<u8>, u64) {
    let mut filter = UsageEventFilter::new();
    let mut left = Vec::new();
    for (at, piece) in pieces.iter().enumerate() {
        let end = end_with_last && at + 1 == pieces.len();
        left.extend(filter.feed(piece, end).unwrap_or(piece.to_vec()));
        assert!(filter.held_bytes() <= MAX_HELD_BYTES);
    }
    if !end_with_last {
        left.extend(filter.feed(b"", true).unwrap_or_default());
    }
    assert_eq!(filter.missed(), 0);
    (left, filter.removed())
}

/// JSON that keeps the order and repetition of keys and the spelling of scalars.
#[derive(Clone, Debug)]
enum Tree {
    Scalar(String),
    Array(Vec<Tree>),
    Object(Vec<(String, Tree)>),
}

fn scalar() -> impl Strategy<Value = Tree> {
    prop_oneof![
        4 => Just("true".to_owned()),
        2 => Just("false".to_owned()),
        2 => Just("null".to_owned()),
        1 => Just("-0.10E+20".to_owned()),
        1 => Just("12345678901234567890123".to_owned()),
        1 => any::<String>().prop_map(|text| serde_json::to_string(&text).unwrap()),
        1 => Just(r#""}]\\\"\ud83d\ude00{[""#.to_owned()),
    ]
    .prop_map(Tree::Scalar)
}

fn tree() -> impl Strategy<Value = Tree> {
    scalar().prop_recursive(3, 16, 4, |inner| {
        prop_oneof![vec(inner.clone(), 0..4).prop_map(Tree::Array), members(inner).prop_map(Tree::Object)]
    })
}

/// Members with the keys of interest likely, and likely more than once.
fn members(value: impl Strategy<Value = Tree>) -> impl Strategy<Value = Vec<(String, Tree)>> {
    let key = prop_oneof![
        Just("stream".to_owned()),
        Just("stream_options".to_owned()),
        Just("include_usage".to_owned()),
        any::<String>()
    ];
    vec((key, value), 0..4)
}

fn request() -> impl Strategy<Value = Vec<(String, Tree)>> {
    let options = prop_oneof![3 => members(tree()).prop_map(Tree::Object), 1 => tree()];
    let member = prop_oneof![
        3 => scalar().prop_map(|value| ("stream".to_owned(), value)),
        3 => options.prop_map(|value| ("stream_options".to_owned(), value)),
        1 => (any::<String>(), tree()),
    ];
    vec(member, 0..6)
}

/// Writes a request as the client would and as it must go out.
struct Writer<'a> {
    style: std::iter::Cycle<std::slice::Iter<'a, u8>>,
    sent: String,
    edited: String,
}

impl Writer<'_> {
    fn both(&mut self, text: &str) {
        self.sent.push_str(text);
        self.edited.push_str(text);
    }

    fn space(&mut self) {
        let spaces = ["", "", "", "", " ", "\n\t", "\r\n  "];
        let choice = usize::from(*self.style.next().unwrap()) % spaces.len();
        self.both(spaces[choice]);
    }

    fn key(&mut self, key: &str) {
        let mut escaped = String::new();
        for character in key.chars() {
            let code = u32::from(character);
            if code < 0x80
                && (matches!(character, '"' | '\\' | '\0'..' ') || self.style.next().unwrap().is_multiple_of(8))
            {
                escaped.push_str(&format!("\\u{code:04x}"));
            } else {
                escaped.push(character);
            }
        }
        self.both(&format!("\"{escaped}\""));
    }

    fn tree(&mut self, tree: &Tree) {
        match tree {
            Tree::Scalar(text) => self.both(text),
            Tree::Array(items) => {
                self.both("[");
                for (at, item) in items.iter().enumerate() {
                    self.both(if at > 0 { "," } else { "" });
                    self.space();
                    self.tree(item);
                    self.space();
                }
                self.both("]");
            }
            Tree::Object(fields) => self.object(fields, |writer, _, value| writer.tree(value)),
        }
    }

    /// Writes an object but for what an edit puts before its end.
    fn object(&mut self, fields: &[(String, Tree)], mut value: impl FnMut(&mut Self, usize, &Tree)) {
        self.open_object(fields, &mut value);
        self.both("}");
    }

    fn open_object(&mut self, fields: &[(String, Tree)], value: &mut impl FnMut(&mut Self, usize, &Tree)) {
        self.both("{");
        self.space();
        for (at, (key, field)) in fields.iter().enumerate() {
            self.both(if at > 0 { "," } else { "" });
            self.space();
            self.key(key);
            self.space();
            self.both(":");
            self.space();
            value(self, at, field);
            self.space();
        }
    }

    fn options(&mut self, options: &Tree) {
        match options {
            Tree::Scalar(text) if text == "null" => {
                self.sent.push_str("null");
                self.edited.push_str(r#"{"include_usage":true}"#);
            }
            Tree::Object(fields) => {
                self.open_object(fields, &mut |writer, at, value| match (fields[at].0.as_str(), value) {
                    ("include_usage", Tree::Scalar(text)) if text == "false" || text == "null" => {
                        writer.sent.push_str(text);
                        writer.edited.push_str("true");
                    }
                    _ => writer.tree(value),
                });
                if !fields.iter().any(|(key, _)| key == "include_usage") {
                    self.edited.push_str(if fields.is_empty() { "" } else { "," });
                    self.edited.push_str(r#""include_usage":true"#);
                }
                self.both("}");
            }
            other => self.tree(other),
        }
    }
}

/// The request as sent and as it must go out.
fn write(request: &[(String, Tree)], style: &[u8]) -> (String, String) {
    let mut writer = Writer { style: style.iter().cycle(), sent: String::new(), edited: String::new() };
    let streams: Vec<(usize, bool)> = request
        .iter()
        .enumerate()
        .filter(|(_, (key, _))| key == "stream")
        .map(|(at, (_, value))| (at, matches!(value, Tree::Scalar(text) if text == "true")))
        .collect();
    writer.space();
    writer.open_object(request, &mut |writer, at, value| {
        let before = streams.iter().rev().find(|(other, _)| *other < at);
        let (_, on) = before.or_else(|| streams.iter().find(|(other, _)| *other > at)).copied().unwrap_or_default();
        if request[at].0 == "stream_options" && on { writer.options(value) } else { writer.tree(value) }
    });
    if streams.last().is_some_and(|(_, on)| *on) && !request.iter().any(|(key, _)| key == "stream_options") {
        writer.edited.push_str(r#","stream_options":{"include_usage":true}"#);
    }
    writer.both("}");
    writer.space();
    (writer.sent, writer.edited)
}

/// The most output tokens of the model that requests go to.
const MOST: u64 = 4096;

const LIMITS: [&str; 3] = ["max_tokens", "max_completion_tokens", "max_output_tokens"];

/// A request with its model and its limits likely there, and likely more than once.
fn modelled_request() -> impl Strategy<Value = Vec<(String, Tree)>> {
    let number = prop_oneof![
        (MOST - 1..=MOST + 1).prop_map(|number| number.to_string()),
        Just("0".to_owned()),
        Just("99999999999999999999".to_owned()),
        Just("5e9".to_owned()),
        Just("-5000".to_owned()),
    ];
    let limit = prop_oneof![4 => number.prop_map(Tree::Scalar), 1 => tree()];
    let settings = vec((prop::sample::select(&["maxOutputTokens", "model", "max_tokens"][..]), limit.clone()), 0..4);
    let settings = settings.prop_map(|members| members.into_iter().map(|(key, value)| (key.to_owned(), value)));
    let member = prop_oneof![
        3 => tree().prop_map(|value| ("model".to_owned(), value)),
        2 => (prop::sample::select(&LIMITS[..]), limit).prop_map(|(key, value)| (key.to_owned(), value)),
        1 => settings.prop_map(|members| ("generationConfig".to_owned(), Tree::Object(members.collect()))),
        2 => (any::<String>(), tree()),
    ];
    vec(member, 0..6)
}

/// The request as sent and as it must go out to the model that `model` is the JSON of.
fn write_for_model(request: &[(String, Tree)], style: &[u8], model: &str) -> (String, String) {
    let mut writer = Writer { style: style.iter().cycle(), sent: String::new(), edited: String::new() };
    writer.space();
    writer.object(request, |writer, at, value| match request[at].0.as_str() {
        "model" => writer.replaced(value, model),
        key if LIMITS.contains(&key) => writer.limit(value),
        "generationConfig" => match value {
            Tree::Object(members) => writer.object(members, |writer, at, value| {
                if members[at].0 == "maxOutputTokens" { writer.limit(value) } else { writer.tree(value) }
            }),
            other => writer.tree(other),
        },
        _ => writer.tree(value),
    });
    writer.space();
    (writer.sent, writer.edited)
}

impl Writer<'_> {
    fn replaced(&mut self, value: &Tree, by: &str) {
        let length = self.edited.len();
        self.tree(value);
        self.edited.truncate(length);
        self.edited.push_str(by);
    }

    fn limit(&mut self, value: &Tree) {
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        match value {
            Tree::Scalar(text) if digits(text) && text.parse::<u128>().unwrap_or(u128::MAX) > MOST.into() => {
                self.replaced(value, &MOST.to_string());
            }
            _ => self.tree(value),
        }
    }
}

/// The body without what an edit may change, as a parser reads it.
fn unedited(body: &[u8]) -> Json {
    let mut body: Json = serde_json::from_slice(body).unwrap();
    let fields = body.as_object_mut().unwrap();
    fields.retain(|key, _| key != "model" && !LIMITS.contains(&key.as_str()));
    if let Some(settings) = fields.get_mut("generationConfig").and_then(Json::as_object_mut) {
        settings.remove("maxOutputTokens");
    }
    body
}

/// A stream's line, of an event or between two, without its end.
#[derive(Clone, Debug)]
enum Line {
    Data(String),
    Other(String),
    Comment(String),
}

/// An event: its lines, and whether it is the one that goes.
fn event() -> impl Strategy<Value = (Vec<Line>, bool)> {
    let usage = r#"{"id":"é","choices":[],"usage":{"total_tokens":3,"details":{"a":[]}},"x":null}"#;
    let data = prop_oneof![
        3 => Just((usage.to_owned(), true)),
        1 => Just((r#" {"usage" : {} , "\u0063hoices" : [ ] } "#.to_owned(), true)),
        1 => Just((r#"{"choices":[],"prompt_filter_results":[]}"#.to_owned(), false)),
        1 => Just((r#"{"choices":[],"usage":null}"#.to_owned(), false)),
        1 => Just((r#"{"choices":[{"delta":{"content":"\n"}}],"usage":{"total_tokens":3}}"#.to_owned(), false)),
        1 => Just(("[DONE]".to_owned(), false)),
        1 => "[ -~é]{0,20}".prop_map(|text| (text, false)),
    ];
    let extra = prop_oneof![
        Just(Line::Other("event: chunk".into())),
        Just(Line::Other("id: 7".into())),
        Just(Line::Other("dat".into())),
        Just(Line::Comment(": wait".into())),
        Just(Line::Comment(":".into())),
    ];
    let named =
        (data, vec((any::<prop::sample::Index>(), extra.clone()), 0..3), any::<prop::sample::Index>(), any::<bool>());
    let with_data = named.prop_map(|((data, usage), extras, cut, split)| {
        // A line break where white space may stand leaves the text the same.
        let outside_strings = |&(at, _): &(usize, &str)| data.split_at(at).0.matches('"').count() % 2 == 0;
        let places = data.match_indices([',', ':']).filter(outside_strings);
        let mut lines = match places.filter(|_| split && usage).nth(cut.index(8)) {
            Some((at, _)) => {
                let (head, tail) = data.split_at(at);
                vec![Line::Data(head.into()), Line::Data(tail.into())]
            }
            None => vec![Line::Data(data)],
        };
        for (at, extra) in extras {
            lines.insert(at.index(lines.len() + 1), extra);
        }
        (lines, usage)
    });
    prop_oneof![8 => with_data, 1 => vec(extra, 0..3).prop_map(|lines| (lines, false))]
}

/// Writes a stream as it comes and as it must go on; `style` chooses line ends and spaces.
fn write_stream(events: &[(Vec<Line>, bool)], style: &[u8], mark: bool, last_is_cut: bool) -> (String, String) {
    let mut style = style.iter().cycle().copied();
    let (mut sent, mut left) = (String::new(), String::new());
    if mark {
        sent.push('\u{feff}');
        left.push('\u{feff}');
    }
    let mut end = |sent: &str, empty: bool| match style.next().unwrap() % 4 {
        // After a CR a lone LF would be the second half of a CRLF.
        0 | 1 if empty && sent.ends_with('\r') => "\r",
        0 | 1 => "\n",
        2 => "\r\n",
        _ => "\r",
    };
    for (at, (lines, goes)) in events.iter().enumerate() {
        let fields = lines.iter().any(|line| !matches!(line, Line::Comment(_)));
        let cut = last_is_cut && at + 1 == events.len();
        for (line_at, line) in lines.iter().enumerate() {
            let (text, stays) = match line {
                Line::Data(text) => (format!("data: {text}"), !goes),
                Line::Other(text) => (text.clone(), !goes),
                Line::Comment(text) => (text.clone(), true),
            };
            let last = cut && line_at + 1 == lines.len();
            let end = if last { "" } else { end(&sent, text.is_empty()) };
            for part in [text.as_str(), end] {
                sent.push_str(part);
                left.push_str(if stays { part } else { "" });
            }
        }
        if !cut {
            let blank = end(&sent, true);
            sent.push_str(blank);
            left.push_str(if *goes && fields { "" } else { blank });
        }
    }
    (sent, left)
}

proptest! {
    #[test]
    fn a_request_goes_out_with_its_edits_and_nothing_else_changed(
        request in request(), style in vec(any::<u8>(), 1..40), cuts in cuts(), end_with_last: bool,
    ) {
        let (sent, expected) = write(&request, &style);
        let (edited, outcome) = inject(&pieces(sent.as_bytes(), &cuts), end_with_last);
        prop_assert_eq!(str::from_utf8(&edited).unwrap(), &expected, "of {}", sent);

        // The same, as a reader of the last of two keys sees it.
        let mut before: Json = serde_json::from_str(&sent).unwrap();
        let after: Json = serde_json::from_slice(&edited).unwrap();
        let asks = |request: &Json| request["stream"] == true && request["stream_options"]["include_usage"] == true;
        match outcome {
            Outcome::NotNeeded if asks(&before) => prop_assert!(asks(&after)),
            Outcome::NotNeeded => prop_assert_eq!(&before, &after),
            Outcome::GaveUp(reason) => {
                prop_assert!(matches!(reason, Reason::WrongType | Reason::StreamTwice), "{:?} of {}", reason, sent);
                prop_assert_eq!(&edited, sent.as_bytes());
            }
            Outcome::Injected => {
                prop_assert!(!asks(&before));
                let alone = |key| request.iter().filter(|(other, _)| other == key).count() <= 1;
                if alone("stream") && alone("stream_options") && after["stream_options"]["include_usage"] == true {
                    if before["stream_options"].is_null() {
                        before["stream_options"] = serde_json::json!({});
                    }
                    before["stream_options"]["include_usage"] = true.into();
                    prop_assert_eq!(&before, &after);
                }
            }
        }
    }

    #[test]
    fn a_damaged_request_goes_the_same_way_at_every_split(
        request in request(), style in vec(any::<u8>(), 1..40), cuts in cuts(),
        damage in vec((any::<usize>(), prop_oneof![any::<u8>(), prop::sample::select(&b"{}[]\",:\\tfn0 "[..])]), 0..4),
        length: prop::sample::Index,
    ) {
        let mut sent = write(&request, &style).0.into_bytes();
        for (at, byte) in damage {
            let len = sent.len();
            sent[at % len] = byte;
        }
        sent.truncate(length.index(sent.len() * 2).max(1));
        let whole = inject(&[&sent], true);
        prop_assert_eq!(&inject(&pieces(&sent, &cuts), false), &whole);
        prop_assert_eq!(&inject(&sent.chunks(1).collect::<Vec<_>>(), false), &whole);
        if matches!(whole.1, Outcome::GaveUp(_)) {
            prop_assert_eq!(&whole.0, &sent);
        }
    }

    #[test]
    fn a_request_goes_to_another_model_and_nothing_else_is_changed(
        request in modelled_request(), style in vec(any::<u8>(), 1..40), model: String, other: String,
    ) {
        let (sent, expected) = write_for_model(&request, &style, &serde_json::to_string(&model).unwrap());
        let names_model = request.iter().any(|(key, _)| key == "model");
        let edits = Edits { model: Some(&model), max_output_tokens: Some(MOST) };
        let edited = model::replace(sent.as_bytes(), &edits);
        prop_assert_eq!(edited.is_some(), names_model, "of {}", sent);
        if let Some(edited) = edited {
            prop_assert_eq!(str::from_utf8(&edited).unwrap(), &expected, "of {}", sent);
            prop_assert_eq!(unedited(&edited), unedited(sent.as_bytes()));
            let read: Json = serde_json::from_slice(&edited).unwrap();
            prop_assert_eq!(&read["model"], &model);
            // The same again changes nothing, and another model leaves no trace of the one before.
            prop_assert_eq!(model::replace(&edited, &edits), Some(edited.clone()));
            let edits = Edits { model: Some(&other), ..edits };
            prop_assert_eq!(model::replace(&edited, &edits), model::replace(sent.as_bytes(), &edits));
        }
        prop_assert_eq!(model::replace(sent.as_bytes(), &Edits::default()), Some(sent.into_bytes()));
    }

    #[test]
    fn a_damaged_request_goes_to_another_model_only_if_it_is_still_json(
        request in modelled_request(), style in vec(any::<u8>(), 1..40),
        damage in vec((any::<usize>(), prop_oneof![any::<u8>(), prop::sample::select(&b"{}[]\",:\\tfn0 "[..])]), 0..4),
        length: prop::sample::Index,
    ) {
        let mut sent = write_for_model(&request, &style, "").0.into_bytes();
        for (at, byte) in damage {
            let len = sent.len();
            sent[at % len] = byte;
        }
        sent.truncate(length.index(sent.len() * 2).max(1));
        let edits = Edits { model: Some("small"), max_output_tokens: Some(MOST) };
        if let Some(edited) = model::replace(&sent, &edits) {
            let is_json = |body| serde_json::from_slice::<&serde_json::value::RawValue>(body).is_ok();
            prop_assert!(is_json(&sent) && is_json(&edited), "{}", sent.escape_ascii());
        }
    }

    #[test]
    fn a_stream_goes_on_without_exactly_the_usage_events(
        events in vec(event(), 0..6), style in vec(any::<u8>(), 1..40), cuts in cuts(),
        mark: bool, last_is_cut: bool, end_with_last: bool,
    ) {
        let (sent, expected) = write_stream(&events, &style, mark, last_is_cut);
        let (left, removed) = filter(&pieces(sent.as_bytes(), &cuts), end_with_last);
        prop_assert_eq!(str::from_utf8(&left).unwrap(), &expected, "of {:?}", sent);
        prop_assert_eq!(removed, events.iter().filter(|(_, goes)| *goes).count() as u64);
    }

    #[test]
    fn a_damaged_stream_goes_the_same_way_at_every_split(
        events in vec(event(), 0..6), style in vec(any::<u8>(), 1..40), cuts in cuts(),
        damage in vec((any::<usize>(), prop_oneof![any::<u8>(), prop::sample::select(&b"\r\n\r\n: d\xef"[..])]), 1..6),
    ) {
        let mut sent = write_stream(&events, &style, true, true).0.into_bytes();
        for (at, byte) in damage {
            let len = sent.len();
            sent[at % len] = byte;
        }
        let whole = filter(&[&sent], true);
        prop_assert_eq!(&filter(&pieces(&sent, &cuts), false), &whole);
        prop_assert_eq!(&filter(&sent.chunks(1).collect::<Vec<_>>(), false), &whole);
        if whole.1 == 0 {
            prop_assert_eq!(&whole.0, &sent);
        }
    }
}
