//! Attribution: which named owner a call is charged to, and on whose word.
//!
//! A call's [`Attribution`] is read by the configuration's [`Rules`] from the request's headers, from what the host
//! knows of the caller, from W3C baggage and, at its end, from the request's body. What an API key sets stands before
//! or behind them, as the key's entry says. A bad value (not UTF-8, empty, too long, control characters) is dropped and
//! noted, never the call. Names are matched without case, values are taken exactly unless the rules normalise them.

mod dimension;
mod keys;
mod rules;
mod spellings;
mod values;

pub use dimension::{Dimension, Name};
pub use keys::KeyHash;
pub use rules::{
    DimensionDraft, Draft, KeyDraft, MAX_BODY_DEPTH, MAX_BODY_PATHS, MAX_OWN_DIMENSIONS, MAX_PROPERTIES, MAX_SOURCES,
    Rules, Source, Trust, is_secret,
};
pub use spellings::Spellings;
pub use values::Pseudonym;

use crate::api::facts::Configured;
use crate::http::Headers;
use rules::{BY_DEFAULT, BY_KEY, HeaderSource, LOCKED, Target};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;

/// Prefix of every header this filter reads, and takes away before the provider.
pub const HEADER_PREFIX: &str = "x-cost-";
const TAG_PREFIX: &str = "x-cost-tag-";

/// Tags kept per call whose names the configuration does not know; the rest are dropped and noted.
pub const MAX_TAGS: usize = 32;
/// Longest tag name, in bytes.
pub const MAX_TAG_NAME_BYTES: usize = 64;
/// Room for the values of a call; it grows where that is not enough.
const USUAL_TEXT_BYTES: usize = 256;
/// Notes kept per call about dropped values.
const MAX_NOTES: usize = 16;

/// Why a value was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DropReason {
    /// Not UTF-8.
    NotUtf8,
    /// Nothing in it.
    Empty,
    /// Longer than `max_value_bytes`.
    TooLong,
    /// A control character in it.
    ControlCharacter,
    /// The dimension has a value of the same source already: the first one counts.
    Repeated,
    /// A header of ours that names no dimension.
    UnknownHeader,
    /// A header of ours whose dimension takes its values from elsewhere.
    NotASource,
    /// More tags than are kept, or a name that is too long.
    TooManyTags,
    /// The caller's API key locks the dimension to another value.
    Locked,
    /// The caller's word does not count here.
    Untrusted,
    /// A property or a place in the body that is no scalar.
    NotText,
}

impl DropReason {
    /// The name in notes and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            DropReason::NotUtf8 => "not_utf8",
            DropReason::Empty => "empty",
            DropReason::TooLong => "too_long",
            DropReason::ControlCharacter => "control_character",
            DropReason::Repeated => "repeated",
            DropReason::UnknownHeader => "unknown_header",
            DropReason::NotASource => "not_a_source",
            DropReason::TooManyTags => "too_many_tags",
            DropReason::Locked => "locked",
            DropReason::Untrusted => "untrusted",
            DropReason::NotText => "not_text",
        }
    }
}

/// Where a value came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A request header.
    Header,
    /// The entry of the caller's API key.
    Key,
    /// A property of the host.
    Property,
    /// The request's body.
    Body,
    /// W3C baggage.
    Baggage,
    /// The configuration.
    Default,
}

impl Origin {
    /// The name in records.
    pub const fn name(self) -> &'static str {
        match self {
            Origin::Header => "header",
            Origin::Key => "key",
            Origin::Property => "property",
            Origin::Body => "body",
            Origin::Baggage => "baggage",
            Origin::Default => "default",
        }
    }
}

/// A value that did not make it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dropped {
    /// Where it stood: a header's name, `body metadata.team`. Never the value.
    pub place: Box<str>,
    /// Why.
    pub reason: DropReason,
}

