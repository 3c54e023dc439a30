//! The bytes of a request on their way out.

use super::super::{Held, Passing};

/// Most edits that wait for `stream`: repeated keys must not fill the memory with them.
const MAX_WAITING_EDITS: usize = 8;

/// An edit of held bytes.
#[derive(Debug)]
struct Edit {
    at: usize,
    removed_bytes: usize,
    text: &'static [u8],
}

/// The bytes on their way out: they pass, or are held because of an edit among them that waits for `stream`.
#[derive(Debug, Default)]
pub(super) struct Draft {
    held: Held,
    edits: Vec<Edit>,
    /// Where in `held` the word begins that is being read and that an edit may replace.
    word_at: Option<usize>,
    /// An edit has gone out.
    pub(super) edited: bool,
    /// An edit was given up, since too much had to be held for it.
    pub(super) overflowed: bool,
}

impl Draft {
    pub(super) fn held_bytes(&self) -> usize {
        self.held.len()
    }

    /// Whether edits wait for `stream`.
    pub(super) fn is_waiting(&self) -> bool {
        !self.edits.is_empty()
    }

    pub(super) fn is_holding(&self) -> bool {
        self.word_at.is_some() || !self.edits.is_empty() || !self.held.is_empty()
    }

    /// Passes or holds the bytes before `at`.
    pub(super) fn pass(&mut self, passing: &mut Passing<'_>, at: usize) {
        if self.is_holding() {
            if self.held.push(passing.before(at)) {
                return passing.drop(at);
            }
            self.overflowed = true;
            self.let_go(passing);
        }
        passing.pass(at);
    }

    /// Passes what is held as it came.
    fn let_go(&mut self, passing: &mut Passing<'_>) {
        self.edits = Vec::new();
        self.word_at = None;
        passing.let_go(&mut self.held);
    }

    /// Everything before `at` goes as it came.
    pub(super) fn release(&mut self, passing: &mut Passing<'_>, at: usize) {
        if self.is_holding() {
            self.pass(passing, at);
            self.let_go(passing);
        }
    }

    /// Everything before `at` goes edited.
    pub(super) fn apply(&mut self, passing: &mut Passing<'_>, at: usize) {
        if !self.is_holding() {
            return;
        }
        self.pass(passing, at);
        let out = passing.out();
        let held = self.held.take();
        let mut copied = 0;
        for edit in std::mem::take(&mut self.edits) {
            out.extend_from_slice(held.get(copied..edit.at).unwrap_or_default());
            out.extend_from_slice(edit.text);
            copied = edit.at.saturating_add(edit.removed_bytes);
            self.edited = true;
        }
        out.extend_from_slice(held.get(copied..).unwrap_or_default());
        self.word_at = None;
    }

    /// Keeps the word that begins at `at`, since it may have to go.
    pub(super) fn hold_word(&mut self, passing: &mut Passing<'_>, at: usize) {
        self.pass(passing, at);
        self.word_at = Some(self.held.len());
    }

    /// The length of that word, if it goes up to `at`.
    pub(super) fn word_bytes(&self, passing: &Passing<'_>, at: usize) -> usize {
        let held = self.word_at.map(|begin| self.held.len().saturating_sub(begin));
        held.map_or(0, |held| held.saturating_add(passing.before(at).len()))
    }

    /// Wants `text` in the place of the word that ends before `at`.
    pub(super) fn replace_word(&mut self, passing: &mut Passing<'_>, at: usize, text: &'static [u8]) {
        self.pass(passing, at);
        if let Some(begin) = self.word_at.take() {
            let removed_bytes = self.held.len().saturating_sub(begin);
            self.edit(Edit { at: begin, removed_bytes, text }, passing);
        }
    }

    /// Wants `text` before the byte at `at`.
    pub(super) fn insert(&mut self, passing: &mut Passing<'_>, at: usize, text: &'static [u8]) {
        self.pass(passing, at);
        self.edit(Edit { at: self.held.len(), removed_bytes: 0, text }, passing);
    }

    fn edit(&mut self, edit: Edit, passing: &mut Passing<'_>) {
        if self.edits.len() < MAX_WAITING_EDITS {
            self.edits.push(edit);
        } else {
            self.overflowed = true;
            self.let_go(passing);
        }
    }
}
