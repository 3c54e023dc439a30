//! LiteLLM's `off_peak_pricing`: rates at some hours of some days.
//!
//! A window's weekday is the one at the moment of billing, also behind midnight, and may be read on a calendar that
//! is not UTC's. Both are written as windows that do not pass midnight, on UTC's weekdays.

use super::super::table::{OffPeak, Rates};
use crate::document::Node;

/// Minutes of a day.
const DAY: u32 = 24 * 60;

/// Calendars without daylight saving, by minutes ahead of UTC. Others have no fixed weekday in UTC.
const CALENDARS: [(&str, u32); 5] =
    [("UTC", 0), ("Asia/Shanghai", 480), ("Asia/Hong_Kong", 480), ("Asia/Singapore", 480), ("Asia/Tokyo", 540)];

/// The blocks of `pricing`, each with `rates`.
///
/// # Errors
/// Why its hours cannot be carried over.
pub(super) fn blocks(pricing: &Node, rates: &Rates) -> Result<Vec<OffPeak>, &'static str> {
    let mut blocks = Vec::new();
    let calendar = pricing.get("weekday_timezone").and_then(Node::text).unwrap_or("UTC");
    if let Some(hours) = pricing.get("hours_utc") {
        let hours_utc = windows(hours)?.into_iter().map(text).collect();
        blocks.push(OffPeak { hours_utc, weekdays: Vec::new(), rates: rates.clone() });
    }
    for rule in pricing.get("windows").map(Node::elements).unwrap_or_default() {
        let hours = windows(rule.get("hours_utc").ok_or("a window without hours")?)?;
        match rule.get("weekdays") {
            None => {
                let hours_utc = hours.into_iter().map(text).collect();
                blocks.push(OffPeak { hours_utc, weekdays: Vec::new(), rates: rates.clone() });
            }
            Some(days) => {
                let days = weekdays(days)?;
                let (_, ahead) =
                    CALENDARS.iter().find(|(name, _)| *name == calendar).ok_or("the calendar's offset varies")?;
                blocks.extend(on_utc(&hours, &days, *ahead).into_iter().map(|(hours, weekdays)| OffPeak {
                    hours_utc: hours.into_iter().map(text).collect(),
                    weekdays,
                    rates: rates.clone(),
                }));
            }
        }
    }
    if blocks.is_empty() { Err("no hours") } else { Ok(blocks) }
}

type Window = (u32, u32);

/// Windows as minutes; an end at midnight is the day's end, and so is one that is not behind its start.
fn windows(hours: &Node) -> Result<Vec<Window>, &'static str> {
    let list = if hours.text().is_some() { std::slice::from_ref(hours) } else { hours.elements() };
    let window = |node: &Node| {
        let (start, end) = node.text()?.split_once('-')?;
        Some((minutes(start.trim())?, minutes(end.trim())?))
    };
    list.iter().map(|node| window(node).ok_or("hours that are not HH:MM-HH:MM")).collect()
}

fn minutes(time: &str) -> Option<u32> {
    let (hours, minutes) = time.split_once(':')?;
    let (hours, minutes): (u32, u32) = (hours.parse().ok()?, minutes.parse().ok()?);
    (hours < 24 && minutes < 60).then_some(hours * 60 + minutes)
}

fn text((start, end): Window) -> String {
    let end = end % DAY;
    format!("{:02}:{:02}-{:02}:{:02}", start / 60, start % 60, end / 60, end % 60)
}

fn weekdays(days: &Node) -> Result<Vec<u8>, &'static str> {
    const NAMES: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
    let day = |node: &Node| {
        let text = node.text()?.trim().to_ascii_lowercase();
        let named = NAMES.iter().position(|name| text.starts_with(name)).and_then(|index| u8::try_from(index + 1).ok());
        named.or_else(|| text.parse().ok().filter(|day| (1..=7).contains(day)))
    };
    days.elements().iter().map(|node| day(node).ok_or("a weekday that is none")).collect()
}

