use super::encoding::{CloudEventsConfig, Format};
use super::*;
use crate::memory::MemoryHost;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

fn config() -> CollectorConfig {
    CollectorConfig {
        cluster: "cost_collector".into(),
        path: "/".into(),
        authority: "collector".into(),
        headers: Vec::new(),
        format: Format::Ndjson,
        cloudevents: CloudEventsConfig::default(),
        content_type: "application/x-ndjson".into(),
        flush_ms: 1000,
        max_batch: 4,
        max_batch_bytes: 1000,
        max_queue_bytes: 100,
        max_attempts: 3,
        timeout_ms: 5000,
    }
}

fn delivery() -> Delivery {
    Delivery::new(config())
}

fn next(delivery: &mut Delivery, now_ns: u64) -> Option<Batch> {
    static KEYS: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    delivery.next_batch(now_ns, true, || KEYS.fetch_add(1, std::sync::atomic::Ordering::Relaxed).to_string())
}

fn answered(status: u16) -> Outcome<'static> {
    Outcome::Answered(Answer { status, ..Answer::default() })
}

fn count(host: &MemoryHost, result: &str) -> u64 {
    host.counter(&format!("tollgate_records_total.result.{result}"))
}

/// Every record that was counted at its end.
fn counted(host: &MemoryHost) -> u64 {
    let results = ["sent", "dropped_rejected", "dropped_attempts", "dropped_too_large", "dropped_queue_full"];
    results.map(|result| count(host, result)).iter().sum()
}

/// Sends all there is to a collector that answers as `collector` says, and returns the requests it had.
fn drain(delivery: &mut Delivery, host: &mut MemoryHost, mut collector: impl FnMut(&str) -> u16) -> Vec<(String, u16)> {
    let mut requests = Vec::new();
    let mut now_ns = 0;
    while delivery.pending() > 0 {
        now_ns += 60 * SECOND;
        let Some(batch) = next(delivery, now_ns) else { continue };
        let body = String::from_utf8(batch.body).unwrap().replace('\n', "");
        let status = collector(&body);
        requests.push((body, status));
        delivery.settle(answered(status), now_ns, host);
    }
    requests
}

const SECOND: u64 = 1_000_000_000;

#[test]
fn records_leave_in_batches_one_at_a_time() {
    let (mut delivery, mut host) = (delivery(), MemoryHost::default());
    for n in 0..5 {
        delivery.push(vec![b'0' + n], &mut host);
    }
    let first = next(&mut delivery, 0).unwrap();
    assert_eq!(first.body, b"0\n1\n2\n3\n");
    assert_eq!(next(&mut delivery, 0), None, "one batch is under way");
    assert_eq!(delivery.pending(), 5);
    delivery.settle(answered(202), 0, &mut host);
    let second = next(&mut delivery, 0).unwrap();
    assert_eq!(second.body, b"4\n");
    assert_ne!(first.idempotency_key, second.idempotency_key);
    delivery.settle(answered(200), 0, &mut host);
    assert_eq!(next(&mut delivery, 0), None);
    assert_eq!(count(&host, "sent"), 5);
}

#[test]
fn records_wait_for_their_time_or_a_full_batch() {
    let (mut delivery, mut host) = (delivery(), MemoryHost::default());
    let key = || "k".to_owned();
    for (pushed, leave) in [(1, false), (2, false), (3, false), (4, true)] {
        delivery.push(vec![b'x'], &mut host);
        assert_eq!(delivery.next_batch(0, false, key).is_some(), leave, "{pushed} of 4");
    }
    delivery.settle(answered(200), 0, &mut host);
    delivery.push(vec![b'y'], &mut host);
    assert_eq!(delivery.next_batch(0, false, key), None);
    assert!(delivery.next_batch(0, true, key).is_some());
}

