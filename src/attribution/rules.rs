//! The section `attribution` of a configuration, compiled: which source says what of which dimension.
//!
//! Every source has a target: a dimension's slot, and a rank within it. Whatever order values come in, the lowest rank
//! wins; what a key locks stands before all sources, what a key or the configuration merely proposes behind them.

use super::dimension::{Dimension, Name, header_name};
use super::keys::{Key, KeyHash, Keys};
use super::values::{Pseudonym, Treatment, property_text};
use super::{DropReason, HEADER_PREFIX, TAG_PREFIX};
use crate::api::RequestField;
use crate::body::json::Paths;
use crate::glob::Glob;
use crate::http::KEY_HEADERS;
use std::borrow::Cow;
use std::rc::Rc;

/// A dimension by its number; the built-in ones come first.
pub(super) type Slot = u8;
/// A source by its place among those of a dimension; the lowest wins.
pub(super) type Rank = u8;

/// What the caller cannot override.
pub(super) const LOCKED: Rank = 0;
/// What a key proposes.
pub(super) const BY_KEY: Rank = 254;
/// What the configuration proposes.
pub(super) const BY_DEFAULT: Rank = 255;

/// Sources of one dimension.
pub const MAX_SOURCES: usize = 8;
/// Dimensions besides the built-in ones.
pub const MAX_OWN_DIMENSIONS: usize = 32;
/// Places in the request's body, of all dimensions together.
pub const MAX_BODY_PATHS: usize = 8;
/// Keys from the root of the body to a place in it.
pub const MAX_BODY_DEPTH: usize = 4;
/// Properties, of all dimensions together: each costs a host call.
pub const MAX_PROPERTIES: usize = 16;

/// Where a value of a dimension may come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A request header, by its name in lower case.
    Header(Box<str>),
    /// A property of the host, by its path.
    Property(Vec<Box<str>>),
    /// A place in the request's body, by the keys that lead there.
    Body(Vec<Box<str>>),
    /// A member of W3C baggage, by its key.
    Baggage(Box<str>),
}

/// A dimension as it is configured.
#[derive(Clone, Debug)]
pub struct DimensionDraft {
    /// Which.
    pub name: Name,
    /// Its sources, in order; `None`: its `X-Cost-*` header.
    pub sources: Option<Vec<Source>>,
    /// Its value where no source has one.
    pub default: Option<Box<str>>,
}

/// An API key as it is configured.
#[derive(Clone, Debug)]
pub struct KeyDraft {
    /// Its SHA-256.
    pub hash: KeyHash,
    /// Its name in records.
    pub name: Option<Box<str>>,
    /// The values it sets, and whether the caller cannot override them.
    pub set: Vec<(Name, Box<str>, bool)>,
}

/// Whose word counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Trust {
    /// Every caller's.
    #[default]
    Always,
    /// Nobody's: values come from properties, keys and defaults only.
    Never,
    /// Of a caller of whom the host knows a property with such a value: another gateway, by its certificate.
    Where {
        /// The property's path.
        property: Vec<Box<str>>,
        /// What it may be.
        matches: Vec<Glob>,
    },
}

/// The section as it is written, checked; [`Rules::new`] compiles it.
#[derive(Clone, Debug)]
pub struct Draft {
    /// Dimensions that are not as built in.
    pub dimensions: Vec<DimensionDraft>,
    /// Dimensions that a call must have.
    pub required: Vec<Name>,
    /// Whether a call without one of them is refused.
    pub reject: bool,
    /// Whether values are put in lower case with hyphens.
    pub normalise: bool,
    /// Longest value, in bytes.
    pub max_value_bytes: usize,
    /// Dimensions whose values are hidden behind pseudonyms.
    pub pseudonymise: Vec<Name>,
    /// What makes the pseudonyms.
    pub pseudonym: Option<Pseudonym>,
    /// Whether attribution headers go on to the provider.
    pub forward_headers: bool,
    /// Whose headers, baggage and body fields count.
    pub trust: Trust,
    /// Known API keys.
    pub keys: Vec<KeyDraft>,
}

