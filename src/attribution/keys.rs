//! API keys: which one a caller presents, and what the configuration ties to it.
//!
//! A key is only ever looked at through its SHA-256. Of several that are presented the first one that locks something
//! counts, else the first that the configuration knows, so that another key beside the real one does not shake off what is
//! tied to that. Nor does showing the real one in a way that only some servers know: there, a known key is found too, and
//! what is no known key leaves no trace, for it may be a person's password.

use super::rules::Slot;
use crate::http::{Headers, KEY_HEADERS};
use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use percent_encoding::percent_decode;
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::rc::Rc;

/// Keys that are looked at in one header, or in the query, besides the last one: more are no honest mistake, and each
/// costs a hash. Servers take the first of several, or the last.
const MAX_KEYS: usize = 16;

/// What browsers, which cannot set headers on a WebSocket, put before a key for OpenAI.
const KEY_PROTOCOL: &[u8] = b"openai-insecure-api-key.";

/// Base64 as lenient servers read it, however it ends.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

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

/// What there is to say of a key; of several the highest counts, and of the same the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Standing {
    /// It is not there.
    None,
    Unknown,
    Known,
    /// Its entry locks a dimension.
    Locking,
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
                    let is_signature = value.starts_with(b"AWS4-");
                    ends_of(value.split(|&byte| byte == b','), |one| match bearer(one) {
                        Some(key) => self.look_at(key, &mut first),
                        None if is_signature => {}
                        None => self.look_into(one, &mut first),
                    });
                }
                b":path" if in_query || !self.list.is_empty() => {
                    ends_of(query_keys(value), |(is_plain, key)| match is_plain {
                        true if in_query => self.look_at(&key, &mut first),
                        true => {}
                        false => self.look_for(&key, &mut first),
                    });
                }
                b"sec-websocket-protocol" => {
                    let protocols = value.split(|&byte| byte == b',');
                    let keys = protocols.filter_map(|one| one.trim_ascii().strip_prefix(KEY_PROTOCOL));
                    ends_of(keys, |key| self.look_for(key, &mut first));
                }
                _ if KEY_HEADERS.iter().any(|own| own.as_bytes() == name) => self.look_at(value, &mut first),
                _ => continue,
            }
            if self.standing(first.as_ref()) == Standing::Locking {
                break;
            }
        }
        let Some(hash) = first else { return Presented::default() };
        let key = self.list.get(&hash);
        let shown = key.and_then(|key| key.name.clone()).unwrap_or_else(|| beginning(&hash));
        Presented { shown: Some(shown), known: key.map(|_| hash) }
    }

    /// Makes `value` the key that counts, if it stands higher than the one that did.
    fn look_at(&self, value: &[u8], first: &mut Option<KeyHash>) {
        self.look_above(Standing::None, value, first);
    }

    /// The same, but only if it is known.
    fn look_for(&self, value: &[u8], first: &mut Option<KeyHash>) {
        self.look_above(Standing::Unknown, value, first);
    }

    fn look_above(&self, least: Standing, value: &[u8], first: &mut Option<KeyHash>) {
        let value = value.trim_ascii();
        let held = self.standing(first.as_ref()).max(least);
        let highest = if self.list.is_empty() { Standing::Unknown } else { Standing::Locking };
        if held < highest && is_key(value) {
            let hash: KeyHash = Sha256::digest(value).into();
            if self.standing(Some(&hash)) > held {
                *first = Some(hash);
            }
        }
    }

    fn standing(&self, hash: Option<&KeyHash>) -> Standing {
        match hash.map(|hash| self.list.get(hash)) {
            None => Standing::None,
            Some(None) => Standing::Unknown,
            Some(Some(key)) if key.set.iter().any(|(.., locked)| *locked) => Standing::Locking,
            Some(Some(_)) => Standing::Known,
        }
    }

    /// Looks for a known key in an `authorization` of another scheme than Bearer: behind any, without one, or in the name
    /// or the password of Basic, which OpenAI takes keys in.
    fn look_into(&self, authorization: &[u8], first: &mut Option<KeyHash>) {
        if self.list.is_empty() {
            return;
        }
        let authorization = authorization.trim_ascii();
        let end = authorization.iter().position(u8::is_ascii_whitespace).unwrap_or(0);
        let Some((scheme, credentials)) = authorization.split_at_checked(end) else { return };
        self.look_for(credentials, first);
        if scheme.eq_ignore_ascii_case(b"basic") {
            let mut decoded = vec![0; credentials.len()];
            let length = LENIENT.decode_slice(credentials.trim_ascii(), &mut decoded).unwrap_or(0);
            let pair = decoded.get(..length).unwrap_or_default();
            pair.splitn(2, |&byte| byte == b':').for_each(|half| self.look_for(half, first));
        }
    }
}

