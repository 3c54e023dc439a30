//! One HTTP stream: each callback becomes an event, each verdict host calls.

use super::abi::{self, Buffer, Map};
use super::held::{self, Holding};
use super::proxy_host::ProxyHost;
use super::test_trap::Trap;
use super::vm::{self, Queue};
use crate::config::Config;
use crate::exchange::{self, Ending, Event, Exchange, Route, Verdict};
use crate::http::Headers;
use crate::identity::Instance;
use crate::reply::LocalReply;
use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::Action;
use std::cell::RefCell;
use std::rc::Rc;

/// An exchange that the tick can reach too.
pub(super) type SharedExchange = Rc<RefCell<Exchange>>;

/// One stream.
pub(super) struct Stream {
    id: u32,
    exchange: SharedExchange,
    delivery: Option<Queue>,
    holding: Rc<Holding>,
    /// Bytes of a held body that have been read, of the request's and of the response's: the host shows them again with
    /// each piece.
    read: [usize; 2],
    /// It was to be answered here and could not be: nothing of it may go on.
    is_cut: bool,
    trap: Trap,
}

/// A message, by who sends it.
#[derive(Clone, Copy)]
enum Side {
    Request,
    Response,
}

impl Side {
    fn buffer(self) -> Buffer {
        match self {
            Side::Request => Buffer::RequestBody,
            Side::Response => Buffer::ResponseBody,
        }
    }

    fn headers(self) -> Map {
        match self {
            Side::Request => Map::Request,
            Side::Response => Map::Response,
        }
    }
}

/// Feeds one event; an exchange that is in use already, which no callback order brings about, does not see it.
pub(super) fn feed(exchange: &SharedExchange, delivery: Option<&Queue>, event: Event<'_>) -> Verdict {
    let mut host = ProxyHost { delivery };
    let Ok(mut exchange) = exchange.try_borrow_mut() else { return Verdict::default() };
    // The instance is taken out for the callback, so that the host may use the rest of the VM.
    let instance = vm::with(|vm| vm.instance.take()).flatten();
    let mut instance = instance.unwrap_or_else(|| Instance::register(&mut host, node_id()));
    let verdict = exchange.on(event, &mut exchange::Context { host: &mut host, instance: &mut instance });
    vm::with(|vm| vm.instance = Some(instance));
    verdict
}

impl Stream {
    pub(super) fn new(id: u32, config: Rc<Config>, delivery: Option<Queue>, holding: Rc<Holding>) -> Stream {
        let exchange = Rc::new(RefCell::new(Exchange::new(config)));
        Stream { id, exchange, delivery, holding, read: [0; 2], is_cut: false, trap: Trap::default() }
    }

    fn on(&mut self, event: Event<'_>) -> Verdict {
        feed(&self.exchange, self.delivery.as_ref(), event)
    }

    /// Whether something holds for the exchange.
    fn is(&self, question: impl FnOnce(&Exchange) -> bool) -> bool {
        self.exchange.try_borrow().is_ok_and(|exchange| question(&exchange))
    }

    /// Answers in the provider's place; where the host can't, the stream is broken off. Either way nothing of the request
    /// goes on.
    fn answer(&mut self, host: &mut ProxyHost<'_>, reply: &LocalReply) -> Action {
        if host.check(abi::send_local_response(reply)).is_none() {
            return self.cut(host);
        }
        Action::Pause
    }

    /// Breaks the stream off: nothing of the request goes on.
    fn cut(&mut self, host: &mut ProxyHost<'_>) -> Action {
        self.is_cut = true;
        host.check(abi::close_stream());
        Action::Pause
    }

