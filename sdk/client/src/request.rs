//! What is asked for.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The body of `POST /issue`. Only the target is needed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The broker's name of the target.
    pub target: String,
    /// The role; without it, the target's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// How long a term is to be: "90s", "30m", "1h". The broker lowers it to its caps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<String>,
    /// Why; for policies and the audit log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// A ticket; for policies and the audit log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ticket: Option<String>,
    /// What else is worth recording.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
}

impl Request {
    /// A credential of a target, with its default role and term.
    #[must_use]
    pub fn new(target: impl Into<String>) -> Self {
        Self { target: target.into(), role: None, ttl: None, reason: None, ticket: None, metadata: BTreeMap::new() }
    }

    /// With this role.
    #[must_use]
    pub fn role(mut self, role: impl Into<String>) -> Self {
        self.role = Some(role.into());
        self
    }

    /// With terms of this length, as "90s" or "1h".
    #[must_use]
    pub fn ttl(mut self, ttl: impl Into<String>) -> Self {
        self.ttl = Some(ttl.into());
        self
    }

    /// With a reason for policies and the audit log.
    #[must_use]
    pub fn reason(mut self, reason: impl Into<String>) -> Self {
        self.reason = Some(reason.into());
        self
    }

    /// With a ticket for policies and the audit log.
    #[must_use]
    pub fn ticket(mut self, ticket: impl Into<String>) -> Self {
        self.ticket = Some(ticket.into());
        self
    }

    /// With one more thing worth recording.
    #[must_use]
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.metadata.insert(key.into(), value.into());
        self
    }
}
