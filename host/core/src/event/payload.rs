//! What only one kind of event says, as a struct for each. The names of the fields are those of the record.

use std::collections::BTreeMap;

use jiff::Timestamp;
use jit_api::problem::ProblemCode;
use jit_contract::VerifierKind;
use serde::Serialize;

use super::LeaseRest;
use crate::lease::Cause;
use crate::policy::{ContextRecord, PolicyRequest};
use crate::rotation::Generation;

/// Nothing beside what every event may say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Plain {}

/// What a decision was made on: from this it can be replayed (PURE-POLICY).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Decided {
    /// What the policies were asked.
    pub input: Box<PolicyRequest>,
    /// Labels that policies gave.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Each context provider's part.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub contexts: Vec<ContextRecord>,
    /// Whether a policy named a narrower role.
    #[serde(flatten)]
    pub narrowed: Option<Narrowed>,
}

/// A narrower role than the one that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Narrowed {
    /// The role.
    pub narrowed_to: String,
    /// The policies that named it and those before it, in order.
    pub narrowed_by: Vec<String>,
}

/// A secret may leave the broker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Granted {
    /// The decision.
    #[serde(flatten)]
    pub decision: Decided,
    /// Which password, for a rotating account.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generation: Option<Generation>,
    /// What the caller sent in place of a password. Absent where the broker made the password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verifier: Option<VerifierKind>,
    /// What else the lease is.
    pub lease: Box<LeaseRest>,
}

/// A request was denied. One record may stand for many denials.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Denied {
    /// Who denied it. Absent where an account turned out to be in another place, or a policy granted less than what
    /// was asked for.
    #[serde(flatten)]
    pub by: Option<DeniedBy>,
    /// The decision, where policies were asked, or how many denials the record stands for.
    #[serde(flatten)]
    pub basis: Option<Basis>,
}

/// What a record of a denial, or of a difference in shadow mode, is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Basis {
    /// One decision.
    Decision(Decided),
    /// Many decisions beyond a workload's budget, of which only the number is recorded.
    Counted(CountedDenials),
}

/// Who denied a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DeniedBy {
    /// The broker, with the problem code of its reply: what was asked for is not offered.
    Code(ProblemCode),
    /// A policy, or a context provider that failed.
    Policy(String),
}

impl DeniedBy {
    /// The code, or the policy's name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Code(code) => code.as_str(),
            Self::Policy(policy) => policy,
        }
    }
}

/// Denials beyond a workload's budget.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CountedDenials {
    /// How many.
    pub count: u64,
    /// When the first was.
    pub since: Timestamp,
    /// The digest of the last one's input, in hexadecimal, where policies were asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input_sha256: Option<String>,
}

/// An issuance failed after it was permitted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Failed {
    /// The decision, where the backend failed.
    #[serde(flatten)]
    pub decision: Option<Decided>,
    /// Why the account is removed, where the broker failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
}

/// A secret was handed out again, to a retry with the same Idempotency-Key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Replayed {
    /// The account is the lease's own.
    Own {
        /// Whether it got a new password.
        password_reset: bool,
        /// The decision for the new password.
        #[serde(flatten)]
        decision: Option<Decided>,
    },
    /// The account is a rotating one.
    Rotating {
        /// Which of its passwords.
        generation: Generation,
    },
}

/// A lease is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Ended {
    /// Why.
    pub cause: Cause,
    /// Whether the account is gone too. Said only where it stays, because it is a standing one.
    #[serde(skip_serializing_if = "is_true")]
    pub account_removed: bool,
    /// When the account was removed, if that was before the store could be written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub account_removed_at: Option<Timestamp>,
    /// Why the lease is closed although nobody could ask for its account by name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub closed_because: Option<&'static str>,
}

/// Nobody knows whether an account exists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Doubtful {
    /// Why it is removed, where it is not for the doubt alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
    /// What else the lease is.
    pub lease: Box<LeaseRest>,
}

/// An attempt to remove an account failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Attempted {
    /// How many have failed so far.
    pub attempts: u32,
}

/// Accounts that the store does not know were held, or released by an operator (BRAKE).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Braked {
    /// How many accounts without a lease.
    pub accounts: usize,
    /// The first of them.
    pub named: Vec<String>,
    /// How many leases have no account in the target.
    #[serde(skip_serializing_if = "is_zero")]
    pub leases_without_account: usize,
}

