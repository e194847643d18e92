//! One step of a rotation at a time, in the order that keeps everybody who holds a password: the
//! next password is durable before the backend hears of it, the backend has taken it before it is
//! handed out, and the old one goes when its time is over.

use std::time::Duration;

use jiff::Timestamp;
use jit_core::account::AccountName;
use jit_core::driver::{AccountView, RotationStep};
use jit_core::event::{AuditEvent, Event, PreviousPassword, Rotated, RotatingAccount, RotationFailed};
use jit_core::id::LeaseId;
use jit_core::outcome::{Outcome, Refusal};
use jit_core::place::{Elsewhere, Place};
use jit_core::rotation::{Due, Held, Phase, Rotation, Step};
use jit_core::secret::generate_password;
use secrecy::SecretString;

use super::probe::{self, EVERY, Login};
use super::state::{self, Envelope, Record};
use super::trust::{self, Distrust, Known};
use super::{RotationFlow, Site, Working};
use crate::places::{Misplaced, NotTold};
use crate::sealing::Sealer;
use jit_ledger::{Change, StoreError, alone};

/// The most steps in one go: begin, stage, taking back, replacing, and one more in case the first was
/// made by another.
const MOST_STEPS: usize = 5;

/// How long an account is left to another broker that is at it.
const ANOTHERS: Duration = Duration::from_millis(500);

/// Why a step failed; it is tried again.
#[derive(Debug, thiserror::Error)]
enum StepFailed {
    /// The backend said no, or its answer is unknown: the same step finds out.
    #[error("{0}")]
    Backend(String),
    /// The backend said no and will say it again.
    #[error("{0}")]
    Refused(String),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The password cannot be sealed or unsealed.
    #[error("{0}")]
    Sealing(String),
    /// What answers is not the server that has the account (RIGHT-PLACE).
    #[error(transparent)]
    Elsewhere(#[from] Box<Elsewhere>),
}

impl StepFailed {
    /// It will fail again until somebody has changed something.
    fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused(_) | Self::Elsewhere(_))
    }
}

impl From<Misplaced> for StepFailed {
    fn from(misplaced: Misplaced) -> Self {
        match misplaced {
            Misplaced::Elsewhere(elsewhere) => Self::Elsewhere(elsewhere),
            Misplaced::NotTold(NotTold { reason, .. }) => Self::Backend(reason),
        }
    }
}

/// One account's step: who takes it, and where.
struct Turn<'t> {
    flow: &'t RotationFlow,
    sealer: &'t Sealer,
    site: &'t Site,
    working: &'t Working,
    /// Where the account is.
    place: Place,
}

/// What is to be done next with an account.
#[must_use]
pub fn due(sealer: &Sealer, site: &Site, record: Option<&Record>, now: Timestamp) -> Due {
    let unknown = Rotation::default();
    let rotation = record.map_or(&unknown, |record| &record.rotation);
    let due = rotation.due(now, |held| state::unseal(sealer, &site.name, held).is_ok());
    match due {
        // Nothing is begun for a role that is gone; what overlaps is ended.
        Due::Now(Step::Begin | Step::Stage | Step::Replace) if site.schedule.is_none() => Due::At(Timestamp::MAX),
        due => due,
    }
}

/// Does what is due with an account. What fails is told, on record and remembered for the next
/// attempt. Nothing happens when another task is at it.
pub async fn advance(flow: &RotationFlow, site: &Site) {
    let Some(sealer) = flow.sealer.clone() else { return };
    let working = flow.rotations.of(&site.name);
    let Ok(_turn) = working.turn.try_lock() else { return };
    let work = format!("rotation/{}", site.name);
    match alone(flow.ledger.store(), &work, steps(flow, &sealer, site, &working)).await {
        Ok(Some(())) => {}
        // What another broker does is in the store in a moment.
        Ok(None) => tokio::time::sleep(ANOTHERS).await,
        Err(error) => failed(flow, site, &working, &error.into()).await,
    }
}

async fn steps(flow: &RotationFlow, sealer: &Sealer, site: &Site, working: &Working) {
    for _ in 0..MOST_STEPS {
        match step(flow, sealer, site, working).await {
            Ok(true) => working.done(),
            Ok(false) => return,
            Err(error) => return failed(flow, site, working, &error).await,
        }
    }
}

/// The code panicked while it rotated an account. That counts as a failure, so the next attempt waits.
pub(crate) async fn panicked(flow: &RotationFlow, site: &Site) {
    let working = flow.rotations.of(&site.name);
    failed(flow, site, &working, &StepFailed::Backend("the code panicked".to_owned())).await;
}

