//! Settlements that are kept out, and holds that there are none of.

use super::*;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

#[test]
fn a_settlement_that_is_kept_out_is_owed_and_counts_once() {
    let account = hourly(1, 1, START);
    let keep_out: [fn(&mut Workers); 3] = [
        |workers| workers.host.store_fails = Some(2),
        |workers| workers.host.conflicts = u32::MAX,
        |workers| workers.unwritable = Some("tollgate.ledger."),
    ];
    for keep_out in keep_out {
        let mut workers = Workers::new(2);
        let held = workers.reserve(0, &account, 10, 100).unwrap();
        keep_out(&mut workers);
        assert_eq!(workers.settle(0, held, 7), Settled::default());
        workers.pass(3, &[0]);
        assert_eq!(workers.ledgers[0].owed(), 1);
        (workers.host.store_fails, workers.host.conflicts, workers.unwritable) = (None, 0, None);
        assert_eq!(workers.standing(1, &account), (0, 10), "the hold stays meanwhile");
        workers.pass(2, &[0, 1]);
        assert_eq!((workers.ledgers[0].owed(), workers.standing(1, &account)), (0, (7, 0)));
    }
}

#[test]
fn what_was_owed_and_finds_no_room_is_told_of_and_waits_no_more() {
    let (known, new) = (hourly(1, 1, START), hourly(1, 2, START));
    for (account, uncounted) in [(&known, false), (&new, true)] {
        let mut workers = Workers::new(1);
        workers.spend(0, &known, 1);
        workers.leave_no_room(1);
        workers.unwritable = Some("tollgate.ledger.");
        workers.unreadable = workers.unwritable;
        assert_eq!(workers.settle(0, Held::unheld(account.clone(), usd(0)), 7), Settled::default());
        assert!(workers.on(0, Ledger::tick).is_empty());
        assert_eq!(workers.ledgers[0].owed(), 1, "nobody knows yet whether there is room");
        (workers.unwritable, workers.unreadable) = (None, None);
        let late = workers.on(0, Ledger::tick);
        let told: Vec<_> = late.into_iter().map(|late| (late.account, late.settled)).collect();
        let expected = if uncounted { vec![(new.clone(), Err(Full))] } else { Vec::new() };
        assert_eq!((told, workers.ledgers[0].owed()), (expected, 0));
        assert_eq!(workers.standing(0, &known), (if uncounted { 1 } else { 8 }, 0));
    }
}

#[test]
fn giving_back_what_was_never_held_writes_nothing_and_owes_nothing() {
    for fails in [None, Some(2)] {
        let mut workers = Workers::new(1);
        workers.host.store_fails = fails;
        let unheld = Held::unheld(hourly(1, 1, START), usd(5));
        workers.on(0, |ledger, at| ledger.release(at, unheld));
        workers.host.store_fails = None;
        assert_eq!((workers.bucket(1), workers.ledgers[0].owed()), (Vec::new(), 0), "{fails:?}");
    }
}
