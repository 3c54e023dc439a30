//! A price table as single values by path, so that two tables can be compared price by price.

use super::layout::Doc;
use super::table::{Model, Terms};
use std::collections::BTreeMap;

/// Values by path: `tiers[over 272000].rates.input` is `5`.
pub(crate) type Leaves = BTreeMap<String, String>;

/// Every price in `terms`.
pub(crate) fn of_terms(terms: &Terms) -> Leaves {
    of(&Model { terms: terms.clone(), ..Model::default() }.doc())
}

/// Every value in `doc`.
pub(crate) fn of(doc: &Doc) -> Leaves {
    let mut leaves = Leaves::new();
    collect(doc, "", &mut leaves);
    leaves
}

fn collect(doc: &Doc, path: &str, leaves: &mut Leaves) {
    match doc {
        Doc::Text(text) => drop(leaves.insert(path.into(), text.clone())),
        Doc::Number(number) => drop(leaves.insert(path.into(), number.to_string())),
        Doc::Map(map) => {
            for (key, value) in map {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                collect(value, &path, leaves);
            }
        }
        Doc::List(list) if list.iter().all(|value| matches!(value, Doc::Map(_))) => {
            for (index, value) in list.iter().enumerate() {
                let label = label(value).unwrap_or_else(|| index.to_string());
                collect(value, &format!("{path}[{label}]"), leaves);
            }
        }
        Doc::List(list) => {
            let texts: Vec<String> = list.iter().map(plain).collect();
            leaves.insert(path.into(), texts.join(", "));
        }
    }
}

/// What tells an element of a list from the others, whatever its place.
fn label(element: &Doc) -> Option<String> {
    let Doc::Map(map) = element else { return None };
    let get = |name: &str| map.iter().find(|(key, _)| key == name).map(|(_, value)| plain(value));
    let hours = || {
        let days = get("weekdays").map(|days| format!(" on {days}")).unwrap_or_default();
        get("hours_utc").map(|hours| format!("{hours}{days}"))
    };
    let over = get("input_over").map(|tokens| format!("over {tokens}"));
    over.or_else(|| get("input_from").map(|tokens| format!("from {tokens}"))).or_else(|| get("from")).or_else(hours)
}

fn plain(doc: &Doc) -> String {
    match doc {
        Doc::Text(text) => text.clone(),
        Doc::Number(number) => number.to_string(),
        Doc::List(list) => list.iter().map(plain).collect::<Vec<_>>().join(" "),
        Doc::Map(_) => doc.json(),
    }
}
