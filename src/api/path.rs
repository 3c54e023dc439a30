//! The path of the same call to another model, for the APIs that name the model there.
//!
//! Where the name stands is what [`recognise`](super::recognise) knows, and what is written here is read by it again: a path
//! that would then be another call, or one to another model, is not written.

use super::{Api, Endpoint};
use std::borrow::Cow;

/// `path`, recognised as `api`, for another model: its name stands in the place of the one in the path, percent-encoded,
/// and the rest, with method and query, stays. On Azure the name is a deployment's. `None` where the path names no model,
/// or one in a way that another can't stand in for, such as the number of a tuned one.
pub fn with_model(api: Api, path: &[u8], model: &str) -> Option<String> {
    let path = str::from_utf8(path).ok()?;
    let end = path.find(['?', '#']).unwrap_or(path.len());
    let (path, query) = path.split_at_checked(end)?;
    let (before, after) = google(path).or_else(|| bedrock(api, path)).or_else(|| azure(path))?;
    let rewritten = format!("{before}{}{after}{query}", encoded(model)?);
    let endpoint = Endpoint::recognise(b"POST", rewritten.as_bytes())?;
    (endpoint.api == api && endpoint.model.as_deref() == Some(model)).then_some(rewritten)
}

/// What stands before and after the model in `…/models/{model}:{method}`.
fn google(path: &str) -> Option<(&str, &str)> {
    let (front, last) = path.strip_suffix('/').unwrap_or(path).rsplit_once('/')?;
    if !front.ends_with("/models") {
        return None;
    }
    let colon = last.rfind(':').or_else(|| last.rfind("%3A")).or_else(|| last.rfind("%3a"))?;
    path.split_at_checked(front.len() + 1).and_then(|(before, rest)| Some((before, rest.get(colon..)?)))
}

/// The same of `/model/{id}/{action}`; an id that is an ARN may have slashes of its own.
fn bedrock(api: Api, path: &str) -> Option<(&str, &str)> {
    if !matches!(api, Api::BedrockConverse | Api::BedrockInvoke | Api::BedrockCountTokens) {
        return None;
    }
    let begin = path.find("/model/")? + "/model/".len();
    let (before, rest) = path.split_at_checked(begin)?;
    let action = rest.strip_suffix('/').unwrap_or(rest).rfind('/')?;
    Some((before, rest.get(action..)?))
}

/// The same of `/openai/deployments/{deployment}/…`.
fn azure(path: &str) -> Option<(&str, &str)> {
    let begin = path.find("/openai/deployments/")? + "/openai/deployments/".len();
    let (before, rest) = path.split_at_checked(begin)?;
    Some((before, rest.get(rest.find('/')?..)?))
}

