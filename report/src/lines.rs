//! Lines of large files, read one at a time, from files compressed by gzip as well.

use crate::input;
use crate::output::Progress;
use anyhow::Context;
use flate2::bufread::MultiGzDecoder;
use serde::Serialize;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// The longest line that may be a record: what one is made of is bounded.
pub(crate) const MAX_LINE_BYTES: u64 = 4 << 20;

/// The first bytes of gzip.
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// A file's lines.
pub(crate) struct Lines {
    /// How the file is called in messages.
    pub(crate) name: String,
    /// The number of the line that was read last.
    pub(crate) number: u64,
    from: Box<dyn BufRead>,
    line: Vec<u8>,
}

/// What was read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line<'a> {
    /// A whole line.
    Whole(&'a [u8]),
    /// More than [`MAX_LINE_BYTES`] without an end; they are passed over.
    TooLong,
}

/// A line that is not what it should be.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Damaged {
    /// The file's name.
    pub(crate) file: String,
    /// The line's number.
    pub(crate) line: u64,
    /// What is wrong.
    pub(crate) message: String,
}

/// Counts what is read of a file, compressed or not.
struct Counted {
    file: File,
    progress: Rc<Progress>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.file.read(buffer)?;
        self.progress.advance(u64::try_from(bytes).unwrap_or_default());
        Ok(bytes)
    }
}

/// A bar for reading all of these files. How much standard input will bring is not known.
pub(crate) fn progress<'p>(paths: impl Iterator<Item = &'p PathBuf>) -> Rc<Progress> {
    let size = |path: &PathBuf| std::fs::metadata(path).map(|metadata| metadata.len()).unwrap_or_default();
    Rc::new(Progress::new(paths.filter(|path| **path != Path::new("-")).map(size).sum(), "bytes"))
}

impl Lines {
    /// Opens a file, or standard input.
    ///
    /// # Errors
    /// The file can't be read.
    pub(crate) fn open(path: &Path, progress: &Rc<Progress>) -> anyhow::Result<Lines> {
        let name = input::name(path);
        let mut from: Box<dyn BufRead> = if path == Path::new("-") {
            Box::new(BufReader::with_capacity(1 << 16, io::stdin()))
        } else {
            let file = File::open(path).with_context(|| format!("cannot read {name}"))?;
            Box::new(BufReader::with_capacity(1 << 16, Counted { file, progress: Rc::clone(progress) }))
        };
        let compressed = from.fill_buf().with_context(|| format!("cannot read {name}"))?.starts_with(&GZIP);
        if compressed {
            from = Box::new(BufReader::with_capacity(1 << 16, MultiGzDecoder::new(from)));
        }
        Ok(Lines::of(name, from))
    }

    /// The lines of `from`.
    pub(crate) fn of(name: String, from: Box<dyn BufRead>) -> Lines {
        Lines { name, number: 0, from, line: Vec::new() }
    }

    /// What is wrong with the line that was read last.
    pub(crate) fn damaged(&self, message: String) -> Damaged {
        Damaged { file: self.name.clone(), line: self.number, message }
    }

    /// The next line that is not empty; `None` at the end.
    ///
    /// # Errors
    /// The file can't be read any further.
    pub(crate) fn next(&mut self) -> anyhow::Result<Option<Line<'_>>> {
        loop {
            self.number += 1;
            self.line.clear();
            let place = || format!("cannot read {}:{}", self.name, self.number);
            let read = self.from.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut self.line);
            let bytes = read.with_context(place)?;
            if bytes == 0 {
                return Ok(None);
            }
            let cut = u64::try_from(bytes).is_ok_and(|bytes| bytes == MAX_LINE_BYTES) && !self.line.ends_with(b"\n");
            if cut {
                self.from.skip_until(b'\n').with_context(place)?;
                return Ok(Some(Line::TooLong));
            }
            if !self.line.trim_ascii().is_empty() {
                return Ok(Some(Line::Whole(self.line.trim_ascii())));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn lines_are_numbered_from_one_and_empty_ones_passed_over() {
        let mut lines = Lines::of("x".into(), Box::new(&b"a\n\n \r\n b\r\nc"[..]));
        let mut all = Vec::new();
        while let Some(Line::Whole(line)) = lines.next().unwrap() {
            let line = String::from_utf8(line.into()).unwrap();
            all.push((lines.number, line));
        }
        assert_eq!(all, [(1, "a".into()), (4, "b".into()), (5, "c".into())]);
    }

    #[test]
    fn a_line_without_end_does_not_fill_the_memory() {
        let long = "x".repeat(usize::try_from(MAX_LINE_BYTES).unwrap() + 10) + "\n{}\n";
        let mut lines = Lines::of("x".into(), Box::new(io::Cursor::new(long.into_bytes())));
        assert_eq!(lines.next().unwrap(), Some(Line::TooLong));
        assert_eq!(lines.next().unwrap(), Some(Line::Whole(b"{}")));
        assert_eq!(lines.number, 2);
    }

    #[test]
    fn several_compressed_files_in_one_are_read_to_the_end() {
        let pack = |text: &str| {
            let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            gzip.write_all(text.as_bytes()).unwrap();
            gzip.finish().unwrap()
        };
        let path = std::env::temp_dir().join(format!("tollgate-lines-{}.gz", std::process::id()));
        std::fs::write(&path, [pack("first\n"), pack("\n"), pack("last")].concat()).unwrap();
        let mut lines = Lines::open(&path, &progress([].iter())).unwrap();
        assert_eq!(lines.next().unwrap(), Some(Line::Whole(b"first")));
        assert_eq!(lines.next().unwrap(), Some(Line::Whole(b"last")));
        assert_eq!(lines.next().unwrap(), None);
        std::fs::remove_file(path).unwrap();
    }
}
