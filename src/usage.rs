//! Token usage: what one provider event said, and what a call used in the end.
//!
//! Providers disagree on which counts contain which. A [`UsageReport`] is one event's counts under
//! OpenTelemetry's rule (`input` contains cached tokens, `output` contains reasoning) or as close as the
//! wire format gets; [`UsageReport::normalise`] turns it into a [`TokenUsage`] whose subsets fit inside their
//! totals, and says what had to be corrected. [`TokenUsage::buckets`] takes that apart into disjoint classes,
//! so that a token can be charged only once. A count nobody reported is `None`, never zero.

/// A class of tokens with its own rate. Classes are disjoint: each token of a call is in exactly one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // the names are the price table's and are documented there
pub enum Class {
    Input,
    CachedInput,
    /// Read from a cache that the caller asked for, where the provider keeps another one by itself (Alibaba).
    ExplicitCachedInput,
    CacheCreation,
    CacheCreation1h,
    /// No provider counts it yet; price tables have rates for it.
    CacheCreation12h,
    /// As the one above.
    CacheCreationAudio,
    InputAudio,
    CachedInputAudio,
    CachedInputImage,
    InputImage,
    InputVideo,
    Output,
    Reasoning,
    OutputAudio,
    OutputImage,
    OutputVideo,
    Citation,
}

impl Class {
    /// Every class, in the order charges are listed.
    pub const ALL: [Class; 18] = [
        Class::Input,
        Class::CachedInput,
        Class::ExplicitCachedInput,
        Class::CacheCreation,
        Class::CacheCreation1h,
        Class::CacheCreation12h,
        Class::CacheCreationAudio,
        Class::InputAudio,
        Class::CachedInputAudio,
        Class::CachedInputImage,
        Class::InputImage,
        Class::InputVideo,
        Class::Output,
        Class::Reasoning,
        Class::OutputAudio,
        Class::OutputImage,
        Class::OutputVideo,
        Class::Citation,
    ];

    /// The name in price tables, records and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Class::Input => "input",
            Class::CachedInput => "cached_input",
            Class::ExplicitCachedInput => "explicit_cached_input",
            Class::CacheCreation => "cache_creation",
            Class::CacheCreation1h => "cache_creation_1h",
            Class::CacheCreation12h => "cache_creation_12h",
            Class::CacheCreationAudio => "cache_creation_audio",
            Class::InputAudio => "input_audio",
            Class::CachedInputAudio => "cached_input_audio",
            Class::CachedInputImage => "cached_input_image",
            Class::InputImage => "input_image",
            Class::InputVideo => "input_video",
            Class::Output => "output",
            Class::Reasoning => "reasoning",
            Class::OutputAudio => "output_audio",
            Class::OutputImage => "output_image",
            Class::OutputVideo => "output_video",
            Class::Citation => "citation",
        }
    }

    /// The class whose rate applies where this one has none.
    pub const fn parent(self) -> Option<Class> {
        match self {
            Class::Input | Class::Output => None,
            Class::CachedInput | Class::CacheCreation | Class::InputAudio | Class::InputImage | Class::InputVideo => {
                Some(Class::Input)
            }
            Class::CacheCreation1h | Class::CacheCreation12h | Class::CacheCreationAudio => Some(Class::CacheCreation),
            Class::ExplicitCachedInput | Class::CachedInputAudio | Class::CachedInputImage => Some(Class::CachedInput),
            Class::Reasoning | Class::OutputAudio | Class::OutputImage | Class::OutputVideo | Class::Citation => {
                Some(Class::Output)
            }
        }
    }
}

/// Things that are billed and are not tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)] // the names say it
pub enum Unit {
    WebSearchRequests,
    SearchUnits,
    Pages,
    Characters,
    AudioSeconds,
    Images,
    /// Calls that searched, however often.
    GroundedRequests,
    /// Calls: every call is one.
    Requests,
}

impl Unit {
    /// Every unit, in the order charges are listed.
    pub const ALL: [Unit; 8] = [
        Unit::WebSearchRequests,
        Unit::SearchUnits,
        Unit::Pages,
        Unit::Characters,
        Unit::AudioSeconds,
        Unit::Images,
        Unit::GroundedRequests,
        Unit::Requests,
    ];

