//! Bodies, read on the side as they pass: decoded, cut into JSON texts, scanned for a few places.
//!
//! [`ReplyReader`] puts the incremental readers together for a response. It never holds more than one bounded
//! string and the inflater's window, whatever the size of the body, and never asks for a body to be paused.

pub mod event_stream;
pub mod inflate;
pub mod json;
pub mod multipart;
pub mod sse;
mod text;

use inflate::{Encoding, Inflate, InflateError};
use json::{Places, Sink};
use text::TextReader;

/// How a response body is cut into JSON texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// One JSON text.
    Json,
    /// Server-sent events with a JSON text each.
    Sse,
    /// A JSON text on each line.
    Lines,
    /// AWS event-stream frames with a JSON text each.
    EventStream,
    /// Nothing that could be read: sound, images, pages, plain text.
    Opaque,
}

impl Framing {
    /// By the media type of a `content-type` value; `None` where it tells nothing.
    pub fn of_content_type(value: &[u8]) -> Option<Framing> {
        let media_type = value.split(|&b| b == b';').next().unwrap_or_default().trim_ascii();
        let is = |name: &str| media_type.eq_ignore_ascii_case(name.as_bytes());
        if is("text/event-stream") {
            Some(Framing::Sse)
        } else if is("application/vnd.amazon.eventstream") {
            Some(Framing::EventStream)
        } else if is("application/x-ndjson")
            || is("application/ndjson")
            || is("application/jsonl")
            || is("application/stream+json")
        {
            Some(Framing::Lines)
        } else if is("application/json") || ends_with_json(media_type) {
            Some(Framing::Json)
        } else if media_type.is_empty() || is("application/octet-stream") {
            None
        } else {
            Some(Framing::Opaque)
        }
    }

    /// By the first byte of a body that is not white space. An event begins with the name of a field or a comment, a
    /// frame with the high byte of its length.
    fn of_first_byte(byte: u8) -> Framing {
        match byte {
            b'{' | b'[' => Framing::Json,
            b'd' | b'e' | b'i' | b'r' | b':' => Framing::Sse,
            0 => Framing::EventStream,
            _ => Framing::Opaque,
        }
    }

    /// Whether the body is a stream of events.
    pub fn is_stream(self) -> bool {
        matches!(self, Framing::Sse | Framing::Lines | Framing::EventStream)
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
    /// An event-stream frame whose checksum is wrong.
    CorruptFrame,
}

impl Damage {
    /// The note in the record.
    pub const fn note(self) -> &'static str {
        match self {
            Damage::UnreadableEncoding => "response_encoding_unreadable",
            Damage::CorruptEncoding => "response_encoding_corrupt",
            Damage::Bomb => "response_decompression_bomb",
            Damage::Truncated => "response_truncated",
            Damage::CorruptFrame => "response_frame_corrupt",
        }
    }
}

/// The receiver of a reply's values.
pub trait ReplySink<F>: Sink<F> {
    /// One JSON text of the reply is over.
    fn end_of_text(&mut self);

    /// The JSON text that is over was damaged: what it said does not count.
    fn discard_text(&mut self);

    /// The stream said that nothing more follows: an event whose data is `[DONE]`.
    fn done(&mut self);

    /// The stream said that it failed, as an event-stream exception frame does.
    fn exception(&mut self, kind: &str);
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

impl<F: Copy + 'static> ReplyReader<F> {
    /// A reader for `places` of a body with this `framing` (`None`: seen from its first byte) and `encoding`.
    /// `wrapped` is Bedrock's way of putting each event, in base64, into the `bytes` of another.
    pub fn new(
        places: Places<F>,
        framing: Option<Framing>,
        encoding: ContentEncoding,
        wrapped: bool,
    ) -> ReplyReader<F> {
        let (decoder, damage) = match encoding {
            ContentEncoding::Identity => (Decoder::Identity, None),
            ContentEncoding::Readable(encoding) => (Decoder::Inflate(Box::new(Inflate::new(encoding))), None),
            ContentEncoding::Unreadable => (Decoder::Off, Some(Damage::UnreadableEncoding)),
        };
        ReplyReader { decoder, text: TextReader::new(places, framing, wrapped), damage }
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
        let in_text = self.text.finish(sink);
        self.damage = self.damage.or(in_text);
        self.decoder = Decoder::Off;
        self.damage
    }

    /// How the body turned out to be framed.
    pub fn framing(&self) -> Option<Framing> {
        self.text.framing()
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
            ("application/x-ndjson", Some(Framing::Lines)),
            ("application/stream+json", Some(Framing::Lines)),
            ("application/jsonl", Some(Framing::Lines)),
            ("application/vnd.amazon.eventstream", Some(Framing::EventStream)),
            ("application/octet-stream", None),
            ("text/plain", Some(Framing::Opaque)),
            ("text/html", Some(Framing::Opaque)),
            ("audio/mpeg", Some(Framing::Opaque)),
            ("multipart/form-data; boundary=x", Some(Framing::Opaque)),
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
