//! Who writes a record: names for VM instances and ids for records.
//!
//! There is no randomness in the VM, so uniqueness is built: the first VM of an Envoy process leaves a boot nonce
//! (its clock) in the shared store, every VM takes the next ordinal there, and counts its own exchanges. An id is
//! laid out as a UUIDv7, the time in front and a SHA-256 of those three and the request id behind, so it sorts by
//! time and is unique also where callers repeat an `x-request-id`.

use crate::attribution::Spellings;
use crate::budget::ledger::Ledger;
use crate::host::{Clock, SharedStore, StoreError};
use crate::withheld::Withheld;
use sha2::{Digest, Sha256};

const BOOT_KEY: &str = "tollgate.boot";
const ORDINAL_KEY: &str = "tollgate.vm";
/// Other VMs that may get in first before this one gives up and takes its clock for an ordinal.
const MAX_CONFLICTS: u32 = 64;

/// One VM.
#[derive(Debug)]
pub struct Instance {
    name: Box<str>,
    gateway: Option<Box<str>>,
    boot: u64,
    ordinal: u64,
    exchanges: u64,
    records: u64,
    notices: u64,
    batches: u64,
    /// The time of the last tick, in nanoseconds since 1970: a clock that costs nothing to look at.
    pub ticked_ns: u64,
    /// This worker's side of the ledger.
    pub ledger: Ledger,
    /// What is held back of requests.
    pub withheld: Withheld,
    spellings: Spellings,
}

impl Instance {
    /// Registers this VM in the shared store. Without a store the clock stands in, which still tells VMs apart
    /// unless two start within the same nanosecond. `gateway` is the name of the Envoy node.
    pub fn register(host: &mut (impl Clock + SharedStore + ?Sized), gateway: Option<Box<str>>) -> Instance {
        let now = host.now_ns();
        let boot = boot_nonce(host, now).unwrap_or(now);
        let ordinal = next_ordinal(host).unwrap_or(now);
        let name = format!("{boot:x}-{ordinal:x}").into();
        Instance {
            name,
            gateway,
            boot,
            ordinal,
            exchanges: 0,
            records: 0,
            notices: 0,
            batches: 0,
            ticked_ns: 0,
            ledger: Ledger::new(ordinal),
            withheld: Withheld::default(),
            spellings: Spellings::default(),
        }
    }

    /// The record's `instance`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The record's `gateway`.
    pub fn gateway(&self) -> Option<&str> {
        self.gateway.as_deref()
    }

    /// The spellings of dimensions' values that this VM has seen.
    pub fn spellings(&mut self) -> &mut Spellings {
        &mut self.spellings
    }

    /// The next `seq` of a usage record, from 1.
    pub fn next_seq(&mut self) -> u64 {
        self.records = self.records.saturating_add(1);
        self.records
    }

    /// The next `seq` of any other record, from 1: those are not in the access log, which so has no gaps of its own.
    pub fn next_notice_seq(&mut self) -> u64 {
        self.notices = self.notices.saturating_add(1);
        self.notices
    }

    /// The next idempotency key of a batch.
    pub fn next_batch_key(&mut self) -> String {
        self.batches = self.batches.saturating_add(1);
        format!("{}-{}", self.name, self.batches)
    }

    /// The id of an exchange that began at `now_ns`.
    pub fn next_id(&mut self, now_ns: u64, request_id: &[u8]) -> Box<str> {
        self.exchanges = self.exchanges.wrapping_add(1);
        let mut hash = Sha256::new();
        for part in [self.boot, self.ordinal, self.exchanges] {
            hash.update(part.to_be_bytes());
        }
        hash.update(request_id);
        uuid_v7(now_ns / 1_000_000, hash.finalize().first_chunk().copied().unwrap_or_default())
    }
}

