//! One request and its response, as a state machine: an event in, a [`Verdict`] out.
//!
//! States carry what is known so far and a transition consumes the old one, so an exchange cannot be half in two
//! phases. Every order of events is safe: what a state does not expect leaves it as it is. The record is emitted at
//! [`Event::Log`], which the host fires once at every kind of end; until then a provisional record stands in the
//! access log's place, for the case that the VM does not live to see the end.
//!
//! | state | left by | for |
//! |---|---|---|
//! | `Idle` | request headers | `ReadingRequest`, `AwaitingReply` (no body) or `Bypassed` (no LLM call) |
//! | `ReadingRequest` | end of the request, or an early answer | `AwaitingReply`, `ReadingReply`, `Settled` |
//! | `AwaitingReply` | response headers | `ReadingReply`, or `Settled` where there is no body |
//! | `ReadingReply` | end of the response | `Settled` |
//! | any | log | `Closed` |

mod call;

pub use call::Ending;

use crate::api::{Api, ReplyField, RequestFacts, RequestField};
use crate::attribution::{Attribution, HEADER_PREFIX};
use crate::body::json::Scanner;
use crate::body::{ContentEncoding, Framing, ReplyReader};
use crate::config::Config;
use crate::host::Host;
use crate::http::{self, Headers};
use crate::identity::Instance;
use crate::telemetry::{Event as LogEvent, Metric};
use call::Call;
use std::rc::Rc;

/// The header of every metered response that names its record.
pub const ID_HEADER: &str = "x-tollgate-id";

/// Something the host saw.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// The request's headers.
    RequestHeaders {
        /// All of them, pseudo-headers too.
        headers: &'a Headers<'a>,
        /// No body follows.
        end_of_stream: bool,
    },
    /// A piece of the request's body.
    RequestBody {
        /// The piece.
        chunk: &'a [u8],
        /// It is the last.
        end_of_stream: bool,
    },
    /// The request's trailers: its body is over.
    RequestTrailers,
    /// The response's headers.
    ResponseHeaders {
        /// All of them, pseudo-headers too.
        headers: &'a Headers<'a>,
        /// No body follows.
        end_of_stream: bool,
    },
    /// A piece of the response's body.
    ResponseBody {
        /// The piece.
        chunk: &'a [u8],
        /// It is the last.
        end_of_stream: bool,
    },
    /// The response's trailers: its body is over.
    ResponseTrailers,
    /// The end of everything, however it came.
    Log(Ending<'a>),
}

/// What the host must do now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Changes to the headers of the message at hand, before it goes on.
    pub edits: Vec<Edit>,
}

/// A change to one header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edit {
    /// Take every value of it away.
    Remove(Box<str>),
    /// Make this its only value.
    Set(&'static str, String),
}

/// What an exchange works with besides its host: shared by all exchanges of a root context.
pub struct Context<'a> {
    /// The ports.
    pub host: &'a mut dyn Host,
    /// The VM.
    pub instance: &'a mut Instance,
}

/// One request and its response. It keeps the configuration it began with.
pub struct Exchange {
    config: Rc<Config>,
    state: State,
}

enum State {
    Idle,
    /// Not an LLM call.
    Bypassed,
    ReadingRequest(Box<Call>, Scanner<RequestField>),
    AwaitingReply(Box<Call>),
    ReadingReply(Box<Call>, ReplyReader<ReplyField>),
    /// The response is over; the log callback is still to come.
    Settled(Box<Call>),
    Closed,
}

impl Exchange {
    /// Before the first event.
    pub fn new(config: Rc<Config>) -> Exchange {
        Exchange { config, state: State::Idle }
    }

    /// Whether pieces of the request's body are wanted; the host need not copy them otherwise.
    pub fn reads_request_body(&self) -> bool {
        matches!(self.state, State::ReadingRequest(..))
    }

    /// Whether pieces of the response's body are wanted.
    pub fn reads_response_body(&self) -> bool {
        matches!(self.state, State::ReadingReply(..))
    }

    /// Whether [`Event::Log`] will want the request's headers: another filter has ended the exchange before this one
    /// saw them.
    pub fn is_idle(&self) -> bool {
        matches!(self.state, State::Idle)
    }

    /// Whether a record is still owed.
    pub fn is_open(&self) -> bool {
        !matches!(self.state, State::Idle | State::Bypassed | State::Closed)
    }

