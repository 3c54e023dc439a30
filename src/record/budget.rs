//! Records that are about budgets and no single call: on the same stream as usage records, told apart by `type`.

use super::{ExactNumber, RecordType, SCHEMA_VERSION, Text};
use crate::budget::ledger::{Account, Standing};
use crate::budget::{Amount, Limits};
use crate::identity::Instance;
use crate::money::Usd;
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
    #[serde(skip_serializing_if = "Option::is_none")]
    pub granted_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub granted_calls: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub granted_until: Option<Text>,
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
        let granted = &standing.granted;
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
            granted_usd: (granted.usd != Usd::ZERO).then(|| ExactNumber::new(&granted.usd)),
            granted_tokens: Some(granted.tokens).filter(|&tokens| tokens > 0),
            granted_calls: Some(granted.calls).filter(|&calls| calls > 0),
            granted_until: standing.granted_until.map(|until| rfc3339_seconds(until).into()),
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn what_was_granted_is_told_by_kind_and_until_when() {
        let account = Account {
            id: [0; 8],
            budget: "runs".into(),
            scope: [].into(),
            window: 0,
            window_end: None,
            idle_ttl_secs: None,
        };
        let limits = Limits { calls: Some(5), tokens: Some(100), ..Limits::default() };
        for (granted, expected) in [
            (Amount::default(), json!([null, null, null, null, 100, 5])),
            (Amount { calls: 2, ..Amount::default() }, json!([null, null, 2, "1970-01-01T00:01:00Z", 100, 7])),
            (Amount { tokens: 9, ..Amount::default() }, json!([null, 9, null, "1970-01-01T00:01:00Z", 109, 5])),
        ] {
            let granted_until = (!granted.is_zero()).then_some(60);
            let standing = Standing { granted, granted_until, ..Standing::default() };
            let told = serde_json::to_value(StandingFields::new(&account, &limits, &standing)).unwrap();
            let fields =
                ["granted_usd", "granted_tokens", "granted_calls", "granted_until", "limit_tokens", "limit_calls"];
            let found: Value = fields.iter().map(|field| told[field].clone()).collect();
            assert_eq!(found, expected);
        }
    }
}
