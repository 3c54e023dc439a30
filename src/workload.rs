//! Whether a call is made by an agent that writes or one that only reads: what a budget does at its end depends on it.
//!
//! Where the caller does not say so, the names of the tools it offers do: a name with one of the write words in it makes
//! the call one that writes, anything else one that reads. Names are compared word by word, however they are put
//! together: `createTicket`, `send_email`, `db.update-row` and `write2file` have the words, `overwrite` and `sender` do not.

const WRITE: &str = "agentic-write";
const READ: &str = "agentic-read";

/// The value of the dimension `workload` for a call that writes, or for one that only reads.
pub const fn word(writes: bool) -> &'static str {
    if writes { WRITE } else { READ }
}

/// Whether the value of that dimension says that a call writes; `None`: it says neither. The configuration's spelling of
/// the two words, with an underscore, is as good.
pub fn writes(said: &str) -> Option<bool> {
    let is = |word: &str| {
        let same = |(own, other): (u8, u8)| own == other.to_ascii_lowercase() || (own == b'-' && other == b'_');
        word.len() == said.len() && word.bytes().zip(said.bytes()).all(same)
    };
    if is(WRITE) { Some(true) } else { is(READ).then_some(false) }
}

/// Whether the name of a tool has one of `words` (in lower case) in it.
pub fn names_a_write(tool: &str, words: &[Box<str>]) -> bool {
    let mut word = String::new();
    let mut previous_lower = false;
    // A number is no part of the words beside it: `write2file`, `s3write`.
    let hit = |word: &str| {
        words.iter().any(|wanted| **wanted == *word || word.split(char::is_numeric).any(|part| part == &**wanted))
    };
    let mut characters = tool.chars().peekable();
    while let Some(character) = characters.next() {
        // A word begins at a capital behind a small letter (`sendEmail`), and at one before a small letter
        // (`HTTPSend`).
        let next_lower = characters.peek().is_some_and(|next| next.is_lowercase());
        let begins = character.is_uppercase() && (previous_lower || next_lower);
        if begins || !character.is_alphanumeric() {
            if hit(&word) {
                return true;
            }
            word.clear();
        }
        if character.is_alphanumeric() {
            word.extend(character.to_lowercase());
        }
        previous_lower = character.is_lowercase() || character.is_numeric();
    }
    hit(&word)
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn a_value_says_that_a_call_writes_or_reads_or_nothing() {
        for (said, expected) in [
            ("agentic-write", Some(true)),
            ("Agentic-Write", Some(true)),
            ("agentic_write", Some(true)),
            ("agentic-read", Some(false)),
            ("AGENTIC_READ", Some(false)),
            ("write", None),
            ("agentic-writes", None),
            ("batch", None),
            ("", None),
        ] {
            assert_eq!(writes(said), expected, "{said}");
        }
    }

    #[test]
    fn names_are_taken_apart_into_words() {
        let words = ["create", "update", "delete", "send", "write"].map(Into::into);
        for (tool, writes) in [
            ("createTicket", true),
            ("send_email", true),
            ("db.update-row", true),
            ("DELETE", true),
            ("HTTPSend", true),
            ("files/write", true),
            ("Write", true),
            ("v2Update", true),
            ("write2", true),
            ("update_row_3", true),
            ("send2slack", true),
            ("s3write", true),
            ("sha256_overwrite2file", false),
            ("overwrite", false),
            ("sender", false),
            ("search_documents", false),
            ("get_created_items", false),
            ("", false),
            ("读取write", false),
        ] {
            assert_eq!(names_a_write(tool, &words), writes, "{tool}");
        }
    }
}
