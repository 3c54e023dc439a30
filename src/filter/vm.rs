//! What all contexts of one VM share: its identity, its metrics, its log gate.

use super::held::Watched;
use crate::delivery::Delivery;
use crate::identity::Instance;
use crate::money::Usd;
use crate::telemetry::{Event, LabelCap, LogGate, Metric};
use hashbrown::HashMap;
use std::cell::RefCell;
use std::rc::Rc;

/// The records of one configuration on their way to the collector.
pub(super) type Queue = Rc<RefCell<Delivery>>;

/// One VM.
#[derive(Default)]
pub(super) struct Vm {
    /// Made at the first call, so that the main thread's VM and canaries, which serve none, take no ordinal.
    pub(super) instance: Option<Instance>,
    pub(super) metrics: Metrics,
    pub(super) log_gate: LogGate,
    /// Requests that the host may be unable to hold.
    pub(super) watched: Vec<Watched>,
    /// Queues whose root context is gone; the next one that ticks takes them over.
    orphans: Vec<Queue>,
}

thread_local! {
    static VM: RefCell<Vm> = RefCell::default();
}

/// Runs `act` on this VM; `None` where it is in use already, which no callback order brings about.
pub(super) fn with<T>(act: impl FnOnce(&mut Vm) -> T) -> Option<T> {
    VM.with(|vm| vm.try_borrow_mut().ok().map(|mut vm| act(&mut vm)))
}

/// Counters by stat name: a host defines each once per VM, and every definition costs it memory.
#[derive(Default)]
pub(super) struct Metrics {
    ids: HashMap<String, Option<u32>>,
    cap: LabelCap,
    /// Pico-dollars below a nano-dollar, by stat.
    remainders: HashMap<String, i128>,
}

impl Metrics {
    /// The id of a metric's stat, defined at its first use with `define`; `None` where that failed.
    pub(super) fn id(&mut self, metric: Metric<'_>, define: impl FnOnce(&str) -> Option<u32>) -> Option<u32> {
        let name = metric.stat_name(&mut self.cap);
        if let Some(id) = self.ids.get(&name) {
            return *id;
        }
        let id = define(&name);
        self.ids.insert(name, id);
        id
    }

    /// The whole nano-dollars to count for `cost`; the rest waits for the next one.
    pub(super) fn nanos(&mut self, metric: Metric<'_>, cost: Usd) -> u64 {
        const PICO_PER_NANO: i128 = 1000;
        let remainder = self.remainders.entry(metric.stat_name(&mut self.cap)).or_default();
        let pico = cost.pico().saturating_add(*remainder);
        *remainder = pico % PICO_PER_NANO;
        u64::try_from(pico / PICO_PER_NANO).unwrap_or(u64::MAX)
    }
}

/// Runs `act` with this VM's identity, if it has one yet. It is taken out meanwhile, so that the host may use the rest.
pub(super) fn with_instance(act: impl FnOnce(&mut Instance)) {
    if let Some(mut instance) = with(|vm| vm.instance.take()).flatten() {
        act(&mut instance);
        with(|vm| vm.instance = Some(instance));
    }
}

/// Whether a log line is to be written.
pub(super) fn admits(event: &Event<'_>) -> bool {
    with(|vm| vm.log_gate.admit(event)).unwrap_or(false)
}

/// Leaves a queue to whichever root context ticks next.
pub(super) fn leave(queue: Queue) {
    with(|vm| vm.orphans.push(queue));
}

/// The queues that were left.
pub(super) fn adopt() -> Vec<Queue> {
    with(|vm| std::mem::take(&mut vm.orphans)).unwrap_or_default()
}

/// A key no other batch of this Envoy has. Records come from exchanges, so there is an instance by then.
pub(super) fn next_batch_key() -> String {
    with(|vm| vm.instance.as_mut().map(Instance::next_batch_key)).flatten().unwrap_or_default()
}
