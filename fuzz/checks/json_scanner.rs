//! The scanner finds at its places what serde_json finds there, and reads any bytes alike however they are cut.

use super::input::Input;
use super::parsed;
use serde_json::value::RawValue;
use std::rc::Rc;
use tollgate::body::json::{
    Cursor, Follow, MAX_CAPTURE_BYTES, Paths, Places, Scanner, Value, container, container_each, each, key, pieces,
    within, within_each,
};

const PLACES: Places<&str> = &[
    container("a", "a", &[key("b", "a.b"), pieces("p", "a.p")]),
    within("b", &[within_each(&[key("a", "b.[].a"), each("b.[].[]")])]),
    container_each("[]", &[key("a", "[].a")]),
    key("é\"\\", "é\"\\"),
    pieces("p", "p"),
];

/// The same places, and whether their strings come in pieces.
const NAMES: [(&str, &[&str], bool); 9] = [
    ("a", &["a"], false),
    ("a.b", &["a", "b"], false),
    ("a.p", &["a", "p"], true),
    ("b.[].a", &["b", EACH, "a"], false),
    ("b.[].[]", &["b", EACH, EACH], false),
    ("[]", &[EACH], false),
    ("[].a", &[EACH, "a"], false),
    ("é\"\\", &["é\"\\"], false),
    ("p", &["p"], true),
];

/// Paths of keys, as the configuration may name them, and the same as places.
const FOLLOWED: [(&[&str], &str); 4] =
    [(&["a"], "f:a"), (&["a", "b"], "f:a.b"), (&["b", "a"], "f:b.a"), (&["é\"\\"], "f:é\"\\")];
const FOLLOWED_PLACES: Places<&str> =
    &[container("a", "f:a", &[key("b", "f:a.b")]), within("b", &[key("a", "f:b.a")]), key("é\"\\", "f:é\"\\")];

/// An element of an array; no key is like it, since those of more than 20 bytes are left out.
const EACH: &str = "an element, and no key of this name";

pub(crate) fn check(data: &[u8]) {
    let mut input = Input::new(data);
    let cuts = input.cuts();
    let body = input.rest();
    let (found, complete, broken) = cuts.alike(body, |pieces| scan(&mut Scanner::new(PLACES), pieces));

    if let Some(expected) = str::from_utf8(body).ok().and_then(expected) {
        assert_eq!(found, expected);
        assert!(complete && !broken);
    }

    // What is followed beside the places is found as if it were among them, and changes nothing about them.
    let paths = FOLLOWED.map(|(path, name)| (path.iter().map(|&key| key.into()).collect::<Vec<Box<str>>>(), name));
    let paths = Rc::new(Paths::new(paths.iter().map(|(path, name)| (path.as_slice(), *name))));
    let (both, ..) =
        cuts.alike(body, |pieces| scan(&mut Scanner::following(PLACES, Some(Cursor::new(Rc::clone(&paths)))), pieces));
    let (followed, placed): (Vec<_>, Vec<_>) = both.into_iter().partition(|value| value.starts_with("f:"));
    assert_eq!(placed, found);
    // The places are looked at more closely than what is followed: where they end it, the other goes on.
    if !broken {
        let (among, ..) = scan(&mut Scanner::new(FOLLOWED_PLACES), &[body]);
        let among: Vec<_> = among.into_iter().filter(|value| !value.ends_with("=end")).collect();
        assert_eq!(followed, among);
    }

    // Nothing of one text is left in the next.
    let mut scanner = Scanner::new(PLACES);
    scan(&mut scanner, &[body]);
    scanner.reset();
    let next = br#"{"p":"x","a":{"b":"\u00e9"}}"#;
    let found = ["p=piece \"x\"", "p=end", "a={", "a.b=\"é\" 2", "a=end"].map(str::to_owned).to_vec();
    assert_eq!(scan(&mut scanner, &[next]), (found, true, false));
}

fn scan<C: Follow<&'static str>>(
    scanner: &mut Scanner<&'static str, C>,
    pieces: &[&[u8]],
) -> (Vec<String>, bool, bool) {
    let (mut found, mut text) = (Vec::new(), Vec::new());
    let mut sink = |name: &str, value: Value<'_>| {
        let what = match value {
            Value::Null => "null".into(),
            Value::Bool(flag) => flag.to_string(),
            Value::Number(number) => number.to_owned(),
            Value::Text { text, bytes } => format!("{text:?} {bytes}"),
            Value::Piece(piece) => return text.extend_from_slice(piece),
            Value::Object => "{".into(),
            Value::Array => "[".into(),
            Value::End => "end".into(),
        };
        if !text.is_empty() {
            let whole = std::mem::take(&mut text);
            found.push(format!("{name}=piece {:?}", String::from_utf8_lossy(&whole)));
        }
        found.push(format!("{name}={what}"));
    };
    for piece in pieces {
        scanner.feed(piece, &mut sink);
    }
    scanner.finish(&mut sink);
    found.extend((!text.is_empty()).then(|| format!("open piece {:?}", String::from_utf8_lossy(&text))));
    (found, scanner.is_complete(), scanner.is_broken())
}

fn expected(text: &str) -> Option<Vec<String>> {
    let raw: &RawValue = serde_json::from_str(text).ok()?;
    let mut found = Vec::new();
    walk(raw, &mut Vec::new(), &mut found)?;
    Some(found)
}

/// Says what stands at the places in `raw`; `None` where serde_json refuses a string, as it does lone surrogates.
fn walk(raw: &RawValue, at: &mut Vec<String>, found: &mut Vec<String>) -> Option<()> {
    if !NAMES.iter().any(|(_, path, _)| path.iter().zip(&*at).all(|(a, b)| a == b) && path.len() >= at.len()) {
        return Some(());
    }
    let here = NAMES.iter().find(|(_, path, _)| path == at).map(|&(name, _, in_pieces)| (name, in_pieces));
    let mut say = |what: String| found.extend(here.map(|(name, _)| format!("{name}={what}")));
    match parsed::open(raw)? {
        parsed::Value::Scalar(text) => say(text.get(..MAX_CAPTURE_BYTES).unwrap_or(text).to_owned()),
        parsed::Value::Text(text) if here.is_some_and(|(_, in_pieces)| in_pieces) => {
            if !text.is_empty() {
                say(format!("piece {text:?}"));
            }
            say("end".into());
        }
        parsed::Value::Text(text) => {
            let end = (0..=text.len().min(MAX_CAPTURE_BYTES)).rev().find(|&end| text.is_char_boundary(end))?;
            say(format!("{:?} {}", text.get(..end)?, text.len()));
        }
        parsed::Value::Array(items) => {
            say("[".into());
            for item in items {
                at.push(EACH.into());
                walk(item, at, found)?;
                at.pop();
            }
            found.extend(here.map(|(name, _)| format!("{name}=end")));
        }
        parsed::Value::Object(fields) => {
            say("{".into());
            for (key, value) in fields {
                at.push(if key.len() > 20 { String::new() } else { key });
                walk(value, at, found)?;
                at.pop();
            }
            found.extend(here.map(|(name, _)| format!("{name}=end")));
        }
    }
    Some(())
}
