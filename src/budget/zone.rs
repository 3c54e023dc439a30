//! Local time by the rules of the IANA time zone database.
//!
//! A budget is about now, so a zone is one rule: the POSIX TZ string that says how its clocks go after the last change
//! that the database lists. `zones.txt` has a line for each rule with the names it is for, aliases included. That is
//! 11 KB, where the whole database takes 400. `tools/zones.py` writes it; new rules come with a release of Tollgate.
//!
//! The price: where clocks leave their rule for a while, windows are off by as much, usually an hour, in that time. The
//! head of `zones.txt` lists these zones and times. They are changes announced for later, and clocks that go by the
//! moon, which no rule can say: Gaza and Hebron in Ramadan, and Casablanca and El_Aaiun until 2026.

use crate::time::Date;

/// The rules and their names.
const TABLE: &str = include_str!("zones.txt");

const SECONDS_PER_DAY: i64 = 86_400;

/// How the clocks of a place go, in all years alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Zone {
    /// Seconds east of Greenwich.
    standard: i64,
    summer: Option<Summer>,
}

/// The other half of a year. Ireland's is the winter, and has the smaller offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Summer {
    /// Seconds east of Greenwich.
    offset: i64,
    begins: Change,
    ends: Change,
}

/// When clocks change, as they show it before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Change {
    day: ChangeDay,
    /// From the day's midnight on; negative or beyond 24 hours where the change is on another day.
    seconds: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ChangeDay {
    /// The first, second, third, fourth or last (5) of a day of the week (0: Sunday) in a month.
    Weekday { month: i64, week: i64, weekday: i64 },
    /// Day 1 to 365 of the year, where 29 February has no number.
    Numbered(i64),
    /// Days since 1 January.
    SinceNewYear(i64),
}

/// A time in which clocks don't change, in seconds since 1970: from `begins` on and before `ends`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stretch {
    /// Seconds east of Greenwich.
    pub(super) offset: i64,
    pub(super) begins: i64,
    pub(super) ends: i64,
}

impl Zone {
    /// The zone of an IANA name as the database spells it: `Europe/Berlin`, `US/Pacific`, `Etc/GMT-1`, `UTC`.
    pub fn named(name: &str) -> Option<Zone> {
        let (rule, _) = table().find(|(_, names)| names.split(' ').any(|known| known == name))?;
        Zone::of_rule(rule)
    }

    /// Every name that [`Zone::named`] knows.
    pub fn names() -> impl Iterator<Item = &'static str> {
        table().flat_map(|(_, names)| names.split(' '))
    }

    /// Reads a POSIX TZ string with the extensions of [RFC 9636](https://www.rfc-editor.org/rfc/rfc9636#section-3.3.2):
    /// `CET-1CEST,M3.5.0,M10.5.0/3`. Summer time must come with its dates.
    pub fn of_rule(rule: &str) -> Option<Zone> {
        let (standard, rest) = read_offset(skip_abbreviation(rule)?)?;
        if rest.is_empty() {
            return Some(Zone { standard, summer: None });
        }
        let rest = skip_abbreviation(rest)?;
        let (offset, rest) = if rest.starts_with(',') { (standard + 3600, rest) } else { read_offset(rest)? };
        let (begins, ends) = rest.strip_prefix(',')?.split_once(',')?;
        let summer = Summer { offset, begins: Change::read(begins)?, ends: Change::read(ends)? };
        Some(Zone { standard, summer: Some(summer) })
    }

    /// What clocks show more than UTC, in seconds.
    pub fn offset_at(&self, unix_seconds: i64) -> i64 {
        self.stretch_at(unix_seconds).offset
    }

    /// The instant at which clocks show `local_seconds`, a date and time counted as if it were UTC. Of two instants the
    /// earlier one. A time that clocks skip is taken as if they had not changed yet: 02:30 becomes 03:30.
    pub fn local_to_unix(&self, local_seconds: i64) -> i64 {
        let Some(summer) = self.summer else { return local_seconds - self.standard };
        let earlier = local_seconds - self.standard.max(summer.offset);
        let later = local_seconds - self.standard.min(summer.offset);
        if local_seconds - self.offset_at(earlier) == earlier { earlier } else { later }
    }

    /// By how much clocks change, in seconds.
    pub(super) fn shift(&self) -> i64 {
        self.summer.map_or(0, |summer| summer.offset - self.standard)
    }

    /// The time around an instant in which clocks don't change.
    pub(super) fn stretch_at(&self, unix_seconds: i64) -> Stretch {
        let mut stretch = Stretch { offset: self.standard, begins: i64::MIN, ends: i64::MAX };
        let Some(summer) = self.summer else { return stretch };
        let year = Date::of_day((unix_seconds + self.standard).div_euclid(SECONDS_PER_DAY)).year;
        for year in year - 1..=year + 1 {
            // Summer time all the year is written as one that begins at the instant it ends: the beginning counts.
            for (local, before, after) in [
                (summer.ends.in_year(year), summer.offset, self.standard),
                (summer.begins.in_year(year), self.standard, summer.offset),
            ] {
                let change = local - before;
                if change > unix_seconds {
                    stretch.ends = stretch.ends.min(change);
                } else if change >= stretch.begins {
                    (stretch.begins, stretch.offset) = (change, after);
                }
            }
        }
        stretch
    }
}

