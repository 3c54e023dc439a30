//! The calendar, and timestamps as text and back.

use std::fmt::Write;

/// `unix_ns` as RFC 3339 in UTC with microseconds: `2026-11-21T12:00:00.000001Z`.
pub fn rfc3339_micros(unix_ns: u64) -> String {
    let mut text = unzoned(unix_ns / 1_000_000_000);
    // A string takes all that is written to it.
    let _ = write!(text, ".{:06}Z", unix_ns / 1_000 % 1_000_000);
    text
}

/// Seconds since 1970 as RFC 3339 in UTC: `2026-11-21T12:00:00Z`.
pub fn rfc3339_seconds(unix_seconds: u64) -> String {
    let mut text = unzoned(unix_seconds);
    text.push('Z');
    text
}

/// The same without the zone.
fn unzoned(unix_seconds: u64) -> String {
    let second_of_day = unix_seconds % 86_400;
    let Date { year, month, day } = Date::of_day((unix_seconds / 86_400).cast_signed());
    let (hour, minute, second) = (second_of_day / 3600, second_of_day / 60 % 60, second_of_day % 60);
    let mut text = String::with_capacity("2026-11-21T12:00:00.000001Z".len());
    let _ = write!(text, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
    text
}

/// A day of the Gregorian calendar, before 1970 too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Date {
    pub(crate) year: i64,
    /// 1 to 12; 13 is the next year's January.
    pub(crate) month: i64,
    /// From 1.
    pub(crate) day: i64,
}

/// Years are counted from 1 March here, so that a leap day is the last of its year.
impl Date {
    const DAYS_TO_1970: i64 = 719_468; // from 0000-03-01
    pub(crate) const DAYS_PER_ERA: i64 = 146_097; // 400 years

    /// The date a number of days after 1970-01-01.
    pub(crate) fn of_day(number: i64) -> Date {
        let days = number + Date::DAYS_TO_1970;
        let (era, day_of_era) = (days.div_euclid(Date::DAYS_PER_ERA), days.rem_euclid(Date::DAYS_PER_ERA));
        let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
        let (month, next) = if month_from_march < 10 { (month_from_march + 3, 0) } else { (month_from_march - 9, 1) };
        Date { year: era * 400 + year_of_era + next, month, day }
    }

    /// Days since 1970-01-01.
    pub(crate) fn day_number(self) -> i64 {
        let months = self.year * 12 + self.month - 3;
        let (year, month_from_march) = (months.div_euclid(12), months.rem_euclid(12));
        let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
        year * 365 + leap_days + (153 * month_from_march + 2) / 5 + self.day - 1 - Date::DAYS_TO_1970
    }
}

/// The seconds since 1970 of an RFC 3339 time: `2026-12-01T00:00:00Z`, `2026-12-01T01:00:00+01:00`. A fraction of a second
/// is cut off.
pub fn parse_rfc3339(text: &str) -> Option<u64> {
    let (date, time) = text.split_once(['T', 't', ' '])?;
    let number = |text: &str, digits: usize| {
        let shaped = text.len() == digits && text.bytes().all(|b| b.is_ascii_digit());
        shaped.then(|| text.parse::<u64>().ok()).flatten()
    };
    let mut date = date.splitn(3, '-');
    let (year, month, day) = (number(date.next()?, 4)?, number(date.next()?, 2)?, number(date.next()?, 2)?);

    let zone = time.find(['Z', 'z', '+', '-'])?;
    let (time, zone) = time.split_at_checked(zone)?;
    let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let mut time = time.splitn(3, ':');
    let (hour, minute, second) = (number(time.next()?, 2)?, number(time.next()?, 2)?, number(time.next()?, 2)?);
    let whole = fraction.bytes().all(|b| b.is_ascii_digit()) && !fraction.is_empty();

    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let last_day = match month {
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        _ => 31,
    };
    let shaped = (1970..=2500).contains(&year) && (1..=12).contains(&month) && (1..=last_day).contains(&day);
    if !shaped || !whole || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let date = Date { year: year.cast_signed(), month: month.cast_signed(), day: day.cast_signed() };
    let local = u64::try_from(date.day_number()).ok()? * 86_400 + hour * 3600 + minute * 60 + second;
    match zone.split_at_checked(1)? {
        ("Z" | "z", "") => Some(local),
        (sign, offset) => {
            let (hours, minutes) = offset.split_once(':')?;
            let offset = number(hours, 2)? * 3600 + number(minutes, 2)? * 60;
            if sign == "+" { local.checked_sub(offset) } else { local.checked_add(offset) }
        }
    }
}

