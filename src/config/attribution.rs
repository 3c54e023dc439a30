//! The section `attribution`.

use super::node::{Node, Object};
use super::read_size;
use crate::attribution::{
    Dimension, DimensionDraft, Draft, KeyDraft, KeyHash, MAX_BODY_DEPTH, MAX_BODY_PATHS, MAX_OWN_DIMENSIONS,
    MAX_PROPERTIES, MAX_SOURCES, MAX_TAG_NAME_BYTES, Name, Pseudonym, Rules, Source, Trust, is_secret,
};
use crate::body::json::MAX_CAPTURE_BYTES;
use crate::glob::Glob;
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;

/// The shortest key that makes pseudonyms nobody can guess back.
const MIN_PSEUDONYM_KEY_BYTES: usize = 16;

/// What stands in documentation where a key belongs: nobody's key has the hash of one of these.
const NO_KEYS: [&str; 6] = ["", "test", "key", "changeme", "change me", "your-api-key"];

pub(super) fn read(node: Node<'_, '_>) -> Option<Rules> {
    let object = node.object()?;
    let default = Draft::default();
    let max_value_bytes = read_size(&object, "max_value_bytes", default.max_value_bytes, 1..=4096);
    let normalise = read_word(&object, "normalise", &["none", "lowercase_hyphen"]) == Some("lowercase_hyphen");
    let values = Values { max_bytes: max_value_bytes, normalise };
    let dimensions = object.get("dimensions").map(|node| read_dimensions(node, &values)).unwrap_or_default();
    let names = Names { own: dimensions.iter().map(|dimension| &dimension.name).collect() };
    let sources = || dimensions.iter().filter_map(|dimension| dimension.sources.as_deref()).flatten();
    if max_value_bytes > MAX_CAPTURE_BYTES && sources().any(|source| matches!(source, Source::Body(_))) {
        let why = format!("is more than the {MAX_CAPTURE_BYTES} bytes that are read of a value in the body");
        object.error_at(".max_value_bytes", &why);
    }

    let required = object.get("required").map(|list| names.list(list)).unwrap_or_default();
    let reject = read_word(&object, "on_missing", &["allow", "reject"]) == Some("reject");
    if reject && required.is_empty() {
        object.error_at(".on_missing", "reject needs at least one name in required");
    }
    let pseudonymise = object.get("pseudonymise").map(|list| names.list(list)).unwrap_or_default();
    let pseudonym = object.get("pseudonym_key").and_then(read_pseudonym_key);
    if !pseudonymise.is_empty() && object.get("pseudonym_key").is_none() {
        object.error_at(".pseudonymise", "needs a pseudonym_key");
    }
    let forward_headers = object.get("forward_headers").and_then(Node::boolean).unwrap_or(default.forward_headers);
    let trust = object.get("trust_headers").and_then(read_trust).unwrap_or_default();
    let keys = object.get("keys").map(|list| read_keys(list, &names, &values)).unwrap_or_default();
    object.finish();
    let draft = Draft {
        required,
        reject,
        normalise,
        max_value_bytes,
        pseudonymise,
        pseudonym,
        forward_headers,
        trust,
        keys,
        dimensions: dimensions.clone(),
    };
    Some(Rules::new(draft))
}

/// One of a few words.
fn read_word(object: &Object<'_, '_>, key: &'static str, words: &[&'static str]) -> Option<&'static str> {
    let node = object.get(key)?;
    let text = node.text()?;
    let word = words.iter().find(|word| **word == text).copied();
    if word.is_none() {
        node.error(format!("expected {}, got {text:?}", words.join(" or ")));
    }
    word
}

/// The dimensions that may be named: those built in and those that have an entry.
struct Names<'a> {
    own: Vec<&'a Name>,
}

impl Names<'_> {
    fn find(&self, node: &Node<'_, '_>, text: &str) -> Option<Name> {
        let name = Name::new(text);
        if matches!(name, Name::BuiltIn(_)) || self.own.contains(&&name) {
            return Some(name);
        }
        let built_in: Vec<_> = Dimension::ALL.iter().map(|dimension| dimension.name()).collect();
        node.error(format!(
            "{text:?} is no dimension: it is none of {}, and has no entry in attribution.dimensions",
            built_in.join(", ")
        ));
        None
    }

    /// A list of names, each once.
    fn list(&self, list: Node<'_, '_>) -> Vec<Name> {
        let mut seen = Vec::new();
        list.list(|node| {
            let name = self.find(&node, &node.text()?)?;
            if seen.contains(&name) {
                node.error(format!("{} is listed already", name.as_str()));
            } else {
                seen.push(name);
            }
            Some(())
        });
        seen
    }
}

