//! A credential that stays good: renewed in time, replaced where it cannot be, given back at the end.

mod engine;
mod plan;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jit_api::IssueRequest as Request;
use tokio::sync::{mpsc, watch};

use crate::backoff::Schedule;
use crate::client::{Client, FetchOptions};
use crate::credential::{Credential, Lease};
use crate::error::Error;
use engine::{Command, Engine};

/// How long giving back may take by default.
const CLOSE_DEADLINE: Duration = Duration::from_secs(5);

/// What is done at 80 % of a term.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Rotation {
    /// The lease is renewed: the account and its open sessions stay, until the lease cannot be prolonged any
    /// further; then a new account is made. The default: the fewest changes.
    #[default]
    RenewLease,
    /// A new account each time: no secret is older than a term.
    NewAccount,
}

/// What happens to the lease before, once there is a new account.
///
/// When a lease ends, the broker removes its account, and open sessions with it. So the old one is left as long as
/// it lasts, a fifth of its term, by default: what is under way can finish.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Retire {
    /// It ends by itself.
    #[default]
    AtItsEnd,
    /// It is given back after so long, where it has not ended by then.
    After(Duration),
}

/// How good the credential is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Good, and not yet due.
    Fresh,
    /// Good; its renewal is under way.
    Renewing,
    /// Good for the rest of its term only: a burst of attempts has failed.
    AtRisk,
    /// Over. It is being asked for all the same.
    Expired,
    /// Given back.
    Closed,
}

impl State {
    /// The word for logs and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::Renewing => "renewing",
            Self::AtRisk => "at-risk",
            Self::Expired => "expired",
            Self::Closed => "closed",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What somebody should be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AlertKind {
    /// A burst of attempts has failed: no answer, or none that helps.
    BrokerUnreachable,
    /// The broker says no, and will go on saying so until somebody changes something.
    BrokerRefuses,
    /// The credential is over and there is no other.
    CredentialExpired,
    /// There is a good one again, after one of the others.
    Recovered,
}

impl AlertKind {
    /// The name that alerts are known by.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BrokerUnreachable => "jit-broker-unreachable",
            Self::BrokerRefuses => "jit-broker-refuses",
            Self::CredentialExpired => "jit-credential-expired",
            Self::Recovered => "jit-broker-recovered",
        }
    }
}

/// An alert; each is told once until things are well again.
#[derive(Debug, Clone)]
pub struct Alert {
    /// What it is.
    pub kind: AlertKind,
    /// The target it is about.
    pub target: String,
    /// How long the present credential is still good.
    pub remaining: Duration,
    /// What happened, without secrets.
    pub detail: String,
}

pub(crate) type AlertHook = Arc<dyn Fn(&Alert) + Send + Sync>;

/// A moment of a watch.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The lease, as last renewed.
    pub lease: Lease,
    /// The credential; none where only its lease was adopted, until there is a new account.
    pub credential: Option<Arc<Credential>>,
    /// How good it is.
    pub state: State,
    /// Counts the accounts: it changes when and only when there is another one.
    pub generation: u64,
    /// Counts the renewals of leases.
    pub renewals: u64,
    /// Counts the attempts that failed.
    pub failures: u64,
    /// The last failure since the last success.
    pub last_error: Option<String>,
}

/// Settings of a watch.
#[derive(Clone)]
pub struct WatchBuilder {
    client: Client,
    request: Request,
    rotation: Rotation,
    retire: Retire,
    startup: FetchOptions,
    schedule: Option<Schedule>,
    most_wait: Option<Duration>,
    alert: Option<AlertHook>,
    revoke: bool,
    close_deadline: Duration,
}

impl WatchBuilder {
    /// What is done at 80 % of a term.
    #[must_use]
    pub fn rotation(mut self, rotation: Rotation) -> Self {
        self.rotation = rotation;
        self
    }

    /// What happens to the lease before.
    #[must_use]
    pub fn retire(mut self, retire: Retire) -> Self {
        self.retire = retire;
        self
    }

    /// How long the start tries; two minutes by default.
    #[must_use]
    pub fn startup(mut self, options: FetchOptions) -> Self {
        self.startup = options;
        self
    }

    /// How attempts are spaced, instead of [`Schedule::for_term`].
    #[must_use]
    pub fn schedule(mut self, schedule: Schedule) -> Self {
        self.schedule = Some(schedule);
        self
    }

    /// Renews at least so often, where 80 % of the term would be later.
    #[must_use]
    pub fn at_least_every(mut self, interval: Duration) -> Self {
        self.most_wait = Some(interval);
        self
    }

    /// Is told of trouble and of its end, from the watch's task: it must not block.
    #[must_use]
    pub fn on_alert(mut self, hook: impl Fn(&Alert) + Send + Sync + 'static) -> Self {
        self.alert = Some(Arc::new(hook));
        self
    }

    /// Whether the lease is given back at the end; it is by default.
    #[must_use]
    pub fn revoke_at_end(mut self, revoke: bool) -> Self {
        self.revoke = revoke;
        self
    }

    /// How long giving back may take; 5 s by default.
    #[must_use]
    pub fn close_deadline(mut self, deadline: Duration) -> Self {
        self.close_deadline = deadline;
        self
    }

