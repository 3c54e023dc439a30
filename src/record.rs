//! The usage record: one JSON object per call, the only schema shared with the `tollgate` command.
//!
//! An absent field is unknown or does not apply; it is left out, never `""` or `0`. `cost_picousd` is the
//! authoritative amount and `cost_usd` the same as an exact decimal. Readers ignore fields they do not know.

pub mod budget;
mod line;
pub mod logged;

pub use line::Rendered;

use crate::api::Api;
use crate::attribution::Dimension;
use crate::money::Usd;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;

/// The version of the schema, in every record.
pub const SCHEMA_VERSION: u32 = 1;

/// A short text of a record.
pub type Text = Box<str>;

/// Adds a note to others, once.
pub fn note(notes: &mut Vec<Text>, note: &str) {
    if !notes.iter().any(|other| **other == *note) {
        notes.push(note.into());
    }
}

/// One call. Fields stand in the order in which they are written. Those from `feature` to `attribution_source` are for
/// who reads a record: who writes one has them in `rendered`, but for sources that come later.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)] // the names are the contract; docs/records.md explains each
pub struct UsageRecord {
    pub schema_version: u32,
    #[serde(rename = "type")]
    pub record_type: RecordType,
    pub id: Text,
    pub instance: Text,
    /// Consecutive per instance, from 1; absent in a provisional record.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
    pub ts: Text,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttft_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub span_id: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster: Option<Text>,
    /// Stands before the rest of the attribution, since it is the one dimension that is found out later.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workload: Option<Rc<str>>,

    #[serde(skip_serializing_if = "Option::is_none")]
    pub feature: Option<Rc<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub department: Option<Rc<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub team: Option<Rc<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<Rc<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<Rc<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_id: Option<Rc<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent_run_id: Option<Rc<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mcp_server: Option<Rc<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_handoff: Option<Rc<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub project: Option<Rc<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Rc<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gl_account: Option<Rc<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost_centre: Option<Rc<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub business_unit: Option<Rc<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub environment: Option<Rc<str>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<Rc<str>, Rc<str>>,
    #[serde(skip_serializing_if = "Sources::is_empty")]
    pub attribution_source: Sources,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unattributed: Vec<Cow<'static, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_key: Option<Text>,

    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider: Option<Text>,
    pub api: Text,
    pub operation: Text,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_model: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_model: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priced_model: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priced_by: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_id: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_tier: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub speed: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inference_geo: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finish_reason: Option<Text>,
    pub end_reason: EndReason,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_retry: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Text>,

    pub decision: Decision,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub would_decide: Option<Decision>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub downgraded_from: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub avoided_cost_usd: Option<ExactNumber>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub estimated_cost_usd: Option<ExactNumber>,

    #[serde(skip_serializing_if = "Option::is_none")]
    pub input_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cached_input_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_creation_input_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_creation_1h_input_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input_audio_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cached_input_audio_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input_image_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input_video_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_audio_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_image_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_video_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_tokens: Option<u64>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub units: BTreeMap<Text, ExactNumber>,
    pub usage_source: UsageSource,

    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost_picousd: Option<i128>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost_usd: Option<ExactNumber>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub charges: Vec<ChargeLine>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider_cost_usd: Option<ExactNumber>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub price_status: Option<PriceStatus>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub price_version: Option<Text>,

    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_hash: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix_hash: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_output_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_count: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_count: Option<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<Text>,
    /// What the call is charged to, in a record that is being written.
    #[serde(skip)]
    pub rendered: Rendered,
}

impl UsageRecord {
    /// Sets the cost and its decimal together.
    pub fn set_cost(&mut self, cost: Usd) {
        self.cost_picousd = Some(cost.pico());
        self.cost_usd = Some(ExactNumber::new(&cost));
    }

    /// Whether it costs nothing although it has no cost: it is free, or nobody knows that it was an LLM call at all.
    pub fn costs_nothing(&self) -> bool {
        let is_unmetered = self.usage_source == UsageSource::None && *self.api == *Api::Unrecognised.format().name;
        self.price_status == Some(PriceStatus::Free) || is_unmetered
    }

