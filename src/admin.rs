//! The admin endpoint: how budgets stand, a temporary increase, a fresh start. Off unless configured.
//!
//! `GET {path}/budgets` lists every scope; `POST {path}/budgets/{name}/grant` raises the limits of one until a time and
//! `POST {path}/budgets/{name}/reset` forgets what it has spent. The token is compared by its SHA-256 in constant time. What
//! is changed becomes a record of the type `admin`.

use crate::budget::{Amount, Budget, Values};
use crate::config::{AdminConfig, Config};
use crate::exchange::Context;
use crate::http::Headers;
use crate::money::{Decimal, Usd};
use crate::overview::{self, Overview};
use crate::record::RecordType;
use crate::record::budget::{BudgetRecord, StandingFields};
use crate::reply::LocalReply;
use crate::telemetry::Event as LogEvent;
use crate::time;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// Scopes in one listing.
const MAX_SCOPES: usize = 10_000;

/// Longest body that is read, in bytes.
const MAX_BODY_BYTES: usize = 64 * 1024;

/// A change whose body is being read.
#[derive(Debug)]
pub struct Change {
    budget: usize,
    kind: Kind,
    body: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Grant,
    Reset,
}

/// What a request to the endpoint leads to.
#[derive(Debug)]
pub enum Step {
    /// An answer.
    Answer(LocalReply),
    /// More of the request has to come.
    Read(Change),
}

/// Whether `path` is the endpoint's.
pub fn is_admin(config: &Config, path: &[u8]) -> bool {
    let Some(admin) = &config.admin else { return false };
    let rest = path.strip_prefix(admin.path.as_bytes());
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/") || rest.starts_with(b"?"))
}

/// Begins to answer a request to the endpoint.
pub fn begin(config: &Config, headers: &Headers<'_>, end_of_stream: bool, context: &mut Context<'_>) -> Step {
    let Some(admin) = &config.admin else { return Step::Answer(error(404, "not_found", "There is nothing here.")) };
    if !is_authorised(admin, headers) {
        return Step::Answer(error(401, "unauthorized", "A bearer token is needed that matches admin.token_sha256."));
    }
    let path = headers.get(":path").and_then(|path| str::from_utf8(path).ok()).unwrap_or_default();
    let path = path.split('?').next().unwrap_or_default();
    let rest = path.strip_prefix(&*admin.path).unwrap_or_default().trim_matches('/');
    let parts: Vec<&str> = rest.split('/').collect();
    match (headers.get(":method").unwrap_or_default(), parts.as_slice()) {
        (b"GET", ["budgets"]) => Step::Answer(list(config, context)),
        (b"POST", ["budgets", name, action]) => {
            let kind = match *action {
                "grant" => Kind::Grant,
                "reset" => Kind::Reset,
                _ => return Step::Answer(error(404, "not_found", "A budget can be sent grant or reset.")),
            };
            let Some(budget) = config.budgets.iter().position(|budget| *budget.name == **name) else {
                return Step::Answer(error(404, "unknown_budget", &format!("There is no budget {name:?}.")));
            };
            let change = Change { budget, kind, body: Vec::new() };
            if end_of_stream { Step::Answer(change.answer(config, context)) } else { Step::Read(change) }
        }
        (_, ["budgets", ..]) => Step::Answer(error(405, "method_not_allowed", "GET lists, POST changes.")),
        _ => Step::Answer(error(404, "not_found", "There is budgets, and nothing else.")),
    }
}

fn is_authorised(admin: &AdminConfig, headers: &Headers<'_>) -> bool {
    let value = headers.get("authorization").unwrap_or_default();
    let token = value.split_first_chunk::<7>().filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"bearer "));
    let digest = Sha256::digest(token.map(|(_, token)| token).unwrap_or_default());
    // Every byte is looked at, however early one differs.
    let differing = digest.iter().zip(admin.token_sha256).fold(0, |all, (a, b)| all | (a ^ b));
    token.is_some() && differing == 0
}

impl Change {
    /// Reads a piece of the body; the answer at its end.
    pub fn feed(mut self, chunk: &[u8], end_of_stream: bool, config: &Config, context: &mut Context<'_>) -> Step {
        if self.body.len() + chunk.len() > MAX_BODY_BYTES {
            return Step::Answer(error(413, "too_large", "The body is longer than 64 KiB."));
        }
        self.body.extend_from_slice(chunk);
        if end_of_stream { Step::Answer(self.answer(config, context)) } else { Step::Read(self) }
    }

