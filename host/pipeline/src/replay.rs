//! SAME-ANSWER: a retry with the same Idempotency-Key gets the same lease, never a second account.
//!
//! Requests with one key take turns ([`Turns`]). The one that comes second finds the lease in the
//! store: while its secret is still in memory ([`Handovers`]) it gets the very same reply; after a
//! restart, and from another broker of the store, the policies are asked again, the account's password is reset, and
//! the new one handed out. The broker that reset it has the lease from then on, and a secret that another one still
//! has in memory is not given again. Each reply is on record. Of a rotating account only the password that the lease handed out is given again. Where the
//! caller made the password, the reply has no secret, and is simply given again.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use jiff::Timestamp;
use jit_core::driver::{Feature, RotationStep};
use jit_core::event::{AuditEvent, Denied, Event, Replayed};
use jit_core::id::{LeaseId, RequestId};
use jit_core::lease::{Idempotency, Lease, LeaseState};
use jit_core::outcome::{Outcome, Refusal};
use jit_core::secret::generate_password;
use jit_core::ttl::Ttl;
use jit_identity::Verified;
use secrecy::SecretString;

use crate::chain;
use crate::clock::LeaseClock;
use crate::issue::{Disclosure, offered, permitted};
use crate::ledger::Ledger;
use crate::permit::{Counting, DecideFlow, Permit};
use crate::places::{Misplaced, NotTold, Places};
use crate::refusal::Refused;
use crate::request::CheckedRequest;
use crate::rotation::issue::{HandOutFlow, hand_out_again};
use crate::target::{Remover, Serving, account_view};
use arc_swap::ArcSwap;
use jit_ledger::{Change, StoreError};

/// What it takes to give an answer again.
pub struct ReplayFlow {
    pub(crate) ledger: Ledger,
    pub(crate) clock: Arc<LeaseClock>,
    /// A new password is a new grant.
    pub(crate) decide: DecideFlow,
    /// The driver that resets a password.
    pub(crate) serving: Arc<ArcSwap<Serving>>,
    /// Whether what answers is where the account is.
    pub(crate) places: Arc<Places>,
    /// Secrets of the last minutes.
    pub(crate) handovers: Arc<Handovers>,
    /// Replies that did not arrive the first time.
    pub(crate) abandoned: Arc<Abandoned>,
    /// Passwords of standing accounts.
    pub(crate) hand_out: Arc<HandOutFlow>,
}

/// What the caller gets beside the lease.
#[derive(Clone)]
pub struct Handover {
    /// The account's name, as the backend knows it.
    pub username: String,
    /// The secret; none where the caller made it.
    pub secret: Option<SecretString>,
    /// What else the driver said.
    pub properties: Vec<(String, String)>,
}

/// How long a secret stays in memory for a retry: a client's burst of retries, and some.
const KEPT_FOR: Duration = Duration::from_secs(120);
/// The most secrets kept; beyond it a retry resets the password instead.
const MOST_KEPT: usize = 10_000;

/// Secrets of the last minutes, for retries with an Idempotency-Key. Never on disk.
#[derive(Default)]
pub struct Handovers(Mutex<HashMap<LeaseId, (Instant, Handover)>>);

impl Handovers {
    /// Keeps a secret for a while.
    pub fn keep(&self, lease: &LeaseId, handover: Handover) {
        let mut kept = self.0.lock();
        if kept.len() < MOST_KEPT {
            kept.insert(lease.clone(), (Instant::now(), handover));
        }
    }

    fn get(&self, lease: &LeaseId) -> Option<Handover> {
        let kept = self.0.lock();
        kept.get(lease).filter(|(since, _)| since.elapsed() < KEPT_FOR).map(|(_, handover)| handover.clone())
    }

    /// Forgets the secret of a lease that is over.
    pub fn forget(&self, lease: &LeaseId) {
        self.0.lock().remove(lease);
    }

