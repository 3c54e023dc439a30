//! Local replies: what a caller is told when the filter answers in the provider's place.
//!
//! One type per refusal, with its status and code; the body is written in the caller's own dialect, so that its SDK
//! raises the error it would raise for the provider's. Nothing here says anything about other callers.

use crate::api::Dialect;
use crate::budget::ledger::Standing;
use crate::budget::{Key, Limits};
use crate::time::rfc3339_seconds;

/// Why a call is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The request's body is longer than may be metered, and policy says to refuse it.
    TooLarge {
        /// The bound, in bytes.
        max_request_bytes: u64,
    },
    /// A dimension that is required has no value, and policy says to refuse the call.
    Unattributed {
        /// Which, and what to send for it.
        missing: Box<str>,
    },
    /// The model asked for has no price, and policy says to refuse it.
    UnknownModel {
        /// What was asked for; `None`: the request names no model that could be read.
        model: Option<Box<str>>,
    },
    /// The body is encoded, and a budget has to know what it says.
    Unreadable,
    /// The path is an LLM provider's and can't be metered, and policy says to refuse it.
    Unmetered,
    /// The request ends in trailers that nobody announced, and part of its body could not follow any more.
    Trailers,
    /// Too much of other requests is held back already.
    Busy,
    /// A budget does not let it pass.
    Budget(Box<BudgetRefusal>),
}

/// What a budget says to a call that it does not let pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BudgetRefusal {
    /// Its name.
    pub budget: Box<str>,
    /// What is wrong.
    pub why: Why,
    /// Its limits for this scope.
    pub limits: Limits,
    /// When its window ends, in seconds since 1970, where waiting for that helps.
    pub resets_at: Option<u64>,
    /// The time now.
    pub now: u64,
}

/// Why a budget does not let a call pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// Too little is left.
    Exceeded(Box<Standing>),
    /// Enough is left, and calls under way hold it.
    Busy(Box<Standing>),
    /// The call has no value for what the budget is kept by.
    Missing(Key),
    /// There is no room for one more scope.
    Full,
    /// The ledger can't be written.
    Unavailable,
}

impl BudgetRefusal {
    /// A call without a value for `key`.
    pub fn missing(budget: &str, key: Key) -> BudgetRefusal {
        BudgetRefusal {
            budget: budget.into(),
            why: Why::Missing(key),
            limits: Limits::default(),
            resets_at: None,
            now: 0,
        }
    }

    const fn status(&self) -> u16 {
        match self.why {
            Why::Exceeded(_) | Why::Busy(_) | Why::Full => 429,
            Why::Missing(_) => 400,
            Why::Unavailable => 503,
        }
    }

    /// The code in the body, in the record and in metrics.
    pub const fn code(&self) -> &'static str {
        match self.why {
            Why::Exceeded(_) => "budget_exceeded",
            Why::Busy(_) => "budget_busy",
            Why::Missing(_) => "budget_dimension_missing",
            Why::Full => "budget_ledger_full",
            Why::Unavailable => "budget_ledger_unavailable",
        }
    }

    const fn details(&self) -> &'static str {
        match self.why {
            Why::Exceeded(_) => "tollgate_budget_exceeded",
            Why::Busy(_) => "tollgate_budget_busy",
            Why::Missing(_) => "tollgate_budget_dimension_missing",
            Why::Full => "tollgate_budget_ledger_full",
            Why::Unavailable => "tollgate_budget_ledger_unavailable",
        }
    }

    /// Whether the same call may pass soon.
    const fn is_passing(&self) -> bool {
        matches!(self.why, Why::Busy(_) | Why::Unavailable)
    }

    fn message(&self) -> String {
        let budget = &self.budget;
        match &self.why {
            Why::Exceeded(standing) => {
                let reset = match self.resets_at {
                    Some(at) => format!(" It resets at {}.", rfc3339_seconds(at)),
                    None => String::new(),
                };
                let used_up = self.limits.with(&standing.granted).percent_of(&standing.spent) >= 100;
                let what = if used_up { "is used up" } else { "leaves too little for what this call may cost" };
                format!("Budget {budget:?} {what}: {}.{reset}", self.used(standing))
            }
            Why::Busy(standing) => {
                format!("Budget {budget:?} is held by calls under way: {}. Try again shortly.", self.used(standing))
            }
            Why::Missing(key) => {
                format!("Budget {budget:?} is kept by {key:?}, and this request does not say which.")
            }
            Why::Full => format!("Budget {budget:?} has no room for one more scope."),
            Why::Unavailable => format!("Budget {budget:?} could not be read just now. Try again shortly."),
        }
    }

    /// Spent of limit, for each limit there is.
    fn used(&self, standing: &Standing) -> String {
        let limits = self.limits.with(&standing.granted);
        let usd = limits.usd.map(|limit| format!("{} of {limit} USD spent", standing.spent.usd));
        let tokens = limits.tokens.map(|limit| format!("{} of {limit} tokens", standing.spent.tokens));
        let calls = limits.calls.map(|limit| format!("{} of {limit} calls", standing.spent.calls));
        let used: Vec<_> = [usd, tokens, calls].into_iter().flatten().collect();
        used.join(", ")
    }

    fn headers(&self) -> Vec<(&'static str, String)> {
        let mut headers = vec![("x-cost-budget", header_value(&self.budget))];
        if let Some(at) = self.resets_at {
            headers.push(("x-cost-budget-resets-at", rfc3339_seconds(at)));
            headers.push(("retry-after", at.saturating_sub(self.now).max(1).to_string()));
        } else if self.is_passing() {
            headers.push(("retry-after", "1".into()));
        }
        headers
    }
}

