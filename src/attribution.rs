//! Attribution: which named owner a call is charged to.
//!
//! The dimensions and their headers are a table. A bad value (not UTF-8, empty, too long, control characters)
//! is dropped and noted, never the call. Names are matched without case, values are taken exactly.

use std::collections::BTreeMap;

/// Prefix of every header this filter reads, and takes away before the provider.
pub const HEADER_PREFIX: &str = "x-cost-";
const TAG_PREFIX: &str = "x-cost-tag-";

/// Tags kept per call; the rest are dropped and noted.
pub const MAX_TAGS: usize = 32;
/// Longest tag name, in bytes.
const MAX_TAG_NAME_BYTES: usize = 64;
/// Notes kept per call about dropped values.
const MAX_NOTES: usize = 16;

/// A built-in dimension.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)] // named as in the record; the README's header table explains each
pub enum Dimension {
    Feature,
    Department,
    Team,
    User,
    Session,
    RunId,
    ParentRunId,
    McpServer,
    AgentHandoff,
    Workload,
    Project,
    Outcome,
    GlAccount,
    CostCentre,
    BusinessUnit,
    Environment,
}

/// The headers, without their prefix, and what they mean.
const HEADERS: [(&str, Dimension); 17] = [
    ("feature", Dimension::Feature),
    ("department", Dimension::Department),
    ("team", Dimension::Team),
    ("user", Dimension::User),
    ("session", Dimension::Session),
    ("run-id", Dimension::RunId),
    ("parent-run-id", Dimension::ParentRunId),
    ("mcp-server", Dimension::McpServer),
    ("agent-handoff", Dimension::AgentHandoff),
    ("workload", Dimension::Workload),
    ("project", Dimension::Project),
    ("outcome", Dimension::Outcome),
    ("gl-account", Dimension::GlAccount),
    ("cost-centre", Dimension::CostCentre),
    ("cost-center", Dimension::CostCentre),
    ("business-unit", Dimension::BusinessUnit),
    ("environment", Dimension::Environment),
];

impl Dimension {
    /// The name in records and configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Dimension::Feature => "feature",
            Dimension::Department => "department",
            Dimension::Team => "team",
            Dimension::User => "user",
            Dimension::Session => "session",
            Dimension::RunId => "run_id",
            Dimension::ParentRunId => "parent_run_id",
            Dimension::McpServer => "mcp_server",
            Dimension::AgentHandoff => "agent_handoff",
            Dimension::Workload => "workload",
            Dimension::Project => "project",
            Dimension::Outcome => "outcome",
            Dimension::GlAccount => "gl_account",
            Dimension::CostCentre => "cost_centre",
            Dimension::BusinessUnit => "business_unit",
            Dimension::Environment => "environment",
        }
    }
}

/// Why a value was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DropReason {
    /// Not UTF-8.
    NotUtf8,
    /// Nothing in it.
    Empty,
    /// Longer than `max_value_bytes`.
    TooLong,
    /// A control character in it.
    ControlCharacter,
    /// The dimension has a value already: the first one counts.
    Repeated,
    /// A header of ours that names no dimension.
    UnknownHeader,
    /// More tags than are kept, or a name that is too long.
    TooManyTags,
}

impl DropReason {
    /// The name in notes and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            DropReason::NotUtf8 => "not_utf8",
            DropReason::Empty => "empty",
            DropReason::TooLong => "too_long",
            DropReason::ControlCharacter => "control_character",
            DropReason::Repeated => "repeated",
            DropReason::UnknownHeader => "unknown_header",
            DropReason::TooManyTags => "too_many_tags",
        }
    }
}

/// A value that did not make it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dropped {
    /// The header's name.
    pub header: Box<str>,
    /// Why.
    pub reason: DropReason,
}

/// What a call is charged to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attribution {
    /// Values of built-in dimensions.
    pub dimensions: BTreeMap<Dimension, Box<str>>,
    /// Values of the caller's own.
    pub tags: BTreeMap<Box<str>, Box<str>>,
    /// The first values that were dropped.
    pub dropped: Vec<Dropped>,
    /// How many were dropped in all, by reason.
    pub drop_counts: BTreeMap<DropReason, u64>,
}