fn uuid_v7(unix_ms: u64, tail: [u8; 10]) -> Box<str> {
    let [_, _, t0, t1, t2, t3, t4, t5] = unix_ms.to_be_bytes();
    let [a0, a1, b0, b1, c0, c1, c2, c3, c4, c5] = tail;
    let version = u16::from_be_bytes([a0, a1]) & 0x0fff | 0x7000;
    let variant = u16::from_be_bytes([b0, b1]) & 0x3fff | 0x8000;
    format!(
        "{t0:02x}{t1:02x}{t2:02x}{t3:02x}-{t4:02x}{t5:02x}-{version:04x}-{variant:04x}-\
         {c0:02x}{c1:02x}{c2:02x}{c3:02x}{c4:02x}{c5:02x}"
    )
    .into()
}

fn number(bytes: &[u8]) -> u64 {
    bytes.first_chunk().copied().map_or(0, u64::from_be_bytes)
}

/// The process's nonce: the clock of whichever VM came first.
fn boot_nonce(host: &mut (impl SharedStore + ?Sized), now: u64) -> Option<u64> {
    for _ in 0..MAX_CONFLICTS {
        if let Some((value, _)) = host.get(BOOT_KEY).ok()? {
            return Some(number(&value));
        }
        match host.compare_and_set(BOOT_KEY, &now.to_be_bytes(), None) {
            Ok(()) => return Some(now),
            Err(StoreError::Conflict) => {}
            Err(StoreError::Unavailable(_)) => return None,
        }
    }
    None
}

/// The number of VMs before this one, plus one.
fn next_ordinal(host: &mut (impl SharedStore + ?Sized)) -> Option<u64> {
    for _ in 0..MAX_CONFLICTS {
        let current = host.get(ORDINAL_KEY).ok()?;
        let version = current.as_ref().map(|(_, version)| *version);
        let next = current.map_or(0, |(value, _)| number(&value)).wrapping_add(1);
        match host.compare_and_set(ORDINAL_KEY, &next.to_be_bytes(), version) {
            Ok(()) => return Some(next),
            Err(StoreError::Conflict) => {}
            Err(StoreError::Unavailable(_)) => return None,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::MemoryHost;
    use std::collections::BTreeSet;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn vms_of_one_process_share_a_boot_nonce_and_count_up() {
        let mut host = MemoryHost::default();
        let first = Instance::register(&mut host, None);
        host.now_ns += 1_000_000_000;
        let second = Instance::register(&mut host, None);
        assert_eq!((first.boot, first.ordinal), (second.boot, 1));
        assert_eq!(second.ordinal, 2);
        assert_ne!(first.name(), second.name());
    }

    #[test]
    fn a_lost_race_is_run_again() {
        let mut host = MemoryHost::default();
        host.conflicts = 3;
        assert_eq!(Instance::register(&mut host, None).ordinal, 1);
    }

    #[test]
    fn without_a_store_instances_still_differ() {
        let mut host = MemoryHost::default();
        host.store_fails = Some(12);
        let first = Instance::register(&mut host, None);
        host.now_ns += 1;
        assert_ne!(first.name(), Instance::register(&mut host, None).name());
    }

    #[test]
    fn ids_are_uuids_that_sort_by_time_and_never_repeat() {
        let mut host = MemoryHost::default();
        let mut vms = [Instance::register(&mut host, None), Instance::register(&mut host, None)];
        let mut seen = BTreeSet::new();
        for _ in 0..1000 {
            for vm in &mut vms {
                assert!(seen.insert(vm.next_id(1_700_000_000_000_000_000, b"the same")));
            }
        }
        let id = vms[0].next_id(1_700_000_000_123_456_789, b"");
        assert!(id.starts_with("018bcfe5-687b-7"), "{id}");
        assert!(matches!(id.as_bytes()[19], b'8'..=b'b'), "{id}");
        assert_eq!(id.len(), 36);
        assert!(*id > *vms[0].next_id(1_600_000_000_000_000_000, b""));
    }
}
