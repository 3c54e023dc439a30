//! API keys: which one a caller presents, and what the configuration ties to it.
//!
//! A key is only ever looked at through its SHA-256. Of several that are presented the first one that the configuration
//! knows counts, so that a made-up key beside the real one does not shake off what is tied to that.

use super::rules::Slot;
use crate::http::{Headers, KEY_HEADERS};
use percent_encoding::percent_decode;
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::rc::Rc;

/// Keys that one header, or the query, may have: more are no honest mistake, and each costs a hash.
const MAX_KEYS: usize = 16;

/// Hex digits of the hash that stand for a key nobody gave a name.
const SHOWN_DIGITS: usize = 12;

/// The SHA-256 of a key.
pub type KeyHash = [u8; 32];

/// What the configuration ties to a key.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) name: Option<Box<str>>,
    /// Values, and whether the caller cannot override them.
    pub(super) set: Vec<(Slot, Rc<str>, bool)>,
}

/// The keys of a configuration.
#[derive(Debug, Default)]
pub(super) struct Keys {
    pub(super) list: BTreeMap<KeyHash, Key>,
}

/// The key a caller presents.
#[derive(Debug, Default)]
pub(super) struct Presented {
    /// Its name, or the beginning of its hash.
    pub(super) shown: Option<Box<str>>,
    /// Its hash, where the configuration knows it.
    pub(super) known: Option<KeyHash>,
}

impl Keys {
    pub(super) fn get(&self, hash: Option<KeyHash>) -> Option<&Key> {
        self.list.get(&hash?)
    }

    /// The key in `headers`; `in_query` is whether the API takes one in the query, too.
    pub(super) fn find(&self, headers: &Headers<'_>, in_query: bool) -> Presented {
        let mut first = None;
        for (name, value) in headers.iter() {
            match name {
                // Envoy joins the values of a repeated one to a list; no key has a comma.
                b"authorization" => {
                    for one in value.split(|&byte| byte == b',').take(MAX_KEYS) {
                        self.look_at(bearer(one), &mut first);
                    }
                }
                b":path" if in_query => {
                    query_keys(value).take(MAX_KEYS).for_each(|key| self.look_at(Some(&key), &mut first));
                }
                _ if KEY_HEADERS.iter().any(|own| own.as_bytes() == name) => self.look_at(Some(value), &mut first),
                _ => continue,
            }
            if first.is_some_and(|hash| self.list.contains_key(&hash)) {
                break;
            }
        }
        let Some(hash) = first else { return Presented::default() };
        let key = self.list.get(&hash);
        let shown = key.and_then(|key| key.name.clone()).unwrap_or_else(|| beginning(&hash));
        Presented { shown: Some(shown), known: key.map(|_| hash) }
    }

    /// Makes `value` the key that counts, if it is the first one or the first that is known.
    fn look_at(&self, value: Option<&[u8]>, first: &mut Option<KeyHash>) {
        let Some(value) = value.map(<[u8]>::trim_ascii).filter(|value| is_key(value)) else { return };
        let settled = first.is_some_and(|hash| self.list.contains_key(&hash));
        if settled || (first.is_some() && self.list.is_empty()) {
            return;
        }
        let hash: KeyHash = Sha256::digest(value).into();
        if first.is_none() || self.list.contains_key(&hash) {
            *first = Some(hash);
        }
    }
}

fn beginning(hash: &KeyHash) -> Box<str> {
    let mut digits: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    digits.truncate(SHOWN_DIGITS);
    digits.into()
}

/// The credentials of the scheme Bearer.
fn bearer(authorization: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = authorization.trim_ascii().split_at_checked(7)?;
    (scheme.eq_ignore_ascii_case(b"bearer ") || scheme.eq_ignore_ascii_case(b"bearer\t")).then_some(token)
}

/// Every `key=` of a path's query; Gemini takes its key there.
fn query_keys(path: &[u8]) -> impl Iterator<Item = Cow<'_, [u8]>> {
    let query = path.iter().position(|&byte| byte == b'?').and_then(|at| path.get(at + 1..)).unwrap_or_default();
    query.split(|&byte| byte == b'&').filter_map(|pair| {
        let at = pair.iter().position(|&byte| byte == b'=')?;
        let (name, value) = pair.split_at_checked(at)?;
        let name: Cow<'_, [u8]> = percent_decode(name).into();
        (*name == *b"key").then(|| percent_decode(value.get(1..).unwrap_or_default()).into())
    })
}

