//! What one JSON text of a reply says of usage, until it is over.

use super::super::{Side, Slot};
use super::Iteration;
use crate::body::json::Value;
use crate::money::Decimal;
use crate::usage::{Unit, UsageReport};
use std::collections::BTreeMap;

/// Iterations of one reply that are kept; a reply has a handful.
const MAX_ITERATIONS: usize = 64;

/// What the JSON text at hand says of usage; it counts once the text is over and not damaged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Staged {
    /// The usage object being read.
    pub(super) open: Option<UsageReport>,
    /// Whether it says that the cache is one that the caller asked for.
    pub(super) explicit_cache: bool,
    /// Usage objects that are whole.
    pub(super) usage: UsageReport,
    pub(super) iterations: Vec<Iteration>,
    pub(super) in_iteration: bool,
    pub(super) detail: Option<Detail>,
    pub(super) units: BTreeMap<Unit, Decimal>,
    pub(super) searches: u64,
    /// Of the searches: those that only looked at what an earlier one had found.
    pub(super) pages: u64,
    pub(super) elements: u64,
    /// It begins the counting anew.
    pub(super) anew: bool,
    /// It is an event that says of an error.
    pub(super) is_error: bool,
    pub(super) code: Option<Box<str>>,
}

/// An element of a list of counts by modality, which come in either order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Detail {
    pub(super) side: Side,
    pub(super) modality: Option<Modality>,
    pub(super) tokens: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Modality {
    Audio,
    Image,
    Video,
    /// Not a modality: a cache's lifetime of an hour.
    OneHour,
    /// As little: a tool that searches the web.
    WebSearch,
}

impl Modality {
    /// By its name, or its number in Google's enumeration.
    pub(super) fn of(value: Value<'_>) -> Option<Modality> {
        let name = match value {
            Value::Text { text, .. } | Value::Number(text) => text,
            _ => return None,
        };
        match name {
            "AUDIO" | "audio" | "4" => Some(Modality::Audio),
            "IMAGE" | "image" | "2" => Some(Modality::Image),
            "VIDEO" | "video" | "3" => Some(Modality::Video),
            "1h" => Some(Modality::OneHour),
            "google_search" => Some(Modality::WebSearch),
            _ => None,
        }
    }
}

impl Staged {
    /// The counts a value belongs to: those of the iteration or of the usage object being read.
    pub(super) fn counts(&mut self) -> &mut UsageReport {
        match self.iterations.last_mut() {
            Some(iteration) if self.in_iteration => &mut iteration.usage,
            _ => self.open.get_or_insert_default(),
        }
    }

    /// Takes a count. Of several names of one the highest counts: servers write zeros under those they do not use.
    pub(super) fn count(&mut self, slot: Slot, tokens: u64) {
        let count = slot(self.counts());
        *count = (*count).max(Some(tokens));
    }

    pub(super) fn usage_object(&mut self, value: Value<'_>) {
        match value {
            Value::Object => {
                self.open = Some(UsageReport::default());
                self.explicit_cache = false;
            }
            Value::End => {
                if let Some(mut report) = self.open.take() {
                    if self.explicit_cache {
                        report.explicit_cached_input = report.cached_input;
                    }
                    self.usage.update(&report);
                }
            }
            _ => self.open = None,
        }
    }

    pub(super) fn iteration(&mut self, value: Value<'_>) {
        match value {
            Value::Object => {
                // Beyond the bound the last one is counted over: its counts must not be taken for the whole call's.
                if self.iterations.len() < MAX_ITERATIONS {
                    self.iterations.push(Iteration::default());
                }
                self.in_iteration = true;
            }
            _ => self.in_iteration = false,
        }
    }

    pub(super) fn end_detail(&mut self) {
        let Some(Detail { side, modality: Some(modality), tokens: Some(tokens) }) = self.detail.take() else { return };
        if (side, modality) == (Side::Tools, Modality::WebSearch) {
            return self.grounded_on(tokens);
        }
        let counts = self.counts();
        let slot = match (side, modality) {
            (Side::Prompt, Modality::Audio) => &mut counts.input_audio,
            (Side::Prompt, Modality::Image) => &mut counts.input_image,
            (Side::Prompt, Modality::Video) => &mut counts.input_video,
            (Side::Cache, Modality::Audio) => &mut counts.cached_input_audio,
            (Side::Cache, Modality::Image) => &mut counts.cached_input_image,
            (Side::Cache, Modality::Video) => &mut counts.cached_input_video,
            (Side::Answer, Modality::Audio) => &mut counts.output_audio,
            (Side::Answer, Modality::Image) => &mut counts.output_image,
            (Side::Answer, Modality::Video) => &mut counts.output_video,
            (Side::CacheWrite, Modality::OneHour) => &mut counts.cache_creation_1h,
            _ => return,
        };
        // Google counts what its own tools read in a list of its own.
        *slot = Some(slot.unwrap_or(0).saturating_add(tokens));
    }

    /// The answer is grounded on so many searches.
    pub(super) fn grounded_on(&mut self, searches: u64) {
        if searches > 0 {
            self.units.insert(Unit::WebSearchRequests, Decimal::from(searches));
            self.units.insert(Unit::GroundedRequests, Decimal::ONE);
        }
    }

    /// Counts the searches among the things put out.
    pub(super) fn count_searches(&mut self) {
        match self.searches.saturating_sub(self.pages) {
            0 => self.units.remove(&Unit::WebSearchRequests),
            searches => self.units.insert(Unit::WebSearchRequests, Decimal::from(searches)),
        };
    }
}
