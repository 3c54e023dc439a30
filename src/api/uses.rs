//! What a request asks of its model beyond text in and text out: what another model may lack.

use std::fmt;

/// The most uses that a [`Uses`] can hold.
const BITS: usize = u32::BITS as usize;

macro_rules! uses {
    ($($(#[$doc:meta])* $use:ident = $name:literal,)*) => {
        /// Something a request asks for that not every model of its API has.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Use {
            $($(#[$doc])* $use,)*
        }

        impl Use {
            /// Every use, by weight: where a model lacks several, the first is named.
            pub const ALL: &'static [Use] = &[$(Use::$use,)*];

            /// Every name and what it stands for, for the configuration.
            pub const WORDS: &'static [(&'static str, Use)] = &[$(($name, Use::$use),)*];

            /// Its name in configuration and records.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Use::$use => $name,)*
                }
            }
        }
    };
}

uses! {
    /// Tools that the client runs.
    Tools = "tools",
    /// Tools that the provider defines or runs: searches, code, computers, MCP servers.
    ServerTools = "server_tools",
    /// The model may not choose to call no tool, or any.
    ForcedToolChoice = "forced_tool_choice",
    /// Images are put in.
    Vision = "vision",
    /// Sound is put in.
    Audio = "audio",
    /// Films are put in.
    Video = "video",
    /// Files are put in.
    Documents = "documents",
    /// The output is to be JSON, or JSON of a schema.
    StructuredOutput = "structured_output",
    /// Thinking is asked for or configured.
    Reasoning = "reasoning",
    /// Thinking as much as the model sees fit, which only Anthropic's newer models can.
    AdaptiveThinking = "adaptive_thinking",
    /// An effort for all of the answer, which only some of Anthropic's models take.
    Effort = "effort",
    /// The thoughts of an earlier answer are in the conversation, signed or encrypted for the model that had them.
    ReasoningHistory = "reasoning_history",
    /// How long the answer is to be.
    Verbosity = "verbosity",
    /// Probabilities of the tokens put out.
    Logprobs = "logprobs",
    /// A prediction of the answer.
    Prediction = "prediction",
    /// Speech is put out.
    AudioOutput = "audio_output",
    /// Images are put out.
    ImageOutput = "image_output",
    /// State that the provider keeps: an earlier response, a conversation, a stored prompt.
    Conversation = "conversation",
    /// A cache that was made for one model.
    CachedContent = "cached_content",
    /// Several answers to choose from.
    Choices = "choices",
    /// A service tier or speed other than the usual one.
    ServiceTier = "service_tier",
    /// The beginning of the answer is put in as the last message.
    Prefill = "prefill",
    /// Other models to answer in the place of the one asked.
    FallbackModels = "fallback_models",
    /// Fields that only some models of the API know.
    ModelFields = "model_fields",
    /// Parameters of sampling, which reasoning models refuse.
    Sampling = "sampling",
    /// OpenAI's old name for the limit on output, which its reasoning models refuse.
    MaxTokens = "max_tokens",
}

/// A set of uses.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Uses(u32);

impl Uses {
    /// The set with `one` in it.
    #[must_use]
    pub const fn with(self, one: Use) -> Uses {
        Uses(self.0 | 1 << one as u32)
    }

    /// The set without what is in `other`.
    #[must_use]
    pub const fn without(self, other: Uses) -> Uses {
        Uses(self.0 & !other.0)
    }

    /// Puts `one` in.
    pub fn insert(&mut self, one: Use) {
        *self = self.with(one);
    }

    /// Takes `one` out or puts it in.
    pub fn set(&mut self, one: Use, is_in: bool) {
        let without = self.without(Uses::default().with(one));
        *self = if is_in { self.with(one) } else { without };
    }

    /// Whether `one` is in it.
    pub const fn contains(self, one: Use) -> bool {
        self.0 & 1 << one as u32 != 0
    }

    /// What is in it, by weight.
    pub fn iter(self) -> impl Iterator<Item = Use> {
        Use::ALL.iter().copied().filter(move |&one| self.contains(one))
    }
}

impl fmt::Debug for Uses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter().map(Use::name)).finish()
    }
}

const _: () = assert!(Use::ALL.len() <= BITS, "a use has no bit");

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn every_use_has_a_bit_and_a_name_of_its_own() {
        let names: std::collections::BTreeSet<_> = Use::WORDS.iter().map(|(name, _)| name).collect();
        assert_eq!(names.len(), Use::ALL.len());
        for &one in Use::ALL {
            let alone = Uses::default().with(one);
            assert_eq!(alone.iter().collect::<Vec<_>>(), [one]);
            assert!(Use::WORDS.contains(&(one.name(), one)));
        }
    }

    #[test]
    fn a_set_holds_what_was_put_in_and_not_taken_out() {
        let mut uses = Uses::default().with(Use::MaxTokens).with(Use::Vision);
        assert_eq!(format!("{uses:?}"), r#"{"vision", "max_tokens"}"#);
        uses.set(Use::MaxTokens, false);
        uses.set(Use::Tools, true);
        uses.set(Use::Audio, false);
        uses.insert(Use::Tools);
        assert_eq!(uses.iter().collect::<Vec<_>>(), [Use::Tools, Use::Vision]);
        assert_eq!(uses.without(Uses::default().with(Use::Tools).with(Use::Audio)), Uses::default().with(Use::Vision));
        assert!(uses.contains(Use::Vision) && !uses.contains(Use::MaxTokens));
    }
}