/// One step; false when none is due.
async fn step(flow: &RotationFlow, sealer: &Sealer, site: &Site, working: &Working) -> Result<bool, StepFailed> {
    let loaded = trust::load(flow, &site.name).await?;
    let due = due(sealer, site, loaded.record.as_ref(), flow.clock.wall());
    let rotation = loaded.rotation;
    let current = rotation.current.as_ref().filter(|_| site.schedule.is_some());
    if matches!(due, Due::At(_)) && !current.is_some_and(|current| working.wants_probe(current.generation)) {
        return Ok(false);
    }
    // Another server is not asked, nor told a password (RIGHT-PLACE). Where a record that is not believed says
    // that the account is, counts as little as the rest of it.
    let recorded = loaded.record.as_ref().filter(|_| loaded.distrust.is_none());
    let recorded = recorded.and_then(|record| record.driver.place.as_ref());
    let place = flow.places.check_standing(recorded, site.question()).await?;
    if !flow.ledger.store().holds() {
        return Err(StepFailed::Backend(
            "the store has not heard of this broker for a while: another one may be at it".into(),
        ));
    }
    let turn = Turn { flow, sealer, site, working, place };
    if let Some(tampered) = turn.tampered(&rotation, due).await {
        tell_tampered(site);
        turn.take_back(tampered, Some(PASSWORD_CHANGED)).await?;
        return Ok(true);
    }
    let Due::Now(step) = due else { return Ok(false) };
    match step {
        Step::Replace => turn.replace(&rotation).await?,
        Step::Begin => turn.begin(&rotation, loaded.distrust.as_ref()).await?,
        Step::Stage => turn.stage(&rotation).await?,
        Step::Discard => turn.discard(&rotation).await?,
    }
    Ok(true)
}

/// What is on record of an account that somebody else changed.
const PASSWORD_CHANGED: &str = "the current password works no longer: somebody else changed the account";

impl Turn<'_> {
    /// The rotation, if the current password works no longer: then somebody else changed the account. Tried
    /// before each step, and without one when it has not been tried for a while.
    async fn tampered<'r>(&self, rotation: &'r Rotation<Envelope>, due: Due) -> Option<&'r Rotation<Envelope>> {
        let Self { sealer, site, working, .. } = self;
        let current = rotation.current.as_ref().filter(|_| !rotation.is_being_replaced() && site.schedule.is_some())?;
        let secret = unseal(sealer, site, current).ok()?;
        let known = match due {
            Due::Now(_) => None,
            Due::At(_) => working.tried(current.generation, EVERY),
        };
        let login = match known {
            Some(login) => login,
            None => probe::login(site, working, current.generation, &secret).await,
        };
        (login == Login::Refused).then_some(rotation)
    }

    /// The next password is decided on; it replaces whatever the account has now.
    async fn take_back(&self, rotation: &Rotation<Envelope>, tampered: Option<&str>) -> Result<(), StepFailed> {
        let Self { site, working, .. } = self;
        let Some(schedule) = site.schedule else { return Ok(()) };
        let generation = rotation.next_generation();
        let taken = rotation.take_back(self.new_password(rotation)?, schedule, self.flow.clock.wall());
        let event = |record| Some(self.tampering(rotation, record, tampered?));
        self.commit("rotation.begin", taken, event).await?;
        working.replaces_with(generation);
        Ok(())
    }

    /// A new password, sealed as the next one.
    fn new_password(&self, rotation: &Rotation<Envelope>) -> Result<Envelope, StepFailed> {
        state::seal(self.sealer, &self.site.name, rotation.next_generation(), &generate_password())
            .map_err(|error| StepFailed::Sealing(error.to_string()))
    }

    /// That the account or its record was changed by somebody else.
    fn tampering(&self, rotation: &Rotation<Envelope>, record: u64, why: &str) -> AuditEvent {
        let account = account(self.site, rotation, Some(record));
        self.event(Event::AccountTampered(account)).with_error(why)
    }

    fn event(&self, event: Event) -> AuditEvent {
        self::event(event, self.flow.clock.wall(), self.site)
    }

    /// The rotation's next state becomes durable, with its event, which names the number of the record.
    async fn commit(
        &self,
        point: &'static str,
        rotation: Rotation<Envelope>,
        event: impl FnOnce(u64) -> Option<AuditEvent>,
    ) -> Result<(), StepFailed> {
        let Self { flow, sealer, site, working, place } = self;
        let number = working.next_number();
        let generation = rotation.current.as_ref().map(|held| held.generation).unwrap_or_default();
        let sealed = Record::at(site, Some(place.clone()), rotation).write(&site.name, sealer, number)?;
        let change = Change::seal(sealed).with_events(event(number));
        jit_failpoint::step(point, StoreError::at_failpoint, flow.ledger.commit(change)).await?;
        working.saw(Known { number, generation });
        Ok(())
    }
}

