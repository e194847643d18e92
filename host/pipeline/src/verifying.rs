//! What is checked of a caller's verifier beyond its form: it is not that of an empty password, and it was not used
//! for another lease.

use std::sync::Arc;
use std::time::Duration;

use jit_core::id::LeaseId;
use jit_core::lease::Lease;
use jit_ledger::{Store, StoreError};
use jit_password::Verifier;
use tokio::sync::Semaphore;

use crate::refusal::Refused;

/// Checks at once. Each may take a tenth of a second of a processor, and removals need processors too.
const AT_ONCE: usize = 2;
/// How long a request waits for its check.
const PATIENCE: Duration = Duration::from_secs(5);
/// Up to this number of iterations, the check runs on the request's own thread: it takes less than a millisecond.
const INLINE_ITERATIONS: u32 = 5_000;

/// Room for checks that compute a password's hash.
#[derive(Debug)]
pub struct Verifying(Arc<Semaphore>);

impl Default for Verifying {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(AT_ONCE)))
    }
}

impl Verifying {
    /// The verifier is not that of an empty password: somebody who knows only the account's name could log in. Not
    /// needed where the server makes the same check ([`crate::target::Target::may_be_empty`]).
    ///
    /// # Errors
    /// [`Refused::WeakVerifier`] when it is; [`Refused::Overloaded`] when others take all the room.
    pub async fn check_not_empty(&self, verifier: &Verifier) -> Result<(), Refused> {
        if verifier.iterations() <= INLINE_ITERATIONS {
            return Ok(verifier.check_not_empty()?);
        }
        let room = tokio::time::timeout(PATIENCE, Arc::clone(&self.0).acquire_owned()).await;
        let Ok(Ok(room)) = room else { return Err(Refused::Overloaded) };
        let verifier = verifier.clone();
        // The thread holds the permit: it keeps computing when the request is cut off.
        let checked = tokio::task::spawn_blocking(move || {
            let _room = room;
            verifier.check_not_empty()
        });
        Ok(checked.await.map_err(|_| Refused::Overloaded)??)
    }
}

/// The lease that used the same verifier before, if it was an earlier attempt at the same request which gave nothing
/// to anybody: same Idempotency-Key, same body, and the lease let go of the key.
///
/// # Errors
/// When the store fails.
pub async fn earlier_attempt(
    store: &dyn Store,
    lease: &Lease,
    before: &LeaseId,
) -> Result<Option<LeaseId>, StoreError> {
    let Some(earlier) = store.lease(before).await? else { return Ok(None) };
    let same = lease.idempotency.is_some() && lease.idempotency == earlier.idempotency;
    Ok((same && !earlier.holds_key()).then_some(earlier.id))
}
