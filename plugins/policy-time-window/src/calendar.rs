//! Days, times of day, holidays and time zones as they are written in a configuration.

use std::collections::BTreeMap;
use std::fmt;

use jiff::civil::{Date, Weekday};
use jiff::tz::{TimeZone, TimeZoneDatabase};
use jit_plugin::Name;
use jit_plugin::text::shown;
use serde::{Deserialize, Deserializer, de};

/// An IANA time zone, of the database that is compiled in: no machine's own can make a decision
/// different from its replay.
#[derive(Debug)]
pub(crate) struct Zone {
    pub(crate) name: String,
    pub(crate) rules: TimeZone,
}

impl<'de> Deserialize<'de> for Zone {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        match TimeZoneDatabase::bundled().get(&name) {
            Ok(rules) => Ok(Self { name: rules.iana_name().unwrap_or(&name).to_owned(), rules }),
            Err(_) => Err(de::Error::custom(format!(
                "{} is not an IANA time zone: write one such as `Europe/Berlin`, `America/New_York` or `UTC`",
                shown(&name)
            ))),
        }
    }
}

/// Days of the week: `["mon-fri"]`, `["sat", "sun"]`, `["fri-mon"]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Days(u8);

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

impl Days {
    pub(crate) const ALL: Self = Self(0x7f);

    pub(crate) fn has(self, day: Weekday) -> bool {
        self.0 & (1 << day.to_monday_zero_offset()) != 0
    }

    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }

    fn with(self, entry: &str) -> Option<Self> {
        let (first, last) = entry.split_once('-').unwrap_or((entry, entry));
        let number = |day: &str| DAYS.iter().position(|name| *name == day);
        let (mut day, last) = (number(first)?, number(last)?);
        let mut days = self.0 | 1 << last;
        while day != last {
            days |= 1 << day;
            day = (day + 1) % DAYS.len();
        }
        Some(Self(days))
    }
}

impl<'de> Deserialize<'de> for Days {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Days;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of days such as [\"mon-fri\"] or [\"sat\", \"sun\"]")
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<Days, A::Error> {
                let mut days = Days(0);
                while let Some(entry) = list.next_element::<String>()? {
                    days = days.with(&entry).ok_or_else(|| {
                        let shown = jit_plugin::text::shown(&entry);
                        de::Error::custom(format!(
                            "{shown} is no day: write `mon`, `tue`, `wed`, `thu`, `fri`, `sat`, `sun` or a range \
                             such as `mon-fri`"
                        ))
                    })?;
                }
                Ok(days)
            }
        }
        deserializer.deserialize_seq(Visitor)
    }
}

/// A time of day in whole minutes, `"00:00"` to `"24:00"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TimeOfDay(u16);

impl TimeOfDay {
    pub(crate) const MIDNIGHT: Self = Self(0);
    pub(crate) const END: Self = Self(24 * 60);

    /// Seconds since midnight.
    pub(crate) fn seconds(self) -> u32 {
        u32::from(self.0) * 60
    }

    fn parse(text: &str) -> Option<Self> {
        let &[a, b, b':', c, d] = text.as_bytes() else {
            return None;
        };
        let number = |tens: u8, ones: u8| -> Option<u16> {
            let both = tens.is_ascii_digit() && ones.is_ascii_digit();
            both.then(|| u16::from(tens - b'0') * 10 + u16::from(ones - b'0'))
        };
        let (hour, minute) = (number(a, b)?, number(c, d)?);
        let time = Self(hour * 60 + minute);
        (minute < 60 && time <= Self::END).then_some(time)
    }
}

impl<'de> Deserialize<'de> for TimeOfDay {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| {
            let shown = jit_plugin::text::shown(&text);
            de::Error::custom(format!(
                "{shown} is no time of day: write hours and minutes such as `08:00`, to `24:00` at most"
            ))
        })
    }
}

/// Holidays by date, each with its name: `"2026-12-25"` once, `"12-25"` every year.
#[derive(Debug, Default, Deserialize)]
#[serde(transparent)]
pub(crate) struct Holidays(BTreeMap<HolidayDate, Name>);

