//! A million runs. To be fast, a 64th of the buckets with a 64th of the runs: on average 122 to a bucket either way, and
//! the ceiling leaves the fullest bucket ten standard deviations of room.

use super::*;

const SHARE: u16 = 64;
const RUNS: u64 = 1_000_000 / SHARE as u64;

/// An id of 36 characters, one of a million.
fn run(budget: &Budget, number: u64) -> Account {
    let id = format!("0193a4f2-8e5b-7c31-9d20-{number:012x}");
    let mut account = budget.account([("run_id".into(), id.into())].into(), START);
    let bucket = u16::from_be_bytes([account.id[0], account.id[1]]) % BUCKETS % (BUCKETS / SHARE);
    [account.id[0], account.id[1]] = bucket.to_be_bytes();
    account
}

fn by_run() -> Budget {
    budget(&[
        ("name", json!("run-cap")),
        ("per", json!(["run_id"])),
        ("window", json!("lifetime")),
        ("idle_ttl_secs", json!(86_400)),
    ])
}

/// Lets runs spend something until one finds no room, and returns how many did.
fn fill(workers: &mut Workers, budget: &Budget, runs: std::ops::Range<u64>) -> u64 {
    let before = runs.start;
    for number in runs.clone() {
        let account = run(budget, number);
        let amount = Amount { usd: Usd::from_pico(48_512_375_000), tokens: 18_432, calls: 7 };
        let fits = workers.on(0, |ledger, at| {
            let held = match ledger.reserve(at, &account, amount, None) {
                Ok(held) => held,
                Err(refused) => return refused,
            };
            ledger.settle(at, held, amount, &[], &Limits::default()).unwrap();
            Refused::Busy(Box::default())
        });
        if fits == Refused::Full {
            return number - before;
        }
    }
    runs.end - before
}

fn bytes(workers: &mut Workers) -> usize {
    let sizes = (0..BUCKETS / SHARE).map(|bucket| workers.host.get(&bucket_key(bucket)).unwrap().unwrap().0.len());
    sizes.sum()
}

#[test]
fn fit_in_192_mebibytes() {
    let mut workers = Workers::new(1);
    workers.config.max_bytes = 192 << 20;
    assert_eq!(fill(&mut workers, &by_run(), 0..RUNS), RUNS);
    let all = bytes(&mut workers);
    let each = all as u64 / RUNS;
    assert!((90..=110).contains(&each), "{each} bytes to a run");
    assert!(all * usize::from(SHARE) < 110 << 20, "{all}");
}

#[test]
fn more_than_fit_are_refused_and_none_is_dropped_before_its_time() {
    let (mut workers, budget) = (Workers::new(1), by_run());
    let fitting = fill(&mut workers, &budget, 0..RUNS);
    assert!(fitting * u64::from(SHARE) > 400_000, "{fitting} of {RUNS} fit before the first is refused");
    assert!(bytes(&mut workers) <= workers.config.max_bytes / usize::from(SHARE));
    let spent = |workers: &mut Workers, number| workers.standing(0, &run(&budget, number)).0;
    assert!((0..fitting).all(|number| spent(&mut workers, number) == 48_512_375_000));
    assert_eq!(spent(&mut workers, fitting), 0);
    workers.now += 86_400;
    assert_eq!(fill(&mut workers, &budget, fitting..fitting + 1), 0, "they are remembered for a day");
    workers.now += 1;
    let again = fill(&mut workers, &budget, fitting..fitting + RUNS);
    assert!(again * u64::from(SHARE) > 400_000, "{again} of {RUNS}");
    assert!(bytes(&mut workers) <= workers.config.max_bytes / usize::from(SHARE));
}