/// Each rule with its names, which spaces keep apart.
fn table() -> impl Iterator<Item = (&'static str, &'static str)> {
    TABLE.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once(' '))
}

impl Change {
    /// `M3.5.0`, `J60/2`, `59/-1:30`; at two o'clock where no time is given.
    fn read(text: &str) -> Option<Change> {
        let (day, time) = text.split_once('/').unwrap_or((text, "2"));
        let (seconds, "") = read_time(time)? else { return None };
        Some(Change { day: ChangeDay::read(day)?, seconds })
    }

    /// In seconds since 1970, as clocks show it before the change.
    fn in_year(self, year: i64) -> i64 {
        self.day.in_year(year) * SECONDS_PER_DAY + self.seconds
    }
}

impl ChangeDay {
    fn read(text: &str) -> Option<ChangeDay> {
        let number = |text, most| read_number(text, most).filter(|(_, rest)| rest.is_empty()).map(|(number, _)| number);
        if let Some(date) = text.strip_prefix('M') {
            let (month, rest) = date.split_once('.')?;
            let (week, weekday) = rest.split_once('.')?;
            let (month, week, weekday) = (number(month, 12)?, number(week, 5)?, number(weekday, 6)?);
            return (month > 0 && week > 0).then_some(ChangeDay::Weekday { month, week, weekday });
        }
        match text.strip_prefix('J') {
            Some(day) => number(day, 365).filter(|day| *day > 0).map(ChangeDay::Numbered),
            None => number(text, 365).map(ChangeDay::SinceNewYear),
        }
    }

    /// In days since 1970.
    fn in_year(self, year: i64) -> i64 {
        let new_year = Date { year, month: 1, day: 1 }.day_number();
        match self {
            ChangeDay::Weekday { month, week, weekday } => {
                let first = Date { year, month, day: 1 }.day_number();
                // 1970 began on a Thursday.
                let found = first + (weekday - first - 4).rem_euclid(7) + 7 * (week - 1);
                // Only a fifth one may be too late.
                if found < (Date { year, month: month + 1, day: 1 }).day_number() { found } else { found - 7 }
            }
            ChangeDay::Numbered(day) => {
                let march = Date { year, month: 3, day: 1 }.day_number();
                if day < 60 { new_year + day - 1 } else { march + day - 60 }
            }
            ChangeDay::SinceNewYear(days) => new_year + days,
        }
    }
}

