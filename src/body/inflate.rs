//! Decompresses a response on the side, so that the client gets the original bytes.
//!
//! Only gzip and deflate: their window is 32 KiB, while brotli's and zstd's are megabytes per stream. Output is
//! handed on in small pieces, so a decompression bomb costs time, and that is bounded by [`MAX_RATIO`]. Damage
//! ends the reading; what was read so far counts, and the record says so.

use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress, inflate_flags};

/// The largest believable ratio of output to input; text stays below 100, deflate itself ends at about 1032.
pub const MAX_RATIO: u64 = 250;

/// Output beyond the ratio that is always allowed, in bytes: short inputs may be all repetition.
const FREE_OUTPUT_BYTES: u64 = 1 << 20;

/// Deflate's window. Output is handed on from there: miniz_oxide's own stream drops what it still holds when damage shows.
const WINDOW_BYTES: usize = 32 * 1024;

/// How the body is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// RFC 1952, also several members in a row.
    Gzip,
    /// RFC 1950, or the bare RFC 1951 that some servers send under the same name.
    Deflate,
}

/// Why reading stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InflateError {
    /// The bytes are not what the encoding says.
    Corrupt,
    /// The output is larger than any honest input could make it.
    Bomb,
}

enum State {
    /// Bytes of a header before the compressed data.
    Header(Header),
    Data,
    /// Bytes of the gzip trailer still to come.
    Trailer {
        left: u8,
    },
    /// A zlib stream is over; whatever follows is not ours.
    Ended,
    Failed(InflateError),
}

enum Header {
    Gzip(GzipHeader),
    /// Before the first byte, which tells zlib from bare deflate.
    Deflate,
}

/// Where in a gzip header the next byte stands.
struct GzipHeader {
    at: u8,
    flags: u8,
    part: GzipPart,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum GzipPart {
    Fixed,
    ExtraLength { low: Option<u8> },
    Extra { left: u16 },
    Name,
    Comment,
    Checksum { left: u8 },
}

/// The decompressor of one body: about 43 KiB while it runs.
pub struct Inflate {
    encoding: Encoding,
    state: State,
    inner: Box<DecompressorOxide>,
    flags: u32,
    window: Box<[u8]>,
    /// Where in the window the next output goes.
    at: usize,
    read: u64,
    written: u64,
}

impl Inflate {
    /// Before the first byte of a body.
    pub fn new(encoding: Encoding) -> Inflate {
        let state = match encoding {
            Encoding::Gzip => State::Header(Header::Gzip(GzipHeader::new())),
            Encoding::Deflate => State::Header(Header::Deflate),
        };
        let flags = inflate_flags::TINFL_FLAG_HAS_MORE_INPUT | inflate_flags::TINFL_FLAG_IGNORE_ADLER32;
        let window = vec![0; WINDOW_BYTES].into_boxed_slice();
        Inflate { encoding, state, inner: Box::default(), flags, window, at: 0, read: 0, written: 0 }
    }

    /// Decompresses the next bytes into `output`, piece by piece.
    ///
    /// # Errors
    /// Once an error has come it comes again for every further call.
    pub fn feed(&mut self, mut bytes: &[u8], mut output: impl FnMut(&[u8])) -> Result<(), InflateError> {
        self.read = self.read.saturating_add(bytes.len() as u64);
        loop {
            match &mut self.state {
                State::Failed(error) => return Err(*error),
                State::Ended => return Ok(()),
                State::Data => bytes = self.data(bytes, &mut output)?,
                State::Header(header) => {
                    let Some((&byte, rest)) = bytes.split_first() else { return Ok(()) };
                    let done = match header {
                        Header::Gzip(gzip) => gzip.take(byte),
                        Header::Deflate => {
                            // Compression method 8 in the low bits: a zlib header; bare deflate has none.
                            if byte & 0x0f == 8 {
                                self.flags = inflate_flags::TINFL_FLAG_HAS_MORE_INPUT
                                    | inflate_flags::TINFL_FLAG_PARSE_ZLIB_HEADER
                                    | inflate_flags::TINFL_FLAG_COMPUTE_ADLER32;
                            }
                            self.state = State::Data;
                            continue;
                        }
                    };
                    bytes = rest;
                    match done {
                        Ok(true) => {
                            self.inner.init();
                            self.state = State::Data;
                        }
                        Ok(false) => {}
                        Err(error) => return self.fail(error),
                    }
                }
                State::Trailer { left } => {
                    let Some((_, rest)) = bytes.split_first() else { return Ok(()) };
                    bytes = rest;
                    *left -= 1;
                    if *left == 0 {
                        self.state = State::Header(Header::Gzip(GzipHeader::new()));
                    }
                }
            }
            if bytes.is_empty() {
                return Ok(());
            }
        }
    }

