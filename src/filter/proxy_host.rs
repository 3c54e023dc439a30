//! The core's ports on proxy-wasm host calls. A call that fails is counted and said once; nothing else happens.

use super::abi::{self, HostError, Level};
use super::vm::{self, Queue};
use crate::host::{Clock, RecordSink, SharedStore, StoreError, Telemetry, Version};
use crate::money::Usd;
use crate::record::UsageRecord;
use crate::telemetry::{Event, Metric};

/// The filter state key of the record; Envoy puts `wasm.` in front.
const RECORD_PROPERTY: &str = "tollgate.record";

/// The host of one callback.
pub(super) struct ProxyHost<'a> {
    /// Where records are queued, if there is a collector.
    pub(super) delivery: Option<&'a Queue>,
}

impl ProxyHost<'_> {
    /// The value of a host call, or `None` and a count.
    pub(super) fn check<T>(&mut self, result: Result<T, HostError>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                self.failed(error);
                None
            }
        }
    }

    fn failed(&mut self, HostError { call, status }: HostError) {
        self.count(Metric::HostErrors { call }, 1);
        self.log_once(Event::HostCallFailed { call, status });
    }

    fn put_record(&mut self, record: &UsageRecord) -> Option<Vec<u8>> {
        match record.to_json() {
            Ok(line) => {
                let set = abi::set_property(RECORD_PROPERTY, &line);
                self.check(set);
                Some(line)
            }
            Err(error) => {
                self.log_once(Event::RecordUnwritable { detail: &error.to_string() });
                None
            }
        }
    }
}

impl Clock for ProxyHost<'_> {
    /// The host's clock; the epoch where it has none, which a reader of the record cannot mistake for now.
    fn now_ns(&mut self) -> u64 {
        let now = abi::now_ns();
        self.check(now).unwrap_or(0)
    }
}

impl SharedStore for ProxyHost<'_> {
    fn get(&mut self, key: &str) -> Result<Option<(Vec<u8>, Version)>, StoreError> {
        abi::shared_data(key).map_err(|error| {
            self.failed(error);
            StoreError::Unavailable(error.status)
        })
    }

    fn compare_and_set(&mut self, key: &str, value: &[u8], version: Option<Version>) -> Result<(), StoreError> {
        // On Envoy a version that no entry has means "only if absent"; other hosts say that by 0, which on Envoy would
        // overwrite: it is tried only where a mismatch proves that nothing is there.
        const ABSENT: u32 = u32::MAX;
        const ABSENT_ELSEWHERE: u32 = 0;
        let mut set = abi::set_shared_data(key, value, version.unwrap_or(ABSENT));
        let mismatch = |set: &Result<(), HostError>| matches!(set, Err(HostError { status: abi::CAS_MISMATCH, .. }));
        if version.is_none() && mismatch(&set) && matches!(abi::shared_data(key), Ok(None)) {
            set = abi::set_shared_data(key, value, ABSENT_ELSEWHERE);
        }
        match set {
            Ok(()) => Ok(()),
            Err(HostError { status: abi::CAS_MISMATCH, .. }) => Err(StoreError::Conflict),
            Err(error) => {
                self.failed(error);
                Err(StoreError::Unavailable(error.status))
            }
        }
    }
}

impl Telemetry for ProxyHost<'_> {
    fn count(&mut self, metric: Metric<'_>, amount: u64) {
        let Ok(offset @ 1..) = i64::try_from(amount) else { return };
        let id = vm::with(|vm| vm.metrics.id(metric, |name| abi::define_counter(name).ok())).flatten();
        // A failure here is not counted: counting is what fails.
        let counted = id.map(|id| abi::increment(id, offset));
        if let Some(Err(HostError { call, status })) = counted {
            self.log_once(Event::HostCallFailed { call, status });
        }
    }

    fn count_cost(&mut self, department: &str, model: &str, cost: Usd) {
        let metric = Metric::CostUsdNanos { department, model };
        let nanos = vm::with(|vm| vm.metrics.nanos(metric, cost)).unwrap_or(0);
        self.count(metric, nanos);
    }

    fn log_once(&mut self, event: Event<'_>) {
        if vm::admits(&event) {
            abi::log(Level::Warn, &event.to_string());
        }
    }
}

impl RecordSink for ProxyHost<'_> {
    fn provisional(&mut self, record: &UsageRecord) {
        self.put_record(record);
    }

    fn expose(&mut self, key: &str, text: &str) {
        let set = abi::set_property(key, text.as_bytes());
        self.check(set);
    }

    fn emit(&mut self, record: UsageRecord) {
        if let Some(line) = self.put_record(&record) {
            self.emit_line(line);
        }
    }

    fn emit_line(&mut self, line: Vec<u8>) {
        let Some(delivery) = self.delivery else { return };
        match delivery.try_borrow_mut() {
            Ok(mut queue) => queue.push(line, self),
            Err(_) => self.count(Metric::Records { result: "dropped_queue_busy" }, 1),
        }
    }
}

/// Sends the `log` crate's lines, and a panic's last words, to the host.
pub(super) fn install_logger() {
    struct HostLogger;
    impl log::Log for HostLogger {
        fn enabled(&self, _: &log::Metadata<'_>) -> bool {
            true
        }
        fn log(&self, record: &log::Record<'_>) {
            let level = match record.level() {
                log::Level::Error => Level::Error,
                log::Level::Warn => Level::Warn,
                log::Level::Info => Level::Info,
                log::Level::Debug => Level::Debug,
                log::Level::Trace => Level::Trace,
            };
            abi::log(level, &record.args().to_string());
        }
        fn flush(&self) {}
    }
    static LOGGER: HostLogger = HostLogger;
    if log::set_logger(&LOGGER).is_ok() {
        log::set_max_level(log::LevelFilter::Info);
    }
    std::panic::set_hook(Box::new(|panic| abi::log(Level::Critical, &panic.to_string())));
}
