//! A place in the configuration: its JSON text and its path, read strictly.
//!
//! A reader of a section takes its keys one by one with their types; what is wrong is pushed to a list of errors
//! and the reading goes on, so that all errors of a configuration come out at once, each with its path. Numbers
//! keep their text: money is never a float. Keys nobody took are errors, with the nearest known name.

use super::{ConfigError, Origin};
use crate::money::{Decimal, DecimalError};
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::fmt;

/// Collects errors while a configuration is read.
#[derive(Debug)]
pub(crate) struct Errors {
    list: RefCell<Vec<ConfigError>>,
    pub(super) origin: Origin,
}

impl Errors {
    pub(crate) fn new(origin: Origin) -> Errors {
        Errors { list: RefCell::default(), origin }
    }

    pub(crate) fn push(&self, path: String, message: impl Into<String>) {
        if let Ok(mut list) = self.list.try_borrow_mut() {
            list.push(ConfigError { path, message: message.into() });
        }
    }

    pub(crate) fn into_list(self) -> Vec<ConfigError> {
        self.list.into_inner()
    }
}

/// A path as a chain from the place to the root, written out only for an error.
#[derive(Clone, Copy)]
enum Path<'p> {
    Root,
    Key(&'p Path<'p>, &'p str),
    Index(&'p Path<'p>, usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Path::Root => Ok(()),
            Path::Key(Path::Root, key) => f.write_str(key),
            Path::Key(parent, key) => write!(f, "{parent}.{key}"),
            Path::Index(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

/// A value and where it stands.
#[derive(Clone, Copy)]
pub(crate) struct Node<'a, 'p> {
    raw: &'a RawValue,
    path: Path<'p>,
    errors: &'p Errors,
}

impl<'a, 'p> Node<'a, 'p> {
    pub(crate) fn root(raw: &'a RawValue, errors: &'p Errors) -> Node<'a, 'p> {
        Node { raw, path: Path::Root, errors }
    }

    /// Adds an error at this place.
    pub(crate) fn error(&self, message: impl Into<String>) {
        self.errors.push(self.path.to_string(), message);
    }

    /// Adds an error at a place below this one.
    pub(crate) fn error_at(&self, below: &str, message: impl Into<String>) {
        self.errors.push(format!("{}{below}", self.path), message);
    }

    /// Adds an error that says what was expected here, and what is.
    pub(crate) fn expected(&self, what: &str) {
        self.error(format!("expected {what}, got {}", self.shown()));
    }

    /// The value as it is shown in an error: short, and never the whole of a long secret.
    fn shown(&self) -> String {
        let text = self.raw.get();
        let path = self.path.to_string();
        if path.ends_with("_key") || path.contains(".headers.") {
            return "a value that is not shown".into();
        }
        match text.bytes().next() {
            Some(b'{') => "an object".into(),
            Some(b'[') => "a list".into(),
            _ if text.chars().count() > 40 => format!("{}…", text.chars().take(40).collect::<String>()),
            _ => text.into(),
        }
    }

    /// The string, where it is one. What to say of anything else is left to the caller: a secret put in the wrong place is
    /// not to be shown.
    pub(crate) fn as_text(&self) -> Option<Cow<'a, str>> {
        serde_json::from_str::<CowText<'a>>(self.raw.get()).ok().map(|text| text.0)
    }

    fn is_null(&self) -> bool {
        self.raw.get() == "null"
    }

    /// Whether it is an object.
    pub(crate) fn is_object(&self) -> bool {
        self.raw.get().starts_with('{')
    }

    /// Whether it is a list.
    pub(crate) fn is_list(&self) -> bool {
        self.raw.get().starts_with('[')
    }

    /// The keys of an object.
    pub(crate) fn object(self) -> Option<Object<'a, 'p>> {
        let entries = match read(self.raw, Shape::Object) {
            Some(Children::Object(entries)) => entries,
            _ => {
                self.expected("an object");
                return None;
            }
        };
        for (index, (key, _, taken)) in entries.iter().enumerate() {
            if entries.iter().take(index).any(|(earlier, ..)| earlier == key) {
                taken.set(true);
                self.errors.push(Path::Key(&self.path, key).to_string(), "is written twice");
            }
        }
        Some(Object { node: self, entries, known: RefCell::default() })
    }

    /// The elements of a list, each given to `element`.
    pub(crate) fn list<T>(self, mut element: impl FnMut(Node<'a, '_>) -> Option<T>) -> Option<Vec<T>> {
        let Some(Children::List(items)) = read(self.raw, Shape::List) else {
            self.expected("a list");
            return None;
        };
        let nodes = items.into_iter().enumerate();
        let read = |(index, raw)| element(Node { raw, path: Path::Index(&self.path, index), errors: self.errors });
        Some(nodes.filter_map(read).collect())
    }

    /// A non-empty string that is no placeholder.
    pub(crate) fn text(self) -> Option<Cow<'a, str>> {
        let Ok(text) = serde_json::from_str::<CowText<'a>>(self.raw.get()) else {
            self.expected("a string");
            return None;
        };
        let text = text.0;
        if text.trim().is_empty() {
            self.error("must not be empty");
            None
        } else if is_placeholder(&text) {
            self.error(format!("{text:?} is a placeholder: put the real value here"));
            None
        } else {
            Some(text)
        }
    }

    /// The same on one line, as it has to be where it becomes part of a header.
    pub(crate) fn line(self) -> Option<Cow<'a, str>> {
        let text = self.text()?;
        if text.chars().any(char::is_control) {
            self.error("must not have control characters");
        }
        Some(text)
    }

    /// One of a few words, as what it stands for.
    pub(crate) fn one_of<T: Copy>(self, words: &[(&str, T)]) -> Option<T> {
        let word = self.text()?;
        let found = words.iter().find(|(own, _)| *own == word).map(|&(_, meaning)| meaning);
        if found.is_none() {
            let names: Vec<_> = words.iter().map(|&(own, _)| own).collect();
            let names = match names.split_last() {
                Some((last, front)) if !front.is_empty() => format!("{} or {last}", front.join(", ")),
                _ => names.concat(),
            };
            self.error(format!("expected {names}, got {word:?}"));
        }
        found
    }

    /// `true` or `false`.
    pub(crate) fn boolean(self) -> Option<bool> {
        let read = serde_json::from_str(self.raw.get()).ok();
        if read.is_none() {
            self.expected("true or false");
        }
        read
    }

    /// A whole number within `range`; a string of digits is taken too, as YAML in a Struct delivers large ones.
    pub(crate) fn integer(self, range: std::ops::RangeInclusive<u64>) -> Option<u64> {
        let number = self.number_text().and_then(|text| {
            let whole = text.strip_suffix(".0").unwrap_or(&text);
            whole.parse::<u64>().ok()
        });
        match number {
            Some(number) if range.contains(&number) => Some(number),
            Some(_) | None => {
                self.expected(&format!("a whole number from {} to {}", range.start(), range.end()));
                None
            }
        }
    }

    /// A decimal amount, as a string or a number, read from its text.
    pub(crate) fn decimal(self) -> Option<Decimal> {
        let Some(text) = self.number_text() else {
            self.expected("a decimal amount");
            return None;
        };
        let quoted = self.raw.get().starts_with('"');
        let significant = text.bytes().filter(u8::is_ascii_digit).count() - leading_zeros(&text);
        if self.errors.origin == Origin::Struct && !quoted && significant > 15 {
            self.error(format!(
                "{text} has passed through a binary fraction and may not be what was meant: write a string"
            ));
            return None;
        }
        match Decimal::parse(&text) {
            Ok(decimal) => Some(decimal),
            Err(DecimalError::Syntax) => {
                self.expected("a decimal amount");
                None
            }
            Err(error) => {
                self.expected(error.to_string().trim_start_matches("expected "));
                None
            }
        }
    }

    fn number_text(&self) -> Option<Cow<'a, str>> {
        match self.raw.get().bytes().next() {
            Some(b'"') => serde_json::from_str::<CowText<'a>>(self.raw.get()).ok().map(|text| text.0),
            Some(b'-' | b'0'..=b'9') => Some(Cow::Borrowed(self.raw.get())),
            _ => None,
        }
    }
}

