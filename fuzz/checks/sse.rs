//! Events come out as a parser of the whole text finds them, however it is cut.
//! <https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream>

use super::input::Input;
use tollgate::body::sse::{Part, Reader};

pub(crate) fn check(data: &[u8]) {
    let mut input = Input::new(data);
    let cuts = input.cuts();
    let body = input.rest();
    let events = cuts.alike(body, read);
    assert_eq!(events, expected(body));
}

fn read(pieces: &[&[u8]]) -> Vec<String> {
    let (mut events, mut data) = (Vec::new(), Vec::new());
    let mut take = |part: Part<'_>| match part {
        Part::Data(piece) => data.extend_from_slice(piece),
        Part::End => events.push(std::mem::take(&mut data).escape_ascii().to_string()),
    };
    let mut reader = Reader::default();
    for piece in pieces {
        reader.feed(piece, &mut take);
    }
    reader.finish(&mut take);
    assert!(data.is_empty(), "data without an event");
    events
}

fn expected(body: &[u8]) -> Vec<String> {
    let mut events = Vec::new();
    let mut event: Option<Vec<u8>> = None;
    let mut end = |event: &mut Option<Vec<u8>>| {
        events.extend(event.take().map(|data| data.escape_ascii().to_string()));
    };
    for (line, ending) in lines(body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body)) {
        let data = match line {
            b"" => {
                end(&mut event);
                continue;
            }
            // The last line may be cut off: it is taken only if it surely is data.
            b"data" if ending.is_empty() => continue,
            b"data" => b"",
            _ => match line.strip_prefix(b"data:") {
                Some(data) => data.strip_prefix(b" ").unwrap_or(data),
                None => continue,
            },
        };
        match &mut event {
            Some(lines) => {
                lines.push(b'\n');
                lines.extend(data);
            }
            None => event = Some(data.to_vec()),
        }
    }
    end(&mut event);
    events
}

/// The lines of `text`, each with what ends it; the last one may end with nothing.
pub(super) fn lines(text: &[u8]) -> Vec<(&[u8], &[u8])> {
    let (mut lines, mut begin, mut at) = (Vec::new(), 0, 0);
    while let Some(&byte) = text.get(at) {
        let ending = match byte {
            b'\r' if text.get(at + 1) == Some(&b'\n') => 2,
            b'\r' | b'\n' => 1,
            _ => {
                at += 1;
                continue;
            }
        };
        lines.push((&text[begin..at], &text[at..at + ending]));
        at += ending;
        begin = at;
    }
    if begin < text.len() {
        lines.push((&text[begin..], &[]));
    }
    lines
}
