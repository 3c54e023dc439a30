//! A push scanner that picks a few places out of JSON of any size.
//!
//! Bytes come in pieces cut anywhere; values at the places of interest go out, as do the opening and the end of
//! containers there. Everything else is skipped without being copied, so a 50 MB body or an image inside a
//! string costs no memory: the state is a short stack and one bounded buffer for a string cut in two.
//! Where a key stands twice, both values are reported in order and the last one wins, as in the JSON parsers
//! of the SDKs.
//!
//! The scanner is not a validator: it follows well-formed JSON exactly, and input that cannot be JSON at a place
//! it looks at (`[DONE]`) stops it until [`Scanner::reset`].

mod paths;
mod skip;

pub use paths::{Cursor, Follow, Paths};

use memchr::memchr2;

/// A place of interest: a key of an object, or every element of an array. Trees of them are plain static data,
/// shaped like the JSON they look for, at most nine levels deep.
#[derive(Debug)]
pub struct Place<F: 'static> {
    name: Name,
    field: Option<F>,
    inside: Places<F>,
    /// Its string comes in pieces, however long, instead of one captured text.
    pieces: bool,
}

/// The places to look at in an object or array.
pub type Places<F> = &'static [Place<F>];

#[derive(Debug, PartialEq, Eq)]
enum Name {
    Key(&'static str),
    Each,
}

/// The value of `key` is wanted, as `field`.
pub const fn key<F>(key: &'static str, field: F) -> Place<F> {
    Place { name: Name::Key(key), field: Some(field), inside: &[], pieces: false }
}

/// The container at `key` is wanted, as `field`, and so are places in it.
pub const fn container<F>(key: &'static str, field: F, inside: Places<F>) -> Place<F> {
    Place { name: Name::Key(key), field: Some(field), inside, pieces: false }
}

/// Only places in the container at `key` are wanted.
pub const fn within<F>(key: &'static str, inside: Places<F>) -> Place<F> {
    Place { name: Name::Key(key), field: None, inside, pieces: false }
}

/// The string at `key` is wanted in pieces as they come, each a [`Value::Piece`], and then [`Value::End`].
pub const fn pieces<F>(key: &'static str, field: F) -> Place<F> {
    Place { name: Name::Key(key), field: Some(field), inside: &[], pieces: true }
}

/// Every element of the array is wanted, as `field`, and so are places in it.
pub const fn container_each<F>(field: F, inside: Places<F>) -> Place<F> {
    Place { name: Name::Each, field: Some(field), inside, pieces: false }
}

/// Every element of the array is wanted, as `field`.
pub const fn each<F>(field: F) -> Place<F> {
    Place { name: Name::Each, field: Some(field), inside: &[], pieces: false }
}

/// Places in every element of the array are wanted.
pub const fn within_each<F>(inside: Places<F>) -> Place<F> {
    Place { name: Name::Each, field: None, inside, pieces: false }
}

/// Longest captured string and number, in bytes; the rest is counted and cut off.
pub const MAX_CAPTURE_BYTES: usize = 512;

/// Deepest place; containers below are only counted.
const MAX_DEPTH: usize = 9;

/// What stands at a place of interest.
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
    /// A piece of a long string, unescaped.
    Piece(&'a [u8]),
    /// An object begins.
    Object,
    /// An array begins.
    Array,
    /// The object, the array or the string in pieces ends.
    End,
}

impl<'a> Value<'a> {
    /// The number, if it is a non-negative integer of up to 64 bits, be it written as `7.0`: counts in fractions are no
    /// counts.
    pub fn as_count(&self) -> Option<u64> {
        let Value::Number(text) = self else { return None };
        let whole = || {
            let (whole, fraction) = text.split_once('.')?;
            (!fraction.is_empty() && fraction.bytes().all(|digit| digit == b'0')).then_some(whole)
        };
        text.parse().ok().or_else(|| whole()?.parse().ok())
    }

    /// The string, if it is one.
    pub fn as_text(&self) -> Option<&'a str> {
        match self {
            Value::Text { text, .. } => Some(text),
            _ => None,
        }
    }
}

