//! The search for the next change, held against a walk through every minute.
#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

use crate::config::Config;
use crate::hours::open_seconds;

/// Each with something odd: half an hour of daylight saving, a jump at midnight, a day that was left
/// out, rules that changed, none at all.
const ZONES: [&str; 8] = [
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "America/Havana",
    "Pacific/Apia",
    "Africa/Casablanca",
    "Asia/Kathmandu",
    "UTC",
];

/// Around jumps of those clocks, and at some other times: seconds since the epoch.
const TIMES: [&str; 8] = [
    "2026-03-29T01:00Z",
    "2026-10-25T01:00Z",
    "2026-03-08T05:00Z",
    "2026-11-01T05:00Z",
    "2011-12-30T10:00Z",
    "2026-04-04T15:00Z",
    "2028-02-29T00:00Z",
    "2026-12-31T23:00Z",
];

fn config(zone: &str, days: u8, from: u32, to: u32, holiday: Option<u32>) -> Option<Config> {
    let names = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
    let days: Vec<_> =
        names.iter().enumerate().filter(|(n, _)| days & (1 << n) != 0).map(|(_, name)| format!("{name:?}")).collect();
    let time = |minute: u32| format!("{:02}:{:02}", minute / 60, minute % 60);
    let holidays = holiday.map(|day| format!(r#""03-{day:02}": "one", "10-{day:02}": "other""#)).unwrap_or_default();
    let json = format!(
        r#"{{"time_zone": "{zone}", "days": [{}], "from": "{}", "to": "{}", "holidays": {{{holidays}}}}}"#,
        days.join(","),
        time(from),
        time(to)
    );
    let config: Config = jit_plugin::config::parse(&json).unwrap();
    config.problems().is_empty().then_some(config)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn nothing_changes_before_the_change_that_is_found(
        zone in prop::sample::select(ZONES.to_vec()),
        around in prop::sample::select(TIMES.to_vec()),
        minutes in -3000_i64..3000,
        days in 1_u8..128,
        from in 0_u32..1440,
        to in 1_u32..=1440,
        holiday in prop::option::of(20_u32..31),
    ) {
        // Half of the windows are near the hours at which clocks jump.
        let (from, to) = if from % 2 == 0 { (from % 240, to % 240) } else { (from, to) };
        let Some(config) = config(zone, days, from, to, holiday) else { return Ok(()) };
        let window = config.windows().next().unwrap();
        let start: Timestamp = around.parse().unwrap();
        let now = start + SignedDuration::from_mins(minutes);
        let open = window.hours.is_open(now);
        let change = if open { window.hours.closes_after(now) } else { window.hours.opens_after(now) };
        if let Some(change) = change {
            prop_assert!(change > now);
            prop_assert_eq!(window.hours.is_open(change), !open);
        }
        let horizon = now + SignedDuration::from_hours(5 * 24);
        let mut minute = now;
        while minute < change.unwrap_or(horizon).min(horizon) {
            prop_assert_eq!(window.hours.is_open(minute), open, "{} in {}", minute, zone);
            minute += SignedDuration::from_mins(1);
        }
        if open {
            let seconds = open_seconds(&[&window.hours], now, 86_400);
            let until = change.map(|change| (change - now).get_seconds() + 60 * (change - now).get_minutes());
            let until = until.map(|seconds| u64::try_from(seconds).unwrap()).filter(|seconds| *seconds < 86_400);
            prop_assert_eq!(seconds, until);
        }
    }
}
