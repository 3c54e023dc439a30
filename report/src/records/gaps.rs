//! Numbers that are missing: the calls of a VM are numbered from 1, so a number between two others that no record has
//! is a record that was lost.
//!
//! Below the lowest and above the highest number nothing is missing for all that is known: files begin and end somewhere.

use serde::Serialize;
use std::collections::BTreeMap;

/// Ranges without a record that are named, for all VMs together.
const MAX_NAMED: usize = 20;

/// The numbers that were met, by VM. Records come in about the order of their numbers, so there are few ranges.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    instances: BTreeMap<Box<str>, Ranges>,
}

/// The last number of each range, by its first one. Ranges neither touch nor overlap.
#[derive(Debug, Default)]
struct Ranges(BTreeMap<u64, u64>);

impl Ranges {
    fn insert(&mut self, number: u64) {
        let before = self.0.range(..=number).next_back().map(|(&first, &last)| (first, last));
        if before.is_some_and(|(_, last)| last >= number) {
            return;
        }
        let first = before.filter(|(_, last)| last.checked_add(1) == Some(number)).map_or(number, |(first, _)| first);
        let behind = number.checked_add(1).and_then(|next| self.0.remove(&next));
        self.0.insert(first, behind.unwrap_or(number));
    }

    /// The first and the last number of each gap.
    fn gaps(&self) -> impl Iterator<Item = (u64, u64)> {
        let ends = self.0.values().map(|last| last.saturating_add(1));
        let starts = self.0.keys().skip(1).map(|first| first.saturating_sub(1));
        ends.zip(starts)
    }
}

/// What is missing.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Missing {
    /// Records.
    pub(super) records: u64,
    /// VMs that have gaps.
    pub(super) instances: u64,
    /// The first gaps.
    pub(super) gaps: Vec<Gap>,
}

/// Numbers that follow each other and that no record has.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Gap {
    pub(super) instance: Box<str>,
    pub(super) first_seq: u64,
    pub(super) last_seq: u64,
}

impl Numbers {
    /// There is a record of `instance` with `seq`.
    pub(super) fn insert(&mut self, instance: &str, seq: u64) {
        match self.instances.get_mut(instance) {
            Some(ranges) => ranges.insert(seq),
            None => self.instances.entry(instance.into()).or_default().insert(seq),
        }
    }

    /// What is missing between the records there are.
    pub(super) fn missing(&self) -> Missing {
        let mut missing = Missing::default();
        for (instance, ranges) in &self.instances {
            missing.instances += u64::from(ranges.gaps().next().is_some());
            for (first_seq, last_seq) in ranges.gaps() {
                missing.records = missing.records.saturating_add(last_seq.saturating_sub(first_seq).saturating_add(1));
                if missing.gaps.len() < MAX_NAMED {
                    missing.gaps.push(Gap { instance: instance.clone(), first_seq, last_seq });
                }
            }
        }
        missing
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn missing(numbers: &[(&str, u64)]) -> (u64, u64, Vec<(String, u64, u64)>) {
        let mut all = Numbers::default();
        for (instance, seq) in numbers {
            all.insert(instance, *seq);
        }
        let Missing { records, instances, gaps } = all.missing();
        let gaps = gaps.into_iter().map(|gap| (gap.instance.into(), gap.first_seq, gap.last_seq)).collect();
        (records, instances, gaps)
    }

    #[test]
    fn a_gap_lies_between_two_numbers_of_one_vm() {
        assert_eq!(missing(&[]), (0, 0, vec![]));
        assert_eq!(missing(&[("a", 3), ("a", 1), ("b", 7), ("a", 2), ("b", 7)]), (0, 0, vec![]));
        assert_eq!(missing(&[("a", 1), ("b", 3), ("a", 5)]), (3, 1, vec![("a".into(), 2, 4)]));
        let ends = [("a", 0), ("a", u64::MAX), ("a", u64::MAX - 1)];
        assert_eq!(missing(&ends), (u64::MAX - 2, 1, vec![("a".into(), 1, u64::MAX - 2)]));
    }

    proptest! {
        #[test]
        fn gaps_are_all_numbers_that_were_not_met(numbers in prop::collection::vec(0u64..40, 1..40)) {
            let met: BTreeSet<u64> = numbers.iter().copied().collect();
            let between = *met.first().unwrap()..=*met.last().unwrap();
            let expected: Vec<u64> = between.filter(|number| !met.contains(number)).collect();
            let numbers: Vec<_> = numbers.iter().map(|&number| ("a", number)).collect();
            let (records, _, gaps) = missing(&numbers);
            prop_assert_eq!(records, u64::try_from(expected.len()).unwrap());
            let listed: Vec<u64> = gaps.iter().flat_map(|(_, first, last)| *first..=*last).collect();
            prop_assert_eq!(listed, expected);
        }
    }
}
