//! A way to the server that can break, at the moment when a COMMIT passes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::OwnedReadHalf;
use tokio::net::{TcpListener, TcpStream};

/// A message of the simple protocol: `COMMIT`.
const COMMIT: &[u8] = b"Q\0\0\0\x0bCOMMIT\0";

/// What happens to the next COMMIT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Break {
    /// It does not arrive: both ends are closed.
    Before,
    /// It arrives, and the answer is lost.
    After,
    /// The broker is cut off, and the server gets the COMMIT so much later.
    Late(Duration),
    /// The broker is cut off, and the server's end is closed so much later, without the COMMIT.
    Hanging(Duration),
    /// As [`Break::After`], and nobody gets through any more.
    AfterAndShut,
}

/// The relay. It ends with the test's runtime.
pub(crate) struct Relay {
    pub(crate) address: String,
    shared: Arc<Shared>,
}

struct Shared {
    server: String,
    next: Mutex<Option<Break>>,
    shut: Mutex<bool>,
    broken: AtomicUsize,
}

impl Relay {
    /// Before the server at an address such as `127.0.0.1:5432`.
    pub(crate) async fn before(server: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let shared = Arc::new(Shared {
            server: server.to_owned(),
            next: Mutex::new(None),
            shut: Mutex::new(false),
            broken: AtomicUsize::new(0),
        });
        let relay = Self { address, shared: Arc::clone(&shared) };
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if !*shared.shut.lock() {
                    tokio::spawn(pass(client, Arc::clone(&shared)));
                }
            }
        });
        relay
    }

    /// Breaks at the next COMMIT.
    pub(crate) fn break_next(&self, how: Break) {
        *self.shared.next.lock() = Some(how);
    }

    /// How often it broke.
    pub(crate) fn broken(&self) -> usize {
        self.shared.broken.load(Ordering::SeqCst)
    }
}

async fn pass(client: TcpStream, shared: Arc<Shared>) {
    let Ok(server) = TcpStream::connect(&shared.server).await else { return };
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let (lose, losing) = tokio::sync::watch::channel(false);
    let answers = tokio::spawn(async move {
        let mut buffer = vec![0; 64 * 1024];
        while let Some(bytes) = read(&mut from_server, &mut buffer).await {
            // The answer to the COMMIT is there, and goes no further.
            if *losing.borrow() || to_client.write_all(bytes).await.is_err() {
                return;
            }
        }
    });
    let mut buffer = vec![0; 64 * 1024];
    while let Some(bytes) = read(&mut from_client, &mut buffer).await {
        let is_commit = bytes.windows(COMMIT.len()).any(|part| part == COMMIT);
        let how = if is_commit { shared.next.lock().take() } else { None };
        let Some(how) = how else {
            if to_server.write_all(bytes).await.is_err() {
                break;
            }
            continue;
        };
        shared.broken.fetch_add(1, Ordering::SeqCst);
        match how {
            Break::Before => {}
            Break::After | Break::AfterAndShut => {
                *shared.shut.lock() = how == Break::AfterAndShut;
                lose.send_replace(true);
                to_server.write_all(bytes).await.unwrap();
                answers.await.unwrap();
                return;
            }
            Break::Late(after) | Break::Hanging(after) => {
                answers.abort();
                drop(from_client);
                tokio::time::sleep(after).await;
                if matches!(how, Break::Late(_)) {
                    to_server.write_all(bytes).await.unwrap();
                    tokio::time::sleep(Duration::from_secs(5)).await;
                }
                return;
            }
        }
        break;
    }
    answers.abort();
}

async fn read<'b>(from: &mut OwnedReadHalf, buffer: &'b mut [u8]) -> Option<&'b [u8]> {
    match from.read(buffer).await {
        Ok(0) | Err(_) => None,
        Ok(length) => Some(&buffer[..length]),
    }
}
