//! The time that leases go by: the wall clock, as long as it goes on as the monotonic one does (BRAKE).
//!
//! A wall clock that jumps (a bad time server, a virtual machine that was asleep, a hand) would end every lease
//! at once, or keep all of them alive. So leases go by what the wall clock showed before, carried on by the
//! monotonic clock, until the jump is known to be right:
//!
//! - a jump *forward* is taken for right when it has lasted five minutes: time has passed that this
//!   machine did not see. Until then nothing expires early; what the targets expire by themselves, they do.
//! - a jump *backward* is never taken for right by itself: leases end when their time is over, as the
//!   monotonic clock counts it. An operator confirms it, or a restart does.
//!
//! New leases go by the same time, so that they are as long as they say. Tokens are not refused meanwhile:
//! that would make an outage of each jump, and a token's own times are checked by the wall clock.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::ports::{Clock, SystemClock};

/// What the clocks may differ between two looks. Time servers slew by less.
const LEEWAY: SignedDuration = SignedDuration::from_secs(10);
/// How long a jump forward has to last.
const PERSISTS: Duration = Duration::from_secs(300);

/// Both clocks at one moment.
#[derive(Debug, Clone, Copy)]
struct Pair {
    wall: Timestamp,
    monotonic: Instant,
}

impl Pair {
    fn of(clock: &dyn Clock) -> Self {
        Self { wall: clock.wall(), monotonic: clock.monotonic() }
    }

    /// What the wall clock would show at that moment, had it gone on.
    fn carried_to(self, monotonic: Instant) -> Timestamp {
        let passed = monotonic.saturating_duration_since(self.monotonic);
        self.wall.checked_add(passed).unwrap_or(Timestamp::MAX)
    }
}

/// A jump of the wall clock that leases do not go by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Jump {
    /// By how much the wall clock is ahead, or behind where it is negative.
    pub by: SignedDuration,
    /// Since when, by the monotonic clock.
    since: Instant,
}

/// What a look found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// Nothing new.
    Same,
    /// The wall clock has jumped just now.
    Jumped(SignedDuration),
    /// It has jumped back: leases go by it again.
    Back,
    /// A jump forward has lasted: leases go by the wall clock again.
    Taken(SignedDuration),
}

#[derive(Debug)]
struct State {
    /// The last moment at which both clocks agreed.
    agreed: Pair,
    jump: Option<Jump>,
}

impl State {
    fn look(&mut self, now: Pair) -> Look {
        let carried = self.agreed.carried_to(now.monotonic);
        let by = now.wall.duration_since(carried);
        if by.abs() <= LEEWAY {
            // What the clock is slewed by is followed.
            self.agreed = now;
            return if self.jump.take().is_some() { Look::Back } else { Look::Same };
        }
        let Some(jump) = &mut self.jump else {
            self.jump = Some(Jump { by, since: now.monotonic });
            return Look::Jumped(by);
        };
        if (jump.by - by).abs() > LEEWAY {
            // Another jump: it has to last for itself.
            *jump = Jump { by, since: now.monotonic };
            return Look::Jumped(by);
        }
        let lasts = now.monotonic.saturating_duration_since(jump.since) >= PERSISTS;
        if by.is_positive() && lasts {
            self.agreed = now;
            self.jump = None;
            return Look::Taken(by);
        }
        Look::Same
    }

    fn time(&self, monotonic: Instant, wall: Timestamp) -> Timestamp {
        let carried = self.agreed.carried_to(monotonic);
        // Between two looks the wall clock is believed within the leeway only.
        if (wall.duration_since(carried)).abs() <= LEEWAY { wall } else { carried }
    }
}

/// The time that leases go by.
#[derive(Debug)]
pub struct LeaseClock {
    source: Arc<dyn Clock>,
    state: Mutex<State>,
}

impl Default for LeaseClock {
    /// By the clocks of this machine.
    fn default() -> Self {
        Self::new(Arc::new(SystemClock))
    }
}

impl LeaseClock {
    /// Begins with what the wall clock shows.
    #[must_use]
    pub fn new(source: Arc<dyn Clock>) -> Self {
        let agreed = Pair::of(&*source);
        Self { source, state: Mutex::new(State { agreed, jump: None }) }
    }

    /// What the wall clock shows: for the times in records, which leases do not go by.
    #[must_use]
    pub fn wall(&self) -> Timestamp {
        self.source.wall()
    }