impl Default for Draft {
    fn default() -> Draft {
        Draft {
            dimensions: Vec::new(),
            required: Vec::new(),
            reject: false,
            normalise: false,
            max_value_bytes: 128,
            pseudonymise: Vec::new(),
            pseudonym: None,
            forward_headers: false,
            trust: Trust::default(),
            keys: Vec::new(),
        }
    }
}

/// Where a source's value goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) slot: Slot,
    pub(super) rank: Rank,
}

/// A dimension.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) name: Name,
    pub(super) is_id: bool,
    pub(super) is_hidden: bool,
    /// The first header it may be read from, to name to callers.
    header: Option<Box<str>>,
    from_body: bool,
    pub(super) default: Option<Rc<str>>,
}

/// A header that is a source.
#[derive(Debug)]
pub(super) struct HeaderSource {
    /// How many were there before it.
    pub(super) number: u32,
    /// Nobody else needs it.
    is_taken_off: bool,
    pub(super) name: Cow<'static, str>,
    pub(super) targets: Vec<Target>,
}

/// Headers that are sources, each list of one length of name: few names have the same one.
#[derive(Debug, Default)]
struct HeaderSources {
    by_length: Vec<Vec<HeaderSource>>,
    count: u32,
}

impl HeaderSources {
    fn add(&mut self, name: &str, target: Target) {
        if self.by_length.len() <= name.len() {
            self.by_length.resize_with(name.len() + 1, Vec::new);
        }
        let Some(list) = self.by_length.get_mut(name.len()) else { return };
        match list.iter_mut().find(|source| source.name == name) {
            Some(source) => source.targets.push(target),
            None => {
                list.push(HeaderSource {
                    number: self.count,
                    is_taken_off: !is_general(name),
                    name: header_name(name),
                    targets: vec![target],
                });
                self.count += 1;
            }
        }
    }

    /// A length that no source has ends the search.
    fn get(&self, name: &[u8]) -> Option<&HeaderSource> {
        self.by_length.get(name.len())?.iter().find(|source| is_name(source.name.as_bytes(), name))
    }
}

/// A place in the request's body that is a source.
#[derive(Debug)]
pub(super) struct BodySource {
    /// The number of the place, as the scanner knows it.
    pub(super) number: u8,
    /// As it is written in the configuration.
    pub(super) path: Box<str>,
    pub(super) target: Target,
}

/// How calls are attributed.
#[derive(Debug)]
pub struct Rules {
    pub(super) dimensions: Vec<Rule>,
    from_headers: HeaderSources,
    /// Paths with zero bytes between their parts, as hosts want them.
    pub(super) properties: Vec<Box<str>>,
    /// The property of each source, by its number above.
    pub(super) from_properties: Vec<(usize, Target)>,
    pub(super) from_baggage: Vec<(Box<str>, Target)>,
    pub(super) from_body: Vec<BodySource>,
    body_paths: Option<Rc<Paths<RequestField>>>,
    pub(super) defaults: Vec<Slot>,
    pub(super) required: Vec<Slot>,
    pub(super) reject: bool,
    pub(super) treatment: Treatment,
    forward_headers: bool,
    trust: TrustRule,
    pub(super) keys: Keys,
}

#[derive(Debug)]
enum TrustRule {
    Always,
    Never,
    Where { property: usize, matches: Vec<Glob> },
}

impl Default for Rules {
    fn default() -> Rules {
        Rules::new(Draft::default())
    }
}

