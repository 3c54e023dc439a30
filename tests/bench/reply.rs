//! The readers of replies and of a large price table, natively:
//! `cargo bench --bench reply -- LONG.json DENSE.json STREAM.sse TABLE.json`.
//!
//! One line of JSON with the figures; `make bench` puts them beside those of the compiled module.

// A benchmark reads files and the clock, and prints.
#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::float_arithmetic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    missing_docs
)]

use std::hint::black_box;
use std::time::Instant;
use tollgate::api::{Api, ReplyFacts};
use tollgate::body::{ContentEncoding, Framing, ReplyReader};
use tollgate::config::Config;

const ROUNDS: usize = 15;

/// Nanoseconds to read a reply that comes in `pieces`, in the one of [`ROUNDS`] that was disturbed least.
fn least_ns(framing: Framing, pieces: &[&[u8]], replies: u32) -> f64 {
    let rounds = (0..ROUNDS).map(|_| {
        let began = Instant::now();
        for _ in 0..replies {
            let mut facts = ReplyFacts::default();
            let mut reader =
                ReplyReader::new(Api::OpenaiChat.format().reply, Some(framing), ContentEncoding::Identity, false);
            for piece in pieces {
                reader.feed(black_box(piece), &mut facts);
            }
            reader.finish(&mut facts);
            assert!(!black_box(facts).usage.is_empty(), "the reply has a usage");
        }
        began.elapsed().as_nanos() as f64 / f64::from(replies)
    });
    rounds.fold(f64::INFINITY, f64::min)
}

/// Milliseconds to read a configuration, in the one of [`ROUNDS`] that was disturbed least.
fn least_ms(config: &[u8]) -> f64 {
    let rounds = (0..ROUNDS).map(|_| {
        let began = Instant::now();
        let config = Config::from_bytes(black_box(config)).expect("a good configuration");
        let elapsed = began.elapsed();
        assert!(!black_box(config).prices.table.is_empty(), "it has prices");
        elapsed.as_nanos() as f64 / 1e6
    });
    rounds.fold(f64::INFINITY, f64::min)
}

fn main() {
    // cargo adds `--bench`.
    let files = std::env::args().skip(1).filter(|argument| !argument.starts_with("--"));
    let bodies: Vec<Vec<u8>> = files.map(|path| std::fs::read(path).expect("a readable file")).collect();
    let [long, dense, stream, table] = bodies.as_slice() else {
        println!("usage: cargo bench --bench reply -- LONG.json DENSE.json STREAM.sse TABLE.json");
        return;
    };
    let mb_per_s = |body: &[u8]| {
        let pieces: Vec<&[u8]> = body.chunks(16384).collect();
        body.len() as f64 * 1000.0 / least_ns(Framing::Json, &pieces, 10)
    };
    let ends: Vec<usize> = (2..=stream.len()).filter(|&end| stream[..end].ends_with(b"\n\n")).collect();
    let starts = std::iter::once(0).chain(ends.iter().copied());
    let events: Vec<&[u8]> = starts.zip(&ends).map(|(start, &end)| &stream[start..end]).collect();
    println!(
        r#"{{"long_mb_per_s":{:.1},"dense_mb_per_s":{:.1},"event_ns":{:.1},"table_ms":{:.1}}}"#,
        mb_per_s(long),
        mb_per_s(dense),
        least_ns(Framing::Sse, &events, 1000) / events.len() as f64,
        least_ms(table),
    );
}
