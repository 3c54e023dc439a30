//! The period a budget is for, computed from the clock: no job has to reset anything.
//!
//! Periods follow the local calendar of the budget's time zone. Those of one [`Calendar`] tile time: the end of one is
//! the beginning of the next, and every instant is in exactly one, also where clocks change.

use super::zone::Zone;
use crate::time::Date;
use std::cell::Cell;

const SECONDS_PER_DAY: i64 = 86_400;

/// 9999-12-31T23:59:59Z; what is later counts as this instant.
const LAST_SECOND: i64 = 253_402_300_799;

/// The length of a budget's period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window {
    /// A minute of the clock.
    Minute,
    /// An hour of the clock; the hour that clocks go back to is another one.
    Hour,
    /// From midnight to midnight, 23 or 25 hours where clocks change.
    Day,
    /// From Monday on.
    Week,
    /// A calendar or fiscal month.
    Month,
    /// Three months; the first one begins in January.
    Quarter,
    /// Twelve months; the first one begins in January.
    Year,
    /// All time.
    Lifetime,
}

impl Window {
    /// Every window, the shortest first.
    pub const ALL: [Window; 8] = [
        Window::Minute,
        Window::Hour,
        Window::Day,
        Window::Week,
        Window::Month,
        Window::Quarter,
        Window::Year,
        Window::Lifetime,
    ];

    /// The name in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Window::Minute => "minute",
            Window::Hour => "hour",
            Window::Day => "day",
            Window::Week => "week",
            Window::Month => "month",
            Window::Quarter => "quarter",
            Window::Year => "year",
            Window::Lifetime => "lifetime",
        }
    }

    /// The window of this name.
    pub fn of_name(name: &str) -> Option<Window> {
        Window::ALL.into_iter().find(|window| window.name() == name)
    }
}

/// Where the periods of a budget begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Calendar {
    /// Their length.
    pub window: Window,
    /// Whose midnight it is.
    pub zone: Zone,
    /// The day of the month on which a month, quarter or year begins, 1 to 28: with 15, the month of 14 March is from
    /// 15 February on and before 15 March. Not for the shorter windows.
    pub starts_on: u8,
}

/// A period in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Its first second.
    pub start: u64,
    /// The first second that is not in it any more. `None`: it does not end.
    pub end: Option<u64>,
}

impl Span {
    /// Whether an instant is in it.
    pub fn contains(&self, unix_seconds: u64) -> bool {
        self.start <= unix_seconds && self.end.is_none_or(|end| unix_seconds < end)
    }
}

/// The period that a calendar was asked for last: the next call is nearly always in it, and dates in a time zone take
/// longer to compute than anything else about a budget.
#[derive(Clone, Debug, Default)]
pub struct LastSpan(Cell<Option<Span>>);

impl LastSpan {
    /// The period of `calendar` that contains an instant.
    pub fn of(&self, calendar: &Calendar, unix_seconds: u64) -> Span {
        if let Some(last) = self.0.get().filter(|last| last.contains(unix_seconds)) {
            return last;
        }
        let span = calendar.span(unix_seconds);
        self.0.set(Some(span));
        span
    }
}

impl Calendar {
    /// The period that contains an instant. The first one begins at 1970 at the earliest.
    pub fn span(&self, unix_seconds: u64) -> Span {
        let now = i64::try_from(unix_seconds).unwrap_or(i64::MAX).min(LAST_SECOND);
        let (start, end) = match self.window {
            Window::Minute => self.clock_span(now, 60),
            Window::Hour => self.clock_span(now, 3600),
            Window::Day => self.date_span(now, Dates::Days { count: 1, first: 0 }),
            // 1969-12-29 was a Monday.
            Window::Week => self.date_span(now, Dates::Days { count: 7, first: -3 }),
            Window::Month => self.months_span(now, 1),
            Window::Quarter => self.months_span(now, 3),
            Window::Year => self.months_span(now, 12),
            Window::Lifetime => return Span { start: 0, end: None },
        };
        let seconds = |instant: i64| u64::try_from(instant).unwrap_or(0);
        Span { start: seconds(start), end: Some(seconds(end)) }
    }

