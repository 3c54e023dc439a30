//! A stream goes on without exactly the events that have nothing but the usage, however it is cut.

use super::input::{Input, inflated};
use super::sse::lines;
use tollgate::body::json::{self, Places, Scanner, Value};
use tollgate::rewrite::MAX_HELD_BYTES;
use tollgate::rewrite::usage_event::UsageEventFilter;

const MARK: &[u8] = b"\xef\xbb\xbf";

pub(crate) fn check(data: &[u8]) {
    let mut input = Input::new(data);
    let cuts = input.cuts();
    let end_with_last = input.byte() & 1 != 0;
    let sent = inflated(input.rest());

    let left = cuts.alike(&sent, |pieces| filter(pieces, end_with_last));
    let expected = expected(&sent);
    assert_eq!((left.removed, left.missed), (expected.removed, expected.missed));
    assert!(left.bytes == expected.bytes, "{:?}\n{:?}", left.bytes.escape_ascii(), expected.bytes.escape_ascii());
}

#[derive(Debug, Default, PartialEq)]
struct Left {
    bytes: Vec<u8>,
    removed: u64,
    missed: u64,
}

fn filter(pieces: &[&[u8]], end_with_last: bool) -> Left {
    let mut filter = UsageEventFilter::new();
    let mut bytes = Vec::new();
    for (at, piece) in pieces.iter().enumerate() {
        let end = end_with_last && at + 1 == pieces.len();
        match filter.feed(piece, end) {
            Some(out) => bytes.extend(out),
            None => bytes.extend_from_slice(piece),
        }
        assert!(filter.held_bytes() <= MAX_HELD_BYTES);
    }
    // The end may come with the last bytes or after them.
    if !end_with_last || pieces.is_empty() {
        bytes.extend(filter.feed(b"", true).unwrap_or_default());
    }
    assert_eq!(filter.held_bytes(), 0);
    Left { bytes, removed: filter.removed(), missed: filter.missed() }
}

fn expected(sent: &[u8]) -> Left {
    let mut left = Left::default();
    let text = sent.strip_prefix(MARK).unwrap_or(sent);
    left.bytes.extend(&sent[..sent.len() - text.len()]);
    let mut event = Vec::new();
    for line in lines(text) {
        event.push(line);
        if line.0.is_empty() {
            end_event(&std::mem::take(&mut event), &mut left);
        }
    }
    end_event(&event, &mut left);
    left
}

/// Passes an event, given with its blank line, or takes it out.
fn end_event(event: &[(&[u8], &[u8])], left: &mut Left) {
    let is_field = |line: &[u8]| !line.is_empty() && !line.starts_with(b":");
    let fields = event.iter().position(|(line, _)| is_field(line));
    let mut goes = fields.is_some() && is_usage(event);
    if goes {
        // It is held from its first field on; the LF of a CRLF comes when it is over.
        let held = event.get(fields.unwrap()..).unwrap();
        let bytes: usize = held.iter().map(|(line, ending)| line.len() + ending.len()).sum();
        let late = held.last().is_some_and(|(line, ending)| line.is_empty() && *ending == b"\r\n");
        if bytes - usize::from(late) > MAX_HELD_BYTES {
            left.missed += 1;
            goes = false;
        } else {
            left.removed += 1;
        }
    }
    for (line, ending) in event.iter().filter(|(line, _)| !goes || line.starts_with(b":")) {
        left.bytes.extend(*line);
        left.bytes.extend(*ending);
    }
}

fn is_usage(event: &[(&[u8], &[u8])]) -> bool {
    let data = event.iter().filter_map(|(line, _)| line.strip_prefix(b"data:"));
    let data: Vec<&[u8]> = data.map(|data| data.strip_prefix(b" ").unwrap_or(data)).collect();
    let data = data.join(&b'\n');
    match serde_json::from_slice::<serde_json::Value>(&data) {
        Ok(json) => json["usage"].is_object() && json["choices"].as_array().is_some_and(Vec::is_empty),
        // The filter is no validator: what is not quite JSON is what the scanner takes it for.
        Err(_) => scanned(&data),
    }
}

fn scanned(data: &[u8]) -> bool {
    const PLACES: Places<u8> = &[json::container("choices", 0, &[json::each(1)]), json::key("usage", 2)];
    let (mut empty, mut usage) = (false, false);
    let mut scanner = Scanner::new(PLACES);
    scanner.feed(data, &mut |place: u8, value: Value<'_>| match (place, value) {
        (_, Value::End) => {}
        (0, value) => empty = value == Value::Array,
        (1, _) => empty = false,
        (_, value) => usage = value == Value::Object,
    });
    scanner.is_complete() && empty && usage
}
