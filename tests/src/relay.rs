//! A way to the broker that a test can shut, and that answers in its place: its URL stays the same while
//! the broker behind it comes and goes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Result;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What happens to connections. A change ends those that are open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Way {
    /// They reach the broker.
    Open,
    /// They are ended at once.
    Shut,
    /// The request is answered with these bytes.
    Answer(String),
    /// The broker gets the request, and its answer gets lost, so many times; then they reach it.
    LoseAnswers(usize),
}

impl Way {
    /// A refusal with `Retry-After`.
    #[must_use]
    pub fn refuse(status: u16, code: &str, retry_after: u64) -> Self {
        let body =
            format!(r#"{{"status":{status},"code":"{code}","detail":"as the test wants","request_id":"req_test"}}"#);
        Self::Answer(format!(
            "HTTP/1.1 {status} X\r\ncontent-type: application/problem+json\r\nretry-after: {retry_after}\r\n\
             connection: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        ))
    }
}

/// The relay. It ends with the test's runtime.
pub struct Relay {
    /// `http://127.0.0.1:…`
    pub url: String,
    shared: Arc<Shared>,
}

struct Shared {
    way: watch::Sender<Way>,
    broker: watch::Sender<String>,
    /// Connections so far.
    seen: AtomicUsize,
    /// Answers that were lost since the last change.
    lost: AtomicUsize,
}

impl Relay {
    /// Before the broker at a URL such as `http://127.0.0.1:1`.
    ///
    /// # Panics
    /// When there is no port.
    pub async fn before(broker: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap_or_else(|error| panic!("no port: {error}"));
        let address = listener.local_addr().unwrap_or_else(|error| panic!("no port: {error}"));
        let shared = Arc::new(Shared {
            way: watch::Sender::new(Way::Open),
            broker: watch::Sender::new(authority(broker)),
            seen: AtomicUsize::new(0),
            lost: AtomicUsize::new(0),
        });
        let relay = Self { url: format!("http://{address}"), shared: Arc::clone(&shared) };
        tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else {
                    // Out of descriptors: some are given back in a moment.
                    tokio::time::sleep(std::time::Duration::from_millis(10)).await;
                    continue;
                };
                shared.seen.fetch_add(1, Ordering::Relaxed);
                let shared = Arc::clone(&shared);
                tokio::spawn(async move {
                    let mut ways = shared.way.subscribe();
                    let way = ways.borrow_and_update().clone();
                    tokio::select! {
                        // Who is cut off notices by himself.
                        _ = pass(stream, way, &shared) => {}
                        _ = ways.changed() => {}
                    }
                });
            }
        });
        relay
    }

    /// From now on, connections go this way; those that are open end.
    pub fn go(&self, way: Way) {
        self.shared.lost.store(0, Ordering::Relaxed);
        self.shared.way.send_replace(way);
    }

    /// From now on, the broker is there.
    pub fn lead_to(&self, broker: &str) {
        self.shared.broker.send_replace(authority(broker));
    }

    /// Connections so far.
    #[must_use]
    pub fn seen(&self) -> usize {
        self.shared.seen.load(Ordering::Relaxed)
    }

    /// Answers that got lost since the last change.
    #[must_use]
    pub fn lost(&self) -> usize {
        self.shared.lost.load(Ordering::Relaxed)
    }
}

fn authority(url: &str) -> String {
    url.trim_start_matches("http://").trim_end_matches('/').to_owned()
}

async fn pass(mut stream: TcpStream, way: Way, shared: &Shared) -> Result<()> {
    let broker = shared.broker.borrow().clone();
    match way {
        Way::Shut => Ok(()),
        Way::Open => {
            copy_bidirectional(&mut stream, &mut TcpStream::connect(broker).await?).await?;
            Ok(())
        }
        Way::Answer(answer) => {
            read_request(&mut stream).await?;
            stream.write_all(answer.as_bytes()).await?;
            Ok(stream.shutdown().await?)
        }
        Way::LoseAnswers(count) => {
            if shared.lost.fetch_add(1, Ordering::Relaxed) >= count {
                copy_bidirectional(&mut stream, &mut TcpStream::connect(broker).await?).await?;
                return Ok(());
            }
            let request = read_request(&mut stream).await?;
            let mut server = TcpStream::connect(broker).await?;
            server.write_all(&request).await?;
            // The broker has done its work when it begins to answer.
            server.read_u8().await?;
            Ok(())
        }
    }
}

/// A whole request with its body, as far as its length says.
async fn read_request(stream: &mut TcpStream) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(16 * 1024);
    loop {
        let read = stream.read_buf(&mut bytes).await?;
        anyhow::ensure!(read > 0 && bytes.len() < 256 * 1024, "no request");
        let Some(head) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
        let length = text.lines().find_map(|line| line.strip_prefix("content-length:")).unwrap_or("0");
        if bytes.len() >= head + 4 + length.trim().parse::<usize>()? {
            return Ok(bytes);
        }
    }
}
