//! The admin socket: what the `jit-broker` commands ask a running broker.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::LeaseState;

/// A lease as operators see it: with whose it is and how its removal goes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AdminLease {
    /// The lease.
    pub lease_id: String,
    /// Where it stands.
    pub state: LeaseState,
    /// The workload.
    pub workload: String,
    /// The issuer's configured name.
    pub issuer: String,
    /// The token's `sub`; empty in a lease of an earlier release.
    #[serde(default)]
    pub subject: String,
    /// The target.
    pub target: String,
    /// The role.
    pub role: String,
    /// The account's name, as the target knows it.
    pub account: String,
    /// Whether its end takes back what was handed out.
    #[serde(default = "yes")]
    pub revocable: bool,
    /// When it was issued.
    pub issued_at: Timestamp,
    /// When it ends.
    pub expires_at: Timestamp,
    /// The request that made it. Empty from a broker of an earlier release.
    #[serde(default)]
    pub request_id: String,
    /// Why its account was or is being removed: `expired`, `requested` (the workload gave it back), `operator`,
    /// `doubtful` (it never became active), `abandoned`, `not-audited`, `drift` or `ghost`. Absent while it is active.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closed_because: Option<String>,
    /// The user id of the operator who revoked it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closed_by_uid: Option<u32>,
    /// When its account was gone, to about the last attempt to remove it. Absent until then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
    /// Failed attempts to remove the account.
    pub attempts: u32,
    /// What went wrong last.
    pub last_error: Option<String>,
    /// Why it was asked for.
    pub reason: Option<String>,
    /// The ticket given.
    pub ticket: Option<String>,
    /// The plugin that made the account.
    pub driver: String,
    /// Its digest then.
    pub driver_sha256: String,
}

/// Of a broker that does not say.
fn yes() -> bool {
    true
}

/// A page of leases.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AdminLeases {
    /// Newest first.
    pub leases: Vec<AdminLease>,
    /// For the next page.
    pub next_cursor: Option<String>,
}

/// What a reload changed.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadReport {
    /// Plugins that are new or not what they were: another digest, other grants, other signatures.
    pub loaded: Vec<String>,
    /// Plugins that serve no longer.
    pub unloaded: Vec<String>,
    /// Targets that are new.
    pub targets_added: Vec<String>,
    /// Targets that are gone; leases there are still removed as long as driver and connection are
    /// configured.
    pub targets_removed: Vec<String>,
    /// Other sections that are new, changed or gone: `policies.quota`, `connections.shop (new)`.
    #[serde(default)]
    pub changed: Vec<String>,
    /// Sections that changed and hold only after a restart.
    pub needs_restart: Vec<String>,
    /// Leases whose accounts cannot be removed by what is served now. Only where that was forced.
    #[serde(default)]
    pub orphans: Vec<String>,
}

/// A loaded plugin.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PluginRow {
    /// Its name in the configuration.
    pub name: String,
    /// `policy`, `context` or `driver`.
    pub kind: String,
    /// The contract version it was built for.
    pub contract: String,
    /// What is linked to it.
    pub grants: Vec<String>,
    /// The digest of its component.
    pub sha256: String,
    /// Where it was read from.
    pub path: String,
    /// The names and ids of the trusted keys that vouch for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub signed_by: Vec<String>,
    /// Every SQL statement it can ever run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub statements: Vec<String>,
}

/// A rotating account as operators see it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RotationRow {
    /// The target.
    pub target: String,
    /// The role.
    pub role: String,
    /// The account.
    pub account: String,
    /// `unknown` (never rotated), `staging`, `overlapping` or `stable`.
    pub phase: String,
    /// Which password is current, counted from 1.
    pub generation: Option<u64>,
    /// Since when.
    pub since: Option<Timestamp>,
    /// When the next is due.
    pub next_at: Option<Timestamp>,
    /// Until when the one before works.
    pub previous_valid_until: Option<Timestamp>,
    /// An operator asked for a rotation, which has not begun yet.
    pub asked: bool,
    /// Whether a configured key opens the current password.
    pub readable: bool,
    /// Whether the configuration still has the role.
    pub configured: bool,
    /// Failed attempts of the step that is due.
    pub attempts: u32,
    /// What went wrong last.
    pub last_error: Option<String>,
}

/// What one pass of the reconciliation found.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub struct ReconcileReport {
    /// Nothing was changed.
    pub dry_run: bool,
    /// An operator said that what was held goes.
    #[serde(default)]
    pub confirmed: bool,
    /// By target.
    pub targets: Vec<TargetReport>,
}

/// What one pass found in one target.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub struct TargetReport {
    /// The target.
    pub target: String,
    /// Accounts of ours that were there.
    pub accounts: usize,
    /// Those without a lease.
    pub ghosts: Vec<String>,
    /// Those without a lease that are not removed, with the reason (BRAKE): an operator decides.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub held: Vec<HeldAccount>,
    /// Names like ours that are not: another broker's, or those of an earlier store. They are left alone. At
    /// most 1,000.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub strangers: Vec<String>,
    /// Active leases without an account that are not closed: too many at once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub held_leases: Vec<String>,
    /// Those that may be without a lease: the next pass tells.
    #[serde(default)]
    pub suspects: usize,
    /// Active leases whose account is missing.
    pub missing: Vec<String>,
    /// Why the target could not be compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// An account that is not removed, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldAccount {
    /// Its name, or the backend's handle.
    pub account: String,
    /// Why.
    pub reason: String,
    /// When the target ends it by itself, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
}

/// What became of a jump of the clock.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ClockConfirmed {
    /// By how many seconds the wall clock had jumped; none where it had not.
    pub jumped_seconds: Option<i64>,
    /// Leases whose times were moved back with it.
    pub leases: usize,
}

/// Which leases an operator ends together. What is given narrows; at least one of the four is.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RevokeMany {
    /// Of this workload, by its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<String>,
    /// Of workloads of this issuer, by its configured name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// In this target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Whose account this plugin made, by its name in the configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plugin: Option<String>,
    /// Only count them.
    #[serde(default)]
    pub dry_run: bool,
    /// The most leases that this request ends, 1 to 1,000.
    pub limit: usize,
    /// Where the request before ended: its `next_cursor`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// What one request of [`RevokeMany`] did.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevokedMany {
    /// By target. A target where nothing was found is not there.
    pub targets: BTreeMap<String, RevokedIn>,
    /// For the next request. Absent when every lease was looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// What one request of [`RevokeMany`] did in one target, in leases.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevokedIn {
    /// Their end is on record now. With `dry_run`: they are active.
    pub ended: u64,
    /// Their end was on record before, and their account is not removed yet.
    pub ending: u64,
    /// They are being issued at this moment, and cannot be ended yet.
    pub pending: u64,
    /// Of `ended`: the account stands, and its credential works until it is changed.
    pub standing: u64,
}

impl RevokedIn {
    /// Adds what another request did.
    pub fn add(&mut self, other: Self) {
        self.ended += other.ended;
        self.ending += other.ending;
        self.pending += other.pending;
        self.standing += other.standing;
    }
}