/// Where a value stands, for the note should it be dropped.
#[derive(Clone, Copy)]
enum Place<'a> {
    Header(&'a [u8]),
    Property(&'a str),
    Body(&'a str),
    Baggage(&'a str),
}

impl Place<'_> {
    fn origin(self) -> Origin {
        match self {
            Place::Header(_) => Origin::Header,
            Place::Property(_) => Origin::Property,
            Place::Body(_) => Origin::Body,
            Place::Baggage(_) => Origin::Baggage,
        }
    }

    fn shown(self) -> String {
        match self {
            Place::Header(name) => String::from_utf8_lossy(name.get(..MAX_TAG_NAME_BYTES).unwrap_or(name)).into_owned(),
            Place::Property(path) => format!("property {}", path.replace('\0', ".")),
            Place::Body(path) => format!("body {path}"),
            Place::Baggage(key) => format!("baggage {key}"),
        }
    }
}

/// A value of a dimension.
#[derive(Clone, Copy, Debug)]
pub struct Value<'a> {
    /// Of which.
    pub name: &'a Name,
    /// From where.
    pub origin: Origin,
    /// As it is recorded.
    pub text: &'a str,
    /// Whether other spellings of it are worth a word: it is no id and no pseudonym.
    pub is_word: bool,
}

/// A value as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Held {
    name: Name,
    origin: Origin,
    /// Where it stands in [`Attribution::texts`].
    text: Range<usize>,
    is_word: bool,
    target: Target,
}

/// Where the value of each slot stands in [`Attribution::values`], from 1 on; 0: it has none.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Places([u8; Dimension::ALL.len() + MAX_OWN_DIMENSIONS]);

impl Default for Places {
    fn default() -> Places {
        Places([0; Dimension::ALL.len() + MAX_OWN_DIMENSIONS])
    }
}

/// The headers of a request that were told to be taken off.
#[derive(Default)]
struct Taken<'h> {
    /// A bit for each of the first sources.
    sources: u64,
    others: Vec<&'h [u8]>,
}

impl<'h> Taken<'h> {
    /// Tells a header to `take_off`, unless it was told before.
    fn tell(&mut self, name: &'h [u8], source: Option<&HeaderSource>, take_off: &mut impl FnMut(Cow<'static, str>)) {
        let bit = source.and_then(|source| 1_u64.checked_shl(source.number));
        let is_known = match bit {
            Some(bit) => self.sources & bit != 0,
            None => self.others.contains(&name),
        };
        if is_known {
            return;
        }
        match bit {
            Some(bit) => self.sources |= bit,
            None => self.others.push(name),
        }
        let unknown = || str::from_utf8(name).ok().map(|name| Cow::Owned(name.to_owned()));
        source.map_or_else(unknown, |source| Some(source.name.clone())).into_iter().for_each(take_off);
    }
}

/// What a call is charged to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attribution {
    values: Vec<Held>,
    /// The values themselves, one behind the other: a block of memory for each would cost more than reading it. One that
    /// a better source replaced is left where it is.
    texts: String,
    /// Values of dimensions that only the caller knows.
    pub tags: BTreeMap<Rc<str>, Rc<str>>,
    /// The name of the caller's API key, or the beginning of its hash.
    pub api_key: Option<Box<str>>,
    /// The first values that were dropped.
    pub dropped: Vec<Dropped>,
    /// How many were dropped in all, by reason.
    pub drop_counts: BTreeMap<DropReason, u64>,
    places: Places,
    key: Option<KeyHash>,
    distrusted: bool,
}

