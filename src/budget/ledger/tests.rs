//! One counter at a time: holds, settlements, windows, leases, faults.

#[cfg(not(target_arch = "wasm32"))]
mod a_million_runs;
mod leases;
mod owed;
mod seen;

use super::*;
use crate::budget::Budget;
use crate::config::Config;
use crate::host::Version;
use crate::memory::MemoryHost;
use crate::money::Usd;
use serde_json::json;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

/// The beginning of a window, and its length.
const START: u64 = 1_795_262_400;
const HOUR: u64 = 3600;

fn usd(pico: i128) -> Amount {
    Amount { usd: Usd::from_pico(pico), ..Amount::default() }
}

fn at_most(pico: i128) -> Limits {
    Limits { usd: Some(Usd::from_pico(pico)), ..Limits::default() }
}

/// A counter in the bucket `bucket`, in the hour from `window` on.
fn hourly(bucket: u8, number: u8, window: u64) -> Account {
    Account {
        id: [0, bucket, number, 0, 0, 0, 0, 0],
        budget: "hour".into(),
        scope: [("department".into(), format!("d{number}").into())].into(),
        window,
        window_end: Some(window + HOUR),
        idle_ttl_secs: None,
    }
}

/// A counter without an end that is forgotten after a minute.
fn idle(bucket: u8, number: u8) -> Account {
    Account { window: 0, window_end: None, idle_ttl_secs: Some(60), ..hourly(bucket, number, 0) }
}

/// A store of which some keys can't be read or written.
struct Faulty<'h> {
    host: &'h mut MemoryHost,
    unreadable: Option<&'static str>,
    unwritable: Option<&'static str>,
}

impl SharedStore for Faulty<'_> {
    fn get(&mut self, key: &str) -> Result<Option<(Vec<u8>, Version)>, StoreError> {
        match self.unreadable {
            Some(prefix) if key.starts_with(prefix) => Err(StoreError::Unavailable(2)),
            _ => self.host.get(key),
        }
    }

    fn compare_and_set(&mut self, key: &str, value: &[u8], version: Option<Version>) -> Result<(), StoreError> {
        match self.unwritable {
            Some(prefix) if key.starts_with(prefix) => Err(StoreError::Unavailable(2)),
            _ => self.host.compare_and_set(key, value, version),
        }
    }
}

/// The workers of one Envoy.
struct Workers {
    host: MemoryHost,
    unreadable: Option<&'static str>,
    unwritable: Option<&'static str>,
    now: u64,
    config: LedgerConfig,
    ledgers: Vec<Ledger>,
}

impl Workers {
    fn new(count: u64) -> Workers {
        let mut workers = Workers {
            host: MemoryHost::default(),
            unreadable: None,
            unwritable: None,
            now: START,
            config: LedgerConfig::default(),
            ledgers: (1..=count).map(Ledger::new).collect(),
        };
        workers.tick_all();
        workers
    }