/// The wall clock jumped, or a jump is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ClockJump {
    /// What became of it.
    pub what: Jump,
    /// How far, in seconds; backward is negative. Absent when the clock is back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds: Option<i64>,
}

/// What became of a jump of the wall clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Jump {
    /// It jumped: leases do not go by it.
    Jumped,
    /// It is back: leases go by it again.
    Back,
    /// The jump has lasted: leases go by it again.
    Taken,
    /// An operator said that the new time is right.
    Confirmed,
}

/// Which rotating account, and how far it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RotatingAccount {
    /// Its connection or, without one, its driver. With the account's name that is the name of its record in the store.
    pub connection: String,
    /// Which password is handed out; `null` before the first.
    pub generation: Option<Generation>,
    /// The number of the record that became durable with the event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub record: Option<u64>,
}

/// A rotating account has a new password.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rotated {
    /// Which account.
    #[serde(flatten)]
    pub account: RotatingAccount,
    /// What became of the password before it.
    #[serde(flatten)]
    pub previous: PreviousPassword,
    /// When the next rotation is due; `null` when none is planned.
    pub next_rotation_at: Option<Timestamp>,
}

/// What became of the password before the new one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum PreviousPassword {
    /// It works for an overlap.
    Overlaps {
        /// Until when.
        previous_valid_until: Timestamp,
        /// Whether an operator asked for the rotation.
        asked: bool,
    },
    /// It stopped working.
    Replaced {
        /// Always `true`.
        at_once: bool,
    },
}

/// A step of a rotation failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RotationFailed {
    /// Which account.
    #[serde(flatten)]
    pub account: RotatingAccount,
    /// How often in a row.
    pub attempts: u32,
}

/// A policy in shadow mode would have decided otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ShadowDiff {
    /// The decision, or how many there were.
    #[serde(flatten)]
    pub basis: Basis,
    /// The policy.
    pub policy: String,
}

/// A plugin is serving, or serves no longer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PluginServed {
    /// Its name in the configuration.
    pub plugin: String,
    /// Its kind.
    pub kind: String,
    /// The digest of the component, in hexadecimal.
    pub plugin_sha256: String,
    /// What it was granted.
    pub grants: Vec<String>,
    /// The keys that vouch for it. Absent where none has to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub signed_by: Vec<String>,
}

/// A plugin or a configuration was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PluginRejected {
    /// What made the broker load its configuration.
    pub trigger: &'static str,
    /// The plugin's name in the configuration, where one plugin is to blame.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plugin: Option<String>,
    /// The digest of its bytes, in hexadecimal, where they could be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plugin_sha256: Option<String>,
}

/// A new configuration holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reloaded {
    /// What made the broker load it.
    pub trigger: &'static str,
    /// Targets that it adds.
    pub targets_added: Vec<String>,
    /// Targets that it no longer has.
    pub targets_removed: Vec<String>,
    /// What holds only after a restart.
    pub needs_restart: Vec<String>,
    /// Accounts that it cannot remove.
    pub orphans: Vec<String>,
}

/// An operator asked for a reconciliation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ReconcileAsked {
    /// Nothing is to be changed.
    pub dry_run: bool,
    /// Removals that are held are to be made.
    pub confirm: bool,
}

/// An operator asked for a rotation before its time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RotationAsked {
    /// Of which account.
    #[serde(flatten)]
    pub account: RotatingAccount,
    /// Without an overlap. Said only where that is so.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub at_once: bool,
}

/// An operator asked to archive the oldest records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ArchiveAsked {
    /// Records younger than this stay, in place of what is configured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep: Option<String>,
}

/// The oldest records left the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Archived {
    /// The first of them.
    pub from: u64,
    /// The record after the last.
    pub to: u64,
    /// The root of the tree over all records before `to`.
    pub root: String,
    /// The file that has them.
    pub file: String,
}

/// The broker started or stopped.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Process {
    /// Its version.
    pub version: &'static str,
    /// At a start: the mark on its accounts (ONE-OWNER), sealed under the log's signing key, in base64. With it a lost
    /// store can be made again from the log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub account_mark: Option<String>,
}

/// A broker of the same store was fenced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FencedBroker {
    /// Its process and machine.
    pub broker: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_true(value: &bool) -> bool {
    *value
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(value: &usize) -> bool {
    *value == 0
}
