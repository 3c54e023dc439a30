//! A metered call: what is known of it so far, and the record that it becomes.

use super::Context;
use crate::api::{Api, ReplyFacts, ReplyField, RequestFacts};
use crate::attribution::{Attribution, Dimension};
use crate::body::{Damage, Framing, ReplyReader};
use crate::config::Config;
use crate::host::Host;
use crate::http::{self, Headers};
use crate::money::Usd;
use crate::price::{self, CostBreakdown, Model, NoPrice};
use crate::record::{
    ChargeLine, Decision, EndReason, ExactNumber, PriceStatus, SCHEMA_VERSION, Text, UsageRecord, UsageSource,
};
use crate::telemetry::{Event as LogEvent, Metric};
use crate::time::rfc3339_micros;
use crate::usage::TokenUsage;

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
    /// The request's headers, for an exchange that has not seen them.
    pub request_headers: Option<&'a Headers<'a>>,
}

impl Ending<'_> {
    /// How it ended; `response_ended` is whether the end of the response came by. A client that leaves after that
    /// has not aborted anything: SDKs close a stream when they have read its last event.
    fn reason(&self, response_ended: bool) -> EndReason {
        let Some(details) = self.code_details.filter(|details| !details.is_empty()) else {
            return if response_ended { EndReason::Complete } else { EndReason::Unknown };
        };
        let begins = |prefixes: &[&str]| prefixes.iter().any(|prefix| details.starts_with(prefix));
        if begins(&["downstream_local_disconnect"]) {
            if response_ended { EndReason::Complete } else { EndReason::GatewayClosed }
        } else if begins(&["downstream_", "http1.remote", "http2.remote", "http3.remote"]) {
            if response_ended { EndReason::Complete } else { EndReason::ClientAbort }
        } else if details.contains("timeout") || details.contains("max_stream_duration") {
            EndReason::Timeout
        } else if begins(&["upstream_reset", "upstream_remote_reset"]) {
            EndReason::UpstreamReset
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
    pub(super) api: Api,
    pub(super) request: RequestFacts,
    pub(super) reply: ReplyFacts,
    /// The status in the response's headers.
    pub(super) status: Option<u16>,
    started_ns: u64,
    first_byte_ns: Option<u64>,
    attribution: Attribution,
    request_id: Option<Box<str>>,
    trace: Option<(Box<str>, Box<str>)>,
    client_retry: Option<u64>,
    reply_framing: Option<Framing>,
    damage: Option<Damage>,
}

/// A usage and what became of its price.
struct Priced<'c> {
    usage: TokenUsage,
    model: Option<&'c Model>,
    cost: Result<CostBreakdown, NoPrice>,
}

impl Call {
    pub(super) fn new(api: Api, headers: &Headers<'_>, attribution: Attribution, context: &mut Context<'_>) -> Call {
        let started_ns = context.host.now_ns();
        let request_id = headers.text("x-request-id", MAX_TEXT_BYTES);
        let trace = headers.text("traceparent", MAX_TEXT_BYTES).and_then(http::trace_parent);
        Call {
            id: context.instance.next_id(started_ns, request_id.unwrap_or_default().as_bytes()),
            api,
            request: RequestFacts::default(),
            reply: ReplyFacts::default(),
            status: None,
            started_ns,
            first_byte_ns: None,
            attribution,
            request_id: request_id.map(Into::into),
            trace: trace.map(|(trace, span)| (trace.into(), span.into())),
            client_retry: headers.number("x-stainless-retry-count"),
            reply_framing: None,
            damage: None,
        }
    }

    /// A piece of the response came by.
    pub(super) fn reply_chunk(&mut self, chunk: &[u8], host: &mut dyn Host) {
        if self.first_byte_ns.is_none() && !chunk.is_empty() {
            self.first_byte_ns = Some(host.now_ns());
        }
    }

    /// The response is over, or will not go on.
    pub(super) fn reply_ended(&mut self, reader: &mut ReplyReader<ReplyField>) {
        self.damage = reader.finish(&mut self.reply);
        self.reply_framing = reader.framing();
    }

    /// Makes what is known so far the record that stays should nothing more be heard of the call.
    pub(super) fn provisional(&self, context: &mut Context<'_>) {
        let record = self.record(context);
        context.host.provisional(&record);
    }