    /// Forgets what is old.
    pub fn sweep(&self) {
        let mut kept = self.0.lock();
        kept.retain(|_, (since, _)| since.elapsed() < KEPT_FOR);
    }
}

/// Requests with the same key, one after the other.
#[derive(Default)]
pub struct Turns(Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>);

/// A request's turn; the next one's begins when it is dropped.
pub struct Turn<'a> {
    turns: &'a Turns,
    key: String,
    held: Option<tokio::sync::OwnedMutexGuard<()>>,
}

impl Turns {
    /// Waits for the key's turn, at most half a minute.
    ///
    /// # Errors
    /// [`Refused::Overloaded`] when those before take too long.
    pub async fn take(&self, key: &str) -> Result<Turn<'_>, Refused> {
        let turn = {
            let mut turns = self.0.lock();
            Arc::clone(turns.entry(key.to_owned()).or_default())
        };
        match tokio::time::timeout(Duration::from_secs(30), turn.lock_owned()).await {
            Ok(held) => Ok(Turn { turns: self, key: key.to_owned(), held: Some(held) }),
            Err(_) => {
                self.forget(key);
                Err(Refused::Overloaded)
            }
        }
    }

    /// Takes a key out of the table for which nobody works or waits.
    fn forget(&self, key: &str) {
        let mut turns = self.0.lock();
        // One reference is the table's own.
        if turns.get(key).is_some_and(|turn| Arc::strong_count(turn) == 1) {
            turns.remove(key);
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.held = None;
        self.turns.forget(&self.key);
    }
}

/// The answer that this key already has, if it has one. It never gives more than the first answer did, and
/// each time it is on record before the secret leaves.
///
/// # Errors
/// [`Refused::IdempotencyConflict`] for another request under the same key,
/// [`Refused::LeaseNotActive`] when its lease is over, [`Refused::NotAgain`] when what it handed out has
/// changed since, [`Refused::PolicyDenied`] when the policies would no longer grant it.
pub async fn same_answer(
    flow: &ReplayFlow,
    caller: &Arc<Verified>,
    request: &CheckedRequest,
    idempotency: &Idempotency,
    request_id: &RequestId,
) -> Result<Option<Disclosure>, Refused> {
    let Some(lease) = flow.ledger.store().lease_by_key(&idempotency.key).await? else { return Ok(None) };
    if !is_same_request(&lease, idempotency) {
        return Err(Refused::IdempotencyConflict(lease.id));
    }
    let over = lease.expires_at <= flow.clock.now();
    match lease.state {
        LeaseState::Active if !over => {}
        // Its request is still at work in this process, past our patience, or in another broker, or a crash left it
        // and recovery is about to close it: the caller tries again.
        LeaseState::Pending => return Err(Refused::Overloaded),
        state => return Err(Refused::LeaseNotActive { id: lease.id, state }),
    }
    let lease = own(flow, lease, request_id).await?;
    if lease.rotating.is_some() {
        let disclosure = hand_out_again(&flow.hand_out, lease, request_id).await?;
        flow.abandoned.picked_up(&disclosure.lease.id);
        return Ok(Some(disclosure));
    }
    let endpoint = flow.serving.load().targets.get(&lease.target).and_then(|target| target.endpoint.clone());
    let handover = match flow.handovers.get(&lease.id) {
        Some(handover) => {
            let again = Replayed::Own { password_reset: false, decision: None };
            record(flow, replayed(again, &lease, request_id, flow.clock.wall())).await?;
            handover
        }
        // Nothing secret is given, now or then.
        None if lease.verifier.is_some() => {
            let again = Replayed::Own { password_reset: false, decision: None };
            record(flow, replayed(again, &lease, request_id, flow.clock.wall())).await?;
            Handover { username: lease.login().to_owned(), secret: None, properties: Vec::new() }
        }
        None => {
            let permit = permitted_again(flow, caller, request, &lease, request_id).await?;
            reset_password(flow, &lease, &permit, request_id).await?
        }
    };
    flow.abandoned.picked_up(&lease.id);
    Ok(Some(Disclosure { lease, handover, endpoint, previous_valid_until: None }))
}

