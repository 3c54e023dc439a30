//! Leases: whose holds count, and until when.

use super::*;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

#[test]
fn what_other_workers_hold_counts_as_long_as_they_tick() {
    let account = hourly(1, 1, START);
    let mut workers = Workers::new(2);
    let held = workers.reserve(0, &account, 8, 10).unwrap();
    assert!(is_busy(workers.reserve(1, &account, 5, 10)));
    workers.pass(20 * 60, &[0, 1]);
    assert!(is_busy(workers.reserve(1, &account, 5, 10)), "a long stream keeps its hold");
    workers.pass(30, &[1]);
    assert!(is_busy(workers.reserve(1, &account, 5, 10)), "one lease after the last tick");
    workers.pass(1, &[1]);
    assert_eq!(workers.standing(1, &account), (0, 0), "it is lost");
    workers.reserve(1, &account, 5, 10).unwrap();
    workers.on(0, Ledger::tick);
    assert_eq!(workers.standing(1, &account), (0, 13), "it came back");
    workers.settle(0, held, 8);
    assert_eq!(workers.standing(1, &account), (8, 5));
}

#[test]
fn a_worker_that_comes_back_after_all_settles_once_and_begins_anew() {
    let account = Account { window_end: Some(START + 100 * HOUR), ..hourly(1, 1, START) };
    let mut workers = Workers::new(2);
    let old = workers.reserve(0, &account, 8, 100).unwrap();
    workers.pass(at_longest(&workers) + 1, &[1]);
    workers.spend(1, &account, 1);
    assert!(workers.bucket(1)[0].1.holds.is_empty(), "it was dropped");
    let new = workers.reserve(0, &account, 9, 100).unwrap();
    workers.settle(0, old, 7);
    assert_eq!(workers.standing(1, &account), (8, 9), "the new hold is whole");
    workers.settle(0, new, 9);
    assert_eq!(workers.standing(1, &account), (17, 0));
}

#[test]
fn a_worker_that_can_not_renew_its_lease_holds_nothing_new() {
    let account = Account { window_end: Some(START + 100 * HOUR), ..hourly(1, 1, START) };
    let mut workers = Workers::new(2);
    let old = workers.reserve(0, &account, 8, 100).unwrap();
    for _ in 0..at_longest(&workers) + 1 {
        workers.now += 1;
        workers.unwritable = Some("tollgate.lease.1");
        workers.on(0, Ledger::tick);
        workers.unwritable = None;
        workers.on(1, Ledger::tick);
    }
    workers.spend(1, &account, 1);
    workers.unwritable = Some("tollgate.lease.1");
    assert_eq!(workers.reserve(0, &account, 9, 100), Err(Refused::Unavailable));
    workers.unwritable = None;
    workers.reserve(0, &account, 9, 100).unwrap();
    workers.settle(0, old, 7);
    assert_eq!(workers.standing(1, &account), (8, 9), "what others dropped is not taken from the new hold");
}

#[test]
fn a_lease_that_can_not_be_read_counts() {
    let account = hourly(1, 1, START);
    let mut workers = Workers::new(2);
    workers.reserve(0, &account, 8, 10).unwrap();
    workers.pass(20, &[0, 1]);
    workers.unreadable = Some("tollgate.lease.1");
    assert!(is_busy(workers.reserve(1, &account, 5, 10)));
    workers.spend(1, &account, 1);
    workers.unreadable = None;
    assert_eq!(workers.standing(1, &account), (1, 8));
}

#[test]
fn a_clock_that_jumps_loses_no_hold_of_those_who_tick() {
    let account = Account { window_end: None, ..hourly(1, 1, START) };
    let first_looks: [fn(&mut Workers, &Account); 3] = [
        |workers, account| assert_eq!(workers.standing(1, account).0, 0),
        |workers, account| {
            let held = workers.on(1, |ledger, at| ledger.reserve(at, account, usd(1), None)).unwrap();
            workers.on(1, |ledger, at| ledger.release(at, held));
        },
        // A settlement, of a call that this worker had under way.
        |workers, account| {
            let held = Held { account: account.clone(), amount: usd(1), standing: Standing::default(), lease: Some(2) };
            workers.settle(1, held, 0);
        },
    ];
    let year = 366 * 86_400;
    for jump in [14, 16, 29, 30, 31, 300, 600, 629, 630, 631, 5000, year, -1, -29, -31, -630, -631, -5000, -year] {
        for (number, look) in first_looks.iter().enumerate() {
            let mut workers = Workers::new(3);
            let held = workers.reserve(0, &account, 8, 10).unwrap();
            workers.on(1, |ledger, at| ledger.reserve(at, &account, usd(1), None)).unwrap();
            workers.reserve(2, &account, 1, 10).unwrap();
            workers.pass(5, &[0, 1, 2]);
            workers.now = workers.now.checked_add_signed(jump).unwrap();
            look(&mut workers, &account);
            let least = if number == 2 { 9 } else { 10 };
            assert_eq!(workers.standing(1, &account).1, least, "{jump} {number}: at once");
            workers.pass(100, &[0, 1]);
            assert_eq!(workers.standing(1, &account).1, least - 1, "{jump} {number}: but the third one is lost");
            workers.settle(0, held, 7);
            assert_eq!(workers.standing(1, &account), (7, least - 9), "{jump} {number}");
        }
    }
}

#[test]
fn a_former_lease_that_can_not_be_renewed_keeps_no_other_from_being() {
    let account = Account { window_end: None, ..hourly(1, 1, START) };
    let mut workers = Workers::new(2);
    workers.reserve(1, &account, 5, 10).unwrap();
    workers.now += 700;
    let former_and_own = [2, 2 + (1 << 32)];
    workers.unwritable = Some("tollgate.lease.2");
    workers.on(1, Ledger::tick);
    let renewed_at = |workers: &mut Workers| {
        former_and_own.map(|lease| workers.host.get(&lease_key(lease)).unwrap().map(|(bytes, _)| number(&bytes)))
    };
    assert_eq!(renewed_at(&mut workers), [Some(START), Some(START + 700)]);
    let refused = workers.reserve(1, &account, 0, 10);
    assert_eq!(refused, Err(Refused::Unavailable), "it holds nothing more until all are renewed");
    workers.unwritable = None;
    assert!(workers.reserve(1, &account, 0, 10).is_ok());
    assert_eq!(renewed_at(&mut workers), [Some(START + 700); 2]);
}