    /// Gets the first credential and keeps it good from then on.
    ///
    /// # Errors
    /// As [`Client::fetch`]: an application without a credential should not start.
    pub async fn start(self) -> Result<CredentialWatch, Error> {
        let credential = self.client.fetch_with(&self.request, self.startup).await?;
        Ok(self.watch(credential))
    }

    /// Keeps a credential good that is there already.
    #[must_use]
    pub fn watch(self, credential: Credential) -> CredentialWatch {
        let first = Arc::new(credential);
        let inner = self.spawn(first.lease.clone(), Some(Arc::clone(&first)));
        CredentialWatch { inner, first }
    }

    /// Keeps a lease good whose secret somebody else holds: until its account has to change there is
    /// no credential to see.
    #[must_use]
    pub fn adopt(self, lease: Lease) -> LeaseWatch {
        self.spawn(lease, None)
    }

    fn spawn(self, lease: Lease, credential: Option<Arc<Credential>>) -> LeaseWatch {
        let snapshot = Snapshot {
            lease,
            credential,
            state: State::Fresh,
            generation: 0,
            renewals: 0,
            failures: 0,
            last_error: None,
        };
        let (sender, snapshots) = watch::channel(snapshot);
        let (commands, received) = mpsc::channel(4);
        let settings = engine::Settings {
            request: self.request,
            rotation: self.rotation,
            retire: self.retire,
            schedule: self.schedule,
            most_wait: self.most_wait,
            alert: self.alert,
            revoke: self.revoke,
            close_deadline: self.close_deadline,
        };
        let clock = self.client.clock();
        let engine = Engine::new(self.client, clock, settings, sender, received);
        let task = tokio::spawn(engine.run());
        LeaseWatch { snapshots, commands, task: Some(task), close_deadline: self.close_deadline }
    }
}

/// Keeps a lease good. See [`CredentialWatch`], which also has the secret from the start.
///
/// Dropped, it gives the lease back in the background, as far as the runtime still runs.
pub struct LeaseWatch {
    snapshots: watch::Receiver<Snapshot>,
    commands: mpsc::Sender<Command>,
    task: Option<tokio::task::JoinHandle<Result<(), Error>>>,
    close_deadline: Duration,
}

impl LeaseWatch {
    /// The present moment.
    #[must_use]
    pub fn now(&self) -> Snapshot {
        self.snapshots.borrow().clone()
    }

    /// Follows it: changed whenever the state, the lease or the account changes.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Snapshot> {
        self.snapshots.clone()
    }

    /// Asks for a new account now, whatever the lease's time: when the secret was lost, for example.
    pub fn rotate(&self) {
        // Full means that it has been asked for already.
        let _ = self.commands.try_send(Command::Rotate);
    }

    /// Ends it and gives the lease back, unless it is not to be; waits for that, up to the deadline.
    ///
    /// # Errors
    /// When the lease could not be given back: it then ends at its time.
    pub async fn close(mut self) -> Result<(), Error> {
        let Some(task) = self.task.take() else { return Ok(()) };
        let _ = self.commands.send(Command::Close).await;
        match tokio::time::timeout(self.close_deadline * 2, task).await {
            Ok(Ok(result)) => result,
            _ => Err(Error::Closed),
        }
    }
}

impl fmt::Debug for LeaseWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LeaseWatch").field(&*self.snapshots.borrow()).finish()
    }
}

/// A credential that stays good.
///
/// Dropped, it gives the lease back in the background, as far as the runtime still runs;
/// [`CredentialWatch::close`] waits for it.
pub struct CredentialWatch {
    inner: LeaseWatch,
    first: Arc<Credential>,
}

impl CredentialWatch {
    /// Settings for a watch.
    #[must_use]
    pub fn builder(client: Client, request: Request) -> WatchBuilder {
        WatchBuilder {
            client,
            request,
            rotation: Rotation::default(),
            retire: Retire::default(),
            startup: FetchOptions::default(),
            schedule: None,
            most_wait: None,
            alert: None,
            revoke: true,
            close_deadline: CLOSE_DEADLINE,
        }
    }

    /// The credential to use for what begins now.
    #[must_use]
    pub fn credential(&self) -> Arc<Credential> {
        self.inner.snapshots.borrow().credential.clone().unwrap_or_else(|| Arc::clone(&self.first))
    }

    /// Its lease, as last renewed.
    #[must_use]
    pub fn lease(&self) -> Lease {
        self.inner.snapshots.borrow().lease.clone()
    }

    /// How good it is.
    #[must_use]
    pub fn state(&self) -> State {
        self.inner.snapshots.borrow().state
    }

    /// The present moment.
    #[must_use]
    pub fn now(&self) -> Snapshot {
        self.inner.now()
    }

    /// Follows it: changed whenever the state, the lease or the account changes.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Snapshot> {
        self.inner.subscribe()
    }

    /// Asks for a new account now, whatever the lease's time.
    pub fn rotate(&self) {
        self.inner.rotate();
    }

    /// The same watch, for who follows leases.
    #[must_use]
    pub fn into_lease_watch(self) -> LeaseWatch {
        self.inner
    }

    /// Ends it and gives the leases back; waits for that.
    ///
    /// # Errors
    /// When one could not be given back: it then ends at its time.
    pub async fn close(self) -> Result<(), Error> {
        self.inner.close().await
    }
}

impl fmt::Debug for CredentialWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CredentialWatch").field(&*self.inner.snapshots.borrow()).finish()
    }
}
