//! Workers of one Envoy over one ledger, in any order, with faults: against a model that knows everything.
//!
//! The model follows the promises and no code. What it can't know, it bounds: the hold of a worker that is lost may count
//! for a while or not, and one of a worker that ticks always does. So a reservation must fit beside the holds that are
//! sure, and may only be told to wait for holds that there are.

use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::json;
use tollgate::budget::ledger::{Access, Account, Held, Ledger, LedgerConfig, Refused};
use tollgate::budget::{Amount, Budget, Limits, Values};
use tollgate::config::Config;
use tollgate::memory::MemoryHost;
use tollgate::money::Usd;
use tollgate::time::parse_rfc3339;

/// A lease that no operation has renewed for as long may be over: it is renewed at a third of it.
const SURE_SECS: u64 = 20;
/// By less than this a clock may be set, and nobody has noticed.
const UNNOTICED_SECS: u64 = 15;

#[derive(Clone, Debug)]
enum Step {
    Reserve {
        worker: usize,
        budget: usize,
        amount: i128,
    },
    /// The actual cost in percent of what is held.
    Settle {
        call: usize,
        percent: i128,
    },
    Release {
        call: usize,
    },
    /// Time goes by and workers tick, one of them perhaps not.
    Pass {
        seconds: u64,
        asleep: Option<usize>,
    },
    /// The clock is set by so many seconds.
    Jump(i64),
    /// The clock is set near the end of a window.
    Edge {
        budget: usize,
        offset: i64,
    },
    Die {
        worker: usize,
    },
    Start {
        worker: usize,
    },
    Limit {
        budget: usize,
        limit: i128,
    },
    /// So many writes of the next operation find that someone was first.
    Conflicts(u32),
    /// The next operation finds the store failing.
    Fail,
}

fn any_step() -> impl Strategy<Value = Step> {
    let worker = 0..3usize;
    let jumps = prop::sample::select(vec![1, 14, 16, 31, 61, 700, 3600, 90_000, -1, -16, -31, -61, -700, -3600]);
    prop_oneof![
        8 => (worker.clone(), 0..4usize, 0..60i128)
            .prop_map(|(worker, budget, amount)| Step::Reserve { worker, budget, amount }),
        6 => (any::<usize>(), prop_oneof![4 => 0..=100i128, 1 => 100..300i128])
            .prop_map(|(call, percent)| Step::Settle { call, percent }),
        2 => any::<usize>().prop_map(|call| Step::Release { call }),
        3 => (1..40u64).prop_map(|seconds| Step::Pass { seconds, asleep: None }),
        1 => (1..1500u64, worker.clone()).prop_map(|(seconds, asleep)| Step::Pass { seconds, asleep: Some(asleep) }),
        2 => jumps.prop_map(Step::Jump),
        2 => (0..4usize, -2..3i64).prop_map(|(budget, offset)| Step::Edge { budget, offset }),
        1 => worker.clone().prop_map(|worker| Step::Die { worker }),
        2 => worker.prop_map(|worker| Step::Start { worker }),
        1 => (0..4usize, 0..200i128).prop_map(|(budget, limit)| Step::Limit { budget, limit }),
        2 => (1..40u32).prop_map(Step::Conflicts),
        1 => Just(Step::Fail),
    ]
}

/// Days on which clocks change in Berlin, and one on which they don't.
fn any_start() -> impl Strategy<Value = u64> {
    let days = vec!["2026-10-24T21:50:00Z", "2026-10-25T00:59:00Z", "2027-03-28T00:58:30Z", "2026-11-21T12:00:00Z"];
    prop::sample::select(days).prop_map(|day| parse_rfc3339(day).unwrap())
}

const IDLE_SECS: u64 = 300;

fn budgets() -> Vec<Budget> {
    let budget =
        |window: &str, zone: &str| json!({"name": window, "limit_calls": 1, "window": window, "timezone": zone});
    let mut lifetime = budget("lifetime", "UTC");
    lifetime["idle_ttl_secs"] = IDLE_SECS.into();
    let list =
        [budget("minute", "UTC"), budget("hour", "Australia/Lord_Howe"), budget("day", "Europe/Berlin"), lifetime];
    Config::from_bytes(json!({"budgets": list}).to_string().as_bytes()).unwrap().budgets
}

/// What the model knows of a counter.
#[derive(Clone, Copy, Debug, Default)]
struct Counter {
    /// The latest window that was ever opened.
    window: u64,
    spent: i128,
    /// A scope without a window is known until then for sure,
    known_until: u64,
    /// and forgotten after then for sure.
    forgotten_after: u64,
}

