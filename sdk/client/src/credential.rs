//! What the broker hands out: a lease, and the secret that goes with it.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Deref;
use std::time::Duration;

use jiff::Timestamp;
use jit_api::{Connection, IssueReply, LeaseState, LeaseView, MadeByCaller, Password};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use crate::clock::{Clock, until};
use crate::own::with_password;

/// A lease without its secret, as the broker described it last: its fields are those of [`LeaseView`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    #[serde(flatten)]
    pub(crate) view: LeaseView,
    /// When the broker said so.
    #[serde(skip)]
    pub(crate) seen: Option<Seen>,
}

impl Deref for Lease {
    type Target = LeaseView;

    fn deref(&self) -> &LeaseView {
        &self.view
    }
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
    pub fn length(&self) -> Duration {
        Duration::from_secs(self.term.ttl_seconds.into())
    }

    /// When the broker said so; of a lease from a file, as if it had said so now.
    pub(crate) fn seen(&self, clock: &dyn Clock) -> Seen {
        self.seen.unwrap_or_else(|| Seen { steady: clock.steady(), broker: clock.wall() })
    }

    /// How long the present term still is. A wall clock that was set since makes no difference.
    #[must_use]
    pub fn remaining(&self, clock: &dyn Clock) -> Duration {
        self.seen(clock).steady_at(self.term.expires_at).saturating_sub(clock.steady())
    }
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

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential")
            .field("lease", &self.lease)
            .field("username", &self.username)
            .field("connection", &self.connection)
            .finish_non_exhaustive()
    }
}

/// The credential of a reply.
///
/// # Errors
/// In words, when it is of another type than was asked for.
pub(crate) fn credential(reply: IssueReply, seen: Seen, own: Option<SecretString>) -> Result<Credential, String> {
    let mut connection = reply.connection;
    let (username, password) = match (reply.credential, own) {
        (jit_api::Credential::Password(Password { username, password }), None) => (username, password),
        (jit_api::Credential::Verifier(MadeByCaller { username, .. }), Some(own)) => {
            if let Some(connection) = &mut connection {
                connection.uri = with_password(&connection.uri, &username, &own);
            }
            (username, own)
        }
        _ => return Err("its credential is of another type than was asked for".to_owned()),
    };
    let view = LeaseView {
        lease_id: reply.lease_id,
        // Nothing is handed out of another.
        state: LeaseState::Active,
        target: reply.target,
        role: reply.role,
        ephemeral_id: reply.ephemeral_id,
        revocable: reply.revocable,
        note: None,
        usable_until: None,
        term: reply.term,
        reason: None,
        ticket: None,
        metadata: BTreeMap::new(),
    };
    Ok(Credential {
        lease: Lease { view, seen: Some(seen) },
        username,
        password,
        connection,
        properties: reply.properties,
        revocable: reply.revocable.unwrap_or(true),
        previous_valid_until: reply.previous_valid_until,
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use jit_api::Term;

    use super::*;

    /// An active lease of target `t` and role `r`.
    pub(crate) fn view(lease_id: &str, account: &str, term: Term) -> LeaseView {
        LeaseView {
            lease_id: lease_id.to_owned(),
            state: LeaseState::Active,
            target: "t".to_owned(),
            role: "r".to_owned(),
            ephemeral_id: account.to_owned(),
            revocable: None,
            note: None,
            usable_until: None,
            term,
            reason: None,
            ticket: None,
            metadata: BTreeMap::new(),
        }
    }
}
