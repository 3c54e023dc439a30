//! Bodies, read on the side as they pass: decoded, cut into JSON texts, scanned for a few places.
//!
//! [`ReplyReader`] puts the incremental readers together for a response. It never holds more than one bounded
//! string and the inflater's window, whatever the size of the body, and never asks for a body to be paused.

pub mod inflate;
pub mod json;
pub mod sse;

use inflate::{Encoding, Inflate, InflateError};
use json::{Places, Scanner, Sink};

/// How a response body is cut into JSON texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// One JSON text.
    Json,
    /// Server-sent events with a JSON text each.
    Sse,
}

impl Framing {
    /// By the media type of a `content-type` value; `None` where it tells nothing.
    pub fn of_content_type(value: &[u8]) -> Option<Framing> {
        let media_type = value.split(|&b| b == b';').next().unwrap_or_default().trim_ascii();
        if media_type.eq_ignore_ascii_case(b"text/event-stream") {
            Some(Framing::Sse)
        } else if media_type.eq_ignore_ascii_case(b"application/json") || ends_with_json(media_type) {
            Some(Framing::Json)
        } else {
            None
        }
    }

    /// By the first byte of a body that is not white space.
    fn of_first_byte(byte: u8) -> Framing {
        if matches!(byte, b'{' | b'[') { Framing::Json } else { Framing::Sse }
    }
}

fn ends_with_json(media_type: &[u8]) -> bool {
    let suffix = b"+json";
    let start = media_type.len().saturating_sub(suffix.len());
    media_type.get(start..).is_some_and(|end| end.eq_ignore_ascii_case(suffix))
}

/// What a `content-encoding` value means for the reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContentEncoding {
    /// Not encoded.
    Identity,
    /// Encoded in a way that can be decoded on the side.
    Readable(Encoding),
    /// Encoded in another way, or several times.
    Unreadable,
}

impl ContentEncoding {
    /// Of the header's value; absent means identity.
    pub fn of(value: Option<&[u8]>) -> ContentEncoding {
        let value = value.unwrap_or_default().trim_ascii();
        let is = |name: &str| value.eq_ignore_ascii_case(name.as_bytes());
        if value.is_empty() || is("identity") {
            ContentEncoding::Identity
        } else if is("gzip") || is("x-gzip") {
            ContentEncoding::Readable(Encoding::Gzip)
        } else if is("deflate") {
            ContentEncoding::Readable(Encoding::Deflate)
        } else {
            ContentEncoding::Unreadable
        }
    }
}

/// What was wrong with a body, for the record's notes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// An encoding the reader has no decoder for.
    UnreadableEncoding,
    /// The encoded bytes are damaged.
    CorruptEncoding,
    /// A decompression bomb.
    Bomb,
    /// The body ended in the middle.
    Truncated,
}

impl Damage {
    /// The note in the record.
    pub const fn note(self) -> &'static str {
        match self {
            Damage::UnreadableEncoding => "response_encoding_unreadable",
            Damage::CorruptEncoding => "response_encoding_corrupt",
            Damage::Bomb => "response_decompression_bomb",
            Damage::Truncated => "response_truncated",
        }
    }
}

/// The receiver of a reply's values.
pub trait ReplySink<F>: Sink<F> {
    /// One JSON text of the reply is over.
    fn end_of_text(&mut self);

    /// The stream said that nothing more follows: an event whose data is `[DONE]`.
    fn done(&mut self);
}

/// Reads one response body.
pub struct ReplyReader<F: 'static> {
    decoder: Decoder,
    text: TextReader<F>,
    damage: Option<Damage>,
}

enum Decoder {
    Identity,
    Inflate(Box<Inflate>),
    /// Nothing can be read any more.
    Off,
}

struct TextReader<F: 'static> {
    framing: Option<Framing>,
    sse: sse::Reader,
    scanner: Scanner<F>,
    /// Bytes of the current JSON text so far.
    text_bytes: usize,
    /// Whether they are the first bytes of [`DONE`].
    like_done: bool,
}

/// The data of the event that ends an OpenAI-style stream. Clients close the connection when they see it, often
/// before the end of the response arrives.
const DONE: &[u8] = b"[DONE]";

