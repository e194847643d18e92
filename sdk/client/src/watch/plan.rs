//! When the next step is due, and which: pure, so that every case has a test.

use std::time::Duration;

use super::Rotation;
use jit_api::ProblemCode;

use crate::client::IdempotencyKey;
use crate::clock::Clock;
use crate::credential::Lease;
use crate::error::Error;

/// How much of a term a renewal may come earlier than the broker says, so that clients that were
/// started together drift apart.
const JITTER: f64 = 0.1;
/// A renewal that adds less than this part of a term is not worth it: a new account is.
const WORTH: u32 = 5;

/// When things happen to a lease, by the steady clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Deadlines {
    /// The next step is due.
    pub(super) due: Duration,
    /// It is over.
    pub(super) expires: Duration,
}

impl Deadlines {
    /// `dice` is in 0..1; `most` is the longest that may pass until the next step.
    pub(super) fn of(lease: &Lease, clock: &dyn Clock, dice: f64, most: Option<Duration>) -> Self {
        let seen = lease.seen(clock);
        let expires = seen.steady_at(lease.term.expires_at);
        let due = seen.steady_at(lease.term.renew_after).min(expires);
        let early = lease.length().mul_f64(JITTER * dice.clamp(0.0, 1.0));
        let due = due.saturating_sub(early).max(seen.steady);
        let due = most.map_or(due, |most| due.min(seen.steady.saturating_add(most)));
        Self { due, expires }
    }
}

/// What is done when it is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// The same account, a later expiry.
    Renew,
    /// A new account; all attempts at it carry this key.
    Issue(IdempotencyKey),
}

impl Step {
    pub(super) fn issue() -> Self {
        Self::Issue(IdempotencyKey::generate())
    }

    /// What becomes of a lease that is due. `stuck`: its last renewal did not move its end.
    pub(super) fn of(lease: &Lease, rotation: Rotation, stuck: bool) -> Self {
        let room = crate::clock::until(lease.term.expires_at, lease.term.max_expires_at);
        match rotation {
            Rotation::RenewLease if lease.term.renewable && !stuck && room >= lease.length() / WORTH => Self::Renew,
            _ => Self::issue(),
        }
    }

    /// After a failure: the next attempt, and whether to wait before it.
    pub(super) fn after(self, error: &Error) -> After {
        let refused = |status: &[u16]| error.problem().is_some_and(|problem| status.contains(&problem.status));
        match self {
            // The lease is gone, over, or never to be renewed again, or the policies no longer like it:
            // a new one is asked for under today's rules.
            Self::Renew if refused(&[400, 403, 404, 409]) => {
                After { step: Self::issue(), at_once: true, hopeless: false }
            }
            // The account of an earlier attempt is gone. The key went with it.
            Self::Issue(_) if error.is(ProblemCode::LeaseNotActive) => {
                After { step: Self::issue(), at_once: false, hopeless: false }
            }
            // A token that the broker does not take may be about to be replaced.
            step if refused(&[401]) => After { step, at_once: false, hopeless: false },
            step => {
                let file = matches!(error, Error::Token(_));
                After { step, at_once: false, hopeless: !error.is_transient() && !file }
            }
        }
    }
}

