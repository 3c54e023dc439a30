//! A metered call: what is known of it so far, and the record that it becomes.

use super::governing::{self, Reservation};
use super::once;
use super::pricing::{self, Outcome};
use super::request::{RequestBody, RequestReader};
use super::response::Reply;
use super::{Context, Route};
use crate::api::{self, Api, Endpoint, ReplyFacts, provider};
use crate::attribution::{Attribution, Dimension, Name};
use crate::body::{Damage, Framing};
use crate::budget::Subject;
use crate::config::{Config, OnUnknownModel, UpstreamConfig};
use crate::host::Host;
use crate::http::{self, Headers};
use crate::money::{Decimal, Usd};
use crate::price::{self, Biller, Model, PriceTable, PricedBy};
use crate::record::logged::{LoggedValue, Source};
use crate::record::{Decision, EndReason, PriceStatus, Rendered, SCHEMA_VERSION, Text, UsageRecord, UsageSource};
use crate::reply::Refusal;
use crate::rewrite::include_usage;
use crate::telemetry::{Event as LogEvent, Metric};
use crate::time::rfc3339_micros;
use crate::usage::{Rule, Unit};
use crate::workload;
use std::borrow::Cow;

/// Longest id or other text taken over from a header or the host, in bytes.
const MAX_TEXT_BYTES: usize = 256;

/// The label of calls without a department in metrics.
const UNATTRIBUTED: &str = "unattributed";

/// What the host knows when everything is over.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ending<'a> {
    /// Envoy's `response.code_details`, the most telling account of how it ended.
    pub code_details: Option<&'a str>,
    /// The status the client got, where there was one.
    pub status: Option<u16>,
    /// Attempts the host made upstream.
    pub attempts: Option<u64>,
    /// The route that was taken.
    pub route: Option<&'a str>,
    /// The cluster it led to.
    pub cluster: Option<&'a str>,
    /// The values of [`super::Exchange::wants_properties`], for an exchange that has not seen the request.
    pub properties: &'a [Option<Vec<u8>>],
    /// The request's headers, for an exchange that has not seen them.
    pub request_headers: Option<&'a Headers<'a>>,
}

impl<'a> Ending<'a> {
    /// Where the request went.
    pub(super) fn route(&self) -> Route<'a> {
        Route { route: self.route, cluster: self.cluster, properties: self.properties }
    }

    /// How it ended; `response_ended` is whether the end of the response came by. A client that leaves after that
    /// has not aborted anything: SDKs close a stream when they have read its last event.
    fn reason(&self, response_ended: bool) -> EndReason {
        let Some(details) = self.code_details.filter(|details| !details.is_empty()) else {
            return if response_ended { EndReason::Complete } else { EndReason::Unknown };
        };
        let begins = |prefixes: &[&str]| prefixes.iter().any(|prefix| details.starts_with(prefix));
        if begins(&["downstream_local_disconnect"]) {
            if response_ended { EndReason::Complete } else { EndReason::GatewayClosed }
        } else if begins(&["downstream_", "http1.remote", "http2.remote", "http3.remote", "codec_error"]) {
            if response_ended { EndReason::Complete } else { EndReason::ClientAbort }
        } else if begins(&["upstream_reset", "upstream_remote_reset"]) {
            EndReason::UpstreamReset
        } else if details.contains("timeout") || details.contains("max_stream_duration") {
            EndReason::Timeout
        } else if details != "via_upstream" {
            EndReason::LocalReply
        } else if response_ended {
            EndReason::Complete
        } else {
            EndReason::Unknown
        }
    }
}

