//! What happens when: all faults of a storm, drawn from its seed before it begins, so that a run can be repeated.

use std::fmt;
use std::time::Duration;

use rand::RngExt as _;
use rand::rngs::StdRng;

/// When the first fault comes, in milliseconds.
const FIRST: u64 = 2_000;
/// How long it is calm between two faults, in milliseconds.
const CALM: std::ops::Range<u64> = 2_000..6_000;
/// Of how many faults one has another one beside it.
const TWO_AT_ONCE: u32 = 3;

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// kill -9 of a broker; its supervisor starts it again after the fault's length.
    Kill,
    /// SIGTERM of a broker, and a start after the fault's length.
    Stop,
    /// SIGSTOP of a broker for longer than its claims hold, then SIGCONT.
    Freeze,
    /// The link between a broker and the store ends its connections, and takes none.
    CutStore,
    /// The link between a broker and the store holds everything.
    HushStore,
    /// The link between a broker and the store is slow.
    SlowStore,
    /// As [`Self::CutStore`], to the target.
    CutTarget,
    /// As [`Self::HushStore`], to the target.
    HushTarget,
    /// As [`Self::SlowStore`], to the target.
    SlowTarget,
    /// The store's server stops in order, and starts after the fault's length.
    RestartStore,
    /// kill -9 of the postmaster of the store's server, and a start after the fault's length.
    CrashStore,
    /// The target's server is stopped for the fault's length.
    TargetAway,
}

/// What a fault strikes. Two faults at once strike different things.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Struck {
    Process(usize),
    StoreLink(usize),
    TargetLink(usize),
    Store,
    Target,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Kill,
        Self::Stop,
        Self::Freeze,
        Self::CutStore,
        Self::HushStore,
        Self::SlowStore,
        Self::CutTarget,
        Self::HushTarget,
        Self::SlowTarget,
        Self::RestartStore,
        Self::CrashStore,
        Self::TargetAway,
    ];

    /// Its name in the table.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Kill => "broker killed (-9)",
            Self::Stop => "broker stopped (-TERM)",
            Self::Freeze => "broker frozen (-STOP)",
            Self::CutStore => "link to the store cut",
            Self::HushStore => "link to the store silent",
            Self::SlowStore => "link to the store slow",
            Self::CutTarget => "link to the target cut",
            Self::HushTarget => "link to the target silent",
            Self::SlowTarget => "link to the target slow",
            Self::RestartStore => "store restarted",
            Self::CrashStore => "store killed (-9)",
            Self::TargetAway => "target away",
        }
    }

    /// How long it lasts, in milliseconds. A broker's claims hold for ten seconds.
    const fn lengths(self) -> std::ops::Range<u64> {
        match self {
            Self::Kill | Self::Stop | Self::RestartStore | Self::CrashStore => 0..6_000,
            Self::Freeze => 12_000..25_000,
            Self::CutStore | Self::CutTarget => 500..15_000,
            Self::HushStore | Self::HushTarget => 2_000..25_000,
            Self::SlowStore | Self::SlowTarget => 5_000..15_000,
            Self::TargetAway => 2_000..15_000,
        }
    }

    const fn strikes(self, broker: usize) -> Struck {
        match self {
            Self::Kill | Self::Stop | Self::Freeze => Struck::Process(broker),
            Self::CutStore | Self::HushStore | Self::SlowStore => Struck::StoreLink(broker),
            Self::CutTarget | Self::HushTarget | Self::SlowTarget => Struck::TargetLink(broker),
            Self::RestartStore | Self::CrashStore => Struck::Store,
            Self::TargetAway => Struck::Target,
        }
    }

    /// Whether it strikes one broker, and not all of them.
    #[must_use]
    pub const fn is_of_one_broker(self) -> bool {
        !matches!(self, Self::RestartStore | Self::CrashStore | Self::TargetAway)
    }
}

