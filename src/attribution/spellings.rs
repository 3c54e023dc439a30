//! Values that are nearly the same: `Chatbot`, `chatbot` and `chat-bot` are three lines in a report and one feature.
//!
//! One for each VM, in bounded memory: what is seen first counts as the right spelling, and each other spelling of it
//! is reported once, up to a number per dimension.

use super::Name;
use std::collections::{BTreeMap, BTreeSet};

/// Dimensions that are watched; there are 16 built-in ones.
const MAX_DIMENSIONS: usize = 48;
/// Different values of one dimension that are remembered.
const MAX_VALUES: usize = 256;
/// Other spellings of one dimension that are reported.
const MAX_REPORTED: usize = 20;

/// The spellings that were seen.
#[derive(Debug, Default)]
pub struct Spellings {
    /// A handful: looking them through is faster than any map.
    dimensions: Vec<(Name, Seen)>,
}

#[derive(Debug, Default)]
struct Seen {
    values: BTreeSet<Box<str>>,
    /// The first spelling of each value, by its letters and digits in lower case.
    first: BTreeMap<Box<str>, Box<str>>,
    reported: usize,
}

impl Spellings {
    /// Sees a value; returns the spelling that was first where this one is new and differs from it only in case and
    /// punctuation.
    pub fn see(&mut self, dimension: &Name, value: &str) -> Option<&str> {
        let known = self.dimensions.iter().position(|(own, _)| own == dimension);
        let at = known.unwrap_or(self.dimensions.len());
        if known.is_none() && at < MAX_DIMENSIONS {
            self.dimensions.push((dimension.clone(), Seen::default()));
        }
        self.dimensions.get_mut(at)?.1.see(value)
    }
}

impl Seen {
    fn see(&mut self, value: &str) -> Option<&str> {
        if self.values.contains(value) || self.values.len() >= MAX_VALUES || self.reported >= MAX_REPORTED {
            return None;
        }
        self.values.insert(value.into());
        let folded: String = value.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect();
        if folded.is_empty() {
            return None;
        }
        match self.first.entry(folded.into()) {
            std::collections::btree_map::Entry::Vacant(vacant) => {
                vacant.insert(value.into());
                None
            }
            std::collections::btree_map::Entry::Occupied(first) => {
                self.reported += 1;
                Some(first.into_mut())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn each_other_spelling_is_reported_once_with_the_first_one() {
        let mut spellings = Spellings::default();
        for (dimension, value, first) in [
            ("feature", "chatbot", None),
            ("feature", "search", None),
            ("feature", "Chatbot", Some("chatbot")),
            ("feature", "chat-bot", Some("chatbot")),
            ("feature", "Chatbot", None),
            ("feature", "chatbot", None),
            ("feature", "chatbots", None),
            ("team", "Chatbot", None),
            ("feature", "--", None),
            ("feature", "__", None),
            ("feature", "ÉTÉ", None),
            ("feature", "été", Some("ÉTÉ")),
        ] {
            assert_eq!(spellings.see(&Name::new(dimension), value), first, "{dimension}: {value}");
        }
    }

    #[test]
    fn what_is_remembered_and_reported_is_bounded() {
        let mut spellings = Spellings::default();
        let reported = (0..1000)
            .filter(|n| spellings.see(&Name::new("feature"), &format!("a{}", "-".repeat(*n))).is_some())
            .count();
        assert_eq!(reported, MAX_REPORTED);
        for n in 0..1000 {
            spellings.see(&Name::new("team"), &format!("t{n}"));
            spellings.see(&Name::new(&format!("d{n}")), "x");
        }
        assert_eq!(spellings.dimensions.len(), MAX_DIMENSIONS);
        let team = spellings.dimensions.iter().find(|(name, _)| name.as_str() == "team").unwrap();
        assert_eq!(team.1.values.len(), MAX_VALUES);
    }
}
