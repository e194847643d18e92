//! `POST /issue`: the request, and the reply, which is the only place where a secret leaves the broker.

use std::collections::BTreeMap;

use jiff::Timestamp;
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize, Serializer};

use crate::Length;
use crate::credential::{CredentialRequest, MadeByCaller};

/// The body of `POST /issue` and `POST /v1/simulate`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct IssueRequest {
    /// The target, by its configured name.
    #[cfg_attr(feature = "openapi", schema(example = "inventory_db", max_length = 63))]
    pub target: String,
    /// The role. May be absent if the target has a default role.
    #[cfg_attr(feature = "openapi", schema(example = "app_read_only", max_length = 63))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// How long: a duration ("90s", "30m", "1h30m") or whole seconds. Limited by the target and by policies.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, example = "30m"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<Length>,
    /// Why, for policies and the audit log.
    #[cfg_attr(feature = "openapi", schema(max_length = 1024))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// A ticket, for policies and the audit log.
    #[cfg_attr(feature = "openapi", schema(max_length = 128))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ticket: Option<String>,
    /// Anything else worth recording; at most 16 entries.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
    /// Which type of credential; a password that the broker makes, if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<CredentialRequest>,
}

impl IssueRequest {
    /// A credential of a target, with its default role and term.
    #[must_use]
    pub fn new(target: impl Into<String>) -> Self {
        Self {
            target: target.into(),
            role: None,
            ttl: None,
            reason: None,
            ticket: None,
            metadata: BTreeMap::new(),
            credential: None,
        }
    }

    /// With this role.
    #[must_use]
    pub fn role(mut self, role: impl Into<String>) -> Self {
        self.role = Some(role.into());
        self
    }

    /// With terms of this length, as "90s" or "1h".
    #[must_use]
    pub fn ttl(mut self, ttl: impl Into<Length>) -> Self {
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

/// The reply to `POST /issue`: the only place where a secret leaves the broker.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct IssueReply {
    /// The lease.
    #[cfg_attr(feature = "openapi", schema(example = "lease_01jd3x7k2m9v5q8w4r6t0y1z3b"))]
    pub lease_id: String,
    /// The target.
    pub target: String,
    /// The role that was granted, which a policy may have narrowed.
    pub role: String,
    /// The account's name.
    pub ephemeral_id: String,
    /// What to log in with.
    #[cfg_attr(feature = "openapi", schema(value_type = schema::Credential))]
    pub credential: Credential,
    /// Where to connect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection: Option<Connection>,
    /// Further facts from the driver, such as an entry's distinguished name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub properties: BTreeMap<String, String>,
    /// `false` if the account exists before and after the lease, so that the lease's end does not take back what
    /// was handed out. Absent otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(example = false))]
    pub revocable: Option<bool>,
    /// For rotating accounts: when the previous password stops working. Absent if it already has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime))]
    pub previous_valid_until: Option<Timestamp>,
    /// The lease's times.
    #[serde(flatten)]
    pub term: Term,
}

/// What to log in with, by the word in `type`. Certificates, tokens and what else the API names will be further
/// variants, so that no program takes one kind for another.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
#[non_exhaustive]
pub enum Credential {
    /// A user name and password.
    Password(Password),
    /// A user name. The caller made the password, and the broker does not know it.
    Verifier(MadeByCaller),
}

/// A user name and password.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Password {
    /// The account's name.
    pub username: String,
    /// Its password.
    #[serde(serialize_with = "disclosed")]
    pub password: SecretString,
}

/// Where to connect.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Connection {
    /// Host name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// The database, if the target has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
    /// All of it with the credential, as one URI. An `ldap` URI holds no credential (RFC 4516), and where the caller
    /// made the password, the URI has the user name only.
    #[serde(serialize_with = "disclosed")]
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = Password))]
    pub uri: SecretString,
}

/// A lease's times.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Term {
    /// When it was issued.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub issued_at: Timestamp,
    /// When it ends.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub expires_at: Timestamp,
    /// The length of the present term.
    pub ttl_seconds: u32,
    /// When to renew: at 80 % of the present term.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub renew_after: Timestamp,
    /// The latest end that a renewal can reach.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub max_expires_at: Timestamp,
    /// Whether it can be renewed.
    pub renewable: bool,
}

/// The one place where a secret is written out.
fn disclosed<S: Serializer>(secret: &SecretString, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(secret.expose_secret())
}

/// Schemas whose Rust type is another one.
#[cfg(feature = "openapi")]
mod schema {
    /// A user name, and its password unless the caller made it.
    #[derive(utoipa::ToSchema)]
    #[allow(dead_code, reason = "only its schema is used")]
    pub(super) struct Credential {
        /// `password` or `verifier`.
        #[schema(rename = "type", example = "password")]
        kind: String,
        /// The account's name.
        username: String,
        /// With `password`: its password.
        #[schema(format = Password)]
        password: Option<String>,
        /// With `verifier`: which kind of verifier the caller sent.
        #[schema(example = "scram_sha_256")]
        verifier: Option<String>,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPLY: &str = r#"{"lease_id":"lease_1","target":"t","role":"r","ephemeral_id":"v-x","credential":{"type":"password","username":"v-x","password":"geheim"},"connection":{"host":"h","port":5432,"database":"d","uri":"postgres://v-x:geheim@h:5432/d"},"issued_at":"2026-01-02T03:04:05Z","expires_at":"2026-01-02T04:04:05Z","ttl_seconds":3600,"renew_after":"2026-01-02T03:52:05Z","max_expires_at":"2026-01-02T11:04:05Z","renewable":true}"#;

    #[test]
    fn a_reply_is_written_as_it_was_read() {
        let reply: IssueReply = serde_json::from_str(REPLY).unwrap();
        assert_eq!(serde_json::to_string(&reply).unwrap(), REPLY);
        let Credential::Password(password) = &reply.credential else { panic!("{reply:?}") };
        assert_eq!(password.password.expose_secret(), "geheim");
    }

    #[test]
    fn what_is_printed_holds_no_secret() {
        let reply: IssueReply = serde_json::from_str(REPLY).unwrap();
        let printed = format!("{reply:?}{reply:#?}");
        assert!(printed.contains("v-x") && !printed.contains("geheim"), "{printed}");
    }

    #[test]
    fn a_credential_of_another_kind_is_not_taken_for_a_password() {
        for kind in ["token", "x509", "PASSWORD", ""] {
            let text = REPLY.replace("\"type\":\"password\"", &format!("\"type\":\"{kind}\""));
            let error = serde_json::from_str::<IssueReply>(&text).unwrap_err().to_string();
            assert!(error.contains("unknown variant") && !error.contains("geheim"), "{error}");
        }
    }

    #[test]
    fn a_request_has_only_what_was_asked_for() {
        let request = IssueRequest::new("t");
        assert_eq!(serde_json::to_string(&request).unwrap(), r#"{"target":"t"}"#);
        let request = request.role("r").ttl("1h30m").reason("why").ticket("T-1").metadata("a", "b");
        let text = serde_json::to_string(&request).unwrap();
        assert_eq!(serde_json::from_str::<IssueRequest>(&text).unwrap(), request);
        assert!(serde_json::from_str::<IssueRequest>(r#"{"target":"t","rolle":"r"}"#).is_err());
    }
}