    /// A minute or an hour as the clock counts them, of `length` seconds.
    fn clock_span(&self, now: i64, length: i64) -> (i64, i64) {
        let stretch = self.zone.stretch_at(now);
        let start = now - (now + stretch.offset).rem_euclid(length);
        let end = start + length;
        // Lord Howe's clocks change by half an hour: the hours before and after don't fit, and the change ends one.
        if self.zone.shift() % length == 0 { (start, end) } else { (start.max(stretch.begins), end.min(stretch.ends)) }
    }

    fn months_span(&self, now: i64, count: i64) -> (i64, i64) {
        // No other day is in every month.
        self.date_span(now, Dates::Months { count, starts_on: i64::from(self.starts_on.clamp(1, 28)) })
    }

    /// A period from the midnight of one date to that of another.
    fn date_span(&self, now: i64, dates: Dates) -> (i64, i64) {
        let begins = |period: i64| self.zone.local_to_unix(dates.first_day(period) * SECONDS_PER_DAY);
        let today = (now + self.zone.offset_at(now)).div_euclid(SECONDS_PER_DAY);
        let period = dates.period_of(today);
        // Where clocks change around midnight, the date may be a period's that has not begun, or that is over.
        let (start, end) = (begins(period), begins(period + 1));
        if now < start {
            (begins(period - 1), start)
        } else if now >= end {
            (end, begins(period + 2))
        } else {
            (start, end)
        }
    }
}

/// Periods of whole days, numbered.
#[derive(Clone, Copy)]
enum Dates {
    /// `first` is the first day of period 0.
    Days { count: i64, first: i64 },
    /// Period 0 begins in January of the year 0.
    Months { count: i64, starts_on: i64 },
}

impl Dates {
    /// The number of the period in which a day is, itself numbered from 1970-01-01 on.
    fn period_of(self, day: i64) -> i64 {
        match self {
            Dates::Days { count, first } => (day - first).div_euclid(count),
            Dates::Months { count, starts_on } => {
                let date = Date::of_day(day);
                let months = date.year * 12 + date.month - 1 - i64::from(date.day < starts_on);
                months.div_euclid(count)
            }
        }
    }

