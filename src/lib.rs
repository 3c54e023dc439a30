//! Tollgate: LLM cost attribution as a proxy-wasm filter for Envoy.
//!
//! # The life of a request
//!
//! 1. The `filter` (wasm32 only) turns each proxy-wasm callback into an [`exchange::Event`] and does what the
//!    [`exchange::Verdict`] says. It decides nothing.
//! 2. Request headers: [`api`] recognises the wire format, [`attribution`] reads from headers, properties, baggage
//!    and the API key who pays, and an [`exchange::Exchange`] begins with an id from [`identity`].
//! 3. Bodies pass as they are. On the side, [`body`] scans them incrementally for the few places the format names:
//!    the model and limits of the request, the token [`usage`] of the reply. Where a stream reports usage only on
//!    request, [`rewrite`] asks for it and takes the answer out again.
//! 4. Where a [`budget`] may say no, the body waits until the most the call may cost ([`estimate`]) is held in the
//!    ledger; else it is refused in the caller's own dialect ([`reply`]), or goes to a cheaper model ([`downgrade`]).
//! 5. At the end [`price`] multiplies usage and rates into an exact cost ([`money`]), and one [`record`] goes to the
//!    collector through [`delivery`] and into Envoy's access log. [`telemetry`] names every metric and log line.
//!    What was held becomes what was spent; [`overview`] and [`admin`] show and change how budgets stand.
//!
//! Everything but the filter is plain Rust that never reads a clock, the environment, files or randomness: those
//! are the ports in [`host`], with an in-memory version in [`memory`]. [`config`] is read once, strictly.

pub mod admin;
pub mod api;
pub mod attribution;
pub mod body;
pub mod budget;
pub mod config;
pub mod delivery;
pub mod downgrade;
pub mod estimate;
pub mod exchange;
pub mod glob;
pub mod host;
pub mod http;
pub mod identity;
pub mod memory;
pub mod money;
pub mod overview;
pub mod price;
pub mod record;
pub mod reply;
pub mod rewrite;
pub mod telemetry;
pub mod time;
pub mod usage;
pub mod withheld;
pub mod workload;

#[cfg(all(target_arch = "wasm32", feature = "filter"))]
mod filter;
