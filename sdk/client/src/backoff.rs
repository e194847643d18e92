//! When to try again: bursts of attempts with full jitter, until it succeeds.

use std::time::Duration;

/// The longest wait that a broker may ask for by `Retry-After`.
const MOST_RETRY_AFTER: Duration = Duration::from_secs(300);

/// How attempts are spaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    /// The most before the second attempt; doubled for each further one.
    pub first: Duration,
    /// The most between two attempts.
    pub cap: Duration,
    /// Attempts of a burst; after it somebody is told, and a pause of half the cap to the cap follows.
    pub attempts: u32,
}

impl Default for Schedule {
    /// 2 s, doubled, at most 30 s, five attempts a burst.
    fn default() -> Self {
        Self { first: Duration::from_secs(2), cap: Duration::from_secs(30), attempts: 5 }
    }
}

impl Schedule {
    /// The usual one, in proportion for terms under four minutes: their last fifth must have room
    /// for a burst.
    #[must_use]
    pub fn for_term(term: Duration) -> Self {
        let usual = Self::default();
        let least = Duration::from_millis(20);
        Self { first: usual.first.min(term / 60).max(least), cap: usual.cap.min(term / 8).max(least), ..usual }
    }
}

/// What follows a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Next {
    /// Wait so long.
    pub(crate) wait: Duration,
    /// That was the last attempt of a burst.
    pub(crate) exhausted: bool,
}

/// Bursts of attempts.
#[derive(Debug)]
pub(crate) struct Bursts {
    schedule: Schedule,
    failed: u32,
}

impl Bursts {
    pub(crate) fn new(schedule: Schedule) -> Self {
        Self { schedule, failed: 0 }
    }

    /// After one more failure. `ended`: no further attempt of this burst makes sense.
    pub(crate) fn failed(&mut self, retry_after: Option<Duration>, ended: bool) -> Next {
        self.failed_with(retry_after, ended, rand::random::<f64>())
    }

    /// `dice` is in 0..1.
    fn failed_with(&mut self, retry_after: Option<Duration>, ended: bool, dice: f64) -> Next {
        let Schedule { first, cap, attempts } = self.schedule;
        self.failed += 1;
        let exhausted = ended || self.failed >= attempts;
        let wait = if exhausted {
            self.failed = 0;
            cap.mul_f64(0.5 + dice / 2.0)
        } else {
            let most = first.saturating_mul(1 << (self.failed - 1).min(16)).min(cap);
            most.mul_f64(dice)
        };
        // Not before the broker wants it, and not all at that very moment.
        let wait = match retry_after {
            Some(asked) => asked.min(MOST_RETRY_AFTER) + wait.min(first),
            None => wait,
        };
        Next { wait, exhausted }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_burst_is_five_attempts_and_bursts_are_repeated() {
        let mut bursts = Bursts::new(Schedule::default());
        for _ in 0..3 {
            let most: Vec<Next> = (0..5).map(|_| bursts.failed_with(None, false, 1.0)).collect();
            assert_eq!(most.iter().map(|next| next.wait).collect::<Vec<_>>(), [2, 4, 8, 16, 30].map(seconds));
            assert_eq!(most.iter().map(|next| next.exhausted).collect::<Vec<_>>(), [false, false, false, false, true]);
        }
        let none: Vec<Next> = (0..5).map(|_| bursts.failed_with(None, false, 0.0)).collect();
        assert_eq!(none.iter().map(|next| next.wait).collect::<Vec<_>>(), [0, 0, 0, 0, 15].map(seconds));
    }

    #[test]
    fn an_answer_that_no_retry_betters_ends_the_burst() {
        let mut bursts = Bursts::new(Schedule::default());
        assert_eq!(bursts.failed_with(None, true, 0.0), Next { wait: seconds(15), exhausted: true });
        assert!(!bursts.failed_with(None, false, 0.0).exhausted);
    }

    #[test]
    fn retry_after_is_a_floor_with_a_bound() {
        let mut bursts = Bursts::new(Schedule::default());
        assert_eq!(bursts.failed_with(Some(seconds(7)), false, 0.5).wait, seconds(8));
        assert_eq!(bursts.failed_with(Some(seconds(7)), false, 0.0).wait, seconds(7));
        assert_eq!(bursts.failed_with(Some(seconds(1_000_000)), false, 0.0).wait, seconds(300));
        assert_eq!(bursts.failed_with(Some(Duration::MAX), false, 0.0).wait, seconds(300));
    }

    #[test]
    fn short_terms_have_short_waits() {
        assert_eq!(Schedule::for_term(seconds(3_600)), Schedule::default());
        assert_eq!(Schedule::for_term(seconds(240)), Schedule::default());
        let short = Schedule::for_term(seconds(4));
        assert!(short.cap <= seconds(4) / 5 && short.first * 15 <= seconds(4) * 2, "{short:?}");
        assert!(Schedule::for_term(Duration::ZERO).first > Duration::ZERO, "never a spin");
    }

    #[test]
    fn dice_are_within_their_bounds() {
        let mut bursts = Bursts::new(Schedule::default());
        for _ in 0..1_000 {
            assert!(bursts.failed(None, false).wait <= seconds(30));
        }
    }
}
