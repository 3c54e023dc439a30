//! One Envoy process: what its workers share.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use super::program::Program;
use super::shared::SharedStore;
use super::vm::Vm;

/// The wall clock of the process, moved only by the test.
#[derive(Clone, Debug)]
pub struct Clock(Rc<Cell<u64>>);

impl Clock {
    /// 2026-01-15T12:00:00Z, in nanoseconds since 1970.
    pub const START_NS: u64 = 1_768_478_400_000_000_000;

    /// Nanoseconds since 1970.
    pub fn now_ns(&self) -> u64 {
        self.0.get()
    }

    /// Sets the clock; it may go back, as wall clocks do.
    pub fn set_ns(&self, ns: u64) {
        self.0.set(ns);
    }

    /// Moves the clock forward.
    pub fn advance(&self, by: Duration) {
        let ns = u64::try_from(by.as_nanos()).expect("a test lasts less than 500 years");
        self.0.set(self.0.get() + ns);
    }
}

/// Statistics by name, as the process exports them: VMs that define one name feed one number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Counters.
    pub counters: BTreeMap<String, u64>,
    /// Gauges.
    pub gauges: BTreeMap<String, u64>,
    /// Histograms, each with every recorded value.
    pub histograms: BTreeMap<String, Vec<u64>>,
}

/// One Envoy process.
#[derive(Clone, Debug)]
pub struct Process {
    /// The clock of all VMs.
    pub clock: Clock,
    /// Shared data and queues.
    pub shared: Rc<RefCell<SharedStore>>,
    /// Statistics.
    pub stats: Rc<RefCell<Stats>>,
    /// The clusters a call can go to.
    pub clusters: Rc<RefCell<BTreeSet<String>>>,
    vms: Rc<Cell<u32>>,
}

impl Default for Process {
    fn default() -> Self {
        Self {
            clock: Clock(Rc::new(Cell::new(Clock::START_NS))),
            shared: Rc::default(),
            stats: Rc::default(),
            clusters: Rc::default(),
            vms: Rc::default(),
        }
    }
}

impl Process {
    /// A process that has just started and knows no cluster.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes a cluster known.
    pub fn add_cluster(&self, name: &str) {
        self.clusters.borrow_mut().insert(name.to_owned());
    }

    /// Starts a VM: a worker's, the main thread's or a canary, which are all the same to the guest.
    pub fn start_vm(&self, program: &Program) -> Vm {
        self.vms.set(self.vms.get() + 1);
        Vm::start(self.clone(), program, self.vms.get())
    }

    /// The value of a counter; `None` when nothing has defined it.
    pub fn counter(&self, name: &str) -> Option<u64> {
        self.stats.borrow().counters.get(name).copied()
    }

    /// The value of a gauge; `None` when nothing has defined it.
    pub fn gauge(&self, name: &str) -> Option<u64> {
        self.stats.borrow().gauges.get(name).copied()
    }

    /// Every value recorded in a histogram; `None` when nothing has defined it.
    pub fn histogram(&self, name: &str) -> Option<Vec<u64>> {
        self.stats.borrow().histograms.get(name).cloned()
    }
}
