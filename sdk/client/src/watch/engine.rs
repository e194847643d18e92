//! The task behind a watch: waits, renews, tries again, retires, gives back.

use std::sync::Arc;
use std::time::Duration;

use jit_api::{IssueRequest as Request, Length};
use tokio::sync::{mpsc, watch};

use super::plan::{Deadlines, Step};
use super::{Alert, AlertHook, AlertKind, Retire, Rotation, Snapshot, State};
use crate::backoff::{Bursts, Schedule};
use crate::client::{Client, IdempotencyKey};
use crate::clock::{Clock, within};
use crate::credential::{Credential, Lease};
use crate::error::Error;

/// The longest sleep in one go: the timer stands still while the machine sleeps, the lease does not.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);
/// Leases of former accounts that are kept in mind at most; more only if accounts change faster than
/// they end, and those end by themselves.
const MOST_RETIRED: usize = 16;

/// What the engine asks of a broker.
pub(super) trait Ask: Send + Sync + 'static {
    fn issue(&self, request: &Request, key: &IdempotencyKey) -> impl Future<Output = Result<Credential, Error>> + Send;
    fn renew(&self, lease_id: &str, ttl: Option<Length>) -> impl Future<Output = Result<Lease, Error>> + Send;
    /// Gives leases back; one that the broker does not know any more is given back.
    fn revoke(&self, leases: &[String]) -> impl Future<Output = Result<(), Error>> + Send;
}

impl Ask for Client {
    async fn issue(&self, request: &Request, key: &IdempotencyKey) -> Result<Credential, Error> {
        Self::issue(self, request, key).await
    }

    async fn renew(&self, lease_id: &str, ttl: Option<Length>) -> Result<Lease, Error> {
        Self::renew(self, lease_id, ttl).await
    }

    async fn revoke(&self, leases: &[String]) -> Result<(), Error> {
        self.revoke_all(leases).await.map(drop)
    }
}

/// From the handle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Command {
    /// A new account now.
    Rotate,
    /// The end.
    Close,
}

pub(super) struct Settings {
    pub(super) request: Request,
    pub(super) rotation: Rotation,
    pub(super) retire: Retire,
    pub(super) schedule: Option<Schedule>,
    pub(super) most_wait: Option<Duration>,
    pub(super) alert: Option<AlertHook>,
    pub(super) revoke: bool,
    pub(super) close_deadline: Duration,
}

/// A lease whose account was replaced.
struct Retired {
    lease_id: String,
    /// Given back then, if ever; by the steady clock.
    revoke_at: Option<Duration>,
    /// Over by itself.
    ends: Duration,
}

/// Why a wait is over.
#[derive(Debug, PartialEq, Eq)]
enum Woken {
    Time,
    Rotate,
    Close,
}

pub(super) struct Engine<B> {
    broker: B,
    clock: Arc<dyn Clock>,
    settings: Settings,
    snapshots: watch::Sender<Snapshot>,
    commands: mpsc::Receiver<Command>,
    lease: Lease,
    deadlines: Deadlines,
    /// The last renewal did not move the lease's end.
    stuck: bool,
    /// Trouble was told and is not over.
    told: Option<AlertKind>,
    told_expired: bool,
    retired: Vec<Retired>,
}

impl<B: Ask> Engine<B> {
    pub(super) fn new(
        broker: B,
        clock: Arc<dyn Clock>,
        settings: Settings,
        snapshots: watch::Sender<Snapshot>,
        commands: mpsc::Receiver<Command>,
    ) -> Self {
        let lease = snapshots.borrow().lease.clone();
        let deadlines = Deadlines::of(&lease, &*clock, rand::random(), settings.most_wait);
        Self {
            broker,
            clock,
            settings,
            snapshots,
            commands,
            lease,
            deadlines,
            stuck: false,
            told: None,
            told_expired: false,
            retired: Vec::new(),
        }
    }

    /// Until the handle closes it, or is gone.
    pub(super) async fn run(mut self) -> Result<(), Error> {
        loop {
            let step = match self.wait_until(self.deadlines.due).await {
                Woken::Close => break,
                Woken::Rotate => Step::issue(),
                Woken::Time => Step::of(&self.lease, self.settings.rotation, self.stuck),
            };
            if self.carry_out(step).await == Woken::Close {
                break;
            }
        }
        self.finish().await
    }

