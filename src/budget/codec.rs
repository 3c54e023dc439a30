//! How counters are kept in the shared store.
//!
//! The store has no delete and no list, so counters hash into a fixed number of buckets, one key each. A bucket is a
//! version byte and then its counters: id, expiry and length in fixed places, so that others are skipped unread, and the
//! counter itself as MessagePack: first whose it is, which only people want to know and which is copied unread, then
//! how it stands. A bucket of another version cannot be read and counts as empty.

use super::{Amount, Key, Values};
use crate::money::Usd;
use rmp::{decode, encode};
use std::ops::Range;
use std::rc::Rc;

/// The version of this layout.
const VERSION: u8 = 1;

/// Length of what stands before a counter: id, expiry, length.
const FRONT_BYTES: usize = 8 + 8 + 4;

const PICO_PER_USD: i128 = 1_000_000_000_000;

/// Identity of a counter: a hash of budget and scope.
pub type CounterId = [u8; 8];

/// Whose a counter is, for people: the ledger itself goes by its id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The budget's name.
    pub budget: Rc<str>,
    /// The scope's values.
    pub scope: Values,
}

/// How one scope of one budget stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counter {
    /// When its window began, in seconds since 1970.
    pub window: u64,
    /// What has been spent in it.
    pub spent: Amount,
    /// Open holds, summed by the lease of the worker that made them.
    pub holds: Vec<(u64, Amount)>,
    /// The highest threshold of this window that an alert was given for, in percent.
    pub alerted: u32,
    /// A temporary increase of the limits, and when it ends.
    pub grant: Option<(Amount, u64)>,
}

type Written = Result<(), encode::ValueWriteError>;

impl Counter {
    fn write(&self, out: &mut Vec<u8>) -> Written {
        encode::write_uint(out, self.window)?;
        write_amount(out, &self.spent)?;
        encode::write_array_len(out, length(self.holds.len()))?;
        for (lease, held) in &self.holds {
            encode::write_uint(out, *lease)?;
            write_amount(out, held)?;
        }
        encode::write_uint(out, self.alerted.into())?;
        encode::write_array_len(out, self.grant.is_some().into())?;
        if let Some((amount, until)) = &self.grant {
            write_amount(out, amount)?;
            encode::write_uint(out, *until)?;
        }
        Ok(())
    }

    fn read(bytes: &mut &[u8]) -> Option<Counter> {
        let (window, spent) = (decode::read_int(bytes).ok()?, read_amount(bytes)?);
        let mut counter = Counter { window, spent, ..Counter::default() };
        for _ in 0..decode::read_array_len(bytes).ok()? {
            counter.holds.push((decode::read_int(bytes).ok()?, read_amount(bytes)?));
        }
        counter.alerted = decode::read_int(bytes).ok()?;
        if decode::read_array_len(bytes).ok()? > 0 {
            counter.grant = Some((read_amount(bytes)?, decode::read_int(bytes).ok()?));
        }
        Some(counter)
    }
}

/// What stands before the counter of a scope: of seven things the first two.
pub fn owner(budget: &str, scope: &[(Key, Box<str>)]) -> Vec<u8> {
    let mut out = Vec::with_capacity(48);
    // Writing to memory does not fail.
    let _ = write_owner(&mut out, budget, scope);
    out
}

fn write_owner(out: &mut Vec<u8>, budget: &str, scope: &[(Key, Box<str>)]) -> Written {
    encode::write_array_len(out, 7)?;
    encode::write_str(out, budget)?;
    encode::write_array_len(out, length(2 * scope.len()))?;
    scope.iter().flat_map(|(key, value)| [&**key, &**value]).try_for_each(|text| encode::write_str(out, text))
}

fn length(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

/// Passes over an owner, and gives the texts in it to `each`.
fn read_owner<'b>(bytes: &mut &'b [u8], mut each: impl FnMut(&'b [u8])) -> Option<()> {
    let mut text = |bytes: &mut &'b [u8]| {
        let length = usize::try_from(decode::read_str_len(bytes).ok()?).ok()?;
        let (text, rest) = bytes.split_at_checked(length)?;
        *bytes = rest;
        each(text);
        Some(())
    };
    (decode::read_array_len(bytes).ok()? == 7).then_some(())?;
    text(bytes)?;
    (0..decode::read_array_len(bytes).ok()?).try_for_each(|_| text(bytes))
}