    /// Its tokens as budgets count them; `None` where nobody knows them and what was held stays.
    pub fn counted_tokens(&self) -> Option<u64> {
        let counted = [self.input_tokens, self.output_tokens].into_iter().flatten().reduce(u64::saturating_add);
        counted.or(self.costs_nothing().then_some(0))
    }

    /// The value of a dimension.
    pub fn dimension_mut(&mut self, dimension: Dimension) -> &mut Option<Rc<str>> {
        match dimension {
            Dimension::Feature => &mut self.feature,
            Dimension::Department => &mut self.department,
            Dimension::Team => &mut self.team,
            Dimension::User => &mut self.user,
            Dimension::Session => &mut self.session,
            Dimension::RunId => &mut self.run_id,
            Dimension::ParentRunId => &mut self.parent_run_id,
            Dimension::McpServer => &mut self.mcp_server,
            Dimension::AgentHandoff => &mut self.agent_handoff,
            Dimension::Workload => &mut self.workload,
            Dimension::Project => &mut self.project,
            Dimension::Outcome => &mut self.outcome,
            Dimension::GlAccount => &mut self.gl_account,
            Dimension::CostCentre => &mut self.cost_centre,
            Dimension::BusinessUnit => &mut self.business_unit,
            Dimension::Environment => &mut self.environment,
        }
    }
}

/// Where each value of a dimension came from: a JSON object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources(Vec<(Cow<'static, str>, Cow<'static, str>)>);

impl Sources {
    /// Adds an entry; no place has two.
    pub fn insert(&mut self, place: Cow<'static, str>, source: Cow<'static, str>) {
        self.0.push((place, source));
    }

    /// The source of what stands at `place`.
    pub fn get(&self, place: &str) -> Option<&Cow<'static, str>> {
        self.0.iter().find(|(own, _)| own == place).map(|(_, source)| source)
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Serialize for Sources {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(place, source)| (place, source)))
    }
}

impl<'de> Deserialize<'de> for Sources {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Sources, D::Error> {
        let map = BTreeMap::<Cow<'static, str>, Cow<'static, str>>::deserialize(deserializer)?;
        Ok(Sources(map.into_iter().collect()))
    }
}

/// One disjoint line of a cost; all lines of a record sum to `cost_picousd`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ChargeLine {
    /// The model whose rate applied.
    pub model: Text,
    /// What was counted, a name of [`crate::usage::Class`] or [`crate::usage::Unit`].
    pub class: Text,
    /// How much of it.
    pub quantity: ExactNumber,
    /// What one of it is: `tokens`, `requests`, `seconds`.
    pub unit: Text,
    /// Dollars per `per` units.
    pub rate_usd: ExactNumber,
    /// How many units the rate is for.
    pub per: u32,
    /// What multiplies the rate, where something does: a service tier, a region, a discount.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub multiplier: Option<ExactNumber>,
    /// Quantity times rate times multiplier, rounded half to even.
    pub cost_picousd: i128,
}

/// What kind of line it is in the stream of records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecordType {
    /// One LLM call.
    #[default]
    Usage,
    /// A budget reached a threshold.
    BudgetAlert,
    /// How a scope of a budget stands.
    BudgetSnapshot,
    /// Somebody changed a scope of a budget.
    Admin,
}

/// How the exchange ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    /// The response came to its end.
    Complete,
    /// The client went away first.
    ClientAbort,
    /// The gateway closed the connection: it shuts down, or drains a configuration.
    GatewayClosed,
    /// The upstream connection failed or was reset.
    UpstreamReset,
    /// A timeout of the gateway ended it.
    Timeout,
    /// The gateway answered by itself: no route, a filter's refusal, no healthy upstream.
    LocalReply,
    /// Nobody said: the end of the response never came by, and the host gave no account of it.
    Unknown,
    /// It has not ended: this record is what stays if the VM does not live to see the end.
    #[default]
    Provisional,
}

/// What was decided about the call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// It passed as asked.
    #[default]
    Allowed,
    /// It went to a cheaper model.
    Downgraded,
    /// The filter answered in the provider's place.
    Refused,
}

