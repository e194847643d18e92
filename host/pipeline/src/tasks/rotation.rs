//! Rotates accounts when it is due, and ends the overlaps. Sleeps until the earliest of them.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use jit_core::rotation::Due;

use super::board::Board;
use super::driver::{Next, Pace, Pass, Task};
use crate::rotation::operate::OperateFlow;
use crate::rotation::state::{self, Record};
use crate::rotation::{RotationFlow, Site, task, trust};
use crate::sealing::Sealer;
use crate::target::Serving;
use crate::work::Work;
use jit_ledger::StoreError;

/// The task's name.
const NAME: &str = "rotation";
/// The longest sleep; a safeguard against clocks that are set.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);
/// The shortest.
const SHORTEST_SLEEP: Duration = Duration::from_millis(20);

/// Where the rotations run: beside the task, and so that a stop waits for them.
#[derive(Clone)]
pub struct Beside {
    pub(crate) board: Arc<Board>,
    pub(crate) work: Work,
}

/// The task. The rotation of each account is work beside it: one that waits for its target holds up no other.
pub struct RotationTask {
    flow: OperateFlow,
    beside: Beside,
    /// What cannot be unsealed has been told.
    told: bool,
}

impl RotationTask {
    /// That has not looked yet.
    #[must_use]
    pub fn new(flow: OperateFlow, beside: Beside) -> Self {
        Self { flow, beside, told: false }
    }
}

#[async_trait]
impl Task for RotationTask {
    fn name(&self) -> &str {
        NAME
    }

    fn pace(&self) -> Pace {
        Pace { last_backoff: Duration::from_secs(5), ..Pace::default() }
    }

    async fn pass(&mut self) -> Pass {
        if !std::mem::replace(&mut self.told, true) {
            tell_lost_keys(&self.flow.rotation).await;
        }
        match sweep(&self.flow, &self.beside).await {
            Ok(Swept { accounts, sleep }) => Pass::done([("accounts", accounts)], Next::In(sleep)),
            Err(error) => {
                tracing::error!(%error, "the store failed; rotations that are due wait until it is back");
                Pass::failed(error.to_string())
            }
        }
    }

    async fn woken(&mut self) {
        self.flow.wake.rotation.notified().await;
    }
}

/// A password that no configured key opens is told at start, in words that say what follows.
async fn tell_lost_keys(flow: &RotationFlow) {
    let Ok(records) = trust::all(flow).await else { return };
    for (name, loaded) in records {
        if let Some(why) = loaded.distrust {
            let account = name.split_once('\n').map_or("", |(_, account)| account);
            tracing::error!(account, %why, "a rotating account's record is not believed");
        }
        let Some(record) = loaded.record else { continue };
        let Some(held) = &record.rotation.current else { continue };
        let why = match &flow.sealer {
            Some(sealer) => match state::unseal(sealer, &name, held) {
                Ok(_) => continue,
                Err(error) => error.to_string(),
            },
            None => "[store] sealing_key is no longer configured".to_owned(),
        };
        tracing::error!(
            account = %record.account, target = %record.target, role = %record.role, why,
            "the password of a rotating account cannot be unsealed: it is replaced by a rotation as soon as nobody \
             loses by it; to keep it, configure the key that sealed it under [store] former_sealing_keys"
        );
    }
}

/// What a sweep found.
struct Swept {
    /// Accounts that are looked after.
    accounts: u64,
    /// How long to sleep.
    sleep: Duration,
}

/// Starts what is due and says how long to sleep.
async fn sweep(flow: &OperateFlow, beside: &Beside) -> Result<Swept, StoreError> {
    let Some(sealer) = flow.rotation.sealer.clone() else { return Ok(Swept { accounts: 0, sleep: LONGEST_SLEEP }) };
    let records = trust::all(&flow.rotation).await?.into_iter();
    let records: BTreeMap<String, Record> = records.filter_map(|(name, loaded)| Some((name, loaded.record?))).collect();
    let now = flow.rotation.clock.wall();
    let mut sleep = LONGEST_SLEEP;
    let mut accounts = 0;
    for site in sites(&flow.serving.load(), &records) {
        accounts += 1;
        let record = records.get(&site.name);
        gauge(&sealer, &site, record, now);
        match task::due(&sealer, &site, record, now) {
            Due::At(at) => {
                probe(flow, beside, &sealer, &site, record);
                let until = Duration::try_from(at.duration_since(now)).unwrap_or(Duration::ZERO);
                sleep = sleep.min(until);
            }
            Due::Now(_) => {
                let working = flow.rotation.rotations.of(&site.name);
                let wait = working.trouble().map_or(Duration::ZERO, |trouble| {
                    trouble.again.saturating_duration_since(tokio::time::Instant::now())
                });
                if wait.is_zero() {
                    if working.turn.try_lock().is_ok() {
                        start(flow, beside, site);
                    }
                } else {
                    sleep = sleep.min(wait);
                }
            }
        }
    }
    Ok(Swept { accounts, sleep: sleep.max(SHORTEST_SLEEP) })
}

/// What is configured, and what is only in the store: a role that was taken out of the configuration
/// has its overlap ended.
fn sites(serving: &Serving, records: &BTreeMap<String, Record>) -> Vec<Site> {
    let mut sites: Vec<Site> = Site::configured(serving).collect();
    let configured: HashSet<String> = sites.iter().map(|site| site.name.clone()).collect();
    let left = records.iter().filter(|(name, _)| !configured.contains(*name));
    sites.extend(left.filter_map(|(name, record)| Site::left_behind(serving, name, record)));
    sites
}

/// Tries the current password, when it has not been tried for a while or is known to be dead.
fn probe(flow: &OperateFlow, beside: &Beside, sealer: &Sealer, site: &Site, record: Option<&Record>) {
    let Some(current) = record.and_then(|record| record.rotation.current.as_ref()) else { return };
    let working = flow.rotation.rotations.of(&site.name);
    let troubled = working.trouble().is_some_and(|trouble| trouble.again > tokio::time::Instant::now());
    let is_due = working.wants_probe(current.generation) && !troubled && working.turn.try_lock().is_ok();
    if is_due && state::unseal(sealer, &site.name, current).is_ok() {
        let serving = flow.serving.load();
        let again = Site::configured(&serving).find(|other| other.name == site.name);
        if let Some(site) = again {
            start(flow, beside, site);
        }
    }
}

/// As one of the broker's tasks: it ends before the process does. Others do not wait for it.
fn start(flow: &OperateFlow, beside: &Beside, site: Site) {
    let (flow, board) = (flow.clone(), Arc::clone(&beside.board));
    beside.work.spawn(async move {
        let what = format!("role {} of target {}", site.role, site.target);
        if board.beside(NAME, &what, task::advance(&flow.rotation, &site)).await.is_none() {
            // Else it would be tried again at once.
            let also = board.beside(NAME, &what, task::panicked(&flow.rotation, &site));
            also.await;
        }
        flow.wake.rotation.notify_one();
    });
}

fn gauge(sealer: &Sealer, site: &Site, record: Option<&Record>, now: Timestamp) {
    let late = match task::due(sealer, site, record, now) {
        Due::At(_) => 0.0,
        Due::Now(_) => {
            let rotation = record.map(|record| &record.rotation);
            let since = rotation.and_then(|rotation| rotation.previous_valid_until().or_else(|| rotation.next_at()));
            since.map_or(0.0, |since| now.duration_since(since).as_secs_f64().max(0.0))
        }
    };
    let (target, role) = (site.target.to_string(), site.role.to_string());
    metrics::gauge!("jit_rotation_overdue_seconds", "target" => target, "role" => role).set(late);
}