/// One fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// When it begins, since the storm began.
    pub at: Duration,
    /// What it is.
    pub kind: Kind,
    /// Which broker, where it strikes one; from 0.
    pub broker: usize,
    /// How long it lasts.
    pub length: Duration,
    /// How slow a slow link is.
    pub delay: Duration,
}

impl Fault {
    fn end(&self) -> Duration {
        self.at + self.length
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.kind.words())?;
        if self.kind.is_of_one_broker() {
            write!(f, ", broker {}", self.broker)?;
        }
        if matches!(self.kind, Kind::SlowStore | Kind::SlowTarget) {
            write!(f, ", {} ms each way", self.delay.as_millis())?;
        }
        write!(f, ", for {:.1} s", self.length.as_secs_f64())
    }
}

/// All faults of a storm of that length, by when they begin. Each kind comes once before any comes twice.
#[must_use]
pub fn draw(random: &mut StdRng, brokers: usize, length: Duration) -> Vec<Fault> {
    let mut faults = Vec::new();
    let (mut bag, mut at) = (Vec::new(), Duration::from_millis(FIRST));
    loop {
        let first = fault(random, &mut bag, brokers, at);
        let mut end = first.end();
        let beside = random.random_range(0..TWO_AT_ONCE) == 0;
        if end > length {
            return faults;
        }
        if beside {
            let within = u64::try_from(first.length.as_millis() / 2).unwrap_or_default();
            let begin = at + Duration::from_millis(random.random_range(0..=within));
            let second = fault(random, &mut bag, brokers, begin);
            let apart = first.kind.strikes(first.broker) != second.kind.strikes(second.broker);
            if apart && second.end() <= length {
                end = end.max(second.end());
                faults.push(second);
            } else {
                bag.push(second.kind);
            }
        }
        faults.push(first);
        faults.sort_by_key(|fault| fault.at);
        at = end + Duration::from_millis(random.random_range(CALM));
    }
}

fn fault(random: &mut StdRng, bag: &mut Vec<Kind>, brokers: usize, at: Duration) -> Fault {
    if bag.is_empty() {
        bag.extend(Kind::ALL);
    }
    let kind = bag.swap_remove(random.random_range(0..bag.len()));
    Fault {
        at,
        kind,
        broker: random.random_range(0..brokers),
        length: Duration::from_millis(random.random_range(kind.lengths())),
        delay: Duration::from_millis(random.random_range(20..300)),
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;

    fn drawn(seed: u64) -> Vec<Fault> {
        draw(&mut StdRng::seed_from_u64(seed), 3, Duration::from_secs(600))
    }

    #[test]
    fn one_seed_draws_the_same_storm_again_and_another_draws_another() {
        assert_eq!(drawn(7), drawn(7));
        assert_ne!(drawn(7), drawn(8));
    }

    #[test]
    fn ten_minutes_have_every_kind_and_end_in_time() {
        for seed in 0..50 {
            let faults = drawn(seed);
            for kind in Kind::ALL {
                assert!(faults.iter().any(|fault| fault.kind == kind), "seed {seed} has no {kind:?}");
            }
            assert!(faults.iter().all(|fault| fault.end() <= Duration::from_secs(600) && fault.broker < 3));
            assert!(faults.is_sorted_by_key(|fault| fault.at));
        }
    }

    #[test]
    fn at_most_two_strike_at_once_and_not_the_same_thing() {
        for seed in 0..50 {
            let faults = drawn(seed);
            for fault in &faults {
                let others =
                    faults.iter().filter(|other| *other != fault && other.at <= fault.at && fault.at < other.end());
                let others: Vec<&Fault> = others.collect();
                assert!(others.len() <= 1, "seed {seed}: {fault} beside {others:?}");
                let what = fault.kind.strikes(fault.broker);
                assert!(others.iter().all(|other| other.kind.strikes(other.broker) != what), "seed {seed}");
            }
        }
    }
}
