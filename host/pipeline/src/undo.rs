//! What is left of an issue that did not come to its end: a step was lost, the code panicked, the caller went away, or
//! the process died. Whatever of it became durable, the account is removed and the lease closed.

use std::sync::Arc;
use std::time::Duration;

use jit_core::event::{AuditEvent, Doubtful, Event, LeaseRest};
use jit_core::lease::{Cause, Lease};
use jit_ledger::{Change, LeaseWrite, StoreError, alone};
use tokio::runtime::Handle;

use crate::end::{EndFlow, begin, close, close_stored, doubtful_for};
use crate::removal::{RemovalFlow, remove_at_once};
use crate::replay::Abandoned;
use crate::tasks::board::Board;
use crate::tasks::removal::NAME;
use crate::trace::carried;
use crate::work::{Wake, Work};

/// The first wait after the store failed; doubled by each further failure.
const FIRST_WAIT: Duration = Duration::from_millis(100);
/// The longest.
const LAST_WAIT: Duration = Duration::from_secs(5);

/// What it takes to undo an issue.
pub struct UndoFlow {
    pub(crate) removal: Arc<RemovalFlow>,
    /// Replies that a retry may still fetch.
    pub(crate) abandoned: Arc<Abandoned>,
    /// An undoing is work beside the removal task: its panics are caught and shown there.
    pub(crate) board: Arc<Board>,
    /// Wakes the removal.
    pub(crate) wake: Arc<Wake>,
    /// An undoing goes on when its caller has gone.
    pub(crate) work: Work,
}

/// A lease whose issue has begun and has not ended. Each step says how it ended; a value that is dropped without that,
/// by a panic or because the request was cut off, is undone.
pub(crate) struct Unsettled {
    flow: Arc<UndoFlow>,
    lease: Option<Lease>,
}

impl Unsettled {
    pub(crate) fn new(flow: &Arc<UndoFlow>, lease: Lease) -> Self {
        Self { flow: Arc::clone(flow), lease: Some(lease) }
    }

    /// The lease as it is known now: an undoing then knows what the backend calls the account.
    pub(crate) fn known_as(&mut self, lease: &Lease) {
        self.lease = Some(lease.clone());
    }

    /// The store has what became of it.
    pub(crate) fn settled(mut self) {
        self.lease = None;
    }

    /// A step was lost in the store: whatever of it became durable, the account goes and the lease is closed.
    pub(crate) fn undo(mut self, cause: Cause) {
        if let Some(lease) = self.lease.take() {
            undo(&self.flow, lease, cause);
        }
    }
}

impl Drop for Unsettled {
    fn drop(&mut self) {
        if let Some(lease) = self.lease.take() {
            tracing::error!(lease = %lease.id, target = %lease.target, "an issue was cut off in the middle; it is undone");
            undo(&self.flow, lease, Cause::Doubtful);
        }
    }
}

/// Removes the account and closes the lease. Nothing was handed out. Runs on its own until it is done, also after a
/// panic; a crash in the middle leaves a pending lease for recovery.
fn undo(flow: &Arc<UndoFlow>, lease: Lease, cause: Cause) {
    // Without a runtime the process is at its end, and the next start recovers the lease.
    let Ok(runtime) = Handle::try_current() else { return };
    let flow = Arc::clone(flow);
    let work = flow.work.tasks.clone();
    work.spawn_on(carried(async move { undone(&flow, &lease, cause).await }), &runtime);
}

async fn undone(flow: &UndoFlow, lease: &Lease, cause: Cause) {
    let beside = flow.board.beside(NAME, lease.id.as_str(), remove_at_once(&flow.removal, lease));
    if let Some(Err(reason)) = beside.await {
        tracing::warn!(lease = %lease.id, reason, "undoing an issue: the account could not be removed at once");
    }
    let mut wait = FIRST_WAIT;
    loop {
        let closing = close_for_good(&flow.removal.end, lease, cause);
        match flow.board.beside(NAME, lease.id.as_str(), closing).await {
            Some(Ok(())) => break,
            Some(Err(error)) => tracing::warn!(lease = %lease.id, %error, "undoing an issue: the store failed"),
            // A panic is logged where it was caught.
            None => {}
        }
        tokio::select! {
            () = flow.work.stopping.cancelled() => break,
            () = tokio::time::sleep(wait) => wait = (wait * 2).min(LAST_WAIT),
        }
    }
    flow.wake.removal.notify_one();
}

/// Closes a lease whose last write may still be under way. Where the store does not know the lease
/// yet, it gets to know it as doubtful: the intent, should it come later, finds its id taken.
async fn close_for_good(flow: &EndFlow, lease: &Lease, cause: Cause) -> Result<(), StoreError> {
    if let Some(stored) = flow.ledger.store().lease(&lease.id).await? {
        // What is known of the account here may not have become durable.
        let stored = stored.with_account(lease.username.clone(), lease.external_id.clone());
        return close_stored(flow, &stored, cause).await;
    }
    let now = flow.clock.now();
    let Ok(doubtful) = lease.doubt(cause, now) else { return Ok(()) };
    let event = AuditEvent::of_lease(doubtful_for(cause, &doubtful), now, &doubtful);
    flow.ledger.commit(Change::insert(doubtful).with(event)).await
}