/// What is behind `CET` or `<+0530>`.
fn skip_abbreviation(text: &str) -> Option<&str> {
    match text.strip_prefix('<') {
        Some(quoted) => quoted.split_once('>').map(|(_, rest)| rest),
        None => {
            Some(text.trim_start_matches(|c: char| c.is_ascii_alphabetic())).filter(|rest| rest.len() + 3 <= text.len())
        }
    }
}

/// Seconds east of Greenwich, where POSIX counts hours west, and what is behind.
fn read_offset(text: &str) -> Option<(i64, &str)> {
    let (west, rest) = read_time(text)?;
    (west.abs() <= SECONDS_PER_DAY + 3599).then_some((-west, rest))
}

/// `2`, `-1`, `+26:30`, `0:20:08` in seconds, and what is behind.
fn read_time(text: &str) -> Option<(i64, &str)> {
    let (sign, text) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let (hours, mut rest) = read_number(text, 167)?;
    let mut seconds = hours * 3600;
    for unit in [60, 1] {
        let Some(part) = rest.strip_prefix(':') else { break };
        let (number, behind) = read_number(part, 59)?;
        seconds += number * unit;
        rest = behind;
    }
    Some((sign * seconds, rest))
}

/// A number of at most three digits and at most `most`, and what is behind.
fn read_number(text: &str, most: i64) -> Option<(i64, &str)> {
    let rest = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let digits = text.strip_suffix(rest).filter(|digits| (1..=3).contains(&digits.len()))?;
    digits.parse().ok().filter(|number| *number <= most).map(|number| (number, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::parse_rfc3339;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn unix(text: &str) -> i64 {
        parse_rfc3339(text).unwrap().try_into().unwrap()
    }

    #[test]
    fn every_name_has_a_rule_that_can_be_read() {
        let names: Vec<&str> = Zone::names().collect();
        assert!(names.len() > 590, "{} names", names.len());
        for name in &names {
            assert!(Zone::named(name).is_some(), "{name}");
        }
        for name in ["UTC", "GMT", "Etc/GMT+12", "US/Pacific", "Asia/Calcutta", "Asia/Kolkata", "EST5EDT", "Zulu"] {
            assert!(names.contains(&name), "{name}");
        }
        for name in ["", " ", "#", "europe/berlin", "Europe/Berlin ", "Europe", "CET-1CEST,M3.5.0,M10.5.0/3", "tzdata"]
        {
            assert_eq!(Zone::named(name), None, "{name}");
        }
    }

    /// What Python's `zoneinfo` says.
    #[test]
    fn clocks_change_at_the_second_the_database_says() {
        for (name, change, before, after) in [
            ("Europe/Berlin", "2028-03-26T01:00:00Z", 3600, 7200),
            ("Europe/Berlin", "2040-10-28T01:00:00Z", 7200, 3600),
            ("Europe/Dublin", "2028-03-26T01:00:00Z", 0, 3600),
            ("Europe/Dublin", "2040-10-28T01:00:00Z", 3600, 0),
            ("America/New_York", "2028-03-12T07:00:00Z", -18000, -14400),
            ("America/New_York", "2040-11-04T06:00:00Z", -14400, -18000),
            ("America/St_Johns", "2028-03-12T05:30:00Z", -12600, -9000),
            ("America/Santiago", "2028-04-02T03:00:00Z", -10800, -14400),
            ("America/Santiago", "2040-09-02T04:00:00Z", -14400, -10800),
            ("Pacific/Easter", "2040-09-02T04:00:00Z", -21600, -18000),
            ("America/Nuuk", "2028-03-26T01:00:00Z", -7200, -3600),
            ("America/Nuuk", "2028-10-29T01:00:00Z", -3600, -7200),
            ("Africa/Cairo", "2028-04-27T22:00:00Z", 7200, 10800),
            ("Africa/Cairo", "2028-10-26T21:00:00Z", 10800, 7200),
            ("Asia/Jerusalem", "2040-03-23T00:00:00Z", 7200, 10800),
            ("Asia/Beirut", "2040-03-24T22:00:00Z", 7200, 10800),
            ("Australia/Lord_Howe", "2028-04-01T15:00:00Z", 39600, 37800),
            ("Australia/Lord_Howe", "2028-09-30T15:30:00Z", 37800, 39600),
            ("Pacific/Chatham", "2040-03-31T14:00:00Z", 49500, 45900),
            ("Antarctica/Troll", "2028-03-26T01:00:00Z", 0, 7200),
        ] {
            let zone = Zone::named(name).unwrap();
            let change = unix(change);
            assert_eq!((zone.offset_at(change - 1), zone.offset_at(change)), (before, after), "{name} {change}");
            assert_eq!(zone.stretch_at(change).begins, change, "{name}");
            assert_eq!(zone.stretch_at(change - 1).ends, change, "{name}");
        }
    }

    #[test]
    fn zones_without_summer_time_keep_their_offset() {
        for (name, offset) in [
            ("UTC", 0),
            ("Etc/GMT-1", 3600),
            ("Etc/GMT+12", -43200),
            ("Asia/Kathmandu", 20700),
            ("Pacific/Kiritimati", 50400),
            ("Pacific/Marquesas", -34200),
            // Since 2026.
            ("Africa/Casablanca", 0),
            ("America/Vancouver", -25200),
        ] {
            let zone = Zone::named(name).unwrap();
            for month in 0..12 * 14 {
                assert_eq!(zone.offset_at(unix("2026-12-01T00:00:00Z") + month * 2_630_016), offset, "{name}");
            }
        }
    }

    #[test]
    fn a_time_shown_twice_is_the_earlier_and_a_skipped_one_is_shifted() {
        for (name, local, instant) in [
            ("Europe/Berlin", "2027-07-01T00:00:00Z", "2027-06-30T22:00:00Z"),
            ("Europe/Berlin", "2027-01-01T00:00:00Z", "2026-12-31T23:00:00Z"),
            ("Europe/Berlin", "2027-03-28T02:30:00Z", "2027-03-28T01:30:00Z"),
            ("Europe/Berlin", "2026-10-25T02:30:00Z", "2026-10-25T00:30:00Z"),
            ("Europe/Dublin", "2027-03-28T01:30:00Z", "2027-03-28T01:30:00Z"),
            ("Europe/Dublin", "2027-10-31T01:30:00Z", "2027-10-31T00:30:00Z"),
            // There is no such midnight: the day begins at one o'clock.
            ("Africa/Cairo", "2027-04-30T00:00:00Z", "2027-04-29T22:00:00Z"),
            ("America/Santiago", "2027-09-05T00:00:00Z", "2027-09-05T04:00:00Z"),
            ("Australia/Lord_Howe", "2027-10-03T02:15:00Z", "2027-10-02T15:45:00Z"),
            ("Australia/Lord_Howe", "2027-04-04T01:45:00Z", "2027-04-03T14:45:00Z"),
            ("Asia/Kathmandu", "2027-04-04T01:45:00Z", "2027-04-03T20:00:00Z"),
        ] {
            assert_eq!(Zone::named(name).unwrap().local_to_unix(unix(local)), unix(instant), "{name} {local}");
        }
    }

    /// No zone uses these today; a later release of the database may.
    #[test]
    fn rules_may_number_days_and_keep_summer_time_all_the_year() {
        for (rule, instant, offset) in [
            // Days 60 and 304 without leap days: 1 March and 31 October, also in 2028.
            ("XXX-1YYY,J60/0,J304/0", "2028-02-29T22:59:59Z", 3600),
            ("XXX-1YYY,J60/0,J304/0", "2028-02-29T23:00:00Z", 7200),
            ("XXX-1YYY,J60/0,J304/0", "2027-02-28T23:00:00Z", 7200),
            ("XXX-1YYY,J60/0,J304/0", "2027-10-30T21:59:59Z", 7200),
            ("XXX-1YYY,J60/0,J304/0", "2027-10-30T22:00:00Z", 3600),
            // 59 days after New Year: 29 February in 2028, else 1 March.
            ("XXX-1YYY,59/0,303/0", "2028-02-28T23:00:00Z", 7200),
            ("XXX-1YYY,59/0,303/0", "2027-02-28T22:59:59Z", 3600),
            // The day before at 22:30, and the day after at 02:00.
            ("XXX-1YYY,J60/-1:30,J304/26", "2027-02-28T21:30:00Z", 7200),
            ("XXX-1YYY,J60/-1:30,J304/26", "2027-11-01T00:00:00Z", 3600),
            ("XXX-1YYY,J60/-1:30,J304/26", "2027-10-31T23:59:59Z", 7200),
            ("XXX3EDT4,0/0,J365/23", "2027-07-01T00:00:00Z", -14400),
            ("EST5EDT,0/0,J365/25", "2027-12-31T23:59:59Z", -14400),
            ("EST5EDT,0/0,J365/25", "2028-01-01T05:00:00Z", -14400),
            ("EST5EDT,0/0,J365/25", "2028-12-31T12:00:00Z", -14400),
            ("LMT-0:53:28", "2027-07-01T00:00:00Z", 3208),
            ("<+0530>-5:30", "2027-07-01T00:00:00Z", 19800),
        ] {
            let zone = Zone::of_rule(rule).unwrap_or_else(|| panic!("{rule}"));
            assert_eq!(zone.offset_at(unix(instant)), offset, "{rule} {instant}");
        }
    }

    #[test]
    fn what_is_no_rule_is_refused() {
        for rule in [
            "",
            "CET",
            "-1",
            "CE-1",
            "<+05-5",
            "CET-1CEST",
            "CET-1CEST,M3.5.0",
            "CET-1CEST,M3.5.0,",
            "CET-1CEST,M0.5.0,M10.5.0",
            "CET-1CEST,M3.0.0,M10.5.0",
            "CET-1CEST,M3.6.0,M10.5.0",
            "CET-1CEST,M13.5.0,M10.5.0",
            "CET-1CEST,M3.5.7,M10.5.0",
            "CET-1CEST,J0,J100",
            "CET-1CEST,J366,J100",
            "CET-1CEST,366,100",
            "CET-1CEST,M3.5.0/168,M10.5.0",
            "CET-26",
            "CET-1:60",
            "CET-1x",
            "CET-1CEST,M3.5.0,M10.5.0/3x",
            "CET-1CEST,M3.5.0,M10.5.0/3,",
            "CET-0001",
            "CET--1",
        ] {
            assert_eq!(Zone::of_rule(rule), None, "{rule}");
        }
    }

    #[test]
    fn dates_and_day_numbers_agree_on_both_sides_of_1970() {
        let mut expected = Date { year: 1599, month: 12, day: 31 };
        let first = Date { year: 1600, month: 1, day: 1 };
        for number in first.day_number()..first.day_number() + 2 * Date::DAYS_PER_ERA {
            let date = Date::of_day(number);
            let next = Date { day: expected.day + 1, ..expected };
            let first = Date { year: expected.year + expected.month / 12, month: expected.month % 12 + 1, day: 1 };
            assert!(
                date == next && date.day <= 31 || date == first && expected.day >= 28,
                "{date:?} after {expected:?}"
            );
            assert_eq!(date.day_number(), number);
            expected = date;
        }
        assert_eq!(expected, Date { year: 2399, month: 12, day: 31 });
        for (number, (year, month, day)) in [
            (0, (1970, 1, 1)),
            (-1, (1969, 12, 31)),
            (11_016, (2000, 2, 29)),
            (20_777, (2026, 11, 20)),
            (47_541, (2100, 3, 1)),
        ] {
            assert_eq!(Date::of_day(number), Date { year, month, day });
        }
    }
}
