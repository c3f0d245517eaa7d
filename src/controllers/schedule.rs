//! Schedules of cron: when a backup is due, and when a window opens. Pure.

use cronexpr::{Crontab, FallbackTimezoneOption, MakeTimestamp, ParseOptions};
use jiff::{SignedDuration, Timestamp};

use crate::domain::names::hash_hex;

/// Expansions of cron's short names.
const NAMED: [(&str, &str); 7] = [
    ("@hourly", "0 * * * *"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@weekly", "0 0 * * 0"),
    ("@monthly", "0 0 1 * *"),
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
];
/// Smallest and largest number for `H` in each of the first three fields: a day that every month has.
const CHOSEN: [(u64, u64); 3] = [(0, 59), (0, 23), (1, 28)];
/// Periods in hours that are searched for the last due time, in this order.
const LOOK_BACK_HOURS: [i64; 5] = [1, 24, 24 * 32, 24 * 367, 24 * 367 * 5];

/// A schedule.
#[derive(Debug)]
pub struct Schedule(Crontab);

impl Schedule {
    /// Parses the five fields of cron. `seed` selects the values for `H`.
    pub fn parse(text: &str, time_zone: Option<&str>, seed: &str) -> Result<Self, String> {
        let named = NAMED.iter().find(|(name, _)| *name == text).map(|(_, fields)| *fields);
        let chosen = chosen(named.unwrap_or(text), seed)?;
        let mut options = ParseOptions::default();
        options.fallback_timezone_option = FallbackTimezoneOption::UTC;
        let with_zone = format!("{chosen} {}", time_zone.unwrap_or("UTC"));
        // The parser's message has several lines, with an arrow below the position.
        let short = |error: cronexpr::Error| error.to_string().lines().last().unwrap_or_default().trim().to_owned();
        cronexpr::parse_crontab_with(&with_zone, options).map(Self).map_err(short)
    }

    /// The first time after this one.
    pub fn next_after(&self, time: Timestamp) -> Option<Timestamp> {
        self.0.find_next(MakeTimestamp(time)).ok().map(|it| it.timestamp())
    }

    /// The last due time after `since`, up to `until`.
    pub fn last_due(&self, since: Timestamp, until: Timestamp) -> Option<Timestamp> {
        for hours in LOOK_BACK_HOURS {
            let begin = until.checked_sub(SignedDuration::from_hours(hours)).unwrap_or(since).max(since);
            let due = std::iter::successors(self.next_after(begin), |time| self.next_after(*time));
            let last = due.take_while(|time| *time <= until).last();
            if last.is_some() || begin == since {
                return last;
            }
        }
        None
    }
}

/// The fields with numbers instead of `H` and `H/15`, which is every 15th from a selected number.
fn chosen(fields: &str, seed: &str) -> Result<String, String> {
    let fields: Vec<String> = fields
        .split_whitespace()
        .enumerate()
        .map(|(index, field)| if field.contains('H') { number(index, field, seed) } else { Ok(field.to_owned()) })
        .collect::<Result<_, _>>()?;
    Ok(fields.join(" "))
}

fn number(index: usize, field: &str, seed: &str) -> Result<String, String> {
    let wrong = || format!("{field:?}: H must be alone or H/NUMBER, for the minute, hour or day of the month");
    let (least, most) = *CHOSEN.get(index).ok_or_else(wrong)?;
    let hash = u64::from_str_radix(&hash_hex(&format!("{seed} {index}"), 12), 16).map_err(|_| wrong())?;
    if field == "H" {
        return Ok((least + hash % (most - least + 1)).to_string());
    }
    let step: u64 = field.strip_prefix("H/").and_then(|it| it.parse().ok()).ok_or_else(wrong)?;
    if step == 0 || step > most {
        return Err(wrong());
    }
    Ok(format!("{}-{most}/{step}", least + hash % step))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    fn schedule(text: &str) -> Schedule {
        Schedule::parse(text, None, "a/shop").expect("a schedule")
    }

    #[test]
    fn the_last_due_time_is_found_however_long_ago() {
        let nightly = schedule("0 2 * * *");
        let now = at("2026-11-26T01:00:00Z");
        assert_eq!(nightly.last_due(at("2026-11-20T12:00:00Z"), now), Some(at("2026-11-25T02:00:00Z")));
        assert_eq!(nightly.last_due(at("2026-11-25T02:00:00Z"), now), None, "that one was done");
        assert_eq!(
            nightly.last_due(at("2026-11-25T02:00:00Z"), at("2026-11-26T02:00:00Z")),
            Some(at("2026-11-26T02:00:00Z"))
        );
        assert_eq!(schedule("@yearly").last_due(at("2020-06-01T00:00:00Z"), now), Some(at("2026-01-01T00:00:00Z")));
        assert_eq!(schedule("* * * * *").last_due(at("2020-06-01T00:00:00Z"), now), Some(now));
        assert_eq!(nightly.next_after(now), Some(at("2026-11-26T02:00:00Z")));
    }

    #[test]
    fn time_zones_and_daylight_saving_time_are_used() {
        let berlin = Schedule::parse("0 2 * * *", Some("Europe/Berlin"), "").expect("a schedule");
        assert_eq!(berlin.next_after(at("2026-01-10T12:00:00Z")), Some(at("2026-01-11T01:00:00Z")));
        assert_eq!(berlin.next_after(at("2026-07-10T12:00:00Z")), Some(at("2026-07-11T00:00:00Z")));
        assert!(Schedule::parse("0 2 * * *", Some("Mars/Olympus"), "").is_err());
    }

    #[test]
    fn an_invalid_schedule_is_rejected_with_a_reason() {
        for text in ["61 * * * *", "* * * *", "H/0 * * * *", "H/90 * * * *", "* * * H *", "1H * * * *", "0 2 * * * UTC"]
        {
            let error = Schedule::parse(text, None, "").expect_err(text);
            assert!(!error.is_empty(), "{text}");
        }
    }

    /// A thousand sites with the same schedule do not start at the same time.
    #[test]
    fn sites_are_spread_over_the_hour() {
        let now = at("2026-11-26T00:00:00Z");
        let mut starts: BTreeMap<Timestamp, usize> = BTreeMap::new();
        for site in 0..1000 {
            let hourly = Schedule::parse("H * * * *", None, &format!("a/site-{site}")).expect("a schedule");
            *starts.entry(hourly.next_after(now).expect("a time")).or_default() += 1;
        }
        assert!(starts.len() >= 55, "{} of 60 minutes", starts.len());
        assert!(starts.values().max() < Some(&40), "{starts:?}");
        let quarter = Schedule::parse("H/15 * * * *", None, "a/shop").expect("a schedule");
        let times: Vec<_> =
            std::iter::successors(quarter.next_after(now), |it| quarter.next_after(*it)).take(5).collect();
        assert!(
            times.windows(2).all(|pair| pair[1].duration_since(pair[0]) == SignedDuration::from_mins(15)),
            "{times:?}"
        );
    }
}
