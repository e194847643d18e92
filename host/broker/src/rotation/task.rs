//! One step of a rotation at a time, in the order that keeps everybody who holds a password: the
//! next password is durable before the backend hears of it, the backend has taken it before it is
//! handed out, and the old one goes when its time is over.

use jiff::Timestamp;
use jit_core::account::AccountName;
use jit_core::driver::{AccountView, RotationStep};
use jit_core::event::{AuditEvent, EventKind};
use jit_core::id::LeaseId;
use jit_core::outcome::Outcome;
use jit_core::rotation::{Due, Held, Phase, Rotation, Step};
use jit_core::secret::generate_password;
use secrecy::SecretString;

use super::state::{self, Envelope, Record};
use super::{Site, Working};
use crate::broker::Broker;
use crate::fault;
use crate::sealing::Sealer;
use crate::store::{Change, StoreError};

/// The most steps in one go: begin, stage, and one more in case the first was made by another.
const MOST_STEPS: usize = 3;

/// Why a step failed; it is tried again.
#[derive(Debug, thiserror::Error)]
enum StepFailed {
    /// The backend said no, or its answer is unknown: the same step finds out.
    #[error("{0}")]
    Backend(String),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The password cannot be sealed or unsealed.
    #[error("{0}")]
    Sealing(String),
}

/// What is to be done next with an account.
#[must_use]
pub fn due(sealer: &Sealer, site: &Site, record: Option<&Record>, now: Timestamp) -> Due {
    let unknown = Rotation::default();
    let rotation = record.map_or(&unknown, |record| &record.rotation);
    let due = rotation.due(now, |held| state::unseal(sealer, &site.name, held).is_ok());
    match due {
        // Nothing is begun for a role that is gone; what overlaps is ended.
        Due::Now(Step::Begin | Step::Stage) if site.schedule.is_none() => Due::At(Timestamp::MAX),
        due => due,
    }
}

/// Does what is due with an account. What fails is told, on record and remembered for the next
/// attempt. Nothing happens when another task is at it.
pub async fn advance(broker: &Broker, site: &Site) {
    let Some(sealer) = broker.sealer.clone() else { return };
    let working = broker.rotations.of(&site.name);
    let Ok(_turn) = working.turn.try_lock() else { return };
    for _ in 0..MOST_STEPS {
        match step(broker, &sealer, site, &working).await {
            Ok(true) => working.done(),
            Ok(false) => return,
            Err(error) => return failed(broker, site, &working, &error).await,
        }
    }
}

/// One step; false when none is due.
async fn step(broker: &Broker, sealer: &Sealer, site: &Site, working: &Working) -> Result<bool, StepFailed> {
    let record = state::load(&*broker.store, &site.name).await?;
    let now = Timestamp::now();
    let Due::Now(step) = due(sealer, site, record.as_ref(), now) else { return Ok(false) };
    let rotation = record.map(|record| record.rotation).unwrap_or_default();
    match step {
        Step::Begin => begin(broker, sealer, site, &rotation).await?,
        Step::Stage => stage(broker, sealer, site, working, &rotation).await?,
        Step::Discard => discard(broker, sealer, site, &rotation).await?,
    }
    Ok(true)
}

async fn begin(broker: &Broker, sealer: &Sealer, site: &Site, rotation: &Rotation<Envelope>) -> Result<(), StepFailed> {
    let Some(schedule) = site.schedule else { return Ok(()) };
    let sealed = state::seal(sealer, &site.name, rotation.next_generation(), &generate_password())
        .map_err(|error| StepFailed::Sealing(error.to_string()))?;
    let next = rotation.begin(sealed, schedule, Timestamp::now()).map_err(impossible)?;
    let change = change(sealer, site, next, Vec::new())?;
    Ok(fault::step("rotation.begin", StoreError::at_failpoint, broker.commit(change)).await?)
}

async fn stage(
    broker: &Broker,
    sealer: &Sealer,
    site: &Site,
    working: &Working,
    rotation: &Rotation<Envelope>,
) -> Result<(), StepFailed> {
    let Phase::Staging { next } = &rotation.phase else { return Ok(()) };
    let secret = unseal(sealer, site, next)?;
    let staging = call(site, RotationStep::Stage, Some(&secret));
    fault::step("rotation.stage", at_failpoint, staging).await?;
    let committing = call(site, RotationStep::Commit, Some(&secret));
    fault::step("rotation.commit", at_failpoint, committing).await?;

    let now = Timestamp::now();
    let until = rotation.overlap_end(now);
    if let Some(current) = &rotation.current {
        // Before it is durable: whoever is told now until when that password works is told this.
        working.close(current.generation, until);
    }
    let rotated = rotation.staged(now, until).map_err(impossible)?;
    let event = event(EventKind::AccountRotated, site, &rotated)
        .with("previous_valid_until", until.to_string())
        .with("asked", rotation.asked)
        .with("next_rotation_at", rotated.next_at().map(|at| at.to_string()));
    let change = change(sealer, site, rotated, vec![event])?;
    fault::step("rotation.record", StoreError::at_failpoint, broker.commit(change)).await?;
    count(site, "rotated");
    metrics::gauge!("jit_rotation_last_timestamp_seconds", "target" => site.target.to_string(), "role" => site.role.to_string())
        .set(now.as_second() as f64);
    tracing::info!(target = %site.target, role = %site.role, account = %site.account, generation = %next.generation, previous_valid_until = %until, "account rotated");
    Ok(())
}

