//! Handing out a rotating account's password: no driver is called, and the lease is active and on
//! record in one transaction before the secret leaves (AUDITED-OR-NOTHING).

use std::sync::Arc;

use jiff::Timestamp;
use jit_core::account::AccountName;
use jit_core::event::{Event, Granted, LeaseRest, Replayed};
use jit_core::id::RequestId;
use jit_core::lease::{Cause, Idempotency, Lease};
use jit_core::rotation::{Due, Generation, Rotation};
use secrecy::SecretString;
use tokio::time::{Instant, timeout_at};

use super::state::{self, Envelope, Record};
use super::{RotatingAccount, RotationFlow, Site, Working, name, patience, probe, task, trust};
use crate::issue::{Disclosure, draft};
use crate::ledger::Ledger;
use crate::permit::Permit;
use crate::refusal::Refused;
use crate::replay::{self, Handover};
use crate::sealing::Sealer;
use crate::target::Serving;
use crate::undo::{UndoFlow, Unsettled};
use crate::work::Wake;
use arc_swap::ArcSwap;
use jit_ledger::{Change, StoreError};

/// What it takes to hand out a standing account's password.
pub struct HandOutFlow {
    pub(crate) ledger: Ledger,
    /// The accounts' records.
    pub(crate) rotation: Arc<RotationFlow>,
    /// Where an account is that only the store knows.
    pub(crate) serving: Arc<ArcSwap<Serving>>,
    /// An account without a password is rotated first.
    pub(crate) wake: Arc<Wake>,
    /// What takes back a lease that may not have become durable.
    pub(crate) undo: Arc<UndoFlow>,
}

/// The password that is current, and until when it works.
struct Current {
    generation: Generation,
    secret: SecretString,
    /// Whole seconds.
    usable_until: Timestamp,
    previous_valid_until: Option<Timestamp>,
}

/// Hands out the current password of the permitted role's account.
///
/// # Errors
/// [`Refused`]; then nothing was handed out.
pub async fn hand_out(
    flow: &HandOutFlow,
    permit: Permit,
    rotating: &RotatingAccount,
    idempotency: Option<Idempotency>,
) -> Result<Disclosure, Refused> {
    let asked = &permit.decision.asked;
    let site = Site::of(&asked.target, &permit.role, rotating);
    let current = current(flow, &site, asked.at).await?;
    let drafted = draft(&permit, rotating.account.clone(), idempotency);
    let end = drafted.expires_at.min(current.usable_until);
    // What another password would give is another lease: this one cannot be renewed.
    let pending = Lease {
        rotating: Some(current.generation),
        standing: true,
        renewable: false,
        expires_at: end,
        max_expires_at: end,
        ..drafted
    };
    let Ok(active) = pending.settle(None, end) else { return Err(Refused::AuditUnavailable) };
    let decision = permit.decision.recorded();
    let lease = LeaseRest::of(&active);
    let granted = Granted { decision, generation: Some(current.generation), verifier: None, lease };
    let granted = permit.decision.event_of_lease(Event::IssueGranted(granted), flow.rotation.clock.wall(), &active);
    let events = std::iter::once(granted).chain(permit.decision.shadow_events());
    let unsettled = Unsettled::new(&flow.undo, pending);
    let settled = permit.decision.settles(true);
    let change = Change::insert(active.clone()).with_events(events).settling(settled);
    match jit_failpoint::step("rotation.grant", StoreError::at_failpoint, flow.ledger.commit(change)).await {
        Ok(()) => unsettled.settled(),
        Err(StoreError::KeyTaken(id)) => {
            unsettled.settled();
            return Err(Refused::IdempotencyConflict(id));
        }
        Err(error) => {
            unsettled.undo(Cause::NotAudited);
            return Err(error.into());
        }
    }
    flow.wake.expiry_at(active.expires_at);
    let handover = handover(&active.account, current.secret);
    let endpoint = permit.decision.asked.target.endpoint.clone();
    Ok(Disclosure { lease: active, handover, endpoint, previous_valid_until: current.previous_valid_until })
}

fn handover(account: &AccountName, secret: SecretString) -> Handover {
    Handover { username: account.to_string(), secret: Some(secret), properties: Vec::new() }
}

/// The current password; before the first rotation has ended, it is waited for.
async fn current(flow: &HandOutFlow, site: &Site, at: Timestamp) -> Result<Current, Refused> {
    let sealer = flow.rotation.sealer.as_deref().ok_or_else(no_key)?;
    let working = flow.rotation.rotations.of(&site.name);
    let mut changed = working.watch();
    let end = Instant::now() + patience(&site.scope);
    loop {
        let record = trust::load(&flow.rotation, &site.name).await?.record;
        let mut waiting = "the account has no password that the broker knows yet";
        let recorded = record.as_ref().and_then(|record| record.driver.place.as_ref());
        if let Err(elsewhere) = flow.rotation.places.check_handed_out(recorded, site.question()).await {
            tracing::error!(target = %site.target, role = %site.role, account = %site.account, %elsewhere, "a rotating account's password was not handed out: the account is in another place");
            return Err(Refused::TargetUnavailable(ELSEWHERE.to_owned()));
        }
        if let Some(current) = readable(sealer, &site.name, &working, record.as_ref(), at) {
            if !probe::is_dead(site, &working, current.generation, &current.secret).await {
                return Ok(current);
            }
            waiting = TAKEN_BACK;
        } else if let Due::At(until) = task::due(sealer, site, record.as_ref(), flow.rotation.clock.wall()) {
            return Err(Refused::TargetUnavailable(format!("{waiting}; it gets one at {until}")));
        }
        flow.wake.rotation.notify_one();
        if !matches!(timeout_at(end, changed.changed()).await, Ok(Ok(()))) {
            let Some(trouble) = working.trouble() else {
                return Err(Refused::TargetUnavailable(waiting.to_owned()));
            };
            let why = format!("{waiting}: {}", trouble.error);
            return Err(if trouble.refused { Refused::TargetRefused(why) } else { Refused::TargetUnavailable(why) });
        }
    }
}

