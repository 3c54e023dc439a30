//! Server-sent events, read as they pass and cut anywhere.
//!
//! The reader hands on the pieces of each event's data as they arrive and holds no line, so an event of several
//! megabytes (an image, a repeated transcript) needs no buffer. Lines end in LF, CRLF or CR; comments and fields
//! other than `data` are passed over. Unlike a browser it also takes an event whose final blank line never
//! came, since the last event of a stream is the one with the usage. The lines under it are read the same way where an
//! event is taken out of a stream.

/// What a stream of events is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part<'a> {
    /// A piece of the event's data; lines of one event are joined by a piece that is a newline.
    Data(&'a [u8]),
    /// The event is over.
    End,
}

/// What [`Lines`] finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Token<'a> {
    /// A line with a field begins here; comments are passed over.
    Field,
    /// That field is data, of which this line may have none.
    DataLine,
    /// A piece of the line's data.
    Data(&'a [u8]),
    /// The event, if there was one, is over: a blank line, or the byte-order mark before the first one.
    End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// At the start of a line.
    Start {
        first: bool,
    },
    /// In [`FIELD`] or [`MARK`], of which `left` is still to come.
    Word {
        left: &'static [u8],
    },
    /// After `data:`, where one space is dropped.
    Space,
    Data,
    /// A field nobody needs, or a comment.
    Ignore,
}

const FIELD: &[u8] = b"data:";
/// A byte-order mark. Half of one is the beginning of a field nobody needs.
const MARK: &[u8] = b"\xef\xbb\xbf";

/// The lines of a stream, whole or in pieces.
#[derive(Debug)]
pub(crate) struct Lines {
    state: State,
    /// The last byte was a CR, so an LF belongs to it.
    after_cr: bool,
}

impl Default for Lines {
    fn default() -> Lines {
        Lines { state: State::Start { first: true }, after_cr: false }
    }
}

impl Lines {
    /// The next token; `bytes` is then what comes after it. `None` where they end without another.
    pub(crate) fn next<'b>(&mut self, bytes: &mut &'b [u8]) -> Option<Token<'b>> {
        while let Some((&byte, rest)) = bytes.split_first() {
            if std::mem::take(&mut self.after_cr) && byte == b'\n' {
                *bytes = rest;
                continue;
            }
            if matches!(byte, b'\n' | b'\r') {
                *bytes = rest;
                self.after_cr = byte == b'\r';
                match std::mem::replace(&mut self.state, State::Start { first: false }) {
                    State::Start { .. } => return Some(Token::End),
                    // `data` alone on a line is a data line with nothing in it.
                    State::Word { left: b":" } => return Some(Token::DataLine),
                    State::Word { .. } | State::Space | State::Data | State::Ignore => continue,
                }
            }
            match self.state {
                State::Start { .. } if byte == b':' => self.state = State::Ignore,
                State::Start { first } => {
                    let is_mark = first && MARK.first() == Some(&byte);
                    self.state = State::Word { left: if is_mark { MARK } else { FIELD } };
                    return Some(Token::Field);
                }
                State::Word { left } => {
                    // As a whole, as it nearly always comes, or byte by byte.
                    if let Some(rest) = bytes.strip_prefix(left) {
                        *bytes = rest;
                        let is_field = left.ends_with(b":");
                        self.state = if is_field { State::Space } else { State::Start { first: false } };
                        return Some(if is_field { Token::DataLine } else { Token::End });
                    }
                    self.state = match left.split_first() {
                        Some((&expected, left)) if expected == byte => State::Word { left },
                        _ => State::Ignore,
                    };
                    *bytes = rest;
                }
                State::Space => {
                    self.state = State::Data;
                    if byte == b' ' {
                        *bytes = rest;
                    }
                }
                State::Data | State::Ignore => {
                    let end = memchr::memchr2(b'\n', b'\r', bytes).unwrap_or(bytes.len());
                    let (line, rest) = bytes.split_at(end);
                    *bytes = rest;
                    if self.state == State::Data {
                        return Some(Token::Data(line));
                    }
                }
            }
        }
        None
    }
}

/// The reader of one stream.
#[derive(Debug, Default)]
pub struct Reader {
    lines: Lines,
    /// The event has had a `data` line.
    has_data: bool,
}

