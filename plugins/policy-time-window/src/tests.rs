//! The policy as a whole, on the SDK's request.
#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

use jiff::tz::TimeZoneDatabase;
use jit_plugin::testing::request;

use super::*;

const SHORT: &str = r#"{"time_zone": "Europe/Berlin", "days": ["mon-fri"], "from": "08:00", "to": "18:00"}"#;

fn config(json: &str) -> Config {
    let config: Config = jit_plugin::config::parse(json).unwrap();
    assert_eq!(TimeWindow::validate(&config), []);
    config
}

/// A request at that time, with its offset (`2026-03-29T01:59+01`).
fn at(time: &str) -> Request<'static> {
    let time: Timestamp = time.parse().unwrap();
    request().at(u64::try_from(time.as_second()).unwrap())
}

fn decide(json: &str, time: &str) -> Verdict {
    TimeWindow::decide(&config(json), &at(time))
}

fn is_open(json: &str, time: &str) -> bool {
    matches!(decide(json, time), Verdict::Allow(_))
}

fn denied(json: &str, request: &Request) -> String {
    match TimeWindow::decide(&config(json), request) {
        Verdict::Deny(reason) => reason,
        Verdict::Allow(allowance) => panic!("{allowance:?}"),
    }
}

fn opens(json: &str, time: &str) -> String {
    let reason = denied(json, &at(time));
    reason.split_once(" opens ").unwrap_or_else(|| panic!("{reason}")).1.to_owned()
}

