//! Rotating accounts: one account that stands, whose password the broker changes on a schedule.
//!
//! ```text
//!                  begin                staged                 discarded
//! (never) Stable ────────▶ Staging ───────────────▶ Overlapping ────────▶ Stable
//!                            │  ▲ the same password    (both passwords work)  │ begin, when the
//!                            └──┘ is staged again                             ▼ period is over
//! ```
//! Each state is durable before the next call to the backend: the next password is known before it
//! can take effect, so a crash or a lost reply at any point leaves a state from which the same step
//! is done again. The old password is discarded only when the overlap is over, and no rotation
//! begins before it is discarded: whoever was told how long a password works is not locked out.
//! For the same reason a password keeps the schedule that it was made with: a changed one holds from
//! the next password on.
//!
//! `S` is how the password is held; this module never looks into it.

use std::fmt;
use std::time::Duration;

use jiff::{RoundMode, Timestamp, TimestampRound, Unit};
use serde::{Deserialize, Serialize};

use crate::ttl::Ttl;

/// Which password of an account, counted from 1: the first that the broker has set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Generation(u64);

impl Generation {
    /// By its number, which a store or record has.
    #[must_use]
    pub const fn from_number(number: u64) -> Self {
        Self(number)
    }

    /// Its number.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0
    }

    fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    const fn is_none(&self) -> bool {
        self.0 == 0
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// When an account's password changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schedule {
    period: Ttl,
    overlap: Ttl,
}

/// The overlap is not shorter than the period: then a rotation would be due before the one before
/// it has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the overlap must be shorter than the period")]
pub struct ScheduleError;

impl Schedule {
    /// A new password each `period`; the old one works for another `overlap`.
    ///
    /// # Errors
    /// [`ScheduleError`] unless the overlap is shorter.
    pub fn new(period: Ttl, overlap: Ttl) -> Result<Self, ScheduleError> {
        if overlap < period { Ok(Self { period, overlap }) } else { Err(ScheduleError) }
    }

    /// From one rotation to the next.
    #[must_use]
    pub fn period(self) -> Ttl {
        self.period
    }

    /// How long the old password works beside the new one.
    #[must_use]
    pub fn overlap(self) -> Ttl {
        self.overlap
    }
}

/// A password and what is known of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held<S> {
    /// Which.
    pub generation: Generation,
    /// The password, as it is held.
    pub secret: S,
    /// Since when it is current, or was to become so: a whole second.
    pub since: Timestamp,
    /// What its end was said by.
    pub schedule: Schedule,
}

/// Where a rotation stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "phase")]
pub enum Phase<S> {
    /// Nothing is under way.
    Stable,
    /// The next password is decided on. It may or may not work already; the current one does.
    Staging {
        /// The next password.
        next: Held<S>,
        /// It replaces every other at once: the account is taken back from who changed it, or an
        /// operator wants the current password gone. The current one is not handed out any more.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        at_once: bool,
    },
    /// The new password is current; the one before still works.
    Overlapping {
        /// Until then, at least.
        until: Timestamp,
    },
}

/// An account's rotation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rotation<S> {
    /// The password that is handed out; none before the first rotation has ended.
    pub current: Option<Held<S>>,
    /// Where the rotation stands.
    #[serde(flatten)]
    pub phase: Phase<S>,
    /// An operator asked for a rotation before its time.
    #[serde(default)]
    pub asked: bool,
    /// Passwords up to this one were made before, but nothing trustworthy is known of them.
    #[serde(default, skip_serializing_if = "Generation::is_none")]
    pub forgotten: Generation,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Decide on the next password, durably.
    Begin,
    /// Have the backend take it.
    Stage,
    /// Have the backend take it in place of every other, and end the account's sessions.
    Replace,
    /// Have the backend drop the old one.
    Discard,
}

/// When what is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// At once.
    Now(Step),
    /// Nothing before this.
    At(Timestamp),
}

