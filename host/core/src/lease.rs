//! The lease and its states.
//!
//! ```text
//!            settle                begin_revocation            removed
//! Pending ───────────▶ Active ───────────────────▶ Revoking ───────────▶ Revoked
//!    │                                                ▲ │ removal_failed    ▲
//!    │ refuse                                         └─┘ (never gives up)  │
//!    ├──────────────────────────────────────────────────────────────────────┤
//!    │ doubt                                                        removed │
//!    └──────────▶ Doubtful ─────────────────────────────────────────────────┘
//!                   ▲ │ removal_failed
//!                   └─┘
//! ```
//! A step that the diagram does not have is a [`StepError`]. Each step gives a new value with a
//! higher `version`; the store takes it only over the version it was made from, so two that race
//! cannot both win.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::account::AccountName;
use crate::id::{LeaseId, RequestId};
use crate::name::{Principal, RoleName, TargetName};
use crate::operator::Operator;
use crate::place::Place;
use crate::rotation::Generation;
use crate::ttl::Ttl;

/// Where a lease stands: its words are the API's.
pub use jit_api::LeaseState;
pub use jit_contract::VerifierKind;

/// Why an account is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// The lease's time was over.
    Expired,
    /// The workload asked.
    Requested,
    /// An operator asked.
    Operator,
    /// The outcome of its creation is unknown, or the broker stopped in the middle.
    Doubtful,
    /// The caller went away before it got the secret.
    Abandoned,
    /// The audit record of its issuance could not be written (AUDITED-OR-NOTHING).
    NotAudited,
    /// The reconciler found the account missing in the target.
    Drift,
    /// The reconciler found an account of ours that no lease knows.
    Ghost,
}

impl Cause {
    /// The word of records and of administration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Requested => "requested",
            Self::Operator => "operator",
            Self::Doubtful => "doubtful",
            Self::Abandoned => "abandoned",
            Self::NotAudited => "not-audited",
            Self::Drift => "drift",
            Self::Ghost => "ghost",
        }
    }
}

/// Who asked for the end of a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndedBy {
    /// The workload gave it back.
    Workload,
    /// An operator revoked it.
    Operator(Operator),
}

/// The work of removing an account, which never gives up (NO-GHOST).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removal {
    /// Why.
    pub cause: Cause,
    /// Since when.
    pub since: Timestamp,
    /// Failed attempts so far.
    pub attempts: u32,
    /// Not before this.
    pub next_attempt_at: Timestamp,
    /// What went wrong last, without secrets.
    pub last_error: Option<String>,
    /// Things depend on the account, and only a person can mend that.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub held: bool,
    /// The user id of the operator who asked. None for other causes, and in leases of an earlier release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator_uid: Option<u32>,
}

impl Removal {
    fn new(cause: Cause, now: Timestamp) -> Self {
        Self { cause, since: now, attempts: 0, next_attempt_at: now, last_error: None, held: false, operator_uid: None }
    }

    /// How long to wait after that many failed attempts: 1 s, doubled, at most [`Self::CAP`].
    #[must_use]
    pub fn backoff(attempts: u32) -> Duration {
        let doubled = Duration::from_secs(1_u64 << attempts.saturating_sub(1).min(8));
        doubled.min(Self::CAP)
    }

    /// How long to wait after that many failed attempts where only a person can mend the reason: 1 s,
    /// doubled, at most [`Self::HELD_CAP`].
    #[must_use]
    pub fn held_backoff(attempts: u32) -> Duration {
        let doubled = Duration::from_secs(1_u64 << attempts.saturating_sub(1).min(12));
        doubled.min(Self::HELD_CAP)
    }

    /// The longest wait between two attempts.
    pub const CAP: Duration = Duration::from_secs(30);

    /// The longest wait between two attempts of a removal that is held.
    pub const HELD_CAP: Duration = Duration::from_secs(3_600);
}

/// The plugin that made the account, and that will remove it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DriverRef {
    /// Its name in the configuration.
    pub plugin: String,
    /// The connection it worked on, by its name in the configuration: removal uses the same, also
    /// after the target was moved to another driver.
    #[serde(default)]
    pub connection: Option<String>,
    /// The digest of the component that was called, in hexadecimal.
    pub sha256: String,
    /// What the driver calls itself: another one that is configured under the same name later is
    /// not asked to remove what it did not make. None in leases of an earlier release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The target's `config` table at issue, as JSON, where it had one: removal uses it after the
    /// target was moved to another driver or is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<String>,
    /// Where the account is (RIGHT-PLACE). None in leases of an earlier release, and of rotating accounts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<Place>,
}