    /// The name in price tables, records and charges.
    pub const fn name(self) -> &'static str {
        match self {
            Unit::WebSearchRequests => "web_search_requests",
            Unit::SearchUnits => "search_units",
            Unit::Pages => "pages",
            Unit::Characters => "characters",
            Unit::AudioSeconds => "audio_seconds",
            Unit::Images => "images",
            Unit::GroundedRequests => "grounded_requests",
            Unit::Requests => "requests",
        }
    }

    /// What one of it is called in a charge.
    pub const fn unit_name(self) -> &'static str {
        match self {
            Unit::WebSearchRequests | Unit::GroundedRequests | Unit::Requests => "requests",
            Unit::SearchUnits => "search_units",
            Unit::Pages => "pages",
            Unit::Characters => "characters",
            Unit::AudioSeconds => "seconds",
            Unit::Images => "images",
        }
    }
}

/// Counts as reported; every one may be missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UsageReport {
    /// All prompt tokens.
    pub input: Option<u64>,
    /// Of `input`: read from the provider's cache.
    pub cached_input: Option<u64>,
    /// Of `cached_input`: read from a cache that the caller asked for.
    pub explicit_cached_input: Option<u64>,
    /// Of `input`: written to the provider's cache.
    pub cache_creation: Option<u64>,
    /// Of `cache_creation`: written with a one-hour lifetime.
    pub cache_creation_1h: Option<u64>,
    /// Of `input`: audio.
    pub input_audio: Option<u64>,
    /// Of `cached_input`: audio.
    pub cached_input_audio: Option<u64>,
    /// Of `cached_input`: images.
    pub cached_input_image: Option<u64>,
    /// Of `cached_input`: video.
    pub cached_input_video: Option<u64>,
    /// Of `input`: images.
    pub input_image: Option<u64>,
    /// Of `input`: video.
    pub input_video: Option<u64>,
    /// All generated tokens.
    pub output: Option<u64>,
    /// Of `output`: reasoning.
    pub reasoning: Option<u64>,
    /// Of `output`: audio.
    pub output_audio: Option<u64>,
    /// Of `output`: images.
    pub output_image: Option<u64>,
    /// Of `output`: video.
    pub output_video: Option<u64>,
    /// The provider's own total.
    pub total: Option<u64>,
    /// Prompt tokens of the provider's own tool use that `input` does not contain (Gemini, Mistral).
    pub tool_use_input: Option<u64>,
    /// Text written back into the answer as citations, which `output` does not contain (Perplexity).
    pub citation: Option<u64>,
}

/// How the counts of a wire format are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// `input` contains cached tokens and `output` reasoning; exceptions are told by their arithmetic.
    OpenAi,
    /// As OpenAI, but reasoning is always on top of `output` (a quirk no arithmetic shows).
    ReasoningApart,
    /// Cached tokens, read and written, are on top of `input` (Anthropic, Bedrock).
    CacheApart,
    /// Reasoning is on top of `output`, and the provider's tool use on top of `input` (Gemini).
    ThoughtsApart,
    /// Images are on top of `input` (Cohere's embeddings).
    ImagesApart,
    /// As OpenAI, and what the total has on top of `input` and `output` is sound put in, which is counted in seconds too
    /// (Mistral).
    SoundApart,
    /// As OpenAI, and what is generated is images unless the report takes it apart.
    GeneratesImages,
    /// The same of sound.
    GeneratesAudio,
}

impl UsageReport {
    /// Takes over what a later event says; what it leaves out stays.
    pub fn update(&mut self, later: &UsageReport) {
        let UsageReport {
            input,
            cached_input,
            explicit_cached_input,
            cache_creation,
            cache_creation_1h,
            input_audio,
            cached_input_audio,
            cached_input_image,
            cached_input_video,
            input_image,
            input_video,
            output,
            reasoning,
            output_audio,
            output_image,
            output_video,
            total,
            tool_use_input,
            citation,
        } = *later;
        for (mine, theirs) in [
            (&mut self.input, input),
            (&mut self.cached_input, cached_input),
            (&mut self.explicit_cached_input, explicit_cached_input),
            (&mut self.cache_creation, cache_creation),
            (&mut self.cache_creation_1h, cache_creation_1h),
            (&mut self.input_audio, input_audio),
            (&mut self.cached_input_audio, cached_input_audio),
            (&mut self.cached_input_image, cached_input_image),
            (&mut self.cached_input_video, cached_input_video),
            (&mut self.input_image, input_image),
            (&mut self.input_video, input_video),
            (&mut self.output, output),
            (&mut self.reasoning, reasoning),
            (&mut self.output_audio, output_audio),
            (&mut self.output_image, output_image),
            (&mut self.output_video, output_video),
            (&mut self.total, total),
            (&mut self.tool_use_input, tool_use_input),
            (&mut self.citation, citation),
        ] {
            if theirs.is_some() {
                *mine = theirs;
            }
        }
    }