fn leading_zeros(number: &str) -> usize {
    number.bytes().filter(|&b| b != b'.' && b != b'-').take_while(|&b| b == b'0').count()
}

/// Values that stand in documentation and templates where a real one belongs.
fn is_placeholder(text: &str) -> bool {
    let plain: String = text.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase();
    plain == "changeme" || text.contains('…') || (text.starts_with('<') && text.ends_with('>'))
}

/// An object whose keys are being taken.
pub(crate) struct Object<'a, 'p> {
    node: Node<'a, 'p>,
    entries: Vec<(Cow<'a, str>, &'a RawValue, Cell<bool>)>,
    known: RefCell<Vec<&'static str>>,
}

impl<'a> Object<'a, '_> {
    /// The value of `key`; `null` is the same as leaving the key out.
    pub(crate) fn get<'s>(&'s self, key: &'static str) -> Option<Node<'a, 's>> {
        if let Ok(mut known) = self.known.try_borrow_mut()
            && !known.contains(&key)
        {
            known.push(key);
        }
        let (_, raw, taken) = self.entries.iter().find(|(own, ..)| own == key)?;
        taken.set(true);
        let node = Node { raw, path: Path::Key(&self.node.path, key), errors: self.node.errors };
        (!node.is_null()).then_some(node)
    }

    /// The value of `key`, with an error where it is missing.
    pub(crate) fn require<'s>(&'s self, key: &'static str) -> Option<Node<'a, 's>> {
        let node = self.get(key);
        if node.is_none() {
            self.node.errors.push(Path::Key(&self.node.path, key).to_string(), "is missing");
        }
        node
    }

    /// Whether it has no keys at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Adds an error at this object.
    pub(crate) fn error(&self, message: &str) {
        self.node.error(message);
    }

    /// Adds an error at a place in this object.
    pub(crate) fn error_at(&self, below: &str, message: &str) {
        self.node.error_at(below, message);
    }

    /// Every key with its value, for objects whose keys the user chooses.
    pub(crate) fn each(&self, mut entry: impl FnMut(&str, Node<'a, '_>)) {
        for (key, raw, taken) in &self.entries {
            taken.set(true);
            entry(key, Node { raw, path: Path::Key(&self.node.path, key), errors: self.node.errors });
        }
    }

    /// Reports the keys that nobody took.
    pub(crate) fn finish(self) {
        let known = self.known.into_inner();
        for (key, _, taken) in &self.entries {
            if taken.get() {
                continue;
            }
            let nearest = known.iter().map(|name| (distance(name, key), name)).min();
            let hint = match nearest {
                Some((distance, name)) if distance <= 2 && 2 * distance <= name.len().max(key.len()) => {
                    format!("; did you mean {name}?")
                }
                _ => format!("; known here: {}", known.join(", ")),
            };
            self.node.errors.push(Path::Key(&self.node.path, key).to_string(), format!("unknown key{hint}"));
        }
    }
}

