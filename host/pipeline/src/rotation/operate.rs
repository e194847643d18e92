//! What operators see of rotations, and ask of them.

use std::sync::Arc;

use jit_api::admin::RotationRow;
use jit_core::event::{Event, RotationAsked};
use jit_core::name::{RoleName, TargetName};
use jit_core::operator::Operator;
use jit_core::rotation::{Phase, Rotation};
use jit_core::secret::generate_password;
use tokio::time::{Instant, timeout, timeout_at};

use super::state::{self, Envelope, Record};
use super::trust::{self, Loaded};
use super::{RotationFlow, Site, patience, task};
use crate::refusal::Refused;
use crate::target::Serving;
use crate::work::Wake;
use arc_swap::ArcSwap;
use jit_ledger::{Change, StoreError};

/// What it takes to show rotations and to ask for one.
#[derive(Clone)]
pub struct OperateFlow {
    /// The accounts' records.
    pub(crate) rotation: Arc<RotationFlow>,
    /// Which accounts are configured.
    pub(crate) serving: Arc<ArcSwap<Serving>>,
    /// The rotation's task does it.
    pub(crate) wake: Arc<Wake>,
}

/// All rotating accounts: configured, or known from before.
///
/// # Errors
/// When the store fails.
pub async fn list(flow: &OperateFlow) -> Result<Vec<RotationRow>, StoreError> {
    let mut records: std::collections::BTreeMap<String, Loaded> =
        trust::all(&flow.rotation).await?.into_iter().collect();
    let sites: Vec<Site> = Site::configured(&flow.serving.load()).collect();
    let mut rows: Vec<RotationRow> = Vec::new();
    for site in sites {
        let rotation = records.remove(&site.name).map(|loaded| loaded.rotation).unwrap_or_default();
        let names = (site.target.to_string(), site.role.to_string(), site.account.to_string());
        rows.push(row(&flow.rotation, &site.name, names, &rotation, true));
    }
    for (name, loaded) in records {
        // Nothing can be read of one that is not configured either; the log has said so.
        let Some(record) = loaded.record else { continue };
        let names = (record.target.to_string(), record.role.to_string(), record.account.to_string());
        rows.push(row(&flow.rotation, &name, names, &record.rotation, false));
    }
    Ok(rows)
}

fn row(
    flow: &RotationFlow,
    name: &str,
    (target, role, account): (String, String, String),
    rotation: &Rotation<Envelope>,
    configured: bool,
) -> RotationRow {
    let current = rotation.current.as_ref();
    let trouble = flow.rotations.of(name).trouble();
    let opens = |sealer: &crate::sealing::Sealer| current.is_some_and(|held| state::unseal(sealer, name, held).is_ok());
    RotationRow {
        target,
        role,
        account,
        phase: rotation.word().to_owned(),
        generation: current.map(|held| held.generation.number()),
        since: current.map(|held| held.since),
        next_at: rotation.next_at(),
        previous_valid_until: rotation.previous_valid_until(),
        asked: rotation.asked,
        readable: flow.sealer.as_deref().is_some_and(opens),
        configured,
        attempts: trouble.as_ref().map_or(0, |trouble| trouble.attempts),
        last_error: trouble.map(|trouble| trouble.error),
    }
}

