//! Makes `stream_options.include_usage` true in a streamed request that does not ask for it.
//!
//! The edit is made in the bytes as they pass, without a DOM: what is inserted, or stands in the place of a `false` or
//! a `null`, is all that changes. Bytes are held back only from the place of an edit until it is known whether the
//! request streams at all, since providers refuse `stream_options` of a request that does not.
//!
//! | in the request | becomes |
//! |---|---|
//! | no `stream_options` | `,"stream_options":{"include_usage":true}` before the closing brace |
//! | `"stream_options":null` | `"stream_options":{"include_usage":true}` |
//! | `"stream_options":{…}` without the key | `,"include_usage":true` before its closing brace |
//! | `"include_usage":false` or `null` | `"include_usage":true` |
//! | anything else there, such as `"include_usage":1` | stays: lenient providers read it as true, strict ones refuse it |
//! | `stream` absent or anything but `true` | stays |
//! | not one JSON object, or none where looked at | stays from where that is seen |
//!
//! Keys that stand twice: SDKs never write them, and parsers differ. The last `stream` decides whether a key is
//! appended. A `stream_options` is edited by the nearest `stream` before it, else by the first one after it; each of them
//! is edited, so that both a reader of the first and a reader of the last finds the usage asked for. The client counts
//! as having asked if the last `include_usage` of the last `stream_options` is true.

mod draft;

use super::Passing;
use draft::Draft;
use memchr::memchr2;

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It does not stream, or its client asked for the usage and shall get it.
    NotNeeded,
    /// It asks for the usage and its client did not.
    Injected,
    /// It streams, does not ask, and went as it came.
    GaveUp(Reason),
}

/// Why a request was left as it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It is not one whole JSON object; whether it streams is not known.
    NotAnObject,
    /// `stream_options` is no object, or `include_usage` neither true, false nor null.
    WrongType,
    /// More than [`MAX_HELD_BYTES`](super::MAX_HELD_BYTES) stand between `stream_options` and `stream`.
    TooFarApart,
    /// `stream` stands there twice and said false when `stream_options` passed.
    StreamTwice,
}

impl Reason {
    /// The note in the record.
    pub const fn note(self) -> &'static str {
        match self {
            Reason::NotAnObject => "include_usage_request_unreadable",
            Reason::WrongType => "include_usage_wrong_type",
            Reason::TooFarApart => "include_usage_too_far_apart",
            Reason::StreamTwice => "include_usage_stream_twice",
        }
    }
}

const WHOLE_KEY: &[u8] = br#","stream_options":{"include_usage":true}"#;
const OBJECT: &[u8] = br#"{"include_usage":true}"#;
const FIRST_MEMBER: &[u8] = br#""include_usage":true"#;
const NEXT_MEMBER: &[u8] = br#","include_usage":true"#;
const TRUE: &[u8] = b"true";

/// What the last `stream` said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stream {
    Unknown,
    On,
    Off,
}

/// What the last `stream_options` said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Options {
    Absent,
    NotAsked,
    Asked,
    WrongType,
}

/// The value being read, by its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Slot {
    Other,
    Stream,
    Options,
    IncludeUsage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Before the root, where `mark` is what may come of a byte-order mark.
    Root {
        mark: &'static [u8],
    },
    /// A key, or the end of the object if it is empty.
    Key {
        may_end: bool,
    },
    Name,
    Colon,
    Value,
    /// A number, `true`, `false` or `null`.
    Scalar,
    /// In a string, `depth` containers below the object with the key.
    Text {
        depth: u32,
        escaped: bool,
    },
    /// In a container that nothing is looked for in.
    Nested {
        depth: u32,
    },
    /// A comma or the end of the object.
    After,
    /// The root is over.
    Over,
    Broken,
}

/// Edits one request.
#[derive(Debug)]
pub struct Injector {
    state: State,
    /// In the object at `stream_options`, not in the root.
    in_options: bool,
    /// That object has an `include_usage`.
    has_include_usage: bool,
    slot: Slot,
    name: Short,
    escape: Escape,
    scalar: Short,
    stream: Stream,
    options: Options,
    draft: Draft,
}

impl Default for Injector {
    fn default() -> Injector {
        Injector::new()
    }
}

impl Injector {
    /// Before the first byte of the request.
    pub fn new() -> Injector {
        Injector {
            state: State::Root { mark: b"\xef\xbb\xbf" },
            in_options: false,
            has_include_usage: false,
            slot: Slot::Other,
            name: Short::default(),
            escape: Escape::None,
            scalar: Short::default(),
            stream: Stream::Unknown,
            options: Options::Absent,
            draft: Draft::default(),
        }
    }

    /// Takes the next bytes and returns what goes on in their place; `None`: they do. Where the end of the stream comes
    /// without bytes, `chunk` is empty.
    pub fn feed(&mut self, chunk: &[u8], end_of_stream: bool) -> Option<Vec<u8>> {
        let mut passing = Passing::new(chunk);
        let mut at = 0;
        while let Some(&byte) = chunk.get(at) {
            at = self.step(byte, at, &mut passing);
        }
        if end_of_stream {
            self.draft.release(&mut passing, at);
        } else if self.draft.is_holding() {
            self.draft.pass(&mut passing, at);
        }
        passing.finish()
    }

