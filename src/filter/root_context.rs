//! The root context: reads the configuration, makes streams, sends batches.

use super::abi::{self, Buffer, Map};
use super::held::{self, Holding};
use super::http_context::Stream;
use super::proxy_host::ProxyHost;
use super::vm::{self, Queue};
use crate::config::Config;
use crate::delivery::{Answer, Batch, Delivery, Outcome};
use crate::exchange;
use crate::host::Clock;
use crate::overview;
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::ContextType;
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

const IDLE_TICK_MS: u32 = 1000;

/// How often is looked whether a full batch waits already.
const FULL_BATCH_TICK_MS: u32 = 200;

/// Of a collector's answer, so much is read: it says what is wrong, or how many records were not taken.
const MAX_ANSWER_BYTES: usize = 16 * 1024;

/// One configuration in one VM.
#[derive(Default)]
pub(super) struct Root {
    id: u32,
    config: Rc<Config>,
    /// Whether the host can hold headers, as far as is known.
    holding: Rc<Holding>,
    /// Where the streams of this configuration put their records.
    queue: Option<Queue>,
    /// The queues this root sends: its own, and those of roots that are gone.
    senders: Vec<Sender>,
    /// When batches left last.
    flushed_ns: u64,
    /// When its budgets' snapshot was given.
    turn: overview::Turn,
}

/// A queue whose batches a root sends.
struct Sender {
    queue: Queue,
    /// The HTTP call of the batch under way.
    token: Option<u32>,
}

impl Root {
    pub(super) fn new(id: u32) -> Root {
        Root { id, ..Root::default() }
    }

    fn host(&self) -> ProxyHost<'_> {
        ProxyHost { delivery: self.queue.as_ref() }
    }

    /// Reads the configuration; every error goes to the log.
    fn configure(&mut self, size: usize) -> Result<(), ()> {
        let bytes = if size == 0 {
            Vec::new()
        } else {
            abi::buffer(Buffer::PluginConfiguration, 0, size).map_err(|error| {
                log::error!("cannot read the configuration: {} returned {}", error.call, error.status);
            })?
        };
        let config = Config::from_bytes(&bytes).map_err(|errors| {
            for error in &errors {
                log::error!("configuration: {error}");
            }
            log::error!("configuration refused: {} error(s) above", errors.len());
        })?;
        // Without a collector of its own a root still ticks: it may have to take over a queue, to renew a lease, or to let
        // go what is held in vain.
        let flush_ms = config.collector.as_ref().map(|collector| collector.flush_ms.min(FULL_BATCH_TICK_MS));
        let tick_ms = flush_ms.unwrap_or(IDLE_TICK_MS);
        let set = abi::set_tick_period_ms(tick_ms);
        self.host().check(set);
        if let Some(collector) = config.collector.clone() {
            let queue = Rc::new(RefCell::new(Delivery::new(collector)));
            self.senders.push(Sender { queue: Rc::clone(&queue), token: None });
            self.queue = Some(queue);
        }
        self.config = Rc::new(config);
        self.turn = overview::Turn::default();
        Ok(())
    }

    /// Whether records are to leave now however few they are: ticks come more often.
    fn is_due(&mut self) -> bool {
        let now_ns = self.host().now_ns();
        let flush_ms = self.config.collector.as_ref().map_or(IDLE_TICK_MS, |collector| collector.flush_ms);
        // A tick that comes a little early is the one that was meant.
        let due = now_ns.abs_diff(self.flushed_ns) >= u64::from(flush_ms) * 900_000;
        if due {
            self.flushed_ns = now_ns;
        }
        due
    }

    /// Sends the next batch of each queue that has none under way; `due`: also one that is not full.
    fn flush(&mut self, due: bool) {
        let mut senders = std::mem::take(&mut self.senders);
        for sender in senders.iter_mut().filter(|sender| sender.token.is_none()) {
            let Ok(mut queue) = sender.queue.try_borrow_mut() else { continue };
            let now_ns = self.host().now_ns();
            let Some(batch) = queue.next_batch(now_ns, due, vm::next_batch_key) else { continue };
            sender.token = self.dispatch(&queue, &batch);
            if sender.token.is_none() {
                queue.settle(Outcome::NotSent, now_ns, &mut self.host());
            }
        }
        self.senders = senders;
    }

    fn dispatch(&self, queue: &Delivery, batch: &Batch) -> Option<u32> {
        let collector = queue.config();
        let mut headers = vec![
            (":method", "POST"),
            (":path", collector.path.as_str()),
            (":authority", collector.authority.as_str()),
            ("content-type", collector.content_type.as_str()),
            ("idempotency-key", batch.idempotency_key.as_str()),
        ];
        headers.extend(collector.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        let timeout = Duration::from_millis(collector.timeout_ms.into());
        self.dispatch_http_call(&collector.cluster, headers, Some(&batch.body), Vec::new(), timeout).ok()
    }

    fn settle(&self, queue: &Queue, outcome: Outcome<'_>) {
        if let Ok(mut queue) = queue.try_borrow_mut() {
            let mut host = self.host();
            queue.settle(outcome, host.now_ns(), &mut host);
        }
    }
}

impl Context for Root {
    fn on_http_call_response(&mut self, token: u32, num_headers: usize, body_size: usize, _: usize) {
        let Some(sender) = self.senders.iter_mut().find(|sender| sender.token == Some(token)) else { return };
        sender.token = None;
        let queue = Rc::clone(&sender.queue);
        // Without headers there was no answer: the host itself gave up.
        let header = |name| if num_headers == 0 { None } else { abi::header(Map::CallResponse, name).ok() };
        let status = header(":status").and_then(|status| str::from_utf8(&status).ok()?.parse().ok());
        let retry_after = header("retry-after").and_then(|text| String::from_utf8(text).ok());
        let size = body_size.min(MAX_ANSWER_BYTES);
        let body =
            if size == 0 { Vec::new() } else { abi::buffer(Buffer::CallResponseBody, 0, size).unwrap_or_default() };
        let answer = |status| Answer { status, retry_after: retry_after.as_deref(), body: &body };
        self.settle(&queue, status.map_or(Outcome::NoAnswer, |status| Outcome::Answered(answer(status))));
        self.flush(false);
    }

    /// This configuration has drained. Its queue goes to the roots that stay: streams that end last still fill it.
    fn on_done(&mut self) -> bool {
        for sender in std::mem::take(&mut self.senders) {
            if let Ok(mut queue) = sender.queue.try_borrow_mut() {
                queue.interrupted();
            }
            vm::leave(sender.queue);
        }
        true
    }
}

impl RootContext for Root {
    fn on_configure(&mut self, size: usize) -> bool {
        self.configure(size).is_ok()
    }

    fn on_tick(&mut self) {
        self.senders.extend(vm::adopt().into_iter().map(|queue| Sender { queue, token: None }));
        let mut host = ProxyHost { delivery: self.queue.as_ref() };
        let (config, turn) = (&self.config, &mut self.turn);
        vm::with_instance(|instance| {
            instance.ticked_ns = host.now_ns();
            overview::tick(config, turn, &mut exchange::Context { host: &mut host, instance });
        });
        let due = self.is_due();
        self.flush(due);
        // A queue that is empty and that no stream will fill again has done its work.
        self.senders.retain(|sender| {
            let pending = sender.queue.try_borrow().map_or(1, |queue| queue.pending());
            pending > 0 || Rc::strong_count(&sender.queue) > 1
        });
        held::release_overdue(self.id);
    }

    fn create_http_context(&self, id: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Stream::new(id, Rc::clone(&self.config), self.queue.clone(), Rc::clone(&self.holding))))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}
