//! Two clocks: the wall's, which anybody may set, and one that only goes forward.
//!
//! The broker speaks of times; what the client waits for are spans from the moment it was told. So a
//! clock that is set by an hour neither lets a lease lapse nor makes the client spin.

use std::pin::Pin;
use std::time::Duration;

use jiff::Timestamp;

/// A wait.
pub type Sleep = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Where the time comes from.
pub trait Clock: Send + Sync + 'static {
    /// The wall clock: only compared with the broker's at the moment of an answer.
    fn wall(&self) -> Timestamp;
    /// Time since some moment in the past. It never goes back, cannot be set, and goes on while the
    /// machine sleeps.
    fn steady(&self) -> Duration;
    /// Waits for so long, by the steady clock or about.
    fn sleep(&self, duration: Duration) -> Sleep {
        Box::pin(tokio::time::sleep(duration))
    }
}

/// The future's output, if it comes in time.
pub(crate) async fn within<T>(clock: &dyn Clock, time: Duration, future: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        output = future => Some(output),
        () = clock.sleep(time) => None,
    }
}

/// The machine's clocks.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn wall(&self) -> Timestamp {
        Timestamp::now()
    }

    fn steady(&self) -> Duration {
        // Monotonic alone stands still while the machine is suspended; the lease does not.
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
    }
}

/// How far apart two clocks may be and still count as telling the same time: the `Date` of an
/// answer has whole seconds.
const AGREES: i64 = 2;

/// The broker's time at the moment of an answer. Where both clocks agree ours is finer than the
/// header; where they do not, the header's second counts as over, so that nothing is kept too long.
pub(crate) fn broker_time(date: Option<Timestamp>, ours: Timestamp) -> Timestamp {
    match date {
        Some(date) if (date.as_second() - ours.as_second()).abs() > AGREES => {
            Timestamp::from_second(date.as_second().saturating_add(1)).unwrap_or(date)
        }
        _ => ours,
    }
}

/// From one time to a later one; zero when it is not later.
pub(crate) fn until(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or(Duration::ZERO)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap_or(Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn the_brokers_time_is_ours_unless_they_differ() {
        assert_eq!(broker_time(None, at(100)), at(100));
        assert_eq!(broker_time(Some(at(101)), at(100)), at(100));
        assert_eq!(broker_time(Some(at(3_700)), at(100)), at(3_701));
        assert_eq!(broker_time(Some(at(100)), at(3_700)), at(101));
    }

    #[test]
    fn spans_are_never_negative() {
        assert_eq!(until(at(5), at(8)), Duration::from_secs(3));
        assert_eq!(until(at(8), at(5)), Duration::ZERO);
    }

    #[test]
    fn the_steady_clock_goes_forward() {
        let first = SystemClock.steady();
        assert!(first > Duration::ZERO && SystemClock.steady() >= first);
    }
}