#[test]
fn a_batch_is_bounded_in_bytes_and_a_longer_record_travels_alone() {
    let mut host = MemoryHost::default();
    let mut delivery = Delivery::new(CollectorConfig { max_batch_bytes: 10, ..config() });
    for length in [4, 6, 1, 30, 10] {
        delivery.push(vec![b'x'; length], &mut host);
    }
    let sizes: Vec<_> = drain(&mut delivery, &mut host, |_| 200).iter().map(|(body, _)| body.len()).collect();
    assert_eq!(sizes, [10, 1, 30, 10]);
}

#[test]
fn what_may_pass_is_sent_again_whole_after_a_growing_pause() {
    let outcomes = [
        Outcome::NoAnswer,
        Outcome::NotSent,
        answered(503),
        answered(429),
        answered(408),
        answered(302),
        answered(504),
    ];
    for outcome in outcomes {
        let (mut delivery, mut host) = (delivery(), MemoryHost::default());
        delivery.push(vec![b'x'], &mut host);
        let first = next(&mut delivery, 0).unwrap();
        delivery.settle(outcome, 0, &mut host);
        assert_eq!(next(&mut delivery, SECOND / 4 - 1), None, "{outcome:?}");
        let again = next(&mut delivery, SECOND / 2).unwrap();
        assert_eq!((&again.body, &again.idempotency_key), (&first.body, &first.idempotency_key));
        delivery.settle(outcome, SECOND / 2, &mut host);
        assert_eq!(next(&mut delivery, SECOND - 1), None, "the second pause is longer");
        assert!(next(&mut delivery, SECOND * 3 / 2).is_some());
        delivery.settle(outcome, 2 * SECOND, &mut host);
        assert_eq!(next(&mut delivery, 100 * SECOND), None, "three attempts are configured");
        assert_eq!((count(&host, "dropped_attempts"), count(&host, "retried"), delivery.pending()), (1, 2, 0));
    }
}

#[test]
fn workers_do_not_come_back_together() {
    let pauses = |attempts| {
        let parcel =
            |n: u32| Parcel { idempotency_key: format!("gateway-{n}-1"), attempts, ..Parcel::new(Vec::new(), false) };
        (0..100).map(|n| pause_ms(&parcel(n))).collect::<std::collections::BTreeSet<_>>()
    };
    for (attempts, longest) in [(1, 500), (2, 1000), (6, 16_000), (7, 30_000), (1000, 30_000)] {
        let pauses = pauses(attempts);
        assert!(pauses.len() > 75, "{} pauses", pauses.len());
        assert!(pauses.iter().all(|pause| (longest / 2..=longest).contains(pause)), "{attempts}: {pauses:?}");
    }
}

#[test]
fn a_collector_is_left_alone_as_long_as_it_asks_within_reason() {
    for (asked, waits) in [("7", 7), ("100000", 300), ("Thu, 01 Jan 1970 00:00:09 GMT", 9)] {
        let (mut delivery, mut host) = (delivery(), MemoryHost::default());
        delivery.push(vec![b'x'], &mut host);
        next(&mut delivery, 0).unwrap();
        let answer = Answer { status: 429, retry_after: Some(asked), body: b"" };
        delivery.settle(Outcome::Answered(answer), 0, &mut host);
        assert_eq!(next(&mut delivery, waits * SECOND - 1), None, "{asked}");
        assert!(next(&mut delivery, waits * SECOND).is_some(), "{asked}");
    }
    // Less than the pause that is due anyway changes nothing.
    let (mut delivery, mut host) = (delivery(), MemoryHost::default());
    delivery.push(vec![b'x'], &mut host);
    next(&mut delivery, 0).unwrap();
    let answer = Answer { status: 503, retry_after: Some("0"), body: b"" };
    delivery.settle(Outcome::Answered(answer), 0, &mut host);
    assert_eq!(next(&mut delivery, SECOND / 5), None);
}

