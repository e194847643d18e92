//! One credential, kept: its watch, its file, and those who are told.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jit_client::{
    Client, Credential, CredentialWatch, Error, FetchOptions, Lease, LeaseState, LeaseWatch, Snapshot, WatchBuilder,
};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::board::Board;
use crate::error::AgentError;
use crate::format::{Fields, render};
use crate::output::{Draft, is_in_memory};
use crate::place::Folder;
use crate::settings::Entry;
use crate::state::State;

/// How long the broker is asked about a lease that was left by `fetch`, before the state is believed.
const ADOPT_DEADLINE: Duration = Duration::from_secs(5);
/// Between attempts at a file, doubled, at most the second.
const WRITE_AGAIN: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(15));

/// Where a credential comes from at the start.
pub(crate) enum Origin {
    /// Another agent has written it.
    Left(Box<State>),
    /// This one has.
    Fetched(Box<Credential>),
}

/// What the one who runs it is told.
pub(crate) struct Rotated {
    pub(crate) entry: usize,
    pub(crate) credential: Arc<Credential>,
}

/// What keeping needs to know.
#[derive(Clone)]
pub(crate) struct Terms {
    pub(crate) interval: Option<Duration>,
    pub(crate) revoke: bool,
    /// How long giving back may take.
    pub(crate) exit_grace: Duration,
    /// `true` when it is to end.
    pub(crate) stop: watch::Receiver<bool>,
    /// Counts the wishes for a new account.
    pub(crate) rotate: watch::Receiver<u64>,
    pub(crate) rotated: Option<mpsc::UnboundedSender<Rotated>>,
}

/// Gets a first credential and writes it, until `stop` is true. What cannot be written, and what comes after a stop,
/// is given back.
pub(crate) async fn fetch(
    client: &Client,
    entry: &Entry,
    patience: Duration,
    mut stop: watch::Receiver<bool>,
) -> Result<Credential, AgentError> {
    let target = entry.target();
    if let Some(out) = &entry.out {
        warn_of_disk(out);
        // A place that cannot be written to is told before there is an account.
        drop(Draft::open(out, entry.form.mode, entry.form.owner)?);
    }
    let options = FetchOptions { patience, ..FetchOptions::default() };
    let stopped = {
        let mut stop = stop.clone();
        async move {
            // Whoever could stop it is gone: it is not stopped any more.
            if stop.wait_for(|stop| *stop).await.is_err() {
                std::future::pending().await
            }
        }
    };
    let credential = match client.fetch_until(&entry.request, options, stopped).await {
        Ok(credential) => credential,
        Err(Error::Closed) => return Err(AgentError::Ended),
        Err(error) => return Err(AgentError::broker(target, error)),
    };
    if *stop.borrow_and_update() {
        give_back(client, target, &credential.lease).await;
        return Err(AgentError::Ended);
    }
    if let Err(error) = write(entry, &credential, &credential.lease) {
        give_back(client, target, &credential.lease).await;
        return Err(error);
    }
    let lease = &credential.lease;
    tracing::info!(
        target,
        lease_id = lease.lease_id,
        account = lease.ephemeral_id,
        "fetched, until {}",
        lease.term.expires_at
    );
    Ok(credential)
}

/// Gives a lease back that nobody is going to use.
async fn give_back(client: &Client, target: &str, lease: &Lease) {
    match tokio::time::timeout(ADOPT_DEADLINE, client.revoke(&lease.lease_id)).await {
        Ok(Ok(())) => tracing::info!(target, "the credential was given back"),
        _ => tracing::warn!(target, "the credential was not given back; it ends at {}", lease.term.expires_at),
    }
}

/// The file and its state: unsettled, file, settled. Whoever finds it unsettled makes a new account.
pub(crate) fn write(entry: &Entry, credential: &Credential, lease: &Lease) -> Result<(), AgentError> {
    let Some(out) = &entry.out else { return Ok(()) };
    let form = &entry.form;
    let bytes = render(form.format, &form.prefix, entry.template.as_ref(), &Fields::of(credential))?;
    let draft = Draft::open(out, form.mode, form.owner)?;
    let mut state = State::new(entry.request.clone(), form.clone(), lease.clone());
    state.save(out)?;
    draft.commit(&bytes)?;
    state.settled = true;
    state.save(out)
}