/// The same in nanoseconds, fraction included.
pub fn parse_rfc3339_ns(text: &str) -> Option<u64> {
    let seconds = parse_rfc3339(text)?;
    let fraction = text.split_once('.').map_or("", |(_, fraction)| fraction);
    let digits = fraction.bytes().take_while(u8::is_ascii_digit).chain(std::iter::repeat(b'0'));
    let nanos = digits.take(9).fold(0, |nanos, digit| nanos * 10 + u64::from(digit - b'0'));
    seconds.checked_mul(1_000_000_000)?.checked_add(nanos)
}

/// The seconds since 1970 of an HTTP date in the one form that is not obsolete: `Sun, 06 Nov 1994 08:49:37 GMT`.
pub fn parse_http_date(text: &str) -> Option<u64> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (_, date) = text.split_once(", ")?;
    let mut parts = date.splitn(5, ' ');
    let (day, month, year, time) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let month = MONTHS.iter().position(|name| *name == month)? + 1;
    if parts.next() != Some("GMT") {
        return None;
    }
    parse_rfc3339(&format!("{year}-{month:02}-{day}T{time}Z"))
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn a_time_reads_back_as_it_was_written() {
        for seconds in [0, 951_782_399, 951_782_400, 1_709_251_199, 1_709_251_200, 4_107_542_400, 1_795_262_400] {
            assert_eq!(parse_rfc3339(&rfc3339_micros(seconds * 1_000_000_000)), Some(seconds));
        }
        for (text, seconds) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2026-11-21T13:00:00+01:00", Some(1_795_262_400)),
            ("2026-11-21T06:30:00-05:30", Some(1_795_262_400)),
            ("2026-11-21 12:00:00.999z", Some(1_795_262_400)),
            ("1970-01-01T00:00:00+01:00", None),
            ("2026-02-29T00:00:00Z", None),
            ("2026-13-01T00:00:00Z", None),
            ("2026-12-01", None),
            ("2026-12-01T00:00:00", None),
            ("2026-12-01T00:00Z", None),
            ("2026-12-01T24:00:00Z", None),
            ("2026-12-01T00:00:00.Z", None),
            ("tomorrow", None),
            ("", None),
        ] {
            assert_eq!(parse_rfc3339(text), seconds, "{text}");
        }
    }

    #[test]
    fn a_fraction_of_a_second_reads_back_to_the_nanosecond() {
        for (text, nanos) in [
            ("1970-01-01T00:00:01Z", Some(1_000_000_000)),
            ("1970-01-01T00:00:00.000001Z", Some(1_000)),
            ("1970-01-01T00:00:00.1234567891Z", Some(123_456_789)),
            ("1970-01-01T00:00:00.5+00:00", Some(500_000_000)),
            ("2500-01-01T00:00:00Z", Some(16_725_225_600_000_000_000)),
            ("soon", None),
        ] {
            assert_eq!(parse_rfc3339_ns(text), nanos, "{text}");
        }
    }

    #[test]
    fn timestamps_follow_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.000000Z"),
            (951_782_399, "2000-02-28T23:59:59.000000Z"),
            (951_782_400, "2000-02-29T00:00:00.000000Z"),
            (1_709_251_199, "2024-02-29T23:59:59.000000Z"),
            (1_709_251_200, "2024-03-01T00:00:00.000000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000000Z"),
            (1_795_262_400, "2026-11-21T12:00:00.000000Z"),
        ] {
            assert_eq!(rfc3339_micros(seconds * 1_000_000_000), text);
        }
        assert_eq!(rfc3339_micros(1_234_567), "1970-01-01T00:00:00.001234Z");
        assert_eq!(rfc3339_micros(u64::MAX), "2554-07-21T23:34:33.709551Z");
    }
}
