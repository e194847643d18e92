//! `/livez`, `/readyz` and `/metrics`, over plain HTTP: there is nothing secret in them.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::board::Board;
use crate::error::AgentError;

/// Connections at once; more wait in the system's queue.
const MOST_CONNECTIONS: usize = 16;
/// How long one connection may live.
const LONGEST: Duration = Duration::from_secs(10);
/// How long a request's head may take.
const HEAD: Duration = Duration::from_secs(5);

/// Opens the port; the address that it really is.
pub(crate) async fn bind(address: SocketAddr) -> Result<TcpListener, AgentError> {
    let listener = TcpListener::bind(address)
        .await
        .map_err(|error| AgentError::Config(format!("cannot serve health at {address}: {error}")))?;
    let address = listener.local_addr().unwrap_or(address);
    tracing::info!("health at http://{address}");
    Ok(listener)
}

/// Serves until it is dropped.
pub(crate) async fn serve(listener: TcpListener, board: Board) {
    let slots = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors, for example: not as fast as the loop can go.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let board = board.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let reply = answer(&request, &board);
                async move { Ok::<_, Infallible>(reply) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD)
                .keep_alive(false)
                .max_buf_size(16 * 1024)
                .serve_connection(TokioIo::new(stream), service);
            // Who hangs up has no answer.
            let _ = tokio::time::timeout(LONGEST, connection).await;
            drop(slot);
        });
    }
}

fn answer(request: &Request<Incoming>, board: &Board) -> Response<Text> {
    let (status, kind, text) = match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/livez") => (StatusCode::OK, "text/plain", "ok\n".to_owned()),
        (&Method::GET | &Method::HEAD, "/readyz") => match board.not_ready() {
            None => (StatusCode::OK, "text/plain", "ok\n".to_owned()),
            Some(why) => (StatusCode::SERVICE_UNAVAILABLE, "text/plain", why),
        },
        (&Method::GET | &Method::HEAD, "/metrics") => (StatusCode::OK, "text/plain; version=0.0.4", board.metrics()),
        (&Method::GET | &Method::HEAD, _) => {
            (StatusCode::NOT_FOUND, "text/plain", "/livez, /readyz and /metrics are here\n".to_owned())
        }
        _ => (StatusCode::METHOD_NOT_ALLOWED, "text/plain", "GET only\n".to_owned()),
    };
    let mut reply = Response::new(Text(Some(text.into())));
    *reply.status_mut() = status;
    reply.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    reply
}

/// A whole body.
struct Text(Option<Bytes>);

impl http_body::Body for Text {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        std::task::Poll::Ready(self.0.take().map(|text| Ok(Frame::data(text))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.as_ref().map_or(0, |text| text.len() as u64))
    }
}
