//! The ledger: what has been spent and what is held, in the store that all workers of an Envoy share.
//!
//! Each change of a counter is one compare-and-swap, so that no order of workers loses or doubles anything. Holds and
//! spend are apart: a hold is an upper bound of what a call under way may cost, and settling replaces it by what it did
//! cost. Holds are summed by lease. Every worker renews its lease; the holds of one that does not come back are void once
//! the lease is over, and are ignored until then by nobody. Where the clock jumps, either way, every lease counts until its
//! worker has had the time to renew it. A settlement that other workers or the store keep out is kept here and tried again
//! until it is counted. Only what holds nothing and finds no room is not counted, and whoever settles or ticks hears of it.

mod standing;

pub use super::codec::Full;
pub use standing::{Refused, Standing};

use super::codec::{self, Counter, CounterId, Owner};
use super::{Amount, Limits, Values};
use crate::host::{SharedStore, StoreError, Version};
use hashbrown::HashMap;
use std::borrow::Cow;
use std::rc::Rc;

/// Keys of the ledger in the store.
pub const BUCKETS: u16 = 8192;

/// Other workers that may get in first before a reservation gives up.
const MAX_CONFLICTS: u32 = 32;

/// How long after its lease a worker's holds are kept, in seconds, should it come back after all.
const KEEP_SECS: u64 = 600;

/// How long a counter is kept in which nothing was spent and nothing is held, in seconds: many refused calls leave one.
const UNUSED_SECS: u64 = 60;

/// Larger buckets are not kept while a call's body comes: many calls do that at a time.
const MAX_SEEN_BYTES: usize = 1024;

/// Earlier leases of one worker that are renewed along with its own.
const MAX_FORMER: usize = 8;

/// The settings of a ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LedgerConfig {
    /// The most memory it may take, in bytes; holds may exceed it a little.
    pub max_bytes: usize,
    /// Whether a call passes, ungoverned, where a new scope finds no room.
    pub admit_when_full: bool,
    /// Whether a call passes, ungoverned, where the store fails or other workers keep this one out.
    pub admit_on_contention: bool,
    /// How long a worker may be silent before its holds are void, in seconds.
    pub lease_secs: u64,
}

impl Default for LedgerConfig {
    fn default() -> LedgerConfig {
        LedgerConfig { max_bytes: 64 << 20, admit_when_full: false, admit_on_contention: false, lease_secs: 30 }
    }
}

impl LedgerConfig {
    fn bucket_bytes(&self) -> usize {
        self.max_bytes / usize::from(BUCKETS)
    }
}

/// One scope of one budget, as the ledger has to know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Which counter.
    pub id: CounterId,
    /// The budget's name.
    pub budget: Rc<str>,
    /// The scope's values.
    pub scope: Values,
    /// When the window of now began, in seconds since 1970.
    pub window: u64,
    /// When it ends; `None`: never.
    pub window_end: Option<u64>,
    /// How long a scope without a window's end is remembered after its last use, in seconds.
    pub idle_ttl_secs: Option<u64>,
}

/// A counter's bucket as it was read, for the first try to change it: a write on what has changed since is a conflict.
#[derive(Clone, Debug)]
pub struct Seen {
    bucket: Stored,
    at: u64,
}

/// What the store has of a key.
type Stored = Option<(Vec<u8>, Version)>;

/// A hold, to be settled once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Where.
    pub account: Account,
    /// How much.
    pub amount: Amount,
    /// How the counter stood with it.
    pub standing: Standing,
    /// By whom; `None`: by nobody, it is only to be counted in the end.
    lease: Option<u64>,
}

impl Held {
    /// For a call that passes without a hold: what it costs is counted when it is settled.
    pub fn unheld(account: Account, amount: Amount) -> Held {
        Held { account, amount, standing: Standing::default(), lease: None }
    }
}

/// What a settlement came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// The thresholds that were reached for the first time in this window, in percent.
    pub alerts: Vec<u32>,
    /// How the counter stands now.
    pub standing: Standing,
}

/// A settlement that has not gone through yet.
#[derive(Clone, Debug)]
struct Owed {
    held: Held,
    spent: Amount,
    thresholds: Box<[u32]>,
    limits: Limits,
}

/// A settlement that was owed and is over, of which there is something to tell.
#[derive(Clone, Debug)]
pub struct Late {
    /// Where.
    pub account: Account,
    /// Against which limits.
    pub limits: Limits,
    /// The thresholds it reached; [`Full`] where it found no room and is not counted.
    pub settled: Result<Settled, Full>,
}

