//! What must hold after a storm, read from the target and from every broker. `log.rs` reads the log.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use futures_util::{StreamExt as _, TryStreamExt as _};
use jiff::Timestamp;
use serde_json::Value;

use super::client::Asker;
use super::diary::Diary;
use super::fleet::Fleet;
use super::log::text;
use crate::world::World;

/// How long the brokers may take until all that is due is removed.
const PATIENCE: Duration = Duration::from_secs(240);
/// How often it is looked.
const LOOK: Duration = Duration::from_millis(500);
/// How much is asked at once.
const AT_ONCE: usize = 16;
/// A lease that ends within this time is waited for: only those that were to be kept are there at the end.
const SOON: Duration = Duration::from_secs(600);

/// All leases, as one broker tells them to an operator.
async fn leases(fleet: &Fleet, number: usize) -> Result<Vec<Value>> {
    let member = Arc::clone(fleet.members.get(number).context("no such broker")?);
    let args = ["lease", "list", "--all", "--limit", "1000000", "--format", "json"];
    let output = tokio::task::spawn_blocking(move || member.cli(&args)).await??;
    ensure!(output.status.success(), "lease list: {}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Waits until nothing is under way, nothing is due and all short leases are over; what is left after that is broken.
///
/// # Errors
/// When a broker or the target does not answer.
pub async fn settle(world: &World, fleet: &Fleet, diary: &Diary) -> Result<Vec<Value>> {
    let begun = Instant::now();
    loop {
        let soon = Timestamp::now() + SOON;
        let leases = match leases(fleet, 0).await {
            Ok(leases) => leases,
            // It may be ending because it was fenced a moment ago.
            Err(_) if begun.elapsed() < PATIENCE => {
                tokio::time::sleep(LOOK).await;
                continue;
            }
            Err(error) => bail!(error),
        };
        let left: Vec<&Value> = leases
            .iter()
            .filter(|lease| match text(lease, "state") {
                "revoked" => false,
                "active" => text(lease, "expires_at").parse::<Timestamp>().is_ok_and(|end| end < soon),
                _ => true,
            })
            .collect();
        let of_leases: BTreeSet<String> = leases
            .iter()
            .filter(|lease| text(lease, "state") == "active")
            .map(|lease| text(lease, "account").to_owned())
            .collect();
        let there: BTreeSet<String> = world.database.roles(&world.prefix).await?.into_iter().collect();
        if left.is_empty() && of_leases == there {
            return Ok(leases);
        }
        if begun.elapsed() > PATIENCE {
            for lease in left {
                diary.broken("leases that are due and not removed", lease.to_string());
            }
            for account in there.difference(&of_leases) {
                diary.broken("ghosts", format!("{account} is there, and has no live lease"));
            }
            for account in of_leases.difference(&there) {
                diary.broken("live leases without an account", account.clone());
            }
            return Ok(leases);
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Holds what the clients know against the brokers and the target: what was given back is refused everywhere, what was
/// kept works.
///
/// # Errors
/// When a broker does not answer.
pub async fn ask_everywhere(asker: &Asker, fleet: &Fleet) -> Result<()> {
    let (revoked, kept) = {
        let known = asker.known();
        (known.revoked.clone(), known.kept.clone())
    };
    let asks = fleet
        .members
        .iter()
        .flat_map(|member| revoked.iter().map(|(lease, workload)| asker.must_be_refused(&member.url, lease, workload)));
    futures_util::stream::iter(asks).buffer_unordered(AT_ONCE).try_collect::<()>().await?;
    let logins = kept.iter().map(|held| asker.must_log_in(held, "at the end of the storm"));
    futures_util::stream::iter(logins).buffer_unordered(AT_ONCE).collect::<()>().await;
    Ok(())
}
