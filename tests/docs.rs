//! The tables in `docs/configuration.md` name what the reader of the configuration reads: every key, with its range and
//! its words.
//!
//! What the reader knows it says itself, in its errors: a key nobody knows brings out the known ones of that object,
//! a wrong value what was expected. So the keys are found by asking, level by level. Defaults are not compared.

use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use tollgate::config::{Config, Origin};

/// Like no key and no word that is known, so that the errors about it list them all.
const NOBODYS: &str = "qqqqqqqq";

/// A way down the configuration: a key, any element of a list, or any entry of a map whose keys the user chooses.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Key(String),
    Element,
    Entry,
}

/// As the tables write it: `budgets[].overrides[].match`, `prices.providers.<name>.discount`.
fn written(path: &[Step]) -> String {
    let mut text = String::new();
    for step in path {
        match step {
            Step::Key(key) if text.is_empty() => text.push_str(key),
            Step::Key(key) => text.extend([".", key]),
            Step::Element => text.push_str("[]"),
            Step::Entry => text.push_str(".<name>"),
        }
    }
    text
}

/// What the reader says about `value` at `path`.
fn errors(path: &[Step], value: Value) -> Vec<String> {
    let config = path.iter().rfold(value, |inner, step| match step {
        Step::Key(key) => json!({ key: inner }),
        Step::Element => json!([inner]),
        Step::Entry => json!({ "name": inner }),
    });
    let at = written(path).replace("[]", "[0]").replace("<name>", "name");
    let found = Config::from_json(&config.to_string(), Origin::Json).err().unwrap_or_default();
    found.into_iter().filter(|error| error.path.starts_with(&at)).map(|error| error.message).collect()
}

/// The keys of the object at `path`, if that is one whose keys are the reader's.
fn known_keys(path: &[Step]) -> Option<BTreeSet<String>> {
    let known = |message: &String| Some(message.strip_prefix("unknown key; known here: ")?.to_owned());
    let list = errors(path, json!({ NOBODYS: 0 })).iter().find_map(known)?;
    Some(list.split(", ").map(String::from).collect())
}

/// Every key there is. An object that stands in several places, as `rates` does, is gone into once.
fn every_key() -> BTreeSet<Vec<Step>> {
    let mut found = BTreeSet::new();
    let mut seen: BTreeSet<(String, BTreeSet<String>)> = BTreeSet::new();
    let mut level = vec![Vec::new()];
    while !level.is_empty() {
        let mut below = Vec::new();
        for path in level {
            let name =
                path.iter().rev().find_map(|step| if let Step::Key(key) = step { Some(key.clone()) } else { None });
            let Some(keys) = known_keys(&path) else { continue };
            if !seen.insert((name.unwrap_or_default(), keys.clone())) {
                continue;
            }
            for key in keys {
                let path: Vec<_> = path.iter().cloned().chain([Step::Key(key)]).collect();
                for more in [None, Some(Step::Element), Some(Step::Entry)] {
                    below.push(path.iter().cloned().chain(more).collect());
                }
                found.insert(path);
            }
        }
        level = below;
    }
    found
}

/// A row of a table: the keys of its first cell, and its other cells.
struct Row {
    keys: Vec<String>,
    kind: String,
    default: String,
    meaning: String,
}

impl Row {
    /// Whether `word` stands in one of its code spans.
    fn names(&self, word: &str) -> bool {
        let text = format!("{} {} {}", self.kind, self.default, self.meaning);
        let spans = text.split('`').skip(1).step_by(2);
        spans.flat_map(|span| span.split(|c: char| !c.is_alphanumeric() && c != '_')).any(|own| own == word)
    }
}

/// The text of `docs/<name>.md`.
fn document(name: &str) -> String {
    fs::read_to_string(format!("{}/docs/{name}.md", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// The rows of all tables, `.authority` behind `collector.path` written out.
fn rows() -> Vec<Row> {
    let text = document("configuration");
    let is_row = |line: &&str| line.starts_with("| `");
    let rows = text.lines().filter(is_row).map(|line| {
        let cells: Vec<_> = line.split(" | ").collect();
        let &[keys, kind, default, meaning] = &*cells else { panic!("not four cells: {line}") };
        let mut full: Vec<String> = Vec::new();
        for key in keys.split('`').skip(1).step_by(2) {
            let before = full.first().and_then(|first| first.rsplit_once('.')).map_or("", |(parent, _)| parent);
            full.push(if key.starts_with('.') { format!("{before}{key}") } else { key.into() });
        }
        Row { keys: full, kind: kind.into(), default: default.into(), meaning: meaning.into() }
    });
    rows.collect()
}

/// A key of a table without what says that there may be several of it.
fn plain(key: &str) -> &str {
    let key = key.strip_suffix(".*").unwrap_or(key);
    let key = key.strip_suffix(".<name>").unwrap_or(key);
    key.strip_suffix("[]").unwrap_or(key)
}

/// `256 MiB` as a number; nothing where a table has a word.
fn number(text: &str) -> Option<u64> {
    let (digits, factor) = [(" KiB", 1 << 10), (" MiB", 1 << 20), (" GiB", 1 << 30)]
        .into_iter()
        .find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, factor)))
        .unwrap_or((text, 1));
    digits.parse::<u64>().ok().map(|number| number * factor)
}

