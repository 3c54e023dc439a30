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
//! | `ReadingRequest` | a refusal | `Refused` |
//! | any | log | `Closed` |

mod bound;
mod call;
mod governing;
mod held;
mod once;
mod pricing;
mod request;
mod response;

pub use call::Ending;

use crate::admin::{self, Step};
use crate::api::{Api, Endpoint, provider};
use crate::attribution::Attribution;
use crate::body::{ContentEncoding, Framing};
use crate::budget::Budget;
use crate::budget::ledger::{Access, Ledger};
use crate::config::{Config, OnUnknownModel, OnUnmetered, UpstreamConfig};
use crate::host::Host;
use crate::http::{self, Headers};
use crate::identity::Instance;
use crate::reply::{LocalReply, Refusal};
use call::Call;
use request::{Plan, RequestReader};
use response::Reply;
use std::borrow::Cow;
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
        /// Where the request is going, as far as the host was asked: see [`Exchange::wants_route`].
        route: Route<'a>,
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
    /// The host could not hold the request: see [`Exchange::holds_request`].
    HeldInVain {
        /// The request's headers, which go on now.
        headers: &'a Headers<'a>,
    },
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
    /// The host has shown nothing of a response's body since it was to hold its headers, see [`Exchange::holds_reply`].
    ReplyHeldInVain,
    /// The end of everything, however it came.
    Log(Ending<'a>),
}

/// Where the host is about to send a request, and what it knows of where it comes from.
#[derive(Clone, Copy, Debug, Default)]
pub struct Route<'a> {
    /// Name of the route.
    pub route: Option<&'a str>,
    /// Name of the cluster.
    pub cluster: Option<&'a str>,
    /// The values of [`Exchange::wants_properties`], in that order; `None`: the host has none of that name.
    pub properties: &'a [Option<Vec<u8>>],
}

/// What the host must do now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Changes to the headers of the message at hand, before it goes on.
    pub edits: Vec<Edit>,
    /// What goes on in the place of the piece of a body at hand; `None`: the piece.
    pub body: Option<Vec<u8>>,
    /// An answer to send instead of the provider's; nothing more of the request goes on.
    pub reply: Option<LocalReply>,
    /// Nothing of the request, or of the response, goes on before a later verdict says so.
    pub pause: bool,
    /// Changes to the response's trailers, which may not be there yet.
    pub trailers: Vec<Edit>,
    /// Unless all of the changes can be made, nothing of the request may go on: it would be another call than was decided.
    pub all_or_nothing: bool,
}

/// A change to one header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edit {
    /// Take every value of it away.
    Remove(Cow<'static, str>),
    /// Make this its only value.
    Set(&'static str, String),
}

impl Edit {
    /// The header's name.
    fn name(&self) -> &str {
        match self {
            Edit::Remove(name) => name,
            Edit::Set(name, _) => name,
        }
    }
}

/// What an exchange works with besides its host: shared by all exchanges of a root context.
pub struct Context<'a> {
    /// The ports.
    pub host: &'a mut dyn Host,
    /// The VM.
    pub instance: &'a mut Instance,
}

