//! What happened in a storm, while it happens: counts, and each promise that was found broken.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::plan::{Fault, Kind};

/// How many sentences are kept of one broken promise: what broke once often broke a thousand times.
const EXAMPLES: usize = 5;

/// What was found broken, and how often.
#[derive(Debug, Default, Clone)]
pub struct Broken {
    /// How often.
    pub count: u64,
    /// The first of them, in words.
    pub examples: Vec<String>,
}

/// Counts of a storm.
#[derive(Debug, Default, Clone)]
pub struct Counts {
    /// Faults by kind.
    pub faults: BTreeMap<Kind, u64>,
    /// Faults that found nothing to strike: the broker was down already.
    pub missed: u64,
    /// Answers by what was asked and how it was answered: `("issue", "503 target-unavailable")`.
    pub answers: BTreeMap<(String, String), u64>,
    /// Brokers that came up again.
    pub restarts: u64,
    /// Starts that failed, and were tried again.
    pub failed_starts: u64,
    /// Brokers that ended because their leases were taken over.
    pub fenced: u64,
    /// Requests whose client went away.
    pub hang_ups: u64,
    /// Logins with a secret that had to work, and did.
    pub logins: u64,
    /// Logins that said nothing, since the target was away.
    pub logins_without_an_answer: u64,
    /// What was found broken, by its name in the table.
    pub broken: BTreeMap<&'static str, Broken>,
}

/// The diary of one storm. What happens is printed with its second.
pub struct Diary {
    seed: u64,
    begun: Instant,
    counts: Mutex<Counts>,
}

impl Diary {
    /// An empty one; the storm's clock begins now.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { seed, begun: Instant::now(), counts: Mutex::default() }
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The counts so far.
    #[must_use]
    pub fn snapshot(&self) -> Counts {
        self.counts().clone()
    }

    /// Prints a line with the second and the seed.
    #[allow(clippy::print_stderr, reason = "who waits for ten minutes sees what happens")]
    pub fn say(&self, line: &str) {
        eprintln!("{:7.1} s  seed {}  {line}", self.begun.elapsed().as_secs_f64(), self.seed);
    }

    /// A fault begins.
    pub fn begins(&self, fault: &Fault) {
        self.say(&fault.to_string());
        *self.counts().faults.entry(fault.kind).or_default() += 1;
    }

    /// A fault found nothing to strike.
    pub fn missed(&self, fault: &Fault) {
        self.say(&format!("{fault}: not done, the broker is down"));
        self.counts().missed += 1;
    }

    /// A fault is over.
    pub fn heals(&self, fault: &Fault) {
        self.say(&format!("over: {fault}"));
    }

    /// A broker serves again.
    pub fn restarted(&self, broker: usize) {
        self.say(&format!("broker {broker} serves again"));
        self.counts().restarts += 1;
    }

    /// A broker did not start.
    pub fn start_failed(&self, broker: usize, why: &str) {
        self.say(&format!("broker {broker} did not start, and is started again: {why}"));
        self.counts().failed_starts += 1;
    }

    /// A broker ended as it was asked to.
    pub fn stopped(&self, broker: usize, status: &str) {
        self.say(&format!("broker {broker} has stopped ({status})"));
    }

    /// A broker ended because others had taken its leases over.
    pub fn fenced(&self, broker: usize) {
        self.say(&format!("broker {broker} was fenced, has ended and is started again"));
        self.counts().fenced += 1;
    }

    /// An answer, or none.
    pub fn answered(&self, asked: &str, answer: &str) {
        *self.counts().answers.entry((asked.to_owned(), answer.to_owned())).or_default() += 1;
    }

    /// A client went away in the middle of its request.
    pub fn hung_up(&self) {
        self.counts().hang_ups += 1;
    }

    /// A login that had to work did, or the target did not answer.
    pub fn logged_in(&self, answered: bool) {
        let mut counts = self.counts();
        *(if answered { &mut counts.logins } else { &mut counts.logins_without_an_answer }) += 1;
    }

    /// A promise is broken.
    pub fn broken(&self, what: &'static str, how: String) {
        self.say(&format!("BROKEN: {what}: {how}"));
        let mut counts = self.counts();
        let broken = counts.broken.entry(what).or_default();
        broken.count += 1;
        if broken.examples.len() < EXAMPLES {
            broken.examples.push(how);
        }
    }
}
