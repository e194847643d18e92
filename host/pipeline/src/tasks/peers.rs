//! Takes over what brokers of the same store left that have ended or were fenced (FENCED): issues that did not come to
//! their end are closed, and their leases become this broker's. Tells the others of this broker's configuration.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jit_core::event::{AuditEvent, Event, FencedBroker};
use jit_ledger::{Change, Peer, Peers, StoreError};
use tokio::sync::watch;
use tokio::time::Instant;

use super::driver::{Next, Pass, Task};
use crate::end::EndFlow;
use crate::leftover::Leftovers;
use crate::undo::{TakenOver, take_over};
use crate::work::Wake;
use jit_ledger::audit::archive::Exported;

/// The longest wait between two looks.
const EVERY: Duration = Duration::from_secs(10);
/// When to compare the targets after issues of another broker were closed: one of its calls may still have been under
/// way, and makes an account after its lease was closed.
const COMPARE_AFTER: [Duration; 3] = [Duration::ZERO, Duration::from_secs(5), Duration::from_secs(45)];

/// What it takes to look after other brokers.
pub struct PeersFlow {
    pub(crate) end: EndFlow,
    /// Accounts that only a person can remove are known by who has their leases.
    pub(crate) leftovers: Arc<Leftovers>,
    /// How far this broker's exports are.
    pub(crate) exported: Vec<Arc<Exported>>,
    pub(crate) wake: Arc<Wake>,
}

/// The digest of the configuration that serves here, where it comes from a file.
pub type Digest = Arc<dyn Fn() -> Option<String> + Send + Sync>;

/// The task. It is needed only where the store may have several brokers.
pub struct PeersTask {
    flow: PeersFlow,
    config: Digest,
    peers: watch::Receiver<Peers>,
    /// When to compare the targets.
    compare: Vec<Instant>,
    /// What was found the last time. A change is logged.
    drift: bool,
}

impl PeersTask {
    /// None where the store is for one process.
    #[must_use]
    pub fn new(flow: PeersFlow, config: Digest) -> Option<Self> {
        let peers = flow.end.ledger.store().peers()?;
        Some(Self { flow, config, peers, compare: Vec::new(), drift: false })
    }

    fn show(&mut self) {
        let exported = self.flow.exported.iter().map(|exported| exported.next()).min();
        self.flow.end.ledger.store().show((self.config)().as_deref(), exported);
        let peers = self.peers.borrow_and_update().clone();
        metrics::gauge!("jit_brokers").set(peers.serving.len() as f64);
        let drift = peers.drift();
        metrics::gauge!("jit_brokers_config_drift").set(f64::from(u8::from(drift)));
        if drift && !self.drift {
            let of = |peer: &Peer| format!("{}: {}", peer.name, short(peer.config.as_deref()));
            let configs: Vec<String> = peers.serving.iter().map(of).collect();
            tracing::warn!(brokers = configs.join(", "), "the brokers of this store have different configurations");
        }
        self.drift = drift;
    }

    /// Takes over what there is.
    async fn take_over(&self) -> Result<TakenOver, StoreError> {
        let flow = &self.flow;
        for peer in flow.end.ledger.store().fenced() {
            let fenced = Event::BrokerFenced(FencedBroker { broker: peer.name });
            flow.end.ledger.commit(Change::record(AuditEvent::new(fenced, flow.end.clock.wall()))).await?;
        }
        if !self.peers.borrow().ended {
            return Ok(TakenOver::default());
        }
        let taken = take_over(&flow.end).await?;
        let TakenOver { unfinished, leases } = taken;
        if taken != TakenOver::default() {
            tracing::warn!(leases, unfinished, "the leases of a broker that has ended are this one's now");
            flow.leftovers.recall(flow.end.ledger.store()).await?;
            flow.wake.removal.notify_one();
        }
        Ok(taken)
    }
}

/// The beginning of a digest.
fn short(digest: Option<&str>) -> &str {
    digest.map_or("not known", |digest| digest.get(..12).unwrap_or(digest))
}

#[async_trait]
impl Task for PeersTask {
    fn name(&self) -> &str {
        "peers"
    }

    async fn pass(&mut self) -> Pass {
        self.show();
        let TakenOver { unfinished, leases } = match self.take_over().await {
            Ok(done) => done,
            Err(error) => return Pass::failed(error.to_string()),
        };
        let now = Instant::now();
        if unfinished > 0 {
            self.compare = COMPARE_AFTER.iter().map(|wait| now + *wait).collect();
        }
        let before = self.compare.len();
        self.compare.retain(|at| *at > now);
        if self.compare.len() < before {
            self.flow.wake.reconcile.notify_one();
        }
        let next = self.compare.iter().map(|at| *at - now).fold(EVERY, Duration::min);
        Pass::done([("unfinished", unfinished as u64), ("leases", leases)], Next::In(next))
    }

    async fn woken(&mut self) {
        if self.peers.changed().await.is_err() {
            // The store is closed.
            std::future::pending::<()>().await;
        }
    }
}
