//! AWS event streams: binary frames with headers, a payload and two checksums.
//!
//! The payload of a frame is handed on as it arrives; only the headers, of which three are wanted, are kept while they
//! are read. Both checksums are verified, so a frame that was damaged on the way is known for what it is at its end.
//! Format: <https://smithy.io/2.0/aws/amazon-eventstream.html>.

use crc32fast::Hasher;

/// What a stream of frames is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part<'a> {
    /// A piece of the payload.
    Payload(&'a [u8]),
    /// The frame is over and its checksum is right.
    End {
        /// What an exception or error frame calls itself; `None` for an ordinary event.
        exception: Option<&'a str>,
    },
    /// The frame is damaged, and nothing after it can be read.
    Damaged,
}

const PRELUDE_BYTES: u32 = 12;
const CHECKSUM_BYTES: u32 = 4;
/// The format's own limit on headers.
const MAX_HEADERS_BYTES: u32 = 128 * 1024;
/// Headers beyond this are read over: the wanted ones come first and are short.
const MAX_KEPT_HEADERS_BYTES: usize = 4096;

#[derive(Debug, PartialEq, Eq)]
enum State {
    Prelude,
    Headers { left: u32, payload: u32 },
    Payload { left: u32 },
    Checksum,
    Broken,
}

/// The reader of one stream.
#[derive(Debug)]
pub struct Reader {
    state: State,
    /// The prelude, the headers or the checksum, as far as it has come.
    kept: Vec<u8>,
    checksum: Hasher,
    exception: Option<String>,
}

impl Default for Reader {
    fn default() -> Reader {
        Reader { state: State::Prelude, kept: Vec::new(), checksum: Hasher::new(), exception: None }
    }
}

