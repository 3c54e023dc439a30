//! Every metric and every log event, by name: nothing else in the project spells one.
//!
//! Envoy's counters have no labels of their own. A [`Metric`] becomes one stat whose labels stand in its name as
//! `.<label>.<value>` pairs, which the shipped bootstrap's `stats_tags` turn into Prometheus labels. Stats never
//! expire, so the number of values per label is capped by [`LabelCap`]; the rest fold into `other`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// The host call that answers in the provider's place.
const LOCAL_REPLY: &str = "proxy_send_local_response";

/// A counter and its labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric<'a> {
    /// LLM calls by what was decided about them.
    Calls {
        /// `allowed`, `downgraded`, `refused`.
        decision: &'a str,
        /// Wire format.
        api: &'a str,
    },
    /// Tokens by class.
    Tokens {
        /// A name of [`crate::usage::Class`].
        class: &'a str,
    },
    /// Cost in nano-dollars.
    CostUsdNanos {
        /// The department charged, or `unattributed`.
        department: &'a str,
        /// The model as priced, or as asked for where an estimate was charged without a price; else `unknown`.
        model: &'a str,
    },
    /// Calls without a dimension that is required, or without a department.
    UnattributedCalls,
    /// Values that differ from one seen before only in case and punctuation.
    NearDuplicates {
        /// The dimension.
        dimension: &'a str,
    },
    /// Calls with usage and without a price.
    UnpricedCalls {
        /// `unpriced` or `unknown_model`.
        status: &'a str,
    },
    /// Calls that should have had usage and reported none.
    UnmeteredCalls {
        /// Wire format.
        api: &'a str,
    },
    /// Calls whose usage or price is an estimate.
    EstimatedCalls {
        /// Wire format.
        api: &'a str,
    },
    /// Attribution values that were dropped.
    DroppedValues {
        /// Why: a name of [`crate::attribution::DropReason`].
        reason: &'a str,
    },
    /// Records handed over to the collector, or lost on the way to it.
    Records {
        /// `sent`, `retried`, `dropped_queue_full`, `dropped_queue_busy`, `dropped_rejected`, `dropped_too_large`,
        /// `dropped_attempts`.
        result: &'a str,
    },
    /// Host calls that failed.
    HostErrors {
        /// The ABI's name of the call.
        call: &'a str,
    },
    /// Notes in records, but for those about headers.
    Notes {
        /// The note.
        note: &'a str,
    },
    /// Calls that a budget refused.
    BudgetRefusals {
        /// The budget.
        budget: &'a str,
        /// The refusal's code.
        reason: &'a str,
    },
    /// Calls that a budget sent to a cheaper model.
    BudgetDowngrades {
        /// The budget.
        budget: &'a str,
    },
    /// Calls that were refused since the VM held back too much already.
    BusyRefusals,
    /// Requests and answers whose headers went on before their body had come, since they were held in vain.
    ReleasedHolds,
    /// Thresholds that budgets reached.
    BudgetAlerts {
        /// The budget.
        budget: &'a str,
        /// Percent of its limit.
        threshold: &'a str,
    },
    /// Response bodies that could not be read to their end.
    DamagedReplies {
        /// A note of [`crate::body::Damage`].
        reason: &'a str,
    },
}

