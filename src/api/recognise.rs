//! Which format a request speaks, told from its method and path.
//!
//! Gateways hide hosts and add prefixes, so only the end of the path counts, percent-decoded and without its query.

use super::Api;

/// What the request line says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The wire format.
    pub api: Api,
    /// The model, where the path names one.
    pub model: Option<Box<str>>,
    /// That name is a deployment's, chosen by the operator: it says nothing about the model or its price.
    pub is_deployment: bool,
    /// Whether the path asks for a stream, where it says so at all.
    pub stream: Option<bool>,
    /// Not a call of its own but a look at the response of another.
    pub is_poll: bool,
    /// Nothing says that it is an LLM call but the usage that its answer may have.
    pub is_guess: bool,
}

impl Endpoint {
    /// A plain call in `api`.
    pub fn of(api: Api) -> Endpoint {
        Endpoint { api, model: None, is_deployment: false, stream: None, is_poll: false, is_guess: false }
    }

    /// The format and model of a request; `None` where it is not an LLM call this filter meters.
    pub fn recognise(method: &[u8], path: &[u8]) -> Option<Endpoint> {
        let path = path.split(|&b| b == b'?' || b == b'#').next().unwrap_or_default();
        let path = str::from_utf8(path).ok()?;
        let path = path.trim_end_matches('/');
        let (front, last) = path.rsplit_once('/')?;
        match method {
            b"POST" => {}
            b"GET" if front.ends_with("/responses") && last.starts_with("resp_") => {
                return Some(Endpoint { is_poll: true, ..Endpoint::of(Api::OpenaiResponses) });
            }
            b"GET" if !last.is_empty() && by_suffix(front) == Some(Api::GeminiInteractions) => {
                return Some(Endpoint { is_poll: true, ..Endpoint::of(Api::GeminiInteractions) });
            }
            _ => return None,
        }
        if let Some(endpoint) = google(front, last).or_else(|| bedrock(front, last)) {
            return Some(endpoint);
        }
        let api = by_suffix(&decoded(path).to_ascii_lowercase().replace("//", "/"))?;
        let deployment = path.split_once("/openai/deployments/").and_then(|(_, rest)| rest.split('/').next());
        let model = deployment.map(model_name);
        Some(Endpoint { is_deployment: model.is_some(), model, ..Endpoint::of(api) })
    }
}

/// `…/models/{model}:{method}`; the model may have a version behind an `@`.
fn google(front: &str, last: &str) -> Option<Endpoint> {
    let (model, method) =
        last.rsplit_once(':').or_else(|| last.rsplit_once("%3A")).or_else(|| last.rsplit_once("%3a"))?;
    let anthropic = front.ends_with("/publishers/anthropic/models");
    let api = match method {
        // Tuned models are endpoints of their own, with a number in the path.
        "generateContent" | "streamGenerateContent" => Api::GeminiGenerateContent,
        "rawPredict" if anthropic && model == "count-tokens" => return Some(Endpoint::of(Api::AnthropicCountTokens)),
        "rawPredict" | "streamRawPredict" if anthropic => Api::AnthropicMessages,
        _ if !front.ends_with("/models") => return None,
        "countTokens" => Api::GeminiCountTokens,
        "embedContent" | "batchEmbedContents" => Api::GeminiEmbed,
        "predict" => Api::VertexPredict,
        "rawPredict" if model.starts_with("mistral-ocr") => Api::MistralOcr,
        "rawPredict" | "streamRawPredict" => Api::OpenaiChat,
        _ => return None,
    };
    Some(Endpoint { model: Some(model_name(model)), stream: Some(method.starts_with("stream")), ..Endpoint::of(api) })
}

/// `/model/{id}/{action}`, the id percent-encoded.
fn bedrock(front: &str, last: &str) -> Option<Endpoint> {
    let api = match last {
        "converse" | "converse-stream" => Api::BedrockConverse,
        "invoke" | "invoke-with-response-stream" => Api::BedrockInvoke,
        "count-tokens" => Api::BedrockCountTokens,
        _ => return None,
    };
    // An id that is an ARN has slashes of its own where a proxy has decoded it.
    let (_, model) = front.split_once("/model/")?;
    let stream = Some(last.ends_with("-stream"));
    Some(Endpoint { model: Some(model_name(model)), stream, ..Endpoint::of(api) })
}