#[test]
fn the_tables_have_no_key_that_nobody_reads() {
    let known: BTreeSet<_> = every_key().iter().map(|path| written(path)).collect();
    let rows = rows();
    assert!(rows.len() > 50, "the tables are gone");
    let named = rows.iter().flat_map(|row| &row.keys);
    let unknown: Vec<_> = named.filter(|key| !known.contains(plain(key))).collect();
    assert!(unknown.is_empty(), "not read: {unknown:?}; read: {known:#?}");
}

#[test]
fn every_key_stands_in_a_table_or_in_the_row_of_what_it_belongs_to() {
    let rows = rows();
    let of = |path: &str| rows.iter().find(|row| row.keys.iter().any(|key| plain(key) == path));
    let mut missing = Vec::new();
    for path in every_key() {
        let text = written(&path);
        let below = |key: &String| key.strip_prefix(&text).is_some_and(|rest| rest.starts_with(['.', '[']));
        if of(&text).is_some() || rows.iter().flat_map(|row| &row.keys).any(below) {
            continue;
        }
        let Some(Step::Key(name)) = path.last() else { panic!("{text} ends in no key") };
        let row = (0..path.len()).rev().find_map(|end| of(&written(&path[..end])));
        if !row.is_some_and(|row| row.names(name)) {
            missing.push(text);
        }
    }
    assert!(missing.is_empty(), "docs/configuration.md does not speak of {missing:?}");
}

#[test]
fn ranges_in_the_tables_are_those_of_the_reader() {
    let rows = rows();
    let mut compared = 0;
    for path in every_key() {
        let text = written(&path);
        let range = errors(&path, json!("-")).iter().find_map(|error| {
            let (low, rest) = error.strip_prefix("expected a whole number from ")?.split_once(" to ")?;
            Some((low.parse::<u64>().ok()?, rest.split(',').next()?.parse::<u64>().ok()?))
        });
        let place = rows.iter().find_map(|row| Some((row, row.keys.iter().position(|key| *key == text)?)));
        let (Some((low, high)), Some((row, index))) = (range, place) else { continue };
        if high == u64::MAX {
            continue;
        }
        let shown = row.kind.split("; ").nth(index).or(row.kind.split("; ").last()).unwrap_or_default();
        let Some((from, to)) = shown.split_once(" to ") else { panic!("{text}: {shown:?} is no range") };
        assert_eq!(number(to), Some(high), "{text}");
        assert!(number(from).is_none_or(|from| from == low), "{text}: from {low}");
        compared += 1;
    }
    assert!(compared > 10, "only {compared} ranges were found");
}

#[test]
fn words_that_the_reader_takes_are_in_the_row() {
    let is_word =
        |word: &&str| word.bytes().all(|b| b.is_ascii_lowercase() || b == b'_') && !matches!(*word, "true" | "false");
    let (formats, rows) = (document("metering"), rows());
    let mut compared = 0;
    for path in every_key() {
        let text = written(&path);
        let Some(row) = rows.iter().find(|row| row.keys.contains(&text)) else { continue };
        for error in errors(&path, json!(NOBODYS)) {
            let expected = error.strip_prefix("expected ").and_then(|rest| rest.split_once(", got "));
            let Some((list, _)) = expected else { continue };
            // Formats have a table of their own, in `docs/metering.md`.
            let (list, elsewhere) = list.strip_prefix("one of ").map_or((list, false), |list| (list, true));
            let words = list.split(", ").flat_map(|word| word.split(" or ")).filter(is_word);
            for word in words {
                let named = row.names(word) || elsewhere && formats.contains(&format!("`{word}`"));
                assert!(named, "{text} does not name {word}");
                compared += 1;
            }
        }
    }
    assert!(compared > 30, "only {compared} words were found");
}
