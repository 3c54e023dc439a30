//! A response on its way to the client, and what the client is told of its cost.
//!
//! Nothing of a response waits to be counted. Only where the configuration wants costs in the headers of an answer does an
//! answer that is no stream wait for its end, and only while it is short. A stream may say its cost behind its last event.

use super::call::Call;
use super::request::RequestReader;
use super::{Context, Edit, Exchange, ID_HEADER, State, Verdict, governing};
use crate::api::{Api, ReplyField};
use crate::body::{ContentEncoding, Framing, ReplyReader};
use crate::config::StreamedCost;
use crate::http::Headers;
use crate::record::UsageRecord;
use crate::record::logged::Field;
use crate::rewrite::include_usage;
use crate::rewrite::usage_event::UsageEventFilter;
use crate::telemetry::{Event as LogEvent, Metric};

/// Bytes of an answer that wait for its cost, at most: less than any host buffers by default.
const MAX_HELD_BYTES: u64 = 256 * 1024;

/// What an event of a stream ends in, the longest way of writing it.
const EVENT_END: &[u8; 4] = b"\r\n\r\n";

/// A response on its way to the client.
pub(super) struct Reply {
    pub(super) reader: ReplyReader<ReplyField>,
    /// Takes out the event that the filter asked for and the client did not.
    pub(super) strip: Option<UsageEventFilter>,
    /// The request, where the provider answers before it has read it all.
    pub(super) request: Option<Box<RequestReader>>,
    /// How the client is told of the cost.
    tell: Tell,
    /// The last bytes that went on.
    tail: [u8; 4],
}

/// How a client is told what its call cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tell {
    Nothing,
    /// In headers, which the host holds meanwhile; so much of the body has come.
    Headers {
        bytes: u64,
    },
    /// In a comment behind the last event.
    Comment,
    /// In trailers.
    Trailers,
}

impl Reply {
    /// Whether its headers wait for its end.
    pub(super) fn is_held(&self) -> bool {
        matches!(self.tell, Tell::Headers { .. })
    }

    /// Whether it goes on waiting when so much more has come. What is too long goes on without its cost.
    pub(super) fn keep_holding(&mut self, more: usize) -> bool {
        if let Tell::Headers { bytes } = &mut self.tell {
            *bytes = bytes.saturating_add(more as u64);
            if *bytes > MAX_HELD_BYTES {
                self.tell = Tell::Nothing;
            }
        }
        self.is_held()
    }

    /// Looks at what goes on, where a comment may have to follow it.
    pub(super) fn pass(&mut self, bytes: &[u8]) {
        if self.tell == Tell::Comment {
            for &byte in bytes.get(bytes.len().saturating_sub(self.tail.len())..).unwrap_or_default() {
                self.tail.rotate_left(1);
                if let Some(last) = self.tail.last_mut() {
                    *last = byte;
                }
            }
        }
    }

    /// Whether what went on is whole events. A comment behind half of one would complete it.
    fn ends_an_event(&self) -> bool {
        [&b"\n\n"[..], b"\r\r", b"\n\r\n"].iter().any(|end| self.tail.ends_with(end))
    }

    /// It waits no longer: the host cannot show its body meanwhile.
    pub(super) fn release(&mut self, context: &mut Context<'_>) {
        context.host.count(Metric::ReleasedHolds, 1);
        context.host.log_once(LogEvent::HoldReleased);
        self.tell = Tell::Nothing;
    }
}

