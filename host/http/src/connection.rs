//! One connection, from accept to its end. Every state in which it can wait for its peer has a deadline: the
//! TLS handshake, the first request (whatever was sent of it, of whichever protocol), a request's head, the
//! time without a request, and a reply that is not taken.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::extract::Peer;
use crate::pace::Paced;

/// The most bytes of a request's head.
const MOST_HEAD: usize = 64 * 1024;
/// Requests at once on one HTTP/2 connection.
const MOST_STREAMS: u32 = 256;
/// How often the peer of an HTTP/2 connection is asked whether it is still there.
const PING_PACE: Duration = Duration::from_secs(20);
/// How long it may take to say so.
const PING_DEADLINE: Duration = Duration::from_secs(10);

/// How long a connection may wait for its peer.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// From accept to the first whole request head, the TLS handshake included; and for each later head of
    /// HTTP/1, the time before it included.
    pub head: Duration,
    /// Without a request.
    pub idle: Duration,
    /// Until something of a reply is taken.
    pub write: Duration,
}

/// The listener's certificate and key for the next connection: they may change while it serves.
pub type ServerTls = Arc<dyn Fn() -> Arc<rustls::ServerConfig> + Send + Sync>;

/// What all connections of a listener share.
pub struct Shared {
    /// What answers.
    pub router: Router,
    /// With TLS.
    pub tls: Option<ServerTls>,
    /// How long they may wait.
    pub bounds: Bounds,
    /// Set at a stop: requests under way are finished, and no more are taken.
    pub stop: CancellationToken,
    /// Set when the stop's grace is over.
    pub cut: CancellationToken,
}

impl Shared {
    /// Serves a connection to its end.
    pub async fn serve(&self, stream: TcpStream, peer: SocketAddr) {
        let first_head = Instant::now() + self.bounds.head;
        let _without = stream.set_nodelay(true);
        let stream = Paced::new(stream, self.bounds.write);
        let Some(tls) = &self.tls else {
            return self.converse(stream, peer, first_head).await;
        };
        let handshake = TlsAcceptor::from(tls()).accept(stream);
        tokio::select! {
            shaken = timeout_at(first_head, handshake) => match shaken {
                Ok(Ok(stream)) => self.converse(stream, peer, first_head).await,
                Ok(Err(error)) => tracing::debug!(%peer, %error, "no TLS handshake"),
                Err(_) => tracing::debug!(%peer, "no TLS handshake in time"),
            },
            () = self.stop.cancelled() => {}
        }
    }

    async fn converse<S>(&self, stream: S, peer: SocketAddr, first_head: Instant)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let activity = Arc::new(Activity::default());
        let inner = TowerToHyperService::new(self.router.clone());
        // An IPv4 peer of a listener on IPv6 is still an IPv4 peer.
        let peer = Peer(peer.ip().to_canonical());
        let service = Counted { inner, peer, activity: Arc::clone(&activity) };
        let builder = self.builder();
        let connection = builder.serve_connection(TokioIo::new(stream), service);
        tokio::pin!(connection);
        let first = self.first_request(&activity, first_head);
        tokio::pin!(first);
        let (mut stopping, mut spoken) = (false, false);
        loop {
            tokio::select! {
                biased;
                // How it ended is the peer's matter.
                _ = &mut connection => return,
                () = self.cut.cancelled() => return,
                () = self.stop.cancelled(), if !stopping => {
                    stopping = true;
                    connection.as_mut().graceful_shutdown();
                }
                begun = &mut first, if !spoken => {
                    if !begun {
                        return;
                    }
                    spoken = true;
                }
                () = activity.idle(self.bounds.idle), if spoken => {
                    // The peer may be sending a request just now: HTTP/2 can tell it that it was not taken.
                    connection.as_mut().graceful_shutdown();
                    let _ended = tokio::time::timeout(self.bounds.head, connection).await;
                    return;
                }
            }
        }
    }

    /// Whether a request came by then.
    async fn first_request(&self, activity: &Activity, by: Instant) -> bool {
        sleep_until(by).await;
        activity.any()
    }

    fn builder(&self) -> auto::Builder<TokioExecutor> {
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(self.bounds.head).max_buf_size(MOST_HEAD);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(MOST_STREAMS)
            .keep_alive_interval(PING_PACE)
            .keep_alive_timeout(PING_DEADLINE);
        builder
    }
}

/// The requests of a connection.
#[derive(Debug, Default)]
struct Activity(Mutex<Requests>);

#[derive(Debug, Default)]
struct Requests {
    under_way: usize,
    /// When the last one ended; none before the first.
    since: Option<Instant>,
    any: bool,
}

impl Activity {
    fn requests(&self) -> parking_lot::MutexGuard<'_, Requests> {
        self.0.lock()
    }

    fn any(&self) -> bool {
        self.requests().any
    }

    /// Returns when there was no request for that long.
    async fn idle(&self, most: Duration) {
        loop {
            let now = Instant::now();
            let until = {
                let requests = self.requests();
                let quiet = (requests.under_way == 0).then_some(requests.since).flatten();
                // With one under way, it is idle in that time at the earliest.
                quiet.unwrap_or(now) + most
            };
            if until <= now {
                return;
            }
            sleep_until(until).await;
        }
    }
}

/// A request under way.
struct UnderWay(Arc<Activity>);

impl UnderWay {
    fn begin(activity: &Arc<Activity>) -> Self {
        let mut requests = activity.requests();
        requests.under_way += 1;
        requests.any = true;
        drop(requests);
        Self(Arc::clone(activity))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut requests = self.0.requests();
        requests.under_way = requests.under_way.saturating_sub(1);
        requests.since = Some(Instant::now());
    }
}

/// The API, with its requests counted, and each told where it comes from.
struct Counted {
    inner: TowerToHyperService<Router>,
    peer: Peer,
    activity: Arc<Activity>,
}

impl Service<Request<Incoming>> for Counted {
    type Response = Response;
    type Error = std::convert::Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Self::Error>> + Send>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        request.extensions_mut().insert(self.peer);
        let under_way = UnderWay::begin(&self.activity);
        let reply = self.inner.call(request);
        Box::pin(async move {
            let reply = reply.await;
            drop(under_way);
            reply
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_is_idle_from_its_last_request_on() {
        let activity = Arc::new(Activity::default());
        let (first, second) = (UnderWay::begin(&activity), UnderWay::begin(&activity));
        let idle = activity.idle(Duration::from_millis(20));
        tokio::pin!(idle);
        let a_while = Duration::from_millis(100);
        assert!(tokio::time::timeout(a_while, &mut idle).await.is_err(), "a long request is no idleness");
        drop(first);
        assert!(tokio::time::timeout(a_while, &mut idle).await.is_err());
        drop(second);
        tokio::time::timeout(Duration::from_secs(60), idle).await.unwrap();
        assert!(activity.any());
    }
}