impl Reader {
    /// Reads the next bytes.
    pub fn feed(&mut self, mut bytes: &[u8], mut part: impl FnMut(Part<'_>)) {
        while let Some(token) = self.lines.next(&mut bytes) {
            match token {
                Token::Field => {}
                Token::DataLine => {
                    if std::mem::replace(&mut self.has_data, true) {
                        part(Part::Data(b"\n"));
                    }
                }
                Token::Data(data) => part(Part::Data(data)),
                Token::End => self.finish(&mut part),
            }
        }
    }

    /// Ends the stream, and with it an event whose blank line is missing.
    pub fn finish(&mut self, mut part: impl FnMut(Part<'_>)) {
        if std::mem::take(&mut self.has_data) {
            part(Part::End);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn read_in(pieces: &[&[u8]]) -> Vec<String> {
        let mut events = Vec::new();
        let mut data = Vec::new();
        let mut take = |part: Part<'_>| match part {
            Part::Data(piece) => data.extend_from_slice(piece),
            Part::End => events.push(String::from_utf8(std::mem::take(&mut data)).unwrap()),
        };
        let mut reader = Reader::default();
        for piece in pieces {
            reader.feed(piece, &mut take);
        }
        reader.finish(&mut take);
        events
    }

    fn read(text: &str) -> Vec<String> {
        let whole = read_in(&[text.as_bytes()]);
        for size in [1, 2, 3, 5, 7] {
            let pieces: Vec<&[u8]> = text.as_bytes().chunks(size).collect();
            assert_eq!(read_in(&pieces), whole, "in pieces of {size}");
        }
        whole
    }

    #[test]
    fn a_byte_order_mark_is_passed_over_where_a_stream_begins_and_nowhere_else() {
        for (text, events) in [
            (&b"\xef\xbb\xbfdata: a\n\ndata: b\n\n"[..], vec!["a", "b"]),
            (b"\xef\xbb\xbf\ndata: a\n\n", vec!["a"]),
            (b"\xef\xbb\xbf\xef\xbb\xbfdata: a\n\ndata: b\n\n", vec!["b"]),
            (b"\xef\xbbdata: a\n\ndata: b\n\n", vec!["b"]),
            (b"\xef\ndata: a\n\n", vec!["a"]),
            (b"\n\xef\xbb\xbfdata: a\n\ndata: b\n\n", vec!["b"]),
            (b":\n\xef\xbb\xbfdata: a\n\ndata: b\n\n", vec!["b"]),
        ] {
            for size in [1, 2, 3, text.len()] {
                let pieces: Vec<&[u8]> = text.chunks(size).collect();
                assert_eq!(read_in(&pieces), events, "{} in pieces of {size}", text.escape_ascii());
            }
        }
    }

    #[test]
    fn every_line_ending_and_layout_gives_the_same_events() {
        for (text, events) in [
            ("data: a\n\ndata: b\n\n", vec!["a", "b"]),
            ("data: a\r\n\r\ndata: b\r\n\r\n", vec!["a", "b"]),
            ("data: a\r\rdata: b\r\r", vec!["a", "b"]),
            ("data:a\n\n", vec!["a"]),
            ("data:  a\n\n", vec![" a"]),
            ("\u{feff}data: a\n\n", vec!["a"]),
            ("\n\n\ndata: a\n\n\n\n", vec!["a"]),
            (": OPENROUTER PROCESSING\n\ndata: a\n\n", vec!["a"]),
            ("event: x\nid: 1\nretry: 10\ndata: a\n\n", vec!["a"]),
            ("data: a\ndata: b\n\n", vec!["a\nb"]),
            ("data\ndata: b\n\n", vec!["\nb"]),
            ("data\n\n", vec![""]),
            ("datax: a\n\n", vec![]),
            ("dat: a\n\n", vec![]),
            ("event: x\n\n", vec![]),
            ("data: a", vec!["a"]),
            ("data: a\n", vec!["a"]),
            ("data: a\n\ndata: [DONE]", vec!["a", "[DONE]"]),
            ("", vec![]),
        ] {
            assert_eq!(read(text), events, "{text:?}");
        }
    }
}