/// A worker's side of the ledger.
#[derive(Debug, Default)]
pub struct Ledger {
    /// The number of this worker's lease; 0 before it has one.
    lease: u64,
    /// Its numbers before, the latest last: calls under way may still hold something by them.
    former: Vec<u64>,
    /// When the lease was renewed; 0: never.
    renewed_at: u64,
    /// The clock was last looked at.
    seen_at: u64,
    /// Until then every lease counts: this worker slept, or the clock jumped, and others may not have renewed yet.
    grace_until: u64,
    /// When other workers' leases were renewed, as far as this one has looked.
    leases: HashMap<u64, u64>,
    owed: Vec<Owed>,
}

/// A counter in its bucket.
struct Found<'b> {
    /// Whose it is, as it is written.
    owner: Cow<'b, [u8]>,
    counter: Counter,
    /// When it was to expire.
    expires: u64,
}

/// The store, the time and the settings: what every operation needs.
pub struct Access<'a> {
    /// Where counters are.
    pub store: &'a mut dyn SharedStore,
    /// Seconds since 1970.
    pub now: u64,
    /// The ledger's settings.
    pub config: &'a LedgerConfig,
}

impl Ledger {
    /// A worker's side; `lease` is a number no other worker has had.
    pub fn new(lease: u64) -> Ledger {
        Ledger { lease, ..Ledger::default() }
    }

    /// To be called about once a second: renews the lease, and tries again what is owed. Gives those of them that
    /// alerts are due for, and those that found no room.
    pub fn tick(&mut self, at: &mut Access<'_>) -> Vec<Late> {
        self.look_at_clock(at);
        if self.renewed_at != at.now {
            self.renew(at);
        }
        let mut late = Vec::new();
        for Owed { held, spent, thresholds, limits } in std::mem::take(&mut self.owed) {
            let account = held.account.clone();
            let settled = self.settle(at, held, spent, &thresholds, &limits);
            if !settled.as_ref().is_ok_and(|settled| settled.alerts.is_empty()) {
                late.push(Late { account, limits, settled });
            }
        }
        late
    }

    /// Settlements that wait for the store.
    pub fn owed(&self) -> usize {
        self.owed.len()
    }

    /// Holds `amount` if `limits` leave room for it, or in any case where there are none.
    ///
    /// # Errors
    /// See [`Refused`]; [`Refused::Unavailable`] also where the lease can't be renewed, as nobody else would count the hold.
    pub fn reserve(
        &mut self,
        at: &mut Access<'_>,
        account: &Account,
        amount: Amount,
        limits: Option<&Limits>,
    ) -> Result<Held, Refused> {
        self.reserve_seen(at, account, amount, limits, None)
    }

    /// The same for an account that was looked at a moment ago: what was read then need not be read again, if it still is
    /// what the store has.
    ///
    /// # Errors
    /// As [`Ledger::reserve`].
    pub fn reserve_seen(
        &mut self,
        at: &mut Access<'_>,
        account: &Account,
        amount: Amount,
        limits: Option<&Limits>,
        seen: Option<Seen>,
    ) -> Result<Held, Refused> {
        self.look_at_clock(at);
        if !at.is_fresh(self.renewed_at) {
            return Err(Refused::Unavailable);
        }
        let lease = self.lease;
        let hold = |counter: &mut Counter, standing: &Standing| {
            if let Some(limits) = limits {
                limits.admit(standing, &amount)?;
            }
            match counter.holds.iter_mut().find(|(owner, _)| *owner == lease) {
                Some((_, held)) => *held = held.plus(&amount),
                None => counter.holds.push((lease, amount)),
            }
            Ok(())
        };
        let standing = self.change(at, account, seen, hold)?;
        Ok(Held { account: account.clone(), amount, standing, lease: Some(lease) })
    }

