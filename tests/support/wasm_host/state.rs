//! What the host knows of one VM: its contexts, calls, log, and the exchange each stream is in.
//!
//! Plain data. `events` moves it along, host calls read and change it, tests look at it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::guest::GuestExports;
use super::headers::HeaderMap;
use super::hostcall::Faults;
use super::process::Process;

/// The statuses of host calls, by Envoy's names.
pub mod status {
    pub const OK: u32 = 0;
    pub const NOT_FOUND: u32 = 1;
    pub const BAD_ARGUMENT: u32 = 2;
    pub const SERIALIZATION_FAILURE: u32 = 3;
    pub const PARSE_FAILURE: u32 = 4;
    pub const INVALID_MEMORY_ACCESS: u32 = 6;
    pub const EMPTY: u32 = 7;
    pub const CAS_MISMATCH: u32 = 8;
    pub const INTERNAL_FAILURE: u32 = 10;
    pub const BROKEN_CONNECTION: u32 = 11;
    pub const UNIMPLEMENTED: u32 = 12;
}

/// A line the guest logged; levels are trace 0, debug 1, info 2, warn 3, error 4, critical 5.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    pub level: u32,
    pub text: String,
}

/// A reply the guest sent instead of letting the exchange go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalReply {
    pub status: u32,
    /// As in `%RESPONSE_CODE_DETAILS%`: spaces are underscores.
    pub details: String,
    /// The headers the guest gave; `StreamState::response` has what the client got.
    pub headers: HeaderMap,
    pub body: Vec<u8>,
    pub grpc_status: i32,
}

/// Where an HTTP call of the guest stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallState {
    Open,
    Answered,
    /// The stream that made it is gone.
    Cancelled,
}

/// An HTTP call the guest dispatched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpCall {
    pub token: u32,
    /// The context that made it: a root or a stream.
    pub context: u32,
    pub cluster: String,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
    pub trailers: HeaderMap,
    /// 0 is no timeout.
    pub timeout_ms: u32,
    pub state: CallState,
}

/// How far a side of an exchange is held back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Hold {
    /// Passes on.
    #[default]
    None,
    /// Held, but the following callbacks come: a Pause on a body or trailers, and with
    /// `allow_on_headers_stop_iteration` on headers.
    Single,
    /// Held, and no callback comes until the guest continues the stream.
    All,
}

/// The request or the response of an exchange.
#[derive(Clone, Debug, Default)]
pub struct Side {
    /// The headers as they are after what the guest did.
    pub headers: HeaderMap,
    /// The trailers likewise; the guest can create them at the end of a body.
    pub trailers: HeaderMap,
    /// The headers as they were passed on; `None` while they are held.
    pub sent_headers: Option<HeaderMap>,
    /// The trailers as they were passed on.
    pub sent_trailers: Option<HeaderMap>,
    /// The body as it was passed on, one element for each time something was.
    pub forwarded: Vec<Vec<u8>>,
    /// Whether the end was passed on.
    pub ended: bool,
    /// What is held back.
    pub hold: Hold,
    /// The chunk of this callback, or the whole body while it is held.
    pub buffer: Vec<u8>,
    pub(super) started: bool,
    pub(super) headers_open: bool,
    pub(super) body_open: bool,
    pub(super) trailers_open: bool,
    pub(super) has_trailers: bool,
    pub(super) buffering: bool,
    pub(super) end_seen: bool,
    pub(super) pending_body: Vec<u8>,
    pub(super) pending_end: bool,
    pub(super) pending_trailers: Option<HeaderMap>,
}

impl Side {
    /// The body as it was passed on, in one piece.
    pub fn body(&self) -> Vec<u8> {
        self.forwarded.concat()
    }

    /// Passes on all that is held.
    pub(super) fn release(&mut self) {
        self.hold = Hold::None;
        (self.buffering, self.body_open) = (false, false);
        if self.sent_headers.is_none() {
            self.sent_headers = Some(self.headers.clone());
        }
        if !self.buffer.is_empty() {
            self.forwarded.push(std::mem::take(&mut self.buffer));
        }
        if self.end_seen {
            if self.has_trailers {
                self.sent_trailers = Some(self.trailers.clone());
            }
            self.ended = true;
        }
    }
}

