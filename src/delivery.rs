//! Delivery: records wait here and leave for the collector in batches.
//!
//! One batch is under way at a time; it is kept whole until the collector has answered, so a repeat carries the
//! same `idempotency-key`. What can be retried is, after a pause that doubles; the rest is dropped and counted.
//! The queue is bounded in bytes: the oldest records go first, since every record is in the access log too.
//! Nothing here calls the host: the filter sends what [`Delivery::next_batch`] gives and reports the answer.

use crate::config::CollectorConfig;
use crate::host::Telemetry;
use crate::telemetry::{Event, Metric};
use std::collections::VecDeque;

const FIRST_PAUSE_MS: u64 = 500;
const MAX_PAUSE_MS: u64 = 30_000;

/// A batch to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The same for every attempt at this batch.
    pub idempotency_key: String,
    /// Records, one per line.
    pub body: Vec<u8>,
    records: u64,
    attempts: u32,
}

/// What became of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The collector answered with this status.
    Answered(u16),
    /// There was no answer.
    NoAnswer,
    /// The host did not even send it.
    NotSent,
}

#[derive(Debug)]
enum Flight {
    /// Nothing is under way.
    Idle,
    /// A batch waits for its answer.
    Sent(Batch),
    /// A batch waits for its next attempt.
    Paused { batch: Batch, until_ns: u64 },
}

/// The queue of one root context.
#[derive(Debug)]
pub struct Delivery {
    config: CollectorConfig,
    queue: VecDeque<Vec<u8>>,
    queued_bytes: usize,
    flight: Flight,
}

impl Delivery {
    /// An empty queue.
    pub fn new(config: CollectorConfig) -> Delivery {
        Delivery { config, queue: VecDeque::new(), queued_bytes: 0, flight: Flight::Idle }
    }

    /// The collector.
    pub fn config(&self) -> &CollectorConfig {
        &self.config
    }

    /// Records that wait or are under way.
    pub fn pending(&self) -> u64 {
        let flying = match &self.flight {
            Flight::Idle => 0,
            Flight::Sent(batch) | Flight::Paused { batch, .. } => batch.records,
        };
        flying + self.queue.len() as u64
    }

    /// Adds a record, as one line of JSON; the oldest make room.
    pub fn push(&mut self, line: Vec<u8>, telemetry: &mut (impl Telemetry + ?Sized)) {
        self.queued_bytes += line.len();
        self.queue.push_back(line);
        let mut dropped = 0;
        while self.queued_bytes > self.config.max_queue_bytes {
            let Some(oldest) = self.queue.pop_front() else { break };
            self.queued_bytes -= oldest.len();
            dropped += 1;
        }
        if dropped > 0 {
            telemetry.count(Metric::Records { result: "dropped_queue_full" }, dropped);
            telemetry.log_once(Event::QueueFull { max_queue_bytes: self.config.max_queue_bytes });
        }
    }

    /// The batch to send now, if any; it is under way until [`Delivery::settle`]. A new batch takes the key that
    /// `new_key` gives, which must never repeat.
    pub fn next_batch(&mut self, now_ns: u64, new_key: impl FnOnce() -> String) -> Option<Batch> {
        let batch = match std::mem::replace(&mut self.flight, Flight::Idle) {
            Flight::Sent(batch) => {
                self.flight = Flight::Sent(batch);
                return None;
            }
            Flight::Paused { batch, until_ns } if until_ns > now_ns => {
                self.flight = Flight::Paused { batch, until_ns };
                return None;
            }
            Flight::Paused { batch, .. } => batch,
            Flight::Idle => self.cut_batch(new_key)?,
        };
        let batch = Batch { attempts: batch.attempts.saturating_add(1), ..batch };
        self.flight = Flight::Sent(batch.clone());
        Some(batch)
    }

    fn cut_batch(&mut self, new_key: impl FnOnce() -> String) -> Option<Batch> {
        let count = self.queue.len().min(self.config.max_batch);
        if count == 0 {
            return None;
        }
        let mut body = Vec::new();
        for line in self.queue.drain(..count) {
            self.queued_bytes -= line.len();
            body.extend_from_slice(&line);
            body.push(b'\n');
        }
        Some(Batch { idempotency_key: new_key(), body, records: count as u64, attempts: 0 })
    }