/// Whole dollars, pico-dollars, tokens, calls.
fn write_amount(out: &mut Vec<u8>, amount: &Amount) -> Written {
    let pico = amount.usd.pico().max(0);
    let whole = u64::try_from(pico / PICO_PER_USD).unwrap_or(u64::MAX);
    let fraction = u64::try_from(pico % PICO_PER_USD).unwrap_or(0);
    [whole, fraction, amount.tokens, amount.calls].into_iter().try_for_each(|n| encode::write_uint(out, n).map(drop))
}

fn read_amount(bytes: &mut &[u8]) -> Option<Amount> {
    let mut next = || decode::read_int::<u64, _>(bytes).ok();
    let (whole, fraction, tokens, calls) = (next()?, next()?, next()?, next()?);
    let pico = i128::from(whole).saturating_mul(PICO_PER_USD).saturating_add(i128::from(fraction));
    Some(Amount { usd: Usd::from_pico(pico), tokens, calls })
}

/// A counter in its bucket.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'b> {
    /// Which.
    pub id: CounterId,
    /// From when on it may make room if it has no holds, in seconds since 1970; 0: never.
    pub expires: u64,
    body: &'b [u8],
}

impl<'b> Entry<'b> {
    /// Whose the counter is, as [`owner`] writes it, and the counter; `None` where either is damaged.
    pub fn counter(&self) -> Option<(&'b [u8], Counter)> {
        let mut rest = self.body;
        read_owner(&mut rest, |_| {})?;
        let (owner, _) = self.body.split_at_checked(self.body.len() - rest.len())?;
        Some((owner, Counter::read(&mut rest)?))
    }

    /// Whose the counter is; `None` where that can't be read.
    pub fn owner(&self) -> Option<Owner> {
        let mut texts = Vec::new();
        read_owner(&mut &*self.body, |text| texts.push(str::from_utf8(text)))?;
        let mut texts = texts.into_iter();
        let budget = texts.next()?.ok()?.into();
        let mut scope = Vec::with_capacity(texts.len() / 2);
        while let (Some(key), Some(value)) = (texts.next(), texts.next()) {
            scope.push((key.ok()?.into(), value.ok()?.into()));
        }
        Some(Owner { budget, scope: scope.into() })
    }

    /// Whether its time is over.
    pub fn is_over(&self, now: u64) -> bool {
        self.expires != 0 && self.expires < now
    }

    fn bytes(&self) -> usize {
        FRONT_BYTES + self.body.len()
    }
}

/// The counters of a bucket; what is damaged ends the list.
pub fn entries(bucket: &[u8]) -> impl Iterator<Item = Entry<'_>> {
    let mut rest = match bucket.split_first() {
        Some((&VERSION, rest)) => rest,
        _ => &[],
    };
    std::iter::from_fn(move || {
        let (&id, after) = rest.split_first_chunk::<8>()?;
        let (&expires, after) = after.split_first_chunk::<8>()?;
        let (&length, after) = after.split_first_chunk::<4>()?;
        let (body, after) = after.split_at_checked(usize::try_from(u32::from_be_bytes(length)).ok()?)?;
        rest = after;
        Some(Entry { id, expires: u64::from_be_bytes(expires), body })
    })
}