    /// Takes one event.
    pub fn on(&mut self, event: Event<'_>, context: &mut Context<'_>) -> Verdict {
        let mut verdict = Verdict::default();
        let state = std::mem::replace(&mut self.state, State::Closed);
        self.state = match (state, event) {
            (State::Idle, Event::RequestHeaders { headers, end_of_stream }) => {
                self.request_headers(headers, end_of_stream, context, &mut verdict)
            }
            (State::Idle, Event::Log(ending)) => {
                // Another filter answered before this one saw the request: still a call, still a record.
                if let Some(headers) = ending.request_headers
                    && let Some(call) = self.begin_call(headers, context)
                {
                    call.close(&self.config, &ending, false, context);
                }
                State::Closed
            }

            (State::ReadingRequest(mut call, mut scanner), Event::RequestBody { chunk, end_of_stream }) => {
                scanner.feed(chunk, &mut call.request);
                if end_of_stream {
                    self.request_ended(call, scanner, context)
                } else {
                    State::ReadingRequest(call, scanner)
                }
            }
            (State::ReadingRequest(call, scanner), Event::RequestTrailers) => {
                self.request_ended(call, scanner, context)
            }
            (State::ReadingRequest(mut call, mut scanner), Event::ResponseHeaders { headers, end_of_stream }) => {
                // The provider answers before it has read everything: what was read of the request counts.
                scanner.finish(&mut call.request);
                self.response_headers(call, headers, end_of_stream, &mut verdict)
            }

            (State::AwaitingReply(call), Event::ResponseHeaders { headers, end_of_stream }) => {
                self.response_headers(call, headers, end_of_stream, &mut verdict)
            }

            (State::ReadingReply(mut call, mut reader), Event::ResponseBody { chunk, end_of_stream }) => {
                call.reply_chunk(chunk, context.host);
                reader.feed(chunk, &mut call.reply);
                if end_of_stream { settle(call, reader) } else { State::ReadingReply(call, reader) }
            }
            (State::ReadingReply(call, reader), Event::ResponseTrailers) => settle(call, reader),
            (State::ReadingReply(mut call, mut reader), Event::Log(ending)) => {
                call.reply_ended(&mut reader);
                call.close(&self.config, &ending, false, context);
                State::Closed
            }

            (State::Settled(call), Event::Log(ending)) => {
                call.close(&self.config, &ending, true, context);
                State::Closed
            }
            (State::AwaitingReply(call) | State::ReadingRequest(call, _), Event::Log(ending)) => {
                call.close(&self.config, &ending, false, context);
                State::Closed
            }

            (State::Bypassed, Event::Log(_)) => State::Closed,
            (state, _) => state,
        };
        verdict
    }

    /// The call that `headers` begin; `None` where it is no LLM call.
    fn begin_call(&self, headers: &Headers<'_>, context: &mut Context<'_>) -> Option<Box<Call>> {
        let method = headers.get(":method").unwrap_or_default();
        let path = headers.get(":path").unwrap_or_default();
        let api = Api::recognise(method, path)?;
        let attribution = Attribution::from_headers(headers.iter(), self.config.attribution.max_value_bytes);
        for (reason, count) in &attribution.drop_counts {
            context.host.count(Metric::DroppedValues { reason: reason.name() }, *count);
        }
        for dropped in &attribution.dropped {
            context.host.log_once(LogEvent::ValueDropped { header: &dropped.header, reason: dropped.reason.name() });
        }
        Some(Box::new(Call::new(api, headers, attribution, context)))
    }

    fn request_headers(
        &self,
        headers: &Headers<'_>,
        end_of_stream: bool,
        context: &mut Context<'_>,
        verdict: &mut Verdict,
    ) -> State {
        let signed = headers.signed();
        if !self.config.attribution.forward_headers {
            for (name, _) in headers.iter().filter(|(name, _)| name.starts_with(HEADER_PREFIX.as_bytes())) {
                if !signed.contain(name)
                    && let Ok(name) = str::from_utf8(name)
                    && !verdict.edits.contains(&Edit::Remove(name.into()))
                {
                    verdict.edits.push(Edit::Remove(name.into()));
                }
            }
        }
        let Some(call) = self.begin_call(headers, context) else { return State::Bypassed };
        if let Some(accepted) = headers.get("accept-encoding")
            && !signed.contain(b"accept-encoding")
            && let Some(narrowed) = http::narrow_accept_encoding(accepted)
        {
            verdict.edits.push(Edit::Set("accept-encoding", narrowed));
        }
        call.provisional(context);
        if end_of_stream {
            return State::AwaitingReply(call);
        }
        let readable = ContentEncoding::of(headers.get("content-encoding")) == ContentEncoding::Identity;
        let places = if readable { call.api.format().request } else { &[] };
        State::ReadingRequest(call, Scanner::new(places))
    }

    fn request_ended(
        &self,
        mut call: Box<Call>,
        mut scanner: Scanner<RequestField>,
        context: &mut Context<'_>,
    ) -> State {
        scanner.finish(&mut call.request);
        if call.request != RequestFacts::default() {
            call.provisional(context);
        }
        State::AwaitingReply(call)
    }

    fn response_headers(
        &self,
        mut call: Box<Call>,
        headers: &Headers<'_>,
        end_of_stream: bool,
        verdict: &mut Verdict,
    ) -> State {
        verdict.edits.push(Edit::Set(ID_HEADER, call.id.to_string()));
        call.status = headers.number(":status");
        if end_of_stream {
            return State::Settled(call);
        }
        let framing = headers.get("content-type").and_then(Framing::of_content_type);
        let encoding = ContentEncoding::of(headers.get("content-encoding"));
        let reader = ReplyReader::new(call.api.format().reply, framing, encoding);
        State::ReadingReply(call, reader)
    }
}

fn settle(mut call: Box<Call>, mut reader: ReplyReader<ReplyField>) -> State {
    call.reply_ended(&mut reader);
    State::Settled(call)
}

#[cfg(test)]
mod tests;
