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

pub(super) fn read(node: Node<'_, '_>, rules: &Rules) -> Option<AccessLogConfig> {
    let object = node.object()?;
    let default = AccessLogConfig::default();
    let one = |node: Node<'_, '_>| {
        let name = node.text()?;
        let known = Field::NAMES.iter().any(|(own, _)| *own == name);
        // The model asked for is a field: one name for a thing is enough.
        if !known && (name == "model" || !budgets::is_key(&name, rules)) {
            let fields: Vec<_> = Field::NAMES.iter().map(|(name, _)| *name).collect();
            node.error(format!(
                "{name:?} cannot be shown; expected {}, api_key, a dimension, or tags.<name>",
                fields.join(", ")
            ));
        }
        Some(value(&name))
    };
    let values = object.get("values").and_then(|list| list.list(one));
    let progress = object.get("progress_secs").and_then(|node| node.integer(0..=86_400));
    object.finish();
    Some(AccessLogConfig {
        values: values.unwrap_or(default.values),
        progress_secs: progress.unwrap_or(default.progress_secs),
    })
}
