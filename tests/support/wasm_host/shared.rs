//! Shared data and shared queues: what all workers with the same `vm_id` see.

use std::collections::{BTreeMap, VecDeque};

use super::state::status;

/// How a compare-and-swap number is judged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CasRule {
    /// Envoy: 0 is unconditional, and any number succeeds on an absent key.
    #[default]
    Envoy,
    /// ngx_wasm_module: the number must be the current one; 0 means that the key must be absent; a null value deletes.
    Nginx,
}

/// Keys with their values and CAS numbers, and queues.
#[derive(Debug, Default)]
pub struct SharedStore {
    /// How CAS numbers are judged.
    pub rule: CasRule,
    /// Value and CAS number by key.
    pub entries: BTreeMap<Vec<u8>, (Vec<u8>, u32)>,
    /// The largest number of keys; a set of a further key is an internal failure. Envoy has no such limit.
    pub max_keys: Option<usize>,
    last_cas: u32,
    queues: Vec<Queue>,
    ready: VecDeque<(Consumer, u32)>,
}

/// Who is told that a queue has something: a root context of a VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Consumer {
    pub vm: u32,
    pub root: u32,
}

#[derive(Debug)]
struct Queue {
    name: Vec<u8>,
    consumer: Consumer,
    items: VecDeque<Vec<u8>>,
}

impl SharedStore {
    /// An empty store.
    pub fn with_rule(rule: CasRule) -> Self {
        Self { rule, ..Self::default() }
    }

    /// A value as text, for assertions.
    pub fn text(&self, key: &str) -> Option<String> {
        self.entries.get(key.as_bytes()).map(|(value, _)| String::from_utf8_lossy(value).into_owned())
    }

    pub fn get(&self, key: &[u8]) -> Result<(Vec<u8>, u32), u32> {
        self.entries.get(key).cloned().ok_or(status::NOT_FOUND)
    }

    /// `value` is `None` for a null pointer, which only the Nginx rule tells from an empty value.
    pub fn set(&mut self, key: &[u8], value: Option<&[u8]>, cas: u32) -> Result<(), u32> {
        let current = self.entries.get(key).map(|(_, cas)| *cas);
        let agreed = match (self.rule, current) {
            (CasRule::Envoy, None) => true,
            (CasRule::Envoy, Some(current)) => cas == 0 || cas == current,
            (CasRule::Nginx, current) => cas == current.unwrap_or(0),
        };
        if !agreed {
            return Err(status::CAS_MISMATCH);
        }
        if value.is_none() && self.rule == CasRule::Nginx {
            self.entries.remove(key);
            return Ok(());
        }
        if current.is_none() && self.max_keys.is_some_and(|max| self.entries.len() >= max) {
            return Err(status::INTERNAL_FAILURE);
        }
        self.last_cas = self.last_cas.wrapping_add(1).max(1);
        self.entries.insert(key.to_vec(), (value.unwrap_or_default().to_vec(), self.last_cas));
        Ok(())
    }

    /// The last to register gets all the notices; what is queued stays.
    pub fn register(&mut self, name: &[u8], consumer: Consumer) -> u32 {
        if let Ok(token) = self.resolve(name) {
            self.queues[token as usize - 1].consumer = consumer;
            return token;
        }
        self.queues.push(Queue { name: name.to_vec(), consumer, items: VecDeque::new() });
        u32::try_from(self.queues.len()).expect("a test has few queues")
    }

    pub fn resolve(&self, name: &[u8]) -> Result<u32, u32> {
        let at = self.queues.iter().position(|queue| queue.name == name).ok_or(status::NOT_FOUND)?;
        Ok(u32::try_from(at + 1).expect("a test has few queues"))
    }

    pub fn enqueue(&mut self, token: u32, item: Vec<u8>) -> Result<(), u32> {
        let queue = self.queue(token)?;
        queue.items.push_back(item);
        let consumer = queue.consumer;
        self.ready.push_back((consumer, token));
        Ok(())
    }

    pub fn dequeue(&mut self, token: u32) -> Result<Vec<u8>, u32> {
        self.queue(token)?.items.pop_front().ok_or(status::EMPTY)
    }

    /// The next notice for a VM: the root context to tell and the queue.
    pub fn next_ready(&mut self, vm: u32) -> Option<(u32, u32)> {
        let at = self.ready.iter().position(|(consumer, _)| consumer.vm == vm)?;
        self.ready.remove(at).map(|(consumer, token)| (consumer.root, token))
    }

    fn queue(&mut self, token: u32) -> Result<&mut Queue, u32> {
        let at = (token as usize).checked_sub(1).ok_or(status::NOT_FOUND)?;
        self.queues.get_mut(at).ok_or(status::NOT_FOUND)
    }
}
