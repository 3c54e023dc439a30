//! What several groups of tests share.

pub mod chunks;
pub mod core_driver;
pub mod exchange;
pub mod wasm_driver;
pub mod wasm_host;
