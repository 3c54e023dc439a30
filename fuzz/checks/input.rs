//! From a fuzzer's bytes to a body and where it is cut.

use std::fmt::Debug;

/// Reads the choices at the beginning of an input; what is left is the body. Past the end every choice is 0.
pub(super) struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub(super) fn new(data: &'a [u8]) -> Input<'a> {
        Input(data)
    }

    pub(super) fn byte(&mut self) -> u8 {
        let (&byte, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        byte
    }

    fn number(&mut self) -> usize {
        usize::from(u16::from_le_bytes([self.byte(), self.byte()]))
    }

    /// Up to seven places to cut at.
    pub(super) fn cuts(&mut self) -> Cuts {
        let count = self.byte() % 8;
        Cuts((0..count).map(|_| self.number()).collect())
    }

    pub(super) fn rest(self) -> &'a [u8] {
        self.0
    }
}

pub(super) struct Cuts(Vec<usize>);

impl Cuts {
    /// `body` in pieces, some of which may be empty.
    pub(super) fn of<'b>(&self, body: &'b [u8]) -> Vec<&'b [u8]> {
        let mut ends: Vec<usize> = self.0.iter().map(|cut| cut % (body.len() + 1)).collect();
        ends.push(body.len());
        ends.sort_unstable();
        let mut begin = 0;
        ends.into_iter().map(|end| &body[std::mem::replace(&mut begin, end)..end]).collect()
    }

    /// What `read` makes of `body` in one piece, which must be what it makes of it in the pieces of these cuts and, where
    /// that does not take too long, byte by byte.
    pub(super) fn alike<T: PartialEq + Debug>(&self, body: &[u8], read: impl Fn(&[&[u8]]) -> T) -> T {
        let whole = read(&[body]);
        let pieces = self.of(body);
        assert_eq!(read(&pieces), whole, "cut into {:?}", pieces.iter().map(|piece| piece.len()).collect::<Vec<_>>());
        if body.len() <= 4096 {
            assert_eq!(read(&body.chunks(1).collect::<Vec<_>>()), whole, "byte by byte");
        }
        whole
    }
}

/// White space in the place of zero bytes, a few times: a short input that is longer than what may be held back.
pub(super) fn inflated(body: &[u8]) -> Vec<u8> {
    const SPACES: usize = 22_000;
    let mut left = 4;
    let mut out = Vec::with_capacity(body.len());
    for &byte in body {
        if byte == 0 && left > 0 {
            left -= 1;
            out.resize(out.len() + SPACES, b' ');
        } else {
            out.push(byte);
        }
    }
    out
}

/// An event-stream frame with right checksums.
pub(super) fn frame(headers: &[u8], payload: &[u8]) -> Vec<u8> {
    let length = |bytes: usize| u32::try_from(bytes).unwrap().to_be_bytes();
    let mut out = Vec::with_capacity(16 + headers.len() + payload.len());
    out.extend(length(16 + headers.len() + payload.len()));
    out.extend(length(headers.len()));
    out.extend(crc32fast::hash(&out).to_be_bytes());
    out.extend(headers);
    out.extend(payload);
    out.extend(crc32fast::hash(&out).to_be_bytes());
    out
}

/// A string header of a frame.
pub(super) fn header(name: &str, value: &[u8]) -> Vec<u8> {
    let mut out = vec![u8::try_from(name.len()).unwrap()];
    out.extend(name.as_bytes());
    out.push(7);
    out.extend(u16::try_from(value.len()).unwrap().to_be_bytes());
    out.extend(value);
    out
}

/// A gzip member with the optional header fields that `flags` ask for.
pub(super) fn gzip(data: &[u8], flags: u8, level: u8) -> Vec<u8> {
    let mut out = vec![0x1f, 0x8b, 8, flags, 0, 0, 0, 0, 0, 255];
    for (flag, field) in [(4, &b"\x03\0\x01\x02\x03"[..]), (8, b"name\0"), (16, b"comment\0"), (2, b"\0\0")] {
        out.extend(if flags & flag != 0 { field } else { &[] });
    }
    out.extend(miniz_oxide::deflate::compress_to_vec(data, level));
    // The reader leaves checksum and length to the client.
    out.extend([0; 8]);
    out
}
