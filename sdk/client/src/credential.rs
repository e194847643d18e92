//! What the broker hands out: a lease, and the secret that goes with it.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use crate::clock::{Clock, until};

/// The state of a lease, as the broker tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LeaseState {
    /// Its account is being made.
    Pending,
    /// It can be used.
    Active,
    /// Its account is being removed.
    Revoking,
    /// It is over.
    Revoked,
    /// Whether its account was made is not known; it is being removed.
    Doubtful,
}

/// A lease without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The lease.
    pub lease_id: String,
    /// The target.
    pub target: String,
    /// The role that was granted; policies may narrow what was asked for.
    pub role: String,
    /// The account's name.
    pub ephemeral_id: String,
    /// When it was issued.
    pub issued_at: Timestamp,
    /// When the present term ends.
    pub expires_at: Timestamp,
    /// The length of the present term.
    pub ttl_seconds: u32,
    /// 80 % of the present term.
    pub renew_after: Timestamp,
    /// What no renewal passes.
    pub max_expires_at: Timestamp,
    /// Whether it can be renewed.
    pub renewable: bool,
    /// Its state, where the broker was asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<LeaseState>,
    /// When the broker said so.
    #[serde(skip)]
    pub(crate) seen: Option<Seen>,
}

/// The moment of an answer, by the steady clock and by the broker's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) steady: Duration,
    pub(crate) broker: Timestamp,
}

impl Seen {
    /// When that time comes, by the steady clock.
    pub(crate) fn steady_at(&self, at: Timestamp) -> Duration {
        self.steady + until(self.broker, at)
    }
}

impl Lease {
    /// The length of the present term.
    #[must_use]
    pub fn term(&self) -> Duration {
        Duration::from_secs(self.ttl_seconds.into())
    }

    /// When the broker said so; of a lease from a file, as if it had said so now.
    pub(crate) fn seen(&self, clock: &dyn Clock) -> Seen {
        self.seen.unwrap_or_else(|| Seen { steady: clock.steady(), broker: clock.wall() })
    }

    /// How long the present term still is. A wall clock that was set since makes no difference.
    #[must_use]
    pub fn remaining(&self, clock: &dyn Clock) -> Duration {
        self.seen(clock).steady_at(self.expires_at).saturating_sub(clock.steady())
    }
}

/// Where to connect.
#[derive(Clone, Deserialize)]
pub struct Connection {
    /// Host name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// The database, where the target has such a thing.
    #[serde(default)]
    pub database: Option<String>,
    /// All of it with the credential, as one URI.
    pub uri: SecretString,
}

/// A credential: what to log in with, where, and the lease that bounds it.
#[derive(Clone)]
pub struct Credential {
    /// Its lease, as it was issued. Renewals move the lease's end, not this copy's.
    pub lease: Lease,
    /// The account's name.
    pub username: String,
    /// Its password.
    pub password: SecretString,
    /// Where to connect.
    pub connection: Option<Connection>,
    /// What else the driver said.
    pub properties: BTreeMap<String, String>,
    /// `false` where the account stands before and after the lease.
    pub revocable: bool,
    /// Of a rotating account: until when the password before this one works.
    pub previous_valid_until: Option<Timestamp>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port, database, uri: _ } = self;
        f.debug_struct("Connection").field("host", host).field("port", port).field("database", database).finish()
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential")
            .field("lease", &self.lease)
            .field("username", &self.username)
            .field("connection", &self.connection)
            .finish_non_exhaustive()
    }
}

/// The reply to `POST /issue`.
#[derive(Deserialize)]
pub(crate) struct IssueReply {
    lease_id: String,
    target: String,
    role: String,
    ephemeral_id: String,
    credential: Login,
    #[serde(default)]
    connection: Option<Connection>,
    #[serde(default)]
    properties: BTreeMap<String, String>,
    #[serde(default)]
    revocable: Option<bool>,
    #[serde(default)]
    previous_valid_until: Option<Timestamp>,
    issued_at: Timestamp,
    expires_at: Timestamp,
    ttl_seconds: u32,
    renew_after: Timestamp,
    max_expires_at: Timestamp,
    renewable: bool,
}

#[derive(Deserialize)]
struct Login {
    username: String,
    password: SecretString,
}

impl IssueReply {
    pub(crate) fn into_credential(self, seen: Seen) -> Credential {
        let lease = Lease {
            lease_id: self.lease_id,
            target: self.target,
            role: self.role,
            ephemeral_id: self.ephemeral_id,
            issued_at: self.issued_at,
            expires_at: self.expires_at,
            ttl_seconds: self.ttl_seconds,
            renew_after: self.renew_after,
            max_expires_at: self.max_expires_at,
            renewable: self.renewable,
            state: None,
            seen: Some(seen),
        };
        Credential {
            lease,
            username: self.credential.username,
            password: self.credential.password,
            connection: self.connection,
            properties: self.properties,
            revocable: self.revocable.unwrap_or(true),
            previous_valid_until: self.previous_valid_until,
        }
    }
}