    /// Ends the call: prices it, counts it and emits its record.
    pub(super) fn close(
        mut self: Box<Call>,
        config: &Config,
        ending: &Ending<'_>,
        response_ended: bool,
        context: &mut Context<'_>,
    ) {
        let end_reason = ending.reason(response_ended || self.reply.done);
        // A body that nobody let come to its end is cut off, not damaged.
        if end_reason != EndReason::Complete && self.damage == Some(Damage::Truncated) {
            self.damage = None;
        }
        let status = self.status.or(ending.status).filter(|&status| status != 0);
        let priced = self.price(config);

        let mut record = self.record(context);
        record.seq = Some(context.instance.next_seq());
        record.end_reason = end_reason;
        record.status = status;
        record.duration_ms = Some(millis(self.started_ns, context.host.now_ns()));
        record.attempts = ending.attempts;
        record.route = ending.route.map(Into::into);
        record.cluster = ending.cluster.map(Into::into);
        self.write_reply(&mut record, ending);
        match &priced {
            Some(priced) => write_price(&mut record, priced, config),
            // An error without usage is not billed, and what the gateway answered by itself was never asked.
            None if refused(end_reason, status) => {
                record.price_status = Some(PriceStatus::Free);
                record.set_cost(Usd::ZERO);
            }
            None => {}
        }
        self.count(&record, priced.as_ref(), context.host);
        context.host.emit(record);
    }

    /// The price of the usage reported; `None` where none was.
    fn price<'c>(&self, config: &'c Config) -> Option<Priced<'c>> {
        if self.reply.usage.is_empty() {
            return None;
        }
        let usage = self.reply.usage.normalise();
        let names = [&self.reply.model, &self.request.model].into_iter().flatten();
        let model = names.filter_map(|name| config.prices.find(name)).next();
        let cost = match model {
            Some(model) => price::cost(&usage, &model.rates),
            None => Err(NoPrice::UnknownModel),
        };
        Some(Priced { usage, model, cost })
    }

    /// What is known from the request alone.
    fn record(&self, context: &Context<'_>) -> UsageRecord {
        let format = self.api.format();
        let mut record = UsageRecord {
            schema_version: SCHEMA_VERSION,
            id: self.id.clone(),
            instance: context.instance.name().into(),
            ts: rfc3339_micros(self.started_ns).into(),
            request_id: self.request_id.clone(),
            trace_id: self.trace.as_ref().map(|(trace, _)| trace.clone()),
            span_id: self.trace.as_ref().map(|(_, span)| span.clone()),
            gateway: context.instance.gateway().map(Into::into),
            tags: self.attribution.tags.clone(),
            api: format.name.into(),
            operation: format.operation.into(),
            request_model: self.request.model.clone(),
            stream: self.request.stream,
            client_retry: self.client_retry,
            decision: Decision::Allowed,
            max_output_tokens: self.request.max_output_tokens,
            message_count: self.request.message_count,
            tool_count: self.request.tool_count,
            ..UsageRecord::default()
        };
        for (&dimension, value) in &self.attribution.dimensions {
            record.attribution_source.insert(dimension.name().into(), "header".into());
            *dimension_slot(&mut record, dimension) = Some(value.clone());
        }
        for name in self.attribution.tags.keys() {
            record.attribution_source.insert(format!("tags.{name}").into(), "header".into());
        }
        let note = |header: &str, reason: &str| Text::from(format!("{header}: {reason}"));
        record.notes = self.attribution.dropped.iter().map(|drop| note(&drop.header, drop.reason.name())).collect();
        record
    }

    /// What the response said.
    fn write_reply(&self, record: &mut UsageRecord, ending: &Ending<'_>) {
        record.response_model = self.reply.model.clone();
        record.response_id = self.reply.id.clone();
        record.service_tier = self.reply.service_tier.clone();
        record.finish_reason = self.reply.finish_reason.clone();
        let streamed = self.reply_framing == Some(Framing::Sse);
        if streamed {
            record.stream = Some(true);
            record.ttft_ms = self.first_byte_ns.map(|first| millis(self.started_ns, first));
        }
        record.error = self.reply.error.clone();
        if record.error.is_none() && record.end_reason != EndReason::Complete {
            record.error = ending.code_details.map(cut);
        }
        record.notes.extend(self.damage.map(|damage| damage.note().into()));
    }

    fn count(&self, record: &UsageRecord, priced: Option<&Priced<'_>>, host: &mut dyn Host) {
        host.count(Metric::Calls { decision: record.decision.name(), api: &record.api }, 1);
        let department = self.attribution.get(Dimension::Department);
        if department.is_none() {
            host.count(Metric::UnattributedCalls, 1);
        }
        if let Some(damage) = self.damage {
            host.count(Metric::DamagedReplies { reason: damage.note() }, 1);
        }
        let Some(priced) = priced else {
            if record.price_status.is_none() {
                host.count(Metric::UnmeteredCalls { api: &record.api }, 1);
            }
            return;
        };
        for (class, tokens) in priced.usage.buckets() {
            host.count(Metric::Tokens { class: class.name() }, tokens);
        }
        match &priced.cost {
            Ok(cost) => {
                let model = priced.model.map(|model| &*model.name).unwrap_or_default();
                host.count_cost(department.unwrap_or(UNATTRIBUTED), model, cost.total);
            }
            Err(_) => {
                let status = record.price_status.map(PriceStatus::name).unwrap_or_default();
                host.count(Metric::UnpricedCalls { status }, 1);
                if let Some(model) = record.response_model.as_deref().or(record.request_model.as_deref()) {
                    host.log_once(LogEvent::Unpriced { model, status });
                }
            }
        }
    }
}

