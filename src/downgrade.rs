//! Whether another model can do what a request asks for.
//!
//! A smaller model is worth nothing if its provider answers with an error: it may lack vision, refuse a temperature, or
//! think with fewer tokens than it is told to. What a request asks for is known from its body ([`Uses`]); what a target
//! can do is what its operator says. Where that is not said, only what nearly every model can do is assumed.

use crate::api::uses::{Use, Uses};
use crate::api::{Api, RequestFacts};
use crate::estimate::Asked;

/// What the target of a downgrade can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// What may be asked of it.
    pub uses: Uses,
    /// The most output tokens it takes for a limit: a request that asks for more is lowered to it.
    pub max_output_tokens: Option<u64>,
}

impl Default for Capabilities {
    /// What is assumed of a target that nothing is said about.
    fn default() -> Capabilities {
        let uses = Uses::default().with(Use::Tools).with(Use::Sampling).with(Use::MaxTokens);
        Capabilities { uses, max_output_tokens: None }
    }
}

/// Why a request can't go to a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misfit {
    /// It asks for what the target lacks.
    Lacks(Use),
    /// With its limit lowered there is no room for the thinking it asks for, which providers refuse.
    ThinkingBudget,
}

impl Misfit {
    /// Its name, which for what a target lacks is that of the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Misfit::Lacks(one) => one.name(),
            Misfit::ThinkingBudget => "thinking_budget",
        }
    }

    /// The note in the record.
    pub fn note(self) -> String {
        format!("downgrade_misfit:{}", self.name())
    }
}

/// The first thing about a request that does not fit the target; `None` where it fits.
pub fn misfit(request: &RequestFacts, target: &Capabilities) -> Option<Misfit> {
    if let Some(lacking) = request.uses.without(target.uses).iter().next() {
        return Some(Misfit::Lacks(lacking));
    }
    let lowered = target.max_output_tokens.filter(|&most| request.max_output_tokens.is_some_and(|limit| limit > most));
    let too_small = lowered.is_some_and(|limit| request.thinking_budget.is_some_and(|budget| budget >= limit));
    too_small.then_some(Misfit::ThinkingBudget)
}

/// Whether a call may go to the model `to` for all that its body does not say: it can be read there, and costs less.
pub fn fits(api: Api, asked: &Asked<'_>, to: &str) -> bool {
    reads_alike(api, asked.model.unwrap_or_default(), to) && asked.is_cheaper(to)
}

/// Whether a body that is written for the model `from` can be read by the model `to`. One format serves all models of an
/// API, but Bedrock's InvokeModel passes each vendor's own, and does not say which behind the name of a profile.
pub fn reads_alike(api: Api, from: &str, to: &str) -> bool {
    if api != Api::BedrockInvoke {
        return true;
    }
    let from = bedrock_family(from);
    from.is_some() && from == bedrock_family(to)
}

/// The vendor in `{region}.{vendor}.{model}`, where the region may be missing and an ARN stand before, and the series of
/// Amazon's models, of which each has a format of its own.
fn bedrock_family(id: &str) -> Option<(&str, &str)> {
    let id = id.rsplit('/').next().unwrap_or(id);
    let (first, rest) = id.split_once('.')?;
    // The names of models have dots too, but hyphens before them.
    let (vendor, model) = rest.split_once('.').filter(|(second, _)| !second.contains('-')).unwrap_or((first, rest));
    let series = if vendor == "amazon" { model.split('-').next().unwrap_or_default() } else { "" };
    Some((vendor, series))
}

#[cfg(test)]
mod tests;