impl<F: Copy + 'static> ReplyReader<F> {
    /// A reader for `places` of a body with this `framing` (`None`: seen from its first byte) and `encoding`.
    pub fn new(places: Places<F>, framing: Option<Framing>, encoding: ContentEncoding) -> ReplyReader<F> {
        let (decoder, damage) = match encoding {
            ContentEncoding::Identity => (Decoder::Identity, None),
            ContentEncoding::Readable(encoding) => (Decoder::Inflate(Box::new(Inflate::new(encoding))), None),
            ContentEncoding::Unreadable => (Decoder::Off, Some(Damage::UnreadableEncoding)),
        };
        let text = TextReader {
            framing,
            sse: sse::Reader::default(),
            scanner: Scanner::new(places),
            text_bytes: 0,
            like_done: true,
        };
        ReplyReader { decoder, text, damage }
    }

    /// Reads the next bytes as they came from the provider.
    pub fn feed(&mut self, bytes: &[u8], sink: &mut impl ReplySink<F>) {
        let text = &mut self.text;
        match &mut self.decoder {
            Decoder::Identity => text.feed(bytes, sink),
            Decoder::Off => {}
            Decoder::Inflate(inflate) => {
                if let Err(error) = inflate.feed(bytes, |decoded| text.feed(decoded, sink)) {
                    self.decoder = Decoder::Off;
                    self.damage = Some(match error {
                        InflateError::Corrupt => Damage::CorruptEncoding,
                        InflateError::Bomb => Damage::Bomb,
                    });
                }
            }
        }
    }

    /// Ends the body and says what was wrong with it.
    pub fn finish(&mut self, sink: &mut impl ReplySink<F>) -> Option<Damage> {
        if let Decoder::Inflate(inflate) = &self.decoder
            && !inflate.is_complete()
        {
            self.damage = self.damage.or(Some(Damage::Truncated));
        }
        if !self.text.finish(sink) {
            self.damage = self.damage.or(Some(Damage::Truncated));
        }
        self.decoder = Decoder::Off;
        self.damage
    }

    /// How the body turned out to be framed.
    pub fn framing(&self) -> Option<Framing> {
        self.text.framing
    }
}

impl<F: Copy + 'static> TextReader<F> {
    fn feed(&mut self, bytes: &[u8], sink: &mut impl ReplySink<F>) {
        let framing = match self.framing {
            Some(framing) => framing,
            None => match bytes.iter().find(|byte| !byte.is_ascii_whitespace()) {
                Some(&byte) => *self.framing.insert(Framing::of_first_byte(byte)),
                None => return,
            },
        };
        match framing {
            Framing::Json => self.text(bytes, sink),
            Framing::Sse => {
                let mut sse = std::mem::take(&mut self.sse);
                sse.feed(bytes, |part| match part {
                    sse::Part::Data(data) => self.text(data, sink),
                    sse::Part::End => self.end_event(sink),
                });
                self.sse = sse;
            }
        }
    }

    fn text(&mut self, bytes: &[u8], sink: &mut impl ReplySink<F>) {
        self.like_done &= DONE.get(self.text_bytes..).is_some_and(|expected| expected.starts_with(bytes));
        self.text_bytes = self.text_bytes.saturating_add(bytes.len());
        self.scanner.feed(bytes, sink);
    }

    fn end_event(&mut self, sink: &mut impl ReplySink<F>) {
        if self.like_done && self.text_bytes == DONE.len() {
            sink.done();
        }
        self.end_text(sink);
    }

    /// Ends the current JSON text; false where it was cut off.
    fn end_text(&mut self, sink: &mut impl ReplySink<F>) -> bool {
        self.scanner.finish(sink);
        let whole = self.text_bytes == 0 || self.scanner.is_complete() || self.scanner.is_broken();
        if self.text_bytes > 0 {
            sink.end_of_text();
        }
        self.scanner.reset();
        (self.text_bytes, self.like_done) = (0, true);
        whole
    }

    /// Ends the body; false where it was cut off.
    fn finish(&mut self, sink: &mut impl ReplySink<F>) -> bool {
        match self.framing {
            Some(Framing::Json) => self.end_text(sink),
            Some(Framing::Sse) => {
                let mut open = false;
                self.sse.finish(|_| open = true);
                if open {
                    let whole = self.scanner.is_complete() || self.scanner.is_broken();
                    self.end_event(sink);
                    return whole;
                }
                true
            }
            None => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn content_types_and_encodings_are_told_apart() {
        for (value, framing) in [
            ("text/event-stream; charset=utf-8", Some(Framing::Sse)),
            ("Text/Event-Stream", Some(Framing::Sse)),
            ("application/json", Some(Framing::Json)),
            ("application/problem+json;x=y", Some(Framing::Json)),
            ("text/plain", None),
            ("", None),
        ] {
            assert_eq!(Framing::of_content_type(value.as_bytes()), framing, "{value}");
        }
        for (value, encoding) in [
            (None, ContentEncoding::Identity),
            (Some("identity"), ContentEncoding::Identity),
            (Some("GZIP"), ContentEncoding::Readable(Encoding::Gzip)),
            (Some(" deflate"), ContentEncoding::Readable(Encoding::Deflate)),
            (Some("br"), ContentEncoding::Unreadable),
            (Some("gzip, gzip"), ContentEncoding::Unreadable),
        ] {
            assert_eq!(ContentEncoding::of(value.map(str::as_bytes)), encoding, "{value:?}");
        }
    }
}