impl Metric<'_> {
    /// Prefix of every stat.
    const PREFIX: &'static str = "tollgate_";

    /// Name without prefix, and labels; the last label's value may contain dots.
    fn parts(&self) -> (&'static str, [Option<(&'static str, &str)>; 2]) {
        match *self {
            Metric::Calls { decision, api } => ("calls_total", [Some(("decision", decision)), Some(("api", api))]),
            Metric::Tokens { class } => ("tokens_total", [Some(("class", class)), None]),
            Metric::CostUsdNanos { department, model } => {
                ("cost_usd_nanos_total", [Some(("department", department)), Some(("model", model))])
            }
            Metric::UnattributedCalls => ("unattributed_calls_total", [None, None]),
            Metric::NearDuplicates { dimension } => ("near_duplicates_total", [Some(("dimension", dimension)), None]),
            Metric::UnpricedCalls { status } => ("unpriced_calls_total", [Some(("status", status)), None]),
            Metric::UnmeteredCalls { api } => ("unmetered_calls_total", [Some(("api", api)), None]),
            Metric::EstimatedCalls { api } => ("estimated_calls_total", [Some(("api", api)), None]),
            Metric::DroppedValues { reason } => ("dropped_values_total", [Some(("reason", reason)), None]),
            Metric::Records { result } => ("records_total", [Some(("result", result)), None]),
            Metric::HostErrors { call } => ("host_errors_total", [Some(("call", call)), None]),
            Metric::Notes { note } => ("notes_total", [Some(("note", note)), None]),
            Metric::BudgetRefusals { budget, reason } => {
                ("budget_refusals_total", [Some(("reason", reason)), Some(("budget", budget))])
            }
            Metric::BudgetDowngrades { budget } => ("budget_downgrades_total", [Some(("budget", budget)), None]),
            Metric::BusyRefusals => ("busy_refusals_total", [None, None]),
            Metric::ReleasedHolds => ("released_holds_total", [None, None]),
            Metric::BudgetAlerts { budget, threshold } => {
                ("budget_alerts_total", [Some(("threshold", threshold)), Some(("budget", budget))])
            }
            Metric::DamagedReplies { reason } => ("damaged_replies_total", [Some(("reason", reason)), None]),
        }
    }

    /// The stat's name, label values capped by `cap`.
    pub fn stat_name(&self, cap: &mut LabelCap) -> String {
        let (name, labels) = self.parts();
        let mut stat = format!("{}{name}", Metric::PREFIX);
        let last = labels.iter().flatten().count();
        for (index, (label, value)) in labels.into_iter().flatten().enumerate() {
            let value = cap.admit(label, value);
            stat.push('.');
            stat.push_str(label);
            stat.push('.');
            if index + 1 == last {
                stat.push_str(value);
            } else {
                // A dot would end the value too early for the tag's pattern.
                stat.extend(value.chars().map(|c| if c == '.' { '_' } else { c }));
            }
        }
        stat
    }
}

/// Bounds the number of values each label may take in this VM.
#[derive(Debug, Default)]
pub struct LabelCap {
    seen: BTreeMap<&'static str, BTreeSet<Box<str>>>,
}

impl LabelCap {
    /// Values a label may take; those that come later count as `other`.
    pub const MAX_VALUES: usize = 100;
    /// What later values fold into.
    pub const OTHER: &'static str = "other";
    /// Longest value, in bytes.
    const MAX_VALUE_BYTES: usize = 64;

    fn admit<'v>(&mut self, label: &'static str, value: &'v str) -> &'v str {
        let seen = self.seen.entry(label).or_default();
        if seen.contains(value) {
            return value;
        }
        if value.len() > LabelCap::MAX_VALUE_BYTES || seen.len() >= LabelCap::MAX_VALUES {
            return LabelCap::OTHER;
        }
        seen.insert(value.into());
        value
    }
}

/// Lets each log line through once, and no more than [`LogGate::MAX_LINES`] of a kind in the life of a VM: what callers
/// send must neither fill the log nor keep other kinds out of it.
#[derive(Debug, Default)]
pub struct LogGate {
    seen: BTreeMap<&'static str, BTreeSet<Box<str>>>,
}

impl LogGate {
    /// Different lines of one kind that a VM may write.
    pub const MAX_LINES: usize = 50;

    /// Whether to write `event`.
    pub fn admit(&mut self, event: &Event<'_>) -> bool {
        if matches!(event, Event::BudgetAlert { .. } | Event::AdminChange { .. } | Event::NearDuplicate { .. }) {
            // The ledger, and the spellings that were seen, have seen to it that there is one of each.
            return true;
        }
        let (kind, detail) = event.key();
        let seen = self.seen.entry(kind).or_default();
        seen.len() < LogGate::MAX_LINES && seen.insert(detail.into())
    }
}

