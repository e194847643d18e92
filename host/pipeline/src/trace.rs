//! For whom work is done, carried along with it: through tasks that go on when a caller has gone, down to the calls to
//! backends, whose own logs can then name the request.

use jit_core::id::LeaseId;
use jit_core::trace::OnBehalf;
use tracing::Instrument as _;

tokio::task_local! {
    static ON_BEHALF: OnBehalf;
}

/// Does the work for somebody: everything that asks [`on_behalf`] within it is answered with that.
pub async fn scope<F: Future>(on_behalf: OnBehalf, work: F) -> F::Output {
    ON_BEHALF.scope(on_behalf, work).await
}

/// For whom this task works; for nobody in particular outside of [`scope`].
#[must_use]
pub fn on_behalf() -> OnBehalf {
    ON_BEHALF.try_with(Clone::clone).unwrap_or_default()
}

/// Does the work for the end of a lease: for the request that ends it, or where none does, for the lease.
pub async fn for_lease<F: Future>(id: &LeaseId, work: F) -> F::Output {
    let now = on_behalf();
    let on_behalf = if now.id().is_some() { now } else { OnBehalf::of_lease(id) };
    ON_BEHALF.scope(on_behalf, work).await
}

/// Work that is given to a task of its own, for the same request as now: its lines in the log are the request's too.
pub fn carried<F: Future>(work: F) -> impl Future<Output = F::Output> {
    ON_BEHALF.scope(on_behalf(), work).in_current_span()
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use jit_core::id::RequestId;

    use super::*;

    #[tokio::test]
    async fn a_task_works_for_the_request_that_began_it() {
        let request = RequestId::generate(Timestamp::now());
        assert_eq!(on_behalf().id(), None);
        let seen = scope(OnBehalf::of_request(&request), async {
            let with = tokio::spawn(carried(async { on_behalf().id().map(str::to_owned) }));
            let without = tokio::spawn(async { on_behalf().id().map(str::to_owned) });
            (with.await.unwrap(), without.await.unwrap())
        });
        assert_eq!(seen.await, (Some(request.to_string()), None));
    }
}
