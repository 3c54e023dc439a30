//! Decimal amounts of foreign price tables, read from their text and kept exactly.

use bigdecimal::num_bigint::Sign;
use bigdecimal::{BigDecimal, RoundingMode};
use std::fmt;
use std::str::FromStr;

/// Prices per token are meant in steps of 1e-12 USD. What is off by less than this part of itself is the noise of a
/// float, such as `5.0000000000000004e-08`; what is off by more was converted from another currency and means it.
const PLACES_PER_TOKEN: i64 = 12;
const NOISE_PLACES: i64 = 14;

/// The filter keeps a decimal exactly up to this many places and digits.
const MAX_PLACES: i64 = 30;
const MAX_DIGITS: u64 = 19;

/// An amount of zero or more, exact.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Amount(BigDecimal);

impl Amount {
    /// Reads `2.50` or `1.5e-07`; nothing else that looks like a number.
    pub(crate) fn parse(text: &str) -> Option<Amount> {
        let plain = text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'-' | b'+'));
        if !plain || !text.starts_with(|first: char| first.is_ascii_digit()) {
            return None;
        }
        let value = BigDecimal::from_str(text).ok()?.normalized();
        // An exponent of a million would be a million digits when written out.
        (value.sign() != Sign::Minus && (-MAX_PLACES..=2 * MAX_PLACES).contains(&value.fractional_digit_count()))
            .then_some(Amount(value))
    }

    /// The factor that changes nothing.
    pub(crate) fn one() -> Amount {
        Amount(BigDecimal::from(1))
    }

    /// Whether it is nothing.
    pub(crate) fn is_zero(&self) -> bool {
        self.0.sign() == Sign::NoSign
    }

    /// The price of a million of what this is the price of one of, and whether float noise was rounded away.
    pub(crate) fn per_million(&self) -> (Amount, bool) {
        let rounded = self.0.with_scale_round(PLACES_PER_TOKEN, RoundingMode::HalfEven);
        let off = Amount((&rounded - &self.0).abs());
        let is_noise = off.shifted(-NOISE_PLACES).0 <= self.0;
        let price = if is_noise { Amount(rounded) } else { self.kept().0 };
        (price.shifted(-6), is_noise && !off.is_zero())
    }

    /// The same, rounded half to even where it is finer than the filter can keep, and whether it was.
    pub(crate) fn kept(&self) -> (Amount, bool) {
        let mut value = self.0.with_prec(MAX_DIGITS);
        if value.fractional_digit_count() > MAX_PLACES {
            value = value.with_scale_round(MAX_PLACES, RoundingMode::HalfEven);
        }
        let rounded = value != self.0;
        (Amount(value.normalized()), rounded)
    }

    /// The same divided by `10^places`.
    pub(crate) fn shifted(&self, places: i64) -> Amount {
        let (digits, scale) = self.0.as_bigint_and_exponent();
        Amount(BigDecimal::new(digits, scale + places).normalized())
    }

    /// Half of it.
    pub(crate) fn half(&self) -> Amount {
        Amount(self.0.half().normalized())
    }

    /// How much larger `to` is than this in percent, to one place, with its sign; `None` from zero.
    pub(crate) fn percent_to(&self, to: &Amount) -> Option<String> {
        if self.is_zero() {
            return None;
        }
        let change = (&to.0 - &self.0) * BigDecimal::from(100) / &self.0;
        let rounded = change.with_scale_round(1, RoundingMode::HalfEven).normalized();
        let sign = if rounded.sign() == Sign::Plus { "+" } else { "" };
        Some(format!("{sign}{}%", rounded.to_plain_string()))
    }

    /// How many times `of` it is, where that is a decimal that ends.
    pub(crate) fn ratio(&self, of: &Amount) -> Option<Amount> {
        if of.is_zero() {
            return None;
        }
        let ratio = (&self.0 / &of.0).normalized();
        (&ratio * &of.0 == self.0).then_some(Amount(ratio))
    }
}

impl fmt::Display for Amount {
    /// As a plain decimal without trailing zeros.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.to_plain_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn amount(text: &str) -> Amount {
        Amount::parse(text).unwrap_or_else(|| panic!("{text}"))
    }

    #[test]
    fn a_price_keeps_its_digits_and_loses_its_exponent() {
        for (text, shown) in [
            ("0", "0"),
            ("0.0", "0"),
            ("2.50", "2.5"),
            ("10", "10"),
            ("100", "100"),
            ("1e3", "1000"),
            ("1.5e-07", "0.00000015"),
            ("3E-9", "0.000000003"),
            ("0.0002833333333333333", "0.0002833333333333333"),
        ] {
            assert_eq!(amount(text).to_string(), shown, "{text}");
        }
    }

    #[test]
    fn what_is_no_amount_is_not_read_as_one() {
        for text in ["", "ten", "-1", "+1", "NaN", "inf", "1e-99999", "1e99999", ".5", "1.2.3", "1 USD"] {
            assert_eq!(Amount::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_price_per_token_becomes_one_per_million_and_float_noise_is_told() {
        for (text, shown, noise) in [
            ("2.5e-06", "2.5", false),
            ("1e-12", "0.000001", false),
            ("5.0000000000000004e-08", "0.05", true),
            ("0.00000225001", "2.25001", false),
            ("1.5e-12", "0.0000015", false),
            ("1.1428571428571428e-06", "1.1428571428571428", false),
            ("0", "0", false),
            ("0.00971", "9710", false),
        ] {
            let (price, rounded) = amount(text).per_million();
            assert_eq!((price.to_string().as_str(), rounded), (shown, noise), "{text}");
        }
    }

    #[test]
    fn halves_ratios_and_percentages_are_exact_or_said_not_to_be() {
        assert_eq!(amount("0.000001").half().to_string(), "0.0000005");
        assert_eq!(amount("3.3").ratio(&amount("3")).map(|ratio| ratio.to_string()).as_deref(), Some("1.1"));
        assert_eq!(amount("1").ratio(&amount("3")), None);
        assert_eq!(amount("1").ratio(&amount("0")), None);
        assert_eq!(amount("2").percent_to(&amount("3")).as_deref(), Some("+50%"));
        assert_eq!(amount("3").percent_to(&amount("2")).as_deref(), Some("-33.3%"));
        assert_eq!(amount("2").percent_to(&amount("2.0")).as_deref(), Some("0%"));
        assert_eq!(amount("0").percent_to(&amount("2")), None);
    }

    #[test]
    fn what_the_filter_cannot_keep_is_rounded_and_told() {
        assert_eq!(amount("0.0002833333333333333").kept(), (amount("0.0002833333333333333"), false));
        let (kept, rounded) = amount("0.12345678901234567891").kept();
        assert_eq!((kept.to_string().as_str(), rounded), ("0.1234567890123456789", true));
    }
}
