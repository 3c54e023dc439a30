//! Who bills a call and where it is served, as far as host, path and format tell.

use super::{Api, Dialect};

/// Hosts of providers, and the provider each belongs to: the host itself, or what follows a dot or a dash in it.
const HOSTS: [(&str, &str); 26] = [
    ("api.openai.com", "openai"),
    ("openai.azure.com", "azure"),
    ("cognitiveservices.azure.com", "azure"),
    ("services.ai.azure.com", "azure_ai"),
    ("models.ai.azure.com", "azure_ai"),
    ("api.anthropic.com", "anthropic"),
    ("generativelanguage.googleapis.com", "gemini"),
    ("aiplatform.googleapis.com", "vertex_ai"),
    ("api.cohere.com", "cohere"),
    ("api.cohere.ai", "cohere"),
    ("api.mistral.ai", "mistral"),
    ("codestral.mistral.ai", "mistral"),
    ("api.groq.com", "groq"),
    ("api.deepseek.com", "deepseek"),
    ("api.together.xyz", "together_ai"),
    ("api.together.ai", "together_ai"),
    ("api.fireworks.ai", "fireworks_ai"),
    ("api.x.ai", "xai"),
    ("openrouter.ai", "openrouter"),
    ("api.perplexity.ai", "perplexity"),
    ("ai-gateway.vercel.sh", "vercel_ai_gateway"),
    ("api.cerebras.ai", "cerebras"),
    ("api.deepinfra.com", "deepinfra"),
    ("api.sambanova.ai", "sambanova"),
    ("dashscope.aliyuncs.com", "dashscope"),
    ("dashscope-intl.aliyuncs.com", "dashscope"),
];

/// Providers that go by no host of that list.
const OTHERS: [&str; 2] = ["bedrock", "ollama"];

/// Every provider that a host or a format may tell; some more than once.
pub fn all() -> impl Iterator<Item = &'static str> {
    HOSTS.iter().map(|&(_, provider)| provider).chain(OTHERS)
}

/// The provider whose host it is.
pub fn of_host(host: &str) -> Option<&'static str> {
    let host = without_port(host);
    if bedrock_region(host).is_some() {
        return Some("bedrock");
    }
    let belongs = |known: &str| {
        let front = host.len().checked_sub(known.len()).and_then(|at| host.split_at_checked(at));
        front.is_some_and(|(front, rest)| {
            rest.eq_ignore_ascii_case(known) && (front.is_empty() || front.ends_with(['.', '-']))
        })
    };
    HOSTS.iter().find(|(known, _)| belongs(known)).map(|&(_, provider)| provider)
}

/// The region in a name of Bedrock's: `bedrock-runtime.{region}.amazonaws.com`, also in China, and behind the name of an
/// endpoint in a private network, and `bedrock-mantle.{region}.api.aws`.
fn bedrock_region(host: &str) -> Option<&str> {
    const ENDS: [&str; 3] = [".amazonaws.com", ".amazonaws.com.cn", ".api.aws"];
    let front = ENDS.iter().find_map(|end| host.strip_suffix(end))?;
    let (service, region) = front.strip_suffix(".vpce").unwrap_or(front).rsplit_once('.')?;
    service.rsplit('.').next().is_some_and(|service| service.starts_with("bedrock-")).then_some(region)
}

fn without_port(host: &str) -> &str {
    host.split(':').next().unwrap_or(host)
}

/// Whose format it is at home; others may speak it.
pub fn of_format(api: Api, path: &str) -> Option<&'static str> {
    let vertex = path.contains("/projects/") || path.contains("/publishers/");
    match api {
        Api::AnthropicMessages | Api::AnthropicCountTokens if !vertex => Some("anthropic"),
        Api::GeminiGenerateContent | Api::GeminiInteractions | Api::GeminiEmbed | Api::GeminiCountTokens if !vertex => {
            Some("gemini")
        }
        Api::VertexPredict => Some("vertex_ai"),
        _ if vertex => Some("vertex_ai"),
        Api::BedrockConverse | Api::BedrockInvoke | Api::BedrockCountTokens => Some("bedrock"),
        Api::CohereChat | Api::CohereEmbed | Api::CohereRerank => Some("cohere"),
        Api::MistralOcr => Some("mistral"),
        Api::OllamaChat | Api::OllamaEmbed => Some("ollama"),
        _ if path.contains("/openai/deployments/") => Some("azure"),
        _ => None,
    }
}

