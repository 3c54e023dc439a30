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
use crate::body::json::{self, Places, Scanner, Value, is_white};
use draft::Draft;

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

/// The values that matter, by their keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Slot {
    Stream,
    Options,
    IncludeUsage,
}

const PLACES: Places<Slot> = &[
    json::key("stream", Slot::Stream),
    json::container("stream_options", Slot::Options, &[json::key("include_usage", Slot::IncludeUsage)]),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Before the root, where `mark` is what may come of a byte-order mark.
    Root {
        mark: &'static [u8],
    },
    Object,
    /// The root is over.
    Over,
    Broken,
}

/// Edits one request.
pub struct Injector {
    state: State,
    scanner: Scanner<Slot>,
    request: Request,
}

/// What the request said so far, and its bytes.
struct Request {
    stream: Stream,
    options: Options,
    /// In the object at `stream_options`, which has no `include_usage` yet.
    lacks_key: bool,
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
        let draft = Draft::default();
        Injector {
            state: State::Root { mark: b"\xef\xbb\xbf" },
            scanner: Scanner::new(PLACES),
            request: Request { stream: Stream::Unknown, options: Options::Absent, lacks_key: false, draft },
        }
    }

    /// Takes the next bytes and returns what goes on in their place; `None`: they do. Where the end of the stream comes
    /// without bytes, `chunk` is empty.
    pub fn feed(&mut self, chunk: &[u8], end_of_stream: bool) -> Option<Vec<u8>> {
        let mut passing = Passing::new(chunk);
        let mut rest = chunk;
        while let Some((&byte, after)) = rest.split_first() {
            let at = chunk.len() - rest.len();
            rest = match self.state {
                State::Over | State::Broken => break,
                State::Object => self.step(rest, at, &mut passing),
                State::Root { mark: [expected, mark @ ..] } if byte == *expected => {
                    self.state = State::Root { mark };
                    after
                }
                // All of the mark has come or nothing: half of one is no JSON.
                State::Root { mark: [] | [_, _, _] } if is_white(byte) => after,
                State::Root { mark: [] | [_, _, _] } if byte == b'{' => {
                    self.state = State::Object;
                    rest
                }
                State::Root { .. } => {
                    self.state = State::Broken;
                    break;
                }
            };
        }
        let draft = &mut self.request.draft;
        if end_of_stream {
            draft.release(&mut passing, chunk.len());
        } else if draft.is_holding() {
            draft.pass(&mut passing, chunk.len());
        }
        passing.finish()
    }

    /// What became of the request; final when its end was fed.
    pub fn outcome(&self) -> Outcome {
        let Request { stream, options, draft, .. } = &self.request;
        if draft.edited {
            return if *options == Options::Asked { Outcome::NotNeeded } else { Outcome::Injected };
        }
        match (self.state, stream, options) {
            (State::Over, Stream::On, Options::WrongType) => Outcome::GaveUp(Reason::WrongType),
            (State::Over, Stream::On, Options::NotAsked) if draft.overflowed => Outcome::GaveUp(Reason::TooFarApart),
            (State::Over, Stream::On, Options::NotAsked) => Outcome::GaveUp(Reason::StreamTwice),
            (State::Over, ..) => Outcome::NotNeeded,
            _ => Outcome::GaveUp(Reason::NotAnObject),
        }
    }

    /// How many bytes are held back.
    pub fn held_bytes(&self) -> usize {
        self.request.draft.held_bytes()
    }

    /// Reads on in the object, from `rest` of the chunk, which begins at `at`; returns what is left of it.
    fn step<'c>(&mut self, rest: &'c [u8], at: usize, passing: &mut Passing<'_>) -> &'c [u8] {
        let request = &mut self.request;
        request.look_at_word(self.scanner.awaited(), rest, at, passing);
        let is_empty = self.scanner.is_at_first_key();
        let rest =
            self.scanner.step(rest, &mut |slot, value: Value<'_>| request.value(slot, value, is_empty, at, passing));
        if self.scanner.is_complete() {
            self.state = State::Over;
            request.end(at, passing);
        } else if self.scanner.is_broken() {
            // What was read is no JSON: everything passes from here.
            self.state = State::Broken;
            request.draft.release(passing, at);
        }
        rest
    }
}

impl Request {
    /// Keeps the word that begins at `at` if an edit may replace it, and as long as it may be such a word.
    fn look_at_word(&mut self, awaited: Option<Slot>, rest: &[u8], at: usize, passing: &mut Passing<'_>) {
        match (awaited, rest.first()) {
            (Some(Slot::Options | Slot::IncludeUsage), Some(b'n')) | (Some(Slot::IncludeUsage), Some(b'f')) => {
                self.draft.hold_word(passing, at);
            }
            _ if self.draft.word_bytes(passing, at) > b"false".len() => {
                self.settle(at, passing);
            }
            _ => {}
        }
    }

    /// Takes the value that begins at `at`, or ends before it; `is_empty`: if an object ends, it is empty.
    fn value(&mut self, slot: Slot, value: Value<'_>, is_empty: bool, at: usize, passing: &mut Passing<'_>) {
        match (slot, value) {
            (Slot::Stream, Value::Bool(true)) => self.stream = Stream::On,
            (Slot::Stream, _) => self.stream = Stream::Off,
            (Slot::Options, Value::Object) => {
                self.options = Options::NotAsked;
                self.lacks_key = true;
            }
            (Slot::Options, Value::End) => {
                if std::mem::take(&mut self.lacks_key) {
                    self.draft.insert(passing, at, if is_empty { FIRST_MEMBER } else { NEXT_MEMBER });
                }
            }
            (Slot::Options, Value::Null) => {
                self.options = Options::NotAsked;
                self.draft.replace_word(passing, at, OBJECT);
            }
            (Slot::IncludeUsage, Value::Bool(false) | Value::Null) => {
                self.options = Options::NotAsked;
                self.draft.replace_word(passing, at, TRUE);
            }
            (Slot::IncludeUsage, Value::Bool(true)) => self.options = Options::Asked,
            (Slot::Options | Slot::IncludeUsage, _) => self.options = Options::WrongType,
        }
        self.lacks_key &= slot != Slot::IncludeUsage;
        self.settle(at, passing);
    }

    /// Ends with the brace at `at`.
    fn end(&mut self, at: usize, passing: &mut Passing<'_>) {
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
}

#[cfg(test)]
mod tests;