/// For how long after a lease was asked for another broker may still be answering that request, and how far the clocks of
/// two brokers may differ.
const ANSWERING: Duration = Duration::from_secs(5);

/// The lease as this broker's own: what another one has of it in memory counts no more.
///
/// A request that came while another broker was at work on the same one is no retry: its caller may have gone, and with
/// it nobody would get the new password, while the other broker's answer has arrived. So the caller tries again.
async fn own(flow: &ReplayFlow, lease: Lease, request_id: &RequestId) -> Result<Lease, Refused> {
    if flow.ledger.store().owns(&lease.id).await? {
        return Ok(lease);
    }
    if is_beside(&lease.id, request_id) {
        return Err(Refused::Overloaded);
    }
    let taken = lease.taken_over();
    match flow.ledger.commit(Change::step(taken.clone())).await {
        Ok(()) => {}
        // A renewal or an end was faster: the caller tries again.
        Err(StoreError::Stale(_)) => return Err(Refused::Overloaded),
        Err(error) => return Err(error.into()),
    }
    // An earlier secret of this broker's: another broker has reset it since.
    flow.handovers.forget(&taken.id);
    Ok(taken)
}

/// Whether the request came before the lease's first answer can have arrived.
fn is_beside(lease: &LeaseId, request: &RequestId) -> bool {
    let times = lease.made_at().zip(request.made_at());
    times.is_some_and(|(made, came)| came < made + ANSWERING)
}

/// Whether the lease that holds a key was asked for by the same request.
pub(crate) fn is_same_request(holder: &Lease, idempotency: &Idempotency) -> bool {
    holder.idempotency.as_ref().is_none_or(|first| first.body == idempotency.body)
}

/// That a secret is handed out once more, by this request.
#[must_use]
pub fn replayed(again: Replayed, lease: &Lease, request_id: &RequestId, at: Timestamp) -> AuditEvent {
    let event = AuditEvent::of_lease(Event::IssueReplayed(again), at, lease);
    AuditEvent { request_id: Some(request_id.to_string()), ..event }
}

async fn record(flow: &ReplayFlow, event: AuditEvent) -> Result<(), Refused> {
    let change = Change::record(event);
    Ok(jit_failpoint::step("replay.record", StoreError::at_failpoint, flow.ledger.commit(change)).await?)
}

/// A new password is a new grant: the policies are asked whether they would still give what the lease gave.
/// The request was counted when it came first, so it is not counted again.
async fn permitted_again(
    flow: &ReplayFlow,
    caller: &Arc<Verified>,
    request: &CheckedRequest,
    lease: &Lease,
    request_id: &RequestId,
) -> Result<Permit, Refused> {
    // What is asked for is the rest of the lease: it may have been renewed since, on other terms than the
    // first request's.
    let rest = lease.expires_at.as_second() - flow.clock.now().as_second();
    let rest = request.for_length(Ttl::from_seconds(rest.max(1)).unwrap_or(Ttl::MAX));
    let asked = offered(&flow.decide, caller, &rest, request_id).await?;
    let at = asked.at;
    let permit = permitted(&flow.decide, asked, Counting::Again).await?;
    let reason = if permit.role != lease.role {
        format!("the policies now grant only role {}", permit.role)
    } else if at + permit.ttl.duration() + ROUNDING < lease.expires_at {
        format!("the policies now grant only {}", permit.ttl)
    } else {
        return Ok(permit);
    };
    let reason = format!("{reason}; ask for a new lease with another Idempotency-Key");
    let policy = chain::CHAIN.to_owned();
    let event = permit.decision.event(Event::IssueDenied(permit.decision.denied_by(policy.clone())));
    let event = AuditEvent { lease_id: Some(lease.id.to_string()), ..event.with_error(reason.clone()) };
    flow.ledger.deny(&caller.principal, vec![event], Vec::new()).await?;
    Err(Refused::PolicyDenied { policy, reason })
}

