//! A whole exchange as data, and what came of it; drivers play it natively and in the compiled module.

use super::chunks::Chunking;

/// Headers as raw bytes.
pub type Headers = Vec<(String, Vec<u8>)>;

/// How a response ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With its last piece, or with its headers where there is no body.
    Body,
    /// With trailers.
    Trailers,
    /// It does not: the client leaves or the upstream breaks off.
    None,
}

/// A request, its response, and how it ends.
#[derive(Clone, Debug)]
pub struct Exchange {
    pub config: Vec<u8>,
    pub request_headers: Headers,
    pub request_body: Vec<u8>,
    /// Absent: no answer ever came.
    pub response_headers: Option<Headers>,
    pub response_body: Vec<u8>,
    pub end: End,
    /// Envoy's account of the end.
    pub code_details: String,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The final record; absent for what is no LLM call.
    pub record: Option<serde_json::Value>,
    /// The request's headers as the provider gets them.
    pub upstream_headers: Headers,
    /// The request's body as the provider gets it.
    pub upstream_body: Vec<u8>,
    /// The response's headers as the client gets them.
    pub client_headers: Headers,
    /// The response's body as the client gets it.
    pub client_body: Vec<u8>,
}

/// Something that can play exchanges.
pub trait Driver {
    /// Plays an exchange that ends at a time in seconds since 1970; `None`: whenever the host's clock says.
    fn play_at(&mut self, exchange: &Exchange, chunking: Chunking, ends: Option<u64>) -> Outcome;

    /// Plays an exchange.
    fn play(&mut self, exchange: &Exchange, chunking: Chunking) -> Outcome {
        self.play_at(exchange, chunking, None)
    }
}

/// How long before its end an exchange at a given time begins, in seconds.
pub const LASTS_SECONDS: u64 = 2;

/// The record without what differs from run to run, which is checked to be there.
pub fn stable(record: &serde_json::Value) -> serde_json::Value {
    let mut record = record.clone();
    let fields = record.as_object_mut().expect("a record is an object");
    for field in ["id", "instance", "seq", "ts", "duration_ms"] {
        assert!(fields.remove(field).is_some(), "{field} is missing");
    }
    fields.remove("ttft_ms");
    record
}
