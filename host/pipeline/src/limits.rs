//! How much one workload may ask: a crash loop must not mint accounts without end.

use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota};
use jit_core::name::Principal;

use crate::refusal::Refused;

/// A rate per verified principal. A stranger has no principal, so cannot fill the table.
pub struct RateLimits {
    limiter: Option<DefaultKeyedRateLimiter<Principal>>,
    /// For giving access back: it does not use up what may be asked, and asking does not use it up.
    returns: Option<DefaultKeyedRateLimiter<Principal>>,
    clock: DefaultClock,
}

impl RateLimits {
    /// `per_second` requests on average, `burst` at once; `None` for no limit.
    #[must_use]
    pub fn new(per_second: Option<NonZeroU32>, burst: NonZeroU32) -> Self {
        let quota = per_second.map(|rate| Quota::per_second(rate).allow_burst(burst));
        let limiter = || quota.map(DefaultKeyedRateLimiter::keyed);
        Self { limiter: limiter(), returns: limiter(), clock: DefaultClock::default() }
    }

    /// Counts one request.
    ///
    /// # Errors
    /// [`Refused::RateLimited`] with the time to wait.
    pub fn count(&self, principal: &Principal) -> Result<(), Refused> {
        let Some(limiter) = &self.limiter else { return Ok(()) };
        limiter.check_key(principal).map_err(|until| {
            let wait = until.wait_time_from(self.clock.now());
            Refused::RateLimited { retry_after: wait.max(Duration::from_millis(1)) }
        })
    }

    /// Counts one request that gives access back. Returns whether it is within the rate: beyond it, it is
    /// still taken, put on record and done without the caller.
    #[must_use]
    pub fn count_return(&self, principal: &Principal) -> bool {
        self.returns.as_ref().is_none_or(|limiter| limiter.check_key(principal).is_ok())
    }

    /// Forgets principals that are quiet.
    pub fn sweep(&self) {
        for limiter in self.limiter.iter().chain(&self.returns) {
            limiter.retain_recent();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_of_one_workload_does_not_slow_another() {
        let limits = RateLimits::new(NonZeroU32::new(1), NonZeroU32::new(2).unwrap());
        let of = |workload: &str, subject: &str| Principal {
            issuer: "i".into(),
            workload: workload.into(),
            subject: subject.into(),
        };
        let who = |workload: &str| of(workload, "s");
        assert!(limits.count(&who("loop")).is_ok());
        assert!(limits.count(&who("loop")).is_ok());
        assert!(matches!(limits.count(&who("loop")), Err(Refused::RateLimited { .. })));
        assert!(limits.count(&who("calm")).is_ok());
        assert!(limits.count(&of("loop", "its namesake")).is_ok());
        // What is given back is counted apart, and never refused.
        assert!(limits.count_return(&who("loop")) && limits.count_return(&who("loop")));
        assert!(!limits.count_return(&who("loop")) && limits.count_return(&who("calm")));
    }
}