/// Whether the API is one of Google's, those that speak the format of another among them: they take a key in the query of
/// the path, and the method in a header. `told` is the provider that the configuration names. The host is the caller's
/// word, so it does not speak against what the path says.
pub fn is_googles(api: Api, path: &[u8], told: Option<&str>, host: Option<&str>) -> bool {
    let is_google = |provider: &str| matches!(provider, "gemini" | "vertex_ai");
    let is_at_home = || {
        let path = str::from_utf8(path).unwrap_or_default();
        of_format(api, path).is_some_and(is_google) || path.contains("/v1beta/openai/")
    };
    api.format().dialect == Dialect::Google
        || told.map_or_else(|| host.and_then(of_host).is_some_and(is_google) || is_at_home(), is_google)
}

/// The region of the endpoint, where host or path names one: `eu` of `eu.api.openai.com`, `europe-west1` of
/// `europe-west1-aiplatform.googleapis.com` or `/locations/europe-west1/`, `eu-central-1` of
/// `bedrock-runtime.eu-central-1.amazonaws.com`.
pub fn region(host: &str, path: &str) -> Option<Box<str>> {
    let host = without_port(host);
    if let Some((_, rest)) = path.split_once("/locations/") {
        return rest.split('/').next().filter(|location| !location.is_empty()).map(Into::into);
    }
    let named = host
        .strip_suffix(".api.openai.com")
        .or_else(|| host.strip_suffix("-aiplatform.googleapis.com"))
        .or_else(|| bedrock_region(host));
    named.filter(|name| !name.is_empty() && !name.contains('.')).map(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn a_host_tells_its_provider_and_region() {
        for (host, provider, region_name) in [
            ("api.openai.com", Some("openai"), None),
            ("API.OpenAI.com:443", Some("openai"), None),
            ("eu.api.openai.com", Some("openai"), Some("eu")),
            ("my-resource.openai.azure.com", Some("azure"), None),
            ("europe-west1-aiplatform.googleapis.com", Some("vertex_ai"), Some("europe-west1")),
            ("aiplatform.googleapis.com", Some("vertex_ai"), None),
            ("bedrock-runtime.eu-central-1.amazonaws.com", Some("bedrock"), Some("eu-central-1")),
            ("bedrock-runtime-fips.us-east-1.amazonaws.com", Some("bedrock"), Some("us-east-1")),
            ("bedrock-runtime.cn-north-1.amazonaws.com.cn", Some("bedrock"), Some("cn-north-1")),
            ("vpce-1-a.bedrock-runtime.us-east-1.vpce.amazonaws.com", Some("bedrock"), Some("us-east-1")),
            ("vpce-1.bedrock-runtime.cn-north-1.vpce.amazonaws.com.cn", Some("bedrock"), Some("cn-north-1")),
            ("bedrock-mantle.us-east-1.api.aws:443", Some("bedrock"), Some("us-east-1")),
            ("s3.eu-central-1.amazonaws.com", None, None),
            ("bedrock-runtime.amazonaws.com", None, None),
            ("notapi.openai.com", None, None),
            ("api.openai.com.example.org", None, None),
            ("gateway.internal:10000", None, None),
            ("", None, None),
        ] {
            assert_eq!(of_host(host), provider, "{host}");
            assert_eq!(region(host, "/v1/x").as_deref(), region_name, "{host}");
        }
    }

    #[test]
    fn every_provider_that_can_be_told_is_among_all() {
        let paths = ["/v1/x", "/openai/deployments/d/x", "/projects/p/x"];
        let homes = Api::ALL.into_iter().flat_map(|api| paths.map(|path| of_format(api, path))).flatten();
        for provider in homes.chain(of_host("bedrock-runtime.eu-central-1.amazonaws.com")) {
            assert!(all().any(|other| other == provider), "{provider}");
        }
        assert!(HOSTS.iter().all(|&(host, provider)| of_host(host) == Some(provider)));
    }

    #[test]
    fn a_path_tells_the_location_and_a_format_its_home() {
        let vertex = "/v1/projects/p/locations/global/publishers/anthropic/models/claude:rawPredict";
        assert_eq!(region("aiplatform.googleapis.com", vertex).as_deref(), Some("global"));
        for (api, path, provider) in [
            (Api::AnthropicMessages, "/v1/messages", Some("anthropic")),
            (Api::AnthropicMessages, vertex, Some("vertex_ai")),
            (Api::GeminiGenerateContent, "/v1/models/gemini:generateContent", Some("gemini")),
            (Api::BedrockConverse, "/model/m/converse", Some("bedrock")),
            (Api::OpenaiChat, "/v1/chat/completions", None),
            (Api::OpenaiChat, "/openai/deployments/d/chat/completions", Some("azure")),
        ] {
            assert_eq!(of_format(api, path), provider, "{path}");
        }
    }
}