impl DriverRef {
    /// Whether both mean the same driver on the same connection, whatever their builds,
    /// configurations and places.
    #[must_use]
    pub fn same_maker(&self, other: &Self) -> bool {
        let same_name = match (&self.name, &other.name) {
            (Some(one), Some(other)) => one == other,
            _ => true,
        };
        self.plugin == other.plugin && self.connection == other.connection && same_name
    }
}

/// An Idempotency-Key as the store keeps it: digests, since a key may be guessable but the
/// store need not tell it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Idempotency {
    /// SHA-256 over principal and key, in hexadecimal.
    pub key: String,
    /// SHA-256 over the request's meaning, in hexadecimal: the same key with another body conflicts.
    pub body: String,
}

/// That the caller made the password: the account has what the server stores of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallersVerifier {
    /// What it is.
    pub kind: VerifierKind,
    /// A digest by which the store knows it again, in hexadecimal. The verifier itself is not stored.
    pub digest: String,
    /// The lease of an earlier attempt at the same request, which gave nothing to anybody. This one takes its
    /// verifier over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub takes_over: Option<LeaseId>,
}

/// One lease: who got what, until when, and how its account is to be removed. It never holds the
/// secret (NO-STORED-SECRET).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Its id.
    pub id: LeaseId,
    /// Raised by each step; the store's guard against lost updates.
    pub version: u64,
    /// Where it stands.
    pub state: LeaseState,
    /// Whose it is.
    pub principal: Principal,
    /// Attributes of the identity at issue, for the audit record.
    pub attributes: BTreeMap<String, String>,
    /// In which target.
    pub target: TargetName,
    /// The role that was granted (which a policy may have narrowed).
    pub role: RoleName,
    /// The account, by the name that the host chose.
    pub account: AccountName,
    /// The account's name where the backend chose it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// The backend's own handle.
    pub external_id: Option<String>,
    /// The account stands before and after the lease: its end does not take back what was handed out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub standing: bool,
    /// Who made it.
    pub driver: DriverRef,
    /// The request that made it.
    pub request_id: RequestId,
    /// When it was asked for.
    pub issued_at: Timestamp,
    /// When the present term began: at issue, or at the last renewal.
    pub term_start: Timestamp,
    /// When it ends.
    pub expires_at: Timestamp,
    /// What no renewal passes.
    pub max_expires_at: Timestamp,
    /// Whether its driver can renew.
    pub renewable: bool,
    /// Why it was asked for.
    pub reason: Option<String>,
    /// The ticket given.
    pub ticket: Option<String>,
    /// What the caller attached.
    pub metadata: BTreeMap<String, String>,
    /// The caller's Idempotency-Key.
    pub idempotency: Option<Idempotency>,
    /// What the caller sent in place of a password that the broker would have made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verifier: Option<CallersVerifier>,
    /// The removal, once it has begun.
    pub removal: Option<Removal>,
    /// Which password of a rotating account was handed out: such an account stands, and the
    /// lease's end changes nothing in the target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotating: Option<Generation>,
}

/// A step that the lease's state does not allow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a lease that is {} cannot {step}", from.as_str())]
pub struct StepError {
    /// Where the lease stands.
    pub from: LeaseState,
    /// What was tried.
    pub step: &'static str,
}

impl Lease {
    fn step(&self, allowed: &[LeaseState], step: &'static str) -> Result<Self, StepError> {
        if !allowed.contains(&self.state) {
            return Err(StepError { from: self.state, step });
        }
        let mut next = self.clone();
        next.version += 1;
        Ok(next)
    }

    /// The account exists: the lease is active.
    ///
    /// # Errors
    /// When the lease is not pending.
    pub fn settle(&self, external_id: Option<String>, expires_at: Timestamp) -> Result<Self, StepError> {
        let mut next = self.step(&[LeaseState::Pending], "be settled")?;
        next.state = LeaseState::Active;
        next.external_id = external_id;
        next.expires_at = expires_at.min(next.expires_at);
        Ok(next)
    }