fn has_file(out: &Path) -> bool {
    let name = out.file_name().unwrap_or_default();
    Folder::of(out).is_ok_and(|folder| folder.has_file(name))
}

fn warn_of_disk(out: &Path) {
    if is_in_memory(out) == Some(false) {
        tracing::warn!(
            "{} is on a disk, where a password outlives its file: use a memory-backed volume (emptyDir with medium: \
             Memory, or a tmpfs such as /run)",
            out.display()
        );
    }
}

/// Keeps one credential until it is stopped.
pub(crate) struct Keeper {
    number: usize,
    entry: Entry,
    board: Board,
    row: usize,
    terms: Terms,
    /// A new account that is not in the file yet.
    pending: Option<Pending>,
    /// The lease that the state file tells of.
    recorded: Option<Lease>,
    generation: u64,
}

struct Pending {
    credential: Arc<Credential>,
    again: Instant,
    wait: Duration,
}

impl Keeper {
    pub(crate) fn new(number: usize, entry: Entry, board: &Board, terms: Terms) -> Self {
        let row = board.add(entry.target(), entry.out.as_deref());
        Self { number, entry, board: board.clone(), row, terms, pending: None, recorded: None, generation: 0 }
    }

    /// Until it is stopped; whether everything was given back that was to be.
    pub(crate) async fn run(mut self, client: Client, origin: Origin) -> bool {
        let (board, row) = (self.board.clone(), self.row);
        let mut builder = CredentialWatch::builder(client.clone(), self.entry.request.clone())
            .rotation(self.entry.rotation)
            .revoke_at_end(self.terms.revoke)
            .close_deadline(self.terms.exit_grace)
            .on_alert(move |alert| board.alert(row, alert.kind));
        if let Some(interval) = self.terms.interval {
            builder = builder.at_least_every(interval);
        }
        let watch = match origin {
            Origin::Fetched(credential) => {
                self.recorded = Some(credential.lease.clone());
                self.board.written(row, true);
                builder.watch(*credential).into_lease_watch()
            }
            Origin::Left(state) => self.adopt(&client, builder, *state).await,
        };
        self.follow(&watch).await;
        let closed = watch.close().await;
        if let (Err(error), true) = (&closed, self.terms.revoke) {
            tracing::warn!(target = self.entry.target(), error = error.chain(), "the lease was not given back");
        } else if self.terms.revoke {
            tracing::info!(target = self.entry.target(), "given back");
        }
        closed.is_ok()
    }

    /// Takes over a lease that was left. Only one that the broker still knows, or cannot be asked about,
    /// and whose secret the file certainly holds, is good.
    async fn adopt(&mut self, client: &Client, builder: WatchBuilder, state: State) -> LeaseWatch {
        let target = self.entry.target().to_owned();
        // What is to be written otherwise needs the secret, which is another account's.
        let same = state.form == self.entry.form;
        let held = state.settled && same && self.entry.out.as_deref().is_some_and(has_file);
        let mut stop = self.terms.stop.clone();
        let asked = tokio::select! {
            asked = tokio::time::timeout(ADOPT_DEADLINE, client.lease(&state.lease.lease_id)) => asked.ok(),
            _ = stop.wait_for(|stop| *stop) => None,
        };
        let (lease, over) = match asked {
            Some(Ok(lease)) => {
                // What the broker knows of it decides: a lease for something else is not the one of this file.
                let other = lease.target != state.lease.target || lease.role != state.lease.role;
                let over = other || lease.state != LeaseState::Active;
                (lease, over)
            }
            Some(Err(error)) if error.problem().is_some_and(|problem| problem.status == 404) => (state.lease, true),
            Some(Err(error)) => {
                tracing::warn!(
                    target,
                    error = error.chain(),
                    "the broker cannot be asked about the lease that was left"
                );
                (state.lease, false)
            }
            None => (state.lease, false),
        };
        self.board.written(self.row, held && !over);
        self.recorded = Some(lease.clone());
        let (lease_id, account) = (lease.lease_id.clone(), lease.ephemeral_id.clone());
        let watch = builder.adopt(lease.clone());
        if held && !over {
            tracing::info!(target, lease_id, account, "took the lease over, until {}", lease.term.expires_at);
        } else {
            tracing::warn!(
                target,
                lease_id,
                "the lease that was left is over, or its file is gone or of another form: asking for a new account"
            );
            watch.rotate();
        }
        watch
    }