    fn state(&self) -> parking_lot::MutexGuard<'_, State> {
        self.state.lock()
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        let Pair { wall, monotonic } = Pair::of(&*self.source);
        self.state().time(monotonic, wall)
    }

    /// Compares both clocks: to be called every few seconds.
    pub fn look(&self) -> Look {
        let now = Pair::of(&*self.source);
        self.state().look(now)
    }

    /// The jump that leases do not go by, if there is one.
    #[must_use]
    pub fn jump(&self) -> Option<Jump> {
        self.state().jump
    }

    /// An operator says that the wall clock is right; gives by how much it had jumped.
    pub fn confirm(&self) -> Option<SignedDuration> {
        let mut state = self.state();
        let jump = state.jump.take();
        state.agreed = Pair::of(&*self.source);
        jump.map(|jump| jump.by)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A world with two clocks.
    struct World {
        state: State,
        now: Pair,
    }

    impl World {
        fn new() -> Self {
            let now = Pair { wall: Timestamp::from_second(1_800_000_000).unwrap(), monotonic: Instant::now() };
            Self { state: State { agreed: now, jump: None }, now }
        }

        /// Time passes, with a look every five seconds; gives what was found at the end.
        fn pass(&mut self, seconds: u64) -> Look {
            let mut last = Look::Same;
            for _ in 0..seconds.div_ceil(5) {
                let step = Duration::from_secs(5);
                self.now = Pair { wall: self.now.wall + step, monotonic: self.now.monotonic + step };
                last = self.state.look(self.now);
            }
            last
        }

        fn jump(&mut self, seconds: i64) -> Look {
            self.now.wall += SignedDuration::from_secs(seconds);
            self.state.look(self.now)
        }

        fn time(&self) -> Timestamp {
            self.state.time(self.now.monotonic, self.now.wall)
        }
    }

    #[test]
    fn a_clock_that_goes_on_is_followed_and_so_is_one_that_is_slewed() {
        let mut world = World::new();
        for _ in 0..1_000 {
            world.now.wall += SignedDuration::from_millis(20);
            assert_eq!(world.pass(5), Look::Same);
        }
        assert_eq!(world.time(), world.now.wall);
    }

    #[test]
    fn a_jump_forward_ends_nothing_until_it_has_lasted() {
        let mut world = World::new();
        world.pass(60);
        let before = world.time();
        assert_eq!(world.jump(86_400), Look::Jumped(SignedDuration::from_secs(86_400)));
        assert_eq!(world.time(), before, "nothing has expired");
        assert_eq!(world.pass(120), Look::Same);
        assert_eq!(world.time(), before + Duration::from_secs(120), "what is due meanwhile is due");
        assert_eq!(world.pass(PERSISTS.as_secs() - 120), Look::Taken(SignedDuration::from_secs(86_400)));
        assert_eq!(world.time(), world.now.wall);
    }

    #[test]
    fn a_jump_backward_prolongs_nothing_however_long_it_lasts() {
        let mut world = World::new();
        let before = world.time();
        assert!(matches!(world.jump(-3_600), Look::Jumped(_)));
        assert_eq!(world.pass(86_400), Look::Same);
        assert_eq!(world.time(), before + Duration::from_secs(86_400));
        assert_eq!(world.jump(3_600), Look::Back);
        assert_eq!(world.time(), world.now.wall);
    }

    #[test]
    fn a_jump_that_is_undone_leaves_no_trace_and_another_one_has_to_last_for_itself() {
        let mut world = World::new();
        world.jump(7_200);
        world.pass(200);
        assert!(matches!(world.jump(7_200), Look::Jumped(by) if by == SignedDuration::from_secs(14_400)));
        assert_eq!(world.pass(200), Look::Same, "it has lasted 200 s, not 400");
        assert_eq!(world.jump(-14_400), Look::Back);
        assert_eq!((world.time(), world.state.jump), (world.now.wall, None));
    }

    #[test]
    fn between_two_looks_a_jump_is_not_believed_either() {
        let mut world = World::new();
        let before = world.time();
        world.now.wall += SignedDuration::from_hours(24);
        assert_eq!(world.time(), before);
    }

    #[test]
    fn an_operator_ends_it() {
        let clock = LeaseClock::default();
        assert_eq!((clock.look(), clock.jump(), clock.confirm()), (Look::Same, None, None));
        let hour = SignedDuration::from_hours(1);
        clock.state().agreed.wall -= hour;
        assert!(matches!(clock.look(), Look::Jumped(_)));
        assert!(Timestamp::now().duration_since(clock.now()) > hour / 2, "not by the wall clock");
        assert!(clock.confirm().is_some_and(|by| by > hour / 2));
        assert!(Timestamp::now().duration_since(clock.now()) < hour / 2);
    }
}