/// A call that holds something.
struct Call {
    worker: usize,
    budget: usize,
    amount: i128,
    /// What it held; `None`: its settlement is owed, or its worker is lost.
    held: Option<Held>,
    /// Owed by its worker.
    owed: Option<(i128, Account)>,
    /// The worker ticked all along, or nearly.
    sure: bool,
    lost: bool,
}

struct World {
    host: MemoryHost,
    now: u64,
    /// The latest that the clock has ever shown, as far as it was set.
    latest: u64,
    config: LedgerConfig,
    budgets: Vec<Budget>,
    limits: Vec<i128>,
    /// Each worker, with how long it has not been heard of.
    workers: Vec<Option<(Ledger, u64)>>,
    started: u64,
    counters: Vec<Counter>,
    calls: Vec<Call>,
    conflicts: u32,
    fails: bool,
}

impl World {
    fn new(now: u64) -> World {
        let budgets = budgets();
        let count = budgets.len();
        let mut world = World {
            host: MemoryHost::default(),
            now,
            latest: now,
            config: LedgerConfig::default(),
            budgets,
            limits: vec![100; count],
            workers: vec![None, None, None],
            started: 0,
            counters: vec![Counter::default(); count],
            calls: Vec::new(),
            conflicts: 0,
            fails: false,
        };
        world.start(0);
        world.start(1);
        world
    }

    fn account(&self, budget: usize) -> Account {
        self.budgets[budget].account(Values::default(), self.now)
    }