    /// Whether the body so far is whole: nothing of it is missing.
    pub fn is_complete(&self) -> bool {
        match &self.state {
            State::Ended => true,
            State::Header(Header::Gzip(header)) => header.at == 0 && self.read > 0,
            State::Header(Header::Deflate) | State::Data | State::Trailer { .. } | State::Failed(_) => false,
        }
    }

    fn fail<T>(&mut self, error: InflateError) -> Result<T, InflateError> {
        self.state = State::Failed(error);
        Err(error)
    }

    fn data<'b>(&mut self, mut bytes: &'b [u8], output: &mut impl FnMut(&[u8])) -> Result<&'b [u8], InflateError> {
        loop {
            let (status, read, written) = decompress(&mut self.inner, bytes, &mut self.window, self.at, self.flags);
            bytes = bytes.get(read..).unwrap_or_default();
            let end = self.at.saturating_add(written);
            self.written = self.written.saturating_add(written as u64);
            if self.written > self.read.saturating_mul(MAX_RATIO).saturating_add(FREE_OUTPUT_BYTES) {
                return self.fail(InflateError::Bomb);
            }
            output(self.window.get(self.at..end).unwrap_or_default());
            self.at = end % WINDOW_BYTES;
            match status {
                TINFLStatus::Done => {
                    self.state = match self.encoding {
                        Encoding::Gzip => State::Trailer { left: 8 },
                        Encoding::Deflate => State::Ended,
                    };
                    return Ok(bytes);
                }
                // The window is full and begins anew.
                TINFLStatus::HasMoreOutput => {}
                TINFLStatus::NeedsMoreInput => return Ok(bytes),
                _ => return self.fail(InflateError::Corrupt),
            }
        }
    }
}

impl GzipHeader {
    const FIXED_BYTES: u8 = 10;

    fn new() -> GzipHeader {
        GzipHeader { at: 0, flags: 0, part: GzipPart::Fixed }
    }

    /// Takes one byte; true when the header is over.
    fn take(&mut self, byte: u8) -> Result<bool, InflateError> {
        let next = match self.part {
            GzipPart::Fixed => {
                let expected = match self.at {
                    0 => byte == 0x1f,
                    1 => byte == 0x8b,
                    2 => byte == 8,
                    _ => true,
                };
                if !expected {
                    return Err(InflateError::Corrupt);
                }
                if self.at == 3 {
                    self.flags = byte;
                }
                self.at += 1;
                if self.at < GzipHeader::FIXED_BYTES {
                    return Ok(false);
                }
                self.after_fixed()
            }
            GzipPart::ExtraLength { low: None } => Some(GzipPart::ExtraLength { low: Some(byte) }),
            GzipPart::ExtraLength { low: Some(low) } => match u16::from_le_bytes([low, byte]) {
                0 => self.after_extra(),
                left => Some(GzipPart::Extra { left }),
            },
            GzipPart::Extra { left: 1 } => self.after_extra(),
            GzipPart::Extra { left } => Some(GzipPart::Extra { left: left.saturating_sub(1) }),
            GzipPart::Name if byte == 0 => self.after_name(),
            GzipPart::Comment if byte == 0 => self.after_comment(),
            GzipPart::Name | GzipPart::Comment => Some(self.part),
            GzipPart::Checksum { left: 2 } => Some(GzipPart::Checksum { left: 1 }),
            GzipPart::Checksum { .. } => None,
        };
        if let Some(part) = next {
            self.part = part;
        }
        Ok(next.is_none())
    }

    fn after_fixed(&self) -> Option<GzipPart> {
        if self.flags & 0x04 != 0 { Some(GzipPart::ExtraLength { low: None }) } else { self.after_extra() }
    }

    fn after_extra(&self) -> Option<GzipPart> {
        if self.flags & 0x08 != 0 { Some(GzipPart::Name) } else { self.after_name() }
    }