/// Whether the provider did no work that it would bill: an error, or an answer of the gateway's own.
fn refused(end_reason: EndReason, status: Option<u16>) -> bool {
    match end_reason {
        EndReason::LocalReply => true,
        EndReason::Complete => status.is_some_and(|status| status >= 400),
        _ => false,
    }
}

fn write_price(record: &mut UsageRecord, priced: &Priced<'_>, config: &Config) {
    let counts = priced.usage.counts();
    record.usage_source = UsageSource::Reported;
    record.input_tokens = counts.input;
    record.cached_input_tokens = counts.cached_input;
    record.cache_creation_input_tokens = counts.cache_creation;
    record.cache_creation_1h_input_tokens = counts.cache_creation_1h;
    record.input_audio_tokens = counts.input_audio;
    record.cached_input_audio_tokens = counts.cached_input_audio;
    record.input_image_tokens = counts.input_image;
    record.input_video_tokens = counts.input_video;
    record.output_tokens = counts.output;
    record.reasoning_tokens = counts.reasoning;
    record.output_audio_tokens = counts.output_audio;
    record.output_image_tokens = counts.output_image;
    record.total_tokens = counts.total;
    if priced.usage.clamped() {
        record.notes.push("usage_clamped".into());
    }
    record.provider = priced.model.and_then(|model| model.provider.clone());
    record.priced_model = priced.model.map(|model| model.name.clone());
    record.price_version = config.prices.version().map(Into::into);
    match &priced.cost {
        Ok(cost) => {
            record.price_status = Some(PriceStatus::Priced);
            record.set_cost(cost.total);
            record.charges = charge_lines(priced.model, cost);
            if cost.saturated {
                record.notes.push("cost_saturated".into());
            }
        }
        Err(NoPrice::Unpriced) => record.price_status = Some(PriceStatus::Unpriced),
        Err(NoPrice::UnknownModel) => record.price_status = Some(PriceStatus::UnknownModel),
    }
}

fn charge_lines(model: Option<&Model>, cost: &CostBreakdown) -> Vec<ChargeLine> {
    let model: Text = model.map(|model| model.name.clone()).unwrap_or_default();
    let line = |charge: &price::Charge| ChargeLine {
        model: model.clone(),
        class: charge.class.name().into(),
        quantity: charge.quantity,
        unit: "tokens".into(),
        rate_usd: ExactNumber::new(&charge.rate.usd),
        per: charge.rate.per.count(),
        cost_picousd: charge.cost.pico(),
    };
    cost.charges.iter().map(line).collect()
}

fn dimension_slot(record: &mut UsageRecord, dimension: Dimension) -> &mut Option<Text> {
    match dimension {
        Dimension::Feature => &mut record.feature,
        Dimension::Department => &mut record.department,
        Dimension::Team => &mut record.team,
        Dimension::User => &mut record.user,
        Dimension::Session => &mut record.session,
        Dimension::RunId => &mut record.run_id,
        Dimension::ParentRunId => &mut record.parent_run_id,
        Dimension::McpServer => &mut record.mcp_server,
        Dimension::AgentHandoff => &mut record.agent_handoff,
        Dimension::Workload => &mut record.workload,
        Dimension::Project => &mut record.project,
        Dimension::Outcome => &mut record.outcome,
        Dimension::GlAccount => &mut record.gl_account,
        Dimension::CostCentre => &mut record.cost_centre,
        Dimension::BusinessUnit => &mut record.business_unit,
        Dimension::Environment => &mut record.environment,
    }
}

fn millis(from_ns: u64, to_ns: u64) -> u64 {
    to_ns.saturating_sub(from_ns) / 1_000_000
}

fn cut(text: &str) -> Text {
    text.chars().take(MAX_TEXT_BYTES).collect::<String>().into()
}
