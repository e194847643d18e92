//! The store as the flows write it: with a deadline, with a bound on what a workload may have recorded of its denials,
//! and with an eye on the disk.

use std::sync::Arc;
use std::time::Duration;

use jit_core::event::AuditEvent;
use jit_core::name::Principal;
use jit_ledger::{Change, Settled, Store, StoreError};

use crate::denials::Denials;
use crate::space::{Room, Space};

/// How long a change may take to become durable before its fate counts as unknown.
pub const COMMIT_DEADLINE: Duration = Duration::from_secs(10);
/// How long a look at the disk is waited for.
const LOOK_DEADLINE: Duration = Duration::from_secs(2);

/// Leases and audit log. All that the broker makes durable goes through here.
#[derive(Clone)]
pub struct Ledger {
    store: Arc<dyn Store>,
    space: Arc<Space>,
    denials: Arc<Denials>,
}

impl Ledger {
    /// Over that store, on that disk.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, space: Arc<Space>, denials: Arc<Denials>) -> Self {
        Self { store, space, denials }
    }

    /// The store, to read from.
    #[must_use]
    pub fn store(&self) -> &dyn Store {
        &*self.store
    }

    /// What was denied beyond the budget and is only counted so far.
    #[must_use]
    pub fn denials(&self) -> &Denials {
        &self.denials
    }

    /// How much room the disk had at the last look.
    #[must_use]
    pub fn room(&self) -> Room {
        self.space.room()
    }

    /// Makes a change durable, within a deadline.
    ///
    /// # Errors
    /// [`StoreError::Failed`] also when the deadline passed: the change may have become durable.
    pub async fn commit(&self, change: Change) -> Result<(), StoreError> {
        match tokio::time::timeout(COMMIT_DEADLINE, self.store.commit(change)).await {
            Ok(Err(error @ StoreError::Failed(_))) => {
                // It may be the disk: the reserve is for the removals that follow.
                self.look_at_disk().await;
                Err(error)
            }
            Ok(result) => result,
            Err(_) => Err(StoreError::Failed(format!("no answer within {COMMIT_DEADLINE:?}"))),
        }
    }

    /// Puts a denial on record, or counts it where its owner has had enough of them ([`crate::denials`]).
    ///
    /// # Errors
    /// As [`Ledger::commit`].
    pub async fn deny(
        &self,
        owner: &Principal,
        events: Vec<AuditEvent>,
        settled: Vec<Settled>,
    ) -> Result<(), StoreError> {
        let events = self.denials.admit(owner, events);
        self.commit(Change::events(events).settling(settled)).await
    }

    /// Looks at the room on the disk, and has denials recorded as that allows.
    pub async fn look_at_disk(&self) {
        let (space, denials) = (Arc::clone(&self.space), Arc::clone(&self.denials));
        let looked = tokio::task::spawn_blocking(move || {
            let room = space.look();
            denials.be_brief(room > Room::Ample);
        });
        // A file system that does not answer is not waited for.
        let _ended = tokio::time::timeout(LOOK_DEADLINE, looked).await;
    }
}