    /// Replaces a hold by what the call cost. `thresholds` are percentages of `limits`, ascending.
    ///
    /// # Errors
    /// [`Full`] where nothing was held, see [`Held::unheld`], and there is no room for a new scope: then it is not counted.
    pub fn settle(
        &mut self,
        at: &mut Access<'_>,
        held: Held,
        spent: Amount,
        thresholds: &[u32],
        limits: &Limits,
    ) -> Result<Settled, Full> {
        let mut alerts = Vec::new();
        let settle = |counter: &mut Counter, standing: &Standing| {
            if let Some((_, sum)) = counter.holds.iter_mut().find(|(owner, _)| Some(*owner) == held.lease) {
                *sum = sum.minus(&held.amount);
            }
            counter.spent = counter.spent.plus(&spent);
            alerts.clear();
            if !thresholds.is_empty() {
                let reached = limits.with(&standing.granted).percent_of(&counter.spent);
                let new = |threshold: &&u32| **threshold <= reached && **threshold > counter.alerted;
                alerts.extend(thresholds.iter().filter(new));
                counter.alerted = alerts.last().copied().unwrap_or(counter.alerted);
            }
            Ok(())
        };
        match self.change(at, &held.account, None, settle) {
            Ok(standing) => Ok(Settled { alerts, standing }),
            // Tried again it would wait for as long as others need the room, and many such calls for ever.
            Err(Refused::Full) if held.lease.is_none() => Err(Full),
            Err(_) => {
                self.owed.push(Owed { held, spent, thresholds: thresholds.into(), limits: *limits });
                Ok(Settled::default())
            }
        }
    }

    /// Gives a hold back: the call was not made. Where nothing was held, nothing is written.
    pub fn release(&mut self, at: &mut Access<'_>, held: Held) {
        if held.lease.is_none() {
            return;
        }
        // What is held needs no room, and is owed where it can't be given back now.
        let _ = self.settle(at, held, Amount::default(), &[], &Limits::default());
    }

    /// How an account stands.
    ///
    /// # Errors
    /// [`Refused::Unavailable`].
    pub fn standing(&mut self, at: &mut Access<'_>, account: &Account) -> Result<Standing, Refused> {
        self.look(at, account).map(|(standing, _)| standing)
    }

    /// How an account stands, and what was read to tell: for [`Ledger::reserve_seen`].
    ///
    /// # Errors
    /// [`Refused::Unavailable`].
    pub fn look(&mut self, at: &mut Access<'_>, account: &Account) -> Result<(Standing, Option<Seen>), Refused> {
        self.look_at_clock(at);
        let bucket = at.store.get(&key(account.id)).map_err(|_| Refused::Unavailable)?;
        let bytes = bucket.as_ref().map_or(&[][..], |(value, _)| value);
        let found = self.find(at, bytes, account);
        let standing = found.map_or_else(Standing::default, |found| self.stands(at, &found.counter));
        let is_small = bytes.len() <= MAX_SEEN_BYTES;
        Ok((standing, is_small.then_some(Seen { bucket, at: at.now })))
    }

    /// Changes the limits of an account by `amount` until `until`, or takes such a change back.
    ///
    /// # Errors
    /// [`Refused::Unavailable`], [`Refused::Full`].
    pub fn grant(
        &mut self,
        at: &mut Access<'_>,
        account: &Account,
        grant: Option<(Amount, u64)>,
    ) -> Result<Standing, Refused> {
        self.change(at, account, None, |counter, _| {
            counter.grant = grant;
            Ok(())
        })
    }

    /// Forgets what an account has spent in this window; holds stay.
    ///
    /// # Errors
    /// [`Refused::Unavailable`], [`Refused::Full`].
    pub fn reset(&mut self, at: &mut Access<'_>, account: &Account) -> Result<Standing, Refused> {
        self.change(at, account, None, |counter, _| {
            counter.spent = Amount::default();
            counter.alerted = 0;
            Ok(())
        })
    }

    /// Every live counter of one bucket: which, whose, the beginning of its window and how it stands.
    pub fn list(&mut self, at: &mut Access<'_>, bucket: u16) -> Vec<(CounterId, Owner, u64, Standing)> {
        self.look_at_clock(at);
        let Ok(Some((bucket, _))) = at.store.get(&bucket_key(bucket)) else { return Vec::new() };
        let (now, mut found) = (at.now, Vec::new());
        for entry in codec::entries(&bucket).filter(|entry| !entry.is_over(now)) {
            if let (Some(owner), Some((_, counter))) = (entry.owner(), entry.counter()) {
                found.push((entry.id, owner, counter.window, self.stands(at, &counter)));
            }
        }
        found
    }

