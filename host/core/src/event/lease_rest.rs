//! What a record says of a lease beside the fields that every event of it has: with it the lease can be made again from
//! the log alone, when the store is lost.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::account::AccountName;
use crate::lease::{CallersVerifier, DriverRef, Idempotency, Lease};
use crate::place::Place;

/// The rest of a lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeaseRest {
    /// The name that the host chose, where the backend chose another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<AccountName>,
    /// The backend's own handle of the account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_id: Option<String>,
    /// The driver's name in the configuration.
    pub plugin: String,
    /// The connection's name in the configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection: Option<String>,
    /// What the driver calls itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    /// The target's `config` table as JSON, where it had one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<String>,
    /// Where the account is (RIGHT-PLACE).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<Place>,
    /// When it was asked for.
    pub issued_at: Timestamp,
    /// What no renewal passes.
    pub max_expires_at: Timestamp,
    /// Whether its driver can renew. Said only where it can.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub renewable: bool,
    /// Whether the account stays after the lease. Said only where it does.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub standing: bool,
    /// The caller's Idempotency-Key, as digests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency: Option<Idempotency>,
    /// A caller's verifier, as a digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verifier: Option<CallersVerifier>,
}

impl LeaseRest {
    /// Of that lease.
    #[must_use]
    pub fn of(lease: &Lease) -> Box<Self> {
        let DriverRef { plugin, connection, sha256: _, name, config, place } = lease.driver.clone();
        Box::new(Self {
            account: lease.username.as_ref().map(|_| lease.account.clone()),
            external_id: lease.external_id.clone(),
            plugin,
            connection,
            driver: name,
            config,
            place,
            issued_at: lease.issued_at,
            max_expires_at: lease.max_expires_at,
            renewable: lease.renewable,
            standing: lease.standing,
            idempotency: lease.idempotency.clone(),
            verifier: lease.verifier.clone(),
        })
    }

    /// Who made the account, with the digest that the record has in a field of its own.
    #[must_use]
    pub fn driver_ref(&self, sha256: String) -> DriverRef {
        DriverRef {
            plugin: self.plugin.clone(),
            connection: self.connection.clone(),
            sha256,
            name: self.driver.clone(),
            config: self.config.clone(),
            place: self.place.clone(),
        }
    }
}