impl Attribution {
    /// Reads what is known of a call when its headers have come. `properties` are those that [`Rules::properties`]
    /// lists, in that order; `key_in_query` is whether the API takes its key in the query, too. The headers that are not
    /// to go on are told to `take_off`, each once.
    pub fn read(
        rules: &Rules,
        headers: &Headers<'_>,
        properties: &[Option<Vec<u8>>],
        key_in_query: bool,
        mut take_off: impl FnMut(Cow<'static, str>),
    ) -> Attribution {
        let presented = rules.keys.find(headers, key_in_query);
        let mut attribution = Attribution {
            api_key: presented.shown,
            key: presented.known,
            distrusted: !rules.trusts(properties),
            ..Attribution::default()
        };
        for (slot, value, locked) in rules.keys.get(presented.known).map_or(&[][..], |key| &key.set) {
            let rank = if *locked { LOCKED } else { BY_KEY };
            attribution.put(rules, Target { slot: *slot, rank }, Origin::Key, value);
        }
        let mut taken = Taken::default();
        for (name, value) in headers.iter() {
            let source = rules.of_header(name);
            attribution.read_header(rules, name, source, value);
            if attribution.takes_off(rules, name, source) {
                taken.tell(name, source, &mut take_off);
            }
        }
        for &(property, target) in &rules.from_properties {
            let path = rules.properties.get(property).map_or("", |path| path);
            if let Some(Some(bytes)) = properties.get(property) {
                match values::property_text(bytes) {
                    Some(text) => attribution.offer(rules, target, Place::Property(path), &text),
                    None => attribution.note_drop(Place::Property(path), DropReason::NotText),
                }
            }
        }
        for &slot in &rules.defaults {
            if let Some(value) = rules.dimensions.get(usize::from(slot)).and_then(|rule| rule.default.as_ref())
                && attribution.of_slot(slot).is_none()
            {
                attribution.put(rules, Target { slot, rank: BY_DEFAULT }, Origin::Default, value);
            }
        }
        attribution
    }

    /// Tells the headers of a request that is no call that are not to go on to `take_off`, each once, and returns what is
    /// left of its baggage, as [`Attribution::baggage_left`]. `properties` are as in [`Attribution::read`].
    pub fn of_no_call(
        rules: &Rules,
        headers: &Headers<'_>,
        properties: &[Option<Vec<u8>>],
        take_off: impl FnMut(Cow<'static, str>),
    ) -> Option<String> {
        let mut caller = Attribution::default();
        if rules.forwards_headers() || !rules.from_baggage.is_empty() {
            // It may be a call to the gateway behind this one.
            caller.distrusted = !rules.trusts(properties);
            if !rules.keys.list.is_empty() {
                caller.key = rules.keys.find(headers, true).known;
            }
        }
        caller.take_off(rules, headers, take_off);
        caller.baggage_left(rules, headers)
    }

    fn take_off(&self, rules: &Rules, headers: &Headers<'_>, mut take_off: impl FnMut(Cow<'static, str>)) {
        let mut taken = Taken::default();
        for (name, _) in headers.iter() {
            let source = rules.of_header(name);
            if self.takes_off(rules, name, source) {
                taken.tell(name, source, &mut take_off);
            }
        }
    }

    /// Whether a header does not go on, for it is ours. Where headers are forwarded, only those do not whose word does
    /// not count.
    fn takes_off(&self, rules: &Rules, name: &[u8], source: Option<&HeaderSource>) -> bool {
        rules.takes_off(name, source)
            && (!rules.forwards_headers() || self.distrusted || self.is_locked(rules, name, source))
    }

    fn read_header(&mut self, rules: &Rules, name: &[u8], source: Option<&HeaderSource>, value: &[u8]) {
        let place = Place::Header(name);
        for &target in source.map_or(&[][..], |source| &source.targets) {
            self.offer(rules, target, place, value);
        }
        if source.is_none() && name.starts_with(HEADER_PREFIX.as_bytes()) {
            let read = if self.distrusted { Err(DropReason::Untrusted) } else { self.read_tag(rules, name, value) };
            if let Err(reason) = read {
                // One that is no source is an attempt on a lock all the same.
                let own = rules.slot_named_by(name).filter(|_| reason == DropReason::NotASource);
                match own.filter(|&slot| self.locks(rules, slot)) {
                    Some(slot) => self.offer(rules, Target { slot, rank: BY_DEFAULT }, place, value),
                    None => self.note_drop(place, reason),
                }
            }
        }
        if name == b"baggage" && !rules.from_baggage.is_empty() {
            for (own, value) in values::baggage(value) {
                for (key, target) in rules.from_baggage.iter().filter(|(key, _)| key.as_bytes() == own) {
                    self.offer(rules, *target, Place::Baggage(key), &value);
                }
            }
        }
    }

    /// A tag that the configuration does not know.
    fn read_tag(&mut self, rules: &Rules, header: &[u8], value: &[u8]) -> Result<(), DropReason> {
        let tag = rules.tag(header)?;
        let value = rules.treatment.apply(value, false, false)?;
        if self.tags.contains_key(tag) {
            return Err(DropReason::Repeated);
        }
        if self.tags.len() >= MAX_TAGS || tag.len() > MAX_TAG_NAME_BYTES {
            return Err(DropReason::TooManyTags);
        }
        self.tags.insert(tag.into(), value.into());
        Ok(())
    }

    /// Reads what stood at the places of [`Rules::body_paths`].
    pub fn read_body(&mut self, rules: &Rules, read: &[(u8, Configured)]) {
        for (number, value) in read {
            for source in rules.from_body.iter().filter(|source| source.number == *number) {
                let place = Place::Body(&source.path);
                match value {
                    Configured::Text(text) => self.offer(rules, source.target, place, text.as_bytes()),
                    Configured::TooLong => self.note_drop(place, DropReason::TooLong),
                    Configured::NotUtf8 => self.note_drop(place, DropReason::NotUtf8),
                    Configured::Container => self.note_drop(place, DropReason::NotText),
                }
            }
        }
    }

    /// Takes a value from one of the caller's or the host's sources, if none before it has one.
    fn offer(&mut self, rules: &Rules, target: Target, place: Place<'_>, value: &[u8]) {
        let Some(rule) = rules.dimensions.get(usize::from(target.slot)) else { return };
        if self.distrusted && place.origin() != Origin::Property {
            return self.note_drop(place, DropReason::Untrusted);
        }
        let held = self.of_slot(target.slot);
        let held_rank = held.map_or(BY_DEFAULT, |held| held.target.rank);
        if held_rank < target.rank && held_rank != LOCKED {
            return;
        }
        match rules.treatment.apply(value, rule.is_id, rule.is_hidden) {
            Ok(value) if held_rank == LOCKED => {
                if held.is_some_and(|held| self.text(held) != value) {
                    self.note_drop(place, DropReason::Locked);
                }
            }
            Ok(_) if held_rank == target.rank => self.note_drop(place, DropReason::Repeated),
            Ok(value) => self.put(rules, target, place.origin(), &value),
            Err(reason) => self.note_drop(place, reason),
        }
    }

    fn put(&mut self, rules: &Rules, target: Target, origin: Origin, text: &str) {
        let Some(rule) = rules.dimensions.get(usize::from(target.slot)) else { return };
        let is_word = !rule.is_id && !rule.is_hidden;
        let start = self.texts.len();
        if start == 0 {
            self.texts.reserve(USUAL_TEXT_BYTES);
        }
        self.texts.push_str(text);
        let value = Held { name: rule.name.clone(), origin, text: start..self.texts.len(), is_word, target };
        let Some(place) = self.places.0.get_mut(usize::from(target.slot)) else { return };
        if let Some(held) = place.checked_sub(1).and_then(|index| self.values.get_mut(usize::from(index))) {
            *held = value;
            return;
        }
        if self.values.is_empty() {
            self.values.reserve(Dimension::ALL.len());
        }
        self.values.push(value);
        *place = u8::try_from(self.values.len()).unwrap_or_default();
    }

    fn note_drop(&mut self, place: Place<'_>, reason: DropReason) {
        *self.drop_counts.entry(reason).or_default() += 1;
        let (is_attempt, is_full) = (reason == DropReason::Locked, self.dropped.len() >= MAX_NOTES);
        if is_full && !is_attempt {
            return;
        }
        let dropped = Dropped { place: place.shown().into(), reason };
        if is_attempt && self.dropped.contains(&dropped) {
            return;
        }
        if is_full {
            // An attempt on a lock is noted whatever else there is, or junk before it would hide it.
            let other = self.dropped.iter().rposition(|drop| drop.reason != DropReason::Locked);
            let Some(other) = other else { return };
            self.dropped.remove(other);
        }
        self.dropped.push(dropped);
    }

    fn text(&self, held: &Held) -> &str {
        self.texts.get(held.text.clone()).unwrap_or_default()
    }

    fn of_slot(&self, slot: rules::Slot) -> Option<&Held> {
        let index = self.places.0.get(usize::from(slot))?.checked_sub(1)?;
        self.values.get(usize::from(index))
    }

    /// Every value of a dimension that the configuration or this filter knows; those of `tags` are apart.
    pub fn values(&self) -> impl ExactSizeIterator<Item = Value<'_>> {
        self.values.iter().map(|held| Value {
            name: &held.name,
            origin: held.origin,
            text: self.text(held),
            is_word: held.is_word,
        })
    }

