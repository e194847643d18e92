//! The bodies of replies: how what the broker knows becomes the types of `jit-api`.

use jit_api::admin::AdminLease;
use jit_api::url::encode;
use jit_api::{Connection, Credential, IssueReply, LeaseView, MadeByCaller, Password, Term};
use jit_core::lease::{Lease, LeaseState, VerifierKind};
use jit_core::policy::PolicyRecord;
use secrecy::ExposeSecret as _;
use serde::Serialize;

use jit_pipeline::issue::Disclosure;
use jit_pipeline::target::Endpoint;

/// The lease's times.
fn term(lease: &Lease) -> Term {
    Term {
        issued_at: lease.issued_at,
        expires_at: lease.expires_at,
        ttl_seconds: lease.ttl().seconds(),
        renew_after: lease.renew_after().min(lease.expires_at),
        max_expires_at: lease.max_expires_at,
        renewable: lease.renewable,
    }
}

/// The reply for a disclosure.
#[must_use]
pub fn issue_reply(disclosure: &Disclosure) -> IssueReply {
    let Disclosure { lease, handover, endpoint, previous_valid_until } = disclosure;
    IssueReply {
        lease_id: lease.id.to_string(),
        target: lease.target.to_string(),
        role: lease.role.to_string(),
        ephemeral_id: lease.login().to_owned(),
        credential: match (&handover.secret, &lease.verifier) {
            (Some(password), _) => {
                Credential::Password(Password { username: handover.username.clone(), password: password.clone() })
            }
            (None, made) => Credential::Verifier(MadeByCaller {
                username: handover.username.clone(),
                // Only a lease with a verifier has no secret.
                verifier: made.as_ref().map_or(VerifierKind::ScramSha256, |made| made.kind),
            }),
        },
        connection: endpoint.as_ref().map(|endpoint| Connection {
            host: endpoint.host.clone(),
            port: endpoint.port,
            database: endpoint.database.clone(),
            uri: uri(endpoint, &handover.username, handover.secret.as_ref().map(|secret| secret.expose_secret()))
                .into(),
        }),
        properties: handover.properties.iter().cloned().collect(),
        previous_valid_until: *previous_valid_until,
        revocable: revocable(lease),
        term: term(lease),
    }
}

/// A connection URI, every part percent-encoded. Without a password it has the user name only.
fn uri(endpoint: &Endpoint, username: &str, password: Option<&str>) -> String {
    let Endpoint { scheme, host, port, database } = endpoint;
    let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
    let user_info = match scheme.as_str() {
        // RFC 4516 has no place for it.
        "ldap" | "ldaps" => String::new(),
        _ => match password {
            Some(password) => format!("{}:{}@", encode(username), encode(password)),
            None => format!("{}@", encode(username)),
        },
    };
    let path = database.as_ref().map_or_else(String::new, |database| format!("/{}", encode(database)));
    format!("{scheme}://{user_info}{host}:{port}{path}")
}

/// A lease without its secret.
#[must_use]
pub fn lease_view(lease: &Lease) -> LeaseView {
    LeaseView {
        lease_id: lease.id.to_string(),
        state: lease.state,
        target: lease.target.to_string(),
        role: lease.role.to_string(),
        ephemeral_id: lease.login().to_owned(),
        revocable: revocable(lease),
        usable_until: None,
        note: (lease.standing && lease.state == LeaseState::Revoked).then(|| STANDING.to_owned()),
        term: term(lease),
        reason: lease.reason.clone(),
        ticket: lease.ticket.clone(),
        metadata: lease.metadata.clone(),
    }
}

/// A lease as operators see it.
#[must_use]
pub fn admin_lease(lease: Lease) -> AdminLease {
    let account = lease.login().to_owned();
    let ended_at = lease.ended_at();
    let closed_because = lease.removal.as_ref().map(|removal| removal.cause.as_str().to_owned());
    let closed_by_uid = lease.removal.as_ref().and_then(|removal| removal.operator_uid);
    let (attempts, last_error) = lease.removal.map_or((0, None), |removal| (removal.attempts, removal.last_error));
    AdminLease {
        lease_id: lease.id.to_string(),
        state: lease.state,
        workload: lease.principal.workload,
        issuer: lease.principal.issuer,
        subject: lease.principal.subject,
        target: lease.target.to_string(),
        role: lease.role.to_string(),
        account,
        revocable: !lease.standing,
        issued_at: lease.issued_at,
        expires_at: lease.expires_at,
        request_id: lease.request_id.to_string(),
        closed_because,
        closed_by_uid,
        ended_at,
        attempts,
        last_error,
        reason: lease.reason,
        ticket: lease.ticket,
        driver: lease.driver.plugin,
        driver_sha256: lease.driver.sha256,
    }
}

/// What a lease over a standing account tells at its end.
const STANDING: &str = "the lease is over, but its account stands: whoever has the credential can use it until it is changed at its source";

fn revocable(lease: &Lease) -> Option<bool> {
    lease.standing.then_some(false)
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
    /// The longest that the lease may live, in seconds.
    pub max_ttl_seconds: Option<u64>,
    /// The role that it wants instead of the one asked for.
    pub narrower_role: Option<String>,
    /// What the request must have: `reason`, `ticket`, `approval`.
    pub requires: Option<Vec<String>>,
    /// Labels for the audit record.
    pub labels: Option<std::collections::BTreeMap<String, String>>,
    /// What of the request it read, such as `role` or `attribute env`; absent where it read nothing.
    pub looked_at: Option<Vec<String>>,
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
        assert_eq!(uri(&v6, "v-x", Some("p@:/")), "postgres://v-x:p%40%3A%2F@[::1]:5432/a%20b");
        let none = endpoint("mysql", "db", 3306, None);
        assert_eq!(uri(&none, "v-é%", Some("#?&")), "mysql://v-%C3%A9%25:%23%3F%26@db:3306");
        let directory = endpoint("ldaps", "directory", 636, None);
        assert_eq!(uri(&directory, "cn=v,dc=x", Some("p")), "ldaps://directory:636");
        assert_eq!(uri(&none, "v-x", None), "mysql://v-x@db:3306");
    }
}