/// The windows on UTC's weekdays, where `days` are those of a calendar `ahead` minutes before it: a window is cut at
/// UTC's midnight, and where the other calendar's day begins.
fn on_utc(hours: &[Window], days: &[u8], ahead: u32) -> Vec<(Vec<Window>, Vec<u8>)> {
    let next_day_from = (DAY - ahead) % DAY;
    let mut today = Vec::new();
    let mut tomorrow = Vec::new();
    for &(start, end) in hours {
        let parts = if start < end { vec![(start, end)] } else { vec![(0, end), (start, DAY)] };
        for (start, end) in parts {
            if next_day_from == 0 {
                today.push((start, end));
            } else {
                today.push((start, end.min(next_day_from)));
                tomorrow.push((start.max(next_day_from), end));
            }
        }
    }
    let mut earlier: Vec<u8> = days.iter().map(|&day| if day == 1 { 7 } else { day - 1 }).collect();
    earlier.sort_unstable();
    let mut blocks = vec![(today, days.to_vec()), (tomorrow, earlier)];
    for (windows, _) in &mut blocks {
        windows.retain(|(start, end)| start < end);
    }
    blocks.retain(|(windows, _)| !windows.is_empty());
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::{Dialect, Document};

    fn read(json: &str) -> Result<Vec<(String, Vec<u8>)>, &'static str> {
        let document = Document::parse(json, Dialect::Json).unwrap();
        let blocks = blocks(&document.roots[0], &Rates::default())?;
        Ok(blocks.into_iter().map(|block| (block.hours_utc.join(" "), block.weekdays)).collect())
    }

    #[test]
    fn hours_of_every_day_stay_as_they_are() {
        let blocks = read(r#"{"hours_utc": ["16:30-00:30", "04:00-06:00"]}"#).unwrap();
        assert_eq!(blocks, [("16:30-00:30 04:00-06:00".into(), vec![])]);
    }

    #[test]
    fn a_window_on_weekdays_is_cut_at_midnight() {
        let blocks = read(r#"{"windows": [{"hours_utc": "22:00-02:00", "weekdays": [1, "Friday"]}]}"#).unwrap();
        assert_eq!(blocks, [("00:00-02:00 22:00-00:00".into(), vec![1, 5])]);
        let blocks = read(r#"{"windows": [{"hours_utc": "00:00-00:00", "weekdays": [6, 7]}]}"#).unwrap();
        assert_eq!(blocks, [("00:00-00:00".into(), vec![6, 7])]);
    }

    #[test]
    fn another_calendars_weekdays_become_those_of_utc() {
        let json = r#"{"weekday_timezone": "Asia/Shanghai", "windows": [
            {"hours_utc": ["00:00-01:00", "10:00-00:00"], "weekdays": [1, 2, 3, 4, 5]},
            {"hours_utc": "00:00-00:00", "weekdays": [6, 7]}]}"#;
        // Saturday in Shanghai begins on Friday at 16:00 UTC.
        assert_eq!(
            read(json).unwrap(),
            [
                ("00:00-01:00 10:00-16:00".into(), vec![1, 2, 3, 4, 5]),
                ("16:00-00:00".into(), vec![1, 2, 3, 4, 7]),
                ("00:00-16:00".into(), vec![6, 7]),
                ("16:00-00:00".into(), vec![5, 6]),
            ]
        );
    }

    #[test]
    fn hours_that_cannot_be_said_are_refused_with_the_reason() {
        for json in [
            r#"{}"#,
            r#"{"hours_utc": "9-17"}"#,
            r#"{"hours_utc": "25:00-26:00"}"#,
            r#"{"windows": [{"hours_utc": "00:00-01:00", "weekdays": [0]}]}"#,
            r#"{"weekday_timezone": "Europe/Berlin", "windows": [{"hours_utc": "00:00-01:00", "weekdays": [1]}]}"#,
        ] {
            assert!(read(json).is_err(), "{json}");
        }
    }
}