impl Rules {
    /// Compiles the section.
    pub fn new(draft: Draft) -> Rules {
        let treatment = Treatment {
            max_value_bytes: draft.max_value_bytes,
            normalise: draft.normalise,
            pseudonym: draft.pseudonym,
        };
        let mut rules = Rules {
            dimensions: Vec::new(),
            from_headers: HeaderSources::default(),
            properties: Vec::new(),
            from_properties: Vec::new(),
            from_baggage: Vec::new(),
            from_body: Vec::new(),
            body_paths: None,
            defaults: Vec::new(),
            required: Vec::new(),
            reject: draft.reject,
            treatment,
            forward_headers: draft.forward_headers,
            trust: TrustRule::Always,
            keys: Keys::default(),
        };
        for dimension in Dimension::ALL {
            rules.slot(&Name::BuiltIn(dimension));
        }
        let hidden = |rules: &mut Rules, name: &Name| {
            let slot = rules.slot(name);
            if let Some(rule) = rules.dimensions.get_mut(usize::from(slot)) {
                rule.is_hidden = true;
            }
        };
        draft.pseudonymise.iter().for_each(|name| hidden(&mut rules, name));
        let mut body_paths = Vec::new();
        for dimension in &draft.dimensions {
            rules.slot(&dimension.name);
        }
        for slot in 0..rules.dimensions.len() {
            let slot = Slot::try_from(slot).unwrap_or(Slot::MAX);
            let Some(name) = rules.dimensions.get(usize::from(slot)).map(|rule| rule.name.clone()) else { continue };
            let own = draft.dimensions.iter().find(|dimension| dimension.name == name);
            match own.and_then(|dimension| dimension.sources.as_deref()) {
                Some(sources) => {
                    for (rank, source) in (1..).zip(sources) {
                        rules.add(Target { slot, rank }, source, &mut body_paths);
                    }
                }
                None => {
                    for header in name.default_headers() {
                        rules.add(Target { slot, rank: 1 }, &Source::Header(header), &mut body_paths);
                    }
                }
            }
            if let Some(default) = own.and_then(|dimension| dimension.default.as_deref()) {
                let value = rules.prepared(slot, default);
                if let Some(rule) = rules.dimensions.get_mut(usize::from(slot)) {
                    rule.default = value;
                    rules.defaults.push(slot);
                }
            }
        }
        if !body_paths.is_empty() {
            let numbered = (0..).map(RequestField::Configured);
            rules.body_paths = Some(Rc::new(Paths::new(body_paths.iter().map(Vec::as_slice).zip(numbered))));
        }
        rules.required = draft.required.iter().map(|name| rules.slot(name)).collect();
        rules.trust = match draft.trust {
            Trust::Always => TrustRule::Always,
            Trust::Never => TrustRule::Never,
            Trust::Where { property, matches } => TrustRule::Where { property: rules.property(&property), matches },
        };
        for key in draft.keys {
            let set = key.set.iter().filter_map(|(name, value, locked)| {
                let slot = rules.slot(name);
                rules.prepared(slot, value).map(|value| (slot, value, *locked))
            });
            let set = set.collect();
            rules.keys.list.insert(key.hash, Key { name: key.name, set });
        }
        rules
    }

    /// The slot of a dimension, which is made where there is none.
    fn slot(&mut self, name: &Name) -> Slot {
        let known = self.dimensions.iter().position(|rule| rule.name == *name);
        let slot = known.unwrap_or_else(|| {
            self.dimensions.push(Rule {
                is_id: name.is_id(),
                name: name.clone(),
                is_hidden: false,
                header: None,
                from_body: false,
                default: None,
            });
            self.dimensions.len() - 1
        });
        Slot::try_from(slot).unwrap_or(Slot::MAX)
    }

    /// A value from the configuration, treated as one from a caller is.
    fn prepared(&self, slot: Slot, value: &str) -> Option<Rc<str>> {
        let rule = self.dimensions.get(usize::from(slot))?;
        self.treatment.apply(value.as_bytes(), rule.is_id, rule.is_hidden).ok().map(Into::into)
    }

