//! The periods of budgets: against Python's `zoneinfo`, and what must hold for any calendar.

use proptest::prelude::*;
use tollgate::budget::window::{Calendar, Span, Window};
use tollgate::budget::zone::Zone;

/// The windows that begin at midnight.
const OF_DAYS: [Window; 5] = [Window::Day, Window::Week, Window::Month, Window::Quarter, Window::Year];

/// A row of `windows.tsv`, which `tools/zones.py` writes.
struct Row<'t> {
    zone: &'t str,
    calendar: Calendar,
    instant: u64,
    offset: i64,
    span: Span,
}

impl Row<'_> {
    fn read(line: &str) -> Row<'_> {
        let fields: Vec<&str> = line.split('\t').collect();
        let [zone, window, starts_on, instant, offset, start, end] = fields[..] else { panic!("{line}") };
        Row {
            zone,
            calendar: Calendar {
                window: Window::of_name(window).unwrap(),
                zone: Zone::named(zone).unwrap(),
                starts_on: starts_on.parse().unwrap(),
            },
            instant: instant.parse().unwrap(),
            offset: offset.parse().unwrap(),
            span: Span { start: start.parse().unwrap(), end: Some(end.parse().unwrap()) },
        }
    }
}

#[test]
fn spans_are_the_ones_python_computes() {
    let rows: Vec<Row<'_>> = include_str!("windows.tsv").lines().skip(2).map(Row::read).collect();
    assert!(rows.len() >= 300, "{} rows", rows.len());
    for Row { zone, calendar, instant, offset, span } in rows {
        let at = i64::try_from(instant).unwrap();
        assert_eq!(calendar.zone.offset_at(at), offset, "{zone} {instant}");
        assert_eq!(calendar.span(instant), span, "{zone} {:?} {instant}", calendar.window);
    }
}