/// One exchange, as a stream context of a VM sees it.
#[derive(Clone, Debug, Default)]
pub struct StreamState {
    pub root: u32,
    pub request: Side,
    pub response: Side,
    /// What the guest set with `set_property`, by its path; Envoy's access log has it as `wasm.<path>`.
    pub filter_state: BTreeMap<String, Vec<u8>>,
    pub local_reply: Option<LocalReply>,
    /// The guest cut the stream.
    pub reset: bool,
    pub(super) properties: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(super) created: bool,
    pub(super) logging: bool,
    pub(super) closed: bool,
    pub(super) deleted: bool,
}

/// A root context.
#[derive(Clone, Debug, Default)]
pub struct Root {
    pub configuration: Vec<u8>,
    pub allow_on_headers_stop_iteration: bool,
    pub tick_period_ms: u32,
    pub accepted: bool,
    pub done_pending: bool,
    pub properties_declared: BTreeSet<String>,
}

/// What is done once the guest has returned, because it would call the guest again.
#[derive(Debug)]
pub enum Deferred {
    Continue { stream: u32, response: bool },
    LocalReply { stream: u32, reply: LocalReply },
    DeleteRoot { root: u32 },
}

/// An answer the guest is being shown.
#[derive(Debug)]
pub struct Answer {
    pub root: u32,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
    pub trailers: Option<HeaderMap>,
}

/// A metric of a VM by its id. The two low bits of an id are its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    Counter,
    Gauge,
    Histogram,
}

/// The host's side of one VM.
pub struct HostState {
    pub process: Process,
    pub vm: u32,
    pub guest: Option<GuestExports>,
    pub faults: Faults,
    /// The context whose callback runs.
    pub current: u32,
    /// The context the guest acts for instead; 0 is none.
    pub effective: u32,
    pub next_context: u32,
    pub roots: BTreeMap<u32, Root>,
    pub streams: BTreeMap<u32, StreamState>,
    pub properties: BTreeMap<Vec<u8>, Vec<u8>>,
    pub vm_configuration: Vec<u8>,
    /// The root whose `proxy_on_configure` runs; only then is its configuration readable.
    pub configuring: Option<u32>,
    pub logs: Vec<LogLine>,
    pub log_level: u32,
    pub metrics: BTreeMap<u32, (MetricKind, String)>,
    pub calls: Vec<HttpCall>,
    pub answering: Option<Answer>,
    /// For `proxy_get_status`.
    pub last_status: (u32, String),
    pub deferred: VecDeque<Deferred>,
    /// A local reply was sent in this callback: its action counts for nothing.
    pub stop_iteration: bool,
}

impl HostState {
    pub fn new(process: Process, vm: u32) -> Self {
        Self {
            process,
            vm,
            guest: None,
            faults: Faults::default(),
            current: 0,
            effective: 0,
            next_context: 1,
            roots: BTreeMap::new(),
            streams: BTreeMap::new(),
            properties: BTreeMap::new(),
            vm_configuration: Vec::new(),
            configuring: None,
            logs: Vec::new(),
            log_level: 2,
            metrics: BTreeMap::new(),
            calls: Vec::new(),
            answering: None,
            last_status: (status::OK, String::new()),
            deferred: VecDeque::new(),
            stop_iteration: false,
        }
    }

    pub fn allocate_context(&mut self) -> u32 {
        self.next_context += 1;
        self.next_context - 1
    }

    pub fn has_context(&self, id: u32) -> bool {
        self.roots.contains_key(&id) || self.streams.get(&id).is_some_and(|stream| stream.created && !stream.deleted)
    }

    /// The context the guest acts for.
    pub fn context(&self) -> u32 {
        if self.effective != 0 && self.has_context(self.effective) { self.effective } else { self.current }
    }

    /// The root of the context the guest acts for.
    pub fn root(&self) -> u32 {
        let context = self.context();
        self.streams.get(&context).map_or(context, |stream| stream.root)
    }

    /// The stream the guest acts for, if it acts for one.
    pub fn stream(&mut self) -> Option<&mut StreamState> {
        let context = self.context();
        self.streams.get_mut(&context).filter(|stream| stream.created && !stream.deleted)
    }
}