    fn add(&mut self, target: Target, source: &Source, body_paths: &mut Vec<Vec<Box<str>>>) {
        let rule = self.dimensions.get_mut(usize::from(target.slot));
        match source {
            Source::Header(name) => {
                if let Some(rule) = rule {
                    rule.header.get_or_insert_with(|| name.clone());
                }
                self.from_headers.add(name, target);
            }
            Source::Property(path) => {
                let property = self.property(path);
                self.from_properties.push((property, target));
            }
            Source::Body(path) => {
                if let Some(rule) = rule {
                    rule.from_body = true;
                }
                let known = body_paths.iter().position(|own| own == path);
                let number = known.unwrap_or_else(|| {
                    body_paths.push(path.clone());
                    body_paths.len() - 1
                });
                let number = u8::try_from(number).unwrap_or(u8::MAX);
                self.from_body.push(BodySource { number, path: path.join(".").into(), target });
            }
            Source::Baggage(key) => self.from_baggage.push((key.clone(), target)),
        }
    }

    fn property(&mut self, path: &[Box<str>]) -> usize {
        let joined = path.join("\0");
        let known = self.properties.iter().position(|property| **property == *joined);
        known.unwrap_or_else(|| {
            self.properties.push(joined.into());
            self.properties.len() - 1
        })
    }

    /// The properties that a request is attributed by, each a path with zero bytes between its parts.
    pub fn properties(&self) -> &[Box<str>] {
        &self.properties
    }

    /// The places in a request's body that are wanted.
    pub fn body_paths(&self) -> Option<&Rc<Paths<RequestField>>> {
        self.body_paths.as_ref()
    }

    /// The source that the header `name` is.
    pub(super) fn of_header(&self, name: &[u8]) -> Option<&HeaderSource> {
        self.from_headers.get(name)
    }

    /// The name of the tag that one of our headers sets, where no dimension of the configuration has that name.
    pub(super) fn tag<'n>(&self, header: &'n [u8]) -> Result<&'n str, DropReason> {
        let header = str::from_utf8(header).map_err(|_| DropReason::UnknownHeader)?;
        if self.slot_named_by(header.as_bytes()).is_some() {
            return Err(DropReason::NotASource);
        }
        header.strip_prefix(TAG_PREFIX).filter(|tag| !tag.is_empty()).ok_or(DropReason::UnknownHeader)
    }

    /// The dimension whose own header `header` is, whether it is a source of it or not.
    pub(super) fn slot_named_by(&self, header: &[u8]) -> Option<Slot> {
        let header = str::from_utf8(header).ok()?;
        if let Some((_, dimension)) = super::dimension::HEADERS.iter().find(|(own, _)| *own == header) {
            return Some(dimension.slot());
        }
        let tag = header.strip_prefix(TAG_PREFIX)?;
        let is_own = |rule: &Rule| matches!(&rule.name, Name::Tag(own) if **own == *tag);
        Slot::try_from(self.dimensions.iter().position(is_own)?).ok()
    }

    /// Whether the word of a caller with these properties counts.
    pub(super) fn trusts(&self, properties: &[Option<Vec<u8>>]) -> bool {
        match &self.trust {
            TrustRule::Always => true,
            TrustRule::Never => false,
            TrustRule::Where { property, matches } => {
                let text = properties.get(*property).and_then(|value| property_text(value.as_deref()?));
                let text = text.as_deref().and_then(|text| str::from_utf8(text).ok());
                text.is_some_and(|text| matches.iter().any(|glob| glob.matches(text)))
            }
        }
    }

    /// Whether the header `name`, which may be a source, is taken off before the provider sees it: ours and every alias,
    /// but for the headers that have work to do beyond this filter.
    pub(super) fn takes_off(&self, name: &[u8], source: Option<&HeaderSource>) -> bool {
        source.map_or_else(|| name.starts_with(HEADER_PREFIX.as_bytes()), |source| source.is_taken_off)
    }

    /// Whether attribution headers go on to the provider.
    pub fn forwards_headers(&self) -> bool {
        self.forward_headers
    }

    /// Whether a call must have any dimension.
    pub fn requires_something(&self) -> bool {
        !self.required.is_empty()
    }

    /// The longest value, in bytes.
    pub fn max_value_bytes(&self) -> usize {
        self.treatment.max_value_bytes
    }

    /// What a caller has to send for the dimension, in words.
    pub(super) fn remedy(&self, slot: Slot) -> String {
        let Some(rule) = self.dimensions.get(usize::from(slot)) else { return String::new() };
        let name = rule.name.as_str();
        let body = self.from_body.iter().find(|source| source.target.slot == slot);
        match (&rule.header, body) {
            (Some(header), _) => format!("{name} is missing (send the header {header})"),
            (None, Some(source)) => format!("{name} is missing (set {} in the request's body)", source.path),
            (None, None) => format!("{name} is missing"),
        }
    }

    /// The dimension that `key` names, by its name or its place in the record.
    fn named(&self, key: &str) -> Option<(usize, &Rule)> {
        let names = |name: &Name| match name {
            Name::BuiltIn(dimension) => dimension.name() == key,
            Name::Tag(tag) => **tag == *key.strip_prefix("tags.").unwrap_or(key),
        };
        self.dimensions.iter().enumerate().find(|(_, rule)| names(&rule.name))
    }

    /// Whether calls may have a value of what `key` names: a dimension, or `tags.` and any name.
    pub fn knows(&self, key: &str) -> bool {
        Dimension::named(key).is_some()
            || key.strip_prefix("tags.").is_some_and(|tag| !tag.is_empty())
            || self.named(key).is_some()
    }

    /// `text`, which is to be compared with values of `key`, in the spelling that they are put in.
    pub fn spelt<'t>(&self, key: &str, text: &'t str) -> Cow<'t, str> {
        let is_id = Dimension::named(key).is_some_and(Dimension::is_id);
        if self.knows(key) { self.treatment.spelt(text, is_id) } else { text.into() }
    }

    /// Whether every call that is let pass has a value of it.
    pub fn is_certain(&self, key: &str) -> bool {
        self.named(key).is_some_and(|(index, rule)| {
            let required = self.reject && self.required.iter().any(|&slot| usize::from(slot) == index);
            rule.default.is_some() || required
        })
    }

    /// Whether a value of it may only come with the request's body.
    pub fn comes_with_body(&self, key: &str) -> bool {
        self.named(key).is_some_and(|(_, rule)| rule.from_body)
    }

    /// Whether the dimension may still come with the request's body.
    pub(super) fn may_come_with_body(&self, slot: Slot) -> bool {
        self.dimensions.get(usize::from(slot)).is_some_and(|rule| rule.from_body)
    }
}

