//! Requests whose headers wait for the end of their bodies.
//!
//! The host keeps the body meanwhile, and shows the provider nothing: a refused call leaves no trace there, and what the
//! body says can still change path and headers. Here is only a copy, and only where something may have to be changed.
//! A host that can't hold shows no body while it seems to; then [`Exchange::release`] lets the headers go, and the call is
//! governed as one that was never held.

use super::call::Call;
use super::request::{Plan, RequestReader};
use super::{Context, Edit, Exchange, Route, Verdict, governing};
use crate::api;
use crate::body::ContentEncoding;
use crate::budget::Budget;
use crate::http::Headers;
use crate::reply::Refusal;
use crate::rewrite::include_usage::{Injector, Outcome};
use crate::telemetry::{Event as LogEvent, Metric};

/// What is kept of a body that the host holds.
pub(super) struct Held {
    pub(super) plan: Plan,
    copy: Option<Vec<u8>>,
}

/// All of a body.
pub(super) struct Whole {
    pub(super) bytes: Vec<u8>,
    /// It is another than came.
    is_changed: bool,
}

impl Held {
    pub(super) fn new(plan: Plan) -> Held {
        Held { plan, copy: (plan.inject || plan.rewrite).then(Vec::new) }
    }

    /// Takes the next bytes.
    pub(super) fn keep(&mut self, bytes: &[u8]) {
        if let Some(copy) = &mut self.copy {
            copy.extend_from_slice(bytes);
        }
    }

    /// Keeps nothing of it any more.
    pub(super) fn forget(&mut self) {
        self.copy = None;
    }

    /// All that was kept.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.copy.unwrap_or_default()
    }

    /// All of it, asked for its usage by `injector`.
    pub(super) fn finish(self, injector: Option<&mut Injector>) -> Option<Whole> {
        let bytes = self.copy?;
        let edited = injector.and_then(|injector| injector.feed(&bytes, true)).filter(|edited| *edited != bytes);
        let is_changed = edited.is_some();
        Some(Whole { bytes: edited.unwrap_or(bytes), is_changed })
    }
}

impl Exchange {
    /// Whether to ask for usage in the caller's place: the format needs it, the provider takes it, and nothing about
    /// the request says that its body must stay as it is.
    pub(super) fn injects(&self, call: &Call, route: Route<'_>, headers: &Headers<'_>) -> bool {
        let host = headers.text(":authority", 256);
        let upstream = self.config.upstream(route, host).and_then(|upstream| upstream.inject_include_usage);
        let refused = || api::refuses_include_usage(host, headers.get(":path").unwrap_or_default());
        let wanted = upstream.unwrap_or_else(|| self.config.metering.inject_include_usage && !refused());
        // Held bytes could not follow the body into its trailers.
        wanted
            && call.api().format().include_usage
            && ContentEncoding::of(headers.get("content-encoding")) == ContentEncoding::Identity
            && !headers.fix_body()
            && headers.get("trailer").is_none()
    }

    /// Whether the request's headers are held until its body has come.
    pub(super) fn holds(&self, plan: Plan, announced_bytes: u64, context: &Context<'_>) -> bool {
        let metering = &self.config.metering;
        // What is only asked for its usage passes unheld where it is too long, or where what a rule has to see will need the
        // room; that is refused then.
        let fits = || {
            let wanted = context.instance.withheld.bytes().saturating_add(announced_bytes);
            announced_bytes <= metering.max_request_bytes && wanted <= metering.max_withheld_bytes / 2
        };
        metering.hold_request_headers && (plan.withhold || (plan.inject && fits()))
    }

    /// The edits of headers that go on before their body has come.
    pub(super) fn edit_early(&self, call: &Call, inject: bool, verdict: &mut Verdict) {
        if inject {
            // The length changes, and a compressed answer could not be taken apart.
            verdict.edits.push(Edit::Remove("content-length".into()));
            verdict.edits.push(Edit::Set("accept-encoding", "identity".into()));
        }
        let may_be_replaced = call.can_be_downgraded && call.endpoint.model.is_none();
        if may_be_replaced && self.config.budgets.iter().any(Budget::downgrades) {
            // The name of another model has another length.
            verdict.edits.push(Edit::Remove("content-length".into()));
        }
    }

    /// Goes on holding a request of which a piece has come, unless that is not worth its room.
    pub(super) fn keep_holding(
        &self,
        call: &Call,
        reader: &mut RequestReader,
        context: &Context<'_>,
        verdict: &mut Verdict,
    ) {
        if !reader.is_held() {
            return;
        }
        let metering = &self.config.metering;
        let withheld = context.instance.withheld.bytes();
        let room = if reader.withholds() { metering.max_withheld_bytes } else { metering.max_withheld_bytes / 2 };
        if reader.bytes() > metering.max_request_bytes || withheld > room {
            // What had to be judged first was refused: this one is only asked for its usage.
            self.edit_early(call, true, verdict);
            verdict.body = reader.release();
        } else {
            verdict.pause = true;
        }
    }

    /// Lets go the headers of a request whose host can't hold them.
    pub(super) fn release(
        &self,
        call: &mut Call,
        reader: &mut RequestReader,
        headers: &Headers<'_>,
        context: &mut Context<'_>,
        verdict: &mut Verdict,
    ) {
        context.host.count(Metric::ReleasedHolds, 1);
        context.host.log_once(LogEvent::HoldReleased);
        call.held_path = None;
        self.edit_early(call, reader.injects_later(), verdict);
        governing::downgrade_path(call, headers, &self.config, context, verdict);
        verdict.body = reader.release();
    }

    /// Sends on a request that was held, with what had to be changed of it.
    pub(super) fn send_held(call: &mut Call, whole: Option<Whole>, in_trailers: bool, verdict: &mut Verdict) {
        if let Some(path) = call.reservation.path.take() {
            verdict.edits.push(Edit::Set(":path", path));
        }
        if call.request.include_usage == Some(Outcome::Injected) {
            // A compressed answer could not be taken apart.
            verdict.edits.push(Edit::Set("accept-encoding", "identity".into()));
        }
        let asked = whole.filter(|whole| whole.is_changed).map(|whole| whole.bytes);
        verdict.body = call.reservation.rewritten.take().or(asked);
        if let Some(body) = &verdict.body {
            // A body with trailers is sent in chunks.
            verdict.edits.push(match in_trailers {
                true => Edit::Remove("content-length".into()),
                false => Edit::Set("content-length", body.len().to_string()),
            });
        }
    }

    /// The refusal of a request that there is no room to hold back, `more` bytes of which are still to come.
    pub(super) fn busy(&self, withholds: bool, more: u64, context: &mut Context<'_>) -> Option<Refusal> {
        let max_withheld_bytes = self.config.metering.max_withheld_bytes;
        let wanted = context.instance.withheld.bytes().saturating_add(more);
        (withholds && wanted > max_withheld_bytes).then(|| {
            context.host.log_once(LogEvent::Busy { max_withheld_bytes });
            Refusal::Busy
        })
    }
}