fn ttl(json: &str, time: &str, wanted: u64) -> Option<u64> {
    let json = json.replacen('{', r#"{"cap_ttl": true, "#, 1);
    let mut request = at(time);
    request = request.with_ttl(wanted);
    match TimeWindow::decide(&config(&json), &request) {
        Verdict::Allow(allowance) => allowance.max_ttl_seconds,
        Verdict::Deny(reason) => panic!("{reason}"),
    }
}

#[test]
fn the_short_form_is_a_working_week() {
    for (time, open) in [
        ("2026-11-30T07:59:59+01", false),
        ("2026-11-30T08:00+01", true),
        ("2026-12-04T17:59:59+01", true),
        ("2026-12-04T18:00+01", false),
        ("2026-12-05T12:00+01", false),
        ("2026-12-06T12:00+01", false),
        // In summer the same clock is another hour of UTC.
        ("2026-07-01T06:00Z", true),
        ("2026-07-01T05:59Z", false),
        ("2026-12-01T06:00Z", false),
    ] {
        assert_eq!(is_open(SHORT, time), open, "{time}");
    }
    assert!(matches!(decide(SHORT, "2026-11-30T09:00+01"), Verdict::Allow(a) if a.max_ttl_seconds.is_none()));
}

#[test]
fn a_no_says_what_the_clock_shows_and_when_it_helps_to_ask() {
    assert_eq!(
        denied(SHORT, &at("2026-12-04T20:30+01")),
        "role `app_read_only` of target `inventory_db` is not given at this time: it is Fri 2026-12-04 20:30 \
         (UTC+01:00) in Europe/Berlin; the window opens Mon 2026-12-07 08:00 (UTC+01:00)"
    );
    assert_eq!(opens(SHORT, "2026-12-01T03:00+01"), "Tue 2026-12-01 08:00 (UTC+01:00)");
}

#[test]
fn clocks_that_spring_forward_skip_an_hour() {
    // 02:00 +01 is 03:00 +02 on 29 March 2026.
    let night = |from: &str, to: &str| format!(r#"{{"time_zone": "Europe/Berlin", "from": "{from}", "to": "{to}"}}"#);
    let within = night("02:10", "02:50");
    assert_eq!(opens(&within, "2026-03-29T01:59+01"), "Mon 2026-03-30 02:10 (UTC+02:00)");
    assert!(!is_open(&within, "2026-03-29T01:00Z"));
    // It begins in the hour that is skipped: it opens where the clock lands.
    let begins = night("02:30", "04:00");
    assert_eq!(opens(&begins, "2026-03-29T00:30Z"), "Sun 2026-03-29 03:00 (UTC+02:00)");
    assert!(is_open(&begins, "2026-03-29T01:00Z"));
    // It ends there: it closes where the clock jumps.
    let ends = night("01:00", "02:30");
    assert!(is_open(&ends, "2026-03-29T00:59:59Z") && !is_open(&ends, "2026-03-29T01:00Z"));
    assert_eq!(ttl(&ends, "2026-03-29T00:30Z", 7200), Some(1800));
    // Over it, an hour is missing.
    assert_eq!(ttl(&night("01:00", "05:00"), "2026-03-29T01:00+01", 86_400), Some(3 * 3600));
    assert_eq!(ttl(&night("01:00", "05:00"), "2026-03-30T01:00+02", 86_400), Some(4 * 3600));
    // The day after it has its usual hours again.
    assert_eq!(opens(SHORT, "2026-03-28T12:00+01"), "Mon 2026-03-30 08:00 (UTC+02:00)");
}

#[test]
fn clocks_that_fall_back_show_an_hour_twice() {
    // 03:00 +02 is 02:00 +01 on 25 October 2026.
    let night = |from: &str, to: &str| format!(r#"{{"time_zone": "Europe/Berlin", "from": "{from}", "to": "{to}"}}"#);
    let within = night("02:15", "02:45");
    for (time, open) in [
        ("2026-10-25T02:15+02", true),
        ("2026-10-25T02:45+02", false),
        ("2026-10-25T02:15+01", true),
        ("2026-10-25T02:45+01", false),
    ] {
        assert_eq!(is_open(&within, time), open, "{time}");
    }
    assert_eq!(opens(&within, "2026-10-25T02:00+02"), "Sun 2026-10-25 02:15 (UTC+02:00)");
    assert_eq!(opens(&within, "2026-10-25T02:50+02"), "Sun 2026-10-25 02:15 (UTC+01:00)");
    // It closes within the hour, and opens again when the clock goes back into it.
    let before = night("01:00", "02:30");
    assert_eq!(ttl(&before, "2026-10-25T02:00+02", 86_400), Some(1800));
    assert_eq!(opens(&before, "2026-10-25T02:40+02"), "Sun 2026-10-25 02:00 (UTC+01:00)");
    // Over it, an hour is there twice.
    assert_eq!(ttl(&night("01:00", "05:00"), "2026-10-25T01:00+02", 86_400), Some(5 * 3600));
}

#[test]
fn a_window_over_midnight_belongs_to_the_day_on_which_it_begins() {
    let json = r#"{"time_zone": "Europe/Berlin", "days": ["fri"], "from": "22:00", "to": "06:00",
                   "holidays": {"2026-12-25": "Christmas Day"}}"#;
    for (time, open) in [
        ("2026-12-04T21:59+01", false),
        ("2026-12-04T22:00+01", true),
        ("2026-12-05T05:59+01", true),
        ("2026-12-05T06:00+01", false),
        ("2026-12-04T05:00+01", false),
        ("2026-12-05T23:00+01", false),
        // It would begin on the holiday, and end on the day after.
        ("2026-12-25T23:00+01", false),
        ("2026-12-26T05:00+01", false),
    ] {
        assert_eq!(is_open(json, time), open, "{time}");
    }
    assert_eq!(ttl(json, "2026-12-04T23:00+01", 86_400), Some(7 * 3600));
    assert_eq!(opens(json, "2026-12-25T12:00+01"), "Fri 2027-01-01 22:00 (UTC+01:00)");
}

#[test]
fn holidays_close_windows_unless_one_opens_on_them() {
    let json = r#"{"time_zone": "Europe/Berlin", "holidays": {"12-25": "Christmas Day", "01-01": "New Year"},
        "windows": [
            {"name": "office", "days": ["mon-fri"], "from": "08:00", "to": "18:00"},
            {"name": "on call", "roles": ["on_call"], "on_holidays": true}
        ]}"#;
    let reason = denied(json, &at("2026-12-25T10:00+01"));
    assert!(reason.contains("in Europe/Berlin, Christmas Day;"), "{reason}");
    assert!(reason.ends_with("window `office` opens Mon 2026-12-28 08:00 (UTC+01:00)"), "{reason}");
    let mut on_call = at("2026-12-25T10:00+01");
    on_call = on_call.with_role("on_call");
    match TimeWindow::decide(&config(json), &on_call) {
        Verdict::Allow(allowance) => {
            assert_eq!(allowance.reason, "within window `on call`");
            assert_eq!(allowance.labels, [("window".to_owned(), "window `on call`".to_owned())]);
        }
        Verdict::Deny(reason) => panic!("{reason}"),
    }
    // The year's end is the next one's beginning, a holiday.
    assert_eq!(opens(json, "2026-12-31T19:00+01"), "Mon 2027-01-04 08:00 (UTC+01:00)");
}

#[test]
fn years_end_and_leap_days() {
    let daily = r#"{"time_zone": "UTC", "from": "23:00", "to": "01:00"}"#;
    assert!(is_open(daily, "2026-12-31T23:59:59Z") && is_open(daily, "2027-01-01T00:59:59Z"));
    assert_eq!(ttl(daily, "2026-12-31T23:30Z", 86_400), Some(5400));
    let tuesday = r#"{"time_zone": "UTC", "days": ["tue"]}"#;
    // 29 February 2028 is a Tuesday.
    assert!(is_open(tuesday, "2028-02-29T12:00Z") && !is_open(tuesday, "2028-03-01T00:00Z"));
    assert_eq!(opens(tuesday, "2028-02-28T12:00Z"), "Tue 2028-02-29 00:00 (UTC+00:00)");
    let leap = r#"{"time_zone": "UTC", "days": ["tue"], "holidays": {"02-29": "Leap Day"}}"#;
    assert_eq!(opens(leap, "2028-02-28T12:00Z"), "Tue 2028-03-07 00:00 (UTC+00:00)");
}

#[test]
fn windows_are_for_targets_and_roles_and_may_have_their_own_zone() {
    let json = r#"{"time_zone": "Europe/Berlin", "windows": [
        {"name": "berlin", "targets": ["inventory_*"], "days": ["mon-fri"], "from": "08:00", "to": "18:00"},
        {"name": "new york", "targets": ["inventory_*"], "roles": ["app_*"], "time_zone": "America/New_York",
         "days": ["mon-fri"], "from": "08:00", "to": "18:00"}
    ]}"#;
    // 19:00 in Berlin is 13:00 in New York.
    assert!(is_open(json, "2026-12-01T18:00Z"));
    let mut owner = at("2026-12-01T18:00Z");
    owner = owner.with_role("owner");
    assert!(denied(json, &owner).ends_with("window `berlin` opens Wed 2026-12-02 08:00 (UTC+01:00)"));
    // Both are shut; the one that opens first is named, in its own zone.
    assert!(denied(json, &at("2026-12-06T12:00Z")).contains("window `berlin` opens Mon 2026-12-07 08:00 (UTC+01:00)"));
    let mut other = at("2026-12-01T10:00Z");
    other = other.with_target("hr");
    let reason = denied(json, &other);
    assert!(reason.starts_with("no time window is for role `app_read_only` of target `hr`"), "{reason}");
    // One begins before the other ends: together they are open from 08:00 in Berlin to 18:00 in New York.
    assert_eq!(ttl(json, "2026-12-01T07:00Z", 86_400), Some(16 * 3600));
}

