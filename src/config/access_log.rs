//! The section `access_log`: what filter state holds for Envoy's access log besides the record.

use super::budgets;
use super::node::Node;
use crate::attribution::Rules;
use crate::record::logged::{Field, LoggedValue, Source};

/// What single values are called in filter state, before their own name.
const KEY_PREFIX: &str = "tollgate.";

/// Values that are kept unless the configuration says otherwise.
const DEFAULT_VALUES: [&str; 3] = ["cost_usd", "feature", "department"];

/// The section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessLogConfig {
    /// Values with a key of their own.
    pub values: Vec<LoggedValue>,
    /// How often the record of a stream under way is brought up to date, in seconds; 0: never.
    pub progress_secs: u64,
}

impl Default for AccessLogConfig {
    fn default() -> AccessLogConfig {
        AccessLogConfig { values: DEFAULT_VALUES.map(value).into(), progress_secs: 10 }
    }
}

fn value(name: &str) -> LoggedValue {
    let field = Field::NAMES.iter().find(|(own, _)| *own == name).map(|(_, field)| Source::Field(*field));
    let source = field.unwrap_or_else(|| Source::Attribution(name.into()));
    LoggedValue { key: format!("{KEY_PREFIX}{name}").into(), source }
}

/// Whether a record has a single value of this name.
pub(super) fn is_value(name: &str, rules: &Rules) -> bool {
    let is_field = Field::NAMES.iter().any(|(own, _)| *own == name);
    // The model asked for is a field, and the record's key is its own: one name for a thing is enough.
    is_field || (!matches!(name, "model" | "record") && budgets::is_key(name, rules))
}

/// What is wrong with such a name.
pub(super) fn no_value(name: &str) -> String {
    let fields: Vec<_> = Field::NAMES.iter().map(|(name, _)| *name).collect();
    format!("{name:?} is no single value; expected {}, api_key, a dimension, or tags.<name>", fields.join(", "))
}

pub(super) fn read(node: Node<'_, '_>, rules: &Rules) -> Option<AccessLogConfig> {
    let object = node.object()?;
    let default = AccessLogConfig::default();
    let one = |node: Node<'_, '_>| {
        let name = node.text()?;
        if !is_value(&name, rules) {
            node.error(no_value(&name));
        }
        Some(value(&name))
    };
    let values = object.get("values").and_then(|list| list.list(one));
    let progress = object.get("progress_secs").and_then(|node| node.integer(0..=86_400));
    if let Some(values) = &values {
        for (index, value) in values.iter().enumerate() {
            if values.iter().take(index).any(|other| other == value) {
                object.error_at(&format!(".values[{index}]"), "is there twice");
            }
        }
    }
    object.finish();
    Some(AccessLogConfig {
        values: values.unwrap_or(default.values),
        progress_secs: progress.unwrap_or(default.progress_secs),
    })
}
