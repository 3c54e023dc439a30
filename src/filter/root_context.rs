//! The root context: reads the configuration, makes streams, sends batches.

use super::abi::{self, Buffer, Map};
use super::http_context::Stream;
use super::proxy_host::ProxyHost;
use super::vm;
use crate::config::Config;
use crate::delivery::{Batch, Delivery, Outcome};
use crate::host::Clock;
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::ContextType;
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

/// One configuration in one VM.
#[derive(Default)]
pub(super) struct Root {
    config: Rc<Config>,
    delivery: Option<Rc<RefCell<Delivery>>>,
    /// The HTTP call of the batch under way.
    token: Option<u32>,
}

impl Root {
    fn host(&self) -> ProxyHost<'_> {
        ProxyHost { delivery: self.delivery.as_ref() }
    }

    /// Reads the configuration; every error goes to the log.
    fn configure(&mut self, size: usize) -> Result<(), ()> {
        let bytes = if size == 0 {
            Vec::new()
        } else {
            abi::buffer(Buffer::PluginConfiguration, size).map_err(|error| {
                log::error!("cannot read the configuration: {} returned {}", error.call, error.status);
            })?
        };
        let config = Config::from_bytes(&bytes).map_err(|errors| {
            for error in &errors {
                log::error!("configuration: {error}");
            }
            log::error!("configuration refused: {} error(s) above", errors.len());
        })?;
        self.delivery = config.collector.clone().map(|collector| Rc::new(RefCell::new(Delivery::new(collector))));
        if let Some(collector) = &config.collector {
            let set = abi::set_tick_period_ms(collector.flush_ms);
            self.host().check(set);
        }
        self.config = Rc::new(config);
        Ok(())
    }

    /// Sends batches until one is under way or nothing is left to send.
    fn flush(&mut self) {
        let Some(delivery) = self.delivery.clone() else { return };
        let Ok(mut queue) = delivery.try_borrow_mut() else { return };
        let now_ns = self.host().now_ns();
        let Some(batch) = queue.next_batch(now_ns, vm::next_batch_key) else { return };
        match self.dispatch(&queue, &batch) {
            Some(token) => self.token = Some(token),
            None => queue.settle(Outcome::NotSent, now_ns, &mut self.host()),
        }
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
}

impl Context for Root {
    fn on_http_call_response(&mut self, token: u32, num_headers: usize, _: usize, _: usize) {
        if self.token != Some(token) {
            return;
        }
        self.token = None;
        // Without headers there was no answer: the host itself gave up.
        let status = if num_headers == 0 { None } else { abi::header(Map::CallResponse, ":status").ok() };
        let status = status.and_then(|status| str::from_utf8(&status).ok()?.parse().ok());
        let outcome = status.map_or(Outcome::NoAnswer, Outcome::Answered);
        if let Some(mut queue) = self.delivery.as_ref().and_then(|delivery| delivery.try_borrow_mut().ok()) {
            let mut host = self.host();
            queue.settle(outcome, host.now_ns(), &mut host);
        }
        self.flush();
    }
}

impl RootContext for Root {
    fn on_configure(&mut self, size: usize) -> bool {
        self.configure(size).is_ok()
    }

    fn on_tick(&mut self) {
        self.flush();
    }

    fn create_http_context(&self, _: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Stream::new(Rc::clone(&self.config), self.delivery.clone())))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}