    /// Takes the answer to the batch under way.
    pub fn settle(&mut self, outcome: Outcome, now_ns: u64, telemetry: &mut (impl Telemetry + ?Sized)) {
        let Flight::Sent(batch) = std::mem::replace(&mut self.flight, Flight::Idle) else { return };
        let retry = match outcome {
            Outcome::Answered(200..=299) => {
                telemetry.count(Metric::Records { result: "sent" }, batch.records);
                return;
            }
            Outcome::Answered(408 | 429 | 500..=599) | Outcome::NoAnswer | Outcome::NotSent => true,
            Outcome::Answered(_) => false,
        };
        let detail = match outcome {
            Outcome::Answered(status) => format!("it answered {status}"),
            Outcome::NoAnswer => "no answer".into(),
            Outcome::NotSent => "the host could not send (is the cluster configured?)".into(),
        };
        telemetry.log_once(Event::CollectorFailed { cluster: &self.config.cluster, detail: &detail });
        if !retry {
            telemetry.count(Metric::Records { result: "dropped_rejected" }, batch.records);
        } else if batch.attempts >= self.config.max_attempts {
            telemetry.count(Metric::Records { result: "dropped_attempts" }, batch.records);
        } else {
            telemetry.count(Metric::Records { result: "retried" }, batch.records);
            let pause_ms = FIRST_PAUSE_MS.saturating_mul(1 << (batch.attempts - 1).min(16)).min(MAX_PAUSE_MS);
            self.flight = Flight::Paused { batch, until_ns: now_ns.saturating_add(pause_ms * 1_000_000) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::MemoryHost;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn delivery() -> Delivery {
        let config = CollectorConfig {
            cluster: "cost_collector".into(),
            path: "/".into(),
            authority: "collector".into(),
            headers: Vec::new(),
            content_type: "application/x-ndjson".into(),
            flush_ms: 1000,
            max_batch: 3,
            max_queue_bytes: 100,
            max_attempts: 3,
            timeout_ms: 5000,
        };
        Delivery::new(config)
    }

    fn next(delivery: &mut Delivery, now_ns: u64) -> Option<Batch> {
        static KEYS: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        delivery.next_batch(now_ns, || KEYS.fetch_add(1, std::sync::atomic::Ordering::Relaxed).to_string())
    }

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn records_leave_in_batches_one_at_a_time() {
        let (mut delivery, mut host) = (delivery(), MemoryHost::default());
        for n in 0..4 {
            delivery.push(vec![b'0' + n], &mut host);
        }
        let first = next(&mut delivery, 0).unwrap();
        assert_eq!(first.body, b"0\n1\n2\n");
        assert_eq!(next(&mut delivery, 0), None, "one batch is under way");
        assert_eq!(delivery.pending(), 4);
        delivery.settle(Outcome::Answered(202), 0, &mut host);
        let second = next(&mut delivery, 0).unwrap();
        assert_eq!(second.body, b"3\n");
        assert_ne!(first.idempotency_key, second.idempotency_key);
        delivery.settle(Outcome::Answered(200), 0, &mut host);
        assert_eq!(next(&mut delivery, 0), None);
        assert_eq!(host.counter("tollgate_records_total.result.sent"), 4);
    }

    #[test]
    fn what_may_pass_is_sent_again_whole_after_a_growing_pause() {
        for outcome in [Outcome::NoAnswer, Outcome::NotSent, Outcome::Answered(503), Outcome::Answered(429)] {
            let (mut delivery, mut host) = (delivery(), MemoryHost::default());
            delivery.push(vec![b'x'], &mut host);
            let first = next(&mut delivery, 0).unwrap();
            delivery.settle(outcome, 0, &mut host);
            assert_eq!(next(&mut delivery, SECOND / 4), None, "{outcome:?}");
            let again = next(&mut delivery, SECOND / 2).unwrap();
            assert_eq!((&again.body, &again.idempotency_key), (&first.body, &first.idempotency_key));
            delivery.settle(outcome, SECOND / 2, &mut host);
            assert_eq!(next(&mut delivery, SECOND), None, "the second pause is longer");
            assert!(next(&mut delivery, 2 * SECOND).is_some());
            delivery.settle(outcome, 2 * SECOND, &mut host);
            assert_eq!(next(&mut delivery, 100 * SECOND), None, "three attempts are configured");
            assert_eq!(host.counter("tollgate_records_total.result.dropped_attempts"), 1);
            assert_eq!(host.counter("tollgate_records_total.result.retried"), 2);
        }
    }

    #[test]
    fn a_refused_batch_is_dropped_and_counted_and_the_next_one_goes() {
        let (mut delivery, mut host) = (delivery(), MemoryHost::default());
        delivery.push(vec![b'x'], &mut host);
        next(&mut delivery, 0).unwrap();
        delivery.push(vec![b'y'], &mut host);
        delivery.settle(Outcome::Answered(400), 0, &mut host);
        assert_eq!(host.counter("tollgate_records_total.result.dropped_rejected"), 1);
        assert_eq!(next(&mut delivery, 0).unwrap().body, b"y\n");
    }

    #[test]
    fn a_full_queue_drops_its_oldest_and_counts_them() {
        let (mut delivery, mut host) = (delivery(), MemoryHost::default());
        for n in 0..20 {
            delivery.push(vec![n; 10], &mut host);
        }
        assert_eq!(delivery.pending(), 10);
        assert_eq!(host.counter("tollgate_records_total.result.dropped_queue_full"), 10);
        assert_eq!(next(&mut delivery, 0).unwrap().body[0], 10);
    }

    #[test]
    fn an_answer_nobody_waits_for_changes_nothing() {
        let (mut delivery, mut host) = (delivery(), MemoryHost::default());
        delivery.settle(Outcome::Answered(500), 0, &mut host);
        assert_eq!((delivery.pending(), next(&mut delivery, SECOND)), (0, None));
    }
}
