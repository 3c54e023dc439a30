//! A request that is edited parses to the same with `stream_options.include_usage` true; any other goes as it came.

use super::input::{Input, inflated};
use super::parsed;
use serde_json::Value as Json;
use serde_json::value::RawValue;
use tollgate::rewrite::MAX_HELD_BYTES;
use tollgate::rewrite::include_usage::{Injector, Outcome, Reason};

const MARK: &[u8] = b"\xef\xbb\xbf";

pub(crate) fn check(data: &[u8]) {
    let mut input = Input::new(data);
    let cuts = input.cuts();
    let end_with_last = input.byte() & 1 != 0;
    let sent = inflated(input.rest());

    let (edited, outcome) = cuts.alike(&sent, |pieces| inject(pieces, end_with_last));
    if matches!(outcome, Outcome::GaveUp(_)) {
        assert!(edited == sent, "given up but edited");
    }
    let (Some(before), Some(after)) = (plain(&sent), plain(&edited)) else { return };
    let Some(wanted) = wanted(before) else { return };
    match (wanted, outcome) {
        // Where it is held too long, or not at all.
        (Wanted::Edit, Outcome::GaveUp(Reason::TooFarApart)) => assert!(sent.len() > MAX_HELD_BYTES),
        (Wanted::Edit, _) => {
            assert_eq!(outcome, Outcome::Injected);
            edits(&sent, &edited);
            let (Ok(mut before), Ok(after)) =
                (serde_json::from_str::<Json>(before), serde_json::from_str::<Json>(after))
            else {
                // What serde_json does not read twice: numbers out of range, lone surrogates, deep nesting.
                return assert!(serde_json::from_str::<Json>(before).is_err());
            };
            if before["stream_options"].is_null() {
                before["stream_options"] = serde_json::json!({});
            }
            before["stream_options"]["include_usage"] = true.into();
            assert_eq!(before, after);
        }
        (Wanted::Nothing(expected), _) => {
            assert_eq!(outcome, expected);
            assert!(edited == sent, "edited for nothing");
        }
        (Wanted::Unclear, _) => {
            assert!(parsed::parse(after).is_some(), "JSON became none");
        }
    }
}

/// The text behind a byte-order mark.
fn plain(bytes: &[u8]) -> Option<&str> {
    str::from_utf8(bytes.strip_prefix(MARK).unwrap_or(bytes)).ok()
}

fn inject(pieces: &[&[u8]], end_with_last: bool) -> (Vec<u8>, Outcome) {
    let mut injector = Injector::new();
    let mut edited = Vec::new();
    for (at, piece) in pieces.iter().enumerate() {
        let end = end_with_last && at + 1 == pieces.len();
        match injector.feed(piece, end) {
            Some(out) => edited.extend(out),
            None => edited.extend_from_slice(piece),
        }
        assert!(injector.held_bytes() <= MAX_HELD_BYTES);
    }
    // The end may come with the last bytes or after them.
    if !end_with_last || pieces.is_empty() {
        edited.extend(injector.feed(b"", true).unwrap_or_default());
    }
    assert_eq!(injector.held_bytes(), 0);
    (edited, injector.outcome())
}

enum Wanted {
    Edit,
    Nothing(Outcome),
    /// A key stands twice.
    Unclear,
}

/// What is to become of a request, by a parser; `None` where it is not JSON.
fn wanted(request: &str) -> Option<Wanted> {
    let parsed::Value::Object(fields) = parsed::parse(request)? else {
        return Some(Wanted::Nothing(Outcome::GaveUp(Reason::NotAnObject)));
    };
    if count(&fields, "stream") > 1 || count(&fields, "stream_options") > 1 {
        return Some(Wanted::Unclear);
    }
    let get = |name| fields.iter().find(|(key, _)| key == name).map(|(_, value)| *value);
    let options = match get("stream_options").map(parsed::open) {
        None => None,
        Some(options) => Some(options?),
    };
    let include_usage = match &options {
        Some(parsed::Value::Object(options)) if count(options, "include_usage") > 1 => return Some(Wanted::Unclear),
        Some(parsed::Value::Object(options)) => {
            options.iter().find(|(key, _)| key == "include_usage").map_or("null", |(_, value)| value.get())
        }
        None | Some(parsed::Value::Scalar("null")) => "null",
        Some(_) => "something else",
    };
    Some(match (get("stream").map(RawValue::get), include_usage) {
        (Some("true"), "null" | "false") => Wanted::Edit,
        (Some("true"), "true") | (None, _) => Wanted::Nothing(Outcome::NotNeeded),
        (Some("true"), _) => Wanted::Nothing(Outcome::GaveUp(Reason::WrongType)),
        (Some(_), _) => Wanted::Nothing(Outcome::NotNeeded),
    })
}

fn count<T>(fields: &[(String, T)], name: &str) -> usize {
    fields.iter().filter(|(key, _)| key == name).count()
}

/// One place differs, in a way the filter edits.
fn edits(sent: &[u8], edited: &[u8]) {
    let same = sent.iter().zip(edited).take_while(|(a, b)| a == b).count();
    let (sent, edited) = (&sent[same..], &edited[same..]);
    let same = sent.iter().rev().zip(edited.iter().rev()).take_while(|(a, b)| a == b).count();
    let (gone, come) = (&sent[..sent.len() - same], &edited[..edited.len() - same]);
    assert!(
        b"null".ends_with(gone) || b"false".windows(gone.len()).any(|part| part == gone),
        "{:?}",
        gone.escape_ascii()
    );
    assert!(come.len() <= br#","stream_options":{"include_usage":true}"#.len(), "{:?}", come.escape_ascii());
}