/// Whether two names of headers are the same. Ours begin alike, so how they end is compared first: the module compares
/// byte by byte.
pub(super) fn is_name(own: &[u8], name: &[u8]) -> bool {
    own.last_chunk::<4>() == name.last_chunk() && own == name
}

/// Headers that a provider or a proxy behind this filter needs: reading an owner from one does not make it ours.
fn is_general(name: &str) -> bool {
    const NAMES: [&str; 29] = [
        "accept",
        "accept-encoding",
        "accept-language",
        "baggage",
        "cache-control",
        "connection",
        "content-encoding",
        "content-language",
        "content-length",
        "content-type",
        "date",
        "expect",
        "forwarded",
        "from",
        "host",
        "idempotency-key",
        "origin",
        "referer",
        "te",
        "traceparent",
        "tracestate",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "user-agent",
        "via",
        "x-client-request-id",
        "x-request-id",
        "x-trace-id",
    ];
    const PREFIXES: [&str; 14] = [
        "anthropic-",
        "grpc-",
        "if-",
        "openai-",
        "sec-",
        "x-amz-",
        "x-amzn-",
        "x-b3-",
        "x-envoy-",
        "x-forwarded-",
        "x-goog-",
        "x-ms-",
        "x-real-",
        "x-stainless-",
    ];
    NAMES.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// Headers whose value is a secret; no dimension is read from one.
pub fn is_secret(header: &str) -> bool {
    let others = ["authorization", "proxy-authorization", "cookie", "x-amz-security-token", "sec-websocket-protocol"];
    KEY_HEADERS.contains(&header) || others.contains(&header)
}
