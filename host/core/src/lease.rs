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

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::account::AccountName;
use crate::id::{LeaseId, RequestId};
use crate::name::{Principal, RoleName, TargetName};
use crate::rotation::Generation;
use crate::ttl::Ttl;

/// Where a lease stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LeaseState {
    /// Intended: durable before the driver is called. The account may or may not exist.
    Pending,
    /// The account exists and its secret may have been handed out, after the audit record.
    Active,
    /// The account is being removed.
    Revoking,
    /// The account is gone (or never was).
    Revoked,
    /// Nobody knows whether the account exists; it is being removed.
    Doubtful,
}

impl LeaseState {
    /// Every state, for filters and schemas.
    pub const ALL: [Self; 5] = [Self::Pending, Self::Active, Self::Revoking, Self::Revoked, Self::Doubtful];

    /// The state's word in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Active => "active",
            Self::Revoking => "revoking",
            Self::Revoked => "revoked",
            Self::Doubtful => "doubtful",
        }
    }

    /// From the API's word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }
}

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
}

impl Removal {
    fn new(cause: Cause, now: Timestamp) -> Self {
        Self { cause, since: now, attempts: 0, next_attempt_at: now, last_error: None }
    }

    /// How long to wait after that many failed attempts: 1 s, doubled, at most [`Self::CAP`].
    #[must_use]
    pub fn backoff(attempts: u32) -> Duration {
        let doubled = Duration::from_secs(1_u64 << attempts.saturating_sub(1).min(8));
        doubled.min(Self::CAP)
    }

    /// The longest wait between two attempts.
    pub const CAP: Duration = Duration::from_secs(30);
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
}

impl DriverRef {
    /// Whether both mean the same driver on the same connection, whatever their builds and
    /// configurations.
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
        let mut next = self.step(&[LeaseState::Revoking, LeaseState::Doubtful], "fail to be removed")?;
        let removal = next.removal.get_or_insert_with(|| Removal::new(Cause::Doubtful, now));
        removal.attempts = removal.attempts.saturating_add(1);
        removal.next_attempt_at = now + Removal::backoff(removal.attempts);
        removal.last_error = Some(error);
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

    /// The length of the present term, at least a second.
    #[must_use]
    pub fn ttl(&self) -> Ttl {
        let seconds = self.expires_at.as_second() - self.term_start.as_second();
        Ttl::from_seconds(seconds.max(1)).unwrap_or(Ttl::MAX)
    }