/// What is known of a call.
pub(super) struct Call {
    pub(super) id: Box<str>,
    pub(super) endpoint: Endpoint,
    pub(super) request: RequestBody,
    pub(super) reply: ReplyFacts,
    /// The status in the response's headers.
    pub(super) status: Option<u16>,
    /// How the counts are to be read, where they do not tell it themselves.
    rule: Rule,
    /// Who bills, where the configuration says so.
    provider: Option<Box<str>>,
    /// Whose host or format it is.
    home: Option<&'static str>,
    /// Where it is served.
    pub(super) region: Option<Box<str>>,
    /// What it costs, as a multiple of the price table's.
    pub(super) price_multiplier: Option<Decimal>,
    /// The request broke off before its end.
    pub(super) is_incomplete: bool,
    started_ns: u64,
    first_byte_ns: Option<u64>,
    pub(super) attribution: Attribution,
    request_id: Option<Box<str>>,
    trace_id: Option<Box<str>>,
    span_id: Option<Box<str>>,
    client_retry: Option<u64>,
    reply_framing: Option<Framing>,
    pub(super) damage: Option<Damage>,
    /// Why the filter answered in the provider's place, if it did.
    pub(super) refusal: Option<Refusal>,
    /// The client got an event it had not asked for.
    pub(super) kept_usage_event: bool,
    /// It is made by an agent that writes, as far as header and tools say.
    pub(super) writes: bool,
    /// What names its model may be changed once its body has come.
    pub(super) can_be_downgraded: bool,
    /// Its path, where that names the model and is held until the body has come.
    pub(super) held_path: Option<Box<[u8]>>,
    /// It passes as it is where it should be changed and a signature forbids it.
    pub(super) passes_signed: bool,
    /// What it holds in budgets.
    pub(super) reservation: Reservation,
    /// When its record is to be brought up to date next.
    progress_ns: u64,
    /// Its record between two lines, once it is begun.
    record: Option<Box<UsageRecord>>,
}

impl Subject for Call {
    fn value(&self, key: &str) -> Option<&str> {
        match key {
            // As asked for: a call that went elsewhere still counts where it would have.
            "model" => self.request_model(),
            "provider" => self.biller().name(),
            "workload" => Some(self.said_workload().unwrap_or(self.workload())),
            "api_key" => self.attribution.api_key.as_deref(),
            _ => self.attribution.value(key),
        }
    }
}

impl Call {
    pub(super) fn new(
        endpoint: Endpoint,
        upstream: Option<&UpstreamConfig>,
        headers: &Headers<'_>,
        attribution: Attribution,
        context: &mut Context<'_>,
    ) -> Call {
        let started_ns = context.host.now_ns();
        let request_id = headers.text("x-request-id", MAX_TEXT_BYTES);
        let trace = headers.text("traceparent", MAX_TEXT_BYTES).and_then(http::trace_parent);
        let other_id = || headers.text("x-trace-id", MAX_TEXT_BYTES).filter(|id| !id.contains(char::is_control));
        let trace_id = trace.map(|(trace, _)| trace).or_else(other_id);
        let quirk = upstream.is_some_and(|upstream| upstream.reasoning_additive);
        let host = headers.text(":authority", MAX_TEXT_BYTES).unwrap_or_default();
        let path = headers.get(":path").and_then(|path| str::from_utf8(path).ok()).unwrap_or_default();
        let (provider, region) = upstream.map(|upstream| (&upstream.provider, &upstream.region)).unzip();
        let by_model = || endpoint.model.as_deref().and_then(price::bedrock_region).map(Into::into);
        Call {
            id: context.instance.next_id(started_ns, request_id.unwrap_or_default().as_bytes()),
            rule: if quirk { Rule::ReasoningApart } else { endpoint.api.format().rule },
            provider: provider.cloned().flatten(),
            // The host is the caller's word: a hint, and no more.
            home: provider::of_host(host).or_else(|| provider::of_format(endpoint.api, path)),
            region: region.cloned().flatten().or_else(by_model).or_else(|| provider::region(host, path)),
            price_multiplier: upstream.and_then(|upstream| upstream.price_multiplier),
            is_incomplete: false,
            endpoint,
            request: RequestBody::default(),
            reply: ReplyFacts::default(),
            status: None,
            started_ns,
            first_byte_ns: None,
            attribution,
            request_id: request_id.map(Into::into),
            trace_id: trace_id.map(Into::into),
            span_id: trace.map(|(_, span)| span.into()),
            client_retry: headers.number("x-stainless-retry-count"),
            reply_framing: None,
            damage: None,
            refusal: None,
            kept_usage_event: false,
            writes: false,
            can_be_downgraded: false,
            held_path: None,
            passes_signed: upstream.is_some_and(|upstream| upstream.pass_signed) && headers.are_signed(),
            reservation: Reservation::default(),
            progress_ns: started_ns,
            record: None,
        }
    }

    /// The wire format.
    pub(super) fn api(&self) -> Api {
        self.endpoint.api
    }