    /// The value of `dimension`.
    pub fn get(&self, dimension: Dimension) -> Option<&str> {
        self.of_slot(dimension.slot()).map(|held| self.text(held))
    }

    /// The value of what budgets call `key`: a dimension by its name, or `tags.` and the name of a tag.
    pub fn value(&self, key: &str) -> Option<&str> {
        if let Some(dimension) = Dimension::named(key) {
            return self.get(dimension);
        }
        let tag = key.strip_prefix("tags.");
        let names = |value: &&Held| matches!(&value.name, Name::Tag(own) if **own == *tag.unwrap_or(key));
        let own = self.values.iter().find(names).map(|held| self.text(held));
        own.or_else(|| self.tags.get(tag?).map(|text| &**text))
    }

    /// The required dimensions that have no value.
    pub fn missing<'r>(&self, rules: &'r Rules) -> impl Iterator<Item = &'r Name> {
        self.missing_slots(rules).filter_map(|slot| rules.dimensions.get(usize::from(slot))).map(|rule| &rule.name)
    }

    fn missing_slots<'r>(&self, rules: &'r Rules) -> impl Iterator<Item = rules::Slot> + use<'_, 'r> {
        rules.required.iter().copied().filter(|&slot| self.of_slot(slot).is_none())
    }

    /// What is missing, in words for the caller, where a call is refused for it; `body_follows` is whether the body is
    /// still to be read, which may have it.
    pub fn objection(&self, rules: &Rules, body_follows: bool) -> Option<Box<str>> {
        if !rules.reject {
            return None;
        }
        let hopeless = |&slot: &rules::Slot| !body_follows || self.distrusted || !rules.may_come_with_body(slot);
        let remedies: Vec<_> = self.missing_slots(rules).filter(hopeless).map(|slot| rules.remedy(slot)).collect();
        (!remedies.is_empty()).then(|| remedies.join(", ").into())
    }

    /// Whether a call that would be refused for what is missing may still be saved by its body.
    pub fn awaits_body(&self, rules: &Rules) -> bool {
        rules.reject && !self.distrusted && self.missing_slots(rules).any(|slot| rules.may_come_with_body(slot))
    }

    /// Whether a header is about a dimension that the caller's key locks: as one of its sources, or by its name, which the
    /// gateway behind this one may read it from.
    fn is_locked(&self, rules: &Rules, name: &[u8], source: Option<&HeaderSource>) -> bool {
        let locks = |slot| self.locks(rules, slot);
        let is_source = || source.is_some_and(|source| source.targets.iter().any(|target| locks(target.slot)));
        self.key.is_some() && (is_source() || rules.slot_named_by(name).is_some_and(locks))
    }

    /// Whether the caller's key locks the dimension.
    fn locks(&self, rules: &Rules, slot: rules::Slot) -> bool {
        let set = rules.keys.get(self.key).map_or(&[][..], |key| &key.set);
        set.iter().any(|(own, _, locked)| *locked && *own == slot)
    }

    /// What goes on of the request's `baggage`, where that is not all of it. It is not ours, and others read it; but the
    /// members that a lock or distrust overrules here must not count for whoever is next.
    pub fn baggage_left(&self, rules: &Rules, headers: &Headers<'_>) -> Option<String> {
        if rules.from_baggage.is_empty() || !(self.distrusted || self.key.is_some()) {
            return None;
        }
        let overrules = |target: Target| self.distrusted || self.locks(rules, target.slot);
        let is_overruled = |member: &&[u8]| {
            let mut keys = values::baggage(member).map(|(key, _)| key);
            keys.any(|key| rules.from_baggage.iter().any(|(own, to)| own.as_bytes() == key && overrules(*to)))
        };
        let values = headers.iter().filter(|(name, _)| *name == b"baggage");
        let members = values.flat_map(|(_, value)| value.split(|&byte| byte == b','));
        let (gone, mut left): (Vec<_>, Vec<_>) = members.partition(is_overruled);
        left.retain(|member| !member.trim_ascii().is_empty());
        (!gone.is_empty()).then(|| String::from_utf8_lossy(&left.join(&b',')).trim().to_owned())
    }
}

#[cfg(test)]
mod tests;