impl Exchange {
    pub(super) fn response_headers(
        &self,
        mut call: Box<Call>,
        mut request: Option<Box<RequestReader>>,
        headers: &Headers<'_>,
        end_of_stream: bool,
        verdict: &mut Verdict,
    ) -> State {
        call.reply_headers(headers);
        let mut framing = headers.get("content-type").and_then(Framing::of_content_type);
        if call.endpoint.is_guess {
            if end_of_stream || matches!(framing, None | Some(Framing::Opaque)) {
                return State::Bypassed;
            }
        } else {
            verdict.edits.push(Edit::Set(ID_HEADER, call.id.to_string()));
            governing::answer_headers(&call, &self.config, verdict);
        }
        if end_of_stream {
            if let Some(reader) = request {
                call.request = reader.finish();
            }
            return State::Settled(call);
        }
        if framing == Some(Framing::Opaque) && call.asks_for_stream(request.as_deref()) {
            // Some servers call their streams plain text.
            framing = None;
        }
        let encoding = ContentEncoding::of(headers.get("content-encoding"));
        let asked = match &mut request {
            Some(reader) => reader.overtaken(),
            None => call.request.include_usage,
        };
        let injected = asked == Some(include_usage::Outcome::Injected);
        let strip = injected && framing != Some(Framing::Json);
        if strip && encoding == ContentEncoding::Identity {
            verdict.edits.push(Edit::Remove("content-length".into()));
        }
        call.kept_usage_event = strip && encoding != ContentEncoding::Identity;
        let tell = self.tell(&call, request.as_deref(), framing, headers);
        match tell {
            Tell::Headers { .. } => verdict.pause = true,
            Tell::Comment => verdict.edits.push(Edit::Remove("content-length".into())),
            Tell::Trailers | Tell::Nothing => {}
        }
        let wrapped = call.api() == Api::BedrockInvoke && framing == Some(Framing::EventStream);
        let reply = Reply {
            reader: ReplyReader::new(call.api().format().reply, framing, encoding, wrapped),
            strip: (strip && !call.kept_usage_event).then(UsageEventFilter::new),
            request,
            tell,
            tail: *EVENT_END,
        };
        State::ReadingReply(call, Box::new(reply))
    }

    /// How the client is to be told of the cost.
    fn tell(
        &self,
        call: &Call,
        request: Option<&RequestReader>,
        framing: Option<Framing>,
        headers: &Headers<'_>,
    ) -> Tell {
        let metering = &self.config.metering;
        // What was charged before, and what is not finished, shows only in the record.
        let has_cost = !call.endpoint.is_guess && !call.endpoint.is_poll && !call.api().format().free;
        let streamed = call.asks_for_stream(request) || framing.is_some_and(Framing::is_stream);
        let short = headers.number("content-length").is_none_or(|bytes: u64| bytes <= MAX_HELD_BYTES);
        let plain = ContentEncoding::of(headers.get("content-encoding")) == ContentEncoding::Identity;
        match metering.streamed_cost {
            _ if !has_cost => Tell::Nothing,
            _ if !streamed => {
                let holds = metering.cost_headers && framing == Some(Framing::Json) && short;
                if holds { Tell::Headers { bytes: 0 } } else { Tell::Nothing }
            }
            StreamedCost::Comment if framing == Some(Framing::Sse) && plain => Tell::Comment,
            StreamedCost::Trailers => Tell::Trailers,
            StreamedCost::Comment | StreamedCost::Nowhere => Tell::Nothing,
        }
    }

    /// The response is over: `last` is the last piece of its body, which ends in trailers where there is none.
    pub(super) fn response_ended(
        &self,
        mut call: Box<Call>,
        reply: Reply,
        last: Option<&[u8]>,
        context: &mut Context<'_>,
        verdict: &mut Verdict,
    ) -> State {
        let tell = if reply.ends_an_event() || reply.tell != Tell::Comment { reply.tell } else { Tell::Nothing };
        call.reply_ended(reply);
        if tell == Tell::Nothing || (call.api() == Api::OpenaiResponses && call.reply.background) {
            return State::Settled(call);
        }
        let record = call.whole(&self.config, context);
        match (tell, last) {
            (Tell::Headers { .. }, _) => verdict.edits.extend(costs(&record).map(|(name, text)| Edit::Set(name, text))),
            (Tell::Trailers, _) => verdict.trailers.extend(costs(&record).map(|(name, text)| Edit::Set(name, text))),
            (Tell::Comment, Some(last)) => {
                let body = verdict.body.get_or_insert_with(|| last.to_vec());
                for (name, text) in costs(&record) {
                    body.extend_from_slice(format!(": {name}: {text}\n").as_bytes());
                }
                body.push(b'\n');
            }
            (Tell::Comment, None) | (Tell::Nothing, _) => {}
        }
        State::Settled(call)
    }
}

/// What a client is told, by name; nothing of what nobody knows.
fn costs(record: &UsageRecord) -> impl Iterator<Item = (&'static str, String)> {
    const COSTS: [(&str, Field); 4] = [
        ("x-cost-usd", Field::CostUsd),
        ("x-cost-status", Field::PriceStatus),
        ("x-cost-input-tokens", Field::InputTokens),
        ("x-cost-output-tokens", Field::OutputTokens),
    ];
    COSTS.into_iter().filter_map(|(name, field)| Some((name, field.text(record)?.into_owned())))
}
