//! What a storm was and what it found, as a table.

use std::fmt;
use std::time::Duration;

use super::Options;
use super::diary::Counts;
use super::log::Outcome;
use super::plan::Kind;

/// The promises, by their names in the table: each has its line also where it held.
const PROMISES: [&str; 17] = [
    "ghosts",
    "doubles",
    "accounts that were removed twice",
    "unrecorded secrets",
    "secrets that do not work",
    "quota breaches",
    "revoked leases that a broker takes",
    "logins after a revoke",
    "leases that are due and not removed",
    "leases that ended before their time",
    "live leases without an account",
    "live leases that have ended",
    "ends without a record",
    "answers without a reason",
    "answers that are no answers",
    "endings without a reason",
    "faults of the log",
];

/// The report of one storm.
#[derive(Debug, Clone)]
pub struct Report {
    /// What was wanted.
    pub options: Options,
    /// What happened.
    pub counts: Counts,
    /// What is there at the end.
    pub outcome: Outcome,
    /// How long the brokers took after the storm until nothing was due.
    pub settled: Duration,
}

impl Report {
    /// Whether each promise held.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.counts.broken.is_empty()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Options { brokers, length, seed } = self.options;
        writeln!(f, "storm: {brokers} brokers, {} s, seed {seed}\n", length.as_secs())?;
        let mut line = |name: &str, value: &dyn fmt::Display| writeln!(f, "| {name:<48} | {value:>8} |");
        line("faults", &"times")?;
        line("---", &"---:")?;
        for kind in Kind::ALL {
            line(kind.words(), &self.counts.faults.get(&kind).copied().unwrap_or_default())?;
        }
        let counts = &self.counts;
        line("not done: the broker was down", &counts.missed)?;
        line("brokers that were fenced, and ended", &counts.fenced)?;
        line("brokers that served again", &counts.restarts)?;
        line("starts that failed, and were tried again", &counts.failed_starts)?;
        line("clients that hung up", &counts.hang_ups)?;
        writeln!(f)?;
        let mut line = |name: &str, value: &dyn fmt::Display| writeln!(f, "| {name:<48} | {value:>8} |");
        line("answers", &"times")?;
        line("---", &"---:")?;
        for ((asked, answer), times) in &counts.answers {
            line(&format!("{asked}: {answer}"), times)?;
        }
        writeln!(f)?;
        let mut line = |name: &str, value: &dyn fmt::Display| writeln!(f, "| {name:<48} | {value:>8} |");
        line("at the end", &"number")?;
        line("---", &"---:")?;
        line("accounts made", &self.outcome.made)?;
        line("leases ended", &self.outcome.removed)?;
        line("leases live", &self.outcome.live)?;
        line("most leases at once under the quota", &self.outcome.at_once)?;
        line("logins that worked", &counts.logins)?;
        line("logins without an answer", &counts.logins_without_an_answer)?;
        line("accounts that differed from their lease", &self.outcome.drift)?;
        line("records in the log", &self.outcome.records)?;
        line("seconds until nothing was due", &self.settled.as_secs())?;
        writeln!(f)?;
        let mut line = |name: &str, value: &dyn fmt::Display| writeln!(f, "| {name:<48} | {value:>8} |");
        line("broken", &"times")?;
        line("---", &"---:")?;
        for promise in PROMISES {
            line(promise, &counts.broken.get(promise).map_or(0, |broken| broken.count))?;
        }
        for (promise, broken) in counts.broken.iter() {
            writeln!(f, "\n{promise}:")?;
            for example in &broken.examples {
                writeln!(f, "  {example}")?;
            }
        }
        if self.holds() {
            write!(f, "\nEvery promise held.")
        } else {
            write!(f, "\nBROKEN with seed {seed}: `cargo xtask storm --brokers {brokers} --seed {seed}` repeats it.")
        }
    }
}