/// Shows the first of many, and the last.
fn ends_of<T>(mut all: impl Iterator<Item = T>, mut show: impl FnMut(T)) {
    all.by_ref().take(MAX_KEYS).for_each(&mut show);
    all.last().into_iter().for_each(show);
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

/// Every key in a path's query: the `key` or `$key` of Google's APIs, which may be anything in another's (`true`), the
/// `api-key` of Azure's WebSockets and the `subscription-key` of its API management.
fn query_keys(path: &[u8]) -> impl Iterator<Item = (bool, Cow<'_, [u8]>)> {
    let query = path.iter().position(|&byte| byte == b'?').and_then(|at| path.get(at + 1..)).unwrap_or_default();
    query.split(|&byte| byte == b'&').filter_map(|pair| {
        let at = pair.iter().position(|&byte| byte == b'=')?;
        let (name, value) = pair.split_at_checked(at)?;
        let name: Cow<'_, [u8]> = percent_decode(name).into();
        let is_plain = matches!(&*name, b"key" | b"$key");
        let is_one = is_plain || matches!(&*name, b"api-key" | b"subscription-key");
        is_one.then(|| (is_plain, percent_decode(value.get(1..).unwrap_or_default()).into()))
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
        let key = |name: &str, set: &[bool]| Key {
            name: Some(name.into()),
            set: set.iter().map(|&locked| (0, "x".into(), locked)).collect(),
        };
        let list =
            [("sk-known", "bot", &[][..]), ("sk-other", "other", &[false]), ("sk-locked", "locked", &[false, true])];
        Keys { list: list.map(|(secret, name, set)| (Sha256::digest(secret).into(), key(name, set))).into() }
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
            // What one key locks, another that locks nothing does not open.
            (&[("x-api-key", "sk-known"), ("authorization", "Bearer sk-locked")], Some("locked")),
            (&[("authorization", "Bearer sk-locked"), ("x-api-key", "sk-known")], Some("locked")),
            // Envoy joins the values of a repeated `authorization`.
            (&[("authorization", "Bearer sk-unknown,Bearer sk-known")], Some("bot")),
            (&[("authorization", "Bearer sk-known, Bearer sk-unknown")], Some("bot")),
            (&[("authorization", "Basic c2s=, bearer sk-known")], Some("bot")),
            // OpenAI takes one as a password; printf %s :sk-known | base64
            (&[("authorization", "Basic OnNrLWtub3du")], Some("bot")),
            (&[("authorization", "basic  OnNrLWtub3du ")], Some("bot")),
            (&[("authorization", "Basic c2sta25vd24=")], Some("bot")),
            (&[("authorization", "Basic c2sta25vd246")], Some("bot")),
            (&[("authorization", "Basic OnNrLXVua25vd24=, Basic OnNrLWtub3du")], Some("bot")),
            (&[("x-api-key", "sk-unknown"), ("authorization", "Basic OnNrLWtub3du")], Some("bot")),
            // Some servers take one without a scheme, or behind another.
            (&[("authorization", "sk-known")], Some("bot")),
            (&[("authorization", "Token sk-known")], Some("bot")),
            (&[("ocp-apim-subscription-key", "sk-known")], Some("bot")),
            // As browsers open a WebSocket to OpenAI and to Azure.
            (
                &[("sec-websocket-protocol", "realtime, openai-insecure-api-key.sk-known, openai-beta.realtime-v1")],
                Some("bot"),
            ),
            (&[(":path", "/openai/realtime?deployment=d&api-key=sk-known")], Some("bot")),
            (&[(":path", "/openai/deployments/d/chat/completions?subscription-key=sk-known")], Some("bot")),
            (&[(":path", "/v1beta/models/m:generateContent?$key=sk-known")], Some("bot")),
            (&[(":path", "/v1beta/models/m:generateContent?%24key=sk-known")], Some("bot")),
            // What may be anybody's password leaves no hash.
            (&[("authorization", "Basic OnNrLXVua25vd24=")], None),
            (&[("authorization", "sk-unknown")], None),
            (&[("sec-websocket-protocol", "openai-insecure-api-key.sk-unknown")], None),
            (&[(":path", "/openai/realtime?api-key=sk-unknown")], None),
            (&[("authorization", jwt)], None),
            (&[("authorization", "Bearer ya29.a0AfH6SM")], None),
            (&[("authorization", "AWS4-HMAC-SHA256 Credential=AK/x, SignedHeaders=host, Signature=0")], None),
            (&[("authorization", "Bearer ")], None),
            (&[("x-api-key", "")], None),
            (&[], None),
        ] {
            assert_eq!(shown(headers).as_deref(), name, "{headers:?}");
        }
    }

    #[test]
    fn a_key_in_the_query_counts_only_where_the_api_takes_it_there() {
        for (path, name) in
            [("/v1/chat/completions?key=sk-known", None), ("/v1/realtime?api-key=sk-known", Some("bot"))]
        {
            let headers = [(&b":path"[..], path.as_bytes())].into_iter().collect();
            assert_eq!(known().find(&headers, false).shown.as_deref(), name, "{path}");
        }
    }

    #[test]
    fn made_up_keys_before_the_real_one_do_not_hide_it_however_many_there_are() {
        let many = |one: &str| one.repeat(40);
        for (name, value) in [
            (":path", format!("/x?{}key=sk-known", many("key=a&"))),
            ("authorization", format!("{}Bearer sk-known", many("Bearer a,"))),
            ("sec-websocket-protocol", many("openai-insecure-api-key.a,") + "openai-insecure-api-key.sk-known"),
        ] {
            assert_eq!(shown(&[(name, &value)]).as_deref(), Some("bot"), "{name}");
        }
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
