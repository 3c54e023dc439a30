//! Holding on what was read a moment ago: one read less, and nothing else.

use super::*;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

impl Workers {
    fn look(&mut self, worker: usize, account: &Account) -> Option<Seen> {
        self.on(worker, |ledger, at| ledger.look(at, account)).unwrap().1
    }

    /// Holds ten, of ten at most.
    fn hold_seen(&mut self, account: &Account, seen: Option<Seen>) -> Result<Held, Refused> {
        self.on(0, |ledger, at| ledger.reserve_seen(at, account, usd(10), Some(&at_most(10)), seen))
    }
}

#[test]
fn what_was_read_in_this_second_is_not_read_again() {
    for (seconds, reads) in [(0, false), (1, true)] {
        for used in [false, true] {
            let account = hourly(1, 1, START);
            let mut workers = Workers::new(1);
            if used {
                let held = workers.reserve(0, &account, 5, 10).unwrap();
                workers.on(0, |ledger, at| ledger.release(at, held));
            }
            let seen = workers.look(0, &account);
            workers.pass(seconds, &[0]);
            workers.unreadable = Some("tollgate.ledger.");
            let held = workers.hold_seen(&account, seen);
            workers.unreadable = None;
            assert_eq!(held.is_err(), reads, "{seconds} s, used before: {used}");
            assert_eq!(workers.standing(0, &account), (0, if reads { 0 } else { 10 }));
        }
    }
}

#[test]
fn what_others_have_done_since_counts() {
    let account = hourly(1, 1, START);
    let neighbour = hourly(1, 2, START);
    for used in [false, true] {
        let mut workers = Workers::new(2);
        if used {
            workers.spend(1, &account, 0);
        }
        let seen = workers.look(0, &account);
        let held = workers.reserve(1, &account, 1, 10).unwrap();
        assert!(is_busy(workers.hold_seen(&account, seen)), "used before: {used}");
        let seen = workers.look(0, &account);
        workers.settle(1, held, 1);
        assert!(is_exceeded(workers.hold_seen(&account, seen)));
        let seen = workers.look(0, &account);
        workers.spend(1, &neighbour, 3);
        assert!(is_exceeded(workers.hold_seen(&account, seen)));
        assert_eq!((workers.standing(0, &account), workers.standing(0, &neighbour)), ((1, 0), (3, 0)));
    }
}

#[test]
fn nobody_is_refused_for_what_was_seen() {
    let account = hourly(1, 1, START);
    let mut workers = Workers::new(2);
    let held = workers.reserve(1, &account, 1, 10).unwrap();
    let seen = workers.look(0, &account);
    workers.on(1, |ledger, at| ledger.release(at, held));
    workers.hold_seen(&account, seen).unwrap();
    assert_eq!(workers.standing(0, &account), (0, 10));
}

#[test]
fn a_bucket_that_is_large_is_read_anew() {
    let mut workers = Workers::new(1);
    let mut number = 0;
    while workers.look(0, &hourly(1, 1, START)).is_some() {
        number += 1;
        workers.spend(0, &hourly(1, number, START), 1);
    }
    assert!((5..50).contains(&number), "{number} counters");
}
