//! The audit events. One JSON object each, append-only; no field ever holds a secret or a token.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;

use crate::lease::Lease;
use crate::policy::PolicyRecord;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// A secret may leave the broker.
    IssueGranted,
    /// A policy said no.
    IssueDenied,
    /// The backend refused, or its answer is unknown.
    IssueFailed,
    /// The password of a live lease was reset for a retry with its Idempotency-Key.
    IssueReplayed,
    /// A later expiry.
    LeaseRenewed,
    /// A policy said no to a renewal.
    RenewDenied,
    /// The account is gone, on request.
    LeaseRevoked,
    /// The account is gone, its time was over.
    LeaseExpired,
    /// Nobody knows whether the account exists.
    LeaseDoubtful,
    /// An attempt to remove an account failed.
    RevokeFailed,
    /// An account could not be removed: what answers is not the server that has it.
    WrongPlace,
    /// Accounts without a lease were not removed: an operator has to decide.
    RemovalBraked,
    /// An operator decided that they go.
    RemovalConfirmed,
    /// The clock jumped, or an operator took a jump for right.
    ClockJumped,
    /// An account without a lease was removed.
    GhostRemoved,
    /// A lease without an account, or an account that differs from its lease.
    Drift,
    /// A rotating account has a new password.
    AccountRotated,
    /// Somebody else changed a rotating account's password; it is taken back.
    AccountTampered,
    /// A rotating account's old password works no longer.
    OverlapEnded,
    /// A step of a rotation failed; it is tried again.
    RotationFailed,
    /// A policy in shadow mode would have decided otherwise.
    ShadowDiff,
    /// A plugin is serving.
    PluginLoaded,
    /// A plugin was refused; the last good one serves on.
    PluginRejected,
    /// A plugin serves no longer.
    PluginUnloaded,
    /// A new configuration holds.
    ConfigReloaded,
    /// An operator revoked a lease.
    AdminRevoke,
    /// An operator asked for a reconciliation.
    AdminReconcile,
    /// An operator asked for a rotation before its time.
    AdminRotate,
    /// An operator asked to archive the oldest records.
    AdminArchive,
    /// The oldest records left the store for a file.
    LogArchived,
    /// The broker serves.
    BrokerStarted,
    /// The broker stopped in order.
    BrokerStopped,
}

impl EventKind {
    /// The event's word in the record.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::IssueGranted => "issue.granted",
            Self::IssueDenied => "issue.denied",
            Self::IssueFailed => "issue.failed",
            Self::IssueReplayed => "issue.replayed",
            Self::LeaseRenewed => "lease.renewed",
            Self::RenewDenied => "renew.denied",
            Self::LeaseRevoked => "lease.revoked",
            Self::LeaseExpired => "lease.expired",
            Self::LeaseDoubtful => "lease.doubtful",
            Self::RevokeFailed => "revoke.failed",
            Self::WrongPlace => "removal.wrong_place",
            Self::RemovalBraked => "removal.braked",
            Self::RemovalConfirmed => "removal.confirmed",
            Self::ClockJumped => "clock.jumped",
            Self::GhostRemoved => "reconcile.ghost_removed",
            Self::Drift => "reconcile.drift",
            Self::AccountRotated => "account.rotated",
            Self::AccountTampered => "account.tampered",
            Self::OverlapEnded => "rotation.overlap_ended",
            Self::RotationFailed => "rotation.failed",
            Self::ShadowDiff => "policy.shadow_diff",
            Self::PluginLoaded => "plugin.loaded",
            Self::PluginRejected => "plugin.rejected",
            Self::PluginUnloaded => "plugin.unloaded",
            Self::ConfigReloaded => "config.reloaded",
            Self::AdminRevoke => "admin.revoke",
            Self::AdminReconcile => "admin.reconcile",
            Self::AdminRotate => "admin.rotate",
            Self::LogArchived => "audit.archived",
            Self::AdminArchive => "admin.archive",
            Self::BrokerStarted => "broker.started",
            Self::BrokerStopped => "broker.stopped",
        }
    }
}