/// A name as one segment of a path, as the SDKs write it. `None` for those that are not names but directions.
fn encoded(model: &str) -> Option<Cow<'_, str>> {
    if matches!(model, "" | "." | "..") {
        return None;
    }
    // `@` stands before the version of a model on Vertex AI, whose SDKs write it as it is.
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'@');
    if model.bytes().all(plain) {
        return Some(model.into());
    }
    let mut out = String::with_capacity(model.len() + 8);
    for byte in model.bytes() {
        if plain(byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    Some(out.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    /// The path for another model, of a call that is recognised by it.
    fn rewritten(path: &str, model: &str) -> Option<String> {
        let api = Endpoint::recognise(b"POST", path.as_bytes()).unwrap_or_else(|| panic!("{path}")).api;
        with_model(api, path.as_bytes(), model)
    }

    #[test]
    fn the_path_names_the_other_model_and_is_otherwise_the_same() {
        for (path, model, expected) in [
            (
                "/v1beta/models/gemini-2.5-pro:generateContent?key=a/models/b:c",
                "gemini-2.5-flash",
                "/v1beta/models/gemini-2.5-flash:generateContent?key=a/models/b:c",
            ),
            (
                "/models/gemini-2.5-pro:streamGenerateContent?alt=sse",
                "gemini-2.5-flash",
                "/models/gemini-2.5-flash:streamGenerateContent?alt=sse",
            ),
            ("/v1/models/a%3AcountTokens/", "b", "/v1/models/b%3AcountTokens/"),
            ("/v1/models/a:embedContent", "b", "/v1/models/b:embedContent"),
            (
                "/v1/projects/p/locations/eu/publishers/anthropic/models/claude-opus-4-5@20251101:streamRawPredict",
                "claude-haiku-4-5@20251001",
                "/v1/projects/p/locations/eu/publishers/anthropic/models/claude-haiku-4-5@20251001:streamRawPredict",
            ),
            (
                "/v1/projects/p/locations/eu/publishers/anthropic/models/claude-opus-4-5%4020251101:rawPredict",
                "claude-haiku-4-5",
                "/v1/projects/p/locations/eu/publishers/anthropic/models/claude-haiku-4-5:rawPredict",
            ),
            (
                "/v1/projects/p/locations/eu/publishers/mistralai/models/a:rawPredict",
                "b",
                "/v1/projects/p/locations/eu/publishers/mistralai/models/b:rawPredict",
            ),
            (
                "/v1/projects/p/locations/eu/publishers/google/models/a:predict",
                "b",
                "/v1/projects/p/locations/eu/publishers/google/models/b:predict",
            ),
            (
                "/openai/deployments/my%20chat/chat/completions?api-version=2024-10-21",
                "small chat/é",
                "/openai/deployments/small%20chat%2F%C3%A9/chat/completions?api-version=2024-10-21",
            ),
            (
                "/gateway/openai/deployments/big/audio/transcriptions",
                "small",
                "/gateway/openai/deployments/small/audio/transcriptions",
            ),
            (
                "/model/anthropic.claude-opus-4-5-20251101-v1%3A0/converse-stream",
                "eu.anthropic.claude-haiku-4-5-20251001-v1:0",
                "/model/eu.anthropic.claude-haiku-4-5-20251001-v1%3A0/converse-stream",
            ),
            (
                "/model/arn:aws:bedrock:eu:1:inference-profile/x/invoke?x=/model/y/z",
                "arn:aws:bedrock:eu:1:inference-profile/y",
                "/model/arn%3Aaws%3Abedrock%3Aeu%3A1%3Ainference-profile%2Fy/invoke?x=/model/y/z",
            ),
            ("/aws/model/a/converse/", "b", "/aws/model/b/converse/"),
            ("/model/a/count-tokens", "b", "/model/b/count-tokens"),
        ] {
            assert_eq!(rewritten(path, model).as_deref(), Some(expected), "{path}");
            let before = Endpoint::recognise(b"POST", path.as_bytes()).unwrap();
            let after = Endpoint::recognise(b"POST", expected.as_bytes()).unwrap();
            assert_eq!(after, Endpoint { model: Some(model.into()), ..before }, "{path}");
        }
    }

    #[test]
    fn a_path_without_a_model_is_not_rewritten() {
        for path in [
            "/v1/chat/completions",
            "/v1/chat/completions?x=/openai/deployments/d/chat/completions",
            "/openai/v1/responses",
            "/v1/messages",
            "/v2/chat",
            "/api/chat",
            // Another path of the same form would not be the same call.
            "/v1/projects/p/locations/eu/endpoints/123:generateContent",
            "/v1beta/tunedModels/mine:generateContent",
            "/v1/projects/p/locations/eu/publishers/anthropic/models/count-tokens:rawPredict",
        ] {
            assert_eq!(rewritten(path, "small"), None, "{path}");
        }
        for path in ["", "/", "/model/a", "/models/a", "/model/a/converse\u{0}", "/openai/deployments/"] {
            for api in Api::ALL {
                assert_eq!(with_model(api, path.as_bytes(), "small"), None, "{path}");
            }
        }
        assert_eq!(with_model(Api::BedrockConverse, b"/model/\xff/converse", "small"), None);
    }

    #[test]
    fn a_name_that_would_lead_elsewhere_is_not_written() {
        let google = "/v1/projects/p/locations/eu/publishers/anthropic/models/claude-opus-4-5:rawPredict";
        for (path, model) in [
            (google, ""),
            (google, "."),
            (google, ".."),
            // The name of another call.
            (google, "count-tokens"),
            ("/model/a/converse", ".."),
            ("/openai/deployments/a/chat/completions", ""),
        ] {
            assert_eq!(rewritten(path, model), None, "{path} {model}");
        }
        for (path, model, expected) in [
            ("/model/a/converse", "../b?c#d", "/model/..%2Fb%3Fc%23d/converse"),
            ("/model/a/converse", "50%2F", "/model/50%252F/converse"),
            ("/v1/models/a:generateContent", "b:countTokens", "/v1/models/b%3AcountTokens:generateContent"),
            (
                "/openai/deployments/a/chat/completions",
                "b\r\nx: y",
                "/openai/deployments/b%0D%0Ax%3A%20y/chat/completions",
            ),
        ] {
            assert_eq!(rewritten(path, model).as_deref(), Some(expected));
        }
    }

    #[test]
    fn the_model_a_path_names_rewrites_to_a_path_that_names_it() {
        for model in ["a", "a b", "é", "a:b/c@d", "%41", "a?b&c=d#e", "-._~", "\"<>\\^`{|}", "models/a", "a/../b"] {
            for path in ["/model/x/converse", "/openai/deployments/x/responses", "/v1/models/x:generateContent"] {
                let once = rewritten(path, model).unwrap_or_else(|| panic!("{path} {model}"));
                assert!(once.is_ascii(), "{once}");
                assert_eq!(rewritten(&once, model), Some(once.clone()));
                assert_eq!(rewritten(&once, "x").as_deref(), Some(path));
            }
        }
    }
}