/// Leases end at whole seconds.
const ROUNDING: Duration = Duration::from_secs(2);

/// The secret is no longer in memory: the account gets a new one, on record before it leaves.
async fn reset_password(
    flow: &ReplayFlow,
    lease: &Lease,
    permit: &Permit,
    request_id: &RequestId,
) -> Result<Handover, Refused> {
    let remover = flow.serving.load().remover(&lease.target, &lease.driver).map_err(Refused::TargetUnavailable)?;
    if !remover.driver.description().has(Feature::Rotate) {
        return Err(Refused::LeaseNotActive { id: lease.id.clone(), state: lease.state });
    }
    in_place(flow, lease, &remover, request_id).await?;
    let secret = generate_password();
    let account = account_view(lease, flow.clock.wall());
    let call = async {
        let step = RotationStep::Stage;
        match remover.driver.rotate(&remover.scope, &remover.view, &account, step, Some(&secret)).await {
            Outcome::Done(()) => Ok(()),
            Outcome::Refused(Refusal::Unavailable { reason, .. }) | Outcome::Unknown(reason) => {
                Err(Refused::TargetAway(reason))
            }
            Outcome::Refused(refusal) => Err(Refused::TargetRefused(refusal.reason())),
        }
    };
    // A reset whose outcome is unknown is harmless: nobody holds either password, and the next
    // retry resets again.
    jit_failpoint::step("replay.rotate", || Refused::TargetUnavailable("failpoint".to_owned()), call).await?;
    let again = Replayed::Own { password_reset: true, decision: Some(permit.decision.recorded()) };
    let event = replayed(again, lease, request_id, flow.clock.wall());
    record(flow, AuditEvent { policies: permit.decision.policies.clone(), ..event }).await?;
    let handover = Handover { username: lease.login().to_owned(), secret: Some(secret), properties: Vec::new() };
    flow.handovers.keep(&lease.id, handover.clone());
    Ok(handover)
}

/// RIGHT-PLACE: another server must not be asked. An account of that name there is somebody else's.
async fn in_place(flow: &ReplayFlow, lease: &Lease, remover: &Remover, request_id: &RequestId) -> Result<(), Refused> {
    match flow.places.check_removal(&lease.driver, remover).await {
        Ok(()) => Ok(()),
        Err(Misplaced::NotTold(NotTold { reason, .. })) => Err(Refused::TargetAway(reason)),
        Err(Misplaced::Elsewhere(elsewhere)) => {
            tracing::error!(lease = %lease.id, target = %lease.target, %elsewhere, "a password was not reset: the lease's account is in another place");
            let event = AuditEvent::of_lease(Event::IssueDenied(Denied::default()), flow.clock.wall(), lease);
            let event = AuditEvent { request_id: Some(request_id.to_string()), ..event };
            record(flow, event.with_error(elsewhere.to_string())).await?;
            Err(Refused::WrongPlace { id: lease.id.clone(), target: lease.target.to_string() })
        }
    }
}

/// Leases whose caller went away before it got the reply, but whose Idempotency-Key lets a retry
/// fetch it: kept for [`Abandoned::GRACE`], then removed.
#[derive(Default)]
pub struct Abandoned(Mutex<Replies>);

#[derive(Default)]
struct Replies {
    /// Those of which no reply arrived, and since when.
    waiting: HashMap<LeaseId, Instant>,
    /// Those of which a reply arrived, and when. Another reply of the same lease may be dropped after that: the one
    /// that its client did not wait for. The lease is not abandoned for that.
    arrived: HashMap<LeaseId, Instant>,
}

impl Abandoned {
    /// How long a retry may take to come.
    pub const GRACE: Duration = Duration::from_secs(60);

