//! Headers as the core sees them, and the few header values it has to understand.

/// The headers of one message: names in lower case, values as raw bytes, in the order of the wire.
#[derive(Clone, Debug, Default)]
pub struct Headers<'a> {
    pairs: Vec<(&'a [u8], &'a [u8])>,
    /// The [`mark`]s of all names: most names that are asked for are not there, and need no search.
    marks: u64,
}

/// One bit for a name; few others have the same one.
fn mark(name: &[u8]) -> u64 {
    let first = name.first().copied().unwrap_or_default();
    1 << ((usize::from(first) ^ name.len()) % 64)
}

impl<'a> FromIterator<(&'a [u8], &'a [u8])> for Headers<'a> {
    fn from_iter<T: IntoIterator<Item = (&'a [u8], &'a [u8])>>(pairs: T) -> Headers<'a> {
        // Requests have about twenty; growing to that by doubling would copy them four times.
        let mut own = Vec::with_capacity(32);
        own.extend(pairs);
        let marks = own.iter().fold(0, |marks, (name, _)| marks | mark(name));
        Headers { pairs: own, marks }
    }
}

/// The headers that carry a key as it is; `authorization` carries one behind `Bearer`. The last is that of Azure's API
/// management and AI services.
pub const KEY_HEADERS: [&str; 4] = ["x-api-key", "api-key", "x-goog-api-key", "ocp-apim-subscription-key"];

impl<'a> Headers<'a> {
    /// Every name and value.
    pub fn iter(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        self.pairs.iter().copied()
    }

    /// The first value of `name`.
    pub fn get(&self, name: &str) -> Option<&'a [u8]> {
        if self.marks & mark(name.as_bytes()) == 0 {
            return None;
        }
        self.iter().find(|(own, _)| *own == name.as_bytes()).map(|(_, value)| value)
    }

    /// The first value of `name`, where it is not empty and UTF-8 of at most `max_bytes`.
    pub fn text(&self, name: &str, max_bytes: usize) -> Option<&'a str> {
        let value = self.get(name).filter(|value| !value.is_empty() && value.len() <= max_bytes)?;
        str::from_utf8(value).ok()
    }

    /// The first value of `name` as a number.
    pub fn number<N: std::str::FromStr>(&self, name: &str) -> Option<N> {
        self.text(name, 32)?.parse().ok()
    }

    /// The headers that an AWS Signature Version 4 in `authorization` or in the query covers: changing one breaks the
    /// request.
    pub fn signed(&self) -> SignedHeaders<'a> {
        let list = self.get("authorization").and_then(|value| {
            let value = str::from_utf8(value).ok()?.strip_prefix("AWS4-")?;
            let (_, list) = value.split_once("SignedHeaders=")?;
            list.split([',', ' ']).next()
        });
        SignedHeaders { list: list.or_else(|| self.signed_in_query()) }
    }

    /// The list of headers of a signature in the query, as it stands there. A request that shows another credential has
    /// none: what anybody can add to a query must not keep headers from being taken off.
    fn signed_in_query(&self) -> Option<&'a str> {
        let (_, query) = str::from_utf8(self.get(":path")?).ok()?.split_once('?')?;
        let parameter = |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
        let list = parameter("X-Amz-SignedHeaders")?;
        let is_whole = parameter("X-Amz-Algorithm").is_some_and(|value| value.starts_with("AWS4-"))
            && ["X-Amz-Credential", "X-Amz-Signature"].into_iter().all(|name| parameter(name).is_some());
        let is_alone = ["authorization"].into_iter().chain(KEY_HEADERS).all(|name| self.get(name).is_none());
        (is_whole && is_alone).then_some(list)
    }
}

impl Headers<'_> {
    /// Whether an AWS signature covers the request.
    pub fn are_signed(&self) -> bool {
        self.have_aws_signature() || self.get("x-amz-content-sha256").is_some()
    }

    fn have_aws_signature(&self) -> bool {
        let in_header = self.get("authorization").is_some_and(|value| value.starts_with(b"AWS4-"));
        in_header || self.signed_in_query().is_some()
    }

    /// Whether a signature or digest covers the body, so that it must stay as it is: an AWS signature always does.
    pub fn fix_body(&self) -> bool {
        const FIXING: [&str; 6] =
            ["x-amz-content-sha256", "content-md5", "digest", "content-digest", "signature", "signature-input"];
        self.have_aws_signature() || FIXING.into_iter().any(|name| self.get(name).is_some())
    }
}

impl Headers<'_> {
    /// Whether the request is to become a WebSocket.
    pub fn upgrade_to_websocket(&self) -> bool {
        let asks = |name| self.get(name).is_some_and(|value| value.eq_ignore_ascii_case(b"websocket"));
        asks("upgrade") || asks(":protocol")
    }
}

/// See [`Headers::signed`].
#[derive(Clone, Copy, Debug)]
pub struct SignedHeaders<'a> {
    list: Option<&'a str>,
}

impl SignedHeaders<'_> {
    /// Whether the signature covers the header `name`.
    pub fn contain(&self, name: &[u8]) -> bool {
        // Nearly always there is no list, and then nothing to be put together.
        self.list.is_some_and(|list| {
            let mut names = list.split(';').flat_map(|list| list.split("%3B")).flat_map(|list| list.split("%3b"));
            names.any(|signed| signed.as_bytes().eq_ignore_ascii_case(name))
        })
    }
}

