//! Passing over what nobody looks at.

use super::{Follow, Scanner, State};
use memchr::memchr2;

impl<F: Copy + 'static, C: Follow<F>> Scanner<F, C> {
    /// Passes over a container without looking into it; returns what is left of `bytes`.
    pub(super) fn skip<'b>(&mut self, mut bytes: &'b [u8], mut depth: u32) -> &'b [u8] {
        while let Some((&byte, rest)) = bytes.split_first() {
            bytes = rest;
            match byte {
                b'{' | b'[' => depth = depth.saturating_add(1),
                b'}' | b']' => {
                    depth = depth.saturating_sub(1);
                    if depth == 0 {
                        self.value_ended();
                        return bytes;
                    }
                }
                b'"' => match behind_text(bytes, false) {
                    Ok(rest) => bytes = rest,
                    Err(escaped) => {
                        self.state = State::SkipText { depth, escaped };
                        return &[];
                    }
                },
                _ => {}
            }
        }
        self.state = State::Skip { depth };
        &[]
    }

    /// Passes over a string; returns what is left of `bytes`.
    pub(super) fn skip_text<'b>(&mut self, bytes: &'b [u8], depth: u32, escaped: bool) -> &'b [u8] {
        match behind_text(bytes, escaped) {
            Ok(rest) if depth == 0 => {
                self.value_ended();
                rest
            }
            Ok(rest) => self.skip(rest, depth),
            Err(escaped) => {
                self.state = State::SkipText { depth, escaped };
                &[]
            }
        }
    }
}

/// What is left of `bytes` behind the string they begin in. Where it does not end in them: whether they end in a
/// backslash that escapes what comes next.
fn behind_text(bytes: &[u8], escaped: bool) -> Result<&[u8], bool> {
    let mut rest = bytes.get(usize::from(escaped)..).unwrap_or_default();
    while let Some(at) = memchr2(b'"', b'\\', rest) {
        if rest.get(at) == Some(&b'"') {
            return Ok(rest.get(at + 1..).unwrap_or_default());
        }
        rest = rest.get(at + 2..).ok_or(true)?;
    }
    Err(false)
}