impl Reader {
    /// Reads the next bytes.
    pub fn feed(&mut self, mut bytes: &[u8], mut part: impl FnMut(Part<'_>)) {
        while !bytes.is_empty() {
            match self.state {
                State::Broken => return,
                State::Prelude => {
                    if self.keep(&mut bytes, PRELUDE_BYTES as usize) {
                        self.begin_frame(&mut part);
                    }
                }
                State::Headers { left, payload } => {
                    let taken = self.take(&mut bytes, left);
                    let room = MAX_KEPT_HEADERS_BYTES.saturating_sub(self.kept.len());
                    self.kept.extend_from_slice(taken.get(..room).unwrap_or(taken));
                    let left = left.saturating_sub(length(taken));
                    self.state = State::Headers { left, payload };
                    if left == 0 {
                        self.end_headers(payload);
                    }
                }
                State::Payload { left } => {
                    let taken = self.take(&mut bytes, left);
                    part(Part::Payload(taken));
                    let left = left.saturating_sub(length(taken));
                    self.state = if left == 0 { State::Checksum } else { State::Payload { left } };
                }
                State::Checksum => {
                    if self.keep(&mut bytes, CHECKSUM_BYTES as usize) {
                        self.end_frame(&mut part);
                    }
                }
            }
        }
    }

    /// Whether the stream ends between two frames.
    pub fn is_complete(&self) -> bool {
        self.state == State::Prelude && self.kept.is_empty()
    }

    /// Keeps bytes until there are `wanted`; true when there are.
    fn keep(&mut self, bytes: &mut &[u8], wanted: usize) -> bool {
        let missing = wanted.saturating_sub(self.kept.len());
        let (now, rest) = bytes.split_at_checked(missing).unwrap_or((bytes, &[]));
        self.kept.extend_from_slice(now);
        *bytes = rest;
        self.kept.len() == wanted
    }

    /// The next at most `left` bytes, counted into the checksum.
    fn take<'b>(&mut self, bytes: &mut &'b [u8], left: u32) -> &'b [u8] {
        let (taken, rest) = bytes.split_at_checked(left as usize).unwrap_or((bytes, &[]));
        *bytes = rest;
        self.checksum.update(taken);
        taken
    }

    fn number(&self, at: usize) -> u32 {
        let bytes = self.kept.get(at..).and_then(<[u8]>::first_chunk).copied();
        bytes.map_or(0, u32::from_be_bytes)
    }

    fn begin_frame(&mut self, part: &mut impl FnMut(Part<'_>)) {
        let (total, headers, expected) = (self.number(0), self.number(4), self.number(8));
        let fixed = PRELUDE_BYTES + CHECKSUM_BYTES;
        let payload = total.checked_sub(fixed).and_then(|rest| rest.checked_sub(headers));
        let intact = crc32fast::hash(self.kept.get(..8).unwrap_or_default()) == expected;
        let Some(payload) = payload.filter(|_| intact && headers <= MAX_HEADERS_BYTES) else {
            self.state = State::Broken;
            return part(Part::Damaged);
        };
        self.checksum = Hasher::new();
        self.checksum.update(&self.kept);
        self.kept.clear();
        self.exception = None;
        self.state = State::Headers { left: headers, payload };
        if headers == 0 {
            self.end_headers(payload);
        }
    }

    fn end_headers(&mut self, payload: u32) {
        let header = |name: &str| headers(&self.kept).find(|(own, _)| *own == name.as_bytes()).map(|(_, value)| value);
        if header(":message-type").is_some_and(|kind| kind != b"event") {
            let kind = header(":exception-type").or_else(|| header(":error-code")).unwrap_or(b"exception");
            self.exception = Some(String::from_utf8_lossy(kind).into_owned());
        }
        self.kept.clear();
        self.state = if payload == 0 { State::Checksum } else { State::Payload { left: payload } };
    }

    fn end_frame(&mut self, part: &mut impl FnMut(Part<'_>)) {
        let intact = std::mem::take(&mut self.checksum).finalize() == self.number(0);
        self.kept.clear();
        self.state = if intact { State::Prelude } else { State::Broken };
        part(if intact { Part::End { exception: self.exception.as_deref() } } else { Part::Damaged });
    }
}

fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

/// The string headers among `bytes`; a header of another type is passed over, a malformed one ends the list.
fn headers(mut bytes: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    std::iter::from_fn(move || {
        loop {
            let (&name_length, rest) = bytes.split_first()?;
            let (name, rest) = rest.split_at_checked(name_length.into())?;
            let (&kind, rest) = rest.split_first()?;
            let (value_length, rest) = match kind {
                0 | 1 => (0, rest),
                2 => (1, rest),
                3 => (2, rest),
                4 => (4, rest),
                5 | 8 => (8, rest),
                9 => (16, rest),
                6 | 7 => {
                    let (length, rest) = rest.split_first_chunk()?;
                    (usize::from(u16::from_be_bytes(*length)), rest)
                }
                _ => return None,
            };
            let (value, rest) = rest.split_at_checked(value_length)?;
            bytes = rest;
            if kind == 7 {
                return Some((name, value));
            }
        }
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    /// A frame with string headers.
    pub(crate) fn frame(headers: &[(&str, &str)], payload: &[u8]) -> Vec<u8> {
        let mut list = Vec::new();
        for (name, value) in headers {
            list.push(name.len() as u8);
            list.extend(name.as_bytes());
            list.push(7);
            list.extend((value.len() as u16).to_be_bytes());
            list.extend(value.as_bytes());
        }
        let mut out = Vec::new();
        out.extend((16 + list.len() as u32 + payload.len() as u32).to_be_bytes());
        out.extend((list.len() as u32).to_be_bytes());
        out.extend(crc32fast::hash(&out).to_be_bytes());
        out.extend(list);
        out.extend(payload);
        out.extend(crc32fast::hash(&out).to_be_bytes());
        out
    }

    fn read(bytes: &[u8], size: usize) -> (Vec<String>, bool) {
        let (mut seen, mut payload) = (Vec::new(), Vec::new());
        let mut reader = Reader::default();
        for piece in bytes.chunks(size) {
            reader.feed(piece, |part| match part {
                Part::Payload(piece) => payload.extend_from_slice(piece),
                Part::End { exception } => {
                    let text = String::from_utf8(std::mem::take(&mut payload)).unwrap();
                    seen.push(format!("{text}{}", exception.unwrap_or_default()));
                }
                Part::Damaged => seen.push("damaged".into()),
            });
        }
        (seen, reader.is_complete())
    }

    fn events() -> Vec<u8> {
        let event = [(":event-type", "metadata"), (":message-type", "event")];
        let exception = [(":exception-type", "throttlingException"), (":message-type", "exception")];
        [frame(&event, b"one"), frame(&[], b""), frame(&event, &[b'x'; 300]), frame(&exception, b"{}")].concat()
    }

    #[test]
    fn frames_come_out_alike_at_every_split() {
        let long = "x".repeat(300);
        for size in [1, 5, 7, 64, 10_000] {
            let (seen, complete) = read(&events(), size);
            assert_eq!(seen, ["one", "", &long, "{}throttlingException"], "in pieces of {size}");
            assert!(complete);
        }
    }

    #[test]
    fn a_damaged_byte_is_noticed_and_ends_the_reading() {
        let whole = events();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x40;
            let (seen, complete) = read(&bytes, 50);
            let noticed = seen.last().is_some_and(|last| last == "damaged") || !complete;
            assert!(noticed, "byte {at}: {seen:?}");
        }
    }

    #[test]
    fn a_cut_stream_is_not_complete() {
        let whole = events();
        for cut in [1, 11, 13, 40, whole.len() - 1] {
            assert!(!read(&whole[..cut], 9).1, "cut at {cut}");
        }
    }

    #[test]
    fn headers_of_other_types_are_passed_over() {
        let mut list = vec![1, b'a', 0, 1, b'b', 4, 0, 0, 0, 1, 1, b'c', 6, 0, 2, 9, 9];
        list.extend([1, b'd', 7, 0, 1, b'v']);
        assert_eq!(headers(&list).collect::<Vec<_>>(), [(&b"d"[..], &b"v"[..])]);
    }
}