impl Context<'_> {
    /// This worker's side of the ledger, and what its operations need.
    pub fn ledger<'c>(&'c mut self, config: &'c Config, now: u64) -> (&'c mut Ledger, Access<'c>) {
        (&mut self.instance.ledger, Access { store: self.host, now, config: &config.ledger })
    }
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
    ReadingRequest(Box<Call>, Box<RequestReader>),
    AwaitingReply(Box<Call>),
    ReadingReply(Box<Call>, Box<Reply>),
    /// Answered by the filter; its own answer comes back through the response callbacks.
    Refused(Box<Call>),
    /// A change of a budget, whose body is being read.
    Administering(admin::Change),
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
        match &self.state {
            State::ReadingRequest(..) | State::Administering(_) => true,
            State::ReadingReply(_, reply) => reply.request.is_some(),
            _ => false,
        }
    }

    /// Whether the host is to hold the request's headers and body; it shows the whole of the body anew with each piece.
    pub fn holds_request(&self) -> bool {
        matches!(&self.state, State::ReadingRequest(_, reader) if reader.is_held())
    }

    /// Whether the host is to hold the response's headers and body; it shows the whole of the body anew with each piece.
    pub fn holds_reply(&self) -> bool {
        matches!(&self.state, State::ReadingReply(_, reply) if reply.is_held())
    }

    /// Whether the host shows nothing of the request or of the response to anybody before it has shown their bodies here.
    pub fn waits(&self) -> bool {
        matches!(self.state, State::Administering(_)) || self.holds_request() || self.holds_reply()
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

    /// Whether [`Event::RequestHeaders`] needs its route; asking a host for it is not free.
    pub fn wants_route(&self) -> bool {
        self.config.upstreams.iter().any(UpstreamConfig::matches_route)
    }

    /// The properties that [`Event::RequestHeaders`] needs, each a path with zero bytes between its parts; they are
    /// readable while the request's headers are, and again at [`Event::Log`].
    pub fn wants_properties(&self) -> &[Box<str>] {
        self.config.attribution.properties()
    }

    /// Whether a record is still owed.
    pub fn is_open(&self) -> bool {
        !matches!(self.state, State::Idle | State::Bypassed | State::Administering(_) | State::Closed)
    }

    /// Takes one event.
    pub fn on(&mut self, event: Event<'_>, context: &mut Context<'_>) -> Verdict {
        let mut verdict = Verdict::default();
        let state = std::mem::replace(&mut self.state, State::Closed);
        self.state = match (state, event) {
            (State::Idle, Event::RequestHeaders { headers, route, end_of_stream }) => {
                self.request_headers(headers, route, end_of_stream, context, &mut verdict)
            }
            (State::Idle, Event::Log(ending)) => {
                // Another filter answered before this one saw the request: still a call, still a record.
                if let Some(headers) = ending.request_headers
                    && let Some(call) = self.begin_call(headers, ending.route(), context, &mut drop)
                {
                    call.close(&self.config, &ending, false, context);
                }
                State::Closed
            }

            (State::Administering(change), Event::RequestBody { chunk, end_of_stream }) => {
                administer(change.feed(chunk, end_of_stream, &self.config, context), &mut verdict)
            }
            (State::Administering(_), Event::HeldInVain { .. }) => {
                administer(Step::Answer(admin::unread()), &mut verdict)
            }
            (State::Administering(change), Event::RequestTrailers) => {
                administer(Step::Answer(change.answer(&self.config, context)), &mut verdict)
            }

            (State::ReadingRequest(call, mut reader), Event::RequestBody { chunk, end_of_stream }) => {
                verdict.body = reader.feed(chunk, end_of_stream);
                let oversize = self.oversize(reader.bytes(), reader.withholds());
                if let Some(refusal) = oversize.or_else(|| self.busy(reader.withholds(), 0, context)) {
                    refuse(call, *reader, refusal, &mut verdict)
                } else if end_of_stream {
                    self.request_ended(call, *reader, false, context, &mut verdict)
                } else {
                    self.keep_holding(&call, &mut reader, context, &mut verdict);
                    State::ReadingRequest(call, reader)
                }
            }
            (State::ReadingRequest(mut call, mut reader), Event::HeldInVain { headers }) if reader.is_held() => {
                self.release(&mut call, &mut reader, headers, context, &mut verdict);
                State::ReadingRequest(call, reader)
            }
            (State::ReadingRequest(call, reader), Event::RequestTrailers) => {
                self.request_ended(call, *reader, true, context, &mut verdict)
            }
            (State::ReadingRequest(call, reader), Event::ResponseHeaders { headers, end_of_stream }) => {
                // The provider answers before it has read everything.
                self.response_headers(call, Some(reader), headers, end_of_stream, &mut verdict)
            }

            (State::AwaitingReply(call), Event::ResponseHeaders { headers, end_of_stream }) => {
                self.response_headers(call, None, headers, end_of_stream, &mut verdict)
            }

            (State::ReadingReply(call, mut reply), Event::RequestBody { chunk, end_of_stream }) => {
                verdict.body = reply.request.as_mut().and_then(|reader| reader.feed_late(chunk, end_of_stream));
                // Nothing of a request that was answered while it was held goes on any more.
                verdict.pause = reply.request.as_ref().is_some_and(|reader| reader.is_held());
                State::ReadingReply(call, reply)
            }
            (State::ReadingReply(call, reply), Event::RequestTrailers) => {
                verdict.pause = reply.request.as_ref().is_some_and(|reader| reader.is_held());
                State::ReadingReply(call, reply)
            }
            (State::ReadingReply(mut call, mut reply), Event::ResponseBody { chunk, end_of_stream }) => {
                call.reply_chunk(chunk, context.host);
                reply.reader.feed(chunk, &mut call.reply);
                verdict.body = reply.strip.as_mut().and_then(|strip| strip.feed(chunk, end_of_stream));
                reply.pass(verdict.body.as_deref().unwrap_or(chunk));
                if end_of_stream {
                    self.response_ended(call, *reply, Some(chunk), context, &mut verdict)
                } else {
                    call.progress(&reply, &self.config, context);
                    verdict.pause = reply.keep_holding(chunk.len());
                    State::ReadingReply(call, reply)
                }
            }
            (State::ReadingReply(call, reply), Event::ResponseTrailers) => {
                self.response_ended(call, *reply, None, context, &mut verdict)
            }
            (State::ReadingReply(call, mut reply), Event::ReplyHeldInVain) if reply.is_held() => {
                reply.release(context);
                State::ReadingReply(call, reply)
            }
            (State::ReadingReply(mut call, reply), Event::Log(ending)) => {
                call.reply_ended(*reply);
                call.close(&self.config, &ending, false, context);
                State::Closed
            }

            (State::Settled(call), Event::Log(ending)) => {
                call.close(&self.config, &ending, true, context);
                State::Closed
            }
            (State::ReadingRequest(mut call, reader), Event::Log(ending)) => {
                call.request = reader.finish();
                call.is_incomplete = true;
                call.close(&self.config, &ending, false, context);
                State::Closed
            }
            (State::AwaitingReply(call) | State::Refused(call), Event::Log(ending)) => {
                call.close(&self.config, &ending, false, context);
                State::Closed
            }

            (State::Bypassed, Event::Log(_)) => State::Closed,
            (state, _) => state,
        };
        verdict
    }

    /// The call that `headers` begin; `None` where it is no LLM call.
    fn begin_call(
        &self,
        headers: &Headers<'_>,
        route: Route<'_>,
        context: &mut Context<'_>,
        edit: &mut dyn FnMut(Edit),
    ) -> Option<Box<Call>> {
        let method = headers.get(":method").unwrap_or_default();
        let path = headers.get(":path").unwrap_or_default();
        let host = headers.text(":authority", 256);
        let upstream = self.config.upstream(route, host);
        // A path that says what it is needs no telling; files and the like that go to an LLM upstream are no calls.
        let told = || {
            let json = headers.get("content-type").and_then(Framing::of_content_type) == Some(Framing::Json);
            let api = upstream.and_then(|upstream| upstream.api).filter(|_| method == b"POST" && json);
            api.map(Endpoint::of)
        };
        let biller = upstream.and_then(|upstream| upstream.provider.as_deref());
        let is_googles = |api| provider::is_googles(api, path, biller, host);
        let overridden = || {
            headers.get("x-http-method-override").filter(|method| method.eq_ignore_ascii_case(b"POST"))?;
            Endpoint::recognise(b"POST", path).filter(|endpoint| is_googles(endpoint.api))
        };
        let unrecognised = || self.unrecognised(headers, upstream.is_some());
        let rules = &self.config.attribution;
        let known = Endpoint::recognise(method, path).or_else(overridden).or_else(told);
        let Some(endpoint) = known.or_else(unrecognised) else {
            let left = Attribution::of_no_call(rules, headers, route.properties, |name| edit(Edit::Remove(name)));
            left.map(keep_of_baggage).into_iter().for_each(edit);
            return None;
        };
        let key_in_query = path.contains(&b'?') && is_googles(endpoint.api);
        let remove = |name| edit(Edit::Remove(name));
        let attribution = Attribution::read(rules, headers, route.properties, key_in_query, remove);
        attribution.baggage_left(rules, headers).map(keep_of_baggage).into_iter().for_each(edit);
        Some(Box::new(Call::new(endpoint, upstream, headers, attribution, context)))
    }

    /// A request of no known format that may be an LLM call all the same: any to an LLM host that could begin one, and
    /// any other that sends JSON, as a guess.
    fn unrecognised(&self, headers: &Headers<'_>, is_llm_upstream: bool) -> Option<Endpoint> {
        let policy = self.config.metering.on_unmetered;
        let posts = headers.get(":method") == Some(b"POST");
        let llm_host = || headers.text(":authority", 256).and_then(provider::of_host).is_some();
        if policy == OnUnmetered::Allow {
            None
        } else if (posts || headers.upgrade_to_websocket()) && (is_llm_upstream || llm_host()) {
            Some(Endpoint::of(Api::Unrecognised))
        } else {
            let json = headers.get("content-type").and_then(Framing::of_content_type) == Some(Framing::Json);
            let guess = Endpoint { is_guess: true, ..Endpoint::of(Api::Unrecognised) };
            (posts && json).then_some(guess)
        }
    }

    fn request_headers(
        &self,
        headers: &Headers<'_>,
        route: Route<'_>,
        end_of_stream: bool,
        context: &mut Context<'_>,
        verdict: &mut Verdict,
    ) -> State {
        if admin::is_admin(&self.config, headers.get(":path").unwrap_or_default()) {
            return administer(admin::begin(&self.config, headers, end_of_stream, context), verdict);
        }
        let signed = headers.signed();
        verdict.edits.reserve(16);
        let mut edit = |edit: Edit| {
            if !signed.contain(edit.name().as_bytes()) {
                verdict.edits.push(edit);
            }
        };
        let call = self.begin_call(headers, route, context, &mut edit);
        let Some(mut call) = call else { return State::Bypassed };
        if call.endpoint.is_guess {
            // Until its answer proves it an LLM call, nothing about it is changed or read.
            return State::AwaitingReply(call);
        }
        let unmetered = call.api() == Api::Unrecognised;
        if unmetered && self.config.metering.on_unmetered == OnUnmetered::Reject {
            return answer(call, Refusal::Unmetered, verdict);
        }
        if unmetered && headers.upgrade_to_websocket() {
            if let Some(refusal) = self.objection(&call, false) {
                return answer(call, refusal, verdict);
            }
            // What follows is no request with an end.
            call.provisional(&self.config, context);
            return State::AwaitingReply(call);
        }
        let governed = governing::may_govern(&call, &self.config);
        let awaits_model = self.judges(&call) && call.endpoint.model.is_none();
        let awaits_owner = call.attribution.awaits_body(&self.config.attribution);
        let mut plan = Plan {
            inject: !end_of_stream && self.injects(&call, route, headers),
            withhold: !end_of_stream && (awaits_model || awaits_owner || governed),
            ..Plan::default()
        };
        let bytes = headers.number("content-length").unwrap_or(0);
        plan.hold = self.holds(plan, bytes, context);
        if (!plan.inject || plan.hold)
            && let Some(accepted) = headers.get("accept-encoding")
            && !signed.contain(b"accept-encoding")
            && let Some(narrowed) = http::narrow_accept_encoding(accepted)
        {
            verdict.edits.push(Edit::Set("accept-encoding", narrowed));
        }
        call.can_be_downgraded = plan.withhold
            && (call.endpoint.model.is_none() || plan.hold)
            && ContentEncoding::of(headers.get("content-encoding")) == ContentEncoding::Identity
            && !headers.fix_body();
        if plan.hold {
            plan.rewrite = call.can_be_downgraded && self.config.budgets.iter().any(Budget::downgrades);
            call.held_path = headers.get(":path").filter(|_| plan.rewrite).map(Into::into);
        } else {
            self.edit_early(&call, plan.inject, verdict);
            governing::downgrade_path(&mut call, headers, &self.config, context, verdict);
        }
        let paths = self.config.attribution.body_paths();
        let withheld = &context.instance.withheld;
        let reader = RequestReader::new(call.api(), headers, &self.config.metering, paths, plan, withheld);
        let known = if awaits_model && !end_of_stream { None } else { self.judge(&call) };
        let refusal = self
            .oversize(bytes, plan.withhold)
            .or_else(|| self.objection(&call, plan.withhold))
            .or(known)
            // What a budget has to count must be readable.
            .or_else(|| (governed && !end_of_stream && !reader.reads()).then_some(Refusal::Unreadable))
            .or_else(|| governing::refuse_early(&mut call, &self.config, context))
            // Last: what is refused for good must not be asked to come again.
            .or_else(|| self.busy(plan.withhold, bytes, context));
        if let Some(refusal) = refusal {
            return refuse(call, reader, refusal, verdict);
        }
        if end_of_stream {
            return self.request_ended(call, reader, false, context, verdict);
        }
        call.provisional(&self.config, context);
        verdict.pause = plan.hold;
        State::ReadingRequest(call, Box::new(reader))
    }

    /// The refusal of a call that nobody can be charged for, where policy says so; `body_follows` is whether the body
    /// may still name somebody.
    fn objection(&self, call: &Call, body_follows: bool) -> Option<Refusal> {
        let missing = call.attribution.objection(&self.config.attribution, body_follows);
        missing.map(|missing| Refusal::Unattributed { missing })
    }

    /// Whether a request's body of so many bytes is refused: by policy, or since it is more than can be withheld until
    /// its end.
    fn oversize(&self, bytes: u64, withheld: bool) -> Option<Refusal> {
        let metering = &self.config.metering;
        let max_request_bytes = metering.max_request_bytes;
        let refuses = metering.refuse_oversize.unwrap_or(withheld) || withheld;
        (refuses && bytes > max_request_bytes).then_some(Refusal::TooLarge { max_request_bytes })
    }

    /// Whether policy may refuse the call for what its request says.
    fn judges(&self, call: &Call) -> bool {
        let billed = !call.api().format().free && !call.endpoint.is_poll;
        self.config.prices.on_unknown_model == Some(OnUnknownModel::Reject) && billed
    }

    /// Why a request that has been read is refused, if it is.
    fn judge(&self, call: &Call) -> Option<Refusal> {
        if !self.judges(call) {
            return None;
        }
        let model = call.request_model();
        let known = model.is_some_and(|model| call.find_model(&self.config.prices.table, model).is_some());
        (!known).then(|| Refusal::UnknownModel { model: model.map(Into::into) })
    }

    /// The request is over: it goes on, or is refused. What was held back of a body that ends in trailers can't follow
    /// any more; going on without it would send the provider half a request.
    fn request_ended(
        &self,
        mut call: Box<Call>,
        mut reader: RequestReader,
        in_trailers: bool,
        context: &mut Context<'_>,
        verdict: &mut Verdict,
    ) -> State {
        let stuck = in_trailers && reader.holds();
        let was_held = reader.is_held();
        let whole = reader.take_held();
        call.request = reader.finish();
        call.attribute_body(&self.config);
        call.decide_workload(&self.config);
        let judged = || self.objection(&call, false).or_else(|| self.judge(&call));
        let judged = if stuck { Some(Refusal::Trailers) } else { judged() };
        let body = whole.as_ref().map(|whole| &*whole.bytes).or(verdict.body.as_deref());
        let refusal = judged.or_else(|| governing::reserve(&mut call, body, &self.config, context).err());
        if let Some(refusal) = refusal {
            return answer(call, refusal, verdict);
        }
        // The dear call must not go out on what the cheap one holds.
        verdict.all_or_nothing = call.reservation.downgraded_to.is_some();
        if was_held {
            Exchange::send_held(&mut call, whole, in_trailers, verdict);
        } else if let Some(body) = call.reservation.rewritten.take() {
            verdict.body = Some(body);
        }
        call.provisional(&self.config, context);
        State::AwaitingReply(call)
    }
}