impl Attribution {
    /// Reads the attribution headers among `headers` (names in lower case); values longer than
    /// `max_value_bytes` are dropped.
    pub fn from_headers<'h>(
        headers: impl Iterator<Item = (&'h [u8], &'h [u8])>,
        max_value_bytes: usize,
    ) -> Attribution {
        let mut attribution = Attribution::default();
        for (name, value) in headers {
            if name.starts_with(HEADER_PREFIX.as_bytes())
                && let Err(reason) = attribution.take(name, value, max_value_bytes)
            {
                attribution.note_drop(name, reason);
            }
        }
        attribution
    }

    /// The value of `dimension`.
    pub fn get(&self, dimension: Dimension) -> Option<&str> {
        self.dimensions.get(&dimension).map(|value| &**value)
    }

    fn take(&mut self, name: &[u8], value: &[u8], max_value_bytes: usize) -> Result<(), DropReason> {
        let name = str::from_utf8(name).map_err(|_| DropReason::UnknownHeader)?;
        if let Some(tag) = name.strip_prefix(TAG_PREFIX) {
            let value = check_value(value, max_value_bytes)?;
            if tag.is_empty() {
                return Err(DropReason::UnknownHeader);
            }
            if self.tags.contains_key(tag) {
                return Err(DropReason::Repeated);
            }
            if self.tags.len() >= MAX_TAGS || tag.len() > MAX_TAG_NAME_BYTES {
                return Err(DropReason::TooManyTags);
            }
            self.tags.insert(tag.into(), value.into());
            return Ok(());
        }
        let short = name.strip_prefix(HEADER_PREFIX).unwrap_or_default();
        let dimension = HEADERS.iter().find(|(header, _)| *header == short).map(|&(_, dimension)| dimension);
        let dimension = dimension.ok_or(DropReason::UnknownHeader)?;
        let value = check_value(value, max_value_bytes)?;
        if self.dimensions.contains_key(&dimension) {
            return Err(DropReason::Repeated);
        }
        self.dimensions.insert(dimension, value.into());
        Ok(())
    }

    fn note_drop(&mut self, name: &[u8], reason: DropReason) {
        *self.drop_counts.entry(reason).or_default() += 1;
        if self.dropped.len() < MAX_NOTES {
            let shown = String::from_utf8_lossy(name.get(..MAX_TAG_NAME_BYTES).unwrap_or(name));
            self.dropped.push(Dropped { header: shown.into(), reason });
        }
    }
}

fn check_value(value: &[u8], max_value_bytes: usize) -> Result<&str, DropReason> {
    let value = str::from_utf8(value).map_err(|_| DropReason::NotUtf8)?;
    if value.is_empty() {
        Err(DropReason::Empty)
    } else if value.len() > max_value_bytes {
        Err(DropReason::TooLong)
    } else if value.chars().any(char::is_control) {
        Err(DropReason::ControlCharacter)
    } else {
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn read(headers: &[(&str, &[u8])]) -> Attribution {
        Attribution::from_headers(headers.iter().map(|(name, value)| (name.as_bytes(), *value)), 128)
    }

    #[test]
    fn every_built_in_header_sets_its_dimension() {
        for (header, dimension) in HEADERS {
            let name = format!("x-cost-{header}");
            let attribution = read(&[(&name, b"value-1")]);
            assert_eq!(attribution.get(dimension), Some("value-1"), "{name}");
            assert!(attribution.dropped.is_empty());
        }
        assert_eq!(HEADERS.len(), 17, "sixteen dimensions and the other spelling of cost centre");
    }

    #[test]
    fn tags_are_the_callers_own_dimensions() {
        let attribution = read(&[("x-cost-tag-customer", b"acme"), ("x-cost-tag-tier", b"gold"), ("x-other", b"no")]);
        let tags: Vec<_> = attribution.tags.iter().map(|(name, value)| (&**name, &**value)).collect();
        assert_eq!(tags, [("customer", "acme"), ("tier", "gold")]);
    }

    #[test]
    fn a_bad_value_is_dropped_and_noted_and_the_rest_stays() {
        let long = vec![b'x'; 129];
        let name = "x-cost-team";
        for (value, reason) in [
            (&b"\xff\xfe"[..], DropReason::NotUtf8),
            (b"", DropReason::Empty),
            (&long, DropReason::TooLong),
            (b"a\tb", DropReason::ControlCharacter),
            (b"a\x7f", DropReason::ControlCharacter),
            ("a\u{85}b".as_bytes(), DropReason::ControlCharacter),
        ] {
            let attribution = read(&[(name, value), ("x-cost-feature", b"chat")]);
            assert_eq!(attribution.dropped, [Dropped { header: name.into(), reason }]);
            assert_eq!(attribution.get(Dimension::Team), None);
            assert_eq!(attribution.get(Dimension::Feature), Some("chat"));
        }
    }

    #[test]
    fn the_first_of_repeated_headers_wins_in_either_spelling() {
        let attribution = read(&[
            ("x-cost-cost-center", b"1"),
            ("x-cost-cost-centre", b"2"),
            ("x-cost-tag-a", b"1"),
            ("x-cost-tag-a", b"2"),
        ]);
        assert_eq!(attribution.get(Dimension::CostCentre), Some("1"));
        assert_eq!(attribution.dropped.len(), 2);
        assert!(attribution.dropped.iter().all(|dropped| dropped.reason == DropReason::Repeated));
    }

    #[test]
    fn a_header_of_ours_that_means_nothing_is_noted() {
        let attribution = read(&[("x-cost-departement", b"sales"), ("x-cost-tag-", b"x"), ("x-cost-", b"x")]);
        assert!(attribution.dropped.iter().all(|dropped| dropped.reason == DropReason::UnknownHeader));
        assert_eq!(attribution.dropped.len(), 3);
    }

    #[test]
    fn a_thousand_tags_are_bounded_and_counted() {
        let names: Vec<String> = (0..1000).map(|n| format!("x-cost-tag-{n}")).collect();
        let headers: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), &b"v"[..])).collect();
        let attribution = read(&headers);
        assert_eq!(attribution.tags.len(), MAX_TAGS);
        assert_eq!(attribution.drop_counts[&DropReason::TooManyTags], 1000 - MAX_TAGS as u64);
        assert_eq!(attribution.dropped.len(), MAX_NOTES);
    }
}
