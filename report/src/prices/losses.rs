//! What became of every entry and every price of the source: nothing is left out without a word.

use super::amount::Amount;
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::{self, Write};

/// How many places are named for each kind of loss.
const EXAMPLES: usize = 3;

/// How often something happened, and some of the places.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Tally {
    /// How often.
    pub(crate) count: usize,
    /// How many of these were prices of zero.
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) zero: usize,
    /// The first few places.
    pub(crate) examples: Vec<String>,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde's signature
fn is_zero(count: &usize) -> bool {
    *count == 0
}

impl Tally {
    fn add(&mut self, place: &str) {
        self.count += 1;
        if self.examples.len() < EXAMPLES && !self.examples.iter().any(|known| known == place) {
            self.examples.push(place.into());
        }
    }
}

/// A kind of price that the table cannot say.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) struct Loss {
    /// The source's key.
    pub(crate) key: String,
    /// Why it was left out.
    pub(crate) reason: String,
}

/// The result of an import.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Report {
    /// Where the prices are from.
    pub(crate) source: String,
    /// Entries in the source.
    pub(crate) read: usize,
    /// Of these: not asked for.
    pub(crate) filtered_out: usize,
    /// Models written.
    pub(crate) models: usize,
    /// Single prices of the source that are in these models.
    pub(crate) prices: usize,
    /// Entries that went into another one of the same provider and model.
    pub(crate) merged: Tally,
    /// Entries left out, by reason.
    pub(crate) skipped: BTreeMap<String, Tally>,
    /// Prices and names changed on the way, by how.
    pub(crate) changed: BTreeMap<String, Tally>,
    /// Prices and names left out.
    #[serde(serialize_with = "as_list")]
    pub(crate) not_carried: BTreeMap<Loss, Tally>,
    /// Names asked for that no entry has.
    pub(crate) not_found: Vec<String>,
}

fn as_list<S: serde::Serializer>(losses: &BTreeMap<Loss, Tally>, to: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Line<'a> {
        #[serde(flatten)]
        loss: &'a Loss,
        #[serde(flatten)]
        tally: &'a Tally,
    }
    to.collect_seq(losses.iter().map(|(loss, tally)| Line { loss, tally }))
}

impl Report {
    /// An entry was left out.
    pub(crate) fn skip(&mut self, entry: &str, reason: &str) {
        self.skipped.entry(reason.into()).or_default().add(entry);
    }

    /// An entry says the same as another one, or a part of it.
    pub(crate) fn merged_into(&mut self, entry: &str) {
        self.merged.add(entry);
    }

    /// Something was changed on the way.
    pub(crate) fn change(&mut self, entry: &str, how: &str) {
        self.changed.entry(how.into()).or_default().add(entry);
    }

    /// A price or a name could not be carried over.
    pub(crate) fn lose(&mut self, entry: &str, key: &str, reason: &str) {
        self.lose_price(entry, key, None, reason);
    }

    /// The same; a price of zero is counted apart, since less is lost.
    pub(crate) fn lose_price(&mut self, entry: &str, key: &str, price: Option<&Amount>, reason: &str) {
        let tally = self.not_carried.entry(Loss { key: key.into(), reason: reason.into() }).or_default();
        tally.add(entry);
        tally.zero += usize::from(price.is_some_and(Amount::is_zero));
    }

    /// How many prices and names could not be carried over so far.
    pub(crate) fn lost(&self) -> usize {
        self.not_carried.values().map(|tally| tally.count).sum()
    }

    /// For people.
    pub(crate) fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(
            out,
            "{}: {} entries read, {} models written, {} prices carried over",
            self.source, self.read, self.models, self.prices
        )?;
        if self.filtered_out > 0 {
            writeln!(out, "  not asked for: {}", self.filtered_out)?;
        }
        if self.merged.count > 0 {
            line(out, "the same model under another name", &self.merged)?;
        }
        for (heading, tallies) in [("left out", &self.skipped), ("changed", &self.changed)] {
            if !tallies.is_empty() {
                writeln!(out, "{heading}:")?;
            }
            tallies.iter().try_for_each(|(what, tally)| line(out, what, tally))?;
        }
        if !self.not_carried.is_empty() {
            writeln!(out, "not carried over:")?;
        }
        for (Loss { key, reason }, tally) in &self.not_carried {
            line(out, &format!("{key} ({reason})"), tally)?;
        }
        for name in &self.not_found {
            writeln!(out, "  nothing in the source is called {name}")?;
        }
        Ok(())
    }
}

fn line(out: &mut dyn Write, what: &str, tally: &Tally) -> io::Result<()> {
    let zero = if tally.zero > 0 { format!(", {} of them zero", tally.zero) } else { String::new() };
    let more = if tally.count > tally.examples.len() { ", …" } else { "" };
    writeln!(out, "  {what}: {}{zero}, as in {}{more}", tally.count, tally.examples.join(", "))
}
