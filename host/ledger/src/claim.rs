//! Work that one broker at a time may do.

use crate::{Store, StoreError};

/// Does such work under its claim, and lets go of the claim afterwards. None if another broker has it. A claim whose
/// work panics stays with this broker, which can claim it again.
///
/// # Errors
/// When the claim cannot be made: then nothing was done.
pub async fn alone<T>(store: &dyn Store, work: &str, doing: impl Future<Output = T>) -> Result<Option<T>, StoreError> {
    if !store.claim(work).await? {
        return Ok(None);
    }
    let done = doing.await;
    store.release(work).await;
    Ok(Some(done))
}