    /// One step, tried until it is done; [`Woken::Close`] when it is to end meanwhile.
    async fn carry_out(&mut self, mut step: Step) -> Woken {
        let schedule = self.settings.schedule.unwrap_or_else(|| Schedule::for_term(self.lease.length()));
        let mut bursts = Bursts::new(schedule);
        self.publish(|snapshot| {
            if snapshot.state == State::Fresh {
                snapshot.state = State::Renewing;
            }
        });
        loop {
            if step == Step::Renew && self.clock.steady() >= self.deadlines.expires {
                step = Step::issue();
            }
            let error = match self.attempt(&step).await {
                Some(Ok(())) => return Woken::Time,
                Some(Err(error)) => error,
                None => return Woken::Close,
            };
            let after = step.after(&error);
            step = after.step;
            let detail = error.chain();
            tracing::debug!(target = self.settings.request.target, error = detail, "the attempt failed");
            self.publish(|snapshot| {
                snapshot.failures += 1;
                snapshot.last_error = Some(detail.clone());
            });
            if after.at_once {
                continue;
            }
            let next = bursts.failed(error.retry_after(), after.hopeless);
            if next.exhausted {
                self.publish(|snapshot| {
                    if snapshot.state != State::Expired {
                        snapshot.state = State::AtRisk;
                    }
                });
                let kind = if after.hopeless { AlertKind::BrokerRefuses } else { AlertKind::BrokerUnreachable };
                if self.told != Some(kind) {
                    self.told = Some(kind);
                    self.tell(kind, detail);
                }
            }
            match self.wait_until(self.clock.steady() + next.wait).await {
                Woken::Close => return Woken::Close,
                // It is being asked for as fast as it may be; only the kind of step can change.
                Woken::Rotate if step == Step::Renew => step = Step::issue(),
                Woken::Rotate | Woken::Time => {}
            }
        }
    }

    /// None when it is to end; then an attempt that runs gets some time to finish, so that what it
    /// made is known and given back.
    async fn attempt(&mut self, step: &Step) -> Option<Result<(), Error>> {
        let (answer, closing) = {
            let Self { broker, commands, settings, lease, clock, .. } = &mut *self;
            let request = &settings.request;
            let ask = async {
                match step {
                    Step::Renew => {
                        let renewed = broker.renew(&lease.lease_id, request.ttl.clone()).await;
                        renewed.map(|lease| Got::Renewed(Box::new(lease)))
                    }
                    Step::Issue(key) => {
                        broker.issue(request, key).await.map(|credential| Got::Issued(Box::new(credential)))
                    }
                }
            };
            tokio::pin!(ask);
            let closed = async {
                // A wish for a new account while one is being made is granted.
                while let Some(Command::Rotate) = commands.recv().await {}
            };
            tokio::select! {
                biased;
                answer = &mut ask => (answer, false),
                () = closed => match within(&**clock, settings.close_deadline / 4, &mut ask).await {
                    Some(answer) => (answer, true),
                    None => return None,
                },
            }
        };
        let result = answer.map(|got| match got {
            Got::Renewed(lease) => self.renewed(*lease),
            Got::Issued(credential) => self.issued(*credential),
        });
        if closing { None } else { Some(result) }
    }

    fn renewed(&mut self, lease: Lease) {
        let moved = crate::clock::until(self.lease.term.expires_at, lease.term.expires_at);
        self.stuck = moved < self.lease.length() / 10;
        self.lease = lease;
        self.started_anew();
        self.publish(|snapshot| snapshot.renewals += 1);
    }

    fn issued(&mut self, credential: Credential) {
        let now = self.clock.steady();
        let revoke_at = match self.settings.retire {
            Retire::AtItsEnd => None,
            Retire::After(grace) => Some(now.saturating_add(grace)),
        };
        let before = std::mem::replace(&mut self.lease, credential.lease.clone());
        let ends = self.deadlines.expires;
        // The same lease again is no other account: a lost answer that was repeated.
        if before.lease_id != self.lease.lease_id && ends > now && self.retired.len() < MOST_RETIRED {
            self.retired.push(Retired { lease_id: before.view.lease_id, revoke_at, ends });
        }
        self.stuck = false;
        self.started_anew();
        let credential = Arc::new(credential);
        self.publish(|snapshot| {
            snapshot.generation += 1;
            snapshot.credential = Some(credential);
        });
    }