    /// The same lease with what the backend says its account is. Where it is known already, that stays.
    #[must_use]
    pub fn with_account(mut self, username: Option<String>, external_id: Option<String>) -> Self {
        let chosen = username.filter(|name| name != self.account.as_str());
        self.username = self.username.or(chosen);
        self.external_id = self.external_id.or(external_id);
        self
    }

    /// The account's name as the target knows it.
    #[must_use]
    pub fn login(&self) -> &str {
        self.username.as_deref().unwrap_or(self.account.as_str())
    }

    /// The backend refused: there is no account.
    ///
    /// # Errors
    /// When the lease is not pending.
    pub fn refuse(&self, now: Timestamp, reason: String) -> Result<Self, StepError> {
        let mut next = self.step(&[LeaseState::Pending], "be refused")?;
        next.state = LeaseState::Revoked;
        next.expires_at = next.expires_at.min(now.max(next.issued_at));
        next.removal = Some(Removal { last_error: Some(reason), ..Removal::new(Cause::Doubtful, now) });
        Ok(next)
    }

    /// Nobody knows whether the account exists: it is to be removed.
    ///
    /// # Errors
    /// When the lease is not pending.
    pub fn doubt(&self, cause: Cause, now: Timestamp) -> Result<Self, StepError> {
        let mut next = self.step(&[LeaseState::Pending], "be doubted")?;
        next.state = LeaseState::Doubtful;
        next.removal = Some(Removal::new(cause, now));
        Ok(next)
    }

    /// The account is to be removed.
    ///
    /// # Errors
    /// When the lease is not active.
    pub fn begin_revocation(&self, cause: Cause, now: Timestamp) -> Result<Self, StepError> {
        let mut next = self.step(&[LeaseState::Active], "be revoked")?;
        next.state = LeaseState::Revoking;
        next.removal = Some(Removal::new(cause, now));
        Ok(next)
    }

    /// As [`Self::begin_revocation`], for somebody who asked.
    ///
    /// # Errors
    /// When the lease is not active.
    pub fn begin_revocation_by(&self, by: EndedBy, now: Timestamp) -> Result<Self, StepError> {
        match by {
            EndedBy::Workload => self.begin_revocation(Cause::Requested, now),
            EndedBy::Operator(operator) => {
                let mut next = self.begin_revocation(Cause::Operator, now)?;
                next.removal.iter_mut().for_each(|removal| removal.operator_uid = Some(operator.uid));
                Ok(next)
            }
        }
    }

    /// The account is gone.
    ///
    /// # Errors
    /// When the lease is neither revoking nor doubtful.
    pub fn removed(&self) -> Result<Self, StepError> {
        let mut next = self.step(&[LeaseState::Revoking, LeaseState::Doubtful], "be called removed")?;
        next.state = LeaseState::Revoked;
        Ok(next)
    }

    /// An attempt to remove the account failed; the next one is later.
    ///
    /// # Errors
    /// When the lease is neither revoking nor doubtful.
    pub fn removal_failed(&self, error: String, now: Timestamp) -> Result<Self, StepError> {
        self.failed(error, now, false)
    }

    /// As [`Self::removal_failed`], for a reason that only a person can mend: things depend on the account.
    /// It is tried less and less often.
    ///
    /// # Errors
    /// When the lease is neither revoking nor doubtful.
    pub fn removal_held(&self, error: String, now: Timestamp) -> Result<Self, StepError> {
        self.failed(error, now, true)
    }

    fn failed(&self, error: String, now: Timestamp, held: bool) -> Result<Self, StepError> {
        let mut next = self.step(&[LeaseState::Revoking, LeaseState::Doubtful], "fail to be removed")?;
        let removal = next.removal.get_or_insert_with(|| Removal::new(Cause::Doubtful, now));
        removal.attempts = removal.attempts.saturating_add(1);
        let wait = if held { Removal::held_backoff } else { Removal::backoff };
        removal.next_attempt_at = now + wait(removal.attempts);
        removal.last_error = Some(error);
        removal.held = held;
        Ok(next)
    }

    /// The removal waits until `then` for `reason`, which is no failure.
    ///
    /// # Errors
    /// When the lease is neither revoking nor doubtful.
    pub fn removal_waits(&self, reason: String, now: Timestamp, then: Timestamp) -> Result<Self, StepError> {
        let mut next = self.step(&[LeaseState::Revoking, LeaseState::Doubtful], "wait to be removed")?;
        let removal = next.removal.get_or_insert_with(|| Removal::new(Cause::Doubtful, now));
        removal.next_attempt_at = then.max(now + Duration::from_secs(1));
        removal.last_error = Some(reason);
        Ok(next)
    }