    /// Changes one counter by compare-and-swap, once: `edit` may be run several times, on what others have left. It is tried
    /// on what was `seen` first, where that is no older than a second; nothing is refused for that.
    fn change(
        &mut self,
        at: &mut Access<'_>,
        account: &Account,
        seen: Option<Seen>,
        mut edit: impl FnMut(&mut Counter, &Standing) -> Result<(), Refused>,
    ) -> Result<Standing, Refused> {
        self.look_at_clock(at);
        let key = key(account.id);
        if let Some(Seen { bucket, .. }) = seen.filter(|seen| seen.at == at.now)
            && let Ok(Some(standing)) = self.swap(at, account, &key, bucket, &mut edit)
        {
            return Ok(standing);
        }
        for _ in 0..MAX_CONFLICTS {
            let bucket = at.store.get(&key).map_err(|_| Refused::Unavailable)?;
            if let Some(standing) = self.swap(at, account, &key, bucket, &mut edit)? {
                return Ok(standing);
            }
        }
        Err(Refused::Unavailable)
    }

    /// One try to change a counter in its `bucket`; `None` where others were first.
    fn swap(
        &mut self,
        at: &mut Access<'_>,
        account: &Account,
        key: &str,
        bucket: Stored,
        edit: &mut impl FnMut(&mut Counter, &Standing) -> Result<(), Refused>,
    ) -> Result<Option<Standing>, Refused> {
        let (bucket, version) = bucket.map_or((Vec::new(), None), |(value, version)| (value, Some(version)));
        let new = || Found {
            owner: codec::owner(&account.budget, &account.scope).into(),
            counter: Counter { window: account.window, ..Counter::default() },
            expires: 0,
        };
        let Found { owner, mut counter, expires } = self.find(at, &bucket, account).unwrap_or_else(new);
        let standing = self.stands(at, &counter);
        edit(&mut counter, &standing)?;
        counter.holds.retain(|(lease, held)| !held.is_zero() && !self.is_gone(at, *lease));
        let expires = account.expires(&counter, expires, at.now);
        let (now, max_bytes) = (at.now, at.config.bucket_bytes());
        let is_dead = |entry: &codec::Entry<'_>| {
            let mut gone = |lease| !self.is_alive(at, lease) && self.is_gone(at, lease);
            let mut is_needed = |counter: &Counter| {
                // A grant may be for longer than the window in which it was given.
                counter.grant.is_some_and(|(_, until)| now < until)
                    || !counter.holds.iter().all(|&(lease, _)| gone(lease))
            };
            entry.is_over(now) && entry.counter().is_none_or(|(_, counter)| !is_needed(&counter))
        };
        let changed = codec::with(&bucket, account.id, expires, &owner, &counter, max_bytes, is_dead)
            .map_err(|Full| Refused::Full)?;
        match at.store.compare_and_set(key, &changed, version) {
            Ok(()) => Ok(Some(self.stands(at, &counter))),
            Err(StoreError::Conflict) => Ok(None),
            Err(StoreError::Unavailable(_)) => Err(Refused::Unavailable),
        }
    }

    /// The account's counter. Where its window is over, or it was idle for too long, a new one begins; holds go over. A
    /// clock that steps back reopens nothing.
    fn find<'b>(&mut self, at: &mut Access<'_>, bucket: &'b [u8], account: &Account) -> Option<Found<'b>> {
        let entry = codec::entries(bucket).find(|entry| entry.id == account.id)?;
        let (owner, mut counter) = entry.counter()?;
        let idle = account.window_end.is_none() && entry.is_over(at.now) && self.stands(at, &counter).held.is_zero();
        if account.window > counter.window || idle {
            counter.window = account.window.max(counter.window);
            counter.spent = Amount::default();
            counter.alerted = 0;
        }
        if counter.grant.is_some_and(|(_, until)| until <= at.now) {
            counter.grant = None;
        }
        Some(Found { owner: owner.into(), counter, expires: entry.expires })
    }

    fn stands(&mut self, at: &mut Access<'_>, counter: &Counter) -> Standing {
        let mut held = Amount::default();
        for (lease, amount) in &counter.holds {
            if self.is_alive(at, *lease) {
                held = held.plus(amount);
            }
        }
        let grant = counter.grant.filter(|&(_, until)| at.now < until);
        let (granted, granted_until) = grant.unzip();
        Standing { spent: counter.spent, held, granted: granted.unwrap_or_default(), granted_until }
    }

    /// Whether the holds of `lease` count. One that can't be read does.
    fn is_alive(&mut self, at: &mut Access<'_>, lease: u64) -> bool {
        if lease == self.lease || self.former.contains(&lease) || at.now < self.grace_until {
            return true;
        }
        if self.leases.get(&lease).is_some_and(|&renewed_at| at.is_fresh(renewed_at)) {
            return true;
        }
        let Ok(stored) = at.store.get(&lease_key(lease)) else { return true };
        let renewed_at = stored.map_or(0, |(value, _)| number(&value));
        self.leases.insert(lease, renewed_at);
        at.is_fresh(renewed_at)
    }

    /// Whether a worker has been silent for so long that its holds need not be kept.
    fn is_gone(&self, at: &Access<'_>, lease: u64) -> bool {
        let own = lease == self.lease || self.former.contains(&lease);
        let silent = |&renewed_at: &u64| !at.is_within(renewed_at, KEEP_SECS);
        !own && at.now >= self.grace_until && self.leases.get(&lease).is_some_and(silent)
    }

    /// Notices that this worker slept or the clock jumped, and keeps the lease.
    fn look_at_clock(&mut self, at: &mut Access<'_>) {
        if self.seen_at != 0 && at.now.abs_diff(self.seen_at) > at.config.lease_secs / 2 {
            self.grace_until = at.now.saturating_add(at.config.lease_secs);
        }
        self.seen_at = at.now;
        if self.renewed_at != 0 && !at.is_within(self.renewed_at, KEEP_SECS) {
            // Others may have dropped what was held under the old number; what is held from now on must not be mixed up
            // with it. Numbers of workers stay far below 2^32.
            self.former.push(self.lease);
            if self.former.len() > MAX_FORMER {
                self.former.remove(0);
            }
            self.lease = self.lease.wrapping_add(1 << 32);
            self.renewed_at = 0;
        }
        if self.renewed_at == 0 || at.now.abs_diff(self.renewed_at) >= at.config.lease_secs / 3 {
            self.renew(at);
        }
    }

    fn renew(&mut self, at: &mut Access<'_>) {
        // All are tried, its own first: a former one that fails must not void what is held now.
        let leases = [&self.lease].into_iter().chain(&self.former);
        let failed = leases.filter(|lease| !write_lease(at, **lease)).count();
        // It holds more only by all of them: a worker that has just started goes by what it finds.
        if failed == 0 {
            self.renewed_at = at.now;
        }
    }
}