/// A step that the state does not allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a rotation that is {from} cannot {step}")]
pub struct StepError {
    /// The phase's word.
    pub from: &'static str,
    /// What was tried.
    pub step: &'static str,
}

impl<S> Default for Rotation<S> {
    /// Of an account that the broker never rotated.
    fn default() -> Self {
        Self { current: None, phase: Phase::Stable, asked: false, forgotten: Generation::default() }
    }
}

impl<S: Clone> Rotation<S> {
    /// Of an account of which nothing trustworthy is known, but that so many passwords were made before: the
    /// next one gets a number that none of them had.
    #[must_use]
    pub fn forgotten(up_to: Generation) -> Self {
        Self { forgotten: up_to, ..Self::default() }
    }

    /// The highest number that a password of this account has had.
    #[must_use]
    pub fn highest(&self) -> Generation {
        let current = self.current.as_ref().map_or(self.forgotten, |current| current.generation.max(self.forgotten));
        match &self.phase {
            Phase::Staging { next, .. } => next.generation.max(current),
            _ => current,
        }
    }

    /// The phase's word: `unknown` (never rotated), `stable`, `staging`, `overlapping`.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match (&self.phase, &self.current) {
            (Phase::Stable, None) => "unknown",
            (Phase::Stable, Some(_)) => "stable",
            (Phase::Staging { .. }, _) => "staging",
            (Phase::Overlapping { .. }, _) => "overlapping",
        }
    }

    /// What is to be done next, and when. `readable` says whether a held password can be used: one
    /// that was sealed with a key that is lost cannot.
    pub fn due(&self, now: Timestamp, readable: impl Fn(&Held<S>) -> bool) -> Due {
        match &self.phase {
            Phase::Staging { next, at_once: false } if readable(next) => Due::Now(Step::Stage),
            Phase::Staging { next, at_once: true } if readable(next) => Due::Now(Step::Replace),
            Phase::Staging { .. } => Due::Now(Step::Begin),
            Phase::Overlapping { until } if now < *until => Due::At(*until),
            Phase::Overlapping { .. } => Due::Now(Step::Discard),
            Phase::Stable => match self.current.as_ref().filter(|current| readable(current)) {
                Some(current) if !self.asked => {
                    let at = current.since + current.schedule.period.duration();
                    if now < at { Due::At(at) } else { Due::Now(Step::Begin) }
                }
                _ => Due::Now(Step::Begin),
            },
        }
    }

    /// The generation that the next password has.
    #[must_use]
    pub fn next_generation(&self) -> Generation {
        self.highest().next()
    }

    /// The next password is decided on: [`Rotation::next_generation`] is its number. A staged one
    /// that cannot be read any more is replaced.
    ///
    /// # Errors
    /// While an overlap is in progress: a second new password would end the oldest too early.
    pub fn begin(&self, secret: S, schedule: Schedule, now: Timestamp) -> Result<Self, StepError> {
        if let Phase::Overlapping { .. } = self.phase {
            return Err(StepError { from: self.word(), step: "begin" });
        }
        let next = Held { generation: self.next_generation(), secret, since: whole_second(now), schedule };
        let at_once = self.is_being_replaced();
        Ok(Self { phase: Phase::Staging { next, at_once }, ..self.clone() })
    }

    /// The account is to be taken back: the next password replaces all there are, without an overlap,
    /// whatever was under way. Whoever holds one of them loses it.
    #[must_use]
    pub fn take_back(&self, secret: S, schedule: Schedule, now: Timestamp) -> Self {
        let next = Held { generation: self.next_generation(), secret, since: whole_second(now), schedule };
        Self { phase: Phase::Staging { next, at_once: true }, asked: false, ..self.clone() }
    }

    /// Whether the current password is about to be replaced without an overlap, or is already.
    #[must_use]
    pub fn is_being_replaced(&self) -> bool {
        matches!(self.phase, Phase::Staging { at_once: true, .. })
    }

    /// When the old password may be discarded if the next one becomes current now: a whole second.
    #[must_use]
    pub fn overlap_end(&self, now: Timestamp) -> Timestamp {
        let next = match &self.phase {
            Phase::Staging { next, .. } => Some(next),
            _ => None,
        };
        // A password that the broker did not set gets the first one's overlap.
        let overlap = self.current.as_ref().or(next).map_or(0, |held| held.schedule.overlap.seconds());
        let end = now + Duration::from_secs(u64::from(overlap));
        end.round(TimestampRound::new().smallest(Unit::Second).mode(RoundMode::Ceil)).unwrap_or(end)
    }

    /// The backend has taken the next password: it is current, and the one before works until
    /// `until` ([`Rotation::overlap_end`] of a moment that is not past).
    ///
    /// # Errors
    /// When nothing is staged.
    pub fn staged(&self, now: Timestamp, until: Timestamp) -> Result<Self, StepError> {
        let Phase::Staging { next, at_once: false } = &self.phase else {
            return Err(StepError { from: self.word(), step: "be staged" });
        };
        let current = Held { since: whole_second(now), ..next.clone() };
        Ok(Self { current: Some(current), phase: Phase::Overlapping { until }, ..Self::default() })
    }

    /// The backend has taken the next password in place of all others.
    ///
    /// # Errors
    /// When nothing is to be replaced.
    pub fn replaced(&self, now: Timestamp) -> Result<Self, StepError> {
        let Phase::Staging { next, at_once: true } = &self.phase else {
            return Err(StepError { from: self.word(), step: "be replaced" });
        };
        let current = Held { since: whole_second(now), ..next.clone() };
        Ok(Self { current: Some(current), ..Self::default() })
    }

    /// The backend has dropped the old password.
    ///
    /// # Errors
    /// When no overlap is in progress.
    pub fn discarded(&self) -> Result<Self, StepError> {
        match self.phase {
            Phase::Overlapping { .. } => Ok(Self { phase: Phase::Stable, ..self.clone() }),
            _ => Err(StepError { from: self.word(), step: "discard" }),
        }
    }

    /// An operator wants a new password before its time: as soon as no overlap is in progress.
    #[must_use]
    pub fn ask(&self) -> Self {
        let under_way = matches!(self.phase, Phase::Staging { .. });
        Self { asked: !under_way, ..self.clone() }
    }

    /// When the next rotation is to begin, as far as is known now; it may be late.
    #[must_use]
    pub fn next_at(&self) -> Option<Timestamp> {
        let current = self.current.as_ref()?;
        let planned = current.since + current.schedule.period.duration();
        Some(match &self.phase {
            Phase::Staging { next, .. } => planned.min(next.since),
            Phase::Overlapping { until } if self.asked => planned.min(*until),
            Phase::Stable if self.asked => planned.min(current.since),
            _ => planned,
        })
    }

    /// Until when the current password works for certain, said at `now`: the overlap begins at the
    /// next rotation, which may be late but not early. A whole second. None before the first rotation.
    #[must_use]
    pub fn usable_until(&self, now: Timestamp) -> Option<Timestamp> {
        if self.is_being_replaced() {
            return None;
        }
        let rotation = self.next_at()?.max(whole_second(now));
        Some(rotation + self.current.as_ref()?.schedule.overlap.duration())
    }

    /// Until when that password works for certain; none when it is discarded.
    #[must_use]
    pub fn ends(&self, generation: Generation, now: Timestamp) -> Option<Timestamp> {
        let current = self.current.as_ref()?;
        if generation == current.generation {
            return self.usable_until(now);
        }
        let previous = generation.next() == current.generation;
        self.previous_valid_until().filter(|until| previous && now < *until)
    }

    /// Until when the password before the current one works; none when it is discarded.
    #[must_use]
    pub fn previous_valid_until(&self) -> Option<Timestamp> {
        match self.phase {
            Phase::Overlapping { until } => Some(until),
            _ => None,
        }
    }
}

/// Down to the whole second: what is promised to hold is never said to hold longer.
fn whole_second(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

#[cfg(test)]
#[path = "rotation_tests.rs"]
mod tests;
