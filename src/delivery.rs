//! Delivery: records wait here and leave for the collector in batches.
//!
//! One batch is under way at a time; it is kept until the collector has answered, so a repeat has the same records and
//! the same `idempotency-key`. What the collector may yet take is sent again after a growing pause. What it refuses is
//! taken apart, until the record it does not take stands alone: that one is dropped, the others arrive. The queue is
//! bounded in bytes: the oldest records go first, since every usage record is in the access log too. Whatever is dropped
//! is counted by reason.
//! Nothing here calls the host: the filter sends what [`Delivery::next_batch`] gives and reports the answer.

pub mod encoding;
pub mod json;
mod otlp;
pub mod retry_after;

use crate::config::CollectorConfig;
use crate::host::Telemetry;
use crate::telemetry::{Event, Metric};
use std::collections::VecDeque;

const FIRST_PAUSE_MS: u64 = 500;
const MAX_PAUSE_MS: u64 = 30_000;

/// The longest that a collector may ask to be left alone.
const MAX_RETRY_AFTER_MS: u64 = 300_000;

/// Refusals of a batch and its pieces, none of which was taken, after which it is not for single records that the collector
/// refuses: by then a sixteenth of the batch is refused wherever it is taken from.
const MAX_REFUSALS: u32 = 31;

/// The same where the batch before was given up: the batch and its halves.
const MAX_REFUSALS_AGAIN: u32 = 3;

/// Batches that have to be taken in a row before a larger one is tried again.
const GROW_AFTER: u32 = 32;

/// A batch as it is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The same for every attempt at these records.
    pub idempotency_key: String,
    /// The records in the collector's format.
    pub body: Vec<u8>,
}

/// What became of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome<'a> {
    /// The collector answered.
    Answered(Answer<'a>),
    /// There was no answer.
    NoAnswer,
    /// The host did not even send it.
    NotSent,
}

/// A collector's answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answer<'a> {
    /// HTTP status.
    pub status: u16,
    /// The header `retry-after`.
    pub retry_after: Option<&'a str>,
    /// The body, or its beginning.
    pub body: &'a [u8],
}

/// Records that travel together.
#[derive(Debug)]
struct Parcel {
    idempotency_key: String,
    /// Each as one line of JSON.
    lines: Vec<Vec<u8>>,
    attempts: u32,
    /// When it was sent first, in nanoseconds since 1970.
    first_sent_ns: u64,
    /// It is a piece of one that was refused.
    is_piece: bool,
}

impl Parcel {
    fn new(lines: Vec<Vec<u8>>, is_piece: bool) -> Parcel {
        Parcel { idempotency_key: String::new(), lines, attempts: 0, first_sent_ns: 0, is_piece }
    }
}

#[derive(Debug)]
enum Flight {
    /// Nothing is under way.
    Idle,
    /// A parcel waits for its answer.
    Sent(Parcel),
    /// A parcel waits for its next attempt.
    Paused { parcel: Parcel, until_ns: u64 },
}

/// The queue of one root context.
#[derive(Debug)]
pub struct Delivery {
    config: CollectorConfig,
    queue: VecDeque<Vec<u8>>,
    queued_bytes: usize,
    flight: Flight,
    /// What is left of a batch that was taken apart, larger pieces first.
    pieces: VecDeque<Parcel>,
    /// Refusals of the batch at hand and its pieces.
    refusals: u32,
    /// Something of the batch at hand was taken.
    took_some: bool,
    /// The last batch was given up: taking the next one apart as far would only multiply refusals.
    refuses_all: bool,
    /// Bytes of records in a batch, at most: less than configured where the collector found a batch too large.
    max_batch_bytes: usize,
    /// Batches taken in a row since then.
    taken: u32,
}

impl Delivery {
    /// An empty queue.
    pub fn new(config: CollectorConfig) -> Delivery {
        Delivery {
            max_batch_bytes: config.max_batch_bytes,
            config,
            queue: VecDeque::new(),
            queued_bytes: 0,
            flight: Flight::Idle,
            pieces: VecDeque::new(),
            refusals: 0,
            took_some: false,
            refuses_all: false,
            taken: 0,
        }
    }

    /// The collector.
    pub fn config(&self) -> &CollectorConfig {
        &self.config
    }

    /// Records that wait or are under way.
    pub fn pending(&self) -> u64 {
        let flying = match &self.flight {
            Flight::Idle => 0,
            Flight::Sent(parcel) | Flight::Paused { parcel, .. } => parcel.lines.len(),
        };
        let pieces: usize = self.pieces.iter().map(|piece| piece.lines.len()).sum();
        (flying + pieces + self.queue.len()) as u64
    }