impl Decision {
    /// The name in metrics, the same as in records.
    pub const fn name(self) -> &'static str {
        match self {
            Decision::Allowed => "allowed",
            Decision::Downgraded => "downgraded",
            Decision::Refused => "refused",
        }
    }
}

/// Where the token counts come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UsageSource {
    /// From the provider.
    Reported,
    /// From the length of what was sent and what came back.
    Estimated,
    /// There are none.
    #[default]
    None,
}

impl UsageSource {
    /// The name in access logs, the same as in records.
    pub const fn name(self) -> &'static str {
        match self {
            UsageSource::Reported => "reported",
            UsageSource::Estimated => "estimated",
            UsageSource::None => "none",
        }
    }
}

/// What became of the price.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PriceStatus {
    /// Every token was priced.
    Priced,
    /// Every token was priced, and the tokens are estimated.
    Estimated,
    /// Nothing to pay: the call was refused or never reached a provider.
    Free,
    /// The model is in the table without the rates this call needs.
    Unpriced,
    /// The model is not in the table.
    UnknownModel,
}

impl PriceStatus {
    /// The name in metrics, the same as in records.
    pub const fn name(self) -> &'static str {
        match self {
            PriceStatus::Priced => "priced",
            PriceStatus::Estimated => "estimated",
            PriceStatus::Free => "free",
            PriceStatus::Unpriced => "unpriced",
            PriceStatus::UnknownModel => "unknown_model",
        }
    }
}

/// A decimal that is written as a JSON number, digit for digit, and never passes through a float.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExactNumber(Text);

impl ExactNumber {
    /// The number that `value` shows itself as; anything that is no plain decimal becomes 0.
    pub fn new(value: &impl fmt::Display) -> ExactNumber {
        ExactNumber(value.to_string().into())
    }

    /// Its digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for ExactNumber {
    fn default() -> ExactNumber {
        ExactNumber("0".into())
    }
}

impl Serialize for ExactNumber {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let raw: Result<&RawValue, _> = serde_json::from_str(&self.0);
        raw.map_err(serde::ser::Error::custom)?.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for ExactNumber {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ExactNumber, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        Ok(ExactNumber(raw.get().into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn full() -> UsageRecord {
        let mut record = UsageRecord {
            schema_version: SCHEMA_VERSION,
            id: "0199".into(),
            seq: Some(7),
            department: Some("sales".into()),
            input_tokens: Some(0),
            price_status: Some(PriceStatus::Priced),
            charges: vec![ChargeLine {
                class: "input".into(),
                rate_usd: ExactNumber::new(&"2.5"),
                cost_picousd: 1,
                ..ChargeLine::default()
            }],
            ..UsageRecord::default()
        };
        record.set_cost(Usd::from_pico(i128::from(u64::MAX)));
        record
    }

    #[test]
    fn what_is_written_reads_back_the_same() {
        let line = full().to_json().unwrap();
        let read: UsageRecord = serde_json::from_slice(&line).unwrap();
        assert_eq!(read, full());
    }

    #[test]
    fn unknown_is_left_out_and_a_known_zero_is_not() {
        let line = String::from_utf8(full().to_json().unwrap()).unwrap();
        assert!(line.contains(r#""input_tokens":0"#), "{line}");
        for absent in ["output_tokens", "team", "tags", "notes", "null", "\"\"\"", "ttft_ms"] {
            assert!(!line.contains(absent), "{absent} in {line}");
        }
    }

    #[test]
    fn a_cost_is_an_exact_number_in_both_forms() {
        let line = String::from_utf8(full().to_json().unwrap()).unwrap();
        assert!(line.contains(r#""cost_picousd":18446744073709551615,"cost_usd":18446744.073709551615,"#), "{line}");
        assert!(line.contains(r#""rate_usd":2.5"#), "{line}");
    }

    #[test]
    fn a_reader_ignores_fields_it_does_not_know() {
        let read: UsageRecord = serde_json::from_str(r#"{"schema_version":1,"from_the_future":{"x":[1]}}"#).unwrap();
        assert_eq!(read.schema_version, 1);
    }
}
