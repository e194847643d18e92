//! The request's time as Cedar has it: a datetime, and parts of it in UTC.

/// The first second after what a datetime can say: 10000-01-01.
const END: u64 = 253_402_300_800;

/// A second since the Unix epoch, in UTC.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Moment {
    pub(crate) seconds: i64,
    /// `2026-11-28T04:05:06Z`
    pub(crate) datetime: String,
    pub(crate) weekday: &'static str,
    pub(crate) hour: i64,
    pub(crate) minute: i64,
}

impl Moment {
    /// None after the year 9999.
    pub(crate) fn new(time: u64) -> Option<Self> {
        let seconds = i64::try_from(time).ok().filter(|_| time < END)?;
        let (days, second) = (seconds / 86_400, seconds % 86_400);
        let (hour, minute) = (second / 3600, second % 3600 / 60);
        let (year, month, day) = date(days);
        // 1970-01-01 was a Thursday.
        const WEEKDAYS: [&str; 7] = ["thu", "fri", "sat", "sun", "mon", "tue", "wed"];
        let weekday = WEEKDAYS[usize::try_from(days % 7).ok()?];
        let datetime = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{:02}Z", second % 60);
        Some(Self { seconds, datetime, weekday, hour, minute })
    }
}

/// Year, month and day of a number of days since 1970-01-01, in the Gregorian calendar. Counted in eras of
/// 400 years that begin on the first of March, so that the leap day is the last of a year.
fn date(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]
    use super::*;

    #[test]
    fn moments_are_those_of_the_calendar() {
        for (time, datetime, weekday) in [
            (0, "1970-01-01T00:00:00Z", "thu"),
            (951_782_400, "2000-02-29T00:00:00Z", "tue"),
            (1_800_000_000, "2027-01-15T08:00:00Z", "fri"),
            (1_835_481_599, "2028-02-29T23:59:59Z", "tue"),
            (1_835_481_600, "2028-03-01T00:00:00Z", "wed"),
            (4_107_542_400, "2100-03-01T00:00:00Z", "mon"),
            (253_402_300_799, "9999-12-31T23:59:59Z", "fri"),
        ] {
            let moment = Moment::new(time).unwrap();
            assert_eq!((moment.datetime.as_str(), moment.weekday), (datetime, weekday));
        }
        let moment = Moment::new(1_835_481_599).unwrap();
        assert_eq!((moment.hour, moment.minute), (23, 59));
        assert_eq!(Moment::new(END), None);
        assert_eq!(Moment::new(u64::MAX), None);
    }
}