/// Receives what stands at the places, by the caller's name for each.
pub trait Sink<F> {
    /// Called for each value at a place of interest, in the order of the text.
    fn value(&mut self, field: F, value: Value<'_>);
}

impl<F, S: FnMut(F, Value<'_>)> Sink<F> for S {
    fn value(&mut self, field: F, value: Value<'_>) {
        self(field, value);
    }
}

/// A container being read, because something in it is wanted.
#[derive(Debug)]
struct Level<F: 'static> {
    inside: Places<F>,
    /// The caller's name for the container itself, if it wants to know when it ends.
    field: Option<F>,
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

/// The scanner. It is made for one tree of places and reads one JSON text after the other; `C` is what follows further
/// places, which is nothing for most.
pub struct Scanner<F: 'static, C = ()> {
    root: Places<F>,
    levels: Vec<Level<F>>,
    state: State,
    /// The place of the value to come, or being read, if it is one of interest.
    here: Option<&'static Place<F>>,
    follow: C,
    escape: Escape,
    high_surrogate: Option<u16>,
    capture: Vec<u8>,
    text_bytes: u64,
    in_pieces: bool,
}

impl<F: Copy + 'static> Scanner<F> {
    /// A scanner for a text whose root is an object or array with `places` in it.
    pub fn new(places: Places<F>) -> Scanner<F> {
        Scanner::following(places, ())
    }
}

