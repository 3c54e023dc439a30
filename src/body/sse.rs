//! Server-sent events, read as they pass and cut anywhere.
//!
//! The reader hands on the pieces of each event's data as they arrive and holds no line, so an event of several
//! megabytes (an image, a repeated transcript) needs no buffer. Lines end in LF, CRLF or CR; comments and fields
//! other than `data` are passed over. Unlike a browser it also takes an event whose final blank line never
//! came, since the last event of a stream is the one with the usage.

/// What a stream of events is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part<'a> {
    /// A piece of the event's data; lines of one event are joined by a piece that is a newline.
    Data(&'a [u8]),
    /// The event is over.
    End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// At the start of a line, or `matched` bytes into the field name `data`.
    Name {
        matched: u8,
    },
    /// After `data:`, where one space is dropped.
    Space,
    Data,
    /// A field nobody needs, or a comment.
    Ignore,
}

/// The reader of one stream.
#[derive(Debug)]
pub struct Reader {
    state: State,
    /// The last byte was a CR, so an LF belongs to it.
    after_cr: bool,
    /// The event has had a `data` line.
    has_data: bool,
    /// Bytes of a byte-order mark that may still come at the very beginning.
    mark: &'static [u8],
}

const FIELD: &[u8] = b"data";

impl Default for Reader {
    fn default() -> Reader {
        Reader { state: State::Name { matched: 0 }, after_cr: false, has_data: false, mark: b"\xef\xbb\xbf" }
    }
}

impl Reader {
    /// Reads the next bytes.
    pub fn feed(&mut self, mut bytes: &[u8], mut part: impl FnMut(Part<'_>)) {
        while let Some((&byte, rest)) = bytes.split_first() {
            if let Some((&expected, left)) = self.mark.split_first() {
                if byte == expected {
                    self.mark = left;
                    bytes = rest;
                    continue;
                }
                // Half a mark is the beginning of a field nobody needs.
                if std::mem::take(&mut self.mark).len() < 3 {
                    self.state = State::Ignore;
                }
            }
            if std::mem::take(&mut self.after_cr) && byte == b'\n' {
                bytes = rest;
                continue;
            }
            if matches!(byte, b'\n' | b'\r') {
                self.after_cr = byte == b'\r';
                self.end_line(&mut part);
                bytes = rest;
                continue;
            }
            match self.state {
                State::Name { matched } => {
                    self.state = match FIELD.get(usize::from(matched)) {
                        Some(&expected) if expected == byte => State::Name { matched: matched + 1 },
                        None if byte == b':' => {
                            self.begin_data(&mut part);
                            State::Space
                        }
                        _ => State::Ignore,
                    };
                    bytes = rest;
                }
                State::Space => {
                    self.state = State::Data;
                    if byte == b' ' {
                        bytes = rest;
                    }
                }
                State::Data | State::Ignore => {
                    let end = memchr::memchr2(b'\n', b'\r', bytes).unwrap_or(bytes.len());
                    let (line, rest) = bytes.split_at(end);
                    if self.state == State::Data {
                        part(Part::Data(line));
                    }
                    bytes = rest;
                }
            }
        }
    }

    /// Ends the stream, and with it an event whose blank line is missing.
    pub fn finish(&mut self, mut part: impl FnMut(Part<'_>)) {
        if std::mem::take(&mut self.has_data) {
            part(Part::End);
        }
    }

    fn begin_data(&mut self, part: &mut impl FnMut(Part<'_>)) {
        if std::mem::replace(&mut self.has_data, true) {
            part(Part::Data(b"\n"));
        }
    }

    fn end_line(&mut self, part: &mut impl FnMut(Part<'_>)) {
        match self.state {
            State::Name { matched: 0 } => {
                if std::mem::take(&mut self.has_data) {
                    part(Part::End);
                }
            }
            // `data` alone on a line is a data line with nothing in it.
            State::Name { matched } if usize::from(matched) == FIELD.len() => self.begin_data(part),
            State::Name { .. } | State::Space | State::Data | State::Ignore => {}
        }
        self.state = State::Name { matched: 0 };
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