    fn on<R>(&mut self, worker: usize, work: impl FnOnce(&mut Ledger, &mut Access<'_>) -> R) -> R {
        let Workers { host, unreadable, unwritable, now, config, ledgers } = self;
        let mut store = Faulty { host, unreadable: *unreadable, unwritable: *unwritable };
        work(&mut ledgers[worker], &mut Access { store: &mut store, now: *now, config })
    }

    fn tick_all(&mut self) {
        for worker in 0..self.ledgers.len() {
            self.on(worker, Ledger::tick);
        }
    }

    /// Time goes by, in which only some workers tick.
    fn pass(&mut self, seconds: u64, ticking: &[usize]) {
        for _ in 0..seconds {
            self.now += 1;
            for &worker in ticking {
                self.on(worker, Ledger::tick);
            }
        }
    }

    fn reserve(&mut self, worker: usize, account: &Account, pico: i128, limit: i128) -> Result<Held, Refused> {
        self.on(worker, |ledger, at| ledger.reserve(at, account, usd(pico), Some(&at_most(limit))))
    }

    fn settle(&mut self, worker: usize, held: Held, pico: i128) -> Settled {
        self.on(worker, |ledger, at| ledger.settle(at, held, usd(pico), &[], &Limits::default())).unwrap()
    }

    /// Settles at the account of now, as a call does that ends in another window than it began in.
    fn settle_at(&mut self, worker: usize, held: Held, account: &Account, pico: i128) -> Settled {
        self.settle(worker, Held { account: account.clone(), ..held }, pico)
    }

    fn spend(&mut self, worker: usize, account: &Account, pico: i128) {
        let held = self.reserve(worker, account, pico, i128::MAX).unwrap();
        self.settle(worker, held, pico);
    }

    /// Spent and held, in pico-dollars.
    fn standing(&mut self, worker: usize, account: &Account) -> (i128, i128) {
        let standing = self.on(worker, |ledger, at| ledger.standing(at, account)).unwrap();
        (standing.spent.usd.pico(), standing.held.usd.pico())
    }

    /// Makes what is in a bucket all that it may take, but for a hold.
    fn leave_no_room(&mut self, bucket: u16) {
        let bytes = self.host.get(&bucket_key(bucket)).unwrap().unwrap().0.len() + 20;
        self.config.max_bytes = usize::from(BUCKETS) * bytes;
    }

    /// What is kept in a bucket, read by nobody's rules.
    fn bucket(&mut self, bucket: u16) -> Vec<(u8, Counter)> {
        let bytes = self.host.get(&bucket_key(bucket)).unwrap().map(|(bytes, _)| bytes).unwrap_or_default();
        codec::entries(&bytes).map(|entry| (entry.id[2], entry.counter().unwrap().1)).collect()
    }
}

fn is_busy(result: Result<Held, Refused>) -> bool {
    matches!(result, Err(Refused::Busy(_)))
}

fn is_exceeded(result: Result<Held, Refused>) -> bool {
    matches!(result, Err(Refused::Exceeded(_)))
}

#[test]
fn a_hold_is_replaced_by_what_the_call_cost() {
    let account = hourly(1, 1, START);
    for (cost, spent) in [(7, 7), (10, 10), (12, 12), (0, 0)] {
        let mut workers = Workers::new(1);
        let held = workers.reserve(0, &account, 10, 10).unwrap();
        assert_eq!(workers.standing(0, &account), (0, 10));
        let settled = workers.settle(0, held, cost);
        assert_eq!(settled.standing.spent, usd(spent));
        assert_eq!(workers.standing(0, &account), (spent, 0), "{cost}");
    }
    let mut workers = Workers::new(1);
    let held = workers.reserve(0, &account, 10, 10).unwrap();
    workers.on(0, |ledger, at| ledger.release(at, held));
    assert_eq!(workers.standing(0, &account), (0, 0), "a call that was not made");
}

#[test]
fn an_overrun_is_carried() {
    let mut workers = Workers::new(1);
    let account = hourly(1, 1, START);
    let held = workers.reserve(0, &account, 10, 100).unwrap();
    workers.settle(0, held, 130);
    assert!(is_exceeded(workers.reserve(0, &account, 1, 100)));
    assert!(is_exceeded(workers.reserve(0, &account, 0, 100)), "not even nothing fits");
    assert!(workers.reserve(0, &account, 1, 131).is_ok());
}

#[test]
fn what_is_spent_refuses_and_what_is_only_held_asks_to_wait() {
    let amount = |usd, tokens, calls| Amount { usd: Usd::from_pico(usd), tokens, calls };
    let limits = Limits { usd: Some(Usd::from_pico(100)), tokens: Some(1000), calls: Some(10) };
    for (spent, held, asked, expected) in [
        (amount(0, 0, 0), amount(0, 0, 0), amount(100, 1000, 10), "fits"),
        (amount(50, 500, 5), amount(25, 250, 3), amount(25, 250, 2), "fits"),
        (amount(50, 0, 0), amount(25, 0, 0), amount(26, 0, 0), "busy"),
        (amount(0, 500, 0), amount(0, 250, 0), amount(0, 251, 0), "busy"),
        (amount(0, 0, 5), amount(0, 0, 4), amount(0, 0, 2), "busy"),
        (amount(75, 0, 0), amount(0, 0, 0), amount(26, 0, 0), "exceeded"),
        (amount(0, 999, 0), amount(0, 0, 0), amount(0, 2, 0), "exceeded"),
        (amount(0, 0, 10), amount(0, 0, 0), amount(0, 0, 1), "exceeded"),
        (amount(100, 0, 0), amount(50, 0, 0), amount(1, 0, 0), "exceeded"),
        (amount(0, 0, 0), amount(0, 0, 0), amount(i128::MAX, 0, 0), "exceeded"),
        (amount(0, 0, 0), amount(0, 1000, 0), amount(0, u64::MAX, 0), "exceeded"),
        // One limit asks to wait, another is used up.
        (amount(0, 0, 10), amount(100, 0, 0), amount(1, 0, 1), "exceeded"),
    ] {
        let mut workers = Workers::new(1);
        let account = hourly(1, 1, START);
        let found = workers.on(0, |ledger, at| {
            let first = ledger.reserve(at, &account, spent, None).unwrap();
            ledger.settle(at, first, spent, &[], &limits).unwrap();
            ledger.reserve(at, &account, held, None).unwrap();
            match ledger.reserve(at, &account, asked, Some(&limits)) {
                Ok(_) => "fits",
                Err(Refused::Busy(_)) => "busy",
                Err(Refused::Exceeded(_)) => "exceeded",
                Err(other) => panic!("{other:?}"),
            }
        });
        assert_eq!(found, expected, "{spent:?} {held:?} {asked:?}");
    }
}

#[test]
fn others_that_write_first_are_waited_for_and_nothing_counts_twice() {
    let account = hourly(1, 1, START);
    for (conflicts, passes) in [(1, true), (MAX_CONFLICTS - 1, true), (MAX_CONFLICTS, false)] {
        let mut workers = Workers::new(1);
        workers.host.conflicts = conflicts;
        let result = workers.reserve(0, &account, 10, 10);
        assert_eq!(result.is_ok(), passes, "{conflicts}");
        assert_eq!(workers.standing(0, &account), (0, if passes { 10 } else { 0 }));
        let Ok(held) = result else { continue };
        workers.host.conflicts = conflicts;
        workers.settle(0, held, 7);
        assert_eq!(workers.standing(0, &account), (7, 0));
    }
}

#[test]
fn a_store_that_fails_lets_nothing_be_held() {
    let account = hourly(1, 1, START);
    let mut workers = Workers::new(1);
    workers.host.store_fails = Some(12);
    assert_eq!(workers.reserve(0, &account, 1, 10), Err(Refused::Unavailable));
    let standing = workers.on(0, |ledger, at| ledger.standing(at, &account));
    assert_eq!(standing, Err(Refused::Unavailable));
    workers.host.store_fails = None;
    assert_eq!(workers.standing(0, &account), (0, 0));
}

#[test]
fn a_window_begins_with_nothing_spent_and_with_the_holds_there_are() {
    let (first, second) = (hourly(1, 1, START), hourly(1, 1, START + HOUR));
    let mut workers = Workers::new(1);
    workers.spend(0, &first, 9);
    let long = workers.reserve(0, &first, 5, 100).unwrap();
    workers.pass(HOUR, &[0]);
    assert_eq!(workers.standing(0, &second), (0, 5));
    assert!(is_busy(workers.reserve(0, &second, 6, 10)), "a call under way holds in this window");
    workers.settle_at(0, long, &second, 4);
    assert_eq!(workers.standing(0, &second), (4, 0), "it counts where it ends");
}

#[test]
fn a_late_settlement_counts_in_the_window_there_is() {
    let (first, second) = (hourly(1, 1, START), hourly(1, 1, START + HOUR));
    let mut workers = Workers::new(2);
    let held = workers.reserve(0, &first, 10, 100).unwrap();
    workers.unwritable = Some("tollgate.ledger.");
    workers.settle(0, held, 7);
    workers.unwritable = None;
    workers.now += HOUR;
    workers.spend(1, &second, 3);
    assert_eq!(workers.standing(1, &second), (3, 10));
    workers.pass(1, &[0, 1]);
    assert_eq!(workers.standing(1, &second), (10, 0));
    // It is this window's still, and no room for others.
    workers.leave_no_room(1);
    assert_eq!(workers.reserve(0, &hourly(1, 2, START + HOUR), 1, 10), Err(Refused::Full));
    assert_eq!(workers.on(0, |ledger, at| ledger.list(at, 1)).len(), 1);
}

#[test]
fn a_clock_that_steps_back_reopens_no_window_and_loses_none() {
    let (first, second) = (hourly(1, 1, START), hourly(1, 1, START + HOUR));
    let mut workers = Workers::new(1);
    workers.spend(0, &first, 9);
    workers.pass(HOUR, &[0]);
    workers.spend(0, &second, 6);
    workers.now -= 60;
    assert_eq!(workers.standing(0, &first), (6, 0));
    assert!(is_exceeded(workers.reserve(0, &first, 5, 10)));
    workers.spend(0, &first, 1);
    workers.now += 120;
    assert_eq!(workers.standing(0, &second), (7, 0));
    workers.leave_no_room(1);
    assert_eq!(workers.reserve(0, &hourly(1, 2, START + HOUR), 1, 10), Err(Refused::Full), "it is alive");
    assert_eq!(workers.on(0, |ledger, at| ledger.list(at, 1)).len(), 1);
}

#[test]
fn a_scope_without_a_window_is_forgotten_after_its_last_use_only() {
    let account = idle(1, 1);
    let mut workers = Workers::new(1);
    workers.spend(0, &account, 9);
    workers.pass(60, &[0]);
    assert!(is_exceeded(workers.reserve(0, &account, 2, 10)), "it is known for a minute");
    workers.spend(0, &account, 1);
    workers.pass(60, &[0]);
    assert_eq!(workers.standing(0, &account), (10, 0), "from its last use on");
    workers.pass(1, &[0]);
    assert_eq!(workers.standing(0, &account), (0, 0));
    assert!(workers.reserve(0, &account, 2, 10).is_ok());

    let forever = Account { idle_ttl_secs: None, ..idle(1, 2) };
    workers.spend(0, &forever, 9);
    workers.now += 10 * 366 * 86_400;
    assert_eq!(workers.standing(0, &forever), (9, 0));
}

#[test]
fn a_scope_is_not_idle_while_a_call_is_under_way() {
    let account = idle(1, 1);
    let mut workers = Workers::new(2);
    workers.spend(0, &account, 8);
    let stream = workers.reserve(0, &account, 2, 10).unwrap();
    workers.pass(20 * 60, &[0, 1]);
    assert_eq!(workers.standing(1, &account), (8, 2));
    assert!(is_exceeded(workers.reserve(1, &account, 3, 10)));
    workers.settle(0, stream, 2);
    assert_eq!(workers.standing(1, &account), (10, 0));
    // The call of a worker that is gone keeps nothing.
    workers.reserve(0, &account, 1, 100).unwrap();
    workers.pass(60 + 31, &[1]);
    assert_eq!(workers.standing(1, &account), (0, 0));
}

#[test]
fn a_clock_that_steps_back_makes_no_scope_idle_sooner() {
    let account = idle(1, 1);
    let mut workers = Workers::new(1);
    workers.spend(0, &account, 9);
    workers.now -= 50;
    workers.spend(0, &account, 1);
    workers.now += 80;
    assert_eq!(workers.standing(0, &account), (10, 0));
}

#[test]
fn only_what_is_over_makes_room() {
    let mut workers = Workers::new(2);
    workers.spend(0, &idle(1, 1), 5);
    workers.spend(0, &idle(1, 2), 5);
    workers.leave_no_room(1);
    assert_eq!(workers.reserve(1, &idle(1, 3), 1, 10), Err(Refused::Full));
    assert!(workers.reserve(1, &idle(2, 3), 1, 10).is_ok(), "other buckets have room");
    assert!(workers.reserve(1, &idle(1, 2), 1, 10).is_ok(), "and those that are there may be used");
    workers.pass(61, &[0, 1]);
    let held = workers.reserve(0, &idle(1, 3), 1, 10).unwrap();
    let kept: Vec<_> = workers.bucket(1).iter().map(|(number, _)| *number).collect();
    assert_eq!(kept, [2, 3], "the one that was idle went, the one with a call under way stayed");
    workers.settle(0, held, 1);
    assert_eq!(workers.standing(0, &idle(1, 3)), (1, 0));
}

#[test]
fn what_a_lost_worker_held_makes_room_in_the_end() {
    let mut workers = Workers::new(2);
    workers.reserve(0, &idle(1, 1), 1, 10).unwrap();
    workers.reserve(0, &idle(1, 2), 1, 10).unwrap();
    workers.leave_no_room(1);
    workers.pass(at_longest(&workers), &[1]);
    assert_eq!(workers.reserve(1, &idle(1, 3), 1, 10), Err(Refused::Full), "it may come back");
    workers.pass(1, &[1]);
    assert!(workers.reserve(1, &idle(1, 3), 1, 10).is_ok());
    let kept: Vec<_> = workers.bucket(1).iter().map(|(number, _)| *number).collect();
    assert_eq!(kept, [3]);
}

/// For how long a silent worker's holds are kept.
fn at_longest(workers: &Workers) -> u64 {
    workers.config.lease_secs + KEEP_SECS
}

#[test]
fn a_scope_in_which_nothing_happened_makes_room_soon() {
    let mut workers = Workers::new(1);
    // Calls that another budget refuses: held here, and given back.
    for number in 1..=2 {
        let account = Account { idle_ttl_secs: Some(86_400), ..idle(1, number) };
        let held = workers.reserve(0, &account, 1, 10).unwrap();
        workers.on(0, |ledger, at| ledger.release(at, held));
    }
    workers.leave_no_room(1);
    assert_eq!(workers.reserve(0, &idle(1, 3), 1, 10), Err(Refused::Full));
    workers.pass(UNUSED_SECS + 1, &[0]);
    assert!(workers.reserve(0, &idle(1, 3), 1, 10).is_ok());
}

#[test]
fn a_grant_raises_the_limits_until_it_ends() {
    let account = hourly(1, 1, START);
    let mut workers = Workers::new(2);
    workers.spend(0, &account, 10);
    let until = START + 60;
    let granted = workers.on(0, |ledger, at| ledger.grant(at, &account, Some((usd(5), until)))).unwrap();
    assert_eq!(granted.spent, usd(10));
    let held = workers.reserve(1, &account, 5, 10).unwrap();
    assert!(is_exceeded(workers.reserve(1, &account, 6, 10)));
    workers.on(1, |ledger, at| ledger.release(at, held));
    workers.pass(59, &[0, 1]);
    assert!(workers.reserve(1, &account, 5, 10).is_ok());
    workers.pass(1, &[0, 1]);
    assert!(is_exceeded(workers.reserve(1, &account, 1, 10)));
    workers.on(0, |ledger, at| ledger.grant(at, &account, Some((usd(5), until + 60)))).unwrap();
    workers.on(1, |ledger, at| ledger.grant(at, &account, None)).unwrap();
    assert!(is_exceeded(workers.reserve(1, &account, 1, 10)), "it was taken back");
}

#[test]
fn a_grant_for_longer_than_a_window_makes_no_room_before_it_ends() {
    let mut workers = Workers::new(1);
    let until = START + 2 * HOUR;
    workers.on(0, |ledger, at| ledger.grant(at, &hourly(1, 1, START), Some((usd(5), until)))).unwrap();
    workers.leave_no_room(1);
    let next = START + HOUR;
    for (seconds, room) in [(HOUR + 1, false), (HOUR - 2, false), (1, true)] {
        workers.now += seconds;
        workers.on(0, Ledger::tick);
        assert_eq!(workers.reserve(0, &hourly(1, 2, next), 1, 10).is_ok(), room, "{}", workers.now - START);
    }
    assert_eq!(workers.bucket(1).iter().map(|(number, _)| *number).collect::<Vec<_>>(), [2]);
}

#[test]
fn a_reset_forgets_what_was_spent_and_keeps_what_is_held() {
    let account = hourly(1, 1, START);
    let mut workers = Workers::new(2);
    workers.spend(0, &account, 10);
    let held = workers.reserve(0, &account, 3, 100).unwrap();
    let standing = workers.on(1, |ledger, at| ledger.reset(at, &account)).unwrap();
    assert_eq!((standing.spent, standing.held), (Amount::default(), usd(3)));
    workers.settle(0, held, 2);
    assert_eq!(workers.standing(1, &account), (2, 0));
}

#[test]
fn an_alert_is_given_once_per_threshold_and_window_whoever_settles() {
    let mut workers = Workers::new(2);
    let mut told = |worker: usize, window: u64, pico: i128, grant: Option<i128>, conflicts: u32| {
        let account = hourly(1, 1, window);
        workers.now = window;
        workers.on(worker, |ledger, at| {
            ledger.grant(at, &account, grant.map(|grant| (usd(grant), window + 1))).unwrap();
            ledger.tick(at);
        });
        let held = workers.on(worker, |ledger, at| ledger.reserve(at, &account, usd(pico), None)).unwrap();
        workers.host.conflicts = conflicts;
        workers
            .on(worker, |ledger, at| ledger.settle(at, held, usd(pico), &[50, 80, 100, 200], &at_most(100)))
            .unwrap()
            .alerts
    };
    for (step, (worker, window, pico, grant, conflicts, expected)) in [
        (0, START, 49, None, 0, [].as_slice()),
        (1, START, 1, None, 3, &[50]),
        (0, START, 1, None, 0, &[]),
        (1, START, 60, None, 0, &[80, 100]),
        (0, START, 500, None, 0, &[200]),
        (1, START, 500, None, 0, &[]),
        (1, START + HOUR, 79, None, 0, &[50]),
        (0, START + HOUR, 1, Some(100), 0, &[]),
        (0, START + HOUR, 80, Some(100), 0, &[80]),
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!(told(worker, window, pico, grant, conflicts), expected, "{step}");
    }
}

#[test]
fn the_nearest_limit_alerts() {
    let limits = Limits { usd: Some(Usd::from_pico(1000)), tokens: Some(100), calls: None };
    for (spent, percent) in [
        (Amount { usd: Usd::from_pico(500), tokens: 10, calls: 9 }, 50),
        (Amount { usd: Usd::from_pico(500), tokens: 99, calls: 9 }, 99),
        (Amount { usd: Usd::from_pico(999), tokens: 0, calls: 0 }, 99),
        (Amount { usd: Usd::from_pico(i128::MAX), tokens: 0, calls: 0 }, u32::MAX),
    ] {
        assert_eq!(limits.percent_of(&spent), percent, "{spent:?}");
    }
    assert_eq!(at_most(0).percent_of(&usd(0)), 0);
    assert_eq!(at_most(0).percent_of(&usd(1)), 100);
    assert_eq!(Limits::default().percent_of(&usd(1)), 0);
}

#[test]
fn bytes_nobody_wrote_are_an_empty_bucket() {
    let account = hourly(1, 1, START);
    for bytes in [b"".as_slice(), b"\x00", b"\x01garbage", b"\xffwhatever this is", &[1; 300]] {
        let mut workers = Workers::new(1);
        workers.host.compare_and_set(&bucket_key(1), bytes, None).unwrap();
        workers.host.compare_and_set(&lease_key(7), b"short", None).unwrap();
        assert_eq!(workers.standing(0, &account), (0, 0));
        workers.spend(0, &account, 5);
        assert_eq!(workers.standing(0, &account), (5, 0), "{bytes:?}");
    }
    // One that is damaged inside begins anew, its neighbour is as it was.
    let mut workers = Workers::new(1);
    workers.spend(0, &account, 5);
    workers.spend(0, &hourly(1, 2, START), 6);
    let (mut bytes, version) = workers.host.get(&bucket_key(1)).unwrap().unwrap();
    bytes[1 + 8 + 8 + 4] ^= 0xff;
    workers.host.compare_and_set(&bucket_key(1), &bytes, Some(version)).unwrap();
    assert_eq!(workers.standing(0, &account), (0, 0));
    workers.spend(0, &account, 1);
    assert_eq!(workers.standing(0, &account), (1, 0));
    assert_eq!(workers.standing(0, &hourly(1, 2, START)), (6, 0));
}

#[test]
fn the_first_look_at_a_clock_without_time_is_no_harm() {
    let mut workers = Workers::new(0);
    workers.ledgers.push(Ledger::new(1));
    for now in [0, u64::MAX, 5] {
        workers.now = now;
        let account = idle(1, 1);
        workers.tick_all();
        let held = workers.on(0, |ledger, at| ledger.reserve(at, &account, usd(1), None));
        if let Ok(held) = held {
            workers.settle(0, held, 1);
        }
    }
}

fn budget(more: &[(&str, serde_json::Value)]) -> Budget {
    let mut budget =
        json!({"name": "b", "limit_usd": "10", "per": ["department"], "when_missing": "share", "window": "day"});
    for (key, value) in more {
        budget[key] = value.clone();
    }
    let config = Config::from_bytes(json!({"budgets": [budget]}).to_string().as_bytes()).unwrap();
    config.budgets.into_iter().next().unwrap()
}

#[test]
fn a_counter_outlives_edits_of_limits_and_no_other() {
    let scope = || [("department".into(), "sales".into())].into();
    let mut workers = Workers::new(1);
    workers.spend(0, &budget(&[]).account(scope(), START), 7);
    for (more, spent) in [
        (vec![], 7),
        (vec![("limit_usd", json!("20"))], 7),
        (vec![("limit_tokens", json!(1))], 7),
        (vec![("mode", json!("observe")), ("alert_at", json!([50]))], 7),
        (vec![("match", json!({"environment": "production"}))], 7),
        (vec![("overrides", json!([{"match": {"department": "sales"}, "limit_usd": "1"}]))], 7),
        (vec![("name", json!("c"))], 0),
        (vec![("window", json!("hour"))], 0),
        (vec![("timezone", json!("Europe/Berlin"))], 0),
    ] {
        let found = workers.standing(0, &budget(&more).account(scope(), START));
        assert_eq!(found, (spent, 0), "{more:?}");
    }
    let by_team = budget(&[("per", json!(["team"]))]);
    assert_eq!(workers.standing(0, &by_team.account([("team".into(), "sales".into())].into(), START)), (0, 0));
    let month = |day: u64| budget(&[("window", json!("month")), ("starts_on", json!(day))]).account(scope(), START);
    assert_ne!(month(1).id, month(2).id);
    // Values that run into each other are other scopes.
    let pair =
        |a: &str, b: &str| budget(&[]).account([("team".into(), a.into()), ("user".into(), b.into())].into(), START).id;
    assert_ne!(pair("ab", "c"), pair("a", "bc"));
    assert_ne!(pair("", "abc"), pair("abc", ""));
}