/// A name as a header can carry it.
pub(crate) fn header_value(name: &str) -> String {
    name.chars().take(256).map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' }).collect()
}

/// An answer to be sent instead of the provider's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalReply {
    /// HTTP status.
    pub status: u16,
    /// Envoy's response code details.
    pub details: &'static str,
    /// Further headers.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: String,
}

impl Refusal {
    /// HTTP status.
    pub const fn status(&self) -> u16 {
        match self {
            Refusal::TooLarge { .. } => 413,
            Refusal::Unattributed { .. } | Refusal::UnknownModel { .. } | Refusal::Trailers => 400,
            Refusal::Unreadable => 415,
            Refusal::Unmetered => 403,
            Refusal::Busy => 503,
            Refusal::Budget(budget) => budget.status(),
        }
    }

    /// The code in the body and the record.
    pub const fn code(&self) -> &'static str {
        match self {
            Refusal::TooLarge { .. } => "request_too_large",
            Refusal::Unattributed { .. } => "unattributed",
            Refusal::UnknownModel { .. } => "unknown_model",
            Refusal::Unreadable => "request_unreadable",
            Refusal::Unmetered => "unmetered_path",
            Refusal::Trailers => "request_trailers",
            Refusal::Busy => "gateway_busy",
            Refusal::Budget(budget) => budget.code(),
        }
    }

    /// Envoy's response code details.
    pub const fn details(&self) -> &'static str {
        match self {
            Refusal::TooLarge { .. } => "tollgate_request_too_large",
            Refusal::Unattributed { .. } => "tollgate_unattributed",
            Refusal::UnknownModel { .. } => "tollgate_unknown_model",
            Refusal::Unreadable => "tollgate_request_unreadable",
            Refusal::Unmetered => "tollgate_unmetered_path",
            Refusal::Trailers => "tollgate_request_trailers",
            Refusal::Busy => "tollgate_busy",
            Refusal::Budget(budget) => budget.details(),
        }
    }

    fn message(&self) -> String {
        match self {
            Refusal::TooLarge { max_request_bytes } => {
                format!("The request body is larger than the {max_request_bytes} bytes this gateway meters.")
            }
            Refusal::Unattributed { missing } => {
                format!("This gateway charges every call to an owner: {missing}.")
            }
            Refusal::UnknownModel { model: Some(model) } => {
                format!("The model {model:?} has no price at this gateway, which refuses what it cannot price.")
            }
            Refusal::UnknownModel { model: None } => {
                "The request names no model, and this gateway refuses what it cannot price.".into()
            }
            Refusal::Unreadable => {
                "A budget counts this call, and a body with a content-encoding can't be read here: send it plain."
                    .into()
            }
            Refusal::Unmetered => "This gateway cannot meter this path and refuses it.".into(),
            Refusal::Trailers => "This gateway does not take requests with trailers.".into(),
            Refusal::Busy => "This gateway holds as many requests as it has room for: try again in a second.".into(),
            Refusal::Budget(budget) => budget.message(),
        }
    }

    /// Whether the same call may pass soon.
    fn is_passing(&self) -> bool {
        matches!(self, Refusal::Busy) || matches!(self, Refusal::Budget(budget) if budget.is_passing())
    }

    /// How the family of `dialect` calls this kind of error, and Google's and Bedrock's own names for it.
    fn kinds(&self) -> Kinds {
        match self {
            Refusal::Budget(budget) => match &budget.why {
                // Every AWS SDK retries a 429, whatever the headers say; this one they do not.
                Why::Exceeded(_) | Why::Full => Kinds {
                    openai: "insufficient_quota",
                    anthropic: "rate_limit_error",
                    google: "RESOURCE_EXHAUSTED",
                    bedrock: "ServiceQuotaExceededException",
                    bedrock_status: 400,
                },
                Why::Busy(_) => Kinds {
                    openai: "rate_limit_exceeded",
                    anthropic: "rate_limit_error",
                    google: "RESOURCE_EXHAUSTED",
                    bedrock: "ThrottlingException",
                    bedrock_status: 429,
                },
                Why::Unavailable => Kinds::UNAVAILABLE,
                Why::Missing(_) => Kinds::invalid(400),
            },
            Refusal::Unmetered => Kinds {
                openai: "invalid_request_error",
                anthropic: "permission_error",
                google: "PERMISSION_DENIED",
                bedrock: "AccessDeniedException",
                bedrock_status: 403,
            },
            Refusal::Busy => Kinds { anthropic: "overloaded_error", ..Kinds::UNAVAILABLE },
            Refusal::Unreadable => Kinds::invalid(415),
            Refusal::TooLarge { .. } => Kinds { anthropic: "request_too_large", ..Kinds::invalid(413) },
            Refusal::Unattributed { .. } | Refusal::UnknownModel { .. } | Refusal::Trailers => Kinds::invalid(400),
        }
    }

    /// The answer in `dialect`.
    pub fn reply(&self, dialect: Dialect) -> LocalReply {
        let mut headers = vec![
            ("content-type", "application/json".to_owned()),
            ("x-should-retry", if self.is_passing() { "true" } else { "false" }.to_owned()),
        ];
        match self {
            Refusal::Budget(budget) => headers.extend(budget.headers()),
            Refusal::Busy => headers.push(("retry-after", "1".into())),
            _ => {}
        }
        let message = serde_json::to_string(&self.message()).unwrap_or_default();
        let (mut status, code, kinds) = (self.status(), self.code(), self.kinds());
        let body = match dialect {
            Dialect::OpenAi => {
                let kind = kinds.openai;
                format!(r#"{{"error":{{"message":{message},"type":"{kind}","param":null,"code":"{code}"}}}}"#)
            }
            Dialect::Anthropic => {
                format!(r#"{{"type":"error","error":{{"type":"{}","message":{message}}}}}"#, kinds.anthropic)
            }
            Dialect::Google => {
                format!(r#"{{"error":{{"code":{status},"message":{message},"status":"{}"}}}}"#, kinds.google)
            }
            Dialect::Bedrock => {
                status = kinds.bedrock_status;
                headers.push(("x-amzn-errortype", kinds.bedrock.to_owned()));
                format!(r#"{{"message":{message}}}"#)
            }
            Dialect::Cohere => format!(r#"{{"message":{message}}}"#),
            Dialect::Ollama => format!(r#"{{"error":{message}}}"#),
        };
        LocalReply { status, details: self.details(), headers, body }
    }
}

/// One kind of error in the words of each family.
struct Kinds {
    openai: &'static str,
    anthropic: &'static str,
    google: &'static str,
    bedrock: &'static str,
    bedrock_status: u16,
}

impl Kinds {
    /// The gateway is at fault, for now.
    const UNAVAILABLE: Kinds = Kinds {
        openai: "server_error",
        anthropic: "api_error",
        google: "UNAVAILABLE",
        bedrock: "ServiceUnavailableException",
        bedrock_status: 503,
    };

    /// The request is at fault.
    const fn invalid(status: u16) -> Kinds {
        Kinds {
            openai: "invalid_request_error",
            anthropic: "invalid_request_error",
            google: "INVALID_ARGUMENT",
            bedrock: "ValidationException",
            bedrock_status: status,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn a_refusal_speaks_the_callers_dialect() {
        for (dialect, pointer) in [
            (Dialect::OpenAi, "/error/message"),
            (Dialect::Anthropic, "/error/message"),
            (Dialect::Google, "/error/message"),
            (Dialect::Bedrock, "/message"),
            (Dialect::Cohere, "/message"),
            (Dialect::Ollama, "/error"),
        ] {
            let reply = Refusal::TooLarge { max_request_bytes: 1024 }.reply(dialect);
            let body: Value = serde_json::from_str(&reply.body).unwrap();
            assert!(body.pointer(pointer).unwrap().as_str().unwrap().contains("1024"), "{dialect:?}: {body}");
            assert_eq!((reply.status, reply.details), (413, "tollgate_request_too_large"));
        }
    }
}
