//! Keeps one connection to each SQL server open for removals: leased accounts that take all the
//! connections which a server gives must not keep their own removal out (HOSTILE-TENANT).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::future::join_all;
use tokio_util::sync::CancellationToken;

use crate::loaded::Loaded;

/// How often it is looked whether the connections are there.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Runs until `stopping`.
pub async fn run(loaded: Arc<ArcSwap<Loaded>>, stopping: CancellationToken) {
    // Told when it begins and when it ends, not at each look.
    let mut missing = BTreeSet::new();
    loop {
        let now = loaded.load_full();
        let looks = now.connections.iter().map(async |(name, connected)| {
            // A connection of which accounts can take nothing has always a way in.
            (name, connected.connection.keep_way_in().await)
        });
        for (name, result) in join_all(looks).await {
            match result {
                Ok(()) => {
                    if missing.remove(name) {
                        tracing::info!(connection = name, "the connection for removals is open again");
                    }
                }
                Err(error) => {
                    if missing.insert(name.clone()) {
                        tracing::warn!(connection = name, %error, "no connection for removals is open");
                    }
                }
            }
        }
        tokio::select! {
            () = stopping.cancelled() => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}