    /// When the application should renew: at 80 % of the present term.
    #[must_use]
    pub fn renew_after(&self) -> Timestamp {
        self.term_start + self.ttl().renew_after()
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
pub(crate) mod tests {
    use super::*;
    use crate::account::AccountPrefix;

    pub(crate) fn example() -> Lease {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        Lease {
            id: LeaseId::generate(now),
            version: 0,
            state: LeaseState::Pending,
            principal: Principal {
                issuer: "cluster".into(),
                workload: "payment-service".into(),
                subject: "system:serviceaccount:shop:payment-service".into(),
            },
            attributes: BTreeMap::new(),
            target: TargetName::new("inventory_db").unwrap(),
            role: RoleName::new("app_read_only").unwrap(),
            account: AccountPrefix::default().generate("payment-service", 63),
            username: None,
            external_id: None,
            standing: false,
            driver: DriverRef {
                plugin: "postgres".into(),
                connection: None,
                sha256: "00".into(),
                name: None,
                config: None,
            },
            request_id: RequestId::generate(now),
            issued_at: now,
            term_start: now,
            expires_at: now + Duration::from_secs(1_800),
            max_expires_at: now + Duration::from_secs(3_600),
            renewable: true,
            reason: None,
            ticket: None,
            metadata: BTreeMap::new(),
            idempotency: None,
            removal: None,
            rotating: None,
        }
    }

    #[test]
    fn lives_and_ends() {
        let pending = example();
        let active = pending.settle(None, pending.expires_at).unwrap();
        let revoking = active.begin_revocation(Cause::Requested, active.issued_at).unwrap();
        let revoked = revoking.removed().unwrap();
        assert_eq!(revoked.state, LeaseState::Revoked);
        assert_eq!(revoked.version, 3);
        assert_eq!(revoked.due_at(), None);
    }

    #[test]
    fn no_step_leaves_the_diagram() {
        let pending = example();
        let now = pending.issued_at;
        let active = pending.settle(None, pending.expires_at).unwrap();
        let revoking = active.begin_revocation(Cause::Expired, now).unwrap();
        let doubtful = pending.doubt(Cause::Doubtful, now).unwrap();
        let revoked = revoking.removed().unwrap();
        for lease in [&active, &revoking, &doubtful, &revoked] {
            assert!(lease.settle(None, now).is_err());
            assert!(lease.refuse(now, String::new()).is_err());
            assert!(lease.doubt(Cause::Doubtful, now).is_err());
        }
        for lease in [&pending, &revoking, &doubtful, &revoked] {
            assert!(lease.begin_revocation(Cause::Expired, now).is_err());
            assert!(lease.renew(now, lease.max_expires_at).is_err());
        }
        for lease in [&pending, &active, &revoked] {
            assert!(lease.removed().is_err());
            assert!(lease.removal_failed(String::new(), now).is_err());
        }
    }

    #[test]
    fn renewal_never_passes_the_cap_and_never_shortens() {
        let pending = example();
        let active = pending.settle(None, pending.expires_at).unwrap();
        let far = active.renew(active.issued_at, active.max_expires_at + Duration::from_secs(9_999)).unwrap();
        assert_eq!(far.expires_at, far.max_expires_at);
        let near = active.renew(active.issued_at, active.issued_at).unwrap();
        assert_eq!(near.expires_at, active.expires_at);
    }

    #[test]
    fn an_account_that_the_backend_named_goes_by_that_name() {
        let lease = example();
        let own = lease.clone().with_account(Some(lease.account.to_string()), None);
        assert_eq!((own.login(), &own.username), (lease.account.as_str(), &None));
        let theirs = lease.with_account(Some("v-root-abc".into()), Some("creds/a/1".into()));
        assert_eq!(theirs.login(), "v-root-abc");
        let later = theirs.with_account(Some("other".into()), Some("creds/a/2".into()));
        assert_eq!((later.login(), later.external_id.as_deref()), ("v-root-abc", Some("creds/a/1")));
    }

    #[test]
    fn a_lease_of_an_earlier_release_can_be_read() {
        let mut json = serde_json::to_value(example()).unwrap();
        for key in ["username", "standing"] {
            assert!(
                json.as_object_mut().unwrap().remove(key).is_none(),
                "{key} is written only when it says something"
            );
        }
        assert!(!json["driver"].as_object().unwrap().contains_key("config"));
        let read: Lease = serde_json::from_value(json).unwrap();
        assert_eq!((read.username.as_ref(), read.standing, read.driver.name.as_ref()), (None, false, None));
    }

    #[test]
    fn another_driver_under_the_same_name_is_another_maker() {
        let made_by = DriverRef { name: Some("driver-vault".into()), ..example().driver };
        assert!(made_by.same_maker(&DriverRef { sha256: "01".into(), config: Some("{}".into()), ..made_by.clone() }));
        assert!(made_by.same_maker(&DriverRef { name: None, ..made_by.clone() }), "an earlier release did not say");
        assert!(!made_by.same_maker(&DriverRef { name: Some("driver-postgres".into()), ..made_by.clone() }));
        assert!(!made_by.same_maker(&DriverRef { connection: Some("other".into()), ..made_by.clone() }));
    }

    #[test]
    fn waiting_is_no_failed_attempt() {
        let doubtful = example().doubt(Cause::Doubtful, example().issued_at).unwrap();
        let then = doubtful.issued_at + Duration::from_secs(60);
        let waiting = doubtful.removal_waits("not yet".into(), doubtful.issued_at, then).unwrap();
        let removal = waiting.removal.as_ref().unwrap();
        assert_eq!((removal.attempts, waiting.due_at()), (0, Some(then)));
        let past = doubtful.removal_waits("not yet".into(), then, doubtful.issued_at).unwrap();
        assert!(past.due_at() > Some(then), "it does not spin");
    }

    #[test]
    fn removal_is_tried_for_ever_at_a_bounded_pace() {
        let mut lease = example().doubt(Cause::Doubtful, example().issued_at).unwrap();
        let mut now = lease.issued_at;
        for _ in 0..10_000 {
            lease = lease.removal_failed("down".into(), now).unwrap();
            let next = lease.due_at().unwrap();
            assert!(next > now && next <= now + Removal::CAP);
            now = next;
        }
        assert_eq!(lease.removal.as_ref().unwrap().attempts, 10_000);
    }
}