/// A zone of the database, or one that no place has: any days, any times, a summer that may lie anywhere in the year.
fn any_zone() -> impl Strategy<Value = Zone> {
    let names: Vec<&str> = Zone::names().collect();
    let known = prop::sample::select(names).prop_map(|name| Zone::named(name).unwrap());
    let day = prop_oneof![
        (1..=12, 1..=5, 0..=6).prop_map(|(month, week, weekday)| format!("M{month}.{week}.{weekday}")),
        (1..=365).prop_map(|day: i32| format!("J{day}")),
        (0..=365).prop_map(|day: i32| day.to_string()),
    ];
    let time = (-40..=60, 0..=59).prop_map(|(hours, minutes)| format!("{hours}:{minutes:02}"));
    let change = (day, time).prop_map(|(day, time)| format!("{day}/{time}"));
    let shift = prop::sample::select(vec![3600, -3600, 7200, 1800, 5400, 60, 90]);
    // Clocks that change back within a day or two could skip a date, or show it three times.
    let strange = (-12 * 60..=14 * 60, shift, change.clone(), change).prop_filter_map(
        "summers that last",
        |(minutes, shift, begins, ends)| {
            let offset = |seconds: i32| {
                let (sign, seconds) = if seconds > 0 { ("-", seconds) } else { ("", -seconds) };
                format!("{sign}{}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
            };
            let rule = format!("XXX{}YYY{},{begins},{ends}", offset(minutes * 60), offset(minutes * 60 + shift));
            let zone = Zone::of_rule(&rule).unwrap_or_else(|| panic!("{rule}"));
            (lasting(&zone) >= 3).then_some(zone)
        },
    );
    prop_oneof![2 => known, 1 => strange]
}

/// The least number of days between two changes of clocks in some years, as far as can be seen day by day.
fn lasting(zone: &Zone) -> usize {
    let offsets: Vec<i64> = (0..4 * 366).map(|day| zone.offset_at(1_767_225_600 + day * 86_400)).collect();
    let stretches = offsets.chunk_by(|a, b| a == b).map(<[i64]>::len);
    stretches.skip(1).min().unwrap_or(0)
}

fn any_calendar(windows: &[Window]) -> impl Strategy<Value = Calendar> {
    (prop::sample::select(windows.to_vec()), any_zone(), 1..=28u8).prop_map(|(window, zone, starts_on)| Calendar {
        window,
        zone,
        starts_on,
    })
}

/// From 2026 to 2040, in seconds since 1970, and often near a change of clocks.
fn any_instant(zone: Zone) -> impl Strategy<Value = u64> {
    (1_767_225_600..2_240_611_200u64, prop_oneof![Just(None), (-90_000..90_000i64).prop_map(Some)]).prop_map(
        move |(instant, near)| {
            let Some(distance) = near else { return instant };
            let offset = |at: u64| zone.offset_at(i64::try_from(at).unwrap());
            let Some(day) = (0..366).find(|day| offset(instant) != offset(instant + day * 86_400)) else {
                return instant;
            };
            let (mut before, mut after) = (instant + (day - 1) * 86_400, instant + day * 86_400);
            while after - before > 1 {
                let middle = before.midpoint(after);
                if offset(middle) == offset(after) { after = middle } else { before = middle }
            }
            after.saturating_add_signed(distance)
        },
    )
}

fn any_calendar_and_instant(windows: &[Window]) -> impl Strategy<Value = (Calendar, u64)> {
    any_calendar(windows).prop_flat_map(|calendar| (Just(calendar), any_instant(calendar.zone)))
}

/// The longest a window may be, in seconds: an hour more than its days where clocks go back, or two in Troll.
fn longest(window: Window) -> u64 {
    let days = match window {
        Window::Minute => return 60,
        Window::Hour => return 3600,
        Window::Day => 1,
        Window::Week => 7,
        Window::Month => 31,
        Window::Quarter => 92,
        Window::Year => 366,
        Window::Lifetime => panic!("it has no end"),
    };
    days * 86_400 + 7200
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_instant_is_in_exactly_one_span((calendar, instant) in any_calendar_and_instant(&Window::ALL)) {
        let Span { start, end } = calendar.span(instant);
        prop_assert!(start <= instant);
        let Some(end) = end else {
            prop_assert_eq!(calendar.window, Window::Lifetime);
            return Ok(());
        };
        prop_assert!(instant < end);
        prop_assert!(end - start <= longest(calendar.window), "{} seconds", end - start);
        for inside in [start, end - 1, start.midpoint(end)] {
            prop_assert_eq!(calendar.span(inside), Span { start, end: Some(end) });
        }
        prop_assert_eq!(calendar.span(end).start, end);
        prop_assert_eq!(calendar.span(start - 1).end, Some(start));
    }

    #[test]
    fn a_later_instant_is_in_no_earlier_span(
        (calendar, instant) in any_calendar_and_instant(&Window::ALL),
        later in 0..200_000u64,
    ) {
        let (first, second) = (calendar.span(instant), calendar.span(instant + later));
        prop_assert!(first.start <= second.start);
        prop_assert!(first.end <= second.end);
    }

    #[test]
    fn days_weeks_and_months_begin_at_midnight((calendar, instant) in any_calendar_and_instant(&OF_DAYS)) {
        let start = i64::try_from(calendar.span(instant).start).unwrap();
        let shown = start + calendar.zone.offset_at(start);
        // Where clocks skip midnight they show what it became.
        prop_assert_eq!(calendar.zone.local_to_unix(shown - shown % 86_400), start);
    }

    #[test]
    fn a_time_that_clocks_show_is_found_again((calendar, instant) in any_calendar_and_instant(&[Window::Day])) {
        let zone = calendar.zone;
        let instant = i64::try_from(instant).unwrap();
        let local = instant + zone.offset_at(instant);
        let found = zone.local_to_unix(local);
        // The same instant, or the earlier one of two at which clocks show the same.
        prop_assert!(found <= instant);
        prop_assert_eq!(found + zone.offset_at(found), local);
    }
}
