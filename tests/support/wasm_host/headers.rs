//! Header maps as Envoy keeps them, and their serialised form.
//!
//! Values are bytes: callers do send values that are not UTF-8, and the filter must survive them.

/// An empty list of headers, with its types settled.
pub const NO_HEADERS: &[(&str, &str)] = &[];

/// Headers in order; names are lower case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderMap(pub Vec<(String, Vec<u8>)>);

impl HeaderMap {
    /// From pairs of a name and a value of text or bytes.
    pub fn new<V: AsRef<[u8]>>(pairs: &[(&str, V)]) -> Self {
        let mut map = Self::default();
        for (name, value) in pairs {
            map.add(name, value.as_ref());
        }
        map
    }

    /// The first value of `name`.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        let name = name.to_ascii_lowercase();
        self.0.iter().find(|(key, _)| *key == name).map(|(_, value)| value.as_slice())
    }

    /// The first value of `name` as text; what is not UTF-8 is replaced.
    pub fn text(&self, name: &str) -> Option<String> {
        self.get(name).map(|value| String::from_utf8_lossy(value).into_owned())
    }

    /// Whether `name` occurs.
    pub fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// How many pairs there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds a value, beside those that are there.
    pub fn add(&mut self, name: &str, value: &[u8]) {
        self.0.push((name.to_ascii_lowercase(), value.to_vec()));
    }

    /// Replaces every value of `name`; like Envoy's `setCopy`, the new one goes to the end.
    pub fn replace(&mut self, name: &str, value: &[u8]) {
        self.remove(name);
        self.add(name, value);
    }

    /// Removes every value of `name`.
    pub fn remove(&mut self, name: &str) {
        let name = name.to_ascii_lowercase();
        self.0.retain(|(key, _)| *key != name);
    }

    /// The sum of the lengths of names and values.
    pub fn byte_size(&self) -> usize {
        self.0.iter().map(|(name, value)| name.len() + value.len()).sum()
    }

    /// A count, the lengths of each name and value, then each name and value followed by a zero byte.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = length(self.len()).to_vec();
        for (name, value) in &self.0 {
            bytes.extend(length(name.len()));
            bytes.extend(length(value.len()));
        }
        for (name, value) in &self.0 {
            bytes.extend(name.as_bytes());
            bytes.push(0);
            bytes.extend(value);
            bytes.push(0);
        }
        bytes
    }

    /// The reverse of [`Self::encode`]. Like Envoy, a block too short for its own count is taken as empty.
    pub fn decode(bytes: &[u8]) -> Self {
        Self::try_decode(bytes).unwrap_or_default()
    }

    fn try_decode(bytes: &[u8]) -> Option<Self> {
        let word = |at: usize| {
            let four = bytes.get(at..at + 4)?.try_into().ok()?;
            usize::try_from(u32::from_le_bytes(four)).ok()
        };
        let count = word(0)?;
        let mut at = count.checked_mul(8)?.checked_add(4)?;
        let mut take = |len: usize| {
            let part = bytes.get(at..at + len)?;
            at += len + 1;
            Some(part)
        };
        let mut map = Self::default();
        for pair in 0..count {
            let name = take(word(4 + pair * 8)?)?;
            let value = take(word(8 + pair * 8)?)?;
            map.add(&String::from_utf8_lossy(name), value);
        }
        Some(map)
    }
}

fn length(len: usize) -> [u8; 4] {
    u32::try_from(len).expect("a header is shorter than 4 GiB").to_le_bytes()
}