    /// True when no count is known.
    pub fn is_empty(&self) -> bool {
        *self == UsageReport::default()
    }

    /// Brings a report to one rule: totals that contain their subsets, nothing below zero.
    pub fn normalise(&self, rule: Rule) -> TokenUsage {
        let mut counts = *self;
        match rule {
            Rule::OpenAi | Rule::GeneratesImages | Rule::GeneratesAudio => counts.add_what_arithmetic_shows(),
            Rule::ReasoningApart => {
                counts.output = sum(&[counts.output, counts.reasoning]);
            }
            Rule::CacheApart => {
                counts.input = sum(&[counts.input, counts.cached_input, counts.cache_creation]);
            }
            Rule::ThoughtsApart => {
                counts.input = sum(&[counts.input, counts.tool_use_input]);
                counts.output = sum(&[counts.output, counts.reasoning]);
            }
            Rule::ImagesApart => counts.input = sum(&[counts.input, counts.input_image]),
            Rule::SoundApart => counts.add_sound(),
        }
        let generates = match rule {
            Rule::GeneratesImages if counts.output_image.is_none() => Some(Class::OutputImage),
            Rule::GeneratesAudio if counts.output_audio.is_none() => Some(Class::OutputAudio),
            _ => None,
        };
        TokenUsage { generates, ..counts.contain() }
    }

    /// Dialects of OpenAI's report, told apart by their own arithmetic and not by provider: reasoning that is larger
    /// than the completion, or that the total shows to be on top of it, is added (xAI); a total above prompt and
    /// completion without a reasoning count is hidden thinking (Gemini's OpenAI dialect); audio and the prompts of tools
    /// that the total shows to be on top of the prompt are added (Mistral).
    fn add_what_arithmetic_shows(&mut self) {
        if self.input.is_none() && self.output.is_none() {
            // Embeddings of some servers report nothing but a total.
            self.input = self.total;
        }
        let Some(output) = self.output else { return };
        let reasoning = self.reasoning.unwrap_or(0);
        let prompt_and_output = self.input.unwrap_or(0).saturating_add(output);
        // Citations are Perplexity's deep research, whose reasoning is on top of the completion.
        let additive = reasoning > output
            || (reasoning > 0 && self.citation.is_some())
            || (reasoning > 0 && self.total == Some(prompt_and_output.saturating_add(reasoning)));
        if additive {
            self.output = Some(output.saturating_add(reasoning));
        } else if let (Some(total), Some(input)) = (self.total, self.input) {
            let (audio, tools) = (self.input_audio.unwrap_or(0), self.tool_use_input.unwrap_or(0));
            if audio > 0 && total == prompt_and_output.saturating_add(audio) {
                self.input = Some(input.saturating_add(audio));
            } else if tools > 0 && total == prompt_and_output.saturating_add(tools) {
                self.input = Some(input.saturating_add(tools));
            } else if total > prompt_and_output && self.reasoning.is_none() {
                self.output = Some(total.saturating_sub(input));
            }
        }
    }

    /// Adds the sound that only the total counts.
    fn add_sound(&mut self) {
        let Some(counted) = sum(&[self.input, self.output]) else {
            self.input = self.total;
            return;
        };
        let sound = self.total.unwrap_or(0).saturating_sub(counted);
        if sound > 0 {
            self.input = sum(&[self.input, Some(sound)]);
            self.input_audio = self.input_audio.max(Some(sound));
        }
    }