/// The ids of a W3C `traceparent`: trace and parent span; `None` where it is malformed or all zero.
/// <https://www.w3.org/TR/trace-context/#traceparent-header>
pub fn trace_parent(value: &str) -> Option<(&str, &str)> {
    let mut parts = value.trim().split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let hex = |text: &str, len: usize| {
        text.len() == len && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    let zero = |text: &str| text.bytes().all(|b| b == b'0');
    let shaped = hex(version, 2) && version != "ff" && hex(trace, 32) && hex(span, 16) && hex(flags, 2);
    let ended = version != "00" || parts.next().is_none();
    (shaped && ended && !zero(trace) && !zero(span)).then_some((trace, span))
}

/// An `accept-encoding` value cut down to what the filter can read; `None` where nothing needs to change.
///
/// The client's preferences among gzip, deflate and identity stay; a client that accepts nothing of them gets
/// `identity`, which every server may send.
pub fn narrow_accept_encoding(value: &[u8]) -> Option<String> {
    let value = String::from_utf8_lossy(value);
    let name = |item: &str| item.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let readable = |item: &&str| matches!(name(item).as_str(), "gzip" | "x-gzip" | "deflate" | "identity");
    let items: Vec<&str> = value.split(',').map(str::trim).filter(|item| !item.is_empty()).collect();
    let kept: Vec<&str> = items.iter().copied().filter(readable).collect();
    if kept.len() == items.len() {
        return None;
    }
    Some(if kept.is_empty() { "identity".into() } else { kept.join(", ") })
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn headers_covered_by_an_aws_signature_are_known() {
        let authorization = b"AWS4-HMAC-SHA256 Credential=AK/20261121/eu/bedrock/aws4_request, \
            SignedHeaders=content-type;host;x-cost-team, Signature=abc";
        let headers: Headers<'_> = [(&b"authorization"[..], &authorization[..])].into_iter().collect();
        let signed = headers.signed();
        assert!(signed.contain(b"x-cost-team") && signed.contain(b"host"));
        assert!(!signed.contain(b"x-cost-feature") && !signed.contain(b"cost-team"));
        let query = "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AK%2F20261121&X-Amz-Signature=abc";
        for list in ["host%3Bx-cost-team", "host;x-cost-team", "host%3bx-cost-team"] {
            let path = format!("/model/m/converse?{query}&X-Amz-SignedHeaders={list}");
            let headers: Headers<'_> = [(&b":path"[..], path.as_bytes())].into_iter().collect();
            let signed = headers.signed();
            assert!(signed.contain(b"x-cost-team") && signed.contain(b"host") && !signed.contain(b"x-cost-feature"));
            assert!(headers.are_signed() && headers.fix_body(), "{list}");
        }
        // What is no whole signature, or stands beside another credential, keeps nothing from being taken off.
        let list = "X-Amz-SignedHeaders=x-cost-team";
        for (path, more) in [
            ("/v1/chat/completions?key=SignedHeaders".to_owned(), None),
            (format!("/v1/chat/completions?{list}"), None),
            (format!("/x?{list}&X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=a"), None),
            (format!("/x?{query}&{list}"), Some("authorization")),
            (format!("/x?{query}&{list}"), Some("x-api-key")),
            (format!("/x?{query}&{list}"), Some("api-key")),
            (format!("/x?{query}&{list}"), Some("x-goog-api-key")),
        ] {
            let more = more.map(|name| (name.as_bytes(), &b"Bearer sk-1"[..]));
            let headers: Headers<'_> = [(&b":path"[..], path.as_bytes())].into_iter().chain(more).collect();
            assert!(!headers.are_signed() && !headers.fix_body(), "{path} {more:?}");
            assert!(!headers.signed().contain(b"x-cost-team"), "{path} {more:?}");
        }
        let bearer: Headers<'_> = [(&b"authorization"[..], &b"Bearer SignedHeaders=host"[..])].into_iter().collect();
        assert!(!bearer.signed().contain(b"host"));
    }

    #[test]
    fn a_header_is_found_beside_others_with_its_mark() {
        let names = ["host", "odd", "accept", "x-cost-team", ""];
        assert_eq!(mark(b"host"), mark(b"odd"));
        for present in names {
            let headers: Headers<'_> = [(present.as_bytes(), &b"v"[..])].into_iter().collect();
            for name in names {
                assert_eq!(headers.get(name).is_some(), name == present, "{name} in {present}");
            }
        }
        assert_eq!(Headers::default().get("host"), None);
    }

    #[test]
    fn a_traceparent_is_read_strictly() {
        let (trace, span) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
        for (value, ids) in [
            (format!("00-{trace}-{span}-01"), Some((trace, span))),
            (format!("cc-{trace}-{span}-01-what-the-future"), Some((trace, span))),
            (format!("00-{trace}-{span}-01-more"), None),
            (format!("ff-{trace}-{span}-01"), None),
            (format!("00-{}-{span}-01", trace.to_uppercase()), None),
            (format!("00-{}-{span}-01", "0".repeat(32)), None),
            (format!("00-{trace}-{}-01", "0".repeat(16)), None),
            (format!("00-{trace}"), None),
            (String::new(), None),
        ] {
            assert_eq!(trace_parent(&value), ids, "{value}");
        }
    }

    #[test]
    fn accept_encoding_keeps_what_can_be_read() {
        for (value, narrowed) in [
            ("gzip", None),
            ("gzip, deflate", None),
            ("", None),
            ("gzip, deflate, br, zstd", Some("gzip, deflate")),
            ("br;q=1.0, gzip;q=0.8, *;q=0.1", Some("gzip;q=0.8")),
            ("br", Some("identity")),
            ("*", Some("identity")),
            ("GZIP", None),
        ] {
            assert_eq!(narrow_accept_encoding(value.as_bytes()).as_deref(), narrowed, "{value}");
        }
    }
}