    fn after_name(&self) -> Option<GzipPart> {
        if self.flags & 0x10 != 0 { Some(GzipPart::Comment) } else { self.after_comment() }
    }

    fn after_comment(&self) -> Option<GzipPart> {
        if self.flags & 0x02 != 0 { Some(GzipPart::Checksum { left: 2 }) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use miniz_oxide::deflate::{compress_to_vec, compress_to_vec_zlib};
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    /// A gzip member with every optional header field that `flags` asks for.
    pub(crate) fn gzip(data: &[u8], flags: u8) -> Vec<u8> {
        let mut out = vec![0x1f, 0x8b, 8, flags, 0, 0, 0, 0, 0, 255];
        if flags & 0x04 != 0 {
            out.extend([3, 0, 1, 2, 3]);
        }
        if flags & 0x08 != 0 {
            out.extend(b"name\0");
        }
        if flags & 0x10 != 0 {
            out.extend(b"comment\0");
        }
        if flags & 0x02 != 0 {
            out.extend([0, 0]);
        }
        out.extend(compress_to_vec(data, 6));
        out.extend([0; 8]);
        out
    }

    fn read(encoding: Encoding, bytes: &[u8], size: usize) -> (Vec<u8>, Result<(), InflateError>, bool) {
        let mut out = Vec::new();
        let mut inflate = Inflate::new(encoding);
        let result = bytes.chunks(size).try_for_each(|piece| inflate.feed(piece, |data| out.extend_from_slice(data)));
        (out, result, inflate.is_complete())
    }

    fn sample() -> Vec<u8> {
        (0..20_000u32).flat_map(|n| format!("{{\"n\":{}}}", n.wrapping_mul(2_654_435_761)).into_bytes()).collect()
    }

    #[test]
    fn every_encoding_and_header_reads_back_at_every_split() {
        let text = sample();
        let mut bodies =
            vec![(Encoding::Deflate, compress_to_vec_zlib(&text, 6)), (Encoding::Deflate, compress_to_vec(&text, 6))];
        bodies.extend([0, 0x02, 0x04, 0x08, 0x10, 0x1e].map(|flags| (Encoding::Gzip, gzip(&text, flags))));
        for (encoding, body) in &bodies {
            for size in [1, 5, 7, 4096, usize::MAX] {
                let (out, result, complete) = read(*encoding, body, size);
                assert!(out == text && result.is_ok() && complete, "{encoding:?} in pieces of {size}");
            }
        }
    }

    #[test]
    fn several_gzip_members_are_one_body() {
        let body = [gzip(b"one ", 0), gzip(b"two", 8)].concat();
        assert_eq!(read(Encoding::Gzip, &body, 1).0, b"one two");
    }

    #[test]
    fn a_cut_body_gives_what_was_there_and_is_not_complete() {
        let text = sample();
        let body = gzip(&text, 0);
        let (out, result, complete) = read(Encoding::Gzip, &body[..body.len() / 2], 100);
        assert!(result.is_ok() && !complete);
        assert!(!out.is_empty() && text.starts_with(&out));
    }

    #[test]
    fn damage_ends_the_reading() {
        for (encoding, body) in [
            (Encoding::Gzip, b"{\"not\":\"gzip\"}".to_vec()),
            (Encoding::Gzip, [&gzip(b"", 0)[..10], &[0xff; 20]].concat()),
            (Encoding::Deflate, vec![0x78, 0x9c, 0xff, 0xff, 0xff]),
        ] {
            let (_, result, complete) = read(encoding, &body, 3);
            assert_eq!((result, complete), (Err(InflateError::Corrupt), false));
        }
    }

    #[test]
    fn a_decompression_bomb_is_cut_off_and_stays_refused() {
        let body = gzip(&vec![0; 20 << 20], 0);
        let (out, result, complete) = read(Encoding::Gzip, &body, 1000);
        assert_eq!((result, complete), (Err(InflateError::Bomb), false));
        assert!((out.len() as u64) < body.len() as u64 * MAX_RATIO + FREE_OUTPUT_BYTES + 1000 * 1032);
        let mut inflate = Inflate::new(Encoding::Gzip);
        assert_eq!(inflate.feed(&body, |_| {}), Err(InflateError::Bomb));
        assert_eq!(inflate.feed(b"", |_| {}), Err(InflateError::Bomb));
    }
}
