//! The integration tests, one binary: this file is their table of contents.
//!
//! | module | what it holds |
//! |---|---|
//! | `attribution` | what calls are charged to, by a table that real Envoy plays too |
//! | `golden` | request, response and record of whole exchanges, natively and in the compiled module, at every chunking |
//! | `injection` | asking for usage in the caller's place |
//! | `prices` | what calls cost, natively and in the compiled module |
//! | `price_properties` | what must hold for any prices and any usage |
//! | `properties` | what must hold for any input and any order of events |
//! | `filter` | the compiled module in-process: ends, faults of every host call, two workers, fuel |
//! | `examples` | every configuration that is shipped loads |
//! | `fixtures` | every provider's format |
//! | `fuzz_corpus` | what the fuzzers found, and their seeds, on stable |
//! | `docs` | the documentation's tables of the configuration, against what the reader reads |
//! | `recordings` | real provider answers, where they are at hand |
//! | `rewrite` | edits of bodies, for any input |
//! | `architecture` | which module may know which |
//! | `budgets` | what budgets promise, for any order of workers, callers, faults and clocks |
//! | `windows` | periods of budgets, against Python's and for any time zone |
//! | `wasm_host_selftest` | the in-process host behaves as Envoy does |
//!
//! Real Envoy is in `tests/envoy` (pytest).

// A test may panic and may address what it knows is there; support code is not used by every test.
#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    clippy::unwrap_used,
    dead_code,
    unreachable_pub
)]

mod architecture;
mod attribution;
mod budgets;
mod docs;
mod examples;
mod filter;
mod fixtures;
mod fuzz_corpus;
mod golden;
mod held;
mod injection;
mod price_properties;
mod prices;
mod properties;
mod recordings;
mod rewrite;
mod support;
mod wasm_host_selftest;
mod windows;
