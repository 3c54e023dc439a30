//! What each reader must hold for any bytes, one file per fuzz target.
//!
//! They are plain functions that panic where something does not hold, so that libFuzzer calls them with whatever it
//! comes up with, and `cargo test` with the committed corpus. The first bytes of an input say where the rest of it is cut
//! and which variant is tried; see [`input::Input`].

#![allow(dead_code)] // a target uses its own check only

mod input;
mod parsed;

pub(crate) mod config;
pub(crate) mod event_stream;
pub(crate) mod include_usage;
pub(crate) mod inflate;
pub(crate) mod json_scanner;
pub(crate) mod model;
pub(crate) mod multipart;
pub(crate) mod reply;
pub(crate) mod sse;
pub(crate) mod usage_event;

/// Panics where something does not hold for these bytes.
pub(crate) type Check = fn(&[u8]);

/// Every target by its name, which is also that of its corpus.
pub(crate) const ALL: [(&str, Check); 10] = [
    ("config", config::check),
    ("event_stream", event_stream::check),
    ("include_usage", include_usage::check),
    ("inflate", inflate::check),
    ("json_scanner", json_scanner::check),
    ("model", model::check),
    ("multipart", multipart::check),
    ("reply", reply::check),
    ("sse", sse::check),
    ("usage_event", usage_event::check),
];
