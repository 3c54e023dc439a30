//! Money as integers: pico-dollars for amounts, exact decimals for rates.
//!
//! Provider prices need twelve decimal places per token (a rate of six decimals per million tokens), so the
//! unit is the pico-dollar, 1e-12 USD, in 128 bits. A [`Decimal`] keeps a rate exactly as it was written; the
//! only rounding in the project is in [`charge`], half to even, once per charge. Nothing here is a float.

use std::fmt;

/// Decimal places of a [`Usd`].
const PICO_DIGITS: i32 = 12;

/// An amount in pico-dollars (1e-12 USD), exact. Negative amounts are possible: a limit minus an overrun.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Usd(i128);

impl Usd {
    /// No money at all: a known zero, never a stand-in for "unknown".
    pub const ZERO: Usd = Usd(0);
    /// The largest amount; sums stop here instead of wrapping.
    pub const MAX: Usd = Usd(i128::MAX);

    /// An amount of `pico` pico-dollars.
    pub const fn from_pico(pico: i128) -> Usd {
        Usd(pico)
    }

    /// The amount in pico-dollars.
    pub const fn pico(self) -> i128 {
        self.0
    }

    /// The sum, or the largest amount where it would not fit.
    #[must_use]
    pub const fn saturating_add(self, other: Usd) -> Usd {
        Usd(self.0.saturating_add(other.0))
    }
}

impl fmt::Display for Usd {
    /// The exact decimal in dollars, without trailing zeros: `0.0075`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 < 0 {
            f.write_str("-")?;
        }
        write_scaled(f, self.0.unsigned_abs(), PICO_DIGITS.unsigned_abs())
    }
}

/// Writes `digits / 10^scale` without an exponent and without trailing zeros.
fn write_scaled(f: &mut fmt::Formatter<'_>, digits: u128, scale: u32) -> fmt::Result {
    let text = digits.to_string();
    let scale = scale as usize;
    let padded = if text.len() <= scale { format!("{text:0>width$}", width = scale + 1) } else { text };
    let (whole, fraction) = padded.split_at(padded.len() - scale);
    let fraction = fraction.trim_end_matches('0');
    if fraction.is_empty() { f.write_str(whole) } else { write!(f, "{whole}.{fraction}") }
}

/// A non-negative decimal number, exactly as written: `digits / 10^scale`, without trailing zeros.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Decimal {
    digits: u64,
    scale: u8,
}

/// Why a text is not a [`Decimal`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecimalError {
    /// Not a decimal number.
    Syntax,
    /// Below zero.
    Negative,
    /// More significant digits or decimal places than can be kept exactly.
    TooPrecise,
}

impl fmt::Display for DecimalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DecimalError::Syntax => "expected a decimal amount",
            DecimalError::Negative => "expected an amount of zero or more",
            DecimalError::TooPrecise => "expected at most 19 significant digits and 30 decimal places",
        })
    }
}

impl Decimal {
    const MAX_SCALE: i32 = 30;

    /// Reads `2.50`, `0.00000015` or `1.5e-07`; the value is kept exactly or refused.
    ///
    /// # Errors
    /// See [`DecimalError`].
    pub fn parse(text: &str) -> Result<Decimal, DecimalError> {
        let (text, negative) = match text.strip_prefix('-') {
            Some(rest) => (rest, true),
            None => (text, false),
        };
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, exponent.parse::<i16>().map_err(|_| DecimalError::Syntax)?),
            None => (text, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all_digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
        if whole.is_empty() || !all_digits(whole) || !all_digits(fraction) || mantissa.ends_with('.') {
            return Err(DecimalError::Syntax);
        }
        let significant = fraction.trim_end_matches('0');
        let places = i32::try_from(significant.len()).map_err(|_| DecimalError::TooPrecise)?;
        let mut digits: u64 = 0;
        for byte in whole.bytes().chain(significant.bytes()) {
            digits = digits
                .checked_mul(10)
                .and_then(|d| d.checked_add(u64::from(byte - b'0')))
                .ok_or(DecimalError::TooPrecise)?;
        }
        if negative && digits != 0 {
            return Err(DecimalError::Negative);
        }
        Decimal::scaled(digits, places - i32::from(exponent))
    }

