//! All cores at it: one thread reads, the others parse, ask and compare. What waits between them is
//! bounded, so memory does not grow with the log.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use anyhow::{Context as _, anyhow, bail};
use parking_lot::Mutex;

use super::candidate::Candidate;
use super::comparison::{Asking, Place, compare};
use super::record::{Decision, Filter, Read, Roles, Unfit, read};
use super::report::Tally;
use super::source::{Line, Lines, Source};

/// The most threads that ask: the runtime has room for so many policy calls, and then some.
const MOST_THREADS: usize = 32;

/// What is to be done.
pub struct Replay {
    /// Where the decisions are.
    pub source: Source,
    /// Which of them.
    pub filter: Filter,
    /// What is asked.
    pub subject: Subject,
}

/// What is asked about each decision.
pub enum Subject {
    /// What a candidate would have changed.
    Candidate {
        /// The candidate.
        candidate: Candidate,
        /// Where it stands in the chain.
        place: Place,
        /// Roles that targets have now.
        roles: Roles,
    },
    /// Whether these policies answer as the records say.
    Reproduce(Vec<Candidate>),
}

/// How far it is, for whoever waits; and how it is stopped.
#[derive(Debug, Default)]
pub struct Progress {
    /// Read so far, of [`Progress::total`].
    pub position: AtomicU64,
    /// Records of a store, bytes of a file; zero until it is open.
    pub total: AtomicU64,
    /// Decisions looked at.
    pub decisions: AtomicU64,
    /// Set to end it.
    pub stop: AtomicBool,
}

/// Replays. Blocks until all is done or `progress.stop` is set.
///
/// # Errors
/// When the source cannot be read, or it was stopped.
pub fn run(replay: &Replay, progress: &Progress) -> anyhow::Result<Tally> {
    let threads = thread::available_parallelism().map_or(1, std::num::NonZero::get).min(MOST_THREADS);
    let mut lines = Lines::open(&replay.source)?;
    progress.total.store(lines.total, Ordering::Relaxed);
    let (sender, receiver) = sync_channel(threads * 2);
    let receiver = Mutex::new(receiver);
    let (read, seen) = thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(|| work(replay, &receiver, progress))).collect();
        let read = send(&mut lines, sender, progress);
        let seen: Vec<_> = workers.into_iter().map(|worker| worker.join()).collect();
        (read, seen)
    });
    read?;
    let mut tally = Tally::default();
    for seen in seen {
        tally.merge(seen.map_err(|_| anyhow!("a thread of the replay failed"))?);
    }
    if progress.stop.load(Ordering::Relaxed) {
        bail!("stopped after {} decisions: nothing is concluded", tally.totals.decisions);
    }
    Ok(tally)
}

/// Reads to the end. The channel closes when this returns, and with it the workers end.
fn send(lines: &mut Lines, sender: SyncSender<Vec<Line>>, progress: &Progress) -> anyhow::Result<()> {
    while !progress.stop.load(Ordering::Relaxed) {
        let batch = lines.batch()?;
        progress.position.store(lines.position, Ordering::Relaxed);
        if batch.is_empty() {
            break;
        }
        // Nobody listens when all workers have failed: that is told where they are joined.
        if sender.send(batch).is_err() {
            break;
        }
    }
    Ok(())
}