    /// Whether as many records wait as a batch takes, so that nothing is won by waiting longer.
    fn has_full_batch(&self) -> bool {
        self.queue.len() >= self.config.max_batch || self.queued_bytes >= self.max_batch_bytes
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

    /// The batch to send now, if any; it is under way until [`Delivery::settle`]. New records leave when they are `due`, or
    /// fill a batch. A new batch takes the key that `new_key` gives, which must never repeat.
    pub fn next_batch(&mut self, now_ns: u64, due: bool, new_key: impl FnOnce() -> String) -> Option<Batch> {
        let mut parcel = match std::mem::replace(&mut self.flight, Flight::Idle) {
            Flight::Sent(parcel) => {
                self.flight = Flight::Sent(parcel);
                return None;
            }
            // A clock that was set back makes no pause longer.
            Flight::Paused { parcel, until_ns }
                if until_ns > now_ns && until_ns - now_ns <= MAX_RETRY_AFTER_MS * 1_000_000 =>
            {
                self.flight = Flight::Paused { parcel, until_ns };
                return None;
            }
            Flight::Paused { parcel, .. } => parcel,
            Flight::Idle => self.pieces.pop_front().or_else(|| self.cut(due))?,
        };
        if parcel.idempotency_key.is_empty() {
            parcel.idempotency_key = new_key();
        }
        if parcel.first_sent_ns == 0 {
            parcel.first_sent_ns = now_ns;
        }
        parcel.attempts = parcel.attempts.saturating_add(1);
        let body = encoding::encode(&self.config, &parcel.lines, parcel.first_sent_ns);
        let batch = Batch { idempotency_key: parcel.idempotency_key.clone(), body };
        self.flight = Flight::Sent(parcel);
        Some(batch)
    }

    /// The next records of the queue.
    fn cut(&mut self, due: bool) -> Option<Parcel> {
        if !due && !self.has_full_batch() {
            return None;
        }
        let (mut count, mut bytes) = (0, 0);
        for line in self.queue.iter().take(self.config.max_batch) {
            bytes += line.len();
            if count > 0 && bytes > self.max_batch_bytes {
                break;
            }
            count += 1;
        }
        let lines: Vec<_> = self.queue.drain(..count).collect();
        self.queued_bytes -= lines.iter().map(Vec::len).sum::<usize>();
        self.refusals = 0;
        self.took_some = false;
        (!lines.is_empty()).then(|| Parcel::new(lines, false))
    }

    /// The answer to the batch under way will come to nobody: it is sent again, and this was no attempt.
    pub fn interrupted(&mut self) {
        self.flight = match std::mem::replace(&mut self.flight, Flight::Idle) {
            Flight::Sent(parcel) => {
                let attempts = parcel.attempts.saturating_sub(1);
                Flight::Paused { parcel: Parcel { attempts, ..parcel }, until_ns: 0 }
            }
            flight => flight,
        };
    }

    /// Takes the answer to the batch under way.
    pub fn settle(&mut self, outcome: Outcome<'_>, now_ns: u64, telemetry: &mut (impl Telemetry + ?Sized)) {
        let Flight::Sent(parcel) = std::mem::replace(&mut self.flight, Flight::Idle) else { return };
        let detail = match outcome {
            Outcome::Answered(Answer { status: 200..=299, body, .. }) => {
                return self.arrived(&parcel, encoding::rejected(self.config.format, body), telemetry);
            }
            Outcome::Answered(Answer { status, .. }) => format!("it answered {status}"),
            Outcome::NoAnswer => "no answer".into(),
            Outcome::NotSent => "the host could not send (is the cluster configured, and has it a host?)".into(),
        };
        telemetry.log_once(Event::CollectorFailed { cluster: &self.config.cluster, detail: &detail });
        let exhausted = parcel.attempts >= self.config.max_attempts;
        match outcome {
            Outcome::Answered(answer @ Answer { status: 413, .. }) => {
                self.shrink(&parcel);
                self.refused("dropped_too_large", parcel, answer, telemetry);
            }
            // The records are at fault, or one of them is.
            Outcome::Answered(answer @ Answer { status: 400 | 422, .. }) => {
                self.refused("dropped_rejected", parcel, answer, telemetry);
            }
            // Some servers answer 500 to what they cannot read, always.
            Outcome::Answered(answer @ Answer { status: 500, .. }) if exhausted || parcel.is_piece => {
                self.refused("dropped_rejected", parcel, answer, telemetry);
            }
            Outcome::Answered(answer @ Answer { status: 401..=407 | 409..=428 | 430..=499, .. }) => {
                self.drop_all("dropped_rejected", &parcel, answer, telemetry);
            }
            _ if exhausted => count(telemetry, "dropped_attempts", parcel.lines.len()),
            _ => {
                count(telemetry, "retried", parcel.lines.len());
                let asked = match outcome {
                    Outcome::Answered(answer) => answer.retry_after.and_then(|text| retry_after::millis(text, now_ns)),
                    Outcome::NoAnswer | Outcome::NotSent => None,
                };
                let pause_ms = asked.unwrap_or(0).min(MAX_RETRY_AFTER_MS).max(pause_ms(&parcel));
                self.flight = Flight::Paused { parcel, until_ns: now_ns.saturating_add(pause_ms * 1_000_000) };
            }
        }
    }

    /// The collector has taken a parcel, but for some of its records.
    fn arrived(&mut self, parcel: &Parcel, rejected: usize, telemetry: &mut (impl Telemetry + ?Sized)) {
        let rejected = rejected.min(parcel.lines.len());
        count(telemetry, "sent", parcel.lines.len() - rejected);
        count(telemetry, "dropped_rejected", rejected);
        if rejected > 0 {
            let detail = format!("it took the batch without {rejected} of its records");
            telemetry.log_once(Event::CollectorFailed { cluster: &self.config.cluster, detail: &detail });
        }
        self.took_some = true;
        self.refuses_all = false;
        self.taken = self.taken.saturating_add(1);
        if self.taken >= GROW_AFTER {
            self.taken = 0;
            self.max_batch_bytes = self.max_batch_bytes.saturating_mul(2).min(self.config.max_batch_bytes);
        }
    }

    /// The collector takes less at a time. Of a single record there is no less.
    fn shrink(&mut self, parcel: &Parcel) {
        if parcel.lines.len() > 1 {
            let bytes: usize = parcel.lines.iter().map(Vec::len).sum();
            self.max_batch_bytes = self.max_batch_bytes.min(bytes / 2).max(1);
            self.taken = 0;
        }
    }

    /// The collector does not take a parcel as it is, and never will: it is taken apart, until what it refuses stands alone.
    /// Where it takes nothing at all, the whole batch is given up.
    fn refused(
        &mut self,
        result: &'static str,
        mut parcel: Parcel,
        answer: Answer<'_>,
        telemetry: &mut (impl Telemetry + ?Sized),
    ) {
        self.refusals = self.refusals.saturating_add(1);
        let most = if self.refuses_all { MAX_REFUSALS_AGAIN } else { MAX_REFUSALS };
        if !self.took_some && self.refusals >= most {
            self.refuses_all = true;
            // It is not for their size either.
            self.max_batch_bytes = self.config.max_batch_bytes;
            for piece in std::mem::take(&mut self.pieces) {
                parcel.lines.extend(piece.lines);
            }
        } else if parcel.lines.len() > 1 {
            let rest = parcel.lines.split_off(parcel.lines.len() / 2);
            self.pieces.extend([parcel.lines, rest].map(|lines| Parcel::new(lines, true)));
            return;
        }
        self.drop_all(result, &parcel, answer, telemetry);
    }

    fn drop_all(
        &self,
        result: &'static str,
        parcel: &Parcel,
        answer: Answer<'_>,
        telemetry: &mut (impl Telemetry + ?Sized),
    ) {
        count(telemetry, result, parcel.lines.len());
        telemetry.log_once(Event::RecordsRejected {
            cluster: &self.config.cluster,
            records: parcel.lines.len(),
            status: answer.status,
            answer: &excerpt(answer.body),
        });
    }
}

fn count(telemetry: &mut (impl Telemetry + ?Sized), result: &'static str, records: usize) {
    telemetry.count(Metric::Records { result }, records as u64);
}

/// How long to wait before the next attempt: twice as long each time, and between half and all of that, since the
/// workers of a gateway would otherwise come back together. There is no randomness in a VM; the key of a batch, which is
/// unlike any other, serves for it.
fn pause_ms(parcel: &Parcel) -> u64 {
    let doublings = parcel.attempts.saturating_sub(1).min(16);
    let longest = FIRST_PAUSE_MS.saturating_mul(1 << doublings).min(MAX_PAUSE_MS);
    let mut hash = crc32fast::Hasher::new();
    hash.update(parcel.idempotency_key.as_bytes());
    hash.update(&parcel.attempts.to_le_bytes());
    longest / 2 + u64::from(hash.finalize()) % (longest / 2 + 1)
}

/// The beginning of an answer's body, fit for the log.
fn excerpt(body: &[u8]) -> String {
    const LONGEST: usize = 200;
    let text = String::from_utf8_lossy(body.get(..LONGEST).unwrap_or(body));
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>().trim().to_owned()
}

#[cfg(test)]
mod tests;
