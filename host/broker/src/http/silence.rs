//! Connections on which nothing is ever said. The server's own deadline begins with the first byte
//! of a request's head, since it looks at it to tell HTTP/1 from HTTP/2; without this, a stranger
//! could hold connections for nothing until no file descriptor is left.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum_server::accept::Accept;
use futures_util::TryFutureExt as _;
use futures_util::future::MapOk;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// An acceptor whose connections end unless something is said on them in time; after TLS, if there
/// is TLS.
#[derive(Debug, Clone)]
pub struct SpeakSoon<A> {
    inner: A,
    within: Duration,
}

impl<A> SpeakSoon<A> {
    /// Wraps an acceptor.
    pub fn new(inner: A, within: Duration) -> Self {
        Self { inner, within }
    }
}

type Wrap<T, S> = Box<dyn FnOnce((T, S)) -> (Listening<T>, S) + Send>;

impl<A, I, S> Accept<I, S> for SpeakSoon<A>
where
    A: Accept<I, S>,
    A::Stream: 'static,
    A::Service: 'static,
{
    type Stream = Listening<A::Stream>;
    type Service = A::Service;
    type Future = MapOk<A::Future, Wrap<A::Stream, A::Service>>;

    fn accept(&self, stream: I, service: S) -> Self::Future {
        let within = self.within;
        let wrap: Wrap<A::Stream, A::Service> = Box::new(move |(stream, service)| {
            let silence = Some(Box::pin(tokio::time::sleep(within)));
            (Listening { stream, silence }, service)
        });
        self.inner.accept(stream, service).map_ok(wrap)
    }
}

/// A connection that fails to be read when its first byte does not come in time.
pub struct Listening<T> {
    stream: T,
    /// How long it may last; none once something was said.
    silence: Option<Pin<Box<Sleep>>>,
}

impl<T: AsyncRead + Unpin> AsyncRead for Listening<T> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(context, into);
        if read.is_ready() {
            self.silence = None;
        } else if let Some(silence) = &mut self.silence
            && silence.as_mut().poll(context).is_ready()
        {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        read
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Listening<T> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

    use super::*;

    fn listening(stream: DuplexStream) -> Listening<DuplexStream> {
        Listening { stream, silence: Some(Box::pin(tokio::time::sleep(Duration::from_millis(1)))) }
    }

    #[tokio::test]
    async fn silence_ends_a_connection_and_the_first_byte_ends_the_silence() {
        let (_kept_open, stream) = tokio::io::duplex(16);
        let error = listening(stream).read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);

        let (mut peer, stream) = tokio::io::duplex(16);
        peer.write_all(b"a").await.unwrap();
        let mut stream = listening(stream);
        assert_eq!(stream.read_u8().await.unwrap(), b'a');
        assert!(stream.silence.is_none(), "what comes later may take its time");
    }
}