/// Ends of paths, the longer before those they end in.
const SUFFIXES: [(&str, Api); 30] = [
    ("/chat/completions", Api::OpenaiChat),
    ("/fim/completions", Api::OpenaiChat),
    ("/agents/completions", Api::OpenaiChat),
    ("/completions", Api::OpenaiCompletions),
    ("/responses", Api::OpenaiResponses),
    ("/responses/compact", Api::OpenaiResponses),
    ("/responses/input_tokens", Api::OpenaiInputTokens),
    ("/embeddings", Api::OpenaiEmbeddings),
    ("/images/generations", Api::OpenaiImages),
    ("/images/edits", Api::OpenaiImages),
    ("/images/variations", Api::OpenaiImages),
    ("/audio/transcriptions", Api::OpenaiTranscription),
    ("/audio/translations", Api::OpenaiTranscription),
    ("/audio/speech", Api::OpenaiSpeech),
    ("/moderations", Api::OpenaiModerations),
    ("/v1/messages", Api::AnthropicMessages),
    ("/messages/count_tokens", Api::AnthropicCountTokens),
    ("/v1/ocr", Api::MistralOcr),
    ("/mistral/azure/ocr", Api::MistralOcr),
    ("/v1/chat", Api::CohereChat),
    ("/v2/chat", Api::CohereChat),
    ("/v1/embed", Api::CohereEmbed),
    ("/v2/embed", Api::CohereEmbed),
    ("/rerank", Api::CohereRerank),
    ("/v1alpha/interactions", Api::GeminiInteractions),
    ("/v1beta/interactions", Api::GeminiInteractions),
    ("/api/chat", Api::OllamaChat),
    ("/api/generate", Api::OllamaChat),
    ("/api/embed", Api::OllamaEmbed),
    ("/api/embeddings", Api::OllamaEmbed),
];

fn by_suffix(path: &str) -> Option<Api> {
    // Ollama's own embeddings path ends like OpenAI's.
    if path.ends_with("/api/embeddings") {
        return Some(Api::OllamaEmbed);
    }
    // On Vertex AI it stands behind project and location.
    if path.ends_with("/interactions") && path.contains("/locations/") {
        return Some(Api::GeminiInteractions);
    }
    SUFFIXES.iter().find(|(suffix, _)| path.ends_with(suffix)).map(|&(_, api)| api)
}

/// Percent-decoded; what does not decode to UTF-8 stays as it is.
fn decoded(text: &str) -> Box<str> {
    let hex = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16)).and_then(|n| u8::try_from(n).ok());
    let mut bytes = text.bytes();
    let mut out = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        let mut ahead = bytes.clone();
        match (byte, hex(ahead.next()), hex(ahead.next())) {
            (b'%', Some(high), Some(low)) => {
                out.push(high << 4 | low);
                bytes = ahead;
            }
            _ => out.push(byte),
        }
    }
    String::from_utf8(out).map_or_else(|_| text.into(), String::into_boxed_str)
}

