//! The scopes that a budget has met lately. The id of a counter is a SHA-256 over its scope, which takes longer than all
//! else about one; most calls are from those who made the ones before.

use super::Values;
use super::codec::CounterId;
use std::cell::RefCell;

/// Scopes that are remembered. Names are the callers' own, so there may be any number of them.
const SLOTS: usize = 32;

/// Scopes with the ids of their counters, each in the slot that its values lead to; another one there makes room.
#[derive(Clone, Debug, Default)]
pub struct Recent(RefCell<Vec<Option<(Values, CounterId)>>>);

impl Recent {
    /// The scope of these values, one for each key of the budget, and its counter; `make` says what they are.
    pub(super) fn find(&self, values: &[&str], make: impl FnOnce() -> (Values, CounterId)) -> (Values, CounterId) {
        let Ok(mut slots) = self.0.try_borrow_mut() else { return make() };
        slots.resize(SLOTS, None);
        let Some(slot) = slots.get_mut(slot(values)) else { return make() };
        match slot {
            Some((scope, id)) if scope.iter().map(|(_, value)| &**value).eq(values.iter().copied()) => {
                (scope.clone(), *id)
            }
            _ => slot.insert(make()).clone(),
        }
    }
}

/// FNV-1a: a scope that somebody has chosen to fall on another's slot costs no more than a new one.
fn slot(values: &[&str]) -> usize {
    let bytes = values.iter().flat_map(|value| value.bytes().chain([0xff]));
    let hash = bytes.fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    usize::try_from(hash >> 16).unwrap_or(0) % SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn made(values: &[&str]) -> (Values, CounterId) {
        let scope = values.iter().map(|value| ("key".into(), (*value).into())).collect();
        let mut id = [0xff; 8];
        values.concat().bytes().zip(&mut id).for_each(|(byte, place)| *place = byte);
        (scope, id)
    }

    #[test]
    fn a_scope_that_is_remembered_is_the_one_that_would_be_made() {
        let recent = Recent::default();
        let numbers: Vec<_> = (0..200).map(|number: u32| number.to_string()).collect();
        for round in 0..3 {
            for (at, number) in numbers.iter().enumerate() {
                let other = &numbers[at * 7 % 200];
                for values in [&[&**number][..], &[number, other], &[number, ""], &[""], &[]] {
                    assert_eq!(recent.find(values, || made(values)), made(values), "round {round}: {values:?}");
                }
            }
        }
        assert_eq!(recent.0.borrow().len(), SLOTS, "it is bounded");
    }

    #[test]
    fn a_scope_is_made_once_while_no_other_takes_its_place() {
        let recent = Recent::default();
        let mut count = 0;
        let mut find = |value: &str| {
            recent.find(&[value], || {
                count += 1;
                made(&[value])
            });
        };
        ["sales", "support", "sales", "support", "sales"].into_iter().for_each(&mut find);
        assert_ne!(slot(&["sales"]), slot(&["support"]));
        assert_eq!(count, 2);
    }
}