/// Edits between two short names, at most 64 characters of each.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().take(64).enumerate() {
        let mut before = i;
        let mut left = i + 1;
        let mut next = vec![left];
        for (&cb, &above) in b.iter().zip(row.iter().skip(1)) {
            left = (before + usize::from(ca != cb)).min(above + 1).min(left + 1);
            before = above;
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}

/// A string borrowed from the text where it has no escapes.
struct CowText<'a>(Cow<'a, str>);

impl<'de> serde::Deserialize<'de> for CowText<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;
        impl<'de> Visitor<'de> for TextVisitor {
            type Value = CowText<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<CowText<'de>, E> {
                Ok(CowText(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<CowText<'de>, E> {
                Ok(CowText(Cow::Owned(text.into())))
            }
        }
        deserializer.deserialize_str(TextVisitor)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    Object,
    List,
}

enum Children<'a> {
    Object(Vec<(Cow<'a, str>, &'a RawValue, Cell<bool>)>),
    List(Vec<&'a RawValue>),
}

/// One level of a container; what is below stays text.
fn read(raw: &RawValue, shape: Shape) -> Option<Children<'_>> {
    let mut json = serde_json::Deserializer::from_str(raw.get());
    shape.deserialize(&mut json).ok()
}

impl<'de> DeserializeSeed<'de> for Shape {
    type Value = Children<'de>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Children<'de>, D::Error> {
        match self {
            Shape::Object => deserializer.deserialize_map(self),
            Shape::List => deserializer.deserialize_seq(self),
        }
    }
}

impl<'de> Visitor<'de> for Shape {
    type Value = Children<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Shape::Object { "an object" } else { "a list" })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Children<'de>, A::Error> {
        let mut entries = Vec::new();
        while let Some((key, value)) = map.next_entry::<CowText<'de>, &'de RawValue>()? {
            entries.push((key.0, value, Cell::new(false)));
        }
        Ok(Children::Object(entries))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Children<'de>, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element::<&'de RawValue>()? {
            items.push(item);
        }
        Ok(Children::List(items))
    }
}
