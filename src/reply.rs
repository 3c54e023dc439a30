//! Local replies: what a caller is told when the filter answers in the provider's place.
//!
//! One type per refusal, with its status and code; the body is written in the caller's own dialect, so that its SDK
//! raises the error it would raise for the provider's. Nothing here says anything about other callers.

use crate::api::Dialect;

/// Why a call is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The request's body is longer than may be metered, and policy says to refuse it.
    TooLarge {
        /// The bound, in bytes.
        max_request_bytes: u64,
    },
    /// The model asked for has no price, and policy says to refuse it.
    UnknownModel {
        /// What was asked for; `None`: the request names no model that could be read.
        model: Option<Box<str>>,
    },
    /// The path is an LLM provider's and can't be metered, and policy says to refuse it.
    Unmetered,
    /// The request ends in trailers that nobody announced, and part of its body could not follow any more.
    Trailers,
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
            Refusal::UnknownModel { .. } | Refusal::Trailers => 400,
            Refusal::Unmetered => 403,
        }
    }

    /// The code in the body and the record.
    pub const fn code(&self) -> &'static str {
        match self {
            Refusal::TooLarge { .. } => "request_too_large",
            Refusal::UnknownModel { .. } => "unknown_model",
            Refusal::Unmetered => "unmetered_path",
            Refusal::Trailers => "request_trailers",
        }
    }

    /// Envoy's response code details.
    pub const fn details(&self) -> &'static str {
        match self {
            Refusal::TooLarge { .. } => "tollgate_request_too_large",
            Refusal::UnknownModel { .. } => "tollgate_unknown_model",
            Refusal::Unmetered => "tollgate_unmetered_path",
            Refusal::Trailers => "tollgate_request_trailers",
        }
    }

    fn message(&self) -> String {
        match self {
            Refusal::TooLarge { max_request_bytes } => {
                format!("The request body is larger than the {max_request_bytes} bytes this gateway meters.")
            }
            Refusal::UnknownModel { model: Some(model) } => {
                format!("The model {model:?} has no price at this gateway, which refuses what it cannot price.")
            }
            Refusal::UnknownModel { model: None } => {
                "The request names no model, and this gateway refuses what it cannot price.".into()
            }
            Refusal::Unmetered => "This gateway cannot meter this path and refuses it.".into(),
            Refusal::Trailers => "This gateway does not take requests with trailers.".into(),
        }
    }

    /// The answer in `dialect`.
    pub fn reply(&self, dialect: Dialect) -> LocalReply {
        let mut headers = vec![("content-type", "application/json".to_owned()), ("x-should-retry", "false".to_owned())];
        let message = serde_json::to_string(&self.message()).unwrap_or_default();
        let (status, code) = (self.status(), self.code());
        let body = match dialect {
            Dialect::OpenAi => {
                format!(
                    r#"{{"error":{{"message":{message},"type":"invalid_request_error","param":null,"code":"{code}"}}}}"#
                )
            }
            Dialect::Anthropic => {
                format!(r#"{{"type":"error","error":{{"type":"{code}","message":{message}}}}}"#)
            }
            Dialect::Google => {
                format!(r#"{{"error":{{"code":{status},"message":{message},"status":"INVALID_ARGUMENT"}}}}"#)
            }
            Dialect::Bedrock => {
                headers.push(("x-amzn-errortype", "ValidationException".to_owned()));
                format!(r#"{{"message":{message}}}"#)
            }
            Dialect::Cohere => format!(r#"{{"message":{message}}}"#),
            Dialect::Ollama => format!(r#"{{"error":{message}}}"#),
        };
        LocalReply { status, details: self.details(), headers, body }
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
