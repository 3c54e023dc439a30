//! What several groups of tests share.

pub mod wasm_host;
