//! Leases as their owner sees them, renewing, and giving back.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{Code, Length, Term};

jit_contract::words! {
    /// The state of a lease.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
    pub enum LeaseState {
        /// Stored before the driver is called. The account may or may not exist.
        Pending = "pending",
        /// The account exists and its secret may have been handed out, after the audit record.
        Active = "active",
        /// The account is being removed.
        Revoking = "revoking",
        /// The account is gone (or never was).
        Revoked = "revoked",
        /// Nobody knows whether the account exists; it is being removed.
        Doubtful = "doubtful",
    }
}

/// A lease without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LeaseView {
    /// The lease.
    pub lease_id: String,
    /// `pending`, `active`, `revoking`, `revoked` or `doubtful`.
    #[cfg_attr(feature = "openapi", schema(value_type = String, example = "active"))]
    pub state: LeaseState,
    /// The target.
    pub target: String,
    /// The role.
    pub role: String,
    /// The account's name.
    pub ephemeral_id: String,
    /// `false` if the account exists before and after the lease, so that the lease's end does not take back what
    /// was handed out. Absent otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(example = false))]
    pub revocable: Option<bool>,
    /// What the end of this lease did not do, if it did less than it seems.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// For rotating accounts: how long the password that was handed out works, whether the lease has ended or not.
    /// Absent if it no longer works, and in lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime))]
    pub usable_until: Option<Timestamp>,
    /// The lease's times.
    #[serde(flatten)]
    pub term: Term,
    /// Why it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The ticket given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ticket: Option<String>,
    /// What the caller attached.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
}

/// A page of leases.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LeasePage {
    /// Newest first.
    pub leases: Vec<LeaseView>,
    /// Pass this as `cursor` to get the next page; null on the last page.
    pub next_cursor: Option<String>,
}

/// The body of `POST /v1/leases/{id}/renew`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct RenewRequest {
    /// As in `/issue`; the target's default if absent.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, example = "30m"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<Length>,
}

/// The maximum number of leases that one request gives back by name.
pub const MAX_NAMED: usize = 1_000;

/// The body of `POST /v1/leases/revoke`: one of the two fields.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct GiveBackRequest {
    /// These leases: 1 to 1000 ids.
    #[cfg_attr(feature = "openapi", schema(example = json!(["lease_01jd3x7k2m9v5q8w4r6t0y1z3b"]), min_items = 1, max_items = 1000))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leases: Option<Vec<String>>,
    /// `true`: all leases of the caller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub all: Option<bool>,
}

/// The reply to `POST /v1/leases/revoke`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct GivenBackReply {
    /// Each lease that was named, in the same order; or all leases of the caller that were not over.
    pub leases: Vec<GivenBackLease>,
    /// Whether there are more leases than one request gives back. If so, send the request again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub more: bool,
}

/// What became of a lease that was given back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct GivenBackLease {
    /// The lease, as it was named.
    pub lease_id: String,
    /// `revoked`: its account is gone; `revoking` and `doubtful`: it is being removed; `pending`: it was
    /// not issued yet, so there was nothing to give back. Left out with a `code`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, example = "revoked"))]
    pub state: Option<LeaseState>,
    /// `unknown-lease`: the caller has no such lease.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, example = "unknown-lease"))]
    pub code: Option<Code>,
}
