//! One HTTP stream: each callback becomes an event, each verdict host calls.

use super::abi::{self, Buffer, Map};
use super::proxy_host::ProxyHost;
use super::test_trap::Trap;
use super::vm::{self, Queue};
use crate::config::Config;
use crate::exchange::{self, Edit, Ending, Event, Exchange, Verdict};
use crate::http::Headers;
use crate::identity::Instance;
use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::Action;
use std::rc::Rc;

/// One stream.
pub(super) struct Stream {
    exchange: Exchange,
    delivery: Option<Queue>,
    trap: Trap,
}

impl Stream {
    pub(super) fn new(config: Rc<Config>, delivery: Option<Queue>) -> Stream {
        Stream { exchange: Exchange::new(config), delivery, trap: Trap::default() }
    }

    fn on(&mut self, event: Event<'_>) -> Verdict {
        let mut host = ProxyHost { delivery: self.delivery.as_ref() };
        // The instance is taken out for the callback, so that the host may use the rest of the VM.
        let instance = vm::with(|vm| vm.instance.take()).flatten();
        let mut instance = instance.unwrap_or_else(|| Instance::register(&mut host, node_id()));
        let verdict = self.exchange.on(event, &mut exchange::Context { host: &mut host, instance: &mut instance });
        vm::with(|vm| vm.instance = Some(instance));
        verdict
    }

    /// Feeds an event that needs headers; a map that cannot be read counts as empty.
    fn on_headers(&mut self, map: Map, event: impl FnOnce(&mut Stream, &Headers<'_>) -> Verdict) {
        let serialized = abi::header_pairs(map);
        let mut host = ProxyHost { delivery: None };
        let serialized = host.check(serialized).unwrap_or_default();
        let headers = abi::pairs(&serialized).collect();
        let verdict = event(self, &headers);
        for edit in &verdict.edits {
            let done = match edit {
                Edit::Remove(name) => abi::remove_header(map, name),
                Edit::Set(name, value) => abi::set_header(map, name, value.as_bytes()),
            };
            host.check(done);
        }
    }

    fn body(&mut self, buffer: Buffer, size: usize) -> Vec<u8> {
        if size == 0 {
            return Vec::new();
        }
        let bytes = abi::buffer(buffer, size);
        ProxyHost { delivery: None }.check(bytes).unwrap_or_default()
    }

    /// The end, at most once.
    fn log(&mut self) {
        let code_details = text_property(&["response", "code_details"]);
        let route = text_property(&["xds", "route_name"]);
        let cluster = text_property(&["xds", "cluster_name"]);
        let serialized = if self.exchange.is_idle() { abi::header_pairs(Map::Request).ok() } else { None };
        let headers: Option<Headers<'_>> = serialized.as_deref().map(|bytes| abi::pairs(bytes).collect());
        let ending = Ending {
            code_details: code_details.as_deref(),
            status: number_property(&["response", "code"]).and_then(|status| u16::try_from(status).ok()),
            attempts: number_property(&["upstream", "request_attempt_count"]),
            route: route.as_deref(),
            cluster: cluster.as_deref(),
            request_headers: headers.as_ref(),
        };
        self.on(Event::Log(ending));
    }
}

/// A property, where the host has it and it is not empty.
fn property(path: &[&str]) -> Option<Vec<u8>> {
    let value = abi::property(path);
    ProxyHost { delivery: None }.check(value).flatten().filter(|value| !value.is_empty())
}

fn text_property(path: &[&str]) -> Option<String> {
    String::from_utf8(property(path)?).ok()
}

/// Numbers come as eight bytes, little-endian.
fn number_property(path: &[&str]) -> Option<u64> {
    property(path)?.first_chunk().copied().map(u64::from_le_bytes)
}

fn node_id() -> Option<Box<str>> {
    text_property(&["xds", "node", "id"]).map(Into::into)
}

impl Context for Stream {
    fn on_done(&mut self) -> bool {
        // Hosts that never call the log callback still end streams.
        if self.exchange.is_open() {
            self.log();
        }
        true
    }
}

impl HttpContext for Stream {
    fn on_http_request_headers(&mut self, _: usize, end_of_stream: bool) -> Action {
        self.trap.arm();
        self.on_headers(Map::Request, |stream, headers| stream.on(Event::RequestHeaders { headers, end_of_stream }));
        self.trap.spring("request_headers");
        Action::Continue
    }

    fn on_http_request_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        if self.exchange.reads_request_body() {
            let chunk = self.body(Buffer::RequestBody, size);
            self.on(Event::RequestBody { chunk: &chunk, end_of_stream });
        }
        self.trap.spring("request_body");
        Action::Continue
    }

    fn on_http_request_trailers(&mut self, _: usize) -> Action {
        self.on(Event::RequestTrailers);
        Action::Continue
    }

    fn on_http_response_headers(&mut self, _: usize, end_of_stream: bool) -> Action {
        if self.exchange.is_open() {
            self.on_headers(Map::Response, |stream, headers| {
                stream.on(Event::ResponseHeaders { headers, end_of_stream })
            });
        }
        self.trap.spring("response_headers");
        Action::Continue
    }

    fn on_http_response_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        if self.exchange.reads_response_body() {
            let chunk = self.body(Buffer::ResponseBody, size);
            self.on(Event::ResponseBody { chunk: &chunk, end_of_stream });
        }
        self.trap.spring("response_body");
        Action::Continue
    }

    fn on_http_response_trailers(&mut self, _: usize) -> Action {
        self.on(Event::ResponseTrailers);
        Action::Continue
    }

    fn on_log(&mut self) {
        self.trap.spring("log");
        self.log();
    }
}