    /// What became of the request; final when its end was fed.
    pub fn outcome(&self) -> Outcome {
        if self.draft.edited {
            let asked = self.options == Options::Asked;
            return if asked { Outcome::NotNeeded } else { Outcome::Injected };
        }
        match (self.state, self.stream, self.options) {
            (State::Over, Stream::On, Options::WrongType) => Outcome::GaveUp(Reason::WrongType),
            (State::Over, Stream::On, Options::NotAsked) if self.draft.overflowed => {
                Outcome::GaveUp(Reason::TooFarApart)
            }
            (State::Over, Stream::On, Options::NotAsked) => Outcome::GaveUp(Reason::StreamTwice),
            (State::Over, ..) => Outcome::NotNeeded,
            _ => Outcome::GaveUp(Reason::NotAnObject),
        }
    }

    /// How many bytes are held back.
    pub fn held_bytes(&self) -> usize {
        self.draft.held_bytes()
    }

    /// Reads the byte at `at`, and more where nothing is to be seen in them; returns where to go on.
    fn step(&mut self, byte: u8, at: usize, passing: &mut Passing<'_>) -> usize {
        let next = at + 1;
        match self.state {
            State::Over | State::Broken => return passing.chunk.len(),
            State::Text { depth, escaped } => return self.text(at, depth, escaped, passing.chunk),
            State::Nested { depth } => return self.nested(at, depth, passing.chunk),
            State::Name => self.name(byte, at, passing),
            State::Scalar => {
                if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'+' | b'.') {
                    self.scalar.push(byte);
                    if self.scalar.is_cut() {
                        // It is none of the words an edit replaces, however long it may be.
                        self.draft.forget_word();
                        self.settle(at, passing);
                    }
                } else {
                    self.end_scalar(at, passing);
                    // The byte that ended it is punctuation: look at it again.
                    return at;
                }
            }
            State::Root { mark: [expected, mark @ ..] } if byte == *expected => self.state = State::Root { mark },
            State::Root { mark: [_] | [_, _] } => self.give_way(at, passing),
            _ if matches!(byte, b' ' | b'\t' | b'\r' | b'\n') => {}
            State::Root { .. } if byte == b'{' => self.state = State::Key { may_end: true },
            State::Key { .. } if byte == b'"' => {
                self.name = Short::default();
                self.escape = Escape::None;
                self.state = State::Name;
            }
            State::Key { may_end: true } if byte == b'}' => self.end_object(true, at, passing),
            State::Colon if byte == b':' => self.state = State::Value,
            State::Value => self.begin_value(byte, at, passing),
            State::After if byte == b',' => self.state = State::Key { may_end: false },
            State::After if byte == b'}' => self.end_object(false, at, passing),
            State::Root { .. } | State::Key { .. } | State::Colon | State::After => self.give_way(at, passing),
        }
        next
    }

    /// What was read is no JSON: everything passes from here.
    fn give_way(&mut self, at: usize, passing: &mut Passing<'_>) {
        self.state = State::Broken;
        self.draft.release(passing, at);
    }

    /// One byte of a key.
    fn name(&mut self, byte: u8, at: usize, passing: &mut Passing<'_>) {
        match (self.escape, byte) {
            (Escape::None, b'"') => {
                self.slot = match (self.in_options, self.name.text()) {
                    (false, b"stream") => Slot::Stream,
                    (false, b"stream_options") => Slot::Options,
                    (true, b"include_usage") => Slot::IncludeUsage,
                    _ => Slot::Other,
                };
                self.state = State::Colon;
            }
            (Escape::None, b'\\') => self.escape = Escape::Backslash,
            (Escape::None, _) => self.name.push(byte),
            (Escape::Backslash, b'u') => self.escape = Escape::Unicode { digits: 0, code: 0 },
            (Escape::Backslash, b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
                // No key of interest has such a character.
                self.name.push(b'\\');
                self.escape = Escape::None;
            }
            (Escape::Backslash, _) => self.give_way(at, passing),
            (Escape::Unicode { digits, code }, _) => {
                let Some(digit) = char::from(byte).to_digit(16) else { return self.give_way(at, passing) };
                let code = code << 4 | digit;
                if digits < 3 {
                    self.escape = Escape::Unicode { digits: digits + 1, code };
                } else {
                    // Nor one that is not ASCII.
                    self.name.push(u8::try_from(code).unwrap_or(u8::MAX));
                    self.escape = Escape::None;
                }
            }
        }
    }

    fn begin_value(&mut self, byte: u8, at: usize, passing: &mut Passing<'_>) {
        match (byte, self.slot) {
            (b'{', Slot::Options) => {
                self.options = Options::NotAsked;
                self.in_options = true;
                self.has_include_usage = false;
                self.state = State::Key { may_end: true };
            }
            (b'{' | b'[', _) => {
                self.state = State::Nested { depth: 1 };
                self.value_is(Word::Other, at, passing);
            }
            (b'"', _) => {
                self.state = State::Text { depth: 0, escaped: false };
                self.value_is(Word::Other, at, passing);
            }
            (b'-' | b'0'..=b'9' | b't' | b'f' | b'n', _) => {
                self.state = State::Scalar;
                self.scalar = Short::default();
                self.scalar.push(byte);
                if matches!((self.slot, byte), (Slot::Options, b'n') | (Slot::IncludeUsage, b'n' | b'f')) {
                    self.draft.hold_word(passing, at);
                }
            }
            _ => self.give_way(at, passing),
        }
    }

    fn end_scalar(&mut self, at: usize, passing: &mut Passing<'_>) {
        let word = match self.scalar.text() {
            b"true" => Word::True,
            b"false" => Word::False,
            b"null" => Word::Null,
            [b'-' | b'0'..=b'9', ..] => Word::Other,
            _ => return self.give_way(at, passing),
        };
        self.state = State::After;
        self.value_is(word, at, passing);
    }

    /// What the value at hand is.
    fn value_is(&mut self, word: Word, at: usize, passing: &mut Passing<'_>) {
        match (self.slot, word) {
            (Slot::Other, _) => return,
            (Slot::Stream, Word::True) => self.stream = Stream::On,
            (Slot::Stream, _) => self.stream = Stream::Off,
            (Slot::Options, Word::Null) => {
                self.options = Options::NotAsked;
                self.draft.replace_word(passing, at, OBJECT);
            }
            (Slot::IncludeUsage, Word::False | Word::Null) => {
                self.options = Options::NotAsked;
                self.draft.replace_word(passing, at, TRUE);
            }
            (Slot::IncludeUsage, Word::True) => self.options = Options::Asked,
            (Slot::Options | Slot::IncludeUsage, _) => self.options = Options::WrongType,
        }
        self.has_include_usage |= self.slot == Slot::IncludeUsage;
        self.settle(at, passing);
    }

    fn end_object(&mut self, empty: bool, at: usize, passing: &mut Passing<'_>) {
        if self.in_options {
            self.in_options = false;
            self.state = State::After;
            if !self.has_include_usage {
                self.draft.insert(passing, at, if empty { FIRST_MEMBER } else { NEXT_MEMBER });
            }
            self.settle(at, passing);
            return;
        }
        self.state = State::Over;
        if self.stream == Stream::On && self.options == Options::Absent {
            self.draft.insert(passing, at, WHOLE_KEY);
            self.draft.apply(passing, at);
        }
        self.draft.release(passing, at);
    }

    /// Does with the waiting edits what `stream` says, if it has said anything.
    fn settle(&mut self, at: usize, passing: &mut Passing<'_>) {
        match self.stream {
            Stream::On => self.draft.apply(passing, at),
            Stream::Off => self.draft.release(passing, at),
            Stream::Unknown if !self.draft.is_waiting() => self.draft.release(passing, at),
            Stream::Unknown => {}
        }
    }

    /// Passes over a string; returns where it goes on behind it.
    fn text(&mut self, mut at: usize, depth: u32, mut escaped: bool, chunk: &[u8]) -> usize {
        if escaped {
            at += 1;
            escaped = false;
        }
        while let Some(rest) = chunk.get(at..)
            && let Some(found) = memchr2(b'"', b'\\', rest)
        {
            at += found + 1;
            if rest.get(found) == Some(&b'"') {
                self.state = if depth == 0 { State::After } else { State::Nested { depth } };
                return at;
            }
            if at == chunk.len() {
                escaped = true;
            } else {
                at += 1;
            }
        }
        self.state = State::Text { depth, escaped };
        chunk.len()
    }

    /// Passes over a container; returns where it goes on behind it, or in a string in it.
    fn nested(&mut self, at: usize, mut depth: u32, chunk: &[u8]) -> usize {
        for (offset, &byte) in chunk.get(at..).unwrap_or_default().iter().enumerate() {
            match byte {
                b'{' | b'[' => depth = depth.saturating_add(1),
                b'}' | b']' => depth = depth.saturating_sub(1),
                b'"' => self.state = State::Text { depth, escaped: false },
                _ => continue,
            }
            if depth == 0 {
                self.state = State::After;
            }
            if byte == b'"' || depth == 0 {
                return at + offset + 1;
            }
        }
        self.state = State::Nested { depth };
        chunk.len()
    }
}

/// What a value can be that matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    True,
    False,
    Null,
    Other,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Escape {
    None,
    Backslash,
    Unicode { digits: u8, code: u32 },
}

/// A key or a scalar, as far as it can be one of interest.
#[derive(Clone, Copy, Debug, Default)]
struct Short {
    bytes: [u8; 16],
    len: usize,
}

impl Short {
    fn push(&mut self, byte: u8) {
        if let Some(place) = self.bytes.get_mut(self.len) {
            *place = byte;
        }
        self.len = self.len.saturating_add(1);
    }

    /// All of it, or a beginning that is too long to be anything of interest.
    fn text(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or(&self.bytes)
    }

    fn is_cut(&self) -> bool {
        self.len > self.bytes.len()
    }
}

#[cfg(test)]
mod tests;
