//! Why the broker does not do what it was asked: the one error type of the pipeline. It knows no
//! HTTP; one table of the HTTP layer maps it.

use std::time::Duration;

use jit_api::ProblemCode;
use jit_core::id::LeaseId;
use jit_core::lease::LeaseState;

pub use jit_password::WeakVerifier;

use jit_ledger::StoreError;

/// A request that is not fulfilled. Its text is fit for the caller: no secret, nothing of the
/// broker's insides.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Refused {
    /// The request itself is wrong.
    #[error("{detail}")]
    InvalidRequest {
        /// The field, where one is to blame.
        field: Option<&'static str>,
        /// What is wrong and what to send instead.
        detail: String,
    },
    /// The caller's verifier breaks a rule.
    #[error(transparent)]
    WeakVerifier(#[from] WeakVerifier),
    /// The target does not take that type of credential.
    #[error("target {target} does not take this credential: {reason}")]
    NotOffered {
        /// The target.
        target: String,
        /// What it offers, or what it takes instead.
        reason: String,
    },
    /// The token does not prove an identity. The reason is in the log, not in the reply.
    #[error("the workload token was not accepted")]
    Unauthenticated,
    /// A policy said no.
    #[error("{reason}")]
    PolicyDenied {
        /// Which one.
        policy: String,
        /// Its reason.
        reason: String,
    },
    /// Too much of what the workload left behind waits for a person.
    #[error(
        "{most} accounts of this workload in target {target} cannot be removed because other things depend on them; there is no new account until an operator has resolved this"
    )]
    Blocked {
        /// The target.
        target: String,
        /// How many of them are enough.
        most: usize,
    },
    /// The target does not offer that role.
    #[error("target {target} has no role {role}")]
    RoleNotAllowed {
        /// The target.
        target: String,
        /// The role asked for.
        role: String,
    },
    /// No such target.
    #[error("there is no target {0}")]
    UnknownTarget(String),
    /// No such lease, or another identity's.
    #[error("there is no such lease")]
    UnknownLease,
    /// The same Idempotency-Key came with another request.
    #[error("this Idempotency-Key was used for another request (lease {0}); use a new key")]
    IdempotencyConflict(LeaseId),
    /// The lease's state does not allow it.
    #[error("lease {id} is {}", state.as_str())]
    LeaseNotActive {
        /// The lease.
        id: LeaseId,
        /// Where it stands.
        state: LeaseState,
    },
    /// The lease is active and stays what it is: only a new one goes on.
    #[error("lease {id} cannot be renewed: {reason}")]
    LeaseNotRenewable {
        /// The lease.
        id: LeaseId,
        /// Why, and what to do.
        reason: &'static str,
    },
    /// The lease is active, but what it handed out is no longer what the same key would get.
    #[error("lease {id} cannot be handed out again: {reason}")]
    NotAgain {
        /// The lease.
        id: LeaseId,
        /// Why, and what to do.
        reason: &'static str,
    },
    /// Too much too fast by one workload.
    #[error("too many requests by this workload")]
    RateLimited {
        /// When to come back.
        retry_after: Duration,
    },
    /// The backend said no; its words.
    #[error("the target refused: {0}")]
    TargetRefused(String),
    /// What answers is not the server that has the account.
    #[error(
        "another server answers for target {target} than the one that has the account of lease {id}; this was reported to the operators"
    )]
    WrongPlace {
        /// The lease.
        id: LeaseId,
        /// Its target.
        target: String,
    },
    /// The target cannot be used now, in the broker's words.
    #[error("the target is not available: {0}")]
    TargetUnavailable(String),
    /// The backend cannot be reached; the words are the backend's or the network's.
    #[error("the target cannot be reached: {0}")]
    TargetAway(String),
    /// The store or audit log cannot be written: nothing is handed out.
    #[error("the audit log cannot be written; nothing was handed out")]
    AuditUnavailable,
    /// The disk is nearly full: nothing new is handed out, so that removals can still be recorded.
    #[error("the broker's disk is nearly full; nothing is handed out until there is room")]
    NoRoom,
    /// The task that removes accounts does not work: no account is made that nothing would remove (NO-GHOST).
    #[error("the broker cannot remove accounts now, so it makes none; operators are alerted")]
    RemovalDown,
    /// More work than the broker takes on at once.
    #[error("the broker is overloaded; try again shortly")]
    Overloaded,
    /// The backend's answer did not come: the lease is doubtful and is being removed.
    #[error("the answer of the target was late or was lost; the lease is doubtful and is being removed")]
    TargetTimeout(LeaseId),
}

impl Refused {
    /// A wrong field.
    pub fn field(field: &'static str, detail: impl Into<String>) -> Self {
        Self::InvalidRequest { field: Some(field), detail: detail.into() }
    }

    /// The API's code, which is also the word for metrics and records.
    #[must_use]
    pub fn code(&self) -> ProblemCode {
        match self {
            Self::InvalidRequest { .. } => ProblemCode::InvalidRequest,
            Self::WeakVerifier(_) => ProblemCode::VerifierWeak,
            Self::NotOffered { .. } => ProblemCode::NotOffered,
            Self::Unauthenticated => ProblemCode::Unauthenticated,
            Self::PolicyDenied { .. } => ProblemCode::PolicyDenied,
            Self::Blocked { .. } => ProblemCode::Blocked,
            Self::RoleNotAllowed { .. } => ProblemCode::RoleNotAllowed,
            Self::UnknownTarget(_) => ProblemCode::UnknownTarget,
            Self::UnknownLease => ProblemCode::UnknownLease,
            Self::IdempotencyConflict(_) => ProblemCode::IdempotencyConflict,
            // One code: for a client all mean that it has to ask for a new lease.
            Self::LeaseNotActive { .. } | Self::LeaseNotRenewable { .. } | Self::NotAgain { .. } => {
                ProblemCode::LeaseNotActive
            }
            Self::RateLimited { .. } => ProblemCode::RateLimited,
            Self::TargetRefused(_) => ProblemCode::TargetRefused,
            Self::WrongPlace { .. } => ProblemCode::WrongPlace,
            Self::TargetUnavailable(_) | Self::TargetAway(_) => ProblemCode::TargetUnavailable,
            // To a caller the same: nothing can be put on record now.
            Self::AuditUnavailable | Self::NoRoom => ProblemCode::AuditUnavailable,
            Self::RemovalDown => ProblemCode::RemovalDown,
            Self::Overloaded => ProblemCode::Overloaded,
            Self::TargetTimeout(_) => ProblemCode::TargetTimeout,
        }
    }
}

impl From<StoreError> for Refused {
    /// For reads and writes whose failure means that nothing may be handed out. The cause is
    /// logged here, once; the caller is not told of the broker's insides.
    fn from(error: StoreError) -> Self {
        tracing::error!(%error, "the store failed");
        Self::AuditUnavailable
    }
}
