//! Traps on demand, in test builds only: what an Envoy looks like when a VM dies can then be tested.

#[cfg(feature = "test-trap")]
use super::abi::{self, Map};

/// The callback in which a stream shall trap, as its `x-tollgate-test-trap` header names it.
#[derive(Default)]
pub(super) struct Trap {
    #[cfg(feature = "test-trap")]
    at: Vec<u8>,
}

impl Trap {
    /// Reads the request header.
    #[cfg(feature = "test-trap")]
    pub(super) fn arm(&mut self) {
        self.at = abi::header(Map::Request, "x-tollgate-test-trap").unwrap_or_default();
    }

    /// Traps if this is the callback.
    #[cfg(feature = "test-trap")]
    pub(super) fn spring(&self, callback: &str) {
        if self.at == callback.as_bytes() {
            core::arch::wasm32::unreachable()
        }
    }

    #[cfg(not(feature = "test-trap"))]
    #[allow(clippy::unused_self)]
    pub(super) fn arm(&mut self) {}

    #[cfg(not(feature = "test-trap"))]
    #[allow(clippy::unused_self)]
    pub(super) fn spring(&self, _: &str) {}
}
