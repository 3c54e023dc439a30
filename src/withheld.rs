//! How much of requests is held back in one VM, counted so that no way of ending a request can leave its share behind.

use std::cell::Cell;
use std::rc::Rc;

/// What all requests of a VM hold back together.
#[derive(Clone, Debug, Default)]
pub struct Withheld(Rc<Cell<u64>>);

impl Withheld {
    /// In bytes.
    pub fn bytes(&self) -> u64 {
        self.0.get()
    }

    /// The share of one more request, which holds nothing back yet.
    pub fn share(&self) -> Share {
        Share { all: self.clone(), bytes: 0 }
    }
}

/// What one request holds back; given back when it is dropped.
#[derive(Debug)]
pub struct Share {
    all: Withheld,
    bytes: u64,
}

impl Share {
    /// So much more is held back.
    pub fn add(&mut self, bytes: usize) {
        self.set(self.bytes.saturating_add(bytes as u64));
    }

    /// Nothing is held back any more.
    pub fn clear(&mut self) {
        self.set(0);
    }

    /// What the others hold back stays as it is.
    fn set(&mut self, bytes: u64) {
        let others = self.all.bytes().saturating_sub(self.bytes);
        self.all.0.set(others.saturating_add(bytes));
        self.bytes = bytes;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn a_share_is_given_back_whatever_became_of_it() {
        let all = Withheld::default();
        let (mut first, mut second) = (all.share(), all.share());
        first.add(10);
        first.add(5);
        second.add(7);
        assert_eq!(all.bytes(), 22);
        first.clear();
        assert_eq!(all.bytes(), 7, "the other keeps its own");
        first.add(1);
        drop(second);
        assert_eq!(all.bytes(), 1);
        drop(first);
        assert_eq!(all.bytes(), 0);
    }
}