impl Holidays {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// What holiday a date is.
    pub(crate) fn on(&self, date: Date) -> Option<&Name> {
        let once = HolidayDate { year: Some(date.year()), month: date.month(), day: date.day() };
        let yearly = HolidayDate { year: None, ..once };
        self.0.get(&once).or_else(|| self.0.get(&yearly))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct HolidayDate {
    year: Option<i16>,
    month: i8,
    day: i8,
}

impl HolidayDate {
    fn parse(text: &str) -> Option<Self> {
        let number = |text: &str, digits: usize| -> Option<i16> {
            let all = text.len() == digits && text.bytes().all(|byte| byte.is_ascii_digit());
            all.then(|| text.parse().ok()).flatten()
        };
        let (year, rest) = match text.split_once('-')? {
            (year, rest) if year.len() == 4 => (Some(number(year, 4)?), rest),
            _ => (None, text),
        };
        let (month, day) = rest.split_once('-')?;
        let (month, day) = (i8::try_from(number(month, 2)?).ok()?, i8::try_from(number(day, 2)?).ok()?);
        // Every year, the 29th of February among them: a leap year knows all dates.
        Date::new(year.unwrap_or(2000), month, day).ok()?;
        Some(Self { year, month, day })
    }
}

impl<'de> Deserialize<'de> for HolidayDate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| {
            let shown = jit_plugin::text::shown(&text);
            de::Error::custom(format!("{shown} is no date: write `2026-12-25`, or `12-25` for every year"))
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]
    use super::*;
    use jiff::civil::date;

    fn days(entries: &[&str]) -> Option<Vec<&'static str>> {
        let days = entries.iter().try_fold(Days(0), |days, entry| days.with(entry))?;
        let names = (0..7).filter(|n| days.has(Weekday::from_monday_zero_offset(*n).unwrap()));
        Some(names.map(|n| DAYS[usize::try_from(n).unwrap()]).collect())
    }

    #[test]
    fn days_are_names_and_ranges_also_over_the_weekend() {
        assert_eq!(days(&["mon-fri"]), Some(vec!["mon", "tue", "wed", "thu", "fri"]));
        assert_eq!(days(&["sat", "sun"]), Some(vec!["sat", "sun"]));
        assert_eq!(days(&["fri-mon"]), Some(vec!["mon", "fri", "sat", "sun"]));
        assert_eq!(days(&["wed-wed"]), Some(vec!["wed"]));
        assert_eq!(days(&["mon-sun"]), Some(DAYS.to_vec()));
        for wrong in ["", "-", "mon-", "Mon", "monday", "mon-tue-wed", "mon fri", "1"] {
            assert_eq!(days(&[wrong]), None, "{wrong}");
        }
    }

    #[test]
    fn times_are_hours_and_minutes() {
        for (text, seconds) in [("00:00", 0), ("08:30", 30_600), ("23:59", 86_340), ("24:00", 86_400)] {
            assert_eq!(TimeOfDay::parse(text).map(TimeOfDay::seconds), Some(seconds), "{text}");
        }
        for wrong in ["", "8:00", "08", "08:60", "24:01", "25:00", "08:00:00", "-1:00", "08.00", "+8:00", "٠8:00"] {
            assert_eq!(TimeOfDay::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn holidays_are_once_or_every_year() {
        let holidays: Holidays = jit_plugin::config::parse(
            r#"{"12-25": "Christmas Day", "2026-04-06": "Easter Monday", "02-29": "Leap Day", "2026-12-25": "Ours"}"#,
        )
        .unwrap();
        let on = |year, month, day| holidays.on(date(year, month, day)).map(Name::as_str);
        assert_eq!(on(2027, 12, 25), Some("Christmas Day"));
        assert_eq!(on(2026, 12, 25), Some("Ours"));
        assert_eq!((on(2026, 4, 6), on(2027, 4, 6)), (Some("Easter Monday"), None));
        assert_eq!((on(2028, 2, 29), on(2027, 2, 28), on(2027, 3, 1)), (Some("Leap Day"), None, None));
        for wrong in ["", "2026-02-29", "2026-13-01", "12-32", "2026-1-1", "25.12.", "2026-12-25T00:00", "00-10"] {
            assert_eq!(HolidayDate::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn zones_are_those_of_the_iana() {
        let zone: Zone = jit_plugin::config::parse(r#""Europe/Berlin""#).unwrap();
        assert_eq!(zone.name, "Europe/Berlin");
        for wrong in ["", "CEST", "Europe/Berlinn", "/etc/passwd", "../UTC", "+01:00", "Local"] {
            let json = format!("{wrong:?}");
            let problems = jit_plugin::config::parse::<Zone>(&json).unwrap_err();
            assert!(problems[0].message.contains("Europe/Berlin"), "{problems:?}");
        }
    }
}
