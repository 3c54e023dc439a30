//! What is known of all scopes of all budgets together: once a minute as records, and to whoever administers them.

use crate::budget::ledger::{Account, BUCKETS, Full, Late, Settled, Standing};
use crate::budget::{Budget, Key, Limits, Subject};
use crate::config::Config;
use crate::exchange::Context;
use crate::record::RecordType;
use crate::record::budget::{BudgetRecord, StandingFields};
use crate::telemetry::{Event as LogEvent, Metric};
use sha2::{Digest, Sha256};

/// The keys that hold the minute of the last snapshot of a budget begin so.
const SNAPSHOT_KEY: &str = "tollgate.snapshot.";

/// Scopes in one snapshot: more would push usage records out of the collector's queue.
const MAX_SCOPES: usize = 1000;

/// The values of a scope stand for the calls in it, and so does what they have to be to count.
struct ScopeValues<'a> {
    scope: &'a [(Key, Box<str>)],
    budget: &'a Budget,
}

impl Subject for ScopeValues<'_> {
    fn value(&self, key: &str) -> Option<&str> {
        let own = self.scope.iter().find(|(own, _)| **own == *key).map(|(_, value)| &**value);
        let fixed = || self.budget.conditions.iter().find(|condition| *condition.key == *key)?.only_value();
        own.or_else(fixed).filter(|value| !value.is_empty())
    }
}

/// One scope of one budget.
pub struct Overview<'c> {
    /// The budget.
    pub budget: &'c Budget,
    /// The scope.
    pub account: Account,
    /// Its limits.
    pub limits: Limits,
    /// How it stands.
    pub standing: Standing,
}

