//! Values of dimensions: which are taken, how they are written, and what hides a person behind one.

use super::DropReason;
use hmac::{Hmac, KeyInit, Mac};
use percent_encoding::percent_decode;
use sha2::Sha256;
use std::borrow::Cow;

/// What is done with the values of a dimension, the same for all of them but for ids and pseudonyms.
#[derive(Clone, Debug)]
pub(super) struct Treatment {
    pub(super) max_value_bytes: usize,
    /// Lower case, with hyphens.
    pub(super) normalise: bool,
    pub(super) pseudonym: Option<Pseudonym>,
}

impl Treatment {
    /// The value as it is recorded.
    pub(super) fn apply<'v>(&self, value: &'v [u8], is_id: bool, is_hidden: bool) -> Result<Cow<'v, str>, DropReason> {
        let value = check(value, self.max_value_bytes)?;
        let value = self.spelt(value, is_id);
        if value.is_empty() {
            return Err(DropReason::Empty);
        }
        match &self.pseudonym {
            Some(pseudonym) if is_hidden => Ok(Cow::Owned(pseudonym.of(&value))),
            _ => Ok(value),
        }
    }

    /// A value in the spelling it is recorded in.
    pub(super) fn spelt<'v>(&self, value: &'v str, is_id: bool) -> Cow<'v, str> {
        if self.normalise && !is_id { lowercase_hyphen(value) } else { Cow::Borrowed(value) }
    }
}

fn check(value: &[u8], max_value_bytes: usize) -> Result<&str, DropReason> {
    let value = str::from_utf8(value).map_err(|_| DropReason::NotUtf8)?;
    let printable = || value.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    if value.trim().is_empty() {
        Err(DropReason::Empty)
    } else if value.len() > max_value_bytes {
        Err(DropReason::TooLong)
    } else if !printable() && value.chars().any(char::is_control) {
        Err(DropReason::ControlCharacter)
    } else {
        Ok(value)
    }
}

/// `Customer Success` and `customer_success` as `customer-success`.
fn lowercase_hyphen(value: &str) -> Cow<'_, str> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    if value.bytes().all(plain) {
        return Cow::Borrowed(value);
    }
    let mut out = String::with_capacity(value.len());
    for character in value.chars() {
        if character.is_whitespace() || matches!(character, '_' | '-') {
            if !out.is_empty() && !out.ends_with('-') {
                out.push('-');
            }
        } else {
            out.extend(character.to_lowercase());
        }
    }
    out.truncate(out.trim_end_matches('-').len());
    Cow::Owned(out)
}

/// Puts names of its own in the place of values: HMAC-SHA-256, the first 16 hex digits. The same value has the same
/// pseudonym as long as the key stays.
#[derive(Clone, Debug)]
pub struct Pseudonym(Hmac<Sha256>);

impl Pseudonym {
    /// With this key.
    pub fn new(key: &str) -> Option<Pseudonym> {
        Hmac::new_from_slice(key.as_bytes()).ok().map(Pseudonym)
    }

    fn of(&self, value: &str) -> String {
        let code = self.0.clone().chain_update(value).finalize().into_bytes();
        let first = code.first_chunk().copied().unwrap_or_default();
        format!("{:016x}", u64::from_be_bytes(first))
    }
}

/// A property as text. Envoy hands over strings as they are, numbers as eight bytes and truth values as one: of what
/// is no printable text, those are told apart by their bits. Anything else (a list, an object) is no text.
pub(super) fn property_text(bytes: &[u8]) -> Option<Cow<'_, [u8]>> {
    let printable = str::from_utf8(bytes).is_ok_and(|text| !text.chars().any(char::is_control));
    if printable {
        return Some(Cow::Borrowed(bytes));
    }
    match *bytes {
        [0] => Some(Cow::Borrowed(b"false")),
        [1] => Some(Cow::Borrowed(b"true")),
        [..] => {
            let eight = *bytes.first_chunk::<8>().filter(|_| bytes.len() == 8)?;
            let bits = u64::from_le_bytes(eight);
            // Below 2^52 the bits of a double are those of no usual number but 0, so it is an integer.
            let text = if bits < 1 << 52 { Some(bits.to_string()) } else { double_text(eight) };
            text.map(|text| Cow::Owned(text.into_bytes()))
        }
    }
}

