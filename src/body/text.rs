//! From a decoded body to JSON texts: one, one per event, one per line or one per frame.

use super::event_stream;
use super::json::{Places, Scanner, Value, pieces};
use super::sse;
use super::{Damage, Framing, ReplySink};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// The data of the event that ends an OpenAI-style stream. Clients close the connection when they see it, often
/// before the end of the response arrives.
const DONE: &[u8] = b"[DONE]";

/// Reads the texts of one body.
pub(super) struct TextReader<F: 'static> {
    framing: Option<Framing>,
    sse: sse::Reader,
    frames: event_stream::Reader,
    text: Text<F>,
    damage: Option<Damage>,
    /// Bytes of a byte-order mark that may still come before the text.
    mark: &'static [u8],
}

/// The JSON text being read.
struct Text<F: 'static> {
    scanner: Scanner<F>,
    wrapper: Option<Box<Wrapper>>,
    /// Bytes of the text so far.
    bytes: usize,
    /// Whether they are the first bytes of [`DONE`].
    like_done: bool,
}

impl<F: Copy + 'static> TextReader<F> {
    pub(super) fn new(places: Places<F>, framing: Option<Framing>, wrapped: bool) -> TextReader<F> {
        let wrapper = wrapped.then(Box::default);
        TextReader {
            framing,
            sse: sse::Reader::default(),
            frames: event_stream::Reader::default(),
            text: Text { scanner: Scanner::new(places), wrapper, bytes: 0, like_done: true },
            damage: None,
            mark: b"\xef\xbb\xbf",
        }
    }

    pub(super) fn framing(&self) -> Option<Framing> {
        self.framing
    }

    pub(super) fn feed(&mut self, mut bytes: &[u8], sink: &mut impl ReplySink<F>) {
        // Events have a reader that knows the mark; frames begin with their length.
        if matches!(self.framing, None | Some(Framing::Json | Framing::Lines)) {
            bytes = self.behind_mark(bytes);
        }
        let framing = match self.framing {
            Some(framing) => framing,
            None => {
                bytes = bytes.trim_ascii_start();
                match bytes.first() {
                    Some(&byte) => *self.framing.insert(Framing::of_first_byte(byte)),
                    None => return,
                }
            }
        };
        let text = &mut self.text;
        match framing {
            Framing::Json => text.feed_texts(bytes, sink),
            Framing::Opaque => {}
            Framing::Sse => self.sse.feed(bytes, |part| match part {
                sse::Part::Data(data) => text.feed(data, sink),
                sse::Part::End => {
                    text.end_event(sink);
                }
            }),
            Framing::Lines => {
                let mut lines = bytes.split(|&b| b == b'\n');
                text.feed(lines.next().unwrap_or_default(), sink);
                for line in lines {
                    text.end(sink);
                    text.feed(line, sink);
                }
            }
            Framing::EventStream => {
                let damage = &mut self.damage;
                self.frames.feed(bytes, |part| match part {
                    event_stream::Part::Payload(payload) => text.feed_payload(payload, sink),
                    event_stream::Part::End { exception } => {
                        if let Some(kind) = exception {
                            sink.exception(kind);
                        }
                        text.end_payload(sink);
                    }
                    event_stream::Part::Damaged => {
                        *damage = Some(Damage::CorruptFrame);
                        text.discard(sink);
                    }
                });
            }
        }
    }

    /// What comes behind a byte-order mark.
    fn behind_mark<'b>(&mut self, mut bytes: &'b [u8]) -> &'b [u8] {
        while let (Some((&expected, left)), Some((&byte, rest))) = (self.mark.split_first(), bytes.split_first()) {
            if byte != expected {
                self.mark = &[];
                break;
            }
            (self.mark, bytes) = (left, rest);
        }
        bytes
    }

    /// Ends the body, and says if it was cut off or damaged.
    pub(super) fn finish(&mut self, sink: &mut impl ReplySink<F>) -> Option<Damage> {
        let text = &mut self.text;
        let whole = match self.framing {
            Some(Framing::Json | Framing::Lines) => text.end(sink),
            Some(Framing::Sse) => {
                let mut open = false;
                self.sse.finish(|_| open = true);
                !open || text.end_event(sink)
            }
            Some(Framing::EventStream) => {
                text.discard(sink);
                self.frames.is_complete()
            }
            Some(Framing::Opaque) | None => true,
        };
        self.damage.or((!whole).then_some(Damage::Truncated))
    }
}

