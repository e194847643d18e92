//! The audit events. One JSON object each, append-only; no field ever holds a secret or a token.
//!
//! A record has the fields of [`AuditEvent`] in their order, then what only its kind of [`Event`] says, in the order
//! of the fields' names. The names outside are part of the contract: `records/` has the records of each kind, byte
//! for byte.

mod kind;
mod lease_rest;
mod payload;

use jiff::Timestamp;
use serde::ser::{Error as _, SerializeMap as _};
use serde::{Serialize, Serializer};

use crate::lease::Lease;
use crate::operator::Operator;
use crate::policy::PolicyRecord;

pub use kind::Event;
pub use lease_rest::LeaseRest;
pub use payload::*;

/// An event before the log gives it its number (`seq`).
///
/// Empty fields are left out of the record.
#[derive(Debug, Clone)]
pub struct AuditEvent {
    /// When, in UTC.
    pub timestamp: Timestamp,
    /// What.
    pub event: Event,
    /// The request it belongs to.
    pub request_id: Option<String>,
    /// The lease.
    pub lease_id: Option<String>,
    /// The workload.
    pub workload: Option<String>,
    /// The configured name of the issuer that verified it.
    pub identity_issuer: Option<String>,
    /// The token's `sub`: whose it is, where two workloads have one name.
    pub identity_subject: Option<String>,
    /// Of the identity's attributes.
    pub k8s_namespace: Option<String>,
    /// Of the identity's attributes.
    pub k8s_pod: Option<String>,
    /// The target.
    pub target_db: Option<String>,
    /// The role that holds.
    pub role: Option<String>,
    /// The account's name.
    pub ephemeral_id: Option<String>,
    /// The length in minutes; a fraction where it is no whole number.
    pub ttl_minutes: Option<serde_json::Number>,
    /// When it ends.
    pub expires_at: Option<Timestamp>,
    /// Who wrote the record: `jit-broker/issue-api v<version>` for requests.
    pub issued_by: String,
    /// The caller's reason.
    pub reason: Option<String>,
    /// The caller's ticket.
    pub ticket: Option<String>,
    /// Each policy's part.
    pub policies: Vec<PolicyRecord>,
    /// The digest of the driver, in hexadecimal.
    pub driver_sha256: Option<String>,
    /// What went wrong, without secrets.
    pub error: Option<String>,
    /// The operator who asked for it.
    pub operator: Option<Operator>,
}

/// Who writes records of requests: name and version of the issue API.
pub const ISSUED_BY: &str = concat!("jit-broker/issue-api v", env!("CARGO_PKG_VERSION"));

impl AuditEvent {
    /// An event about nothing in particular yet.
    #[must_use]
    pub fn new(event: Event, timestamp: Timestamp) -> Self {
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
            operator: None,
        }
    }

    /// An event about a lease, with all that the lease tells.
    #[must_use]
    pub fn of_lease(event: Event, timestamp: Timestamp, lease: &Lease) -> Self {
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

    /// The same event, asked for by an operator.
    #[must_use]
    pub fn by(mut self, operator: Operator) -> Self {
        self.operator = Some(operator);
        self
    }

    /// The same event with what went wrong.
    #[must_use]
    pub fn with_error(mut self, error: impl Into<String>) -> Self {
        self.error = Some(error.into());
        self
    }
}

impl Serialize for AuditEvent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // Every field by name: one that is added and not written here is an unused variable.
        let Self {
            timestamp,
            event,
            request_id,
            lease_id,
            workload,
            identity_issuer,
            identity_subject,
            k8s_namespace,
            k8s_pod,
            target_db,
            role,
            ephemeral_id,
            ttl_minutes,
            expires_at,
            issued_by,
            reason,
            ticket,
            policies,
            driver_sha256,
            error,
            operator,
        } = self;
        let mut record = Record(serializer.serialize_map(None)?);
        record.0.serialize_entry("timestamp", timestamp)?;
        record.0.serialize_entry("event", event.word())?;
        record.some("request_id", request_id.as_ref())?;
        record.some("lease_id", lease_id.as_ref())?;
        record.some("workload", workload.as_ref())?;
        record.some("identity_issuer", identity_issuer.as_ref())?;
        record.some("identity_subject", identity_subject.as_ref())?;
        record.some("k8s_namespace", k8s_namespace.as_ref())?;
        record.some("k8s_pod", k8s_pod.as_ref())?;
        record.some("target_db", target_db.as_ref())?;
        record.some("role", role.as_ref())?;
        record.some("ephemeral_id", ephemeral_id.as_ref())?;
        record.some("ttl_minutes", ttl_minutes.as_ref())?;
        record.some("expires_at", expires_at.as_ref())?;
        record.0.serialize_entry("issued_by", issued_by)?;
        record.some("reason", reason.as_ref())?;
        record.some("ticket", ticket.as_ref())?;
        record.some("policies", Some(policies).filter(|policies| !policies.is_empty()))?;
        record.some("driver_sha256", driver_sha256.as_ref())?;
        record.some("error", error.as_ref())?;
        let operator = operator.map(serde_json::to_value).transpose().map_err(S::Error::custom)?;
        let payload = event.payload().map_err(S::Error::custom)?;
        let objects = operator.into_iter().chain([payload]).map(|part| match part {
            serde_json::Value::Object(fields) => Ok(fields),
            _ => Err(S::Error::custom("the payload of an event is a struct")),
        });
        // Sorted together: a record does not tell whether a field is the operator's or the event's.
        let mut sorted = serde_json::Map::new();
        for object in objects {
            sorted.extend(object?);
        }
        for (name, value) in &sorted {
            record.0.serialize_entry(name, value)?;
        }
        record.0.end()
    }
}

/// A record that is being written.
struct Record<M>(M);

impl<M: serde::ser::SerializeMap> Record<M> {
    fn some<T: Serialize>(&mut self, name: &'static str, value: Option<T>) -> Result<(), M::Error> {
        value.map_or(Ok(()), |value| self.0.serialize_entry(name, &value))
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
    fn minutes_are_whole_where_they_can_be() {
        assert_eq!(minutes(1_800).to_string(), "30");
        assert_eq!(minutes(90).to_string(), "1.5");
    }
}

#[cfg(test)]
mod record_tests;