    fn first_day(self, period: i64) -> i64 {
        match self {
            Dates::Days { count, first } => period * count + first,
            Dates::Months { count, starts_on } => {
                let months = period * count;
                let date = Date { year: months.div_euclid(12), month: months.rem_euclid(12) + 1, day: starts_on };
                date.day_number()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::{parse_rfc3339, rfc3339_micros};
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    /// The span in UTC, to the second: `2026-11-01T00:00:00/2026-12-01T00:00:00`.
    fn span(window: Window, zone: &str, starts_on: u8, instant: &str) -> String {
        let calendar = Calendar { window, zone: Zone::named(zone).unwrap(), starts_on };
        let Span { start, end } = calendar.span(parse_rfc3339(instant).unwrap());
        let text = |seconds: u64| rfc3339_micros(seconds * 1_000_000_000).replace(".000000Z", "");
        format!("{}/{}", text(start), end.map_or("never".to_owned(), text))
    }

    #[test]
    fn periods_begin_at_local_midnight() {
        for (window, zone, instant, expected) in [
            (Window::Minute, "UTC", "2026-11-21T12:34:56Z", "2026-11-21T12:34:00/2026-11-21T12:35:00"),
            (Window::Hour, "Asia/Kathmandu", "2026-11-21T12:34:56Z", "2026-11-21T12:15:00/2026-11-21T13:15:00"),
            (Window::Day, "Europe/Berlin", "2026-11-21T23:30:00Z", "2026-11-21T23:00:00/2026-11-22T23:00:00"),
            (Window::Day, "Pacific/Kiritimati", "2026-11-21T10:00:00Z", "2026-11-21T10:00:00/2026-11-22T10:00:00"),
            (Window::Week, "UTC", "2026-11-22T23:59:59Z", "2026-11-16T00:00:00/2026-11-23T00:00:00"),
            (Window::Week, "UTC", "2026-11-23T00:00:00Z", "2026-11-23T00:00:00/2026-11-30T00:00:00"),
            (Window::Month, "America/New_York", "2026-11-01T03:59:59Z", "2026-10-01T04:00:00/2026-11-01T04:00:00"),
            (Window::Month, "America/New_York", "2026-11-01T04:00:00Z", "2026-11-01T04:00:00/2026-12-01T05:00:00"),
            (Window::Month, "UTC", "2028-02-29T23:59:59Z", "2028-02-01T00:00:00/2028-03-01T00:00:00"),
            (Window::Quarter, "UTC", "2026-11-21T00:00:00Z", "2026-10-01T00:00:00/2027-01-01T00:00:00"),
            (Window::Year, "Asia/Tokyo", "2026-12-31T15:00:00Z", "2026-12-31T15:00:00/2027-12-31T15:00:00"),
            (Window::Lifetime, "Asia/Tokyo", "2026-12-31T15:00:00Z", "1970-01-01T00:00:00/never"),
        ] {
            assert_eq!(span(window, zone, 1, instant), expected, "{window:?} {zone} {instant}");
        }
    }

    #[test]
    fn fiscal_months_begin_on_their_day() {
        for (window, starts_on, instant, expected) in [
            (Window::Month, 15, "2026-03-14T23:59:59Z", "2026-02-15T00:00:00/2026-03-15T00:00:00"),
            (Window::Month, 15, "2026-03-15T00:00:00Z", "2026-03-15T00:00:00/2026-04-15T00:00:00"),
            (Window::Month, 28, "2026-01-01T00:00:00Z", "2025-12-28T00:00:00/2026-01-28T00:00:00"),
            (Window::Quarter, 15, "2026-01-14T00:00:00Z", "2025-10-15T00:00:00/2026-01-15T00:00:00"),
            (Window::Quarter, 15, "2026-04-14T00:00:00Z", "2026-01-15T00:00:00/2026-04-15T00:00:00"),
            (Window::Year, 6, "2026-01-05T00:00:00Z", "2025-01-06T00:00:00/2026-01-06T00:00:00"),
            (Window::Year, 6, "2026-01-06T00:00:00Z", "2026-01-06T00:00:00/2027-01-06T00:00:00"),
            (Window::Week, 15, "2026-11-22T00:00:00Z", "2026-11-16T00:00:00/2026-11-23T00:00:00"),
            (Window::Day, 15, "2026-11-22T00:00:00Z", "2026-11-22T00:00:00/2026-11-23T00:00:00"),
        ] {
            assert_eq!(span(window, "UTC", starts_on, instant), expected, "{window:?} {starts_on} {instant}");
        }
    }

    #[test]
    fn periods_fit_where_clocks_change() {
        for (window, zone, instant, expected) in [
            // Days of 23 and 25 hours.
            (Window::Day, "Europe/Berlin", "2027-03-28T12:00:00Z", "2027-03-27T23:00:00/2027-03-28T22:00:00"),
            (Window::Day, "Europe/Berlin", "2026-10-25T12:00:00Z", "2026-10-24T22:00:00/2026-10-25T23:00:00"),
            // The hour from two to three is there twice, and both are windows.
            (Window::Hour, "Europe/Berlin", "2026-10-25T00:30:00Z", "2026-10-25T00:00:00/2026-10-25T01:00:00"),
            (Window::Hour, "Europe/Berlin", "2026-10-25T01:30:00Z", "2026-10-25T01:00:00/2026-10-25T02:00:00"),
            // Chatham's clocks jump from 2:45 to 3:45, within an hour that is as long as others.
            (Window::Hour, "Pacific/Chatham", "2027-09-25T14:10:00Z", "2027-09-25T13:15:00/2027-09-25T14:15:00"),
            // Lord Howe's from 2:00 to 2:30, and from 2:00 back to 1:30: half an hour.
            (Window::Hour, "Australia/Lord_Howe", "2027-10-02T15:29:59Z", "2027-10-02T14:30:00/2027-10-02T15:30:00"),
            (Window::Hour, "Australia/Lord_Howe", "2027-10-02T15:30:00Z", "2027-10-02T15:30:00/2027-10-02T16:00:00"),
            (Window::Hour, "Australia/Lord_Howe", "2027-04-03T14:59:59Z", "2027-04-03T14:00:00/2027-04-03T15:00:00"),
            (Window::Hour, "Australia/Lord_Howe", "2027-04-03T15:00:00Z", "2027-04-03T15:00:00/2027-04-03T15:30:00"),
            // No midnight: the day begins at one o'clock.
            (Window::Day, "Africa/Cairo", "2027-04-29T22:00:00Z", "2027-04-29T22:00:00/2027-04-30T21:00:00"),
            // Nuuk's clocks go back at midnight: Saturday has 25 hours, and Sunday begins once.
            (Window::Day, "America/Nuuk", "2027-10-31T01:30:00Z", "2027-10-30T01:00:00/2027-10-31T02:00:00"),
            // Havana's clocks go back from one o'clock to midnight: the first midnight begins the day.
            (Window::Day, "America/Havana", "2027-11-07T05:30:00Z", "2027-11-07T04:00:00/2027-11-08T05:00:00"),
        ] {
            assert_eq!(span(window, zone, 1, instant), expected, "{window:?} {zone} {instant}");
        }
    }

    /// No zone changes clocks that way today: 23:30 to 00:30, and 00:30 to 23:30.
    #[test]
    fn an_instant_whose_date_is_ambiguous_is_in_one_day_only() {
        let zone = Zone::of_rule("XXX0YYY,J60/23:30,J304/0:30").unwrap();
        let calendar = Calendar { window: Window::Day, zone, starts_on: 1 };
        let start =
            |instant: &str| rfc3339_micros(calendar.span(parse_rfc3339(instant).unwrap()).start * 1_000_000_000);
        for (instant, expected) in [
            // 00:45 on 2 March, which begins as if clocks had not changed.
            ("2027-03-01T23:45:00Z", "2027-03-01T00:00:00.000000Z"),
            ("2027-03-02T00:00:00Z", "2027-03-02T00:00:00.000000Z"),
            // 23:45 on 30 October for the second time: the 31st has begun.
            ("2027-10-30T23:45:00Z", "2027-10-30T23:00:00.000000Z"),
            ("2027-10-30T22:59:59Z", "2027-10-29T23:00:00.000000Z"),
        ] {
            assert_eq!(start(instant), expected, "{instant}");
        }
    }

    #[test]
    fn the_ends_of_time_have_periods() {
        for window in Window::ALL {
            for zone in ["Pacific/Kiritimati", "America/Los_Angeles"] {
                for starts_on in [0, 1, 28, 29, u8::MAX] {
                    let calendar = Calendar { window, zone: Zone::named(zone).unwrap(), starts_on };
                    assert_eq!(calendar.span(0).start, 0, "{window:?} {zone}");
                    assert!(calendar.span(0).end != Some(0), "{window:?} {zone}");
                    assert_eq!(calendar.span(u64::MAX), calendar.span(253_402_300_799), "{window:?} {zone}");
                }
            }
        }
    }

    #[test]
    fn a_period_that_is_remembered_is_the_one_that_would_be_computed() {
        for window in Window::ALL {
            let calendar = Calendar { window, zone: Zone::named("Australia/Lord_Howe").unwrap(), starts_on: 1 };
            let last = LastSpan::default();
            let mut now = parse_rfc3339("2027-04-02T00:00:00Z").unwrap();
            // Forth over a change of clocks, and back.
            for step in [60 - 1_i64, 1, 1799, 1800, 3600, 86_400, 40 * 86_400, -39 * 86_400, -86_401, -1, -1800] {
                for _ in 0..60 {
                    now = now.saturating_add_signed(step);
                    assert_eq!(last.of(&calendar, now), calendar.span(now), "{window:?} {now}");
                }
            }
            for end in [0, u64::MAX] {
                assert_eq!(last.of(&calendar, end), calendar.span(end), "{window:?} {end}");
            }
        }
    }

    #[test]
    fn windows_are_known_by_name() {
        for window in Window::ALL {
            assert_eq!(Window::of_name(window.name()), Some(window));
        }
        assert_eq!(Window::of_name("fortnight"), None);
    }
}
