//! Money as integers: pico-dollars for amounts, exact decimals for rates.
//!
//! Provider prices need twelve decimal places per token (a rate of six decimals per million tokens), so the
//! unit is the pico-dollar, 1e-12 USD, in 128 bits. A [`Decimal`] keeps a rate exactly as it was written; the
//! only rounding in the project is in [`charge`], half to even, once per charge. Nothing here is a float.

use std::cmp::Ordering;
use std::fmt;

/// Decimal places of a [`Usd`].
const PICO_DIGITS: u32 = 12;

/// An amount in pico-dollars (1e-12 USD), exact. Negative amounts are possible: a limit minus an overrun.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Usd(i128);

impl Usd {
    /// No money at all: a known zero, never a stand-in for "unknown".
    pub const ZERO: Usd = Usd(0);
    /// The largest amount; sums stop here instead of wrapping.
    pub const MAX: Usd = Usd(i128::MAX);

    /// An amount of so many dollars, rounded half to even to the pico-dollar; `None` where it exceeds 128 bits.
    pub fn of(dollars: Decimal) -> Option<Usd> {
        charge(dollars, Rate::per_one(Decimal::ONE), Decimal::ONE)
    }

    /// An amount of `pico` pico-dollars.
    pub const fn from_pico(pico: i128) -> Usd {
        Usd(pico)
    }

    /// The amount in pico-dollars.
    pub const fn pico(self) -> i128 {
        self.0
    }