/// Tokens that name a person or a workload for an hour are no keys: a JWT, and Google's access tokens.
fn is_key(value: &[u8]) -> bool {
    !value.is_empty() && !is_jwt(value) && !value.starts_with(b"ya29.")
}

/// Three parts in base64url with dots between them.
fn is_jwt(value: &[u8]) -> bool {
    let base64url = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let mut parts = 0;
    for part in value.split(|&byte| byte == b'.') {
        if part.is_empty() || !part.iter().all(base64url) {
            return false;
        }
        parts += 1;
    }
    parts == 3
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn known() -> Keys {
        let key = |name: &str| Key { name: Some(name.into()), set: Vec::new() };
        let list = [("sk-known", "bot"), ("sk-other", "other")];
        Keys { list: list.map(|(secret, name)| (Sha256::digest(secret).into(), key(name))).into() }
    }

    fn shown(headers: &[(&str, &str)]) -> Option<Box<str>> {
        let headers = headers.iter().map(|&(name, value)| (name.as_bytes(), value.as_bytes())).collect();
        known().find(&headers, true).shown
    }

    #[test]
    fn a_key_is_found_wherever_a_provider_takes_one() {
        // printf %s sk-unknown | sha256sum
        const UNKNOWN: &str = "6eace09f299b";
        let jwt = "Bearer eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4In0.c2ln-_";
        for (headers, name) in [
            (&[("authorization", "Bearer sk-known")][..], Some("bot")),
            (&[("authorization", "bearer   sk-known ")], Some("bot")),
            (&[("x-api-key", "sk-known")], Some("bot")),
            (&[("api-key", " sk-known")], Some("bot")),
            (&[("x-goog-api-key", "sk-known")], Some("bot")),
            (&[(":path", "/v1beta/models/m:generateContent?alt=sse&key=sk-known")], Some("bot")),
            (&[(":path", "/v1beta/models/m:generateContent?%6bey=%73k-known")], Some("bot")),
            (&[(":path", "/v1beta/models/m:generateContent?monkey=sk-known")], None),
            (&[("authorization", "Bearer sk-unknown")], Some(UNKNOWN)),
            (&[("authorization", "Bearer sk-unknown"), ("x-api-key", "sk-known")], Some("bot")),
            (&[("x-api-key", "sk-unknown"), ("authorization", "Bearer sk-known")], Some("bot")),
            (&[("x-api-key", "sk-unknown"), ("x-api-key", "sk-known")], Some("bot")),
            (&[(":path", "/x?key=sk-unknown&key=sk-known")], Some("bot")),
            (&[("x-api-key", "sk-other"), ("api-key", "sk-known")], Some("other")),
            // Envoy joins the values of a repeated `authorization`.
            (&[("authorization", "Bearer sk-unknown,Bearer sk-known")], Some("bot")),
            (&[("authorization", "Bearer sk-known, Bearer sk-unknown")], Some("bot")),
            (&[("authorization", "Basic c2s=, bearer sk-known")], Some("bot")),
            (&[("authorization", jwt)], None),
            (&[("authorization", "Bearer ya29.a0AfH6SM")], None),
            (&[("authorization", "AWS4-HMAC-SHA256 Credential=AK/x, SignedHeaders=host, Signature=0")], None),
            (&[("authorization", "Basic c2sta25vd24=")], None),
            (&[("authorization", "Bearer ")], None),
            (&[("x-api-key", "")], None),
            (&[], None),
        ] {
            assert_eq!(shown(headers).as_deref(), name, "{headers:?}");
        }
    }

    #[test]
    fn a_key_in_the_query_counts_only_where_the_api_takes_it_there() {
        let headers = [(&b":path"[..], &b"/v1/chat/completions?key=sk-known"[..])].into_iter().collect();
        assert!(known().find(&headers, false).shown.is_none());
    }

    #[test]
    fn a_jwt_is_told_by_its_three_parts() {
        for (value, jwt) in
            [("a.b.c", true), ("a.b", false), ("a.b.c.d", false), ("a..c", false), ("a.b.c=", false), ("sk-1", false)]
        {
            assert_eq!(is_jwt(value.as_bytes()), jwt, "{value}");
        }
    }
}