    async fn follow(&mut self, watch: &LeaseWatch) {
        let mut snapshots = watch.subscribe();
        let (mut stop, mut rotate) = (self.terms.stop.clone(), self.terms.rotate.clone());
        loop {
            let snapshot = snapshots.borrow_and_update().clone();
            self.board.snapshot(self.row, &snapshot);
            self.take(&snapshot);
            self.write_if_due(&snapshot).await;
            let again = self.pending.as_ref().map(|pending| pending.again);
            let wait = async {
                match again {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = snapshots.changed() => if changed.is_err() { return },
                () = wait => {}
                Ok(()) = rotate.changed() => watch.rotate(),
                _ = stop.wait_for(|stop| *stop) => return,
            }
        }
    }

    /// What a moment brings that is not in the files yet.
    fn take(&mut self, snapshot: &Snapshot) {
        if snapshot.generation != self.generation {
            self.generation = snapshot.generation;
            if let Some(credential) = &snapshot.credential {
                let (again, wait) = (Instant::now(), WRITE_AGAIN.0);
                self.pending = Some(Pending { credential: Arc::clone(credential), again, wait });
            }
        } else if self.pending.is_none() && self.recorded.as_ref() != Some(&snapshot.lease) {
            // A renewal moves the lease's end and nothing else. A state with the old end does no harm: whoever
            // takes it over asks the broker.
            if let Some(out) = &self.entry.out {
                let mut state = State::new(self.entry.request.clone(), self.entry.form.clone(), snapshot.lease.clone());
                state.settled = true;
                if let Err(error) = state.save(out) {
                    tracing::warn!(target = self.entry.target(), "the state was not brought up to date: {error}");
                }
            }
            tracing::info!(target = self.entry.target(), "renewed, until {}", snapshot.lease.term.expires_at);
            self.recorded = Some(snapshot.lease.clone());
        }
    }

    /// Writes a new account where that is due, and tells those who need to know.
    async fn write_if_due(&mut self, snapshot: &Snapshot) {
        let Some(pending) = &mut self.pending else { return };
        if pending.again > Instant::now() {
            return;
        }
        let target = self.entry.target();
        if let Err(error) = write(&self.entry, &pending.credential, &snapshot.lease) {
            self.board.write_failed(self.row);
            tracing::error!(target, "the new account is not in the file, the old file stays: {error}; trying again");
            pending.again = Instant::now() + pending.wait;
            pending.wait = (pending.wait * 2).min(WRITE_AGAIN.1);
            return;
        }
        let credential = Arc::clone(&pending.credential);
        self.pending = None;
        self.recorded = Some(snapshot.lease.clone());
        self.board.written(self.row, true);
        let lease = &snapshot.lease;
        tracing::info!(
            target,
            lease_id = lease.lease_id,
            account = lease.ephemeral_id,
            "a new account, until {}",
            lease.term.expires_at
        );
        if let Some(rotated) = &self.terms.rotated {
            // Nobody listens when it is about to end.
            let _ = rotated.send(Rotated { entry: self.number, credential });
        }
        let mut stop = self.terms.stop.clone();
        for on_rotate in &self.entry.on_rotate {
            tokio::select! {
                () = on_rotate.tell(target, self.entry.out.as_deref()) => {}
                // A command that takes its time does not keep the agent.
                _ = stop.wait_for(|stop| *stop) => return,
            }
        }
    }
}
