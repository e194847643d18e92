//! HTTP/1.1 byte by byte: for requests that no client library would send, and for clients that go
//! away in the middle of one.

use std::time::Duration;

use anyhow::{Context as _, Result};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::http::Reply;

/// How long a reply, or the end of a connection, may take before a test fails.
const PATIENCE: Duration = Duration::from_secs(120);

/// One TCP connection to a broker. Dropped, it is closed.
pub struct Wire(TcpStream);

impl Wire {
    /// Connects to the host and port of a URL without a path, whatever its scheme.
    ///
    /// # Errors
    /// When nobody listens there.
    pub async fn connect(broker: &str) -> Result<Self> {
        let address = broker.trim_start_matches("http://").trim_start_matches("https://");
        Ok(Self(TcpStream::connect(address).await.with_context(|| format!("cannot connect to {address}"))?))
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// When the other side has closed.
    pub async fn send(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.0.write_all(bytes).await?)
    }

    /// Says that nothing more will be sent, and still listens.
    ///
    /// # Errors
    /// When the other side has closed.
    pub async fn end(&mut self) -> Result<()> {
        Ok(self.0.shutdown().await?)
    }

    /// Closes the connection, and waits until the other side has noticed: until the kernel has no
    /// socket of its any more.
    ///
    /// # Errors
    /// When that takes more than a minute.
    pub async fn hang_up(self) -> Result<()> {
        let (ours, theirs) = (self.0.local_addr()?.port(), self.0.peer_addr()?.port());
        drop(self);
        // As proc_pid_net(5) has it: addresses of theirs, then of ours, each with its port in hex.
        let their_socket = format!("0100007F:{theirs:04X} 0100007F:{ours:04X}");
        let noticed = async {
            while std::fs::read_to_string("/proc/net/tcp")?.contains(&their_socket) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Ok(())
        };
        tokio::time::timeout(PATIENCE, noticed).await.context("the broker keeps the connection")?
    }

    /// Reads until the other side closes; what it said till then, be it nothing.
    ///
    /// # Errors
    /// When it neither ends nor breaks within a minute.
    pub async fn until_closed(&mut self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        // A reset is an end as well.
        let read = tokio::time::timeout(PATIENCE, self.0.read_to_end(&mut bytes)).await;
        let _ = read.context("the connection was not closed")?;
        Ok(bytes)
    }

    /// Reads the one reply of a connection that the other side closes after it.
    ///
    /// # Errors
    /// When what comes is no HTTP.
    pub async fn reply(&mut self) -> Result<Reply> {
        let bytes = self.until_closed().await?;
        parse(&bytes).with_context(|| format!("no HTTP reply: {:?}", String::from_utf8_lossy(&bytes)))
    }
}

/// A whole request on a connection of its own, with `Connection: close` added to its headers.
///
/// # Errors
/// When what comes back is no HTTP.
pub async fn exchange(broker: &str, line: &[u8], headers: &[(&str, &[u8])], body: &[u8]) -> Result<Reply> {
    let mut wire = Wire::connect(broker).await?;
    wire.send(&request(line, headers, body)).await?;
    wire.reply().await
}

/// The bytes of a request: its line (`POST /issue`), its headers, its body with the length told.
#[must_use]
pub fn request(line: &[u8], headers: &[(&str, &[u8])], body: &[u8]) -> Vec<u8> {
    let mut bytes = line.to_vec();
    bytes.extend_from_slice(b" HTTP/1.1\r\nhost: broker\r\nconnection: close\r\n");
    for (name, value) in headers {
        bytes.extend_from_slice(name.as_bytes());
        bytes.extend_from_slice(b": ");
        bytes.extend_from_slice(value);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(format!("content-length: {}\r\n\r\n", body.len()).as_bytes());
    bytes.extend_from_slice(body);
    bytes
}

fn parse(bytes: &[u8]) -> Option<Reply> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&bytes[..end]).ok()?;
    let mut lines = head.split("\r\n");
    let status = lines.next()?.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    let mut headers = HeaderMap::new();
    for line in lines {
        let (name, value) = line.split_once(':')?;
        headers.append(HeaderName::from_bytes(name.as_bytes()).ok()?, HeaderValue::from_str(value.trim()).ok()?);
    }
    let text = String::from_utf8_lossy(&bytes[end + 4..]).into_owned();
    let json = serde_json::from_str(&text).unwrap_or_default();
    Some(Reply { status, headers, json, text })
}
