//! Plays exchanges on the core, natively.

use super::chunks::Chunking;
use super::exchange::{Driver, End, Exchange, Headers, LASTS_SECONDS, Outcome};
use std::rc::Rc;
use tollgate::config::Config;
use tollgate::exchange::{Context, Edit, Ending, Event, Exchange as Core, Route, Verdict};
use tollgate::identity::Instance;
use tollgate::memory::MemoryHost;

/// The core on an in-memory host.
#[derive(Default)]
pub struct CoreDriver;

/// Borrows headers for the core.
pub fn borrowed(headers: &Headers) -> tollgate::http::Headers<'_> {
    headers.iter().map(|(name, value)| (name.as_bytes(), value.as_slice())).collect()
}

/// Does what a verdict says, as a host would.
pub fn apply(edits: Vec<Edit>, headers: &mut Headers) {
    for edit in edits {
        match edit {
            Edit::Remove(name) => headers.retain(|(own, _)| *own != *name),
            Edit::Set(name, value) => {
                headers.retain(|(own, _)| own != name);
                headers.push((name.into(), value.into_bytes()));
            }
        }
    }
}

/// Sends on a piece of a body, or what the verdict puts in its place.
fn pass(chunk: &[u8], verdict: Verdict, body: &mut Vec<u8>) {
    match verdict.body {
        Some(other) => body.extend(other),
        None => body.extend_from_slice(chunk),
    }
}

impl Driver for CoreDriver {
    fn play_at(&mut self, exchange: &Exchange, chunking: Chunking, ends: Option<u64>) -> Outcome {
        let config = Config::from_bytes(&exchange.config).expect("the case's configuration is valid");
        let mut host = MemoryHost::default();
        host.now_ns = ends.map_or(host.now_ns, |ends| (ends - LASTS_SECONDS) * 1_000_000_000);
        let mut instance = Instance::register(&mut host, Some("gateway-1".into()));
        let mut core = Core::new(Rc::new(config));
        let mut on = |event: Event<'_>| {
            host.now_ns = match (event, ends) {
                (Event::Log(_), Some(ends)) => ends * 1_000_000_000,
                _ => host.now_ns + 1_000,
            };
            core.on(event, &mut Context { host: &mut host, instance: &mut instance })
        };
        let (mut upstream_body, mut client_body) = (Vec::new(), Vec::new());

        let mut upstream_headers = exchange.request_headers.clone();
        let end_of_stream = exchange.request_body.is_empty();
        let headers = borrowed(&exchange.request_headers);
        apply(
            on(Event::RequestHeaders { headers: &headers, route: Route::default(), end_of_stream }).edits,
            &mut upstream_headers,
        );
        if !end_of_stream {
            // What the host holds back: a verdict that replaces a piece replaces all of it.
            let mut held = Vec::new();
            let pieces = chunking.cut(&exchange.request_body).into_iter().map(|chunk| (chunk, false));
            for (chunk, end_of_stream) in pieces.chain([(&b""[..], true)]) {
                let mut verdict = on(Event::RequestBody { chunk, end_of_stream });
                apply(std::mem::take(&mut verdict.edits), &mut upstream_headers);
                let pauses = verdict.pause;
                held.extend_from_slice(chunk);
                let mut passed = Vec::new();
                pass(&held, verdict, &mut passed);
                held = passed;
                if !pauses {
                    upstream_body.append(&mut held);
                }
            }
        }

        let mut client_headers = exchange.response_headers.clone().unwrap_or_default();
        if let Some(response) = &exchange.response_headers {
            let end_of_stream = exchange.response_body.is_empty() && exchange.end == End::Body;
            let headers = borrowed(response);
            apply(on(Event::ResponseHeaders { headers: &headers, end_of_stream }).edits, &mut client_headers);
            for chunk in chunking.cut(&exchange.response_body) {
                pass(chunk, on(Event::ResponseBody { chunk, end_of_stream: false }), &mut client_body);
            }
            match exchange.end {
                End::Body if !end_of_stream => {
                    pass(b"", on(Event::ResponseBody { chunk: b"", end_of_stream: true }), &mut client_body);
                }
                End::Trailers => drop(on(Event::ResponseTrailers)),
                End::Body | End::None => {}
            }
        }
        on(Event::Log(Ending {
            code_details: Some(&exchange.code_details),
            attempts: Some(1),
            route: Some("llm"),
            cluster: Some("llm_upstream"),
            ..Ending::default()
        }));
        assert!(host.records.len() <= 1, "one record at most");
        let record = host.records.first().map(|record| serde_json::from_slice(&record.to_json().unwrap()).unwrap());
        Outcome { record, upstream_headers, upstream_body, client_headers, client_body }
    }
}
