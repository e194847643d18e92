//! Callers who do not read their replies. What is written stays in memory until they do, and their
//! connection with it: who takes nothing for a while is cut off.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// A connection whose writes fail when the other side has taken nothing for too long.
pub struct Paced<T> {
    stream: T,
    within: Duration,
    /// Until when something must be taken; none while nothing waits.
    patience: Option<Pin<Box<Sleep>>>,
}

impl<T> Paced<T> {
    /// Wraps a connection.
    pub fn new(stream: T, within: Duration) -> Self {
        Self { stream, within, patience: None }
    }

    /// What a write came to, unless it has waited too long.
    fn paced<R>(&mut self, context: &mut Context<'_>, written: Poll<io::Result<R>>) -> Poll<io::Result<R>> {
        if written.is_ready() {
            self.patience = None;
            return written;
        }
        let within = self.within;
        let patience = self.patience.get_or_insert_with(|| Box::pin(tokio::time::sleep(within)));
        match patience.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Paced<T> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, into)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Paced<T> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.paced(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        self.paced(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.stream).poll_flush(context) {
            Poll::Pending => self.paced(context, Poll::Pending),
            // A socket has nothing to flush: this says nothing of a write that waits.
            done @ Poll::Ready(_) => done,
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let closed = Pin::new(&mut self.stream).poll_shutdown(context);
        self.paced(context, closed)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn who_takes_nothing_is_cut_off_and_what_is_taken_ends_the_wait() {
        let (_never_reads, stream) = tokio::io::duplex(4);
        let error = Paced::new(stream, Duration::from_millis(50)).write_all(&[1; 40]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);

        let (mut peer, stream) = tokio::io::duplex(4);
        let mut paced = Paced::new(stream, Duration::from_secs(600));
        {
            let write = paced.write_all(&[1; 8]);
            tokio::pin!(write);
            assert!(futures_util::poll!(&mut write).is_pending());
            let mut taken = [0; 8];
            let (written, read) = tokio::join!(write, peer.read_exact(&mut taken));
            written.unwrap();
            read.unwrap();
        }
        assert!(paced.patience.is_none(), "the next write has its whole time");
    }

    #[tokio::test]
    async fn what_is_read_may_take_its_time() {
        let (mut peer, stream) = tokio::io::duplex(4);
        let mut paced = Paced::new(stream, Duration::ZERO);
        let read = paced.read_u8();
        tokio::pin!(read);
        assert!(futures_util::poll!(&mut read).is_pending());
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(futures_util::poll!(&mut read).is_pending());
        peer.write_u8(7).await.unwrap();
        assert_eq!(read.await.unwrap(), 7);
    }
}