/// A double as JSON has it, where its digits are certain: below 2^53, and with few of them behind the point.
fn double_text(bytes: [u8; 8]) -> Option<String> {
    const CERTAIN: f64 = 9_007_199_254_740_992.0;
    const MAX_DIGITS: usize = 20;
    // How a list or an object of eight bytes begins, which would be a fraction.
    let may_be_message = bytes.starts_with(&[0x0a, 0x06]);
    let number = f64::from_le_bytes(bytes);
    let text = Some(number).filter(|number| number.abs() < CERTAIN)?.to_string();
    let is_fraction = text.contains('.');
    (text.len() <= MAX_DIGITS && !(is_fraction && may_be_message)).then_some(text)
}

/// The members of a W3C `baggage` value: keys with their decoded values, without their own properties.
/// <https://www.w3.org/TR/baggage/#baggage-http-header-format>
pub(super) fn baggage(value: &[u8]) -> impl Iterator<Item = (&[u8], Cow<'_, [u8]>)> {
    value.split(|&byte| byte == b',').filter_map(|member| {
        let member = member.split(|&byte| byte == b';').next()?;
        let at = member.iter().position(|&byte| byte == b'=')?;
        let (key, value) = member.split_at_checked(at)?;
        Some((key.trim_ascii(), percent_decode(value.get(1..)?.trim_ascii()).into()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn normalised_values_are_in_lower_case_with_single_hyphens() {
        for (value, normal) in [
            ("support", "support"),
            ("Customer Success", "customer-success"),
            ("customer_success", "customer-success"),
            ("  Chat -_ Bot__", "chat-bot"),
            ("ZÜRICH", "zürich"),
            ("r.and.d/2", "r.and.d/2"),
            ("--", ""),
        ] {
            assert_eq!(lowercase_hyphen(value), normal, "{value:?}");
        }
    }

    #[test]
    fn a_pseudonym_is_the_hmac_of_the_value() {
        // printf %s u-2077 | openssl dgst -sha256 -hmac 'a key of some length'
        let pseudonym = Pseudonym::new("a key of some length").unwrap();
        assert_eq!(pseudonym.of("u-2077"), "96d97ca94beb557c");
        assert_ne!(pseudonym.of("u-2078"), pseudonym.of("u-2077"));
    }

    #[test]
    fn properties_of_every_scalar_kind_become_text() {
        let double = |number: f64| number.to_bits().to_le_bytes().to_vec();
        for (bytes, text) in [
            (b"acme".to_vec(), Some("acme")),
            ("Zürich".as_bytes().to_vec(), Some("Zürich")),
            (b"12345678".to_vec(), Some("12345678")),
            (vec![0], Some("false")),
            (vec![1], Some("true")),
            (42u64.to_le_bytes().to_vec(), Some("42")),
            (0u64.to_le_bytes().to_vec(), Some("0")),
            (double(42.0), Some("42")),
            (double(1.0), Some("1")),
            (double(9_007_199_254_740_992.0), None),
            (double(9_007_199_254_740_991.0), Some("9007199254740991")),
            (double(0.5), Some("0.5")),
            (double(1.1), Some("1.1")),
            (double(-1.0), Some("-1")),
            (double(-2.25), Some("-2.25")),
            (double(1e-30), None),
            (double(1e300), None),
            (double(f64::NAN), None),
            (double(f64::INFINITY), None),
            // A list of one text with four letters, and an object, both as long as a number.
            (b"\x0a\x06\x1a\x04abcd".to_vec(), None),
            (b"\x0a\x06\x1a\x04abc?".to_vec(), None),
            (b"\x0a\x06\x0a\x00\x12\x02\x20\x01".to_vec(), None),
            (b"\x0a\x05\x1a\x03abc".to_vec(), None),
            (b"\xff\xfe".to_vec(), None),
            (vec![2], None),
        ] {
            assert_eq!(property_text(&bytes).as_deref(), text.map(str::as_bytes), "{bytes:?}");
        }
    }

    #[test]
    fn baggage_is_read_by_its_members() {
        let read: Vec<_> = baggage(b"team = a%20b;ttl=1;x , user=%E2%82%AC,bad,=x, empty=").collect();
        let expected: [(&[u8], &[u8]); 4] =
            [(b"team", b"a b"), (b"user", "€".as_bytes()), (b"", b"x"), (b"empty", b"")];
        assert_eq!(read, expected.map(|(key, value)| (key, Cow::Borrowed(value))));
    }
}
