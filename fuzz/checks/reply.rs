//! Every format's reply, in every framing and encoding, gives the same facts however it is cut.

use super::input::{Input, frame, gzip, header};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use miniz_oxide::deflate::{compress_to_vec, compress_to_vec_zlib};
use tollgate::api::{Api, ReplyFacts};
use tollgate::body::inflate::Encoding;
use tollgate::body::{ContentEncoding, Damage, Framing, ReplyReader};

pub(crate) fn check(data: &[u8]) {
    let mut input = Input::new(data);
    let cuts = input.cuts();
    let api = Api::ALL[usize::from(input.byte()) % Api::ALL.len()];
    let variant = input.byte();
    let framing = [None, Some(Framing::Json), Some(Framing::Sse), Some(Framing::Lines), Some(Framing::EventStream)];
    let framing = framing[usize::from(variant & 7) % 5];
    let wrapped = variant & 8 != 0;
    let encode = variant >> 4;
    let rest = input.rest();

    let text = match framing {
        Some(Framing::EventStream) if encode & 8 == 0 => frames(rest, wrapped),
        _ => rest.to_vec(),
    };
    let (encoding, body) = match encode % 8 {
        0 | 1 => (ContentEncoding::Identity, text),
        2 => (ContentEncoding::Readable(Encoding::Gzip), gzip(&text, 0, 1)),
        3 => (ContentEncoding::Readable(Encoding::Deflate), compress_to_vec_zlib(&text, 1)),
        4 => (ContentEncoding::Readable(Encoding::Deflate), compress_to_vec(&text, 1)),
        5 => (ContentEncoding::Readable(Encoding::Gzip), text),
        6 => (ContentEncoding::Readable(Encoding::Deflate), text),
        _ => (ContentEncoding::Unreadable, text),
    };

    let read = |pieces: &[&[u8]]| {
        let mut facts = ReplyFacts::default();
        let mut reader = ReplyReader::new(api.format().reply, framing, encoding, wrapped);
        for piece in pieces {
            reader.feed(piece, &mut facts);
        }
        let damage = reader.finish(&mut facts);
        (facts, damage, reader.framing())
    };
    let (facts, damage, _) = read(&[&body]);
    // How much input has come when the output grows too large depends on the pieces.
    if damage != Some(Damage::Bomb) {
        cuts.alike(&body, read);
    }
    if encoding == ContentEncoding::Unreadable {
        assert_eq!((facts, damage), (ReplyFacts::default(), Some(Damage::UnreadableEncoding)));
    }
}

/// A frame for each line; one that begins with `!` is an exception.
fn frames(text: &[u8], wrapped: bool) -> Vec<u8> {
    let mut out = Vec::new();
    for line in text.split(|&byte| byte == b'\n') {
        let (kind, line) = match line.strip_prefix(b"!") {
            Some(line) => (&b"exception"[..], line),
            None => (&b"event"[..], line),
        };
        let headers = [header(":exception-type", b"throttlingException"), header(":message-type", kind)].concat();
        let payload = if wrapped { wrap(line) } else { line.to_vec() };
        out.extend(frame(&headers, &payload));
    }
    out
}

fn wrap(event: &[u8]) -> Vec<u8> {
    let mut text = vec![0; event.len().div_ceil(3) * 4];
    let length = STANDARD.encode_slice(event, &mut text).unwrap();
    assert_eq!(length, text.len());
    [&b"{\"bytes\":\""[..], &text, b"\",\"p\":\"abc\"}"].concat()
}
