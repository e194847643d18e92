//! What a store's writer takes at once: all that is queued, up to a bound. Nobody waits for a group to fill.

use std::ops::ControlFlow;

use tokio::sync::mpsc::Receiver;

/// The most changes in one transaction.
pub const CHANGES: usize = 256;
/// The most bytes of documents in one transaction; a single change may be larger.
pub const BYTES: usize = 4 * 1024 * 1024;

/// Takes what is queued behind `first`, up to `most` jobs and [`BYTES`] bytes by their weight. `take`
/// continues with a job of that kind, and breaks with another one, which is returned beside the group.
pub fn gather<J, T>(
    first: T,
    jobs: &mut Receiver<J>,
    most: usize,
    weight: impl Fn(&T) -> usize,
    take: impl Fn(J) -> ControlFlow<J, T>,
) -> (Vec<T>, Option<J>) {
    let mut bytes = weight(&first);
    let mut group = vec![first];
    while group.len() < most && bytes < BYTES {
        match jobs.try_recv().map(&take) {
            Ok(ControlFlow::Continue(job)) => {
                bytes += weight(&job);
                group.push(job);
            }
            Ok(ControlFlow::Break(other)) => return (group, Some(other)),
            Err(_) => break,
        }
    }
    (group, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_group_ends_at_its_bounds_and_at_another_kind_of_job() {
        let (sender, mut jobs) = tokio::sync::mpsc::channel(16);
        for job in [1, 2, 3, -1, 4, 5] {
            sender.send(job).await.unwrap();
        }
        let positive = |job: i32| if job > 0 { ControlFlow::Continue(job) } else { ControlFlow::Break(job) };
        assert_eq!(gather(0, &mut jobs, 3, |_| 0, positive), (vec![0, 1, 2], None), "as many as are allowed");
        assert_eq!(gather(0, &mut jobs, 9, |_| 0, positive), (vec![0, 3], Some(-1)), "until another kind");
        assert_eq!(gather(0, &mut jobs, 9, |_| BYTES, positive), (vec![0], None), "one that is too large is alone");
        assert_eq!(gather(0, &mut jobs, 9, |_| BYTES / 2, positive), (vec![0, 4], None), "until the bytes are reached");
        assert_eq!(gather(0, &mut jobs, 9, |_| 0, positive), (vec![0, 5], None), "until nothing is queued");
    }
}
