//! A push scanner that picks a few paths out of JSON of any size.
//!
//! Bytes come in pieces cut anywhere; values at the paths of interest go out, as do the opening and the end of
//! containers there. Everything else is skipped without being copied, so a 50 MB body or an image inside a
//! string costs no memory: the state is a few dozen bytes and one bounded buffer for the string being captured.
//! Where a key stands twice, both values are reported in order and the last one wins, as in the JSON parsers
//! of the SDKs.
//!
//! The scanner is not a validator: it follows well-formed JSON exactly, and input that cannot be JSON at a place
//! it looks at (`[DONE]`) stops it until [`Scanner::reset`].

use memchr::memchr2;

/// A path from the root: keys, and [`EACH`] for every element of an array.
pub type Path = &'static [&'static str];

/// The path segment that stands for every element of an array. No object key is compared with it.
pub const EACH: &str = "[]";

/// Longest captured string and number, in bytes; the rest is counted and cut off.
pub const MAX_CAPTURE_BYTES: usize = 512;

/// Longest key that can match a path segment.
const MAX_KEY_BYTES: usize = 64;

/// Deepest path; containers below are only counted.
const MAX_DEPTH: usize = 8;

/// What stands at a path of interest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number's text.
    Number(&'a str),
    /// A string, unescaped.
    Text {
        /// The first [`MAX_CAPTURE_BYTES`] of it, cut at a character.
        text: &'a str,
        /// The length of all of it in bytes.
        bytes: u64,
    },
    /// An object begins.
    Object,
    /// An array begins.
    Array,
    /// The object or array ends.
    End,
}

impl<'a> Value<'a> {
    /// The number, if it is a non-negative integer of up to 64 bits: counts in fractions are no counts.
    pub fn as_count(&self) -> Option<u64> {
        match self {
            Value::Number(text) => text.parse().ok(),
            _ => None,
        }
    }

    /// The string, if it is one.
    pub fn as_text(&self) -> Option<&'a str> {
        match self {
            Value::Text { text, .. } => Some(text),
            _ => None,
        }
    }
}

/// The paths of interest and what the caller calls each: at most 64 of at most eight segments.
pub type Paths<F> = &'static [(Path, F)];

/// Receives what stands at the paths, by the caller's name for the path.
pub trait Sink<F> {
    /// Called for each value at a path of interest, in the order of the text.
    fn value(&mut self, field: F, value: Value<'_>);
}

impl<F, S: FnMut(F, Value<'_>)> Sink<F> for S {
    fn value(&mut self, field: F, value: Value<'_>) {
        self(field, value);
    }
}

/// One bit per path.
type Mask = u64;

#[derive(Clone, Copy, Debug, Default)]
struct Level {
    /// Paths that lead through this container.
    inside: Mask,
    /// Paths that end at this container and want to know when it does.
    at: Mask,
    array: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// A value, or the end of the array where `first` allows one.
    Value {
        may_end: bool,
    },
    /// A key, or the end of the object.
    Key {
        may_end: bool,
    },
    Colon,
    /// A comma or the end of the container.
    After,
    Text {
        key: bool,
    },
    Scalar,
    /// In a container no path leads into, `depth` levels below its parent.
    Skip {
        depth: u32,
    },
    SkipText {
        depth: u32,
        escaped: bool,
    },
    /// The text's one value is over; white space may follow.
    Finished,
    Broken,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Escape {
    None,
    Backslash,
    Unicode { digits: u8, code: u32 },
}

/// The scanner. It is made for one list of paths and reads one JSON text after the other.
pub struct Scanner<F: 'static> {
    paths: Paths<F>,
    levels: [Level; MAX_DEPTH],
    depth: usize,
    state: State,
    /// Paths the value to come, or being read, is on.
    candidates: Mask,
    escape: Escape,
    high_surrogate: Option<u16>,
    capture: Vec<u8>,
    capturing: bool,
    text_bytes: u64,
}

impl<F: Copy + 'static> Scanner<F> {
    /// A scanner for `paths`; one beyond the limits of [`Paths`] is never reported.
    pub fn new(paths: Paths<F>) -> Scanner<F> {
        let mut scanner = Scanner {
            paths,
            levels: [Level::default(); MAX_DEPTH],
            depth: 0,
            state: State::Broken,
            candidates: 0,
            escape: Escape::None,
            high_surrogate: None,
            capture: Vec::new(),
            capturing: false,
            text_bytes: 0,
        };
        scanner.reset();
        scanner
    }