/// Rotates an account before its time; waits for the end as long as the target may take. While an
/// overlap is in progress, the rotation is noted and begins when that has ended. `at_once`: no overlap,
/// whatever is in progress; whoever holds a password loses it, and the account's sessions are ended.
///
/// # Errors
/// For what is no rotating role, or when the wish could not be recorded.
pub async fn rotate_now(
    flow: &OperateFlow,
    target: &str,
    role: &str,
    at_once: bool,
    operator: Operator,
) -> Result<RotationRow, Refused> {
    let site = find(flow, target, role)?;
    let working = flow.rotation.rotations.of(&site.name);
    let Some(sealer) = flow.rotation.sealer.clone() else {
        return Err(Refused::TargetUnavailable("the broker has no sealing key".to_owned()));
    };
    let mut changed = working.watch();
    let before = {
        let Ok(_turn) = timeout(patience(&site.scope), working.turn.lock()).await else {
            return Err(Refused::Overloaded);
        };
        let Loaded { record, rotation, distrust, .. } = trust::load(&flow.rotation, &site.name).await?;
        let asked = match site.schedule.filter(|_| at_once) {
            Some(schedule) => {
                let sealed = state::seal(&sealer, &site.name, rotation.next_generation(), &generate_password());
                let sealed = sealed.map_err(|error| Refused::TargetUnavailable(error.to_string()))?;
                rotation.take_back(sealed, schedule, flow.rotation.clock.wall())
            }
            None => rotation.ask(),
        };
        let event = |record| {
            let asked = RotationAsked { account: task::account(&site, &rotation, record), at_once };
            task::event(Event::AdminRotate(asked), flow.rotation.clock.wall(), &site).by(operator)
        };
        // A record that is not believed stays as it is until the rotation's task has told of it.
        if asked != rotation && (at_once || distrust.is_none()) {
            let number = working.next_number();
            let place = record.filter(|_| distrust.is_none()).and_then(|record| record.driver.place);
            let sealed = Record::at(&site, place, asked.clone()).write(&site.name, &sealer, number)?;
            let event = match &distrust {
                Some(why) => event(Some(number)).with_error(why.to_string()),
                None => event(Some(number)),
            };
            flow.rotation.ledger.commit(Change::seal(sealed).with(event)).await?;
        } else {
            flow.rotation.ledger.commit(Change::record(event(None))).await?;
        }
        if let Phase::Staging { next, at_once: true } = &asked.phase {
            working.replaces_with(next.generation);
        }
        working.forgive();
        asked
    };
    flow.wake.rotation.notify_one();
    let next = match before.phase {
        Phase::Staging { .. } => before.next_generation().number().saturating_sub(1),
        _ => before.next_generation().number(),
    };
    let names = || (site.target.to_string(), site.role.to_string(), site.account.to_string());
    let end = Instant::now() + patience(&site.scope);
    loop {
        let rotation = trust::load(&flow.rotation, &site.name).await?.rotation;
        let row = row(&flow.rotation, &site.name, names(), &rotation, true);
        let waits = matches!(rotation.phase, Phase::Overlapping { until } if flow.rotation.clock.wall() < until);
        let done = row.generation.is_some_and(|generation| generation >= next);
        if done || waits || row.attempts > 0 || !matches!(timeout_at(end, changed.changed()).await, Ok(Ok(()))) {
            return Ok(row);
        }
    }
}

fn find(flow: &OperateFlow, target: &str, role: &str) -> Result<Site, Refused> {
    let unknown = || Refused::UnknownTarget(target.escape_debug().to_string());
    let name = TargetName::new(target).map_err(|_| unknown())?;
    let role = RoleName::new(role).map_err(|error| Refused::field("role", format!("role {error}")))?;
    let serving = flow.serving.load();
    let target = serving.targets.get(&name).ok_or_else(unknown)?;
    let rotating = target.roles.get(&role).and_then(|role| role.rotating.as_deref());
    let rotating = rotating.ok_or_else(|| Refused::field("role", format!("role {role} of {name} is not rotating")))?;
    Ok(Site::of(target, &role, rotating))
}

/// Has the account of a lease rotated, if the password that the lease handed out is still current:
/// for an operator who revokes it.
///
/// # Errors
/// As [`rotate_now`].
pub async fn rotate_away(
    flow: &OperateFlow,
    lease: &jit_core::lease::Lease,
    operator: Operator,
) -> Result<Option<RotationRow>, Refused> {
    let Some(generation) = lease.rotating else { return Ok(None) };
    let loaded = trust::load(&flow.rotation, &super::name(&lease.driver, &lease.account)).await?;
    let current = loaded.rotation.current.map(|held| held.generation);
    if current != Some(generation) {
        return Ok(None);
    }
    rotate_now(flow, lease.target.as_str(), lease.role.as_str(), false, operator).await.map(Some)
}