impl Serialize for EventKind {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// An event before the log gives it its number (`seq`).
///
/// Empty fields are left out of the record.
#[derive(Debug, Clone, Serialize)]
pub struct AuditEvent {
    /// When, in UTC.
    pub timestamp: Timestamp,
    /// What.
    pub event: EventKind,
    /// The request it belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// The lease.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease_id: Option<String>,
    /// The workload.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workload: Option<String>,
    /// The configured name of the issuer that verified it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity_issuer: Option<String>,
    /// The token's `sub`: whose it is, where two workloads have one name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity_subject: Option<String>,
    /// Of the identity's attributes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub k8s_namespace: Option<String>,
    /// Of the identity's attributes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub k8s_pod: Option<String>,
    /// The target.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_db: Option<String>,
    /// The role that holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// The account's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ephemeral_id: Option<String>,
    /// The length in minutes; a fraction where it is no whole number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl_minutes: Option<serde_json::Number>,
    /// When it ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// Who wrote the record: `jit-broker/issue-api v<version>` for requests.
    pub issued_by: String,
    /// The caller's reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The caller's ticket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ticket: Option<String>,
    /// Each policy's part.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<PolicyRecord>,
    /// The digest of the driver, in hexadecimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub driver_sha256: Option<String>,
    /// What went wrong, without secrets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Anything else of this event: the decision's input, a cause, a count.
    #[serde(flatten)]
    pub more: BTreeMap<&'static str, serde_json::Value>,
}

/// Who writes records of requests: name and version of the issue API.
pub const ISSUED_BY: &str = concat!("jit-broker/issue-api v", env!("CARGO_PKG_VERSION"));

impl AuditEvent {
    /// An event about nothing in particular yet.
    #[must_use]
    pub fn new(event: EventKind, timestamp: Timestamp) -> Self {
        Self {
            timestamp,
            event,
            request_id: None,
            lease_id: None,
            workload: None,
            identity_issuer: None,
            identity_subject: None,
            k8s_namespace: None,
            k8s_pod: None,
            target_db: None,
            role: None,
            ephemeral_id: None,
            ttl_minutes: None,
            expires_at: None,
            issued_by: ISSUED_BY.to_owned(),
            reason: None,
            ticket: None,
            policies: Vec::new(),
            driver_sha256: None,
            error: None,
            more: BTreeMap::new(),
        }
    }

    /// An event about a lease, with all that the lease tells.
    #[must_use]
    pub fn of_lease(event: EventKind, timestamp: Timestamp, lease: &Lease) -> Self {
        Self {
            request_id: Some(lease.request_id.to_string()),
            lease_id: Some(lease.id.to_string()),
            workload: Some(lease.principal.workload.clone()),
            identity_issuer: Some(lease.principal.issuer.clone()),
            identity_subject: Some(lease.principal.subject.clone()).filter(|subject| !subject.is_empty()),
            k8s_namespace: lease.attributes.get("k8s_namespace").cloned(),
            k8s_pod: lease.attributes.get("k8s_pod").cloned(),
            target_db: Some(lease.target.to_string()),
            role: Some(lease.role.to_string()),
            ephemeral_id: Some(lease.login().to_owned()),
            ttl_minutes: Some(minutes(lease.ttl().seconds())),
            expires_at: Some(lease.expires_at),
            reason: lease.reason.clone(),
            ticket: lease.ticket.clone(),
            driver_sha256: Some(lease.driver.sha256.clone()),
            ..Self::new(event, timestamp)
        }
    }

    /// The same event with one more field.
    #[must_use]
    pub fn with(mut self, field: &'static str, value: impl Into<serde_json::Value>) -> Self {
        self.more.insert(field, value.into());
        self
    }

    /// The same event with what went wrong.
    #[must_use]
    pub fn with_error(mut self, error: impl Into<String>) -> Self {
        self.error = Some(error.into());
        self
    }
}

/// Seconds as minutes: a whole number where it is one.
fn minutes(seconds: u32) -> serde_json::Number {
    if seconds.is_multiple_of(60) {
        (seconds / 60).into()
    } else {
        let rounded = (f64::from(seconds) / 60.0 * 1000.0).round() / 1000.0;
        serde_json::Number::from_f64(rounded).unwrap_or_else(|| (seconds / 60).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_issuance_holds_what_the_contract_names() {
        let lease = crate::lease::tests::example();
        let event = AuditEvent::of_lease(EventKind::IssueGranted, lease.issued_at, &lease);
        let record = serde_json::to_value(&event).unwrap();
        for field in [
            "timestamp",
            "event",
            "request_id",
            "lease_id",
            "workload",
            "identity_issuer",
            "identity_subject",
            "target_db",
            "role",
            "ephemeral_id",
            "ttl_minutes",
            "expires_at",
            "issued_by",
            "driver_sha256",
        ] {
            assert!(record.get(field).is_some(), "{field} is missing in {record}");
        }
        assert_eq!(record["ttl_minutes"], 30);
        assert_eq!(record["event"], "issue.granted");
    }

    #[test]
    fn minutes_are_whole_where_they_can_be() {
        assert_eq!(minutes(1_800).to_string(), "30");
        assert_eq!(minutes(90).to_string(), "1.5");
    }
}
