//! Windows of time in which sites may move to another image. Pure.

use frappe_crds::bench::Window;
use jiff::{SignedDuration, Timestamp};

use super::{duration, schedule::Schedule};

/// The windows of a bench or site; one that has none is always open.
pub struct Windows(Vec<(Schedule, SignedDuration)>);

/// Whether a window is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    /// One is open, until this time; None for ever.
    Open(Option<Timestamp>),
    /// None is open, until this time; None for ever.
    Closed(Option<Timestamp>),
}

impl Opening {
    /// The time at which this may change.
    pub fn changes_at(self) -> Option<Timestamp> {
        let (Self::Open(at) | Self::Closed(at)) = self;
        at
    }

    /// Whether none is open.
    pub fn is_closed(self) -> bool {
        matches!(self, Self::Closed(_))
    }
}

impl Windows {
    /// Parses windows. `seed` selects the values for `H` in their schedules.
    pub fn parse(windows: &[Window], seed: &str) -> Result<Self, String> {
        let parsed = windows.iter().enumerate().map(|(index, window)| {
            let wrong = |error: String| format!("windows[{index}].schedule: {error}");
            let zone = window.time_zone.as_ref().map(|it| it.0.as_str());
            let schedule = Schedule::parse(&window.schedule.0, zone, seed).map_err(wrong)?;
            if schedule.next_after(Timestamp::UNIX_EPOCH).is_none() {
                return Err(wrong(format!("{:?} never comes", window.schedule.0)));
            }
            let time = duration::of(Some(&window.duration), std::time::Duration::from_secs(1));
            Ok((schedule, SignedDuration::try_from(time).unwrap_or(SignedDuration::MAX)))
        });
        parsed.collect::<Result<_, _>>().map(Self)
    }

    /// Whether one is open now. Windows that cannot be parsed never open.
    pub fn opening(windows: &[Window], seed: &str, now: Timestamp) -> Opening {
        Self::parse(windows, seed).map_or(Opening::Closed(None), |it| it.at(now))
    }

    fn at(&self, now: Timestamp) -> Opening {
        if self.0.is_empty() {
            return Opening::Open(None);
        }
        let ends = self.0.iter().filter_map(|(schedule, time)| {
            let since = now.checked_sub(*time).unwrap_or(Timestamp::MIN);
            schedule.last_due(since, now)?.checked_add(*time).ok()
        });
        if let Some(end) = ends.max() {
            return Opening::Open(Some(end));
        }
        Opening::Closed(self.0.iter().filter_map(|(schedule, _)| schedule.next_after(now)).min())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    fn windows(windows: Value) -> Vec<Window> {
        serde_json::from_value(windows).expect("windows")
    }

    fn opening(some: &[Window], now: &str) -> Opening {
        Windows::opening(some, "a/shop", at(now))
    }

    #[test]
    fn a_window_is_open_from_its_start_for_its_duration() {
        let nights = windows(json!([{"schedule": "0 1 * * 6", "duration": "4h", "timeZone": "Europe/Berlin"}]));
        // Saturdays: 2026-11-28 and 2026-12-05; Berlin is one hour ahead in winter.
        let opens = Some(at("2026-11-28T00:00:00Z"));
        let open = Opening::Open(Some(at("2026-11-28T04:00:00Z")));
        for (now, wanted) in [
            ("2026-11-27T23:59:59Z", Opening::Closed(opens)),
            ("2026-11-28T00:00:00Z", open),
            ("2026-11-28T03:59:59Z", open),
            ("2026-11-28T04:00:00Z", Opening::Closed(Some(at("2026-12-05T00:00:00Z")))),
        ] {
            assert_eq!(opening(&nights, now), wanted, "{now}");
        }
        assert_eq!(opening(&[], "2026-11-28T00:00:00Z"), Opening::Open(None), "none is always");
    }

    #[test]
    fn any_open_window_counts_and_the_next_one_is_waited_for() {
        let both =
            windows(json!([{"schedule": "0 1 * * *", "duration": "1h"}, {"schedule": "30 1 * * *", "duration": "2h"}]));
        assert_eq!(opening(&both, "2026-11-28T01:40:00Z"), Opening::Open(Some(at("2026-11-28T03:30:00Z"))));
        assert_eq!(opening(&both, "2026-11-28T01:10:00Z"), Opening::Open(Some(at("2026-11-28T02:00:00Z"))));
        assert_eq!(opening(&both, "2026-11-28T04:00:00Z"), Opening::Closed(Some(at("2026-11-29T01:00:00Z"))));
        let always = windows(json!([{"schedule": "* * * * *", "duration": "1h"}]));
        assert!(!opening(&always, "2026-11-28T04:00:30Z").is_closed());
    }

    /// In Berlin, the hour from two to three does not exist on 2026-03-29, and exists twice on 2026-10-25.
    #[test]
    fn a_window_opens_also_when_the_clocks_change() {
        let nights = windows(json!([{"schedule": "30 2 * * *", "duration": "1h", "timeZone": "Europe/Berlin"}]));
        for (evening, latest) in
            [("2026-03-28T22:00:00Z", "2026-03-30T00:30:00Z"), ("2026-10-24T22:00:00Z", "2026-10-25T01:30:00Z")]
        {
            let Opening::Closed(Some(opens)) = opening(&nights, evening) else { panic!("{evening} is not closed") };
            assert!(opens > at(evening) && opens <= at(latest), "{evening}: {opens}");
            assert!(!Windows::opening(&nights, "", opens).is_closed(), "{opens}");
        }
    }

    #[test]
    fn windows_that_never_open_are_rejected() {
        for (window, why) in [
            (json!({"schedule": "0 1 * * *", "duration": "1h", "timeZone": "Mars/Olympus"}), "Mars"),
            (json!({"schedule": "61 1 * * *", "duration": "1h"}), ""),
            (json!({"schedule": "0 0 30 2 *", "duration": "1h"}), "never comes"),
        ] {
            let wrong = windows(json!([{"schedule": "* * * * *", "duration": "1h"}, window]));
            let error = Windows::parse(&wrong, "").err().expect("an error");
            assert!(error.starts_with("windows[1].schedule: ") && error.contains(why), "{error}");
            assert_eq!(opening(&wrong, "2026-11-28T04:00:00Z"), Opening::Closed(None));
        }
    }
}