/// Something worth a log line, once per VM and kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A host call failed.
    HostCallFailed {
        /// The ABI's name of the call.
        call: &'a str,
        /// The status it returned.
        status: u32,
    },
    /// An attribution value was dropped.
    ValueDropped {
        /// Where it stood: a header, `body metadata.team`.
        place: &'a str,
        /// A name of [`crate::attribution::DropReason`].
        reason: &'a str,
    },
    /// A value differs from one seen before only in case and punctuation.
    NearDuplicate {
        /// The dimension.
        dimension: &'a str,
        /// The value.
        value: &'a str,
        /// The one that was first.
        first: &'a str,
    },
    /// A call has usage and no price.
    Unpriced {
        /// The model as answered or asked.
        model: &'a str,
        /// `unpriced` or `unknown_model`.
        status: &'a str,
    },
    /// The collector did not take a batch.
    CollectorFailed {
        /// Its cluster.
        cluster: &'a str,
        /// What happened.
        detail: &'a str,
    },
    /// Records were given up since the collector refused them.
    RecordsRejected {
        /// Its cluster.
        cluster: &'a str,
        /// How many.
        records: usize,
        /// What it answered.
        status: u16,
        /// The beginning of the answer's body.
        answer: &'a str,
    },
    /// The queue is full.
    QueueFull {
        /// Its bound.
        max_queue_bytes: usize,
    },
    /// A budget reached a threshold.
    BudgetAlert {
        /// Budget, scope, threshold and window.
        detail: &'a str,
    },
    /// What a call cost found no room in the ledger, after its record was written.
    SpendUncounted {
        /// Budget and scope.
        scope: &'a str,
    },
    /// Somebody changed a scope of a budget.
    AdminChange {
        /// What, where and why.
        detail: &'a str,
    },
    /// The VM holds back as much of requests as it may.
    Busy {
        /// Its bound.
        max_withheld_bytes: u64,
    },
    /// Headers were held and their body did not come.
    HoldReleased,
    /// A record could not be put into JSON.
    RecordUnwritable {
        /// The serialiser's message.
        detail: &'a str,
    },
}

impl Event<'_> {
    /// Which line this is; a VM writes each once. Host calls count one by one.
    pub fn key(&self) -> (&'static str, &str) {
        match *self {
            Event::HostCallFailed { call, .. } => ("host_call_failed", call),
            Event::ValueDropped { reason, .. } => ("value_dropped", reason),
            Event::NearDuplicate { value, .. } => ("near_duplicate", value),
            Event::Unpriced { model, .. } => ("unpriced", model),
            Event::CollectorFailed { detail, .. } => ("collector_failed", detail),
            Event::RecordsRejected { answer, .. } => ("records_rejected", answer),
            Event::QueueFull { .. } => ("queue_full", ""),
            Event::BudgetAlert { detail } => ("budget_alert", detail),
            Event::SpendUncounted { scope } => ("spend_uncounted", scope),
            Event::AdminChange { detail } => ("admin_change", detail),
            Event::Busy { .. } => ("busy", ""),
            Event::HoldReleased => ("hold_released", ""),
            Event::RecordUnwritable { .. } => ("record_unwritable", ""),
        }
    }
}