impl<'c> Overview<'c> {
    /// A scope that stands so.
    pub fn new(budget: &'c Budget, account: Account, standing: Standing) -> Overview<'c> {
        let limits = limits_of(budget, &account);
        Overview { budget, account, limits, standing }
    }

    /// As it is written.
    pub fn fields(&self) -> StandingFields {
        StandingFields::new(&self.account, &self.limits, &self.standing)
    }
}

/// Whose turn it is to give the snapshots of one configuration, as far as one worker has looked: each worker looks once a
/// minute. Each budget's scopes are told once a minute to each collector, whatever else a configuration counts.
#[derive(Debug, Default)]
pub struct Turn {
    /// Where the minute of the last snapshot is, for each budget.
    keys: Option<Box<[Box<str>]>>,
    minute: u64,
}

impl Turn {
    /// The budgets whose snapshot of this minute nobody has given yet. The first minute of an Envoy has none.
    fn ours<'c>(&mut self, config: &'c Config, context: &mut Context<'_>, minute: u64) -> Vec<&'c Budget> {
        if self.minute == minute {
            return Vec::new();
        }
        self.minute = minute;
        let keys = self.keys.get_or_insert_with(|| config.budgets.iter().map(|budget| key(config, budget)).collect());
        let ours = config.budgets.iter().zip(keys).filter(|(_, key)| claim(key, context, minute));
        ours.map(|(budget, _)| budget).collect()
    }
}

/// Claims the snapshot of this minute; false where somebody else has, or where there was none before it.
fn claim(key: &str, context: &mut Context<'_>, minute: u64) -> bool {
    let Ok(current) = context.host.get(key) else { return false };
    let (value, version) = current.unzip();
    let last = value.as_deref().and_then(|bytes| bytes.first_chunk().copied()).map(u64::from_be_bytes);
    let claimed = last.is_none_or(|last| last < minute)
        && context.host.compare_and_set(key, &minute.to_be_bytes(), version).is_ok();
    claimed && last.is_some()
}

/// Where the minute of the last snapshot of a budget is, for the collector that gets it.
fn key(config: &Config, budget: &Budget) -> Box<str> {
    let mut hash = Sha256::new();
    hash.update(budget.counter_id(&[]));
    hash.update(budget.per.join("\0"));
    if let Some(collector) = &config.collector {
        hash.update(format!("\n{}\n{}", collector.cluster, collector.path));
    }
    let hash = hash.finalize().first_chunk().copied().map_or(0, u64::from_be_bytes);
    format!("{SNAPSHOT_KEY}{hash:x}").into()
}

/// The limits of a scope.
pub fn limits_of(budget: &Budget, account: &Account) -> Limits {
    budget.limits(&ScopeValues { scope: &account.scope, budget }).0
}

/// To be called about once a second: keeps this worker's lease, and gives a snapshot if it is this worker's turn.
pub fn tick(config: &Config, turn: &mut Turn, context: &mut Context<'_>) {
    if config.budgets.is_empty() {
        return;
    }
    let now = context.host.now_ns() / 1_000_000_000;
    let (ledger, mut access) = context.ledger(config, now);
    for Late { account, limits, settled } in ledger.tick(&mut access) {
        match settled {
            Ok(settled) => alert(&account, &limits, &settled, context),
            // Its record is written already, so that no note can tell of it.
            Err(Full) => context.host.log_once(LogEvent::SpendUncounted { scope: &scope_name(&account) }),
        }
    }
    // Without a collector nobody would get it.
    if config.collector.is_some() {
        let ours = turn.ours(config, context, now / 60);
        if !ours.is_empty() {
            snapshot(&ours, config, context, now);
        }
    }
}

/// Tells of the thresholds that a settlement reached: as records, in metrics and in the log.
pub(crate) fn alert(account: &Account, limits: &Limits, settled: &Settled, context: &mut Context<'_>) {
    for &threshold in &settled.alerts {
        let metric = Metric::BudgetAlerts { budget: &account.budget, threshold: &threshold.to_string() };
        context.host.count(metric, 1);
        let standing = StandingFields::new(account, limits, &settled.standing);
        let detail = format!(
            "{} has spent {threshold} % of its limit in the window from {}",
            scope_name(account),
            standing.window_start
        );
        context.host.log_once(LogEvent::BudgetAlert { detail: &detail });
        let now_ns = context.host.now_ns();
        let record = BudgetRecord::new(RecordType::BudgetAlert, context.instance, now_ns, account, standing);
        context.host.emit_line(BudgetRecord { threshold_percent: Some(threshold), ..record }.to_json());
    }
}

/// Budget and scope, for the log.
pub(crate) fn scope_name(account: &Account) -> String {
    let scope: Vec<_> = account.scope.iter().map(|(key, value)| format!("{key}={value}")).collect();
    format!("{} {}", account.budget, scope.join(",")).trim_end().to_owned()
}

fn snapshot(budgets: &[&Budget], config: &Config, context: &mut Context<'_>, now: u64) {
    let is_wanted = |budget: &Budget| budgets.iter().any(|own| own.name == budget.name);
    for overview in scopes(config, context, now, MAX_SCOPES, &is_wanted) {
        let (now_ns, fields) = (context.host.now_ns(), overview.fields());
        let record = BudgetRecord::new(RecordType::BudgetSnapshot, context.instance, now_ns, &overview.account, fields);
        context.host.emit_line(record.to_json());
    }
}

/// Every live scope of the budgets that are wanted, up to `most`.
pub fn scopes<'c>(
    config: &'c Config,
    context: &mut Context<'_>,
    now: u64,
    most: usize,
    is_wanted: &dyn Fn(&Budget) -> bool,
) -> Vec<Overview<'c>> {
    let mut found = Vec::new();
    for bucket in 0..BUCKETS {
        let (ledger, mut access) = context.ledger(config, now);
        for (id, owner, window, standing) in ledger.list(&mut access, bucket) {
            let own = |budget: &&Budget| *budget.name == *owner.budget && is_wanted(budget);
            let Some(budget) = config.budgets.iter().find(own) else { continue };
            let is_kept_so = owner.scope.iter().map(|(key, _)| key).eq(&budget.per);
            let account = budget.account(owner.scope, now);
            // What was kept by other names, or for another window or time zone, is history, and so is what is over.
            if !is_kept_so || account.id != id || account.window > window {
                continue;
            }
            if found.len() >= most {
                return found;
            }
            found.push(Overview::new(budget, account, standing));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::Amount;
    use crate::budget::ledger::Held;
    use crate::identity::Instance;
    use crate::memory::MemoryHost;
    use crate::money::Usd;
    use serde_json::{Value, json};
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    const NS: u64 = 1_000_000_000;

    fn config(budgets: &Value) -> Config {
        Config::from_bytes(json!({"budgets": budgets, "collector": {"cluster": "c"}}).to_string().as_bytes()).unwrap()
    }

    fn hourly() -> Value {
        json!([{"name": "hour", "per": ["department"], "when_missing": "share", "limit_usd": "10", "window": "hour",
                "overrides": [{"match": {"department": "sales"}, "limit_usd": "5"}]}])
    }

    /// Spends a dollar and holds two.
    fn spend(config: &Config, host: &mut MemoryHost, instance: &mut Instance, department: &str) {
        let now = host.now_ns / NS;
        let key = config.budgets[0].per[0].clone();
        let account = config.budgets[0].account([(key, department.into())].into(), now);
        let dollars = |count: i128| Amount { usd: Usd::from_pico(count * 1_000_000_000_000), tokens: 0, calls: 1 };
        let context = &mut Context { host, instance };
        let (ledger, mut access) = context.ledger(config, now);
        let held = ledger.reserve(&mut access, &account, dollars(1), None).unwrap();
        ledger.settle(&mut access, held, dollars(1), &[], &Limits::default()).unwrap();
        ledger.reserve(&mut access, &account, dollars(2), None).unwrap();
    }

    fn lines(host: &mut MemoryHost) -> Vec<Value> {
        std::mem::take(&mut host.lines).iter().map(|line| serde_json::from_slice(line).unwrap()).collect()
    }

    fn found(config: &Config, host: &mut MemoryHost, instance: &mut Instance, most: usize) -> Vec<String> {
        let now = host.now_ns / NS;
        let scopes = scopes(config, &mut Context { host, instance }, now, most, &|_| true);
        let mut names: Vec<_> = scopes.iter().map(|scope| scope.account.scope[0].1.to_string()).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn a_snapshot_is_given_once_a_minute_by_one_worker() {
        let config = config(&hourly());
        let mut host = MemoryHost::default();
        let mut workers = [Instance::register(&mut host, None), Instance::register(&mut host, None)];
        spend(&config, &mut host, &mut workers[0], "sales");
        let mut turns = [Turn::default(), Turn::default()];
        let mut snapshots = Vec::new();
        for second in 0..300 {
            for (worker, instance) in workers.iter_mut().enumerate() {
                tick(&config, &mut turns[worker], &mut Context { host: &mut host, instance });
                snapshots.extend(lines(&mut host).into_iter().map(|line| (second / 60, worker, line)));
            }
            host.now_ns += NS;
        }
        let minutes: Vec<_> = snapshots.iter().map(|(minute, ..)| *minute).collect();
        assert_eq!(minutes, [1, 2, 3, 4], "the first minute of an Envoy has none");
        let (_, _, line) = &snapshots[0];
        assert_eq!(
            (&line["type"], &line["budget"], &line["scope"]),
            (&json!("budget_snapshot"), &json!("hour"), &json!({"department": "sales"}))
        );
        assert_eq!(
            ["spent_usd", "reserved_usd", "limit_usd", "remaining_usd"].map(|field| line[field].to_string()),
            ["1", "2", "5", "2"]
        );
        let mut all: Vec<_> = snapshots.iter().map(|(.., line)| line["id"].to_string()).collect();
        all.dedup();
        assert_eq!(all.len(), 4, "each has an id of its own");
    }

    #[test]
    fn without_budgets_or_without_a_store_nothing_is_told_and_nothing_is_written() {
        let mut host = MemoryHost::default();
        let mut instance = Instance::register(&mut host, None);
        for minute in 0..3 {
            host.now_ns += minute * 60 * NS;
            tick(&Config::default(), &mut Turn::default(), &mut Context { host: &mut host, instance: &mut instance });
        }
        assert!(host.lines.is_empty());
        let config = config(&hourly());
        spend(&config, &mut host, &mut instance, "sales");
        let mut turn = Turn::default();
        for (fails, read_only) in [(None, false), (Some(2), false), (None, true), (Some(2), true), (None, false)] {
            host.now_ns += 60 * NS;
            (host.store_fails, host.read_only) = (fails, read_only);
            tick(&config, &mut turn, &mut Context { host: &mut host, instance: &mut instance });
        }
        assert_eq!(lines(&mut host).len(), 1, "only the last one");
    }

    #[test]
    fn what_finds_no_room_after_its_record_was_written_is_logged_once_per_scope() {
        let mut config = config(&hourly());
        config.ledger.max_bytes = 0;
        let mut host = MemoryHost::default();
        let mut instance = Instance::register(&mut host, None);
        let now = host.now_ns / NS;
        let key = config.budgets[0].per[0].clone();
        for department in ["sales", "sales", "support"] {
            host.store_fails = Some(2);
            let account = config.budgets[0].account([(key.clone(), department.into())].into(), now);
            let context = &mut Context { host: &mut host, instance: &mut instance };
            let (ledger, mut access) = context.ledger(&config, now);
            let unheld = Held::unheld(account, Amount::default());
            ledger.settle(&mut access, unheld, Amount::default(), &[], &Limits::default()).unwrap();
            host.store_fails = None;
            tick(&config, &mut Turn::default(), &mut Context { host: &mut host, instance: &mut instance });
        }
        let said: Vec<_> = host.log.iter().map(|line| line.split(" found no room").next().unwrap()).collect();
        assert_eq!(said, ["hour department=sales", "hour department=support"]);
    }

    #[test]
    fn each_configuration_of_a_vm_gives_a_snapshot_of_its_budgets_once_a_minute() {
        let mut other = hourly();
        other[0]["name"] = "other".into();
        let mut raised = hourly();
        raised[0]["limit_usd"] = "20".into();
        let mut by_team = hourly();
        by_team[0]["per"] = json!(["team"]);
        by_team[0]["overrides"] = json!([]);
        for (budgets, expected) in [
            (other, vec!["hour", "other", "hour", "other"]),
            (raised, vec!["hour", "hour"]),
            (by_team, vec!["hour", "hour", "hour", "hour"]),
        ] {
            let mut host = MemoryHost::default();
            let mut instance = Instance::register(&mut host, None);
            let mut roots = [(config(&hourly()), Turn::default()), (config(&budgets), Turn::default())];
            for (config, _) in &roots {
                spend(config, &mut host, &mut instance, "sales");
            }
            for _ in 0..180 {
                for (config, turn) in &mut roots {
                    tick(config, turn, &mut Context { host: &mut host, instance: &mut instance });
                }
                host.now_ns += NS;
            }
            let told: Vec<_> = lines(&mut host).into_iter().map(|line| line["budget"].clone()).collect();
            assert_eq!(told, expected, "{budgets}");
        }
    }

    #[test]
    fn a_scope_has_the_limits_that_its_calls_have() {
        let mut budget = hourly();
        budget[0]["match"] = json!({"environment": "production"});
        budget[0]["overrides"][0]["match"] = json!({"department": "sales", "environment": "prod*"});
        let config = config(&budget);
        for (department, limit) in [("sales", 5), ("lab", 10)] {
            let account = config.budgets[0].account([("department".into(), department.into())].into(), 0);
            let limits = limits_of(&config.budgets[0], &account);
            assert_eq!(limits.usd, Some(Usd::from_pico(limit * 1_000_000_000_000)), "{department}");
        }
    }

    #[test]
    fn every_scope_that_lives_is_told_and_no_other() {
        let hour = config(&hourly());
        let mut host = MemoryHost::default();
        let mut instance = Instance::register(&mut host, None);
        for department in ["sales", "support", "lab"] {
            spend(&hour, &mut host, &mut instance, department);
        }
        assert_eq!(found(&hour, &mut host, &mut instance, 10), ["lab", "sales", "support"]);
        assert_eq!(found(&hour, &mut host, &mut instance, 2).len(), 2);
        // Another window, another zone, another name, other dimensions: what was kept is history.
        for (key, value) in [
            ("window", json!("day")),
            ("timezone", json!("Asia/Tokyo")),
            ("name", json!("other")),
            ("per", json!(["team"])),
            ("per", json!(["department", "team"])),
            ("per", json!([])),
        ] {
            let mut other = hourly();
            other[0][key] = value;
            other[0]["overrides"] = json!([]);
            assert_eq!(found(&config(&other), &mut host, &mut instance, 10), Vec::<String>::new(), "{key}");
        }
        host.now_ns += 3600 * NS;
        spend(&hour, &mut host, &mut instance, "lab");
        assert_eq!(found(&hour, &mut host, &mut instance, 10), ["lab"]);
    }
}