fn tell_tampered(site: &Site) {
    count(site, "tampered");
    tracing::error!(
        target = %site.target, role = %site.role, account = %site.account,
        "somebody else changed the password of a rotating account; it is taken back, and its sessions are ended"
    );
}

/// Why a password that was set is not handed out.
const NOT_LET_IN: &str = "the account cannot log in from here with the password that was just set: it must be able to, \
                          so that the broker sees when somebody else changes it";

impl Turn<'_> {
    /// The next password in place of every other.
    async fn replace(&self, rotation: &Rotation<Envelope>) -> Result<(), StepFailed> {
        let Self { sealer, site, working, .. } = self;
        let Phase::Staging { next, .. } = &rotation.phase else { return Ok(()) };
        if !working.decided_on(next.generation) {
            return self.take_back(rotation, None).await;
        }
        let secret = unseal(sealer, site, next)?;
        let replacing = call(self.flow, site, RotationStep::Replace, Some(&secret));
        jit_failpoint::step("rotation.stage", at_failpoint, replacing).await?;
        if probe::login(site, working, next.generation, &secret).await == Login::Refused {
            return Err(StepFailed::Backend(NOT_LET_IN.to_owned()));
        }
        let now = self.flow.clock.wall();
        if let Some(current) = &rotation.current {
            working.close(current.generation, now);
        }
        let replaced = rotation.replaced(now).map_err(impossible)?;
        let rotated = |record| Rotated {
            account: account(site, &replaced, Some(record)),
            previous: PreviousPassword::Replaced { at_once: true },
            next_rotation_at: replaced.next_at(),
        };
        let event = |record| Some(self.event(Event::AccountRotated(rotated(record))));
        self.commit("rotation.record", replaced.clone(), event).await?;
        count(site, "rotated");
        tracing::info!(target = %site.target, role = %site.role, account = %site.account, generation = %next.generation, "the account's password is replaced and its sessions are ended");
        Ok(())
    }

    /// The next password is decided on. After a record that was not believed, that is on record with it.
    async fn begin(&self, rotation: &Rotation<Envelope>, distrust: Option<&Distrust>) -> Result<(), StepFailed> {
        let Self { site, .. } = self;
        let Some(schedule) = site.schedule else { return Ok(()) };
        let next =
            rotation.begin(self.new_password(rotation)?, schedule, self.flow.clock.wall()).map_err(impossible)?;
        if let Some(why) = distrust {
            count(site, "record-distrusted");
            tracing::error!(
                target = %site.target, role = %site.role, account = %site.account, %why,
                "a rotating account's record is not believed; none of its passwords is used, and the account gets a new one"
            );
        }
        let event = |record| Some(self.tampering(rotation, record, &distrust?.to_string()));
        self.commit("rotation.begin", next, event).await
    }

    async fn stage(&self, rotation: &Rotation<Envelope>) -> Result<(), StepFailed> {
        let Self { sealer, site, working, .. } = self;
        let Phase::Staging { next, .. } = &rotation.phase else { return Ok(()) };
        let secret = unseal(sealer, site, next)?;
        let staging = call(self.flow, site, RotationStep::Stage, Some(&secret));
        jit_failpoint::step("rotation.stage", at_failpoint, staging).await?;
        let committing = call(self.flow, site, RotationStep::Commit, Some(&secret));
        jit_failpoint::step("rotation.commit", at_failpoint, committing).await?;
        if probe::login(site, working, next.generation, &secret).await == Login::Refused {
            // The one before worked from here a moment ago.
            if rotation.current.is_some() {
                tell_tampered(site);
                return self.take_back(rotation, Some(PASSWORD_CHANGED)).await;
            }
            return Err(StepFailed::Refused(NOT_LET_IN.to_owned()));
        }

        let now = self.flow.clock.wall();
        let until = rotation.overlap_end(now);
        if let Some(current) = &rotation.current {
            // Before it is durable: whoever is told now until when that password works is told this.
            working.close(current.generation, until);
        }
        let rotated = rotation.staged(now, until).map_err(impossible)?;
        let event = |record| {
            Some(self.event(Event::AccountRotated(Rotated {
                account: account(site, &rotated, Some(record)),
                previous: PreviousPassword::Overlaps { previous_valid_until: until, asked: rotation.asked },
                next_rotation_at: rotated.next_at(),
            })))
        };
        self.commit("rotation.record", rotated.clone(), event).await?;
        count(site, "rotated");
        metrics::gauge!("jit_rotation_last_timestamp_seconds", "target" => site.target.to_string(), "role" => site.role.to_string())
            .set(now.as_second() as f64);
        tracing::info!(target = %site.target, role = %site.role, account = %site.account, generation = %next.generation, previous_valid_until = %until, "account rotated");
        Ok(())
    }

    async fn discard(&self, rotation: &Rotation<Envelope>) -> Result<(), StepFailed> {
        let Self { sealer, site, .. } = self;
        // With a key that is lost the old password goes all the same.
        let current = rotation.current.as_ref().and_then(|held| unseal(sealer, site, held).ok());
        let discarding = call(self.flow, site, RotationStep::Discard, current.as_ref());
        jit_failpoint::step("rotation.discard", at_failpoint, discarding).await?;
        let stable = rotation.discarded().map_err(impossible)?;
        let event = |record| Some(self.event(Event::OverlapEnded(account(site, &stable, Some(record)))));
        self.commit("rotation.close", stable.clone(), event).await?;
        count(site, "overlap-ended");
        tracing::info!(target = %site.target, role = %site.role, account = %site.account, "the account's old password no longer works");
        Ok(())
    }
}

