//! A reply that carries a secret knows whether it was taken: dropped on the way, its account goes.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Bytes, HttpBody};
use http_body::Frame;

use jit_pipeline::issue::Disclosure;
use jit_pipeline::undo::{UndoFlow, delivered, undelivered};

/// A disclosure that has not reached its caller yet. Dropped, it counts as abandoned.
pub struct Undelivered {
    undo: Arc<UndoFlow>,
    disclosure: Option<Disclosure>,
}

impl Undelivered {
    /// Guards a disclosure.
    #[must_use]
    pub fn new(undo: &Arc<UndoFlow>, disclosure: Disclosure) -> Self {
        Self { undo: Arc::clone(undo), disclosure: Some(disclosure) }
    }

    /// What is to be delivered.
    #[must_use]
    pub fn disclosure(&self) -> &Disclosure {
        // Emptied only by `delivered` and `drop`, which both consume the guard.
        self.disclosure.as_ref().unwrap_or_else(|| unreachable!())
    }

    fn delivered(mut self) {
        if let Some(disclosure) = self.disclosure.take() {
            delivered(&self.undo, &disclosure.lease);
        }
    }
}

impl Drop for Undelivered {
    fn drop(&mut self) {
        if let Some(disclosure) = self.disclosure.take() {
            undelivered(&self.undo, disclosure.lease);
        }
    }
}

/// A body of one frame that notes when the connection takes it. What happens on the wire after
/// that nobody can know; the lease's expiry covers it.
pub struct Delivery {
    content: Option<(Bytes, Undelivered)>,
    length: u64,
}

impl Delivery {
    /// A body with that content.
    #[must_use]
    pub fn new(content: Vec<u8>, undelivered: Undelivered) -> Self {
        Self { length: content.len() as u64, content: Some((content.into(), undelivered)) }
    }
}

impl HttpBody for Delivery {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::convert::Infallible>>> {
        Poll::Ready(self.content.take().map(|(bytes, undelivered)| {
            undelivered.delivered();
            Ok(Frame::data(bytes))
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.content.is_none()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::with_exact(if self.content.is_some() { self.length } else { 0 })
    }
}
