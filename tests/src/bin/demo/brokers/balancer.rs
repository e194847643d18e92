//! What a Service of Kubernetes does in front of the brokers: each connection goes to the next one that takes it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, Result};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{RwLock, Semaphore};

/// The most connections at the same time.
const CONNECTIONS: usize = 64;

/// A listener in front of the brokers. It ends with the demo.
pub(super) struct Balancer {
    /// Where clients find it.
    pub(super) url: String,
    brokers: Arc<RwLock<Vec<String>>>,
}

impl Balancer {
    /// Listens in front of brokers at these addresses.
    pub(super) async fn start(addresses: Vec<String>) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("no port for the balancer")?;
        let url = format!("http://{}", listener.local_addr()?);
        let brokers = Arc::new(RwLock::new(addresses));
        tokio::spawn(serve(listener, Arc::clone(&brokers)));
        Ok(Self { url, brokers })
    }

    /// A broker was started again, at another address.
    pub(super) async fn replace(&self, number: usize, address: String) {
        if let Some(broker) = self.brokers.write().await.get_mut(number) {
            *broker = address;
        }
    }
}

async fn serve(listener: TcpListener, brokers: Arc<RwLock<Vec<String>>>) {
    let (next, room) = (AtomicUsize::new(0), Arc::new(Semaphore::new(CONNECTIONS)));
    while let Ok((mut client, _)) = listener.accept().await {
        let Ok(place) = Arc::clone(&room).acquire_owned().await else { return };
        let addresses = brokers.read().await.clone();
        let first = next.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(async move {
            for offset in 0..addresses.len() {
                let address = &addresses[(first + offset) % addresses.len()];
                // A broker that was killed refuses at once: the next one is asked.
                if let Ok(mut broker) = TcpStream::connect(address).await {
                    let _ended = copy_bidirectional(&mut client, &mut broker).await;
                    break;
                }
            }
            drop(place);
        });
    }
}
