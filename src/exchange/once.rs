//! Charging a response once, however often it is fetched.
//!
//! A background response is created by one request and polled by others; each answer repeats the usage. Whoever sees a
//! response's usage first claims its id in the store that all workers share. There is no delete there, so ids are kept
//! as short hashes in a fixed number of entries, and the oldest make room.

use crate::host::{SharedStore, StoreError};
use sha2::{Digest, Sha256};

/// Entries of the store.
const BUCKETS: u8 = 64;
/// Ids kept in each: 4096 responses are remembered in all.
const IDS_PER_BUCKET: usize = 64;
const ID_BYTES: usize = 8;
/// Other workers that may get in first before the claim is taken for granted: better twice in a record than never.
const MAX_CONFLICTS: u32 = 16;

/// Claims `response_id`; true where nobody has before.
pub(super) fn claim(store: &mut (impl SharedStore + ?Sized), response_id: &str) -> bool {
    let hash = Sha256::digest(response_id);
    let (Some(id), Some(&last)) = (hash.first_chunk::<ID_BYTES>(), hash.last()) else { return true };
    let key = format!("tollgate.response.{}", last % BUCKETS);
    for _ in 0..MAX_CONFLICTS {
        let Ok(current) = store.get(&key) else { return true };
        let version = current.as_ref().map(|(_, version)| *version);
        let mut ids = current.map(|(value, _)| value).unwrap_or_default();
        if ids.chunks(ID_BYTES).any(|known| known == id) {
            return false;
        }
        ids.extend_from_slice(id);
        let excess = ids.len().saturating_sub(IDS_PER_BUCKET * ID_BYTES);
        let kept = ids.get(excess..).unwrap_or_default();
        match store.compare_and_set(&key, kept, version) {
            Err(StoreError::Conflict) => {}
            Ok(()) | Err(StoreError::Unavailable(_)) => return true,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::MemoryHost;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn an_id_is_claimed_once() {
        let mut host = MemoryHost::default();
        assert!(claim(&mut host, "resp_1") && claim(&mut host, "resp_2"));
        assert!(!claim(&mut host, "resp_1") && !claim(&mut host, "resp_2"));
        host.conflicts = 2;
        assert!(claim(&mut host, "resp_3"), "a lost race is run again");
        assert!(!claim(&mut host, "resp_3"));
    }

    #[test]
    fn without_a_store_everything_is_charged() {
        let mut host = MemoryHost::default();
        host.store_fails = Some(12);
        assert!(claim(&mut host, "resp_1") && claim(&mut host, "resp_1"));
    }

    #[test]
    fn the_memory_is_bounded_and_the_latest_are_remembered() {
        let mut host = MemoryHost::default();
        for n in 0..20_000 {
            assert!(claim(&mut host, &format!("resp_{n}")));
        }
        assert!((19_000..20_000).all(|n| !claim(&mut host, &format!("resp_{n}"))));
        for bucket in 0..BUCKETS {
            let (ids, _) = host.get(&format!("tollgate.response.{bucket}")).unwrap().unwrap();
            assert!(ids.len() <= IDS_PER_BUCKET * ID_BYTES);
        }
    }
}
