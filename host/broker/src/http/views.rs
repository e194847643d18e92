//! The bodies of replies.

use std::collections::BTreeMap;

use jiff::Timestamp;
use jit_core::lease::{Lease, LeaseState};
use jit_core::policy::PolicyRecord;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use secrecy::ExposeSecret as _;
use serde::Serialize;

use crate::issue::Disclosure;
use crate::target::Endpoint;

/// The reply to `POST /issue`: the only place where a secret leaves the broker.
#[derive(Serialize, utoipa::ToSchema)]
pub struct IssueReply {
    /// The lease.
    #[schema(example = "lease_01jd3x7k2m9v5q8w4r6t0y1z3b")]
    pub lease_id: String,
    /// The target.
    pub target: String,
    /// The role that was granted, which a policy may have narrowed.
    pub role: String,
    /// The account's name.
    pub ephemeral_id: String,
    /// What to log in with.
    pub credential: Credential,
    /// Where to connect.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connection: Option<Connection>,
    /// What else the driver said.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub properties: BTreeMap<String, String>,
    /// `false` where the account stands before and after the lease: its end does not take back what
    /// was handed out. Left out where it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = false)]
    pub revocable: Option<bool>,
    /// Of a rotating account: until when the password before this one works; left out when it does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub previous_valid_until: Option<Timestamp>,
    /// The lease's times.
    #[serde(flatten)]
    pub term: Term,
}

/// A user name and password.
#[derive(Serialize, utoipa::ToSchema)]
pub struct Credential {
    /// `password`.
    #[serde(rename = "type")]
    #[schema(example = "password")]
    pub kind: &'static str,
    /// The account's name.
    pub username: String,
    /// Its password.
    #[schema(format = Password)]
    pub password: String,
}

/// Where to connect.
#[derive(Serialize, utoipa::ToSchema)]
pub struct Connection {
    /// Host name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// The database, where the target has such a thing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
    /// All of it, with the credential, as one URI. An `ldap` URI holds no credential (RFC 4516).
    #[schema(format = Password)]
    pub uri: String,
}

/// A lease's times.
#[derive(Serialize, utoipa::ToSchema)]
pub struct Term {
    /// When it was issued.
    #[schema(value_type = String, format = DateTime)]
    pub issued_at: Timestamp,
    /// When it ends.
    #[schema(value_type = String, format = DateTime)]
    pub expires_at: Timestamp,
    /// The length of the present term.
    pub ttl_seconds: u32,
    /// Renew from here on: 80 % of the present term.
    #[schema(value_type = String, format = DateTime)]
    pub renew_after: Timestamp,
    /// What no renewal passes.
    #[schema(value_type = String, format = DateTime)]
    pub max_expires_at: Timestamp,
    /// Whether it can be renewed.
    pub renewable: bool,
}

impl Term {
    fn of(lease: &Lease) -> Self {
        Self {
            issued_at: lease.issued_at,
            expires_at: lease.expires_at,
            ttl_seconds: lease.ttl().seconds(),
            renew_after: lease.renew_after().min(lease.expires_at),
            max_expires_at: lease.max_expires_at,
            renewable: lease.renewable,
        }
    }
}

impl IssueReply {
    /// The reply for a disclosure.
    #[must_use]
    pub fn of(disclosure: &Disclosure) -> Self {
        let Disclosure { lease, handover, endpoint, previous_valid_until } = disclosure;
        let password = handover.secret.expose_secret();
        Self {
            lease_id: lease.id.to_string(),
            target: lease.target.to_string(),
            role: lease.role.to_string(),
            ephemeral_id: lease.login().to_owned(),
            credential: Credential {
                kind: "password",
                username: handover.username.clone(),
                password: password.to_owned(),
            },
            connection: endpoint.as_ref().map(|endpoint| Connection {
                host: endpoint.host.clone(),
                port: endpoint.port,
                database: endpoint.database.clone(),
                uri: uri(endpoint, &handover.username, password),
            }),
            properties: handover.properties.iter().cloned().collect(),
            previous_valid_until: *previous_valid_until,
            revocable: revocable(lease),
            term: Term::of(lease),
        }
    }
}

/// A connection URI, every part percent-encoded.
fn uri(endpoint: &Endpoint, username: &str, password: &str) -> String {
    let Endpoint { scheme, host, port, database } = endpoint;
    let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
    let user_info = match scheme.as_str() {
        // RFC 4516 has no place for it.
        "ldap" | "ldaps" => String::new(),
        _ => format!("{}:{}@", encode(username), encode(password)),
    };
    let path = database.as_ref().map_or_else(String::new, |database| format!("/{}", encode(database)));
    format!("{scheme}://{user_info}{host}:{port}{path}")
}

/// All but RFC 3986's unreserved characters.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Percent-encodes all but RFC 3986's unreserved characters.
pub(crate) fn encode(text: &str) -> String {
    utf8_percent_encode(text, RESERVED).to_string()
}

