//! A network link that a storm can cut, hush and slow down: a relay in front of a server, with a port of its own.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::Result;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Bytes that are passed on at once.
const CHUNK: usize = 16 * 1024;
/// How long the relay waits before it accepts again after it ran out of descriptors.
const ACCEPT_AGAIN: Duration = Duration::from_millis(10);

/// What becomes of the bytes of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// They are passed on.
    Open,
    /// Open connections end, and new ones end at once.
    Cut,
    /// They are held, and passed on when the link opens again: what TCP does when a network is away for a while.
    /// Neither side hears of it.
    Silent,
    /// Each piece is passed on after a delay.
    Slow(Duration),
}

/// A link to one server. It ends with the runtime.
pub struct Link {
    /// Its port on 127.0.0.1.
    pub port: u16,
    state: watch::Sender<State>,
}

impl Link {
    /// An open link to a server on this machine.
    ///
    /// # Errors
    /// When there is no free port.
    pub async fn to(port: u16) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let link = Self { port: listener.local_addr()?.port(), state: watch::Sender::new(State::Open) };
        let (server, states) = (SocketAddr::from((Ipv4Addr::LOCALHOST, port)), link.state.subscribe());
        tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else {
                    tokio::time::sleep(ACCEPT_AGAIN).await;
                    continue;
                };
                let mut states = states.clone();
                let (carried, cut) = (carry(stream, server, states.clone()), async move {
                    // The sender lives as long as the link; without it there is nothing to cut either.
                    if states.wait_for(|state| *state == State::Cut).await.is_err() {
                        std::future::pending::<()>().await;
                    }
                });
                tokio::spawn(async move {
                    tokio::select! {
                        // A side that is cut off notices it by itself.
                        _ = carried => {}
                        () = cut => {}
                    }
                });
            }
        });
        Ok(link)
    }

    /// From now on, the link is in this state.
    pub fn turn(&self, state: State) {
        self.state.send_replace(state);
    }
}

async fn carry(mut client: TcpStream, server: SocketAddr, states: watch::Receiver<State>) -> Result<()> {
    // While it is silent, a connection hangs and is not refused.
    let mut opening = states.clone();
    opening.wait_for(|state| *state != State::Silent).await?;
    let mut server = TcpStream::connect(server).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    tokio::try_join!(pass(from_client, to_server, states.clone()), pass(from_server, to_client, states))?;
    Ok(())
}

async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut states: watch::Receiver<State>,
) -> Result<()> {
    let mut bytes = vec![0; CHUNK];
    loop {
        let read = from.read(&mut bytes).await?;
        let state = *states.wait_for(|state| *state != State::Silent).await?;
        if let State::Slow(delay) = state {
            tokio::time::sleep(delay).await;
        }
        if read == 0 {
            return Ok(to.shutdown().await?);
        }
        to.write_all(&bytes[..read]).await?;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    /// A server that sends back what it gets.
    async fn echo() -> u16 {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut read, mut write) = stream.split();
                    let _ = tokio::io::copy(&mut read, &mut write).await;
                });
            }
        });
        port
    }

    async fn ask(stream: &mut TcpStream, text: &str) -> std::io::Result<String> {
        stream.write_all(text.as_bytes()).await?;
        let mut answer = vec![0; text.len()];
        stream.read_exact(&mut answer).await?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }

    #[tokio::test]
    async fn what_a_silent_link_holds_arrives_when_it_opens() {
        let link = Link::to(echo().await).await.unwrap();
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, link.port)).await.unwrap();
        assert_eq!(ask(&mut stream, "before").await.unwrap(), "before");
        link.turn(State::Silent);
        let held = tokio::spawn(async move { ask(&mut stream, "held").await });
        let mut late = TcpStream::connect((Ipv4Addr::LOCALHOST, link.port)).await.unwrap();
        let late = tokio::spawn(async move { ask(&mut late, "late").await });
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(!held.is_finished() && !late.is_finished());
        link.turn(State::Open);
        assert_eq!(held.await.unwrap().unwrap(), "held");
        assert_eq!(late.await.unwrap().unwrap(), "late");
    }

    #[tokio::test]
    async fn a_cut_link_ends_connections_and_lets_new_ones_through_later() {
        let link = Link::to(echo().await).await.unwrap();
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, link.port)).await.unwrap();
        assert_eq!(ask(&mut stream, "before").await.unwrap(), "before");
        link.turn(State::Cut);
        assert!(ask(&mut stream, "cut").await.is_err());
        let refused = TcpStream::connect((Ipv4Addr::LOCALHOST, link.port)).await;
        if let Ok(mut refused) = refused {
            assert!(ask(&mut refused, "cut").await.is_err());
        }
        link.turn(State::Slow(Duration::from_millis(5)));
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, link.port)).await.unwrap();
        assert_eq!(ask(&mut stream, "after").await.unwrap(), "after");
    }
}