fn work(replay: &Replay, receiver: &Mutex<Receiver<Vec<Line>>>, progress: &Progress) -> Tally {
    let mut tally = Tally::default();
    loop {
        let batch = receiver.lock().recv();
        let Ok(batch) = batch else { return tally };
        for line in batch {
            if progress.stop.load(Ordering::Relaxed) {
                break;
            }
            match read(&line.bytes, line.place, &replay.filter) {
                Read::Other => continue,
                Read::Unfit(unfit, at) => tally.unfit(unfit, at),
                Read::Decision(decision) => match &replay.subject {
                    Subject::Candidate { candidate, place, roles } => {
                        replay_one(&mut tally, &decision, candidate, place, roles);
                    }
                    Subject::Reproduce(policies) => {
                        tally.totals.decisions += 1;
                        reproduce(&mut tally, &decision, policies);
                    }
                },
            }
            progress.decisions.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn replay_one(tally: &mut Tally, decision: &Decision, candidate: &Candidate, place: &Place, roles: &Roles) {
    if !candidate.has_its_counts(&decision.input) {
        return tally.unfit(Unfit::NoCounts, decision.at.clone());
    }
    let decide = |input: &_| candidate.decide(input);
    let mut asking = Asking::new(decision, &decide);
    let effect = compare(&mut asking, place, roles);
    let (workload, target) = (&decision.input.workload, &decision.input.target);
    tally.effect(effect, &decision.at, workload, target, place.name());
    hold(tally, &mut asking, decision, candidate);
}

/// Every recorded answer of the same bytes as one of the policies here.
fn reproduce(tally: &mut Tally, decision: &Decision, policies: &[Candidate]) {
    let answered = || decision.answers.iter().map(|answer| &answer.record).filter(|record| !record.failed);
    let mut tried: Vec<&Candidate> = Vec::new();
    for policy in policies {
        // Two names with the same bytes are one policy.
        let again = tried.iter().any(|other| {
            other.plugin_sha256() == policy.plugin_sha256() && other.config_sha256() == policy.config_sha256()
        });
        if again || !answered().any(|record| policy.made(record)) {
            continue;
        }
        tried.push(policy);
        let decide = |input: &_| policy.decide(input);
        hold(tally, &mut Asking::new(decision, &decide), decision, policy);
    }
    let others = answered().filter(|record| !tried.iter().any(|policy| policy.made(record))).count();
    tally.totals.other_bytes += others as u64;
    if !tried.is_empty() {
        tally.totals.replayed += 1;
    }
}

/// Holds the policy to each recorded answer of its bytes. One that failed then did not answer.
fn hold(tally: &mut Tally, asking: &mut Asking<'_>, decision: &Decision, policy: &Candidate) {
    for record in decision.answers.iter().map(|answer| &answer.record) {
        if record.failed || !policy.made(record) {
            continue;
        }
        tally.totals.same_bytes += 1;
        let difference = match asking.told() {
            Ok(told) if record.says(&told) => continue,
            Ok(told) if record.verdict != told.verdict => format!("{} instead of {}", told.verdict, record.verdict),
            Ok(told) if record.reason != told.reason => {
                format!("reason {:?} instead of {:?}", told.reason, record.reason)
            }
            Ok(_) => "other obligations".to_owned(),
            Err(why) => format!("no answer ({why}) instead of {}", record.verdict),
        };
        let (workload, target) = (&decision.input.workload, &decision.input.target);
        tally.not_reproduced(&decision.at, workload, target, &record.name, &difference);
    }
}

/// Roles that targets have, from a configuration.
#[must_use]
pub fn roles_of(config: &jit_config::Config) -> Roles {
    config.targets.iter().map(|(name, target)| (name.to_string(), target.roles.keys().cloned().collect())).collect()
}

/// That there was something to replay: a gate that saw nothing must not pass.
///
/// # Errors
/// With what to look at.
pub fn something_replayed(tally: &Tally, place: Option<&Place>) -> anyhow::Result<()> {
    let totals = &tally.totals;
    if totals.replayed > 0 {
        return Ok(());
    }
    let why = match place {
        _ if totals.decisions == 0 => {
            "there is no recorded decision here: look at --since, --target, --workload and where the log is".to_owned()
        }
        Some(Place::Replaces(name)) if totals.not_concerned > 0 => format!(
            "no recorded decision has a policy {name}: is --name spelt as in the configuration? Without it the candidate is added to every chain"
        ),
        None if totals.other_bytes > 0 => {
            "no recorded answer is of the same component and configuration as a policy here".to_owned()
        }
        _ => "none of the decisions can be replayed".to_owned(),
    };
    Err(anyhow!("nothing was replayed")).context(why)
}
