//! Match clauses as aliases. Matching is without regard to case there and exact here, so a name is taken as written.

use super::super::losses::Report;
use crate::document::Node;

/// The aliases that say what `clause` says of a model called `name`; what no alias can say is a loss.
pub(super) fn aliases(place: &str, name: &str, clause: Option<&Node>, report: &mut Report) -> Vec<String> {
    let mut aliases = Vec::new();
    if let Some(clause) = clause {
        collect(place, clause, &mut aliases, report);
    }
    let mut seen = Vec::new();
    aliases.retain(|alias| {
        let new = alias != name && !seen.contains(alias);
        seen.push(alias.clone());
        new
    });
    aliases
}

fn collect(place: &str, clause: &Node, aliases: &mut Vec<String>, report: &mut Report) {
    for entry in clause.entries() {
        let text = entry.value.text().unwrap_or_default();
        // In a glob a star is no letter.
        let alias = match entry.key.as_str() {
            "or" => {
                for clause in entry.value.elements() {
                    collect(place, clause, aliases, report);
                }
                continue;
            }
            _ if text.contains('*') => None,
            "equals" => Some(text.to_owned()),
            "starts_with" => Some(format!("{text}*")),
            "ends_with" => Some(format!("*{text}")),
            "contains" => Some(format!("*{text}*")),
            "regex" => literal(text),
            _ => None,
        };
        match alias {
            Some(alias) => aliases.push(alias),
            None => report.lose(place, &format!("match.{}", entry.key), "no glob says the same"),
        }
    }
}

/// The only name a pattern matches, apart from a date behind it, which price tables look past.
fn literal(regex: &str) -> Option<String> {
    const DATES: [&str; 3] = [r"-\d{8}", r"[-@]\d{8}", r"-\d{4}-\d{2}-\d{2}"];
    let pattern = regex.strip_prefix('^')?.strip_suffix('$')?;
    let pattern = DATES.iter().find_map(|date| pattern.strip_suffix(date)).unwrap_or(pattern);
    let mut name = String::new();
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => name.push(chars.next().filter(char::is_ascii_punctuation)?),
            '.' | '*' | '+' | '?' | '(' | ')' | '[' | ']' | '{' | '}' | '|' | '^' | '$' => return None,
            _ => name.push(c),
        }
    }
    Some(name)
}