    /// Lowers every subset to its total.
    fn contain(mut self) -> TokenUsage {
        let mut clamped = false;
        for (part, whole) in [
            (&mut self.cached_input, self.input),
            (&mut self.input_audio, self.input),
            (&mut self.input_image, self.input),
            (&mut self.input_video, self.input),
            (&mut self.output_audio, self.output),
            (&mut self.output_image, self.output),
            (&mut self.output_video, self.output),
            (&mut self.reasoning, self.output),
        ] {
            clamped |= clamp(part, whole);
        }
        let uncached = self.input.map(|input| input.saturating_sub(self.cached_input.unwrap_or(0)));
        clamped |= clamp(&mut self.cache_creation, uncached);
        clamped |= clamp(&mut self.cache_creation_1h, self.cache_creation);
        for part in [
            &mut self.explicit_cached_input,
            &mut self.cached_input_audio,
            &mut self.cached_input_image,
            &mut self.cached_input_video,
        ] {
            clamped |= clamp(part, self.cached_input);
        }
        TokenUsage { counts: self, clamped, generates: None }
    }
}

/// The sum of what is known; unknown where nothing is.
fn sum(parts: &[Option<u64>]) -> Option<u64> {
    parts.iter().flatten().copied().reduce(u64::saturating_add)
}

/// Lowers `part` to `whole`, where both are known; true if it had to.
fn clamp(part: &mut Option<u64>, whole: Option<u64>) -> bool {
    match (*part, whole) {
        (Some(count), Some(limit)) if count > limit => {
            *part = Some(limit);
            true
        }
        _ => false,
    }
}

/// A call's usage with every subset inside its total.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TokenUsage {
    counts: UsageReport,
    clamped: bool,
    /// What the output is where the report does not take it apart and it is no text.
    generates: Option<Class>,
}

impl TokenUsage {
    /// The counts, subsets inside their totals.
    pub fn counts(&self) -> &UsageReport {
        &self.counts
    }

    /// Whether there is something to price: input or output, be it none.
    pub fn is_known(&self) -> bool {
        self.counts.input.is_some() || self.counts.output.is_some()
    }

    /// True when the provider's counts contradicted each other and a subset was lowered to its total.
    pub fn clamped(&self) -> bool {
        self.clamped
    }

    /// Every token in exactly one class. Classes without tokens are left out.
    pub fn buckets(&self) -> impl Iterator<Item = (Class, u64)> {
        let known = |count: Option<u64>| count.unwrap_or(0);
        let counts = &self.counts;

        let cached = known(counts.cached_input);
        let mut plain_cached = cached;
        let mut take_cached = |wanted: u64| {
            let taken = wanted.min(plain_cached);
            plain_cached -= taken;
            taken
        };
        let cached_audio = take_cached(known(counts.cached_input_audio));
        let cached_image = take_cached(known(counts.cached_input_image));
        let cached_video = known(counts.cached_input_video).min(plain_cached);
        let explicit_cached = known(counts.explicit_cached_input).min(plain_cached);
        let created = known(counts.cache_creation);
        let created_1h = known(counts.cache_creation_1h).min(created);
        let mut fresh = known(counts.input).saturating_sub(cached).saturating_sub(created);
        let mut take_fresh = |wanted: u64| {
            let taken = wanted.min(fresh);
            fresh -= taken;
            taken
        };
        let audio = take_fresh(known(counts.input_audio).saturating_sub(cached_audio));
        let image = take_fresh(known(counts.input_image).saturating_sub(cached_image));
        let video = take_fresh(known(counts.input_video).saturating_sub(cached_video));

        let mut generated = known(counts.output);
        let mut take_generated = |wanted: u64| {
            let taken = wanted.min(generated);
            generated -= taken;
            taken
        };
        let reasoning = take_generated(known(counts.reasoning));
        let output_audio = take_generated(known(counts.output_audio));
        let output_image = take_generated(known(counts.output_image));
        let output_video = take_generated(known(counts.output_video));

        [
            (Class::Input, fresh),
            (Class::CachedInput, plain_cached.saturating_sub(explicit_cached)),
            (Class::ExplicitCachedInput, explicit_cached),
            (Class::CacheCreation, created.saturating_sub(created_1h)),
            (Class::CacheCreation1h, created_1h),
            (Class::InputAudio, audio),
            (Class::CachedInputAudio, cached_audio),
            (Class::CachedInputImage, cached_image),
            (Class::InputImage, image),
            (Class::InputVideo, video),
            (self.generates.unwrap_or(Class::Output), generated),
            (Class::Reasoning, reasoning),
            (Class::OutputAudio, output_audio),
            (Class::OutputImage, output_image),
            (Class::OutputVideo, output_video),
            (Class::Citation, known(counts.citation)),
        ]
        .into_iter()
        .filter(|&(_, tokens)| tokens > 0)
    }
}

#[cfg(test)]
mod tests;