impl fmt::Display for Event<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::HostCallFailed { call, status } => {
                // An answer in the provider's place that can't be sent must not let the request through.
                let then = if *call == LOCAL_REPLY { "the request is cut off" } else { "the call passes" };
                write!(f, "host call {call} failed with status {status}; {then}, see tollgate_host_errors_total")
            }
            Event::ValueDropped { place, reason } => {
                write!(
                    f,
                    "a value of {place} was dropped ({reason}); see the record's notes and tollgate_dropped_values_total"
                )
            }
            Event::NearDuplicate { dimension, value, first } => {
                write!(
                    f,
                    "{dimension} {value:?} is nearly {first:?}, which was first: they are charged apart; see attribution.normalise"
                )
            }
            Event::Unpriced { model, status } => {
                write!(
                    f,
                    "model {model:?} has no price in the price table; its calls are recorded with price_status {status}"
                )
            }
            Event::CollectorFailed { cluster, detail } => {
                write!(
                    f,
                    "collector cluster {cluster:?} did not take a batch: {detail}; the access log has every record"
                )
            }
            Event::RecordsRejected { cluster, records, status, answer } => {
                write!(
                    f,
                    "collector cluster {cluster:?} refuses records for good: {records} dropped after status {status} {answer:?}; the access log has every record"
                )
            }
            Event::QueueFull { max_queue_bytes } => {
                write!(
                    f,
                    "the record queue is full at {max_queue_bytes} bytes; the oldest records are dropped, the access log has them"
                )
            }
            Event::BudgetAlert { detail } => write!(f, "budget alert: {detail}"),
            Event::SpendUncounted { scope } => {
                write!(
                    f,
                    "{scope} found no room in the ledger for what a call cost, and does not count it; its record has it, see ledger.max_bytes"
                )
            }
            Event::AdminChange { detail } => write!(f, "budget changed: {detail}"),
            Event::Busy { max_withheld_bytes } => {
                write!(
                    f,
                    "the bodies of requests that are held back would be more than {max_withheld_bytes} bytes; calls are refused until there is room, see metering.max_withheld_bytes"
                )
            }
            Event::HoldReleased => f.write_str(
                "headers were held for metering.hold_request_headers or metering.cost_headers, and nothing of the body came within two seconds; it goes on as if that were false: is allow_on_headers_stop_iteration: true missing in the filter's plugin configuration?",
            ),
            Event::RecordUnwritable { detail } => write!(f, "a usage record could not be written: {detail}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn labels_stand_in_the_stat_name_and_only_the_last_keeps_its_dots() {
        let mut cap = LabelCap::default();
        let metric = Metric::CostUsdNanos { department: "r.and.d", model: "gpt-4.1" };
        assert_eq!(metric.stat_name(&mut cap), "tollgate_cost_usd_nanos_total.department.r_and_d.model.gpt-4.1");
        assert_eq!(Metric::UnattributedCalls.stat_name(&mut cap), "tollgate_unattributed_calls_total");
    }

    #[test]
    fn the_values_of_a_label_are_capped_and_the_rest_fold_into_other() {
        let mut cap = LabelCap::default();
        for n in 0..LabelCap::MAX_VALUES {
            let model = format!("m{n}");
            assert!(Metric::Tokens { class: &model }.stat_name(&mut cap).ends_with(&model));
        }
        assert!(Metric::Tokens { class: "one-too-many" }.stat_name(&mut cap).ends_with(".other"));
        assert!(Metric::Tokens { class: "m0" }.stat_name(&mut cap).ends_with(".m0"), "known values stay");
        assert!(Metric::HostErrors { call: "x" }.stat_name(&mut cap).ends_with(".x"), "labels do not share a cap");
        let long = "x".repeat(65);
        assert!(Metric::HostErrors { call: &long }.stat_name(&mut cap).ends_with(".other"));
    }

    #[test]
    fn a_line_is_written_once_and_callers_cannot_fill_the_log() {
        let mut gate = LogGate::default();
        let first = Event::HostCallFailed { call: "proxy_get_property", status: 2 };
        let again = Event::HostCallFailed { call: "proxy_get_property", status: 10 };
        assert!(gate.admit(&first) && !gate.admit(&again));
        let written =
            (0..10_000).filter(|n| gate.admit(&Event::Unpriced { model: &n.to_string(), status: "" })).count();
        assert_eq!(written, LogGate::MAX_LINES);
        assert!(gate.admit(&Event::QueueFull { max_queue_bytes: 1 }), "other kinds still get through");
    }
}