    /// Forgets the current text; the next byte begins a new one.
    pub fn reset(&mut self) {
        self.depth = 0;
        self.state = State::Value { may_end: false };
        self.candidates = mask_of(self.paths.len());
        self.escape = Escape::None;
        self.high_surrogate = None;
    }

    /// Whether a whole JSON value was read.
    pub fn is_complete(&self) -> bool {
        self.state == State::Finished || (self.depth == 0 && self.state == State::Scalar)
    }

    /// Whether the input was no JSON at a place the scanner looked at.
    pub fn is_broken(&self) -> bool {
        self.state == State::Broken
    }

    /// Reads the next bytes.
    pub fn feed(&mut self, mut bytes: &[u8], sink: &mut impl Sink<F>) {
        while let Some((&byte, rest)) = bytes.split_first() {
            match self.state {
                State::Text { key } => {
                    bytes = self.text(bytes, key, sink);
                    continue;
                }
                State::SkipText { depth, escaped } => {
                    bytes = self.skip_text(bytes, depth, escaped);
                    continue;
                }
                State::Skip { depth } => {
                    bytes = self.skip(bytes, depth);
                    continue;
                }
                State::Broken => return,
                State::Scalar => {
                    if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'+' | b'.') {
                        if self.capture.len() < MAX_CAPTURE_BYTES {
                            self.capture.push(byte);
                        }
                    } else {
                        self.end_scalar(sink);
                        // The byte that ended it is punctuation: look at it again.
                        continue;
                    }
                }
                _ if matches!(byte, b' ' | b'\t' | b'\r' | b'\n') => {}
                State::Value { may_end } => self.begin_value(byte, may_end, sink),
                State::Key { may_end } => match byte {
                    b'"' => {
                        self.begin_text(true);
                        self.state = State::Text { key: true };
                    }
                    b'}' if may_end => self.end_container(sink),
                    _ => self.state = State::Broken,
                },
                State::Colon if byte == b':' => self.state = State::Value { may_end: false },
                State::After => self.after(byte, sink),
                State::Colon | State::Finished => self.state = State::Broken,
            }
            bytes = rest;
        }
    }

    /// Ends the text: a number at the top level has no byte behind it to end it.
    pub fn finish(&mut self, sink: &mut impl Sink<F>) {
        if self.state == State::Scalar {
            self.end_scalar(sink);
        }
    }

    fn begin_value(&mut self, byte: u8, may_end: bool, sink: &mut impl Sink<F>) {
        match byte {
            b'{' | b'[' => self.begin_container(byte == b'[', sink),
            b'"' => {
                self.begin_text(self.ending_here() != 0);
                self.state = State::Text { key: false };
            }
            b']' if may_end => self.end_container(sink),
            b'-' | b'0'..=b'9' | b't' | b'f' | b'n' => {
                self.capture.clear();
                self.capture.push(byte);
                self.state = State::Scalar;
            }
            _ => self.state = State::Broken,
        }
    }

    fn begin_container(&mut self, array: bool, sink: &mut impl Sink<F>) {
        let at = self.ending_here();
        let inside = self.candidates & !at;
        if self.candidates == 0 || self.depth == MAX_DEPTH {
            self.state = State::Skip { depth: 1 };
            return;
        }
        self.report(at, if array { Value::Array } else { Value::Object }, sink);
        if let Some(level) = self.levels.get_mut(self.depth) {
            *level = Level { inside, at, array };
        }
        self.depth += 1;
        if array {
            self.candidates = self.narrow(EACH.as_bytes(), true);
            self.state = State::Value { may_end: true };
        } else {
            self.state = State::Key { may_end: true };
        }
    }

    fn end_container(&mut self, sink: &mut impl Sink<F>) {
        if self.depth > 0 {
            self.depth -= 1;
        }
        let at = self.levels.get(self.depth).map_or(0, |level| level.at);
        self.report(at, Value::End, sink);
        self.value_ended();
    }

    /// A whole value was read; what may come now depends on where it stood.
    fn value_ended(&mut self) {
        self.state = if self.depth == 0 { State::Finished } else { State::After };
    }

    fn after(&mut self, byte: u8, sink: &mut impl Sink<F>) {
        let array = self.innermost().array;
        match (byte, array) {
            (b',', true) => {
                self.candidates = self.narrow(EACH.as_bytes(), true);
                self.state = State::Value { may_end: false };
            }
            (b',', false) => self.state = State::Key { may_end: false },
            (b']', true) | (b'}', false) => self.end_container(sink),
            _ => self.state = State::Broken,
        }
    }

    fn innermost(&self) -> Level {
        self.depth.checked_sub(1).and_then(|at| self.levels.get(at)).copied().unwrap_or_default()
    }

    /// Of the candidates, those whose last segment the value at hand is at.
    fn ending_here(&self) -> Mask {
        self.select(self.candidates, |path| path.len() == self.depth)
    }

    /// The candidates below the innermost container at `segment`.
    fn narrow(&self, segment: &[u8], each: bool) -> Mask {
        let Some(at) = self.depth.checked_sub(1) else { return 0 };
        self.select(self.innermost().inside, |path| {
            path.get(at).is_some_and(|own| own.as_bytes() == segment && (*own == EACH) == each)
        })
    }

    fn select(&self, from: Mask, keep: impl Fn(Path) -> bool) -> Mask {
        let mut left = from;
        let mut kept = 0;
        while left != 0 {
            let index = left.trailing_zeros();
            let bit = 1 << index;
            left &= !bit;
            if self.paths.get(index as usize).is_some_and(|(path, _)| keep(path)) {
                kept |= bit;
            }
        }
        kept
    }

    fn report(&self, mut at: Mask, value: Value<'_>, sink: &mut impl Sink<F>) {
        while at != 0 {
            let index = at.trailing_zeros();
            at &= !(1 << index);
            if let Some(&(_, field)) = self.paths.get(index as usize) {
                sink.value(field, value);
            }
        }
    }

    fn end_scalar(&mut self, sink: &mut impl Sink<F>) {
        let value = match self.capture.as_slice() {
            b"null" => Some(Value::Null),
            b"true" => Some(Value::Bool(true)),
            b"false" => Some(Value::Bool(false)),
            [b'-' | b'0'..=b'9', ..] => str::from_utf8(&self.capture).ok().map(Value::Number),
            _ => None,
        };
        match value {
            Some(value) => {
                self.report(self.ending_here(), value, sink);
                self.value_ended();
            }
            None => self.state = State::Broken,
        }
    }

    fn begin_text(&mut self, capturing: bool) {
        self.capture.clear();
        self.capturing = capturing;
        self.text_bytes = 0;
        self.escape = Escape::None;
        self.high_surrogate = None;
    }

    /// Reads on inside a string; returns what is left of `bytes`.
    fn text<'b>(&mut self, bytes: &'b [u8], key: bool, sink: &mut impl Sink<F>) -> &'b [u8] {
        match self.escape {
            Escape::None => {
                let plain = memchr2(b'"', b'\\', bytes).unwrap_or(bytes.len());
                let (run, rest) = bytes.split_at(plain);
                if !run.is_empty() {
                    self.flush_surrogate();
                    self.append(run);
                }
                match rest.split_first() {
                    Some((b'"', rest)) => {
                        self.flush_surrogate();
                        self.end_text(key, sink);
                        rest
                    }
                    Some((_, rest)) => {
                        self.escape = Escape::Backslash;
                        rest
                    }
                    None => rest,
                }
            }
            Escape::Backslash => {
                let Some((&byte, rest)) = bytes.split_first() else { return bytes };
                self.escape = Escape::None;
                let plain = match byte {
                    b'b' => 8,
                    b'f' => 12,
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'"' | b'\\' | b'/' => byte,
                    b'u' => {
                        self.escape = Escape::Unicode { digits: 0, code: 0 };
                        return rest;
                    }
                    _ => {
                        self.state = State::Broken;
                        return rest;
                    }
                };
                self.flush_surrogate();
                self.append(&[plain]);
                rest
            }
            Escape::Unicode { digits, code } => {
                let Some((&byte, rest)) = bytes.split_first() else { return bytes };
                let Some(digit) = char::from(byte).to_digit(16) else {
                    self.state = State::Broken;
                    return rest;
                };
                let code = code << 4 | digit;
                self.escape = if digits == 3 {
                    self.code_unit(u16::try_from(code).unwrap_or(0xfffd));
                    Escape::None
                } else {
                    Escape::Unicode { digits: digits + 1, code }
                };
                rest
            }
        }
    }

    /// One UTF-16 code unit from a `\u` escape; halves of a pair are put together.
    fn code_unit(&mut self, unit: u16) {
        let pair = self.high_surrogate.take().map(|high| char::decode_utf16([high, unit]).next());
        match pair {
            Some(Some(Ok(character))) => return self.append_char(character),
            Some(_) => self.append_char(char::REPLACEMENT_CHARACTER),
            None => {}
        }
        if (0xd800..0xdc00).contains(&unit) {
            self.high_surrogate = Some(unit);
        } else {
            self.append_char(char::from_u32(u32::from(unit)).unwrap_or(char::REPLACEMENT_CHARACTER));
        }
    }

    fn flush_surrogate(&mut self) {
        if self.high_surrogate.take().is_some() {
            self.append_char(char::REPLACEMENT_CHARACTER);
        }
    }

    fn append_char(&mut self, character: char) {
        self.append(character.encode_utf8(&mut [0; 4]).as_bytes());
    }

    fn append(&mut self, bytes: &[u8]) {
        self.text_bytes = self.text_bytes.saturating_add(bytes.len() as u64);
        if self.capturing {
            let room = MAX_CAPTURE_BYTES.saturating_sub(self.capture.len());
            self.capture.extend(bytes.iter().take(room));
        }
    }

    fn end_text(&mut self, key: bool, sink: &mut impl Sink<F>) {
        if key {
            let fits = self.text_bytes <= MAX_KEY_BYTES as u64;
            self.candidates = if fits { self.narrow(&self.capture, false) } else { 0 };
            self.state = State::Colon;
            return;
        }
        let at = self.ending_here();
        if at != 0 {
            let text = match str::from_utf8(&self.capture) {
                Ok(text) => text,
                Err(error) => {
                    let valid = self.capture.get(..error.valid_up_to()).unwrap_or_default();
                    str::from_utf8(valid).unwrap_or_default()
                }
            };
            self.report(at, Value::Text { text, bytes: self.text_bytes }, sink);
        }
        self.value_ended();
    }

    /// Passes over a container without looking into it; returns what is left of `bytes`.
    fn skip<'b>(&mut self, bytes: &'b [u8], mut depth: u32) -> &'b [u8] {
        for (at, &byte) in bytes.iter().enumerate() {
            match byte {
                b'{' | b'[' => depth = depth.saturating_add(1),
                b'}' | b']' => depth -= 1,
                b'"' => {
                    self.state = State::SkipText { depth, escaped: false };
                    return bytes.get(at + 1..).unwrap_or_default();
                }
                _ => continue,
            }
            if depth == 0 {
                self.value_ended();
                return bytes.get(at + 1..).unwrap_or_default();
            }
        }
        self.state = State::Skip { depth };
        &[]
    }

    fn skip_text<'b>(&mut self, mut bytes: &'b [u8], depth: u32, mut escaped: bool) -> &'b [u8] {
        loop {
            if escaped {
                let Some((_, rest)) = bytes.split_first() else { break };
                bytes = rest;
                escaped = false;
            }
            let Some(at) = memchr2(b'"', b'\\', bytes) else { break };
            let (found, rest) = match bytes.get(at..).and_then(<[u8]>::split_first) {
                Some(split) => split,
                None => break,
            };
            bytes = rest;
            if *found == b'"' {
                self.state = State::Skip { depth };
                return bytes;
            }
            escaped = true;
        }
        self.state = State::SkipText { depth, escaped };
        &[]
    }
}

/// The lowest `count` bits.
fn mask_of(count: usize) -> Mask {
    u32::try_from(count).ok().and_then(|count| Mask::MAX.checked_shl(count)).map_or(Mask::MAX, |high| !high)
}

#[cfg(test)]
mod tests;