    /// A later expiry, never past `max_expires_at` and never an earlier one.
    ///
    /// # Errors
    /// When the lease is not active.
    pub fn renew(&self, now: Timestamp, expires_at: Timestamp) -> Result<Self, StepError> {
        let mut next = self.step(&[LeaseState::Active], "be renewed")?;
        next.term_start = now;
        next.expires_at = expires_at.min(next.max_expires_at).max(next.expires_at);
        Ok(next)
    }

    /// The same lease by a clock that was set by that much: as long as it was.
    #[must_use]
    pub fn moved(&self, by: SignedDuration) -> Self {
        let moved = |at: Timestamp| at.checked_add(by).unwrap_or(at);
        let mut next = self.clone();
        next.version += 1;
        next.term_start = moved(next.term_start);
        next.expires_at = moved(next.expires_at);
        next.max_expires_at = moved(next.max_expires_at);
        if let Some(removal) = &mut next.removal {
            removal.next_attempt_at = moved(removal.next_attempt_at);
        }
        next
    }

    /// The same lease a version on: another broker of the store has it from then on.
    #[must_use]
    pub fn taken_over(&self) -> Self {
        Self { version: self.version + 1, ..self.clone() }
    }

    /// When the account has to be dealt with by a background task, if it ever has: at the expiry
    /// while active, at the next attempt while being removed.
    #[must_use]
    pub fn due_at(&self) -> Option<Timestamp> {
        match self.state {
            LeaseState::Active => Some(self.expires_at),
            LeaseState::Revoking | LeaseState::Doubtful => {
                Some(self.removal.as_ref().map_or(self.issued_at, |removal| removal.next_attempt_at))
            }
            LeaseState::Pending | LeaseState::Revoked => None,
        }
    }

    /// Since when the account's removal has been due, whether or not it waits for its next attempt.
    #[must_use]
    pub fn owed_since(&self) -> Option<Timestamp> {
        match self.state {
            LeaseState::Active => Some(self.expires_at),
            LeaseState::Revoking | LeaseState::Doubtful => {
                Some(self.removal.as_ref().map_or(self.issued_at, |removal| removal.since))
            }
            LeaseState::Pending | LeaseState::Revoked => None,
        }
    }

    /// About when a revoked lease ended: the last attempt to remove its account was not before this and at most
    /// [`Removal::HELD_CAP`] earlier.
    #[must_use]
    pub fn ended_at(&self) -> Option<Timestamp> {
        (self.state == LeaseState::Revoked)
            .then(|| self.removal.as_ref().map_or(self.expires_at, |removal| removal.next_attempt_at))
    }

    /// The length of the present term, at least a second.
    #[must_use]
    pub fn ttl(&self) -> Ttl {
        let seconds = self.expires_at.as_second() - self.term_start.as_second();
        Ttl::from_seconds(seconds.max(1)).unwrap_or(Ttl::MAX)
    }

    /// When the application should renew: at 80 % of the present term, so that the last 20 % is the buffer for a
    /// broker that is away.
    #[must_use]
    pub fn renew_after(&self) -> Timestamp {
        self.term_start + Duration::from_millis(self.ttl().get() * 800)
    }

    /// Whether the Idempotency-Key still stands for this lease. A lease that never gave its secret
    /// to anybody lets go of the key, so that a retry can succeed; one that did keeps it
    /// (SAME-ANSWER), also after its end.
    #[must_use]
    pub fn holds_key(&self) -> bool {
        let never_given = self.state == LeaseState::Doubtful
            || self.removal.as_ref().is_some_and(|removal| {
                matches!(removal.cause, Cause::Doubtful | Cause::Abandoned | Cause::NotAudited | Cause::Ghost)
            });
        self.idempotency.is_some() && !never_given
    }

    /// Whether an account may exist in the target because of this lease.
    #[must_use]
    pub fn may_have_account(&self) -> bool {
        self.state != LeaseState::Revoked
    }
}

#[cfg(test)]
#[path = "lease_tests.rs"]
pub(crate) mod tests;