    /// Whether it is nothing.
    pub const fn is_zero(self) -> bool {
        self.digits == 0
    }

    /// This many times `count`, rounded up; the largest count where it does not fit.
    pub fn times_up(self, count: u64) -> u64 {
        let product = u128::from(self.digits) * u128::from(count);
        let divisor = 10u128.checked_pow(u32::from(self.scale)).unwrap_or(u128::MAX);
        u64::try_from(product.div_ceil(divisor)).unwrap_or(u64::MAX)
    }

    /// The same divided by `10^places`; `None` where that has more decimal places than can be kept.
    pub fn shifted(self, places: u8) -> Option<Decimal> {
        Decimal::scaled(self.digits, i32::from(self.scale) + i32::from(places)).ok()
    }

    /// `digits / 10^scale` for any scale, in the one normal form.
    fn scaled(mut digits: u64, mut scale: i32) -> Result<Decimal, DecimalError> {
        if digits == 0 {
            return Ok(Decimal::default());
        }
        while scale > 0 && digits.is_multiple_of(10) {
            digits /= 10;
            scale -= 1;
        }
        while scale < 0 {
            digits = digits.checked_mul(10).ok_or(DecimalError::TooPrecise)?;
            scale += 1;
        }
        if scale > Decimal::MAX_SCALE {
            return Err(DecimalError::TooPrecise);
        }
        Ok(Decimal { digits, scale: u8::try_from(scale).map_err(|_| DecimalError::TooPrecise)? })
    }
}

impl From<u64> for Decimal {
    fn from(digits: u64) -> Decimal {
        Decimal { digits, scale: 0 }
    }
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_scaled(f, u128::from(self.digits), u32::from(self.scale))
    }
}

/// What a [`Rate`] is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Per {
    /// One million of the unit: tokens.
    Million,
    /// One of the unit: searches, pages, seconds.
    One,
}

impl Per {
    /// The count the rate is for.
    pub const fn count(self) -> u32 {
        match self {
            Per::Million => 1_000_000,
            Per::One => 1,
        }
    }

    const fn exponent(self) -> i32 {
        match self {
            Per::Million => 6,
            Per::One => 0,
        }
    }
}

/// A price: dollars for a number of units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Dollars.
    pub usd: Decimal,
    /// For how many units.
    pub per: Per,
}

/// The price of `quantity` units, rounded half to even to the pico-dollar; `None` where it exceeds 128 bits.
pub fn charge(quantity: u64, rate: Rate) -> Option<Usd> {
    // Both factors are below 2^64, so the product fits.
    let product = u128::from(quantity) * u128::from(rate.usd.digits);
    let exponent = PICO_DIGITS - rate.per.exponent() - i32::from(rate.usd.scale);
    let pico = if exponent >= 0 {
        product.checked_mul(10u128.checked_pow(exponent.unsigned_abs())?)?
    } else {
        divide_half_even(product, 10u128.checked_pow(exponent.unsigned_abs())?)
    };
    i128::try_from(pico).ok().map(Usd)
}

