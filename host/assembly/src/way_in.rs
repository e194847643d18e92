//! Keeps one connection to each SQL server open for removals: leased accounts that take all the
//! connections which a server gives must not keep their own removal out (HOSTILE-TENANT).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;
use jit_pipeline::tasks::driver::{Next, Pass, Task};

use crate::reload::Reloader;

/// How often it is looked whether the connections are there.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// The task.
pub struct WayIn {
    reloader: Arc<Reloader>,
    /// Those without a connection at the last look: told when it begins and when it ends, not at each look.
    missing: BTreeSet<String>,
}

impl WayIn {
    /// For the connections that serve.
    #[must_use]
    pub fn new(reloader: Arc<Reloader>) -> Self {
        Self { reloader, missing: BTreeSet::new() }
    }
}

#[async_trait]
impl Task for WayIn {
    fn name(&self) -> &str {
        "way-in"
    }

    async fn pass(&mut self) -> Pass {
        let now = self.reloader.loaded();
        let looks = now.connections.iter().map(async |(name, connected)| {
            // A connection of which accounts can take nothing has always a way in.
            (name, connected.connection.keep_way_in().await)
        });
        let looked = join_all(looks).await;
        self.missing.retain(|name| now.connections.contains_key(name));
        for (name, result) in looked {
            match result {
                Ok(()) => {
                    if self.missing.remove(name) {
                        tracing::info!(connection = name, "the connection for removals is open again");
                    }
                }
                Err(error) => {
                    if self.missing.insert(name.clone()) {
                        tracing::warn!(connection = name, %error, "no connection for removals is open");
                    }
                }
            }
        }
        if self.missing.is_empty() {
            return Pass::done([("connections", now.connections.len() as u64)], Next::Every(LOOK_EVERY));
        }
        let missing: Vec<&str> = self.missing.iter().map(String::as_str).collect();
        Pass::failed_until(
            format!("no connection for removals is open: {}", missing.join(", ")),
            Next::Every(LOOK_EVERY),
        )
    }
}
