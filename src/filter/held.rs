//! Requests and responses that the host was asked to hold, until it has proved that it can.
//!
//! Envoy holds headers and goes on showing bodies only with `allow_on_headers_stop_iteration` in the plugin's
//! configuration; without it a held request would hang, and nothing tells one from the other but the first body. So
//! what is held is watched until then, and let go from the tick where no body comes.

use super::abi::{self, Map};
use super::http_context::{SharedExchange, feed};
use super::proxy_host::ProxyHost;
use super::vm;
use crate::exchange::{Edit, Event, Exchange};
use crate::host::Clock;
use crate::http::Headers;
use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};

/// How long a host may show nothing of a body before it is taken to be unable to.
const PATIENCE_NS: u64 = 2_000_000_000;

/// After so many that were held in vain in a row, nothing is held for [`REST_NS`].
const MAX_IN_VAIN: u32 = 3;

/// How long nothing is held then. A slow caller or provider may have been the cause, so holding is tried again.
const REST_NS: u64 = 60_000_000_000;

/// What is known of the host's holding under one plugin configuration.
#[derive(Default)]
pub(super) struct Holding {
    works: Cell<bool>,
    in_vain: Cell<u32>,
    rests_until_ns: Cell<u64>,
}

impl Holding {
    /// The host has shown the body of something held.
    pub(super) fn prove(&self) {
        self.works.set(true);
    }

    fn failed(&self, now_ns: u64) {
        self.in_vain.set(self.in_vain.get().saturating_add(1));
        if self.in_vain.get() >= MAX_IN_VAIN {
            self.in_vain.set(0);
            self.rests_until_ns.set(now_ns.saturating_add(REST_NS));
        }
    }

    fn rests(&self, now_ns: u64) -> bool {
        let until_ns = self.rests_until_ns.get();
        // A clock that was set back makes no rest longer.
        now_ns < until_ns && until_ns - now_ns <= REST_NS
    }
}

/// What may be held in vain.
pub(super) struct Watched {
    context: u32,
    since_ns: u64,
    holding: Rc<Holding>,
    exchange: Weak<RefCell<Exchange>>,
}

/// Watches a request or a response that is held from now on; false where it had better not be held.
pub(super) fn watch(context: u32, holding: &Rc<Holding>, exchange: &SharedExchange) -> bool {
    if holding.works.get() {
        return true;
    }
    let since_ns = ProxyHost { delivery: None }.now_ns();
    if holding.rests(since_ns) {
        return false;
    }
    let watched = Watched { context, since_ns, holding: Rc::clone(holding), exchange: Rc::downgrade(exchange) };
    vm::with(|vm| vm.watched.push(watched));
    true
}

/// Lets go what has been held in vain for too long; `root` is the context whose callback this is.
pub(super) fn release_overdue(root: u32) {
    let mut watched = vm::with(|vm| std::mem::take(&mut vm.watched)).unwrap_or_default();
    if watched.is_empty() {
        return;
    }
    let mut host = ProxyHost { delivery: None };
    let now_ns = host.now_ns();
    watched.retain(|held| {
        let Some(exchange) = held.exchange.upgrade() else { return false };
        let waits = exchange.try_borrow().is_ok_and(|exchange| exchange.waits());
        if held.holding.works.get() || !waits {
            return false;
        }
        let overdue = now_ns.abs_diff(held.since_ns) >= PATIENCE_NS;
        if overdue {
            held.holding.failed(now_ns);
        }
        if overdue && host.check(abi::set_effective_context(held.context)).is_some() {
            release(&mut host, &exchange);
        }
        !overdue
    });
    // What follows is about the root again.
    host.check(abi::set_effective_context(root));
    vm::with(|vm| vm.watched.append(&mut watched));
}

/// Lets go what the effective context holds.
fn release(host: &mut ProxyHost<'_>, exchange: &SharedExchange) {
    if exchange.try_borrow().is_ok_and(|exchange| exchange.holds_reply()) {
        feed(exchange, None, Event::ReplyHeldInVain);
        host.check(abi::continue_response());
        return;
    }
    let serialized = host.check(abi::header_pairs(Map::Request)).unwrap_or_default();
    let headers: Headers<'_> = abi::pairs(&serialized).collect();
    let verdict = feed(exchange, None, Event::HeldInVain { headers: &headers });
    if let Some(reply) = verdict.reply {
        host.check(abi::send_local_response(&reply));
        return;
    }
    let done = apply(host, Map::Request, &verdict.edits);
    let goes_on = done || !verdict.all_or_nothing;
    host.check(if goes_on { abi::continue_request() } else { abi::close_stream() });
}

/// Makes these edits; false where one of them could not be made.
pub(super) fn apply(host: &mut ProxyHost<'_>, map: Map, edits: &[Edit]) -> bool {
    let mut all = true;
    for edit in edits {
        let done = match edit {
            Edit::Remove(name) => abi::remove_header(map, name),
            Edit::Set(name, value) => abi::set_header(map, name, value.as_bytes()),
        };
        all &= host.check(done).is_some();
    }
    all
}