    /// A reply did not arrive. Nothing follows where another one did.
    pub fn put(&self, lease: &LeaseId) {
        let mut replies = self.0.lock();
        if !replies.arrived.contains_key(lease) {
            replies.waiting.insert(lease.clone(), Instant::now());
        }
    }

    /// A reply arrived: somebody has the secret.
    pub fn arrived(&self, lease: &LeaseId) {
        let mut replies = self.0.lock();
        replies.waiting.remove(lease);
        replies.arrived.insert(lease.clone(), Instant::now());
    }

    /// Whether a reply arrived within the last minutes.
    pub(crate) fn has_arrived(&self, lease: &LeaseId) -> bool {
        self.0.lock().arrived.contains_key(lease)
    }

    fn picked_up(&self, lease: &LeaseId) {
        self.0.lock().waiting.remove(lease);
    }

    /// Takes those that nobody came for in time; all of them when the broker is stopping.
    pub fn given_up(&self, all: bool) -> Vec<LeaseId> {
        let mut replies = self.0.lock();
        let over: Vec<LeaseId> = replies
            .waiting
            .iter()
            .filter(|(_, since)| all || since.elapsed() >= Self::GRACE)
            .map(|(lease, _)| lease.clone())
            .collect();
        for lease in &over {
            replies.waiting.remove(lease);
        }
        // As long as a secret is kept for retries: no request takes longer.
        replies.arrived.retain(|_, since| since.elapsed() < KEPT_FOR);
        over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn turns_of_one_key_exclude_each_other_and_leave_nothing_behind() {
        let turns = Turns::default();
        let first = turns.take("a").await.unwrap();
        let other = turns.take("b").await.unwrap();
        let waiting = async {
            let turn = turns.take("a").await.unwrap();
            drop(turn);
        };
        tokio::pin!(waiting);
        assert!(futures_util::poll!(&mut waiting).is_pending());
        drop(first);
        waiting.await;
        drop(other);
        assert!(turns.0.lock().is_empty());
    }

    #[test]
    fn a_lease_is_abandoned_only_if_no_reply_of_it_arrived() {
        let abandoned = Abandoned::default();
        let lease = LeaseId::generate(Timestamp::now());
        abandoned.put(&lease);
        assert_eq!(abandoned.given_up(true), std::slice::from_ref(&lease));
        // The client went away, and its retry was answered before that was noticed.
        abandoned.put(&lease);
        abandoned.picked_up(&lease);
        assert!(!abandoned.has_arrived(&lease));
        abandoned.arrived(&lease);
        abandoned.put(&lease);
        assert!(abandoned.has_arrived(&lease));
        assert_eq!(abandoned.given_up(true), []);
        // The retry was answered, and its reply did not arrive either.
        let other = LeaseId::generate(Timestamp::now());
        abandoned.put(&other);
        abandoned.picked_up(&other);
        abandoned.put(&other);
        assert_eq!(abandoned.given_up(true), [other]);
    }

    #[test]
    fn a_request_beside_the_first_one_is_no_retry() {
        let at = |second: i64| Timestamp::from_second(1_800_000_000 + second).unwrap();
        let lease = LeaseId::generate(at(0));
        for (came, beside) in [(-30, true), (0, true), (4, true), (5, false), (60, false)] {
            assert_eq!(is_beside(&lease, &RequestId::generate(at(came))), beside, "{came} s");
        }
    }

    #[test]
    fn a_kept_secret_is_forgotten_on_demand() {
        let handovers = Handovers::default();
        let lease = LeaseId::generate(Timestamp::now());
        let handover = Handover { username: "u".into(), secret: Some("s".into()), properties: vec![] };
        handovers.keep(&lease, handover);
        assert!(handovers.get(&lease).is_some());
        handovers.forget(&lease);
        assert!(handovers.get(&lease).is_none());
    }
}