fn read_dimensions(node: Node<'_, '_>, values: &Values) -> Vec<DimensionDraft> {
    let mut dimensions: Vec<DimensionDraft> = Vec::new();
    let (mut properties, mut body_paths) = (BTreeSet::new(), BTreeSet::new());
    let Some(object) = node.object() else { return dimensions };
    object.each(|name, entry| {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'-');
        if name.is_empty() || name.len() > MAX_TAG_NAME_BYTES || !name.bytes().all(plain) {
            entry.error(format!("a dimension's name has 1 to {MAX_TAG_NAME_BYTES} of a-z, 0-9, _ and -"));
        }
        let Some(object) = entry.object() else { return };
        let sources =
            object.get("from").map(|list| (list, list.list(|source| Some(read_source(source))).unwrap_or_default()));
        if let Some((list, sources)) = &sources {
            if !(1..=MAX_SOURCES).contains(&sources.len()) {
                list.error(format!("expected 1 to {MAX_SOURCES} sources"));
            }
            for (index, source) in sources.iter().enumerate() {
                if source.is_some() && sources.iter().take(index).any(|earlier| earlier == source) {
                    list.error_at(&format!("[{index}]"), "is listed already");
                }
                match source {
                    Some(Source::Property(path)) => drop(properties.insert(path.clone())),
                    Some(Source::Body(path)) => drop(body_paths.insert(path.clone())),
                    _ => {}
                }
            }
        }
        let name = Name::new(name);
        let default = object.get("default").and_then(|node| values.read_of(&name, &node));
        if sources.is_none() && object.get("default").is_none() {
            object.error("expected from, default or both");
        }
        let sources = sources.map(|(_, sources)| sources.into_iter().flatten().collect());
        dimensions.push(DimensionDraft { name, sources, default });
        object.finish();
    });
    let own = dimensions.iter().filter(|dimension| matches!(dimension.name, Name::Tag(_))).count();
    for (count, max, what) in [
        (own, MAX_OWN_DIMENSIONS, "dimensions of your own"),
        (properties.len(), MAX_PROPERTIES, "different properties"),
        (body_paths.len(), MAX_BODY_PATHS, "different places in the body"),
    ] {
        if count > max {
            node.error(format!("has {count} {what}; {max} at most"));
        }
    }
    dimensions
}

/// The values that the configuration itself gives to dimensions.
struct Values {
    max_bytes: usize,
    normalise: bool,
}

impl Values {
    /// A value of this dimension.
    fn read_of(&self, name: &Name, node: &Node<'_, '_>) -> Option<Box<str>> {
        let text = self.read(node)?;
        // A lock to it would lock nothing.
        let leaves_nothing = || text.chars().all(|c| c.is_whitespace() || matches!(c, '_' | '-'));
        if self.normalise && !name.is_id() && leaves_nothing() {
            node.error("is nothing once it is normalised");
        }
        Some(text)
    }

    /// A value that is written as it stands.
    fn read(&self, node: &Node<'_, '_>) -> Option<Box<str>> {
        let (text, max_bytes) = (node.text()?, self.max_bytes);
        if text.len() > max_bytes {
            node.error(format!("is longer than max_value_bytes, {max_bytes}"));
        }
        if text.chars().any(char::is_control) {
            node.error("must not have control characters");
        }
        Some(text.into())
    }
}

fn read_source(node: Node<'_, '_>) -> Option<Source> {
    let object = node.object()?;
    let read = [
        object.get("header").map(read_header),
        object.get("property").map(|node| read_property(node).map(Source::Property)),
        object.get("body").map(read_body_path),
        object.get("baggage").map(|node| node.text().map(|key| Source::Baggage(key.into()))),
    ];
    let mut given = read.into_iter().flatten();
    let (first, second) = (given.next(), given.next());
    if first.is_none() || second.is_some() {
        object.error("expected one of header, property, body, baggage");
    }
    object.finish();
    first.flatten()
}

fn read_header(node: Node<'_, '_>) -> Option<Source> {
    let name = node.text()?.to_ascii_lowercase();
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'+-.^_`|~".contains(&byte);
    if name.contains('*') {
        node.error("is no header name: write out each, there are no patterns here");
    } else if !name.bytes().all(token) {
        node.error("is no header name");
    }
    if is_secret(&name) {
        node.error(format!("{name} is a secret: a dimension cannot be read from it; see attribution.keys"));
    }
    Some(Source::Header(name.into()))
}

fn read_property(node: Node<'_, '_>) -> Option<Vec<Box<str>>> {
    let path = node.list(|part| {
        let text = part.text()?;
        if text.contains('\0') {
            part.error("must not have control characters");
        }
        Some(Box::<str>::from(text))
    })?;
    if path.is_empty() {
        node.error("expected a path, as [metadata, filter_metadata, envoy.filters.http.jwt_authn, payload, sub]");
    }
    match &path.iter().map(|part| &**part).collect::<Vec<_>>()[..] {
        ["request", "headers", name, ..] if is_secret(&name.to_ascii_lowercase()) => {
            node.error(format!("{name} is a secret: a dimension cannot be read from it; see attribution.keys"));
        }
        ["request", "path" | "query", ..] | ["request", "headers", ":path", ..] => {
            node.error("may have an API key in it: a dimension cannot be read from it; see [request, url_path]");
        }
        _ => {}
    }
    Some(path)
}

