//! Takes the event with nothing but the usage out of a stream of server-sent events.
//!
//! It is there because [`include_usage`](super::include_usage) asked for it, and clients that did not ask read
//! `choices[0]` of it and fail. It is told by its data: a JSON object with an empty `choices` and an object for `usage`.
//! Azure's first event has empty `choices` too but no usage, other providers put the usage into an event with
//! choices: those stay, as do `[DONE]`, comments and every other byte.
//!
//! An event is its lines up to and with the blank line that ends it, or the end of the stream; a comment among them
//! stays. Lines end in LF, CRLF or CR, in any mixture. Whole events leave with the chunk they end in. Only an event
//! that is not whole yet is held back, which costs the client nothing: it could not use it before its end. An event
//! of more than [`MAX_HELD_BYTES`] passes as it comes and stays.

use super::{Held, MAX_HELD_BYTES, Passing};
use crate::body::json::{self, Places, Scanner, Sink, Value};
use crate::body::sse::{Lines, Token};
use memchr::memchr2;

#[derive(Clone, Copy, Debug)]
enum Field {
    Choices,
    Choice,
    Usage,
}

const PLACES: Places<Field> =
    &[json::container("choices", Field::Choices, &[json::each(Field::Choice)]), json::key("usage", Field::Usage)];

/// What the data of an event said so far; where a key stands twice, the last one counts.
#[derive(Clone, Copy, Debug, Default)]
struct Facts {
    empty_choices: bool,
    usage: bool,
}

impl Sink<Field> for Facts {
    fn value(&mut self, field: Field, value: Value<'_>) {
        match (field, value) {
            (_, Value::End) => {}
            (Field::Choices, value) => self.empty_choices = value == Value::Array,
            (Field::Choice, _) => self.empty_choices = false,
            (Field::Usage, value) => self.usage = value == Value::Object,
        }
    }
}

/// Filters one stream.
pub struct UsageEventFilter {
    lines: Lines,
    /// An event that was taken out ended in a CR, so an LF belongs to it.
    drop_lf: bool,
    /// A field of an event has begun.
    open: bool,
    /// Where in the chunk at hand the open event begins; 0 if it began in an earlier one.
    begin: usize,
    /// Bytes of the open event that came in earlier chunks, held or not.
    event_bytes: usize,
    held: Held,
    scanner: Scanner<Field>,
    facts: Facts,
    removed: u64,
    missed: u64,
}

impl Default for UsageEventFilter {
    fn default() -> UsageEventFilter {
        UsageEventFilter::new()
    }
}

impl UsageEventFilter {
    /// Before the first byte of the stream.
    pub fn new() -> UsageEventFilter {
        UsageEventFilter {
            lines: Lines::default(),
            drop_lf: false,
            open: false,
            begin: 0,
            event_bytes: 0,
            held: Held::default(),
            scanner: Scanner::new(PLACES),
            facts: Facts::default(),
            removed: 0,
            missed: 0,
        }
    }

    /// Takes the next bytes and returns what goes on in their place; `None`: they do. Where the end of the stream comes
    /// without bytes, `chunk` is empty.
    pub fn feed(&mut self, chunk: &[u8], end_of_stream: bool) -> Option<Vec<u8>> {
        let mut passing = Passing::new(chunk);
        self.begin = 0;
        let mut rest = chunk;
        while let Some(&byte) = rest.first() {
            if std::mem::take(&mut self.drop_lf) && byte == b'\n' {
                passing.drop(chunk.len() - rest.len() + 1);
            }
            let Some(token) = self.lines.next(&mut rest) else { break };
            let at = chunk.len() - rest.len();
            match token {
                Token::Field => self.open(at),
                // What joins the lines of the data; before the first it is white space to JSON.
                Token::DataLine => self.scanner.feed(b"\n", &mut self.facts),
                Token::Data(data) => self.scanner.feed(data, &mut self.facts),
                Token::End => self.end_event(at, &mut passing),
            }
        }
        if end_of_stream {
            self.end_event(chunk.len(), &mut passing);
        } else if self.open {
            self.event_bytes = self.event_bytes_before(chunk.len());
            // What is no JSON, such as `[DONE]`, is not the event: it is never held.
            let fits = self.event_bytes <= MAX_HELD_BYTES && !self.scanner.is_broken();
            if fits && self.held.push(chunk.get(self.begin..).unwrap_or_default()) {
                passing.pass(self.begin);
                passing.drop(chunk.len());
            } else {
                passing.let_go(&mut self.held);
            }
        }
        passing.finish()
    }

    /// How many events were taken out.
    pub fn removed(&self) -> u64 {
        self.removed
    }

    /// How many events stayed only because they were too long to be held back.
    pub fn missed(&self) -> u64 {
        self.missed
    }

    /// How many bytes are held back.
    pub fn held_bytes(&self) -> usize {
        self.held.len()
    }

    fn open(&mut self, at: usize) {
        if !std::mem::replace(&mut self.open, true) {
            self.begin = at;
        }
    }

    /// The length of the open event up to `at` in the chunk at hand.
    fn event_bytes_before(&self, at: usize) -> usize {
        self.event_bytes.saturating_add(at.saturating_sub(self.begin))
    }

    /// Ends the event, if one is open, before `end`, and takes it out if it is the one.
    fn end_event(&mut self, end: usize, passing: &mut Passing<'_>) {
        if !std::mem::take(&mut self.open) {
            return;
        }
        let event_bytes = self.event_bytes_before(end);
        self.event_bytes = 0;
        let facts = std::mem::take(&mut self.facts);
        let wanted = !(self.scanner.is_complete() && facts.empty_choices && facts.usage);
        self.scanner.reset();
        if wanted || event_bytes > MAX_HELD_BYTES {
            self.missed += u64::from(!wanted);
            passing.let_go(&mut self.held);
            return;
        }
        self.removed += 1;
        passing.pass(self.begin);
        let mut event = self.held.take();
        event.extend_from_slice(passing.before(end));
        passing.drop(end);
        self.drop_lf = event.ends_with(b"\r");
        let out = passing.out();
        for line in lines(&event).filter(|line| line.starts_with(b":")) {
            out.extend_from_slice(line);
        }
    }
}

/// The lines of `text` with what ends them.
fn lines(mut text: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let end = match memchr2(b'\n', b'\r', text) {
            Some(end) if text.get(end..)?.starts_with(b"\r\n") => end + 2,
            Some(end) => end + 1,
            None => text.len(),
        };
        let (line, rest) = text.split_at(end);
        text = rest;
        (!line.is_empty()).then_some(line)
    })
}

#[cfg(test)]
mod tests;