impl Access<'_> {
    /// Whether a lease that was renewed at `renewed_at` lasts. One from long after now is older than the clock.
    fn is_fresh(&self, renewed_at: u64) -> bool {
        self.is_within(renewed_at, 0)
    }

    /// Whether `instant` is no further away than a lease and `more` seconds.
    fn is_within(&self, instant: u64, more: u64) -> bool {
        instant != 0 && self.now.abs_diff(instant) <= self.config.lease_secs.saturating_add(more)
    }
}

impl Account {
    /// From when on its counter may make room for others; 0: never. `before` is what was said so far: while the clock
    /// steps back, or where what comes late belongs to a window before, a counter of now stays what it is.
    fn expires(&self, counter: &Counter, before: u64, now: u64) -> u64 {
        let end = self.window_end.or(self.idle_ttl_secs.map(|ttl| now.saturating_add(ttl)));
        let unused = counter.spent.is_zero() && counter.holds.is_empty() && counter.grant.is_none();
        match end {
            _ if unused => end.unwrap_or(u64::MAX).min(now.saturating_add(UNUSED_SECS)),
            Some(end) => end.max(before),
            None => 0,
        }
    }
}

/// Renews a lease; false where the store keeps it from being.
fn write_lease(at: &mut Access<'_>, lease: u64) -> bool {
    let key = lease_key(lease);
    for _ in 0..MAX_CONFLICTS {
        let Ok(current) = at.store.get(&key) else { return false };
        match at.store.compare_and_set(&key, &at.now.to_be_bytes(), current.map(|(_, version)| version)) {
            Ok(()) => return true,
            Err(StoreError::Conflict) => {}
            Err(StoreError::Unavailable(_)) => return false,
        }
    }
    false
}

fn key(id: CounterId) -> String {
    let [high, low, ..] = id;
    bucket_key(u16::from_be_bytes([high, low]) % BUCKETS)
}

fn bucket_key(bucket: u16) -> String {
    const PREFIX: &str = "tollgate.ledger.";
    let mut key = String::with_capacity(PREFIX.len() + 5);
    key.push_str(PREFIX);
    key.push_str(itoa::Buffer::new().format(bucket));
    key
}

fn lease_key(lease: u64) -> String {
    format!("tollgate.lease.{lease:x}")
}

fn number(bytes: &[u8]) -> u64 {
    bytes.first_chunk().copied().map_or(0, u64::from_be_bytes)
}

#[cfg(test)]
mod tests;