/// What follows a failure.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct After {
    pub(super) step: Step,
    /// Without a wait.
    pub(super) at_once: bool,
    /// No attempt of this burst will do better.
    pub(super) hopeless: bool,
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use jit_api::{Problem, Term};

    use super::*;
    use crate::credential::Seen;

    struct Fixed(i64, u64);

    impl Clock for Fixed {
        fn wall(&self) -> Timestamp {
            at(self.0)
        }
        fn steady(&self) -> Duration {
            Duration::from_secs(self.1)
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap_or(Timestamp::UNIX_EPOCH)
    }

    /// Issued at 1,000,000 for an hour, at most eight.
    fn lease() -> Lease {
        changed(|_| {})
    }

    /// The same lease with another term.
    fn changed(change: impl FnOnce(&mut Term)) -> Lease {
        let mut term = Term {
            issued_at: at(1_000_000),
            expires_at: at(1_003_600),
            ttl_seconds: 3_600,
            renew_after: at(1_002_880),
            max_expires_at: at(1_028_800),
            renewable: true,
        };
        change(&mut term);
        let seen = Seen { steady: Duration::from_secs(50), broker: at(1_000_000) };
        Lease { view: crate::credential::tests::view("lease_x", "v-x", term), seen: Some(seen) }
    }

    fn refused(status: u16, code: &str) -> Error {
        let text = format!(r#"{{"status":{status},"code":"{code}"}}"#);
        Error::Refused(Box::new(serde_json::from_str::<Problem>(&text).unwrap_or_else(|error| panic!("{error}"))))
    }

    #[test]
    fn a_renewal_is_at_80_percent_or_up_to_a_tenth_earlier_never_later() {
        // Whatever the wall clock says by now.
        for wall in [0, 1_000_000, 9_000_000] {
            let clock = Fixed(wall, 50);
            let due = |dice| Deadlines::of(&lease(), &clock, dice, None).due.as_secs();
            assert_eq!([due(0.0), due(0.5), due(1.0)], [50 + 2_880, 50 + 2_700, 50 + 2_520]);
            assert_eq!(Deadlines::of(&lease(), &clock, 0.0, None).expires.as_secs(), 50 + 3_600);
        }
        let clock = Fixed(0, 50);
        let limited = |most| Deadlines::of(&lease(), &clock, 0.0, Some(Duration::from_secs(most))).due.as_secs();
        assert_eq!([limited(60), limited(2_880), limited(100_000)], [110, 2_930, 2_930]);
    }

    #[test]
    fn a_lease_from_a_file_goes_by_the_wall_clock() {
        let from_file = Lease { seen: None, ..lease() };
        let deadlines = Deadlines::of(&from_file, &Fixed(1_000_600, 7), 0.0, None);
        assert_eq!((deadlines.due.as_secs(), deadlines.expires.as_secs()), (7 + 2_280, 7 + 3_000));
        let over = Deadlines::of(&from_file, &Fixed(2_000_000, 7), 0.0, None);
        assert_eq!((over.due.as_secs(), over.expires.as_secs()), (7, 7));
    }

    #[test]
    fn a_lease_is_renewed_while_that_gains_something() {
        let step = |lease: &Lease, rotation, stuck| Step::of(lease, rotation, stuck) == Step::Renew;
        assert!(step(&lease(), Rotation::RenewLease, false));
        assert!(!step(&lease(), Rotation::NewAccount, false));
        assert!(!step(&lease(), Rotation::RenewLease, true));
        assert!(!step(&changed(|term| term.renewable = false), Rotation::RenewLease, false));
        let with_room = |seconds: i64| changed(|term| term.max_expires_at = at(1_003_600 + seconds));
        assert!(step(&with_room(720), Rotation::RenewLease, false));
        assert!(!step(&with_room(719), Rotation::RenewLease, false));
        assert!(!step(&with_room(-5), Rotation::RenewLease, false));
    }

    #[test]
    fn what_cannot_be_renewed_is_replaced_at_once() {
        for (status, code) in [
            (404, "unknown-lease"),
            (409, "lease-not-active"),
            (409, "lease-not-renewable"),
            (400, "invalid-request"),
            (403, "policy-denied"),
        ] {
            let after = Step::Renew.after(&refused(status, code));
            assert!(after.at_once && !after.hopeless && after.step != Step::Renew, "{code}: {after:?}");
        }
        for (status, code) in
            [(503, "target-unavailable"), (429, "rate-limited"), (401, "unauthenticated"), (502, "target-refused")]
        {
            let after = Step::Renew.after(&refused(status, code));
            assert_eq!(after, After { step: Step::Renew, at_once: false, hopeless: false }, "{code}");
        }
    }

    #[test]
    fn the_key_stays_until_its_account_is_gone() {
        let step = Step::issue();
        for error in [
            refused(503, "overloaded"),
            refused(504, "target-timeout"),
            refused(429, "rate-limited"),
            Error::Unreachable { broker: String::new(), reason: String::new() },
        ] {
            assert_eq!(step.clone().after(&error), After { step: step.clone(), at_once: false, hopeless: false });
        }
        let denied = step.clone().after(&refused(403, "policy-denied"));
        assert_eq!(denied, After { step: step.clone(), at_once: false, hopeless: true });
        let gone = step.clone().after(&refused(409, "lease-not-active"));
        assert!(gone.step != step && !gone.at_once, "never without a wait: {gone:?}");
    }
}