impl<F: Copy + 'static> Text<F> {
    fn feed(&mut self, bytes: &[u8], sink: &mut impl ReplySink<F>) {
        self.like_done &= DONE.get(self.bytes..).is_some_and(|expected| expected.starts_with(bytes));
        self.bytes = self.bytes.saturating_add(bytes.len());
        self.scanner.feed(bytes, sink);
    }

    /// Reads one text, or several in a row: lines of JSON that are called JSON.
    fn feed_texts(&mut self, mut bytes: &[u8], sink: &mut impl ReplySink<F>) {
        while !bytes.is_empty() {
            let rest = self.scanner.feed_value(bytes, sink);
            self.bytes = self.bytes.saturating_add(bytes.len().saturating_sub(rest.len()));
            if !rest.is_empty() {
                self.end(sink);
            }
            bytes = rest;
        }
    }

    /// Ends the text; false where it was cut off.
    fn end(&mut self, sink: &mut impl ReplySink<F>) -> bool {
        self.scanner.finish(sink);
        let whole = self.bytes == 0 || self.scanner.is_complete() || self.scanner.is_broken();
        if self.bytes > 0 {
            sink.end_of_text();
        }
        self.reset();
        whole
    }

    fn end_event(&mut self, sink: &mut impl ReplySink<F>) -> bool {
        if self.like_done && self.bytes == DONE.len() {
            sink.done();
        }
        self.end(sink)
    }

    fn discard(&mut self, sink: &mut impl ReplySink<F>) {
        sink.discard_text();
        self.reset();
    }

    fn reset(&mut self) {
        self.scanner.reset();
        (self.bytes, self.like_done) = (0, true);
    }

    fn feed_payload(&mut self, payload: &[u8], sink: &mut impl ReplySink<F>) {
        match self.wrapper.take() {
            None => self.feed(payload, sink),
            Some(mut wrapper) => {
                wrapper.feed(payload, |decoded| self.feed(decoded, sink));
                self.wrapper = Some(wrapper);
            }
        }
    }

    fn end_payload(&mut self, sink: &mut impl ReplySink<F>) {
        if let Some(wrapper) = &mut self.wrapper {
            **wrapper = Wrapper::default();
        }
        self.end(sink);
    }
}

/// Unwraps `{"bytes": "<base64>"}`.
struct Wrapper {
    scanner: Scanner<()>,
    decoder: Base64,
}

impl Default for Wrapper {
    fn default() -> Wrapper {
        Wrapper { scanner: Scanner::new(const { &[pieces("bytes", ())] }), decoder: Base64::default() }
    }
}

impl Wrapper {
    fn feed(&mut self, payload: &[u8], mut decoded: impl FnMut(&[u8])) {
        let decoder = &mut self.decoder;
        self.scanner.feed(payload, &mut |(): (), value: Value<'_>| {
            if let Value::Piece(piece) = value {
                decoder.feed(piece, &mut decoded);
            }
        });
    }
}

/// Base64 in pieces of any size.
#[derive(Default)]
struct Base64 {
    /// Characters of a group of four that is not whole yet.
    group: [u8; 4],
    held: usize,
}

impl Base64 {
    /// Characters decoded at once.
    const PIECE: usize = 1024;

    fn feed(&mut self, mut text: &[u8], decoded: &mut impl FnMut(&[u8])) {
        while self.held > 0 && !text.is_empty() {
            let Some((&character, rest)) = text.split_first() else { return };
            if let Some(slot) = self.group.get_mut(self.held) {
                *slot = character;
            }
            self.held += 1;
            text = rest;
            if self.held == 4 {
                self.held = 0;
                decode(&self.group, decoded);
            }
        }
        let (whole, rest) = text.split_at_checked(text.len() - text.len() % 4).unwrap_or_default();
        for piece in whole.chunks(Base64::PIECE) {
            decode(piece, decoded);
        }
        for (slot, &character) in self.group.iter_mut().zip(rest) {
            *slot = character;
            self.held += 1;
        }
    }
}

/// Decodes whole groups; what is no base64 is left out, and the text it should have been will not be JSON.
fn decode(groups: &[u8], decoded: &mut impl FnMut(&[u8])) {
    let mut out = [0; Base64::PIECE / 4 * 3];
    match STANDARD.decode_slice(groups, &mut out) {
        Ok(length) => decoded(out.get(..length).unwrap_or_default()),
        // Group by group, so that what is left out does not depend on how many came at once.
        Err(_) if groups.len() > 4 => groups.chunks(4).for_each(|group| decode(group, decoded)),
        Err(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn base64_decodes_alike_at_every_split() {
        // "any carnal pleasure." and its shorter forms, with every kind of padding.
        for (text, expected) in [
            ("YW55IGNhcm5hbCBwbGVhc3VyZS4=", "any carnal pleasure."),
            ("YW55IGNhcm5hbCBwbGVhc3VyZQ==", "any carnal pleasure"),
            ("YW55IGNhcm5hbCBwbGVhc3Vy", "any carnal pleasur"),
            ("", ""),
        ] {
            for size in [1, 2, 3, 5, 7, 100] {
                let (mut out, mut decoder) = (Vec::new(), Base64::default());
                for piece in text.as_bytes().chunks(size) {
                    decoder.feed(piece, &mut |decoded| out.extend_from_slice(decoded));
                }
                assert_eq!(out, expected.as_bytes(), "{text} in pieces of {size}");
            }
        }
    }
}