/// Why a counter could not be put into its bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// `bucket` with one counter in place of the one with its `id`, or beside the others. A new one makes those that have
/// expired give room where there is none left of `max_bytes`; one that was there may always grow.
///
/// # Errors
/// [`Full`] where a new counter finds no room.
pub fn with(
    bucket: &[u8],
    id: CounterId,
    expires: u64,
    owner: &[u8],
    counter: &Counter,
    max_bytes: usize,
    mut is_dead: impl FnMut(&Entry<'_>) -> bool,
) -> Result<Vec<u8>, Full> {
    let mut body = Vec::with_capacity(owner.len() + 96);
    body.extend_from_slice(owner);
    // Writing to memory does not fail.
    let _ = counter.write(&mut body);
    let own = Entry { id, expires, body: &body };
    let (before, others) = place(bucket, id);
    let full = |bytes: usize| bytes + own.bytes() > max_bytes;
    let mut out = Vec::with_capacity(bucket.len() + own.bytes() + 1);
    out.push(VERSION);
    if before.is_none() && full(bucket.len()) {
        entries(bucket).filter(|entry| !is_dead(entry)).for_each(|entry| write(&mut out, &entry));
    } else {
        let kept = before.clone().map_or([others.clone(), 0..0], |own| [others.start..own.start, own.end..others.end]);
        kept.into_iter().filter_map(|range| bucket.get(range)).for_each(|bytes| out.extend_from_slice(bytes));
    }
    if before.is_none() && full(out.len()) {
        return Err(Full);
    }
    write(&mut out, &own);
    Ok(out)
}

/// Where in a bucket the counter with this id is, and where all that can be read are.
fn place(bucket: &[u8], id: CounterId) -> (Option<Range<usize>>, Range<usize>) {
    let (mut own, mut end) = (None, 1);
    for entry in entries(bucket) {
        let start = end;
        end += entry.bytes();
        if entry.id == id {
            own = Some(start..end);
        }
    }
    (own, 1..end)
}

fn write(out: &mut Vec<u8>, entry: &Entry<'_>) {
    out.extend_from_slice(&entry.id);
    out.extend_from_slice(&entry.expires.to_be_bytes());
    // A counter is a few hundred bytes.
    out.extend_from_slice(&u32::try_from(entry.body.len()).unwrap_or(0).to_be_bytes());
    out.extend_from_slice(entry.body);
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn owned_by(scope: &str) -> Owner {
        Owner { budget: "month".into(), scope: [("department".into(), scope.into())].into() }
    }

    fn counter(pico: i128) -> Counter {
        Counter {
            window: 1_795_262_400,
            spent: Amount { usd: Usd::from_pico(pico), tokens: u64::MAX, calls: 3 },
            holds: vec![(7, Amount { usd: Usd::from_pico(1), tokens: 2, calls: 1 })],
            alerted: 80,
            grant: Some((Amount { usd: Usd::from_pico(5), ..Amount::default() }, 9)),
        }
    }

    fn put(
        bucket: &[u8],
        id: u8,
        expires: u64,
        (scope, counter): (&str, &Counter),
        max_bytes: usize,
        now: u64,
    ) -> Result<Vec<u8>, Full> {
        let Owner { budget, scope } = owned_by(scope);
        with(bucket, [id; 8], expires, &owner(&budget, &scope), counter, max_bytes, |entry| entry.is_over(now))
    }

    #[test]
    fn what_is_written_reads_back_the_same() {
        for pico in [0, 1, 999_999_999_999, 1_000_000_000_000, 123_456_789_012_345_678_901] {
            let bucket = put(&[], 1, 5, ("sales", &counter(pico)), 4096, 0).unwrap();
            let read = |entry: Entry<'_>| (entry.id, entry.expires, entry.owner(), entry.counter().unwrap().1);
            let found: Vec<_> = entries(&bucket).map(read).collect();
            assert_eq!(found, [([1; 8], 5, Some(owned_by("sales")), counter(pico))], "{pico}");
        }
    }

    #[test]
    fn a_counter_takes_the_place_of_its_earlier_self_and_leaves_the_others() {
        let mut bucket = put(&[], 1, 0, ("a", &counter(1)), 4096, 0).unwrap();
        bucket = put(&bucket, 2, 0, ("b", &counter(2)), 4096, 0).unwrap();
        bucket = put(&bucket, 1, 0, ("a", &counter(3)), 4096, 0).unwrap();
        let found: Vec<_> = entries(&bucket).map(|entry| entry.counter().unwrap().1.spent.usd.pico()).collect();
        assert_eq!(found, [2, 3]);
    }

    #[test]
    fn only_what_has_expired_makes_room_and_only_where_room_is_needed() {
        let one = put(&[], 1, 10, ("a", &counter(1)), 4096, 0).unwrap();
        let room_for_two = 2 * one.len();
        let two = put(&one, 2, 0, ("b", &counter(2)), room_for_two, 99).unwrap();
        assert_eq!(entries(&two).count(), 2, "there was room");
        assert_eq!(put(&two, 3, 0, ("c", &counter(3)), room_for_two, 9), Err(Full), "both are alive");
        let three = put(&two, 3, 0, ("c", &counter(3)), room_for_two, 11).unwrap();
        assert_eq!(entries(&three).map(|entry| entry.id[0]).collect::<Vec<_>>(), [2, 3]);
        let mut grown = counter(2);
        grown.holds = (0..50).map(|lease| (lease, Amount::default())).collect();
        assert!(put(&two, 2, 0, ("b", &grown), room_for_two, 9).is_ok(), "what is there may grow");
    }

    #[test]
    fn damage_loses_what_is_behind_it_and_never_panics() {
        let bucket = put(&[], 1, 0, ("a", &counter(1)), 4096, 0).unwrap();
        for cut in 0..bucket.len() {
            assert_eq!(entries(&bucket[..cut]).count(), 0, "{cut}");
        }
        let mut other_version = bucket.clone();
        other_version[0] = 9;
        assert_eq!(entries(&other_version).count(), 0);
        for at in 0..bucket.len() {
            let mut damaged = bucket.clone();
            damaged[at] ^= 0xff;
            entries(&damaged).for_each(|entry| drop(entry.counter()));
        }
    }
}
