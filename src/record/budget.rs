//! Records that are about budgets and no single call: on the same stream as usage records, told apart by `type`.

use super::{ExactNumber, RecordType, SCHEMA_VERSION, Text};
use crate::budget::ledger::{Account, Standing};
use crate::budget::{Amount, Limits};
use crate::identity::Instance;
use crate::time::{rfc3339_micros, rfc3339_seconds};
use serde::Serialize;
use std::collections::BTreeMap;

/// `budget_alert`: a threshold was reached. `budget_snapshot`: how a scope stands. `admin`: somebody changed one.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs)] // the names are the contract; docs/records.md explains each
pub struct BudgetRecord {
    pub schema_version: u32,
    #[serde(rename = "type")]
    pub record_type: RecordType,
    pub id: Text,
    pub instance: Text,
    pub seq: u64,
    pub ts: Text,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<Text>,
    pub budget: Text,
    pub scope: BTreeMap<Text, Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threshold_percent: Option<u32>,
    #[serde(flatten)]
    pub standing: StandingFields,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Text>,
}

/// How a scope stands, as records and the admin endpoint write it.
#[derive(Clone, Debug, Default, Serialize)]
#[allow(missing_docs)] // named after what they are
pub struct StandingFields {
    pub spent_usd: ExactNumber,
    pub reserved_usd: ExactNumber,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit_usd: Option<ExactNumber>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remaining_usd: Option<ExactNumber>,
    pub spent_tokens: u64,
    pub reserved_tokens: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit_tokens: Option<u64>,
    pub spent_calls: u64,
    pub reserved_calls: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit_calls: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub granted_usd: Option<ExactNumber>,
    pub window_start: Text,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resets_at: Option<Text>,
}

impl StandingFields {
    /// An account's standing against its limits.
    pub fn new(account: &Account, limits: &Limits, standing: &Standing) -> StandingFields {
        let limits = limits.with(&standing.granted);
        let Amount { usd: spent, tokens: spent_tokens, calls: spent_calls } = standing.spent;
        let Amount { usd: held, tokens: reserved_tokens, calls: reserved_calls } = standing.held;
        let used = standing.spent.plus(&standing.held).usd;
        StandingFields {
            spent_usd: ExactNumber::new(&spent),
            reserved_usd: ExactNumber::new(&held),
            limit_usd: limits.usd.map(|limit| ExactNumber::new(&limit)),
            // What is overrun shows: the remainder may be below zero.
            remaining_usd: limits.usd.map(|limit| ExactNumber::new(&limit.saturating_sub(used))),
            spent_tokens,
            reserved_tokens,
            limit_tokens: limits.tokens,
            spent_calls,
            reserved_calls,
            limit_calls: limits.calls,
            granted_usd: (!standing.granted.is_zero()).then(|| ExactNumber::new(&standing.granted.usd)),
            window_start: rfc3339_seconds(account.window).into(),
            resets_at: account.window_end.map(|end| rfc3339_seconds(end).into()),
        }
    }
}

impl BudgetRecord {
    /// A record about `account` as it stands at `now_ns`.
    pub fn new(
        record_type: RecordType,
        instance: &mut Instance,
        now_ns: u64,
        account: &Account,
        standing: StandingFields,
    ) -> BudgetRecord {
        BudgetRecord {
            schema_version: SCHEMA_VERSION,
            record_type,
            id: instance.next_id(now_ns, account.budget.as_bytes()),
            seq: instance.next_notice_seq(),
            instance: instance.name().into(),
            ts: rfc3339_micros(now_ns).into(),
            gateway: instance.gateway().map(Into::into),
            budget: (&*account.budget).into(),
            scope: account.scope.iter().map(|(key, value)| ((&**key).into(), value.clone())).collect(),
            threshold_percent: None,
            standing,
            action: None,
            reason: None,
        }
    }

    /// The record as one line of JSON, without a newline.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }
}