    /// The model asked for: a path that names one leaves the body none to name.
    pub(super) fn request_model(&self) -> Option<&str> {
        self.endpoint.model.as_deref().or(self.request.facts.model.as_deref())
    }

    /// What becomes of it if its model has no price; under a dollar budget that refuses, what is not known must not be free.
    pub(super) fn on_unknown_model(&self, config: &Config) -> OnUnknownModel {
        config.on_unknown_model(self, &governing::late(self, config))
    }

    /// Who bills, as far as that is known.
    pub(super) fn biller(&self) -> Biller<'_> {
        match (self.provider.as_deref(), self.home) {
            (Some(provider), _) => Biller::Known(provider),
            (None, Some(home)) => Biller::Likely(home),
            (None, None) => Biller::Unknown,
        }
    }

    /// The model the provider was asked for: another than the caller's where the call was downgraded.
    pub(super) fn sent_model(&self) -> Option<&str> {
        self.reservation.downgraded_to.as_deref().or(self.request_model())
    }

    /// The price table's model called `name`.
    pub(super) fn find_model<'t>(&self, table: &'t PriceTable, name: &str) -> Option<&'t Model> {
        table.find(name, self.biller(), self.region.as_deref()).map(|(model, _)| model)
    }

    /// The model to price the call on. A deployment's name is the operator's own, and counts where the answer names no
    /// model.
    pub(super) fn priced_on<'t>(&self, table: &'t PriceTable) -> Option<(&'t Model, PricedBy)> {
        let answered = self.reply.model.as_deref();
        let asked = self.sent_model().filter(|_| !self.endpoint.is_deployment || answered.is_none());
        table.find_first(answered, asked, self.biller(), self.region.as_deref())
    }

    /// How the counts are to be read.
    pub(super) fn rule(&self) -> Rule {
        match (self.rule, self.reply.rule.unwrap_or(self.rule)) {
            // The configuration says so.
            (Rule::ReasoningApart, _) => Rule::ReasoningApart,
            (_, Rule::OpenAi) if self.reply.units.contains_key(&Unit::AudioSeconds) => Rule::SoundApart,
            (_, rule) => rule,
        }
    }

    /// Whether the request asks for a stream, as far as it was read.
    pub(super) fn asks_for_stream(&self, request: Option<&RequestReader>) -> bool {
        let facts = request.map_or(&self.request.facts, RequestReader::facts);
        facts.stream.or(self.endpoint.stream) == Some(true)
    }

    /// The response's headers came by; some formats count in them.
    pub(super) fn reply_headers(&mut self, headers: &Headers<'_>) {
        self.status = headers.number(":status");
        self.reply.usage = api::header_usage(self.api(), |name| headers.text(name, 32));
        self.reply.service_tier = headers.text(api::SERVICE_TIER_HEADER, 32).map(Into::into);
    }

    /// A piece of the response came by.
    pub(super) fn reply_chunk(&mut self, chunk: &[u8], host: &mut dyn Host) {
        if self.first_byte_ns.is_none() && !chunk.is_empty() {
            self.first_byte_ns = Some(host.now_ns());
        }
    }

    /// The response is over, or will not go on.
    pub(super) fn reply_ended(&mut self, mut reply: Reply) {
        self.damage = reply.reader.finish(&mut self.reply);
        self.reply_framing = reply.reader.framing();
        self.kept_usage_event |= reply.strip.is_some_and(|strip| strip.missed() > 0);
        if let Some(reader) = reply.request {
            self.request = reader.finish();
        }
    }

    /// Makes what is known so far the record that stays should nothing more be heard of the call.
    pub(super) fn provisional(&mut self, config: &Config, context: &mut Context<'_>) {
        let record = self.take_record(config, context);
        context.host.provisional(&record);
        self.record = Some(record);
    }

    /// Brings the record that the access log shows of a stream under way up to date, every now and then: as if the caller
    /// left now.
    pub(super) fn progress(&mut self, reply: &Reply, config: &Config, context: &mut Context<'_>) {
        let every_secs = config.access_log.progress_secs;
        let due_ns = self.progress_ns.saturating_add(every_secs.saturating_mul(1_000_000_000));
        // What has not proved to be an LLM call has no record.
        let is_guess = self.endpoint.is_guess && self.reply.usage.is_empty();
        if is_guess || every_secs == 0 || context.instance.ticked_ns < due_ns {
            return;
        }
        self.progress_ns = context.instance.ticked_ns;
        self.reply_framing = reply.reader.framing();
        let record = self.so_far(EndReason::Provisional, config, context);
        context.host.provisional(&record);
        self.expose(&record, config, context.host);
    }

    /// The record of a call whose response has come to its end, as far as is known before the host says that all is over.
    pub(super) fn whole(&mut self, config: &Config, context: &mut Context<'_>) -> UsageRecord {
        self.so_far(EndReason::Complete, config, context)
    }

    /// The record with usage and cost as they stand, should it end now and so.
    fn so_far(&mut self, end_reason: EndReason, config: &Config, context: &mut Context<'_>) -> UsageRecord {
        let kept = self.take_record(config, context);
        let mut record = (*kept).clone();
        self.record = Some(kept);
        let now_ns = context.host.now_ns();
        self.write_workload(&mut record);
        record.end_reason = end_reason;
        record.status = self.status;
        record.duration_ms = Some(millis(self.started_ns, now_ns));
        self.write_reply(&mut record, &Ending::default());
        pricing::settle(self, &mut record, config, now_ns / 1_000_000_000);
        governing::write_record(self, &mut record);
        record
    }

    /// Gives the access log the single values that the configuration names.
    fn expose(&self, record: &UsageRecord, config: &Config, host: &mut dyn Host) {
        for LoggedValue { key, source } in &config.access_log.values {
            let text = match source {
                Source::Field(field) => field.text(record),
                Source::Attribution(name) => self.value(name).map(Cow::Borrowed),
            };
            if let Some(text) = text {
                host.expose(key, &text);
            }
        }
    }

    /// Takes from the request's body what the configuration attributes calls by.
    pub(super) fn attribute_body(&mut self, config: &Config) {
        let read = std::mem::take(&mut self.request.facts.configured);
        if !read.is_empty() {
            self.attribution.read_body(&config.attribution, &read);
            // What the call is charged to is rendered when its record begins.
            self.record = None;
        }
    }

    /// Ends the call: prices it, counts it and emits its record.
    pub(super) fn close(
        mut self: Box<Call>,
        config: &Config,
        ending: &Ending<'_>,
        response_ended: bool,
        context: &mut Context<'_>,
    ) {
        if self.endpoint.is_guess && self.reply.usage.is_empty() {
            return;
        }
        let end_reason = match self.refusal {
            Some(_) => EndReason::LocalReply,
            None => ending.reason(response_ended || self.reply.done),
        };
        // A body that nobody let come to its end is cut off, not damaged.
        if end_reason != EndReason::Complete && self.damage == Some(Damage::Truncated) {
            self.damage = None;
        }
        self.attribute_body(config);
        let mut record = self.take_record(config, context);
        self.decide_workload(config);
        self.write_workload(&mut record);
        record.seq = Some(context.instance.next_seq());
        record.end_reason = end_reason;
        let status = self.status.or(ending.status);
        record.status = status.filter(|&status| status != 0);
        record.duration_ms = Some(millis(self.started_ns, context.host.now_ns()));
        record.attempts = ending.attempts;
        record.route = ending.route.map(Into::into);
        record.cluster = ending.cluster.map(Into::into);
        self.write_reply(&mut record, ending);
        let outcome = if self.is_charged_already(context.host) {
            pricing::repeat(&mut record)
        } else {
            pricing::settle(&self, &mut record, config, context.host.now_ns() / 1_000_000_000)
        };
        if record.provider.is_none() && record.priced_by.is_none() {
            record.provider = self.home.map(Into::into);
        }
        governing::write_record(&self, &mut record);
        governing::settle(&mut self, &mut record, config, context);
        self.count(&record, &outcome, context.host);
        self.report_attribution(&record, config, context);
        self.expose(&record, config, context.host);
        context.host.emit(*record);
    }

    /// Whether this is one more look at a response that was charged before: at one that was not made in the background,
    /// by the request that made it, and at one that was, by whoever saw its usage first.
    fn is_charged_already(&self, host: &mut dyn Host) -> bool {
        let Some(id) = self.reply.id.as_deref().filter(|_| !self.reply.usage.is_empty()) else { return false };
        match self.api() {
            Api::OpenaiResponses if self.reply.background => !once::claim(host, id),
            Api::OpenaiResponses => self.endpoint.is_poll,
            // Does not say whether it was made in the background: what its own request has told, a look finds claimed.
            Api::GeminiInteractions => !once::claim(host, id) && self.endpoint.is_poll,
            _ => false,
        }
    }

    /// The record with what is known from the request alone.
    fn take_record(&mut self, config: &Config, context: &Context<'_>) -> Box<UsageRecord> {
        let mut record = self.record.take().unwrap_or_else(|| self.begin_record(config, context));
        let facts = &self.request.facts;
        record.request_model = self.request_model().map(Into::into);
        record.stream = facts.stream.or(self.endpoint.stream);
        record.decision = if self.refusal.is_some() { Decision::Refused } else { Decision::Allowed };
        record.request_hash = self.request.hash.clone();
        record.prefix_hash = self.request.prefix_hash.clone();
        record.max_output_tokens = facts.max_output_tokens;
        record.message_count = facts.message_count;
        record.tool_count = facts.tool_count;
        record
    }

    /// The record as it begins: where the call comes from and what it is charged to, rendered for every line to come.
    fn begin_record(&self, config: &Config, context: &Context<'_>) -> Box<UsageRecord> {
        let format = self.api().format();
        let note = |place: &str, reason: &str| Text::from(format!("{place}: {reason}"));
        let mut record = Box::new(UsageRecord {
            schema_version: SCHEMA_VERSION,
            id: self.id.clone(),
            instance: context.instance.name().into(),
            ts: rfc3339_micros(self.started_ns).into(),
            request_id: self.request_id.clone(),
            trace_id: self.trace_id.clone(),
            span_id: self.span_id.clone(),
            gateway: context.instance.gateway().map(Into::into),
            workload: self.said_workload().map(Into::into),
            unattributed: self.attribution.missing(&config.attribution).map(Name::place).collect(),
            api_key: self.attribution.api_key.clone(),
            provider: self.provider.clone(),
            region: self.region.clone(),
            api: format.name.into(),
            operation: format.operation.into(),
            client_retry: self.client_retry,
            notes: self.attribution.dropped.iter().map(|drop| note(&drop.place, drop.reason.name())).collect(),
            ..UsageRecord::default()
        });
        // Behind the rest: measured in V8, that is quicker than among it.
        record.rendered = Rendered::new(&self.attribution).unwrap_or_default();
        record
    }

    /// Settles whether the call writes: as its caller says, else as the tools it offers do.
    pub(super) fn decide_workload(&mut self, config: &Config) {
        self.writes = self.stated_workload().unwrap_or_else(|| {
            let words = &config.workload.write_words;
            self.request.facts.tool_names.iter().any(|tool| workload::names_a_write(tool, words))
        });
    }

    /// Whether the caller says that it writes, where it says anything.
    pub(super) fn stated_workload(&self) -> Option<bool> {
        self.attribution.get(Dimension::Workload).and_then(workload::writes)
    }

    /// The workload as its caller says, in the spelling that budgets match.
    fn said_workload(&self) -> Option<&str> {
        let said = self.attribution.get(Dimension::Workload)?;
        Some(workload::writes(said).map_or(said, |writes| workload::word(writes)))
    }

    /// The workload that was decided.
    fn workload(&self) -> &'static str {
        workload::word(self.writes)
    }

    fn write_workload(&self, record: &mut UsageRecord) {
        if record.workload.is_none() {
            record.workload = Some(self.workload().into());
            record.attribution_source.insert(Dimension::Workload.name().into(), "inferred".into());
        }
    }

    /// What the response said.
    fn write_reply(&self, record: &mut UsageRecord, ending: &Ending<'_>) {
        record.response_model = self.reply.model.clone();
        record.response_id = self.reply.id.clone();
        record.service_tier = self.reply.service_tier.clone();
        record.speed = self.reply.speed.clone();
        record.inference_geo = self.reply.geo.clone();
        record.finish_reason = self.reply.finish_reason.clone();
        if self.reply_framing.is_some_and(Framing::is_stream) || self.endpoint.stream == Some(true) {
            record.stream = Some(true);
            record.ttft_ms = self.first_byte_ns.map(|first| millis(self.started_ns, first));
        }
        record.error = self.reply.error.clone().or(self.refusal.as_ref().map(|refusal| refusal.code().into()));
        if record.error.is_none() && record.end_reason != EndReason::Complete {
            record.error = ending.code_details.map(cut);
        }
        record.notes.extend(self.damage.map(|damage| damage.note().into()));
        if let Some(include_usage::Outcome::GaveUp(reason)) = self.request.include_usage {
            record.notes.push(reason.note().into());
        }
        if self.kept_usage_event {
            record.notes.push("usage_event_kept".into());
        }
    }

    /// Says what was wrong with the attribution, and what looks wrong.
    fn report_attribution(&self, record: &UsageRecord, config: &Config, context: &mut Context<'_>) {
        for (reason, count) in &self.attribution.drop_counts {
            context.host.count(Metric::DroppedValues { reason: reason.name() }, *count);
        }
        for dropped in &self.attribution.dropped {
            context.host.log_once(LogEvent::ValueDropped { place: &dropped.place, reason: dropped.reason.name() });
        }
        // Where nothing is required, a department is what finance asks for.
        let unattributed = match config.attribution.requires_something() {
            true => !record.unattributed.is_empty(),
            false => self.attribution.get(Dimension::Department).is_none(),
        };
        if unattributed {
            context.host.count(Metric::UnattributedCalls, 1);
        }
        for value in self.attribution.values().filter(|value| value.is_word) {
            let dimension = value.name.as_str();
            if let Some(first) = context.instance.spellings().see(value.name, value.text) {
                context.host.count(Metric::NearDuplicates { dimension }, 1);
                context.host.log_once(LogEvent::NearDuplicate { dimension, value: value.text, first });
            }
        }
    }

    fn count(&self, record: &UsageRecord, outcome: &Outcome, host: &mut dyn Host) {
        host.count(Metric::Calls { decision: record.decision.name(), api: &record.api }, 1);
        let department = self.attribution.get(Dimension::Department);
        match (&self.refusal, record.budget.as_deref()) {
            (Some(Refusal::Budget(refused)), Some(budget)) => {
                host.count(Metric::BudgetRefusals { budget, reason: refused.code() }, 1);
            }
            (None, Some(budget)) if record.decision == Decision::Downgraded => {
                host.count(Metric::BudgetDowngrades { budget }, 1);
            }
            _ => {}
        }
        if self.refusal == Some(Refusal::Busy) {
            host.count(Metric::BusyRefusals, 1);
        }
        for note in record.notes.iter().filter(|note| !note.contains(':')) {
            host.count(Metric::Notes { note }, 1);
        }
        if let Some(damage) = self.damage {
            host.count(Metric::DamagedReplies { reason: damage.note() }, 1);
        }
        for (class, tokens) in &outcome.tokens {
            host.count(Metric::Tokens { class: class.name() }, *tokens);
        }
        if outcome.unmetered {
            host.count(Metric::UnmeteredCalls { api: &record.api }, 1);
        }
        if record.usage_source == UsageSource::Estimated || record.price_status == Some(PriceStatus::Estimated) {
            host.count(Metric::EstimatedCalls { api: &record.api }, 1);
        }
        // As the record says: what could not be priced may have been charged its bound.
        if let Some(cost) = record.cost_picousd.map(Usd::from_pico).filter(|&cost| cost > Usd::ZERO) {
            let model = record.priced_model.as_deref().or(record.request_model.as_deref()).unwrap_or("unknown");
            host.count_cost(department.unwrap_or(UNATTRIBUTED), model, cost);
        }
        if let Some(status @ (PriceStatus::Unpriced | PriceStatus::UnknownModel)) = record.price_status {
            host.count(Metric::UnpricedCalls { status: status.name() }, 1);
            if let Some(model) = record.response_model.as_deref().or(record.request_model.as_deref()) {
                host.log_once(LogEvent::Unpriced { model, status: status.name() });
            }
        }
    }
}

fn millis(from_ns: u64, to_ns: u64) -> u64 {
    to_ns.saturating_sub(from_ns) / 1_000_000
}

fn cut(text: &str) -> Text {
    text.chars().take(MAX_TEXT_BYTES).collect::<String>().into()
}