/// A model's name from a path, no longer than any real one.
fn model_name(text: &str) -> Box<str> {
    const MAX_BYTES: usize = 256;
    let name = decoded(text);
    match name.char_indices().find(|(at, c)| at + c.len_utf8() > MAX_BYTES) {
        Some((at, _)) => name.get(..at).unwrap_or_default().into(),
        None => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn name(path: &str) -> Option<String> {
        let endpoint = Endpoint::recognise(b"POST", path.as_bytes())?;
        let model = endpoint.model.map(|model| format!(" {model}")).unwrap_or_default();
        Some(format!("{}{model}", endpoint.api.format().name))
    }

    #[test]
    fn an_llm_call_is_recognised_by_the_end_of_its_path() {
        for (path, expected) in [
            ("/v1/chat/completions", "openai_chat"),
            ("/v1/chat/completions/", "openai_chat"),
            ("/openai/v1/chat/completions?api-version=1", "openai_chat"),
            ("/chat/completions", "openai_chat"),
            ("/v1beta/openai/chat/completions", "openai_chat"),
            ("/openai/deployments/my%20chat/chat/completions?api-version=2", "openai_chat my chat"),
            ("/v1/fim/completions", "openai_chat"),
            ("/v1/completions", "openai_completions"),
            ("/v1/responses", "openai_responses"),
            ("/v1/responses/compact", "openai_responses"),
            ("/v1/responses/input_tokens", "openai_input_tokens"),
            ("/v1/chat/complet%69ons", "openai_chat"),
            ("/v1/projects/p/locations/eu/endpoints/123:generateContent", "gemini_generate_content 123"),
            (
                "/v1/projects/p/locations/eu/publishers/anthropic/models/count-tokens:rawPredict",
                "anthropic_count_tokens",
            ),
            ("/v1/embeddings", "openai_embeddings"),
            ("/v1/images/generations", "openai_images"),
            ("/v1/audio/transcriptions", "openai_audio_transcription"),
            ("/v1/audio/speech", "openai_audio_speech"),
            ("/v1/moderations", "openai_moderations"),
            ("/v1/messages?beta=true", "anthropic_messages"),
            ("/anthropic/v1/messages", "anthropic_messages"),
            ("/v1/messages/count_tokens", "anthropic_count_tokens"),
            ("/v1beta/models/gemini-2.5-flash:generateContent", "gemini_generate_content gemini-2.5-flash"),
            ("/v1/models/gemini-2.5-flash:streamGenerateContent?alt=sse", "gemini_generate_content gemini-2.5-flash"),
            ("/v1/models/gemini-2.5-flash:countTokens", "gemini_count_tokens gemini-2.5-flash"),
            ("/v1beta/models/text-embedding-004:batchEmbedContents", "gemini_embed text-embedding-004"),
            (
                "/v1/projects/p/locations/eu/publishers/anthropic/models/claude-haiku-4-5%4020251001:streamRawPredict",
                "anthropic_messages claude-haiku-4-5@20251001",
            ),
            ("/v1/projects/p/locations/eu/publishers/google/models/te:predict", "vertex_predict te"),
            ("/model/amazon.titan-text-lite-v1%3A0/converse", "bedrock_converse amazon.titan-text-lite-v1:0"),
            ("/model/m/converse-stream", "bedrock_converse m"),
            ("/model/m/invoke-with-response-stream", "bedrock_invoke m"),
            (
                "/model/arn%3Aaws%3Abedrock%3Aeu%3A1%3Ainference-profile%2Fx/invoke",
                "bedrock_invoke arn:aws:bedrock:eu:1:inference-profile/x",
            ),
            ("/v2/chat", "cohere_chat"),
            ("/v2/rerank", "cohere_rerank"),
            ("/rerank", "cohere_rerank"),
            ("/v1beta/interactions", "gemini_interactions"),
            ("/v1beta1/projects/p/locations/global/interactions", "gemini_interactions"),
            ("/v1/ocr", "mistral_ocr"),
            ("/providers/mistral/azure/ocr", "mistral_ocr"),
            (
                "/v1/projects/p/locations/us-central1/publishers/mistralai/models/mistral-ocr-2505:rawPredict",
                "mistral_ocr mistral-ocr-2505",
            ),
            ("/api/chat", "ollama_chat"),
            ("/api/generate", "ollama_chat"),
            ("/api/embeddings", "ollama_embed"),
        ] {
            assert_eq!(name(path).as_deref(), Some(expected), "{path}");
        }
    }

    #[test]
    fn what_is_no_llm_call_is_not() {
        for path in [
            "",
            "/",
            "/v1/chat/completions/abc",
            "/v1/models?x=/chat/completions",
            "/v1/threads/t/messages",
            "/v1/models/m:delete",
            "/v1/files",
            "/chat",
            "/model/m/unknown",
            "/interactions",
            "/v1/interactions",
            "/v1/interactions/i/callback",
        ] {
            assert_eq!(name(path), None, "{path}");
        }
        assert_eq!(Endpoint::recognise(b"GET", b"/v1/chat/completions"), None);
        assert_eq!(Endpoint::recognise(b"GET", b"/v1/responses/other"), None);
        assert!(Endpoint::recognise(b"GET", b"/v1/responses/resp_1?stream=true").unwrap().is_poll);
        assert_eq!(Endpoint::recognise(b"POST", b"/v1/chat/completions\xff"), None);
    }

    #[test]
    fn every_format_is_reached_and_has_a_name_of_its_own() {
        let names: std::collections::BTreeSet<_> = Api::ALL.iter().map(|api| api.format().name).collect();
        assert_eq!(names.len(), Api::ALL.len());
        for api in Api::ALL {
            assert_eq!(Api::of_name(api.format().name), Some(api));
            assert!(!api.format().operation.is_empty());
        }
    }

    #[test]
    fn percent_escapes_decode_and_nonsense_stays() {
        for (text, expected) in
            [("a%3Ab", "a:b"), ("a%3", "a%3"), ("%zz", "%zz"), ("%ff", "%ff"), ("100%", "100%"), ("%25%32", "%2")]
        {
            assert_eq!(&*decoded(text), expected, "{text}");
        }
    }
}
