//! Any bytes are read alike however they are cut; frames with right checksums read back; a flipped bit is noticed.

use super::input::{Cuts, Input, frame, header};
use tollgate::body::event_stream::{Part, Reader};

pub(crate) fn check(data: &[u8]) {
    let mut input = Input::new(data);
    let cuts = input.cuts();
    let (flip, bit) = (usize::from(input.byte()) << 8 | usize::from(input.byte()), input.byte() % 8);
    let body = input.rest();
    cuts.alike(body, read);

    // Frames of it: a byte says what they are, two how long their headers and payload are.
    let (mut frames, mut expected) = (Vec::new(), Vec::new());
    let mut rest = body;
    while let [kind, headers, payload, left @ ..] = rest {
        let (headers, left) = left.split_at(left.len().min((*headers).into()));
        let (payload, left) = left.split_at(left.len().min((*payload).into()));
        rest = left;
        let (list, exception) = match kind % 4 {
            0 => (headers.to_vec(), None),
            1 => ([header(":event-type", headers), header(":message-type", b"event")].concat(), Some(None)),
            2 => (exception(":exception-type", headers, "exception"), Some(Some(headers))),
            _ => (exception(":error-code", headers, "error"), Some(Some(headers))),
        };
        frames.push(frame(&list, payload));
        expected.push((payload.escape_ascii().to_string(), exception));
    }
    let whole = frames.concat();
    let (seen, complete) = cuts.alike(&whole, read);
    assert!(complete);
    assert_eq!(seen.len(), expected.len());
    for (seen, (payload, exception)) in seen.iter().zip(&expected) {
        let Seen::Event { payload: read, exception: kind } = seen else { panic!("damaged: {seen:?}") };
        assert_eq!(read, payload);
        if let Some(expected) = exception {
            assert_eq!(*kind, expected.map(|kind| String::from_utf8_lossy(kind).into_owned()));
        }
    }
    if !whole.is_empty() {
        flipped(&frames, flip % whole.len(), bit, &seen, &cuts);
    }
}

fn exception(name: &str, kind: &[u8], message_type: &str) -> Vec<u8> {
    [header(":message-type", message_type.as_bytes()), header(name, kind)].concat()
}

/// With one bit flipped, frames before it are as they were, and nothing after it is believed.
fn flipped(frames: &[Vec<u8>], at: usize, bit: u8, intact: &[Seen], cuts: &Cuts) {
    let mut bytes = frames.concat();
    bytes[at] ^= 1 << bit;
    let mut end = 0;
    let before = frames.iter().take_while(|frame| {
        end += frame.len();
        end <= at
    });
    let before = before.count();
    let (seen, complete) = cuts.alike(&bytes, read);
    assert!(!complete);
    assert_eq!(seen[..before], intact[..before]);
    assert_eq!(seen[before..], [Seen::Damaged]);
}

#[derive(Debug, PartialEq)]
enum Seen {
    Event { payload: String, exception: Option<String> },
    Damaged,
}

fn read(pieces: &[&[u8]]) -> (Vec<Seen>, bool) {
    let (mut seen, mut payload) = (Vec::new(), Vec::new());
    let mut reader = Reader::default();
    for piece in pieces {
        reader.feed(piece, |part| match part {
            Part::Payload(piece) => payload.extend_from_slice(piece),
            Part::End { exception } => seen.push(Seen::Event {
                payload: std::mem::take(&mut payload).escape_ascii().to_string(),
                exception: exception.map(str::to_owned),
            }),
            Part::Damaged => seen.push(Seen::Damaged),
        });
    }
    (seen, reader.is_complete())
}