#[test]
fn a_collector_that_refuses_the_sender_costs_the_batch_once() {
    for status in [401, 403, 404, 410, 415, 431] {
        let (mut delivery, mut host) = (delivery(), MemoryHost::default());
        for n in 0..4 {
            delivery.push(vec![b'0' + n], &mut host);
        }
        next(&mut delivery, 0).unwrap();
        delivery.push(vec![b'y'], &mut host);
        let answer = Answer { status, retry_after: None, body: b"bad\ttoken" };
        delivery.settle(Outcome::Answered(answer), 0, &mut host);
        assert_eq!(count(&host, "dropped_rejected"), 4, "{status}");
        assert!(host.log.iter().any(|line| line.contains("bad token")), "{:?}", host.log);
        assert_eq!(next(&mut delivery, 0).unwrap().body, b"y\n");
    }
}

#[test]
fn the_record_that_a_collector_cannot_read_is_dropped_alone() {
    for status in [400, 422, 500] {
        for poison in ["0", "1", "2", "3"] {
            let (mut delivery, mut host) = (delivery(), MemoryHost::default());
            for n in 0..8 {
                delivery.push(vec![b'0' + n], &mut host);
            }
            let requests = drain(&mut delivery, &mut host, |body| if body.contains(poison) { status } else { 200 });
            let taken = requests.iter().filter(|(_, status)| *status == 200).flat_map(|(body, _)| body.chars());
            let mut taken: Vec<_> = taken.collect();
            taken.sort_unstable();
            assert_eq!(taken.iter().collect::<String>(), "01234567".replace(poison, ""), "{status} {requests:?}");
            assert_eq!((count(&host, "sent"), count(&host, "dropped_rejected")), (7, 1));
            assert_eq!(delivery.pending(), 0);
        }
    }
}

#[test]
fn a_collector_that_reads_nothing_is_not_asked_record_by_record() {
    let mut host = MemoryHost::default();
    let mut delivery = Delivery::new(CollectorConfig { max_batch: 500, max_queue_bytes: 1 << 20, ..config() });
    let fill = |delivery: &mut Delivery, host: &mut MemoryHost| {
        for _ in 0..500 {
            delivery.push(vec![b'x'], host);
        }
    };
    fill(&mut delivery, &mut host);
    let asked = drain(&mut delivery, &mut host, |_| 400).len();
    assert_eq!(asked, MAX_REFUSALS as usize);
    fill(&mut delivery, &mut host);
    assert_eq!(drain(&mut delivery, &mut host, |_| 400).len(), 3, "it is known by now");
    assert_eq!(count(&host, "dropped_rejected"), 1000);
    // Until it takes something again.
    fill(&mut delivery, &mut host);
    drain(&mut delivery, &mut host, |_| 200);
    delivery.push(vec![b'p'], &mut host);
    delivery.push(vec![b'x'], &mut host);
    drain(&mut delivery, &mut host, |body| if body.contains('p') { 400 } else { 200 });
    assert_eq!((count(&host, "sent"), count(&host, "dropped_rejected")), (501, 1001));
}

#[test]
fn whatever_stands_beside_refused_records_arrives() {
    // Poison in a run at either end, in the middle, and scattered.
    let runs: [&dyn Fn(usize) -> bool; 5] =
        [&|n| n < 40, &|n| n >= 460, &|n| (200..300).contains(&n), &|n| n % 50 == 7, &|n| n == 0 || n == 499];
    for (number, is_poison) in runs.into_iter().enumerate() {
        let mut host = MemoryHost::default();
        let mut delivery = Delivery::new(CollectorConfig { max_batch: 500, max_queue_bytes: 1 << 20, ..config() });
        for n in 0..500 {
            delivery.push(if is_poison(n) { b"p" } else { b"x" }.to_vec(), &mut host);
        }
        let poison = (0..500).filter(|&n| is_poison(n)).count() as u64;
        let requests = drain(&mut delivery, &mut host, |body| if body.contains('p') { 400 } else { 200 }).len();
        assert_eq!((count(&host, "sent"), count(&host, "dropped_rejected")), (500 - poison, poison), "{number}");
        assert!(requests < 300, "{number}: {requests} requests");
    }
}