    /// Makes the change.
    pub fn answer(&self, config: &Config, context: &mut Context<'_>) -> LocalReply {
        let order: Order = match serde_json::from_slice(&self.body) {
            Ok(order) => order,
            Err(problem) => return error(400, "invalid_body", &problem.to_string()),
        };
        let Some(budget) = config.budgets.get(self.budget) else { return error(404, "unknown_budget", "") };
        let (now, now_ns) = (context.host.now_ns() / 1_000_000_000, context.host.now_ns());
        let scope = match order.scope_of(budget) {
            Ok(scope) => scope,
            Err(message) => return error(400, "invalid_scope", &message),
        };
        if order.reason.trim().is_empty() {
            return error(400, "invalid_body", "A reason is needed, for the record.");
        }
        let grant = match (self.kind, order.grant(now)) {
            (Kind::Reset, _) => None,
            (Kind::Grant, Ok(grant)) => Some(grant),
            (Kind::Grant, Err(message)) => return error(400, "invalid_body", &message),
        };
        let account = budget.account(scope, now);
        if let Some((granted, _)) = grant
            && !overview::limits_of(budget, &account).take(&granted)
        {
            return error(400, "no_such_limit", "The budget has no limit of a kind that is to be raised.");
        }
        let (ledger, mut access) = context.ledger(config, now);
        let changed = match self.kind {
            Kind::Grant => ledger.grant(&mut access, &account, grant),
            Kind::Reset => ledger.reset(&mut access, &account),
        };
        let Ok(standing) = changed else {
            return error(503, "ledger_unavailable", "The ledger could not be written; nothing was changed.");
        };
        let overview = Overview::new(budget, account, standing);
        let record =
            BudgetRecord::new(RecordType::Admin, context.instance, now_ns, &overview.account, overview.fields());
        let action = if self.kind == Kind::Grant { "grant" } else { "reset" };
        let record = BudgetRecord { action: Some(action.into()), reason: Some(order.reason.clone().into()), ..record };
        context.host.emit_line(record.to_json());
        let detail = format!("{action} of {}: {}", overview::scope_name(&overview.account), order.reason.trim());
        context.host.log_once(LogEvent::AdminChange { detail: &detail });
        json(200, &ScopeView::new(&overview))
    }
}

/// The body of a change. Money is read from its text.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Order<'a> {
    #[serde(default)]
    scope: BTreeMap<String, String>,
    reason: String,
    #[serde(borrow, default)]
    usd: Option<&'a RawValue>,
    #[serde(default)]
    tokens: u64,
    #[serde(default)]
    calls: u64,
    #[serde(default)]
    until: Option<String>,
}

impl Order<'_> {
    /// The scope as the budget keeps it: a value for each of its dimensions, empty for calls that have none.
    fn scope_of(&self, budget: &Budget) -> Result<Values, String> {
        let known = |key: &&String| budget.per.iter().any(|own| **own == ***key);
        if let Some(other) = self.scope.keys().find(|key| !known(key)) {
            return Err(format!("Budget {:?} is not kept by {other:?}.", budget.name));
        }
        let value = |key: &str| {
            let value = self.scope.get(key).ok_or_else(|| format!("The scope needs a value of {key:?}."))?;
            Ok((key.into(), Box::from(value.as_str())))
        };
        budget.per.iter().map(|key| value(key)).collect()
    }

    fn grant(&self, now: u64) -> Result<(Amount, u64), String> {
        let usd = match self.usd {
            None => Usd::ZERO,
            Some(raw) => {
                let amount = Decimal::parse(raw.get().trim_matches('"')).ok().and_then(Usd::of);
                amount.ok_or_else(|| format!("usd: expected a decimal amount, got {}", raw.get()))?
            }
        };
        let until = self.until.as_deref().ok_or("until: is missing; expected a time as 2026-12-01T00:00:00Z")?;
        let until = time::parse_rfc3339(until).ok_or_else(|| format!("until: expected a time, got {until:?}"))?;
        if until <= now {
            return Err("until: is over already".into());
        }
        let amount = Amount { usd, tokens: self.tokens, calls: self.calls };
        if amount.is_zero() {
            return Err("expected usd, tokens or calls".into());
        }
        Ok((amount, until))
    }
}

/// A scope as it is shown.
#[derive(Serialize)]
struct ScopeView<'a> {
    budget: &'a str,
    mode: &'static str,
    window: &'static str,
    timezone: &'a str,
    scope: BTreeMap<&'a str, &'a str>,
    #[serde(flatten)]
    standing: StandingFields,
}

impl<'a> ScopeView<'a> {
    fn new(overview: &'a Overview<'_>) -> ScopeView<'a> {
        let budget = overview.budget;
        ScopeView {
            budget: &budget.name,
            mode: if budget.observe { "observe" } else { "enforce" },
            window: budget.calendar.window.name(),
            timezone: &budget.timezone,
            scope: overview.account.scope.iter().map(|(key, value)| (&**key, &**value)).collect(),
            standing: overview.fields(),
        }
    }
}

fn list(config: &Config, context: &mut Context<'_>) -> LocalReply {
    #[derive(Serialize)]
    struct Listing<'a> {
        scopes: Vec<ScopeView<'a>>,
        /// There are more scopes than are listed.
        truncated: bool,
    }
    let now = context.host.now_ns() / 1_000_000_000;
    let found = overview::scopes(config, context, now, MAX_SCOPES, &|_| true);
    let truncated = found.len() >= MAX_SCOPES;
    json(200, &Listing { scopes: found.iter().map(ScopeView::new).collect(), truncated })
}

/// The answer to a change whose body the host cannot show.
pub fn unread() -> LocalReply {
    error(
        501,
        "headers_cannot_be_held",
        "Envoy did not show the body: allow_on_headers_stop_iteration: true is needed in the filter's plugin configuration.",
    )
}

fn json(status: u16, body: &impl Serialize) -> LocalReply {
    let body = serde_json::to_string(body).unwrap_or_default();
    let headers = vec![("content-type", "application/json".to_owned()), ("cache-control", "no-store".to_owned())];
    LocalReply { status, details: "tollgate_admin", headers, body }
}

fn error(status: u16, code: &str, message: &str) -> LocalReply {
    json(status, &serde_json::json!({"error": {"code": code, "message": message}}))
}