#[test]
fn a_lease_is_capped_at_the_end_of_what_is_open_without_a_break() {
    assert_eq!(ttl(SHORT, "2026-12-01T17:30+01", 3600), Some(1800));
    assert_eq!(ttl(SHORT, "2026-12-01T17:59:59+01", 3600), Some(1));
    // What ends within the window anyway needs no cap.
    assert_eq!(ttl(SHORT, "2026-12-01T09:00+01", 3600), None);
    let whole_days = r#"{"time_zone": "Europe/Berlin", "days": ["mon-fri"]}"#;
    assert_eq!(ttl(whole_days, "2026-12-01T12:00+01", 7 * 86_400), Some(3 * 86_400 + 12 * 3600));
    assert_eq!(ttl(r#"{"time_zone": "UTC", "from": "00:00", "to": "24:00"}"#, "2026-12-01T12:00Z", u64::MAX), None);
}

#[test]
fn what_never_opens_says_so() {
    let holidays: Vec<String> = (1..=12)
        .flat_map(|month| (1..=31).map(move |day| (month, day)))
        .filter(|(month, day)| jiff::civil::Date::new(2028, *month, *day).is_ok())
        .map(|(month, day)| format!(r#""{month:02}-{day:02}": "closed""#))
        .collect();
    let json = format!(r#"{{"time_zone": "UTC", "days": ["mon"], "holidays": {{{}}}}}"#, holidays.join(","));
    assert!(denied(&json, &at("2026-12-01T12:00Z")).ends_with("no window opens in the next year"));
}

#[test]
fn a_time_that_no_calendar_has_denies() {
    for time in [u64::MAX, 253_402_300_800, i64::MAX.unsigned_abs()] {
        assert!(denied(SHORT, &request().at(time)).contains("none that a calendar has"));
    }
    // The ends of what it has are no reason to panic.
    for time in [0, 253_402_207_200, 253_402_207_199, 253_402_100_000] {
        let _ = TimeWindow::decide(&config(SHORT), &request().at(time));
        let _ = ttl(r#"{"time_zone": "UTC"  , "from": "00:00"}"#, "9999-12-30T21:00Z", 86_400);
    }
}

#[test]
fn hostile_strings_are_tame_in_reasons() {
    for hostile in ["a\nlevel=error", "\u{1b}[2J", "\u{202e}", &"x".repeat(1 << 20)] {
        let mut request = at("2026-12-05T12:00Z");
        request = request.with_target(hostile);
        request = request.with_role(hostile);
        let reason = denied(SHORT, &request);
        assert!(reason.len() < 2000 && !reason.chars().any(char::is_control), "{reason:?}");
        assert!(!reason.contains('\u{202e}'), "{reason:?}");
    }
}

/// The guest has no other database than this one, and replays need the same.
#[test]
fn time_zones_are_compiled_in() {
    assert!(TimeZoneDatabase::bundled().available().count() > 400);
}

#[test]
fn mistakes_are_told_with_their_place() {
    let in_window = |window: &str| format!(r#"{{"time_zone": "UTC", "windows": [{window}]}}"#);
    let top = |more: &str| format!(r#"{{"time_zone": "UTC", {more}}}"#);
    for (json, path, word) in [
        ("{}".to_owned(), "", "`time_zone` is missing"),
        (r#"{"time_zone": "CEST", "days": ["mon"]}"#.to_owned(), "time_zone", "Europe/Berlin"),
        (r#"{"time_zone": "UTC"}"#.to_owned(), "", "opens at no time"),
        (top(r#""windows": []"#), "windows", "add a window"),
        (top(r#""days": ["mon"], "windows": [{}]"#), "windows", "window of their own"),
        (top(r#""days": "mon-fri""#), "days", "a list of days"),
        (top(r#""days": ["mon-fry"]"#), "days", "`mon-fri`"),
        (top(r#""days": []"#), "days", "never opens"),
        (top(r#""from": "8:00""#), "from", "`08:00`"),
        (top(r#""from": "24:00""#), "from", "`00:00` and the next day"),
        (top(r#""from": "08:00", "to": "08:00""#), "to", "whole day"),
        (top(r#""to": "00:00""#), "to", "`24:00`"),
        (top(r#""from": "08:00", "untill": "9""#), "untill", "unknown key `untill`"),
        (top(r#""days": ["mon"], "holidays": {"2026-02-30": "x"}"#), "holidays", "2026-12-25"),
        (top(r#""days": ["mon"], "holidays": {"2026-02-03": ""}"#), "holidays", "empty"),
        (in_window(r#"{"day": ["mon"]}"#), "windows[0].day", "write `days`"),
        (in_window(r#"{"targets": []}"#), "windows[0].targets", "leave it out"),
        (in_window(r#"{"roles": ["[a]"]}"#), "windows[0].roles[0]", "only `*` and `?`"),
        (in_window(r#"{"from": "10:00", "to": "10:00"}"#), "windows[0].to", "whole day"),
    ] {
        let problems = match jit_plugin::config::parse::<Config>(&json) {
            Ok(config) => TimeWindow::validate(&config),
            Err(problems) => problems,
        };
        assert_eq!(problems.len(), 1, "{json} {problems:?}");
        assert!(problems[0].path.starts_with(path), "{json} {problems:?}");
        assert!(problems[0].message.contains(word), "{json} {problems:?}");
    }
}