fn read_body_path(node: Node<'_, '_>) -> Option<Source> {
    let text = node.text()?;
    let path: Vec<Box<str>> = text.split('.').map(Into::into).collect();
    if path.len() > MAX_BODY_DEPTH || path.iter().any(|key| key.is_empty()) {
        node.error(format!("expected 1 to {MAX_BODY_DEPTH} keys with dots between them, as metadata.team"));
    }
    Some(Source::Body(path))
}

fn read_pseudonym_key(node: Node<'_, '_>) -> Option<Pseudonym> {
    let text = node.text()?;
    if text.len() < MIN_PSEUDONYM_KEY_BYTES {
        node.error(format!("must have at least {MIN_PSEUDONYM_KEY_BYTES} characters"));
    }
    Pseudonym::new(&text)
}

fn read_trust(node: Node<'_, '_>) -> Option<Trust> {
    if !node.is_object() {
        return match node.as_text().as_deref() {
            Some("always") => Some(Trust::Always),
            Some("never") => Some(Trust::Never),
            _ => {
                node.expected("always, never or an object with property and matches");
                None
            }
        };
    }
    let object = node.object()?;
    let property = object.require("property").and_then(read_property);
    let matches = object.require("matches").and_then(|list| {
        let globs = list.list(|glob| {
            let text = glob.text()?;
            if text.bytes().all(|byte| byte == b'*') {
                glob.error("matches everybody: write always");
            }
            Some(Glob::new(&text))
        })?;
        if globs.is_empty() {
            list.error("expected at least one value");
        }
        Some(globs)
    });
    object.finish();
    Some(Trust::Where { property: property?, matches: matches? })
}

fn read_keys(list: Node<'_, '_>, names: &Names<'_>, values: &Values) -> Vec<KeyDraft> {
    let mut seen: Vec<(KeyHash, usize)> = Vec::new();
    let mut index = 0;
    let keys = list.list(|node| {
        let key = read_key(node, names, values);
        if let Some(KeyDraft { hash, .. }) = &key {
            match seen.iter().find(|(earlier, _)| earlier == hash) {
                Some((_, earlier)) => {
                    node.error_at(".sha256", format!("attribution.keys[{earlier}] has this hash already"));
                }
                None => seen.push((*hash, index)),
            }
        }
        index += 1;
        key
    });
    keys.unwrap_or_default()
}

fn read_key(node: Node<'_, '_>, names: &Names<'_>, own: &Values) -> Option<KeyDraft> {
    let object = node.object()?;
    let hash = object.require("sha256").and_then(read_hash);
    let name = object.get("name").and_then(|node| own.read(&node));
    let mut set: Vec<(Name, Box<str>, bool)> = Vec::new();
    if let Some(values) = object.get("set").and_then(Node::object) {
        values.each(|name, node| {
            match names.find(&node, name) {
                Some(name) => set.extend(own.read_of(&name, &node).map(|value| (name, value, false))),
                // What else is wrong is said all the same.
                None => drop(own.read(&node)),
            }
        });
    }
    if let Some(list) = object.get("locked") {
        list.list(|node| {
            let name = names.find(&node, &node.text()?)?;
            match set.iter_mut().find(|(own, ..)| *own == name) {
                Some((_, _, locked)) => *locked = true,
                None => {
                    let name = name.as_str();
                    node.error(format!("{name} is not in this key's set: there is nothing to lock it to"));
                }
            }
            Some(())
        });
    }
    object.finish();
    Some(KeyDraft { hash: hash?, name, set })
}

/// 64 hex digits. What stands there instead may be the key itself, so it is never shown.
pub(super) fn read_hash(node: Node<'_, '_>) -> Option<KeyHash> {
    let Some(text) = node.as_text() else {
        node.error("expected the SHA-256 of the key, 64 hex digits");
        return None;
    };
    let mut hash = KeyHash::default();
    let digits = text.as_bytes();
    let whole = digits.len() == 2 * hash.len() && digits.iter().all(u8::is_ascii_hexdigit);
    if !whole {
        node.error(format!(
            "expected the SHA-256 of the key, 64 hex digits, got {} characters that are not shown",
            text.chars().count()
        ));
        return None;
    }
    for (byte, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = str::from_utf8(pair).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok()).unwrap_or(0);
    }
    let repeated = hash.iter().collect::<BTreeSet<_>>().len() <= 2;
    if repeated || NO_KEYS.iter().any(|key| KeyHash::from(Sha256::digest(key)) == hash) {
        node.error("is a placeholder: put the SHA-256 of a real key here");
        return None;
    }
    Some(hash)
}

#[cfg(test)]
mod tests;
