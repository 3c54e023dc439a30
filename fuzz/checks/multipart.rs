//! Any form is read alike however it is cut; fields between files read back.

use super::input::Input;
use tollgate::body::multipart::Reader;

pub(crate) fn check(data: &[u8]) {
    let mut input = Input::new(data);
    let cuts = input.cuts();
    let variant = input.byte();
    let body = input.rest();

    // The first line is the content-type where the variant says so.
    let (content_type, form) = match body.iter().position(|&byte| byte == b'\n') {
        Some(end) if variant & 1 != 0 => (&body[..end], &body[end + 1..]),
        _ => (&b"multipart/form-data; boundary=xyz"[..], body),
    };
    if Reader::new(content_type).is_some() {
        cuts.alike(form, |pieces| read(content_type, pieces));
    }

    // A form made of the bytes: lines that are fields in turn with lines that are files.
    let (mut form, mut expected) = (Vec::new(), Vec::new());
    for (at, line) in body.split(|&byte| byte == b'\n').enumerate() {
        let text = String::from_utf8_lossy(&line[..line.len().min(300)]).replace('\r', "");
        if text.starts_with("--xyz") {
            continue;
        }
        form.extend(b"--xyz\r\nContent-Disposition: form-data; name=\"");
        if at % 3 == 2 {
            form.extend(b"model\"; filename=\"a.wav\"\r\nContent-Type: audio/wav\r\n\r\n");
            form.extend(line);
        } else {
            let name: String =
                text.chars().filter(|&c| !matches!(c, ';' | '"') && !c.is_whitespace()).take(8).collect();
            // A name with this word in it is taken for a file's, which nobody's is.
            let name = name.replace("filename", "");
            form.extend(format!("{name}\"\r\nX-Other: {at}\r\n\r\n{text}").as_bytes());
            expected.push(format!("{name}={text}"));
        }
        form.extend(b"\r\n");
    }
    form.extend(b"--xyz--\r\n");
    assert_eq!(cuts.alike(&form, |pieces| read(b"multipart/form-data; boundary=\"xyz\"", pieces)), expected);
}

fn read(content_type: &[u8], pieces: &[&[u8]]) -> Vec<String> {
    let mut fields = Vec::new();
    let mut reader = Reader::new(content_type).unwrap();
    for piece in pieces {
        reader.feed(piece, |name, value| fields.push(format!("{name}={value}")));
    }
    fields
}
