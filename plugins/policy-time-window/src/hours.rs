//! When a window is open, and when that changes.
//!
//! The definition is [`Hours::is_open`] alone: what the zone's own clock shows. Openness can change
//! only where that clock shows the window's first or last minute, or jumps; so the search for the next
//! change looks at those instants and asks the definition. A clock that skips a window's beginning
//! opens it where it lands, if that is within; one that repeats an hour may open a window twice.

use jiff::Timestamp;
use jiff::civil::{Date, DateTime};
use jiff::tz::{AmbiguousOffset, TimeZone};

use crate::calendar::{Days, Holidays, TimeOfDay};

/// How far ahead is looked: more than a year, so that a day that a yearly holiday closes is found again.
const MAX_DAYS: usize = 400;

/// How many jumps of a clock are looked at. No zone has more than a few in [`MAX_DAYS`].
const MAX_JUMPS: usize = 12;

/// How many windows may follow on each other without a break; a lease is then capped there at the latest.
const MAX_FOLLOWING: usize = 100;

/// A window's hours.
#[derive(Debug)]
pub(crate) struct Hours<'c> {
    pub(crate) zone: &'c TimeZone,
    pub(crate) days: Days,
    pub(crate) from: TimeOfDay,
    /// Not after `from`: on the next day.
    pub(crate) to: TimeOfDay,
    /// Dates on which it does not open.
    pub(crate) holidays: Option<&'c Holidays>,
}

impl Hours<'_> {
    /// Whether the clock shows a time within the window. One over midnight belongs to the day on which
    /// it begins.
    pub(crate) fn is_open(&self, at: Timestamp) -> bool {
        let shown = self.zone.to_datetime(at);
        let (date, seconds) = (shown.date(), seconds_of_day(shown));
        if self.is_over_midnight() {
            let began_yesterday = || date.yesterday().is_ok_and(|yesterday| self.opens_on(yesterday));
            return (seconds >= self.from.seconds() && self.opens_on(date))
                || (seconds < self.to.seconds() && began_yesterday());
        }
        (self.from.seconds()..self.to.seconds()).contains(&seconds) && self.opens_on(date)
    }

    /// When a closed window opens next; none where it does not within [`MAX_DAYS`].
    pub(crate) fn opens_after(&self, at: Timestamp) -> Option<Timestamp> {
        self.next(at, self.from, true)
    }

    /// When an open window closes; none where it does not within [`MAX_DAYS`].
    pub(crate) fn closes_after(&self, at: Timestamp) -> Option<Timestamp> {
        self.next(at, self.to, false)
    }

    /// The first instant after `at` at which the window is open or not, as wanted, given that it is the
    /// contrary at `at`.
    fn next(&self, at: Timestamp, edge: TimeOfDay, open: bool) -> Option<Timestamp> {
        let is_it = |instant: &Timestamp| *instant > at && self.is_open(*instant) == open;
        let today = self.zone.to_datetime(at).date();
        let days = std::iter::successors(Some(today), |date| date.tomorrow().ok()).take(MAX_DAYS);
        let found = days.flat_map(|date| self.instants(date, edge)).find(is_it);
        let jumps = self.zone.following(at).take(MAX_JUMPS).map(|jump| jump.timestamp());
        let by_jump = jumps.take_while(|jump| found.is_none_or(|found| *jump < found)).find(is_it);
        by_jump.or(found)
    }

    /// The instants at which the clock shows this time on this date, in order: none, one, or two.
    fn instants(&self, date: Date, time: TimeOfDay) -> impl Iterator<Item = Timestamp> + use<> {
        let shown = if time == TimeOfDay::END {
            date.tomorrow().ok().map(|tomorrow| tomorrow.at(0, 0, 0, 0))
        } else {
            let minutes = time.seconds() / 60;
            // Both are below 60: a time of day has at most 24 hours, and those are handled above.
            let (hour, minute) = ((minutes / 60) as i8, (minutes % 60) as i8);
            Some(date.at(hour, minute, 0, 0))
        };
        let offsets = shown.map(|shown| match self.zone.to_ambiguous_timestamp(shown).offset() {
            AmbiguousOffset::Unambiguous { offset } => [Some(offset), None],
            AmbiguousOffset::Gap { .. } => [None, None],
            AmbiguousOffset::Fold { before, after } => [Some(before), Some(after)],
        });
        let offsets = offsets.into_iter().flatten().flatten();
        offsets.filter_map(move |offset| offset.to_timestamp(shown?).ok())
    }

    fn is_over_midnight(&self) -> bool {
        self.to <= self.from
    }

    fn opens_on(&self, date: Date) -> bool {
        self.days.has(date.weekday()) && self.holidays.is_none_or(|holidays| holidays.on(date).is_none())
    }
}

fn seconds_of_day(shown: DateTime) -> u32 {
    // A clock shows no negative time.
    let part = |value: i8| u32::from(value.unsigned_abs());
    part(shown.hour()) * 3600 + part(shown.minute()) * 60 + part(shown.second())
}

/// For how many seconds from now any of the windows is open without a break, one of which is now; none
/// where that is at least `wanted`.
pub(crate) fn open_seconds(windows: &[&Hours<'_>], now: Timestamp, wanted: u64) -> Option<u64> {
    let since = |later: Timestamp| u64::try_from(later.as_second() - now.as_second()).unwrap_or(0);
    let mut end = now;
    for _ in 0..MAX_FOLLOWING {
        let open = windows.iter().filter(|window| window.is_open(end));
        let Some(last) = open.map(|window| window.closes_after(end)).reduce(later) else {
            return Some(since(end));
        };
        end = last?;
        if since(end) >= wanted {
            return None;
        }
    }
    Some(since(end))
}

/// The later of two, where none is never.
fn later(one: Option<Timestamp>, other: Option<Timestamp>) -> Option<Timestamp> {
    Some(one?.max(other?))
}
