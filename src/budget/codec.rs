//! How counters are kept in the shared store.
//!
//! The store has no delete and no list, so counters hash into a fixed number of buckets, one key each. A bucket is a
//! version byte and then its counters: id, expiry and length in fixed places, so that others are skipped unread, and the
//! counter itself as MessagePack. A bucket of another version cannot be read and counts as empty.

use super::{Amount, Values};
use crate::money::Usd;
use rmp::{decode, encode};

/// The version of this layout.
const VERSION: u8 = 1;

/// Length of what stands before a counter: id, expiry, length.
const FRONT_BYTES: usize = 8 + 8 + 4;

const PICO_PER_USD: i128 = 1_000_000_000_000;

/// Identity of a counter: a hash of budget and scope.
pub type CounterId = [u8; 8];

/// What is kept of one scope of one budget.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counter {
    /// The budget's name, for people.
    pub budget: Box<str>,
    /// The scope's values, for people.
    pub scope: Values,
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
        encode::write_array_len(out, 7)?;
        encode::write_str(out, &self.budget)?;
        encode::write_array_len(out, length(2 * self.scope.len()))?;
        for text in self.scope.iter().flat_map(|(key, value)| [key, value]) {
            encode::write_str(out, text)?;
        }
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
        (decode::read_array_len(bytes).ok()? == 7).then_some(())?;
        let mut counter = Counter { budget: read_text(bytes)?, ..Counter::default() };
        for _ in 0..decode::read_array_len(bytes).ok()? / 2 {
            counter.scope.push((read_text(bytes)?, read_text(bytes)?));
        }
        counter.window = decode::read_int(bytes).ok()?;
        counter.spent = read_amount(bytes)?;
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

fn length(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

fn read_text(bytes: &mut &[u8]) -> Option<Box<str>> {
    let (text, rest) = decode::read_str_from_slice(*bytes).ok()?;
    *bytes = rest;
    Some(text.into())
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

impl Entry<'_> {
    /// The counter; `None` where it is damaged.
    pub fn counter(&self) -> Option<Counter> {
        Counter::read(&mut &*self.body)
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
    counter: &Counter,
    max_bytes: usize,
    mut is_dead: impl FnMut(&Entry<'_>) -> bool,
) -> Result<Vec<u8>, Full> {
    let mut body = Vec::with_capacity(96);
    // Writing to memory does not fail.
    let _ = counter.write(&mut body);
    let own = Entry { id, expires, body: &body };
    let is_new = !entries(bucket).any(|entry| entry.id == id);
    let full = |bytes: usize| bytes + own.bytes() > max_bytes;
    let evict = is_new && full(bucket.len());
    let mut out = Vec::with_capacity(bucket.len() + own.bytes() + 1);
    out.push(VERSION);
    for entry in entries(bucket).filter(|entry| entry.id != id && !(evict && is_dead(entry))) {
        write(&mut out, &entry);
    }
    if is_new && full(out.len()) {
        return Err(Full);
    }
    write(&mut out, &own);
    Ok(out)
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

    fn counter(scope: &str, pico: i128) -> Counter {
        Counter {
            budget: "month".into(),
            scope: vec![("department".into(), scope.into())],
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
        counter: &Counter,
        max_bytes: usize,
        now: u64,
    ) -> Result<Vec<u8>, Full> {
        with(bucket, [id; 8], expires, counter, max_bytes, |entry| entry.is_over(now))
    }

    #[test]
    fn what_is_written_reads_back_the_same() {
        for pico in [0, 1, 999_999_999_999, 1_000_000_000_000, 123_456_789_012_345_678_901] {
            let bucket = put(&[], 1, 5, &counter("sales", pico), 4096, 0).unwrap();
            let found: Vec<_> =
                entries(&bucket).map(|entry| (entry.id, entry.expires, entry.counter().unwrap())).collect();
            assert_eq!(found, [([1; 8], 5, counter("sales", pico))], "{pico}");
        }
    }

    #[test]
    fn a_counter_takes_the_place_of_its_earlier_self_and_leaves_the_others() {
        let mut bucket = put(&[], 1, 0, &counter("a", 1), 4096, 0).unwrap();
        bucket = put(&bucket, 2, 0, &counter("b", 2), 4096, 0).unwrap();
        bucket = put(&bucket, 1, 0, &counter("a", 3), 4096, 0).unwrap();
        let found: Vec<_> = entries(&bucket).map(|entry| entry.counter().unwrap().spent.usd.pico()).collect();
        assert_eq!(found, [2, 3]);
    }

    #[test]
    fn only_what_has_expired_makes_room_and_only_where_room_is_needed() {
        let one = put(&[], 1, 10, &counter("a", 1), 4096, 0).unwrap();
        let room_for_two = 2 * one.len();
        let two = put(&one, 2, 0, &counter("b", 2), room_for_two, 99).unwrap();
        assert_eq!(entries(&two).count(), 2, "there was room");
        assert_eq!(put(&two, 3, 0, &counter("c", 3), room_for_two, 9), Err(Full), "both are alive");
        let three = put(&two, 3, 0, &counter("c", 3), room_for_two, 11).unwrap();
        assert_eq!(entries(&three).map(|entry| entry.id[0]).collect::<Vec<_>>(), [2, 3]);
        let mut grown = counter("b", 2);
        grown.holds = (0..50).map(|lease| (lease, Amount::default())).collect();
        assert!(put(&two, 2, 0, &grown, room_for_two, 9).is_ok(), "what is there may grow");
    }

    #[test]
    fn damage_loses_what_is_behind_it_and_never_panics() {
        let bucket = put(&[], 1, 0, &counter("a", 1), 4096, 0).unwrap();
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
