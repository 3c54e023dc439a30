//! The one wildcard users can write: `*` for any run of characters, in model names and matches.

/// A compiled pattern. Without a `*` it matches only itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob {
    pattern: Box<str>,
    is_wild: bool,
}

impl Glob {
    /// Every text is a pattern.
    pub fn new(pattern: &str) -> Glob {
        Glob { pattern: pattern.into(), is_wild: pattern.contains('*') }
    }

    /// The pattern as written.
    pub fn as_str(&self) -> &str {
        &self.pattern
    }

    /// Whether it stands for more than itself.
    pub fn is_wild(&self) -> bool {
        self.is_wild
    }

    /// Whether some text matches both patterns and neither is closer. Patterns with several wildcards could nearly always
    /// meet in some text that nobody uses: of those only the same one ties.
    pub fn ties_with(&self, other: &Glob) -> bool {
        if self == other {
            return true;
        }
        let (Some((front, back)), Some((other_front, other_back))) =
            (self.pattern.split_once('*'), other.pattern.split_once('*'))
        else {
            return false;
        };
        self.literal_bytes() == other.literal_bytes()
            && !back.contains('*')
            && !other_back.contains('*')
            && (front.starts_with(other_front) || other_front.starts_with(front))
            && (back.ends_with(other_back) || other_back.ends_with(back))
    }

    /// How many characters it fixes, in bytes: of two patterns that match, the one with more is closer.
    pub fn literal_bytes(&self) -> usize {
        self.pattern.bytes().filter(|&b| b != b'*').count()
    }

    /// Whether the whole of `text` matches; linear in the text for each `*`.
    pub fn matches(&self, text: &str) -> bool {
        if !self.is_wild {
            return *self.pattern == *text;
        }
        let mut parts = self.pattern.split('*');
        let (Some(first), Some(last)) = (parts.next(), parts.next_back()) else { return false };
        let Some(mut rest) = text.strip_prefix(first) else { return false };
        for part in parts {
            let Some((_, after)) = rest.split_once(part) else { return false };
            rest = after;
        }
        rest.ends_with(last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn a_star_stands_for_any_run_of_characters() {
        for (pattern, text, matches) in [
            ("gpt-4o", "gpt-4o", true),
            ("gpt-4o", "gpt-4o-mini", false),
            ("gpt-4o-2024-*", "gpt-4o-2024-08-06", true),
            ("gpt-4o-2024-*", "gpt-4o-mini-2024-07-18", false),
            ("*", "", true),
            ("*", "anything", true),
            ("*/gpt-4o", "openai/gpt-4o", true),
            ("a*b*c", "aXbYc", true),
            ("a*b*c", "abc", true),
            ("a*b*c", "acb", false),
            ("a*a", "a", false),
            ("a**b", "ab", true),
            ("", "", true),
            ("", "x", false),
        ] {
            assert_eq!(Glob::new(pattern).matches(text), matches, "{pattern} on {text}");
        }
    }

    #[test]
    fn patterns_tie_where_one_name_may_match_both_and_neither_is_closer() {
        for (a, b, ties) in [
            ("x-*", "x-*", true),
            ("x-*", "y-*", false),
            ("xx*", "*yy", true),
            ("x*y", "xx*", true),
            ("x*z", "xx*", true),
            ("x*", "xx*", false),
            ("*ab*", "*cd*", false),
            ("*ab*", "*ab*", true),
        ] {
            assert_eq!(Glob::new(a).ties_with(&Glob::new(b)), ties, "{a} {b}");
            assert_eq!(Glob::new(b).ties_with(&Glob::new(a)), ties, "{b} {a}");
        }
    }

    #[test]
    fn literal_characters_rank_patterns() {
        assert!(Glob::new("gpt-4o-*").literal_bytes() > Glob::new("gpt-*").literal_bytes());
    }
}