    /// A new term.
    fn started_anew(&mut self) {
        self.deadlines = Deadlines::of(&self.lease, &*self.clock, rand::random(), self.settings.most_wait);
        let now = self.clock.steady();
        if self.deadlines.due <= now {
            // A renewal that is due at once (an answer that was repeated late, a cap that is near) must not spin.
            let rest = self.deadlines.expires.saturating_sub(now);
            self.deadlines.due = now + (rest / 2).max(Duration::from_millis(200));
        }
        self.told_expired = false;
        if let Some(kind) = self.told.take() {
            self.tell(AlertKind::Recovered, format!("after {}", kind.as_str()));
        }
        let lease = self.lease.clone();
        self.publish(|snapshot| {
            snapshot.lease = lease;
            snapshot.state = State::Fresh;
            snapshot.last_error = None;
        });
    }

    /// Waits for a time, and does meanwhile what comes due: marks the expiry, gives back what is
    /// retired.
    async fn wait_until(&mut self, until: Duration) -> Woken {
        loop {
            let now = self.clock.steady();
            self.mark_expiry(now);
            self.retire(now).await;
            if now >= until {
                return Woken::Time;
            }
            let mut next = until.min(now + LONGEST_SLEEP);
            if !self.told_expired {
                next = next.min(self.deadlines.expires);
            }
            for at in self.retired.iter().filter_map(|retired| retired.revoke_at) {
                next = next.min(at.max(now + Duration::from_millis(100)));
            }
            tokio::select! {
                () = self.clock.sleep(next.saturating_sub(now)) => {}
                command = self.commands.recv() => match command {
                    Some(Command::Rotate) => return Woken::Rotate,
                    Some(Command::Close) | None => return Woken::Close,
                },
            }
        }
    }

    fn mark_expiry(&mut self, now: Duration) {
        if now < self.deadlines.expires || self.told_expired {
            return;
        }
        self.told_expired = true;
        self.publish(|snapshot| snapshot.state = State::Expired);
        let detail =
            self.snapshots.borrow().last_error.clone().unwrap_or_else(|| "it was not renewed in time".to_owned());
        self.told.get_or_insert(AlertKind::CredentialExpired);
        self.tell(AlertKind::CredentialExpired, detail);
    }

    /// Gives back the former leases that are due, and forgets those that are over.
    async fn retire(&mut self, now: Duration) {
        self.retired.retain(|retired| retired.ends > now);
        let due: Vec<String> = self
            .retired
            .iter()
            .filter(|retired| retired.revoke_at.is_some_and(|at| at <= now))
            .map(|retired| retired.lease_id.clone())
            .collect();
        self.retired.retain(|retired| !due.contains(&retired.lease_id));
        if due.is_empty() {
            return;
        }
        // Once: a lease that cannot be given back ends at its time.
        match within(&*self.clock, self.settings.close_deadline, self.broker.revoke(&due)).await {
            Some(Ok(())) => {}
            Some(Err(error)) => tracing::warn!(?due, error = error.chain(), "former leases were not given back"),
            None => tracing::warn!(?due, "former leases were not given back in time"),
        }
    }

    /// Gives everything back.
    async fn finish(self) -> Result<(), Error> {
        let mut result = Ok(());
        if self.settings.revoke {
            let retired = self.retired.iter().map(|retired| retired.lease_id.clone());
            let leases: Vec<String> = retired.chain([self.lease.lease_id.clone()]).collect();
            let given = self.broker.revoke(&leases);
            result = match within(&*self.clock, self.settings.close_deadline, given).await {
                Some(result) => result,
                None => Err(Error::GaveUp {
                    attempts: 1,
                    after: self.settings.close_deadline,
                    last: Box::new(Error::Config(
                        "the lease was not given back in time; it ends at its time".to_owned(),
                    )),
                }),
            };
            if let Err(error) = &result {
                tracing::warn!(error = error.chain(), "not every lease was given back; they end at their time");
            }
        }
        self.publish(|snapshot| snapshot.state = State::Closed);
        result
    }

    fn publish(&self, change: impl FnOnce(&mut Snapshot)) {
        self.snapshots.send_modify(change);
    }

    fn tell(&self, kind: AlertKind, detail: String) {
        let target = self.settings.request.target.clone();
        let remaining = self.deadlines.expires.saturating_sub(self.clock.steady());
        match kind {
            AlertKind::Recovered => tracing::info!(target, detail, "{}", kind.as_str()),
            _ => tracing::error!(target, detail, remaining_seconds = remaining.as_secs(), "{}", kind.as_str()),
        }
        if let Some(hook) = &self.settings.alert {
            hook(&Alert { kind, target, remaining, detail });
        }
    }
}

enum Got {
    Renewed(Box<Lease>),
    Issued(Box<Credential>),
}

#[cfg(test)]
#[path = "engine_tests.rs"]
mod tests;