/// One call of the driver. Refused and unknown are alike: the step is done again, and the driver
/// finds out by itself whether it took effect.
async fn call(
    flow: &RotationFlow,
    site: &Site,
    step: RotationStep,
    password: Option<&SecretString>,
) -> Result<(), StepFailed> {
    let account = view(&site.account, flow.clock.wall());
    match site.driver.rotate(&site.scope, &site.view, &account, step, password).await {
        Outcome::Done(()) => Ok(()),
        Outcome::Refused(refusal @ Refusal::Unavailable { .. }) => Err(StepFailed::Backend(refusal.reason())),
        Outcome::Refused(refusal) => Err(StepFailed::Refused(refusal.reason())),
        Outcome::Unknown(reason) => Err(StepFailed::Backend(format!("outcome unknown: {reason}"))),
    }
}

/// The account as its driver sees it: of no lease and no workload, and without an end.
fn view(account: &AccountName, now: Timestamp) -> AccountView {
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

/// An event about an account's rotation.
pub(super) fn event(event: Event, at: Timestamp, site: &Site) -> AuditEvent {
    AuditEvent {
        target_db: Some(site.target.to_string()),
        role: Some(site.role.to_string()),
        ephemeral_id: Some(site.account.to_string()),
        driver_sha256: Some(site.driver_ref.sha256.clone()),
        ..AuditEvent::new(event, at)
    }
}

/// Which account, how far it is, and under which number that becomes durable.
pub(super) fn account(site: &Site, rotation: &Rotation<Envelope>, record: Option<u64>) -> RotatingAccount {
    RotatingAccount {
        // With the account that is its record's name: see `trust::of_log`.
        connection: site.driver_ref.connection.as_ref().unwrap_or(&site.driver_ref.plugin).clone(),
        generation: rotation.current.as_ref().map(|current| current.generation),
        record,
    }
}

fn count(site: &Site, outcome: &'static str) {
    let (target, role) = (site.target.to_string(), site.role.to_string());
    metrics::counter!("jit_rotation_total", "target" => target, "role" => role, "outcome" => outcome).increment(1);
}

/// Told each time, on record at its 1st, 2nd, 4th, 8th … time.
async fn failed(flow: &RotationFlow, site: &Site, working: &Working, error: &StepFailed) {
    let attempts = working.failed(error.to_string(), error.is_refusal());
    count(site, "failed");
    tracing::warn!(
        target = %site.target, role = %site.role, account = %site.account, attempts, %error,
        "a rotation's step failed; it is tried again, and callers get the last good password meanwhile"
    );
    if !attempts.is_power_of_two() {
        return;
    }
    let failed = RotationFailed { account: account(site, &Rotation::default(), None), attempts };
    let event = event(Event::RotationFailed(failed), flow.clock.wall(), site).with_error(error.to_string());
    if let Err(error) = flow.ledger.commit(Change::record(event)).await {
        tracing::warn!(%error, "the failure of a rotation could not be recorded");
    }
}