    /// One operation of a worker, with the faults that are due. Says whether there were any.
    fn on<R>(&mut self, worker: usize, work: impl FnOnce(&mut Ledger, &mut Access<'_>) -> R) -> (R, bool) {
        let faulty = self.fails || self.conflicts > 0;
        self.host.store_fails = std::mem::take(&mut self.fails).then_some(2);
        self.host.conflicts = std::mem::take(&mut self.conflicts);
        let (ledger, silent) = self.workers[worker].as_mut().expect("it is alive");
        let result = work(ledger, &mut Access { store: &mut self.host, now: self.now, config: &self.config });
        self.host.store_fails = None;
        self.host.conflicts = 0;
        if !faulty {
            *silent = 0;
        }
        (result, faulty)
    }

    fn alive(&self, worker: usize) -> bool {
        self.workers[worker].is_some()
    }

    fn owed(&self, worker: usize) -> usize {
        self.workers[worker].as_ref().map_or(0, |(ledger, _)| ledger.owed())
    }

    fn start(&mut self, worker: usize) {
        self.tick_all(None);
        if !self.alive(worker) {
            self.started += 1;
            self.workers[worker] = Some((Ledger::new(self.started), 0));
            self.on(worker, Ledger::tick);
        }
    }

    fn tick_all(&mut self, asleep: Option<usize>) {
        // Faults are for the operations; here they would only make everything unsure.
        (self.conflicts, self.fails) = (0, false);
        for worker in (0..self.workers.len()).filter(|worker| Some(*worker) != asleep) {
            if self.alive(worker) {
                self.on(worker, Ledger::tick);
                self.owed_are_paid(worker);
            }
        }
    }

    /// What a worker owed has gone through, in order.
    fn owed_are_paid(&mut self, worker: usize) {
        assert_eq!(self.owed(worker), 0);
        let owes = |call: &Call| call.worker == worker && !call.lost && call.owed.is_some();
        while let Some(first) = self.calls.iter().position(owes) {
            let budget = self.calls[first].budget;
            let (mut cost, account) = self.calls[first].owed.clone().unwrap();
            let mut paid = vec![first];
            if account.window_end.is_none() {
                // One look has to tell whether the scope was known still: all at once.
                let more = |index: &usize| owes(&self.calls[*index]) && self.calls[*index].budget == budget;
                paid = (first..self.calls.len()).filter(more).collect();
                cost = paid.iter().map(|index| self.calls[*index].owed.as_ref().unwrap().0).sum();
            }
            self.wrote(budget, &account, cost);
            paid.into_iter().rev().for_each(|index| drop(self.calls.remove(index)));
        }
    }

    /// The calls that hold something in a budget for sure, and all that may.
    fn held(&self, budget: usize) -> (i128, i128) {
        let calls = self.calls.iter().filter(|call| call.budget == budget);
        let sure = calls.clone().filter(|call| call.sure && !call.lost).map(|call| call.amount).sum();
        (sure, calls.map(|call| call.amount).sum())
    }

    /// What may be spent now in the window of `account`.
    fn spent(&self, budget: usize, account: &Account) -> Vec<i128> {
        let counter = self.counters[budget];
        if account.window > counter.window {
            return vec![0];
        }
        let (sure, most) = self.held(budget);
        if account.window_end.is_some() || self.now <= counter.known_until || sure > 0 {
            vec![counter.spent]
        } else if self.now > counter.forgotten_after && most == 0 {
            vec![0]
        } else {
            vec![0, counter.spent]
        }
    }

    /// A write went through that spent `cost`. The call that it was for is among the calls still.
    fn wrote(&mut self, budget: usize, account: &Account, cost: i128) {
        let may = self.spent(budget, account);
        let counter = &mut self.counters[budget];
        counter.window = counter.window.max(account.window);
        counter.known_until = self.now + IDLE_SECS;
        counter.forgotten_after = counter.forgotten_after.max(counter.known_until);
        counter.spent = may[0] + cost;
        if may.len() > 1 {
            let kept = may[1] + cost;
            if self.look(budget).0 == kept {
                self.counters[budget].spent = kept;
            }
        }
    }

    /// Spent and held, as somebody sees it who can't be kept out.
    fn look(&mut self, budget: usize) -> (i128, i128) {
        let account = self.account(budget);
        let worker = (0..self.workers.len()).find(|worker| self.alive(*worker)).expect("somebody is alive");
        let faults = (std::mem::take(&mut self.conflicts), std::mem::take(&mut self.fails));
        let (standing, _) = self.on(worker, |ledger, at| ledger.standing(at, &account));
        (self.conflicts, self.fails) = faults;
        let standing = standing.unwrap();
        (standing.spent.usd.pico(), standing.held.usd.pico())
    }

    fn check(&mut self) {
        for budget in 0..self.budgets.len() {
            let account = self.account(budget);
            let may = self.spent(budget, &account);
            let (sure, most) = self.held(budget);
            let (spent, held) = self.look(budget);
            assert!(may.contains(&spent), "{spent} of {may:?} is spent in {}", account.budget);
            assert!((sure..=most).contains(&held), "{held} of {sure} to {most} is held in {}", account.budget);
        }
    }

    fn reserve(&mut self, worker: usize, budget: usize, amount: i128) {
        let (account, limit) = (self.account(budget), self.limits[budget]);
        let limits = Limits { usd: Some(Usd::from_pico(limit)), ..Limits::default() };
        let (may, (sure, most)) = (self.spent(budget, &account), self.held(budget));
        let (result, faulty) = self.on(worker, |ledger, at| ledger.reserve(at, &account, usd(amount), Some(&limits)));
        let some = |fits: &dyn Fn(i128) -> bool| may.iter().any(|spent| fits(*spent));
        // Beside what is used up not even a free call fits; beside what is only held, it does.
        let too_much = |spent| spent + amount.max(1) > limit;
        match result {
            Ok(held) => {
                let fits = |spent| !too_much(spent) && spent + amount + sure <= limit;
                assert!(some(&fits), "{amount} beside {may:?} and {sure} of {limit}");
                self.wrote(budget, &account, 0);
                let held = Some(held);
                self.calls.push(Call { worker, budget, amount, held, owed: None, sure: true, lost: false });
            }
            Err(Refused::Exceeded(_)) => {
                assert!(some(&too_much), "{amount} fits beside {may:?} of {limit}");
            }
            Err(Refused::Busy(_)) => {
                let waits = |spent| !too_much(spent) && spent + amount + most > limit;
                assert!(some(&waits), "{amount} fits beside {may:?} and {most} of {limit}");
            }
            Err(Refused::Unavailable) => assert!(faulty, "nothing stood in the way"),
            Err(Refused::Full) => panic!("there is room"),
        }
    }

    /// Settles one of the open calls, or releases it where there is no cost.
    fn settle(&mut self, call: usize, percent: Option<i128>) {
        let open: Vec<usize> = (0..self.calls.len()).filter(|index| self.calls[*index].held.is_some()).collect();
        if open.is_empty() {
            return;
        }
        let index = open[call % open.len()];
        let Call { worker, budget, amount, .. } = self.calls[index];
        let mut held = self.calls[index].held.take().unwrap();
        let account = self.account(budget);
        held.account = account.clone();
        let cost = percent.map_or(0, |percent| amount * percent / 100);
        let owed = self.owed(worker);
        let (_, faulty) = self.on(worker, |ledger, at| match percent {
            Some(_) => drop(ledger.settle(at, held, usd(cost), &[], &Limits::default())),
            None => ledger.release(at, held),
        });
        if self.owed(worker) > owed {
            assert!(faulty, "nothing stood in the way");
            self.calls[index].owed = Some((cost, account));
        } else {
            self.wrote(budget, &account, cost);
            self.calls.remove(index);
        }
    }

    fn pass(&mut self, seconds: u64, asleep: Option<usize>) {
        let stride = if seconds > 100 { 5 } else { 1 };
        for _ in 0..seconds / stride {
            self.now += stride;
            for (_, silent) in self.workers.iter_mut().flatten() {
                *silent += stride;
            }
            self.tick_all(asleep);
            self.judge();
        }
    }

    /// Which holds are not sure any more, and which are again.
    fn judge(&mut self) {
        for call in &mut self.calls {
            let Some((_, silent)) = &self.workers[call.worker] else { continue };
            if *silent > SURE_SECS {
                call.sure = false;
            }
        }
    }

    /// Sets the clock. Everybody has ticked just before: two jumps within a second are too much.
    fn set_clock(&mut self, now: u64) {
        self.tick_all(None);
        let by = self.now.abs_diff(now);
        for (_, silent) in self.workers.iter_mut().flatten().filter(|_| by <= UNNOTICED_SECS) {
            *silent += by;
        }
        self.latest = self.latest.max(self.now);
        self.now = now;
    }

    fn die(&mut self, worker: usize) {
        let others = (0..self.workers.len()).any(|other| other != worker && self.alive(other));
        if others && self.workers[worker].take().is_some() {
            for call in self.calls.iter_mut().filter(|call| call.worker == worker) {
                (call.lost, call.held) = (true, None);
            }
        }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Reserve { worker, budget, amount } if self.alive(worker) => self.reserve(worker, budget, amount),
            Step::Settle { call, percent } => self.settle(call, Some(percent)),
            Step::Release { call } => self.settle(call, None),
            Step::Pass { seconds, asleep } => self.pass(seconds, asleep),
            Step::Jump(seconds) => self.set_clock(self.now.saturating_add_signed(seconds)),
            Step::Edge { budget, offset } => {
                if let Some(end) = self.account(budget).window_end {
                    self.set_clock(end.saturating_add_signed(offset));
                }
            }
            Step::Die { worker } => self.die(worker),
            Step::Start { worker } => self.start(worker),
            Step::Limit { budget, limit } => self.limits[budget] = limit,
            Step::Conflicts(conflicts) => self.conflicts = conflicts,
            Step::Fail => self.fails = true,
            Step::Reserve { .. } => {}
        }
    }

