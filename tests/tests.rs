//! The integration tests, one binary: this file is their table of contents.

// A test may panic and may address what it knows is there; support code is not used by every test.
#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    dead_code,
    unreachable_pub
)]

mod support;
mod wasm_host_selftest;