    /// The difference, or the nearest amount that fits.
    #[must_use]
    pub const fn saturating_sub(self, other: Usd) -> Usd {
        Usd(self.0.saturating_sub(other.0))
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
        write_scaled(f, self.0.unsigned_abs(), PICO_DIGITS)
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
    /// One: the multiplier that changes nothing.
    pub const ONE: Decimal = Decimal { digits: 1, scale: 0 };

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

    /// How many decimal places it has.
    pub const fn decimal_places(self) -> u8 {
        self.scale
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

    /// The product; `None` where it can't be kept exactly.
    pub fn times(self, other: Decimal) -> Option<Decimal> {
        let mut digits = u128::from(self.digits) * u128::from(other.digits);
        let mut scale = i32::from(self.scale) + i32::from(other.scale);
        while digits > u128::from(u64::MAX) && digits.is_multiple_of(10) {
            digits /= 10;
            scale -= 1;
        }
        Decimal::scaled(u64::try_from(digits).ok()?, scale).ok()
    }

    /// The product, to as many digits as can be kept: at least eighteen. For products of many factors, none of which alone
    /// is that precise.
    pub fn product(self, other: Decimal) -> Option<Decimal> {
        let mut digits = u128::from(self.digits) * u128::from(other.digits);
        let mut scale = i32::from(self.scale) + i32::from(other.scale);
        while digits > u128::from(u64::MAX) || scale > Decimal::MAX_SCALE {
            digits = divide_half_even(digits, 10)?;
            scale -= 1;
        }
        Decimal::scaled(u64::try_from(digits).ok()?, scale).ok()
    }

    /// One plus this; `None` where it can't be kept exactly.
    pub fn plus_one(self) -> Option<Decimal> {
        let one = 10u64.checked_pow(u32::from(self.scale))?;
        Decimal::scaled(self.digits.checked_add(one)?, i32::from(self.scale)).ok()
    }

    /// One less this; `None` where this is above one.
    pub fn one_minus(self) -> Option<Decimal> {
        let one = 10u64.checked_pow(u32::from(self.scale))?;
        Decimal::scaled(one.checked_sub(self.digits)?, i32::from(self.scale)).ok()
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

impl Ord for Decimal {
    fn cmp(&self, other: &Decimal) -> Ordering {
        // Brought to the finer of the two scales; where that exceeds 128 bits, the coarser one is the greater.
        let scale = self.scale.max(other.scale);
        let at = |d: &Decimal| 10u128.checked_pow(u32::from(scale - d.scale))?.checked_mul(u128::from(d.digits));
        match (at(self), at(other)) {
            (Some(a), Some(b)) => a.cmp(&b),
            (None, _) => Ordering::Greater,
            (_, None) => Ordering::Less,
        }
    }
}

impl PartialOrd for Decimal {
    fn partial_cmp(&self, other: &Decimal) -> Option<Ordering> {
        Some(self.cmp(other))
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

/// A price: dollars for a number of units. Some list prices are no finite decimal for one unit (0.24 an hour, by the
/// second), so both numbers are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Dollars.
    pub usd: Decimal,
    /// For how many units; never zero.
    pub per: u32,
}

impl Rate {
    /// `usd` dollars for a million units: tokens.
    pub const fn per_million(usd: Decimal) -> Rate {
        Rate { usd, per: 1_000_000 }
    }

    /// `usd` dollars for one unit: searches, pages, seconds.
    pub const fn per_one(usd: Decimal) -> Rate {
        Rate { usd, per: 1 }
    }
}

/// `quantity` times `rate` times `multiplier`, rounded half to even to the pico-dollar, once; `None` where a step
/// exceeds 128 bits.
pub fn charge(quantity: Decimal, rate: Rate, multiplier: Decimal) -> Option<Usd> {
    // The first two factors are below 2^64 each, so their product fits.
    let product = u128::from(quantity.digits) * u128::from(rate.usd.digits);
    let product = product.checked_mul(u128::from(multiplier.digits))?;
    let scale = u32::from(quantity.scale) + u32::from(rate.usd.scale) + u32::from(multiplier.scale);
    // Tokens, nearly every charge there is: most need no division at all.
    let (per, scale) = if rate.per == 1_000_000 { (1, scale + 6) } else { (u128::from(rate.per), scale) };
    let pico = if let Some(places) = PICO_DIGITS.checked_sub(scale) {
        let product = product.checked_mul(10u128.checked_pow(places)?)?;
        if per == 1 { product } else { divide_half_even(product, per)? }
    } else {
        divide_half_even(product, 10u128.checked_pow(scale - PICO_DIGITS)?.checked_mul(per)?)?
    };
    i128::try_from(pico).ok().map(Usd)
}

/// `None` where the divisor is zero.
fn divide_half_even(value: u128, divisor: u128) -> Option<u128> {
    let (quotient, remainder) = (value.checked_div(divisor)?, value.checked_rem(divisor)?);
    let up = match remainder.cmp(&(divisor - remainder)) {
        Ordering::Less => false,
        Ordering::Equal => quotient % 2 == 1,
        Ordering::Greater => true,
    };
    Some(quotient + u128::from(up))
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn decimal(text: &str) -> Decimal {
        Decimal::parse(text).unwrap()
    }

    fn charged(quantity: u64, usd: &str, per: u32, multiplier: &str) -> Option<i128> {
        let rate = Rate { usd: decimal(usd), per };
        charge(Decimal::from(quantity), rate, decimal(multiplier)).map(Usd::pico)
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
        for (quantity, usd, per, multiplier, pico) in [
            (1000, "2.50", 1_000_000, "1", 2_500_000_000),
            (1, "0.000001", 1_000_000, "1", 1),
            (3, "0.01", 1, "1", 30_000_000_000),
            (7, "0", 1_000_000, "1", 0),
            (0, "2.50", 1_000_000, "1", 0),
            (1000, "3", 1_000_000, "1.1", 3_300_000_000),
            (1000, "3", 1_000_000, "0", 0),
            (3600, "0.24", 3600, "1", 240_000_000_000),
            (61, "0.24", 3600, "1", 4_066_666_667),
            (61, "0.24", 3600, "0.5", 2_033_333_333),
        ] {
            assert_eq!(
                charged(quantity, usd, per, multiplier),
                Some(pico),
                "{quantity} x {usd} / {per} x {multiplier}"
            );
        }
        let rate = Rate::per_one(decimal("0.0001"));
        assert_eq!(charge(decimal("61.5"), rate, Decimal::ONE), Some(Usd::from_pico(6_150_000_000)));
    }

    #[test]
    fn a_finer_rate_rounds_half_to_even_once() {
        for (quantity, pico) in [(1, 0), (2, 1), (3, 2), (5, 2), (7, 4)] {
            assert_eq!(charged(quantity, "0.0000005", 1_000_000, "1"), Some(pico), "{quantity}");
            assert_eq!(charged(quantity, "0.000001", 1_000_000, "0.5"), Some(pico), "{quantity} by a multiplier");
        }
    }

    #[test]
    fn a_charge_beyond_128_bits_is_none_not_a_wrapped_number() {
        assert_eq!(charged(u64::MAX, "18446744073709551615", 1, "1"), None);
        assert_eq!(charged(u64::MAX, "18446744073709551615", 1_000_000, "18446744073709551615"), None);
        assert_eq!(charged(1, "1", 0, "1"), None, "a rate for nothing");
        assert_eq!(Usd::MAX.saturating_add(Usd::from_pico(1)), Usd::MAX);
    }

    #[test]
    fn decimals_multiply_and_compare_exactly() {
        for (a, b, product) in [("1.1", "0.9", Some("0.99")), ("0.5", "2", Some("1")), ("0", "7", Some("0"))] {
            assert_eq!(decimal(a).times(decimal(b)).map(|d| d.to_string()).as_deref(), product, "{a} x {b}");
        }
        assert_eq!(Decimal::from(u64::MAX).times(Decimal::from(u64::MAX)), None);
        let fine = decimal("1.123456");
        let product = [fine; 5].into_iter().try_fold(Decimal::ONE, Decimal::product).unwrap();
        assert_eq!(product.to_string(), "1.7897004200356195887", "of 1.78970042003561958876…");
        assert_eq!(decimal("1.1").product(decimal("0.9")), decimal("1.1").times(decimal("0.9")));
        assert_eq!(decimal("0.1").one_minus(), Some(decimal("0.9")));
        assert_eq!(decimal("1").one_minus(), Some(decimal("0")));
        assert_eq!(decimal("1.01").one_minus(), None);
        assert_eq!(decimal("0.05").plus_one(), Some(decimal("1.05")));
        for (less, more) in [("0.1", "0.11"), ("2", "10"), ("0.999", "1"), ("0", "0.000000000000000001")] {
            assert!(decimal(less) < decimal(more), "{less} < {more}");
        }
        assert!(decimal("0.000000000000000000000000000001") < Decimal::from(u64::MAX));
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
