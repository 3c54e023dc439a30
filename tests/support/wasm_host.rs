//! A small proxy-wasm 0.2.1 host that runs the compiled filter inside the test process, as Envoy 1.40 would.
//!
//! Why not Envoy alone: here a test owns the clock, sees each host call, can make any of them fail or trap, can put two
//! workers over one store in a chosen order, and counts fuel, which unlike time is the same on every machine. Where the
//! proxy-wasm documents and Envoy differ, Envoy's observed behaviour is followed, because that is what the filter meets.
//!
//! [`Process`] is one Envoy: the clock, shared data, statistics and clusters. [`Vm`] is one worker's instance of a
//! [`Program`]. [`HttpStream`] sends one exchange through it, step by step. Both are handles: clone them freely.
//!
//! What is left out: network filters, gRPC (calls answer as for an unknown cluster), buffer limits, route re-selection,
//! failure policies other than "the VM is dead" (start a new [`Vm`] over the same [`Process`] for a reload).

mod bodies;
mod callouts;
mod events;
mod guest;
mod headers;
mod hostcall;
mod imports;
mod maps;
mod process;
mod program;
mod services;
mod shared;
mod state;
mod stream;
mod vm;

pub use headers::{HeaderMap, NO_HEADERS};
pub use hostcall::{Effect, Fault, HostCall, When};
pub use process::{Clock, Process, Stats};
pub use program::Program;
pub use shared::{CasRule, SharedStore};
pub use state::{CallState, HttpCall, LocalReply, LogLine, Side, StreamState, status};
pub use stream::HttpStream;
pub use vm::{Action, Dead, Plugin, Vm};
