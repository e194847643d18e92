//! A JWT-SVID from the SPIFFE Workload API: one unary gRPC call over the agent's Unix socket.
//!
//! Only that call: it has one request field and one answer field that matter, so it is made on HTTP/2
//! itself instead of a gRPC stack, which would be most of a small agent's memory.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use h2::client;
use http::{HeaderMap, HeaderValue, Method, Request, Version};
use secrecy::SecretString;
use secrecy::zeroize::Zeroizing;
use tokio::net::UnixStream;

use super::{MOST_TOKEN, TokenError, checked};

/// How long the agent may take.
const DEADLINE: Duration = Duration::from_secs(10);
/// The most bytes of an answer: some SVIDs with their hints.
const MOST_ANSWER: usize = 8 * MOST_TOKEN;
/// Of the Workload API's definition.
const METHOD: &str = "/SpiffeWorkloadAPI/FetchJWTSVID";

/// Asks for one. Where the workload has several identities, the first is the agent's default.
pub(super) async fn token(socket: &Path, audience: &str) -> Result<SecretString, TokenError> {
    let failed = |reason: String| TokenError::Spiffe { socket: socket.to_owned(), reason };
    let answer = tokio::time::timeout(DEADLINE, call(socket, audience))
        .await
        .map_err(|_| failed(format!("no answer after {} s", DEADLINE.as_secs())))?
        .map_err(failed)?;
    let svid = first_svid(&answer).map_err(failed)?;
    checked(svid, &format!("the answer of the SPIFFE Workload API at {}", socket.display()))
}

/// The answer's message.
async fn call(socket: &Path, audience: &str) -> Result<Zeroizing<Vec<u8>>, String> {
    let stream = UnixStream::connect(socket).await.map_err(|error| format!("cannot connect: {error}"))?;
    let (sender, connection) = client::handshake(stream).await.map_err(|error| error.to_string())?;
    let exchange = exchange(sender, audience);
    tokio::pin!(exchange);
    tokio::pin!(connection);
    // The connection lives as long as the exchange, and goes with it.
    tokio::select! {
        biased;
        answer = &mut exchange => answer,
        ended = &mut connection => match ended {
            Ok(()) => exchange.await,
            Err(error) => Err(error.to_string()),
        },
    }
}

async fn exchange(sender: client::SendRequest<Bytes>, audience: &str) -> Result<Zeroizing<Vec<u8>>, String> {
    let broken = |error: h2::Error| error.to_string();
    let mut sender = sender.ready().await.map_err(broken)?;
    let request = Request::builder()
        .method(Method::POST)
        .version(Version::HTTP_2)
        .uri(format!("http://localhost{METHOD}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        // Without it an agent refuses: so that no web page can be made to ask it.
        .header("workload.spiffe.io", "true")
        .body(())
        .map_err(|error| error.to_string())?;
    let (response, mut body) = sender.send_request(request, false).map_err(broken)?;
    body.send_data(framed(&audience_request(audience)), true).map_err(broken)?;
    let response = response.await.map_err(broken)?;
    if response.status() != 200 {
        return Err(format!("HTTP status {}", response.status()));
    }
    // An answer without a message has its status in the head.
    status(response.headers(), false)?;
    let mut body = response.into_body();
    let mut bytes = Zeroizing::new(Vec::new());
    while let Some(chunk) = body.data().await {
        let chunk = chunk.map_err(broken)?;
        let _ = body.flow_control().release_capacity(chunk.len());
        if bytes.len() + chunk.len() > MOST_ANSWER {
            return Err(format!("its answer is longer than {MOST_ANSWER} bytes"));
        }
        bytes.extend_from_slice(&chunk);
    }
    let trailers = body.trailers().await.map_err(broken)?;
    status(&trailers.unwrap_or_default(), true)?;
    message(&bytes)
}

/// gRPC's status; `needed` where it has to be there.
fn status(headers: &HeaderMap<HeaderValue>, needed: bool) -> Result<(), String> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    match text("grpc-status") {
        Some("0") => Ok(()),
        None if !needed => Ok(()),
        None => Err("its answer has no status".to_owned()),
        // PermissionDenied: the agent knows no identity for this process.
        Some("7") => Err("this workload has no identity there (PermissionDenied): is it registered?".to_owned()),
        Some(code) => {
            let said: String = text("grpc-message").unwrap_or_default().chars().take(300).collect();
            Err(format!("gRPC status {code}: {said}"))
        }
    }
}

/// gRPC's frame: not compressed, length, message.
fn framed(message: &[u8]) -> Bytes {
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    [&[0], &length.to_be_bytes()[..], message].concat().into()
}

fn message(framed: &[u8]) -> Result<Zeroizing<Vec<u8>>, String> {
    match framed {
        [0, a, b, c, d, message @ ..] if u32::from_be_bytes([*a, *b, *c, *d]) as usize == message.len() => {
            Ok(Zeroizing::new(message.to_vec()))
        }
        [1, ..] => Err("its answer is compressed".to_owned()),
        _ => Err("its answer is no whole message".to_owned()),
    }
}

/// `JWTSVIDRequest { repeated string audience = 1 }`.
fn audience_request(audience: &str) -> Vec<u8> {
    let mut message = vec![0x0a];
    varint(audience.len(), &mut message);
    message.extend_from_slice(audience.as_bytes());
    message
}

fn varint(mut value: usize, to: &mut Vec<u8>) {
    while value >= 0x80 {
        to.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    to.push(value as u8);
}

/// `JWTSVIDResponse { repeated JWTSVID svids = 1 }`, `JWTSVID { string spiffe_id = 1; string svid = 2; … }`.
fn first_svid(message: &[u8]) -> Result<&str, String> {
    let svid = field(message, 1)?.ok_or("its answer has no SVID")?;
    let token = field(svid, 2)?.ok_or("its SVID has no token")?;
    std::str::from_utf8(token).map_err(|_| "its SVID is no text".to_owned())
}

/// The first length-delimited field of a number; others are skipped as protobuf says.
fn field(mut message: &[u8], wanted: u64) -> Result<Option<&[u8]>, String> {
    let short = || "its answer ends in the middle".to_owned();
    while !message.is_empty() {
        let tag = read_varint(&mut message).ok_or_else(short)?;
        let length = match tag & 7 {
            0 => {
                read_varint(&mut message).ok_or_else(short)?;
                continue;
            }
            1 => 8,
            5 => 4,
            2 => read_varint(&mut message).ok_or_else(short)?,
            _ => return Err("its answer is no protobuf".to_owned()),
        };
        let length = usize::try_from(length).map_err(|_| short())?;
        let (value, rest) = message.split_at_checked(length).ok_or_else(short)?;
        if tag == wanted << 3 | 2 {
            return Ok(Some(value));
        }
        message = rest;
    }
    Ok(None)
}

fn read_varint(message: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = message.split_first()?;
        *message = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
#[path = "spiffe_tests.rs"]
mod tests;