#[test]
fn a_failure_that_passes_costs_no_piece_its_attempts() {
    let (mut delivery, mut host) = (delivery(), MemoryHost::default());
    for line in ["a", "b", "p", "d"] {
        delivery.push(line.into(), &mut host);
    }
    let mut failures = 0;
    drain(&mut delivery, &mut host, |body| {
        if body.contains('p') {
            500
        } else if failures < 2 {
            failures += 1;
            503
        } else {
            200
        }
    });
    assert_eq!((count(&host, "sent"), count(&host, "dropped_rejected"), count(&host, "dropped_attempts")), (3, 1, 0));
}

#[test]
fn a_collector_that_took_less_for_a_while_gets_more_again() {
    let mut host = MemoryHost::default();
    let mut delivery = Delivery::new(CollectorConfig { max_queue_bytes: 1 << 20, ..config() });
    let fill = |delivery: &mut Delivery, host: &mut MemoryHost, records| {
        for _ in 0..records {
            delivery.push(vec![b'x'; 10], host);
        }
    };
    fill(&mut delivery, &mut host, 4);
    drain(&mut delivery, &mut host, |body| if body.len() > 10 { 413 } else { 200 });
    fill(&mut delivery, &mut host, 200);
    let sizes: Vec<_> = drain(&mut delivery, &mut host, |_| 200).iter().map(|(body, _)| body.len() / 10).collect();
    assert!(sizes.first() == Some(&1) && sizes.last() == Some(&4), "{sizes:?}");
    assert_eq!((count(&host, "sent"), count(&host, "dropped_too_large")), (204, 0));
    // Nothing is small enough: it is not asked record by record.
    fill(&mut delivery, &mut host, 4);
    let asked = drain(&mut delivery, &mut host, |_| 413).len();
    assert_eq!((asked, count(&host, "dropped_too_large")), (7, 4));
}

#[test]
fn a_clock_that_is_set_back_makes_no_pause_longer() {
    let (mut delivery, mut host) = (delivery(), MemoryHost::default());
    delivery.push(vec![b'x'], &mut host);
    next(&mut delivery, 1_000_000 * SECOND).unwrap();
    delivery.settle(answered(503), 1_000_000 * SECOND, &mut host);
    assert!(next(&mut delivery, 10 * SECOND).is_some());
}

#[test]
fn a_batch_whose_answer_comes_to_nobody_is_sent_again_and_this_was_no_attempt() {
    let mut host = MemoryHost::default();
    let mut delivery = Delivery::new(CollectorConfig { max_attempts: 1, ..config() });
    delivery.push(vec![b'x'], &mut host);
    let first = next(&mut delivery, SECOND).unwrap();
    delivery.interrupted();
    assert_eq!((delivery.pending(), host.log.len()), (1, 0));
    assert_eq!(next(&mut delivery, SECOND), Some(first));
    delivery.settle(answered(200), SECOND, &mut host);
    delivery.interrupted();
    assert_eq!((count(&host, "sent"), delivery.pending()), (1, 0));
}

