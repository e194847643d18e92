//! Figures that need no load: memory at rest, the start.

use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::Serialize;

use crate::broker::{Running, Setting};
use crate::load::Asks as _;
use crate::machine::memory_mb;

/// Plugins of the broker whose memory is measured.
pub(crate) const PLUGINS: usize = 10;
/// Its leases.
pub(crate) const LEASES: usize = 2_000;
/// How long the broker may settle before its memory is read.
const SETTLE: Duration = Duration::from_secs(2);

/// Memory of a broker at rest.
#[derive(Debug, Serialize)]
pub(crate) struct Memory {
    /// Resident, in MiB.
    pub(crate) resident: f64,
    /// Of that, not backed by a file: what the broker itself took.
    pub(crate) anonymous: f64,
    /// Of that, mapped from files: program and compiled plugins.
    pub(crate) mapped: f64,
}

/// The memory of a broker with its plugins and leases, and the milliseconds of its further starts.
pub(crate) async fn memory_and_starts(setting: &Setting<'_>, starts: usize) -> Result<(Memory, Vec<f64>)> {
    let mut broker = Running::start(setting, PLUGINS, 16).await?;
    let mut clients = broker.clients("inventory_db", 16).await?;
    let each = LEASES / clients.len();
    let local = tokio::task::LocalSet::new();
    let tasks: Vec<_> = clients
        .drain(..)
        .map(|mut client| {
            local.spawn_local(async move {
                for _ in 0..each {
                    client.ask().await?;
                }
                Ok::<_, anyhow::Error>(client)
            })
        })
        .collect();
    let clients: Vec<_> = local
        .run_until(async {
            let mut clients = Vec::new();
            for task in tasks {
                clients.push(task.await??);
            }
            Ok::<_, anyhow::Error>(clients)
        })
        .await?;
    tokio::time::sleep(SETTLE).await;
    let pid = broker.pid()?;
    let field = |name| memory_mb(pid, name).with_context(|| format!("no {name} of the broker"));
    let memory = Memory { resident: field("VmRSS:")?, anonymous: field("RssAnon:")?, mapped: field("RssFile:")? };
    drop(clients);
    let mut took = Vec::new();
    for _ in 0..starts {
        broker.stop()?;
        took.push(broker.start_again()?);
    }
    broker.stop()?;
    took.sort_by(f64::total_cmp);
    Ok((memory, took))
}
