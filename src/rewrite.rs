//! The changes Tollgate makes to bodies: two as they pass, so that streams of OpenAI's chat API report what they cost, and
//! [`model`], in a request that is held, so that a smaller model answers it.
//!
//! A chat stream reports its usage only if the request asks for it, which few clients do, and then in an event of
//! its own that breaks clients reading `choices[0]` of every event. So [`include_usage`] asks where the client did
//! not, and [`usage_event`] takes the answer out of the client's stream again.
//!
//! These two pass every other byte as it came, cut where it was cut: what a client signs, counts or compares by byte
//! stays the same. They hold back at most [`MAX_HELD_BYTES`], whatever the size of the body, and rather leave
//! something unchanged than hold more. They take a chunk and whether it is the last, and say what goes on in its place:
//! `None` is the chunk itself, so that the usual chunk is neither copied nor handed back to the host.

pub mod include_usage;
pub mod model;
pub mod usage_event;

/// The most that is held back of one body, in bytes.
pub const MAX_HELD_BYTES: usize = 64 * 1024;

/// Bytes that are held back.
#[derive(Debug, Default)]
struct Held(Vec<u8>);

impl Held {
    /// Adds `bytes` if there is room for them. A plain `Vec` would reserve up to twice the limit.
    #[must_use]
    fn push(&mut self, bytes: &[u8]) -> bool {
        let len = self.0.len().saturating_add(bytes.len());
        if len > MAX_HELD_BYTES {
            return false;
        }
        if len > self.0.capacity() {
            let capacity = len.next_power_of_two().min(MAX_HELD_BYTES);
            self.0.reserve_exact(capacity.saturating_sub(self.0.len()));
        }
        self.0.extend_from_slice(bytes);
        true
    }

    /// All of them; nothing is held any more.
    fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.0)
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The chunk at hand on its way through.
struct Passing<'a> {
    chunk: &'a [u8],
    /// How much of it has passed, is held or is gone.
    passed: usize,
    /// What goes on instead of the chunk, once that is not simply the chunk.
    out: Option<Vec<u8>>,
}

impl<'a> Passing<'a> {
    fn new(chunk: &'a [u8]) -> Passing<'a> {
        Passing { chunk, passed: 0, out: None }
    }

    fn out(&mut self) -> &mut Vec<u8> {
        self.out.get_or_insert_default()
    }

    /// The bytes before `at` that are still in the chunk.
    fn before(&self, at: usize) -> &'a [u8] {
        self.chunk.get(self.passed..at).unwrap_or_default()
    }

    /// Takes the bytes before `at` out of the chunk.
    fn drop(&mut self, at: usize) {
        self.out();
        self.passed = at;
    }

    /// Passes the bytes before `at`.
    fn pass(&mut self, at: usize) {
        let bytes = self.before(at);
        self.out().extend_from_slice(bytes);
        self.passed = at;
    }

    /// Passes what is held, which came before what is in the chunk.
    fn let_go(&mut self, held: &mut Held) {
        if !held.is_empty() {
            self.out().append(&mut held.take());
        }
    }

    /// What goes on in the place of the chunk; `None`: the chunk.
    fn finish(mut self) -> Option<Vec<u8>> {
        let rest = self.before(self.chunk.len());
        if let Some(out) = &mut self.out {
            out.extend_from_slice(rest);
        }
        self.out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn what_is_held_never_takes_more_memory_than_the_limit() {
        let mut held = Held::default();
        for at in 0..MAX_HELD_BYTES {
            assert!(held.push(b"x"), "{at}");
            assert!(held.0.capacity() <= MAX_HELD_BYTES, "{at}");
        }
        assert!(!held.push(b"x"));
        assert_eq!(held.take().len(), MAX_HELD_BYTES);
        assert!(held.is_empty());
    }
}
