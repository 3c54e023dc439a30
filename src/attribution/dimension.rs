//! The built-in dimensions and their headers, and how dimensions are named.

use super::TAG_PREFIX;
use super::rules::Slot;
use std::borrow::Cow;
use std::rc::Rc;

macro_rules! dimensions {
    ($($dimension:ident: $name:literal,)*) => {
        /// A built-in dimension.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[allow(missing_docs)] // named as in the record; the README's header table explains each
        pub enum Dimension {
            $($dimension,)*
        }

        impl Dimension {
            /// Every one of them.
            pub const ALL: [Dimension; [$($name),*].len()] = [$(Dimension::$dimension),*];

            /// The name in records and configuration.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Dimension::$dimension => $name,)*
                }
            }

            /// The name as the key of a JSON object, a comma before it.
            pub const fn json_key(self) -> &'static str {
                match self {
                    $(Dimension::$dimension => concat!(",\"", $name, "\":"),)*
                }
            }

            /// The one of this name.
            pub fn named(name: &str) -> Option<Dimension> {
                match name {
                    $($name => Some(Dimension::$dimension),)*
                    _ => None,
                }
            }
        }
    };
}

dimensions! {
    Feature: "feature",
    Department: "department",
    Team: "team",
    User: "user",
    Session: "session",
    RunId: "run_id",
    ParentRunId: "parent_run_id",
    McpServer: "mcp_server",
    AgentHandoff: "agent_handoff",
    Workload: "workload",
    Project: "project",
    Outcome: "outcome",
    GlAccount: "gl_account",
    CostCentre: "cost_centre",
    BusinessUnit: "business_unit",
    Environment: "environment",
}

/// The headers that each dimension is read from where the configuration says nothing else.
pub(super) const HEADERS: [(&str, Dimension); 17] = [
    ("x-cost-feature", Dimension::Feature),
    ("x-cost-department", Dimension::Department),
    ("x-cost-team", Dimension::Team),
    ("x-cost-user", Dimension::User),
    ("x-cost-session", Dimension::Session),
    ("x-cost-run-id", Dimension::RunId),
    ("x-cost-parent-run-id", Dimension::ParentRunId),
    ("x-cost-mcp-server", Dimension::McpServer),
    ("x-cost-agent-handoff", Dimension::AgentHandoff),
    ("x-cost-workload", Dimension::Workload),
    ("x-cost-project", Dimension::Project),
    ("x-cost-outcome", Dimension::Outcome),
    ("x-cost-gl-account", Dimension::GlAccount),
    ("x-cost-cost-centre", Dimension::CostCentre),
    ("x-cost-cost-center", Dimension::CostCentre),
    ("x-cost-business-unit", Dimension::BusinessUnit),
    ("x-cost-environment", Dimension::Environment),
];

/// A header's name, without a copy where it is one of ours.
pub(super) fn header_name(name: &str) -> Cow<'static, str> {
    let own = HEADERS.iter().find(|(own, _)| *own == name);
    own.map_or_else(|| Cow::Owned(name.to_owned()), |&(own, _)| Cow::Borrowed(own))
}

impl Dimension {
    /// Its slot: the built-in dimensions have the first ones.
    pub(super) const fn slot(self) -> Slot {
        self as Slot
    }

    /// Whether its values are ids and codes, to be joined with other systems' as they are: never normalised, and no two
    /// of them are taken for spellings of the same thing.
    pub const fn is_id(self) -> bool {
        matches!(
            self,
            Dimension::User
                | Dimension::Session
                | Dimension::RunId
                | Dimension::ParentRunId
                | Dimension::GlAccount
                | Dimension::CostCentre
        )
    }
}

/// The name of a dimension, built in or the user's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Name {
    /// A field of the record.
    BuiltIn(Dimension),
    /// An entry of the record's `tags`.
    Tag(Rc<str>),
}

impl Name {
    /// The name that a configuration means.
    pub fn new(name: &str) -> Name {
        Dimension::named(name).map_or_else(|| Name::Tag(name.into()), Name::BuiltIn)
    }

    /// As in the configuration.
    pub fn as_str(&self) -> &str {
        match self {
            Name::BuiltIn(dimension) => dimension.name(),
            Name::Tag(tag) => tag,
        }
    }

    /// Whether its values are ids and codes: [`Dimension::is_id`].
    pub const fn is_id(&self) -> bool {
        matches!(self, Name::BuiltIn(dimension) if dimension.is_id())
    }

    /// Its place in the record: `department`, `tags.customer`.
    pub fn place(&self) -> Cow<'static, str> {
        match self {
            Name::BuiltIn(dimension) => Cow::Borrowed(dimension.name()),
            Name::Tag(tag) => Cow::Owned(format!("tags.{tag}")),
        }
    }

    /// The headers it is read from where the configuration names no sources.
    pub(super) fn default_headers(&self) -> Vec<Box<str>> {
        match self {
            Name::BuiltIn(dimension) => {
                HEADERS.iter().filter(|(_, of)| of == dimension).map(|&(header, _)| header.into()).collect()
            }
            Name::Tag(tag) => vec![format!("{TAG_PREFIX}{tag}").into()],
        }
    }
}