    /// Every call ends, and lost ones are given up.
    fn end(&mut self) {
        (self.conflicts, self.fails) = (0, false);
        while self.calls.iter().any(|call| call.held.is_some()) {
            self.settle(0, Some(50));
        }
        // A lost lease may seem fresh again until the clock has gone past where it was.
        self.set_clock(self.latest.max(self.now));
        self.pass(1, None);
        self.pass(2 * self.config.lease_secs, None);
        self.calls.retain(|call| !call.lost);
        assert!(self.calls.is_empty());
    }
}

fn usd(pico: i128) -> Amount {
    Amount { usd: Usd::from_pico(pico), ..Amount::default() }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_spent_is_what_was_settled_and_what_is_held_is_what_is_open(
        start in any_start(),
        steps in vec(any_step(), 1..80),
    ) {
        let mut world = World::new(start);
        for step in &steps {
            world.step(step);
            world.check();
        }
        world.end();
        world.check();
        for budget in 0..4 {
            prop_assert_eq!(world.look(budget).1, 0, "nothing is held in the end");
        }
    }
}

#[test]
fn what_a_worker_held_before_the_clock_jumped_counts_for_one_that_starts_then() {
    let mut world = World::new(parse_rfc3339("2026-11-21T12:00:00Z").unwrap());
    for step in [
        Step::Start { worker: 2 },
        Step::Die { worker: 0 },
        Step::Reserve { worker: 2, budget: 0, amount: 1 },
        Step::Jump(700),
        // Its earlier lease is not renewed at once.
        Step::Conflicts(32),
        Step::Reserve { worker: 2, budget: 0, amount: 0 },
        Step::Die { worker: 1 },
        Step::Start { worker: 0 },
    ] {
        world.step(&step);
        world.check();
    }
}