fn refuse(mut call: Box<Call>, reader: RequestReader, refusal: Refusal, verdict: &mut Verdict) -> State {
    if reader.bytes() > 0 {
        call.request = reader.finish();
    }
    answer(call, refusal, verdict)
}

fn answer(mut call: Box<Call>, refusal: Refusal, verdict: &mut Verdict) -> State {
    let mut reply = refusal.reply(call.api().format().dialect);
    reply.headers.push((ID_HEADER, call.id.to_string()));
    call.status = Some(reply.status);
    verdict.reply = Some(reply);
    call.refusal = Some(refusal);
    State::Refused(call)
}

/// The change that leaves so much of a request's baggage.
fn keep_of_baggage(left: String) -> Edit {
    if left.is_empty() { Edit::Remove("baggage".into()) } else { Edit::Set("baggage", left) }
}

/// Goes on with a request to the admin endpoint, which is no call and leaves no usage record.
fn administer(step: Step, verdict: &mut Verdict) -> State {
    match step {
        Step::Answer(reply) => {
            verdict.reply = Some(reply);
            State::Bypassed
        }
        Step::Read(change) => {
            // Neither token nor body is any provider's business.
            verdict.body = Some(Vec::new());
            verdict.pause = true;
            State::Administering(change)
        }
    }
}

#[cfg(test)]
mod tests;
