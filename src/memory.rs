//! A host in memory, with faults to inject: for tests, and for tools that replay calls without an Envoy.

use crate::host::{Clock, RecordSink, SharedStore, StoreError, Telemetry, Version};
use crate::money::Usd;
use crate::record::UsageRecord;
use crate::telemetry::{Event, LabelCap, LogGate, Metric};
use std::collections::BTreeMap;

/// Every port in memory.
pub struct MemoryHost {
    /// The clock, in nanoseconds since the Unix epoch.
    pub now_ns: u64,
    /// The next so many writes to the store find that someone was first.
    pub conflicts: u32,
    /// The store fails with this status.
    pub store_fails: Option<u32>,
    /// The store can be read and not written.
    pub read_only: bool,
    /// How often the store was read.
    pub reads: u64,
    /// Counters by stat name.
    pub counters: BTreeMap<String, u64>,
    /// Lines logged.
    pub log: Vec<String>,
    /// Provisional records, in order.
    pub provisional: Vec<UsageRecord>,
    /// Final records, in order.
    pub records: Vec<UsageRecord>,
    /// Single values for the access log, by key.
    pub exposed: BTreeMap<String, String>,
    /// Records that are about no single exchange, in order.
    pub lines: Vec<Vec<u8>>,
    store: BTreeMap<String, (Vec<u8>, Version)>,
    cap: LabelCap,
    gate: LogGate,
}

impl Default for MemoryHost {
    fn default() -> MemoryHost {
        MemoryHost {
            now_ns: 1_795_262_400_000_000_000,
            conflicts: 0,
            store_fails: None,
            read_only: false,
            reads: 0,
            counters: BTreeMap::new(),
            log: Vec::new(),
            provisional: Vec::new(),
            records: Vec::new(),
            exposed: BTreeMap::new(),
            lines: Vec::new(),
            store: BTreeMap::new(),
            cap: LabelCap::default(),
            gate: LogGate::default(),
        }
    }
}

impl MemoryHost {
    /// The counter with this stat name; 0 where nothing was counted.
    pub fn counter(&self, stat: &str) -> u64 {
        self.counters.get(stat).copied().unwrap_or(0)
    }
}

impl Clock for MemoryHost {
    fn now_ns(&mut self) -> u64 {
        self.now_ns
    }
}

impl SharedStore for MemoryHost {
    fn get(&mut self, key: &str) -> Result<Option<(Vec<u8>, Version)>, StoreError> {
        self.reads = self.reads.saturating_add(1);
        match self.store_fails {
            Some(status) => Err(StoreError::Unavailable(status)),
            None => Ok(self.store.get(key).cloned()),
        }
    }

    fn compare_and_set(&mut self, key: &str, value: &[u8], version: Option<Version>) -> Result<(), StoreError> {
        if let Some(status) = self.store_fails.or(self.read_only.then_some(2)) {
            return Err(StoreError::Unavailable(status));
        }
        let current = self.store.get(key).map(|(_, version)| *version);
        if self.conflicts > 0 || current != version {
            self.conflicts = self.conflicts.saturating_sub(1);
            return Err(StoreError::Conflict);
        }
        self.store.insert(key.into(), (value.into(), current.unwrap_or(0) + 1));
        Ok(())
    }
}

impl Telemetry for MemoryHost {
    fn count(&mut self, metric: Metric<'_>, amount: u64) {
        let counter = self.counters.entry(metric.stat_name(&mut self.cap)).or_default();
        *counter = counter.saturating_add(amount);
    }

    fn count_cost(&mut self, department: &str, model: &str, cost: Usd) {
        let nanos = u64::try_from(cost.pico() / 1000).unwrap_or(u64::MAX);
        self.count(Metric::CostUsdNanos { department, model }, nanos);
    }

    fn log_once(&mut self, event: Event<'_>) {
        if self.gate.admit(&event) {
            self.log.push(event.to_string());
        }
    }
}

/// The record as who reads its line has it; as it is where it cannot be written.
fn as_read(record: &UsageRecord) -> UsageRecord {
    let read = record.to_json().and_then(|line| serde_json::from_slice(&line));
    read.unwrap_or_else(|_| record.clone())
}

impl RecordSink for MemoryHost {
    fn provisional(&mut self, record: &UsageRecord) {
        self.provisional.push(as_read(record));
    }

    fn expose(&mut self, key: &str, text: &str) {
        self.exposed.insert(key.into(), text.into());
    }

    fn emit(&mut self, record: UsageRecord) {
        self.records.push(as_read(&record));
    }

    fn emit_line(&mut self, line: Vec<u8>) {
        self.lines.push(line);
    }
}
