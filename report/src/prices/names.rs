//! Names of providers and models: what sources call them, what Tollgate calls them, and which were asked for.

use tollgate::glob::Glob;

/// Tollgate's name of a provider that LiteLLM or genai-prices calls `name`.
pub(crate) fn provider(name: &str) -> &str {
    let name = name.strip_suffix("-embedding-models").unwrap_or(name);
    match name {
        "bedrock_converse" | "aws" => "bedrock",
        "cohere_chat" => "cohere",
        "azure_text" => "azure",
        "text-completion-openai" => "openai",
        "codestral" | "text-completion-codestral" => "mistral",
        "google" => "gemini",
        "x-ai" => "xai",
        "together" => "together_ai",
        "fireworks" => "fireworks_ai",
        _ if name.starts_with("vertex_ai-") => "vertex_ai",
        _ => name.strip_prefix("text-completion-").unwrap_or(name),
    }
}

/// The model in a LiteLLM key: without the provider in front, if that is what stands there.
pub(crate) fn model<'a>(key: &'a str, litellm_provider: &str) -> &'a str {
    match key.split_once('/') {
        Some((first, rest)) if first == litellm_provider || first == provider(litellm_provider) => rest,
        _ => key,
    }
}

/// Which models are imported.
#[derive(Debug, Default)]
pub(crate) struct Filter {
    providers: Vec<String>,
    names: Vec<(Glob, bool)>,
}

impl Filter {
    /// `providers` under any of their names; `names` are globs on a model's name, on the source's key, or on
    /// `provider/model`. Empty lists ask for everything.
    pub(crate) fn new(providers: &[String], names: impl IntoIterator<Item = String>) -> Filter {
        Filter {
            providers: providers.iter().map(|name| provider(name).to_owned()).collect(),
            names: names.into_iter().map(|name| (Glob::new(&name), false)).collect(),
        }
    }

    /// Whether a model was asked for, under any of its names; names that were found are remembered.
    pub(crate) fn wants(&mut self, provider: Option<&str>, model: &str, key: &str) -> bool {
        let from = self.providers.is_empty() || provider.is_some_and(|name| self.providers.iter().any(|p| p == name));
        if !from || self.names.is_empty() {
            return from;
        }
        let full = format!("{}/{model}", provider.unwrap_or_default());
        let mut wanted = false;
        for (glob, found) in &mut self.names {
            if [model, key, &full].into_iter().any(|name| glob.matches(name)) {
                *found = true;
                wanted = true;
            }
        }
        wanted
    }

    /// Names asked for that nothing had.
    pub(crate) fn not_found(&self) -> Vec<String> {
        self.names.iter().filter(|(_, found)| !found).map(|(glob, _)| glob.as_str().to_owned()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_loses_its_provider_and_nothing_else() {
        for (key, litellm_provider, name) in [
            ("gpt-4o", "openai", "gpt-4o"),
            ("azure/gpt-4o", "azure", "gpt-4o"),
            ("azure/eu/gpt-5.1", "azure", "eu/gpt-5.1"),
            ("azure/gpt-3.5-turbo-instruct", "azure_text", "gpt-3.5-turbo-instruct"),
            ("vertex_ai/claude-sonnet-4-6", "vertex_ai-anthropic_models", "claude-sonnet-4-6"),
            ("vertex_ai/meta/llama-3.1", "vertex_ai-llama_models", "meta/llama-3.1"),
            ("bedrock/us-east-1/anthropic.claude", "bedrock", "us-east-1/anthropic.claude"),
            ("us.anthropic.claude-v1:0", "bedrock_converse", "us.anthropic.claude-v1:0"),
            ("codestral/codestral-latest", "codestral", "codestral-latest"),
            ("fireworks_ai/accounts/fireworks/models/x", "fireworks_ai", "accounts/fireworks/models/x"),
            ("high/1024-x-1024/gpt-image-1", "openai", "high/1024-x-1024/gpt-image-1"),
        ] {
            assert_eq!(model(key, litellm_provider), name);
        }
    }

    #[test]
    fn a_provider_is_one_name_whoever_names_it() {
        for (theirs, ours) in [
            ("bedrock_converse", "bedrock"),
            ("vertex_ai-language-models", "vertex_ai"),
            ("vertex_ai", "vertex_ai"),
            ("text-completion-codestral", "mistral"),
            ("text-completion-inception", "inception"),
            ("fireworks_ai-embedding-models", "fireworks_ai"),
            ("x-ai", "xai"),
            ("google", "gemini"),
            ("openai", "openai"),
        ] {
            assert_eq!(provider(theirs), ours);
        }
    }

    #[test]
    fn a_filter_takes_models_by_any_of_their_names_and_tells_what_it_missed() {
        let mut all = Filter::default();
        assert!(all.wants(None, "x", "x"));
        let mut filter = Filter::new(&["aws".into()], []);
        assert!(filter.wants(Some("bedrock"), "x", "bedrock/x"));
        assert!(!filter.wants(Some("openai"), "x", "x") && !filter.wants(None, "x", "x"));
        let names = ["gpt-4o*", "azure/gpt-5", "gemini/x", "gone"].map(String::from);
        let mut filter = Filter::new(&[], names);
        assert!(filter.wants(Some("openai"), "gpt-4o-mini", "gpt-4o-mini"));
        assert!(filter.wants(Some("azure"), "gpt-5", "azure/gpt-5"));
        assert!(filter.wants(Some("gemini"), "x", "gemini-x"));
        assert!(!filter.wants(Some("openai"), "gpt-5", "gpt-5"));
        assert_eq!(filter.not_found(), ["gone"]);
    }
}
