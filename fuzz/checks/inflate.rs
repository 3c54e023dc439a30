//! What was compressed reads back, cut off or whole; any bytes are read alike however they are cut, up to a bound.

use super::input::{Cuts, Input, gzip};
use miniz_oxide::deflate::{compress_to_vec, compress_to_vec_zlib};
use miniz_oxide::inflate::{decompress_to_vec_with_limit, decompress_to_vec_zlib_with_limit};
use tollgate::body::inflate::{Encoding, Inflate, InflateError, MAX_RATIO};

/// What is allowed beyond the ratio; the reader's own number is larger than any output of these short inputs.
const FREE_OUTPUT_BYTES: usize = 1 << 20;

pub(crate) fn check(data: &[u8]) {
    let mut input = Input::new(data);
    let cuts = input.cuts();
    let (variant, flags, level) = (input.byte(), input.byte() & 0x1e, input.byte() % 11);
    let body = input.rest();
    if variant & 1 == 0 {
        any_bytes(body, &cuts);
    } else {
        compressed(body, usize::from(variant >> 1), flags, level, &cuts);
    }
}

fn any_bytes(body: &[u8], cuts: &Cuts) {
    // Random bytes are no gzip header; these are.
    let member = [&b"\x1f\x8b\x08\0\0\0\0\0\0\xff"[..], body].concat();
    for (encoding, bytes) in [(Encoding::Gzip, body), (Encoding::Gzip, &member), (Encoding::Deflate, body)] {
        let read = |pieces: &[&[u8]]| read(encoding, pieces);
        let whole = read(&[bytes]);
        let limit = FREE_OUTPUT_BYTES + bytes.len() * usize::try_from(MAX_RATIO).unwrap();
        assert!(whole.output.len() <= limit);
        // How much input has come when the output grows too large depends on the pieces.
        if whole.output.len() < FREE_OUTPUT_BYTES / 2 {
            cuts.alike(bytes, read);
        }
    }

    let zlib = body.first().is_some_and(|byte| byte & 0x0f == 8);
    let decompress = if zlib { decompress_to_vec_zlib_with_limit } else { decompress_to_vec_with_limit };
    if let Ok(expected) = decompress(body, FREE_OUTPUT_BYTES) {
        assert_eq!(read(Encoding::Deflate, &[body]), Read { output: expected, error: None, complete: true });
    }
}

fn compressed(text: &[u8], cut: usize, flags: u8, level: u8, cuts: &Cuts) {
    let members = [gzip(text, flags, level), gzip(b"", 0, 0), gzip(text, 0, 1)].concat();
    for (encoding, body, expected) in [
        (Encoding::Gzip, gzip(text, flags, level), text.to_vec()),
        (Encoding::Gzip, members, text.repeat(2)),
        (Encoding::Deflate, compress_to_vec_zlib(text, level), text.to_vec()),
        (Encoding::Deflate, compress_to_vec(text, level), text.to_vec()),
    ] {
        let seen = cuts.alike(&body, |pieces| read(encoding, pieces));
        assert_eq!(seen, Read { output: expected.clone(), error: None, complete: true }, "{encoding:?}");

        let cut = body.len().saturating_sub(cut + 1);
        let seen = cuts.alike(&body[..cut], |pieces| read(encoding, pieces));
        assert!(expected.starts_with(&seen.output) && seen.error.is_none(), "{encoding:?} cut at {cut}");
        if encoding == Encoding::Deflate {
            assert!(!seen.complete, "{encoding:?} cut at {cut}");
        }
    }
}

#[derive(Debug, PartialEq)]
struct Read {
    output: Vec<u8>,
    error: Option<InflateError>,
    complete: bool,
}

fn read(encoding: Encoding, pieces: &[&[u8]]) -> Read {
    let mut output = Vec::new();
    let mut inflate = Inflate::new(encoding);
    let mut error = None;
    for piece in pieces {
        let result = inflate.feed(piece, |data| output.extend_from_slice(data));
        assert!(error.is_none() || result.err() == error, "an error stays");
        error = error.or(result.err());
    }
    Read { output, error, complete: inflate.is_complete() }
}
