//! Ports: the four things the core asks of its host.
//!
//! The filter implements them on raw proxy-wasm calls, tests in memory with faults to inject. Headers and bodies
//! are arguments and local replies are return values, so nothing else of the host is visible to the core.

use crate::record::UsageRecord;
use crate::telemetry::{Event, Metric};

/// The wall clock.
pub trait Clock {
    /// Nanoseconds since the Unix epoch.
    fn now_ns(&mut self) -> u64;
}

/// A compare-and-swap version of a shared value; opaque.
pub type Version = u32;

/// Why a write to the shared store did not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreError {
    /// Someone else wrote first: read again.
    Conflict,
    /// The host has no store, or it failed with this status.
    Unavailable(u32),
}

/// Values shared by all VMs of one Envoy process.
pub trait SharedStore {
    /// The value of `key` and its version; `None` where there is none.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    fn get(&mut self, key: &str) -> Result<Option<(Vec<u8>, Version)>, StoreError>;

    /// Writes `value` if the key still has `version`, or does not exist where that is `None`.
    ///
    /// # Errors
    /// See [`StoreError`].
    fn compare_and_set(&mut self, key: &str, value: &[u8], version: Option<Version>) -> Result<(), StoreError>;
}

/// Metrics and log lines.
pub trait Telemetry {
    /// Adds `amount` to a counter; adding 0 does nothing.
    fn count(&mut self, metric: Metric<'_>, amount: u64);

    /// Adds a cost to `tollgate_cost_usd_nanos_total`; what is below a nano-dollar is carried over.
    fn count_cost(&mut self, department: &str, model: &str, cost: crate::money::Usd);

    /// Logs `event`, the first time that it happens in this VM.
    fn log_once(&mut self, event: Event<'_>);
}

/// Where records go.
pub trait RecordSink {
    /// Makes `record` what the access log shows should the exchange never end properly.
    fn provisional(&mut self, record: &UsageRecord);

    /// Makes `text` what the access log shows under `key`.
    fn expose(&mut self, key: &str, text: &str);

    /// Takes the one final record of an exchange.
    fn emit(&mut self, record: UsageRecord);

    /// Takes a record that is about no single exchange, as a line of JSON.
    fn emit_line(&mut self, line: Vec<u8>);
}

/// All ports together.
pub trait Host: Clock + SharedStore + Telemetry + RecordSink {}

impl<T: Clock + SharedStore + Telemetry + RecordSink> Host for T {}