fn divide_half_even(value: u128, divisor: u128) -> u128 {
    let (quotient, remainder) = (value / divisor, value % divisor);
    let up = match (remainder * 2).cmp(&divisor) {
        std::cmp::Ordering::Less => false,
        std::cmp::Ordering::Equal => quotient % 2 == 1,
        std::cmp::Ordering::Greater => true,
    };
    quotient + u128::from(up)
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn rate(text: &str, per: Per) -> Rate {
        Rate { usd: Decimal::parse(text).unwrap(), per }
    }

    #[test]
    fn a_decimal_is_kept_as_written_without_trailing_zeros() {
        for (text, shown) in [
            ("2.50", "2.5"),
            ("0", "0"),
            ("0.000", "0"),
            ("10.00", "10"),
            ("100", "100"),
            ("1.5e-07", "0.00000015"),
            ("25e-1", "2.5"),
            ("1e3", "1000"),
            ("0.0002833333333333333", "0.0002833333333333333"),
            ("0.000000000000000001", "0.000000000000000001"),
            ("18446744073709551615", "18446744073709551615"),
            ("-0", "0"),
        ] {
            assert_eq!(Decimal::parse(text).unwrap().to_string(), shown, "{text}");
        }
    }

    #[test]
    fn what_is_not_an_exact_decimal_is_refused() {
        for (text, error) in [
            ("", DecimalError::Syntax),
            ("ten", DecimalError::Syntax),
            ("1,5", DecimalError::Syntax),
            (".5", DecimalError::Syntax),
            ("5.", DecimalError::Syntax),
            ("+1", DecimalError::Syntax),
            ("1e", DecimalError::Syntax),
            ("$1", DecimalError::Syntax),
            (" 1", DecimalError::Syntax),
            ("0x10", DecimalError::Syntax),
            ("-1", DecimalError::Negative),
            ("-0.01", DecimalError::Negative),
            ("18446744073709551616", DecimalError::TooPrecise),
            ("1e30", DecimalError::TooPrecise),
            ("1e-31", DecimalError::TooPrecise),
        ] {
            assert_eq!(Decimal::parse(text), Err(error), "{text}");
        }
    }

    #[test]
    fn a_decimal_shifts_exactly() {
        let ticks = Decimal::parse("12345600").unwrap();
        assert_eq!(ticks.shifted(10).unwrap().to_string(), "0.00123456");
        assert_eq!(Decimal::from(7).to_string(), "7");
        assert!(Decimal::default().is_zero() && !ticks.is_zero());
        let quarter = Decimal::parse("0.25").unwrap();
        assert_eq!([0, 1, 4, 5, u64::MAX].map(|count| quarter.times_up(count)), [0, 1, 1, 2, 1 << 62]);
        assert_eq!(Decimal::from(2).times_up(u64::MAX), u64::MAX);
    }

    #[test]
    fn a_charge_is_exact_to_the_pico_dollar() {
        for (quantity, usd, per, pico) in [
            (1000, "2.50", Per::Million, 2_500_000_000),
            (1, "0.000001", Per::Million, 1),
            (3, "0.01", Per::One, 30_000_000_000),
            (7, "0", Per::Million, 0),
            (0, "2.50", Per::Million, 0),
        ] {
            assert_eq!(charge(quantity, rate(usd, per)), Some(Usd::from_pico(pico)), "{quantity} x {usd}");
        }
    }

    #[test]
    fn a_finer_rate_rounds_half_to_even_once() {
        for (quantity, pico) in [(1, 0), (2, 1), (3, 2), (5, 2), (7, 4)] {
            assert_eq!(charge(quantity, rate("0.0000005", Per::Million)), Some(Usd::from_pico(pico)), "{quantity}");
        }
    }

    #[test]
    fn a_charge_beyond_128_bits_is_none_not_a_wrapped_number() {
        assert_eq!(charge(u64::MAX, rate("18446744073709551615", Per::One)), None);
        assert_eq!(Usd::MAX.saturating_add(Usd::from_pico(1)), Usd::MAX);
    }

    #[test]
    fn dollars_show_exactly() {
        for (pico, shown) in [
            (0, "0"),
            (1, "0.000000000001"),
            (7_500_000_000, "0.0075"),
            (1_000_000_000_000, "1"),
            (-2_500_000_000_000, "-2.5"),
            (1_234_567_890_123_456, "1234.567890123456"),
        ] {
            assert_eq!(Usd::from_pico(pico).to_string(), shown);
        }
    }
}