    /// Feeds an event that needs headers; a map that cannot be read counts as empty.
    fn on_headers(&mut self, map: Map, event: impl FnOnce(&mut Stream, &Headers<'_>) -> Verdict) -> Action {
        let serialized = abi::header_pairs(map);
        let mut host = ProxyHost { delivery: None };
        let serialized = host.check(serialized).unwrap_or_default();
        let headers = abi::pairs(&serialized).collect();
        let verdict = event(self, &headers);
        if let Some(reply) = verdict.reply {
            return self.answer(&mut host, &reply);
        }
        if !held::apply(&mut host, map, &verdict.edits) && verdict.all_or_nothing {
            return self.cut(&mut host);
        }
        if verdict.pause { Action::Pause } else { Action::Continue }
    }

    /// Feeds a piece of a body; one that cannot be read counts as empty.
    fn on_body(&mut self, side: Side, size: usize, end_of_stream: bool) -> Action {
        self.on_new_bytes(side, 0, size, end_of_stream).0
    }

    /// The same of what is held, whose body is shown whole each time.
    fn on_held_body(&mut self, side: Side, size: usize, end_of_stream: bool) -> Action {
        self.holding.prove();
        let from = *self.read_of(side);
        let (action, read) = self.on_new_bytes(side, from, size, end_of_stream);
        *self.read_of(side) = from.saturating_add(read);
        action
    }

    /// Feeds what follows the first `from` bytes of a body; says how much that was.
    fn on_new_bytes(&mut self, side: Side, from: usize, size: usize, end_of_stream: bool) -> (Action, usize) {
        let mut host = ProxyHost { delivery: None };
        let more = size.saturating_sub(from);
        let bytes = if more == 0 { Ok(Vec::new()) } else { abi::buffer(side.buffer(), from, more) };
        let chunk = &*host.check(bytes).unwrap_or_default();
        let verdict = match side {
            Side::Request => self.on(Event::RequestBody { chunk, end_of_stream }),
            Side::Response => self.on(Event::ResponseBody { chunk, end_of_stream }),
        };
        (self.pass_body(side, size, verdict), chunk.len())
    }

    fn read_of(&mut self, side: Side) -> &mut usize {
        let [request, response] = &mut self.read;
        match side {
            Side::Request => request,
            Side::Response => response,
        }
    }

    /// Sends on the body at hand, of `size` bytes, as the verdict says. Headers that go with another body change only if
    /// the body does.
    fn pass_body(&mut self, side: Side, size: usize, verdict: Verdict) -> Action {
        let mut host = ProxyHost { delivery: None };
        if let Some(reply) = verdict.reply {
            return self.answer(&mut host, &reply);
        }
        let replaced = verdict.body.map(|body| host.check(abi::replace_buffer(side.buffer(), size, &body)));
        let done = replaced != Some(None) && held::apply(&mut host, side.headers(), &verdict.edits);
        if !done && verdict.all_or_nothing {
            return self.cut(&mut host);
        }
        held::apply(&mut host, Map::ResponseTrailers, &verdict.trailers);
        if verdict.pause { Action::Pause } else { Action::Continue }
    }

    /// The properties that the exchange wants to know of the caller.
    fn properties(&self) -> Vec<Option<Vec<u8>>> {
        let Ok(exchange) = self.exchange.try_borrow() else { return Vec::new() };
        exchange.wants_properties().iter().map(|path| joined_property(path)).collect()
    }

    /// The end, at most once. What is no call, or has ended, is not worth asking the host about.
    fn log(&mut self) {
        let is_idle = self.is(Exchange::is_idle);
        if !is_idle && !self.is(Exchange::is_open) {
            return;
        }
        let code_details = text_property(&["response", "code_details"]);
        let route = text_property(&["xds", "route_name"]);
        let cluster = text_property(&["xds", "cluster_name"]);
        let serialized = if is_idle { abi::header_pairs(Map::Request).ok() } else { None };
        let headers: Option<Headers<'_>> = serialized.as_deref().map(|bytes| abi::pairs(bytes).collect());
        let properties = if is_idle { self.properties() } else { Vec::new() };
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
        if self.is(Exchange::is_open) {
            self.log();
        }
        true
    }
}

impl HttpContext for Stream {
    fn on_http_request_headers(&mut self, _: usize, end_of_stream: bool) -> Action {
        self.trap.arm();
        let wanted = self.is(Exchange::wants_route);
        let route = wanted.then(|| text_property(&["xds", "route_name"])).flatten();
        let cluster = wanted.then(|| text_property(&["xds", "cluster_name"])).flatten();
        let properties = self.properties();
        let mut action = self.on_headers(Map::Request, |stream, headers| {
            let route = Route { route: route.as_deref(), cluster: cluster.as_deref(), properties: &properties };
            stream.on(Event::RequestHeaders { headers, route, end_of_stream })
        });
        if self.is(Exchange::waits) && !held::watch(self.id, &self.holding, &self.exchange) {
            action = self.on_headers(Map::Request, |stream, headers| stream.on(Event::HeldInVain { headers }));
        }
        self.trap.spring("request_headers");
        action
    }

    fn on_http_request_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        let mut action = if self.is_cut { Action::Pause } else { Action::Continue };
        if self.is(Exchange::holds_request) {
            action = self.on_held_body(Side::Request, size, end_of_stream);
        } else if self.is(Exchange::reads_request_body) {
            if self.is(Exchange::waits) {
                self.holding.prove();
            }
            action = self.on_body(Side::Request, size, end_of_stream);
        }
        self.trap.spring("request_body");
        action
    }

    fn on_http_request_trailers(&mut self, _: usize) -> Action {
        if self.is(Exchange::holds_request) {
            self.holding.prove();
        }
        let verdict = self.on(Event::RequestTrailers);
        let read = *self.read_of(Side::Request);
        let action = self.pass_body(Side::Request, read, verdict);
        if self.is_cut { Action::Pause } else { action }
    }

    fn on_http_response_headers(&mut self, _: usize, end_of_stream: bool) -> Action {
        let mut action = Action::Continue;
        if self.is(Exchange::is_open) {
            action = self.on_headers(Map::Response, |stream, headers| {
                stream.on(Event::ResponseHeaders { headers, end_of_stream })
            });
        }
        if self.is(Exchange::holds_reply) && !held::watch(self.id, &self.holding, &self.exchange) {
            self.on(Event::ReplyHeldInVain);
            action = Action::Continue;
        }
        self.trap.spring("response_headers");
        action
    }

    fn on_http_response_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        let mut action = Action::Continue;
        if self.is(Exchange::holds_reply) {
            action = self.on_held_body(Side::Response, size, end_of_stream);
        } else if self.is(Exchange::reads_response_body) {
            action = self.on_body(Side::Response, size, end_of_stream);
        }
        self.trap.spring("response_body");
        action
    }

    fn on_http_response_trailers(&mut self, _: usize) -> Action {
        if self.is(Exchange::holds_reply) {
            self.holding.prove();
        }
        let verdict = self.on(Event::ResponseTrailers);
        let read = *self.read_of(Side::Response);
        self.pass_body(Side::Response, read, verdict)
    }

    fn on_log(&mut self) {
        self.trap.spring("log");
        self.log();
    }
}