/// A lease without its secret.
#[derive(Serialize, utoipa::ToSchema)]
pub struct LeaseView {
    /// The lease.
    pub lease_id: String,
    /// `pending`, `active`, `revoking`, `revoked` or `doubtful`.
    #[schema(value_type = String, example = "active")]
    pub state: LeaseState,
    /// The target.
    pub target: String,
    /// The role.
    pub role: String,
    /// The account's name.
    pub ephemeral_id: String,
    /// `false` where the account stands before and after the lease: its end does not take back what
    /// was handed out. Left out where it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = false)]
    pub revocable: Option<bool>,
    /// What the end of this lease did not do, where it says less than it seems to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<&'static str>,
    /// Of a rotating account: until when the password that was handed out works, whether the lease
    /// has ended or not; left out when it works no longer, and in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub usable_until: Option<Timestamp>,
    /// The lease's times.
    #[serde(flatten)]
    pub term: Term,
    /// Why it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The ticket given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ticket: Option<String>,
    /// What the caller attached.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
}

impl From<&Lease> for LeaseView {
    fn from(lease: &Lease) -> Self {
        Self {
            lease_id: lease.id.to_string(),
            state: lease.state,
            target: lease.target.to_string(),
            role: lease.role.to_string(),
            ephemeral_id: lease.login().to_owned(),
            revocable: revocable(lease),
            usable_until: None,
            note: (lease.standing && lease.state == LeaseState::Revoked).then_some(STANDING),
            term: Term::of(lease),
            reason: lease.reason.clone(),
            ticket: lease.ticket.clone(),
            metadata: lease.metadata.clone(),
        }
    }
}

/// What a lease over a standing account tells at its end.
const STANDING: &str = "the lease is over, but its account stands: whoever has the credential can use it until it is changed at its source";

fn revocable(lease: &Lease) -> Option<bool> {
    lease.standing.then_some(false)
}

/// A page of leases.
#[derive(Serialize, utoipa::ToSchema)]
pub struct LeasePage {
    /// Newest first.
    pub leases: Vec<LeaseView>,
    /// Give this as `cursor` for the next page; null at the end.
    pub next_cursor: Option<String>,
}

/// The reply to `POST /v1/leases/revoke`.
#[derive(Serialize, utoipa::ToSchema)]
pub struct GivenBackReply {
    /// Each lease that was named, in that order; or all of the caller's that were not over.
    pub leases: Vec<GivenBackLease>,
    /// There are more leases than one request gives back: ask again.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub more: bool,
}

/// What became of a lease that was given back.
#[derive(Serialize, utoipa::ToSchema)]
pub struct GivenBackLease {
    /// The lease, as it was named.
    pub lease_id: String,
    /// `revoked`: its account is gone; `revoking` and `doubtful`: it is being removed; `pending`: it was
    /// not issued yet, so there was nothing to give back. Left out with a `code`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "revoked")]
    pub state: Option<LeaseState>,
    /// `unknown-lease`: the caller has no such lease.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "unknown-lease")]
    pub code: Option<&'static str>,
}

/// The reply to `POST /v1/simulate`.
#[derive(Serialize, utoipa::ToSchema)]
pub struct SimulateReply {
    /// `allow` or `deny`.
    #[schema(example = "allow")]
    pub decision: &'static str,
    /// Each policy's part, in the order of the chain.
    #[schema(value_type = Vec<PolicyView>)]
    pub policies: Vec<PolicyRecord>,
    /// What would hold.
    pub effective: Effective,
    /// The first policy that says no.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// Why it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The schema of a policy's part in a decision.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = PolicyView)]
pub struct PolicyView {
    /// The policy's name in the configuration.
    pub name: String,
    /// `enforce` or `shadow`.
    pub mode: String,
    /// `allow` or `deny`.
    pub verdict: String,
    /// Its reason.
    pub reason: Option<String>,
    /// The lease lives at most so many seconds.
    pub max_ttl_seconds: Option<u64>,
    /// The role that it wants instead of the one asked for.
    pub narrower_role: Option<String>,
    /// What the request must have: `reason`, `ticket`, `approval`.
    pub requires: Option<Vec<String>>,
    /// Labels for the audit record.
    pub labels: Option<std::collections::BTreeMap<String, String>>,
    /// It did not answer, which denies.
    pub failed: Option<bool>,
    /// Where it is being rolled out: whether it has reached this workload.
    pub rolled_out: Option<bool>,
    /// The digest of its component.
    pub plugin_sha256: String,
    /// The digest of its configuration.
    pub config_sha256: String,
    /// How long it took, in microseconds.
    pub micros: u64,
}

/// What would hold.
#[derive(Serialize, utoipa::ToSchema)]
pub struct Effective {
    /// The role.
    pub role: String,
    /// The length of the lease.
    pub ttl_seconds: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris_are_encoded() {
        let endpoint = |scheme: &str, host: &str, port, database: Option<&str>| Endpoint {
            scheme: scheme.into(),
            host: host.into(),
            port,
            database: database.map(Into::into),
        };
        let v6 = endpoint("postgres", "::1", 5432, Some("a b"));
        assert_eq!(uri(&v6, "v-x", "p@:/"), "postgres://v-x:p%40%3A%2F@[::1]:5432/a%20b");
        let none = endpoint("mysql", "db", 3306, None);
        assert_eq!(uri(&none, "v-é%", "#?&"), "mysql://v-%C3%A9%25:%23%3F%26@db:3306");
        let directory = endpoint("ldaps", "directory", 636, None);
        assert_eq!(uri(&directory, "cn=v,dc=x", "p"), "ldaps://directory:636");
    }
}