/// The caller went away before it had its reply. With an Idempotency-Key it may come back for it;
/// without one nobody can ever use the account, so it goes at once.
pub async fn abandon(flow: &Arc<UndoFlow>, lease: &Lease) {
    if lease.idempotency.is_some() {
        if !flow.work.stopping.is_cancelled() {
            flow.abandoned.put(&lease.id);
            return;
        }
        // A retry was answered meanwhile, here or by another broker.
        let is_elsewhere = !flow.removal.end.ledger.store().owns(&lease.id).await.unwrap_or(true);
        if is_elsewhere || flow.abandoned.has_arrived(&lease.id) {
            return;
        }
    }
    tracing::info!(lease = %lease.id, "the caller went away before the reply; the account is removed");
    match begin(&flow.removal.end, lease, Cause::Abandoned, Vec::new()).await {
        Ok(_) => flow.wake.removal.notify_one(),
        // A renewal or revocation was faster, or the store failed: then its state is not known here.
        Err(_) => undo(flow, lease.clone(), Cause::Abandoned),
    }
}

/// A reply was dropped before its caller had it: as [`abandon`], as work of its own.
pub fn undelivered(flow: &Arc<UndoFlow>, lease: Lease) {
    let owned = Arc::clone(flow);
    flow.work.spawn(carried(async move { abandon(&owned, &lease).await }));
}

/// A reply was taken by its connection: no other reply of this lease makes it abandoned.
pub fn delivered(flow: &UndoFlow, lease: &Lease) {
    if lease.idempotency.is_some() {
        flow.abandoned.arrived(&lease.id);
    }
}

/// Has the accounts removed whose reply nobody fetched in time; with `all`, also those whose time is not over. Returns
/// how many.
pub async fn give_up_abandoned(flow: &UndoFlow, all: bool) -> usize {
    let given_up = flow.abandoned.given_up(all);
    for id in &given_up {
        // A retry may have reached another broker, which then has the lease.
        if !flow.removal.end.ledger.store().owns(id).await.unwrap_or(true) {
            continue;
        }
        if let Err(error) = close(&flow.removal.end, id, Cause::Abandoned).await {
            tracing::warn!(lease = %id, %error, "an abandoned lease could not be closed; it is tried again");
            flow.abandoned.put(id);
        }
        flow.wake.removal.notify_one();
    }
    given_up.len()
}

/// Leases that are taken over at once: the other brokers take their part of them meanwhile.
const ADOPTED_AT_ONCE: usize = 200;
/// The name of the claim on closing what ended brokers left: two that did it at once would be in each other's way.
const RECOVERY: &str = "recovery";

/// What was taken over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TakenOver {
    /// Issues that had not come to their end, and are closed.
    pub unfinished: usize,
    /// Leases that are this broker's now.
    pub leases: u64,
}

/// Takes over what brokers left that have ended, this one's last run included. Called before the broker serves, and
/// whenever another broker of the store has ended.
///
/// # Errors
/// When the store fails: what was taken over until then stays so.
pub async fn take_over(flow: &EndFlow) -> Result<TakenOver, StoreError> {
    Ok(TakenOver { unfinished: recover(flow).await?, leases: adopt(flow).await? })
}

/// Leases that were intended and never settled. Their accounts may exist, their secrets reached nobody. Returns how
/// many were closed: 0 if another broker is at it.
async fn recover(flow: &EndFlow) -> Result<usize, StoreError> {
    alone(flow.ledger.store(), RECOVERY, close_unfinished(flow)).await?.unwrap_or(Ok(0))
}

/// The leases of brokers that have ended. Returns how many.
async fn adopt(flow: &EndFlow) -> Result<u64, StoreError> {
    let mut adopted = 0;
    loop {
        match flow.ledger.store().adopt(ADOPTED_AT_ONCE).await? {
            0 => return Ok(adopted),
            more => adopted += more,
        }
    }
}

async fn close_unfinished(flow: &EndFlow) -> Result<usize, StoreError> {
    let now = flow.clock.now();
    let mut found = 0;
    loop {
        let pending = flow.ledger.store().unfinished(now, 500).await?;
        if pending.is_empty() {
            return Ok(found);
        }
        found += pending.len();
        let mut change = Change::default();
        for lease in pending {
            if let Ok(doubted) = lease.doubt(Cause::Doubtful, now) {
                let doubt = Doubtful { cause: None, lease: LeaseRest::of(&doubted) };
                let event = AuditEvent::of_lease(Event::LeaseDoubtful(doubt), now, &doubted);
                change.events.push(event.with_error("the broker stopped in the middle of the issue"));
                change.leases.push(LeaseWrite::Update(doubted));
            }
        }
        flow.ledger.commit(change).await?;
    }
}