#[test]
fn a_repeat_has_the_same_key_and_the_same_bytes_in_every_format() {
    for (name, format) in Format::NAMES {
        let mut host = MemoryHost::default();
        let mut delivery = Delivery::new(CollectorConfig { format, ..config() });
        delivery.push(br#"{"type":"usage","id":"1","ts":"x"}"#.to_vec(), &mut host);
        let first = next(&mut delivery, SECOND).unwrap();
        delivery.settle(Outcome::NoAnswer, SECOND, &mut host);
        assert_eq!(next(&mut delivery, 9 * SECOND), Some(first), "{name}");
    }
}

#[test]
fn a_batch_that_is_too_large_goes_in_halves_and_the_next_ones_are_smaller() {
    let mut host = MemoryHost::default();
    let mut delivery = Delivery::new(CollectorConfig { max_batch: 100, ..config() });
    for n in 0..8 {
        delivery.push(vec![b'0' + n], &mut host);
    }
    let too_large = |body: &str| if body.len() > 3 { 413 } else { 200 };
    let requests = drain(&mut delivery, &mut host, too_large);
    let bodies: Vec<_> = requests.iter().map(|(body, _)| &**body).collect();
    assert_eq!(bodies, ["01234567", "0123", "4567", "01", "23", "45", "67"]);
    for n in 0..4 {
        delivery.push(vec![b'a' + n], &mut host);
    }
    let requests = drain(&mut delivery, &mut host, too_large);
    assert_eq!(requests.len(), 2, "{requests:?}");
    delivery.push(vec![b'x'; 4], &mut host);
    drain(&mut delivery, &mut host, too_large);
    assert_eq!((count(&host, "sent"), count(&host, "dropped_too_large")), (12, 1));
}

#[test]
fn a_full_queue_drops_its_oldest_and_counts_them() {
    let (mut delivery, mut host) = (delivery(), MemoryHost::default());
    for n in 0..20 {
        delivery.push(vec![n; 10], &mut host);
    }
    assert_eq!(delivery.pending(), 10);
    assert_eq!(count(&host, "dropped_queue_full"), 10);
    assert_eq!(next(&mut delivery, 0).unwrap().body[0], 10);
}

#[test]
fn an_answer_nobody_waits_for_changes_nothing() {
    let (mut delivery, mut host) = (delivery(), MemoryHost::default());
    delivery.settle(answered(500), 0, &mut host);
    assert_eq!((delivery.pending(), next(&mut delivery, SECOND)), (0, None));
}

#[test]
fn a_partial_success_is_counted_and_not_sent_again() {
    let mut host = MemoryHost::default();
    let mut delivery = Delivery::new(CollectorConfig { format: Format::OtlpJson, ..config() });
    for _ in 0..3 {
        delivery.push(br#"{"type":"usage"}"#.to_vec(), &mut host);
    }
    next(&mut delivery, 0).unwrap();
    let body = br#"{"partialSuccess":{"rejectedLogRecords":"2","errorMessage":"no"}}"#;
    delivery.settle(Outcome::Answered(Answer { status: 200, retry_after: None, body }), 0, &mut host);
    assert_eq!((count(&host, "sent"), count(&host, "dropped_rejected"), delivery.pending()), (1, 2, 0));
}

/// Whatever the collector does, each record is counted at its end exactly once.
#[cfg(not(target_arch = "wasm32"))]
mod properties {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_record_is_sent_or_dropped_once(
            pushes in vec(0usize..12, 1..40),
            answers in vec(prop_oneof![
                4 => Just(Some(200u16)),
                1 => Just(None),
                4 => prop_oneof![Just(Some(400)), Just(Some(413)), Just(Some(429)), Just(Some(500)), Just(Some(503)),
                                 Just(Some(401)), Just(Some(307)), Just(Some(599)), Just(Some(100))],
            ], 1..60),
        ) {
            let mut host = MemoryHost::default();
            let mut delivery = Delivery::new(CollectorConfig { max_queue_bytes: 40, ..config() });
            let (mut pushed, mut now_ns) = (0, 0);
            let mut answers = answers.into_iter();
            for pushes in pushes.into_iter().chain(std::iter::repeat(0)) {
                for _ in 0..pushes {
                    delivery.push(vec![b'x'; 3], &mut host);
                    pushed += 1;
                }
                now_ns += 400 * SECOND;
                if next(&mut delivery, now_ns).is_some() {
                    let outcome = match answers.next().unwrap_or(Some(200)) {
                        Some(status) => answered(status),
                        None => Outcome::NoAnswer,
                    };
                    delivery.settle(outcome, now_ns, &mut host);
                } else if answers.len() == 0 || pushes == 0 && delivery.pending() == 0 {
                    break;
                }
            }
            prop_assert_eq!(counted(&host) + delivery.pending(), pushed);
            while next(&mut delivery, now_ns).is_some() {
                delivery.settle(answered(200), now_ns, &mut host);
            }
            prop_assert_eq!((counted(&host), delivery.pending()), (pushed, 0));
        }
    }
}