impl<F: Copy + 'static, C: Follow<F>> Scanner<F, C> {
    /// A scanner that looks at the places that `follow` knows, too. Strings that a static place wants in pieces do not
    /// come out there.
    pub fn following(places: Places<F>, follow: C) -> Scanner<F, C> {
        Scanner {
            root: places,
            levels: Vec::new(),
            state: State::Value { may_end: false },
            here: None,
            follow,
            escape: Escape::None,
            high_surrogate: None,
            capture: Vec::new(),
            text_bytes: 0,
            in_pieces: false,
        }
    }

    /// Forgets the current text; the next byte begins a new one.
    pub fn reset(&mut self) {
        self.levels.clear();
        self.here = None;
        self.follow.reset();
        self.state = State::Value { may_end: false };
    }

    /// Whether a whole JSON value was read.
    pub fn is_complete(&self) -> bool {
        self.state == State::Finished || (self.levels.is_empty() && self.state == State::Scalar)
    }

    /// Whether the input was no JSON at a place the scanner looked at.
    pub fn is_broken(&self) -> bool {
        self.state == State::Broken
    }

    /// Reads the next bytes of a text that is one value.
    pub fn feed(&mut self, mut bytes: &[u8], sink: &mut impl Sink<F>) {
        while !bytes.is_empty() {
            bytes = self.step(bytes, sink);
        }
    }

    /// Reads the next bytes up to the end of the value and the white space behind it; returns what follows.
    pub fn feed_value<'b>(&mut self, mut bytes: &'b [u8], sink: &mut impl Sink<F>) -> &'b [u8] {
        while let Some(byte) = bytes.first() {
            if self.state == State::Finished && !is_white(*byte) {
                break;
            }
            bytes = self.step(bytes, sink);
        }
        bytes
    }

    /// Reads a little further and returns what is left of `bytes`. An object or array is reported at its first byte and
    /// at its last, a number or word at the byte behind it: a caller that steps knows where in the text they stand.
    ///
    /// Inlined, [`Scanner::feed`] is a loop without a call in it: a sixth faster over a stream's events.
    #[inline(always)]
    pub fn step<'b>(&mut self, bytes: &'b [u8], sink: &mut impl Sink<F>) -> &'b [u8] {
        let Some((&byte, rest)) = bytes.split_first() else { return bytes };
        match self.state {
            State::Text { key } => return self.text(bytes, key, sink),
            State::SkipText { depth, escaped } => return self.skip_text(bytes, depth, escaped),
            State::Skip { depth } => return self.skip(bytes, depth),
            State::Broken => return &[],
            State::Scalar => {
                if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'+' | b'.') {
                    if self.capture.len() < MAX_CAPTURE_BYTES {
                        self.capture.push(byte);
                    }
                } else {
                    self.end_scalar(sink);
                    // The byte that ended it is punctuation: look at it again.
                    return bytes;
                }
            }
            _ if is_white(byte) => {}
            State::Value { may_end } => self.begin_value(byte, may_end, sink),
            State::Key { may_end } => match byte {
                b'"' => self.begin_text(true),
                b'}' if may_end => self.end_container(sink),
                _ => self.state = State::Broken,
            },
            State::Colon if byte == b':' => self.state = State::Value { may_end: false },
            State::After => self.after(byte, sink),
            State::Colon | State::Finished => self.state = State::Broken,
        }
        rest
    }

    /// The caller's name for the value that comes next, if it wants it.
    pub fn awaited(&self) -> Option<F> {
        if matches!(self.state, State::Value { .. }) { self.field() } else { None }
    }

    /// Whether the object at hand has begun and nothing in it yet.
    pub fn is_at_first_key(&self) -> bool {
        self.state == State::Key { may_end: true }
    }

    /// Ends the text: a number at the top level has no byte behind it to end it.
    pub fn finish(&mut self, sink: &mut impl Sink<F>) {
        // In a container the number may be cut in half: only what ends it tells.
        if self.state == State::Scalar && self.levels.is_empty() {
            self.end_scalar(sink);
        }
    }

    fn begin_value(&mut self, byte: u8, may_end: bool, sink: &mut impl Sink<F>) {
        match byte {
            b'{' | b'[' => self.begin_container(byte == b'[', sink),
            b'"' if self.is_wanted() => self.begin_text(false),
            b'"' => self.state = State::SkipText { depth: 0, escaped: false },
            b']' if may_end => self.end_container(sink),
            b'-' | b'0'..=b'9' | b't' | b'f' | b'n' => {
                self.capture.clear();
                self.capture.push(byte);
                self.state = State::Scalar;
            }
            _ => self.state = State::Broken,
        }
    }

    /// The caller's name for the value at hand, if it wants it.
    fn field(&self) -> Option<F> {
        self.here.and_then(|place| place.field)
    }

    /// Whether anybody wants the value at hand.
    fn is_wanted(&self) -> bool {
        self.field().is_some() || self.follow.field().is_some()
    }

    fn report(&self, value: Value<'_>, sink: &mut impl Sink<F>) {
        if let Some(field) = self.field() {
            sink.value(field, value);
        }
        if let Some(field) = self.follow.field()
            && !self.in_pieces
        {
            sink.value(field, value);
        }
    }

    fn begin_container(&mut self, array: bool, sink: &mut impl Sink<F>) {
        let (inside, field) = match self.here {
            Some(place) => (place.inside, place.field),
            None if self.levels.is_empty() => (self.root, None),
            None => (&[][..], None),
        };
        let wanted = !inside.is_empty() || self.is_wanted() || self.follow.leads_on();
        if !wanted || self.levels.len() >= MAX_DEPTH {
            self.state = State::Skip { depth: 1 };
            return;
        }
        self.report(if array { Value::Array } else { Value::Object }, sink);
        self.levels.push(Level { inside, field, array });
        self.follow.enter(array);
        if array {
            self.here = self.place(|name| *name == Name::Each);
            self.state = State::Value { may_end: true };
        } else {
            self.state = State::Key { may_end: true };
        }
    }

    fn end_container(&mut self, sink: &mut impl Sink<F>) {
        self.follow.leave();
        if let Some(field) = self.levels.pop().and_then(|level| level.field) {
            sink.value(field, Value::End);
        }
        self.value_ended();
    }

    /// A whole value was read; what may come now depends on where it stood.
    fn value_ended(&mut self) {
        self.state = if self.levels.is_empty() { State::Finished } else { State::After };
    }

    fn after(&mut self, byte: u8, sink: &mut impl Sink<F>) {
        let array = self.levels.last().is_some_and(|level| level.array);
        match (byte, array) {
            (b',', true) => {
                self.here = self.place(|name| *name == Name::Each);
                self.state = State::Value { may_end: false };
            }
            (b',', false) => self.state = State::Key { may_end: false },
            (b']', true) | (b'}', false) => self.end_container(sink),
            _ => self.state = State::Broken,
        }
    }

    /// The place in the innermost container whose name is the one.
    fn place(&self, is: impl Fn(&Name) -> bool) -> Option<&'static Place<F>> {
        self.levels.last()?.inside.iter().find(|place| is(&place.name))
    }

    fn end_scalar(&mut self, sink: &mut impl Sink<F>) {
        let value = match self.capture.as_slice() {
            b"null" => Value::Null,
            b"true" => Value::Bool(true),
            b"false" => Value::Bool(false),
            [b'-' | b'0'..=b'9', ..] => Value::Number(str::from_utf8(&self.capture).unwrap_or_default()),
            _ => {
                self.state = State::Broken;
                return;
            }
        };
        self.report(value, sink);
        self.value_ended();
    }

    fn begin_text(&mut self, key: bool) {
        self.capture.clear();
        self.text_bytes = 0;
        self.escape = Escape::None;
        self.high_surrogate = None;
        self.in_pieces = !key && self.here.is_some_and(|place| place.pieces);
        self.state = State::Text { key };
    }

    /// Reads on inside a string that is wanted; returns what is left of `bytes`.
    fn text<'b>(&mut self, bytes: &'b [u8], key: bool, sink: &mut impl Sink<F>) -> &'b [u8] {
        match self.escape {
            Escape::None => {
                let plain = memchr2(b'"', b'\\', bytes).unwrap_or(bytes.len());
                let (run, rest) = bytes.split_at(plain);
                let Some((&byte, rest)) = rest.split_first() else {
                    self.flush_surrogate(sink);
                    self.append(run, sink);
                    return &[];
                };
                let whole = self.text_bytes == 0 && self.high_surrogate.is_none() && !self.in_pieces;
                if byte == b'"' && whole && run.len() <= MAX_CAPTURE_BYTES {
                    // The usual case: all of the string lies before us, nothing to put together.
                    self.end_text(run, run.len() as u64, key, sink);
                    return rest;
                }
                if !run.is_empty() || byte == b'"' {
                    self.flush_surrogate(sink);
                }
                self.append(run, sink);
                if byte == b'"' {
                    let capture = std::mem::take(&mut self.capture);
                    self.end_text(&capture, self.text_bytes, key, sink);
                    self.capture = capture;
                } else {
                    self.escape = Escape::Backslash;
                }
                rest
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
                self.flush_surrogate(sink);
                self.append(&[plain], sink);
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
                    self.code_unit(u16::try_from(code).unwrap_or(0xfffd), sink);
                    Escape::None
                } else {
                    Escape::Unicode { digits: digits + 1, code }
                };
                rest
            }
        }
    }

    /// One UTF-16 code unit from a `\u` escape; halves of a pair are put together.
    fn code_unit(&mut self, unit: u16, sink: &mut impl Sink<F>) {
        let pair = self.high_surrogate.take().map(|high| char::decode_utf16([high, unit]).next());
        match pair {
            Some(Some(Ok(character))) => return self.append_char(character, sink),
            Some(_) => self.append_char(char::REPLACEMENT_CHARACTER, sink),
            None => {}
        }
        if (0xd800..0xdc00).contains(&unit) {
            self.high_surrogate = Some(unit);
        } else {
            self.append_char(char::from_u32(u32::from(unit)).unwrap_or(char::REPLACEMENT_CHARACTER), sink);
        }
    }

    fn flush_surrogate(&mut self, sink: &mut impl Sink<F>) {
        if self.high_surrogate.take().is_some() {
            self.append_char(char::REPLACEMENT_CHARACTER, sink);
        }
    }

    fn append_char(&mut self, character: char, sink: &mut impl Sink<F>) {
        self.append(character.encode_utf8(&mut [0; 4]).as_bytes(), sink);
    }

    fn append(&mut self, bytes: &[u8], sink: &mut impl Sink<F>) {
        if self.in_pieces {
            if !bytes.is_empty() {
                self.report(Value::Piece(bytes), sink);
            }
            return;
        }
        self.text_bytes = self.text_bytes.saturating_add(bytes.len() as u64);
        let room = MAX_CAPTURE_BYTES.saturating_sub(self.capture.len());
        self.capture.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
    }

    /// A string of `bytes` in all is over; `kept` is as much of it as was captured.
    fn end_text(&mut self, kept: &[u8], bytes: u64, key: bool, sink: &mut impl Sink<F>) {
        if key {
            self.here = self.place(|name| matches!(name, Name::Key(name) if name.as_bytes() == kept));
            self.follow.key(kept);
            self.state = State::Colon;
            return;
        }
        if self.in_pieces {
            self.report(Value::End, sink);
            self.value_ended();
            return;
        }
        let text = str::from_utf8(kept).unwrap_or_else(|error| {
            let valid = kept.get(..error.valid_up_to()).unwrap_or_default();
            str::from_utf8(valid).unwrap_or_default()
        });
        self.report(Value::Text { text, bytes }, sink);
        self.value_ended();
    }
}

/// Whether a byte may stand between the tokens of JSON.
pub(crate) const fn is_white(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

#[cfg(test)]
mod tests;
