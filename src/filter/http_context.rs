//! One HTTP stream: each callback becomes an event, each verdict host calls.

use super::abi::{self, Buffer, Map};
use super::proxy_host::ProxyHost;
use super::test_trap::Trap;
use super::vm::{self, Queue};
use crate::config::Config;
use crate::exchange::{self, Edit, Ending, Event, Exchange, Route, Verdict};
use crate::http::Headers;
use crate::identity::Instance;
use crate::reply::LocalReply;
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
    fn on_headers(&mut self, map: Map, event: impl FnOnce(&mut Stream, &Headers<'_>) -> Verdict) -> Action {
        let serialized = abi::header_pairs(map);
        let mut host = ProxyHost { delivery: None };
        let serialized = host.check(serialized).unwrap_or_default();
        let headers = abi::pairs(&serialized).collect();
        let verdict = event(self, &headers);
        if verdict.reply.is_some_and(|reply| answer(&mut host, &reply)) {
            return Action::Pause;
        }
        for edit in &verdict.edits {
            let done = match edit {
                Edit::Remove(name) => abi::remove_header(map, name),
                Edit::Set(name, value) => abi::set_header(map, name, value.as_bytes()),
            };
            host.check(done);
        }
        if verdict.pause { Action::Pause } else { Action::Continue }
    }

    /// Feeds an event that needs a piece of a body; one that cannot be read counts as empty.
    fn on_body(&mut self, buffer: Buffer, size: usize, event: impl FnOnce(&mut Stream, &[u8]) -> Verdict) -> Action {
        let mut host = ProxyHost { delivery: None };
        let bytes = if size == 0 { Ok(Vec::new()) } else { abi::buffer(buffer, size) };
        let chunk = host.check(bytes).unwrap_or_default();
        let verdict = event(self, &chunk);
        if verdict.reply.is_some_and(|reply| answer(&mut host, &reply)) {
            return Action::Pause;
        }
        if let Some(body) = verdict.body {
            let done = abi::replace_buffer(buffer, size, &body);
            host.check(done);
        }
        if verdict.pause { Action::Pause } else { Action::Continue }
    }

    /// The properties that the exchange wants to know of the caller.
    fn properties(&self) -> Vec<Option<Vec<u8>>> {
        self.exchange.wants_properties().iter().map(|path| joined_property(path)).collect()
    }

    /// The end, at most once. What is no call, or has ended, is not worth asking the host about.
    fn log(&mut self) {
        if !self.exchange.is_open() && !self.exchange.is_idle() {
            return;
        }
        let code_details = text_property(&["response", "code_details"]);
        let route = text_property(&["xds", "route_name"]);
        let cluster = text_property(&["xds", "cluster_name"]);
        let serialized = if self.exchange.is_idle() { abi::header_pairs(Map::Request).ok() } else { None };
        let headers: Option<Headers<'_>> = serialized.as_deref().map(|bytes| abi::pairs(bytes).collect());
        let properties = if self.exchange.is_idle() { self.properties() } else { Vec::new() };
        let ending = Ending {
            code_details: code_details.as_deref(),
            status: number_property(&["response", "code"]).and_then(|status| u16::try_from(status).ok()),
            attempts: number_property(&["upstream", "request_attempt_count"]),
            route: route.as_deref(),
            cluster: cluster.as_deref(),
            properties: &properties,
            request_headers: headers.as_ref(),
        };
        self.on(Event::Log(ending));
    }
}

/// Answers in the provider's place; false where the host cannot, and the request passes.
fn answer(host: &mut ProxyHost<'_>, reply: &LocalReply) -> bool {
    let sent = abi::send_local_response(reply);
    host.check(sent).is_some()
}

/// A property, where the host has it and it is not empty.
fn property(path: &[&str]) -> Option<Vec<u8>> {
    joined_property(&path.join("\0"))
}

/// The same by a path with zero bytes between its parts.
fn joined_property(path: &str) -> Option<Vec<u8>> {
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
        let wanted = self.exchange.wants_route();
        let route = wanted.then(|| text_property(&["xds", "route_name"])).flatten();
        let cluster = wanted.then(|| text_property(&["xds", "cluster_name"])).flatten();
        let properties = self.properties();
        let action = self.on_headers(Map::Request, |stream, headers| {
            let route = Route { route: route.as_deref(), cluster: cluster.as_deref(), properties: &properties };
            stream.on(Event::RequestHeaders { headers, route, end_of_stream })
        });
        self.trap.spring("request_headers");
        action
    }

    fn on_http_request_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        let mut action = Action::Continue;
        if self.exchange.reads_request_body() {
            action = self.on_body(Buffer::RequestBody, size, |stream, chunk| {
                stream.on(Event::RequestBody { chunk, end_of_stream })
            });
        }
        self.trap.spring("request_body");
        action
    }

    fn on_http_request_trailers(&mut self, _: usize) -> Action {
        let verdict = self.on(Event::RequestTrailers);
        let mut host = ProxyHost { delivery: None };
        if verdict.reply.is_some_and(|reply| answer(&mut host, &reply)) { Action::Pause } else { Action::Continue }
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
            self.on_body(Buffer::ResponseBody, size, |stream, chunk| {
                stream.on(Event::ResponseBody { chunk, end_of_stream })
            });
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
