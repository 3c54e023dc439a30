//! Headers as text, the way `curl` writes and shows them.

use super::Headers;
use anyhow::bail;

/// The headers in `text`: `name: value` a line, perhaps behind curl's `> ` or `< `, perhaps under a request or status
/// line, which becomes `:method` and `:path` or `:status`. Of several blocks, as redirects leave them, it is the last.
pub(super) fn parse(text: &[u8]) -> anyhow::Result<Headers> {
    let mut headers = Headers::new();
    for (index, line) in text.split(|&byte| byte == b'\n').enumerate() {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let line = line.strip_prefix(b"> ").or(line.strip_prefix(b"< ")).unwrap_or(line);
        if matches!(line, b"" | b">" | b"<") || line.starts_with(b"* ") {
            continue;
        }
        if let Some(first) = first_line(line) {
            headers = first;
            continue;
        }
        let colon = line.iter().skip(1).position(|&byte| byte == b':');
        let parts = colon.and_then(|colon| Some((line.get(..=colon)?, line.get(colon + 2..)?)));
        match parts.and_then(|(name, value)| Some((str::from_utf8(name).ok()?, value.trim_ascii()))) {
            Some((name, value)) => headers.push((name.trim().to_ascii_lowercase(), value.to_vec())),
            None => bail!("line {}: expected `name: value`, got {:?}", index + 1, String::from_utf8_lossy(line)),
        }
    }
    Ok(headers)
}

/// `POST /v1/messages HTTP/1.1` or `HTTP/2 200`.
fn first_line(line: &[u8]) -> Option<Headers> {
    let words: Vec<&str> = str::from_utf8(line).ok()?.split_ascii_whitespace().collect();
    let pseudo = |name: &str, value: &str| (name.to_owned(), value.as_bytes().to_vec());
    match words.as_slice() {
        [version, status, ..] if version.starts_with("HTTP/") => Some(vec![pseudo(":status", status)]),
        [method, path, version] if version.starts_with("HTTP/") => {
            Some(vec![pseudo(":method", method), pseudo(":path", path)])
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        match parse(text.as_bytes()) {
            Ok(headers) => {
                let lines = headers.iter().map(|(name, value)| format!("{name}={}", String::from_utf8_lossy(value)));
                lines.collect::<Vec<_>>().join(" ")
            }
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn headers_are_read_as_curl_writes_them() {
        for (text, headers) in [
            ("", ""),
            ("X-Cost-Team: search\nA:b", "x-cost-team=search a=b"),
            ("POST /v1/messages HTTP/1.1\r\nHost: a\r\n\r\n", ":method=POST :path=/v1/messages host=a"),
            ("> POST /x HTTP/2\n> host: a:80\n>\n* Connected to a\n", ":method=POST :path=/x host=a:80"),
            ("HTTP/1.1 100 Continue\n\nHTTP/2 200 \nct: json\n", ":status=200 ct=json"),
            (":path: /x\n:method: POST", ":path=/x :method=POST"),
            ("empty:", "empty="),
            ("a: b\nno colon here", "line 2: expected `name: value`, got \"no colon here\""),
        ] {
            assert_eq!(shown(text), headers, "{text:?}");
        }
    }

    #[test]
    fn a_value_that_is_not_utf8_stays_as_it_is() {
        assert_eq!(parse(b"x-cost-team: \xff\xfe").unwrap(), [("x-cost-team".to_owned(), vec![0xff, 0xfe])]);
    }
}
