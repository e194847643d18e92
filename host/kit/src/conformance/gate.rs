//! A gate before the backend: it passes bytes on until it is told to lose an answer, to say nothing
//! any more, or to be closed. On loopback only.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use anyhow::{Context as _, Result};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// Connections at once; a driver under test has a few.
const MOST_CONNECTIONS: usize = 256;

/// No answer is to be lost.
const NONE: i64 = i64::MIN;

/// The gate. Closed when dropped.
#[derive(Debug)]
pub struct Gate {
    /// Where it listens.
    pub port: u16,
    state: Arc<State>,
    stop: CancellationToken,
}

#[derive(Debug)]
struct State {
    /// New connections are ended at once.
    closed: AtomicBool,
    /// Answers pass no more; the connections stay open.
    stalled: AtomicBool,
    /// How many answers still pass before one is lost.
    answers_left: AtomicI64,
    /// Whether an answer was lost since the last [`Gate::lose_answer`].
    lost: AtomicBool,
    /// Ends the connections that are open.
    generation: Mutex<CancellationToken>,
}

impl Gate {
    /// Opens a gate before a server on this machine.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn open_before(host: &str, port: u16) -> Result<Self> {
        let backend: SocketAddr = tokio::net::lookup_host((host, port))
            .await
            .context("the backend's address")?
            .find(|address| address.ip().is_loopback())
            .context("the backend is not on this machine")?;
        let listener = TcpListener::bind((backend.ip(), 0)).await.context("no port for the gate")?;
        let port = listener.local_addr()?.port();
        let state = Arc::new(State {
            closed: AtomicBool::new(false),
            stalled: AtomicBool::new(false),
            answers_left: AtomicI64::new(NONE),
            lost: AtomicBool::new(false),
            generation: Mutex::new(CancellationToken::new()),
        });
        let stop = CancellationToken::new();
        tokio::spawn(stop.clone().run_until_cancelled_owned(listen(listener, backend, Arc::clone(&state))));
        Ok(Self { port, state, stop })
    }

    /// Loses one answer: after so many more pieces of answers the next one is thrown away and its
    /// connection ended. What was asked has reached the backend.
    pub fn lose_answer(&self, after: u32) {
        self.state.lost.store(false, Ordering::SeqCst);
        self.state.answers_left.store(i64::from(after), Ordering::SeqCst);
    }

    /// Loses nothing any more; says whether something was lost.
    pub fn lost_one(&self) -> bool {
        self.state.answers_left.store(NONE, Ordering::SeqCst);
        self.state.lost.swap(false, Ordering::SeqCst)
    }

    /// The backend goes away: open connections end, new ones are not served.
    pub fn close(&self) {
        self.state.closed.store(true, Ordering::SeqCst);
        self.end_connections();
    }

    /// The backend goes silent: what is asked arrives, no answer comes back.
    pub fn stall(&self) {
        self.state.stalled.store(true, Ordering::SeqCst);
    }

    /// The backend is back. Connections from before its fault stay ended; without one nothing changes.
    pub fn open(&self) {
        self.state.answers_left.store(NONE, Ordering::SeqCst);
        let was_stalled = self.state.stalled.swap(false, Ordering::SeqCst);
        if was_stalled || self.state.closed.load(Ordering::SeqCst) {
            self.end_connections();
        }
        self.state.closed.store(false, Ordering::SeqCst);
    }

    fn end_connections(&self) {
        let mut generation = self.state.generation.lock();
        generation.cancel();
        *generation = CancellationToken::new();
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.stop.cancel();
        self.end_connections();
    }
}

async fn listen(listener: TcpListener, backend: SocketAddr, state: Arc<State>) {
    let room = Arc::new(tokio::sync::Semaphore::new(MOST_CONNECTIONS));
    while let Ok((client, _)) = listener.accept().await {
        if state.closed.load(Ordering::SeqCst) {
            continue;
        }
        let Ok(permit) = Arc::clone(&room).try_acquire_owned() else { continue };
        let state = Arc::clone(&state);
        let generation = state.generation.lock().clone();
        tokio::spawn(async move {
            let _permit = permit;
            generation.run_until_cancelled(pass(client, backend, &state)).await;
        });
    }
}

/// Passes both ways until one side ends, or an answer is to be lost.
async fn pass(client: TcpStream, backend: SocketAddr, state: &State) {
    let Ok(server) = TcpStream::connect(backend).await else { return };
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let asking = tokio::io::copy(&mut from_client, &mut to_server);
    let answering = async {
        let mut buffer = vec![0; 16 * 1024];
        loop {
            let Ok(read) = from_server.read(&mut buffer).await else { return };
            if read == 0 || loses(state) {
                return;
            }
            while state.stalled.load(Ordering::SeqCst) {
                // Ended with the connection, when the gate is opened again.
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
            if to_client.write_all(&buffer[..read]).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        _ = asking => {}
        () = answering => {}
    }
}

/// Counts an answer; whether it is the one to lose.
fn loses(state: &State) -> bool {
    let left = state.answers_left.load(Ordering::SeqCst);
    if left == NONE {
        return false;
    }
    if state.answers_left.fetch_sub(1, Ordering::SeqCst) == 0 {
        state.answers_left.store(NONE, Ordering::SeqCst);
        state.lost.store(true, Ordering::SeqCst);
        return true;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that answers each byte with the same one.
    async fn echo() -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut read, mut write) = stream.into_split();
                    let _ = tokio::io::copy(&mut read, &mut write).await;
                });
            }
        });
        port
    }

    async fn ask(stream: &mut TcpStream) -> Option<u8> {
        stream.write_all(b"x").await.ok()?;
        let mut answer = [0];
        match stream.read(&mut answer).await {
            Ok(1) => Some(answer[0]),
            _ => None,
        }
    }

    #[tokio::test]
    async fn it_loses_the_answer_it_is_told_to_and_only_that() {
        let gate = Gate::open_before("127.0.0.1", echo().await).await.unwrap();
        let mut stream = TcpStream::connect(("127.0.0.1", gate.port)).await.unwrap();
        assert_eq!(ask(&mut stream).await, Some(b'x'));
        gate.lose_answer(1);
        assert_eq!(ask(&mut stream).await, Some(b'x'));
        assert_eq!(ask(&mut stream).await, None);
        assert!(gate.lost_one());
        let mut stream = TcpStream::connect(("127.0.0.1", gate.port)).await.unwrap();
        assert_eq!(ask(&mut stream).await, Some(b'x'));
        assert!(!gate.lost_one());
    }

    #[tokio::test]
    async fn a_closed_gate_ends_and_refuses_connections_until_it_opens() {
        let gate = Gate::open_before("127.0.0.1", echo().await).await.unwrap();
        let mut stream = TcpStream::connect(("127.0.0.1", gate.port)).await.unwrap();
        assert_eq!(ask(&mut stream).await, Some(b'x'));
        gate.close();
        assert_eq!(ask(&mut stream).await, None);
        let mut stream = TcpStream::connect(("127.0.0.1", gate.port)).await.unwrap();
        assert_eq!(ask(&mut stream).await, None);
        gate.open();
        let mut stream = TcpStream::connect(("127.0.0.1", gate.port)).await.unwrap();
        assert_eq!(ask(&mut stream).await, Some(b'x'));
    }

    #[tokio::test]
    async fn it_stands_before_this_machine_only() {
        assert!(Gate::open_before("192.0.2.1", 5432).await.is_err());
    }
}