async fn discard(
    broker: &Broker,
    sealer: &Sealer,
    site: &Site,
    rotation: &Rotation<Envelope>,
) -> Result<(), StepFailed> {
    // With a key that is lost the old password goes all the same.
    let current = rotation.current.as_ref().and_then(|held| unseal(sealer, site, held).ok());
    let discarding = call(site, RotationStep::Discard, current.as_ref());
    fault::step("rotation.discard", at_failpoint, discarding).await?;
    let stable = rotation.discarded().map_err(impossible)?;
    let event = event(EventKind::OverlapEnded, site, &stable);
    let change = change(sealer, site, stable, vec![event])?;
    fault::step("rotation.close", StoreError::at_failpoint, broker.commit(change)).await?;
    count(site, "overlap-ended");
    tracing::info!(target = %site.target, role = %site.role, account = %site.account, "the account's old password works no longer");
    Ok(())
}

/// One call of the driver. Refused and unknown are alike: the step is done again, and the driver
/// finds out by itself whether it took effect.
async fn call(site: &Site, step: RotationStep, password: Option<&SecretString>) -> Result<(), StepFailed> {
    let account = view(&site.account);
    match site.driver.rotate(&site.scope, &site.view, &account, step, password).await {
        Outcome::Done(()) => Ok(()),
        Outcome::Refused(refusal) => Err(StepFailed::Backend(refusal.reason())),
        Outcome::Unknown(reason) => Err(StepFailed::Backend(format!("outcome unknown: {reason}"))),
    }
}

/// The account as its driver sees it: of no lease and no workload, and without an end.
fn view(account: &AccountName) -> AccountView {
    let now = Timestamp::now();
    AccountView {
        name: account.clone(),
        // The contract has no account without one; this is nobody's.
        lease_id: LeaseId::generate(now),
        workload: "-".to_owned(),
        expires_at: u64::try_from(Timestamp::MAX.as_second()).unwrap_or(u64::MAX),
        external_id: None,
        now: u64::try_from(now.as_second()).unwrap_or(0),
    }
}

fn unseal(sealer: &Sealer, site: &Site, held: &Held<Envelope>) -> Result<SecretString, StepFailed> {
    state::unseal(sealer, &site.name, held).map_err(|error| StepFailed::Sealing(error.to_string()))
}

fn at_failpoint() -> StepFailed {
    StepFailed::Backend("failpoint".to_owned())
}

/// The state was just asked what is due.
fn impossible(error: jit_core::rotation::StepError) -> StepFailed {
    StepFailed::Store(StoreError::Failed(error.to_string()))
}

fn change(
    sealer: &Sealer,
    site: &Site,
    rotation: Rotation<Envelope>,
    events: Vec<AuditEvent>,
) -> Result<Change, StoreError> {
    let sealed = vec![Record::at(site, rotation).write(&site.name, sealer)?];
    Ok(Change { sealed, events, ..Change::default() })
}

/// An event about an account's rotation.
pub(super) fn event(kind: EventKind, site: &Site, rotation: &Rotation<Envelope>) -> AuditEvent {
    let mut event = AuditEvent::new(kind, Timestamp::now());
    event.target_db = Some(site.target.to_string());
    event.role = Some(site.role.to_string());
    event.ephemeral_id = Some(site.account.to_string());
    event.driver_sha256 = Some(site.driver_ref.sha256.clone());
    event.with("generation", rotation.current.as_ref().map(|current| current.generation.number()))
}

fn count(site: &Site, outcome: &'static str) {
    let (target, role) = (site.target.to_string(), site.role.to_string());
    metrics::counter!("jit_rotation_total", "target" => target, "role" => role, "outcome" => outcome).increment(1);
}

/// Told each time, on record at its 1st, 2nd, 4th, 8th … time.
async fn failed(broker: &Broker, site: &Site, working: &Working, error: &StepFailed) {
    let attempts = working.failed(error.to_string());
    count(site, "failed");
    tracing::warn!(
        target = %site.target, role = %site.role, account = %site.account, attempts, %error,
        "a rotation's step failed; it is tried again, and callers get the last good password meanwhile"
    );
    if !attempts.is_power_of_two() {
        return;
    }
    let event = event(EventKind::RotationFailed, site, &Rotation::default());
    let event = event.with("attempts", attempts).with_error(error.to_string());
    if let Err(error) = broker.commit(Change { events: vec![event], ..Change::default() }).await {
        tracing::warn!(%error, "the failure of a rotation could not be recorded");
    }
}