/// RIGHT-PLACE: its password is neither tried nor named there.
const ELSEWHERE: &str = "what answers is not the server that has the account";

/// Somebody holds the account whom the broker does not know.
const TAKEN_BACK: &str = "somebody else changed the account's password; the account is being taken back";

/// The record's current password, if it has one that can be unsealed.
fn readable(sealer: &Sealer, name: &str, working: &Working, record: Option<&Record>, at: Timestamp) -> Option<Current> {
    let rotation = &record?.rotation;
    let held = rotation.current.as_ref().filter(|_| !rotation.is_being_replaced())?;
    let secret = state::unseal(sealer, name, held).ok()?;
    Some(Current {
        generation: held.generation,
        secret,
        // Asked after the store was read: see `Working::closing`.
        usable_until: working.closing(held.generation).or_else(|| rotation.usable_until(at))?,
        previous_valid_until: rotation.previous_valid_until().filter(|until| at < *until),
    })
}

fn no_key() -> Refused {
    Refused::TargetUnavailable("the broker has no sealing key".to_owned())
}

/// A retry of a live lease with its Idempotency-Key (SAME-ANSWER): the same password, on record before it
/// leaves. The next one is another grant, which lives longer: for it the policies are to be asked.
///
/// # Errors
/// [`Refused::NotAgain`] when the password was rotated meanwhile; whatever the error, nothing was handed out.
pub async fn hand_out_again(flow: &HandOutFlow, lease: Lease, request_id: &RequestId) -> Result<Disclosure, Refused> {
    let sealer = flow.rotation.sealer.as_deref().ok_or_else(no_key)?;
    let name = name(&lease.driver, &lease.account);
    let working = flow.rotation.rotations.of(&name);
    let record = trust::load(&flow.rotation, &name).await?.record;
    let Some(current) = readable(sealer, &name, &working, record.as_ref(), flow.rotation.clock.wall()) else {
        return Err(Refused::TargetUnavailable(
            "the account's password cannot be unsealed, or is being replaced".to_owned(),
        ));
    };
    let site = record.as_ref().and_then(|record| Site::left_behind(&flow.serving.load(), &name, record));
    if let (Some(record), Some(site)) = (&record, &site) {
        let recorded = record.driver.place.as_ref();
        if let Err(elsewhere) = flow.rotation.places.check_handed_out(recorded, site.question()).await {
            tracing::error!(lease = %lease.id, target = %lease.target, %elsewhere, "a rotating account's password was not handed out again: the account is in another place");
            return Err(Refused::WrongPlace { id: lease.id, target: lease.target.to_string() });
        }
        if probe::is_dead(site, &working, current.generation, &current.secret).await {
            flow.wake.rotation.notify_one();
            return Err(Refused::TargetUnavailable(TAKEN_BACK.to_owned()));
        }
    }
    if lease.rotating != Some(current.generation) {
        let reason = "the account's password was changed since; ask for a new lease with another Idempotency-Key";
        return Err(Refused::NotAgain { id: lease.id, reason });
    }
    let again = Replayed::Rotating { generation: current.generation };
    let event = replay::replayed(again, &lease, request_id, flow.rotation.clock.wall());
    let change = Change::record(event);
    jit_failpoint::step("rotation.regrant", StoreError::at_failpoint, flow.ledger.commit(change)).await?;
    let endpoint = flow.serving.load().targets.get(&lease.target).and_then(|target| target.endpoint.clone());
    let handover = handover(&lease.account, current.secret);
    Ok(Disclosure { lease, handover, endpoint, previous_valid_until: current.previous_valid_until })
}

/// Until when the password that a lease handed out works; none for other leases, and when it works
/// no longer. The lease's end does not change it.
pub async fn usable_until(flow: &RotationFlow, lease: &Lease) -> Result<Option<Timestamp>, StoreError> {
    let Some(generation) = lease.rotating else { return Ok(None) };
    let name = name(&lease.driver, &lease.account);
    let rotation = trust::load(flow, &name).await?.rotation;
    Ok(ends(&flow.rotations.of(&name), &rotation, generation, flow.clock.wall()))
}

fn ends(
    working: &Arc<Working>,
    rotation: &Rotation<Envelope>,
    generation: Generation,
    now: Timestamp,
) -> Option<Timestamp> {
    working.closing(generation).or_else(|| rotation.ends(generation, now))
}
