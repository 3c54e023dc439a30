//! Form fields of a `multipart/form-data` request, read as it passes: files in it are passed over.
//! Format: RFC 7578.

/// The longest line that is looked at, in bytes; a longer one is part of a file.
const MAX_LINE_BYTES: usize = 1024;

/// Reads the fields of one form.
#[derive(Debug)]
pub struct Reader {
    delimiter: Vec<u8>,
    line: Vec<u8>,
    part: Part,
}

#[derive(Debug, PartialEq, Eq)]
enum Part {
    /// Before the first delimiter, or in a part nobody wants.
    Passing,
    /// In a part's headers; the field's name once it is known.
    Headers { name: Option<String> },
    /// At the first line of a field's value.
    Value { name: String },
}

impl Reader {
    /// A reader for a body of this `content-type`; `None` where that is no form with a boundary.
    pub fn new(content_type: &[u8]) -> Option<Reader> {
        let content_type = str::from_utf8(content_type).ok()?;
        let (kind, parameters) = content_type.split_once(';')?;
        if !kind.trim().eq_ignore_ascii_case("multipart/form-data") {
            return None;
        }
        let boundary = parameters.split(';').find_map(|parameter| {
            let (name, value) = parameter.split_once('=')?;
            name.trim().eq_ignore_ascii_case("boundary").then(|| value.trim().trim_matches('"'))
        })?;
        // RFC 2046 allows 70 characters.
        let boundary = Some(boundary).filter(|boundary| boundary.len() <= 70)?;
        let delimiter = format!("--{boundary}").into_bytes();
        Some(Reader { delimiter, line: Vec::new(), part: Part::Passing })
    }

    /// Reads the next bytes; `field` gets the name and the first line of each field without a file name.
    pub fn feed(&mut self, bytes: &[u8], mut field: impl FnMut(&str, &str)) {
        let mut lines = bytes.split(|&b| b == b'\n');
        self.append(lines.next().unwrap_or_default());
        for next in lines {
            self.end_line(&mut field);
            self.append(next);
        }
    }

    fn append(&mut self, bytes: &[u8]) {
        // One byte too many is kept, so that a line that was cut is known to be long.
        let room = (MAX_LINE_BYTES + 1).saturating_sub(self.line.len());
        self.line.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
    }

    fn end_line(&mut self, field: &mut impl FnMut(&str, &str)) {
        let line = std::mem::take(&mut self.line);
        if line.len() > MAX_LINE_BYTES {
            return;
        }
        let text = line.strip_suffix(b"\r").unwrap_or(&line);
        if text.starts_with(&self.delimiter) {
            self.part = Part::Headers { name: None };
            return;
        }
        self.part = match std::mem::replace(&mut self.part, Part::Passing) {
            Part::Headers { name: Some(name) } if text.is_empty() => Part::Value { name },
            Part::Headers { name: None } if text.is_empty() => Part::Passing,
            Part::Headers { name } => Part::Headers { name: field_name(text).or(name) },
            Part::Value { name } => {
                if let Ok(value) = str::from_utf8(text) {
                    field(&name, value);
                }
                Part::Passing
            }
            Part::Passing => Part::Passing,
        };
    }
}

/// The name in a `content-disposition` of a field that is no file.
fn field_name(header: &[u8]) -> Option<String> {
    let header = str::from_utf8(header).ok()?;
    let (key, value) = header.split_once(':')?;
    if !key.trim().eq_ignore_ascii_case("content-disposition") || value.contains("filename") {
        return None;
    }
    let name = value.split(';').find_map(|parameter| parameter.trim().strip_prefix("name="))?;
    Some(name.trim_matches('"').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn fields_are_found_around_files_at_every_split() {
        let mut body = b"--xyz\r\nContent-Disposition: form-data; name=\"file\"; filename=\"model\"\r\n\r\n".to_vec();
        body.extend([0, 255, b'\n', b'-', b'-', b'x'].repeat(3000));
        body.extend(b"\r\n--xyz\r\ncontent-disposition: form-data; name=\"model\"\r\nX-Other: 1\r\n\r\nwhisper-1\r\n");
        body.extend(b"--xyz\r\nContent-Disposition: form-data; name=language\r\n\r\nde\r\n--xyz--\r\n");
        for size in [1, 5, 7, 100_000] {
            let mut fields = Vec::new();
            let mut reader = Reader::new(b"multipart/form-data; charset=x; boundary=\"xyz\"").unwrap();
            for piece in body.chunks(size) {
                reader.feed(piece, |name, value| fields.push(format!("{name}={value}")));
            }
            assert_eq!(fields, ["model=whisper-1", "language=de"], "in pieces of {size}");
        }
    }

    #[test]
    fn only_a_form_with_a_boundary_is_read() {
        for content_type in
            ["application/json", "multipart/form-data", "multipart/form-data; x=y", "multipart/mixed; boundary=a"]
        {
            assert!(Reader::new(content_type.as_bytes()).is_none(), "{content_type}");
        }
    }
}
